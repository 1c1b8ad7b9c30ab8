"""The small collections of the contract suite, for tests of what is a kind's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.multilingual.collections.directory import Directory
from crosslens.multilingual.collections.registry import load_collection
from stand_ins.small_collections import CASES, put


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The directory of the case that the module names as `CASE`."""
    CASES[request.module.CASE](tmp_path)
    return tmp_path


@pytest.fixture
def refused() -> Callable[..., None]:
    """Asserts that `ask` of a collection, or loading it, is an error of one line that holds the parts."""

    def check(name: str, *parts: str, ask: Callable[[Any], object] = lambda collection: collection.check()) -> None:
        with pytest.raises(InputError) as error:
            ask(load_collection(name))
        assert "\n" not in str(error.value)
        for part in parts:
            assert part in str(error.value)

    return check


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Directory]:
    """A directory from the contents of its files: bytes, text, or records, which become JSON lines."""

    def write(
        docs: object = ({"id": "d1", "text": "a text"},), topics: object = None, qrels: str | None = None,
        **options: bool,
    ) -> Directory:  # fmt: skip
        for name, content in (("docs.jsonl", docs), ("topics.jsonl", topics), ("qrels.txt", qrels)):
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            elif isinstance(content, str):
                (tmp_path / name).write_text(content, "utf-8")
            elif content is not None:
                put(tmp_path / name, *content)  # type: ignore[misc]
        return Directory(tmp_path, **options)

    return write
