"""ECLeKTic (Goldman et al., 2025): questions in 12 languages about Wikipedia articles that one language has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...items import Item
from ...rows.fields import FileRow
from ..languages import match_language, parse_language
from .published import PublishedCollection, Reading

LANGUAGES = ("de", "en", "es", "fr", "he", "hi", "id", "it", "ja", "ko", "pt", "zh")


class Eclektic(PublishedCollection):
    """`eclektic:DIR[?lang=fr]`: eclektic_main.jsonl, as Google gives it out on Kaggle.

    A line is a question: `q_id`, `original_lang`, the `title`, `url` and `content` of its article, `question` and
    `answer`, and for each of the 12 languages its translation `fr_q` (with `fr_a` and `fr_c`). Documents are the
    articles in their own languages, once each; a question's only relevant document is its article. Questions are
    worded in `lang`, else in their article's language. It was made for models that answer without searching;
    searching it shows which articles are found from another language.
    """

    questions = 384
    topic_files = ("eclektic_main.jsonl",)
    usage = "write eclektic:DIR?lang=fr, where DIR holds eclektic_main.jsonl"

    def __init__(self, where: str, *, reading: Reading, lang: str | None = None) -> None:
        super().__init__(where, reading)
        self._lang = match_language(lang, LANGUAGES, "language of ECLeKTic") if lang else None
        self.name = f"eclektic-{self._lang}" if self._lang else "eclektic"
        self.langs = frozenset(map(parse_language, LANGUAGES))

    def docs(self) -> Iterator[Item]:
        """The articles, streamed; of questions about one article the first gives it its id."""
        ids: dict[tuple[str, str], str] = {}

        def read(record: FileRow) -> Item | None:
            id, lang, text = _read_article(record)
            if ids.setdefault((lang, text), id) != id:
                return None
            return Item(id, text, None, lang, record.read_texts("title", "url"))

        return self.read_items("documents", self.query_rows(), read)

    def queries(self, *, lang: str | None = None, **options: Any) -> list[Item]:
        """The questions worded in `lang`, else in the collection's, else each in its article's language."""
        usual = self._lang
        self._lang = match_language(lang, LANGUAGES, "language of ECLeKTic") if lang else usual
        try:
            return super().queries(**options)
        finally:
            self._lang = usual

    def read_query(self, record: FileRow) -> Item:
        id, own, _ = _read_article(record)
        text = record.require_text(f"{self._lang}_q" if self._lang else "question", "question", id)
        return Item(id, text, None, parse_language(self._lang or own), {"original_lang": own})

    def published_qrels(self) -> dict[str, dict[str, int]]:
        ids: dict[tuple[str, str], str] = {}

        def read(record: FileRow) -> Item:
            id, lang, text = _read_article(record)
            return Item(id, meta={"article": ids.setdefault((lang, text), id)})

        questions = self.read_items("judgements", self.query_rows(), read)
        return {question.id: {str(question.meta["article"]): 1} for question in questions}


def _read_article(record: FileRow) -> tuple[str, str, str]:
    """The question's id, and the language and text of its article."""
    id = record.read_id("q_id")
    lang = record.require_text("original_lang", "question", id)
    record.require_text("content", "question", id)
    return id, parse_language(lang), record.join_texts("title", "content") or ""
