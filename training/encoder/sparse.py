"""Training of learned sparse retrieval: `splade:`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ...checkpoints.source import Source
from ...encoders.splade import SpladeEncoder, may_be_plain
from ...errors import InputError
from ...items import Item, Role
from ...specs import Spec
from ..recipe import EncoderRecipe
from .dense import cut_texts
from .rewriting import rewrite_checkpoint
from .saving import name_head, save_sparse
from .trainable import choose_weights, count_state_bytes, keep_options


class TrainableSparse:
    """A SPLADE model in training: InfoNCE or distillation of inner products, and FLOPS (Paria et al. 2020).

    The latter, times `flops` for documents and `query_flops` for queries, is the sum over the vocabulary of squares
    of the mean weight that a term has in the batch: it makes vectors sparse. It rises by the square in the first third
    of the training (SPLADE; Formal et al. 2021), so that terms are learnt before they are made few.
    """

    def __init__(self, encoder: SpladeEncoder, spec: Spec, recipe: EncoderRecipe) -> None:
        if encoder.lookup is not None:
            raise InputError(f"{spec} has its weights of queries from a table: train it with lookup=false")
        if recipe.dims:
            raise InputError(f"dims: {spec} has a component for each term, none of which can be left out")
        self.encoder, self.recipe, self.spec = encoder, recipe, spec
        self.source = Source(spec.checkpoint, spec.options.get("revision"))
        self.plain = may_be_plain(self.source)
        self.options = keep_options(spec, ("terms",) if self.plain else None)
        self._network = torch.nn.ModuleDict({"model": encoder.model, "decoder": encoder.decoder})
        model: Any = encoder.model
        tables: list[Any] = [model.get_input_embeddings().weight, encoder.decoder.weight]  # mostly one and the same
        choose_weights(self._network, tables, recipe)

    @classmethod
    def from_encoder(cls, encoder: Any, spec: Spec, recipe: EncoderRecipe) -> TrainableSparse:
        """An encoder as `load_encoder` gave it, which nobody shares."""
        return cls(encoder, spec, recipe)

    @property
    def network(self) -> torch.nn.Module:
        return self._network

    @property
    def state_bytes(self) -> int:
        """Beside those of its layers a token's logits are kept, and what is made of them."""
        config = self.encoder.opened.config
        return count_state_bytes(config.num_hidden_layers, config.hidden_size) + 8 * self.encoder.spec.dim

    @property
    def scale(self) -> None:
        return None

    def prepare(self, items: Sequence[Item], role: Role, most: int | None) -> list[list[int]]:
        return cut_texts(self.encoder, items, role, most)

    def represent(self, inputs: Sequence[Any]) -> torch.Tensor:
        """Weights float32 [n, vocabulary]."""
        return torch.stack(list(self.encoder.weigh_terms(inputs)))

    def score(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        yield torch.stack(list(queries)) @ torch.stack(list(documents)).T

    def penalise(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> torch.Tensor:
        weighed = ((self.recipe.query_flops, queries), (self.recipe.flops, documents))
        return torch.stack([times * torch.stack(list(rows)).mean(0).square().sum() for times, rows in weighed]).sum()

    def save(self, folder: Path) -> dict[str, str]:
        """The base's files with the new weights; the options of the base's SPEC stay with the result's.

        A plain masked language model becomes a checkpoint whose own files say how it is used.
        """
        if self.plain:
            save_sparse(self.encoder, folder)
        else:
            weights = dict(self.encoder.model.named_parameters()) | name_head(self.encoder)
            rewrite_checkpoint(self.source, folder, weights)
        return self.options
