"""Exact search in memory, below and beside the contract suite."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crosslens.encoders.base import unit
from crosslens.errors import InputError
from crosslens.indexes.base import Index
from crosslens.indexes.kinds import dense
from crosslens.indexes.kinds import searcher as module
from crosslens.indexes.kinds.dense import DenseKind
from crosslens.indexes.kinds.loaded import measure_free_memory
from crosslens.indexes.kinds.searcher import FlatSearcher
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.given_vectors import FILTERS, QUERIES, SPEC, VECTORS, clustered, filled, opened


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    best = -np.sort(-scores, axis=1)[:, :k]
    return np.pad(best, [(0, 0), (0, k - best.shape[1])], constant_values=-np.inf)


def check(searcher: FlatSearcher, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> None:
    vectors = searcher.vectors
    rows, scores = searcher.nearest(queries, k, allowed)
    assert rows.shape == scores.shape == (len(queries), k)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    matching = len(vectors) if allowed is None else int(allowed.sum())
    found = rows >= 0
    assert (found.sum(axis=1) == min(k, matching)).all()
    assert (scores[~found] == -np.inf).all()
    np.testing.assert_allclose(scores, brute_force(vectors, queries, k, allowed), atol=1e-5)
    for query, mine, theirs in zip(queries, rows, scores, strict=True):
        hits = mine[mine >= 0]
        assert len(set(hits.tolist())) == len(hits)
        assert allowed is None or allowed[hits].all()
        np.testing.assert_allclose(theirs[: len(hits)], vectors[hits] @ query, atol=1e-5)
        ties = np.flatnonzero(np.diff(theirs[: len(hits)]) == 0)
        assert (hits[ties] < hits[ties + 1]).all()


@settings(max_examples=150)
@given(data=st.data())
def test_flat_equals_brute_force(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 300), "count")
    dim = data.draw(st.integers(1, 12), "dim")
    k = data.draw(st.sampled_from([1, 2, 5, 10, 40, 400]), "k")
    asked = data.draw(st.sampled_from([0, 1, 2, 3, 70]), "queries")
    random = np.random.default_rng(data.draw(st.integers(0, 1000), "seed"))
    vectors = random.normal(size=(count, dim)).astype(np.float32)
    if data.draw(st.booleans(), "coarse"):
        vectors = vectors.round()  # many equal rows, and equal scores of different ones
    kept = data.draw(st.sampled_from([None, 0.0, 0.05, 0.5, 1.0]), "kept")
    allowed = None if kept is None else random.random(count) < kept
    queries = random.normal(size=(asked, dim)).astype(np.float32)
    check(FlatSearcher(vectors, "cpu"), queries, k, allowed)


@pytest.mark.parametrize("asked", [1, 3, 130])
@pytest.mark.parametrize("kept", [None, 0.02, 0.7])
@pytest.mark.parametrize("k", [10, 1000])
def test_flat_equals_brute_force_over_many_blocks(asked: int, kept: float | None, k: int) -> None:
    # More rows than fit one block, and no multiple of blocks or groups, so that the ends are seen.
    random = np.random.default_rng(3)
    vectors = unit(random.normal(size=(2 * module.BLOCK["cpu"] + 4321, 16)))
    allowed = None if kept is None else random.random(len(vectors)) < kept
    check(FlatSearcher(vectors, "cpu"), unit(random.normal(size=(asked, 16))), k, allowed)


def test_large_groups_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMA", 4096)
    for name in ("THREADED_FROM", "PICKED_FROM"):
        monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(module, "_count_threads", lambda: 3)
    searcher = FlatSearcher(VECTORS, "cpu")
    for asked in (1, 2, 64):
        check(searcher, clustered(asked, 7), 3, None)


def test_best_rows_that_lie_side_by_side_are_all_found() -> None:
    # The best rows of all are in one group: it must not count as one candidate.
    vectors = np.zeros((5000, 4), np.float32)
    vectors[:, 0] = np.linspace(0.1, 0.2, 5000)
    vectors[800:808, 0] = np.linspace(0.9, 1, 8)
    rows, _ = FlatSearcher(vectors, "cpu").nearest(np.eye(4, dtype=np.float32)[:2], 9)
    assert rows[0].tolist() == [807, 806, 805, 804, 803, 802, 801, 800, 4999]


def test_scores_do_not_depend_on_the_rest_of_the_batch() -> None:
    searcher = FlatSearcher(VECTORS, "cpu")
    queries = clustered(70, 5)
    rows, scores = searcher.nearest(queries, 20)
    for number in (0, 33, 69):
        alone = searcher.nearest(queries[number : number + 1], 20)
        np.testing.assert_array_equal(alone[0][0], rows[number])
        np.testing.assert_array_equal(alone[1][0], scores[number])


def test_a_gpu_scores_as_a_cpu_does_and_equal_rows_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that GPUs go, on the CPU."""
    monkeypatch.setattr(module, "SCORED", 64)
    vectors = np.random.default_rng(0).standard_normal((300, 20), dtype=np.float32)
    vectors[200:210] = vectors[:10]
    queries = np.concatenate([vectors[:5], vectors[50:57]])
    searcher, plain = FlatSearcher(vectors, "cpu"), FlatSearcher(vectors, "cpu")

    def search(asked: np.ndarray, k: int, chosen: slice, group: int) -> Any:
        maxima = searcher._find_maxima(asked, chosen, group)  # noqa: SLF001
        least = np.sort(maxima.numpy())[:, -k] - np.float32(1e-5)
        return searcher._search_on_device(asked, maxima, least, k, chosen, group)  # noqa: SLF001

    monkeypatch.setattr(searcher, "_search", search)
    rows, scores = searcher.nearest(queries, 7)
    expected, truth = plain.nearest(queries, 7)
    assert np.array_equal(rows, expected)
    np.testing.assert_allclose(scores, truth, rtol=1e-5)
    assert rows[:5, :2].tolist() == [[n, n + 200] for n in range(5)]
    assert np.array_equal(scores[:5, 0], scores[:5, 1])


