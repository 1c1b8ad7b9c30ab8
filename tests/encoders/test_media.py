"""Encoders meet media beside text only through the table of modalities: a toy modality is enough for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec, encode_matrix
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.cache.store import compute_key
from crosslens.encoders.ensemble import Ensemble
from crosslens.errors import InputError
from crosslens.items import Dense, Item, Role
from crosslens.media.modalities import Medium, register, unregister
from PIL import Image


@pytest.fixture(autouse=True)
def tone() -> Iterator[None]:
    """Tones: numbers in memory, or files and bytes of them."""
    register(Medium("tone", (".tone",), float, lambda tone: str(tone).encode(), lambda tone: str(tone).encode()))
    yield
    unregister("tone")


class Hearing:
    """Counts what it is given; its vectors are of the tone, and of the text's length if it reads text."""

    def __init__(self, name: str = "hearing", modalities: tuple[str, ...] = ("text", "tone")) -> None:
        self.spec = EncoderSpec(f"{name}:x", name, modalities, 2)
        self.given: list[Item] = []

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        for item in items:
            self.given.append(item)
            heard = float(item.media["tone"]) if isinstance(item.media.get("tone"), float) else 1.0
            yield Dense([item.id], np.array([[heard, len(item.text or "") + 1.0]], np.float32))


def test_what_an_encoder_reads_decides_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.tone").write_bytes(b"440")
    values = [440.0, 441.0, b"440", tmp_path / "a.tone", None]
    keys = [compute_key(Item("a", "text", media={"tone": value}), ("text", "tone")) for value in values]
    assert len(set(keys)) == 4
    assert keys[2] == keys[3]  # the same bytes, in a file or not
    assert keys[4] == compute_key(Item("b", "text"), ("text", "tone"))
    for value in values:
        assert compute_key(Item("a", "text", media={"tone": value}), ("text",)) == keys[4]
    assert compute_key(Item("a", media={"tone": tmp_path / "none.tone"}), ("tone",)) is None
    picture = Image.new("RGB", (4, 4), "red")
    both = [compute_key(Item("a", image=picture, media={"tone": value}), ("image", "tone")) for value in (1.0, 2.0)]
    assert both[0] != both[1]


def test_a_tone_is_encoded_once() -> None:
    items = [Item("a", media={"tone": 440.0}), Item("b", media={"tone": 880.0}), Item("c", media={"tone": 440.0})]
    encoder = Hearing()
    found = encode_matrix(CachedEncoder(encoder), items, "document")
    assert found[:, 0].tolist() == [440, 880, 440]
    assert [item.id for item in encoder.given] == ["a", "b"]


def test_an_ensemble_gives_its_members_what_all_of_them_read() -> None:
    members = [Hearing("one"), Hearing("other", ("text", "image", "tone"))]
    ensemble = Ensemble(members)
    assert ensemble.spec.modalities == ("text", "tone")
    list(ensemble.encode([Item("a", "text", Image.new("RGB", (4, 4)), media={"tone": 440.0})], "document"))
    for member in members:
        (item,) = member.given
        assert (item.text, item.image, dict(item.media)) == ("text", None, {"tone": 440.0})
    with pytest.raises(InputError, match="one:x reads text; other:x reads tone"):
        Ensemble([Hearing("one", ("text",)), Hearing("other", ("tone",))])
    with pytest.raises(InputError, match="'a' holds neither text nor image nor tone, but ensemble:"):
        list(ensemble.encode([Item("a")], "document"))
    with pytest.raises(InputError, match="'a' holds image, but ensemble:.* encodes text and tone"):
        list(ensemble.encode([Item("a", image=Image.new("RGB", (4, 4)))], "document"))
