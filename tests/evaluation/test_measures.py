"""Measures: the numbers are those of ir_measures, pytrec_eval, and a pencil."""

from __future__ import annotations

import math
from pathlib import Path

import ir_measures
import pytest
import pytrec_eval
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.evaluation.measures import MEASURES, parse_measure
from crosslens.evaluation.table import Table
from crosslens.items import Item
from crosslens.runs import Run, read_qrels
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table

GOLDEN = Path(__file__).parents[1] / "golden"


QRELS = GOLDEN / "qrels.txt"


RUN = GOLDEN / "run.trec"


# cwl_eval 1.0.12 through ir_measures 0.4.3 on the golden files; neither is needed to test.
CWL = {
    "200": 0.2624, "201": 0.362109186899968, "202": 0.15394348013298764, "203": 0.23003885758844245,
    "204": 0.2461824061505853, "205": 0.13841116941697595, "206": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> Table:
    measures = [*MEASURES, "nDCG@10", "RR", "P@5", "Judged@10", "AP(rel=3)", "NumRel", "RBP(rel=1,p=0.5)", "R@5"]
    return evaluate({"golden": Run.from_trec(RUN)}, read_qrels(QRELS)[0], measures)


def test_golden_by_hand(golden):
    # Query 200 ranks c (grade 0), a (3), x (not judged), b (1); e (1) is relevant and not found.
    values = {measure: found["200"] for measure, found in golden.values["golden"].items()}
    ideal = 3 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert values["nDCG@20"] == pytest.approx((3 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert values["AP"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert values["RBP(rel=1)"] == pytest.approx(0.2 * (0.8 + 0.8**3))
    assert values["RBP(rel=1,p=0.5)"] == pytest.approx(0.5 * (0.5 + 0.5**3))
    assert values["R@100"] == pytest.approx(2 / 3)
    assert values["RR"] == pytest.approx(1 / 2)
    assert values["P@5"] == pytest.approx(2 / 5)
    assert values["AP(rel=3)"] == pytest.approx(1 / 2)
    assert values["Judged@10"] == pytest.approx(3 / 4)


def test_golden_equals_ir_measures(golden):
    # RBP needs cwl_eval there; NumRel leaves out the relevant documents of a query without hits.
    measures = [m for m in map(ir_measures.parse_measure, golden.measures) if m.NAME not in ("RBP", "NumRel")]
    assert golden.mean("golden", "NumRel") == 46
    qrels = list(ir_measures.read_trec_qrels(str(QRELS)))
    run = list(ir_measures.read_trec_run(str(RUN)))
    theirs = ir_measures.calc(measures, qrels, run)
    for measure in measures:
        assert golden.mean("golden", str(measure)) == pytest.approx(theirs.aggregated[measure], abs=1e-12)
    for metric in theirs.per_query:
        ours = golden.values["golden"][str(metric.measure)][metric.query_id]
        assert ours == pytest.approx(metric.value, abs=1e-12), metric
    assert len(theirs.per_query) == len(measures) * 7


def test_golden_equals_pytrec_eval_and_cwl_eval(golden):
    names = {
        "nDCG@20": "ndcg_cut_20",
        "AP": "map",
        "R@100": "recall_100",
        "R@1000": "recall_1000",
        "RR": "recip_rank",
        "nDCG": "ndcg",
        "nDCG@10": "ndcg_cut_10",
        "P@5": "P_5",
        "R@5": "recall_5",
        "Success@1": "success_1",
        "Success@5": "success_5",
        "Rprec": "Rprec",
        "Bpref": "bpref",
        "AP@10": "map_cut_10",
        "IPrec@0.1": "iprec_at_recall_0.10",
    }
    table = evaluate({"golden": Run.from_trec(RUN)}, read_qrels(QRELS)[0], list(names))
    with QRELS.open() as lines:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(lines), set(names.values()))
    with RUN.open() as lines:
        theirs = evaluator.evaluate(pytrec_eval.parse_run(lines))
    assert len(theirs) == 6
    for ours, name in names.items():
        for query, found in theirs.items():
            assert table.values["golden"][ours][query] == pytest.approx(found[name], abs=1e-6), (ours, query)
        assert table.mean("golden", ours) == pytest.approx(sum(f[name] for f in theirs.values()) / 7, abs=1e-6)
    assert golden.values["golden"]["RBP(rel=1)"] == pytest.approx(CWL)
    assert golden.mean("golden", "RBP(rel=1)") == pytest.approx(0.19901215716985135)


def test_a_measure_may_go_by_another_name(golden):
    table = evaluate(
        {"golden": Run.from_trec(RUN)}, read_qrels(QRELS)[0], ["MAP", "MRR", "Recall@100", ir_measures.nDCG @ 20]
    )
    assert table.measures == ("AP", "RR", "R@100", "nDCG@20")
    assert table.mean("golden", "MAP") == table.mean("golden", "AP") == golden.mean("golden", "AP")
    assert golden.mean("golden", ir_measures.nDCG @ 20) == table.mean("golden", "nDCG@20")


def test_a_query_without_hits_counts_as_zero_and_is_named(golden, run_of):
    assert golden.lacking == {"golden": ("206",)}
    assert golden.counts == {"all": 7}
    assert golden.values["golden"]["nDCG@20"]["206"] == 0
    assert any("206" in note for note in golden.notes())
    with_more = evaluate({"r": run_of({"1": "ab", "9": "a"})}, {"1": {"a": 1}, "2": {"b": 1}}, ["RR"])
    assert with_more.mean("r", "RR") == 0.5
    assert with_more.unjudged == {"r": ("9",)}
    # Judged and other measures whose providers stumble over an empty ranking
    empty = evaluate({"r": run_of({"1": ""})}, {"1": {"a": 1}}, ["Judged@10", "Judged", "nDCG@5", "RBP(rel=1)"])
    assert set(empty.means.values()) == {0.0}


rankings = st.permutations("abcdefgh").flatmap(lambda p: st.integers(1, 8).map(lambda n: "".join(p[:n])))


@given(
    hits=st.dictionaries(st.sampled_from("123"), rankings, min_size=1),
    grades=st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0, 1, 3]), min_size=1),
)
@settings(max_examples=80)
def test_any_run_equals_ir_measures(run_of, hits, grades):
    names = ["nDCG@3", "nDCG@20", "AP", "R@5", "RR", "P@2", "Rprec", "Bpref", "Success@1", "Judged@4"]
    qrels = dict.fromkeys("123", grades)
    table = evaluate({"r": run_of(hits)}, qrels, names)
    plain = {q: {d: 100.0 - i for i, d in enumerate(docs)} for q, docs in hits.items()}
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(n) for n in names], qrels, plain)
    for measure, value in theirs.items():
        assert table.mean("r", str(measure)) == pytest.approx(value, abs=1e-9)


