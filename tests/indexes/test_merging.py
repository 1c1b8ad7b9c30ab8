"""Languages brought to one level: what moves, and what stays."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.indexes import levelling as module
from crosslens.indexes.merging import BEST, FEWEST, check_merge, list_large, merge_languages
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from stand_ins.index_cases import Hashing
from stand_ins.table import table

COUNTS = {"deu": 300, "rus": 300, "swa": 49, "": 500}


# German is 0.2 nearer to the query than Russian; Swahili and what has no language are the others.
FOUND: Any = {lang: [[(f"{lang}{n}", first - n / 1000) for n in range(100)]]
              for lang, first in {"deu": 0.9, "rus": 0.7, None: 0.8}.items()}  # fmt: skip


def test_small_languages_and_those_without_one_keep_their_scores() -> None:
    assert list_large(COUNTS) == ["deu", "rus"]
    assert list_large({"deu": FEWEST, "rus": FEWEST - 1}) == []
    for strength in (0, 0.5, 1):
        (hits,) = merge_languages(FOUND, COUNTS, strength)
        scores = dict(hits)
        moved = strength * 0.1 * 300 / 400  # half of the distance of their levels
        assert scores["deu0"] == pytest.approx(0.9 - moved)
        assert scores["rus0"] == pytest.approx(0.7 + moved)
        assert scores["None0"] == 0.8


def test_a_language_of_which_few_documents_match_is_left_as_it_is() -> None:
    (hits,) = merge_languages({**FOUND, "rus": [FOUND["rus"][0][: BEST - 1]]}, COUNTS, 1)
    assert dict(hits)["rus0"] == 0.7
    assert dict(hits)["deu0"] == pytest.approx(0.9)  # it alone is the middle


@pytest.mark.parametrize("kind", ["lance", "flat"])
def test_languages_are_merged_however_they_are_spelled_a_query_alone_and_any_number_of_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = random.Random(0)
    items = [Item(f"{lang}{n:03}", f"w{words.randrange(9)} {lang * (n % 2)}", lang=lang)
             for lang in ("eng", "zho", "fas") for n in range(60)]  # fmt: skip
    for item in items:
        if item.id in {f"zho{n:03}" for n in range(0, 60, 3)}:
            object.__setattr__(item, "lang", "zh")  # as an earlier version stored it
    index = create_index("memory://", kind=kind, lexical=False)
    index.add(items, Hashing(modalities=("text",)))
    queries = [Item(f"q{n}", f"w{n} eng", lang="eng") for n in range(6)]
    plain, merged = (index.search(queries, 180, merge=merge) for merge in (0, 1))
    for query in queries:
        scores, moved = dict(plain[query.id]), dict(merged[query.id])
        levels = {lang: np.mean(sorted(score for doc, score in scores.items() if doc.startswith(lang))[-BEST:])
                  for lang in ("eng", "zho", "fas")}  # fmt: skip
        for doc, score in scores.items():
            step = 60 / 160 * (levels[doc[:3]] - np.mean(list(levels.values())))
            assert moved[doc] == pytest.approx(score - step, abs=2e-3)
        assert len({round(moved[doc] - scores[doc], 2) for doc in scores if doc.startswith("zho")}) <= 2
    monkeypatch.setattr(module, "MERGED", 200)  # so that few queries are searched at a time
    for name, value in {"FIRST": BEST, "SHARES": 1}.items():  # and languages lack hits at first
        monkeypatch.setattr(module, name, value)
    for k in (1, 10, 50, 100):
        found = index.search(queries, k, merge=1)
        ids = {query.id: [hit.id for hit in found[query.id]] for query in queries}
        assert ids == {query.id: [hit.id for hit in merged[query.id][:k]] for query in queries}
        assert [hit.id for hit in index.search(queries[:1], k, merge=1)["q0"]] == ids["q0"]


@pytest.mark.parametrize(("kind", "reads"), [("lance", [1, 2, 2]), ("flat", [1, 1, 1])])
def test_many_languages_are_read_in_one_pass_and_stay(
    kind: str, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    langs = [
        "deu",
        "rus",
        "eng",
        "swa",
        "zho",
        "fra",
        "spa",
        "ita",
        "por",
        "nld",
        "pol",
        "ces",
        "slk",
        "hun",
        "ron",
        "bul",
    ]
    index = create_index("memory://", kind=kind, lexical=False)
    items = [Item(f"{lang}{n}", f"w{n % 9} {lang}", lang=lang) for lang in langs for n in range(FEWEST)]
    index.add(items, Hashing(modalities=("text",)))
    calls: list[object] = []
    tables, scan = index.storage.tables, index.storage.tables.scan
    monkeypatch.setattr(tables, "scan", lambda *how, **more: calls.append(how) or scan(*how, **more))
    counts = []
    for query in ("w1", "w2", "w3"):
        index.search(query, 5)
        counts.append(len(calls))
    assert counts == reads


@table("merge", [-0.1, 1.1, math.nan, True, "raw"])
def test_a_strength_is_a_number_from_0_to_1(merge: Any) -> None:
    with pytest.raises(InputError, match="merge must be a number from 0"):
        check_merge(merge)
