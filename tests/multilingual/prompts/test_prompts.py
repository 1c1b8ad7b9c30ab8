"""Every prompt file; what prompts make of comparisons and of answers; faults in files are one clear line."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.judges.messages import Attachment, Passage, Seam
from crosslens.multilingual.languages import name_language
from crosslens.multilingual.prompts import Prompt, configure_prompt, list_prompts, load_prompt
from crosslens.multilingual.reranking.rerank import check_sorter
from crosslens.multilingual.reranking.sorters import SORTERS

QUERY = Item("q", "how long do {cats} sleep", lang="rus")
DOCS = [Item(f"d{n}", f"text number {n} with {{braces}}", lang="zho") for n in range(20)]
BOTH = frozenset({"text", "image"})
NEUCLIR = {"zho", "fas", "rus"}
TRANSLATED = ("likelihood", "yesno", "graded", "pairwise", "setwise", "listwise", "first")

WORDINGS = [(name, code) for name in list_prompts() for code in ("eng", *load_prompt(name).words)]


class Judge:
    """Keeps what it was asked; answers by rule: `prefers` of a passage's text, or the first place where None."""

    name = revision = fingerprint = "fake"
    appetite = 1024

    def __init__(
        self,
        prefers=None,
        says=(),
        can=("choose", "likelihood", "generate", "score"),
        chats=True,
        sees=("text",),
    ):
        self.prefers, self.says = prefers, list(says)
        self.can, self.chats, self.modalities = frozenset(can), chats, frozenset(sees)
        self.usage, self.asked, self.sampling, self.labels = Counter(), [], [], []

    def rows(self, messages, width):
        self.asked += messages
        rows = np.full((len(messages), width), -50.0)
        for row, message in zip(rows, messages, strict=True):
            passages = [part.text for part in message.parts if isinstance(part, Passage)]
            values = [self.prefers(text) if self.prefers else -float(n) for n, text in enumerate(passages)]
            row[: len(values)] = values
        return rows

    def choose(self, messages, labels):
        self.labels.append(tuple(labels))
        rows = self.rows(messages, len(labels))
        return rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)

    def likelihood(self, messages, targets):
        self.targets = list(targets)
        return self.rows(messages, 1)[:, 0]

    def score(self, messages):
        return self.rows(messages, 1)[:, 0]

    def generate(self, messages, **sampling):
        self.asked += messages
        self.sampling.append(sampling)
        return [self.says.pop(0) for _ in messages]


class Sure(Judge):
    """Gives each label of a single passage the probability it is told to."""

    def __init__(self, *shares):
        super().__init__()
        self.shares = shares

    def choose(self, messages, labels):
        self.asked += messages
        return np.log(np.array([self.shares] * len(messages)))


# ---- the files


@pytest.mark.parametrize("name", list_prompts())
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


@pytest.mark.parametrize(("name", "code"), WORDINGS)
def test_every_wording_shows_the_query_and_every_document(name, code):
    prompt = load_prompt(name).in_language(code)
    shown = DOCS[: prompt.most]
    message = prompt.message(QUERY, shown)
    assert [part.text for part in message.parts if isinstance(part, Passage)] == [doc.text for doc in shown]
    text = message.user()
    if prompt.asks == "likelihood":
        assert QUERY.text not in text
        judge = Judge()
        prompt.score(judge, [(QUERY, shown)])
        (target,) = judge.targets
        assert target.strip() == QUERY.text
        assert name_language("rus", code) in text
    else:
        assert QUERY.text in text
    labels = [prompt.each.partition("{label}")[0] + label for label in prompt.labels]
    if prompt.most > 1:
        places = [text.index(label + prompt.each.partition("{label}")[2][:1]) for label in labels]
        assert places == sorted(places)
        assert prompt.labels[-1] in text[places[-1] :]
    assert message.answer == (prompt.think or prompt.answer)
    assert (Seam.SEAM in message.parts) == (name in ("cross", "rankllama"))
    if prompt.asks != "score" and message.chat != "always":
        # A base model goes on from here: with a label, a ranking or the query.
        assert not message.plain().endswith(" ")


