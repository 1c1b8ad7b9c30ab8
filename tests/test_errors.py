"""errors.py: lines that say what is wrong and what is known."""

from __future__ import annotations

import pickle
from itertools import groupby

import numpy as np
import pytest
from crosslens.errors import (
    CrosslensError,
    InputError,
    SpecMismatch,
    check_at_least,
    check_cutoff,
    check_known,
    list_few,
)
from hypothesis import given
from hypothesis import strategies as st
from stand_ins.table import table


def test_a_few_are_named_and_all_are_counted():
    assert list_few([]) == "none"
    assert list_few("abc") == "a, b, c"
    assert list_few(iter("abcdef")) == "a, b, c, ... (6 in all)"
    assert list_few("abcdef", 6) == "a, b, c, d, e, f"


def test_an_unknown_name_lists_the_known_ones_and_suggests_a_close_one():
    check_known("dense", ("dense", "lexical"), "stage")
    with pytest.raises(InputError) as error:
        check_known("dens", iter(("lexical", "dense")), "stage")
    assert str(error.value) == "unknown stage 'dens'; did you mean dense? (known: dense, lexical)"
    with pytest.raises(InputError, match=r"^unknown stage 'x' \(known: none\)$"):
        check_known("x", (), "stage")


def test_mistakes_of_input_are_value_errors_too():
    assert issubclass(SpecMismatch, InputError)
    assert issubclass(InputError, CrosslensError)
    assert issubclass(InputError, ValueError)


@table("k", [1.5, 5.0, "5", True, None.__class__, [3], b"1", 0, -1, 10**12, float("nan")])
def test_a_cutoff_is_a_whole_number_from_one_to_a_billion(k):
    with pytest.raises(
        InputError, match=r"^k must be (a whole number, not|at least 1, not|at most 1,000,000,000, not) "
    ):
        check_cutoff(k)
    check_cutoff(np.int64(5))


def test_counts_may_be_absent_but_not_of_another_type():
    check_at_least(0, "SPEC", seed=None, window=0)
    with pytest.raises(InputError, match="^SPEC: window must be a whole number, not 2.5$"):
        check_at_least(0, "SPEC", window=2.5)


@table("wording", ["unknown stage {!r} (known: a, b)", "cannot read /tmp/{}: no such file", "{}"])
@table("unit", ["x", "猫", "\x1b", "\\", "'\"", "🙂"])
def test_an_error_repeats_at_most_200_characters_of_an_input(wording, unit):
    text = str(InputError(wording.format(unit * 50_000)))
    assert max(len(list(run)) for _, run in groupby(text)) <= 200
    assert len(text) < 300 or unit == "\x1b"
    assert str(InputError(text)) == text, "an error put into another is not cut again"
    start, _, end = wording.partition("{")
    assert text.startswith(start)
    assert text.endswith(end.partition("}")[2])


@given(st.text(st.characters(codec=None), max_size=60))
def test_an_error_is_one_line_without_control_characters(text):
    shown = str(InputError(f"cannot read {text}: no such file"))
    assert len(shown.splitlines()) == 1
    assert not any(
        c < " " or "\x7f" <= c <= "\x9f" or "\u202a" <= c <= "\u202e" or "\ud800" <= c <= "\udfff" for c in shown
    )
    assert str(InputError(shown)) == shown


def test_an_error_that_quotes_nothing_stays_as_it_is():
    text = "the collection's documents and its authors' topics don't fit: " + "'a b', \"c's\", " * 40 + "it's so"
    assert str(InputError(text)) == text
    assert str(pickle.loads(pickle.dumps(SpecMismatch(text)))) == text
