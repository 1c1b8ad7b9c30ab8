"""What benchmarks measured, in files, and the tables of it on the pages of the documentation.

    python benchmarks/index.py --save docs/measured/index.json
    python benchmarks/measurements.py            # writes the tables into README.md and docs/ again
    python benchmarks/measurements.py --check    # exit status 1 where a page differs from the files

A file holds how it came to be (command, commit, date, processor, seconds, versions), `figures` (what the script reports), and
`tables` with `notes`, which are what pages show. `"transcribed": true` marks figures that were copied from an earlier
README, at the commit at which they got there. On a page the tables of `docs/measured/NAME.json` stand between
`<!-- measured: NAME -->` and `<!-- end -->`; what was there before is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "docs/measured"
BLOCK = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NUMBER = re.compile(r"[-+±<>~†*%.,\d\s]*\d[-+±<>~†*%.,\d\s]*|-?|")


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first column holds names.

    `better` says of headings that `regressions.RULES` does not know whether more is `higher` or `lower`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    better: Mapping[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """The table as pages show it: columns of numbers to the right."""
        right = [all(NUMBER.fullmatch(row[n]) for row in self.rows) for n in range(len(self.columns))]
        lines = [self.columns, ["---:" if each else "---" for each in right], *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"**{self.title}**\n\n{table}" if self.title else table


def try_check(name: str, check: Callable[[], str]) -> dict[str, Any]:
    """A row for a report: whether a check is `kept` or `broken`, what it `found`, and the seconds that it took."""
    from crosslens.errors import CrosslensError

    began = time.monotonic()
    try:
        state, found = "kept", check()
    except CrosslensError as error:
        state, found = "broken", str(error)
    return {"check": name, "state": state, "found": found, "seconds": round(time.monotonic() - began, 1)}


def add_save(parser: argparse.ArgumentParser) -> None:
    """Give a script the option `--save FILE`."""
    parser.add_argument("--save", type=Path, metavar="FILE", help="also keep what is measured: docs/measured/NAME.json")


def save(
    path: Path | None,
    figures: Mapping[str, Any],
    tables: Sequence[Table],
    notes: Sequence[str] = (),
    *,
    earlier: float = 0.0,
) -> None:
    """Write a file of measurements; nothing where `path` is None. `earlier`: seconds of work kept from other runs."""
    if path is None:
        return
    from crosslens.systems.provenance import provenance

    about = provenance()
    record = {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], ROOT), *_without_save(sys.argv[1:])]),
        "commit": str(about["commit"]),
        "date": str(about["date"])[:10],
        "cpu": describe_processor(),
        "seconds": round(time.monotonic() - BEGAN + earlier),
        "versions": about["versions"],
        "tables": [{key: held for key, held in asdict(table).items() if held or key != "better"} for table in tables],
        "notes": list(notes),
        "figures": figures,
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")


def tabulate(
    table: Mapping[str, Any], columns: Sequence[tuple[str, str]], *, p: bool = False, title: str = ""
) -> Table:
    """The JSON of an evaluation (`crosslens evaluate --json`) as a table: a row a system, `columns` of (measure, group).

    With `p` each column is followed by the corrected p-value of the test against the baseline.
    """
    heads = ["system"]
    for measure, group in columns:
        heads.append(f"{measure}, {group} ({table['queries'][group]})")
        heads += ["p"] * p
    rows = []
    for system in table["systems"]:
        row = [system["name"]]
        for measure, group in columns:
            row.append(f"{system['means'][measure][group]:.3f}")
            if p:
                against = system.get("against_baseline", {}).get(measure, {})
                if group != "all":
                    against = against.get("groups", {}).get(group, {})
                row.append(show_p(against.get("corrected")))
        rows.append(row)
    return Table(heads, rows, title)


def show_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a call, JSON-able."""
    kept = {key: value for key, value in vars(options).items() if key not in ("save", "measure")}
    return {key: str(value) if isinstance(value, Path) else value for key, value in kept.items()}


def show_p(p: float | None) -> str:
    """A p-value as people print it; empty where there is none."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def describe_processor() -> str:
    """Name, cores, and what decides the speed of half precision: `AMD EPYC, 2 cores, AVX512-BF16`."""
    facts = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = facts.get("flags", "").split()
    special = [shown for flag, shown in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = [f"{threads} thread{'s' * (threads != '1')}"] if threads else []
    return ", ".join([facts.get("model name", "unknown"), f"{cores} core{'s' * (cores != 1)}", *limit, *special])


def render(record: Mapping[str, Any]) -> str:
    """The tables of a file in Markdown, with how they came to be."""
    parts = [Table(**table).markdown() for table in record["tables"]]
    parts += record.get("notes", ())
    copied = "; transcribed from an earlier README" if record.get("transcribed") else ""
    parts.append(
        f"*`{record['command']}`, measured at commit {record['commit'][:7]} on {record['date']}, "
        f"{record['cpu']}{copied}.*"
    )
    return "\n\n".join(parts)


def update_page(text: str, files: Path = FILES) -> str:
    """A page with its tables as the files have them; `FileNotFoundError` where one is not there."""

    def replaced(block: re.Match[str]) -> str:
        record = json.loads((files / f"{block[2]}.json").read_text("utf-8"))
        return f"{block[1]}\n{render(record)}\n\n{block[3]}"

    return BLOCK.sub(replaced, text)


def find_stale() -> dict[Path, str]:
    """The pages whose tables are not those of the files, and what they should be."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = {page: page.read_text("utf-8") for page in pages}
    return {page: new for page, text in texts.items() if (new := update_page(text)) != text}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a page is stale")
    options = parser.parse_args()
    stale = find_stale()
    for page, text in stale.items():
        print(f"{page.relative_to(ROOT)}: {'differs' if options.check else 'written'}")
        if not options.check:
            page.write_text(text, "utf-8")
    return 1 if options.check and stale else 0


def _without_save(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--save FILE`, which does not change what is measured."""
    kept = []
    listed = iter(arguments)
    for each in listed:
        if each == "--save":
            next(listed, None)
        elif not each.startswith("--save="):
            kept.append(each)
    return kept


if __name__ == "__main__":
    sys.exit(main())
