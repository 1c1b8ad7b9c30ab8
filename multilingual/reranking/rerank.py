"""Reranking = Prompt x Judge x Sorter, as a stage."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ...errors import InputError, check_at_least, check_known
from ...items import Item
from ...pipeline import Stage, reciprocal_ranks, standardize
from ...runs import Hit, Run
from ..judges import Judge, can_see
from ..prompts import Comparison, Prompt
from .driver import QueryGroup, drive
from .journal import Journal
from .sorters import Pointwise, Sorter, Sorting, name_sorter

Fuse = Literal["zscore", "rrf", "linear"]
RRF_CONSTANT = 60  # of Cormack, Clarke and Buettcher 2009


@dataclass(frozen=True)
class Rerank(Stage):
    """Reorder the first `depth` hits of each query by what a judge says of them.

    `sort` asks for comparisons, `prompt` words them, `judge` answers; the comparisons of all queries go to the judge
    together. The first `k` are sorted; what of the rest was never compared keeps its order behind them, and hits
    below `depth` stay below.

    `alpha` weighs the judge against the first stage, 1 being the judge alone. `fuse` says in what: `zscore` adds the
    z-scores of both over the judged hits, `rrf` the reciprocal ranks, `linear` the scores as they are. (Sorters other
    than pointwise give ranks, not scores: n for the first, n - 1 for the second, ...)

    Candidates that the judge cannot see (a photo before a text-only model) keep their ranks with `unseen="keep"`, and
    are an `InputError` before any work with `"refuse"`; either way they are counted in the manifest.

    With a `journal`, finished queries are kept in that file and not judged again by a later run; who writes the run
    removes it. `InputError` on scores that are not finite, and on a judge whose probabilities are all the same.
    """

    judge: Judge
    prompt: Prompt
    sort: Sorter = Pointwise()  # noqa: RUF009 - it is frozen
    depth: int = 100
    k: int = 10
    alpha: float = 1.0
    unseen: str = "refuse"
    fuse: Fuse = "zscore"
    journal: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_settings(self.depth, self.k, self.alpha, self.unseen, self.fuse)
        check_sorter(self.prompt, self.sort)
        self.prompt.check_judge(self.judge)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        documents = _documents(run, self.depth)
        visible = self._visible(run, documents, count)
        journal = Journal(self.journal) if self.journal else None
        try:
            judged = self._judged(run, visible, documents, count, journal)
        finally:
            if journal:
                journal.close()
        placed = {}
        for query, pool in run:
            fused = self._fused(visible[query.id], judged[query.id])
            placed[query.id] = _placed(pool[: self.depth], pool[self.depth :], fused)
        return run.ranking(placed)

    def _visible(self, run: Run, documents: Mapping[str, Item], count: Counter[str]) -> dict[str, tuple[Hit, ...]]:
        """Of each query's candidates those that the judge can see."""
        visible: dict[str, tuple[Hit, ...]] = {}
        unseen: list[str] = []
        for query, hits in run:
            pool = hits[: self.depth]
            seen = [can_see(self.judge, query, documents[hit.id]) for hit in pool]
            visible[query.id] = tuple(hit for hit, sees in zip(pool, seen, strict=True) if sees)
            unseen += [f"{query.id}/{hit.id}" for hit, sees in zip(pool, seen, strict=True) if not sees]
        if unseen and self.unseen == "refuse":
            raise InputError(
                f"{self.judge.name} reads {' and '.join(sorted(self.judge.modalities))} only and cannot judge "
                f"{len(unseen)} of the candidates (first: {unseen[0]}); keep their ranks with unseen=keep"
            )
        count["unseen"] = len(unseen)
        return visible

    def _judged(
        self,
        run: Run,
        visible: Mapping[str, tuple[Hit, ...]],
        documents: Mapping[str, Item],
        count: Counter[str],
        journal: Journal | None,
    ) -> dict[str, Sequence[Hit]]:
        """Every query's candidates in the judge's order."""
        queries = {query.id: query for query in run.queries}
        keys = {id: self._key(query, visible[id], documents) for id, query in queries.items()} if journal else {}
        judged: dict[str, Sequence[Hit]] = {}
        before = Counter(self.judge.usage)
        work: Counter[str] = Counter()
        written: Counter[str] = Counter()  # what the journal's lines have counted

        def waiting() -> Iterator[tuple[str, Sorting]]:
            for query, hits in visible.items():
                kept = journal.get(keys[query]) if journal else None
                if kept is not None:
                    judged[query] = [Hit(doc, score) for doc, score in kept]
                    count["resumed"] += 1
                else:
                    yield query, self.sort(hits, self.k)

        def answer(groups: Sequence[QueryGroup]) -> list[np.ndarray]:
            comparisons = [(queries[query], [documents[hit.id] for hit in hits]) for query, hits in groups]
            work["rounds"] += 1
            return self._answered(comparisons, work)

        for query, order in drive(waiting(), answer, self.judge.appetite):
            judged[query] = order
            if journal and visible[query]:
                done = work + (Counter(self.judge.usage) - before)
                journal.put(keys[query], order, done - written)
                written = done
        count.update(work + (Counter(self.judge.usage) - before))
        if journal:
            count.update(journal.counted)
        return judged

    def _answered(self, comparisons: Sequence[Comparison], count: Counter[str]) -> list[np.ndarray]:
        largest = max(len(group) for _, group in comparisons)
        if largest > self.prompt.most > 1:
            raise InputError(
                f"{largest} passages at once are more than the {self.prompt.most} labels of the prompt "
                f"{self.prompt.name}; lower the sorter's window or arity, or the depth"
            )
        answers = self.prompt.score(self.judge, comparisons, count)
        for (query, group), scores in zip(comparisons, answers, strict=True):
            if not np.isfinite(scores).all():
                document = group[int(np.flatnonzero(~np.isfinite(scores))[0])]
                raise InputError(
                    f"{self.judge.name} gave a score that is not finite for query {query.id!r} and document "
                    f"{document.id!r}; try ?dtype=float32"
                )
            if len(group) > 1:
                count["compared"] += 1
                count["first_won"] += int(scores.argmax() == 0)
        every = np.concatenate(answers)
        texts = {document.text for _, group in comparisons for document in group}
        if len(every) > 2 and len(texts) > 2 and np.ptp(every) == 0:
            if self.prompt.asks == "generate":  # grades in words are few, and answers may all be unreadable
                count["all_alike"] += len(every)
                return answers
            raise InputError(
                f"{self.judge.name} gave all {len(every)} candidates the score {every[0]:g}: "
                f"it does not follow the prompt {self.prompt.name}"
            )
        return answers

    def _key(self, query: Item, hits: Sequence[Hit], documents: Mapping[str, Item]) -> str:
        """All that a query's order depends on."""
        parts = [self.fingerprint, query.id, query.content_hash()]
        parts += [f"{hit.id} {documents[hit.id].content_hash()}" for hit in hits]
        return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _fused(self, first: Sequence[Hit], judged: Sequence[Hit]) -> list[Hit]:
        if self.alpha == 1:
            return list(judged)
        own, base = self._scores(judged), self._scores(first)
        fused = [Hit(doc, self.alpha * score + (1 - self.alpha) * base[doc]) for doc, score in own.items()]
        return sorted(fused, key=lambda hit: (-hit.score, hit.id))

    def _scores(self, hits: Sequence[Hit]) -> dict[str, float]:
        """The hits' scores on the scale on which they are added."""
        if self.fuse == "rrf":
            return reciprocal_ranks([hits], RRF_CONSTANT)
        scores = [hit.score for hit in hits]
        values = standardize(scores).tolist() if self.fuse == "zscore" else scores
        return dict(zip([hit.id for hit in hits], values, strict=True))

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    def __str__(self) -> str:
        method = f"{self.prompt.name}:{name_sorter(self.sort)}@{self.judge.name}"
        return f"rerank({method}, depth={self.depth}, alpha={self.alpha:g})"


def check_settings(depth: int, k: int, alpha: float, unseen: str, fuse: str) -> None:
    """`InputError` naming the setting of a `Rerank` that makes no sense."""
    check_at_least(1, k=k)
    if depth < k:
        raise InputError(f"depth {depth} is below k {k}: fewer candidates than results")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be in 0..1, not {alpha}")
    check_known(unseen, ("refuse", "keep"), "value of unseen")
    check_known(fuse, get_args(Fuse), "value of fuse")


def check_sorter(prompt: Prompt, sort: Sorter) -> None:
    """`InputError` where the sorter shows the prompt more documents than it takes, or one where it compares."""
    most = getattr(sort, "most", None)
    if most is None:
        return
    name = name_sorter(sort)
    if most > 1 and prompt.most == 1:
        raise InputError(f"the prompt {prompt.name} shows one passage at a time: sort it pointwise, not by {name}")
    if most == 1 and prompt.most > 1:
        raise InputError(f"the prompt {prompt.name} compares passages: sort it by {prompt.sort}, not {name}")
    if most > prompt.most:
        raise InputError(
            f"{name} shows {most} passages at once, and the prompt {prompt.name} has {prompt.most} labels; "
            f"lower its window or arity"
        )


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
