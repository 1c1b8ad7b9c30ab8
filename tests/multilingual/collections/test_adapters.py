"""adapters/: each family over files in its publisher's own layout and format, written here; nothing is downloaded."""

from __future__ import annotations

import gzip
import io
import json
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections import registry
from crosslens.multilingual.collections.base import Collection, MissingPart
from crosslens.multilingual.collections.files import DatasetFiles, read_parquet, read_table
from crosslens.multilingual.collections.registry import load_collection
from PIL import Image


def put(path: Path, *rows: object) -> Path:
    """JSON lines (gzipped if named so) from records, or the text given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def table(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def picture(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(out, "JPEG")
    return out.getvalue()


def ids(items) -> list[str]:
    return [item.id for item in items]


def refused(name: str, *parts: str, ask=lambda collection: collection.check()) -> None:
    with pytest.raises(InputError) as error:
        ask(load_collection(name))
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


# NeuCLIR, HC4, HC3


def wording(lang: str, source: str, title: str) -> dict:
    return {"lang": lang, "source": source, "topic_title": title, "topic_description": f"{title} described"}


def topic(id: str, *meant: str, **more: object) -> dict:
    wordings = [wording("eng", "original", f"T{id}")]
    for lang in ("zho", "fas", "rus"):
        wordings.append(wording(lang, "human translation", f"{lang} human {id}"))
        wordings.append(wording(lang, "google-translation", f"{lang} machine {id}"))
    wordings[0]["topic_narrative"] = f"N{id}"
    return {"topic_id": id, "languages_with_qrels": list(meant), "topics": wordings, **more}


@pytest.fixture
def track(tmp_path: Path) -> Path:
    """The organisers' files of NeuCLIR 2022 and 2023 as people have them, two documents a language."""
    for lang, when in (("zho", "time"), ("fas", "date"), ("rus", "time")):
        docs = [
            {"id": f"{lang}-{n}", "cc_file": "cc", when: "2020-01-01", "title": f"{lang} title", "text": f"text {n}", "url": "u"}
            for n in (1, 2)
        ]  # fmt: skip
        put(tmp_path / lang / ("docs.jsonl.gz" if lang == "rus" else "docs.jsonl"), *docs)
    put(tmp_path / "topics.0720.utf8.jsonl", topic("1", "zho", "fas", "rus"), topic("2", "rus"))
    combined = ["1 zho zho-1 3", "1 fas fas-1 1", "1 fas fas-2 0", "2 rus rus-1 1"]
    put(tmp_path / "2022-qrels.all", *combined)
    put(tmp_path / "neuclir-2023-topics.0605.jsonl", topic("200"), topic("201"))
    put(tmp_path / "qrels.final.gains", "200 0 zho-1 3", "200 0 fas-2 1", "201 0 rus-1 0")
    put(tmp_path / "qrels.final.gains.zho", "200 0 zho-1 3", "200 0 zho-2 0")
    put(tmp_path / "qrels.final.gains.fas", "200 0 fas-2 1")
    put(tmp_path / "qrels.final.gains.rus", "201 0 rus-1 0")
    return tmp_path


def test_a_language_of_neuclir_2022_with_the_combined_qrels(track):
    collection = load_collection(f"neuclir:{track}?year=2022&lang=fas&sample=true")
    assert isinstance(collection, Collection)
    assert (collection.name, collection.langs) == ("neuclir-2022-fas", {"fas"})
    first, _ = collection.docs()
    assert first == Item(
        "fas-1", "fas title\ntext 1", None, "fas", {"cc_file": "cc", "title": "fas title", "url": "u", "time": "2020-01-01"}
    )  # fmt: skip
    assert ids(collection.queries()) == ["1"]  # topic 2 is meant for Russian only
    assert collection.qrels() == {"1": {"fas-1": 1, "fas-2": 0}}
    assert collection.judged_langs() == {"fas-1": "fas", "fas-2": "fas"}
    counts = collection.check()
    assert (counts.documents, counts.langs, counts.queries, counts.judged) == (2, {"fas": 2}, 1, 2)


