"""What the kinds of index are measured against."""

from __future__ import annotations

import pytest
from crosslens.indexes.base import Index
from stand_ins.given_vectors import filled, opened


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The same documents in a flat index."""
    path = tmp_path_factory.mktemp("flat") / "index"
    filled("flat", path)
    return opened(path)
