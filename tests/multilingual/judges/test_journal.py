"""The journal: a line that a kill cut short is cut off, a damaged one is found, and its work is done again."""

from __future__ import annotations

import json
import os

import pytest
from crosslens.errors import InputError
from crosslens.multilingual.judges import journal as journals
from crosslens.multilingual.judges.journal import Journal


@pytest.fixture
def path(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.put("one", [["猫\u2028x\ud800", 1.0]], {"calls": 1})
    journal.put("two", [["猫", float("-inf"), 0.1 + 0.2]], {"calls": 2})
    journal.close()
    return journal.path


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_it_survives_a_kill_at_any_byte(path, cut):
    whole = path.read_bytes()
    os.truncate(path, len(whole) - cut)
    again = Journal(path)
    assert again.get("one") == [["猫\u2028x\ud800", 1.0]]
    assert (again.get("two") is None) == (cut > 1)  # without its end of line alone it is whole
    assert again.counted == {"calls": 1 + 2 * (cut == 1)}
    again.put("three", [], {})
    again.close()
    assert whole.startswith(path.read_bytes().splitlines(keepends=True)[0])
    assert path.read_bytes().count(b"\n") == 2 + (cut == 1)
    assert Journal(path).get("three") == []
    assert Journal(path).get("one") is not None


def test_every_flipped_bit_is_found(path, caplog):
    whole = path.read_bytes()
    first = whole.index(b"\n")
    for place in range(0, first):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        caplog.clear()
        journal = Journal(path)
        assert journal.get("one") is None, bytes(damaged[:first])
        assert journal.get("two") is not None
        journal.close()
        assert "damaged lines are left out" in caplog.text


def test_lines_of_earlier_versions_have_no_checksum(tmp_path):
    path = tmp_path / "journal"
    path.write_text(json.dumps({"key": "one", "value": ["猫"], "counts": {"calls": 1}}, ensure_ascii=False) + "\n")
    journal = Journal(path)
    assert journal.get("one") == ["猫"]
    assert journal.counted == {"calls": 1}
    assert len(journal) == 1


def test_what_it_costs_is_counted_once(path):
    journal = Journal(path)
    for _ in range(2):
        journal.get("one")
    assert journal.counted == {"calls": 1}
    assert journal.take_counts() == {"calls": 1}
    assert not journal.counted


def test_a_journal_that_cannot_be_used_is_one_clear_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="directory"):
        Journal(tmp_path)
    tmp_path.joinpath("full").symlink_to("/dev/full")
    monkeypatch.setattr(journals, "open_to_append", lambda path: path.with_name("full").open("ab"))
    journal = Journal(tmp_path / "journal")
    with pytest.raises(InputError, match="cannot write the journal .*No space left"):
        journal.put("one", 1, {})
    journal.close()
