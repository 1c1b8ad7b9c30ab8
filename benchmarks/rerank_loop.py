"""The peers of the speed benchmark: the straightforward loop, and the steps from it to crosslens' judge."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
from crosslens.encoders.batching import plan_batches
from crosslens.errors import InputError
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.judges.messages import Message, cut_passages
from crosslens.multilingual.judges.tokenized import CachedTokenizer


@dataclass(frozen=True)
class Question:
    """What a judge is asked: the log-probability of `target` after a message, or of each of `labels`."""

    message: Message
    target: str = ""
    labels: tuple[str, ...] = ()


class Loop:
    """One prompt a forward pass through `AutoModelForCausalLM`, logits of all positions, no cache.

    What llm-rankers does; only the wording and cutting of prompts and what stands for a label are crosslens'.
    """

    def __init__(self, checkpoint: str, dtype: torch.dtype, judge: CausalJudge) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, use_safetensors=True)
        self.model = model.to(judge.device).eval()
        self.tokens = CachedTokenizer(self.tokenizer, checkpoint)
        self.judge = judge

    def __call__(self, questions: Sequence[Question]) -> list[np.ndarray]:
        return [self.answer(question) for question in questions]

    @torch.inference_mode()
    def answer(self, question: Question) -> np.ndarray:
        ids, scored = self.encoded(question)
        logits = self.model(torch.tensor([ids], device=self.judge.device), use_cache=False).logits
        return self.read(logits[0], ids, scored)

    @torch.inference_mode()
    def batched(self, questions: Sequence[Question]) -> list[np.ndarray]:
        """The same in length-sorted batches with padding, as many tokens a batch as the judge takes."""
        rows = [self.encoded(question) for question in questions]
        answers: list[np.ndarray] = [np.empty(0)] * len(rows)
        for batch in plan_batches([len(ids) for ids, _ in rows], self.judge.budget):
            longest = max(len(rows[n][0]) for n in batch)
            tokens = torch.zeros((len(batch), longest), dtype=torch.long)
            mask = torch.zeros_like(tokens)
            for line, n in enumerate(batch):
                ids, _ = rows[n]
                tokens[line, : len(ids)] = torch.tensor(ids)
                mask[line, : len(ids)] = 1
            where = self.judge.device
            logits = self.model(tokens.to(where), attention_mask=mask.to(where), use_cache=False).logits
            for line, n in enumerate(batch):
                ids, scored = rows[n]
                answers[n] = self.read(logits[line, : len(ids)], ids, scored)
        return answers

    def encoded(self, question: Question) -> tuple[list[int], int | list[list[int]]]:
        """Token ids; and how many of the last ones are scored, or the ids of each label."""
        text = worded(self.judge, question.message)
        prompt = self._ids(text)
        if question.target:
            whole = self._ids(text + question.target)
            return whole, len(whole) - len(prompt)
        plan = self.tokens.plan_labels(text, question.labels)
        if not plan.single:
            raise InputError(f"{self.judge.name}: labels of several tokens are more than the plain loop reads")
        return prompt + list(plan.lead), [list(ids) for ids in plan.ids]

    @staticmethod
    def read(logits: torch.Tensor, ids: Sequence[int], scored: int | list[list[int]]) -> np.ndarray:
        """The mean log-probability of the scored tokens, or the labels' log-probabilities."""
        if isinstance(scored, int):
            said = logits[-scored - 1 : -1].float().log_softmax(-1)
            targets = torch.tensor(ids[-scored:], device=said.device)
            return said.gather(1, targets[:, None]).mean().double().cpu().numpy().reshape(1)
        said = logits[-1].float().log_softmax(-1)
        labels = torch.stack([said[each].logsumexp(-1) for each in scored])
        return labels.log_softmax(-1).double().cpu().numpy()

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def worded(judge: CausalJudge, message: Message) -> str:
    """A message without chat template, its passages cut as the judge cuts them."""
    cut, _ = cut_passages(
        message, judge.tokens, passage_tokens=judge.passage_tokens, room=judge.context - 64, name=judge.name
    )
    return cut.plain()


def answered(judge: CausalJudge, questions: Sequence[Question]) -> list[np.ndarray]:
    """A judge's answers, those with the same labels asked together."""
    answers: list[np.ndarray] = [np.empty(0)] * len(questions)
    for labels in dict.fromkeys(question.labels for question in questions):
        rows = [n for n, question in enumerate(questions) if question.labels == labels]
        messages = [questions[n].message for n in rows]
        if labels:
            found = judge.choose(messages, labels)
        else:
            found = judge.likelihood(messages, [questions[n].target for n in rows]).reshape(-1, 1)
        for n, row in zip(rows, found, strict=True):
            answers[n] = row
    return answers


