"""collections.py: NeuCLIR's, HC4's and flat files; every mistake in one line; streaming."""

from __future__ import annotations

import gzip
import itertools
import json
import sys
import types
from collections import namedtuple
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.items import Item, SeenIds
from crosslens.multilingual.collections import base as module
from crosslens.multilingual.collections.base import Collection, MissingPart
from crosslens.multilingual.collections.directory import Directory
from crosslens.multilingual.collections.documents import fetch_documents
from crosslens.multilingual.collections.registry import load_collection
from hypothesis import given, settings
from hypothesis import strategies as st

NEUCLIR_DOC = {
    "id": "2b1c3e8f-0001", "cc_file": "crawl-data/x.warc.gz", "time": "2019-05-01T00:00:00", "title": "标题",
    "text": "正文第一段。", "url": "http://example.org/1",
}  # fmt: skip
HC4_DOC = {"id": "b", "date": "2018-01-02", "title": "عنوان", "text": "متن", "url": "u", "cc_file": "c"}
NEUCLIR_TOPIC = {
    "topic_id": "101",
    "languages_with_qrels": ["fas", "zho"],
    "topics": [
        {"lang": "eng", "source": "original", "topic_title": "Et", "topic_description": "Ed",
         "topic_narrative": "En"},
        {"lang": "fas", "source": "google-translation-1", "topic_title": "Fm", "topic_description": "Fmd",
         "topic_narrative": "Fmn"},
        {"lang": "fas", "source": "human translation", "topic_title": "Fh", "topic_description": "Fhd"},
        {"lang": "zho", "source": "20220114-scale21-tm1", "topic_title": "Zm", "topic_description": "Zmd"},
    ],
}  # fmt: skip
HC4_TOPIC = {
    "topic_id": "3",
    "languages_with_qrels": ["zho", "rus"],
    "topics": [{"lang": "eng", "source": "original", "topic_title": "T", "topic_description": "D"}],
    "narratives": {
        "zho": {
            "very_valuable": "VZ",
            "somewhat_valuable": "N/A",
            "not_that_valuable": "no",
            "non_relevant": "no",
        },
        "rus": {
            "very_valuable": "VR",
            "somewhat_valuable": "SR",
            "not_that_valuable": "no",
            "non_relevant": "no",
        },
    },
    "report": {"url": "u", "text": "r", "date": "2019-01-06"},
}


def lines(*records: object) -> str:
    return "".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in records)


