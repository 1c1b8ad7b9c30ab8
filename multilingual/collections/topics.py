"""Topics as queries: the wordings of NeuCLIR's and HC4's topics, and the choice of a language."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Literal, get_args

from ...errors import InputError, check_known, list_few
from ...items import Item
from ...rows.fields import FileRow
from ..languages import fill_languages, parse_language

Source = Literal["original", "human", "machine"]
FIELDS = ("title", "description", "narrative")


def parse_fields(fields: str | None) -> tuple[str, ...]:
    """`title+description` as a tuple; empty for None, which leaves the choice to the kind of topic."""
    if fields is None:
        return ()
    parts = tuple(part.strip() for part in fields.split("+"))
    for part in parts:
        check_known(part, FIELDS, "topic field")
    return parts


class TopicReader:
    """Reads topics as queries in the wording that `fields`, `lang` and `source` choose; `InputError` on unknown ones.

    With `doc_langs` topics that are meant for documents in other languages are left out, and `elsewhere` collects these
    languages. A narrative that HC4 keeps apart for each document language is that of `doc_langs`, else of the query's
    language, else all of them.
    """

    def __init__(
        self, fields: str | None, lang: str | None, source: Source | None, doc_langs: frozenset[str] = frozenset()
    ) -> None:
        self.fields = parse_fields(fields)
        self.lang = None if lang is None else parse_language(lang)
        self.source = source
        self.doc_langs = doc_langs
        self.elsewhere: set[str] = set()
        if source is not None:
            check_known(source, get_args(Source), "source")

    def read(self, record: FileRow) -> Item | None:
        """The query of a topic; None where it has no wording in the language and is not meant to have one."""
        id = record.read_id("topic_id")
        wordings = record.get("topics")
        if not isinstance(wordings, list) or not all(isinstance(wording, dict) for wording in wordings):
            raise InputError(f"topic {id!r}: `topics` must be a list of objects")
        meant = record.get("languages_with_qrels") or []
        if not isinstance(meant, list) or not all(isinstance(each, str) for each in meant):
            raise InputError(f"topic {id!r}: `languages_with_qrels` must be a list of language codes")
        langs = [parse_language(each) for each in meant]
        if langs and self.doc_langs and self.doc_langs.isdisjoint(langs):
            self.elsewhere.update(langs)
            return None
        wording = self._choose_wording(id, [FileRow(each) for each in wordings], langs)
        if wording is None:
            return None
        own = wording.read_lang()
        parts = []
        for key in self.fields or ("title", "description"):
            if key == "narrative" and not wording.get("topic_narrative"):
                parts.append(self._read_narrative(record.get("narratives"), own, id))
            else:
                parts.append(wording.require_text(f"topic_{key}", "topic", id, key))
        return Item(id, "\n".join(parts), None, own, {"source": _read_source(wording), "languages_with_qrels": langs})

    def select(self, queries: Iterable[Item], none: str) -> list[Item]:
        """The queries in the language; if there are none, `InputError` that begins with `none`."""
        return select_language(self.lang, queries, none, self.source)

    def _choose_wording(self, id: str, wordings: list[FileRow], meant: Container[str]) -> FileRow | None:
        lang, source = self.lang, self.source
        order = [source] if source else ["original"] if lang is None else list(get_args(Source))
        fitting = [
            wording
            for wording in wordings
            if _read_source(wording) in order and (lang is None or wording.read_lang() == lang)
        ]
        if not fitting:
            if lang is not None and lang not in meant:
                return None
            offered = list_few(f"{wording.get('lang')} {_read_source(wording)}" for wording in wordings)
            wanted = " ".join(filter(None, (lang, source))) or "original"
            raise InputError(f"topic {id!r} has no wording in {wanted} (it has {offered})")
        if lang is None and len({wording.read_lang() for wording in fitting}) > 1:
            langs = list_few(sorted({str(wording.get("lang")) for wording in fitting}))
            raise InputError(f"topic {id!r} has several {source or 'original'} wordings: say which language ({langs})")
        return min(fitting, key=lambda wording: order.index(_read_source(wording)))

    def _read_narrative(self, narratives: object, lang: str | None, id: str) -> str:
        held = narratives if isinstance(narratives, dict) else {}
        chosen = [narrative for each, narrative in held.items() if each in self.doc_langs]
        if not chosen:
            chosen = [held[lang]] if lang in held else list(held.values())
        parts: list[str] = []
        for narrative in chosen:
            if isinstance(narrative, dict):
                parts += FileRow(narrative).read_texts("very_valuable", "somewhat_valuable").values()
            elif isinstance(narrative, str):
                parts.append(narrative)
            else:
                raise InputError(f"topic {id!r}: a narrative must be text, not {type(narrative).__name__}")
        kept = list(dict.fromkeys(part.strip() for part in parts if part.strip() not in ("", "N/A", "NA")))
        if not kept:
            raise InputError(f"topic {id!r} has no narrative")
        return "\n".join(kept)


def select_language(lang: str | None, queries: Iterable[Item], none: str, source: str | None = None) -> list[Item]:
    """The queries whose language, given or identified, is `lang`, any code or name; all of them for None.

    If there are none, `InputError` that begins with `none` and names the languages that there are.
    """
    code = parse_language(lang) if lang else None
    found = list(queries)
    if code:
        listed = list(fill_languages(found))
        found = [query for query in listed if query.lang == code]
    if not found:
        others = sorted({query.lang for query in listed if query.lang}) if code else ()
        raise InputError(
            none
            + (f" in {code}" if code else "")
            + (f" ({source})" if source else "")
            + (f", only in {list_few(others, 8)}" if others else "")
        )
    return found


def check_topic_languages(topics: Iterable[Item], langs: Iterable[str], where: str) -> None:
    """`InputError` where topics say which languages they are meant for, and no document is in any of them."""
    listed = (topic.meta.get("languages_with_qrels") for topic in topics)
    meant = {lang for each in listed if isinstance(each, list) for lang in each}
    if meant and meant.isdisjoint(langs):
        raise InputError(
            f"{where}: the topics are meant for documents in {list_few(sorted(meant), 8)}, "
            f"but its documents are in {list_few(sorted(langs), 8)}"
        )


def _read_source(wording: FileRow) -> Source:
    source = wording.read_text("source") or "original"
    # Machine translations carry the name of the system that made them.
    return "original" if source == "original" else "human" if source.startswith("human") else "machine"
