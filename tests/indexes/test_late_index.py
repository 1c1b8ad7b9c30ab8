"""Exact MaxSim against a plain loop, the index of token vectors, and the MaxSim stage."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.base import Encoder, EncoderSpec, NotFinite, unit
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError, SpecMismatch
from crosslens.indexes import late, maxsim
from crosslens.indexes.late import LateIndex
from crosslens.indexes.maxsim import MaxSim, Tokens
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Dense, Item, Multi, Role
from crosslens.multilingual.collections.documents import InMemoryDocuments
from crosslens.runs import Run
from PIL import Image

LANGS = ("eng", "zho", "fas")
WORDS = [f"w{number}" for number in range(400)]


class Words:
    """A late-interaction encoder: of each word its own random direction, turned a little by the words before it."""

    def __init__(self, modalities: tuple[str, ...] = ("text",), dim: int = 32) -> None:
        self.spec = EncoderSpec("fake:words", "1", modalities, dim, kind="multi")  # type: ignore[arg-type]
        self.encoded: list[str] = []

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
        for item in items:
            self.encoded.append(item.id)
            words = (item.text or "").split()
            yield Multi(
                [item.id], [np.stack([self.direction(word, place) for place, word in enumerate(words)])]
            )

    def direction(self, word: str, place: int) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        turn = np.random.default_rng(place).standard_normal(self.spec.dim) * 0.2
        return unit(np.random.default_rng(seed).standard_normal(self.spec.dim) + turn)


def collection(count: int) -> list[Item]:
    random = np.random.default_rng(3)
    return [
        Item(
            f"d{row}",
            " ".join(random.choice(WORDS, 1 + row * 7 % 30)),
            lang=LANGS[row % 3],
            meta={"year": 2000 + row % 2},
        )
        for row in range(count)
    ]


QUERIES = [
    Item("long", "w1 w2 w3 w4 w5 w6 w7 w8", lang="eng"),
    Item("one", "w17", lang="zho"),
    Item("two", "w8 w90"),
]


def matrices(encoder: Encoder, items: Iterable[Item], role: Role = "document") -> list[np.ndarray]:
    return [vectors for batch in encoder.encode(items, role) for vectors in batch.vectors]


def looped(query: np.ndarray, document: np.ndarray) -> float:
    total = 0.0
    for vector in query:
        total += max(float(vector @ other) for other in document)
    return total


def expected(items: list[Item], queries: list[Item], k: int) -> dict[str, list[tuple[str, float]]]:
    """The k best of each query by a plain loop over what the index stores."""
    documents = [each.astype(np.float16).astype(np.float32) for each in matrices(Words(), items)]
    found = {}
    for query, vectors in zip(queries, matrices(Words(), queries, "query"), strict=True):
        scores = [
            (item.id, looped(vectors, document)) for item, document in zip(items, documents, strict=True)
        ]
        found[query.id] = sorted(scores, key=lambda hit: (-hit[1], hit[0]))[:k]
    return found


def same(run: Run, wanted: dict[str, list[tuple[str, float]]]) -> None:
    for query, hits in wanted.items():
        assert [hit.score for hit in run[query]] == pytest.approx([score for _, score in hits], abs=1e-4)
        assert [hit.id for hit in run[query]] == [doc for doc, _ in hits]


# MaxSim


@pytest.mark.parametrize("block", [1, 100, 5000, None])
def test_maxsim_equals_a_loop_whatever_the_block(block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxsim, "QUERY_TOKENS", 10)
    random = np.random.default_rng(0)
    queries = [random.standard_normal((count, 5)).astype(np.float32) for count in (3, 1, 12, 4, 6)]
    documents = [
        random.standard_normal((count, 5)).astype(np.float16) for count in (7, 1, 40, 2, 2, 19, 1, 8)
    ]
    scores = maxsim.maxsim(queries, Tokens.of(documents), "cpu", block)
    loop = [[looped(query, document.astype(np.float32)) for document in documents] for query in queries]
    np.testing.assert_allclose(scores, loop, rtol=1e-5, atol=1e-5)


def test_blocks_stay_within_the_budget() -> None:
    offsets = np.concatenate([[0], np.cumsum(np.random.default_rng(1).integers(1, 60, 300))])
    seen: Counter[int] = Counter()
    for part, places in maxsim._blocks(offsets, (8, 16), 5000):
        assert places.size * (8 + 16) <= 5000
        seen.update(part.tolist())
        for row, mine in zip(part, places, strict=True):
            assert sorted(set(mine.tolist())) == list(range(offsets[row], offsets[row + 1]))
        assert 2 * len(set(places[-1])) + 1 >= places.shape[1]  # no more padding than vectors
    assert seen == Counter(range(300))


def test_maxsim_is_asymmetric_and_bounded_by_the_length_of_the_query() -> None:
    long, short = unit(np.eye(4)[[0, 1, 2]]), unit(np.eye(4)[[0]])
    assert maxsim.maxsim([long], Tokens.of([short]))[0, 0] == pytest.approx(1)
    assert maxsim.maxsim([short], Tokens.of([long]))[0, 0] == pytest.approx(1)
    assert maxsim.maxsim([long], Tokens.of([long]))[0, 0] == pytest.approx(3)
    assert maxsim.maxsim([long], Tokens.of([-short]))[0, 0] == pytest.approx(-1)
    assert maxsim.maxsim([short], Tokens.of([-short]))[0, 0] == pytest.approx(-1)
    with pytest.raises(ValueError, match="without a vector"):
        Tokens.of([long, np.zeros((0, 4))])


# The index


def made(path: str | Path, items: list[Item], **settings: object) -> LateIndex:
    index = create_index(path, kind="late", **settings)  # type: ignore[arg-type]
    assert isinstance(index, LateIndex)
    index.add(items, Words())
    return index


def test_search_is_exact_maxsim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "READ", 17)  # so that several blocks are merged
    items = collection(200)
    index = made("memory://", items)
    run = index.search(QUERIES, 10)
    same(run, expected(items, QUERIES, 10))
    assert [item.id for item in run.items("one")] == [hit.id for hit in run["one"]]
    assert all(-8 <= hit.score <= 8 for hit in run["long"])
    alone = index.search(QUERIES[1:2], 10)
    same(alone, {"one": list(run["one"])})
    assert len(index.search(QUERIES[:1], 500)["long"]) == 200


def test_filters_and_the_other_modes() -> None:
    items = collection(120)
    index = made("memory://", items)
    where = {"lang": ["zho", "fas"], "year": 2001}
    kept = [item for item in items if item.lang in ("zho", "fas") and item.meta["year"] == 2001]
    same(index.search(QUERIES, 7, where=where), expected(kept, QUERIES, 7))
    assert index.langs == {"eng": 40, "zho": 40, "fas": 40}
    dense, lexical, hybrid = (
        [hit.id for hit in index.search(QUERIES[:1], 120, mode=mode)["long"]]
        for mode in ("dense", "lexical", "hybrid")
    )
    assert lexical
    assert sorted(hybrid) == sorted(dense)
    assert hybrid != dense
    assert index.get(["d7", "d3"]) == [items[7], items[3]]
    with pytest.raises(InputError, match="field to filter by"):
        index.search(QUERIES, 3, where={"colour": "red"})


def test_a_rerun_encodes_only_what_is_missing_or_changed(tmp_path: Path) -> None:
    items = collection(60)

    class Stopping(Words):
        def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
            for batch in super().encode(items, role):
                if batch.ids[0] == "d45":
                    raise KeyboardInterrupt
                yield batch

    index = create_index(tmp_path / "index", kind="late")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crosslens.indexes.lance.WINDOW", 20)
        with pytest.raises(KeyboardInterrupt):
            index.add(items, Stopping())
    with pytest.raises(InputError, match="unfinished: 40 documents"):
        open_index(tmp_path / "index", encoders=Words()).search(QUERIES, 3)
    encoder = Words()
    again = open_index(tmp_path / "index", encoders=encoder)
    assert again.add(items, encoder) == 20
    assert encoder.encoded == [f"d{row}" for row in range(40, 60)]
    same(again.search(QUERIES, 9), expected(items, QUERIES, 9))
    fingerprint = again.fingerprint
    assert again.add(items, encoder) == 0
    assert again.fingerprint == open_index(tmp_path / "index").fingerprint == fingerprint
    items[5] = replace(items[5], text="w17 w17")
    assert again.add(items, encoder) == 1
    assert again.fingerprint != fingerprint
    same(again.search(QUERIES, 9), expected(items, QUERIES, 9))


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    index = made(tmp_path / "index", collection(20))
    other = Words()
    other.spec = replace(other.spec, query_prompt="query: ")
    for attempt in (
        lambda: index.add(collection(25), other),
        lambda: open_index(tmp_path / "index", encoders=other),
    ):
        with pytest.raises(SpecMismatch, match=r"query_prompt: 'query: ', there ''"):
            attempt()
    with pytest.raises(InputError, match="of one encoder"):
        create_index("memory://", kind="late").add(collection(5), [Words(), Words(dim=8)])

    class Plain(Words):
        spec = EncoderSpec("fake:dense", "1", ("text",), 4)

        def __init__(self) -> None: ...

    with pytest.raises(InputError, match="fake:dense makes dense vectors; this index holds multi ones"):
        index.add(collection(5), Plain())
    with pytest.raises(InputError, match="late takes nothing after it"):
        create_index("memory://", kind="late:PLAID")


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
        assert len(index) == 1  # the first goes alone, and tells how fast the encoder is


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


def test_vectors_made_elsewhere() -> None:
    items = collection(50)
    index = create_index("memory://", kind="late")
    index.add_vectors(items, matrices(Words(), items), Words().spec)
    index._encoders[Words().spec.fingerprint] = Words()
    same(index.search(QUERIES, 6), expected(items, QUERIES, 6))
    with pytest.raises(InputError, match="50 items cannot have the vectors of 1"):
        index.add_vectors(items, matrices(Words(), items[:1]), Words().spec)


def test_an_approximate_index_proposes_and_maxsim_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "QUERIES", 12)
    items = collection(300)
    index = made(tmp_path / "index", items, lexical=False)
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
    again.add(
        [*items, Item("new", "w1 w2 w3 w4 w5 w6 w7 w8")], Words()
    )  # the plan goes with the rows it was for
    assert again.card.spaces[0].ann is None
    assert again.search(QUERIES, 1)["long"][0].id == "new"
    again.build("none")
    assert again._tables.documents.list_indices() == []


def test_the_recall_that_build_reports_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With candidates that leave most of the best out, build says so."""
    index = made("memory://", collection(400), lexical=False)
    monkeypatch.setattr(LateIndex, "_proposed", lambda self, space, query, k, condition, plan: [])
    assert index.build("IVF_FLAT").at == {10: 0.0, 100: 0.0}


