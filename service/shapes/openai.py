"""OpenAI's shapes, which Jina's embeddings share: `/v1/embeddings` and `/v1/models`."""

from __future__ import annotations

import base64
import time
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from ...encoders.matryoshka import check_length, cut_vectors
from ..engine import Embedded, Engine
from .inputs import PartOrParts, read_inputs, read_role

STARTED = int(time.time())


class EmbeddingsRequest(BaseModel):
    """`input_type` is Cohere's and Voyage's way, `task` Jina's, to say whether the input are queries or documents."""

    input: PartOrParts
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1)
    input_type: str | None = None
    task: str | None = None


async def create_embeddings(engine: Engine, body: EmbeddingsRequest) -> Any:
    """Embeddings in OpenAI's shape: of texts, or of pictures where the encoder reads them.

    `input_type` (or Jina's `task`) says `query` or `document`. Without it one role serves both: `document` where the
    encoder has no prompt for documents, else `query`. `dimensions` below the encoder's own are for Matryoshka models.
    Texts beyond the encoder's length are cut.
    """
    field, role = ("task", body.task) if body.input_type is None else ("input_type", body.input_type)
    vectors, found = await embed_inputs(engine, body.model, "input", body.input, (field, role), body.dimensions)
    rows = [base64.b64encode(row).decode() for row in vectors] if body.encoding_format == "base64" else vectors
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)],
        "model": found.model,
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
    }


async def embed_inputs(
    engine: Engine, model: str | None, field: str, inputs: object, role: tuple[str, str | None], dim: int | None
) -> tuple[np.ndarray, Embedded]:
    """Vectors of what a client sent in a field, little-endian float32 [n, dim], and what the engine says of them.

    `role` is the field that names the role, and its value.
    """
    spec = engine.choose_encoder(model)[1].spec
    if dim is not None:
        check_length(spec, dim)
    items = read_inputs(inputs if isinstance(inputs, list) else [inputs], field, engine.limits.inputs, engine.limits)
    found = await engine.embed(model, items, read_role(role[1], role[0], spec))
    vectors = found.vectors if dim is None else cut_vectors(found.vectors, spec, dim)
    return np.ascontiguousarray(vectors, "<f4"), found


async def list_served(engine: Engine) -> Any:
    """The encoders and rerankers that can be named as `model`."""
    return {"object": "list", "data": [_describe(name) for name in (*engine.encoders, *engine.rerankers)]}


def _describe(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": STARTED, "owned_by": "crosslens"}
