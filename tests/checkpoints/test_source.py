"""Files of a checkpoint are found inside it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crosslens.checkpoints.sentence_files import read_modules
from crosslens.checkpoints.source import Source
from crosslens.errors import InputError


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


@pytest.mark.parametrize("folder", ["../outside", "0_Dense/../../outside", "/outside"])
def test_a_module_outside_the_checkpoint_is_refused(tmp_path: Path, folder: str) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "x.Dense", "path": folder}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=f"names '{folder}', which is not inside the checkpoint"):
        list(read_modules(Source(str(tmp_path))))
