"""Shapes of other services."""

from typing import Any


def add_standard_routes(app: Any, engine: Any) -> None:
    """None yet."""
