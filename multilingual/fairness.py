"""Languages in one ranking: alpha-nDCG with languages as aspects, PEER, and each language's share of the top."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError, list_few
from ..runs import Qrels
from .languages import fill_languages, parse_language

Ranking = Sequence[tuple[str, float]]
Weights = tuple[tuple[int, float], ...]

UNKNOWN = "unknown"


@dataclass(frozen=True, repr=False)
class Peer:
    """Probability of equal expected rank, PEER@X (Yang, Jänich, Mayfield and Lawrie, SIGIR 2024): 1 is fair, 0 not.

    For each grade above 0, the p-value of a Kruskal-Wallis H test over the ranks that the topic's documents of
    this grade have in the ranking, one sample a language. Ranks are those within the grade, as in the textbook
    test. Documents below the cutoff or not retrieved are all tied behind the others. H has the correction for
    ties and is held against chi-squared with (languages - 1) degrees of freedom. p is 1 where fewer than two
    languages have documents of the grade, or where all of them are tied.

    A topic's value is the mean of its grades' p, weighted with `weights` (grade, weight; they sum to 1), or
    equally over the grades of the qrels. A grade that a topic does not have is left out and the other weights
    of that topic share its part. A topic without a relevant document is 0, as is one without hits. The
    measure is blind to quality: a run that finds nothing relevant for a topic treats all languages alike.

    `PEER @ 20` and `PEER(weights={1: 0.5, 3: 0.5}) @ 20` are values; their repr is what `-m` takes.
    `InputError` on a cutoff below 1 and on weights that are negative, of grades below 1, or do not sum to 1.
    """

    cutoff: int | None = None
    weights: Weights | None = None

    NAME: ClassVar[str] = "PEER"
    DEFAULT: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if self.cutoff is not None and (not _whole(self.cutoff) or self.cutoff < 1):
            raise InputError(f"PEER has the cutoff {self.cutoff}: a whole number from 1, please")
        if self.weights is None:
            return
        for grade, weight in self.weights:
            if not _whole(grade) or grade < 1:
                raise InputError(f"PEER has a weight for the grade {grade}: it compares grades from 1")
            if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise InputError(f"PEER has the weight {weight} for the grade {grade}: from 0 to 1, please")
        if not math.isclose(total := math.fsum(weight for _, weight in self.weights), 1, abs_tol=1e-6):
            raise InputError(f"PEER has weights that sum to {total:g}; they must sum to 1")

    def __call__(self, *, weights: Mapping[int, float] | None = None, cutoff: int | None = None) -> Peer:
        if weights is not None and not isinstance(weights, Mapping):
            raise InputError(f"PEER has the weights {weights!r}: write PEER(weights={{1:0.5,3:0.5}})@20")
        return Peer(
            self.cutoff if cutoff is None else cutoff,
            self.weights if weights is None else tuple(sorted(weights.items())),
        )

    def __matmul__(self, cutoff: int) -> Peer:
        return self(cutoff=cutoff)

    def __repr__(self) -> str:
        weights = "" if self.weights is None else ",".join(f"{g}:{w!r}" for g, w in self.weights)
        cutoff = "" if self.cutoff is None else f"@{self.cutoff}"
        return f"PEER(weights={{{weights}}}){cutoff}" if weights else f"PEER{cutoff}"

    def aggregator(self) -> Any:
        from ir_measures.measures import MeanAgg

        return MeanAgg()

    def weigh_grades(self, qrels: Qrels) -> dict[int, float]:
        """Grade -> weight over these qrels; `InputError` where they have none of the grades that weigh."""
        grades = {grade for topic in qrels.values() for grade in topic.values() if grade > 0}
        if self.weights is None:
            return {grade: 1 / len(grades) for grade in sorted(grades)}
        weights = {grade: weight for grade, weight in self.weights if weight}
        if not grades & weights.keys():
            raise InputError(
                f"{self} weighs the grades {list_few(map(str, weights))}, and the qrels have "
                f"{list_few(map(str, sorted(grades)))}"
            )
        return weights

    def value(
        self, ranking: Ranking, grades: Mapping[str, int], langs: Mapping[str, str], weights: Mapping[int, float]
    ) -> float:
        """One topic's; `langs` must have every document of a grade that weighs."""
        places = {doc: place for place, (doc, _) in enumerate(ranking[: self.cutoff])}
        samples: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for doc, grade in grades.items():
            if weights.get(grade):
                samples[grade][langs[doc]].append(places.get(doc, math.inf))
        if not samples:
            return 0.0
        total = math.fsum(weights[grade] for grade in samples)
        return math.fsum(weights[grade] / total * compare_ranks(list(of.values())) for grade, of in samples.items())


