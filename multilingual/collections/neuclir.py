"""NeuCLIR 2022 to 2024 (TREC), HC4 and HC3: the organisers' documents, topics and judgements, in one or more languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import InputError, list_few, unknown_name
from ...items import Item
from ...runs import read_qrels
from ..languages import parse_language
from .base import MissingPart
from .files import DatasetFiles, read_all_lines
from .published import PublishedCollection
from .records import join_title, parse_record, read_id, read_text
from .topics import Source, parse_fields, read_topic, select_language

# The track's and HC4's own figures; of HC3 (tweets, which vanish) every copy has another number.
NEWS = {"zho": 3_179_209, "fas": 2_232_016, "rus": 4_627_543}
HC4_NEWS = {"zho": 646_305, "fas": 486_486, "rus": 4_721_064}

_CORE = frozenset(["id", "doc_id", "text", "abstract", "lang", "tweets"])
Names = Mapping[str, str | None]  # option -> the file that the user names for it


class Track(PublishedCollection):
    """Collections in the track's formats.

    Documents are JSON lines, plain or gz (`id, title, text, url, time` or `date`, `cc_file`; of abstracts `doc_id,
    title, abstract`), a file a language. Topics are JSON lines with their wordings in several languages; only those
    that are meant for one of the collection's languages are taken (all, where a topic does not say). Judgements are
    a TREC file a language, or NIST's combined file, whose column 2 tells the language.
    """

    # Patterns of files, with `{lang}` and `{split}` filled in; the first that finds any wins.
    doc_files: tuple[str, ...]
    topic_files: tuple[str, ...]
    qrels_files: tuple[str, ...]
    combined_files: tuple[str, ...]

    def __init__(
        self,
        name: str,
        where: str,
        langs: tuple[str, ...],
        split: str,
        given: Names,
        *,
        sample: bool,
        skip_bad: bool,
    ) -> None:
        super().__init__(
            name, DatasetFiles(where, usage=self.usage), frozenset(langs), sample=sample, skip_bad=skip_bad
        )
        if self.files.root is None:
            raise InputError(f"the organisers' files are needed in a directory: {self.usage}")
        self._order, self._split, self._given = langs, split, given

    def _doc_rows(self) -> Iterator[tuple[str, Any]]:
        return chain.from_iterable(self._language(lang) for lang in self._order)

    def _language(self, lang: str) -> Iterator[tuple[str, Any]]:
        if given := self._given.get("docs"):
            if len(self._order) > 1:
                raise InputError(
                    f"docs={given} can be the documents of one language only, not of {len(self._order)}"
                )
            paths = [self.files.named(given)]
        else:
            paths = self.files.all(*self._filled(self.doc_files, lang))
        return ((place, (lang, line)) for place, line in read_all_lines(paths))

    def _document(self, row: tuple[str, bytes]) -> Item:
        lang, line = row
        record = parse_record(line)
        text = read_text(record, "text") if record.get("text") is not None else read_text(record, "abstract")
        title = read_text(record, "title")
        meta = {
            key: value
            for key, value in record.items()
            if key not in _CORE and value is not None and value != ""
        }
        if "time" not in meta and "date" in meta:
            meta["time"] = meta.pop("date")
        item = Item(
            read_id(record, "id" if "id" in record else "doc_id"), join_title(title, text), None, lang, meta
        )
        if not item.modalities:
            raise InputError(f"document {item.id!r} has no text")
        return item

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The topics as queries, worded as `Directory.queries` says; narratives are those of the collection's languages.

        `InputError` where no topic is meant for any of these languages.
        """
        wanted, code = parse_fields(fields), None if lang is None else parse_language(lang)
        if source is not None and source not in get_args(Source):
            raise unknown_name(source, get_args(Source), "source")
        path = self._topics()
        elsewhere: set[str] = set()

        def query(line: bytes) -> Item | None:
            record = parse_record(line)
            meant = record.get("languages_with_qrels")
            known = (
                {parse_language(each) for each in meant if isinstance(each, str)}
                if isinstance(meant, list)
                else set()
            )
            if known and not known & self.langs:
                elsewhere.update(known)
                return None
            if "topics" not in record:
                raise InputError("not a topic of the track: it has no `topics`")
            return read_topic(record, wanted, code, source, self.langs)

        found = list(self._reader.items("topics", read_all_lines([path]), query))
        if not found and elsewhere:
            raise InputError(
                f"{path}: no topic is meant for {', '.join(self._order)}, only for {list_few(sorted(elsewhere), 8)}"
            )
        return select_language(code, found, f"{path}: no topics", source)

    def judged_langs(self) -> Mapping[str, str]:
        """The language of judged documents: column 2 of NIST's combined file, or whose file judges them."""
        return self._judgements()[1]

    def _judged(self) -> dict[str, dict[str, int]]:
        return self._judgements()[0]

    def _judgements(self) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
        if given := self._given.get("qrels"):
            return self._combined(self.files.named(given), whole=False)
        parts = {lang: self.files.any(*self._filled(self.qrels_files, lang)) for lang in self._order}
        lacking = [lang for lang, paths in parts.items() if not paths]
        if not lacking:
            merged: dict[str, dict[str, int]] = {}
            langs: dict[str, str] = {}
            for lang, paths in parts.items():
                for topic, grades in read_qrels(paths[0])[0].items():
                    merged.setdefault(topic, {}).update(grades)
                    langs |= dict.fromkeys(grades, lang)
            return merged, langs
        if combined := self.files.any(*self._filled(self.combined_files, "")):
            return self._combined(combined[0], whole=True)
        raise MissingPart(
            f"no judgements for {', '.join(lacking)} in {self.files}, none of "
            f"{', '.join(self._filled((*self.qrels_files, *self.combined_files), lacking[0]))}; "
            "qrels=FILE names another"
        )

    def _combined(self, path: Path, *, whole: bool) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
        """One file for several languages; `whole`: it judges all of the track's, whatever the collection has."""
        grades, columns = read_qrels(path)
        langs = {doc: parse_language(lang) for doc, lang in columns.items()}
        if not langs:
            if whole and len(self._order) < len(NEWS):
                raise InputError(
                    f"{path} judges all languages and its column 2 does not tell which: "
                    f"give the file for {', '.join(self._order)}, qrels=FILE"
                )
            return grades, {}
        kept = {
            topic: {doc: grade for doc, grade in judged.items() if langs.get(doc) in self.langs}
            for topic, judged in grades.items()
        }
        kept = {topic: judged for topic, judged in kept.items() if judged}
        if not kept:
            raise InputError(
                f"{path} has judgements in {list_few(sorted(set(langs.values())), 8)}, none in {', '.join(self._order)}"
            )
        return kept, {doc: lang for doc, lang in langs.items() if lang in self.langs}

    def _topics(self) -> Path:
        if given := self._given.get("topics"):
            return self.files.named(given)
        patterns = self._filled(self.topic_files, "")
        found = self.files.any(*patterns)
        if not found:
            raise MissingPart(
                f"no topics in {self.files}, none of {', '.join(patterns)}; topics=FILE names another"
            )
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1]} could both be the topics: say which, topics=FILE")
        return found[0]

    def _filled(self, patterns: tuple[str, ...], lang: str) -> tuple[str, ...]:
        return tuple(pattern.format(lang=lang, split=self._split) for pattern in patterns)


