"""A load generator: so many clients, each with one connection that it keeps, and one request at a time.

It is run in a process of its own by `generate`. As it shares the cores with the server it speaks HTTP on plain sockets,
for a thirtieth of the CPU time of httpx (47 against 1,430 microseconds a request); what it sends was made before the
clock starts, and what comes back is looked at after it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

LOST, CANCELLED = 0, -1  # in the place of a status
LIMIT = 1 << 26  # bytes of an answer


@dataclass(frozen=True)
class Request:
    """What is sent, and which statuses are right; `cancel`: hang up after so many seconds."""

    path: str
    body: Any = None  # JSON; text is sent as it stands
    kind: str = "search"
    expected: Sequence[int] = (200,)
    cancel: float | None = None

    def encode(self) -> bytes:
        body = (
            b"" if self.body is None else (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()
        )
        head = f"{'GET' if self.body is None else 'POST'} {self.path} HTTP/1.1\r\nHost: localhost\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True)
class Load:
    """A run of the generator. Without `repeat` it ends where all requests were sent, before `seconds` are over.

    A client that is sent away (429, 503) waits as long as the answer says, at most `patience` seconds.
    """

    port: int
    clients: int
    seconds: float
    requests: Sequence[Request]
    repeat: bool = False
    keep: bool = False  # the answers, too
    timeout: float = 60.0
    patience: float = 1.0


@dataclass(frozen=True)
class Sent:
    """One request: its number, when (CLOCK_MONOTONIC), how long it took, and what came of it."""

    number: int
    started: float
    seconds: float
    status: int
    retry_after: str | None = None
    body: str | None = None


@dataclass
class Sending:
    """What a run has found."""

    sent: list[Sent] = field(default_factory=list)
    seconds: float = 0.0  # until the last answer
    cpu: float = 0.0  # CPU seconds of the generator


def generate(load: Load) -> Sending:
    """Run the generator in a process of its own, and wait for it."""
    return collect(start(load))


def start(load: Load) -> subprocess.Popen[str]:
    """Run it beside what follows; its clients have begun when this returns."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    json.dump(asdict(load), process.stdin)
    process.stdin.close()
    process.stdin = None
    assert process.stdout is not None
    process.stdout.readline()
    return process


def collect(process: subprocess.Popen[str]) -> Sending:
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    found = json.loads(out)
    return Sending([Sent(*row) for row in found["sent"]], found["seconds"], found["cpu"])


async def run(load: Load) -> Sending:
    """Send; the clients begin at once."""
    encoded = [(number, request.encode(), request.cancel) for number, request in enumerate(load.requests)]
    queue = itertools.cycle(encoded) if load.repeat else iter(encoded)
    found = Sending()
    began, cpu = time.monotonic(), _cpu()
    await asyncio.gather(*(_drive(load, queue, began + load.seconds, found.sent) for _ in range(load.clients)))
    found.seconds, found.cpu = time.monotonic() - began, _cpu() - cpu
    return found


async def _drive(load: Load, queue: Iterator[tuple[int, bytes, float | None]], until: float, sent: list[Sent]) -> None:
    """One client."""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while time.monotonic() < until and (taken := next(queue, None)) is not None:
        number, request, cancel = taken
        started = time.monotonic()
        status, after, body, stays = LOST, None, b"", False
        try:
            async with asyncio.timeout(load.timeout):
                connection = connection or await asyncio.open_connection("127.0.0.1", load.port, limit=LIMIT)
                connection[1].write(request)
                if cancel is not None:
                    await asyncio.sleep(cancel)
                    status = CANCELLED
                else:
                    status, after, body, stays = await _read(connection[0])
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        kept = body.decode("utf-8", "replace") if load.keep else None
        sent.append(Sent(number, started, time.monotonic() - started, status, after, kept))
        if not stays and connection is not None:
            connection[1].transport.abort()
            connection = None
        if status in (LOST, 429, 503):
            wait = float(after) if after and after.isdecimal() else 0.05
            await asyncio.sleep(min(wait, load.patience))
    if connection is not None:
        with contextlib.suppress(OSError):
            connection[1].close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, str | None, bytes, bool]:
    """An answer: its status, `Retry-After`, the body, and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(fields["content-length"]))
    stays = fields.get("connection", "").lower() != "close"
    return int(head[0].split()[1]), fields.get("retry-after"), body, stays


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(parts)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    asked = json.load(sys.stdin)
    load = Load(**{**asked, "requests": [Request(**each) for each in asked["requests"]]})
    print("begun", flush=True)
    found = asyncio.run(run(load))
    rows = [[one.number, one.started, one.seconds, one.status, one.retry_after, one.body] for one in found.sent]
    json.dump({"sent": rows, "seconds": found.seconds, "cpu": found.cpu}, sys.stdout)


if __name__ == "__main__":
    main()
