"""Lines: what they parse to, and where a wrong one is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from crosslens import InputError, Stage, merge, roundrobin, rrf, zscore
from crosslens.systems.grammar import parse
from stand_ins.table import table


@dataclass(frozen=True)
class Named(Stage):
    name: str

    def __str__(self) -> str:
        return self.name


def test_pipelines_are_what_the_same_line_of_python_is():
    a, b, c = Named("a"), Named("b?x=1,2&y=3"), Named("p:s@hf:m?depth=5")
    for line, stage in (
        ("a", a),
        ("a >> p:s@hf:m?depth=5", a >> c),
        ("a % 100 >> p:s@hf:m?depth=5 % 10", a % 100 >> c % 10),
        ("zscore(a) + 0.5 * zscore(b?x=1,2&y=3)", zscore(a) + 0.5 * zscore(b)),
        ("rrf(a, b?x=1,2&y=3, k=20) % 7", rrf(a, b, k=20) % 7),
        ("roundrobin(a, a >> a)", roundrobin(a, a >> a)),
        ("merge(a,\n b?x=1,2&y=3)", merge(a, b)),
        ("(a + a) % 3 >> a", (a + a) % 3 >> a),
        ('"a b (c)" >> a', Named("a b (c)") >> a),
    ):
        parsed = parse(line, Named)
        assert parsed == stage, line
        assert parsed.fingerprint == stage.fingerprint


@table(
    ("line", "message"),
    [
        ("", "a stage was expected at character 1, not the end"),
        ("a >>", "a stage was expected at character 5"),
        ("a b", "an operator (>>, %, +) or the end was expected at character 3, not 'b'"),
        ("rrf(a", "a ) was expected"),
        ("rff(a)", "did you mean rrf?"),
        ("rrf(a, K=3)", "unknown option of rrf 'K'"),
        ("a % x", "a whole number was expected"),
        ("a % 0", "a cutoff must be at least 1"),
        ("zscore(a, b)", "takes one pipeline, not 2"),
        ("'a", "begins nothing that is known"),
        ("a % 1_000", "a whole number was expected"),
        ("a % １２", "a whole number was expected"),
        ("a % ²", "a whole number was expected"),
        ("a % " + "9" * 5000, "a whole number was expected"),
        ("1e400 * a", "a number was expected"),
        ("rrf(a, b, k=１２)", "a whole number after the ="),
        ("rrf(a, b, k=²)", "a whole number after the ="),
        ("(" * 3000 + "a" + ")" * 3000, "more than 100 of >>, %, * and ("),
        ("(" * 100_000, "more than 100 of"),
        ("a" + " >> a" * 3000, "more than 100 of"),
        ("1 * " * 3000 + "a", "more than 100 of"),
        ("a" + " + a" * 3000, "more than 1000 words"),
    ],
)
def test_a_wrong_line_is_named_with_its_place(line, message):
    with pytest.raises(InputError) as error:
        parse(line, Named)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "line", ["(" * 100 + "a" + ")" * 100, "rrf(" * 100 + "a" + ")" * 100, "a" + " % 5" * 100, "1 * " * 100 + "a"]
)
def test_the_deepest_line_is_within_reach_of_recursion(line):
    stage = parse(line, Named)
    assert len(stage.fingerprint) == 12
    assert hash(stage) == hash(parse(line, Named))
    assert str(stage).count("a") >= 1
    assert stage.parts