def test_the_topics_of_2023_are_there_in_every_wording(track):
    collection = load_collection(f"neuclir:{track}?year=2023&lang=zh")
    (first, second) = collection.queries()
    assert (first.id, first.text, first.lang, second.id) == ("200", "T200\nT200 described", "eng", "201")
    assert collection.queries(fields="title+narrative")[0].text == "T200\nN200"
    assert collection.queries(lang="zho")[0].text.startswith("zho human 200")
    machine = collection.queries(lang="zho", source="machine", fields="title")
    assert [(q.text, q.lang) for q in machine] == [("zho machine 200", "zho"), ("zho machine 201", "zho")]
    assert collection.qrels() == {"200": {"zho-1": 3, "zho-2": 0}}
    with pytest.raises(InputError, match="no topics in spa"):
        collection.queries(lang="spa")


def test_mlir_is_one_collection_over_the_files_of_all_languages(track):
    for year in ("2022", "2023"):
        collection = load_collection(f"neuclir:{track}?year={year}&sample=true")
        assert collection.name == f"neuclir-{year}-mlir"
        assert ids(collection.docs()) == ["zho-1", "zho-2", "fas-1", "fas-2", "rus-1", "rus-2"]
        assert collection.check().langs == {"zho": 2, "fas": 2, "rus": 2}
        judged = {doc for grades in collection.qrels().values() for doc in grades}
        assert collection.judged_langs() == {doc: doc[:3] for doc in judged}
    assert collection.qrels() == {"200": {"zho-1": 3, "zho-2": 0, "fas-2": 1}, "201": {"rus-1": 0}}
    pair = load_collection(f"neuclir:{track}?year=2023&lang=rus,zho&sample=true")
    assert (pair.langs, ids(pair.docs())) == ({"zho", "rus"}, ["zho-1", "zho-2", "rus-1", "rus-2"])
    assert pair.qrels() == {"200": {"zho-1": 3, "zho-2": 0}, "201": {"rus-1": 0}}


def test_2024_is_found_by_the_year_in_its_names_or_named(track):
    put(track / "neuclir-2024-topics.0614.jsonl", topic("300", "zho", "fas", "rus"))
    put(track / "my.qrels", "300 zho zho-2 1", "300 rus rus-2 3")
    collection = load_collection(f"neuclir:{track}?year=2024&lang=rus&qrels=my.qrels&sample=true")
    assert ids(collection.queries()) == ["300"]
    assert collection.qrels() == {"300": {"rus-2": 3}}
    put(track / "2024" / "qrels.final.gains.rus", "300 0 rus-1 1")
    assert load_collection(f"neuclir:{track}?year=2024&lang=rus&sample=true").qrels() == {"300": {"rus-1": 1}}


def test_technical_documents_are_abstracts(tmp_path):
    record = {"doc_id": "csl-1", "title": "题", "abstract": "摘要", "keywords": ["词"], "category": "工学",
              "category_eng": "Engineering", "discipline": "x", "discipline_eng": "y"}  # fmt: skip
    put(tmp_path / "csl_data.release.jsonl.gz", record)
    put(tmp_path / "neuclir-2023-technical_topics.0719.jsonl", topic("400"))
    put(tmp_path / "tech_final_qrels.txt", "400 0 csl-1 3")
    collection = load_collection(f"neuclir:{tmp_path}?year=2023&task=technical")
    (doc,) = collection.docs()
    assert (doc.id, doc.text, doc.lang, doc.meta["keywords"]) == ("csl-1", "题\n摘要", "zho", ["词"])
    assert collection.check().judged == 1
    refused(f"neuclir:{tmp_path}?year=2022&task=technical", "2022 had no technical documents")
    refused(
        f"neuclir:{tmp_path}?year=2023&task=technical&lang=rus", "unknown language of the collection 'rus'"
    )


