"""collections/track.py: NeuCLIR, HC4 and HC3 over files in the organisers' own layout."""

from __future__ import annotations

import json

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import MissingPart
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases

CASE = "neuclir"


def ids(items) -> list[str]:
    return [item.id for item in items]


def test_a_language_of_neuclir_2022_with_the_combined_qrels(root):
    collection = load_collection(f"neuclir:{root}?year=2022&lang=fas&sample=true")
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


def test_the_topics_of_2023_are_there_in_every_wording(root):
    collection = load_collection(f"neuclir:{root}?year=2023&lang=zh")
    (first, second) = collection.queries()
    assert (first.id, first.text, first.lang, second.id) == ("200", "T200\nT200 described", "eng", "201")
    assert collection.queries(fields="title+narrative")[0].text == "T200\nN200"
    assert collection.queries(lang="zho")[0].text.startswith("zho human 200")
    machine = collection.queries(lang="zho", source="machine", fields="title")
    assert [(q.text, q.lang) for q in machine] == [("zho machine 200", "zho"), ("zho machine 201", "zho")]
    assert collection.qrels() == {"200": {"zho-1": 3, "zho-2": 0}}
    with pytest.raises(InputError, match="no topics in spa"):
        collection.queries(lang="spa")


def test_mlir_is_one_collection_over_the_files_of_all_languages(root):
    for year in ("2022", "2023"):
        collection = load_collection(f"neuclir:{root}?year={year}&sample=true")
        assert collection.name == f"neuclir-{year}-mlir"
        assert ids(collection.docs()) == ["zho-1", "zho-2", "fas-1", "fas-2", "rus-1", "rus-2"]
        assert collection.check().langs == {"zho": 2, "fas": 2, "rus": 2}
        judged = {doc for grades in collection.qrels().values() for doc in grades}
        assert collection.judged_langs() == {doc: doc[:3] for doc in judged}
    assert collection.qrels() == {"200": {"zho-1": 3, "zho-2": 0, "fas-2": 1}, "201": {"rus-1": 0}}
    pair = load_collection(f"neuclir:{root}?year=2023&lang=rus,zho&sample=true")
    assert (pair.langs, ids(pair.docs())) == ({"zho", "rus"}, ["zho-1", "zho-2", "rus-1", "rus-2"])
    assert pair.qrels() == {"200": {"zho-1": 3, "zho-2": 0}, "201": {"rus-1": 0}}


def test_2024_is_found_by_the_year_in_its_names_or_named(root):
    cases.put(root / "neuclir-2024-topics.0614.jsonl", cases.topic("300", "zho", "fas", "rus"))
    cases.put(root / "my.qrels", "300 zho zho-2 1", "300 rus rus-2 3")
    collection = load_collection(f"neuclir:{root}?year=2024&lang=rus&qrels=my.qrels&sample=true")
    assert ids(collection.queries()) == ["300"]
    assert collection.qrels() == {"300": {"rus-2": 3}}
    cases.put(root / "2024" / "qrels.final.gains.rus", "300 0 rus-1 1")
    assert load_collection(f"neuclir:{root}?year=2024&lang=rus&sample=true").qrels() == {"300": {"rus-1": 1}}


def test_technical_documents_are_abstracts(refused, tmp_path):
    (doc,) = load_collection(cases.neuclir_technical(tmp_path).name).docs()
    assert (doc.id, doc.text, doc.lang, doc.meta["keywords"]) == ("csl-1", "题\n摘要", "zho", ["词"])
    refused(f"neuclir:{tmp_path}?year=2022&task=technical", "2022 had no technical documents")
    unknown = "unknown language of the collection 'rus'"
    refused(f"neuclir:{tmp_path}?year=2023&task=technical&lang=rus", unknown)


def test_what_is_wrong_with_a_track_is_said(refused, root):
    name = f"neuclir:{root}?year=2022"
    refused(f"{name}&lang=zho", "has 2 documents in zho, but 3,179,209 were published", "sample=true")
    refused(f"{name}&lang=deu", "unknown language of the collection 'deu'", "known: fas, mlir, rus, zho")
    refused(f"neuclir:{root}", "does not say which year")
    refused(f"neuclir:{root}?year=2021", "unknown value of year", "2022")
    refused(f"{name}&lnag=zho", "unknown option of neuclir 'lnag'; did you mean lang?")
    refused(f"neuclir:{root / 'no'}?year=2022", "does not exist", "zho/docs.jsonl")
    refused("neuclir?year=2022", "does not say where the files are")
    refused("nueclir:x?year=2022", "unknown kind of collection 'nueclir'; did you mean neuclir?")
    refused(f"{name}&lang=zho&qrels=none", "there is no file none", ask=lambda c: c.qrels())
    refused(f"{name}&docs=zho/docs.jsonl", "documents of one language only", ask=lambda c: list(c.docs()))
    cases.put(root / "topics.0720.utf8.jsonl", cases.topic("2", "rus"))
    refused(f"{name}&lang=zho", "no topic is meant for zho, only for rus", ask=lambda c: c.queries())
    (root / "qrels.final.gains.zho").unlink()
    refused(f"neuclir:{root}?year=2023&lang=zho", "column 2 does not say which", ask=lambda c: c.qrels())
    cases.put(root / "2022-qrels.all", "1 fas fas-1 3")
    refused(f"{name}&lang=zho", "has judgements in fas, none in zho", ask=lambda c: c.qrels())
    (root / "2022-qrels.all").unlink()
    with pytest.raises(MissingPart, match=r"no judgements for zho .*2022-qrels\.zho"):
        load_collection(f"{name}&lang=zho").qrels()


def test_a_sample_leaves_out_judgements_of_documents_that_it_lacks(root):
    cases.put(root / "2022-qrels.all", "1 zho zho-1 3", "1 zho gone 3", "2 zho lost 1")
    assert load_collection(f"neuclir:{root}?year=2022&lang=zho&sample=true").qrels() == {"1": {"zho-1": 3}}
    whole = load_collection(f"neuclir:{root}?year=2022&lang=zho")
    whole.published = {"zho": 2}
    with pytest.raises(InputError, match="judge documents that it does not have: gone, lost|judge topics"):
        whole.check()


def test_hc4(refused, tmp_path):
    written = cases.hc4(tmp_path)
    collection = load_collection(written.name)
    (query,) = collection.queries(fields="narrative")
    assert query.text == "N1"  # a wording's own narrative goes before
    bare = json.loads(written.topics.read_text("utf-8"))
    del bare["topics"][0]["topic_narrative"]
    cases.put(written.topics, bare)
    assert collection.queries(fields="narrative")[0].text == "V zho"
    refused(f"hc4:{tmp_path}?lang=zho&split=dev", "has 1 documents in zho, but 646,305 were published")


def test_hc3(refused, tmp_path):
    collection = load_collection(cases.hc3(tmp_path).name)
    (found,) = collection.docs()
    assert (found.text, found.meta) == ("سلام\n", {"numtweets": 1, "time": "2016-11-16"})
    assert collection.queries(fields="narrative")[0].text == "V"
    assert collection.check().judged == 1
    refused(f"hc3:{tmp_path}?lang=fas", "judge documents that it does not have: 1043591384291319814")
