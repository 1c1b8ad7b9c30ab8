"""`benchmarks/rewriting.py` with a judge that writes by rules: it runs, goes on, and its tables hold what it found."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.registry import create_index
from crosslens.multilingual.collections.registry import load_collection
from stand_ins.writing import SAYS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def given(tmp_path, tiny_encoder, monkeypatch):
    """The script's main function, and arguments that name a collection, its index, and what is kept."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    root = tmp_path / "cats"
    root.mkdir()
    docs = [{"id": lang[:3], "text": text, "lang": lang} for lang, text in SAYS.items()]
    topics = [{"id": f"q{n}", "text": f"cat {n}", "lang": "eng"} for n in range(20)]
    for name, rows in (("docs", docs), ("topics", topics)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "qrels.txt").write_text("".join(f"q{n} 0 Rus 1\n" for n in range(20)))
    index = create_index(tmp_path / "index", device="cpu")
    index.add(load_collection(root).docs(), load_encoder(f"hf:{tiny_encoder}?pooling=mean&dtype=float32", device="cpu"))
    index.build()
    arguments = [
        "--judge",
        "py:stand_ins.writing:Writer",
        "--collection",
        str(root),
        "--index",
        str(tmp_path / "index"),
    ]
    return importlib.import_module("rewriting").main, [*arguments, "--out", str(tmp_path / "out.jsonl")]


def test_methods_are_measured_against_the_queries_as_they_are(given, tmp_path, capsys):
    main, arguments = given
    arguments += ["--methods", "query2doc?lang=rus,hyde?lang=rus", "--modes", "lexical", "--json"]
    arguments += ["--save", str(tmp_path / "saved.json")]
    assert main([*arguments, "--minutes", "1e-9"]) == 0
    assert "query2doc?lang=rus: 0 of 20 queries are written: run again" in capsys.readouterr().err
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == found  # what is written is not written, nor counted, again
    cost = found["costs"]["query2doc?lang=rus"]
    assert (cost["queries"], cost["calls"], cost["generated_tokens"]) == (20, 1, 3)
    (table,) = json.loads((tmp_path / "saved.json").read_text())["tables"]
    assert table["title"].endswith("cats, lexical")
    plain, expanded, _ = table["rows"]
    assert plain[:2] == ["as it is", "0.000"]
    # Each query finds the English document by its own word, and the Russian one after it.
    assert expanded[:3] == ["query2doc?lang=rus", "0.631", "<0.001"]
    assert expanded[-3:-1] == ["1.0", "3.0"]
