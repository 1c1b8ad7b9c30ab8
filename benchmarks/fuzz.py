"""Does any input, however damaged, end in a traceback, in a hang, or in something that it does not say?

    python benchmarks/fuzz.py                          # 10,000 inputs with seed 0
    python benchmarks/fuzz.py --keep /tmp/found        # and keep those that ended badly
    python benchmarks/fuzz.py --only runs --inputs 500

Sound inputs of each reader (`fuzz_readers.py`) are damaged: bits, bytes, lines, numbers, encodings, nesting, types and keys
of JSON, ends of gz files. Each is then read or refused; anything but an `InputError` is counted as a traceback, more than 10
seconds as a hang, and what a strict second reading of the same bytes does not give as a reinterpretation. Prints a table
on stderr and, with --json, one JSON object on stdout. The exit status is 1 if any count of these three is not 0.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosslens import InputError
from fuzz_readers import Reader, list_readers
from fuzz_strict import Refused
from measurements import Table, add_save, save

LONGEST = 10.0  # seconds
OUTCOMES = ("read", "refused", "traceback", "hang", "reinterpreted")
BAD = OUTCOMES[2:]
NUMBERS = (
    "1_000", "１２", "٣", "²", "0x10", "+5", "-0", "007", "1e400", "-1e400", "1e-400", "1e5", "5.", ".5", "5.0", "NaN", "nan", "inf",
    "-Infinity", "1" * 5000, "9" * 19, "9" * 400, "1e", "--1", "true", "null", "None", "", "1,5", "12 3", "\u00a05",
)  # fmt: skip
SCRAPS = (
    "\0", "\ufeff", "\r\n", "\r", "\n", "\t", "  ", "\u00a0", "\u2028", "\x85", "\x0b", "\x1c", "\x1b[31m", "\u202e", "é", "😀", '"', "'", "\\",
    "\\ud800", "\\u0000", "{", "}", "[", "]", "(", ")", ",", ":", "=", "#", "%", "*", "+", ">>", "?", "&", "@", "//", "../", "~", "$HOME",
    "{x}", "{{", "%s", "[" * 300, "(" * 3000, "[" * 100_000, '{"a":' * 2000, "x" * 50_000, "a." * 3000, "猫" * 3000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**70, 10**400, 0.5, -0.0, float("nan"), float("inf"), "", " ", "x", "12", "\ud800", "a\0b", "\n", "x" * 10_000, [], {}, [[]], [None],
    {"a": {}}, {"": ""}, [1, "a", None], "eng", "../x", "/dev/zero",
)  # fmt: skip


class HangError(BaseException):
    """An input took too long."""


def damage(content: bytes, kind: str, chance: random.Random) -> bytes:
    """The content with one to three faults."""
    if kind == "gz" and chance.random() < 0.6:
        return damage_gz(content, chance)
    if kind == "json" and chance.random() < 0.5:
        with suppress(ValueError):
            return damage_json(content, chance)
    ways = [flip_bit, drop_bytes, repeat_bytes, insert_noise, cut_end]
    if kind not in ("bytes", "gz"):
        ways += [change_number] * 3 + [insert_scrap] * 4 + [move_lines] * 2 + [encode_otherwise, change_space]
    for _ in range(chance.choice((1, 1, 2, 3))):
        content = chance.choice(ways)(content, chance)
    return content


def flip_bit(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def pick_range(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + chance.choice((1, 2, 4, 30, 300)))


def drop_bytes(content: bytes, chance: random.Random) -> bytes:
    start, end = pick_range(content, chance)
    return content[:start] + content[end:]


def repeat_bytes(content: bytes, chance: random.Random) -> bytes:
    start, end = pick_range(content, chance)
    return content[:end] + content[start:end] * chance.choice((1, 2, 50)) + content[end:]


def insert_noise(content: bytes, chance: random.Random) -> bytes:
    start, _ = pick_range(content, chance)
    return content[:start] + chance.randbytes(chance.choice((1, 2, 8, 100))) + content[start:]


def cut_end(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def insert_scrap(content: bytes, chance: random.Random) -> bytes:
    start, _ = pick_range(content, chance)
    return content[:start] + chance.choice(SCRAPS).encode() + content[start:]


def change_number(content: bytes, chance: random.Random) -> bytes:
    found = list(re.finditer(rb"\d+(?:\.\d+)?", content))
    if not found:
        return insert_scrap(content, chance)
    place = chance.choice(found)
    return content[: place.start()] + chance.choice(NUMBERS).encode() + content[place.end() :]


def move_lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    row = chance.randrange(len(lines))
    match chance.randrange(4):
        case 0:
            lines.insert(chance.randrange(len(lines)), lines[row])
        case 1:
            lines[row] += lines[chance.randrange(len(lines))]
        case 2:
            del lines[row]
        case _:
            words = lines[row].split(b" ")
            chance.shuffle(words)
            lines[row] = b" ".join(words)
    return b"\n".join(lines)


def encode_otherwise(content: bytes, chance: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    codec = chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp1252", "utf-7", "cp037"))
    return text.encode(codec, "replace")


def change_space(content: bytes, chance: random.Random) -> bytes:
    old, new = chance.choice(
        (
            (b"\n", b"\r\n"),
            (b"\n", b"\r"),
            (b" ", b"\t"),
            (b" ", b"  "),
            (b" ", "\u00a0".encode()),
            (b"\n", b"\n\xef\xbb\xbf"),
            (b"\n", b"\0\n"),
        )
    )
    return content.replace(old, new, chance.choice((1, -1)))


def damage_gz(content: bytes, chance: random.Random) -> bytes:
    inside = gzip.decompress(content)
    match chance.randrange(6):
        case 0:
            return content + content
        case 1:
            return content + gzip.compress(b"\xef\xbb\xbf" + inside, mtime=0)
        case 2:
            return content + chance.randbytes(chance.choice((1, 9, 100)))
        case 3:
            return content[: -chance.randrange(1, 9)]
        case 4:
            return inside
        case _:
            return gzip.compress(damage(inside, "json" if inside[:1] == b"{" else "text", chance), mtime=0)


def damage_json(content: bytes, chance: random.Random) -> bytes:
    """A line of JSON with another value, or another key, in one place."""
    lines = content.decode().splitlines(keepends=True) if content.count(b"\n{") else [content.decode()]
    row = chance.randrange(len(lines))
    value = json.loads(lines[row])
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        for key, each in (
            inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        ):
            places.append((inner, key))
            walk(each)

    walk(value)
    if not places:
        raise ValueError
    holder, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(("x", "", "id", "text", "lang", "image", "format", "spec"))] = chance.choice(VALUES)
        case 2 if isinstance(holder, dict):
            marked = json.dumps(value)
            one = f'"{key}": '
            return "".join(
                [*lines[:row], marked.replace(one, f'{one}"twice", {one}', 1) + "\n", *lines[row + 1 :]]
            ).encode()
        case _:
            holder[key] = chance.choice(VALUES)
    lines[row] = json.dumps(value, ensure_ascii=chance.random() < 0.7) + "\n"
    return "".join(lines).encode("utf-8", "surrogatepass")


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError

    # Of the processor's time, for a machine may be busy; what only waits gets ten times as much.
    limits = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds))
    before = [signal.signal(number, stop) for number, _, _ in limits]
    for _, timer, limit in limits:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def try_input(reader: Reader, content: bytes, folder: Path) -> tuple[str, str]:
    """How a reader ends with an input, one of `OUTCOMES`, and what there is to say of a bad end."""
    folder.mkdir()
    path = folder / reader.file
    for name, beside in ({**(reader.beside or {}), reader.file: content}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(beside)
    try:
        with limit_time(LONGEST), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reader.read(path)
    except InputError as error:
        shown = str(error)
        fits = len(shown.splitlines()) == 1 and len(shown) <= 4000
        return ("refused", "") if fits else ("traceback", f"the error is {len(shown)} characters: {shown[:300]}")
    except HangError:
        return "hang", f"over {LONGEST:.0f} s: {traceback.format_exc(limit=-3)}"
    except AssertionError as error:
        return "reinterpreted", traceback.format_exc(limit=-3) if not str(error) else str(error)
    except Exception:
        return "traceback", traceback.format_exc(limit=-6)
    if reader.strict is None:
        return "read", ""
    try:
        meant = reader.strict(content)
    except (Refused, KeyError, TypeError, ValueError, AttributeError) as error:
        return "reinterpreted", f"read as {found!r:.400}, and strictly not at all: {error!r:.200}"
    return (
        ("read", "")
        if same(found, meant)
        else ("reinterpreted", f"read as {found!r:.400}, and strictly {meant!r:.400}")
    )


def same(found: Any, meant: Any) -> bool:
    """Whether two values are the same: types of numbers and nan included."""
    return repr(sort_keys(found)) == repr(sort_keys(meant))


def sort_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted(((key, sort_keys(each)) for key, each in value.items()), key=repr)
    return [sort_keys(each) for each in value] if isinstance(value, list | tuple) else value


@dataclass
class Tally:
    """The outcomes of a reader's inputs; `worst` are the first that ended badly: number, outcome, what happened."""

    counts: Counter[str] = field(default_factory=Counter)
    worst: list[tuple[int, str, str]] = field(default_factory=list)


