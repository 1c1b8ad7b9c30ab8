"""Systems that rank alike: which, and why, where their manifests show it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..runs import Run

_CORRECTION = (
    "the language correction changed none, and is off where all documents are in English, or fewer than 100 in one "
    "other language"
)
_FULL_TEXT = "full text changed none: no document in a query's language has its words, or it agreed"


def describe_alike(runs: Mapping[str, Run], topics: Iterable[str]) -> Iterator[str]:
    """A sentence for each run whose documents are, in their order, those of a run before it for all topics."""
    topics = list(topics)
    first: dict[tuple[tuple[str, ...], ...], str] = {}
    for name, run in runs.items():
        rankings = tuple(tuple(hit.id for hit in run[topic]) for topic in topics)
        if not any(rankings):
            continue
        before = first.setdefault(rankings, name)
        if before != name:
            why = _explain(runs[before], run)
            yield f"{before} and {name} have the same rankings{f': {why}' if why else ''}"


def _explain(one: Run, other: Run) -> str:
    """Why two rankings are the same, from the stages that made them; empty where these do not show it."""
    mine, theirs = ([each.stage for each in run.manifest.records] for run in (one, other))
    if not mine or not theirs:
        return ""
    if one.manifest.fingerprints == other.manifest.fingerprints:
        return "the same stages made them"
    shorter, longer = sorted((mine, theirs), key=len)
    if longer[:-1] == shorter:
        return f"{longer[-1]} changed none"
    differing = [set(pair) for pair in zip(mine, theirs, strict=False) if pair[0] != pair[1]]
    if len(mine) != len(theirs) or len(differing) != 1:
        return ""
    plain = {stage.replace("uncorrected, ", "").replace(" (uncorrected)", "") for stage in differing[0]}
    if len(plain) == 1:
        return _CORRECTION
    return _FULL_TEXT if {stage.partition(" ")[0] for stage in differing[0]} == {"dense", "hybrid"} else ""
