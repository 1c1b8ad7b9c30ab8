"""Full text by language: the tokenizer that finds a language's inflected forms, in a column of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from lancedb.index import FTS
from lancedb.query import BooleanQuery, FullTextQuery, MatchQuery, Occur

from ...items import Item
from ...runs import Hit, Rankings, rank_hits, search_past_ties
from .analysis import ANALYSIS, analyse, list_words
from .filters import join_conditions, list_spellings, quote_all

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


@dataclass(frozen=True)
class FullText:
    """The full text that an index holds: its groups, the version of its analysis, and the languages as stored."""

    groups: Sequence[str]
    analysis: int
    langs: Collection[str] = ()


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


def make_tokenizer(group: str, analysis: int = ANALYSIS) -> FTS:
    """The tokenizer of a group's column."""
    # In bytes. With a limit long words are not found: compounds of German, and of two or three bytes a letter, others.
    longest = 40 if analysis == 1 else None
    if group in STEMMERS:
        # The simple tokenizer breaks Tamil words at their vowel signs.
        base: Literal["icu", "simple"] = "icu" if group == "tam" else "simple"
        return FTS(base_tokenizer=base, language=STEMMERS[group], max_token_length=longest)
    plain = partial(FTS, stem=False, remove_stop_words=False, max_token_length=longest)
    if group == "icu":
        return plain(base_tokenizer="icu")
    return plain(base_tokenizer="ngram", ngram_min_length=2, ngram_max_length=3)


def index_text(table: Any, analysis: int) -> list[str]:
    """Index the full-text columns of a table, in place of earlier indexes; returns the groups that have text.

    `analysis` is the version of the analysis that made the columns.
    """
    groups = [group for group in GROUPS if table.count_rows(f"{name_column(group)} IS NOT NULL")]
    for group in groups:
        table.create_index(name_column(group), config=make_tokenizer(group, analysis), replace=True)
    return groups


def search_text(
    table: Any, query: Item, held: FullText, k: int, where: str | None, *, own_language: bool = False
) -> tuple[Hit, ...]:
    """The k best documents for the query's text, among the groups that are `held`, by weighted reciprocal rank.

    The query is asked of its own language's column in full, and of the others for the names and numbers that
    languages share. In `ngram`, whose fragments match anything in the same script, other languages' documents
    must hold one of the query's words whole. The lists have no document in common; those of other languages
    weigh half, or the same where the query's language is not known. No hits if no word is left after
    analysis. With `own_language`, only documents in the query's language are found, and those of none, if it is
    known.
    """
    language = "" if query.lang is None else quote_all(list_spellings(query.lang, held.langs))
    in_language = f"(lang IN ({language}) OR lang IS NULL)"
    if own_language and language:
        where = join_conditions(where, in_language)
    own = choose_group(query.lang)
    others = [group for group in held.groups if group not in (own, "ngram")]
    mine, foreign = where, where
    if own == "ngram" and language:
        mine = join_conditions(where, in_language)
        foreign = join_conditions(where, f"lang NOT IN ({language})")  # which null does not satisfy
    weight = FOREIGN if language else 1.0
    lists = []
    if own in held.groups:
        lists.append((1.0, _find_hits(table, _match(query, own, held), k, mine)))
    if others:
        either = BooleanQuery([(Occur.SHOULD, _match(query, group, held)) for group in others])
        lists.append((weight, _find_hits(table, either, k, where)))
    if "ngram" in held.groups and (own != "ngram" or language):
        lists.append((weight, _find_sharing(table, query, held, k, foreign)))
    if len(lists) == 1:
        return lists[0][1]
    return rank_hits((hit.id, weight / (RRF + rank)) for weight, hits in lists for rank, hit in enumerate(hits, 1))[:k]


def _match(query: Item, group: str, held: FullText) -> MatchQuery:
    """The words of a text, any of which may match; nothing in it is an operator."""
    return MatchQuery(analyse(query.text or "", group, held.analysis), name_column(group))


def _find_hits(table: Any, query: FullTextQuery, k: int, where: str | None) -> tuple[Hit, ...]:
    def ask(rows: Sequence[int], depth: int) -> Rankings:
        return [list(rank_hits(_search(table, query, ["id", "_score"], depth, where)))]

    return rank_hits(search_past_ties(ask, 1, k)[0])


def _find_sharing(table: Any, query: Item, held: FullText, k: int, where: str | None) -> tuple[Hit, ...]:
    """Hits in `ngram` that hold a whole word of the text, of three characters or more."""
    column = name_column("ngram")
    words = {word for word in list_words(analyse(query.text or "", "ngram", held.analysis)) if len(word) > 2}
    if not words:
        return ()
    wanted = MatchQuery(" ".join(sorted(words)), column)
    texts: dict[str, str] = {}

    def ask(rows: Sequence[int], depth: int) -> Rankings:
        found = list(_search(table, wanted, ["id", "_score", column], depth, where))
        texts.update((id, text) for id, _, text in found)
        return [list(rank_hits((id, score) for id, score, _ in found))]

    return rank_hits(hit for hit in search_past_ties(ask, 1, k)[0] if words & list_words(texts[hit[0]]))


def _search(
    table: Any, query: FullTextQuery, columns: list[str], k: int, where: str | None
) -> Iterator[tuple[Any, ...]]:
    found = table.search(query, query_type="fts").select(columns).limit(k)
    rows = (found.where(where) if where else found).to_arrow()
    return zip(*(rows[name].to_pylist() for name in columns), strict=True)
