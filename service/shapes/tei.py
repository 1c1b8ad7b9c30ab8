"""The shapes of Hugging Face's text-embeddings-inference: `/embed`, `/rerank`, `/info`, and its errors."""

from __future__ import annotations

from collections.abc import Awaitable
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from ...encoders.base import unit
from ..engine import Engine
from ..gate import Gone, describe_error
from .cohere import MOST_DOCUMENTS, order_scores
from .inputs import PartOrParts, Parts, read_input, read_inputs
from .openai import embed_inputs
from .wire import write_answer

# TEI's names for what went wrong, by status.
ERRORS = {400: "Validation", 404: "Validation", 413: "Validation", 429: "Overloaded", 503: "Unhealthy"}


class EmbedRequest(BaseModel):
    """`prompt_name` is the role; texts that are too long are always cut, as if TEI ran with `--auto-truncate`."""

    inputs: PartOrParts
    normalize: bool = True
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None
    prompt_name: str | None = None
    dimensions: int | None = Field(None, ge=1)


class RankRequest(BaseModel):
    """A query and texts, of which those that are too long are cut."""

    query: str
    texts: Parts
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None


async def embed_texts(engine: Engine, body: EmbedRequest) -> Any:
    """A list of vectors in TEI's shape. `normalize: false` gives them as the encoder does, mostly of length 1 too."""
    role = ("prompt_name", body.prompt_name)
    vectors, found = await embed_inputs(engine, None, "inputs", body.inputs, role, body.dimensions)
    return unit(vectors) if body.normalize and not found.spec.normalized else vectors


async def rank_texts(engine: Engine, body: RankRequest) -> Any:
    """Texts by relevance to a query, best first, in TEI's shape: scores in 0..1, or the model's own (`raw_scores`)."""
    texts = read_inputs(body.texts, "texts", MOST_DOCUMENTS, engine.limits)
    found = await engine.score(None, read_input(body.query, "query", engine.limits), texts)
    scores = found.raw if body.raw_scores else found.scores
    more = [{"text": text} for text in body.texts] if body.return_text else [{}] * len(texts)
    return [{"index": number, "score": scores[number], **more[number]} for number in order_scores(found)]


async def describe_model(engine: Engine) -> Any:
    """What TEI's `/info` says of the encoder that `/embed` uses."""
    name, encoder = engine.choose_encoder(None)
    spec = encoder.spec
    return {
        "model_id": name,
        "model_sha": spec.revision,
        "model_dtype": spec.dtype,
        "model_type": {"embedding": {"pooling": spec.pooling}},
        "max_input_length": spec.max_tokens,
        "max_client_batch_size": engine.limits.inputs,
        "auto_truncate": True,
        "version": version("crosslens"),
    }


async def with_errors(answer: Awaitable[Response]) -> Response:
    """An answer, or the error in its place: in TEI's body, with the status that it has everywhere."""
    try:
        return await answer
    except Gone:
        raise
    except Exception as error:
        status, said, headers = describe_error(error)
        kind = ERRORS.get(status, "Backend")
        return write_answer({"error": said["error"]["message"], "error_type": kind}, status, headers)
