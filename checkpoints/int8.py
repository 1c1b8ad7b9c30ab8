"""Linear layers with int8 weights on CPUs, for text encoders and for decoder LLMs: quantised once, without calibration.

Weights have a scale for each output channel and embeddings one for each row. What comes into a linear layer is
quantised as it comes, each token by values of its own, so that a vector does not depend on its neighbours. (torch.ao's
and ONNX Runtime's dynamic quantisation take one range for a whole batch.) All between the linear layers is float32.

In text encoders one int8 number for each activation is enough: with multilingual-e5-small the cosine to float32 is
0.9997, at least 0.999. Activations of decoder LLMs have outliers that 8 bits cannot hold beside the rest (LLM.int8();
Dettmers et al. 2022), so they are written as two int8 numbers, coarse and fine: the products are whole numbers and
exact, and what is lost is the rounding of the weights. With Gemma 3 270M the cosine to float32 is 0.999; with one int8
number for each activation it was 0.98, and 0.996 between a text alone and in a batch.

The products are oneDNN's, by `torch._int_mm`. On an EPYC with avx512_vnni one core did 425 GFLOP/s of them at
2048 x 384 x 1536, against 386 with ONNX Runtime's MatMulInteger, 152 with its MatMulNBits, 260 with OpenVINO's
dynamic quantisation, 210 in bfloat16 and 97 in float32.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from ..errors import InputError
from .devices import name_dtype
from .offline.packages import keep_tensors, locate_cache
from .source import name_export

log = logging.getLogger("crosslens")

EXPORT = 1  # a change of what is written raises it
FINE = 254  # steps of the fine part in one of the coarse: its rounding leaves at most half a step, 127 of 254
SLOWER = 1.2  # times: what is less may be noise
TRIED = 0.5  # seconds: where int8 products have no instruction, one takes longer than that
FINEST = 1e-6  # of the greatest value: a step that float32 still distinguishes from rounding


class Int8Rows(torch.nn.Module):
    """Rows of weights in int8 [n, dim] in -127..127, and the scale of each, float32 [n, 1] (in linear layers [n])."""

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, smallest: float = 1e-30) -> None:
        super().__init__()
        weight = weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min(smallest) / 127
        self.register_buffer("weight", (weight / scale).round_().to(torch.int8))
        self.register_buffer("scale", scale)


class RowEmbedding(Int8Rows):
    """An embedding in int8; gives float32."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids] * self.scale[ids]


class Int8Linear(Int8Rows):
    """A decoder's linear layer with int8 weights [out, in]; takes floats [..., in] and gives floats [..., out]."""

    bias: torch.Tensor | None

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear.weight, 1e-12)
        self.scale = self.scale[:, 0].contiguous()
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = states.reshape(-1, states.shape[-1]).float()
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        rows = rows / scale
        coarse = rows.round()
        fine = rows.sub_(coarse).mul_(FINE).round_()
        weight = self.weight.t()
        result = multiply_int8(coarse.to(torch.int8), weight).float()
        result.add_(multiply_int8(fine.to(torch.int8), weight), alpha=1 / FINE)
        # Integers hold no NaN: one among the inputs comes back with the scale of its row.
        result.mul_(scale).mul_(self.scale)
        if self.bias is not None:
            result.add_(self.bias)
        return result.view(*states.shape[:-1], -1).to(states.dtype)


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


class RowLinear(Int8Rows):
    """An encoder's linear layer with int8 weights [out, in]; takes floats [..., in] and gives float32 [..., out].

    With x = step * q + zero for each row, x W' + b = step * scale * (q Q') + zero * sum(W) + b: `side` [2, out] are
    the sums and the biases.
    """

    side: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, latest: LastStates) -> None:
        super().__init__(linear.weight)
        self.scale = self.scale[:, 0].contiguous()
        bias = torch.zeros_like(self.scale) if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("side", torch.stack([self.weight.float().sum(1) * self.scale, bias]))
        self.latest = latest

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows, step, factors = self.latest.quantise(states)
        product = multiply_int8(rows, self.weight.t()).float()
        # Integers hold no NaN: one among the inputs comes back with the step of its row.
        product.mul_(self.scale).mul_(step).addmm_(factors, self.side)
        return product.view(*states.shape[:-1], -1)


