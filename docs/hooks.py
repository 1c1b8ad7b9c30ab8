"""Where mkdocs finds the package: the repository root is it, whatever the folder of the repository is called."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

_FOLDER = tempfile.TemporaryDirectory(prefix="crosslens-docs-")


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: Any) -> Any:
    """Give mkdocstrings a folder in which the repository root is called crosslens."""
    link = Path(_FOLDER.name, "crosslens")
    if not link.exists():
        link.symlink_to(Path(config.config_file_path).resolve().parent)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_FOLDER.name]
    return config
