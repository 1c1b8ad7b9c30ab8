"""Sorters with judges that err: quality against calls, simulated, without any model.

    python benchmarks/sorters.py --plot docs/assets/sorters.png --save docs/measured/sorters.json    # an hour of one core

A query has n candidates, of which 1 + Poisson(6) are relevant, with grades 1, 2 and 3 in shares .5, .3 and .2. What a
judge would say of a candidate by itself is its grade plus normal noise of deviation 0.5, in log-odds; a first stage
sees that with further noise of deviation 1.5. Each time it is shown, the judge sees a candidate with fresh Gumbel noise
of scale `temperature`, so that it chooses as a softmax at that temperature does, and with a preference that grows with
the square of the place, up to `preference` for the last. It answers with the log-probabilities of a softmax of what it sees, or with
the name of the best alone (which is all that the other sorters use). Pointwise, it says what it sees of each candidate.

Reported are nDCG@10 (gains 2^grade - 1), how often the best candidate comes first, calls and rounds of each sorter; of
plackett also with as many calls as each other sorter took for the same query, though no more than show each candidate
eight times (difference of nDCG@10, paired t-test); and how often the judge names the best of four neighbours in the first stage's order, for comparison with real ones.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from crosslens.commands.console import run_guarded
from crosslens.errors import InputError
from crosslens.files import place_atomically
from crosslens.multilingual.reranking.plackett import Plackett
from crosslens.multilingual.reranking.rerank import drive
from crosslens.multilingual.reranking.sorters import Bubblesort, Heapsort, Pointwise, Sorter, Tournament
from crosslens.runs import Hit
from measurements import Table, add_save, save, show_p
from rerank_show import aligned

K = 10
BUDGETS = (1, 2, 4, 8)  # of plackett: how often each candidate could be shown
Found = dict[str, list[tuple[float, float, int, int]]]  # nDCG@10, best first, calls, rounds of each query


@dataclass(frozen=True)
class Setting:
    """One kind of judge, and how many candidates it is shown."""

    candidates: int
    size: int  # of sets
    temperature: float
    preference: float


@dataclass(frozen=True)
class Query:
    """Candidates in the first stage's order."""

    grades: np.ndarray
    worth: np.ndarray
    hits: tuple[Hit, ...]


class Judge:
    """Sees candidates with noise and with a preference for late places; counts."""

    def __init__(
        self, worth: np.ndarray, setting: Setting, seed: int, *, names: bool = False, both: bool = False
    ) -> None:
        self.worth, self.setting, self.names, self.both = worth, setting, names, both
        self.chance = np.random.default_rng(seed)
        self.calls = self.rounds = 0

    def __call__(self, groups: Sequence[tuple[str, tuple[Hit, ...]]]) -> list[np.ndarray]:
        self.rounds += 1
        self.calls += len(groups) * (1 + self.both)
        shown = [np.array([int(hit.id) for hit in hits]) for _, hits in groups]
        if self.both:
            return [(self.answer(each) + self.answer(each[::-1])[::-1]) / 2 for each in shown]
        return [self.answer(each) for each in shown]

    def answer(self, shown: np.ndarray) -> np.ndarray:
        """The scores of the candidates of one set, as it is shown."""
        seen = self.worth[shown] + self.setting.temperature * self.chance.gumbel(size=len(shown))
        if len(shown) == 1:
            return seen
        seen = seen + self.setting.preference * np.linspace(0, 1, len(shown)) ** 2
        if self.names:
            return np.eye(len(shown))[int(seen.argmax())]
        seen = seen / max(self.setting.temperature, 0.1)
        return seen - np.logaddexp.reduce(seen)


