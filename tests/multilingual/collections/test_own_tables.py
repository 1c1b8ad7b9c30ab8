"""Files of rows and data sets as collections: which columns are what, what is refused, and where."""

from __future__ import annotations

import datetime
import json
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import MissingPart
from crosslens.multilingual.collections.own.tables import TableFile
from crosslens.multilingual.collections.registry import load_collection
from stand_ins.table import table


def write_rows(path: Path, table: pa.Table) -> Path:
    """A table as a file in the form that its name says; `.stream.arrow` is a stream."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        make = pa.ipc.new_stream if ".stream" in path.name else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, make(file, table.schema) as out:
            out.write_table(table)
    return path


def read_text(path: Path, content: str | bytes, **options) -> TableFile:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_collection(path, **options)


@table("name", ["a.parquet", "a.feather", "a.arrow", "a.stream.arrow", "A.PARQUET.arrow"])
def test_binary_files_of_any_types(tmp_path, name):
    table = pa.table(
        {
            "docno": pa.array([1.0, 2.0, 3.0]),  # whole numbers as pandas keeps them beside gaps
            "Title": pa.array(["A", "B", None]).dictionary_encode(),
            "body": pa.array(["x", None, "z"], pa.large_string()),
            "image": [{"bytes": None, "path": "p.png"}, {"bytes": b"P", "path": "elsewhere/q.png"}, None],
            "language": ["en", None, "de"],
            "date": pa.array([0, 1, None], pa.date32()),
            "when": pa.array([1, None, 10**18 + 1], pa.timestamp("ns", "UTC")),
            "price": [Decimal("1.50"), Decimal("2.00"), None],
            "nested": [{"a": [1, None]}, None, {"a": None}],
            "score": [0.5, float("nan"), None],
            "__index_level_0__": [0, 1, 2],
        }
    )
    (tmp_path / "p.png").touch()
    collection = load_collection(write_rows(tmp_path / name, table))
    assert collection.notes == [
        "columns: id=docno, text=Title+body, image=image, lang=language, meta: Title, date, when, price, nested, score"
    ]
    first, second, third = collection.docs()
    meta = {"Title": "A", "when": "1970-01-01T00:00:00+00:00", "price": 1.5, "nested": {"a": [1, None]}, "score": 0.5}
    assert first == Item("1", "A\nx", (tmp_path / "p.png").resolve(), "eng", {**meta, "time": "1970-01-01"})
    assert second == Item("2", "B", b"P", None, {"Title": "B", "price": 2, "time": "1970-01-02"})
    assert third == Item("3", "z", None, "deu", {"when": "2001-09-09T01:46:40+00:00", "nested": {}})
    assert collection.check().images == 2
    assert collection.langs == {"eng", "deu"}
    chosen = load_collection(
        tmp_path / name, columns="id=#,text=body+Title, lang=,image=,meta=score+docno", skip_bad=True
    )
    assert [(item.id, item.text, item.meta) for item in chosen.docs()] == [
        ("1", "x\nA", {"docno": 1.0, "score": 0.5}), ("2", "B", {"docno": 2.0}), ("3", "z", {"docno": 3.0})
    ]  # fmt: skip


def test_separated_values(tmp_path):
    text = '\ufeff,id,text,note,year\r\n0,007,"two\r\nlines, ""said""",,2020\r\n\r\n1,b,' + "x" * 200_000 + ",n,\r\n"
    collection = read_text(tmp_path / "a.csv", text)
    first, second = collection.docs()
    assert first == Item("007", 'two\r\nlines, "said"', meta={"year": "2020"})
    assert (len(second.text), second.meta) == (200_000, {"note": "n"})
    assert [item.text for item in read_text(tmp_path / "b.csv", "id;text\na;b, c\n").docs()] == ["b, c"]
    assert [item.text for item in read_text(tmp_path / "c.tsv", 'id\ttext\na\t"b" c\nd\t"e\n').docs()] == [
        '"b" c',
        '"e',
    ]


