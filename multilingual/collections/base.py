"""Collections: documents, topics and judgements from a directory, from ir_datasets, or built in (`demo`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, get_args, runtime_checkable

from ...errors import InputError, list_few, unknown_name
from ...items import Item
from ...runs import Documents, Qrels, read_qrels
from ..languages import iso, with_languages
from .records import (
    Reader,
    lang_of,
    located,
    needed_text,
    read_id,
    read_image,
    read_record,
    read_text,
    titled,
)
from .topics import Source, parsed_fields, topic_query

# What of ir_datasets (0.6.3) does not work and is read here from the organisers' files: 2023's topics of one
# language come back empty, 2024's are not there, and documents that say `date` for `time` cannot be read.
_OURS = {"neuclir": "neuclir:DIR?year={year}&lang=zho", "hc4": "hc4:DIR?lang=zho"}
DOCUMENTS = (".jsonl", ".jsonl.gz")  # how a file of documents ends
_NOT_META = frozenset(["id", "text", "image", "lang"])


@dataclass(frozen=True)
class Counts:
    """What `check` found; `langs` counts documents by language (`""`: not given), `skipped` bad lines."""

    documents: int
    langs: Mapping[str, int]
    images: int
    queries: int
    judged: int = 0
    relevant: int = 0
    skipped: int = 0


class Lacking(InputError):
    """The collection has no topics, or no judgements."""


@runtime_checkable
class Collection(Protocol):
    """Documents, queries and judgements that belong together.

    `queries` takes what NeuCLIR topics offer: `fields` ("title+description"), `lang` (of the query) and
    `source`; None means the collection's own choice. `qrels` and `queries` raise `Lacking`, an `InputError`,
    where there are none.
    """

    @property
    def name(self) -> str: ...

    @property
    def langs(self) -> frozenset[str]: ...

    def docs(self) -> Iterator[Item]: ...

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> Iterable[Item]: ...

    def qrels(self) -> Qrels: ...

    def check(self) -> Counts:
        """Read everything once and count it; `InputError` on what does not fit together."""
        ...


def load(name: str | Path, *, skip_bad: bool = False) -> Collection:
    """The collection `demo`, `irds:<ir_datasets id>`, a directory, or publishers' files: `family:WHERE[?key=value]`.

    A directory holds docs.jsonl, or BEIR's corpus.jsonl; a file of JSON lines is a collection of documents alone. The families (`neuclir:DIR?year=2023&lang=zho`) are
    those of `adapters`. With `skip_bad` malformed lines are counted in `skipped` and left out, instead of
    being errors.
    """
    from . import families as adapters

    if name == "demo":
        from ...demo import Demo

        return Demo()
    if isinstance(name, str) and name.startswith("irds:"):
        return IRDatasets(name.removeprefix("irds:"))
    root = Path(name)
    if isinstance(name, str) and not root.exists() and adapters.is_spec(name):
        return adapters.load(name, skip_bad=skip_bad)
    return adapters.beir_at(root, skip_bad=skip_bad) or Directory(root, skip_bad=skip_bad)


class Directory:
    """A directory with `docs.jsonl[.gz]` and, for experiments, `topics.jsonl[.gz]` and `qrels.txt`.

    Documents are NeuCLIR's or HC4's (`id, title, text, url, time` or `date`, `cc_file`), with optional `lang`
    and `image`, a path relative to the directory that may not leave it. The item's text is title, newline,
    text; all other keys go to `meta`, the title too. Topics are NeuCLIR's, HC4's, or flat: `{"id", "text",
    "image", "lang", ...}`. Files are streamed; of documents already read only a 64-bit hash of the id is
    kept. `InputError` names file and line; with `skip_bad` such lines are counted in `skipped`, and
    `problems` says what was wrong with the first ten. In place of the directory `root` may be a file of documents,
    which then has no topics and no judgements; its pictures lie beside it.
    """

    def __init__(self, root: Path, *, skip_bad: bool = False) -> None:
        alone = root.is_file() and root.name.endswith(DOCUMENTS)
        if not root.is_dir() and not alone:
            what = (
                f"is a file, and not one of {' or '.join(DOCUMENTS)}" if root.exists() else "does not exist"
            )
            raise InputError(
                f"the collection {root} {what}; give a directory with docs.jsonl, or `demo`, or `irds:ID`"
            )
        self.root = root.parent.resolve() if alone else root.resolve()
        self.name = root.resolve().name
        self.skip_bad = skip_bad
        self._alone = alone
        self._reader = Reader(skip_bad)
        self._docs = root.resolve() if alone else self._file("docs")
        if self._docs is None:
            raise InputError(
                f"no docs.jsonl or docs.jsonl.gz in {root}; one JSON object a line with id and text"
            )

    @property
    def skipped(self) -> int:
        """How many bad lines the latest passes over documents and topics left out."""
        return self._reader.skipped

    @property
    def problems(self) -> list[str]:
        """What was wrong with the first of them."""
        return self._reader.problems

    @cached_property
    def langs(self) -> frozenset[str]:
        """The languages that documents declare; reads the whole file once."""
        return frozenset(item.lang for item in self.docs() if item.lang)

    def docs(self) -> Iterator[Item]:
        """The documents in the order of the file; `lang` stays None where the file has none."""
        assert self._docs is not None
        return self._items(self._docs, self._document)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The topics as queries.

        `fields` joins title, description and narrative with `+` (of NeuCLIR topics title+description unless
        said; flat topics have their text). `lang` picks the wording in that language, the original before a
        human before a machine translation unless `source` says which; topics that are not meant for that
        language (it is not among their `languages_with_qrels`) are left out. Flat topics are left out by
        their `lang`. HC4 keeps a narrative per document language: the query language's is used, else all; of
        its four grades only the valuable. `InputError` names a topic without the field, or without a wording
        that it should have.
        """
        wanted = parsed_fields(fields)
        if source is not None and source not in get_args(Source):
            raise unknown_name(source, get_args(Source), "source")
        code = None if lang is None else iso(lang)
        path = self._file("topics")
        if path is None:
            raise Lacking(f"the collection {self._where} has no topics.jsonl or topics.jsonl.gz")

        def query(record: dict[str, Any]) -> Item | None:
            if "topics" in record:
                return topic_query(record, wanted, code, source)
            return self._flat(record, wanted, source)

        return topics_in(code, self._items(path, query), f"{path}: no topics", source)

    def qrels(self) -> Qrels:
        """The judgements of `qrels.txt`: query id -> document id -> grade."""
        return read_qrels(self._qrels())[0]

    def judged_langs(self) -> Mapping[str, str]:
        """The language of judged documents, where column 2 of the qrels tells it (NIST's NeuCLIR file)."""
        return {doc: iso(lang) for doc, lang in read_qrels(self._qrels())[1].items()}

    def check(self) -> Counts:
        """Read everything once and count it; `InputError` on no documents, or judgements of unknown ids."""
        topics = self.queries() if self._file("topics") else []
        qrels = self.qrels() if not self._alone and (self.root / "qrels.txt").exists() else {}
        counts = checked(self.docs(), topics, qrels, str(self._where))
        return Counts(**{**vars(counts), "skipped": self.skipped})

    def _qrels(self) -> Path:
        path = self.root / "qrels.txt"
        if self._alone or not path.exists():
            raise Lacking(f"the collection {self._where} has no qrels.txt")
        return path

    @property
    def _where(self) -> Path:
        return self._docs if self._alone and self._docs else self.root

    def _file(self, stem: str) -> Path | None:
        if self._alone:
            return None
        found = [
            path for path in (self.root / f"{stem}.jsonl", self.root / f"{stem}.jsonl.gz") if path.exists()
        ]
        if len(found) > 1:
            raise InputError(f"{self.root} has both {stem}.jsonl and {stem}.jsonl.gz; keep one")
        return found[0] if found else None

    def _items(self, path: Path, read: Callable[[dict[str, Any]], Item | None]) -> Iterator[Item]:
        return self._reader.items(str(path), located(path), lambda line: read(read_record(line)))

    def _document(self, record: dict[str, Any]) -> Item:
        text = titled(read_text(record, "title"), read_text(record, "text"))
        meta = {key: value for key, value in record.items() if key not in _NOT_META and value is not None}
        if "time" not in meta and "date" in meta:
            meta["time"] = meta.pop("date")
        item = Item(
            read_id(record, "id"), text, read_image(record, "image", self.root), lang_of(record), meta
        )
        if not item.modalities:
            raise InputError(f"document {item.id!r} has neither text nor an image")
        return item

    def _flat(self, record: dict[str, Any], wanted: tuple[str, ...], source: Source | None) -> Item | None:
        id = read_id(record, "id")
        if source not in (None, "original"):
            raise InputError(f"topic {id!r} has no {source} translation: it is not in NeuCLIR's form")
        parts: list[str | None] = [needed_text(record, key, key, id) for key in wanted]
        parts = parts or [read_text(record, "text")]
        meta = {key: value for key, value in record.items() if key not in _NOT_META and value is not None}
        text = "\n".join(part for part in parts if part) or None
        item = Item(id, text, read_image(record, "image", self.root), lang_of(record), meta)
        if not item.modalities:
            raise InputError(f"topic {id!r} has neither text nor an image")
        return item


