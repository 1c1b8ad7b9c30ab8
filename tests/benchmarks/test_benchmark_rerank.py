"""`benchmarks/rerank.py` on a tiny random model: it runs, its peers agree, and results are kept and drawn."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.indexes.registry import create_index
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.reranking.plan import NAMED, load_reranker

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = (
    "hybrid",
    "rerank",
    "rerank_answers",
    "rerank_compare",
    "rerank_depth",
    "rerank_loop",
    "rerank_quality",
    "rerank_show",
    "rerank_speed",
    "rerank_task",
    "measurements",
)
TEXTS = {
    "eng": ("The cat sleeps all day.", "Trains run at night.", "Bread needs flour and water.", "Snow fell."),
    "fra": ("Le chat dort toute la journée.", "Les trains de nuit.", "Le pain, la farine.", "La neige."),
    "spa": ("El gato duerme todo el día.", "Trenes nocturnos.", "El pan y la harina.", "La nieve cae."),
}
QUERIES = ("sleeping cat", "night train", "what bread is made of", "did it snow")


@pytest.fixture(scope="module")
def benchmark():
    """The main function of the script, imported as it is when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("rerank").main
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def given(tmp_path_factory, tiny_encoder, tiny_judge):
    """Arguments that name a judge, a collection with two halves, and its index."""
    where = tmp_path_factory.mktemp("benchmark")
    root = where / "collection"
    for folder in (root, root / "dev", root / "test"):
        folder.mkdir()
        docs = [
            {"id": f"{lang}{n}", "text": text, "lang": lang}
            for lang, texts in TEXTS.items()
            for n, text in enumerate(texts)
        ]
        topics = [{"id": f"q{n}", "text": text, "lang": "eng"} for n, text in enumerate(QUERIES)]
        for name, rows in (("docs", docs), ("topics", topics)):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "qrels.txt").write_text(
            "".join(f"q{n} 0 {lang}{n} 3\n" for n in range(len(QUERIES)) for lang in TEXTS)
        )
    index = create_index(where / "index", device="cpu")
    index.add(load_collection(root).docs(), load_encoder(f"hf:{tiny_encoder}?pooling=mean&dtype=float32", device="cpu"))
    index.build()
    return [
        *("--judge", f"hf:{tiny_judge}?dtype=float32", "--collection", str(root)),
        *("--index", str(where / "index"), "--device", "cpu", "--json"),
    ]


