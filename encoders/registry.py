"""Which encoder families there are, and how a SPEC becomes an encoder. A new family is one file and one line here."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, check_known
from ..specs import Spec, bind_options, find_factory, known_options
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
    "e5-small": "encoders.transformer:open_offline_e5",
    "use-m3": "encoders.use:UniversalSentenceEncoder",
    "conse": "multimodal.conse:ConSE",
}


def load_encoder(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Encoder:
    """The encoder that a SPEC names; `InputError` lists the known families and options.

    A family is one of `FAMILIES`, an entry point of the group `crosslens.encoders`, or `py:MODULE:NAME[:CHECKPOINT]`.
    What it names is called with the checkpoint, if the SPEC has one, and with the SPEC's options: a class's
    `from_checkpoint` if there is one, else the class or function itself. Its keyword-only parameters are the options
    that a SPEC may set, converted by their annotations (a dataclass among them stands for its fields); `device` and
    `trust_remote_code` are given to those who take them. What comes back must be an `Encoder`; its `spec.name` becomes
    the SPEC that loads it again from anywhere.
    """
    spec = Spec.parse(text)
    ours = spec.family in (*FAMILIES, "offline")
    if spec.family == "offline":
        check_known(spec.checkpoint, OFFLINE, "offline encoder")
        factory = find_factory(Spec(spec.checkpoint), "", OFFLINE, "")[0]
    else:
        factory, called = find_factory(spec, "encoders", FAMILIES, "encoder family", more=("offline",))
        if ours and not spec.checkpoint:
            raise InputError(f"the SPEC {text!r} names no checkpoint; write {spec.family}:CHECKPOINT")
        if spec.family == "py":
            called = replace(called, family=f"py:{spec.checkpoint.removesuffix(called.checkpoint).rstrip(':')}")
        spec = _resolve_paths(called)
    encoder = _call(factory, spec, device, trust_remote_code)
    # The name that an index stores must load the same encoder again from anywhere, its options included. An ensemble
    # names its own checkpoint, after its members.
    name = replace(spec, checkpoint=Spec.parse(encoder.spec.name).checkpoint) if ours else spec
    try:
        encoder.spec = replace(encoder.spec, name=str(name))
    except AttributeError:
        raise InputError(f"{spec}: its `spec` cannot be set; make it an attribute") from None
    return encoder


def _resolve_paths(spec: Spec) -> Spec:
    """The SPEC with whole paths, where it names directories."""
    named = {key: spec.options.get(key, "") for key in ("adapter", "base")} | {"": spec.checkpoint}
    whole = {key: str(Path(path).resolve()) for key, path in named.items() if path and Path(path).is_dir()}
    checkpoint = whole.pop("", spec.checkpoint)
    return replace(spec, checkpoint=checkpoint, options={**spec.options, **whole})


def _call(factory: Any, spec: Spec, device: str, trust_remote_code: bool) -> Encoder:
    factory = getattr(factory, "from_checkpoint", factory)
    options = known_options(factory)
    given = {"device": device, "trust_remote_code": trust_remote_code}
    arguments = bind_options(spec, factory, **{key: value for key, value in given.items() if key in options})
    positional = [spec.checkpoint] if spec.checkpoint else []
    try:
        inspect.signature(factory).bind(*positional, **arguments)
    except TypeError as error:
        raise InputError(f"{spec}: {factory.__qualname__} cannot be called so ({error})") from None
    encoder = factory(*positional, **arguments)
    if not isinstance(encoder, Encoder) or not isinstance(encoder.spec, EncoderSpec):
        raise InputError(
            f"{spec} makes a {type(encoder).__name__}, which is no encoder: it needs `spec`, an EncoderSpec, and "
            "`encode`"
        )
    return encoder
