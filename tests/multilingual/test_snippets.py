"""Snippets: the right part of a text, and the right places marked in it, in scripts of all kinds."""

from __future__ import annotations

from crosslens.multilingual.snippets import LONGEST, make_snippet
from hypothesis import given
from hypothesis import strategies as st
from stand_ins.table import table


@table(
    ("text", "query", "marked"),
    [
        ("The boats lay in the harbour.", "a boat", ["boats"]),
        ("Die Katzen schlafen, katze!", "Katze", ["Katzen", "katze"]),
        ("Деревья растут, дерево растёт", "деревья", ["Деревья", "дерево"]),
        ("猫一天睡多久：猫的睡眠", "猫睡眠", ["睡眠"]),
        ("बिल्लियाँ सोती हैं", "बिल्लियाँ", ["बिल्लियाँ"]),
        ("القطط تنام كثيرا", "القطط", ["القطط"]),
        ("reboot is no boot", "boot", ["boot"]),
        ("İstanbul'da bir gemi", "gemi", ["gemi"]),
        ("nothing of it", "цветы", []),
        ("a b c", "a", []),
    ],
)
def test_words_of_the_query_are_marked(text: str, query: str, marked: list[str]) -> None:
    snippet, spans = make_snippet(text, query)
    assert [snippet[start:end] for start, end in spans] == marked


def test_the_part_with_most_words_is_shown() -> None:
    text = "boat " + "filler words here " * 60 + "the boat and the harbour at last " + "more words " * 50
    snippet, spans = make_snippet(text, "harbour boat")
    assert {snippet[start:end] for start, end in spans} == {"boat", "harbour"}
    assert snippet.startswith("… ")
    assert snippet.endswith(" …")
    beginning, none = make_snippet(text, "zebra")
    assert beginning.startswith("boat filler")
    assert none == []


@given(st.text(max_size=900), st.text(max_size=60))
def test_any_text_gives_a_short_line_with_spans_in_order(text: str, query: str) -> None:
    snippet, spans = make_snippet(text, query)
    assert len(snippet) <= LONGEST + 4
    assert "\n" not in snippet
    last = 0
    for start, end in spans:
        assert last <= start < end <= len(snippet)
        last = end
