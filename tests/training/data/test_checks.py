"""Each check leaves out what it must, and nothing else."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.base import Draft
from crosslens.training.data.checks import Checks, Duplicates, KnownTexts, find_copied_share
from stand_ins.table import table

DOCUMENT = Item(
    "d",
    "Adult cats sleep for twelve to sixteen hours a day, and kittens sleep even longer than that.\n"
    "成年猫每天大约睡十二到十六个小时，幼猫和老年猫睡得更久。",
    lang="eng",
)
TOPICS = ["How many hours do cats sleep?", "Каковы привычки кошек зимой"]
CASES = [
    (Draft("why do young cats need so much rest", "eng", "question"), ""),
    (Draft("为什么小猫需要更多的休息时间", "zho", "question"), ""),
    (Draft("cats", "eng", "keywords"), ""),
    (Draft("猫狗", "zho", "keywords"), ""),
    (Draft("VLOOKUP", "rus", "keywords"), ""),  # in no language that is clear
    (Draft("", "eng", "question", "empty"), "empty"),
    (Draft("why do young cats", "eng", "question", "cut"), "cut"),
    (Draft("a?!", "eng", "question"), "short"),
    (Draft("why " * 140, "eng", "question"), "long"),
    (Draft("为什么小猫需要更多的休息时间", "eng", "question"), "language"),
    (Draft("why do young cats need so much rest", "rus", "question"), "language"),
    (Draft("Do CATS sleep for twelve to sixteen hours a day?", "eng", "question"), "copied"),
    (Draft("成年猫每天大约睡十二到十六个小时吗", "zho", "question"), "copied"),
    (Draft("Adult cats sleep", "eng", "keywords"), ""),  # copied, but not long
    (Draft("how many hours do cats sleep", "eng", "question"), "held_out"),
    (Draft("«Каковы привычки кошек зимой?»", "rus", "question"), "held_out"),
    (Draft("how much do big dogs eat", "eng", "question"), ""),
]


@table(("draft", "fault"), CASES)
def test_what_is_left_out_and_why(draft, fault):
    assert Checks(copies=False, held_out=TOPICS).find_fault(DOCUMENT, draft) == fault


def test_a_source_of_copies_may_copy_and_the_share_can_be_set():
    copied = Draft("cats sleep for twelve to sixteen hours a day", "eng", "sentence")
    assert Checks(copies=True).find_fault(DOCUMENT, copied) == ""
    assert Checks(copies=False, most_copied=1).find_fault(DOCUMENT, copied) == ""
    assert find_copied_share(copied.text, DOCUMENT.text) == 1.0
    assert find_copied_share("when cats sleep for twelve to sixteen hours a day", DOCUMENT.text) == pytest.approx(
        45 / 49
    )
    assert find_copied_share("", DOCUMENT.text) == 0.0
    with pytest.raises(InputError, match="from 0 to 1, not 2"):
        Checks(copies=False, most_copied=2)


def test_likeness_is_jaccards_of_trigrams():
    known = KnownTexts(["the night train", "猫の睡眠"])
    assert known.near("The  night-train!") == 1.0
    assert known.near("ночной поезд") == 0.0
    assert KnownTexts().near("the night train") == 0.0
    pieces = lambda text: {f" {text} "[n : n + 3] for n in range(len(text))}  # noqa: E731
    one, other = pieces("the night train"), pieces("the night trains")
    assert known.near("the night trains") == pytest.approx(len(one & other) / len(one | other))


def test_duplicates_are_the_same_words_anywhere_and_nearly_the_same_of_one_document():
    seen = Duplicates()
    assert seen.find("a", "How to clean the oven?") is None
    seen.add("a~1", "How to clean the oven?")
    assert seen.find("a", "How to clean the ovens?") == ""
    assert seen.find("a", "Which oven is the cheapest") is None
    assert seen.find("b", "the oven: how to clean") == "a~1"
    assert seen.find("b", "How to clean the ovens?") is None  # of another document it may be another matter