def test_build_is_checked() -> None:
    index = made("memory://", collection(5), lexical=False)
    with pytest.raises(InputError, match="too few for IVF_RQ"):
        index.build("IVF_RQ")
    with pytest.raises(InputError, match="kind of approximate index"):
        index.build("IVF_HNSW_SQ")


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
        scores = {
            item.id: looped(vectors, document) for item, document in zip(items[:25], documents, strict=True)
        }
        assert dict(run[query.id][:25]) == pytest.approx(scores, abs=1e-4)
        assert [hit.id for hit in run[query.id][25:]] == [item.id for item in items[25:32]]
    # Each document is encoded once, although three queries hold it.
    assert Counter(encoder.encoded) == Counter([*(q.id for q in QUERIES), *(item.id for item in items[:25])])
    assert run.manifest.records[-1].counts["documents"] == 25
    assert run.manifest.records[-1].models == {"fake:words": "1"}


def test_the_stage_equals_the_index() -> None:
    items = collection(30)
    index = made("memory://", items)
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

    with pytest.raises(InputError, match="needs a late: encoder"):
        MaxSim(Lying())(first(collection(5), 5))


def test_the_stage_passes_queries_without_hits() -> None:
    run = replace(first(collection(5), 5), hits={"one": first(collection(5), 5)["one"]})
    done = MaxSim(Words())(run)
    assert len(done["one"]) == 5
    assert done["long"] == ()
    assert MaxSim(Words())(replace(run, hits={})).hits == {}


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
