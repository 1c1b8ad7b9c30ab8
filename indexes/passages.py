"""Documents found by their best passage: split into overlapping windows of tokens, each at its best one's score."""

from __future__ import annotations

import json
import math
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import numpy as np

from ..encoders.base import Encoder, Tokenizes, has_spans
from ..errors import InputError, list_few
from ..items import Item, SeenIds, hash_text, windows
from ..pipeline import Stage
from ..runs import Hit, Run, list_excluded
from .base import Index, Mode, PortionWriter, Retrieve, check_ids
from .encoding import SpaceEncoders
from .index import DocumentIndex
from .joint import DocumentPart
from .snapshot import Snapshot
from .storage.card import FIRST, JointWindows, Passages, Recall, Windows
from .storage.filters import Where
from .storage.resume import ItemState, StoredStates
from .storage.rows import EXPANSIONS, PASSAGE
from .storage.tables import Tables

TOGETHER = 64  # documents split at a time
SPREAD = 4  # passages a document that a search first looks for, at most
SPACE, MARK, JOINER, FLAG = 1, 2, 3, 4  # what code points are to their neighbours, where a text may be cut
PLANES = 0x20000  # code points below are looked up


def take_best(hits: Iterable[Hit]) -> list[Hit]:
    """Documents for hits that are passages, each at the score of its best one (Dai and Callan 2019); in no order."""
    best: dict[str, float] = {}
    for passage, score in hits:
        doc = _document_of(passage)
        best[doc] = max(score, best.get(doc, -math.inf))
    return [Hit(doc, score) for doc, score in best.items()]


