"""The LLM as assessor (LLM4Eval): graded judgements of query-document pairs, as TREC qrels, held against human ones."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError, list_few, unknown_name
from ..files import write_atomically
from ..items import Item
from ..multilingual.collections.base import Collection
from ..multilingual.collections.directory import Directory
from ..multilingual.collections.documents import fetch_documents
from ..multilingual.judges import Judge, can_see, find_judge
from ..multilingual.languages import fill_languages, parse_language
from ..multilingual.prompts import Prompt, configure_prompt, load_prompt
from ..multilingual.reranking.journal import Journal
from ..pipeline import hash_description
from ..runs import Manifest, Qrels, Record, Run, read_qrels
from ..specs import Spec, distributed
from .agreement import Agreement, Systems, agreement, compare_systems, tables
from .measures import is_multilingual, parse_measure

Pair = tuple[Item, Item]  # a query and a document

OWN = "collection"  # `--qrels collection`: the collection's own
FIRST_BATCH = 16  # questions; later batches grow until one takes about
BATCH_SECONDS = 20.0  # which is what a kill may lose


def method(
    text: str, *, device: str = "auto", trust_remote_code: bool = False
) -> tuple[Prompt, Callable[[], Judge]]:
    """The prompt of a SPEC `PROMPT@FAMILY:CHECKPOINT[?key=value&...]`, and what loads its judge.

    Options of the prompt and of the judge stand side by side. `InputError` on anything unknown, and on a prompt that
    gives no grades.
    """
    name, at, model = text.partition("@")
    if not at:
        raise InputError(f"the judge {text!r} names no model; write prompt@family:checkpoint")
    if ":" in name:
        raise InputError(f"the judge {text!r} names a sorter, and each pair is judged alone: leave it out")
    prompt = graded(load_prompt(name))  # before its judge's module, which may take seconds to import
    factory, spec = find_judge(Spec.parse(model))
    given = {"device": device, "trust_remote_code": trust_remote_code}
    said, arguments = distributed(spec, text.partition("?")[0], [(configure_prompt, {}), (factory, given)])
    prompt = configure_prompt(prompt, **said)  # type: ignore[arg-type]
    return prompt, lambda: factory(spec.checkpoint, **arguments)


def graded(prompt: Prompt) -> Prompt:
    """The prompt itself; `InputError` where it gives no grades that qrels can hold."""
    if not prompt.values or prompt.most > 1:
        raise InputError(
            f"the prompt {prompt.name} gives no grades: take one with `values` for its labels and one {{passage}}"
        )
    if odd := [value for value in prompt.values if value < 0 or not float(value).is_integer()]:
        raise InputError(
            f"the prompt {prompt.name} gives the grade {odd[0]:g}; in qrels they are 0, 1, 2, ..."
        )
    return prompt


def load(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Assessor:
    """The assessor that a SPEC names; see `method`."""
    prompt, judge = method(text, device=device, trust_remote_code=trust_remote_code)
    return Assessor(judge(), prompt)


@dataclass(frozen=True)
class Assessment:
    """What a judge said of query-document pairs.

    `qrels` holds its grades, `unreadable` the pairs (query id, document id) whose answers told none, `unseen` those that
    it could not be shown: neither is in `qrels`. `langs` has the documents' languages where they are declared. `record`
    tells what all of it cost, a killed run before this one included; `resumed` pairs were answered by that one.
    """

    qrels: Qrels
    langs: Mapping[str, str]
    unreadable: tuple[tuple[str, str], ...]
    unseen: tuple[tuple[str, str], ...]
    resumed: int
    record: Record

    def to_trec(self, path: str | Path, langs: Mapping[str, str] | None = None) -> None:
        """Write `topic language doc grade`, as NIST's combined NeuCLIR file, with 0 for a language not known.

        `langs` adds to the documents' own languages. The manifest goes to `PATH.manifest.json`, first.
        """
        path = Path(path)
        spoken = {**(langs or {}), **self.langs}
        with write_atomically(path.with_name(path.name + ".manifest.json")) as out:
            json.dump({"stages": Manifest((self.record,)).to_json()}, out, indent=2, ensure_ascii=False)
        with write_atomically(path) as out:
            for query, grades in self.qrels.items():
                for doc, grade in grades.items():
                    out.write(f"{query} {spoken.get(doc, '0')} {doc} {grade}\n")


@dataclass(frozen=True)
class Assessor:
    """Judges query-document pairs by a graded prompt (UMBRELA: Upadhyay et al. 2024; Thomas et al. 2024).

    `InputError` for a prompt that gives no whole grades, or one that the judge cannot answer.
    """

    judge: Judge
    prompt: Prompt

    def __post_init__(self) -> None:
        graded(self.prompt).check_judge(self.judge)

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the judge and the prompt: all that grades depend on beside the pair."""
        return hash_description({"judge": self.judge.fingerprint, "prompt": self.prompt})

    def __str__(self) -> str:
        return f"{self.prompt.name}@{self.judge.name}"

    def __call__(
        self,
        pairs: Sequence[Pair],
        *,
        journal: Path | None = None,
        progress: Callable[[int], None] | None = None,
        unseen: str = "refuse",
    ) -> Assessment:
        """Grades of the pairs; the same content is asked only once.

        Each answered batch is appended to `journal`, and what stands there is not asked again; who has written the
        assessment removes it. `progress` is told how many pairs are done. A pair that the judge cannot see (a photo
        before a text-only model) is an `InputError` before any work, or left out and counted with `unseen="skip"`.
        """
        skips = _skips(unseen)
        if repeated := [ids for ids, times in Counter(map(_ids, pairs)).items() if times > 1]:
            raise InputError(
                f"document {repeated[0][1]!r} is to be judged twice for query {repeated[0][0]!r}"
            )
        for id in (id for ids in map(_ids, pairs) for id in ids):
            if id.split() != [id]:
                raise InputError(f"the id {id!r} cannot stand in TREC qrels: it is empty or has white space")
        seen = [can_see(self.judge, *pair) for pair in pairs]
        visible = [pair for pair, sees in zip(pairs, seen, strict=True) if sees]
        blind = tuple(_ids(pair) for pair, sees in zip(pairs, seen, strict=True) if not sees)
        if blind and not skips:
            raise InputError(
                f"{self.judge.name} reads {' and '.join(sorted(self.judge.modalities))} only and cannot judge "
                f"{len(blind)} of the pairs (first: {'/'.join(blind[0])}); leave them out with unseen=skip"
            )
        keys = [_key(*pair) for pair in visible]
        answers = _Answers(self.fingerprint, Journal(journal) if journal is not None else None)
        with closing(answers):
            resumed = sum(key in answers.grades for key in keys)
            waiting = {
                key: pair for key, pair in zip(keys, visible, strict=True) if key not in answers.grades
            }
            tell = progress or (lambda done: None)
            tell(len(pairs) - len(waiting))
            for asked in self._ask(waiting, answers):
                tell(len(pairs) - len(waiting) + asked)
        qrels: dict[str, dict[str, int]] = {}
        unreadable = []
        for key, (query, document) in zip(keys, visible, strict=True):
            grade = answers.grades[key]
            if grade is None:
                unreadable.append((query.id, document.id))
            else:
                qrels.setdefault(query.id, {})[document.id] = grade
        counts = {
            "pairs": len(pairs),
            "unreadable_pairs": len(unreadable),
            "unseen": len(blind),
            **answers.counts,
        }
        return Assessment(
            qrels,
            {document.id: document.lang for _, document in pairs if document.lang},
            tuple(unreadable),
            blind,
            resumed,
            Record(
                f"judge({self})",
                self.fingerprint,
                round(answers.seconds, 4),
                counts,
                {self.judge.name: self.judge.revision},
            ),
        )

    def _ask(self, pairs: Mapping[str, Pair], answers: _Answers) -> Iterator[int]:
        """Ask about pairs by content, in batches of growing size; yields how many are answered."""
        waiting = list(pairs)
        size = min(FIRST_BATCH, self.judge.appetite)
        while waiting:
            batch, waiting = waiting[:size], waiting[size:]
            started = time.perf_counter()
            before = Counter(self.judge.usage)
            counts: Counter[str] = Counter()
            said = self.prompt.grades(self.judge, [(pairs[key][0], [pairs[key][1]]) for key in batch], counts)
            counts.update(Counter(self.judge.usage) - before)
            seconds = time.perf_counter() - started
            grades = [None if math.isnan(grade) else int(grade) for (grade,) in said]
            answers.add(dict(zip(batch, grades, strict=True)), counts, seconds)
            if seconds < BATCH_SECONDS / 2:
                size = min(2 * size, self.judge.appetite)
            elif seconds > BATCH_SECONDS:
                size = max(size // 2, 1)
            yield len(pairs) - len(waiting)


@dataclass(frozen=True)
class Report:
    """What became of a `Task`: the assessment, its agreement with human judgements where there are any, and notes.

    `agreement` is by language of the document, `all` first; `systems` compares the rankings of three runs or more.
    """

    output: Path
    assessor: str
    assessment: Assessment
    human: str | None = None
    agreement: Mapping[str, Agreement] = field(default_factory=dict)
    systems: Systems | None = None
    notes: tuple[str, ...] = ()

    @property
    def grades(self) -> dict[int, int]:
        """How many pairs have each grade."""
        given = Counter(grade for grades in self.assessment.qrels.values() for grade in grades.values())
        return dict(sorted(given.items()))

    def to_json(self) -> dict[str, object]:
        found = self.assessment
        return {
            "qrels": str(self.output),
            "judge": self.assessor,
            "topics": len(found.qrels),
            "judged": sum(self.grades.values()),
            "unreadable": ["/".join(pair) for pair in found.unreadable],
            "unseen": ["/".join(pair) for pair in found.unseen],
            "resumed": found.resumed,
            "grades": {str(grade): n for grade, n in self.grades.items()},
            "human": self.human,
            "agreement": {group: each.to_json() for group, each in self.agreement.items()} or None,
            "systems": self.systems.to_json() if self.systems else None,
            "notes": list(self.notes),
            "stages": Manifest((found.record,)).to_json(),
        }

    def __str__(self) -> str:
        """Tables for people, without the notes."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        found = self.assessment
        judged = sum(self.grades.values())
        yield f"{self.output}: {judged} pairs of {len(found.qrels)} topics judged by {self.assessor}"
        counts = ", ".join(f"{int(n)} {name}" for name, n in found.record.counts.items())
        yield f"  {found.record.seconds:.1f} s, {counts}"
        yield "grades: " + ", ".join(f"{grade}: {n}" for grade, n in self.grades.items())
        if self.agreement:
            yield ""
            yield f"agreement with {self.human}, by language of the document"
            yield from tables(self.agreement, self.systems)


@dataclass(frozen=True)
class Task:
    """Pairs to judge into the qrels `output`, and what their grades are held against.

    `human` are judgements from `source`, `langs` the languages that their file tells; `runs` are the systems to rank
    by `measure`. `left_out` are topics that have no wording in the language asked for; `unseen` is `Assessor`'s.
    """

    output: Path
    pairs: tuple[Pair, ...]
    runs: Mapping[str, Run] = field(default_factory=dict)
    human: Qrels | None = None
    source: str | None = None
    langs: Mapping[str, str] = field(default_factory=dict)
    measure: str = "nDCG@20"
    left_out: tuple[str, ...] = ()
    unseen: str = "refuse"

    @property
    def journal(self) -> Path:
        return self.output.with_name(self.output.name + ".journal")

    def judged_by(self, assessor: Assessor, *, progress: Callable[[int], None] | None = None) -> Report:
        """Judge, write the qrels and their manifest, and compare; killed, the same call goes on from the journal.

        `InputError` where not one answer could be read.
        """
        found = assessor(self.pairs, journal=self.journal, progress=progress, unseen=self.unseen)
        if found.qrels:
            found.to_trec(self.output, self.langs)
        self.journal.unlink(missing_ok=True)
        if not found.qrels:
            counts = ", ".join(f"{int(n)} {name}" for name, n in found.record.counts.items())
            raise InputError(f"{assessor} gave no grade that could be read; nothing is written ({counts})")
        report = Report(self.output, str(assessor), found)
        notes = list(self._notes(report))
        if self.human is None:
            return replace(report, notes=tuple(notes))
        systems = None
        try:
            systems = compare_systems(self.runs, self.human, found.qrels, self.measure) if self.runs else None
            if systems is not None and math.isnan(systems.tau_ap):
                notes.append("τ_AP is not defined: some systems are tied")
        except InputError as error:
            notes.append(f"systems are not compared: {error}")
        agreed = agreement(self.human, found.qrels, {**self.langs, **found.langs})
        return replace(report, human=self.source, agreement=agreed, systems=systems, notes=tuple(notes))

    def _notes(self, report: Report) -> Iterator[str]:
        found = report.assessment
        if self.left_out:
            yield f"topics that have no wording in the language asked for are left out: {list_few(self.left_out)}"
        if found.resumed:
            yield f"{found.resumed} of {len(self.pairs)} pairs were judged before, as {self.journal.name} told"
        for what, pairs in (
            ("have no readable answer", found.unreadable),
            ("cannot be shown to the judge", found.unseen),
        ):
            if pairs:
                yield f"{len(pairs)} pairs {what} and are not in the qrels: {list_few(map('/'.join, pairs))}"
        if len(report.grades) == 1 and len(self.pairs) > 2:
            ((grade, n),) = report.grades.items()
            yield f"all {n} grades are {grade}: the judge may not follow the prompt"


def task(
    collection: Collection,
    output: Path,
    *,
    runs: Sequence[Path] = (),
    depth: int = 20,
    qrels: str | None = None,
    fields: str | None = None,
    lang: str | None = None,
    measure: str = "nDCG@20",
    unseen: str = "refuse",
) -> Task:
    """The union of the runs' first `depth` documents of each topic; without runs, the pairs of the human `qrels`.

    `qrels` is a TREC file, or `collection` for the collection's own. `InputError` where there are no pairs, topics or
    documents are not in the collection, nothing is common to runs and qrels, or the output cannot be written.
    """
    own = [collection.root / "qrels.txt"] if isinstance(collection, Directory) else []
    _check_output(output, [*runs, *(own if qrels == OWN else [Path(qrels)] if qrels else [])])
    if depth < 1:
        raise InputError(f"depth must be at least 1, not {depth}")
    if is_multilingual(parse_measure(measure)):
        raise InputError(f"{measure} compares languages; systems are ranked here by one like nDCG@20")
    _skips(unseen)
    if not runs and qrels is None:
        raise InputError(
            f"no pairs to judge: give --run RUN, --qrels HUMAN, or --qrels {OWN} for the collection's own"
        )
    code = None if lang is None else parse_language(lang)
    topics = {query.id: query for query in fill_languages(collection.queries(fields=fields, lang=code))}
    human, langs = _human(collection, qrels) if qrels is not None else (None, {})
    named = _named(runs)
    wanted = (
        _pooled(named, depth) if runs else {topic: list(grades) for topic, grades in (human or {}).items()}
    )
    source = (f"the qrels of {collection.name}" if qrels == OWN else qrels) if qrels is not None else None
    lacking = [topic for topic in wanted if topic not in topics]
    where = f"the collection {collection.name}" + (f" in {code}" if code else "")
    if lacking and (code is None or len(lacking) == len(wanted)):
        raise InputError(
            f"{'the runs have' if runs else f'{source} judges'} topics that are not in {where}: {list_few(lacking)}"
        )
    wanted = {topic: wanted[topic] for topic in topics if wanted.get(topic)}
    if human is not None and wanted and not human.keys() & wanted.keys():
        raise InputError(
            f"the runs and {source} have no topic in common: the runs have {list_few(wanted)}, the qrels have {list_few(human)}"
        )
    if not wanted:
        raise InputError("no pairs to judge: the runs have no hits")
    held = fetch_documents(collection, {doc for docs in wanted.values() for doc in docs})
    pairs = tuple((topics[topic], document) for topic, docs in wanted.items() for document in held.get(docs))
    return Task(output, pairs, named, human, source, langs, measure, tuple(lacking), unseen)


def _skips(unseen: str) -> bool:
    if unseen not in ("refuse", "skip"):
        raise unknown_name(unseen, ("refuse", "skip"), "value of unseen")
    return unseen == "skip"


def _check_output(output: Path, inputs: Iterable[Path]) -> None:
    if not output.parent.is_dir():
        raise InputError(f"there is no directory {output.parent} to write {output.name} to")
    if output.is_dir():
        raise InputError(f"{output} is a directory: name a file for the qrels")
    if taken := [path for path in inputs if path.resolve() == output.resolve()]:
        raise InputError(f"the qrels would be written over {taken[0]}, which is read: name another file")


def _human(collection: Collection, qrels: str) -> tuple[Qrels, dict[str, str]]:
    """Human judgements, and documents' languages where column 2 tells them."""
    grades: Qrels
    told: Mapping[str, str]
    if qrels != OWN:
        grades, told = read_qrels(Path(qrels))
    else:
        grades = collection.qrels()
        told = collection.judged_langs() if isinstance(collection, Directory) else {}
    langs = {}
    for doc, lang in told.items():
        try:
            langs[doc] = parse_language(lang)
        except InputError:  # some files have other words in column 2
            continue
    return grades, langs


def _named(paths: Sequence[Path]) -> dict[str, Run]:
    """Runs by the stem of their file, or by its path where stems are the same."""
    if repeated := [path for path, times in Counter(paths).items() if times > 1]:
        raise InputError(f"the run {repeated[0]} is given twice")
    stems = Counter(path.stem for path in paths)
    return {path.stem if stems[path.stem] == 1 else str(path): Run.from_trec(path) for path in paths}


def _pooled(runs: Mapping[str, Run], depth: int) -> dict[str, list[str]]:
    """Topic -> documents among the first `depth` of any run, by their best rank."""
    ranks: dict[str, dict[str, int]] = {}
    for run in runs.values():
        for query, hits in run:
            best = ranks.setdefault(query.id, {})
            for rank, hit in enumerate(hits[:depth]):
                best[hit.id] = min(rank, best.get(hit.id, rank))
    return {query: sorted(best, key=lambda doc: (best[doc], doc)) for query, best in ranks.items()}


def _ids(pair: Pair) -> tuple[str, str]:
    return pair[0].id, pair[1].id


def _key(query: Item, document: Item) -> str:
    """32 hex digits over all that a prompt shows of a pair."""
    parts = query.content_hash(), str(query.meta.get("instruction") or ""), document.content_hash()
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class _Answers:
    """Grades by content, None for an unreadable answer, and what they cost; `add` keeps a batch in the journal."""

    def __init__(self, assessor: str, journal: Journal | None) -> None:
        self.assessor = assessor
        self.journal = journal
        self.grades: dict[str, int | None] = {}
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        for key, (value, counts) in journal.found.items() if journal is not None else ():
            if key.startswith(f"{assessor}:"):
                self._take(value["grades"], value["seconds"], counts)

    def add(self, grades: Mapping[str, int | None], counts: Mapping[str, int], seconds: float) -> None:
        self._take(grades, seconds, counts)
        if self.journal is not None:
            # One line a batch: its grades are on the disk together with what they cost, or not at all.
            value = {"grades": grades, "seconds": round(seconds, 4)}
            self.journal.put(f"{self.assessor}:{next(iter(grades))}", value, counts)

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def _take(self, grades: Mapping[str, int | None], seconds: float, counts: Mapping[str, int]) -> None:
        self.grades.update(grades)
        self.counts.update(counts)
        self.seconds += seconds
