"""What known decoder LLM retrievers were trained to read: prompts, pooling, attention; and tasks put into prompts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from ..errors import InputError

Style = Literal["e5", "tart", "gemma"]
TASK = "Given a web search query, retrieve relevant passages that answer the query"

# How a query states its task: E5-Mistral's way (also Qwen3-Embedding's and gte-Qwen2's), TART's (Asai et al. 2023),
# and EmbeddingGemma's.
STYLES = {"e5": "Instruct: {task}\nQuery: ", "tart": "{task} [SEP] ", "gemma": "task: {task} | query: "}

# Prompts that hold a task, up to and after it.
_TASKED = (re.compile(r"(Instruct: ).*?(\nQuery: ?)", re.DOTALL), re.compile(r"(task: ).*?( \| query: )"))


@dataclass(frozen=True)
class KnownRetriever:
    """A retriever whose files do not say it all: prompts, pooling, whether attention goes both ways.

    `end` is the token that texts end with where the tokenizer does not put it; empty for its eos_token.
    """

    query_prompt: str
    document_prompt: str = ""
    pooling: Literal["last", "mean"] = "last"
    bidirectional: bool = False
    end: str = ""


def _read_known() -> Mapping[str, Any]:
    known: Mapping[str, Any] = tomllib.loads(files(__package__).joinpath("known.toml").read_text("utf-8"))
    return known


# By a part of the checkpoint's name, in lower case.
KNOWN = {name: KnownRetriever(**table) for name, table in _read_known()["retrievers"].items()}
KNOWN_PROMPTS: Mapping[str, Sequence[str]] = _read_known()["prompts"]  # query, document


def find_retriever(*names: str | None) -> KnownRetriever | None:
    """The retriever that one of the names (of a checkpoint, of an adapter) is; None if it is none of `KNOWN`."""
    lasts = [name.rstrip("/").rpartition("/")[2].lower() for name in names if name]
    return next((each for last in lasts for part, each in KNOWN.items() if part in last), None)


def instruct_prompt(prompt: str, task: str, style: Style | None, checkpoint: str) -> str:
    """The query prompt with `task` in it: in the style named, else in the checkpoint's own, else in E5's.

    `InputError` for a checkpoint whose own prompt has no place for a task (RepLLaMA's is `query: `), unless a style
    is named.
    """
    if style is not None:
        return STYLES[style].format(task=task)
    for pattern in _TASKED:
        if match := pattern.fullmatch(prompt):
            return match[1] + task + match[2]
    if prompt:
        raise InputError(
            f"{checkpoint} reads its queries after {prompt!r}, which holds no task: leave instruct out, or name a "
            f"style= ({', '.join(STYLES)}), or write the whole prompt as query_prompt="
        )
    return STYLES["e5"].format(task=task)
