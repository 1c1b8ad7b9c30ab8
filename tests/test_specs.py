"""The SPEC grammar."""

from __future__ import annotations

from typing import Literal

import pytest
from crosslens.errors import InputError
from crosslens.specs import Spec, bound


def target(
    checkpoint: str,
    *,
    dim: int | None = None,
    ratio: float = 1.0,
    on: bool = False,
    how: Literal["a", "b"] = "a",
    device: str = "",
) -> None:
    pass


@pytest.mark.parametrize(
    "text", ["hf:a/b", "offline:e5-small", "clip:x//tmp/w?dim=3", "hf:/a/b?x=1&y=2", "default"]
)
def test_round_trip(text):
    assert str(Spec.parse(text)) == text


def test_special_characters_in_options_survive():
    spec = Spec("hf", "a", {"query_prompt": "Instruct: a & b?\nQuery: ", "p": "100% + é"})
    assert Spec.parse(str(spec)) == spec


def test_options_are_converted_by_the_signature():
    spec = Spec.parse("hf:a?dim=3&ratio=0.5&on=true&how=b")
    assert bound(spec, target, device="cpu") == {
        "dim": 3,
        "ratio": 0.5,
        "on": True,
        "how": "b",
        "device": "cpu",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no family"),
        (":x", "names no family"),
        ("hf:a?dim", "not key=value"),
        ("hf:a?dim=1&dim=2", "gives 'dim' twice"),
        ("hf:a?dmi=1", "did you mean dim"),
        ("hf:a?dim=x", "is not a number of type int"),
        ("hf:a?on=perhaps", "write true or false"),
        ("hf:a?how=c", "known: a, b"),
        ("hf:a?device=cpu", "unknown option of hf 'device'"),
    ],
)
def test_mistakes_are_one_clear_line(text, message):
    with pytest.raises(InputError, match=message) as caught:
        bound(Spec.parse(text), target, device="cpu")
    assert "\n" not in str(caught.value)
