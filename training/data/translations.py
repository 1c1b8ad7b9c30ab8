"""Translation pairs: a document's title in another language, where documents are aligned, or found to be."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from ...encoders.cache.encoder import CachedEncoder, close_caches
from ...encoders.registry import load_encoder
from ...errors import InputError, check_at_least
from ...items import Dense, Item, group_positions
from ...media.language_codes import find_language
from ...pipeline import advance
from .base import Draft, Making
from .titles import take_head

BLOCK = 4096  # rows of a product of similarities
_CODE = re.compile(
    r"(?<![A-Za-z])([A-Za-z]{2,3})(?:[-_](?:[A-Z]{2}|[A-Z][a-z]{3}))?(?![A-Za-z])"
)  # in an id: zho, zh-CN


@dataclass(frozen=True, kw_only=True)
class Translations:
    """`translations?by=`: a document's title, or first sentence, is a query for its translations.

    `by=id`: translations are the documents whose ids differ in the language alone (`rus/guide/macros`,
    `zho/guide/macros`). `by=KEY`: those with the same value of `meta[KEY]`. `by=vectors`: those that are mined among
    the chosen documents by the margin of their vectors (`mine_by_margin`), less the mean of their language: a pair
    counts from `margin` on, with `k` neighbours, in the space of `encoder`; what an index or a run before has encoded
    is in the vector cache. `InputError` where there is no pair at all.
    """

    by: str = ""
    encoder: str = "offline:e5-small"
    margin: float = 1.06
    k: int = 4
    device: str = field(default="auto", repr=False)
    name: str = field(default="translations", init=False)
    copies: bool = field(default=True, init=False)
    whole: bool = field(default=True, init=False)
    usage: Counter[str] = field(default_factory=Counter, init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.by:
            raise InputError("translations must be told apart from others: add by=id, by=vectors, or by=KEY of meta")
        check_at_least(1, k=self.k)
        if not math.isfinite(self.margin):
            raise InputError(f"margin must be a finite number, not {self.margin:g}")

    @property
    def models(self) -> Mapping[str, str]:
        return {self.encoder: ""} if self.by == "vectors" else {}

    def describe(self) -> dict[str, Any]:
        mined = {"paper": "Artetxe and Schwenk 2019, arXiv:1811.01136", "encoder": self.encoder, "margin": self.margin}
        return {"by": self.by} | ({**mined, "k": self.k} if self.by == "vectors" else {})

    def count(self, documents: int) -> int:
        return documents

    def make(
        self, read: Callable[[], Iterator[Item]], chosen: Container[str], making: Making
    ) -> Iterator[tuple[Item, list[Draft]]]:
        pairs = self._mine(read, chosen, making) if self.by == "vectors" else self._align(read, chosen)
        if not pairs:
            raise InputError(f"no document has a translation (by={self.by}): nothing to make queries of")
        for document in read():
            if document.id in chosen:
                yield document, [Draft(text, lang, "translation") for text, lang in pairs.get(document.id, ())]
                advance()

    def _align(self, read: Callable[[], Iterator[Item]], chosen: Container[str]) -> dict[str, list[tuple[str, str]]]:
        """The heads of its translations by the id of a chosen document."""
        groups: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        for document in read():
            if document.lang is not None and (key := name_group(document, self.by)):
                groups[key].setdefault(document.lang, (document.id, take_head(document)[0]))
        return {
            id: others
            for group in groups.values()
            for lang, (id, _) in group.items()
            if id in chosen
            and (others := [(head, other) for other, (_, head) in group.items() if other != lang and head])
        }

    def _mine(
        self, read: Callable[[], Iterator[Item]], chosen: Container[str], making: Making
    ) -> dict[str, list[tuple[str, str]]]:
        heads: list[Item] = []  # without their texts, of which there may be many

        def watched() -> Iterator[Item]:
            for document in read():
                if document.id in chosen and document.lang is not None and (head := take_head(document)[0]):
                    heads.append(Item(document.id, head, lang=document.lang))
                    yield document

        vectors = self._encode(watched())
        pairs: dict[str, list[tuple[str, str]]] = {}
        by_lang = group_positions(head.lang for head in heads)
        centred = {lang: center_vectors(vectors[places]) for lang, places in by_lang.items()}
        for (lang, one), (other_lang, other) in combinations(by_lang.items(), 2):
            for row, column, margin in mine_by_margin(centred[lang], centred[other_lang], self.k):
                if margin < self.margin:
                    break
                making.count["mined_pairs"] += 1
                for a, b in ((heads[one[row]], heads[other[column]]), (heads[other[column]], heads[one[row]])):
                    pairs.setdefault(a.id, []).append((str(b.text), str(b.lang)))
        return pairs

    def _encode(self, documents: Iterator[Item]) -> np.ndarray:
        encoder = CachedEncoder(load_encoder(self.encoder, device=self.device))
        found: list[np.ndarray] = []
        for batch in encoder.encode(documents, "document"):
            if not isinstance(batch, Dense):
                raise InputError(f"{self.encoder} has no one vector for a text; mine translations by one that has")
            found.append(batch.vectors)
        close_caches([encoder])
        return np.concatenate(found) if found else np.empty((0, 1), np.float32)


def name_group(document: Item, by: str) -> str:
    """What a document and its translations have in common, empty if nothing: `by=id` its id less the language, or meta.

    Of `by=id` it is the id with a star for its language (`*/guide/macros`), of another key the value of `meta[KEY]`.
    """
    if by != "id":
        value = document.meta.get(by)
        return "" if value is None else str(value)
    found = next((each for each in _CODE.finditer(document.id) if find_language(each[1]) == document.lang), None)
    return f"{document.id[: found.start()]}*{document.id[found.end() :]}" if found else ""


def name_page(document: Item) -> str:
    """The page of which a document is one translation, as ids tell it: the document itself where they tell nothing."""
    return name_group(document, "id") or document.id


def center_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors of one language less their mean, of length 1.

    What all texts of a language have in common is most of every cosine, and would leave margins close to 1.
    """
    moved = vectors - vectors.mean(axis=0)
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)


