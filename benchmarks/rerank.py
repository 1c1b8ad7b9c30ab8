"""LLM reranking: its speed against a plain loop, its quality against its cost, and the weight of its fusion.

    python benchmarks/rerank.py speed [--fraction 0.1]
    python benchmarks/rerank.py quality --out results.jsonl --plot quality.png
    python benchmarks/rerank.py quality --collection DIR --index DIR --choose dev --report test --out results.jsonl
    python benchmarks/rerank.py quality --weights FILE --out results.jsonl
    python benchmarks/rerank.py tune --collection DIR --index DIR --tune dev --report test
    python benchmarks/rerank.py plot results.jsonl quality.png

`speed` times the judge over 20 queries x 50 passages (likelihood, yes/no, and likelihood where no two queries share
a passage) and setwise heapsort over 50 queries x 100 candidates (k 10, arity 3), against one prompt a forward pass
through AutoModelForCausalLM with the logits of all positions, in float32 and in the judge's own precision. The loop
is timed on random samples of the very same prompts, in between the judge's batches, and extrapolated by their number;
the answers to these are compared. Exit status 1 if a goal is missed.

`quality` reranks a first stage with each method and reports calls, rounds, tokens, seconds, faults in the answers,
nDCG@10 and nDCG@20, over all queries and by language of the documents (the demo: by kind of query), with
Holm-corrected paired randomisation tests against the first stage; how often each place of a set won, ties, and how far
the methods' orders agree. With `--choose` and `--report` the weight of each method (alpha) is chosen on one half of the
collection, and reported on the other beside the judge alone; `--weights` takes weights that were chosen so (a file of
`--save`) for another collection. Finished methods are kept in `--out` and skipped by the next run, and each answer of
a judge in a journal beside it: what is killed goes on from there, and methods share their answers. So a large judge is
measured in slices: the same command, killed (`timeout 240`) and repeated, or with one of `--methods` at a time.

`tune` chooses prompt, fusion and its weight on one half of a collection and reports them on the other. What the judge
said is kept in `--out`, if given, for the next run. benchmarks/collections/libreoffice_help.py makes such a collection.

The defaults are sized for 2 quiet cores of an AMD EPYC with AVX512-BF16: expect about 30 minutes of `speed` (each
pointwise part 4, setwise 15), 25 of `quality` (half of it pairwise; all 47 queries: an hour) and 25 of `tune`.

A judge's time goes with the tokens that it reads. Of 20 candidates cut to 128 tokens, these are for a query 1,100 with
likelihood, 1,400 with yesno and graded, 1,300 with first and listwise (and 140 written), 4,200 with setwise:bubblesort,
5,100 with setwise:heapsort, 6,100 with setwise:tournament, 22,700 with pairwise:heapsort; of 10 candidates about half of
that, and a quarter with pairwise. A model of 1.5B parameters reads 100 to 200 a second on 2 cores: 24 queries take 5
minutes by one pointwise method, 15 by setwise, an hour by pairwise, at depth 20.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from crosslens.commands.console import run_guarded
from measurements import Table, add_save, save, tabulate
from rerank_quality import METHODS

PARTS = ("likelihood", "yesno", "distinct", "setwise")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--judge", default="offline:gemma", metavar="SPEC", help="(%(default)s)")
    common.add_argument("--collection", default="demo", help="demo, or a directory (%(default)s)")
    common.add_argument("--index", type=Path, metavar="DIR", help="its index; the demo is indexed in memory")
    common.add_argument("--seed", type=int, default=0, help="of all sampling (%(default)s)")
    common.add_argument("--device", default="auto")
    add_save(common)
    common.add_argument("--json", action="store_true", help="one JSON object on stdout, the table on stderr")

    speed = verbs.add_parser("speed", parents=[common], help="seconds against the plain loop")
    speed.add_argument("--parts", type=_names, default=PARTS, metavar="A,B", help=",".join(PARTS))
    speed.add_argument("--sample", type=int, default=40, help="prompts of each part for the loop (%(default)s)")
    speed.add_argument("--fraction", type=float, default=1.0, help="of the queries, for a quick run (%(default)s)")

    stage = argparse.ArgumentParser(add_help=False)
    stage.add_argument("--mode", choices=("dense", "lexical", "hybrid"), default="hybrid", help="(%(default)s)")
    stage.add_argument("--fields", help="of the topics: title, title+description, ...")
    stage.add_argument("--depth", type=int, default=20, help="candidates a query (%(default)s)")
    quality = verbs.add_parser("quality", parents=[common, stage], help="nDCG@10 and costs of each method")
    _methods(quality, METHODS)
    quality.add_argument("--queries", type=int, default=24, metavar="N", help="at random; 0: all (%(default)s)")
    quality.add_argument("--out", type=Path, metavar="FILE", help="JSON lines of results; finished ones are skipped")
    quality.add_argument("--choose", metavar="SET", help="folder in the collection on which alpha is chosen")
    quality.add_argument("--report", metavar="SET", help="folder in the collection that is reported then")
    quality.add_argument("--weights", type=Path, metavar="FILE", help="alpha of each method, from a file of --save")
    quality.add_argument("--plot", type=Path, metavar="FILE", help="quality against cost, .png or .svg")
    tune = verbs.add_parser("tune", parents=[common, stage], help="choose prompt, fusion and weight")
    _methods(tune, ("likelihood", "yesno", "graded"))
    tune.add_argument("--queries", type=int, default=80, metavar="N", help="of each set; 0: all (%(default)s)")
    tune.add_argument("--tune", default="dev", metavar="SET", help="folder in the collection (%(default)s)")
    tune.add_argument("--report", default="test", metavar="SET", help="folder in the collection (%(default)s)")
    tune.add_argument("--out", type=Path, metavar="FILE", help="journal of what the judge said")
    plot = verbs.add_parser("plot", help="draw the results of quality")
    plot.add_argument("results", type=Path)
    plot.add_argument("plot", type=Path)
    options = parser.parse_args(arguments)
    if options.verb == "speed":
        if unknown := [part for part in options.parts if part not in PARTS]:
            parser.error(f"unknown part {unknown[0]}; there are {', '.join(PARTS)}")
        if not 0 < options.fraction <= 1 or options.sample < 1:
            parser.error("--fraction must be above 0 and at most 1, --sample at least 1")
    if options.verb == "quality" and bool(options.choose) != bool(options.report):
        parser.error("--choose and --report go together")
    if options.verb == "quality" and options.choose and (options.collection == "demo" or options.weights):
        parser.error("--choose needs a --collection with two halves, and no --weights")
    if options.verb == "tune" and options.collection == "demo":
        parser.error(f"the demo has no {options.tune} and {options.report}: give a --collection that has")
    return options


def _methods(parser: argparse.ArgumentParser, default: tuple[str, ...]) -> None:
    parser.add_argument(
        "--methods",
        type=_names,
        default=default,
        metavar="A,B",
        help=f"prompt[:sorter][?options], or whole SPECs ({','.join(default)})",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def tables(verb: str, report: dict[str, Any]) -> list[Table]:
    """What pages show of a report."""
    if verb == "tune":
        groups = report["quality"]["queries"]
        return [tabulate(report["quality"], [("nDCG@10", group) for group in groups], p=True)]
    if verb == "quality":
        head, *rows = report["rows"]
        bias = [report["bias"]] if any(found["bias"]["compared"] for found in report["methods"].values()) else []
        return [Table(head, rows), *bias, report["taus"]]
    from rerank_show import speed_rows

    head, *rows = speed_rows(report)
    return [Table(head, rows)]


def notes(report: dict[str, Any]) -> list[str]:
    """What pages say below the tables of a report."""
    if "ceilings" not in report:
        return []
    from rerank_show import ceiling_lines

    said = "Calls, tokens and seconds are for a query. p: paired randomisation test against the first stage, Holm."
    task = report["task"]
    where = f"{task['collection']}, {task['queries']} queries, first stage {task['first_stage']}."
    return [" ".join([f"{where[0].upper()}{where[1:]}", said, *ceiling_lines(report["ceilings"])])]


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    passed = True
    if options.verb == "plot":
        from rerank_quality import results
        from rerank_show import draw

        draw(results(options.results).values(), options.plot)
        return 0
    report: dict[str, Any]
    if options.verb == "speed":
        from rerank_show import speed_table
        from rerank_speed import speed

        report = speed(options)
        text = speed_table(report)
        passed = all(report["checks"].values())
    else:
        import rerank_quality

        report = getattr(rerank_quality, options.verb)(options)
        text = report.pop("text")
    shown = tables(options.verb, report)
    report = {key: value for key, value in report.items() if key not in ("rows", "bias", "taus")}
    save(options.save, report, shown, notes(report))
    print(text, file=sys.stderr if options.json else sys.stdout)
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    if options.verb == "quality" and options.plot:
        from rerank_show import draw

        draw(report["methods"].values(), options.plot)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: sys.exit(main())))
