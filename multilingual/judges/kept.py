"""A judge whose answers are kept in a journal as they come, so that a killed run asks only what is left."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ...pipeline import advance
from .base import Ask, Completion, Judge, Sampling, take_answers
from .journal import Journal
from .messages import Message

SHARE = 20  # of the work, one part may be lost to a kill,
SECONDS = 30.0  # or what takes so long, whichever is sooner


class KeptJudge:
    """A judge that looks into a `journal` before it asks another, and keeps there what that one answers.

    A judge that hands its answers over one by one (`streams`) is asked for all that is wanted at once, and each answer
    is kept as it comes: nothing is slower, and a kill takes the batch that the model is at. Any other is asked for a
    20th of the `expected` number of questions at a time, or for fewer where these take over 30 s. `taken` counts the
    answers that were in the journal. With `asks` false nothing is asked, and what is not there raises `Unanswered`.
    """

    asks = True

    def __init__(self, judge: Judge, journal: Journal, expected: int) -> None:
        self.judge, self.journal = judge, journal
        self.name, self.revision, self.modalities = judge.name, judge.revision, judge.modalities
        self.can, self.chats, self.appetite = judge.can, judge.chats, judge.appetite
        self.fingerprint, self.usage = judge.fingerprint, judge.usage
        self.taken = 0
        self._most = max(1, expected // SHARE)
        self._size = self._most
        self._written = Counter(judge.usage)

    def __getattr__(self, name: str) -> Any:
        """What else the judge has: how it cuts passages."""
        return getattr(self.judge, name)

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        def ask(some: Sequence[int]) -> np.ndarray:
            return self.judge.choose([prompts[n] for n in some], labels)

        rows = self._answers("choose", prompts, [list(labels)] * len(prompts), ask)
        return np.array(rows, dtype=np.float64).reshape(len(prompts), len(labels))

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        def ask(some: Sequence[int]) -> np.ndarray:
            return self.judge.likelihood([prompts[n] for n in some], [targets[n] for n in some])

        return np.array(self._answers("likelihood", prompts, targets, ask), dtype=np.float64)

    def generate(self, prompts: Sequence[Message], **sampling: Any) -> list[Completion]:
        def ask(some: Sequence[int]) -> list[Completion]:
            return self.judge.generate([prompts[n] for n in some], **sampling)

        how = asdict(Sampling(**sampling))
        return [Completion(*each) for each in self._answers("generate", prompts, [how] * len(prompts), ask)]

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        def ask(some: Sequence[int]) -> np.ndarray:
            return self.judge.score([prompts[n] for n in some])

        return np.array(self._answers("score", prompts, [None] * len(prompts), ask), dtype=np.float64)

    def _answers(
        self, what: Ask, prompts: Sequence[Message], more: Sequence[Any], ask: Callable[[Sequence[int]], Iterable[Any]]
    ) -> list[Any]:
        """The answers as JSON has them, of what is not in the journal those that `ask` gives for positions."""
        keys = [self._key(what, prompt, each) for prompt, each in zip(prompts, more, strict=True)]
        if not self.asks:  # nor is counted what the answers cost
            if not all(key in self.journal.found for key in keys):
                raise Unanswered
            return [self.journal.found[key][0] for key in keys]
        answers = {n: found for n, key in enumerate(keys) if _is_answer(what, found := self.journal.get(key))}
        self.taken += len(answers)
        advance(len(answers))
        waiting = [n for n in range(len(keys)) if n not in answers]
        streams = getattr(self.judge, "streams", False)
        while waiting:
            some = waiting if streams else waiting[: self._size]
            waiting = waiting[len(some) :]
            started = time.monotonic()

            def take(place: int, answer: Any, some: Sequence[int] = some) -> None:
                if (n := some[place]) not in answers:
                    answers[n] = _to_json(answer)
                    self._keep(keys[n], answers[n])

            with take_answers(take):
                given = ask(some)
            for place, answer in enumerate(given):
                take(place, answer)
            seconds = time.monotonic() - started
            if seconds > SECONDS:
                self._size = max(1, int(len(some) * SECONDS / 2 / seconds))
            elif seconds < SECONDS / 2:
                self._size = min(self._most, 2 * self._size)
        return [answers[n] for n in range(len(keys))]

    def _keep(self, key: str, answer: Any) -> None:
        usage = Counter(self.usage)
        self.journal.put(key, answer, usage - self._written)
        self._written = usage

    def _key(self, what: Ask, prompt: Message, more: Any) -> str:
        """All that an answer depends on, as 32 hex digits."""
        hashing = hashlib.blake2b(digest_size=16)
        fixed = [self.fingerprint, what, more, prompt.system, prompt.answer, prompt.chat]
        hashing.update(json.dumps(fixed).encode())
        prompt.hash_parts(hashing)
        return hashing.hexdigest()


class Unanswered(Exception):
    """A question that is not in the journal, while none may be asked."""


def _is_answer(what: Ask, found: Any) -> bool:
    """Whether what a journal holds is an answer: a line without a checksum may have been changed by hand."""
    if what == "generate":
        return isinstance(found, list) and [type(each) for each in found] == [str, int, bool]
    return found is not None


def _to_json(answer: Any) -> Any:
    if isinstance(answer, Completion):
        return [answer.text, answer.tokens, answer.ended]
    return np.asarray(answer, dtype=np.float64).tolist()
