"""A collection that training is watched on: exact search with the model as it is, and one measure of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch

from ...encoders.base import Encoder, encode_matrix
from ...errors import InputError
from ...evaluation.measures import aggregate, measure_rankings, parse_measure
from ...indexes.encoding import encode_batches
from ...indexes.kinds.postings import Postings
from ...indexes.kinds.searcher import FlatSearcher
from ...indexes.maxsim import TokenVectors, encode_tokens, score_maxsim
from ...items import Item, Sparse
from ...multilingual.collections.base import Collection
from ...runs import Qrels, Rankings
from ..data.judged import select_judged


@dataclass(frozen=True)
class Dev:
    """Queries, their judgements, and the documents among which they are searched."""

    name: str
    queries: list[Item]
    documents: list[Item]
    qrels: Qrels
    measure: Any

    @classmethod
    def read(cls, collection: Collection, measure: str, most: int, seed: int) -> Dev:
        """The judged documents of a collection, and a sample of the others until there are `most` in all.

        `InputError` where nothing is judged, and for a measure that is unknown or needs documents' languages.
        """
        queries, qrels = select_judged(collection)
        if not queries:
            raise InputError(f"{collection.name} has no topic with a relevant document: it cannot watch a training")
        judged = {document for query in queries for document in qrels[query.id]}
        others: list[Item] = []
        rng = random.Random(seed)
        room, seen, held = max(most - len(judged), 0), 0, []
        for item in collection.docs():
            if item.id in judged:
                held.append(item)
                continue
            seen += 1
            if len(others) < room:
                others.append(item)
            elif room and (place := rng.randrange(seen)) < room:
                others[place] = item
        return cls(collection.name, queries, held + others, qrels, parse_measure(measure))

    def describe(self) -> dict[str, Any]:
        """What the card of a training says of it."""
        return {
            "collection": self.name, "measure": str(self.measure), "queries": len(self.queries),
            "documents": len(self.documents),
        }  # fmt: skip

    def measure_encoder(self, encoder: Encoder) -> float:
        """The measure, of exact search over the documents; those of equal scores by rising id."""
        documents = sorted(self.documents, key=lambda item: item.id)
        depth = min(len(documents), max(self.measure.params.get("cutoff") or 0, 100))
        ranked = search_exactly(encoder, self.queries, documents, depth)
        hits = {query.id: found for query, found in zip(self.queries, ranked, strict=True)}
        values = measure_rankings([self.measure], self.qrels, hits)[str(self.measure)]
        return aggregate(self.measure, values, self.qrels)


def search_exactly(encoder: Encoder, queries: Sequence[Item], documents: Sequence[Item], k: int) -> Rankings:
    """For each query the k documents of highest score, by an encoder of any kind; equal scores in the given order.

    An autocast around the call holds for the encoder alone: scores are taken in float32.
    """
    ids = [item.id for item in documents]
    if encoder.spec.kind == "sparse":
        weights = [batch.vectors for batch in encode_batches(encoder, documents, "document", Sparse)]
        asked = [batch.vectors for batch in encode_batches(encoder, queries, "query", Sparse)]
        postings = Postings.of([(ids, scipy.sparse.vstack(weights, "csr"))], encoder.spec.dim)
        return postings.nearest(scipy.sparse.vstack(asked, "csr"), k)
    if encoder.spec.kind == "multi":
        tokens = TokenVectors.of([vectors for _, vectors in encode_tokens(encoder, documents, "document")])
        vectors = [each for _, each in encode_tokens(encoder, queries, "query")]
        with torch.autocast("cpu", enabled=False):
            scores = score_maxsim(vectors, tokens, "cpu")
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, rows, 1)
    else:
        searcher = FlatSearcher(encode_matrix(encoder, documents, "document"), "cpu")
        matrix = encode_matrix(encoder, queries, "query")
        with torch.autocast("cpu", enabled=False):
            rows, scores = searcher.nearest(matrix, k)
    return [
        [(ids[row], score) for row, score in zip(found, of, strict=True) if row >= 0]
        for found, of in zip(rows.tolist(), scores.tolist(), strict=True)
    ]
