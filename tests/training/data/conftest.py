"""A small collection in three languages, and how a command line makes queries of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins.query_writer import make_documents, write_collection


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "source", make_documents())
