"""Speed, recall and memory of exact and approximate search over one set of vectors, by crosslens and its peers.

    python benchmarks/index.py [--rows 200000] [--dim 384] [--threads 2]

The vectors are made, not encoded, to look like a multilingual encoder's: each document is a topic (of `rows`
/ 100, by a Zipf law) plus an offset of its language plus noise twice as long as the topic, with a spectrum
that falls as 1 / sqrt(axis), as embeddings' do, at length 1 and in float16, as LanceDB stores them. Twelve
languages; swa has 5% of the rows and is the filter. Queries are new draws of the topics. Everyone searches
the same language-corrected vectors.

Each system runs alone in a process of its own, on the same cores with the same number of threads. What is compared
is CPU time, of all threads, which other work on the machine changes less than the time on the clock. A second set of
60,000 rows is searched 1,000 deep for 1,000 queries. Tables go to stderr, one JSON object to stdout. Exit status 1
unless exact search answers batches in no more than faiss's IndexFlatIP takes in this run, the default index a query
alone in no more than 1.5 times that, and the default approximate index has recall@10 of 0.95, with and without the
filter.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from measurements import Table, add_save, save

LANGS = ("eng", "zho", "rus", "fas", "spa", "ara", "deu", "fra", "jpn", "hin", "kor", "swa")
FILTER, SHARE = "swa", 0.05
QUERIES, BATCH, ALONE = 256, 64, 48
DEEP, DEEP_ROWS, DEEP_QUERIES = 1000, 60_000, 1000
CHUNK = 20_000
TIE = 1e-4
SYSTEMS = {
    "lance-flat": "`lance`, exact",
    "lance-auto": "`lance`, build('auto')",
    "flat": "what searches for `flat`, alone",
    "faiss-flat": "faiss IndexFlatIP",
    "faiss-hnsw": "faiss HNSW32, efSearch 64",
}
DEEP_SYSTEMS = {
    "products": "the matrix products alone",
    "flat": SYSTEMS["flat"],
    "lance-flat": SYSTEMS["lance-flat"],
    "lance-merged": "`lance`, exact, languages merged",
    "faiss-flat": SYSTEMS["faiss-flat"],
}

Search = Callable[[np.ndarray, int, bool], Any]  # query numbers, k, filtered -> rows [q, k] or a run, see `read_rows`


class Data:
    """The files of one run: raw and corrected vectors as float16, languages, queries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sizes = json.loads((folder / "sizes.json").read_text())
        self.rows, self.dim, self.threads = sizes["rows"], sizes["dim"], sizes["threads"]
        self.langs = np.load(folder / "langs.npy")
        self.query_langs = np.load(folder / "query-langs.npy")
        self.raw_queries = np.load(folder / "raw-queries.npy")
        self.queries = np.load(folder / "queries.npy")

    @property
    def kept(self) -> np.ndarray:
        return self.langs == LANGS.index(FILTER)

    def block(self, name: str, start: int, count: int) -> np.ndarray:
        """Rows of `raw` or `corrected`, float32; read and not mapped, as mapped files count as memory."""
        offset, count = start * self.dim * 2, min(count, self.rows - start)
        flat = np.fromfile(self.folder / name, np.float16, count * self.dim, offset=offset)
        return flat.reshape(-1, self.dim).astype(np.float32)

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        for start in range(0, self.rows, CHUNK):
            yield self.block(name, start, CHUNK)


