"""The index of documents: storage, encoders, statistics and a kind, put together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager, suppress
from typing import Any, Self

import numpy as np
import pyarrow as pa

from ..encoders.base import Encoder, EncoderSpec
from ..errors import InputError, SpecMismatch, list_few
from ..items import Item, Role, SeenIds, group_positions, windows
from ..runs import Hit, Probe, Rankings, Run, list_excluded, rank_hits
from ..steps import step
from .base import Index, Mode, PortionWriter, Retrieve, check_ids
from .encoding import Precomputed, SpaceEncoders
from .fusion import HEAD, fuse_groups, fuse_hybrid, fuse_spaces, lift_holders, split_modalities, weigh_names
from .kinds.base import SpaceQueries
from .kinds.dense import DenseKind
from .levelling import search_merged
from .merging import count_languages, list_large
from .probes import PreparedQueries, ProbedQuery, is_stored, list_held
from .snapshot import Snapshot
from .statistics import SpaceStatistics
from .storage.card import Recall, Space
from .storage.filters import Where, split_languages, write_sql
from .storage.resume import ItemState, Portion, StoredStates, pace
from .storage.rows import make_rows
from .storage.tables import Tables

log = logging.getLogger("crosslens")

CANDIDATES = HEAD  # at least so many from each space when scores are fused
TOGETHER = 1024  # queries encoded and searched at a time
SOURCES = ("query", "document", "stored")  # of the vectors of probes


class DocumentIndex(Index):
    """Documents, vectors and full text in one place (`indexes.base.Index`), made and opened by `indexes.registry`.

    Its parts are public: `storage` (card, tables, files, lock), `kind` (how vectors are stored and searched),
    `encoders` (of its spaces), `statistics` (their moments). One process writes, while others read.
    """

    def __init__(self, snapshot: Snapshot, encoders: SpaceEncoders, stays: bool = False) -> None:
        self.encoders = encoders
        self._snapshot = snapshot
        self._before: Snapshot | None = None  # what is read while this index is written to
        self._stays = stays  # in its edition, as long as that can be read
        self._following = threading.Lock()

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    @property
    def statistics(self) -> SpaceStatistics:
        """The moments of its spaces."""
        return self._snapshot.statistics

    def fetch(self, ids: Sequence[str]) -> list[Item]:
        return self.storage.tables.get_items(list(ids))

    def find_stored(self, ids: Iterable[str]) -> set[str]:
        return set(self.storage.tables.find_values("hash", check_ids(ids)))

    def vectors(self, ids: Sequence[str], encoder: str | None = None) -> np.ndarray:
        view = self if self._stays else self.view()
        space, kind = view.card.find_space(encoder), view.kind
        if not isinstance(kind, DenseKind):
            raise InputError(
                f"{self.path} holds {kind.holds} vectors, not one a document: `crosslens export-vectors` writes them"
            )
        view.storage.tables.require(ids, view.find_stored(ids))
        return kind.read(space, ids)

    def __iter__(self) -> Iterator[Item]:
        return self.view().storage.tables.scan_items()

    # Editions

    def view(self) -> Self:
        if self._stays or self.storage.place is None:
            return self
        self.follow()
        return type(self)(self._before or self._snapshot, self.encoders, stays=True)

    def follow(self) -> bool:
        if not self.storage.is_outdated or not self._following.acquire(blocking=False):
            return False
        mine = self.storage
        try:
            if self._before is not None or not mine.is_outdated:
                return False
            found = type(mine).open(self.path)
            if mine.card.complete and (found.card == mine.card if found.is_changing else not found.card.complete):
                mine.seen = found.seen
                return False
            self._snapshot = self._snapshot.replace(found)
            return found.card.complete
        except InputError as error:
            log.warning("%s has changed, and is searched as it was: %s", self.path, error)
            mine.look()
            return False
        finally:
            self._following.release()

    @contextmanager
    def change(self) -> Iterator[None]:
        """The right to write, to what is stored now; until that is finished, this index is read as it was."""
        with self.storage.lock():
            with self._following:
                before = self._before = self._snapshot
            try:
                self._snapshot = before.replace(self.storage.open_to_write())
                yield
            finally:
                self._before = None
                if not self.storage.finished and self.storage is not before.storage:
                    self._snapshot = before
                    if not before.storage.card.complete:
                        with suppress(InputError):
                            self._snapshot = before.replace(type(before.storage).open(self.path))

    # Writing

    def store(
        self, items: Iterable[Item], encoders: Sequence[Encoder], cluster: PortionWriter | None, window: int
    ) -> Generator[tuple[int, int]]:
        seen = SeenIds()
        portions = self.write(lambda stored: items, lambda item: self.check_item(item, seen), encoders, cluster, window)
        with closing(portions):
            for portion in portions:
                yield len(portion.items), len(portion.window)

    def add_vectors(self, items: Sequence[Item], vectors: Any, spec: EncoderSpec) -> int:
        """`add` with vectors made elsewhere, a row an item in the same order.

        Float [n, dim]; a sparse matrix [n, vocabulary]; or float [tokens_i, dim] for each item.
        """
        return self.add(items, Precomputed(spec, items, vectors))

    def check_item(self, item: Item, seen: SeenIds) -> ItemState:
        """The state of an item that can be stored; `InputError` if it cannot be, was seen, or nothing here reads it."""
        state = ItemState.of(item)
        readable = self._list_readable() | ({"text"} if self.card.lexical else set())
        if not item.modalities & readable:
            raise InputError(
                f"item {item.id!r} holds {' and '.join(sorted(item.modalities))}, which none of the encoders "
                f"reads ({list_few(spec.name for spec in self.specs)}); give one that does, too"
            )
        if seen.add(item.id):
            raise InputError(f"the id {item.id!r} occurs twice")
        return state

    def write(
        self,
        stream: Callable[[StoredStates], Iterable[Item]],
        describe: Callable[[Item], ItemState],
        encoders: Sequence[Encoder],
        cluster: PortionWriter | None,
        window: int,
    ) -> Generator[Portion]:
        """Encode and store a stream, and refresh what follows; yields each portion when it is stored.

        `stream` is given what is stored; `describe` gives an item's state, or refuses it.
        """
        for encoder in encoders:
            if encoder.spec.kind != self.kind.holds:
                raise InputError(
                    f"{encoder.spec.name} makes {encoder.spec.kind} vectors; this index holds {self.kind.holds} ones: "
                    "give another encoder, or another kind of index"
                )
            self.kind.check_spec(encoder.spec)
        changed = False
        with self.change():
            spaces = self._adopt(encoders)
            states = self.storage.tables.read_states(spaces)
            size = window * max((getattr(each, "processes", 1) for each in encoders), default=1)

            def select_portions() -> Iterator[Portion]:
                for part in windows(stream(states), size):
                    portion = states.select(part, describe)
                    self.storage.tables.add_media(portion.items)
                    yield portion

            portions = select_portions()
            for portion in cluster.store(self.storage, portions) if cluster else pace(portions):
                if portion.items:
                    changed = True
                    if cluster is None:
                        rows = self._make_rows(portion, spaces, encoders)
                        self.storage.begin_change()
                        self.storage.tables.write(rows, portion.new)
                yield portion
            if changed or not self.card.complete:
                self.storage.begin_change()
                self._refresh()

    def _make_rows(self, portion: Portion, spaces: Sequence[Space], encoders: Sequence[Encoder]) -> pa.Table:
        """The rows of a portion's items, encoded where it is not their metadata alone that has changed."""
        same = set() if portion.new else self.storage.tables.find_same_content(portion.items, spaces)
        if not same:
            return self.kind.rows(portion.items, portion.states, spaces, encoders)
        pairs = list(zip(portion.items, portion.states, strict=True))
        kept = [pair for pair in pairs if pair[0].id in same]
        others = [pair for pair in pairs if pair[0].id not in same]
        tables, names = self.storage.tables, [field.name for space in spaces for field in self.kind.fields(space)]
        items, states = zip(*kept, strict=True)
        stored = tables.read_columns(names, [item.id for item in items])
        blocks = [make_rows(items, states, stored, tables.documents.schema, self.card.analysis)]
        if others:
            items, states = zip(*others, strict=True)
            blocks.append(self.kind.rows(items, states, spaces, encoders))
        return pa.concat_tables(blocks)

    def _adopt(self, encoders: Sequence[Encoder]) -> list[Space]:
        """The spaces of the encoders, in their order; new ones get their columns."""
        card = self.card
        given = {encoder.spec.fingerprint for encoder in encoders}
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
        known = {space.fingerprint for space in card.spaces}
        if new := [Space(each.spec) for each in encoders if each.spec.fingerprint not in known]:
            self.storage.begin_change()
            self.storage.tables.add_columns([field for space in new for field in self.kind.fields(space)])
            card.spaces += new
            self.storage.save()
        for encoder in encoders:
            if not isinstance(encoder, Precomputed):
                self.encoders.give(encoder)
        return [card.space(encoder.spec) for encoder in encoders]

    def remove(self, ids: Iterable[str]) -> list[str]:
        wanted = check_ids(ids)
        removed = set(self.remove_rows(lambda tables: list(tables.find_values("hash", wanted))))
        return [id for id in wanted if id in removed]

    def remove_rows(self, choose: Callable[[Tables], Sequence[str]]) -> Sequence[str]:
        """Remove the rows that `choose` lists by their ids, of those that are stored; returns them."""
        with self.change():
            storage = self.storage
            self.require_complete()
            if rows := choose(storage.tables):
                if storage.place is not None:
                    storage.card.begin()  # not noted on disk: what a kill leaves is undone by the next change
                storage.card.complete = False
                storage.tables.remove(rows)
                self._refresh(self.encoders.get)
            return rows

    def ids(self) -> Iterator[str]:
        for batch in self.view().storage.tables.scan(["id"]):
            yield from batch.column("id").to_pylist()

    def _refresh(self, load_encoder: Callable[[Space], Encoder] | None = None) -> None:
        """Make all that follows from the stored rows, and say on the card that the index is complete."""
        storage, card = self.storage, self.card
        with step(f"counting languages and words of {len(storage.tables):,} documents"):
            self.kind.discard()
            storage.tables.compact()
            storage.summarise()
            card.groups = storage.tables.index_text(card.analysis) if card.lexical else []
        with step("measuring vectors, and indexing what filters look at"):
            if isinstance(self.kind, DenseKind):
                self.statistics.refresh(self.encoders.find, load_encoder)
            self.kind.refresh()
            storage.tables.index_filters()
            storage.tables.settle()
            storage.tables.compact()
            storage.finish()

    def build(self, ann: str = "auto") -> Recall:
        self.follow()
        self.require_complete()
        if not self.kind.writes or self.storage.place is None:
            return self.kind.build(ann)
        with self.change():
            self.require_complete()
            storage = self.storage
            storage.card.begin()  # not noted on disk: what a kill leaves is undone by the next change
            with step(f"building what searches {len(self):,} documents, and measuring its recall"):
                recall = self.kind.build(ann)
            if storage.is_changed:
                storage.finish()
            return recall

    # Searching

    def answer(self, run: Run, stage: Retrieve) -> Run:
        hits: dict[str, Sequence[tuple[str, float]]] = {}
        excluded = {query.id: list_excluded(query, stage.exclude) for query in run.queries}
        for part in self.prepare(run, stage, excluded):
            hits |= self.rank(part, stage.k)
        return run.ranking(hits, self).cut(stage.k)

    def prepare(self, run: Run, stage: Retrieve, excluded: Mapping[str, Set[str]]) -> Generator[PreparedQueries]:
        """The queries of a run, checked and encoded, a thousand at a time; `rank` searches for them.

        `excluded` are rows, by query id, that are not to be found. `InputError` for what cannot be searched for,
        before anything is encoded.
        """
        queries = [
            ProbedQuery.list_groups(query, run.probes.get(query.id, ()), excluded.get(query.id, frozenset()))
            for query in run.queries
        ]
        self._check([group for groups in queries for group in groups], stage.mode, stage.where)
        spaces = [] if stage.mode == "lexical" else [space for space in self.card.spaces if space.count]
        for groups in windows(queries, TOGETHER):
            part = [group for each in groups for group in each]
            encoded = [self._encode(part, space, stage.correct and space.multilingual) for space in spaces]
            yield PreparedQueries(part, stage, encoded)

    def rank(self, asked: PreparedQueries, k: int) -> Mapping[str, Sequence[tuple[str, float]]]:
        """The k best documents of each query by its id, or more, in no order."""
        k = min(k, max(1, self.card.passages.count if self.card.passages else self.card.documents))
        several = {query for query, rows in asked.rows.items() if len(rows) > 1}
        alone = asked.keep(asked.rows.keys() - several) if several else asked
        found = dict(zip((each.query.id for each in alone.queries), self._rank(alone, k), strict=True))
        if several:
            grouped = asked.keep(several)
            depth = max(k, CANDIDATES)
            rankings = [rank_hits(hits)[:depth] for hits in self._rank(grouped, depth)]
            for query, rows in grouped.rows.items():
                found[query] = fuse_groups([rankings[row] for row in rows])
        return found

    def _rank(self, asked: PreparedQueries, k: int) -> Sequence[Sequence[tuple[str, float]]]:
        """`rank` for each group of probes."""
        if asked.stage.mode == "dense":
            return self._rank_dense(asked, k)
        if asked.stage.mode == "lexical":
            return self._search_text(asked, asked.queries, k)
        depth = max(k, CANDIDATES)
        dense = list(map(rank_hits, self._rank_dense(asked, depth)))
        # Full text would answer half of a query that holds a picture, and not know it.
        worded = [row for row, query in enumerate(asked.queries) if list_held(query.read) == {"text"}]
        queries = [asked.queries[row] for row in worded]
        answers = self._search_text(asked, queries, depth, own_language=True)
        names = self._find_names(asked, queries)
        ids = sorted({hit.id for lists in (dense, answers, *names) for hits in lists for hit in hits})
        lang = dict(zip(ids, self.storage.tables.read_column("lang", ids), strict=True)).get
        holders = (weigh_names(each, lang, self.card.langs) for each in names)
        text = dict(zip(worded, zip(holders, answers, strict=True), strict=True))
        pairs = ((hits, *text.get(row, ((), ()))) for row, hits in enumerate(dense))
        return [fuse_hybrid(lift_holders(hits, held, lang), answer, lang) for hits, held, answer in pairs]

    def check_search(self, run: Run, mode: Mode, where: Where | None = None) -> None:
        groups = (ProbedQuery.list_groups(each, run.probes.get(each.id, ()), frozenset()) for each in run.queries)
        self._check([group for each in groups for group in each], mode, where)

    def _check(self, queries: Sequence[ProbedQuery], mode: Mode, where: Where | None) -> None:
        self.require_complete()
        self._filter(where)
        if mode not in ("dense", "lexical", "hybrid"):
            raise InputError(f"the mode {mode!r} is not dense, lexical or hybrid")
        if mode != "dense" and not self.card.lexical:
            raise InputError(f"{self.path} was made without full text: search it with mode dense, or index it again")
        readable = self._list_readable()
        if mode != "lexical" and not readable:
            raise InputError(f"{self.path} holds no vectors: search it with mode lexical")
        for query in queries:
            id, held = query.query.id, list_held(query.probes)
            if not held:
                raise InputError(f"query {id!r} is empty: give it text or an image")
            if mode == "lexical" and "text" not in held:
                raise InputError(f"query {id!r} has no text, and mode lexical searches by text alone")
            # Of documents it is enough that some of what they hold is read, as when they were indexed.
            asked = query.seen if not list_held(query.seen) & readable else query.questions
            if mode != "lexical" and (unread := list_held(asked) - readable):
                raise InputError(
                    f"query {id!r} holds {' and '.join(sorted(unread))}, which no encoder of "
                    f"{self.path} reads ({list_few(spec.name for spec in self.specs)})"
                )
            leading = query.read if mode == "lexical" else [each for each in query.seen if each.weight > 0]
            if not list_held(leading) & ({"text"} if mode == "lexical" else readable):
                raise InputError(f"query {id!r} has no probe of a weight above 0 that mode {mode} can search for")

    def _filter(self, where: Where | None) -> str | None:
        return write_sql(where, self.card.keys, self.card.langs)

    def _list_readable(self) -> set[str]:
        """What the encoders of this index read."""
        return {each for spec in self.specs for each in spec.modalities}

    def _encode(self, queries: Sequence[ProbedQuery], space: Space, correct: bool) -> SpaceQueries:
        """The queries that a space can read, as its vectors: probes in their roles, those of one query pooled."""
        read = set(space.spec.modalities)
        probes = [(row, probe) for row, query in enumerate(queries) for probe in query.seen]
        probes = [(row, probe) for row, probe in probes if probe.item.modalities & read]
        rows = sorted({row for row, probe in probes if probe.weight > 0})
        if not rows:
            return SpaceQueries(space, rows, [], correct)
        probes = [(row, probe) for row, probe in probes if row in rows]
        sources = group_positions(self._choose_sources([probe for _, probe in probes]))
        blocks: list[Any] = []
        placed: list[int] = []
        for source in SOURCES:  # always in this order, so that a query's vectors are added up alike in every batch
            if not (places := sources.get(source, [])):
                continue
            items = [probes[place][1].item for place in places]
            role: Role = "query" if source == "query" else "document"
            if source == "stored":
                vectors = self.kind.read(space, [item.id for item in items])
            else:
                vectors = self.kind.encode(self.encoders.get(space), items, role)
            blocks.append(self.statistics.correct(space, vectors, items, role, self.encoders) if correct else vectors)
            placed += places
        owners = np.searchsorted(rows, [probes[place][0] for place in placed])
        weights = np.array([probes[place][1].weight for place in placed])
        return SpaceQueries(space, rows, self.kind.pool(space, blocks, owners, weights, len(rows)), correct)

    def _choose_sources(self, probes: Sequence[Probe]) -> list[str]:
        """Whether each probe is encoded as a `query` or as a `document`, or is a document that is `stored` as it is."""
        documents = [] if self.card.passages else [probe.item.id for probe in probes if probe.role == "document"]
        hashes = self.storage.tables.find_values("hash", list(dict.fromkeys(documents)))
        return ["stored" if is_stored(probe, hashes) else probe.role for probe in probes]

    def _search_text(
        self, asked: PreparedQueries, queries: Sequence[ProbedQuery], k: int, *, own_language: bool = False
    ) -> Sequence[tuple[Hit, ...]]:
        """`fulltext.search_text` for some of the queries, without what is excluded."""
        condition, words = self._filter(asked.stage.where), [query.words for query in queries]
        found = self.storage.tables.search_text(words, self.storage.full_text, k + asked.spare, condition, own_language)
        pairs = zip(queries, found, strict=True)
        return [query.drop_excluded(hits, k) for query, hits in pairs] if asked.spare else found

    def _find_names(self, asked: PreparedQueries, queries: Sequence[ProbedQuery]) -> list[list[tuple[Hit, ...]]]:
        """`fulltext.find_names` for some of the queries, without what is excluded."""
        condition, words = self._filter(asked.stage.where), [query.words for query in queries]
        pairs = zip(queries, self.storage.tables.find_names(words, self.storage.full_text, condition), strict=True)
        return [[query.drop_excluded(hits, len(hits)) for hits in names] for query, names in pairs]

    def _find_nearest(self, asked: PreparedQueries, mine: SpaceQueries, k: int, condition: str | None) -> Rankings:
        """`Kind.nearest` without what is excluded."""
        found = self.kind.nearest(mine, k + asked.spare, condition, asked.stage.exact)
        return asked.drop_excluded(mine.rows, found, k)

    def _find_merged(self, asked: PreparedQueries, mine: SpaceQueries, k: int) -> Rankings:
        """`_find_nearest` in all languages, which are brought to one level where the stage says so."""
        stage = asked.stage
        condition = self._filter(stage.where)
        merges = stage.merge and mine.corrected
        counts = count_languages(self.statistics.get(mine.space), stage.where, self.card.langs) if merges else {}
        if not (large := list_large(counts)):
            return self._find_nearest(asked, mine, k, condition)
        parts = split_languages(large, self.card.langs)
        return search_merged(self.kind, asked, mine, k, condition, parts, counts)

    def _rank_dense(self, asked: PreparedQueries, k: int) -> Rankings:
        """By their scores in the only space, or fused where scores of several spaces or modalities do not compare."""
        spaces = asked.spaces
        several = len(spaces) > 1 or any(len(each.space.counts) > 1 for each in spaces)
        if several and isinstance(self.kind, DenseKind):
            depth = max(k, CANDIDATES)
            found = [self._rank_modalities(asked, each, depth) for each in spaces]
            hits = fuse_spaces(self.kind, self.statistics, spaces, found, len(asked.queries))
        else:
            hits = [[] for _ in asked.queries]
            for each in spaces:
                rankings = self._find_merged(asked, each, k) if each.rows else []
                for row, ranking in zip(each.rows, rankings, strict=True):
                    hits[row] = ranking
        return hits

    def _rank_modalities(self, asked: PreparedQueries, mine: SpaceQueries, k: int) -> Rankings:
        """Nearest documents of each query, k of each modality that the space reads: those of one are nearer."""
        if not mine.rows:
            return []
        where = asked.stage.where
        conditions = split_modalities(mine.space, where, self._filter(where))
        parts = [self._find_nearest(asked, mine, k, each) for each in conditions]
        return [[hit for part in parts for hit in part[row]] for row in range(len(mine))]
