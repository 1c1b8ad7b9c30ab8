"""What an experiment would do, estimated before any model is loaded."""

from __future__ import annotations

import pytest
from crosslens.multilingual.reranking.plan import parse_reranker
from crosslens.multilingual.reranking.questions import count_questions


def test_estimated_questions_are_those_that_a_sorter_asks() -> None:
    calls, shown = count_questions(parse_reranker("setwise:heapsort@offline:gemma?depth=100&k=10&arity=3"))
    assert 40 < calls < 100
    assert calls * 2 <= shown <= calls * 4


@pytest.mark.parametrize(("orders", "views"), [("given", 1), ("both", 2), ("rotations", 5)])
def test_each_order_of_a_set_is_a_question(orders: str, views: int) -> None:
    method = parse_reranker(f"setwise:full@offline:gemma?depth=5&k=5&orders={orders}")
    assert count_questions(method) == (views, views * 5)
