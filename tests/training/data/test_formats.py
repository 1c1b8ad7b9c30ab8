"""Formats of other toolkits: what they hold is read, what we write they hold, and mistakes are named by line."""

from __future__ import annotations

import json

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.example import Example
from crosslens.training.data.examples import load_examples, write_as
from crosslens.training.data.formats import FORMATS, load_format
from stand_ins.small_collections import picture, put
from stand_ins.table import table

ENGLISH = "The committee repaired the old bridge over the river last summer."
RUSSIAN = "Комитет прошлым летом отремонтировал старый мост через реку."
GERMAN = "Das Komitee hat im letzten Sommer die alte Brücke über den Fluss repariert."
QUERY = "when did the committee repair the bridge"

# Lines as the toolkits have them, and what of an example they hold: its texts, and whether ids and scores.
LINES = {
    "crosslens": {"query": {"id": "q", "text": QUERY, "lang": "eng"}, "scores": [2.0, 1.0, 0.5],
                  "positives": [{"id": "e", "text": ENGLISH, "lang": "eng"}, {"id": "r", "text": RUSSIAN, "lang": "rus"}],
                  "negatives": [{"id": "g", "text": GERMAN, "lang": "deu"}]},
    "tevatron": {"query_id": "q", "query": QUERY,
                 "positive_passages": [{"docid": "e", "title": "", "text": ENGLISH}, {"docid": "r", "title": "", "text": RUSSIAN}],
                 "negative_passages": [{"docid": "g", "title": "", "text": GERMAN}]},
    "mteb": {"query": QUERY, "positive": [ENGLISH, RUSSIAN], "negative": [GERMAN]},
    "bge": {"query": QUERY, "pos": [ENGLISH, RUSSIAN], "neg": [GERMAN], "pos_scores": [2.0, 1.0], "neg_scores": [0.5]},
    "sentence-transformers": {"anchor": QUERY, "positive": ENGLISH, "negative": GERMAN, "scores": [2.0, 0.5]},
}  # fmt: skip


@table("name", FORMATS)
def test_a_line_is_read_and_written_again_as_it_was(tmp_path, name):
    path = put(tmp_path / "few.jsonl.gz", LINES[name], LINES[name])
    loaded = load_examples(path)
    example, same = loaded
    assert example == same
    assert example.query.text == QUERY
    assert [each.text for each in example.positives] == [ENGLISH, RUSSIAN][: len(example.positives)]
    assert [each.lang for each in (example.query, *example.documents)] == [
        "eng",
        *["eng", "rus"][: len(example.positives)],
        "deu",
    ]
    assert bool(example.scores) == (name not in ("tevatron", "mteb"))
    assert len({each.id for each in example.documents}) == len(example.documents)
    assert write_as(tmp_path / "again.jsonl", loaded, load_format(name)) == {"examples": 2, "lines": 2, "left_out": 0}
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").open()]
    assert again == [LINES[name]] * 2


def test_titles_are_part_of_the_text_and_miracl_is_read_like_tevatron(tmp_path):
    passage = {"docid": "1#0", "title": "Bridges", "text": ENGLISH}
    path = put(
        tmp_path / "miracl.jsonl",
        {"query_id": "7", "query": QUERY, "positive_passages": [passage], "negative_passages": []},
    )
    (example,) = load_examples(path)
    assert example.positives[0].text == f"Bridges\n{ENGLISH}"
    assert (example.query.id, example.positives[0].id) == ("7", "1#0")
    assert load_format("miracl") == load_format("tevatron")


def test_columns_of_sentence_transformers(tmp_path):
    rows = [
        {"query": QUERY, "answer": ENGLISH},
        {"question": QUERY, "positive": ENGLISH, "negative_2": GERMAN, "negative_1": RUSSIAN},
    ]
    first, second = load_examples(put(tmp_path / "few.jsonl", *rows))
    assert (first.positives, first.negatives) == (second.positives, ())
    assert [each.text for each in second.negatives] == [RUSSIAN, GERMAN]
    documents = [Item(name, name) for name in "pqabc"]
    example = Example(Item("q", "x"), tuple(documents[:2]), tuple(documents[2:]), (5.0, 4.0, 3.0, 2.0, 1.0))
    few = Example(Item("q", "x"), tuple(documents[:1]), tuple(documents[2:3]))
    written = {}
    for spec in ("sentence-transformers", "sentence-transformers?negatives=2", "sentence-transformers?negatives=0"):
        counts = write_as(tmp_path / "out.jsonl", [example, few], load_format(spec))
        written[spec] = (
            counts["lines"],
            counts["left_out"],
            json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1]),
        )
    assert written == {
        "sentence-transformers": (7, 0, {"anchor": "x", "positive": "p", "negative": "b", "scores": [5.0, 2.0]}),
        "sentence-transformers?negatives=2":
            (2, 1, {"anchor": "x", "positive": "q", "negative_1": "a", "negative_2": "b", "scores": [4.0, 3.0, 2.0]}),
        "sentence-transformers?negatives=0": (3, 0, {"anchor": "x", "positive": "q", "scores": [4.0]}),
    }  # fmt: skip


@table(
    ("line", "error"),
    [
        ({"id": "d", "text": "a document"}, "no training data that is known, by its keys id, text"),
        ({"query": "x", "positive_document_ids": ["1"]}, "the documents are ids of a corpus"),
        ({"query": "x", "positive_passages": []}, "has no positive"),
        ({"query": " ", "positive_passages": [{"docid": "1", "text": "x"}]}, "no query"),
        ({"query": "x", "positive_passages": [{"docid": "1", "text": ""}]}, "the passage '1' has no text"),
        ({"query": "x", "positive": [3]}, "a document must be a text, not '3'"),
        ({"query": "x", "positive": ["y"], "negative": ["y"]}, "is a positive and a negative"),
        ({"query": "x", "pos": ["y"], "neg": ["z"], "pos_scores": [1.0]}, "1 scores for 1 positives and 1 negatives"),
        ({"anchor": "x", "positive": "y", "negative": "z", "scores": [1.0, True]}, "scores must be numbers"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, error):
    with pytest.raises(InputError, match=f"few.jsonl:1: .*{error}"):
        list(load_examples(put(tmp_path / "few.jsonl", line)))


def test_what_others_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    seen = Example(Item("q", "x"), (Item("p", None, picture()),))
    for name in set(FORMATS):
        with pytest.raises(InputError, match="holds image, and"):
            write_as(tmp_path / "out.jsonl", [seen], load_format(name))
    with pytest.raises(InputError, match="no example becomes a line of .*: have they enough negatives"):
        write_as(
            tmp_path / "out.jsonl", [Example(Item("q", "x"), (Item("p", "y"),))], load_format("sentence-transformers")
        )
    with pytest.raises(InputError, match="unknown format of examples 'tevatrn'; did you mean tevatron"):
        load_format("tevatrn")
    assert not list(tmp_path.iterdir())