@pytest.mark.parametrize(("name", "code"), [each for each in WORDINGS if each[1] != "eng"])
def test_translations_keep_the_placeholders_and_are_in_their_language(name, code):
    english = load_prompt(name)
    translated = english.in_language(code)
    for key in ("template", "each", "target", "system"):
        fields = [
            sorted(field for _, field, _, _ in string.Formatter().parse(getattr(prompt, key)) if field)
            for prompt in (english, translated)
        ]
        assert fields[0] == fields[1], key
    assert translated.template != english.template
    assert bool(translated.system) == bool(english.system)
    assert bool(translated.answer) == bool(english.answer)
    assert (translated.asks, translated.values, translated.sort) == (
        english.asks,
        english.values,
        english.sort,
    )
    if all(label.isascii() and len(label) < 3 for label in english.labels) and name not in (
        "yesno",
        "instruct",
    ):
        assert translated.labels == english.labels  # letters and numbers stay as they are
    else:
        assert translated.labels != english.labels or not english.labels
    # Its letters are those of the language: no English left over.
    scripts = {
        "zho": "CJK",
        "fas": "ARABIC",
        "rus": "CYRILLIC",
        "ara": "ARABIC",
        "jpn": "CJK HIRAGANA KATAKANA",
    }
    scripts |= {"kor": "HANGUL", "hin": "DEVANAGARI"}
    if code in scripts:
        literal = "".join(text for text, *_ in string.Formatter().parse(translated.template))
        letters = [each for each in literal if each.isalpha()]
        own = [
            each
            for each in letters
            if unicodedata.name(each).split()[0].partition("-")[0] in scripts[code].split()
        ]
        assert len(own) > 0.9 * len(letters)


@pytest.mark.parametrize("name", TRANSLATED)
def test_what_is_meant_for_any_language_has_the_neuclir_languages(name):
    assert set(load_prompt(name).words) >= NEUCLIR | {"spa", "deu", "fra", "ara", "jpn", "kor", "hin"}


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(("name", "code"), [each for each in WORDINGS if load_prompt(each[0]).labels])
def test_a_tokenizer_can_tell_the_labels_of_every_wording_apart(name, code, tiny_judge):
    from crosslens.multilingual.judges.tokens import CachedTokenizer
    from transformers import AutoTokenizer

    prompt = load_prompt(name).in_language(code)
    text = prompt.message(QUERY, DOCS[:1]).plain() if not prompt.think else prompt.answer
    tokens = CachedTokenizer(AutoTokenizer.from_pretrained(tiny_judge), "tiny")
    labels = tokens.plan_labels(text, tuple(label + prompt.closing for label in prompt.labels))
    assert len(set(labels.sequences)) == len(prompt.labels)


# ---- faults


GOOD = {"asks": '"choose"', "template": '"{query} {passage}"', "labels": '["Yes", "No"]'}
MANY = {"template": '"{query} {passages}"', "each": '"{label} {passage}"'}


def toml(**changes):
    """A sound file with changes; tables of translations come last."""
    said = {key: value for key, value in (GOOD | changes).items() if value is not None}
    lines = [f"{key} = {value}" for key, value in said.items() if not key.startswith("table_")]
    tables = [
        f"[{key.removeprefix('table_')}]\n{value}" for key, value in said.items() if key.startswith("table_")
    ]
    return "\n".join(lines + tables)


