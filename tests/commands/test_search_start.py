"""What `crosslens search` imports: it takes longer than the search itself."""

from __future__ import annotations

import subprocess
import sys

from stand_ins.live import fill

HEAVY = {"torch", "transformers", "scipy", "PIL", "lance_namespace_urllib3_client.api"}


def test_searching_full_text_imports_no_framework(tmp_path):
    script = (
        "import sys; from crosslens.commands.app import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    arguments = ["search", str(fill(tmp_path / "index")), "boat", "--mode", "lexical", "--json"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert '"hits"' in done.stdout
    assert not set(done.stderr.split()) & HEAVY
