"""How the methods of a reranking benchmark differ: which place in a set they prefer, and how far their orders agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, zip_longest
from typing import Any

import numpy as np
from crosslens.multilingual.prompts.places import read_places
from measurements import Table
from rerank_answers import Judged
from rerank_show import find_shared, label

PLACES = 4  # of a set that have a column of their own


def find_bias(counts: Mapping[str, int], judged: Judged) -> dict[str, Any]:
    """How often each place of a set was chosen, by language of the prompt and in every order it was asked in, and ties.

    `ties` is of comparisons the share in which two passages had the highest score; without comparisons, of a query's
    pairs of candidates the share with equal scores.
    """
    compared = counts.get("compared", 0)
    if compared:
        won: dict[str, list[int]] = {}
        for (language, _), chosen in read_places(counts).items():
            won[language] = [a + b for a, b in zip_longest(won.get(language, []), chosen, fillvalue=0)]
        return {"compared": compared, "won_at": won, "ties": counts.get("tied", 0) / compared}
    equal = pairs = 0
    for hits in judged.values():
        alike = Counter(hit.score for hit in hits).values()
        equal += sum(n * (n - 1) // 2 for n in alike)
        pairs += len(hits) * (len(hits) - 1) // 2
    return {"compared": 0, "won_at": {}, "ties": equal / max(pairs, 1)}


def bias_table(methods: Mapping[str, Mapping[str, Any]]) -> Table:
    """Shares of the choices by place, a method and a language of its prompt a row; and ties, of all languages."""
    columns = ["method", "prompt in", "choices", *(f"place {n + 1} won" for n in range(PLACES)), "later ones", "ties"]
    rows = []
    for name, found in methods.items():
        ties = f"{found['bias']['ties']:.1%}"
        for language, won in (found["bias"]["won_at"] or {"": []}).items():
            shares = [f"{n / sum(won):.0%}" for n in won[:PLACES]]
            shares += [""] * (PLACES - len(shares))
            later = f"{sum(won[PLACES:]) / sum(won):.0%}" if len(won) > PLACES else ""
            rows.append([name, language, str(sum(won) or ""), *shares, later, ties])
            name = ties = ""  # said once
    return Table(columns, rows, "Position bias and ties")


def compare_orders(orders: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, dict[str, float]]:
    """Kendall's tau between every two methods' orders of the candidates that both were given, its mean over queries."""
    found: dict[str, dict[str, float]] = {name: {} for name in orders}
    for one, other in combinations(orders, 2):
        taus = []
        for query in orders[one]:
            places = {id: place for place, id in enumerate(orders[other][query])}
            order = np.array([places[id] for id in orders[one][query] if id in places])
            if len(order) > 1:
                later = order[:, None] < order[None, :]
                taus.append(2 * later[np.triu_indices(len(order), 1)].mean() - 1)
        found[one][other] = found[other][one] = round(float(np.mean(taus)), 4) if taus else 1.0
    return found


def agreement_table(taus: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> Table:
    """The matrix of Kendall's tau, the methods by their `names`."""
    columns = ["Kendall's tau", *(names[each] for each in taus)]
    rows = [[names[one], *(f"{taus[one][other]:.2f}" if other != one else "" for other in taus)] for one in taus]
    return Table(columns, rows, "Agreement of the orders")


def name_methods(specs: Collection[str]) -> dict[str, str]:
    """Each SPEC without its model and what all of them have in common."""
    shared = find_shared(specs)
    return {spec: label(spec, shared) for spec in specs}