def make_input(reader: Reader, number: int, seed: int) -> bytes:
    """An input of a reader; the same for the same number and seed, everywhere."""
    chance = random.Random(f"{seed}/{reader.name}/{number}")
    return damage(chance.choice(reader.seeds), reader.kind, chance)


def fuzz_reader(reader: Reader, numbers: range, seed: int, folder: Path, keep: Path | None = None) -> Tally:
    tally = Tally()
    for number in numbers:
        content = make_input(reader, number, seed)
        with tempfile.TemporaryDirectory(dir=folder) as where:
            outcome, what = try_input(reader, content, Path(where) / "c")
        tally.counts[outcome] += 1
        if outcome in BAD:
            tally.worst.append((number, outcome, what))
            if keep is not None:
                keep.mkdir(exist_ok=True, parents=True)
                (keep / f"{name_file(reader.name)}-{number}-{outcome}").write_bytes(content)
    return tally


def name_file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def share(readers: list[Reader], inputs: int) -> dict[str, int]:
    """How many of the inputs each reader gets, by its weight."""
    whole = sum(reader.weight for reader in readers)
    counts = {reader.name: int(inputs * reader.weight / whole) for reader in readers}
    counts[readers[0].name] += inputs - sum(counts.values())
    return counts


def run_job(job: tuple[str, range, int, Path, Path | None]) -> tuple[str, Tally]:
    name, numbers, seed, folder, keep = job
    reader = next(each for each in _READERS if each.name == name)
    return name, fuzz_reader(reader, numbers, seed, folder, keep)


