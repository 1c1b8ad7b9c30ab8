"""The SPEC of a reranker, the stage that it becomes, and `rank` for people without an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache, reduce
from operator import rshift
from pathlib import Path
from typing import NamedTuple

from ...encoders.cache.encoder import CachedEncoder
from ...encoders.registry import load_encoder
from ...errors import InputError, check_known, unknown_name
from ...items import Item, Queries, list_items
from ...pipeline import Stage, check_description
from ...runs import Run
from ..judges import Judge
from ..prompts import Prompt, bind_judge, load_prompt, split_method
from .excerpts import BestPassages
from .exits import check_exit
from .registry import find_sorter
from .rerank import Fuse, Rerank, check_settings, check_sorter, check_unseen
from .sorters import Sorter

# What names mean: a SPEC, or several that rerank one after the other. The weights are compromises of two sets
# (docs/reranking.md): on help pages more of a judge is better still, on the demo more of it does harm. `best` looks
# deeper with the same small model, and gives the first of what it has found to a larger one.
DEFAULT = "likelihood@offline:gemma?depth=20&alpha=0.5&passage_tokens=128"
NAMED: Mapping[str, tuple[str, ...]] = {
    "default": (DEFAULT,),
    "best": (
        "likelihood@offline:gemma?depth=50&alpha=0.5&passage_tokens=128",
        "likelihood@offline:qwen-1.5b?depth=10&alpha=0.5&passage_tokens=128",
    ),
}

ENCODER = "offline:e5-small"  # that chooses passages where `passages=best` names none


@dataclass(frozen=True)
class RerankPlan:
    """A reranker as a SPEC describes it, its model not loaded: what to ask, in what order, of how many."""

    prompt: Prompt
    sort: Sorter
    depth: int
    k: int
    alpha: float
    fuse: Fuse
    options: Mapping[str, object]  # the judge's own
    judge: Callable[[], Judge] = field(repr=False)
    passages: Callable[[], BestPassages | None] = field(repr=False)
    exit: bool

    def load(self, *, unseen: str = "refuse", journal: Path | None = None) -> Rerank:
        """The stage, its models loaded."""
        return Rerank(
            self.judge(), self.prompt, self.sort, self.depth, self.k, self.alpha, unseen, self.fuse, journal,
            self.passages(), self.exit,
        )  # fmt: skip


def parse_reranker(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> RerankPlan:
    """The reranker that a SPEC names: `PROMPT[:SORTER]@FAMILY:CHECKPOINT[?depth=&k=&alpha=&...]`, or `default`.

    Options of the stage, the sorter, the prompt and the judge stand side by side; without a sorter the prompt's own
    is taken. `InputError` says what is wrong with it, before any model is loaded, and for a name of several SPECs
    (`list_rerankers`).
    """
    written, *more = list_rerankers(text)
    if more:
        raise InputError(f"{text} is {len(more) + 1} rerankers one after the other: {' >> '.join((written, *more))}")
    method, spec = split_method(written, "reranker", f"prompt[:sorter]@family:checkpoint, as in {DEFAULT}")
    name, colon, order = method.partition(":")
    if colon and not order:
        raise InputError(f"{written} names no sorter after the colon: write one, or leave the colon out")
    prompt = load_prompt(name)
    kind = find_sorter(order or prompt.sort)
    prompt, load, options, (stage, sort) = bind_judge(
        written, spec, prompt, _settings, kind, device=device, trust_remote_code=trust_remote_code
    )
    depth, k, alpha, fuse, encoder, exit = _settings(**stage)  # type: ignore[arg-type]
    check_settings(depth, k, alpha, "refuse", fuse)
    for_pairs = getattr(kind, "for_pairs", {}) if prompt.most == 2 else {}
    sorter = kind(**{**for_pairs, **sort})
    check_sorter(prompt, sorter)
    if exit:
        check_exit(prompt, sorter, alpha, fuse)
    check_description(sorter, f"the sorter of {written}")

    def choose_passages() -> BestPassages | None:
        if not encoder:
            return None
        return BestPassages(CachedEncoder(load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)))

    return RerankPlan(prompt, sorter, depth, k, alpha, fuse, options, load, choose_passages, exit)


def list_rerankers(text: str) -> tuple[str, ...]:
    """The SPECs that a name stands for, to rerank one after the other; any other text stands for itself.

    `InputError` for a name with options, and for one that is nearly a name and has no model.
    """
    name, mark, _ = text.partition("?")
    if mark and name in NAMED:
        raise InputError(f"{name} takes no options: it stands for {' >> '.join(NAMED[name])}; write that with others")
    if "@" not in text and name not in NAMED and get_close_matches(name, NAMED):
        raise unknown_name(name, NAMED, "name of a reranker")
    return NAMED.get(text, (text,))


def load_reranker(
    text: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    unseen: str = "refuse",
    journal: Path | None = None,
) -> Stage:
    """The reranker that a SPEC names, its models loaded: a `Rerank`, or several one after the other.

    A SPEC is `prompt[:sorter]@family:checkpoint[?key=value&...]`, or `default`, or `best`, which is a cascade.
    `InputError` says what is wrong with it, before any model is loaded.
    """
    plans = [parse_reranker(each, device=device, trust_remote_code=trust_remote_code) for each in list_rerankers(text)]
    check_unseen(unseen)
    first, *more = (plan.load(unseen=unseen, journal=journal) for plan in plans)
    return reduce(rshift, more, first)


_load_once = lru_cache(maxsize=2)(load_reranker)


class RankedItem(NamedTuple):
    """A document of `rank` at its `score`, higher is better; `id` and `text` are those of its `item`."""

    item: Item
    score: float

    @property
    def id(self) -> str:
        return self.item.id

    @property
    def text(self) -> str | None:
        return self.item.text


def rank(
    query: str | Item | Mapping[str, object],
    docs: Queries,
    spec: str | Stage = "default",
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> list[RankedItem]:
    """Rank documents for a query without an index: `rank("...", texts, "setwise:heapsort@hf:Qwen/Qwen3-0.6B")`.

    Texts and dictionaries become items (`items.list_items`); where they have no ids these are their places, from "0".
    All documents come back, best first, each with its score and its text. There is no first stage, so the judge alone
    decides (alpha is 1), and all documents are judged; in a cascade this holds for the first reranker. `InputError`
    says what is wrong with the SPEC or the documents.
    """
    from ..collections.base import InMemoryDocuments
    from ..languages import fill_languages

    if not isinstance(query, str | Item | Mapping):
        raise InputError(f"rank takes one query, as text or an Item, and not {type(query).__name__}")
    stage = _load_once(spec, device=device, trust_remote_code=trust_remote_code) if isinstance(spec, str) else spec
    if isinstance(query, str):
        query = Item("query", query)
    given = list_items(docs, "document", first=0)
    (asked, *items) = fill_languages([*list_items(query), *given])
    for item in (asked, *items):
        if not item.modalities:
            what = "the query" if item is asked else f"document {item.id!r}"
            raise InputError(f"{what} is empty: give it text or a picture")
    held = {item.id: item for item in items}
    if len(held) < len(items):
        raise InputError("two of the documents have the same id")
    first = Run.of([asked]).ranking(
        {asked.id: [(item.id, -float(place)) for place, item in enumerate(items)]}, InMemoryDocuments(held)
    )
    everything = max(len(items), 1)
    run = first
    for place, part in enumerate(stage.parts):
        if not isinstance(part, Rerank):
            raise InputError(f"rank takes rerankers, and {part} is none")
        depth = min(part.depth, everything) if place else everything
        part = replace(part, depth=depth, k=min(part.k, depth), journal=None)
        run = (part if place else replace(part, alpha=1.0, exit=False))(run)
    named = {item.id: item for item in given}
    return [RankedItem(named[hit.id], hit.score) for hit in run[asked.id]]


def _settings(
    *,
    depth: int = 20,
    k: int | None = None,
    alpha: float = 1.0,
    fuse: Fuse = "zscore",
    passages: str = "start",
    encoder: str = "",
    exit: bool = False,
) -> tuple[int, int, float, Fuse, str, bool]:
    """The options of the stage; the encoder is the one that chooses passages, empty where none does."""
    check_known(passages, ("start", "best"), "value of passages")
    if encoder and passages == "start":
        raise InputError(f"encoder={encoder} chooses no passages: add passages=best, or leave it out")
    return (
        depth,
        min(10, depth) if k is None else k,
        alpha,
        fuse,
        (encoder or ENCODER) if passages == "best" else "",
        exit,
    )
