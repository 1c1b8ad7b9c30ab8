"""What prompts make of comparisons and of answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.judges.messages import Attachment, Passage
from crosslens.multilingual.prompts import Prompt, configure_prompt, list_prompts, load_prompt
from crosslens.multilingual.prompts.places import leave_out_places, read_places
from stand_ins.prompted import BOTH, DOCS, QUERY, Judge, Sure
from stand_ins.table import table


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
    scores = prompt.score(judge, [(QUERY, documents[:4]), (QUERY, [documents[5]]), (QUERY, documents[6:])], count)
    assert [each.tolist() for each in scores] == [[0, 1, 2, 3], [5], [6, 7, 8]]
    alone = prompt.score(judge, [(QUERY, [document]) for document in documents], count)
    assert [float(each[0]) for each in alone] == list(range(9))
    assert count == {"prompt_not_in_mul": 2, "prompt_not_in_rus": 4}


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
    forwards, backwards = ([p.text for p in message.parts if isinstance(p, Passage)] for message in judge.asked)
    assert backwards == forwards[::-1]
    (fair,) = replace(prompt, orders="both").score(Judge(prefers=lambda text: float(text.split()[2])), [(QUERY, shown)])
    assert fair.tolist() == sorted(fair)
    assert np.ptp(fair) > 0.5


def test_listwise_scores_follow_what_was_generated():
    prompt = load_prompt("listwise")
    says = [Completion(" [2] > [3] > [1]", 9), Completion("[2] > [1]", 5), Completion("no idea", 2)]
    judge, count = Judge(says=says), Counter()
    scores = prompt.score(judge, [(QUERY, DOCS[:3]), (QUERY, DOCS[:3]), (QUERY, DOCS[:2])], count)
    assert [np.argsort(-each).tolist() for each in scores] == [[1, 2, 0], [1, 0, 2], [0, 1]]
    assert leave_out_places(count) == {"missing": 1, "unreadable": 1}
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
    assert leave_out_places(count) == ({"thoughts_cut": 1} if views == 2 else {})


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


class Writing(Judge):
    """Also writes the order that it prefers, after a thought where it is asked for one."""

    def generate(self, messages, stop=(), **sampling):
        if stop:
            return [Completion("hm</think>", 2) for _ in messages]
        orders = np.argsort(-self.rows(messages, 4), axis=1, kind="stable")
        return [Completion(" > ".join(f"[{n + 1}]" for n in order), 9) for order in orders]


@table("name", [name for name in list_prompts() if load_prompt(name).most > 1])
def test_rotations_show_each_passage_at_each_place_and_cancel_a_preference_for_any(name):
    prompt = configure_prompt(load_prompt(name), orders="rotations")
    shown = DOCS[3::-1][: prompt.most]
    judge, count = Writing(), Counter()
    (even,) = prompt.score(judge, [(QUERY, shown)], count)
    np.testing.assert_allclose(even, even[0], rtol=1e-12)
    assert read_places(count) == {("eng", len(shown)): [len(shown)] + [0] * (len(shown) - 1)}
    orders = [[p.text for p in message.parts if isinstance(p, Passage)] for message in judge.asked]
    assert [sorted(column) for column in zip(*orders, strict=True)] == [sorted(doc.text for doc in shown)] * len(shown)
    prefers = lambda text: float(text.split()[2])  # noqa: E731
    mixed = [(QUERY, shown), (QUERY, DOCS[5:7]), (QUERY, DOCS[8:9])]
    fair = prompt.score(Writing(prefers), mixed)
    given = replace(prompt, orders="given").score(Writing(prefers), mixed)
    for one, other in zip(fair, given, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert fair[0].argmax() == 0
    assert fair[2].tolist() == [0.0]


def test_one_passage_has_no_orders():
    with pytest.raises(InputError, match=r"has no orders: orders=rotations needs \{passages\}"):
        configure_prompt(load_prompt("yesno"), orders="rotations")


class Leaning(Judge):
    """Adds to what it prefers a liking for the places, the last one's the greatest."""

    def rows(self, messages, width):
        rows = super().rows(messages, width)
        return rows + 9.0 * np.arange(width)


@pytest.mark.parametrize("name", ["pairwise", "setwise", "first"])
def test_calibration_takes_the_judges_liking_for_labels_from_its_answers(name):
    prompt = configure_prompt(replace(load_prompt(name), orders="given"), calibrate=True)
    prefers = lambda text: float(text.split()[2]) if text.startswith("text") else 0.0  # noqa: E731
    judge, count = Leaning(prefers=prefers), Counter()
    groups = [DOCS[3::-1][: prompt.most], DOCS[7:5:-1], DOCS[5:3:-1]]
    assert all(
        scores.argmax() for scores in replace(prompt, calibrate=False).score(judge, [(QUERY, g) for g in groups])
    )
    del judge.asked[:]
    for scores, group in zip(prompt.score(judge, [(QUERY, group) for group in groups], count), groups, strict=True):
        values = np.array([prefers(doc.text) for doc in group])
        np.testing.assert_allclose(scores, values - np.logaddexp.reduce(values))
    sizes = len({len(group) for group in groups})
    assert leave_out_places(count) == {"calibrations": sizes, "calibration_questions": 3 * sizes}
    assert len(judge.asked) == 3 + 3 * sizes
    neutral = [part.text for part in judge.asked[3].parts if isinstance(part, Passage)]
    assert neutral == ["N/A"] * 2
    prompt.score(judge, [(QUERY, group) for group in groups], count)
    assert len(judge.asked) == 6 + 3 * sizes  # once for a judge
    replace(prompt, language="zho").score(judge, [(QUERY, groups[1])], count)
    assert len(judge.asked) == 10 + 3 * sizes  # and for a wording


def test_one_passage_is_calibrated_too_and_what_has_no_labels_is_refused():
    class Agreeing(Judge):
        def choose(self, messages, labels):
            shares = [[0.8, 0.2] if "text" in message.user() else [0.9, 0.1] for message in messages]
            return np.log(shares)

    (scores,) = replace(load_prompt("yesno"), calibrate=True).score(Agreeing(), [(QUERY, DOCS[:2])])
    np.testing.assert_allclose(scores, np.log(0.8 / 0.2) - np.log(0.9 / 0.1))
    for name, fault in (("listwise", "chooses no label"), ("rank1", "thinks before it chooses")):
        with pytest.raises(InputError, match=fault):
            configure_prompt(load_prompt(name), calibrate=True)
