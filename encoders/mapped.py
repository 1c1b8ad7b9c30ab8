"""A few queries as vectors without torch: e5-small in numpy, its weights mapped, for commands that ask once and end.

To import torch and transformers, to build the tokenizer and to copy the weights takes ten seconds, the query itself one
hundredth. In float32, so that scores differ from those of bfloat16 in the third or fourth digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.mapped import map_tensors
from ..checkpoints.offline.packages import is_available, make_checkpoint
from ..checkpoints.pieces import PieceTokenizer
from ..errors import InputError
from ..files import read_json
from ..items import Batch, Item, Role
from ..specs import Spec
from .base import Encoder, EncoderSpec, unit
from .batching import encode_windows

OPTIONS = {"max_tokens", "query_prompt", "document_prompt"}  # of a SPEC, whose values the stored spec has
EMBEDDINGS = ("word", "position", "token_type")
TOKENS = 4096  # a batch, which is worked on one text after the other


class MappedBert:
    """A BERT (Devlin et al. 2019) in a folder: the states of one text, by numpy in float32."""

    def __init__(self, folder: Path) -> None:
        self._config = read_json(folder / "config.json")
        self._weights = map_tensors(folder / "model.safetensors").arrays

    def states(self, ids: Sequence[int]) -> np.ndarray:
        """The last layer's states float32 [tokens, hidden]."""
        held = self._weights
        words, places, kinds = (held[f"embeddings.{name}_embeddings.weight"] for name in EMBEDDINGS)
        states = self._normalise(words[np.array(ids)] + places[: len(ids)] + kinds[0], "embeddings")
        for number in range(self._config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            mixed = self._apply(self._attend(states, f"{layer}.attention.self"), f"{layer}.attention.output.dense")
            states = self._normalise(states + mixed, f"{layer}.attention.output")
            inner = gelu(self._apply(states, f"{layer}.intermediate.dense"))
            states = self._normalise(states + self._apply(inner, f"{layer}.output.dense"), f"{layer}.output")
        return states

    def _attend(self, states: np.ndarray, name: str) -> np.ndarray:
        count = self._config["num_attention_heads"]
        query, key, value = (
            self._apply(states, f"{name}.{part}").reshape(len(states), count, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.sqrt(np.float32(query.shape[-1]))
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        return (shares @ value).swapaxes(0, 1).reshape(len(states), -1)

    def _apply(self, states: np.ndarray, name: str) -> np.ndarray:
        return states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normalise(self, states: np.ndarray, name: str) -> np.ndarray:
        weight, bias = (self._weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        centred = states - states.mean(-1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(-1, keepdims=True) + self._config["layer_norm_eps"])
        return centred / spread * weight + bias


def gelu(values: np.ndarray) -> np.ndarray:
    """x times the normal distribution function at x, which numpy lacks, to within 2e-7 (Abramowitz and Stegun)."""
    t = 1 / (1 + 0.3275911 / np.sqrt(np.float32(2)) * np.abs(values))
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail *= np.exp(-np.square(values) / 2) / 2
    return values * np.where(values < 0, tail, 1 - tail)


class MappedEncoder:
    """The encoder of a spec with mean pooling, by a `MappedBert`."""

    def __init__(self, folder: Path, spec: EncoderSpec) -> None:
        self.spec = replace(spec, dtype="float32")
        self._model = MappedBert(folder)
        self._tokenizer = PieceTokenizer(folder / "tokenizer.json")

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        """One `Dense` of float32 [n, dim] a window of items."""

        def prepare(group: Sequence[Item]) -> list[list[int]]:
            texts = [self.spec.prompt(role) + (item.text or "") for item in group]
            return [self._tokenizer.encode(text, self.spec.max_tokens) for text in texts]

        return encode_windows(items, self.spec, prepare=prepare, cost=len, forward=self._embed, budget=TOKENS)

    def _embed(self, batch: Sequence[Sequence[int]]) -> np.ndarray:
        pooled = np.stack([self._model.states(ids).mean(axis=0) for ids in batch])
        return unit(pooled) if self.spec.normalized else pooled


def open_mapped(spec: EncoderSpec, device: str) -> Encoder | None:
    """The encoder of stored vectors, if it is one that is known here and runs on a CPU as it was made; else None."""
    named = Spec.parse(spec.name)
    if (named.family, named.checkpoint) == ("offline", "e5-use"):
        return _open_pair(spec, device)
    if (named.family, named.checkpoint) != ("offline", "e5-small") or not OPTIONS.issuperset(named.options):
        return None
    if device not in ("auto", "cpu") or not is_available("e5-small"):
        return None
    folder = make_checkpoint("e5-small")
    if (spec.revision, spec.pooling) != (folder.name, "mean"):
        return None
    try:
        return MappedEncoder(folder, spec)
    except (OSError, ValueError, KeyError, InputError):  # whoever loads all of it says what is wrong
        return None


def _open_pair(spec: EncoderSpec, device: str) -> Encoder | None:
    """`offline:e5-use` as it made the stored vectors, or None."""
    from .ensemble import Ensemble
    from .use import UniversalSentenceEncoder

    held: Any = spec.extra
    if Spec.parse(spec.name).options or not is_available("use-m3"):
        return None
    inner = EncoderSpec.from_json({"name": "offline:e5-small", **held["members"][0]})
    if (first := open_mapped(inner, device)) is None:
        return None
    pair = Ensemble([first, UniversalSentenceEncoder.open_mapped()], held["weights"])
    if pair.spec != spec:
        return None
    pair.spec = replace(pair.spec, name=spec.name)
    return pair
