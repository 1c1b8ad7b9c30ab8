"""Collections over publishers' files: what is their own beside the contract; files found in directories and on the hub."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import MissingPart
from crosslens.multilingual.collections.files import DatasetFiles, read_parquet, read_table
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


@pytest.mark.parametrize("version", ["vidore", "vidore_3"])
def test_vidore(refused, tmp_path, version):
    name = cases.CASES[version](tmp_path).name
    collection = load_collection(name)
    first, _ = collection.docs()
    text = "# Growth" if version == "vidore_3" else None
    assert (first.id, first.image, first.text) == ("0", cases.picture(), text)
    assert first.meta["doc_id"] == "r"
    assert [(q.id, q.lang) for q in collection.queries()] == [("0", "eng"), ("1", "fra")]
    assert [q.id for q in collection.queries(lang="fr")] == ["1"]
    assert collection.qrels() == {"0": {"1": 2}, "1": {"1": 1}}
    assert next(load_collection(f"vidore:{tmp_path}").docs()).text is None
    refused(f"vidore:{tmp_path}?split=dev", "no file corpus/dev-*.parquet")
    refused("vidore", "does not say where the files are")


def test_mbeir(refused, tmp_path):
    written = cases.mbeir(tmp_path)
    collection = load_collection(written.name)
    text, both = collection.docs()
    assert (text.modalities, both.modalities) == ({"text"}, {"text", "image"})
    assert collection.queries() == [Item("9:6", None, (tmp_path / "mbeir_images/a.jpg").resolve(), None)]
    assert collection.qrels() == {"9:6": {"9:2": 1}}
    assert len(list(load_collection(f"{written.name}&pool=global").docs())) == 3
    for row, told in (
        ("9:6 0 9:2 1", "qrels.txt:1: not `qid 0 did grade task` but 4 columns"),
        ("9:6 0 9:2 half 3", "qrels.txt:1: the grade 'half' is not a whole number"),
    ):
        cases.put(written.qrels, row)
        refused(written.name, told)
    refused("mbeir:TIGER-Lab/M-BEIR?task=mscoco_task3", "download it first")


def test_the_hub_is_asked_for_the_files_that_are_needed(tmp_path, monkeypatch):
    import huggingface_hub

    cases.miracl(tmp_path)
    asked = []

    def snapshot_download(repository, *, repo_type, allow_patterns):
        asked.append((repository, repo_type, allow_patterns))
        return str(tmp_path / repository.partition("/")[2])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    collection = load_collection("miracl?lang=yo")
    assert not asked  # nothing is fetched before it is read
    assert collection.check().judged == 2
    name = "miracl-corpus-v1.0-yo/docs-*.jsonl.gz"
    assert ("miracl/miracl-corpus", "dataset", [name, f"*/{name}"]) in asked
    assert load_collection("vidore:vidore/esg_reports_v2").name == "esg_reports_v2"

    def gone(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(InputError) as error:
        list(load_collection("miracl?lang=yo").docs())
    assert str(error.value).startswith("cannot fetch the data set miracl/miracl from the hub (no network); ")


def test_rows_of_files(tmp_path):
    with pytest.raises(InputError, match=r"a\.tsv:2: not `id TAB text` but 1 columns: 'alone'"):
        list(read_table(cases.put(tmp_path / "a.tsv", "1\ttext", "alone"), ("id", "text")))
    rows = cases.put_parquet(tmp_path / "a.parquet", *({"id": n} for n in range(200)))
    assert [row["id"] for _, row in read_parquet([rows], batch=7)] == list(range(200))
    assert [place for place, _ in read_parquet([rows])][1].endswith("a.parquet: row 2")
    cases.put(tmp_path / "b" / "a.tsv")
    cases.put(tmp_path / "b" / "b.tsv")
    with pytest.raises(InputError, match="could both be meant"):
        DatasetFiles(str(tmp_path)).get_one("b/*.tsv")
    with pytest.raises(InputError, match="is a file"):
        DatasetFiles(str(rows))
