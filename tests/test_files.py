"""files.py: what is read line by line, what appears only when complete, and directories of one writer at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest
from crosslens.errors import InputError
from crosslens.files import lock_directory, place_atomically, read_lines, write_atomically


def test_lines_are_those_of_a_utf8_file_without_its_byte_order_mark(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes("\ufeffone\n\ufefftwo\nthree".encode())
    assert list(read_lines(path)) == ["one\n", "\ufefftwo\n", "three"]
    path.write_bytes(b"fine\n\xff\n")
    with pytest.raises(InputError, match=r"lines:2: not UTF-8 text"):
        list(read_lines(path))
    for nothing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            list(read_lines(nothing))


def fail_halfway(path):
    with place_atomically(path) as partial:
        partial.write_bytes(b"half")
        raise ZeroDivisionError


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), write_atomically(path) as out:
        out.write("half" * (1 // 0))
    assert path.read_text() == "old"
    with write_atomically(path) as out:
        out.write("new\n")
        assert path.read_text() == "old"
    assert path.read_bytes() == b"new\n"
    with pytest.raises(ZeroDivisionError):
        fail_halfway(path)
    assert path.read_bytes() == b"new\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "below", tmp_path / "no" / "folder", tmp_path):
        with pytest.raises(InputError, match="cannot write"), write_atomically(path) as out:
            out.write("x")
    with pytest.raises(InputError, match="cannot write"), place_atomically(tmp_path / "never"):
        pass  # nothing was put there
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_one_process_at_a_time_writes_to_a_directory(tmp_path):
    script = (
        "import sys; from pathlib import Path; from crosslens.files import lock_directory;"
        "lock = lock_directory(Path(sys.argv[1])); lock.__enter__(); print('mine', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(InputError, match="another process is writing to"), lock_directory(tmp_path):
            pass
        other.kill()  # the system takes the lock back
        other.wait()
        with lock_directory(tmp_path):
            pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write to"), lock_directory(tmp_path / "file"):
        pass
