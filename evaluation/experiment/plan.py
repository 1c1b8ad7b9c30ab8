"""The experiment file: what is compared, on what, by which measures. TOML; nothing in it is ignored."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from ...errors import InputError, check_known, unknown_name
from ...multilingual.collections.topics import Source, parse_fields
from ...multilingual.languages import parse_language
from ...systems.stages import Vocabulary
from ..measures import parse_measure
from ..significance import Correction, Test

EXAMPLE = 'collections = ["demo"] and, under [systems], dense = "dense"'


@dataclass(frozen=True)
class Plan:
    """An experiment as its file says it; a key of the file is a field here, and is explained here.

    `collections` are named as everywhere (`demo`, a directory, `neuclir:DIR?year=2023&lang=zho`); `systems` maps names
    to pipelines (see `pipelines`), `encoders` short names to SPECs for use in them, `documents` short names to
    collections with the same ids, translations say. `fields`, `query_lang` and `source` choose the topics' wording,
    `k` is the depth of the runs. `measures` are ir_measures', empty for the usual ones; `per` groups them: `lang`
    of the query, `doc_lang` of the document, a key of the topics' metadata, or `auto`; `baseline` is a system's name,
    `correction` holm or bonferroni, `test` t or randomisation, `interval` the confidence of bootstrap intervals,
    `seed` that of test and bootstrap. `unseen` says what becomes of candidates that a reranker cannot see.
    """

    collections: tuple[str, ...]
    systems: Mapping[str, str]
    name: str = ""
    encoders: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    fields: str | None = None
    query_lang: str | None = None
    source: Source | None = None
    k: int = 1000
    measures: tuple[str, ...] = ()
    per: str = "auto"
    baseline: str | None = None
    test: Test = "t"
    correction: Correction = "holm"
    interval: float | None = None
    seed: int = 0
    unseen: str = "refuse"

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """The plan in a TOML file; `InputError` names the file and the key that is unknown, missing or wrong."""
        path = Path(path)
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the experiment {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path} is not UTF-8 text") from None
        except tomllib.TOMLDecodeError as error:
            twice = "overwrite" in str(error)
            raise InputError(
                f"{path}: " + (f"a name is given twice, to two systems say: {error}" if twice else f"not TOML: {error}")
            ) from None
        try:
            return cls.of({"name": path.stem, **values})
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that a dict of the file's keys describes; `InputError` as `read`."""
        known = {each.name: each for each in fields(cls)}
        for key in values:
            check_known(key, known, "key")
        for key in ("collections", "systems"):
            if not values.get(key):
                raise InputError(f"no {key}: the least that an experiment says is {EXAMPLE}")
        made: dict[str, Any] = {key: _converted(key, value) for key, value in values.items()}
        plan = cls(**made)
        plan._check()
        return plan

    @property
    def vocabulary(self) -> Vocabulary:
        """The short names that its lines may use."""
        return Vocabulary(self.encoders, self.documents, self.fields)

    def to_json(self) -> dict[str, object]:
        """A dict for JSON, every key in it."""
        return asdict(self)

    def _check(self) -> None:
        for given, known, what in (
            (self.test, get_args(Test), "test"),
            (self.correction, get_args(Correction), "correction"),
            (self.unseen, ("refuse", "keep"), "value of unseen"),
        ):
            if given not in known:
                raise unknown_name(given, known, what)
        if self.source is not None and self.source not in get_args(Source):
            raise unknown_name(self.source, get_args(Source), "source")
        if self.k < 1:
            raise InputError(f"k must be at least 1, not {self.k}")
        if self.interval is not None and not 0 < self.interval < 1:
            raise InputError(f"an interval of confidence {self.interval}: between 0 and 1, for example 0.95")
        if self.baseline is not None and self.baseline not in self.systems:
            raise unknown_name(self.baseline, tuple(self.systems), "baseline")
        if twice := [each for each in self.collections if self.collections.count(each) > 1]:
            raise InputError(f"the collection {twice[0]} is given twice")
        for name in (*self.systems, *self.encoders, *self.documents):
            if not name.strip():
                raise InputError("a name is empty")
        for measure in self.measures:
            parse_measure(measure)
        parse_fields(self.fields)
        if self.query_lang is not None:
            parse_language(self.query_lang)


_STRINGS = ("name", "fields", "query_lang", "source", "per", "baseline", "test", "correction", "unseen")
_TABLES = ("systems", "encoders", "documents")
_LISTS = ("collections", "measures")


def _converted(key: str, value: object) -> object:
    if key in _TABLES:
        if isinstance(value, dict) and all(isinstance(each, str) for each in value.values()):
            return value
        raise InputError(f'[{key}] must be a table of lines like name = "...", each a text')
    if key in _LISTS:
        listed = [value] if isinstance(value, str) else value
        if isinstance(listed, list) and all(isinstance(each, str) for each in listed):
            return tuple(listed)
        raise InputError(f"{key} must be a list of texts")
    if key in _STRINGS and not isinstance(value, str):
        raise InputError(f"{key} must be a text, not {value!r}")
    if key in ("k", "seed") and (not isinstance(value, int) or isinstance(value, bool)):
        raise InputError(f"{key} must be a whole number, not {value!r}")
    if key == "interval" and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise InputError(f"interval must be a number between 0 and 1, not {value!r}")
    return value
