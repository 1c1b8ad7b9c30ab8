"""pyterrier: stages in PyTerrier's experiments and transformers in ours, with the same numbers and without a JVM."""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass, replace

import ir_measures
import pandas
import pyterrier as pt
import pytest
from crosslens import InputError, Item, Probe, Run, Stage, evaluate
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.pipeline import Cut
from crosslens.systems.pyterrier import as_stage, as_transformer
from ir_measures import AP, P, R, nDCG
from stand_ins.table import table

DOCS = [f"d{n:02}" for n in range(40)]
TEXTS = InMemoryDocuments({doc: Item(doc, f"text {doc[1]}") for doc in DOCS})
TOPICS = pandas.DataFrame({"qid": [str(n) for n in range(1, 13)], "query": [f"query {n}" for n in range(1, 13)]})
MEASURES = [nDCG @ 20, AP, R @ 100, P @ 5]


@dataclass(frozen=True)
class Drawn(Stage):
    """Few different scores, so that many hits tie; nothing is found for the last query."""

    seed: int

    def apply(self, run: Run, count: Counter[str]) -> Run:
        chance = random.Random(self.seed)
        found = {q.id: [(doc, chance.choice([0.1, 0.2, 0.2 + 1e-10, 3.0])) for doc in chance.sample(DOCS, 30)]
                 for q in run.queries if q.text != "query 12"}  # fmt: skip
        return run.ranking(found, TEXTS)


@dataclass(frozen=True)
class ByText(Stage):
    """Scores hits by their texts, which it must be given, and by that of the query."""

    def apply(self, run: Run, count: Counter[str]) -> Run:
        assert all(query.text.startswith("query") for query in run.queries)
        return run.ranking({query.id: [(item.id, float(item.text.split()[1])) for item in run.items(query.id)]
                            for query in run.queries})  # fmt: skip


@dataclass(frozen=True)
class Renamed(Stage):
    def apply(self, run: Run, count: Counter[str]) -> Run:
        return replace(run, probes={q.id: (Probe(Item(q.id, "other"), "query"),) for q in run.queries})


@pytest.fixture(scope="module")
def qrels() -> dict[str, dict[str, int]]:
    chance = random.Random(0)
    return {qid: {doc: chance.choice([0, 0, 1, 2, 3]) for doc in chance.sample(DOCS, 15)} for qid in TOPICS["qid"]}


def experiment(systems, qrels, **options) -> pandas.DataFrame:
    """What PyTerrier measures, its check of pipelines included."""
    rows = [(qid, doc, grade) for qid, of in qrels.items() for doc, grade in of.items()]
    frame = pandas.DataFrame(rows, columns=["qid", "docno", "label"])
    return pt.Experiment(
        list(systems.values()), TOPICS, frame, MEASURES, names=list(systems), validate="error", **options
    )


def test_an_experiment_of_pyterrier_and_evaluate_agree_to_the_last_digit(qrels):
    first, other = Drawn(1), Drawn(2)
    one, two = as_transformer(first), as_transformer(other)
    ours = {"one": first, "two": other, "cut": first % 5, "reranked": first % 10 >> ByText(), "half": 0.5 * first}
    theirs = {"one": one, "two": two, "cut": one % 5, "half": 0.5 * one,
              "reranked": one % 10 >> as_transformer(ByText(), TEXTS)}  # fmt: skip
    runs = {name: stage(TOPICS) for name, stage in ours.items()}
    table = evaluate(runs, qrels, MEASURES)
    found = experiment(theirs, qrels).set_index("name")
    for name in ours:
        for measure in MEASURES:
            assert found.loc[name, str(measure)] == table.mean(name, measure)
    frames = experiment({name: run.to_df() for name, run in runs.items()}, qrels, perquery=True)
    every = table.to_df(per_query=True)
    keys = ["name", "qid", "measure"]
    assert frames.set_index(keys)["value"].to_dict() == every.set_index(keys)["value"].to_dict()
    assert ir_measures.calc_aggregate(MEASURES, qrels, runs["one"].to_dict()) == {
        measure: table.mean("one", measure) for measure in MEASURES
    }
    assert len((one + two)(TOPICS)) > len(one(TOPICS))
    assert not pt.java.started()
    assert "jnius" not in sys.modules


def test_a_transformer_as_a_stage_ranks_as_it_does(qrels):
    retrieve = as_transformer(Drawn(1))
    by_text = pt.apply.doc_score(lambda row: float(row["text"].split()[1]))
    systems = {"alone": as_stage(retrieve), "then": Drawn(1) % 10 >> as_stage(by_text, "by text")}
    table = evaluate({name: stage(TOPICS) for name, stage in systems.items()}, qrels, MEASURES)
    expected = evaluate({"alone": Drawn(1)(TOPICS), "then": (Drawn(1) % 10 >> ByText())(TOPICS)}, qrels, MEASURES)
    assert table.means["alone", "nDCG@20", "all"] == expected.means["alone", "nDCG@20", "all"]
    # PyTerrier breaks the ties of a reranker as trec_eval does, by the ids turned round.
    assert table.means["then", "R@100", "all"] == expected.means["then", "R@100", "all"]
    run = systems["then"](TOPICS)
    assert [record.stage for record in run.manifest.records] == [str(Drawn(1)), "% 10", "by text"]
    assert run.docs is TEXTS
    assert (
        as_stage(by_text, "a").fingerprint != as_stage(by_text, "b").fingerprint == as_stage(by_text, "b").fingerprint
    )
    both = (systems["alone"] + Drawn(2))(TOPICS)
    assert len(both["1"]) > 30