PEER = Peer()


def compare_ranks(samples: Sequence[Sequence[float]]) -> float:
    """p-value of the Kruskal-Wallis H test with mid-ranks and the correction for ties; 1 where nothing differs.

    As `scipy.stats.kruskal`, which takes a millisecond for it.
    """
    from scipy.special import chdtrc

    filled = [sample for sample in samples if sample]
    if len(filled) < 2:
        return 1.0
    _, places, times = np.unique(np.concatenate(filled), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(times) - (times - 1) / 2)[places]
    ranks -= ranks.mean()
    groups = np.split(ranks, np.cumsum([len(sample) for sample in filled])[:-1])
    between, within = sum(group.sum() ** 2 / len(group) for group in groups), ranks @ ranks
    return float(chdtrc(len(filled) - 1, (len(ranks) - 1) * between / within)) if within else 1.0


def compute_alpha_ndcg(
    ranking: Ranking,
    grades: Mapping[str, int],
    langs: Mapping[str, str],
    *,
    cutoff: int | None = None,
    alpha: float = 0.5,
    rel: int = 1,
    judged_only: bool = False,
) -> float:
    """Alpha-nDCG of one topic (Clarke et al., SIGIR 2008) with languages as its aspects, from 0 to 1.

    A document of a grade from `rel` gains (1 - alpha)^n, n the relevant documents of its language above it,
    over log2(rank + 1). Each document has one language, so that the ideal ranking is exact, and not the greedy
    approximation that several aspects need. `langs` must have every document of a grade from `rel`; 0 where
    there is none.
    """
    relevant = {doc: langs[doc] for doc, grade in grades.items() if grade >= rel}
    if judged_only:  # a negative grade marks a document that nobody judged
        ranking = [hit for hit in ranking if grades.get(hit[0], -1) >= 0]
    seen: Counter[str] = Counter()
    gained = 0.0
    for place, (doc, _) in enumerate(ranking[:cutoff]):
        if (lang := relevant.get(doc)) is not None:
            gained += (1 - alpha) ** seen[lang] / math.log2(place + 2)
            seen[lang] += 1
    gains = [(1 - alpha) ** n for times in Counter(relevant.values()).values() for n in range(times)]
    ideal = sum(gain / math.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[:cutoff]))
    return gained / ideal if ideal else 0.0


def parse_peer(name: str) -> Peer | None:
    """`PEER@20`, `PEER(weights={1:0.5,3:0.5})@20`; None where another measure is named, `InputError` as `Peer`."""
    if re.split(r"[@(]", name, maxsplit=1)[0].strip() != "PEER":
        return None
    try:
        node = ast.parse(name.strip(), mode="eval").body
        given: dict[str, Any] = {}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            given["cutoff"] = ast.literal_eval(node.right)
            node = node.left
        if isinstance(node, ast.Call):
            if node.args:
                raise ValueError("arguments are named")
            given |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        return PEER(**given)
    except InputError:
        raise
    except (SyntaxError, ValueError, TypeError):
        raise InputError(
            f"cannot read the measure {name!r}: write PEER@20, or PEER(weights={{1:0.5,3:0.5}})@20"
        ) from None