class PassageIndex(Index):
    """An index of documents (`indexes.base.Index`) whose rows, in the index `passages`, are parts of documents.

    Passages have the ids `DOCUMENT#NUMBER`, the language and metadata of their document, and under `_passage` in
    their metadata what they are: `document`, `number` (from 0), `of` (how many), `start` (in characters), and a hash of
    the `whole` text where that counts, too (`JointWindows`). A picture, other media and what a document was expanded
    with are in the first one. To rerank or to show passages, search
    `passages` itself: `MaxP` makes documents of its runs.
    """

    def __init__(self, passages: DocumentIndex) -> None:
        self.passages = passages
        self.encoders = passages.encoders

    def list_merged(self) -> list[str]:
        return self.passages.list_merged()

    @property
    def snapshot(self) -> Snapshot:
        return self.passages.snapshot

    @property
    def _settings(self) -> Passages:
        assert self.card.passages is not None
        return self.card.passages

    def view(self) -> Self:
        view = self.passages.view()
        return self if view is self.passages else type(self)(view)

    def follow(self) -> bool:
        return self.passages.follow()

    def check_search(self, run: Run, mode: Mode, where: Where | None = None) -> None:
        self.passages.check_search(run, mode, where)

    def build(self, ann: str = "auto") -> Recall:
        self.follow()
        self.require_complete()
        return self.passages.build(ann)

    def __len__(self) -> int:
        """Documents, not passages."""
        if self.card.complete:
            return self.card.documents
        return int(self.storage.tables.documents.count_rows(f"id LIKE '%{FIRST}'"))

    # Writing

    def store(
        self, items: Iterable[Item], encoders: Sequence[Encoder], cluster: PortionWriter | None, window: int
    ) -> Generator[tuple[int, int]]:
        """Split, encode and store documents as they come; counts them, while `window` counts passages.

        A rerun encodes the passages that are not stored as they are; those that a changed document no longer has are
        taken out. `InputError`, too, if no encoder can say where its tokens are, if a window does not fit into it,
        and on metadata with the key `_passage`.
        """
        tokenizer = choose_tokenizer(self._settings.windows, encoders, self._settings.encoder, self.encoders)

        def split_all(states: StoredStates) -> Iterator[Item]:
            assert tokenizer is not None, "the index asks for its encoders before it asks for items"
            return self._split_documents(items, tokenizer, states)

        last = ""
        with closing(self.passages.write(split_all, ItemState.of, encoders, cluster, window)) as portions:
            for portion in portions:
                changed = 0
                for passage in portion.items:  # those of one document follow each other
                    changed += (doc := _document_of(passage.id)) != last
                    last = doc
                parts = [_part_of(passage) for passage in portion.window]
                yield changed, sum(part["number"] + 1 == part["of"] for part in parts)

    def _split_documents(self, items: Iterable[Item], tokenizer: Tokenizes, states: StoredStates) -> Iterator[Item]:
        """The passages of documents; what a changed document has no longer is taken out as it comes."""
        if not self._settings.windows.tokenizer and not self._settings.encoder:
            self._settings.encoder = tokenizer.spec.fingerprint
            self.storage.save()
        seen = SeenIds()
        for group in windows(items, TOGETHER):
            for item in group:
                self.passages.check_item(item, seen)
                if PASSAGE in item.meta:
                    raise InputError(f"item {item.id!r} has the metadata {PASSAGE!r}, which passages have: rename it")
            parts = _make_passages(group, tokenizer, self._settings.windows)
            self._remove_beyond(states, {item.id: len(part) for item, part in zip(group, parts, strict=True)})
            for part in parts:
                yield from part

    def _remove_beyond(self, states: StoredStates, counts: Mapping[str, int]) -> None:
        """Take out the passages of documents beyond the number that they have now."""
        # They are numbered without gaps, so that the first one beyond the end is there if any is.
        beyond = [_name_passage(doc, count) for doc, count in counts.items()]
        known, _ = states.look_up(beyond, ["0"] * len(beyond))
        if known.any():
            tables = self.storage.tables
            found = tables.find_items([id for id, here in zip(beyond, known, strict=True) if here])
            parts = [_part_of(passage) for passage in found.values()]
            self.storage.begin_change()
            tables.remove(
                [_name_passage(part["document"], n) for part in parts for n in range(part["number"], part["of"])]
            )

    def remove(self, ids: Iterable[str]) -> list[str]:
        wanted = check_ids(ids)

        def choose(tables: Tables) -> list[str]:
            stored = tables.find_values("meta", [f"{id}{FIRST}" for id in wanted])
            parts = [json.loads(meta)[PASSAGE] for meta in stored.values()]
            return [_name_passage(part["document"], number) for part in parts for number in range(part["of"])]

        removed = set(self.passages.remove_rows(choose))
        return [id for id in wanted if f"{id}{FIRST}" in removed]

    def ids(self) -> Iterator[str]:
        return (_document_of(id) for id in self.passages.ids() if id.endswith(FIRST))

    # Reading

    def answer(self, run: Run, stage: Retrieve) -> Run:
        """The k documents with the best passages for each query.

        A document's score is its best passage's (MaxP; Dai and Callan 2019), by the search of passages in each mode:
        `hybrid` fuses rankings of passages, and takes the best then. Queries whose first passages are of fewer than k
        documents, or whose last one ties with the k-th document, are searched for again, each time for twice as many
        passages.
        """
        self.require_complete()
        k = stage.k
        most = self._settings.count
        hits: dict[str, list[Hit]] = {}
        excluded = self._list_passages({query.id: list_excluded(query, stage.exclude) for query in run.queries})
        for part in self.passages.prepare(run, stage, excluded):
            depth = math.ceil(k * min(SPREAD, most / max(1, len(self))))
            while part.queries:
                depth = max(1, min(most, depth))
                left = replace(run, queries=part.asked)
                found = left.ranking(self.passages.rank(part, depth)).cut(depth)
                hits |= {query: take_best(passages) for query, passages in found.hits.items()}
                short = {
                    query.id
                    for query, got in found
                    if len(got) == depth and _may_lack(hits[query.id], k, got[-1].score)
                }
                part = part.keep(short if depth < most else frozenset())
                depth *= 2
        return run.ranking(hits, self).cut(k)

    def fetch(self, ids: Sequence[str]) -> list[Item]:
        """The documents of `ids`, whole and in that order; `InputError` naming unknown ids."""
        self.require_complete()
        tables = self.storage.tables
        first = self._find_first(ids)
        tables.require(ids, first)
        names = {doc: [_name_passage(doc, n) for n in range(1, _part_of(each)["of"])] for doc, each in first.items()}
        more = tables.find_items([name for each in names.values() for name in each])
        whole = {doc: _join([first[doc], *(more[name] for name in names[doc])]) for doc in first}
        return [whole[id] for id in ids]

    def find_stored(self, ids: Iterable[str]) -> set[str]:
        names = [f"{id}{FIRST}" for id in check_ids(ids)]
        return {_document_of(name) for name in self.storage.tables.find_values("hash", names)}

    def vectors(self, ids: Sequence[str], encoder: str | None = None) -> np.ndarray:
        raise InputError(
            f"{self.path} has vectors of passages: ask `index.passages.vectors` for those of DOCUMENT#NUMBER, or write "
            "all of them with `crosslens export-vectors`"
        )

    def _find_first(self, documents: Iterable[str]) -> dict[str, Item]:
        """The first passage of each document that is stored."""
        found = self.storage.tables.find_items([f"{id}{FIRST}" for id in documents])
        return {_document_of(id): passage for id, passage in found.items()}

    def _list_passages(self, documents: Mapping[str, Set[str]]) -> dict[str, Set[str]]:
        """Query id -> the passages of its documents, of those that are stored."""
        first = self._find_first(sorted({doc for docs in documents.values() for doc in docs}))
        of = {doc: [_name_passage(doc, n) for n in range(_part_of(each)["of"])] for doc, each in first.items()}
        return {query: {name for doc in docs for name in of.get(doc, ())} for query, docs in documents.items()}


