"""Pages of LibreOffice's HTML help: title (perhaps empty), blocks of text without navigation, and links to other pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal, NamedTuple

from crosslens.errors import InputError

Kind = Literal["heading", "prose", "code"]

VOID = {
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
}  # fmt: skip
BLOCKS = {
    "article", "aside", "blockquote", "br", "dd", "details", "div", "dl", "dt", "figure", "h1", "h2", "h3", "h4",
    "h5", "h6", "li", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
# Inside the page proper, these are navigation: related topics, and the line `To access this command...`.
NAVIGATION = frozenset(["relatedtopics", "related", "howtogetheader", "noteicon", "youtube_consent", "bug"])
SILENT = frozenset(["script", "style", "nav", "object", "video", "button", "title"])
CODE = frozenset(["code", "codeintable", "smathcode"])
SWITCH = frozenset(["switch", "switchinline"])  # variants by system or application; browsers show one
OTHER_SYSTEMS = frozenset(["MAC", "WIN"])
APPLICATIONS = {
    "swriter": "WRITER", "scalc": "CALC", "simpress": "IMPRESS", "sdraw": "DRAW", "smath": "MATH",
    "schart": "CHART", "sdatabase": "BASE", "sbasic": "BASIC",
}  # fmt: skip

# A sentence ends at a stop before a capital, though not after `e.g.`, `i.e.`, `etc.` or an initial.
SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!\b[A-Z])[.!?]\s+(?=[A-Z\"“(])")
WORD = re.compile(r"[^\W\d_]{2,}")


class Block(NamedTuple):
    """A paragraph, heading or listing; `section` is `howtoget` inside `To access this command...`."""

    kind: Kind
    text: str
    section: str = ""


@dataclass(frozen=True)
class Page:
    """One page.

    `links` are paths below the language's `text/`, without those of `To access this command`. `linked_headings`
    are among the blocks, `linked_paragraphs`, which were nothing but links, are not.
    """

    title: str
    blocks: tuple[Block, ...]
    links: frozenset[str]
    linked_headings: int
    linked_paragraphs: int

    @property
    def text(self) -> str:
        """What stands below the title, one block a line; a first heading that repeats the title is left out."""
        repeated = self.blocks and self.blocks[0].kind == "heading" and self.blocks[0].text == self.title
        return "\n".join(block.text for block in self.blocks[bool(repeated) :])

    @property
    def is_navigation(self) -> bool:
        """Whether it leads to other pages: most of its headings below the first are links, or its paragraphs."""
        headings = sum(block.kind == "heading" for block in self.blocks[1:])
        return (self.linked_headings > 1 and 2 * self.linked_headings >= headings) or (
            self.linked_paragraphs > max(7, len(self.blocks))
        )

    @property
    def sentence(self) -> str | None:
        """The first sentence of the first paragraph with one, menu paths left aside."""
        for block in self.blocks:
            if block.kind != "prose" or block.section:
                continue
            first = SENTENCE_END.split(block.text, maxsplit=1)[0]
            sentence = block.text[: len(first) + 1]
            if len(WORD.findall(sentence)) >= 4 and sentence[-1] in ".!?":
                return sentence
        return None


def read_page(html: str, path: str) -> Page:
    """The page of `path` (`swriter/guide/spellcheck.html`); `InputError` where it is no help page.

    Kept is what stands in the display area: no header, menus, search, donation or debugging frame. Of that,
    lists of related topics, paragraphs that are nothing but links, icons and the variants for other systems
    and applications are left out.
    """
    parser = _Parser(APPLICATIONS.get(path.partition("/")[0]))
    parser.feed(html)
    parser.close()
    if not parser.displayed:
        raise InputError(f"{path}: not a page of LibreOffice's help (it has no display area)")
    return Page(
        squeezed(parser.titles), tuple(parser.blocks), frozenset(parser.links - {path}),
        parser.linked_headings, parser.linked_paragraphs,
    )  # fmt: skip


def squeezed(parts: Sequence[str]) -> str:
    return " ".join("".join(parts).split())


@dataclass
class _Open:
    """An open element: what is true inside, and of a switch whether one of its cases was shown."""

    tag: str
    state: frozenset[str]
    switch: bool
    answered: bool = False


class _Parser(HTMLParser):
    """Collects the blocks of a page that belongs to an application, or to all (None)."""

    def __init__(self, application: str | None) -> None:
        super().__init__(convert_charrefs=True)
        self._application = application
        self.titles: list[str] = []
        self.blocks: list[Block] = []
        self.links: set[str] = set()
        self.linked_headings = self.linked_paragraphs = 0
        self.displayed = False
        self._stack: list[_Open] = []
        self._text: list[str] = []
        self._unlinked = False
        self._linked = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in BLOCKS:
            self._flush()
        given = {key: value or "" for key, value in attributes}
        if tag in VOID:
            return
        classes = frozenset(given.get("class", "").split())
        state = self._state | self._marks(tag, given, classes)
        if self._stack and self._stack[-1].switch and not self._shown(self._stack[-1], classes):
            state |= {"hidden"}
        if tag == "a" and "page" in state and not state & {"howtoget", "hidden"}:
            target = re.fullmatch(r"[\w-]+/text/([\w/.+-]+\.html)(?:#.*)?", given.get("href", ""))
            if target:
                self.links.add(target[1])
        self._stack.append(_Open(tag, state, bool(classes & SWITCH)))

    def handle_endtag(self, tag: str) -> None:
        if tag in BLOCKS:
            self._flush()
        for depth in range(len(self._stack) - 1, -1, -1):  # an element left open ends with its parent
            if self._stack[depth].tag == tag:
                del self._stack[depth:]
                return

    def handle_data(self, data: str) -> None:
        if self._stack and self._stack[-1].tag == "title":
            self.titles.append(data)
        elif "page" in self._state and not self._state & {"navigation", "hidden"}:
            self._text.append(data)
            if data.strip():
                if "link" in self._state:
                    self._linked = True
                elif WORD.search(data):
                    self._unlinked = True

    def close(self) -> None:
        super().close()
        self._flush()

    @property
    def _state(self) -> frozenset[str]:
        return self._stack[-1].state if self._stack else frozenset()

    def _shown(self, switch: _Open, case: frozenset[str]) -> bool:
        """Whether this case of a switch is ours: the page's application, or the first; the default comes last."""
        other = self._application and case & frozenset(APPLICATIONS.values()) - {self._application}
        if switch.answered or other or case & OTHER_SYSTEMS:
            return False
        switch.answered = True
        return True

    def _marks(self, tag: str, given: Mapping[str, str], classes: frozenset[str]) -> set[str]:
        marks = set()
        if given.get("id") == "DisplayArea":
            self.displayed = True
            marks.add("page")
        if classes & NAVIGATION or tag in SILENT:
            marks.add("navigation")
        if "howtoget" in classes:
            marks.add("howtoget")
        if tag in ("pre", "code") or classes & CODE:
            marks.add("code")
        if tag == "a" and given.get("href"):
            marks.add("link")
        if re.fullmatch("h[1-6]", tag):
            marks.add("heading")
        return marks

    def _flush(self) -> None:
        """End the block that was being read; the stack is still that of its inside."""
        raw = "".join(self._text)
        linked, unlinked = self._linked, self._unlinked
        self._text.clear()
        self._linked = self._unlinked = False
        if not raw.strip():
            return
        state = self._state
        if linked and not unlinked:
            if "heading" not in state:
                self.linked_paragraphs += 1
                return
            self.linked_headings += 1  # kept: it says what the paragraph below it is about
        section = "howtoget" if "howtoget" in state else ""
        if "code" in state:
            lines = [line.rstrip() for line in raw.strip("\n").splitlines() if line.strip()]
            self.blocks.append(Block("code", "\n".join(lines), section))
        else:
            kind: Kind = "heading" if "heading" in state else "prose"
            self.blocks.append(Block(kind, squeezed([raw]), section))
