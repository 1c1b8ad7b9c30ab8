"""Measures: names that ir_measures reads, checked before C code sees them, and their values on a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..multilingual.fairness import Peer, check_languages, compute_alpha_ndcg, parse_peer
from ..runs import HIGHEST_GRADE, Qrels
from .formulas import ALWAYS, choose_formula, find_scale

# The official measures of NeuCLIR's tracks; the first decides.
MEASURES = ("nDCG@20", "AP", "RBP(rel=1)", "R@100", "R@1000")
# What is added where one ranking holds several languages (MLIR).
MLIR = ("alpha_nDCG@20", "PEER@20")
EXAMPLES = "for example nDCG@20, AP, RBP(rel=1), R@100, RR, P@10, Judged@20, alpha_nDCG@20, PEER@20"

_NICKNAMES = {"peer": "PEER", "map": "AP", "mrr": "RR", "recall": "R", "precision": "P"}

# ir_measures computes these with pyndeval, from qrels that name an aspect; without it warns and is wrong.
_ASPECTS = frozenset(["ERR_IA", "nERR_IA", "alpha_DCG", "alpha_nDCG", "NRBP", "nNRBP", "AP_IA", "P_IA", "StRecall"])


def is_multilingual(measure: Any) -> bool:
    """Whether a measure compares languages within one ranking, and so needs those of the documents."""
    return measure.NAME in ("alpha_nDCG", "PEER")


def parse_measure(name: Any) -> Any:
    """A measure by its name (or itself): ir_measures', with alpha_nDCG over languages, or `Peer`.

    `InputError` on one that is unknown, senseless or not computable here.
    """
    import ir_measures

    name = str(name)
    if (peer := parse_peer(name)) is not None:
        return peer
    try:
        measure = ir_measures.parse_measure(name)
        measure.validate_params()
    except NameError:
        raise _unknown_measure(name) from None
    except (ValueError, TypeError, AssertionError) as error:
        if "invalid param cutoff=<object" in str(error):
            raise InputError(f"the measure {name!r} needs a cutoff: write {name}@100") from None
        if found := re.search(r"invalid param (\w+)=<object", str(error)):
            raise InputError(f"the measure {name!r} needs a value of {found[1]}, in brackets after its name") from None
        raise InputError(f"cannot read the measure {name!r}: {error} ({EXAMPLES})") from None
    # trec_eval's C code crashes the interpreter on a cutoff below 1 or above what its integers hold.
    for key, most in (("cutoff", 10**9), ("rel", 10**6)):
        if key in measure.params and not 1 <= measure.params[key] <= most:
            raise InputError(f"the measure {name!r} has the {key} {measure.params[key]}: from 1 to {most}, please")
    if measure.NAME == "RBP":
        if "rel" not in measure.params:
            raise InputError(f"the measure {name!r} needs the least relevant grade: write RBP(rel=1)")
        if not 0 < measure["p"] < 1:
            raise InputError(f"the measure {name!r} has the p {measure['p']}; it must lie between 0 and 1")
    elif measure.NAME == "alpha_nDCG":
        if not 0 <= measure["alpha"] <= 1:
            raise InputError(f"the measure {name!r} has the alpha {measure['alpha']}; it must lie from 0 to 1")
    elif measure.NAME in _ASPECTS:
        raise InputError(
            f"the measure {name!r} is not computed here: of those over aspects alpha_nDCG is, with languages"
        )
    elif choose_formula(measure) is None and not any(each.supports(measure) for each in _list_providers()):
        raise InputError(f"the measure {name!r} is not computed here: use another, {EXAMPLES}")
    _check_parameters(name, measure)
    return measure


def _list_providers() -> list[Any]:
    """What of ir_measures is used: not what depends on other programs, or takes some topic ids and grades alone."""
    from ir_measures.providers import registry

    return [registry[name] for name in ("pytrec_eval", "judged", "compat")]


def _check_parameters(name: str, measure: Any) -> None:
    """`InputError` on values with which a measure has no meaning, or which what computes it would read as others."""
    gains = measure.params.get("gains", {})
    if measure.NAME == "nDCG" and gains and measure["dcg"] == "exp-log2":
        raise InputError(f"the measure {name!r} has both gains and dcg='exp-log2', which makes gains of the grades")
    for grade, gain in gains.items():
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in (grade, gain)):
            raise InputError(f"the measure {name!r} must map grades to gains that are whole numbers")
        if gain > HIGHEST_GRADE:
            raise InputError(f"the measure {name!r} has the gain {str(gain)[:20]}: up to {HIGHEST_GRADE:,}, please")
    if measure.NAME == "Compat" and not 0 < measure["p"] < 1:
        raise InputError(f"the measure {name!r} has the p {measure['p']}; it must lie between 0 and 1")
    if measure.NAME == "IPrec":
        recall = measure["recall"]
        if not 0 <= recall <= 1 or round(recall, 2) != recall:
            raise InputError(f"the measure {name!r} has the recall {recall}: from 0 to 1 in two decimals, please")


def _unknown_measure(name: str) -> InputError:
    import difflib

    import ir_measures

    registry = ir_measures.measures.registry
    known = {alias.casefold(): measure.NAME for alias, measure in registry.items()}
    known |= {measure.NAME.casefold(): measure.NAME for measure in registry.values()} | _NICKNAMES
    head, at, cutoff = name.partition("@")
    close = difflib.get_close_matches(head.casefold(), known, n=1)
    hint = f"; did you mean {known[close[0]]}{at}{cutoff}?" if close else ""
    return InputError(f"unknown measure {name!r}{hint} ({EXAMPLES})")


def measure_rankings(
    measures: Sequence[Any],
    qrels: Qrels,
    hits: Mapping[str, Sequence[tuple[str, float]]],
    langs: Mapping[str, str] | None = None,
    scale: int | None = None,
) -> dict[str, dict[str, float]]:
    """Measure -> query -> value, with a value for every query of the qrels.

    `langs` are the documents' languages; `InputError` where a measure needs them and they are lacking. `scale` is the
    highest grade, where the qrels are a part of others (`formulas.find_scale`).
    """
    import ir_measures

    plain = {topic: dict(grades) for topic, grades in qrels.items()}
    # Ranks as scores: no tie and no rounding to float32 can change the order that the run has. A query without hits is
    # left out, for the providers count it in different ways; it gets the measure's default below.
    falling = [float(score) for score in range(max(map(len, hits.values()), default=0), 0, -1)]
    ranks = {
        topic: dict(zip([doc for doc, _ in hits[topic]], falling[-len(hits[topic]) :], strict=True))
        for topic in plain
        if hits.get(topic)
    }
    found = {str(measure): dict.fromkeys(plain, float(measure.DEFAULT)) for measure in measures}
    highest = find_scale(plain) if scale is None else scale
    theirs: dict[tuple[object, ...], list[Any]] = {}
    for measure in measures:
        if is_multilingual(measure):
            found[str(measure)] |= _multilingual(measure, qrels, {t: hits[t] for t in ranks}, langs)
        elif (formula := choose_formula(measure)) is not None:
            for topic in plain if measure.NAME in ALWAYS else ranks:
                found[str(measure)][topic] = formula(measure, plain[topic], list(ranks.get(topic, ())), highest)
        else:
            # pytrec_eval's provider mixes up measures that differ in these.
            own = (
                measure.NAME == "Judged",
                *(repr(measure.params.get(key)) for key in ("rel", "judged_only", "gains")),
            )
            theirs.setdefault(own, []).append(measure)
    # A negative grade marks a document that nobody judged, and trec_eval's C code writes out of bounds for it.
    known = {topic: {doc: grade for doc, grade in grades.items() if grade >= 0} for topic, grades in plain.items()}
    known = {topic: grades for topic, grades in known.items() if grades}
    pipeline = ir_measures.providers.FallbackProvider(_list_providers())
    for some in theirs.values():
        grades = plain if some[0].NAME == "Judged" else known
        asked = ranks
        if some[0].params.get("judged_only"):  # of no judged document trec_eval makes nan
            kept = {t: {doc: at for doc, at in of.items() if doc in grades.get(t, ())} for t, of in ranks.items()}
            asked = {topic: of for topic, of in kept.items() if of}
        if asked and grades:
            for metric in pipeline.evaluator(some, grades).iter_calc(asked):
                found[str(metric.measure)][metric.query_id] = float(metric.value)
    return found


def _multilingual(
    measure: Any, qrels: Qrels, hits: Mapping[str, Sequence[tuple[str, float]]], langs: Mapping[str, str] | None
) -> dict[str, float]:
    check_languages(measure, qrels, langs, 1 if isinstance(measure, Peer) else measure["rel"])
    known = langs or {}
    if isinstance(measure, Peer):
        weights = measure.weigh_grades(qrels)
        spoken = {known[doc] for of in qrels.values() for doc, grade in of.items() if weights.get(grade)}
        if len(spoken) == 1:
            raise InputError(f"{measure} compares languages, and all relevant documents are {spoken.pop()}")
        return {topic: measure.value(of, qrels[topic], known, weights) for topic, of in hits.items()}
    options = {"cutoff": measure.params.get("cutoff"), **{key: measure[key] for key in ("alpha", "rel", "judged_only")}}
    return {topic: compute_alpha_ndcg(of, qrels[topic], known, **options) for topic, of in hits.items()}


def is_total(measure: Any) -> bool:
    """Whether a measure is summed over queries (NumRel, NumRet, NumQ), and not averaged."""
    from ir_measures.measures import SumAgg

    return isinstance(measure.aggregator(), SumAgg)


def aggregate(measure: Any, values: Mapping[str, float], queries: Iterable[str]) -> float:
    """The measure over `queries`: their mean, or for a few measures of ir_measures (NumRel) the total."""
    aggregator = measure.aggregator()
    for query in queries:
        aggregator.add(values[query])
    return float(aggregator.result())
