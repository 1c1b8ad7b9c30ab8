"""How fast is `offline:e5-small` against sentence-transformers on the same checkpoint, machine and threads?

    python benchmarks/collections/libreoffice_help.py /tmp/help
    python benchmarks/encode.py --collection /tmp/help/dev

- speed: the default, int8, OpenVINO and sentence-transformers, all warm, take turns round by round, so that the
  ratios hold when the machine's speed drifts. Token budgets are measured before, and told.
- queries: the seconds of one query at a time, by the default, by OpenVINO and by sentence-transformers, in turn, of the
  clock and of the CPU; how often ours goes into theirs is by CPU time, which holds beside other work.
- shares: where the processor's time of one query goes, with one thread: tokens, products by each library, all else, and
  for comparison reading as many bytes as the weights of the layers have.
- quality: what int8 loses against float32 on a collection (nDCG@20, exact search, all languages together), and the
  cosines between the two. `--documents` and `--topics` draw some of them; what is judged for the topics is kept.
- overhead: the share of wall time that is not spent inside the model's forward, at several batch sizes.
- memory: the peak resident memory of a process that encodes so many texts from a generator, and four times as many.

Prints a table on stderr and one JSON object on stdout; exits with 1 if a goal is missed, and says which.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from encode_tables import tables
from measurements import add_save, save

# How often the fastest of ours must go into sentence-transformers' time, by what the processor multiplies.
RATIOS = {"amx_bf16": 6.0, "avx512_bf16": 4.5, "": 1.6}
HOPELESS = 5  # int8 is not measured where a layer takes so many times as long as in the usual precision
COSINE = 0.999
INT8_LOSS = 0.01  # the share of nDCG@20 that int8 may lose
OUTSIDE = 0.05  # share of the time outside the model
GROWTH = 1.05  # peak memory over four times as many texts
QUERY = 0.012  # seconds of the median query
PARTS = ("speed", "queries", "shares", "quality", "overhead", "memory")
DEPTH = 1000


def texts(count: int) -> list[str]:
    """Texts of 1 to about 450 tokens in 14 languages: runs of sentences of the demo collection, seeded."""
    sources = demo_texts()
    draw = random.Random(0)
    made = []
    for _ in range(count):
        words = " ".join(draw.sample(sources, draw.choice((1, 1, 1, 2, 4))))
        made.append(words[: int(draw.lognormvariate(5.2, 0.9)) + 4])
    return made


def demo_texts() -> list[str]:
    """The demo's texts, a title and a line each, read without what its photos and languages need."""
    from crosslens.demo.collection import HERE

    rows = map(json.loads, (HERE / "docs.jsonl").read_text("utf-8").splitlines())
    return [f"{row['title']}\n{row['text']}" for row in rows]


def timed(work: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Seconds of the clock, seconds that this process's threads computed or spun, and the vectors."""
    started, computed = time.perf_counter(), time.process_time()
    vectors = work()
    return time.perf_counter() - started, time.process_time() - computed, vectors


def ratio(ours: list[float], theirs: list[float]) -> float:
    """How often ours goes into theirs, the median over rounds."""
    return round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2)


def gemm_peak(dtype: str) -> float:
    """GFLOP/s of the model's largest product, 2048 x 384 x 1536, the best of 20."""
    import torch

    best = np.inf
    if dtype == "int8":
        left, right = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((2048, 384), (1536, 384)))
        product: Callable[[], object] = lambda: torch._int_mm(left, right.t())  # noqa: E731, SLF001
    else:
        left, right = (torch.randn(*shape).to(getattr(torch, dtype)) for shape in ((2048, 384), (1536, 384)))
        product = lambda: torch.nn.functional.linear(left, right)  # noqa: E731
    with torch.inference_mode():
        for _ in range(20):
            started = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - started)
    return 2 * 2048 * 384 * 1536 / best / 1e9


