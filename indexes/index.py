"""The index of documents: storage, encoders, statistics and a kind, put together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from ..encoders.base import Encoder, EncoderSpec
from ..errors import InputError, SpecMismatch, list_few
from ..items import Item, SeenIds, windows
from ..runs import Hit, Run, ranked
from .base import WINDOW, Index, Mode, PortionWriter, Recall, check_k
from .encoding import Precomputed, SpaceEncoders, list_encoders
from .fusion import fuse_hybrid, fuse_spaces, list_documents
from .kinds.base import Kind, Rankings, SpaceQueries
from .kinds.dense import DenseKind
from .queries import PreparedQueries, ProbedQuery, encode_queries
from .statistics import SpaceStatistics
from .storage.card import Card, Space
from .storage.filters import Where, list_modalities, write_sql
from .storage.resume import ItemState, Portion, StoredStates, pace
from .storage.storage import Storage

CANDIDATES = 50  # at least so many from each space when scores are fused
TOGETHER = 1024  # queries encoded and searched at a time


class StoredIndex(Index):
    """What an index shows of its storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @property
    def path(self) -> str:
        return self.storage.path

    @property
    def card(self) -> Card:
        return self.storage.card

    @property
    def fingerprint(self) -> str:
        self.require_complete()
        return self.card.fingerprint

    def __len__(self) -> int:
        return len(self.storage.tables)

    def require_complete(self) -> None:
        """`InputError` unless the index is finished."""
        if not self.card.complete:
            raise InputError(
                f"{self.path} is unfinished: {len(self):,} documents are stored; rerun `crosslens index` to go on"
            )


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
        state = ItemState.of(item)
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
            states = self.storage.tables.read_states(spaces)
            size = window * max((getattr(each, "processes", 1) for each in encoders), default=1)
            parts = windows(stream(states), size)
            portions = (self._make_room(states.select(part, describe)) for part in parts)
            here = self._store(portions, spaces, encoders)
            for portion in cluster.store(self.storage, portions) if cluster else here:
                changed = changed or bool(portion.items)
                yield portion
            if changed or not self.card.complete:
                self.storage.begin_change()
                self._refresh()

    def build(self, ann: str = "auto") -> Recall:
        """As `Index.build`; which structures there are is up to the kind (`LanceKind.build` and so on)."""
        self.require_complete()
        return self.kind.build(ann)

    def _make_room(self, portion: Portion) -> Portion:
        """The portion, once there are columns for the media that it brings."""
        self.storage.tables.add_media(portion.items)
        return portion

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
        if isinstance(self.kind, DenseKind):
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
        for part in self.prepare(run, k, where=where, exact=exact, mode=mode, correct=correct):
            hits |= self.rank(part, k)
        return run.ranking(hits, self).cut(k)

    def prepare(
        self, run: Run, k: int, *, where: Where | None, exact: bool, mode: Mode, correct: bool
    ) -> Generator[PreparedQueries]:
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
            yield PreparedQueries(part, mode, where, exact, encoded)

    def rank(self, asked: PreparedQueries, k: int) -> Mapping[str, Sequence[tuple[str, float]]]:
        """The k best documents of each query by its id, or more, in no order."""
        if asked.mode == "dense":
            return self._rank_dense(asked, k)
        if asked.mode == "lexical":
            return self._rank_words(asked.queries, k, asked.where)
        depth = max(k, CANDIDATES)
        dense = {query: ranked(hits) for query, hits in self._rank_dense(asked, depth).items()}
        # Full text would answer half of a query that holds a picture, and not know it.
        worded = [query for query in asked.queries if query.modalities == {"text"}]
        lexical = self._rank_words(worded, depth, asked.where, own_language=True)
        ids = list_documents(dense, lexical)
        langs = dict(zip(ids, self.storage.tables.read_column("lang", ids), strict=True))
        return {query: fuse_hybrid(hits, lexical.get(query, ()), langs.get) for query, hits in dense.items()}

    def _check(self, queries: Sequence[ProbedQuery], mode: Mode) -> None:
        if mode not in ("dense", "lexical", "hybrid"):
            raise InputError(f"the mode {mode!r} is not dense, lexical or hybrid")
        if mode != "dense" and not self.card.lexical:
            raise InputError(f"{self.path} was made without full text: search it with mode dense, or index it again")
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

    def _rank_dense(self, asked: PreparedQueries, k: int) -> dict[str, list[tuple[str, float]]]:
        """By their scores in the only space, or fused where scores of several spaces or modalities do not compare."""
        spaces = asked.spaces
        several = len(spaces) > 1 or any(len(each.space.counts) > 1 for each in spaces)
        if several and isinstance(self.kind, DenseKind):
            depth = max(k, CANDIDATES)
            found = [self._rank_modalities(each, depth, asked) for each in spaces]
            hits = fuse_spaces(self.kind, self.statistics, spaces, found, len(asked.queries))
        else:
            hits = [[] for _ in asked.queries]
            condition = write_sql(asked.where, self.card.keys)
            for each in spaces:
                rankings = self.kind.nearest(each, k, condition, asked.exact) if each.rows else []
                for row, ranking in zip(each.rows, rankings, strict=True):
                    hits[row] = ranking
        return {query.query.id: found for query, found in zip(asked.queries, hits, strict=True)}

    def _rank_modalities(self, mine: SpaceQueries, k: int, asked: PreparedQueries) -> Rankings:
        """Nearest documents of each query, k of each modality that the space reads: those of one are nearer."""
        if not mine.rows:
            return []
        where: dict[str, Any] = dict(asked.where or {})
        wanted = where.get("modality", list_modalities())
        wanted = [wanted] if isinstance(wanted, str) else wanted
        groups = [[each for each in wanted if mine.space.reads(each) == read] for read in mine.space.counts]
        filters = [{**where, "modality": group} for group in groups if group] if len(groups) > 1 else [where]
        parts = [self.kind.nearest(mine, k, write_sql(each, self.card.keys), asked.exact) for each in filters]
        return [[hit for part in parts for hit in part[row]] for row in range(len(mine))]