_READERS: list[Reader] = []


def prepare_process() -> None:
    logging.disable(logging.CRITICAL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory() as folder:
        _READERS[:] = list_readers(Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="READER", help="repeatable")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where inputs that ended badly go")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    add_save(parser)
    given = parser.parse_args()

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        readers = [each for each in list_readers(folder / "x") if not given.only or each.name in given.only]
        jobs = [
            (name, range(start, min(start + 50, count)), given.seed, folder, given.keep)
            for name, count in share(readers, given.inputs).items()
            for start in range(0, count, 50)
        ]
        tallies = {reader.name: Tally() for reader in readers}
        with multiprocessing.get_context("spawn").Pool(given.processes, prepare_process) as pool:
            for name, tally in pool.imap_unordered(run_job, jobs):
                tallies[name].counts += tally.counts
                tallies[name].worst += tally.worst
    for name, tally in tallies.items():
        for number, outcome, what in sorted(tally.worst)[:5]:
            print(f"{name}, input {number}: {outcome}\n{what}\n", file=sys.stderr)
    rows = [
        [name, f"{tally.counts.total():,}", *(f"{tally.counts[each]:,}" for each in OUTCOMES)]
        for name, tally in tallies.items()
    ]
    total: Counter[str] = sum((tally.counts for tally in tallies.values()), Counter())
    rows.append(["all", f"{total.total():,}", *(f"{total[each]:,}" for each in OUTCOMES)])
    table = Table(("reader", "inputs", "read", "refused", "tracebacks", "hangs", "reinterpreted"), rows)
    print(table.markdown(), file=sys.stderr)
    report = {
        "seed": given.seed, "seconds": round(time.perf_counter() - started), "inputs": total.total(), **{each: total[each] for each in OUTCOMES},
        "readers": {name: {each: tally.counts[each] for each in OUTCOMES} for name, tally in tallies.items()},
    }  # fmt: skip
    save(given.save, report, [table])
    if given.json:
        print(json.dumps(report, indent=2))
    return int(any(total[each] for each in BAD))


if __name__ == "__main__":
    sys.exit(main())
