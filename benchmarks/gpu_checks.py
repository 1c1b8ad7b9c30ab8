"""The checks of gpu.py: what a GPU computes is what a CPU computes, and what goes wrong there ends as it should.

A check is given a `Place` and a dict for its figures; it returns what it found. `CrosslensError` where it is broken,
`NotHere` where it cannot be made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import PIL.Image
import torch
from crosslens.checkpoints.devices import resolve_device
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.encoders.workers import Workers
from crosslens.errors import CrosslensError, InputError
from crosslens.indexes.kinds.searcher import FlatSearcher
from crosslens.indexes.maxsim import TokenVectors, score_maxsim
from crosslens.items import Item
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.prompts import load_prompt
from crosslens.specs import Spec
from gpu_models import Place, demo_documents, demo_queries, describe_card, mixed_items, with_options
from scipy.stats import spearmanr
from torch.nn.attention import SDPBackend, sdpa_kernel

COSINES = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}  # least, with the CPU's vectors in float32
CLOSE = 1e-3  # of log-probabilities in float32
ALIKE = 0.98  # rank correlation of what a judge says in bfloat16 with what it says in float32
NAIVE = 8  # texts up to which the memory that is left suffices, where running out of it is feigned


def check_card(place: Place, figures: dict[str, Any]) -> str:
    """What there is, for the record."""
    figures |= describe_card(place)
    if not place.on_gpu:
        return f"no CUDA device: {place.where}, torch {torch.__version__}"
    shown = "{card}, {gib} GiB, capability {capability}, driver {driver}, CUDA {cuda}".format(**figures)
    return f"{shown}, torch {torch.__version__}"


def check_devices(place: Place, figures: dict[str, Any]) -> str:
    """`auto` and the first card are the same one; one that is not there is an error that says so."""
    if (first := resolve_device("auto").type) != ("cuda" if torch.cuda.is_available() else first):
        raise CrosslensError(f"--device auto is {first}, and there is a CUDA device")
    if place.on_gpu:
        vectors = [
            FlatSearcher(np.eye(4, dtype=np.float32), name).nearest(np.eye(4, dtype=np.float32), 1)[0]
            for name in ("cuda", "cuda:0")
        ]
        if not np.array_equal(*vectors):
            raise CrosslensError("cuda and cuda:0 find different rows")
    beyond = f"cuda:{torch.cuda.device_count() + 7}"
    for name in (beyond, "cuda:x"):
        figures[name] = expect_error(lambda name=name: resolve_device(name))
    if beyond not in figures[beyond]:
        raise CrosslensError(f"the message for {beyond} does not name it: {figures[beyond]}")
    return f"auto is {first}; {beyond}: {figures[beyond]}"


def compare_text(place: Place, figures: dict[str, Any]) -> str:
    return compare_vectors(place, place.text(), demo_documents(), figures)


def compare_llm(place: Place, figures: dict[str, Any]) -> str:
    return compare_vectors(place, place.llm(), demo_documents(), figures)


def compare_clip(place: Place, figures: dict[str, Any]) -> str:
    return compare_vectors(place, place.clip(), seen_items(), figures)


def compare_vlm(place: Place, figures: dict[str, Any]) -> str:
    return compare_vectors(place, place.vlm(), seen_items(), figures)


def compare_vectors(place: Place, model: tuple[Spec, str], items: Sequence[Item], figures: dict[str, Any]) -> str:
    """The least cosine of each dtype on the device with float32 on the CPU."""
    spec, what = model
    items = items[: 6 if place.quick else None]
    truth = encode_matrix(load_encoder(with_options(spec, dtype="float32"), device="cpu"), items, "document")
    for dtype in COSINES:
        encoder = load_encoder(with_options(spec, dtype=dtype), device=place.device)
        figures[dtype] = least_cosine(encode_matrix(encoder, items, "document"), truth)
    if low := [
        f"{dtype} {figures[dtype]:.6f} (at least {least})"
        for dtype, least in COSINES.items()
        if not figures[dtype] >= least
    ]:
        raise CrosslensError(f"{what}, least cosine: {', '.join(low)}")
    return f"{what}, {len(items)} items, least cosines " + ", ".join(
        f"{dtype} {figures[dtype]:.6f}" for dtype in COSINES
    )


def compare_batches(place: Place, figures: dict[str, Any]) -> str:
    """A text's vector does not depend on what else is in its batch."""
    items = mixed_items(6 if place.quick else 40)
    for name, (spec, _) in {"text": place.text(), "llm": place.llm()}.items():
        for dtype in ("float32", "bfloat16"):
            encoder = load_encoder(with_options(spec, dtype=dtype), device=place.device)
            alone = np.concatenate([encode_matrix(encoder, [item], "document") for item in items])
            figures[f"{name} {dtype}"] = cosine = least_cosine(alone, encode_matrix(encoder, items, "document"))
            if not cosine >= COSINES[dtype]:
                raise CrosslensError(f"{name} in {dtype}: cosine {cosine:.6f} between a text alone and in a batch")
    return ", ".join(f"{name} {cosine:.6f}" for name, cosine in figures.items())


