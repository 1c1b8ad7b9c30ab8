"""From a collection and SPECs to a finished index, as `crosslens index` and experiments make it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..multilingual.languages import fill_languages
from ..pipeline import Progress, show_nothing

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from ..indexes.base import Index
    from ..indexes.distributed import Cluster
    from ..indexes.storage.card import Recall, Windows
    from ..multilingual.collections.base import Collection


@dataclass(frozen=True)
class Indexing:
    """A finished index, and what making it took: `added` documents were new or changed; seconds of wall time."""

    index: Index
    added: int
    recall: Recall
    loading_seconds: float
    seconds: float
    cached: int = 0  # vectors that were not encoded, since the cache had them

    def to_json(self) -> dict[str, object]:
        card, recall = self.index.card, self.recall
        return {
            "index": self.index.path,
            "kind": card.kind,
            "documents": len(self.index),
            "passages": card.passages and {"count": card.passages.count, **vars(card.passages.windows)},
            "added": self.added,
            "cached": self.cached,
            "languages": dict(self.index.langs),
            "encoders": [spec.name for spec in self.index.specs],
            "ann": {
                "kind": recall.kind,
                "recall": {str(k): value for k, value in recall.at.items()},
                "queries": recall.queries,
            },
        }

    def __str__(self) -> str:
        passages = self.index.card.passages
        parts = f" in {passages.count} passages" if passages else ""
        lines = [
            f"{self.index.path}: {len(self.index)} documents{parts} ({self.added} new or changed), "
            + (", ".join(spec.name for spec in self.index.specs) or "full text")
            + (f", {self.cached} vectors from the cache" if self.cached else ""),
            "languages: " + ", ".join(f"{lang or '?'} {n}" for lang, n in self.index.langs.items()),
        ]
        if self.recall.at:
            found = ", ".join(f"recall@{k} {value:.3f}" for k, value in self.recall.at.items())
            lines.append(f"{self.recall.kind}: {found}")
        return "\n".join(lines)


def index_collection(
    collection: Collection,
    directory: str | Path,
    specs: Sequence[str],
    *,
    documents: int,
    kind: str = "lance",
    lexical: bool = True,
    windows: Windows | None = None,
    ann: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    ray: str | None = None,
    cache: bool = True,
    progress: Progress = show_nothing,
) -> Indexing:
    """Encode a collection's `documents` documents into an index, or go on with one that is begun.

    Where `device` means several, they encode together until all is encoded; the index goes on with the first.
    With `ray`, the address of a Ray cluster, its workers encode and write (`indexes.distributed`). What is wrong with
    kind, SPECs or windows is an `InputError` before anything is written.
    """
    from ..checkpoints.devices import resolve_devices
    from ..encoders.cache.encoder import CachedEncoder, close_caches
    from ..encoders.workers import open_encoders
    from ..indexes.passages import choose_tokenizer
    from ..indexes.registry import check_kind, create_index, open_index

    started = time.perf_counter()
    check_kind(kind)
    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    devices = [device] if ray else resolve_devices(device)  # a cluster has devices of its own
    own: dict[str, Any] = {"device": devices[0], "trust_remote_code": trust_remote_code}
    cluster: Cluster | None = None
    encoders: Sequence[Encoder]
    with ExitStack() as stack:
        if ray:
            from ..indexes.distributed import Cluster

            stack.enter_context(redirect_stdout(sys.stderr))  # Ray writes about workers that die to stdout
            cluster = stack.enter_context(Cluster(ray, specs, documents=documents, **options))
            encoders = cluster.encoders
        else:
            opened = stack.enter_context(open_encoders(specs, **options))
            encoders = [CachedEncoder(each) for each in opened] if cache else opened
        if windows is not None:
            choose_tokenizer(windows, encoders)
        loaded = time.perf_counter()
        made = create_index(directory, kind=kind, name=collection.name, lexical=lexical, passages=windows, **own)
        with progress("encoding", documents) as bar:
            added = made.add(fill_languages(collection.docs()), encoders, progress=bar, cluster=cluster)
    found = close_caches(encoders)
    if ray or len(devices) > 1:  # what has encoded is gone: searches load an encoder of their own
        made = open_index(directory, **own)
    recall = made.build(ann)
    ended = time.perf_counter()
    return Indexing(made, added, recall, round(loaded - started, 1), round(ended - loaded, 1), found)