FAULTS = [
    ({"asks": '"chose"'}, "unknown `asks` in the prompt mine: 'chose'; did you mean choose"),
    ({"chat": '"sometimes"'}, "unknown `chat` in the prompt mine"),
    ({"asks": None}, "the prompt mine lacks asks"),
    ({"template": None}, "the prompt mine lacks template"),
    ({"temlpate": '"x"'}, "unknown key in the prompt mine: 'temlpate'; did you mean template"),
    (
        {"template": '"{query} {pasage}"'},
        "placeholder in `template` of the prompt mine: 'pasage'; did you mean passage",
    ),
    ({"template": '"{query} {}"'}, "unknown placeholder in `template`"),
    ({"template": '"{query} {passage"'}, "mine has a faulty `template`: "),
    ({"template": '"{query} {passage:>9}"'}, "{passage} takes no format"),
    ({"template": '"{query} {passage!r}"'}, "{passage} takes no format"),
    ({"template": '"{query}"'}, "lacks the placeholder {passage}, or {passages}; it needs one"),
    ({"template": '"{query} {passage} {passages}"'}, "{passage}, or {passages}; it needs one of them"),
    ({"template": '"{passage}"'}, "lacks the placeholder {query}"),
    ({"system": '"{query}"'}, "placeholder in `system`"),
    ({"template": "3"}, "`template` in the prompt mine must be a text, not 3"),
    ({"labels": None}, "fewer than two labels"),
    ({"labels": '["Yes"]'}, "fewer than two labels"),
    ({"labels": '["Yes", "Yes"]'}, "a label twice"),
    ({"labels": '["Yes", " "]'}, "an empty label"),
    (
        {"labels": "[1, 2]"},
        "`labels` in the prompt mine must be a list of texts, or a range as A..T or 1..20",
    ),
    ({"labels": '"A-T"'}, "labels in the prompt mine are a list, or a range as A..T or 1..20, not 'A-T'"),
    ({"labels": '"A..z"'}, "not 'A..z'"),
    ({"labels": '"T..A"'}, "not 'T..A'"),
    ({"labels": '"20..1"'}, "not '20..1'"),
    ({"labels": '"1..99999"'}, "not '1..99999'"),
    ({"labels": '"1..T"'}, "not '1..T'"),
    ({"values": "[1, 2, 3]"}, "has 3 values for 2 labels"),
    ({"values": '["1", "2"]'}, "`values` in the prompt mine must be a list of numbers"),
    ({"asks": '"likelihood"'}, "asks for a likelihood and has no target"),
    ({"asks": '"generate"', "labels": None}, "asks to generate and has no labels"),
    ({"template": '"{query} {passages}"'}, "needs `each` with {label} and {passage}"),
    (MANY | {"each": '"{passage}"'}, "needs `each` with {label} and {passage}"),
    (MANY | {"asks": '"score"'}, "asks for a score, which takes one {passage}, not {passages}"),
    ({"orders": '"both"'}, "shows one {passage}, which has no orders"),
    ({"asks": '"score"', "think": '"<think>"'}, "can think only before it chooses or generates"),
    ({"asks": '"likelihood"', "target": '"{query}"', "think": '"<think>"'}, "can think only before"),
    ({"thinking": "0"}, "thinks for at least 1 token"),
    ({"thinking": '"long"'}, "`thinking` in the prompt mine must be a whole number"),
    ({"instruction": '"Find it."'}, "has no place for an instruction"),
    ({"language": '"zho"'}, "unknown language of the prompt mine: 'zho' (known: document, eng, query)"),
    ({"table_zho": 'labels = ["是", "否", "都"]'}, "has other labels in [zho] than in English"),
    (
        {"table_zho": 'lables = ["是", "否"]'},
        "key in the prompt mine [zho]: 'lables'; did you mean labels",
    ),
    ({"table_zho": "values = [1, 2]"}, "unknown key in the prompt mine [zho]: 'values'"),
    ({"table_zho": 'template = "{query}"'}, "the prompt mine [zho] lacks the placeholder {passage}"),
    ({"table_zho": 'template = "{query} {psg}"'}, "of the prompt mine [zho]: 'psg'"),
    ({"table_zho": "template = 1"}, "`template` in the prompt mine [zho] must be a text"),
    ({"table_chines": 'template = "x"'}, "table [chines] of the prompt mine: unknown language"),
    ({"table_eng": 'template = "x"'}, "has a wording in eng and a table [eng]"),
    ({"table_zho": 'answer = "x"', "table_zh": 'answer = "y"'}, "has a wording in zho and a table [zh]"),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS)
