"""PyTerrier's data frames: read as runs, and written; what a stage makes of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InputError
from ..frames import make_frame
from ..items import Item
from ..multilingual.collections.base import InMemoryDocuments
from ..pipeline import Stage
from ..runs import Documents, Run

if TYPE_CHECKING:
    import pandas


def apply_stage(stage: Stage, frame: pandas.DataFrame, docs: Documents | None = None) -> pandas.DataFrame:
    """What a stage makes of a data frame of queries, or of queries and their hits.

    `InputError` for a stage that rewrites queries alone, which a data frame cannot hold.
    """
    names = [name for name in ("qid", "docno") if name in frame.columns]
    frame = frame.astype(dict.fromkeys(names, str))
    if "qid" not in frame.columns:
        raise InputError(f"PyTerrier's data frames have a column qid, and this one has {', '.join(frame.columns)}")
    # PyTerrier asks a transformer for its columns with a frame without rows.
    run = stage(_read_run(frame, docs)) if len(frame) else Run.of([])
    if run.probes and not run.hits:
        raise InputError(f"{stage} only rewrites queries: make one transformer of it and the search that follows it")
    return _restore_columns(run.to_df(), frame)


def _read_run(frame: pandas.DataFrame, docs: Documents | None) -> Run:
    once = frame.drop_duplicates("qid") if "docno" in frame.columns else frame
    names = [name for name in ("query", "lang") if name in frame.columns]
    values = zip(once["qid"], *(once[name] for name in names), strict=True)
    queries = [_make_item(id, dict(zip(names, rest, strict=True))) for id, *rest in values]
    if "docno" not in frame.columns:
        return Run.of(queries)
    run = Run.from_df(score_rows(frame), queries)
    return replace(run, docs=docs or read_texts(frame))


def _make_item(id: str, fields: Mapping[str, object]) -> Item:
    """An item of a row, whose empty cells are None or nan."""
    text, lang = (each if isinstance(each, str) else None for each in map(fields.get, ("query", "lang")))
    return Item(id, text, lang=lang)


def read_texts(frame: pandas.DataFrame) -> Documents | None:
    """The documents of a frame's column `text`; None where it has none."""
    if "text" not in frame.columns:
        return None
    texts = zip(frame["docno"], frame["text"], strict=True)
    return InMemoryDocuments({doc: Item(doc, text if isinstance(text, str) else None) for doc, text in texts})


def score_rows(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Rows with scores; the operators for sets leave none, so that ranks or the order of the rows decide."""
    if "score" in frame.columns:
        return frame
    return frame.assign(score=-frame["rank"] if "rank" in frame.columns else [-float(row) for row in range(len(frame))])


def write_queries(run: Run) -> pandas.DataFrame:
    """The queries of a run."""
    ids, texts = [query.id for query in run.queries], [query.text for query in run.queries]
    return _add_languages(make_frame({"qid": ids, "query": texts}), run)


def write_hits(run: Run) -> pandas.DataFrame:
    """The hits of a run, with their texts where it has documents behind it."""
    frame = _add_languages(run.to_df(), run)
    if run.docs is None:
        return frame
    ids = list(dict.fromkeys(frame["docno"]))
    texts = {item.id: item.text for item in run.docs.get(ids)}
    return frame.assign(text=frame["docno"].map(texts))


def _add_languages(frame: pandas.DataFrame, run: Run) -> pandas.DataFrame:
    """The frame with a column `lang` of its queries, if any has one."""
    langs = {query.id: query.lang for query in run.queries if query.lang}
    return frame.assign(lang=frame["qid"].map(langs)) if langs else frame


def _restore_columns(found: pandas.DataFrame, frame: pandas.DataFrame) -> pandas.DataFrame:
    """Results with the columns that came with the queries, and those that came with the documents."""
    if "docno" in frame.columns:
        of_queries = [name for name in frame.columns if name.startswith("q") or name == "lang"]
    else:  # as PyTerrier's retrievers do; `text` would be taken for that of documents
        of_queries = [name for name in frame.columns if name not in ("score", "rank", "text")]
    found = found.drop(columns=found.columns.intersection(of_queries).difference(["qid"]))
    found = found.merge(frame[of_queries].drop_duplicates("qid"), on="qid", how="left")
    if "docno" not in frame.columns or not set(found["docno"]) <= set(frame["docno"]):
        return found
    others = frame.columns.difference([*found.columns, "score", "rank"]).tolist()
    pairs = ["qid", "docno"]
    return found.merge(frame[[*pairs, *others]].drop_duplicates(pairs), on=pairs, how="left")
