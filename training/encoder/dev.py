"""A collection that training is watched on: exact search with the model as it is, and one measure of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...encoders.base import Encoder, encode_matrix
from ...errors import InputError
from ...evaluation.measures import aggregate, measure_rankings, parse_measure
from ...indexes.kinds.flat import FlatSearcher
from ...items import Item
from ...multilingual.collections.base import Collection
from ...runs import Qrels
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
        searcher = FlatSearcher(encode_matrix(encoder, documents, "document"), "cpu")
        depth = min(len(documents), max(self.measure.params.get("cutoff") or 0, 100))
        rows, scores = searcher.nearest(encode_matrix(encoder, self.queries, "query"), depth)
        hits: Mapping[str, Any] = {
            query.id: [(documents[row].id, float(score)) for row, score in zip(found, of, strict=True) if row >= 0]
            for query, found, of in zip(self.queries, rows.tolist(), scores.tolist(), strict=True)
        }
        values = measure_rankings([self.measure], self.qrels, hits)[str(self.measure)]
        return aggregate(self.measure, values, self.qrels)
