"""`crosslens translate`: collections as translated files; killed, it goes on."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.rewriting.translation import Translate, Translated, load_translation
from crosslens.multilingual.rewriting.translation_files import translate_collection
from crosslens.multilingual.rewriting.translation_prompt import PromptedTranslator
from stand_ins.pipes import read_pipe
from stand_ins.writing import Saying, count_cats
from tiny.translators import lines

DOCS = [
    {"id": f"d{n}", "title": f"The cat {n}", "text": f"The cat sleeps {n} times. It hunts!", "lang": "eng", "url": f"http://x/{n}"}
    for n in range(40)
] + [
    {"id": "r", "text": "Кошка спит весь день.", "lang": "rus"},
    {"id": "s", "text": "12345", "lang": "eng", "date": "2020"},
]  # fmt: skip


@pytest.fixture
def collection(tmp_path) -> Path:
    where = tmp_path / "collection"
    where.mkdir()
    lines(where / "docs.jsonl", DOCS)
    lines(where / "topics.jsonl", [{"id": "t1", "text": "How long do cats sleep?", "lang": "eng", "note": "x"}])
    return where


def test_documents_become_a_collection_that_is_indexed(crosslens, collection, checkpoints, tmp_path):
    made = tmp_path / "russian"
    made.mkdir()
    arguments = ("translate", collection, "-o", made / "docs.jsonl", "--to", "ru", "--with", f"hf:{checkpoints('m2m')}", "--device", "cpu")  # fmt: skip
    status, out, err = crosslens(*arguments, "--json")
    assert status == 0, err
    report = json.loads(out)
    assert (report["lines"], report["resumed"], report["to"]) == (42, 0, "rus")
    assert report["counts"]["translated"] == 41
    assert report["counts"]["already"] == 1
    assert sorted(path.name for path in made.iterdir()) == ["docs.jsonl", "docs.jsonl.manifest.json"]
    manifest = json.loads((made / "docs.jsonl.manifest.json").read_text())
    assert manifest["models"] == report["models"]
    assert manifest["counts"] == report["counts"]
    records = [json.loads(line) for line in (made / "docs.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [record["id"] for record in DOCS]
    first = records[0]
    assert first["title"] != DOCS[0]["title"]
    assert first["text"] != DOCS[0]["text"]
    assert (first["lang"], first["source"], first["url"]) == ("rus", "eng", "http://x/0")
    assert records[40] == {**DOCS[40], "source": "rus"}
    assert (records[41]["text"], records[41]["time"]) == ("12345", "2020")
    # Title and text are each translated by themselves.
    translator = load_translation(f"hf:{checkpoints('m2m')}", to="rus", device="cpu").translator
    assert translator.translate([DOCS[0]["title"], DOCS[0]["text"]], ["eng"] * 2, "rus") == [
        first["title"],
        first["text"],
    ]
    read = list(load_collection(made).docs())
    assert {item.lang for item in read} == {"rus"}
    assert read[0].text == f"{first['title']}\n{first['text']}"
    status, out, err = crosslens("search", made, "x")
    assert status == 2
    index = create_index(tmp_path / "index", name="russian")
    assert index.add(read, []) == 42
    assert len(index) == 42
    index.build()
    found = index.retriever("lexical", 3)([Item("q", first["text"], lang="rus")])
    assert found["q"]
    # A finished file is gone on with: nothing is translated again.
    status, out, err = crosslens(*arguments, "--json")
    assert status == 0, err
    again = json.loads(out)
    assert (again["lines"], again["resumed"], again["counts"]) == (42, 42, report["counts"])
    status, out, err = crosslens(*arguments, "--with", f"hf:{checkpoints('m2m')}?beams=2")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "was made with other" in err


SLOW = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.rewriting import translation_files
from crosslens.multilingual.rewriting.translation import Translate
from crosslens.multilingual.rewriting.translation_prompt import PromptedTranslator
from stand_ins.writing import Saying, count_cats
translation_files.WINDOW = 2
stage = Translate(PromptedTranslator(Saying(lambda asked: time.sleep(0.03) or count_cats(asked))), "rus")
translation_files.translate_collection(load_collection(sys.argv[1]), sys.argv[2], stage)
"""


def test_a_killed_translation_goes_on_and_translates_nothing_twice(collection, tmp_path):
    source, output, partial = (
        load_collection(collection),
        tmp_path / "russian.jsonl",
        tmp_path / ".russian.jsonl.partial",
    )
    child = subprocess.Popen([sys.executable, "-c", SLOW, str(collection), str(output)], stderr=subprocess.PIPE)
    waited = time.monotonic()
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 4):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() - waited < 120
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not output.exists()
    kept = partial.read_bytes()
    there = kept.count(b"\n")
    assert 4 <= there < 42
    # Another translator or language than began it is refused, and nothing is touched.
    other = Saying(count_cats)
    other.fingerprint = "saying/1"
    for judge, to in ((Saying(count_cats), "zho"), (other, "rus")):
        with pytest.raises(InputError, match="was made with other"):
            translate_collection(source, output, Translate(PromptedTranslator(judge), to))
    assert partial.read_bytes() == kept
    # A line that the kill cut short, in the middle of a character.
    partial.write_bytes(kept + '{"id": "d39", "text": "к'.encode()[:-1])
    judge = Saying(count_cats)
    report = translate_collection(source, output, Translate(PromptedTranslator(judge), "rus"))
    assert (report.lines, report.resumed) == (42, there)
    assert not partial.exists()
    assert output.read_bytes().startswith(kept)
    whole = Saying(count_cats)
    translate_collection(source, tmp_path / "whole.jsonl", Translate(PromptedTranslator(whole), "rus"))
    assert (tmp_path / "whole.jsonl").read_bytes() == output.read_bytes()
    assert judge.usage["calls"] <= whole.usage["calls"] - 2 * there  # titles and texts


