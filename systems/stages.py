"""What the SPECs in a line stand for: one registry of stages, each known before any model or index is opened.

A line is read into unbound stages (`System.parse`), which become stages when they are bound to a site: an index, or a
collection at work. A new stage is a function here that reads its options, and a line in `STAGES`; one from another
package is any `Stage`, named `py:MODULE:NAME` or by an entry point of the group `crosslens.stages`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from hashlib import sha256
from operator import rshift
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import InputError, check_known
from ..files import hash_file
from ..indexes.base import Mode, Retrieve, Where
from ..indexes.merging import STRENGTH, check_merge
from ..indexes.storage.card import Windows
from ..indexes.storage.filters import list_values
from ..items import Item
from ..multilingual.collections.base import fetch_documents
from ..multilingual.judges import JUDGES
from ..multilingual.languages import fill_languages, parse_language
from ..multilingual.reranking.plan import NAMED, RerankPlan, list_rerankers, parse_reranker
from ..multilingual.rewriting.feedback import Average, Rocchio
from ..multilingual.rewriting.plan import REWRITERS, is_rewriter, parse_rewriter
from ..multilingual.rewriting.rewrites import Rewritten
from ..multilingual.rewriting.rm3 import RM3
from ..multilingual.rewriting.translation import Translated
from ..multilingual.rewriting.translation_queries import parse_query_translation
from ..pipeline import Stage, check_description, describe_fields
from ..runs import Documents, Exclude, Run
from ..specs import Spec, bind_options, find_factory

if TYPE_CHECKING:
    from ..indexes.base import Index
    from ..multilingual.collections.base import Collection


@dataclass(frozen=True)
class IndexPlan:
    """An index that a line searches: of which documents, by which encoders, whole or in windows of tokens.

    `encoders` are SPECs, empty where full text alone is searched, None for those that the site takes by default;
    `documents` is another version of the collection's documents, empty for its own.
    """

    encoders: tuple[str, ...] | None = None
    documents: str = ""
    windows: Windows | None = None
    kind: str = "lance"


@dataclass(frozen=True)
class Vocabulary:
    """Short names that lines may use: of encoders (for SPECs) and of versions of the documents (for collections).

    `fields` are those of topics where a line does not choose them.
    """

    encoders: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, str] = field(default_factory=dict)
    fields: str | None = None


class Site(Protocol):
    """Where a line runs, and what is the same for all of its stages there.

    `where` and `exact` hold for every search, `exclude` for every search and run that does not choose itself, `unseen`
    and `journal` for every reranker.
    """

    where: Where | None
    exact: bool
    exclude: Exclude
    unseen: str
    journal: Path | None

    @property
    def collection(self) -> Collection:
        """The collection whose topics are searched; `InputError` where there is none."""
        ...

    def index(self, plan: IndexPlan) -> Index:
        """The finished index; `InputError` where the site has none that is like this."""
        ...

    def count_languages(self) -> Mapping[str, int]:
        """How many of the documents that are searched are in each language, as far as that is known."""
        ...


@dataclass(frozen=True)
class Unbound(Stage):
    """A stage as a line names it: `spec` is its text there; `bind` gives the stage itself at a site.

    `bind` also takes how many documents searches find for each query. A search has the `plan` of its index, its `mode`,
    and the languages `langs` that it keeps; a reranker has its `method`. `rewrites` says that it changes what a later
    search searches for, and `custom` that its model is another package's.
    """

    spec: str
    bind: Callable[[Site, int], Stage] = field(compare=False, repr=False)
    plan: IndexPlan | None = None
    mode: Mode | None = None
    langs: tuple[str, ...] = ()
    method: RerankPlan | None = field(default=None, compare=False)
    rewrites: bool = field(default=False, compare=False)
    custom: bool = field(default=False, compare=False)

    @property
    def may_search(self) -> bool:
        """Whether it searches; a stage of another package may."""
        head = self.spec.partition("?")[0]
        return self.plan is not None or not (self.rewrites or self.method or head.partition("@")[0] in STAGES)

    def __str__(self) -> str:
        return self.spec


@dataclass(frozen=True)
class Worded(Stage):
    """Puts other wordings of the queries, found by their ids, in their place; hits stay."""

    queries: tuple[Item, ...] = field(repr=False, compare=False)
    content: str = field(default="", init=False)

    def __post_init__(self) -> None:
        listed = "\n".join(f"{query.id} {query.content_hash()}" for query in self.queries)
        object.__setattr__(self, "content", sha256(listed.encode("utf-8", "surrogatepass")).hexdigest()[:16])

    def apply(self, run: Run, count: Counter[str]) -> Run:
        worded = {query.id: query for query in self.queries}
        kept = tuple(worded[query.id] for query in run.queries if query.id in worded)
        if not kept:
            raise InputError("no query of the run has this wording: topics of another language, or another source")
        count["left_out"] = len(run.queries) - len(kept)
        return replace(run, queries=kept)

    def __str__(self) -> str:
        return "topics"


@dataclass(frozen=True)
class FromFile(Stage):
    """The hits of a TREC run in place of the run's own, its documents those of the collection.

    Without what `exclude` says (`runs.list_excluded`).
    """

    path: Path = field(compare=False)
    collection: Collection = field(compare=False, repr=False)
    exclude: Exclude = "listed"
    content: str = field(default="", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", hash_file(self.path)[:16])

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return run.ranking(Run.from_trec(self.path, run.queries).hits, self.docs).drop_excluded(self.exclude)

    def describe(self) -> object:
        own = describe_fields(self)
        if self.exclude == "listed":  # as `Retrieve.describe`
            del own["exclude"]
        return own

    @property
    def docs(self) -> Documents:
        """Where its documents are found: in the collection, read through once for every call."""
        return self

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The items of `ids`, in that order; `InputError` naming ids that are not there."""
        return fetch_documents(self.collection, ids).get(ids)

    def __str__(self) -> str:
        return f"run({self.path.name})"


