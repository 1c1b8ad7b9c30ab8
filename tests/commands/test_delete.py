"""`crosslens delete`, and `crosslens index` of a collection that has lost documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import open_index
from crosslens.items import Item
from crosslens.systems.indexing import index_collection

Command = Callable[..., tuple[int, str, str]]


def write_documents(folder: Path, *ids: str) -> None:
    rows = [{"id": id, "text": f"the cat sleeps {id}", "lang": "eng"} for id in ids]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def indexed(tmp_path: Path, tiny_encoder: Path, crosslens: Command) -> Callable[..., tuple[int, str, str]]:
    """Index documents of these ids from `source` into `index`."""
    (tmp_path / "source").mkdir()

    def run(*ids: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        write_documents(tmp_path / "source", *ids)
        encoder = ("--encoder", f"hf:{tiny_encoder}", "--device", "cpu", "--no-cache")
        return crosslens("index", tmp_path / "source", tmp_path / "index", *encoder, *options)

    assert run("a", "b", "c", "d")[0] == 0
    return run


def test_documents_that_the_collection_lacks_are_counted_and_removed_with_sync(indexed: Any, tmp_path: Path) -> None:
    status, out, err = indexed("a", "c", "e")
    assert (status, err) == (0, "2 documents of the index are not in the collection: --sync removes them\n")
    assert "5 documents" in out
    status, out, _ = indexed("a", "c", "e", options=("--json",))
    told = json.loads(out)
    assert (status, told["documents"], told["lacking"], told["removed"]) == (0, 5, 2, 0)
    status, out, err = indexed("a", "e", options=("--sync",))
    assert (status, err) == (0, "3 documents that the collection lacks were removed\n")
    assert sorted(open_index(tmp_path / "index").ids()) == ["a", "e"]
    status, out, _ = indexed("a", "e", options=("--sync", "--json", "--grace", "0"))
    told = json.loads(out)
    assert (status, told["documents"], told["lacking"], told["removed"]) == (0, 2, 0, 0)
    assert open_index(tmp_path / "index").card.grace == 0


def test_a_part_of_a_collection_is_not_synced_with(indexed: Any, tmp_path: Path) -> None:
    status, _, err = indexed("a", options=("--sync", "--skip-bad"))
    assert status == 2
    assert "--skip-bad leaves a part of it out: give one" in err
    status, _, err = indexed("a", options=("--grace", "-1"))
    assert status == 2
    assert "grace must be a number of seconds from 0 on, not -1" in err

    class Shrinking:
        name = ""

        def docs(self) -> Iterator[Item]:
            yield Item("a", "the cat sleeps a", lang="eng")

    spec = open_index(tmp_path / "index").specs[0].name
    with pytest.raises(InputError, match="had 4 documents when it was checked, and 1 when .* nothing was removed"):
        index_collection(Shrinking(), tmp_path / "index", [spec], documents=4, sync=True, device="cpu")  # type: ignore[arg-type]
    assert len(open_index(tmp_path / "index")) == 4


def test_ids_are_deleted_and_unknown_ones_counted(indexed: Any, tmp_path: Path, crosslens: Command) -> None:
    index = tmp_path / "index"
    (tmp_path / "ids").write_text("c\nnobody\n\n")
    status, out, err = crosslens("delete", index, "a", "a", "--ids", tmp_path / "ids")
    assert (status, out) == (0, f"{index}: 2 documents removed, 2 left\n")
    assert err == "not in the index, and passed over: nobody\n"
    status, out, _ = crosslens("delete", index, "a", "b", "--json")
    assert status == 0
    assert json.loads(out) == {"index": str(index), "removed": 1, "unknown": ["a"], "documents": 1}
    status, out, _ = crosslens("search", index, "cat a", "--mode", "lexical", "--json")
    assert [hit["id"] for hit in json.loads(out)["hits"]] == ["d"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((), "no documents are named"), (("--ids", "missing"), "cannot read missing"), (("x",), "is not an index")],
)
def test_what_cannot_be_deleted(arguments: tuple[str, ...], error: str, tmp_path: Path, crosslens: Command) -> None:
    status, _, err = crosslens("delete", tmp_path, *arguments)
    assert status == 2
    assert error in err
    assert len(err.splitlines()) == 1
