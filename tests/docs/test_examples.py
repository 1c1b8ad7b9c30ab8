"""Every example of README and docs/ is run: Python as it stands, commands at least through the real command line.

The blocks of a page run one after the other in one directory, where blocks with a title are written as files. The
offline language model, which is slow, is replaced by a tiny one with random weights, and in the README the
built-in collection by a part of it; all else is as the page says.
"""

from __future__ import annotations

import sys
import tomllib
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import typer.main
from crosslens.commands.app import app
from crosslens.demo.collection import Demo
from crosslens.evaluation.experiment.plan import Plan
from crosslens.service.systems import ServedSystem
from crosslens.systems.stages import Vocabulary
from crosslens.systems.system import System
from stand_ins.table import table

from .pages import NOT_RUN, PAGES, Block, name_page, read_blocks, read_commands

BLOCKS = {name_page(page): read_blocks(page) for page in PAGES}
OWN = ("docs/your-data.md",)  # pages with a test of their own, which makes files for them
EXAMPLES = [
    name
    for name, blocks in BLOCKS.items()
    if name not in OWN and any(block.language == "python" or block.run for block in blocks)
]
COMMANDS = [
    (f"{name}:{block.line}", arguments, block.run)
    for name, blocks in BLOCKS.items()
    for block in blocks
    if block.language == "sh"
    for arguments in read_commands(block)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def media():
    """The table of modalities, as it was once the test is over."""
    from crosslens.media.modalities import MEDIA, unregister

    before = set(MEDIA)
    yield
    for name in set(MEDIA) - before:
        unregister(name)


@pytest.fixture
def little(monkeypatch):
    """Every fifth document and query of the built-in collection, which is searched as a whole by tests/demo."""
    documents, queries = Demo.docs, Demo.queries
    monkeypatch.setattr(Demo, "docs", lambda self: islice(documents(self), 0, None, 5))
    monkeypatch.setattr(Demo, "queries", lambda self, **choice: queries(self, **choice)[::5])


@pytest.mark.parametrize("page", EXAMPLES)
def test_examples_of_a_page_run(page, folder, media, tiny_judge, crosslens, request):
    if page == "README.md":
        request.getfixturevalue("little")
    names: dict[str, object] = {}
    small = {"offline:gemma": f"hf:{tiny_judge}", '"default"': f'"likelihood@hf:{tiny_judge}?depth=2&alpha=0.5"'}
    for block in BLOCKS[page]:
        text = block.text
        for slow, tiny in small.items():
            text = text.replace(slow, tiny)
        if block.title:
            write_file(folder, block)
        elif block.language == "python" and not text.startswith(NOT_RUN):
            lines = "\n" * (block.line - 1)  # so that errors name the line of the page
            exec(compile(lines + text, page, "exec"), names)
        elif block.run:
            for arguments in read_commands(block):
                status, out, err = crosslens(*arguments)
                assert status == 0, f"{page}:{block.line}: {arguments}: {err}"
                assert out


def write_file(folder: Path, block: Block) -> None:
    """A block as the file that it shows; the entry points of a `pyproject.toml` as those of an installed package."""
    path = folder / block.title
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, "utf-8")
    if block.title == "pyproject.toml":
        project = tomllib.loads(block.text)["project"]
        installed = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (installed / "entry_points.txt").write_text("\n".join(lines) + "\n")


make_group = cache(lambda: typer.main.get_command(app))  # the same for all commands


@table(("where", "arguments", "run"), COMMANDS)
def test_commands_are_those_of_the_command_line(where, arguments, run):
    group = make_group()
    with group.make_context("crosslens", list(arguments), resilient_parsing=False) as context:
        name, verb, rest = group.resolve_command(context, list(arguments))
        given = verb.make_context(name, list(rest), parent=context).params
    rerankers = given.get("rerank") or given.get("specs") or ()
    system = given.get("system")  # a service has several, which may have names
    lines = [ServedSystem.parse(each).line for each in system] if isinstance(system, list) else [system]
    for line in [*lines, *rerankers]:
        if line and line not in ("LINE", "SPEC") and not run:
            System.parse(line)  # loads no model


@table("page", BLOCKS)
def test_experiments_are_read(page, tmp_path):
    for block in BLOCKS[page]:
        if block.language == "toml" and "[systems]" in block.text:
            (tmp_path / "experiment.toml").write_text(block.text, "utf-8")
            plan = Plan.read(tmp_path / "experiment.toml")
            names = Vocabulary(plan.encoders, plan.documents, plan.fields)
            assert all(System.parse(line, names).parts for line in plan.systems.values())


def test_few_examples_are_not_run():
    unrun = [
        f"{page}:{block.line}"
        for page, blocks in BLOCKS.items()
        for block in blocks
        if block.language == "python" and block.text.startswith(NOT_RUN)
    ]
    assert len(unrun) <= 3, unrun
