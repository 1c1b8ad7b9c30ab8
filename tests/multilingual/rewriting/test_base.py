"""What all rewriters have in common, and what each of the built-in ones searches for."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import BaseJudge
from crosslens.multilingual.judges.journal import Journal
from crosslens.multilingual.prompts import configure_wording
from crosslens.multilingual.rewriting.base import describe_rewriting
from crosslens.multilingual.rewriting.kept_texts import SharedJournal
from crosslens.multilingual.rewriting.methods import Decompose, Feedback, Hyde, Query2doc
from crosslens.multilingual.rewriting.plan import REWRITERS, choose_languages, load_rewriter, parse_rewriter
from crosslens.pipeline import watch
from crosslens.runs import Hit, Probe, Run
from stand_ins.table import table
from stand_ins.writing import SAYS, Writer

WRITER = "py:stand_ins.writing:Writer"
TEN = ("eng", "zho", "fas", "rus", "spa", "deu", "fra", "ara", "jpn", "kor")
QUERY = Item("q", "cat night", lang="eng")
QUERIES = (
    Item("q1", "how long do cats sleep", lang="eng"),
    Item("q2", "кошка ночью", lang="rus"),
    Item("q3", "the void", lang="eng"),
    Item("q4", "endless", lang="eng"),
    Item("photo", image=b"..."),
)
ANSWERS = {
    "how long": "<think>hm</think> Cats sleep all day.\n",
    "кошка": "Кошка спит днём.",
    "the void": "<think>I wonder",
    "endless": "It has begun well. And so on|",
}
PASSAGE = parse_rewriter(f"hyde@{WRITER}").prompt
ENG, RUS, ZHO = SAYS["English"], SAYS["Russian"], SAYS["Chinese"]
WRITTEN = {  # what each method makes of one answer in each of two languages, and which probes of the query it keeps
    "hyde": ([(QUERY.text, "query", 1, 0)], [(RUS, "document", 1, 0), (ZHO, "document", 1, 0)]),
    "query2doc": (
        [(QUERY.text, "query", 4, 0, "words")],
        [(f"cat night\n{RUS}", "query", 1, 0), (f"cat night\n{ZHO}", "query", 1, 0)],
    ),
    "keywords": (
        [(QUERY.text, "query", 5, 0)],
        [("Кошка спит весь день и охотится ночью", "query", 1, 0), ("猫整天都在睡觉, 晚上出去打猎", "query", 1, 0)],
    ),
    "question": ([], [(RUS, "query", 1, 0), (ZHO, "query", 1, 0)]),
    "decompose": ([(QUERY.text, "query", 1, -1)], [(RUS, "query", 1, 0), (ZHO, "query", 1, 1)]),
    "cot": ([(QUERY.text, "query", 5, 0)], [(RUS, "query", 1, 0), (ZHO, "query", 1, 0)]),
    "feedback": ([(QUERY.text, "query", 1, 0)], [(RUS, "document", 1, 0), (ZHO, "document", 1, 0)]),
}


class Found:
    """The documents of a first search."""

    def get(self, ids):
        return [Item(id, f"Text of {id}.", lang="rus") for id in ids]


SEARCHED = Run.of([QUERY]).ranking({"q": [(f"d{n}", 1.0 - n / 10) for n in range(5)]}, Found())


@pytest.fixture
def writer():
    judge = Writer()
    judge.answers = dict(ANSWERS)
    return judge


def show(probes):
    return [(each.item.text, *(each[1:] if each.only else each[1:4])) for each in probes]


@pytest.mark.parametrize("method", REWRITERS)
def test_each_method_is_used_as_its_paper_says_in_each_language(method):
    assert method in WRITTEN
    stage = load_rewriter(f"{method}@{WRITER}?lang=rus,zho")
    probes = stage(SEARCHED).probes["q"]
    own, texts = WRITTEN[method]
    assert show(probes) == own + texts
    assert [each.item.lang for each in probes] == ["eng"] * len(own) + ["rus", "zho"]
    assert "arXiv:" in stage.__doc__
    assert "arXiv:" in stage.wording.paper
    alone = replace(stage, weight=0.0)(SEARCHED).probes["q"]
    assert show(alone) == texts
    assert stage.fingerprint != replace(stage, languages=("rus",)).fingerprint


@table("method", REWRITERS)
def test_each_prompt_speaks_ten_languages_and_shows_what_it_must(method):
    prompt = parse_rewriter(f"{method}@{WRITER}").prompt
    assert {"eng", *prompt.words} == set(TEN)
    for code in TEN:
        words = prompt.in_language(code).request(QUERY, target="MARK", count="7", passages="READ").user()
        assert words.count("MARK") == words.count(QUERY.text) == 1
        assert ("7" in words) == (method == "decompose")
        assert ("READ" in words) == (method == "feedback")
        assert code == "eng" or "Write" not in words


def test_feedback_shows_the_first_results_to_the_model(writer):
    plan = parse_rewriter(f"feedback@{WRITER}?passages=2")
    stage = Feedback(writer, plan.prompt, passages=2)
    run = replace(SEARCHED, queries=(QUERY, QUERIES[1], QUERIES[2]))
    done = stage(run)
    (request,) = writer.requests  # the others were not found anything for
    assert "[1] Text of d0.\n\n[2] Text of d1.\n" in request
    assert "d2" not in request
    assert done.probes.keys() == {"q"}
    assert done.manifest.total("without_hits") == 2
    assert any("nothing was found that writer could read" in line for line in describe_rewriting(done.manifest))
    with pytest.raises(InputError, match="there has been no search: let it follow one"):
        stage([QUERY])
    with pytest.raises(InputError, match="passages must be at least 1"):
        replace(stage, passages=0)


def test_a_query_keeps_its_id_its_words_and_its_hits(writer):
    stage = Hyde(writer, PASSAGE)
    run = Run.of(QUERIES).ranking({"q1": [("d", 1.0)]})
    seen = []
    with watch(seen.append):
        done = stage(run)
    assert done.queries == QUERIES
    assert done["q1"] == (Hit("d", 1.0),)
    assert done.probes == {
        "q1": (Probe(QUERIES[0], "query"), Probe(Item("q1/0", "Cats sleep all day.", lang="eng"), "document")),
        "q2": (Probe(QUERIES[1], "query"), Probe(Item("q2/0", "Кошка спит днём.", lang="rus"), "document")),
        "q4": (Probe(QUERIES[3], "query"), Probe(Item("q4/0", "It has begun well.", lang="eng"), "document")),
    }
    assert writer.seen == [(4, 0)]  # one batch
    assert seen[-1] == 4
    (record,) = done.manifest.records
    faults = {"unseen": 1, "unclosed_thought": 1, "unwritten": 1, "cut_answers": 1}
    assert record.counts == {**faults, "rewritten": 3, "calls": 4, "generated_tokens": 12}
    assert record.stage == "rewrite(hyde@writer)"
    assert record.models == {"writer": "1"}
    assert len(describe_rewriting(done.manifest)) == 4


def test_what_is_in_another_language_is_left_out_and_said(writer):
    writer.answers["cats"] = "The cats of the whole house sleep through the day and hunt at night."
    stage = Hyde(writer, PASSAGE, ("query", "rus"))
    done = stage([Item("q", "our cats", lang="eng")])
    assert [each.item.lang for each in done.probes["q"]] == ["eng", "eng"]
    assert done.manifest.total("other_language") == 1
    assert any("answers that were not used: 1 of " in line for line in describe_rewriting(done.manifest))
    assert any("other language 1" in line for line in describe_rewriting(done.manifest))


def test_requests_are_worded_in_the_language_that_is_chosen(writer):
    Hyde(writer, PASSAGE, ("zho",))(QUERIES[:1])
    assert "请写" in writer.requests[-1]
    cases = (
        ("eng", "zho", "in Chinese"),
        ("query", "zho", "Напишите"),
        ("document", "zho", "请写"),
        ("rus", "zho", "китайский"),
    )
    for language, target, words in cases:
        Hyde(writer, configure_wording(PASSAGE, language=language), (target,))(QUERIES[1:2])
        assert words in writer.requests[-1]
    run = Hyde(writer, configure_wording(PASSAGE, language="query"))([replace(QUERIES[0], lang="vie")])
    assert run.manifest.total("prompt_not_in_vie") == 1
    assert "the prompt has no vie words: 1 texts were asked for in English" in describe_rewriting(run.manifest)


def test_several_texts_are_batches_that_differ_by_their_seed(writer):
    stage = Hyde(writer, PASSAGE, n=3, seed=5)
    assert stage.temperature == 0.7
    done = stage(QUERIES[:1])
    assert writer.seen == [(1, 5), (1, 6), (1, 7)]
    assert [each.role for each in done.probes["q1"]] == ["query", "document", "document", "document"]


def test_questions_are_parted_and_no_more_than_asked_for(writer):
    writer.answers["cat night"] = '1. "Where do cats sleep?"\n2. Where do cats sleep?\n- When do they hunt?\n3. Why?\n'
    prompt = parse_rewriter(f"decompose@{WRITER}").prompt
    assert show(Decompose(writer, prompt, n=2, weight=2.0)([QUERY]).probes["q"]) == [
        ("cat night", "query", 1, -1),
        ("cat night", "query", 1, -2),
        ("Where do cats sleep?", "query", 1, 0),
        ("When do they hunt?", "query", 1, 1),
    ]


def test_pictures_stay_in_the_query(writer):
    query = Item("q", "cat", image=b"...", lang="eng")
    own, joined = Query2doc(writer, PASSAGE)([query]).probes["q"]
    assert own.item is query
    assert joined.item.text == f"cat\n{ENG}"
    assert joined.item.image is None


def test_languages_are_those_of_the_documents_by_their_numbers():
    held = {"rus": 400, "zho": 590, "": 50, "vie": 9, "deu": 10}
    assert choose_languages("document", lambda: held, "x") == ("zho", "rus")
    assert choose_languages("all", lambda: held, "x") == ("query", "zho", "rus")
    assert choose_languages("deu,query", dict, "x") == ("deu", "query")
    with pytest.raises(
        InputError, match="hyde@x: the languages of the documents are not known: name them, as in rus,zho"
    ):
        choose_languages("document", lambda: {"": 5}, "hyde@x")


def test_what_is_asked_for_twice_in_a_language_is_written_once(writer):
    Hyde(writer, PASSAGE, ("query", "rus", "eng"))(QUERIES[:2])
    assert writer.seen == [(4, 0)]  # English and Russian for the one, Russian and English for the other


def test_a_full_disk_costs_what_would_be_kept_and_no_more(writer, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise InputError("cannot write the journal: no space")

    monkeypatch.setattr(Journal, "put", fail)
    done = Hyde(writer, PASSAGE, kept=tmp_path / "texts" / "x.journal")(QUERIES[:2])
    assert set(done.probes) == {"q1", "q2"}
    assert caplog.text.count("no space: what is written from here on is not kept") == 1


@table("value", ["abc", [1], {"a": 1}, [5, 3, True], ["x", 3, True, 4]])
def test_what_is_no_text_in_the_cache_is_written_again(writer, tmp_path, value):
    stage = Hyde(writer, PASSAGE, kept=tmp_path / "texts.journal")
    wanted = stage([QUERY]).probes
    row = json.loads(stage.kept.read_text())
    stage.kept.write_text(json.dumps({"key": row["key"], "value": value, "counts": {}}) + "\n")
    assert stage([QUERY]).probes == wanted


def test_two_processes_may_keep_texts_at_once(tmp_path):
    path = tmp_path / "texts.journal"
    with closing(SharedJournal(path)) as one, closing(SharedJournal(path)) as other:
        one.put("a", "x" * 100_000, {})
        other.put("b", 2, {})
        one.put("c", 3, {})
    with closing(SharedJournal(path)) as both:
        assert set(both.found) == {"a", "b", "c"}


def test_what_it_computes_is_in_its_fingerprint(writer):
    stages = [
        Hyde(writer, PASSAGE),
        Query2doc(writer, PASSAGE),
        Hyde(writer, PASSAGE, seed=1),
        Hyde(writer, configure_wording(PASSAGE, language="query")),
        Hyde(writer, PASSAGE, weight=0.5),
        Hyde(writer, PASSAGE, n=2),
    ]
    assert len({stage.fingerprint for stage in stages}) == len(stages)
    assert stages[0].fingerprint == Hyde(Writer(), PASSAGE, temperature=0.0).fingerprint


@table(
    ("spec", "message"),
    [
        (f"hyed@{WRITER}", "unknown method of rewriting 'hyed'; did you mean hyde?"),
        ("hyde", "names no model; write method@family:checkpoint, as in hyde@"),
        (f"hyde@{WRITER}?lang=xx9", "unknown language 'xx9'"),
        (f"hyde@{WRITER}?language=vie", "unknown language of the prompt passage: 'vie' (known: ara, deu, "),
        (f"hyde@{WRITER}?samples=2", "unknown option of hyde@py:stand_ins.writing:Writer 'samples'"),
        (f"hyde@{WRITER}?kept=x", "'kept'"),
        (f"hyde@{WRITER}?n=0", "n must be at least 1, not 0"),
        (f"hyde@{WRITER}?n=2&temperature=0", "2 texts at temperature 0 are one and the same"),
        (f"hyde@{WRITER}?temperature=-1", "temperature must be 0 or more, not -1"),
        (f"hyde@{WRITER}?weight=nan", "weight must be from 0 to 1,000,000, not nan"),
        (f"hyde@{WRITER}?weight=1e7", "weight must be from 0 to 1,000,000, not 1e+07"),
        (f"decompose@{WRITER}?weight=0.5", "a whole number up to 100, not 0.5"),
        (f"decompose@{WRITER}?weight=1e9", "a whole number up to 100, not 1e+09"),
        (f"hyde@{WRITER}?lang=all,rus", "lang=all,rus: all stands alone, or codes, as in rus,zho"),
        (f"hyde@{WRITER}?lang=document", "the languages of the documents are not known"),
        (f"hyde:x@{WRITER}", "hyde:x: only a .toml file may follow"),
        (f"./mine.toml@{WRITER}", "write how it is used before it, as in hyde:./mine.toml@"),
        (f"hyde:./mine.toml@{WRITER}", "there is no prompt file mine.toml"),
        (f"py:stand_ins.writing:Writer@{WRITER}", "is no Rewriter of crosslens"),
    ],
)
def test_mistakes_are_one_line(spec, message):
    with pytest.raises(InputError) as error:
        load_rewriter(spec)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_judge_that_cannot_write_or_has_no_template_is_refused(tiny_judge):
    with pytest.raises(InputError, match="silent cannot answer `generate`"):
        Hyde(BaseJudge("silent", "1"), PASSAGE)
    with pytest.raises(InputError, match="has no chat template, and the prompt passage needs one; take an instr"):
        load_rewriter(f"hyde@hf:{tiny_judge}?chat=always")
    stage = load_rewriter(f"hyde@hf:{tiny_judge}?max_new_tokens=4")
    assert len(stage([QUERY]).queries) == 1
    with pytest.raises(InputError, match=r"a prompt of \d+ tokens exceeds the context of \d+; shorten the query"):
        stage([replace(QUERY, text="cat " * 20_000)])


def test_a_longest_text_that_the_context_has_no_room_for_is_refused_before_any_is_written(tiny_judge):
    """As long as the context, or so long that it does not fit beside the longest of the requests."""
    context = load_rewriter(f"hyde@hf:{tiny_judge}").judge.context
    long = Item("long", "cat " * 80, lang="eng")
    for longest, queries in ((context, [QUERY]), (context - 100, [QUERY, long])):
        stage = load_rewriter(f"hyde@hf:{tiny_judge}?max_new_tokens={longest}")
        before = stage.judge.usage["generated_tokens"]  # of a judge that others may have asked
        with pytest.raises(InputError, match=rf"its context of {context} tokens is too short .*; lower max_new_tokens"):
            stage(queries)
        assert stage.judge.usage["generated_tokens"] == before


def test_a_prompt_of_ones_own_words_a_method(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('template = "Say in {target} what {query} means: {nothing}"')
    with pytest.raises(InputError, match="unknown placeholder in `template` of the prompt mine: 'nothing'"):
        parse_rewriter(f"hyde:{file}@{WRITER}")
    file.write_text('template = "Say in {target} what {query} means."\n[rus]\ntemplate = "Язык: {target}. {query}"')
    assert parse_rewriter(f"hyde:{file}@{WRITER}?language=rus").prompt.language == "rus"
    stage = load_rewriter(f"hyde:{file}@{WRITER}?lang=rus")
    assert show(stage([QUERY]).probes["q"])[1] == (RUS, "document", 1, 0)
    assert stage.judge.requests == ["Say in Russian what cat night means."]