def test_what_is_wrong_with_a_track_is_said(track):
    name = f"neuclir:{track}?year=2022"
    refused(f"{name}&lang=zho", "has 2 documents in zho, but 3,179,209 were published", "sample=true")
    refused(f"{name}&lang=deu", "unknown language of the collection 'deu'", "known: fas, mlir, rus, zho")
    refused(f"neuclir:{track}", "does not say which year")
    refused(f"neuclir:{track}?year=2021", "unknown value of year", "2022")
    refused(f"{name}&lnag=zho", "unknown option of neuclir 'lnag'; did you mean lang?")
    refused(f"neuclir:{track / 'no'}?year=2022", "does not exist", "zho/docs.jsonl")
    refused("neuclir?year=2022", "does not say where the files are")
    refused("nueclir:x?year=2022", "unknown kind of collection 'nueclir'; did you mean neuclir?")
    refused(f"{name}&lang=zho&qrels=none", "there is no file none", ask=lambda c: c.qrels())
    refused(f"{name}&docs=zho/docs.jsonl", "documents of one language only", ask=lambda c: list(c.docs()))
    put(track / "topics.0720.utf8.jsonl", topic("2", "rus"))
    refused(f"{name}&lang=zho", "no topic is meant for zho, only for rus", ask=lambda c: c.queries())
    (track / "qrels.final.gains.zho").unlink()
    refused(f"neuclir:{track}?year=2023&lang=zho", "column 2 does not say which", ask=lambda c: c.qrels())
    put(track / "2022-qrels.all", "1 fas fas-1 3")
    refused(f"{name}&lang=zho", "has judgements in fas, none in zho", ask=lambda c: c.qrels())
    (track / "2022-qrels.all").unlink()
    with pytest.raises(MissingPart, match=r"no judgements for zho .*2022-qrels\.zho"):
        load_collection(f"{name}&lang=zho").qrels()
    put(track / "zho" / "docs.jsonl", {"id": "a", "text": "b"}, {"id": "a", "text": "c"})
    refused(
        f"{name}&lang=zho", "zho/docs.jsonl:2: the id 'a' occurs a second time", ask=lambda c: list(c.docs())
    )
    lenient = load_collection(f"{name}&lang=zho", skip_bad=True)
    assert ids(lenient.docs()) == ["a"]
    assert (lenient.skipped, len(lenient.problems)) == (1, 1)


def test_a_sample_leaves_out_judgements_of_documents_that_it_lacks(track):
    put(track / "2022-qrels.all", "1 zho zho-1 3", "1 zho gone 3", "2 zho lost 1")
    assert load_collection(f"neuclir:{track}?year=2022&lang=zho&sample=true").qrels() == {"1": {"zho-1": 3}}
    whole = load_collection(f"neuclir:{track}?year=2022&lang=zho")
    whole.published = {"zho": 2}
    with pytest.raises(InputError, match="judge documents that it does not have: gone, lost|judge topics"):
        whole.check()


def test_hc4(tmp_path):
    narratives = {
        lang: {"very_valuable": f"V {lang}", "somewhat_valuable": "N/A", "not_that_valuable": "x", "non_relevant": "x"}
        for lang in ("zho", "fas")
    }  # fmt: skip
    put(tmp_path / "resources/hc4/dev.topics.v1-0.jsonl", topic("1", "zho", "fas", narratives=narratives))
    put(tmp_path / "resources/hc4/zho/dev.qrels.v1-0.txt", "1 0 d1 3")
    put(tmp_path / "zho/hc4_docs.jsonl", {"id": "d1", "title": "题", "text": "文", "date": "2019-01-02"})
    collection = load_collection(f"hc4:{tmp_path}?lang=zho&split=dev&sample=true")
    assert collection.check().judged == 1
    (query,) = collection.queries(fields="narrative")
    assert query.text == "N1"  # a wording's own narrative goes before
    bare = topic("1", "zho", "fas", narratives=narratives)
    del bare["topics"][0]["topic_narrative"]
    put(tmp_path / "resources/hc4/dev.topics.v1-0.jsonl", bare)
    assert collection.queries(fields="narrative")[0].text == "V zho"
    refused(f"hc4:{tmp_path}?lang=zho&split=dev", "has 1 documents in zho, but 646,305 were published")


def test_hc3(tmp_path):
    doc = {"id": "798750624720375813", "title": "", "text": "سلام\n", "tweets": [{"tweetid": "1"}], "numtweets": 1,
           "date": "2016-11-16"}  # fmt: skip
    put(tmp_path / "downloads/fas.docs.jsonl", doc)
    narratives = {"fas": {"very_valuable": "V", "somewhat_valuable": "NA"}}
    bare = topic("4", "fas", narratives=narratives)
    del bare["topics"][0]["topic_narrative"]
    put(tmp_path / "resources/eval.topics.jsonl", bare)
    put(tmp_path / "resources/fas.eval.qrels", "4 0 798750624720375813 1", "4 0 1043591384291319814 0")
    collection = load_collection(f"hc3:{tmp_path}?lang=fas&sample=true")
    (found,) = collection.docs()
    assert (found.text, found.meta) == ("سلام\n", {"numtweets": 1, "time": "2016-11-16"})
    assert collection.queries(fields="narrative")[0].text == "V"
    assert collection.check().judged == 1
    refused(f"hc3:{tmp_path}?lang=fas", "judge documents that it does not have: 1043591384291319814")


