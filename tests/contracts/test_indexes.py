"""The contract of `indexes.base.Index`, over every registered kind: what is stored, found and refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import scipy.sparse
from crosslens.encoders.base import NotFinite, unit
from crosslens.errors import InputError, SpecMismatch
from crosslens.indexes.moments import KAPPA
from crosslens.indexes.registry import KINDS, open_index
from crosslens.indexes.storage.storage import FILE
from crosslens.items import Batch, Dense, Item, Multi, Sparse
from stand_ins.index_cases import CASES, LANGS, QUERIES, Hashing, collection, png, same

MODES = ("dense", "lexical", "hybrid")
SOME = collection(90, 6)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


def test_every_kind_is_here() -> None:
    assert set(KINDS) <= set(CASES)


def test_results_are_ordered_and_the_run_carries_its_documents(case: Any) -> None:
    items = collection()
    index = case.whole()
    run = index.search(QUERIES, 10)
    assert [query.id for query in run.queries] == ["words", "one", "photo", "both"]
    for query, hits in run:
        assert len(hits) == len({hit.id for hit in hits}) == min(10, len(case.found(query, items)))
        assert list(hits) == sorted(hits, key=lambda hit: (-hit.score, hit.id))
    assert run["photo"][0].id == "p5"
    assert [item.id for item in run.items("words")] == [hit.id for hit in run["words"]]
    assert index.langs == dict.fromkeys(LANGS, 175)
    assert [spec.name for spec in index.specs] == ["fake:hashing"]


def test_a_query_finds_the_same_alone_and_among_others(case: Any) -> None:
    index = case.whole()
    many = index.search(QUERIES, 10)
    for query in QUERIES:
        same(index.search([query], 10), many, [query])


def test_search_equals_brute_force(case: Any) -> None:
    encoder = case.encoder(modalities=("text",))
    items = collection(300, photos=0)
    index = case.create(lexical=False)
    index.add(items, encoder)
    asked = [Item(f"q{number}", f"w{number} w{number + 1}", lang="zho") for number in range(20)]
    documents, vectors = (case.vectors(encoder.encode(*each)) for each in ((items, "document"), (asked, "query")))
    documents = [each.astype(np.float16).astype(np.float32) for each in documents]
    plain = case.scores(vectors, documents)
    found = [(False, 0.5, plain), (True, 0.5, plain)]
    if case.holds == "dense":
        # less each language's mean, drawn to the mean of all as if by KAPPA documents
        stored = np.concatenate(documents)
        langs = np.array([item.lang for item in items])
        overall = stored.sum(axis=0) / (len(stored) + 1)
        means = {
            lang: (stored[langs == lang].sum(axis=0) + KAPPA * overall) / ((langs == lang).sum() + KAPPA)
            for lang in LANGS
        }
        documents = [unit(each - means[lang]) for each, lang in zip(documents, langs, strict=True)]
        corrected = case.scores([unit(each - means["zho"]) for each in vectors], documents)
        # a language's level is the mean of its 20 best; it has 75 documents, of which 20 match
        levels = np.stack([np.sort(corrected[:, langs == lang])[:, -20:].mean(axis=1) for lang in LANGS], axis=1)
        steps = (levels - levels.mean(axis=1, keepdims=True)) * 75 / 175
        steps = steps[:, [LANGS.index(lang) for lang in langs]]
        found[1:] = [(True, merge, corrected - merge * steps) for merge in (0, 0.5, 1)]
    for correct, merge, scores in found:
        for some in (asked, asked[:1]):
            run = index.search(some, 10, exact=True, correct=correct, merge=merge)
            for row, query in enumerate(some):
                best = np.sort(scores[row])[::-1][: min(10, len(case.found(query, items)))]
                assert [hit.score for hit in run[query.id]] == pytest.approx(best.tolist(), abs=2e-3)
                for hit in run[query.id]:
                    assert scores[row, int(hit.id[1:])] == pytest.approx(hit.score, abs=2e-3)


def test_adding_again_changes_nothing_and_encodes_nothing(case: Any, tmp_path: Path) -> None:
    index = case.filled(SOME, tmp_path / "index")
    before, fingerprint = index.search(QUERIES, 20), index.fingerprint
    encoder = case.encoder()
    assert index.add(SOME, encoder) == 0
    assert encoder.encoded == 0
    again = open_index(tmp_path / "index", encoders=encoder)
    assert len(again) == 96
    assert again.fingerprint == fingerprint
    same(again.search(QUERIES, 20), before)


def test_changed_items_are_encoded_again_and_found_again(case: Any) -> None:
    index = case.filled(SOME)
    before = index.fingerprint
    encoder = case.encoder()
    changed = [Item("t3", "quite other words", lang="eng"), Item("t4", "w1", lang="eng", meta={"year": 1999})]
    assert index.add([*changed, *SOME[5:]], encoder) == 2
    assert encoder.encoded == 2
    assert len(index) == 96
    assert index.get(["t3", "t4"]) == changed
    assert index.search([Item("q", "quite other words", lang="eng")], 1)["q"][0].id == "t3"
    assert index.search([Item("q", "quite other", lang="eng")], 1, mode="lexical")["q"][0].id == "t3"
    assert index.search([Item("q", "w1", lang="eng")], 5, where={"year": 1999})["q"][0].id == "t4"
    assert index.fingerprint != before


@pytest.mark.parametrize(
    ("case", "mode"),
    [(case, mode) for case in CASES.values() for mode in MODES if mode == "dense" or case.name == "lance"],
)
def test_what_a_query_excludes_costs_no_place(case: Any, mode: str) -> None:
    """Queries that are documents (ArguAna), and lists of excluded documents (BRIGHT): k others are found."""
    items = collection()
    index = case.whole()
    mine = [each for each in QUERIES if mode != "lexical" or each.text]
    whole = index.search(mine, 60, mode=mode, exact=True)
    listing = [replace(each, meta={"excluded_ids": [hit.id for hit in whole[each.id][:3]]}) for each in mine]
    queries = [*listing, replace(items[7], meta={})]
    for query, hits in index.search(queries, 10, mode=mode, exact=True, exclude="self"):
        wanted = [hit.id for hit in whole[query.id]][3:13]
        assert {query.id, *query.meta.get("excluded_ids", ())}.isdisjoint(hit.id for hit in hits)
        assert len(hits) == (min(10, len(wanted)) if query.meta else 10)
        if query.meta and mode != "hybrid":  # where ranks within a language are other ones without them
            assert [hit.id for hit in hits] == wanted
    by_default = index.search(queries, 10, mode=mode, exact=True)
    assert by_default["t7"][0].id == "t7"
    assert not {hit.id for hit in by_default["words"]} & set(listing[0].meta["excluded_ids"])
    off = index.search(queries, 10, mode=mode, exact=True, exclude="none")
    assert [off[each.id] for each in mine] == [index.search(mine, 10, mode=mode, exact=True)[e.id] for e in mine]
    everything = Item("words", "w1", lang="eng", meta={"excluded_ids": [item.id for item in items]})
    assert index.search([everything], 5, mode=mode)["words"] == ()


def test_exclusions_are_checked_and_part_of_the_stage(case: Any) -> None:
    index = case.whole()
    with pytest.raises(InputError, match="excluded_ids must be a list of document ids, not 't1'"):
        index.search([Item("q", "w1", meta={"excluded_ids": "t1"})], 5)
    with pytest.raises(InputError, match="unknown choice of what to exclude 'itself'"):
        index.retriever("dense", 5, exclude="itself")
    stages = [index.retriever("dense", 5, exclude=each) for each in ("listed", "self", "none")]
    assert len({stage.fingerprint for stage in stages}) == 3
    assert list(map(str, stages)) == ["dense", "dense (exclude=self)", "dense (exclude=none)"]
    record = stages[1]([Item("t3", "w1", meta={"excluded_ids": ["t4", "t5"]})]).manifest.records[0]
    assert record.counts == {"queries": 1, "excluded": 3}


def test_an_interrupted_add_goes_on_to_the_same_index(case: Any, tmp_path: Path) -> None:
    class Stopping(Hashing):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Batch]:
            for batch in super().encode(items, role):
                if self.encoded > 600:
                    raise KeyboardInterrupt
                yield batch

    whole = case.create(tmp_path / "whole")
    whole.add(collection(), case.encoder())
    index = case.create(tmp_path / "index")
    with pytest.raises(KeyboardInterrupt):
        index.add(collection(), Stopping(case.holds))
    with pytest.raises(InputError, match=r"unfinished: 512 documents are stored; rerun `crosslens index`"):
        open_index(tmp_path / "index").search(QUERIES, 5)
    encoder = case.encoder()
    again = case.create(tmp_path / "index")
    assert again.add(collection(), encoder) == 730 - 512
    assert encoder.encoded == 730 - 512
    assert again.fingerprint == whole.fingerprint
    ids = [item.id for item in collection()]
    assert again.get(ids) == whole.get(ids)
    for mode in ("dense", "hybrid"):
        same(again.search(QUERIES, 20, mode=mode), whole.search(QUERIES, 20, mode=mode))


def test_more_hits_than_documents_gives_all_of_them(case: Any) -> None:
    items = collection(12, 3)
    for query, hits in case.filled(items).search(QUERIES, 1000):
        assert {hit.id for hit in hits} == case.found(query, items)


def test_queries_that_cannot_be_answered(case: Any) -> None:
    index = case.create()
    index.add(collection(12, 0), case.encoder(modalities=("text",)))
    for query, text in [
        (Item("q", "   "), "query 'q' is empty"),
        (Item("q", image=png(1)), "query 'q' holds image, which no encoder of memory:// reads"),
        (Item("q", "w1", png(1)), "query 'q' holds image"),
    ]:
        with pytest.raises(InputError, match=text):
            index.search([query], 5)
    with pytest.raises(InputError, match="has no text"):
        index.search([Item("q", image=png(1))], 5, mode="lexical")
    for k in (0, -1, 1.5, 5.0, "5", True, None, 10**12):
        with pytest.raises(InputError, match="k must be "):
            index.search([Item("q", "w1")], k)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="k must be "):
            index.retriever(k=k)  # type: ignore[arg-type]
    assert index.search([Item("q", "w1")], 10**9) == index.search([Item("q", "w1")], 100)
    for query in (Item("q", "caf\udce9"), Item("\udce9", "w1")):
        for mode in MODES:
            with pytest.raises(InputError, match="is not valid Unicode"):
                index.search([query], 5, mode=mode)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is not dense, lexical or hybrid"):
        index.search([Item("q", "w1")], 5, mode="sparse")  # type: ignore[arg-type]
    assert index.search([], 5).hits == {}


def test_items_that_cannot_be_stored_are_named_and_earlier_ones_stay(case: Any) -> None:
    bad = {
        "empty": Item("bad", " "),
        "occurs twice": Item("t1", "w1"),
        "none of the encoders reads": Item("bad", image=png(1)),
        "as JSON": Item("bad", "w1", meta={"x": object()}),
        "as JSON: Out of range float": Item("bad", "w1", meta={"x": [float("nan")]}),
        "as JSON: Object of type set": Item("bad", "w1", meta={"x": {"y"}}),
        "as JSON: Object of type bytes": Item("bad", "w1", meta={"x": b"y"}),
        "as JSON: the key 3 is not text": Item("bad", "w1", meta={"x": [{3: "y"}]}),
        "documents are given as .*, not as int: 5": 5,
        "no id": Item("", "w1"),
        "the character '.t' in it": Item("a\tb", "w1"),
        "the character '.n' in it": Item("a\n", "w1"),
        "the character '.x00' in it": Item("\0", "w1"),
        "character 2 of its id": Item("a\ud800", "w1"),
        "valid Unicode": Item("bad", "w1 \ud800"),
    }
    index, good, encoder = case.create(), collection(12, 0), case.encoder(modalities=("text",))
    stored = 0 if case.windows else 8  # whole windows before it; what is split is read 512 at a time
    for text, item in bad.items():
        with pytest.raises(InputError, match=text) as caught:
            index.add([*good, item], encoder, window=8)
        assert "\n" not in str(caught.value)
        assert len(index) == stored
    assert index.add(good, encoder) == 12 - stored
    with pytest.raises(InputError, match="empty"):
        index.add([*collection(600, 0), bad["empty"]], case.encoder(modalities=("text",)))
    assert len(index) == 512


def test_languages_are_their_codes_wherever_they_are_given(case: Any, tmp_path: Path) -> None:
    texts = ["The cats were playing in the gardens", "A dog slept", "Two birds sang", "Rain fell"]
    langs = ["en", "en-GB", "English", "eng"]
    given = [Item(f"d{n}", text, lang=lang) for n, (text, lang) in enumerate(zip(texts, langs, strict=True))]
    index = case.create(tmp_path / "index")
    index.add([*given, Item("z", "猫在花园里", lang="zh-CN")], case.encoder())
    assert index.langs == {"eng": 4, "zho": 1}
    assert index.add([replace(item, lang="eng") for item in given], case.encoder()) == 0
    assert [item.lang for item in index.get(["d0", "z"])] == ["eng", "zho"]
    for lang in ("en", "eng", "English"):
        for where in ({"lang": lang}, {"lang": [lang, "fr"]}):
            for mode in MODES:
                run = index.search([Item("q", "cat garden cats", lang=lang)], 5, mode=mode, where=where)
                assert "d0" in {hit.id for hit in run["q"]} <= {"d0", "d1", "d2", "d3"}
                assert mode != "lexical" or [hit.id for hit in run["q"]] == ["d0"]  # by its stems
    with pytest.raises(InputError, match="unknown language 'und'"):
        index.search(["cats"], 5, where={"lang": "und"})


def test_queries_whose_ids_no_run_could_hold_are_refused(case: Any) -> None:
    index = case.whole()
    for id in ("", "a\tb", "a\n", "a\0"):
        with pytest.raises(InputError, match="a query"):
            index.search([Item(id, "w1")], 5)


def test_vectors_that_are_not_finite_are_not_stored(case: Any) -> None:
    class Broken(Hashing):
        def batch(self, id: str, parts: Any) -> Batch:
            made = super().batch(id, parts)
            if id.startswith("t555"):
                match made:
                    case Dense() | Sparse():
                        return replace(made, vectors=made.vectors * np.nan)
                    case Multi():
                        return Multi(made.ids, [each * np.nan for each in made.vectors])
            return made

    index = case.create()
    with pytest.raises(NotFinite, match="t555"):
        index.add(collection(), Broken(case.holds))
    assert len(index) == 512
    assert index.add(collection(), case.encoder()) == 730 - 512
    assert all(np.isfinite(hit.score) for hit in index.search(QUERIES, 2000)["words"])


def test_an_encoder_that_is_not_what_its_spec_says_is_refused(case: Any) -> None:
    class Swapping(Hashing):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Batch]:
            yield from reversed(list(super().encode(items, role)))

    class Lying(Hashing):
        def batch(self, id: str, parts: Any) -> Batch:
            return (
                Multi([id], [np.ones((1, self.spec.dim))])
                if self.spec.kind == "dense"
                else Dense([id], np.ones((1, 1)))
            )

    index = case.create()
    with pytest.raises(InputError, match="in another order"):
        index.add(collection(), Swapping(case.holds))
    assert len(index) == 1  # the first goes alone
    with pytest.raises(InputError, match="fake:hashing is not a (dense|sparse|late-interaction) encoder"):
        index.add(collection(), Lying(case.holds))
    other = "sparse" if case.holds == "dense" else "dense"
    with pytest.raises(InputError, match=f"makes {other} vectors; this index holds {case.holds} ones"):
        index.add(collection(), Hashing(other))


def test_another_spec_is_refused(case: Any, tmp_path: Path) -> None:
    index = case.filled(collection(20, 2), tmp_path / "index")
    other = case.encoder()
    other.spec = replace(other.spec, pooling="mean", query_prompt="query: ")
    with pytest.raises(SpecMismatch, match=r"pooling: 'mean', there ''; query_prompt: 'query: ', there ''"):
        open_index(tmp_path / "index", encoders=other)
    with pytest.raises(SpecMismatch, match="pooling"):
        index.add(collection(25, 2), other)
    other.spec = replace(case.encoder().spec, dtype="bfloat16")  # not part of the space
    assert open_index(tmp_path / "index", encoders=other).search(QUERIES, 3).hits


def test_a_newer_or_damaged_card_is_refused(case: Any, tmp_path: Path) -> None:
    case.filled(collection(20, 2), tmp_path / "index")
    card = tmp_path / "index" / FILE
    data = json.loads(card.read_text())
    card.write_text(json.dumps({**data, "format": 2}))
    with pytest.raises(SpecMismatch, match=r"format 2.*update crosslens"):
        open_index(tmp_path / "index")
    for damaged in ("{", "[]", json.dumps({**data, "spaces": [{}]}), json.dumps({**data, "novel": 1})):
        card.write_text(damaged)
        with pytest.raises(InputError, match="damaged"):
            open_index(tmp_path / "index")
    with pytest.raises(InputError, match="nothing is there"):
        open_index(tmp_path / "nowhere")


def test_settings_and_other_files_are_not_overridden(case: Any, tmp_path: Path) -> None:
    case.create(tmp_path / "index")
    with pytest.raises(InputError, match="lexical=True, not False"):
        case.create(tmp_path / "index", lexical=False)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(png(1))
    with pytest.raises(InputError, match=r"holds other files \(cat.jpg\)"):
        case.create(tmp_path / "photos")
    with pytest.raises(InputError, match="cannot make the directory"):
        case.create(tmp_path / "photos" / "cat.jpg" / "index")


def test_documents_come_back_in_the_order_asked_for(case: Any, tmp_path: Path) -> None:
    index = case.create(tmp_path / "index")
    (tmp_path / "cat.png").write_bytes(png(9))
    items = [
        Item("a", "text\nwith 'quotes' and 文字 🎈", lang="eng", meta={"n": 1, "deep": {"x": [1, None]}}),
        Item("b'; --", image=png(1)),
        Item("c", "caption", tmp_path / "cat.png", "deu"),
        Item("d", image=PIL.Image.new("CMYK", (3, 3))),
    ]

    class Texts(Hashing):
        def parts(self, item: Item, role: str) -> list[bytes]:
            return super().parts(item, role) or [b"picture"]

    index.add(items, Texts(case.holds))
    ids = ["c", "a", "b'; --", "a"]
    assert index.get(ids) == [items[2], items[0], items[1], items[0]]
    assert PIL.Image.open(io.BytesIO(index.get(["d"])[0].image)).size == (3, 3)  # type: ignore[arg-type]
    assert index.get([]) == []
    with pytest.raises(InputError, match=r"no documents with the ids x, y"):
        index.get(["a", "x", "y"])


def test_plain_words_move_only_documents_in_the_language_of_the_query(case: Any) -> None:
    letters = str.maketrans("0123456789", "abcdefghij")  # words without digits are no names
    items = [replace(item, text=(item.text or "").translate(letters)) for item in collection(photos=0)]
    query = replace(QUERIES[0], text="wb wc wd")
    spoken = {item.id: item.lang for item in items}
    index = case.create()
    index.add(items, case.encoder())
    dense, _, hybrid = ([hit.id for hit in index.search([query], 100, mode=mode)["words"]] for mode in MODES)
    assert [spoken[doc] for doc in hybrid] == [spoken[doc] for doc in dense]
    assert [doc for doc in hybrid if spoken[doc] != "eng"] == [doc for doc in dense if spoken[doc] != "eng"]
    assert hybrid != dense
    stranger = [replace(query, lang="nld")]
    assert [hit.id for hit in index.search(stranger, 100, mode="hybrid")["words"]] == [
        hit.id for hit in index.search(stranger, 100)["words"]
    ]


def test_hybrid_holds_what_both_find_and_needs_full_text(case: Any) -> None:
    index = case.whole()
    dense, lexical, hybrid = (index.search(QUERIES[:2], 100, mode=mode)["words"] for mode in MODES)
    assert {hit.id for hit in dense[:1] + lexical[:1]} <= {hit.id for hit in hybrid}
    assert index.search([Item("q", image=png(5))], 1, mode="hybrid")["q"][0].id == "p5"
    without = case.create(lexical=False)
    without.add(collection(20, 0), case.encoder())
    for mode in ("lexical", "hybrid"):
        with pytest.raises(InputError, match="made without full text"):
            without.search(QUERIES[:2], 5, mode=mode)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.holds == "dense"])
def test_several_spaces_are_fused(name: str) -> None:
    """A text-only and a text-image space: photos are found by the one that sees them, texts by both."""
    case = CASES[name]
    index = case.create()
    texts, both = (case.encoder(name="fake:texts", modalities=("text",), dim=16), case.encoder(name="fake:both"))
    items = SOME
    assert index.add(items, [texts, both]) == 96
    assert (texts.encoded, both.encoded) == (90, 96)
    run = index.search([Item("q", items[17].text, lang=items[17].lang), QUERIES[2]], 96)
    assert run["q"][0].id == "t17"
    assert run["photo"][0].id == "p5"
    assert len(run["q"]) == 96  # photos stand in the same list, by the space that holds them
    with pytest.raises(SpecMismatch, match=r"fake:both|modalities"):
        index.add(items, texts)
    third = case.encoder(name="fake:third", modalities=("text",), dim=8)
    assert index.add(items, [texts, both, third]) == 90  # photos have all the vectors they can have
    assert index.search([Item("q", items[17].text, lang=items[17].lang)], 1)["q"][0].id == "t17"
    with pytest.raises(InputError, match="given twice"):
        index.add(items, [texts, texts])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.holds != "dense"])
def test_kinds_of_one_encoder_refuse_another(name: str) -> None:
    case = CASES[name]
    index = case.create()
    with pytest.raises(InputError, match="vectors of one encoder: make one for each, and fuse their runs"):
        index.add(collection(), [case.encoder(), case.encoder(name="fake:other", modalities=("text",))])
    assert len(index) == 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.windows])
def test_vectors_made_elsewhere(name: str) -> None:
    case = CASES[name]
    items, more = collection(50, 3), [Item("more", "w5 w6", lang="eng")]
    encoder = case.encoder(prompted=True)  # queries have another mean than documents
    vectors: Any = case.vectors(encoder.encode(items, "document"))
    if case.holds != "multi":
        vectors = np.concatenate(vectors)
    if case.holds == "sparse":
        vectors = scipy.sparse.csr_matrix(vectors)
    index, whole = case.create(), case.create()
    assert index.add_vectors(items, vectors, encoder.spec) == 53
    encoder.encoded = 0
    assert index.add(items, encoder) == 0
    whole.add(items, encoder)
    assert encoder.encoded == 53
    same(index.search(QUERIES, 9, correct=False), whole.search(QUERIES, 9, correct=False))
    # Without an encoder the mean of queries is not known; what is added with one brings it.
    assert (index.search(QUERIES, 9) == whole.search(QUERIES, 9)) == (case.holds != "dense")
    for each in (index, whole):
        assert each.add(more, encoder) == 1
    for mode in ("dense", "hybrid"):
        same(index.search(QUERIES, 9, mode=mode), whole.search(QUERIES, 9, mode=mode))
    with pytest.raises(InputError, match="cannot have (vectors of shape|the vectors of)"):
        index.add_vectors(items, vectors[:3], encoder.spec)


def test_the_retriever_is_a_stage_with_a_stable_fingerprint(case: Any, tmp_path: Path) -> None:
    index = case.filled(collection(300, 6), tmp_path / "index")
    stage = index.retriever(k=20, where={"lang": ["zho"]}) % 5
    run = stage(QUERIES[:1])
    assert all(len(hits) == 5 for _, hits in run)
    assert run.manifest.records[0].counts == {"queries": 1}
    other = open_index(tmp_path / "index", encoders=case.encoder())
    one, two = (each.retriever(k=20, where={"lang": ["zho"]}) for each in (index, other))
    assert one.fingerprint == two.fingerprint
    assert index.retriever(k=21).fingerprint != index.retriever(k=20).fingerprint
    before = index.retriever().fingerprint
    index.add([Item("new", "w1")], case.encoder())
    assert index.retriever().fingerprint != before


def test_build_reports_its_recall(case: Any) -> None:
    index = case.filled(SOME)
    before = index.search(QUERIES, 10)
    recall = index.build()
    assert recall.at[10] >= 0.95
    same(index.search(QUERIES, 10), before)  # so small that auto is exact
    with pytest.raises(InputError, match="unknown kind of approximate index|has no nonsense|'nonsense' of"):
        index.build("nonsense")
