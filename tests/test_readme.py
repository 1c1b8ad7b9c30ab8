"""README.md: short, complete, and its excerpt of the demo is what was measured."""

from __future__ import annotations

import json
import re

import typer
from crosslens.commands.app import app
from stand_ins.table import table

from .docs.pages import ROOT

README = (ROOT / "README.md").read_text("utf-8")
VERBS = [command.name for command in app.registered_commands]


def test_it_is_short():
    assert len(README.splitlines()) <= 200


def test_two_commands_come_first():
    first = re.search(r"```\n(.*?)```", README, re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]


@table("verb", VERBS)
def test_every_verb_has_its_line(verb):
    assert re.search(rf"^crosslens {verb}\b.* # \w", README, re.MULTILINE)
    assert re.search(rf"^\| `{verb}\b", (ROOT / "docs/commands.md").read_text("utf-8"), re.MULTILINE)


@table("verb", VERBS)
def test_each_option_of_a_verb_is_in_its_row(verb):
    page = (ROOT / "docs/commands.md").read_text("utf-8").partition("## Options")[2]
    row = re.search(rf"^\| `{verb}` \| (.*)", page, re.MULTILINE)
    assert row is not None
    command = typer.main.get_command(app).commands[verb]
    taken = {option for each in command.params for option in [*each.opts, *each.secondary_opts] if option[0] == "-"}
    assert set(re.findall(r"`(-[-a-z]*)", row[1])) == taken - {"--json", "--device", "--trust-remote-code"}


def test_the_excerpt_is_what_the_demo_prints():
    """The means of all systems, kinds of queries and measures; numbers of queries, and names."""
    record = json.loads((ROOT / "docs/measured/demo.json").read_text("utf-8"))
    systems = record["figures"]["table"]["systems"]
    lines = README.splitlines()
    start = next(number for number, line in enumerate(lines) if set(line) == {"─"})
    counts = [int(each) for each in re.findall(r"\((\d+)\)", lines[start - 2])]
    assert counts == [int(re.search(r"\((\d+)\)", head)[1]) for head in record["tables"][0]["columns"][1:]]
    for line, system in zip(lines[start + 1 :], systems, strict=False):
        name, *numbers = re.split(r"\s{2,}", line.strip())
        assert name == system["name"]
        assert numbers == [
            f"{mean:.3f}" for both in zip(*map(dict.values, system["means"].values()), strict=True) for mean in both
        ]
