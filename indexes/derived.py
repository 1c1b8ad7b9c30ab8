"""What follows from the stored rows of an index: full text, moments, corrected vectors, the counts on its card."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..encoders.base import Encoder
from ..items import Item
from . import fulltext
from .card import Space
from .encoding import Made, encoded
from .spaces import TEXT, Moments
from .table import digest, failing, key_of

if TYPE_CHECKING:
    from .lance import LanceIndex

# Openings of documents encoded as queries, a language, so that the mean of queries is known; and in all languages.
# Measured with e5-small on LibreOffice's help (dev half, English titles), nDCG@20 by openings a language: none 0.399, 16 0.457, 64 0.471,
# 256 0.478, all 0.477; the mean of the queries themselves 0.511.
OPENINGS, ALL_OPENINGS = 256, 4096
LONGEST_OPENING = 200  # characters

FIRST = "#0"  # how the ids of documents' first passages end: each document has just one


def renew(index: LanceIndex) -> None:
    """Make all of it anew, and say on the card that the index is complete."""
    tables, card = index._tables, index.card
    tables.compact()
    content = count = documents = 0
    keys: set[str] = set()
    langs: Counter[str] = Counter()
    for id, lang, facets, hash in tables.summaries():
        count += 1
        content = (content + digest(f"{id}\0{hash}")) % 2**64  # a sum, so that order does not matter
        keys.update(map(key_of, facets))
        if card.passages is None or id.endswith(FIRST):
            documents += 1
            if lang is not None:
                langs[lang] += 1
    with failing("write", index.path):
        card.groups = fulltext.build(tables.documents) if card.lexical else []
    index._refresh_spaces()
    tables.index_filters()
    tables.settle()
    tables.compact()
    card.documents = documents
    if card.passages is not None:
        card.passages.count = count
    card.langs = dict(sorted(langs.items(), key=lambda pair: (-pair[1], pair[0])))
    card.keys = sorted(keys)
    card.content = f"{content:016x}"
    card.complete = True
    index._save()


def renew_spaces(index: LanceIndex) -> None:
    """What follows from the vectors: moments, corrected vectors, how many there are."""
    for space in index.card.spaces:
        space.ann = None
        moments = index._moments[space.fingerprint] = _measured(index, space)
        space.multilingual = moments.is_multilingual
        if index._place is not None:
            with index._place.writing(moments_file(space)) as path:
                moments.save(path)
    index._tables.replace_corrected(
        [space for space in index.card.spaces if space.multilingual],
        lambda space, *block: index._moments[space.fingerprint].correct(*block),
    )


def moments_file(space: Space) -> str:
    """The name of the file of a space's moments."""
    return f"moments_{space.fingerprint}.safetensors"


def _measured(index: LanceIndex, space: Space) -> Moments:
    """The moments of a space; counts what its encoder read on the way."""
    moments = Moments(space.spec.dim)
    counts: Counter[str] = Counter()
    openings: dict[str, list[tuple[int, str]]] = {}
    for ids, langs, kinds, vectors in index._tables.blocks(space, False):
        moments.update(vectors, langs, kinds)
        counts.update(kinds)
        for id, lang, kind in zip(ids, langs, kinds, strict=True):
            if kind == TEXT:
                # The same documents whatever the order in which they came: those with the smallest digests.
                held = openings.setdefault(lang or "", [])
                keep = heapq.heappush if len(held) < OPENINGS else heapq.heappushpop
                keep(held, (-digest(id), id))
    space.counts = dict(counts)
    for _, langs, kinds, vectors in index._tables.blocks(space, False):
        moments.spread(vectors, langs, kinds)
    encoder = index._encoders.get(space.fingerprint)
    if moments.is_multilingual and encoder is not None and not isinstance(encoder, Made):
        per = max(1, ALL_OPENINGS // len(openings))
        chosen = [id for held in openings.values() for _, id in sorted(held, reverse=True)[:per]]
        _ask(moments, encoder, index._tables.items(chosen))
    return moments


def _ask(moments: Moments, encoder: Encoder, documents: Sequence[Item]) -> None:
    """Encode the documents' openings as queries, which are as short as they are."""
    lines = [(item.text or "").strip().partition("\n")[0][:LONGEST_OPENING] for item in documents]
    asked = [Item(item.id, line, lang=item.lang) for item, line in zip(documents, lines, strict=True) if line]
    vectors, _ = encoded(encoder, asked, "query")
    moments.ask(vectors, [item.lang for item in asked])
