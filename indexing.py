"""From a collection and SPECs to a finished index, as `crosslens index` and experiments make it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .console import progress
from .multilingual.languages import with_languages

if TYPE_CHECKING:
    from .indexes.base import Recall
    from .indexes.card import Windows
    from .indexes.lance import LanceIndex
    from .indexes.passages import PassageIndex
    from .multilingual.collections import Collection


@dataclass(frozen=True)
class Indexed:
    """A finished index, and what making it took: `added` documents were new or changed; seconds of wall time."""

    index: LanceIndex | PassageIndex
    added: int
    recall: Recall
    loading_seconds: float
    seconds: float

    def to_json(self) -> dict[str, object]:
        card, recall = self.index.card, self.recall
        return {
            "index": self.index.path,
            "kind": card.kind,
            "documents": len(self.index),
            "passages": card.passages and {"count": card.passages.count, **vars(card.passages.windows)},
            "added": self.added,
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
            + (", ".join(spec.name for spec in self.index.specs) or "full text"),
            "languages: " + ", ".join(f"{lang or '?'} {n}" for lang, n in self.index.langs.items()),
        ]
        if self.recall.at:
            found = ", ".join(f"recall@{k} {value:.3f}" for k, value in self.recall.at.items())
            lines.append(f"{self.recall.kind}: {found}")
        return "\n".join(lines)


def indexed(
    collection: Collection,
    directory: Path,
    specs: Sequence[str],
    *,
    documents: int,
    kind: str = "lance",
    lexical: bool = True,
    windows: Windows | None = None,
    ann: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Indexed:
    """Encode a collection's `documents` documents into an index, or go on with one that is begun.

    What is wrong with kind, SPECs or windows is an `InputError` before anything is written.
    """
    from .encoders import registry
    from .indexes.passages import counting
    from .indexes.registry import create_index, index_class

    started = time.perf_counter()
    index_class(kind)
    encoders = [registry.load(spec, device=device, trust_remote_code=trust_remote_code) for spec in specs]
    if windows is not None:
        counting(windows, encoders)
    loaded = time.perf_counter()
    made = create_index(
        directory,
        kind=kind,
        name=collection.name,
        lexical=lexical,
        passages=windows,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    with progress("encoding", documents) as bar:
        added = made.add(with_languages(collection.docs()), encoders, progress=bar)
    recall = made.build(ann)
    ended = time.perf_counter()
    return Indexed(made, added, recall, round(loaded - started, 1), round(ended - loaded, 1))
