"""The index of sparse vectors: exact by brute force, resumable, filtered, and its postings on disk."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from crosslens.encoders.base import EncoderSpec
from crosslens.errors import InputError
from crosslens.indexes.base import Index
from crosslens.indexes.kinds import postings as module
from crosslens.indexes.kinds.postings import Postings
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Item, Sparse

VOCABULARY = 500


class Counting:
    """A sparse encoder without a model: word `w7` is term 7; its weight, a half for each time it occurs."""

    def __init__(self, **changed: object) -> None:
        self.spec = replace(
            EncoderSpec("fake:counting", "1", ("text",), VOCABULARY, kind="sparse", metric="dot"), **changed
        )
        self.encoded = 0

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Sparse]:
        for item in items:
            self.encoded += 1
            yield Sparse([item.id], row(item.text or "").copy())


@cache
def row(text: str) -> scipy.sparse.csr_matrix:
    weights = np.zeros((1, VOCABULARY), np.float32)
    for word in text.split():
        weights[0, int(word[1:])] += 0.5
    return scipy.sparse.csr_matrix(weights)


def collection(count: int = 700, langs: tuple[str, ...] = ("eng", "zho", "fas")) -> list[Item]:
    """Texts of 1 to 12 words, common ones commoner, of which many have equal scores."""
    random = np.random.default_rng(5)
    return [
        Item(
            f"d{number * 7919 % count}",
            " ".join(f"w{int(word)}" for word in random.exponential(40, 1 + number % 12).clip(max=VOCABULARY - 1)),
            lang=langs[number % len(langs)],
            meta={"year": 2000 + number % 4},
        )
        for number in range(count)
    ]


QUERIES = [Item("q1", "w1 w2 w3 w1"), Item("q2", "w30"), Item("q3", "w0 w77 w141 w499"), Item("q4", "w498")]


def weights(items: list[Item]) -> np.ndarray:
    rows = [batch.vectors.toarray() for batch in Counting().encode(items, "document")]
    return np.concatenate([np.zeros((0, VOCABULARY), np.float32), *rows])


def brute(items: list[Item], queries: list[Item], k: int) -> dict[str, list[tuple[str, float]]]:
    scores = weights(queries) @ weights(items).T
    return {
        query.id: sorted(
            ((item.id, float(score)) for item, score in zip(items, row, strict=True) if score > 0),
            key=lambda hit: (-hit[1], hit[0]),
        )[:k]
        for query, row in zip(queries, scores, strict=True)
    }


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return create_index(tmp_path / "index", kind="sparse", lexical=False)


@pytest.mark.parametrize("k", [1, 10, 2000])
@pytest.mark.parametrize("where", ["memory://", "disk"])
def test_search_equals_brute_force_ties_by_id(k: int, where: str, tmp_path: Path) -> None:
    index = create_index(where if where == "memory://" else tmp_path / where, kind="sparse", lexical=False)
    items = collection()
    assert index.add(items, Counting()) == len(index) == 700
    expected = brute(items, QUERIES, k)
    found = index.search(QUERIES, k)
    assert {query.id: [tuple(hit) for hit in hits] for query, hits in found} == expected
    assert any(len({score for _, score in hits}) < len(hits) for hits in expected.values()) or k == 1
    for query in QUERIES:
        assert index.search([query], k)[query.id] == found[query.id]


@pytest.mark.parametrize("documents", [1, 37, 512])
def test_blocks_do_not_show(documents: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    items = collection()
    matrix = scipy.sparse.csr_matrix(weights(items))
    queries = scipy.sparse.csr_matrix(weights(QUERIES))
    names = [item.id for item in items]

    def rows(size: int) -> Iterator[tuple[list[str], scipy.sparse.csr_matrix]]:
        for start in range(0, len(items), size):
            yield names[start : start + size], matrix[start : start + size]

    whole = Postings.of(rows(700), VOCABULARY)
    assert len(whole.arrays["first"]) == 1
    monkeypatch.setattr(module, "BLOCK", documents)
    cut = Postings.write(tmp_path / "postings", rows(min(documents, 100)), VOCABULARY)
    assert len(cut.arrays["first"]) > 1
    assert isinstance(cut.arrays["weights"], np.memmap)
    assert (len(cut), len(cut.arrays["docs"])) == (700, matrix.nnz)
    allowed = np.arange(700) % 3 == 1
    for k in (1, 10, 1000):
        assert cut.nearest(queries, k) == whole.nearest(queries, k)
        assert cut.nearest(queries, k, allowed) == whole.nearest(queries, k, allowed)
    assert cut.names(np.array([0, 699, 5])) == [names[0], names[699], names[5]]
    assert cut.mask(names[10:20]).nonzero()[0].tolist() == list(range(10, 20))


def test_large_blocks_are_searched_through_the_best_of_groups() -> None:
    """Above 64 documents a hit, groups of scores propose candidates: none may be lost, nor ties at the end."""
    random = np.random.default_rng(3)
    matrix = scipy.sparse.random_array((9000, 40), density=0.3, format="csr", dtype=np.float32, rng=random)
    matrix.data = np.ceil(matrix.data * 4)  # whole numbers: many ties
    queries = scipy.sparse.csr_matrix(np.ceil(random.random((5, 40)) * 3).astype(np.float32))
    names = [f"{number * 4001 % 9000}" for number in range(9000)]
    postings = Postings.of([(names, scipy.sparse.csr_matrix(matrix))], 40)
    scores = queries @ matrix.T.toarray()
    for row, found in enumerate(postings.nearest(queries, 25)):
        expected = sorted(zip(names, scores[row].tolist(), strict=True), key=lambda hit: (-hit[1], hit[0]))
        assert found == expected[:25]


def test_changed_and_new_items_are_found(index: Index) -> None:
    items = collection()
    index.add(items, Counting())
    changed = [replace(items[3], text="w498 w498"), Item("new", "w498")]
    encoder = Counting()
    assert index.add(changed, encoder) == encoder.encoded == 2
    everything = [changed[0] if item.id == changed[0].id else item for item in items] + changed[1:]
    expected = brute(everything, QUERIES, 50)
    assert {query: [tuple(hit) for hit in hits] for query, hits in index.search(QUERIES, 50).hits.items()} == expected


def test_pictures_and_texts_without_terms_are_stored_and_no_hits(tmp_path: Path) -> None:
    class Silent(Counting):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Sparse]:
            for item in items:
                words = "" if item.id == "silent" else item.text
                yield from super().encode([replace(item, text=words)], role)

    index = create_index(tmp_path / "index", kind="sparse")
    items = [Item("silent", "w1"), Item("picture", image=b"no picture"), Item("words", "w1 w2")]
    with pytest.raises(InputError, match="'picture' holds image, which none of the encoders reads"):
        index.add(items, Silent())
    items[1] = Item("picture", "w2", image=b"no picture")
    assert index.add(items, Silent()) == 3
    assert [hit.id for hit in index.search([Item("q", "w1 w2")], 10)["q"]] == ["words", "picture"]
    assert index.search([Item("q", "w7")], 10)["q"] == ()
    assert [item.id for item in index.get(["silent", "picture"])] == ["silent", "picture"]
    assert open_index(tmp_path / "index", encoders=Counting()).search([Item("q", "w1")], 10)["q"][0].id == "words"


def test_an_index_that_is_let_go_does_not_wait_for_the_garbage_collector(tmp_path: Path) -> None:
    index = create_index(tmp_path / "index", kind="sparse", lexical=False)
    index.add(collection(10), Counting())
    index.search(QUERIES, 3, where={"lang": "eng"})
    kind = weakref.ref(index.kind)
    gc.disable()
    try:
        del index
        assert kind() is None
    finally:
        gc.enable()


def test_negative_weights_are_not_stored(index: Index) -> None:
    class Broken(Counting):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Sparse]:
            for batch in super().encode(items, role):
                if self.encoded == 600:
                    batch.vectors.data[0] = -1
                yield batch

    with pytest.raises(InputError, match="below 0"):
        index.add(collection(), Broken())
    assert len(index) == 512
    assert index.add(collection(), Counting()) == 700 - 512


def test_a_kind_takes_nothing_after_its_name_and_searches_exactly(index: Index, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sparse takes nothing after it"):
        create_index(tmp_path / "other", kind="sparse:csr")
    index.add(collection(5), Counting())
    assert index.build().kind == "postings"
    with pytest.raises(InputError, match="has no IVF_PQ"):
        index.build("IVF_PQ")


def test_damaged_postings_are_refused(index: Index, tmp_path: Path) -> None:
    index.add(collection(), Counting())
    (folder,) = (tmp_path / "index").glob("postings_*")
    assert not list((tmp_path / "index").glob(".postings_*"))  # nothing is left over
    short = np.load(folder / "docs.npy")[:-1]
    np.save(folder / "docs.npy", short)
    with pytest.raises(InputError, match=r"docs.npy has .* bytes, not .*; `crosslens verify"):
        open_index(tmp_path / "index", encoders=Counting())
    with pytest.raises(InputError, match="do not belong together; make the index again"):
        Postings.open(folder, Counting().spec.dim)
    (folder / "docs.npy").unlink()
    with pytest.raises(InputError, match="docs.npy is missing"):
        open_index(tmp_path / "index", encoders=Counting())
    with pytest.raises(InputError, match=r"cannot read .*docs.npy"):
        Postings.open(folder, Counting().spec.dim)


def test_an_empty_index_answers_nothing(index: Index, tmp_path: Path) -> None:
    assert index.add([], Counting()) == 0
    assert index.search(QUERIES, 5)["q1"] == ()
    assert open_index(tmp_path / "index", encoders=Counting()).search(QUERIES, 5)["q1"] == ()
