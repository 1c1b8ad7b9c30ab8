"""What every request passes: keys, hosts, limits, headers; and documents that are changed."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from crosslens.service.application import Access
from crosslens.service.gate import Gate, describe_error, hide_paths
from crosslens.service.metrics import Metrics
from crosslens.service.quotas import Quotas
from stand_ins.index_cases import png
from stand_ins.live import JUDGE, Live, items
from stand_ins.patient import Patient

Serve = Callable[..., Live]


def test_a_key_is_required_of_all_that_shows_something(serve: Serve) -> None:
    live = serve(Access(key="s3cret"))
    for path in ("/search?q=boat", "/documents/small/p1", "/documents/small/p1/image", "/service", "/metrics", "/docs"):
        refused = live.client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), path
        assert live.client.get(path, headers={"authorization": "Bearer s3cre"}).status_code == 401
        assert live.client.get(path, headers={"authorization": "Bearer s3cret"}).status_code == 200, path
        assert live.client.get(path, headers={"x-api-key": "s3cret"}).status_code == 200
    for path in ("/", "/healthz", "/readyz"):
        assert live.client.get(path).status_code == 200
    assert live.client.post("/v1/embeddings", json={"input": "a"}).status_code == 401


def test_without_a_key_other_names_of_this_machine_are_refused(serve: Serve) -> None:
    """A page of another site whose name leads here (DNS rebinding) must not read what is served."""
    live = serve(Access(hosts=("localhost", "127.0.0.1")))
    assert live.client.get("/search?q=boat").status_code == 200
    assert live.client.get("/search?q=boat", headers={"host": "localhost:99"}).status_code == 200
    assert live.client.get("/search?q=boat", headers={"host": "evil.example"}).status_code == 403


def test_pages_of_other_origins_search_only_where_they_are_named(serve: Serve) -> None:
    asked = {"origin": "https://a.example"}
    assert "access-control-allow-origin" not in serve().client.get("/search?q=boat", headers=asked).headers
    live = serve(Access(origins=("https://a.example",)))
    assert live.client.get("/search?q=boat", headers=asked).headers["access-control-allow-origin"] == asked["origin"]
    other = live.client.get("/search?q=boat", headers={"origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers
    locked = serve(Access(key="k", origins=("https://a.example",)))
    before = {**asked, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = locked.client.options("/search", headers=before)  # which browsers send without the key
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, asked["origin"])
    assert locked.client.get("/search?q=boat", headers=asked).status_code == 401


def test_every_answer_has_headers_that_browsers_obey(serve: Serve) -> None:
    live = serve()
    for path in ("/", "/search?q=boat", "/nowhere", "/search", "/docs"):
        headers = live.client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert 0 <= float(headers["server-timing"].removeprefix("total;dur=")) < 30_000


def test_more_requests_than_the_limit_are_told_to_come_back(serve: Serve) -> None:
    live = serve(systems=(f"hybrid >> {JUDGE}",), requests=8)
    Patient.held.set()
    with ThreadPoolExecutor(24) as threads:
        waiting = [
            threads.submit(live.client.post, "/search", json={"text": f"boat {n}", "timeout_ms": 3000})
            for n in range(24)
        ]
        time.sleep(1.0)
        assert live.client.get("/healthz").status_code == 200  # however much is under way
        Patient.held.clear()
        answers = [each.result() for each in waiting]
    codes = [each.status_code for each in answers]
    assert set(codes) == {200, 429}
    assert codes.count(200) >= 8
    refused = next(each for each in answers if each.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_bodies_are_refused_before_they_fill_the_memory(serve: Serve) -> None:
    live = serve(body_bytes=2000, picture_bytes=30_000, buffered_bytes=60_000)
    large = {"text": "a " * 1500}
    assert live.client.post("/search", json=large).status_code == 413
    picture = base64.b64encode(png(40) + b"\0" * 25_000).decode()
    assert live.client.post("/search", json={"image": picture}).status_code == 200
    assert live.client.post("/search", json={"image": picture + "A" * 60_000}).status_code == 413
    file = {"image": ("p.png", png(40) + b"\0" * 33_000, "image/png")}
    assert live.client.post("/search", files=file, data={"query": "{}"}).status_code == 413

    def drip() -> object:
        for _ in range(1000):
            yield b" " * 1000

    endless = httpx.post(f"{live.url}/search", content=drip())  # says no length
    assert endless.status_code == 413
    # Several that send slowly are held together within the bound.
    slow = [socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2]))) for _ in range(4)]
    try:
        for each in slow:
            each.sendall(b"POST /search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 30000\r\n\r\n" + b" " * 20_000)
        time.sleep(0.3)
        codes = []
        for each in slow:
            each.settimeout(0.3)
            try:
                codes.append(each.recv(12))
            except TimeoutError:
                codes.append(b"waits")
        assert sorted(codes) == [b"HTTP/1.1 429", b"waits", b"waits", b"waits"]
    finally:
        for each in slow:
            each.close()
    time.sleep(0.2)
    assert live.client.post("/search", json={"image": picture}).status_code == 200  # their bytes are free again


def test_who_is_slow_holds_nothing(serve: Serve) -> None:
    live = serve(timeout_ms=500)
    where = ("127.0.0.1", int(live.url.rpartition(":")[2]))
    head, body, after = (socket.create_connection(where, timeout=20) for _ in range(3))
    started = time.monotonic()
    head.sendall(b"GET /search?q=boat HTTP/1.1\r\nhost: 127.0.0.1\r\n")
    body.sendall(b"POST /search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 300\r\n\r\n{")
    after.sendall(b"POST /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 90000000\r\n\r\n{")
    assert body.recv(12) == b"HTTP/1.1 408"
    assert time.monotonic() - started < 4
    for each in (head, after):  # byte by byte, and yet they are ended
        with pytest.raises(ConnectionError):
            _drip(each, until=started + 20)
    for each in (head, body, after):
        each.close()


def _drip(connection: socket.socket, until: float) -> None:
    while time.monotonic() < until:
        connection.sendall(b"x")
        time.sleep(0.1)


def test_a_request_within_a_request_is_not_answered(serve: Serve) -> None:
    live = serve()
    with socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2])), timeout=10) as connection:
        hidden = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        connection.sendall(
            b"POST /search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\ntransfer-encoding: chunked\r\n\r\n"
            b"0\r\n\r\n" % (5 + len(hidden)) + hidden
        )
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


def test_who_does_not_read_the_answer_holds_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def hang(message: Any) -> None:
        await asyncio.sleep(60)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    gate = Gate(app, Quotas(timeout_ms=50), Metrics())
    asyncio.run(
        asyncio.wait_for(gate({"type": "http", "path": "/x", "method": "GET", "headers": []}, receive, hang), 5)
    )
    assert gate.under_way == 0


def test_errors_of_the_service_say_nothing_of_this_machine(caplog: pytest.LogCaptureFixture) -> None:
    assert hide_paths("/srv/indexes/news.index is unfinished; see 'C:\\data\\x\\y.json'") == (
        "news.index is unfinished; see 'y.json'"
    )
    assert hide_paths("it is 3/4 of offline:e5-small, at https://a.org/b/c") == (
        "it is 3/4 of offline:e5-small, at https://a.org/b/c"
    )
    assert hide_paths("yesno@hf:/srv/models/e5?x=1, file:///srv/a/b") == "yesno@hf:e5?x=1, b"
    status, body, _ = describe_error(RuntimeError("/root/secret.txt is missing"))
    assert (status, body["error"]["type"]) == (500, "server_error")
    assert "secret" not in json.dumps(body)
    assert "secret" in caplog.text


def test_pictures_are_shown_as_they_are_and_small(serve: Serve) -> None:
    live = serve()
    whole = live.client.get("/documents/small/p2/image")
    assert (whole.headers["content-type"], whole.content) == ("image/png", png(80))
    small = live.client.get("/documents/small/p2/thumbnail")
    assert small.headers["content-type"] == "image/webp"
    tagged = {"if-none-match": small.headers["etag"]}
    assert live.client.get("/documents/small/p2/thumbnail", headers=tagged).status_code == 304
    assert live.client.get("/documents/small/t%2F1/image").status_code == 404
    shown = live.client.get("/documents/small/t%2F1").json()
    assert (shown["id"], shown["lang"], shown["image"]) == ("t/1", "rus", None)
    assert live.client.get("/documents/small/..%2F..%2Fetc%2Fpasswd").status_code == 404


def test_documents_are_changed_only_with_the_token_and_found_at_once(serve: Serve) -> None:
    assert serve().client.post("/documents", json={"documents": [{"id": "x", "text": "y"}]}).status_code == 403
    live = serve(Access(token="w"))
    new = {"documents": [{"id": "new/1", "text": "zebra alone", "lang": "eng", "meta": {"n": 7}}]}
    assert live.client.post("/documents", json=new).status_code == 401
    token = {"authorization": "Bearer w"}
    before = live.search(text="zebra")
    assert live.client.post("/documents", json=new, headers=token).json() == {
        "changed": 1, "unchanged": 0, "documents": 37,
    }  # fmt: skip
    after = live.search(text="zebra")
    assert after["hits"][0]["id"] == "new/1"
    assert (after["edition"] != before["edition"], after["cached"]) == (True, False)
    assert live.client.delete("/documents/small/new%2F1").status_code == 401
    assert live.client.delete("/documents/small/new%2F1", headers=token).json()["documents"] == 36
    assert live.client.delete("/documents/small/new%2F1", headers=token).status_code == 404
    assert "new/1" not in [hit["id"] for hit in live.search(text="zebra")["hits"]]
    wrong = live.client.post("/documents", json={"documents": [{"id": "e"}]}, headers=token)
    assert wrong.status_code == 400
    assert "empty" in wrong.json()["error"]["message"]


def test_a_document_whose_id_ends_like_a_route_is_found_where_it_is_said_to_be(serve: Serve) -> None:
    live = serve(Access(token="w"))
    new = {"documents": [{"id": f"a/{word}", "text": f"zebra {word}"} for word in ("image", "thumbnail")]}
    assert live.client.post("/documents", json=new, headers={"x-write-token": "w"}).status_code == 200
    for hit in live.search(text="zebra", mode="lexical")["hits"]:
        assert live.client.get(hit["document"]).json()["id"] == hit["id"]


def test_changes_that_come_together_are_all_made(serve: Serve) -> None:
    live = serve(Access(token="w"))

    def add(number: int) -> int:
        new = {"documents": [{"id": f"new{number}", "text": f"zebra {number}"}]}
        return live.client.post("/documents", json=new, headers={"x-write-token": "w"}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(add, range(8))) == {200}
    assert live.search(text="zebra", mode="lexical")["total"] == 8


def test_searches_go_on_while_documents_are_added(serve: Serve) -> None:
    live = serve(Access(token="w"))
    over = threading.Event()
    codes: list[int] = []

    def ask() -> None:
        number = 0
        while not over.is_set():
            number += 1
            codes.append(live.client.get(f"/search?q=boat {number}&k=3").status_code)

    asker = threading.Thread(target=ask)
    asker.start()
    for part in range(3):
        documents = [{"id": f"n{part}-{n}", "text": f"boat {n} of part {part}"} for n in range(40)]
        headers = {"x-write-token": "w"}
        assert live.client.post("/documents", json={"documents": documents}, headers=headers).status_code == 200
    over.set()
    asker.join()
    assert set(codes) == {200}


def test_the_interface_and_the_numbers_are_there(live: Live) -> None:
    live.search(text="boat")
    numbers = live.client.get("/metrics").text
    for name in ("requests_total", "stage_seconds_bucket", "batch_jobs_sum", "jobs_waiting", "tokens_total"):
        assert f"crosslens_{name}" in numbers
    page = live.client.get("/docs").text
    assert "<script" not in page
    assert "POST /search" in page
    schemas = live.client.get("/openapi.json").json()["components"]["schemas"]
    assert "timeout_ms" in schemas["SearchRequest"]["properties"]
    about = live.client.get("/service").json()
    assert about["indexes"][0]["documents"] == 36
    assert [each["name"] for each in about["systems"]] == ["default", "plain"]


def test_an_index_whose_last_document_goes_finds_nothing(serve: Serve) -> None:
    live = serve(Access(token="w"), systems=(f"hybrid >> {JUDGE}",))
    for item in items():
        where = f"/documents/small/{quote(item.id, safe='')}"
        assert live.client.delete(where, headers={"x-write-token": "w"}).status_code == 200
    for mode in ("hybrid", "lexical", "dense"):
        found = live.search(text="boat", mode=mode, explain=True, facets=True)
        assert (found["total"], found["hits"], found["reranked"]) == (0, [], False)
    assert live.client.get("/readyz").status_code == live.client.get("/service").status_code == 200


def test_models_have_worked_before_the_first_request(serve: Serve) -> None:
    before = Patient.asked
    live = serve(systems=(f"dense >> {JUDGE}", "words=lexical"))  # which reads no pictures, and is served all the same
    assert Patient.asked > before
    assert live.search(text="boat", system="words")["hits"]
