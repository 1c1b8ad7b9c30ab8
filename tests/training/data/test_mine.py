"""Mining: what may be a negative, a judge and a teacher, the same after a stop, and test topics are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from crosslens.errors import InputError, list_kept
from crosslens.indexes.registry import create_index
from crosslens.multilingual.collections.registry import load_collection
from crosslens.training.data.examples import load_examples, read_examples
from crosslens.training.data.mine import Mining
from crosslens.training.data.negatives import Margin
from stand_ins.grader import DOCUMENTS, GRADER, Grader, write_ranked


@pytest.fixture
def ranked(tmp_path, monkeypatch):
    monkeypatch.setattr(Grader, "asked", 0)
    monkeypatch.setattr("crosslens.training.data.mine.WINDOW", 2)
    collection, run = write_ranked(tmp_path / "pages")
    return load_collection(collection), Mining(str(run), last=10, negatives=4, same_language=None)


def mine(ranked, tmp_path, **changed):
    collection, mining = ranked
    mined = replace(mining, **changed).run(collection, tmp_path / "mined.jsonl")
    return mined, [[each.id for each in example.negatives] for example in read_examples(tmp_path / "mined.jsonl")]


def test_the_hardest_below_the_margin_of_their_language(ranked, tmp_path):
    """eng/near is too near to eng/good, rus/near to rus/good; eng/right is above rus/good, and yet a negative."""
    mined, found = mine(ranked, tmp_path, negatives=5)
    assert found == [["eng/right", "eng/poor", "rus/poor", "fra/poor", "eng/worse"]] * 3
    assert mined.card["source"]["left_out"] == {"margin": 6}
    assert mined.card["source"]["topics_without_positives"] == 0
    assert mined.card["pairs"] == {"eng-eng": 3, "eng-rus": 3}
    assert load_examples(str(mined.output)).judged == "pages"


@pytest.mark.parametrize(
    ("changed", "negatives"),
    [
        ({"margin": None, "last": 3, "negatives": 2}, ["eng/near", "eng/right"]),
        ({"margin": None, "first": 4, "last": 6, "negatives": 2}, ["rus/near", "eng/poor"]),
        ({"margin": Margin(-0.15), "last": 5, "negatives": 3}, ["eng/near", "eng/right"]),
        ({"margin": None, "judge": GRADER, "threshold": 0.0}, ["eng/poor", "rus/poor", "eng/worse", "rus/worse"]),
        # 0.5 times the better positive's 5.0: what the judge scores above 2.5 is a false negative.
        ({"margin": Margin(0.5), "judge": GRADER}, ["rus/near", "eng/poor", "rus/poor", "fra/poor"]),
    ],
)
def test_windows_margins_and_a_judge(ranked, tmp_path, changed, negatives):
    assert mine(ranked, tmp_path, **changed)[1] == [negatives] * 3


def test_a_judge_is_asked_for_no_more_than_is_needed(ranked, tmp_path):
    mined, _ = mine(ranked, tmp_path, margin=None, judge=GRADER, threshold=0.0, negatives=2)
    # eng/near and eng/right, then rus/near and eng/poor, then rus/poor: five of the eight that it could be asked.
    assert Grader.asked == mined.cost["calls"] == 3 * 5
    assert mined.card["source"]["left_out"] == {"judge": 9}


def test_a_share_in_the_positives_languages(ranked, tmp_path):
    """The positives are in English and Russian; of the mix of all languages some are French."""
    mined, found = mine(ranked, tmp_path, margin=None, negatives=4, same_language=1.0)
    assert all({id[:3] for id in ids} == {"eng", "rus"} for ids in found)
    assert all([id[:3] for id in ids].count("rus") == 2 for ids in found)
    assert mined.card["langs"]["negatives"] == {"eng": 6, "rus": 6}


def test_translations_of_a_positive_are_no_negatives(ranked, tmp_path):
    collection, _ = ranked
    path = collection.root / "docs.jsonl"
    path.write_text(path.read_text().replace("rus/near", "fra/good"), "utf-8")
    path.write_text(path.read_text().replace('"fra/good", "lang": "rus"', '"fra/good", "lang": "fra"'), "utf-8")
    run = collection.root / "run.trec"
    run.write_text(run.read_text().replace("rus/near", "fra/good"))
    assert "fra/good" in mine(ranked, tmp_path, margin=None)[1][0]
    mined, found = mine(ranked, tmp_path, margin=None, translations="id")
    assert not any("fra/good" in ids for ids in found)
    assert mined.card["source"]["left_out"] == {"translation": 3}


def test_documents_that_people_judged_pass_unseen(ranked, tmp_path):
    collection, _ = ranked
    with (collection.root / "qrels.txt").open("a") as out:
        out.write("q1 0 eng/near 0\n")
    assert [("eng/near" in ids) for ids in mine(ranked, tmp_path)[1]] == [False, True, False]
    mine(ranked, tmp_path, margin=None, judge=GRADER, threshold=-100.0)
    assert [[each.id for each in example.negatives] for example in read_examples(tmp_path / "mined.jsonl")] == [
        [],
        ["eng/near"],
        [],
    ]


def test_a_positive_that_is_not_found_has_no_margin(ranked, tmp_path):
    collection, _ = ranked
    run = collection.root / "run.trec"
    run.write_text("".join(line for line in run.open() if not (line.startswith("q0") and "good" in line)))
    mined, found = mine(ranked, tmp_path)
    assert ([len(ids) for ids in found], mined.card["source"]["counts"]["positive_not_found"]) == ([0, 4, 4], 1)
    assert any("1 queries have no positive in the ranking" in note for note in mined.notes)
    assert len(mine(ranked, tmp_path, judge=GRADER, margin=Margin(0.5))[1][0]) == 4


def test_a_teachers_scores_are_of_positives_and_then_negatives(ranked, tmp_path):
    mined, _ = mine(ranked, tmp_path, score=GRADER, judge=GRADER, margin=Margin(0.5))
    for example in read_examples(mined.output):
        assert list(example.scores) == pytest.approx([DOCUMENTS[each.id][2] for each in example.documents])
    # Twice the same SPEC is one model, and nothing is asked twice: of each query two positives and eight others.
    assert Grader.asked == mined.cost["calls"] <= 30
    assert mined.card["scored"] == 3
    assert mined.card["source"]["mined"]["score"]["models"] == {"grader": "1"}


@pytest.mark.parametrize("most", [0, 9, 20])
def test_stopped_anywhere_it_goes_on_to_the_same_end(ranked, tmp_path, monkeypatch, most):
    how = {"sampling": "simans", "judge": GRADER, "margin": Margin(0.5), "score": GRADER, "same_language": 0.5}
    whole, _ = mine(ranked, tmp_path, **how)
    wanted, calls = whole.output.read_bytes(), Grader.asked
    whole.output.unlink()
    monkeypatch.setattr(Grader, "asked", 0)
    monkeypatch.setattr(Grader, "most", most)
    with pytest.raises(KeyboardInterrupt) as stop:
        mine(ranked, tmp_path, **how)
    assert bool(list_kept(stop.value)) == (most == 20)
    assert not whole.output.exists()
    kept = Grader.asked
    monkeypatch.setattr(Grader, "most", 10**6)
    again, _ = mine(ranked, tmp_path, **how)
    assert again.output.read_bytes() == wanted
    assert again.card == whole.card
    assert Grader.asked == calls
    assert again.cost["calls"] == whole.cost["calls"]
    assert kept < calls
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mined.jsonl", "mined.jsonl.card.json", "pages"]


def test_an_index_is_searched_and_the_seed_decides(ranked, tmp_path):
    collection, mining = ranked
    made = create_index(tmp_path / "index")
    made.add(collection.docs())
    made.build("none")
    mining = replace(mining, where=str(tmp_path / "index"), sampling="uniform", margin=None, negatives=2)
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        card = replace(mining, seed=seed).run(collection, tmp_path / f"{name}.jsonl").card
        files.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert files[0] == files[1] != files[2]
    assert card["source"]["mined"]["ranking"]["system"] == "lexical"
    with pytest.raises(InputError, match="run.trec is a run, which no --system is needed for"):
        replace(ranked[1], system="dense").run(collection, tmp_path / "d.jsonl")


def test_test_topics_are_refused_unless_forced(ranked, tmp_path):
    collection, mining = ranked
    output = tmp_path / "mined.jsonl"
    for data in ("pages/test", "irds:beir/scifact/test", "beir:pages?split=test", "ciral-ha-test-a"):
        if data != "beir:pages?split=test":
            with pytest.raises(InputError, match="is a test set by its name"):
                mining.run(collection, output, data=data)
    held, _ = write_ranked(tmp_path / "held", 1)
    (held / "topics.jsonl").write_text(json.dumps({"id": "other", "text": "What is page 1?"}))
    with pytest.raises(InputError, match="1 queries are topics of the held-out .*held: q1; leave"):
        replace(mining, held_out=[str(held)]).run(collection, output)
    assert not output.exists()
    unlike = write_ranked(tmp_path / "unlike", 1)[0]
    (unlike / "topics.jsonl").write_text(json.dumps({"id": "q2", "text": "quoi"}))
    replace(mining, held_out=[str(unlike)]).run(collection, tmp_path / "unlike.jsonl")  # an id says nothing by itself
    forced = replace(mining, held_out=[str(held)], force=True)
    assert forced.run(collection, output, data="pages/test").card["examples"] == 3
    (tmp_path / "test.jsonl").write_bytes(output.read_bytes())
    with pytest.raises(InputError, match="is a test set by its name"):
        load_examples(tmp_path / "test.jsonl")
    assert len(load_examples(tmp_path / "test.jsonl", force=True)) == 3
