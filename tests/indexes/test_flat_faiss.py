"""Exact search in memory (`indexes.flat`) and faiss (`indexes.faiss`), below and beside the contract suite."""

from __future__ import annotations

import builtins
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.errors import InputError
from crosslens.indexes import flat
from crosslens.indexes.base import Where
from crosslens.indexes.card import FILE
from crosslens.indexes.flat import FlatSearcher
from crosslens.indexes.lance import LanceIndex
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Item
from crosslens.runs import Run
from hypothesis import given, settings
from hypothesis import strategies as st

faiss = pytest.importorskip("faiss")
from crosslens.indexes.faiss import FaissSearcher, Unfiltered, described, share_found  # noqa: E402

DIM = 32
COUNT = 2000
LANGS = ("eng", "zho", "fas", "rus")
SPEC = EncoderSpec("fake:given", "1", ("text",), DIM)
ITEMS = [
    Item(f"d{row}", f"text {row}", lang="swa" if row % 40 == 0 else LANGS[row % 4], meta={"year": row % 100})
    for row in range(COUNT)
]


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Vectors around 40 centres, as embeddings are, and not at random in all directions."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, DIM))
    return unit(centres[random.integers(0, 40, count)] + 0.7 * random.normal(size=(count, DIM)))


VECTORS = clustered(COUNT)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """faiss's threads spin while they wait, which takes minutes where other tests run beside these."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


class Given:
    """An encoder whose queries' vectors are made beforehand."""

    spec = SPEC

    def encode(self, items: Any, role: str) -> Any:
        from crosslens.items import Dense

        for item in items:
            seed = int("".join(each for each in item.id if each.isdigit()))
            yield Dense([item.id], clustered(1, 1000 + seed))


FILTERS: list[Where | None] = [
    None,
    {"lang": "swa"},
    {"lang": ["swa", "eng"], "year": 20},
    {"lang": "swa", "year": [1, 2]},
]
QUERIES = [Item(f"q{number}", "query", lang="eng") for number in range(30)]


def filled(kind: str, path: str | Path = "memory://") -> LanceIndex:
    index = create_index(path, kind=kind, lexical=False)
    index.add_vectors(ITEMS, VECTORS, SPEC)
    return index


def opened(path: Path) -> LanceIndex:
    return open_index(path, encoders=Given())


def ranking(run: Run) -> dict[str, list[str]]:
    return {query.id: [hit.id for hit in hits] for query, hits in run}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> LanceIndex:
    """The same documents in a flat index."""
    path = tmp_path_factory.mktemp("flat") / "index"
    filled("flat", path)
    return opened(path)


# Exact search


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


@settings(max_examples=150, deadline=None)
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
    vectors = unit(random.normal(size=(2 * flat.BLOCK["cpu"] + 4321, 16)))
    allowed = None if kept is None else random.random(len(vectors)) < kept
    check(FlatSearcher(vectors, "cpu"), unit(random.normal(size=(asked, 16))), k, allowed)


def test_large_groups_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "MAXIMA", 4096)
    monkeypatch.setattr(flat, "THREADED_FROM", 1)
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


def test_flat_index_finds_what_lance_finds(exact: LanceIndex, tmp_path: Path) -> None:
    filled("lance", tmp_path / "lance")
    lance = opened(tmp_path / "lance")
    for where in FILTERS:
        for correct in (True, False):
            mine = exact.search(QUERIES, 10, where=where, correct=correct)
            theirs = lance.search(QUERIES, 10, where=where, correct=correct)
            for query in QUERIES:
                assert dict(mine[query.id]) == pytest.approx(dict(theirs[query.id]), abs=2e-3)


