"""Pictures that are made when they are looked at, such as the pages of a PDF file."""

from __future__ import annotations

from collections.abc import Callable


class Drawing:
    """A picture that `draw` makes, as encoded bytes, when it is first needed, and that is kept then.

    `key` stands for what it shows: equal keys mean equal pictures. `draw` may raise `InputError`; it is called from
    several threads.
    """

    __slots__ = ("_draw", "_drawn", "key")

    def __init__(self, key: str, draw: Callable[[], bytes]) -> None:
        self.key = key
        self._draw = draw
        self._drawn: bytes | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drawing) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def read(self) -> bytes:
        """The encoded picture; `InputError` if it cannot be made."""
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn
