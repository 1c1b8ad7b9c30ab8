"""The index of documents: storage, encoders, statistics and a kind, put together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from ..encoders.base import Encoder, EncoderSpec
from ..errors import InputError, SpecMismatch, list_few
from ..items import Item, SeenIds, windows
from ..pipeline import Stage
from ..runs import Hit, Run, ranked
from .base import WINDOW, Index, Mode, PortionWriter, Recall, check_k
from .encoding import Precomputed, SpaceEncoders, list_encoders
from .fusion import fuse_hybrid, fuse_spaces, list_documents
from .kinds.base import Kind, Rankings, SpaceQueries
from .queries import EncodedQueries, ProbedQuery, encode_queries
from .retrieve import Retrieve
from .statistics import SpaceStatistics
from .storage.card import Card, Space
from .storage.filters import Where, list_modalities, write_sql
from .storage.resume import ItemState, Portion, StoredStates, describe_item, pace
from .storage.storage import Storage

CANDIDATES = 50  # at least so many from each space when scores are fused
TOGETHER = 1024  # queries encoded and searched at a time


class StoredIndex(Index):
    """What an index shows of its storage: the part of `indexes.base.Index` that all have in common."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @property
    def path(self) -> str:
        return self.storage.path

    @property
    def card(self) -> Card:
        return self.storage.card

    @property
    def specs(self) -> list[EncoderSpec]:
        return [space.spec for space in self.card.spaces]

    @property
    def langs(self) -> dict[str, int]:
        return dict(self.card.langs)

    @property
    def fingerprint(self) -> str:
        self.require_complete()
        return self.card.fingerprint

    def __len__(self) -> int:
        return len(self.storage.tables)

    def require_complete(self) -> None:
        """`InputError` unless the index is finished."""
        if not self.card.complete:
            self.storage.require_complete(len(self))

    def retriever(
        self,
        mode: Mode = "dense",
        k: int = 100,
        *,
        where: Where | None = None,
        exact: bool = False,
        correct: bool = True,
    ) -> Stage:
        return Retrieve(self, mode, k, where, exact, correct)