def test_faulty_files_are_one_clear_line(changes, message):
    Prompt.parse(toml(), "mine")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Prompt.parse(toml(**changes), "mine")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350


def test_files_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(toml(**MANY, labels='"A..D"', table_zho='template = "{query}：{passages}"'), "utf-8")
    prompt = load_prompt(str(file))
    assert (prompt.name, prompt.most, prompt.labels) == ("mine", 4, tuple("ABCD"))
    assert (
        prompt.in_language("zho").message(QUERY, DOCS[:2]).user().startswith(QUERY.text + "：A text number 0")
    )
    with pytest.raises(InputError, match="there is no prompt file .*other.toml"):
        load_prompt(str(tmp_path / "other.toml"))
    file.write_bytes(b'asks = "\xff"')
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_prompt(str(file))
    file.write_text("asks = choose")
    with pytest.raises(InputError, match="the prompt mine is not TOML"):
        load_prompt(str(file))
    with pytest.raises(InputError, match="unknown prompt 'setwize'; did you mean setwise"):
        load_prompt("setwize")


# ---- settings


def test_settings_of_a_spec():
    yesno = load_prompt("yesno")
    assert configure_prompt(yesno) == yesno
    assert configure_prompt(yesno, language="Chinese", chat="never") == replace(
        yesno, language="zho", chat="never"
    )
    assert configure_prompt(yesno, language="document").language == "document"
    assert configure_prompt(load_prompt("setwise"), orders="both").orders == "both"
    assert configure_prompt(load_prompt("rank1"), thinking=7).thinking == 7
    assert configure_prompt(load_prompt("umbrela"), thinking=7).thinking == 7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yesno", {"instruction": "Find it."}, "no place for an instruction"),
        ("yesno", {"orders": "both"}, "which has no orders"),
        ("yesno", {"thinking": 9}, "does not think"),
        ("yesno", {"language": "swa"}, "unknown language of the prompt yesno: 'swa'; did you mean spa"),
        ("yesno", {"chat": "maybe"}, "unknown `chat`"),
        ("rank1", {"thinking": -1}, "at least 1 token"),
        ("setwise", {"orders": "all"}, "unknown `orders`"),
    ],
)
def test_settings_that_a_prompt_has_no_use_for(name, options, message):
    with pytest.raises(InputError, match=message):
        configure_prompt(load_prompt(name), **options)


def test_instructions_are_the_querys_the_settings_or_the_files():
    prompt = load_prompt("instruct")
    mine = configure_prompt(prompt, instruction="Refute it.", language="query")
    told = Item("q", "Q", lang="rus", meta={"instruction": "Confirm it."})
    assert "Find a passage that answers the query." in prompt.message(QUERY, DOCS[:1]).user()
    assert "Найти отрывок" in prompt.in_language("rus").message(QUERY, DOCS[:1]).user()
    assert "Задача: Refute it.\n" in mine.in_language("rus").message(QUERY, DOCS[:1]).user()
    assert "Задача: Confirm it.\n" in mine.in_language("rus").message(told, DOCS[:1]).user()


def test_the_language_of_the_prompt_is_fixed_or_that_of_query_or_documents():
    prompt = load_prompt("yesno")
    documents = [
        Item("1", "one", lang="zho"),
        Item("2", "two", lang="fas"),
        Item("3", "three", lang="swa"),
        Item("4", "4"),
    ]
    query = Item("q", "Q", lang="rus")
    opening = {"eng": "Passage:", "zho": "段落：", "fas": "متن:", "rus": "Отрывок:"}

    def asked(language, comparisons, of=prompt):
        judge, count = Sure(0.5, 0.5), Counter()
        configure_prompt(of, language=language).score(judge, comparisons, count)
        return [
            next(c for c, said in opening.items() if m.user().startswith(said)) for m in judge.asked
        ], count

    alone = [(query, [document]) for document in documents]
    assert asked("", alone) == (["eng"] * 4, {})
    assert asked("fas", alone) == (["fas"] * 4, {})
    assert asked("query", alone) == (["rus"] * 4, {})
    languages, count = asked("document", alone)
    assert sorted(languages) == ["eng", "eng", "fas", "zho"]
    assert count == {"prompt_not_in_swa": 1, "prompt_not_in_und": 1}
    languages, count = asked("document", [(query, documents[:2]), (query, documents[:1])])
    assert sorted(languages) == ["eng", "eng", "zho"]
    assert count == {"prompt_not_in_mul": 1}
    languages, count = asked("query", [(Item("q", "Q"), documents[:1])])
    assert (languages, count) == (["eng"], {"prompt_not_in_und": 1})


