"""What flows out: `Run` (queries, their hits, and the manifest of how they came to be), and TREC files."""

from __future__ import annotations

import gc
import math
import operator
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from .errors import InputError, check_cutoff, check_known, check_unicode, list_few
from .files import STDIN, is_stream, read_json, read_lines, write_atomically, write_json
from .frames import make_frame, read_columns
from .items import Item, Queries, Role, is_word, list_items, split_fields
from .specs import check_types, parse_real, parse_whole

Rankings = list[list[tuple[str, float]]]  # for each query the ids of documents and their scores
Qrels = Mapping[str, Mapping[str, int]]  # query id -> document id -> grade
# Which documents may not be found for a query: those that its metadata lists, and the one of its own id; or none.
Exclude = Literal["listed", "self", "none"]
HIGHEST_GRADE = 1_000_000
EXCLUDED = "excluded_ids"  # where a query's metadata lists them


def find_relevant(qrels: Qrels) -> set[str]:
    """The documents that are relevant for a topic: those of a grade above 0."""
    return {doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0}


def check_exclude(exclude: str) -> None:
    """`InputError` unless it is one of `Exclude`."""
    check_known(exclude, get_args(Exclude), "choice of what to exclude")


def check_tag(tag: str) -> None:
    """`InputError` unless it can stand in the last column of a TREC run."""
    if not is_word(tag):
        raise InputError(f"a run tag may not be empty or hold white space: {tag!r}")
    check_unicode(tag, "the run tag")


def list_excluded(query: Item, exclude: Exclude) -> frozenset[str]:
    """The ids of documents that may not be found for a query.

    `listed` are those of its metadata `excluded_ids` (BRIGHT), `self` these and the one that has the query's own id
    (BEIR's ArguAna, whose queries are documents), `none` nothing. `InputError` where the metadata holds no list of ids.
    """
    check_exclude(exclude)
    if exclude == "none":
        return frozenset()
    listed = query.meta.get(EXCLUDED)
    ids = () if listed is None else listed
    if not isinstance(ids, Sequence | Set) or isinstance(ids, str) or not all(isinstance(each, str) for each in ids):
        raise InputError(f"query {query.id!r}: {EXCLUDED} must be a list of document ids, not {str(listed)[:80]!r}")
    return frozenset(ids) | (frozenset([query.id]) if exclude == "self" else frozenset())


MOST = 2**53  # what a manifest may count to; nan and infinity are no counts


class Hit(NamedTuple):
    """A document, by its `id`, at its `score`; higher is better."""

    id: str
    score: float


class Probe(NamedTuple):
    """Something that is searched for in a query's place, encoded in its `role` (a hypothetical document as a document).

    Probes of one `group` are one search: their vectors are averaged by `weight`, and their words are searched for
    together, each in its own language. A weight below 0 leads away from what it stands at; it is finite. Groups are
    searches of their own, of which the rankings are fused by reciprocal rank (the sub-questions of a question). `only`
    its vector or its words may be meant: a document that leads the way by its vector does not lend its thousand words.
    """

    item: Item
    role: Role
    weight: float = 1.0
    group: int = 0
    only: Literal["vector", "words"] | None = None


