"""Reranking = Prompt x Judge x Sorter: the stage, the SPEC that names it, and `rank` for people without an index."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args
from weakref import WeakValueDictionary

import numpy as np

from ...errors import InputError, check_known, unknown_name
from ...items import Item
from ...pipeline import Stage, reciprocal_ranks, standardize
from ...runs import Hit, Manifest, Run
from ...specs import Spec, distributed
from .. import judges, prompts
from ..judges import Judge
from ..prompts import Comparison, Prompt
from .driver import Group, drive
from .journal import Journal
from .sorters import SORTERS, Pointwise, Sorter, Sorting

# What `--rerank default` means. The weight is a compromise between two sets (README, Measured): on help pages more of the
# judge is better still, on the demo more of it does harm.
DEFAULT = "likelihood@offline:gemma?depth=20&alpha=0.5&passage_tokens=128"

# What `answers` counts of text that it could not read as asked.
FAULTS = (
    "refused", "empty", "unreadable", "missing", "duplicate", "out_of_range", "foreign_digits", "unclosed_thought"
)  # fmt: skip

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
        _check(self.depth, self.k, self.alpha, self.unseen, self.fuse)
        together(self.prompt, self.sort)
        self.prompt.fits(self.judge)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        documents = _documents(run, self.depth)
        seen = self._seen(run, documents, count)
        journal = Journal(self.journal) if self.journal else None
        try:
            judged = self._judged(run, seen, documents, count, journal)
        finally:
            if journal:
                journal.close()
        placed = {}
        for query, pool in run:
            fused = self._fused(seen[query.id], judged[query.id])
            placed[query.id] = _placed(pool[: self.depth], pool[self.depth :], fused)
        return run.ranking(placed)

    def _seen(
        self, run: Run, documents: Mapping[str, Item], count: Counter[str]
    ) -> dict[str, tuple[Hit, ...]]:
        """Of each query's candidates those that the judge can see."""
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
        count["unseen"] = len(blind)
        return seen

    def _judged(
        self,
        run: Run,
        seen: Mapping[str, tuple[Hit, ...]],
        documents: Mapping[str, Item],
        count: Counter[str],
        journal: Journal | None,
    ) -> dict[str, Sequence[Hit]]:
        """Every query's candidates in the judge's order."""
        queries = {query.id: query for query in run.queries}
        keys = (
            {query.id: self._key(query, seen[query.id], documents) for query in run.queries}
            if journal
            else {}
        )
        judged: dict[str, Sequence[Hit]] = {}
        before = Counter(self.judge.usage)
        work: Counter[str] = Counter()
        told: Counter[str] = Counter()

        def waiting() -> Iterator[tuple[str, Sorting]]:
            for query, hits in seen.items():
                kept = journal.get(keys[query]) if journal else None
                if kept is not None:
                    judged[query] = [Hit(doc, score) for doc, score in kept]
                    count["resumed"] += 1
                else:
                    yield query, self.sort(hits, self.k)

        def answer(groups: Sequence[Group]) -> list[np.ndarray]:
            comparisons = [(queries[query], [documents[hit.id] for hit in hits]) for query, hits in groups]
            work["rounds"] += 1
            return self._answered(comparisons, work)

        for query, order in drive(waiting(), answer, self.judge.appetite):
            judged[query] = order
            if journal and seen[query]:
                done = work + (Counter(self.judge.usage) - before)
                journal.put(keys[query], order, done - told)
                told = done
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
        said, base = self._scores(judged), self._scores(first)
        fused = [Hit(doc, self.alpha * score + (1 - self.alpha) * base[doc]) for doc, score in said.items()]
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
        method = (
            type(self.sort).__name__.lower() if not hasattr(self.sort, "__name__") else self.sort.__name__
        )
        return (
            f"rerank({self.prompt.name}:{method}@{self.judge.name}, depth={self.depth}, alpha={self.alpha:g})"
        )


def _check(depth: int, k: int, alpha: float, unseen: str, fuse: str) -> None:
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    if depth < k:
        raise InputError(f"depth {depth} is below k {k}: fewer candidates than results")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be in 0..1, not {alpha}")
    if unseen not in ("refuse", "keep"):
        raise unknown_name(unseen, ("refuse", "keep"), "value of unseen")
    check_known(fuse, get_args(Fuse), "value of fuse")


