"""Judges whose tokenizer is here: chat templates around messages, cutting, and what is asked after a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import InputError, check_at_least
from .base import Ask, BaseJudge
from .messages import Message, cut_passages
from .tokens import CachedTokenizer, Continuation, count_common, normalize_labels, plan_continuations

Content = str | Sequence[dict[str, object]]  # text, or parts of text and media as processors take them


class TokenizedJudge(BaseJudge):
    """The base of judges whose model continues tokens; passages are cut to `passage_tokens`, prompts fit `context`.

    Labels and targets become `Continuation`s of what `prepare_prompts` and `prepare_targets` make of prompts, and a
    subclass answers these in `compute_answers`. `spare` is how many tokens its backend always makes more.
    """

    can: frozenset[Ask] = frozenset({"choose", "likelihood", "generate"})
    spare = 0

    def __init__(self, tokenizer: Any, name: str, revision: str, *, passage_tokens: int, context: int) -> None:
        check_at_least(1, passage_tokens=passage_tokens)
        super().__init__(name, revision)
        self.tokenizer = tokenizer
        self.tokens = CachedTokenizer(tokenizer, name)
        self.passage_tokens, self.context = passage_tokens, context
        self.chats = bool(getattr(tokenizer, "chat_template", None))

    def compute_choices(self, prompts: Sequence[Message], labels: tuple[str, ...]) -> np.ndarray:
        longest = max((self.tokens.count(f" {label}") for label in labels), default=0)
        starts, texts = self.prepare_prompts(prompts, longest + self.spare)
        asked = plan_continuations([self.tokens.plan_labels(text, labels) for text in texts])
        return normalize_labels(asked, self._continue(starts, asked))

    def compute_likelihoods(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        starts, asked = self.prepare_targets(prompts, targets)
        answers = self._continue(starts, [(each,) for each in asked])
        return np.array([scores.mean() for (scores,) in answers], dtype=np.float64)

    def _continue(self, starts: Sequence[Any], asked: Sequence[Sequence[Continuation]]) -> list[list[np.ndarray]]:
        """What each start's continuations are answered with; a prompt counts once all of its are."""
        answers: list[dict[int, np.ndarray]] = [{} for _ in asked]
        for row, column, answer in self.compute_answers(starts, asked):
            answers[row][column] = answer
            self.count_answers(len(answers[row]) == len(asked[row]))
        return [[found[column] for column in sorted(found)] for found in answers]

    def prepare_prompts(self, prompts: Sequence[Message], room: int) -> tuple[Sequence[Any], Sequence[str]]:
        """What the model reads of each prompt, with `room` tokens left, and the text after which labels stand."""
        texts = [self.write_text(prompt, room) for prompt in prompts]
        return self.tokenize(texts, prompts), texts

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
            before.append(whole[:begins])
            after.append(self._continuation(whole[begins:], target))
        return before, after

    def _continuation(self, tokens: tuple[int, ...], target: str) -> Continuation:
        if not tokens:
            raise InputError(f"{self.name}: the target {target!r} has no tokens")
        return Continuation(tokens, len(tokens))

    def compute_answers(
        self, starts: Sequence[Any], asked: Sequence[Sequence[Continuation]]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """As they come: the row and column of a continuation, and its scored tokens' log-probabilities or its labels'."""
        raise NotImplementedError

    def is_templated(self, message: Message) -> bool:
        """Whether the chat template goes around the message; `InputError` if it must and there is none."""
        if message.chat == "always" and not self.chats:
            raise InputError(
                f"{self.name} has no chat template, and the prompt needs one; set chat=never to do without"
            )
        return self.chats and message.chat != "never"

    def render(self, message: Message, user: Content, wrap: Callable[[str], Content] = lambda text: text) -> str:
        """The chat template around the user's turn, up to where the answer begins.

        `wrap` makes of a text what the template takes as a turn. `InputError` if it does not take a user's turn alone.
        """
        turns = [{"role": "user", "content": user}]
        if message.system:
            turns.insert(0, {"role": "system", "content": wrap(message.system)})
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
            opening = wrap(f"{message.system}\n\n")
            joined = f"{opening}{user}" if isinstance(user, str) else [*opening, *user]
            return str(self.templates.apply_chat_template([{"role": "user", "content": joined}], **options))

    @property
    def templates(self) -> Any:
        """What has the chat template: the tokenizer, or a processor."""
        return self.tokenizer

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
        frame = self.tokens.count(self.render(message, "")) if templated else special
        whole = self.cut(message, self.context - room - frame)
        return self.render(whole, whole.user()) + whole.answer if templated else whole.plain()

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
