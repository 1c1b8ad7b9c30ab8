"""How fast do judges answer the same questions, and do they rank alike? bfloat16, int8 and a server, in one run.

    python benchmarks/judge_speed.py --judge offline:qwen-1.5b --collection DIR --index DIR --out parts.jsonl \\
        --peers 'offline:qwen-1.5b?dtype=int8' --server PATH/TO/llama-server --gguf qwen-1.5b.gguf

Each query's candidates are ranked by all judges, one after the other, in an order that turns, so that what slows the
machine down for a while hits all. Reported are candidates (yes/no, likelihood) or comparisons (setwise) a second, tokens computed a
second, how many times the first judge's speed that is, and Kendall's tau of the order of the candidates against the
first judge's, a mean over queries. What is measured is kept in `--out` line by line: `--seconds` ends a run in time, and
the next one goes on. Judges over HTTP are given `prefill=true`, and their server's prompt cache is on, as it is by default.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.commands.console import run_guarded
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.runs import Run
from kept_lines import add_out, append_line, read_lines
from llama_process import LlamaServer
from measurements import Table, add_save, save
from rerank_task import texts
from scipy.stats import kendalltau

METHODS = {"yesno": "yesno", "likelihood": "likelihood", "setwise": "setwise:heapsort"}
K = 10  # of setwise
GOALS = {"ratio": 1.7, "tau": 0.95}  # of int8 against bfloat16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="offline:qwen-1.5b", metavar="SPEC", help="the first (%(default)s)")
    parser.add_argument("--peers", nargs="*", default=[], metavar="SPEC", help="judges that are held against it")
    parser.add_argument("--server", type=Path, help="llama-server, which is then a peer, with --gguf")
    parser.add_argument("--gguf", type=Path, help="its model: should be the first judge's")
    parser.add_argument("--collection", default="demo")
    parser.add_argument("--index", type=Path, metavar="DIR")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=["yesno"])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--depth", type=int, default=20, help="candidates a query (%(default)s)")
    parser.add_argument("--passage-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the server (%(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no query after so many")
    add_out(parser)
    add_save(parser)
    options = parser.parse_args()
    if (options.server is None) != (options.gguf is None):
        parser.error("--server and --gguf go together")
    began = time.monotonic()
    asked, first = texts(options.collection, options.index, options.queries, options.seed, "cpu")
    found = first(asked).cut(options.depth)
    documents = InMemoryDocuments({item.id: item for query in found.queries for item in found.items(query.id)})
    found = replace(found, docs=documents)
    lines = read_lines(options.out)
    with ExitStack() as stack:
        judges = {name: name for name in (options.judge, *options.peers)}
        if options.server is not None:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "server.log"
            made = LlamaServer(options.server, options.gguf, threads=options.threads, log=log)
            server = stack.enter_context(made)
            judges[f"llama-server, {options.gguf.name}"] = f"openai:model?url={server.url}&concurrency=4&prefill=true"
        measure(found, judges, lines, began, options)
    report = summed(list(judges), lines, options)
    table = tabled(report)
    print(table.markdown(), file=sys.stderr)
    shown = f"{options.depth} candidates a query, of {options.passage_tokens} tokens at most"
    save(options.save, report, [table], [f"{shown}; tau: against the first judge's order, a mean over queries."])
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return 0


def measure(
    run: Run, judges: dict[str, str], lines: list[dict[str, Any]], began: float, options: argparse.Namespace
) -> None:
    """Rank each query's candidates by each judge that has not done so yet; adds to `lines`, and to the file of them."""
    stages = {}
    sample = Run.of(run.queries[:1]).ranking({run.queries[0].id: run[run.queries[0].id][:4]}, run.docs)
    for name, spec in judges.items():
        for method in options.methods:
            deep = min(K, options.depth) if method == "setwise" else options.depth
            more = f"depth={options.depth}&k={deep}&passage_tokens={options.passage_tokens}"
            stage = load_reranker(f"{METHODS[method]}@{spec}{'&' if '?' in spec else '?'}{more}", device="cpu")
            stage(sample)  # the first pass is slower than those that follow it
            stages[name, method] = stage
    done = {(line["judge"], line["method"], line["query"]) for line in lines}
    for number, query in enumerate(run.queries):
        one = Run.of([query]).ranking({query.id: run[query.id]}, run.docs)
        turns = list(stages.items())
        for (name, method), stage in turns[number % len(turns) :] + turns[: number % len(turns)]:
            if (name, method, query.id) in done:
                continue
            if time.monotonic() - began > options.seconds:
                return
            started = time.perf_counter()
            ranked = stage(one)
            seconds = time.perf_counter() - started
            counts = {each: int(ranked.manifest.total(each)) for each in ("calls", "prompt_tokens", "without_logprobs")}
            order = [hit.id for hit in ranked[query.id]]
            line = {"judge": name, "method": method, "query": query.id, "seconds": seconds, **counts, "order": order}
            lines.append(line)
            append_line(options.out, line)
            print(f"{name} {method} {query.id}: {seconds:.1f} s", file=sys.stderr, flush=True)


def summed(judges: Sequence[str], lines: Sequence[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Rates and agreement over the queries that all judges have ranked."""
    methods: dict[str, Any] = {}
    for method in options.methods:
        by = {name: {e["query"]: e for e in lines if (e["judge"], e["method"]) == (name, method)} for name in judges}
        common = sorted(set.intersection(*(set(each) for each in by.values())))
        if not common:
            continue  # there was no time for it yet
        base = by[judges[0]]
        methods[method] = {"queries": len(common), "judges": {}}
        for name in judges:
            mine = [by[name][query] for query in common]
            seconds = sum(each["seconds"] for each in mine)
            rates = {what: sum(each[what] for each in mine) / seconds for what in ("calls", "prompt_tokens")}
            first = sum(base[query]["seconds"] for query in common)
            taus = [agree(by[name][query]["order"], base[query]["order"]) for query in common]
            methods[method]["judges"][name] = {
                "asked_per_second": round(rates["calls"], 3),
                "tokens_per_second": round(rates["prompt_tokens"], 1),
                "ratio": round(first / seconds, 3),
                "tau": round(float(np.mean(taus)), 4),
                "generated": sum(each["without_logprobs"] for each in mine),
                "seconds": round(seconds, 1),
            }
    meets = {
        f"{method}: {name}": all(found[what] >= goal for what, goal in GOALS.items())
        for method, each in methods.items()
        for name, found in each["judges"].items()
        if "dtype=int8" in name
    }
    return {"methods": methods, "goals": GOALS, "meets": meets, "depth": options.depth, "seed": options.seed}


def agree(order: Sequence[str], other: Sequence[str]) -> float:
    """Kendall's tau of two orders of the same documents; of what both hold, where one is cut."""
    places = {doc: place for place, doc in enumerate(other)}
    both = [places[doc] for doc in order if doc in places]
    return float(kendalltau(range(len(both)), both).statistic) if len(both) > 1 else 1.0


def tabled(report: dict[str, Any]) -> Table:
    rows = [
        [
            method,
            name,
            str(each["queries"]),
            f"{found['asked_per_second']:.2f}",
            f"{found['tokens_per_second']:.0f}",
            f"{found['ratio']:.2f}",
            f"{found['tau']:.3f}",
        ]
        for method, each in report["methods"].items()
        for name, found in each["judges"].items()
    ]
    return Table(
        ("prompt", "judge", "queries", "questions a second", "tokens a second", "times the first", "tau"), rows
    )


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: sys.exit(main())))
