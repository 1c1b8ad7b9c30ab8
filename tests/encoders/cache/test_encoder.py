"""The vector cache: what is found is what was encoded, and nothing is encoded twice."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.base import Tokenizes, encode_matrix
from crosslens.encoders.cache.encoder import HELD, CachedEncoder
from crosslens.encoders.cache.store import compute_key
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Batch, Item, Role, windows
from PIL import Image
from tiny.counting import DIM, Counting, documents, numbered, rows, vector

# What is found is what was encoded


@pytest.mark.parametrize("kind", ["dense", "multi", "sparse"])
def test_vectors_are_found_again_bit_for_bit_and_in_order(kind):
    items = numbered(1300)
    random.Random(0).shuffle(items)
    bare = rows(Counting(kind), items)
    encoder = Counting(kind)
    assert rows(CachedEncoder(encoder), items) == bare
    assert set(encoder.asked.values()) == {1}
    again = Counting(kind)
    assert rows(CachedEncoder(again), reversed(items)) == bare[::-1]
    assert not again.asked
    assert again.streams == 0


SPECS = [
    ("hf", "tiny_encoder", "hf:{}?dtype=float32"),
    ("late", "tiny_colbert", "late:{}?dtype=float32"),
    ("splade", "tiny_splade", "splade:{}?dtype=float32"),
]


@pytest.mark.parametrize(("family", "checkpoint", "spec"), SPECS, ids=[each[0] for each in SPECS])
def test_real_encoders_are_found_bit_for_bit(family, checkpoint, spec, request):
    encoder = load_encoder(spec.format(request.getfixturevalue(checkpoint)))
    items = [Item(f"d{n}", f"the cat number {n} " * (1 + n % 7)) for n in range(40)]
    encoder.budget.known = True  # else batches differ from stream to stream, and the last bits with them
    bare = rows(encoder, items)
    first, second = CachedEncoder(encoder), CachedEncoder(encoder)
    assert rows(first, items) == bare
    assert rows(second, items) == bare
    assert (first.found, second.found) == (0, 40)


def test_an_encoder_shows_its_tokens_through_the_cache_or_not_at_all(tiny_encoder):
    encoder = load_encoder(f"hf:{tiny_encoder}?dtype=float32")
    able, mute = CachedEncoder(encoder), CachedEncoder(Counting())
    assert isinstance(able, Tokenizes)
    assert not isinstance(mute, Tokenizes)
    assert (able.token_spans(["a cat"])[0] == encoder.token_spans(["a cat"])[0]).all()
    assert able.room() == encoder.room()
    assert able.room("query") == encoder.room("query")
    assert able.spec == encoder.spec
    encoder.processes = 3  # type: ignore[attr-defined]
    assert [each.processes for each in (CachedEncoder(encoder), CachedEncoder(Counting()))] == [3, 1]


# Nothing is encoded twice


def test_equal_content_is_encoded_once_within_a_window_and_across_runs_and_collections():
    encoder = Counting(window=3)
    first = documents("one", "two", "one", "three", "two", "one", "four", "four")
    layer = CachedEncoder(encoder)
    found = rows(layer, first)
    assert [id for id, _ in found] == [item.id for item in first]
    assert [each for _, each in found] == [repr((DIM,)).encode() + vector(str(i.text)).tobytes() for i in first]
    assert set(encoder.asked.values()) == {1}
    assert layer.found == 4
    other = [Item(f"other-{item.id}", item.text, lang="eng", meta={"url": "x"}) for item in first]
    assert rows(CachedEncoder(encoder), [*other, Item("new", "five")])[-1][0] == "new"
    assert encoder.asked == Counter(["one", "two", "three", "four", "five"])


def test_many_equal_items_wait_for_one_and_for_no_more_than_a_window():
    encoder = Counting(window=10_000)
    read = 0

    def stream() -> Iterator[Item]:
        nonlocal read
        for number in range(5000):
            read += 1
            yield Item(f"d{number}", "the same" if number else "first")

    out = CachedEncoder(encoder).encode(stream(), "document")
    next(out)
    assert read <= 2 * HELD["dense"] + 2
    assert sum(len(batch.ids) for batch in out) == 5000 - HELD["dense"]
    assert encoder.asked == Counter(["first", "the same"])


def test_a_new_collection_goes_to_the_encoder_as_one_stream():
    encoder = Counting()
    rows(CachedEncoder(encoder), numbered(4000))
    assert encoder.streams == 1
    rows(CachedEncoder(encoder), numbered(4000))  # all found: it is not asked at all
    assert encoder.streams == 1


def test_where_most_is_found_little_is_read_ahead():
    rows(CachedEncoder(Counting()), numbered(6000))
    rare = [Item(f"n{n}", f"text {n}" if n % 997 else f"new {n}", lang="eng") for n in range(6000)]
    encoder = Counting(window=10_000)
    read = given = 0

    def stream() -> Iterator[Item]:
        nonlocal read
        for item in rare:
            read += 1
            yield item

    found = []
    for batch in CachedEncoder(encoder).encode(stream(), "document"):
        given += len(batch.ids)
        found += batch.ids
        assert read - given <= 3 * HELD["dense"]
    assert found == [item.id for item in rare]
    assert sorted(encoder.asked) == sorted(f"new {n}" for n in range(0, 6000, 997))


def test_an_encoder_may_read_its_input_in_a_thread():
    class Threaded(Counting):
        def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
            import queue

            waiting: queue.Queue[list[Item] | None] = queue.Queue(2)

            def read() -> None:
                for group in windows(items, 50):
                    waiting.put(group)
                waiting.put(None)

            thread = threading.Thread(target=read)
            thread.start()
            while (group := waiting.get()) is not None:
                self.asked.update(item.text or "" for item in group)
                yield self.batch(group)
            thread.join()

    rows(CachedEncoder(Counting()), numbered(1000, 500))
    items = numbered(3000) + [replace(item, id=f"again-{item.id}") for item in numbered(3000)]
    encoder = Threaded()
    assert rows(CachedEncoder(encoder), items) == rows(Counting(), items)
    assert set(encoder.asked.values()) == {1}
    assert len(encoder.asked) == 2000


def test_what_decides_a_vector_decides_what_is_found(tmp_path):
    encoder = Counting()
    base = documents("text")
    rows(CachedEncoder(encoder), base)
    for other in (Counting(name="other"), Counting(dtype="bfloat16")):
        rows(CachedEncoder(other), base)
        assert other.asked == Counter(["text"])
    rows(CachedEncoder(encoder), documents("text", lang="deu"))
    assert encoder.asked == Counter({"text": 2})
    rows(CachedEncoder(encoder), documents("text", lang="deu"))
    assert encoder.asked == Counter({"text": 2})
    rows(CachedEncoder(encoder), [replace(base[0], image=tmp_path / "read by no one.png")])
    assert encoder.asked == Counter({"text": 2})
    for _ in range(2):
        list(CachedEncoder(encoder).encode(base, "query"))
    assert encoder.asked == Counter({"text": 4})


def test_pictures_are_known_by_their_content(tmp_path):
    def key(item: Item) -> bytes | None:
        return compute_key(item, ("text", "image"))

    def drawn(name: str, shade: int) -> Path:
        Image.new("RGB", (9, 7), (shade, 0, 0)).save(tmp_path / name)
        return tmp_path / name

    first, copy, other = drawn("a.bmp", 1), drawn("b.bmp", 1), drawn("c.bmp", 2)
    assert key(Item("x", image=first)) == key(Item("y", image=copy)) == key(Item("z", image=first.read_bytes()))
    assert key(Item("x", image=first)) != key(Item("x", image=other))
    assert key(Item("x", "a", image=first)) not in (key(Item("x", image=first)), key(Item("x", "a")))
    # Same name, size and time of change, another picture: what a resume would not see.
    before, state = key(Item("x", image=first)), first.stat()
    other.replace(first)
    os.utime(first, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert first.stat().st_size == state.st_size
    assert key(Item("x", image=first)) != before
    assert key(Item("x", image=tmp_path / "none.png")) is None
    os.mkfifo(tmp_path / "pipe")
    assert key(Item("x", image=tmp_path / "pipe")) is None
    # In memory: what the pixels mean counts, too.
    plain = Image.new("P", (4, 4))
    plain.putpalette([1, 2, 3])
    coloured = plain.copy()
    coloured.putpalette([9, 2, 3])
    assert key(Item("x", image=plain)) == key(Item("x", image=plain.copy()))
    assert key(Item("x", image=plain)) != key(Item("x", image=coloured))
    assert Item("x", image=plain).content_hash() != Item("x", image=coloured).content_hash()


def test_decoded_pictures_are_known_by_what_they_show(tmp_path):
    def hashes(image: Image.Image) -> tuple[object, ...]:
        return Item("x", image=image).content_hash(), compute_key(Item("x", image=image), ("image",))

    plain = Image.new("RGB", (4, 3), (1, 2, 3))
    # As written before there were other media: files of the cache, and indexes that are gone on with, hold them.
    assert hashes(plain) == ("6f59c1e06a97148a4426591736320e38", bytes.fromhex("b471b6cc81e70cb6f9c36a494d18b2dc"))

    def turned(orientation: int, kind: str) -> Image.Image:
        exif = Image.Exif()
        exif[0x0112] = orientation
        plain.save(tmp_path / "turned", kind, exif=exif)
        return Image.open(tmp_path / "turned")

    assert hashes(turned(1, "PNG"))[0] == hashes(plain)[0]  # upright, and says so
    assert hashes(turned(6, "PNG"))[0] != hashes(plain)[0]
    tiff = turned(6, "TIFF")
    assert hashes(tiff) == hashes(tiff)  # decoding turns it upright
    red, blue = (Image.new("P", (4, 4)) for _ in range(2))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    for one, other in zip(hashes(red.convert("PA")), hashes(blue.convert("PA")), strict=True):
        assert one != other


def test_what_is_text_and_what_is_language_is_no_guess():
    assert compute_key(Item("x", "aeng"), ("text",)) != compute_key(Item("x", "a", lang="eng"), ("text",))


def test_a_picture_that_is_not_there_is_the_encoders_error(tiny_clip, tmp_path):
    encoder = CachedEncoder(load_encoder(f"clip:{tiny_clip}?dtype=float32"))
    with pytest.raises(InputError, match=r"none\.png"):
        rows(encoder, [Item("x", image=tmp_path / "none.png")])
    Image.new("RGB", (40, 30), (9, 8, 7)).save(tmp_path / "none.png")
    (_, made), (_, found) = rows(encoder, [Item("x", image=tmp_path / "none.png")] * 2)
    assert made == found
    assert encoder.found == 1


def test_vectors_that_are_not_finite_are_handed_on_and_not_kept():
    class Broken(Counting):
        def batch(self, group: list[Item]) -> Batch:
            batch = super().batch(group)
            batch.vectors[[item.text == "bad" for item in group], 3] = np.nan  # type: ignore[call-overload]
            return batch

    encoder = Broken()
    for _ in range(2):
        made = encode_matrix(CachedEncoder(encoder), documents("good", "bad"), "document")  # type: ignore[arg-type]
        assert np.isnan(made).any(axis=1).tolist() == [False, True]
    assert encoder.asked == Counter({"good": 1, "bad": 2})


@pytest.mark.parametrize("spoil", ["order", "few"])
def test_an_encoder_that_loses_or_swaps_items_is_found_out(spoil):
    class Broken(Counting):
        def batch(self, group: list[Item]) -> Batch:
            return super().batch(group[::-1] if spoil == "order" else group[:-1])

    with pytest.raises(InputError, match="count:x gave"):
        rows(CachedEncoder(Broken()), numbered(10))
