"""What does it change that answers are read in float32? Ties, ranks, nDCG@10 and seconds, against rounded logits.

    python benchmarks/label_ties.py --judge offline:qwen-1.5b --queries 20
    python benchmarks/label_ties.py --judge offline:gemma --prompts likelihood

A judge scores the first hits of dense search; its states are read twice, as they are and with the logits of its head
as the model computes them, for example in bfloat16. Prints a table on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from crosslens.errors import CrosslensError, InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.judges.local import Head, LocalJudge
from crosslens.multilingual.judges.tokenized import Continuation
from crosslens.multilingual.prompts import Prompt, load_prompt
from crosslens.runs import Run
from measurements import Table, add_save, save
from rerank_task import texts
from scipy.stats import kendalltau

MEASURE = "nDCG@10"


class RoundedHead(Head):
    """A head whose logits stay as the model's precision has them."""

    def __init__(self, head: Head) -> None:
        self.hide, self.predict, self.layer, self.way = head.hide, head.predict, head.layer, head.way

    def logits(self, states: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
        assert self.way is not None
        chosen = list(columns)
        bias = None if self.layer.bias is None else self.layer.bias[chosen]
        return self.way(torch.nn.functional.linear(states, self.layer.weight[chosen], bias).float(), chosen)

    def log_probs(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert self.way is not None
        found = []
        for some, wanted in zip(states.split(128), targets.split(128), strict=True):
            for rows, tokens in zip(self.layer(some).split(16), wanted.split(16), strict=True):
                values = self.way(rows.float(), slice(None))
                found.append(values.gather(-1, tokens[:, None])[:, 0] - values.logsumexp(-1))
        return torch.cat(found)


class TwofoldHead(Head):
    """A head that answers as it does, and keeps what `RoundedHead` answers to the same states; `seconds` of both."""

    def __init__(self, head: Head) -> None:
        self.hide, self.predict, self.layer, self.way = head.hide, head.predict, head.layer, head.way
        self.heads = {"float32": head, "rounded": RoundedHead(head)}
        self.seconds = dict.fromkeys(self.heads, 0.0)
        self.twins: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by identity of the first, which is kept

    def answer(self, states: torch.Tensor, first: Sequence[int], asked: Sequence[Continuation]) -> list[np.ndarray]:
        found = {}
        for kind, head in self.heads.items():
            started = time.process_time()
            found[kind] = head.answer(states, first, asked)
            self.seconds[kind] += time.process_time() - started
        for ours, rounded in zip(found["float32"], found["rounded"], strict=True):
            self.twins[id(ours)] = ours, rounded
        return found["float32"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--judge", default="offline:gemma", metavar="SPEC")
    parser.add_argument("--prompts", nargs="+", default=["yesno", "likelihood"], metavar="NAME")
    parser.add_argument("--collection", default="demo")
    parser.add_argument("--index", type=Path, help="the collection's index; the demo is indexed in memory")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    add_save(parser)
    options = parser.parse_args()
    try:
        figures, tables = measure(options)
    except CrosslensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(table.markdown() for table in tables), file=sys.stderr)
    save(options.save, figures, tables)
    print(json.dumps(figures, indent=1))
    return 0


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Table]]:
    judge = load_judge(options.judge, device=options.device)
    if not isinstance(judge, LocalJudge) or not judge.head.plain or judge.model.dtype == torch.float32:
        raise InputError(f"{options.judge} has no head here whose products would be rounded: give one in bfloat16")
    asked, first = texts(options.collection, options.index, options.queries, options.seed, options.device)
    found = first(asked).cut(options.depth)
    head = judge.head
    parts = {}
    for name in options.prompts:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        prompt = load_prompt(name)
        pairs = [(query, doc) for query in found.queries for doc in found.items(query.id)]
        score(judge, prompt, pairs[:2])  # the first pass is slower than those that follow it
        judge.head = both = TwofoldHead(head)  # type: ignore[misc]
        started = time.process_time()
        scores = score_twice(judge, prompt, pairs, both)
        seconds = time.process_time() - started - both.seconds["rounded"]
        judge.head = head  # type: ignore[misc]
        parts[name] = compare(found, pairs, scores, load_collection(options.collection).qrels())
        parts[name]["head_cpu_seconds"] = {kind: round(each, 2) for kind, each in both.seconds.items()}
        parts[name]["cpu_seconds"] = round(seconds, 2)
    figures = {
        "judge": options.judge, "dtype": str(judge.model.dtype), "collection": options.collection,
        "queries": len(found.queries), "pairs": len(pairs), "depth": options.depth, "seed": options.seed,
        "threads": torch.get_num_threads(), "prompts": parts,
    }  # fmt: skip
    return figures, [show(options.judge, figures)]


