"""Reranking = Prompt x Judge x Sorter: one driver gathers the comparisons of all live queries into one batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np

from ..errors import InputError, nearest
from ..items import Item
from ..pipeline import Stage, standardised
from ..runs import Hit, Run
from ..specs import Spec, bound, known_options
from . import prompts
from .judges import Judge
from .prompts import Comparison, Prompt
from .sorters import SORTERS, Answer, Ask, Sorter, pointwise

# family -> module, class and how a checkpoint becomes a directory; see encoders/registry.py
JUDGES = {"hf": "multilingual.judges:HFJudge", "offline": "multilingual.judges:OfflineJudge"}

# What `--rerank default` means: chosen by the demo's and DESIGN's numbers.
DEFAULT = "likelihood@offline:gemma?depth=20&alpha=0.5"


@dataclass(frozen=True)
class Rerank(Stage):
    """Reorder the first `depth` hits of each query by what a judge says of them.

    The final score is `alpha` times the z-score of the judge's score plus `1 - alpha` times that of the first
    stage's score, both over the judged hits; `alpha=1` is the judge alone. Candidates that the judge cannot see (a
    photo before a text-only model) keep their ranks with `unseen="keep"`, and are an `InputError` before any work
    with `"refuse"`; either way they are counted in the manifest. Hits below `depth` stay below, in their order.
    """

    judge: Judge
    prompt: Prompt
    sort: Sorter = pointwise
    depth: int = 100
    k: int = 10
    alpha: float = 1.0
    unseen: str = "refuse"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"k must be at least 1, not {self.k}")
        if self.depth < self.k:
            raise InputError(f"depth {self.depth} is below k {self.k}: fewer candidates than results")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha must be in 0..1, not {self.alpha}")
        if self.unseen not in ("refuse", "keep"):
            raise nearest(self.unseen, ("refuse", "keep"), "value of unseen")

    def apply(self, run: Run, count: Counter[str]) -> Run:
        documents = _documents(run, self.depth)
        seen: dict[str, tuple[Hit, ...]] = {}
        blind: list[str] = []
        for query, hits in run:
            readable = query.modalities and query.modalities <= self.judge.modalities
            pool = hits[: self.depth]
            visible = [readable and documents[hit.id].modalities & self.judge.modalities for hit in pool]
            seen[query.id] = tuple(hit for hit, sees in zip(pool, visible, strict=True) if sees)
            blind += [f"{query.id}/{hit.id}" for hit, sees in zip(pool, visible, strict=True) if not sees]
        if blind and self.unseen == "refuse":
            raise InputError(
                f"{self.judge.name} reads {' and '.join(sorted(self.judge.modalities))} only and cannot judge "
                f"{len(blind)} of the candidates (first: {blind[0]}); keep their ranks with unseen=keep"
            )
        before = Counter(self.judge.usage)
        queries = {query.id: query for query in run.queries}
        answers = self._drive(queries, seen, documents)
        count.update(Counter(self.judge.usage) - before)
        count["unseen"] = len(blind)
        placed = {}
        for query, pool in run:
            fused = self._fused(seen[query.id], answers[query.id])
            placed[query.id] = _placed(pool[: self.depth], pool[self.depth :], fused)
        return run.ranking(placed)

    def _drive(
        self, queries: Mapping[str, Item], seen: Mapping[str, tuple[Hit, ...]], documents: Mapping[str, Item]
    ) -> dict[str, Sequence[Hit]]:
        """Run every query's sorter; each round puts all their pending comparisons into one call of the judge."""
        live: dict[str, Generator[Ask, Answer, Sequence[Hit]]] = {}
        sorted_: dict[str, Sequence[Hit]] = {query: () for query in queries}
        replies: dict[str, Answer | None] = {}
        for query, hits in seen.items():
            if hits:
                live[query], replies[query] = self.sort(hits, self.k), None
        while live:
            asks: dict[str, Ask] = {}
            for query in list(live):
                try:
                    asks[query] = live[query].send(replies[query])  # type: ignore[arg-type]
                except StopIteration as stop:
                    sorted_[query] = stop.value
                    del live[query]
            comparisons = [
                (queries[query], [documents[hit.id] for hit in group])
                for query, ask in asks.items()
                for group in ask.groups
            ]
            scores = iter(self._judged(comparisons))
            for query, ask in asks.items():
                replies[query] = [next(scores) for _ in ask.groups]
        return sorted_

    def _judged(self, comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        if not comparisons:
            return []
        answers = self.prompt.score(self.judge, comparisons)
        for (query, group), scores in zip(comparisons, answers, strict=True):
            if not np.isfinite(scores).all():
                document = group[int(np.flatnonzero(~np.isfinite(scores))[0])]
                raise InputError(
                    f"{self.judge.name} gave a score that is not finite for query {query.id!r} and document "
                    f"{document.id!r}; try ?dtype=float32"
                )
        every = np.concatenate(answers)
        texts = {document.text for _, group in comparisons for document in group}
        if len(every) > 2 and len(texts) > 2 and np.ptp(every) == 0:
            raise InputError(
                f"{self.judge.name} gave all {len(every)} candidates the score {every[0]:g}: "
                f"it does not follow the prompt {self.prompt.name}"
            )
        return answers

    def _fused(self, first: Sequence[Hit], judged: Sequence[Hit]) -> list[Hit]:
        if self.alpha == 1:
            return list(judged)
        base = dict(zip([hit.id for hit in first], standardised([hit.score for hit in first]), strict=True))
        said = zip(judged, standardised([hit.score for hit in judged]), strict=True)
        fused = [Hit(hit.id, self.alpha * z + (1 - self.alpha) * base[hit.id]) for hit, z in said]
        return sorted(fused, key=lambda hit: (-hit.score, hit.id))

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    def __str__(self) -> str:
        return f"rerank({self.prompt.name}@{self.judge.name}, depth={self.depth}, alpha={self.alpha:g})"


def load(
    text: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    unseen: str = "refuse",
    progress: Callable[[int], None] | None = None,
) -> Rerank:
    """The reranker that a SPEC names: `PROMPT[:SORTER]@FAMILY:CHECKPOINT[?depth=&k=&alpha=&...]`, or `default`.

    `progress` is told how many questions the judge has answered.
    """
    method, at, model = (DEFAULT if text == "default" else text).partition("@")
    if not at:
        raise InputError(
            f"the reranker {text!r} names no model; write prompt[:sorter]@family:checkpoint, as in {DEFAULT}"
        )
    name, _, order = method.partition(":")
    spec = Spec.parse(model)
    if spec.family not in JUDGES:
        raise nearest(spec.family, tuple(JUDGES), "judge family")
    if (order or "pointwise") not in SORTERS:
        raise nearest(order, tuple(SORTERS), "sorter")
    prompt = prompts.load(name)
    module, _, kind = JUDGES[spec.family].partition(":")
    factory = getattr(import_module(f"..{module}", __package__), kind).from_checkpoint

    # Options of the stage and of the judge stand side by side in a SPEC.
    numbers: dict[str, str] = {}
    options: dict[str, str] = {}
    own = ("depth", "k", "alpha")
    for key, value in spec.options.items():
        (numbers if key in own else options)[key] = value
    given = {"device": device, "trust_remote_code": trust_remote_code}
    keys = [*own, *(key for key in known_options(factory) if key not in given)]
    for key in options:
        if key not in keys:
            raise nearest(key, keys, f"option of {text.partition('?')[0]}")

    def stage(*, depth: int = 20, k: int = 10, alpha: float = 1.0) -> Callable[[Judge], Rerank]:
        order_ = SORTERS[order or "pointwise"]
        return lambda judge: Rerank(judge, prompt, order_, depth, min(k, depth), alpha, unseen)

    made = stage(**bound(replace(spec, options=numbers), stage))  # type: ignore[arg-type]
    judge = factory(spec.checkpoint, **bound(replace(spec, options=options), factory, **given))
    judge.progress = progress
    return made(judge)


def _documents(run: Run, depth: int) -> dict[str, Item]:
    if run.docs is None:
        raise InputError("reranking needs the documents: give the run an index or a collection as `docs`")
    ids = list(dict.fromkeys(hit.id for hits in run.hits.values() for hit in hits[:depth]))
    return dict(zip(ids, run.docs.get(ids), strict=True))


def _placed(pool: Sequence[Hit], tail: Sequence[Hit], judged: Sequence[Hit]) -> list[Hit]:
    """Judged hits, best first, on the ranks that judged candidates held; the others stay where they were."""
    if not judged:
        return [*pool, *tail]
    names = {hit.id for hit in judged}
    queue = iter(judged)
    placed: list[Hit] = []
    last = judged[0].score + 1.0
    for position, hit in enumerate([*pool, *tail]):
        judged_here = position < len(pool) and hit.id in names
        hit = next(queue) if judged_here else hit
        # An unjudged hit has no score on this scale: it stands just below the hit before it.
        score = hit.score if judged_here and hit.score < last else math.nextafter(last, -math.inf)
        placed.append(Hit(hit.id, score))
        last = score
    return placed
