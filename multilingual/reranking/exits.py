"""Early exit: candidates are judged one by one in the first stage's order until none of the rest can enter the first k.

What is left out cannot change them: the bound holds whatever a judge would have said. There is one where scores are
added as they are and have a highest value (`fuse=linear`), and for the judge alone where it gives grades, of which many
documents can have the highest. A z-score depends on all scores, and has none. Reciprocal ranks have one, but it saves
calls only where the judge hardly counts (of 100 candidates none from alpha 0.1 on), so it is not offered. Stopping by
bounds on fused scores: Fagin, Lotem and Naor 2003, Optimal aggregation algorithms for middleware.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InputError
from ...runs import Hit
from ..prompts import Prompt
from .registry import name_sorter
from .sorters import Ask, Pointwise, Sorter, Sorting


def check_exit(prompt: Prompt, sort: Sorter, alpha: float, fuse: str) -> None:
    """`InputError` where nothing could be said of candidates that are not judged yet, or nothing would be saved."""
    if not isinstance(sort, Pointwise):
        raise InputError(
            f"exit=true is for pointwise sorting, and not for {name_sorter(sort)}; heapsort, tournament and plackett "
            f"ask only for what the first k need"
        )
    if alpha == 1:
        if prompt.asks != "generate" or prompt.highest is None:
            raise InputError(
                f"exit=true with alpha=1: by the judge alone the next candidate may always be the best, with the "
                f"prompt {prompt.name}; take an alpha below 1"
            )
    elif fuse != "linear":
        of_all = {"zscore": "a z-score depends", "rrf": "ranks depend"}[fuse]
        raise InputError(f"exit=true is not available with fuse={fuse}: {of_all} on all candidates; take fuse=linear")
    elif prompt.highest is None:
        raise InputError(
            f"exit=true needs a likelihood or a prompt with grades: the scores of the prompt {prompt.name} have no "
            f"highest value, so that any candidate may still win"
        )


def judge_until_settled(hits: Sequence[Hit], k: int, alpha: float, highest: float) -> Sorting:
    """As `Pointwise`, k candidates a round, until the first k of the ranking are settled; only the judged ones.

    `highest` is the highest score that the prompt can give.
    """
    base = {hit.id: hit.score for hit in hits}
    judged: list[Hit] = []
    for start in range(0, len(hits), k):
        some = hits[start : start + k]
        answer = yield Ask(tuple((hit,) for hit in some))
        judged += [Hit(hit.id, float(scores[0])) for hit, scores in zip(some, answer, strict=True)]
        if len(judged) == len(hits):
            break
        # The judge alone leaves ties in the first stage's order, with which the rest comes later.
        fused = sorted(alpha * hit.score + (1 - alpha) * base[hit.id] for hit in judged)
        best_left = alpha * highest + (1 - alpha) * hits[len(judged)].score
        if fused[-k] > best_left or (alpha == 1 and fused[-k] == best_left):
            break
    return sorted(judged, key=lambda hit: -hit.score)
