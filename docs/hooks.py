"""Where mkdocs finds the package: the repository root is it, whatever the folder of the repository is called."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

_FOLDER = tempfile.TemporaryDirectory(prefix="crosslens-docs-")


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: Any) -> Any:
    """Give mkdocstrings a folder called crosslens with the modules and packages of the repository root.

    Not the root itself: all files of a virtual environment in it would be looked at, for minutes.
    """
    package, root = Path(_FOLDER.name, "crosslens"), Path(config.config_file_path).resolve().parent
    if not package.exists():
        package.mkdir()
        for path in root.iterdir():
            if path.suffix == ".py" or (path / "__init__.py").is_file():
                (package / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_FOLDER.name]
    return config
