"""adapters/mkqa.py and eclektic.py: questions that are judged by their answers, or by the article they came from."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import Collection
from crosslens.multilingual.collections.mkqa import Answers
from crosslens.multilingual.collections.registry import load_collection


def put(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def refused(name: str, *parts: str, ask=lambda collection: collection.check()) -> None:
    with pytest.raises(InputError) as error:
        ask(load_collection(name))
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


# MKQA


def answer(kind: str, text: str | None, *aliases: str, **more: str) -> dict:
    # The publisher leaves `aliases` out where there are none, and text is null where nothing answers.
    return {"type": kind, "text": text, **more} | ({"aliases": list(aliases)} if aliases else {})


def question(id: int, what: str, english: list[dict], chinese: list[dict] | None = None) -> dict:
    queries = {"en": what, "fr": f"{what} (fr)", "zh_cn": f"{what} 简", "zh_tw": f"{what} 繁"}
    answers = {"en": english, "fr": english, "zh_cn": chinese or english, "zh_tw": chinese or english}
    return {"example_id": id, "queries": queries, "query": what, "answers": answers}


@pytest.fixture
def mkqa(tmp_path: Path) -> Path:
    put(
        tmp_path / "dataset" / "mkqa.jsonl.gz",
        question(563, "who sings it", [answer("entity", "Dave Edmunds", "D. Edmunds", entity="Q545186")],
                 [answer("entity", "戴维·埃德蒙兹 ", entity="Q545186")]),
        question(-71, "when was it", [answer("date", "1970", "year 1970")]),
        question(3, "why", [answer("long_answer", None)]),
        question(4, "is it so", [answer("binary", "yes")]),
        question(5, "who is nobody", [answer("unanswerable", None)]),
        question(6, "how long", [answer("number_with_unit", "3 minutes"), answer("number_with_unit", "180.0 second")]),
    )  # fmt: skip
    put(
        tmp_path / "passages.jsonl",
        {"id": "p1", "title": "A song", "text": "Recorded in 1970 by DAVE\nEdmunds himself."},
        {"id": "p2", "title": "Dave Edmunds", "text": "He made it in 19701, in 3-minutes."},
        {"id": "p3", "title": "", "text": "Nothing of that, and 180.0 seconds."},
        {"id": "p4", "text": "It lasts 180.0 second; D. Edmunds!"},
    )
    return tmp_path


def test_questions_of_mkqa_are_judged_by_the_answers_that_passages_hold(mkqa):
    collection = load_collection(f"mkqa:{mkqa}?lang=fr&docs=passages.jsonl&sample=true")
    assert isinstance(collection, Collection)
    assert (collection.name, collection.langs) == ("mkqa-fr", {"eng"})
    queries = collection.queries()
    assert queries[0] == Item(
        "563", "who sings it (fr)", None, "fra", {"answers": ["Dave Edmunds", "D. Edmunds"]}
    )
    assert [query.id for query in queries] == ["563", "-71", "6"]
    assert next(collection.docs()) == Item(
        "p1", "A song\nRecorded in 1970 by DAVE\nEdmunds himself.", None, "eng", {"title": "A song"}
    )
    # p2 has the name in its title only, and 1970 only as a part of a longer number; p3 has `seconds`.
    assert collection.qrels() == {"563": {"p1": 1, "p4": 1}, "-71": {"p1": 1}, "6": {"p4": 1}}
    counts = collection.check()
    assert (counts.documents, counts.queries, counts.relevant) == (4, 3, 4)
    titles = load_collection(f"mkqa:{mkqa}?lang=fr&docs=passages.jsonl&titles=true&sample=true")
    assert titles.qrels()["563"] == {"p1": 1, "p2": 1, "p4": 1}


def test_passages_in_chinese_are_searched_character_by_character(mkqa):
    put(
        mkqa / "zh" / "docs-0.jsonl.gz",
        {"docid": "7#0", "title": "歌", "text": "这首歌由戴维·埃德蒙兹演唱，发行于1970年。"},
        {"docid": "7#1", "title": "歌", "text": "戴维与埃德蒙兹"},
    )
    put(mkqa / "zh" / "docs-1.jsonl.gz", {"docid": "8#0", "title": "年", "text": "在1970年，3 Minutes。"})
    collection = load_collection(f"mkqa:{mkqa}?lang=zh-CN&docs=zh&docs_lang=zh_cn&sample=true")
    assert (collection.name, collection.langs) == ("mkqa-zh_cn-zh_cn", {"zho"})
    assert next((query.text, query.lang) for query in collection.queries()) == ("who sings it 简", "zho")
    assert [doc.id for doc in collection.docs()] == ["7#0", "7#1", "8#0"]
    assert collection.qrels() == {"563": {"7#0": 1}, "-71": {"7#0": 1, "8#0": 1}, "6": {"8#0": 1}}


@pytest.mark.parametrize("name", ["psgs_w100.tsv", "psgs_w100.tsv.gz"])
@pytest.mark.parametrize("header", [True, False])
def test_the_passages_of_dpr(mkqa, name, header, monkeypatch):
    path = mkqa / "elsewhere" / name
    path.parent.mkdir()
    with gzip.open(path, "wt", newline="") if name.endswith("gz") else path.open("w", newline="") as out:
        rows = csv.writer(out, delimiter="\t")
        if header:
            rows.writerow(["id", "text", "title"])
        rows.writerow(["1", 'He said "1970" once', "A"])
        rows.writerow(["2", "Dave Edmunds", ""])
    monkeypatch.chdir(path.parent)
    collection = load_collection(f"mkqa:{mkqa}?lang=en&docs={name}&sample=true")
    assert [(doc.id, doc.text) for doc in collection.docs()] == [
        ("1", 'A\nHe said "1970" once'),
        ("2", "Dave Edmunds"),
    ]
    assert collection.qrels() == {"563": {"2": 1}, "-71": {"1": 1}}


def test_mkqa_without_passages_has_questions_and_nothing_else(mkqa):
    collection = load_collection(f"mkqa:{mkqa}?lang=zh_tw")
    assert collection.queries()[0].text == "who sings it 繁"
    for ask in (lambda c: next(c.docs()), lambda c: c.qrels()):
        refused(f"mkqa:{mkqa}?lang=zh_tw", "no passages of its own", "docs=PATH", ask=ask)


def test_what_is_wrong_with_mkqa_is_said(mkqa):
    whole = f"mkqa:{mkqa}?docs=passages.jsonl"
    refused(f"{whole}&lang=fr", "mkqa-fr has 6 questions", "10,000 were published", "sample=true")
    refused(f"{whole}", "does not say which lang", "mkqa:DIR?lang=zh_cn")
    refused(f"{whole}&lang=zh", "'zh' could be zh_cn, zh_hk, zh_tw")
    refused(f"{whole}&lang=hi", "unknown language of MKQA 'hi'", "zh_hk")
    refused(f"{whole}&lang=de&sample=true", "mkqa.jsonl.gz:1: question '563' has no wording in de")
    refused(
        f"{whole}&lang=fr&docs_lang=de&sample=true", "mkqa.jsonl.gz:1", "no list of answers in de",
        ask=lambda c: c.queries(),
    )  # fmt: skip
    refused(f"mkqa:{mkqa}?lang=fr&docs=none.jsonl&sample=true", "no file docs=none.jsonl", str(mkqa))
    refused(f"mkqa:{mkqa / 'zh'}?lang=fr", "does not exist", "mkqa:DIR?lang=zh_cn")
    put(mkqa / "bad.tsv", "id\ttext\ttitle", '1\t"never closed\tT', "2\tx\ty")
    refused(f"mkqa:{mkqa}?lang=fr&docs=bad.tsv&sample=true", "bad.tsv:2: a quotation mark is not closed")
    put(mkqa / "short.tsv", "1\tx\ty", "2\tx")
    refused(
        f"mkqa:{mkqa}?lang=fr&docs=short.tsv&sample=true", "short.tsv:2: not `id TAB text TAB title` but 2"
    )
    put(mkqa / "empty.jsonl", {"id": "1", "text": " "})
    refused(f"mkqa:{mkqa}?lang=fr&docs=empty.jsonl&sample=true", "empty.jsonl:1: passage '1' has no text")
    put(mkqa / "dataset" / "mkqa.jsonl.gz", question(1, "what", [answer("entty", "x")]))
    refused(f"{whole}&lang=fr&sample=true", "unknown type of answer 'entty'; did you mean entity?")


def test_holding_an_answer_is_dprs_rule():
    strings = {
        "cafe": ["Café"],
        "dot": ["J. R."],
        "none": ["…", " ", ""],
        "ss": ["Straße"],
        "long": ["a b c d"],
    }
    answers = Answers(strings)
    assert answers.within("the CAFE\u0301 and the café") == {"cafe"}  # one form of Unicode, one case
    assert answers.within("cafés, a cafe") == set()  # whole words, and accents count
    assert answers.within("by J.\nR. himself") == {"dot"}  # space does not count
    assert answers.within("J R") == set()  # punctuation does
    assert answers.within("well…") == {"none"}
    assert answers.within("a b c STRASSE a b c d") == {"long"}
    assert answers.within("") == set()
    assert answers.tokens("don't stop_it") == ["don", "'", "t", "stop", "_", "it"]


def test_scripts_without_spaces_are_cut_where_a_sign_ends():
    answers = Answers({"t": ["กา"], "j": ["か"], "mixed": ["T恤"]}, unspaced=True)
    assert answers.within("อากาศ") == {"t"}
    assert answers.within("ก่า") == set()  # another tone is another sign
    assert answers.within("がく") == set()
    assert answers.within("一件T恤衫") == {"mixed"}
    assert answers.tokens("iPhone手机12，") == ["iphone", "手", "机", "12", "，"]


def test_every_answer_is_found_however_many_share_their_beginning():
    names = [f"{first} {second}" for first in "abcd" for second in "efgh"]
    answers = Answers({name: [name, f"{name} junior"] for name in names} | {"a": ["a"]})
    text = "x a e junior b h c"
    expected = {"a", "a e", "b h"}
    assert answers.within(text) == expected
    assert expected == {name for name in (*names, "a") if f" {name} " in f" {text} "}


# ECLeKTic


def article(id: int, lang: str, title: str, content: str, **more: str) -> dict:
    row = {
        "q_id": id,
        "original_lang": lang,
        "title": title,
        "url": f"https://{lang}/{id}",
        "content": content,
    }
    row |= {"question": f"{title}? ({lang})", "answer": "x"}
    for code in ("de", "en", "es", "fr", "he", "hi", "id", "it", "ja", "ko", "pt", "zh"):
        row |= {f"{code}_q": f"{title}? ({code})", f"{code}_a": "x", f"{code}_c": content}
    return row | more


@pytest.fixture
def eclektic(tmp_path: Path) -> Path:
    put(
        tmp_path / "eclektic_main.jsonl",
        article(33, "en", "AFN Bremerhaven", "A radio station."),
        article(34, "id", "Prasasti", "Sebuah prasasti."),
        article(35, "en", "AFN Bremerhaven", "A radio station.", question="another one?"),
    )
    return tmp_path


def test_eclektic_asks_in_one_language_for_articles_in_their_own(eclektic):
    collection = load_collection(f"eclektic:{eclektic}?lang=zho&sample=true")
    assert isinstance(collection, Collection)
    assert (collection.name, len(collection.langs)) == ("eclektic-zh", 12)
    assert list(collection.docs()) == [
        Item("33", "AFN Bremerhaven\nA radio station.", None, "eng",
             {"title": "AFN Bremerhaven", "url": "https://en/33"}),
        Item("34", "Prasasti\nSebuah prasasti.", None, "ind", {"title": "Prasasti", "url": "https://id/34"}),
    ]  # fmt: skip
    assert [(q.id, q.text, q.lang, q.meta) for q in collection.queries()][1] == (
        "34", "Prasasti? (zh)", "zho", {"original_lang": "ind"},
    )  # fmt: skip
    assert collection.qrels() == {"33": {"33": 1}, "34": {"34": 1}, "35": {"33": 1}}
    counts = collection.check()
    assert (counts.documents, counts.queries, counts.langs) == (2, 3, {"eng": 1, "ind": 1})


def test_eclektic_without_a_language_asks_in_the_articles_own(eclektic):
    collection = load_collection(f"eclektic:{eclektic}")
    assert [(q.text, q.lang) for q in collection.queries()] == [
        ("AFN Bremerhaven? (en)", "eng"), ("Prasasti? (id)", "ind"), ("another one?", "eng"),
    ]  # fmt: skip
    assert next(q.text for q in collection.queries(lang="he")) == "AFN Bremerhaven? (he)"
    assert collection.queries()[1].lang == "ind"


def test_what_is_wrong_with_eclektic_is_said(eclektic):
    refused(f"eclektic:{eclektic}", "eclektic has 3 questions", "384 were published", "sample=true")
    refused(f"eclektic:{eclektic}?lang=ru", "unknown language of ECLeKTic 'ru'")
    refused(f"eclektic:{eclektic}", "unknown language of ECLeKTic 'rus'", ask=lambda c: c.queries(lang="rus"))
    put(eclektic / "eclektic_main.jsonl", article(1, "en", "A", "a"), article(2, "en", "B", " "))
    refused(f"eclektic:{eclektic}?sample=true", "eclektic_main.jsonl:2: question '2' has no content")
    row = article(1, "en", "A", "a")
    del row["fr_q"]
    put(eclektic / "eclektic_main.jsonl", row)
    refused(f"eclektic:{eclektic}?lang=fr&sample=true", "eclektic_main.jsonl:1: question '1' has no fr_q")
    (eclektic / "eclektic_main.jsonl").unlink()
    refused(f"eclektic:{eclektic}", "no file eclektic_main.jsonl", "eclektic:DIR")
