"""Text encoders with int8 products on CPUs: quantised once from a safetensors checkpoint, and read from the cache.

Weights have a scale for each output channel and embeddings one for each row. What comes into a linear layer is
quantised as it comes, each token by its own least and greatest value: nothing is calibrated, and a vector does not
depend on its neighbours. (torch.ao's and ONNX Runtime's dynamic quantisation take one range for a whole batch.) All
between the linear layers is float32. One int8 number for each activation is enough here, unlike in decoder LLMs
(`checkpoints.int8`): with multilingual-e5-small the cosine to float32 is 0.9997, at least 0.999.

The products are oneDNN's, by `torch._int_mm`. On an EPYC with avx512_vnni one core did 425 GFLOP/s of them at
2048 x 384 x 1536, against 386 with ONNX Runtime's MatMulInteger, 152 with its MatMulNBits, 260 with OpenVINO's
dynamic quantisation, 210 in bfloat16 and 97 in float32.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..errors import InputError
from ..files import place_atomically
from .int8 import multiply_int8, require_exact, round_rows
from .offline.packages import locate_cache

log = logging.getLogger("crosslens")

EXPORT = 1  # a change of what is written raises it
FINEST = 1e-6  # of the greatest value: a step that float32 still distinguishes from rounding


class LastStates:
    """The states that were quantised last: the layers of one parent (query, key, value) are given the same ones."""

    def __init__(self) -> None:
        self._held: tuple[object, ...] = (None,)

    def quantise(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of states [..., n]: int8 [rows, n], the step of each row [rows, 1], and what multiplies `side` [rows, 2]."""
        held = self._held  # one read, so that threads do not see each other's halves
        if held[0] is not states:
            rows = states.reshape(-1, states.shape[-1]).float()
            low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
            finest = torch.maximum(low.abs(), high.abs()).mul_(FINEST).clamp_min_(1e-30)
            step = torch.maximum((high - low).div_(255), finest)
            zero = low.add_(step, alpha=128)
            # int8 and not uint8, to which torch converts ten times more slowly.
            whole = rows.sub(zero).mul_(step.reciprocal()).round_().to(torch.int8)
            held = self._held = (states, whole, step, torch.cat([zero, torch.ones_like(zero)], 1))
        return held[1:]  # type: ignore[return-value]


class RowLinear(torch.nn.Module):
    """A linear layer with int8 weights [out, in]; takes floats [..., in] and gives float32 [..., out].

    With x = step * q + zero for each row, x W' + b = step * scale * (q Q') + zero * sum(W) + b: `side` [2, out] are
    the sums and the biases.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    side: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, latest: LastStates) -> None:
        super().__init__()
        weight, scale = round_rows(linear.weight)
        bias = torch.zeros_like(scale[:, 0]) if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale[:, 0].contiguous())
        self.register_buffer("side", torch.stack([weight.float().sum(1) * scale[:, 0], bias]))
        self.latest = latest

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows, step, factors = self.latest.quantise(states)
        product = multiply_int8(rows, self.weight.t()).float()
        # Integers hold no NaN: one among the inputs comes back with the step of its row.
        product.mul_(self.scale).mul_(step).addmm_(factors, self.side)
        return product.view(*states.shape[:-1], -1)


class RowEmbedding(torch.nn.Module):
    """An embedding in int8 [n, dim] with a scale for each row; gives float32."""

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, embedding: torch.nn.Embedding) -> None:
        super().__init__()
        weight, scale = round_rows(embedding.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids] * self.scale[ids]


def quantise_encoder(model: torch.nn.Module) -> torch.nn.Module:
    """The model with linear layers and embeddings in int8 and all else in float32; changed in place."""
    made: dict[int, torch.nn.Module] = {}  # tied weights stay one
    for parent in list(model.modules()):
        latest = LastStates()
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, RowLinear(child, latest))
            elif type(child) is torch.nn.Embedding:
                setattr(parent, name, made.setdefault(id(child.weight), RowEmbedding(child)))
    return model.float()  # leaves integers alone


def open_int8(
    config: Any, weights: str, load: Callable[[], torch.nn.Module], make_empty: Callable[[], torch.nn.Module]
) -> torch.nn.Module:
    """The quantised model of a checkpoint: from the cache, or made of what `load` gives, and kept there.

    `weights` is their commit or hash; `make_empty` gives the model of `config` with weights of any value.
    `InputError` if the cache cannot be written, or the CPU rounds int8 products.
    """
    require_exact()
    path = locate_export(config, weights)

    def make() -> None:
        log.info("quantising the checkpoint to int8 (once), kept in %s", path)
        _write_tensors(quantise_encoder(load()), path)

    def read() -> torch.nn.Module:
        with torch.device("meta"):
            skeleton = make_empty()
        return _fill_tensors(quantise_encoder(skeleton), path)

    if not path.is_file():
        make()
    try:
        return read()
    except (SafetensorError, KeyError) as error:
        log.warning("%s is damaged (%s): it is made again", path, str(error))
    make()
    return read()


def locate_export(config: Any, weights: str) -> Path:
    """Where the export lies: named after the weights, and after the configuration and transformers' version."""
    settings = {key: value for key, value in config.to_dict().items() if key != "_name_or_path"}
    digest = hashlib.sha256(repr(sorted(settings.items(), key=lambda pair: pair[0])).encode()).hexdigest()
    name = re.sub(r"[^\w.-]", "_", weights)
    return locate_cache() / "int8" / f"{name}-{digest[:8]}-v{EXPORT}.safetensors"


def _list_tensors(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module, str, torch.Tensor]]:
    """Every parameter and buffer, those that a state dict leaves out included: its name, and who holds it under which."""
    return [
        (f"{prefix}.{name}".lstrip("."), module, name, tensor)
        for prefix, module in model.named_modules()
        for list_own in (module.named_parameters, module.named_buffers)
        for name, tensor in list_own(recurse=False, remove_duplicate=False)
    ]


def _write_tensors(model: torch.nn.Module, path: Path) -> None:
    """The model's tensors as one safetensors file, which appears when it is complete; `InputError` if it cannot."""
    # Not `save_file`, which writes for its user alone: a shared cache is for whoever may read the rest.
    data = save({key: tensor.detach().clone() for key, _, _, tensor in _list_tensors(model)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with place_atomically(path) as partial:
            partial.write_bytes(data)
    except (OSError, InputError) as error:
        raise InputError(
            f"{error}: the int8 form of the checkpoint takes {len(data) / 1e6:.0f} MB; "
            f"set CROSSLENS_CACHE to a directory with room"
        ) from None


def _fill_tensors(model: torch.nn.Module, path: Path) -> torch.nn.Module:
    """A model whose tensors have no memory, given those of the file; `KeyError` if one is not there."""
    held = load_file(path)
    for key, module, name, tensor in _list_tensors(model):
        parameter = isinstance(tensor, torch.nn.Parameter)
        setattr(module, name, torch.nn.Parameter(held[key], requires_grad=False) if parameter else held[key])
    return model
