"""faiss: its factory strings, recall, filters, and the files that it is trusted with."""

from __future__ import annotations

import builtins
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.indexes.base import Index
from crosslens.indexes.kinds import recall
from crosslens.indexes.registry import create_index
from crosslens.indexes.storage.filters import Where
from crosslens.indexes.storage.storage import FILE
from crosslens.items import Item, seal
from crosslens.runs import Run
from stand_ins.given_vectors import COUNT, DIM, FILTERS, ITEMS, QUERIES, SPEC, VECTORS, Given, clustered, filled, opened
from stand_ins.table import table

faiss = pytest.importorskip("faiss")
from crosslens.indexes.kinds.faiss import FaissSearcher, Unfiltered, make_faiss_index  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """faiss's threads spin while they wait, which takes minutes where other tests run beside these."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def ranking(run: Run) -> dict[str, list[str]]:
    return {query.id: [hit.id for hit in hits] for query, hits in run}


def test_faiss_flat_equals_flat(exact: Index, tmp_path: Path) -> None:
    path = tmp_path / "index"
    recall = filled("faiss:Flat", path).build()
    assert recall.kind == "Flat"
    assert recall.at == {10: 1.0, 100: 1.0}
    index = opened(path)
    for where in FILTERS:
        assert ranking(index.search(QUERIES, 20, where=where)) == ranking(exact.search(QUERIES, 20, where=where))


# PQ without cells, NSG and "PQ8x4fs,RFlat": faiss has no filters for them.
NEAR = ("HNSW16", "IVF64,Flat", "IVF32,PQ8x4,RFlat")
FACTORIES = (*NEAR, "RR32,IVF16,PQ8x4,RFlat", "SQ8", "PQ8x4", "NSG16", "PQ8x4fs,RFlat", "PCA16,HNSW16")


@pytest.mark.parametrize("factory", FACTORIES)
def test_recall_is_measured_and_a_filter_never_returns_fewer_than_match(
    factory: str, exact: Index, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    built = filled(f"faiss:{factory}", path).build()
    index = opened(path)
    assert built.queries == 100
    assert (0.97 if factory in NEAR else 0) < built.at[10] <= 1
    plan = index.card.spaces[0].ann
    assert plan is not None
    assert plan.recall == built.at
    assert plan.kept == 0.025
    truth, found = (ranking(each.search(QUERIES, 10, merge=0)) for each in (exact, index))
    seen = np.mean([len(set(truth[each]) & set(found[each])) / 10 for each in truth])
    assert seen == pytest.approx(built.at[10], abs=0.06 if factory in NEAR else 0.15)
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


def test_exact_passes_faiss_over(exact: Index, tmp_path: Path) -> None:
    path = tmp_path / "index"
    recall = filled("faiss:PQ4x4", path).build()
    assert recall.at[10] < 0.9  # else this test shows no difference
    index = opened(path)
    truth = ranking(exact.search(QUERIES, 10, merge=0))
    assert ranking(index.search(QUERIES, 10, merge=0)) != truth
    assert ranking(index.search(QUERIES, 10, exact=True, merge=0)) == truth
    # Uncorrected queries to a multilingual index are not what was built.
    assert ranking(index.search(QUERIES, 10, correct=False)) == ranking(exact.search(QUERIES, 10, correct=False))
    built = {name for name in index.card.files if name.startswith("faiss-")}
    assert len(built) == 2
    assert index.build("none").kind == "flat"
    assert ranking(opened(path).search(QUERIES, 10, merge=0)) == truth
    assert not opened(path).card.files.keys() & built


def test_falling_back_to_exact_search_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "index"
    filled("faiss:PQ2x4", path).build()
    index = opened(path)
    with caplog.at_level(logging.WARNING, "crosslens"):
        index.search(QUERIES, 5, merge=0)
        assert not caplog.records
        index.search(QUERIES, 5, where={"lang": "swa"})
        index.search(QUERIES, 5, where={"lang": "eng"})
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "faiss has no filters for IndexPQ: searching exactly"
    ]


def test_another_factory_can_be_built_and_adding_discards_it(tmp_path: Path) -> None:
    path = tmp_path / "index"
    index = filled("faiss:HNSW16", path, grace=0.0)
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "index"
    with pytest.MonkeyPatch.context() as clock:
        # A build like the one before, down to its time, makes other files all the same.
        clock.setattr(recall, "time", SimpleNamespace(perf_counter=float))
        filled("faiss:Flat", path).build()
    return path


@pytest.mark.parametrize("what", ["index", "ids.json"])
@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "other"])
def test_a_file_that_is_not_the_one_built_is_refused(
    what: str, harm: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copytree(built, tmp_path / "index")
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
    # What is exact needs no faiss, and building it again repairs the index.
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
    (path / FILE).write_text(json.dumps(seal(card)))
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


@table(
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
    index = make_faiss_index("PQ2x4", DIM)
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


def test_a_gpu_is_asked_for_no_more_than_it_can_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """faiss's kinds for GPUs find at most 2,048 rows; more are found on the CPU."""
    rows = np.random.default_rng(0).standard_normal((2100, 4), dtype=np.float32)
    index = make_faiss_index("Flat", 4)
    index.add(rows)
    asked: list[int] = []

    class Gpu:
        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            asked.append(k)
            return index.search(queries, k)

    monkeypatch.setattr(
        "crosslens.indexes.kinds.faiss._copy_to_gpu", lambda *given: Gpu() if given[-1] == "cuda:1" else None
    )
    searcher = FaissSearcher(index, 0, 0, 10, "cuda:1")
    few, many = (searcher.nearest(rows[:3], k)[0] for k in (2048, 2100))
    assert asked == [2048]
    assert np.array_equal(many[:, :2048], few)
