"""A hub that does not answer is found out at once, and what is in its cache is used then."""

from __future__ import annotations

import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from crosslens.checkpoints import hub, source
from crosslens.errors import InputError
from huggingface_hub import constants
from stand_ins.table import table


@pytest.fixture
def asked(monkeypatch):
    """A hub of this test's own, which nobody has switched off, at an address that the test is to set."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PATIENCE", 0.4)
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    own = hub.Hub()
    monkeypatch.setattr(source, "HUB", own)
    return lambda port: monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}") or own


@pytest.mark.parametrize("listens", [False, True], ids=["closed", "silent"])
def test_a_model_of_a_hub_that_does_not_answer(asked, listens, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if listens:
            listener.listen()
        own = asked(listener.getsockname()[1])
        started = time.monotonic()
        for name in ("intfloat/nothing", "another/one"):
            with pytest.raises(InputError, match=f"cannot load {name}: .*127.0.0.1.* does not answer"):
                source.Source(name).load_config()
        assert time.monotonic() - started < 3
        assert constants.HF_HUB_OFFLINE
        # What has come from there before is looked for in the cache, without a question to anybody.
        (tmp_path / "models--intfloat--nothing" / "snapshots").mkdir(parents=True)
        assert source.Source("intfloat/nothing").find("config.json") is None
        assert not own.answers()


def test_a_hub_that_comes_back_is_asked_again(asked, monkeypatch):
    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *said):
            pass

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        own = asked(listener.getsockname()[1])
        assert not own.answers()
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        asked(server.server_port)
        assert not own.answers()  # remembered for a minute
        monkeypatch.setattr(hub, "REMEMBERED", -1.0)
        assert own.answers()
        assert not constants.HF_HUB_OFFLINE
        server.shutdown()


@table("name", ["./x", "~/x", "/x/y", "a/b/c", "models/", "a\\b", "a--b"])
def test_a_path_never_goes_to_the_hub(name, monkeypatch):
    monkeypatch.setattr(source.HUB, "answers", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match="there is no directory"):
        source.Source(name).find("config.json")


def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "get_session", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        source.Source("intfloat/nothing").load_config()
