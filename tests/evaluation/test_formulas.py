"""Every measure that ir_measures lists: right for any topic id and grade, by a plain calculation, or refused by name."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import pytest
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.evaluation.measures import parse_measure
from crosslens.items import Item
from crosslens.runs import Run, read_qrels
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table

GOLDEN = Path(__file__).parents[1] / "golden"
TOPICS = ("1", "PLAIN-12", "q1", "7a", "topic/ü-猫", "-3", "a-b-12")
ABSENT = -(10**9)  # the grade of a document that the qrels do not have
REGISTRY = ir_measures.measures.registry

# Names in the registry, with the options that they are tried with.
RELEVANT = ("", "(rel=2)", "(judged_only=True)")
COMPUTED: dict[str, Sequence[str]] = {
    "Accuracy": ("", "@3", "(rel=2)@4"),
    "AP": (*RELEVANT, "@3", "(rel=2,judged_only=True)@2"),
    "MAP": ("",),
    "Bpref": ("", "(rel=2)"),
    "BPref": ("",),
    "Compat": ("", "(p=0.5)", "(p=0.8,normalize=False)"),
    "ERR": ("", "@1", "@3", "@100"),
    "infAP": ("", "(rel=2)"),
    "IPrec": ("@0.0", "@0.1", "@0.15", "@0.5", "@1.0", "(rel=2)@0.3", "(judged_only=True)@0.3"),
    "Judged": ("", "@3", "@100"),
    "nDCG": (
        "", "@3", "(judged_only=True)@3", "(gains={0:0,1:5,2:1})@3", "(gains={1:1})", "(dcg='exp-log2')",
        "(dcg='exp-log2')@3", "(dcg='exp-log2',judged_only=True)@3",
    ),
    "NDCG": ("@5",),
    "NumQ": ("",),
    "NumRel": ("", "(rel=2)"),
    "NumRet": ("", "(rel=1)", "(rel=3)"),
    "NumRelRet": ("",),
    "P": ("@1", "@3", "@100", "(rel=2)@3", "(judged_only=True)@3"),
    "Precision": ("@2",),
    "R": ("@1", "@3", "@100", "(rel=2)@3", "(judged_only=True)@3"),
    "Recall": ("@2",),
    "RBP": ("(rel=1)", "(rel=2,p=0.5)", "(rel=1)@2"),
    "Rprec": RELEVANT,
    "RPrec": ("",),
    "RR": (*RELEVANT, "@2", "(rel=2)@3", "(judged_only=True)@2"),
    "MRR": ("@1",),
    "SetAP": RELEVANT,
    "SetF": (*RELEVANT, "(beta=0.5)", "(beta=2.0)", "(beta=0.0)"),
    "SetP": (*RELEVANT, "(relative=True)"),
    "SetR": ("", "(rel=2)"),
    "SetRelP": ("",),
    "Success": ("@1", "@3", "(rel=2)@3", "(judged_only=True)@2"),
}  # fmt: skip
# These are over aspects: alpha_nDCG takes languages for them (`test_fairness.py`), the others are refused.
LANGUAGES = ("alpha_nDCG", "α_nDCG")
REFUSED = {
    **dict.fromkeys(["BPM", "NERR8", "NERR9", "SDCG"], "(max_rel=3)@10"),
    **dict.fromkeys(["INST", "INSQ", "NERR10", "NERR11"], "(max_rel=3)"),
    **dict.fromkeys(["ERR_IA", "nERR_IA", "alpha_DCG", "α_DCG", "P_IA", "StRecall"], "@10"),
    **dict.fromkeys(["NRBP", "nNRBP", "AP_IA", "MAP_IA"], ""),
}


def calculate(measure: Any, grades: dict[str, int], ranking: list[str], top: int) -> float:
    """One query's value, in the words of the definitions; nothing of it is shared with the code."""
    options = {key: info.default for key, info in measure.SUPPORTED_PARAMS.items()} | measure.params
    name, rel, cutoff = measure.NAME, options.get("rel"), measure.params.get("cutoff")
    if options.get("judged_only") is True:
        ranking = [doc for doc in ranking if grades.get(doc, ABSENT) >= 0]
    whole, found = ranking, ranking[:cutoff]
    if name == "NumQ":
        return 1
    if name == "NumRet" and "rel" not in measure.params:
        return len(found)
    if name == "Judged":
        return sum(doc in grades for doc in found) / len(found) if found else 0
    gain = {doc: max(grade, 0) for doc, grade in grades.items()}
    if name == "nDCG":
        chosen = measure.params.get("gains", {})
        power = options["dcg"] == "exp-log2"
        gain = {doc: 2**g - 1 if power else chosen.get(g, g) if grades[doc] >= 0 else 0 for doc, g in gain.items()}
        best = sorted(gain.values(), reverse=True)[:cutoff]
        dcg, ideal = (
            sum(each / math.log2(rank + 1) for rank, each in enumerate(gains, 1))
            for gains in ([gain.get(doc, 0) for doc in found], best)
        )
        return dcg / ideal if ideal else 0
    if name == "ERR":
        value, on = 0.0, 1.0
        for rank, doc in enumerate(found, 1):
            stop = (2 ** gain.get(doc, 0) - 1) / 2**top
            value += on * stop / rank
            on *= 1 - stop
        return value
    if name == "Compat":
        ideal_docs = sorted((doc for doc in grades if grades[doc] > 0), key=lambda doc: -grades[doc])
        # equal grades stand in the order of the run, those that it lacks last
        place = {doc: at for at, doc in enumerate(whole)}
        ideal_docs.sort(key=lambda doc: (-grades[doc], place.get(doc, len(whole))))

        def overlap(one: list[str], other: list[str], depth: int) -> float:
            parts = [len(set(one[:d]) & set(other[:d])) / d * options["p"] ** (d - 1) for d in range(1, depth + 1)]
            return sum(parts) / sum(options["p"] ** (d - 1) for d in range(1, depth + 1))

        if not ideal_docs:
            return 0
        depth = max(len(whole), len(ideal_docs))
        most = overlap(ideal_docs, ideal_docs, depth) if options["normalize"] else 1
        return overlap(whole, ideal_docs, depth) / most
    good = {doc for doc, grade in grades.items() if grade >= rel}
    here = [doc in good for doc in found]
    if name == "NumRel":
        return len(good)
    if name == "NumRet":
        return sum(here)
    ranks = [rank for rank, hit in enumerate(here, 1) if hit]
    if name == "RBP":
        return (1 - options["p"]) * sum(options["p"] ** (rank - 1) for rank in ranks)
    if name == "RR":
        return 1 / ranks[0] if ranks else 0
    if name == "Success":
        return float(bool(ranks))
    if name == "P":
        return sum(here) / cutoff
    if name == "Accuracy":
        pairs = [(a, b) for a in range(len(here)) for b in range(len(here)) if here[a] and not here[b]]
        return sum(a < b for a, b in pairs) / len(pairs) if pairs else float(any(here))
    if not good:
        return 0
    if name == "R":
        return sum(here) / len(good)
    if name == "AP":
        return sum(count / rank for count, rank in enumerate(ranks, 1)) / len(good)
    if name == "Rprec":
        return sum(here[: len(good)]) / len(good)
    if name == "IPrec":
        needed = int(options["recall"] * len(good) + 0.9)  # as trec_eval rounds it up
        return max((count / rank for count, rank in enumerate(ranks, 1) if count >= needed), default=0)
    if name == "Bpref":
        bad = {doc for doc, grade in grades.items() if 0 <= grade < rel}
        bound, value = min(len(good), len(bad)), 0.0
        for at, doc in enumerate(found):
            if doc in good:
                above = sum(each in bad for each in found[:at])
                value += 1 - min(above, len(good)) / bound if above else 1
        return value / len(good)
    if name == "infAP":
        value = 0.0
        for rank in ranks:
            above = [grades[doc] for doc in found[: rank - 1] if doc in grades]
            relevant, judged = (sum(g >= least for g in above) for least in (rel, 0))
            share = (relevant + 0.00001) / (judged + 0.00002)
            value += 1 / rank + (rank - 1) / rank * (len(above) / (rank - 1)) * share if rank > 1 else 1
        return value / len(good)
    assert name in ("SetAP", "SetF", "SetP", "SetR"), name
    precision, recall = sum(here) / len(found) if found else 0, sum(here) / len(good)
    if name == "SetR":
        return recall
    if name == "SetP":
        return precision / (min(len(found), len(good)) / len(found)) if options["relative"] and found else precision
    if name == "SetAP":
        return precision * recall
    beta = options["beta"]
    return (1 + beta) * precision * recall / (beta * precision + recall) if precision else 0


