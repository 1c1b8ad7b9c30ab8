"""From texts to a model's inputs, and from its states to vectors: plain functions.

Gradients may flow through those of tensors: encoding runs them in inference mode, training calls them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..checkpoints.sentence_files import Pooling
from .base import unit

Side = Literal["right", "left"]


def tokenize(
    tokenizer: Any, texts: Sequence[str], max_tokens: int | None, *, end: int | None = None
) -> list[list[int]]:
    """The token ids of each text, with the special tokens of the tokenizer, cut to `max_tokens` (None: not cut).

    Texts that do not end with the token `end` get it, within `max_tokens`.
    """
    cut = {"verbose": False} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
    ids: list[list[int]] = tokenizer(list(texts), **cut)["input_ids"]
    if end is None:
        return ids
    room = None if max_tokens is None else max_tokens - 1
    return [each if each[-1:] == [end] else [*each[:room], end] for each in ids]


def collate(
    ids: Sequence[Sequence[int]],
    *,
    fill: int = 0,
    side: Side = "right",
    attended: Sequence[int] | None = None,
    positions: bool = False,
    device: torch.device | None = None,
) -> dict[str, torch.Tensor]:
    """What a model of transformers takes for a batch, int64 [n, longest]: `input_ids` and `attention_mask`.

    Shorter texts are padded with `fill` on one `side`. `attended` says how many tokens of each, from the first on,
    the others attend to (all). `positions` adds `position_ids`, by which the first token of a text is at position 0
    wherever it stands.
    """
    lengths = torch.tensor([len(each) for each in ids])
    longest = int(lengths.max())
    starts = longest - lengths if side == "left" else torch.zeros_like(lengths)
    columns = torch.arange(longest)

    def reach(counts: torch.Tensor) -> torch.Tensor:
        return (columns >= starts[:, None]) & (columns < (starts + counts)[:, None])

    tokens = torch.full((len(ids), longest), fill)
    tokens[reach(lengths)] = torch.tensor([token for each in ids for token in each], dtype=torch.long)
    mask = reach(lengths if attended is None else torch.tensor(attended))
    inputs = {"input_ids": tokens, "attention_mask": mask.long()}
    if positions:
        inputs["position_ids"] = (columns - starts[:, None]).clamp_min(0)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def pool(states: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """Vectors float32 [n, hidden] of states [n, tokens, hidden], of which those count where the mask [n, tokens] is 1.

    `mean` is their mean, `cls` the first, `last` the last of them, on whichever side a text is padded.
    """
    if how == "mean":
        # A product with the mask sums without a float32 copy of all states.
        sums = torch.bmm(mask.to(states.dtype)[:, None], states)[:, 0]
        return sums.float() / mask.sum(1, keepdim=True)
    first = mask.argmax(1)
    at = first if how == "cls" else first + mask.sum(1) - 1
    return states[torch.arange(len(states), device=states.device), at].float()


def finish(pooled: torch.Tensor, dim: int, normalized: bool, dense: torch.nn.Module | None = None) -> torch.Tensor:
    """Pooled states [..., hidden] as vectors float32 [..., dim]: through dense layers, cut to `dim`, of length 1."""
    vectors = pooled if dense is None else dense(pooled).float()  # under autocast a layer's products are in bfloat16
    vectors = vectors[..., :dim]
    return torch.nn.functional.normalize(vectors, dim=-1) if normalized else vectors


def pool_tokens(vectors: np.ndarray, factor: int, protected: int = 1) -> np.ndarray:
    """About one in `factor` of unit vectors float32 [tokens, dim], each the mean direction of a cluster.

    Token pooling (Clavié, Chaffin and Adams 2024): Ward's clustering of cosine distances. The first `protected`
    vectors (a text's [CLS]) are kept as they are and lead the result.
    """
    kept, rest = vectors[:protected], vectors[protected:]
    wanted = max(len(rest) // factor, 1)
    if wanted >= len(rest) or not np.isfinite(vectors).all():
        return vectors
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = (1 - rest @ rest.T).clip(0, 2)
    labels = fcluster(linkage(squareform(distances, checks=False), "ward"), wanted, "maxclust")
    sums = np.zeros((labels.max(), vectors.shape[1]), np.float32)
    np.add.at(sums, labels - 1, rest)
    return np.concatenate([kept, unit(sums)])


def name_pooling(pool: int) -> str:
    """What a spec says of `pool`."""
    return "token" if pool == 1 else f"token, ward {pool}"