def make_query(n: int, seed: int) -> Query:
    """Grades, what a judge would say of each, and a first stage that is right in part."""
    chance = np.random.default_rng(seed)
    relevant = min(n // 2, 1 + chance.poisson(6))
    grades = np.zeros(n, int)
    grades[:relevant] = chance.choice([1, 2, 3], relevant, p=[0.5, 0.3, 0.2])
    worth = grades + chance.normal(0, 0.5, n)
    first = worth + chance.normal(0, 1.5, n)
    order = np.argsort(-first)
    hits = tuple(Hit(str(place), float(score)) for place, score in enumerate(first[order]))
    return Query(grades[order], worth[order], hits)


def measure(query: Query, order: Sequence[int]) -> tuple[float, float]:
    """nDCG@10, and whether the best is first."""
    gains = 2.0**query.grades - 1
    discounts = 1 / np.log2(np.arange(K) + 2)
    ideal = discounts @ np.sort(gains)[::-1][:K]
    return float(discounts @ gains[list(order[:K])] / ideal), float(order[0] == query.worth.argmax())


def sort(sorter: Sorter, query: Query, judge: Judge) -> tuple[float, float, int, int]:
    """What came of sorting one query, and what it took."""
    ((_, ranked),) = drive([("query", sorter(query.hits, K))], judge, 1)
    return *measure(query, [int(hit.id) for hit in ranked]), judge.calls, judge.rounds


def sorters_of(size: int) -> dict[str, Sorter]:
    """Those that plackett is compared with, all with sets of one size."""
    return {
        "heapsort": Heapsort(arity=size - 1),
        "bubblesort": Bubblesort(arity=size - 1),
        "tournament": Tournament(arity=size),
    }


def simulate(setting: Setting, queries: int) -> dict[str, Any]:
    """All sorters under one kind of judge."""
    found: Found = defaultdict(list)
    equal: dict[str, list[float]] = defaultdict(list)
    right: list[bool] = []
    n, size = setting.candidates, setting.size
    ours = {"plackett": Plackett(arity=size)}
    ours |= {
        f"plackett, {math.ceil(n * share / size)} calls": Plackett(arity=size, calls=math.ceil(n * share / size))
        for share in BUDGETS
    }
    for seed in range(queries):
        query = make_query(n, seed)

        def judge(**how: bool) -> Judge:
            return Judge(query.worth, setting, seed, **how)  # noqa: B023 - called in this turn

        right += name_best(query, judge(names=True))
        found["first stage"].append((*measure(query, range(n)), 0, 0))
        found["pointwise"].append(sort(Pointwise(), query, judge()))
        for name, sorter in ours.items():
            found[name].append(sort(sorter, query, judge()))
            found[f"{name}, best only"].append(sort(sorter, query, judge(names=True)))
        for name, sorter in sorters_of(size).items():
            theirs = sort(sorter, query, judge())
            found[name].append(theirs)
            calls = min(theirs[2], math.ceil(n * BUDGETS[-1] / size))
            as_often = sort(Plackett(arity=size, calls=calls), query, judge())
            equal[name].append(as_often[0] - theirs[0])
            found[f"{name}, both orders"].append(sort(sorter, query, judge(both=True)))
    return {
        **asdict(setting),
        "names_the_best_of_four": round(float(np.mean(right)), 4),
        "sorters": {name: summarise(rows) for name, rows in found.items()},
        "plackett_at_equal_calls": {
            name: {
                "difference": round(float(np.mean(each)), 4),
                "p": float(scipy.stats.ttest_1samp(each, 0).pvalue) if np.ptp(each) else 1.0,
            }
            for name, each in equal.items()
        },
    }  # fmt: skip


def name_best(query: Query, judge: Judge) -> list[bool]:
    """Whether it names the best, of the first sixteen in sets of four neighbours."""
    sets = np.arange(16).reshape(4, 4)
    return [bool(judge.answer(each).argmax() == query.worth[each].argmax()) for each in sets]


def summarise(rows: Sequence[tuple[float, float, int, int]]) -> dict[str, float]:
    """Means over the queries, and the standard error of the first."""
    ndcg, first, calls, rounds = np.array(rows, float).T
    error = ndcg.std(ddof=1) / math.sqrt(len(ndcg)) if len(ndcg) > 1 else 0.0
    numbers = {
        "nDCG@10": ndcg.mean(),
        "error": error,
        "top1": first.mean(),
        "calls": calls.mean(),
        "rounds": rounds.mean(),
    }
    return {name: round(float(value), 4) for name, value in numbers.items()}


def tables(settings: Sequence[Mapping[str, Any]]) -> list[Table]:
    """For each number of candidates and size of sets: quality under every judge, and what it takes."""
    found = []
    for (n, size), some in _by(settings, "candidates", "size").items():
        heads = [
            f"T {each['temperature']:g}" + (f", place {each['preference']:g}" if each["preference"] else "")
            for each in some
        ]
        rows = [
            ["the judge names the best of four", "", "", *(f"{each['names_the_best_of_four']:.2f}" for each in some)]
        ]
        for name in some[0]["sorters"]:
            each = [setting["sorters"][name] for setting in some]
            costs = [f"{np.mean([found[cost] for found in each]):.0f}" for cost in ("calls", "rounds")]
            rows.append([name, *costs, *(f"{found['nDCG@10']:.3f}" for found in each)])
        for name in some[0]["plackett_at_equal_calls"]:
            each = [setting["plackett_at_equal_calls"][name] for setting in some]
            shown = [f"{found['difference']:+.3f} (p {show_p(found['p'])})" for found in each]
            rows.append([f"plackett less {name}, at equal calls", "", "", *shown])
        better = dict.fromkeys(heads, "higher")
        found.append(Table(["sorter", "calls", "rounds", *heads], rows, f"{n} candidates, sets of {size}", better))
    return found


def for_pages(settings: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Of the smallest sets the tables of the fewest and the most candidates, without what is between."""
    size = min(each["size"] for each in settings)
    numbers = {each["candidates"] for each in settings}
    some = [each for each in settings if each["size"] == size and each["candidates"] in (min(numbers), max(numbers))]
    made = tables(some)
    left_out = re.compile(r"plackett, \d+ calls, best only|(bubblesort|tournament), both orders")
    return [replace(table, rows=[row for row in table.rows if not left_out.fullmatch(row[0])]) for table in made]


def draw(settings: Sequence[Mapping[str, Any]], path: Path) -> None:
    """nDCG@10 against calls, a panel for each judge with errors; `InputError` without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt
    except ImportError:
        raise InputError("a plot needs matplotlib: pip install 'crosslens[benchmark]'") from None
    size = settings[0]["size"]
    rows = _by([each for each in settings if each["size"] == size and each["temperature"]], "temperature", "preference")
    if not rows:
        raise InputError("there is nothing to draw: give a --temperature above 0")
    columns = max(map(len, rows.values()))
    figure, axes = plt.subplots(len(rows), columns, figsize=(4.4 * columns, 3 * len(rows)), squeeze=False)
    for line, ((temperature, preference), some) in zip(axes, rows.items(), strict=True):
        for axis, setting in zip(line, some, strict=False):
            _panel(axis, setting["sorters"])
            axis.set_title(
                f"n {setting['candidates']}, temperature {temperature:g}, preference {preference:g}", fontsize=9
            )
        line[0].set_ylabel("nDCG@10")
    axes[0][0].legend(fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("calls")
    figure.tight_layout()
    try:
        with place_atomically(path) as partial:
            figure.savefig(partial, dpi=80, format=path.suffix.removeprefix(".") or None)
    finally:
        plt.close(figure)


def _panel(axis: Any, found: Mapping[str, Mapping[str, float]]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for best_only, style in ((False, "-o"), (True, "--o")):
        names = [name for name in found if name.startswith("plackett, ") and "calls" in name]
        ours = [found[name] for name in names if name.endswith("best only") == best_only]
        label = "plackett" + ", best only" * best_only
        axis.plot(
            [each["calls"] for each in ours], [each["nDCG@10"] for each in ours], style, label=label, markersize=3
        )
    for name, each in found.items():
        if name != "first stage" and not name.startswith("plackett"):
            axis.plot(each["calls"], each["nDCG@10"], "s" if "both" in name else "D", label=name, markersize=5)
    axis.axhline(found["first stage"]["nDCG@10"], color="0.5", linestyle=":", linewidth=1)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(True, linewidth=0.4, alpha=0.6)


def _by(settings: Sequence[Mapping[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for each in settings:
        groups.setdefault(tuple(each[key] for key in keys), []).append(each)
    return groups


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(part) for part in text.split(","))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=30, help="of each kind of judge (%(default)s)")
    parser.add_argument("--candidates", type=_numbers(int), default=(20, 50, 100), metavar="N,...", help="%(default)s")
    parser.add_argument("--sizes", type=_numbers(int), default=(4, 10), metavar="S,...", help="of sets: %(default)s")
    parser.add_argument(
        "--temperatures", type=_numbers(float), default=(0.0, 0.5, 1.0), metavar="T,...", help="%(default)s"
    )
    parser.add_argument("--preferences", type=_numbers(float), default=(0.0, 1.5), metavar="P,...", help="%(default)s")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="nDCG@10 against calls, .png or .svg")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, the tables on stderr")
    add_save(parser)
    options = parser.parse_args(arguments)
    if options.queries < 1 or min(options.candidates) < 16 or min(options.sizes) < 3 or min(options.temperatures) < 0:
        parser.error("--queries must be at least 1, --candidates 16, --sizes 3, --temperatures 0")
    grid = product(options.candidates, options.sizes, options.preferences, options.temperatures)
    settings = []
    for n, size, preference, temperature in grid:
        settings.append(simulate(Setting(n, size, temperature, preference), options.queries))
        print(
            f"{len(settings)}: {n} candidates, sets of {size}, T {temperature:g}, place {preference:g}", file=sys.stderr
        )
    report = {"queries": options.queries, "k": K, "settings": settings}
    made = tables(settings)
    note = (
        f"nDCG@10 over {options.queries} simulated queries. T is the temperature of the judge's choices, place its preference for the "
        f"last place, in log-odds; calls and rounds are means over the judges. *best only*: the judge names the best of a set and says "
        f"no more. *both orders*: each set is asked forwards and backwards. "
        f"At equal calls: no more than show each candidate {BUDGETS[-1]} times; p is of a paired t-test, not corrected for their number."
    )
    save(options.save, report, for_pages(settings), [note])
    out = sys.stderr if options.json else sys.stdout
    for table in made:
        print("\n".join([table.title, *aligned([list(table.columns), *map(list, table.rows)])]) + "\n", file=out)
    if options.json:
        print(json.dumps(report))
    if options.plot:
        draw(settings, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: sys.exit(main())))