def mine_by_margin(one: np.ndarray, other: np.ndarray, k: int) -> list[tuple[int, int, float]]:
    """Pairs of rows of two sets of unit vectors that are likely translations, with their margins, the best first.

    The margin (Artetxe and Schwenk 2019, "ratio") is the cosine over the mean of both sides' mean cosines with their
    `k` nearest neighbours; candidates are each row's best of the other side, from both sides, and each row is in one
    pair at most ("max"). Takes memory for the vectors and a block of similarities.
    """
    forward, backward = _find_neighbours(one, other, k), _find_neighbours(other, one, k)
    means = forward[1].mean(axis=1), backward[1].mean(axis=1)
    candidates: dict[tuple[int, int], float] = {}
    for (places, cosines), turned in ((forward, False), (backward, True)):
        own, others = means[::-1] if turned else means
        for row, (near, values) in enumerate(zip(places, cosines, strict=True)):
            margins = values / np.maximum((own[row] + others[near]) / 2, 1e-9)
            best = int(margins.argmax())
            pair = (int(near[best]), row) if turned else (row, int(near[best]))
            candidates[pair] = float(margins[best])
    pairs, rows, columns = [], set[int](), set[int]()
    for (row, column), margin in sorted(candidates.items(), key=lambda each: (-each[1], each[0])):
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column, margin))
    return pairs


def _find_neighbours(one: np.ndarray, other: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The places in `other` of each row's nearest neighbours, and their cosines: both [rows, k]."""
    k = min(k, len(other))
    places, cosines = [], []
    for start in range(0, len(one), BLOCK):
        block = one[start : start + BLOCK] @ other.T
        near = np.argpartition(-block, k - 1, axis=1)[:, :k]
        places.append(near)
        cosines.append(np.take_along_axis(block, near, axis=1))
    return np.concatenate(places), np.concatenate(cosines)