def test_scores_come_back_in_the_order_asked_whatever_the_languages():
    judge = Judge(prefers=lambda text: float(text.split()[-1]))
    prompt = Prompt(
        "p",
        "{passage}",
        asks="likelihood",
        target="{query}",
        language="document",
        words={"zho": {"template": "、{passage}"}},
    )
    documents = [Item(str(n), f"number {n}", lang=("zho", "eng", "rus")[n % 3]) for n in range(9)]
    count = Counter()
    scores = prompt.score(
        judge, [(QUERY, documents[:4]), (QUERY, [documents[5]]), (QUERY, documents[6:])], count
    )
    assert [each.tolist() for each in scores] == [[0, 1, 2, 3], [5], [6, 7, 8]]
    alone = prompt.score(judge, [(QUERY, [document]) for document in documents], count)
    assert [float(each[0]) for each in alone] == list(range(9))
    assert count == {"prompt_not_in_mul": 2, "prompt_not_in_rus": 4}


# ---- scores


def test_likelihood_is_that_of_the_query_in_its_own_words():
    judge = Judge(prefers=len)
    prompt = load_prompt("likelihood")
    (scores,) = prompt.score(judge, [(QUERY, DOCS[:3])])
    assert scores.tolist() == [len(doc.text) for doc in DOCS[:3]]
    assert judge.targets == [" " + QUERY.text] * 3
    with pytest.raises(InputError, match="likelihood of the query's text, and the query 'photo' has none"):
        prompt.score(judge, [(Item("photo", image=b"x"), DOCS[:1])])


def test_yes_or_no_is_their_log_odds():
    (scores,) = load_prompt("yesno").score(Sure(0.9, 0.1), [(QUERY, DOCS[:2])])
    np.testing.assert_allclose(scores, np.log(9))
    three = Prompt("p", "{query}{passage}", asks="choose", labels=("a", "b", "c"))
    (scores,) = three.score(Sure(0.5, 0.3, 0.2), [(QUERY, DOCS[:1])])
    np.testing.assert_allclose(scores, 0, atol=1e-12)
    (scores,) = load_prompt("yesno").score(Judge(prefers=lambda _: 0.0), [(QUERY, DOCS[:1])])
    assert np.isfinite(scores).all()


def test_grades_give_their_expected_value_and_the_likeliest():
    prompt = load_prompt("graded")
    judge = Sure(0.1, 0.2, 0.3, 0.4)
    (scores,) = prompt.score(judge, [(QUERY, DOCS[:2])])
    np.testing.assert_allclose(scores, 0.2 + 0.6 + 1.2)
    (grades,) = prompt.grades(judge, [(QUERY, DOCS[:2])], Counter())
    assert grades.tolist() == [3, 3]
    uneven = replace(prompt, labels=("low", "high"), values=(-1.0, 5.0))
    (scores,) = uneven.score(Sure(0.75, 0.25), [(QUERY, DOCS[:1])])
    np.testing.assert_allclose(scores, 0.5)
    with pytest.raises(InputError, match="the prompt yesno gives no grades"):
        load_prompt("yesno").grades(judge, [(QUERY, DOCS[:1])], Counter())


