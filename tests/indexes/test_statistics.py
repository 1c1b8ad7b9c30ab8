"""The language correction of an index, and the openings of its documents that show what queries have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from crosslens.encoders.base import unit
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Dense, Item
from crosslens.media.language_names import list_names
from stand_ins.cheap_encoder import Cheap, documents


def is_name(item: Item) -> bool:
    """Whether it is encoded to know what the language of a query does."""
    return item.text in list_names(item.lang)


def test_language_correction_is_applied_and_can_be_left_out() -> None:
    """Languages in cones: uncorrected, a query finds its own language; corrected, it finds its topic."""
    random = np.random.default_rng(0)
    topics, cones = unit(random.standard_normal((20, 32))), 3 * unit(random.standard_normal((4, 32)))
    items = [Item(f"{lang}{t}", "w", lang=lang) for lang in ("eng", "zho", "fas", "rus") for t in range(20)]
    vectors = unit(np.concatenate([topics + cone for cone in cones]))

    class Cones(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for item in items:
                yield Dense([item.id], unit((topics[int(item.text or 0)] + cones[0])[None]))

    spec = Cones(32).spec
    index = create_index("memory://")
    index.add_vectors(items, vectors, spec)
    index.encoders.give(Cones(32))
    queries = [Item(f"q{t}", str(t), lang="eng") for t in range(20)]

    def topical(correct: bool) -> float:
        run = index.search(queries, 4, correct=correct)
        return float(np.mean([hit.id[3:] == query.text for query, hits in run for hit in hits]))

    assert topical(correct=True) > 0.95
    assert topical(correct=False) < 0.5


def test_openings_of_documents_show_what_queries_have_in_common(tmp_path: Path) -> None:
    """Queries in a cone that no document is in, as short texts are: the index learns it from its documents' openings."""
    random = np.random.default_rng(0)
    topics = unit(random.standard_normal((20, 32)))
    cones = dict(zip(("zho", "fas"), 3 * unit(random.standard_normal((2, 32))), strict=True))
    common = 3 * unit(cones["zho"] + 6 * topics[0])[None]  # it draws queries to one document

    class Opening(Cheap):
        asked: ClassVar[list[str]] = []

        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for item in items:
                text = item.text or ""
                if is_name(item):  # says nothing here, in any language
                    yield Dense([item.id], unit(common))
                    continue
                if role == "query":
                    self.asked.append(text)
                cone = common if role == "query" else cones[item.lang or ""]
                yield Dense([item.id], unit(topics[int(text.split()[0])] + cone).reshape(1, -1))

    items = [Item(f"{lang}{t}", f"{t} {'x' * 300}\nand more", lang=lang) for lang in cones for t in range(20)]
    index = create_index(tmp_path / "index")
    index.add(items, Opening(32))
    assert len(Opening.asked) == 40
    assert {len(text) for text in Opening.asked} == {200}

    queries = [Item(f"q{t}", str(t), lang="eng") for t in range(20)]
    run = open_index(tmp_path / "index", encoders=Opening(32)).search(queries, 2)
    assert np.mean([hit.id[3:] == query.text for query, hits in run for hit in hits]) > 0.95
    other = create_index("memory://")
    other.statistics.openings = 0  # queries are corrected as documents are
    other.add(items, Opening(32))
    run = other.search(queries, 2)
    assert np.mean([hit.id[3:] == query.text for query, hits in run for hit in hits]) < 0.8


def test_few_openings_stand_for_many_documents() -> None:
    asked: list[str] = []

    class Asked(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            items = list(items)
            asked.extend(item.text or "" for item in items if role == "query" and not is_name(item))
            yield from super().encode(items, role)

    chosen = []
    for order in (documents(90), documents(90)[::-1]):
        index = create_index("memory://")
        index.statistics.openings = 8
        index.add(order, Asked())
        chosen.append(sorted(asked))
        asked.clear()
    assert chosen[0] == chosen[1]  # whatever the order in which they came
    assert len(chosen[0]) == 3 * 8


def test_openings_are_encoded_once(tmp_path: Path) -> None:
    asked: list[str] = []

    class Asked(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            items = list(items)
            asked.extend(item.text or "" for item in items if role == "query" and not is_name(item))
            yield from super().encode(items, role)

    create_index(tmp_path / "index").add(documents(30), Asked())
    assert len(asked) == 30
    asked.clear()
    more = [*documents(30), Item("new", "another text", lang="zho")]
    grown = create_index(tmp_path / "index")
    assert grown.add(more, Asked()) == 1
    assert sorted(asked) == sorted(item.text or "" for item in more if item.lang == "zho")  # the others are known
    whole = create_index("memory://")
    whole.add(more, Asked())
    for lang in ("eng", "zho", "fas"):
        mine, theirs = (each.statistics.get(each.card.spaces[0]).query_mean(lang, "text") for each in (grown, whole))
        np.testing.assert_array_equal(mine, theirs)


def test_names_lead_to_the_queries_of_a_language_without_documents(tmp_path: Path) -> None:
    """English and Greek queries lie in cones of their own, which draw them to one document; names lie in them, too."""
    random = np.random.default_rng(0)
    topics = unit(random.standard_normal((20, 32)))
    cones = dict(zip(("zho", "fas"), 3 * unit(random.standard_normal((2, 32))), strict=True))
    cones |= {lang: 3 * unit(cones["zho"] + 6 * topics[topic]) for topic, lang in enumerate(("eng", "ell"))}
    named: list[str] = []

    class Cones(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for item in items:
                if is_name(item):
                    named.append(item.lang or "")
                topic = np.zeros(32) if is_name(item) else topics[int((item.text or "").split()[0])]
                yield Dense([item.id], unit((topic + cones[item.lang or ""])[None]))

    items = [Item(f"{lang}{t}", f"{t} {lang}", lang=lang) for lang in ("zho", "fas") for t in range(20)]
    create_index(tmp_path / "index").add(items, Cones(32))
    assert sorted(set(named)) == ["eng", "fas", "zho"]
    index = open_index(tmp_path / "index", encoders=Cones(32))

    def topical(lang: str) -> float:
        run = index.search([Item(f"q{t}", str(t), lang=lang) for t in range(20)], 2)
        return float(np.mean([hit.id[3:] == query.text for query, hits in run for hit in hits]))

    named.clear()
    assert topical("eng") > 0.95
    assert not named  # they were kept with the index
    assert topical("ell") > 0.95
    assert topical("ell") > 0.95
    assert named == ["ell"] * len(list_names("ell"))
    index.statistics.get(index.card.spaces[0]).named.clear()  # as an earlier version left it
    assert topical("eng") < 0.8


def test_names_are_those_of_the_language_itself() -> None:
    assert {"German", "Japan"} <= set(list_names("eng"))
    assert {"немецкий", "Япония"} <= set(list_names("rus"))
    assert len(set(map(len, map(list_names, ("eng", "zho", "fas", "swa", "yor"))))) == 1
    assert not list_names("lat")  # CLDR has none
    assert not list_names(None)