@pytest.fixture
def make(tmp_path):
    """A directory from the contents of its files; records become JSON lines."""

    def made(
        docs: object = (NEUCLIR_DOC,), topics: object = None, qrels: str | None = None, **options
    ) -> Directory:
        for name, content in (("docs.jsonl", docs), ("topics.jsonl", topics), ("qrels.txt", qrels)):
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            elif content is not None:
                (tmp_path / name).write_text(
                    content if isinstance(content, str) else lines(*content), "utf-8"
                )
        return Directory(tmp_path, **options)

    return made


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
    assert found[0] == Item(
        "7", None, tmp_path.resolve() / "pictures/a.jpg", None, {"year": 1999, "tags": ["x"]}
    )
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
    ("[" * 100_000, "malformed JSON"),
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
    ({"id": "x", "image": "."}, "'.' does not exist"),
    ({"id": "x", "image": "../secret.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "a/../../secret.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "link.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "linked/secret.jpg"}, "lies outside the collection"),
    ({"id": "x", "image": "/etc/hostname"}, "must be a path relative"),
    ({"id": "x", "image": "a\0b"}, "must be a path relative"),
    ('{"id": "x", "text": "half \\ud800 a pair"}', "surrogate"),
    (GOOD, "the id 'good' occurs a second time"),
]


@pytest.mark.parametrize(("bad", "told"), BAD)
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
    content = (
        lines(GOOD).encode()
        + b'{"id": "x", "text": "\xe9t\xe9"}\n'
        + lines({"id": "y", "text": "z"}).encode()
    )
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


def test_a_file_of_documents_is_a_collection_without_topics(tmp_path):
    (tmp_path / "deu.jsonl").write_text(lines({"id": "a", "text": "Hund"}, {"id": "b", "text": "Katze"}))
    (tmp_path / "topics.jsonl").write_text(lines({"id": "t", "text": "dog"}))
    (tmp_path / "qrels.txt").write_text("t 0 other 1\n")
    collection = load_collection(tmp_path / "deu.jsonl")
    assert collection.name == "deu.jsonl"
    assert [item.text for item in collection.docs()] == ["Hund", "Katze"]
    assert collection.check().documents == 2
    for ask in (collection.queries, collection.qrels, collection.judged_langs):
        with pytest.raises(MissingPart, match=r"deu\.jsonl has no (topics|qrels)"):
            ask()


def test_where_there_is_no_collection(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_collection(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        load_collection(str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"no docs\.jsonl"):
        load_collection(tmp_path)
    (tmp_path / "docs.jsonl").write_text("\n\n")
    collection = load_collection(tmp_path)
    assert list(collection.docs()) == []
    with pytest.raises(InputError, match="has no documents"):
        collection.check()
    with pytest.raises(InputError, match=r"no topics\.jsonl"):
        collection.queries()
    with pytest.raises(InputError, match=r"no qrels\.txt"):
        collection.qrels()


def test_documents_are_streamed(make):
    collection = make(lines(*({"id": str(i), "text": "t"} for i in range(1000))) + "broken\n")
    assert ids(itertools.islice(collection.docs(), 3)) == ["0", "1", "2"]  # the broken line is far behind


def query(make, topic: dict, **options) -> Item:
    (found,) = make(topics=[topic]).queries(**options)
    return found


def test_neuclir_topics(make):
    found = query(make, NEUCLIR_TOPIC)
    assert (found.id, found.text, found.lang) == ("101", "Et\nEd", "eng")
    assert found.meta == {"source": "original", "languages_with_qrels": ["fas", "zho"]}
    assert query(make, NEUCLIR_TOPIC, fields="title").text == "Et"
    assert query(make, NEUCLIR_TOPIC, fields="narrative + title").text == "En\nEt"
    assert query(make, NEUCLIR_TOPIC, lang="fa").text == "Fh\nFhd"  # a human's before a machine's
    machine = query(make, NEUCLIR_TOPIC, lang="fas", source="machine")
    assert (machine.text, machine.lang, machine.meta["source"]) == ("Fm\nFmd", "fas", "machine")
    assert query(make, NEUCLIR_TOPIC, lang="Chinese").text == "Zm\nZmd"
    assert query(make, NEUCLIR_TOPIC, source="human").lang == "fas"


def test_hc4_topics_have_their_narratives_apart(make):
    assert query(make, HC4_TOPIC).text == "T\nD"
    assert query(make, HC4_TOPIC, fields="title+narrative").text == "T\nVZ\nVR\nSR"
    hc3 = HC4_TOPIC | {"narratives": {"fas": {"very_valuable": "VF", "somewhat_valuable": "NA"}}}
    assert query(make, hc3, fields="narrative").text == "VF"
    plain = HC4_TOPIC | {"narratives": {"eng": "En", "rus": "Ru"}}
    assert query(make, plain, fields="narrative").text == "En"


@pytest.mark.parametrize(
    ("topic", "options", "told"),
    [
        (NEUCLIR_TOPIC, {"fields": "narrative", "lang": "zho"}, "topic '101' has no narrative"),
        (HC4_TOPIC | {"narratives": {}}, {"fields": "narrative"}, "topic '3' has no narrative"),
        (NEUCLIR_TOPIC, {"fields": "titel"}, "unknown topic field 'titel'; did you mean title?"),
        (NEUCLIR_TOPIC, {"fields": "title+"}, "unknown topic field ''"),
        (
            NEUCLIR_TOPIC,
            {"lang": "zho", "source": "human"},
            "'101' has no wording in zho human (it has eng original",
        ),
        (NEUCLIR_TOPIC, {"source": "machine"}, "several machine wordings: say which language (fas, zho)"),
        (NEUCLIR_TOPIC, {"lang": "rus"}, "no topics in rus"),
        (NEUCLIR_TOPIC, {"lang": "Elvish"}, "unknown language 'Elvish'"),
        (NEUCLIR_TOPIC, {"source": "orginal"}, "did you mean original?"),
        (NEUCLIR_TOPIC | {"topics": []}, {}, "'101' has no wording in original (it has none)"),
        (NEUCLIR_TOPIC | {"topics": "x"}, {}, "`topics` must be a list"),
        (NEUCLIR_TOPIC | {"languages_with_qrels": [1]}, {}, "`languages_with_qrels` must be a list"),
        ({"topics": []}, {}, "no topic_id"),
        ({"id": "1", "text": "x"}, {"fields": "title"}, "topic '1' has no title"),
        ({"id": "1", "text": "x"}, {"source": "human"}, "topic '1' has no human translation"),
        ({"id": "1", "text": ""}, {}, "topic '1' has neither text nor image"),
        ({"id": "1", "image": "../x.jpg"}, {}, "lies outside the collection"),
    ],
)
def test_what_a_topic_lacks_is_named(make, topic, options, told):
    with pytest.raises(InputError) as error:
        make(topics=[topic]).queries(**options)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_flat_topics_and_their_languages(make, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    topics = [
        {"id": "1", "text": "old bridge repair", "lang": "en", "kind": "text to text"},
        {"id": "2", "image": "a.png"},
        {"id": "3", "text": "Forscher fanden Wasser auf dem Mond", "title": "Mond"},
        {"id": "4", "text": "тёплое море", "image": "a.png", "lang": "rus"},
    ]
    collection = make(topics=topics)
    assert ids(collection.queries()) == ["1", "2", "3", "4"]
    assert collection.queries()[0].meta == {"kind": "text to text"}
    assert ids(collection.queries(lang="english")) == ["1"]
    assert ids(collection.queries(lang="de")) == ["3"]  # it says nothing of its language, but is German
    (tmp_path / "topics.jsonl").write_text(lines(topics[0], topics[0]))
    with pytest.raises(InputError, match=r"topics\.jsonl:2: the id '1' occurs a second time"):
        collection.queries()


def test_check_counts(make, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    docs = [NEUCLIR_DOC | {"lang": "zho"}, HC4_DOC | {"lang": "fa"}, {"id": "c", "image": "a.png"}]
    collection = make(docs, [NEUCLIR_TOPIC], "101 fas b 3\n101 zho 2b1c3e8f-0001 0\n")
    counts = collection.check()
    assert (counts.documents, counts.images, counts.queries, counts.judged, counts.relevant) == (
        3,
        1,
        1,
        2,
        1,
    )
    assert counts.langs == {"zho": 1, "fas": 1, "": 1}
    assert collection.langs == {"zho", "fas"}
    assert collection.qrels() == {"101": {"b": 3, "2b1c3e8f-0001": 0}}
    assert collection.judged_langs() == {"b": "fas", "2b1c3e8f-0001": "zho"}
    assert collection.name == tmp_path.name
    assert isinstance(collection, Collection)


def test_check_names_judgements_of_nothing(make):
    with pytest.raises(InputError, match="judge topics that it does not have: 999"):
        make(topics=[NEUCLIR_TOPIC], qrels="999 0 2b1c3e8f-0001 1\n").check()
    with pytest.raises(InputError, match="judge documents that it does not have: gone, lost"):
        make(topics=[NEUCLIR_TOPIC], qrels="101 0 lost 1\n101 0 gone 0\n101 0 2b1c3e8f-0001 1\n").check()


def test_check_names_topics_for_languages_that_the_documents_are_not_in(make):
    french = NEUCLIR_DOC | {"lang": "fr"}
    with pytest.raises(InputError, match="meant for documents in fas, zho, but its documents are in fra"):
        make([french], [NEUCLIR_TOPIC]).check()
    mixed = [french, NEUCLIR_DOC | {"id": "z", "lang": "zh"}]
    assert make(mixed, [NEUCLIR_TOPIC]).check().documents == 2


def test_languages_that_topics_have_are_named(make):
    collection = make(
        topics=[{"id": "1", "text": "x", "lang": "eng"}, {"id": "2", "text": "y", "lang": "de"}]
    )
    with pytest.raises(InputError, match="no topics in rus, only in deu, eng"):
        collection.queries(lang="ru")


def test_what_a_collection_lacks_is_an_error_of_its_own(make):
    collection = make()
    for ask in (collection.queries, collection.qrels):
        with pytest.raises(MissingPart):
            ask()


@pytest.mark.parametrize("name", ["bier:somewhere", "irdz:x", "neuclri?year=2022"])
def test_an_unknown_kind_of_collection_is_named(name):
    kind = name.partition(":")[0].partition("?")[0]
    with pytest.raises(InputError, match=f"unknown kind of collection '{kind}'; did you mean"):
        load_collection(name)


def test_a_directory_that_is_named_like_a_spec_is_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("beir", "neuclir:2023"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "docs.jsonl").write_text(lines(GOOD))
        assert load_collection(name).name == name
    with pytest.raises(InputError, match="does not exist"):
        load_collection("C")


def test_documents_held_for_rerankers(make, monkeypatch):
    collection = make([{"id": str(i), "text": f"text {i}"} for i in range(50)])
    held = fetch_documents(collection, ["7", "3", "7"])
    assert [item.text for item in held.get(["7", "3", "7"])] == ["text 7", "text 3", "text 7"]
    with pytest.raises(InputError, match="no documents with the ids 4"):
        held.get(["3", "4"])
    with pytest.raises(InputError, match="2 of 3 documents are not in the collection .*: 88, 99"):
        fetch_documents(collection, ["3", "99", "88"])
    assert fetch_documents(collection, []).get([]) == []


@given(st.lists(st.text(min_size=1, max_size=3), max_size=300))
@settings(deadline=None)
def test_ids_seen_before(given_ids):
    seen, plain = SeenIds(merge_at=16), set()
    for id in given_ids:
        assert seen.add(id) == (id in plain)
        plain.add(id)


def test_the_demo_collection_is_one():
    demo = load_collection("demo")
    assert isinstance(demo, Collection)
    assert {query.lang for query in demo.queries(lang="eng")} == {"eng"}
    assert len(list(demo.queries())) > len(list(demo.queries(lang="eng"))) > 0


class FakeDataset:
    """What crosslens uses of an ir_datasets dataset, with NeuCLIR's field names."""

    Doc = namedtuple("Doc", "doc_id title text url")
    Query = namedtuple("Query", "query_id title description ht_title ht_description translation_lang")
    Qrel = namedtuple("Qrel", "query_id doc_id relevance iteration")
    count = 2

    def docs_iter(self):
        return iter([self.Doc("d1", "T", "text one", "u"), self.Doc("d2", "", "text two", "u")])

    def queries_iter(self):
        return iter([self.Query("q1", "Et", "Ed", "Zt", "Zd", "zh")])

    def qrels_iter(self):
        return iter([self.Qrel("q1", "d2", 3, "0")])

    def queries_cls(self):
        return self.Query

    def docs_count(self):
        return self.count

    def docs_lang(self):
        return "zh"

    def queries_lang(self):
        return None

    has_docs = has_queries = has_qrels = lambda self: True


@pytest.fixture
def ir_datasets(monkeypatch):
    made = FakeDataset()

    def find(id: str) -> FakeDataset:
        if id != "neuclir/1/zh":
            raise KeyError(id)
        return made

    monkeypatch.setitem(sys.modules, "ir_datasets", types.SimpleNamespace(load=find))
    return made


def test_a_collection_of_ir_datasets(ir_datasets):
    collection = load_collection("irds:neuclir/1/zh")
    assert isinstance(collection, Collection)
    assert next(collection.docs()) == Item("d1", "T\ntext one", None, "zho", {"title": "T", "url": "u"})
    (plain,) = collection.queries(fields="title")
    assert (plain.text, plain.lang) == ("Et", "eng")
    assert collection.queries()[0].text == "Et\nEd"
    (human,) = collection.queries(source="human", lang="zho")
    assert (human.text, human.lang) == ("Zt\nZd", "zho")
    with pytest.raises(InputError, match="topic 'q1' has no narrative"):
        collection.queries(fields="narrative")
    with pytest.raises(InputError, match="has no queries in rus"):
        collection.queries(lang="rus", fields="title")
    assert collection.check().documents == 2
    ir_datasets.count = 3
    with pytest.raises(InputError, match="has 2 documents, but 3 were expected"):
        collection.check()
    with pytest.raises(InputError, match="ir_datasets has no collection 'nope'"):
        load_collection("irds:nope")


def test_where_ir_datasets_fails_the_way_around_is_named(ir_datasets, monkeypatch):
    monkeypatch.setattr(ir_datasets, "queries_iter", lambda: iter(()))
    with pytest.raises(InputError, match=r"has no queries: ir_datasets loses them; .*neuclir:DIR\?year=2023"):
        load_collection("irds:neuclir/1/zh").queries()

    def docs_iter():
        yield ir_datasets.Doc(doc_id="d1", title="T", text="x", date="2020")

    monkeypatch.setattr(ir_datasets, "docs_iter", docs_iter)
    with pytest.raises(InputError, match=r"cannot read irds:neuclir/1/zh \(.*date.*\); .*neuclir:DIR"):
        list(load_collection("irds:neuclir/1/zh").docs())


def test_without_ir_datasets_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(InputError, match="pip install ir_datasets"):
        load_collection("irds:neuclir/1/zh")


def test_the_module_needs_no_heavy_import():
    assert Path(module.__file__).name == "base.py"
    assert "ir_datasets" not in vars(module)
