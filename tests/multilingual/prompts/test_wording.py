"""Wordings as TOML, faults in them as one clear line, and what a SPEC sets in them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.prompts import Prompt, configure_prompt, load_prompt
from stand_ins.prompted import DOCS, QUERY, Sure
from stand_ins.table import table

GOOD = {"asks": '"choose"', "template": '"{query} {passage}"', "labels": '["Yes", "No"]'}


MANY = {"template": '"{query} {passages}"', "each": '"{label} {passage}"'}


def toml(**changes):
    """A sound file with changes; tables of translations come last."""
    said = {key: value for key, value in (GOOD | changes).items() if value is not None}
    lines = [f"{key} = {value}" for key, value in said.items() if not key.startswith("table_")]
    tables = [f"[{key.removeprefix('table_')}]\n{value}" for key, value in said.items() if key.startswith("table_")]
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
    ({"labels": "[1, 2]"}, "`labels` in the prompt mine must be a list of texts, or a range as A..T or 1..20"),
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
    ({"table_zho": 'lables = ["是", "否"]'}, "key in the prompt mine [zho]: 'lables'; did you mean labels"),
    ({"table_zho": "values = [1, 2]"}, "unknown key in the prompt mine [zho]: 'values'"),
    ({"table_zho": 'template = "{query}"'}, "the prompt mine [zho] lacks the placeholder {passage}"),
    ({"table_zho": 'template = "{query} {psg}"'}, "of the prompt mine [zho]: 'psg'"),
    ({"table_zho": "template = 1"}, "`template` in the prompt mine [zho] must be a text"),
    ({"table_chines": 'template = "x"'}, "table [chines] of the prompt mine: unknown language"),
    ({"table_eng": 'template = "x"'}, "has a wording in eng and a table [eng]"),
    ({"table_zho": 'answer = "x"', "table_zh": 'answer = "y"'}, "has a wording in zho and a table [zh]"),
]


@table(("changes", "message"), FAULTS)
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
    assert prompt.in_language("zho").message(QUERY, DOCS[:2]).user().startswith(QUERY.text + "：A text number 0")
    with pytest.raises(InputError, match="there is no prompt file .*other.toml"):
        load_prompt(str(tmp_path / "other.toml"))
    file.write_bytes(b'asks = "\xff"')
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_prompt(str(file))
    file.write_text("asks = choose")
    with pytest.raises(InputError, match="the prompt mine: not TOML"):
        load_prompt(str(file))
    with pytest.raises(InputError, match="unknown prompt 'setwize'; did you mean setwise"):
        load_prompt("setwize")


def test_settings_of_a_spec():
    yesno = load_prompt("yesno")
    assert configure_prompt(yesno) == yesno
    assert configure_prompt(yesno, language="Chinese", chat="never") == replace(yesno, language="zho", chat="never")
    assert configure_prompt(yesno, language="document").language == "document"
    assert configure_prompt(load_prompt("setwise"), orders="both").orders == "both"
    assert configure_prompt(load_prompt("rank1"), thinking=7).thinking == 7
    assert configure_prompt(load_prompt("umbrela"), thinking=7).thinking == 7


@table(
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
        return [next(c for c, said in opening.items() if m.user().startswith(said)) for m in judge.asked], count

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