def test_a_negative_grade_is_not_judged(run_of):
    """As trec_eval has it; its own code crashes on some of them, now and then."""
    names = ["nDCG@3", "AP", "Bpref", "R@5", "RBP(rel=1)"]
    runs = {"r": run_of({"1": "abcdef", "2": "ab"})}
    with_negative = {"1": {"a": -1, "b": 1, "c": 0, "d": 3, "e": -2}, "2": {"a": -1}}
    without = {"1": {"b": 1, "c": 0, "d": 3}, "2": {"z": 0}}
    one, other = evaluate(runs, with_negative, names), evaluate(runs, without, names)
    assert one.means == pytest.approx(other.means)
    for _ in range(300):
        evaluate(runs, with_negative, names)


def test_the_order_of_the_run_decides_and_not_float32():
    run = Run.of([Item("1")]).ranking({"1": [("z", 1.0 + 1e-12), ("a", 1.0), ("b", 1.0), ("c", 0.5)]})
    assert evaluate({"r": run}, {"1": {"z": 1}}, ["RR"]).mean("r", "RR") == 1
    assert evaluate({"r": run}, {"1": {"b": 1}}, ["RR"]).mean("r", "RR") == pytest.approx(1 / 3)


@table(
    ("name", "message"),
    [
        ("nope", "unknown measure 'nope'"),
        ("ndcg@10", "did you mean nDCG@10?"),
        ("map", "did you mean AP?"),
        ("recall@100", "did you mean R@100?"),
        ("R", "needs a cutoff"),
        ("nDCG@0", "cutoff 0"),
        ("P(cutoff=0)", "cutoff 0"),
        ("R@99999999999999999999", "cutoff 99999999999999999999"),
        ("nDCG@x", "cannot read"),
        ("nDCG@1.5", "cannot read"),
        ("P@-1", "cannot read"),
        ("AP(", "cannot read"),
        ("", "cannot read"),
        ("AP;AP", "cannot read"),
        ("AP(rel=0)", "rel 0"),
        ("nDCG(foo=1)", "cannot read"),
        ("RBP", r"write RBP(rel=1)"),
        ("RBP(rel=1,p=1.0)", "p 1.0; it must lie between 0 and 1"),
    ],
)
def test_a_measure_that_cannot_be_is_one_line_and_no_crash(name, message):
    with pytest.raises(InputError) as error:
        parse_measure(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_measure_without_its_parameter_names_it():
    with pytest.raises(InputError, match="needs a value of max_rel"):
        parse_measure("INST")
