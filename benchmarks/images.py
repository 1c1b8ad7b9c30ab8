"""How fast are pictures decoded and encoded by `clip:` against a plain open_clip loop with a DataLoader of 2 workers?

Same model, files, machine and threads; the systems take turns, round by round, so that the ratios hold when the
machine's speed drifts. The files are JPEGs of 640 x 480 to 2000 x 1500 pixels, made from the photos of the collection
`demo`; the model is an open_clip architecture with random weights from a seed, saved as safetensors, so that nothing is
downloaded. Vectors of random weights are all much alike: their cosines are given with the mean picture subtracted, too.
Where OpenVINO is installed `backend=openvino` takes part, and for the image tower of `offline:conse` its processor time
is compared with that of torch. Prints a table on stderr and one JSON object on stdout; exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from measurements import Table, add_save, save

GOAL, COSINE = 1.5, 0.999
MODEL = "ViT-B-32"
LOOP_BATCH, WORKERS = 64, 2  # as many pictures as clip: takes on a CPU
SIZES = ((640, 480), (800, 600), (1024, 768), (1280, 960), (1600, 1200), (2000, 1500))


def pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs of quality 85: sections of the demo's photos, a third of them upright, with the noise of a sensor.

    Without noise, what is enlarged would hold fewer bits a pixel than a photo does, and be decoded faster.
    """
    from crosslens.demo.collection import list_photos
    from crosslens.media.images import open_image

    draw = random.Random(0)
    sources = [open_image(photo.path(), max_pixels=None) for photo in list_photos()]
    margin = 64
    wide = SIZES[-1][0]
    noise = np.random.default_rng(0).normal(0, 5, (wide + margin, wide + margin, 1)).astype(np.float32)
    made = []
    for number in range(count):
        source, (width, height) = draw.choice(sources), draw.choice(SIZES)
        if draw.random() < 1 / 3:
            width, height = height, width
        across = min(source.width, source.height * width / height) * draw.uniform(0.6, 1)
        down = across * height / width
        left, top = draw.uniform(0, source.width - across), draw.uniform(0, source.height - down)
        box = (left, top, left + across, top + down)
        scaled = source.resize((width, height), PIL.Image.Resampling.BICUBIC, box)
        x, y = draw.randrange(margin), draw.randrange(margin)
        pixels = np.asarray(scaled, np.float32) + noise[y : y + height, x : x + width]
        path = folder / f"{number:05}.jpg"
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=85)
        made.append(path)
    return made


def weights(folder: Path, model: str) -> Path:
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = folder / f"{model}.safetensors"
    save_file(open_clip.create_model(model).state_dict(), path)
    return path