# The others


@pytest.fixture
def miracl(tmp_path: Path) -> Path:
    for number in (0, 2, 10):
        passage = {"docid": f"{number}#0", "title": f"T{number}", "text": "passage"}
        put(tmp_path / f"miracl-corpus/miracl-corpus-v1.0-yo/docs-{number}.jsonl.gz", passage)
    put(tmp_path / "miracl/miracl-v1.0-yo/topics/topics.miracl-v1.0-yo-dev.tsv", "3\tKí ni orúkọ?", "")
    put(tmp_path / "miracl/miracl-v1.0-yo/topics/topics.miracl-v1.0-yo-test-a.tsv", "9\tta\tni")
    put(
        tmp_path / "miracl/miracl-v1.0-yo/qrels/qrels.miracl-v1.0-yo-dev.tsv",
        "3\tQ0\t2#0\t1",
        "3\tQ0\t10#0\t0",
    )
    return tmp_path


def test_miracl(miracl):
    collection = load_collection(f"miracl:{miracl}?lang=yo")
    assert ids(collection.docs()) == ["0#0", "2#0", "10#0"]
    assert next(collection.docs()) == Item("0#0", "T0\npassage", None, "yor", {"title": "T0"})
    assert collection.queries() == [Item("3", "Kí ni orúkọ?", None, "yor")]
    assert collection.qrels() == {"3": {"2#0": 1, "10#0": 0}}
    assert collection.check().documents == 3
    test = load_collection(f"miracl:{miracl}?lang=Yoruba&split=test-a")
    assert test.queries()[0].text == "ta\tni"
    assert test.check().judged == 0
    with pytest.raises(MissingPart, match="never published"):
        test.qrels()
    with pytest.raises(InputError, match="no fields"):
        collection.queries(fields="title")
    with pytest.raises(InputError, match="no queries in eng, only in yor"):
        collection.queries(lang="en")
    refused(f"miracl:{miracl}?lang=mt", "unknown language of MIRACL 'mt'")
    refused(
        f"miracl:{miracl}?lang=zh",
        "no file miracl-corpus-v1.0-zh/docs-*.jsonl.gz",
        ask=lambda c: list(c.docs()),
    )
    refused(f"miracl:{miracl}", "does not say which lang: write miracl:DIR?lang=zh")


def test_published_counts_hold_for_the_publishers_language(miracl):
    (miracl / "miracl-corpus/miracl-corpus-v1.0-yo").rename(miracl / "miracl-corpus/miracl-corpus-v1.0-sw")
    refused(f"miracl:{miracl}?lang=sw&split=test-a", "has 3 documents in swa, but 131,924 were published")


def test_ciral(tmp_path):
    passage = {"docid": "DT#1", "title": "Kanun", "text": "Labari", "url": "http://example.org"}
    put(tmp_path / "ciral-corpus/passages-v1.0/hausa_passages.jsonl", passage)
    put(tmp_path / "ciral-corpus/translated-passages-v1.0/hausa_passages.jsonl", passage | {"text": "News"})
    put(tmp_path / "ciral/ciral-hausa/topics/topics.ciral-v1.0-ha-test-a.tsv", "7\tWho is the emir?")
    put(tmp_path / "ciral/ciral-hausa/qrels/qrels.ciral-v1.0-ha-test-a.tsv", "7 Q0 DT#1 1")
    put(tmp_path / "ciral/ciral-hausa/qrels/qrels.ciral-v1.0-ha-test-a-pools.tsv", "7 Q0 DT#1 0")
    collection = load_collection(f"ciral:{tmp_path}?lang=hausa&sample=true")
    assert collection.check().langs == {"hau": 1}
    assert next(collection.docs()).meta == {"title": "Kanun", "url": "http://example.org"}
    assert collection.queries() == [Item("7", "Who is the emir?", None, "eng")]
    assert collection.qrels() == {"7": {"DT#1": 1}}
    assert load_collection(f"ciral:{tmp_path}?lang=ha&pools=true&sample=true").qrels() == {"7": {"DT#1": 0}}
    (translated,) = load_collection(f"ciral:{tmp_path}?lang=ha&translated=yes").docs()
    assert (translated.text, translated.lang) == ("Kanun\nNews", "eng")
    refused(f"ciral:{tmp_path}?lang=ha", "has 1 documents in hau, but 715,355 were published")
    refused(f"ciral:{tmp_path}?lang=ha&pools=true&split=dev", "pooled judgements for split=test-a only")
    refused(f"ciral:{tmp_path}?lang=en", "unknown language of CIRAL 'en'")


