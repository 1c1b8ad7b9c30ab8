"""MaxSim, the score of late interaction (Khattab and Zaharia 2020): exact, in bounded memory, and as a stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch

from ..checkpoints.devices import resolve_device
from ..encoders.base import Encoder, check_finite
from ..errors import InputError, check_at_least
from ..items import Item, Multi, Role, split_by_weight, windows
from ..pipeline import Stage
from ..runs import Run
from .encoding import encode_batches
from .products import multiply_rows

# Numbers (float32) that one block of documents may take: its vectors, and their products with the queries.
BLOCK = {"cpu": 1 << 20, "cuda": 256 << 20, "mps": 64 << 20}
QUERY_TOKENS = 1024  # of queries that are multiplied with a block at a time, about
TOGETHER = 256  # documents that the stage fetches and encodes at a time


@dataclass(frozen=True)
class TokenVectors:
    """The vectors of several documents end to end: those of document i lie from `offsets[i]` to `offsets[i + 1]`.

    `vectors` is float [tokens, dim] and `offsets` int64 [documents + 1]; every document has at least one vector.
    """

    vectors: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        if (np.diff(self.offsets) < 1).any():
            raise ValueError("a document without a vector has no MaxSim")

    @classmethod
    def of(cls, documents: Sequence[np.ndarray]) -> Self:
        """From one float [tokens_i, dim] a document; at least one document."""
        lengths = [len(each) for each in documents]
        return cls(np.concatenate(documents), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, row: int) -> np.ndarray:
        """The vectors of one document, float [tokens_i, dim]."""
        vectors: np.ndarray = self.vectors[self.offsets[row] : self.offsets[row + 1]]
        return vectors


def score_maxsim(
    queries: Sequence[np.ndarray], documents: TokenVectors, device: str = "auto", block: int | None = None
) -> np.ndarray:
    """Exact MaxSim of every query with every document: float32 [queries, documents].

    The sum, over the query's vectors [m, dim], of each one's highest inner product with a vector of the document.
    It is asymmetric and not normalised: with vectors of length 1 it lies in -m..m, so that scores of queries of
    different length do not compare. Products are float32, and equal documents have equal
    scores. `block` bounds the numbers in memory beside the input.
    """
    scores = np.empty((len(queries), len(documents)), np.float32)
    where = resolve_device(device)
    budget = block or BLOCK[where.type]
    with torch.inference_mode():
        for rows in split_by_weight(range(len(queries)), QUERY_TOKENS, lambda row: len(queries[row])):
            asked = [torch.from_numpy(np.asarray(queries[row], np.float32)) for row in rows]
            lengths = torch.tensor([len(each) for each in asked], device=where)
            turned = torch.cat(asked).to(where).T
            for part, places in pad_blocks(documents.offsets, turned.shape, budget):
                vectors = torch.from_numpy(documents.vectors[places.reshape(-1)]).to(where).float()
                best = multiply_rows(vectors, turned).view(*places.shape, -1).amax(dim=1)
                summed = torch.segment_reduce(best.T.contiguous(), "sum", lengths=lengths)
                scores[np.ix_(np.array(rows), part)] = summed.cpu().numpy()
    return scores


def pad_blocks(offsets: np.ndarray, turned: tuple[int, ...], budget: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Documents of about one length, and the places of their vectors, int64 [n, longest].

    Shorter documents repeat their last vector, which changes no maximum and needs no mask.
    """
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        size = max(1, budget // (longest * sum(turned)))
        # Not beyond half the length of the first: the rest would be padding.
        size = min(size, int(np.searchsorted(-lengths[order[start:]], -(longest // 2), side="right")) or 1)
        part = order[start : start + size]
        places = np.minimum(offsets[part][:, None] + np.arange(longest), offsets[part + 1][:, None] - 1)
        yield part, places
        start += size


def encode_tokens(encoder: Encoder, items: Sequence[Item], role: Role) -> Iterator[tuple[str, np.ndarray]]:
    """The id and vectors, float32 [tokens, dim], of each item, one by one as they are encoded.

    `InputError` if the encoder is not a late-interaction encoder, or gives vectors that are none or not finite.
    """
    spec = encoder.spec
    for batch in encode_batches(encoder, items, role, Multi):
        for name, vectors in zip(batch.ids, batch.vectors, strict=True):
            if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != spec.dim:
                raise InputError(
                    f"{spec.name} gave vectors of shape {vectors.shape} for {name!r}, not [tokens, {spec.dim}]"
                )
            check_finite([name] * len(vectors), vectors, spec.name, spec.dtype)
            yield name, vectors


@dataclass(frozen=True)
class MaxSim(Stage):
    """Reorder the first `depth` hits of each query by late interaction, their documents encoded on the fly.

    `dense % 100 >> MaxSim(encoder)` needs no index of token vectors. Scores are those of `score_maxsim`; hits below
    `depth` keep their order below them. Each document is encoded once, however many queries hold it. `InputError`
    if the encoder does not make token vectors, or cannot read a query or a document.
    """

    encoder: Encoder = field(compare=False)
    depth: int = 100
    device: str = field(default="auto", compare=False)
    space: str = field(init=False)  # stands for the encoder where stages are compared

    def __post_init__(self) -> None:
        check_at_least(1, depth=self.depth)
        if self.encoder.spec.kind != "multi":
            raise InputError(
                f"{self.encoder.spec.name} makes {self.encoder.spec.kind} vectors: MaxSim needs a late: encoder"
            )
        object.__setattr__(self, "space", self.encoder.spec.fingerprint)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        if run.docs is None:
            raise InputError("MaxSim needs the documents: give the run an index or a collection as `docs`")
        pools = {query.id: run[query.id][: self.depth] for query in run.queries if run[query.id]}
        asking: dict[str, list[str]] = {}  # document -> the queries that hold it
        for query, pool in pools.items():
            for hit in pool:
                asking.setdefault(hit.id, []).append(query)
        asked = [query for query in run.queries if query.id in pools]
        queries = dict(encode_tokens(self.encoder, asked, "query"))
        scores: dict[str, list[tuple[str, float]]] = {query: [] for query in pools}
        for names in windows(asking, TOGETHER):
            documents = dict(encode_tokens(self.encoder, run.docs.get(names), "document"))
            count["documents"] += len(documents)
            count["tokens"] += sum(map(len, documents.values()))
            wanted = list(dict.fromkeys(query for name in documents for query in asking[name]))
            table = score_maxsim(
                [queries[query] for query in wanted], TokenVectors.of(list(documents.values())), self.device
            )
            rows = {query: row for row, query in enumerate(wanted)}
            for place, name in enumerate(documents):
                for query in asking[name]:
                    scores[query].append((name, float(table[rows[query], place])))
        placed = {}
        for query, judged in scores.items():
            tail = [hit.id for hit in run[query][self.depth :]]
            floor = min(score for _, score in judged)
            placed[query] = judged + [(name, floor - rank) for rank, name in enumerate(tail, 1)]
        return run.ranking(placed)

    @property
    def models(self) -> Mapping[str, str]:
        return {self.encoder.spec.name: self.encoder.spec.revision}

    def __str__(self) -> str:
        return f"maxsim({self.encoder.spec.name}, depth={self.depth})"
