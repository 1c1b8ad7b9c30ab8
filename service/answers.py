"""What clients are answered: hits, documents, facets and what the service is, as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from ..errors import InputError
from ..items import Item
from ..multilingual.languages import find_direction, name_language
from ..multilingual.rewriting.rewrites import to_rewrite
from ..multilingual.snippets import make_snippet
from ..runs import Manifest
from .engine import MODES, Answer, Engine
from .gate import hide_paths
from .searching import Found

FACETED = 100  # hits that facets count


def describe_document(index: str, item: Item) -> dict[str, Any]:
    """A document without its text: language, direction of writing, what it holds, and where the rest of it is."""
    where = f"/documents/{quote(index, safe='')}/{quote(item.id, safe='')}"
    pictured = item.image is not None
    return {
        "id": item.id, "lang": item.lang, "language": _name(item.lang), "direction": _find_direction(item.lang),
        "modality": item.modality, "meta": dict(item.meta), "document": where,
        "image": f"{where}/image" if pictured else None, "thumbnail": f"{where}/thumbnail" if pictured else None,
    }  # fmt: skip


def describe_answer(
    engine: Engine, answer: Answer, request: Any, items: Mapping[str, Item], seconds: float
) -> dict[str, Any]:
    """The answer to a search: `items` are the documents of the page, and with facets those that these count."""
    found, search = answer.found, answer.search
    page = found.hits[request.offset : request.offset + request.k]
    words = " ".join([request.text or "", *(probe.item.text or "" for probe in found.probes)])
    hits = []
    for rank, hit in enumerate(page, request.offset + 1):
        item = items[hit.id]
        snippet, spans = make_snippet(item.text or "", words)
        own = {"rank": rank, "score": round(hit.score, 6), "snippet": snippet, "highlights": spans}
        stages = {"stages": _list_places(found, hit.id)} if search.explain else {}
        hits.append({**describe_document(search.index, item), **own, **stages})
    facets = {}
    if request.facets:
        facets = {"facets": _count_facets(items[hit.id] for hit in found.hits[:FACETED])}
    rewritten = {}
    if search.explain and found.probes:
        rewritten = {"rewritten": to_rewrite(found.query, found.probes)["probes"]}
    return {
        "query": {
            "text": request.text, "lang": found.query.lang, "image": found.query.image is not None, "id": request.id,
        },
        "index": search.index, "system": search.system.name,
        "line": hide_paths(search.system.line if search.rerank else search.system.first.line), "edition": found.edition,
        "reranked": answer.reranked, "partial": answer.partial, "cached": found.cached, "total": len(found.hits),
        "hits": hits, **facets, **rewritten,
        "timings": {
            **{f"{part}_ms": round(1000 * took, 2) for part, took in answer.seconds.items()},
            "total_ms": round(1000 * seconds, 2),
        },
        "manifest": _list_records(found.manifest),
    }  # fmt: skip


def _list_records(manifest: Manifest) -> list[dict[str, Any]]:
    """What each stage did; of paths that name models, the last part."""
    return [
        {
            "stage": hide_paths(each.stage), "fingerprint": each.fingerprint, "seconds": each.seconds,
            "counts": dict(each.counts), "models": {hide_paths(name): by for name, by in each.models.items()},
        }
        for each in manifest.records
    ]  # fmt: skip


def _list_places(found: Found, doc: str) -> list[dict[str, Any]]:
    """Each stage, and the rank and the score that a document had after it; None where it was not found."""
    places = []
    for stage, hits in found.stages:
        at = ((rank, round(hit.score, 6)) for rank, hit in enumerate(hits, 1) if hit.id == doc)
        rank, score = next(at, (None, None))
        places.append({"stage": hide_paths(stage), "rank": rank, "score": score})
    return places


def _count_facets(items: Iterable[Item]) -> dict[str, list[dict[str, Any]]]:
    listed = list(items)
    langs = Counter(item.lang for item in listed if item.lang)
    kinds = Counter(item.modality for item in listed)
    return {
        "lang": [{"value": lang, "name": _name(lang), "count": count} for lang, count in langs.most_common()],
        "modality": [{"value": kind, "name": kind, "count": count} for kind, count in kinds.most_common()],
    }


def describe_service(engine: Engine, version: str) -> dict[str, Any]:
    """What is served, and within which limits."""
    indexes = [
        {
            "name": name, "documents": len(served.index), "langs": served.index.langs,
            "names": {lang: _name(lang) for lang in served.index.langs}, "modalities": served.modalities,
            "reads": served.reads, "examples": served.examples, "edition": served.index.fingerprint,
        }
        for name, served in engine.indexes.items()
    ]  # fmt: skip
    systems = [
        {"name": system.name, "line": hide_paths(system.line), "reranks": system.second is not None}
        for system in engine.systems.values()
    ]
    first = next(iter(engine.systems.values()))
    return {
        "title": "crosslens", "version": version, "indexes": indexes, "systems": systems, "modes": list(MODES),
        "rerank": {
            "spec": hide_paths(first.second.line) if first.second is not None else None,
            "default": first.second is not None,
            "seconds": engine.rerank_seconds,
        },
        "limits": {key: value for key, value in vars(engine.limits).items() if key != "buffered_bytes"},
        "models": {"encoders": list(engine.encoders), "rerankers": _list_rerankers(engine)},
    }  # fmt: skip


def _list_rerankers(engine: Engine) -> Sequence[str]:
    lines = (system.second.line for system in engine.rerankers.values() if system.second is not None)
    return list(dict.fromkeys(map(hide_paths, lines)))


@lru_cache(maxsize=512)
def _describe_language(lang: str) -> tuple[str | None, str]:
    """The English name of a language, and which way it is written; what earlier versions stored may have none."""
    try:
        return name_language(lang), find_direction(lang)
    except InputError:
        return None, "ltr"


def _name(lang: str | None) -> str | None:
    return _describe_language(lang)[0] if lang else None


def _find_direction(lang: str | None) -> str:
    return _describe_language(lang)[1] if lang else "ltr"
