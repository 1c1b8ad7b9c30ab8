"""Documents found by their best passage: overlapping windows of tokens, and a document at its passage's score."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoders.base import Encoder, EncoderSpec, Tokenizes
from ..encoders.registry import load_encoder
from ..errors import InputError, list_few
from ..items import Batch, Item, Role, windows
from ..pipeline import Stage
from ..runs import Hit, Run
from .base import Mode, Recall, Where, check_k
from .card import Card, Passages, Space, Windows
from .derived import FIRST
from .encoding import listed
from .lance import LanceIndex
from .table import Stored, prepared

if TYPE_CHECKING:
    from .distributed import Cluster

RESERVED = "_passage"  # the key of a passage's metadata that says what it is a passage of
TOGETHER = 64  # documents split at a time
SPREAD = 4  # passages a document that a search first looks for, at most


def split(text: str, spans: np.ndarray, windows: Windows) -> list[tuple[int, int]]:
    """Where the passages of a text begin and end, in characters; together they hold all of it, in order.

    `spans` is int [tokens, 2], as `Tokenizes.token_spans` gives it. A passage has at most `window` tokens, but never
    less than a character with its marks, or than an emoji made of several; the next one begins `stride` tokens
    later or, inside a character, at it. None lies in another. White space belongs to the token before it.
    """
    cuts, before = _cuts(text, spans)
    last = len(cuts) - 1

    def end_of(start: int) -> int:
        return max(start + 1, bisect_right(before, before[start] + windows.window) - 1)

    start, end = 0, end_of(0)
    passages = [(cuts[0], cuts[end])]
    while end < last:
        start = min(end, max(start + 1, bisect_right(before, before[start] + windows.stride) - 1))
        while (further := end_of(start)) <= end:
            start += 1
        end = further
        passages.append((cuts[start], cuts[end]))
    return passages


def counting(
    windows: Windows,
    encoders: Sequence[Encoder],
    before: str = "",
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Tokenizes | None:
    """The one whose tokens are counted: named by `windows`, else `before` (a fingerprint), else the first that can.

    None if `before` is not among the encoders. `InputError` if no encoder can tell where its tokens are, or if a
    window does not fit into it.
    """
    candidates = [each for each in encoders if "text" in each.spec.modalities]
    if windows.tokenizer:
        candidates = [each for each in candidates if each.spec.name == windows.tokenizer] or [
            load_encoder(windows.tokenizer, device=device, trust_remote_code=trust_remote_code)
        ]
    elif before:
        candidates = [each for each in candidates if each.spec.fingerprint == before]
        if not candidates:
            return None
    for each in candidates:
        if (tokenizer := _tokenizing(each)) is not None:
            if each in encoders and windows.window > (room := tokenizer.room()):
                raise InputError(
                    f"a window of {windows.window} tokens does not fit into {each.spec.name}: beside its prompt and "
                    f"special tokens there is room for {room}; make the window smaller"
                )
            return tokenizer
    lacking = (
        list_few(each.spec.name for each in candidates) + " cannot tell its own"
        if candidates
        else "none is given"
    )
    raise InputError(
        f"documents are split by an encoder's tokens, and {lacking}: add an hf: encoder, or name one, "
        "Windows(tokenizer=SPEC)"
    )


def maxp(hits: Iterable[Hit]) -> list[Hit]:
    """Documents for hits that are passages, each at the score of its best one (Dai and Callan 2019); in no order."""
    best: dict[str, float] = {}
    for passage, score in hits:
        doc = _document(passage)
        best[doc] = max(score, best.get(doc, -math.inf))
    return [Hit(doc, score) for doc, score in best.items()]


class PassageIndex:
    """An index of documents (`indexes.base.Index`) whose rows, in the index `passages`, are parts of documents.

    Passages have the ids `DOCUMENT#NUMBER`, the language and metadata of their document, and under `_passage` in
    their metadata what they are: `document`, `number` (from 0), `of` (how many), `start` (in characters). A picture
    is in the first one. To rerank or to show passages, search `passages` itself: `MaxP` makes documents of its runs.
    """

    def __init__(self, passages: LanceIndex) -> None:
        assert passages.card.passages is not None
        self.passages = passages

    def __len__(self) -> int:
        """Documents, not passages."""
        if self.card.complete:
            return self.card.documents
        return int(self.passages._tables.documents.count_rows(f"id LIKE '%{FIRST}'"))

    @property
    def path(self) -> str:
        return self.passages.path

    @property
    def card(self) -> Card:
        return self.passages.card

    @property
    def name(self) -> str:
        return self.passages.name

    @property
    def specs(self) -> list[EncoderSpec]:
        """The encoders whose vectors it holds."""
        return self.passages.specs

    @property
    def langs(self) -> dict[str, int]:
        """Documents of each language, most first; those without a language are left out."""
        return self.passages.langs

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the documents, the windows, the spaces and the search structures."""
        self._require_complete()
        return self.card.fingerprint

    def retriever(
        self,
        mode: Mode = "dense",
        k: int = 100,
        *,
        where: Where | None = None,
        exact: bool = False,
        correct: bool = True,
    ) -> Stage:
        """The search of this index as a pipeline stage."""
        from .retrieve import Retrieve

        return Retrieve(self, mode, k, where, exact, correct)

    def build(self, ann: str = "auto") -> Recall:
        """As `LanceIndex.build`; the recall is that of passages."""
        self._require_complete()
        return self.passages.build(ann)

    # Writing

    def add(
        self,
        items: Iterable[Item],
        encoders: Encoder | Sequence[Encoder] = (),
        *,
        progress: Callable[[int], None] | None = None,
        cluster: Cluster | None = None,
    ) -> int:
        """Split, encode and store documents as they come; returns how many were new or changed.

        As `LanceIndex.add`: a rerun goes on, and encodes the passages that are not stored as they are. Passages
        that a changed document no longer has are taken out. `InputError`, too, if no encoder can tell where its
        tokens are, if a window does not fit into it, and on metadata with the key `_passage`.
        """
        given = listed(encoders)
        inner = self.passages
        tokenizer = counting(
            self._held.windows,
            given,
            self._held.encoder,
            device=inner._device,
            trust_remote_code=inner._trust,
        )
        changed = done = 0
        last = ""
        stream = self._stream(items, tokenizer)
        with closing(inner._store(stream, given, prepared, cluster)) as stored:
            for window, fresh in stored:
                for passage in fresh:  # those of one document follow each other
                    changed += (doc := _document(passage.id)) != last
                    last = doc
                done += sum(_told(passage)["number"] + 1 == _told(passage)["of"] for passage in window)
                if progress is not None:
                    progress(done)
        return changed

    def _stream(
        self, items: Iterable[Item], tokenizer: Tokenizes | None
    ) -> Callable[[Stored], Iterator[Item]]:
        """The passages of documents; what a changed document has no longer is taken out as it comes."""

        def passages(stored: Stored) -> Iterator[Item]:
            assert tokenizer is not None, "the index asks for its encoders before it asks for items"
            held, inner = self._held, self.passages
            if not held.windows.tokenizer and not held.encoder:
                held.encoder = tokenizer.spec.fingerprint
                inner._save()
            seen: set[int] = set()
            for group in windows(items, TOGETHER):
                for item in group:
                    inner._checked(item, seen)
                    if RESERVED in item.meta:
                        raise InputError(
                            f"item {item.id!r} has the metadata {RESERVED!r}, which passages have: rename it"
                        )
                parts = _parts(group, tokenizer, held.windows)
                self._remove(stored, {item.id: len(part) for item, part in zip(group, parts, strict=True)})
                for part in parts:
                    yield from part

        return passages

    def _remove(self, stored: Stored, counts: Mapping[str, int]) -> None:
        """Take out the passages of documents beyond the number that they have now."""
        # They are numbered without gaps, so that the first one beyond the end is there if any is.
        beyond = [_passage(doc, count) for doc, count in counts.items()]
        known, _ = stored.look(beyond, ["0"] * len(beyond))
        if known.any():
            found = self.passages._tables.held([id for id, here in zip(beyond, known, strict=True) if here])
            told = [_told(passage) for passage in found.values()]
            self.passages._open_for_change()
            self.passages._tables.remove(
                [_passage(each["document"], n) for each in told for n in range(each["number"], each["of"])]
            )

    # Reading

    def ready(self) -> None:
        """Load the encoders, so that the first search need not."""
        self.passages.ready()

    def search(
        self,
        queries: Iterable[Item | str] | Run,
        k: int,
        *,
        where: Where | None = None,
        exact: bool = False,
        mode: Mode = "dense",
        correct: bool = True,
    ) -> Run:
        """The k documents with the best passages for each query, as a `Run` that keeps this index as its `docs`.

        A document's score is its best passage's (MaxP; Dai and Callan 2019), by `LanceIndex.search` over passages
        in each mode: `hybrid` fuses rankings of passages, and takes the best then. Queries whose first passages
        are of fewer than k documents are asked again, each time for twice as many passages.
        """
        run = queries if isinstance(queries, Run) else Run.of(queries)
        check_k(k)
        self._require_complete()
        inner = copy(self.passages)
        inner._encoders = {space.fingerprint: _Once(self.passages, space) for space in self.card.spaces}
        most = self._held.count
        depth = math.ceil(k * min(SPREAD, most / max(1, len(self))))
        hits: dict[str, list[Hit]] = {}
        left: Sequence[Item] = run.queries
        while True:
            depth = max(1, min(most, depth))
            found = inner.search(left, depth, where=where, exact=exact, mode=mode, correct=correct)
            hits |= {query.id: maxp(passages) for query, passages in found}
            left = [each for each in left if len(hits[each.id]) < k and len(found[each.id]) == depth < most]
            if not left:
                return run.ranking(hits, self).cut(k)
            depth *= 2

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The documents of `ids`, whole and in that order; `InputError` naming unknown ids."""
        self._require_complete()
        tables = self.passages._tables
        first = tables.held([_passage(id, 0) for id in ids])
        tables.require(ids, {_document(each) for each in first})
        more = tables.held(
            [
                _passage(_document(id), n)
                for id, passage in first.items()
                for n in range(1, _told(passage)["of"])
            ]
        )
        whole = {
            _document(id): _joined(
                [passage, *(more[_passage(_document(id), n)] for n in range(1, _told(passage)["of"]))]
            )
            for id, passage in first.items()
        }
        return [whole[id] for id in ids]

    @property
    def _held(self) -> Passages:
        assert self.card.passages is not None
        return self.card.passages

    def _require_complete(self) -> None:
        if not self.card.complete:
            raise InputError(
                f"{self.path} is unfinished: {len(self):,} documents are stored; "
                "rerun `crosslens index` to go on"
            )


@dataclass(frozen=True)
class MaxP(Stage):
    """A run of passages, searched in `index.passages` and perhaps reranked, as a run of the documents of `index`."""

    index: PassageIndex

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return run.ranking({query: maxp(hits) for query, hits in run.hits.items()}, self.index)


class _Once:
    """The encoder of a space for one search: a query that is asked again is not encoded again."""

    def __init__(self, index: LanceIndex, space: Space) -> None:
        self.spec = space.spec
        self._index, self._space = index, space
        self._made: dict[str, Batch] = {}

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        asked = list(items)
        new = [item for item in asked if item.id not in self._made]
        if new:
            for batch in self._index._encoder(self._space).encode(new, role):
                for row, id in enumerate(batch.ids):
                    self._made[id] = replace(batch, ids=[id], vectors=batch.vectors[row : row + 1])  # type: ignore[arg-type]
        yield from (self._made[item.id] for item in asked)


def _parts(items: Sequence[Item], tokenizer: Tokenizes, windows: Windows) -> list[list[Item]]:
    """The passages of each item."""
    worded = [row for row, item in enumerate(items) if "text" in item.modalities]
    texts = [items[row].text or "" for row in worded]
    places = {
        row: split(text, spans, windows)
        for row, text, spans in zip(worded, texts, tokenizer.token_spans(texts), strict=True)
    }
    parts = []
    for row, item in enumerate(items):
        found = places.get(row, [(0, None)])
        parts.append(
            [
                Item(
                    _passage(item.id, number),
                    item.text and item.text[start:end],
                    None if number else item.image,
                    item.lang,
                    {
                        **item.meta,
                        RESERVED: {"document": item.id, "number": number, "of": len(found), "start": start},
                    },
                )
                for number, (start, end) in enumerate(found)
            ]
        )
    return parts


def _joined(passages: Sequence[Item]) -> Item:
    """The document that was split into these, all of them and in order."""
    first = passages[0]
    text = first.text
    if text is not None:
        for passage in passages[1:]:
            text += (passage.text or "")[len(text) - _told(passage)["start"] :]
    meta = {key: value for key, value in first.meta.items() if key != RESERVED}
    return replace(first, id=_document(first.id), text=text, meta=meta)


def _passage(document: str, number: int) -> str:
    return f"{document}#{number}"


def _document(passage: str) -> str:
    document, mark, _ = passage.rpartition("#")
    if not mark:
        raise InputError(f"{passage!r} is not the id of a passage, DOCUMENT#NUMBER")
    return document


def _told(passage: Item) -> Mapping[str, Any]:
    """What a passage is of its document."""
    told: Mapping[str, Any] = passage.meta[RESERVED]  # type: ignore[assignment]
    return told


# Where a text may be cut

SPACE, MARK, JOINER, FLAG = 1, 2, 3, 4
PLANES = 0x20000  # code points below are looked up


def _cuts(text: str, spans: np.ndarray) -> tuple[list[int], list[int]]:
    """Characters where passages may begin or end, and the number of tokens before each; both ends included."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[np.minimum(codes, PLANES)]
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
def _kinds() -> np.ndarray:
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


def _tokenizing(encoder: Encoder) -> Tokenizes | None:
    """The encoder, if it can tell where its tokens are."""
    if not isinstance(encoder, Tokenizes):
        return None
    try:
        encoder.token_spans(["a"])
    except InputError:
        return None
    return encoder