@dataclass(frozen=True)
class MaxP(Stage):
    """A run of passages, searched in `index.passages` and perhaps reranked, as a run of the documents of `index`."""

    index: PassageIndex

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return run.ranking({query: take_best(hits) for query, hits in run.hits.items()}, self.index)


def _may_lack(hits: Sequence[Hit], k: int, last: float) -> bool:
    """Whether passages beyond one of the score `last` may bring documents that belong to the k best."""
    return len(hits) < k or sorted((hit.score for hit in hits), reverse=True)[k - 1] <= last


def _make_passages(items: Sequence[Item], tokenizer: Tokenizes, windows: Windows) -> list[list[Item]]:
    """The passages of each item."""
    texts = {item.id: item.text or "" for item in items if "text" in item.modalities}
    tokens = zip(texts.items(), tokenizer.token_spans(list(texts.values())), strict=True)
    places = {id: split_text(text, spans, windows) for (id, text), spans in tokens}
    passages = []
    for item in items:
        spans = places.get(item.id, [(0, None)])
        parts: list[Item] = []
        # What is one passage is encoded once.
        whole = item.text if isinstance(windows, JointWindows) and len(spans) > 1 else None
        known = {} if whole is None else {"whole": f"{hash_text(whole):016x}"}
        for number, (start, end) in enumerate(spans):
            part = {"document": item.id, "number": number, "of": len(spans), "start": start, **known}
            text = item.text and item.text[start:end]
            image, media = (None, {}) if number else (item.image, item.media)
            meta = {key: each for key, each in item.meta.items() if number == 0 or key != EXPANSIONS}
            meta[PASSAGE] = part
            parts.append(DocumentPart(_name_passage(item.id, number), text, image, item.lang, meta, media, whole))
        passages.append(parts)
    return passages


def _join(passages: Sequence[Item]) -> Item:
    """The document that was split into these, all of them and in order."""
    first = passages[0]
    text = first.text
    if text is not None:
        for passage in passages[1:]:
            text += (passage.text or "")[len(text) - _part_of(passage)["start"] :]
    meta = {key: value for key, value in first.meta.items() if key != PASSAGE}
    return replace(first, id=_document_of(first.id), text=text, meta=meta)


def _name_passage(document: str, number: int) -> str:
    return f"{document}#{number}"


def _document_of(passage: str) -> str:
    document, mark, _ = passage.rpartition("#")
    if not mark:
        raise InputError(f"{passage!r} is not the id of a passage, DOCUMENT#NUMBER")
    return document


def _part_of(passage: Item) -> Mapping[str, Any]:
    """What a passage is of its document."""
    part: Mapping[str, Any] = passage.meta[PASSAGE]  # type: ignore[assignment]
    return part


# Where documents are split


