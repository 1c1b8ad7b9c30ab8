"""Every prompt file of the package."""

from __future__ import annotations

import hashlib
import json
import string
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
from crosslens.items import Item
from crosslens.multilingual import prompts
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.judges.messages import Passage, Seam
from crosslens.multilingual.languages import name_language
from crosslens.multilingual.prompts import list_prompts
from crosslens.multilingual.reranking.registry import SORTERS
from crosslens.multilingual.reranking.rerank import check_sorter
from stand_ins.prompted import DOCS, QUERY, Judge
from stand_ins.table import table

load_prompt = cache(prompts.load_prompt)  # which reads and checks the file each time

NEUCLIR = {"zho", "fas", "rus"}


TRANSLATED = ("likelihood", "yesno", "graded", "pairwise", "setwise", "listwise", "first")


def list_wordings(name):
    """The prompt in each language that it is written in, by code."""
    return {code: load_prompt(name).in_language(code) for code in ("eng", *load_prompt(name).words)}


@table("name", list_prompts())
def test_every_prompt_names_its_paper_and_goes_with_its_sorter(name):
    prompt = load_prompt(name)
    year = next(word for word in prompt.paper.replace(",", " ").split() if word.isdecimal())
    assert 2019 <= int(year) <= 2026
    sort = SORTERS[prompt.sort]
    check_sorter(prompt, sort(arity=2, shown=2) if prompt.most == 2 else sort())
    assert (prompt.orders == "both") == (prompt.most == 2)
    assert not any(label != label.strip() for label in prompt.labels)  # the judge tries both forms
    if prompt.values:
        assert all(value == int(label) for value, label in zip(prompt.values, prompt.labels, strict=True))


def test_models_without_a_chat_template_are_shown_what_they_always_were():
    """The numbers measured with base models rest on these bytes: what is changed here is measured again."""
    golden = json.loads((Path(__file__).parents[2] / "golden/prompt-wordings.json").read_text())
    found = {}
    for name in list_prompts():
        for code, prompt in list_wordings(name).items():
            text = prompt.message(QUERY, DOCS[: min(prompt.most, 3)]).plain()
            found.setdefault(name, {})[code] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    assert found == golden


@table("name", list_prompts())
def test_every_answer_of_a_chat_model_is_begun_for_it(name):
    for code, prompt in list_wordings(name).items():
        if prompt.asks in ("choose", "generate") and prompt.chat != "never":
            assert prompt.answer, code
            translated = "answer" in load_prompt(name).words.get(code, {"answer": ...})
            assert translated or not any(map(str.isalpha, prompt.answer)), code


@table("name", list_prompts())
def test_every_wording_shows_the_query_and_every_document(name):
    for code, prompt in list_wordings(name).items():
        _shows_all(name, code, prompt)


def _shows_all(name, code, prompt):
    shown = DOCS[: prompt.most]
    message = prompt.message(QUERY, shown)
    assert [part.text for part in message.parts if isinstance(part, Passage)] == [doc.text for doc in shown], code
    text = message.user()
    if prompt.asks == "likelihood":
        assert QUERY.text not in text, code
        judge = Judge()
        prompt.score(judge, [(QUERY, shown)])
        (target,) = judge.targets
        assert target.strip() == QUERY.text, code
        assert name_language("rus", code) in text
    else:
        assert QUERY.text in text, code
    labels = [prompt.each.partition("{label}")[0] + label for label in prompt.labels]
    if prompt.most > 1:
        places = [text.index(label + prompt.each.partition("{label}")[2][:1]) for label in labels]
        assert places == sorted(places), code
        assert prompt.labels[-1] in text[places[-1] :]
    assert message.answer == (prompt.think or prompt.answer), code
    assert (Seam.SEAM in message.parts) == (name in ("cross", "rankllama"))
    if prompt.asks != "score" and message.chat != "always":
        # A base model goes on from here: with a label, a ranking or the query.
        assert not message.plain().endswith(" "), code


@table("name", [name for name in list_prompts() if load_prompt(name).words])
def test_translations_keep_the_placeholders_and_are_in_their_language(name):
    for code in load_prompt(name).words:
        _translates(name, code)


