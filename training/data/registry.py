"""Which sources of pairs there are, and how a SPEC becomes one. A new source is one file and one line here."""

from __future__ import annotations

from importlib.resources import files

from ...errors import InputError
from ...specs import Spec, bind_options, find_factory, known_options
from .base import PairSource
from .generation import load_generator

# name -> what mines pairs without a language model; its keyword-only parameters (or fields) are the options that a
# SPEC may set, and `device` is given to those who take it. Other packages add theirs by entry points of
# `crosslens.sources`. What a language model writes is named by a prompt: `inpars@FAMILY:CHECKPOINT`.
SOURCES = {
    "ict": "training.data.ict:InverseCloze",
    "titles": "training.data.titles:Titles",
    "anchors": "training.data.anchors:Anchors",
    "translations": "training.data.translations:Translations",
}


def list_sources() -> list[str]:
    """The names of the sources here: prompts, with a model after them, and those that need none."""
    prompts = sorted(each.name.removesuffix(".toml") for each in files(__package__).iterdir() if ".toml" in each.name)
    return [*(f"{name}@family:checkpoint" for name in prompts), *SOURCES]


def load_source(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> PairSource:
    """The source that a SPEC names: `inpars@FAMILY:CHECKPOINT?...`, `ict`, `titles`, `py:MODULE:NAME`, ...

    `InputError` lists the known sources and options.
    """
    if "@" in text.partition("?")[0]:
        return load_generator(text, device=device, trust_remote_code=trust_remote_code)
    spec = Spec.parse(text)
    if (files(__package__) / f"{spec.family}.toml").is_file():
        raise InputError(f"{text!r} names no model; write {spec.family}@family:checkpoint")
    factory, spec = find_factory(spec, "sources", SOURCES, "source of pairs")
    if spec.checkpoint:
        raise InputError(f"{text}: a source takes nothing after its name but options, as in ict?n=2")
    known = known_options(factory)
    given = {"device": device, "trust_remote_code": trust_remote_code}
    source: PairSource = factory(**bind_options(spec, factory, **{key: given[key] for key in given if key in known}))
    return source
