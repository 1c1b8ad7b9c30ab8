"""collections/mkqa.py: questions that are judged by the answers that passages hold."""

from __future__ import annotations

import csv
import gzip

import pytest
from crosslens.items import Item
from crosslens.multilingual.collections.mkqa import Answers
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases

CASE = "mkqa"


def ids(items) -> list[str]:
    return [item.id for item in items]


def test_questions_of_mkqa_are_judged_by_the_answers_that_passages_hold(root):
    collection = load_collection(f"mkqa:{root}?lang=fr&docs=passages.jsonl&sample=true")
    assert (collection.name, collection.langs) == ("mkqa-fr", {"eng"})
    queries = collection.queries()
    assert queries[0] == Item("563", "who sings it (fr)", None, "fra", {"answers": ["Dave Edmunds", "D. Edmunds"]})
    assert [query.id for query in queries] == ["563", "-71", "6"]
    assert next(collection.docs()) == Item(
        "p1", "A song\nRecorded in 1970 by DAVE\nEdmunds himself.", None, "eng", {"title": "A song"}
    )
    # p2 has the name in its title only, and 1970 only as a part of a longer number; p3 has `seconds`.
    assert collection.qrels() == {"563": {"p1": 1, "p4": 1}, "-71": {"p1": 1}, "6": {"p4": 1}}
    counts = collection.check()
    assert (counts.documents, counts.queries, counts.relevant) == (4, 3, 4)
    titles = load_collection(f"mkqa:{root}?lang=fr&docs=passages.jsonl&titles=true&sample=true")
    assert titles.qrels()["563"] == {"p1": 1, "p2": 1, "p4": 1}


def test_passages_in_chinese_are_searched_character_by_character(root):
    cases.put(
        root / "zh" / "docs-0.jsonl.gz",
        {"docid": "7#0", "title": "歌", "text": "这首歌由戴维·埃德蒙兹演唱，发行于1970年。"},
        {"docid": "7#1", "title": "歌", "text": "戴维与埃德蒙兹"},
    )
    cases.put(root / "zh" / "docs-1.jsonl.gz", {"docid": "8#0", "title": "年", "text": "在1970年，3 Minutes。"})
    collection = load_collection(f"mkqa:{root}?lang=zh-CN&docs=zh&docs_lang=zh_cn&sample=true")
    assert (collection.name, collection.langs) == ("mkqa-zh_cn-zh_cn", {"zho"})
    assert next((query.text, query.lang) for query in collection.queries()) == ("who sings it 简", "zho")
    assert [doc.id for doc in collection.docs()] == ["7#0", "7#1", "8#0"]
    assert collection.qrels() == {"563": {"7#0": 1}, "-71": {"7#0": 1, "8#0": 1}, "6": {"8#0": 1}}


@pytest.mark.parametrize("name", ["psgs_w100.tsv", "psgs_w100.tsv.gz"])
@pytest.mark.parametrize("header", [True, False])
def test_the_passages_of_dpr(root, name, header, monkeypatch):
    path = root / "elsewhere" / name
    path.parent.mkdir()
    with gzip.open(path, "wt", newline="") if name.endswith("gz") else path.open("w", newline="") as out:
        rows = csv.writer(out, delimiter="\t")
        if header:
            rows.writerow(["id", "text", "title"])
        rows.writerow(["1", 'He said "1970" once', "A"])
        rows.writerow(["2", "Dave Edmunds", ""])
    monkeypatch.chdir(path.parent)
    collection = load_collection(f"mkqa:{root}?lang=en&docs={name}&sample=true")
    assert [(doc.id, doc.text) for doc in collection.docs()] == [("1", 'A\nHe said "1970" once'), ("2", "Dave Edmunds")]
    assert collection.qrels() == {"563": {"2": 1}, "-71": {"1": 1}}


def test_mkqa_without_passages_has_questions_and_nothing_else(refused, root):
    collection = load_collection(f"mkqa:{root}?lang=zh_tw")
    assert collection.queries()[0].text == "who sings it 繁"
    for ask in (lambda c: next(c.docs()), lambda c: c.qrels()):
        refused(f"mkqa:{root}?lang=zh_tw", "no passages of its own", "docs=PATH", ask=ask)


def test_what_is_wrong_with_mkqa_is_said(refused, root):
    whole = f"mkqa:{root}?docs=passages.jsonl"
    refused(f"{whole}&lang=fr", "mkqa-fr has 6 questions", "10,000 were published", "sample=true")
    refused(f"{whole}", "does not say which lang", "mkqa:DIR?lang=zh_cn")
    refused(f"{whole}&lang=zh", "'zh' could be zh_cn, zh_hk, zh_tw")
    refused(f"{whole}&lang=hi", "unknown language of MKQA 'hi'", "zh_hk")
    refused(f"{whole}&lang=de&sample=true", "mkqa.jsonl.gz:1: question '563' has no wording in de")
    refused(
        f"{whole}&lang=fr&docs_lang=de&sample=true", "mkqa.jsonl.gz:1", "no list of answers in de",
        ask=lambda c: c.queries(),
    )  # fmt: skip
    refused(f"mkqa:{root}?lang=fr&docs=none.jsonl&sample=true", "no file docs=none.jsonl", str(root))
    refused(f"mkqa:{root / 'zh'}?lang=fr", "does not exist", "mkqa:DIR?lang=zh_cn")
    cases.put(root / "bad.tsv", "id\ttext\ttitle", '1\t"never closed\tT', "2\tx\ty")
    refused(f"mkqa:{root}?lang=fr&docs=bad.tsv&sample=true", "bad.tsv:2: a quotation mark is not closed")
    cases.put(root / "short.tsv", "1\tx\ty", "2\tx")
    refused(f"mkqa:{root}?lang=fr&docs=short.tsv&sample=true", "short.tsv:2: not `id TAB text TAB title` but 2")
    cases.put(root / "empty.jsonl", {"id": "1", "text": " "})
    refused(f"mkqa:{root}?lang=fr&docs=empty.jsonl&sample=true", "empty.jsonl:1: passage '1' has no text")
    cases.put(root / "dataset" / "mkqa.jsonl.gz", cases.question(1, "what", [cases.answer("entty", "x")]))
    refused(f"{whole}&lang=fr&sample=true", "unknown type of answer 'entty'; did you mean entity?")


def test_holding_an_answer_is_dprs_rule():
    strings = {"cafe": ["Café"], "dot": ["J. R."], "none": ["…", " ", ""], "ss": ["Straße"], "long": ["a b c d"]}
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
