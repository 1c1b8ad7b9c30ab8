"""What each reranking method does to a first stage, and at which cost; fusion tuned on one set, reported on another."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.commands.console import progress
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.multilingual.judges import Completion, Judge
from crosslens.multilingual.judges.journal import Journal
from crosslens.multilingual.judges.messages import Message
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.multilingual.reranking.rerank import FAULTS, Rerank, describe_judging
from crosslens.pipeline import watch
from rerank_show import FIRST, MEASURE, quality_rows, quality_table, tune_table
from rerank_task import Task, task

METHODS = (
    "likelihood",
    "yesno",
    "graded",
    "pairwise:heapsort",
    "setwise:heapsort",
    "setwise:bubblesort",
    "setwise:tournament",
    "listwise:window",
    "first:window",
)
COSTS = ("calls", "rounds", "prompt_tokens", "generated_tokens")
ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))


def spec(method: str, judge: str, depth: int) -> str:
    """The SPEC of a method: `likelihood?alpha=0.5` takes the judge and depth of the benchmark; a SPEC stays as it is."""
    if "@" in method:
        return method
    name, _, options = method.partition("?")
    checkpoint, _, own = judge.partition("?")
    return f"{name}@{checkpoint}?" + "&".join(filter(None, (f"depth={depth}", own, options)))


def quality(options: Namespace) -> dict[str, Any]:
    """Costs and nDCG@10 of each method; finished ones are read from `--out`, the others added to it."""
    stages = loaded([spec(method, options.judge, options.depth) for method in options.methods], options.device)
    work = _task(options.collection, stages, options)
    done = results(options.out)
    records, failed = {}, {}
    for name, stage in stages.items():
        key = identity(stage, work)
        if key not in done:
            print(f"reranking with {name}", file=sys.stderr, flush=True)
            try:
                done[key] = {"key": key, **judged(name, stage, work)}
            except InputError as error:
                failed[name] = str(error)
                continue
            append(options.out, done[key])
        records[name] = done[key]
    runs = {FIRST: work.first} | {
        name: work.first.ranking(
            {q: [(d, -float(n)) for n, d in enumerate(docs)] for q, docs in found["order"].items()}
        )
        for name, found in records.items()
    }
    compared = evaluate(
        runs, work.qrels, (MEASURE,), per=work.per, baseline=FIRST, test="randomisation", seed=options.seed
    )
    return {
        "task": work.setting | {"depth": options.depth},
        "methods": {name: {k: v for k, v in found.items() if k != "order"} for name, found in records.items()},
        "failed": failed,
        "quality": compared.to_json(),
        "text": quality_table(records, failed, compared),
        "rows": quality_rows(records, compared),
    }


def judged(name: str, stage: Rerank, work: Task) -> dict[str, Any]:
    """One method over the first stage: its costs, what could not be read, its mean, and the order of each query."""
    with progress(name) as bar, watch(bar):
        run = stage(work.first)
    record = run.manifest.records[-1]
    faults = {kind: int(record.counts[kind]) for kind in FAULTS if record.counts.get(kind)}
    measured = evaluate({FIRST: work.first, name: run}, work.qrels, (MEASURE,))
    return {
        "spec": name,
        "judge": dict(record.models),
        "task": work.setting | {"depth": stage.depth},
        "queries": len(run),
        **{cost: int(record.counts.get(cost, 0)) for cost in COSTS},
        "seconds": record.seconds,
        "faults_in_all": sum(faults.values()),
        "faults": faults,
        "remarks": describe_judging(run.manifest),
        MEASURE: measured.mean(name, MEASURE),
        f"{MEASURE} before": measured.mean(FIRST, MEASURE),
        "order": {query.id: [hit.id for hit in hits] for query, hits in run},
    }


def tune(options: Namespace) -> dict[str, Any]:
    """Prompt, fusion and its weight chosen on one set and reported on another; the judge is asked once."""
    root = Path(options.collection)
    stages = loaded([spec(method, options.judge, options.depth) for method in options.methods], options.device)
    with remembered(options.out) as remember:
        print(f"judging {options.tune}", file=sys.stderr, flush=True)
        dev = _task(root / options.tune, stages, options)
        tried = {
            f"{name} {fuse} {alpha:g}": (name, replace(remember(stage), fuse=fuse, alpha=alpha))
            for name, stage in stages.items()
            for fuse in ("zscore", "rrf")
            for alpha in ALPHAS
        }
        runs = {label: stage(dev.first) for label, (_, stage) in tried.items()}
        means = evaluate(runs, dev.qrels, (MEASURE,))
        # Of equals the one that trusts the judge least: it may leave most of its answers out.
        best = min(tried, key=lambda label: (-means.mean(label, MEASURE), tried[label][1].alpha))
        name, chosen = tried[best]
        print(f"judging {options.report} by {best}", file=sys.stderr, flush=True)
        test = _task(root / options.report, stages, options)
        reported = {
            FIRST: test.first,
            "chosen": chosen(test.first),
            "judge alone": replace(chosen, alpha=1.0)(test.first),
            "equal weights": replace(chosen, alpha=0.5, fuse="zscore")(test.first),
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


def loaded(specs: Sequence[str], device: str) -> dict[str, Rerank]:
    """The stages by their SPECs; the judge, where it is the same, is loaded once. Photos keep their ranks."""
    return {name: load_reranker(name, device=device, unseen="keep") for name in specs}


def identity(stage: Rerank, work: Task) -> str:
    """What a result depends on: prompt, sorter, judge and its revision, sizes, queries, and the first stage's hits."""
    parts = [stage.fingerprint, json.dumps(work.setting, sort_keys=True)]
    for query, hits in work.first:
        parts.append(f"{query.id} {query.content_hash()} {' '.join(hit.id for hit in hits)}")
    parts += [record.fingerprint for record in work.first.manifest.records]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()


