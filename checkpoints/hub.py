"""The model hub: whether it answers, asked once and briefly; libraries would try for a minute, for each file again."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from threading import Event, Lock, Thread

from huggingface_hub import constants, get_session
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id

PATIENCE = 2.5  # seconds for a first answer; HF_HUB_ETAG_TIMEOUT, where it is set, in their place
REMEMBERED = 60.0  # seconds for which an answer holds


class Hub:
    """The hub at `HF_ENDPOINT`. While it does not answer, its libraries go by what is in its cache."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._closed = False
        self._asked = -math.inf

    def answers(self) -> bool:
        """Whether it can be asked for files; any answer will do, through proxies as the environment names them."""
        with self._lock:
            if constants.HF_HUB_OFFLINE and not self._closed:  # as the user wants it
                return False
            if time.monotonic() - self._asked > REMEMBERED:
                constants.HF_HUB_OFFLINE = False
                self._closed = constants.HF_HUB_OFFLINE = not _is_answered()
                self._asked = time.monotonic()
            return not self._closed

    def explain(self) -> str:
        """Why it is not asked, for an error."""
        if not self._closed:
            return "HF_HUB_OFFLINE is set"
        more = "" if os.environ.get("HF_HUB_ETAG_TIMEOUT") else "; if it is slow, set HF_HUB_ETAG_TIMEOUT=30"
        return f"the hub {constants.ENDPOINT} does not answer{more}"


HUB = Hub()


def _is_answered() -> bool:
    answered, ended = Event(), Event()
    patience = float(constants.HF_HUB_ETAG_TIMEOUT) if os.environ.get("HF_HUB_ETAG_TIMEOUT") else PATIENCE

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=patience)
            answered.set()
        except Exception:  # of httpx, of what takes its place in later versions, or of the user's own client
            pass
        ended.set()

    # In a thread, as no timeout ends the search for a name's address.
    Thread(target=ask, daemon=True, name="crosslens-hub").start()
    ended.wait(patience)
    return answered.is_set()


def is_hub_name(checkpoint: str) -> bool:
    """Whether a checkpoint on the hub could have this name; a path could not, unless it is a mere `a/b`."""
    if checkpoint.startswith(("/", ".", "~")) or checkpoint.endswith("/") or "\\" in checkpoint:
        return False
    try:
        validate_repo_id(checkpoint)
    except HFValidationError:
        return False
    return True


def is_cached(checkpoint: str) -> bool:
    """Whether files of a checkpoint have come from the hub before."""
    folder = repo_folder_name(repo_id=checkpoint, repo_type="model")
    return Path(constants.HF_HUB_CACHE, folder, "snapshots").is_dir()
