"""How fast is a causal judge against the straightforward loop, and which part of that comes from what?"""

from __future__ import annotations

import sys
import time
import zlib
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from crosslens.checkpoints.offline import packages as offline
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.judges.messages import Message
from crosslens.multilingual.prompts import configure_prompt, load_prompt
from crosslens.multilingual.reranking.rerank import QueryGroup, Rerank, drive
from crosslens.multilingual.reranking.sorters import Heapsort, Pointwise, Sorter
from crosslens.pipeline import watch
from crosslens.runs import Run
from crosslens.specs import Spec
from rerank_loop import Interleaved, Loop, Peer, Question, another, answered, unshared, worded
from rerank_task import drawn, texts

# Prompt, sorter, queries, passages a query.
PARTS: dict[str, tuple[str, Sorter, int, int]] = {
    "likelihood": ("likelihood", Pointwise(), 20, 50),
    "yesno": ("yesno", Pointwise(), 20, 50),
    "distinct": ("likelihood", Pointwise(), 20, 50),
    "setwise": ("setwise", Heapsort(arity=3), 50, 100),
}
K = 10
GOALS = {"likelihood": 5.0, "yesno": 5.0, "setwise": 4.0}  # times as fast as the loop in float32
ROUNDS = 90  # of setwise, all queries together
EXACT = 1e-3  # largest difference of log-probabilities between judge and loop, both in float32
ALIKE = 0.98  # least rank correlation of the judge as it runs, for example in bfloat16, with the loop in float32
ENOUGH = 10  # answers below which a rank correlation says nothing
WIDER = 4  # questions of the sample for each one that the slow loops answer
BLOCK = 48  # questions that the steps between loop and judge are handed at once


def speed(options: Namespace) -> dict[str, Any]:
    """Seconds, ratios and agreement of each part; `checks` says which goals are met."""
    judge = load_judge(options.judge, device=options.device)
    if not isinstance(judge, CausalJudge):
        raise InputError(f"{judge.name} is no causal model in this process: there is no loop to compare with")
    native = named(judge.model.dtype)
    dtypes = {named(dtype): dtype for dtype in (torch.float32, judge.model.dtype)}
    loops = {name: Loop(checkpoint(options.judge), dtype, judge) for name, dtype in dtypes.items()}
    warm = [Question(Message(("The first pass is slower than those that follow it.",)), " So it is not timed.")]
    for answer in (partial(answered, another(judge)), *loops.values()):
        answer(warm)

    most = max(scaled(PARTS[part][2], options.fraction) for part in options.parts)
    asked, first = texts(options.collection, options.index, most, options.seed, options.device)
    found = first(asked)
    held = InMemoryDocuments({item.id: item for query in found.queries for item in found.items(query.id)})
    found = replace(found, docs=held)
    parts = {}
    for part in options.parts:
        print(f"measuring {part}", file=sys.stderr, flush=True)
        parts[part] = measured(part, found, judge, loops, options)
    return {
        "judge": judge.name,
        "revision": judge.revision,
        "device": str(judge.device),
        "threads": torch.get_num_threads(),
        "dtype": native,
        "collection": options.collection,
        "fraction": options.fraction,
        "sample": options.sample,
        "seed": options.seed,
        "parts": parts,
        "checks": checks(parts),
    }


