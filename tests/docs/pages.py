"""The pages of the documentation as the tests read them: their fenced blocks, and the commands in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = "# Not run by the tests:"  # first line of an example, followed by the reason
FENCE = re.compile(r"(?P<run><!-- run -->\n)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it shows (`title=`), whether its commands are run, its line."""

    language: str
    title: str
    text: str
    run: bool
    line: int


def name_page(page: Path) -> str:
    """A page relative to the repository, as tests are called after it."""
    return page.relative_to(ROOT).as_posix()


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text("utf-8")
    blocks = []
    for found in FENCE.finditer(text):
        language, _, rest = found["info"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        line = text[: found.start("text")].count("\n") + 1
        blocks.append(Block(language, title[1] if title else "", found["text"], bool(found["run"]), line))
    return blocks


def read_commands(block: Block) -> Iterator[list[str]]:
    """The arguments of each `crosslens` command in a block of shell."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["crosslens"]:
            yield words[1:]
