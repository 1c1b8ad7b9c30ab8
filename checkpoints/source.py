"""Where a checkpoint is, and how what it holds is opened: quietly, from safetensors alone and complete, or an error.

Its tokenizers may be used by several threads, and are asked where their tokens are in a text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import torch
import transformers
from transformers.utils import cached_file, hub

from ..errors import InputError, first_line
from ..files import hash_file, read_json
from .hub import HUB, is_cached, is_hub_name
from .offline.packages import is_converted

TOKENIZER_FILES = (
    "tokenizer.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
)
EXPORTED = ("*.onnx", "*.onnx_data", "openvino_model.*")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
TO_SAFETENSORS = (
    "import torch, safetensors.torch as s; w = torch.load(d + '/{old}', weights_only=True); "
    "s.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, d + '/{new}', {{'format': 'pt'}})"
)


@dataclass(frozen=True)
class Source:
    """A checkpoint: a directory or a name on the hub, at a revision; its own code runs only where that is trusted.

    `folder` is where in the checkpoint the model lies, if it does not lie at the top.
    """

    checkpoint: str
    revision: str | None = None
    trust_remote_code: bool = False
    folder: str = ""

    def __str__(self) -> str:
        return self.checkpoint

    @property
    def is_local(self) -> bool:
        return Path(self.checkpoint).is_dir()

    def check(self) -> None:
        """`InputError` where it is no directory, and nothing that the hub has given or can be asked for."""
        if self.is_local:
            return
        if not is_hub_name(self.checkpoint):
            raise InputError(f"there is no directory {self}, and no checkpoint on the hub can have this name")
        if not HUB.answers() and not is_cached(self.checkpoint):
            raise InputError(
                f"cannot load {self}: there is no directory of this name, the cache of the hub does not have it, and "
                f"{HUB.explain()}; `crosslens models` lists what is here"
            )

    def find(self, *names: str) -> Path | None:
        """The path of the first of these files that the checkpoint has, fetched from the hub; None if it has none."""
        self.check()
        quiet = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
        for name in names:
            below = f"{self.folder}/{name}".lstrip("/")  # an absolute path in its files is one below the checkpoint
            path = cached_file(self.checkpoint, below, revision=self.revision, **quiet)
            if path is not None:
                return Path(path)
        return None

    def require(self, names: Sequence[str], what: str, advice: str = "") -> None:
        """`InputError` unless the checkpoint has one of these files, which make `what`."""
        if self.find(*names) is None:
            raise InputError(f"{self} has no {what} (none of {', '.join(names)}){advice}")

    def read_json(self, name: str) -> Any:
        """What a JSON file of the checkpoint holds; None if there is no such file, `InputError` if it is not JSON."""
        if (path := self.find(name)) is None:
            return None
        return read_json(path)

    def load(self, auto: Any, **options: Any) -> Any:
        """`auto.from_pretrained` without its chatter; its failures as an `InputError` of one line."""
        self.check()
        options |= {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        if self.folder:
            options["subfolder"] = self.folder
        try:
            with quiet_transformers():
                return make_shareable(auto.from_pretrained(self.checkpoint, **options))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        # Libraries meet what anybody may have written into a file: they raise errors of a dozen types, their own too.
        except Exception as error:
            reason = first_line(error)
            if "trust_remote_code" in str(error):
                reason = "it needs code from its own repository; rerun with --trust-remote-code if you trust that"
            kind = auto.__name__.removeprefix("Auto").lower()
            raise InputError(f"cannot load {self} ({kind}): {reason}") from None

    def load_config(self) -> Any:
        return self.load(transformers.AutoConfig)

    def load_tokenizer(self) -> Any:
        """The checkpoint's tokenizer; `InputError` if it has none (transformers would make an empty one up)."""
        self.require(TOKENIZER_FILES, "tokenizer")
        tokenizer = self.load(transformers.AutoTokenizer)
        try:
            tokenizer.tokenize("a")
        except Exception as error:  # what is wrong with some files shows only now
            raise InputError(f"cannot load {self} (tokenizer): {first_line(error)}") from None
        return tokenizer

    def load_model(
        self, auto: Any, is_spare: Callable[[str], bool] = lambda key: False, advice: str = "", **options: Any
    ) -> Any:
        """The model, by the class `auto` of transformers. `is_spare` says which weights may be missing.

        `InputError` if others are, with the `advice`; and how to convert them if all are pickled.
        """
        try:
            model, report = self.load(auto, use_safetensors=True, output_loading_info=True, **options)
        except InputError:
            self.require_safetensors(auto.__name__)
            raise
        if missing := sorted(key for key in report["missing_keys"] if not is_spare(key)):
            names = ", ".join(missing[:3])
            raise InputError(f"{self}: weights are missing from the checkpoint: {names}{advice}")
        return model

    def require_safetensors(self, auto: str = "AutoModel") -> None:
        """`InputError` that says how to convert with the class `auto`, if the checkpoint's weights are pickled only."""
        if self.is_local:
            if any(Path(self.checkpoint).glob("*.safetensors")):
                return
            pickled = [path.name for path in sorted(Path(self.checkpoint).glob("pytorch_model*.bin"))]
        else:
            names = ("pytorch_model.bin", "pytorch_model.bin.index.json")
            try:
                pickled = [each for each in names if hub.has_file(self.checkpoint, each, revision=self.revision)]
            except (OSError, ValueError, hub.httpx.HTTPError):  # no network, no such name: the first error stands
                return
        if pickled:
            code = f"from transformers import {auto} as M; M.from_pretrained(d).save_pretrained(d)"
            raise self.refuse_pickled(pickled[0], code)

    def refuse_pickled(self, file: str, code: str) -> InputError:
        """The error for pickled weights; `code` is Python that converts those of a copy in the directory `d`."""
        if self.is_local:
            copy = f"from shutil import copytree as f; d = f({self.checkpoint!r}, 'converted')"
        else:
            which = f", revision={self.revision!r}" if self.revision else ""
            copy = (
                "from huggingface_hub import snapshot_download as f; "
                f"d = f({self.checkpoint!r}, local_dir='converted'{which})"
            )
        return InputError(
            f"{self} has pickled weights only ({file}), which are not read, since they may hold code; "
            "if you trust them, convert them once: ",
            f'python -c "{copy}; {code}"',
        )

    def identify_weights(self, config: Any = None) -> str:
        """What the weights are known by: the hub's commit in a loaded configuration, or the hash of a directory's."""
        commit = getattr(config, "_commit_hash", None)
        return str(commit or hash_weights(Path(self.checkpoint, self.folder)))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers without its warnings and bars."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def name_export(settings: Mapping[str, object], weights: str) -> str:
    """A file name for what is made of a checkpoint: its weights, and the settings of its model, versions among them."""
    kept = {key: value for key, value in settings.items() if key != "_name_or_path"}
    digest = hashlib.sha256(repr(sorted(kept.items())).encode()).hexdigest()
    name = re.sub(r"[^\w.-]", "_", weights)
    return f"{name}-{digest[:8]}"