def speed(count: int, rounds: int, device: str) -> tuple[dict[str, Any], list[str]]:
    """Seconds of each system in each round, and the goals missed."""
    import torch
    from crosslens.checkpoints.devices import resolve_device, resolve_dtype
    from crosslens.checkpoints.int8 import compare_speed
    from crosslens.checkpoints.offline import packages as offline
    from crosslens.encoders.base import Encoder, encode_matrix
    from crosslens.encoders.registry import load_encoder
    from crosslens.items import Item
    from sentence_transformers import SentenceTransformer

    corpus = texts(count)
    items = [Item(str(number), text=text) for number, text in enumerate(corpus)]
    where = resolve_device(device)
    checkpoint = str(offline.make_checkpoint("e5-small"))
    ours: dict[str, Any] = {"crosslens": load_encoder("offline:e5-small", device=device)}
    if where.type == "cpu":
        times = compare_speed(resolve_dtype("auto", where))
        if times < HOPELESS:
            ours["crosslens int8"] = load_encoder("offline:e5-small?dtype=int8", device=device)
        else:
            print(f"int8 is left out: a layer takes {times:.0f} times as long here", file=sys.stderr)
        if importlib.util.find_spec("openvino"):
            ours["crosslens openvino"] = load_encoder("offline:e5-small?backend=openvino", device=device)
            ours["st: openvino"] = load_encoder(f"st:{checkpoint}?backend=openvino", device=device)
    theirs = SentenceTransformer(checkpoint, device=str(where))

    def encoding(encoder: Encoder) -> Callable[[], np.ndarray]:
        return lambda: encode_matrix(encoder, items, "document")

    systems = {name: encoding(encoder) for name, encoder in ours.items()}
    systems["sentence-transformers"] = lambda: theirs.encode_document(corpus, show_progress_bar=False)
    for encoder in ours.values():
        encode_matrix(encoder, items[:64], "document")
        for _ in range(20):
            if getattr(getattr(encoder, "budget", None), "known", True):
                break
            encode_matrix(encoder, items, "document")
    theirs.encode_document(corpus[:64])
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    cpu: dict[str, list[float]] = {name: [] for name in systems}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, work in systems.items():
            spent, computed, vectors[name] = timed(work)
            seconds[name].append(spent)
            cpu[name].append(computed)
    base, base_cpu = (each.pop("sentence-transformers") for each in (seconds, cpu))
    any_encoder = ours["crosslens"]
    tokens = sum(map(len, any_encoder.token_ids([any_encoder.spec.document_prompt + text for text in corpus])))
    # 12 layers of 4 d^2 + 2 d f weights, two operations a weight and token; attention's products come on top.
    work_done = tokens * 2 * 12 * (4 * 384**2 + 2 * 384 * 1536) / 1e9
    report: dict[str, Any] = {
        "device": str(where),
        "threads": torch.get_num_threads(),
        "texts": len(corpus),
        "tokens": tokens,
        "sentence-transformers": {
            "seconds": [round(s, 2) for s in base],
            "cpu_seconds": [round(s, 2) for s in base_cpu],
            "texts_per_second": round(count / statistics.median(base), 1),
        },
    }
    missed = []
    peaks = {dtype: max(gemm_peak(dtype) for _ in range(5)) for dtype in {each.spec.dtype for each in ours.values()}}
    for name, spent in seconds.items():
        dtype = ours[name].spec.dtype
        cosines = (vectors[name] * vectors["sentence-transformers"]).sum(axis=1)
        peak = peaks[dtype]
        each = report[name] = {
            "dtype": dtype,
            "tokens_a_batch": describe_batch(ours[name]),
            "seconds": [round(s, 2) for s in spent],
            "texts_per_second": round(count / statistics.median(spent), 1),
            "cpu_seconds": [round(s, 2) for s in cpu[name]],
            "ratio": ratio(spent, base),
            "cpu_ratio": ratio(cpu[name], base_cpu),  # what holds beside other work, with one thread
            "cosine_min": round(float(cosines.min()), 5),
            "cosine_mean": round(float(cosines.mean()), 5),
            "tokens_per_second": round(tokens / min(spent)),
            "gemm_gflops": round(peak),
            "share_of_gemm_peak": round(work_done / min(spent) / peak, 2),
        }
        log(
            f"{name:24} {each['texts_per_second']:8.1f} texts/s, ratio {each['ratio']} ({each['cpu_ratio']} of CPU time), lowest cosine "
            f"{each['cosine_min']}, {each['share_of_gemm_peak']:.0%} of {each['gemm_gflops']} GFLOP/s ({dtype})"
        )
        if dtype != "int8" and each["cosine_min"] < COSINE:
            missed.append(f"{name}: lowest cosine {each['cosine_min']}, goal {COSINE}")
    best = max(report[name]["ratio"] for name in seconds)
    goal = next(ratio for flag, ratio in RATIOS.items() if flag in Path("/proc/cpuinfo").read_text())
    if best < goal:
        missed.append(f"the fastest is {best} times as fast as sentence-transformers, goal {goal}")
    log(f"{'sentence-transformers':24} {report['sentence-transformers']['texts_per_second']:8.1f} texts/s")
    return report, missed


