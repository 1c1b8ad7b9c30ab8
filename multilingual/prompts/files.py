"""Prompts as files, by name or path; SPECs of a prompt and its judge: `METHOD@FAMILY:CHECKPOINT[?key=value&...]`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from ...errors import InputError, check_known
from ...files import read_text
from ...specs import Spec, distribute_options
from ..judges import Judge, find_judge, open_judge
from ..languages import parse_language
from .prompt import Prompt
from .wording import Wording

W = TypeVar("W", bound=Wording)


def load_prompt(name: str) -> Prompt:
    """A prompt by name, or a TOML file by path; `InputError` lists the known ones.

    Other packages add prompts by entry points of `crosslens.prompts`, as `my-prompt = "my_package:my_prompt.toml"`: the
    package, and the file in it.
    """
    return load_wording(Prompt, name, files(__package__), "crosslens.prompts")


def list_prompts() -> list[str]:
    """The names of the built-in prompts."""
    return sorted(_list_files(files(__package__)))


def load_wording(kind: type[W], name: str, folder: Traversable, group: str = "") -> W:
    """A wording of a `kind`: a TOML file by path, or by name one of the `folder` or an entry point of the `group`."""
    built_in = _list_files(folder)
    added = {each.name: each.value for each in entry_points(group=group)}
    file: Traversable = Path(name)
    if not name.endswith(".toml"):
        check_known(name, (*built_in, *added), "prompt")
        package, _, inside = added.get(name, "").partition(":")
        try:
            file = built_in.get(name) or files(package.strip()) / inside.strip()
        except ModuleNotFoundError as error:
            raise InputError(f"the prompt {name} of an installed package: {error}") from None
    if isinstance(file, Path) and os.path.lexists(file):
        text = read_text(file)
    elif file.is_file():
        text = file.read_text("utf-8")
    else:
        raise InputError(f"there is no prompt file {file}")
    return kind.parse(text, Path(name).name.removesuffix(".toml"))


def configure_wording(wording: W, *, language: str = "", instruction: str = "", chat: str = "") -> W:
    """The wording with what a SPEC sets in it; keyword parameters are the options. `InputError` for what it lacks."""
    if language not in ("", "query", "document"):
        language = parse_language(language)
    words = wording.words
    if instruction:  # in the place of the translated ones, too
        words = {
            code: {key: text for key, text in table.items() if key != "instruction"} for code, table in words.items()
        }
    given = {"language": language, "instruction": instruction, "chat": chat}
    return replace(wording, words=words, **{key: value for key, value in given.items() if value})  # type: ignore[arg-type]


def configure_prompt(
    prompt: Prompt,
    *,
    language: str = "",
    instruction: str = "",
    chat: str = "",
    orders: str = "",
    thinking: int = 0,
    calibrate: bool = False,
) -> Prompt:
    """As `configure_wording`; `orders`, `thinking` and `calibrate` are a prompt's own."""
    prompt = configure_wording(prompt, language=language, instruction=instruction, chat=chat)
    if thinking and not (prompt.think or (prompt.asks == "generate" and prompt.most == 1)):
        raise InputError(f"the prompt {prompt.name} does not think: take one that does, or leave thinking out")
    given = {"orders": orders, "thinking": thinking, "calibrate": calibrate}
    return replace(prompt, **{key: value for key, value in given.items() if value})  # type: ignore[arg-type]


def split_method(text: str, what: str, form: str) -> tuple[str, Spec]:
    """What stands before the @, and the SPEC of the judge; without one the `InputError` gives the `form` to write."""
    method, at, model = text.partition("@")
    if not at:
        raise InputError(f"the {what} {text!r} names no model; write {form}")
    return method, Spec.parse(model)


def split_lone(text: str) -> tuple[Prompt, Spec]:
    """The prompt and the judge of a SPEC `PROMPT@FAMILY:CHECKPOINT` by which each pair is judged alone."""
    name, spec = split_method(text, "judge", "prompt@family:checkpoint")
    if ":" in name:
        raise InputError(f"the judge {text!r} names a sorter, and each pair is judged alone: leave it out")
    return load_prompt(name), spec


def bind_judge(
    text: str,
    spec: Spec,
    prompt: Prompt,
    *targets: Callable[..., Any],
    device: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[Prompt, Callable[[], Judge], dict[str, object], list[dict[str, object]]]:
    """The options in the judge's `spec` shared out: the prompt with its own, what loads the judge, the judge's own
    options, and those of each of the `targets`, which come first where several know an option.

    `InputError` on an option that none knows, and on an unknown family of judges; `text` is the whole SPEC.
    """
    factory, spec = find_judge(spec)
    own: tuple[Callable[..., Any], ...] = (*targets, configure_prompt)
    given = (factory, {"device": device, "trust_remote_code": trust_remote_code})
    *bound, wording, options = distribute_options(spec, text.partition("?")[0], [*((each, {}) for each in own), given])
    prompt = configure_prompt(prompt, **wording)  # type: ignore[arg-type]
    return prompt, lambda: open_judge(factory, spec.checkpoint, options), options, bound


def _list_files(folder: Traversable) -> dict[str, Traversable]:
    return {each.name.removesuffix(".toml"): each for each in folder.iterdir() if each.name.endswith(".toml")}
