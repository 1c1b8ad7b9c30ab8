"""Files of a checkpoint are found inside it alone."""

from __future__ import annotations

from pathlib import Path

from crosslens.checkpoints.source import Source


def test_a_file_is_found_below_the_checkpoint_whatever_its_name_begins_with(tmp_path: Path) -> None:
    inside = tmp_path / "checkpoint" / "config.json"
    inside.parent.mkdir()
    inside.write_text("{}")
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    source = Source(str(inside.parent))
    assert source.find("config.json") == source.find("/config.json") == inside
    assert source.find(str(outside)) is None
    assert Source(source.checkpoint, folder=str(tmp_path)).find("outside.json") is None
    assert Source(str(tmp_path), folder="/checkpoint").find("config.json") == inside
