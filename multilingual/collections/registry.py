"""Which kinds of collections there are, and how a name becomes one. A new kind is one class and one line here.

`family:WHERE[?key=value]`: WHERE is a directory that holds the publisher's files, or a data set on the Hugging Face hub
(`owner/name`), whose files are fetched as they are needed; families that know their data sets need no WHERE. No code of
a data set is ever run, so nothing but files of text, Parquet and pictures is read.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from inspect import Parameter
from pathlib import Path

from ...errors import InputError
from ...specs import Spec, bind_options, find_factory, known_options
from .base import Collection
from .directory import Beir, Directory
from .published import Reading
from .records import find_json_lines

# family -> module and class; it is called with what stands after `family:` (perhaps nothing), and its keyword-only
# parameters are the options that a SPEC may set; `skip_bad` is the caller's.
FAMILIES = {
    "beir": "multilingual.collections.directory:Beir",
    "bright": "multilingual.collections.passages:Bright",
    "browsecomp-plus": "multilingual.collections.passages:BrowseCompPlus",
    "ciral": "multilingual.collections.passages:Ciral",
    "demo": "demo.collection:Demo",
    "eclektic": "multilingual.collections.eclektic:Eclektic",
    "hc3": "multilingual.collections.track:HC3",
    "hc4": "multilingual.collections.track:HC4",
    "irds": "multilingual.collections.irds:IRDatasets",
    "mbeir": "multilingual.collections.pictures:MBeir",
    "miracl": "multilingual.collections.passages:Miracl",
    "mkqa": "multilingual.collections.mkqa:Mkqa",
    "neuclir": "multilingual.collections.track:NeuCLIR",
    "vidore": "multilingual.collections.pictures:ViDoRe",
    "xm3600": "multilingual.collections.pictures:Crossmodal3600",
    "xtd10": "multilingual.collections.pictures:XTD10",
}


def load_collection(name: str | Path, *, skip_bad: bool = False) -> Collection:
    """The collection `demo`, `irds:<ir_datasets id>`, a directory, or publishers' files: `family:WHERE[?key=value]`.

    A directory holds docs.jsonl, or BEIR's corpus.jsonl; a file of JSON lines is a collection of documents alone.
    The families (`neuclir:DIR?year=2023&lang=zho`) are those of `FAMILIES`, those of installed packages (entry points
    `crosslens.collections`), and `py:MODULE:NAME[:WHERE]`. With `skip_bad` malformed lines are counted in `skipped`
    and left out, instead of being errors. `InputError` lists the families, or the options of the family.
    """
    path = Path(name)
    if isinstance(name, str) and _is_spec(name, path):
        return _load_spec(name, skip_bad)
    if find_json_lines(path, "corpus") and not find_json_lines(path, "docs"):
        return Beir(str(path), reading=Reading(skip_bad=skip_bad))
    return Directory(path, skip_bad=skip_bad)


def _load_spec(name: str, skip_bad: bool) -> Collection:
    factory, spec = find_factory(Spec.parse(name), "collections", FAMILIES, "kind of collection")
    known = known_options(factory)
    options = bind_options(spec, factory, **({"skip_bad": skip_bad} if "skip_bad" in known else {}))
    for key, parameter in known.items():
        if parameter.default is Parameter.empty and key not in options:
            raise InputError(f"{name} does not say which {key}: {getattr(factory, 'usage', '')}")
    collection: Collection = factory(spec.checkpoint, **options)
    return collection


def _is_spec(name: str, path: Path) -> bool:
    """Whether a name is meant as `family:WHERE[?key=value]`, the family known or not."""
    if name == "demo" or name.startswith("irds:"):
        return True
    if path.exists():
        return False
    # Two letters at least: `C:\\data` is a path.
    written = re.match(r"[A-Za-z][\w-]+[:?]", name) is not None
    return written or name in FAMILIES or name in entry_points(group="crosslens.collections").names
