"""What follows from the stored rows of an index: full text, moments, corrected vectors, the counts on its card."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..encoders.base import Encoder
from ..errors import InputError
from ..items import Item
from . import fulltext
from .card import Space
from .encoding import Made, encoded
from .spaces import TEXT, Moments
from .table import digest, failing, key_of

if TYPE_CHECKING:
    from .lance import LanceIndex

# Openings of documents encoded as queries, a language, so that the mean of queries is known; and in all languages.
# Measured with e5-small on LibreOffice's help (dev half, English titles; benchmarks/correction.py), nDCG@20 by openings a
# language: none (the mean of documents) 0.400, 16 0.479, 64 0.478, 256 0.476; R@100 0.619, 0.698, 0.701, 0.704.
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
        _ask(moments, _earlier(index, space), encoder, index._tables.items(chosen))
    return moments


def _ask(moments: Moments, earlier: Moments | None, encoder: Encoder, documents: Sequence[Item]) -> None:
    """Encode the documents' openings as queries, which are as short as they are; not those that were `earlier`."""
    lines: dict[str | None, list[str]] = {}
    for item in documents:
        if line := (item.text or "").strip().partition("\n")[0][:LONGEST_OPENING]:
            lines.setdefault(item.lang, []).append(line)
    about = {lang: f"{digest(chr(0).join(texts)):016x}" for lang, texts in lines.items()}
    new = [lang for lang in lines if earlier is None or not moments.ask_again(earlier, lang, about[lang])]
    asked = [Item(f"{lang} {n}", line, lang=lang) for lang in new for n, line in enumerate(lines[lang])]
    vectors, _ = encoded(encoder, asked, "query")
    for lang in new:
        mine, vectors = vectors[: len(lines[lang])], vectors[len(lines[lang]) :]
        moments.ask(lang, mine, about[lang])


def _earlier(index: LanceIndex, space: Space) -> Moments | None:
    """The moments that are about to be replaced, if there are any to be read."""
    place = index._place
    if space.fingerprint not in index._moments and (place is None or not place.has(moments_file(space))):
        return None
    try:
        return index._moment(space)
    except InputError:  # damaged: they are made anew here
        return None
