"""Judges whose tokenizer is here: chat templates around messages, counting and cutting, what labels are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import InputError, check_at_least
from .base import Ask, BaseJudge
from .mass import SAMPLE, is_sampled
from .messages import Message, check_room, cut_passages

REACH = 16  # characters before a text that decide how a tokenizer splits it
ANCHORS = (")", "]", "\n")  # what a label may follow without merging with it


@dataclass(frozen=True, slots=True)
class LabelTokens:
    """How labels are read off: as one next token each, or as whole token sequences.

    With `single`, each label has one or more token ids, any of which says it, after the tokens `lead` that all
    labels begin with; tokens that all of them end with (a closing bracket) say nothing and are left out. Otherwise
    `sequences` has each label's tokens.
    """

    single: bool
    lead: tuple[int, ...]
    ids: tuple[tuple[int, ...], ...]
    sequences: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What follows a prompt's tokens: how many of its last `tokens` are scored, or the ids of labels after them.

    The answer to labels that are `weighed` has one score more, last: that of the whole vocabulary.
    """

    tokens: tuple[int, ...]
    scored: int = 0
    labels: tuple[tuple[int, ...], ...] = ()
    weighed: bool = False

    @property
    def shown(self) -> tuple[int, ...]:
        """What the model must read of it: the last scored token only has to be predicted."""
        return self.tokens[:-1] if self.scored else self.tokens

    def after(self, start: tuple[int, ...]) -> Continuation:
        """The prompt's tokens and what follows them, as one."""
        return replace(self, tokens=(*start, *self.tokens))


def plan_continuations(plans: Sequence[LabelTokens]) -> list[tuple[Continuation, ...]]:
    """What to ask after each prompt: the labels at once if all plans have single tokens, else each by itself."""
    if all(plan.single for plan in plans):
        return [(Continuation(plan.lead, labels=plan.ids),) for plan in plans]
    return [tuple(Continuation(row, len(row)) for row in plan.sequences) for plan in plans]


def normalize_labels(asked: Sequence[Continuation], answers: Sequence[np.ndarray]) -> tuple[np.ndarray, float | None]:
    """Log-probabilities float64 [labels], normalised, from the answers to a plan of `plan_continuations`; and their
    mass before that, where it is known.

    A label of many tokens has the probability of them all: the sum of their logarithms, not the mean.
    """
    whole: float | None = 0.0
    if asked[0].labels:
        row, more = np.split(np.asarray(answers[0], np.float64), [len(asked[0].labels)])
        whole = float(more[0]) if asked[0].weighed else None
    else:
        row = np.array([scores.sum() for scores in answers], np.float64)
    total = np.logaddexp.reduce(row)
    return row - total, None if whole is None else float(np.exp(total - whole))


