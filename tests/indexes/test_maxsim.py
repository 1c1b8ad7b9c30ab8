"""Exact MaxSim against a plain loop, and the stage that reorders hits by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from crosslens.encoders.base import unit
from crosslens.errors import InputError
from crosslens.indexes import maxsim
from crosslens.indexes.maxsim import MaxSim, TokenVectors
from crosslens.indexes.registry import create_index
from crosslens.items import Dense, Item, Role
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.runs import Run
from stand_ins.late_words import QUERIES, Words, collection, looped, matrices


@pytest.mark.parametrize("block", [1, 100, 5000, None])
def test_maxsim_equals_a_loop_whatever_the_block(block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxsim, "QUERY_TOKENS", 10)
    random = np.random.default_rng(0)
    queries = [random.standard_normal((count, 5)).astype(np.float32) for count in (3, 1, 12, 4, 6)]
    documents = [random.standard_normal((count, 5)).astype(np.float16) for count in (7, 1, 40, 2, 2, 19, 1, 8)]
    scores = maxsim.score_maxsim(queries, TokenVectors.of(documents), "cpu", block)
    loop = [[looped(query, document.astype(np.float32)) for document in documents] for query in queries]
    np.testing.assert_allclose(scores, loop, rtol=1e-5, atol=1e-5)


def test_blocks_stay_within_the_budget() -> None:
    offsets = np.concatenate([[0], np.cumsum(np.random.default_rng(1).integers(1, 60, 300))])
    seen: Counter[int] = Counter()
    for part, places in maxsim.pad_blocks(offsets, (8, 16), 5000):
        assert places.size * (8 + 16) <= 5000
        seen.update(part.tolist())
        for row, mine in zip(part, places, strict=True):
            assert sorted(set(mine.tolist())) == list(range(offsets[row], offsets[row + 1]))
        assert 2 * len(set(places[-1])) + 1 >= places.shape[1]  # no more padding than vectors
    assert seen == Counter(range(300))


def test_maxsim_is_asymmetric_and_bounded_by_the_length_of_the_query() -> None:
    long, short = unit(np.eye(4)[[0, 1, 2]]), unit(np.eye(4)[[0]])
    assert maxsim.score_maxsim([long], TokenVectors.of([short]))[0, 0] == pytest.approx(1)
    assert maxsim.score_maxsim([short], TokenVectors.of([long]))[0, 0] == pytest.approx(1)
    assert maxsim.score_maxsim([long], TokenVectors.of([long]))[0, 0] == pytest.approx(3)
    assert maxsim.score_maxsim([long], TokenVectors.of([-short]))[0, 0] == pytest.approx(-1)
    assert maxsim.score_maxsim([short], TokenVectors.of([-short]))[0, 0] == pytest.approx(-1)
    with pytest.raises(ValueError, match="without a vector"):
        TokenVectors.of([long, np.zeros((0, 4))])


# The stage


def first(items: list[Item], depth: int) -> Run:
    """A first stage that finds documents in the order of the collection, under a store that can be asked once each."""
    hits = {query.id: [(item.id, -float(row)) for row, item in enumerate(items[:depth])] for query in QUERIES}
    return Run.of(QUERIES).ranking(hits, InMemoryDocuments({item.id: item for item in items}))


def test_the_stage_reorders_candidates_by_maxsim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxsim, "TOGETHER", 7)
    items = collection(40)
    encoder = Words()
    run = MaxSim(encoder, depth=25)(first(items, 32))
    documents = matrices(Words(), items[:25])
    for query, vectors in zip(QUERIES, matrices(Words(), QUERIES, "query"), strict=True):
        scores = {item.id: looped(vectors, document) for item, document in zip(items[:25], documents, strict=True)}
        assert dict(run[query.id][:25]) == pytest.approx(scores, abs=1e-4)
        assert [hit.id for hit in run[query.id][25:]] == [item.id for item in items[25:32]]
    # Each document is encoded once, although three queries hold it.
    assert Counter(encoder.encoded) == Counter([*(q.id for q in QUERIES), *(item.id for item in items[:25])])
    assert run.manifest.records[-1].counts["documents"] == 25
    assert run.manifest.records[-1].models == {"fake:words": "1"}


def test_the_stage_equals_the_index() -> None:
    items = collection(30)
    index = create_index("memory://", kind="late")
    index.add(items, Words())
    run = MaxSim(Words(), depth=30)(index.retriever("lexical", 30)(QUERIES[:1]))
    scores = dict(index.search(QUERIES[:1], 30)["long"])
    assert run["long"]
    assert all(hit.score == pytest.approx(scores[hit.id], abs=2e-3) for hit in run["long"])


def test_the_stage_has_a_fingerprint_of_encoder_and_depth() -> None:
    one, two = MaxSim(Words()), MaxSim(Words(), device="cpu")
    assert one == two
    assert one.fingerprint == two.fingerprint
    assert (one % 10).fingerprint == (two % 10).fingerprint
    other = Words()
    other.spec = replace(other.spec, max_tokens=99)
    assert len({one.fingerprint, MaxSim(Words(), 50).fingerprint, MaxSim(other).fingerprint}) == 3
    dense = Words()
    dense.spec = replace(dense.spec, kind="dense")
    with pytest.raises(InputError, match="fake:words makes dense vectors: MaxSim needs a late: encoder"):
        MaxSim(dense)
    with pytest.raises(InputError, match="depth must be at least 1"):
        MaxSim(Words(), 0)
    with pytest.raises(InputError, match="needs the documents"):
        one(Run.of(QUERIES))

    class Lying(Words):
        def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:  # type: ignore[override]
            yield Dense([item.id for item in items], np.ones((1, 32), np.float32))

    with pytest.raises(InputError, match="is not a late-interaction encoder"):
        MaxSim(Lying())(first(collection(5), 5))


def test_the_stage_passes_queries_without_hits() -> None:
    run = replace(first(collection(5), 5), hits={"one": first(collection(5), 5)["one"]})
    done = MaxSim(Words())(run)
    assert len(done["one"]) == 5
    assert done["long"] == ()
    assert MaxSim(Words())(replace(run, hits={})).hits == {}
