"""The experiment file: what is compared, on what, by which measures. TOML; nothing in it is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ...errors import InputError, check_cutoff, check_known
from ...files import parse_toml, read_text
from ...multilingual.collections.topics import Source, TopicReader
from ...multilingual.reranking.rerank import check_unseen
from ...runs import Exclude, check_exclude
from ..measures import parse_measure
from ..significance import Correction, Test, check_statistics

EXAMPLE = 'collections = ["demo"] and, under [systems], dense = "dense"'


@dataclass(frozen=True)
class Plan:
    """An experiment as its file says it; a key of the file is a field here, and is explained here.

    `collections` are named as everywhere (`demo`, a directory, `neuclir:DIR?year=2023&lang=zho`); `systems` maps
    names to lines in the language of `System.parse`, `encoders` short names to SPECs for use in them, `documents`
    short names to collections with the same ids (translations). `fields`, `query_lang` and `source` choose the
    topics' wording, `k` is the depth of the runs. `measures` are ir_measures', empty for the usual ones; `per`
    groups them: `lang` of the query, `doc_lang` of the document, a key of the topics' metadata, or `auto`;
    `baseline` is a system's name, `correction` holm or bonferroni, `test` t or randomisation, `interval` the
    confidence of bootstrap intervals, `seed` that of test and bootstrap. `unseen` says what becomes of candidates
    that a reranker cannot see; `exclude` which documents a query may not find: those that it `listed`, `self` (also
    the document with its own id), or `none`.
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
    exclude: Exclude = "listed"

    def __post_init__(self) -> None:
        check_statistics(self.test, self.correction, self.interval, self.seed)
        check_unseen(self.unseen)
        check_exclude(self.exclude)
        TopicReader(self.fields, self.query_lang, self.source)  # refuses a wording that no topic has
        check_cutoff(self.k)
        if self.baseline is not None:
            check_known(self.baseline, self.systems, "baseline")
        if twice := [each for each in self.collections if self.collections.count(each) > 1]:
            raise InputError(f"the collection {twice[0]} is given twice")
        for name in (*self.systems, *self.encoders, *self.documents):
            if not name.strip():
                raise InputError("a name is empty")
        for measure in self.measures:
            parse_measure(measure)

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """The plan in a TOML file; `InputError` names the file and the key that is unknown, missing or wrong."""
        path = Path(path)
        text = read_text(path)
        try:
            return cls.of({"name": path.stem, **parse_toml(text)})
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that a dict of the file's keys describes; `InputError` as `read`."""
        for key in values:
            check_known(key, (each.name for each in fields(cls)), "key")
        for key in ("collections", "systems"):
            if not values.get(key):
                raise InputError(f"no {key}: the least that an experiment says is {EXAMPLE}")
        return cls(**{key: _convert(key, value) for key, value in values.items()})

    def to_json(self) -> dict[str, object]:
        """A dict for JSON, every key in it."""
        return asdict(self)


def _convert(key: str, value: Any) -> Any:
    """A value of the file as the field of that name has it; `InputError` where it is of another type."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if key in ("systems", "encoders", "documents"):
        fits = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
        key, kind = f"[{key}]", 'a table of lines like name = "...", each a text'
    elif key in ("collections", "measures"):
        value = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else (None,)
        fits, kind = all(isinstance(each, str) for each in value), "a list of texts"
    elif key in ("k", "seed"):
        fits, kind = numeric and isinstance(value, int), f"a whole number, not {value!r}"
    elif key == "interval":
        fits, kind = numeric, f"a number between 0 and 1, not {value!r}"
    else:
        fits, kind = isinstance(value, str), f"a text, not {value!r}"
    if not fits:
        raise InputError(f"{key} must be {kind}")
    return value
