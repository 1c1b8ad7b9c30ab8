"""The routes that clients of OpenAI, Cohere, Jina and text-embeddings-inference speak to, unchanged.

Their answers are bytes from orjson, without a response model: what is sent is numbers, and a lot of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .shapes import cohere, openai, tei
from .shapes.engine import Engine
from .shapes.wire import read_body, write_answer


@dataclass(frozen=True)
class Shape:
    """One route: `answer` is called with the engine and the body, if it has one; `tag` is whose shape it is."""

    tag: str
    path: str
    answer: Callable[..., Awaitable[Any]]
    body: type[BaseModel] | None = None


SHAPES = (
    Shape("OpenAI", "/v1/embeddings", openai.create_embeddings, openai.EmbeddingsBody),
    Shape("OpenAI", "/v1/models", openai.list_models),
    Shape("Cohere and Jina", "/v1/rerank", cohere.rerank_documents, cohere.RerankBody),
    Shape("Cohere and Jina", "/v2/rerank", cohere.rerank_documents, cohere.RerankBody),
    Shape("TEI", "/embed", tei.embed, tei.EmbedBody),
    Shape("TEI", "/rerank", tei.rank_texts, tei.RankBody),
    Shape("TEI", "/info", tei.describe_model),
)


def add_standard_routes(app: FastAPI, engine: Engine) -> None:
    """Add the routes of `SHAPES`. Errors are the application's, whose handlers know their status."""
    for shape in SHAPES:
        app.add_api_route(
            shape.path,
            _bind(shape, engine),
            methods=["GET" if shape.body is None else "POST"],
            name=shape.answer.__name__,
            tags=[shape.tag],
            description=shape.answer.__doc__,
            response_class=JSONResponse,
            openapi_extra=_describe_body(shape.body),
        )


def _bind(shape: Shape, engine: Engine) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        given = () if shape.body is None else (await read_body(request, shape.body),)
        return write_answer(await shape.answer(engine, *given))

    async def answer_tei(request: Request) -> Response:
        return await tei.with_errors(request, answer)

    return answer_tei if shape.tag == "TEI" else answer


def _describe_body(body: type[BaseModel] | None) -> dict[str, Any] | None:
    if body is None:
        return None
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": body.model_json_schema()}}}}
