"""What every request passes: limits, keys, hosts, headers, and what is counted of it."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InputError, write_line
from .metrics import Metrics
from .quotas import Busy, Quotas, Refused, TooLarge, Unknown

log = logging.getLogger("crosslens")
T = TypeVar("T")

OPEN = ("/healthz", "/readyz")  # answered without a key, and however much is under way
PAGE = ("/", "/page/")  # the page itself holds no documents: it asks for the key
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_PATHS = re.compile(r"(?<![\w/.])(?:file://|~|[A-Za-z]:)?(?:[/\\][^\s/\\:;,'\"]+){2,}")


class Wrong(Refused):
    """A request that its own sender has to change: of another status than 400."""

    kind = "invalid_request_error"

    def __init__(self, status: int, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind or self.kind


class Gate:
    """An ASGI application in front of another.

    `key` is required in `Authorization: Bearer` or `x-api-key` where it is not empty; `hosts` are the names that the
    service is asked by (empty: any). Bodies are read whole before the application is called, so that no request holds
    more than its limit, nor all together more than `Quotas.buffered_bytes`.
    """

    def __init__(
        self, app: ASGIApp, limits: Quotas, metrics: Metrics, key: str = "", hosts: Sequence[str] = ()
    ) -> None:
        self.app = app
        self.limits = limits
        self.metrics = metrics
        self.key = key.encode()
        self.hosts = tuple(hosts)
        self.under_way = 0
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        sent = complete = False

        async def answer(message: Message) -> None:
            nonlocal status, sent, complete
            if message["type"] == "http.response.start":
                status, sent = message["status"], True
                message["headers"] = [*message.get("headers", ()), *_ENCODED, _time_since(started)]
            else:
                complete = not message.get("more_body", False)
            try:
                async with asyncio.timeout(self.limits.timeout_ms / 1000):  # for who does not read it
                    await send(message)
            except TimeoutError:
                status, complete = 499, True
                raise Gone("the answer was not read") from None

        free = scope["path"] in OPEN
        self.under_way += not free
        scope["crosslens.under_way"] = self.under_way
        held = 0
        try:
            if not free:
                self._check(scope, headers)
                body = await self._read(receive, headers)
                held = len(body)
                receive = _replay(body, receive)
            await self.app(scope, receive, answer)
        except Gone:
            status = 499
        except Exception as error:
            if complete:  # the framework answers, and raises what it has answered once more
                return
            if sent:
                raise
            status = await self._refuse(error, send, started)
        finally:
            self._buffered -= held
            self.under_way -= not free
            route = getattr(scope.get("route"), "path", None) or ("/page/" if status == 200 else "other")
            self.metrics.watch_request(route, status, time.monotonic() - started)

    async def _refuse(self, error: Exception, send: Send, started: float) -> int:
        status, body, more = describe_error(error)
        headers = {"content-type": "application/json", **more}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send(
            {"type": "http.response.start", "status": status, "headers": [*raw, *_ENCODED, _time_since(started)]}
        )
        await send({"type": "http.response.body", "body": json.dumps(body, ensure_ascii=False).encode()})
        return status

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Raise what stands against a request before any of its body is read."""
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Wrong(400, "the length of the body is given twice: a proxy may have read another request than this")
        if self.hosts:
            host = re.sub(r":\d+$", "", headers.get("host", ""))
            if host.lower() not in self.hosts:
                raise Wrong(
                    403, f"this service answers to {self.hosts[0]}, not to {host!r}: others need a key to be set"
                )
        path = scope["path"]
        reads = scope["method"] in ("GET", "HEAD")  # TEI's clients send texts to the page's own path
        asks = scope["method"] == "OPTIONS"  # whether another site may: browsers ask it without the key
        free = asks or (reads and (path == PAGE[0] or path.startswith(PAGE[1])))
        if self.key and not free and not gives_secret(headers, "x-api-key", self.key):
            raise Wrong(401, "give the key of this service, as Authorization: Bearer KEY", "authentication_error")
        if self.under_way > self.limits.requests:
            raise Busy(f"{self.limits.requests} requests are under way: try again in a second")

    async def _read(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        """The whole body; `TooLarge` as soon as it is, `Busy` where too much is held already."""
        most = self.limits.whole_body
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > most:
            raise TooLarge(f"the body has {int(declared):,} bytes, and {most:,} are the most")
        parts: list[bytes] = []
        held = 0
        until = asyncio.get_running_loop().time() + self.limits.timeout_ms / 1000
        try:
            while True:
                async with asyncio.timeout_at(until):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone("hung up")
                part = message.get("body", b"")
                held += len(part)
                self._buffered += len(part)
                parts.append(part)
                if held > most:
                    raise TooLarge(f"the body has more than {most:,} bytes, which are the most")
                if self._buffered > self.limits.buffered_bytes:
                    raise Busy("too many large requests are under way: try again in a second")
                if not message.get("more_body", False):
                    break
        except TimeoutError:
            self._buffered -= held
            raise Wrong(408, "the body did not come in time") from None
        except BaseException:
            self._buffered -= held
            raise
        return b"".join(parts)


class Gone(Refused):
    """Who asked has hung up, or does not read the answer."""

    status = 499
    kind = "invalid_request_error"


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up: then nobody is to answer, and `Gone`."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_wait_for_end(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        raise Gone("hung up")
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


async def _wait_for_end(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then what comes after it: that the client is gone."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


def gives_secret(headers: Mapping[str, str], name: str, secret: bytes) -> bool:
    """Whether a request gives a secret, in the header of that name or else as `Authorization: Bearer`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = headers.get(name, token if scheme.lower() == "bearer" else "")
    return hmac.compare_digest(given.encode("latin-1", "replace"), secret)


def _time_since(started: float) -> tuple[bytes, bytes]:
    return b"server-timing", f"total;dur={1000 * (time.monotonic() - started):.1f}".encode()


def describe_error(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for an error: one line without the paths of this machine, never a traceback."""
    headers: dict[str, str] = {}
    if isinstance(error, Refused):
        status, kind, text = error.status, error.kind, str(error)
    elif isinstance(error, Unknown):
        status, kind, text = 404, "not_found_error", str(error)
    elif isinstance(error, InputError):
        status, kind, text = 400, "invalid_request_error", str(error)
    else:
        number = secrets.token_hex(4)
        log.error("error %s of a request", number, exc_info=error)
        status, kind, text = 500, "server_error", f"an error of the service, which its log has as {number}"
    if status in (429, 503):
        headers["retry-after"] = "1"
    if status == 400 and isinstance(error, Wrong):  # of what then comes nobody knows where it begins
        headers["connection"] = "close"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return status, {"error": {"message": write_line(hide_paths(text)), "type": kind, "code": None}}, headers


def hide_paths(text: str) -> str:
    """A text in which paths of this machine are only their last part."""
    return _PATHS.sub(lambda found: re.split(r"[/\\]", found[0])[-1], text)


_ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
