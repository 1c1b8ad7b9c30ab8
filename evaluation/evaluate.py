"""Evaluation: measures over runs, per group of queries, with tests and intervals; one frozen `Table`."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_known, list_few, unknown_name
from ..files import STDIN
from ..items import Item, Queries, list_items
from ..multilingual import fairness
from ..multilingual.fairness import UNKNOWN
from ..multilingual.languages import parse_language
from ..runs import Qrels, Run, check_grade, find_relevant, read_qrels
from .alike import describe_alike
from .formulas import find_scale
from .measures import MEASURES, MLIR, aggregate, is_multilingual, is_total, measure_rankings, parse_measure
from .significance import Comparison, Correction, Test, bootstrap, check_statistics, compare_with_baseline
from .table import ALL, DEEPEST, Key, Table, Values

Group = tuple[Sequence[str], Values]  # queries that are averaged together, and every system's values for them

TOP = 20  # the cutoff of languages' shares
_ENDINGS = re.compile(r"\.(trec|run|txt)(\.gz)?$|\.gz$")  # of a run's file; other dots belong to a system's name


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
    queries: Queries = (),
    doc_langs: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Table:
    """Measure runs on the queries of the qrels; one without hits counts as zero (trec_eval's `-c`).

    `measures` are names of ir_measures (`nDCG@20`, `AP`, `RBP(rel=1)`, `R@100`, `RR`, `Judged@20`), its measures
    themselves, or for rankings that hold several languages `alpha_nDCG@20` and `PEER@20`. `per` adds means per group of
    queries: `lang`, a key of their `meta` (their items come from `queries`, else from the runs), or `doc_lang`: each
    language's documents alone, over the queries with relevant documents in it, and the languages' shares of the top 20.
    Documents' languages come from `doc_langs`, else from the runs' `docs`; a document without one stays in every
    language's ranking. `baseline` is a system or its position; `test` a paired t-test, or a randomisation test over
    10,000 samples drawn with `seed` (exact where there are fewer), over all queries and over those of each group, with
    Holm's or Bonferroni's `correction` over systems. `interval` adds bootstrap intervals of means at that confidence
    (0.95), drawn with `seed`. Ranks decide, not scores. `InputError` on unknown measures, keys or baselines, on two
    runs of one name, on a run that has no query in common with the qrels, and on measures that need documents'
    languages which are not known.
    """
    named = _name_runs(runs)
    if not named:
        raise InputError("no runs to evaluate")
    if not qrels:
        raise InputError("no judgements to evaluate with")
    _check_grades(qrels)
    parsed = list({str(measure): measure for measure in map(parse_measure, measures)}.values())
    if not parsed:
        raise InputError("no measures to evaluate; for example nDCG@20")
    check_statistics(test, correction, interval, seed)
    topics = sorted(qrels)
    unjudged = {name: _find_unjudged(name, run, qrels) for name, run in named.items()}
    reference = _find_baseline(baseline, tuple(named))
    if doc_langs is None and (per == "doc_lang" or any(map(is_multilingual, parsed))):
        doc_langs = _find_languages(named, qrels, hits=per == "doc_lang")
    values = {name: measure_rankings(parsed, qrels, run.hits, doc_langs) for name, run in named.items()}
    groups: dict[str, Group] = {ALL: (topics, values)}
    shares = None
    if per == "doc_lang":
        groups |= _group_by_document(named, qrels, parsed, doc_langs or {})
        shares = fairness.compute_shares({name: run.hits for name, run in named.items()}, qrels, doc_langs or {}, TOP)
    elif per is not None:
        items = [*list_items(queries), *(query for run in named.values() for query in run.queries)]
        groups |= {label: (part, values) for label, part in _group_by_query(topics, per, items).items()}
    places = {name: {query.id: place for place, query in enumerate(run.queries)} for name, run in named.items()}
    means, compared, intervals = _summarise(groups, parsed, places, reference, test, correction, interval, seed)
    in_all = {(system, name): each for (system, name, group), each in compared.items() if group == ALL}
    return Table(
        systems=tuple(named),
        measures=tuple(map(str, parsed)),
        groups=tuple(groups),
        per=per,
        counts={label: len(part) for label, (part, _) in groups.items()},
        means=means,
        values=values,
        lacking={name: tuple(topic for topic in topics if not run[topic]) for name, run in named.items()},
        unjudged=unjudged,
        baseline=reference,
        test=test,
        comparisons=None if reference is None else in_all,
        correction=correction,
        intervals=None if interval is None else intervals,
        level=interval,
        seed=seed,
        shares=shares,
        deep={name: tuple(t for t in topics if len(run[t]) > DEEPEST) for name, run in named.items()},
        group_comparisons={key: each for key, each in compared.items() if key[2] != ALL},
        alike=tuple(describe_alike(named, topics)),
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
    """`evaluate` over TREC files; systems are named as by `read_runs`.

    The documents' languages come from column 2 of the qrels and from `langs`, a file of lines `document language` or a
    collection. Where the relevant documents have several, the table is also per document language unless `per_language`
    is false, and `measures` are by default those of NeuCLIR's MLIR task with PEER. `baseline` may also be the path of a
    run. `InputError` on files that cannot be read, on a run given twice, and where languages are needed and not known.
    """
    if [qrels, *runs].count(STDIN) > 1:
        raise InputError("standard input (-) can be read once: give one of the files by its name")
    grades, column = read_qrels(qrels)
    named = read_runs(runs)
    baseline = next((name for name, path in zip(named, runs, strict=True) if baseline == str(path)), baseline)
    parsed = [parse_measure(measure) for measure in measures or ()]
    needed = bool(per_language) or any(map(is_multilingual, parsed))
    doc_langs = _read_column(qrels, column, needed and langs is None)
    if langs is not None:
        judged = {doc for of in grades.values() for doc in of}
        hits = {hit.id for run in named.values() for topic in grades for hit in run[topic]}
        doc_langs = fairness.read_langs(langs, judged | hits) | doc_langs
    relevant = {doc_langs.get(doc) for doc in find_relevant(grades)}
    several = None not in relevant and len(relevant) > 1
    if per_language and not doc_langs:
        raise InputError(
            f"{qrels} does not give the documents' languages: column 2 holds none (zho, fas, ...); "
            f"give a file of lines `document language`, or a collection (--langs)"
        )
    return evaluate(
        named,
        grades,
        parsed if measures is not None else (*MEASURES, *(MLIR if several else ())),
        per="doc_lang" if (several if per_language is None else per_language) else None,
        doc_langs=doc_langs or None,
        baseline=baseline,
        test=test,
        correction=correction,
        interval=interval,
        seed=seed,
    )


def read_runs(paths: Sequence[Path]) -> dict[str, Run]:
    """TREC runs by the name of their file without `.trec`, `.run`, `.txt` and `.gz`, or by its path where names repeat.

    `InputError` on files that cannot be read, and on one given twice.
    """
    if repeated := [path for path, times in Counter(map(os.path.realpath, paths)).items() if times > 1]:
        raise InputError(f"the run {repeated[0]} is given twice")
    names = {path: _ENDINGS.sub("", path.name) or path.name for path in paths}
    times = Counter(names.values())
    return {name if times[name] == 1 else str(path): Run.from_trec(path) for path, name in names.items()}


def _check_grades(qrels: Qrels) -> None:
    if not isinstance(qrels, Mapping) or not all(isinstance(each, Mapping) for each in qrels.values()):
        raise InputError("qrels map the ids of topics to those of documents to grades, as {'q1': {'d1': 1}}")
    for topic, grades in qrels.items():
        for doc, grade in grades.items():
            for id in (topic, doc):
                if not isinstance(id, str):
                    raise InputError(f"the ids in qrels must be text, not {id!r} ({type(id).__name__})")
            if not isinstance(grade, Integral):
                raise InputError(f"topic {topic!r}, document {doc!r}: the grade {grade!r} is not a whole number")
            try:
                check_grade(grade)
            except InputError as error:
                raise InputError(f"topic {topic!r}, document {doc!r}: {error}") from None


def _name_runs(runs: Mapping[str, Run] | Iterable[tuple[str, Run]]) -> dict[str, Run]:
    named: dict[str, Run] = {}
    for name, run in runs.items() if isinstance(runs, Mapping) else runs:
        if name in named:
            raise InputError(f"two systems have the name {name!r}: give each its own")
        named[name] = run
    return named


def _find_unjudged(name: str, run: Run, qrels: Qrels) -> tuple[str, ...]:
    """The run's queries that the qrels do not have; `InputError` where that is all of them."""
    ids = {query.id for query in run.queries} | run.hits.keys()
    if not ids & qrels.keys():
        raise InputError(
            f"the run {name} and the qrels have no query in common: "
            f"the run has {list_few(sorted(ids))}, the qrels have {list_few(sorted(qrels))}"
        )
    return tuple(sorted(ids - qrels.keys()))


def _find_baseline(baseline: str | int | None, systems: tuple[str, ...]) -> str | None:
    if isinstance(baseline, str) and baseline not in systems and baseline.isascii() and baseline.isdecimal():
        baseline = int(baseline)  # as it comes from a command line
    if isinstance(baseline, int):
        if not 0 <= baseline < len(systems):
            raise InputError(f"baseline {baseline}: there are {len(systems)} systems, numbered from 0")
        return systems[baseline]
    if baseline is not None:
        check_known(baseline, systems, "baseline")
    return baseline


def _read_column(qrels: Path, column: Mapping[str, str], needed: bool) -> dict[str, str]:
    """Column 2 as languages; where it holds other words (`Q`), none, or `InputError` if it is `needed`."""
    try:
        return {doc: parse_language(lang) for doc, lang in column.items()}
    except InputError as error:
        if needed:
            raise InputError(f"{qrels}: column 2 should hold languages: {error}") from None
        return {}


def _find_languages(runs: Mapping[str, Run], qrels: Qrels, *, hits: bool) -> dict[str, str]:
    """The languages of the relevant documents and, if wanted, of the hits, from the runs' `docs`."""
    relevant = find_relevant(qrels)
    langs: dict[str, str] = {}
    for name, run in runs.items():
        found = {hit.id for topic in run.hits.keys() & qrels.keys() for hit in run[topic]} if hits else set()
        unknown = sorted((relevant | found) - langs.keys())
        try:
            if run.docs is not None and unknown:
                langs |= {item.id: item.lang for item in run.docs.get(unknown) if item.lang}
        except InputError as error:
            raise InputError(
                f"the documents behind {name} do not give all languages ({error}): give `doc_langs`"
            ) from None
    return langs


def _group_by_query(topics: Sequence[str], per: str, items: Sequence[Item]) -> dict[str, list[str]]:
    """Label -> its topics, labels in alphabetical order, the topics that have none last."""
    found = ((item.id, item.lang if per == "lang" else item.meta.get(per)) for item in reversed(items))
    labels = {id: str(label) for id, label in found if label is not None}  # that of the first item with the id
    if not labels.keys() & set(topics):
        if per == "lang":
            raise InputError("no query has a language: give the topics, or `lang` in them, to evaluate per language")
        known = {"lang", "doc_lang"}.union(*(item.meta for item in items))
        raise unknown_name(per, sorted(known), "group of queries")
    groups: dict[str, list[str]] = {}
    for topic in topics:
        groups.setdefault(_keep_apart(labels.get(topic, UNKNOWN)), []).append(topic)
    return {label: groups[label] for label in sorted(groups, key=lambda label: (label == UNKNOWN, label))}


def _group_by_document(
    runs: Mapping[str, Run], qrels: Qrels, measures: Sequence[Any], langs: Mapping[str, str]
) -> dict[str, Group]:
    """Language -> its topics and their values; measures that compare languages have none."""
    within = [measure for measure in measures if not is_multilingual(measure)]
    languages = sorted({langs[doc] for doc in find_relevant(qrels) if doc in langs})
    if not languages:
        raise InputError("no relevant document has a language: give `doc_langs` to evaluate per document language")
    groups: dict[str, Group] = {}
    scale = find_scale(qrels)
    for lang in languages:
        own = {t: {doc: g for doc, g in of.items() if langs.get(doc) == lang} for t, of in qrels.items()}
        own = {topic: grades for topic, grades in own.items() if any(g > 0 for g in grades.values())}
        values = {}
        for system, run in runs.items():
            # A document whose language is not known stays in all rankings.
            hits = {topic: [hit for hit in run[topic] if langs.get(hit.id, lang) == lang] for topic in own}
            values[system] = measure_rankings(within, own, hits, scale=scale)
        groups[_keep_apart(lang)] = (list(own), values)
    return groups


def _keep_apart(label: str) -> str:
    """A label may not take the name of the column that holds all queries."""
    return f"{label}*" if label == ALL else label


def _summarise(
    groups: Mapping[str, Group],
    measures: Sequence[Any],
    places: Mapping[str, Mapping[str, int]],
    baseline: str | None,
    test: Test,
    correction: Correction,
    interval: float | None,
    seed: int,
) -> tuple[dict[Key, float], dict[Key, Comparison], dict[Key, tuple[float, float]]]:
    """Means (nan where a group lacks a measure), comparisons with the baseline, and intervals of the means.

    A mean is added up in the order of the run's queries (`places`), as ir_measures does: it has the same last digit.
    """
    means: dict[Key, float] = {}
    compared: dict[Key, Comparison] = {}
    intervals: dict[Key, tuple[float, float]] = {}
    for label, (queries, values) in groups.items():
        ordered = {system: sorted(queries, key=lambda query: of.get(query, -1)) for system, of in places.items()}
        columns: dict[Key, np.ndarray] = {}
        for measure in measures:
            name = str(measure)
            keys = {system: (system, name, label) for system in values}
            if not all(name in of for of in values.values()):
                means |= dict.fromkeys(keys.values(), math.nan)
                intervals |= dict.fromkeys(keys.values(), (math.nan, math.nan))
                continue
            means |= {keys[system]: aggregate(measure, of[name], ordered[system]) for system, of in values.items()}
            arrays = {system: np.array([of[name][query] for query in queries]) for system, of in values.items()}
            if baseline is not None:
                against = compare_with_baseline(arrays, baseline, test, correction, seed)
                compared |= {keys[system]: each for system, each in against.items()}
            scale = len(queries) if is_total(measure) else 1
            columns |= {keys[system]: scale * array for system, array in arrays.items()}
        if interval is not None:  # drawn of the same queries for all systems and measures
            ends = bootstrap(np.column_stack(list(columns.values())), interval, seed=seed)
            intervals |= {key: (low, high) for key, (low, high) in zip(columns, ends.T.tolist(), strict=True)}
    return means, compared, intervals
