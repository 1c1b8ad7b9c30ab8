"""Tiny translators, built once a module."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny.translators import KINDS


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made: dict[str, Path] = {}

    def at(kind: str) -> Path:
        if kind not in made:
            made[kind] = KINDS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return at


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param
