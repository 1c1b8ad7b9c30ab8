"""The routes that clients of OpenAI, Cohere, Jina and text-embeddings-inference speak to, unchanged.

Their answers are bytes from orjson, without a response model: what is sent is numbers, and a lot of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response

from .engine import Engine
from .gate import until_gone
from .requests import parse_request
from .shapes import cohere, openai, tei
from .shapes.wire import write_answer


@dataclass(frozen=True)
class Shape:
    """One route: `answer` is called with the engine and what was asked, if it takes a body; `tag` says whose it is."""

    tag: str
    path: str
    answer: Callable[..., Coroutine[Any, Any, Any]]
    body: type[BaseModel] | None = None


SHAPES = (
    Shape("OpenAI", "/v1/embeddings", openai.create_embeddings, openai.EmbeddingsRequest),
    Shape("OpenAI", "/v1/models", openai.list_served),
    Shape("Cohere and Jina", "/v1/rerank", cohere.rerank_documents, cohere.RerankRequest),
    Shape("Cohere and Jina", "/v2/rerank", cohere.rerank_documents, cohere.RerankRequest),
    Shape("TEI", "/embed", tei.embed_texts, tei.EmbedRequest),
    Shape("TEI", "/", tei.embed_texts, tei.EmbedRequest),  # huggingface_hub's client, given no more than the address
    Shape("TEI", "/rerank", tei.rank_texts, tei.RankRequest),
    Shape("TEI", "/info", tei.describe_model),
)
BODIES = tuple(dict.fromkeys(shape.body for shape in SHAPES if shape.body is not None))


def add_standard_routes(app: FastAPI, engine: Engine) -> None:
    """Add the routes of `SHAPES`; the schemas of `BODIES` belong into the description of the application."""
    for shape in SHAPES:
        app.add_api_route(
            shape.path,
            _bind(shape, engine),
            methods=["GET" if shape.body is None else "POST"],
            name=shape.answer.__name__,
            tags=[shape.tag],
            description=shape.answer.__doc__,
            openapi_extra=_refer_to(shape.body),
        )


def _bind(shape: Shape, engine: Engine) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        asked = () if shape.body is None else (parse_request(shape.body, await request.body()),)
        return write_answer(await until_gone(request, shape.answer(engine, *asked)))

    async def answer_tei(request: Request) -> Response:
        return await tei.with_errors(answer(request))

    return answer_tei if shape.tag == "TEI" else answer


def _refer_to(body: type[BaseModel] | None) -> dict[str, Any] | None:
    if body is None:
        return None
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
