"""A system is a line, read once; it becomes a stage when it is bound to a site: an index, or a collection at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..encoders.registry import check_encoder
from ..errors import InputError, list_few
from ..indexes.base import Where
from ..indexes.registry import check_kind
from ..indexes.storage.filters import list_values
from ..multilingual.judges import check_judge
from ..multilingual.languages import parse_language
from ..multilingual.reranking.plan import list_rerankers
from ..multilingual.reranking.rerank import check_unseen
from ..pipeline import Cut, Fusion, Stage, Then, check_description
from ..runs import Exclude, check_exclude
from .grammar import parse
from .stages import IndexPlan, Site, Unbound, Vocabulary, read_stage

if TYPE_CHECKING:
    from ..indexes.base import Index
    from ..multilingual.collections.base import Collection


@dataclass(frozen=True)
class System:
    """A pipeline as a line says it: `line`, and the stages that are still to be bound."""

    line: str
    stage: Stage

    @classmethod
    def parse(
        cls,
        line: str,
        vocabulary: Vocabulary = Vocabulary(),  # noqa: B008 - it is frozen
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> Self:
        """`InputError` says what is wrong with the line, and where. No model is loaded, no index opened."""
        read = partial(read_stage, vocabulary=vocabulary, device=device, trust_remote_code=trust_remote_code)
        system = cls(line, parse(line, read))
        system._check_searches()
        return system

    def _check_searches(self) -> None:
        """`InputError` where queries are rewritten and nothing after that searches for them."""
        if lost := _find_unsearched(self.stage):
            raise InputError(
                f"{lost} changes what is searched for, and no search follows it in {self.line!r}: end with "
                f"one, as in `... >> hybrid`"
            )

    @property
    def parts(self) -> tuple[Unbound, ...]:
        """The stages that its SPECs name, in the order in which they stand."""
        return tuple(part for part in self.stage.parts if isinstance(part, Unbound))

    @property
    def plans(self) -> tuple[IndexPlan, ...]:
        """The indexes that it searches."""
        return tuple(part.plan for part in self.parts if part.plan is not None)

    def depth(self, k: int) -> int:
        """How many documents its searches have to find so that `k` can be given back."""
        cuts = [part.k for part in self.stage.parts if isinstance(part, Cut)]
        return max([k, *cuts, *(part.method.depth for part in self.parts if part.method)])

    def check_named(self) -> None:
        """`InputError` where an encoder, a judge or a kind of index cannot be had here; loads no model."""
        for part in self.parts:
            if part.plan is not None:
                check_kind(part.plan.kind)
                for encoder in part.plan.encoders or ():
                    check_encoder(encoder)
            for written in list_rerankers(part.spec):
                if "@" in written.partition("?")[0]:
                    check_judge(written.partition("@")[2])

    def check_models(self, site: Site) -> None:
        """`InputError` where a model of another package cannot be loaded, or has no stable description; loads it."""
        for part in {part.spec: part for part in self.parts if part.custom}.values():
            check_description(part.bind(site, 0), part.spec)

    def bind(self, site: Site, k: int, wrap: Callable[[Stage], Stage] = lambda stage: stage) -> Stage:
        """The pipeline at work: each of its SPECs bound, with `wrap` around it; searches find `k` documents.

        `InputError` where the site lacks what a stage needs, a model cannot be loaded, or what was loaded has no
        stable description; what comes first in the line is bound first.
        """

        def change(part: Stage) -> Stage:
            if not isinstance(part, Unbound):
                return part
            bound = part.bind(site, k)
            check_description(bound, part.spec)
            return wrap(bound)

        return self.stage.map(change)


def _find_unsearched(stage: Stage, followed: bool = False) -> Unbound | None:
    """A stage that rewrites queries, and that no search follows; what a branch of a fusion rewrites stays within it."""
    if isinstance(stage, Then):
        searches = any(isinstance(part, Unbound) and part.may_search for part in stage.second.parts)
        return _find_unsearched(stage.second, followed) or _find_unsearched(stage.first, followed or searches)
    if isinstance(stage, Fusion):
        return next((lost for each in stage.branches if (lost := _find_unsearched(each))), None)
    return stage if isinstance(stage, Unbound) and stage.rewrites and not followed else None


@dataclass
class OpenSite:
    """What is open already: a finished index, a collection whose topics, runs or documents a line uses, or both.

    `exclude` says which documents a query may not find (`runs.list_excluded`); `unseen` is `refuse` or `keep`. Another
    value of either is an `InputError`.
    """

    opened: Index | None = None
    topics: Collection | None = None
    where: Where | None = None
    exact: bool = False
    unseen: str = "refuse"
    journal: Path | None = None
    exclude: Exclude = "listed"

    def __post_init__(self) -> None:
        check_unseen(self.unseen)
        check_exclude(self.exclude)

    @property
    def collection(self) -> Collection:
        if self.topics is None:
            raise InputError("this stage needs a collection, as `crosslens run` and experiments have one")
        return self.topics

    def count_languages(self) -> Mapping[str, int]:
        """Those of the index, or of the collection where there is none, that `where` keeps."""
        held = self.opened.langs if self.opened is not None else self.collection.check().langs
        kept = [parse_language(each) for each in list_values(self.where, "lang") if isinstance(each, str)]
        return {lang: number for lang, number in held.items() if not kept or lang in kept}

    def index(self, plan: IndexPlan) -> Index:
        """The index, if it is what the line asks for: the same encoders, windows and kind, where those are named."""
        if self.opened is None:
            raise InputError("there is no index to search here: a run is reranked, not retrieved again")
        index, card = self.opened, self.opened.card
        if plan.documents:
            raise InputError(f"{index.path} has one version of its documents: documents= is for experiments")
        names = [spec.name for spec in index.specs]
        if plan.encoders and sorted(plan.encoders) != sorted(names):
            raise InputError(
                f"{index.path} is searched by all its encoders, {list_few(names)}, not by {list_few(plan.encoders)}"
            )
        held = card.passages.windows if card.passages else None
        if plan.windows is not None and plan.windows != held:
            raise InputError(f"{index.path} is an index of {held or 'whole documents'}, not of {plan.windows}")
        if plan.kind not in ("lance", card.kind):
            raise InputError(f"{index.path} is an index of kind {card.kind}, not {plan.kind}")
        return index
