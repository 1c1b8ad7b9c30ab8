"""A collection of queries for documents: drafted by a source, checked, and written so that a kill loses little."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import InputError, check_cutoff, check_known, note_kept
from ...files import check_directory, hash_file, lock_directory, make_directory, read_json, write_json
from ...indexes.registry import open_index
from ...items import Item, hash_json, windows
from ...multilingual.collections.base import Collection, MissingPart
from ...multilingual.collections.digest import digest_files
from ...multilingual.collections.topics import FIELDS
from ...multilingual.judges.journal import Journal
from ...multilingual.languages import fill_languages
from ...pipeline import Progress, show_nothing, watch
from ...systems.indexing import index_collection
from ...systems.search import choose_encoders
from .base import LanguageMix, Making, PairSource
from .checks import NEAR_TOPIC, Checks
from .confirm import RoundTrip, Verdict, parse_verdict
from .selection import Choice, Selection
from .writing import FILES, Writing

FORMAT = 1  # of the card
WINDOW = 64  # documents whose queries are searched and judged together
CARD, COST, READ = "card.json", "cost.json", "read.json"
Written = Literal["judged", "all"]

# What is counted beside the drafts that are left out, as people read it.
_NOTES = {
    "documents_without_language": "documents are in no known language, and got no query in `same`: name one in --langs",
    "generic_anchors": "texts of links lead to several documents, and were left out",
}


@dataclass(frozen=True)
class SyntheticCollection:
    """What was made: where it is, its card, which the same call makes again, and what it cost over all sessions."""

    output: Path
    card: Mapping[str, Any]
    cost: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.card, "cost": dict(self.cost)}

    def __str__(self) -> str:
        queries, documents = self.card["queries"], self.card["documents"]
        lines = [
            f"{self.output}: {queries['kept']} queries for {documents['judged']} of {documents['chosen']} documents, "
            f"by {self.card['source']['name']}, in {self.cost['seconds']:.1f} s",
            "queries: " + (", ".join(f"{lang or '?'} {n}" for lang, n in queries["langs"].items()) or "none"),
        ]
        if dropped := self.card["dropped"]:
            reasons = (f"{reason} {sum(langs.values())}" for reason, langs in dropped.items())
            lines.append(f"left out of {queries['drafted']} drafts: " + ", ".join(reasons))
        return "\n".join(lines)

    @property
    def notes(self) -> list[str]:
        """What people should know of how it went, a line each."""
        counts = self.card["counts"]
        said = [f"{counts[kind]} {what}" for kind, what in _NOTES.items() if kind in counts]
        lacking = {
            kind.removeprefix("prompt_not_in_"): n for kind, n in counts.items() if kind.startswith("prompt_not")
        }
        said += [f"{n} requests are in English: the prompt has no words in {lang}" for lang, n in lacking.items()]
        if not self.card["queries"]["kept"]:
            drafted = self.card["queries"]["drafted"]
            said.append(
                "no query was kept: `dropped` in card.json says why"
                if drafted
                else f"{self.card['source']['name']} found nothing to make a query of in these documents"
            )
        return said


@dataclass(frozen=True)
class Synthesis:
    """How queries are made for a collection's documents: by what, for which, in which languages, and how checked.

    `round_trip` is how many documents an index may find before a query's own at most; with an `index` alone it is 20,
    without one an index of the collection is made. `judge` is a reranker's SPEC whose prompt shows one passage, and a
    pair is kept from `threshold` on (`confirm.parse_verdict`). `held_out` are texts that may not come out as queries,
    beside the collection's own topics. Of the documents those that are `judged` are written, or `all`, so that the
    result is searched by itself. `InputError` for what is wrong, before any work.
    """

    source: PairSource
    selection: Selection = field(default_factory=Selection)
    mix: LanguageMix = field(default_factory=LanguageMix)
    round_trip: int | None = None
    index: str | None = None
    judge: str | None = None
    threshold: float | None = None
    most_copied: float = 0.6
    held_out: Sequence[str] = ()
    write: Written = "judged"
    device: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_known(self.write, get_args(Written), "choice of documents to write")
        if self.round_trip is not None:
            check_cutoff(self.round_trip, "round_trip")
        if self.threshold is not None and self.judge is None:
            raise InputError("a threshold is for the score of a judge: add --judge, or leave it out")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"a threshold is a finite number, not {self.threshold:g}")
        if self.source.copies and self.mix != LanguageMix():
            raise InputError(f"{self.source.name} takes the documents' own words: --langs is for what a model writes")
        Checks(copies=True, most_copied=self.most_copied)
        _ = self._load_verdict

    @cached_property
    def _load_verdict(self) -> Any:
        if self.judge is None:
            return None
        how = {"device": self.device, "trust_remote_code": self.trust_remote_code}
        return parse_verdict(self.judge, self.threshold, **how)  # type: ignore[arg-type]

    def run(
        self, collection: Collection, output: str | Path, *, name: str = "", progress: Progress = show_nothing
    ) -> SyntheticCollection:
        """Write the new directory `output`: docs.jsonl, topics.jsonl, qrels.txt, card.json, cost.json and read.json.

        A topic is a query, with its language and style, and the id of the `document` that it was made for; also its
        `rank` in the round trip, and the judge's `score`. Its grade is 1, and 1 more each where the round trip finds
        the document first, and where the judge confirms it. Where several documents have a query in the same words, it
        is one topic that all of them are judged for.

        Answers, ranks and scores are kept in `.OUTPUT.partial/` until all is done. Killed, the same call goes on from
        there, and writes what it would have written undisturbed. After that, it returns what is there: at once, where
        `name`, by which the collection was loaded, is given and its files are as they were; else when its documents
        have been read and are the same. `InputError` for an output that is something else, and for what is wrong with
        the collection.
        """
        output = Path(output)
        check_made(output)
        work = output.parent / f".{output.name}.partial"
        about = self.describe(collection)
        files = digest_files(collection, name, [output, work]) if name else None
        if done := _find_finished(output, about):
            if not _is_as_read(files, output):
                self._check_documents(collection, done)
            shutil.rmtree(work, ignore_errors=True)
            return done
        make_directory(work)
        started = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(lock_directory(work))
            journal = stack.enter_context(closing(Journal(work / "answers.journal")))
            making = Making(self.selection.seed, self.mix, journal)
            writing = Writing(work / "result")
            try:
                card = about | self._make(collection, work, making, writing, progress)
                writing.close()
            except BaseException as stop:
                if writing.documents:
                    note_kept(stop, f"the drafts of {writing.documents} documents")
                elif isinstance(stop, InputError) and not journal:  # nothing is worth to be gone on with
                    stack.callback(shutil.rmtree, work, ignore_errors=True)
                raise
            cost = _sum_up(making.usage + journal.counted, round(time.perf_counter() - started, 1))
            card["files"] = {name: hash_file(writing.root / name) for name in FILES}
            write_json(writing.root / CARD, card)
            write_json(writing.root / COST, cost)
            write_json(writing.root / READ, {"files": files})
            try:
                os.replace(writing.root, output)
            except OSError as error:
                raise InputError(f"cannot write {output}: {error.strerror}") from None
        shutil.rmtree(work, ignore_errors=True)
        return SyntheticCollection(output, card, cost)

    def describe(self, collection: Collection) -> dict[str, Any]:
        """What decides the result, as the card has it; JSON-able."""
        chosen = {key: each for key, each in vars(self.selection).items() if key != "seed"}
        held_out = {"held_out_sha256": hash_json(list(self.held_out), 64)} if self.held_out else {}
        return {
            "format": FORMAT,
            "collection": collection.name,
            "source": {"name": self.source.name, "models": dict(self.source.models), **self.source.describe()},
            "seed": self.selection.seed,
            "langs": str(self.mix),
            "selection": {**chosen, "langs": list(self.selection.langs)},
            "asked": {
                "round_trip": self.round_trip, "index": self.index, "judge": self.judge, "threshold": self.threshold,
                "most_copied": self.most_copied, "write": self.write, **held_out,
            },
        }  # fmt: skip

    def _check_documents(self, collection: Collection, done: SyntheticCollection) -> None:
        """`InputError` where a collection has other documents than those that something was made of."""
        documents = self.selection.choose(fill_languages(collection.docs()), collection.name).describe()
        if any(done.card["documents"].get(key) != value for key, value in documents.items()):
            raise InputError(
                f"{done.output} was made of other documents than {collection.name} has now: name another directory, or "
                f"remove it"
            )

    def _make(
        self, collection: Collection, work: Path, making: Making, writing: Writing, progress: Progress
    ) -> dict[str, Any]:
        """Write all of the files but the card, of which what was counted is returned."""

        def read() -> Iterator[Item]:
            return fill_languages(collection.docs())

        choice = self.selection.choose(read(), collection.name)
        held_out = [*self.held_out, *list_wordings(collection)]
        checks = Checks(copies=self.source.copies, most_copied=self.most_copied, held_out=held_out)
        trip = self._open_round_trip(collection, choice, work, progress)
        verdict: Verdict | None = self._load_verdict and self._load_verdict()
        with progress("making queries", self.source.count(choice.number)) as watcher, watch(watcher):
            for window in windows(self.source.make(read, choice.ids, making), WINDOW):
                writing.add(window, checks, trip, verdict, making)
        if self.write == "all":
            writing.add_others(read())
        return {
            "documents": {**choice.describe(), "judged": writing.judged},
            "queries": {
                "drafted": writing.drafted, "kept": writing.kept.total(), "langs": dict(sorted(writing.kept.items())),
                "styles": dict(sorted(writing.styles.items())), "shared": writing.shared,
            },
            "dropped": {reason: dict(sorted(langs.items())) for reason, langs in sorted(writing.dropped.items())},
            "grades": {str(grade): number for grade, number in sorted(writing.grades.items())},
            "round_trip": trip and trip.describe(),
            "judge": verdict and {**verdict.describe(), "models": dict(verdict.models)},
            "held_out": {
                "texts": len(checks.held_out),
                "check": "a query is left out if it is near a topic of the collection, or of one that was named: from "
                f"{NEAR_TOPIC} on (Jaccard of trigrams), in English and the documents' languages; qrels are not read",
            },
            "counts": dict(sorted((+making.count).items())),
        }  # fmt: skip

    def _open_round_trip(
        self, collection: Collection, choice: Choice, work: Path, progress: Progress
    ) -> RoundTrip | None:
        if self.round_trip is None and self.index is None:
            return None
        how: dict[str, Any] = {"device": self.device, "trust_remote_code": self.trust_remote_code}
        if self.index is not None:
            index = open_index(self.index, **how)
        else:
            specs = choose_encoders(0)  # of pictures: queries are texts
            made = work / "index"
            index = index_collection(
                collection, made, specs, documents=choice.read, lexical=False, sync=True, progress=progress, **how
            ).index
        return RoundTrip(index, self.round_trip or 20)


def list_wordings(collection: Collection) -> list[str]:
    """The texts of a collection's topics, their titles, descriptions and narratives; none where it has no topics.

    As the collection gives them, and in English and the documents' languages as far as it has them in these.
    """
    queries: list[Item] = []
    with suppress(MissingPart):
        queries += collection.queries()
        for lang in sorted({"eng", *collection.langs}):
            with suppress(InputError):  # it has no wording, or no topic, in that language
                queries += collection.queries(lang=lang)
    parts = (part for query in queries for part in (query.text, *(query.meta.get(key) for key in FIELDS)))
    return list(dict.fromkeys(part for part in parts if isinstance(part, str) and part.strip()))


def _sum_up(usage: Mapping[str, float], seconds: float) -> dict[str, Any]:
    """What it cost: the seconds of this session, and over all sessions those of each kind of work, calls and tokens."""
    kinds = {key: key.removesuffix("_seconds") for key in sorted(usage) if key.endswith("_seconds")}
    return {
        "seconds": seconds,
        "seconds_by_work": {kind: round(usage[key], 1) for key, kind in kinds.items()},
        "usage": {key: usage[key] for key in sorted(usage) if key not in kinds},
    }


def check_synthesis(output: Path, *, write: str, judge: str | None, threshold: float | None, index: str | None) -> None:
    """`InputError` for what is wrong beside the source; to be asked before its model is loaded."""
    check_made(output)
    check_known(write, get_args(Written), "choice of documents to write")
    if judge is not None:
        parse_verdict(judge, threshold)
    if index is not None:
        open_index(index).require_complete()


def check_made(output: Path) -> None:
    """`InputError` where no directory of queries could be made."""
    if not output.parent.is_dir():
        raise InputError(f"there is no directory {output.parent} to make {output.name} in")
    if output.is_symlink() or output.name in ("", ".."):
        raise InputError(f"{output} cannot be replaced by what is made: name a new directory, not a link or `.`")
    check_directory(output.parent)
    if output.is_file():
        raise InputError(f"{output} is a file: name a new directory")


def _find_finished(output: Path, about: Mapping[str, Any]) -> SyntheticCollection | None:
    """What an earlier call has finished; `InputError` for anything else that is not an empty directory."""
    if not os.path.lexists(output) or (output.is_dir() and not any(output.iterdir())):
        return None
    other = ""
    try:
        card, cost = read_json(output / CARD), read_json(output / COST)
        if card.items() >= about.items():
            return SyntheticCollection(output, card, cost)
        other = f" ({', '.join(_list_changed(about, card))})"
    except (InputError, AttributeError):
        pass
    raise InputError(f"{output} is there already, and was made otherwise{other}: name another directory, or remove it")


def _list_changed(about: Mapping[str, Any], card: Mapping[str, Any]) -> Iterator[str]:
    """The names of options that a card has otherwise."""
    for key, value in about.items():
        was = card.get(key)
        if key in ("selection", "asked") and isinstance(was, dict):
            yield from (part for part in dict.fromkeys([*value, *was]) if value.get(part) != was.get(part))
        elif was != value:
            yield key


def _is_as_read(files: str | None, output: Path) -> bool:
    """Whether the files of a collection are those that a finished result was made of, by their digest."""
    with suppress(InputError, KeyError, TypeError):
        return files is not None and bool(read_json(output / READ)["files"] == files)
    return False