class IRDatasets:
    """A collection of ir_datasets, `irds:<id>`; its text is ir_datasets' `default_text` where it has one."""

    def __init__(self, id: str) -> None:
        try:
            import ir_datasets
        except ImportError:
            raise InputError(f"the collection irds:{id} needs ir_datasets: pip install ir_datasets") from None
        try:
            self._dataset = ir_datasets.load(id)
        except KeyError:
            raise InputError(
                f"ir_datasets has no collection {id!r}{_ours(id) or '; `ir_datasets list` shows its names'}"
            ) from None
        self.name = f"irds:{id}"
        self._ours = _ours(id)

    @property
    def langs(self) -> frozenset[str]:
        lang = self._lang("docs_lang")
        return frozenset([lang] if lang else [])

    def docs(self) -> Iterator[Item]:
        """The documents, in ir_datasets' order; the first call may download."""
        self._needs("docs")
        lang = self._lang("docs_lang")
        for doc in self._read_docs():
            meta = {
                key: value for key, value in _scalars(doc).items() if key not in ("doc_id", "text", "lang")
            }
            own = getattr(doc, "lang", None)
            yield Item(doc.doc_id, _default_text(doc), None, iso(own) if own else lang, meta)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The queries; `source` picks the translations that NeuCLIR queries carry there as ht_ and mt_."""
        self._needs("queries")
        wanted = parsed_fields(fields)
        prefix = {"human": "ht_", "machine": "mt_"}.get(source or "", "")
        if not wanted and {"title", "description"} <= set(self._dataset.queries_cls()._fields):
            wanted = ("title", "description")  # as NeuCLIR's own runs, and as `Directory` reads such topics
        if prefix and not any(key.startswith(prefix) for key in self._dataset.queries_cls()._fields):
            raise InputError(f"{self.name} has no {source} translations of its queries{self._ours}")
        queries = []
        for query in self._dataset.queries_iter():
            parts = [needed_text(query._asdict(), prefix + key, key, query.query_id) for key in wanted]
            translated = getattr(query, "translation_lang", None)
            # The originals of NeuCLIR's and HC4's topics are English; ir_datasets does not say so.
            own = translated if prefix else "eng" if translated else self._lang("queries_lang")
            text = "\n".join(parts) if wanted else _default_text(query)
            queries.append(Item(query.query_id, text, None, iso(own) if own else None))
        if not queries and self._ours:
            raise InputError(f"{self.name} has no queries: ir_datasets loses them{self._ours}")
        return topics_in(lang, queries, f"{self.name} has no queries", source)

    def qrels(self) -> Qrels:
        self._needs("qrels")
        qrels: dict[str, dict[str, int]] = {}
        for qrel in self._dataset.qrels_iter():
            qrels.setdefault(qrel.query_id, {})[qrel.doc_id] = int(qrel.relevance)
        return qrels

    def check(self) -> Counts:
        """As `Directory.check`; also `InputError` where ir_datasets' own count of documents is another."""
        topics = self.queries() if self._dataset.has_queries() else []
        qrels = self.qrels() if self._dataset.has_qrels() else {}
        counts = checked(self.docs(), topics, qrels, self.name)
        expected = self._dataset.docs_count()
        if expected is not None and expected != counts.documents:
            raise InputError(f"{self.name} has {counts.documents} documents, but {expected} were expected")
        return counts

    def _read_docs(self) -> Iterator[Any]:
        try:
            yield from self._dataset.docs_iter()
        except TypeError as error:  # its records take exactly the fields that it knows
            if not self._ours:
                raise
            raise InputError(f"ir_datasets cannot read {self.name} ({error}){self._ours}") from None

    def _lang(self, which: str) -> str | None:
        lang = getattr(self._dataset, which, lambda: None)()
        return iso(lang) if lang else None

    def _needs(self, what: str) -> None:
        if not getattr(self._dataset, f"has_{what}")():
            raise Lacking(f"{self.name} has no {what}")


