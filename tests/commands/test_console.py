"""What reaches the terminal: our notes and errors, and not the warnings of libraries."""

from __future__ import annotations

import subprocess
import sys
import time

SCRIPT = """
import logging, os, sys, warnings
from crosslens.commands import app, console
from crosslens.errors import InputError

def program():
    warnings.warn("a library is called in an old way")
    logging.getLogger("PIL.TiffImagePlugin").error("more samples than can be decoded")
    logging.getLogger("some.library").warning("loading something legacy")
    logging.getLogger("some.library").error("the disk is broken")
    logging.getLogger("crosslens").info("a note of ours")
    print("caf\\udce9.run: 3 hits")
    os.environ["SHOWN"] = os.environ.get("LANCEDB_LOG", "")
    raise InputError("no \\x1b[31mred\\x1b[0m\\nlines, and not " + repr("x y " * 1000))

app.app = lambda standalone_mode: program()
try:
    app.main()
finally:
    print("LANCEDB_LOG is", os.environ["SHOWN"])
"""


def test_warnings_of_libraries_do_not_reach_the_terminal_and_errors_and_notes_do():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "caf\\udce9.run: 3 hits\nLANCEDB_LOG is error\n"
    broken, note, error = done.stderr.splitlines()
    assert (broken, note) == ("crosslens: the disk is broken", "crosslens: a note of ours")
    assert error.startswith(r"crosslens: no \x1b[31mred\x1b[0m lines, and not 'x y x y")
    assert len(error) < 270


def test_texts_of_documents_do_not_command_the_terminal(crosslens, tmp_path):
    from crosslens.indexes.registry import create_index
    from crosslens.items import Item

    index = create_index(tmp_path / "index")
    index.add([Item("a", "red \x1b[2Jcat\u202e\n\x9b31m", lang="eng")])
    index.build()
    status, out, _ = crosslens("search", tmp_path / "index", "red", "--mode", "lexical")
    assert status == 0
    assert out.endswith("a  red \\x1b[2Jcat\\u202e \\x9b31m\n")


def test_what_takes_long_is_said_once_and_what_does_not_is_not(capsys, monkeypatch):
    from crosslens.commands import console
    from crosslens.steps import step

    monkeypatch.setattr(console, "PATIENCE", 0.1)
    monkeypatch.setattr(console, "BETWEEN", 0.0)

    def work() -> None:
        with console.watch_steps():
            time.sleep(0.25)  # as imports take
            with step("loading a"), step("quick"):
                pass
            with step("loading b"):
                time.sleep(0.25)
                with step("converting b"):
                    time.sleep(0.25)
                time.sleep(0.25)
            with console.progress("encoding", 1000) as bar:
                bar(0)
                bar(500)

    monkeypatch.setenv("CROSSLENS_PROGRESS", "lines")
    work()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "loading libraries ...", "loading b ...", "converting b ...", "encoding: 500 of 1,000, about 0 s left",
    ]  # fmt: skip
    monkeypatch.delenv("CROSSLENS_PROGRESS")
    work()
    assert capsys.readouterr().err == ""  # stderr is no terminal


def test_a_wrong_option_or_verb_is_one_line_with_what_was_meant(crosslens):
    for command, said in (
        ("search ix cat --lag zho", "No such option: --lag; did you mean --lang? (see crosslens search --help)"),
        ("index c ix --enc x", "No such option: --enc; did you mean --encoder? (see crosslens index --help)"),
        ("serach ix", "No such command 'serach'. Did you mean 'search'? (see crosslens --help)"),
        ("train encodr x", "No such command 'encodr'. Did you mean 'encoder'? (see crosslens train --help)"),
        ("search ix black cat", "put words that belong together in quotes (see crosslens search --help)"),
    ):
        status, out, err = crosslens(*command.split())
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.endswith(said + "\n")


def test_piped_tables_are_not_wrapped(crosslens):
    status, out, _ = crosslens("models")
    assert status == 0
    assert len({line.split()[0] for line in out.splitlines() if line.startswith(("offline:", "hf:"))}) >= 8
    assert max(map(len, out.splitlines())) > 130
