"""Rewritten queries as JSON lines, `id, text, lang, probes`, for people and for the stage that reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from ...errors import InputError, check_known, list_few
from ...files import hash_file
from ...indexes.probes import HEAVIEST
from ...items import Item, Role
from ...pipeline import Stage
from ...rows.fields import FileRow
from ...runs import Probe, Run
from ..collections.records import read_json_lines
from ..languages import parse_language

OWN = {"query": True}
FIELDS = ("query", "text", "lang", "role", "weight", "group", "only")  # of a probe
SHOWN = 300  # characters of a text that people are shown: a document has thousands
# The text of a probe, None for the query's own, its language, and its other fields.
Listed = tuple[str | None, str | None, tuple[Any, ...]]


def to_rewrite(query: Item, probes: tuple[Probe, ...]) -> dict[str, Any]:
    """A line of the file: what the query says, and what is searched for in its place, nothing where that is itself.

    The query's own probe has no text of its own: `{"query": true}` stands for what the query holds, pictures included.
    """
    listed = [
        (OWN if (each.item.id, each.item.text) == (query.id, query.text) else _show(each.item))
        | {"role": each.role, "weight": each.weight, "group": each.group}
        | ({"only": each.only} if each.only else {})
        for each in probes
    ]
    own = {"id": query.id, "text": query.text, "lang": query.lang}
    return {key: value for key, value in own.items() if value is not None} | {"probes": listed}


def _show(item: Item) -> dict[str, Any]:
    return {"text": item.text} | ({"lang": item.lang} if item.lang else {})


def explain_probes(query: Item, probes: Sequence[Probe]) -> Iterator[str]:
    """What is searched for in a query's place, a line each: group, role, weight, language, and the words."""
    if not probes:
        yield f"searched for as it is: {query.text or query.id}"
    for item, role, weight, group, only in probes:
        words = " ".join((item.text or f"[{', '.join(sorted(item.modalities))}]").split())
        words = words if len(words) <= SHOWN else f"{words[:SHOWN].rstrip()} ..."
        if item.id != query.id and not item.id.startswith(f"{query.id}/"):
            words = f"document {item.id}: {words}"
        parts = [f"group {group}", f"as a {role}", f"weight {weight:g}", item.lang or "no language"]
        yield f"searched for, {', '.join([*parts, f'only its {only}'] if only else parts)}: {words}"


@dataclass(frozen=True)
class Rewritten(Stage):
    """Queries rewritten as a file says that `crosslens rewrite` or `crosslens run` wrote; what counts is its content.

    A query that is missing from the file is an `InputError`, and so is one that it has with another text. Those for
    which nothing could be written stay as they are.
    """

    path: Path = field(compare=False)
    sha256: str = field(init=False)
    rows: Mapping[str, tuple[str | None, Any]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        path = Path(self.path)
        for name, value in {"path": path, "sha256": hash_file(path), "rows": _read_rows(path)}.items():
            object.__setattr__(self, name, value)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        if lacking := [query.id for query in run.queries if query.id not in self.rows]:
            raise InputError(f"{self.path} lacks {len(lacking)} of {len(run)} queries: {list_few(lacking)}")
        probes = dict(run.probes)
        for query in run.queries:
            text, listed = self.rows[query.id]
            if (text or "").strip() != (query.text or "").strip():
                raise InputError(
                    f"{self.path} has another text for the query {query.id!r} ({text!r}, now {query.text!r}): it was "
                    f"made with other fields or another language"
                )
            if listed:
                probes[query.id] = tuple(_make_probe(query, number, each) for number, each in enumerate(listed))
        count["rewritten"] = sum(bool(self.rows[query.id][1]) for query in run.queries)
        return replace(run, probes=probes)

    def __str__(self) -> str:
        return f"rewrites({self.path.name})"


def _make_probe(query: Item, number: int, listed: Listed) -> Probe:
    text, lang, how = listed
    return Probe(query if text is None else Item(f"{query.id}/{number}", text, lang=lang), *how)


def _read_rows(path: Path) -> dict[str, tuple[str | None, Any]]:
    """By query: its text, and what is listed for it; `InputError` names file and line of what cannot be read."""
    rows: dict[str, tuple[str | None, Any]] = {}
    for place, line in read_json_lines(path):
        try:
            row = FileRow.parse(line)
            if (id := row.read_id()) in rows:
                raise InputError(f"the query {id!r} occurs a second time")
            rows[id] = row.read_text("text"), tuple(_read_probes(row))
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    if not rows:
        raise InputError(f"{path} has no rewritten queries in it")
    return rows


def _read_probes(row: FileRow) -> Iterator[Listed]:
    listed = row.get("probes")
    if not isinstance(listed, list):
        raise InputError("no list of `probes`: it is not a file that `crosslens rewrite` wrote")
    for each in listed:
        if not isinstance(each, dict):
            raise InputError(f"a probe must be an object, not {type(each).__name__}")
        for key in each:
            check_known(key, FIELDS, "field of a probe:")
        if each.get("query") is True and "text" in each:
            raise InputError("a probe is the query itself, or has a text of its own: leave out `query` or `text`")
        probe = FileRow(each)
        lang, role = probe.read_text("lang"), probe.get("role", "query")
        text = None if probe.get("query") is True else probe.require_text("text", "a probe of", row.read_id())
        check_known(str(role), get_args(Role), "role of a probe:")
        weight, group = probe.get("weight", 1.0), probe.get("group", 0)
        if type(weight) not in (int, float) or type(group) is not int:
            raise InputError(f"a probe has a number as weight and a whole one as group, not {weight!r} and {group!r}")
        if not abs(weight) <= HEAVIEST:
            raise InputError(f"the weight of a probe is {HEAVIEST:,.0f} at most, not {weight:g}")
        if (only := probe.get("only")) is not None:
            check_known(str(only), ("vector", "words"), "value of `only` in a probe:")
        yield text, parse_language(lang) if lang else None, (role, float(weight), group, only)