@dataclass(frozen=True)
class Held:
    """Items held in memory, as `Documents`."""

    items: Mapping[str, Item] = field(repr=False)

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The items of `ids`, in that order; `InputError` naming ids that are not there."""
        if lacking := [id for id in ids if id not in self.items]:
            raise InputError(f"no documents with the ids {list_few(lacking)}")
        return [self.items[id] for id in ids]


def documents(collection: Collection, ids: Iterable[str]) -> Documents:
    """The documents `ids` of a collection, read in one pass, for rerankers; `InputError` on unknown ids."""
    wanted = set(ids)
    held: dict[str, Item] = {}
    for item in collection.docs():
        if item.id in wanted:
            held[item.id] = item
            if len(held) == len(wanted):
                break
    if lacking := sorted(wanted - held.keys()):
        raise InputError(
            f"{len(lacking)} of {len(wanted)} documents are not in the collection {collection.name}: {list_few(lacking)}"
        )
    return Held(held)


def topics_in(lang: str | None, queries: Iterable[Item], none: str, source: str | None = None) -> list[Item]:
    """The queries in a language (None: all); if there are none, `InputError` that begins with `none`.

    It names the languages that there are.
    """
    listed = list(queries)
    found = list(in_language(listed, lang))
    if not found:
        others = sorted({query.lang for query in with_languages(listed) if query.lang})
        raise InputError(
            none
            + (f" in {iso(lang)}" if lang else "")
            + (f" ({source})" if source else "")
            + (f", only in {list_few(others, 8)}" if others else "")
        )
    return found


def in_language(queries: Iterable[Item], lang: str | None) -> Iterator[Item]:
    """The queries whose language, given or identified, is `lang` (see `iso`); all of them for None."""
    if lang is None:
        yield from queries
    else:
        code = iso(lang)
        yield from (query for query in with_languages(queries) if query.lang == code)


def checked(
    docs: Iterable[Item],
    topics: Iterable[Item],
    qrels: Qrels,
    where: str,
    published: Mapping[str, int] = MappingProxyType({}),
) -> Counts:
    """Counts of a collection; `InputError` on no documents, or judgements of unknown topics or documents.

    Also on another number of documents in a language than was `published` (both are named), and where all
    documents have a language and no topic is meant for any of them.
    """
    topics = list(topics)
    known = {topic.id for topic in topics}
    judged = {doc for grades in qrels.values() for doc in grades}
    unknown = set(judged)
    langs: Counter[str] = Counter()
    images = 0
    for doc in docs:
        langs[doc.lang or ""] += 1
        images += doc.image is not None
        unknown.discard(doc.id)
    if not langs:
        raise InputError(f"{where} has no documents")
    for lang, expected in published.items():
        if langs[lang] != expected:
            raise InputError(
                f"{where} has {langs[lang]:,} documents{' in ' * bool(lang)}{lang}, but {expected:,} were published: "
                "complete the files, or add sample=true to use what is there"
            )
    if "" not in langs:
        check_meant(topics, langs, where)
    if strangers := [topic for topic in qrels if topic not in known]:
        raise InputError(f"the qrels of {where} judge topics that it does not have: {list_few(strangers)}")
    if unknown:
        raise InputError(
            f"the qrels of {where} judge documents that it does not have: {list_few(sorted(unknown))}"
        )
    return Counts(
        documents=langs.total(),
        langs=dict(langs.most_common()),
        images=images,
        queries=len(known),
        judged=sum(len(grades) for grades in qrels.values()),
        relevant=sum(grade > 0 for grades in qrels.values() for grade in grades.values()),
    )


def check_meant(topics: Iterable[Item], langs: Iterable[str], where: str) -> None:
    """`InputError` where topics say which languages they are meant for, and no document is in any of them."""
    meant = {lang for topic in topics for lang in _meant(topic)}
    if meant and meant.isdisjoint(langs):
        raise InputError(
            f"{where}: the topics are meant for documents in {list_few(sorted(meant), 8)}, "
            f"but its documents are in {list_few(sorted(langs), 8)}"
        )


def _ours(id: str) -> str:
    """What of ours to use in place of a collection of ir_datasets that fails: `; ...`, else nothing."""
    family = id.partition("/")[0]
    if family not in _OURS:
        return ""
    year = re.search(r"trec-(20\d\d)", id)
    return f"; read the organisers' files instead: {_OURS[family].format(year=year[1] if year else 2023)}"


def _meant(topic: Item) -> list[str]:
    langs = topic.meta.get("languages_with_qrels")
    return langs if isinstance(langs, list) else []


def _scalars(record: Any) -> dict[str, object]:
    return {
        key: value for key, value in record._asdict().items() if isinstance(value, str | int | float | bool)
    }


def _default_text(record: Any) -> str:
    if hasattr(record, "default_text"):
        return str(record.default_text())
    held = record._asdict()
    for keys in (("title", "text"), ("title", "body"), ("text",), ("query",), ("contents",)):
        if all(isinstance(held.get(key), str) for key in keys):
            return "\n".join(held[key] for key in keys if held[key])
    raise InputError(f"{type(record).__name__} of ir_datasets has no text that crosslens knows of")
