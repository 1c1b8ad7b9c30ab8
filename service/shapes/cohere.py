"""Cohere's rerank, v1 and v2, and Jina's: one answer that the clients of all of them parse."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import BaseModel, Field

from ...errors import InputError
from ..engine import Engine, Scored
from .inputs import Part, Parts, read_input, read_inputs

MOST_DOCUMENTS = 1000  # Cohere's limit


class RerankRequest(BaseModel):
    """`rank_fields` is Cohere's of old; it is here to be refused."""

    query: Part
    documents: Parts
    model: str | None = None
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None
    rank_fields: list[str] | None = None


async def rerank_documents(engine: Engine, body: RerankRequest) -> Any:
    """Documents (texts, or objects with `text` or `image`) by relevance to a query, best first, at most `top_n`.

    Scores are in 0..1. Documents beyond the model's length are cut; Cohere's `max_tokens_per_doc` changes nothing.
    """
    if body.rank_fields not in (None, ["text"]):
        raise InputError("rank_fields is not supported: put what shall be ranked into the text of each document")
    query = read_input(body.query, "query", engine.limits)
    documents = read_inputs(body.documents, "documents", MOST_DOCUMENTS, engine.limits)
    found = await engine.score(body.model, query, documents)
    results: list[dict[str, object]] = []
    for number in order_scores(found)[: body.top_n]:
        result: dict[str, object] = {"index": number, "relevance_score": found.scores[number]}
        if body.return_documents:
            given = body.documents[number]
            result["document"] = {"text": given} if isinstance(given, str) else given
        results.append(result)
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": found.model,
        "results": results,
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        "meta": {"api_version": {"version": "2"}, "tokens": {"input_tokens": found.tokens, "output_tokens": 0}},
    }


def order_scores(found: Scored) -> list[int]:
    """The places of the documents, the best first; those of one score by the model's own, then in their order."""
    return sorted(range(len(found.scores)), key=lambda number: (-found.scores[number], -found.raw[number]))
