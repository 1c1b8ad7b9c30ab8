"""The proof of the media seam: a modality that crosslens does not have, in this file alone, is indexed and searched."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from crosslens.commands.console import describe_item
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage.card import Windows
from crosslens.items import Dense, Item
from crosslens.media.modalities import Medium, register, unregister

NOTES = {name: bytes([number]) for number, name in enumerate(["do", "re", "mi", "fa", *map(str, range(40))])}
NAMES = {sound: name for name, sound in NOTES.items()}


def open_tone(source: Path | bytes) -> str:
    """A path or bytes, as `Medium.open` gets them: the name of the note."""
    data = source.read_bytes() if isinstance(source, Path) else source
    if data not in NAMES:
        raise InputError("not a tone")
    return NAMES[data]


@pytest.fixture(autouse=True)
def tone() -> Iterator[None]:
    encode = lambda stream: stream.getvalue()  # noqa: E731 (an object in memory is a stream here)
    register(Medium("tone", (".tone",), open_tone, encode, encode))
    yield
    unregister("tone")


class Ear:
    """An encoder of what it reads of text and tone: a word and the note of that name have one direction."""

    def __init__(self, *modalities: str, dim: int = 32) -> None:
        self.spec = EncoderSpec(f"toy:{'+'.join(modalities)}", "1", modalities, dim)
        self.encoded: list[str] = []

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            if role == "document":
                self.encoded.append(item.id)
            words = (item.text or "").split() if "text" in self.spec.modalities else []
            if "tone" in self.spec.modalities and (tone := item.media.get("tone")) is not None:
                words.append(open_tone(tone))
            yield Dense([item.id], unit(np.sum([self.direction(word) for word in words], axis=0))[None])

    def direction(self, word: str) -> np.ndarray:
        seed = hashlib.blake2b(word.encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(seed)).standard_normal(self.spec.dim)

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans = [[word.span() for word in re.finditer(r"\S+", text)] for text in texts]
        return [np.array(each, np.int64).reshape(-1, 2) for each in spans]

    def room(self, role: str = "document") -> int:
        return 64


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    (tmp_path / "mi.tone").write_bytes(NOTES["mi"])
    return [
        Item("do", media={"tone": NOTES["do"]}),
        Item("re", media={"tone": NOTES["re"]}, lang="eng", meta={"octave": 2}),
        Item("mi", media={"tone": tmp_path / "mi.tone"}),
        Item("song", "a song of love", lang="eng"),
        Item("scale", "the scale goes up", media={"tone": NOTES["fa"]}, lang="eng"),
        # Enough of each for scores to have a background.
        *(Item(f"t{n}", f"some other words {n}", lang="eng") for n in range(40)),
        *(Item(f"n{n}", media={"tone": NOTES[str(n)]}) for n in range(40)),
        *(Item(f"b{n}", f"both at {n}", media={"tone": NOTES[str(n)]}, lang="eng") for n in range(40)),
    ]


def ids(index: object, query: Item, **settings: object) -> list[str]:
    return [hit.id for hit in index.search([query], 200, **settings)[query.id]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["lance", "flat", "passages"])
def test_a_modality_from_outside_is_indexed_searched_and_resumed(kind: str, items: list[Item], tmp_path: Path) -> None:
    windows = Windows(3, 2) if kind == "passages" else None
    settings = {"kind": "lance" if windows else kind, "passages": windows}
    index = create_index(tmp_path / "index", **settings)  # type: ignore[arg-type]
    both = Ear("text", "tone")
    assert index.add(items[:2], both) == 2
    assert create_index(tmp_path / "index", **settings).add(items, both) == 123  # type: ignore[arg-type]
    encoder = Ear("text", "tone")
    index = open_index(tmp_path / "index", encoders=encoder)
    assert index.add(items, encoder) == 0
    assert encoder.encoded == []
    changed = Item("do", media={"tone": NOTES["fa"]})
    assert index.add([changed], encoder) == 1
    assert index.add(items[:1], encoder) == 1

    assert len(index) == 125
    assert index.get([item.id for item in items]) == items
    heard = Item("q", media={"tone": NOTES["do"]})
    assert ids(index, heard)[0] == "do"
    assert sorted(ids(index, heard)) == sorted(item.id for item in items)
    assert ids(index, Item("q", "mi"))[0] == "mi"
    assert describe_item(index.get(["do"])[0]) == {"text": "[(stored tone)]", "image": None}
    assert ids(index, Item("q", "love song", lang="eng"))[0] == "song"
    assert ids(index, Item("q", "scale", media={"tone": NOTES["fa"]}))[0] == "scale"
    for held in ("text", "tone", "text+tone"):
        kept = {item.id for item in items if item.modality == held}
        found = set(ids(index, heard, where={"modality": held}))
        assert found == kept or (windows and found > kept)  # a later passage of a document holds text alone
    assert ids(index, heard, where={"modality": ["tone"], "octave": 2}) == ["re"]
    # Full text has no answer for a tone: hybrid search is dense alone then.
    assert ids(index, heard, mode="hybrid") == ids(index, heard)
    assert ids(index, Item("q", "love", lang="eng"), mode="lexical") == ["song"]
    with pytest.raises(InputError, match=r"unknown modality 'tones'; did you mean tone\?"):
        index.search([heard], 3, where={"modality": "tones"})
    with pytest.raises(InputError, match="query 'q' holds image, which no encoder"):
        index.search([Item("q", image=b"no picture")], 3)


def test_spaces_that_read_less_than_there_is_are_fused(items: list[Item]) -> None:
    tones, both = Ear("tone"), Ear("text", "tone", dim=16)
    index = create_index("memory://")
    stored = [*items, Item("seen", "a picture of do", image=b"not opened")]
    assert index.add(stored, [tones, both]) == 126
    assert set(tones.encoded) == {item.id for item in items if item.media}
    assert [space.counts for space in index.card.spaces] == [{"tone": 84}, {"tone": 43, "text": 42, "text+tone": 41}]
    heard = Item("q", media={"tone": NOTES["re"]})
    assert ids(index, heard)[0] == "re"
    # What is text to this space is text+image in the index, and found as text.
    assert "seen" in ids(index, Item("q", "picture"))
    assert ids(index, Item("q", "picture"), where={"modality": "text+image"}) == ["seen"]
    assert index.add(stored, [tones, both]) == 0


def test_a_tone_in_memory_is_stored_as_bytes() -> None:
    index = create_index("memory://", lexical=False)
    index.add([Item("a", media={"tone": io.BytesIO(NOTES["do"])}), Item("b", media={"tone": NOTES["re"]})], Heard())
    assert index.get(["a"])[0].media == {"tone": NOTES["do"]}


class Heard(Ear):
    """An ear that does not listen."""

    def __init__(self) -> None:
        super().__init__("tone")

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            yield Dense([item.id], unit(np.ones((1, self.spec.dim))))


def test_an_index_of_a_modality_that_is_not_registered_says_so(items: list[Item], tmp_path: Path) -> None:
    create_index(tmp_path / "index").add(items, Ear("text", "tone"))
    medium = Medium("tone", (".tone",), open_tone, bytes, bytes)
    unregister("tone")
    try:
        with pytest.raises(InputError, match=r"unknown modality, which .*index holds, 'tone' \(known: image\)"):
            open_index(tmp_path / "index").get(["do"])
    finally:
        register(medium)
