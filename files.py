"""Files: what is read is a regular file, what is written appears whole or not at all, one process at a time writes.

Whatever reads a file that a user names begins here: reading a pipe or a device in its place might never end.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import tomllib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BufferedReader, BufferedWriter, TextIOWrapper
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from filelock import FileLock, Timeout

from .errors import InputError, first_line

LOCK = ".lock"  # in a directory, the file whose lock is the right to write there
SIZES = ("B", "KB", "MB", "GB", "TB")
LONGEST_LINE = 256 << 20  # bytes; what is longer is no file of lines, or a packed one that fills the memory
STDIN = Path("-")  # names standard input where lines are read

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def find_fault(path: str | Path) -> str:
    """Why `path` is no regular file, and no link to one; empty if it is. Nothing is opened."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a NUL in the path, or what no name of a file can hold
        return str(error)
    return "" if kind == stat.S_IFREG else f"{_KINDS.get(kind, 'something else')}, not a regular file"


def check_file(path: str | Path) -> None:
    """`InputError`, at once, for anything in place of a regular file: for whoever has it read by another library."""
    if fault := find_fault(path):
        raise InputError(f"cannot read {path}: {fault}")


def open_file(path: str | Path) -> BufferedReader:
    """A regular file, to read bytes from; `InputError` as `check_file`, and if it cannot be opened."""
    check_file(path)
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def read_bytes(path: str | Path) -> bytes:
    """All of a regular file; `InputError` as `open_file`."""
    with open_file(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def read_text(path: str | Path) -> str:
    """All of a UTF-8 file, its line ends as they are; `InputError` as `read_bytes`, and if it is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file; `InputError` as `read_raw_lines`, and naming the line that is not UTF-8."""
    for number, line in read_raw_lines(path):
        if b"\0" in line:  # UTF-16 of English text decodes as UTF-8, with a NUL after each letter
            raise InputError(f"{path}:{number}: not UTF-8 text (a NUL byte: is it UTF-16?)")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8 text ({error.reason})") from None


def read_raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file, plain or gz, without a byte order mark; `InputError` if it cannot be read.

    `-` is standard input, which can be read once. So is a line longer than `LONGEST_LINE` an error.
    """
    number = 0
    try:
        with _open_input(path) as file, gzip.open(file) if is_packed(path, file) else nullcontext(file) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:
                    raise InputError(
                        f"{path}:{number}: a line of more than {LONGEST_LINE >> 20} MB: are there no line ends?"
                    )
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged or truncated gzip after line {number} ({error})") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def is_packed(path: Path, file: BufferedReader) -> bool:
    """Whether a file is gz, by its name or its first bytes, with which no text begins."""
    return path.suffix == ".gz" or file.peek(2)[:2] == b"\x1f\x8b"


@contextmanager
def _open_input(path: Path) -> Iterator[BufferedReader]:
    if path != STDIN:
        with open_file(path) as file:
            yield file
        return
    if sys.stdin is None:
        raise InputError("standard input (-) is closed: give a file by its name")
    file = BufferedReader(sys.stdin.buffer)  # type: ignore[arg-type]
    try:
        yield file
    finally:
        file.detach()  # which else would close it


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hex; `InputError` as `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_atomically(path: str | Path) -> Iterator[IO[str]]:
    """A UTF-8 text file that appears under its name only when it is complete; packed where that ends in `.gz`."""
    packed = Path(path).suffix == ".gz"
    with (
        place_atomically(path) as partial,
        partial.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) if packed else file as lines,
        TextIOWrapper(lines, encoding="utf-8", newline="\n") as out,
    ):
        yield out


def write_json(path: str | Path, value: object) -> None:
    """JSON as people read it, in a file that appears under its name only when it is complete."""
    with write_atomically(path) as out:
        json.dump(value, out, indent=2, ensure_ascii=False)


@contextmanager
def place_atomically(path: str | Path) -> Iterator[Path]:
    """Where to write a file that takes the name `path` when the block ends; nothing is left of one that fails.

    There is an empty file already, under a name that nobody can foresee; what killed writers of the same name left is
    removed. Behind a symbolic link the file that it leads to is replaced. A stream (`is_stream`) is never replaced: it
    gets all of the file when the block ends. The mode is that of the umask, whoever wrote the file. `InputError` where
    it cannot be written, a full disk included.
    """
    try:
        if is_stream(path):
            with TemporaryDirectory(prefix="crosslens-") as folder:
                partial = Path(folder, "partial")
                partial.touch()
                yield partial
                _pour(partial, path)
            return
        target = find_target(path)
        _remove_leftovers(target)
        partial, held = _open_partial(target)
        mode = stat.S_IMODE(os.fstat(held).st_mode)
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.chmod(mode)  # safetensors puts a file of its own there, which only its user may read
            os.replace(partial, target)
        finally:
            os.close(held)
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def name_partial(path: Path) -> Path:
    """A name beside `path` that nobody can foresee, for what takes its place when it is complete."""
    return path.with_name(f".{path.name[:50]}.{token_hex(8)}.partial")  # cut: a name of 255 bytes has no room for more


def _open_partial(target: Path) -> tuple[Path, int]:
    """A new empty file beside `target`, and a descriptor that holds its lock until it is closed."""
    while True:
        partial = name_partial(target)
        # Exclusive: nothing is opened that is there already, and no symbolic link followed.
        opened = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with suppress(OSError):  # on a file system without locks nothing is taken for a leftover, either
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(opened).st_nlink:
            return partial, opened
        os.close(opened)  # another writer took it for a leftover before it was locked


def _remove_leftovers(target: Path) -> None:
    """Remove the partial files of `target` whose writers were killed: regular files that nobody holds the lock of."""
    name = re.compile(rf"\.{re.escape(target.name[:50])}\.[0-9a-f]{{16}}\.partial")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if not name.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):
                opened = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW)  # a lock over NFS needs the right to write
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)
                finally:
                    os.close(opened)


def find_target(path: str | Path) -> Path:
    """The regular file, there or not, that writing to `path` writes, behind all symbolic links.

    `InputError` for a directory, a socket, a disk or a loop of links in its place.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and (fault := find_fault(target)):
        raise InputError(f"cannot write {path}: {fault}")
    return target


def is_stream(path: str | Path) -> bool:
    """Whether `path` leads to a pipe, a device of characters, or a descriptor that is open (`/dev/stdout`).

    What is written there goes straight into it, so nothing can be kept beside it, and nothing gone on with.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _find_descriptor(path) is not None


def open_to_append(path: Path) -> BufferedWriter:
    """A regular file to add to, made where there is none; `OSError` for what is none, symbolic links included."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    opened = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(opened, "ab")


def write_size(count: float) -> str:
    """Bytes as people read them, in powers of 1000: `1.2 GB`."""
    for unit in SIZES:
        if count < 999.5 or unit == SIZES[-1]:
            break
        count /= 1000
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def check_output(output: Path) -> None:
    """`InputError`, before any work, where a file could not be written."""
    if is_stream(output):
        return
    target = find_target(output)
    if not output.parent.is_dir():
        raise InputError(f"there is no directory {output.parent} to write {output.name} into")
    check_directory(target.parent)


def check_directory(path: Path) -> None:
    """`InputError` unless files can be written into a directory, there or still to be made: one without a name is."""
    there = next((each for each in (path, *path.absolute().parents) if os.path.lexists(each)), path)
    try:
        with TemporaryFile(dir=there):
            pass
    except (OSError, ValueError) as error:  # ValueError for a NUL in the path
        what = "write to" if there == path else "make the directory"
        raise InputError(f"cannot {what} {path}: {getattr(error, 'strerror', None) or error}") from None


def make_directory(path: Path) -> None:
    """Make a directory and those above it, unless it is there; `InputError` if it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the directory {path}: {error.strerror or error}") from None


def _find_descriptor(path: str | Path) -> int | None:
    """The descriptor of this process that `path` names, as Linux does it: `/dev/stdout` is `/proc/self/fd/1`."""
    for _ in range(40):  # links that the system follows at most
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        if re.fullmatch(rf"/proc/{os.getpid()}/fd", folder) and name.isdigit():
            return int(name)
        path = os.path.join(folder, name)
        if not os.path.islink(path):
            return None
        path = os.path.join(folder, os.readlink(path))
    return None


def _pour(file: Path, stream: str | Path) -> None:
    number = _find_descriptor(stream)  # opened again, a regular file would be overwritten from its beginning
    opened = os.open(stream, os.O_WRONLY | os.O_NOCTTY) if number is None else os.dup(number)
    with open(opened, "wb") as out, file.open("rb") as content:
        shutil.copyfileobj(content, out)


def is_locked(folder: Path, name: str = LOCK) -> bool:
    """Whether a process has the right to write to a directory just now, which is the lock of that file in it."""
    with suppress(OSError):
        opened = os.open(folder / name, os.O_RDONLY)
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(opened)
    return False


@contextmanager
def lock_directory(folder: Path) -> Iterator[None]:
    """The right to write to a directory, for one process; the system takes it back when that process ends.

    `InputError` if another process has it, or if nothing can be written there.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0.2)  # who asks whether it is locked has it for a moment
    except Timeout:
        raise InputError(f"another process is writing to {folder}: wait until it is done") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


