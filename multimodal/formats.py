"""How families of vision-language embedders word their inputs: prompts, instructions, end tokens, limits."""

from __future__ import annotations

import logging
import tomllib
import unicodedata
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from ..errors import check_known
from ..media.images import MAX_PIXELS

log = logging.getLogger("crosslens")
Name = Literal["auto", "dse", "mcdse", "gme", "qwen3-vl", "omniembed", "plain"]


@dataclass(frozen=True)
class InputFormat:
    """How a family words an input, within its processor's chat template: a user's turn with the picture, then text.

    `query` and `document` hold the text at {}; `picture` is said of a picture alone. An instruction for queries takes
    the place of `system`, or opens the text if `instruct` is `text`. `opened`: the template opens the assistant's
    turn. `sentence`: instructions end with punctuation. `end` comes last; the vector is read off the last token.
    `blank`: texts alone come with a black picture of so many pixels a side. `text_first`: the picture after the text.
    Smaller pictures are enlarged to `min_pixels` (0: as the processor has it). `max_pixels`, `max_tokens` as trained.
    """

    query: str = "{}"
    document: str = "{}"
    picture: str = ""
    system: str = ""
    instruct: Literal["system", "text"] = "text"
    sentence: bool = False
    opened: bool = True
    end: str = ""
    blank: int = 0
    text_first: bool = False
    min_pixels: int = 0
    max_pixels: int = MAX_PIXELS
    max_tokens: int = 8192

    def instruction(self, instruct: str) -> str:
        """An instruction for queries as it is written into the input."""
        instruct = instruct.strip()
        if self.sentence and instruct and not unicodedata.category(instruct[-1]).startswith("P"):
            return f"{instruct}."
        return instruct


_TABLES = tomllib.loads(files(__package__).joinpath("formats.toml").read_text("utf-8"))
# Parts of checkpoints' names, and the format.
FORMATS = {name: (tuple(table.pop("names")), InputFormat(**table)) for name, table in _TABLES.items()}


def find_format(checkpoint: str, adapter: str | None, asked: str) -> InputFormat:
    """The format of that name, or for `auto` that of the family that the checkpoint's (or adapter's) name shows.

    A name that shows none is warned of, and its input is the plain chat template. `InputError` for an unknown format.
    """
    if asked != "auto":
        check_known(asked, FORMATS, "format of vlm")
        return FORMATS[asked][1]
    named = f"{adapter or ''} {checkpoint}".lower()
    for words, format in FORMATS.values():
        if any(word in named for word in words):
            return format
    known = ", ".join(FORMATS)
    log.warning(
        "%s is of no family known to vlm: its input is the plain chat template; set ?format= (%s)", checkpoint, known
    )
    return FORMATS["plain"][1]
