"""Which encoder families there are, and how a SPEC becomes an encoder. A new family is one file and one line here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoints.offline.packages import require_package
from ..checkpoints.sizes import describe_checkpoint
from ..errors import InputError, check_known
from ..items import Modality
from ..specs import Spec, bind_options, find_factory, known_options
from ..steps import step
from .base import Encoder, EncoderSpec

# family -> module and class, or function; see `load_encoder` for how it is called.
FAMILIES = {
    "hf": "encoders.transformer:TransformerEncoder",
    "llm": "encoders.llm:LLMEncoder",
    "promptreps": "encoders.promptreps:PromptReps",
    "st": "encoders.sbert:SentenceTransformersEncoder",
    "clip": "multimodal.clip:ClipEncoder",
    "vlm": "multimodal.vlm:VisionLanguageEncoder",
    "ensemble": "encoders.ensemble:Ensemble",
    "late": "multimodal.pages:open_late",
    "splade": "encoders.splade:SpladeEncoder",
}

# `offline:NAME` -> the same, for models that packages carry.
OFFLINE = {
    "e5-use": "encoders.pair:open_offline_pair",
    "e5-small": "encoders.transformer:open_offline_e5",
    "use-m3": "encoders.use:UniversalSentenceEncoder",
    "conse": "multimodal.conse:ConSE",
}

# What packages those of them need that are not of one.
PACKAGES = {"e5-use": ("e5-small", "use-m3"), "conse": ()}

# Families whose checkpoint is a directory or a name on the hub; and what is the same for all checkpoints of a family.
CHECKPOINTS = ("hf", "llm", "promptreps", "st", "vlm", "late", "splade")
TEXT_ONLY = ("hf", "llm", "promptreps", "st", "splade", "offline:e5-use", "offline:e5-small", "offline:use-m3")
MAKES = {**dict.fromkeys(FAMILIES, "dense"), "offline": "dense", "splade": "sparse", "late": "multi"}
del MAKES["promptreps"]  # which its option `rep` says


def load_encoder(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Encoder:
    """The encoder that a SPEC names; `InputError` lists the known families and options.

    A family is one of `FAMILIES`, an entry point of the group `crosslens.encoders`, or `py:MODULE:NAME[:CHECKPOINT]`.
    What it names is called with the checkpoint, if the SPEC has one, and with the SPEC's options: a class's
    `from_checkpoint` if there is one, else the class or function itself. Its keyword-only parameters are the options
    that a SPEC may set, converted by their annotations (a dataclass among them stands for its fields); `device` and
    `trust_remote_code` are given to those who take them. What comes back must be an `Encoder`; its `spec.name` becomes
    the SPEC that loads it again from anywhere.
    """
    factory, spec = _find(text)
    ours = spec.family in (*FAMILIES, "offline")
    with step(f"loading {describe_checkpoint(spec.family, spec.checkpoint)}"):
        encoder = _call(factory, spec, device, trust_remote_code)
    # The name that an index stores must load the same encoder again from anywhere, its options included. An ensemble
    # names its own checkpoint, after its members.
    name = replace(spec, checkpoint=Spec.parse(encoder.spec.name).checkpoint) if ours else spec
    try:
        encoder.spec = replace(encoder.spec, name=str(name))
    except AttributeError:
        raise InputError(f"{spec}: its `spec` cannot be set; make it an attribute") from None
    return encoder


@dataclass(frozen=True)
class Foreseen:
    """What is known of an encoder before it is loaded: what it reads, and the kind of its vectors; None is unknown."""

    modalities: tuple[Modality, ...] | None = None
    kind: str | None = None


def check_encoder(text: str) -> Foreseen:
    """What can be said of the encoder that a SPEC names; `InputError` for a SPEC that is wrong, loading no weights.

    Also where its package is not installed, its directory is not there, or the hub does not answer and has not given it
    before.
    """
    factory, spec = _find(text)
    _bind(factory, spec, "cpu", trust_remote_code=False)
    if spec.family == "offline":
        for package in PACKAGES.get(spec.checkpoint, (spec.checkpoint,)):
            require_package(package)
    elif spec.family in CHECKPOINTS and not spec.checkpoint.startswith("offline:"):
        from ..checkpoints.source import Source

        Source(spec.checkpoint).check()
    name = f"offline:{spec.checkpoint}" if spec.family == "offline" else spec.family
    return Foreseen(("text",) if name in TEXT_ONLY else None, MAKES.get(spec.family))


def _find(text: str) -> tuple[Any, Spec]:
    """What a SPEC's family stands for, and the SPEC as it is meant for that."""
    spec = Spec.parse(text)
    if spec.family == "offline":
        check_known(spec.checkpoint, OFFLINE, "offline encoder")
        return find_factory(Spec(spec.checkpoint), "", OFFLINE, "")[0], spec
    factory, called = find_factory(spec, "encoders", FAMILIES, "encoder family", more=("offline",))
    if spec.family in FAMILIES and not spec.checkpoint:
        raise InputError(f"the SPEC {text!r} names no checkpoint; write {spec.family}:CHECKPOINT")
    if spec.family == "py":
        called = replace(called, family=f"py:{spec.checkpoint.removesuffix(called.checkpoint).rstrip(':')}")
    return factory, _resolve_paths(called)


def _resolve_paths(spec: Spec) -> Spec:
    """The SPEC with whole paths, where it names directories."""
    named = {key: spec.options.get(key, "") for key in ("adapter", "base")} | {"": spec.checkpoint}
    whole = {key: str(Path(path).resolve()) for key, path in named.items() if path and Path(path).is_dir()}
    checkpoint = whole.pop("", spec.checkpoint)
    return replace(spec, checkpoint=checkpoint, options={**spec.options, **whole})


def _bind(
    factory: Any, spec: Spec, device: str, trust_remote_code: bool
) -> tuple[Any, Sequence[str], Mapping[str, object]]:
    """What is called for a SPEC, and with what."""
    factory = getattr(factory, "from_checkpoint", factory)
    options = known_options(factory)
    given = {"device": device, "trust_remote_code": trust_remote_code}
    arguments = bind_options(spec, factory, **{key: value for key, value in given.items() if key in options})
    positional = [spec.checkpoint] if spec.checkpoint else []
    try:
        inspect.signature(factory).bind(*positional, **arguments)
    except TypeError as error:
        raise InputError(f"{spec}: {factory.__qualname__} cannot be called so ({error})") from None
    return factory, positional, arguments


def _call(factory: Any, spec: Spec, device: str, trust_remote_code: bool) -> Encoder:
    factory, positional, arguments = _bind(factory, spec, device, trust_remote_code)
    encoder = factory(*positional, **arguments)
    if not isinstance(encoder, Encoder) or not isinstance(encoder.spec, EncoderSpec):
        raise InputError(
            f"{spec} makes a {type(encoder).__name__}, which is no encoder: it needs `spec`, an EncoderSpec, and "
            "`encode`"
        )
    return encoder
