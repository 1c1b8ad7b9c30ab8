"""Experiments: measures over runs, per group of queries, with tests and intervals; one frozen `Table`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..errors import InputError, list_few, unknown_name
from ..items import Item
from ..multilingual import fairness
from ..multilingual.fairness import UNKNOWN
from ..multilingual.languages import parse_language
from ..runs import Hit, Qrels, Run, read_qrels
from .measures import MEASURES, MLIR, aggregated, is_multilingual, is_total, measured, parse_measure
from .significance import LEVEL, Comparison, Correction, Test, bonferroni, bootstrap, compared, holm
from .table import ALL, DEEPEST, Table, Values

__all__ = [
    "ALL", "LEVEL", "MEASURES", "MLIR", "UNKNOWN", "Comparison", "Correction", "Table", "Test",
    "bonferroni", "bootstrap", "evaluate", "evaluate_files", "holm",
]  # fmt: skip

TOP = 20  # the cutoff of languages' shares


def evaluate(
    runs: Mapping[str, Run] | Iterable[tuple[str, Run]],
    qrels: Qrels,
    measures: Sequence[Any] = MEASURES,
    *,
    per: str | None = None,
    baseline: str | int | None = None,
    test: Test = "t",
    correction: Correction = "holm",
    interval: float | None = None,
    queries: Iterable[Item] = (),
    doc_langs: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Table:
    """Measure runs on the queries of the qrels; one without hits counts as zero (trec_eval's `-c`).

    `measures` are names of ir_measures (`nDCG@20`, `AP`, `RBP(rel=1)`, `R@100`, `RR`, `Judged@20`), its
    measures themselves, or for rankings that hold several languages `alpha_nDCG@20` and `PEER@20`. `per`
    adds means per group of queries: `lang`, a key of their `meta` (their items come from `queries`, else from
    the runs), or `doc_lang`: each language's documents alone, over the queries with relevant documents in it,
    and the languages' shares of the top 20. Documents' languages come from `doc_langs`, else from the runs'
    `docs`; a document without one stays in every language's ranking. `baseline` is a system or its position;
    `test` a paired t-test, or a randomisation test over 10,000 samples drawn with `seed` (exact where there
    are fewer), over all queries and over those of each group, with Holm's or Bonferroni's `correction` over
    systems. `interval` adds bootstrap intervals of the means at that confidence (0.95), drawn with `seed`.
    Ranks decide, not scores. `InputError` on unknown measures, keys or baselines, on two runs of one name, on
    a run that has no query in common with the qrels, and on measures of languages that nobody tells.
    """
    runs = _named(runs)
    if not runs:
        raise InputError("no runs to evaluate")
    if not qrels:
        raise InputError("no judgements to evaluate with")
    parsed = list({str(measure): measure for measure in map(parse_measure, measures)}.values())
    names = tuple(map(str, parsed))
    if not names:
        raise InputError("no measures to evaluate; for example nDCG@20")
    for given, known, what in ((test, Test, "test"), (correction, Correction, "correction")):
        if given not in get_args(known):
            raise unknown_name(given, get_args(known), what)
    if interval is not None and not 0 < interval < 1:
        raise InputError(f"an interval of confidence {interval}: between 0 and 1, for example 0.95")
    topics = sorted(qrels)
    lacking: dict[str, tuple[str, ...]] = {}
    unjudged: dict[str, tuple[str, ...]] = {}
    for name, run in runs.items():
        ids = {query.id for query in run.queries} | run.hits.keys()
        if not ids & qrels.keys():
            raise InputError(
                f"the run {name} and the qrels have no query in common: "
                f"the run has {list_few(sorted(ids))}, the qrels have {list_few(topics)}"
            )
        lacking[name] = tuple(topic for topic in topics if not run[topic])
        unjudged[name] = tuple(sorted(ids - qrels.keys()))

    base = _baseline(baseline, tuple(runs))
    by_document = per == "doc_lang"
    langs = doc_langs
    if langs is None and (by_document or any(map(is_multilingual, parsed))):
        langs = _document_languages(runs, qrels, hits=by_document)
    values = {name: measured(parsed, qrels, run.hits, langs) for name, run in runs.items()}
    groups: dict[str, tuple[list[str], Values]] = {ALL: (topics, values)}
    shares = None
    if by_document:
        assert langs is not None
        groups |= _by_document_language(runs, qrels, parsed, langs)
        shares = fairness.compute_shares({name: run.hits for name, run in runs.items()}, qrels, langs, TOP)
    elif per is not None:
        items = [*queries, *(query for run in runs.values() for query in run.queries)]
        groups |= {group: (members, values) for group, members in _grouped(topics, per, items).items()}
    means = {
        (system, str(measure), group): aggregated(measure, found[system][str(measure)], members)
        if str(measure) in found[system]
        else math.nan
        for group, (members, found) in groups.items()
        for system in runs
        for measure in parsed
    }
    tested = {} if base is None else _comparisons(groups, names, base, test, correction, seed)
    return Table(
        systems=tuple(runs),
        measures=names,
        groups=tuple(groups),
        per=per,
        counts={group: len(members) for group, (members, _) in groups.items()},
        means=means,
        values=values,
        lacking=lacking,
        unjudged=unjudged,
        baseline=base,
        test=test,
        comparisons=None if base is None else tested.pop(ALL),
        correction=correction,
        intervals=None if interval is None else _intervals(groups, tuple(runs), parsed, interval, seed),
        level=interval,
        seed=seed,
        shares=shares,
        deep={name: tuple(t for t in topics if len(run[t]) > DEEPEST) for name, run in runs.items()},
        group_comparisons={(*key, group): told for group, of in tested.items() for key, told in of.items()},
    )


def evaluate_files(
    qrels: Path,
    runs: Sequence[Path],
    *,
    measures: Sequence[Any] | None = None,
    per_language: bool | None = None,
    langs: str | Path | None = None,
    baseline: str | int | None = None,
    test: Test = "t",
    correction: Correction = "holm",
    interval: float | None = None,
    seed: int = 0,
) -> Table:
    """`evaluate` over TREC files; a system is named after its file, or its path where names are the same.

    The documents' languages come from column 2 of the qrels and from `langs`, a file of lines `document
    language` or a collection. Where the relevant documents have several, the table is also per document
    language unless `per_language` says no, and `measures` are, unless given, those of NeuCLIR's MLIR task with
    PEER. `InputError` on files that cannot be read, on a run given twice, and where languages are needed and
    not told.
    """
    grades, column = read_qrels(qrels)
    stems = Counter(path.stem for path in runs)
    if repeated := [path for path, times in Counter(path.resolve() for path in runs).items() if times > 1]:
        raise InputError(f"the run {repeated[0]} is given twice")
    named = _named((path.stem if stems[path.stem] == 1 else str(path), Run.from_trec(path)) for path in runs)
    asked = [parse_measure(measure) for measure in measures or ()]
    needed = bool(per_language) or any(map(is_multilingual, asked))
    spoken = _column_languages(qrels, column, needed and langs is None)
    if langs is not None:
        judged = {doc for of in grades.values() for doc in of}
        hits = {hit.id for run in named.values() for topic in grades for hit in run[topic]}
        spoken = fairness.read_langs(langs, judged | hits) | spoken
    relevant = {spoken.get(doc) for of in grades.values() for doc, grade in of.items() if grade > 0}
    several = None not in relevant and len(relevant) > 1
    if per_language and not spoken:
        raise InputError(
            f"{qrels} does not tell the documents' languages: column 2 holds none (zho, fas, ...); "
            f"give a file of lines `document language`, or a collection (--langs)"
        )
    return evaluate(
        named,
        grades,
        asked if measures is not None else (*MEASURES, *(MLIR if several else ())),
        per="doc_lang" if (several if per_language is None else per_language) else None,
        doc_langs=spoken or None,
        baseline=baseline,
        test=test,
        correction=correction,
        interval=interval,
        seed=seed,
    )


def _named(runs: Mapping[str, Run] | Iterable[tuple[str, Run]]) -> dict[str, Run]:
    named: dict[str, Run] = {}
    for name, run in runs.items() if isinstance(runs, Mapping) else runs:
        if name in named:
            raise InputError(f"two systems have the name {name!r}: give each its own")
        named[name] = run
    return named


def _column_languages(qrels: Path, column: Mapping[str, str], needed: bool) -> dict[str, str]:
    """Column 2 as languages; where it holds other words (`Q`), none, or `InputError` if it is `needed`."""
    try:
        return {doc: parse_language(lang) for doc, lang in column.items()}
    except InputError as error:
        if needed:
            raise InputError(f"{qrels}: column 2 should hold languages: {error}") from None
        return {}


def _grouped(topics: Sequence[str], per: str, items: Iterable[Item]) -> dict[str, list[str]]:
    """Group -> its topics, groups in the order of their names, the topics that have none last."""
    labels: dict[str, str] = {}
    keys: set[str] = set()
    for item in items:
        keys.update(item.meta)
        label = item.lang if per == "lang" else item.meta.get(per)
        if label is not None:
            labels.setdefault(item.id, str(label))
    if not labels.keys() & set(topics):
        if per == "lang":
            raise InputError(
                "no query has a language: give the topics, or `lang` in them, to evaluate per language"
            )
        raise unknown_name(per, ("lang", "doc_lang", *sorted(keys)), "group of queries")
    groups: dict[str, list[str]] = {}
    for topic in topics:
        # A label may not take the name of the column that holds all queries.
        label = labels.get(topic, UNKNOWN)
        groups.setdefault(f"{label}*" if label == ALL else label, []).append(topic)
    return {group: groups[group] for group in sorted(groups, key=lambda group: (group == UNKNOWN, group))}


def _document_languages(runs: Mapping[str, Run], qrels: Qrels, *, hits: bool) -> dict[str, str]:
    """The languages of the relevant documents and, if asked, of the hits, as the runs' `docs` tell them."""
    relevant = {doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0}
    langs: dict[str, str] = {}
    for name, run in runs.items():
        if run.docs is None:
            continue
        ids = set(relevant)
        if hits:
            ids |= {hit.id for topic in run.hits.keys() & qrels.keys() for hit in run[topic]}
        if not (asked := sorted(ids - langs.keys())):
            continue
        try:
            items = run.docs.get(asked)
        except InputError as error:
            raise InputError(
                f"the documents behind {name} do not tell all languages ({error}): give `doc_langs`"
            ) from None
        langs |= {item.id: item.lang for item in items if item.lang}
    return langs


def _by_document_language(
    runs: Mapping[str, Run], qrels: Qrels, measures: Sequence[Any], langs: Mapping[str, str]
) -> dict[str, tuple[list[str], Values]]:
    """Language -> its topics and their values; measures that compare languages have none."""
    within = [measure for measure in measures if not is_multilingual(measure)]
    relevant = {doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0}
    spoken = sorted({langs[doc] for doc in relevant if doc in langs})
    if not spoken:
        raise InputError(
            "no relevant document has a language: give `doc_langs` to evaluate per document language"
        )
    rankings = {system: _split(run, qrels, langs, spoken) for system, run in runs.items()}
    groups: dict[str, tuple[list[str], Values]] = {}
    for lang in spoken:
        part = {
            topic: kept
            for topic, grades in qrels.items()
            if (kept := {doc: grade for doc, grade in grades.items() if langs.get(doc) == lang})
            and any(grade > 0 for grade in kept.values())
        }
        found = {system: measured(within, part, of[lang]) for system, of in rankings.items()}
        groups[f"{lang}*" if lang == ALL else lang] = (list(part), found)
    return groups


def _split(
    run: Run, topics: Iterable[str], langs: Mapping[str, str], spoken: Sequence[str]
) -> dict[str, dict[str, list[Hit]]]:
    """Language -> topic -> its documents' ranking; a document without a language stays in all of them."""
    rankings: dict[str, dict[str, list[Hit]]] = {lang: {} for lang in spoken}
    for topic in topics:
        own: dict[str | None, list[Hit]] = {lang: [] for lang in spoken}
        for hit in run[topic]:
            lang = langs.get(hit[0])
            if lang is None:
                for ranking in own.values():
                    ranking.append(hit)
            elif lang in own:
                own[lang].append(hit)
        for lang in spoken:
            rankings[lang][topic] = own[lang]
    return rankings


def _baseline(baseline: str | int | None, systems: tuple[str, ...]) -> str | None:
    if isinstance(baseline, int):
        if not 0 <= baseline < len(systems):
            raise InputError(f"baseline {baseline}: there are {len(systems)} systems, numbered from 0")
        return systems[baseline]
    if baseline is not None and baseline not in systems:
        raise unknown_name(baseline, systems, "baseline")
    return baseline


def _comparisons(
    groups: Mapping[str, tuple[Sequence[str], Values]],
    measures: Sequence[str],
    baseline: str,
    test: Test,
    correction: Correction,
    seed: int,
) -> dict[str, dict[tuple[str, str], Comparison]]:
    """Group -> (system, measure) -> its test over the group's queries; none where the group lacks the measure."""
    found: dict[str, dict[tuple[str, str], Comparison]] = {group: {} for group in groups}
    for group, (members, values) in groups.items():
        for measure in measures:
            if measure not in values[baseline]:
                continue
            arrays = {
                system: np.array([of[measure][topic] for topic in members]) for system, of in values.items()
            }
            for system, comparison in compared(arrays, baseline, test, correction, seed).items():
                found[group][system, measure] = comparison
    return found


def _intervals(
    groups: Mapping[str, tuple[Sequence[str], Values]],
    systems: Sequence[str],
    measures: Sequence[Any],
    level: float,
    seed: int,
) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Of every mean (or total); a group draws the same queries for all its systems and measures."""
    found: dict[tuple[str, str, str], tuple[float, float]] = {}
    for group, (members, values) in groups.items():
        columns = [(system, measure) for system in systems for measure in measures]
        matrix = np.array(
            [[values[s].get(str(m), {}).get(topic, math.nan) for s, m in columns] for topic in members]
        )
        for (system, measure), ends in zip(columns, bootstrap(matrix, level, seed=seed).T, strict=True):
            low, high = ends * len(members) if is_total(measure) else ends
            found[system, str(measure), group] = (float(low), float(high))
    return found
