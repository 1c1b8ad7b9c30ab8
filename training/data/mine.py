"""Examples of a collection's judgements with hard negatives from the ranking of any system, and a teacher's scores."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, note_kept
from ...files import hash_file
from ...indexes.registry import open_index
from ...items import Item, windows
from ...multilingual.collections.base import Collection, find_documents
from ...multilingual.languages import fill_languages
from ...pipeline import Progress, Stage, advance, show_nothing, watch
from ...runs import Run
from ...systems.system import OpenSite, System
from .base import LanguageMix, Making
from .examples import Example, join_collection, name_pairs, write_examples
from .held_out import refuse_held_out, refuse_test_set
from .kept_work import keep_work
from .negatives import (
    Candidate,
    Margin,
    NegativeSampling,
    Picking,
    check_window,
    find_anchors,
    load_sampling,
    parse_share,
)
from .teacher import Hire, Teacher, plan_teacher
from .translations import name_group

WINDOW = 64  # queries that are searched and judged together
DEPTH = 1000  # how deep a system is searched for the positives, whose scores the margin needs

OUT = "left_out_"  # begins what is counted of documents that are no negatives

_NOTES = {
    "positive_not_found": "queries have no positive in the ranking, and got no negatives: a --judge scores them all",
    "no_negatives": "examples have no hard negative, and are written without",
    "fewer_negatives": "examples have fewer negatives than asked: raise --last, or the --margin",
}


@dataclass(frozen=True)
class Mined:
    """What was written: where, its card, and what it cost in this session and those before."""

    output: Path
    card: Mapping[str, Any]
    cost: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.card, "cost": dict(self.cost)}

    def __str__(self) -> str:
        counts = self.card["source"]["left_out"]
        lines = [
            f"{self.output}: {self.card['examples']} examples, {self.card['positives']} positives, "
            f"{self.card['negatives']} hard negatives, {self.card['scored']} scored, in {self.cost['seconds']:.1f} s",
            name_pairs(self.card["pairs"]),
        ]
        return "\n".join(lines + [f"left out: {', '.join(f'{why} {n}' for why, n in counts.items())}"] * bool(counts))

    @property
    def notes(self) -> list[str]:
        """What people should know of how it went, a line each."""
        counts = self.card["source"]["counts"]
        return [f"{counts[kind]} {what}" for kind, what in _NOTES.items() if counts.get(kind)]


@dataclass(frozen=True)
class Mining:
    """How hard negatives are found for the judgements of a collection.

    `where` is an index, searched by the line `system` (dense, or lexical where it has no vectors), or a TREC run, whose
    documents are those of the collection. Candidates are the ranks `first` to `last` without documents that are judged
    relevant and, with `translations` (`id` or a key of meta, as the source of that name has it), without the
    translations of these. The `margin` to the positive holds for their scores in the ranking; with a `judge`, a
    reranker's SPEC whose prompt shows one passage, it holds for the judge's scores, and what this scores from
    `threshold` on is left out as well. Documents that are judged not relevant pass unseen.

    `sampling` says which of them are taken. A share `same_language` of the `negatives` is in the languages of the
    positives, and the rest in the collection's mix, as far as there are enough; None lets ranks decide. `score` is the
    SPEC of a teacher whose scores are written. Topics of test sets and of the collections `held_out` are refused unless
    forced.
    """

    where: str
    system: str | None = None
    first: int = 1
    last: int = 100
    negatives: int = 7
    margin: Margin | None = Margin()  # noqa: RUF009 - it is frozen
    sampling: str = "top"
    same_language: float | None = 0.5
    translations: str = ""
    judge: str | None = None
    threshold: float | None = None
    score: str | None = None
    seed: int = 0
    held_out: Sequence[str] = ()
    force: bool = False
    device: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_window(self.first, self.last, self.negatives)
        load_sampling(self.sampling)
        if self.same_language is not None:
            parse_share(str(self.same_language))
        if self.threshold is not None and self.judge is None:
            raise InputError("a threshold is for the score of a judge: add --judge, or leave it out")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"a threshold is a finite number, not {self.threshold:g}")
        _ = self._teachers

    @property
    def _teachers(self) -> dict[str, Hire]:
        """What loads the models of `judge` and `score`, one that is both once."""
        how: dict[str, Any] = {"device": self.device, "trust_remote_code": self.trust_remote_code}
        named = (("--judge", self.judge), ("--score", self.score))
        return {text: plan_teacher(text, option, **how) for option, text in named if text is not None}

    def run(
        self,
        collection: Collection,
        output: str | Path,
        *,
        data: str | None = None,
        progress: Progress = show_nothing,
        **wording: Any,
    ) -> Mined:
        """Write the file `output` (`examples.write_examples`), an example a topic that has a positive, and its card.

        `data` is what the collection was named by, by which a test set is told; `wording` (`fields`, `lang`, `source`)
        is that of the topics. Rankings and answers are kept in `.OUTPUT.partial/` until all is done; killed, the same
        call goes on from there and writes what it would have written undisturbed. `InputError` for what is wrong with
        the collection, the index or the run.
        """
        output = Path(output)
        if not self.force:
            refuse_test_set(data or collection.name, collection)
        started = time.perf_counter()
        done = 0
        with keep_work(output) as journal:
            joined = join_collection(collection, **wording)
            if not self.force and self.held_out:
                refuse_held_out([example.query for example in joined], self.held_out)
            making = Making(self.seed, journal=journal)
            rankings = self._open(collection)
            teachers = {text: hire(journal, len(joined) * self.negatives) for text, hire in self._teachers.items()}
            source: dict[str, Any] = {"mined": self.describe(rankings, teachers, wording)}

            def watched() -> Iterator[Example]:
                nonlocal done
                for window in windows(joined, WINDOW):
                    yield from self._mine(window, rankings, teachers, making)
                    done += len(window)
                    advance(len(window))
                counts = sum((teacher.counts for teacher in teachers.values()), +making.count)
                left_out = {key.removeprefix(OUT): n for key, n in sorted(counts.items()) if key.startswith(OUT)}
                others = {key: n for key, n in sorted(counts.items()) if not key.startswith(OUT)}
                source.update({**joined.source, "left_out": left_out, "counts": others})

            try:
                with progress("mining", len(joined)) as watcher, watch(watcher):
                    card = write_examples(output, watched(), source)
            except BaseException as stop:
                if done:
                    note_kept(stop, f"the negatives of {done} queries")
                raise
            usage = sum((teacher.usage for teacher in teachers.values()), making.usage + journal.counted)
        return Mined(output, card, {"seconds": round(time.perf_counter() - started, 1), **dict(sorted(usage.items()))})

    def describe(
        self, rankings: IndexRankings | RunRankings, teachers: Mapping[str, Teacher], wording: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What decides the result, as the card has it; JSON-able."""
        return {
            "ranking": rankings.describe(),
            "ranks": [self.first, self.last],
            "negatives": self.negatives,
            "margin": None if self.margin is None else self.margin.value,
            "sampling": self.sampling,
            "same_language": self.same_language,
            "translations": self.translations,
            "judge": self.judge and {**teachers[self.judge].describe(), "threshold": self.threshold},
            "score": self.score and teachers[self.score].describe(),
            "seed": self.seed,
            "wording": {key: each for key, each in wording.items() if each is not None},
        }

    def _open(self, collection: Collection) -> IndexRankings | RunRankings:
        if os.path.isfile(self.where):
            if self.system is not None:
                raise InputError(f"{self.where} is a run, which no --system is needed for: leave one of them out")
            return RunRankings.read(Path(self.where), collection, self.last)
        index = open_index(self.where, device=self.device, trust_remote_code=self.trust_remote_code)
        line = self.system or ("dense" if index.specs else "lexical")
        system = System.parse(line, device=self.device, trust_remote_code=self.trust_remote_code)
        depth = max(self.last, DEPTH)
        site = OpenSite(None, collection, unseen="keep")
        site.opened = index
        return IndexRankings(index, line, system.bind(site, system.depth(depth)), depth)

    def _mine(
        self, window: Sequence[Example], rankings: IndexRankings | RunRankings, teachers: Mapping[str, Teacher],
        making: Making,
    ) -> Iterator[Example]:  # fmt: skip
        """The examples of a window with their negatives, and their scores where a teacher is asked."""
        queries = [example.query for example in window]
        found = making.keep("searching", rankings.key(queries), lambda: rankings.search(queries), Counter())
        ids = list(dict.fromkeys(id for ranking in found for id, _ in ranking[self.first - 1 : self.last]))
        documents = {item.id: item for item in fill_languages(rankings.get(ids))}
        mix = LanguageMix(tuple(rankings.mix.items()) or (("", 1.0),))
        sampling = load_sampling(self.sampling)
        pickings = [
            self._plan(example, ranking, documents, mix, sampling, making)
            for example, ranking in zip(window, found, strict=True)
        ]
        judge = teachers[self.judge] if self.judge is not None else None
        limits = self._ask_limits(window, judge)
        while any(proposed := [picking.propose() for picking in pickings]):
            if judge is None:
                verdicts = [[True] * len(each) for each in proposed]
            else:
                verdicts = self._ask(window, proposed, documents, judge, limits, making)
            for picking, accepted in zip(pickings, verdicts, strict=True):
                picking.settle(accepted)
        made = []
        for example, picking in zip(window, pickings, strict=True):
            chosen = sorted(picking.picked, key=lambda each: (-each.score, each.id))
            making.count["no_negatives"] += not chosen
            making.count["fewer_negatives"] += 0 < len(chosen) < self.negatives
            making.count["in_another_language"] += picking.elsewhere
            negatives = tuple(documents[each.id] for each in chosen)
            made.append(replace(example, negatives=negatives))
        if self.score is None:
            return iter(made)
        scores = teachers[self.score].score([(example.query, example.documents) for example in made])
        return (replace(example, scores=tuple(row)) for example, row in zip(made, scores, strict=True))

    def _plan(
        self, example: Example, ranking: Sequence[tuple[str, float]], documents: Mapping[str, Item], mix: LanguageMix,
        sampling: NegativeSampling, making: Making,
    ) -> Picking:  # fmt: skip
        """The candidates of a query in the order in which they are taken, without those that its ranking rules out."""
        scores = dict(ranking)
        positives = {each.id: each.lang or "" for each in example.positives}
        judged = {each.id for each in example.negatives}
        anchors = find_anchors((lang, scores[id]) for id, lang in positives.items() if id in scores)
        margin = self.margin if self.judge is None else None  # which then holds for the judge's scores
        making.count["positive_not_found"] += margin is not None and not anchors
        groups = {name_group(each, self.translations) for each in example.positives} if self.translations else set()
        candidates = []
        for id, score in ranking[self.first - 1 : self.last]:
            lang = documents[id].lang or ""
            if id in positives or (margin and not anchors and id not in judged):
                continue
            if self.translations and name_group(documents[id], self.translations) in groups - {""}:
                making.count["left_out_translation"] += 1
            elif margin and id not in judged and score > margin.limit(anchors.get(lang, anchors[""])):
                making.count["left_out_margin"] += 1
            else:
                candidates.append(Candidate(id, score, lang, id in judged))
        noise = [making.draw("negative", example.query.id, each.id) for each in candidates]
        given = np.clip(np.array(noise), 1e-12, 1 - 1e-12), np.array([each.score for each in candidates])
        rates = sampling.rate(given[1], anchors.get("", -math.inf), given[0]) if candidates else np.empty(0)
        order = sorted(range(len(candidates)), key=lambda n: (-rates[n], candidates[n].id))
        return Picking((candidates[n] for n in order), self._choose_slots(example, mix, making))

    def _choose_slots(self, example: Example, mix: LanguageMix, making: Making) -> list[str | None]:
        """A language for each negative: those of the positives in turn for their share, and draws from the mix."""
        if self.same_language is None or len(mix.weights) == 1:
            return [None] * self.negatives
        own = sorted({each.lang or "" for each in example.positives})
        draw = making.draw("share", example.query.id)
        same = min(self.negatives, int(self.same_language * self.negatives + draw))
        start = int(making.draw("turn", example.query.id) * len(own))
        drawn = (making.draw("slot", example.query.id, slot) for slot in range(same, self.negatives))
        return [
            *(own[(start + slot) % len(own)] for slot in range(same)),
            *(mix.choose(example.query, place) for place in drawn),
        ]

    def _ask_limits(self, window: Sequence[Example], judge: Teacher | None) -> list[float]:
        """The greatest score that the judge may give to a negative of each query."""
        if judge is None:
            return []
        limits = [math.inf if self.threshold is None else math.nextafter(self.threshold, -math.inf)] * len(window)
        if self.margin is None:
            return limits
        rows = judge.score([(example.query, example.positives) for example in window])
        return [min(limit, self.margin.limit(max(row))) for limit, row in zip(limits, rows, strict=True)]

    def _ask(
        self, window: Sequence[Example], proposed: Sequence[Sequence[Candidate]], documents: Mapping[str, Item],
        judge: Teacher, limits: Sequence[float], making: Making,
    ) -> list[list[bool]]:  # fmt: skip
        """Which of the proposed candidates the judge lets pass."""
        unsure = [[each for each in some if not each.judged] for some in proposed]
        asked = [
            (example.query, [documents[each.id] for each in some]) for example, some in zip(window, unsure, strict=True)
        ]
        verdicts = []
        for some, mine, limit, row in zip(proposed, unsure, limits, judge.score(asked), strict=True):
            out = {each.id for each, score in zip(mine, row, strict=True) if score > limit}
            making.count["left_out_judge"] += len(out)
            verdicts.append([each.id not in out for each in some])
        return verdicts