def test_generated_grades_and_those_that_cannot_be_read():
    prompt = load_prompt("umbrela")
    said = ["##final score: 2", "I cannot help with that.", "##final score: 9", "Its final score is ٣"]
    judge, count = Judge(says=[Completion(each, 5) for each in said]), Counter()
    (grades,) = prompt.grades(judge, [(QUERY, DOCS[:4])], count)
    np.testing.assert_array_equal(grades, [2, np.nan, np.nan, 3])
    assert count == {"refused": 1, "out_of_range": 1, "unreadable": 1, "foreign_digits": 1}
    assert judge.sampling == [{"max_new_tokens": 200}]
    judge = Judge(says=[Completion(each, 5) for each in said])
    (scores,) = prompt.score(judge, [(QUERY, DOCS[:4])])
    assert scores.tolist() == [2, 0, 0, 3]  # what did not say relevant counts as the lowest


def test_setwise_scores_are_log_probabilities_of_the_labels_shown():
    judge = Judge(prefers=lambda text: float(text.split()[2]))
    comparisons = [(QUERY, DOCS[:4]), (QUERY, [DOCS[3], DOCS[1]]), (QUERY, DOCS[:1])]
    scores = load_prompt("setwise").score(judge, comparisons)
    for (_, group), found in zip(comparisons, scores, strict=True):
        values = np.array([float(doc.text.split()[2]) for doc in group])
        np.testing.assert_allclose(found, values - np.logaddexp.reduce(values))
    assert judge.labels == [("A", "B", "C", "D")]  # no more than are shown
    texts = [message.user() for message in judge.asked]
    assert "from A to D." in texts[0]
    assert "from A to B." in texts[1]
    with pytest.raises(InputError, match="setwise shows at most 20 passages at once, not 21"):
        load_prompt("setwise").score(judge, [(QUERY, [*DOCS, DOCS[0]])])


@pytest.mark.parametrize("name", ["pairwise", "setwise", "first", "rank-r1"])
def test_both_orders_cancel_a_preference_for_a_place(name):
    prompt = replace(load_prompt(name), think="", orders="given")
    shown = DOCS[: min(prompt.most, 3)]
    (biased,) = prompt.score(Judge(), [(QUERY, shown)])
    assert biased.argmax() == 0
    assert np.ptp(biased) > 0.5
    judge = Judge()
    (even,) = replace(prompt, orders="both").score(judge, [(QUERY, shown)])
    np.testing.assert_allclose(even[0], even[-1])
    forwards, backwards = (
        [p.text for p in message.parts if isinstance(p, Passage)] for message in judge.asked
    )
    assert backwards == forwards[::-1]
    (fair,) = replace(prompt, orders="both").score(
        Judge(prefers=lambda text: float(text.split()[2])), [(QUERY, shown)]
    )
    assert fair.tolist() == sorted(fair)
    assert np.ptp(fair) > 0.5


def test_listwise_scores_follow_what_was_generated():
    prompt = load_prompt("listwise")
    says = [Completion(" [2] > [3] > [1]", 9), Completion("[2] > [1]", 5), Completion("no idea", 2)]
    judge, count = Judge(says=says), Counter()
    scores = prompt.score(judge, [(QUERY, DOCS[:3]), (QUERY, DOCS[:3]), (QUERY, DOCS[:2])], count)
    assert [np.argsort(-each).tolist() for each in scores] == [[1, 2, 0], [1, 0, 2], [0, 1]]
    assert count == {"missing": 1, "unreadable": 1}
    assert judge.sampling[0]["max_new_tokens"] >= 3 * len("[2] > ")
    assert all(message.answer == "Ranking:" for message in judge.asked)
    both = Judge(says=[Completion("[1] > [2]", 5), Completion("[1] > [2]", 5)])
    (scores,) = replace(prompt, orders="both").score(both, [(QUERY, DOCS[:2])])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", ["rank1", "rank-r1", "pairwise-think"])
