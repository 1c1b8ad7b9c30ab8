"""What a judge is: the protocol, what it is asked, and the base that refuses, counts and passes sampling on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ...errors import InputError
from ...items import Item, Modality
from ...pipeline import advance
from ...steps import put
from .mass import count_mass
from .messages import Message, TokenEstimate

Ask = Literal["choose", "likelihood", "generate", "score"]


_TAKER: ContextVar[Callable[[int, Any], None] | None] = ContextVar("taker", default=None)


def take_answers(taker: Callable[[int, Any], None]) -> AbstractContextManager[None]:
    """While the block asks a judge that `streams`, `taker` gets each answer as it comes, and its prompt's position."""
    return put(_TAKER, taker)


@dataclass(frozen=True, slots=True)
class Completion:
    """Generated text, how many tokens it took, and whether it ended by itself (False: cut at the limit)."""

    text: str
    tokens: int
    ended: bool = True

    def cut_at(self, stop: Sequence[str]) -> Completion:
        """The text up to the first of the strings that it holds, that one included."""
        ends = [self.text.find(each) + len(each) for each in stop if each in self.text]
        return Completion(self.text[: min(ends)], self.tokens) if ends else self


@dataclass(frozen=True, slots=True)
class Sampling:
    """How text is generated: greedily at temperature 0, up to one of `stop`, with which the text then ends.

    Above 0 a token is sampled from all. Without a `seed` the judge takes its own. A model in this process then samples
    the same text for the same prompt, whatever else is asked; a prompt that is asked n times has n texts.
    """

    max_new_tokens: int = 64
    stop: Sequence[str] = ()
    temperature: float = 0.0
    seed: int | None = None


class Judge(Protocol):
    """A model behind a backend.

    `usage` counts calls (questions answered), prompt_tokens (those computed), generated_tokens, cut_passages, label
    mass where it is known (`judges.mass`), and whatever went wrong by kind (`unreadable`, `retries`, ...); it only
    grows. `can` holds the questions that the model answers; asked another, it raises `InputError`. `chats` says whether
    it has a chat template. `appetite` is how many questions it likes to be handed at once: more gains nothing. While
    it works it calls `pipeline.advance` with the number of questions that were answered, in the thread of its caller.

    A judge may have `streams = True`: then it hands over each answer as it comes (`BaseJudge.hand_over`), and where
    answers are kept, a kill loses only the batch that it is at. Others are asked for less at once there.
    One that cuts passages may say to how many tokens (`passage_tokens`, `count_tokens`): `reranking.excerpts` then
    chooses what of a long document it is shown. One that knows how many tokens an answer can have beside a prompt of
    as many (`longest_answer`) is not asked for longer translations.
    """

    name: str
    revision: str
    modalities: frozenset[Modality]
    can: frozenset[Ask]
    chats: bool
    appetite: int
    usage: Counter[str]

    @property
    def fingerprint(self) -> str:
        """Everything that changes the answers: model, revision, precision, limits."""
        ...

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        """Log-probabilities float64 [n, labels] of each label as the next thing said, normalised over the labels."""
        ...

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        """Mean log-probability per token, float64 [n], of each target after its prompt."""
        ...

    def generate(self, prompts: Sequence[Message], **sampling: Any) -> list[Completion]:
        """What the model says after each prompt; `sampling` are the fields of `Sampling`."""
        ...

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        """What a relevance head (cross-encoder, RankLLaMA) says of each prompt, float64 [n], higher is better."""
        ...


class BaseJudge:
    """The base of judges: it refuses what the judge cannot answer or see, counts, and reports progress.

    A subclass says what it `can` and which `modalities` it sees, and answers in `compute_choices`,
    `compute_likelihoods`, `compute_completions` and `compute_scores`, which return what `choose`, `likelihood`,
    `generate` and `score` do, for at least one prompt; it calls `count_answers` for what it has answered, or, with
    `streams`, `hand_over` for each answer, and before either `count_label_mass`, where it knows that of a question it
    chose for. `advice` has what a user may do about a question or a modality that is refused.
    """

    modalities: frozenset[Modality] = frozenset({"text"})
    can: frozenset[Ask] = frozenset()
    chats = False
    streams = False
    appetite = 1024
    advice: ClassVar[Mapping[str, str]] = {}

    def __init__(self, name: str, revision: str) -> None:
        self.name = name
        self.revision = revision
        self.usage: Counter[str] = Counter()

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        accepted = self._accept("choose", prompts)
        return self.compute_choices(prompts, tuple(labels)) if accepted else np.empty((0, len(labels)))

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        return self.compute_likelihoods(prompts, targets) if self._accept("likelihood", prompts) else np.empty(0)

    def generate(self, prompts: Sequence[Message], **sampling: Any) -> list[Completion]:
        return self.compute_completions(prompts, Sampling(**sampling)) if self._accept("generate", prompts) else []

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        return self.compute_scores(prompts) if self._accept("score", prompts) else np.empty(0)

    def compute_choices(self, prompts: Sequence[Message], labels: tuple[str, ...]) -> np.ndarray:
        raise NotImplementedError

    def compute_likelihoods(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        raise NotImplementedError

    def compute_completions(self, prompts: Sequence[Message], sampling: Sampling) -> list[Completion]:
        raise NotImplementedError

    def compute_scores(self, prompts: Sequence[Message]) -> np.ndarray:
        raise NotImplementedError

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of a passage each text takes; estimated where there is no tokenizer."""
        return [TokenEstimate().count(text) for text in texts]

    def _accept(self, ask: Ask, prompts: Sequence[Message]) -> bool:
        """Whether there are prompts; `InputError` where the judge cannot answer them."""
        if ask not in self.can:
            raise InputError(f"{refuse(self, ask)}{self.advice.get(ask, '')}")
        if unseen := sorted(frozenset[str]().union(*(each.modalities for each in prompts)) - self.modalities):
            advice = "".join(self.advice.get(each, "") for each in unseen)
            raise InputError(f"{self.name} cannot be shown {' or '.join(unseen)}{advice}")
        return bool(prompts)

    def count_answers(self, number: int) -> None:
        """Count so many questions as answered, and report the progress."""
        self.usage["calls"] += number
        advance(number)

    def count_label_mass(self, prompt: Message, mass: float) -> None:
        """Count the probability 0..1 that all labels together had after a prompt, before it was normalised.

        It says whether the model answers the question at all; of a sample of questions is enough. See `judges.mass`.
        """
        count_mass(self.usage, prompt.language, mass)

    def hand_over(self, place: int, answer: Any) -> None:
        """Count the prompt at a position as answered, and hand the answer to whoever takes it."""
        self.count_answers(1)
        if (taker := _TAKER.get()) is not None:
            taker(place, answer)


def refuse(judge: Judge | BaseJudge, ask: Ask) -> InputError:
    """The error of a judge that is asked what it cannot answer."""
    able = ", ".join(sorted(judge.can))
    return InputError(f"{judge.name} cannot answer `{ask}` questions (it can: {able}); take another prompt")


def can_see(judge: Judge, query: Item, document: Item) -> bool:
    """Whether a judge can be shown a pair: all that the query holds, and something of the document."""
    visible = judge.modalities
    return bool(query.modalities and query.modalities <= visible and document.modalities & visible)
