"""How a space's vectors are spread: the language correction, and scores made comparable across spaces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..encoders.base import unit
from ..errors import InputError
from ..files import find_fault, parse_json, place_atomically
from ..items import Role, group_positions
from ..media.language_codes import find_language
from ..media.modalities import MEDIA
from .joint import part_vectors

TEXT = "text"
# Vectors, languages, modalities, and the vectors of passages' whole documents where these count, too.
Block = tuple[np.ndarray, Sequence[str | None], Sequence[str], np.ndarray | None]

# A language's mean is trusted as far as its documents go: this many count as much as the mean of all texts.
# Measured with e5-small on gettext messages in 14 languages (mAP over the pool): 2 to 5 is best or within
# 0.01 of it from 2 to 250 documents a language, whether or not the languages write about the same things (at
# 5 documents each of skewed topics: uncorrected 0.73, kappa 0 0.78, 3 0.83, 20 0.79).
KAPPA = 3.0
# How far the mean of queries in a language that has no documents is led from that of the documents' openings, by what
# names differ in the two languages: 0.75 is best, or within 0.001 of the best of 0.5 to 1 (benchmarks/correction.py).
LED = 0.75
# Languages with fewer documents do not count among the several of an index.
ENOUGH = 3
# Where there is one language alone, so many documents are corrected, unless it is the one that most queries are in.
# Questions in English and in that language itself gained, or lost nothing significant (benchmarks/correction.py).
ALONE = 100
COMMON = "eng"
# Below this many documents of a modality, the variance of scores is filled up with that of even directions.
FEW = 20
# Documents of a modality that are enough for a covariance (its scores' deviations then err by half a percent).
SAMPLE = 20_000
FORMAT = "1"


class Moments:
    """Means and covariances of one space's stored vectors, by language and modality.

    Two passes over the same blocks fill it: `update` for the means, then `spread` for the covariances of raw and of
    corrected vectors; `of` does both. A modality is what the *space's encoder read* of the document, as one name: a
    picture with a caption is `text` in a text-only space, and `text+image` where both are read. Texts are grouped by
    language. Each other modality is one group. Documents of which several are read (`text+image`) are a group of
    their own, since their vectors lie between the others; their language is not looked at.

    The correction subtracts the mean of an item's group and scales to length 1, for documents and queries alike:
    multilingual encoders put each language into a cone of its own, and so rank documents in the query's language too
    high. Queries have means of their own, of texts that were encoded as queries (`add_queries`): they are short and
    have another prompt, and what they have in common with each other is not what documents have. In a language without
    documents they differ from those by what the same names differ in both languages (`add_names`). Sums are float64,
    everything handed out is float32.

    Where passages count together with their whole documents, `share` is that of the passages, and vectors are the sums
    of both (`indexes.joint`): their means are subtracted from both.
    """

    def __init__(self, dim: int, kappa: float = KAPPA, share: float = 1.0) -> None:
        self.dim = dim
        self.kappa = kappa
        self.share = share
        self.languages: dict[str, VectorSum] = {}
        self.modalities: dict[str, VectorSum] = {}
        self.queries: dict[str, VectorSum] = {}  # by language, those without one under ""
        self.about: dict[str, str] = {}  # which texts `queries` are of
        self.named: dict[str, VectorSum] = {}  # names as queries, by language; empty where they are not known
        self.raw: dict[str, VectorSpread] = {}
        self.corrected: dict[str, VectorSpread] = {}
        self._passed: Counter[str] = Counter()  # rows that `spread` has been given

    @classmethod
    def of(cls, dim: int, blocks: Callable[[], Iterable[Block]], kappa: float = KAPPA, share: float = 1.0) -> Moments:
        """Both passes; `blocks()` starts a fresh stream of the same blocks each time."""
        moments = cls(dim, kappa, share)
        for vectors, langs, modalities, *_ in blocks():
            moments.update(vectors, langs, modalities)
        for block in blocks():
            moments.spread(*block)
        return moments

    def update(self, vectors: np.ndarray, langs: Sequence[str | None], modalities: Sequence[str]) -> None:
        """First pass: count and mean of each group of `vectors` float32 [n, dim]."""
        vectors = self._check(vectors, langs, modalities)
        for modality, rows in group_positions(modalities).items():
            self.modalities.setdefault(modality, VectorSum(self.dim)).add(vectors[rows])
        pairs = [lang if modality == TEXT else None for lang, modality in zip(langs, modalities, strict=True)]
        for lang, rows in group_positions(pairs).items():
            if lang is not None:
                self.languages.setdefault(lang, VectorSum(self.dim)).add(vectors[rows])

    def spread(
        self,
        vectors: np.ndarray,
        langs: Sequence[str | None],
        modalities: Sequence[str],
        wholes: np.ndarray | None = None,
    ) -> None:
        """Second pass, once the means are complete: covariances of raw and of corrected vectors.

        Of a modality with more than 20,000 documents only evenly spaced ones are looked at.
        """
        vectors = self._check(vectors, langs, modalities)
        for modality, rows in group_positions(modalities).items():
            step = -(-self._group_of(modality).count // SAMPLE) or 1
            sample = rows[-self._passed[modality] % step :: step]
            self._passed[modality] += len(rows)
            if len(sample):
                raw = vectors[sample]
                mine = [langs[row] for row in sample], [modality] * len(sample)
                corrected = self.correct_documents(raw, *mine, None if wholes is None else wholes[sample])
                self.raw.setdefault(modality, VectorSpread(self.dim)).add(raw)
                self.corrected.setdefault(modality, VectorSpread(self.dim)).add(corrected)

    def add_queries(self, lang: str | None, vectors: np.ndarray, about: str) -> None:
        """Texts of a language like those that will be asked for, encoded as queries: `vectors` float32 [n, dim].

        `about` says which texts they are, so that `reuse_queries` need not have them encoded again.
        """
        vectors = self._check(vectors, [lang] * len(vectors), [TEXT] * len(vectors))
        self.queries[lang or ""] = total = VectorSum(self.dim)
        total.add(vectors)
        self.about[lang or ""] = about

    def add_names(self, lang: str, vectors: np.ndarray) -> None:
        """What `media.language_names.list_names` has in a language, encoded as queries: `vectors` float32 [n, dim]."""
        total = VectorSum(self.dim)
        total.add(self._check(vectors, [lang] * len(vectors), [TEXT] * len(vectors)))
        self.named[lang] = total

    def reuse_queries(self, earlier: Moments, lang: str | None, about: str) -> bool:
        """Take over what `earlier` holds of queries in a language; False if it was given other texts."""
        if earlier.about.get(lang or "") != about:
            return False
        self.queries[lang or ""] = earlier.queries[lang or ""]
        self.about[lang or ""] = about
        return True

    @property
    def needs_correction(self) -> bool:
        """Whether there are texts of two languages, or enough of one in which not most queries are."""
        sizes = {lang: total.count for lang, total in self.languages.items() if total.count >= ENOUGH}
        return len(sizes) > 1 or any(size >= ALONE for lang, size in sizes.items() if lang != COMMON)

    def document_mean(self, lang: str | None, modality: str) -> np.ndarray:
        """What `correct` subtracts from documents, float32 [dim]; shrunk where they are few.

        A language's mean is drawn towards that of all texts, (n mean + kappa all) / (n + kappa), which stands alone
        for an unknown language or one without documents. `text+image` is drawn likewise towards the middle of the
        two. The means of all texts and of all pictures are drawn to zero with the weight of one document, so that the
        only picture of an index is not its own mean.
        """
        group, parts = self._group_of(modality), modality.split("+")
        if len(parts) > 1:
            middle = np.sum([self.document_mean(lang, each) for each in parts], axis=0) / len(parts)
            return group.shrink(middle, self.kappa)
        root = group.shrink(np.zeros(self.dim), 1.0)
        if modality == TEXT and lang in self.languages:
            return self.languages[lang].shrink(root, self.kappa)
        return root

    def query_mean(self, lang: str | None, modality: str) -> np.ndarray:
        """What `correct` subtracts from queries, float32 [dim].

        For texts as `document_mean`, with what `add_queries` was given in the documents' place, and the mean of all led
        towards the language by three quarters of what names in it differ from those in the documents' languages; where
        nothing was given, and for other modalities, it is that of documents.
        """
        if modality != TEXT or not self.queries:
            return self.document_mean(lang, modality)
        root = _add_up(self.dim, self.queries.values()).shrink(np.zeros(self.dim), 1.0)
        root += LED * self._find_step(lang)
        return self.queries[lang].shrink(root, self.kappa) if lang and lang in self.queries else root

    def _find_step(self, lang: str | None) -> np.ndarray:
        """What names in a language differ from those in the languages of `queries`, float32 [dim]; 0 if not known."""
        counts = {each: held.count for each, held in self.queries.items() if self._has_names(each)}
        if not lang or not counts or not self._has_names(lang):
            return np.zeros(self.dim, np.float32)
        means = [self.named[each].mean for each in counts]
        return self.named[lang].mean - np.average(means, axis=0, weights=list(counts.values())).astype(np.float32)

    def _has_names(self, lang: str) -> bool:
        return lang in self.named and self.named[lang].count > 0

    def correct(
        self, vectors: np.ndarray, langs: Sequence[str | None], modalities: Sequence[str], role: Role = "document"
    ) -> np.ndarray:
        """`vectors` [n, dim] less the mean of each one's group, at length 1: float32 [n, dim], a copy."""
        vectors = self._check(vectors, langs, modalities)
        corrected = np.empty_like(vectors)
        mean = self.query_mean if role == "query" else self.document_mean
        for (lang, modality), rows in group_positions(zip(langs, modalities, strict=True)).items():
            corrected[rows] = vectors[rows] - mean(lang, modality)
        return unit(corrected)

    def correct_documents(
        self,
        vectors: np.ndarray,
        langs: Sequence[str | None],
        modalities: Sequence[str],
        wholes: np.ndarray | None = None,
    ) -> np.ndarray:
        """`correct` of documents as they are stored: of passages and of the `wholes` that they count together with."""
        if wholes is None:
            return self.correct(vectors, langs, modalities)
        own, others = (self.correct(each, langs, modalities) for each in part_vectors(vectors, wholes, self.share))
        return self.share * own + (1 - self.share) * others

    def background(self, queries: np.ndarray, modality: str, corrected: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float32 [q], of each query's scores over the documents of `modality`.

        Exact and without a look at the documents: mean = q.mu, variance = q' Sigma q. `queries` [q, dim] are
        to be corrected if `corrected`. Below 20 documents the variance is filled up with that of evenly
        spread directions, |q|^2 / dim; without any, mean is 0 as well. The deviation is never 0.
        """
        queries = np.asarray(queries, np.float32)
        known = (self.corrected if corrected else self.raw).get(modality, VectorSpread(self.dim))
        even = np.square(queries).sum(axis=1) / self.dim
        # One query after the other: how a product of many is rounded depends on how many there are.
        spread = [np.vecdot(known.covariance @ query, query) for query in queries]
        variance = np.array(spread, np.float32).clip(min=0)
        missing = max(0, FEW - known.count)
        variance = (known.count * variance + missing * even) / (known.count + missing)
        return np.vecdot(queries, known.mean), np.sqrt(variance).clip(min=1e-6)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that appears under its name only when it is complete."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        tensors = {
            f"{kind}/{name}/{field}": np.atleast_1d(value)
            for kind, groups in self._groups.items()
            for name, group in groups.items()
            for field, value in vars(group).items()
        }
        shared = {"share": self.share} if self.share < 1 else {}  # which earlier versions do not know
        head = {
            "format": FORMAT,
            "moments": json.dumps({"dim": self.dim, "kappa": self.kappa, **shared}),
            "asked": json.dumps(self.about),
        }
        with place_atomically(path) as partial:
            try:
                save_file(tensors, partial, head)
            except SafetensorError as error:
                raise InputError(f"cannot write {path}: {error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read what `save` wrote; `InputError` if the file is missing, damaged or of another format."""
        from safetensors import SafetensorError, safe_open

        repair = "build the index again, which measures its vectors again"
        if fault := find_fault(path):
            raise InputError(f"cannot read {path}: {fault}; {repair}")
        try:
            with safe_open(path, "numpy") as file:
                head = file.metadata() or {}
                if head.get("format") != FORMAT:
                    raise InputError(f"{path}: moments of format {head.get('format')}, not {FORMAT}; {repair}")
                moments = cls(**parse_json(head["moments"]))
                moments.about = dict(parse_json(head.get("asked", "{}")))
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    moments._restore(name, file.get_tensor(name))
        except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot read {path}: {error}; {repair}") from None
        return moments

    def _restore(self, name: str, tensor: np.ndarray) -> None:
        kind, _, rest = name.partition("/")
        name, _, field = rest.rpartition("/")
        if kind in ("language", "asked"):
            name = find_language(name) or name  # earlier versions stored what they were given
        make = VectorSpread if kind in ("raw", "corrected") else VectorSum
        group = self._groups[kind].setdefault(name, make(self.dim))
        if tensor.shape != np.atleast_1d(getattr(group, field)).shape:
            raise ValueError(f"{name} has the shape {tensor.shape}")
        setattr(group, field, int(tensor[0]) if field == "count" else tensor)

    @property
    def _groups(self) -> dict[str, dict[str, Any]]:
        """What is kept, by the names that it has in files."""
        means = {"language": self.languages, "modality": self.modalities, "asked": self.queries, "named": self.named}
        return {**means, "raw": self.raw, "corrected": self.corrected}

    def _group_of(self, modality: str) -> VectorSum:
        return self.modalities.get(modality, VectorSum(self.dim))

    def _check(self, vectors: np.ndarray, langs: Sequence[str | None], modalities: Sequence[str]) -> np.ndarray:
        vectors = np.asarray(vectors, np.float32)
        if vectors.shape != (len(langs), self.dim) or len(langs) != len(modalities):
            raise ValueError(
                f"vectors {vectors.shape} of dim {self.dim}, {len(langs)} langs, {len(modalities)} modalities"
            )
        parts = {part for modality in set(modalities) for part in modality.split("+")}
        if unknown := parts - {TEXT, *MEDIA}:
            raise ValueError(f"unknown modalities {sorted(unknown)}")
        return vectors


class VectorSum:
    """Count and float64 sum of vectors."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.sum = np.zeros(dim)

    def add(self, vectors: np.ndarray) -> None:
        self.count += len(vectors)
        self.sum += vectors.sum(axis=0, dtype=np.float64)

    @property
    def mean(self) -> np.ndarray:
        """Their mean, float32 [dim]; there must be some."""
        return (self.sum / self.count).astype(np.float32)

    def shrink(self, prior: np.ndarray, weight: float) -> np.ndarray:
        """Their mean, drawn towards `prior` as if `weight` vectors had been there."""
        return ((self.sum + weight * prior) / (self.count + weight)).astype(np.float32)


def _add_up(dim: int, parts: Iterable[VectorSum]) -> VectorSum:
    """The sum of several, of vectors of so many dimensions."""
    every = VectorSum(dim)
    for part in parts:
        every.count += part.count
        every.sum += part.sum
    return every


class VectorSpread:
    """Count, mean and population covariance, merged block by block (Chan, Golub and LeVeque 1979)."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = np.zeros(dim, np.float32)
        self.covariance = np.zeros((dim, dim), np.float32)

    def add(self, vectors: np.ndarray) -> None:
        # Centred before they are multiplied: the raw second moments of e5 would drown a variance 1000 times
        # smaller.
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean.astype(np.float32)
        total = self.count + len(vectors)
        share = len(vectors) / total
        step = mean - self.mean
        self.covariance += share * (centred.T @ centred / len(vectors) - self.covariance)
        self.covariance += (share * (1 - share) * np.outer(step, step)).astype(np.float32)
        self.mean = (self.mean + share * step).astype(np.float32)
        self.count = total
