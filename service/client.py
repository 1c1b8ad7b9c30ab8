"""A client of a running service, with the standard library alone: a search from the shell that loads nothing."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import CrosslensError, InputError
from ..files import read_bytes

TIMEOUT = 60.0  # seconds without a byte; a service answers within 30 unless it was told otherwise
MOST = 64 << 20  # bytes of an answer
MISTAKES = {400, 401, 403, 404, 413}  # what the one who asks can change


def search_service(server: str, asked: Mapping[str, Any], key: str = "", timeout: float = TIMEOUT) -> dict[str, Any]:
    """What the service at the address `server` answers to a search (the fields of `/search`); `key` is its key.

    `InputError` for an address that is none, and for what the service refuses; `CrosslensError` where it cannot be
    reached, is busy, or is no such service. It is asked once, and no redirection is followed: the key is for it alone.
    """
    answer = _post(server, "/search", {name: value for name, value in asked.items() if value is not None}, key, timeout)
    if not isinstance(answer.get("hits"), list) or not isinstance(answer.get("query"), dict):
        raise CrosslensError(f"{server} answers, but not as a crosslens service of this version does")
    return answer


def encode_picture(path: Path) -> str:
    """A picture as requests hold it."""
    return base64.b64encode(read_bytes(path)).decode("ascii")


def name_served(directory: str) -> str:
    """The name under which a service has the index of a directory, unless it was given another."""
    return Path(directory.rstrip("/")).name.removesuffix(".index")


def _post(server: str, route: str, asked: Mapping[str, Any], key: str, timeout: float) -> dict[str, Any]:
    kind, host, port, prefix = _split(server)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key:
        if not key.isascii() or not key.isprintable():
            raise InputError("the key in CROSSLENS_API_KEY holds characters that no header can have")
        headers["Authorization"] = f"Bearer {key}"
    connect = http.client.HTTPSConnection if kind == "https" else http.client.HTTPConnection
    connection = connect(host, port, timeout=timeout)
    try:
        connection.request("POST", prefix + route, json.dumps(asked).encode("ascii"), headers)
        response = connection.getresponse()
        body = response.read(MOST + 1)
    except TimeoutError:
        raise CrosslensError(f"{server} does not answer within {timeout:g} seconds") from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CrosslensError(
            f"{server} cannot be asked ({reason}): start `crosslens serve` there, or search without --server"
        ) from None
    finally:
        connection.close()
    if response.status != 200:
        raise _refuse(server, response, body)
    answer = _read(body)
    if len(body) > MOST or not isinstance(answer, dict):
        raise CrosslensError(f"{server} answers, but not as a crosslens service does: is this its address?")
    return answer


def _split(server: str) -> tuple[str, str, int | None, str]:
    """The scheme, the host, the port and the path of an address."""
    try:
        parts = urlsplit(server)
        kind, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        kind, host, port = "", None, None
    if kind not in ("http", "https") or not host or parts.query or parts.fragment or not server.isascii():
        raise InputError(f"{server!r} is no address of a service: write --server http://HOST:PORT")
    if parts.username is not None:
        raise InputError("--server holds a name or a password: a key goes into CROSSLENS_API_KEY")
    if any(character.isspace() or not character.isprintable() for character in server):
        raise InputError(f"{server!r} is no address of a service: it holds white space")
    return kind, host, port, parts.path.rstrip("/")


def _refuse(server: str, response: http.client.HTTPResponse, body: bytes) -> CrosslensError:
    """The error for an answer that is none."""
    status, answer = response.status, _read(body)
    error = answer.get("error") if isinstance(answer, dict) else None
    said = error.get("message") if isinstance(error, dict) else None
    if status == 429:
        wait = response.headers.get("retry-after")
        again = f"try again in {wait} s" if wait and wait.isdecimal() else "try again later"
        return CrosslensError(f"{server} has too much to do: {again}")
    if status == 401:
        return InputError(f"{server} wants its key: set CROSSLENS_API_KEY to the one that it was started with")
    if 300 <= status < 400:
        where = response.headers.get("location", "elsewhere")
        return InputError(f"{server} sends to {where}, which is not followed: give that address as --server")
    if not isinstance(said, str):
        return CrosslensError(f"{server} answers with status {status}, not as a crosslens service does")
    kind = InputError if status in MISTAKES else CrosslensError
    return kind(f"{server} answers: {said}")


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
