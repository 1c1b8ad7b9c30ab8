"""`faiss:FACTORY`: approximate search by any index that a faiss factory string describes."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..encoders.base import Encoder
from ..errors import InputError
from ..files import place_atomically, write_atomically
from .ann import CUTOFFS, ENOUGH, FILTER_KEEPS, REFINE, TIE, perturbed, scan
from .base import Recall, Where, check_k
from .card import Ann, Card, Space
from .flat import FlatIndex, Held, named
from .lance import Found
from .table import where_sql

log = logging.getLogger("crosslens")

TRAIN = 65_536  # vectors that an index learns from, or 64 a cluster if that is more
START = 16  # probes or candidates that tuning starts from
LONGEST = 4096  # candidates of a graph search, at most
SAME = 0.002  # recall that is not worth more probes
MEND = "build the index again"


class FaissSearcher:
    """Nearest neighbours by inner product in a faiss index (`indexes.base.Searcher`): approximate, by its kind.

    `effort` is `nprobe` of an inverted file, `efSearch` of a graph, and nothing to others; under a filter it
    is `filtered`. A refine stage looks at `refine` times k candidates. There may be fewer hits than k though
    more rows are allowed. Scores are faiss's: estimates where vectors are quantised and no refine stage
    follows. On a GPU, if `device` is not `cpu`, faiss sees one, and has this kind for GPUs; filters stay on
    the CPU.
    """

    def __init__(self, index: Any, effort: int, filtered: int, refine: int, device: str = "cpu") -> None:
        self._index = index
        self._effort, self._filtered, self._refine = effort, filtered, refine
        self._gpu = None if device.startswith("cpu") else _on_gpu(index, effort, refine)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def nearest(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Searcher.nearest`; `Unfiltered` if there is a mask and faiss has no filter for this kind of index."""
        check_k(k)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        depth = min(k, len(self))
        if depth == 0 or len(queries) == 0:
            return rows, scores
        queries = np.ascontiguousarray(queries, np.float32)
        if allowed is not None:
            selector = installed().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            parameters = _parameters(self._index, self._filtered, self._refine, selector)
            try:
                found = self._index.search(queries, depth, params=parameters)
            except RuntimeError as error:
                if "params" not in str(error):
                    raise
                raise Unfiltered(type(self._index).__name__) from None
        elif self._gpu is not None:
            found = self._gpu.search(queries, depth)
        else:
            parameters = _parameters(self._index, self._effort, self._refine, None)
            found = self._index.search(queries, depth, params=parameters)
        scores[:, :depth], rows[:, :depth] = found
        _drop_repeated(rows)
        scores[rows < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


class Unfiltered(Exception):
    """faiss cannot search this kind of index under a filter."""


class FaissIndex(FlatIndex):
    """A `LanceIndex` whose default search is a faiss index, built from a factory string: kind `faiss:HNSW32`.

    Metric inner product. `build` makes a file a space and its ids beside the tables, with their sha256 in
    `crosslens.json`: faiss trusts what it reads, so a file is checked before. Exact search is `FlatIndex`'s:
    that of `exact=True`, of what is not built, of uncorrected queries to a multilingual space, of queries for
    which faiss finds fewer than k of the documents that match, and of filters on kinds for which faiss has
    none.
    """

    def __init__(self, path: str | Path, card: Card, **settings: Any) -> None:
        super().__init__(path, card, **settings)
        self._approximate: dict[str, Held[FaissSearcher]] = {}
        self._said: set[str] = set()

    takes_more = True
    needs_folder = True

    @classmethod
    def create(cls, path: str | Path, *, kind: str, **settings: Any) -> Self:
        """As `LanceIndex.create`; `InputError` for a factory string that faiss does not understand."""
        factory = kind.partition(":")[2]
        if not factory:
            raise InputError("the index kind faiss needs a factory string: write faiss:HNSW32, for example")
        try:
            # Any dimension tells whether faiss can read the string; whether the encoder's suits it, `add` sees.
            described(factory, 960)
        except InputError as error:
            reason = str(error).partition(": ")[2]
            if not re.search(r"multiple of|%", reason):
                raise InputError(f"no index kind {kind!r}: {reason}") from None
        return super().create(path, kind=kind, **settings)

    @property
    def factory(self) -> str:
        return self.card.kind.partition(":")[2]

    def build(self, ann: str = "auto") -> Recall:
        """The faiss index of each space, trained and filled from the table a block at a time.

        `ann` is `auto` for the factory string of the index's kind, another factory string, or `none`. Probes
        are raised until 0.97 of the exact 10 best of 100 queries are found, or more find no more. Serves the
        default search, language-corrected where the space is multilingual. `InputError` with faiss's reason
        if it fails.
        """
        started = time.perf_counter()
        self._require_complete()
        factory = self.factory if ann == "auto" else ann
        if ann != "none":
            for space in self.card.spaces:  # before what is there is thrown away
                described(factory, space.spec.dim)
        with self._writing():
            self._discard()
            for space in self.card.spaces:
                if ann != "none" and space.counts:
                    space.ann = self._built(space, factory)
            self._save()
        plans = [space.ann for space in self.card.spaces if space.ann is not None]
        seconds = round(time.perf_counter() - started, 3)
        if not plans:
            return Recall("flat", 0, dict.fromkeys(CUTOFFS, 1.0), seconds)
        lowest = {cutoff: min(plan.recall[cutoff] for plan in plans) for cutoff in CUTOFFS}
        return Recall(factory, min(plan.queries for plan in plans), lowest, seconds)

    def _adopt(self, encoders: Sequence[Encoder]) -> list[Space]:
        for encoder in encoders:  # before hours of encoding
            described(self.factory, encoder.spec.dim)
        return super()._adopt(encoders)

    def _nearest(
        self,
        space: Space,
        vectors: np.ndarray,
        k: int,
        where: Where | None,
        exact: bool,
        corrected: bool,
    ) -> Found:
        if exact or space.ann is None or corrected != space.multilingual:
            return super()._nearest(space, vectors, k, where, exact, corrected)
        held = self._opened(space, space.ann)
        allowed = self._allowed(space, held, where)
        try:
            rows, scores = held.searcher.nearest(vectors, k, allowed)
        except Unfiltered as error:
            self._say(f"faiss has no filters for {error}: searching exactly")
            return super()._nearest(space, vectors, k, where, exact, corrected)
        found = named(held.ids, rows, scores)
        enough = min(k, len(held.ids) if allowed is None else int(allowed.sum()))
        if short := [row for row, hits in enumerate(found) if len(hits) < enough]:
            self._say(f"{space.ann.kind} finds fewer documents than match, for some: searching those exactly")
            again = super()._nearest(space, vectors[short], k, where, exact, corrected)
            for row, hits in zip(short, again, strict=True):
                found[row] = hits
        return found

    def _vectors(self, space: Space, ids: Sequence[str], corrected: bool) -> np.ndarray:
        # Of a few candidates: not worth holding all vectors beside the faiss index, unless they are already.
        if (space.fingerprint, corrected) in self._loaded:
            return super()._vectors(space, ids, corrected)
        return super(FlatIndex, self)._vectors(space, ids, corrected)

    def _refresh(self) -> None:
        self._discard()
        super()._refresh()

    def _forget(self) -> None:
        super()._forget()
        self._approximate.clear()

    def _discard(self) -> None:
        """Forget what was built, in memory and on disk: the card first, so that it never names what is not."""
        names = [name for space in self.card.spaces if space.ann for name in space.ann.files]
        for space in self.card.spaces:
            space.ann = None
        self._forget()
        self._save()
        if self._folder is not None:
            for name in names:
                (self._folder / Path(name).name).unlink(missing_ok=True)

    def _built(self, space: Space, factory: str) -> Ann:
        started = time.perf_counter()
        count, dim = sum(space.counts.values()), space.spec.dim
        index = described(factory, dim)
        ids: list[str] = []
        with _failing(f"faiss cannot build {factory} over {count:,} vectors of {dim} dimensions"):
            if not index.is_trained:
                wanted = max(TRAIN, 64 * getattr(_inner(index), "nlist", 0))
                index.train(self._sample(space, -(-count // wanted)))
            for names, _, _, vectors in self._tables.blocks(space, space.multilingual):
                index.add(vectors)
                ids += names
        named_ids = np.array(ids, object)
        plan = self._tuned(space, index, named_ids, factory)
        if self._folder is not None:
            plan.files = self._stored(self._folder, space, index, ids)
        searcher = FaissSearcher(index, plan.probes, plan.filtered_probes, plan.refine, self._device)
        self._approximate[space.fingerprint] = Held(named_ids, searcher)
        plan.seconds = round(time.perf_counter() - started, 3)
        return plan

    def _sample(self, space: Space, step: int) -> np.ndarray:
        """Every `step`-th vector, float32 [n, dim]."""
        parts, row = [], 0
        for _, _, _, vectors in self._tables.blocks(space, space.multilingual):
            parts.append(vectors[-row % step :: step])
            row += len(vectors)
        return np.concatenate(parts)

    def _tuned(self, space: Space, index: Any, ids: np.ndarray, factory: str) -> Ann:
        """The least effort that finds enough, without and with a filter on a language."""
        queries = perturbed(self._tables, space, space.multilingual, len(ids))
        held = Held(ids, FaissSearcher(index, 0, 0, REFINE))

        def tuned(where: Where | None) -> tuple[int, dict[int, float]]:
            condition = where_sql(where, self.card.keys)
            allowed = self._allowed(space, held, where)
            # Twice as deep, so that what ties with the last of the best is known.
            truth = scan(self._tables.blocks(space, space.multilingual, condition), queries, 2 * CUTOFFS[-1])
            tried: list[tuple[int, dict[int, float]]] = []
            for effort in _efforts(index):
                searcher = FaissSearcher(index, effort, effort, REFINE)
                at = {}
                for cutoff in CUTOFFS:
                    rows, scores = searcher.nearest(queries, cutoff, allowed)
                    at[cutoff] = share_found(named(ids, rows, scores), truth, cutoff)
                tried.append((effort, at))
                if at[CUTOFFS[0]] >= ENOUGH:
                    break
            best = tried[-1][1][CUTOFFS[0]]
            return next(pair for pair in tried if pair[1][CUTOFFS[0]] >= min(best, ENOUGH) - SAME)

        effort, recall = tuned(None)
        plan = Ann(factory, effort, effort, REFINE, recall, queries=len(queries))
        if langs := self.langs:
            total = self.card.documents
            lang = min(langs, key=lambda each: (abs(langs[each] / total - FILTER_KEEPS), each))
            try:
                plan.filtered_probes, at = tuned({"lang": lang})
            except Unfiltered:
                at = {CUTOFFS[0]: 1.0}  # searched exactly
            plan.filtered, plan.kept = at[CUTOFFS[0]], round(langs[lang] / total, 4)
        return plan

    def _stored(self, folder: Path, space: Space, index: Any, ids: list[str]) -> dict[str, str]:
        """Write the index and its ids under temporary names, and rename; their names and sha256."""
        faiss = installed()
        name = f"faiss-{space.fingerprint}.index"
        with place_atomically(folder / name) as partial, _failing(f"cannot write {folder / name}"):
            faiss.write_index(index, str(partial))
        list_name = f"faiss-{space.fingerprint}.ids.json"
        with write_atomically(folder / list_name) as out:
            json.dump(ids, out, ensure_ascii=False)
        return {each: sha256(folder / each) for each in (name, list_name)}

    def _opened(self, space: Space, plan: Ann) -> Held[FaissSearcher]:
        """A space's faiss index, read at the first search that needs it, its checksum before."""
        if space.fingerprint not in self._approximate:
            assert self._folder is not None
            # The name without a path: a card that came with the files may not lead out of their directory.
            files = {self._folder / Path(name).name: expected for name, expected in plan.files.items()}
            for file, expected in files.items():
                try:
                    found = sha256(file)
                except OSError as error:
                    raise InputError(f"cannot read {file}: {error.strerror}; {MEND}") from None
                if found != expected:
                    raise InputError(f"{file} is not the file that was built (its sha256 differs); {MEND}")
            if len(files) != 2:
                raise InputError(f"{self.path} does not name the files of its faiss index; {MEND}")
            index_file, list_file = files
            with _failing(f"cannot read {index_file}"):
                index = installed().read_index(str(index_file))
            ids = np.array(json.loads(list_file.read_text(encoding="utf-8")), object)
            searcher = FaissSearcher(index, plan.probes, plan.filtered_probes, plan.refine, self._device)
            self._approximate[space.fingerprint] = Held(ids, searcher)
        return self._approximate[space.fingerprint]

    def _say(self, text: str) -> None:
        """Once for each index that is open."""
        if text not in self._said:
            self._said.add(text)
            log.warning("%s: %s", self.path, text)


def installed() -> Any:
    """The faiss module; `InputError` naming the extra that brings it."""
    try:
        import faiss
    except ImportError:
        raise InputError("faiss is not installed: pip install 'crosslens[faiss]'") from None
    return faiss


def described(factory: str, dim: int) -> Any:
    """An empty faiss index for inner products; `InputError` with faiss's reason for a string that is none."""
    faiss = installed()
    with _failing(f"faiss cannot make an index {factory!r} of {dim} dimensions"):
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        raise InputError(f"faiss index {factory!r}: crosslens keeps the ids itself, leave IDMap out")
    return index


def share_found(found: Found, truth: Found, cutoff: int) -> float:
    """Recall of the best `cutoff` in 0..1, by the exact scores in `truth`; any that ties with the last will do."""
    shares = []
    for mine, exact in zip(found, truth, strict=True):
        best = sorted(exact, key=lambda hit: -hit[1])
        if wanted := best[:cutoff]:
            last = wanted[-1][1]
            better = {id for id, score in best if score > last + TIE}
            tied = {id for id, score in best if abs(score - last) <= TIE}
            ids = {id for id, _ in mine[:cutoff]}
            shares.append((len(ids & better) + min(len(ids & tied), len(wanted) - len(better))) / len(wanted))
    return round(float(np.mean(shares)), 4) if shares else 1.0


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _drop_repeated(rows: np.ndarray) -> None:
    """Row -1 for all but one of equal ones in rows int64 [q, k]: faiss's NSG finds some documents twice."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    np.put_along_axis(rows, order, ordered, 1)


def _parameters(index: Any, effort: int, refine: int, selector: Any) -> Any:
    """faiss's search parameters for an index and those inside it; None where none are needed."""
    faiss = installed()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(index.index, effort, refine, selector)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, effort, refine, selector)
        return faiss.IndexRefineSearchParameters(k_factor=refine, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(effort, index.nlist), sel=selector)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
    return None if selector is None else faiss.SearchParameters(sel=selector)


def _inner(index: Any) -> Any:
    """The index that searches, inside those that transform and refine."""
    faiss = installed()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _inner(index.index)
    if isinstance(index, faiss.IndexRefine):
        return _inner(index.base_index)
    return index


def _efforts(index: Any) -> list[int]:
    """The efforts to try, rising: from 16, doubling, to all cells or the longest search of a graph."""
    faiss = installed()
    inner = _inner(index)
    if isinstance(inner, faiss.IndexIVF):
        most = int(inner.nlist)
    elif isinstance(inner, faiss.IndexHNSW):
        most = min(LONGEST, int(inner.ntotal))
    else:
        return [0]
    efforts = [min(START, most)]
    while efforts[-1] < most:
        efforts.append(min(most, 2 * efforts[-1]))
    return efforts


def _on_gpu(index: Any, effort: int, refine: int) -> Any:
    """A copy of the index on the first GPU with its search parameters set; None without a GPU, or its kind."""
    faiss = installed()
    if faiss.get_num_gpus() == 0:
        return None
    try:
        moved = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError as error:
        log.info("faiss searches %s on the CPU: %s", type(index).__name__, _reason(error))
        return None
    inner = _inner(index)
    if isinstance(inner, faiss.IndexIVF):
        faiss.GpuParameterSpace().set_index_parameter(moved, "nprobe", min(effort, inner.nlist))
    if isinstance(faiss.downcast_index(index), faiss.IndexRefine):
        faiss.GpuParameterSpace().set_index_parameter(moved, "k_factor_rf", refine)
    return moved


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """`InputError` with faiss's reason in place of its exceptions."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise InputError(f"{what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What faiss says, on one line, without its source files and asserted expressions."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^Error in .*?\.(?:cpp|h|cu|cuh):\d+: ", "", text)
    return re.sub(r"^Error: '.*?' failed: ", "", text)
