"""The language-model head on the states and rows of the vocabulary that are asked for, and on no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from .tokens import Continuation

ROWS = 128  # hidden states that go through the head at once: their logits stay small


class Head:
    """The head as a plain matrix, if it is one; found out by comparing.

    Models scale, cap or shift their logits in various ways. What the model itself answers to an example decides which
    way is right: `state` [dim] is the hidden state that the head is given there, `whole` [vocabulary] the model's own
    logits. Where no way is right, `plain` is False, and what is given as states must be the model's whole logits.
    """

    def __init__(self, model: Any, state: torch.Tensor, whole: torch.Tensor) -> None:
        self.layer = model.get_output_embeddings()
        self.way: Callable[[torch.Tensor, Sequence[int] | slice], torch.Tensor] | None = None
        if self.layer is None:
            return
        config = model.config.get_text_config(decoder=True)
        cap = getattr(config, "final_logit_softcapping", None)
        divide = getattr(config, "logits_scaling", None)
        width = getattr(config, "d_model", None)  # T5, with tied embeddings
        shift = getattr(model, "final_logits_bias", None)  # BART and its kin
        ways: list[Callable[[torch.Tensor, Sequence[int] | slice], torch.Tensor]] = [_as_is]
        factors = (getattr(config, "logit_scale", None), divide and 1 / divide, width and width**-0.5)
        ways += [partial(_multiply, factor) for factor in factors if factor]
        if cap:
            ways.append(lambda logits, _: torch.tanh(logits / cap) * cap)
        if shift is not None:
            ways.append(lambda logits, columns: logits + shift[0, columns].float())
        plain, whole = self.layer(state).float(), whole.float()
        # A few units in the last place of the model's own precision.
        near = 8 * torch.finfo(model.dtype).eps * float(whole.abs().max())
        self.way = next(
            (way for way in ways if torch.allclose(way(plain, slice(None)), whole, rtol=0, atol=near)), None
        )

    @property
    def plain(self) -> bool:
        """Whether it is applied to hidden states; else to the model's own logits."""
        return self.way is not None

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
        parts = zip(states.split(ROWS), targets.split(ROWS), strict=True)
        return torch.cat([self._log_probs(*part) for part in parts])

    def _log_probs(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = states if self.way is None else self.layer(states)
        if self.way not in (None, _as_is):
            logits = self.way(logits.float(), slice(None))
        chosen = logits.gather(-1, targets[:, None])[:, 0].float()
        return chosen - _logsumexp(logits)


class CausalHead(Head):
    """The head of a causal model, and the states it is applied to."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        with torch.inference_mode():
            tokens = torch.arange(1, 6, device=device)[None] % model.config.get_text_config().vocab_size
            whole = model(input_ids=tokens, use_cache=False).logits[0, -1]
            state = model.base_model(input_ids=tokens, use_cache=False)[0][0, -1]
            super().__init__(model, state, whole)

    def states(self, width: int, **inputs: Any) -> torch.Tensor:
        """What the head is applied to at the last `width` positions; the logits where that is not known."""
        if not self.plain:
            whole: torch.Tensor = self.model(**inputs, logits_to_keep=width).logits
            return whole
        states: torch.Tensor = self.model.base_model(**inputs)[0][:, -width:]
        return states


def _multiply(factor: float, logits: torch.Tensor, columns: Sequence[int] | slice) -> torch.Tensor:
    return logits * factor


def _as_is(logits: torch.Tensor, columns: Sequence[int] | slice) -> torch.Tensor:
    return logits


def _logsumexp(logits: torch.Tensor) -> torch.Tensor:
    """Over the vocabulary, in float32, a few rows at a time: a float32 copy of all logits would not stay in cache."""
    return torch.cat([rows.float().logsumexp(-1) for rows in logits.split(16)])
