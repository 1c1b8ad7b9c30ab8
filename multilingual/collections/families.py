"""Collections from the files that their publishers give out, one small module a family: `family:WHERE[?key=value]`.

WHERE is a directory that holds the publisher's files, or a data set on the Hugging Face hub (`owner/name`), whose
files are fetched as they are needed; families that know their data sets need no WHERE. No code of a data set is
ever run, so nothing but files of text, Parquet and pictures is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter
from pathlib import Path

from ...errors import InputError, unknown_name
from ...specs import Spec, bound, known_options
from .published import Adapter

FAMILIES = {
    "beir": "beir:Beir",
    "bright": "bright:Bright",
    "browsecomp-plus": "browsecomp:BrowseCompPlus",
    "ciral": "ciral:Ciral",
    "eclektic": "eclektic:Eclektic",
    "hc3": "neuclir:HC3",
    "hc4": "neuclir:HC4",
    "mbeir": "mbeir:MBeir",
    "miracl": "miracl:Miracl",
    "mkqa": "mkqa:Mkqa",
    "neuclir": "neuclir:NeuCLIR",
    "vidore": "vidore:ViDoRe",
    "xm3600": "captions:Crossmodal3600",
    "xtd10": "captions:XTD10",
}


def is_spec(name: str) -> bool:
    """Whether a collection's name is meant as `family:WHERE[?key=value]`, the family known or not."""
    # Two letters at least: `C:\\data` is a path.
    return name in FAMILIES or re.match(r"[A-Za-z][\w-]+[:?]", name) is not None


def load(name: str, *, skip_bad: bool = False) -> Adapter:
    """The collection that a SPEC names; `InputError` lists the families, or the options of the family."""
    spec = Spec.parse(name)
    if spec.family not in FAMILIES:
        raise unknown_name(spec.family, (*FAMILIES, "demo", "irds"), "kind of collection")
    module, _, kind = FAMILIES[spec.family].partition(":")
    adapter: Callable[..., Adapter] = getattr(import_module(f".{module}", __package__), kind)
    options = bound(spec, adapter, skip_bad=skip_bad)
    for key, parameter in known_options(adapter).items():
        if parameter.default is Parameter.empty and key not in options:
            raise InputError(f"{name} does not say which {key}: {getattr(adapter, 'usage', '')}")
    return adapter(spec.checkpoint, **options)


def beir_at(root: Path, *, skip_bad: bool = False) -> Adapter | None:
    """The collection of a directory in BEIR's layout; None for any other."""
    from .beir import Beir

    if not any((root / f"corpus.jsonl{gz}").is_file() for gz in ("", ".gz")):
        return None
    if any((root / f"docs.jsonl{gz}").exists() for gz in ("", ".gz")):
        return None
    return Beir(str(root), skip_bad=skip_bad)