class Files:
    """What a DataLoader reads: the file, by open_clip's transform."""

    def __init__(self, paths: list[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        with PIL.Image.open(self.paths[row]) as image:
            return self.transform(image)


def loop(model: str, file: Path, precision: str, device: str) -> Callable[[list[Path]], np.ndarray]:
    """The plain loop, as open_clip's users write it."""
    import open_clip
    import torch
    from torch.utils.data import DataLoader

    tower, transform = open_clip.create_model_from_pretrained(model, str(file), precision=precision, device=device)
    tower.eval()
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16

    @torch.inference_mode()
    def work(paths: list[Path]) -> np.ndarray:
        loader = DataLoader(
            Files(paths, transform), batch_size=LOOP_BATCH, num_workers=WORKERS, pin_memory=device.startswith("cuda")
        )
        found = [
            tower.encode_image(batch.to(device, dtype, non_blocking=True), normalize=True).float().cpu()
            for batch in loader
        ]
        return torch.cat(found).numpy()

    return work


def timed(work: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Seconds of the clock and of the processor, child processes included."""

    def used() -> float:
        kinds = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(kind.ru_utime + kind.ru_stime for kind in kinds)

    before, started = used(), time.perf_counter()
    vectors = work()
    return time.perf_counter() - started, used() - before, vectors


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(axis=1) / lengths


def compare_backends(paths: list[Path], rounds: int) -> dict[str, Any]:
    """How often the processor's time of `offline:conse` in OpenVINO goes into that in torch, and the lowest cosine."""
    from crosslens.encoders.base import encode_matrix
    from crosslens.encoders.registry import load_encoder
    from crosslens.items import Item

    items = [Item(path.name, image=path) for path in paths]
    encoders = {name: load_encoder(f"offline:conse?backend={name}", device="cpu") for name in ("torch", "openvino")}
    spent: dict[str, list[float]] = {name: [] for name in encoders}
    vectors = {}
    for encoder in encoders.values():
        encode_matrix(encoder, items[:8], "document")
    for _ in range(rounds):
        for name, encoder in encoders.items():
            _, cpu, vectors[name] = timed(lambda encoder=encoder: encode_matrix(encoder, items, "document"))
            spent[name].append(cpu)
    return {
        "pictures": len(items),
        "cpu_ms_a_picture": {n: round(1e3 * statistics.median(each) / len(items), 1) for n, each in spent.items()},
        "ratio_cpu_seconds": round(
            statistics.median(a / b for a, b in zip(spent["torch"], spent["openvino"], strict=True)), 2
        ),
        "cosine_min": round(float(cosines(vectors["torch"], vectors["openvino"]).min()), 5),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default=MODEL, help="an open_clip architecture")
    parser.add_argument("--conse", type=int, default=100, help="pictures of offline:conse in torch and in OpenVINO")
    add_save(parser)
    options = parser.parse_args()

    import torch
    from crosslens.checkpoints.devices import resolve_device, resolve_dtype
    from crosslens.encoders.base import encode_matrix
    from crosslens.encoders.registry import load_encoder
    from crosslens.items import Item

    device = resolve_device(options.device)
    auto = str(resolve_dtype("auto", device)).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = pictures(folder, options.count)
        file = weights(folder, options.model)
        name = f"clip:{options.model}/{file}"
        ours = {dtype: load_encoder(f"{name}?dtype={dtype}", device=str(device)) for dtype in {auto, "float32"}}

        def of(dtype: str) -> Callable[[list[Path]], np.ndarray]:
            return lambda paths: encode_matrix(ours[dtype], (Item(path.name, image=path) for path in paths), "document")

        systems = {f"crosslens {auto}": of(auto), "loop float32": loop(options.model, file, "fp32", str(device))}
        if auto != "float32":
            systems["crosslens float32"] = of("float32")
        if has_openvino := device.type == "cpu" and importlib.util.find_spec("openvino") is not None:
            ours["openvino"] = load_encoder(f"{name}?backend=openvino", device="cpu")
            systems[f"crosslens openvino {auto}"] = of("openvino")
        if auto == "bfloat16":
            systems["loop bfloat16"] = loop(options.model, file, "pure_bf16", str(device))
        for work in systems.values():
            work(paths[:LOOP_BATCH])
        seconds: dict[str, list[float]] = {system: [] for system in systems}
        processor: dict[str, list[float]] = {system: [] for system in systems}
        vectors: dict[str, np.ndarray] = {}
        for _ in range(options.rounds):
            for system, work in systems.items():
                clock, cpu, vectors[system] = timed(lambda work=work: work(paths))
                seconds[system].append(clock)
                processor[system].append(cpu)
        size = sum(path.stat().st_size for path in paths)
        backends = compare_backends(paths[: options.conse], options.rounds) if has_openvino and options.conse else {}

    def ratio(slow: str, fast: str, of: dict[str, list[float]] = seconds) -> float:
        return round(statistics.median(a / b for a, b in zip(of[slow], of[fast], strict=True)), 2)

    exact = vectors["loop float32"]
    close = {system: cosines(found, exact) for system, found in vectors.items()}
    middle = exact.mean(axis=0)
    centred = {system: cosines(found - middle, exact - middle) for system, found in vectors.items()}
    report = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "model": options.model,
        "pictures": len(paths),
        "megabytes": round(size / 1e6, 1),
        "dtype": auto,
        "seconds": {system: [round(s, 2) for s in spent] for system, spent in seconds.items()},
        "cpu_seconds": {system: [round(s, 2) for s in spent] for system, spent in processor.items()},
        "pictures_per_second": {
            system: round(len(paths) / statistics.median(spent), 2) for system, spent in seconds.items()
        },
        "ratio": ratio("loop float32", f"crosslens {auto}"),
        "ratio_same_dtype": {
            dtype: ratio(f"loop {dtype}", f"crosslens {dtype}")
            for dtype in ("float32", "bfloat16")
            if {f"loop {dtype}", f"crosslens {dtype}"} <= set(systems)
        },
        "ratio_cpu_seconds": ratio("loop float32", f"crosslens {auto}", processor),
        "cosine_min": {system: round(float(each.min()), 5) for system, each in close.items()},
        "cosine_centred_min": {system: round(float(each.min()), 5) for system, each in centred.items()},
        "cosine_centred_mean": {system: round(float(each.mean()), 5) for system, each in centred.items()},
    }
    for system, rate in report["pictures_per_second"].items():
        print(
            f"{system:20} {rate:8.2f} pictures/s, {statistics.median(processor[system]) / len(paths) * 1e3:7.1f} ms of "
            f"processor a picture, lowest cosine {report['cosine_min'][system]:.5f}, centred "
            f"{report['cosine_centred_min'][system]:.5f}",
            file=sys.stderr,
        )
    lowest = report["cosine_min"][f"crosslens {auto}"]
    print(f"ratio {report['ratio']}, in the same dtype {report['ratio_same_dtype']}", file=sys.stderr)
    rows = [
        [
            system.replace("loop ", "open_clip loop, "),
            str(rate),
            f"{1e3 * statistics.median(processor[system]) / len(paths):.1f}",
            str(ratio("loop float32", system, processor)),
            str(report["cosine_min"][system]),
        ]
        for system, rate in report["pictures_per_second"].items()
    ]
    same = ", ".join(f"{found} in {dtype}" for dtype, found in report["ratio_same_dtype"].items())
    note = f"Ratio {report['ratio']}; with the same precision on both sides {same}."
    columns = ("system", "pictures/s", "ms of CPU time a picture", "times the loop in CPU time", "lowest cosine")
    tables = [Table(columns, rows)]
    if backends:
        row = [*(f"{ms:.1f}" for ms in backends["cpu_ms_a_picture"].values())]
        row += [str(backends[key]) for key in ("ratio_cpu_seconds", "cosine_min")]
        columns = ("", "torch, ms of CPU time a picture", "OpenVINO", "times torch in CPU time", "lowest cosine")
        tables.append(Table(columns, [["offline:conse", *row]]))
    save(options.save, {**report, "offline:conse": backends}, tables, [note])
    print(json.dumps({**report, "offline:conse": backends}, indent=2))
    return 0 if report["ratio"] >= GOAL and lowest >= COSINE else 1


if __name__ == "__main__":
    sys.exit(main())
