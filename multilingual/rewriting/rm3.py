"""Expansion by a relevance model: the words of first results, in each of their languages, for full text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...errors import InputError, check_at_least
from ...indexes.base import Index
from ...indexes.lexicon import Lexicon
from ...indexes.storage.fulltext import Word
from ...items import Item, group_positions
from ...pipeline import Stage
from ...runs import Probe, Run
from .feedback import FirstResults, check_weights, fetch_results, list_probes, require_documents

COMMON = 0.1  # words that a larger share of a language's documents have are no terms, as in Anserini


@dataclass(frozen=True)
class RM3(Stage):
    """Full text also searches for the `terms` likeliest words of the `first` documents, in each language of these.

    RM3 (Abdul-Jaleel et al. 2004, UMass at TREC 2004: Novelty and HARD), a language at a time: a word's weight is its
    mean share of the words of the documents in that language, each document counted by its score (alike where a score
    is not above 0); words of more than a tenth of the language's documents are left out; the weights of the `terms`
    best add up to 1. Those of the query's own words, in their language, add up to `weight`. So words of Russian
    documents make the full text of Russian answer an English query. Words are those of the index's own analysis
    (`Index.lexicon`). Vectors are searched for as before. Queries without hits stay as they are (`without_hits`).
    `InputError` where the documents do not come from an index with full text.
    """

    first: int = 3
    terms: int = 40
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(1, docs=self.first, terms=self.terms)
        check_weights(weight=self.weight)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        index = require_documents(run)
        if not isinstance(index, Index):
            raise InputError(
                "rm3 counts words as an index does, and these documents do not come from one: let it follow a search, "
                "as in `dense % 10 >> rm3 >> lexical`"
            )
        texts = _Texts(index.view().lexicon)
        probes = dict(run.probes)
        for query, found in fetch_results(run, self.first):
            terms = self.choose_terms(found, texts)
            own = list_probes(run, query)
            if not (terms or self.weight):  # nothing would be left of its words
                count["without_terms"] += 1
                continue
            probes[query.id] = (*self._weigh_words(query, own, texts), *_make_probes(query, own, terms))
            count["feedback_documents"] += len(found.first)
            count["feedback_terms"] += sum(map(len, terms.values()))
        count["without_hits"] = sum(not hits for _, hits in run)
        return replace(run, probes=probes)

    def choose_terms(self, found: FirstResults, texts: _Texts) -> dict[str | None, dict[str, float]]:
        """The words to add in each language, as they stand in the documents, with weights that add up to 1."""
        shares = found.scores if min(found.scores) > 0 else [1.0] * len(found.scores)
        terms: dict[str | None, dict[str, float]] = {}
        for lang, rows in group_positions(item.lang for item in found.first).items():
            model: dict[str, float] = {}
            forms: dict[str, Counter[str]] = {}
            for row in rows:
                words = texts.list_terms(found.first[row])
                for word in words:
                    model[word.stem] = model.get(word.stem, 0) + shares[row] / len(words)
                    forms.setdefault(word.stem, Counter())[word.form] += 1
            best = sorted(model, key=lambda stem: (-model[stem], stem))[: self.terms]
            total = sum(model[stem] for stem in best)
            if best:
                terms[lang] = {_find_commonest(forms[stem]): model[stem] / total for stem in best}
        return terms

    def _weigh_words(self, query: Item, probes: Sequence[Probe], texts: _Texts) -> Iterator[Probe]:
        """What is searched for so far, the words of each search and language by weights that add up to `weight`."""
        places = [(probe.group, probe.item.lang or query.lang) for probe in probes]
        counts = [texts.count_words(probe, lang) for probe, (_, lang) in zip(probes, places, strict=True)]
        totals: dict[tuple[int, str | None], float] = {}
        for probe, place, words in zip(probes, places, counts, strict=True):
            totals[place] = totals.get(place, 0) + words * probe.weight
        for probe, place, words in zip(probes, places, counts, strict=True):
            if probe.only != "words":
                yield probe._replace(only="vector")
            if words and self.weight:
                yield probe._replace(only="words", weight=self.weight * probe.weight / totals[place])

    def __str__(self) -> str:
        return f"rm3(docs={self.first}, terms={self.terms}, weight={self.weight:g})"


@dataclass(frozen=True)
class _Texts:
    """The words of documents and probes, of each document once."""

    lexicon: Lexicon
    known: dict[str, list[Word]] = field(default_factory=dict)

    def list_terms(self, item: Item) -> list[Word]:
        """The words of a document that may be terms: with a letter in them, and not common in its language."""
        if item.id not in self.known:
            shares = self.lexicon.shares(item.lang)
            words = self.lexicon.split(item.text or "", item.lang)
            rare = [word for word in words if shares.get(word.stem, 0) <= COMMON]
            self.known[item.id] = [word for word in rare if any(map(str.isalpha, word.stem))]
        return self.known[item.id]

    def count_words(self, probe: Probe, lang: str | None) -> int:
        """How many words of a probe are searched for."""
        if probe.only == "vector" or probe.weight <= 0:
            return 0
        return len(self.lexicon.split(probe.item.text or "", lang))


def _make_probes(query: Item, own: Sequence[Probe], terms: Mapping[str | None, Mapping[str, float]]) -> Iterator[Probe]:
    """The terms as probes, in each of the query's searches."""
    for group in dict.fromkeys(probe.group for probe in own):
        for lang, words in terms.items():
            for word, weight in words.items():
                yield Probe(Item(f"{query.id}/rm3", word, lang=lang), "query", weight, group, "words")


def _find_commonest(forms: Counter[str]) -> str:
    return min(forms, key=lambda form: (-forms[form], form))
