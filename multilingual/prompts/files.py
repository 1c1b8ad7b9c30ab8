"""Prompts as TOML files: the ones of this folder by name, others by their path; and what a SPEC sets anew in them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import InputError, check_known
from ..languages import parse_language
from .prompt import Prompt

# What a translation may say anew.
SPOKEN = ("template", "each", "target", "system", "answer", "closing", "labels", "instruction")


def configure_prompt(
    prompt: Prompt,
    *,
    language: str = "",
    instruction: str = "",
    chat: str = "",
    orders: str = "",
    thinking: int = 0,
) -> Prompt:
    """The prompt with what a SPEC sets anew; its keyword parameters are the options. `InputError` for what it lacks."""
    said: dict[str, Any] = {
        "language": language if language in ("", "query", "document") else parse_language(language),
        "instruction": instruction,
        "chat": chat,
        "orders": orders,
        "thinking": thinking,
    }
    if thinking and not (prompt.think or (prompt.asks == "generate" and prompt.most == 1)):
        raise InputError(
            f"the prompt {prompt.name} does not think: take one that does, or leave thinking out"
        )
    if instruction:
        # It takes the place of the translated ones too.
        words = {
            code: {key: text for key, text in table.items() if key != "instruction"}
            for code, table in prompt.words.items()
        }
        prompt = replace(prompt, words=words)
    return replace(prompt, **{key: value for key, value in said.items() if value})


def load_prompt(name: str) -> Prompt:
    """A prompt of this folder by name, or a TOML file by path; `InputError` lists the known ones."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no prompt file {name}")
        try:
            return parse_prompt(path.read_text("utf-8"), path.stem)
        except UnicodeDecodeError:
            raise InputError(f"the prompt file {name} is not UTF-8 text") from None
    check_known(name, list_prompts(), "prompt")
    return parse_prompt((files(__package__) / f"{name}.toml").read_text("utf-8"), name)


def list_prompts() -> list[str]:
    """The names of the built-in prompts."""
    return sorted(
        each.name.removesuffix(".toml")
        for each in files(__package__).iterdir()
        if each.name.endswith(".toml")
    )


def parse_prompt(text: str, name: str) -> Prompt:
    """A prompt from TOML; its tables are translations, named by language. `InputError` names what is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the prompt {name} is not TOML: {error}") from None
    keys = tuple(f.name for f in fields(Prompt) if f.name not in ("name", "words"))
    said = {key: value for key, value in data.items() if not isinstance(value, dict)}
    words: dict[str, dict[str, Any]] = {}
    _check(said, keys, name)
    if missing := {"asks", "template"} - said.keys():
        raise InputError(f"the prompt {name} lacks {', '.join(sorted(missing))}")
    for key, table in data.items():
        if not isinstance(table, dict):
            continue
        try:
            code = parse_language(key)
        except InputError as error:
            raise InputError(f"table [{key}] of the prompt {name}: {error}") from None
        if code == "eng" or code in words:
            raise InputError(f"the prompt {name} has a wording in {code} and a table [{key}] for the same")
        _check(table, SPOKEN, f"{name} [{key}]")
        words[code] = table | _lists(table, f"{name} [{key}]")
    prompt = Prompt(name=name, **said | _lists(said, name), words=words)
    for code in words:
        if len(prompt.spoken(code).labels) != len(prompt.labels):
            raise InputError(
                f"the prompt {name} has other labels in [{code}] than in English: as many are needed"
            )
    return prompt


def _check(said: Mapping[str, Any], keys: Sequence[str], name: str) -> None:
    """`InputError` for a key that is not known, or a value that is not of its type."""
    for key, value in said.items():
        check_known(key, keys, f"key in the prompt {name}:")
        if key == "thinking":
            sound, wanted = type(value) is int, "a whole number"
        elif key == "values":
            sound = isinstance(value, list) and all(type(each) in (int, float) for each in value)
            wanted = "a list of numbers"
        elif key == "labels":
            sound = isinstance(value, str) or (
                isinstance(value, list) and all(isinstance(each, str) for each in value)
            )
            wanted = "a list of texts, or a range as A..T or 1..20"
        else:
            sound, wanted = isinstance(value, str), "a text"
        if not sound:
            raise InputError(f"`{key}` in the prompt {name} must be {wanted}, not {value!r}")


def _lists(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Lists of a TOML table as tuples; `A..T` and `1..20` as the labels from one to the other."""
    made: dict[str, Any] = {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
    labels = said.get("labels")
    if isinstance(labels, str):
        first, _, last = labels.partition("..")
        numbers = all(end.isascii() and end.isdecimal() and len(end) < 4 for end in (first, last))
        letters = len(first) == len(last) == 1 and (
            "A" <= first <= last <= "Z" or "a" <= first <= last <= "z"
        )
        if numbers and int(first) < int(last):
            made["labels"] = tuple(map(str, range(int(first), int(last) + 1)))
        elif letters and first < last:
            made["labels"] = tuple(map(chr, range(ord(first), ord(last) + 1)))
        else:
            raise InputError(
                f"labels in the prompt {name} are a list, or a range as A..T or 1..20, not {labels!r}"
            )
    return made