def together(prompt: Prompt, sort: Sorter) -> None:
    """`InputError` where the sorter shows the prompt more documents than it takes, or one where it compares."""
    most = getattr(sort, "most", None)
    if most is None:
        return
    name = next((name for name, kind in SORTERS.items() if isinstance(sort, kind)), type(sort).__name__)
    if most > 1 and prompt.most == 1:
        raise InputError(
            f"the prompt {prompt.name} shows one passage at a time: sort it pointwise, not by {name}"
        )
    if most == 1 and prompt.most > 1:
        raise InputError(f"the prompt {prompt.name} compares passages: sort it by {prompt.sort}, not {name}")
    if most > prompt.most:
        raise InputError(
            f"{name} shows {most} passages at once, and the prompt {prompt.name} has {prompt.most} labels; "
            f"lower its window or arity"
        )


@dataclass(frozen=True)
class Method:
    """A reranker as a SPEC describes it, its model not loaded: what to ask, in what order, of how many."""

    prompt: Prompt
    sort: Sorter
    depth: int
    k: int
    alpha: float
    fuse: Fuse
    options: Mapping[str, object]  # the judge's own
    model: Callable[[], Judge] = field(repr=False)

    def loaded(
        self,
        *,
        unseen: str = "refuse",
        progress: Callable[[int], None] | None = None,
        journal: Path | None = None,
    ) -> Rerank:
        """The stage, its model loaded; `progress` is told how many questions it has answered."""
        judge = self.model()
        judge.progress = progress
        return Rerank(
            judge, self.prompt, self.sort, self.depth, self.k, self.alpha, unseen, self.fuse, journal
        )


