"""The collection `debian-descriptions`: English questions to descriptions of Debian's packages in other languages.

    python benchmarks/collections/debian_descriptions.py DIR [--langs dan,ita,...] [--query title] [--topics N]

Downloads the files Translation-en, -da, -it, ... of the release that this system runs, as apt knows it here (25 MB
for the default languages; no root needed; checked by the Release file that apt has verified), and writes a
collection directory: DIR with all topics, DIR/dev and DIR/test with a half each and the same documents. Choose
weights and prompts on dev, report on test. It is for scale: some 130,000 documents.

A document is a description in a language, `dan/0ad-d943033bedad`: a package that has it, and the start of the MD5
of its English text, by which Debian's translators align. A topic is a description, `0ad-d943033bedad`, worded by
its English first line (`--fields title`) or first paragraph (`--fields description`); without `--fields` it is
what `--query` says. The judgements follow from the alignment and no person made them: grade 3 is the translation;
descriptions that answer as well by chance, as of related packages, are unjudged. With `eng` among the languages
the English originals are documents too: they hold the queries word for word and show how a system favours the
language of the query.

Left out, and counted in DIR/card.json: near-empty and untranslated descriptions, those of no current English
text, repeated ones; topics whose first line or paragraph is not their own, or whose first line is no more than one
word. In descriptions that stay, paragraphs left in English are removed. Languages are not identified: of 130,000
descriptions that were, 42 seemed to be in another language, and each that was looked at was not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apt_indexes import Index, Release, release
from cards import counted, readme, sampled_by_language, write_card
from crosslens.commands.console import run_guarded
from crosslens.errors import InputError, list_few
from descriptions import Description, read_descriptions
from directory import Judgement, Topic, new_directory, write_docs, write_topics
from locales import chosen

QUERIES = {"title": ("title",), "paragraph": ("description",), "title+paragraph": ("title", "description")}
FILES = re.compile(r"main/i18n/Translation-([A-Za-z_@]+)(?:\.\w+)?")
LEAST_FILE = 1000  # packed bytes; a smaller file holds a handful of descriptions

LEAST_ENGLISH = 80  # letters of an English description below its first line
LEAST_TRANSLATED = 20  # letters that a Chinese description of that size has
UNTRANSLATED = 0.5  # share of a description's English letters, in paragraphs still in English, that leaves it out
WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass
class Count:
    """Why descriptions and topics were left out: reason -> how many."""

    documents: dict[str, Counter[str]] = field(default_factory=dict)
    topics: Counter[str] = field(default_factory=Counter)
    removed_paragraphs: Counter[str] = field(default_factory=Counter)


def usable(english: Description) -> bool:
    """Whether an English description says enough to have a place in the collection."""
    return bool(english.title) and letters(english.paragraphs) >= LEAST_ENGLISH


def translated(given: Description, english: Description) -> tuple[Description | None, str | int]:
    """The description without paragraphs still in English, and how many those were; or None and why not."""
    if bare(given.title) == bare(english.title) and len(WORD.findall(given.title)) > 1:
        return None, "first line not translated"
    originals = {bare(paragraph) for paragraph in english.paragraphs}
    kept, english_letters = [], 0
    for paragraph in given.paragraphs:
        # Names of programs and single words may well be the same in every language.
        if bare(paragraph) in originals and len(WORD.findall(paragraph)) > 1:
            english_letters += letters([paragraph])
        else:
            kept.append(paragraph)
    if letters(kept) < LEAST_TRANSLATED or english_letters > UNTRANSLATED * letters(english.paragraphs):
        return None, "text not translated"
    return replace(given, paragraphs=tuple(kept)), len(given.paragraphs) - len(kept)


def bare(text: str) -> str:
    """The letters alone, whatever the case."""
    return "".join(filter(str.isalpha, text)).casefold()


def letters(texts: Iterable[str]) -> int:
    return sum(character.isalpha() for text in texts for character in text)


def documents(
    lang: str, found: Iterable[Description], english: Mapping[str, Description], held: dict[str, set[str]], count: Count
) -> Iterator[dict[str, Any]]:
    """The documents of one language as records; `held` gets the MD5 of those in the collection."""
    left = count.documents.setdefault(lang, Counter())
    have = held.setdefault(lang, set())
    seen: set[bytes] = set()
    for description in found:
        original = english.get(description.md5)
        if original is None:
            left["no current English text"] += 1
            continue
        if description.md5 in have:
            left["the same description of another package"] += 1
            continue
        if not usable(original):
            left["near-empty"] += 1
            continue
        good, why = (description, 0) if lang == "eng" else translated(description, original)
        if good is None:
            left[str(why)] += 1
            continue
        content = hashlib.sha256(f"{good.title}\n{good.text}".encode()).digest()
        if content in seen:
            left["the same words as another description"] += 1
            continue
        count.removed_paragraphs[lang] += int(why)
        seen.add(content)
        have.add(good.md5)
        yield {"id": doc_id(lang, original), "title": good.title, "text": good.text, "lang": lang}


def topics(
    english: Mapping[str, Description], held: Mapping[str, set[str]], query: str, count: Count
) -> Iterator[Topic]:
    """The topics of descriptions that some language other than English holds."""
    candidates = [description for description in english.values() if usable(description)]
    titles = Counter(bare(description.title) for description in candidates)
    firsts = Counter(bare(description.paragraphs[0]) for description in candidates)
    for description in sorted(candidates, key=topic_id):
        langs = sorted(lang for lang, have in held.items() if description.md5 in have)
        if set(langs) <= {"eng"}:
            continue
        if titles[bare(description.title)] > 1:
            count.topics["several descriptions have the first line"] += 1
        elif len(WORD.findall(description.title)) < 2:
            count.topics["first line of one word"] += 1
        elif firsts[bare(description.paragraphs[0])] > 1:
            count.topics["several descriptions have the first paragraph"] += 1
        else:
            wording = {"title": description.title, "description": description.paragraphs[0]}
            text = "\n".join(wording[part] for part in QUERIES[query])
            yield Topic(
                {"id": topic_id(description), "text": text, "lang": "eng", **wording},
                [Judgement(doc_id(lang, description), lang, 3) for lang in langs],
            )


def topic_id(english: Description) -> str:
    return f"{english.package}-{english.md5[:12]}"


def doc_id(lang: str, english: Description) -> str:
    return f"{lang}/{topic_id(english)}"


def build(target: Path, langs: str, query: str, most: int | None, codename: str | None) -> dict[str, Any]:
    """Write the collection into `target` and return its card."""
    with new_directory(target) as root, tempfile.TemporaryDirectory(prefix="debian-descriptions-") as name:
        known = release(codename)
        available = sizes(known)
        locales = chosen(langs, available, f"Debian {known.codename} has no descriptions")
        if set(locales) == {"eng"}:
            raise InputError("no translations to search in: --langs needs a language other than English")
        indexes = {lang: index(known, locale) for lang, locale in {"eng": "en", **locales}.items()}
        print(f"reading {indexes['eng'].name}", file=sys.stderr)
        english = {description.md5: description for description in read(known, indexes["eng"], Path(name))}
        held: dict[str, set[str]] = {}
        count = Count()

        def docs() -> Iterator[dict[str, Any]]:
            for lang in locales:
                print(f"reading {indexes[lang].name}", file=sys.stderr)
                found = english.values() if lang == "eng" else read(known, indexes[lang], Path(name))
                yield from documents(lang, found, english, held, count)

        write_docs(root, docs())
        if empty := [lang for lang in locales if not held.get(lang)]:
            raise InputError(f"no translated description in {list_few(empty)}: nothing to search in")
        asked = sampled_by_language(list(topics(english, held, query, count)), most)
        write_topics(root, asked)
        card = {
            "name": "debian-descriptions",
            "judgements": (
                "derived from the alignment of the translations, by no person: grade 3 the description in the "
                "document's language; all others are unjudged, not irrelevant"
            ),
            "licence": "that of the package described, as its file debian/copyright says",
            "release": {"codename": known.codename, "date": known.date},
            "sources": [index.to_json() for index in indexes.values()],
            "query": query,
            "documents": {lang: len(held[lang]) for lang in sorted(held)},
            "English descriptions": len(english),
            **counted(asked),
            "documents left out": {lang: dict(sorted(left.items())) for lang, left in sorted(count.documents.items())},
            "English paragraphs removed": dict(sorted(count.removed_paragraphs.items())),
            "topics left out": dict(sorted(count.topics.items())),
        }
        write_card(root, card, described(card))
    return card


def sizes(known: Release) -> dict[str, int]:
    """Locale -> packed bytes of its descriptions, for the locales that have some."""
    locales = {match[1] for name in known.indexes if (match := FILES.fullmatch(name))}
    found = {locale: index(known, locale).size for locale in locales}
    return {locale: size for locale, size in sorted(found.items()) if size >= LEAST_FILE}


def index(known: Release, locale: str) -> Index:
    found = known.packed(f"main/i18n/Translation-{locale}")
    if found is None:
        raise InputError(f"Debian {known.codename} has no packed Translation-{locale}")
    return found


def read(known: Release, index: Index, folder: Path) -> Iterator[Description]:
    lines = known.read(index, folder).decode("utf-8").split("\n")
    return read_descriptions(lines, Path(index.name).name)


def described(card: Mapping[str, Any]) -> str:
    return readme(
        f"English queries ({card['query']}), descriptions of packages in Debian {card['release']['codename']} "
        "in other languages as documents.",
        "debian_descriptions.py",
        card,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument(
        "--langs", default="dan,deu,fra,ita,jpn,rus,zho", help="ISO codes or tags, or all (%(default)s)"
    )
    parser.add_argument("--query", choices=sorted(QUERIES), default="title", help="the topics' text (%(default)s)")
    parser.add_argument(
        "--topics", type=int, metavar="N", default=200, help="at most N topics for each half and language (%(default)s)"
    )
    parser.add_argument("--release", metavar="CODENAME", help="a release in apt's sources (this system's own)")
    arguments = parser.parse_args()
    if arguments.topics < 1:
        parser.error("--topics must be at least 1")
    card = build(arguments.directory, arguments.langs, arguments.query, arguments.topics, arguments.release)
    print(described(card), file=sys.stderr)
    print(json.dumps(card, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(main))
