"""Labels among the tokens of a reply."""

from __future__ import annotations

from crosslens.multilingual.judges.replies import ServedLabels, count_target_tokens
from stand_ins.http_server import LABELS
from stand_ins.table import table


@table(
    ("labels", "token", "place"),
    [
        (LABELS, "A", 0),
        (LABELS, " A", 0),
        (LABELS, "ĠB", 1),
        (LABELS, "[C", 2),
        (LABELS, "A]", 0),
        (LABELS, "a", None),
        (LABELS, "Answer", None),
        (LABELS, "**", None),
        (["Yes", "No"], " yes", 0),
        (["Yes", "No"], "N", 1),
        (["Yes", "No"], "Not", None),
        (["1]", "2]"], "2", 1),
        (["1]</answer>", "2]</answer>"], "2", 1),
        (["true", "false"], " false", 1),
        (["हाँ", "नहीं"], "नहीं", 1),
        (["是", "否"], "否", 1),
        (["Relevant", "Related"], "Rel", None),
        (["Relevant", "Related"], "Relev", 0),
    ],
)
def test_a_token_says_the_label_that_it_is_or_alone_can_begin(labels, token, place):
    assert ServedLabels(labels).find(token) == place


@table(
    ("labels", "ambiguous"),
    [
        (LABELS, False),
        (["1]", "10]"], True),
        (["1]</answer>", "10]</answer>"], True),
        (["1", "2"], False),
        (["No", "Not relevant"], True),
        (["yes", "Yes"], True),
    ],
)
def test_a_token_does_not_show_labels_of_which_one_begins_another(labels, ambiguous):
    assert ServedLabels(labels).ambiguous == ambiguous


@table(
    ("tokens", "target", "mine"),
    [
        (["a", " b", " c"], " b c", 2),
        (["a b", " c"], "b c", 2),
        (["猫", "", "", "睡"], "睡", 3),
        (["猫", "�", "睡"], "睡觉", None),
        ([], "x", None),
    ],
)
def test_the_tail_of_tokens_that_spells_the_target(tokens, target, mine):
    assert count_target_tokens(tokens, target) == mine
