"""docs/your-data.md: every command and every Python example is run, one after the other, on files that are made here.

A toy encoder stands for the real ones, which would take minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from crosslens.systems import search
from stand_ins.archives import write_tar
from stand_ins.pdf_files import make_pdf
from stand_ins.small_collections import picture

from .pages import ROOT, read_blocks, read_commands

PAGE = ROOT / "docs" / "your-data.md"
ENCODER = "py:stand_ins.away:Pictures"


def make_files(root: Path) -> None:
    """What the page has lying about."""
    files = {
        "photos/animals/cat.jpg": picture(),
        "photos/animals/cat.txt": "a cat on the sofa",
        "photos/house.png": picture("blue", "PNG"),
        "photos/list.docx": "x",
        "notes/cats.md": "# Katzen\n\nKatzen schlafen zwölf bis sechzehn Stunden am Tag.",
        "notes/page.html": "<html lang=ru><title>Кошки</title><p>Кошки спят до шестнадцати часов в сутки.",
        "articles.csv": "id,title,text,year\n1,Cats,They sleep all day.,2020\n2,Trains,They run at night.,2021\n",
        "reports.csv": "number,headline,body,year\n1,Cats,They sleep all day.,2020\n2,Trains,They run at night.,2021\n",
        "papers/manual.pdf": make_pdf("How to calibrate the sensor", "", title="The manual"),
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    write_tar(root / "shards/00000.tar", ("0.jpg", picture()), ("0.txt", b"a cat"), ("0.json", b'{"url": "x"}'))


def test_every_command_and_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crosslens: Callable[..., tuple[int, str, str]]
) -> None:
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "choose_encoders", lambda pictures: [ENCODER])
    names: dict[str, object] = {}
    for block in read_blocks(PAGE):
        text = block.text.replace("offline:e5-small", ENCODER)
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + text, str(PAGE), "exec"), names)
            continue
        assert block.language == "sh", f"{PAGE}:{block.line}: not run"
        lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        commands = list(read_commands(block))
        assert len(commands) == len(lines), f"{PAGE}:{block.line}: a line that is no command of crosslens"
        for arguments in commands:
            status, out, err = crosslens(*(each.replace("offline:e5-small", ENCODER) for each in arguments))
            assert status == 0, f"{PAGE}:{block.line}: {arguments}: {err}"
            assert out, arguments
            if arguments[:2] == ["index", "photos"]:
                assert "skipped 1 file of other types: .docx 1" in err
