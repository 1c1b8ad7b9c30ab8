"""Which pairs an assessor judges, the qrels that become of them, and how they agree with human judgements."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, check_at_least, check_known, list_few
from ..files import check_output, find_target, is_stream
from ..multilingual.collections.base import Collection, fetch_documents
from ..multilingual.collections.directory import Directory
from ..multilingual.judges.mass import describe_mass
from ..multilingual.languages import fill_languages, parse_language
from ..runs import Manifest, Qrels, Run, read_qrels
from .agreement import Agreement, SystemAgreement, compare_grades, compare_systems, format_agreement
from .assess import UNSEEN, Assessment, Assessor, Pair
from .evaluate import read_runs
from .measures import is_multilingual, parse_measure

OWN = "collection"  # `--qrels collection`: the collection's own


@dataclass(frozen=True)
class AssessmentReport:
    """What became of a task: the assessment, its agreement with `human` judgements where there are any, and notes.

    `agreement` is by language of the document, `all` first; `systems` compares the rankings of three runs or more.
    """

    output: Path
    assessor: str
    assessment: Assessment
    human: str | None
    agreement: Mapping[str, Agreement]
    systems: SystemAgreement | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        done = self.assessment
        return {
            "qrels": str(self.output),
            "judge": self.assessor,
            "topics": len(done.qrels),
            "judged": sum(done.grades.values()),
            "unreadable": ["/".join(pair) for pair in done.unreadable],
            "unseen": ["/".join(pair) for pair in done.unseen],
            "resumed": done.resumed,
            "grades": {str(grade): n for grade, n in done.grades.items()},
            "human": self.human,
            "agreement": {group: each.to_json() for group, each in self.agreement.items()} or None,
            "systems": self.systems.to_json() if self.systems else None,
            "notes": list(self.notes),
            "stages": Manifest((done.record,)).to_json(),
        }

    def __str__(self) -> str:
        """Tables for people, without the notes."""
        done = self.assessment
        judged = sum(done.grades.values())
        lines = [
            f"{self.output}: {judged} pairs of {len(done.qrels)} topics judged by {self.assessor}",
            f"  {done.record.seconds:.1f} s, {done.counts}",
            "pairs by grade: " + ", ".join(f"{n} of grade {grade}" for grade, n in done.grades.items()),
        ]
        if self.agreement:
            lines += ["", f"agreement with {self.human}, by language of the document"]
            lines += format_agreement(self.agreement, self.systems)
        return "\n".join(lines)


@dataclass(frozen=True)
class AssessmentTask:
    """Pairs to judge into the qrels `output`, and what their grades are held against.

    `human` are judgements from `source`, `langs` the documents' languages in their file; `runs` are the systems to rank
    by `measure`. `left_out` are topics that have no wording in the wanted language; `unseen` is `Assessor`'s.
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
    def journal(self) -> Path | None:
        """Where answers are kept until the qrels are written; None beside a stream."""
        return None if is_stream(self.output) else self.output.with_name(self.output.name + ".journal")

    def judge_with(self, assessor: Assessor) -> AssessmentReport:
        """Judge, write the qrels and their manifest, and compare; killed, the same call goes on from the journal.

        `InputError` where not one answer could be read.
        """
        done = assessor(self.pairs, journal=self.journal, unseen=self.unseen)
        if done.qrels:
            done.to_trec(self.output, self.langs)
        if self.journal is not None:
            self.journal.unlink(missing_ok=True)
        if not done.qrels:
            raise InputError(f"{assessor} gave no grade that could be read; nothing is written ({done.counts})")
        notes = [*self._describe(done), *describe_mass(done.record.counts, assessor.judge.name, assessor.prompt.name)]
        agreement: dict[str, Agreement] = {}
        systems = None
        if self.human is not None:
            agreement = compare_grades(self.human, done.qrels, {**self.langs, **done.langs})
            try:
                systems = compare_systems(self.runs, self.human, done.qrels, self.measure) if self.runs else None
            except InputError as error:
                notes.append(f"systems are not compared: {error}")
        if systems is not None and math.isnan(systems.tau_ap):
            notes.append("τ_AP is not defined: some systems are tied")
        return AssessmentReport(self.output, str(assessor), done, self.source, agreement, systems, tuple(notes))

    def _describe(self, done: Assessment) -> Iterator[str]:
        """What is to be known of an assessment."""
        if self.left_out:
            yield f"topics that have no wording in the wanted language are left out: {list_few(self.left_out)}"
        if done.resumed and self.journal is not None:
            yield f"{done.resumed} of {len(self.pairs)} pairs were judged before and taken from {self.journal.name}"
        outside = {"have no readable answer": done.unreadable, "cannot be shown to the judge": done.unseen}
        for what, pairs in outside.items():
            if pairs:
                yield f"{len(pairs)} pairs {what} and are not in the qrels: {list_few(map('/'.join, pairs))}"
        if len(done.grades) == 1 and len(self.pairs) > 2:
            ((grade, n),) = done.grades.items()
            yield f"all {n} grades are {grade}: the judge may not follow the prompt"


