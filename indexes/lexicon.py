"""The words of an index's documents, as its full text looks at them, and how common they are."""

from __future__ import annotations

from heapq import nsmallest

from ..errors import InputError
from ..items import hash_text
from .storage.filters import list_spellings, quote_all
from .storage.fulltext import Word, analyse_words
from .storage.storage import Storage

SAMPLE = 1000  # documents of a language by which it is told how common words are: a tenth is then known to 0.01


class Lexicon:
    """The words of each language of an index with full text; what is common is found out when it is first asked for."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._shares: dict[str | None, dict[str, float]] = {}

    def split(self, text: str, lang: str | None) -> list[Word]:
        """The words of a text in a language, as the index's full text has them; `InputError` if it has none."""
        self._require()
        return analyse_words(text, lang, self._storage.card.analysis)

    def shares(self, lang: str | None) -> dict[str, float]:
        """In what share of the documents of a language each word occurs, by its stem; estimated from 1,000 of them.

        They are the same ones whatever the order in which the documents came. Words that none of these has are left
        out. None stands for the documents without a language.
        """
        self._require()
        if lang not in self._shares:
            tables = self._storage.tables
            spelled = quote_all(list_spellings(lang, self._storage.card.langs)) if lang else ""
            ids = tables.list_ids(f"lang IN ({spelled})" if spelled else "lang IS NULL")
            chosen = nsmallest(SAMPLE, ids, key=hash_text)
            counts: dict[str, int] = {}
            for text in tables.find_values("text", chosen).values():
                for stem in {word.stem for word in self.split(text or "", lang)}:
                    counts[stem] = counts.get(stem, 0) + 1
            self._shares[lang] = {stem: count / len(chosen) for stem, count in counts.items()}
        return self._shares[lang]

    def _require(self) -> None:
        if not self._storage.card.lexical:
            raise InputError(f"{self._storage.path} was made without full text, and so without words: index it again")
