"""The stand-in server for the tests of judges over HTTP."""

from __future__ import annotations

import pytest
from crosslens.multilingual.judges.openai import OpenAIJudge
from stand_ins.http_server import KEY, Served


@pytest.fixture
def serve(monkeypatch):
    """Start a personality; returns it, and a judge that asks it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    running = []

    def start(answer, **options):
        running.append(Served(answer))
        options = {"retries": 0, "timeout": 5} | options
        return running[-1], OpenAIJudge("judge", url=running[-1].url, **options)

    yield start
    for each in running:
        each.server.shutdown()
        each.server.server_close()