@dataclass(frozen=True)
class IndexRankings:
    """Rankings that a system finds in an index, so deep that positives are among them."""

    index: Any
    line: str
    stage: Stage
    depth: int

    def describe(self) -> dict[str, Any]:
        return {"index": self.index.fingerprint, "system": self.line, "depth": self.depth}

    def key(self, queries: Sequence[Item]) -> list[Any]:
        """All that the rankings depend on."""
        return [self.describe(), self.stage.fingerprint, [[query.id, query.content_hash()] for query in queries]]

    def search(self, queries: Sequence[Item]) -> list[list[tuple[str, float]]]:
        with watch(lambda done: None):
            run = self.stage(Run.of(queries)).cut(self.depth)
        return [[(hit.id, hit.score) for hit in run[query.id]] for query in queries]

    def get(self, ids: Sequence[str]) -> list[Item]:
        return list(self.index.get(ids)) if ids else []

    @property
    def mix(self) -> Mapping[str, float]:
        """The share of each language among the documents."""
        return _to_shares(self.index.langs)


@dataclass(frozen=True)
class RunRankings:
    """Rankings of a TREC run; its documents, those of the first ranks held in memory, are a collection's."""

    run: Run
    content: str
    held: Mapping[str, Item] = field(repr=False)
    langs: Mapping[str, int]

    @classmethod
    def read(cls, path: Path, collection: Collection, last: int) -> RunRankings:
        """`InputError` where the run names documents that the collection lacks, or no topic of it."""
        run = Run.from_trec(path, list(collection.queries()))
        wanted = {hit.id for hits in run.hits.values() for hit in hits[:last]}
        langs: Counter[str] = Counter()
        held = {}
        for item in fill_languages(find_documents(collection, wanted, "documents of the run")):
            held[item.id] = item
            langs[item.lang or ""] += 1
        return cls(run, hash_file(path), held, langs)

    def describe(self) -> dict[str, Any]:
        return {"run": self.content}

    def key(self, queries: Sequence[Item]) -> list[Any]:
        return [self.describe(), [query.id for query in queries]]

    def search(self, queries: Sequence[Item]) -> list[list[tuple[str, float]]]:
        return [[(hit.id, hit.score) for hit in self.run[query.id]] for query in queries]

    def get(self, ids: Sequence[str]) -> list[Item]:
        return [self.held[id] for id in ids]

    @property
    def mix(self) -> Mapping[str, float]:
        return _to_shares(self.langs)


def _to_shares(langs: Mapping[str, int]) -> dict[str, float]:
    total = sum(langs.values())
    return {lang: number / total for lang, number in sorted(langs.items())}
