"""Where an index is, and where it keeps what is not in its tables: a folder, or rows in the same database.

Object stores and LanceDB's `db://` have no folder to put files in, or to lock. Both keep tables, so there small files
are rows of one more table, and each change is one commit; the lock is one of its rows.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from ...errors import InputError, check_known, list_few
from ...files import check_directory, is_locked, lock_directory, make_directory

MEMORY = "memory://"
DATABASE = "db://"  # a database that LanceDB serves
STORES = ("s3://", "gs://", "az://")

LANCE = (OSError, RuntimeError, ValueError)  # what LanceDB raises, and names its panics:
PANICS = ("RustPanic", "PanicException")
DAMAGE = re.compile(r"LanceError|lance error|corrupt|\.rs:\d+|os error|not found|Invalid input|panicked", re.IGNORECASE)

FILES = "crosslens"  # the table of small files
LOCK = ".lock"  # the row that says who writes, and until when
LEASE = 120  # seconds that a writer which is gone still holds the lock
RENEWED = 20  # seconds between two signs of life
LOOKED = 5.0  # seconds for which a reader goes by what it has seen of a file


class FolderPlace:
    """A directory of this machine, with small files by name, each written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.folder = path  # where files of any size may lie, to be mapped into memory

    def begin(self) -> None:
        """Make it, unless it is there; `InputError` if it cannot be, or holds what is not an index."""
        make_directory(self.folder)
        self.check(begun=False)

    def check(self, *, begun: bool) -> None:
        """`InputError` where nothing can be written, and where others' files are, unless an index is `begun`."""
        check_directory(self.folder)
        if begun or not self.folder.exists():
            return
        others = [each.name for each in self.folder.iterdir() if not each.name.startswith(".")]
        if others:
            raise InputError(f"{self.folder} holds other files ({list_few(sorted(others))}); give a new directory")

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def look(self, name: str) -> object:
        """What is another value when a file was replaced; None if there is none."""
        with suppress(OSError):
            found = os.stat(self.folder / name)
            return found.st_ino, found.st_mtime_ns, found.st_size
        return None

    def list_names(self) -> list[str]:
        """What there is, files and directories."""
        return [each.name for each in self.folder.iterdir()]

    def remove(self, name: str) -> None:
        """Take a file away, or a directory of files; nothing if it is not there."""
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def read(self, name: str) -> AbstractContextManager[Path]:
        """A file to read it from; `FileNotFoundError`, at the latest when it is opened, if there is none."""
        return nullcontext(self.folder / name)

    def write(self, name: str) -> AbstractContextManager[Path]:
        """Where to write it, as a whole file; it is there when the block ends."""
        return nullcontext(self.folder / name)

    def lock(self) -> AbstractContextManager[None]:
        """The right to write, for one process, until that ends; `InputError` if another one has it."""
        return lock_directory(self.folder)

    @property
    def is_locked(self) -> bool:
        """Whether some process has it."""
        return is_locked(self.folder)


