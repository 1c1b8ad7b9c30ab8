"""What a model is asked, and what of its answer is a query."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.judges.messages import Passage
from crosslens.multilingual.languages import measure_text
from crosslens.multilingual.prompts import load_wording
from crosslens.training.data.base import LanguageMix, Making
from crosslens.training.data.generation import SHOWN, STYLES, Generator, QueryWording, read_query, show_part
from crosslens.training.data.registry import load_source
from stand_ins.query_writer import QueryWriter
from stand_ins.table import table

TEN = ("eng", "zho", "fas", "rus", "spa", "deu", "fra", "ara", "jpn", "kor")
MODEL = "py:stand_ins.query_writer:QueryWriter"
DOCUMENT = Item("d", "Cats\nCats sleep all day.", lang="eng", meta={"title": "Cats"})


def load(name: str) -> QueryWording:
    return load_wording(QueryWording, name, files("crosslens.training.data"))


def draft(generator: Generator, *documents: Item, making: Making | None = None):
    made = generator.make(lambda: iter(documents), {each.id for each in documents}, making or Making())
    return [draft for _, drafts in made for draft in drafts]


@table(
    ("answer", "style", "query"),
    [
        ("<think>Let me see: what is it?</think>\n1. **How long do cats sleep?**", "question", "How long do cats sleep?"),
        ('Question 1: "How long do cats sleep?"\nThis asks about ...', "question", "How long do cats sleep?"),
        ("- Вопрос: «Сколько спит кошка?»", "question", "Сколько спит кошка?"),
        ("标题：猫的睡眠", "title", "猫的睡眠"),
        ("Título: El sueño de los gatos", "title", "El sueño de los gatos"),
        ("Ключевые слова: кошка, сон", "keywords", "кошка сон"),
        ("- cat\n- sleep\n- cat", "keywords", "cat sleep"),
        ("a1, b2, c3, d4, e5, f6, g7", "keywords", "a1 b2 c3 d4 e5"),
        ("3.5 mm jack", "title", "3.5 mm jack"),
        ("```\ncat  sleep\thours\n```", "title", "cat sleep hours"),
    ],
)  # fmt: skip
def test_the_query_in_an_answer(answer, style, query):
    assert read_query(Completion(answer, 9), style) == (query, "")


@table(
    ("answer", "fault"),
    [
        (Completion("  ", 1), "empty"),
        (Completion("1. ...", 1), "unreadable"),
        (Completion("<think>I never come", 64, False), "unclosed_thought"),
        (Completion("I'm sorry, I cannot help with that.", 9), "refused"),
        (Completion("Why do cats sleep so much longer than", 64, False), "cut"),
    ],
)
def test_an_answer_without_a_query_says_why(answer, fault):
    assert read_query(answer, "question")[1] == fault


@pytest.mark.parametrize("name", ["inpars", "promptagator"])
def test_prompts_have_words_in_ten_languages(name):
    wording = load(name)
    assert set(wording.words) == set(TEN) - {"eng"}
    for code in TEN:
        for style in wording.styles:
            message = wording.in_language(code).ask("THE DOCUMENT", Item("q", lang=code), style, ())
            assert [part.text for part in message.parts if isinstance(part, Passage)] == ["THE DOCUMENT"]
            assert "{" not in message.plain()
    assert set(load("inpars").styles) == set(STYLES)


def test_a_query_is_asked_for_in_its_language_in_words_of_it():
    generator = load_source(f"inpars@{MODEL}?styles=keywords")
    draft(generator, DOCUMENT, making=Making(mix=LanguageMix.parse("deu")))
    assert "Schreibe nur diese Wörter auf Deutsch" in generator.judge.asked[-1].user()
    english = load_source(f"inpars@{MODEL}?styles=keywords&language=eng")
    draft(english, DOCUMENT, making=Making(mix=LanguageMix.parse("deu")))
    assert "Write only these words in German" in english.judge.asked[-1].user()


def test_a_language_without_words_is_asked_in_english_and_counted():
    making = Making(mix=LanguageMix.parse("swa"))
    generator = load_source(f"inpars@{MODEL}?n=2")
    draft(generator, DOCUMENT, making=making)
    assert "Write this one question in Swahili" in generator.judge.asked[-1].user()
    assert making.count == {"prompt_not_in_swa": 2}


def test_a_document_in_no_known_language_gets_no_query_in_the_same():
    making = Making()
    generator = load_source(f"inpars@{MODEL}?n=2")
    assert draft(generator, replace(DOCUMENT, lang=None), making=making) == []
    assert making.count == {"documents_without_language": 1}
    assert len(draft(generator, replace(DOCUMENT, lang=None), making=Making(mix=LanguageMix.parse("eng")))) == 2


def test_styles_take_turns():
    generator = load_source(f"inpars@{MODEL}?n=4&styles=question,title")
    styles = [each.style for each in draft(generator, DOCUMENT)]
    assert sorted(styles) == ["question", "question", "title", "title"]
    assert styles[0] != styles[1]


def test_of_a_long_document_the_first_query_sees_the_beginning_and_others_other_parts():
    sentences = [f"Sentence number {n} says something of its own." for n in range(200)]
    document = Item("d", "T\n" + " ".join(sentences), meta={"title": "T"})
    parts = [show_part(document, number, Making()) for number in range(6)]
    assert parts[0].startswith("T\nSentence number 0 ")
    assert len(set(parts)) > 3
    for part in parts:
        assert part.startswith("T\nSentence number ")
        assert part.endswith("of its own.")
        assert SHOWN - 60 < measure_text(part) <= SHOWN + 1
    assert show_part(DOCUMENT, 3, Making()) == "Cats\nCats sleep all day."
    assert measure_text(show_part(Item("d", "猫" * 5000), 0, Making())) > SHOWN  # one sentence: the judge cuts it


def test_answers_that_are_empty_or_cut_are_drafts_with_a_fault():
    class Faulty(QueryWriter):
        def compute_completions(self, prompts, sampling):
            whole = super().compute_completions(prompts, sampling)
            return [replace(whole[0], text=" "), replace(whole[1], ended=False), *whole[2:]]

    generator = replace(load_source(f"inpars@{MODEL}?n=3"), judge=Faulty())
    assert [each.fault for each in draft(generator, DOCUMENT)] == ["empty", "cut", ""]


def test_a_base_model_goes_on_from_examples(tmp_path):
    shots = [{"text": f"Passage {n}.", "query": f"query {n}", "lang": "rus" if n == 3 else "eng"} for n in range(8)]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(each) + "\n" for each in shots))
    generator = load_source(f"promptagator@{MODEL}?chats=false&shots={tmp_path}/shots.jsonl")
    draft(generator, DOCUMENT)
    asked = generator.judge.asked[-1].plain()
    assert asked.count("Document: Passage") == 5
    assert asked.endswith("Document: Cats\nCats sleep all day.\nQuery in English:")
    draft(generator, replace(DOCUMENT, lang="rus"))
    assert (
        generator.judge.asked[-1]
        .plain()
        .startswith("Документ: Passage 3.\nПоисковый запрос (язык: русский): query 3\n\nДокумент: Cats")
    )


def test_a_model_trained_to_write_queries_reads_the_document_alone():
    generator = load_source(f"doc2query@{MODEL}?n=2")
    draft(generator, DOCUMENT)
    assert {each.plain() for each in generator.judge.asked} == {"Cats\nCats sleep all day."}


@table(
    ("spec", "part"),
    [
        ("nothing@hf:x", "unknown prompt 'nothing' (known: doc2query, inpars, promptagator"),
        ("inpars", "'inpars' names no model; write inpars@family:checkpoint"),
        ("icts", "unknown source of pairs 'icts'; did you mean ict? (known: anchors, ict, py"),
        ("ict:x", "a source takes nothing after its name but options"),
        ("ict?m=2", "unknown option of ict 'm' (known: keep, n)"),
        ("ict?n=0", "n must be at least 1, not 0"),
        ("ict?keep=2", "keep is a probability, from 0 to 1, not 2"),
        ("translations", "add by=id, by=vectors, or by=KEY of meta"),
        (f"inpars@{MODEL}?chats=false", "writer has no chat template, and the prompt inpars needs one"),
        (f"inpars@{MODEL}?styles=haiku", "unknown style of the prompt inpars: 'haiku'"),
        (f"doc2query@{MODEL}?styles=title", "unknown style of the prompt doc2query: 'title'"),
        (f"inpars@{MODEL}?temperature=-1", "temperature must be between 0 and 10, not -1"),
        (f"promptagator@{MODEL}", "the prompt promptagator needs examples: add shots=FILE"),
        (f"promptagator@{MODEL}?shots=/no/where.jsonl", "cannot read /no/where.jsonl"),
        ("py:nowhere:Source", "cannot import nowhere:Source"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_spec_is_said(spec, part):
    with pytest.raises(InputError) as error:
        load_source(spec)
    assert part in str(error.value)


def test_a_wording_needs_a_passage_and_a_shot_where_it_has_shots():
    with pytest.raises(InputError, match=r"lacks the placeholder \{passage\}"):
        QueryWording.parse('template = "{task}"', "mine")
    with pytest.raises(InputError, match="needs both"):
        QueryWording.parse('template = "{shots}{passage}"', "mine")
