"""collections/pictures.py: Crossmodal-3600 and XTD10, either side searched with the other; ViDoRe; M-BEIR."""

from __future__ import annotations

import shutil

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases


def ids(items) -> list[str]:
    return [item.id for item in items]


def test_crossmodal_3600_both_ways(refused, tmp_path):
    name = cases.xm3600(tmp_path).name
    collection = load_collection(name)
    assert collection.langs == {"zho", "eng"}
    first, second = collection.docs()
    key = "000411001ff7dd4f"
    assert (first.id, first.image, first.text) == (key, (tmp_path / f"images/{key}.jpg").resolve(), None)
    assert ids(collection.queries()) == [
        f"eng-{key}-0", f"eng-{key}-1", f"zho-{key}-0", "eng-0004886b7d043cfd-0", "zho-0004886b7d043cfd-0"
    ]  # fmt: skip
    assert [(q.text, q.lang) for q in collection.queries(lang="zho")] == [("猫", "zho"), ("狗", "zho")]
    assert collection.qrels()["zho-0004886b7d043cfd-0"] == {second.id: 1}
    back = load_collection(f"xm3600:{tmp_path}?lang=en&direction=image-to-text")
    assert [doc.text for doc in back.docs()] == ["a cat", "one cat", "a dog"]
    assert back.qrels()[first.id] == {f"eng-{key}-0": 1, f"eng-{key}-1": 1}
    refused(f"xm3600:{tmp_path}?lang=zh", "has 2 documents, but 3,600 were published")
    refused(f"xm3600:{tmp_path}?lang=fr", "unknown language of", "fra", "known: eng, zho")
    with pytest.raises(InputError, match="are pictures"):
        back.queries(lang="eng")
    cases.put(tmp_path / "captions.jsonl", {"image/key": key, "en": {"caption": ["a", 1]}})
    refused(f"xm3600:{tmp_path}?sample=true", "captions.jsonl:1: a caption must be text, not int")
    cases.put(tmp_path / "captions.jsonl")
    refused(name, "captions.jsonl is empty")


def test_a_caption_file_may_not_lead_out_of_its_directory(refused, tmp_path, tmp_path_factory):
    cases.xm3600(tmp_path)
    outside = cases.put_picture(tmp_path_factory.mktemp("outside") / "secret.jpg")
    (tmp_path / "images" / "linked.jpg").symlink_to(outside)
    for key in ("../../secret", "linked", f"{outside.with_suffix('')}"):
        record = {"image/key": key, "image/locale": "en", "en": {"caption": ["x"]}}
        cases.put(tmp_path / "captions.jsonl", record)
        refused(f"xm3600:{tmp_path}?lang=en&sample=true", "captions.jsonl:1:", "is not in images of")


def test_xtd10(refused, tmp_path):
    name = cases.xtd10(tmp_path).name
    collection = load_collection(name)
    assert [q.text for q in collection.queries()] == ["Due treni", "Un gatto"]
    assert collection.qrels()["ita-2"] == {"COCO_train2014_000000000001.jpg": 1}
    for lang in ("jp", "ja"):
        assert load_collection(f"xtd10:{tmp_path}?lang={lang}").queries()[0] == Item(
            "jpn-1", "電車", None, "jpn", {"picture": "COCO_val2014_000000436141.jpg"}
        )
    refused(f"xtd10:{tmp_path}?lang=it", "has 2 documents, but 1,000 were published")
    cases.put(tmp_path / "XTD10/test_1kcaptions_it.txt", "Due treni")
    refused(name, "has 1 lines", "has 2: they belong together")


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
    shutil.copytree(tmp_path / "cand_pool", tmp_path / "copy" / "cand_pool")  # two pools are not one
    shutil.move(tmp_path / "cand_pool", tmp_path / "other" / "cand_pool")
    refused(written.name, "could both be meant", ask=lambda collection: list(collection.docs()))
