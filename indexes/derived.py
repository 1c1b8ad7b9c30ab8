"""What follows from the stored rows of an index: full text, moments, corrected vectors, the counts on its card."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from . import fulltext
from .card import Space
from .spaces import Moments
from .table import digest, failing, key_of

if TYPE_CHECKING:
    from .lance import LanceIndex

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
        if index._folder is not None:
            moments.save(index._moments_file(space))
    index._tables.replace_corrected(
        [space for space in index.card.spaces if space.multilingual],
        lambda space, *block: index._moments[space.fingerprint].correct(*block),
    )


def _measured(index: LanceIndex, space: Space) -> Moments:
    """The moments of a space; counts what its encoder read on the way."""
    moments = Moments(space.spec.dim)
    counts: Counter[str] = Counter()
    for _, langs, kinds, vectors in index._tables.blocks(space, False):
        moments.update(vectors, langs, kinds)
        counts.update(kinds)
    space.counts = dict(counts)
    for _, langs, kinds, vectors in index._tables.blocks(space, False):
        moments.spread(vectors, langs, kinds)
    return moments
