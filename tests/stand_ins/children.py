"""Other processes that run Python, as forks of one that has the slow imports behind it."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

# Not lancedb: no fork survives its threads.
SLOW = [
    "torch",
    "scipy.sparse",
    "pyarrow.dataset",
    "lance_namespace_urllib3_client",
    "PIL.Image",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "crosslens.commands.app",
]
COMMAND = "from crosslens.commands.app import script; script()"  # as the console script


class Child:
    """A process as that of `subprocess.Popen`, with pipes of text, that runs a script or a piece of code."""

    def __init__(self, program: str | Path, *arguments: object, env: Mapping[str, str] | None = None) -> None:
        program = program if str(program).endswith(".py") else textwrap.dedent(str(program))
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(SLOW)
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        about = (str(program), [str(each) for each in arguments], dict(os.environ if env is None else env))
        self.process = processes.Process(target=run, args=(*about, [DupFd(end) for end in theirs]), daemon=True)
        self.process.start()
        for end in theirs:
            os.close(end)
        self.stdin: IO[str] = open(pipes[0][1], "w")  # noqa: SIM115
        self.stdout: IO[str] = open(pipes[1][0])  # noqa: SIM115
        self.stderr: IO[str] = open(pipes[2][0])  # noqa: SIM115

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = 120) -> int:
        """How it ended, as soon as it has."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "it does not end"
        return self.process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing where it has ended, as with `Popen`."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def communicate(self, said: str = "") -> tuple[str, str]:
        """Its output and errors, of which there are fewer than fill a pipe."""
        self.stdin.write(said)
        self.stdin.close()
        found = self.stdout.read(), self.stderr.read()
        self.wait()
        return found


def run(program: str, arguments: list[str], environment: dict[str, str], ends: list[Any]) -> None:
    """What a child does."""
    for number, end in enumerate(ends):
        descriptor = end.detach()
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    # A job in the background of a shell, as tests may be, is started with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            exec(compile(program, "child", "exec"), {"__name__": "__main__"})
    finally:
        sys.stdout.flush()