def test_every_measure_of_the_registry_is_here() -> None:
    assert COMPUTED.keys() | REFUSED.keys() | set(LANGUAGES) == REGISTRY.keys()


NAMES = [name + options for name, each in COMPUTED.items() for options in each]

documents = st.sampled_from("abcdefgh")
judgements = st.dictionaries(documents, st.sampled_from([-2, -1, 0, 0, 1, 2, 3, 4, 6]), min_size=1)
rankings = st.permutations("abcdefghij").flatmap(lambda p: st.integers(0, 10).map(lambda n: "".join(p[:n])))
cases = st.lists(st.tuples(judgements, rankings), min_size=len(TOPICS), max_size=len(TOPICS))


@given(cases)
@settings(max_examples=60)
def test_a_measure_is_what_its_definition_says(run_of: Callable[..., Run], drawn: list[Any]) -> None:
    """All together, as one measure may not change another's value, for topics of any name and grades of any height."""
    qrels = {topic: grades for topic, (grades, _) in zip(TOPICS, drawn, strict=True)}
    run = run_of({topic: ranking for topic, (_, ranking) in zip(TOPICS, drawn, strict=True)})
    top = max(4, *(grade for grades in qrels.values() for grade in grades.values()))
    table = evaluate({"r": run}, qrels, NAMES)
    for name in NAMES:
        measure = parse_measure(name)
        values = table.values["r"][str(measure)]
        for topic, grades in qrels.items():
            ranking = [hit.id for hit in run[topic]]
            expected = calculate(measure, grades, ranking, top)
            assert values[topic] == pytest.approx(expected, abs=1e-6), (name, topic, grades, ranking)
        total = sum(values.values())
        assert table.mean("r", name) == pytest.approx(total if "Num" in name else total / len(TOPICS))