def run_out_of_memory(place: Place, figures: dict[str, Any]) -> str:
    """A batch that does not fit is halved until it does, and the vectors are the same."""
    encoder: Any = load_encoder(with_options(place.text()[0], dtype="float32"), device=place.device)
    items = [replace(item, text=f"{item.text} " * 20) for item in islice(mixed_items(1000), 24 if place.quick else 512)]
    truth = encode_matrix(encoder, items, "document")
    usual, encoder.budget = encoder.budget, 1 << 24  # all in one batch
    try:
        short = (
            lack_memory(place, lambda: encode_matrix(encoder, items, "document"))
            if place.on_gpu
            else feign_lack(encoder)
        )
        with short, said_by_crosslens() as said:
            found = encode_matrix(encoder, items, "document")
    finally:
        encoder.budget = usual
    figures["halved"] = sum("out of memory" in each for each in said)
    figures["cosine"] = least_cosine(found, truth)
    if not figures["halved"]:
        raise CrosslensError("memory did not run out: nothing was halved")
    if figures["cosine"] < COSINES["float32"]:
        raise CrosslensError(f"cosine {figures['cosine']:.6f} after {figures['halved']} batches were halved")
    how = "a real CUDA out of memory" if place.on_gpu else "feigned (no CUDA)"
    return f"{how}: {figures['halved']} batches halved, cosine {figures['cosine']:.6f}"


