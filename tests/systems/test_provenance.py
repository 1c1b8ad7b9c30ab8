"""What a run was made with stands in its manifest: all by which two runs may differ, and no secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crosslens.items import Item
from crosslens.systems.provenance import describe_items, hide_secrets


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    from crosslens.indexes.registry import create_index

    root = tmp_path_factory.mktemp("provenance")
    (root / "c").mkdir()
    docs = [
        {"id": "cat", "text": "The cat sleeps.", "lang": "eng"},
        {"id": "dog", "text": "A dog runs.", "lang": "eng"},
    ]
    wording = {"lang": "eng", "source": "original", "topic_title": "cat", "topic_description": "cat or dog"}
    topic = {"topic_id": "t1", "languages_with_qrels": ["eng"], "topics": [wording]}
    (root / "c" / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (root / "c" / "topics.jsonl").write_text(json.dumps(topic) + "\n")
    index = create_index(root / "ix", name="c")
    index.add(Item(**doc) for doc in docs)
    index.build("none")
    return root


def test_runs_that_differ_have_manifests_that_differ(crosslens, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    base = ("run", made / "ix", made / "c", "--mode", "lexical")
    others = {
        "same": (), "fields": ("--fields", "title"), "lang": ("--query-lang", "eng"), "source": ("--source", "original"),
        "where": ("--where", "modality=text"), "exclude": ("--exclude", "self"), "k": ("-k", "1"),
        "exact": ("--exact",), "unseen": ("--unseen", "keep"),
    }  # fmt: skip
    found = {}
    for name, options in {"base": (), **others}.items():
        status, _, err = crosslens(*base, "-o", f"{name}.trec", *options)
        assert status == 0, err
        text = Path(f"{name}.trec.manifest.json").read_text()
        assert "sk-secret" not in text
        found[name] = json.loads(text)
    manifest = found["base"]
    assert manifest["topics"] == {"collection": str(made / "c"), "fields": None, "query_lang": None, "source": None}
    assert (manifest["index"]["path"], manifest["index"]["documents"]) == (str(made / "ix"), 2)
    assert len(manifest["index"]["fingerprint"]) == 12
    assert manifest["provenance"]["versions"]["lancedb"]
    assert manifest["provenance"]["date"]
    assert manifest["command"].startswith("crosslens run ")
    assert manifest["queries"]["count"] == 1

    def settle(one):  # what two equal runs may have otherwise
        stages = [each | {"seconds": 0} for each in one["stages"]]
        return {**one, "stages": stages, "command": "", "provenance": one["provenance"] | {"date": ""}}

    assert settle(found["same"]) == settle(manifest)
    for name in set(others) - {"same"}:
        assert settle(found[name]) != settle(manifest), name
    assert found["fields"]["queries"]["content"] != manifest["queries"]["content"]


def test_a_reranked_run_says_what_was_reranked(made, tmp_path):
    from crosslens.runs import Manifest, Run

    run = Run.of([Item("q", "cat")]).ranking({"q": [("cat", 1.0)]}).note(index={"path": "ix"}, system="lexical")
    run.to_trec(tmp_path / "r.trec")
    assert Manifest.of_run(tmp_path / "r.trec").about == {"index": {"path": "ix"}, "system": "lexical"}


def test_secrets_are_hidden_and_the_rest_stays():
    given = {
        "line": "dense >> yesno@openai:m?url=https://me:pass@host/v1&api_key=sk-1&depth=20",
        "paths": ("s3://bucket/ix", "https://x/y?X-Amz-Signature=abc&k=10"),
        "where": {"lang": ["zho"]}, "k": 10,
    }  # fmt: skip
    assert hide_secrets(given) == {
        "line": "dense >> yesno@openai:m?url=https://***@host/v1&api_key=***&depth=20",
        "paths": ["s3://bucket/ix", "https://x/y?X-Amz-Signature=***&k=10"],
        "where": {"lang": ["zho"]}, "k": 10,
    }  # fmt: skip


def test_a_digest_of_items_is_of_what_they_hold():
    cat, dog = Item("a", "cat", lang="eng"), Item("b", "dog")
    assert describe_items([cat, dog]) == describe_items([dog, cat])
    assert describe_items([cat]) != describe_items([Item("a", "cat", lang="deu")]) != describe_items([Item("a", "Cat")])
