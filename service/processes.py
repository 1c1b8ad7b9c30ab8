"""A service as one process or several: what they serve is handed on as settings, which each opens by itself."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from ..errors import CrosslensError, InputError
from ..indexes.registry import open_index
from ..pipeline import Progress, show_nothing
from .connections import Connection
from .quotas import Quotas

if TYPE_CHECKING:
    from .gate import Gate

SETTINGS = "CROSSLENS_SERVICE"  # the environment variable by which processes get theirs
KEY, TOKEN = "CROSSLENS_API_KEY", "CROSSLENS_WRITE_TOKEN"
BACKLOG = 2048  # connections that wait to be accepted
DRAIN = 30  # seconds that requests have to end after SIGTERM
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """What is served, where, and who may do what; keys come from the environment, and are not in here."""

    indexes: Mapping[str, str]
    systems: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    processes: int = 1
    writable: bool = False
    insecure: bool = False
    origins: tuple[str, ...] = ()
    limits: Quotas = Quotas()  # noqa: RUF009 - it is frozen
    device: str = "auto"
    trust_remote_code: bool = False

    def check(self) -> None:
        """`InputError` for what must not be served so."""
        if not self.insecure and self.host not in LOCAL and not os.environ.get(KEY):
            raise InputError(
                f"others can reach {self.host}: set a key in the environment variable {KEY}, which clients then "
                "have to give, or add --insecure"
            )
        if self.writable and not os.environ.get(TOKEN):
            raise InputError(f"--writable needs a token in the variable {TOKEN}, which changes have to give")
        if self.writable and self.processes > 1:
            raise InputError("--writable is for one process: leave out --workers")

    def to_json(self) -> str:
        """As another process reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What `to_json` wrote."""
        data = json.loads(text)
        tuples = {key: tuple(data[key]) for key in ("systems", "origins")}
        return cls(**{**data, **tuples, "limits": Quotas(**data["limits"])})

    def open(self) -> Gate:
        """The application, with all that it serves open and loaded."""
        from .application import Access, make_app
        from .engine import Engine
        from .gate import LOOPBACK

        indexes = {
            name: open_index(path, device=self.device, trust_remote_code=self.trust_remote_code)
            for name, path in self.indexes.items()
        }
        engine = Engine.load(
            indexes, self.systems, limits=self.limits, device=self.device, trust_remote_code=self.trust_remote_code
        )
        key = os.environ.get(KEY, "")
        token = os.environ.get(TOKEN, "") if self.writable else ""
        # Without a key, names of other hosts that lead here are a trick of pages in the user's browser.
        hosts = LOOPBACK if self.host in LOCAL and not key and not self.insecure else ()
        return make_app(engine, Access(key, token, hosts, self.origins))


def open_from_environment() -> Gate:
    """The application of a process among several, by the settings that it was started with."""
    logging.basicConfig(stream=sys.stderr, format="crosslens: %(message)s", level=logging.ERROR)
    logging.getLogger("crosslens").setLevel(logging.INFO)
    try:
        return Settings.from_json(os.environ[SETTINGS]).open()
    except CrosslensError as error:
        print(f"crosslens: {error}", file=sys.stderr, flush=True)
        os._exit(STARTUP_FAILURE)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that are under way then have 30 seconds to end.

    `InputError` for what cannot be served, and for a port that is taken, before anything listens.
    """
    settings.check()
    print(f"loading {', '.join(settings.indexes)}, and the models ...", file=sys.stderr, flush=True)
    with _listen(settings.host, settings.port) as listener:
        options = {
            "log_level": "warning", "access_log": False, "server_header": False, "date_header": False,
            "timeout_graceful_shutdown": DRAIN, "timeout_keep_alive": 30, "backlog": BACKLOG, "ws": "none",
            "timeout_worker_healthcheck": 10, "http": Connection,
            "host": settings.host, "port": listener.getsockname()[1],
        }  # fmt: skip
        if settings.processes == 1:
            app = settings.open()
            _say_when_ready(settings, listener)
            uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])
            return
        with TemporaryDirectory(prefix="crosslens-metrics-") as shared:
            os.environ |= {SETTINGS: settings.to_json(), "PROMETHEUS_MULTIPROC_DIR": shared}
            config = uvicorn.Config(
                "crosslens.service.processes:open_from_environment", factory=True, workers=settings.processes,
                **options,
            )  # fmt: skip
            _say_when_ready(settings, listener)
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            together = Together(config, sockets=[listener])
            together.run()
            if any(each.exitcode == STARTUP_FAILURE for each in together.processes):
                raise SystemExit(2)  # it has said why
        if together.ended_by is not None:
            signal.signal(together.ended_by, handlers[together.ended_by])
            signal.raise_signal(together.ended_by)


class Together(Multiprocess):
    """Several processes; the signal that ended them is known, to be raised again as uvicorn does with one process."""

    ended_by: signal.Signals | None = None

    def handle_int(self) -> None:
        """Ctrl-C."""
        self.ended_by = signal.SIGINT
        super().handle_int()

    def handle_term(self) -> None:
        """What ends a service."""
        self.ended_by = signal.SIGTERM
        super().handle_term()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends at once what is written; else an answer waits 40 ms for the head's receipt.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise InputError(f"{host}:{port} cannot be listened at ({error.strerror}): take another --port") from None
    return listener


def _say_when_ready(settings: Settings, listener: socket.socket) -> None:
    """Say where it is, as soon as a request is answered."""
    host, port = settings.host, listener.getsockname()[1]

    def ask() -> None:
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        while True:
            with suppress(OSError), closing(http.client.HTTPConnection(near, port, timeout=60)) as connection:
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        for name, path in settings.indexes.items():
            print(f"serving {name}: {path}", file=sys.stderr)
        shown = f"[{host}]" if ":" in host else host
        print(f"ready: http://{shown}:{port}/ (for programs: /docs)", file=sys.stderr, flush=True)

    threading.Thread(target=ask, daemon=True).start()


def place_demo(device: str = "auto", progress: Progress = show_nothing) -> Path:
    """The index of the built-in collection, in the cache; made or brought up to date if it has to be."""
    from ..checkpoints.offline.packages import locate_cache
    from ..checkpoints.uses import hold
    from ..indexes.storage.storage import FILE
    from ..multilingual.collections.registry import load_collection
    from ..systems.indexing import index_collection
    from ..systems.search import choose_encoders

    demo = load_collection("demo")
    counts = demo.check()
    where = locate_cache() / "served" / "demo.index"
    where.parent.mkdir(parents=True, exist_ok=True)
    specs = choose_encoders(counts.images)
    index_collection(
        demo, where, specs, documents=counts.documents, device=device, sync=True, progress=progress
    )  # fmt: skip
    hold(where / FILE)
    return where
