"""What the reranking benchmarks rerank: queries of a collection, and what a first stage found for them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosslens.errors import InputError
from crosslens.indexes.base import Mode
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.pipeline import Stage
from crosslens.runs import Qrels, Run

DEPTH = 100  # hits of the first stage; the demo's own photos are dropped from them


@dataclass(frozen=True)
class Task:
    """A first stage's run with the judgements of its queries; `per` groups the queries for tables."""

    first: Run
    qrels: Qrels
    per: str
    setting: dict[str, Any]


def task(
    collection: str,
    index: Path | None,
    *,
    sees: Set[str],
    mode: Mode,
    fields: str | None,
    queries: int,
    seed: int,
    device: str,
) -> Task:
    """The judged queries of a collection, `queries` of them drawn with `seed` (0: all), and their first hits.

    Queries that hold what the judge cannot see, for example photos, are left out: it would not touch their hits. The demo
    is searched as `crosslens demo` does it, text and photos, and indexed in memory unless an index is given.
    `InputError` where a collection other than the demo has no index.
    """
    source = load_collection(collection)
    judged = source.qrels()
    asked = [each for each in source.queries(fields=fields) if each.id in judged and each.modalities <= sees]
    if not asked:
        raise InputError(f"the collection {collection} has no judged queries in {' and '.join(sorted(sees))}")
    asked = drawn(asked, queries, seed)
    if collection == "demo":
        from crosslens.demo.tour import ENCODERS, WithoutOwnPhoto

        first = _opened(index, source.docs(), ENCODERS, device).retriever(mode, DEPTH) >> WithoutOwnPhoto()
    elif index is None:
        raise InputError(f"give the index of {collection} with --index; make one with `crosslens index`")
    else:
        first = _opened(index, (), (), device).retriever(mode, DEPTH)
    return Task(
        first(asked),
        {query.id: judged[query.id] for query in asked},
        "kind" if collection == "demo" else "doc_lang",
        {
            # A half of a collection is called after both: libreoffice-help/dev.
            "collection": "demo" if collection == "demo" else "/".join(Path(collection).resolve().parts[-2:]),
            "first_stage": mode,
            "fields": fields,
            "queries": len(asked),
            "seed": seed,
        },
    )


def texts(collection: str, index: Path | None, queries: int, seed: int, device: str) -> tuple[Run, Stage]:
    """Text queries of a collection without hits, and the dense first stage over its texts alone.

    Of the demo, queries with a photo count with their text, after those that have none.
    """
    source = load_collection(collection)
    asked = [query for query in source.queries() if query.text]
    if collection == "demo":
        bare = [query for query in asked if query.image is None]
        others = [replace(query, image=None) for query in asked if query.image is not None]
        asked = bare + others[: max(0, queries - len(bare))]
        documents = (item for item in source.docs() if item.text)
        found = _opened(index, documents, ("offline:e5-small",), device)
    elif index is None:
        raise InputError(f"give the index of {collection} with --index; make one with `crosslens index`")
    else:
        found = _opened(index, (), (), device)
    if len(asked) < queries:
        raise InputError(f"the collection {collection} has {len(asked)} text queries, fewer than {queries}")
    return Run.of(drawn(asked, queries, seed)), found.retriever("dense", DEPTH, where={"modality": "text"})


def drawn(queries: Sequence[Item], count: int, seed: int) -> list[Item]:
    """`count` of the queries at random in their order (0: all); a smaller sample is part of a larger."""
    if not count or count >= len(queries):
        return list(queries)
    order = random.Random(seed).sample(range(len(queries)), len(queries))
    return [queries[place] for place in sorted(order[:count])]


def _opened(index: Path | None, documents: Iterable[Item], encoders: Sequence[str], device: str) -> Any:
    from crosslens.encoders.registry import load_encoder
    from crosslens.indexes.registry import create_index, open_index

    if index is not None:
        return open_index(index, device=device)
    made = create_index("memory://", name="demo", device=device)
    made.add(documents, [load_encoder(encoder, device=device) for encoder in encoders])
    made.build()
    return made
