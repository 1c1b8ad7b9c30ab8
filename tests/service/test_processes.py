"""`crosslens serve` as a command: what it refuses to start with, how it ends, and several processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from stand_ins.children import COMMAND
from stand_ins.live import JUDGE, fill
from stand_ins.table import table

TESTS = str(Path(__file__).parents[1])


@table(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "CROSSLENS_API_KEY"),
        (["--api-key"], "there is no key"),
        (["--writable"], "CROSSLENS_WRITE_TOKEN"),
        (["--system", "yesno@offline:gemma"], "has no search"),
        (["--system", "a=dense", "--system", "a=lexical"], "two systems have one name"),
        (["--system", "dense?encoder=offline:use-m3"], "not by offline:use-m3"),
        (["--mode", "magic"], "unknown mode"),
        (["--rerank", "nonsense"], "nonsense"),
        (["--system", "dense", "--rerank", "default"], "leave out"),
        (["--port", "70000"], "65535"),
        (["{index}"], "two indexes have the name small"),
        (["other=/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    crosslens: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: list[str], said: str
) -> None:
    index = fill(tmp_path / "small.index")
    status, out, err = crosslens("serve", index, *(each.format(index=index) for each in arguments))
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_taken_port_is_said_before_anything_is_loaded(
    crosslens: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, _, err = crosslens("serve", fill(tmp_path / "i"), "--port", taken.getsockname()[1])
    assert status == 2
    assert "take another --port" in err


@contextmanager
def started(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and where it listens."""
    paths = os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", COMMAND, "serve", *map(str, arguments), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": paths}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    try:
        lines = []
        while not (found := re.search(r"ready: (\S+)/ ", (line := child.stderr.readline()))):
            assert line, "".join(lines)
            lines.append(line)
        yield child, found[1]
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)
        child.stderr.close()


def test_requests_that_are_under_way_end_after_sigterm(tmp_path: Path) -> None:
    index = fill(tmp_path / "small.index")
    with started(index, "--rerank", f"{JUDGE}&slow=0.02") as (child, url):
        with httpx.Client(base_url=url) as client:
            client.get("/search?q=again")
            took = [client.get("/search?q=again").elapsed.total_seconds() for _ in range(10)]
        assert min(took) < 0.035  # no answer waits for the receipt of its head
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.get(f"{url}/search?q=boat", timeout=30).status_code)
        )
        asking.start()
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        asking.join()
        assert answers == [200]
        assert child.wait(30) == 143
        assert child.stderr is not None
        assert child.stderr.read() == "crosslens: ended\n"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")


def test_a_killed_process_of_several_loses_its_own_requests_alone(tmp_path: Path) -> None:
    with started(fill(tmp_path / "small.index"), "--mode", "lexical", "--workers", 2) as (child, url):
        deadline = time.monotonic() + 60
        processes: set[int] = set()
        while len(processes) < 2 and time.monotonic() < deadline:
            processes.add(_process(url))
        first, second = processes
        os.kill(first, signal.SIGKILL)
        codes = [_status(f"{url}/search?q=boat {n}") for n in range(20)]
        assert codes.count(200) >= 18  # none but what the dead one had
        while time.monotonic() < deadline:
            now = {_process(url) for _ in range(8)}
            if len(now - {first, second}) == 1:
                break
            time.sleep(0.2)
        assert len(now - {first, second}) == 1, "no other came in its place"
        seen = re.search(r'requests_total\{route="/search",status="200"\} (\d+)', httpx.get(f"{url}/metrics").text)
        assert seen
        assert int(seen[1]) >= codes.count(200)  # of all processes together
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 143
        assert child.stderr is not None
        assert child.stderr.read().endswith("crosslens: ended\n")


def _process(url: str) -> int:
    with httpx.Client() as client:  # a connection of its own
        return int(client.get(f"{url}/readyz").json().get("process", 0))


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=20).status_code
    except httpx.HTTPError:
        return 0


def test_what_no_process_of_several_can_open_ends_the_command(tmp_path: Path) -> None:
    index = fill(tmp_path / "small.index")
    command = [sys.executable, "-c", COMMAND, "serve", str(index), "--workers", "2", "--port", "0"]
    command += ["--system", "dense?encoder=offline:use-m3"]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": TESTS + os.pathsep + os.environ.get("PYTHONPATH", "")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "not by offline:use-m3" in ended.stderr
    assert "Traceback" not in ended.stderr
