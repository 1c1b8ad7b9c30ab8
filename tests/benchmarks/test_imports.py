"""What benchmarks import of crosslens is there, also what they import inside functions: nobody runs them every day."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from stand_ins.table import table

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.rglob("*.py"))


@table("script", SCRIPTS)
def test_imports_of_crosslens_are_there(script):
    source = script.read_text("utf-8")
    trees = [ast.parse(source)]
    # Programs that are run in a process of their own stand in strings.
    texts = (node.value for node in ast.walk(trees[0]) if isinstance(node, ast.Constant))
    trees += [ast.parse(text) for text in texts if isinstance(text, str) and text.lstrip().startswith("import ")]
    for node in (each for tree in trees for each in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "crosslens":
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "crosslens":
                    importlib.import_module(name.name)
