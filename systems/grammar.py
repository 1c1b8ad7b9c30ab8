"""Pipelines as one line of text: `rrf(lexical, dense) % 100 >> likelihood@offline:gemma?depth=20`.

    pipeline := sum (">>" sum)*            the output of one is the input of the next
    sum      := cut ("+" cut)*             scores added (CombSUM)
    cut      := term ("%" number)*         the first so many hits of each query
    term     := number "*" term | "(" pipeline ")" | name "(" pipeline ("," ...)* ")" | SPEC

Names with parentheses are those of `FUNCTIONS`. A SPEC ends at white space, a parenthesis, or a comma before white
space, so operators stand between spaces; in quotes it may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..errors import InputError, check_known
from ..pipeline import Stage, merge, roundrobin, rrf, zscore
from ..specs import parse_real, parse_whole

Leaf = Callable[[str], Stage]

LONGEST = 1000  # words and operators
MOST = 100  # operators that nest a stage in another: deeper than that, Python's recursion might not follow

_TOKEN = re.compile(
    r"""
    (?P<operator> >> | [%+*] (?=\s|$) | [(),] )
    | (?P<quoted> '[^']*' | "[^"]*" )
    | (?P<word> (?: [^\s(),'"] | ,(?=\S) )+ )
    | (?P<end> \Z )
    | (?P<unknown> \S )
    """,
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


# Keyword-only parameters are numbers (`rrf(a, b, k=20)`).
FUNCTIONS: Mapping[str, Callable[..., Stage]] = {each.__name__: each for each in (rrf, merge, roundrobin, zscore)}


def parse(text: str, leaf: Leaf) -> Stage:
    """The stage that a line describes, its SPECs made into stages by `leaf`.

    `InputError` says what was expected, and where in the line.
    """
    return _Parser(text, leaf).whole()


class _Parser:
    """Recursive descent, one method a rule of the grammar above."""

    def __init__(self, text: str, leaf: Leaf) -> None:
        self.text = text
        self.leaf = leaf
        self.tokens = _tokens(text)
        self.at = 0

    def whole(self) -> Stage:
        stage = self.pipeline()
        if self.next.kind != "end":
            raise self.fault("an operator (>>, %, +) or the end")
        return stage

    def pipeline(self) -> Stage:
        stage = self.sum()
        while self.take(">>"):
            stage = stage >> self.sum()
        return stage

    def sum(self) -> Stage:
        stage = self.cut()
        while self.take("+"):
            stage = stage + self.cut()
        return stage

    def cut(self) -> Stage:
        stage = self.term()
        while self.take("%"):
            stage = stage % int(self.number(whole=True))
        return stage

    def term(self) -> Stage:
        after = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else self.next
        if self.next.kind == "word" and after == ("operator", "*", after.place):
            weight = self.number()
            self.at += 1
            return weight * self.term()
        if self.take("("):
            return self.close(self.pipeline())
        if self.next.kind not in ("word", "quoted"):
            raise self.fault("a stage")
        if self.next.kind == "word" and after == ("operator", "(", after.place):
            return self.function()
        token = self.next
        self.at += 1
        return self.leaf(token.text)

    def function(self) -> Stage:
        name = self.next.text
        check_known(name, FUNCTIONS, f"function of pipelines, in {self.text!r}")
        self.at += 2
        branches: list[Stage] = []
        options: dict[str, int] = {}
        while True:
            key, equals, value = self.next.text.partition("=")
            if self.next.kind == "word" and equals and key.isidentifier():
                check_known(key, FUNCTIONS[name].__kwdefaults__ or {}, f"option of {name}")
                if not (value.isascii() and value.isdigit() and len(value) < 10):
                    raise self.fault("a whole number after the =")
                options[key] = int(value)
                self.at += 1
            else:
                branches.append(self.pipeline())
            if not self.take(","):
                break
        if name == "zscore" and len(branches) != 1:
            raise InputError(f"zscore takes one pipeline, not {len(branches)}")
        return self.close(FUNCTIONS[name](*branches, **options))

    def close(self, stage: Stage) -> Stage:
        if not self.take(")"):
            raise self.fault("a )")
        return stage

    def number(self, *, whole: bool = False) -> float:
        token = self.next
        try:
            value = parse_whole(token.text) if whole else parse_real(token.text)
        except ValueError:
            raise self.fault("a whole number" if whole else "a number") from None
        self.at += 1
        return value

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self, operator: str) -> bool:
        if self.next.kind != "operator" or self.next.text != operator:
            return False
        self.at += 1
        return True

    def fault(self, wanted: str) -> InputError:
        there = repr(self.next.text) if self.next.kind != "end" else "the end"
        return InputError(
            f"the pipeline {self.text!r}: {wanted} was expected at character {self.next.place + 1}, not {there}"
        )


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    nesting = 0
    for match in _TOKEN.finditer(text):
        kind, inside, place = str(match.lastgroup), match[0], match.start()
        if kind == "unknown":
            raise InputError(f"the pipeline {text!r}: {inside!r} at character {place + 1} begins nothing that is known")
        nesting += kind == "operator" and inside in (">>", "%", "*", "(")
        if nesting > MOST:
            raise InputError(f"the pipeline {text!r}: it has more than {MOST} of >>, %, * and (, too many for one line")
        if len(found) == LONGEST:
            raise InputError(f"the pipeline {text!r}: it has more than {LONGEST} words and operators")
        found.append(_Token(kind, inside.strip("'\"") if kind == "quoted" else inside, place))
    return found
