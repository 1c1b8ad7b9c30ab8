"""collections/directory.py: NeuCLIR, HC4 and flat files; every mistake in one line; what `check` finds; BEIR's own files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import CollectionCounts
from crosslens.multilingual.collections.directory import Beir, Directory
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases
from stand_ins.table import table

NEUCLIR_DOC = {
    "id": "2b1c3e8f-0001", "cc_file": "crawl-data/x.warc.gz", "time": "2019-05-01T00:00:00", "title": "标题",
    "text": "正文第一段。", "url": "http://example.org/1",
}  # fmt: skip
HC4_DOC = {"id": "b", "date": "2018-01-02", "title": "عنوان", "text": "متن", "url": "u", "cc_file": "c"}


def lines(*records: object) -> str:
    return "".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in records)


def ids(items) -> list[str]:
    return [item.id for item in items]


def test_neuclir_and_hc4_documents(make):
    first, second = make([NEUCLIR_DOC, HC4_DOC]).docs()
    assert first == Item(
        "2b1c3e8f-0001", "标题\n正文第一段。", None, None,
        {"cc_file": "crawl-data/x.warc.gz", "time": "2019-05-01T00:00:00", "title": "标题", "url": "http://example.org/1"},
    )  # fmt: skip
    assert second.text == "عنوان\nمتن"
    assert second.meta["time"] == "2018-01-02"


def test_flat_documents_with_images_languages_and_other_keys(make, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"not opened here")
    docs = [
        {"id": 7, "image": "pictures/a.jpg", "year": 1999, "tags": ["x"], "lang": None},
        {"id": "8", "text": "hello", "lang": "en-GB", "title": None},
        {"id": "9", "text": "both", "image": "pictures/../pictures/a.jpg", "lang": "Persian"},
    ]
    found = list(make(docs).docs())
    assert found[0] == Item("7", None, tmp_path.resolve() / "pictures/a.jpg", None, {"year": 1999, "tags": ["x"]})
    assert found[1] == Item("8", "hello", None, "eng", {})
    assert (found[2].lang, found[2].image) == ("fas", found[0].image)


def test_gzip_a_byte_order_mark_and_blank_lines(tmp_path):
    text = "\ufeff" + lines({"id": "1", "text": "a"}, "", "  ", {"id": "2", "text": "b"})
    (tmp_path / "docs.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert ids(Directory(tmp_path).docs()) == ["1", "2"]
    (tmp_path / "docs.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"both docs\.jsonl and docs\.jsonl\.gz"):
        Directory(tmp_path)


GOOD = {"id": "good", "text": "fine"}


BAD = [
    ('{"id": "x", "text": ', "malformed JSON"),
    ("[" * 100_000, "nested deeper than 100 levels"),
    ('{"id": ' + "9" * 5000 + ', "text": "a"}', "malformed JSON"),
    ('"text"', "not a JSON object but str"),
    ("[1]", "not a JSON object but list"),
    ({"text": "a"}, "no id"),
    ({"id": "", "text": "a"}, "no id"),
    ({"id": None, "text": "a"}, "no id"),
    ({"id": True, "text": "a"}, "id must be text, not bool"),
    ({"id": ["x"], "text": "a"}, "id must be text, not list"),
    ({"id": "a b", "text": "a"}, "white space"),
    ({"id": "a\n", "text": "a"}, "white space"),
    ({"id": "x"}, "'x' has neither text nor image"),
    ({"id": "x", "text": " \n", "title": "\t"}, "'x' has neither text nor image"),
    ({"id": "x", "text": "", "image": ""}, "'x' has neither text nor image"),
    ({"id": "x", "text": 5}, "text must be text, not int"),
    ({"id": "x", "text": ["a"]}, "text must be text, not list"),
    ({"id": "x", "text": "a", "title": {}}, "title must be text, not dict"),
    ({"id": "x", "text": "a", "image": 1}, "image must be text, not int"),
    ({"id": "x", "text": "a", "lang": 1}, "lang must be text, not int"),
    ({"id": "x", "text": "a", "lang": "Elvish"}, "unknown language 'Elvish'"),
    ({"id": "x", "image": "no.jpg"}, "'no.jpg' does not exist"),
    ({"id": "x", "image": "."}, "'.' cannot be read (a directory"),
    ({"id": "x", "image": "../secret.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "a/../../secret.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "link.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "linked/secret.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "/etc/hostname"}, "must be a path relative"),
    ({"id": "x", "image": "a\0b"}, "must be a path relative"),
    ('{"id": "x", "text": "half \\ud800 a pair"}', "surrogate"),
    (GOOD, "the id 'good' occurs a second time"),
]


@table(("bad", "told"), BAD)
def test_a_bad_document_is_named_with_file_and_line_or_skipped_and_counted(tmp_path, bad, told):
    root = tmp_path / "collection"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "linked").symlink_to(tmp_path)
    (root / "docs.jsonl").write_text(lines(GOOD, bad, {"id": "last", "text": "b"}), "utf-8")
    stream = Directory(root).docs()
    assert next(stream).id == "good"
    with pytest.raises(InputError) as error:
        next(stream)
    message = str(error.value)
    assert message.startswith(f"{root.resolve() / 'docs.jsonl'}:2: ")
    assert told in message
    assert "\n" not in message
    assert len(message) < 500
    lenient = load_collection(root, skip_bad=True)
    assert isinstance(lenient, Directory)
    for _ in range(2):  # a second pass does not count twice
        assert ids(lenient.docs()) == ["good", "last"]
        assert lenient.skipped == 1
        assert lenient.problems == [message]
    assert lenient.check().skipped == 1


def test_a_line_that_is_not_utf_8(make):
    content = lines(GOOD).encode() + b'{"id": "x", "text": "\xe9t\xe9"}\n' + lines({"id": "y", "text": "z"}).encode()
    with pytest.raises(InputError, match=r"docs\.jsonl:2: not UTF-8"):
        list(make(content).docs())
    assert ids(make(content, skip_bad=True).docs()) == ["good", "y"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no gzip"])
def test_a_damaged_archive_is_an_error_even_when_skipping(tmp_path, damage):
    records = [{"id": str(i), "text": f"text {i * 7919}"} for i in range(20_000)]
    packed = bytearray(gzip.compress(lines(*records).encode()))
    if damage == "truncated":
        packed = packed[: len(packed) // 2]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    else:
        packed = bytearray(lines(GOOD).encode())
    (tmp_path / "docs.jsonl.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"docs\.jsonl\.gz: damaged or truncated gzip after line \d+"):
        list(Directory(tmp_path, skip_bad=True).docs())


def test_where_there_is_no_collection(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_collection(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        load_collection(str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"with docs\.jsonl"):
        load_collection(tmp_path).check()
    (tmp_path / "docs.jsonl").write_text("\n\n")
    collection = load_collection(tmp_path)
    assert list(collection.docs()) == []
    with pytest.raises(InputError, match="has no documents"):
        collection.check()
    with pytest.raises(InputError, match=r"no topics\.jsonl"):
        collection.queries()
    with pytest.raises(InputError, match=r"no qrels\.txt"):
        collection.qrels()


def test_check_counts(make, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    docs = [NEUCLIR_DOC | {"lang": "zho"}, HC4_DOC | {"lang": "fa"}, {"id": "c", "image": "a.png"}]
    topics = [cases.topic("101", "fas", "zho")]
    collection = make(docs, topics, "101 fas b 3\n101 zho 2b1c3e8f-0001 0\n")
    counts = collection.check()
    assert counts == CollectionCounts(3, {"zho": 1, "fas": 1, "": 1}, {"image": 1}, 1, judged=2, relevant=1)
    assert counts.images == counts.to_json()["images"] == 1
    assert collection.langs == {"zho", "fas"}
    assert collection.qrels() == {"101": {"b": 3, "2b1c3e8f-0001": 0}}
    assert collection.judged_langs() == {"b": "fas", "2b1c3e8f-0001": "zho"}
    assert collection.name == tmp_path.name


def test_counts_as_they_were_written_before_there_were_other_media():
    before = {"documents": 3, "langs": {"": 3}, "images": 2, "queries": 1, "judged": 0, "relevant": 0, "skipped": 0}
    counts = CollectionCounts.from_json(before)
    assert (counts.media, counts.to_json()) == ({"image": 2}, before)


def test_check_names_judgements_of_nothing(make):
    topics = [cases.topic("101")]
    with pytest.raises(InputError, match="judge topics that it does not have: 999"):
        make(topics=topics, qrels="999 0 d1 1\n").check()
    with pytest.raises(InputError, match="judge documents that it does not have: gone, lost"):
        make(topics=topics, qrels="101 0 lost 1\n101 0 gone 0\n101 0 d1 1\n").check()


def test_check_names_topics_for_languages_that_the_documents_are_not_in(make):
    french, topics = NEUCLIR_DOC | {"lang": "fr"}, [cases.topic("101", "fas", "zho")]
    with pytest.raises(InputError, match="meant for documents in fas, zho, but its documents are in fra"):
        make([french], topics).check()
    assert make([french, NEUCLIR_DOC | {"id": "z", "lang": "zh"}], topics).check().documents == 2


# BEIR.


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
    with pytest.raises(InputError, match=r"test\.tsv:2: not a qrels line `query-id TAB corpus-id TAB score`"):
        load_collection(root).qrels()
    with pytest.raises(InputError, match=r"corpus\.jsonl:1: the image .* lies outside the collection"):
        list(load_collection(root).docs())
    lenient = load_collection(root, skip_bad=True)
    assert isinstance(lenient, Beir)
    assert list(lenient.docs()) == []
    assert [problem.partition(": ")[2][:8] for problem in lenient.problems] == ["the imag", "metadata"]
    beir(root, [DOC], QUERIES, test="0\t4983\thalf\n")
    with pytest.raises(
        InputError, match=r"test\.tsv:2: not a qrels line `query-id TAB corpus-id TAB score`: '0\\t4983\\thalf'"
    ):
        load_collection(root).qrels()


def test_packed_judgements_and_grades_that_are_none(tmp_path):
    root = beir(tmp_path / "packed", [DOC], QUERIES)
    (root / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(b"2\t4983\t1\n"))
    assert load_collection(root).qrels() == {"2": {"4983": 1}}
    beir(root, [DOC], QUERIES, test="2\t4983\t1000001\n")
    with pytest.raises(InputError, match="has both test.tsv and test.tsv.gz; keep one"):
        load_collection(root).qrels()
    (root / "qrels" / "test.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"test\.tsv:2: the grade 1000001 is above 1,000,000"):
        load_collection(root).qrels()
    own = tmp_path / "own"
    own.mkdir()
    (own / "docs.jsonl").write_text(json.dumps({"id": "d", "text": "x"}))
    (own / "qrels.txt.gz").write_bytes(gzip.compress(b"1 0 d 2\n"))
    assert load_collection(own).qrels() == {"1": {"d": 2}}