def describe_batch(encoder: Any) -> str:
    """How many tokens, or texts for sentence-transformers, a batch holds."""
    if (budget := getattr(encoder, "budget", None)) is None:
        return f"{encoder.batch_size} texts"
    return f"{getattr(budget, 'most', budget):,}"


def queries(count: int, rounds: int, device: str) -> tuple[dict[str, Any], list[str]]:
    """Milliseconds of one query at a time, of several lengths: the median, that of nine in ten, and of CPU time."""
    from crosslens.checkpoints.offline import packages as offline
    from crosslens.encoders.base import encode_matrix
    from crosslens.encoders.registry import load_encoder
    from crosslens.items import Item
    from sentence_transformers import SentenceTransformer

    asked = [text[: 20 + n % 60] for n, text in enumerate(texts(count))]
    encoders: dict[str, Any] = {"crosslens": load_encoder("offline:e5-small", device=device)}
    if encoders["crosslens"].device.type == "cpu" and importlib.util.find_spec("openvino"):
        encoders["crosslens openvino"] = load_encoder("offline:e5-small?backend=openvino", device=device)
    theirs = SentenceTransformer(str(offline.make_checkpoint("e5-small")), device=str(encoders["crosslens"].device))
    ways: dict[str, Callable[[str], np.ndarray]] = {
        name: lambda text, encoder=encoder: encode_matrix(encoder, [Item("1", text=text)], "query")
        for name, encoder in encoders.items()
    }
    ways["sentence-transformers"] = lambda text: theirs.encode_query([text], show_progress_bar=False)
    for text in asked[:10]:  # warm, and with the way to compute a text alone that is the fastest here
        for way in ways.values():
            way(text)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for text in asked:
            for name, way in ways.items():
                spent[name].append(timed(lambda text=text, way=way: way(text))[:2])
    report: dict[str, Any] = {}
    missed = []
    for name, each in spent.items():
        seconds, computed = zip(*each, strict=True)
        middle, slow = statistics.median(seconds), float(np.quantile(seconds, 0.9))
        found = report[name] = {"p50_ms": round(1000 * middle, 1), "p90_ms": round(1000 * slow, 1)}
        found |= {"p50_cpu_ms": round(1000 * statistics.median(computed), 1), "queries": len(each)}
        if name != "sentence-transformers":
            found["cpu_ratio"] = ratio(list(computed), [cpu for _, cpu in spent["sentence-transformers"]])
            if middle > QUERY:
                missed.append(f"{name}: a query takes {1000 * middle:.1f} ms, goal {1000 * QUERY:.0f}")
        log(f"{name:24} one query at a time: {', '.join(f'{key} {value}' for key, value in found.items())}")
    return report, missed