def test_what_is_there_is_never_translated_again(collection, tmp_path):
    judge = Saying(lambda asked: "Кот")
    made = Translate(PromptedTranslator(judge), "rus")
    output = tmp_path / "russian.jsonl"
    source = load_collection(collection)
    told = []
    translate_collection(source, output, made, progress=told.append)
    assert told == [42]
    asked = judge.usage["calls"]
    lines(collection / "docs.jsonl", [*DOCS, {"id": "new", "text": "A cat", "lang": "eng"}])
    report = translate_collection(source, output, made)
    assert (report.lines, report.resumed) == (43, 42)
    assert judge.usage["calls"] == asked + 1
    assert report.counts["calls"] == asked + 1  # over both sessions
    assert json.loads(output.read_text().splitlines()[-1])["id"] == "new"


def test_files_of_others_are_left_alone(collection, tmp_path, monkeypatch):
    made = Translate(PromptedTranslator(Saying(lambda _: "Кот")), "rus")
    source = load_collection(collection)
    with pytest.raises(InputError, match="is there already, and nothing says what made it"):
        translate_collection(source, collection / "docs.jsonl", made)
    assert len((collection / "docs.jsonl").read_text().splitlines()) == 42
    for path, complaint in ((tmp_path / "x.jsonl.gz", "without .gz"), (tmp_path / "no" / "x.jsonl", "no directory")):
        with pytest.raises(InputError, match=complaint):
            translate_collection(source, path, made)
    with pytest.raises(InputError, match="documents have no fields"):
        translate_collection(source, tmp_path / "x.jsonl", made, fields="title")
    with pytest.raises(InputError, match="unknown kind of texts 'docs'"):
        translate_collection(source, tmp_path / "x.jsonl", made, what="docs")
    assert not list(tmp_path.glob("*x.jsonl*"))


def test_streams_and_links_get_the_translation(collection, tmp_path):
    made = Translate(PromptedTranslator(Saying(lambda _: "Кот")), "rus")
    source = load_collection(collection)
    wait = read_pipe(tmp_path / "pipe")
    translate_collection(source, tmp_path / "pipe", made)
    there = {each.name for each in tmp_path.iterdir()}
    assert "pipe" in there
    assert not [name for name in there if name.startswith((".", "pipe."))]
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/russian.jsonl")
    translate_collection(source, tmp_path / "link", made)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "russian.jsonl").read_bytes() == wait()
    assert len(list((tmp_path / "far").iterdir())) == 1
    # A finished one is gone on with behind the link, too.
    lines(collection / "docs.jsonl", [*DOCS, {"id": "new", "text": "A cat", "lang": "eng"}])
    report = translate_collection(source, tmp_path / "link", made)
    assert (report.lines, report.resumed) == (43, 42)
    assert (tmp_path / "link").is_symlink()


def test_topics_become_flat_topics(crosslens, collection, checkpoints, tmp_path):
    output = tmp_path / "topics.jsonl"
    status, out, err = crosslens("translate", collection, "-o", output, "--to", "zho", "--what", "queries", "--with", f"translate@hf:{checkpoints('nllb')}", "--device", "cpu")  # fmt: skip
    assert status == 0, err
    assert out.startswith(f"{output}: 1 queries (1 new, 1 translated into zho)")
    (record,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert set(record) == {"id", "text", "lang", "source", "note"}
    assert (record["id"], record["lang"], record["source"]) == ("t1", "zho", "eng")
    # The file is also one of translations.
    done = Translated(output)(load_collection(collection).queries())
    assert done.queries[0].text == record["text"].strip()


def test_pictures_and_what_is_odd_are_kept_or_counted(tmp_path):
    from PIL import Image

    where = tmp_path / "collection"
    where.mkdir()
    Image.new("RGB", (8, 8)).save(where / "a.png")
    lines(
        where / "docs.jsonl",
        [
            {"id": "a", "text": "cat", "image": "a.png", "lang": "eng", "source": "web"},
            {"id": "b", "image": "a.png"},
            {"id": "c", "title": "The cat", "lang": "eng"},
        ],
    )
    made = Translate(PromptedTranslator(Saying(lambda _: "Кот")), "rus")
    inside = translate_collection(load_collection(where), where / "russian.jsonl", made)
    records = [json.loads(line) for line in inside.output.read_text().splitlines()]
    assert records == [
        {"id": "a", "text": "Кот", "image": "a.png", "lang": "rus", "source": "eng"},
        {"id": "b", "image": "a.png"},
        {"id": "c", "text": "Кот", "lang": "rus", "source": "eng"},
    ]
    assert inside.counts["source_replaced"] == 1
    (tmp_path / "other").mkdir()
    outside = translate_collection(load_collection(where), tmp_path / "other" / "russian.jsonl", made)
    assert [json.loads(line)["id"] for line in outside.output.read_text().splitlines()] == ["a", "c"]
    assert outside.counts["without_picture"] == outside.counts["left_out"] == 1
    assert any("lost their picture" in note for note in outside.notes)


def test_windows_hold_about_what_the_translator_likes():
    from crosslens.items import SeenIds
    from crosslens.multilingual.rewriting.translation_files import WINDOW, batch_items

    items = [Item(str(n), "x" * 100) for n in range(1000)]
    sizes = [len(window) for window in batch_items(items, SeenIds(), 1000)]
    assert sizes == [10] * 100
    assert max(len(window) for window in batch_items(items, SeenIds(), 1 << 20)) == WINDOW
    assert sum(len(window) for window in batch_items([*items, *items], SeenIds(), math.inf)) == 1000
