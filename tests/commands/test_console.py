"""What reaches the terminal: our notes and errors, and not the warnings of libraries."""

from __future__ import annotations

import subprocess
import sys

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
    assert out.endswith("a  red \\x1b[2Jcat\\u202e · \\x9b31m\n")