def test_bright(tmp_path):
    table(tmp_path / "documents/biology-00000-of-00001.parquet", {"id": "a/b_1.txt", "content": "Insects"},
          {"id": "empty", "content": ""})  # fmt: skip
    table(tmp_path / "long_documents/biology-00000-of-00001.parquet", {"id": "a/b.txt", "content": "Long"})
    example = {"query": "Why light?", "reasoning": "r", "id": "0", "excluded_ids": ["N/A"], "gold_ids_long": ["a/b.txt"],
               "gold_ids": ["a/b_1.txt"], "gold_answer": "x"}  # fmt: skip
    table(tmp_path / "examples/biology-00000-of-00001.parquet", example,
          example | {"id": "1", "excluded_ids": ["a/b_1.txt"], "gold_ids": []})  # fmt: skip
    collection = load_collection(f"bright:{tmp_path}?domain=biology")
    assert list(collection.docs()) == [Item("a/b_1.txt", "Insects", None, "eng")]
    assert collection.qrels() == {"0": {"a/b_1.txt": 1}}
    first, second = collection.queries()
    assert (first.text, first.meta, second.meta) == ("Why light?", {}, {"excluded_ids": ["a/b_1.txt"]})
    assert load_collection(f"bright:{tmp_path}?domain=biology&long=true").qrels()["0"] == {"a/b.txt": 1}
    refused(f"bright:{tmp_path}?domain=biologie", "unknown value of domain", "did you mean biology?")
    refused(f"bright:{tmp_path}?domain=pony", "no file documents/pony-*-of-*.parquet")
    (tmp_path / "documents/biology-00000-of-00001.parquet").write_bytes(b"PAR1 no PAR1")
    refused(f"bright:{tmp_path}?domain=biology", "cannot read", "after row 0")


def test_browsecomp_plus(tmp_path):
    table(
        tmp_path / "corpus/data/train-00000-of-00001.parquet",
        {"docid": "5", "text": "Page", "url": "http://x"},
    )
    put(tmp_path / "topics-qrels/queries.tsv", "769\tWhich institution?")
    put(tmp_path / "topics-qrels/qrel_evidence.txt", "769 Q0 5 1")
    put(tmp_path / "topics-qrels/qrel_golds.txt", "769 Q0 5 0")
    collection = load_collection(f"browsecomp-plus:{tmp_path}")
    assert list(collection.docs()) == [Item("5", "Page", None, None, {"url": "http://x"})]
    assert (ids(collection.queries()), collection.check().relevant) == (["769"], 1)
    assert load_collection(f"browsecomp-plus:{tmp_path}?judged=gold").qrels() == {"769": {"5": 0}}


@pytest.fixture
def xm3600(tmp_path: Path) -> Path:
    def caption(*texts: str) -> dict:
        return {"caption": list(texts), "caption/tokenized": ["x"], "caption/tokenized/lowercase": ["x"]}

    put(tmp_path / "captions.jsonl",
        {"image/key": "000411001ff7dd4f", "image/locale": "bn", "en": caption("a cat", "one cat"), "zh": caption("猫")},
        {"image/key": "0004886b7d043cfd", "image/locale": "de", "en": caption("a dog"), "zh": caption("狗")})  # fmt: skip
    (tmp_path / "images").mkdir()
    for key in ("000411001ff7dd4f", "0004886b7d043cfd"):
        (tmp_path / "images" / f"{key}.jpg").write_bytes(picture())
    return tmp_path


