"""Full text by language: the tokenizer that finds a language's inflected forms, in a column of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ...runs import Hit, Rankings, rank_hits
from ..ties import search_past_ties
from .analysis import ANALYSIS, analyse, list_words
from .filters import join_conditions, list_spellings, quote_all
from .names import MOST, extract_names

if TYPE_CHECKING:  # vectors are searched in memory without LanceDB
    from lancedb.index import FTS
    from lancedb.query import FullTextQuery, MatchQuery

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
# What LanceDB's `tokenize` takes of the settings of an index.
TOKENIZING = (
    "base_tokenizer", "language", "max_token_length", "lower_case", "stem", "remove_stop_words", "ascii_folding"
)  # fmt: skip

# LanceDB's BM25 (Robertson et al. 1994), which it lets nobody set; a test computes it by hand.
K1, B = 1.2, 0.75

# A hit in another language's column counts as much as one about 60 places further down in the query's own.
FOREIGN = 0.5
RRF = 60

# A name that more documents of a column hold is passed over.
FEW = 50


@dataclass(frozen=True)
class FullText:
    """The full text that an index holds: its groups, the version of its analysis, documents by language as stored."""

    groups: Sequence[str]
    analysis: int
    langs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Words:
    """What full text looks for in one language: texts, and how much the words of each count."""

    lang: str | None
    texts: tuple[tuple[str, float], ...]


def choose_group(lang: str | None) -> str:
    """The group of a language: its own if there is a stemmer, `icu`, or `ngram` for all others and None."""
    lang = SAME.get(lang or "", lang)
    if lang in STEMMERS:
        return str(lang)
    return "icu" if lang in SEGMENTED else "ngram"


def name_column(group: str) -> str:
    """The full-text column of a group."""
    return f"t_{group}"


COLUMNS = {name_column(group): group for group in GROUPS}


def make_tokenizer(group: str, analysis: int = ANALYSIS) -> FTS:
    """The tokenizer of a group's column."""
    from lancedb.index import FTS

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


class Word(NamedTuple):
    """A word of a text: what a column holds of it, and how it stood there."""

    stem: str
    form: str


def analyse_words(text: str, lang: str | None, analysis: int = ANALYSIS) -> list[Word]:
    """The words of a text in a language, as its column looks at them, in their order; without stop words if that does.

    In `ngram`, which looks at fragments, they are whole words, without case and accents.
    """
    from lancedb import tokenize

    group = choose_group(lang)
    text = analyse(text, group, analysis)
    if group == "ngram":
        return [Word(word, word) for word in list_words(text)]
    settings = vars(make_tokenizer(group, analysis))
    options = {name: settings[name] for name in TOKENIZING}
    kept = {token.text for token in tokenize(text, **options)}
    # Where stop words are left out, those before the first word are not counted: nothing else is the same place.
    stems = tokenize(text, **{**options, "remove_stop_words": False})
    forms = tokenize(text, **{**options, "remove_stop_words": False, "stem": False, "ascii_folding": False})
    words = (Word(stem.text, form.text) for stem, form in zip(stems, forms, strict=True))
    return [word for word in words if word.stem in kept]


def index_text(table: Any, analysis: int) -> list[str]:
    """Index the full-text columns of a table, in place of earlier indexes; returns the groups that have text.

    `analysis` is the version of the analysis that made the columns.
    """
    groups = [group for group in GROUPS if table.count_rows(f"{name_column(group)} IS NOT NULL")]
    for group in groups:
        table.create_index(name_column(group), config=make_tokenizer(group, analysis), replace=True)
    return groups


def search_text(
    table: Any, query: Sequence[Words], held: FullText, k: int, where: str | None, *, own_language: bool = False
) -> tuple[Hit, ...]:
    """The k best documents for the words of a query, among the groups that are `held`, by weighted reciprocal rank.

    Words are asked of their own language's column in full, and of the columns in which none of the query's are at home
    for the names and numbers that languages share. In `ngram`, whose fragments match anything in the same script,
    other languages' documents must hold one of the words whole. The lists have no document in common, unless words of
    several languages have one column; those of other languages weigh half, or the same where some of the words are in
    no known language. No hits if no word is left after analysis. With `own_language`, only documents in the languages
    of the words are found, and those of none, if they are known.
    """
    at_home = {words.lang: choose_group(words.lang) for words in query}
    known = None not in at_home
    if own_language and known:
        where = join_conditions(where, f"({_is_in(at_home, held)} OR lang IS NULL)")
    lists = []
    for words in query:
        if (own := at_home[words.lang]) in held.groups:
            is_mine = f"({_is_in([words.lang], held)} OR lang IS NULL)" if own == "ngram" and words.lang else None
            lists.append((1.0, _find_hits(table, _match_any(words, own, held), k, join_conditions(where, is_mine))))
    weight = FOREIGN if known else 1.0
    if others := [group for group in held.groups if group not in {*at_home.values(), "ngram"}]:
        either = [each for group in others for words in query for each in _match(words, group, held)]
        lists.append((weight, _find_hits(table, _join(either), k, where)))
    if "ngram" in held.groups and known:
        mine = [lang for lang, group in at_home.items() if group == "ngram"]
        # Which null does not satisfy.
        foreign = join_conditions(where, f"NOT {_is_in(mine, held)}" if mine else None)
        lists.append((weight, _find_sharing(table, query, held, k, foreign)))
    if len(lists) == 1:
        return lists[0][1]
    fused: dict[str, float] = {}
    for weight, hits in lists:
        for rank, hit in enumerate(hits, 1):
            fused[hit.id] = fused.get(hit.id, 0.0) + weight / (RRF + rank)
    return rank_hits(fused.items())[:k]


