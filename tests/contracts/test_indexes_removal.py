"""The contract of `indexes.base.Index` on removing documents, over every registered kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import open_index
from crosslens.indexes.storage.storage import Storage
from stand_ins.index_cases import CASES, QUERIES, collection, same

MODES = ("dense", "lexical", "hybrid")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.mark.parametrize(
    ("case", "on_disk"),
    [*((case, True) for case in CASES.values()), (CASES["lance"], False)],
    ids=[*CASES, "in memory"],
)
def test_a_document_that_is_removed_leaves_an_index_without_it(case: Any, on_disk: bool, tmp_path: Path) -> None:
    """Rankings in each mode, languages, documents: as if it had never been there; ids that are not there are passed over."""
    items = collection(200, 10)
    gone = {"t3", "p5", *(f"t{number}" for number in range(100, 160))}
    index = case.filled(items, tmp_path / "index" if on_disk else "memory://")
    index.build()
    before = index.fingerprint
    encoded = (encoder := case.encoder()).encoded
    assert index.remove(["nobody", *sorted(gone), "t3"]) == sorted(gone)
    assert index.remove(["t3", "nobody"]) == index.remove([]) == []
    kept = [item for item in items if item.id not in gone]
    without = case.filled(kept)
    found = [index, open_index(tmp_path / "index", encoders=case.encoder())] if on_disk else [index]
    for each in found:
        assert (len(each), each.langs, each.fingerprint) == (len(kept), without.langs, without.fingerprint)
        assert each.fingerprint != before
        assert sorted(each.ids()) == sorted(item.id for item in kept)
        assert each.get(["t5", "p1"]) == without.get(["t5", "p1"])
        with pytest.raises(InputError, match="no documents with the ids t3"):
            each.get(["t3"])
        for mode in MODES:
            queries = QUERIES if mode == "dense" else [query for query in QUERIES if query.text and not query.image]
            same(each.search(queries, 300, mode=mode), without.search(queries, 300, mode=mode))
    assert index.add(items, encoder) == len(gone)
    assert encoder.encoded - encoded == len(gone)
    assert len(index) == len(items)


def test_all_documents_can_be_removed_and_added_again(case: Any, tmp_path: Path) -> None:
    index = case.filled(collection(20, 2), tmp_path)
    assert len(index.remove(index.ids())) == 22
    assert (len(index), list(index.ids()), index.langs) == (0, [], {})
    for mode in ("dense", "lexical"):
        assert index.search(QUERIES[:2], 5, mode=mode).hits in ({}, {"words": (), "one": ()})
    assert index.add(collection(20, 2), case.encoder()) == 22
    assert len(index.search(QUERIES[:1], 3)["words"]) > 0


def test_what_cannot_be_removed(case: Any, tmp_path: Path) -> None:
    index = case.filled(collection(20, 2), tmp_path)
    for ids, text in [("t1", "as a list, not as the one string 't1'"), ([1], r"strings, not 1 \(int\)")]:
        with pytest.raises(InputError, match=text):
            index.remove(ids)
    assert len(index) == 22


def test_a_removal_that_is_killed_has_not_happened(case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = case.filled(collection(20, 2), tmp_path)
    before = index.fingerprint

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            index.remove(["t1", "p1"])
    for each in (index, open_index(tmp_path, encoders=case.encoder())):
        assert (each.fingerprint, len(each)) == (before, 22)
        assert len(each.search(QUERIES[:1], 30)["words"]) > 0
    assert index.add(collection(20, 2), case.encoder()) == 0
    assert index.remove(["t1", "p1"]) == ["t1", "p1"]
    assert len(open_index(tmp_path)) == 20
