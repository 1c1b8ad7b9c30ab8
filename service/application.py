"""The HTTP application: routes, errors, the page (docs/serving.md)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from ..errors import CrosslensError, InputError
from ..items import Item
from .answers import FACETED, describe_answer, describe_document, describe_service
from .engine import Engine
from .gate import Gate, Wrong, describe_error, gives_secret, until_gone
from .pictures import Picture, Pictures
from .quotas import TooLarge
from .requests import (
    DocumentsRequest,
    SearchRequest,
    decode_picture,
    describe_fault,
    make_query,
    make_where,
    parse_form,
    parse_query,
    parse_request,
)  # fmt: skip
from .searching import Wanted
from .shapes.wire import write_answer
from .standard import BODIES, add_standard_routes
from .systems import Search
from .writing import Changes

PAGE = Path(__file__).parent / "page"
STEPS = (100, 1000)  # how deep searches go, so that pages of one query are cut from one ranking


@dataclass(frozen=True)
class Access:
    """Who may do what: the `key` that all requests have to give, if it is not empty, and that of changes, `token`.

    `hosts` are the names that the service is asked by (empty: any); pages of `origins` may ask it from browsers.
    """

    key: str = ""
    token: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


def make_app(engine: Engine, access: Access = Access()) -> Gate:
    """The service as an ASGI application; `engine` is closed with it."""

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        yield
        routes.close()
        await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="crosslens", version=version("crosslens"), docs_url=None, redoc_url=None, lifespan=live,
        redirect_slashes=False,
        description="Search across languages, texts and pictures.",
    )  # fmt: skip
    if access.origins:
        app.add_middleware(CORSMiddleware, allow_origins=access.origins, allow_methods=["*"], allow_headers=["*"])
    _add_errors(app)
    routes = Routes(engine, access)
    routes.add_to(app)
    add_standard_routes(app, engine)
    _add_schemas(app)
    return Gate(app, engine.limits, engine.metrics, access.key, access.hosts)


def _add_schemas(app: FastAPI) -> None:
    """What routes read themselves, in the OpenAPI description."""
    describe = app.openapi

    kinds: tuple[type[BaseModel], ...] = (SearchRequest, DocumentsRequest, *BODIES)

    def openapi() -> dict[str, Any]:
        made = describe()
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for kind in kinds:
            own = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(own.pop("$defs", {}))
            schemas[kind.__name__] = own
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def _add_errors(app: FastAPI) -> None:
    def answer(error: Exception) -> JSONResponse:
        status, body, headers = describe_error(error)
        return JSONResponse(body, status, headers)

    async def crosslens_error(request: Request, error: Exception) -> Response:
        return answer(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(InputError(describe_fault(error.errors())))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
        text = "there is nothing here: /docs lists all routes" if error.status_code == 404 else str(error.detail)
        return answer(Wrong(error.status_code, text, kind))

    app.add_exception_handler(CrosslensError, crosslens_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, crosslens_error)


@dataclass(frozen=True)
class Routes:
    """What is answered where."""

    engine: Engine
    access: Access
    pictures: Pictures = field(default_factory=Pictures)

    def add_to(self, app: FastAPI) -> None:
        """Add all routes."""
        found = {"responses": {400: {"description": "what is wrong, in one line"}}}
        app.post("/search", openapi_extra=_take(SearchRequest), **found)(self.search)  # type: ignore[arg-type]
        app.get("/search", **found)(self.search_by_url)  # type: ignore[arg-type]
        app.get("/documents/{index}/{id:path}/image")(self.show_image)
        app.get("/documents/{index}/{id:path}/thumbnail")(self.show_thumbnail)
        app.get("/documents/{index}/{id:path}")(self.show_document)
        app.post("/documents", openapi_extra=_take(DocumentsRequest))(self.add_documents)
        app.delete("/documents/{index}/{id:path}")(self.remove_document)
        app.get("/service")(self.describe)
        app.get("/healthz")(self.is_alive)
        app.get("/readyz")(self.is_ready)
        app.get("/metrics")(self.write_metrics)
        app.get("/docs", include_in_schema=False)(self.show_api)
        app.get("/", include_in_schema=False)(self.show_page)
        app.mount("/page", StaticFiles(directory=PAGE, check_dir=False))

    # Search

    async def search(self, request: Request) -> Response:
        """Documents for a text, a picture (base64, or a form's file `image`), a document's id, or several of them."""
        started = time.monotonic()
        picture: bytes | None = None
        kind = request.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            async with request.form(max_files=1, max_fields=4, max_part_size=self.engine.limits.body_bytes) as form:
                asked = parse_form({key: value for key, value in form.items() if isinstance(value, str)})
                file = form.get("image")
                if file is not None and not isinstance(file, str):
                    picture = await file.read()
            if picture is not None and len(picture) > self.engine.limits.picture_bytes:
                raise TooLarge(f"image: a picture has at most {self.engine.limits.picture_bytes:,} bytes")
            size = len(asked.model_dump_json())
        else:
            body = await request.body()
            asked = parse_request(SearchRequest, body)
            size = len(body) - len(asked.image or "")
        if size > self.engine.limits.body_bytes:
            raise TooLarge(f"the body has more than {self.engine.limits.body_bytes:,} bytes beside a picture")
        return await until_gone(request, self._search(asked, picture, started))

    async def search_by_url(self, request: Request) -> Response:
        """The same by a URL: `q`, `lang`, `k`, `offset`, `where=KEY=VALUE`, `mode`, `rerank`, ..."""
        started = time.monotonic()
        return await until_gone(request, self._search(parse_query(request.query_params.multi_items()), None, started))

    async def _search(self, request: SearchRequest, picture: bytes | None, started: float) -> Response:
        engine, limits = self.engine, self.engine.limits
        depth = request.offset + request.k
        if depth > limits.k:
            raise InputError(f"k and offset together are {depth}, and {limits.k} is the most")
        if request.image is not None:
            picture = decode_picture(request.image, limits)
        query = make_query(request, picture)
        served = engine.choose_index(request.index)
        mode = request.mode
        if request.id is not None and mode is None and request.system is None:
            mode = "dense" if served.index.card.spaces else "lexical"
        system = engine.choose_system(request.system, mode)
        rerank = system.second is not None and request.id is None if request.rerank is None else request.rerank
        if rerank and system.second is None:
            raise InputError(f"the system {system.name} has no reranker: start the service with --rerank SPEC")
        depth = system.depth(next(step for step in (*STEPS, limits.k) if depth <= step), rerank)
        search = Search(served.name, system, make_where(request), depth, request.exact, request.explain, rerank)
        timeout = min(request.timeout_ms or limits.timeout_ms, limits.timeout_ms)
        page = (0, 0) if rerank else (request.offset, request.k)  # which is another after reranking
        answer = await engine.search(Wanted(search, query, request.id or "", *page), started + timeout / 1000)
        shown = answer.found.hits[request.offset : request.offset + request.k]
        ids = [hit.id for hit in (*shown, *(answer.found.hits[:FACETED] if request.facets else ()))]
        items = {item.id: item for item in await engine.fetch(answer.found, ids)}
        seconds = time.monotonic() - started
        return write_answer(describe_answer(engine, answer, request, items, seconds))

    # Documents

    async def show_document(self, index: str, id: str) -> Response:
        """A stored document with all its text."""
        item = await asyncio.to_thread(self.engine.choose_index(index).find, id)
        return write_answer({**describe_document(index, item), "text": item.text})

    async def show_image(self, request: Request, index: str, id: str) -> Response:
        """The picture of a document."""
        if _is_of_id(request, "image"):
            return await self.show_document(index, f"{id}/image")
        return await self._show(request, self.pictures.load, index, id)

    async def show_thumbnail(self, request: Request, index: str, id: str) -> Response:
        """The picture of a document, at most 320 pixels a side, as WebP."""
        if _is_of_id(request, "thumbnail"):
            return await self.show_document(index, f"{id}/thumbnail")
        return await self._show(request, self.pictures.shrink, index, id)

    async def _show(self, request: Request, load: Callable[..., Picture], index: str, id: str) -> Response:
        picture = await asyncio.to_thread(load, self.engine.choose_index(index), id)
        headers = {"etag": picture.tag, "cache-control": "private, max-age=600"}
        if request.headers.get("if-none-match") == picture.tag:
            return Response(status_code=304, headers=headers)
        return Response(picture.content, media_type=picture.kind, headers=headers)

    async def add_documents(self, request: Request) -> Response:
        """Store documents (only with --writable, and its token)."""
        self._check_token(request)
        asked = parse_request(DocumentsRequest, await request.body())
        served = self.engine.choose_index(asked.index)
        items = [
            Item(
                each.id, each.text, decode_picture(each.image, self.engine.limits, each.id) if each.image else None,
                each.lang, each.meta,
            )
            for each in asked.documents
        ]  # fmt: skip
        return write_answer(await self._change(self._writing.add, served, items))

    async def remove_document(self, request: Request, index: str, id: str) -> Response:
        """Take a document out (only with --writable, and its token)."""
        self._check_token(request)
        return write_answer(await self._change(self._writing.remove, self.engine.choose_index(index), id))

    async def _change(self, change: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
        return await asyncio.get_running_loop().run_in_executor(self._writing.turn, change, *given)

    @cached_property
    def _writing(self) -> Changes:
        return Changes(self.engine.models.submit)

    def close(self) -> None:
        """End the thread of changes, if there was one."""
        if "_writing" in vars(self):
            self._writing.turn.shutdown(wait=False)

    def _check_token(self, request: Request) -> None:
        if not self.access.token:
            raise Wrong(403, "documents cannot be changed here: start the service with --writable")
        if not gives_secret(request.headers, "x-write-token", self.access.token.encode()):
            raise Wrong(401, "give the token of changes, as x-write-token: TOKEN", "authentication_error")

    # The service itself

    async def describe(self) -> Response:
        """What is served: indexes, systems, models, limits."""
        return write_answer(await asyncio.to_thread(describe_service, self.engine, version("crosslens")))

    async def is_alive(self) -> Response:
        """Whether the process answers."""
        return write_answer({"status": "ok"})

    async def is_ready(self) -> Response:
        """Whether models are loaded and indexes complete."""
        models = {each.name: each.alive for each in (self.engine.models, self.engine.judges)}
        indexes = {name: served.index.card.complete for name, served in self.engine.indexes.items()}
        ready = all((*models.values(), *indexes.values()))
        return write_answer(
            {"ready": ready, "process": os.getpid(), "models": models, "indexes": indexes}, 200 if ready else 503
        )

    async def write_metrics(self, request: Request) -> Response:
        """What is counted and timed, for Prometheus."""
        engine = self.engine
        waiting = {each.name: each.waiting for each in (engine.models, engine.judges)}
        engine.metrics.watch_queues(request.scope["crosslens.under_way"], waiting)
        return Response(engine.metrics.write(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def show_api(self, request: Request) -> Response:
        """The interface on one page, without scripts."""
        from .interface import draw_interface

        return HTMLResponse(draw_interface(request.app.openapi()))

    async def show_page(self) -> Response:
        """The page to search with."""
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


def _is_of_id(request: Request, word: str) -> bool:
    """Whether the last word of the path belongs to a document's id, in which a slash is %2F."""
    return not request.scope.get("raw_path", f"/{word}".encode()).endswith(f"/{word}".encode())


def _take(kind: type) -> dict[str, Any]:
    """The body of a route that reads it itself."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