@table("name", [name + options for name, options in REFUSED.items()])
def test_what_is_not_computed_is_refused_by_name_before_anything_runs(name: str) -> None:
    with pytest.raises(InputError, match="is not computed here") as error:
        parse_measure(name)
    assert repr(name) in str(error.value)


@table(
    ("name", "message"),
    [
        ("nDCG(gains={1:500000000})@10", "the gain 500000000: up to 1,000,000"),
        ("nDCG(gains={1:-1})", "cannot read"),
        ("nDCG(gains={-1:1})", "cannot read"),
        ("nDCG(gains={1:0.5})", "whole numbers"),
        ("nDCG(gains={1:2},dcg='exp-log2')", "has both gains and dcg"),
        ("Compat(p=1.5)", "p 1.5"),
        ("SetF(beta=-1.0)", "cannot read"),
        ("IPrec@0.125", "two decimals"),
        ("IPrec@1.5", "recall 1.5"),
        ("ERR@0", "cutoff 0"),
        ("Accuracy(rel=0)", "rel 0"),
    ],
)
def test_options_without_a_meaning_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_measure(name)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# gdeval 1.2a (which takes topics that end in digits, and grades up to 4) on the golden files, in its five decimals.
GDEVAL = {
    "nDCG(dcg='exp-log2')@3": {
        "200": 0.54317, "201": 0.08392, "202": 0.0, "203": 0.12299, "204": 0.0423, "205": 0.23464, "206": 0.0,
    },
    "ERR@3": {"200": 0.21875, "201": 0.0625, "202": 0.0, "203": 0.0625, "204": 0.03125, "205": 0.14583, "206": 0.0},
    "nDCG(dcg='exp-log2')@20": {
        "200": 0.59614, "201": 0.29671, "202": 0.22178, "203": 0.18785, "204": 0.29648, "205": 0.3312, "206": 0.0,
    },
    "ERR@20": {
        "200": 0.22754, "201": 0.11004, "202": 0.05634, "203": 0.07362, "204": 0.09817, "205": 0.15932, "206": 0.0,
    },
}  # fmt: skip


def test_golden_equals_gdeval() -> None:
    qrels, run = read_qrels(GOLDEN / "qrels.txt")[0], Run.from_trec(GOLDEN / "run.trec")
    table = evaluate({"golden": run}, qrels, list(GDEVAL))
    for name, values in GDEVAL.items():
        assert {topic: table.values["golden"][name][topic] for topic in values} == pytest.approx(values, abs=6e-6)