def quantise_decoder(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its linear layers in int8 and all else in float32; changed in place, a layer at a time.

    `InputError` if the CPU does not multiply int8 exactly.
    """
    require_exact()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, Int8Linear(child))
    return model.float()  # leaves integers alone


def quantise_encoder(model: torch.nn.Module) -> torch.nn.Module:
    """The model with linear layers and embeddings in int8 and all else in float32; changed in place."""
    made: dict[int, torch.nn.Module] = {}  # tied weights stay one
    for parent in list(model.modules()):
        latest = LastStates()
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, RowLinear(child, latest))
            elif type(child) is torch.nn.Embedding:
                setattr(parent, name, made.setdefault(id(child.weight), RowEmbedding(child.weight)))
    return model.float()  # leaves integers alone


def multiply_int8(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The product of int8 [n, k] and [k, m], int32 [n, m]."""
    product: torch.Tensor = torch._int_mm(rows, columns)  # noqa: SLF001 - torch has no public name for it
    return product


@cache
def require_exact() -> None:
    """`InputError` if int8 products are not exact here: without VNNI oneDNN adds pairs in 16 bits, which overflow."""
    rows, weight = (torch.full((16, 128), value, dtype=torch.int8) for value in (127, 127))
    rows[1::2] = -128
    if not torch.equal(multiply_int8(rows, weight.t()), rows.int() @ weight.int().t()):
        raise InputError("dtype=int8 needs a CPU with VNNI (avx512_vnni, avx_vnni or AMX); use ?dtype=float32")


@cache
@torch.inference_mode()
def compare_speed(dtype: torch.dtype, rows: int = 512, width: int = 384, wide: int = 1536) -> float:
    """How many times as long as in `dtype` an encoder's layer takes in int8 here: the best of alternate tries."""
    layer, states = torch.nn.Linear(width, wide), torch.randn(rows, width)
    plain, usual = deepcopy(layer).to(dtype), states.to(dtype)
    quantised = RowLinear(layer, LastStates())
    ways: list[Callable[[], object]] = [
        lambda: quantised(states + 0),  # others than the last, so that they are quantised
        lambda: plain(usual),
    ]
    best = [math.inf, math.inf]
    ends = perf_counter() + TRIED
    for tried in range(8):
        if tried > 1 and perf_counter() > ends:  # the first try may prepare
            break
        for way, work in enumerate(ways):
            started = perf_counter()
            work()
            best[way] = min(best[way], perf_counter() - started)
    return best[0] / best[1]


@cache
def warn_if_slower(dtype: torch.dtype) -> None:
    """Say in one line that int8 is the slower choice, on a CPU that multiplies `dtype`, its usual precision, better."""
    if (times := compare_speed(dtype)) > SLOWER:
        log.warning(
            "dtype=int8 is slower than %s on this CPU (%.1f times as long a layer): leave dtype out",
            name_dtype(dtype),
            times,
        )


def open_int8(
    config: Any, weights: str, load: Callable[[], torch.nn.Module], make_empty: Callable[[], torch.nn.Module]
) -> torch.nn.Module:
    """The quantised model of a checkpoint: from the cache, or made of what `load` gives, and kept there.

    `weights` is their commit or hash; `make_empty` gives the model of `config` with weights of any value.
    `InputError` if the cache cannot be written, or the CPU rounds int8 products.
    """
    require_exact()
    path = locate_export(config, weights)

    def make() -> dict[str, torch.Tensor]:
        log.info("quantising the checkpoint to int8 (once), kept in %s", path)
        return {key: tensor.detach().clone() for key, _, _, tensor in _list_tensors(quantise_encoder(load()))}

    with torch.device("meta"):
        model = quantise_encoder(make_empty())
    places = _list_tensors(model)
    held = keep_tensors(path, [key for key, *_ in places], "the int8 form of the checkpoint", make)
    for key, module, name, tensor in places:
        parameter = isinstance(tensor, torch.nn.Parameter)
        setattr(module, name, torch.nn.Parameter(held[key], requires_grad=False) if parameter else held[key])
    return model


def locate_export(config: Any, weights: str) -> Path:
    """Where the export lies: named after the weights, and after the configuration and transformers' version."""
    return locate_cache() / "int8" / f"{name_export(config.to_dict(), weights)}-v{EXPORT}.safetensors"


def _list_tensors(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module, str, torch.Tensor]]:
    """Every parameter and buffer, also what a state dict leaves out: its name, who holds it, and by which name."""
    return [
        (f"{prefix}.{name}".lstrip("."), module, name, tensor)
        for prefix, module in model.named_modules()
        for list_own in (module.named_parameters, module.named_buffers)
        for name, tensor in list_own(recurse=False, remove_duplicate=False)
    ]
