"""Looking after an index: what `info`, `list`, `get` and `export-vectors` say and write, and an index in Python."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.files import lock_directory
from crosslens.indexes.info import read_info
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Item
from pyarrow import parquet
from stand_ins.index_cases import CASES, Case, Hashing, png, same

Command = Callable[..., tuple[int, str, str]]
ITEMS = [
    Item("a/1 é", "w1 w2\nw3", lang="eng", meta={"topic": "x", "year": 2020}),
    Item("b'#0", "w4 " * 30, lang="zho", meta={"topic": "y"}),
    Item("c", "w5 w6", meta={"topic": "x"}),
    Item("p", image=png(9)),
]


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_an_index_in_python(case: Case) -> None:
    index = case.filled(ITEMS)
    assert [(item.id, item.text, item.lang, item.meta, item.image) for item in index] == [
        (item.id, item.text, item.lang, item.meta, item.image) for item in ITEMS
    ]
    assert "b'#0" in index
    assert ("b'#0#0" in index, "b" in index, 7 in index) == (False, False, False)
    assert f"4 documents, {case.name}, fake:hashing" in repr(index)
    assert "\n" not in repr(index)
    found = index.info()
    assert (found.documents, found.languages, found.modalities) == (4, {"eng": 1, "zho": 1}, {"image": 1, "text": 3})
    assert (found.complete, found.change, found.sizes, found.fingerprint) == (True, "", None, index.fingerprint)
    if case.windows or case.holds != "dense":
        with pytest.raises(InputError, match="export-vectors"):
            index.vectors(["c"])
        return
    expected = case.vectors(case.encoder().encode(ITEMS, "document"))
    vectors = index.vectors(["p", "c", "p"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.concatenate([expected[3], expected[2], expected[3]]), atol=1e-3)
    with pytest.raises(InputError, match="ids nobody"):
        index.vectors(["c", "nobody"])


def test_vectors_of_one_of_several_encoders() -> None:
    index = create_index("memory://")
    texts = Hashing(name="fake:texts", modalities=("text",), dim=8)
    index.add(ITEMS, [Hashing(), texts])
    assert index.vectors(["a/1 é", "c"], encoder="fake:texts").shape == (2, 8)
    assert np.isnan(index.vectors(["p"], texts.spec.fingerprint)).all()
    with pytest.raises(InputError, match=r"several encoders: choose one \(fake:hashing, fake:texts\)"):
        index.vectors(["c"])
    with pytest.raises(InputError, match="did you mean fake:texts"):
        index.vectors(["c"], "fake:text")


def test_exported_vectors(case: Case, tmp_path: Path, crosslens: Command) -> None:
    case.filled(ITEMS, tmp_path / "index")
    out = tmp_path / "out.parquet"
    status, told, err = crosslens("export-vectors", tmp_path / "index", out)
    assert (status, err) == (0, "")
    table = parquet.read_table(out)
    columns = {"dense": ["vector"], "multi": ["vectors"], "sparse": ["terms", "weights"]}[case.holds]
    assert table.schema.names == ["id", *["document"] * bool(case.windows), *columns]
    encoder = json.loads(table.schema.metadata[b"crosslens"])
    assert (encoder["name"], encoder["fingerprint"]) == ("fake:hashing", case.encoder().spec.fingerprint)
    rows = {row["id"]: row for row in table.to_pylist()}
    assert f"{len(rows)} " in told
    expected = case.vectors(case.encoder().encode(ITEMS, "document"))
    if case.windows:
        assert rows["c#0"]["document"] == "c"
        assert {row["document"] for row in rows.values()} == {item.id for item in ITEMS}
        assert len(rows) > len(ITEMS)
        found = rows["c#0"]["vector"]
    elif case.holds == "sparse":
        found = np.zeros(expected[2].shape[1])
        found[rows["c"]["terms"]] = rows["c"]["weights"]
    else:
        found = rows["c"][columns[0]]
    np.testing.assert_allclose(np.atleast_2d(found), expected[2], atol=1e-3)
    status, _, err = crosslens("export-vectors", tmp_path / "index", tmp_path / "out.npy")
    if case.holds != "dense":
        assert status == 2
        assert "write a .parquet" in err
        return
    written = np.load(tmp_path / "out.npy")
    assert (written.dtype, len(written)) == (np.float32, len(rows))
    ids = (tmp_path / "out.ids.txt").read_text("utf-8").splitlines()
    np.testing.assert_array_equal(written[ids.index(next(id for id in rows if id[0] == "c"))], np.float32(found))


def test_what_is_listed_and_shown(tmp_path: Path, crosslens: Command) -> None:
    for name in ("lance", "passages"):
        index = tmp_path / name
        CASES[name].filled([*ITEMS, Item("z", "\x1b[31m w7")], index)
        lines = crosslens("list", index)[1].splitlines()
        assert lines[0] == "a/1 é\teng\ttext\tw1 w2 w3"
        assert lines[3] == "p\t\timage\t[stored image]"
        assert lines[4] == "z\t\ttext\t\\x1b[31m w7"
        assert [len(line.split("\t")) for line in lines] == [4] * 5
        assert crosslens("list", index, "--limit", 1)[1].splitlines() == lines[:1]
        assert crosslens("list", index, "--lang", "zh")[1].startswith("b'#0\t")
        status, out, _ = crosslens("list", index, "--where", "topic=x", "--json")
        assert (status, json.loads(out)["count"]) == (0, 2)
        assert json.loads(out)["documents"][1] == {"id": "c", "lang": None, "modality": "text", "snippet": "w5 w6"}
        assert crosslens("list", index, "--lang", "swa")[1:] == ("", "no document matches\n")
        status, out, _ = crosslens("get", index, "p", "a/1 é", "--json")
        picture, text = json.loads(out)["documents"]
        assert (picture["image"], picture["text"]) == ("(stored image)", None)
        assert (text["text"], text["meta"]) == ("w1 w2\nw3", {"topic": "x", "year": 2020})
        assert '"topic": "x"' in crosslens("get", index, "a/1 é")[1]
        status, out, err = crosslens("get", index, "c", "no", "none")
        assert (status, out) == (2, "")
        assert "no documents with the ids no, none" in err
        told = json.loads(crosslens("info", index, "--json")[1])
        assert (told["documents"], told["languages"], told["complete"]) == (5, {"eng": 1, "zho": 1}, True)
        assert told["made_by"]["lancedb"]
        assert told["bytes"] == sum(each.stat().st_size for each in index.rglob("*") if each.is_file())
        assert sum(told["spaces"][0]["read"].values()) == (told["passages"] or {"count": 5})["count"]


def test_the_state_of_an_index(tmp_path: Path, crosslens: Command) -> None:
    def stop(items: list[Item]) -> Iterator[Item]:
        yield from items
        raise KeyboardInterrupt

    index = create_index(tmp_path / "index")
    with pytest.raises(KeyboardInterrupt):
        index.add(stop(ITEMS[:3]), Hashing(), window=1)
    found = read_info(tmp_path / "index")
    assert (found.complete, found.change, found.fingerprint, found.languages) == (False, "", None, {"eng": 1, "zho": 1})
    assert "unfinished: `crosslens index`" in str(found)
    assert "stored so far" in crosslens("list", tmp_path / "index")[2]
    assert "unfinished" in repr(open_index(tmp_path / "index"))
    with pytest.raises(InputError, match="unfinished"):
        index.view().require_complete()
    index.add(ITEMS, Hashing())
    with pytest.raises(KeyboardInterrupt):
        index.add(stop([Item("c", "other words")]), Hashing(), window=1)
    found = read_info(tmp_path / "index")
    assert (found.complete, found.change, found.documents) == (True, "interrupted", 4)
    assert "a change of it was interrupted" in str(found)
    with lock_directory(tmp_path / "index"):
        assert read_info(tmp_path / "index").change == "under way"
        assert "being changed now" in str(read_info(tmp_path / "index"))
    # Whoever asks at the same moment does not keep a writer out.
    with (tmp_path / "index" / ".lock").open() as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)
        assert read_info(tmp_path / "index").change == "interrupted"
    card = json.loads((tmp_path / "index" / "crosslens.json").read_text())
    del card["sha256"]
    (tmp_path / "index" / "crosslens.json").write_text(json.dumps(card | {"format": 99}))
    for verb in ("info", "list", "export-vectors"):
        status, out, err = crosslens(verb, tmp_path / "index", *["x.npy"] * (verb == "export-vectors"))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "index of format 99, and this crosslens reads format 1; update" in err


def test_metadata_alone_is_stored_without_encoding(case: Case) -> None:
    encoder = case.encoder()
    index = case.create()
    index.add(ITEMS, encoder)
    encoded, found = encoder.encoded, index.search(["w5 w4"], 3)
    changed = [replace(item, meta={"topic": "new", "_expansions": {"eng": "harbour"}}) for item in ITEMS]
    more = [*changed[:3], replace(changed[3], image=png(8)), Item("e", "w5")]
    assert index.add(more, encoder) == 5
    assert encoder.encoded == encoded + 2  # the other picture, and what is new
    assert [item.meta["topic"] for item in index.get(["a/1 é", "b'#0", "p"])] == ["new"] * 3
    assert {hit.id for hit in index.search(["w5 w4"], 3, where={"topic": "new"})["1"]} == {hit.id for hit in found["1"]}
    assert index.search(["harbour"], 9, mode="lexical")["1"]
    fresh = case.filled(more)
    assert index.fingerprint == fresh.fingerprint
    same(index.search(["w5 w4"], 5), fresh.search(["w5 w4"], 5))
    index.remove(["e"])
    assert index.add([replace(changed[0], lang="fra"), *changed[1:3]], encoder) == 1  # a language is read
    assert encoder.encoded == encoded + 3


def test_documents_are_added_by_the_encoders_that_the_index_has(tmp_path: Path, tiny_encoder: Path) -> None:
    index = create_index(tmp_path / "index", device="cpu")
    index.add(ITEMS[:2], load_encoder(f"hf:{tiny_encoder}", device="cpu"))
    again = open_index(tmp_path / "index", device="cpu")
    assert again.add(ITEMS[:3]) == 1
    assert again.info().spaces[0].read == {"text": 3}
    assert index.vectors(["c"]).any()
