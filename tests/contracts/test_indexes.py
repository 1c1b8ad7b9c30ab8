"""The contract of `indexes.base.Index`, over every registered kind."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from crosslens.encoders.base import EncoderSpec, NotFinite, unit
from crosslens.errors import InputError, SpecMismatch
from crosslens.indexes.base import check_k
from crosslens.indexes.card import FILE, Windows
from crosslens.indexes.registry import INDEXES, create_index, open_index
from crosslens.indexes.spaces import KAPPA
from crosslens.items import Dense, Item
from crosslens.runs import Run

OWN = {"faiss": "faiss:Flat"}  # kinds that need a word after the colon
SPARSE = {"sparse", "late"}  # kinds that hold no dense vectors: tests/unit/test_sparse.py, test_late_index.py
MODES = ("dense", "lexical", "hybrid")
LANGS = ("eng", "zho", "fas", "swa")


class Hashing:
    """A deterministic encoder: the sum of a random direction for each word and for the bytes of a picture."""

    def __init__(
        self, name: str = "fake:hashing", modalities: tuple[str, ...] = ("text", "image"), dim: int = 24
    ) -> None:
        self.spec = EncoderSpec(name, "1", modalities, dim)  # type: ignore[arg-type]
        self.encoded = 0  # documents

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            self.encoded += role == "document"
            parts: list[bytes] = []
            if "text" in self.spec.modalities:
                parts += [word.encode() for word in (item.text or "").split()]
            if "image" in self.spec.modalities and isinstance(item.image, bytes):
                parts.append(item.image)
            yield Dense([item.id], unit(np.sum([self.direction(part) for part in parts], axis=0))[None])

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans = [[word.span() for word in re.finditer(r"\S+", text)] for text in texts]
        return [np.array(each, np.int64).reshape(-1, 2) for each in spans]

    def room(self, role: str = "document") -> int:
        return 64

    def direction(self, part: bytes) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(part + self.spec.name.encode(), digest_size=8).digest(), "big")
        return np.random.default_rng(seed).standard_normal(self.spec.dim).astype(np.float32)


def png(shade: int) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def collection(texts: int = 700, photos: int = 30, langs: tuple[str, ...] = LANGS) -> list[Item]:
    """More texts than fit into one window, with metadata, and photos without a language."""
    random = np.random.default_rng(7)
    words = [f"w{number}" for number in range(150)]
    items = [
        Item(
            f"t{number}",
            " ".join(random.choice(words, 6)),
            lang=langs[number % len(langs)],
            meta={"year": 2000 + number % 5, "source": "a'b" if number % 2 else 'c"d', "tags": [number % 3]},
        )
        for number in range(texts)
    ]
    return items + [Item(f"p{number}", image=png(number)) for number in range(photos)]


QUERIES = [
    Item("words", "w1 w2 w3", lang="eng"),
    Item("one", "w7", lang="swa"),
    Item("photo", image=png(5)),
    Item("both", "w9", png(3), lang="fas"),
]


@pytest.fixture(params=[*sorted(INDEXES.keys() - SPARSE), "passages"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "passages":  # documents that are one passage are found as if they were not split
        monkeypatch.setitem(globals(), "create_index", partial(create_index, passages=Windows(8, 4)))
        return "lance"
    module = INDEXES[request.param].partition(":")[0]
    if find_spec(f"crosslens.{module}") is None:
        pytest.skip(f"{module} is not there yet")
    if request.param == "faiss":
        pytest.importorskip("faiss")
    return OWN.get(request.param, request.param)


def same(one: Run, other: Run) -> None:
    """Both runs have the same documents, at the same scores but for rounding."""
    assert [query.id for query in one.queries] == [query.id for query in other.queries]
    for query in one.queries:
        assert dict(one[query.id]).keys() == dict(other[query.id]).keys()
        expected = dict(other[query.id])
        assert dict(one[query.id]) == pytest.approx(expected, abs=2e-3)


def test_results_are_ordered_and_the_run_carries_its_documents(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    assert index.add(collection(), Hashing()) == len(index) == 730
    run = index.search(QUERIES, 10)
    assert [query.id for query in run.queries] == ["words", "one", "photo", "both"]
    for query, hits in run:
        assert len(hits) == 10
        assert len({hit.id for hit in hits}) == 10, query.id
        assert list(hits) == sorted(hits, key=lambda hit: (-hit.score, hit.id))
    assert run["photo"][0].id == "p5"
    assert [item.id for item in run.items("words")] == [hit.id for hit in run["words"]]


def test_a_query_finds_the_same_alone_and_among_others(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    index.add(collection(), Hashing())
    many = index.search(QUERIES, 10)
    for query in QUERIES:
        alone = index.search([query], 10)
        same(alone, replace(many, queries=(query,)))


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("queries", [1, 20])
def test_search_equals_brute_force(kind: str, correct: bool, queries: int) -> None:
    encoder = Hashing(modalities=("text",))
    items = collection(photos=0)
    index = create_index("memory://", kind=kind, lexical=False)
    index.add(items, encoder)
    asked = [Item(f"q{number}", f"w{number} w{number + 1}", lang="zho") for number in range(queries)]
    run = index.search(asked, 10, exact=True, correct=correct)

    documents = np.concatenate([batch.vectors for batch in encoder.encode(items, "document")])
    documents = documents.astype(np.float16).astype(np.float32)
    vectors = np.concatenate([batch.vectors for batch in encoder.encode(asked, "query")])
    if correct:  # less each language's mean, drawn to the mean of all as if by KAPPA documents
        langs = np.array([item.lang for item in items])
        overall = documents.sum(axis=0) / (len(documents) + 1)
        means = {
            lang: (documents[langs == lang].sum(axis=0) + KAPPA * overall) / ((langs == lang).sum() + KAPPA)
            for lang in LANGS
        }
        documents = unit(documents - np.stack([means[lang] for lang in langs]))
        vectors = unit(vectors - means["zho"])
    scores = vectors @ documents.T
    for row, query in enumerate(asked):
        best = np.sort(scores[row])[::-1][:10]
        assert [hit.score for hit in run[query.id]] == pytest.approx(best.tolist(), abs=2e-3)
        for hit in run[query.id]:
            assert scores[row, int(hit.id[1:])] == pytest.approx(hit.score, abs=2e-3)


def test_adding_again_changes_nothing_and_encodes_nothing(kind: str, tmp_path: Path) -> None:
    index = create_index(tmp_path / "index", kind=kind)
    index.add(collection(), Hashing())
    before, fingerprint = index.search(QUERIES, 20), index.fingerprint
    encoder = Hashing()
    assert index.add(collection(), encoder) == 0
    assert encoder.encoded == 0
    again = open_index(tmp_path / "index", encoders=encoder)
    assert len(again) == 730
    assert again.fingerprint == fingerprint
    same(again.search(QUERIES, 20), before)


def test_changed_items_are_encoded_again_and_found_anew(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    index.add(collection(), Hashing())
    before = index.fingerprint
    encoder = Hashing()
    changed = [Item("t3", "quite other words", lang="eng"), Item("t4", "w1", lang="eng", meta={"year": 1999})]
    assert index.add([*changed, *collection()[5:]], encoder) == 2
    assert encoder.encoded == 2
    assert len(index) == 730
    assert index.get(["t3", "t4"]) == changed
    assert index.search([Item("q", "quite other words", lang="eng")], 1)["q"][0].id == "t3"
    assert index.search([Item("q", "quite other", lang="eng")], 1, mode="lexical")["q"][0].id == "t3"
    assert index.search([Item("q", "w1", lang="eng")], 5, where={"year": 1999})["q"][0].id == "t4"
    assert index.fingerprint != before


def test_an_interrupted_add_goes_on_to_the_same_index(kind: str, tmp_path: Path) -> None:
    class Stopping(Hashing):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for batch in super().encode(items, role):
                if self.encoded > 600:
                    raise KeyboardInterrupt
                yield batch

    whole = create_index(tmp_path / "whole", kind=kind)
    whole.add(collection(), Hashing())
    index = create_index(tmp_path / "index", kind=kind)
    with pytest.raises(KeyboardInterrupt):
        index.add(collection(), Stopping())
    with pytest.raises(InputError, match=r"unfinished: 512 documents are stored; rerun `crosslens index`"):
        open_index(tmp_path / "index").search(QUERIES, 5)
    encoder = Hashing()
    again = create_index(tmp_path / "index", kind=kind)
    assert again.add(collection(), encoder) == 730 - 512
    assert encoder.encoded == 730 - 512
    assert again.fingerprint == whole.fingerprint
    ids = [item.id for item in collection()]
    assert again.get(ids) == whole.get(ids)
    for mode in ("dense", "hybrid"):
        same(again.search(QUERIES, 20, mode=mode), whole.search(QUERIES, 20, mode=mode))


@pytest.mark.parametrize("queries", [1, 6])
@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        ({"lang": "zho"}, lambda item: item.lang == "zho"),
        ({"lang": ["zho", "fas"]}, lambda item: item.lang in ("zho", "fas")),
        ({"modality": "image"}, lambda item: item.text is None),
        ({"modality": ["text"]}, lambda item: item.image is None),
        ({"year": 2001}, lambda item: item.meta.get("year") == 2001),
        ({"year": "2001"}, lambda item: item.meta.get("year") == 2001),
        ({"source": "a'b", "lang": "eng"}, lambda item: item.lang == "eng" and item.meta["source"] == "a'b"),
        (
            {"source": 'c"d', "year": [2002, 2003]},
            lambda item: item.id[0] == "t" and int(item.id[1:]) % 10 in (2, 8),
        ),
        ({"tags": 2}, lambda item: 2 in item.meta.get("tags", ())),
        ({"source": "' OR 1=1 --"}, lambda item: False),
        ({"lang": "x') OR (1=1"}, lambda item: False),
    ],
)
def test_filters_are_kept_to(kind: str, where: dict, keeps: object, queries: int) -> None:
    index = create_index("memory://", kind=kind)
    items = collection()
    index.add(items, Hashing())
    allowed = {item.id for item in items if keeps(item)}  # type: ignore[operator]
    asked = [Item(f"q{number}", f"w{number}", lang="eng") for number in range(queries)]
    for exact in (True, False):
        run = index.search(asked, 2000, where=where, exact=exact)
        for query in asked:
            found = {hit.id for hit in run[query.id]}
            assert found == allowed
    lexical = index.search(asked, 2000, where=where, mode="lexical")
    assert all(hit.id in allowed for query in asked for hit in lexical[query.id])


def test_unknown_fields_and_values_of_filters_are_named(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    index.add(collection(), Hashing())
    for where, text in [
        (
            {"yaer": 2001},
            r"unknown field to filter by 'yaer'; did you mean year\? \(known: lang, modality, source",
        ),
        ({"modality": "picture"}, "unknown modality 'picture'"),
        ({"lang": []}, "'lang' needs a value"),
        ({"year": None}, "'year' needs a value"),
    ]:
        with pytest.raises(InputError, match=text):
            index.search(QUERIES, 5, where=where)


def test_more_hits_than_documents_gives_all_of_them(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    index.add(collection(12, 3), Hashing())
    run = index.search(QUERIES, 1000)
    assert all(len(hits) == 15 for _, hits in run)


def test_queries_that_cannot_be_answered(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    index.add(collection(12, 0), Hashing(modalities=("text",)))
    for query, text in [
        (Item("q", "   "), "query 'q' is empty"),
        (Item("q", image=png(1)), "query 'q' holds image, which no encoder of memory:// reads"),
        (Item("q", "w1", png(1)), "query 'q' holds image"),
    ]:
        with pytest.raises(InputError, match=text):
            index.search([query], 5)
    with pytest.raises(InputError, match="has no text"):
        index.search([Item("q", image=png(1))], 5, mode="lexical")
    for k in (0, -1):
        with pytest.raises(InputError, match="k must be at least 1"):
            index.search([Item("q", "w1")], k)
    with pytest.raises(InputError, match="is not dense, lexical or hybrid"):
        index.search([Item("q", "w1")], 5, mode="sparse")  # type: ignore[arg-type]
    assert index.search([], 5).hits == {}


def test_items_that_cannot_be_stored_are_named_and_earlier_ones_stay(kind: str) -> None:
    bad = {
        "empty": Item("bad", " "),
        "occurs twice": Item("t1", "w1"),
        "none of the encoders reads": Item("bad", image=png(1)),
        "as JSON": Item("bad", "w1", meta={"x": object()}),
        "no id": Item("", "w1"),
        "valid Unicode": Item("bad", "w1 \ud800"),
    }
    for text, item in bad.items():
        index = create_index("memory://", kind=kind)
        with pytest.raises(InputError, match=text) as caught:
            index.add([*collection(600, 0), item], Hashing(modalities=("text",)))
        assert "\n" not in str(caught.value)
        assert len(index) == 512  # whole windows before it
        assert index.add(collection(600, 0), Hashing(modalities=("text",))) == 88


def test_vectors_that_are_not_finite_are_not_stored(kind: str) -> None:
    class Broken(Hashing):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for batch in super().encode(items, role):
                yield Dense(batch.ids, batch.vectors * np.nan if "t555" in batch.ids[0] else batch.vectors)

    index = create_index("memory://", kind=kind)
    with pytest.raises(NotFinite, match="t555"):
        index.add(collection(), Broken())
    assert len(index) == 512
    assert index.add(collection(), Hashing()) == 730 - 512
    assert all(np.isfinite(hit.score) for hit in index.search(QUERIES, 2000)["words"])


def test_an_encoder_that_loses_or_swaps_items_is_refused(kind: str) -> None:
    class Swapping(Hashing):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            yield from reversed(list(super().encode(items, role)))

    index = create_index("memory://", kind=kind)
    with pytest.raises(InputError, match="in another order"):
        index.add(collection(), Swapping())
    assert len(index) == 1  # the first goes alone


def test_another_spec_is_refused(kind: str, tmp_path: Path) -> None:
    index = create_index(tmp_path / "index", kind=kind)
    index.add(collection(20, 2), Hashing())
    other = Hashing()
    other.spec = replace(other.spec, pooling="mean", query_prompt="query: ")
    with pytest.raises(SpecMismatch, match=r"pooling: 'mean', there ''; query_prompt: 'query: ', there ''"):
        open_index(tmp_path / "index", encoders=other)
    with pytest.raises(SpecMismatch, match="pooling"):
        index.add(collection(25, 2), other)
    other.spec = replace(Hashing().spec, dtype="bfloat16")  # not part of the space
    assert open_index(tmp_path / "index", encoders=other).search(QUERIES, 3).hits


def test_a_newer_or_damaged_card_is_refused(kind: str, tmp_path: Path) -> None:
    index = create_index(tmp_path / "index", kind=kind)
    index.add(collection(20, 2), Hashing())
    card = tmp_path / "index" / FILE
    data = json.loads(card.read_text())
    card.write_text(json.dumps({**data, "format": 2}))
    with pytest.raises(SpecMismatch, match=r"format 2.*update crosslens"):
        open_index(tmp_path / "index")
    for damaged in ("{", "[]", json.dumps({**data, "spaces": [{}]}), json.dumps({**data, "novel": 1})):
        card.write_text(damaged)
        with pytest.raises(InputError, match="damaged"):
            open_index(tmp_path / "index")
    with pytest.raises(InputError, match="is not an index"):
        open_index(tmp_path / "nowhere")


def test_settings_and_other_files_are_not_overridden(kind: str, tmp_path: Path) -> None:
    create_index(tmp_path / "index", kind=kind)
    with pytest.raises(InputError, match="lexical=True, not False"):
        create_index(tmp_path / "index", kind=kind, lexical=False)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(png(1))
    with pytest.raises(InputError, match=r"holds other files \(cat.jpg\)"):
        create_index(tmp_path / "photos", kind=kind)
    with pytest.raises(InputError, match="cannot make the directory"):
        create_index(tmp_path / "photos" / "cat.jpg" / "index", kind=kind)


def test_documents_come_back_in_the_order_asked_for(kind: str, tmp_path: Path) -> None:
    index = create_index(tmp_path / "index", kind=kind)
    (tmp_path / "cat.png").write_bytes(png(9))
    items = [
        Item("a", "text\nwith 'quotes' and 文字 🎈", lang="eng", meta={"n": 1, "deep": {"x": [1, None]}}),
        Item("b'; --", image=png(1)),
        Item("c", "caption", tmp_path / "cat.png", "deu"),
        Item("d", image=PIL.Image.new("CMYK", (3, 3))),
    ]

    class Texts(Hashing):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for item in items:
                yield from super().encode([Item(item.id, item.text or "none")], role)

    index.add(items, Texts())
    ids = ["c", "a", "b'; --", "a"]
    assert index.get(ids) == [items[2], items[0], items[1], items[0]]
    assert PIL.Image.open(io.BytesIO(index.get(["d"])[0].image)).size == (3, 3)  # type: ignore[arg-type]
    assert index.get([]) == []
    with pytest.raises(InputError, match=r"no documents with the ids x, y"):
        index.get(["a", "x", "y"])


def test_full_text_moves_only_documents_in_the_language_of_the_query(kind: str) -> None:
    items = collection(photos=0)
    spoken = {item.id: item.lang for item in items}
    index = create_index("memory://", kind=kind)
    index.add(items, Hashing())
    dense, _, hybrid = (
        [hit.id for hit in index.search(QUERIES[:1], 100, mode=mode)["words"]] for mode in MODES
    )
    assert [spoken[doc] for doc in hybrid] == [spoken[doc] for doc in dense]
    assert [doc for doc in hybrid if spoken[doc] != "eng"] == [doc for doc in dense if spoken[doc] != "eng"]
    assert hybrid != dense
    stranger = [replace(QUERIES[0], lang="nld")]
    assert [hit.id for hit in index.search(stranger, 100, mode="hybrid")["words"]] == [
        hit.id for hit in index.search(stranger, 100)["words"]
    ]


def test_hybrid_holds_what_both_find_and_needs_full_text(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    index.add(collection(), Hashing())
    dense, lexical, hybrid = (index.search(QUERIES[:2], 100, mode=mode)["words"] for mode in MODES)
    assert {hit.id for hit in dense[:1] + lexical[:1]} <= {hit.id for hit in hybrid}
    assert index.search([Item("q", image=png(5))], 1, mode="hybrid")["q"][0].id == "p5"
    without = create_index("memory://", kind=kind, lexical=False)
    without.add(collection(20, 0), Hashing())
    for mode in ("lexical", "hybrid"):
        with pytest.raises(InputError, match="made without full text"):
            without.search(QUERIES[:2], 5, mode=mode)


def test_several_spaces_are_fused(kind: str) -> None:
    """A text-only and a text-image space: photos are found by the one that sees them, texts by both."""
    index = create_index("memory://", kind=kind)
    texts, both = Hashing("fake:texts", ("text",), 16), Hashing("fake:both", dim=24)
    items = collection()
    assert index.add(items, [texts, both]) == 730
    assert (texts.encoded, both.encoded) == (700, 730)
    run = index.search([Item("q", items[17].text, lang=items[17].lang), QUERIES[2]], 730)
    assert run["q"][0].id == "t17"
    assert run["photo"][0].id == "p5"
    assert len(run["q"]) == 730  # photos stand in the same list, by the space that holds them
    with pytest.raises(SpecMismatch, match=r"fake:both|modalities"):
        index.add(items, texts)
    third = Hashing("fake:third", ("text",), 8)
    assert index.add(items, [texts, both, third]) == 700  # photos have all the vectors they can have
    assert index.search([Item("q", items[17].text, lang=items[17].lang)], 1)["q"][0].id == "t17"
    with pytest.raises(InputError, match="given twice"):
        index.add(items, [texts, texts])


def test_the_retriever_is_a_stage_with_a_stable_fingerprint(kind: str, tmp_path: Path) -> None:
    index = create_index(tmp_path / "index", kind=kind)
    index.add(collection(), Hashing())
    stage = index.retriever(k=20, where={"lang": ["zho"]}) % 5
    run = stage(QUERIES)
    assert all(len(hits) == 5 for _, hits in run)
    assert run.manifest.records[0].counts == {"queries": 4}
    other = open_index(tmp_path / "index", encoders=Hashing())
    one, two = (each.retriever(k=20, where={"lang": ["zho"]}) for each in (index, other))
    assert one.fingerprint == two.fingerprint
    assert index.retriever(k=21).fingerprint != index.retriever(k=20).fingerprint
    before = index.retriever().fingerprint
    index.add([Item("new", "w1")], Hashing())
    assert index.retriever().fingerprint != before


def test_build_reports_its_recall(kind: str) -> None:
    index = create_index("memory://", kind=kind)
    index.add(collection(), Hashing())
    before = index.search(QUERIES, 10)
    recall = index.build()
    assert recall.at[10] >= 0.95
    same(index.search(QUERIES, 10), before)  # so small that auto is exact


def test_k_is_checked_in_one_place() -> None:
    with pytest.raises(InputError, match="at least 1"):
        check_k(0)
