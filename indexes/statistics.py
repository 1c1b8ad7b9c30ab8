"""The moments of an index's spaces: measured from the stored rows, kept beside them, and used in searches."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np

from ..encoders.base import Encoder
from ..errors import InputError
from ..items import Item, Role, hash_text
from ..media.language_names import list_names
from .encoding import SpaceEncoders, encode_dense
from .moments import COMMON, TEXT, Moments
from .storage.card import FIRST, Space
from .storage.storage import Storage

# Openings of documents encoded as queries, a language, so that the mean of queries is known; and in all languages.
# Measured with e5-small on LibreOffice's help (dev half, English titles; benchmarks/correction.py), nDCG@20 by openings
# a language: none (the mean of documents) 0.400, 16 0.479, 64 0.478, 256 0.476; R@100 0.619, 0.698, 0.701, 0.704.
OPENINGS, ALL_OPENINGS = 256, 4096
LONGEST_OPENING = 200  # characters


class SpaceStatistics:
    """The moments of each dense space of an index, read from its files when they are first needed.

    `openings` is how many documents a language have their first line encoded as a query, to know the mean of queries;
    with 0 queries are corrected as documents are.
    """

    def __init__(self, storage: Storage, openings: int = OPENINGS) -> None:
        self.openings = openings
        self._storage = storage
        self._moments: dict[str, Moments] = {}

    def get(self, space: Space) -> Moments:
        """The moments of a space; `InputError` if their file is missing or damaged."""
        if space.fingerprint not in self._moments:
            assert self._storage.place is not None, "in memory they are measured before they are needed"
            with self._storage.place.read(self._storage.find_file(_name_file(space))) as path:
                self._moments[space.fingerprint] = Moments.load(path)
        return self._moments[space.fingerprint]

    def correct(
        self, space: Space, vectors: np.ndarray, items: Sequence[Item], role: Role, encoders: SpaceEncoders
    ) -> np.ndarray:
        """Vectors float32 [n, dim] of items, less the mean of each one's group, at length 1.

        The space's encoder is given names in those languages of queries of which neither texts nor names are known.
        """
        read = space.read_all([item.modality for item in items])
        langs = [item.lang for item in items]
        moments = self.get(space)
        if role == "query" and moments.named:  # an earlier version kept none
            _encode_names(moments, [each for each in langs if each not in moments.queries], lambda: encoders.get(space))
        return moments.correct(vectors, langs, read, role)

    def refresh(
        self, find_encoder: Callable[[Space], Encoder | None], load_encoder: Callable[[Space], Encoder] | None = None
    ) -> None:
        """Measure all spaces again, and write what follows: counts on the card, moments, corrected vectors.

        Encoders that are at hand encode openings of documents as queries; others are loaded by `load_encoder` if they
        have done so before, and there are new openings.
        """
        spaces = self._storage.card.spaces
        for space in spaces:
            moments = self._measure(space, find_encoder(space), load_encoder)
            self._moments[space.fingerprint] = moments
            space.multilingual = moments.needs_correction
            if self._storage.place is not None:
                with self._storage.place.write(self._storage.name_file(_name_file(space))) as path:
                    moments.save(path)
        self._storage.tables.replace_corrected(
            [space for space in spaces if space.multilingual],
            lambda space, *block: self._moments[space.fingerprint].correct_documents(*block),
        )

    def _measure(
        self, space: Space, encoder: Encoder | None, load_encoder: Callable[[Space], Encoder] | None
    ) -> Moments:
        """The moments of a space; counts what its encoder read on the way."""
        tables = self._storage.tables

        moments = Moments.of(space.spec.dim, lambda: tables.stored_blocks(space), share=self._storage.card.share)
        space.counts = {read: total.count for read, total in moments.modalities.items()}
        if moments.needs_correction and self.openings:
            earlier = self._find_earlier(space)
            get = None if encoder is None else lambda: encoder
            if get is None and load_encoder is not None and earlier is not None and earlier.queries:
                get = partial(load_encoder, space)
            documents = tables.get_items(self._choose_openings(space))
            _encode_openings(moments, earlier, get, documents)
        return moments

    def _choose_openings(self, space: Space) -> list[str]:
        """So many documents a language of which the encoder reads text, the same whatever the order they came in.

        Of passages the first ones, which have the openings of documents.
        """
        chosen: dict[str, list[tuple[int, str]]] = {}
        first = f"id LIKE '%{FIRST}'" if self._storage.card.passages else None
        for batch in self._storage.tables.scan(["id", "lang", "modality"], first):
            ids, langs, modalities = (column.to_pylist() for column in batch.columns)
            for id, lang, read in zip(ids, langs, space.read_all(modalities), strict=True):
                if read == TEXT:  # those with the smallest hashes
                    held = chosen.setdefault(lang or "", [])
                    keep = heapq.heappush if len(held) < self.openings else heapq.heappushpop
                    keep(held, (-hash_text(id), id))
        per = max(1, ALL_OPENINGS // max(1, len(chosen)))
        return [id for held in chosen.values() for _, id in sorted(held, reverse=True)[:per]]

    def _find_earlier(self, space: Space) -> Moments | None:
        """The moments that are about to be replaced, if there are any to be read."""
        place = self._storage.place
        if space.fingerprint in self._moments or (
            place is not None and place.has(self._storage.find_file(_name_file(space)))
        ):
            with suppress(InputError):  # damaged, and about to be replaced
                return self.get(space)
        return None


def _name_file(space: Space) -> str:
    return f"moments_{space.fingerprint}.safetensors"


def _encode_openings(
    moments: Moments, earlier: Moments | None, get_encoder: Callable[[], Encoder] | None, documents: Sequence[Item]
) -> None:
    """Encode the documents' openings as queries, which are as short as they are; not those in `earlier`.

    Without an encoder, nothing is known of queries unless `earlier` knows all of it.
    """
    lines: dict[str | None, list[str]] = {}
    for item in documents:
        if line := (item.text or "").strip().partition("\n")[0][:LONGEST_OPENING]:
            lines.setdefault(item.lang, []).append(line)
    about = {lang: f"{hash_text(chr(0).join(texts)):016x}" for lang, texts in lines.items()}
    if get_encoder is None and (earlier is None or about != {lang or None: of for lang, of in earlier.about.items()}):
        return
    moments.named = {} if earlier is None else dict(earlier.named)
    new = [lang for lang in lines if earlier is None or not moments.reuse_queries(earlier, lang, about[lang])]
    if get_encoder is None:
        return
    _encode_names(moments, [*lines, COMMON], get_encoder)
    if not new:
        return
    queries = [Item(f"{lang} {n}", line, lang=lang) for lang in new for n, line in enumerate(lines[lang])]
    vectors = encode_dense(get_encoder(), queries, "query")
    for lang in new:
        mine, vectors = vectors[: len(lines[lang])], vectors[len(lines[lang]) :]
        moments.add_queries(lang, mine, about[lang])


def _encode_names(moments: Moments, langs: Iterable[str | None], get_encoder: Callable[[], Encoder]) -> None:
    """Encode names in the languages as queries, once for each."""
    new = [lang for lang in dict.fromkeys(langs) if lang and lang not in moments.named]
    items = [Item(f"{lang} {n}", name, lang=lang) for lang in new for n, name in enumerate(list_names(lang))]
    vectors = encode_dense(get_encoder(), items, "query") if items else np.zeros((0, moments.dim), np.float32)
    for lang in new:
        moments.add_names(lang, vectors[[item.lang == lang for item in items]])
