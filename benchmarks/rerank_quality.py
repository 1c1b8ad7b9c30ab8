"""What each reranking method does to a first stage, and at which cost; fusion tuned on one set, reported on another."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.multilingual.reranking.plan import NAMED, load_reranker
from crosslens.multilingual.reranking.rerank import FAULTS, Rerank, describe_judging
from crosslens.runs import Hit, Manifest, Record, Run
from kept_lines import append_line
from rerank_answers import ask, identity, kept_at, results
from rerank_compare import agreement_table, bias_table, compare_orders, find_bias, name_methods
from rerank_show import FIRST, MEASURE, MEASURES, quality_rows, quality_table, tune_table
from rerank_task import Task, task

METHODS = (
    "likelihood",
    "yesno",
    "graded",
    "pairwise:heapsort",
    "setwise:heapsort",
    "setwise:bubblesort",
    "setwise:tournament",
    "setwise:plackett",
    "listwise:window",
    "first:window",
)
COSTS = ("calls", "rounds", "prompt_tokens", "generated_tokens", "windowed")
Method = tuple[Rerank, ...]  # several are a cascade, of which the last one is weighed
ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))


def spec(method: str, judge: str, depth: int) -> str:
    """The SPEC of a method: `likelihood?alpha=0.5` takes the judge and depth of the benchmark; a SPEC stays as it is.

    So do the names of rerankers; `A >> B` is a cascade of such.
    """
    if " >> " in method:
        return " >> ".join(spec(each.strip(), judge, depth) for each in method.split(" >> "))
    if "@" in method or method in NAMED:
        return method
    name, _, options = method.partition("?")
    checkpoint, _, own = judge.partition("?")
    return f"{name}@{checkpoint}?" + "&".join(filter(None, (f"depth={depth}", own, options)))


def quality(options: Namespace) -> dict[str, Any]:
    """Costs and quality of each method; finished ones are read from `--out`, the others added to it."""
    stages = loaded([spec(method, options.judge, options.depth) for method in options.methods], options.device)
    given = read_weights(options.weights)
    sets = [options.choose, options.report] if options.choose else [""]
    done = results(options.out)
    failed: dict[str, str] = {}
    works = {part: _task(Path(options.collection, part), stages, options) for part in sets}
    found: dict[str, dict[str, Any]] = {part: {} for part in sets}
    journal = options.out and options.out.with_name(options.out.name + ".journal")
    for name in stages:
        for part, work in works.items():
            key = identity(stages[name], work)
            if key not in done and name not in failed:
                print(f"reranking with {name}" + f", {part}" * bool(part), file=sys.stderr, flush=True)
                try:
                    done[key] = {"key": key, **judged(name, stages[name], work, journal)}
                except InputError as error:
                    failed[name] = str(error)
                    continue
                append_line(options.out, done[key])
            if key in done:
                found[part][name] = done[key]
    work, records = works[sets[-1]], found[sets[-1]]
    chosen = {
        name: _best_weight(stages[name][-1], works[sets[0]], entry)["alpha"] if options.choose else given.get(name)
        for name, entry in found[sets[0]].items()
        if options.choose or name in given
    }
    runs = {FIRST: work.first}
    weighted: dict[str, str] = {}  # the system with the chosen weight, by SPEC
    for name, entry in records.items():
        runs[name] = weigh(stages[name][-1], work, entry)
        if name in chosen:
            weighted[name] = f"{name} at alpha {chosen[name]:g}"
            runs[weighted[name]] = weigh(replace(stages[name][-1], alpha=chosen[name]), work, entry)
    compared = evaluate(
        runs, work.qrels, MEASURES, per=work.per, baseline=FIRST, test="randomisation", seed=options.seed
    )
    orders = {
        name: {q: [doc for doc, _ in hits] for q, hits in entry["asked"].items()} for name, entry in records.items()
    }
    taus = compare_orders(orders)
    names = name_methods(records)
    ceilings = find_ceilings(work, sorted({entry["task"]["depth"] for entry in records.values()}))
    return {
        "task": work.setting | {"depth": options.depth},
        "ceilings": ceilings,
        "methods": {
            name: {k: v for k, v in entry.items() if k not in ("asked", "before")} for name, entry in records.items()
        },
        "failed": failed,
        "chosen": chosen,
        "chosen_on": works[sets[0]].setting if options.choose else None,
        "agreement": taus,
        "quality": compared.to_json(),
        "text": quality_table(records, failed, compared, weighted, chosen, ceilings),
        "rows": quality_rows(records, compared, weighted, chosen, names),
        "bias": bias_table({names[name]: entry for name, entry in records.items()}),
        "taus": agreement_table(taus, names),
    }


def judged(name: str, stages: Method, work: Task, journal: Path | None) -> dict[str, Any]:
    """One method over the first stage: costs, what could not be read, and what the judge alone said of each query.

    Of a cascade, what the last judge said of the order that those before it made; the costs are those of all.
    """
    run = work.first
    counts: list[Counter[str]] = []
    records = []
    with kept_at(journal) as path:
        for stage in stages:
            before = run
            said, count = ask(name, stage, replace(work, first=before), path)
            seconds = count.pop("milliseconds") / 1000
            counts.append(count)
            records.append(Record(str(stage), stage.fingerprint, seconds, dict(count), stage.models))
            run = stage.weigh(before, said)
    total = sum(counts, Counter())
    faults = {kind: int(total[kind]) for kind in FAULTS if total.get(kind)}
    measured = evaluate({FIRST: work.first, name: run}, work.qrels, (MEASURE,))
    return {
        "spec": name,
        "judge": {model: revision for stage in stages for model, revision in stage.models.items()},
        "task": work.setting | {"depth": stages[0].depth},
        "queries": len(work.first),
        **{cost: int(total.get(cost, 0)) for cost in COSTS},
        "seconds": round(sum(record.seconds for record in records), 2),
        "faults_in_all": sum(faults.values()),
        "faults": faults,
        "bias": find_bias(counts[-1], said),
        "remarks": describe_judging(Manifest(tuple(records))),
        "asked": _listed(said),
        **({"before": _listed(before.hits)} if len(stages) > 1 else {}),
        MEASURE: measured.mean(name, MEASURE),
        f"{MEASURE} before": measured.mean(FIRST, MEASURE),
    }


def weigh(stage: Rerank, work: Task, entry: Mapping[str, Any]) -> Run:
    """What the (last) stage makes of what was said before, with its weight; nothing is asked."""
    before = work.first
    if "before" in entry:
        before = before.ranking({query: _read(hits) for query, hits in entry["before"].items()})
    return stage.weigh(before, {query: _read(hits) for query, hits in entry["asked"].items()})


def _listed(hits: Mapping[str, Sequence[Hit]]) -> dict[str, list[list[Any]]]:
    return {query: [[hit.id, hit.score] for hit in found] for query, found in hits.items()}


def _read(hits: Sequence[Sequence[Any]]) -> list[Hit]:
    return [Hit(doc, score) for doc, score in hits]


def find_ceilings(work: Task, depths: Sequence[int]) -> dict[str, dict[str, float]]:
    """By depth, the measures of an ideal order of so many candidates: no method that reranks them can have more."""
    runs = {}
    for depth in depths:
        ideal = {}
        for query, hits in work.first:
            grades = work.qrels[query.id]
            order = sorted(hits[:depth], key=lambda hit: -grades.get(hit.id, 0))
            ideal[query.id] = [(hit.id, -float(n)) for n, hit in enumerate([*order, *hits[depth:]])]
        runs[str(depth)] = work.first.ranking(ideal)
    means = evaluate(runs, work.qrels, MEASURES) if runs else None
    return {name: {each: means.mean(name, each) for each in MEASURES} for name in runs if means}


def read_weights(path: Path | None) -> dict[str, float]:
    """The weights that another run of `quality` chose, from the file that it saved."""
    if path is None:
        return {}
    try:
        return {name: float(alpha) for name, alpha in json.loads(path.read_text("utf-8"))["figures"]["chosen"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} holds no weights: give what `quality --choose SET --save FILE` has written") from None


def tune(options: Namespace) -> dict[str, Any]:
    """Prompt, fusion and its weight chosen on one set and reported on another; the judge is asked once."""
    methods = loaded([spec(method, options.judge, options.depth) for method in options.methods], options.device)
    if cascades := [name for name, parts in methods.items() if len(parts) > 1]:
        raise InputError(f"tune takes rerankers one by one, not {cascades[0]}; `quality --choose` takes cascades")
    stages = {name: parts[0] for name, parts in methods.items()}
    with kept_at(options.out) as journal:
        print(f"judging {options.tune}", file=sys.stderr, flush=True)
        dev = _task(Path(options.collection, options.tune), methods, options)
        said = {name: ask(name, stage, dev, journal)[0] for name, stage in stages.items()}
        tried = {
            f"{name} {fuse} {alpha:g}": (name, replace(stage, fuse=fuse, alpha=alpha))
            for name, stage in stages.items()
            for fuse in ("zscore", "rrf")
            for alpha in ALPHAS
        }
        means = evaluate(
            {label: stage.weigh(dev.first, said[name]) for label, (name, stage) in tried.items()}, dev.qrels, (MEASURE,)
        )
        # Of equals the one that trusts the judge least: it may leave most of its answers out.
        best = min(tried, key=lambda label: (-means.mean(label, MEASURE), tried[label][1].alpha))
        name, chosen = tried[best]
        print(f"judging {options.report} by {best}", file=sys.stderr, flush=True)
        test = _task(Path(options.collection, options.report), methods, options)
        answers = ask(name, chosen, test, journal)[0]
    reported = {
        FIRST: test.first,
        "chosen": chosen.weigh(test.first, answers),
        "judge alone": replace(chosen, alpha=1.0).weigh(test.first, answers),
        "equal weights": replace(chosen, alpha=0.5, fuse="zscore").weigh(test.first, answers),
    }
    compared = evaluate(
        reported, test.qrels, (MEASURE,), per=test.per, baseline=FIRST, test="randomisation", seed=options.seed
    )
    before = evaluate({FIRST: dev.first}, dev.qrels, (MEASURE,)).mean(FIRST, MEASURE)
    curves = {
        f"{name} {fuse}": [round(means.mean(f"{name} {fuse} {alpha:g}", MEASURE), 4) for alpha in ALPHAS]
        for name in stages
        for fuse in ("zscore", "rrf")
    }
    found = {
        "tuned_on": dev.setting,
        "reported_on": test.setting,
        "judge": {chosen.judge.name: chosen.judge.revision},
        "alphas": list(ALPHAS),
        "curves": curves,
        "first_stage_tuned_on": round(before, 4),
        "chosen": {
            "spec": name,
            "fuse": chosen.fuse,
            "alpha": chosen.alpha,
            MEASURE: round(means.mean(best, MEASURE), 4),
        },
        "quality": compared.to_json(),
    }
    return found | {"text": tune_table(found, compared)}


def loaded(specs: Sequence[str], device: str) -> dict[str, Method]:
    """The stages by their SPECs; the judge, where it is the same, is loaded once. Photos keep their ranks."""
    found: dict[str, Method] = {}
    for name in specs:
        parts = [
            part for each in name.split(" >> ") for part in load_reranker(each, device=device, unseen="keep").parts
        ]
        found[name] = tuple(part for part in parts if isinstance(part, Rerank))
    return found


def _best_weight(stage: Rerank, work: Task, entry: Mapping[str, Any]) -> dict[str, float]:
    """The weight of the judge that is best on a set; of equals the one that trusts the judge least."""
    runs = {str(alpha): weigh(replace(stage, alpha=alpha), work, entry) for alpha in ALPHAS}
    means = evaluate(runs, work.qrels, (MEASURE,))
    alpha = max(ALPHAS, key=lambda alpha: (means.mean(str(alpha), MEASURE), -alpha))
    return {"alpha": alpha, MEASURE: means.mean(str(alpha), MEASURE)}


def _task(collection: Path, methods: Mapping[str, Method], options: Namespace) -> Task:
    return task(
        str(collection),
        options.index,
        sees=frozenset.intersection(*(each.judge.modalities for parts in methods.values() for each in parts)),
        mode=options.mode,
        fields=options.fields,
        queries=options.queries,
        seed=options.seed,
        device=options.device,
    )