class CachedTokenizer:
    """A tokenizer as judges need it; its answers are remembered, for passages and labels come again and again."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer = tokenizer
        self.name = name
        self.ids = lru_cache(maxsize=1 << 14)(self._ids)
        self._planned = lru_cache(maxsize=1 << 10)(self._plan_labels)
        self.cut = lru_cache(maxsize=1 << 14)(self._cut)

    def count(self, text: str) -> int:
        """How many tokens a text has, without special ones."""
        return len(self.ids(text))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _cut(self, text: str, tokens: int) -> str:
        """The start of a text that has at most so many tokens; never half a character."""
        if self.count(text) <= tokens:
            return text
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        spans = self.tokenizer(text, **options)["offset_mapping"]
        end = spans[tokens - 1][1] if tokens else 0
        # Tokens of single bytes share a character's span: the character that does not fit goes as a whole.
        if tokens < len(spans) and spans[tokens][0] < end:
            end = spans[tokens][0]
        # Without what follows it, the last character may be other and more tokens.
        while end and len(self._ids(text[:end])) > tokens:
            end -= 1
        return text[:end]

    def plan_labels(self, before: str, labels: Sequence[str]) -> LabelTokens:
        """What the labels are made of after the text `before` (empty: a new turn).

        A label may follow glued or after a space, and tokenizers differ in what they make of it: " A" may be one
        token, or a space and "A". The form that goes on from `before` as people write comes first; where both
        forms are single tokens, either says the label. `InputError` if two labels have the same tokens.
        """
        return self._planned(before[-REACH:], tuple(labels))

    def _plan_labels(self, before: str, labels: tuple[str, ...]) -> LabelTokens:
        forms = (
            ("{}", " {}") if not before or (not before[-1].isalnum() and before[-1] not in ":.?!,;") else (" {}", "{}")
        )
        plans = (self._plan_form(before, [form.format(label) for label in labels]) for form in forms)
        sound = [each for each in plans if each is not None]
        if not sound:
            unk = self.tokenizer.unk_token_id
            if unwritten := [label for label in labels if unk is not None and unk in self.ids(label)]:
                raise InputError(f"{self.name}: its tokenizer has no tokens for the label {unwritten[0]}")
            raise InputError(
                f"{self.name}: its tokenizer makes the same tokens of two of the labels {', '.join(labels)}"
            )
        single = [each for each in sound if each.single]
        if not single:
            return sound[0]
        first, *others = single
        if first.lead or not others or others[0].lead:
            return first
        ids = tuple(tuple(dict.fromkeys(mine + more)) for mine, more in zip(first.ids, others[0].ids, strict=True))
        distinct = sum(map(len, ids)) == len(set().union(*ids))
        return LabelTokens(True, (), ids, first.sequences) if distinct else first

    def _plan_form(self, before: str, written: Sequence[str]) -> LabelTokens | None:
        rows = [self.following(before, text) for text in written]
        unk = self.tokenizer.unk_token_id
        if len(set(rows)) < len(rows) or not all(rows) or any(unk in row for row in rows):
            return None
        lead = rows[0][: count_common(min(rows), max(rows))]
        rest = [row[len(lead) :] for row in rows]
        # The first of several tokens is not the label: half a character, or a word that others begin with as well.
        single = all(rest) and len({row[0] for row in rest}) == len(rest) and len({row[1:] for row in rest}) == 1
        ids = tuple(row[:1] for row in rest) if single else ()
        return LabelTokens(single, lead if single else (), ids, tuple(rows))

    def following(self, before: str, text: str) -> tuple[int, ...]:
        """A text's tokens after `before`; where both merge into one token, those that it has by itself in a line."""
        before = before[-REACH:]
        start, both = self.ids(before), self.ids(before + text)
        return both[len(start) :] if both[: len(start)] == start else self._inside(text)

    def _inside(self, text: str) -> tuple[int, ...]:
        """A text's tokens within a line, where sentencepiece puts no space before it."""
        for anchor in ANCHORS:
            start, both = self.ids(anchor), self.ids(anchor + text)
            if start and both[: len(start)] == start and len(both) > len(start):
                return both[len(start) :]
        return self.ids(text)


def count_common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