class Documents(Protocol):
    """Where a stage finds the items behind the ids of a run: an index, or a collection held in memory."""

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The items of `ids`, in that order; `InputError` naming ids that are not there."""
        ...


@dataclass(frozen=True)
class Record:
    """What one stage did: its fingerprint, wall seconds, counts (tokens, judge calls, parse failures), and models.

    `models` maps the name of each model that took part to its revision.
    """

    stage: str
    fingerprint: str
    seconds: float
    counts: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """What `Manifest.to_json` has of a stage; `TypeError` on anything else."""
        record = cls(**data)
        check_types(record)
        if not all(abs(number) < MOST for number in (record.seconds, *record.counts.values())):
            raise TypeError("a count that no stage could reach")
        return record


@dataclass(frozen=True)
class Manifest:
    """The stages behind a run, first to last; `about` is what else it came from: topics, index, settings, versions."""

    records: tuple[Record, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def total(self, count: str) -> float:
        """Sum of one count over all stages."""
        return sum(record.counts.get(count, 0) for record in self.records)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Those of the stages."""
        return tuple(record.fingerprint for record in self.records)

    def to_json(self) -> list[dict[str, object]]:
        return [vars(each) | {"counts": dict(each.counts), "models": dict(each.models)} for each in self.records]

    @classmethod
    def of_run(cls, path: Path) -> Manifest:
        """What `Run.to_trec` wrote beside the run at `path`; empty if there is nothing, as beside others' runs."""
        beside = _manifest_path(path)
        if path == STDIN or not os.path.lexists(beside):
            return cls()
        try:
            stored = read_json(beside)
            about = {key: value for key, value in stored.items() if key not in ("tag", "stages")}
            return cls(tuple(map(Record.from_json, stored["stages"])), about)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{beside} is not a manifest of crosslens: correct it, or remove it") from None


def hits_of(docs: Sequence[str], scores: Sequence[float]) -> list[Hit]:
    """Hits of documents and their scores, which are Python's floats."""
    return list(map(partial(tuple.__new__, Hit), zip(docs, scores, strict=True)))


def rank_hits(hits: Iterable[tuple[str, float]]) -> tuple[Hit, ...]:
    """Hits by falling score, document id breaking ties; `InputError` on nan and on a repeated document."""
    # A thousand queries have a million hits, so this is done a whole list at a time.
    listed: list[Any] = list(hits)
    docs, scores = [doc for doc, _ in listed], [score for _, score in listed]
    if {*map(type, listed)} - {Hit} or {*map(type, scores)} - {float}:
        scores = list(map(float, scores))
        listed = hits_of(docs, scores)
    if any(map(math.isnan, scores)):
        raise InputError(f"document {docs[next(n for n, s in enumerate(scores) if s != s)]!r} has the score nan")
    if len(set(docs)) < len(docs):
        repeated, times = Counter(docs).most_common(1)[0]
        raise InputError(f"document {repeated!r} occurs {times} times among the hits of one query")
    if not all(map(operator.gt, scores, scores[1:])):
        listed.sort(key=operator.itemgetter(0))
        listed.sort(key=operator.itemgetter(1), reverse=True)  # equal ones stay in their order
    return tuple(listed)