def split_text(text: str, spans: np.ndarray, windows: Windows) -> list[tuple[int, int]]:
    """Where the passages of a text begin and end, in characters; together they hold all of it, in order.

    `spans` is int [tokens, 2], as `Tokenizes.token_spans` gives it. A passage has at most `window` tokens, but never
    less than a character with its marks, or than an emoji made of several; the next one begins `stride` tokens
    later or, inside a character, at it. None lies in another. White space belongs to the token before it.
    """
    cuts, before = _find_cuts(text, spans)
    last = len(cuts) - 1

    def find_end(start: int) -> int:
        return max(start + 1, bisect_right(before, before[start] + windows.window) - 1)

    start, end = 0, find_end(0)
    passages = [(cuts[0], cuts[end])]
    while end < last:
        start = min(end, max(start + 1, bisect_right(before, before[start] + windows.stride) - 1))
        while (further := find_end(start)) <= end:
            start += 1
        end = further
        passages.append((cuts[start], cuts[end]))
    return passages


def choose_tokenizer(
    windows: Windows, encoders: Sequence[Encoder], before: str = "", loader: SpaceEncoders | None = None
) -> Tokenizes | None:
    """The one whose tokens are counted: named by `windows`, else `before` (a fingerprint), else the first that can.

    One that is named and not among the encoders is loaded by `loader`. None if `before` is not among the encoders.
    `InputError` if no encoder can say where its tokens are, or if a window does not fit into it.
    """
    candidates = [each for each in encoders if "text" in each.spec.modalities]
    if windows.tokenizer:
        candidates = [each for each in candidates if each.spec.name == windows.tokenizer] or [
            (loader or SpaceEncoders()).load(windows.tokenizer)
        ]
    elif before:
        candidates = [each for each in candidates if each.spec.fingerprint == before]
        if not candidates:
            return None
    for each in candidates:
        if has_spans(each):
            if each in encoders and windows.window > (room := each.room()):
                raise InputError(
                    f"a window of {windows.window} tokens does not fit into {each.spec.name}: beside its prompt and "
                    f"special tokens there is room for {room}; make the window smaller"
                )
            return each
    names = list_few(each.spec.name for each in candidates)
    lacking = f"{names} cannot say where its own are" if candidates else "none is given"
    raise InputError(
        f"documents are split by an encoder's tokens, and {lacking}: add an hf: encoder, or name one, "
        "Windows(tokenizer=SPEC)"
    )


def _find_cuts(text: str, spans: np.ndarray) -> tuple[list[int], list[int]]:
    """Characters where passages may begin or end, and the number of tokens before each; both ends included."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _classify_code_points()[np.minimum(codes, PLANES)]
    kinds[codes >= 0xE0000] = MARK  # variation selectors and tags; private use, which needs no care
    joined = np.zeros(len(codes) + 1, bool)
    joined[:-1] = (kinds == MARK) | (kinds == JOINER)
    joined[1:-1] |= (kinds[:-1] == JOINER) | ((kinds[:-1] == FLAG) & (kinds[1:] == FLAG))
    solid = np.append(0, np.cumsum(kinds != SPACE))
    starts, ends = spans.T
    free = ~joined[starts] & (solid[ends] > solid[starts])
    free[1:] &= starts[1:] >= np.maximum.accumulate(ends)[:-1]
    before = np.flatnonzero(free)
    cuts = starts[before]
    # What comes before the first token that can be seen goes with it.
    return [0, *cuts[1:].tolist(), len(text)], [0, *before[1:].tolist(), len(spans)]


@cache
def _classify_code_points() -> np.ndarray:
    """What the code points of the first two planes are to their neighbours, uint8; 0 for most."""
    kinds = np.zeros(PLANES + 1, np.uint8)
    for code in range(PLANES):
        character = chr(code)
        if character.isspace():
            kinds[code] = SPACE
        elif unicodedata.category(character)[0] == "M" or 0x1F3FB <= code <= 0x1F3FF:  # skin tones
            kinds[code] = MARK
    kinds[0x200D] = JOINER
    kinds[0x1F1E6:0x1F200] = FLAG  # letters that make flags two by two
    return kinds
