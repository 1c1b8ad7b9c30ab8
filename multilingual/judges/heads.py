"""The language-model head on the states and rows of the vocabulary that are asked for, and on no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from .tokens import Continuation

Way = Callable[[torch.Tensor, Sequence[int] | slice], torch.Tensor]  # from logits to logits; which columns they are of
ROWS = 128  # hidden states that go through the head at once: their logits stay small


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
        ways: list[Way] = [_as_is]
        factors = (getattr(config, "logit_scale", None), divide and 1 / divide, width and width**-0.5)
        ways += [partial(_multiply, factor) for factor in factors if factor]
        if cap:
            ways.append(lambda logits, _: torch.tanh(logits / cap) * cap)
        if shift is not None:
            ways.append(lambda logits, columns: logits + shift[0, columns].float())
        with torch.inference_mode():
            plain = self.layer(hide(**example)[0, -1]).float()
            whole = predict(**example)[0, -1].float()
        # A few units in the last place of the model's own precision.
        near = 8 * torch.finfo(model.dtype).eps * float(whole.abs().max())
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
        weight = self.layer.weight[chosen]
        bias = None if getattr(self.layer, "bias", None) is None else self.layer.bias[chosen]
        return self.way(torch.nn.functional.linear(states, weight, bias).float(), chosen)

    def answer(self, states: torch.Tensor, first: Sequence[int], asked: Sequence[Continuation]) -> list[np.ndarray]:
        """The log-probabilities of each continuation's scored tokens, or the scores of its labels, float64.

        `states` [n, width, ...] has in row n, from place `first[n]` on, the states after which these tokens come.
        """
        if asked[0].labels:
            return self._score_labels(states[range(len(asked)), list(first)], [each.labels for each in asked])
        rows = [n for n, each in enumerate(asked) for _ in range(each.scored)]
        places = [start + at for start, each in zip(first, asked, strict=True) for at in range(each.scored)]
        targets = [token for each in asked for token in each.tokens[len(each.tokens) - each.scored :]]
        values = self.log_probs(states[rows, places], torch.tensor(targets, device=states.device))
        ends = np.cumsum([each.scored for each in asked])[:-1]
        return np.split(values.double().cpu().numpy(), ends)

    def _score_labels(self, states: torch.Tensor, labels: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """The score of each of a row's labels: the log of the sum of what its token ids have after `states` [n, ...]."""
        columns = sorted({token for row in labels for ids in row for token in ids})
        place = {token: n for n, token in enumerate(columns)}
        logits = self.logits(states, columns).double().cpu().numpy()
        return [
            np.array([np.logaddexp.reduce([values[place[token]] for token in ids]) for ids in row])
            for values, row in zip(logits, labels, strict=True)
        ]

    def log_probs(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """float32 [n] of one target token for each of the states [n, ...]."""
        found = []
        for some, wanted in zip(states.split(ROWS), targets.split(ROWS), strict=True):
            logits = self.layer(some) if self.plain else some
            # A few rows at a time: a float32 copy of all would not stay in cache.
            for rows, tokens in zip(logits.split(16), wanted.split(16), strict=True):
                values = self.way(rows.float(), slice(None)) if self.way else rows.float()
                found.append(values.gather(-1, tokens[:, None])[:, 0] - values.logsumexp(-1))
        return torch.cat(found)


def make_causal_head(model: Any, device: torch.device) -> Head:
    """The head of a causal model; its states are those of the last `width` positions."""

    def hide(width: int = 1, **inputs: Any) -> torch.Tensor:
        states: torch.Tensor = model.base_model(**inputs)[0][:, -width:]
        return states

    def predict(width: int | None = None, **inputs: Any) -> torch.Tensor:
        kept = {} if width is None else {"logits_to_keep": width}
        logits: torch.Tensor = model(**inputs, **kept).logits
        return logits

    tokens = torch.arange(1, 6, device=device)[None] % model.config.get_text_config().vocab_size
    return Head(model, hide, predict, input_ids=tokens, use_cache=False)


def _multiply(factor: float, logits: torch.Tensor, columns: Sequence[int] | slice) -> torch.Tensor:
    return logits * factor


def _as_is(logits: torch.Tensor, columns: Sequence[int] | slice) -> torch.Tensor:
    return logits
