"""The contract of indexes: `Index`, and its search as a stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from ..encoders.base import Encoder, EncoderSpec
from ..errors import InputError, check_cutoff, check_unicode
from ..items import Item, Queries, windows
from ..media.language_codes import find_language
from ..pipeline import Stage, describe_fields
from ..rows.documents import Documents, read_documents
from ..runs import Exclude, Run, check_exclude, list_excluded
from .info import IndexInfo, describe_storage, read_info
from .merging import STRENGTH, check_merge, list_large
from .storage.filters import Where, check_where

if TYPE_CHECKING:
    from .encoding import SpaceEncoders
    from .kinds.base import Kind
    from .lexicon import Lexicon
    from .snapshot import Snapshot
    from .storage.card import Card, Recall
    from .storage.resume import Portion
    from .storage.storage import Storage

Mode = Literal["dense", "lexical", "hybrid"]
WINDOW = 512  # items encoded and committed at a time, for each process: what a kill can lose


class PortionWriter(Protocol):
    """Who encodes and stores in the place of this process: a cluster (`indexes.distributed`)."""

    def store(self, storage: Storage, portions: Iterable[Portion]) -> Iterator[Portion]:
        """Encode and commit the items of each portion; yields them, in their order, once they are stored."""
        ...


class Index(ABC):
    """Vectors, full text and the documents behind them, in one place; made and opened by `indexes.registry`.

    It is in one complete edition, and goes to the next by itself: before each search it looks whether there is a new
    one. A search is answered from one edition as a whole, and the documents of its hits are read from it. While a
    change is under way, or after one that was interrupted, readers go by the edition before.
    """

    encoders: SpaceEncoders

    @property
    @abstractmethod
    def snapshot(self) -> Snapshot:
        """What is stored and what searches it, in the edition that the index is in."""

    @property
    def storage(self) -> Storage:
        """Its card, tables and files."""
        return self.snapshot.storage

    @property
    def kind(self) -> Kind:
        """How its vectors are stored and searched."""
        return self.snapshot.kind

    @property
    def lexicon(self) -> Lexicon:
        """The words of its documents."""
        return self.snapshot.lexicon

    @property
    def path(self) -> str:
        """Where it is."""
        return self.storage.path

    @property
    def card(self) -> Card:
        """What it is and holds."""
        return self.storage.card

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the documents, the spaces and the search structures; `InputError` if unfinished."""
        self.require_complete()
        return self.card.fingerprint

    @property
    def specs(self) -> list[EncoderSpec]:
        """The encoders whose vectors it holds."""
        return [space.spec for space in self.card.spaces]

    @property
    def langs(self) -> dict[str, int]:
        """Documents of each language, most first; those without a language are left out."""
        counts: Counter[str] = Counter()
        for lang, count in self.card.langs.items():
            counts[find_language(lang) or lang] += count  # earlier versions stored what they were given
        return dict(counts)

    def list_merged(self) -> list[str]:
        """The languages that have enough documents, or passages, for `merge`."""
        return list_large(self.langs)

    def require_complete(self) -> None:
        """`InputError` unless the index is finished."""
        if not self.card.complete:
            raise InputError(
                f"{self.path} is unfinished: {len(self):,} documents are stored; rerun `crosslens index` to go on"
            )

    def __len__(self) -> int:
        """How many documents are stored."""
        return len(self.storage.tables)

    def __iter__(self) -> Iterator[Item]:
        """All documents, in the order in which they are stored, as a stream from one edition."""
        view = self.view()
        for ids in windows(view.ids(), WINDOW):
            yield from view.fetch(ids)

    def __contains__(self, id: object) -> bool:
        """Whether a document with that id is stored."""
        return isinstance(id, str) and bool(self.view().find_stored([id]))

    def __repr__(self) -> str:
        held = ", ".join(spec.name for spec in self.specs) or "full text"
        state = "" if self.card.complete else ", unfinished"
        return f"<{type(self).__name__} {self.path}: {len(self):,} documents, {self.card.kind}, {held}{state}>"

    def info(self) -> IndexInfo:
        """What there is to know of it as it is now: documents, languages, encoders, state, sizes, versions."""
        return describe_storage(self.storage) if self.storage.place is None else read_info(self.path)

    def add(
        self,
        items: Documents,
        encoders: Encoder | Sequence[Encoder] = (),
        *,
        columns: str | None = None,
        progress: Callable[[int], None] | None = None,
        cluster: PortionWriter | None = None,
        window: int = WINDOW,
    ) -> int:
        """Encode and store items, a `window` or a minute's work at a time; returns how many were new or changed.

        Items may also be dictionaries, pairs `(id, text)`, strings (their ids are made of their content), or a table
        of pandas, polars, pyarrow or datasets (`rows.documents.read_documents`); `columns` says which are what, as
        `crosslens index --columns` does: `"id=docno,text=title+body"`.

        Each encoder gets the items that it can read; without encoders they are those of the index, loaded by their
        SPECs. Items already stored as they are, with all their vectors, are passed over: after a kill a rerun goes on,
        and adding twice changes nothing. Those of which only metadata has changed keep their vectors. `progress` gets
        the number of items done; the workers of `cluster` encode in place of this process. `InputError` names an item
        that is empty, given twice, or read by no encoder and without text for full text; what was stored before it
        stays. It is also raised for what documents cannot be given as, and lists what they can. `SpecMismatch` if an
        encoder that made vectors here is missing; another encoder adds a space.
        """
        changed = done = 0
        documents = read_documents(items, columns)
        given = list_encoders(encoders)
        if not given:
            self.follow()
            given = list(map(self.encoders.get, self.card.spaces))
        with closing(self.store(documents, given, cluster, window)) as portions:
            for new, passed in portions:
                changed += new
                done += passed
                if progress is not None:
                    progress(done)
        return changed

    @abstractmethod
    def check_search(self, run: Run, mode: Mode, where: Where | None = None) -> None:
        """`InputError` for what cannot be searched for here: queries, mode or filter; no model is loaded."""

    @abstractmethod
    def follow(self) -> bool:
        """Go to the newest complete edition; whether another process, or another index object, has made one since."""

    @abstractmethod
    def view(self) -> Self:
        """This index in the newest complete edition, which later changes leave as it is; in memory, itself."""

    @abstractmethod
    def store(
        self, items: Iterable[Item], encoders: Sequence[Encoder], cluster: PortionWriter | None, window: int
    ) -> Generator[tuple[int, int]]:
        """`add`, a portion at a time: how many of its items were new or changed, and how many it has."""

    @abstractmethod
    def remove(self, ids: Iterable[str]) -> list[str]:
        """Take documents out, with all that follows from them; returns those of `ids` that were stored.

        Ids that are not stored are passed over. What `build` has made is dropped, as by `add`. Full text, statistics
        and what else follows are those of an index without these documents. It happens as a whole or not at all.
        `InputError` for what is not an id, and on an unfinished index.
        """

    @abstractmethod
    def find_stored(self, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that are stored, in the edition that the index is in."""

    @abstractmethod
    def vectors(self, ids: Sequence[str], encoder: str | None = None) -> np.ndarray:
        """The stored vectors of documents, float32 [n, dim] in the order of `ids`; nan where there is none.

        They are as the encoder made them, rounded to float16, without language correction. `encoder` is a SPEC or a
        fingerprint, and needed where there are several. `InputError` naming unknown ids, for kinds of one encoder
        that hold other than a vector a document, and in an index of passages, whose `passages` has theirs.
        """

    @abstractmethod
    def ids(self) -> Iterator[str]:
        """The ids of all documents, in the order in which they are stored."""

    @abstractmethod
    def build(self, ann: str = "auto") -> Recall:
        """Make the search structures of the index's kind, which says what they can be (`LanceKind.build` and so on).

        Recall is measured against exact search, never assumed; that of an index of passages is of passages.
        """

    def ready(self) -> None:
        """Load the encoders, so that the first search need not."""
        for space in self.card.spaces:
            self.encoders.get(space)

    def search(
        self,
        queries: Queries | Run,
        k: int,
        *,
        where: Where | None = None,
        exact: bool = False,
        mode: Mode = "dense",
        correct: bool = True,
        merge: float = STRENGTH,
        exclude: Exclude = "listed",
    ) -> Run:
        """The k best documents of each query, as a `Run` that keeps this index as its `docs`.

        A text, an item or a dictionary is one query, a list of them several (`runs.Run.of`).

        `dense` scores are cosines (inner products for `dot` spaces) where there is one space with one kind of
        document; with several spaces, or texts and pictures in one, they are z-scores against each space's
        background, averaged. `lexical` scores are BM25, or reciprocal ranks over language groups; `hybrid` fuses both
        by reciprocal rank within the query's language (`indexes.fusion`), and is dense alone for queries that hold
        other than text. `where` keeps documents by `lang`, `modality` or metadata; `exact` passes approximate indexes
        over; `correct` subtracts language means where a space is multilingual, and then, with one space of texts,
        `merge` from 0 to 1 says how far the languages' scores are brought to one level (`merging.merge_languages`).
        `exclude` says which documents a query may not find (`runs.list_excluded`): it finds k others, ranked as if the
        index did not hold those.

        A query that has `Run.probes` is not encoded itself: its probes are, each in its role, and the vectors of a
        group are averaged by weight (weights of terms added, token vectors put together); full text searches the
        words of each in its language. Groups are searches of their own, fused by reciprocal rank.
        `InputError` on an unfinished index, an empty query, and one that holds what no encoder here reads.
        """
        run = queries if isinstance(queries, Run) else Run.of(queries)
        view = self.view()
        while True:
            try:
                return view.answer(run, Retrieve(view, mode, k, where, exact, correct, merge, exclude))
            except InputError:
                if not view.follow():  # its files may be gone, if it took longer than they are kept
                    raise

    @abstractmethod
    def answer(self, run: Run, stage: Retrieve) -> Run:
        """`search` with the settings of a stage."""

    def retriever(
        self,
        mode: Mode = "dense",
        k: int = 100,
        *,
        where: Where | None = None,
        exact: bool = False,
        correct: bool = True,
        merge: float = STRENGTH,
        exclude: Exclude = "listed",
    ) -> Stage:
        """The search of this index as a pipeline stage."""
        return Retrieve(self, mode, k, where, exact, correct, merge, exclude)

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The stored items of `ids`, in that order; `InputError` naming unknown ids."""
        check_ids(ids)
        view = self.view()
        try:
            return view.fetch(ids)
        except InputError:
            if not view.follow():
                raise
            return view.fetch(ids)

    @abstractmethod
    def fetch(self, ids: Sequence[str]) -> list[Item]:
        """`get` from the edition that the index is in."""


@dataclass(frozen=True)
class Retrieve(Stage):
    """`index.search` with fixed settings: replaces the hits of the run that it is given."""

    index: Index
    mode: Mode = "dense"
    k: int = 100
    where: Where | None = None
    exact: bool = False
    correct: bool = True
    merge: float = STRENGTH
    exclude: Exclude = "listed"

    def __post_init__(self) -> None:
        check_cutoff(self.k)
        object.__setattr__(self, "k", int(self.k))  # numpy's whole numbers have no stable description
        check_exclude(self.exclude)
        check_merge(self.merge)
        check_where(self.where)

    def __call__(self, run: Run | Queries) -> Run:
        """The search of one edition, which is that of the fingerprint in the manifest."""
        run = run if isinstance(run, Run) else Run.of(run)
        view = self.index.view()
        view.check_search(run, self.mode, self.where)  # before an encoder is loaded
        return super().__call__(run) if view is self.index else replace(self, index=view)(run)

    def ready(self) -> None:
        if self.mode != "lexical":
            self.index.ready()

    def apply(self, run: Run, count: Counter[str]) -> Run:
        count["queries"] += len(run)
        if excluded := sum(len(list_excluded(query, self.exclude)) for query in run.queries):
            count["excluded"] += excluded
        return self.index.search(
            run,
            self.k,
            where=self.where,
            exact=self.exact,
            mode=self.mode,
            correct=self.correct,
            merge=self.merge,
            exclude=self.exclude,
        )

    def describe(self) -> object:
        own = describe_fields(self)
        if self.exclude == "listed":  # as it was before there was a choice: what experiments kept is used again
            del own["exclude"]
        if self.mode == "lexical" or not self.correct or not self.index.list_merged():
            del own["merge"]
        return own

    @property
    def docs(self) -> Index:
        """Where the documents of its hits are found."""
        return self.index

    @property
    def models(self) -> Mapping[str, str]:
        return {} if self.mode == "lexical" else {spec.name: spec.revision for spec in self.index.specs}

    def __str__(self) -> str:
        said = [] if self.correct or self.mode == "lexical" else ["uncorrected"]
        if self.mode == "lexical":
            from .storage.fulltext import K1, B

            said = [f"BM25, k1={K1}, b={B}"]
        if self.mode != "lexical" and self.correct and self.merge != STRENGTH:
            said = [f"merge={self.merge:g}"]
        said += [f"exclude={self.exclude}"] * (self.exclude != "listed")
        return f"{self.mode} ({', '.join(said)})" if said else self.mode


def check_ids(ids: Iterable[str]) -> list[str]:
    """Ids as a list, each once; `InputError` for one string in place of several, and for what is no string."""
    if isinstance(ids, str):
        raise InputError(f"give ids as a list, not as the one string {ids[:200]!r}")
    listed = list(ids)
    if wrong := [each for each in listed if not isinstance(each, str)]:
        raise InputError(f"ids are strings, not {str(wrong[0])[:200]} ({type(wrong[0]).__name__})")
    for each in listed:
        check_unicode(each, "the id")
    return list(dict.fromkeys(listed))


def list_encoders(encoders: Encoder | Sequence[Encoder]) -> list[Encoder]:
    """One encoder, or several, as a list; `InputError` for what is no encoder, such as a SPEC."""
    listed = list(encoders) if isinstance(encoders, Sequence) and not isinstance(encoders, str) else [encoders]
    for each in listed:
        if not hasattr(each, "encode") or not hasattr(each, "spec"):
            way = f"; load it with crosslens.encoder({each[:200]!r})" if isinstance(each, str) else ""
            raise InputError(f"an encoder is wanted, not {str(each)[:200]!r} ({type(each).__name__}){way}")
    return listed
