"""Files of text, Markdown and HTML: what they say, in which language, and under which title."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from ....errors import InputError
from ....files import read_bytes
from ....media.language_codes import find_language
from .listing import FoundFile

MAX_BYTES = 50 << 20  # of one file; nobody reads more as one document

BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
HEADING = re.compile(r"^#[ \t]+(.*)$", re.MULTILINE)

# Web pages name encodings by older names than what they are in (https://encoding.spec.whatwg.org/#names-and-labels).
WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252", "shift_jis": "cp932",
         "euc_kr": "cp949", "iso8859-9": "cp1254", "iso8859-11": "cp874"}  # fmt: skip
CHARSET = re.compile(rb"""<(?:meta|\?xml)\b[^>]*?\b(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
UNSEEN = frozenset(("head", "iframe", "noscript", "object", "script", "style", "svg", "template"))
INLINE = frozenset((
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "label",
    "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
    "var", "wbr",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class WrittenText:
    """What a file says: `text`, and `title` and `lang` where it has them."""

    text: str
    title: str | None = None
    lang: str | None = None


def read_written_text(file: FoundFile) -> WrittenText:
    """The text of a file by its ending; `InputError` on what is no text, and on more than 50 MB."""
    if file.size > MAX_BYTES:
        raise InputError(f"{file.size:,} bytes of text, and at most {MAX_BYTES:,} are one document: split it")
    content = read_bytes(file.path)
    if file.suffix in (".html", ".htm", ".xhtml"):
        return read_web_page(content)
    text = decode_text(content)
    headings = HEADING.findall(text[:10_000]) if file.suffix in (".md", ".markdown") else ()
    return WrittenText(text.strip(), next(filter(None, (each.rstrip(" \t#\r") for each in headings)), None))


def decode_text(content: bytes, encoding: str = "utf-8") -> str:
    """Bytes in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as text; `InputError` on what is none.

    `encoding` is what they are in without a mark, if they are.
    """
    marked = next((name for mark, name in BOMS.items() if content.startswith(mark)), None)
    try:
        text = content.decode(marked or encoding)
    except UnicodeDecodeError as error:
        form = (marked or encoding).upper().removesuffix("-SIG")
        raise InputError(f"not {form} text ({error.reason} at byte {error.start}): convert it to UTF-8") from None
    if "\0" in text:
        raise InputError("not text (it has NUL bytes): a binary file, or UTF-16 without a byte order mark?")
    return text


def read_web_page(content: bytes) -> WrittenText:
    """The title and visible text of HTML, a line for each block, and the language that it declares.

    `InputError` on what is no text, and on elements nested too deeply to be read.
    """
    import lxml.etree
    import lxml.html

    # Decoded here, for lxml takes what no encoding is declared for as Latin-1.
    declared = CHARSET.search(content[:2048])
    text = decode_text(content, _find_encoding(declared[1].decode("ascii")) if declared else "utf-8")
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        page = lxml.html.document_fromstring(text.encode("utf-8", "replace"), parser)
    except lxml.etree.ParserError:  # there is no element in it
        return WrittenText("")
    if (last := parser.error_log.last_error) is not None and last.type == lxml.etree.ErrorTypes.ERR_RESOURCE_LIMIT:
        raise InputError(f"not read to its end ({last.message.partition(',')[0]}): make it simpler")
    title = " ".join((page.findtext(".//title") or "").split())
    lang = page.get("lang") or page.get("{http://www.w3.org/XML/1998/namespace}lang")
    text = _join_blocks(page)
    if text and title and text.partition("\n")[0] != title:
        text = f"{title}\n{text}"
    return WrittenText(text, title or None, find_language(lang))


def _find_encoding(label: str) -> str:
    try:
        name = codecs.lookup(label).name
        b"a".decode(name)
        # A label that could be read is not in UTF-16, and Python's own codecs are not for web pages.
        return "utf-8" if name.startswith(("utf-16", "unicode", "raw-unicode")) else WIDER.get(name, name)
    except (LookupError, UnicodeError):  # it is no encoding of text, or none at all
        return "utf-8"


def _join_blocks(page: object) -> str:
    import lxml.etree

    parts: list[str] = []
    walk = lxml.etree.iterwalk(page, events=("start", "end"))
    for event, element in walk:
        edge = "" if element.tag in INLINE or element.tag in UNSEEN else "\n"
        if event == "end":
            parts += (edge, (element.tail or "").replace("\n", " "))
        elif element.tag in UNSEEN:
            walk.skip_subtree()
        else:
            kept = element.text or ""
            parts += (edge, kept if element.tag == "pre" else kept.replace("\n", " "))
    lines = (" ".join(line.split()) for line in "".join(parts).splitlines())
    return "\n".join(line for line in lines if line)
