"""How fast is `offline:e5-small` against sentence-transformers on the same checkpoint, machine and threads?

Both are warm and take turns, round by round, so that the ratio holds when the machine's speed drifts. Prints a table
on stderr and one JSON object on stdout; exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

GOAL, COSINE = 2.5, 0.999


def texts(count: int) -> list[str]:
    """Texts of 1 to about 450 tokens in 14 languages: runs of sentences of the demo collection, seeded."""
    from crosslens.demo import Demo

    sources = [item.text for item in Demo().docs() if item.text]
    draw = random.Random(0)
    made = []
    for _ in range(count):
        words = " ".join(draw.sample(sources, draw.choice((1, 1, 1, 2, 4))))
        made.append(words[: int(draw.lognormvariate(5.2, 0.9)) + 4])
    return made


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    vectors = work()
    return time.perf_counter() - started, vectors


def gemm_peak(dtype: str) -> float:
    """GFLOP/s of the model's largest product, 2048 x 384 x 1536, the best of 20."""
    import torch

    left, right = (torch.randn(*shape).to(getattr(torch, dtype)) for shape in ((2048, 384), (1536, 384)))
    best = np.inf
    with torch.inference_mode():
        for _ in range(20):
            started = time.perf_counter()
            torch.nn.functional.linear(left, right)
            best = min(best, time.perf_counter() - started)
    return 2 * 2048 * 384 * 1536 / best / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    import torch
    from crosslens.encoders import offline, registry
    from crosslens.encoders.base import matrix
    from crosslens.encoders.devices import resolve_device
    from crosslens.items import Item
    from sentence_transformers import SentenceTransformer

    corpus = texts(options.texts)
    items = [Item(str(number), text=text) for number, text in enumerate(corpus)]
    ours = registry.load("offline:e5-small", device=options.device)
    theirs = SentenceTransformer(
        str(offline.checkpoint("e5-small")), device=str(resolve_device(options.device))
    )
    systems: dict[str, Callable[[], np.ndarray]] = {
        "crosslens": lambda: matrix(ours, items, "document"),
        "sentence-transformers": lambda: theirs.encode_document(corpus, show_progress_bar=False),
    }
    for work in (lambda: matrix(ours, items[:64], "document"), lambda: theirs.encode_document(corpus[:64])):
        work()
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(options.rounds):
        for name, work in systems.items():
            spent, vectors[name] = timed(work)
            seconds[name].append(spent)
    cosines = (vectors["crosslens"] * vectors["sentence-transformers"]).sum(axis=1)
    ratios = [b / a for a, b in zip(seconds["crosslens"], seconds["sentence-transformers"], strict=True)]
    tokens = sum(map(len, ours.token_ids([ours.spec.document_prompt + text for text in corpus])))
    best = min(seconds["crosslens"])
    # 12 layers of 4 d^2 + 2 d f weights, two operations a weight and token; attention's products come on top.
    work_done = tokens * 2 * 12 * (4 * 384**2 + 2 * 384 * 1536) / 1e9
    peak = gemm_peak(ours.spec.dtype)
    report = {
        "device": str(ours.device),
        "threads": torch.get_num_threads(),
        "dtype": ours.spec.dtype,
        "texts": len(corpus),
        "tokens": tokens,
        "seconds": {name: [round(s, 2) for s in spent] for name, spent in seconds.items()},
        "texts_per_second": {
            name: round(len(corpus) / statistics.median(spent), 1) for name, spent in seconds.items()
        },
        "ratio": round(statistics.median(ratios), 2),
        "cosine_min": round(float(cosines.min()), 5),
        "cosine_mean": round(float(cosines.mean()), 5),
        "tokens_per_second": round(tokens / best),
        "gemm_gflops": round(peak),
        "share_of_gemm_peak": round(work_done / best / peak, 2),
    }
    for name, rate in report["texts_per_second"].items():
        print(f"{name:24} {rate:8.1f} texts/s", file=sys.stderr)
    print(
        f"ratio {report['ratio']}, lowest cosine {report['cosine_min']}, {report['tokens_per_second']} tokens/s, "
        f"{report['share_of_gemm_peak']:.0%} of {report['gemm_gflops']} GFLOP/s",
        file=sys.stderr,
    )
    print(json.dumps(report, indent=2))
    return 0 if report["ratio"] >= GOAL and report["cosine_min"] >= COSINE else 1


if __name__ == "__main__":
    sys.exit(main())
