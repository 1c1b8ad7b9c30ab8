"""The SPEC grammar, whose options go where, and factories from outside the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from crosslens.errors import InputError
from crosslens.pipeline import Cut
from crosslens.specs import Spec, bind_options, check_types, distribute_options, find_factory, known_options
from stand_ins.table import table


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


@table("text", ["hf:a/b", "offline:e5-small", "clip:x//tmp/w?dim=3", "hf:/a/b?x=1&y=2", "default"])
def test_round_trip(text):
    assert str(Spec.parse(text)) == text


def test_special_characters_in_options_survive():
    spec = Spec("hf", "a", {"query_prompt": "Instruct: a & b?\nQuery: ", "p": "100% + é"})
    assert Spec.parse(str(spec)) == spec


def test_options_are_converted_by_the_signature():
    spec = Spec.parse("hf:a?dim=3&ratio=0.5&on=true&how=b")
    assert bind_options(spec, target, device="cpu") == {"dim": 3, "ratio": 0.5, "on": True, "how": "b", "device": "cpu"}


@table(
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
        bind_options(Spec.parse(text), target, device="cpu")
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Sizes:
    dim: int = 8
    depth: int = 2


def sized(checkpoint: str, *, sizes: Sizes, how: Literal["a", "b"] = "a") -> None:
    pass


def test_a_dataclass_stands_for_its_fields():
    assert list(known_options(sized)) == ["dim", "depth", "how"]
    assert bind_options(Spec.parse("hf:a?depth=3&how=b"), sized) == {"sizes": Sizes(8, 3), "how": "b"}
    assert bind_options(Spec.parse("hf:a"), sized) == {"sizes": Sizes()}


def test_options_side_by_side_go_to_the_first_that_knows_them():
    def other(*, how: Literal["a", "b"] = "a", extra: int = 0) -> None:
        pass

    spec = Spec.parse("hf:a?how=b&extra=4&dim=3")
    first, second = distribute_options(spec, "x@hf:a", [(other, {}), (target, {"device": "cpu"})])
    assert first == {"how": "b", "extra": 4}
    assert second == {"dim": 3, "device": "cpu"}
    with pytest.raises(InputError, match=r"unknown option of x@hf:a 'dmi'; did you mean dim\?") as error:
        distribute_options(Spec.parse("hf:a?dmi=3"), "x@hf:a", [(other, {}), (target, {"device": "cpu"})])
    assert all(name in str(error.value) for name in ("how", "extra", "dim", "ratio"))
    assert "device" not in str(error.value)


FAMILIES = {"cut": "pipeline:Cut"}


def test_a_factory_is_one_of_ours_one_that_can_be_imported_or_one_of_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "their_module.py").write_text("class Box:\n    class Inner:\n        pass\n")
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[crosslens.toys]\nboxes = their_module:Box\nbroken = their_module:Nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find_factory(Spec("cut", "x"), "toys", FAMILIES, "toy") == (Cut, Spec("cut", "x"))
    box, spec = find_factory(Spec.parse("boxes:some?x=1"), "toys", FAMILIES, "toy")
    assert (box.__name__, spec) == ("Box", Spec("boxes", "some", {"x": "1"}))
    inner, spec = find_factory(Spec.parse("py:their_module:Box.Inner:a/b?x=1"), "toys", FAMILIES, "toy")
    assert (inner, spec) == (box.Inner, Spec("py", "a/b", {"x": "1"}))
    for text, message in (
        ("bxes", r"unknown toy 'bxes'; did you mean boxes\? \(known: boxes, broken, cut, more, py\)"),
        ("py:their_module", "write py:MODULE:NAME"),
        ("py:nowhere_at_all:X", "cannot import nowhere_at_all:X .* is it installed, or on PYTHONPATH"),
        ("broken", r"broken \(of an installed package\): cannot import their_module:Nothing"),
    ):
        with pytest.raises(InputError, match=message):
            find_factory(Spec.parse(text), "toys", FAMILIES, "toy", more=("more",))


@dataclass(frozen=True, kw_only=True)
class Limits:
    most: int | None = None
    exact: bool = False


def test_a_dataclass_that_a_target_needs_stands_for_its_fields():
    def limited(name: str, *, limits: Limits, device: str = "auto", chosen: Limits = Limits()) -> None:
        """A part of options that several targets share; `chosen` is no such part, since it need not be given."""

    assert list(known_options(limited)) == ["most", "exact", "device", "chosen"]
    given = bind_options(Spec.parse("x:y?most=3"), limited, device="cpu")
    assert given == {"limits": Limits(most=3), "device": "cpu"}
    assert bind_options(Spec.parse("x:y"), limited, exact=True) == {"limits": Limits(exact=True)}
    with pytest.raises(InputError, match=r"unknown option of x 'exact' .*known: chosen, device, most"):
        bind_options(Spec.parse("x:y?exact=true"), limited, exact=True)


@table("text", ["a?x=%FF", "a?x=caf\udce9", "\udce9", "a?x", "a?x=1&x=2", "?x=1", ""])
def test_a_spec_that_says_no_one_thing_is_refused(text):
    with pytest.raises(InputError):
        Spec.parse(text)


@table("number", ["1_0", "１", "1e400", "", "x", "0x1"])
def test_options_are_numbers_in_plain_digits(number):
    for key in ("dim", "ratio"):
        with pytest.raises(InputError, match="is not a number"):
            bind_options(Spec.parse(f"f:c?{key}={number}"), target, device="cpu")


@dataclass
class Inner:
    n: int


@dataclass
class Outer:
    name: str
    at: dict[int, float]
    inner: Inner | None = None
    pair: tuple[int, str] = (1, "a")
    many: tuple[str, ...] = ()
    how: Literal["a", "b"] = "a"


def test_types_of_what_was_read_are_checked_all_the_way():
    check_types(Outer("x", {1: 2, 3: 0.5}, Inner(3), many=("a", "b")))
    check_types(Outer("x", {}))
    for wrong in (
        Outer(1, {}), Outer("x", {"1": 2}), Outer("x", {1: "2"}), Outer("x", {1: True}), Outer("x", []), Outer("x", {}, Inner("3")),
        Outer("x", {}, {"n": 3}), Outer("x", {}, pair=(1,)), Outer("x", {}, pair=("a", 1)), Outer("x", {}, many=("a", 1)), Outer("x", {}, how="c"),
        Outer("x", {}, many="ab"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="is not of the type"):
            check_types(wrong)