def plan_assessment(
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
) -> AssessmentTask:
    """The union of the runs' first `depth` documents of each topic; without runs, the pairs of the human `qrels`.

    `qrels` is a TREC file, or `collection` for the collection's own. `InputError` where there are no pairs, topics or
    documents are not in the collection, nothing is common to runs and qrels, or the output cannot be written.
    """
    own = [collection.root / "qrels.txt"] if isinstance(collection, Directory) else []
    _check_output(output, [*runs, *(own if qrels == OWN else [Path(qrels)] if qrels else [])])
    check_at_least(1, depth=depth)
    if is_multilingual(parse_measure(measure)):
        raise InputError(f"{measure} compares languages; systems are ranked here by one like nDCG@20")
    check_known(unseen, UNSEEN, "value of unseen")
    if not runs and qrels is None:
        raise InputError(f"no pairs to judge: give --run RUN, --qrels HUMAN, or --qrels {OWN} for the collection's own")
    code = None if lang is None else parse_language(lang)
    topics = {query.id: query for query in fill_languages(collection.queries(fields=fields, lang=code))}
    human, langs = (None, {}) if qrels is None else _read_human(collection, qrels)
    source = f"the qrels of {collection.name}" if qrels == OWN else qrels
    named = read_runs(runs)
    wanted = _pool(named, depth) if runs else {topic: list(grades) for topic, grades in (human or {}).items()}
    lacking = [topic for topic in wanted if topic not in topics]
    if lacking and (code is None or len(lacking) == len(wanted)):
        who = "the runs have" if runs else f"{source} judges"
        where = f"the collection {collection.name}" + (f" in {code}" if code else "")
        raise InputError(f"{who} topics that are not in {where}: {list_few(lacking)}")
    wanted = {topic: wanted[topic] for topic in topics if wanted.get(topic)}
    if human is not None and wanted and not human.keys() & wanted.keys():
        raise InputError(
            f"the runs and {source} have no topic in common: the runs have {list_few(wanted)}, "
            f"the qrels have {list_few(human)}"
        )
    if not wanted:
        raise InputError("no pairs to judge: the runs have no hits")
    documents = fetch_documents(collection, {doc for docs in wanted.values() for doc in docs})
    pairs = tuple((topics[topic], document) for topic, docs in wanted.items() for document in documents.get(docs))
    return AssessmentTask(output, pairs, named, human, source, langs, measure, tuple(lacking), unseen)


def _check_output(output: Path, inputs: Iterable[Path]) -> None:
    check_output(output)
    if is_stream(output):
        return
    target = find_target(output)
    if taken := [path for path in inputs if os.path.realpath(path) == str(target)]:
        raise InputError(f"the qrels would be written over {taken[0]}, which is read: name another file")


def _read_human(collection: Collection, qrels: str) -> tuple[Qrels, dict[str, str]]:
    """Human judgements, and documents' languages where column 2 has them."""
    grades: Qrels
    column: Mapping[str, str]
    if qrels != OWN:
        grades, column = read_qrels(Path(qrels))
    else:
        grades = collection.qrels()
        column = collection.judged_langs() if isinstance(collection, Directory) else {}
    langs = {}
    for doc, lang in column.items():
        with suppress(InputError):  # some files have other words in column 2
            langs[doc] = parse_language(lang)
    return grades, langs


def _pool(runs: Mapping[str, Run], depth: int) -> dict[str, list[str]]:
    """Topic -> documents among the first `depth` of any run, by their best rank."""
    ranks: dict[str, dict[str, int]] = {}
    for run in runs.values():
        for query, hits in run:
            best = ranks.setdefault(query.id, {})
            for rank, hit in enumerate(hits[:depth]):
                best[hit.id] = min(rank, best.get(hit.id, rank))
    return {query: sorted(best, key=lambda doc: (best[doc], doc)) for query, best in ranks.items()}