def test_crossmodal_3600_both_ways(xm3600):
    collection = load_collection(f"xm3600:{xm3600}?lang=zh,en&sample=true")
    assert collection.langs == {"zho", "eng"}
    first, second = collection.docs()
    assert (first.id, first.image, first.text) == (
        "000411001ff7dd4f", (xm3600 / "images/000411001ff7dd4f.jpg").resolve(), None
    )  # fmt: skip
    assert ids(collection.queries()) == [
        "eng-000411001ff7dd4f-0", "eng-000411001ff7dd4f-1", "zho-000411001ff7dd4f-0",
        "eng-0004886b7d043cfd-0", "zho-0004886b7d043cfd-0",
    ]  # fmt: skip
    assert [(q.text, q.lang) for q in collection.queries(lang="zho")] == [("猫", "zho"), ("狗", "zho")]
    assert collection.qrels()["zho-0004886b7d043cfd-0"] == {second.id: 1}
    assert collection.check().images == 2
    back = load_collection(f"xm3600:{xm3600}?lang=en&direction=image-to-text")
    assert [doc.text for doc in back.docs()] == ["a cat", "one cat", "a dog"]
    assert back.qrels()[first.id] == {"eng-000411001ff7dd4f-0": 1, "eng-000411001ff7dd4f-1": 1}
    assert back.check().documents == 3
    refused(f"xm3600:{xm3600}?lang=zh", "has 2 documents, but 3,600 were published")
    refused(f"xm3600:{xm3600}?lang=fr", "unknown language of", "fra", "known: eng, zho")
    with pytest.raises(InputError, match="are pictures"):
        back.queries(lang="eng")