class TablePlace:
    """A `FolderPlace` without a folder: rows `name`, `data`, `until` of a table beside the others.

    The writer is named in the row of the lock, which it renews every `renewed` seconds; one that has been silent for
    120 seconds by the clock has lost it, and so has a process of this machine that runs no more. The database decides
    between two that ask at once, as two changes of one row conflict.
    """

    SCHEMA = pa.schema([("name", pa.string()), ("data", pa.binary()), ("until", pa.float64())])

    folder: Path | None = None

    def __init__(self, path: str, renewed: float = RENEWED, looked: float = LOOKED) -> None:
        self.path = path
        self._renewed = renewed
        self._lost = False
        self._looked = looked
        self._seen: dict[str, tuple[float, object]] = {}  # when files were looked at, and what was there

    @cached_property
    def _table(self) -> Any:
        with translate_errors("open", self.path):
            database = connect_database(self.path)
            return database.open_table(FILES) if FILES in database.list_tables().tables else None

    def begin(self) -> None:
        with translate_errors("write", self.path):
            database = connect_database(self.path)
            names = set(database.list_tables().tables)
            if FILES in names:  # one that was killed before there was a card
                return
            if others := sorted(names):
                raise InputError(f"{self.path} holds other tables ({list_few(others)}); give a new location")
            rows = pa.table([[LOCK], [b""], [0.0]], schema=self.SCHEMA)
            self.__dict__["_table"] = database.create_table(FILES, rows)

    def has(self, name: str) -> bool:
        with suppress(FileNotFoundError):
            self._find_row(name)
            return True
        return False

    def look(self, name: str) -> object:
        """As of a folder; asked for again within 5 seconds, it is what it was."""
        when, found = self._seen.get(name, (-math.inf, None))
        if time.monotonic() - when < self._looked:
            return found
        try:
            return self._note(name, self._find_row(name)[0])
        except FileNotFoundError:
            return None

    def _note(self, name: str, data: bytes) -> object:
        found = hashlib.blake2b(data, digest_size=16).hexdigest()
        self._seen[name] = time.monotonic(), found
        return found

    def list_names(self) -> list[str]:
        with translate_errors("read", self.path):
            self._table.checkout_latest()
            names: list[str] = self._table.search().select(["name"]).limit(None).to_arrow()["name"].to_pylist()
        return [each for each in names if each != LOCK]

    def remove(self, name: str) -> None:
        with translate_errors("write", self.path):
            self._table.delete(f"name = '{name}'")

    @contextmanager
    def read(self, name: str) -> Iterator[Path]:
        data, _ = self._find_row(name)
        self._note(name, data)
        with TemporaryDirectory(prefix="crosslens-") as folder:
            (Path(folder) / name).write_bytes(data)
            yield Path(folder) / name

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix="crosslens-") as folder:
            yield Path(folder) / name
            data = (Path(folder) / name).read_bytes()
        if self._lost:
            raise InputError(f"another process has taken {self.path} over: rerun when it is done")
        row = pa.table([[name], [data], [0.0]], schema=self.SCHEMA)
        with translate_errors("write", self.path):
            upsert = self._table.merge_insert("name")
            upsert.when_matched_update_all().when_not_matched_insert_all().execute(row)
        self._note(name, data)

    @contextmanager
    def lock(self) -> Iterator[None]:
        me = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        holder, _ = self._find_holder()
        free = f"until < {time.time()}"
        if _is_gone(holder):
            free = f"({free} OR data = {_to_hex(holder)})"
        with translate_errors("write", self.path):
            values = {"data": me.encode(), "until": time.time() + LEASE}
            self._table.update(where=f"name = '{LOCK}' AND {free}", values=values)
        holder, until = self._find_holder()
        if holder != me:
            raise InputError(
                f"another process ({holder.rpartition(':')[0]}) is writing to {self.path}: wait until it is done, or, "
                f"if it is no more, {max(1, round(until - time.time()))} seconds"
            )
        mine = f"name = '{LOCK}' AND data = {_to_hex(me)}"
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(me, mine, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            with translate_errors("write", self.path):
                self._table.update(where=mine, values={"data": b"", "until": 0.0})
                if not self.path.startswith(DATABASE):  # which clears up by itself
                    self._table.optimize(cleanup_older_than=timedelta(minutes=10))

    @property
    def is_locked(self) -> bool:
        """As of a folder."""
        holder, until = self._find_holder()
        return bool(holder) and until > time.time() and not _is_gone(holder)

    def _renew(self, me: str, mine: str, ended: threading.Event) -> None:
        while not ended.wait(self._renewed):
            # A network may fail for a moment; if it does so for longer, another process may take over.
            with suppress(Exception):
                self._table.update(where=mine, values={"until": time.time() + LEASE})
                self._lost = self._find_holder()[0] != me

    def _find_holder(self) -> tuple[str, float]:
        data, until = self._find_row(LOCK)
        return data.decode(), until

    def _find_row(self, name: str) -> tuple[bytes, float]:
        if self._table is None:
            raise FileNotFoundError(name)
        with translate_errors("read", self.path):
            self._table.checkout_latest()
            found = self._table.search().where(f"name = '{name}'").limit(1).to_arrow().to_pylist()
        if not found:
            raise FileNotFoundError(name)
        return found[0]["data"], found[0]["until"]


FilePlace = FolderPlace | TablePlace


def find_place(path: str | Path) -> FilePlace | None:
    """Where the index at `path` keeps its files; None in memory, where there are none to keep.

    `InputError` for a scheme that is not known, and for what is no path.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"an index is in a directory, given as a path, not {str(path)[:200]} ({type(path).__name__})")
    if str(path) == MEMORY:
        return None
    return TablePlace(str(path)) if is_remote(path) else FolderPlace(Path(path))


def _to_hex(text: str) -> str:
    return f"X'{text.encode().hex()}'"


def _is_gone(holder: str) -> bool:
    """Whether the holder of a lock was a process of this machine that runs no more."""
    host, _, rest = holder.partition(":")
    pid = rest.partition(":")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


def is_remote(path: str | Path) -> bool:
    """Whether `path` names an object store or a served database, not a directory; `InputError` on other schemes."""
    scheme, colons, _ = str(path).partition("://")
    if not colons or str(path) == MEMORY:
        return False
    check_known(scheme + colons, (MEMORY, DATABASE, *STORES), "kind of location")
    return True


def connect_database(path: str | Path) -> Any:
    """The LanceDB database at `path`; keys come from the environment (AWS_*, LANCEDB_API_KEY).

    A `db://` database is in the region LANCEDB_REGION (us-east-1), or at the address LANCEDB_HOST_OVERRIDE.
    `InputError` where LanceDB is not installed.
    """
    try:
        import lancedb
    except ImportError:
        raise InputError("LanceDB stores every index, and it is not installed here: pip install lancedb") from None

    path = str(path)
    if not path.startswith(DATABASE):
        return lancedb.connect(path)
    if not os.environ.get("LANCEDB_API_KEY"):
        raise InputError(f"{path} needs a key: set LANCEDB_API_KEY")
    region = os.environ.get("LANCEDB_REGION", "us-east-1")
    return lancedb.connect(path, region=region, host_override=os.environ.get("LANCEDB_HOST_OVERRIDE"))


@contextmanager
def translate_errors(what: str, where: str) -> Iterator[None]:
    """`InputError` in place of what LanceDB raises when it cannot `what` (read, write, open) the files of `where`.

    What says nothing of files is a mistake in the program, and goes on as it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not (isinstance(error, LANCE) or type(error).__name__ in PANICS):
            raise
        text = " ".join(str(error).split())
        if re.search(r"no space left|StorageFull|os error 28", text, re.IGNORECASE):
            raise InputError(
                f"cannot {what} {where}: the disk is full; make room and rerun `crosslens index`, "
                "which goes on where it stopped"
            ) from None
        # The system's words, or those of an object store, or the beginning.
        found = re.search(r"([A-Z][\w ,]*\(os error \d+\))|<Message>(.*?)</Message>", text)
        cause = (found.group(1) or found.group(2)) if found else text[:200]
        if is_remote(where):
            raise InputError(f"cannot {what} {where}: {cause}; nothing stored is lost: repair it and rerun") from None
        if what == "write" and isinstance(error, OSError | RuntimeError):
            raise InputError(
                f"cannot {what} {where}: {cause}; make it possible and rerun, or look for damage: "
                f"`crosslens verify {where}`"
            ) from None
        damaged = type(error).__name__ in PANICS or isinstance(error, pa.ArrowInvalid | UnicodeDecodeError)
        if where == MEMORY or not (damaged or DAMAGE.search(text)):
            raise
        raise InputError(
            f"cannot {what} {where}: {cause}; a file of it is damaged or gone: `crosslens verify {where}` says which, "
            "and what can be repaired"
        ) from error
