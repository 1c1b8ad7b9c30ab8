"""Debian's package descriptions as its Translation files have them, one stanza a description (DDTP)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crosslens.errors import InputError

FIELD = re.compile(r"Description-(?!md5:)[\w@.-]+: ?(.*)")
# Chinese and Japanese are written without spaces: where such a line was wrapped, there was none.
UNSPACED = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef"
UNWRAPPED = re.compile(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])")
MARK = re.compile(r"[-–—*+o•·‣] |\d+[.)] ")
WRAPPED_TEXT = -1


@dataclass(frozen=True)
class Description:
    """A description; `md5` is of its English original, `package` one that has it, an entry of a list is a paragraph."""

    md5: str
    package: str
    title: str
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """What stands below the first line, one paragraph a line."""
        return "\n".join(self.paragraphs)


def read_descriptions(lines: Iterable[str], name: str) -> Iterator[Description]:
    """The descriptions of a Translation file in its order; `InputError` with `name` and line on another format."""
    package = md5 = ""
    title: str | None = None
    body: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        line = line.rstrip("\r\n")
        if not line:  # a line of nothing but spaces parts paragraphs
            if md5 and title is not None:
                yield Description(md5, package, title, tuple(paragraphs(body)))
            package, md5, title = "", "", None
            body.clear()
        elif line[0] in " \t" and title is not None:
            body.append(line)
        elif line.startswith("Package: "):
            package = line.removeprefix("Package: ")
        elif line.startswith("Description-md5: "):
            md5 = line.removeprefix("Description-md5: ").strip()
        elif match := FIELD.fullmatch(line):
            title = " ".join(match[1].split())
        else:
            raise InputError(f"{name}:{number}: not a line of a Translation file: {line[:80]!r}")


def paragraphs(body: Iterable[str]) -> list[str]:
    """The paragraphs of the lines below the first: joined where they were wrapped.

    After Debian Policy 5.6.13: ` .` parts paragraphs, lines with one space are wrapped text, with more verbatim;
    among those an entry of a list begins with its mark, and what is indented deeper goes on with it.
    """
    found: list[str] = []
    depth: int | None = None  # indentation of the entry that the next line may go on with; None: nothing is open
    for line in body:
        text = " ".join(line.split())
        if text in ("", "."):
            depth = None
            continue
        indent = len(line) - len(line.lstrip(" \t")) - 1
        marked = MARK.match(text)
        if depth is None or marked:
            goes_on = False
        elif depth == WRAPPED_TEXT:
            goes_on = indent == 0
        else:
            goes_on = indent > depth or indent == depth == 0
        if goes_on:
            found[-1] = UNWRAPPED.sub("", f"{found[-1]} {text}")
        else:
            found.append(text)
            depth = indent if marked else WRAPPED_TEXT if indent == 0 else None
    return found