def find_names(table: Any, query: Sequence[Words], held: FullText, where: str | None) -> list[tuple[Hit, ...]]:
    """For each name in a query's texts (`extract_names`) all documents in other languages that hold it, by BM25.

    Left out are names that more than `FEW` documents for each column hold, those of texts of a weight below 1, which
    are not what was asked, and all where some of the words are in no known language: `search_text` looks for these in
    every language.
    """
    langs = [words.lang for words in query]
    if None in langs:
        return []
    foreign = join_conditions(where, f"NOT {_is_in(langs, held)}")  # which null does not satisfy
    groups = [group for group in held.groups if group != "ngram"]
    texts = [text for words in query for text, weight in words.texts if weight >= 1]
    names = dict.fromkeys(name for text in texts for name in extract_names(text))
    found = []
    for name in list(names)[:MOST]:
        words, most = Words(None, ((name, 1.0),)), FEW * len(held.groups)
        hits: list[tuple[Any, ...]] = []
        if groups:
            asked = _join([each for group in groups for each in _match(words, group, held)])
            hits += _search(table, asked, ["id", "_score"], most + 1, foreign)
        if "ngram" in held.groups:
            hits += _find_sharing(table, [words], held, most + 1, foreign)
        if 0 < len(hits) <= most:
            found.append(rank_hits((id, score) for id, score in hits))
    return found


def _is_in(langs: Iterable[str | None], held: FullText) -> str:
    """An SQL condition: the document is in one of the languages, in any of the spellings that are stored."""
    return f"(lang IN ({quote_all([each for lang in langs if lang for each in list_spellings(lang, held.langs)])}))"


def _match(words: Words, group: str, held: FullText) -> list[MatchQuery]:
    """The texts, any word of which may match; nothing in them is an operator."""
    from lancedb.query import MatchQuery

    column = name_column(group)
    return [MatchQuery(analyse(text, group, held.analysis), column, boost=weight) for text, weight in words.texts]


def _match_any(words: Words, group: str, held: FullText) -> FullTextQuery:
    matches = _match(words, group, held)
    return matches[0] if len(matches) == 1 else _join(matches)


def _join(matches: Sequence[MatchQuery]) -> FullTextQuery:
    """Any of them may match."""
    from lancedb.query import BooleanQuery, Occur

    return BooleanQuery([(Occur.SHOULD, each) for each in matches])


def _find_hits(table: Any, query: FullTextQuery, k: int, where: str | None) -> tuple[Hit, ...]:
    def ask(rows: Sequence[int], depth: int) -> Rankings:
        return [list(rank_hits(_search(table, query, ["id", "_score"], depth, where)))]

    return rank_hits(search_past_ties(ask, 1, k)[0])


def _find_sharing(table: Any, query: Sequence[Words], held: FullText, k: int, where: str | None) -> tuple[Hit, ...]:
    """Hits in `ngram` that hold a whole word of the texts, of three characters or more."""
    from lancedb.query import MatchQuery

    column = name_column("ngram")
    texts = [analyse(text, "ngram", held.analysis) for words in query for text, _ in words.texts]
    shared = {word for text in texts for word in list_words(text) if len(word) > 2}
    if not shared:
        return ()
    wanted = MatchQuery(" ".join(sorted(shared)), column)
    found: dict[str, str] = {}

    def ask(rows: Sequence[int], depth: int) -> Rankings:
        hits = list(_search(table, wanted, ["id", "_score", column], depth, where))
        found.update((id, text) for id, _, text in hits)
        return [list(rank_hits((id, score) for id, score, _ in hits))]

    return rank_hits(hit for hit in search_past_ties(ask, 1, k)[0] if shared.intersection(list_words(found[hit[0]])))


def _search(
    table: Any, query: FullTextQuery, columns: list[str], k: int, where: str | None
) -> Iterator[tuple[Any, ...]]:
    found = table.search(query, query_type="fts").select(columns).limit(k)
    rows = (found.where(where) if where else found).to_arrow()
    return zip(*(rows[name].to_pylist() for name in columns), strict=True)
