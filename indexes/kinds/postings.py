"""Inverted postings of sparse vectors in npy files: written block by block, memory-mapped, searched exactly."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from heapq import nsmallest
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse

from ...errors import InputError
from ...files import find_fault
from ...items import hash_text

BLOCK = 1 << 16  # documents a block: their numbers fit into 16 bits, and a block's scores into a core's cache
POSTINGS = 8 << 20  # postings a block: what is held in memory while it is turned round
HEADER = 128  # bytes before the numbers of an npy file: numpy leaves room for a longer length
GROUP = 32  # scores that stand for one another when the best are picked

# Documents are numbered within their block. Block b has the documents first[b]..first[b + 1], and of `terms` (rising
# within a block) the rows first_term[b]..first_term[b + 1]; term row t has the postings starts[t]..starts[t + 1].
# The ids are one string of UTF-8, id n ends at ends[n]; digests are 64 bits of them.
FILES = {
    "first": np.int64,
    "first_term": np.int64,
    "terms": np.int32,
    "starts": np.int64,
    "docs": np.uint16,
    "weights": np.float32,
    "ids": np.uint8,
    "ends": np.int64,
    "digests": np.uint64,
}

Rows = tuple[Sequence[str], scipy.sparse.csr_matrix]  # ids, and their weights: float32 [n, vocabulary]


@dataclass(frozen=True, eq=False)
class Postings:
    """The postings of a collection: for each term the documents that have it, with its weight in each.

    `arrays` are those of `FILES`, memory-mapped or in memory; `vocabulary` is the number of terms there can be.
    """

    arrays: dict[str, np.ndarray]
    vocabulary: int

    def __len__(self) -> int:
        return len(self.arrays["ends"])

    @classmethod
    def of(cls, rows: Iterable[Rows], vocabulary: int) -> Self:
        """Postings in memory."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name in FILES}
        for block in _make_blocks(rows, vocabulary):
            for name, part in block.items():
                parts[name].append(part)
        return cls({name: np.concatenate(each).astype(FILES[name]) for name, each in parts.items()}, vocabulary)

    @classmethod
    def write(cls, folder: Path, rows: Iterable[Rows], vocabulary: int) -> Self:
        """Postings in `folder`, which appears under its name only when it is complete, in place of an older one.

        Memory holds one block at a time. `InputError` if they cannot be written, a full disk included.
        """
        partial, old = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "old"))
        try:
            for left in (partial, old):  # of a killed process
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir()
            with ExitStack() as files:
                extend = {
                    name: files.enter_context(_grow_file(partial / f"{name}.npy", kind)) for name, kind in FILES.items()
                }
                for block in _make_blocks(rows, vocabulary):
                    for name, part in block.items():
                        extend[name](part)
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
        except OSError as error:
            raise InputError(
                f"cannot write {folder}: {error.strerror}; make room and rerun `crosslens index`, which goes on where "
                "it stopped"
            ) from None
        finally:
            for left in (partial, old):
                shutil.rmtree(left, ignore_errors=True)
        return cls.open(folder, vocabulary)

    @classmethod
    def open(cls, folder: Path, vocabulary: int) -> Self:
        """The postings in `folder`, memory-mapped; `InputError` if a file is missing or damaged."""
        arrays = {}
        for name, kind in FILES.items():
            path = folder / f"{name}.npy"
            if fault := find_fault(path):
                raise InputError(f"cannot read {path} ({fault}); make the index again")
            try:
                # An empty file cannot be mapped.
                arrays[name] = np.load(path, mmap_mode="r") if path.stat().st_size > HEADER else np.load(path)
            except (OSError, ValueError, EOFError) as error:
                raise InputError(f"cannot read {path} ({error}); make the index again") from None
            if arrays[name].dtype != kind or arrays[name].ndim != 1:
                raise InputError(f"{path} is not what crosslens wrote; make the index again")
        starts, ends = arrays["starts"], arrays["ends"]
        whole = (
            len(starts) == len(arrays["terms"]) + 1
            and len(arrays["docs"]) == len(arrays["weights"]) == starts[-1]
            and len(arrays["digests"]) == len(ends)
            and len(arrays["ids"]) == (ends[-1] if len(ends) else 0)
        )
        if not whole:
            raise InputError(f"{folder} is damaged: its files do not belong together; make the index again")
        return cls(arrays, vocabulary)

    def nearest(
        self, queries: scipy.sparse.csr_matrix, k: int, allowed: np.ndarray | None = None
    ) -> list[list[tuple[str, float]]]:
        """For each row of `queries` [q, vocabulary] the k documents of highest inner product that share a term.

        Exact, in float32, summed in the order of the terms, so that a query scores the same alone and among others;
        equal scores are ordered by id. `allowed` is a mask over the documents.
        """
        if queries.shape[1] != self.vocabulary:
            raise ValueError(f"queries of {queries.shape[1]} terms for postings of {self.vocabulary}")
        queries = scipy.sparse.csr_matrix(queries, dtype=np.float32)
        queries.sort_indices()
        nothing: tuple[np.ndarray, np.ndarray] = np.zeros(0, np.int64), np.zeros(0, np.float32)
        found = [nothing] * queries.shape[0]
        documents = pairwise([*self.arrays["first"].tolist(), len(self)])
        bounds = pairwise([*self.arrays["first_term"].tolist(), len(self.arrays["terms"])])
        # Block by block, so that each is read from disk once a batch.
        for (start, stop), (low, high) in zip(documents, bounds, strict=True):
            mine = None if allowed is None else allowed[start:stop]
            if mine is not None and not mine.any():
                continue
            terms = np.asarray(self.arrays["terms"][low:high])
            spans = np.asarray(self.arrays["starts"][low : high + 1])
            for row, best in enumerate(found):
                part = slice(queries.indptr[row], queries.indptr[row + 1])
                scores = self._score_block(queries.indices[part], queries.data[part], terms, spans, stop - start)
                if scores is not None:
                    rows, values = _pick_best(scores if mine is None else scores * mine, k)
                    both = zip(best, (rows + start, values), strict=True)
                    rows, values = map(np.concatenate, both)
                    found[row] = _keep_reaching(rows, values, k)
        hits = [zip(self.names(rows), scores.tolist(), strict=True) for rows, scores in found]
        return [nsmallest(k, each, key=lambda hit: (-hit[1], hit[0])) for each in hits]

    def _score_block(
        self, asked: np.ndarray, weights: np.ndarray, terms: np.ndarray, spans: np.ndarray, documents: int
    ) -> np.ndarray | None:
        """The scores of a block's documents, float32 [documents]; `None` where no term of the query occurs."""
        at = np.searchsorted(terms, asked)
        held = at < len(terms)
        held[held] = terms[at[held]] == asked[held]
        if not held.any():
            return None
        pieces = [slice(*span) for span in zip(spans[at[held]].tolist(), spans[at[held] + 1].tolist(), strict=True)]
        ends = np.zeros(len(pieces) + 1, np.int32)
        np.cumsum([piece.stop - piece.start for piece in pieces], out=ends[1:])
        docs = np.concatenate([self.arrays["docs"][piece] for piece in pieces], dtype=np.int32)
        data = np.concatenate([self.arrays["weights"][piece] for piece in pieces])
        # A matrix with a column a term, times the query: scipy adds term after term, as an inverted index does.
        columns = scipy.sparse.csc_array((data, docs, ends), shape=(documents, len(pieces)))
        scores: np.ndarray = columns @ weights[held]
        return scores

    def names(self, rows: np.ndarray) -> list[str]:
        """The ids of documents int64 [n]."""
        ends, text = self.arrays["ends"], self.arrays["ids"]
        starts = np.where(rows > 0, ends[rows - 1], 0) if len(rows) else rows
        spans = zip(starts.tolist(), ends[rows].tolist(), strict=True)
        return [text[start:end].tobytes().decode() for start, end in spans]

    def mask(self, ids: Iterable[str]) -> np.ndarray:
        """Which documents are among `ids`: a mask over the documents."""
        wanted = np.fromiter((hash_text(each) for each in ids), np.uint64)
        return np.isin(self.arrays["digests"], wanted)


