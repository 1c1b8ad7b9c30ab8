"""`Index.add` of what Python programs hold documents in, and values of other libraries as metadata."""

from __future__ import annotations

import datetime
import math
import sys
import types
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest
from crosslens import create_index
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.rows.documents import read_documents
from crosslens.rows.values import to_json_value
from stand_ins.table import table

TABLE = pa.table({"id": ["a", "b"], "title": ["A", None], "text": ["x", "y"], "year": [2020, None]})
ITEMS = [Item("a", "A\nx", meta={"title": "A", "year": 2020}), Item("b", "y")]


class Exports:
    """A table of a library that is not known: it exports Arrow."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return TABLE.__arrow_c_stream__(requested_schema)


@table(
    "table",
    [
        TABLE, TABLE.to_batches()[0], TABLE.to_reader(), pyarrow.dataset.dataset(TABLE), Exports(), TABLE.to_pylist(),
        TABLE.to_pandas(), TABLE.to_pandas().set_index("id"), (row for row in TABLE.to_pylist()),
    ],
)  # fmt: skip
def test_tables_and_dictionaries_are_read_alike(table):
    assert list(read_documents(table)) == ITEMS


def test_a_data_set_is_read_without_decoding_its_pictures(tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "no.png").write_bytes(b"no picture")
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "tags": datasets.List(datasets.ClassLabel(names=["x", "y"])),
        }
    )
    rows = {"id": ["a", "b"], "image": [str(tmp_path / "no.png")] * 2, "kind": [1, -1], "tags": [[0, 1], []]}
    data = datasets.Dataset.from_dict(rows, features=features)
    second, first = read_documents(data.select([1, 0]))
    assert first == Item("a", image=tmp_path / "no.png", meta={"kind": "dog", "tags": ["x", "y"]})
    assert second.meta == {"tags": []}
    assert list(read_documents(data.to_iterable_dataset())) == [first, second]
    with pytest.raises(InputError, match=r"splits train, test is given: give one, data\['train'\]"):
        read_documents(datasets.DatasetDict(train=data, test=data))


def test_lists_may_hold_several_kinds():
    given = [
        Item("p", image=b"picture"), ("t", "pair"), (7, "number"), "a string", "a string",
        {"id": 1.0, "text": "whole", "image": np.nan}, {"id": "d", "text": "x", "lang": "de", "meta": {"k": [1]}},
    ]  # fmt: skip
    found = list(read_documents(given))
    assert [item.id for item in found] == ["p", "t", "7", "c96371fe3b093fb0", "1", "d"]
    assert found[-1] == Item("d", "x", lang="deu", meta={"k": [1]})
    assert next(read_documents(["a string"])) == found[3]  # the same string is the same document


def test_an_index_takes_them_and_adding_twice_changes_nothing(tmp_path):
    index = create_index(tmp_path / "index")
    for given, columns in ((["a cat", "a dog"], None), (pd.DataFrame({"n": [1], "said": ["hi"]}), "id=n,text=said")):
        added = index.add(given, columns=columns)
        assert added == len(given)
        assert index.add(given, columns=columns) == 0
    assert index.add(["a cat", "a bird", "a bird"]) == 1
    assert sorted(item.text for item in index.get(list(index.ids()))) == ["a bird", "a cat", "a dog", "hi"]


@table(
    "given",
    ["cat", b"cat", 5, 2.5, None, Path("x"), Item("a", "b"), {"id": "a", "text": "b"}, [1], [b"x"], [["a", "b"]],
     [("a", "b", "c")], np.zeros(3), [None]],
)  # fmt: skip
def test_what_documents_are_given_as_is_said_where_it_is_something_else(given):
    with pytest.raises(InputError, match=r"given .*Items, dictionaries, pairs \(id, text\) or strings, or as a table"):
        list(read_documents(given))


@table(
    ("given", "columns", "part"),
    [
        ([("a", "x"), {"text": "x", "id": None}], None, "document 2: no id"),
        ([("a", "x"), " "], None, "document 2: the string is blank"),
        ([("a b", "x")], None, "document 1: the id 'a b' has white space"),
        ([{"id": True, "text": "x"}], None, "document 1: id must be text, not bool"),
        ([{"id": 1.5, "text": "x"}], None, "document 1: id must be text, not float"),
        ([{"id": 1, "text": 5}], None, "document 1: text must be text, not int"),
        ([{"id": 1, "text": "x", "held": object()}], None, "document 1: a value of type object cannot be kept"),
        ([{"id": 1, "image": 5}], None, "document 1: the image of item '1' must be a pathlib"),
        ([{"name": "a", "text": "x"}], None, r"no column of ids .* among name, text; .*id=COLUMN.*id=# to number"),
        ([{"docnum": "a", "words": "x"}], "id=docnum", r"no column of text .* among docnum, words; say which: .*text="),
        ([{"id": "a", "text": "x"}], "text=txt", r"unknown column 'txt'; did you mean text\? \(known: id, text\)"),
        ([{"id": "a", "text": "x"}], "txt=text", "unknown part of a document in the columns 'txt'; did you mean text"),
        ([{"id": "a", "text": "x"}], "id", "'id' are not written as id=docno"),
        ([{"id": "a", "text": "x"}], "text=id,text=text", "give a part twice"),
        ([{"id": "a", "text": "x"}], "id=id+text", "several for id"),
        ([{"id": "a", "text": "x"}], "id=,text=text", "name none for the id"),
        (pd.DataFrame([[1, 2]], columns=["id", "id"]), None, "column 'id' is there twice"),
        (pa.table([["a"], ["b"]], names=["id", "id"]), None, "column 'id' is there twice"),
        (pa.table({"id": [1], "text": ["a"], "far": pa.array([2**62], pa.timestamp("us"))}), None, "column 'far'"),
        (types.SimpleNamespace(columns=["a"], __iter__=iter), None, "SimpleNamespace"),
    ],
)
def test_what_is_wrong_with_a_document_is_said(given, columns, part):
    with pytest.raises(InputError, match=part):
        list(read_documents(given, columns))


def test_a_lazy_frame_is_to_be_collected(monkeypatch):
    polars = types.ModuleType("polars")
    polars.LazyFrame = type("LazyFrame", (), {})
    monkeypatch.setitem(sys.modules, "polars", polars)
    with pytest.raises(InputError, match=r"give frame\.collect\(\)"):
        read_documents(polars.LazyFrame())


def test_values_become_json():
    day, nan = datetime.date(2020, 1, 2), float("nan")
    given = {
        "day": day, "then": pd.Timestamp("2020-01-02 03:04"), "utc": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        "time": datetime.time(1, 2), "span": datetime.timedelta(minutes=1), "stamp": np.datetime64("2020-01-02"),
        "whole": Decimal("3.00"), "part": Decimal("1.5"), "exact": Decimal("0.12345678901234567890123"),
        "array": np.array([[1, 2]]), "single": np.float32(0.5), "yes": np.True_, "set": {1}, "inf": math.inf,
        "id": UUID(int=1), "nested": {"a": [nan, {1: day}], "gone": None},
        "no": [None], "nan": nan, "nat": pd.NaT, "na": pd.NA, "notime": np.datetime64("NaT"), "bytes": b"x", "none": None,
    }  # fmt: skip
    assert to_json_value(given) == {
        "day": "2020-01-02", "then": "2020-01-02T03:04:00", "utc": "2020-01-02T00:00:00+00:00", "time": "01:02:00",
        "span": 60.0, "stamp": "2020-01-02", "whole": 3, "part": 1.5, "exact": "0.12345678901234567890123",
        "array": [[1, 2]], "single": 0.5, "yes": True, "set": [1], "inf": "inf",
        "id": "00000000-0000-0000-0000-000000000001", "nested": {"a": [None, {"1": "2020-01-02"}]}, "no": [None],
    }  # fmt: skip
