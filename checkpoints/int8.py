"""Linear layers with int8 weights on CPUs: quantised once, a scale for each output channel; no calibration.

torch.ao.quantization.quantize_dynamic is deprecated, and scales activations by batch, so that a vector would depend on
its neighbours. Here each token has its own scale. Activations of decoder LLMs have outliers that 8 bits cannot hold
beside the rest (LLM.int8(); Dettmers et al. 2022), so they are written as two int8 numbers, coarse and fine: the
products are whole numbers and exact, and what is lost is the rounding of the weights. With Gemma 3 270M the cosine to
float32 is 0.999; with one int8 number for each activation it was 0.98, and 0.996 between a text alone and in a batch.
"""

from __future__ import annotations

from functools import cache

import torch

from ..errors import InputError

FINE = 254  # steps of the fine part in one of the coarse: its rounding leaves at most half a step, 127 of 254


class Int8Linear(torch.nn.Module):
    """A linear layer with int8 weights [out, in]; takes floats [..., in] and gives floats [..., out]."""

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        weight, scale = round_rows(linear.weight, 1e-12)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale[:, 0].contiguous())
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


def round_rows(weight: torch.Tensor, smallest: float = 1e-30) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of floats [n, dim] as int8 in -127..127, and the scale of each, float32 [n, 1]."""
    weight = weight.detach().float()
    scale = weight.abs().amax(1, keepdim=True).clamp_min(smallest) / 127
    return (weight / scale).round_().to(torch.int8), scale


def multiply_int8(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """The product of int8 [n, k] and [k, m], int32 [n, m]."""
    product: torch.Tensor = torch._int_mm(rows, columns)  # noqa: SLF001 - torch has no public name for it
    return product


@cache
def require_exact() -> None:
    """`InputError` if int8 products are not exact here: without VNNI oneDNN adds pairs of them in 16 bits, which overflow."""
    rows, weight = (torch.full((16, 128), value, dtype=torch.int8) for value in (127, 127))
    rows[1::2] = -128
    if not torch.equal(multiply_int8(rows, weight.t()), rows.int() @ weight.int().t()):
        raise InputError("dtype=int8 needs a CPU with VNNI (avx512_vnni, avx_vnni or AMX); use ?dtype=float32")
