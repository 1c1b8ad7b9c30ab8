"""What a server's reply says: the text, the thought, the likeliest tokens, and which label a token says."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

MARGIN = 1.0  # nats by which an unseen label lies below the least of the seen tokens
LEAST = -50.0  # log-probability below which servers' figures (-9999 for none) say nothing


class ServedLabels:
    """The labels of a question, and what tokens say of them."""

    def __init__(self, given: Sequence[str]) -> None:
        self.given = tuple(given)
        # What all labels end with, from its first sign on, closes them: "]", "]</answer>".
        alike = [len(set(each)) == 1 for each in zip(*(label[::-1] for label in given), strict=False)]
        shared = given[0][len(given[0]) - [*alike, False].index(False) :]
        sign = re.search(r"[\W_].*", shared, re.S)
        self.closing = sign.group() if sign and len(sign.group()) < min(map(len, given)) else ""
        self.bare = tuple(label.removesuffix(self.closing) for label in given)
        self.cores = tuple(strip_signs(label) for label in self.bare)
        folded = sorted(each.casefold() for each in self.cores)
        self.ambiguous = any(b.startswith(a) for a, b in pairwise(folded))

    def find(self, token: str) -> int | None:
        """The label that a token says, or that it alone can begin."""
        word = strip_signs(token.replace("▁", " ").replace("Ġ", " "))
        if word in self.cores:
            return self.cores.index(word)
        word = word.casefold()
        # A single letter in lower case is rather the article "a" than the label A.
        possible = [n for n, each in enumerate(self.cores) if len(each) > 1 and each.casefold().startswith(word)]
        return possible[0] if word and len(possible) == 1 else None

    def score(self, tops: Sequence[tuple[str, float]]) -> tuple[np.ndarray, float]:
        """Log-probability of each label among the likeliest next tokens, and the probability of all together."""
        shares = np.zeros(len(self.given))
        for token, value in tops:
            place = self.find(token)
            if place is not None:
                shares[place] += math.exp(value)
        # What is not shown is less likely than the least token shown, and than all that is not shown together.
        rest = 1 - sum(math.exp(value) for _, value in tops)
        unseen = min(min((value for _, value in tops), default=0.0) - MARGIN, math.log(max(rest, 1e-9)))
        row = np.where(shares > 0, np.log(np.maximum(shares, 1e-300)), unseen)
        return row, float(shares.sum())

    @property
    def even(self) -> np.ndarray:
        """Equal log-probabilities: what an answer says that names no label."""
        return np.full(len(self.given), -math.log(len(self.given)))


def strip_signs(text: str) -> str:
    """A label without what may stand around it: spaces, brackets, quotes, points."""
    bare = re.sub(r"^[\W_]+|[\W_]+$", "", text)
    return bare or text.strip()


def split_thought(choice: dict[str, Any]) -> tuple[str, str]:
    """What was answered, and what was thought where the server keeps that apart."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return str(choice.get("text") or ""), ""
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content), str(message.get("reasoning_content") or message.get("reasoning") or "")


def read_logprobs(choice: dict[str, Any]) -> list[list[tuple[str, float]]] | None:
    """The likeliest tokens and their log-probabilities at each place of the answer; None where there are none.

    Read in both forms: the chat API's (llama.cpp uses it everywhere) and that of completions.
    """
    shown = choice.get("logprobs")
    if not isinstance(shown, dict):
        return None
    places: list[dict[Any, Any]] = []
    if isinstance(shown.get("content"), list):
        for entry in shown["content"]:
            if isinstance(entry, dict):
                tops = [each for each in entry.get("top_logprobs") or [] if isinstance(each, dict)]
                places.append({each.get("token"): each.get("logprob") for each in (entry, *tops)})
    elif isinstance(shown.get("tokens"), list) and isinstance(shown.get("token_logprobs"), list):
        tops = shown.get("top_logprobs") or []
        for n, (token, value) in enumerate(zip(shown["tokens"], shown["token_logprobs"], strict=False)):
            more = tops[n] if n < len(tops) and isinstance(tops[n], dict) else {}
            places.append({token: value} | more)
    return [
        [
            (token, min(max(float(value), LEAST), 0.0))
            for token, value in place.items()
            if isinstance(token, str) and isinstance(value, int | float) and not math.isnan(value)
        ]
        for place in places
    ] or None


def count_target_tokens(tokens: Sequence[str], target: str) -> int | None:
    """How many of the last tokens spell the target, one shared with the prompt included; None if they do not."""
    text, mine = "", 0
    for token in reversed(tokens):
        # Empty tokens are the first bytes of the character that the next token completes.
        if len(text) >= len(target) and token:
            break
        text, mine = token + text, mine + 1
    return mine if text.endswith(target) else None
