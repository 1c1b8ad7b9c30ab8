"""The kind `late`: exact MaxSim over what is stored, and candidates that an approximate index proposes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.base import NotFinite
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.indexes.base import Index
from crosslens.indexes.encoding import SpaceEncoders
from crosslens.indexes.index import DocumentIndex
from crosslens.indexes.kinds import late
from crosslens.indexes.kinds.late import LateKind
from crosslens.indexes.maxsim import TokenVectors
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.snapshot import Snapshot
from crosslens.indexes.storage.card import Card
from crosslens.indexes.storage.storage import Storage
from crosslens.items import Item, Multi, Role
from crosslens.runs import Run
from PIL import Image
from stand_ins.late_words import QUERIES, Words, collection, looped, matrices


def expected(items: list[Item], queries: list[Item], k: int) -> dict[str, list[tuple[str, float]]]:
    """The k best of each query by a plain loop over what the index stores."""
    documents = [each.astype(np.float16).astype(np.float32) for each in matrices(Words(), items)]
    found = {}
    for query, vectors in zip(queries, matrices(Words(), queries, "query"), strict=True):
        scores = [(item.id, looped(vectors, document)) for item, document in zip(items, documents, strict=True)]
        found[query.id] = sorted(scores, key=lambda hit: (-hit[1], hit[0]))[:k]
    return found


def same(run: Run, wanted: dict[str, list[tuple[str, float]]]) -> None:
    for query, hits in wanted.items():
        assert [hit.score for hit in run[query]] == pytest.approx([score for _, score in hits], abs=1e-4)
        assert [hit.id for hit in run[query]] == [doc for doc, _ in hits]


def filled(path: str | Path, items: list[Item], **settings: object) -> Index:
    index = create_index(path, kind="late", **settings)  # type: ignore[arg-type]
    index.add(items, Words())
    return index


def test_search_is_exact_maxsim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "READ", 17)  # so that several blocks are merged
    items = collection(200)
    index = filled("memory://", items)
    run = index.search(QUERIES, 10)
    same(run, expected(items, QUERIES, 10))
    assert [item.id for item in run.items("one")] == [hit.id for hit in run["one"]]
    assert all(-8 <= hit.score <= 8 for hit in run["long"])
    alone = index.search(QUERIES[1:2], 10)
    same(alone, {"one": list(run["one"])})
    assert len(index.search(QUERIES[:1], 500)["long"]) == 200


def test_bad_vectors_are_refused_by_name() -> None:
    class Bad(Words):
        bad: object = None

        def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
            for item in items:
                vectors = np.ones((2, self.spec.dim), np.float32)
                yield Multi([item.id], [self.bad if item.id == "d3" else vectors])  # type: ignore[list-item]

    for bad, error, message in (
        (np.full((2, 32), np.nan, np.float32), NotFinite, "not finite for d3"),
        (np.full((2, 32), 1e6, np.float32), InputError, "'d3' that do not fit into float16"),
        (np.zeros((0, 32), np.float32), InputError, r"shape \(0, 32\) for 'd3', not \[tokens, 32\]"),
        (np.ones((2, 5), np.float32), InputError, r"shape \(2, 5\) for 'd3'"),
    ):
        encoder = Bad()
        encoder.bad = bad
        index = create_index("memory://", kind="late")
        with pytest.raises(error, match=message):
            index.add(collection(6), encoder)
        assert len(index) == 1  # the first goes alone, and shows how fast the encoder is


def test_items_that_the_encoder_does_not_read_have_no_vectors() -> None:
    pictures = [Item("p", "w1 w2", b"not read"), Item("q", image=b"not read")]

    class Sees(Words):
        def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
            for item in items:
                yield Multi([item.id], [np.full((3, 32), 0.2, np.float32)])

    texts = create_index("memory://", kind="late")
    with pytest.raises(InputError, match="'q' holds image"):
        texts.add(pictures, Words())
    index = create_index("memory://", kind="late")
    index.add([*collection(3), *pictures], Sees(("image",)))
    assert index.card.spaces[0].counts == {"image": 2}
    assert len(index) == 5
    assert {hit.id for hit in index.search([Item("x", image=b"not read")], 9)["x"]} == {"p", "q"}


def test_an_approximate_index_proposes_and_maxsim_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "QUERIES", 12)
    items = collection(300)
    index = filled(tmp_path / "index", items, lexical=False)
    flat = index.build()
    assert (flat.kind, flat.at) == ("flat", {10: 1.0, 100: 1.0})
    before = index.fingerprint
    recall = index.build("IVF_FLAT")
    assert recall.kind == "IVF_FLAT"
    assert recall.queries == 12
    assert recall.at[10] >= 0.95
    assert index.fingerprint != before
    again = open_index(tmp_path / "index", encoders=Words())
    plan = again.card.spaces[0].ann
    assert plan is not None
    assert dict(plan.recall) == dict(recall.at)
    run, wanted = again.search(QUERIES, 10), expected(items, QUERIES, 10)
    assert np.mean([hit in dict(run[query]) for query, hits in wanted.items() for hit, _ in hits]) >= 0.9
    every = dict(expected(items, QUERIES, 300)["long"])
    for hit in run["long"]:  # whatever is found has its exact score
        assert hit.score == pytest.approx(every[hit.id], abs=1e-4)
    same(again.search(QUERIES, 10, exact=True), wanted)
    narrow = again.search(QUERIES, 10, where={"lang": "zho"})
    assert all(int(hit.id[1:]) % 3 == 1 for _, hits in narrow for hit in hits)
    assert len(narrow["long"]) == 10
    again.add([*items, Item("new", "w1 w2 w3 w4 w5 w6 w7 w8")], Words())  # the plan goes with the rows it was for
    assert again.card.spaces[0].ann is None
    assert again.search(QUERIES, 1)["long"][0].id == "new"
    again.build("none")
    assert again.storage.tables.documents.list_indices() == []


def test_the_recall_that_build_reports_is_measured() -> None:
    """With candidates that leave the best out, build says so."""

    class Blind(LateKind):
        def propose(self, *_: object) -> Iterator[tuple[list[str], TokenVectors]]:
            return iter(())

    storage = Storage.create("memory://", Card("late", lexical=False))
    index = DocumentIndex(Snapshot(storage, Blind(storage)), SpaceEncoders())
    index.add(collection(400), Words())
    assert index.build("IVF_FLAT").at == {10: 0.0, 100: 0.0}


def test_build_is_checked() -> None:
    index = filled("memory://", collection(5), lexical=False)
    with pytest.raises(InputError, match="too few for IVF_RQ"):
        index.build("IVF_RQ")
    with pytest.raises(InputError, match="kind of approximate index"):
        index.build("IVF_HNSW_SQ")
    with pytest.raises(InputError, match="late takes nothing after it"):
        create_index("memory://", kind="late:PLAID")


@pytest.mark.parametrize("which", ["tiny_colbert", "tiny_colqwen"])
def test_an_index_loads_its_encoder_again(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """With real encoders, of which one finds a page by its own picture."""
    encoder = load_encoder(f"late:{request.getfixturevalue(which)}?dtype=float32")
    random = np.random.default_rng(0)
    items = collection(12)
    if "image" in encoder.spec.modalities:
        for row in range(4):
            Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(tmp_path / f"{row}.png")
            items.append(Item(f"p{row}", image=tmp_path / f"{row}.png"))
    create_index(tmp_path / "index", kind="late").add(items, encoder)
    again = open_index(tmp_path / "index")
    asked = [replace(item, id=f"q{row}") for row, item in enumerate(items[-3:])]
    run = again.search(asked, 4)
    documents = matrices(encoder, items)
    for query, vectors in zip(asked, matrices(encoder, asked, "query"), strict=True):
        scores = {item.id: looped(vectors, each) for item, each in zip(items, documents, strict=True)}
        assert run[query.id][0].score == pytest.approx(max(scores.values()), abs=0.05)
        for hit in run[query.id]:
            assert hit.score == pytest.approx(scores[hit.id], abs=0.05)
    if "image" in encoder.spec.modalities:
        assert [run[query.id][0].id for query in asked] == ["p1", "p2", "p3"]
