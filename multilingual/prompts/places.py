"""Which place in a set a judge chooses: its preference for a place, by language of the prompt and size of the sets.

Whether the first passages of sets are the better ones depends on the sorter: `bubblesort` shows the winner of the last
window last, a heap the parent first. Where hits take turns on the places (`plackett`), each is right as often, and an
uneven count is the judge's own preference. Counted are answers as they are given, of several `orders` each by itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

KEY = re.compile(r"chosen_(\w+)_(\d+)_of_(\d+)")  # language, place from 1, size
ENOUGH = 20  # answers from which shares are shown
NEARLY_ALL = 0.95


def count_place(count: Counter[str], language: str, scores: np.ndarray) -> None:
    """Count the place that got the highest of a set's scores, if it is one alone."""
    best = np.flatnonzero(scores == scores.max())
    if len(best) == 1 and len(scores) > 1:
        count[f"chosen_{language}_{best[0] + 1}_of_{len(scores)}"] += 1


def read_places(counts: Mapping[str, float]) -> dict[tuple[str, int], list[int]]:
    """By language and size of the sets: how often each place was chosen, the first first."""
    found: dict[tuple[str, int], list[int]] = {}
    for key, number in counts.items():
        if match := KEY.fullmatch(key):
            language, place, size = match[1], int(match[2]), int(match[3])
            found.setdefault((language, size), [0] * size)[place - 1] += int(number)
    return dict(sorted(found.items()))


def leave_out_places(counts: Mapping[str, float]) -> dict[str, float]:
    """The other counts: those of places are for `read_places`."""
    return {key: number for key, number in counts.items() if not KEY.fullmatch(key)}


def describe_places(counts: Mapping[str, float], judge: str, prompt: str) -> Iterator[str]:
    """For each language a line with the shares of the places in the size of sets that was asked most."""
    most: dict[str, list[int]] = {}
    for (language, _), chosen in read_places(counts).items():
        most[language] = max(most.get(language, []), chosen, key=sum)
    for language, chosen in most.items():
        asked = sum(chosen)
        if asked < ENOUGH:
            continue
        shares = ", ".join(f"{100 * each / asked:.0f}" for each in chosen)
        line = f"{judge}, prompt {prompt} in {language}: "
        line += f"of {len(chosen)} places it chose each in {shares} % of {asked} sets"
        if max(chosen) > NEARLY_ALL * asked:
            line += (
                "; if the order was not right before, it does not compare: if they are not in use yet, try "
                "orders=both or rotations, calibrate=true or the sorter plackett; else another prompt or model"
            )
        yield line