@pytest.fixture
def run(benchmark, given, capsys):
    def call(verb, *arguments):
        status = benchmark([verb, *given, *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, json.loads(out), err

    return call


def test_speed_the_loop_agrees_and_every_step_is_timed_on_the_same_prompts(run):
    _, report, table = run("speed", "--fraction", 0.08, "--sample", 5)
    parts = report["parts"]
    assert list(parts) == ["likelihood", "yesno", "distinct", "setwise"]
    for name, part in parts.items():
        assert part["agreement"]["float32"]["max_difference"] <= 1e-3
        assert part["agreement"]["float32"]["spearman"] > 0.99
        assert report["checks"][f"{name}: in float32 the loop's answers within 0.001"]
        assert part["seconds"] > 0
        assert set(part["factors"]) == {"precision", "batching", "head", "sharing"}
        assert min(part["factors"].values()) > 0
        assert part["loops"]["float32"]["timed_on"] >= 3
        assert part["steps"]["unshared"]["timed_on"] >= part["loops"]["float32"]["timed_on"]
        assert name in table
    for name in ("likelihood", "yesno", "distinct"):
        assert parts[name]["prompts"] == 2 * 12  # queries x documents
        assert parts[name]["rounds"] == 1
    # Prefixes are shared where two queries see the same passages, and nowhere else.
    assert parts["likelihood"]["tokens_computed"] < parts["likelihood"]["tokens_in_prompts"]
    assert parts["distinct"]["tokens_computed"] >= parts["distinct"]["tokens_in_prompts"]
    setwise = parts["setwise"]
    assert setwise["rounds"] < setwise["prompts"]
    assert setwise["without_model"]["rounds"] <= 90


def test_speed_notices_answers_that_differ(run, monkeypatch):
    import rerank_loop

    plain = rerank_loop.Loop.read
    monkeypatch.setattr(rerank_loop.Loop, "read", staticmethod(lambda *given: plain(*given) * 1.01))
    status, report, table = run("speed", "--parts", "likelihood", "--fraction", 0.08, "--sample", 5)
    assert status == 1
    assert not report["checks"]["likelihood: in float32 the loop's answers within 0.001"]
    assert "MISSED likelihood: in float32" in table


def test_quality_keeps_finished_methods_and_draws_them(run, tmp_path, benchmark):
    out, plot = tmp_path / "results.jsonl", tmp_path / "plot.png"
    common = ("--depth", 6, "--out", out, "--plot", plot)
    status, report, table = run("quality", "--methods", "likelihood,setwise:heapsort", *common)
    assert status == 0
    assert not report["failed"]
    names = list(report["methods"])
    assert [name.partition("@")[0] for name in names] == ["likelihood", "setwise:heapsort"]
    likelihood = report["methods"][names[0]]
    assert likelihood["calls"] == 4 * 6
    assert likelihood["rounds"] == 1
    assert likelihood["prompt_tokens"] > 0
    assert likelihood["generated_tokens"] == 0
    systems = {system["name"]: system for system in report["quality"]["systems"]}
    assert set(systems) == {"first stage", *names}
    assert set(systems[names[0]]["means"]["nDCG@10"]) == {"all", "eng", "fra", "spa"}
    assert systems[names[0]]["means"]["nDCG@10"]["all"] == pytest.approx(likelihood["nDCG@10"])
    assert 0 <= systems[names[0]]["against_baseline"]["nDCG@10"]["corrected"] <= 1
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert all(name in table for name in names)

    # A line that a kill cut short, and a method more: only what is not there yet is judged.
    lines = out.read_text().splitlines()
    out.write_text(f'{lines[0]}\n{{"key": "cut sho')
    _, again, said = run("quality", "--methods", "likelihood,setwise:heapsort,yesno", *common)
    assert again["methods"][names[0]] == likelihood
    assert "reranking with likelihood" not in said
    assert said.count("reranking with") == 2
    _, kept, said = run("quality", "--methods", "likelihood,setwise:heapsort,yesno", *common)
    assert kept == again
    assert "reranking with" not in said
    _, _, said = run("quality", "--methods", "likelihood", "--depth", 5, "--out", out)
    assert said.count("reranking with") == 1

    # All answers of a method may have come with another's: it cost nothing, and is left out of the plot.
    lines = [line | {"seconds": 0.0} for line in sys.modules["rerank_answers"].results(out).values()]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    benchmark(["plot", str(out), str(tmp_path / "again.svg")])
    assert "<svg" in (tmp_path / "again.svg").read_text()
    with pytest.raises(InputError, match="a plot is written as"):
        benchmark(["plot", str(out), str(tmp_path / "again.xyz")])
    with pytest.raises(InputError, match="no results to draw"):
        benchmark(["plot", str(tmp_path / "none.jsonl"), str(plot)])


def test_quality_chooses_weights_on_one_half_and_reports_them_on_the_other(run, tmp_path):
    out, saved = tmp_path / "results.jsonl", tmp_path / "saved.json"
    halves = ("--choose", "dev", "--report", "test", "--depth", 6, "--out", out, "--save", saved)
    methods = ("--methods", "likelihood,setwise:heapsort,setwise:plackett")
    _, report, _ = run("quality", *methods, *halves)
    assert len(out.read_text().splitlines()) == 2 * 3
    assert report["chosen_on"]["collection"] == "collection/dev"
    assert report["task"]["collection"] == "collection/test"
    pointwise, heapsort, plackett = report["methods"]
    means = {system["name"]: system["means"] for system in report["quality"]["systems"]}
    for name, alpha in report["chosen"].items():
        assert alpha in [round(n / 20, 2) for n in range(21)]
        # Both halves are alike here: what was chosen on one is no worse than the judge alone or the first stage.
        best = means[f"{name} at alpha {alpha:g}"]["nDCG@10"]["all"]
        assert best >= max(means[name]["nDCG@10"]["all"], means["first stage"]["nDCG@10"]["all"]) - 1e-9
    assert set(report["agreement"][pointwise]) == {heapsort, plackett}
    assert all(-1 <= tau <= 1 for row in report["agreement"].values() for tau in row.values())
    bias = report["methods"][heapsort]["bias"]
    assert sum(sum(won) for won in bias["won_at"].values()) == bias["compared"] == report["methods"][heapsort]["calls"]
    assert report["methods"][pointwise]["bias"]["won_at"] == {}
    ceiling = report["ceilings"]["6"]
    assert all(means[name]["nDCG@10"]["all"] <= ceiling["nDCG@10"] + 1e-9 for name in means)
    assert ceiling["nDCG@10"] > means["first stage"]["nDCG@10"]["all"]
    titles = [shown["title"] for shown in json.loads(saved.read_text())["tables"]]
    assert titles == ["", "Position bias and ties", "Agreement of the orders"]

    # All answers are in the journal: costs and scores come from it, although the results are gone.
    out.unlink()
    _, again, said = run("quality", *methods, *halves)
    assert said.count("reranking with") == 6
    for name, found in report["methods"].items():
        assert again["methods"][name] == found

    # Weights that were chosen here, for another collection (the whole of this one).
    _, other, _ = run("quality", *methods, "--depth", 6, "--weights", saved)
    assert other["chosen"] == report["chosen"]
    saved.write_text("{}")
    with pytest.raises(InputError, match="holds no weights"):
        run("quality", *methods, "--weights", saved)


def test_a_cascade_is_a_method_and_its_last_weight_is_chosen(run, tmp_path):
    from crosslens.multilingual.reranking.plan import load_reranker
    from rerank_quality import spec

    assert spec("best", "offline:gemma", 6) == "best"
    out = tmp_path / "results.jsonl"
    cascade = "likelihood?alpha=0.5 >> setwise:heapsort"
    common = ("--choose", "dev", "--report", "test", "--depth", 6, "--out", out)
    _, report, _ = run("quality", "--methods", f"{cascade},likelihood", *common)
    name, single = report["methods"]
    assert name.count("@hf:") == 2
    assert [load_reranker(each, device="cpu").alpha for each in name.split(" >> ")] == [0.5, 1.0]
    assert report["methods"][name]["calls"] > report["methods"][single]["calls"]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    found = next(each for each in lines if each["spec"] == name and each["task"]["collection"].endswith("test"))
    # The second judge was shown the first six of what the first has made.
    for query, hits in found["asked"].items():
        assert {doc for doc, _ in hits} == {doc for doc, _ in found["before"][query][:6]}
    assert found["nDCG@10"] == pytest.approx(report["methods"][name]["nDCG@10"])
    with pytest.raises(InputError, match="one by one"):
        run("tune", "--methods", cascade)


def test_methods_agree_and_prefer_places_as_counted_by_hand(benchmark):
    from crosslens.runs import Hit
    from rerank_compare import bias_table, compare_orders, find_bias, name_methods

    common = "hf:x?dtype=float32"
    given = [f"yesno@{common}&depth=5", f"yesno@{common}&depth=6", "best", f"yesno@{common} >> first:full@{common}"]
    assert list(name_methods(given).values()) == ["yesno, depth=5", "yesno, depth=6", "best", "yesno >> first:full"]
    assert list(name_methods([given[0], "yesno@hf:y"]).values()) == [
        "yesno, hf:x, dtype=float32, depth=5",
        "yesno, hf:y",
    ]

    orders = {"a": {"q": "wxyz", "r": "wx"}, "b": {"q": "wxzy", "r": "xw"}, "c": {"q": "zyxw", "r": "wx"}}
    taus = compare_orders({name: {q: list(ids) for q, ids in each.items()} for name, each in orders.items()})
    assert taus["a"] == {"b": round((4 / 6 - 1) / 2, 4), "c": 0.0}
    orders = {"deep": {"q": ["w", "x", "y", "z"]}, "shallow": {"q": ["y", "w"]}}
    assert compare_orders(orders)["deep"]["shallow"] == -1.0
    counts = {"compared": 10, "chosen_eng_1_of_4": 2, "chosen_eng_3_of_6": 5, "chosen_rus_3_of_4": 2, "tied": 1}
    bias = find_bias(counts, {})
    assert bias == {"compared": 10, "won_at": {"eng": [2, 0, 5, 0, 0, 0], "rus": [0, 0, 2, 0]}, "ties": 0.1}
    table = bias_table({"sets": {"bias": bias}, "alone": {"bias": find_bias({}, {})}})
    assert table.rows == [
        ["sets", "eng", "7", "29%", "0%", "71%", "0%", "0%", "10.0%"],
        ["", "rus", "2", "0%", "0%", "100%", "0%", "", ""],
        ["alone", "", "", "", "", "", "", "", "0.0%"],
    ]
    scores = {"q": [Hit("a", 1.0), Hit("b", 0.5), Hit("c", 0.5), Hit("d", 0.5)]}
    assert find_bias({}, scores)["ties"] == 0.5


def test_quality_with_an_unknown_method_ends_before_any_work(run, tmp_path):
    with pytest.raises(InputError, match="likelihoood"):
        run("quality", "--methods", "likelihood,likelihoood", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_tune_asks_the_judge_once_and_reports_on_the_other_half(run, tmp_path):
    out = tmp_path / "said"
    arguments = ("--methods", "likelihood,yesno", "--depth", 6, "--out", out)
    status, report, table = run("tune", *arguments)
    assert status == 0
    assert report["tuned_on"]["collection"] == "collection/dev"
    assert report["reported_on"]["collection"] == "collection/test"
    assert report["alphas"] == [round(n / 20, 2) for n in range(21)]
    assert len(report["curves"]) == 4
    for curve in report["curves"].values():
        assert curve[0] == report["first_stage_tuned_on"]
        assert len(curve) == 21
    best = max(max(curve) for curve in report["curves"].values())
    chosen = report["chosen"]
    assert chosen["nDCG@10"] == best
    curve = report["curves"][f"{chosen['spec']} {chosen['fuse']}"]
    assert curve[report["alphas"].index(chosen["alpha"])] == best
    assert [each["name"] for each in report["quality"]["systems"]] == [
        "first stage", "chosen", "judge alone", "equal weights",
    ]  # fmt: skip
    assert f"alpha={chosen['alpha']:g}" in table

    # Both halves have the same queries here: two prompts x 4 queries x 6 documents in all, each asked once.
    kept = out.read_text()
    assert len(kept.splitlines()) == 2 * 4 * 6
    assert run("tune", *arguments)[1] == report
    assert out.read_text() == kept


def test_tuned_weights_are_what_the_stage_itself_gives(run):
    from crosslens.multilingual.reranking.plan import load_reranker

    _, report, _ = run("tune", "--methods", "likelihood", "--depth", 6)
    name = report["chosen"]["spec"]
    _, single, _ = run("quality", "--methods", f"{name}&alpha=0.6&fuse=rrf")
    found = next(iter(single["methods"].values()))
    assert load_reranker(found["spec"]).alpha == 0.6
    expected = report["curves"][f"{name} rrf"][report["alphas"].index(0.6)]
    assert found["nDCG@10"] == pytest.approx(expected, abs=1e-4)


def test_depths_and_weights_follow_from_one_set_of_answers(
    benchmark, given, tiny_encoder, tiny_judge, tmp_path, monkeypatch, capsys
):
    script = importlib.import_module("rerank_depth")
    root, journal, kept = given[given.index("--collection") + 1], tmp_path / "journal", tmp_path / "depth.json"
    small = {
        name: load_encoder(f"hf:{tiny_encoder}?pooling={pooling}&dtype=float32", device="cpu")
        for name, pooling in (("offline:e5-small", "mean"), ("offline:use-m3", "cls"))
    }
    monkeypatch.setitem(NAMED, "default", (f"likelihood@hf:{tiny_judge}?dtype=float32&depth=3&alpha=0.5",))
    monkeypatch.setattr(script, "DEPTHS", (3, 6))
    monkeypatch.setattr(script, "load_encoder", lambda spec, device: small[spec])
    arguments = [root, "--queries", "3", "--depth", "6", "--timed", "1", "--out", str(journal), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["rerank_depth.py", *arguments, "--save", str(kept)])
    script.main()
    found = json.loads(capsys.readouterr().out)
    answers = journal.read_text().splitlines()
    assert len(answers) <= 2 * 3 * 6
    script.main()
    again = json.loads(capsys.readouterr().out)
    assert (again["dev"], again["test"]) == (found["dev"], found["test"])
    assert journal.read_text().splitlines() == answers, "nothing is asked twice"
    assert [table["title"] for table in json.loads(kept.read_text())["tables"]] == ["dev", "test", "cost"]

    (dev,) = found["dev"]
    means = {name: mean for name, mean in dev["means"].items() if name != script.FIRST}
    assert means[found["settings"][script.CHOSEN]] == max(means.values())
    assert len(means) == 2 * len(script.ALPHAS)
    stage = load_reranker("default", device="cpu")
    tasks = script.read_tasks(root, 3, 0, "cpu")
    for depth, alpha in ((3, 0.3), (6, 0.7), (6, 1.0)):
        asked = replace(stage, depth=depth, alpha=alpha)(tasks["dev"].first)
        expected = evaluate({"asked": asked}, tasks["dev"].qrels, [script.MEASURE]).mean("asked", script.MEASURE)
        assert means[str(script.Setting(depth, alpha))] == pytest.approx(expected, abs=1e-9)
    today = stage(tasks["test"].first)
    expected = evaluate({"today": today}, tasks["test"].qrels, [script.MEASURE]).mean("today", script.MEASURE)
    (every,) = [row for row in found["test"] if row["group"] == "all"]
    assert every["means"][script.TODAY] == pytest.approx(expected, abs=1e-9)
    assert {row["group"] for row in found["test"]} == {"all", *TEXTS}
