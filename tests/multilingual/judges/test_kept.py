"""A judge whose answers are kept: what was answered before the power went is not asked again, and nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens.multilingual.judges import BaseJudge, Completion, load_judge
from crosslens.multilingual.judges.journal import Journal
from crosslens.multilingual.judges.kept import KeptJudge, Unanswered
from crosslens.multilingual.judges.mass import read_mass
from crosslens.multilingual.judges.messages import Attachment, Message, Passage

LABELS = ("yes", "no", "maybe")


class Counting(BaseJudge):
    """Answers by the length of the prompt, and stops at the question `dies`."""

    can = frozenset({"choose", "likelihood", "generate", "score"})
    fingerprint = "counting"

    def __init__(self, streams: bool, dies: int = 10**9) -> None:
        super().__init__("counting", "1")
        self.streams, self.dies, self.asked, self.sizes = streams, dies, 0, []

    def each(self, prompts, answer):
        self.sizes.append(len(prompts))
        found = []
        for place, prompt in enumerate(prompts):
            if self.asked == self.dies:
                raise KeyboardInterrupt
            self.asked += 1
            found.append(answer(len(prompt.plain())))
            if self.streams:
                self.hand_over(place, found[-1])
        return found

    def compute_choices(self, prompts, labels):
        return np.array(self.each(prompts, lambda length: np.array([-length / 3.0, -np.inf, np.nan])))

    def compute_likelihoods(self, prompts, targets):
        return np.array(self.each(prompts, lambda length: -length / 3.0))

    def compute_completions(self, prompts, sampling):
        return self.each(prompts, lambda length: Completion(f"猫 {length}", length, length % 2 == 0))

    def compute_scores(self, prompts):
        return np.array(self.each(prompts, float))


class Weighing(Counting):
    """Also counts the label mass, as 0.1 for each word of a passage."""

    def compute_choices(self, prompts, labels):
        self.waiting = iter(prompts)
        return super().compute_choices(prompts, labels)

    def hand_over(self, place, answer):
        self.count_label_mass(prompt := next(self.waiting), prompt.plain().count("word") / 10)
        super().hand_over(place, answer)


def prompts(number):
    return [Message(("query ", Passage("word " * n))) for n in range(number)]


ASKS = {
    "choose": lambda judge, some: judge.choose(some, LABELS),
    "likelihood": lambda judge, some: judge.likelihood(some, [" target"] * len(some)),
    "generate": lambda judge, some: judge.generate(some, max_new_tokens=5),
    "score": lambda judge, some: judge.score(some),
}


@pytest.mark.parametrize(
    ("ask", "streams", "dies"),
    [
        (ask, (asked + place) % 2 == 0, dies)
        for asked, ask in enumerate(ASKS.values())
        for place, dies in enumerate((0, 1, 424, 499))
    ],
)
def test_what_a_stop_leaves_is_asked_and_nothing_else(tmp_path, ask, streams, dies):
    some = prompts(500)
    expected = ask(Counting(streams), some)
    journal = Journal(tmp_path / "journal")
    dying = Counting(streams, dies)
    with pytest.raises(KeyboardInterrupt):
        ask(KeptJudge(dying, journal, len(some)), some)
    journal.close()
    kept = dies if streams else dies // 25 * 25  # a 20th of the work at a time
    again = Journal(tmp_path / "journal")
    assert len(again) == kept
    fresh = Counting(streams)
    judge = KeptJudge(fresh, again, len(some))
    found = ask(judge, some)
    np.testing.assert_equal(found, expected)
    assert (fresh.asked, judge.taken) == (500 - kept, kept)
    if streams:
        assert fresh.sizes == [500 - kept]  # batching is the judge's
        assert (again.counted + fresh.usage)["calls"] == 500
    judge.asks = False
    np.testing.assert_equal(ask(judge, some), expected)
    with pytest.raises(Unanswered):
        ask(judge, prompts(501))


def test_an_answer_is_of_one_question_to_one_judge(tmp_path):
    journal = Journal(tmp_path / "journal")
    (one,) = prompts(1)
    judge = KeptJudge(Counting(True), journal, 1)
    judge.choose([one], LABELS)
    others = [
        lambda judge: judge.choose([one], LABELS[::-1]),
        lambda judge: judge.choose([Message(one.parts, chat="auto")], LABELS),
        lambda judge: judge.choose([Message(one.parts, answer="<think>")], LABELS),
        lambda judge: judge.choose([Message(("query ", ""))], LABELS),  # what may not be cut is another question
        lambda judge: judge.choose([Message((*one.parts, Attachment("image", b"a picture")))], LABELS),
        lambda judge: judge.generate([one], max_new_tokens=5),
        lambda judge: judge.generate([one], max_new_tokens=6),
        lambda judge: judge.score([one]),
    ]
    judge.asks = False
    judge.choose([one], LABELS)
    for other in others:
        with pytest.raises(Unanswered):
            other(judge)
    another = Counting(True)
    another.fingerprint = "another"
    judge = KeptJudge(another, journal, 1)
    judge.asks = False
    with pytest.raises(Unanswered):
        judge.choose([one], LABELS)


def test_a_real_model_hands_over_what_it_returns(tmp_path, tiny_judge, monkeypatch):
    judge = load_judge(f"hf:{tiny_judge}?dtype=float32", device="cpu")
    some = prompts(9)
    for name in ("choose", "likelihood", "generate"):
        expected = ASKS[name](judge, some)
        journal = Journal(tmp_path / name)
        seen: list[int] = []
        kept = KeptJudge(judge, journal, 1)
        plain = judge.hand_over

        def note(place, answer, plain=plain, seen=seen):
            seen.append(place)
            plain(place, answer)

        monkeypatch.setattr(judge, "hand_over", note)
        found = ASKS[name](kept, some)
        monkeypatch.undo()
        np.testing.assert_equal(found, expected)
        assert sorted(seen) == list(range(9))
        assert len(journal) == 9


def test_the_label_mass_of_answers_that_are_kept_is_kept_with_them(tmp_path):
    journal = Journal(tmp_path / "journal")
    with pytest.raises(KeyboardInterrupt):
        KeptJudge(Weighing(True, dies=3), journal, 6).choose(prompts(6), LABELS)
    journal.close()
    journal, later = Journal(tmp_path / "journal"), Weighing(True)
    KeptJudge(later, journal, 6).choose(prompts(6), LABELS)
    assert read_mass(journal.counted) == {"eng": (3, pytest.approx(0.1))}
    assert read_mass(later.usage) == {"eng": (3, pytest.approx(0.4))}
    assert read_mass(journal.counted + later.usage) == {"eng": (6, pytest.approx(0.25))}
