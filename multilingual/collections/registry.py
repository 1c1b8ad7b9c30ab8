"""Which kinds of collections there are, and how a name becomes one. A new kind is one class and one line here.

`family:WHERE[?key=value]`: WHERE is a directory that holds the publisher's files, or a data set on the Hugging Face hub
(`owner/name`), whose files are fetched as they are needed; families that know their data sets need no WHERE. No code of
a data set is ever run, so nothing but files of text, Parquet and pictures is read. A path alone becomes the first of
`KINDS` that recognises it.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from inspect import Parameter
from pathlib import Path
from typing import Any

from ...errors import InputError, list_few
from ...specs import Spec, bind_options, check_options, find_factory, known_options
from .base import Collection

# family -> module and class; it is called with what stands after `family:` (perhaps nothing), and its keyword-only
# parameters are the options that a SPEC may set; `skip_bad` is the caller's.
FAMILIES = {
    "beir": "multilingual.collections.directory:Beir",
    "bright": "multilingual.collections.passages:Bright",
    "browsecomp-plus": "multilingual.collections.passages:BrowseCompPlus",
    "ciral": "multilingual.collections.passages:Ciral",
    "dataset": "multilingual.collections.own.datasets:SavedDataset",
    "demo": "demo.collection:Demo",
    "directory": "multilingual.collections.directory:Directory",
    "eclektic": "multilingual.collections.eclektic:Eclektic",
    "folder": "multilingual.collections.own.folder:Folder",
    "hc3": "multilingual.collections.track:HC3",
    "hc4": "multilingual.collections.track:HC4",
    "hfd": "multilingual.collections.own.datasets:HubDataset",
    "irds": "multilingual.collections.irds:IRDatasets",
    "mbeir": "multilingual.collections.pictures:MBeir",
    "miracl": "multilingual.collections.passages:Miracl",
    "mkqa": "multilingual.collections.mkqa:Mkqa",
    "mteb": "multilingual.collections.own.mteb:Mteb",
    "neuclir": "multilingual.collections.track:NeuCLIR",
    "table": "multilingual.collections.own.tables:TableFile",
    "vidore": "multilingual.collections.pictures:ViDoRe",
    "webdataset": "multilingual.collections.own.webdataset:WebDataset",
    "xm3600": "multilingual.collections.pictures:Crossmodal3600",
    "xtd10": "multilingual.collections.pictures:XTD10",
}


# The families that a path may be without being called by their name, in the order in which they are asked. Each class
# says with `recognises(path)`, which reads no file, whether a path is one of its own, and in `taken` what it takes.
KINDS = ("directory", "mteb", "beir", "table", "dataset", "webdataset", "folder")


def load_collection(name: str | Path, *, skip_bad: bool = False, **options: object) -> Collection:
    """The collection `demo`, `irds:<ir_datasets id>`, what lies at a path, or `family:WHERE[?key=value]`.

    A path is a directory that holds docs.jsonl, or BEIR's corpus.jsonl, or one of the other `KINDS`. The families
    (`neuclir:DIR?year=2023&lang=zho`) are those of `FAMILIES`, those of installed packages (entry points
    `crosslens.collections`), and `py:MODULE:NAME[:WHERE]`. `options` are those of the kind, as a SPEC may hold them
    (None: not given). With `skip_bad` what cannot be read is counted in `skipped` and left out, instead of being an
    error. `InputError` lists the families, what paths may be, or the options of the family.
    """
    if isinstance(name, str) and not name.strip():  # as of a variable of the shell that is not set
        raise InputError("the collection has no name; give a path (`.` is this directory), or `demo`, or family:WHERE")
    path = Path(name)
    given = {key: value for key, value in options.items() if value is not None}
    if isinstance(name, str) and _is_spec(name, path):
        return _make(
            name, *find_factory(Spec.parse(name), "collections", FAMILIES, "kind of collection"), given, skip_bad
        )
    if not path.exists():
        raise InputError(f"the collection {name} does not exist; give a path, or `demo`, irds:ID or family:WHERE")
    kinds = {family: _find_kind(family) for family in KINDS}
    for family, kind in kinds.items():
        if kind.recognises(path):
            return _make(str(name), kind, Spec(family, str(path)), given, skip_bad)
    taken = "; ".join(kind.taken for kind in kinds.values())
    what = "is a directory" if path.is_dir() else "is a file"
    raise InputError(f"the collection {name} {what}, but none of what is taken: {taken}")


def _find_kind(family: str) -> Any:
    return find_factory(Spec(family), "collections", FAMILIES, "kind of collection")[0]


def _make(name: str, factory: Any, spec: Spec, options: dict[str, object], skip_bad: bool) -> Collection:
    known = known_options(factory)
    check_options(factory, options, f"option of {spec.family}")
    if twice := options.keys() & spec.options.keys():
        raise InputError(f"{name} says {list_few(sorted(twice))} already: give it once")
    given = options | ({"skip_bad": skip_bad} if "skip_bad" in known else {})
    bound = bind_options(spec, factory, **given)
    if spec.family in KINDS and not spec.checkpoint:
        raise InputError(f"{name} does not say where the files are: {factory.usage}")
    for key, parameter in known.items():
        if parameter.default is Parameter.empty and key not in bound:
            raise InputError(f"{name} does not say which {key}: {getattr(factory, 'usage', '')}")
    collection: Collection = factory(spec.checkpoint, **bound)
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