@pytest.mark.skipif(not shutil.which("perl"), reason="no perl")
def test_gdeval_itself_agrees(run_of: Callable[..., Run]) -> None:
    qrels = {"1": {"a": 1, "b": 4, "c": 3, "d": -1, "e": 2}, "2": {"a": 2, "b": 0, "z": 1}, "3": {"a": 4}}
    run = run_of({"1": "dcabxe", "2": "ba", "3": "xyza"})
    names = ["ERR@1", "ERR@3", "ERR@10", "nDCG(dcg='exp-log2')@2", "nDCG(dcg='exp-log2')@10"]
    scores = {topic: {hit.id: hit.score for hit in hits} for topic, hits in run.hits.items()}
    ours = evaluate({"r": run}, qrels, names).values["r"]
    theirs = list(ir_measures.gdeval.iter_calc([ir_measures.parse_measure(name) for name in names], qrels, scores))
    assert len(theirs) == 15
    for metric in theirs:
        assert ours[str(metric.measure)][metric.query_id] == pytest.approx(metric.value, abs=6e-6)


def test_the_scale_of_err_is_that_of_all_qrels_and_no_grade_is_too_high(run_of: Callable[..., Run]) -> None:
    run = run_of({"1": "ab", "2": "c"})
    names = ["ERR@10", "nDCG(dcg='exp-log2')@10", "nDCG@10"]
    found = evaluate({"r": run}, {"1": {"a": 1_000_000, "b": 999_999}, "2": {"c": 1}}, names).values["r"]
    assert found["ERR@10"] == pytest.approx({"1": 1.0, "2": 0.0})
    assert found["nDCG(dcg='exp-log2')@10"] == pytest.approx({"1": 1.0, "2": 1.0})
    # c's language alone has no grade above 1, and its documents are judged by the same scale
    qrels = {"1": {"a": 6, "b": 2}, "2": {"c": 1}}
    langs = {"a": "zho", "b": "fas", "c": "fas"}
    table = evaluate({"r": run}, qrels, ["ERR@10"], per="doc_lang", doc_langs=langs)
    assert table.mean("r", "ERR@10", "fas") == pytest.approx((3 / 64 + 1 / 64) / 2)


def test_counts_of_qrels_hold_for_queries_without_hits(run_of: Callable[..., Run]) -> None:
    table = evaluate({"r": run_of({"1": "ab"})}, {"1": {"a": 1}, "2": {"c": 2, "d": 1}}, ["NumQ", "NumRel", "NumRet"])
    assert [table.mean("r", name) for name in table.measures] == [2, 3, 2]


@table("topic", TOPICS[1:])
def test_topic_ids_of_any_form_on_the_command_line(crosslens: Callable[..., Any], tmp_path: Path, topic: str) -> None:
    found = []
    for each in ("1", topic):
        (tmp_path / "q").write_text(f"{each} 0 d1 1\n{each} 0 d2 2\n")
        (tmp_path / "r").write_text(f"{each} Q0 d2 1 3 x\n{each} Q0 d1 2 2 x\n")
        options = [part for name in ("ERR@10", "nDCG(dcg='exp-log2')@10", "Accuracy") for part in ("-m", name)]
        status, out, err = crosslens("evaluate", tmp_path / "q", tmp_path / "r", *options, "--per-topic", "--json")
        assert status == 0, err
        (system,) = json.loads(out)["systems"]
        assert all(list(values) == [each] for values in system["values"].values())
        found.append(system["means"])
        status, out, _ = crosslens("evaluate", tmp_path / "q", tmp_path / "r", *options, "--per-topic")
        assert (status, each in out) == (0, True)
    assert found[0] == found[1]
    assert found[0]["ERR@10"]["all"] == pytest.approx(0.2129, abs=5e-5)
    assert found[0]["Accuracy"]["all"] == 1


def test_what_was_found_being_relevant_divides_by_nothing() -> None:
    run = Run.of([Item("q")]).ranking({"q": [("a", 2.0), ("b", 1.0)]})
    names = ["Accuracy", "Accuracy@1", "Bpref", "SetF", "Judged"]
    assert set(evaluate({"r": run}, {"q": {"a": 1, "b": 2}}, names).means.values()) == {1.0}
