"""What is used of answers: only the text, whole, once; and how what cannot be used is counted."""

from __future__ import annotations

from collections import Counter

from crosslens.multilingual.judges import Completion
from crosslens.multilingual.rewriting.reading import is_in, read_entries, read_line, read_prose, read_words
from stand_ins.table import table

PROSE = [
    ("Cats sleep. They hunt.", True, "Cats sleep. They hunt.", {}),
    ("Sure, here is a passage in English:\n\nCats sleep.", True, "Cats sleep.", {}),
    ("Here is the passage: Cats sleep.", True, "Cats sleep.", {}),
    ("**Passage:** Cats **sleep** by `day`.", True, "Cats sleep by day.", {}),
    ("Отрывок:\n«Кошки спят днём.»", True, "Кошки спят днём.", {}),
    ("以下是一段文字：\n\n猫整天都在睡觉。", True, "猫整天都在睡觉。", {}),
    ("```text\nCats sleep.\n```", True, "Cats sleep.", {}),
    ("```\nCats sleep. They", False, "Cats sleep.", {"cut_answers": 1}),
    ("# Cats\n- They sleep.\n- They hunt.", True, "Cats\nThey sleep.\nThey hunt.", {}),
    ("<think>so</think>Cats sleep.", True, "Cats sleep.", {}),
    ("Cats sleep 3.5 hours at 10:30. They are cats.", True, "Cats sleep 3.5 hours at 10:30. They are cats.", {}),
    ("Cats sleep. They hunt at", False, "Cats sleep.", {"cut_answers": 1}),
    ("Cats sleep. They hunt.", False, "Cats sleep. They hunt.", {"cut_answers": 1}),
    ("Cats sleep at the", False, "Cats sleep at the", {"cut_answers": 1}),
    ("猫睡觉。狗不睡。猫睡觉。猫睡觉。", True, "猫睡觉。狗不睡。", {"repeated": 1}),
    ("文件无法打开时，请点击“修复”。", True, "文件无法打开时，请点击“修复”。", {}),
    ("I'm sorry, but I cannot write that.", True, "", {"refused": 1}),
    ("对不起，我无法回答。", True, "", {"refused": 1}),
    ("我无法提供这段文字。", True, "", {"refused": 1}),
    ("Извините, я не могу помочь.", True, "", {"refused": 1}),
    ("", True, "", {"empty": 1}),
    ("```\n```", True, "", {"empty": 1}),
    ("<think>it never", False, "", {"unclosed_thought": 1}),
    ("... 12 ...", True, "", {"unreadable": 1}),
]


@table(("said", "ended", "used", "faults"), PROSE)
def test_of_prose_whole_sentences_are_used_once(said, ended, used, faults):
    count = Counter()
    assert read_prose(Completion(said, 5, ended), count) == used
    assert +count == faults


def test_of_a_line_the_first_is_used():
    count = Counter()
    assert read_line(Completion('Query: "How do cats sleep?"\n\nThis is better.', 5), count) == "How do cats sleep?"
    assert read_line(Completion("检索词？\n解释：", 5, ended=False), count) == "检索词？"
    assert not +count
    assert read_line(Completion("How do cats", 5, ended=False), count) == "How do cats"
    assert +count == {"cut_answers": 1}


def test_of_lists_every_whole_part_is_used_once():
    count = Counter()
    assert read_entries(Completion("1. Why?\n2) How?\n• why?\n", 5), count) == ["Why?", "How?"]
    assert read_words(Completion("Keywords: cat, Cat,sleep;\n- night", 5), count) == ["cat", "sleep", "night"]
    assert +count == {"repeated": 2}
    assert read_words(Completion("кошка, сон, но", 5, ended=False), count) == ["кошка", "сон"]
    assert read_words(Completion("猫、睡眠，夜晚。", 5), count) == ["猫", "睡眠", "夜晚"]
    assert read_entries(Completion("I can't help with that.", 5), count) == []
    assert +count == {"repeated": 2, "cut_answers": 1, "refused": 1}


def test_languages_are_told_where_they_can_be():
    assert is_in("Кошка спит весь день.", "rus")
    assert not is_in("The cat sleeps all day and all night.", "rus")
    assert is_in("LibreOffice 7.4", "zho")


def test_a_hundred_thousand_signs_are_read_at_once():
    for sign in ("*", "`", "**a", "- ", "a: ", "“", "。", "1. "):
        read_prose(Completion(sign * 30_000, 5, False), Counter())
