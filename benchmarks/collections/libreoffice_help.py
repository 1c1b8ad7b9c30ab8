"""The collection `libreoffice-help`: English questions to LibreOffice's help in other languages.

    python benchmarks/collections/libreoffice_help.py DIR [--langs rus,zho] [--query title] [--topics N]

Downloads the Debian packages libreoffice-help-en-us, -ru, -zh-cn, ... as apt knows them here (8 MB for these
three; no root needed) and writes a collection directory: DIR with all topics, DIR/dev and DIR/test with a half
each and the same documents. Choose weights and prompts on dev, report on test.

A document is a help page in a language, `rus/scalc/guide/autofilter`. A topic is a page, `scalc/guide/autofilter`,
worded by its English title (`--fields title`) or first sentence (`--fields description`); without `--fields` it is
what `--query` says. The judgements follow from the alignment of the pages and no person made them: grade 3 is the
same page, grade 1 a page that the English one links to, and pages that answer as well by chance are unjudged.

Left out, and counted in DIR/card.json: navigation, fragments that other pages embed, near-empty and untranslated
pages, pages in the wrong language, repeated texts; topics whose title or sentence is not their own, or whose title
is no more than one word or names of products. In pages that stay, paragraphs left in English are removed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cards import readme, write_card
from crosslens.commands.console import run_guarded
from crosslens.errors import InputError, list_few
from crosslens.multilingual.languages import identify, name_language, parse_language
from debian_packages import Package, download, unpack
from directory import HALVES, Judgement, Topic, half_of, new_directory, sampled, write_docs, write_topics
from help_pages import WORD, Page, read_page

# The packages libreoffice-help-* of Debian 12; of two packages for one language the first is its default.
PACKAGES = (
    "ca", "cs", "da", "de", "dz", "el", "es", "et", "eu", "fi", "fr", "gl", "hi", "hu", "id", "it", "ja", "km", "ko",
    "nl", "om", "pl", "pt", "pt-br", "ru", "sk", "sl", "sv", "tr", "vi", "zh-cn", "zh-tw",
)  # fmt: skip
QUERIES = {"title": ("title",), "sentence": ("description",), "title+sentence": ("title", "description")}

LEAST_ENGLISH = 80  # letters of an English page below its title, without code
LEAST_TRANSLATED = 20  # letters that a Chinese page of that size has
UNTRANSLATED = 0.5  # share of a page's English letters, in paragraphs still in English, that leaves it out
# Products, and what `IMSIN Function` is; a title of these and one other word is a name, not a question.
NAMES = {
    "libreoffice", "openoffice", "writer", "calc", "impress", "draw", "math", "base", "chart", "basic", "python", "vba",
    "function", "functions", "statement", "operator", "method", "property", "service", "object", "keyword", "constant",
    "library", "command",
}  # fmt: skip


@dataclass
class Count:
    """Why pages and topics were left out: reason -> how many."""

    pages: dict[str, Counter[str]] = field(default_factory=dict)
    topics: Counter[str] = field(default_factory=Counter)
    removed_blocks: Counter[str] = field(default_factory=Counter)


def chosen(langs: str) -> dict[str, str]:
    """ISO 639-3 code -> suffix of its package, from `rus,zho` or `ru,zh-tw`; `InputError` on what has none."""
    found: dict[str, str] = {}
    for given in filter(None, (part.strip() for part in langs.split(","))):
        code = parse_language(given)
        suffix = given.lower().replace("_", "-")
        if suffix not in PACKAGES:
            fitting = [package for package in PACKAGES if parse_language(package) == code]
            if not fitting:
                known = ", ".join(sorted({parse_language(package) for package in PACKAGES}))
                raise InputError(
                    f"Debian has no libreoffice-help in {name_language(code)} to search in (it has {known})"
                )
            suffix = fitting[0]
        if found.setdefault(code, suffix) != suffix:
            raise InputError(f"{found[code]} and {suffix} are both {code}: choose one of them")
    if not found:
        raise InputError("no languages: --langs rus,zho")
    return dict(sorted(found.items()))


@contextmanager
def unpacked(named: Mapping[str, str]) -> Iterator[dict[str, tuple[Path, Package]]]:
    """By language the folder that its package, by name, is unpacked in, and the package; gone with the block."""
    with tempfile.TemporaryDirectory(prefix="libreoffice-help-") as name:
        work = Path(name)
        (work / "packages").mkdir()
        print(f"downloading {', '.join(named.values())}", file=sys.stderr)
        packages = download(list(named.values()), work / "packages")
        for lang, package in named.items():
            unpack(packages[package], work / lang)
        yield {lang: (work / lang, packages[package]) for lang, package in named.items()}


def pages(root: Path, package: Package) -> Iterator[tuple[str, Page]]:
    """The pages of an unpacked package in the order of their paths (`scalc/guide/autofilter.html`)."""
    bases = [path for path in root.glob("usr/share/libreoffice/help/*/text") if path.is_dir()]
    if len(bases) != 1:
        raise InputError(
            f"{package.name} {package.version} is not laid out as expected: {len(bases)} folders help/*/text"
        )
    for path in sorted(bases[0].rglob("*.html"), key=lambda path: path.relative_to(bases[0]).as_posix()):
        where = path.relative_to(bases[0]).as_posix()
        yield where, read_page(path.read_text("utf-8"), where)


def usable(page: Page, path: str) -> str | None:
    """Why an English page has no place in the collection; None if it has."""
    if "/00/" in path:
        return "fragments that other pages embed"
    if page.is_navigation:
        return "navigation"
    if not page.title or letters(block.text for block in page.blocks if block.kind == "prose") < LEAST_ENGLISH:
        return "near-empty"
    return None


def translated(page: Page, english: Page, lang: str) -> tuple[Page | None, str | int]:
    """The page without paragraphs still in English, and how many those were; or None and why it is left out."""
    if page.title == english.title and len(WORD.findall(page.title)) > 1:
        return None, "title not translated"
    originals = {bare(english.title)} | {bare(block.text) for block in english.blocks if block.kind != "code"}
    if english.sentence and any(bare(block.text).startswith(bare(english.sentence)) for block in page.blocks):
        return None, "first sentence not translated"
    kept, english_letters, own_letters = [], 0, 0
    for block in page.blocks:
        size = letters([block.text])
        # Code, names of functions and single words may well be the same in every language.
        if block.kind == "code":
            kept.append(block)
        elif bare(block.text) in originals and len(WORD.findall(block.text)) > 1:
            english_letters += size
        else:
            own_letters += size if block.kind == "prose" else 0
            kept.append(block)
    if own_letters < LEAST_TRANSLATED or english_letters > UNTRANSLATED * letters(originals):
        return None, "text not translated"
    prose = " ".join(block.text for block in kept if block.kind == "prose")
    if identify([prose])[0] not in (lang, None):
        return None, "another language"
    return replace(page, blocks=tuple(kept)), len(page.blocks) - len(kept)


def bare(text: str) -> str:
    """The letters alone: translated pages differ from the English in spaces and quotation marks."""
    return "".join(filter(str.isalpha, text))


def letters(texts: Iterable[str]) -> int:
    return sum(character.isalpha() for text in texts for character in text)


def documents(
    lang: str, found: Iterator[tuple[str, Page]], english: Mapping[str, Page], held: dict[str, set[str]], count: Count
) -> Iterator[dict[str, Any]]:
    """The documents of one language as records; `held` gets the paths that are in the collection."""
    left = count.pages.setdefault(lang, Counter())
    seen: set[str] = set()
    for path, page in found:
        if path not in english:
            left["no English page to compare with"] += 1
            continue
        if reason := usable(english[path], path):
            left[reason] += 1
            continue
        good, why = translated(page, english[path], lang)
        if good is None:
            left[str(why)] += 1
            continue
        if good.text in seen:
            left["the same text as another page"] += 1
            continue
        count.removed_blocks[lang] += int(why)
        seen.add(good.text)
        held.setdefault(lang, set()).add(path)
        yield {"id": doc_id(lang, path), "title": good.title, "text": good.text, "lang": lang}


def topics(english: Mapping[str, Page], held: Mapping[str, set[str]], query: str, count: Count) -> Iterator[Topic]:
    """The topics of pages that some language holds; in each language that has the page, its links are grade 1."""
    candidates = [page for path, page in english.items() if not usable(page, path)]
    titles = Counter(page.title.casefold() for page in candidates)
    sentences = Counter((page.sentence or "").casefold() for page in candidates)
    for path, page in sorted(english.items()):
        langs = sorted(lang for lang, paths in held.items() if path in paths)
        if not langs:
            continue
        sentence = page.sentence
        if titles[page.title.casefold()] > 1:
            count.topics["several pages have the title"] += 1
        elif len(set(words(page.title)) - NAMES) < 2:
            count.topics["title of one word or a name"] += 1
        elif sentence is None:
            count.topics["no sentence"] += 1
        elif sentences[sentence.casefold()] > 1:
            count.topics["several pages have the first sentence"] += 1
        else:
            wording = {"title": page.title, "description": sentence}
            text = "\n".join(wording[part] for part in QUERIES[query])
            judgements = [
                Judgement(doc_id(lang, target), lang, 3 if target == path else 1)
                for lang in langs
                for target in {path, *page.links}
                if target in held[lang]
            ]
            yield Topic({"id": topic_id(path), "text": text, "lang": "eng", **wording}, judgements)


def words(title: str) -> list[str]:
    return [word.casefold() for word in re.findall(r"[^\W\d_]{3,}", title)]


def topic_id(path: str) -> str:
    return path.removesuffix(".html")


def doc_id(lang: str, path: str) -> str:
    return f"{lang}/{topic_id(path)}"


def build(target: Path, langs: Mapping[str, str], query: str, most: int | None) -> dict[str, Any]:
    """Write the collection into `target` and return its card."""
    named = {"eng": "libreoffice-help-en-us", **{c: f"libreoffice-help-{s}" for c, s in langs.items()}}
    with new_directory(target) as root, unpacked(named) as packages:
        english = dict(pages(*packages["eng"]))
        held: dict[str, set[str]] = {}
        count = Count()

        def docs() -> Iterator[dict[str, Any]]:
            for lang in langs:
                print(f"reading {named[lang]}", file=sys.stderr)
                yield from documents(lang, pages(*packages[lang]), english, held, count)

        write_docs(root, docs())
        if empty := [lang for lang in langs if not held.get(lang)]:
            raise InputError(f"no translated page in {list_few(empty)}: nothing to search in")
        asked = sampled(list(topics(english, held, query, count)), most)
        write_topics(root, asked)
        card = make_card([package for _, package in packages.values()], query, held, asked, count)
        write_card(root, card, described(card))
    return card


def make_card(
    packages: Iterable[Package], query: str, held: Mapping[str, set[str]], asked: Sequence[Topic], count: Count
) -> dict[str, Any]:
    """What `card.json` says: sources, counts, and what was left out."""

    def counted(half: str | None) -> dict[str, Any]:
        part = [topic for topic in asked if half is None or half_of(topic.id) == half]
        judged = Counter((j.lang, j.grade) for topic in part for j in topic.judgements)
        per_language = {
            lang: {"topics": judged[lang, 3], "grade 3": judged[lang, 3], "grade 1": judged[lang, 1]}
            for lang in sorted(held)
        }
        return {"topics": len(part), "judgements": judged.total(), "by language": per_language}

    return {
        "name": "libreoffice-help",
        "judgements": (
            "derived from the alignment of the pages, by no person: grade 3 the same page in the document's "
            "language, grade 1 a page that the English page links to; all others are unjudged, not irrelevant"
        ),
        "licence": "MPL-2.0, as LibreOffice's help",
        "sources": [package.to_json() for package in packages],
        "query": query,
        "documents": {lang: len(held[lang]) for lang in sorted(held)},
        "all": counted(None),
        **{half: counted(half) for half in HALVES},
        "pages left out": {lang: dict(sorted(left.items())) for lang, left in sorted(count.pages.items())},
        "English paragraphs removed": dict(sorted(count.removed_blocks.items())),
        "topics left out": dict(sorted(count.topics.items())),
    }


def described(card: Mapping[str, Any]) -> str:
    return readme(
        f"English queries ({card['query']}), help pages in other languages as documents.", "libreoffice_help.py", card
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--langs", default="rus,zho", help="ISO codes or tags, comma-separated (%(default)s)")
    parser.add_argument("--query", choices=sorted(QUERIES), default="title", help="the topics' text (%(default)s)")
    parser.add_argument("--topics", type=int, metavar="N", help="at most N topics in each half (all)")
    arguments = parser.parse_args()
    if arguments.topics is not None and arguments.topics < 1:
        parser.error("--topics must be at least 1")
    card = build(arguments.directory, chosen(arguments.langs), arguments.query, arguments.topics)
    print(described(card), file=sys.stderr)
    print(json.dumps(card, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(main))
