"""How large is a fresh environment with the offline models?

    python benchmarks/install.py --save docs/measured/install.json

Makes a virtual environment in a temporary directory (7 GB), installs `.[offline]` there with pip, and adds up its files.
Prints one JSON object on stdout; its seconds depend on the network and on pip's cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from crosslens.checkpoints.offline.packages import MODELS
from measurements import ROOT, Table, add_save, save

CUDA = ("nvidia", "triton", "cuda")


def measure(path: Path) -> int:
    """The bytes of a file, or of all files below a directory."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(each.lstat().st_size for each in files if each.is_symlink() or each.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add_save(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin/python")
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f"{ROOT}[offline]"],
            check=True, stdout=sys.stderr,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        (where,) = Path(folder).glob("lib/python*/site-packages")
        parts = {
            "CUDA's libraries and Triton": [each for each in where.iterdir() if each.name.lower().startswith(CUDA)],
            "PyTorch": [where / "torch"],
            "the offline models": sorted(
                {where / file.module.partition(".")[0] for model in MODELS.values() for file in model.files}
            ),
        }
        sizes = {name: sum(map(measure, paths)) for name, paths in parts.items()}
        whole = measure(Path(folder))
    sizes["all other packages"] = whole - sum(sizes.values())
    sizes["the environment"] = whole
    rows = [[name, f"{size / 1e9:.2f}"] for name, size in sizes.items()]
    figures = {"bytes": sizes, "seconds": round(seconds, 1)}
    save(options.save, figures, [Table(("part", "GB"), rows)])
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
