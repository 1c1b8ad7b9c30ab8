"""files.py: what is read line by line, what appears only when complete, and directories of one writer at a time."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from crosslens import files
from crosslens.errors import InputError
from crosslens.files import (
    hash_file,
    is_stream,
    lock_directory,
    open_to_append,
    parse_json,
    parse_toml,
    place_atomically,
    read_bytes,
    read_json,
    read_lines,
    read_text,
    write_atomically,
    write_json,
)
from hypothesis import given
from hypothesis import strategies as st
from stand_ins.table import table


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


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 10)
    path = tmp_path / "lines.gz"
    with gzip.open(path, "wb") as out:
        out.write(b"a" * 9 + b"\n" + b"b" * 10 + b"\n" + b"c" * 10)
    lines = read_lines(path)
    assert next(lines) == "a" * 9 + "\n"
    with pytest.raises(InputError, match=r"lines\.gz:2: a line of more than"):
        next(lines)


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


def make_special(kind, path):
    """Something that is no regular file, and what errors call it."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
        return "a directory"
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(path))
    elif kind == "loop":
        path.symlink_to(path.name)
        return "symbolic links"
    elif kind == "dangling":
        path.symlink_to("nowhere")
        return "No such file"
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "linked pipe":
        os.mkfifo(path.with_name("real"))
        path.symlink_to("real")
        return "a pipe"
    return f"a {kind}"


@table("kind", ["pipe", "linked pipe", "folder", "socket", "loop", "dangling", "device"])
def test_what_is_no_regular_file_is_not_read(tmp_path, kind):
    path = tmp_path / "odd"
    name = make_special(kind, path)
    for read in (read_bytes, read_text, hash_file, lambda path: list(read_lines(path))):
        with pytest.raises(InputError, match=f"cannot read .*odd: .*{name}"):
            read(path)
    packed = tmp_path / "odd.gz"
    packed.symlink_to(path.name)
    with pytest.raises(InputError, match="cannot read"):
        list(read_lines(packed))


def test_a_name_that_no_file_can_have_is_not_read(tmp_path):
    for name in ("x" * 300, "a\0b", "\ud800"):
        with pytest.raises(InputError, match="cannot read"):
            read_text(tmp_path / name)


