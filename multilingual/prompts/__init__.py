"""Prompts as data: one TOML file each in this folder; a `Prompt` words a comparison and reads the answer."""

from .asking import bind_judge, split_method
from .files import configure_prompt, list_prompts, load_prompt, parse_prompt
from .prompt import Comparison, Prompt

__all__ = [
    "Comparison", "Prompt", "bind_judge", "configure_prompt", "list_prompts", "load_prompt", "parse_prompt", "split_method",
]  # fmt: skip
