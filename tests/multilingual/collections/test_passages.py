"""collections/passages.py: MIRACL, CIRAL, BRIGHT and BrowseComp-Plus."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import MissingPart
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases


def ids(items) -> list[str]:
    return [item.id for item in items]


def test_miracl(refused, tmp_path):
    cases.miracl(tmp_path)
    collection = load_collection(f"miracl:{tmp_path}?lang=yo")
    assert ids(collection.docs()) == ["0#0", "2#0", "10#0"]
    assert next(collection.docs()) == Item("0#0", "T0\npassage", None, "yor", {"title": "T0"})
    assert collection.queries() == [Item("3", "Kí ni orúkọ?", None, "yor")]
    assert collection.qrels() == {"3": {"2#0": 1, "10#0": 0}}
    test = load_collection(f"miracl:{tmp_path}?lang=Yoruba&split=test-a")
    assert test.queries()[0].text == "ta\tni"
    assert test.check().judged == 0
    with pytest.raises(MissingPart, match="never published"):
        test.qrels()
    with pytest.raises(InputError, match="no fields"):
        collection.queries(fields="title")
    with pytest.raises(InputError, match="no queries in eng, only in yor"):
        collection.queries(lang="en")
    refused(f"miracl:{tmp_path}?lang=mt", "unknown language of MIRACL 'mt'")
    no_file = "no file miracl-corpus-v1.0-zh/docs-*.jsonl.gz"
    refused(f"miracl:{tmp_path}?lang=zh", no_file, ask=lambda c: list(c.docs()))
    refused(f"miracl:{tmp_path}", "does not say which lang: write miracl:DIR?lang=zh")
    corpus = tmp_path / "miracl-corpus"
    (corpus / "miracl-corpus-v1.0-yo").rename(corpus / "miracl-corpus-v1.0-sw")
    refused(f"miracl:{tmp_path}?lang=sw&split=test-a", "has 3 documents in swa, but 131,924 were published")


def test_ciral(refused, tmp_path):
    name = cases.ciral(tmp_path).name
    collection = load_collection(name)
    assert next(collection.docs()) == Item(
        "DT#1", "Kanun\nLabari", None, "hau", {"title": "Kanun", "url": "http://example.org"}
    )
    assert collection.queries() == [Item("7", "Who is the emir?", None, "eng")]
    assert collection.qrels() == {"7": {"DT#1": 1}}
    assert load_collection(f"{name}&pools=true").qrels() == {"7": {"DT#1": 0}}
    (translated,) = load_collection(f"{name}&translated=yes").docs()
    assert (translated.text, translated.lang) == ("Kanun\nNews", "eng")
    refused(f"ciral:{tmp_path}?lang=ha", "has 1 documents in hau, but 715,355 were published")
    refused(f"ciral:{tmp_path}?lang=ha&pools=true&split=dev", "pooled judgements for split=test-a only")
    refused(f"ciral:{tmp_path}?lang=en", "unknown language of CIRAL 'en'")


def test_bright(refused, tmp_path):
    name = cases.bright(tmp_path).name
    collection = load_collection(name)
    assert list(collection.docs()) == [Item("a/b_1.txt", "Insects", None, "eng")]
    assert collection.qrels() == {"0": {"a/b_1.txt": 1}}
    first, second = collection.queries()
    assert (first.text, first.meta, second.meta) == ("Why light?", {}, {"excluded_ids": ["a/b_1.txt"]})
    assert load_collection(f"{name}&long=true").qrels()["0"] == {"a/b.txt": 1}
    refused(f"bright:{tmp_path}?domain=biologie", "unknown value of domain", "did you mean biology?")
    refused(f"bright:{tmp_path}?domain=pony", "no file documents/pony-*-of-*.parquet")


def test_browsecomp_plus(tmp_path):
    name = cases.browsecomp(tmp_path).name
    collection = load_collection(name)
    assert list(collection.docs()) == [Item("5", "Page", None, None, {"url": "http://x"})]
    assert (ids(collection.queries()), collection.check().relevant) == (["769"], 1)
    assert load_collection(f"{name}?judged=gold").qrels() == {"769": {"5": 0}}
