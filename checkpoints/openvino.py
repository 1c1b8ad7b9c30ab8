"""What OpenVINO runs on CPUs: text encoders and image towers, exported once from torch and kept, or as published.

On an Intel Xeon with AMX it computes e5-small in bfloat16 faster than torch does: weights stay in the order that the
matrix unit reads, and what stands between two products is one loop.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from filelock import FileLock
from transformers.modeling_outputs import BaseModelOutput

from ..errors import InputError, first_line
from ..files import make_directory, name_partial
from .devices import name_dtype
from .offline.packages import locate_cache
from .source import Source, name_export, quiet_transformers
from .uses import hold

log = logging.getLogger("crosslens")

Backend = Literal["torch", "openvino", "onnx"]
# Where checkpoints have what was exported of them, and the file of its weights, which OpenVINO opens by itself.
PUBLISHED = {
    "openvino": (("openvino/openvino_model.xml", "openvino/openvino_model.bin"),),
    "onnx": (("onnx/model.onnx", "onnx/model.onnx_data"), ("model.onnx", "model.onnx_data")),
}
EXPORT = 1  # a change of what is written raises it
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("last_hidden_state", "token_embeddings")
PIXELS, VECTORS = "pixels", "vectors"
COSINE = 0.9999  # of what an export gives to what torch does, in float32


class Compiled(torch.nn.Module):
    """What OpenVINO compiled of a file: takes tensors by name, and gives one, float32. Threads may share it.

    `InputError` if the model takes or gives something else than is known.
    """

    takes: ClassVar[tuple[str, ...]]
    gives: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        super().__init__()
        core = import_openvino().Core()
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[dtype],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,  # one batch at a time has all threads
            "ENABLE_CPU_PINNING": False,  # processes beside each other would be pinned to the same cores
        }
        self.compiled = core.compile_model(core.read_model(path), "CPU", settings)
        self.inputs = [_choose(each.get_names(), self.takes, f"{path} takes") for each in self.compiled.inputs]
        names = [name for each in self.compiled.outputs for name in each.get_names()]
        self.output = _choose(names, self.gives, f"{path} gives")
        self.own = threading.local()

    def run(self, given: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if not hasattr(self.own, "request"):
            self.own.request = self.compiled.create_infer_request()
        fed = {name: given[name].contiguous().numpy() for name in self.inputs}
        return torch.from_numpy(self.own.request.infer(fed, share_inputs=True)[self.output])


C = TypeVar("C", bound=Compiled)


class CompiledStates(Compiled):
    """A text encoder, called as a model of transformers is: gives `last_hidden_state` [n, tokens, hidden], no more."""

    takes, gives = INPUTS, OUTPUTS

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        # The checkpoints that know segments take a text alone as the first.
        given = defaultdict(lambda: torch.zeros_like(input_ids), input_ids=input_ids, attention_mask=attention_mask)
        return BaseModelOutput(last_hidden_state=self.run(given))


class CompiledPictures(Compiled):
    """An image tower: vectors [n, dim] of pixels [n, 3, height, width]."""

    takes, gives = (PIXELS,), (VECTORS,)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.run({PIXELS: pixels})


class _States(torch.nn.Module):
    """A model of transformers as a function of two tensors, which is what is exported."""

    made, names, output, shape, kind = CompiledStates, INPUTS[:2], OUTPUTS[0], [-1, -1], "i64"

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states

    def sample(self, rows: int) -> dict[str, torch.Tensor]:
        """A batch of any tokens, whose last text is shorter than the others."""
        config: Any = self.model.config
        tokens = 4 * rows - 1
        ids = torch.arange(rows * tokens).view(rows, tokens) % (config.vocab_size - 5) + 5
        mask = torch.ones_like(ids)
        mask[-1, tokens // 2 :] = 0
        ids[-1, tokens // 2 :] = getattr(config, "pad_token_id", None) or 0
        return {"input_ids": ids, "attention_mask": mask}


class _Pictures(torch.nn.Module):
    """What a model makes of pixels [n, 3, height, width] of one size, vectors [n, dim], as what is exported."""

    made, names, output, kind = CompiledPictures, (PIXELS,), VECTORS, "f32"

    def __init__(self, model: torch.nn.Module, size: tuple[int, int], method: str) -> None:
        super().__init__()
        self.model, self.method = model, method
        self.shape = [-1, 3, *size]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = getattr(self.model, self.method)(pixels)
        return vectors

    def sample(self, rows: int) -> dict[str, torch.Tensor]:
        """Noise."""
        draw = torch.Generator().manual_seed(rows)
        return {PIXELS: torch.randn(rows, *self.shape[1:], generator=draw)}


def require_backend(backend: Backend, dtype: torch.dtype, device: torch.device) -> None:
    """`InputError` if OpenVINO is not there, or does not run on the device or in the precision."""
    import_openvino()
    if device.type != "cpu":
        raise InputError(f"backend={backend} is for CPUs, not {device.type}; leave it out, or add --device cpu")
    if dtype not in HINTS:
        raise InputError(f"backend={backend} computes in float32 or bfloat16, not {name_dtype(dtype)}")


def import_openvino() -> Any:
    """The package; `InputError` with what installs it."""
    # Importing it reports to Intel that it was imported, unless the package that does so cannot be.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise InputError("backend=openvino and onnx need OpenVINO: pip install 'crosslens[fast]'") from None
    return openvino


def find_published(source: Source, backend: Backend) -> Path | None:
    """The export that a checkpoint has beside its weights; None if it has none.

    `InputError` for `onnx` without one: only OpenVINO's own form is made here.
    """
    for model, weights in PUBLISHED[backend]:
        if (path := source.find(model)) is not None:
            source.find(weights)  # fetched from the hub, to where the model is
            return path
    if backend == "onnx":
        raise InputError(f"{source} has no onnx/model.onnx; write backend=openvino, which exports the model itself")
    return None


def open_published(path: Path, dtype: torch.dtype) -> CompiledStates:
    """A published export, compiled; `InputError` if it cannot be read."""
    try:
        return CompiledStates(path, dtype)
    except RuntimeError as error:
        raise InputError(f"{path} cannot be opened: {first_line(error)}") from None


def open_exported(config: Any, weights: str, load: Callable[[], torch.nn.Module], dtype: torch.dtype) -> CompiledStates:
    """The compiled export of a text encoder: from the cache, or made of what `load` gives in float32, and kept there.

    `weights` is their commit or hash. `InputError` if the cache cannot be written, or the model cannot be exported.
    """
    name = name_export(config.to_dict(), weights)
    return _open(name, lambda: _States(load()), CompiledStates, dtype)


def open_exported_pictures(
    settings: Mapping[str, object],
    weights: str,
    load: Callable[[], torch.nn.Module],
    size: tuple[int, int],
    dtype: torch.dtype,
    method: str = "forward",
) -> CompiledPictures:
    """The same of the `method` of a model that takes pictures of one size, height and width.

    `settings` and `weights` decide what it computes.
    """
    name = name_export({**settings, "size": size}, weights)
    return _open(name, lambda: _Pictures(load(), size, method), CompiledPictures, dtype)


def _open(name: str, load: Callable[[], _States | _Pictures], kind: type[C], dtype: torch.dtype) -> C:
    folder = locate_cache() / "openvino" / f"{name}-v{EXPORT}"
    path = folder / "model.xml"
    try:
        make_directory(folder.parent)
        with FileLock(folder.parent.with_suffix(".lock")):
            if path.is_file():
                try:
                    compiled = kind(path, dtype)
                    hold(path)
                    return compiled
                except RuntimeError as error:  # cut short by a full disk
                    log.warning("%s is damaged (%s): it is made again", folder, first_line(error))
            log.info("exporting the checkpoint for OpenVINO (once), kept in %s", folder)
            _export(load(), folder)
            hold(path)
        return kind(path, dtype)
    except OSError as error:
        raise InputError(
            f"cannot keep the export for OpenVINO in {folder.parent} ({error}): it takes as much as the checkpoint "
            "in float32; set CROSSLENS_CACHE to a directory with room"
        ) from None


def _export(function: _States | _Pictures, folder: Path) -> None:
    """Write `model.xml` and `model.bin` into a folder that gets its name when it is complete and was compared."""
    openvino = import_openvino()
    partial = name_partial(folder)
    partial.mkdir()
    try:
        with warnings.catch_warnings(), quiet_transformers(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of the tracer, about what was looked at
            kind = getattr(openvino.Type, function.kind)
            made = openvino.convert_model(
                function,
                example_input=function.sample(2),
                input=[(name, function.shape, kind) for name in function.names],
            )
        made.output(0).set_names({function.output})
        openvino.save_model(made, partial / "model.xml", compress_to_fp16=False)
        del made
        _compare(function, function.made(partial / "model.xml", torch.float32))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, InputError):
        raise
    # What a tracer cannot follow raises errors of many types.
    except Exception as error:
        raise InputError(f"the model cannot be exported for OpenVINO: {first_line(error)}; leave backend out") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@torch.inference_mode()
def _compare(function: _States | _Pictures, compiled: Compiled) -> None:
    """`InputError` unless an export gives what torch does for a batch of another shape than it was made with."""
    inputs = function.sample(3)
    ours, theirs = function(**inputs).float(), compiled.run(inputs)
    if (mask := inputs.get("attention_mask")) is not None:
        ours, theirs = ours[mask.bool()], theirs[mask.bool()]
    lowest = float(torch.cosine_similarity(ours, theirs, dim=-1).min())
    if not lowest >= COSINE:
        raise InputError(
            f"the export for OpenVINO does not compute what the model does (cosine {lowest:.4f}); leave backend out"
        )


def _choose(names: Any, known: tuple[str, ...], what: str) -> str:
    """The first of the known names; `InputError` if none is there."""
    for name in known:
        if name in names:
            return name
    raise InputError(f"{what} {', '.join(sorted(names))}, and none of {', '.join(known)}")
