"""benchmarks/serve.py: what the load generator counts, against a server whose answers are known."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

BODY = b'{"hits": []}'
ANSWERS = {
    "/good": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY),
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n7\r\n%s\r\n0\r\n\r\n" % (BODY[:5], BODY[5:]),
    "/busy": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    "/broken": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "/half": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "/gone": b"",
}  # fmt: skip


@pytest.fixture
def serve(monkeypatch):
    """The modules of the benchmark by their names."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    before = set(sys.modules)
    yield lambda name: importlib.import_module(name)
    for name in set(sys.modules) - before:
        if name.startswith("serve") or name == "measurements":
            del sys.modules[name]


def test_every_request_is_counted_as_what_came_of_it(serve):
    client, load = serve("serve_client"), serve("serve_load")
    connections = 0

    async def answer(reader, writer):
        nonlocal connections
        connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await reader.readexactly(int(head.partition("Content-Length: ")[2].split()[0]))
                path = head.split()[1]
                if path == "/slow":
                    await asyncio.sleep(30)
                writer.write(ANSWERS[path])
                await writer.drain()
                if path in ("/half", "/gone", "/broken"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def run():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        paths = ["/good", "/chunked", "/good", "/busy", "/broken", "/half", "/gone", "/good", "/slow"]
        requests = [client.Request(path, {"text": "é"}, cancel=0.01 if path == "/slow" else None) for path in paths]
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await client.run(client.Load(port, 1, 20, requests, keep=True, patience=0.01))

    found = asyncio.run(run())
    assert [one.number for one in found.sent] == list(range(9))
    assert [one.status for one in found.sent] == [200, 200, 200, 429, 500, 0, 0, 200, client.CANCELLED]
    assert {one.body for one in found.sent if one.status == 200} == {BODY.decode()}
    assert connections == 4  # one is kept until an answer closes it
    step = load.summed(found)
    wanted = {"requests": 9, "sent_away": 1, "without_retry_after": 0, "failed": 1, "lost": 2}
    assert {name: step[name] for name in wanted} == wanted


def test_queries_are_never_repeated_and_the_same_for_a_seed(serve):
    queries = list(islice(serve("serve_load").make_queries("demo", 3), 3000))
    assert len(set(queries)) == 3000
    assert queries[:50] == list(islice(serve("serve_load").make_queries("demo", 3), 50))
    assert max(map(len, queries)) < 200


def test_a_soak_counts_wrong_statuses_by_kind(serve):
    client, soak = serve("serve_client"), serve("serve_soak")
    requests = [client.Request("/search"), client.Request("/search", kind="bad", expected=(400,))]
    sent = [client.Sent(number, 0.0, 0.1, status) for number, status in ((0, 200), (0, 500), (0, 429), (1, 400), (1, 200), (1, 0))]  # fmt: skip
    kinds = soak.count(sent, requests)
    assert {name: (each["wrong"], each["lost"], each["sent_away"]) for name, each in kinds.items() if each["sent"]} == {
        "search": (1, 0, 1),
        "bad": (1, 1, 0),
    }
    assert kinds["bad"]["which"] == {"/search 200": 1}
    assert Counter(soak.MIX).total() == 100


@pytest.mark.parametrize(("started", "seconds", "within"), [(9, 2, True), (9, 0.5, False), (10.5, 1, False)])
def test_what_was_in_flight_when_a_worker_was_killed(serve, started, seconds, within):
    sent = serve("serve_client").Sent(0, started, seconds, 0)
    assert serve("serve_faults").spans(sent, 10.0) is within