def make(folder: Path, rows: int, dim: int, threads: int, asked: int) -> None:
    """Write the files of `Data`."""
    from crosslens.encoders.base import unit
    from crosslens.indexes.moments import TEXT, Moments

    random = np.random.default_rng(1)
    spectrum = 1 / np.sqrt(1 + np.arange(dim))
    spectrum /= np.linalg.norm(spectrum)
    turn = np.linalg.qr(random.normal(size=(dim, dim)))[0] * spectrum[:, None]
    topics = random.normal(size=(max(10, rows // 100), dim)) @ turn
    popularity = 1 / (10 + np.arange(len(topics)))
    popularity /= popularity.sum()
    offsets = 1.5 * unit(random.normal(size=(len(LANGS), dim))) + 2 * unit(random.normal(size=dim))
    shares = np.r_[np.full(len(LANGS) - 1, (1 - SHARE) / (len(LANGS) - 1)), SHARE]

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        langs = random.choice(len(LANGS), count, p=shares)
        topic = random.choice(len(topics), count, p=popularity)
        noise = 2 * random.normal(size=(count, dim)) @ turn
        return unit(topics[topic] + offsets[langs] + noise), langs

    langs = []
    with (folder / "raw").open("wb") as out:
        for start in range(0, rows, CHUNK):
            vectors, drawn_langs = drawn(min(CHUNK, rows - start))
            vectors.astype(np.float16).tofile(out)
            langs.append(drawn_langs)
    queries, query_langs = drawn(asked)
    np.save(folder / "langs.npy", np.concatenate(langs))
    np.save(folder / "query-langs.npy", query_langs)
    np.save(folder / "raw-queries.npy", queries)
    np.save(folder / "queries.npy", queries)
    (folder / "sizes.json").write_text(json.dumps({"rows": rows, "dim": dim, "threads": threads}))

    data = Data(folder)
    names = [LANGS[lang] for lang in data.langs]
    moments = Moments(dim)
    for number, block in enumerate(data.blocks("raw")):
        moments.update(block, names[number * CHUNK :][: len(block)], [TEXT] * len(block))
    with (folder / "corrected").open("wb") as out:
        for number, block in enumerate(data.blocks("raw")):
            mine = names[number * CHUNK :][: len(block)]
            moments.correct(block, mine, [TEXT] * len(block)).astype(np.float16).tofile(out)
    mine = [LANGS[lang] for lang in query_langs]
    np.save(folder / "queries.npy", moments.correct(queries, mine, [TEXT] * len(queries)))


def truth(data: Data, k: int, filtered: bool) -> np.ndarray:
    """The k-th best score of each query, by brute force in float32."""
    best = np.full((len(data.queries), k), -np.inf, np.float32)
    for number, block in enumerate(data.blocks("corrected")):
        kept = data.kept[number * CHUNK :][: len(block)] if filtered else slice(None)
        scores = np.concatenate([best, data.queries @ block[kept].T], axis=1)
        best = -np.partition(-scores, k - 1, axis=1)[:, :k]
    return best.min(axis=1)


def recall(data: Data, vectors: np.ndarray, floor: np.ndarray, found: np.ndarray, filtered: bool) -> float:
    """The share of each query's k best that was found; `found` is rows [q, k], -1 where nothing."""
    shares = []
    for query, least, rows in zip(data.queries[: len(floor)], floor, found, strict=True):
        rows = np.unique(rows[rows >= 0])
        assert not filtered or data.kept[rows].all()
        shares.append((vectors[rows] @ query >= least - TIE).sum() / found.shape[1])
    return round(float(np.mean(shares)), 4)


def read_rows(found: Any, k: int) -> np.ndarray:
    """What a system found as rows int [q, k], -1 where nothing; a run's are in the ids, which is not part of a search."""
    if isinstance(found, np.ndarray):
        return found
    rows = np.full((len(found.queries), k), -1)
    for row, (_, hits) in enumerate(found):
        rows[row, : len(hits)] = [int(hit.id[1:]) for hit in hits]
    return rows


# Systems: each returns how it searches, and seconds of each step of making it ready.


def lance(data: Data, exact: bool, merge: float = 0) -> tuple[Search, dict[str, float]]:
    from crosslens.encoders.base import EncoderSpec
    from crosslens.indexes.index import DocumentIndex
    from crosslens.indexes.registry import create_index, open_index
    from crosslens.items import Dense, Item

    class Stored:
        """Hands out vectors by the number in an item's id."""

        spec = EncoderSpec("benchmark:made", "1", ("text",), data.dim)

        def encode(self, items: Any, role: str) -> Any:
            ids = [item.id for item in items]
            numbers = np.array([int(each[1:]) for each in ids])
            if role == "query":
                yield Dense(ids, data.raw_queries[numbers])
            else:  # a window of rows, in order
                yield Dense(ids, data.block("raw", numbers[0], len(numbers)))

    path = data.folder / "lance"
    seconds = {}
    if not path.exists():
        started = time.perf_counter()
        items = (Item(f"d{row}", "text", lang=LANGS[lang]) for row, lang in enumerate(data.langs))
        made = create_index(path, lexical=False)
        assert isinstance(made, DocumentIndex)
        made.statistics.openings = 0  # so that queries are corrected by the mean of documents, as everyone's are
        made.add(items, Stored())
        seconds["ingest"] = time.perf_counter() - started
    index = open_index(path, encoders=Stored())
    if not exact:
        started = time.perf_counter()
        print(f"  {index.build('auto')}", file=sys.stderr)
        print(f"  {index.card.spaces[0].ann}", file=sys.stderr)
        seconds["build"] = time.perf_counter() - started
    queries = [Item(f"q{n}", "text", lang=LANGS[lang]) for n, lang in enumerate(data.query_langs)]

    def search(numbers: np.ndarray, k: int, filtered: bool) -> Any:
        where = {"lang": FILTER} if filtered else None
        return index.search([queries[number] for number in numbers], k, where=where, exact=exact, merge=merge)

    return search, seconds


def flat(data: Data) -> tuple[Search, dict[str, float]]:
    import torch
    from crosslens.indexes.kinds.searcher import FlatSearcher

    torch.set_num_threads(data.threads)
    vectors = np.empty((data.rows, data.dim), np.float32)
    for number, block in enumerate(data.blocks("corrected")):
        vectors[number * CHUNK :][: len(block)] = block
    started = time.perf_counter()
    searcher = FlatSearcher(vectors, "cpu")
    seconds = {"build": time.perf_counter() - started}
    kept = data.kept

    def search(numbers: np.ndarray, k: int, filtered: bool) -> np.ndarray:
        return searcher.nearest(data.queries[numbers], k, kept if filtered else None)[0]

    return search, seconds


def peer(data: Data, factory: str) -> tuple[Search, dict[str, float]]:
    faiss: Any = import_module("faiss")  # untyped: its stubs lack the keywords
    faiss.omp_set_num_threads(data.threads)
    index = faiss.index_factory(data.dim, factory, faiss.METRIC_INNER_PRODUCT)
    seconds = 0.0
    for block in data.blocks("corrected"):
        started = time.perf_counter()
        index.add(block)
        seconds += time.perf_counter() - started
    bitmap = np.packbits(data.kept, bitorder="little")

    def search(numbers: np.ndarray, k: int, filtered: bool) -> np.ndarray:
        selector = faiss.IDSelectorBitmap(bitmap) if filtered else None
        if factory == "Flat":
            parameters = faiss.SearchParameters(sel=selector) if selector else None
        else:
            parameters = faiss.SearchParametersHNSW(efSearch=64, sel=selector)
        return index.search(data.queries[numbers], k, params=parameters)[1]

    return search, {"build": seconds}


def products(data: Data) -> tuple[Search, dict[str, float]]:
    """No search: what any exact one has to compute, 64 queries at a time."""
    import torch

    torch.set_num_threads(data.threads)
    vectors = torch.from_numpy(np.concatenate(list(data.blocks("corrected"))))
    out = torch.empty(BATCH, len(vectors))

    def search(numbers: np.ndarray, k: int, filtered: bool) -> np.ndarray:
        for part in torch.from_numpy(data.queries[numbers]).split(BATCH):
            torch.mm(part, vectors.T, out=out[: len(part)])
        return np.empty((0, k))

    return search, {}


READY: dict[str, Callable[[Data], tuple[Search, dict[str, float]]]] = {
    "lance-flat": lambda data: lance(data, exact=True),
    "lance-merged": lambda data: lance(data, exact=True, merge=0.5),
    "lance-auto": lambda data: lance(data, exact=False),
    "products": products,
    "flat": flat,
    "faiss-flat": lambda data: peer(data, "Flat"),
    "faiss-hnsw": lambda data: peer(data, "HNSW32"),
}


def fastest(call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds and seconds, the best of at least 3 calls, and of as many as fit into 5 seconds, after one before."""
    call()
    times: list[tuple[float, float]] = []
    while len(times) < 3 or sum(took for _, took in times) < 5:
        spent, started = time.process_time(), time.perf_counter()
        call()
        times.append((time.process_time() - spent, time.perf_counter() - started))
    return min(cpu for cpu, _ in times), min(took for _, took in times)


def measured(system: str, data: Data) -> dict[str, Any]:
    """Make one system ready, time it, and keep what it finds in files for `recall`."""
    search, seconds = READY[system](data)
    result: dict[str, Any] = {f"{step}_s": round(taken, 2) for step, taken in seconds.items()}
    batch, alone = np.arange(BATCH), np.arange(ALONE)
    for filtered in (False, True):
        mark = "_filtered" if filtered else ""
        together = fastest(partial(search, batch, 10, filtered))
        singly = fastest(lambda: [search(alone[n : n + 1], 10, filtered) for n in alone])  # noqa: B023
        for name, count, (cpu, took) in (("batch", BATCH, together), ("single", ALONE, singly)):
            result[f"{name}_qps{mark}"] = round(count / took, 1)
            result[f"{name}_cpu_ms{mark}"] = round(1000 * cpu / count, 2)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    for k in (10, 100):
        for filtered in (False, True):
            parts = np.split(np.arange(QUERIES), QUERIES // BATCH)
            found = np.concatenate([read_rows(search(part, k, filtered), k) for part in parts])
            np.save(data.folder / f"{system}-{k}-{int(filtered)}.npy", found)
    return result


def deepened(system: str, data: Data) -> dict[str, Any]:
    """One system's CPU seconds and seconds for all queries, 1,000 deep, and its k-th scores' share of the exact ones."""
    search, _ = READY[system](data)
    everything = np.arange(len(data.queries))
    found = read_rows(search(everything[:BATCH], DEEP, False), DEEP)
    spent, started = time.process_time(), time.perf_counter()
    search(everything, DEEP, False)
    took, cpu = time.perf_counter() - started, time.process_time() - spent
    result: dict[str, Any] = {"cpu_s": round(cpu, 2), "seconds": round(took, 2)}
    if len(found) and system != "lance-merged":
        vectors = np.concatenate(list(data.blocks("corrected")))
        floor = -np.partition(-(data.queries[:BATCH] @ vectors.T), DEEP - 1, axis=1)[:, DEEP - 1]
        result["recall"] = recall(data, vectors, floor, found, False)
    return result


def run(rows: int, dim: int, threads: int) -> dict[str, Any]:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    names = ("OMP", "OPENBLAS", "MKL", "RAYON")
    environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in names}}
    environment["LANCE_CPU_THREADS"] = str(threads)

    def measure(how: str, names: Iterable[str], folder: Path) -> dict[str, Any]:
        found = {}
        for system in names:
            print(f"measuring {system}, {how}", file=sys.stderr)
            command = [sys.executable, __file__, f"--{how}", system, str(folder)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found[system] = json.loads(done.stdout.splitlines()[-1])
        return found

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, DEEP_ROWS, dim, threads, DEEP_QUERIES)
        deep = measure("deep", DEEP_SYSTEMS, folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"making {rows:,} x {dim} vectors", file=sys.stderr)
        make(folder, rows, dim, threads, QUERIES)
        systems = measure("measure", SYSTEMS, folder)
        data = Data(folder)
        vectors = np.concatenate(list(data.blocks("corrected")))
        for k in (10, 100):
            for filtered in (False, True):
                floor = truth(data, k, filtered)
                for system, result in systems.items():
                    found = np.load(folder / f"{system}-{k}-{int(filtered)}.npy")
                    mark = "_filtered" if filtered else ""
                    result[f"recall@{k}{mark}"] = recall(data, vectors, floor, found, filtered)
    for result in systems.values():
        for speed in ("batch", "single"):
            spent = systems["faiss-flat"][f"{speed}_cpu_ms"]
            result[f"{speed}_ratio"] = round(spent / result[f"{speed}_cpu_ms"], 2)
    for result in deep.values():
        result["ratio"] = round(deep["faiss-flat"]["cpu_s"] / result["cpu_s"], 2)
    auto, exact = systems["lance-auto"], systems["lance-flat"]
    checks = {
        "exact search answers batches at least as fast as faiss flat": systems["flat"]["batch_ratio"] >= 1.0,
        "lance answers a query alone within 1.5 times of faiss flat": exact["single_ratio"] >= 1 / 1.5,
        "auto recall@10 >= 0.95": auto["recall@10"] >= 0.95,
        "auto recall@10 >= 0.95 under the filter": auto["recall@10_filtered"] >= 0.95,
    }
    about = {"rows": rows, "dim": dim, "threads": threads, "filter_keeps": SHARE}
    return {**about, "systems": systems, "deep": deep, "checks": checks}


COLUMNS = {
    "build s": "build_s",
    "q/s 1": "single_qps",
    "q/s 64": "batch_qps",
    "CPU ms 1": "single_cpu_ms",
    "CPU ms 64": "batch_cpu_ms",
    "x faiss 1": "single_ratio",
    "x faiss 64": "batch_ratio",
    "R@10": "recall@10",
    "R@100": "recall@100",
    "5%: CPU ms 1": "single_cpu_ms_filtered",
    "5%: R@10": "recall@10_filtered",
    "peak MB": "peak_mb",
}
DEEP_COLUMNS = {"CPU s": "cpu_s", "s": "seconds", "x faiss": "ratio", "recall": "recall"}


def list_tables(report: dict[str, Any]) -> list[Table]:
    """Speed and recall of all systems; deep search of those that search exactly."""

    def list_rows(part: str, names: dict[str, str], columns: dict[str, str]) -> list[list[str]]:
        found = report[part].items()
        return [[names[system], *(str(each.get(key, "-")) for key in columns.values())] for system, each in found]

    title = f"{report['rows']:,} vectors of {report['dim']} dimensions, {report['threads']} threads"
    deep = f"{DEEP_QUERIES:,} queries, {DEEP:,} deep, over {DEEP_ROWS:,}"
    return [
        Table(("", *COLUMNS), list_rows("systems", SYSTEMS, COLUMNS), title),
        Table(("", *DEEP_COLUMNS), list_rows("deep", DEEP_SYSTEMS, DEEP_COLUMNS), deep),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", nargs=2, metavar=("SYSTEM", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--deep", nargs=2, metavar=("SYSTEM", "FOLDER"), help=argparse.SUPPRESS)
    add_save(parser)
    arguments = parser.parse_args()
    for how, given in ((measured, arguments.measure), (deepened, arguments.deep)):
        if given:
            print(json.dumps(how(given[0], Data(Path(given[1])))))
            return 0
    if arguments.rows < 4000:
        parser.error("--rows must be at least 4000, so that the filter keeps 100 and more")
    report = run(arguments.rows, arguments.dim, arguments.threads)
    tables = list_tables(report)
    for each in tables:
        print(each.markdown(), file=sys.stderr)
    for check, passed in report["checks"].items():
        print("ok    " if passed else "MISSED", check, file=sys.stderr)
    notes = [
        "CPU ms: of all threads, a query; 1 is one at a time, 64 in batches of 64. Of these is x faiss, how many times "
        "less than IndexFlatIP. q/s: on the clock. 5%: under a filter that keeps 5% of the rows."
    ]
    save(arguments.save, report, tables, notes)
    print(json.dumps(report))
    return 0 if all(report["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