@table(
    ("line", "part"),
    [
        ("a", r"a\.csv:3: 1 values, where the first line names 3 columns"),
        ("a,b,c,d", r"a\.csv:3: 4 values"),
        ('a,"b"c,d', r"a\.csv:3: no row of separated values, is a quote not closed\?"),
        (",b,", r"a\.csv:3: no id"),
        ("good,b,", r"a\.csv:3: the id 'good' occurs a second time"),
        ("a,,", r"a\.csv:3: document 'a' has neither text nor image"),
        ("a,,../a.png", r"a\.csv:3: the image '\.\./a\.png' lies outside"),
        ("a,,http://x/a.png", r"a\.csv:3: the image 'http://x/a\.png' is an address, and nothing is fetched"),
    ],
)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, line, part):
    content = f"id,text,image\ngood,x,\n{line}\nlast,y,\n"
    with pytest.raises(InputError, match=part):
        list(read_text(tmp_path / "a.csv", content).docs())
    lenient = load_collection(tmp_path / "a.csv", skip_bad=True)
    for _ in range(2):
        assert [item.id for item in lenient.docs()] == ["good", "last"]
        assert lenient.skipped == 1
    with pytest.raises(InputError, match=r"a\.csv:3: .*quote not closed"):
        read_text(tmp_path / "a.csv", content.replace(line, '"')).check()


