"""A llama-server of llama.cpp, started for a benchmark: by the path of its program, on a free port, on the CPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from crosslens.errors import InputError

START = 180.0  # seconds that loading a model may take


class LlamaServer:
    """Starts in `with`, and is ended with it; `stop` and `start` are for what happens in between."""

    def __init__(
        self, program: Path, model: Path, *, threads: int, log: Path, slots: int = 4, room: int = 8192
    ) -> None:
        for path in (program, model):
            if not path.is_file():
                raise InputError(f"{path} is not there")
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"
        self.log = log
        self._command = [
            str(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-t", str(threads),
            "-np", str(slots), "-c", str(room), "--device", "none", "--no-webui",
        ]  # fmt: skip
        # Programs that packages carry have their libraries beside them.
        libraries = [str(program.resolve().parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        self._environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "OMP_WAIT_POLICY": "passive"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        until = time.monotonic() + START
        while wait and not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise InputError(f"the server did not start; {self.log} says why")
            time.sleep(0.2)

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(self.root + path, timeout=10) as answer:
            found: bytes = answer.read()
            return found

    def _is_ready(self) -> bool:
        try:
            return b"ok" in self.read("/health")
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> LlamaServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
