"""Examples: what is written is read again, cards count and are held against their files, bad lines are named."""

from __future__ import annotations

import gzip
import json

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.examples import Example, load_examples, name_pairs, read_examples, write_examples
from stand_ins.small_collections import directory, picture, put
from stand_ins.table import table

QUERY = Item("q1", "bridge repair", lang="eng")
RUS, DEU, ENG = (
    Item("r1", "Ремонт моста", lang="rus"),
    Item("d1", "Die Brücke", lang="deu"),
    Item("e1", "A cat", lang="eng"),
)


def make_line(**changed):
    line = {
        "query": {"id": "q1", "text": "x"},
        "positives": [{"id": "a", "text": "x"}],
        "negatives": [{"id": "b", "text": "y"}],
    }
    return {key: each for key, each in (line | changed).items() if each is not None}


@pytest.mark.parametrize("name", ["few.jsonl", "few.jsonl.gz"])
def test_what_is_written_is_read_again_with_its_card(tmp_path, name):
    examples = [Example(QUERY, (RUS, DEU), (ENG,), (0.5, 1.0, -2.25)), Example(Item("q2", "кот"), (ENG,))]
    card = write_examples(tmp_path / name, iter(examples), {"collection": "news", "seed": 7})
    loaded = load_examples(str(tmp_path / name))
    assert list(read_examples(tmp_path / name)) == list(loaded) == list(loaded) == examples
    assert dict(loaded.card) == card == json.loads((tmp_path / f"{name}.card.json").read_text())
    assert card["pairs"] == {"eng-deu": 1, "eng-rus": 1, "?-eng": 1}
    assert (len(loaded), card["positives"], card["negatives"], card["scored"], loaded.judged) == (2, 3, 1, 1, "news")
    assert loaded.langs == {"eng", "rus", "deu"}
    assert card["source"]["seed"] == 7
    (tmp_path / f"{name}.card.json").unlink()
    recounted = load_examples(str(tmp_path / name)).card
    assert {**recounted, "sha256": 0, "source": 0} == {**card, "sha256": 0, "source": 0}


def test_a_file_that_differs_from_its_card_is_refused(tmp_path):
    path = tmp_path / "few.jsonl"
    write_examples(path, [Example(QUERY, (RUS,))], {})
    path.write_text(path.read_text().replace("bridge", "tunnel"))
    with pytest.raises(InputError, match="few.jsonl is not what few.jsonl.card.json describes"):
        load_examples(str(path))


def test_nothing_is_written_of_examples_that_fail(tmp_path):
    def fail():
        yield Example(QUERY, (RUS,))
        raise InputError("broken")

    with pytest.raises(InputError, match="broken"):
        write_examples(tmp_path / "few.jsonl", fail(), {})
    with pytest.raises(InputError, match="no examples to write"):
        write_examples(tmp_path / "few.jsonl", [], {})
    assert not list(tmp_path.iterdir())


def test_pictures_are_copied_once_and_those_in_the_folder_are_left_there(tmp_path):
    (tmp_path / "own.jpg").write_bytes(picture())
    bytes_ = Item("b", None, picture("blue"))
    examples = [Example(QUERY, (Item("own", None, tmp_path / "own.jpg"), bytes_)), Example(QUERY, (bytes_,))]
    card = write_examples(tmp_path / "few.jsonl", examples, {})
    first, second = read_examples(tmp_path / "few.jsonl")
    assert first.positives[0].image == tmp_path / "own.jpg"
    assert first.positives[1].image == second.positives[0].image != tmp_path / "own.jpg"
    assert first.positives[1].image.read_bytes() == picture("blue")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4  # and the card
    assert card["examples"] == 2


@table(
    ("line", "error"),
    [
        ("{", "malformed JSON"),
        (make_line(query=None), "no query"),
        (make_line(positives=[]), "'q1' has no positive"),
        (make_line(positives={"id": "a"}), "positives must be a list, not dict"),
        (make_line(positives=["a"]), "a document must be an object with id and text, not str"),
        (make_line(positives=[{"text": "x"}]), "a document: no id"),
        (make_line(positives=[{"id": "a"}]), "document 'a' has neither text nor image"),
        (make_line(negatives=[{"id": "a", "text": "x"}]), "'a' is a positive and a negative"),
        (make_line(scores=[1.0]), "1 scores for 1 positives and 1 negatives"),
        (make_line(scores=[1.0, "2"]), "scores must be numbers"),
        (make_line(positives=[{"id": "a", "image": "../x.jpg"}]), "lies outside"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, error):
    path = put(tmp_path / "few.jsonl", make_line(), line)
    with pytest.raises(InputError, match=f"few.jsonl:2: .*{error}"):
        list(read_examples(path))


def test_judgements_of_a_collection_are_examples(tmp_path):
    directory(tmp_path / "news")
    loaded = load_examples(str(tmp_path / "news"))
    first, second = loaded
    assert [(example.query.id, [each.id for each in example.documents]) for example in loaded] == [
        ("q1", ["d1"]),
        ("q2", ["d3", "d1"]),
    ]
    assert first.positives[0].text == "Bridges\nThe old bridge is open again."
    assert second.positives[0].image
    assert [each.id for each in second.negatives] == ["d1"]
    assert (loaded.judged, len(loaded), loaded.card["pairs"]) == ("news", 2, {"eng-eng": 1, "deu-?": 1})
    loaded.check_languages({"eng", "deu"})
    with pytest.raises(InputError, match="news has nothing in zho, only in deu, eng"):
        loaded.check_languages(["zho"])
    with pytest.raises(InputError, match="news has 2 examples, and 8 are needed"):
        loaded.check_enough(8)


@pytest.mark.parametrize(
    ("qrels", "error"),
    [(None, "no qrels.txt: without judgements"), ("q1 0 d1 0\n", "no topic of news has a document of a grade above 0")],
)
def test_a_collection_without_positives_is_refused(tmp_path, qrels, error):
    written = directory(tmp_path / "news")
    written.qrels.unlink() if qrels is None else written.qrels.write_text(qrels)
    with pytest.raises(InputError, match=error):
        load_examples(written.name)


def test_what_is_no_file_of_examples_is_named(tmp_path):
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b"\n"))
    with pytest.raises(InputError, match="empty: no examples"):
        load_examples(str(tmp_path / "empty.jsonl.gz"))
    with pytest.raises(InputError, match="cannot read .*none.jsonl"):
        load_examples(str(tmp_path / "none.jsonl"))


def test_a_line_for_people_names_the_commonest_pairs_of_languages_and_counts_the_others():
    assert name_pairs({"eng-eng": 2, "eng-rus": 30}) == "queries and positives: eng-rus 30, eng-eng 2"
    line = name_pairs({f"eng-{number}": number for number in range(14)})
    assert line.endswith("eng-3 3, eng-2 2, 2 more pairs in the card")
