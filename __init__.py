"""Multilingual and multimodal retrieval: encoders, a LanceDB index, LLM reranking, evaluation.

The public names are imported when they are first used, so that `import crosslens` is quick and loads no framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .encoders.base import Encoder, EncoderSpec
    from .encoders.registry import load_encoder as encoder
    from .errors import CrosslensError, InputError, SpecMismatch
    from .evaluation.evaluate import evaluate
    from .evaluation.table import Table
    from .indexes.base import Index
    from .indexes.registry import create_index, open_index
    from .indexes.storage.card import JointWindows, Recall, Windows
    from .items import Batch, Dense, Item, Modality, Multi, Role, Sparse
    from .multilingual.collections.base import Collection
    from .multilingual.collections.registry import load_collection as collection
    from .multilingual.judges import Judge
    from .multilingual.reranking.plan import RankedItem, rank
    from .multilingual.reranking.plan import load_reranker as reranker
    from .multilingual.reranking.rerank import Rerank
    from .multilingual.reranking.sorters import Ask
    from .multilingual.rewriting.base import Rewriter
    from .multilingual.rewriting.plan import load_rewriter as rewriter
    from .pipeline import Stage, merge, roundrobin, rrf, zscore
    from .runs import Hit, Manifest, Probe, Run, read_qrels
    from .systems import pyterrier

_WHERE = {
    "encoders.base": ("Encoder", "EncoderSpec"),
    "encoders.registry": ("encoder=load_encoder",),
    "errors": ("CrosslensError", "InputError", "SpecMismatch"),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.table": ("Table",),
    "indexes.base": ("Index",),
    "indexes.registry": ("create_index", "open_index"),
    "indexes.storage.card": ("JointWindows", "Recall", "Windows"),
    "items": ("Batch", "Dense", "Item", "Modality", "Multi", "Role", "Sparse"),
    "multilingual.collections.base": ("Collection",),
    "multilingual.collections.registry": ("collection=load_collection",),
    "multilingual.judges": ("Judge",),
    "multilingual.reranking.sorters": ("Ask",),
    "multilingual.reranking.plan": ("RankedItem", "rank", "reranker=load_reranker"),
    "multilingual.reranking.rerank": ("Rerank",),
    "multilingual.rewriting.base": ("Rewriter",),
    "multilingual.rewriting.plan": ("rewriter=load_rewriter",),
    "pipeline": ("Stage", "merge", "roundrobin", "rrf", "zscore"),
    "runs": ("Hit", "Manifest", "Probe", "Run", "read_qrels"),
    "systems.pyterrier": ("pyterrier=*",),  # the module itself
}
_NAMES = {
    public: (module, name or public)
    for module, entries in _WHERE.items()
    for public, _, name in (entry.partition("=") for entry in entries)
}

__all__ = [
    "Ask",
    "Batch",
    "Collection",
    "CrosslensError",
    "Dense",
    "Encoder",
    "EncoderSpec",
    "Hit",
    "Index",
    "InputError",
    "Item",
    "JointWindows",
    "Judge",
    "Manifest",
    "Modality",
    "Multi",
    "Probe",
    "RankedItem",
    "Recall",
    "Rerank",
    "Rewriter",
    "Role",
    "Run",
    "Sparse",
    "SpecMismatch",
    "Stage",
    "Table",
    "Windows",
    "collection",
    "create_index",
    "encoder",
    "evaluate",
    "merge",
    "open_index",
    "pyterrier",
    "rank",
    "read_qrels",
    "reranker",
    "rewriter",
    "roundrobin",
    "rrf",
    "zscore",
]


if not TYPE_CHECKING:  # to a type checker it would make every name a public one

    def __getattr__(name: str) -> object:
        if name not in _NAMES:
            raise AttributeError(f"module 'crosslens' has no attribute {name!r}")
        module, attribute = _NAMES[name]
        found = import_module(f".{module}", __name__)
        if attribute != "*":
            found = getattr(found, attribute)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return __all__
