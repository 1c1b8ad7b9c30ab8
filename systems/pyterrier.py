"""PyTerrier both ways: a stage as one of its transformers, and a transformer as a stage. No JVM is started here.

Data frames have PyTerrier's columns. Scores go out so that they strictly decrease, and come in in trec_eval's order
(`Run.to_df`, `Run.from_df`), so that both sides see the same ranking, ties included.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..items import is_frame
from ..pipeline import Stage
from ..runs import Documents, Probe, Run
from .pyterrier_frames import read_texts, score_rows, write_hits, write_queries

if TYPE_CHECKING:
    import pandas
    import pyterrier


def as_transformer(stage: Stage, docs: Documents | None = None) -> pyterrier.Transformer:
    """A stage, or a whole pipeline, as a transformer: in `pt.Experiment`, and with PyTerrier's operators.

    A reranker finds its documents in the column `text`, or in `docs`: an index, or a collection's documents. Further
    columns of queries stay, and those of documents where the stage finds no others. `InputError` where PyTerrier is
    missing, and for what is no stage.
    """
    if not isinstance(stage, Stage):
        raise InputError(f"a stage of crosslens is wanted, not {repr(stage)[:60]} ({type(stage).__name__})")
    try:
        from .transformers import StageTransformer
    except ImportError:
        raise InputError("PyTerrier is not installed: pip install pyterrier") from None
    return StageTransformer(stage, docs)


def as_stage(transformer: pyterrier.Transformer, name: str = "", docs: Documents | None = None) -> Stage:
    """A transformer as a stage: a retriever, a reranker, or what rewrites queries.

    `name` stands for it in manifests and fingerprints, so two transformers need two; by default it is what the
    transformer prints as. It is given the queries' languages in the column `lang`, and with hits their texts in
    `text` if the run has documents behind it. Later stages find the documents in `docs`, else in the column `text`
    of its results.
    `InputError` for what is no transformer, and where a name is needed.
    """
    return TransformerStage(transformer, name, docs)


@dataclass(frozen=True)
class TransformerStage(Stage):
    """`as_stage`: a transformer of PyTerrier that maps `Run -> Run`."""

    transformer: Any
    name: str = ""
    documents: Documents | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not callable(getattr(self.transformer, "transform", None)):
            kind = type(self.transformer).__name__
            raise InputError(f"a transformer of PyTerrier is wanted, not {repr(self.transformer)[:60]} ({kind})")
        if not self.name:
            name = repr(self.transformer)
            if re.search(r"\bat 0x[0-9a-f]+", name):
                raise InputError(f"{name[:80]} has no lasting name: give it one, as_stage(transformer, 'bm25')")
            object.__setattr__(self, "name", name)

    def apply(self, run: Run, count: Counter[str]) -> Run:
        given = write_hits(run) if run.hits else write_queries(run)
        found = self.transformer.transform(given)
        needed = {"qid"} if "docno" in getattr(found, "columns", ()) else {"qid", "query"}
        if not is_frame(found) or not needed <= set(found.columns):
            raise InputError(f"{self.name} gives no data frame with the columns {' and '.join(sorted(needed))}")
        count["queries"] += len(run)
        if "docno" not in found.columns:
            return _rewrite(run, found)
        docs = self.documents or (run.docs if run.hits else None) or read_texts(found) or run.docs
        return run.ranking(Run.from_df(score_rows(found), run.queries).hits, docs)

    @property
    def docs(self) -> Documents | None:
        return self.documents

    def describe(self) -> object:
        return {"type": "TransformerStage", "name": self.name}

    def __str__(self) -> str:
        return self.name


def _rewrite(run: Run, frame: pandas.DataFrame) -> Run:
    """The run with what is searched for in the place of each query."""
    texts = dict(zip(frame["qid"], frame["query"], strict=True))
    probes = {
        query.id: (Probe(replace(query, text=texts[query.id]), "query"),) for query in run.queries if query.id in texts
    }
    return replace(run, hits={}, probes=probes)
