"""ECLeKTic (Goldman et al., 2025): questions in 12 languages about Wikipedia articles that one language has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import InputError, unknown_name
from ...items import Item
from ..languages import parse_language
from .base import CollectionCounts
from .files import DatasetFiles, read_all_lines
from .published import PublishedCollection, check_count
from .records import join_title, parse_record, read_id, read_text, require_text
from .topics import Source

LANGUAGES = ("de", "en", "es", "fr", "he", "hi", "id", "it", "ja", "ko", "pt", "zh")
QUESTIONS = 384


class Eclektic(PublishedCollection):
    """`eclektic:DIR[?lang=fr]`: eclektic_main.jsonl, as Google gives it out on Kaggle.

    A line is a question: `q_id`, `original_lang`, the `title`, `url` and `content` of its article, `question` and
    `answer`, and for each of the 12 languages its translation `fr_q` (with `fr_a` and `fr_c`). Documents are the
    articles in their own languages, once each; a question's only relevant document is its article. Questions are
    worded in `lang`, else in their article's language. It was made for models that answer without searching;
    searching it shows which articles are found from another language.
    """

    usage = "write eclektic:DIR?lang=fr, where DIR holds eclektic_main.jsonl"

    def __init__(
        self, where: str, *, lang: str | None = None, sample: bool = False, skip_bad: bool = False
    ) -> None:
        self._lang = _language(lang) if lang else None
        name = f"eclektic-{self._lang}" if self._lang else "eclektic"
        langs = frozenset(map(parse_language, LANGUAGES))
        super().__init__(name, DatasetFiles(where, usage=self.usage), langs, sample=sample, skip_bad=skip_bad)

    def docs(self) -> Iterator[Item]:
        """The articles, streamed; of questions about one article the first gives it its id."""
        ids: dict[tuple[str, str], str] = {}

        def article(row: bytes) -> Item | None:
            record = parse_record(row)
            id, lang, text = _article(record)
            if ids.setdefault((lang, text), id) != id:
                return None
            meta = {key: value for key in ("title", "url") if (value := read_text(record, key))}
            return Item(id, text, None, lang, meta)

        return self._reader.items("documents", self._query_rows(), article)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The questions worded in `lang`, else in the collection's, else each in its article's language."""
        if lang is None:
            return super().queries(fields=fields, source=source)
        usual, self._lang = self._lang, _language(lang)
        try:
            return super().queries(fields=fields, source=source)
        finally:
            self._lang = usual

    def check(self) -> CollectionCounts:
        """As `PublishedCollection.check`; also `InputError` on another number of questions than 384."""
        if not self.sample:
            check_count(self.name, sum(1 for _ in self._query_rows()), QUESTIONS, "questions")
        return super().check()

    def _query_rows(self) -> Iterator[tuple[str, bytes]]:
        return read_all_lines(self.files.all("eclektic_main.jsonl"))

    def _query(self, row: Any) -> Item:
        record = parse_record(row)
        id, own, _ = _article(record)
        key = f"{self._lang}_q" if self._lang else "question"
        return Item(
            id,
            require_text(record, key, key, id),
            None,
            parse_language(self._lang or own),
            {"original_lang": own},
        )

    def _judged(self) -> dict[str, dict[str, int]]:
        ids: dict[tuple[str, str], str] = {}
        judged: dict[str, dict[str, int]] = {}

        def question(row: bytes) -> Item:
            id, lang, text = _article(parse_record(row))
            judged[id] = {ids.setdefault((lang, text), id): 1}
            return Item(id)

        for _ in self._reader.items("judgements", self._query_rows(), question):
            pass
        return judged


def _article(record: dict[str, Any]) -> tuple[str, str, str]:
    """The question's id, and the language and text of its article."""
    id = read_id(record, "q_id")
    lang = read_text(record, "original_lang")
    text = join_title(read_text(record, "title"), require_text(record, "content", "content", id))
    if not lang:
        raise InputError(f"question {id!r} has no original_lang")
    return id, parse_language(lang), text or ""


def _language(given: str) -> str:
    code = next((each for each in LANGUAGES if parse_language(each) == parse_language(given)), None)
    if code is None:
        raise unknown_name(given, LANGUAGES, "language of ECLeKTic")
    return code