def read(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Method:
    """The reranker that a SPEC names: `PROMPT[:SORTER]@FAMILY:CHECKPOINT[?depth=&k=&alpha=&...]`, or `default`.

    Options of the stage, the sorter, the prompt and the judge stand side by side; without a sorter the prompt's own
    is taken. `InputError` says what is wrong with it, before any model is loaded.
    """
    written = DEFAULT if text == "default" else text
    method, at, model = written.partition("@")
    if not at:
        raise InputError(
            f"the reranker {text!r} names no model; write prompt[:sorter]@family:checkpoint, as in {DEFAULT}"
        )
    name, _, order = method.partition(":")
    spec = Spec.parse(model)
    build = judges.factory(spec.family)
    prompt = prompts.load(name)
    if (order or prompt.sort) not in SORTERS:
        raise unknown_name(order or prompt.sort, tuple(SORTERS), "sorter")
    kind = SORTERS[order or prompt.sort]
    given = {"device": device, "trust_remote_code": trust_remote_code}
    stage, sort, wording, asked = distributed(
        spec,
        written.partition("?")[0],
        [(_settings, {}), (kind, {}), (prompts.configured, {}), (build, given)],
    )
    depth, k, alpha, fuse = _settings(**stage)  # type: ignore[arg-type]
    _check(depth, k, alpha, "refuse", fuse)
    prompt = prompts.configured(prompt, **wording)  # type: ignore[arg-type]
    sorter = kind(**_paired(kind, prompt) | sort)
    together(prompt, sorter)
    return Method(prompt, sorter, depth, k, alpha, fuse, asked, lambda: _judge(build, spec.checkpoint, asked))


def load(
    text: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    unseen: str = "refuse",
    progress: Callable[[int], None] | None = None,
    journal: Path | None = None,
) -> Rerank:
    """The reranker that a SPEC names (see `read`), its model loaded."""
    method = read(text, device=device, trust_remote_code=trust_remote_code)
    if unseen not in ("refuse", "keep"):
        raise unknown_name(unseen, ("refuse", "keep"), "value of unseen")
    return method.loaded(unseen=unseen, progress=progress, journal=journal)


def _settings(
    *, depth: int = 20, k: int = 0, alpha: float = 1.0, fuse: Fuse = "zscore"
) -> tuple[int, int, float, Fuse]:
    return depth, k or min(10, depth), alpha, fuse


def rank(
    query: str | Item,
    docs: Iterable[str | Item],
    spec: str | Rerank = "default",
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> list[Hit]:
    """Rank documents for a query without an index: `rank("...", texts, "setwise:heapsort@hf:Qwen/Qwen3-0.6B")`.

    Strings become documents whose ids are their positions, from "0". All documents come back, best first. There is
    no first stage, so the judge alone decides (alpha is 1), and all documents are judged. `InputError` as `load`.
    """
    from ..collections.base import Held
    from ..languages import with_languages

    stage = _loaded(spec, device, trust_remote_code) if isinstance(spec, str) else spec
    items = [doc if isinstance(doc, Item) else Item(str(n), doc) for n, doc in enumerate(docs)]
    asked = query if isinstance(query, Item) else Item("query", query)
    (asked, *items) = with_languages([asked, *items])
    held = {item.id: item for item in items}
    if len(held) < len(items):
        raise InputError("two of the documents have the same id")
    first = Run.of([asked]).ranking(
        {asked.id: [(item.id, -float(place)) for place, item in enumerate(items)]}, Held(held)
    )
    everything = max(len(items), 1)
    stage = replace(stage, depth=everything, k=min(stage.k, everything), alpha=1.0, journal=None)
    return list(stage(first)[asked.id])


def remarks(manifest: Manifest) -> list[str]:
    """What people should know of how a run was judged, a line each: unreadable answers, a preference for a place."""
    lines = []
    for record in (each for each in manifest.records if each.stage.startswith("rerank")):
        counts, name = record.counts, next(iter(record.models), "the judge")
        unread = {kind: int(counts[kind]) for kind in FAULTS if counts.get(kind)}
        if unread:
            told = ", ".join(f"{kind.replace('_', ' ')} {times}" for kind, times in unread.items())
            lines.append(
                f"{name}: among {int(counts.get('calls', 0))} answers there were faults ({told}); what they left out kept "
                f"its order"
            )
        if counts.get("compared", 0) >= 20 and counts["first_won"] > 0.95 * counts["compared"]:
            lines.append(
                f"{name} took the first passage shown in {int(counts['first_won'])} of {int(counts['compared'])} "
                f"comparisons: if the order was not right before, it does not compare; try orders=both, or another prompt or model"
            )
        if counts.get("all_alike"):
            lines.append(
                f"{name} gave {int(counts['all_alike'])} candidates one and the same score: they kept their order"
            )
        if counts.get("thoughts_cut"):
            lines.append(f"{name}: {int(counts['thoughts_cut'])} thoughts found no end; raise thinking=")
        for kind in counts:
            if kind.startswith("prompt_not_in_"):
                language = kind.removeprefix("prompt_not_in_")
                lines.append(
                    f"the prompt has no {language} words: {int(counts[kind])} comparisons were asked in English"
                )
        if counts.get("unseen"):
            lines.append(f"{int(counts['unseen'])} candidates kept their ranks: {name} cannot see them")
    return lines


@lru_cache(maxsize=2)
def _loaded(spec: str, device: str, trust_remote_code: bool) -> Rerank:
    return load(spec, device=device, trust_remote_code=trust_remote_code)


_LOADED: WeakValueDictionary[str, Any] = WeakValueDictionary()


def _judge(build: Callable[..., Judge], checkpoint: str, options: Mapping[str, object]) -> Judge:
    """A judge by its loader and options; stages of one cascade share theirs."""
    name = f"{build.__module__} {checkpoint} {sorted(options.items())}"
    found = _LOADED.get(name)
    if found is None:
        found = _LOADED[name] = build(checkpoint, **options)
    judge: Judge = found
    return judge


def _paired(kind: type, prompt: Prompt) -> dict[str, object]:
    """What a prompt that takes pairs makes of a sorter's defaults: PRP's binary heap and its bubble of two."""
    if prompt.most != 2:
        return {}
    wanted = {"heapsort": {"arity": 2, "shown": 2}, "bubblesort": {"arity": 1}, "tournament": {"arity": 2}}
    name = next(name for name, each in SORTERS.items() if each is kind)
    return dict(wanted.get(name, {}))


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
