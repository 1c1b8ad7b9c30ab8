"""Judges that are asked for translations, and answers made clean."""

from __future__ import annotations

import pytest
from crosslens.checkpoints.offline import packages as offline
from crosslens.items import Item
from crosslens.multilingual.rewriting.translation import Translate, load_translation
from crosslens.multilingual.rewriting.translation_models import is_trained
from crosslens.multilingual.rewriting.translation_prompt import PromptedTranslator, clean_answer, word_request
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table
from stand_ins.writing import Saying
from tiny.translators import madlad, queries, stage


def test_prompts_name_both_languages_in_english():
    assert word_request("Кошка спит", "rus", "eng").user() == (
        "Translate from Russian to English. Write only the translation.\n\nRussian: Кошка спит\nEnglish:"
    )
    assert word_request("Кошка {спит}", None, "fas").user() == (
        "Translate into Persian. Write only the translation.\n\nText: Кошка {спит}\nPersian:"
    )
    assert word_request("x", "zho", "eng").chat == "auto"


def test_a_judge_is_asked_in_pieces_and_its_answers_are_put_together():
    def say(asked: str) -> str:
        return "Translation: " + asked.rpartition("English: ")[2].removesuffix("\nRussian:").upper()

    text = "One day. " * 200 + "\nTwo.\n\nThree"
    judge = Saying(say)
    done = Translate(PromptedTranslator(judge), "ru")([Item("q", text, lang="eng"), Item("p", "cat", lang="eng")])
    assert [query.text for query in done.queries] == [text.upper(), "CAT"]
    assert {query.lang for query in done.queries} == {"rus"}
    assert len(judge.seen) == 3  # 1,800 characters are two chunks
    assert all(stop == () for *_, stop in judge.seen)
    assert done.manifest.records[0].counts["calls"] == 3
    base = Saying(say, chats=False)  # goes on from where a text ends: a line at a time
    again = Translate(PromptedTranslator(base), "rus")([Item("q", text, lang="eng")])
    assert again.queries[0].text == text.upper()
    assert len(base.seen) == 4
    assert all(stop == ("\n",) for *_, stop in base.seen)


@pytest.mark.parametrize(
    ("answer", "kind"), [("", "empty"), ("  \n ", "empty"), ("<think>hm, a cat", "empty"), ("...!", "unreadable")]
)
def test_empty_and_unreadable_answers_are_counted_and_the_query_kept(answer, kind):
    query = Item("q", "The cat sleeps", lang="eng")
    done = Translate(PromptedTranslator(Saying(lambda _: answer)), "rus")([query])
    assert done.queries == (query,)
    counts = done.manifest.records[0].counts
    assert counts[kind] == counts["untranslated"] == 1
    assert not counts.get("translated")


@table(
    ("answer", "text", "wanted"),
    [
        (" Кошка спит\n", "The cat sleeps", "Кошка спит"),
        ("Translation: Кошка спит", "The cat sleeps", "Кошка спит"),
        ("**Translation:** Кошка спит", "The cat sleeps", "Кошка спит"),
        ("Russian: Кошка спит\nEnglish: The cat sleeps", "The cat sleeps", "Кошка спит"),
        ("Sure, here is the translation into Russian:\n\n«Кошка спит»", "The cat sleeps", "Кошка спит"),
        ("Here you are:\nКошка спит", "The cat sleeps", "Кошка спит"),
        ("```\nКошка спит\n```", "The cat sleeps", "Кошка спит"),
        ("<think>\nкошка?\n</think>\n\nКошка спит\n\nNote: literally.", "The cat sleeps", "Кошка спит"),
        ('"Кошка спит"', '"The cat sleeps"', '"Кошка спит"'),
        ('"Кошка" и "пёс"', "The cat and the dog", '"Кошка" и "пёс"'),
        ("Here is the list: a, b", "Вот список: a, b", "Here is the list: a, b"),
        ("Of course: yes", "Конечно: да", "Of course: yes"),
        ("Translation: a history", "Translation: a history (in French)", "Translation: a history"),
        ("Первая\n\nВторая", "First\n\nSecond", "Первая\n\nВторая"),
        ('"', "quote", '"'),
        ("Translation:", "x", "Translation:"),
    ],
)  # fmt: skip
def test_answers_are_made_clean(answer, text, wanted):
    assert clean_answer(answer, text, "Russian") == wanted


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(['"', "«", "»", "Translation:", "Russian:", "\n", "\n\n", "```", " ", "Sure:", "кот", "'", "“", "”"]) | st.text(max_size=6)).map("".join),
    st.text(max_size=12),
)  # fmt: skip
def test_cleaning_never_fails_and_leaves_something_of_something(answer, text):
    said = clean_answer(answer, text, "Russian")
    assert bool(said) == bool(answer.strip())
    assert said == said.strip()


def test_no_more_is_asked_for_than_fits_beside_the_text():
    judge = Saying(lambda _: "кот")
    judge.longest_answer = 100
    Translate(PromptedTranslator(judge), "rus")([Item("q", "cat", lang="eng"), Item("p", "cat " * 90, lang="eng")])
    assert [most for *_, most, _ in judge.seen] == [100, 100]


def test_a_causal_checkpoint_and_a_plain_t5_are_prompted(tiny_judge, tmp_path):
    made = load_translation(f"translate@hf:{tiny_judge}?to=ru&dtype=float32", device="cpu")
    assert isinstance(made.translator, PromptedTranslator)
    assert not is_trained(str(tiny_judge))
    done = made(queries(["How long do cats sleep?", "cats"]))
    counts = done.manifest.records[0].counts
    assert counts["calls"] == 2 == counts.get("translated", 0) + counts.get("untranslated", 0)
    plain = madlad(tmp_path, marks=("<2translate>",))
    assert not is_trained(str(plain))
    assert isinstance(stage(plain).translator, PromptedTranslator)


def test_offline_gemma_translates_for_real():
    if not offline.is_available("gemma"):
        pytest.skip("the package of offline:gemma is not installed")
    made = load_translation("translate@offline:gemma?to=eng", device="cpu")
    done = made([Item("a", "Кошка спит весь день.", lang="rus"), Item("b", "cats", lang="eng")])
    assert done.queries[1] == Item("b", "cats", lang="eng")
    counts = done.manifest.records[0].counts
    assert counts["calls"] == counts["already"] == 1
    assert counts.get("translated", 0) + counts.get("untranslated", 0) == 1
    assert done.queries[0].text.strip()
    assert "\n" not in done.queries[0].text