DEEPEST = 100  # levels of nesting in JSON and TOML, far below what Python's own recursion allows


def read_json(path: Path) -> Any:
    """The value in a JSON file; `InputError` names the file that cannot be read, or is none as `parse_json` has it."""
    content = read_bytes(path)
    try:
        return parse_json(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_json(text: str | bytes) -> Any:
    """The value that JSON stands for, exactly; `InputError` on anything that is none, or that no value could hold.

    So are a key given twice in one object, a number too large for a float, half of a surrogate pair, and nesting
    deeper than `DEEPEST`.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        value = _JSON.decode(text)
        if "\\u" in text:  # an escaped half of a surrogate pair is no text, and nothing could store it
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text ({error.reason} at byte {error.start})") from None
    except UnicodeEncodeError:
        raise InputError("it holds half of a surrogate pair, which is no text") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise InputError(f"malformed JSON ({error.msg.removesuffix(' at')} at {line}column {error.colno})") from None
    except InputError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"malformed JSON ({first_line(error)})") from None
    except RecursionError:
        raise _too_deep() from None
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The tables that TOML stands for; `InputError` on what is no TOML, and on nesting deeper than `DEEPEST`."""
    try:
        tables = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and a number of thousands of digits
        what = "a name is given twice" if "overwrite" in str(error) else "not TOML"
        raise InputError(f"{what}: {first_line(error)}") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth(tables)
    return tables


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError(f"malformed JSON (the key {twice!r} is given twice)")
    return made


def _make_float(text: str) -> float:
    value = float(text)
    if value in (math.inf, -math.inf):
        raise InputError(f"malformed JSON (the number {text!r} is too large)")
    return value


_JSON = json.JSONDecoder(object_pairs_hook=_make_object, parse_float=_make_float)


def _check_depth(value: object) -> None:
    layer = [value]
    for _ in range(DEEPEST):
        layer = [
            inner
            for each in layer
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not layer:
            return
    raise _too_deep()


def _too_deep() -> InputError:
    return InputError(f"it is nested deeper than {DEEPEST} levels")
