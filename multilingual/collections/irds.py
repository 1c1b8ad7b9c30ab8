"""Collections of ir_datasets, `irds:ID`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ...errors import InputError
from ...items import Item
from ...rows.fields import FileRow
from ...runs import Qrels, check_grade
from ..languages import parse_language
from .base import CollectionCounts, MissingPart, check_collection
from .topics import Source, TopicReader

# What of ir_datasets (0.6.3) does not work and is read here from the organisers' files: 2023's topics of one
# language come back empty, 2024's are not there, and documents that say `date` for `time` cannot be read.
_OURS = {"neuclir": "neuclir:DIR?year={year}&lang=zho", "hc4": "hc4:DIR?lang=zho"}


class IRDatasets:
    """A collection of ir_datasets, `irds:<id>`; its text is ir_datasets' `default_text` where it has one."""

    def __init__(self, id: str) -> None:
        family, year = id.partition("/")[0], re.search(r"trec-(20\d\d)", id)
        self.name = f"irds:{id}"
        self._instead = ""  # what of ours to use where ir_datasets fails
        if family in _OURS:
            ours = _OURS[family].format(year=year[1] if year else 2023)
            self._instead = f"; read the organisers' files instead: {ours}"
        try:
            import ir_datasets

            self._dataset = ir_datasets.load(id)
        except ImportError:
            raise InputError(f"the collection irds:{id} needs ir_datasets: pip install ir_datasets") from None
        except KeyError:
            raise InputError(
                f"ir_datasets has no collection {id!r}{self._instead or '; `ir_datasets list` shows its names'}"
            ) from None

    @property
    def langs(self) -> frozenset[str]:
        lang = self._lang("docs_lang")
        return frozenset([lang] if lang else [])

    def docs(self) -> Iterator[Item]:
        """The documents, in ir_datasets' order; the first call may download."""
        self._require("docs")
        lang = self._lang("docs_lang")
        try:
            for doc in self._dataset.docs_iter():
                own = getattr(doc, "lang", None)
                meta = {
                    key: value
                    for key, value in doc._asdict().items()
                    if key not in ("doc_id", "text", "lang") and isinstance(value, str | int | float | bool)
                }
                yield Item(doc.doc_id, _read_default(doc), None, parse_language(own) if own else lang, meta)
        except TypeError as error:  # its records take exactly the fields that it knows
            if not self._instead:
                raise
            raise InputError(f"ir_datasets cannot read {self.name} ({error}){self._instead}") from None

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The queries; `source` picks the translations that NeuCLIR queries carry there as ht_ and mt_."""
        self._require("queries")
        topics = TopicReader(fields, lang, source)
        there = self._dataset.queries_cls()._fields
        prefix = {"human": "ht_", "machine": "mt_"}.get(source or "", "")
        wanted = topics.fields
        if not wanted and {"title", "description"} <= set(there):
            wanted = ("title", "description")  # as NeuCLIR's own runs, and as `Directory` reads such topics
        if prefix and not any(key.startswith(prefix) for key in there):
            raise InputError(f"{self.name} has no {source} translations of its queries{self._instead}")
        queries = []
        for query in self._dataset.queries_iter():
            id, record = query.query_id, FileRow(query._asdict())
            parts = [record.require_text(prefix + key, "topic", id, key) for key in wanted]
            translated = getattr(query, "translation_lang", None)
            # The originals of NeuCLIR's and HC4's topics are English; ir_datasets does not say so.
            own = translated if prefix else "eng" if translated else self._lang("queries_lang")
            text = "\n".join(parts) if wanted else _read_default(query)
            queries.append(Item(id, text, None, parse_language(own) if own else None))
        if not queries and self._instead:
            raise InputError(f"{self.name} has no queries: ir_datasets loses them{self._instead}")
        return topics.select(queries, f"{self.name} has no queries")

    def qrels(self) -> Qrels:
        self._require("qrels")
        qrels: dict[str, dict[str, int]] = {}
        for qrel in self._dataset.qrels_iter():
            try:
                grade = check_grade(int(qrel.relevance))
            except InputError as error:
                raise InputError(f"{self.name}: {qrel.doc_id!r} for {qrel.query_id!r}: {error}") from None
            qrels.setdefault(qrel.query_id, {})[qrel.doc_id] = grade
        return qrels

    def check(self) -> CollectionCounts:
        """As `Directory.check`; also `InputError` where ir_datasets' own count of documents is another."""
        counts = check_collection(self, self.name)
        expected = self._dataset.docs_count()
        if expected is not None and expected != counts.documents:
            raise InputError(f"{self.name} has {counts.documents} documents, but {expected} were expected")
        return counts

    def _lang(self, which: str) -> str | None:
        lang = getattr(self._dataset, which, lambda: None)()
        return parse_language(lang) if lang else None

    def _require(self, what: str) -> None:
        if not getattr(self._dataset, f"has_{what}")():
            raise MissingPart(f"{self.name} has no {what}")


def _read_default(record: Any) -> str:
    if hasattr(record, "default_text"):
        return str(record.default_text())
    held = record._asdict()
    for keys in (("title", "text"), ("title", "body"), ("text",), ("query",), ("contents",)):
        if all(isinstance(held.get(key), str) for key in keys):
            return "\n".join(held[key] for key in keys if held[key])
    raise InputError(f"{type(record).__name__} of ir_datasets has no text that crosslens knows of")