@contextmanager
def lack_memory(place: Place, work: Callable[[], object]) -> Iterator[None]:
    """In the block this process may take a third of the memory on the card that `work` takes."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(place.where)
    held = torch.cuda.memory_allocated(place.where)
    work()
    most = torch.cuda.max_memory_allocated(place.where)
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(place.where).total_memory
    number = place.where.index or 0
    torch.cuda.set_per_process_memory_fraction((held + (most - held) / 3) / whole, number)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, number)


@contextmanager
def feign_lack(encoder: Any) -> Iterator[None]:
    """In the block the encoder runs out of memory as CUDA says it, with more than a few texts."""
    embed = encoder.embed

    def short(ids: Sequence[Sequence[int]]) -> torch.Tensor:
        if len(ids) > NAIVE:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."
            )
        return embed(ids)

    encoder.embed = short
    try:
        yield
    finally:
        del encoder.embed


def refuse_nan(place: Place, figures: dict[str, Any]) -> str:
    """Vectors that are not numbers are an error that names the item."""
    encoder: Any = load_encoder(with_options(place.text()[0], dtype="bfloat16"), device=place.device)
    weight = next(each for each in encoder.model.parameters() if each.dim() == 1)
    before = weight.detach().clone()
    try:
        weight.data[0] = torch.nan
        figures["message"] = expect_error(
            lambda: encode_matrix(encoder, [Item("the-poisoned", text="a cat")], "document")
        )
    finally:
        weight.data.copy_(before)
    if "the-poisoned" not in figures["message"]:
        raise CrosslensError(f"the message does not name the item: {figures['message']}")
    return str(figures["message"]).replace(f"{place.folder}/", "")


def compare_judges(place: Place, figures: dict[str, Any]) -> str:
    """Likelihoods, and choices among labels, of a causal judge."""
    spec, what = place.judge()
    documents = demo_documents()
    size, most = (4, 6) if place.quick else (8, 12)
    questions = {
        "likelihood": [(query, documents[3 * n : 3 * n + most]) for n, query in enumerate(demo_queries(size))],
        "setwise": [(query, documents[3 * n : 3 * n + 3]) for n, query in enumerate(demo_queries(size * 2))],
    }
    for name, asked in questions.items():
        prompt = load_prompt(name)
        said = {}
        for key, device, dtype in (
            ("cpu", "cpu", "float32"),
            ("float32", place.device, "float32"),
            ("half", place.device, "bfloat16"),
        ):
            judge = load_judge(with_options(spec, dtype=dtype), device=device)
            said[key] = np.concatenate([*prompt.score(judge, asked)])
        figures[f"{name}, largest difference"] = difference = float(np.abs(said["float32"] - said["cpu"]).max())
        figures[f"{name}, rank correlation in bfloat16"] = alike = float(spearmanr(said["half"], said["cpu"]).statistic)
        if not difference <= CLOSE:
            raise CrosslensError(f"{what}, {name}: {difference:.2g} off the CPU in float32 (at most {CLOSE})")
        if not alike >= ALIKE:
            raise CrosslensError(f"{what}, {name}: rank correlation {alike:.4f} in bfloat16 (at least {ALIKE})")
    return f"{what}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def compare_attention(place: Place, figures: dict[str, Any]) -> str:
    """Each way in which PyTorch computes attention here, against whole matrices in float32; with padding and without."""
    kernels = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
    kernels += [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION] if place.on_gpu else []
    ran, lacking = [], []
    for model, (spec, _) in {"text": place.text(), "llm": place.llm()}.items():
        encoder: Any = load_encoder(with_options(spec, dtype="float32"), device=place.device)
        ids = sorted(encoder.prepare(mixed_items(12), "document"), key=len)
        alike = {"padded": ids, "even": [each[:12] for each in ids if len(each) >= 12]}
        truth = {name: embed(encoder, rows, "eager") for name, rows in alike.items()}
        half: Any = load_encoder(with_options(spec, dtype="bfloat16"), device=place.device)
        for kernel in kernels:
            for name, rows in alike.items():
                key = f"{model}, {kernel.name.lower()}, {name}"
                try:
                    with sdpa_kernel(kernel):
                        figures[key] = least_cosine(embed(half, rows, "sdpa"), truth[name])
                except RuntimeError as error:
                    if "kernel" not in str(error).lower():
                        raise
                    lacking.append(key)
                    continue
                ran.append(kernel.name.lower())
                if not figures[key] >= COSINES["bfloat16"]:
                    raise CrosslensError(f"{key}: cosine {figures[key]:.6f} with whole matrices in float32")
    figures["not for these inputs"] = lacking
    least = min(value for value in figures.values() if isinstance(value, float))
    return f"{', '.join(dict.fromkeys(ran))}: least cosine {least:.6f}; {len(lacking)} combinations have no kernel"


def embed(encoder: Any, ids: Sequence[Sequence[int]], attention: str) -> np.ndarray:
    """Vectors of token ids by one implementation of attention; afterwards the encoder has its own again."""
    before = encoder.model.config._attn_implementation  # noqa: SLF001 - there is no public reader
    encoder.model.set_attn_implementation(attention)
    try:
        with torch.inference_mode():
            vectors: np.ndarray = encoder.embed(ids).float().cpu().numpy()
            return vectors
    finally:
        encoder.model.set_attn_implementation(before)


def compare_search(place: Place, figures: dict[str, Any]) -> str:
    """Exact search and MaxSim find what they find on a CPU, and equal rows have equal scores."""
    draw = np.random.default_rng(0)
    count, dim = (3000, 32) if place.quick else (200_000, 384)
    rows = draw.standard_normal((count, dim), dtype=np.float32)
    rows[count // 2 : count // 2 + 50] = rows[:50]  # ties
    queries = np.concatenate([rows[:4], draw.standard_normal((66, dim), dtype=np.float32)])
    allowed = draw.random(count) < 0.3
    ours, cpu = FlatSearcher(rows, place.device), FlatSearcher(rows, "cpu")
    for name, mask in {"all": None, "filtered": allowed}.items():
        (found, scores), (truth, expected) = (each.nearest(queries, 20, mask) for each in (ours, cpu))
        figures[f"{name}, same rows"] = float((found == truth).mean())
        figures[f"{name}, scores"] = float(np.abs(scores - expected).max())
        if figures[f"{name}, same rows"] < 0.999 or figures[f"{name}, scores"] > 1e-3:
            raise CrosslensError(
                f"{name}: {figures[f'{name}, same rows']:.2%} of the CPU's rows, scores {figures[f'{name}, scores']:.2g} off"
            )
    found, scores = ours.nearest(queries[:4], 2)
    if not (found == np.arange(4)[:, None] + [0, count // 2]).all() or (scores[:, 0] != scores[:, 1]).any():
        raise CrosslensError("equal rows do not have equal scores, or not in the order of their numbers")
    if not np.array_equal(np.concatenate([ours.nearest(each[None], 2)[1] for each in queries[:4]]), scores):
        raise CrosslensError("a query alone has other scores than in a batch")
    documents = TokenVectors.of([rows[n : n + n % 30 + 1] for n in range(0, 900, 3)])
    asked = [queries[:5], queries[5:40]]
    figures["maxsim"] = float(
        np.abs(score_maxsim(asked, documents, place.device) - score_maxsim(asked, documents, "cpu")).max()
    )
    if figures["maxsim"] > 1e-2:
        raise CrosslensError(f"MaxSim is {figures['maxsim']:.2g} off the CPU's")
    return f"{count:,} rows of {dim}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items())


def share_card(place: Place, figures: dict[str, Any]) -> str:
    """Two processes encode on one card, each with a part of the texts."""
    spec, what = place.text()
    text, items = with_options(spec, dtype="float32"), mixed_items(16 if place.quick else 600)
    truth = encode_matrix(load_encoder(text, device=place.device), items, "document")
    with Workers(text, [str(place.where)] * 2) as both:
        figures["cosine"] = cosine = least_cosine(encode_matrix(both, items, "document"), truth)
    if not cosine >= COSINES["float32"]:
        raise CrosslensError(f"{what} in two processes: cosine {cosine:.6f} with one")
    return f"{what} in two processes on {place.where}: cosine {cosine:.6f} with one"


def seen_items() -> list[Item]:
    """Texts, pictures, and both."""
    texts, draw = demo_documents(), np.random.default_rng(0)
    made = []
    for number, (width, height) in enumerate([(50, 40), (64, 64), (31, 90), (200, 120)] * 3):
        picture = PIL.Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        kind = number % 3
        made.append(
            Item(
                str(number),
                text=None if kind == 1 else (texts[number].text or "")[:80],
                image=None if kind == 0 else picture,
            )
        )
    return made


def least_cosine(found: np.ndarray, truth: np.ndarray) -> float:
    """The least cosine of rows [n, dim] with those of the same number; nan if there is one."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(truth, axis=1)
    return float((np.vecdot(found.astype(np.float64), truth) / lengths).min())


def expect_error(work: Callable[[], object]) -> str:
    """The message of the `InputError` that `work` ends with; `CrosslensError` where it does not."""
    try:
        work()
    except InputError as error:
        return str(error)
    raise CrosslensError("no error where there should be one")


@contextmanager
def said_by_crosslens() -> Iterator[list[str]]:
    """What crosslens says in the block."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    log, listener = logging.getLogger("crosslens"), Listener()
    log.addHandler(listener)
    try:
        yield said
    finally:
        log.removeHandler(listener)