def measured(
    part: str, found: Run, judge: CausalJudge, loops: Mapping[str, Loop], options: Namespace
) -> dict[str, Any]:
    """One part: the judge over all of it, its peers over samples of the same questions, taken in between."""
    name, sort, queries, passages = PARTS[part]
    run = replace(found, queries=tuple(drawn(found.queries, scaled(queries, options.fraction), options.seed))).cut(
        passages
    )
    run = distinct(run) if part == "distinct" else run
    calls, rounds = counted(run, sort, judge.appetite)
    native = loops[named(judge.model.dtype)]
    steps = {
        "batched": Peer("batched", native.batched, BLOCK),
        "unshared": Peer("unshared", partial(unshared, another(judge)), BLOCK),
    }
    peers = {dtype: Peer(dtype, loop, every=WIDER) for dtype, loop in loops.items()}
    fresh = another(judge)
    between = Interleaved(
        fresh, [*peers.values(), *steps.values()], max(1, calls // (WIDER * options.sample)), options.seed
    )
    prompt = configure_prompt(load_prompt(name), chat="never")
    stage = Rerank(between, prompt, sort, passages, K)
    started = time.perf_counter()
    with watch(between.take_turns):
        done = stage(run)
    seconds = time.perf_counter() - started - between.paused
    between.finish()

    asked = len(between.asked)
    lengths = [judge.tokens.count(worded(judge, m)) + judge.tokens.count(target) for m, target in between.asked]
    numbers = sorted(peers["float32"].answers)
    sampled = [between.sample[n] for n in numbers]
    truth = [peers["float32"].answers[n] for n in numbers]
    exact = answered(another(judge, loops["float32"].model), sampled)
    each = seconds / asked
    factors = {
        "precision": peers["float32"].seconds / peers[named(judge.model.dtype)].seconds,
        "batching": peers[named(judge.model.dtype)].seconds / steps["batched"].seconds,
        "head": steps["batched"].seconds / steps["unshared"].seconds,
        "sharing": steps["unshared"].seconds / each,
    }
    return {
        "queries": len(run),
        "passages": passages,
        "prompts": asked,
        "rounds": int(done.manifest.total("rounds")),
        "without_model": {"prompts": calls, "rounds": rounds},
        "tokens_in_prompts": sum(lengths),
        "tokens_computed": fresh.usage["prompt_tokens"],
        "seconds": round(seconds, 2),
        "loops": {dtype: extrapolated(peer, asked, seconds) for dtype, peer in peers.items()},
        "steps": {name: extrapolated(peer, asked, seconds) for name, peer in steps.items()},
        "factors": {name: round(factor, 2) for name, factor in factors.items()},
        "agreement": {
            "answers": len(truth),
            "float32": agreement(exact, truth),
            "as_run": agreement([between.answers[n] for n in numbers], truth),
            "loops": {
                dtype: agreement([peer.answers[n] for n in numbers], truth)
                for dtype, peer in peers.items()
                if dtype != "float32"
            },
        },
    }


def extrapolated(peer: Peer, prompts: int, seconds: float) -> dict[str, Any]:
    """A peer's time for all prompts, from those it was timed on, and how many times the judge's that is."""
    whole, error = peer.seconds * prompts, peer.error * prompts
    return {
        "timed_on": sum(size for size, _ in peer.times),
        "seconds_each": round(peer.seconds, 5),
        "seconds": round(whole, 1),
        "standard_error": None if np.isnan(error) else round(error, 1),
        "ratio": round(whole / seconds, 2),
    }


def agreement(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, Any]:
    """The largest difference of log-probabilities, their rank correlation, how often the same label is first."""
    from scipy.stats import spearmanr

    ours, theirs = np.concatenate(found), np.concatenate(truth)
    correlation = float(spearmanr(ours, theirs).statistic) if np.ptp(ours) and np.ptp(theirs) else np.nan
    same = [one.argmax() == other.argmax() for one, other in zip(found, truth, strict=True) if len(one) > 1]
    return {
        "max_difference": float(f"{np.abs(ours - theirs).max():.3g}"),
        "spearman": None if np.isnan(correlation) else round(correlation, 5),
        "same_choice": round(float(np.mean(same)), 4) if same else None,
    }


def checks(parts: Mapping[str, Any]) -> dict[str, bool]:
    """The goals of the parts that were measured."""
    made = {}
    for part, found in parts.items():
        agreed = found["agreement"]
        if part in GOALS:
            goal = f"{part}: at least {GOALS[part]:g} x the loop in float32"
            made[goal] = found["loops"]["float32"]["ratio"] >= GOALS[part]
        if part == "setwise":
            made[f"{part}: at most {ROUNDS} rounds"] = found["rounds"] <= ROUNDS
        exact = f"{part}: in float32 the loop's answers within {EXACT:g}"
        made[exact] = agreed["float32"]["max_difference"] <= EXACT
        if agreed["answers"] >= ENOUGH:
            alike = f"{part}: as run, rank correlation of at least {ALIKE:g} with the loop in float32"
            made[alike] = (agreed["as_run"]["spearman"] or 0.0) >= ALIKE
    return made


def counted(run: Run, sort: Sorter, appetite: int) -> tuple[int, int]:
    """Questions and rounds of a sorter over a run when what is better is a matter of chance; asks no model."""
    questions = rounds = 0

    def answer(groups: Sequence[QueryGroup]) -> list[np.ndarray]:
        nonlocal questions, rounds
        questions, rounds = questions + len(groups), rounds + 1
        return [np.array([zlib.crc32(f"{query} {hit.id}".encode()) for hit in hits], float) for query, hits in groups]

    for _ in drive(((query.id, sort(hits, K)) for query, hits in run), answer, appetite):
        pass
    return questions, rounds


def distinct(run: Run) -> Run:
    """Every query with passages of its own: each begins with its number, so that no prompt shares a prefix."""
    items: dict[str, Item] = {}
    hits: dict[str, list[tuple[str, float]]] = {}
    for query, found in run:
        hits[query.id] = []
        for hit, item in zip(found, run.items(query.id), strict=True):
            own = replace(item, id=f"{query.id}/{item.id}", text=f"{len(items) + 1}. {item.text}")
            items[own.id] = own
            hits[query.id].append((own.id, hit.score))
    return run.ranking(hits, InMemoryDocuments(items))


def checkpoint(judge: str) -> str:
    """Where `AutoModelForCausalLM` finds the judge's model."""
    spec = Spec.parse(judge)
    return str(offline.make_checkpoint(spec.checkpoint)) if spec.family == "offline" else spec.checkpoint


def scaled(count: int, fraction: float) -> int:
    return max(1, round(count * fraction))


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
