"""The package as an installer and a first import see it, and the rules of its structure (docs/design.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import crosslens
import mypy.api
import pytest
from stand_ins.table import table

ROOT = Path(crosslens.__file__).parent
MODULES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if not {".venv", "benchmarks", "build", "docs", "tests"} & set(path.relative_to(ROOT).parts)
)
HEAVY = {"torch", "transformers", "lancedb", "pyarrow", "scipy", "pandas", "PIL", "open_clip", "timm", "ir_measures"}


@pytest.mark.parametrize("imported", ["crosslens", "crosslens.commands.app"])
def test_importing_imports_no_framework(imported):
    script = f"import sys, {imported}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


# What only some modules need: a machine without it runs the others, for example one with a GPU and little else.
LATE = {
    "lancedb": [],
    "lance": [],
    "faiss": [],
    "ir_measures": [],
    "py3langid": [],
    "langcodes": ["multimodal/clip.py"],
    "open_clip": ["multimodal/clip.py", "multimodal/clip_spans.py", "training/encoder/clip_files.py"],
}


def test_what_few_need_is_imported_where_it_is_needed():
    found = {name: [] for name in LATE}
    for path in MODULES:
        for node in ast.parse(path.read_text("utf-8")).body:
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            named += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for root in {name.partition(".")[0] for name in named} & set(LATE):
                found[root].append(path.relative_to(ROOT).as_posix())
    assert {name: sorted(set(paths)) for name, paths in found.items()} == LATE


@table("name", crosslens.__all__)
def test_every_public_name_is_there(name):
    assert getattr(crosslens, name) is not None


def test_public_names_are_listed_once_and_others_are_errors():
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    typed = [name.asname or name.name for node in imports for name in node.names]
    assert sorted(typed) == list(crosslens.__all__) == dir(crosslens)
    with pytest.raises(AttributeError, match="nothing"):
        _ = crosslens.nothing


def test_a_type_checker_knows_the_public_names_and_no_others(tmp_path):
    """Of the package it sees the first file alone, which is quick, and would let every name pass by `__getattr__`."""
    (tmp_path / "crosslens").mkdir()
    (tmp_path / "crosslens/__init__.py").write_text((ROOT / "__init__.py").read_text("utf-8"))
    (tmp_path / "use.py").write_text("from crosslens import evaluat\nfrom crosslens import evaluate, rank\n")
    options = [
        "--ignore-missing-imports",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--config-file",
        "",
        "--no-site-packages",
    ]
    out, _, status = mypy.api.run([*options, str(tmp_path / "use.py")])
    found = [line for line in out.splitlines() if "use.py" in line]
    assert status == 1, out
    assert len(found) == 1, out
    assert 'Module "crosslens" has no attribute "evaluat"; maybe "evaluate"?' in found[0]


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


def test_no_public_name_is_defined_twice():
    """Functions and classes at the top of modules: a reader who meets one can ask for it by its name alone."""
    where = defaultdict(set)
    for path in MODULES:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                where[node.name].add(str(path.relative_to(ROOT)))
    twice = {name: sorted(paths) for name, paths in where.items() if len(paths) > 1}
    assert not twice, twice


def test_no_file_is_longer_than_500_lines():
    paths = (*MODULES, *(ROOT / "tests").rglob("*.py"))
    lines = {str(path.relative_to(ROOT)): path.read_text("utf-8").count("\n") for path in paths}
    long = {path: count for path, count in lines.items() if count > 500}
    assert not long, long


def test_the_root_holds_the_ground_alone():
    """Its modules are those that all others stand on; a folder of this name shadows nothing when Python starts here."""
    modules = {path.stem for path in ROOT.glob("*.py")}
    assert modules == {"__init__", "errors", "files", "frames", "items", "pipeline", "runs", "specs", "steps"}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert not (modules | folders) & (sys.stdlib_module_names | {"tables"})