@contextmanager
def pause_collector() -> Iterator[None]:
    """Without the garbage collector, which would look through a million hits, all of which stay, over and over."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True, repr=False)
class Run:
    """Queries and their hits, best first; queries without hits are a `Run` too.

    `hits` maps a query id to hits ordered by `rank_hits`; `docs` is where later stages look documents up. `probes` maps
    the id of a query that was rewritten to what is searched for in its place.
    """

    queries: tuple[Item, ...]
    hits: Mapping[str, tuple[Hit, ...]] = field(default_factory=dict)
    manifest: Manifest = field(default=Manifest(), compare=False)
    docs: Documents | None = field(default=None, compare=False)
    probes: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, queries: Queries) -> Run:
        """A run without hits, of one query or several as people write them (`items.list_items`).

        Text becomes a query whose id is its place, from 1. `InputError` for what is no query, and for an id that occurs
        twice.
        """
        items = tuple(list_items(queries))
        for id, times in Counter(item.id for item in items).items():
            if times > 1:
                raise InputError(f"query id {id!r} occurs twice")
        return cls(items)

    def __iter__(self) -> Iterator[tuple[Item, tuple[Hit, ...]]]:
        return ((query, self[query.id]) for query in self.queries)

    def __len__(self) -> int:
        return len(self.queries)

    def __repr__(self) -> str:
        return f"<Run: {len(self):,} queries, {sum(map(len, self.hits.values())):,} hits>"

    def __getitem__(self, query_id: str) -> tuple[Hit, ...]:
        return self.hits.get(query_id, ())

    def ranking(self, hits: Mapping[str, Iterable[tuple[str, float]]], docs: Documents | None = None) -> Run:
        """The same queries with other hits, put in order."""
        with pause_collector():
            placed = {query: rank_hits(found) for query, found in hits.items()}
        return replace(self, hits=placed, docs=docs or self.docs)

    def note(self, **about: object) -> Run:
        """The same run, with more in its manifest of what it came from."""
        return replace(self, manifest=replace(self.manifest, about={**self.manifest.about, **about}))

    def cut(self, k: int) -> Run:
        """The first `k` hits of each query."""
        check_cutoff(k, "a cutoff")
        return replace(self, hits={query: hits[:k] for query, hits in self.hits.items()})

    def drop_excluded(self, exclude: Exclude) -> Run:
        """Without the hits that may not be found for their query (`list_excluded`); the others close up."""
        hits = dict(self.hits)
        for query in self.queries:
            if (excluded := list_excluded(query, exclude)) and query.id in hits:
                hits[query.id] = tuple(hit for hit in hits[query.id] if hit.id not in excluded)
        return replace(self, hits=hits)

    def items(self, query_id: str) -> list[Item]:
        """The documents of a query's hits, in their order."""
        if self.docs is None:
            raise InputError("this run has no documents behind it: give it a collection or an index as `docs`")
        return self.docs.get([hit.id for hit in self[query_id]])

    def to_trec(self, path: str | Path, tag: str = "crosslens") -> None:
        """Write `qid Q0 docid rank score tag`, with scores that strictly decrease.

        trec_eval reads scores as float32 and breaks ties by document id, descending: equal scores are lowered to the
        next float32 so that every reader sees the order of the run. The manifest goes to `PATH.manifest.json`; a stream
        (`files.is_stream`) has none.
        """
        path = Path(path)
        check_tag(tag)
        with write_atomically(path) as out:
            for query, hits in self:
                bad = next((name for name in (query.id, *(h.id for h in hits)) if not is_word(name)), None)
                if bad is not None:
                    raise InputError(f"the id {bad!r} cannot stand in a TREC run: it is empty or has white space")
                for rank, (hit, score) in enumerate(zip(hits, _strictly_falling(hits), strict=True), 1):
                    out.write(f"{query.id} Q0 {hit.id} {rank} {score:.9g} {tag}\n")
        if not is_stream(path):
            stages = self.manifest.to_json()
            write_json(_manifest_path(path), {"tag": tag, **self.manifest.about, "stages": stages})

    def to_dict(self) -> dict[str, dict[str, float]]:
        """By the ids of queries, documents and their scores, best first: what ranx and ir_measures take.

        Scores strictly decrease as float32, as in `to_trec`, so that ties stay in the order of the run.
        """
        return {query.id: {hit.id: score for hit, score in _break_ties(hits)} for query, hits in self}

    def to_df(self) -> Any:
        """A data frame of pandas with PyTerrier's columns `qid`, `docno`, `score`, `rank` (from 0) and `query`.

        Queries without hits have no rows. Scores are those of `to_dict`.
        """
        rows = [
            (query.id, hit.id, score, rank, query.text)
            for query, hits in self
            for rank, (hit, score) in enumerate(_break_ties(hits))
        ]
        names = ("qid", "docno", "score", "rank", "query")
        return make_frame(dict(zip(names, map(list, zip(*rows, strict=True)) if rows else [[]] * 5, strict=True)))

    @classmethod
    def from_dict(cls, scores: Mapping[str, Mapping[str, float]], queries: Queries | None = None) -> Run:
        """The scores of documents by the ids of queries, as ranx and ir_measures have them.

        Order and queries are as in `from_trec`. `InputError` names a score that is no number.
        """
        if not isinstance(scores, Mapping) or not all(isinstance(each, Mapping) for each in scores.values()):
            raise InputError("a run maps the ids of queries to those of documents to scores, as {'q1': {'d1': 0.5}}")
        found = {
            _read_id(query): {_read_id(doc): _read_score(score, query, doc) for doc, score in of.items()}
            for query, of in scores.items()
        }
        return cls._of_scores(found, queries, "the scores")

    @classmethod
    def from_df(cls, frame: Any, queries: Queries | None = None) -> Run:
        """A data frame of pandas with PyTerrier's columns `qid`, `docno` and `score`; `query`, if it is there, is text.

        Order and queries are as in `from_trec`; a `rank` and other columns are not read. `InputError` for a column that
        is missing, a score that is no number, and a document that a query has twice.
        """
        found: dict[str, dict[str, float]] = {}
        texts: dict[str, str] = {}
        asked = read_columns(frame, "query")[0] if "query" in getattr(frame, "columns", ()) else None
        for row, (query, doc, score) in enumerate(zip(*read_columns(frame, "qid", "docno", "score"), strict=True)):
            query, doc = _read_id(query), _read_id(doc)
            of = found.setdefault(query, {})
            if doc in of:
                raise InputError(f"document {doc!r} occurs twice for query {query!r}")
            of[doc] = _read_score(score, query, doc)
            if asked is not None and isinstance(asked[row], str):
                texts.setdefault(query, asked[row])
        listed = [Item(query, texts.get(query)) for query in found]
        return cls._of_scores(found, listed if queries is None else queries, "the data frame")

    @classmethod
    def _of_scores(
        cls,
        found: Mapping[str, Mapping[str, float]],
        queries: Queries | None,
        where: object,
        manifest: Manifest = Manifest(),
    ) -> Run:
        """A run of scores that were made elsewhere, in trec_eval's order."""
        run = cls.of([Item(query) for query in found] if queries is None else queries)
        if found and not {item.id for item in run.queries} & found.keys():
            raise InputError(
                f"{where} and the topics have no query in common: the run has {list_few(found)}, "
                f"the topics have {list_few(item.id for item in run.queries)}"
            )
        return replace(run, manifest=manifest).ranking(
            {item.id: _as_trec_eval(found[item.id]) for item in run.queries if item.id in found}
        )

    @classmethod
    def from_trec(cls, path: str | Path, queries: Queries | None = None) -> Run:
        """Read a TREC run, plain or gz, `-` for standard input; without `queries` they are bare ids in its order.

        `InputError` names the file and line of a malformed line or a repeated document. The order is trec_eval's: by
        score read as float32, equal ones by document id, descending, and not by the rank column. Where a file has such
        ties their scores are lowered as in `to_trec`. Queries that are not among `queries` are left out.
        """
        path = Path(path)
        found: dict[str, dict[str, float]] = {}
        for number, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            try:
                query, _, doc, _, score, _ = split_fields(line)
                value = parse_real(score)
            except ValueError:
                raise InputError(
                    f"{path}:{number}: not a run line `qid Q0 docid rank score tag`: {line.strip()[:80]!r}"
                ) from None
            if math.isnan(value):
                raise InputError(f"{path}:{number}: the score is nan")
            scores = found.setdefault(query, {})
            if doc in scores:
                raise InputError(f"{path}:{number}: document {doc!r} occurs twice for query {query!r}")
            scores[doc] = value
        return cls._of_scores(found, queries, path, Manifest.of_run(path))


