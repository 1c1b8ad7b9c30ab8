"""`faiss:FACTORY`: approximate search by any index that a faiss factory string describes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property, partial
from itertools import islice
from typing import Any

import numpy as np

from ...checkpoints.devices import resolve_device
from ...encoders.base import EncoderSpec
from ...errors import InputError, check_at_least
from ...files import hash_file, place_atomically, read_json, write_atomically
from ...runs import Rankings
from ..storage.card import Ann, Recall, Space
from ..storage.filters import write_sql
from ..storage.storage import Storage
from ..ties import search_past_ties
from .base import SpaceQueries
from .dense import DenseKind
from .loaded import LoadedSpace
from .recall import CUTOFFS, DEPTH, build_spaces, choose_filter, double_up, perturb_vectors, tune_plan

log = logging.getLogger("crosslens")

TRAIN = 65_536  # vectors that an index learns from, or 64 a cluster if that is more
START = 16  # probes or candidates that tuning starts from
LONGEST = 4096  # candidates of a graph search, at most
SAME = 0.002  # recall that is not worth more probes
REFINE = 10  # times k candidates that a refine stage looks at
NEAR = 1e-6  # what faiss's matrix products may be off by, for vectors of length 1
GPU_MOST = 2048  # hits, and probes, that faiss's kinds for GPUs take
ANY_DIM = 960  # a dimension that most factory strings suit
REPAIR = "build the index again"


class FaissSearcher:
    """Nearest neighbours by inner product in a faiss index (a `searcher.Searcher`): approximate, by its kind.

    `effort` is `nprobe` of an inverted file, `efSearch` of a graph, and nothing to others; under a filter it
    is `filtered`. A refine stage looks at `refine` times k candidates. There may be fewer hits than k though
    more rows are allowed. Scores are faiss's: estimates where vectors are quantised and no refine stage
    follows; those of `Flat` are taken row by row, so that equal vectors have equal ones. On a GPU, if `device` is
    not `cpu`, faiss sees one, and has this kind for GPUs; filters stay on the CPU.
    """

    def __init__(self, index: Any, effort: int, filtered: int, refine: int, device: str = "cpu") -> None:
        self._index = index
        self._effort, self._filtered, self._refine = effort, filtered, refine
        self._stored = _view_vectors(index)
        self._gpu = None if device.startswith("cpu") else _copy_to_gpu(index, effort, refine, device)

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Searcher.nearest`; `Unfiltered` if there is a mask and faiss has no filter for this kind of index."""
        check_at_least(1, k=k)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        depth = min(k, int(self._index.ntotal))
        if depth == 0 or len(queries) == 0:
            return rows, scores
        queries = np.ascontiguousarray(queries, np.float32)
        if allowed is None and self._gpu is not None and depth <= GPU_MOST:
            found = self._gpu.search(queries, depth)
        else:
            bits = None if allowed is None else np.packbits(allowed, bitorder="little")  # the selector points into it
            selector = None if bits is None else import_faiss().IDSelectorBitmap(bits)
            effort = self._effort if bits is None else self._filtered
            try:
                parameters = _make_parameters(self._index, effort, self._refine, selector)
                found = self._index.search(queries, depth, params=parameters)
            except RuntimeError as error:
                if bits is None or "params" not in str(error):
                    raise
                raise Unfiltered(type(self._index).__name__) from None
        scores[:, :depth], rows[:, :depth] = found
        _drop_repeated(rows)
        if self._stored is not None:
            for query, mine, out in zip(queries, rows[:, :depth], scores[:, :depth], strict=True):
                np.vecdot(self._stored[mine], query, out=out)
        scores[rows < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)

    def bound_rounding(self, queries: np.ndarray) -> float:
        """How far apart what faiss picks rows by and their scores may lie: 0 where it is the same."""
        if self._stored is None or not len(queries):
            return 0.0
        return float(NEAR * np.linalg.norm(queries, axis=1).max() * self._longest)

    @cached_property
    def _longest(self) -> float:
        """The length of the longest vector stored as it is."""
        return 0.0 if self._stored is None else max(map(float, map(np.linalg.norm, self._stored)), default=0.0)


