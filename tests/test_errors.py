"""errors.py: lines that say what is wrong and what is known."""

from __future__ import annotations

import pytest
from crosslens.errors import CrosslensError, InputError, SpecMismatch, check_known, list_few


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