@pytest.mark.parametrize("asked", [1, 3])
@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_equal_scores_stand_by_their_ranks(asked: int, k: int) -> None:
    random = np.random.default_rng(2)
    vectors, ranks = random.integers(-1, 2, (100, 2)).astype(np.float32), random.permutation(100)
    queries = np.array([[1, 0], [1, 1], [-1, 0.5]], np.float32)[:asked]
    allowed = np.arange(100) >= 20
    for mask in (None, allowed, allowed & (ranks > 9)):
        rows, scores = FlatSearcher(vectors, "cpu", ranks).nearest(queries, k, mask)
        for query, mine, theirs in zip(queries, rows, scores, strict=True):
            best = [row for row in np.lexsort((ranks, -(vectors @ query))) if mask is None or mask[row]][:k]
            assert mine[mine >= 0].tolist() == best
            assert theirs[: len(best)].tolist() == (vectors[best] @ query).tolist()


def test_float32_vectors_are_not_copied_and_others_are_converted() -> None:
    assert FlatSearcher(VECTORS, "cpu").vectors is VECTORS
    halves = VECTORS.astype(np.float16)
    check(FlatSearcher(halves, "cpu"), clustered(3), 5, None)
    halves.flags.writeable = False
    check(FlatSearcher(halves, "cpu"), clustered(3), 5, None)


def test_arguments_that_do_not_fit_are_refused() -> None:
    searcher = FlatSearcher(VECTORS, "cpu")
    with pytest.raises(InputError, match="k must be at least 1"):
        searcher.nearest(VECTORS[:1], 0)
    with pytest.raises(ValueError, match="32 dimensions"):
        searcher.nearest(np.zeros((1, 8)), 1)
    with pytest.raises(ValueError, match="2000 rows"):
        searcher.nearest(VECTORS[:1], 1, np.ones(3, bool))


@pytest.mark.parametrize("merge", [0, 0.5])
def test_exact_search_is_the_same_of_each_kind_alone_and_where_vectors_do_not_fit(
    exact: Index, merge: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled("lance", tmp_path / "lance")
    lance, large = opened(tmp_path / "lance"), opened(tmp_path / "lance")
    for name in ("PART", "SMALL_PART"):
        monkeypatch.setattr(dense, name, 100_000)  # bytes, so that there are three of them
    for where in FILTERS:
        for correct in (True, False):
            for k in (10, 150):
                runs = [index.search(QUERIES, k, where=where, correct=correct, merge=merge) for index in (exact, lance)]
                with monkeypatch.context() as patch:
                    patch.setattr(dense, "measure_free_memory", lambda: 4 * VECTORS.nbytes - 1)
                    runs.append(large.search(QUERIES, k, where=where, correct=correct, merge=merge))
                for query in QUERIES[:3]:
                    first = opened(tmp_path / "lance").search([query], k, where=where, correct=correct, merge=merge)
                    assert first[query.id] == runs[0][query.id]
                for query in QUERIES:
                    alone = lance.search([query], k, where=where, correct=correct, merge=merge)
                    assert runs[0][query.id] == runs[1][query.id] == runs[2][query.id] == alone[query.id]
    assert [index.kind.load(index.card.spaces[0], True) is None for index in (exact, lance, large)] == [0, 0, 1]


def test_free_memory_is_at_most_that_of_the_machine() -> None:
    assert 1 << 20 < measure_free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", ["flat", "lance"])
def test_exact_search_sees_what_is_added_after_a_search(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled(kind, path)
    index = opened(path)
    query = [Item("q1", "query")]
    index.search(query, 3, where={"lang": "eng"}, correct=False)
    index.add_vectors([Item("best", "text", lang="eng")], clustered(1, 1001), SPEC)
    for where in (None, {"lang": "eng"}):
        assert index.search(query, 1, where=where, correct=False)["q1"][0].id == "best"


@pytest.mark.parametrize("kind", ["flat", "lance"])
def test_discarded_vectors_do_not_wait_for_the_garbage_collector(kind: str, tmp_path: Path) -> None:
    filled(kind, tmp_path / "index")
    index = opened(tmp_path / "index")
    index.search([Item("q1", "query")], 3, where={"lang": "eng"})
    assert isinstance(index.kind, DenseKind)
    loaded = index.kind.load(index.card.spaces[0], index.card.spaces[0].multilingual)
    assert loaded is not None
    searcher = weakref.ref(loaded.searcher)
    del loaded
    gc.disable()
    try:
        index.add_vectors([Item("other", "text")], clustered(1), SPEC)
        assert searcher() is None
    finally:
        gc.enable()


def test_flat_builds_nothing_approximate() -> None:
    index = filled("flat")
    assert index.build().at == {10: 1.0, 100: 1.0}
    with pytest.raises(InputError, match="no IVF_PQ"):
        index.build("IVF_PQ")
    with pytest.raises(InputError, match="flat takes nothing after"):
        create_index("memory://", kind="flat:HNSW32")
