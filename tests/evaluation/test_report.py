"""The report of an experiment: from real tables over synthetic runs, looked at as a reader and a parser see it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
import scipy.stats
from crosslens.evaluation.evaluate import evaluate
from crosslens.evaluation.experiment.examples import choose_examples
from crosslens.evaluation.experiment.results import Cost, Outcome, Part, Results
from crosslens.evaluation.grids import format_p
from crosslens.evaluation.report import plots, render, svg
from crosslens.evaluation.report.render import make_anchors, render_report, write_report
from crosslens.items import Item
from crosslens.multilingual.collections.base import CollectionCounts
from crosslens.runs import Run
from stand_ins.table import table

AWFUL = "a & b_<x>"
SYSTEMS = ("lexical", AWFUL, "混合检索（密集与词汇）", "جستجوی ترکیبی $x$")
LANGS = ("eng", "zho", "fas")
MANY = (
    *("ara", "ben", "ces", "dan", "deu", "ell", "eng", "est", "fas", "fin", "fra", "heb", "hin", "hun", "ind"),
    *("ita", "jpn", "kor", "lav", "lit", "nld", "nor", "pol", "por", "ron", "rus", "spa", "swe", "tha", "tur"),
)
SVG = "{http://www.w3.org/2000/svg}"


def part(
    name: str = "news <1>",
    systems: tuple[str, ...] = SYSTEMS,
    n: int = 28,
    baseline: str | None = "lexical",
    per: str | None = "lang",
    interval: float | None = 0.95,
    langs: tuple[str, ...] = LANGS,
) -> Part:
    """Later systems put the one relevant document nearer to the top, and take ten times as long."""
    chance = np.random.default_rng(3)
    queries = [Item(f"q{i}", lang=langs[i % len(langs)]) for i in range(n)]
    runs = {}
    for place, system in enumerate(systems):
        hits = {}
        for query in queries:
            above = min(19, int(chance.exponential(8 / (1 + place))))
            docs = [f"d{i}" for i in range(above)] + ["relevant"] + [f"e{i}" for i in range(3)]
            hits[query.id] = [(doc, -float(rank)) for rank, doc in enumerate(docs)]
        runs[system] = Run.of(queries).ranking(hits)
    qrels = {query.id: {"relevant": 1} for query in queries}
    table = evaluate(runs, qrels, ["nDCG@20", "RR"], per=per, baseline=baseline, interval=interval)
    outcomes = {
        system: Outcome(
            system,
            f"retrieve % {place} >> <rerank>",
            f"news/{place} x",
            Cost(n * 0.01 * 10**place, 1000 * place, 7 * place, 2**30 if place else None),
            n,
            ("lexical<1>",) if place == 1 else (),
        )
        for place, system in enumerate(systems)
    }
    counts = CollectionCounts(1234, {"zho": 1000, "fas": 233, "": 1}, {"image": 2}, n, 3 * n, n)
    index = {"directory": "news/<index>", "documents": 1234, "encoders": ["e5 <small>"], "seconds": 1.5}
    return Part(name, counts, {"eng": n}, table, outcomes, (index,))


@pytest.fixture(scope="module")
def results() -> Results:
    plan = {"systems": {AWFUL: "</pre><script>alert(1)</script>"}, "fence": "````"}
    return Results("Test <b> & co", plan, (part(), part("ニュース", SYSTEMS[:2])), {"date": "2026-01-02", "versions": {"crosslens": "0.1"}})  # fmt: skip


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return render_report(results, "report.html")


class Page(HTMLParser):
    """Ids, links, text and tags of a page; asserts that elements are closed in order."""

    EMPTY = frozenset(["meta", "br", "img", "link"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.cells: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert not any(name.startswith("on") for name in given)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src", "xlink:href") if name in given]
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


def test_the_page_is_whole_escaped_and_needs_nothing_else(page, results):
    read = Page(page)
    assert {"script", "b", "x", "rerank"} & set(read.tags) == {"b"}  # the b of the list of systems alone
    assert page.count("<b>") == page.count("<li id=") == 6
    assert "a &amp; b_&lt;x&gt;" in page
    assert "<title>Test &lt;b&gt; &amp; co</title>" in page
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)" in page
    assert len(read.ids) == len(set(read.ids))
    inside = [link[1:] for link in read.links if link.startswith("#")]
    assert set(inside) <= set(read.ids)
    assert {"news-1", "ニュース", "news-1--a-b_-x", "news-1--lexical", "plan", "versions"} <= set(inside)
    others = {link for link in read.links if not link.startswith("#")}
    assert others == {f"news/{n}%20x/" for n in range(4)}
    assert "http" not in re.sub(r"xmlns=\"[^\"]*\"", "", page)
    assert "url(" not in page


def test_the_page_has_every_number(page, results):
    rows = {tuple(cells) for cells in Page(page).cells}
    for each in results.parts:
        table = each.table
        for system in table.systems:
            for measure in table.measures:
                mean = f"{table.mean(system, measure):.4f}"
                assert any(row[0] == system and any(cell.startswith(mean) for cell in row[1:]) for row in rows)
            found = table.comparison(system, "RR")
            if found is not None:
                numbers = (f"{found.difference:+.4f}", format_p(found.p), format_p(found.corrected))
                equal = str(28 - found.better - found.worse)
                assert (system, *numbers, str(found.better), equal, str(found.worse)) in rows
    assert (AWFUL, "2.8", "0.1000", "7", "1,000", "1,024", "1") in rows
    assert ("lexical", "0.3", "0.0100", "0", "0", "–", "0") in rows
    summary = next(cells for cells in Page(page).cells if cells[0] == SYSTEMS[2])
    assert summary[1].startswith(f"{results.parts[0].table.mean(SYSTEMS[2], 'nDCG@20'):.4f}")
    assert summary[2] == "–"  # the second collection was not searched by it
    for said in ("1,234 documents: 1,000 zho, 233 fas, 1 of unknown language; 2 images", "84 judgements, 28 relevant",
                 "Index of 1,234 documents by e5 &lt;small&gt;, lance, made in 1.5 s",
                 "reused: lexical&lt;1&gt;", "retrieve % 1 &gt;&gt; &lt;rerank&gt;", "4 systems on 2 collections, 2026-01-02"):  # fmt: skip
        assert said in page


def test_p_values_of_groups_are_scipys(results):
    table = results.parts[0].table
    grid = render.tabulate_differences(table, "nDCG@20")[1]
    assert grid.head == ("system", "eng (10)", "fas (9)", "zho (9)")
    for column, lang in enumerate(("eng", "fas", "zho"), 1):
        members = [q for q in table.values["lexical"]["nDCG@20"] if LANGS[int(q[1:]) % 3] == lang]
        values = {s: np.array([table.values[s]["nDCG@20"][q] for q in members]) for s in SYSTEMS}
        ps = [scipy.stats.ttest_rel(values[s], values["lexical"]).pvalue for s in SYSTEMS[1:]]
        corrected = np.empty(3)
        highest = 0.0
        for rank, place in enumerate(np.argsort(ps)):  # Holm's, by hand
            highest = max(highest, min(1, (3 - rank) * ps[place]))
            corrected[place] = highest
        for row, system, p in zip(grid.rows, SYSTEMS[1:], corrected, strict=True):
            difference = (values[system] - values["lexical"]).mean()
            assert row[column].text == f"{difference:+.4f} ({format_p(p)})"


def test_the_same_results_give_the_same_bytes(page, results):
    assert render_report(results, "report.html") == page
    assert render_report(results, "tables.md") == render_report(results, "tables.md")
    assert render_report(results, "tables.tex") == render_report(results, "tables.tex")
    script = (
        "import hashlib, sys; sys.path[:0] = sys.argv[1:]; import test_report as t;"
        "from crosslens.evaluation.report.render import render_report; from crosslens.evaluation.experiment.results import Results;"
        "print(hashlib.sha256(render_report(Results('x', {}, (t.part(),), {}), 'report.html').encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, Path(__file__).parents[:2])],
        env=os.environ | {"PYTHONHASHSEED": "1"},  # sets have another order there
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = render_report(Results("x", {}, (part(),), {}), "report.html")
    assert done.stdout.strip() == hashlib.sha256(here.encode()).hexdigest()


def titles(drawn: str) -> list[str]:
    """The tooltips of an SVG; asserts that it is XML, on its own, and holds nothing that reaches out of it."""
    root = ElementTree.fromstring(drawn)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    allowed = {f"{SVG}{tag}" for tag in ("svg", "g", "path", "text", "rect", "circle", "title")}
    assert {element.tag for element in root.iter()} <= allowed
    assert not any("id" in element.attrib or "clip-path" in element.attrib for element in root.iter())
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for text in root.iter(f"{SVG}text"):
        if "rotate" not in text.get("transform", ""):
            x, y = float(text.attrib["x"]), float(text.attrib["y"])
            long = svg.estimate_width(text.text or "")
            anchor = next((a for a in ("middle", "end") if f"text-anchor: {a}" in text.attrib["style"]), "start")
            left = x - {"start": 0, "middle": long / 2, "end": long}[anchor]
            assert left >= -1, text.text
            assert left + long <= width + 1, text.text
            assert 0 < y <= height, text.text
    marks = [element for element in root.iter() if element.find(f"{SVG}title") is not None]
    shapes = {f"{SVG}circle", f"{SVG}path"}
    assert all(sum(shape.tag in shapes for shape in mark.iter()) == 1 for mark in marks)
    assert not re.search("#01020.", drawn)
    return [element.findtext(f"{SVG}title") for element in marks]


def heights(drawn: str) -> dict[str, float]:
    """Query -> how high its bar is, in points."""
    found = {}
    for bar in ElementTree.fromstring(drawn).iter():
        if (title := bar.findtext(f"{SVG}title")) is not None:
            ys = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", bar.find(f"{SVG}path").attrib["d"])]
            found[title.partition(":")[0]] = max(ys) - min(ys)
    return found


def test_a_bar_for_every_query(results):
    table = results.parts[0].table
    drawn = plots.plot_queries(table)
    assert [panel.title for panel in drawn.panels] == list(SYSTEMS[1:])
    base = table.values["lexical"]["nDCG@20"]
    for panel in drawn.panels:
        ours = table.values[panel.title]["nDCG@20"]
        result = titles(panel.svg)
        assert sorted(result) == sorted(f"{q}: {ours[q]:.4f}, baseline {base[q]:.4f}" for q in base)
        better, worse = sum(ours[q] > base[q] for q in base), sum(ours[q] < base[q] for q in base)
        assert panel.remark == f"{better} better, {worse} worse, {28 - better - worse} the same"
        # On one scale: the height of a bar is its difference.
        most = max(abs(table.values[s]["nDCG@20"][q] - base[q]) for s in SYSTEMS[1:] for q in base)
        bars = heights(panel.svg)
        assert len(bars) == 28
        for query, height in bars.items():
            assert height == pytest.approx(abs(ours[query] - base[query]) / (2.1 * most) * 166, abs=0.01)


def test_a_dot_for_every_system_in_every_group(results):
    table = results.parts[0].table
    drawn = plots.plot_groups(table)
    assert [(p.title, p.remark) for p in drawn.panels] == [("eng", "10 queries"), ("fas", "9 queries"), ("zho", "9 queries")]  # fmt: skip
    for panel in drawn.panels:
        result = titles(panel.svg)
        assert len(result) == 4
        for system in SYSTEMS:
            line = next(title for title in result if title.startswith(f"{panel.title}, {system}: "))
            assert f"{table.mean(system, 'nDCG@20', panel.title):.4f}" in line
    one = plots.plot_groups(part(systems=("lexical",), baseline=None).table)
    assert [panel.title for panel in one.panels] == ["lexical"]
    assert [title.split(",")[0] for title in titles(one.panels[0].svg)] == ["eng", "fas", "zho"]
    many = part(n=60, langs=MANY)
    drawn = plots.plot_groups(many.table)
    assert len(drawn.panels) == plots.MOST_GROUPS
    assert "24 groups with the most queries of 30" in drawn.caption


def test_quality_against_cost_and_its_front():
    drawn = plots.plot_costs(part())
    (panel,) = drawn.panels
    result = titles(panel.svg)
    assert sorted(title.partition(": nDCG")[0] for title in result) == sorted(SYSTEMS)
    assert any(title.endswith("0.01 seconds a query") for title in result)
    points = {"a": (1.0, 0.5), "slow": (2.0, 0.5), "b": (3.0, 0.7), "worse": (3.0, 0.6), "c": (9.0, 0.9)}
    assert plots.find_front(points) == ["a", "b", "c"]
    numbers = [text.text for text in ElementTree.fromstring(panel.svg).iter(f"{SVG}text")]
    assert {"1", "2", "3", "4"} < set(numbers)
    assert [f"{system}: {text}" for system, text in drawn.legend] == result


@table("seconds", [(1, 1.01), (1, 9), (0.03, 28), (1e-3, 1e3), (1e-9, 1e9)])
def test_the_scale_of_seconds_has_a_few_round_numbers(seconds):
    two = part(systems=SYSTEMS[:2])
    costs = zip(two.outcomes.items(), seconds, strict=True)
    outcomes = {system: replace(of, cost=Cost(each * of.queries)) for (system, of), each in costs}
    (panel,) = plots.plot_costs(replace(two, outcomes=outcomes)).panels
    texts = [text.text for text in ElementTree.fromstring(panel.svg).iter(f"{SVG}text")]
    ticks = texts[: texts.index("seconds a query (log scale)")]
    assert 3 <= len(ticks) <= 14
    assert {tick[0] for tick in ticks} <= set("0125")


def test_systems_at_one_point_share_a_label():
    (panel,) = plots.plot_costs(twins := part(systems=("a", "b"), baseline="a")).panels
    assert len(titles(panel.svg)) == 2
    outcomes = {system: replace(of, cost=Cost(1.0)) for system, of in twins.outcomes.items()}
    table = replace(twins.table, means=dict.fromkeys(twins.table.means, 0.5))
    (panel,) = plots.plot_costs(replace(twins, table=table, outcomes=outcomes)).panels
    assert len(titles(panel.svg)) == 2
    assert "1, 2" in [text.text for text in ElementTree.fromstring(panel.svg).iter(f"{SVG}text")]


def test_what_cannot_be_drawn_is_said():
    alone = part(systems=("lexical",), baseline=None, per=None, interval=None)
    page = render_report(Results("one", {}, (alone,)), "report.html")
    assert "No plot of quality against cost: there is one system." in page
    assert "No plot by group: the queries were not evaluated in groups." in page
    assert "No plot of differences by query: there is one system." in page
    assert "<svg" not in page
    assert "<details" not in page  # nothing about the other measure that the table over all queries lacks
    assert "first measure" not in page.lower()  # one collection needs no summary
    two = part(systems=SYSTEMS[:2], baseline=None)
    assert "no baseline" in plots.plot_queries(two.table).caption
    assert render.tabulate_differences(two.table, "RR") == []
    free = {system: replace(of, cost=Cost(0.0)) for system, of in two.outcomes.items()}
    assert "fewer than two systems have measured seconds" in plots.plot_costs(replace(two, outcomes=free)).caption  # fmt: skip
    three = part(systems=SYSTEMS[:3])
    partly = {**three.outcomes, "lexical": replace(three.outcomes["lexical"], cost=Cost(0.0))}
    drawn = plots.plot_costs(replace(three, outcomes=partly))
    assert "Without measured seconds, and so not drawn: lexical." in drawn.caption
    assert len(titles(drawn.panels[0].svg)) == 2
    none = evaluate(
        {name: Run.of([Item("1"), Item("2")]).ranking({"1": [("a", 1.0)]}) for name in ("x", "y")},
        {"1": {"a": 1}, "2": {"a": 1}}, ["RR"], baseline="x",
    )  # fmt: skip
    (panel,) = plots.plot_queries(none).panels
    assert panel.remark == "0 better, 0 worse, 2 the same"
    assert len(titles(panel.svg)) == 2


def test_markdown(results):
    text = render_report(results, "tables.md")
    assert text.startswith("# Test \\<b> & co\n")
    assert "| a & b\\_\\<x> |" in text
    assert "| system | news <1> | ニュース |" in text
    assert results.parts[0].table.markdown().rstrip() in text
    assert "- 28 queries: 28 eng" in text
    assert "**RR against lexical**" in text
    assert "reused: lexical<1>" in text
    for block in re.split(r"\n\n", text):
        lines = block.splitlines()
        if lines and lines[0].startswith("| "):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "## Plan\n\n- systems: a & b\\_\\<x>: \\</pre>\\<script>alert(1)\\</script>\n- fence: " in text
    assert "{" not in text[text.index("## Plan") :]


def test_latex(results):
    text = render_report(results, "tables.tex")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[{}]", "", code.replace("\\\\", ""))
    assert bare.count("{") == bare.count("}")
    for environment in ("table", "tabular"):
        assert code.count(f"\\begin{{{environment}}}") == code.count(f"\\end{{{environment}}}")
    assert r"a \& b\_\textless{}x\textgreater{} &" in code
    found = re.findall(r"\\label{(.*?)}", code)
    assert len(found) == len(set(found))
    assert {"tab:summary", "tab:news-1", "tab:news-1-p", "tab:news-1-costs", "tab:collection"} <= set(found)
    assert r"\caption{news \textless{}1\textgreater{}: Costs}" in code
    assert "% 28 queries: 28 eng" in text
    assert text.count(r"needs \usepackage") == 1


def test_results_as_json(results):
    result = json.loads(json.dumps(results.to_json(), allow_nan=False))
    table = results.parts[0].table
    system = result["collections"][0]["table"]["systems"][1]
    assert system["name"] == AWFUL
    for lang in LANGS:
        found = table.comparison(AWFUL, "RR", lang)
        assert system["against_baseline"]["RR"]["groups"][lang] == {
            "difference": found.difference, "p": found.p, "corrected": found.corrected,
            "better": found.better, "equal": found.equal, "worse": found.worse,
        }  # fmt: skip
    assert result["collections"][0]["systems"][AWFUL]["cost"]["calls"] == 7
    assert result["plan"] == results.plan


def test_without_matplotlib_nothing_but_the_plots_is_lacking(results, page, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    write_report(results, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"results.json", "tables.md", "tables.tex", "report.html"}
    bare = (tmp_path / "report.html").read_text("utf-8")
    assert "no plots: matplotlib is not installed; pip install &#39;crosslens[report]&#39;" in bare
    assert "<svg" not in bare
    assert Page(bare).cells == Page(page).cells
    assert json.loads((tmp_path / "results.json").read_text("utf-8")) == json.loads(json.dumps(results.to_json()))


def test_matplotlib_is_imported_for_a_plot_and_no_sooner():
    script = (
        "import sys; from crosslens.evaluation.report import render, plots;"
        "print(sorted({'matplotlib', 'torch', 'lancedb', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_anchors_are_distinct_and_readable():
    names = ("a & b", "a_b", "A b", "...", "混合", "<>")
    assert make_anchors(names) == ["a-b", "a_b", "a-b-2", "x", "混合", "x-2"]


def test_long_names_keep_both_ends():
    name = "hybrid of e5-small and lexical, reranked setwise with arity 4"
    short = svg.shorten(name, 150)
    assert svg.estimate_width(short) <= 150
    head, tail = short.split("…")
    assert name.startswith(head)
    assert name.endswith(tail)
    assert min(len(head), len(tail)) >= 8
    assert svg.shorten("short", 150) == "short"
    assert 40 < svg.estimate_width("混合检索") < 50


def test_collections_are_called_by_their_names_and_languages_in_one_form(results):
    names = ("demo", "/data/sets/news/", "neuclir:/data/neuclir?year=2023&docs=/data/b", "/a/same", "/b/same")
    assert list(render.shorten_names(names).values()) == [
        "demo", "news", "neuclir:neuclir?year=2023&docs=b", "/a/same", "/b/same",
    ]  # fmt: skip
    first = replace(results.parts[0], collection="/data/sets/news", query_langs={"en": 20, "eng": 8})
    for template in render.TEMPLATES:
        text = render_report(replace(results, parts=(first, results.parts[1])), template)
        assert text.count("/data/sets/news") == 1, template
        assert "28 queries: 28 eng" in text


def test_examples_are_the_queries_on_which_systems_differ_with_their_hits_and_pictures(tmp_path):
    queries = [Item("q1", "a <b> cat", lang="en"), Item("q2", "dogs", lang="eng"), Item("q3", "no", lang="eng")]
    documents = {
        "d1": Item("d1", "long " * 100, lang="en"),
        "d2": Item("d2", image=PIL.Image.new("RGB", (900, 500), "red")),
    }
    found = {"good": {"q1": "d1", "q2": "d2", "q3": "d1"}, "bad": {"q1": "d2", "q2": "d2"}}
    runs = {
        name: Run.of(queries).ranking({query: [(doc, 1.0)] for query, doc in hits.items()})
        for name, hits in found.items()
    }
    qrels = {"q1": {"d1": 2}, "q2": {"d2": 1}, "q3": {"d2": 1}}
    table = evaluate(runs, qrels, ["RR"])
    made = choose_examples(queries, runs, table, qrels, lambda ids: [documents[id] for id in ids])
    assert [each.query.id for each in made] == ["q1", "q2", "q3"]
    assert made[0].values == {"good": 1.0, "bad": 0.0}
    (good,), (bad,) = made[0].hits["good"], made[0].hits["bad"]
    assert (good.id, good.lang, good.grade, len(good.text)) == ("d1", "eng", 2, 160)
    assert (bad.text, bad.grade, made[2].hits["bad"]) == ("", None, ())
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(bad.picture.partition(",")[2])))
    assert picture.size == (96, 53)
    outcomes = {name: Outcome(name, name, f"f/{name}", Cost(1.0), 3) for name in runs}
    counts = CollectionCounts(2, {"en": 1, "": 1}, {"image": 1}, 3, 3, 3)
    page = render_report(Results("r", {}, (Part("c", counts, {"eng": 3}, table, outcomes, (), made),)), "report.html")
    Page(page)  # which is well-formed
    assert "a &lt;b&gt; cat" in page
    assert page.count(bad.picture) == 3  # of q1, and of q2 by both
    assert "nothing found" in page
    assert "1 of unknown language, 1 eng" in page
    assert "Plan" not in page  # nothing of it is known here
