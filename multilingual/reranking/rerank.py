"""Reranking = Prompt x Judge x Sorter, as a stage; a driver that asks for all queries at once; what runs say of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ...errors import InputError, check_at_least, check_known, note_kept
from ...items import Item, check_text
from ...pipeline import Stage, describe_fields, reciprocal_ranks, standardize
from ...runs import Hit, Manifest, Record, Run
from ..judges import Judge, can_see
from ..judges.journal import Journal
from ..judges.kept import KeptJudge, Unanswered
from ..judges.mass import describe_mass
from ..prompts import Comparison, Prompt
from ..prompts.places import describe_places
from .excerpts import BestPassages, find_limit
from .exits import check_exit, judge_until_settled
from .registry import name_sorter
from .sorters import Ask, Pointwise, Sorter, Sorting, score_order

Fuse = Literal["zscore", "rrf", "linear"]
QueryGroup = tuple[str, tuple[Hit, ...]]  # a query's id and the hits that are compared for it
# What `judges.answers` counts of text that it could not read as asked.
FAULTS = (
    "refused", "empty", "unreadable", "missing", "duplicate", "out_of_range", "foreign_digits", "unclosed_thought"
)  # fmt: skip


@dataclass(frozen=True)
class Rerank(Stage):
    """Reorder the first `depth` hits of each query by what a judge says of them.

    `sort` asks for comparisons, `prompt` words them, `judge` answers; the comparisons of all queries go to the judge
    together. The first `k` are sorted; what of the rest was never compared keeps its order behind them, and hits
    below `depth` stay below.

    `alpha` weighs the judge against the first stage, 1 being the judge alone. `fuse` says in what: `zscore` adds the
    z-scores of both over the judged hits, `rrf` the reciprocal ranks, `linear` the scores as they are. (Sorters other
    than pointwise give ranks, not scores: n for the first, n - 1 for the second, ...)

    With `exit`, pointwise judging of a query ends where its first k cannot change any more (`exits`): they are the
    same, those not judged follow in the first stage's order, and `saved_calls` counts them.

    `passages` chooses what of a document too long for the judge it is shown; None shows the beginning.

    Candidates that the judge cannot see (a photo before a text-only model) keep their ranks with `unseen="keep"`, and
    are an `InputError` before any work with `"refuse"`; either way they are counted in the manifest.

    With a `journal`, answers are kept in that file as they come (`judges.kept`) and not asked for again by a later
    run; who writes the run removes it. What ends the work then has a note of how many queries are finished.
    `InputError` on scores that are not finite, and on a judge whose probabilities are all the same.
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
    passages: BestPassages | None = None
    exit: bool = False

    def __post_init__(self) -> None:
        check_settings(self.depth, self.k, self.alpha, self.unseen, self.fuse)
        check_sorter(self.prompt, self.sort)
        self.prompt.check_judge(self.judge)
        if self.exit:
            check_exit(self.prompt, self.sort, self.alpha, self.fuse)
        if self.passages is not None:
            find_limit(self.judge)

    def describe(self) -> object:
        own = describe_fields(self)
        if self.passages is None:  # as it was before there was a choice: finished results are found again
            del own["passages"]
        if not self.exit:
            del own["exit"]
        return own

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return self.weigh(run, self.ask(run, count))

    def ask(self, run: Run, count: Counter[str]) -> dict[str, Sequence[Hit]]:
        """By query, the candidates that the judge sees, in its order alone and with its scores."""
        if run.docs is None:
            raise InputError("reranking needs the documents: give the run an index or a collection as `docs`")
        ids = list(dict.fromkeys(hit.id for hits in run.hits.values() for hit in hits[: self.depth]))
        documents = dict(zip(ids, run.docs.get(ids), strict=True))
        visible = self._visible(run, documents, count)
        expected = max(1, sum(map(len, visible.values())) // self._shown)
        with closing(Journal(self.journal)) if self.journal else nullcontext() as journal:
            judge = self.judge if journal is None else KeptJudge(self.judge, journal, expected)
            judged = self._judged(run, visible, documents, count, judge)
        if self.exit:
            count["saved_calls"] = sum(map(len, visible.values())) - sum(map(len, judged.values()))
        return judged

    def weigh(self, run: Run, judged: Mapping[str, Sequence[Hit]]) -> Run:
        """The run in the order of both: what `ask` has said of its candidates, and its own scores."""
        fused = {}
        for id, order in judged.items():
            seen = {hit.id for hit in order}
            fused[id] = self._fused([hit for hit in run.hits[id] if hit.id in seen], order)
        return run.ranking({query.id: _placed(hits, fused[query.id]) for query, hits in run})

    def _visible(self, run: Run, documents: Mapping[str, Item], count: Counter[str]) -> dict[str, tuple[Hit, ...]]:
        """Of each query's candidates those that the judge can see."""
        visible: dict[str, tuple[Hit, ...]] = {}
        unseen: list[str] = []
        for query, hits in run:
            pool = hits[: self.depth]
            for item in (query, *(documents[hit.id] for hit in pool)):
                check_text(item)
            seen = {hit.id: can_see(self.judge, query, documents[hit.id]) for hit in pool}
            visible[query.id] = tuple(hit for hit in pool if seen[hit.id])
            unseen += [f"{query.id}/{doc}" for doc, sees in seen.items() if not sees]
        if unseen and self.unseen == "refuse":
            raise InputError(
                f"{self.judge.name} reads {' and '.join(sorted(self.judge.modalities))} only and cannot judge "
                f"{len(unseen)} of the candidates (first: {unseen[0]}); "
                "keep their ranks with unseen=keep (--unseen keep)"
            )
        count["unseen"] = len(unseen)
        return visible

    def _judged(
        self,
        run: Run,
        visible: Mapping[str, tuple[Hit, ...]],
        documents: Mapping[str, Item],
        count: Counter[str],
        judge: Judge,
    ) -> dict[str, Sequence[Hit]]:
        """Every query's candidates in the judge's order."""
        queries = {query.id: query for query in run.queries}
        shown = self._choose_passages(queries, visible, documents, count)
        judged: dict[str, Sequence[Hit]] = {}
        asked: set[str] = set()  # queries in the round that is under way
        before = Counter(judge.usage)

        def answer(groups: Sequence[QueryGroup]) -> list[np.ndarray]:
            comparisons = [
                (queries[query], [shown.get((query, hit.id), documents[hit.id]) for hit in hits])
                for query, hits in groups
            ]
            asked.update(query for query, _ in groups)
            count["rounds"] += 1
            answers = self._answered(comparisons, count, judge)
            asked.clear()
            return answers

        try:
            judged.update(drive(self._sortings(visible), answer, judge.appetite))
        except BaseException as stop:
            if isinstance(judge, KeptJudge) and judge.journal:
                judge.asks = False
                finished = len(judged) + self._count_finished({id: visible[id] for id in asked}, answer)
                answers = len(judge.journal)
                note_kept(stop, f"{finished} of {len(queries)} queries are finished ({answers} answers in all)")
            raise
        count.update(Counter(judge.usage) - before)
        if isinstance(judge, KeptJudge):
            count.update(judge.journal.counted + Counter(resumed=judge.taken))
        return judged

    def _choose_passages(
        self,
        queries: Mapping[str, Item],
        visible: Mapping[str, tuple[Hit, ...]],
        documents: Mapping[str, Item],
        count: Counter[str],
    ) -> Mapping[tuple[str, str], Item]:
        """What a judge is shown in a document's place, where that is not its beginning, by query and document."""
        if self.passages is None:
            return {}
        pairs = [(queries[id], documents[hit.id]) for id, hits in visible.items() for hit in hits]
        return self.passages.choose(pairs, self.judge, count)

    def _sortings(self, visible: Mapping[str, tuple[Hit, ...]]) -> Iterator[tuple[str, Sorting]]:
        if not self.exit:
            unordered = self.prompt.is_unordered(self._shown)
            sort: Sorter = getattr(self.sort, "unordered", self.sort) if unordered else self.sort
            return ((id, score_order(sort(hits, self.k), hits)) for id, hits in visible.items())
        highest = self.prompt.highest
        assert highest is not None  # `check_exit`
        return ((id, judge_until_settled(hits, self.k, self.alpha, highest)) for id, hits in visible.items())

    def _count_finished(
        self, visible: Mapping[str, tuple[Hit, ...]], answer: Callable[[Sequence[QueryGroup]], list[np.ndarray]]
    ) -> int:
        """How many of the queries need no answer that is not kept."""
        finished = 0
        for sorting in self._sortings(visible):
            with suppress(Unanswered, InputError):
                finished += sum(1 for _ in drive([sorting], answer, 1))
        return finished

    @property
    def _shown(self) -> int:
        """How many documents a comparison shows at most."""
        return getattr(self.sort, "most", None) or self.prompt.most

    def _answered(self, comparisons: Sequence[Comparison], count: Counter[str], judge: Judge) -> list[np.ndarray]:
        largest = max(len(group) for _, group in comparisons)
        if largest > self.prompt.most > 1:
            raise InputError(
                f"{largest} passages at once are more than the {self.prompt.most} labels of the prompt "
                f"{self.prompt.name}; lower the sorter's window or arity, or the depth"
            )
        answers = self.prompt.score(judge, comparisons, count)
        for (query, group), scores in zip(comparisons, answers, strict=True):
            if not np.isfinite(scores).all():
                document = group[int(np.flatnonzero(~np.isfinite(scores))[0])]
                raise InputError(
                    f"{self.judge.name} gave a score that is not finite for query {query.id!r} and document "
                    f"{document.id!r}; try ?dtype=float32"
                )
            if len(group) > 1:
                count["compared"] += 1
                count["tied"] += int(np.count_nonzero(scores == scores.max()) > 1)
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

    def _fused(self, first: Sequence[Hit], judged: Sequence[Hit]) -> list[Hit]:
        if self.alpha == 1:
            return list(judged)
        own, base = self._scores(judged), self._scores(first)
        fused = [Hit(doc, self.alpha * score + (1 - self.alpha) * base[doc]) for doc, score in own.items()]
        return sorted(fused, key=lambda hit: (-hit.score, hit.id))

    def _scores(self, hits: Sequence[Hit]) -> dict[str, float]:
        """The hits' scores on the scale on which they are added."""
        if self.fuse == "rrf":
            return reciprocal_ranks([hits])
        scores = [hit.score for hit in hits]
        values = standardize(scores).tolist() if self.fuse == "zscore" else scores
        return dict(zip([hit.id for hit in hits], values, strict=True))

    @property
    def models(self) -> Mapping[str, str]:
        return {self.judge.name: self.judge.revision}

    def __str__(self) -> str:
        method = f"{self.prompt.name}:{name_sorter(self.sort)}@{self.judge.name}"
        return f"rerank({method}, depth={self.depth}, alpha={self.alpha:g})"


def check_unseen(unseen: str) -> None:
    """`InputError` unless it says what becomes of candidates that the judge cannot see: `refuse` or `keep`."""
    check_known(unseen, ("refuse", "keep"), "value of unseen")


def check_settings(depth: int, k: int, alpha: float, unseen: str, fuse: str) -> None:
    """`InputError` naming the setting of a `Rerank` that makes no sense."""
    check_at_least(1, depth=depth, k=k)
    if depth < k:
        raise InputError(f"depth {depth} is below k {k}: fewer candidates than results")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be in 0..1, not {alpha}")
    check_unseen(unseen)
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


def _placed(hits: Sequence[Hit], judged: Sequence[Hit]) -> list[Hit]:
    """Judged hits, best first, on the ranks that judged candidates held; the others stay where they were."""
    if not judged:
        return list(hits)
    names = {hit.id for hit in judged}
    queue = iter(judged)
    placed: list[Hit] = []
    last = judged[0].score + 1.0
    for hit in hits:
        # An unjudged hit has no score on this scale: it stands just below the hit before it.
        doc, score = next(queue) if hit.id in names else (hit.id, last)
        last = score if score < last else math.nextafter(last, -math.inf)
        placed.append(Hit(doc, last))
    return placed


def drive(
    sortings: Iterable[tuple[str, Sorting]],
    answer: Callable[[Sequence[QueryGroup]], Sequence[np.ndarray]],
    appetite: int,
) -> Iterator[tuple[str, Sequence[Hit]]]:
    """Run the sortings of many queries side by side; yields each query's order as soon as it is there.

    Each round hands everything that all live queries ask to `answer` in one call. New queries are taken up while a
    round holds fewer than `appetite` comparisons, so that it is full and finished queries still come out on the way.
    """
    waiting = iter(sortings)
    live: dict[str, tuple[Sorting, Ask]] = {}
    while True:
        size = sum(len(ask.groups) for _, ask in live.values())
        while size < appetite and (following := next(waiting, None)) is not None:
            query, sorting = following
            try:
                ask = next(sorting)
            except StopIteration as stop:
                yield query, stop.value
            else:
                live[query] = sorting, ask
                size += len(ask.groups)
        if not live:
            return
        asked = [(query, group) for query, (_, ask) in live.items() for group in ask.groups]
        replies = iter(answer(asked))
        for query, (sorting, ask) in list(live.items()):
            try:
                live[query] = sorting, sorting.send([next(replies) for _ in ask.groups])
            except StopIteration as stop:
                del live[query]
                yield query, stop.value


def describe_judging(manifest: Manifest) -> list[str]:
    """What people should know of how a run was judged, a line each."""
    records = [each for each in manifest.records if each.stage.startswith("rerank")]
    return [line for record in records for line in _describe(record)]


def _describe(record: Record) -> Iterator[str]:
    counts = Counter({kind: int(number) for kind, number in record.counts.items()})
    name = next(iter(record.models), "the judge")
    method = record.stage.removeprefix("rerank(").partition("@")[0]
    yield from describe_mass(record.counts, name, method)
    yield from describe_places(record.counts, name, method)
    if faults := [f"{kind.replace('_', ' ')} {counts[kind]}" for kind in FAULTS if counts[kind]]:
        yield (
            f"{name}: among {counts['calls']} answers there were faults ({', '.join(faults)}); what they left out kept "
            f"its order"
        )
    if counts["saved_calls"]:
        yield f"{counts['saved_calls']} candidates were not judged: they could not enter the first results any more"
    if counts["all_alike"]:
        yield f"{name} gave {counts['all_alike']} candidates one and the same score: they kept their order"
    if counts["thoughts_cut"]:
        yield f"{name}: {counts['thoughts_cut']} thoughts found no end; raise thinking="
    for kind, number in counts.items():
        if kind.startswith("prompt_not_in_"):
            language = kind.removeprefix("prompt_not_in_")
            yield f"the prompt has no {language} words: {number} comparisons were asked in English"
    if counts["unseen"]:
        yield f"{counts['unseen']} candidates kept their ranks: {name} cannot see them"
