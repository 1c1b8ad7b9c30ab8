"""Full text by language: the tokenizer that finds a language's inflected forms, in a column of its own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from lancedb.index import FTS
from lancedb.query import BooleanQuery, FullTextQuery, MatchQuery, Occur

from ...items import Item
from ...runs import Hit, rank_hits
from .filters import join_conditions, quote_all

# The Snowball stemmers of lancedb 0.40, by ISO 639-3.
STEMMERS = {
    "ara": "Arabic",
    "dan": "Danish",
    "deu": "German",
    "ell": "Greek",
    "eng": "English",
    "fin": "Finnish",
    "fra": "French",
    "hun": "Hungarian",
    "ita": "Italian",
    "nld": "Dutch",
    "nor": "Norwegian",
    "por": "Portuguese",
    "ron": "Romanian",
    "rus": "Russian",
    "spa": "Spanish",
    "swe": "Swedish",
    "tam": "Tamil",
    "tur": "Turkish",
}
# Written without spaces between words: ICU's dictionaries find them.
SEGMENTED = ("cmn", "jpn", "khm", "lao", "mya", "tha", "yue", "zho")
SAME = {"arb": "ara", "nob": "nor", "nno": "nor"}
GROUPS = (*STEMMERS, "icu", "ngram")

# LanceDB's BM25 (Robertson et al. 1994), which it lets nobody set; a test computes it by hand.
K1, B = 1.2, 0.75

# A hit in another language's column counts as much as one about 60 places further down in the query's own.
FOREIGN = 0.5
RRF = 60

# Between a Chinese character and the kana after it, where Japanese inflects: 読んだ and 読む share 読.
_OKURIGANA = re.compile(r"(?<=[\u3400-\u9fff])(?=[\u3041-\u309f])")
# Persian and Urdu are typed with Arabic letters as often as with their own; the non-joiner comes and goes.
_LETTERS = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک", "ة": "ه", "\u200c": " ", "\u0640": None})
_WORD = re.compile(r"\w+")


def choose_group(lang: str | None) -> str:
    """The group of a language: its own if there is a stemmer, `icu`, or `ngram` for all others and None."""
    lang = SAME.get(lang or "", lang)
    if lang in STEMMERS:
        return str(lang)
    return "icu" if lang in SEGMENTED else "ngram"


def name_column(group: str) -> str:
    """The full-text column of a group."""
    return f"t_{group}"


COLUMNS = tuple(map(name_column, GROUPS))


def analyse(text: str, group: str) -> str:
    """A text as its column holds it, and a query as it is asked there.

    Composed characters (the tokenizers break words at combining marks), full-width letters made narrow, and
    what the group's tokenizer does not know of its scripts.
    """
    text = unicodedata.normalize("NFKC", text)
    if group == "icu":
        return _OKURIGANA.sub(" ", text)
    return text.translate(_LETTERS) if group == "ngram" else text


def make_tokenizer(group: str) -> FTS:
    """The tokenizer of a group's column."""
    if group in STEMMERS:
        # The simple tokenizer breaks Tamil words at their vowel signs.
        return FTS(base_tokenizer="icu" if group == "tam" else "simple", language=STEMMERS[group])
    if group == "icu":
        return FTS(base_tokenizer="icu", stem=False, remove_stop_words=False)
    return FTS(base_tokenizer="ngram", ngram_min_length=2, ngram_max_length=3, stem=False, remove_stop_words=False)


def index_text(table: Any) -> list[str]:
    """Index the full-text columns of a table, in place of earlier indexes; returns the groups that have text."""
    groups = [group for group in GROUPS if table.count_rows(f"{name_column(group)} IS NOT NULL")]
    for group in groups:
        table.create_index(name_column(group), config=make_tokenizer(group), replace=True)
    return groups


def search_text(
    table: Any, query: Item, groups: Sequence[str], k: int, where: str | None, *, own_language: bool = False
) -> tuple[Hit, ...]:
    """The k best documents for the query's text, among `groups`, by weighted reciprocal rank.

    The query is asked of its own language's column in full, and of the others for the names and numbers that
    languages share. In `ngram`, whose fragments match anything in the same script, other languages' documents
    must hold one of the query's words whole. The lists have no document in common; those of other languages
    weigh half, or the same where the query's language is not known. No hits if no word is left after
    analysis. With `own_language`, only documents in the query's language are found, and those of none, if it is
    known.
    """
    if own_language and query.lang is not None:
        where = join_conditions(where, _in_language(query.lang))
    text = query.text or ""
    own = choose_group(query.lang)
    others = [group for group in groups if group not in (own, "ngram")]
    mine, foreign = where, where
    if own == "ngram" and query.lang is not None:
        mine = join_conditions(where, _in_language(query.lang))
        foreign = join_conditions(where, f"lang != {quote_all([query.lang])}")  # which null does not satisfy
    weight = FOREIGN if query.lang is not None else 1.0
    lists = []
    if own in groups:
        lists.append((1.0, _find_hits(table, _match(text, own), k, mine)))
    if others:
        either = BooleanQuery([(Occur.SHOULD, _match(text, group)) for group in others])
        lists.append((weight, _find_hits(table, either, k, where)))
    if "ngram" in groups and (own != "ngram" or query.lang is not None):
        lists.append((weight, _find_sharing(table, text, k, foreign)))
    if len(lists) == 1:
        return lists[0][1]
    return rank_hits((hit.id, weight / (RRF + rank)) for weight, hits in lists for rank, hit in enumerate(hits, 1))[:k]


def _match(text: str, group: str) -> MatchQuery:
    """The words of a text, any of which may match; nothing in it is an operator."""
    return MatchQuery(analyse(text, group), name_column(group))


def _in_language(lang: str) -> str:
    return f"(lang = {quote_all([lang])} OR lang IS NULL)"


def _find_hits(table: Any, query: FullTextQuery, k: int, where: str | None) -> tuple[Hit, ...]:
    return rank_hits(_search(table, query, ["id", "_score"], k, where))


def _find_sharing(table: Any, text: str, k: int, where: str | None) -> tuple[Hit, ...]:
    """Hits in `ngram` that hold a whole word of the text, of three characters or more."""
    words = {word for word in _split_words(analyse(text, "ngram")) if len(word) > 2}
    if not words:
        return ()
    query = _match(" ".join(sorted(words)), "ngram")
    rows = _search(table, query, ["id", "_score", name_column("ngram")], k, where)
    return rank_hits((id, score) for id, score, held in rows if words & _split_words(held))


def _search(
    table: Any, query: FullTextQuery, columns: list[str], k: int, where: str | None
) -> Iterator[tuple[Any, ...]]:
    found = table.search(query, query_type="fts").select(columns).limit(k)
    rows = (found.where(where) if where else found).to_arrow()
    return zip(*(rows[name].to_pylist() for name in columns), strict=True)


def _split_words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
