"""A folder that is indexed again and again: what is new or changed is encoded, and only that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from stand_ins.cheap_encoder import Cheap
from stand_ins.pdf_files import make_pdf
from stand_ins.small_collections import picture


class Counting(Cheap):
    """Which documents were encoded, in order."""

    def encode(self, items, role):
        self.ids = getattr(self, "ids", [])
        for item in items:
            self.ids.append(item.id)
            yield from super().encode([item], role)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "photos").mkdir(parents=True)
    (root / "photos/cat.png").write_bytes(picture("blue", "PNG"))
    (root / "photos/cat.txt").write_text("Eine Katze sitzt auf dem alten Sofa und schläft.")
    for number in range(3):
        (root / f"{number}.txt").write_text(f"This is the text of the note with the number {number}.")
    (root / "paper.pdf").write_bytes(make_pdf("The first page of this paper", "The second"))
    return root


def read(source: Path) -> Iterator[Item]:
    return fill_languages(load_collection(source, pages=True).docs())


def test_what_changes_is_encoded_again_and_once(source, tmp_path):
    index, encoder = create_index(source / "index"), Counting()
    assert index.add(read(source), encoder) == 6
    page, photo = index.get(["paper.pdf#2", "photos/cat.png"])
    assert page.image.startswith(b"\x89PNG")
    assert (photo.image, photo.lang, photo.meta["folder"]) == (source / "photos/cat.png", "deu", "photos")
    (source / "1.txt").write_text("This is another text.")
    (source / "photos/cat.png").write_bytes(picture("red", "PNG"))
    encoder.ids.clear()
    assert [index.add(read(source), encoder) for _ in range(2)] == [2, 0]
    assert encoder.ids == ["1.txt", "photos/cat.png"]
    collection = load_collection(source)
    assert collection.check().documents == 6
    assert collection.passed.to_json() == {"indexes": 1}  # it lies in the folder, and is no part of it


def test_what_is_stored_when_it_is_interrupted_is_not_encoded_again(source, tmp_path):
    def stop() -> Iterator[Item]:
        for item in read(source):
            if item.id == "paper.pdf#2":
                raise KeyboardInterrupt
            yield item

    encoder = Counting()
    with pytest.raises(KeyboardInterrupt):
        create_index(tmp_path / "index").add(stop(), encoder, window=2)
    stored = list(encoder.ids)
    assert len(stored) >= 2
    create_index(tmp_path / "index").add(read(source), encoder, window=2)
    assert encoder.ids[len(stored) :] == [item.id for item in read(source) if item.id not in stored]
    assert sorted(open_index(tmp_path / "index").ids()) == sorted(encoder.ids)
