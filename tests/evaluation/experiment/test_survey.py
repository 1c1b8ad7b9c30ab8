"""What an experiment would do, estimated before any model is loaded."""

from __future__ import annotations

from crosslens.evaluation.experiment.survey import count_questions
from crosslens.multilingual.reranking.plan import parse_reranker


def test_estimated_questions_are_those_that_a_sorter_asks() -> None:
    calls, shown = count_questions(parse_reranker("setwise:heapsort@offline:gemma?depth=100&k=10&arity=3"))
    assert 40 < calls < 100
    assert calls * 2 <= shown <= calls * 4
