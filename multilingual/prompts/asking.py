"""The SPEC of a prompt and the judge that answers it: `METHOD@FAMILY:CHECKPOINT[?key=value&...]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...checkpoints.sharing import load_shared
from ...errors import InputError
from ...specs import Spec, distributed
from ..judges import Judge, find_judge
from .files import configure_prompt
from .prompt import Prompt


def split_method(text: str, what: str, form: str) -> tuple[str, Spec]:
    """What stands before the @, and the SPEC of the judge; without one the `InputError` gives the `form` to write."""
    method, at, model = text.partition("@")
    if not at:
        raise InputError(f"the {what} {text!r} names no model; write {form}")
    return method, Spec.parse(model)


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
    *bound, wording, options = distributed(spec, text.partition("?")[0], [*((each, {}) for each in own), given])
    prompt = configure_prompt(prompt, **wording)  # type: ignore[arg-type]
    return prompt, lambda: load_shared(factory, spec.checkpoint, options), options, bound