class NeuCLIR(Track):
    """`neuclir:DIR?year=2023&lang=zho`: the TREC track's collection of a year; `lang=zho,fas,rus` or `mlir` is MLIR.

    `task=technical` are the Chinese abstracts (CSL). Topics and judgements are found by the names that NIST gives
    them (of 2024 by the year in the name); `docs`, `topics` and `qrels` name others. Of judgements the files of one
    language go before a combined one, which does not tell the documents' languages in 2023.
    """

    usage = "write neuclir:DIR?year=2023&lang=zho, where DIR holds zho/docs.jsonl, the topics and the qrels"
    doc_files: tuple[str, ...] = (
        "{lang}/docs.jsonl", "{lang}/docs.jsonl.gz", "{lang}-*-of-*.jsonl.gz", "docs.{lang}.jsonl", "docs.{lang}.jsonl.gz",
    )  # fmt: skip

    def __init__(
        self, where: str, *, year: Literal["2022", "2023", "2024"], lang: str = "mlir",
        task: Literal["news", "technical"] = "news", docs: str | None = None, topics: str | None = None,
        qrels: str | None = None, sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        technical = task == "technical"
        if technical and year == "2022":
            raise InputError("NeuCLIR 2022 had no technical documents: year=2023 or 2024")
        langs = (
            ("zho",)
            if technical and lang == "mlir"
            else _languages(lang, ("zho",) if technical else tuple(NEWS))
        )
        name = f"neuclir-{year}-{'technical' if technical else 'mlir' if len(langs) > 1 else langs[0]}"
        given = {"docs": docs, "topics": topics, "qrels": qrels}
        super().__init__(name, where, langs, year, given, sample=sample, skip_bad=skip_bad)
        if technical:
            self.doc_files = (
                "csl_data.release.jsonl",
                "csl_data.release.jsonl.gz",
                "csl/docs.jsonl",
                "csl/docs.jsonl.gz",
            )
            self.topic_files = ("*{split}*tech*topics*.jsonl",)
            self.qrels_files = (
                "*{split}*tech*qrels*.txt",
                "tech_final_qrels.txt",
                "{split}/tech_final_qrels.txt",
            )
            self.combined_files = ()
            return
        self.published = {each: NEWS[each] for each in langs}
        old = year == "2022"
        self.topic_files = (
            ("topics.0720.utf8.jsonl",) if old else ("*{split}-topics*.jsonl", "{split}/topics*.jsonl")
        )
        tails = ("2022-qrels.{lang}",) if old else (
            "{split}/qrels.final.gains.{lang}", "*{split}*qrels*.{lang}", "*{split}*qrels.{lang}*", "qrels.final.gains.{lang}",
        )  # fmt: skip
        self.qrels_files = tails
        self.combined_files = ("2022-qrels.all",) if old else (
            "{split}/qrels.final.gains", "*{split}*qrels*.all", "*{split}*qrels*gains", "qrels.final.gains",
        )  # fmt: skip


class HC4(Track):
    """`hc4:DIR?lang=rus[&split=test]`: HC4 (Lawrie et al., ECIR 2022), news; `lang=mlir` is all three languages."""

    usage = "write hc4:DIR?lang=zho, where DIR holds zho/hc4_docs.jsonl, test.topics.v1-0.jsonl and zho/test.qrels.v1-0.txt"
    doc_files: tuple[str, ...] = (
        "{lang}/hc4_docs.jsonl", "{lang}/hc4_docs.jsonl.gz", "{lang}-*-of-*.jsonl.gz", "{lang}/docs.jsonl", "{lang}/docs.jsonl.gz",
    )  # fmt: skip

    def __init__(
        self, where: str, *, lang: str = "mlir", split: Literal["train", "dev", "test"] = "test",
        docs: str | None = None, topics: str | None = None, qrels: str | None = None,
        sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        langs = _languages(lang, tuple(HC4_NEWS))
        name = f"hc4-{'mlir' if len(langs) > 1 else langs[0]}-{split}"
        given = {"docs": docs, "topics": topics, "qrels": qrels}
        super().__init__(name, where, langs, split, given, sample=sample, skip_bad=skip_bad)
        self.published = {each: HC4_NEWS[each] for each in langs}
        self.topic_files = ("{split}.topics.v1-*.jsonl",)
        self.qrels_files = ("{lang}/{split}.qrels.v1-*.txt",)
        self.combined_files = ()


class HC3(Track):
    """`hc3:DIR?lang=fas[&split=eval]`: HC3 (Lawrie et al., SIGIR 2023), conversations of tweets in Chinese and Persian.

    Tweets vanish, so hardly a copy is complete: with `sample=true` judgements of lost conversations are left out, as
    the organisers' filter_docs.py does.
    """

    usage = "write hc3:DIR?lang=fas, where DIR holds fas.docs.jsonl, eval.topics.jsonl and fas.eval.qrels"
    doc_files: tuple[str, ...] = (
        "{lang}.docs.jsonl",
        "{lang}.docs.jsonl.gz",
        "{lang}/docs.jsonl",
        "{lang}/docs.jsonl.gz",
    )

    def __init__(
        self, where: str, *, lang: str = "mlir", split: Literal["train", "eval"] = "eval",
        docs: str | None = None, topics: str | None = None, qrels: str | None = None,
        sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        langs = _languages(lang, ("zho", "fas"))
        name = f"hc3-{'mlir' if len(langs) > 1 else langs[0]}-{split}"
        given = {"docs": docs, "topics": topics, "qrels": qrels}
        super().__init__(name, where, langs, split, given, sample=sample, skip_bad=skip_bad)
        self.topic_files = ("{split}.topics.jsonl",)
        self.qrels_files = ("{lang}.{split}.qrels",)
        self.combined_files = ()


def _languages(given: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """`zho,fas` in the track's order; `mlir` is all of them."""
    if given == "mlir":
        return known
    codes = {parse_language(each) for each in given.split(",")}
    if unknown := sorted(codes - set(known)):
        raise unknown_name(unknown[0], (*known, "mlir"), "language of the collection")
    return tuple(lang for lang in known if lang in codes)
