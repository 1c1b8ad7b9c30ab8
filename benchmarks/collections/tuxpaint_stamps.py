"""The collection `tuxpaint-stamps`: captions in many languages to pictures, and pictures to captions.

    python benchmarks/collections/tuxpaint_stamps.py DIR [--langs eng,rus,zho] [--topics N]

Downloads the Debian package tuxpaint-stamps-default as apt knows it here (161 MB; no root needed) and writes two
collection directories, DIR/caption-to-picture and DIR/picture-to-caption; each has all topics, and below dev/ and
test/ a half each and the same documents. Choose weights and prompts on dev, report on test.

A stamp is a photo or drawing, `animals/birds/duck`, that translators captioned. In caption-to-picture a document
is a picture without a word and a topic a caption in a language, `rus/animals/birds/duck`; in picture-to-caption a
topic is a picture and a document a caption in one of the languages. `--langs all` takes all 72. A stamp is in the
same half in both and in all languages. The judgements follow from the captions and no person made them: grade 3
is the stamp's own, and what belongs to a stamp with the same caption in that language or the same picture pixel
for pixel; others that fit as well are unjudged.

Left out, and counted in DIR/card.json: stamps that are drawn in SVG only, have no caption or no readable picture;
mirrored variants; captions of more than one word that are the English ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cards import NO_LANGUAGE, counted, readme, sampled_by_language, write_card
from crosslens.commands.console import run_guarded
from crosslens.errors import InputError, list_few
from debian_packages import Package, download, unpack
from directory import Judgement, Topic, new_directory, write_docs, write_topics
from locales import chosen
from pictures import FOLDER, link_into_halves, link_pictures, pixels, together

PACKAGE = "tuxpaint-stamps-default"
VARIANTS = ("_mirror", "_flip")  # of the picture that has the rest of the name, and its caption
PARTS = {
    "caption-to-picture": "captions as queries, pictures as documents.",
    "picture-to-caption": "pictures as queries, captions as documents.",
}
STOPS = " \t.。!！?？।|"


@dataclass(frozen=True)
class Stamp:
    """A picture, a hash of its pixels, and its captions by locale (`en` is always among them)."""

    id: str
    picture: Path
    look: str
    captions: Mapping[str, str]


def read_captions(text: str) -> dict[str, str]:
    """Locale -> caption: the first line is English, the others are `pt_BR.utf8=...`; empty without an English one."""
    first, *others = text.splitlines() or [""]
    if not first.strip():
        return {}
    captions = {"en": " ".join(first.split())}
    for line in others:
        locale, marked, caption = line.partition(".utf8=")
        if marked and caption.strip():
            captions.setdefault(locale.strip(), " ".join(caption.split()))
    return captions


def read_stamps(root: Path, package: Package, left: Counter[str]) -> list[Stamp]:
    """The stamps of an unpacked package in the order of their ids; `left` counts those without a place."""
    base = root / "usr/share/tuxpaint/stamps"
    paths = {path for path in base.rglob("*") if path.is_file() and path.resolve().is_relative_to(root.resolve())}
    if not paths:
        raise InputError(f"{package.name} {package.version} is not laid out as expected: no files in {base.name}/")
    stamps = []
    for path in sorted(paths, key=lambda path: path.relative_to(base).as_posix()):
        caption = path.with_suffix(".txt")
        if path.suffix == ".svg" and path.with_suffix(".png") not in paths:
            left["drawn in SVG only"] += 1
        if path.suffix != ".png":
            continue
        if path.stem.endswith(VARIANTS) and caption not in paths:
            left["mirrored or flipped variant"] += 1
            continue
        captions = read_captions(caption.read_text("utf-8")) if caption in paths else {}
        if not captions:
            left["no caption"] += 1
            continue
        try:
            look = pixels(path, path.name)
        except InputError:
            left["no readable picture"] += 1
            continue
        stamps.append(Stamp(path.relative_to(base).with_suffix("").as_posix(), path, look, captions))
    return stamps


def captioned(lang: str, locale: str, stamps: Sequence[Stamp], left: Counter[str]) -> dict[str, str]:
    """Stamp -> caption in a language, without those that are not translated."""
    found = {}
    for stamp in stamps:
        caption, english = stamp.captions.get(locale), stamp.captions["en"]
        if caption is None:
            left["no caption"] += 1
        elif lang != "eng" and alike(caption) == alike(english) and " " in caption:
            left["caption not translated"] += 1
        else:
            found[stamp.id] = caption
    return found


def alike(caption: str) -> str:
    """What captions that are the same have in common: case and the full stop do not count."""
    return caption.casefold().strip(STOPS)


def split_groups(stamps: Sequence[Stamp]) -> dict[str, str]:
    """id -> what decides its half: stamps that look the same or have the same English caption stay together."""
    return together({stamp.id: [stamp.look, alike(stamp.captions["en"])] for stamp in stamps})


def caption_topics(lang: str, captions: Mapping[str, str], stamps: Sequence[Stamp]) -> Iterator[Topic]:
    """The captions in a language, each once; relevant are all pictures that have it, and their duplicates."""
    groups, looks = split_groups(stamps), by_look(stamps)
    look = {stamp.id: stamp.look for stamp in stamps}
    for ids in by_caption(captions).values():
        relevant = {same for id in ids for same in looks[look[id]]}
        yield Topic(
            {"id": f"{lang}/{ids[0]}", "text": captions[ids[0]], "lang": lang},
            [Judgement(id, NO_LANGUAGE, 3) for id in sorted(relevant)],
            split_by=groups[ids[0]],
        )


def picture_topics(captions: Mapping[str, Mapping[str, str]], stamps: Sequence[Stamp]) -> Iterator[Topic]:
    """The pictures, each once; relevant are its captions in all languages (`captions`: language -> stamp -> caption)."""
    groups = split_groups(stamps)
    same = {lang: by_caption(those) for lang, those in captions.items()}
    for ids in by_look(stamps).values():
        relevant = {
            Judgement(doc_id(lang, other), lang, 3)
            for lang, those in captions.items()
            for id in ids
            if id in those
            for other in same[lang][alike(those[id])]
        }
        if relevant:
            yield Topic({"id": ids[0], "image": picture(ids[0])}, sorted(relevant), split_by=groups[ids[0]])


def by_look(stamps: Sequence[Stamp]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for stamp in stamps:
        found.setdefault(stamp.look, []).append(stamp.id)
    return found


def by_caption(captions: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for id, caption in captions.items():
        found.setdefault(alike(caption), []).append(id)
    return found


def doc_id(lang: str, stamp: str) -> str:
    return f"{lang}/{stamp}"


def build(target: Path, langs: str, most: int | None) -> dict[str, Any]:
    """Write both collections into `target` and return their cards by name."""
    with new_directory(target) as root, tempfile.TemporaryDirectory(prefix="tuxpaint-stamps-") as name:
        work = Path(name)
        (work / "packages").mkdir()
        print(f"downloading {PACKAGE}", file=sys.stderr)
        package = download([PACKAGE], work / "packages")[PACKAGE]
        unpack(package, work / "files")
        print("reading captions and pictures", file=sys.stderr)
        left: dict[str, Counter[str]] = {"stamps": Counter()}
        stamps = read_stamps(work / "files", package, left["stamps"])
        locales = chosen(
            langs, Counter(locale for stamp in stamps for locale in stamp.captions), "Tux Paint has no captions"
        )
        captions = {
            lang: captioned(lang, locale, stamps, left.setdefault(lang, Counter())) for lang, locale in locales.items()
        }
        if empty := [lang for lang, those in captions.items() if not those]:
            raise InputError(f"no translated caption in {list_few(empty)}: choose other languages")
        pictures, sentences = (root / part for part in PARTS)
        for stamp in stamps:
            copy = pictures / picture(stamp.id)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(stamp.picture, copy)
        link_pictures(pictures, sentences)
        shared = {
            "judgements": (
                "derived from the captions, by no person: grade 3 the stamp's own, and those of stamps with the "
                "same caption in that language or the same picture; all others are unjudged, not irrelevant"
            ),
            "licence": "GPL-2+ and others, as the package's file copyright says",
            "sources": [package.to_json()],
            "locales": locales,
            "distinct pictures": len(by_look(stamps)),
            "left out": {lang: dict(sorted(reasons.items())) for lang, reasons in sorted(left.items())},
        }
        asked = [topic for lang, those in captions.items() for topic in caption_topics(lang, those, stamps)]
        shown = list(picture_topics(captions, stamps))
        return {
            pictures.name: written(pictures, picture_docs(stamps), sampled_by_language(asked, most), shared),
            sentences.name: written(sentences, caption_docs(captions), sampled_by_language(shown, most), shared),
        }


def picture_docs(stamps: Sequence[Stamp]) -> list[dict[str, str]]:
    return [{"id": stamp.id, "image": picture(stamp.id)} for stamp in stamps]


def caption_docs(captions: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    return [
        {"id": doc_id(lang, id), "text": caption, "lang": lang}
        for lang, those in captions.items()
        for id, caption in those.items()
    ]


def written(
    root: Path, docs: Sequence[Mapping[str, str]], asked: Sequence[Topic], shared: Mapping[str, Any]
) -> dict[str, Any]:
    """Write one of the two collections, whose pictures are in `root` already, and return its card."""
    write_docs(root, docs)
    write_topics(root, asked)
    link_into_halves(root)
    card = {
        "name": f"tuxpaint-stamps/{root.name}",
        **shared,
        "documents": dict(Counter(doc.get("lang", "pictures") for doc in docs)),
        **counted(asked),
    }
    write_card(root, card, described(root.name, card))
    return card


def picture(stamp: str) -> str:
    return f"{FOLDER}/{stamp}.png"


def described(part: str, card: Mapping[str, Any]) -> str:
    return readme(PARTS[part], "tuxpaint_stamps.py", card)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--langs", default="eng,rus,zho", help="ISO codes or tags, or all (%(default)s)")
    parser.add_argument("--topics", type=int, metavar="N", help="at most N topics for each half and language (all)")
    arguments = parser.parse_args()
    if arguments.topics is not None and arguments.topics < 1:
        parser.error("--topics must be at least 1")
    cards = build(arguments.directory, arguments.langs, arguments.topics)
    for part, card in cards.items():
        print(described(part, card), file=sys.stderr)
    print(json.dumps(cards, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(main))
