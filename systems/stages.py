"""What the SPECs in a pipeline mean: each becomes a leaf, known before any model is loaded, and later a stage.

A new one is a class here and a line in `LEAVES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import InputError, unknown_name
from ..evaluation.experiment.plan import Plan
from ..indexes.base import Mode
from ..indexes.card import Windows
from ..items import Item
from ..multilingual.collections.base import documents
from ..multilingual.collections.topics import Source
from ..multilingual.languages import iso, with_languages
from ..multilingual.reranking import rerank
from ..multilingual.rewriting import translation
from ..pipeline import Stage
from ..runs import Documents, Run
from ..specs import Spec, bound

if TYPE_CHECKING:
    from ..indexes.base import Index
    from ..multilingual.collections.base import Collection


@dataclass(frozen=True)
class Wanted:
    """An index that a pipeline searches: of which documents, by which encoders, whole or in windows of tokens.

    `encoders` are SPECs, empty where full text alone is wanted, None for the collection's default ones; `documents`
    is another version of the collection's documents, empty for its own.
    """

    encoders: tuple[str, ...] | None = None
    documents: str = ""
    windows: Windows | None = None
    kind: str = "lance"


class Site(Protocol):
    """What a collection at work offers to leaves."""

    collection: Collection
    plan: Plan
    bar: Callable[[int], None] | None  # told how much of the stage at work is done

    def index(self, wanted: Wanted) -> Index:
        """The finished index; made where it is not there yet."""
        ...


class Leaf(Stage):
    """A frozen dataclass that knows what it will need, and becomes a stage at a site."""

    @property
    def wanted(self) -> Wanted | None:
        """The index that it searches, if it does."""
        return None

    def at(self, site: Site) -> Stage:
        """The stage itself."""
        raise NotImplementedError


@dataclass(frozen=True)
class Retrieval(Leaf):
    """`dense`, `lexical` or `hybrid`: exact search of an index."""

    spec: str
    mode: Mode
    index: Wanted
    k: int
    langs: tuple[str, ...] = ()
    correct: bool = True

    @property
    def wanted(self) -> Wanted:
        return self.index

    def at(self, site: Site) -> Stage:
        from ..indexes.retrieve import Retrieve

        where = {"lang": list(self.langs)} if self.langs else None
        return Retrieve(site.index(self.index), self.mode, self.k, where, True, self.correct)

    def __str__(self) -> str:
        return self.spec


def _retrieval(
    mode: Mode,
    plan: Plan,
    spec: str,
    *,
    encoder: str = "",
    documents: str = "",
    lang: str = "",
    correct: bool = True,
    index: str = "lance",
    passages: bool = False,
    window: int | None = None,
    stride: int | None = None,
) -> Leaf:
    """`encoder` and `documents` are names of the plan's tables, an encoder also a SPEC; `lang` keeps documents."""
    encoders: tuple[str, ...] | None = () if mode == "lexical" else None
    if encoder and mode == "lexical":
        raise InputError(f"{spec}: lexical search has no encoder")
    if encoder:
        names = encoder.split(",")
        for name in names:
            if name not in plan.encoders and ":" not in name:
                raise unknown_name(name, tuple(plan.encoders), f"encoder in {spec}:")
        encoders = tuple(plan.encoders.get(name, name) for name in names)
    if documents and documents not in plan.documents:
        raise unknown_name(documents, tuple(plan.documents), f"documents in {spec}:")
    split = passages or window is not None or stride is not None
    windows = Windows.of(window, stride) if split else None
    wanted = Wanted(encoders, plan.documents.get(documents, ""), windows, index)
    langs = tuple(iso(each) for each in lang.split(",")) if lang else ()
    return Retrieval(spec, mode, wanted, plan.k, langs, correct)


@dataclass(frozen=True)
class Reranking(Leaf):
    """`PROMPT[:SORTER]@FAMILY:CHECKPOINT`: a reranker."""

    spec: str
    method: rerank.Method = field(compare=False)

    def at(self, site: Site) -> Stage:
        return self.method.loaded(unseen=site.plan.unseen, progress=site.bar)

    def __str__(self) -> str:
        return self.spec


@dataclass(frozen=True)
class Translating(Leaf):
    """`translate@FAMILY:CHECKPOINT?to=`: the queries in another language, by a model."""

    spec: str
    load: Callable[[], translation.Translate] = field(compare=False)

    def at(self, site: Site) -> Stage:
        return self.load()

    def __str__(self) -> str:
        return self.spec


@dataclass(frozen=True)
class Finding(Leaf):
    """`translations?file=PATH`: the queries in the words that a file has for them."""

    spec: str
    stage: translation.Translated

    def at(self, site: Site) -> Stage:
        return self.stage

    def __str__(self) -> str:
        return self.spec