def test_flat_index_sees_what_is_added_after_a_search(tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled("flat", path)
    index = opened(path)
    query = [Item("q1", "query")]
    index.search(query, 3, where={"lang": "eng"}, correct=False)
    index.add_vectors([Item("best", "text", lang="eng")], clustered(1, 1001), SPEC)
    for where in (None, {"lang": "eng"}):
        assert index.search(query, 1, where=where, correct=False)["q1"][0].id == "best"


def test_flat_builds_nothing_approximate() -> None:
    index = filled("flat")
    assert index.build().at == {10: 1.0, 100: 1.0}
    with pytest.raises(InputError, match="no IVF_PQ"):
        index.build("IVF_PQ")
    with pytest.raises(InputError, match="flat takes nothing after"):
        create_index("memory://", kind="flat:HNSW32")


# faiss


def test_faiss_flat_equals_flat(exact: LanceIndex, tmp_path: Path) -> None:
    path = tmp_path / "index"
    recall = filled("faiss:Flat", path).build()
    assert recall.kind == "Flat"
    assert recall.at == {10: 1.0, 100: 1.0}
    index = opened(path)
    for where in FILTERS:
        assert ranking(index.search(QUERIES, 20, where=where)) == ranking(
            exact.search(QUERIES, 20, where=where)
        )


# PQ without cells, NSG and "PQ8x4fs,RFlat": faiss has no filters for them.
FACTORIES = ("HNSW16", "IVF64,Flat", "IVF32,PQ8x4,RFlat", "OPQ8,IVF16,PQ8x4,RFlat", "SQ8", "PQ8x4", "NSG16")


@pytest.mark.parametrize("factory", [*FACTORIES, "PQ8x4fs,RFlat", "PCA16,HNSW16"])
def test_a_filter_never_returns_fewer_than_match(factory: str, exact: LanceIndex, tmp_path: Path) -> None:
    path = tmp_path / "index"
    built = filled(f"faiss:{factory}", path).build()
    index = opened(path)
    assert 0 < built.at[10] <= 1
    # No filter, few documents, and none; k within what matches, and beyond it or what one cell holds.
    for where, matching in zip(FILTERS, (COUNT, 50, 20, 0), strict=True):
        right = {item.id for item in ITEMS if where is None or matches(item, where)}
        assert len(right) == matching
        for k in (5, 300):
            for query, hits in index.search(QUERIES, k, where=where):
                assert len(hits) == min(k, matching), query.id
                assert {hit.id for hit in hits} <= right
    truth = ranking(exact.search(QUERIES, 10, where={"lang": "swa"}))
    found = ranking(index.search(QUERIES, 10, where={"lang": "swa"}))
    shared = np.mean([len(set(truth[each]) & set(found[each])) / 10 for each in truth])
    assert shared >= (0.5 if "PCA" in factory else 0.95)


def matches(item: Item, where: Where) -> bool:
    return all(
        (item.lang if key == "lang" else item.meta[key]) in (value if isinstance(value, list) else [value])
        for key, value in where.items()
    )


@pytest.mark.parametrize("factory", ["HNSW16", "IVF64,Flat", "IVF32,PQ8x4,RFlat"])
def test_recall_is_measured_against_exact_search(factory: str, exact: LanceIndex, tmp_path: Path) -> None:
    path = tmp_path / "index"
    recall = filled(f"faiss:{factory}", path).build()
    assert recall.queries == 100
    assert recall.at[10] >= 0.97
    index = opened(path)
    plan = index.card.spaces[0].ann
    assert plan is not None
    assert plan.recall == recall.at
    assert plan.kept == 0.025
    truth, found = ranking(exact.search(QUERIES, 10)), ranking(index.search(QUERIES, 10))
    seen = np.mean([len(set(truth[each]) & set(found[each])) / 10 for each in truth])
    assert seen == pytest.approx(recall.at[10], abs=0.06)


def test_exact_passes_faiss_over(exact: LanceIndex, tmp_path: Path) -> None:
    path = tmp_path / "index"
    recall = filled("faiss:PQ4x4", path).build()
    assert recall.at[10] < 0.9  # else this test could not tell them apart
    index = opened(path)
    truth = ranking(exact.search(QUERIES, 10))
    assert ranking(index.search(QUERIES, 10)) != truth
    assert ranking(index.search(QUERIES, 10, exact=True)) == truth
    # Uncorrected queries to a multilingual index are not what was built.
    assert ranking(index.search(QUERIES, 10, correct=False)) == ranking(
        exact.search(QUERIES, 10, correct=False)
    )
    assert index.build("none").kind == "flat"
    assert ranking(opened(path).search(QUERIES, 10)) == truth
    assert not list(path.glob("faiss-*"))


def test_falling_back_to_exact_search_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "index"
    filled("faiss:PQ8x4", path).build()
    index = opened(path)
    with caplog.at_level(logging.WARNING, "crosslens"):
        index.search(QUERIES, 5)
        assert not caplog.records
        index.search(QUERIES, 5, where={"lang": "swa"})
        index.search(QUERIES, 5, where={"lang": "eng"})
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "faiss has no filters for IndexPQ: searching exactly"
    ]


def test_another_factory_can_be_built_and_adding_discards_it(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = filled("faiss:HNSW16", path)
    assert index.build().kind == "HNSW16"
    assert index.build("IVF16,Flat").kind == "IVF16,Flat"
    assert len(list(path.glob("faiss-*"))) == 2
    index = opened(path)
    query = [Item("q1", "query", lang="eng")]
    index.search(query, 1)
    index.add_vectors([Item("best", "text", lang="eng")], clustered(1, 1001), SPEC)
    assert not list(path.glob("faiss-*"))
    assert index.search(query, 1)["q1"][0].id == "best"
    index.build()
    assert opened(path).search(query, 1)["q1"][0].id == "best"


@pytest.mark.parametrize("what", ["index", "ids.json"])
@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "other"])
def test_a_file_that_is_not_the_one_built_is_refused(
    what: str, harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    filled("faiss:Flat", path).build()
    (file,) = path.glob(f"faiss-*.{what}")
    data = bytearray(file.read_bytes())
    if harm == "changed":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif harm == "cut":
        file.write_bytes(data[:-10])
    elif harm == "gone":
        file.unlink()
    else:
        other = faiss.IndexFlatIP(DIM)
        other.add(VECTORS[::-1].copy())
        faiss.write_index(other, str(file))
    # faiss may not see a byte of it.
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("faiss read the file"))
    index = opened(path)
    expected = "cannot read" if harm == "gone" else "sha256 differs"
    with pytest.raises(InputError, match=rf"{expected}.*build the index again") as caught:
        index.search(QUERIES, 5)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    # What is exact needs no faiss, and building mends it.
    monkeypatch.undo()
    assert len(index.search(QUERIES, 5, exact=True)["q1"]) == 5
    index.build()
    assert len(opened(path).search(QUERIES, 5)["q1"]) == 5


