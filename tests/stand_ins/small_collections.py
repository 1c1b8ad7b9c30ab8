"""Every kind of collection as small files in its publisher's own layout: what the contract suite runs over.

Nothing is downloaded. A new kind is one function with `@case()` here.
"""

from __future__ import annotations

import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .archives import write_tar
from .cases import CASES, LINES, Written, case, picture, put, put_parquet, put_picture
from .pdf_files import make_pdf

__all__ = ["CASES", "LINES", "Written", "case", "picture", "put", "put_parquet", "put_picture"]


# Directories.


FLAT_DOCS = (
    {"id": "d1", "title": "Bridges", "text": "The old bridge is open again.", "lang": "en", "time": "2020"},
    {"id": "d2", "text": "Forscher fanden Wasser auf dem Mond.", "lang": "deu"},
    {"id": "d3", "image": "pictures/a.jpg"},
)
FLAT_TOPICS = (
    {"id": "q1", "text": "bridge repair", "lang": "eng"},
    {"id": "q2", "text": "Wasser auf dem Mond", "lang": "deu", "image": "pictures/a.jpg"},
)


@case()
def directory(root: Path) -> Written:
    put_picture(root / "pictures/a.jpg")
    return Written(
        str(root),
        put(root / "docs.jsonl", *FLAT_DOCS),
        put(root / "topics.jsonl", *FLAT_TOPICS),
        put(root / "qrels.txt", "q1 eng d1 3", "q2 0 d3 1", "q2 deu d1 0"),
    )


@case(lines=False)
def folder(root: Path) -> Written:
    put_picture(root / "photos/a cat.jpg")
    put(root / "photos/a cat.txt", "a cat")
    put(root / "seite.html", "<html lang=de><title>Brücken</title><p>Die alte Brücke ist offen.")
    (root / "paper.pdf").write_bytes(make_pdf("The old bridge", "", title="Bridges"))
    return Written(f"folder:{root}")


@case(lines=False)
def webdataset(root: Path) -> Written:
    described = b'{"caption": "a cat", "lang": "en", "width": 4}'
    write_tar(root / "00000.tar", ("0.jpg", picture()), ("0.json", described), ("1.png", picture("blue", "PNG")))
    return Written(f"webdataset:{root}")


@case()
def packed_directory(root: Path) -> Written:
    put_picture(root / "pictures/a.jpg")
    docs, topics = put(root / "docs.jsonl.gz", *FLAT_DOCS), put(root / "topics.jsonl.gz", *FLAT_TOPICS)
    return Written(str(root), docs, topics, put(root / "qrels.txt", "q1 0 d1 3"))


@case()
def single_file(root: Path) -> Written:
    put_picture(root / "pictures/a.jpg")
    docs = put(root / "deu.jsonl", *FLAT_DOCS)
    put(root / "topics.jsonl", *FLAT_TOPICS)
    return Written(str(docs), docs)


@case(lines=False)
def table(root: Path) -> Written:
    put_picture(root / "pictures/a.jpg")
    rows = ["docno,title,body,language,image,year", 'd1,Cells,"two\nlines",en,,2020', "d2,,,,pictures/a.jpg,"]
    return Written(str(put(root / "docs.csv", *rows)))


