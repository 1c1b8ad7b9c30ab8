"""The collection `emoji`: names of emoji in a hundred languages to their pictures.

    python benchmarks/collections/emoji.py DIR [--langs eng,rus,zho] [--query name] [--topics N]

Downloads the npm packages cldr-annotations-full, cldr-annotations-derived-full and emoji-datasource-google in
the versions below, checked by sha512, and writes a collection directory: DIR with all topics, DIR/dev and
DIR/test with a half each and the same documents. Choose weights and prompts on dev, report on test.

A document is a picture, `1f408-200d-2b1b`, of 64 x 64 pixels and without a word. A topic is a name that an emoji
has in a language, `rus/1f408-200d-2b1b` (`--fields title`), or its keywords (`--fields description`); without
`--fields` it is worded as `--query` says. `--langs all` takes every language in which CLDR names a hundred. An
emoji is in the same half in all languages. The judgements follow from CLDR and no person made them: grade 3 are
the pictures whose emoji has the name, and those that look the same, pixel for pixel (the flags of France and of
Saint Martin); pictures that fit as well are unjudged.

Left out, and counted in DIR/card.json: emoji without a picture or an English name (variants in skin colour are
not in the collection), names of more than one word that are the English ones, emoji without keywords.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cards import NO_LANGUAGE, counted, readme, sampled_by_language, write_card
from crosslens.commands.console import run_guarded
from crosslens.errors import InputError
from directory import Judgement, Topic, new_directory, write_docs, write_topics
from locales import chosen
from npm_packages import Package, download, files
from pictures import FOLDER, link_into_halves, pixels, together

ANNOTATIONS = (
    Package(
        "cldr-annotations-full",
        "48.2.0",
        "sha512-DV7A+rEcgUSNTRsVGNGqBZRmAkGfwhGHO5Q1dRwzBoBnVrHWp804JP7/QJdEc66iHmx3+zLWVIMCFLm0lW7PUQ==",
    ),
    Package(
        "cldr-annotations-derived-full",
        "48.2.0",
        "sha512-log62km+AOzI7n/NEuNNFV0mg9DWnt67EYCh1RwxZq9dyRuyteB586LT83Ke8TchEfnwI9cIk2P31zO4nTvZmw==",
    ),
)
PICTURES = Package(
    "emoji-datasource-google",
    "16.0.0",
    "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
)
QUERIES = {"name": ("title",), "keywords": ("description",), "name+keywords": ("title", "description")}
LEAST_NAMES = 100  # a locale with fewer has begun, or says only what differs from another
PRESENTATION = "\ufe0f"  # asks for a coloured picture; CLDR leaves it out, others write it or not


class Name(NamedTuple):
    """What CLDR calls an emoji in a language; `keywords` with commas between."""

    name: str
    keywords: str


class Emoji(NamedTuple):
    """An emoji with a picture: `characters` without presentation selectors, `look` a hash of its pixels."""

    id: str
    characters: str
    picture: bytes
    look: str


def read_emoji(archive: Path) -> list[Emoji]:
    """The emoji that have a picture in the package, in the order of their ids."""
    listed, pictures = None, {}
    for name, content in files(archive, r"package/(emoji\.json|img/google/64/[0-9a-f-]+\.png)"):
        if name.endswith(".json"):
            listed = json.loads(content)
        else:
            pictures[name.rpartition("/")[2]] = content
    if not listed or not pictures:
        raise InputError(f"{archive.name} is not laid out as expected: no emoji.json or no pictures img/google/64")
    found = []
    for entry in listed:
        if entry["has_img_google"]:
            picture = pictures[entry["image"]]
            characters = "".join(chr(int(point, 16)) for point in entry["unified"].split("-"))
            id = entry["unified"].lower()
            found.append(Emoji(id, bare(characters), picture, pixels(picture, entry["image"])))
    return sorted(found)


def read_names(archives: Sequence[Path], wanted: set[str]) -> dict[str, dict[str, Name]]:
    """Locale -> characters -> name, for the `wanted` characters."""
    found: dict[str, dict[str, Name]] = {}
    for archive in archives:
        pattern = r"package/(annotations|annotationsDerived)/([A-Za-z0-9-]+)/annotations\.json"
        for path, content in files(archive, pattern):
            kind, locale = path.split("/")[1:3]
            names = found.setdefault(locale, {})
            # A locale may say nothing of its own: `sr-Cyrl` is what `sr` says.
            for characters, annotation in json.loads(content)[kind].get("annotations", {}).items():
                name = " ".join(annotation.get("tts", [""])[0].split())
                if bare(characters) in wanted and name:
                    keywords = ", ".join(dict.fromkeys(annotation.get("default", [])))
                    names.setdefault(bare(characters), Name(name, keywords))
    return found


def bare(characters: str) -> str:
    return characters.replace(PRESENTATION, "")


def topics(
    lang: str,
    emoji: Sequence[Emoji],
    names: Mapping[str, Name],
    english: Mapping[str, Name],
    query: str,
    left: Counter[str],
) -> Iterator[Topic]:
    """The topics of one language: a name, and all emoji that have it or look like one that has."""
    groups = split_groups(emoji, english)
    looks: dict[str, list[str]] = {}
    for one in emoji:
        looks.setdefault(one.look, []).append(one.id)
    called: dict[str, list[Emoji]] = {}
    for one in emoji:
        name = names.get(one.characters)
        if name is None:
            left["no name"] += 1
        elif lang != "eng" and name.name == english[one.characters].name and " " in name.name:
            left["name not translated"] += 1
        elif not name.keywords:
            left["no keywords"] += 1
        else:
            called.setdefault(name.name.casefold(), []).append(one)
    for alike in called.values():
        first = alike[0]
        wording = {"title": names[first.characters].name, "description": names[first.characters].keywords}
        text = "\n".join(wording[part] for part in QUERIES[query])
        relevant = {id for one in alike for id in looks[one.look]}
        yield Topic(
            {"id": f"{lang}/{first.id}", "text": text, "lang": lang, **wording},
            [Judgement(id, NO_LANGUAGE, 3) for id in sorted(relevant)],
            split_by=groups[first.id],
        )


def split_groups(emoji: Sequence[Emoji], english: Mapping[str, Name]) -> dict[str, str]:
    """id -> what decides its half: emoji that look the same or have the same English name stay together."""
    return together({one.id: [one.look, english[one.characters].name.casefold()] for one in emoji})


def build(target: Path, langs: str, query: str, most: int | None) -> dict[str, Any]:
    """Write the collection into `target` and return its card."""
    with new_directory(target) as root, tempfile.TemporaryDirectory(prefix="emoji-") as name:
        work = Path(name)
        print(f"downloading {', '.join(p.name for p in (*ANNOTATIONS, PICTURES))}", file=sys.stderr)
        archives = download([*ANNOTATIONS, PICTURES], work)
        print("reading names and pictures", file=sys.stderr)
        with_picture = read_emoji(archives[PICTURES.name])
        names = read_names([archives[p.name] for p in ANNOTATIONS], {one.characters for one in with_picture})
        english = names["en"]
        emoji = [one for one in with_picture if one.characters in english]
        locales = chosen(
            langs,
            {locale: len(held) for locale, held in names.items() if len(held) >= LEAST_NAMES},
            "CLDR has no names",
        )
        left: dict[str, Counter[str]] = {"pictures": Counter()}
        left["pictures"]["no English name"] = len(with_picture) - len(emoji)
        found = [
            topic
            for lang, locale in locales.items()
            for topic in topics(lang, emoji, names[locale], english, query, left.setdefault(lang, Counter()))
        ]
        asked = sampled_by_language(found, most)
        (root / FOLDER).mkdir()
        for one in emoji:
            (root / FOLDER / f"{one.id}.png").write_bytes(one.picture)
        write_docs(root, ({"id": one.id, "image": f"{FOLDER}/{one.id}.png"} for one in emoji))
        write_topics(root, asked)
        link_into_halves(root)
        card = {
            "name": "emoji",
            "judgements": (
                "derived from CLDR, by no person: grade 3 the pictures whose emoji has the name, and those that "
                "are the same pixel for pixel; all others are unjudged, not irrelevant"
            ),
            "licence": "names Unicode-3.0; pictures Apache-2.0, as Noto Emoji",
            "sources": [package.to_json() for package in (*ANNOTATIONS, PICTURES)],
            "locales": locales,
            "query": query,
            "documents": {"pictures": len(emoji)},
            "distinct pictures": len({one.look for one in emoji}),
            **counted(asked),
            "left out": {lang: dict(sorted(reasons.items())) for lang, reasons in sorted(left.items())},
        }
        write_card(root, card, described(card))
    return card


def described(card: Mapping[str, Any]) -> str:
    return readme(f"names of emoji ({card['query']}) as queries, their pictures as documents.", "emoji.py", card)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--langs", default="eng,rus,zho", help="ISO codes or tags, or all (%(default)s)")
    parser.add_argument("--query", choices=sorted(QUERIES), default="name", help="the topics' text (%(default)s)")
    parser.add_argument("--topics", type=int, metavar="N", help="at most N topics for each half and language (all)")
    arguments = parser.parse_args()
    if arguments.topics is not None and arguments.topics < 1:
        parser.error("--topics must be at least 1")
    card = build(arguments.directory, arguments.langs, arguments.query, arguments.topics)
    print(described(card), file=sys.stderr)
    print(json.dumps(card, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(main))
