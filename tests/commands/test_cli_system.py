"""`--system LINE` on `search` and `run`: the same as its shorthand, and refused where it does not fit the index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stand_ins.table import table

DOCS = {
    "cat": ("eng", "The cat sleeps all day and hunts at night."),
    "chat": ("fra", "Le chat dort toute la journée et chasse la nuit."),
    "train": ("eng", "The night train to the coast was late again."),
    "gato": ("spa", "El gato duerme todo el día y caza por la noche."),
}


@pytest.fixture
def index(crosslens, tiny_encoder, tmp_path: Path) -> tuple[Path, Path]:
    source = tmp_path / "source"
    source.mkdir()
    rows = [{"id": id, "lang": lang, "text": text} for id, (lang, text) in DOCS.items()]
    (source / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    topics = [{"id": "1", "text": "sleeping cat", "lang": "eng"}, {"id": "2", "text": "night", "lang": "eng"}]
    (source / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topics))
    made = tmp_path / "index"
    spec = f"hf:{tiny_encoder}?pooling=mean&dtype=float32"
    assert crosslens("index", source, made, "--encoder", spec)[0] == 0
    return made, source


def test_flags_are_shorthand_for_a_line(crosslens, index, tiny_judge):
    made, _ = index
    judge = f"yesno@hf:{tiny_judge}?dtype=float32&depth=3&k=2"
    for flags, line in (
        ([], "hybrid"),
        (["--mode", "dense", "--no-correction"], "dense?correct=false"),
        (["--mode", "lexical", "--lang", "spanish", "--lang", "eng"], "lexical?lang=spa,eng"),
        (["--mode", "dense", "--rerank", judge], f"dense >> {judge}"),
    ):
        found = [
            crosslens("search", made, "the cat at night", "-k", 3, *each, "--json")
            for each in (flags, ["--system", line])
        ]
        (by_flags, by_line) = (json.loads(out) for _, out, _ in found)
        assert by_flags["hits"] == by_line["hits"], line
        assert [s["fingerprint"] for s in by_flags["stages"]] == [s["fingerprint"] for s in by_line["stages"]]


def test_a_run_by_a_line_uses_the_topics_of_its_collection(crosslens, index, tmp_path):
    made, source = index
    fused = tmp_path / "fused.trec"
    status, out, err = crosslens(
        "run", made, source, "-o", fused, "-k", 3, "--system", "rrf(dense % 4, topics >> lexical) % 3", "--json"
    )
    assert status == 0, err
    stages = [stage["stage"] for stage in json.loads(out)["stages"]]
    assert stages[-2:] == ["rrf(dense >> % 4, topics >> lexical (BM25, k1=1.2, b=0.75))", "% 3"]
    again = tmp_path / "again.trec"
    status, _, err = crosslens("run", made, source, "-o", again, "-k", 2, "--system", f"run?file={fused} % 2")
    assert status == 0, err
    wanted = [line.split()[:4] for line in fused.read_text().splitlines() if line.split()[3] in "12"]
    assert [line.split()[:4] for line in again.read_text().splitlines()] == wanted


@table(
    ("line", "message"),
    [
        ("dens", "did you mean dense?"),
        ("dense >>", "a stage was expected"),
        ("dense?encoder=offline:use-m3", "is searched by all its encoders"),
        ("dense?window=8&stride=4", "is an index of whole documents, not of passages of 8 tokens"),
        ("dense?index=flat", "is an index of kind lance, not flat"),
        ("dense?documents=english", "unknown documents"),
        ("dense?lang=rus", "has no documents in rus"),
        ("topics >> dense", "this stage needs a collection"),
    ],
)
def test_a_line_that_does_not_fit_is_one_line(crosslens, index, line, message):
    status, out, err = crosslens("search", index[0], "cat", "--system", line)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_line_and_its_shorthand_exclude_each_other(crosslens, index):
    status, _, err = crosslens("search", index[0], "cat", "--system", "dense", "--mode", "lexical")
    assert status == 2
    assert "leave out --mode" in err


def ranked(path: Path) -> list[tuple[str, str]]:
    return [(line.split()[0], line.split()[2]) for line in path.read_text().splitlines()]


def test_what_a_topic_excludes_is_not_found_and_not_reranked(crosslens, index, tiny_judge, tmp_path):
    made, source = index
    topics = [{"id": "cat", "text": DOCS["cat"][1], "lang": "eng", "excluded_ids": ["gato"]}]
    (source / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topics))
    judge = f"yesno@hf:{tiny_judge}?dtype=float32"
    out = tmp_path / "out.trec"
    for arguments, found in (
        (["--mode", "dense"], {"cat", "chat", "train"}),
        (["--exclude", "self"], {"chat", "train"}),
        (["--exclude", "self", "--mode", "dense", "--rerank", judge], {"chat", "train"}),
        (["--exclude", "self", "--system", "dense?exclude=none"], {"cat", "chat", "train", "gato"}),
        (["--exclude", "none", "--mode", "dense"], {"cat", "chat", "train", "gato"}),
    ):
        status, _, err = crosslens("run", made, source, "-o", out, "-k", 4, *arguments)
        assert status == 0, err
        assert {doc for _, doc in ranked(out)} == found
    assert len(ranked(out)) == 4
    again = tmp_path / "again.trec"
    for arguments, count in ([], 3), (["--exclude", "self"], 2), (["--exclude", "none"], 4):
        status, _, err = crosslens("rerank", out, source, "--rerank", judge, "-o", again, *arguments)
        assert status == 0, err
        assert len(ranked(again)) == count
        system = f"run?file={out}" + "&exclude=self" * (count == 2) + "&exclude=none" * (count == 4)
        assert crosslens("run", made, source, "-o", again, "--system", system)[0] == 0
        assert len(ranked(again)) == count
    status, _, err = crosslens("run", made, source, "-o", out, "--exclude", "me")
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown choice of what to exclude 'me'" in err


def test_a_search_can_leave_out_the_document_that_it_is_made_of(crosslens, index):
    for mode in ("dense", "hybrid", "lexical"):
        ask = ("search", index[0], DOCS["cat"][1], "-k", 2, "--mode", mode, "--json")
        (first, *_), others = (
            [hit["id"] for hit in json.loads(crosslens(*ask, *more)[1])["hits"]] for more in ([], ["--exclude", "self"])
        )
        assert first == "cat"
        assert others
        assert "cat" not in others
    status, _, err = crosslens("search", index[0], "cat", "--system", "dense?exclude=none", "--exclude", "self")
    assert status == 0, err