def results(path: Path | None) -> dict[str, dict[str, Any]]:
    """The results in a JSON-lines file by their keys; what a kill cut short is left out."""
    found = {}
    if path is not None and path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                entry = json.loads(line)
                found[entry["key"]] = entry
            except (ValueError, KeyError, TypeError):
                print(f"{path}: left out a line that is not a result", file=sys.stderr)
    return found


def append(path: Path | None, entry: Mapping[str, Any]) -> None:
    if path is not None:
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as out:
            out.write("\n" * torn + json.dumps(entry, ensure_ascii=False) + "\n")


class Remembering:
    """A judge that is asked everything once: what it said is kept in a journal, for this run and later ones."""

    def __init__(self, judge: Judge, journal: Journal, said: dict[str, Any]) -> None:
        self.judge = judge
        self.journal = journal
        self.said = said

    def __getattr__(self, name: str) -> Any:
        return getattr(self.judge, name)

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        asked = list(zip(prompts, targets, strict=True))
        return np.array(self._all(asked, lambda new: self.judge.likelihood(*zip(*new, strict=True)).tolist()))

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        asked = [(prompt, tuple(labels)) for prompt in prompts]
        return np.array(self._all(asked, lambda new: self.judge.choose([prompt for prompt, _ in new], labels).tolist()))

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        asked = [(prompt, "score") for prompt in prompts]
        return np.array(self._all(asked, lambda new: self.judge.score([prompt for prompt, _ in new]).tolist()))

    def generate(self, prompts: Sequence[Message], **sampling: Any) -> list[Completion]:
        asked = [(prompt, sorted(sampling.items())) for prompt in prompts]

        def ask(new: Sequence[tuple[Message, object]]) -> list[Any]:
            said = self.judge.generate([prompt for prompt, _ in new], **sampling)
            return [[each.text, each.tokens, each.ended] for each in said]

        return [Completion(*each) for each in self._all(asked, ask)]

    def _all(self, asked: Sequence[tuple[Message, Any]], ask: Callable[[list[Any]], list[Any]]) -> list[Any]:
        keys = [
            hashlib.blake2b(
                f"{self.judge.fingerprint} {each!r}".encode("utf-8", "surrogatepass"), digest_size=16
            ).hexdigest()
            for each in asked
        ]
        new = {key: each for key, each in zip(keys, asked, strict=True) if not self._known(key)}
        if new:
            for key, value in zip(new, ask(list(new.values())), strict=True):
                self.said[key] = value
                self.journal.put(key, value, {})
        return [self.said[key] for key in keys]

    def _known(self, key: str) -> bool:
        if key not in self.said and (value := self.journal.get(key)) is not None:
            self.said[key] = value
        return key in self.said


@contextmanager
def remembered(path: Path | None) -> Iterator[Callable[[Rerank], Rerank]]:
    """Makes stages whose judge remembers, in a journal at `path` or for this run only."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(path or Path(folder, "journal"))
        said: dict[str, Any] = {}
        try:
            yield lambda stage: replace(stage, judge=Remembering(stage.judge, journal, said))
        finally:
            journal.close()


def _task(collection: str | Path, stages: Mapping[str, Rerank], options: Namespace) -> Task:
    return task(
        str(collection),
        options.index,
        sees=frozenset.intersection(*(stage.judge.modalities for stage in stages.values())),
        mode=options.mode,
        fields=options.fields,
        queries=options.queries,
        seed=options.seed,
        device=options.device,
    )