def score(judge: LocalJudge, prompt: Prompt, pairs: Sequence[tuple[Item, Item]]) -> np.ndarray:
    return np.array([float(each[0]) for each in prompt.score(judge, [(query, [doc]) for query, doc in pairs])])


def score_twice(
    judge: LocalJudge, prompt: Prompt, pairs: Sequence[tuple[Item, Item]], head: TwofoldHead
) -> dict[str, np.ndarray]:
    """The scores by kind of head: the model runs once, and what it answered is given again, rounded."""
    compute, calls = judge.compute_answers, []

    def record(*asked: Any) -> Iterator[tuple[int, int, np.ndarray]]:
        calls.append(list(compute(*asked)))
        return iter(calls[-1])

    def repeat(starts: Any, asked: Sequence[Sequence[Continuation]]) -> Iterator[tuple[int, int, np.ndarray]]:
        for row, column, answer in calls.pop(0):
            one, twin = asked[row][column], head.twins[id(answer)][1]
            if one.labels:  # other questions than before are in the sample of which the label mass is taken
                twin = np.append(twin[: len(one.labels)], [0.0] * one.weighed)
            yield row, column, twin

    judge.compute_answers = record  # type: ignore[method-assign]
    scores = {"float32": score(judge, prompt, pairs)}
    judge.compute_answers = repeat  # type: ignore[method-assign]
    scores["rounded"] = score(judge, prompt, pairs)
    judge.compute_answers = compute  # type: ignore[method-assign]
    return scores


def compare(
    found: Run, pairs: Sequence[tuple[Item, Item]], scores: dict[str, np.ndarray], qrels: Any
) -> dict[str, Any]:
    """By kind of head: hits that share their score, queries whose first place is shared, nDCG; and how ranks differ."""
    runs, tied, first = {}, {}, {}
    taus, moved, tops = [], 0, 0
    of = {query.id: [n for n, (asked, _) in enumerate(pairs) if asked.id == query.id] for query in found.queries}
    for kind, values in scores.items():
        hits = {id: [(pairs[n][1].id, float(values[n])) for n in places] for id, places in of.items()}
        runs[kind] = found.ranking(hits)
        counts = {id: Counter(each for _, each in some) for id, some in hits.items()}
        tied[kind] = sum(count for each in counts.values() for count in each.values() if count > 1)
        first[kind] = sum(each[max(each)] > 1 for each in counts.values() if each)
    for id, places in of.items():
        orders = [[hit.id for hit in runs[kind][id]] for kind in scores]
        moved += sum(a != b for a, b in zip(*orders, strict=True))
        tops += orders[0][:1] != orders[1][:1]
        if len(places) > 1:
            taus.append(kendalltau(scores["rounded"][places], scores["float32"][places]).statistic)
    judged = {id: grades for id, grades in qrels.items() if id in of}
    table = evaluate(runs, judged, [MEASURE], baseline="rounded").to_json()
    return {
        "tied_hits": tied,
        "first_place_shared": first,
        "ranks_changed": moved,
        "first_changed": tops,
        "kendall_tau": round(float(np.nanmean(taus)), 4),
        "largest_difference": round(float(np.abs(scores["rounded"] - scores["float32"]).max()), 4),
        MEASURE: {system["name"]: round(system["means"][MEASURE]["all"], 4) for system in table["systems"]},
    }


def show(judge: str, figures: dict[str, Any]) -> Table:
    rows = []
    for name, part in figures["prompts"].items():
        for kind in ("rounded", "float32"):
            ties = f"{part['tied_hits'][kind]} of {figures['pairs']}"
            changed = f"{part['ranks_changed']} of {figures['pairs']}" if kind == "float32" else ""
            seconds = f"{part['head_cpu_seconds'][kind]:.1f} of {part['cpu_seconds']:.1f}"
            rows.append([f"{name}, {kind}", ties, changed, f"{part[MEASURE][kind]:.3f}", seconds])
    heads = ("", "hits that share a score", "ranks that differ", MEASURE, "CPU s of the head, of all")
    return Table(heads, rows, f"`{judge}`")


if __name__ == "__main__":
    sys.exit(main())
