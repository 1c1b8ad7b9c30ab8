"""The LLM as assessor (LLM4Eval): graded judgements of query-document pairs, as TREC qrels."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import InputError, check_known, note_kept
from ..files import is_stream, write_atomically, write_json
from ..items import Item
from ..multilingual.judges import Judge, can_see
from ..multilingual.judges.journal import Journal
from ..multilingual.judges.kept import KeptJudge, Unanswered
from ..multilingual.judges.mass import leave_out_mass
from ..multilingual.prompts import Prompt, bind_judge, split_lone
from ..pipeline import advance, hash_description
from ..runs import Manifest, Qrels, Record

Pair = tuple[Item, Item]  # a query and a document

UNSEEN = ("refuse", "skip")  # what becomes of pairs that the judge cannot see
FIRST_BATCH = 16  # questions; later batches grow until one takes about
BATCH_SECONDS = 20.0


def parse_assessor(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Callable[[], Assessor]:
    """What loads the assessor of a SPEC `PROMPT@FAMILY:CHECKPOINT[?key=value&...]`.

    Options of the prompt and of the judge stand side by side. `InputError` on anything unknown, and on a prompt that
    gives no grades.
    """
    prompt, spec = split_lone(text)
    check_grades(prompt)  # before its judge's module, which may take seconds to import
    prompt, load, *_ = bind_judge(text, spec, prompt, device=device, trust_remote_code=trust_remote_code)
    return lambda: Assessor(load(), prompt)


def check_grades(prompt: Prompt) -> None:
    """`InputError` for a prompt that gives no grades that qrels can hold."""
    if not prompt.values or prompt.most > 1:
        raise InputError(
            f"the prompt {prompt.name} gives no grades: take one with `values` for its labels and one {{passage}}"
        )
    if odd := [value for value in prompt.values if value < 0 or not float(value).is_integer()]:
        raise InputError(f"the prompt {prompt.name} gives the grade {odd[0]:g}; in qrels they are 0, 1, 2, ...")


@dataclass(frozen=True)
class Assessment:
    """A judge's grades of query-document pairs.

    `qrels` holds the grades, `unreadable` the pairs (query id, document id) whose answers gave none, `unseen` those
    it could not be shown: neither is in `qrels`. `langs` has the documents' languages where they are declared. `record`
    has what all of it cost, a killed run before this one included; `resumed` pairs were answered by that one.
    """

    qrels: Qrels
    langs: Mapping[str, str]
    unreadable: tuple[tuple[str, str], ...]
    unseen: tuple[tuple[str, str], ...]
    resumed: int
    record: Record

    @property
    def grades(self) -> dict[int, int]:
        """How many pairs have each grade."""
        return dict(sorted(Counter(grade for of in self.qrels.values() for grade in of.values()).items()))

    @property
    def counts(self) -> str:
        """What was counted, as a sentence."""
        return ", ".join(f"{int(n)} {name}" for name, n in leave_out_mass(self.record.counts).items())

    def to_trec(self, path: str | Path, langs: Mapping[str, str] | None = None) -> None:
        """Write `topic language doc grade`, as NIST's combined NeuCLIR file, with 0 for a language not known.

        `langs` adds to the documents' own languages. The manifest goes to `PATH.manifest.json`, first; a stream
        (`files.is_stream`) has none.
        """
        path = Path(path)
        langs = {**(langs or {}), **self.langs}
        if not is_stream(path):
            write_json(f"{path}.manifest.json", {"stages": Manifest((self.record,)).to_json()})
        with write_atomically(path) as out:
            for query, grades in self.qrels.items():
                for doc, grade in grades.items():
                    out.write(f"{query} {langs.get(doc, '0')} {doc} {grade}\n")


@dataclass(frozen=True)
class Assessor:
    """Judges query-document pairs by a graded prompt (UMBRELA: Upadhyay et al. 2024; Thomas et al. 2024).

    `InputError` for a prompt that gives no whole grades, or one that the judge cannot answer.
    """

    judge: Judge
    prompt: Prompt

    def __post_init__(self) -> None:
        check_grades(self.prompt)
        self.prompt.check_judge(self.judge)

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the judge and the prompt: all that grades depend on beside the pair."""
        return hash_description({"judge": self.judge.fingerprint, "prompt": self.prompt})

    def __str__(self) -> str:
        return f"{self.prompt.name}@{self.judge.name}"

    def __call__(self, pairs: Sequence[Pair], *, journal: Path | None = None, unseen: str = "refuse") -> Assessment:
        """Grades of the pairs; the same content is asked only once.

        Answers are appended to `journal` as they come (`judges.kept`), and what stands there is not asked again;
        whoever writes the assessment removes it. What ends the work has a note of how many pairs are judged. Whoever
        watches (`pipeline.watch`) sees how many pairs are done. A pair that the judge cannot see (a photo before a
        text-only model) is an `InputError` before any work, or left out and counted with `unseen="skip"`.
        """
        check_known(unseen, UNSEEN, "value of unseen")
        named = _name_pairs(pairs)
        seen = {ids: pair for ids, pair in named.items() if can_see(self.judge, *pair)}
        blind = tuple(ids for ids in named if ids not in seen)
        if blind and unseen == "refuse":
            raise InputError(
                f"{self.judge.name} reads {' and '.join(sorted(self.judge.modalities))} only and cannot judge "
                f"{len(blind)} of the pairs (first: {'/'.join(blind[0])}); leave them out with unseen=skip"
            )
        keys = {ids: _hash(*pair) for ids, pair in seen.items()}
        with nullcontext() if journal is None else closing(Journal(journal)) as kept:
            answers = _Answers(self.fingerprint, kept)
            waiting = {key: seen[ids] for ids, key in keys.items() if key not in answers.grades}
            advance(len(pairs) - len(waiting))  # of the others the judge reports
            judge = self.judge if kept is None else KeptJudge(self.judge, kept, len(waiting))
            try:
                known = self._ask(waiting, answers, judge)
            except BaseException as stop:
                if isinstance(judge, KeptJudge) and judge.journal:
                    left = {key: pair for key, pair in waiting.items() if key not in answers.grades}
                    lacking = left.keys() - self._find_answered(left, judge)
                    answered = sum(key not in lacking for key in keys.values())
                    note_kept(stop, f"{answered} of {len(keys)} pairs are judged")
                raise
            resumed = sum(key in known or key not in waiting for key in keys.values())
        qrels: dict[str, dict[str, int]] = {}
        for (query, document), key in keys.items():
            if (grade := answers.grades[key]) is not None:
                qrels.setdefault(query, {})[document] = grade
        unreadable = tuple(ids for ids, key in keys.items() if answers.grades[key] is None)
        counts = {"pairs": len(pairs), "unreadable_pairs": len(unreadable), "unseen": len(blind)}
        record = Record(
            f"judge({self})", self.fingerprint, round(answers.seconds, 4), {**counts, **answers.counts},
            {self.judge.name: self.judge.revision},
        )  # fmt: skip
        langs = {document.id: document.lang for _, document in pairs if document.lang}
        return Assessment(qrels, langs, unreadable, blind, resumed, record)

    def _ask(self, pairs: Mapping[str, Pair], answers: _Answers, judge: Judge) -> set[str]:
        """Ask about pairs by content, in batches of growing size; those that were kept answer by answer come back."""
        waiting = list(pairs)
        known = self._find_answered(pairs, judge) if isinstance(judge, KeptJudge) else set()
        size = min(FIRST_BATCH, judge.appetite)
        while waiting:
            batch, waiting = waiting[:size], waiting[size:]
            started = time.perf_counter()
            before = Counter(judge.usage)
            counts: Counter[str] = Counter()
            graded = self.prompt.grades(judge, [(pairs[key][0], [pairs[key][1]]) for key in batch], counts)
            counts.update(Counter(judge.usage) - before)
            if isinstance(judge, KeptJudge):
                counts.update(judge.journal.take_counts())
            seconds = time.perf_counter() - started
            grades = [None if math.isnan(grade) else int(grade) for (grade,) in graded]
            answers.add(dict(zip(batch, grades, strict=True)), counts, seconds)
            if seconds < BATCH_SECONDS / 2:
                size = min(2 * size, judge.appetite)
            elif seconds > BATCH_SECONDS:
                size = max(size // 2, 1)
        return known

    def _find_answered(self, pairs: Mapping[str, Pair], judge: KeptJudge) -> set[str]:
        """Which pairs need no answer that is not kept, of the first: later ones than a batch has were never asked."""
        found: set[str] = set()
        judge.asks = False
        for key, pair in islice(pairs.items(), judge.appetite if judge.journal else 0):
            with suppress(Unanswered):
                self.prompt.grades(judge, [(pair[0], [pair[1]])], Counter())
                found.add(key)
        judge.asks = True
        return found


def _name_pairs(pairs: Sequence[Pair]) -> dict[tuple[str, str], Pair]:
    """The pairs by their ids; `InputError` on a pair given twice, and on ids that no line of qrels can hold."""
    named: dict[tuple[str, str], Pair] = {}
    for query, document in pairs:
        for id in (ids := (query.id, document.id)):
            if id.split() != [id]:
                raise InputError(f"the id {id!r} cannot stand in TREC qrels: it is empty or has white space")
        if ids in named:
            raise InputError(f"document {document.id!r} is to be judged twice for query {query.id!r}")
        named[ids] = query, document
    return named


def _hash(query: Item, document: Item) -> str:
    """32 hex digits over all that a prompt shows of a pair."""
    parts = query.content_hash(), str(query.meta.get("instruction") or ""), document.content_hash()
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class _Answers:
    """Grades by content, None for an unreadable answer, and what they cost; `add` keeps a batch in the journal."""

    def __init__(self, assessor: str, journal: Journal | None) -> None:
        self.assessor, self.journal = assessor, journal
        self.grades: dict[str, int | None] = {}
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        if journal is None:
            return
        kept = list(journal.found.items())
        for key, (value, counts) in kept:
            if key.startswith(f"{assessor}:"):
                self._take(value["grades"], value["seconds"], counts)
        # Of the answers only those of the batch that was never finished are of use.
        begins = max((place for place, (key, _) in enumerate(kept, 1) if ":" in key), default=0)
        journal.found = dict(kept[begins:])

    def add(self, grades: Mapping[str, int | None], counts: Mapping[str, int], seconds: float) -> None:
        self._take(grades, seconds, counts)
        if self.journal is not None:
            # One line a batch: its grades are on the disk together with what they cost, or not at all.
            value = {"grades": grades, "seconds": round(seconds, 4)}
            self.journal.put(f"{self.assessor}:{next(iter(grades))}", value, counts)

    def _take(self, grades: Mapping[str, int | None], seconds: float, counts: Mapping[str, int]) -> None:
        self.grades.update(grades)
        self.counts.update(counts)
        self.seconds += seconds