def plan_retrieval(
    mode: Mode,
    text: str,
    vocabulary: Vocabulary,
    *,
    encoder: str = "",
    documents: str = "",
    lang: str = "",
    correct: bool = True,
    merge: float = STRENGTH,
    index: str = "lance",
    passages: bool | Literal["also"] = False,
    window: int | None = None,
    stride: int | None = None,
    exclude: Exclude | None = None,
) -> Unbound:
    """`encoder` and `documents` are short names of the vocabulary, an encoder also a SPEC; `lang` keeps documents.

    `exclude` (`listed`, `self` or `none`) is by default that of the site.
    """
    encoders: tuple[str, ...] | None = () if mode == "lexical" else None
    if encoder and mode == "lexical":
        raise InputError(f"{text}: lexical search has no encoder")
    if encoder:
        names = encoder.split(",")
        for name in names:
            if ":" not in name:
                check_known(name, vocabulary.encoders, f"encoder in {text}:")
        encoders = tuple(vocabulary.encoders.get(name, name) for name in names)
    if documents:
        check_known(documents, vocabulary.documents, f"documents in {text}:")
    check_merge(merge)
    split = passages or window is not None or stride is not None
    windows = Windows.of(window, stride, whole=passages == "also") if split else None
    plan = IndexPlan(encoders, vocabulary.documents.get(documents, ""), windows, index)
    langs = tuple(parse_language(each) for each in lang.split(",")) if lang else ()

    def bind(site: Site, k: int) -> Stage:
        where = dict(site.where or {})
        if langs:
            where["lang"] = [*list_values(where, "lang"), *langs]
        index = site.index(plan)
        index.check_search(Run(()), mode, where)  # the queries may still be rewritten
        kept = exclude or site.exclude
        return Retrieve(index, mode, k, where or None, site.exact, correct, merge, kept)

    return Unbound(text, bind, plan, mode, langs)


def plan_topics(
    text: str,
    vocabulary: Vocabulary,
    *,
    fields: str | None = None,
    lang: str | None = None,
    source: Literal["original", "human", "machine"] | None = None,
) -> Unbound:
    """The collection's own topics take the queries' place: `fields`, `lang` and `source` choose their wording.

    Queries that have no such wording, as they are not meant for the language, are left out from there on.
    """
    code = parse_language(lang) if lang else None

    def bind(site: Site, k: int) -> Stage:
        topics = site.collection.queries(fields=fields or vocabulary.fields, lang=code, source=source)
        return Worded(tuple(fill_languages(topics)))

    return Unbound(text, bind)


def plan_translations(text: str, vocabulary: Vocabulary, *, file: str = "", to: str | None = None) -> Unbound:
    """`file` holds the queries in another language, `to` says in which where it does not."""
    if not Path(file).is_file():
        raise InputError(f"{text}: there is no file {file!r}; write translations?file=PATH")
    stage = Translated(Path(file), to)
    return Unbound(text, lambda site, k: stage)


def plan_run(text: str, vocabulary: Vocabulary, *, file: str = "", exclude: Exclude | None = None) -> Unbound:
    """`file` is a TREC run made elsewhere."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{text}: there is no run {file!r}; write run?file=PATH")
    return Unbound(text, lambda site, k: FromFile(path, site.collection, exclude or site.exclude))


def plan_rocchio(
    text: str, vocabulary: Vocabulary, *, docs: int = 3, alpha: float = 1.0, beta: float = 0.25, gamma: float = 0.0
) -> Unbound:
    """`docs` are how many first documents, and with `gamma` last ones; the others weigh query, first and last."""
    stage = Rocchio(docs, alpha, beta, gamma)
    return Unbound(text, lambda site, k: stage)


def plan_average(text: str, vocabulary: Vocabulary, *, docs: int = 3) -> Unbound:
    """`docs` are how many first documents."""
    stage = Average(docs)
    return Unbound(text, lambda site, k: stage)


def plan_rm3(text: str, vocabulary: Vocabulary, *, docs: int = 3, terms: int = 40, weight: float = 1.0) -> Unbound:
    """`docs` are how many first documents, `terms` how many words of each language, `weight` is the query's."""
    stage = RM3(docs, terms, weight)
    return Unbound(text, lambda site, k: stage)


