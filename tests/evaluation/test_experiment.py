"""experiment.py and measures.py: the numbers are those of ir_measures, pytrec_eval, and a pencil."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import pytrec_eval
import scipy.stats
from crosslens.commands.app import app
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import Table, bonferroni, bootstrap, evaluate, evaluate_files, holm
from crosslens.evaluation.grids import Cell, Grid
from crosslens.evaluation.grids import latex as latex_of
from crosslens.evaluation.measures import MEASURES, parse_measure
from crosslens.items import Item
from crosslens.runs import Run, read_qrels
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

GOLDEN = Path(__file__).parents[1] / "golden"
QRELS, RUN = GOLDEN / "qrels.txt", GOLDEN / "run.trec"
# cwl_eval 1.0.12 through ir_measures 0.4.3 on the golden files; neither is needed to test.
CWL = {
    "200": 0.2624, "201": 0.362109186899968, "202": 0.15394348013298764, "203": 0.23003885758844245,
    "204": 0.2461824061505853, "205": 0.13841116941697595, "206": 0.0,
}  # fmt: skip


def run_of(hits: dict[str, str], **items: Item) -> Run:
    """Documents by rank, one letter each."""
    queries = [items.get(query, Item(query)) for query in hits]
    return Run.of(queries).ranking(
        {query: [(doc, float(-rank)) for rank, doc in enumerate(docs)] for query, docs in hits.items()}
    )


@pytest.fixture(scope="module")
def golden() -> Table:
    measures = [
        *MEASURES,
        "nDCG@10",
        "RR",
        "P@5",
        "Judged@10",
        "AP(rel=3)",
        "NumRel",
        "RBP(rel=1,p=0.5)",
        "R@5",
    ]
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
    measures = [m for m in map(ir_measures.parse_measure, golden.measures) if m.NAME != "RBP"]
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
        assert table.mean("golden", ours) == pytest.approx(
            sum(f[name] for f in theirs.values()) / 7, abs=1e-6
        )
    assert golden.values["golden"]["RBP(rel=1)"] == pytest.approx(CWL)
    assert golden.mean("golden", "RBP(rel=1)") == pytest.approx(0.19901215716985135)


def test_a_measure_may_go_by_another_name(golden):
    table = evaluate(
        {"golden": Run.from_trec(RUN)},
        read_qrels(QRELS)[0],
        ["MAP", "MRR", "Recall@100", ir_measures.nDCG @ 20],
    )
    assert table.measures == ("AP", "RR", "R@100", "nDCG@20")
    assert table.mean("golden", "MAP") == table.mean("golden", "AP") == golden.mean("golden", "AP")
    assert golden.mean("golden", ir_measures.nDCG @ 20) == table.mean("golden", "nDCG@20")


def test_a_query_without_hits_counts_as_zero_and_is_named(golden):
    assert golden.lacking == {"golden": ("206",)}
    assert golden.counts == {"all": 7}
    assert golden.values["golden"]["nDCG@20"]["206"] == 0
    assert any("206" in note for note in golden.notes())
    with_more = evaluate({"r": run_of({"1": "ab", "9": "a"})}, {"1": {"a": 1}, "2": {"b": 1}}, ["RR"])
    assert with_more.mean("r", "RR") == 0.5
    assert with_more.unjudged == {"r": ("9",)}
    # Judged and other measures whose providers stumble over an empty ranking
    empty = evaluate(
        {"r": run_of({"1": ""})}, {"1": {"a": 1}}, ["Judged@10", "Judged", "nDCG@5", "RBP(rel=1)"]
    )
    assert set(empty.means.values()) == {0.0}


rankings = st.permutations("abcdefgh").flatmap(lambda p: st.integers(1, 8).map(lambda n: "".join(p[:n])))


@given(st.dictionaries(st.sampled_from("123"), rankings, min_size=1),
       st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([0, 1, 3]), min_size=1))  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_any_run_equals_ir_measures(hits, grades):
    names = ["nDCG@3", "nDCG@20", "AP", "R@5", "RR", "P@2", "Rprec", "Bpref", "Success@1", "Judged@4"]
    qrels = dict.fromkeys("123", grades)
    table = evaluate({"r": run_of(hits)}, qrels, names)
    plain = {q: {d: 100.0 - i for i, d in enumerate(docs)} for q, docs in hits.items()}
    theirs = ir_measures.calc_aggregate([ir_measures.parse_measure(n) for n in names], qrels, plain)
    for measure, value in theirs.items():
        assert table.mean("r", str(measure)) == pytest.approx(value, abs=1e-9)


def test_a_negative_grade_is_not_judged():
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


@pytest.mark.parametrize(
    ("name", "told"),
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
def test_a_measure_that_cannot_be_is_one_line_and_no_crash(name, told):
    with pytest.raises(InputError) as error:
        parse_measure(name)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


QUERIES = {
    "1": Item("1", lang="eng", meta={"kind": "text to text"}),
    "2": Item("2", lang="zho", meta={"kind": "text to photo"}),
    "3": Item("3", lang="eng", meta={"kind": "text to photo"}),
    "4": Item("4"),
}
GRADES = {query: {"a": 1} for query in "1234"}
GOOD = run_of({"1": "ab", "2": "ab", "3": "ba", "4": "ab"}, **QUERIES)
POOR = run_of({"1": "ba", "2": "bca", "3": "bcda", "4": "ab"}, **QUERIES)


def test_means_per_language_and_per_kind():
    table = evaluate({"good": GOOD, "poor": POOR}, GRADES, ["RR", "P@1"], per="lang")
    assert table.groups == ("all", "eng", "zho", "unknown")
    assert table.counts == {"all": 4, "eng": 2, "zho": 1, "unknown": 1}
    assert table.mean("good", "RR", "eng") == 0.75
    assert table.mean("poor", "RR", "zho") == pytest.approx(1 / 3)
    assert table.mean("good", "RR") == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    kinds = evaluate({"good": GOOD}, GRADES, ["RR"], per="kind")
    assert kinds.groups == ("all", "text to photo", "text to text", "unknown")
    assert kinds.mean("good", "RR", "text to photo") == 0.75
    bare = run_of({"1": "ab", "2": "ba"})  # bare ids, the topics given apart
    given_apart = evaluate({"bare": bare}, GRADES, ["RR"], per="lang", queries=QUERIES.values())
    assert given_apart.mean("bare", "RR", "zho") == 0.5
    with pytest.raises(InputError, match="no query has a language"):
        evaluate({"bare": bare}, GRADES, ["RR"], per="lang")
    with pytest.raises(InputError, match=r"unknown group of queries 'knd'; did you mean kind\?"):
        evaluate({"good": GOOD}, GRADES, ["RR"], per="knd")
    for bad in (("x", "RR", "all"), ("good", "x", "all"), ("good", "RR", "x")):
        with pytest.raises(InputError, match="unknown"):
            table.mean(*bad)


def test_means_per_document_language():
    # c and p are Chinese and Persian, u has no known language and stays in both rankings
    qrels = {"1": {"c": 1, "p": 1}, "2": {"p": 1, "c": 0}}
    run = run_of({"1": "upc", "2": "cup"})
    table = evaluate({"r": run}, qrels, ["RR"], per="doc_lang", doc_langs={"c": "zho", "p": "fas"})
    assert table.counts == {"all": 2, "fas": 2, "zho": 1}  # query 2 has nothing relevant in Chinese
    assert table.mean("r", "RR", "zho") == 0.5
    assert table.mean("r", "RR", "fas") == 0.5

    class Docs:
        def get(self, ids):
            return [Item(id, lang={"c": "zho", "p": "fas"}.get(id)) for id in ids]

    from_docs = evaluate({"r": Run(run.queries, run.hits, docs=Docs())}, qrels, ["RR"], per="doc_lang")
    assert from_docs.means == table.means
    with pytest.raises(InputError, match="no relevant document has a language"):
        evaluate({"r": run}, qrels, ["RR"], per="doc_lang")


def many(seed: int, better: float, n: int = 40) -> Run:
    """One relevant document `a`, nearer to the top the larger `better` is."""
    chance = np.random.default_rng(seed)
    hits = {}
    for query in range(n):
        others = list("bcdefghij")
        place = min(9, int(chance.exponential(4 / better)))
        hits[str(query)] = "".join([*others[:place], "a", *others[place:]])
    return run_of(hits)


SYSTEMS = {"base": many(1, 1), "same": many(1, 1), "better": many(2, 6), "alike": many(3, 1.1)}
ONE = {str(query): {"a": 1} for query in range(40)}


def test_significance_is_scipys_with_holms_correction():
    table = evaluate(SYSTEMS, ONE, ["RR", "P@1"], baseline="base")
    values = {name: [table.values[name]["RR"][q] for q in ONE] for name in SYSTEMS}
    for name in ("better", "alike"):
        compared = table.comparisons[name, "RR"]
        assert compared.p == pytest.approx(scipy.stats.ttest_rel(values[name], values["base"]).pvalue)
        assert compared.difference == pytest.approx(table.mean(name, "RR") - table.mean("base", "RR"))
        assert compared.corrected >= compared.p
    same = table.comparisons["same", "RR"]
    assert (same.p, same.corrected, same.difference, same.better, same.worse) == (1, 1, 0, 0, 0)
    best = table.comparisons["better", "RR"]
    assert best.significant
    assert best.corrected == pytest.approx(3 * best.p)  # the smallest of three
    assert not table.comparisons["alike", "RR"].significant
    assert best.better > best.worse
    assert ("base", "RR") not in table.comparisons
    assert evaluate(SYSTEMS, ONE, ["RR"], baseline=0).baseline == "base"


def test_the_randomisation_test_agrees_and_is_repeatable_and_exact_when_small():
    t = evaluate(SYSTEMS, ONE, ["RR"], baseline="base")
    first, second = (
        evaluate(SYSTEMS, ONE, ["RR"], baseline="base", test="randomisation", seed=5) for _ in "ab"
    )
    assert first == second
    for name in ("better", "alike"):
        assert first.comparisons[name, "RR"].p == pytest.approx(t.comparisons[name, "RR"].p, abs=0.05)
    assert first.comparisons["same", "RR"].p == 1
    # Four queries, every one better by another amount: 2 of 16 sign patterns are as extreme.
    qrels = {q: {"a": 1} for q in "1234"}
    worse = run_of({"1": "ba", "2": "bca", "3": "bcda", "4": "bcdea"})
    small = evaluate(
        {"w": worse, "b": run_of(dict.fromkeys("1234", "a"))}, qrels, ["RR"], baseline=0, test="randomisation"
    )
    assert small.comparisons["b", "RR"].p == pytest.approx(2 / 16)


KINDS = [Item(str(n), meta={"kind": "alone" if n == 0 else "odd" if n % 2 else "even"}) for n in range(40)]


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_every_group_is_tested_over_its_own_queries(correction):
    table = evaluate(
        SYSTEMS, ONE, ["RR", "P@1"], per="kind", queries=KINDS, baseline="base", correction=correction
    )
    assert table.groups == ("all", "alone", "even", "odd")
    plain = evaluate(SYSTEMS, ONE, ["RR", "P@1"], baseline="base", correction=correction)
    assert table.comparisons == plain.comparisons  # groups change nothing over all queries
    assert plain.group_comparisons == {}
    for group in ("even", "odd"):
        members = [item.id for item in KINDS if item.meta["kind"] == group]
        ps = []
        for system in ("same", "better", "alike"):
            found = table.comparison(system, "RR", group)
            ours, base = ([table.values[s]["RR"][q] for q in members] for s in (system, "base"))
            if system != "same":
                assert found.p == pytest.approx(scipy.stats.ttest_rel(ours, base).pvalue)
            assert found.difference == pytest.approx(np.mean(ours) - np.mean(base))
            assert found.better == sum(o > b for o, b in zip(ours, base, strict=True))
            ps.append(found.p)
        corrected = {"holm": holm, "bonferroni": bonferroni}[correction](ps)
        assert [table.comparison(s, "RR", group).corrected for s in ("same", "better", "alike")] == corrected
        assert table.comparison("better", "RR", group).significant
    alone = table.comparison("better", "RR", "alone")
    assert math.isnan(alone.p)
    assert math.isnan(alone.corrected)
    assert not alone.significant
    assert table.comparison("base", "RR", "odd") is None
    assert table.comparison("better", "RR") is table.comparisons["better", "RR"]


def test_groups_are_marked_and_told():
    table = evaluate(SYSTEMS, ONE, ["RR"], per="kind", queries=KINDS, baseline="base")
    heads, better = table.markdown().split("**RR per kind**")[1].strip().splitlines()[0::4][:2]
    assert heads == "| system | all (40) | alone (1) | even (19) | odd (20) |"
    assert better.startswith("| better |")
    assert ["†" in cell for cell in better.split("|")[2:-1]] == [True, False, True, True]
    assert "† per kind: tested over the queries of the group alone" in table.markdown()
    assert "one query allows no test: alone" in str(table)
    marked = next(
        line for line in table.latex().split("RR per kind")[1].splitlines() if line.startswith("better")
    )
    assert [r"$^\dagger$" in cell for cell in marked.split("&")[1:]] == [True, False, True, True]
    told = json.loads(json.dumps(table.to_json(), allow_nan=False))["systems"][2]["against_baseline"]["RR"]
    assert told["p"] == table.comparisons["better", "RR"].p
    assert set(told["groups"]) == {"alone", "even", "odd"}
    assert told["groups"]["odd"]["p"] == table.comparison("better", "RR", "odd").p
    assert told["groups"]["alone"]["p"] is told["groups"]["alone"]["corrected"] is None
    without = evaluate(SYSTEMS, ONE, ["RR"], baseline="base").to_json()["systems"][2]["against_baseline"][
        "RR"
    ]
    assert "groups" not in without
    assert without["p"] == told["p"]


def test_document_languages_are_tested_on_their_own_rankings():
    qrels = {q: {"c": 1, "p": 1} for q in "12345"}
    langs = {"c": "zho", "x": "zho", "p": "fas"}
    base = run_of({"1": "xcp", "2": "xcp", "3": "xcp", "4": "xcp", "5": "cxp"})
    other = run_of({"1": "cxp", "2": "cxp", "3": "cxp", "4": "cxp", "5": "cxp"})
    table = evaluate({"base": base, "other": other}, qrels, ["RR", "PEER@20"], per="doc_lang", doc_langs=langs,
                     baseline="base")  # fmt: skip
    chinese = table.comparison("other", "RR", "zho")
    assert (chinese.difference, chinese.better, chinese.worse) == (pytest.approx(0.4), 4, 0)
    assert chinese.p == pytest.approx(scipy.stats.ttest_1samp([0.5, 0.5, 0.5, 0.5, 0], 0).pvalue)
    persian = table.comparison("other", "RR", "fas")
    assert (persian.p, persian.difference) == (1, 0)
    assert table.comparison("other", "PEER@20", "zho") is None  # one language has no PEER
    assert "PEER@20" in table.to_json()["systems"][1]["against_baseline"]
    assert table.to_json()["systems"][1]["against_baseline"]["PEER@20"]["groups"] == {}


def tabulars(latex: str) -> list[list[str]]:
    """The lines of every tabular; asserts that braces and environments are closed and cells are as many as columns."""
    bare = latex.replace("\\\\", "").replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    for environment in ("table", "tabular", "minipage"):
        assert latex.count(f"\\begin{{{environment}}}") == latex.count(f"\\end{{{environment}}}")
    found = []
    for part in latex.split(r"\begin{tabular}{@{}")[1:]:
        columns, body = part.split("@{}}\n", 1)
        lines = [line for line in body.split(r"\end{tabular}")[0].splitlines() if line.endswith(r"\\")]
        width = 1 + columns.count("r") if columns[0] == "l" else 1 + columns.split("}")[1].count("r")
        assert all(len(re.split(r"(?<!\\)&", line)) == width for line in lines)
        found.append(lines)
    return found


def test_latex():
    awful = r"[x] \input{y} a & b_<c> 50% #1 $m$ ~^ a--b"
    table = evaluate(SYSTEMS | {awful: many(7, 1), "* star": many(8, 1)}, ONE, ["RR", "P@1"], per="kind",
                     queries=KINDS, baseline="base", interval=0.95)  # fmt: skip
    latex = table.latex(caption="A_B", label="tab:x")
    main, rr, p1 = tabulars(latex)
    assert len(main) == len(rr) == len(p1) == 1 + len(table.systems)
    assert main[0] == r"system (40 queries) & RR & P@1 \\"
    assert main[3].count(r"\textbf{") == 2  # best of both columns
    assert main[3].startswith(rf"\raggedright better & \textbf{{{table.mean('better', 'RR'):.4f}$^\dagger$ [")
    assert main[5].startswith(
        r"\raggedright {[}x] \textbackslash{}input\{y\} a \& b\_\textless{}c\textgreater{} 50\% \#1 \$m\$ "
        r"\textasciitilde{}\textasciicircum{} a-{}-b &"
    )
    assert main[6].startswith(r"\raggedright {*} star &")
    assert r"\caption{A\_B: RR per kind}" in latex
    assert re.findall(r"\\label{(.*?)}", latex) == ["tab:x", "tab:x-2", "tab:x-3"]
    assert r"\par $^\dagger$ differs from base (two-sided paired t-test, Holm-corrected" in latex
    assert "xelatex" in latex.lower()
    for command in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert latex.count(command) == 3


def test_a_grid_too_wide_for_a_page_becomes_several():
    grid = Grid("wide", ("system", *map(str, range(30))), ((Cell("one"), *[Cell("0.1234 [0.1, 0.2]")] * 30),))
    parts = tabulars(latex_of([grid]))
    assert len(parts) > 3
    heads = [re.split(" & ", part[0].removesuffix(r" \\")) for part in parts]
    assert [column for head in heads for column in head[1:]] == list(map(str, range(30)))
    assert all(head[0] == "system" for head in heads)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]) == []
    found = holm([math.nan, 0.02, 0.03])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.04])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_and_keeps_the_order(ps):
    corrected = holm(ps)
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert sorted(corrected) == pytest.approx([corrected[i] for i in order])


def test_bonferroni_by_hand():
    assert bonferroni([0.01, 0.04, 0.5]) == pytest.approx([0.03, 0.12, 1])
    assert bonferroni([]) == []
    found = bonferroni([math.nan, 0.02, 0.03])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.06])
    table = evaluate(SYSTEMS, ONE, ["RR"], baseline="base", correction="bonferroni")
    for compared in table.comparisons.values():
        assert compared.corrected == pytest.approx(min(1, 3 * compared.p))
    assert "Bonferroni-corrected" in str(table)
    assert table.to_json()["correction"] == "bonferroni"


def test_bootstrap_intervals_are_seeded_and_agree_with_scipys():
    values = np.random.default_rng(3).random((60, 2)) ** 2
    found = bootstrap(values, 0.9, seed=1)
    for column in range(2):
        theirs = scipy.stats.bootstrap(
            (values[:, column],), np.mean, confidence_level=0.9, method="percentile", rng=2
        ).confidence_interval
        assert found[:, column] == pytest.approx([theirs.low, theirs.high], abs=0.006)
    assert np.array_equal(found, bootstrap(values, 0.9, seed=1))
    assert not np.array_equal(found, bootstrap(values, 0.9, seed=2))
    wider = bootstrap(values, 0.99, seed=1)
    assert (wider[0] < found[0]).all()
    assert (wider[1] > found[1]).all()
    assert np.array_equal(bootstrap(np.full((5, 1), 0.25)), [[0.25], [0.25]])
    assert np.isnan(bootstrap(np.ones((1, 1)))).all()


def test_every_mean_has_its_interval():
    runs = {"good": GOOD, "poor": POOR}
    table = evaluate(runs, GRADES, ["RR", "NumRel"], per="lang", interval=0.95, seed=4)
    assert table.intervals.keys() == table.means.keys()
    again = evaluate(runs, GRADES, ["RR", "NumRel"], per="lang", interval=0.95, seed=4)
    assert table.to_json() == again.to_json()
    for key, (low, high) in table.intervals.items():
        if table.counts[key[2]] > 1:
            assert low <= table.means[key] <= high
        else:
            assert math.isnan(low)
            assert math.isnan(high)
    assert table.intervals["good", "NumRel", "all"] == (4, 4)  # a total, not a mean
    low, high = table.intervals["good", "RR", "all"]
    assert (low, high) == (0.625, 1)  # three of four are 1, one is 1/2
    assert "0.8750 [0.625, 1.000]" in str(table)
    assert "95% interval of the mean" in str(table)
    told = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert told["level"] == 0.95
    assert told["systems"][0]["intervals"]["RR"] == {
        "all": [low, high], "eng": [0.5, 1.0], "zho": [None, None], "unknown": [None, None],
    }  # fmt: skip
    assert evaluate(runs, GRADES, ["RR"]).intervals is None


def test_every_topic_on_demand():
    table = evaluate({"good": GOOD, "poor": POOR}, GRADES, ["RR", "P@1"])
    assert "per topic" not in table.markdown()
    markdown = table.markdown(per_topic=True)
    assert "**RR per topic**" in markdown
    assert "| topic | good | poor |" in markdown
    assert "| 3 | **0.5000** | 0.2500 |" in markdown
    assert "| 4 | 1.0000 | 1.0000 |" in markdown  # neither is better
    one = evaluate({"poor": POOR}, GRADES, ["RR", "P@1"]).markdown(per_topic=True)
    assert "| topic | RR | P@1 |" in one
    assert "| 3 | 0.2500 | 0.0000 |" in one


def test_a_run_deeper_than_the_tracks_take_is_named():
    hits = {
        "1": [(f"d{i}", -float(i)) for i in range(1001)],
        "2": [(f"d{i}", -float(i)) for i in range(1000)],
    }
    table = evaluate({"deep": Run.of([Item("1"), Item("2")]).ranking(hits)}, {"1": {"d1000": 1}, "2": {"d0": 1}},
                     ["R@1000", "AP"])  # fmt: skip
    assert table.deep == {"deep": ("1",)}
    assert "deep has more than 1,000 hits for 1 queries" in str(table)
    assert table.to_json()["systems"][0]["deep"] == ["1"]
    assert table.mean("deep", "R@1000") == 0.5
    assert table.mean("deep", "AP") == pytest.approx((1 + 1 / 1001) / 2)
    assert evaluate({"good": GOOD}, GRADES, ["RR"]).deep == {"good": ()}


def test_two_systems_of_one_name(tmp_path):
    with pytest.raises(InputError, match="two systems have the name 'good'"):
        evaluate([("good", GOOD), ("good", POOR)], GRADES, ["RR"])
    assert evaluate([("good", GOOD), ("poor", POOR)], GRADES, ["RR"]).systems == ("good", "poor")
    GOOD.to_trec(tmp_path / "good.trec")
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("1 0 a 1\n")
    (tmp_path / "same").mkdir()
    with pytest.raises(InputError, match="given twice"):
        evaluate_files(qrels, [tmp_path / "good.trec", tmp_path / "same" / ".." / "good.trec"])


def test_the_command_line_asks_for_all_of_it(tmp_path):
    POOR.to_trec(tmp_path / "poor.trec")
    GOOD.to_trec(tmp_path / "good.trec")
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("".join(f"{q} 0 a 1\n{q} 0 b 1\n" for q in "1234"))
    (tmp_path / "langs").write_text("a zho\nb fas\n")
    arguments = [
        "evaluate", qrels, tmp_path / "good.trec", tmp_path / "poor.trec", "--langs", tmp_path / "langs",
        "--baseline", 0, "--test", "randomisation", "--correction", "bonferroni", "--interval", 0.9, "--seed", 3,
        "-m", "RR", "-m", "PEER@20", "-m", "alpha_nDCG@20", "--per-topic",
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["test"], told["correction"], told["level"]) == ("randomisation", "bonferroni", 0.9)
    assert told["measures"] == ["RR", "PEER@20", "alpha_nDCG@20"]
    assert told["per"] == "doc_lang"
    assert told["systems"][0]["values"]["alpha_nDCG@20"] == dict.fromkeys("1234", 1)
    expected = evaluate_files(qrels, [tmp_path / "good.trec", tmp_path / "poor.trec"], langs=tmp_path / "langs",
                              measures=told["measures"], baseline=0, test="randomisation",
                              correction="bonferroni", interval=0.9, seed=3)  # fmt: skip
    assert told == json.loads(json.dumps(expected.to_json(per_query=True)))
    shown = CliRunner().invoke(app, [*map(str, arguments), "--no-per-language"])
    assert "RR per topic" in shown.stdout
    assert "per doc_lang" not in shown.stdout


def test_one_query_allows_no_test():
    table = evaluate(
        {"a": run_of({"1": "a"}), "b": run_of({"1": "ba"})}, {"1": {"a": 1}}, ["RR"], baseline="a"
    )
    assert math.isnan(table.comparisons["b", "RR"].p)
    assert not table.comparisons["b", "RR"].significant
    told = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert told["systems"][1]["against_baseline"]["RR"]["p"] is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"runs": {}}, "no runs"),
        ({"qrels": {}}, "no judgements"),
        ({"measures": []}, "no measures"),
        ({"baseline": "goood"}, "unknown baseline 'goood'; did you mean good?"),
        ({"baseline": 2}, "there are 1 systems, numbered from 0"),
        ({"baseline": -1}, "there are 1 systems"),
        ({"test": "u"}, "unknown test 'u'"),
        ({"correction": "hom"}, "unknown correction 'hom'; did you mean holm?"),
        ({"interval": 95.0}, "an interval of confidence 95.0: between 0 and 1"),
        (
            {"qrels": {"x9": {"a": 1}}},
            "no query in common: the run has 1, 2, 3, ... (4 in all), the qrels have x9",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments, told):
    with pytest.raises(InputError) as error:
        evaluate(**{"runs": {"good": GOOD}, "qrels": GRADES, "measures": ["RR"]} | arguments)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_markdown_and_text_and_json():
    table = evaluate(SYSTEMS | {"a|b [red]": many(7, 1)}, ONE, ["RR", "P@1"], baseline="base")
    markdown = table.markdown()
    lines = markdown.splitlines()
    assert lines[0] == "| system (40 queries) | RR | P@1 |"
    assert lines[1] == "|---|---:|---:|"
    assert lines[2].startswith("| base | 0.")
    assert "a\\|b [red]" in markdown
    better = next(line for line in lines if line.startswith("| better"))
    assert better.count("**") == 4  # best of both columns
    assert "†" in better
    assert "Holm" in markdown
    text = str(table)
    assert "\x1b" not in text
    assert "a|b [red]" in text  # rich would take it for a colour
    for system in table.systems:
        assert f"{table.mean(system, 'RR'):.4f}" in text
    told = json.loads(json.dumps(table.to_json(per_query=True), allow_nan=False))
    assert told["measures"] == ["RR", "P@1"]
    assert told["baseline"] == "base"
    assert told["systems"][2]["name"] == "better"
    assert told["systems"][2]["means"]["RR"]["all"] == table.mean("better", "RR")
    assert told["systems"][2]["values"]["RR"]["7"] == table.values["better"]["RR"]["7"]
    assert "values" not in table.to_json()["systems"][0]


def test_groups_are_rendered_once_a_measure():
    table = evaluate({"good": GOOD, "poor": POOR}, GRADES, ["RR", "P@1"], per="kind")
    text, markdown = str(table), table.markdown()
    for title in ("RR per kind", "P@1 per kind"):
        assert text.count(title) == markdown.count(title) == 1
    assert "| system | all (4) | text to photo (2) | text to text (1) | unknown (1) |" in markdown


def test_files_and_the_language_in_column_2(tmp_path):
    GOOD.to_trec(tmp_path / "good.trec")
    (tmp_path / "other").mkdir()
    POOR.to_trec(tmp_path / "other" / "good.trec")
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("".join(f"{q} zho a 1\n{q} fas b 0\n" for q in "1234"))
    table = evaluate_files(qrels, [tmp_path / "good.trec", tmp_path / "other" / "good.trec"], measures=["RR"],
                           per_language=True, baseline=0)  # fmt: skip
    assert table.systems == (str(tmp_path / "good.trec"), str(tmp_path / "other" / "good.trec"))
    assert table.groups == ("all", "zho")
    assert (
        table.mean(table.systems[0], "RR", "zho") == 1
    )  # the Persian document above it is not of this ranking
    one = evaluate_files(qrels, [tmp_path / "good.trec"])
    assert one.systems == ("good",)
    assert one.measures == MEASURES
    with pytest.raises(InputError, match="given twice"):
        evaluate_files(qrels, [tmp_path / "good.trec"] * 2)
    qrels.write_text("1 0 a 1\n")
    with pytest.raises(InputError, match="does not tell the documents' languages"):
        evaluate_files(qrels, [tmp_path / "good.trec"], per_language=True)


def test_no_pandas_and_no_colour_when_piped():
    code = (
        "import sys; from pathlib import Path; from crosslens.evaluation.evaluate import evaluate_files;"
        f"evaluate_files(Path({str(QRELS)!r}), [Path({str(RUN)!r})]).show();"
        "print([m for m in ('pandas', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert "0.3211" in done.stdout  # nDCG@20 as ir_measures printed it when the golden run was made
    assert done.stdout.strip().endswith("[]")
    assert done.stderr == ""