@pytest.mark.parametrize("inside_is_there", [True, False])
def test_the_card_cannot_lead_out_of_the_index(
    inside_is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    filled("faiss:Flat", path).build()
    (inside,) = path.glob("faiss-*.index")
    outside = tmp_path / inside.name
    outside.write_bytes(inside.read_bytes())
    card = json.loads((path / FILE).read_text())
    files = card["spaces"][0]["ann"]["files"]
    card["spaces"][0]["ann"]["files"] = {
        f"../{name}" if name == inside.name else name: digest for name, digest in files.items()
    }
    (path / FILE).write_text(json.dumps(card))
    read: list[str] = []
    real = faiss.read_index

    def noted(name: str) -> Any:
        read.append(name)
        return real(name)

    monkeypatch.setattr(faiss, "read_index", noted)
    index = opened(path)
    if inside_is_there:
        index.search(QUERIES, 5)
        assert read == [str(inside)]
    else:
        inside.unlink()
        with pytest.raises(InputError, match="cannot read"):
            index.search(QUERIES, 5)
    index.build("none")
    assert outside.exists()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("faiss:Foo", "could not parse index string Foo"),
        ("faiss:IVF12x,Flat", "could not parse"),
        ("faiss:IVF16,PQ8+8", "not implemented for inner product"),
        ("faiss:IDMap,Flat", "leave IDMap out"),
        ("faiss", "write faiss:HNSW32"),
        ("faiss:", "nothing after the colon"),
    ],
)
def test_a_factory_string_that_is_none_is_refused(kind: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        create_index(tmp_path / "index", kind=kind)
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)
    assert not (tmp_path / "index").exists()


def test_a_factory_that_does_not_suit_the_encoder_is_refused_before_encoding() -> None:
    index = create_index("memory://", kind="faiss:PQ7", lexical=False)
    with pytest.raises(InputError, match=r"'PQ7' of 32 dimensions: .*multiple of") as caught:
        index.add(ITEMS, Given())
    assert "\n" not in str(caught.value)
    assert len(index) == 0


def test_too_few_vectors_to_train_and_a_bad_rebuild_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = filled("faiss:Flat", path)
    index.build()
    with pytest.raises(InputError, match="could not parse"):
        index.build("Foo")
    assert len(list(path.glob("faiss-*"))) == 2
    with pytest.raises(InputError, match=r"cannot build IVF4096,Flat over 2,000 vectors .*training points"):
        index.build("IVF4096,Flat")
    assert len(opened(path).search(QUERIES, 5)["q1"]) == 5


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        # Relative imports of our own module of that name have a level above 0.
        if name == "faiss" and (rest[3] if len(rest) > 3 else more.get("level", 0)) == 0:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'crosslens\[faiss\]'"):
        create_index("memory://", kind="faiss:Flat")


def test_faiss_searcher_pads_and_says_what_it_cannot() -> None:
    index = described("PQ8x4", DIM)
    index.train(VECTORS)
    index.add(VECTORS[:3])
    searcher = FaissSearcher(index, 0, 0, 1)
    rows, scores = searcher.nearest(VECTORS[:2], 5)
    assert (rows[:, 3:] == -1).all()
    assert (scores[:, 3:] == -np.inf).all()
    assert sorted(rows[0, :3].tolist()) == [0, 1, 2]
    with pytest.raises(Unfiltered, match="IndexPQ"):
        searcher.nearest(VECTORS[:2], 5, np.array([True, False, True]))
    with pytest.raises(InputError, match="k must be at least 1"):
        searcher.nearest(VECTORS[:2], 0)


def test_share_found_counts_ties_and_no_others() -> None:
    truth = [[("a", 0.9), ("b", 0.8), ("c", 0.8), ("d", 0.1)]]
    assert share_found([[("a", 9.0), ("c", 7.0)]], truth, 2) == 1.0
    assert share_found([[("a", 9.0), ("d", 8.0)]], truth, 2) == 0.5
    assert share_found([[]], truth, 2) == 0.0
    # Of two that tie for the second place only one can have it.
    assert share_found([[("b", 1.0), ("c", 1.0)]], truth, 2) == 0.5
