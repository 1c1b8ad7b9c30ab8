"""collections/beir.py: BEIR's own files, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.beir import Beir
from crosslens.multilingual.collections.registry import load_collection


def beir(root: Path, corpus: list[dict], queries: list[dict] = (), **splits: str) -> Path:  # type: ignore[assignment]
    (root / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for split, judged in splits.items():
        (root / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return root


DOC = {"_id": "4983", "title": "Microstructural development", "text": "Alterations", "metadata": {}}


QUERIES = [{"_id": id, "text": f"question {id}", "metadata": {"url": "u"}} for id in ("0", "2", "4")]


def test_beir_as_published(tmp_path):
    root = beir(tmp_path / "scifact", [DOC], QUERIES, train="0\t4983\t1\n", test="2\t4983\t1\n")
    collection = load_collection(root)
    assert isinstance(collection, Beir)
    assert collection.name == "scifact"
    title = "Microstructural development"
    assert list(collection.docs()) == [Item("4983", f"{title}\nAlterations", None, None, {"title": title})]
    assert collection.queries() == [Item("2", "question 2", None, None, {"url": "u"})]
    train = load_collection(f"beir:{root}?split=train&lang=en")
    assert [query.id for query in train.queries()] == ["0"]
    assert (next(train.docs()).lang, train.check().judged) == ("eng", 1)
    bare = beir(tmp_path / "bare", [DOC], QUERIES)
    assert len(list(load_collection(bare).queries())) == 3
    assert load_collection(bare).check().judged == 0


def test_what_is_wrong_with_beir_files_is_said(tmp_path):
    root = beir(tmp_path / "c", [DOC], QUERIES, dev="2\tgone\t1\n", train="9\t4983\t1\n")
    with pytest.raises(InputError, match=r"has the splits dev, train: say which, beir:.*\?split=dev"):
        load_collection(root)
    with pytest.raises(InputError, match="unknown split of .* 'tset'"):
        load_collection(f"beir:{root}?split=tset")
    with pytest.raises(InputError, match="judge documents that it does not have: gone"):
        load_collection(f"beir:{root}?split=dev").check()
    with pytest.raises(InputError, match="has no queries"):
        load_collection(f"beir:{root}?split=train").check()
    beir(root, [DOC | {"metadata": {"image": "../secret.png"}}, DOC | {"metadata": []}], [], test="0 4983 1\n")
    with pytest.raises(InputError, match=r"test\.tsv:2: not `query-id TAB corpus-id TAB score`"):
        load_collection(root).qrels()
    with pytest.raises(InputError, match=r"corpus\.jsonl:1: the image .* lies outside the collection"):
        list(load_collection(root).docs())
    lenient = load_collection(root, skip_bad=True)
    assert isinstance(lenient, Beir)
    assert list(lenient.docs()) == []
    assert [problem.partition(": ")[2][:8] for problem in lenient.problems] == ["the imag", "metadata"]
    beir(root, [DOC], QUERIES, test="0\t4983\thalf\n")
    with pytest.raises(InputError, match=r"test\.tsv:2: the score 'half' is not a whole number"):
        load_collection(root).qrels()
