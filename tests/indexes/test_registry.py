"""Kinds of indexes by name: those of crosslens, of a module, and of an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import KINDS, check_kind, create_index, find_kind, open_index
from crosslens.items import Item
from stand_ins.cheap_encoder import Cheap

MODULE = '''
from crosslens.errors import InputError
from crosslens.indexes.kinds.flat import FlatKind


class Louder(FlatKind):
    """Scores times what follows the colon."""

    @classmethod
    def check_detail(cls, name, detail):
        if not detail.isdigit():
            raise InputError(f"{name} needs a number")

    def nearest(self, *asked):
        return [[(doc, score * int(self.detail)) for doc, score in hits] for hits in super().nearest(*asked)]
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed, with an entry point."""
    (tmp_path / "loud_kinds.py").write_text(MODULE)
    (info := tmp_path / "loud_kinds-1.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-kinds\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[crosslens.indexes]\nlouder = loud_kinds:Louder\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["louder", "py:loud_kinds:Louder"])
def test_a_kind_from_outside_is_made_opened_and_searched(name: str, package: Path) -> None:
    items = [Item(f"d{n}", f"text {n}") for n in range(9)]
    create_index(package / "index", kind=f"{name}:3").add(items, Cheap())
    index = open_index(package / "index", encoders=Cheap())
    assert index.card.kind == f"{name}:3"
    (best, *_) = index.search(["text 4"], 2)["1"]
    assert best.id == "d4"
    assert best.score == pytest.approx(3, abs=0.01)
    with pytest.raises(InputError, match=f"{name} needs a number"):
        create_index("memory://", kind=name)


def test_a_kind_that_cannot_be_found_is_named(package: Path) -> None:
    for kind, text in [
        ("lnace", r"unknown index kind 'lnace'; did you mean lance\? \(known: faiss, .*louder"),
        ("lance:", "nothing after the colon"),
        ("sparse:csr", "sparse takes nothing after it"),
        ("py:loud_kinds", "write py:MODULE:NAME"),
        ("py:loud_kinds:Quiet:3", "cannot import loud_kinds:Quiet"),
    ]:
        with pytest.raises(InputError, match=text):
            check_kind(kind)
    assert {kind: find_kind(kind)[0].__name__ for kind in KINDS} == {
        "lance": "LanceKind",
        "flat": "FlatKind",
        "faiss": "FaissKind",
        "sparse": "SparseKind",
        "late": "LateKind",
    }


def test_what_is_no_path_no_id_and_no_encoder_is_refused() -> None:
    for path in (7, None, b"index"):
        for make in (open_index, create_index):
            with pytest.raises(InputError, match="given as a path, not"):
                make(path)  # type: ignore[arg-type]
    index = create_index("memory://")
    for wrong in ("offline:e5-small", ["offline:e5-small"], 7, [Cheap()]):
        with pytest.raises(InputError, match="an encoder is wanted, not") as error:
            index.add([Item("d1", "a text")], [Cheap(), wrong])  # type: ignore[list-item]
        if wrong == "offline:e5-small":
            assert "crosslens.encoder('offline:e5-small')" in str(error.value)
            with pytest.raises(InputError, match="an encoder is wanted"):
                index.add([Item("d1", "a text")], wrong)  # type: ignore[arg-type]
    assert index.add([Item("d1", "a text")], Cheap()) == 1
    for ids, text in (([7], "ids are strings, not 7"), ("d1", "give ids as a list"), (["d1", None], "not None")):
        with pytest.raises(InputError, match=text):
            index.get(ids)  # type: ignore[arg-type]
    assert [item.id for item in index.get(["d1", "d1"])] == ["d1", "d1"]
