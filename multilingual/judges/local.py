"""What judges share that run a model of transformers in this process: batches, padding, heads, generated text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import torch

from ...checkpoints.options import UNBOUNDED
from ...encoders.batching import Budget, compute_batches
from ...encoders.pooling import collate
from .base import Completion, Sampling
from .messages import Message
from .sampling import DrawnTokens
from .tokenized import Continuation, TokenizedJudge

P = TypeVar("P")
R = TypeVar("R")

Way = Callable[
    [torch.Tensor, Sequence[int] | slice | torch.Tensor], torch.Tensor
]  # from logits to logits; which columns they are of
EXACT = 32  # of the likeliest tokens, whose logits are computed in float32
ROWS = 128  # hidden states that go through the head at once: their logits stay small


class LocalJudge(TokenizedJudge):
    """A model on its device; a subclass answers what it `can`.

    `budgets` (tokens a batch) and `appetites` are those on the CPU and on an accelerator. `quantised` names what the
    weights are in where that is not the model's dtype (int8). `InputError` for `passage_tokens` below 1.
    """

    streams = True
    weighs = True
    budgets = (4096, 32768)
    appetites = (1024, 16384)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        revision: str,
        *,
        passage_tokens: int,
        device: torch.device,
        quantised: str = "",
    ) -> None:
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", 0)
        super().__init__(tokenizer, name, revision, passage_tokens=passage_tokens, context=int(positions or UNBOUNDED))
        self.model = model.to(device).eval()
        self.device = device
        self.precision = f"{quantised}/{model.dtype}" if quantised else str(model.dtype)
        self.budget = self.budgets[device.type != "cpu"]
        self.appetite = self.appetites[device.type != "cpu"]
        self.generator = TextGenerator(self.model, tokenizer, self.usage)

    @property
    def fingerprint(self) -> str:
        # What answers are read from is float32, whatever the model computes in.
        return f"{self.revision}/{self.precision}+float32/{self.passage_tokens}"

    @cached_property
    def head(self) -> Head:
        """The language-model head."""
        return make_causal_head(self.model)

    def encode(self, prompt: Message) -> dict[str, list[int]]:
        """The tokenizer's output for one message, cut to fit."""
        text = self.write_text(prompt, 0, self.tokenizer.num_special_tokens_to_add())
        encoded = self.tokenizer(text, add_special_tokens=not self.is_templated(prompt), verbose=False)
        self.check_length(len(encoded["input_ids"]))
        return dict(encoded)

    def _pad(self, rows: Sequence[Sequence[int]], *, left: bool = False) -> dict[str, torch.Tensor]:
        return collate(rows, fill=self.generator.pad, side="left" if left else "right", device=self.device)

    def compute_completions(self, prompts: Sequence[Message], sampling: Sampling) -> list[Completion]:
        return self._gather(self.write_answers(prompts, sampling))

    def _gather(self, answers: Iterator[tuple[int, R]]) -> list[R]:
        """The answers in the order of their prompts, each handed over as it comes."""
        found: dict[int, R] = {}
        for row, answer in answers:
            found[row] = answer
            self.hand_over(row, answer)
        return [found[row] for row in sorted(found)]

    def write_answers(self, prompts: Sequence[Message], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """As they come: the position of a prompt, and what the model says after it."""
        raise NotImplementedError


class TextGenerator:
    """`generate` of a transformers model, and what of its tokens is the answer; `usage` counts them."""

    def __init__(self, model: Any, tokenizer: Any, usage: Counter[str]) -> None:
        self.model, self.tokenizer, self.usage = model, tokenizer, usage
        fillers = (tokenizer.pad_token_id, tokenizer.eos_token_id)
        self.pad = next((int(token) for token in fillers if token is not None), 0)
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = [tokenizer.eos_token_id] if ends is None else ends
        self.ends = frozenset(ends if isinstance(ends, list) else [ends])

    def write(
        self,
        inputs: Mapping[str, torch.Tensor],
        sampling: Sampling,
        keys: Sequence[int] = (),
        begins: int = 0,
        **more: Any,
    ) -> list[Completion]:
        """What the model says after a padded batch; `begins` is how many tokens of a row are not of the answer.

        Without `begins` these are the inputs. `keys` [n] decide what is drawn at a temperature above 0.
        """
        begins = begins or inputs["input_ids"].shape[1]
        # Checkpoints bring sampling settings of their own; greedy means none of them.
        options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature > 0:
            options["logits_processor"] = [DrawnTokens(sampling.temperature, keys, begins)]
        if sampling.stop:
            options |= {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer}
        with torch.inference_mode():
            out = self.model.generate(
                **inputs, pad_token_id=self.pad, max_new_tokens=sampling.max_new_tokens, **options, **more
            )
        answers = [self.read(row, sampling.stop) for row in out[:, begins:].tolist()]
        self.usage["generated_tokens"] += sum(answer.tokens for answer in answers)
        self.usage["prompt_tokens"] += int(inputs["attention_mask"].sum())
        return answers

    def read(self, tokens: list[int], stop: Sequence[str]) -> Completion:
        """New tokens as text, without the end and what fills the row; a stop string found is its last part."""
        while tokens and tokens[-1] == self.pad and self.pad not in self.ends:
            tokens.pop()
        length = next((n for n, token in enumerate(tokens) if token in self.ends), len(tokens))
        text = self.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Completion(text, length, length < len(tokens)).cut_at(stop)


def run_batches(
    pieces: Sequence[P],
    cost: Callable[[P], int],
    forward: Callable[[Sequence[P]], Sequence[R]],
    budget: int,
    names: Sequence[str] = (),
    parts: Iterable[Sequence[int]] | None = None,
) -> Iterator[tuple[int, R]]:
    """Positions in `pieces` and what `forward` makes of these, in length-sorted batches, halved where memory runs out.

    `parts` are positions that may stand in one batch (default: all). `InputError` names a piece that never fits (by
    default it is a prompt).
    """
    names = names or [f"prompt {n}" for n in range(len(pieces))]
    for part in [range(len(pieces))] if parts is None else parts:
        inputs = [pieces[row] for row in part]
        batches = compute_batches(inputs, [*map(cost, inputs)], [names[row] for row in part], forward, Budget(budget))
        for places, made in batches:
            yield from zip((part[place] for place in places), made, strict=True)


class Head:
    """The head as a plain matrix, if it is one; found out by comparing.

    `hide` makes of a model's inputs the hidden states that its head is given, `predict` the model's own logits. Models
    scale, cap or shift their logits in various ways; what they answer to an `example` of inputs decides which way is
    right. Where none is, `plain` is False, and the head is applied to the logits in the states' place.
    """

    def __init__(
        self, model: Any, hide: Callable[..., torch.Tensor], predict: Callable[..., torch.Tensor], **example: Any
    ) -> None:
        self.hide, self.predict = hide, predict
        self.layer = model.get_output_embeddings()
        self.way: Way | None = None
        if self.layer is None:
            return
        config = model.config.get_text_config(decoder=True)
        cap = getattr(config, "final_logit_softcapping", None)
        divide = getattr(config, "logits_scaling", None)
        width = getattr(config, "d_model", None)  # T5, with tied embeddings
        shift = getattr(model, "final_logits_bias", None)  # BART and its kin
        ways: list[Way] = [lambda logits, _: logits]
        factors = (getattr(config, "logit_scale", None), divide and 1 / divide, width and width**-0.5)
        ways += [partial(lambda factor, logits, _: logits * factor, factor) for factor in factors if factor]
        if cap:
            ways.append(lambda logits, _: torch.tanh(logits / cap) * cap)
        if shift is not None:
            ways.append(lambda logits, columns: logits + shift[0, columns].float())
        with torch.inference_mode():
            plain = self.layer(hide(**example)[0, -1]).float()
            whole = predict(**example)[0, -1].float()
        # A few units in the last place of the model's own precision; on a GPU float32 adds up in another order for one
        # row than for several.
        near = 8 * max(torch.finfo(model.dtype).eps, 1e-6) * float(whole.abs().max())
        fitting = (way for way in ways if torch.allclose(way(plain, slice(None)), whole, rtol=0, atol=near))
        self.way = next(fitting, None)

    @property
    def plain(self) -> bool:
        """Whether it is applied to hidden states; else to the model's own logits."""
        return self.way is not None

    def states(self, **inputs: Any) -> torch.Tensor:
        """What it is applied to, for a batch of inputs."""
        return (self.hide if self.plain else self.predict)(**inputs)

    def logits(self, states: torch.Tensor, columns: Sequence[int]) -> torch.Tensor:
        """float32 [n, columns] of states [n, ...]."""
        chosen = list(columns)
        if self.way is None:
            return states[:, chosen].float()
        weight, bias = self._rows(chosen)
        return self.way(torch.nn.functional.linear(states.float(), weight, bias), chosen)

    def _rows(self, columns: Sequence[int] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The head's weights for these columns, and its biases if it has them, in float32."""
        bias = getattr(self.layer, "bias", None)
        return self.layer.weight[columns].float(), None if bias is None else bias[columns].float()

    def answer(self, states: torch.Tensor, first: Sequence[int], asked: Sequence[Continuation]) -> list[np.ndarray]:
        """The log-probabilities of each continuation's scored tokens, or the scores of its labels, float64.

        `states` [n, width, ...] has in row n, from place `first[n]` on, the states after which these tokens come.
        """
        if asked[0].labels:
            return self._score_labels(states[range(len(asked)), list(first)], asked)
        values = self.score_tokens(states, first, asked)
        ends = np.cumsum([each.scored for each in asked])[:-1]
        return np.split(values.double().cpu().numpy(), ends)

    def score_tokens(self, states: torch.Tensor, first: Sequence[int], asked: Sequence[Continuation]) -> torch.Tensor:
        """The log-probabilities of the scored tokens of all continuations, one after the other, float32 [tokens]."""
        rows = [n for n, each in enumerate(asked) for _ in range(each.scored)]
        places = [start + at for start, each in zip(first, asked, strict=True) for at in range(each.scored)]
        targets = [token for each in asked for token in each.tokens[len(each.tokens) - each.scored :]]
        return self.log_probs(states[rows, places], torch.tensor(targets, device=states.device))

    def _score_labels(self, states: torch.Tensor, asked: Sequence[Continuation]) -> list[np.ndarray]:
        """The score of each of a row's labels: the log of the sum of its token ids' after `states` [n, ...]."""
        columns = sorted({token for each in asked for ids in each.labels for token in ids})
        place = {token: n for n, token in enumerate(columns)}
        logits = self.logits(states, columns)
        values = logits.double().cpu().numpy()
        scores = [
            np.array([np.logaddexp.reduce([row[place[token]] for token in ids]) for ids in each.labels])
            for row, each in zip(values, asked, strict=True)
        ]
        if weighed := [n for n, each in enumerate(asked) if each.weighed]:
            for n, whole in zip(weighed, self._weigh(states[weighed], columns, logits[weighed]), strict=True):
                scores[n] = np.append(scores[n], whole)
        return scores

    def _weigh(self, states: torch.Tensor, columns: Sequence[int], known: torch.Tensor) -> list[float]:
        """The score of the whole vocabulary after each of `states` [n, ...]; the logits of `columns` are `known`."""
        whole = self._complete(self.layer(states) if self.plain else states, states)
        whole[:, list(columns)] = known  # as they are: a label's probability is at most 1
        sums: list[float] = whole.logsumexp(-1).tolist()
        return sums

    def log_probs(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """float32 [n] of one target token for each of the states [n, ...]."""
        found = []
        for some, wanted in zip(states.split(ROWS), targets.split(ROWS), strict=True):
            logits = self.layer(some) if self.plain else some
            # A few rows at a time: a float32 copy of all would not stay in cache.
            for rows, hidden, tokens in zip(logits.split(16), some.split(16), wanted.split(16), strict=True):
                values = self._complete(rows, hidden, tokens[:, None])
                found.append(values.gather(-1, tokens[:, None])[:, 0] - values.logsumexp(-1))
        return torch.cat(found)

    def _complete(
        self, logits: torch.Tensor, states: torch.Tensor, columns: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The head's whole logits [n, vocabulary], rounded as its precision has it, in float32.

        bfloat16 has steps of 1/8 between 16 and 32. So `columns` [n, some], and those that hold most of the
        probability, are computed in float32; what the many others are off by evens out in their sum. (A float32 copy
        of the head would take a gigabyte or more, and its product ten times as long.)
        """
        values = self.way(logits.float(), slice(None)) if self.way else logits.float()
        if self.way is None or logits.dtype == torch.float32:
            return values
        top = values.topk(min(EXACT, values.shape[-1])).indices
        columns = top if columns is None else torch.cat([columns, top], dim=-1)
        weight, bias = self._rows(columns)
        exact = (weight @ states.float()[:, :, None])[:, :, 0]
        return values.scatter(-1, columns, self.way(exact if bias is None else exact + bias, columns))


def make_causal_head(model: Any) -> Head:
    """The head of a causal model; its states are those of the last `width` positions."""

    def hide(width: int = 1, **inputs: Any) -> torch.Tensor:
        states: torch.Tensor = model.base_model(**inputs)[0][:, -width:]
        return states

    def predict(width: int | None = None, **inputs: Any) -> torch.Tensor:
        kept = {} if width is None else {"logits_to_keep": width}
        logits: torch.Tensor = model(**inputs, **kept).logits
        return logits

    tokens = torch.arange(1, 6, device=model.device)[None] % model.config.get_text_config().vocab_size
    return Head(model, hide, predict, input_ids=tokens, use_cache=False)
