"""Passages: where documents are split, and documents found by the best of their passages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from crosslens.errors import InputError, SpecMismatch
from crosslens.indexes.passages import MaxP, PassageIndex, split_text, take_best
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage.card import Windows
from crosslens.indexes.storage.storage import FILE, read_card
from crosslens.items import Dense, Item
from crosslens.runs import Hit
from tiny.words import QUERIES, Words, collection

WINDOWS = Windows(6, 3)
KINDS = [
    "lance",
    "flat",
    pytest.param("faiss:Flat", marks=pytest.mark.skipif(not find_spec("faiss"), reason="no faiss")),
]


class Mute(Words):
    """An encoder that does not say where its tokens are."""

    token_spans = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> object:
        if name == "token_spans":
            raise AttributeError(name)
        return super().__getattribute__(name)


def filled(kind: str = "lance", path: str | Path = "memory://", windows: Windows = WINDOWS) -> PassageIndex:
    index = create_index(path, kind=kind, passages=windows)
    assert isinstance(index, PassageIndex)
    index.add(collection(), Words())
    return index


# Searching


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("correct", [True, False])
def test_a_document_has_the_score_of_its_best_passage(kind: str, correct: bool) -> None:
    index = filled(kind)
    assert len(index) == 120 < len(index.passages)
    everything = index.passages.search(QUERIES, len(index.passages), exact=True, correct=correct)
    for k in (1, 7, 500):
        run = index.search(QUERIES, k, exact=True, correct=correct)
        assert run.docs is index
        for query in QUERIES:
            best: dict[str, float] = {}
            for hit in everything[query.id]:
                best.setdefault(hit.id.rpartition("#")[0], hit.score)
            expected = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
            assert len(run[query.id]) == min(k, 120)
            assert [score for _, score in run[query.id]] == pytest.approx([s for _, s in expected], abs=1e-5)
            assert {doc for doc, _ in expected} == {hit.id for hit in run[query.id]}


def test_brute_force_over_all_passages_finds_the_same() -> None:
    encoder, index = Words(), filled()
    items = collection()
    spans = encoder.token_spans([item.text or "" for item in items])
    run = index.search(QUERIES, 10, exact=True, correct=False)
    for query in QUERIES:
        asked = next(encoder.encode([query], "query")).vectors[0]
        scores = {}
        for item, each in zip(items, spans, strict=True):
            parts = [Item("p", (item.text or "")[a:b]) for a, b in split_text(item.text or "", each, WINDOWS)]
            vectors = np.concatenate([batch.vectors for batch in encoder.encode(parts, "document")])
            scores[item.id] = float((vectors.astype(np.float16).astype(np.float32) @ asked).max())
        best = sorted(scores.values(), reverse=True)[:10]
        assert [hit.score for hit in run[query.id]] == pytest.approx(best, abs=2e-3)
        assert all(scores[hit.id] == pytest.approx(hit.score, abs=2e-3) for hit in run[query.id])


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_k_documents_come_back_though_one_has_the_best_passages(mode: str) -> None:
    index = create_index("memory://", passages=Windows(3, 1))
    long = Item("long", "same words here " * 60, lang="eng")
    others = [Item(f"o{n}", f"here stand other words {n}", lang="eng") for n in range(12)]
    encoder = Words()
    index.add([long, *others], encoder)
    encoder.asked.clear()
    queries = [Item("q", "same words here", lang="eng"), Item("r", "stand other", lang="eng")]
    run = index.search(queries, 8, mode=mode)
    assert run["q"][0].id == "long"
    assert all(len(hits) == len({hit.id for hit in hits}) == 8 for _, hits in run)
    # Looking deeper does not encode the queries again.
    assert sorted(encoder.asked) == ([] if mode == "lexical" else ["q", "r"])


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize(
    "where", [{"lang": "zho"}, {"year": [2001, 2003]}, {"modality": "text", "year": 2000, "lang": "eng"}]
)
def test_filters_are_kept_to(where: dict, mode: str) -> None:
    index = filled()
    allowed = {
        item.id
        for item in collection()
        if item.lang in where.get("lang", ("eng", "zho")) and item.meta["year"] in _listed(where.get("year"))
    }
    run = index.search(QUERIES, 500, where=where, mode=mode)
    for query in QUERIES:
        found = {hit.id for hit in run[query.id]}
        assert found <= allowed
        assert mode != "dense" or found == allowed
    assert any(hits for _, hits in run)
    with pytest.raises(InputError, match=r"known: lang, modality, title, year\)"):
        index.search(QUERIES, 5, where={"_passage": 1})


def _listed(years: object) -> object:
    return range(3000) if years is None else years if isinstance(years, list) else [years]


def test_passages_themselves_are_a_run_that_becomes_documents() -> None:
    index = filled()
    found = index.passages.search(QUERIES, 40, correct=False)
    best = found.items("q0")[0]
    told = best.meta["_passage"]
    (whole,) = index.get([told["document"]])  # type: ignore[index]
    assert whole.text[told["start"] :].startswith(best.text)  # type: ignore[index, arg-type]
    run = (index.passages.retriever("dense", 40, correct=False) >> MaxP(index))(QUERIES)
    assert run.docs is index
    for query in QUERIES:
        few = index.search([query], len(run[query.id]), correct=False)
        assert [hit.score for hit in run[query.id]] == pytest.approx([hit.score for hit in few[query.id]], abs=2e-3)
    with pytest.raises(InputError, match="'d1' is not the id of a passage"):
        take_best([Hit("d1", 1.0)])


# Storing


def test_documents_come_back_whole(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"not opened")
    items = [
        Item("a#0", "one two  three\n\n\nfour five six seven eight nine ten ", lang="eng", meta={"title": "one"}),
        Item("b'; --", "Cafe\u0301 👩‍👩‍👧 x " * 9, tmp_path / "cat.png", "fra", {"deep": {"x": [1, None]}}),
        Item("c", image=b"bytes"),
        Item("d", "  short ", meta={"n": 1}),
        Item("a", "\n \n" + "猫 睡 觉 " * 30 + "\n", lang="zho"),
        Item("e", " ", image=b"bytes"),
    ]
    index = create_index(tmp_path / "index", passages=WINDOWS)
    assert index.add(items, Words()) == len(items) == len(index)
    assert index.get([item.id for item in items]) == items
    assert index.get(["c", "a", "c"]) == [items[2], items[4], items[2]]
    assert isinstance(index, PassageIndex)
    parts = index.passages.get(["b'; --#0", "b'; --#1"])
    assert (parts[0].image, parts[1].image) == (tmp_path / "cat.png", None)
    assert parts[1].meta["deep"] == {"x": [1, None]}
    assert index.passages.get(["d#0"])[0].text == "  short "
    with pytest.raises(InputError, match="no documents with the ids x, a#1, a#0#0 in"):
        index.get(["a", "x", "a#1", "a#0#0"])


def test_languages_and_length_count_documents(tmp_path: Path) -> None:
    index = filled(path=tmp_path)
    assert index.langs == {"eng": 60, "zho": 60}
    card = read_card(tmp_path)
    assert card.passages is not None
    assert (card.documents, card.passages.count) == (120, len(index.passages))
    again = open_index(tmp_path, encoders=Words())
    assert isinstance(again, PassageIndex)
    assert len(again) == 120
    assert again.fingerprint == index.fingerprint
    assert again.search(QUERIES, 5).hits == index.search(QUERIES, 5).hits


def test_the_fingerprint_depends_on_the_windows() -> None:
    short = [Item("a", "one passage in all of them")]
    indexes = [create_index("memory://", passages=each) for each in (WINDOWS, Windows(6, 2), Windows(9, 3))]
    for index in indexes:
        index.add(short, Words())
    whole = create_index("memory://")
    whole.add(short, Words())
    prints = {index.retriever().fingerprint for index in (*indexes, whole)}
    assert len(prints) == 4


def test_an_interrupted_add_goes_on(tmp_path: Path) -> None:
    class Stopping(Words):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for batch in super().encode(items, role):
                if len(self.encoded) > 520:
                    raise KeyboardInterrupt
                yield batch

    whole = filled(path=tmp_path / "whole")
    index = create_index(tmp_path / "index", passages=WINDOWS)
    with pytest.raises(KeyboardInterrupt):
        index.add(collection(), Stopping())
    begun = open_index(tmp_path / "index")
    assert 0 < len(begun) < 120
    for broken in (lambda: begun.search(QUERIES, 5), lambda: begun.get(["d1"]), begun.build):
        with pytest.raises(InputError, match=rf"unfinished: {len(begun)} documents are stored; rerun"):
            broken()
    encoder, told = Words(), []
    assert 0 < begun.add(collection(), encoder, progress=told.append) < 120
    assert told[-1] == 120
    assert told == sorted(told)
    assert len(encoder.encoded) == len(whole.passages) - 512
    assert begun.fingerprint == whole.fingerprint
    encoder.encoded.clear()
    assert begun.add(collection(), encoder) == 0
    assert not encoder.encoded


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_document_leaves_no_stale_passage(kind: str) -> None:
    index = filled(kind)
    items = collection()
    assert isinstance(index, PassageIndex)
    index.search(QUERIES, 3)
    before = len(index.passages)
    long = max(items, key=lambda item: len(item.text or ""))
    parts = len(Words().token_spans([long.text or ""])[0])
    shorter = replace(long, text="quite other words and few")
    encoder = Words()
    assert index.add([shorter], encoder) == 1
    assert encoder.encoded == [f"{long.id}#0"]
    assert len(index) == 120
    assert len(index.passages) == before - -(-(parts - WINDOWS.window) // WINDOWS.stride)
    assert index.get([long.id]) == [shorter]
    run = index.search([Item("q", long.text, lang=long.lang)], 500, exact=True, correct=False)
    vectors = [next(encoder.encode([Item("", text)], "document")).vectors[0] for text in (long.text, shorter.text)]
    assert dict(run["q"])[long.id] == pytest.approx(float(vectors[0] @ vectors[1]), abs=2e-3)
    passages = index.passages.search([Item("q", long.text, lang=long.lang)], before, exact=True)["q"]
    assert [hit.id for hit in passages if hit.id.startswith(f"{long.id}#")] == [f"{long.id}#0"]
    assert index.add([long], encoder) == 1  # longer again
    assert len(index.passages) == before
    assert index.get([long.id]) == [long]


def test_stale_passages_go_even_after_a_kill(tmp_path: Path) -> None:
    class Stopping(Words):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            raise KeyboardInterrupt
            yield

    index = create_index(tmp_path, passages=WINDOWS)
    index.add([Item("a", "one " * 40), Item("b", "two " * 40)], Words())
    with pytest.raises(KeyboardInterrupt):
        index.add([Item("a", "one " * 20)], Stopping())
    again = open_index(tmp_path)
    assert again.get(["a"]) == [Item("a", "one " * 40)]  # until it is finished, it is read as it was
    with pytest.raises(InputError, match="unfinished"):
        again.build()
    assert again.add([Item("a", "one")], Words()) == 1
    assert again.get(["a", "b"]) == [Item("a", "one"), Item("b", "two " * 40)]
    assert isinstance(again, PassageIndex)
    assert len(again.passages) == 1 + 1 + -(-34 // 3)


def test_what_cannot_be_stored_names_the_document() -> None:
    for item, text in [
        (Item("bad", "  "), "item 'bad' is empty"),
        (Item("d1", "w1"), "the id 'd1' occurs twice"),
        (Item("", "w1"), "an item has no id"),
        (Item("bad", "w1 \ud800"), "item 'bad' is not valid Unicode"),
        (Item("bad", "w1", meta={"_passage": 1}), "item 'bad' has the metadata '_passage'"),
    ]:
        with pytest.raises(InputError, match=text):
            create_index("memory://", passages=WINDOWS).add([*collection(5), item], Words())


# Settings


def test_windows_that_make_no_sense() -> None:
    for window, stride, text in [
        (0, 1, "at least 1 token, not 0"),
        (10, 0, r"in 1\.\.10, their window, not 0"),
        (10, 11, r"in 1\.\.10, their window, not 11"),
    ]:
        with pytest.raises(InputError, match=text):
            Windows(window, stride)
    with pytest.raises(InputError, match="a window of 21 tokens does not fit into fake:words: .* room for 20;"):
        create_index("memory://", passages=Windows(21, 7)).add(collection(), Words())


def test_other_windows_are_refused(tmp_path: Path) -> None:
    create_index(tmp_path / "passages", passages=WINDOWS)
    create_index(tmp_path / "whole")
    here = r"passages of 6 tokens \(stride 3\)"
    for path, windows, text in [
        ("passages", Windows(8, 4), rf"an index of {here}, not of passages of 8 tokens \(stride 4\)"),
        ("passages", None, rf"an index of {here}, not of whole documents"),
        ("whole", WINDOWS, rf"an index of whole documents, not of {here}"),
    ]:
        with pytest.raises(InputError, match=text):
            create_index(tmp_path / path, passages=windows)
    assert isinstance(create_index(tmp_path / "passages", passages=Windows(6, 3)), PassageIndex)


def test_cards_from_before_there_were_passages_are_read(tmp_path: Path) -> None:
    create_index(tmp_path).add(collection(), Words())
    data = json.loads((tmp_path / FILE).read_text())
    assert data.pop("passages") is None
    del data["sha256"]
    (tmp_path / FILE).write_text(json.dumps(data))
    assert len(open_index(tmp_path, encoders=Words()).search(QUERIES, 5)["q0"]) == 5


def test_tokens_are_those_of_the_first_encoder_that_shows_them_and_stay_so(tmp_path: Path) -> None:
    mute, words, other = Mute("fake:mute", 8), Words(), Words("fake:other", 12)
    with pytest.raises(InputError, match=r"fake:mute cannot say where its own are: add an hf: encoder, or name one"):
        create_index("memory://", passages=WINDOWS).add(collection(), mute)
    with pytest.raises(InputError, match="and none is given"):
        create_index("memory://", passages=WINDOWS).add(collection(), [])
    index = create_index(tmp_path, passages=WINDOWS)
    assert index.add(collection(20), [mute, words, other]) == 20
    assert index.card.passages is not None
    assert index.card.passages.encoder == words.spec.fingerprint
    assert index.add(collection(20), [other, words, mute]) == 0
    with pytest.raises(SpecMismatch, match="fake:words"):
        index.add(collection(20), [other, mute])


def test_an_index_without_vectors_counts_the_tokens_of_an_encoder_that_is_named(tiny_encoder: Path) -> None:
    named = Windows(20, 10, f"hf:{tiny_encoder}?pooling=mean")
    index = create_index("memory://", passages=named, device="cpu")
    items = [Item("long", "The cat sleeps all day. " * 9 + "It hunts rabbits at night.", lang="eng"), Item("b", "猫")]
    assert index.add(items) == 2
    assert isinstance(index, PassageIndex)
    assert len(index.passages) > 4
    assert index.search([Item("q", "rabbits", lang="eng")], 5, mode="lexical")["q"][0].id == "long"
    assert index.get(["long"]) == items[:1]


def test_the_command_line_indexes_and_searches_passages(crosslens, tmp_path: Path, tiny_encoder: Path) -> None:  # type: ignore[no-untyped-def]
    spec = f"hf:{tiny_encoder}?pooling=mean&dtype=float32"
    (source := tmp_path / "collection").mkdir()
    docs = [
        {"id": "long", "lang": "eng", "title": "Cats", "text": "The cat sleeps all day. " * 30 + "Then zebras came."},
        {"id": "short", "lang": "fra", "text": "Le chat dort toute la journée."},
    ]
    (source / "docs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in docs))
    (source / "topics.jsonl").write_text(json.dumps({"id": "t1", "text": "zebras", "lang": "eng"}) + "\n")
    (source / "qrels.txt").write_text("t1 0 long 1\n")
    settings_ = ("--encoder", spec, "--device", "cpu")
    for options, part in [
        (("--window", 127), "there is room for 126"),
        (("--window", 40, "--stride", 41), "in 1..40"),
        (("--stride", 0), "not 0"),
    ]:
        status, _, err = crosslens("index", source, tmp_path / "index", *settings_, *options)
        assert status == 2
        assert part in err
        assert not (tmp_path / "index").exists()
    status, out, err = crosslens("index", source, tmp_path / "index", *settings_, "--window", 40)
    assert status == 0, err
    assert re.search(r"2 documents in \d+ passages \(2 new or changed\)", out)
    status, out, _ = crosslens(
        "index", source, tmp_path / "index", *settings_, "--window", 40, "--stride", 20, "--json"
    )
    report = json.loads(out)
    assert (report["documents"], report["added"], report["languages"]) == (2, 0, {"eng": 1, "fra": 1})
    assert report["passages"]["window"] == 40
    assert report["passages"]["stride"] == 20
    assert report["passages"]["count"] > 4
    status, _, err = crosslens("index", source, tmp_path / "index", *settings_, "--window", 30)
    assert status == 2
    assert "passages of 40 tokens (stride 20), not of passages of 30 tokens (stride 15)" in err
    for mode in ("dense", "lexical", "hybrid"):
        status, out, _ = crosslens(
            "search", tmp_path / "index", "zebras came", "--mode", mode, "--json", "--device", "cpu"
        )
        assert status == 0
        assert "long" in {hit["id"] for hit in json.loads(out)["hits"]}
    status, _, err = crosslens("run", tmp_path / "index", source, "-o", tmp_path / "run.trec", "--device", "cpu")
    assert status == 0, err
    assert {line.split()[2] for line in (tmp_path / "run.trec").read_text().splitlines()} <= {"long", "short"}
    status, out, err = crosslens("index", source, tmp_path / "both", *settings_, "--whole", "--window", 40, "--json")
    assert status == 0, err
    assert json.loads(out)["passages"]["share"] == 0.3
    ask = ("search", tmp_path / "both", "zebras came", "--device", "cpu", "--system")
    assert crosslens(*ask, "dense?passages=also&window=40")[0] == 0
    status, _, err = crosslens(*ask, "dense?passages=true&window=40")
    assert status == 2
    assert "for 0.3 of the score, beside whole documents, not of passages of 40 tokens (stride 20)\n" in err
    status, _, err = crosslens(*ask, "dense?passages=both")
    assert "write true, also or false" in err
    plain = crosslens("index", source, tmp_path / "plain", *settings_, "--passages")
    assert plain[0] == 2  # 180 tokens do not fit into this model of 128
    assert "180" in plain[2]
