"""Training of bi-encoders with one vector a text: `hf:`, `llm:` and `offline:e5-small`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from ...encoders.llm import LLMEncoder
from ...encoders.transformer import TransformerEncoder
from ...errors import InputError
from ...items import Item, Role
from ...specs import Spec
from ..recipe import EncoderRecipe
from .saving import save_dense
from .trainable import choose_weights, count_state_bytes, keep_options, own_weights

# What a SPEC says and no file of a checkpoint does: the result is loaded with it again.
KEPT = ("dim", "normalize", "padding", "truncate")


class TrainableDense:
    """A bi-encoder in training: what is trained is what encodes (`TransformerEncoder.embed`)."""

    def __init__(self, encoder: TransformerEncoder, spec: Spec, recipe: EncoderRecipe) -> None:
        self.encoder, self.recipe = encoder, recipe
        self.options = keep_options(spec, KEPT)
        parts = {"model": encoder.model, "dense": encoder.dense}
        self._network: torch.nn.Module = torch.nn.ModuleDict(
            {name: part for name, part in parts.items() if part is not None}
        )
        if wrong := [dim for dim in recipe.dims if dim > encoder.spec.dim]:
            raise InputError(f"dims: {spec} has vectors of {encoder.spec.dim} components, not {wrong[0]}")
        self.base = spec.checkpoint
        if not recipe.merge:
            if encoder.spec.extra.get("adapter"):
                raise InputError(f"merge=false: {spec} has an adapter in it already, and a second one must be merged")
            self._network = encoder.model  # what is beside it has no place in an adapter's file
        choose_weights(self._network, [encoder.model.get_input_embeddings().weight], recipe)  # type: ignore[operator]

    @classmethod
    def from_encoder(cls, encoder: Any, spec: Spec, recipe: EncoderRecipe) -> TrainableDense:
        """An encoder as `load_encoder` gave it; the weights of a shared one are copied."""
        return cls(encoder if isinstance(encoder, LLMEncoder) else own_weights(encoder), spec, recipe)

    @property
    def network(self) -> torch.nn.Module:
        return self._network

    @property
    def state_bytes(self) -> int:
        config = self.encoder.opened.config
        return count_state_bytes(config.num_hidden_layers, config.hidden_size)

    @property
    def scale(self) -> None:
        return None

    def prepare(self, items: Sequence[Item], role: Role, most: int | None) -> list[list[int]]:
        return cut_texts(self.encoder, items, role, most)

    def represent(self, inputs: Sequence[Any]) -> torch.Tensor:
        """Vectors float32 [n, dim]."""
        return self.encoder.embed(inputs)

    def score(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        yield from score_lengths(queries, documents, self.recipe.dims)

    def penalise(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> float:
        return 0.0

    def save(self, folder: Path) -> dict[str, str]:
        save_dense(self.encoder, folder, None if self.recipe.merge else self.base)
        return self.options


def score_lengths(
    queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor], dims: Sequence[int]
) -> Iterator[torch.Tensor]:
    """The inner products of whole vectors, and the cosines of their first components for each of `dims`."""
    asked, answers = torch.stack(list(queries)), torch.stack(list(documents))
    yield asked @ answers.T
    for dim in dims:
        if dim < asked.shape[1]:
            yield normalize(asked[:, :dim], dim=-1) @ normalize(answers[:, :dim], dim=-1).T


def cut_texts(encoder: TransformerEncoder, items: Sequence[Item], role: Role, most: int | None) -> list[list[int]]:
    """The token ids of each item's text behind its prompt, at most so many; what is cut is the end of the text."""
    prepared = encoder.prepare(items, role)
    if most is None or most >= encoder.spec.max_tokens:
        return list(prepared)
    bare, last = encoder.token_ids([""])[0], encoder.token_ids(["a"])[0][-1:]
    end = last if last == bare[-1:] else []  # what texts end with, [SEP] or </s>
    return [[*ids[: most - len(end)], *end] if len(ids) > most else ids for ids in prepared]