def shares(rounds: int) -> tuple[dict[str, Any], list[str]]:
    """Milliseconds of the processor for each part of a query, by its tokens: medians, all parts in turn."""
    import torch
    from crosslens.checkpoints.lean import LeanBert, list_products
    from crosslens.encoders.registry import load_encoder

    encoder: Any = load_encoder("offline:e5-small", device="cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    class Nothing:
        """A product that is not computed."""

        def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
            self.width = len(weight)

        def __call__(self, states: torch.Tensor) -> torch.Tensor:
            return states.new_zeros(len(states), self.width)

    models = {name: LeanBert(encoder.model, multiply) for name, multiply in list_products(encoder.model).items()}
    rest = LeanBert(encoder.model, Nothing)
    weights = torch.cat([each.flatten() for each in encoder.model.encoder.parameters() if each.dim() == 2])
    text = " ".join(demo_texts())
    words = encoder.token_ids([text])[0]
    report: dict[str, Any] = {}
    for length in (10, 20, 40):
        ids = words[:length]
        asked = encoder.tokenizer.decode(ids, skip_special_tokens=True)
        ways: dict[str, Callable[[], Any]] = {
            "tokens": lambda asked=asked: encoder.token_ids([asked]),
            **{f"products by {name}": lambda ids=ids, m=model: m.compute_states(ids) for name, model in models.items()},
            "all else": lambda ids=ids: rest.compute_states(ids),
            "reading the weights": lambda: weights.sum(),
        }
        spent: dict[str, list[float]] = {name: [] for name in ways}
        with torch.inference_mode():
            for number in range(rounds + 1):
                for name, work in ways.items():
                    started = time.thread_time()
                    work()
                    if number:
                        spent[name].append(1000 * (time.thread_time() - started))
        found = {name: statistics.median(each) for name, each in spent.items()}
        for name in ways:
            if name.startswith("products"):
                found[name] -= found["all else"]
        report[str(length)] = {name: round(each, 1) for name, each in found.items()}
        log(f"a query of {length} tokens: {report[str(length)]}")
    torch.set_num_threads(threads)
    return report, []


def quality(collection: str, documents: int, topics: int) -> tuple[dict[str, Any], list[str]]:
    """nDCG@20 of float32 and of int8, and their vectors' cosines."""
    from crosslens.encoders.base import encode_matrix
    from crosslens.encoders.registry import load_encoder
    from crosslens.evaluation.measures import measure_rankings, parse_measure
    from crosslens.multilingual.collections.registry import load_collection

    source = load_collection(collection)
    draw = random.Random(0)
    judged = source.qrels()
    queries = sorted((item for item in source.queries() if item.id in judged and item.text), key=lambda i: i.id)
    queries = draw.sample(queries, min(topics or len(queries), len(queries)))
    qrels = {query.id: judged[query.id] for query in queries}
    wanted = {doc for grades in qrels.values() for doc, grade in grades.items() if grade > 0}
    corpus = [item for item in source.docs() if item.text]
    others = [item for item in corpus if item.id not in wanted]
    kept = wanted | {item.id for item in draw.sample(others, min(documents or len(others), len(others)))}
    corpus = [item for item in corpus if item.id in kept]
    measure = parse_measure("nDCG@20")
    vectors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    values: dict[str, np.ndarray] = {}
    for dtype in ("float32", "int8"):
        encoder = load_encoder(f"offline:e5-small?dtype={dtype}", device="cpu")
        asked, found = vectors[dtype] = (
            encode_matrix(encoder, queries, "query"),
            encode_matrix(encoder, corpus, "document"),
        )
        hits = {}
        for query, scores in zip(queries, asked @ found.T, strict=True):
            best = np.argsort(-scores, kind="stable")[:DEPTH]
            hits[query.id] = [(corpus[row].id, float(scores[row])) for row in best]
        each = measure_rankings([measure], qrels, hits)[str(measure)]
        values[dtype] = np.array([each[query.id] for query in queries])
    means = {dtype: float(each.mean()) for dtype, each in values.items()}
    cosines = np.concatenate([(a * b).sum(axis=1) for a, b in zip(vectors["float32"], vectors["int8"], strict=True)])
    differences = values["int8"] - values["float32"]
    loss = 1 - means["int8"] / means["float32"]
    report = {
        "collection": collection,
        "topics": len(queries),
        "documents": len(corpus),
        "nDCG@20": {dtype: round(value, 4) for dtype, value in means.items()},
        "loss": round(loss, 4),
        # Half the width of the loss's 95% interval over topics.
        "loss_within": round(1.96 * float(differences.std(ddof=1)) / len(queries) ** 0.5 / means["float32"], 4),
        "topics_that_differ": int((differences != 0).sum()),
        "cosine_min": round(float(cosines.min()), 5),
        "cosine_mean": round(float(cosines.mean()), 5),
    }
    log(
        f"int8 on {collection}: {len(queries)} topics, {len(corpus):,} documents, nDCG@20 {means['int8']:.4f} "
        f"against {means['float32']:.4f}, loss {loss:+.2%} +- {report['loss_within']:.2%}, cosine {report['cosine_mean']}, "
        f"at least {report['cosine_min']}"
    )
    return report, [f"int8 loses {loss:.2%} of nDCG@20, goal {INT8_LOSS:.0%}"] if loss >= INT8_LOSS else []


def overhead(count: int, rounds: int, device: str) -> tuple[dict[str, Any], list[str]]:
    """The share of wall time outside the model's forward for each budget: tokenising, batching, pooling, copying."""
    import torch
    from crosslens.encoders.base import encode_matrix
    from crosslens.encoders.batching import plan_batches
    from crosslens.encoders.registry import load_encoder
    from crosslens.items import Item

    items = [Item(str(number), text=text) for number, text in enumerate(texts(count))]
    encoder: Any = load_encoder("offline:e5-small", device=device)
    inside = began = 0.0

    def now() -> float:
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def before(*_: object) -> None:
        nonlocal began
        began = now()

    def after(*_: object) -> None:
        nonlocal inside
        inside += now() - began

    hooks = [encoder.model.register_forward_pre_hook(before), encoder.model.register_forward_hook(after)]
    usual = getattr(encoder.budget, "most", encoder.budget)
    encode_matrix(encoder, items[:64], "document")
    lengths = [len(ids) for ids in encoder.token_ids([item.text or "" for item in items])]
    report, missed = {}, []
    try:
        for budget in sorted({usual // 4, usual // 2, usual, usual * 2, usual * 4}):
            encoder.budget = budget
            shares = []
            for _ in range(rounds):
                inside = 0.0
                spent, _, _ = timed(lambda: encode_matrix(encoder, items, "document"))
                shares.append(1 - inside / spent)
            share = statistics.median(shares)
            size = count / len(list(plan_batches(lengths, budget)))
            report[str(budget)] = {
                "texts_a_batch": round(size, 1),
                "outside": [round(each, 4) for each in shares],
                "median": round(share, 4),
            }
            log(f"overhead at {budget} tokens a batch ({size:.0f} texts): {share:.1%} outside the model")
            if share >= OUTSIDE:
                missed.append(f"overhead {share:.1%} at {budget} tokens a batch, goal below {OUTSIDE:.0%}")
    finally:
        for hook in hooks:
            hook.remove()
    return report, missed


def memory(count: int, device: str) -> tuple[dict[str, Any], list[str]]:
    """Peak resident memory over `count` texts and four times as many, each in a process of its own."""
    peaks = []
    for each in (count, 4 * count):
        command = [sys.executable, __file__, "--peak", str(each), "--device", device]
        peaks.append(int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    growth = peaks[1] / peaks[0]
    log(f"peak memory: {peaks[0] / 1e6:,.0f} MB for {count:,} texts, {peaks[1] / 1e6:,.0f} MB for {4 * count:,}")
    report = {"texts": [count, 4 * count], "peak_bytes": peaks, "growth": round(growth, 3)}
    return report, [f"peak memory grows {growth:.2f} times, goal {GROWTH}"] if growth > GROWTH else []


def peak(count: int, device: str) -> int:
    """Peak resident bytes of this process after encoding `count` generated texts, none of them kept."""
    from crosslens.encoders.registry import load_encoder
    from crosslens.items import Item

    sources = [text[:60] for text in texts(500)]

    def endless() -> Iterator[Item]:
        number = 0
        while True:
            yield Item(str(number), text=f"{number} {sources[number % len(sources)]}")
            number += 1

    encoder = load_encoder("offline:e5-small", device=device)
    encoded = sum(len(batch.ids) for batch in encoder.encode(islice(endless(), count), "document"))
    assert encoded == count
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--collection", help="for quality, which is left out without it")
    parser.add_argument("--documents", type=int, default=0, help="beside the judged ones (0: all)")
    parser.add_argument("--topics", type=int, default=0, help="0: all")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    add_save(parser)
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak, options.device))
        return 0
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))} (known: {', '.join(PARTS)})")
    ways: dict[str, Callable[[], tuple[dict[str, Any], list[str]]]] = {
        "speed": lambda: speed(options.texts, options.rounds, options.device),
        "queries": lambda: queries(60, options.rounds, options.device),
        "shares": lambda: shares(7 * options.rounds),
        "overhead": lambda: overhead(options.texts, options.rounds, options.device),
        "memory": lambda: memory(4096, options.device),
    }
    if options.collection:
        ways["quality"] = lambda: quality(options.collection, options.documents, options.topics)
    report: dict[str, Any] = {}
    missed: list[str] = []
    for part in parts:
        if part in ways:
            report[part], lacking = ways[part]()
            missed += lacking
    for each in missed:
        log(f"missed: {each}")
    save(options.save, {**report, "missed": missed}, tables(report))
    print(json.dumps({**report, "missed": missed}, indent=2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
