"""What people should know of how a run was judged: unreadable answers, a preference for a place, and the like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...runs import Manifest, Record

# What `judges.answers` counts of text that it could not read as asked.
FAULTS = (
    "refused", "empty", "unreadable", "missing", "duplicate", "out_of_range", "foreign_digits", "unclosed_thought"
)  # fmt: skip


def describe_judging(manifest: Manifest) -> list[str]:
    """What people should know of how a run was judged, a line each."""
    records = [each for each in manifest.records if each.stage.startswith("rerank")]
    return [line for record in records for line in _describe(record)]


def _describe(record: Record) -> Iterator[str]:
    counts = Counter({kind: int(number) for kind, number in record.counts.items()})
    name = next(iter(record.models), "the judge")
    if faults := [f"{kind.replace('_', ' ')} {counts[kind]}" for kind in FAULTS if counts[kind]]:
        yield (
            f"{name}: among {counts['calls']} answers there were faults ({', '.join(faults)}); what they left out kept "
            f"its order"
        )
    if counts["compared"] >= 20 and counts["first_won"] > 0.95 * counts["compared"]:
        yield (
            f"{name} took the first passage shown in {counts['first_won']} of {counts['compared']} comparisons: if the "
            f"order was not right before, it does not compare; try orders=both, or another prompt or model"
        )
    if counts["all_alike"]:
        yield f"{name} gave {counts['all_alike']} candidates one and the same score: they kept their order"
    if counts["thoughts_cut"]:
        yield f"{name}: {counts['thoughts_cut']} thoughts found no end; raise thinking="
    for kind, number in counts.items():
        if kind.startswith("prompt_not_in_"):
            language = kind.removeprefix("prompt_not_in_")
            yield f"the prompt has no {language} words: {number} comparisons were asked in English"
    if counts["unseen"]:
        yield f"{counts['unseen']} candidates kept their ranks: {name} cannot see them"