def check_languages(measure: object, qrels: Qrels, langs: Mapping[str, str] | None, rel: int = 1) -> None:
    """`InputError` unless every document of a grade from `rel` has a language."""
    relevant = sorted({doc for of in qrels.values() for doc, grade in of.items() if grade >= rel})
    lacking = [doc for doc in relevant if doc not in (langs or {})]
    remedy = "give them: `doc_langs` in evaluate, `--langs` on the command line, or column 2 of the qrels"
    if relevant and len(lacking) == len(relevant):
        raise InputError(f"{measure} needs the documents' languages, and none is known; {remedy}")
    if lacking:
        raise InputError(
            f"{measure} needs the documents' languages, and {len(lacking)} of {len(relevant)} relevant documents "
            f"have none ({list_few(lacking)}); {remedy}"
        )


@dataclass(frozen=True)
class LanguageShares:
    """Each language's share of the first `cutoff` hits, beside its share of the relevant documents.

    Both are means over the topics that have relevant documents, from 0 to 1, and sum to 1 over languages;
    documents whose language is not known are `unknown`. Topics for which a system has no hit do not count for
    it. `languages` are those of the relevant documents, then others, `unknown` last.
    """

    cutoff: int
    topics: int
    languages: tuple[str, ...]
    relevant: Mapping[str, float]
    top: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, object]:
        top = {system: dict(shares) for system, shares in self.top.items()}
        return {"cutoff": self.cutoff, "topics": self.topics, "relevant": dict(self.relevant), "top": top}


def compute_shares(
    hits: Mapping[str, Mapping[str, Ranking]], qrels: Qrels, langs: Mapping[str, str], cutoff: int = 20
) -> LanguageShares:
    """The shares of languages in the rankings of systems (system -> topic -> ranking); see `LanguageShares`.

    `InputError` where no document is relevant.
    """
    relevant = {topic: [doc for doc, grade in of.items() if grade > 0] for topic, of in qrels.items()}
    relevant = {topic: docs for topic, docs in relevant.items() if docs}
    if not relevant:
        raise InputError("the qrels have no relevant document")
    wanted = _mean_shares(relevant.values(), langs)
    top = {
        system: _mean_shares(([doc for doc, _ in of[topic][:cutoff]] for topic in relevant if of.get(topic)), langs)
        for system, of in hits.items()
    }
    every = {lang for share in (wanted, *top.values()) for lang in share}
    ordered = sorted(every, key=lambda lang: (lang == UNKNOWN, lang not in wanted, lang))
    return LanguageShares(cutoff, len(relevant), tuple(ordered), wanted, top)


def _mean_shares(rankings: Iterable[Sequence[str]], langs: Mapping[str, str]) -> dict[str, float]:
    counted = [(Counter(langs.get(doc, UNKNOWN) for doc in ranking), len(ranking) or 1) for ranking in rankings]
    every = sorted({lang for counts, _ in counted for lang in counts})
    return {lang: sum(counts[lang] / size for counts, size in counted) / len(counted) for lang in every}


def read_langs(where: str | Path, wanted: Iterable[str]) -> dict[str, str]:
    """The languages of the `wanted` documents, ISO 639-3: from lines `document language`, or from a collection.

    A collection's name is what `load_collection` takes; a language that its documents do not give is
    identified from their text. Documents without a line, or whose language is not clear, are left out.
    `InputError` counts and names documents that a collection does not have; it names file and line of what is
    not such a line or no language, and a document with two.
    """
    from .collections.base import find_documents
    from .collections.published import read_table
    from .collections.registry import load_collection

    ids = set(wanted)
    if not Path(where).is_file():
        docs = find_documents(load_collection(str(where)), ids, "documents that are judged or found", str(where))
        return {item.id: parse_language(item.lang) for item in fill_languages(docs) if item.lang}
    found: dict[str, str] = {}
    for place, row in read_table(Path(where), ("document", "language"), tabs=False):
        doc = row["document"]
        if doc in ids:
            try:
                code = parse_language(row["language"])
            except InputError as error:
                raise InputError(f"{place}: {error}") from None
            if found.setdefault(doc, code) != code:
                raise InputError(f"{place}: document {doc!r} has two languages")
    return found


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
