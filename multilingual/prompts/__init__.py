"""Prompts as data: one TOML file each in this folder; a `Prompt` words a comparison and reads the answer."""

from .files import (
    bind_judge,
    configure_prompt,
    configure_wording,
    list_prompts,
    load_prompt,
    load_wording,
    split_lone,
    split_method,
)
from .prompt import Comparison, Prompt
from .wording import Wording

__all__ = [
    "Comparison",
    "Prompt",
    "Wording",
    "bind_judge",
    "configure_prompt",
    "configure_wording",
    "list_prompts",
    "load_prompt",
    "load_wording",
    "split_lone",
    "split_method",
]
