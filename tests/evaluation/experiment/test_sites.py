"""evaluation/experiment/sites.py: what is read of a collection, and when it is read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crosslens.evaluation.experiment.plan import Plan
from crosslens.evaluation.experiment.sites import ExperimentSite
from crosslens.pipeline import show_nothing
from stand_ins import small_collections as cases


def open_site(name: str, out: Path) -> ExperimentSite:
    return ExperimentSite(name, Plan((name,), {"lexical": "lexical"}), {}, out, show_nothing, {})


@pytest.mark.parametrize("option", ["passages/a.jsonl", "passages"])
def test_what_the_name_names_counts_wherever_it_lies(tmp_path, option):
    (tmp_path / "questions").mkdir()
    cases.mkqa(tmp_path / "questions")
    passages = cases.put(tmp_path / "passages" / "a.jsonl", {"id": "a", "title": "", "text": "one"})
    name = f"mkqa:{tmp_path / 'questions'}?lang=fr&sample=true&docs={tmp_path / option}"
    before = open_site(name, tmp_path / "out").content
    assert open_site(name, tmp_path / "out").content == before
    cases.put(passages, {"id": "a", "title": "", "text": "another text"})
    assert open_site(name, tmp_path / "out").content.content != before.content


def test_a_dangling_link_is_passed_over(tmp_path):
    written = cases.directory(tmp_path / "collection")
    (tmp_path / "collection" / ".#docs.jsonl").symlink_to("someone@somewhere.123")
    assert open_site(written.name, tmp_path / "out").content.counts.documents


def test_another_version_of_the_documents_is_read_once(tmp_path, monkeypatch):
    written = cases.directory(tmp_path / "collection")
    site = open_site(written.name, tmp_path / "out")
    first = site.find_version(str(tmp_path / "collection"))
    (memo,) = (tmp_path / "out" / "collections").iterdir()
    memo.write_text(json.dumps({}))
    assert site.find_version(str(tmp_path / "collection")) is first


@pytest.mark.parametrize("harm", ["flip", "cut", "none"])
def test_a_damaged_memo_is_made_again(tmp_path, caplog, harm):
    written = cases.directory(tmp_path / "collection")
    right = open_site(written.name, tmp_path / "out").content
    (memo,) = (tmp_path / "out" / "collections").iterdir()
    text = memo.read_text()
    at = text.index('"documents"') + len('"documents": ')
    digit = str((int(text[at]) + 1) % 10)
    memo.write_text({"flip": text[:at] + digit + text[at + 1 :], "cut": text[:90], "none": "null"}[harm])
    assert open_site(written.name, tmp_path / "out").content == right
    assert "is damaged" in caplog.text
    assert memo.read_text() == text