def test_links_are_written_through(tmp_path):
    (tmp_path / "far").mkdir()
    target, link, second = tmp_path / "far" / "target", tmp_path / "link", tmp_path / "second"
    link.symlink_to("far/target")
    second.symlink_to("link")
    for content, path in (("made", link), ("old", target), ("new", second)):  # the link dangles at first
        with write_atomically(path) as out:
            out.write(content)
        assert target.read_text() == content
    assert os.readlink(link) == "far/target"
    assert os.readlink(second) == "link"
    assert [each.name for each in (tmp_path / "far").iterdir()] == ["target"]
    fail = pytest.raises(ZeroDivisionError)
    with fail, write_atomically(link) as out:
        out.write("half" * (1 // 0))
    assert target.read_text() == "new"


@pytest.mark.parametrize("kind", ["folder", "socket", "loop"])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, kind):
    path = tmp_path / "odd"
    make_special(kind, path)
    before = path.lstat()
    with pytest.raises(InputError, match="cannot write .*odd"):
        write_json(path, {})
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["odd"]


def test_a_pipe_gets_what_is_written(tmp_path):
    path, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(path)
    link.symlink_to(path)
    found = []
    for place in (path, link):
        assert is_stream(place)
        reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
        reader.start()
        with write_atomically(place) as out:
            out.write("all of it\n")
        reader.join(10)
        assert found.pop() == b"all of it\n"
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert link.is_symlink()
    assert {each.name for each in tmp_path.iterdir()} == {"pipe", "link"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_one(tmp_path):
    path, disk = tmp_path / "null", tmp_path / "disk"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(disk, 0o666 | stat.S_IFBLK, os.makedev(7, 200))
    except PermissionError:
        pytest.skip("no devices can be made here")
    write_json(path, {})
    assert stat.S_ISCHR(path.lstat().st_mode)
    with pytest.raises(InputError, match="cannot write .*disk: a device"):
        write_json(disk, {})
    assert stat.S_ISBLK(disk.lstat().st_mode)
    assert {each.name for each in tmp_path.iterdir()} == {"null", "disk"}


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_descriptor_is_written_to_where_it_stands(tmp_path, name):
    script = f"import os; from crosslens.files import write_json; os.write(1, b'before '); write_json({name!r}, 7)"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
        out.write(b" after")
    assert (tmp_path / "out").read_text() == "before 7 after"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert found == b"before 7"


def test_partial_files_have_names_that_nobody_can_foresee(tmp_path):
    names = set()
    for _ in range(2):
        with place_atomically(tmp_path / "out") as partial:
            names.add(partial.name)
            assert partial.parent == tmp_path
    assert len(names) == 2
    assert not any(str(os.getpid()) in name.split(".") for name in names)
    # A name as long as names can be has room for none beside it.
    with write_atomically(tmp_path / ("x" * 255)) as out:
        out.write("x")


@pytest.mark.parametrize("name", ["out", "x" * 255, "[o]ut."])
def test_what_a_killed_writer_left_goes_with_the_next_write_and_nothing_else(tmp_path, name):
    script = """
import sys
from crosslens.files import place_atomically
with place_atomically(sys.argv[1]) as partial:
    partial.write_bytes(b"half")
    print(partial, flush=True)
    sys.stdin.read()
"""
    path = tmp_path / name
    command = [sys.executable, "-c", script, str(path)]
    two = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    killed, writing = (Path(each.stdout.readline().decode().strip()) for each in two)
    two[0].kill()
    two[0].communicate()
    others = [
        tmp_path / f".{name[:50]}.partial",
        tmp_path / f".other.{'0' * 16}.partial",
        tmp_path / ".out.abc.partial",
    ]
    link = tmp_path / f".{name[:50]}.{'0' * 16}.partial"
    link.symlink_to(others[1])
    for each in others:
        each.touch()
    assert killed.read_bytes() == b"half"
    write_json(path, 1)
    assert set(tmp_path.iterdir()) == {path, writing, link, *others}
    two[1].communicate()
    assert two[1].returncode == 0
    assert path.read_bytes() == b"half"


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_umask_alone_says_who_may_read(tmp_path, mask):
    before = os.umask(mask)
    try:
        with place_atomically(tmp_path / "out") as partial:
            partial.unlink()
            partial.touch(0o600)  # as some libraries write
        with open_to_append(tmp_path / "journal") as file:
            file.write(b"x")
        with lock_directory(tmp_path):
            pass
    finally:
        os.umask(before)
    for name in ("out", "journal", ".lock"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask, name


def test_what_grows_is_a_regular_file_and_no_link(tmp_path):
    kept = tmp_path / "kept"
    for content in (b"a", b"b"):
        with open_to_append(kept) as file:
            file.write(content)
    assert kept.read_bytes() == b"ab"
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with pytest.raises(OSError, match=r"symbolic links|directory|regular file|No such device"):
            open_to_append(tmp_path / name)
    assert kept.read_bytes() == b"ab"


@table(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper than 100 levels"),
        ("[" * 101 + "]" * 101, "nested deeper than 100 levels"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested deeper than 100 levels"),
        ("1" * 5000, "4300 digits"),
        ('{"id": 1, "text": "x", "id": 2}', "the key 'id' is given twice"),
        ('{"n": 1e400}', "the number '1e400' is too large"),
        (r'["\ud800"]', "half of a surrogate pair"),
        (b'"caf\xe9"', "not UTF-8 text"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 text"),
        ('{"a": 1}'.encode("utf-16-le"), "malformed JSON"),
        ('\ufeff{"a": 1}', "malformed JSON"),
        ('{"a": "\x00"}', "Invalid control character at column 8"),
        ('{"a": 1}\n{"a": 2}', "Extra data at line 2, column 1"),
        ('{"a": 1_000}', "malformed JSON"),
        ('{"a": \uff11}', "malformed JSON"),
        ('{"a": +5}', "malformed JSON"),
        ('{"a": 0x10}', "malformed JSON"),
        ("", "malformed JSON"),
    ],
)
def test_json_is_read_exactly_or_refused(text, said):
    with pytest.raises(InputError, match=re.escape(said)):
        parse_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_what_python_writes_as_json_is_read_as_it_was(value):
    for plain in (True, False):
        text = json.dumps(value, ensure_ascii=plain)
        assert parse_json(text) == value
        assert parse_json(text.encode()) == value
    deepest = json.dumps(value)
    assert parse_json("[" * 80 + deepest + "]" * 80) is not None


@table(
    ("text", "said"),
    [
        ("a = " + "1" * 5000, "not TOML: Exceeds the limit"),
        ("a = " + "[" * 5000, "nested deeper"),
        ("a = " + "[" * 150 + "]" * 150, "nested deeper"),
        ("[" + "a." * 5000 + "b]", "nested deeper"),
        ("a = 1\na = 2", "a name is given twice"),
        ("a: 1", "not TOML"),
    ],
)
def test_toml_is_read_or_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse_toml(text)
    assert parse_toml("a = 1_000\n[b]\nc = [[1]]") == {"a": 1000, "b": {"c": [[1]]}}


def test_a_json_file_is_named_where_it_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"^cannot read .*none\.json: No such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"bad\.json: it is nested"):
        read_json(tmp_path / "bad.json")