def test_columns_of_queries_and_documents_stay_and_numbers_are_ids():
    frame = pandas.DataFrame({"qid": [1, 1], "query": ["query a"] * 2, "query_0": ["A"] * 2, "docno": ["x", "y"],
                              "text": ["t 2", "t 3"], "url": ["u", "v"], "score": [9.0, 1.0], "rank": [0, 1]})  # fmt: skip
    found = as_transformer(ByText())(frame)
    assert found[["qid", "docno", "query", "query_0", "text", "url", "score", "rank"]].values.tolist() == [
        ["1", "y", "query a", "A", "t 3", "v", 3.0, 0],
        ["1", "x", "query a", "A", "t 2", "u", 2.0, 1],
    ]
    unscored = frame.drop(columns=["score", "rank"])
    assert as_transformer(Cut(1))(unscored)["docno"].tolist() == ["x"]
    assert as_transformer(Cut(1))(unscored.assign(rank=[1, 0]))["docno"].tolist() == ["y"]
    assert list(as_transformer(ByText())(frame.iloc[:0]).columns) == list(found.columns)
    assert pt.inspect.transformer_outputs(as_transformer(Drawn(1)), ["qid", "query"]) == [
        "qid", "docno", "score", "rank", "query",
    ]  # fmt: skip


def test_a_transformer_that_rewrites_queries_and_one_with_texts():
    louder = as_stage(pt.apply.query(lambda row: row["query"].upper()), "louder")
    run = louder(["cat"])
    assert run.probes["1"] == (Probe(Item("1", "CAT"), "query"),)
    texts = pandas.DataFrame({"qid": ["1"] * 2, "docno": ["a", "b"], "score": [1.0, 2.0], "text": ["t 5", "t 4"]})
    found = (as_stage(pt.Transformer.from_df(texts), "held") >> ByText())("query")
    assert [hit.id for hit in found["1"]] == ["a", "b"]


@dataclass(frozen=True)
class InOneLanguage(Stage):
    """Finds what its queries' languages are."""

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return run.ranking({query.id: [(f"{query.lang}", 1.0)] for query in run.queries})


def test_languages_and_other_columns_of_topics_go_through_a_pipeline_both_ways():
    topics = TOPICS.head(3).assign(lang=["deu", "rus", None], narrative=["x", "y", "z"])
    one = as_transformer(InOneLanguage())
    found = (one >> one)(topics)
    assert found[["docno", "narrative"]].values.tolist() == [["deu", "x"], ["rus", "y"], ["None", "z"]]
    queries = [Item("1", "a", lang="deu"), Item("2", "b")]
    for stage in (as_stage(one, "one"), InOneLanguage() >> as_stage(one, "two")):
        assert {id: hits[0].id for id, hits in stage(queries).hits.items()} == {"1": "deu", "2": "None"}
    cells = pandas.DataFrame({"qid": ["1"], "docno": ["a"], "score": [1.0], "text": [float("nan")]})
    assert as_stage(pt.Transformer.from_df(cells), "held")("query").items("1") == [Item("a")]


@pytest.mark.parametrize("made", [None, pandas.DataFrame(), TOPICS[["qid"]]])
def test_a_transformer_without_queries_and_hits_is_named(made):
    stage = as_stage(pt.apply.generic(lambda frame: made), "broken")
    with pytest.raises(InputError, match="^broken gives no data frame with the columns qid and query$"):
        stage("query")


@table(
    ("make", "message"),
    [
        (lambda: as_transformer("dense"), r"a stage of crosslens is wanted, not 'dense' \(str\)"),
        (lambda: as_stage("bm25"), r"a transformer of PyTerrier is wanted, not 'bm25' \(str\)"),
        (lambda: as_stage(as_transformer(Drawn(1)) + as_transformer(Drawn(2))), "has no lasting name: give it one"),
        (lambda: as_transformer(Renamed())(TOPICS), "only rewrites queries: make one transformer of it and the search"),
        (lambda: as_transformer(Cut(1))(TOPICS.drop(columns="qid")), "have a column qid, and this one has query"),
        (lambda: Drawn(1) >> as_transformer(Drawn(2)), "a stage is followed by a stage, and not by crosslens"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_without_pyterrier_its_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "crosslens.systems.transformers", None)
    with pytest.raises(InputError, match="pip install pyterrier"):
        as_transformer(Drawn(1))