def _manifest_path(run: Path) -> Path:
    return run.with_name(run.name + ".manifest.json")


def read_qrels(path: str | Path) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Read TREC or BEIR qrels: the grades, and documents' languages where column 2 has them.

    TREC's lines are `topic column2 doc grade`: NIST's combined NeuCLIR file writes the language into column 2 (`zho`),
    everyone else 0 or Q0. BEIR's are `query-id TAB corpus-id TAB score`, with or without a line of these names. Files
    may be gz, and `-` is standard input. `InputError` names file and line of anything else, of a grade above 1,000,000,
    and of a document with two grades.
    """
    path = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    langs: dict[str, str] = {}
    columns = 0
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = split_fields(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}: {line.strip()[:80]!r}") from None
        if not columns:
            columns = 3 if len(fields) == 3 and line.count("\t") == 2 else 4
            if columns == 3 and not _is_number(fields[-1]):  # the names of BEIR's columns
                continue
        try:
            if len(fields) != columns or (columns == 3 and line.count("\t") != 2):
                raise ValueError
            grade = parse_grade(fields[-1])
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        except ValueError:
            form = "topic 0 doc grade" if columns == 4 else "query-id TAB corpus-id TAB score"
            raise InputError(f"{path}:{number}: not a qrels line `{form}`: {line.strip()[:80]!r}") from None
        topic, doc = fields[0], fields[-2]
        if qrels.setdefault(topic, {}).setdefault(doc, grade) != grade:
            raise InputError(f"{path}:{number}: document {doc!r} has two grades for topic {topic!r}")
        if columns == 4 and fields[1].isalpha():
            langs[doc] = fields[1].lower()
    if not qrels:
        raise InputError(f"{path}: no judgements in it")
    return qrels, langs


def _is_number(text: str) -> bool:
    """Also one in a form that no grade may have: it is a mistake then, and not the name of a column."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_grade(text: str) -> int:
    """A grade as files have it, `2` or `2.0`; `ValueError` if it is no whole number, `InputError` if it is too high."""
    whole, _, rest = text.partition(".")
    if rest.strip("0"):
        raise ValueError(f"{text!r} is not a whole number")
    return check_grade(parse_whole(whole))