@dataclass(frozen=True)
class Wording(Leaf):
    """`topics?lang=&source=&fields=`: the collection's own topics in another wording take the queries' place.

    Queries that have no such wording, as they are not meant for the language, are left out from there on.
    """

    spec: str
    fields: str | None = None
    lang: str | None = None
    source: Source | None = None

    def at(self, site: Site) -> Stage:
        worded = site.collection.queries(fields=self.fields, lang=self.lang, source=self.source)
        return Worded(tuple(with_languages(worded)))

    def __str__(self) -> str:
        return self.spec


@dataclass(frozen=True)
class Worded(Stage):
    """Puts other wordings of the queries, found by their ids, in their place; hits stay."""

    queries: tuple[Item, ...] = field(repr=False, compare=False)
    content: str = ""

    def __post_init__(self) -> None:
        told = "\n".join(f"{query.id} {query.content_hash()}" for query in self.queries)
        object.__setattr__(self, "content", sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16])

    def apply(self, run: Run, count: Counter[str]) -> Run:
        worded = {query.id: query for query in self.queries}
        kept = tuple(worded[query.id] for query in run.queries if query.id in worded)
        if not kept:
            raise InputError(
                "no query of the run has this wording: topics of another language, or another source"
            )
        count["left_out"] = len(run.queries) - len(kept)
        return replace(run, queries=kept)

    def __str__(self) -> str:
        return "topics"


@dataclass(frozen=True)
class Recorded(Leaf):
    """`run?file=PATH`: a TREC run made elsewhere."""

    spec: str
    file: str

    def at(self, site: Site) -> Stage:
        path = Path(self.file)
        try:
            content = sha256(path.read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise InputError(f"cannot read the run {path}: {error.strerror}") from None
        return FromFile(path, content, site.collection)

    def __str__(self) -> str:
        return self.spec


@dataclass(frozen=True)
class FromFile(Stage):
    """The hits of a TREC run in place of the run's own, its documents those of the collection."""

    path: Path = field(compare=False)
    content: str
    collection: Collection = field(compare=False, repr=False)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return run.ranking(Run.from_trec(self.path, run.queries).hits, self.docs)

    @property
    def docs(self) -> Documents:
        """Where its documents are found."""
        return Streamed(self.collection)

    def __str__(self) -> str:
        return f"run({self.path.name})"


@dataclass(frozen=True)
class Streamed:
    """The documents of a collection as `Documents`, read through once for every call."""

    collection: Collection

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The items of `ids`, in that order; `InputError` naming ids that are not there."""
        return documents(self.collection, ids).get(ids)


def _wording(
    plan: Plan,
    spec: str,
    *,
    fields: str | None = None,
    lang: str | None = None,
    source: Literal["original", "human", "machine"] | None = None,
) -> Leaf:
    return Wording(spec, fields or plan.fields, iso(lang) if lang else None, source)


def _finding(plan: Plan, spec: str, *, file: str = "", to: str | None = None) -> Leaf:
    if not Path(file).is_file():
        raise InputError(f"{spec}: there is no file {file!r}; write translations?file=PATH")
    return Finding(spec, translation.Translated(Path(file), to))


def _recorded(plan: Plan, spec: str, *, file: str = "") -> Leaf:
    if not Path(file).is_file():
        raise InputError(f"{spec}: there is no run {file!r}; write run?file=PATH")
    return Recorded(spec, file)


# name -> what a SPEC of that name becomes; keyword-only parameters are its options.
LEAVES: Mapping[str, Callable[..., Leaf]] = {
    "dense": partial(_retrieval, "dense"),
    "lexical": partial(_retrieval, "lexical"),
    "hybrid": partial(_retrieval, "hybrid"),
    "topics": _wording,
    "run": _recorded,
    "translations": _finding,
}


def read(text: str, plan: Plan, *, device: str = "auto", trust_remote_code: bool = False) -> Leaf:
    """The leaf that a SPEC names; `InputError` lists the known ones and their options. No model is loaded."""
    if text.startswith("translate@"):
        load = translation.read(text, device=device, trust_remote_code=trust_remote_code)
        return Translating(text, load)
    if "@" in text or text == "default":
        return Reranking(text, rerank.read(text, device=device, trust_remote_code=trust_remote_code))
    spec = Spec.parse(text)
    if spec.family not in LEAVES:
        known = (*LEAVES, "translate@family:checkpoint", "prompt@family:checkpoint")
        raise unknown_name(spec.family, known, "stage")
    make = LEAVES[spec.family]
    return make(plan, text, **bound(spec, make))
