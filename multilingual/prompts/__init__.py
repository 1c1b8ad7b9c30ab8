"""Prompts as data: one TOML file each in this folder; a `Prompt` words a comparison and reads the answer."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import InputError, nearest
from ...items import Item
from ..languages import name as language_name

if TYPE_CHECKING:
    from ..judges import Judge

PLACEHOLDERS = ("query", "passage", "language")


@dataclass(frozen=True, slots=True)
class Passage:
    """The part of a message that a judge may cut to make it fit."""

    text: str


Message = tuple[str | Passage, ...]  # what a judge is shown, in order
Comparison = tuple[Item, Sequence[Item]]  # a query and the documents that are compared for it


@dataclass(frozen=True)
class Prompt:
    """A wording of "how relevant is this passage to this query?", and how the answer becomes a score.

    `asks` is `likelihood` (score: mean log-probability of `target` per token) or `choose` (score: log-odds of the
    first label against the rest). `template` and `target` hold the placeholders {query}, {passage} and
    {language} (the query's language in English); `paper` is what the wording follows.
    """

    name: str
    asks: Literal["likelihood", "choose"]
    template: str
    target: str = ""
    labels: tuple[str, ...] = ()
    paper: str = ""

    def __post_init__(self) -> None:
        """`InputError` naming the prompt and its fault."""
        used = [key for text in (self.template, self.target) for key in _placeholders(self.name, text)]
        for key in used:
            if key not in PLACEHOLDERS:
                raise nearest(key, PLACEHOLDERS, f"placeholder in the prompt {self.name}:")
        for key in ("query", "passage"):
            if key not in used:
                raise InputError(f"the prompt {self.name} lacks the placeholder {{{key}}}")
        if self.asks == "likelihood" and not self.target:
            raise InputError(f"the prompt {self.name} asks for a likelihood and has no target")
        if self.asks == "choose" and len(self.labels) < 2:
            raise InputError(f"the prompt {self.name} asks to choose and has fewer than two labels")
        if self.asks not in ("likelihood", "choose"):
            raise nearest(self.asks, ("likelihood", "choose"), f"`asks` in the prompt {self.name}:")

    def score(self, judge: Judge, comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        """For each comparison one score a document, float64, in a single call of the judge."""
        pairs = [(query, document) for query, group in comparisons for document in group]
        messages = [self.word(self.template, *pair) for pair in pairs]
        if self.asks == "likelihood":
            targets = ["".join(_text(part) for part in self.word(self.target, *pair)) for pair in pairs]
            scores = judge.likelihood(messages, targets)
        else:
            chosen = judge.choose(messages, self.labels)
            scores = chosen[:, 0] - np.logaddexp.reduce(chosen[:, 1:], axis=1)
        return np.split(scores, np.cumsum([len(group) for _, group in comparisons])[:-1])

    def word(self, template: str, query: Item, document: Item) -> Message:
        """The template filled for one pair."""
        language = language_name(query.lang) if query.lang else "English"
        values: Mapping[str, str | Passage] = {
            "query": (query.text or "").strip(),
            "passage": Passage((document.text or "").strip()),
            "language": language,
        }
        message: list[str | Passage] = []
        for literal, key, _, _ in string.Formatter().parse(template):
            message += [literal] if literal else []
            message += [values[key]] if key else []
        return tuple(message)


def load(name: str) -> Prompt:
    """A prompt of this folder by name, or a TOML file by path; `InputError` lists the known ones."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no prompt file {name}")
        return parse(path.read_text("utf-8"), name)
    if name not in known():
        raise nearest(name, known(), "prompt")
    return parse((files(__package__) / f"{name}.toml").read_text("utf-8"), name)


def known() -> list[str]:
    """The names of the built-in prompts."""
    return sorted(
        each.name.removesuffix(".toml")
        for each in files(__package__).iterdir()
        if each.name.endswith(".toml")
    )


def parse(text: str, name: str) -> Prompt:
    """A prompt from TOML; `InputError` on unknown or missing keys."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the prompt {name} is not TOML: {error}") from None
    keys = [f.name for f in fields(Prompt) if f.name != "name"]
    for key in data:
        if key not in keys:
            raise nearest(key, keys, f"key in the prompt {name}:")
    if missing := {"asks", "template"} - data.keys():
        raise InputError(f"the prompt {name} lacks {', '.join(sorted(missing))}")
    return Prompt(name=name, **{**data, "labels": tuple(data.get("labels", ()))})


def _placeholders(name: str, template: str) -> list[str]:
    try:
        return [key for _, key, _, _ in string.Formatter().parse(template) if key is not None]
    except ValueError as error:
        raise InputError(f"the prompt {name}: {error}") from None


def _text(part: str | Passage) -> str:
    return part.text if isinstance(part, Passage) else part
