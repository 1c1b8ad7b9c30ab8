"""What `crosslens search` imports: it takes longer than the search itself."""

from __future__ import annotations

import subprocess
import sys

from crosslens import Item, create_index
from crosslens.encoders.registry import load_encoder
from stand_ins.live import fill

HEAVY = {"torch", "transformers", "scipy", "PIL", "lance_namespace_urllib3_client.api"}


def list_imported(index: object, mode: str) -> set[str]:
    """The modules that a search imports."""
    script = (
        "import sys; from crosslens.commands.app import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    arguments = ["search", str(index), "boat", "--mode", mode, "--json"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert '"hits"' in done.stdout
    return set(done.stderr.split())


def test_searching_full_text_imports_no_framework(tmp_path):
    assert not list_imported(fill(tmp_path / "index"), "lexical") & HEAVY


def test_searching_vectors_of_the_offline_encoder_imports_no_framework(tmp_path):
    index = create_index(tmp_path / "index")
    index.add([Item("a", "A boat.", lang="eng"), Item("b", "Лодка.", lang="rus")], load_encoder("offline:e5-small"))
    assert not list_imported(index.path, "dense") & {"torch", "transformers"}
