"""`crosslens search --server`: what a search here would show, and one clear line for whatever goes wrong there."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from crosslens.errors import CrosslensError, InputError
from crosslens.service.application import Access
from crosslens.service.client import name_served, search_service
from stand_ins.index_cases import png
from stand_ins.live import fill
from stand_ins.table import table


@pytest.fixture(scope="module")
def served_index(tmp_path_factory):
    """The index that `live` serves, made again."""
    return fill(tmp_path_factory.mktemp("here") / "small.index")


ANSWER = {"hits": [], "query": {"lang": None}, "manifest": []}


@contextmanager
def answering(status: int, body: bytes, **headers: str):
    """A server that gives every request one answer; yields its address and the paths that it was asked for."""
    paths = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            paths.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", paths
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "asked",
    [
        ["boat number", "--lang", "russian", "--where", "modality=text"],
        ["boat", "--mode", "lexical", "--explain"],
        ["picture", "-k", "4", "--exact", "--query-lang", "eng"],
        ["zzz", "--mode", "lexical"],
    ],
)
def test_a_service_gives_what_a_search_here_gives(crosslens, live, served_index, asked):
    shown = []
    for where in ([], ["--server", live.url + "/"]):
        status, out, err = crosslens("search", served_index, *asked, "--json", *where)
        assert status == 0, err
        found = json.loads(out)
        for stage in found["stages"]:
            del stage["seconds"], stage["fingerprint"]  # a service searches deeper, for further pages
        for hit in found["hits"]:
            if image := hit.pop("image"):
                assert image == (f"{live.url}/documents/small/{hit['id']}/image" if where else "(stored image)")
                hit["text"] = hit["text"].partition("[")[0]
        shown.append(found)
    assert shown[0] == shown[1]
    assert all("meta" in hit for hit in shown[0]["hits"])
    assert len(shown[0]["hits"]) == (0 if asked[0] == "zzz" else 4 if "-k" in asked else 10 if "--lang" in asked else 7)


def test_pictures_are_sent_and_text_is_shown_alike(crosslens, live, served_index, tmp_path):
    (tmp_path / "query.png").write_bytes(png(40))
    image = base64.b64encode(png(40)).decode()
    expected = live.search(text="door", image=image, mode="hybrid", rerank=False, k=4)
    asked = ["--image", tmp_path / "query.png", "-k", 4, "--server", live.url]
    status, out, err = crosslens("search", served_index, "door", *asked, "--json")
    assert (status, err) == (0, "")
    found = [(hit["id"], hit["score"]) for hit in json.loads(out)["hits"]]
    assert found == [(hit["id"], hit["score"]) for hit in expected["hits"]]
    here, there = (
        crosslens("search", served_index, "boat", "--mode", "lexical", *where) for where in ([], ["--server", live.url])
    )
    assert here == there
    assert "boat number 1" in here[1]


def test_what_a_service_does_not_take_is_refused_before_it_is_asked(crosslens, monkeypatch):
    monkeypatch.setenv("CROSSLENS_SERVER", "http://127.0.0.1:1")
    for option in (["--no-correction"], ["--exclude", "self"], ["--device", "cpu"], ["--rerank", "setwise@hf:x"]):
        status, out, err = crosslens("search", "x.index", "cat", *option)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert option[0] in err
    status, _, err = crosslens("search", "x.index", "cat")
    assert status == 1
    assert "cannot be asked (Connection refused)" in err


def test_keys_and_names(serve, monkeypatch, crosslens):
    served = serve(Access(key="secret", hosts=("127.0.0.1",)))
    monkeypatch.setenv("CROSSLENS_SERVER", served.url)
    monkeypatch.delenv("CROSSLENS_API_KEY", raising=False)
    assert "wants its key" in crosslens("search", "small", "boat")[2]
    monkeypatch.setenv("CROSSLENS_API_KEY", "wrong")
    assert crosslens("search", "small", "boat")[0] == 2
    monkeypatch.setenv("CROSSLENS_API_KEY", "secret")
    assert crosslens("search", "some/where/small.index/", "boat")[0] == 0
    status, _, err = crosslens("search", "large.index", "boat")
    assert status == 2
    assert "no index 'large' here, only small" in err
    monkeypatch.setenv("CROSSLENS_API_KEY", "a\nb")
    assert "no header" in crosslens("search", "small", "boat")[2]
    assert name_served("s3://bucket/papers.index/") == "papers"


@table(
    ("status", "body", "headers", "kind", "part"),
    [
        (429, b"{}", {"Retry_After": "7"}, CrosslensError, "try again in 7 s"),
        (503, b'{"error": {"message": "the service is starting"}}', {}, CrosslensError, "the service is starting"),
        (400, b'{"error": {"message": "k: \\u001b[31m"}}', {}, InputError, "\\x1b[31m"),
        (500, b"<h1>oops</h1>", {}, CrosslensError, "status 500, not as a crosslens service"),
        (302, b"", {"Location": "http://elsewhere/"}, InputError, "http://elsewhere/, which is not followed"),
        (200, b"<html>", {}, CrosslensError, "is this its address?"),
        (200, b"[" * 100_000, {}, CrosslensError, "is this its address?"),
        (200, b'{"results": []}', {}, CrosslensError, "not as a crosslens service of this version"),
    ],
)
def test_answers_that_are_none(status, body, headers, kind, part):
    with answering(status, body, **headers) as (url, _), pytest.raises(CrosslensError) as caught:
        search_service(url, {"text": "cat"})
    assert type(caught.value) is kind
    assert part in str(caught.value)


def test_addresses(crosslens):
    with answering(200, json.dumps(ANSWER).encode()) as (url, paths):
        assert search_service(url + "/under/here/", {"text": "cat", "lang": None}) == ANSWER
        assert paths == ["/under/here/search"]
        status, out, err = crosslens("search", "x", "cat", "--server", url)
        assert (status, out, err) == (0, "", "no document matches\n")
        with pytest.raises(CrosslensError, match="cannot be asked"):
            search_service(url.replace("http:", "https:"), {})
    for wrong in (
        "localhost:8000",
        "ftp://a",
        "http://",
        "http://a:b",
        "http://[::1",
        "http://a b/",
        "http://a/?x=1",
        "http://é",
    ):
        with pytest.raises(InputError, match="no address of a service"):
            search_service(wrong, {})
    with pytest.raises(InputError, match="CROSSLENS_API_KEY"):
        search_service("http://me:secret@localhost", {})


def test_a_service_that_is_silent_is_not_waited_for():
    silent = socket.create_server(("::1", 0), family=socket.AF_INET6)
    with silent, pytest.raises(CrosslensError, match="does not answer within 0.2 seconds"):
        search_service(f"http://[::1]:{silent.getsockname()[1]}", {}, timeout=0.2)


def test_asking_a_service_imports_no_library():
    with answering(200, json.dumps(ANSWER).encode()) as (url, _):
        script = "import sys; from crosslens.commands.app import main\ntry: main()\nfinally: print(*sys.modules)"
        arguments = ["search", "x", "cat", "--server", url]
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "lancedb", "pyarrow", "transformers", "numpy"}