def test_a_caption_file_may_not_lead_out_of_its_directory(xm3600, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    outside.write_bytes(picture())
    (xm3600 / "images" / "linked.jpg").symlink_to(outside)
    for key in ("../../secret", "linked", f"{outside.with_suffix('')}"):
        put(xm3600 / "captions.jsonl", {"image/key": key, "image/locale": "en", "en": {"caption": ["x"]}})
        refused(f"xm3600:{xm3600}?lang=en&sample=true", "captions.jsonl:1:", "is not in")


def test_xtd10(tmp_path):
    put(
        tmp_path / "XTD10/test_image_names.txt",
        "COCO_val2014_000000436141.jpg",
        "COCO_train2014_000000000001.jpg",
    )
    put(tmp_path / "XTD10/test_1kcaptions_it.txt", "Due treni", "Un gatto")
    put(tmp_path / "STAIR/test_1kcaptions_jp.txt", "電車", "猫")
    for folder, name in (
        ("val2014", "COCO_val2014_000000436141"),
        ("train2014", "COCO_train2014_000000000001"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.jpg").write_bytes(picture())
    collection = load_collection(f"xtd10:{tmp_path}?lang=it&sample=true")
    assert collection.check().images == 2
    assert [q.text for q in collection.queries()] == ["Due treni", "Un gatto"]
    assert collection.qrels()["ita-2"] == {"COCO_train2014_000000000001.jpg": 1}
    for name in ("jp", "ja"):
        assert load_collection(f"xtd10:{tmp_path}?lang={name}").queries()[0] == Item(
            "jpn-1", "電車", None, "jpn", {"picture": "COCO_val2014_000000436141.jpg"}
        )
    refused(f"xtd10:{tmp_path}?lang=it", "has 2 documents, but 1,000 were published")
    put(tmp_path / "XTD10/test_1kcaptions_it.txt", "Due treni")
    refused(f"xtd10:{tmp_path}?lang=it&sample=true", "has 1 lines", "has 2: they belong together")


def vidore_rows(dash: str, **page: object) -> dict[str, list[dict]]:
    key, query = f"corpus{dash}id", f"query{dash}id"
    return {
        "corpus": [{key: 0, "image": {"bytes": picture(), "path": None}, **page},
                   {key: 1, "image": {"bytes": picture("blue"), "path": None}, **page}],
        "queries": [{query: 0, "query": "What grew?", "language": "english"},
                    {query: 1, "query": "Qu'est-ce qui a crû?", "language": "french"}],
        "qrels": [{query: 0, key: 1, "score": 2}, {query: 1, key: 1, "score": 1}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dash", "page"),
    [("-", {"doc-id": "r"}), ("_", {"doc_id": "r", "markdown": "# Growth", "page_number_in_doc": 3})],
)
def test_vidore(tmp_path, dash, page):
    for folder, rows in vidore_rows(dash, **page).items():
        table(tmp_path / folder / "test-00000-of-00001.parquet", *rows)
    collection = load_collection(f"vidore:{tmp_path}")
    first, _ = collection.docs()
    assert (first.id, first.image, first.text, first.meta["doc_id"]) == ("0", picture(), None, "r")
    assert [(q.id, q.lang) for q in collection.queries()] == [("0", "eng"), ("1", "fra")]
    assert [q.id for q in collection.queries(lang="fr")] == ["1"]
    assert collection.qrels() == {"0": {"1": 2}, "1": {"1": 1}}
    assert collection.check().images == 2
    if "markdown" in page:
        assert next(load_collection(f"vidore:{tmp_path}?text=true").docs()).text == "# Growth"
    refused(f"vidore:{tmp_path}?split=dev", "no file corpus/dev-*.parquet")
    refused("vidore", "does not say where the files are")


@pytest.fixture
def mbeir(tmp_path: Path) -> Path:
    query = {"qid": "9:6", "query_txt": None, "query_img_path": "mbeir_images/a.jpg", "query_modality": "image",
             "query_src_content": None, "pos_cand_list": ["9:2"], "neg_cand_list": [], "task_id": 3}  # fmt: skip
    put(tmp_path / "query/test/mbeir_mscoco_task3_test.jsonl", query)
    text = {"did": "9:2", "txt": "A train", "img_path": None, "modality": "text", "src_content": None}
    both = {"did": "9:3", "txt": "A cat", "img_path": "mbeir_images/a.jpg", "modality": "image,text"}
    put(tmp_path / "cand_pool/local/mbeir_mscoco_task3_test_cand_pool.jsonl", text, both)
    put(tmp_path / "cand_pool/global/mbeir_union_test_cand_pool.jsonl", text, both, text | {"did": "0:1"})
    put(tmp_path / "qrels/test/mbeir_mscoco_task3_test_qrels.txt", "9:6 0 9:2 1 3")
    (tmp_path / "mbeir_images").mkdir()
    (tmp_path / "mbeir_images/a.jpg").write_bytes(picture())
    return tmp_path


def test_mbeir(mbeir):
    collection = load_collection(f"mbeir:{mbeir}?task=mscoco_task3")
    text, both = collection.docs()
    assert (text.modalities, both.modalities) == ({"text"}, {"text", "image"})
    assert collection.queries() == [Item("9:6", None, (mbeir / "mbeir_images/a.jpg").resolve(), None)]
    assert collection.qrels() == {"9:6": {"9:2": 1}}
    assert collection.check().images == 1
    assert len(list(load_collection(f"mbeir:{mbeir}?task=mscoco_task3&pool=global").docs())) == 3
    put(mbeir / "cand_pool/local/mbeir_mscoco_task3_test_cand_pool.jsonl",
        {"did": "9:2", "img_path": "../../etc/passwd"})  # fmt: skip
    refused(f"mbeir:{mbeir}?task=mscoco_task3", "cand_pool.jsonl:1:", "lies outside the collection")
    put(mbeir / "qrels/test/mbeir_mscoco_task3_test_qrels.txt", "9:6 0 9:2 1")
    refused(f"mbeir:{mbeir}?task=mscoco_task3", "qrels.txt:1: not `qid 0 did grade task` but 4 columns")
    refused("mbeir:TIGER-Lab/M-BEIR?task=mscoco_task3", "download it first")


def test_the_hub_is_asked_for_the_files_that_are_needed(miracl, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(repository, *, repo_type, allow_patterns):
        asked.append((repository, repo_type, allow_patterns))
        return str(miracl / repository.partition("/")[2])

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
        list(read_table(put(tmp_path / "a.tsv", "1\ttext", "alone"), ("id", "text")))
    rows = table(tmp_path / "a.parquet", *({"id": n} for n in range(200)))
    assert [row["id"] for _, row in read_parquet([rows], batch=7)] == list(range(200))
    assert [place for place, _ in read_parquet([rows])][1].endswith("a.parquet: row 2")
    put(tmp_path / "b" / "a.tsv")
    put(tmp_path / "b" / "b.tsv")
    with pytest.raises(InputError, match="could both be meant"):
        DatasetFiles(str(tmp_path)).get_one("b/*.tsv")
    with pytest.raises(InputError, match="is a file"):
        DatasetFiles(str(rows))


@pytest.mark.parametrize("family", sorted(registry.FAMILIES.keys() - {"demo", "irds"}))
def test_every_family_can_be_loaded_and_says_how_it_is_named(family):
    module, _, kind = registry.FAMILIES[family].partition(":")
    adapter = getattr(import_module(f"crosslens.{module}"), kind)
    assert f"{family}:" in adapter.usage
    assert adapter.__doc__
    assert f"`{family}" in adapter.__doc__
