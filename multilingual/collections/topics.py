"""NeuCLIR's and HC4's topics: several wordings a topic, one of which becomes the query."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal, get_args

from ...errors import InputError, check_known, list_few
from ...items import Item
from ..languages import iso
from .records import lang_of, needed_text, read_id, read_text

Source = Literal["original", "human", "machine"]
FIELDS = ("title", "description", "narrative")


def parsed_fields(fields: str | None) -> tuple[str, ...]:
    """`title+description` as a tuple; empty for None, which leaves the choice to the kind of topic."""
    if fields is None:
        return ()
    parts = tuple(part.strip() for part in fields.split("+"))
    for part in parts:
        check_known(part, FIELDS, "topic field")
    return parts


def topic_query(
    record: dict[str, Any],
    wanted: tuple[str, ...],
    lang: str | None,
    source: Source | None,
    doc_langs: Container[str] = (),
) -> Item | None:
    """The query of a topic; None where it has no wording in `lang` and is not meant to have one.

    A narrative that HC4 keeps apart for each document language is that of `doc_langs`, else of the query's
    language, else all of them.
    """
    id = read_id(record, "topic_id")
    wordings = record["topics"]
    if not isinstance(wordings, list) or not all(isinstance(wording, dict) for wording in wordings):
        raise InputError(f"topic {id!r}: `topics` must be a list of objects")
    meant = record.get("languages_with_qrels") or []
    if not isinstance(meant, list) or not all(isinstance(each, str) for each in meant):
        raise InputError(f"topic {id!r}: `languages_with_qrels` must be a list of language codes")
    order: Sequence[str] = [source] if source else get_args(Source)
    if lang is None and source is None:
        order = ["original"]
    fitting = [
        (order.index(kind), wording)
        for wording in wordings
        if (kind := _source(wording)) in order and (lang is None or lang_of(wording) == lang)
    ]
    if not fitting:
        if lang is not None and lang not in {iso(each) for each in meant}:
            return None
        offered = list_few(f"{wording.get('lang')} {_source(wording)}" for wording in wordings)
        asked = " ".join(filter(None, (lang, source or ("original" if lang is None else "")))) or "original"
        raise InputError(f"topic {id!r} has no wording in {asked} (it has {offered})")
    if lang is None and len({lang_of(wording) for _, wording in fitting}) > 1:
        langs = list_few(sorted({str(wording.get("lang")) for _, wording in fitting}))
        raise InputError(
            f"topic {id!r} has several {source or 'original'} wordings: say which language ({langs})"
        )
    wording = min(fitting, key=lambda pair: pair[0])[1]
    own = lang_of(wording)
    parts = []
    for key in wanted or ("title", "description"):
        if key == "narrative" and not wording.get("topic_narrative"):
            parts.append(_narrative(record.get("narratives"), own, doc_langs, id))
        else:
            parts.append(needed_text(wording, f"topic_{key}", key, id))
    meta = {"source": _source(wording), "languages_with_qrels": [iso(each) for each in meant]}
    return Item(id, "\n".join(parts), None, own, meta)


def _source(wording: Mapping[str, Any]) -> Source:
    source = read_text(wording, "source") or "original"
    # Machine translations carry the name of the system that made them.
    return "original" if source == "original" else "human" if source.startswith("human") else "machine"


def _narrative(narratives: object, lang: str | None, doc_langs: Container[str], id: str) -> str:
    if not isinstance(narratives, dict) or not narratives:
        raise InputError(f"topic {id!r} has no narrative")
    chosen = [narrative for each, narrative in narratives.items() if each in doc_langs]
    if not chosen:
        chosen = [narratives[lang]] if lang in narratives else list(narratives.values())
    parts: list[str] = []
    for narrative in chosen:
        if isinstance(narrative, dict):
            parts += [read_text(narrative, grade) or "" for grade in ("very_valuable", "somewhat_valuable")]
        elif isinstance(narrative, str):
            parts.append(narrative)
        else:
            raise InputError(f"topic {id!r}: a narrative must be text, not {type(narrative).__name__}")
    kept = list(dict.fromkeys(part.strip() for part in parts if part.strip() not in ("", "N/A", "NA")))
    if not kept:
        raise InputError(f"topic {id!r} has no narrative")
    return "\n".join(kept)