class DocumentIndex(StoredIndex):
    """Documents, vectors and full text in one place (`indexes.base.Index`), made and opened by `indexes.registry`.

    Its parts are public: `storage` (card, tables, files, lock), `kind` (how vectors are stored and searched),
    `encoders` (of its spaces), `statistics` (their moments). One process writes; readers open it again after a change.
    """

    def __init__(self, storage: Storage, kind: Kind, encoders: SpaceEncoders) -> None:
        super().__init__(storage)
        self.kind = kind
        self.encoders = encoders
        self.statistics = SpaceStatistics(storage)

    def get(self, ids: Sequence[str]) -> list[Item]:
        return self.storage.tables.get_items(list(ids))

    # Writing

    def add(
        self,
        items: Iterable[Item],
        encoders: Encoder | Sequence[Encoder] = (),
        *,
        progress: Callable[[int], None] | None = None,
        cluster: PortionWriter | None = None,
        window: int = WINDOW,
    ) -> int:
        """As `Index.add`."""
        seen = SeenIds()

        def describe(item: Item) -> ItemState:
            state = self.check_item(item)
            if seen.add(item.id):
                raise InputError(f"the id {item.id!r} occurs twice")
            return state

        changed = done = 0
        with closing(self.write(lambda stored: items, describe, encoders, cluster, window)) as portions:
            for portion in portions:
                changed += len(portion.items)
                done += len(portion.window)
                if progress is not None:
                    progress(done)
        return changed

    def add_vectors(self, items: Sequence[Item], vectors: Any, spec: EncoderSpec) -> int:
        """`add` with vectors made elsewhere, a row an item in the same order.

        Float [n, dim]; a sparse matrix [n, vocabulary]; or float [tokens_i, dim] for each item.
        """
        return self.add(items, Precomputed(spec, items, vectors))

    def check_item(self, item: Item) -> ItemState:
        """The state of an item that can be stored; `InputError` if it cannot be, or nothing here reads it."""
        state = describe_item(item)
        readable = self._list_readable() | ({"text"} if self.card.lexical else set())
        if not item.modalities & readable:
            raise InputError(
                f"item {item.id!r} holds {' and '.join(sorted(item.modalities))}, which none of the encoders "
                f"reads ({list_few(spec.name for spec in self.specs)})"
            )
        return state

    def write(
        self,
        stream: Callable[[StoredStates], Iterable[Item]],
        describe: Callable[[Item], ItemState],
        encoders: Encoder | Sequence[Encoder],
        cluster: PortionWriter | None = None,
        window: int = WINDOW,
    ) -> Generator[Portion]:
        """Encode and store a stream, and refresh what follows; yields each portion when it is stored.

        `stream` is given what is stored; `describe` gives an item's state, or refuses it.
        """
        encoders = list_encoders(encoders)
        for encoder in encoders:
            if encoder.spec.kind != self.kind.holds:
                raise InputError(
                    f"{encoder.spec.name} makes {encoder.spec.kind} vectors; this index holds {self.kind.holds} ones"
                )
            self.kind.check_spec(encoder.spec)
        changed = False
        with self.storage.lock():
            spaces = self._adopt(encoders)
            portions = self._select(stream, describe, spaces, encoders, window)
            stored = (
                cluster.store(self.storage, portions) if cluster else self._store(portions, spaces, encoders)
            )
            for portion in stored:
                changed = changed or bool(portion.items)
                yield portion
            if changed or not self.card.complete:
                self.storage.begin_change()
                self._refresh()

    def build(self, ann: str = "auto") -> Recall:
        """As `Index.build`; which structures there are is up to the kind (`LanceKind.build` and so on)."""
        self.require_complete()
        return self.kind.build(ann)

    def _select(
        self,
        stream: Callable[[StoredStates], Iterable[Item]],
        describe: Callable[[Item], ItemState],
        spaces: Sequence[Space],
        encoders: Sequence[Encoder],
        window: int,
    ) -> Generator[Portion]:
        """The stream in windows, with what of each is not stored; there is room in the tables for its media."""
        tables = self.storage.tables
        states = tables.read_states(spaces)
        size = window * max((getattr(each, "processes", 1) for each in encoders), default=1)
        for items in windows(stream(states), size):
            portion = states.select(items, describe)
            tables.add_media(portion.items)
            yield portion

    def _store(
        self, portions: Iterable[Portion], spaces: Sequence[Space], encoders: Sequence[Encoder]
    ) -> Generator[Portion]:
        for portion in pace(portions):
            if portion.items:
                block = self.kind.rows(portion.items, portion.states, spaces, encoders)
                self.storage.begin_change()
                self.storage.tables.write(block, portion.new)
            yield portion

    def _adopt(self, encoders: Sequence[Encoder]) -> list[Space]:
        """The spaces of the encoders, in their order; new ones get their columns."""
        card = self.card
        given = {encoder.spec.fingerprint: encoder for encoder in encoders}
        if len(given) < len(encoders):
            names = [encoder.spec.name for encoder in encoders]
            raise InputError(f"the encoder {max(names, key=names.count)} is given twice")
        if not self.kind.several:
            for space, encoder in zip(card.spaces, encoders, strict=False):
                encoder.spec.require(space.spec)
            if len(encoders) > 1:
                raise InputError(
                    f"an index of kind {card.kind} holds the {self.kind.holds} vectors of one encoder: make one for "
                    "each, and fuse their runs"
                )
        for space in card.spaces:
            if space.fingerprint not in given:
                if encoders:
                    near = min(encoders, key=lambda each: each.spec.name != space.spec.name)
                    near.spec.require(space.spec)
                raise SpecMismatch(f"{self.path} holds vectors of {space.spec.name}: give that encoder, too")
        known = {space.fingerprint: space for space in card.spaces}
        if new := [Space(each.spec) for fingerprint, each in given.items() if fingerprint not in known]:
            self.storage.tables.add_columns([field for space in new for field in self.kind.fields(space)])
            card.spaces += new
            card.complete = False
            self.storage.save()
        for encoder in encoders:
            if not isinstance(encoder, Precomputed):
                self.encoders.give(encoder)
        return [card.space(encoder.spec) for encoder in encoders]

    def _refresh(self) -> None:
        """Make all that follows from the stored rows, and say on the card that the index is complete."""
        storage, card = self.storage, self.card
        self.kind.discard()
        storage.tables.compact()
        storage.summarise()
        card.groups = storage.tables.index_text() if card.lexical else []
        if self.kind.holds == "dense":
            self.statistics.refresh(self.encoders.find)
        self.kind.refresh()
        storage.tables.index_filters()
        storage.tables.settle()
        storage.tables.compact()
        card.complete = True
        storage.save()

    # Searching

    def ready(self) -> None:
        for space in self.card.spaces:
            self.encoders.get(space)

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
        """As `Index.search`."""
        run = queries if isinstance(queries, Run) else Run.of(queries)
        hits: dict[str, Sequence[tuple[str, float]]] = {}
        for part in self.prepare(run, k, where=where, mode=mode, correct=correct):
            hits |= self.rank(part, k, where=where, exact=exact)
        return run.ranking(hits, self).cut(k)

    def prepare(
        self, run: Run, k: int, *, where: Where | None = None, mode: Mode = "dense", correct: bool = True
    ) -> Generator[EncodedQueries]:
        """The queries of a run, checked and encoded, a thousand at a time; `rank` searches for them.

        `InputError` for what cannot be searched for, before anything is encoded.
        """
        check_k(k)
        self.require_complete()
        write_sql(where, self.card.keys)
        queries = ProbedQuery.of(run.queries, run.probes)
        self._check(queries, mode)
        spaces = [] if mode == "lexical" else [space for space in self.card.spaces if space.count]
        for part in windows(queries, TOGETHER):
            encoded = []
            for space in spaces:
                statistics = self.statistics if correct and space.multilingual else None
                encoded.append(encode_queries(part, space, self.kind, self.encoders, statistics))
            yield EncodedQueries(part, mode, encoded)

    def rank(
        self, encoded: EncodedQueries, k: int, *, where: Where | None = None, exact: bool = False
    ) -> Mapping[str, Sequence[tuple[str, float]]]:
        """The k best documents of each query by its id, or more, in no order."""
        names = [query.query.id for query in encoded.queries]
        if encoded.mode == "dense":
            return dict(zip(names, self._rank_dense(encoded, k, where, exact), strict=True))
        if encoded.mode == "lexical":
            return self._rank_words(encoded.queries, k, where)
        depth = max(k, CANDIDATES)
        dense = dict(zip(names, map(ranked, self._rank_dense(encoded, depth, where, exact)), strict=True))
        # Full text would answer half of a query that holds a picture, and not know it.
        worded = [query for query in encoded.queries if query.modalities == {"text"}]
        lexical = self._rank_words(worded, depth, where, own_language=True)
        ids = list_documents(dense, lexical)
        langs = dict(zip(ids, self.storage.tables.read_column("lang", ids), strict=True))
        return {query: fuse_hybrid(hits, lexical.get(query, ()), langs.get) for query, hits in dense.items()}

    def _check(self, queries: Sequence[ProbedQuery], mode: Mode) -> None:
        if mode not in ("dense", "lexical", "hybrid"):
            raise InputError(f"the mode {mode!r} is not dense, lexical or hybrid")
        if mode != "dense" and not self.card.lexical:
            raise InputError(
                f"{self.path} was made without full text: search it with mode dense, or index it again"
            )
        readable = self._list_readable()
        if mode != "lexical" and not readable:
            raise InputError(f"{self.path} holds no vectors: search it with mode lexical")
        for query in queries:
            id, held = query.query.id, query.modalities
            if not held:
                raise InputError(f"query {id!r} is empty: give it text or an image")
            if mode == "lexical" and "text" not in held:
                raise InputError(f"query {id!r} has no text, and mode lexical searches by text alone")
            if mode != "lexical" and (unread := held - readable):
                raise InputError(
                    f"query {id!r} holds {' and '.join(sorted(unread))}, which no encoder of "
                    f"{self.path} reads ({list_few(spec.name for spec in self.specs)})"
                )

    def _list_readable(self) -> set[str]:
        """What the encoders of this index read."""
        return {each for spec in self.specs for each in spec.modalities}

    def _rank_words(
        self, queries: Sequence[ProbedQuery], k: int, where: Where | None, *, own_language: bool = False
    ) -> dict[str, tuple[Hit, ...]]:
        condition = write_sql(where, self.card.keys)
        words = [query.words for query in queries]
        return self.storage.tables.search_text(words, self.card.groups, k, condition, own_language)

    def _rank_dense(self, encoded: EncodedQueries, k: int, where: Where | None, exact: bool) -> Rankings:
        """Of each query's documents their scores in its space, or fused where scores of several do not compare."""
        spaces = encoded.spaces
        fuses = self.kind.holds == "dense" and (
            len(spaces) > 1 or any(len(each.space.counts) > 1 for each in spaces)
        )
        depth = max(k, CANDIDATES) if fuses else k
        found = [self._rank_space(each, depth, where, exact, fuses) for each in spaces]
        if fuses:
            return fuse_spaces(self.kind, self.statistics, spaces, found, len(encoded.queries))
        hits: Rankings = [[] for _ in encoded.queries]
        for each, lists in zip(spaces, found, strict=True):
            for row, ranking in zip(each.rows, lists, strict=True):
                hits[row] = ranking
        return hits

    def _rank_space(
        self, asked: SpaceQueries, k: int, where: Where | None, exact: bool, fuses: bool
    ) -> Rankings:
        """Nearest documents of each query; k of each modality where they are fused, as those of one are nearer."""
        if not asked.rows:
            return []
        space = asked.space
        filters = [where]
        if fuses and len(space.counts) > 1:
            wanted: Any = (where or {}).get("modality", list_modalities())
            wanted = [wanted] if isinstance(wanted, str) else wanted
            groups = [[each for each in wanted if space.reads(each) == read] for read in space.counts]
            filters = [{**(where or {}), "modality": group} for group in groups if group]
        parts = [self.kind.nearest(asked, k, write_sql(each, self.card.keys), exact) for each in filters]
        return [[hit for part in parts for hit in part[row]] for row in range(len(asked))]
