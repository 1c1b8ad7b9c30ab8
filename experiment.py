"""Experiments: measures over runs, per group of queries, with significance tests; one frozen `Table`."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import InputError, nearest
from .items import Item
from .measures import MEASURES, aggregated, measured, parse_measure
from .multilingual.languages import iso
from .runs import Qrels, Run, read_qrels, some

if TYPE_CHECKING:
    import rich.console
    import rich.table

ALL = "all"
UNKNOWN = "unknown"
LEVEL = 0.05  # a corrected p below this is marked

Test = Literal["t", "randomisation"]


@dataclass(frozen=True)
class Comparison:
    """A system against the baseline on one measure, over all queries.

    `difference` is system minus baseline; `p` is two-sided; `corrected` is Holm's (1979) over all systems
    compared on this measure. Both are nan for fewer than two queries.
    """

    difference: float
    p: float
    corrected: float
    better: int
    worse: int

    @property
    def significant(self) -> bool:
        return self.corrected < LEVEL


@dataclass(frozen=True)
class Table:
    """What `evaluate` found.

    `means` maps (system, measure, group) to the mean over the group's queries, the group `all` holding every
    query of the qrels. `values` maps system, measure and query to the value. `lacking` names, by system, the
    judged queries without a hit, which count as zero; `unjudged` those that the qrels do not have and that do
    not count.
    """

    systems: tuple[str, ...]
    measures: tuple[str, ...]
    groups: tuple[str, ...]
    per: str | None
    counts: Mapping[str, int]
    means: Mapping[tuple[str, str, str], float]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    lacking: Mapping[str, tuple[str, ...]]
    unjudged: Mapping[str, tuple[str, ...]]
    baseline: str | None = None
    test: Test = "t"
    comparisons: Mapping[tuple[str, str], Comparison] | None = None

    def mean(self, system: str, measure: str, group: str = ALL) -> float:
        """`InputError` on an unknown system, measure or group."""
        for given, known, what in (
            (system, self.systems, "system"),
            (measure, self.measures, "measure"),
            (group, self.groups, "group"),
        ):
            if given not in known:
                raise nearest(given, known, what)
        return self.means[system, measure, group]

    def to_json(self, *, per_query: bool = False) -> dict[str, object]:
        """A dict for JSON; nan becomes None. `per_query` adds every query's value."""
        systems: list[dict[str, object]] = []
        for system in self.systems:
            entry: dict[str, object] = {
                "name": system,
                "means": {
                    m: {g: _number(self.means[system, m, g]) for g in self.groups} for m in self.measures
                },
                "lacking": list(self.lacking[system]),
                "unjudged": list(self.unjudged[system]),
            }
            if self.comparisons is not None and system != self.baseline:
                entry["against_baseline"] = {
                    m: {key: _number(value) for key, value in asdict(self.comparisons[system, m]).items()}
                    for m in self.measures
                }
            if per_query:
                entry["values"] = {m: dict(self.values[system][m]) for m in self.measures}
            systems.append(entry)
        return {
            "measures": list(self.measures),
            "per": self.per,
            "queries": dict(self.counts),
            "baseline": self.baseline,
            "test": self.test if self.baseline is not None else None,
            "systems": systems,
        }

    def markdown(self) -> str:
        """The tables in Markdown: measures over all queries, then a table of groups for each measure."""
        parts = []
        for title, head, rows in self._tables():
            lines = [f"**{_cell(title)}**", ""] if title else []
            lines += ["| " + " | ".join(_cell(h) for h in head) + " |"]
            lines += ["|---" + "|---:" * (len(head) - 1) + "|"]
            for row in rows:
                cells = [_cell(row[0][0]), *(f"**{text}**" if best else text for text, best in row[1:])]
                lines.append("| " + " | ".join(cells) + " |")
            parts.append("\n".join(lines))
        parts += [_cell(note) for note in self.notes()]
        return "\n\n".join(parts) + "\n"

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers, one sentence a line."""
        notes = []
        if self.comparisons:
            name = {"t": "paired t-test", "randomisation": "paired randomisation test"}[self.test]
            notes.append(
                f"† differs from {self.baseline} (two-sided {name}, Holm-corrected over systems, p < {LEVEL})"
            )
        for system in self.systems:
            if lacking := self.lacking[system]:
                notes.append(
                    f"{system} has no hit for {len(lacking)} judged queries, counted as 0: {some(lacking)}"
                )
            if unjudged := self.unjudged[system]:
                notes.append(f"{system} has queries without judgements, not counted: {some(unjudged)}")
        return notes

    def __rich__(self) -> rich.console.Group:
        import rich.console
        import rich.table
        from rich.text import Text

        parts: list[Any] = []
        for title, head, rows in self._tables():
            table = rich.table.Table(title=Text(title) if title else None, title_justify="left")
            table.add_column(Text(head[0]), overflow="fold")
            for column in head[1:]:
                table.add_column(Text(column), justify="right")
            for row in rows:
                table.add_row(*(Text(text, style="bold" if best else "") for text, best in row))
            parts.append(table)
        return rich.console.Group(*parts, *map(Text, self.notes()))

    def show(self) -> None:
        """Print the tables on stdout: bold where that is a terminal, plain where it is not."""
        import rich.console

        rich.console.Console(width=None if sys.stdout.isatty() else self._width()).print(self)

    def __str__(self) -> str:
        """The tables as plain text, without colour codes."""
        import io

        import rich.console

        out = io.StringIO()
        rich.console.Console(file=out, width=self._width(), color_system=None, force_terminal=False).print(
            self
        )
        return out.getvalue()

    def _width(self) -> int:
        """Columns enough for every table and note on lines of their own."""
        columns = max(len(self.measures), len(self.groups) if len(self.groups) > 1 else 0)
        longest = max(map(len, (*self.systems, *self.measures, *self.groups)))
        return max(110, *map(len, self.notes() or [""]), (longest + 12) * (columns + 1))

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[tuple[str, bool]]]]]:
        """Title, head, and rows of cells; a cell is its text and whether it is the best of its column."""
        queries = f"{self.counts[ALL]} queries"
        yield (
            "",
            [f"system ({queries})", *self.measures],
            self._rows([(measure, ALL) for measure in self.measures]),
        )
        if len(self.groups) > 1:
            for measure in self.measures:
                head = [f"{group} ({self.counts[group]})" for group in self.groups]
                yield (
                    f"{measure} per {self.per}",
                    ["system", *head],
                    self._rows([(measure, g) for g in self.groups]),
                )

    def _rows(self, columns: Sequence[tuple[str, str]]) -> list[list[tuple[str, bool]]]:
        best = {c: max(self.means[system, *c] for system in self.systems) for c in columns}
        rows = []
        for system in self.systems:
            row = [(system, False)]
            for measure, group in columns:
                mean = self.means[system, measure, group]
                compared = (self.comparisons or {}).get((system, measure)) if group == ALL else None
                mark = "†" if compared is not None and compared.significant else ""
                row.append((f"{mean:.4f}{mark}", len(self.systems) > 1 and mean == best[measure, group]))
            rows.append(row)
        return rows


def evaluate(
    runs: Mapping[str, Run],
    qrels: Qrels,
    measures: Sequence[str] = MEASURES,
    *,
    per: str | None = None,
    baseline: str | int | None = None,
    test: Test = "t",
    queries: Iterable[Item] = (),
    doc_langs: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Table:
    """Measure runs on the queries of the qrels; one without hits counts as zero (trec_eval's `-c`).

    `measures` are names of ir_measures (`nDCG@20`, `AP`, `RBP(rel=1)`, `R@100`, `RR`, `Judged@20`). `per`
    adds means per group of queries: `lang`, a key of their `meta` (their items come from `queries`, else from
    the runs), or `doc_lang`: each language's documents alone, over the queries with relevant documents in it.
    Their languages come from `doc_langs`, else from the runs' `docs`; a document without one stays in every
    language's ranking. `baseline` is a system or its position; `test` a paired t-test, or a randomisation
    test over 10,000 samples drawn with `seed` (exact where there are fewer). Ranks decide, not scores.
    `InputError` on unknown measures, keys or baselines, and on a run that has no query in common with the
    qrels.
    """
    if not runs:
        raise InputError("no runs to evaluate")
    if not qrels:
        raise InputError("no judgements to evaluate with")
    parsed = [parse_measure(name) for name in measures]
    names = tuple(dict.fromkeys(str(measure) for measure in parsed))
    parsed = [next(m for m in parsed if str(m) == name) for name in names]
    if not names:
        raise InputError("no measures to evaluate; for example nDCG@20")
    if test not in ("t", "randomisation"):
        raise nearest(test, ("t", "randomisation"), "test")
    topics = sorted(qrels)
    lacking: dict[str, tuple[str, ...]] = {}
    unjudged: dict[str, tuple[str, ...]] = {}
    for name, run in runs.items():
        ids = {query.id for query in run.queries} | run.hits.keys()
        if not ids & qrels.keys():
            raise InputError(
                f"the run {name} and the qrels have no query in common: "
                f"the run has {some(sorted(ids))}, the qrels have {some(topics)}"
            )
        lacking[name] = tuple(topic for topic in topics if not run[topic])
        unjudged[name] = tuple(sorted(ids - qrels.keys()))

    values = {name: measured(parsed, qrels, run.hits) for name, run in runs.items()}
    means: dict[tuple[str, str, str], float] = {}
    counts = {ALL: len(topics)}
    groups: dict[str, list[str]] = {ALL: topics}
    if per is not None and per != "doc_lang":
        groups |= _grouped(
            topics, per, [*queries, *(query for run in runs.values() for query in run.queries)]
        )
    for group, members in groups.items():
        counts[group] = len(members)
        for system in runs:
            for measure in parsed:
                means[system, str(measure), group] = aggregated(
                    measure, values[system][str(measure)], members
                )
    if per == "doc_lang":
        for lang, count, found in _by_document_language(runs, qrels, parsed, doc_langs):
            counts[lang] = count
            means |= {(system, measure, lang): mean for (system, measure), mean in found.items()}

    base = _baseline(baseline, tuple(runs))
    return Table(
        systems=tuple(runs),
        measures=names,
        groups=tuple(counts),
        per=per,
        counts=counts,
        means=means,
        values=values,
        lacking=lacking,
        unjudged=unjudged,
        baseline=base,
        test=test,
        comparisons=None if base is None else _comparisons(values, names, topics, base, test, seed),
    )


def evaluate_files(
    qrels: Path,
    runs: Sequence[Path],
    *,
    measures: Sequence[str] = MEASURES,
    per_language: bool = False,
    baseline: str | int | None = None,
    test: Test = "t",
) -> Table:
    """`evaluate` over TREC files; a system is named after its file, or its path where names are the same.

    `per_language` is per document language, which column 2 of the qrels must tell.
    """
    grades, langs = read_qrels(qrels)
    if per_language and not langs:
        raise InputError(
            f"{qrels} does not tell the documents' languages: column 2 holds none (zho, fas, ...)"
        )
    stems = Counter(path.stem for path in runs)
    if repeated := [path for path, times in Counter(runs).items() if times > 1]:
        raise InputError(f"the run {repeated[0]} is given twice")
    named = {path.stem if stems[path.stem] == 1 else str(path): Run.from_trec(path) for path in runs}
    return evaluate(
        named,
        grades,
        measures,
        per="doc_lang" if per_language else None,
        doc_langs={doc: iso(lang) for doc, lang in langs.items()} if per_language else None,
        baseline=baseline,
        test=test,
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of p-values for their number; nan stays nan and does not count."""
    real = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    corrected = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(real):
        highest = max(highest, min(1.0, (len(real) - rank) * p))
        corrected[i] = highest
    return corrected


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
        raise nearest(per, ("lang", "doc_lang", *sorted(keys)), "group of queries")
    groups: dict[str, list[str]] = {}
    for topic in topics:
        # A label may not take the name of the column that holds all queries.
        label = labels.get(topic, UNKNOWN)
        groups.setdefault(f"{label}*" if label == ALL else label, []).append(topic)
    return {group: groups[group] for group in sorted(groups, key=lambda group: (group == UNKNOWN, group))}


def _by_document_language(
    runs: Mapping[str, Run], qrels: Qrels, measures: Sequence[Any], given: Mapping[str, str] | None
) -> Iterator[tuple[str, int, dict[tuple[str, str], float]]]:
    langs = dict(given or {})
    if given is None:
        for run in runs.values():
            if run.docs is not None:
                for topic in run.hits.keys() & qrels.keys():
                    langs |= {item.id: item.lang for item in run.items(topic) if item.lang}
    relevant = {doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0}
    spoken = sorted({langs[doc] for doc in relevant if doc in langs})
    if not spoken:
        raise InputError(
            "no relevant document has a language: give `doc_langs` to evaluate per document language"
        )
    for lang in spoken:
        part = {
            topic: kept
            for topic, grades in qrels.items()
            if (kept := {doc: grade for doc, grade in grades.items() if langs.get(doc) == lang})
            and any(grade > 0 for grade in kept.values())
        }
        found: dict[tuple[str, str], float] = {}
        for system, run in runs.items():
            hits = {topic: [hit for hit in run[topic] if langs.get(hit.id, lang) == lang] for topic in part}
            values = measured(measures, part, hits)
            for measure in measures:
                found[system, str(measure)] = aggregated(measure, values[str(measure)], part)
        yield lang, len(part), found


def _baseline(baseline: str | int | None, systems: tuple[str, ...]) -> str | None:
    if isinstance(baseline, int):
        if not 0 <= baseline < len(systems):
            raise InputError(f"baseline {baseline}: there are {len(systems)} systems, numbered from 0")
        return systems[baseline]
    if baseline is not None and baseline not in systems:
        raise nearest(baseline, systems, "baseline")
    return baseline


def _comparisons(
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    measures: Sequence[str],
    topics: Sequence[str],
    baseline: str,
    test: Test,
    seed: int,
) -> dict[tuple[str, str], Comparison]:
    compared: dict[tuple[str, str], Comparison] = {}
    for measure in measures:
        theirs = np.array([values[baseline][measure][topic] for topic in topics])
        others = [system for system in values if system != baseline]
        differences = [
            np.array([values[system][measure][topic] for topic in topics]) - theirs for system in others
        ]
        ps = [_p(difference, test, seed) for difference in differences]
        for system, d, p, corrected in zip(others, differences, ps, holm(ps), strict=True):
            compared[system, measure] = Comparison(
                float(d.mean()), p, corrected, int((d > 0).sum()), int((d < 0).sum())
            )
    return compared


def _p(differences: np.ndarray, test: Test, seed: int) -> float:
    """Two-sided p-value of paired differences."""
    import scipy.stats

    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    if test == "t":
        if np.ptp(differences) == 0:
            return 0.0  # the same difference on every query: the statistic is infinite
        return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)
    result = scipy.stats.permutation_test(
        (differences,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10_000,
        batch=1_000,
        rng=seed,
    )
    return float(result.pvalue)


def _number(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