@table(
    ("name", "content", "part"),
    [
        ("a.csv", "sentence\nhello\n", r"a\.csv: no column of ids .* among sentence; say which: .*id=# to number"),
        ("a.csv", "key,head line\n1,x\n", r"among key, 'head line'; say which: --columns id=key"),
        ("a.csv", "id,head\n1,x\n", r"a\.csv: no column of text .*or image among id, head; say which: --columns text="),
        ("a.csv", "id,text,text\n1,x,y\n", "column 'text' is there twice"),
        ("a.csv", "id,text,language\n1,x,python\n", r"a\.csv:2: unknown language 'python'.*--columns lang="),
        ("a.csv", "id,text\n1,x\n".encode("utf-16"), "is it UTF-16"),
        ("a.csv", "id,text\n1,é\n".encode("latin-1"), r"a\.csv:2: not UTF-8"),
        ("a.csv", "id,text\r1,x\r", r"a\.csv:1: a carriage return alone is no line end"),
        ("a.csv", "", "a.csv has no documents"),
        ("a.csv", "id,text\n", "a.csv has no documents"),
        ("a.jsonl", "", "a.jsonl has no documents"),
        ("a.jsonl", '{"name": "a", "text": "b"}\n', r"a\.jsonl: no column of ids .* among name, text"),
        ("a.parquet", b"PAR1", r"cannot read .*a\.parquet: "),
        ("a.arrow", b"no", r"cannot read .*a\.arrow: "),
        ("a.feather", b"FEA1....", r"cannot read .*a\.feather: .*first version.*write_feather"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, part):
    with pytest.raises(InputError, match=part):
        read_text(tmp_path / name, content).check()


def test_a_table_without_rows_and_a_damaged_one(tmp_path):
    table = pa.table({"id": ["a"] * 9, "text": ["x"] * 9})
    with pytest.raises(InputError, match="has no documents"):
        load_collection(write_rows(tmp_path / "none.parquet", table.slice(0, 0))).check()
    path = write_rows(tmp_path / "cut.stream.arrow", table)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"cannot read .*cut\.stream\.arrow after row 0: "):
        list(load_collection(path, skip_bad=True).docs())


@pytest.mark.parametrize("name", ["a.arrow", "a.stream.arrow"])
def test_offsets_out_of_an_arrow_file_show_no_memory(tmp_path, name):
    offsets = pa.py_buffer(np.array([0, -1_000_000_000, 5, 9], np.int32).tobytes())
    text = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abcdefghi")])
    path = write_rows(tmp_path / name, pa.table({"id": ["1", "2", "3"], "text": text}))
    with pytest.raises(InputError, match=r"cannot read .* after row 0: .*offset"):
        load_collection(path).check()


def test_lines_of_json_as_ever(tmp_path):
    rows = [
        {"id": "a", "text": "Hund", "date": "2020"},
        {"id": 2, "title": "T", "text": "x", "lang": "de", "n": [None]},
    ]
    collection = read_text(tmp_path / "deu.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert collection.name == "deu.jsonl"
    assert collection.notes == ["columns: id=id, text=title+text, lang=lang, meta: date, title, n"]
    assert list(collection.docs()) == [
        Item("a", "Hund", meta={"time": "2020"}), Item("2", "T\nx", lang="deu", meta={"title": "T", "n": [None]})
    ]  # fmt: skip
    (tmp_path / "topics.jsonl").write_text('{"id": "t", "text": "dog"}\n')  # belong to a directory
    for ask in (collection.queries, collection.qrels):
        with pytest.raises(MissingPart, match=r"deu\.jsonl has no (topics|qrels)"):
            ask()


def test_a_saved_data_set_is_one_of_its_splits(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        write_rows(tmp_path / split / "data.stream.arrow", pa.table({"id": [split], "text": ["x"]}))
        (tmp_path / split / "state.json").write_text('{"_data_files": [{"filename": "data.stream.arrow"}]}')
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match="has the splits train, test: name one of them, .*/train"):
        load_collection(tmp_path)
    assert [item.id for item in load_collection(tmp_path / "test").docs()] == ["test"]
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert [item.id for item in load_collection(tmp_path).docs()] == ["train"]
    for split in ("..", "/", "", "a/../train"):
        (tmp_path / "train" / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
        with pytest.raises(InputError, match="which does not lie beside it"):
            load_collection(tmp_path / "train")
    (tmp_path / "train" / "dataset_dict.json").unlink()
    (tmp_path / "train" / "state.json").write_text('{"_data_files": [{"filename": "../../secret"}]}')
    with pytest.raises(InputError, match="names no files that lie beside it"):
        load_collection(tmp_path)


def test_a_data_set_of_the_hub_by_name(tmp_path, monkeypatch):
    features = {"kind": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    for split in ("train", "test"):
        pictures = [{"bytes": b"P", "path": "p.png"}, {"bytes": None, "path": "/etc/passwd"}]
        table = pa.table({"id": [f"{split}1", "2"], "text": ["x", "y"], "image": pictures, "kind": [1, 0]})
        noted = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(noted), tmp_path / f"{split}-0.parquet")
    with pytest.raises(InputError, match=r"has the splits .*: add \?split=train"):
        load_collection(f"hfd:{tmp_path}")
    with pytest.raises(InputError, match=r"cannot open the data set .*: Bad split: dev"):
        load_collection(f"hfd:{tmp_path}?split=dev")
    collection = load_collection(f"hfd:{tmp_path}?split=test", skip_bad=True)
    assert collection.name.endswith("-test")
    assert [(item.id, item.image) for item in collection.docs()] == [("test1", b"P")]
    assert "no content: download the data set" in collection.problems[0]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs datasets: pip install 'crosslens\[datasets\]'"):
        load_collection("hfd:owner/name")


def test_data_sets_of_mteb(tmp_path):
    for lang, id in (("en", "d1"), ("de", "d2")):
        for folder, row in (
            ("corpus", {"_id": id, "title": "T", "text": "x", "seen": datetime.date(2020, 1, 1)}),
            ("queries", {"_id": f"q-{lang}", "text": "what"}),
            ("qrels", {"query-id": f"q-{lang}", "corpus-id": id, "score": 1.0}),
        ):
            (path := tmp_path / f"{lang}-{folder}").mkdir()
            pq.write_table(pa.Table.from_pylist([row]), path / "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match="has the subsets de, en: say which, mteb:.*subset=de"):
        load_collection(tmp_path)
    collection = load_collection(tmp_path, subset="de")
    assert list(collection.docs()) == [Item("d2", "T\nx", lang="deu", meta={"title": "T", "seen": "2020-01-01"})]
    assert [query.id for query in collection.queries()] == ["q-de"]
    assert collection.qrels() == {"q-de": {"d2": 1}}
    with pytest.raises(MissingPart, match="de-qrels/dev"):
        load_collection(tmp_path, subset="de", split="dev").qrels()
