"""What NeuCLIR, HC4 and HC3 share: the organisers' documents, topics and judgements, in one or more languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from ...errors import InputError, check_known, list_few
from ...items import Item
from ...runs import read_qrels
from ..languages import parse_language
from .base import MissingPart
from .published import PublishedCollection, Reading
from .records import FileRow, Rows, make_item, read_json_lines
from .topics import Source, TopicReader

_KNOWN = frozenset(["id", "doc_id", "text", "abstract", "lang", "tweets"])
Grades = dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class TrackChoice:
    """Options of all of the track's collections: `lang` is one language, several by commas, or `mlir` for all.

    `docs`, `topics` and `qrels` name files in place of those that are found by their usual names.
    """

    lang: str = "mlir"
    docs: str | None = None
    topics: str | None = None
    qrels: str | None = None


class Track(PublishedCollection):
    """Collections in the track's formats.

    Documents are JSON lines, plain or gz (`id, title, text, url, time` or `date`, `cc_file`; of abstracts `doc_id,
    title, abstract`), a file a language. Topics are JSON lines with their wordings in several languages; only those
    that are meant for one of the collection's languages are taken (all, where a topic does not say). Judgements are
    a TREC file a language, or NIST's combined file, whose column 2 has the language. In patterns `{lang}` and `{split}`
    are filled in.
    """

    not_on_hub = "the organisers' files are needed in a directory"
    all_langs: ClassVar[tuple[str, ...]]  # of the track, whatever the collection has
    combined_files: tuple[str, ...] = ()  # judgements of all languages

    def __init__(
        self, where: str, reading: Reading, choice: TrackChoice, split: str, known: tuple[str, ...] = ()
    ) -> None:
        super().__init__(where, reading)
        known = known or self.all_langs
        wanted = known if choice.lang == "mlir" else [parse_language(each) for each in choice.lang.split(",")]
        for code in sorted(wanted):
            check_known(code, (*known, "mlir"), "language of the collection")
        self.order = tuple(each for each in known if each in wanted)
        self.langs = frozenset(self.order)
        self._choice, self._split = choice, split

    @property
    def scope(self) -> str:
        """The language of the documents, or `mlir` for several."""
        return self.order[0] if len(self.order) == 1 else "mlir"

    def document_rows(self) -> Rows:
        return chain.from_iterable(map(self._read_language, self.order))

    def read_document(self, row: tuple[str, bytes]) -> Item:
        lang, line = row
        record = FileRow.parse(line)
        key = "text" if record.get("text") is not None else "abstract"
        meta = {key: value for key, value in record.read_meta(_KNOWN).items() if value != ""}
        if "time" not in meta and "date" in meta:
            meta["time"] = meta.pop("date")
        id = record.read_id("id" if "id" in record else "doc_id")
        return make_item("document", id, record.join_texts("title", key), {}, lang, meta)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The topics as queries, worded as `Directory.queries` has it; narratives are those of the documents' languages.

        `InputError` where no topic is meant for any of these languages.
        """
        topics = TopicReader(fields, lang, source, self.langs)
        path = self._find_topics()
        found = list(self.read_items("topics", read_json_lines(path), topics.read))
        if not found and topics.elsewhere:
            raise InputError(
                f"{path}: no topic is meant for {', '.join(self.order)}, "
                f"only for {list_few(sorted(topics.elsewhere), 8)}"
            )
        return topics.select(found, f"{path}: no topics")

    def published_qrels(self) -> Grades:
        return self._read_judgements()[0]

    def judged_langs(self) -> Mapping[str, str]:
        """The language of judged documents: column 2 of NIST's combined file, or whose file judges them."""
        return self._read_judgements()[1]

    def _read_language(self, lang: str) -> Iterator[tuple[str, Any]]:
        if given := self._choice.docs:
            if len(self.order) > 1:
                raise InputError(f"docs={given} can be the documents of one language only, not of {len(self.order)}")
            paths = [self.files.get_named(given)]
        else:
            paths = self.files.get_all(*self._fill(self.doc_files, lang))
        return ((place, (lang, line)) for place, line in read_json_lines(*paths))

    def _find_topics(self) -> Path:
        if given := self._choice.topics:
            return self.files.get_named(given)
        patterns = self._fill(self.topic_files)
        found = self.files.find(*patterns)
        if not found:
            raise MissingPart(f"no topics in {self.files}, none of {', '.join(patterns)}; topics=FILE names another")
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1]} could both be the topics: say which, topics=FILE")
        return found[0]

    def _read_judgements(self) -> tuple[Grades, dict[str, str]]:
        """The grades, and the languages of the judged documents."""
        if given := self._choice.qrels:
            return self._read_combined(self.files.get_named(given), whole=False)
        parts = {lang: self.files.find(*self._fill(self.qrels_files, lang)) for lang in self.order}
        lacking = [lang for lang, paths in parts.items() if not paths]
        if not lacking:
            merged: Grades = {}
            langs: dict[str, str] = {}
            for lang, (path, *_) in parts.items():
                for topic, grades in read_qrels(path)[0].items():
                    merged.setdefault(topic, {}).update(grades)
                    langs |= dict.fromkeys(grades, lang)
            return merged, langs
        if combined := self.files.find(*self._fill(self.combined_files)):
            return self._read_combined(combined[0], whole=True)
        raise MissingPart(
            f"no judgements for {', '.join(lacking)} in {self.files}, none of "
            f"{', '.join(self._fill((*self.qrels_files, *self.combined_files), lacking[0]))}; "
            "qrels=FILE names another"
        )

    def _read_combined(self, path: Path, *, whole: bool) -> tuple[Grades, dict[str, str]]:
        """One file for several languages; `whole`: it judges all of the track's, whatever the collection has."""
        grades, columns = read_qrels(path)
        langs = {doc: parse_language(lang) for doc, lang in columns.items()}
        if not langs:
            if whole and len(self.order) < len(self.all_langs):
                raise InputError(
                    f"{path} judges all languages and its column 2 does not say which: "
                    f"give the file for {', '.join(self.order)}, qrels=FILE"
                )
            return grades, {}
        kept = {
            topic: own
            for topic, judged in grades.items()
            if (own := {doc: grade for doc, grade in judged.items() if langs.get(doc) in self.langs})
        }
        if not kept:
            raise InputError(
                f"{path} has judgements in {list_few(sorted(set(langs.values())), 8)}, none in {', '.join(self.order)}"
            )
        return kept, {doc: lang for doc, lang in langs.items() if lang in self.langs}

    def _fill(self, patterns: tuple[str, ...], lang: str = "") -> tuple[str, ...]:
        return tuple(pattern.format(lang=lang, split=self._split) for pattern in patterns)
