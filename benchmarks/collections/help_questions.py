"""Forty questions with an answer and its hard rivals, the same in four languages: what `benchmarks/prompts.py` asks.

    python benchmarks/collections/help_questions.py FILE

Downloads the Debian packages libreoffice-help-en-us, -zh-cn, -ru and -es as apt knows them here. A question is the title
of a help page, its answer the page below the title, and its rivals are four other pages: those whose English text is
nearest to the English title by `offline:e5-small`. The ten pages and their rivals are the same in each language, so that
languages differ in nothing else. They are of the dev half of `libreoffice_help.py` (what is chosen by them may be reported
on the test half), and are pages that it keeps in all of the languages. Within a language the answer stands at each of
the five places twice. The same packages give the same file.

FILE has a question a line: `id`, `lang`, `query`, `passages` (five, each with `id` and `text`) and `answer`, the answer's
place among them from 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.commands.console import run_guarded
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.files import write_atomically
from crosslens.items import Item, Role
from directory import half_of, place_of
from help_pages import Page
from libreoffice_help import Count, documents, pages, topics, unpacked

PACKAGES = {"eng": "en-us", "zho": "zh-cn", "rus": "ru", "spa": "es"}
PAGES = 10
PLACES = 5
LETTERS = 200  # of an English page at least: less is hardly a passage


def read_pages() -> dict[str, dict[str, dict[str, Any]]]:
    """By language and topic the pages that are usable in each language, as records with title and text."""
    named = {lang: f"libreoffice-help-{suffix}" for lang, suffix in PACKAGES.items()}
    with unpacked(named) as packages:
        english = dict(pages(*packages["eng"]))
        held: dict[str, set[str]] = {}
        count = Count()
        found = {
            lang: {
                record["id"].removeprefix(f"{lang}/"): record
                for record in documents(lang, pages(*packages[lang]), english, held, count)
            }
            for lang in PACKAGES
            if lang != "eng"
        }
    asked = {topic.id: english[f"{topic.id}.html"] for topic in topics(english, held, "title", count)}
    common = [id for id in asked if all(id in records for records in found.values()) and is_long(asked[id])]
    own = {id: {"title": asked[id].title, "text": asked[id].text} for id in common}
    return {"eng": own, **{lang: {id: records[id] for id in common} for lang, records in found.items()}}


def is_long(page: Page) -> bool:
    return sum(map(str.isalpha, page.text)) >= LETTERS


def find_rivals(english: Mapping[str, Mapping[str, Any]], asked: Sequence[str]) -> list[list[str]]:
    """For each page the others that are nearest to its title, nearest first."""
    encoder = load_encoder("offline:e5-small")

    def encode(items: Sequence[Item], role: Role) -> np.ndarray:
        return np.concatenate([np.asarray(batch.vectors, np.float32) for batch in encoder.encode(items, role)])

    ids = list(english)
    passages = encode([Item(id, english[id]["text"], lang="eng") for id in ids], "document")
    titles = encode([Item(id, english[id]["title"], lang="eng") for id in asked], "query")
    found = []
    for id, row in zip(asked, titles @ passages.T, strict=True):
        order = [ids[n] for n in np.argsort(-row, kind="stable")]
        found.append([each for each in order if each != id][: PLACES - 1])
    return found


def make_questions(known: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    english = known["eng"]
    asked = sorted((id for id in english if half_of(id) == "dev"), key=place_of)[:PAGES]
    if len(asked) < PAGES:
        raise InputError(f"only {len(asked)} pages are usable in all of {', '.join(PACKAGES)}")
    rivals = find_rivals(english, asked)
    for shift, (lang, records) in enumerate(known.items()):
        for n, (id, others) in enumerate(zip(asked, rivals, strict=True)):
            answer = (n + shift) % PLACES
            shown = [*others[:answer], id, *others[answer:]]
            passages = [{"id": each, "text": records[each]["text"]} for each in shown]
            yield {
                "id": f"{lang}/{id}",
                "lang": lang,
                "query": records[id]["title"],
                "passages": passages,
                "answer": answer,
            }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE")
    target = parser.parse_args().file
    questions = list(make_questions(read_pages()))
    with write_atomically(target) as out:
        out.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in questions)
    print(f"{target}: {len(questions)} questions")
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(main))
