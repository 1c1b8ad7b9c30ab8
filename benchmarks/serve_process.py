"""A server that a benchmark starts: in a process of its own, on a free port, with what it and its children take."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from crosslens.errors import InputError

START = 300.0  # seconds that loading models may take
CROSSLENS = (sys.executable, "-c", "from crosslens.commands.app import script; script()")
MB = 1 << 20


class Service:
    """Starts in `with`, and is ended with it. `{port}` in the command is where it listens."""

    def __init__(
        self, command: Sequence[str], *, log: Path, ready: str = "/readyz", environment: Mapping[str, str] | None = None
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self.log = log
        self.command = [part.replace("{port}", str(self.port)) for part in command]
        self.ready = ready
        self._environment = {**os.environ, **(environment or {})}
        self.started = 0.0  # seconds until it was ready

    @classmethod
    def serve(cls, *arguments: str, log: Path, environment: Mapping[str, str] | None = None) -> Service:
        """`crosslens serve` with these arguments."""
        return cls([*CROSSLENS, "serve", *arguments, "--port", "{port}"], log=log, environment=environment)

    def start(self) -> None:
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self._environment)
        self.process = psutil.Process(self._process.pid)
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() - began > START:
                raise InputError(f"the server did not start; the end of its log: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        self.started = time.monotonic() - began

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", self.ready, timeout=5)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def ask(self, method: str, path: str, body: Any = None, *, timeout: float = 60) -> tuple[int, bytes]:
        """One request on a connection of its own: the status, and what was answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def workers(self) -> list[psutil.Process]:
        """The processes that answer: the children that have loaded models, or the process itself where it has none."""
        sizes = {each: _measured(each, lambda one: one.memory_info().rss) for each in self._tree()[1:]}
        loaded = max(200 * MB, 0.5 * max(sizes.values(), default=0))
        return [each for each, size in sizes.items() if size > loaded] or [self.process]

    def rss(self) -> float:
        """Resident memory of the process and all its children, MB; what they share counts for each."""
        return sum(_measured(each, lambda one: one.memory_info().rss) for each in self._tree()) / MB

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children so far."""
        return sum(map(measure_cpu, self._tree()))

    def stop(self, how: int = signal.SIGTERM, within: float = 60) -> int:
        """End it and wait; the exit status, negative where a signal ended it."""
        children = self._tree()[1:]
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            _, left = psutil.wait_procs(children, timeout=5)
            for each in left:
                each.kill()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def __enter__(self) -> Service:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def measure_cpu(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    return _measured(process, lambda one: sum(one.cpu_times()[:2]))


def _measured(process: psutil.Process, measure: Any) -> float:
    """What `measure` finds; 0 for a process that has just ended."""
    try:
        return float(measure(process))
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0.0
