"""The measures of gpu.py: warm, the median of three rounds in which all take turns, with ratios of the same rounds.

A measure is given a `Place` and a dict for its figures; it returns what it found. On a GPU a goal that is missed is a
`CrosslensError`; on a CPU there are no goals. `NotHere` where a measure cannot be taken.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import PIL.Image
import torch
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import CrosslensError
from crosslens.indexes.kinds.searcher import FlatSearcher
from crosslens.items import Item
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.prompts import configure_prompt, load_prompt
from crosslens.multilingual.reranking.rerank import Rerank
from crosslens.multilingual.reranking.sorters import Heapsort, Pointwise, Sorter
from crosslens.runs import Run
from gpu_models import NotHere, Place, demo_documents, demo_queries, find_folder, mixed_items, require

ROUNDS = 3
GOALS = {"encode": 2.0, "likelihood": 8.0, "flat": 0.7, "train": 1.0}


def measure_encoding(place: Place, figures: dict[str, Any]) -> str:
    """Texts a second against sentence-transformers on the same checkpoint, and the share of the peak of bfloat16."""
    require("sentence_transformers", "sentence-transformers")
    from encode import texts
    from sentence_transformers import SentenceTransformer

    spec, what = place.fast_text()
    corpus = texts(8 if place.quick else 8192)
    items = [Item(str(number), text=text) for number, text in enumerate(corpus)]
    encoder: Any = load_encoder(str(spec), device=place.device)
    dtype = encoder.spec.dtype
    ours = lambda: encode_matrix(encoder, items, "document")  # noqa: E731
    systems: dict[str, Callable[[], object]] = {"crosslens": ours}
    kinds = {f"sentence-transformers {dtype}": (dtype, 32), f"sentence-transformers {dtype}, 256 a batch": (dtype, 256)}
    for name, (precision, batch) in {"sentence-transformers float32": ("float32", 32), **kinds}.items():
        settings = {"dtype": getattr(torch, precision)}
        model = SentenceTransformer(find_folder(spec), device=str(place.where), model_kwargs=settings)
        model.max_seq_length = encoder.spec.max_tokens
        systems[name] = partial(model.encode_document, corpus, batch_size=batch, show_progress_bar=False)
    spent = take_turns(place, systems)
    tokens = sum(map(len, encoder.prepare(items, "document")))
    linear = (each for each in encoder.model.modules() if isinstance(each, torch.nn.Linear))
    work = 2 * tokens * sum(each.weight.numel() for each in linear)
    share = work / statistics.median(spent["crosslens"]) / find_peak(place.where, dtype)
    figures |= {"model": what, "texts": len(corpus), "tokens": tokens, "dtype": dtype, "share_of_peak": round(share, 4)}
    rates = figures["texts_per_second"] = {
        name: round(len(corpus) / statistics.median(each), 1) for name, each in spent.items()
    }
    figures["ratios"] = compare_with(spent, "crosslens")
    require_goal(place, "encode", figures["ratios"][f"sentence-transformers {dtype}"], "times sentence-transformers")
    peers = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in figures["ratios"].items())
    return f"{what}: {rates['crosslens']:,.0f} texts/s in {dtype}: {peers}; {share:.1%} of the peak of {dtype}"


def measure_likelihood(place: Place, figures: dict[str, Any]) -> str:
    """Pointwise reranking by likelihood against one prompt a forward pass."""
    size = (2, 4) if place.quick else (20, 50)
    return measure_reranking(place, figures, "likelihood", Pointwise(), *size, goal=True)


def measure_setwise(place: Place, figures: dict[str, Any]) -> str:
    """Heapsort by sets of 3 over 50 queries."""
    size = (2, 6) if place.quick else (50, 100)
    return measure_reranking(place, figures, "setwise", Heapsort(arity=3), *size, goal=False)


def measure_reranking(
    place: Place, figures: dict[str, Any], name: str, sort: Sorter, queries: int, passages: int, *, goal: bool
) -> str:
    """A reranking of the demo's texts; the loop is timed on questions from all over it."""
    from rerank_loop import Loop, Question, another

    spec, what = place.fast_judge()
    judge = load_judge(str(spec), device=place.device)
    assert isinstance(judge, CausalJudge)
    documents = {item.id: item for item in demo_documents()}
    run = Run.of(demo_queries(queries)).ranking(
        {
            f"q{n}": [(doc, float(-place)) for place, doc in enumerate(list(documents)[:passages])]
            for n in range(queries)
        },
        InMemoryDocuments(documents),
    )
    asked: list[Question] = []

    def rerank() -> None:
        fresh = another(judge)  # with nothing remembered
        asked.clear()
        likelihood, choose = fresh.likelihood, fresh.choose

        def note_likelihood(prompts: Sequence[Any], targets: Sequence[str]) -> Any:
            asked.extend(Question(*pair) for pair in zip(prompts, targets, strict=True))
            return likelihood(prompts, targets)

        def note_choose(prompts: Sequence[Any], labels: Sequence[str]) -> Any:
            asked.extend(Question(each, labels=tuple(labels)) for each in prompts)
            return choose(prompts, labels)

        fresh.likelihood, fresh.choose = note_likelihood, note_choose  # type: ignore[method-assign]
        Rerank(fresh, configure_prompt(load_prompt(name), chat="never"), sort, passages, min(10, passages))(run)

    loop, few = Loop(find_folder(spec), judge.model.dtype, judge), 3 if place.quick else 48
    rerank()
    sample = asked[:: max(1, len(asked) // few)][:few]
    spent = take_turns(place, {"crosslens": rerank, "loop": lambda: loop(sample)}, warm=False)
    figures |= {
        "model": what, "dtype": str(judge.model.dtype), "queries": queries, "passages": passages, "questions": len(asked),
        "loop_timed_on": len(sample), "seconds": round(statistics.median(spent["crosslens"]), 3),
        "questions_per_second": round(len(asked) / statistics.median(spent["crosslens"]), 1),
        "loop_questions_per_second": round(len(sample) / statistics.median(spent["loop"]), 1),
    }  # fmt: skip
    pairs = zip(spent["crosslens"], spent["loop"], strict=True)
    figures["ratio"] = ratio = round(statistics.median(b / len(sample) * len(asked) / a for a, b in pairs), 2)
    if goal:
        require_goal(place, name, ratio, "times the loop")
    rate = figures["questions_per_second"]
    return f"{what}: {len(asked)} questions over {queries} queries, {rate:,.1f} a second, {ratio} x the one-prompt loop"


def measure_flat(place: Place, figures: dict[str, Any]) -> str:
    """Exact search against plain PyTorch, faiss, and what memory and arithmetic allow."""
    count, dim, asked, k = (20_000, 64, 70, 10) if place.quick else (1_000_000, 384, 1000, 100)
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((count, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = draw.standard_normal((asked, dim), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    searcher = FlatSearcher(rows, place.device)
    held = torch.from_numpy(rows).to(place.where)
    systems: dict[str, Callable[[], object]] = {
        "crosslens": lambda: searcher.nearest(queries, k),
        "torch": lambda: search_plainly(held, queries, k),
    }
    faiss, figures["faiss"] = open_faiss(place, rows)
    if faiss is not None:
        systems[figures["faiss"]] = lambda: faiss.search(queries, k)
    found, truth = searcher.nearest(queries, k)[0], search_plainly(held, queries, k)
    figures["same_as_torch"] = same = float(
        np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    )
    if same < 0.999:
        raise CrosslensError(f"only {same:.2%} of what plain PyTorch finds")
    spent = take_turns(place, systems)
    figures["seconds"] = {name: round(statistics.median(each), 5) for name, each in spent.items()}
    floors = {
        "one pass over the vectors": rows.nbytes / find_bandwidth(place.where),
        "the products in float32": 2.0 * count * dim * asked / find_peak(place.where, "float32"),
    }
    figures["floors"] = {name: round(each, 5) for name, each in floors.items()}
    figures["share_of_floor"] = share = round(max(floors.values()) / statistics.median(spent["crosslens"]), 3)
    figures["ratios"] = compare_with(spent, "crosslens")
    require_goal(place, "flat", share, "of the floor")
    floor = max(floors, key=lambda name: floors[name])
    peers = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in figures["ratios"].items())
    return f"{asked} queries over {count:,} x {dim}: {figures['seconds']['crosslens']} s, {peers}; {share:.0%} of the floor ({floor}); {figures['faiss']}"


def search_plainly(held: torch.Tensor, queries: np.ndarray, k: int) -> np.ndarray:
    """The best rows by products of blocks and their best k: what one writes without thinking of ties or rounding."""
    asked = torch.from_numpy(queries).to(held.device)
    best: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.inference_mode():
        for start in range(0, len(held), 1 << 18):
            values, places = (asked @ held[start : start + (1 << 18)].T).topk(k)
            best.append((values, places + start))
        values, rows = (torch.cat(each, dim=1) for each in zip(*best, strict=True))
        found: np.ndarray = rows.gather(1, values.topk(k).indices).cpu().numpy()
        return found


def open_faiss(place: Place, rows: np.ndarray) -> tuple[Any, str]:
    """An exact index of faiss over the rows, on the GPU where ours is, and its name; None and why there is none."""
    try:
        require("faiss", "faiss-gpu")
    except NotHere as reason:
        return None, str(reason)
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    if place.on_gpu:
        if not faiss.get_num_gpus():
            return None, "faiss is here without its GPU part"
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), place.where.index or 0, index)
    index.add(rows)
    return index, f"faiss {faiss.__version__}"


def measure_pictures(place: Place, figures: dict[str, Any]) -> str:
    """Pictures a second: decoding by all cores, the tower, both at once, and open_clip's own loop."""
    spec, what = place.fast_clip()
    encoder: Any = load_encoder(str(spec), device=place.device)
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_pictures(Path(folder), 8 if place.quick else 1024)
        items = [Item(path.name, image=path) for path in paths]
        made = decode(encoder, items)
        batches = [made[start : start + encoder.image_batch] for start in range(0, len(made), encoder.image_batch)]
        systems = {
            "both": lambda: encode_matrix(encoder, items, "document"),
            "decoding": lambda: decode(encoder, items),
            "the tower": lambda: [encoder.images(each) for each in batches],
            "open_clip with a DataLoader": loop_over(place, spec, paths),
        }
        spent = take_turns(place, systems)
    rates = {name: round(len(paths) / statistics.median(each), 1) for name, each in spent.items()}
    figures |= {"model": what, "pictures": len(paths), "pictures_per_second": rates}
    figures["share"] = share = round(rates["both"] / min(rates["decoding"], rates["the tower"]), 2)
    figures["ratio"] = ratio = compare_with(spent, "both")["open_clip with a DataLoader"]
    shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    return f"{what}, pictures/s: {shown}; {share:.0%} of the slower part, {ratio} x open_clip's loop"


def decode(encoder: Any, items: Sequence[Item]) -> list[torch.Tensor]:
    """The pictures as they wait for the tower."""
    from crosslens.multimodal.towers import map_in_threads, open_picture

    return list(
        map_in_threads(
            lambda item: encoder.prepare(open_picture(item, encoder.spec.max_pixels, encoder.shortest)), items
        )
    )


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs of 640 x 480 and 1024 x 768 pixels: smooth colours with the noise of a sensor."""
    draw = np.random.default_rng(0)
    paths = []
    for number in range(count):
        size = ((640, 480), (1024, 768))[number % 2]
        smooth = PIL.Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            size, PIL.Image.Resampling.BICUBIC
        )
        pixels = np.asarray(smooth, np.float32) + draw.normal(0, 5, (size[1], size[0], 1)).astype(np.float32)
        paths.append(folder / f"{number}.jpg")
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


def loop_over(place: Place, spec: Any, paths: Sequence[Path]) -> Callable[[], object]:
    """The plain loop of open_clip's users, with as many workers as there are cores, in the precision of ours."""
    import os

    import open_clip
    from images import LOOP_BATCH, Files
    from torch.utils.data import DataLoader

    dtype = {"cuda": torch.bfloat16}.get(place.where.type, torch.float32)
    precision = "pure_bf16" if dtype == torch.bfloat16 else "fp32"
    tower, transform = open_clip.create_model_from_pretrained(
        f"local-dir:{spec.checkpoint}", precision=precision, device=place.where
    )
    tower.eval()
    workers = 0 if place.quick else len(os.sched_getaffinity(0))

    @torch.inference_mode()
    def work() -> None:
        loader = DataLoader(
            Files(list(paths), transform), batch_size=LOOP_BATCH, num_workers=workers, pin_memory=place.on_gpu
        )
        for batch in loader:
            tower.encode_image(batch.to(place.where, dtype, non_blocking=True), normalize=True).float().cpu()

    return work


def measure_training(place: Place, figures: dict[str, Any]) -> str:
    """Examples a second of the bi-encoder, all weights."""
    return measure_trainers(place, figures, 0)


def measure_adapters(place: Place, figures: dict[str, Any]) -> str:
    """Examples a second of the bi-encoder, adapters alone."""
    require("peft")
    return measure_trainers(place, figures, 4 if place.quick else 16)


def measure_trainers(place: Place, figures: dict[str, Any], lora: int) -> str:
    """Ours, and sentence-transformers' where it can run."""
    import training_speed
    from crosslens.training.data.examples import Example, write_examples
    from crosslens.training.encoder.loop import EncoderTrainer

    if place.where.index:
        raise NotHere("training takes the first card")
    spec, what = place.fast_text()
    batch, steps = (2, 3) if place.quick else (64, 40)
    systems: dict[str, tuple[Any, Callable[[Namespace], object]]] = {
        "crosslens": (EncoderTrainer, training_speed.run_ours)
    }
    try:
        require("sentence_transformers", "sentence-transformers")
        require("datasets")
        from sentence_transformers import SentenceTransformerTrainer

        systems["sentence-transformers"] = (SentenceTransformerTrainer, training_speed.run_plain)
        lacking = ""
    except NotHere as reason:
        lacking = f"; no peer: {reason}"
    rates: dict[str, list[float]] = {name: [] for name in systems}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "pairs.jsonl")
        items = [item for item in mixed_items(2 * batch * steps) if item.text]
        pairs = zip(items[::2], items[1::2], strict=False)
        write_examples(
            data, (Example(number_item(query), (number_item(found),)) for query, found in pairs), {"of": "the demo"}
        )
        options = Namespace(
            data=str(data), base=str(spec), batch=batch, steps=steps, temperature=0.05, seed=0, lora=lora,
            device=place.where.type,
        )  # fmt: skip
        for _ in range(1 if place.quick else ROUNDS):
            for name, (trainer, run) in systems.items():
                with note_steps(trainer) as began:
                    run(options)
                warm = len(began) // 4
                rates[name].append(batch * (len(began) - 1 - warm) / (began[-1] - began[warm]))
    figures |= {"model": what, "batch": batch, "steps": steps, "lora": lora}
    shown = figures["examples_per_second"] = {name: round(statistics.median(each), 1) for name, each in rates.items()}
    said = f"{what}, {'LoRA of rank ' + str(lora) if lora else 'all weights'}, {batch} a step: {shown['crosslens']:,.1f} examples/s"
    if lacking:
        return said + lacking
    pairs = zip(rates["crosslens"], rates["sentence-transformers"], strict=True)
    figures["ratio"] = ratio = round(statistics.median(ours / theirs for ours, theirs in pairs), 2)
    require_goal(place, "train", ratio, "times sentence-transformers' trainer")
    return f"{said}, {ratio} x sentence-transformers' trainer"


def number_item(item: Item) -> Item:
    """An item whose text no other has."""
    return Item(item.id, text=f"{item.id} {item.text}")


@contextmanager
def note_steps(trainer: type) -> Iterator[list[float]]:
    """When each training step begins, in the block."""
    began: list[float] = []
    step: Any = trainer.training_step  # type: ignore[attr-defined]

    def noted(self: Any, *given: Any, **named: Any) -> Any:
        began.append(time.perf_counter())
        return step(self, *given, **named)

    with patch.object(trainer, "training_step", noted):
        yield began


def take_turns(place: Place, systems: Mapping[str, Callable[[], object]], warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each in each round, after one that is not counted (`warm`); one round of small sizes."""
    spent: dict[str, list[float]] = {name: [] for name in systems}
    warm = warm and not place.quick
    for turn in range(warm + (1 if place.quick else ROUNDS)):
        for name, work in systems.items():
            place.wait()
            began = time.perf_counter()
            work()
            place.wait()
            if turn >= warm:
                spent[name].append(time.perf_counter() - began)
    return spent


def compare_with(spent: Mapping[str, Sequence[float]], ours: str) -> dict[str, float]:
    """How many times as fast ours is as each other, the median over rounds."""
    return {
        name: round(statistics.median(b / a for a, b in zip(spent[ours], each, strict=True)), 2)
        for name, each in spent.items()
        if name != ours
    }


def require_goal(place: Place, name: str, found: float, unit: str) -> None:
    """`CrosslensError` on a GPU, and with full sizes, where it is missed."""
    if place.on_gpu and not place.quick and found < GOALS[name]:
        raise CrosslensError(f"{found:.2f} {unit}, goal {GOALS[name]:g}")


@cache
def find_peak(device: torch.device, dtype: str) -> float:
    """Operations a second of a large square product, the best of 10."""
    side = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    return 2 * side**3 / _best_of(10, lambda: left @ right, device)


@cache
def find_bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy within the device's memory reads and writes, the best of 10."""
    source = torch.empty((1 << 30) if device.type == "cuda" else (1 << 24), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _best_of(10, lambda: target.copy_(source), device)


def _best_of(count: int, work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    with torch.inference_mode():
        for _ in range(count):
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - began)
    return best
