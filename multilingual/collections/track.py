"""NeuCLIR, HC4 and HC3: the organisers' documents, topics and judgements, in one or more languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

from ...errors import InputError, check_known, list_few
from ...items import Item
from ...rows.fields import FileRow, make_item
from ...runs import read_qrels
from ..languages import parse_language
from .base import MissingPart
from .published import PublishedCollection, Reading
from .records import Rows, read_json_lines
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
    documents: ClassVar[Mapping[str, int | None]]  # in the track's languages, by its organisers' own figures
    combined_files: tuple[str, ...] = ()  # judgements of all languages

    def __init__(
        self, where: str, reading: Reading, choice: TrackChoice, split: str, known: tuple[str, ...] = ()
    ) -> None:
        super().__init__(where, reading)
        known = known or tuple(self.documents)
        wanted = known if choice.lang == "mlir" else [parse_language(each) for each in choice.lang.split(",")]
        for code in sorted(wanted):
            check_known(code, (*known, "mlir"), "language of the collection")
        self.order = tuple(each for each in known if each in wanted)
        self.langs = frozenset(self.order)
        self.published = {each: number for each in self.order if (number := self.documents[each])}
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
        """The topics as queries, worded as `Directory.queries` has it; narratives are in the documents' languages.

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
            if whole and len(self.order) < len(self.documents):
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


class NeuCLIR(Track):
    """`neuclir:DIR?year=2023&lang=zho`: news of the TREC track, 2022 to 2024; `lang=zho,fas,rus` or `mlir` is MLIR.

    `task=technical` are the Chinese abstracts (CSL). Topics and judgements are found by the names that NIST gives
    them (of 2024 by the year in the name); `docs`, `topics` and `qrels` name others. Of judgements the files of one
    language go before a combined one, which does not give the documents' languages in 2023.
    """

    usage = "write neuclir:DIR?year=2023&lang=zho, where DIR holds zho/docs.jsonl, the topics and the qrels"
    documents: ClassVar = {"zho": 3_179_209, "fas": 2_232_016, "rus": 4_627_543}
    doc_files: tuple[str, ...] = (
        "{lang}/docs.jsonl", "{lang}/docs.jsonl.gz", "{lang}-*-of-*.jsonl.gz", "docs.{lang}.jsonl",
        "docs.{lang}.jsonl.gz",
    )  # fmt: skip
    topic_files: tuple[str, ...] = ("*{split}-topics*.jsonl", "{split}/topics*.jsonl")
    qrels_files: tuple[str, ...] = (
        "{split}/qrels.final.gains.{lang}", "*{split}*qrels*.{lang}", "*{split}*qrels.{lang}*",
        "qrels.final.gains.{lang}",
    )  # fmt: skip
    combined_files: tuple[str, ...] = (
        "{split}/qrels.final.gains", "*{split}*qrels*.all", "*{split}*qrels*gains", "qrels.final.gains",
    )  # fmt: skip

    def __init__(
        self, where: str, *, reading: Reading, choice: TrackChoice, year: Literal["2022", "2023", "2024"],
        task: Literal["news", "technical"] = "news",
    ) -> None:  # fmt: skip
        technical = task == "technical"
        if technical and year == "2022":
            raise InputError("NeuCLIR 2022 had no technical documents: year=2023 or 2024")
        super().__init__(where, reading, choice, year, ("zho",) if technical else ())
        self.name = f"neuclir-{year}-{'technical' if technical else self.scope}"
        if technical:
            self.doc_files = (
                "csl_data.release.jsonl", "csl_data.release.jsonl.gz", "csl/docs.jsonl", "csl/docs.jsonl.gz",
            )  # fmt: skip
            self.topic_files = ("*{split}*tech*topics*.jsonl",)
            self.qrels_files = (
                "*{split}*tech*qrels*.txt", "tech_final_qrels.txt", "{split}/tech_final_qrels.txt",
            )  # fmt: skip
            self.combined_files = ()
            self.published = {}
        elif year == "2022":
            self.topic_files = ("topics.0720.utf8.jsonl",)
            self.qrels_files = ("2022-qrels.{lang}",)
            self.combined_files = ("2022-qrels.all",)


class HC4(Track):
    """`hc4:DIR?lang=rus[&split=test]`: news (Lawrie et al., ECIR 2022); `lang=mlir` is all three languages."""

    usage = (
        "write hc4:DIR?lang=zho, where DIR holds zho/hc4_docs.jsonl, test.topics.v1-0.jsonl and zho/test.qrels.v1-0.txt"
    )
    documents: ClassVar = {"zho": 646_305, "fas": 486_486, "rus": 4_721_064}
    doc_files = (
        "{lang}/hc4_docs.jsonl", "{lang}/hc4_docs.jsonl.gz", "{lang}-*-of-*.jsonl.gz", "{lang}/docs.jsonl",
        "{lang}/docs.jsonl.gz",
    )  # fmt: skip
    topic_files = ("{split}.topics.v1-*.jsonl",)
    qrels_files = ("{lang}/{split}.qrels.v1-*.txt",)

    def __init__(
        self, where: str, *, reading: Reading, choice: TrackChoice, split: Literal["train", "dev", "test"] = "test",
    ) -> None:  # fmt: skip
        super().__init__(where, reading, choice, split)
        self.name = f"hc4-{self.scope}-{split}"


class HC3(Track):
    """`hc3:DIR?lang=fas[&split=eval]`: conversations of tweets (Lawrie et al., SIGIR 2023), the authors' files.

    `lang=mlir` is both languages. Tweets vanish, so hardly a copy is complete, and no figure is published: with
    `sample=true` judgements of lost conversations are left out, as the authors' filter_docs.py does.
    """

    usage = "write hc3:DIR?lang=fas, where DIR holds fas.docs.jsonl, eval.topics.jsonl and fas.eval.qrels"
    documents: ClassVar = {"zho": None, "fas": None}
    doc_files = ("{lang}.docs.jsonl", "{lang}.docs.jsonl.gz", "{lang}/docs.jsonl", "{lang}/docs.jsonl.gz")
    topic_files = ("{split}.topics.jsonl",)
    qrels_files = ("{lang}.{split}.qrels",)

    def __init__(
        self, where: str, *, reading: Reading, choice: TrackChoice, split: Literal["train", "eval"] = "eval"
    ) -> None:
        super().__init__(where, reading, choice, split)
        self.name = f"hc3-{self.scope}-{split}"
