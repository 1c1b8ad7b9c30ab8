"""`serve.py embeddings`: texts a second on /v1/embeddings, beside infinity-emb with the same checkpoint.

    python3 -m venv PEER && PEER/bin/pip install 'infinity-emb[server,torch]' ...    # docs/serving.md has the versions
    python benchmarks/serve.py embeddings --peer PEER/bin/python --texts COLLECTION

Both get the same texts in the same requests, with the prefix that e5 wants, from the same number of clients, on the same
number of threads, and take turns. The peer runs in float32, as it does on a CPU by default, and in bfloat16, as crosslens.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.errors import InputError
from measurements import Table
from serve_client import Load, Request, Sending, generate
from serve_process import Service

GOALS = {"ratio": 2.0, "cosine": 0.99}
OURS, ALONE = "crosslens serve", "the encoder alone"
PREFIX = "passage: "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="of the environment that has infinity-emb")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="of the peer (%(default)s)")
    parser.add_argument("--encoder", default="offline:e5-small", metavar="SPEC")
    parser.add_argument("--index", metavar="DIR", required=True, help="one of this encoder, which is then served")
    parser.add_argument("--texts", default="demo", metavar="COLLECTION")
    parser.add_argument(
        "--shapes", nargs="+", default=["1x1", "64x1", "16x8", "4x64"], help="clients x texts a request"
    )
    parser.add_argument("--count", type=int, default=1024, help="texts of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Table], list[str]]:
    from crosslens.multilingual.collections.registry import load_collection

    threads = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    texts = [" ".join(item.text.split()) for item in load_collection(options.texts).docs() if item.text]
    random.Random(options.seed).shuffle(texts)
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes]
    report: dict[str, Any] = {"shapes": {}, "goals": GOALS, "threads": options.threads, "texts": options.count}
    with ExitStack() as stack:
        made = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services: dict[str, tuple[Service, str]] = {}
        ours = Service.serve(options.index, "--mode", "dense", log=made / "ours.log", environment=threads)
        services[OURS] = (stack.enter_context(ours), "/v1/embeddings")
        for dtype in options.dtypes if options.peer else ():
            peer = start_peer(options.peer, options.encoder, dtype, made, threads)
            services[f"infinity-emb, {dtype}"] = (stack.enter_context(peer), "/v1/embeddings")
        report["started"] = {name: round(service.started, 1) for name, (service, _) in services.items()}
        report["vectors"] = same_vectors(services, texts[:32], options.encoder)
        print(json.dumps(report["vectors"]), file=sys.stderr, flush=True)
        drawn = cycle(texts)
        for clients, size in shapes:
            count = options.count if clients > 1 else options.count // 8
            rounds = [list(islice(drawn, count)) for _ in range(options.rounds)]
            found = turns(services, rounds, clients, size, options.encoder)
            report["shapes"][f"{clients}x{size}"] = found
            print(json.dumps({f"{clients}x{size}": found}), file=sys.stderr, flush=True)
    report["alone"] = encode_alone(options.encoder, texts[: options.count], options.threads)
    shown = [
        [f"{shape.replace('x', ' clients x ')} texts", *(f"{each['rate']:.1f}" for each in found.values()),
         *(f"{found[OURS]['rate'] / each['rate']:.2f}" for name, each in found.items() if name != OURS),
         str(sum(each["failed"] for each in found.values()))]
        for shape, found in report["shapes"].items()
    ]  # fmt: skip
    peers = [name for name in services if name != OURS]
    heads = ("requests", *(f"{name}, texts/s" for name in services), *(f"times {name}" for name in peers), "failed")
    cpu = [
        [shape, *(f"{1000 * each['cpu'] / each['texts']:.1f}" for each in found.values())]
        for shape, found in report["shapes"].items()
    ]
    report["meets"] = {
        "vectors": all(each["least"] > GOALS["cosine"] for each in report["vectors"].values()),
        **{
            f"{shape}: {name}": found[OURS]["rate"] >= GOALS["ratio"] * found[name]["rate"]
            for shape, found in report["shapes"].items() for name in peers
        },
        "none failed": not any(each["failed"] for found in report["shapes"].values() for each in found.values()),
    }  # fmt: skip
    report["peer"] = find_version(options.peer) if options.peer else ""
    cosines = ", ".join(f"{each['least']:.4f} ({name})" for name, each in report["vectors"].items())
    notes = [
        f"`{options.encoder}`, {options.threads} threads, {options.count} texts a round (of the collection {Path(options.texts).name}; "
        f"an eighth for one client), {options.rounds} rounds in turns. The same texts encoded by one call in one process: "
        f"{report['alone']:.1f} texts a second. {report['peer']} Least cosine of its vectors with ours: {cosines}."
    ]  # fmt: skip
    busy = Table(("clients x texts", *(f"{name}, ms" for name in services)), cpu, "CPU time of the server for a text")
    return report, [Table(heads, shown), busy], notes


def start_peer(python: Path, encoder: str, dtype: str, made: Path, threads: dict[str, str]) -> Service:
    """infinity-emb over the checkpoint that the encoder was converted to, as sentence-transformers reads it."""
    from crosslens.checkpoints.offline.packages import make_checkpoint

    checkpoint = make_checkpoint(encoder.partition(":")[2])
    command = [
        str(python.parent / "infinity_emb"), "v2", "--model-id", str(checkpoint), "--served-model-name", encoder,
        "--port", "{port}", "--host", "127.0.0.1", "--url-prefix", "/v1", "--device", "cpu", "--engine", "torch",
        "--dtype", dtype, "--no-bettertransformer", "--no-model-warmup", "--no-vector-disk-cache",
    ]  # fmt: skip
    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "PYTHONPATH": ""}
    return Service(command, log=made / f"peer-{dtype}.log", ready="/v1/models", environment={**threads, **quiet})


def find_version(python: Path) -> str:
    """The packages of the peer's environment that decide its speed."""
    names = ("infinity-emb", "torch", "sentence-transformers", "transformers")
    code = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {names!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return f"The peer: {found.stdout.strip()}."


def turns(
    services: dict[str, tuple[Service, str]], rounds: Sequence[Sequence[str]], clients: int, size: int, encoder: str
) -> dict[str, Any]:
    """Texts a second of each service over all rounds; who begins a round changes."""
    found = {name: {"texts": 0, "seconds": 0.0, "failed": 0, "cpu": 0.0, "each": []} for name in services}
    for number, texts in enumerate([rounds[0][: len(rounds[0]) // 4], *rounds]):  # the first is a warm-up
        names = list(services)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            service, path = services[name]
            requests = [Request(path, ask(texts[at : at + size], name, encoder)) for at in range(0, len(texts), size)]
            cpu = service.cpu_seconds()
            sending: Sending = generate(Load(service.port, clients, 600, requests))
            if number == 0:
                continue
            mine = found[name]
            mine["texts"] += len(texts)
            mine["seconds"] += sending.seconds
            mine["failed"] += sum(each.status != 200 for each in sending.sent)
            mine["cpu"] += service.cpu_seconds() - cpu
            mine["each"].append(round(len(texts) / sending.seconds, 1))
    return {name: {**each, "rate": each["texts"] / each["seconds"]} for name, each in found.items()}


def ask(texts: Sequence[str], name: str, encoder: str) -> dict[str, Any]:
    """The body of a request; crosslens puts the prefix before documents itself."""
    body: dict[str, Any] = {"model": encoder, "input": list(texts), "encoding_format": "float"}
    if name == OURS:
        return body | {"input_type": "document"}
    return body | {"input": [PREFIX + text for text in texts]}


def same_vectors(services: dict[str, tuple[Service, str]], texts: Sequence[str], encoder: str) -> dict[str, Any]:
    """Cosines of each peer's vectors with ours."""
    vectors = {}
    for name, (service, path) in services.items():
        status, answer = service.ask("POST", path, ask(texts, name, encoder))
        if status != 200:
            raise InputError(f"{name}: {status} {answer[:500]!r}")
        rows = np.array([each["embedding"] for each in json.loads(answer)["data"]])
        vectors[name] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = {name: (each * vectors[OURS]).sum(axis=1) for name, each in vectors.items() if name != OURS}
    return {name: {"least": float(each.min()), "mean": float(each.mean())} for name, each in cosines.items()}


def encode_alone(encoder: str, texts: Sequence[str], threads: int) -> float:
    """Texts a second of one `encode` in this process."""
    import torch
    from crosslens.encoders.registry import load_encoder
    from crosslens.items import Item

    torch.set_num_threads(threads)
    loaded = load_encoder(encoder)
    items = [Item(str(number), text=text) for number, text in enumerate(texts)]
    encode: Callable[[Sequence[Item]], int] = lambda some: len(list(loaded.encode(some, "document")))  # noqa: E731
    encode(items[:64])
    began = time.monotonic()
    encode(items)
    return len(items) / (time.monotonic() - began)
