"""`stand_ins.table`: a test of many rows runs all of them, in folders of their own, and says which failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stand_ins.table import table


def test_all_rows_are_run_and_those_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    @table("left", [0, 1])
    @table(("right", "name"), [(2, "a"), (3, "b"), (4, "c")])
    def check(left: int, right: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen.append(10 * left + right)
        assert "ROW" not in os.environ
        monkeypatch.setenv("ROW", name)
        (tmp_path / "file").mkdir()
        if right == 3:
            raise ValueError(name)
        with pytest.raises(KeyError):
            raise ValueError if seen[-1] == 14 else KeyError

    with pytest.raises(BaseExceptionGroup, match="2 of 2 rows") as failed:
        check(tmp_path=tmp_path, monkeypatch=monkeypatch)
    assert seen == [2, 3, 4, 12, 13, 14]
    one, several = failed.value.exceptions
    assert one.__notes__ == ["in the row (3, 'b')", "in the row 0"]
    assert isinstance(several, BaseExceptionGroup)
    assert [each.__notes__ for each in several.exceptions] == [["in the row (3, 'b')"], ["in the row (4, 'c')"]]

    @table("row", [1])
    def refuse(row: int) -> None:
        with pytest.raises(KeyError):
            pass

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refuse()