def test_thinking_comes_before_the_choice(name):
    prompt = configure_prompt(load_prompt(name), thinking=50)
    shown = DOCS[: prompt.most]
    thoughts = [Completion("so it is</think>", 4), Completion("and so on and", 50, ended=False)]
    views = 2 if prompt.most == 1 or prompt.orders == "both" else 1
    comparisons = [(QUERY, DOCS[:2])] if prompt.most == 1 else [(QUERY, shown)]
    judge, count = Judge(says=thoughts[:views]), Counter()
    prompt.score(judge, comparisons, count)
    assert judge.sampling == [{"max_new_tokens": 50, "stop": ["</think>"]}]
    first, second = judge.asked[:views], judge.asked[views:]
    assert [message.answer for message in first] == [prompt.think] * views
    ends = ["so it is</think>", "and so on and</think>"][:views]
    assert [message.answer for message in second] == [prompt.think + end + prompt.answer for end in ends]
    assert [message.parts for message in second] == [message.parts for message in first]
    assert count == ({"thoughts_cut": 1} if views == 2 else {})


def test_thinking_comes_before_a_generated_ranking_too():
    prompt = load_prompt("listwise-think")
    judge = Judge(says=[Completion("[1] seems best</think>", 9), Completion("[2] > [1]", 5)])
    (scores,) = prompt.score(judge, [(QUERY, DOCS[:2])])
    assert scores.argmax() == 1
    assert [message.answer for message in judge.asked] == ["<think>\n", "<think>\n[1] seems best</think>\n\n"]
    assert judge.sampling == [{"max_new_tokens": 2048, "stop": ["</think>"]}, {"max_new_tokens": 28}]


def test_rank_r1_answers_in_its_tags():
    judge = Judge(says=[Completion("hm</think>", 2)])
    load_prompt("rank-r1").score(judge, [(QUERY, DOCS)])
    assert judge.asked[1].answer == "<think>hm</think>\n<answer>["
    assert judge.labels == [tuple(f"{n}]</answer>" for n in range(1, 21))]
    user = judge.asked[0].user()
    assert user.startswith(
        f'Given the query: "{QUERY.text}", which of the following documents is most relevant?\n[1] text'
    )
    assert "braces}\n[2] text" in user
    assert "braces}\nAfter completing the reasoning" in user


# ---- pictures


def test_pictures_are_shown_to_judges_that_see_them_and_once_only():
    photo, told = Item("p", image=b"photo"), Item("t", "a caption", image=b"told")
    query = Item("q", "which cat", image=b"query", lang="eng")
    for name in ("setwise", "listwise"):
        prompt = load_prompt(name)
        blind = prompt.message(query, [photo, told])
        assert blind.modalities == {"text"}
        assert not any(isinstance(part, Attachment) for part in blind.parts)
        message = prompt.message(query, [photo, told], BOTH)
        assert message.modalities == BOTH
        pictures = [part.content for part in message.parts if isinstance(part, Attachment)]
        assert pictures == [b"query", b"photo", b"told"]  # listwise says the query twice
        assert message.user() == blind.user()
    place = message.parts.index(Attachment("image", b"told"))
    assert message.parts[place - 1] == Passage("a caption")
    judge = Judge(sees=("text", "image"))
    load_prompt("yesno").score(judge, [(query, [photo])])
    assert judge.asked[0].modalities == BOTH


# ---- what judges can do


@pytest.mark.parametrize(
    ("name", "judge", "message"),
    [
        (
            "cross",
            Judge(can=("choose", "generate")),
            "fake cannot answer `score` questions \\(it can: choose, generate\\)",
        ),
        ("listwise", Judge(can=("choose",)), "cannot answer `generate` questions"),
        ("rank1", Judge(can=("choose",)), "fake cannot generate, and the prompt rank1 lets it think first"),
        ("rank-r1", Judge(chats=False), "fake has no chat template, and the prompt rank-r1 needs one"),
    ],
)
def test_judges_that_a_prompt_does_not_fit(name, judge, message):
    with pytest.raises(InputError, match=message):
        load_prompt(name).check_judge(judge)


@pytest.mark.parametrize("name", list_prompts())
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