def _pick_best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and scores of the k highest positive scores, and of all that equal the last of them, in no order."""
    group = min(GROUP, len(scores) // (2 * k))
    floor = np.float32(0)
    if group > 1:
        # The k-th best of the maxima of groups is a lower bound: at least k scores reach it.
        maxima = scores[: len(scores) // group * group].reshape(group, -1).max(axis=0)
        floor = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    rows = np.flatnonzero(scores >= floor if floor > 0 else scores > 0)
    return _keep_reaching(rows, scores[rows], k)


def _keep_reaching(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if len(scores) <= k:
        return rows, scores
    keep = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
    return rows[keep], scores[keep]


def _make_blocks(rows: Iterable[Rows], vocabulary: int) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of `FILES` for one block after the other."""
    documents = terms = postings = letters = 0
    yield {"starts": np.zeros(1, np.int64)}
    for ids, matrix in _gather(rows):
        columns = matrix.tocsc()  # documents rise within each term
        counts = np.diff(columns.indptr)
        held = np.flatnonzero(counts)
        texts = [each.encode() for each in ids]
        ends = letters + np.cumsum([len(text) for text in texts], dtype=np.int64)
        starts = postings + np.cumsum(counts[held], dtype=np.int64)
        yield {
            "first": np.array([documents]),
            "first_term": np.array([terms]),
            "terms": held,
            "starts": starts,
            "docs": columns.indices,
            "weights": columns.data,
            "ids": np.frombuffer(b"".join(texts), np.uint8),
            "ends": ends,
            "digests": np.array([hash_text(each) for each in ids], np.uint64),
        }
        documents += len(ids)
        terms += len(held)
        postings += columns.nnz
        letters = int(ends[-1])
    if not documents:
        yield {name: np.zeros(0, kind) for name, kind in FILES.items()}


def _gather(rows: Iterable[Rows]) -> Iterator[tuple[list[str], scipy.sparse.csr_matrix]]:
    """Rows joined to blocks of at most `BLOCK` documents and about `POSTINGS` postings."""
    ids: list[str] = []
    parts: list[scipy.sparse.csr_matrix] = []
    size = 0
    for names, matrix in rows:
        if ids and (len(ids) + len(names) > BLOCK or size + matrix.nnz > POSTINGS):
            yield ids, scipy.sparse.vstack(parts, format="csr")
            ids, parts, size = [], [], 0
        ids += names
        parts.append(matrix)
        size += matrix.nnz
    if ids:
        yield ids, scipy.sparse.vstack(parts, format="csr")


@contextmanager
def _grow_file(path: Path, kind: Any) -> Iterator[Callable[[np.ndarray], object]]:
    """An npy file of one dimension, written piece by piece by what is yielded."""
    dtype = np.dtype(kind)
    with path.open("wb") as file:
        file.seek(HEADER)
        yield lambda part: file.write(np.ascontiguousarray(part, dtype).data)
        shape = ((file.tell() - HEADER) // dtype.itemsize,)
        head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, head)
        assert file.tell() == HEADER
        file.flush()
        os.fsync(file.fileno())
