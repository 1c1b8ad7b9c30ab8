"""What pages show of the report of `encode.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measurements import Table


def tables(report: dict[str, Any]) -> list[Table]:
    """What pages show of the parts that were measured."""
    made = []
    if found := report.get("speed"):
        rows = []
        for name, each in found.items():
            if not isinstance(each, dict):
                continue
            row = [name, str(each["texts_per_second"])]
            if "ratio" in each:
                row[0] += f" ({each['dtype']})"
                row += [str(each[key]) for key in ("ratio", "cpu_ratio", "cosine_min")]
                row.append(each["tokens_a_batch"])
                row.append(f"{each['share_of_gemm_peak']:.0%} of {each['gemm_gflops']} GFLOP/s")
            rows.append([*row, *[""] * (7 - len(row))])
        columns = (
            "",
            "texts/s",
            "ratio",
            "of CPU time",
            "lowest cosine",
            "tokens a batch",
            "of the matrix-product rate",
        )
        made.append(Table(columns, rows, f"{found['texts']} texts"))
    if found := report.get("queries"):
        keys = ("p50_ms", "p90_ms", "p50_cpu_ms", "cpu_ratio")
        rows = [[name, *(str(each.get(key, "")) for key in keys)] for name, each in found.items()]
        columns = ("one query at a time", "p50, ms", "p90, ms", "p50 of CPU time, ms", "times sentence-transformers")
        made.append(Table(columns, rows))
    if found := report.get("shares"):
        columns = ("ms of the processor", *(f"{length} tokens" for length in found))
        names = next(iter(found.values()))
        rows = [[name, *(str(each[name]) for each in found.values())] for name in names]
        made.append(Table(columns, rows, "one query, one thread"))
    if found := report.get("quality"):
        row = [Path(found["collection"]).name, str(found["topics"]), str(found["documents"])]
        row += [f"{found['nDCG@20'][dtype]:.4f}" for dtype in ("float32", "int8")]
        row += [f"{found['loss']:.2%} ± {found['loss_within']:.2%}", f"{found['cosine_min']}"]
        columns = ("collection", "topics", "documents", "nDCG@20, float32", "int8", "loss", "lowest cosine")
        made.append(Table(columns, [row], "int8 against float32"))
    if found := report.get("overhead"):
        rows = [[budget, str(e["texts_a_batch"]), f"{e['median']:.1%}"] for budget, e in found.items()]
        made.append(Table(("tokens a batch", "texts a batch", "time outside the model"), rows))
    if found := report.get("memory"):
        pairs = zip(found["texts"], found["peak_bytes"], strict=True)
        made.append(Table(("texts", "peak MB"), [[f"{n:,}", f"{b / 1e6:,.0f}"] for n, b in pairs]))
    return made
