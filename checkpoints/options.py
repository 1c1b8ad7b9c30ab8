"""Options that families of models share: each part is one keyword-only parameter of theirs (`specs.known_options`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import InputError
from .devices import resolve_device
from .source import Source

UNBOUNDED = 1 << 20  # tokens that models without a limit of their own read


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Where a model runs, whether code of its own may run, and which revision of the hub's repository is meant."""

    device: str = "auto"
    trust_remote_code: bool = False
    revision: str | None = None

    @property
    def where(self) -> torch.device:
        """The device; `InputError` for one that is not there."""
        return resolve_device(self.device)

    def find_source(self, checkpoint: str) -> Source:
        return Source(checkpoint, self.revision, self.trust_remote_code)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is read and kept: `max_tokens` counts special tokens; `dim` keeps the first components of a vector.

    The latter is for models that were trained so (Matryoshka; Kusupati et al. 2022). By default both are as much as
    the checkpoint has.
    """

    max_tokens: int | None = None
    dim: int | None = None

    def limit_dim(self, checkpoint: str, width: int) -> int:
        """`InputError` unless the vectors [width] of the checkpoint have so many components."""
        return limit_to(checkpoint, "dim", self.dim, width)

    def limit_tokens(self, checkpoint: str, longest: int, *, least: int = 3, usual: int | None = None) -> int:
        """`InputError` unless `max_tokens` is in `least`..`longest`."""
        return limit_to(checkpoint, "max_tokens", self.max_tokens, longest, least=least, usual=usual)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What stands before texts; by default what the checkpoint's files say, or what is known of it."""

    query_prompt: str | None = None
    document_prompt: str | None = None


def limit_to(
    checkpoint: str, name: str, wanted: int | None, most: int, *, least: int = 1, usual: int | None = None
) -> int:
    """The value of an option: what is `wanted`, else the `usual`, else the `most`.

    `InputError` unless it is in `least`..`most`.
    """
    if wanted is None:
        return usual or most
    if not least <= wanted <= most:
        raise InputError(f"{checkpoint}: {name} must be in {least}..{most}, not {wanted}")
    return wanted


def choose_given(*values: str | None) -> str:
    """The first value that is not None."""
    return next(value for value in values if value is not None)