@case(lines=False)
def dataset(root: Path) -> Written:
    picture = put_picture(root / "a.jpg").read_bytes()
    rows = {"id": ["d1", "d2"], "text": ["Alterations", None], "image": [None, {"bytes": picture, "path": None}]}
    table = pa.table(rows)
    with pa.OSFile(str(root / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    put(root / "state.json", {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    return Written(str(root))


@case(lines=False)
def hfd(root: Path) -> Written:
    pq.write_table(pa.table({"id": [1, 2], "text": ["Alterations", "cells"]}), root / "train-00000-of-00001.parquet")
    return Written(f"hfd:{root}?split=train")


@case()
def mteb(root: Path) -> Written:
    docs = put(root / "en-corpus/corpus.jsonl", {"_id": "d1", "title": "Cells", "text": "Alterations", "year": 2020})
    topics = put(root / "en-queries/test.jsonl", {"_id": "q1", "text": "what alters"}, {"_id": "q2", "text": "why"})
    qrels = put(root / "en-qrels/test.jsonl", {"query-id": "q1", "corpus-id": "d1", "score": 1.0})
    return Written(f"mteb:{root}?subset=en", docs, topics, qrels)


@case()
def beir(root: Path) -> Written:
    put_picture(root / "images/a.jpg")
    docs = put(
        root / "corpus.jsonl",
        {"_id": "d1", "title": "Cells", "text": "Alterations", "metadata": {"lang": "eng", "year": 2020}},
        {"_id": "d2", "title": "", "text": "", "metadata": {"image": "images/a.jpg"}},
    )
    topics = put(root / "queries.jsonl", {"_id": "q1", "text": "what alters cells", "metadata": {"lang": "en"}})
    qrels = put(root / "qrels/test.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t1", "q1\td2\t0")
    return Written(f"beir:{root}", docs, topics, qrels)


# NeuCLIR, HC4 and HC3.


def wording(lang: str, source: str, title: str) -> dict[str, str]:
    return {"lang": lang, "source": source, "topic_title": title, "topic_description": f"{title} described"}


def topic(id: str, *meant: str, **more: object) -> dict[str, Any]:
    wordings = [wording("eng", "original", f"T{id}")]
    for lang in ("zho", "fas", "rus"):
        wordings.append(wording(lang, "human translation", f"{lang} human {id}"))
        wordings.append(wording(lang, "google-translation", f"{lang} machine {id}"))
    wordings[0]["topic_narrative"] = f"N{id}"
    return {"topic_id": id, "languages_with_qrels": list(meant), "topics": wordings, **more}


@case()
def neuclir(root: Path) -> Written:
    """The organisers' files of NeuCLIR 2022 and 2023 as people have them, two documents a language."""
    for lang, when in (("zho", "time"), ("fas", "date"), ("rus", "time")):
        docs = [
            {"id": f"{lang}-{n}", "cc_file": "cc", when: "2020-01-01", "title": f"{lang} title", "text": f"text {n}", "url": "u"}
            for n in (1, 2)
        ]  # fmt: skip
        put(root / lang / ("docs.jsonl.gz" if lang == "rus" else "docs.jsonl"), *docs)
    topics = put(root / "topics.0720.utf8.jsonl", topic("1", "zho", "fas", "rus"), topic("2", "rus"))
    qrels = put(root / "2022-qrels.all", "1 zho zho-1 3", "1 fas fas-1 1", "1 fas fas-2 0", "2 rus rus-1 1")
    put(root / "neuclir-2023-topics.0605.jsonl", topic("200"), topic("201"))
    put(root / "qrels.final.gains", "200 0 zho-1 3", "200 0 fas-2 1", "201 0 rus-1 0")
    put(root / "qrels.final.gains.zho", "200 0 zho-1 3", "200 0 zho-2 0")
    put(root / "qrels.final.gains.fas", "200 0 fas-2 1")
    put(root / "qrels.final.gains.rus", "201 0 rus-1 0")
    return Written(f"neuclir:{root}?year=2022&sample=true", root / "fas/docs.jsonl", topics, qrels)


@case()
def neuclir_technical(root: Path) -> Written:
    record = {"doc_id": "csl-1", "title": "题", "abstract": "摘要", "keywords": ["词"], "category": "工学",
              "category_eng": "Engineering", "discipline": "x", "discipline_eng": "y"}  # fmt: skip
    docs = put(root / "csl_data.release.jsonl.gz", record)
    topics = put(root / "neuclir-2023-technical_topics.0719.jsonl", topic("400"))
    qrels = put(root / "tech_final_qrels.txt", "400 0 csl-1 3")
    return Written(f"neuclir:{root}?year=2023&task=technical", docs, topics, qrels)


@case()
def hc4(root: Path) -> Written:
    narratives = {
        lang: {"very_valuable": f"V {lang}", "somewhat_valuable": "N/A", "not_that_valuable": "x", "non_relevant": "x"}
        for lang in ("zho", "fas")
    }  # fmt: skip
    docs = put(root / "zho/hc4_docs.jsonl", {"id": "d1", "title": "题", "text": "文", "date": "2019-01-02"})
    topics = put(root / "resources/hc4/dev.topics.v1-0.jsonl", topic("1", "zho", "fas", narratives=narratives))
    qrels = put(root / "resources/hc4/zho/dev.qrels.v1-0.txt", "1 0 d1 3")
    return Written(f"hc4:{root}?lang=zho&split=dev&sample=true", docs, topics, qrels)


@case()
def hc3(root: Path) -> Written:
    doc = {"id": "798750624720375813", "title": "", "text": "سلام\n", "tweets": [{"tweetid": "1"}], "numtweets": 1,
           "date": "2016-11-16"}  # fmt: skip
    docs = put(root / "downloads/fas.docs.jsonl", doc)
    bare = topic("4", "fas", narratives={"fas": {"very_valuable": "V", "somewhat_valuable": "NA"}})
    del bare["topics"][0]["topic_narrative"]
    topics = put(root / "resources/eval.topics.jsonl", bare)
    judged = ("4 0 798750624720375813 1", "4 0 1043591384291319814 0")
    qrels = put(root / "resources/fas.eval.qrels", *judged)
    return Written(f"hc3:{root}?lang=fas&sample=true", docs, topics, qrels)


# Passages.


@case()
def miracl(root: Path) -> Written:
    for number in (0, 2, 10):
        passage = {"docid": f"{number}#0", "title": f"T{number}", "text": "passage"}
        docs = put(root / f"miracl-corpus/miracl-corpus-v1.0-yo/docs-{number}.jsonl.gz", passage)
    folder = root / "miracl/miracl-v1.0-yo"
    topics = put(folder / "topics/topics.miracl-v1.0-yo-dev.tsv", "3\tKí ni orúkọ?", "")
    put(folder / "topics/topics.miracl-v1.0-yo-test-a.tsv", "9\tta\tni")
    qrels = put(folder / "qrels/qrels.miracl-v1.0-yo-dev.tsv", "3\tQ0\t2#0\t1", "3\tQ0\t10#0\t0")
    return Written(f"miracl:{root}?lang=yo", docs, topics, qrels)


@case()
def ciral(root: Path) -> Written:
    passage = {"docid": "DT#1", "title": "Kanun", "text": "Labari", "url": "http://example.org"}
    docs = put(root / "ciral-corpus/passages-v1.0/hausa_passages.jsonl", passage)
    put(root / "ciral-corpus/translated-passages-v1.0/hausa_passages.jsonl", passage | {"text": "News"})
    folder = root / "ciral/ciral-hausa"
    topics = put(folder / "topics/topics.ciral-v1.0-ha-test-a.tsv", "7\tWho is the emir?")
    qrels = put(folder / "qrels/qrels.ciral-v1.0-ha-test-a.tsv", "7 Q0 DT#1 1")
    put(folder / "qrels/qrels.ciral-v1.0-ha-test-a-pools.tsv", "7 Q0 DT#1 0")
    return Written(f"ciral:{root}?lang=hausa&sample=true", docs, topics, qrels)


@case(lines=False)
def bright(root: Path) -> Written:
    put_parquet(root / "documents/biology-00000-of-00001.parquet", {"id": "a/b_1.txt", "content": "Insects"},
                {"id": "empty", "content": ""})  # fmt: skip
    put_parquet(root / "long_documents/biology-00000-of-00001.parquet", {"id": "a/b.txt", "content": "Long"})
    example = {"query": "Why light?", "reasoning": "r", "id": "0", "excluded_ids": ["N/A"], "gold_ids_long": ["a/b.txt"],
               "gold_ids": ["a/b_1.txt"], "gold_answer": "x"}  # fmt: skip
    excluding = example | {"id": "1", "excluded_ids": ["a/b_1.txt"], "gold_ids": []}
    put_parquet(root / "examples/biology-00000-of-00001.parquet", example, excluding)
    return Written(f"bright:{root}?domain=biology")


@case(lines=False)
def browsecomp(root: Path) -> Written:
    page = {"docid": "5", "text": "Page", "url": "http://x"}
    put_parquet(root / "corpus/data/train-00000-of-00001.parquet", page)
    topics = put(root / "topics-qrels/queries.tsv", "769\tWhich institution?")
    qrels = put(root / "topics-qrels/qrel_evidence.txt", "769 Q0 5 1")
    put(root / "topics-qrels/qrel_golds.txt", "769 Q0 5 0")
    return Written(f"browsecomp-plus:{root}", None, topics, qrels)


def answer(kind: str, text: str | None, *aliases: str, **more: str) -> dict[str, Any]:
    # The publisher leaves `aliases` out where there are none, and text is null where nothing answers.
    return {"type": kind, "text": text, **more} | ({"aliases": list(aliases)} if aliases else {})


def question(
    id: int, what: str, english: list[dict[str, Any]], chinese: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    queries = {"en": what, "fr": f"{what} (fr)", "zh_cn": f"{what} 简", "zh_tw": f"{what} 繁"}
    answers = {"en": english, "fr": english, "zh_cn": chinese or english, "zh_tw": chinese or english}
    return {"example_id": id, "queries": queries, "query": what, "answers": answers}


@case()
def mkqa(root: Path) -> Written:
    put(
        root / "dataset" / "mkqa.jsonl.gz",
        question(563, "who sings it", [answer("entity", "Dave Edmunds", "D. Edmunds", entity="Q545186")],
                 [answer("entity", "戴维·埃德蒙兹 ", entity="Q545186")]),
        question(-71, "when was it", [answer("date", "1970", "year 1970")]),
        question(3, "why", [answer("long_answer", None)]),
        question(4, "is it so", [answer("binary", "yes")]),
        question(5, "who is nobody", [answer("unanswerable", None)]),
        question(6, "how long", [answer("number_with_unit", "3 minutes"), answer("number_with_unit", "180.0 second")]),
    )  # fmt: skip
    docs = put(
        root / "passages.jsonl",
        {"id": "p1", "title": "A song", "text": "Recorded in 1970 by DAVE\nEdmunds himself."},
        {"id": "p2", "title": "Dave Edmunds", "text": "He made it in 19701, in 3-minutes."},
        {"id": "p3", "title": "", "text": "Nothing of that, and 180.0 seconds."},
        {"id": "p4", "text": "It lasts 180.0 second; D. Edmunds!"},
    )
    return Written(f"mkqa:{root}?lang=fr&docs=passages.jsonl&sample=true", docs)


def article(id: int, lang: str, title: str, content: str, **more: str) -> dict[str, Any]:
    row = {"q_id": id, "original_lang": lang, "title": title, "url": f"https://{lang}/{id}", "content": content}
    row |= {"question": f"{title}? ({lang})", "answer": "x"}
    for code in ("de", "en", "es", "fr", "he", "hi", "id", "it", "ja", "ko", "pt", "zh"):
        row |= {f"{code}_q": f"{title}? ({code})", f"{code}_a": "x", f"{code}_c": content}
    return row | more


@case()
def eclektic(root: Path) -> Written:
    docs = put(
        root / "eclektic_main.jsonl",
        article(33, "en", "AFN Bremerhaven", "A radio station."),
        article(34, "id", "Prasasti", "Sebuah prasasti."),
        article(35, "en", "AFN Bremerhaven", "A radio station.", question="another one?"),
    )
    return Written(f"eclektic:{root}?sample=true", docs)


# Pictures.


@case(lines=False)
def xm3600(root: Path) -> Written:
    def caption(*texts: str) -> dict[str, list[str]]:
        return {"caption": list(texts), "caption/tokenized": ["x"], "caption/tokenized/lowercase": ["x"]}

    keys = ("000411001ff7dd4f", "0004886b7d043cfd")
    put(root / "captions.jsonl",
        {"image/key": keys[0], "image/locale": "bn", "en": caption("a cat", "one cat"), "zh": caption("猫")},
        {"image/key": keys[1], "image/locale": "de", "en": caption("a dog"), "zh": caption("狗")})  # fmt: skip
    for key in keys:
        put_picture(root / "images" / f"{key}.jpg")
    return Written(f"xm3600:{root}?lang=zh,en&sample=true")


@case(lines=False)
def xm3600_pictures(root: Path) -> Written:
    return Written(f"{xm3600(root).name}&direction=image-to-text")


@case(lines=False)
def xtd10(root: Path) -> Written:
    names = ("COCO_val2014_000000436141.jpg", "COCO_train2014_000000000001.jpg")
    put(root / "XTD10/test_image_names.txt", *names)
    put(root / "XTD10/test_1kcaptions_it.txt", "Due treni", "Un gatto")
    put(root / "STAIR/test_1kcaptions_jp.txt", "電車", "猫")
    for folder, name in zip(("val2014", "train2014"), names, strict=True):
        put_picture(root / folder / name)
    return Written(f"xtd10:{root}?lang=it&sample=true")


def vidore_rows(dash: str, **page: object) -> dict[str, list[dict[str, Any]]]:
    key, query = f"corpus{dash}id", f"query{dash}id"
    return {
        "corpus": [{key: 0, "image": {"bytes": picture(), "path": None}, **page},
                   {key: 1, "image": {"bytes": picture("blue"), "path": None}, **page}],
        "queries": [{query: 0, "query": "What grew?", "language": "english"},
                    {query: 1, "query": "Qu'est-ce qui a crû?", "language": "french"}],
        "qrels": [{query: 0, key: 1, "score": 2}, {query: 1, key: 1, "score": 1}],
    }  # fmt: skip


@case(lines=False)
def vidore(root: Path) -> Written:
    for folder, rows in vidore_rows("-", **{"doc-id": "r"}).items():
        put_parquet(root / folder / "test-00000-of-00001.parquet", *rows)
    return Written(f"vidore:{root}")


@case(lines=False)
def vidore_3(root: Path) -> Written:
    page = {"doc_id": "r", "markdown": "# Growth", "page_number_in_doc": 3}
    for folder, rows in vidore_rows("_", **page).items():
        put_parquet(root / folder / "test-00000-of-00001.parquet", *rows)
    return Written(f"vidore:{root}?text=true")


@case()
def mbeir(root: Path) -> Written:
    query = {"qid": "9:6", "query_txt": None, "query_img_path": "mbeir_images/a.jpg", "query_modality": "image",
             "query_src_content": None, "pos_cand_list": ["9:2"], "neg_cand_list": [], "task_id": 3}  # fmt: skip
    topics = put(root / "query/test/mbeir_mscoco_task3_test.jsonl", query)
    text = {"did": "9:2", "txt": "A train", "img_path": None, "modality": "text", "src_content": None}
    both = {"did": "9:3", "txt": "A cat", "img_path": "mbeir_images/a.jpg", "modality": "image,text"}
    docs = put(root / "cand_pool/local/mbeir_mscoco_task3_test_cand_pool.jsonl", text, both)
    put(root / "cand_pool/global/mbeir_union_test_cand_pool.jsonl", text, both, text | {"did": "0:1"})
    qrels = put(root / "qrels/test/mbeir_mscoco_task3_test_qrels.txt", "9:6 0 9:2 1 3")
    put_picture(root / "mbeir_images/a.jpg")
    return Written(f"mbeir:{root}?task=mscoco_task3", docs, topics, qrels)


# Built in, of another package, and from outside.


@case(lines=False)
def demo(root: Path) -> Written:
    return Written("demo")


class FakeDataset:
    """What crosslens uses of an ir_datasets dataset, with NeuCLIR's field names."""

    Doc = namedtuple("Doc", "doc_id title text url")
    Query = namedtuple("Query", "query_id title description ht_title ht_description translation_lang")
    Qrel = namedtuple("Qrel", "query_id doc_id relevance iteration")
    count = 2

    def docs_iter(self) -> Any:
        return iter([self.Doc("d1", "T", "text one", "u"), self.Doc("d2", "", "text two", "u")])

    def queries_iter(self) -> Any:
        return iter([self.Query("q1", "Et", "Ed", "Zt", "Zd", "zh")])

    def qrels_iter(self) -> Any:
        return iter([self.Qrel("q1", "d2", 3, "0")])

    def queries_cls(self) -> Any:
        return self.Query

    def docs_count(self) -> int:
        return self.count

    def docs_lang(self) -> str:
        return "zh"

    def queries_lang(self) -> None:
        return None

    def has_docs(self) -> bool:
        return True

    has_queries = has_qrels = has_docs


def install_ir_datasets(monkeypatch: Any) -> FakeDataset:
    """A fake of the package with the one data set `neuclir/1/zh`."""
    dataset = FakeDataset()
    fake = types.SimpleNamespace(load={"neuclir/1/zh": dataset}.__getitem__)
    monkeypatch.setitem(sys.modules, "ir_datasets", fake)
    return dataset


@case(lines=False)
def irds(root: Path) -> Written:
    return Written("irds:neuclir/1/zh")


OUTSIDE = '''
from pathlib import Path
from crosslens import Item
from crosslens.multilingual.collections.base import check_collection

class Lines:
    """A document a line of WHERE; each is asked for with its own words."""
    def __init__(self, where, *, lang: str = "eng"):
        self.name, self.langs, self.where, self.lang = f"lines-{lang}", frozenset([lang]), Path(where), lang

    def docs(self):
        for number, line in enumerate(self.where.read_text().splitlines()):
            yield Item(f"d{number}", line, lang=self.lang)

    def queries(self, *, fields=None, lang=None, source=None):
        from crosslens.multilingual.collections.topics import TopicReader
        found = [Item(f"q{doc.id}", doc.text, lang=self.lang) for doc in self.docs()]
        return TopicReader(fields, lang, source).select(found, f"{self.name} has no queries")

    def qrels(self):
        return {f"q{doc.id}": {doc.id: 1} for doc in self.docs()}

    def check(self):
        return check_collection(self, self.name)
'''


def install_lines(root: Path) -> Path:
    """A package with a collection, by module name and by entry point, to be put on `sys.path`."""
    site = root / "site"
    put(site / "my_lines.py", OUTSIDE)
    put(site / "my_lines-1.dist-info/METADATA", "Metadata-Version: 2.1", "Name: my-lines", "Version: 1")
    put(site / "my_lines-1.dist-info/entry_points.txt", "[crosslens.collections]", "lines = my_lines:Lines")
    return site


@case(lines=False)
def python_module(root: Path) -> Written:
    return Written(f"py:my_lines:Lines:{put(root / 'lines.txt', 'old bridge', 'new bridge')}")


@case(lines=False)
def entry_point(root: Path) -> Written:
    return Written(f"lines:{put(root / 'lines.txt', 'old bridge', 'new bridge')}?lang=eng")
