"""Approximate search in LanceDB's own vector columns: what `build` reports is what searches find."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Dense, Item

SPEC = EncoderSpec("fake:given", "1", ("text",), 32)


def clusters(count: int, dim: int = 32) -> tuple[list[Item], np.ndarray]:
    """Vectors in clusters, as texts have them, one language keeping 5% of the rows."""
    random = np.random.default_rng(3)
    centres = random.standard_normal((50, dim))
    vectors = unit(centres[random.integers(50, size=count)] + 0.7 * random.standard_normal((count, dim)))
    return [Item(f"d{n}", f"w{n}", lang="swa" if n % 20 == 0 else "eng") for n in range(count)], vectors


class Given:
    """Queries whose text is the number of a stored vector, moved a little."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.spec = SPEC
        self.vectors = vectors

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            noise = np.random.default_rng(int(item.text or 0)).standard_normal(self.spec.dim)
            vector = self.vectors[int(item.text or 0)] + 0.05 * noise
            yield Dense([item.id], unit(vector[None]))


@pytest.mark.parametrize("kind", ["IVF_FLAT", "IVF_RQ", "IVF_PQ", "IVF_HNSW_SQ"])
def test_approximate_search_reports_the_recall_that_it_has(kind: str, tmp_path: Path) -> None:
    items, vectors = clusters(2000)
    index = create_index(tmp_path, lexical=False)
    index.add_vectors(items, vectors, SPEC)
    recall = index.build(kind)
    assert recall.kind == kind
    assert recall.queries == 100
    assert recall.at[10] >= 0.95
    again = open_index(tmp_path, encoders=Given(vectors))
    plan = again.card.spaces[0].ann
    assert plan is not None
    assert plan.kept == 0.05
    assert plan.filtered is not None
    assert plan.filtered >= 0.95
    queries = [Item(f"q{n}", str(n), lang=items[n].lang) for n in range(5, 2000, 50)]
    for where in (None, {"lang": "swa"}):
        exact = again.search(queries, 10, where=where, exact=True)
        found = again.search(queries, 10, where=where)
        shared = [len(dict(found[q.id]).keys() & dict(exact[q.id]).keys()) / 10 for q in queries]
        assert np.mean(shared) >= 0.93
        for query in queries:  # and the scores of what is found are exact, but for LanceDB's products in float16
            common = dict(found[query.id]).keys() & dict(exact[query.id]).keys()
            truth = dict(exact[query.id])
            assert {doc: dict(found[query.id])[doc] for doc in common} == pytest.approx(
                {doc: truth[doc] for doc in common}, abs=3e-3
            )
    assert again.build("none").kind == "flat"
    assert open_index(tmp_path).card.spaces[0].ann is None


def test_auto_is_exact_for_few_and_approximate_for_many() -> None:
    items, vectors = clusters(1000)
    index = create_index("memory://", lexical=False)
    index.add_vectors(items, vectors, SPEC)
    assert index.build("auto").kind == "flat"
    index.kind.auto_from = 1000
    recall = index.build("auto")
    assert recall.kind == "IVF_RQ"
    assert recall.at[10] >= 0.95
    index.add_vectors([Item("new", "w", lang="eng")], vectors[:1], SPEC)
    assert index.card.spaces[0].ann is None  # the vectors have changed: exact until it is built again


def test_approximate_search_needs_enough_vectors_and_a_known_kind() -> None:
    index = create_index("memory://")
    items, vectors = clusters(20)
    index.add_vectors(items, vectors, SPEC)
    with pytest.raises(InputError, match="20 vectors are too few for IVF_PQ"):
        index.build("IVF_PQ")
    with pytest.raises(InputError, match="unknown kind of approximate index 'ivf_pq'"):
        index.build("ivf_pq")
