"""Queries translated into the languages of the documents: a probe each, kept once they were translated."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.rewriting.translation import Translate
from crosslens.multilingual.rewriting.translation_queries import TranslateQueries, parse_query_translation
from crosslens.runs import Probe, Run
from stand_ins.writing import SAYS

QUERY = Item("q", "The cat sleeps and hunts.", lang="eng")
RUS, ZHO = SAYS["Russian"], SAYS["Chinese"]


def load(spec, langs=None):
    return parse_query_translation(spec, device="cpu", trust_remote_code=False)(lambda: langs or {})


def test_each_language_is_a_probe_and_a_query_stands_for_itself():
    spec = "translate@py:stand_ins.writing:Writer?to=document"
    stage = load(spec, {"rus": 5, "eng": 4, "zho": 3})
    run = Run.of([QUERY, Item("photo", image=b"...")])
    done = stage(run)
    assert done.queries == run.queries
    assert done.probes == {
        "q": (
            Probe(Item("q/rus", RUS, lang="rus"), "query"),
            Probe(QUERY, "query"),
            Probe(Item("q/zho", ZHO, lang="zho"), "query"),
        )
    }
    (record,) = done.manifest.records
    assert record.stage == "translate(writer, to=rus,eng,zho)"
    counts = {"translated": 2, "already": 1, "without_text": 3, "calls": 2, "generated_tokens": 6}
    assert record.counts == counts
    again = stage(run).manifest.records[0]
    assert again.counts == {**counts, "kept": 2}
    assert stage.translator.judge.seen == [(1, None), (1, None)]


def test_one_language_takes_the_place_of_the_query():
    stage = load("translate@py:stand_ins.writing:Writer?to=ru")
    assert isinstance(stage, Translate)
    assert [query.text for query in stage(Run.of([QUERY])).queries] == [RUS]
    assert stage(Run.of([QUERY])).manifest.total("kept") == 1


def test_mistakes_are_one_line():
    for to, message in (("rus,xx9", "unknown language 'xx9'"), ("document", "not known: name them, as in rus,zho")):
        with pytest.raises(InputError, match=message):
            load(f"translate@py:stand_ins.writing:Writer?to={to}")
    with pytest.raises(InputError, match="nllb does not translate into tlh, only into rus"):
        TranslateQueries(SimpleNamespace(name="nllb", targets=frozenset({"rus"})), ("rus", "tlh"))