def unshared(judge: CausalJudge, questions: Sequence[Question]) -> list[np.ndarray]:
    """A judge's answers, every prompt computed from its first token."""
    judge.shortest = sys.maxsize
    return answered(judge, questions)


def another(judge: CausalJudge, model: Any = None) -> CausalJudge:
    """A judge like this one with counts of its own and nothing remembered, on the same model or another."""
    return CausalJudge(
        model or judge.model,
        judge.tokenizer,
        judge.name,
        judge.revision,
        passage_tokens=judge.passage_tokens,
        device=judge.device,
    )


@dataclass
class Peer:
    """A way of answering, timed on each `every`-th question of the sample, `block` of them at once."""

    name: str
    answer: Callable[[Sequence[Question]], list[np.ndarray]]
    block: int = 1
    every: int = 1
    answers: dict[int, np.ndarray] = field(default_factory=dict)
    times: list[tuple[int, float]] = field(default_factory=list)
    waiting: dict[int, Question] = field(default_factory=dict)

    def take(self, number: int, question: Question) -> None:
        """The sample's question of that number; answered when a block is full."""
        if number % self.every == 0:
            self.waiting[number] = question
            if len(self.waiting) == self.block:
                self.finish()

    def finish(self) -> None:
        """Answer what waits for a full block."""
        if self.waiting:
            started = time.perf_counter()
            found = self.answer(list(self.waiting.values()))
            self.times.append((len(self.waiting), time.perf_counter() - started))
            self.answers |= dict(zip(self.waiting, found, strict=True))
            self.waiting = {}

    @property
    def seconds(self) -> float:
        """Seconds a question."""
        return sum(spent for _, spent in self.times) / sum(size for size, _ in self.times)

    @property
    def error(self) -> float:
        """The standard error of `seconds`, over the blocks."""
        if len(self.times) < 2:
            return float("nan")
        return statistics.stdev(spent / size for size, spent in self.times) / len(self.times) ** 0.5


class Interleaved:
    """A judge that hands its questions on and lets peers answer a sample of the same ones in between.

    The sample is one question drawn from each `stride` in the order they are asked, so that it is spread evenly over
    all rounds. Peers take their turns between the judge's batches: what slows the machine down for a while hits all.
    `paused` is the time that they took.
    """

    def __init__(self, judge: CausalJudge, peers: Sequence[Peer], stride: int, seed: int) -> None:
        self.judge = judge
        self.peers = list(peers)
        self.paused = 0.0
        self.asked: list[tuple[Message, str]] = []
        self.sample: list[Question] = []
        self.answers: list[np.ndarray] = []
        self._wanted = self._positions(stride, seed)
        self._next = next(self._wanted)
        self._given = 0
        self._told = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.judge, name)

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        questions = [Question(*each) for each in zip(prompts, targets, strict=True)]
        found: np.ndarray = self._asked(questions, lambda: self.judge.likelihood(prompts, targets))
        return found

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        questions = [Question(each, labels=tuple(labels)) for each in prompts]
        found: np.ndarray = self._asked(questions, lambda: self.judge.choose(prompts, labels))
        return found

    def finish(self) -> None:
        """Let the peers answer what is left of the sample."""
        self._give(len(self.sample))
        for peer in self.peers:
            peer.finish()

    def _asked(self, questions: Sequence[Question], ask: Callable[[], np.ndarray]) -> np.ndarray:
        start = time.perf_counter()
        first = len(self.asked)
        self.asked += [(question.message, question.target) for question in questions]
        places = []
        while self._next < len(self.asked):
            places.append(self._next - first)
            self._next = next(self._wanted)
        self._batch = (len(self.sample), len(places), self._told, len(questions))
        self.sample += [questions[place] for place in places]
        self.paused += time.perf_counter() - start
        found = ask()
        self.answers += [np.atleast_1d(found[place]) for place in places]
        self._give(len(self.sample))
        return found

    def take_turns(self, told: int) -> None:
        """To be called when the judge has answered `told` in all: as large a share of the sample is due."""
        first, size, before, asked = self._batch
        self._told = told
        self._give(first + int(size * min(1.0, (told - before) / asked)))

    def _give(self, due: int) -> None:
        start = time.perf_counter()
        for number in range(self._given, due):
            for peer in self.peers:
                peer.take(number, self.sample[number])
            self.peers.reverse()  # nobody always goes first
        self._given = max(self._given, due)
        self.paused += time.perf_counter() - start

    @staticmethod
    def _positions(stride: int, seed: int) -> Iterator[int]:
        random = np.random.default_rng(seed)
        for stratum in count():
            yield stratum * stride + int(random.integers(stride))
