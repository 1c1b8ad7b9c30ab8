"""Encoders of other packages: named by `py:` or an entry point, indexed, and searched by the SPEC in the index's card."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from crosslens.encoders.registry import load_encoder
from crosslens.encoders.workers import load_for_index
from crosslens.errors import InputError
from crosslens.indexes.registry import open_index
from crosslens.items import Item
from stand_ins.table import table

MODULE = '''
from dataclasses import dataclass

import numpy as np
from crosslens import Dense, EncoderSpec


class Letters:
    """Counts letters; the constructor's keyword-only parameters are its options."""

    def __init__(self, *, dim: int = 26, device: str = "auto"):
        self.spec = EncoderSpec("letters", "1", ("text",), dim)
        self.device = device

    def encode(self, items, role):
        for item in items:
            vector = np.full(self.spec.dim, 1e-3, np.float32)
            for letter in item.text.lower():
                vector[ord(letter) % self.spec.dim] += 1
            yield Dense([item.id], vector[None] / np.linalg.norm(vector))


def from_file(path, *, trust_remote_code: bool = False):
    """A function, with a checkpoint."""
    encoder = Letters(dim=int(open(path + "/dim").read()))
    encoder.trusted = trust_remote_code
    return encoder


class Loaded(Letters):
    @classmethod
    def from_checkpoint(cls, checkpoint, *, scale: float = 1.0):
        return cls(dim=round(scale * int(checkpoint)))


def thing():
    return "no encoder"


@dataclass(frozen=True)
class Frozen:
    spec: EncoderSpec = EncoderSpec("frozen", "1", ("text",), 2)

    def encode(self, items, role):
        yield from ()


def needing(*, size: int):
    return Letters(dim=size)
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `letters_package`, which names its encoders to crosslens, and a checkpoint."""
    site = tmp_path / "site"
    (site / "letters-1.0.dist-info").mkdir(parents=True)
    (site / "letters_package.py").write_text(MODULE)
    (site / "letters-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1.0\n")
    (site / "letters-1.0.dist-info/entry_points.txt").write_text(
        "[crosslens.encoders]\nletters = letters_package:Letters\nletter-file = letters_package:from_file\n"
        "gone = letters_package:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(site))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/dim").write_text("31")
    return tmp_path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    texts = {"d1": "aaaa bb", "d2": "zzzz yy", "d3": "mmmm"}
    lines = [json.dumps({"id": id, "text": text, "lang": "eng"}) + "\n" for id, text in texts.items()]
    (tmp_path / "source/docs.jsonl").write_text("".join(lines))
    return tmp_path / "source"


@pytest.mark.parametrize(
    "spec",
    [
        "py:letters_package:Letters?dim=40",
        "letters?dim=40",
        "py:letters_package:from_file:model",
        "letter-file:model",
        "py:letters_package:Loaded:10?scale=1.5",
    ],
)
def test_an_index_is_searched_by_the_spec_in_its_card(
    spec: str, package: Path, source: Path, crosslens: Callable[..., tuple[int, str, str]], monkeypatch
) -> None:
    monkeypatch.chdir(package)
    status, _, err = crosslens("index", source, package / "index", "--encoder", spec, "--no-cache")
    assert status == 0, err
    (space,) = open_index(package / "index").card.spaces
    assert space.spec.name == spec.replace(":model", f":{package}/model")
    monkeypatch.chdir("/")  # the paths in it are whole
    status, out, err = crosslens("search", package / "index", "zy", "--mode", "dense", "--json")
    assert status == 0, err
    assert json.loads(out)["hits"][0]["id"] == "d2"


def test_what_the_program_sets_is_given_to_those_who_take_it() -> None:
    letters = load_encoder("letters", device="cpu", trust_remote_code=True)
    assert letters.device == "cpu"  # type: ignore[attr-defined]
    assert load_for_index("letters", device="cpu").spec.name == "letters"


def test_trust_is_given_to_those_who_take_it(package: Path) -> None:
    encoder = load_encoder(f"letter-file:{package}/model", trust_remote_code=True)
    assert encoder.trusted  # type: ignore[attr-defined]
    assert next(encoder.encode([Item("a", "a")], "query")).vectors.shape == (1, 31)


@table(
    ("spec", "message"),
    [
        ("py:letters_package:Letters?size=3", "unknown option of py:letters_package:Letters 'size'.*known: dim"),
        ("py:letters_package:Letters?device=cpu", "unknown option of py:letters_package:Letters 'device'"),
        ("py:letters_package:Letters:model", "Letters cannot be called so .too many positional arguments"),
        ("py:letters_package:Loaded", "Loaded.from_checkpoint cannot be called so .missing a required argument: 'checkpoint'"),
        ("py:letters_package:needing", "needing cannot be called so .missing a required .*argument: 'size'"),
        ("py:letters_package:thing", "py:letters_package:thing makes a str, which is no encoder: it needs `spec`"),
        ("py:letters_package:Frozen", "its `spec` cannot be set; make it an attribute"),
        ("py:letters_package:Nothing", "cannot import letters_package:Nothing .*on PYTHONPATH"),
        ("py:nowhere:Letters", "cannot import nowhere:Letters"),
        ("py:letters_package", "write py:MODULE:NAME"),
        ("gone:x", "gone .of an installed package.: cannot import letters_package:Nothing"),
        ("leters", "unknown encoder family 'leters'; did you mean letters.*known: .*letter-file.*offline"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_encoder(spec)
    assert not re.search(r"\n", str(error.value))
