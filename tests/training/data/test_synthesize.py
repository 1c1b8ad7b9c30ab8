"""A synthetic collection: whatever its source, it is a collection, the same again, and the same after a stop."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crosslens.errors import InputError, list_kept
from crosslens.files import hash_file
from crosslens.indexes.registry import create_index
from crosslens.multilingual.collections.directory import Directory
from crosslens.multilingual.collections.registry import load_collection
from crosslens.training.data.base import LanguageMix
from crosslens.training.data.registry import load_source
from crosslens.training.data.selection import Selection
from crosslens.training.data.synthesize import Synthesis
from stand_ins.query_writer import QueryWriter, make_documents, write_collection

WRITER = "inpars@py:stand_ins.query_writer:QueryWriter?n=2&styles=question,title"
SOURCES = [WRITER, "ict?n=2", "titles", "anchors", "translations?by=id"]  # a new source is one more here
JUDGE = "yesno@py:stand_ins.query_writer:QueryWriter"


def read_files(where: Path) -> dict[str, str]:
    """All but what it cost, and when."""
    return {
        path.name: path.read_text("utf-8") for path in where.iterdir() if path.name not in ("cost.json", "read.json")
    }


def read_topics(where: Path) -> list[dict]:
    return [json.loads(line) for line in (where / "topics.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def index(source, tmp_path):
    """Full text of the collection: no encoder is needed."""
    made = create_index(tmp_path / "index")
    made.add(load_collection(str(source)).docs())
    made.build("none")
    return str(tmp_path / "index")


@pytest.mark.parametrize("spec", SOURCES)
def test_what_a_source_makes_is_a_collection_and_the_same_again(spec, source, tmp_path):
    first = Synthesis(load_source(spec)).run(load_collection(str(source)), tmp_path / "made")
    made = load_collection(str(tmp_path / "made"))
    counts = made.check()  # which refuses judgements of unknown topics or documents
    assert counts.queries == first.card["queries"]["kept"] > 10
    assert made.langs >= {"eng", "rus"}
    own = {topic["id"]: topic["document"] for topic in read_topics(tmp_path / "made")}
    assert all(made.qrels()[topic][document] == 1 for topic, document in own.items())
    assert first.card["files"] == {name: hash_file(tmp_path / "made" / name) for name in first.card["files"]}
    dropped = sum(sum(langs.values()) for langs in first.card["dropped"].values())
    assert first.card["queries"]["drafted"] == counts.queries + dropped
    Synthesis(load_source(spec)).run(load_collection(str(source)), tmp_path / "again")
    assert read_files(tmp_path / "again") == read_files(tmp_path / "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "made", "source"]


def test_another_seed_makes_others(source, tmp_path):
    for seed in (0, 1):
        task = Synthesis(load_source("ict"), Selection(documents=6, seed=seed))
        task.run(load_collection(str(source)), tmp_path / f"made{seed}")
    assert read_files(tmp_path / "made0")["topics.jsonl"] != read_files(tmp_path / "made1")["topics.jsonl"]


@pytest.mark.parametrize("most", [0, 5])
def test_stopped_anywhere_it_goes_on_to_the_same_end(most, source, index, tmp_path, monkeypatch):
    monkeypatch.setattr("crosslens.training.data.generation.AT_ONCE", 4)
    monkeypatch.setattr("crosslens.training.data.synthesize.WINDOW", 3)
    task = Synthesis(load_source(WRITER), index=index, judge=JUDGE)
    done = task.run(load_collection(str(source)), tmp_path / "undisturbed")
    stopping = replace(task.source, judge=QueryWriter(most=most))
    with pytest.raises(KeyboardInterrupt) as stop:
        replace(task, source=stopping).run(load_collection(str(source)), tmp_path / "made")
    assert bool(list_kept(stop.value)) == (most > 1)
    assert not (tmp_path / "made").exists()
    assert sum(stopping.judge.calls) == 4 * most
    going_on = replace(task.source, judge=QueryWriter())
    resumed = replace(task, source=going_on).run(load_collection(str(source)), tmp_path / "made")
    assert read_files(tmp_path / "made") == read_files(tmp_path / "undisturbed")
    assert sum(going_on.judge.calls) == 48 - 4 * most
    assert resumed.cost["usage"] == done.cost["usage"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_finished_is_not_made_again_nor_written_over(source, tmp_path):
    collection = load_collection(str(source))
    task = Synthesis(load_source(WRITER))
    made = task.run(collection, tmp_path / "made", name=str(source))
    idle = replace(task.source, judge=QueryWriter(most=0))
    assert replace(task, source=idle).run(collection, tmp_path / "made").to_json() == made.to_json()
    others = {
        "source": replace(task, source=load_source("titles")),
        "documents": replace(task, selection=Selection(documents=3)),
        "most_copied": replace(task, most_copied=0.5),
        "langs": replace(task, mix=LanguageMix.parse("eng")),
        "held_out_sha256": replace(task, held_out=["x"]),
    }
    for option, other in others.items():
        with pytest.raises(InputError, match=rf"made is there already, and was made otherwise \({option}\): name"):
            other.run(collection, tmp_path / "made")
    docs = source / "docs.jsonl"
    whole = docs.read_text()
    docs.write_text(whole.replace("winter", "summer", 1))
    for name in ("", str(source)):
        with pytest.raises(
            InputError, match="made was made of other documents than .* has now: name another directory"
        ):
            replace(task, source=idle).run(load_collection(str(source)), tmp_path / "made", name=name)
    docs.write_text(whole)
    (tmp_path / "empty").mkdir()
    assert task.run(collection, tmp_path / "empty").card == made.card
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(InputError, match="full is there already"):
        task.run(collection, tmp_path / "full")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for where in (tmp_path / "link", Path(), Path("..")):  # found out before any work
        with pytest.raises(InputError, match="cannot be replaced by what is made: name a new directory"):
            replace(task, source=idle).run(collection, where)
    with pytest.raises(InputError, match="titles takes the documents' own words: --langs is for what a model writes"):
        Synthesis(load_source("titles"), mix=LanguageMix.parse("eng"))


def test_a_finished_result_is_returned_unread_while_the_files_are_as_they_were(source, tmp_path, monkeypatch):
    read = Counter()
    whole = Directory.docs
    monkeypatch.setattr(Directory, "docs", lambda self: read.update([self.name]) or whole(self))
    given = {"output": source / "made", "name": str(source)}  # what lies in the output is no file of the collection
    task = Synthesis(load_source("titles"))

    def run(task=task, **other):
        read.clear()
        return task.run(load_collection(str(source)), **given | other), read.total()

    made, passes = run()
    assert passes
    assert run() == (made, 0)
    assert run(name="") == (made, 1)
    with pytest.raises(InputError, match="made is there already, and was made otherwise"):
        run(replace(task, most_copied=0.5))
    assert not read.total()
    (source / "docs.jsonl").touch()
    assert run() == (made, 1)
    (source / "made" / "read.json").unlink()  # as of earlier versions
    assert run() == (made, 1)


def test_the_checks_are_counted_and_the_grades_say_what_confirmed(source, index, tmp_path, monkeypatch):
    task = Synthesis(load_source(WRITER), index=index, judge=JUDGE, round_trip=2)
    made = task.run(load_collection(str(source)), tmp_path / "made")
    dropped, queries = made.card["dropped"], made.card["queries"]
    # All in French are in English in truth; the titles are in the queries, so that their documents are found.
    assert dropped["language"]["fra"] == 16
    assert sum(sum(each.values()) for each in dropped.values()) == queries["drafted"] - queries["kept"]
    assert dropped["below_threshold"]
    qrels = load_collection(str(tmp_path / "made")).qrels()
    for topic in read_topics(tmp_path / "made"):
        assert topic["score"] >= 0
        assert qrels[topic["id"]][topic["document"]] == 2 + (topic["rank"] == 1)
    monkeypatch.setattr(
        QueryWriter, "compute_choices", lambda judge, prompts, labels: np.full((len(prompts), 2), np.nan)
    )
    with pytest.raises(InputError, match=r"^writer gave a score that is not finite; try \?dtype=float32"):
        task.run(load_collection(str(source)), tmp_path / "lost")
    strict = replace(task, round_trip=1, judge=None).run(load_collection(str(source)), tmp_path / "strict")
    assert {topic["rank"] for topic in read_topics(tmp_path / "strict")} == {1}
    assert strict.card["queries"]["kept"] > 0


def test_without_an_index_one_is_made_and_not_left(source, tmp_path, tiny_encoder, monkeypatch):
    spec = f"hf:{tiny_encoder}?pooling=mean&dtype=float32"
    monkeypatch.setattr("crosslens.training.data.synthesize.choose_encoders", lambda pictures: [spec])
    task = Synthesis(load_source("titles"), round_trip=2)
    made = task.run(load_collection(str(source)), tmp_path / "made")
    assert made.card["round_trip"]["mode"] == "dense"
    assert made.card["dropped"]["not_found"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "source"]


def test_an_index_of_other_documents_is_refused(index, tmp_path):
    other = write_collection(
        tmp_path / "other", [{"id": "x", "lang": "eng", "title": "A tale", "text": "Of two cities."}]
    )
    with pytest.raises(InputError, match="is no index of this collection"):
        Synthesis(load_source("titles"), index=index).run(load_collection(str(other)), tmp_path / "made")


def test_topics_never_come_out(source, tmp_path):
    rows = make_documents()
    topics = [
        {"id": "t1", "text": f"  {rows[0]['title'].upper()}!"},
        {"id": "t2", "text": "x", "title": rows[3]["title"]},
    ]
    held = write_collection(tmp_path / "held", rows, topics)
    made = Synthesis(load_source("titles")).run(load_collection(str(held)), tmp_path / "made")
    assert sum(made.card["dropped"]["held_out"].values()) == 2
    assert not {rows[0]["title"], rows[3]["title"]} & {topic["text"] for topic in read_topics(tmp_path / "made")}
    named = Synthesis(load_source("titles"), held_out=[rows[6]["title"]])
    named.run(load_collection(str(source)), tmp_path / "named")
    assert rows[6]["title"] not in {topic["text"] for topic in read_topics(tmp_path / "named")}


def test_topics_of_all_languages_are_held_out(tmp_path):
    wordings = [{"lang": "eng", "source": "original", "topic_title": "Cleaning an oven"}, {"lang": "rus", "source": "human translation", "topic_title": "Чистка печи"}]  # fmt: skip
    topic = {"topic_id": "1", "languages_with_qrels": ["rus"], "topics": [each | {"topic_description": each["topic_title"]} for each in wordings]}  # fmt: skip
    rows = [{"id": f"d{n}", "lang": "rus", "title": title, "text": "О печи."} for n, title in enumerate(["Чистка печи", "Ремонт крыши"])]  # fmt: skip
    where = write_collection(tmp_path / "source", rows, [topic])
    made = Synthesis(load_source("titles")).run(load_collection(str(where)), tmp_path / "made")
    assert made.card["dropped"] == {"held_out": {"rus": 1}}


def test_a_query_of_two_documents_is_one_topic_judged_for_both(tmp_path):
    rows = [{"id": f"d{n}", "lang": "eng", "title": title, "text": f"Text number {n}."} for n, title in enumerate(["Cleaning the oven", "The oven: cleaning", "Baking"])]  # fmt: skip
    where = write_collection(tmp_path / "source", rows)
    made = Synthesis(load_source("titles")).run(load_collection(str(where)), tmp_path / "made")
    assert load_collection(str(tmp_path / "made")).qrels() == {"d0~1": {"d0": 1, "d1": 1}, "d2~1": {"d2": 1}}
    assert (made.card["queries"]["shared"], made.card["dropped"]) == (1, {"duplicate": {"eng": 1}})


def test_all_documents_are_written_where_that_is_asked(source, tmp_path):
    task = Synthesis(load_source("titles"), Selection(documents=3), write="all")
    made = task.run(load_collection(str(source)), tmp_path / "made")
    assert load_collection(str(tmp_path / "made")).check().documents == 24
    assert made.card["documents"]["judged"] == 3


def test_mixes_of_languages():
    mix = LanguageMix.parse("eng=3,same=1")
    assert mix.weights == (("eng", 0.75), ("same", 0.25))
    assert LanguageMix.parse(str(mix)) == mix
    for wrong in ("eng=0", "eng=x", "eng,eng", "", "eng=nan", "same=-1", "xx"):
        with pytest.raises(InputError):
            LanguageMix.parse(wrong)


def test_languages_are_mixed_by_weight(tmp_path):
    rows = [{"id": f"d{n}", "lang": "rus", "title": f"Печь {n}", "text": f"Печь номер {n}."} for n in range(200)]
    where = write_collection(tmp_path / "source", rows)
    source = load_source("inpars@py:stand_ins.query_writer:QueryWriter")
    made = Synthesis(source, mix=LanguageMix.parse("eng=0.25,same=0.75"), most_copied=1).run(
        load_collection(str(where)), tmp_path / "made"
    )
    langs = made.card["queries"]["langs"]
    assert langs.keys() == {"eng", "rus"}
    assert 0.15 < langs["eng"] / sum(langs.values()) < 0.35
