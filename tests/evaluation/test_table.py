"""A table as people and programs read it: on a terminal, in Markdown, in LaTeX and as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from crosslens.evaluation.evaluate import evaluate
from crosslens.evaluation.grids import Cell, Grid
from crosslens.indexes.base import Retrieve
from crosslens.items import Item
from crosslens.runs import Manifest, Record, Run

GOLDEN = Path(__file__).parents[1] / "golden"


def test_groups_are_marked_and_explained(systems, judged, kinds):
    table = evaluate(systems, judged, ["RR"], per="kind", queries=kinds, baseline="base")
    heads, better = table.markdown().split("**RR per kind**")[1].strip().splitlines()[0::4][:2]
    assert heads == "| system | all (40) | alone (1) | even (19) | odd (20) |"
    assert better.startswith("| better |")
    assert ["†" in cell for cell in better.split("|")[2:-1]] == [True, False, True, True]
    assert "† per kind: tested over the queries of the group alone" in table.markdown()
    assert "one query allows no test: alone" in str(table)
    marked = next(line for line in table.latex().split("RR per kind")[1].splitlines() if line.startswith("better"))
    assert [r"$^\dagger$" in cell for cell in marked.split("&")[1:]] == [True, False, True, True]
    result = json.loads(json.dumps(table.to_json(), allow_nan=False))["systems"][2]["against_baseline"]["RR"]
    assert result["p"] == table.comparisons["better", "RR"].p
    assert set(result["groups"]) == {"alone", "even", "odd"}
    assert result["groups"]["odd"]["p"] == table.comparison("better", "RR", "odd").p
    assert result["groups"]["alone"]["p"] is result["groups"]["alone"]["corrected"] is None
    without = evaluate(systems, judged, ["RR"], baseline="base").to_json()["systems"][2]["against_baseline"]["RR"]
    assert "groups" not in without
    assert without["p"] == result["p"]


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


def test_latex(systems, judged, kinds, random_run):
    awful = r"[x] \input{y} a & b_<c> 50% #1 $m$ ~^ a--b"
    table = evaluate(systems | {awful: random_run(7, 1), "* star": random_run(8, 1)}, judged, ["RR", "P@1"], per="kind",
                     queries=kinds, baseline="base", interval=0.95)  # fmt: skip
    latex = table.latex(caption="A_B", label="tab:x")
    main, against, rr, p1 = tabulars(latex)
    assert len(against) == 1 + 2 * (len(table.systems) - 1)
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
    assert re.findall(r"\\label{(.*?)}", latex) == ["tab:x", "tab:x-2", "tab:x-3", "tab:x-4"]
    assert r"\par $^\dagger$ differs from base (two-sided paired t-test, Holm-corrected" in latex
    assert "xelatex" in latex.lower()
    for command in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert latex.count(command) == 4


def test_a_grid_too_wide_for_a_page_is_turned():
    rows = tuple((Cell(name), *[Cell("0.1234 [0.1, 0.2]", name == "two")] * 30) for name in ("one", "two"))
    grid = Grid("wide", ("system", *map(str, range(30))), rows, ("a note",))
    ((head, *lines),) = tabulars(grid.latex("x", "tab:x"))
    assert head == r"system & one & two \\"
    assert [line.split(" & ")[0] for line in lines] == list(map(str, range(30)))
    assert lines[7] == r"7 & 0.1234 [0.1, 0.2] & \textbf{0.1234 [0.1, 0.2]} \\"
    assert r"\caption{x: wide}" in grid.latex("x")
    narrow = Grid("", ("system", "a", "b"), ((Cell("one"), Cell("1"), Cell("2")),))
    assert tabulars(narrow.latex()) == [[r"system & a & b \\", r"one & 1 & 2 \\"]]
    long = Grid("", ("system", "a" * 200), ((Cell("one"), Cell("1")), (Cell("two"), Cell("2"))))
    assert len(tabulars(long.latex())[0]) == 2  # a row and a head: narrower so


def test_differences_to_the_baseline_with_p_and_the_queries_that_decide(systems, judged):
    table = evaluate(systems, judged, ["RR", "P@1"], baseline="base")
    text = table.markdown().split("**against base**")[1].split("\n\n")[1].splitlines()
    assert text[0] == "| system | measure | difference | p | corrected p | better | equal | worse |"
    assert "| same | P@1 | +0.0000 | 1.0000 | 1.0000 | 0 | 40 | 0 |" in text
    best = table.comparison("better", "RR")
    values = [table.values[name]["RR"] for name in ("better", "base")]
    better, worse = (sum(a > b for a, b in zip(*pair, strict=True))
                     for pair in ([v.values() for v in values], [v.values() for v in reversed(values)]))  # fmt: skip
    assert (best.better, best.equal, best.worse) == (better, 40 - better - worse, worse)
    assert f"| better | RR | {best.difference:+.4f} | < 0.0001 | < 0.0001 | {better} | {best.equal} | {worse} |" in text
    assert len(text) == 2 + 3 * 2
    assert "against base" not in evaluate(systems, judged, ["RR"]).markdown()


def test_frames_have_every_mean_and_every_query(systems, judged, kinds):
    table = evaluate(systems, judged, ["RR", "P@1"], per="kind", queries=kinds, baseline="base", interval=0.9)
    frame = table.to_df().set_index(["name", "measure", "group"])
    assert len(frame) == 4 * 2 * 4
    assert frame["value"].to_dict() == table.means
    row = frame.loc[("better", "RR", "odd")]
    found = table.comparison("better", "RR", "odd")
    assert (row["queries"], row["p"], row["equal"]) == (20, found.p, found.equal)
    assert (row["low"], row["high"]) == table.intervals["better", "RR", "odd"]
    assert frame.loc[("base", "RR", "all"), ["difference", "p"]].isna().all()
    every = table.to_df(per_query=True)
    assert list(every.columns) == ["name", "qid", "measure", "value"]
    assert len(every) == 4 * 40 * 2
    means = every.groupby(["name", "measure"])["value"].mean()
    assert means["better", "RR"] == pytest.approx(table.mean("better", "RR"))
    assert list(evaluate(systems, judged, ["RR"]).to_df().columns) == ["name", "measure", "group", "queries", "value"]


def test_few_queries_and_systems_that_rank_alike_are_named(run_of, grades):
    def made(hits, *stages):
        records = tuple(Record(stage, f"{hash((stage, hits)) % 10**12:012}", 0.1) for stage in stages)
        return replace(run_of(dict.fromkeys("1234", hits)), manifest=Manifest(records))

    def retrieve(mode, **settings):
        return str(Retrieve(None, mode, **settings))

    runs = {
        "dense": made("ab", retrieve("dense")),
        "uncorrected": made("ab", retrieve("dense", correct=False)),
        "hybrid": made("ab", retrieve("hybrid")),
        "reranked": made("ab", retrieve("dense"), "rerank(x)"),
        "again": made("ab", retrieve("dense")),
        "foreign": made("ab"),
        "other": made("ba", "lexical"),
    }
    table = evaluate(runs, grades, ["RR"])
    assert [note.removeprefix("dense and ") for note in table.alike] == [
        "uncorrected have the same rankings: the language correction changed none, and is off where all documents are "
        "in English, or fewer than 100 in one other language",
        "hybrid have the same rankings: full text changed none: no document in a query's language has its words, or it "
        "agreed",
        "reranked have the same rankings: rerank(x) changed none",
        "again have the same rankings: the same stages made them",
        "foreign have the same rankings",
    ]
    assert table.to_json()["alike"] == list(table.alike)
    assert "4 queries are few: means and differences may be chance" in str(table)
    assert "reranked have the same rankings" in str(table)
    ten = {str(n): {"a": 1} for n in range(10)}
    full = evaluate({"a": run_of(dict.fromkeys(ten, "ab")), "b": run_of(dict.fromkeys(ten, "ba"))}, ten, ["RR"])
    assert "few" not in str(full)
    assert full.alike == ()
    nothing = Run.of([Item("1")])
    assert evaluate({"a": nothing, "b": nothing}, grades, ["RR"]).alike == ()


def test_every_topic_on_demand(grades, good, poor):
    table = evaluate({"good": good, "poor": poor}, grades, ["RR", "P@1"])
    assert "per topic" not in table.markdown()
    markdown = table.markdown(per_topic=True)
    assert "**RR per topic**" in markdown
    assert "| topic | good | poor |" in markdown
    assert "| 3 | **0.5000** | 0.2500 |" in markdown
    assert "| 4 | 1.0000 | 1.0000 |" in markdown  # neither is better
    one = evaluate({"poor": poor}, grades, ["RR", "P@1"]).markdown(per_topic=True)
    assert "| topic | RR | P@1 |" in one
    assert "| 3 | 0.2500 | 0.0000 |" in one


def test_markdown_and_text_and_json(systems, judged, random_run):
    table = evaluate(systems | {"a|b [red]": random_run(7, 1)}, judged, ["RR", "P@1"], baseline="base")
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
    result = json.loads(json.dumps(table.to_json(per_query=True), allow_nan=False))
    assert result["measures"] == ["RR", "P@1"]
    assert result["baseline"] == "base"
    assert result["systems"][2]["name"] == "better"
    assert result["systems"][2]["means"]["RR"]["all"] == table.mean("better", "RR")
    assert result["systems"][2]["values"]["RR"]["7"] == table.values["better"]["RR"]["7"]
    assert "values" not in table.to_json()["systems"][0]


def test_groups_are_rendered_once_a_measure(grades, good, poor):
    table = evaluate({"good": good, "poor": poor}, grades, ["RR", "P@1"], per="kind")
    text, markdown = str(table), table.markdown()
    for title in ("RR per kind", "P@1 per kind"):
        assert text.count(title) == markdown.count(title) == 1
    assert "| system | all (4) | text to photo (2) | text to text (1) | unknown (1) |" in markdown


def test_no_pandas_and_no_colour_when_piped():
    code = (
        "import sys; from pathlib import Path; from crosslens.evaluation.evaluate import evaluate_files;"
        f"evaluate_files(Path({str(GOLDEN / 'qrels.txt')!r}), [Path({str(GOLDEN / 'run.trec')!r})]).show();"
        "print([m for m in ('pandas', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout
    assert "0.3211" in done.stdout  # nDCG@20 as ir_measures printed it when the golden run was made
    assert done.stdout.strip().endswith("[]")
    assert done.stderr == ""
