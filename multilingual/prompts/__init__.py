"""Prompts as data: one TOML file each in this folder; a `Prompt` words a comparison and reads the answer."""

from .files import configured, known, load, parse
from .prompt import Comparison, Prompt

__all__ = ["Comparison", "Prompt", "configured", "known", "load", "parse"]
