"""Texts in pieces, and made whole again."""

from __future__ import annotations

from collections import Counter

from crosslens.multilingual.rewriting.pieces import join_pieces, split_sentences, split_to_fit, translate_pieces
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["The cat. ", "Mr. Smith", "猫。", "\n", " ", "a", "?! ", "。”", "۔", ", ", "\r\n"]) | st.text(max_size=5)).map("".join))  # fmt: skip
def test_pieces_joined_are_the_text(text):
    whole = list(split_sentences(text))
    assert "".join(whole) == text
    assert all(whole)
    parts = [part for each in whole for part in split_to_fit(each, lambda part: len(part) <= 5)]
    assert "".join(parts) == text
    assert all(len(part) <= 5 for part in parts)
    for lines in (True, False):
        assert "".join(join_pieces(whole, 9, lines=lines)) == text
    usage: Counter[str] = Counter()
    same = translate_pieces([text], [None], "eng", lambda each, _: [each], lambda pieces: [p for p, _ in pieces], usage)
    assert same == [text]


@table(
    ("text", "wanted"),
    [
        ("The cat. It hunts! Really? Yes", ["The cat. ", "It hunts! ", "Really? ", "Yes"]),
        ("Mr. Smith met U.S. Army men at 3.5 p.m. on Monday.", ["Mr. Smith met U.S. Army men at 3.5 p.m. on Monday."]),
        ("In 2020. Then", ["In 2020. ", "Then"]),
        ("猫睡觉。它捕猎！“好。”完", ["猫睡觉。", "它捕猎！", "“好。”", "完"]),
        ("बिल्ली। कुत्ता", ["बिल्ली। ", "कुत्ता"]),
        ("a\n\nb", ["a\n", "\n", "b"]),
    ],
)
def test_sentences_end_where_people_end_them(text, wanted):
    assert list(split_sentences(text)) == wanted


def test_sentences_meet_as_the_language_writes_them():
    def say(pieces):
        return [{"猫睡觉。": "The cat sleeps.", "它捕猎。": "It hunts."}.get(text, "猫。") for text, _ in pieces]

    def both(text, to):
        return translate_pieces([text], ["x"], to, lambda each, _: list(split_sentences(each)), say, Counter())[0]

    assert both("猫睡觉。它捕猎。\n猫睡觉。", "eng") == "The cat sleeps. It hunts.\nThe cat sleeps."
    assert both("The cat. The dog.\nThe end.", "zho") == "猫。猫。\n猫。"


def test_pieces_without_words_stay_and_are_counted():
    usage: Counter[str] = Counter()
    cut = lambda each, _: list(split_sentences(each))  # noqa: E731
    say = lambda pieces: ["Кот." if "cat" in text else "" for text, _ in pieces]  # noqa: E731
    assert translate_pieces(["A cat. A dog. ", "A dog."], ["eng"] * 2, "rus", cut, say, usage) == ["Кот. A dog. ", ""]
    assert usage["untranslated_pieces"] == 1
