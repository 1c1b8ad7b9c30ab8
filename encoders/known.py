"""What is known of well-known checkpoints, by parts of their names, where their own files do not say it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

KNOWN_CHECKPOINTS: Mapping[str, Any] = tomllib.loads(files(__package__).joinpath("known.toml").read_text("utf-8"))
