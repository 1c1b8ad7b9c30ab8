"""Which figures of two files of measurements got worse: what a heading means is declared here and never guessed.

The first rule whose words a column's heading holds decides whether higher is better and how much may differ; a table's
`better` marks come before the rules, and columns that neither knows are listed as not compared. Quality differs in the
third digit between processors, and one question out of few weighs more: 0.005, or half a question of those that the
heading counts. Seconds of different machines say nothing: times and rates are compared with the peer's in the same
table, as ratios are, and these only between processors that multiply the same way. Two runs beside other work differ by
up to a fifth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Better = Literal["higher", "lower"]
Kind = Literal["p", "cosine", "quality", "fault", "ratio", "rate", "time", "size"]


@dataclass(frozen=True)
class Rule:
    """What columns whose heading matches `words` hold."""

    kind: Kind
    better: Better
    words: str


RULES = (
    Rule("p", "lower", r"(^|\s)p$"),
    Rule("cosine", "higher", r"\bcosine\b"),
    Rule("quality", "higher", r"nDCG@|\bR@\d|\bRR\b|\bmAP\b|^recall|^precision|^kappa|^quadratic|^as alone$"),
    Rule("quality", "higher", r"^(found|first), \w{3}$|^(across|same) languages?\b"),
    Rule("fault", "lower", r"^(failed|lost|tracebacks|hangs|reinterpreted|wrong|wrong status|faults|other hits)$"),
    Rule("fault", "lower", r"^(leftovers|half|unclear)$"),
    Rule("ratio", "lower", r"^median ratio$|^cost of "),  # of the time with a journal or windows to that without
    Rule("ratio", "higher", r"^(ratio|times|x)\b|^(of|in) CPU time$|^rate of .* to that of "),
    Rule("rate", "higher", r"/s\b|\ba second$"),
    Rule("time", "lower", r"\b(ms|seconds|minutes)\b|(?<!['’])\bs\b"),
    Rule("size", "lower", r"\b[KMG]i?B\b"),
)
# How much worse a figure may be: by difference, or as a share of the earlier one.
DIFFERENCES = {"quality": 0.005, "cosine": 0.001, "fault": 0.0}
SHARES = {"ratio": 0.2, "size": 0.1}
# Rows that others are measured against.
PEERS = re.compile(r"sentence-transformers|faiss IndexFlatIP|open_clip loop|infinity-emb|llama-server")
# Words of a cell, from worst to best.
STATES = (("broken", "kept"), ("worse", "no different", "better"), ("significantly worse", "no significant difference",
          "significantly better"))  # fmt: skip
UNITS = ("AMX", "AVX512-BF16")  # as `measurements.describe_processor` names them
# What these compare multiplies in float32 on both sides, on each processor.
ANYWHERE = ("index", "startup", "kept-speed")
NUMBER = re.compile(r"[~+]?(-?\d[\d,]*(?:\.\d+)?)")
COUNT = re.compile(r"\((\d[\d,]*)\)$")


@dataclass(frozen=True)
class Change:
    """A figure of both files: where it stands, and what it was and is."""

    table: str
    row: str
    column: str
    kind: str
    was: float | str
    now: float | str


@dataclass
class Comparison:
    """What became of the figures; `not_compared` holds a line for each column, row or table, with the reason."""

    worse: list[Change] = field(default_factory=list)
    better: list[Change] = field(default_factory=list)
    same: int = 0
    not_compared: list[str] = field(default_factory=list)


def compare(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Comparison:
    """The tables of two files of the measurement `name`, the earlier first."""
    made = Comparison()
    ratios = name in ANYWHERE or _list_units(was["cpu"]) == _list_units(now["cpu"])
    left = list(now["tables"])
    for table in was["tables"]:
        found = next((each for each in left if each["title"] == table["title"] and _share_a_column(each, table)), None)
        if found is None:
            made.not_compared.append(f"{_name(table)}: no such table now")
            continue
        left.remove(found)
        _compare_tables(made, table, found, ratios)
    return made


def judge(heading: str, marks: Mapping[str, Better] | None = None) -> tuple[Kind, Better] | None:
    """What a column holds, by the marks of its table and then by the rules; None where neither knows it."""
    if marks and heading in marks:
        return "quality", marks[heading]
    rule = next((each for each in RULES if re.search(each.words, heading)), None)
    return rule and (rule.kind, rule.better)


def read_number(cell: str) -> float | None:
    """The figure that a cell begins with; None where it begins with none."""
    found = NUMBER.match(cell)
    return float(found[1].replace(",", "")) if found else None


def _compare_tables(made: Comparison, was: Mapping[str, Any], now: Mapping[str, Any], ratios: bool) -> None:
    marks = {**was.get("better", {}), **now.get("better", {})}
    judged = [judge(heading, marks) for heading in was["columns"]]
    named = next((n for n, each in enumerate(judged) if each), 1)  # what stands before the figures names a row
    pairs = _pair_rows(was, now, named)
    if missing := len(was["rows"]) - len(pairs):
        made.not_compared.append(f"{_name(was)}: {missing} of {len(was['rows'])} rows are not there now")
    for place, heading in enumerate(was["columns"]):
        if heading not in now["columns"]:
            made.not_compared.append(f"{_name(was)} / {heading}: no such column now")
            continue
        there = now["columns"].index(heading)
        cells = [(before[0], before[place], after[there]) for before, after in pairs]
        why = _compare_columns(made, was["title"], heading, cells, judged[place], ratios)
        if why and place >= named:
            made.not_compared.append(f"{_name(was)} / {heading}: {why}")


def _compare_columns(
    made: Comparison,
    title: str,
    heading: str,
    cells: Sequence[tuple[str, str, str]],
    judged: tuple[Kind, Better] | None,
    ratios: bool,
) -> str:
    """Note each figure of a column, `cells` of row, before and now; why not, where it cannot be."""
    if judged is None:
        spoken = [cell for cell in cells if _rank(cell[1]) and _rank(cell[2])]
        for row, before, after in spoken:
            _note_state(made, Change(title, row, heading, "state", before, after))
        held = any(read_number(before) is not None for _, before, _ in cells)
        return "no rule says which is better" if held and not spoken else ""
    kind, better = judged
    if kind == "p":
        return ""  # a test's verdict is no figure of its own
    if kind in ("ratio", "rate", "time") and not ratios:
        return "the processors multiply in different ways"
    figures = [(row, read_number(before), read_number(after)) for row, before, after in cells]
    if kind in ("rate", "time"):
        peer = next((each for each in figures if PEERS.match(each[0])), None)
        if peer is None:
            return "no peer in the table"
        heading, better = f"{heading}, times {peer[0]}", "higher"
        figures = [
            (row, _divide(kind, before, peer[1]), _divide(kind, after, peer[2]))
            for row, before, after in figures
            if row != peer[0]
        ]
    lost = [row for row, before, after in figures if before is not None and after is None]
    for row, was, now in figures:
        if was is not None and now is not None:
            _note_number(made, Change(title, row, heading, kind, was, now), better)
    return f"no figure now for {', '.join(lost)}" if lost else ""


def _note_number(made: Comparison, change: Change, better: Better) -> None:
    assert isinstance(change.was, float)
    assert isinstance(change.now, float)
    gain = change.now - change.was if better == "higher" else change.was - change.now
    if change.kind in DIFFERENCES:
        allowed = DIFFERENCES[change.kind]
        if change.kind == "quality" and (counted := COUNT.search(change.column)):
            allowed = max(allowed, 0.5 / int(counted[1].replace(",", "")))
    else:
        allowed = SHARES.get(change.kind, SHARES["ratio"]) * abs(change.was)
    if abs(gain) <= allowed + 1e-9:
        made.same += 1
    else:
        (made.better if gain > 0 else made.worse).append(change)


def _note_state(made: Comparison, change: Change) -> None:
    was, now = _rank(str(change.was)), _rank(str(change.now))
    if was is None or now is None or was[0] != now[0]:
        return
    if was == now:
        made.same += 1
    else:
        (made.better if now > was else made.worse).append(change)


def _rank(cell: str) -> tuple[int, int] | None:
    """Which scale of words a cell is of, and how good it is there."""
    return next(((scale, words.index(cell)) for scale, words in enumerate(STATES) if cell in words), None)


def _divide(kind: str, value: float | None, peer: float | None) -> float | None:
    """How many times as fast as the peer: rates over rates, seconds the other way round."""
    above, below = (value, peer) if kind == "rate" else (peer, value)
    return above / below if above is not None and below else None


def _pair_rows(was: Mapping[str, Any], now: Mapping[str, Any], most: int) -> list[tuple[Sequence[str], Sequence[str]]]:
    """The rows of the same name in both tables: as many leading cells, `most` at most, as make names unique."""
    for width in range(1, max(most, 1) + 1):
        held = {tuple(row[:width]): row for row in now["rows"]}
        names = {tuple(row[:width]) for row in was["rows"]}
        if len(names) == len(was["rows"]) and len(held) == len(now["rows"]):
            break
    else:
        return [pair for pair in zip(was["rows"], now["rows"], strict=False) if pair[0][0] == pair[1][0]]
    return [(row, held[tuple(row[:width])]) for row in was["rows"] if tuple(row[:width]) in held]


def _share_a_column(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two tables of one title are of the same: their first columns have one heading."""
    return bool(one["columns"][0] == other["columns"][0])


def _name(table: Mapping[str, Any]) -> str:
    return table["title"] or " | ".join(table["columns"][:2])


def _list_units(processor: str) -> list[str]:
    return [unit for unit in UNITS if unit in processor]
