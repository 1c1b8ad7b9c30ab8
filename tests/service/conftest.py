"""Services for tests: one for all that change nothing, and others with limits and access of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from crosslens.indexes.registry import open_index
from crosslens.service.application import Access
from crosslens.service.engine import Engine
from crosslens.service.quotas import Quotas
from stand_ins.live import JUDGE, Live, fill, run_live


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Makes a service over an index of `live.items`, with limits and access of its own."""
    with ExitStack() as running:

        def start(access: Access = Access(), systems: tuple[str, ...] = ("hybrid",), **limits: int) -> Live:  # noqa: B008
            index = open_index(fill(tmp_path / "small.index"))
            engine = Engine.load({"small": index}, systems, limits=Quotas(**limits))
            return running.enter_context(run_live(engine, access))

        yield start


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One service for all tests that change nothing: `default` reranks with a judge, `plain` is dense search."""
    index = open_index(fill(tmp_path_factory.mktemp("served") / "small.index"))
    engine = Engine.load({"small": index}, (f"hybrid >> {JUDGE}", "plain=dense"))
    with run_live(engine) as running:
        yield running