def hash_weights(folder: str | Path) -> str:
    """16 hex digits over a directory's safetensors and tokenizer files; the name of what was made from a package.

    Of a directory without safetensors the exports count.
    """
    folder = Path(folder)
    if is_converted(folder):
        return folder.name  # which holds the sha256 of what it was made from
    tokenizer = [path for name in TOKENIZER_FILES if (path := folder / name).is_file()]
    # Dense layers lie in folders of their own.
    weights = sorted(folder.rglob("*.safetensors")) or sorted(p for kind in EXPORTED for p in folder.rglob(kind))
    return hash_files([*weights, *tokenizer])


def hash_files(paths: Iterable[Path]) -> str:
    """16 hex digits over the sha256 of each file, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()[:16]


class OneThreadAtATime:
    """A function that one thread at a time is in."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._lock = RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[type[OneThreadAtATime], tuple[Callable[..., Any]]]:
        return OneThreadAtATime, (self.function,)  # a lock is not copied


def make_shareable(loaded: Any) -> Any:
    """What was given, a tokenizer or what has one, made safe: fast tokenizers keep a call's truncation and padding.

    One thread reads ahead while another asks where the tokens of a text are. Without this, their texts are cut to
    each other's length (seen in tokenizers 0.23).
    """
    tokenizer = getattr(loaded, "tokenizer", loaded)
    encode = getattr(tokenizer, "_encode_plus", None)
    if encode is not None and not isinstance(encode, OneThreadAtATime):
        tokenizer._encode_plus = OneThreadAtATime(encode)  # noqa: SLF001 - transformers has no public place for it
    return loaded


def locate_tokens(tokenizer: Any, texts: Sequence[str], name: str) -> list[np.ndarray]:
    """The tokens of each text as `encoders.base.Tokenizes` gives them; `name` is the encoder's, for the error."""
    if not tokenizer.is_fast:
        raise InputError(f"{name} has a slow tokenizer, which does not say where its tokens are")
    if not texts:
        return []
    # Not verbose: it does not matter here that a text is longer than the model takes.
    how = {"add_special_tokens": False, "truncation": False, "return_offsets_mapping": True, "verbose": False}
    found = tokenizer(list(texts), **how)
    return [np.array(spans, np.int64).reshape(-1, 2) for spans in found["offset_mapping"]]