def check_grade(grade: int) -> int:
    """The grade; `InputError` above 1,000,000: it would be no grade, and measures make tables as long as it is high."""
    if grade > HIGHEST_GRADE:
        raise InputError(f"the grade {str(grade)[:20]} is above {HIGHEST_GRADE:,}: are the columns in another order?")
    return grade


def _as_trec_eval(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    with np.errstate(over="ignore"):
        singles = dict(zip(scores, np.array(list(scores.values())).astype(np.float32).tolist(), strict=True))
    if len(set(singles.values())) == len(singles):
        return list(scores.items())
    hits = [Hit(doc, scores[doc]) for doc in sorted(scores, key=lambda doc: (singles[doc], doc), reverse=True)]
    return [(hit.id, float(score)) for hit, score in zip(hits, _strictly_falling(hits), strict=True)]


def _break_ties(hits: Sequence[Hit]) -> Iterator[tuple[Hit, float]]:
    """Hits and their scores, which are lowered as in `to_trec` where some are equal as float32."""
    with np.errstate(over="ignore"):
        singles = np.array([hit.score for hit in hits]).astype(np.float32)
    tied = bool((singles[1:] >= singles[:-1]).any())
    scores = map(float, _strictly_falling(hits)) if tied else (hit.score for hit in hits)
    return zip(hits, scores, strict=True)


def _read_id(value: object) -> str:
    """An id, which data frames may hold as a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return str(value)
    raise InputError(f"an id is text, not {str(value)[:60]!r} ({type(value).__name__})")


def _read_score(value: object, query: str, doc: str) -> float:
    try:
        score = parse_real(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        score = math.nan
    if math.isnan(score):
        raise InputError(f"query {query!r}, document {doc!r}: the score {str(value)[:60]!r} is not a number")
    return score


def _strictly_falling(hits: Sequence[Hit]) -> Iterator[np.float32]:
    # Clipped short of the largest float32, so that there is room below two scores of minus infinity.
    previous = np.float32(np.inf)
    for score in np.clip([hit.score for hit in hits], -3e38, 3e38).astype(np.float32):
        if score >= previous:
            score = np.nextafter(previous, np.float32(-np.inf))
        previous = score
        yield score