class TokenizedJudge(BaseJudge):
    """The base of judges whose model continues tokens; passages are cut to `passage_tokens`, prompts fit `context`.

    Labels and targets become `Continuation`s of what `prepare_prompts` and `prepare_targets` make of prompts, and a
    subclass answers these in `compute_answers`; with `weighs` it also scores the whole vocabulary beside labels that
    are `weighed`, one in `sample`. `spare` is how many tokens its backend always makes more.
    """

    can: frozenset[Ask] = frozenset({"choose", "likelihood", "generate"})
    spare = 0
    weighs = False
    sample = SAMPLE

    def __init__(self, tokenizer: Any, name: str, revision: str, *, passage_tokens: int, context: int) -> None:
        check_at_least(1, passage_tokens=passage_tokens)
        super().__init__(name, revision)
        self.tokenizer = tokenizer
        self.tokens = CachedTokenizer(tokenizer, name)
        self.passage_tokens, self.context = passage_tokens, context
        self.chats = bool(getattr(tokenizer, "chat_template", None))
        self._chosen: Counter[tuple[object, str]] = Counter()  # questions asked, by labels and language

    @property
    def longest_answer(self) -> int:
        """How many tokens of an answer fit beside a prompt of as many."""
        return self.context // 2

    @property
    def templates(self) -> Any:
        """What has the chat template, and applies it."""
        return self.tokenizer

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        rows = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return [len(row) for row in rows]

    def compute_choices(self, prompts: Sequence[Message], labels: tuple[str, ...]) -> np.ndarray:
        starts, asked = self.prepare_choices(prompts, labels)
        asked = [self._sample(each, prompt, labels) for each, prompt in zip(asked, prompts, strict=True)]

        def read(row: int, answers: Sequence[np.ndarray]) -> np.ndarray:
            normalized, mass = normalize_labels(asked[row], answers)
            if mass is not None:
                self.count_label_mass(prompts[row], mass)
            return normalized

        return np.array(self._continue(starts, asked, read))

    def _sample(
        self, asked: tuple[Continuation, ...], prompt: Message, labels: tuple[str, ...]
    ) -> tuple[Continuation, ...]:
        """The question, its labels weighed if it is in the sample: the whole head is much more than their rows."""
        self._chosen[labels, prompt.language] += 1
        weighed = self.weighs and is_sampled(self._chosen[labels, prompt.language], self.sample)
        return tuple(replace(each, weighed=True) for each in asked) if weighed and asked[0].labels else asked

    def compute_likelihoods(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        starts, asked = self.prepare_targets(prompts, targets)
        answers = self._continue(starts, [(each,) for each in asked], lambda _, answers: answers[0].mean())
        return np.array(answers, dtype=np.float64)

    def _continue(
        self,
        starts: Sequence[Any],
        asked: Sequence[Sequence[Continuation]],
        read: Callable[[int, Sequence[np.ndarray]], Any],
    ) -> list[Any]:
        """What `read` makes of a row and the answers to its continuations, handed over once all of them are there."""
        found: list[dict[int, np.ndarray]] = [{} for _ in asked]
        answers: dict[int, Any] = {}
        for row, column, answer in self.compute_answers(starts, asked):
            found[row][column] = answer
            if len(found[row]) == len(asked[row]):
                answers[row] = read(row, [found[row][each] for each in sorted(found[row])])
                self.hand_over(row, answers[row])
        return [answers[row] for row in range(len(asked))]

    def prepare_prompts(self, prompts: Sequence[Message], room: int) -> tuple[Sequence[Any], Sequence[str]]:
        """What the model reads of each prompt, with `room` tokens left, and the text after which labels stand."""
        texts = [self.write_text(prompt, room) for prompt in prompts]
        starts = self.tokenize(texts, prompts)
        # Where there is a passage, it was cut to leave the room.
        whole = [len(start) for start, prompt in zip(starts, prompts, strict=True) if not prompt.passages]
        check_room(self.name, self.context, max(whole, default=0), room)
        return starts, texts

    def prepare_choices(
        self, prompts: Sequence[Message], labels: tuple[str, ...]
    ) -> tuple[Sequence[Any], list[tuple[Continuation, ...]]]:
        """What the model reads of each prompt, and by which continuations a label is chosen after it."""
        longest = max((self.tokens.count(f" {label}") for label in labels), default=0)
        starts, texts = self.prepare_prompts(prompts, longest + self.spare)
        return starts, plan_continuations([self.tokens.plan_labels(text, labels) for text in texts])

    def prepare_targets(
        self, prompts: Sequence[Message], targets: Sequence[str]
    ) -> tuple[Sequence[Any], list[Continuation]]:
        """What the model reads of each prompt, and its target after that."""
        longest = max(self.tokens.count(target) for target in set(targets))
        starts, texts = self.prepare_prompts(prompts, longest + self.spare)
        wholes = self.tokenize([text + target for text, target in zip(texts, targets, strict=True)], prompts)
        return self._split_targets(starts, wholes, targets)

    def _split_targets(
        self, starts: Sequence[Any], wholes: Sequence[tuple[int, ...]], targets: Sequence[str]
    ) -> tuple[list[tuple[int, ...]], list[Continuation]]:
        """The tokens of prompts and targets together, parted; a token in which both merge is the target's."""
        before, after = [], []
        for start, whole, target in zip(starts, wholes, targets, strict=True):
            begins = count_common(start, whole)
            if begins == len(whole):
                raise InputError(f"{self.name}: the target {target!r} has no tokens")
            before.append(whole[:begins])
            after.append(Continuation(whole[begins:], len(whole) - begins))
        return before, after

    def compute_answers(
        self, starts: Sequence[Any], asked: Sequence[Sequence[Continuation]]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """As they come: the row and column of a continuation, and the log-probabilities of scored tokens or labels."""
        raise NotImplementedError

    def is_templated(self, message: Message) -> bool:
        """Whether the chat template goes around the message; `InputError` if it must and there is none."""
        if message.chat == "always" and not self.chats:
            raise InputError(
                f"{self.name} has no chat template, and the prompt needs one; set chat=never to do without"
            )
        return self.chats and message.chat != "never"

    def render(self, message: Message) -> str:
        """The chat template around the message, up to where its answer begins.

        `InputError` if the template does not take a user's turn alone.
        """
        turns = [{"role": "system", "content": self.show(Message((message.system,)))}] if message.system else []
        turns.append({"role": "user", "content": self.show(message)})
        options = {"tokenize": False, "add_generation_prompt": True}
        # Templates of hybrid models close an empty thought where none is wanted. (Processors warn of what is not used.)
        if "enable_thinking" in str(self.templates.chat_template):
            options["enable_thinking"] = message.answer.startswith("<think>")
        import jinja2

        try:
            return str(self.templates.apply_chat_template(turns, **options))
        except jinja2.TemplateError:
            if not message.system:
                raise InputError(f"{self.name}: its chat template does not take a user's turn alone") from None
        # Some templates know no system turn: what it says opens the user's.
        return self.render(replace(message, system="", parts=(f"{message.system}\n\n", *message.parts)))

    def show(self, message: Message) -> str | Sequence[dict[str, str]]:
        """A message's parts as chat templates take a turn: text, or parts of text and media."""
        return message.user()

    def cut(self, message: Message, room: int) -> Message:
        """The message with its passages cut until it has at most `room` tokens; cut ones are counted."""
        whole, cut = cut_passages(message, self.tokens, passage_tokens=self.passage_tokens, room=room, name=self.name)
        self.usage["cut_passages"] += cut
        return whole

    def write_text(self, message: Message, room: int, special: int = 1) -> str:
        """A message as one text, in the chat template where it wants one, cut so that `room` tokens more fit.

        `special` is how many tokens the tokenizer adds to a text without a template.
        """
        templated = self.is_templated(message)
        frame = self.tokens.count(self.render(replace(message, parts=()))) if templated else special
        whole = self.cut(message, self.context - room - frame)
        return self.render(whole) + whole.answer if templated else whole.plain()

    def tokenize(self, texts: Sequence[str], messages: Sequence[Message]) -> list[tuple[int, ...]]:
        """The tokens of what `write_text` made of messages; `InputError` for one that the context is too short for."""
        bos = self.tokenizer.bos_token_id
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        # Chat templates bring the BOS. Elsewhere some checkpoints' tokenizers do not add the one that the model was
        # trained with; Gemma needs it.
        rows = [
            tuple(row) if bos is None or row[:1] == [bos] or self.is_templated(message) else (bos, *row)
            for row, message in zip(ids, messages, strict=True)
        ]
        self.check_length(max(map(len, rows)))
        return rows

    def check_length(self, tokens: int, advice: str = "") -> None:
        """`InputError` where a prompt of so many tokens does not fit."""
        if tokens > self.context:
            raise InputError(
                f"{self.name}: a prompt of {tokens} tokens exceeds the context of {self.context}; shorten the query or "
                f"the instruction{advice}"
            )
