"""collections/published.py: publishers' files, found in directories and on the hub, and their rows."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.multilingual.collections.published import (
    DatasetFiles,
    read_judgements,
    read_parquet,
    read_rows,
    read_table,
)
from crosslens.multilingual.collections.registry import load_collection
from crosslens.rows.fields import FileRow
from stand_ins import small_collections as cases
from stand_ins.table import table


@pytest.mark.parametrize("name", ["topics.tsv", "topics.txt", "topics.tsv.gz", "topics.txt.gz"])
def test_lines_of_id_and_text_are_known_by_the_name_of_the_file(tmp_path, name):
    path = cases.put(tmp_path / name, "1\thello\tworld")
    assert [row for _, row in read_rows([path])] == [{"id": "1", "text": "hello\tworld"}]


def test_the_hub_is_asked_for_the_files_that_are_needed(tmp_path, monkeypatch):
    import huggingface_hub

    cases.miracl(tmp_path)
    asked = []

    def snapshot_download(repository, *, repo_type, allow_patterns):
        asked.append((repository, repo_type, allow_patterns))
        return str(tmp_path / repository.partition("/")[2])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    collection = load_collection("miracl?lang=yo")
    assert not asked  # nothing is fetched before it is read
    assert collection.check().judged == 2
    name = "miracl-corpus-v1.0-yo/docs-*.jsonl.gz"
    assert ("miracl/miracl-corpus", "dataset", [name, f"*/{name}"]) in asked
    assert load_collection("vidore:vidore/esg_reports_v2").name == "esg_reports_v2"

    def gone(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gone)
    with pytest.raises(InputError) as error:
        list(load_collection("miracl?lang=yo").docs())
    assert str(error.value).startswith("cannot fetch the data set miracl/miracl from the hub (no network); ")


def test_rows_of_files(tmp_path):
    with pytest.raises(InputError, match=r"a\.tsv:2: not `id TAB text` but 1 columns: 'alone'"):
        list(read_table(cases.put(tmp_path / "a.tsv", "1\ttext", "alone"), ("id", "text")))
    rows = cases.put_parquet(tmp_path / "a.parquet", *({"id": n} for n in range(200)))
    assert [row["id"] for _, row in read_parquet([rows], batch=7)] == list(range(200))
    assert [place for place, _ in read_parquet([rows])][1].endswith("a.parquet: row 2")
    cases.put(tmp_path / "b" / "a.tsv")
    cases.put(tmp_path / "b" / "b.tsv")
    with pytest.raises(InputError, match="could both be meant"):
        DatasetFiles(str(tmp_path)).get_one("b/*.tsv")
    with pytest.raises(InputError, match="is a file"):
        DatasetFiles(str(rows))


@table(
    ("grades", "message"),
    [
        (["1", "500000000"], "t:1: the grade 500000000 is above 1,000,000"),
        ([2_000_000.0], "t:0: the grade 2000000 is above"),
        ([1, 2], "t:1: document 'd' has two grades for topic 'q'"),
        (["1_0"], "t:0: the score '1_0' is not a whole number"),
        ([0.5], "t:0: the score 0.5 is not"),
        ([True], "t:0: the score True is not"),
        ([None], "t:0: the score None is not"),
    ],
)
def test_rows_of_judgements_are_checked(grades, message):
    rows = [(f"t:{at}", FileRow(query="q", doc="d", score=grade)) for at, grade in enumerate(grades)]
    with pytest.raises(InputError, match=message):
        read_judgements(iter(rows), "query", "doc", "score")
    assert read_judgements(iter([("t", FileRow(query="q", doc=7, score=-1.0))]), "query", "doc", "score") == {
        "q": {"7": -1}
    }
