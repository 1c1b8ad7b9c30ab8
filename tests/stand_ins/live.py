"""A service that runs, over a small index: texts and pictures, and a judge that can be made to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.service.application import Access, make_app
from crosslens.service.connections import Connection
from crosslens.service.engine import Engine

from .index_cases import png
from .patient import Patient

JUDGE = "yesno@py:stand_ins.patient:Patient?depth=20&alpha=0.5"
ENCODER = "py:stand_ins.away:Pictures"


def items() -> list[Item]:
    """Thirty texts in three languages, and six pictures with captions or without."""
    words = ["apple", "boat", "cloud", "door", "elephant"]
    langs = ["eng", "rus", "ara"]
    texts = [
        Item(f"t/{n}", f"{words[n % 5]} number {n} " + "and more words " * (n % 4), lang=langs[n % 3], meta={"n": n})
        for n in range(30)
    ]
    return [*texts, *(Item(f"p{n}", f"{words[n % 5]} picture" if n % 2 else None, png(40 * n)) for n in range(6))]


def fill(where: Path) -> Path:
    """A finished index of `items` at `where`."""
    encoder = load_encoder(ENCODER)
    index = create_index(where)
    index.add(items(), encoder)
    index.build("none")
    return where


@dataclass
class Live:
    """A service that runs: its address, its engine, and a client of it."""

    url: str
    engine: Engine
    client: httpx.Client

    def search(self, status: int = 200, **asked: Any) -> dict[str, Any]:
        """The answer to a search."""
        answer = self.client.post("/search", json=asked)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def run_live(engine: Engine, access: Access = Access(hosts=("127.0.0.1",))) -> Iterator[Live]:  # noqa: B008
    """The application of an engine on a port of its own, as uvicorn runs it."""
    config = uvicorn.Config(make_app(engine, access), port=0, http=Connection, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Live(url, engine, client)
    finally:
        Patient.held.clear()
        server.should_exit = True
        thread.join(15)