def _translates(name, code):
    english = load_prompt(name)
    translated = english.in_language(code)
    for key in ("template", "each", "target", "system"):
        fields = [
            sorted(field for _, field, _, _ in string.Formatter().parse(getattr(prompt, key)) if field)
            for prompt in (english, translated)
        ]
        assert fields[0] == fields[1], (code, key)
    assert translated.template != english.template, code
    assert bool(translated.system) == bool(english.system), code
    assert bool(translated.answer) == bool(english.answer), code
    assert (translated.asks, translated.values, translated.sort) == (english.asks, english.values, english.sort), code
    if all(label.isascii() and len(label) < 3 for label in english.labels) and name not in ("yesno", "instruct"):
        assert translated.labels == english.labels, code  # letters and numbers stay as they are
    else:
        assert translated.labels != english.labels or not english.labels, code
    # Its letters are those of the language: no English left over.
    scripts = {"zho": "CJK", "fas": "ARABIC", "rus": "CYRILLIC", "ara": "ARABIC", "jpn": "CJK HIRAGANA KATAKANA"}
    scripts |= {"kor": "HANGUL", "hin": "DEVANAGARI"}
    if code in scripts:
        literal = "".join(text for text, *_ in string.Formatter().parse(translated.template))
        letters = [each for each in literal if each.isalpha()]
        own = [each for each in letters if unicodedata.name(each).split()[0].partition("-")[0] in scripts[code].split()]
        assert len(own) > 0.9 * len(letters), code


@table("name", TRANSLATED)
def test_what_is_meant_for_any_language_has_the_neuclir_languages(name):
    assert set(load_prompt(name).words) >= NEUCLIR | {"spa", "deu", "fra", "ara", "jpn", "kor", "hin"}


@table(
    ("name", "text"),
    [
        ("likelihood", "D\n\nRussian question about the text above:"),
        ("yesno", "Passage: D\nQuery: Q\nDoes the passage answer the query? Answer Yes or No.\nAnswer:"),
        ("monot5", "Query: Q Document: D Relevant:"),
        ("mmonot5", "Query: Q Document: D Relevant:"),
        (
            "rank1",
            "Determine if the following passage is relevant to the query. Answer only with 'true' or 'false'.\n"
            "Query: Q\nPassage: D\n<think>",
        ),
        (
            "qwen3-reranker",
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
            "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
            "<Query>: Q\n<Document>: D<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        ("rankllama", "query: Qdocument: D"),
    ],
)
def test_wordings_that_numbers_or_training_depend_on(name, text):
    prompt = load_prompt(name)
    assert prompt.message(Item("q", "Q", lang="rus"), [Item("d", "D")]).plain() == text
    assert prompt.chat == ("auto" if name == "yesno" else "never")


def test_the_seam_parts_what_a_cross_encoder_reads():
    parts = load_prompt("rankllama").message(Item("q", "Q"), [Item("d", "D")]).parts
    assert parts == ("query: ", "Q", Seam.SEAM, "document: ", Passage("D"))


def test_a_tokenizer_distinguishes_the_labels_of_every_wording(tiny_judge):
    from crosslens.multilingual.judges.tokenized import CachedTokenizer
    from transformers import AutoTokenizer

    tokens = CachedTokenizer(AutoTokenizer.from_pretrained(tiny_judge), "tiny")
    for name in list_prompts():
        for code, prompt in list_wordings(name).items():
            text = prompt.message(QUERY, DOCS[:1]).plain() if not prompt.think else prompt.answer
            if prompt.labels:
                labels = tokens.plan_labels(text, tuple(label + prompt.closing for label in prompt.labels))
                assert len(set(labels.sequences)) == len(prompt.labels), (name, code)


@table("name", list_prompts())
def test_every_prompt_fits_a_judge_that_can_all_and_scores_finitely(name):
    prompt = load_prompt(name)
    judge = Judge(says=[Completion("[1]</think>", 3)] * 4)
    prompt.check_judge(judge)
    for group in ([DOCS[0]], DOCS[: min(prompt.most, 2)]):
        (scores,) = prompt.score(judge, [(QUERY, group)])
        assert scores.shape == (len(group),)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()
    assert prompt.score(judge, []) == []
