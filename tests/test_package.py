"""The package as an installer and a first import see it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import crosslens
import pytest

ROOT = Path(crosslens.__file__).parent
HEAVY = {
    "torch",
    "transformers",
    "lancedb",
    "pyarrow",
    "scipy",
    "pandas",
    "PIL",
    "open_clip",
    "timm",
    "ir_measures",
}


@pytest.mark.parametrize("imported", ["crosslens", "crosslens.commands.app"])
def test_importing_imports_no_framework(imported):
    script = f"import sys, {imported}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


@pytest.mark.parametrize("name", crosslens.__all__)
def test_every_public_name_is_there(name):
    assert getattr(crosslens, name) is not None


def test_public_names_are_listed_once_and_others_are_errors():
    assert sorted(crosslens._NAMES) == sorted(crosslens.__all__) == dir(crosslens)
    with pytest.raises(AttributeError, match="nothing"):
        _ = crosslens.nothing


def test_every_package_with_its_data_is_in_the_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        "crosslens" if path.parent == ROOT else "crosslens." + ".".join(path.parent.relative_to(ROOT).parts)
        for path in ROOT.rglob("__init__.py")
        if not {".venv", "tests", "benchmarks", "build"} & set(path.relative_to(ROOT).parts)
    }
    assert set(settings["packages"]) == there
    for package, patterns in settings["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            assert list(folder.glob(pattern)), (package, pattern)