def plan_translate(text: str, device: str, trust_remote_code: bool) -> Unbound:
    """`translate@FAMILY:CHECKPOINT?to=`: the queries in another language, by a model."""
    load = parse_query_translation(text, device=device, trust_remote_code=trust_remote_code)
    return Unbound(text, lambda site, k: load(site.count_languages))


def plan_rewrites(text: str, vocabulary: Vocabulary, *, file: str = "") -> Unbound:
    """`file` holds the queries as they were rewritten, by `crosslens rewrite` or beside a run."""
    if not Path(file).is_file():
        raise InputError(f"{text}: there is no file {file!r}; write rewrites?file=PATH")
    stage = Rewritten(Path(file))
    return Unbound(text, lambda site, k: stage)


def plan_rewriter(text: str, device: str, trust_remote_code: bool) -> Unbound:
    """`METHOD[:FILE.toml]@FAMILY:CHECKPOINT`: what a model writes for the queries is searched for."""
    rewriting = parse_rewriter(text, device=device, trust_remote_code=trust_remote_code)
    return Unbound(text, lambda site, k: rewriting.load(site.count_languages))


def plan_reranker(text: str, device: str, trust_remote_code: bool) -> Unbound:
    """`PROMPT[:SORTER]@FAMILY:CHECKPOINT`, or `default`."""
    method = parse_reranker(text, device=device, trust_remote_code=trust_remote_code)
    return Unbound(text, lambda site, k: method.load(unseen=site.unseen, journal=site.journal), method=method)


@dataclass(frozen=True)
class StageKind:
    """What a name in a line stands for; `needs` says of what the stage works: `an index`, `a collection`, ...

    `read` takes the text and the vocabulary, and its keyword-only parameters are the options of the stage; that of a
    stage with a model (`NAME@FAMILY:CHECKPOINT`) takes the text, the device and whether code of checkpoints may run.
    One that `rewrites` is for the search that follows it.
    """

    read: Callable[..., Unbound]
    needs: str
    model: bool = False
    rewrites: bool = False


# A name with a model that is not here is that of a prompt, and the stage a reranker.
RERANKER = StageKind(plan_reranker, "hits and their documents", model=True)
REWRITER = StageKind(plan_rewriter, "queries", model=True, rewrites=True)
STAGES: Mapping[str, StageKind] = {
    "dense": StageKind(partial(plan_retrieval, "dense"), "an index with vectors"),
    "lexical": StageKind(partial(plan_retrieval, "lexical"), "an index with full text"),
    "hybrid": StageKind(partial(plan_retrieval, "hybrid"), "an index with both"),
    "topics": StageKind(plan_topics, "a collection"),
    "run": StageKind(plan_run, "a collection"),
    "translations": StageKind(plan_translations, "queries"),
    "translate": StageKind(plan_translate, "queries", model=True),
    "rewrites": StageKind(plan_rewrites, "queries", rewrites=True),
    **dict.fromkeys(REWRITERS, REWRITER),
    "feedback": replace(REWRITER, needs="hits and their documents"),
    "rocchio": StageKind(plan_rocchio, "hits and their documents", rewrites=True),
    "average": StageKind(plan_average, "hits and their documents", rewrites=True),
    "rm3": StageKind(plan_rm3, "hits of an index with full text", rewrites=True),
    **dict.fromkeys(NAMED, RERANKER),
}


def read_stage(text: str, vocabulary: Vocabulary, *, device: str = "auto", trust_remote_code: bool = False) -> Stage:
    """The stage that a SPEC in a line names, or several where a name stands for a cascade; they are `Unbound`.

    `InputError` lists the known ones and their options. Loads no model.
    """
    if len(cascade := list_rerankers(text)) > 1:
        return reduce(rshift, (plan_reranker(each, device, trust_remote_code) for each in cascade))
    head, at, model = text.partition("?")[0].partition("@")
    kind = STAGES.get(head, (REWRITER if is_rewriter(head) else RERANKER) if at else None)
    if kind is not None and kind.model:
        stage = kind.read(text, device, trust_remote_code)
        return replace(stage, rewrites=kind.rewrites, custom=bool(at) and Spec.parse(model).family not in JUDGES)
    spec = Spec.parse(text)
    if kind is not None:
        if at:
            raise InputError(f"the stage {head} has no model: leave out @{model}")
        return replace(kind.read(text, vocabulary, **bind_options(spec, kind.read)), rewrites=kind.rewrites)
    plain = [name for name, each in STAGES.items() if not each.model or name in NAMED]
    modelled = [f"{name}@family:checkpoint" for name, each in STAGES.items() if each.model and name not in NAMED]
    more = (*plain, *modelled, "prompt@family:checkpoint")
    made, spec = find_factory(spec, "stages", {}, "stage", more=more)
    own: Any = made(**bind_options(spec, made))
    if not isinstance(own, Stage):
        raise InputError(f"{text} makes a {type(own).__name__}, which is no Stage of crosslens")
    if isinstance(own, Unbound):
        return own
    check_description(own, text)
    return Unbound(text, lambda site, k: own)
