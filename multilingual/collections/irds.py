"""Collections of ir_datasets, `irds:ID`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ...errors import InputError
from ...items import Item
from ...runs import Qrels
from ..languages import parse_language
from .base import CollectionCounts, MissingPart, check_collection
from .records import require_text
from .topics import Source, parse_fields, select_language

# What of ir_datasets (0.6.3) does not work and is read here from the organisers' files: 2023's topics of one
# language come back empty, 2024's are not there, and documents that say `date` for `time` cannot be read.
_OURS = {"neuclir": "neuclir:DIR?year={year}&lang=zho", "hc4": "hc4:DIR?lang=zho"}


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
            yield Item(doc.doc_id, _default_text(doc), None, parse_language(own) if own else lang, meta)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The queries; `source` picks the translations that NeuCLIR queries carry there as ht_ and mt_."""
        self._needs("queries")
        wanted = parse_fields(fields)
        prefix = {"human": "ht_", "machine": "mt_"}.get(source or "", "")
        if not wanted and {"title", "description"} <= set(self._dataset.queries_cls()._fields):
            wanted = ("title", "description")  # as NeuCLIR's own runs, and as `Directory` reads such topics
        if prefix and not any(key.startswith(prefix) for key in self._dataset.queries_cls()._fields):
            raise InputError(f"{self.name} has no {source} translations of its queries{self._ours}")
        queries = []
        for query in self._dataset.queries_iter():
            parts = [require_text(query._asdict(), prefix + key, key, query.query_id) for key in wanted]
            translated = getattr(query, "translation_lang", None)
            # The originals of NeuCLIR's and HC4's topics are English; ir_datasets does not say so.
            own = translated if prefix else "eng" if translated else self._lang("queries_lang")
            text = "\n".join(parts) if wanted else _default_text(query)
            queries.append(Item(query.query_id, text, None, parse_language(own) if own else None))
        if not queries and self._ours:
            raise InputError(f"{self.name} has no queries: ir_datasets loses them{self._ours}")
        return select_language(lang, queries, f"{self.name} has no queries", source)

    def qrels(self) -> Qrels:
        self._needs("qrels")
        qrels: dict[str, dict[str, int]] = {}
        for qrel in self._dataset.qrels_iter():
            qrels.setdefault(qrel.query_id, {})[qrel.doc_id] = int(qrel.relevance)
        return qrels

    def check(self) -> CollectionCounts:
        """As `Directory.check`; also `InputError` where ir_datasets' own count of documents is another."""
        topics = self.queries() if self._dataset.has_queries() else []
        qrels = self.qrels() if self._dataset.has_qrels() else {}
        counts = check_collection(self.docs(), topics, qrels, self.name)
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
        return parse_language(lang) if lang else None

    def _needs(self, what: str) -> None:
        if not getattr(self._dataset, f"has_{what}")():
            raise MissingPart(f"{self.name} has no {what}")


def _ours(id: str) -> str:
    """What of ours to use in place of a collection of ir_datasets that fails: `; ...`, else nothing."""
    family = id.partition("/")[0]
    if family not in _OURS:
        return ""
    year = re.search(r"trec-(20\d\d)", id)
    return f"; read the organisers' files instead: {_OURS[family].format(year=year[1] if year else 2023)}"


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
