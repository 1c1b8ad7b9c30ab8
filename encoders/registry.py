"""Which encoder families there are, and how a SPEC becomes an encoder. A new family is one file and one line here."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ..errors import InputError, check_known, unknown_name
from ..specs import Spec, bound
from .base import Encoder

# family -> module and class; the class has `from_checkpoint(checkpoint, *, device, trust_remote_code, <options>)`,
# whose keyword-only parameters are the options that a SPEC may set.
FAMILIES = {
    "hf": "encoders.transformer:TransformerEncoder",
    "llm": "encoders.llm:LLMEncoder",
    "promptreps": "encoders.promptreps:PromptReps",
    "st": "encoders.sbert:SentenceTransformersEncoder",
    "clip": "multimodal.clip:ClipEncoder",
    "vlm": "multimodal.vlm:VisionLanguageEncoder",
    "ensemble": "encoders.ensemble:Ensemble",
    "late": "encoders.late:Late",
    "splade": "encoders.splade:SpladeEncoder",
}

# `offline:NAME` -> the same, for models that packages carry.
OFFLINE = {
    "e5-small": "encoders.transformer:OfflineE5",
    "use-m3": "encoders.use:UniversalSentenceEncoder",
    "conse": "multimodal.conse:ConSE",
}


def load(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Encoder:
    """The encoder that a SPEC names; `InputError` lists the known families and options."""
    spec = Spec.parse(text)
    if spec.family == "offline":
        check_known(spec.checkpoint, OFFLINE, "offline encoder")
        where = OFFLINE[spec.checkpoint]
    elif spec.family in FAMILIES:
        if not spec.checkpoint:
            raise InputError(f"the SPEC {text!r} names no checkpoint; write {spec.family}:CHECKPOINT")
        where = FAMILIES[spec.family]
    else:
        raise unknown_name(spec.family, (*FAMILIES, "offline"), "encoder family")
    if Path(spec.checkpoint).is_dir() and spec.family != "offline":
        spec = replace(spec, checkpoint=str(Path(spec.checkpoint).resolve()))
    paths = {key: spec.options[key] for key in ("adapter", "base") if spec.options.get(key)}
    paths = {key: str(Path(path).resolve()) for key, path in paths.items() if Path(path).is_dir()}
    spec = replace(spec, options={**spec.options, **paths})
    module, _, name = where.partition(":")
    factory = getattr(import_module(f"..{module}", __package__), name).from_checkpoint
    arguments = bound(spec, factory, device=device, trust_remote_code=trust_remote_code)
    encoder: Encoder = factory(spec.checkpoint, **arguments)
    # The name that an index stores must load the same encoder again from anywhere, its options included. An ensemble
    # names its checkpoint anew, after its members.
    checkpoint = Spec.parse(encoder.spec.name).checkpoint
    encoder.spec = replace(encoder.spec, name=str(replace(spec, checkpoint=checkpoint)))
    return encoder
