"""The shapes of Hugging Face's text-embeddings-inference: `/embed`, `/rerank`, `/info`, and its errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import orjson
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ...encoders.base import unit
from .cohere import MOST_DOCUMENTS, rank_scores
from .engine import Engine
from .inputs import PartOrParts, Parts, read_item, read_items
from .openai import MOST_INPUTS, embed_inputs

# TEI's names for what went wrong, by status.
ERRORS = {400: "Validation", 404: "Validation", 413: "Validation", 429: "Overloaded", 503: "Unhealthy"}


class EmbedBody(BaseModel):
    """`prompt_name` is the role; texts that are too long are always cut, as if TEI ran with `--auto-truncate`."""

    inputs: PartOrParts
    normalize: bool = True
    truncate: bool | None = None
    prompt_name: str | None = None
    dimensions: int | None = Field(None, ge=1)


class RankBody(BaseModel):
    query: str
    texts: Parts
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None


async def embed(engine: Engine, body: EmbedBody) -> Any:
    """A list of vectors in TEI's shape. `normalize: false` gives them as the encoder does, mostly of length 1 too."""
    role = ("prompt_name", body.prompt_name)
    vectors, found = await embed_inputs(engine, None, "inputs", body.inputs, role, body.dimensions)
    return unit(vectors) if body.normalize and not found.spec.normalized else vectors


async def rank_texts(engine: Engine, body: RankBody) -> Any:
    """Texts by relevance to a query, best first, in TEI's shape: scores in 0..1, or the model's own (`raw_scores`)."""
    texts = read_items(body.texts, "texts", MOST_DOCUMENTS)
    found = await engine.score(None, read_item(body.query, "query"), texts)
    scores = found.raw if body.raw_scores else found.scores
    more = [{"text": text} for text in body.texts] if body.return_text else [{}] * len(texts)
    return [{"index": number, "score": scores[number], **more[number]} for number in rank_scores(found.scores)]


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
        "max_client_batch_size": MOST_INPUTS,
        "auto_truncate": True,
        "version": version("crosslens"),
    }


async def with_errors(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """An answer, whose errors have the status that the application gives them, and TEI's body."""
    try:
        return await answer(request)
    except Exception as error:
        handlers = request.app.exception_handlers
        kinds = [kind for kind in type(error).__mro__ if kind in handlers and kind is not Exception]
        if not kinds:
            raise
        handler = handlers[kinds[0]]
        response = handler(request, error)
        response = await response if isinstance(response, Awaitable) else response
    said = orjson.loads(response.body)["error"]["message"]
    response.body = orjson.dumps({"error": said, "error_type": ERRORS.get(response.status_code, "Backend")})
    response.headers["content-length"] = str(len(response.body))
    return response
