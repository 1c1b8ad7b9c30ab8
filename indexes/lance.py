"""The default index: a LanceDB collection of documents, their vectors in several spaces, and full text."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from ..encoders.base import Encoder, EncoderSpec
from ..encoders.registry import load_encoder
from ..errors import InputError, SpecMismatch, list_few
from ..items import Item, windows
from ..pipeline import Stage
from ..runs import Hit, Run, ranked
from . import ann, fulltext
from .base import Mode, Recall, Where, check_k
from .card import Card, Passages, Space, Windows, begun
from .derived import moments_file, renew, renew_spaces
from .encoding import Made, encoded, listed
from .hybrid import found_by, hybrid
from .pace import paced
from .places import place_of
from .rescore import Asked, fused
from .spaces import Moments
from .table import Stored, Tables, as_read, digest, failing, modality, prepared, rows, where_sql

if TYPE_CHECKING:
    from .distributed import Cluster

WINDOW = 512  # items encoded and committed at a time, for each process: what a kill can lose
CANDIDATES = 50  # at least so many from each space when scores are fused
TOGETHER = 1024  # queries encoded and searched at a time
SCAN_FROM = 4  # queries from which one pass over all vectors beats LanceDB's search for each
THREADS = 4  # full-text queries under way at a time

Found = list[list[tuple[str, float]]]


class LanceIndex:
    """Documents, vectors and full text in one directory, kept and searched by LanceDB (`indexes.base.Index`).

    Made by `create`, opened by `indexes.registry.open_index`. One process writes; readers open it again after
    a change. Subclasses search in another way: they override `_nearest`, `build` and, for speed, `_vectors`.
    """

    holds = "dense"  # the kind of vectors
    several = True  # whether it holds those of several encoders
    takes_more = False  # whether a kind says more after a colon
    needs_folder = False  # whether it has files beside its tables, to be mapped into memory

    def __init__(
        self,
        path: str | Path,
        card: Card,
        *,
        encoders: Encoder | Sequence[Encoder] | None = None,
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.path = str(path)
        self.card = card
        self._place = place_of(path)
        self._folder = self._place.folder if self._place else None
        self._tables = Tables(path)
        self._device = device
        self._trust = trust_remote_code
        self._encoders: dict[str, Encoder] = {}
        self._moments: dict[str, Moments] = {}
        for encoder in listed(encoders or ()):
            self._encoders[card.space(encoder.spec).fingerprint] = encoder

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        kind: str,
        name: str = "",
        lexical: bool = True,
        passages: Windows | None = None,
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> Self:
        """An empty index in `path`, a new or empty directory or `memory://`; one already there is opened.

        With `passages` its rows are what a `PassageIndex` makes of documents. `InputError` if the one there is
        of another kind or has other settings, or if the directory holds other files.
        """
        card = begun(path, Card(kind, name, lexical, passages=Passages(passages) if passages else None))
        index = cls(path, card, device=device, trust_remote_code=trust_remote_code)
        index._tables.create(card.lexical)
        return index

    # What is in it

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def specs(self) -> list[EncoderSpec]:
        """The encoders whose vectors it holds."""
        return [space.spec for space in self.card.spaces]

    @property
    def langs(self) -> dict[str, int]:
        """Documents of each language, most first; those without a language are left out."""
        return dict(self.card.langs)

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the documents, the spaces and the search structures."""
        self._require_complete()
        return self.card.fingerprint

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The stored items of `ids`, in that order; `InputError` naming unknown ids."""
        return self._tables.items(list(ids))

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

    # Writing

    def add(
        self,
        items: Iterable[Item],
        encoders: Encoder | Sequence[Encoder] = (),
        *,
        progress: Callable[[int], None] | None = None,
        cluster: Cluster | None = None,
    ) -> int:
        """Encode and store items, a window or a minute's work at a time; returns how many were new or changed.

        Each encoder gets the items that it can read. Items already stored as they are, with all their
        vectors, are passed over: after a kill a rerun goes on, and adding twice changes nothing. `progress`
        gets the number of items done; the workers of `cluster` encode in place of this process.
        `InputError` names an item that is empty, given twice, or read by no encoder and without text for full
        text; what was stored before it stays. `SpecMismatch` if an encoder that made vectors here is missing;
        another encoder adds a space.
        """
        changed = done = 0
        checked = partial(self._checked, seen=set())
        with closing(self._store(lambda stored: items, listed(encoders), checked, cluster)) as windows_:
            for window, fresh in windows_:
                changed += len(fresh)
                done += len(window)
                if progress is not None:
                    progress(done)
        return changed

    def _store(
        self,
        stream: Callable[[Stored], Iterable[Item]],
        encoders: Sequence[Encoder],
        checked: Callable[[Item], tuple[str, str]],
        cluster: Cluster | None,
    ) -> Generator[tuple[list[Item], list[Item]]]:
        """Encode and store a stream; yields each part when it is stored, and those new or changed in it.

        `stream` is told what is stored; `checked` gives an item's metadata and hash, or refuses it.
        """
        for encoder in encoders:
            if encoder.spec.kind != self.holds:
                raise InputError(
                    f"{encoder.spec.name} makes {encoder.spec.kind} vectors; this index holds {self.holds} ones"
                )
        changed = False
        with self._writing():
            spaces = self._adopt(encoders)
            stored = self._tables.stored(spaces)
            size = WINDOW * max((getattr(each, "processes", 1) for each in encoders), default=1)
            parts = (stored.fresh(window, checked) for window in windows(stream(stored), size))
            for part in cluster.store(self, parts) if cluster else paced(parts):
                if part.items and not cluster:
                    block = self._rows(part.items, part.states, spaces, encoders)
                    self._open_for_change()
                    self._tables.write(block, part.new)
                changed = changed or bool(part.items)
                yield part.window, part.items
            if changed or not self.card.complete:
                self._open_for_change()
                self._refresh()

    def add_vectors(self, items: Sequence[Item], vectors: np.ndarray, spec: EncoderSpec) -> int:
        """`add` with vectors made elsewhere: float [n, dim], a row an item in the same order."""
        return self.add(items, Made(spec, items, vectors))

    def build(self, ann: str = "auto") -> Recall:
        """An approximate index for each space, with recall measured against exact search.

        `ann` is `none`, `IVF_FLAT`, `IVF_RQ`, `IVF_PQ`, `IVF_HNSW_SQ`, or `auto`: none below 50,000 vectors,
        and from there IVF_RQ (IVF_FLAT for dimensions that are no multiple of 8). Queries use as many probes
        as were measured to find 0.95 of the exact 10 best, and as many as it takes under a language filter.
        Serves the default search, language-corrected where the space is multilingual; `correct=False` there
        stays exact.
        """
        from .ann import build as build_ann

        self._require_complete()
        with self._writing():
            recall = build_ann(self, ann)
            self._save()
        return recall

    # Searching

    def ready(self) -> None:
        """Load the encoders, so that the first search need not."""
        for space in self.card.spaces:
            self._encoder(space)

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
        """The k best documents of each query, as a `Run` that keeps this index as its `docs`.

        `dense` scores are cosines (inner products for `dot` spaces) where there is one space with one kind of
        document; with several spaces, or texts and pictures in one, they are z-scores against each space's
        background, averaged. `lexical` scores are BM25, or reciprocal ranks over language groups; `hybrid`
        fuses both by reciprocal rank within the query's language (see `hybrid.py`), and is dense alone for queries
        that hold a picture. `where` keeps documents by `lang`, `modality` or metadata; `exact`
        passes approximate indexes over; `correct` subtracts language means where a space is multilingual.
        `InputError` on an unfinished index, an empty query, and one that holds what no encoder here reads.
        """
        run = queries if isinstance(queries, Run) else Run.of(queries)
        check_k(k)
        self._require_complete()
        where_sql(where, self.card.keys)
        self._check(run.queries, mode)
        if mode == "dense":
            hits: Mapping[str, Iterable[tuple[str, float]]] = self._dense(
                run.queries, k, where, exact, correct
            )
        elif mode == "lexical":
            hits = self._lexical(run.queries, k, where)
        else:
            depth = max(k, CANDIDATES)
            dense = {
                query: ranked(found)
                for query, found in self._dense(run.queries, depth, where, exact, correct).items()
            }
            # Full text would answer half of a query that holds a picture, and not know it.
            texts = [query for query in run.queries if query.image is None]
            lexical = self._lexical(texts, depth, where, own_language=True)
            ids = found_by(dense, lexical)
            langs = dict(zip(ids, self._tables.column("lang", ids), strict=True))
            hits = {query: hybrid(found, lexical.get(query, ()), langs.get) for query, found in dense.items()}
        return run.ranking(hits, self).cut(k)

    def _check(self, queries: Sequence[Item], mode: Mode) -> None:
        if mode not in ("dense", "lexical", "hybrid"):
            raise InputError(f"the mode {mode!r} is not dense, lexical or hybrid")
        if mode != "dense" and not self.card.lexical:
            raise InputError(
                f"{self.path} was made without full text: search it with mode dense, or index it again"
            )
        readable = {each for space in self.card.spaces for each in space.spec.modalities}
        if mode != "lexical" and not readable:
            raise InputError(f"{self.path} holds no vectors: search it with mode lexical")
        for query in queries:
            if not query.modalities:
                raise InputError(f"query {query.id!r} is empty: give it text or an image")
            if mode == "lexical" and "text" not in query.modalities:
                raise InputError(f"query {query.id!r} has no text, and mode lexical searches by text alone")
            if mode != "lexical" and (unread := query.modalities - readable):
                raise InputError(
                    f"query {query.id!r} holds {' and '.join(sorted(unread))}, which no encoder of "
                    f"{self.path} reads ({list_few(space.spec.name for space in self.card.spaces)})"
                )

    def _lexical(
        self, queries: Sequence[Item], k: int, where: Where | None, *, own_language: bool = False
    ) -> dict[str, tuple[Hit, ...]]:
        condition = where_sql(where, self.card.keys)
        table = self._tables.documents
        with failing("read", self.path), ThreadPoolExecutor(THREADS) as threads:
            search = partial(fulltext.search, k=k, where=condition, own_language=own_language)
            hits = threads.map(lambda query: search(table, query, self.card.groups), queries)
            return {query.id: found for query, found in zip(queries, hits, strict=True)}

    def _dense(
        self, queries: Sequence[Item], k: int, where: Where | None, exact: bool, correct: bool
    ) -> dict[str, list[tuple[str, float]]]:
        spaces = [space for space in self.card.spaces if space.counts]
        several = len(spaces) > 1 or any(len(space.counts) > 1 for space in spaces)
        hits: dict[str, list[tuple[str, float]]] = {query.id: [] for query in queries}
        for start in range(0, len(queries), TOGETHER):
            part = queries[start : start + TOGETHER]
            asked = [self._asked(space, part, correct) for space in spaces]
            depth = max(k, CANDIDATES) if several else k
            found = [self._candidates(each, depth, where, exact) for each in asked]
            if several:
                for query, ranking in zip(part, fused(self, asked, found, len(part)), strict=True):
                    hits[query.id] = ranking
            else:
                for each, lists in zip(asked, found, strict=True):
                    hits.update((part[row].id, hit) for row, hit in zip(each.rows, lists, strict=True))
        return hits

    def _asked(self, space: Space, queries: Sequence[Item], correct: bool) -> Asked:
        """The queries that a space can read, as its vectors."""
        rows = [row for row, query in enumerate(queries) if query.modalities & set(space.spec.modalities)]
        mine = [queries[row] for row in rows]
        corrected = correct and space.multilingual
        vectors, _ = encoded(self._encoder(space), mine, "query")
        if corrected:
            kinds = [as_read(modality(query), space) for query in mine]
            vectors = self._moment(space).correct(vectors, [query.lang for query in mine], kinds, "query")
        return Asked(space, rows, vectors, corrected)

    def _candidates(self, asked: Asked, k: int, where: Where | None, exact: bool) -> Found:
        """Nearest documents of each query; k of each kind where a space holds several: one kind is nearer."""
        if not asked.rows:
            return []
        space, kinds = asked.space, list(asked.space.counts)
        filters = [where]
        if len(kinds) > 1:
            wanted = (where or {}).get("modality", kinds)
            wanted = [wanted] if isinstance(wanted, str) else list(wanted)  # type: ignore[arg-type]
            filters = [{**(where or {}), "modality": kind} for kind in kinds if kind in wanted]
        parts = [self._nearest(space, asked.vectors, k, each, exact, asked.corrected) for each in filters]
        if len(parts) == 1:
            return parts[0]
        return [[hit for part in parts for hit in part[row]] for row in range(len(asked.rows))]

    # What subclasses replace

    def _rows(
        self,
        items: Sequence[Item],
        states: Sequence[tuple[str, str]],
        spaces: Sequence[Space],
        encoders: Sequence[Encoder],
    ) -> pa.Table:
        """A window of items as rows of the documents table; `states` holds the metadata and hash of each."""
        vectors = [(space, *encoded(encoder, items)) for space, encoder in zip(spaces, encoders, strict=True)]
        meta, hashes = [state[0] for state in states], [state[1] for state in states]
        return rows(items, meta, hashes, vectors, self._tables.documents.schema)

    def _nearest(
        self,
        space: Space,
        vectors: np.ndarray,
        k: int,
        where: Where | None,
        exact: bool,
        corrected: bool,
    ) -> Found:
        """For each of `vectors` float32 [q, dim] the k documents of highest inner product, and that."""
        condition = where_sql(where, self.card.keys)
        plan = space.ann if corrected == space.multilingual and not exact else None
        if plan is None and len(vectors) >= SCAN_FROM:
            return ann.scan(self._tables.blocks(space, corrected, condition), vectors, k)
        return ann.search(self._tables, space, vectors, k, condition, corrected, plan)

    def _vectors(self, space: Space, ids: Sequence[str], corrected: bool) -> np.ndarray:
        """The stored vectors of `ids`, float32 [n, dim]; nan where the space has none."""
        name = space.corrected if corrected else space.column
        return self._tables.vectors(name, ids, space.spec.dim)

    def _refresh(self) -> None:
        """All that follows from the stored rows, anew: full text, moments, corrected vectors, the card."""
        renew(self)

    def _refresh_spaces(self) -> None:
        """What follows from the vectors: moments, corrected vectors, how many there are."""
        renew_spaces(self)

    def _add_space(self, space: Space) -> None:
        """Room for the vectors of a new encoder."""
        self._tables.add_space(space)

    # Inside

    def _moment(self, space: Space) -> Moments:
        if space.fingerprint not in self._moments:
            assert self._place is not None
            with self._place.reading(moments_file(space)) as path:
                self._moments[space.fingerprint] = Moments.load(path)
        return self._moments[space.fingerprint]

    def _encoder(self, space: Space) -> Encoder:
        if space.fingerprint not in self._encoders:
            encoder = load_encoder(space.spec.name, device=self._device, trust_remote_code=self._trust)
            encoder.spec.require(space.spec)
            self._encoders[space.fingerprint] = encoder
        return self._encoders[space.fingerprint]

    def _adopt(self, encoders: Sequence[Encoder]) -> list[Space]:
        """The spaces of the encoders, in their order; new ones get a column."""
        fingerprints = [encoder.spec.fingerprint for encoder in encoders]
        if twice := [
            encoder.spec.name for encoder in encoders if fingerprints.count(encoder.spec.fingerprint) > 1
        ]:
            raise InputError(f"the encoder {twice[0]} is given twice")
        if not self.several:
            for space, encoder in zip(self.card.spaces, encoders, strict=False):
                encoder.spec.require(space.spec)
            if len(encoders) > 1:
                raise InputError(
                    f"an index of kind {self.card.kind} holds the {self.holds} vectors of one encoder: make one for "
                    "each, and fuse their runs"
                )
        for space in self.card.spaces:
            if space.fingerprint not in fingerprints:
                if encoders:
                    near = min(encoders, key=lambda each: each.spec.name != space.spec.name)
                    near.spec.require(space.spec)
                raise SpecMismatch(f"{self.path} holds vectors of {space.spec.name}: give that encoder, too")
        by = {space.fingerprint: space for space in self.card.spaces}
        new = [encoder for encoder in encoders if encoder.spec.fingerprint not in by]
        for encoder in new:
            space = by[encoder.spec.fingerprint] = Space(encoder.spec)
            self._add_space(space)
        if new:
            self.card.spaces += [by[encoder.spec.fingerprint] for encoder in new]
            self.card.complete = False
            self._save()
        pairs = zip(fingerprints, encoders, strict=True)
        self._encoders.update((fp, encoder) for fp, encoder in pairs if not isinstance(encoder, Made))
        return [by[fingerprint] for fingerprint in fingerprints]

    def _checked(self, item: Item, seen: set[int]) -> tuple[str, str]:
        """Metadata and hash of an item that can be stored."""
        state = prepared(item)
        if (mark := digest(item.id)) in seen:
            raise InputError(f"the id {item.id!r} occurs twice")
        seen.add(mark)
        readable = {each for space in self.card.spaces for each in space.spec.modalities}
        if self.card.lexical:
            readable.add("text")
        if not item.modalities & readable:
            names = list_few(space.spec.name for space in self.card.spaces)
            raise InputError(
                f"item {item.id!r} holds {' and '.join(sorted(item.modalities))}, which none of the encoders "
                f"reads ({names})"
            )
        return state

    def _open_for_change(self) -> None:
        if self.card.complete:
            self.card.complete = False
            self._save()

    def _require_complete(self) -> None:
        if not self.card.complete:
            raise InputError(
                f"{self.path} is unfinished: {len(self):,} documents are stored; "
                "rerun `crosslens index` to go on"
            )

    def _save(self) -> None:
        if self._place is not None:
            self.card.write(self._place)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The right to write, for this process alone; the system takes it back when it ends or is killed."""
        with self._place.locked() if self._place else nullcontext():
            yield