class Unfiltered(Exception):
    """faiss cannot search this kind of index under a filter."""


class FaissKind(DenseKind):
    """Default search is a faiss index, built from a factory string: kind `faiss:HNSW32`.

    Metric inner product. `build` makes a file a space and its ids beside the tables, with their sha256 on the card:
    faiss trusts what it reads, so a file is checked before. Searched exactly are, beside what is asked for so or is not
    built, queries for which faiss finds fewer than k of the documents that match, and filters on kinds for which faiss
    has none.
    """

    needs_folder = True

    def __init__(self, storage: Storage, device: str = "auto", detail: str = "") -> None:
        super().__init__(storage, device, detail)
        self._opened: dict[str, LoadedSpace[FaissSearcher]] = {}
        self._warn = cache(partial(log.warning, "%s: %s", storage.path))  # of each thing once

    @classmethod
    def check_detail(cls, name: str, detail: str) -> None:
        """`InputError` for a factory string that faiss does not understand."""
        if not detail:
            raise InputError(f"the index kind {name} needs a factory string: write faiss:HNSW32, for example")
        try:
            # Any dimension shows whether faiss can read the string; whether the encoder's suits it, `add` sees.
            make_faiss_index(detail, ANY_DIM)
        except InputError as error:
            reason = str(error).partition(": ")[2]
            if not re.search(r"multiple of|%", reason):
                raise InputError(f"no index kind '{name}:{detail}': {reason}") from None

    @classmethod
    def check_ann(cls, name: str, ann: str) -> None:
        """`InputError` for a factory string that faiss does not understand."""
        if ann not in ("auto", "none"):
            cls.check_detail(name.partition(":")[0], ann)

    def check_spec(self, spec: EncoderSpec) -> None:
        make_faiss_index(self.detail, spec.dim)

    def build(self, ann: str) -> Recall:
        """The faiss index of each space, trained and filled from the table a block at a time.

        `ann` is `auto` for the factory string of the index's kind, another factory string, or `none`. Probes are
        raised until 0.97 of the exact 10 best of 100 queries are found, or more find no more. Serves the default
        search, language-corrected where the space is multilingual. `InputError` with faiss's reason if it fails.
        """
        factory = self.detail if ann == "auto" else ann
        if ann != "none":
            for space in self.storage.card.spaces:  # before what is there is thrown away
                make_faiss_index(factory, space.spec.dim)
        return build_spaces(self, ann, lambda space: self.detail, self._make)

    def search_approximately(self, asked: SpaceQueries, k: int, condition: str | None, plan: Ann) -> Rankings:
        opened = self._open(asked.space, plan)

        def ask(rows: Sequence[int], depth: int) -> Rankings:
            return opened.rank(asked.vectors[rows], depth, condition)

        try:
            found = search_past_ties(ask, len(asked.vectors), k, opened.searcher.bound_rounding(asked.vectors))
        except Unfiltered as error:
            self._warn(f"faiss has no filters for {error}: searching exactly")
            return self.nearest(asked, k, condition, exact=True)
        allowed = opened.mask(condition)
        enough = min(k, len(opened.ids) if allowed is None else int(allowed.sum()))
        if short := [row for row, hits in enumerate(found) if len(hits) < enough]:
            self._warn(f"{plan.kind} finds fewer documents than match, for some: searching those exactly")
            again = replace(asked, rows=short, vectors=asked.vectors[short])
            for row, hits in zip(short, self.nearest(again, k, condition, exact=True), strict=True):
                found[row] = hits
        return found

    def discard(self) -> None:
        for space in self.storage.card.spaces:
            for name in space.ann.files if space.ann else ():
                self.storage.card.files.pop(name, None)
        self._opened.clear()
        super().discard()

    def _make(self, space: Space, factory: str) -> Ann:
        tables, dim = self.storage.tables, space.spec.dim
        index = make_faiss_index(factory, dim)
        ids: list[str] = []
        with _translate_errors(f"faiss cannot build {factory} over {space.count:,} vectors of {dim} dimensions"):
            if not index.is_trained:
                wanted = max(TRAIN, 64 * getattr(_find_inner(index), "nlist", 0))
                stored = (row for *_, block in tables.blocks(space, space.multilingual) for row in block)
                # Copies, as a view would keep its whole block in memory.
                index.train(np.stack([row.copy() for row in islice(stored, None, None, -(-space.count // wanted))]))
            for names, _, _, vectors in tables.blocks(space, space.multilingual):
                index.add(vectors)
                ids += names
        plan = self._tune(space, index, ids, factory)
        if self.storage.folder is not None:
            plan.files = _write_files(self.storage, space, index, ids)
        self._hold(space, index, ids, plan)
        return plan

    def _tune(self, space: Space, index: Any, ids: Sequence[str], factory: str) -> Ann:
        """The least effort that finds enough, without and with a filter on a language."""
        tables, corrected = self.storage.tables, space.multilingual
        queries = perturb_vectors(tables, space, corrected)
        asked = SpaceQueries(space, range(len(queries)), queries, corrected)
        loaded = LoadedSpace(ids, FaissSearcher(index, 0, 0, REFINE), tables)

        def tune(condition: str | None) -> Ann:
            truth = self.search_parts(asked, DEPTH, condition)

            def search(plan: Ann, k: int) -> Rankings:
                loaded.searcher = FaissSearcher(index, plan.probes, plan.probes, REFINE)
                return loaded.rank(queries, k, condition)

            plans = [Ann(factory, effort, effort, REFINE, queries=len(queries)) for effort in _list_efforts(index)]
            return tune_plan(plans, search, truth, SAME)

        plan = tune(None)
        if (chosen := choose_filter(self.storage.card)) is not None:
            lang, plan.kept = chosen
            try:
                filtered = tune(write_sql({"lang": lang}, (), [lang]))
                plan.filtered_probes, plan.filtered = filtered.probes, filtered.recall[CUTOFFS[0]]
            except Unfiltered:
                plan.filtered = 1.0  # searched exactly
        return plan

    def _open(self, space: Space, plan: Ann) -> LoadedSpace[FaissSearcher]:
        """A space's faiss index, read at the first search that needs it, its checksum before."""
        if space.fingerprint not in self._opened:
            folder = self.storage.folder
            assert folder is not None
            files = {folder / self.storage.find_file(name): expected for name, expected in plan.files.items()}
            for file, expected in files.items():
                try:
                    found = hash_file(file)
                except InputError as error:
                    raise InputError(f"{error}; {REPAIR}") from None
                if found != expected:
                    raise InputError(f"{file} is not the file that was built (its sha256 differs); {REPAIR}")
            if len(files) != 2:
                raise InputError(f"{self.storage.path} does not name the files of its faiss index; {REPAIR}")
            index_file, list_file = files
            with _translate_errors(f"cannot read {index_file}"):
                index = import_faiss().read_index(str(index_file))
            self._hold(space, index, read_json(list_file), plan)
        return self._opened[space.fingerprint]

    def _hold(self, space: Space, index: Any, ids: Sequence[str], plan: Ann) -> None:
        searcher = FaissSearcher(index, plan.probes, plan.filtered_probes, plan.refine, self.device)
        self._opened[space.fingerprint] = LoadedSpace(ids, searcher, self.storage.tables)


def import_faiss() -> Any:
    """The faiss module; `InputError` naming the extra that brings it."""
    try:
        import faiss
    except ImportError:
        raise InputError("faiss is not installed: pip install 'crosslens[faiss]'") from None
    return faiss


def make_faiss_index(factory: str, dim: int) -> Any:
    """An empty faiss index for inner products; `InputError` with faiss's reason for a string that is none."""
    faiss = import_faiss()
    with _translate_errors(f"faiss cannot make an index {factory!r} of {dim} dimensions"):
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        raise InputError(f"faiss index {factory!r}: crosslens keeps the ids itself, leave IDMap out")
    return index


def _drop_repeated(rows: np.ndarray) -> None:
    """Row -1 for all but one of equal ones in rows int64 [q, k]: faiss's NSG finds some documents twice."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    np.put_along_axis(rows, order, ordered, 1)


def _make_parameters(index: Any, effort: int, refine: int, selector: Any) -> Any:
    """faiss's search parameters for an index and those inside it; None where none are needed."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _make_parameters(index.index, effort, refine, selector)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _make_parameters(index.base_index, effort, refine, selector)
        return faiss.IndexRefineSearchParameters(k_factor=refine, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(effort, index.nlist), sel=selector)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
    return None if selector is None else faiss.SearchParameters(sel=selector)


def _find_inner(index: Any) -> Any:
    """The index that searches, inside those that transform and refine."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return _find_inner(index.index)
    if isinstance(index, faiss.IndexRefine):
        return _find_inner(index.base_index)
    return index


def _view_vectors(index: Any) -> np.ndarray | None:
    """The vectors of an index that keeps them as they are and nothing else, float32 [n, dim]; None of others."""
    faiss = import_faiss()
    index = faiss.downcast_index(index)
    if not isinstance(index, faiss.IndexFlat) or not index.ntotal:
        return None
    vectors: np.ndarray = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
    return vectors


def _list_efforts(index: Any) -> list[int]:
    """The efforts to try, rising: from 16, doubling, to all cells or the longest search of a graph."""
    faiss = import_faiss()
    inner = _find_inner(index)
    if isinstance(inner, faiss.IndexIVF):
        most = int(inner.nlist)
    elif isinstance(inner, faiss.IndexHNSW):
        most = min(LONGEST, int(inner.ntotal))
    else:
        return [0]
    return double_up(min(START, most), most)


def _copy_to_gpu(index: Any, effort: int, refine: int, device: str) -> Any:
    """A copy of the index on that GPU with its search parameters set; None without a GPU, or its kind."""
    faiss = import_faiss()
    if faiss.get_num_gpus() == 0 or effort > GPU_MOST:
        return None
    try:
        moved = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), resolve_device(device).index or 0, index)
    except RuntimeError as error:
        log.info("faiss searches %s on the CPU: %s", type(index).__name__, _find_reason(error))
        return None
    inner = _find_inner(index)
    if isinstance(inner, faiss.IndexIVF):
        faiss.GpuParameterSpace().set_index_parameter(moved, "nprobe", min(effort, inner.nlist))
    if isinstance(faiss.downcast_index(index), faiss.IndexRefine):
        faiss.GpuParameterSpace().set_index_parameter(moved, "k_factor_rf", refine)
    return moved


def _write_files(storage: Storage, space: Space, index: Any, ids: Sequence[str]) -> dict[str, str]:
    """Write the index and its ids under temporary names, and rename; their names and sha256."""
    faiss = import_faiss()
    folder = storage.folder
    assert folder is not None
    names = [f"faiss-{space.fingerprint}.{end}" for end in ("index", "ids.json")]
    index_file, list_file = files = [folder / storage.name_file(name) for name in names]
    with place_atomically(index_file) as partial, _translate_errors(f"cannot write {index_file}"):
        faiss.write_index(index, str(partial))
    with write_atomically(list_file) as out:
        json.dump(ids, out, ensure_ascii=False)
    return {name: hash_file(file) for name, file in zip(names, files, strict=True)}


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """`InputError` with faiss's reason in place of its exceptions."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise InputError(f"{what}: {_find_reason(error)}") from None


def _find_reason(error: Exception) -> str:
    """What faiss says, on one line, without its source files and asserted expressions."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^Error in .*?\.(?:cpp|h|cu|cuh):\d+: ", "", text)
    return re.sub(r"^Error: '.*?' failed: ", "", text)
