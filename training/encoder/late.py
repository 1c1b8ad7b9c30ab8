"""Training of late interaction over text: `late:`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ...checkpoints.sentence_files import read_modules
from ...checkpoints.source import Source
from ...encoders.late import LateEncoder, read_late_settings
from ...errors import InputError
from ...items import Item, Role
from ...specs import Spec
from ..recipe import EncoderRecipe
from .rewriting import rewrite_checkpoint
from .saving import save_late
from .trainable import choose_weights, count_state_bytes, keep_options, own_weights

Marked = tuple[list[int], int, Role]  # the tokens of a text, how many the others attend to, and whose it is


class TrainableLate:
    """A ColBERT-style model in training: MaxSim of all queries with all documents, summed over a query's vectors.

    A text is a row [longest, dim + 1], whose last component is 1 where a vector counts, and 0 for padding and for the
    symbols that the checkpoint skips in documents. Queries are as long as the checkpoint has them.
    """

    def __init__(self, encoder: LateEncoder, spec: Spec, recipe: EncoderRecipe) -> None:
        if recipe.dims:
            raise InputError(f"dims: {spec} is not trained for shorter vectors")
        self.encoder, self.recipe, self.spec = encoder, recipe, spec
        self.source = Source(spec.checkpoint, spec.options.get("revision"))
        self.plain = read_late_settings(self.source) is None
        self.options = keep_options(spec, ("pool",) if self.plain else None)
        assert encoder.dense is not None
        self._network = torch.nn.ModuleDict({"model": encoder.model, "dense": encoder.dense})
        table = encoder.model.get_input_embeddings().weight  # type: ignore[operator]
        choose_weights(self._network, [table], recipe, new=list(encoder.dense.parameters()) if self.plain else ())

    @classmethod
    def from_encoder(cls, encoder: Any, spec: Spec, recipe: EncoderRecipe) -> TrainableLate:
        """An encoder as `load_encoder` gave it; the weights of a shared one are copied."""
        if not isinstance(encoder, LateEncoder):
            raise InputError(f"{spec} cannot be trained: it reads pictures of pages; take a late: model of text")
        return cls(own_weights(encoder), spec, recipe)

    @property
    def network(self) -> torch.nn.Module:
        return self._network

    @property
    def state_bytes(self) -> int:
        config = self.encoder.opened.config
        return count_state_bytes(config.num_hidden_layers, config.hidden_size) + 8 * self.encoder.spec.dim

    @property
    def scale(self) -> None:
        return None

    def prepare(self, items: Sequence[Item], role: Role, most: int | None) -> list[Marked]:
        """Documents are cut to `most` tokens, which leaves out the end of the text."""
        filled = self.encoder.prepare(items, role)
        if role == "document" and most is not None:
            filled = [(ids, seen) if len(ids) <= most else ([*ids[: most - 1], ids[-1]], most) for ids, seen in filled]
        return [(ids, seen, role) for ids, seen in filled]

    def represent(self, inputs: Sequence[Any]) -> torch.Tensor:
        """Float32 [n, longest, dim + 1]."""
        vectors = self.encoder.embed([(ids, seen) for ids, seen, _ in inputs])
        counts = torch.zeros(*vectors.shape[:2], 1, device=vectors.device)
        skipped = set(self.encoder.skipped.tolist())
        for row, (ids, _, role) in enumerate(inputs):
            kept = [role == "query" or token not in skipped for token in ids]
            counts[row, : len(ids), 0] = torch.tensor(kept if any(kept) else [True] * len(ids)).float()
        return torch.cat([vectors, counts], -1)

    def score(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        asked = pad_sequence(list(queries), batch_first=True)
        columns = []
        for document in documents:  # one at a time: all with all would be large
            similar = (asked[..., :-1] @ document[:, :-1].T).masked_fill(document[:, -1] == 0, -torch.inf)
            columns.append((similar.amax(-1) * asked[..., -1].detach()).sum(-1))
        yield torch.stack(columns, 1)

    def penalise(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> float:
        return 0.0

    def save(self, folder: Path) -> dict[str, str]:
        """The base's files with the new weights; the options of the base's SPEC stay with the result's.

        A plain encoder becomes a checkpoint whose own files say how it is used.
        """
        if self.plain:
            save_late(self.encoder, folder)
            return self.options
        weights = {
            name: each for name, each in self.encoder.model.named_parameters() if "pooler" not in name.split(".")
        }
        dense = [path for kind, path in read_modules(self.source) if kind == "Dense"]
        for number, layer in enumerate(self.encoder.dense.children()):  # type: ignore[union-attr]
            for name, each in layer.named_parameters():
                own = name.replace("bypass.", "residual.")
                weights[f"{dense[number]}/{own}" if dense else f"linear.{own}"] = each
        rewrite_checkpoint(self.source, folder, weights)
        return self.options
