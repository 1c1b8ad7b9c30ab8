"""The Rerank stage against a judge that knows the answer; SPECs; the journal; `rank`."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from crosslens import rank
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.judges.mass import count_mass, read_mass
from crosslens.multilingual.judges.messages import Passage
from crosslens.multilingual.prompts import Prompt
from crosslens.multilingual.reranking.plackett import Plackett
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.multilingual.reranking.rerank import Rerank, describe_judging
from crosslens.multilingual.reranking.sorters import Ask, Bubblesort, Full, Heapsort, Pointwise, Tournament, Window
from crosslens.runs import Hit, Run
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table

DOCS = {
    "cat": Item("cat", "The cat sleeps all day and hunts at night. " * 3, lang="eng"),
    "chat": Item("chat", "Le chat dort toute la journée.", lang="fra"),
    "mao": Item("mao", "猫整天睡觉，晚上捕猎。", lang="zho"),
    "gorbe": Item("gorbe", "گربه تمام روز می‌خوابد.", lang="fas"),
    "photo": Item("photo", image=b"a picture"),
}
QUERIES = (
    Item("q1", "how long do cats sleep", lang="eng"),
    Item("q2", "кошка ночью", lang="rus"),
    Item("q3", "x", lang="deu"),
)


class Held:
    def get(self, ids):
        return [DOCS[each] for each in ids]


def first_stage(queries=QUERIES, ids=tuple(DOCS)):
    hits = {query.id: tuple(Hit(each, 1.0 - 0.1 * rank) for rank, each in enumerate(ids)) for query in queries}
    return Run(tuple(queries), hits, docs=Held())


class Oracle:
    """Knows how relevant each document is."""

    name, revision, fingerprint = "oracle", "1", "oracle"
    modalities, can = frozenset({"text"}), frozenset({"likelihood", "choose", "generate"})
    chats, appetite = False, 1024

    def __init__(self, truth, dies_after=None):
        self.truth, self.usage, self.dies_after = truth, Counter(), dies_after

    def said(self, prompts):
        if self.dies_after is not None and self.usage["calls"] + len(prompts) > self.dies_after:
            raise InputError("the server is dead")
        self.usage["calls"] += len(prompts)
        return [[self.truth[part.text] for part in m.parts if isinstance(part, Passage)] for m in prompts]

    def likelihood(self, prompts, targets):
        return np.array([values[0] for values in self.said(prompts)])

    def choose(self, prompts, labels):
        rows = np.full((len(prompts), len(labels)), -9.0)
        for row, values in zip(rows, self.said(prompts), strict=True):
            row[: len(values)] = values
        return rows

    def generate(self, prompts, **sampling):
        orders = [np.argsort([-value for value in values]) for values in self.said(prompts)]
        return [Completion(" > ".join(f"[{n + 1}]" for n in order), 5) for order in orders]


PROMPT = Prompt("test", "{passage}", asks="likelihood", target=" {query}", chat="never")
SETS = Prompt(
    "sets",
    "{query}\n{passages}",
    asks="choose",
    each="{label} {passage}\n",
    labels=tuple("ABCDEFGHIJKLMNOPQRST"),
    sort="heapsort",
)
LISTS = Prompt(
    "lists",
    "{query}\n{passages}",
    asks="generate",
    each="[{label}] {passage}\n",
    labels=tuple(map(str, range(1, 21))),
    sort="window",
)
TRUTH = {doc.text.strip(): score for doc, score in zip(list(DOCS.values())[:4], (0.1, 0.9, 0.4, 0.6), strict=True)}


def test_all_queries_are_judged_in_one_round_and_photos_keep_their_ranks():
    judge = Oracle(TRUTH)
    run = first_stage(ids=("cat", "photo", "chat", "mao", "gorbe"))
    done = Rerank(judge, PROMPT, unseen="keep")(run)
    for _, hits in done:
        assert [hit.id for hit in hits] == ["chat", "photo", "gorbe", "mao", "cat"]
        assert [round(hit.score, 6) for hit in hits] == [0.9, 0.9, 0.6, 0.4, 0.1]
        scores = [hit.score for hit in hits]
        assert scores == sorted(set(scores), reverse=True)
    assert judge.usage == {"calls": 12}
    assert done.manifest.total("rounds") == 1
    assert done.manifest.total("unseen") == 3
    assert done.manifest.total("calls") == 12
    assert done.manifest.records[-1].models == {"oracle": "1"}


def test_candidates_below_depth_stay_below_in_their_order():
    done = Rerank(Oracle(TRUTH), PROMPT, depth=2, k=2)(first_stage(ids=("cat", "chat", "gorbe", "mao")))
    assert [hit.id for hit in done["q1"]] == ["chat", "cat", "gorbe", "mao"]


def test_photos_are_refused_before_any_work_unless_kept():
    judge = Oracle(TRUTH)
    with pytest.raises(InputError, match="reads text only and cannot judge 3 of the candidates"):
        Rerank(judge, PROMPT)(first_stage())
    assert not judge.usage
    photo_query = (Item("q", image=b"a picture"),)
    done = Rerank(judge, PROMPT, unseen="keep")(first_stage(photo_query))
    assert done["q"] == first_stage(photo_query)["q"]
    assert not judge.usage


@given(alpha=st.floats(0, 1), order=st.permutations(["cat", "chat", "mao", "gorbe", "photo"]))
@settings(max_examples=50)
def test_fusion_is_the_weighted_sum_of_z_scores_and_a_permutation(alpha, order):
    run = first_stage(QUERIES[:1], tuple(order))
    done = Rerank(Oracle(TRUTH), PROMPT, alpha=alpha, unseen="keep")(run)
    assert sorted(hit.id for hit in done["q1"]) == sorted(order)
    seen = [each for each in order if each != "photo"]
    first = np.array([1.0 - 0.1 * order.index(each) for each in seen])
    said = np.array([TRUTH[DOCS[each].text.strip()] for each in seen])
    z = alpha * (said - said.mean()) / said.std() + (1 - alpha) * (first - first.mean()) / first.std()
    if len(set(z.round(9))) == len(z):
        expected = [seen[i] for i in np.argsort(-z)]
        assert [hit.id for hit in done["q1"] if hit.id != "photo"] == expected


def test_a_judge_that_says_nan_or_always_the_same_is_an_error():
    with pytest.raises(InputError, match=r"not finite for query 'q1' and document 'cat'"):
        Rerank(Oracle(TRUTH | {DOCS["cat"].text.strip(): np.nan}), PROMPT, unseen="keep")(first_stage())
    with pytest.raises(InputError, match="the score 0.5: it does not follow the prompt test"):
        Rerank(Oracle(dict.fromkeys(TRUTH, 0.5)), PROMPT, unseen="keep")(first_stage())


class Many:
    """Sixty documents, and their truth."""

    items: ClassVar = {f"d{n}": Item(f"d{n}", f"text number {n}") for n in range(60)}
    truth: ClassVar = {item.text: float((n * 37) % 61) / 7 for n, item in enumerate(items.values())}

    def get(self, ids):
        return [self.items[each] for each in ids]

    def best(self, n):
        return sorted(self.items, key=lambda each: -self.truth[self.items[each].text])[:n]


def many(queries=5):
    hits = {f"q{n}": tuple(Hit(f"d{(n + m) % 60}", -float(m)) for m in range(60)) for n in range(queries)}
    return Run(tuple(Item(f"q{n}", f"query {n}") for n in range(queries)), hits, docs=Many())


METHODS = [
    (PROMPT, Pointwise()),
    (SETS, Heapsort()),
    (SETS, Bubblesort()),
    (replace(SETS, orders="both"), Heapsort(arity=5)),
    (replace(SETS, orders="rotations"), Tournament(arity=3)),
    (SETS, Window()),
    (SETS, Plackett()),
    (LISTS, Window()),
    (replace(SETS, labels=SETS.labels[:2], orders="both"), Heapsort(arity=2, shown=2)),
]


@pytest.mark.parametrize(("prompt", "sort"), METHODS, ids=lambda each: getattr(each, "name", type(each).__name__))
def test_every_method_finds_the_best_of_all_queries_in_few_rounds(prompt, sort):
    judge = Oracle(Many.truth)
    done = Rerank(judge, prompt, sort, depth=60, k=10)(many())
    for query, hits in done:
        assert [hit.id for hit in hits][:10] == Many().best(10), query
        assert sorted(hit.id for hit in hits) == sorted(Many.items)
    alone = Oracle(Many.truth)
    single = Rerank(alone, prompt, sort, depth=60, k=10)(many(1))
    assert done["q0"] == single["q0"]
    assert done.manifest.total("rounds") < 3 * single.manifest.total("rounds")
    assert done.manifest.total("calls") > 4 * single.manifest.total("calls")


@pytest.mark.parametrize(
    ("size", "orders", "shown"), [(2, "both", 2), (2, "rotations", 2), (3, "rotations", 3), (3, "both", 2)]
)
def test_what_has_been_asked_in_all_its_orders_is_not_asked_again(size, orders, shown):
    """With 7 candidates there are few sets, and the budget is enough for turning them; `shown`: in so many orders."""
    asked = Counter()

    class Errs(Oracle):
        def said(self, prompts):
            for message in prompts:
                asked[frozenset(part.text for part in message.parts if isinstance(part, Passage))] += 1
            noise = np.random.default_rng(sum(asked.values()))
            return [noise.normal(size=len(values)) for values in super().said(prompts)]

    prompt = replace(SETS, labels=SETS.labels[:size], orders=orders)
    Rerank(Errs(Many.truth), prompt, Plackett(arity=size, calls=40), depth=7, k=7)(many(1))
    once = set(asked.values()) == {shown}
    assert once == (orders == "rotations" or size == 2)


@pytest.mark.parametrize(("orders", "calls"), [("given", 1), ("both", 2), ("rotations", 7)])
def test_a_set_costs_a_call_for_each_order_it_is_shown_in(orders, calls):
    done = Rerank(Oracle(Many.truth), replace(SETS, orders=orders), Full(), depth=7, k=7)(many(1))
    assert done.manifest.total("calls") == calls


def test_a_cascade_sorts_what_the_stage_before_kept():
    judge = Oracle(Many.truth)
    first, second = Rerank(judge, PROMPT, depth=60), Rerank(judge, SETS, Heapsort(), depth=20, k=5)
    done = (first % 20 >> second)(many(2))
    assert [hit.id for hit in done["q1"]][:5] == Many().best(5)
    assert len(done["q1"]) == 20
    assert [record.stage.partition("(")[0] for record in done.manifest.records] == ["rerank", "% 20", "rerank"]


@pytest.mark.parametrize(
    ("fuse", "expected"), [("rrf", ["d1", "d0", "d2"]), ("linear", ["d1", "d2", "d0"]), ("zscore", ["d1", "d0", "d2"])]
)
def test_each_way_of_fusing(fuse, expected):
    truth = {"text number 0": -5.0, "text number 1": 10.0, "text number 2": 2.0}
    run = Run((Item("q", "query"),), {"q": (Hit("d0", 3.0), Hit("d1", 2.0), Hit("d2", 0.0))}, docs=Many())
    done = Rerank(Oracle(truth), PROMPT, depth=3, k=3, alpha=0.5, fuse=fuse)(run)
    assert [hit.id for hit in done["q"]] == expected


@pytest.mark.parametrize(("prompt", "sort"), METHODS[:3], ids=["pointwise", "heapsort", "bubblesort"])
def test_a_killed_rerank_goes_on_with_the_queries_that_are_left(prompt, sort, tmp_path):
    whole = Oracle(Many.truth)
    expected = Rerank(whole, prompt, sort, depth=60)(many())
    journal = tmp_path / "run.journal"
    dying = Oracle(Many.truth, dies_after=int(whole.usage["calls"] * 0.7))
    with pytest.raises(InputError, match="the server is dead") as stopped:
        Rerank(dying, prompt, sort, depth=60, journal=journal)(many())
    calls = dying.usage["calls"]
    assert calls > whole.usage["calls"] * 0.64  # it is asked for a 20th of the work at a time
    (note,) = stopped.value.__notes__
    finished = calls // 60 if sort == Pointwise() else 0
    assert note == f"kept: {finished} of 5 queries are finished ({calls} answers in all)"
    assert journal.read_text().count("\n") == calls
    with journal.open("a") as out:
        out.write('{"key": "cut sho')  # as a kill in the middle of a write leaves it
    again = Oracle(Many.truth)
    done = Rerank(again, prompt, sort, depth=60, journal=journal)(many())
    assert done.hits == expected.hits
    counts = dict(done.manifest.records[-1].counts)
    assert counts.pop("resumed") == calls
    assert counts == expected.manifest.records[-1].counts
    assert again.usage["calls"] == whole.usage["calls"] - calls
    third = Oracle(Many.truth)
    assert Rerank(third, prompt, sort, depth=60, journal=journal)(many()).hits == expected.hits
    assert not third.usage
    other = Oracle(Many.truth)
    other.fingerprint = "other"  # another judge is asked again
    assert Rerank(other, prompt, sort, depth=60, journal=journal)(many()).manifest.total("resumed") == 0


@pytest.mark.parametrize("mass", [0.3, 0.8])
def test_a_judge_that_hardly_says_a_label_is_told_of(mass):
    class Rambling(Oracle):
        def choose(self, prompts, labels):
            for each in prompts[:: 1 if mass < 0.5 else 2]:
                count_mass(self.usage, each.language, mass)
            return super().choose(prompts, labels)

    prompt = replace(SETS, language="document", words={"fra": {"each": "{label} {passage} !\n"}})
    run = Run(QUERIES[:1], {"q1": tuple(Hit(each, -n) for n, each in enumerate(["cat", "mao", "chat"]))}, docs=Held())
    done = Rerank(Rambling(TRUTH), prompt, Full(), depth=3, k=3)(run)
    french = Rerank(Rambling(TRUTH), replace(prompt, language="fra"), Full(), depth=3, k=3)(run)
    lines = [line for each in (done, french) for line in describe_judging(each.manifest) if "hardly" in line]
    assert (len(lines) == 2) == (mass < 0.5)
    for line, language in zip(lines, ("eng", "fra"), strict=False):
        assert f"oracle hardly answers the prompt sets:full in {language}: its labels have a probability of 0.3" in line
    assert read_mass(done.manifest.records[-1].counts) == {"eng": (1, pytest.approx(mass))}


def test_garbage_answers_give_a_permutation_and_are_counted():
    class Babbling(Oracle):
        def generate(self, prompts, **sampling):
            return [Completion("", 0) if n % 2 else Completion("I'm sorry, I cannot", 5) for n in range(len(prompts))]

    done = Rerank(Babbling({}), LISTS, Window(), depth=60)(many(3))
    for query, hits in done:
        assert [hit.id for hit in hits] == [hit.id for hit in many(3)[query.id]]
    assert done.manifest.total("refused") > 0
    assert done.manifest.total("empty") > 0
    assert any("there were faults" in line for line in describe_judging(done.manifest))


def by_halves(hits, k):
    middle = len(hits) // 2
    (first, second) = yield Ask((tuple(hits[:middle]), tuple(hits[middle:])))
    return [hits[n] for n in np.argsort(-np.concatenate([first, second]), kind="stable")]


def test_a_sorter_of_ones_own_is_a_function_and_the_prompt_must_take_its_groups():
    done = Rerank(Oracle(Many.truth), SETS, by_halves, depth=20)(many(2))
    assert [hit.score for hit in done["q0"][:20]] == list(range(20, 0, -1))  # not those of the first stage
    assert sorted(hit.id for hit in done["q0"][:20]) == sorted(hit.id for hit in many()["q0"][:20])
    with pytest.raises(InputError, match="30 passages at once are more than the 20 labels of the prompt sets"):
        Rerank(Oracle(Many.truth), SETS, by_halves, depth=60)(many(2))


@table(
    ("prompt", "sort", "message"),
    [
        (PROMPT, Heapsort(), "shows one passage at a time: sort it pointwise, not by heapsort"),
        (SETS, Pointwise(), "compares passages: sort it by heapsort, not pointwise"),
        (SETS, Window(window=30), "window shows 30 passages at once, and the prompt sets has 20 labels"),
        (SETS, Heapsort(arity=20), "heapsort shows 21 passages"),
        (Prompt("p", "{query}{seam}{passage}", asks="score"), Pointwise(), "cannot answer `score` questions"),
        (replace(PROMPT, chat="always"), Pointwise(), "no chat template"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_before_any_work(prompt, sort, message):
    with pytest.raises(InputError, match=message):
        Rerank(Oracle({}), prompt, sort)


def test_too_many_passages_for_the_labels_of_a_full_list():
    with pytest.raises(InputError, match="60 passages at once are more than the 20 labels"):
        Rerank(Oracle(Many.truth), SETS, Full(), depth=60)(many(1))


def test_rank_sorts_texts_without_an_index(tiny_judge):
    texts = ["Le chat dort toute la journée.", "猫整天睡觉，晚上捕猎。", "The cat sleeps all day."]
    spec = f"likelihood@hf:{tiny_judge}?dtype=float32&alpha=0.3"
    hits = rank("how long do cats sleep", texts, spec, device="cpu")
    assert sorted(hit.id for hit in hits) == ["0", "1", "2"]
    again = rank("how long do cats sleep", [Item(f"d{n}", text) for n, text in enumerate(texts)], spec, device="cpu")
    assert [f"d{hit.id}" for hit in hits] == [hit.id for hit in again]
    stage = replace(load_reranker(spec, device="cpu"), alpha=1.0)
    assert rank("how long do cats sleep", texts, stage) == hits
    assert rank("nothing", [], spec, device="cpu") == []
    assert all(hit.text is hit.item.text is texts[int(hit.id)] for hit in hits)
    for one in ("a cat", {"text": "a cat", "lang": "eng"}, Item("0", "a cat")):
        assert [(hit.id, hit.text) for hit in rank("cats", one, stage)] == [("0", "a cat")]
    assert rank({"text": "cats"}, [("x", "a cat")], stage)[0].item == Item("x", "a cat")
    for wrong in (b"x", 3, None, [3], [None], ["a", b"b"]):
        with pytest.raises(InputError, match="a document is text, an Item or a dictionary"):
            rank("x", wrong, stage)
    for wrong in (b"x", 3, None, ["x"]):
        with pytest.raises(InputError, match="rank takes one query, as text or an Item, and not"):
            rank(wrong, ["a"], stage)
    with pytest.raises(InputError, match="the same id"):
        rank("x", [Item("a", "b"), Item("a", "c")], spec, device="cpu")


class Picky:
    """A judge in a file of its own: it likes short passages."""

    name = revision = fingerprint = "picky"
    modalities, can = frozenset({"text"}), frozenset({"score"})
    chats, appetite = False, 10

    def __init__(self, weight):
        self.weight, self.usage = weight, Counter()

    def score(self, prompts):
        return np.array([-self.weight * len(prompt.plain()) for prompt in prompts])


def open_picky(checkpoint, *, device="auto", trust_remote_code=False, weight: float = 1.0):
    return Picky(weight)


def test_a_judge_of_ones_own_costs_a_function(monkeypatch):
    monkeypatch.setitem(sys.modules, "picky", SimpleNamespace(open_picky=open_picky))
    stage = load_reranker("cross@py:picky:open_picky?weight=2&depth=5")
    assert stage.judge.weight == 2
    assert [hit.id for hit in stage(first_stage(ids=("cat", "chat", "mao")))["q1"]] == ["mao", "chat", "cat"]


def test_a_name_may_stand_for_a_cascade_wherever_a_reranker_is_named(monkeypatch):
    from crosslens.multilingual.reranking import plan
    from crosslens.systems.system import OpenSite, System

    for name in plan.NAMED:  # what they stand for is known, and loads no model here
        assert all(plan.parse_reranker(each) for each in plan.list_rerankers(name))
    monkeypatch.setitem(sys.modules, "picky", SimpleNamespace(open_picky=open_picky))
    specs = tuple(f"cross@py:picky:open_picky?weight={weight}&depth={depth}" for weight, depth in ((1, 4), (-1, 2)))
    monkeypatch.setitem(plan.NAMED, "best", specs)
    stage = load_reranker("best")
    run = first_stage(QUERIES[:1], ids=("cat", "chat", "mao", "gorbe"))
    # The first puts short passages first; the second turns the first two round, and leaves the others below.
    wanted = ["gorbe", "mao", "chat", "cat"]
    done = stage(run)
    assert [hit.id for hit in done["q1"]] == wanted
    assert [record.counts["rounds"] for record in done.manifest.records] == [1, 1]
    system = System.parse("best")
    assert system.depth(1) == 4
    assert [part.spec for part in system.parts] == list(specs)
    bound = system.bind(OpenSite(), 10)
    assert bound == System.parse(" >> ".join(specs)).bind(OpenSite(), 10)
    assert bound(run).hits == done.hits
    documents = [DOCS[each] for each in ("cat", "chat", "mao", "gorbe")]
    assert [hit.id for hit in rank(QUERIES[0], documents, "best")] == wanted
    assert [hit.id for hit in rank(QUERIES[0], documents[:1], "best")] == ["cat"]
    with pytest.raises(InputError, match="best is 2 rerankers one after the other: cross@"):
        plan.parse_reranker("best")


@table(
    ("spec", "message"),
    [
        ("likelihood", "names no model"),
        ("likelyhood@offline:gemma", "unknown prompt 'likelyhood'; did you mean likelihood"),
        ("likelihood:heap@offline:gemma", "unknown sorter 'heap'"),
        ("likelihood@offlin:gemma", "unknown judge family 'offlin'; did you mean offline"),
        ("likelihood@offline:gema", "unknown offline judge 'gema'; did you mean gemma"),
        ("likelihood@offline:gemma?detph=3", "'detph'; did you mean depth"),
        ("likelihood@offline:gemma?depth=many", "is not a number of type int"),
    ],
)
def test_wrong_specs_are_one_clear_line(spec, message):
    with pytest.raises(InputError, match=message):
        load_reranker(spec)


def test_a_spec_becomes_the_stage_it_describes(tiny_judge):
    stage = load_reranker(f"yesno@hf:{tiny_judge}?depth=7&alpha=0.25&passage_tokens=9&dtype=float32", device="cpu")
    assert (stage.prompt.name, stage.depth, stage.k, stage.alpha) == ("yesno", 7, 7, 0.25)
    assert stage.judge.passage_tokens == 9
    again = load_reranker(f"yesno@hf:{tiny_judge}?depth=7&alpha=0.25&passage_tokens=9&dtype=float32", device="cpu")
    assert stage.fingerprint == again.fingerprint
    assert stage.fingerprint != load_reranker(f"yesno@hf:{tiny_judge}?depth=8&dtype=float32", device="cpu").fingerprint


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"depth": 5}, "depth 5 is below k 10"),
        ({"depth": 0, "k": 0}, "depth must be at least 1"),
        ({"k": 0}, "at least 1"),
        ({"alpha": 1.5}, "alpha must be in 0..1"),
    ],
)
def test_settings_that_make_no_sense(settings_, message):
    with pytest.raises(InputError, match=message):
        Rerank(Oracle({}), PROMPT, **settings_)


@table(
    ("query", "docs", "message"),
    [
        ("q", ["a", ""], "document '1' is empty"),
        ("q", [Item("own", " \n")], "document 'own' is empty"),
        (" ", ["a"], "the query is empty"),
        ("q", ["caf\udce9"], "item '0' is not valid Unicode"),
        ("caf\udce9", ["a"], "item 'query' is not valid Unicode"),
    ],
)
def test_rank_refuses_what_is_empty_or_no_text(query, docs, message):
    with pytest.raises(InputError, match=message):
        rank(query, docs, Rerank(Oracle(TRUTH), PROMPT))
