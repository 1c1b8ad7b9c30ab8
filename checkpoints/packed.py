"""Causal language models in int8 for judging, on CPUs: weights packed once for the int8 units, few passes in between.

Every weight row has a scale; what comes into a linear layer is quantised as it comes, each token by the largest of its
own values, so that an answer does not depend on what else is in the batch. `checkpoints.int8` writes a decoder's
activations as two int8 numbers, for their outliers; here one number is half the work, and outliers are moved into the
weights (`checkpoints.smoothing`). What is left still changes rankings a little: nothing chooses int8 by itself.

What makes it fast: weights are packed for oneDNN when the model is loaded (`torch._int_mm` reorders them at every
product), and products come out in the dtype of the states with the weights' scales applied. A gated feed-forward layer,
whose states are the widest, and the norms are worked on in blocks that stay in a core's cache. On a Xeon with AMX, one
thread, the shapes of Qwen2.5-1.5B: 1,450 GFLOP/s against 610 to 850 of `torch._int_mm` and 750 in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch

from ..errors import InputError
from .smoothing import smooth

BLOCK = 1 << 18  # float32 numbers of a block for each thread: 1 MB, half of what is a core's own
CHUNK = 512  # rows of a feed-forward layer's inner states at once: more, and their memory is asked for each time
COLUMNS = 2304  # of these states that have one step, and so do the weights that they meet; a multiple of 64
LARGEST = 127  # what a row's largest value becomes; with a step that was rounded to bfloat16 it is less than 127.5


class Rows:
    """Rows of states in int8 [n, dim], and the step of each [n, 1], in the dtype of the states."""

    def __init__(self, whole: torch.Tensor, step: torch.Tensor) -> None:
        self.whole, self.step = whole, step

    @classmethod
    def empty(cls, n: int, dim: int, dtype: torch.dtype) -> Rows:
        return cls(torch.empty(n, dim, dtype=torch.int8), torch.empty(n, 1, dtype=dtype))

    @classmethod
    def quantise(cls, states: torch.Tensor) -> Rows:
        """States [n, dim], each row by its own largest value."""
        n, dim = states.shape
        rows = cls.empty(n, dim, states.dtype)
        for place, values in block_rows(n, dim):
            rows[place].fill(values.copy_(states[place]))
        return rows

    def __getitem__(self, place: slice) -> Rows:
        return Rows(self.whole[place], self.step[place])

    def fill(self, values: torch.Tensor) -> None:
        """Quantise float32 values [n, dim] into these rows; the values are overwritten."""
        largest = torch.maximum(values.amax(1, keepdim=True), values.amin(1, keepdim=True).neg_())
        # Divided by just what the product is multiplied with. A NaN comes back with the step of its row.
        self.step.copy_(largest.clamp_min_(1e-30).div_(LARGEST))
        self.whole.copy_(values.mul_(self.step.float().reciprocal()).round_())


class LastRows:
    """The states that were quantised last: the layers of one parent (query, key, value) are given the same ones."""

    def __init__(self) -> None:
        self._held: tuple[torch.Tensor | None, Rows | None] = (None, None)

    def quantise(self, states: torch.Tensor) -> Rows:
        held, rows = self._held  # one read, so that threads do not see each other's halves
        if held is not states or rows is None:
            rows = Rows.quantise(states.reshape(-1, states.shape[-1]))
            self._held = (states, rows)
        return rows


class PackedWeight(torch.nn.Module):
    """int8 weights [out, in], each row with a scale."""

    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        weight = weight.detach().float()
        scale = weight.abs().amax(1, keepdim=True).clamp_min_(1e-30).div_(127)
        self.packed = pack(weight.div(scale).round_().to(torch.int8))  # no buffer: only oneDNN can read it
        self.register_buffer("scale", scale[:, 0].contiguous())
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int32))

    def multiply(self, rows: Rows, dtype: torch.dtype) -> torch.Tensor:
        """The product [n, out], before the rows' steps."""
        return multiply(rows, self.packed, self.scale, self.zero, dtype)


class PackedLinear(PackedWeight):
    """A linear layer with int8 weights [out, in]; takes states [..., in] and gives [..., out], in the same dtype."""

    bias: torch.Tensor | None

    def __init__(self, linear: torch.nn.Linear, latest: LastRows) -> None:
        super().__init__(linear.weight)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.latest = latest

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = self.latest.quantise(states)
        product = self.multiply(rows, states.dtype)
        product = product.mul_(rows.step) if self.bias is None else torch.addcmul(self.bias, product, rows.step)
        return product.view(*states.shape[:-1], -1)


class PackedGated(torch.nn.Module):
    """`down(act(gate(x)) * up(x))`, the feed-forward layer of Llama and its kin (GLU; Shazeer 2020).

    What `down` reads has its largest values in other columns for every token, which no factor takes away. So its
    columns are quantised in groups, each with a step of its own, and the groups' products are added in float32.
    """

    bias: torch.Tensor | None

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = PackedWeight(layer.gate_proj.weight), PackedWeight(layer.up_proj.weight)
        parts = layer.down_proj.weight.split(find_width(layer.down_proj.in_features), 1)
        self.down_proj = torch.nn.ModuleList(map(PackedWeight, parts))
        self.register_buffer("bias", None if layer.down_proj.bias is None else layer.down_proj.bias.detach())
        self.widths = [each.shape[1] for each in parts]
        self.act_fn = layer.act_fn
        self.plain_silu = type(layer.act_fn).__name__ in ("SiLU", "SiLUActivation")

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = Rows.quantise(states.reshape(-1, states.shape[-1]))
        n, dim = rows.whole.shape
        result = torch.empty(n, dim, dtype=states.dtype)
        inner = [Rows.empty(min(n, CHUNK), width, torch.float32) for width in self.widths]
        for start in range(0, n, CHUNK):
            place = slice(start, min(start + CHUNK, n))
            some = [each[: place.stop - start] for each in inner]
            self._fill(some, rows[place], states.dtype)
            total = torch.zeros(()) if self.bias is None else self.bias.float()
            for down, each in zip(self.down_proj, some, strict=True):
                product: torch.Tensor = down.multiply(each, torch.float32)  # type: ignore[operator]
                total = torch.addcmul(total, product, each.step)
            result[place].copy_(total)
        return result.view(states.shape)

    def _fill(self, inner: Sequence[Rows], rows: Rows, dtype: torch.dtype) -> None:
        gate, up, step = self.gate_proj.multiply(rows, dtype), self.up_proj.multiply(rows, dtype), rows.step.float()
        other = torch.empty(0)
        for place, values in block_rows(*gate.shape):
            values.copy_(gate[place]).mul_(step[place])
            values = torch.nn.functional.silu(values, inplace=True) if self.plain_silu else self.act_fn(values)
            other = torch.empty_like(values) if len(other) < len(values) else other[: len(values)]
            values.mul_(other.copy_(up[place]))
            for each, part in zip(inner, values.split(self.widths, 1), strict=True):
                each[place].fill(part)
        for each in inner:
            each.step.mul_(step)  # of `up`; quantising does not see it


def find_width(columns: int) -> int:
    """How many columns a group has, the last perhaps fewer: as few groups as `COLUMNS` allows, nearly equal ones."""
    groups = -(-columns // COLUMNS)
    return -(-columns // (64 * groups)) * 64


class BlockNorm(torch.nn.Module):
    """A root mean square norm (Zhang and Sennrich 2019) of states [..., dim], a block of rows at a time."""

    factor: torch.Tensor

    def __init__(self, norm: Any, around: float) -> None:
        super().__init__()
        self.register_buffer("factor", norm.weight.detach().float() + around)
        self.eps = float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = states.reshape(-1, states.shape[-1])
        result = torch.empty_like(rows)
        squares = torch.empty(0)
        for place, values in block_rows(*rows.shape):
            values.copy_(rows[place])
            squares = torch.empty_like(values) if len(squares) < len(values) else squares[: len(values)]
            spread = torch.mul(values, values, out=squares).mean(1, keepdim=True).add_(self.eps).rsqrt_()
            result[place].copy_(values.mul_(spread).mul_(self.factor))
        return result.view(states.shape)


def block_rows(n: int, dim: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows that are worked on at once, and float32 room for them: the same memory each time."""
    size = max(1, BLOCK * torch.get_num_threads() // dim)
    room = torch.empty(min(size, n), dim)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n)), room[: n - start]


def pack(weight: torch.Tensor) -> torch.Tensor:
    """int8 weights [out, in] in the order that oneDNN's products want."""
    packed: torch.Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return packed


def multiply(
    rows: Rows, packed: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The product of rows [n, in] and packed weights [out, in], times the scales [out] of these."""
    product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        rows.whole, 1.0, 0, packed, scale, zero, None, 1.0, 0, dtype, "none", [], ""
    )
    return product


@cache
def require_packed() -> None:
    """`InputError` where packed products are not there or not exact: without VNNI pairs are added in 16 bits."""
    weight = torch.full((16, 128), 127, dtype=torch.int8)
    rows = Rows(weight.clone(), torch.ones(16, 1))
    rows.whole[1::2] = -128
    if (torch.ops.onednn and hasattr(torch.ops.onednn, "qlinear_pointwise")) and torch.backends.mkldnn.is_available():
        found = multiply(rows, pack(weight), torch.ones(16), torch.zeros(16, dtype=torch.int32), torch.float32)
        if torch.equal(found, rows.whole.float() @ weight.float().t()):
            return
    raise InputError("dtype=int8 needs a CPU with VNNI (avx512_vnni, avx_vnni or AMX); use ?dtype=float32")


@torch.inference_mode()
def pack_decoder(
    model: torch.nn.Module, head: torch.nn.Module | None, name: str, sample: Sequence[Sequence[int]]
) -> None:
    """Put a model's linear layers, but not its `head`, into int8, one at a time; `name` is for errors.

    Before that, outliers that the token ids of `sample` show are moved into the weights (`checkpoints.smoothing`).
    `InputError` if the CPU does not multiply int8 exactly, or nothing in the model is a linear layer.
    """
    require_packed()
    linear = [each for each in model.modules() if type(each) is torch.nn.Linear and each is not head]
    if not linear:
        raise InputError(f"{name}: its {type(model).__name__} has no linear layers that int8 is for; use bfloat16")
    gated = _find_gated(model)
    norms = block_norms(model)
    smooth(model, sample, {each: each.factor for each in norms}, gated)
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if type(child) in gated:
                setattr(parent, key, PackedGated(child))
    for parent in list(model.modules()):
        latest = LastRows()
        for key, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and child is not head:
                setattr(parent, key, PackedLinear(child, latest))


def block_norms(model: torch.nn.Module) -> list[BlockNorm]:
    """Put a `BlockNorm` in the place of each norm that computes the same."""
    ways: dict[type, float | None] = {}
    made = []
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                if type(child) not in ways:
                    ways[type(child)] = _find_way(child)
                if (around := ways[type(child)]) is not None:
                    made.append(BlockNorm(child, around))
                    setattr(parent, key, made[-1])
    return made


def _find_gated(model: torch.nn.Module) -> set[type]:
    """The classes of feed-forward layers that compute what `PackedGated` does: found out by comparing."""
    found: dict[type, bool] = {}
    for each in model.modules():
        gate, up, down, act = (getattr(each, key, None) for key in ("gate_proj", "up_proj", "down_proj", "act_fn"))
        if type(each) in found or not isinstance(act, torch.nn.Module):
            continue
        if isinstance(gate, torch.nn.Linear) and isinstance(up, torch.nn.Linear) and isinstance(down, torch.nn.Linear):
            states = _sample(gate.weight)
            same = torch.equal(down(act(gate(states)) * up(states)), each(states))
            plain = {type(gate), type(up), type(down)} == {torch.nn.Linear} and gate.bias is None and up.bias is None
            found[type(each)] = plain and same
    return {kind for kind, fits in found.items() if fits}


def _find_way(norm: torch.nn.Module) -> float | None:
    """What is added to a norm's weight (0, or 1 as in Gemma) for it to be a `BlockNorm`; None where it is none."""
    weight = getattr(norm, "weight", None)
    named = hasattr(norm, "variance_epsilon") or hasattr(norm, "eps")
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or not named:
        return None
    states = _sample(weight)
    near = 4 * torch.finfo(states.dtype).eps
    for around in (0.0, 1.0):
        if torch.allclose(BlockNorm(norm, around)(states), norm(states), rtol=near, atol=near):
            return around
    return None


def _sample(weight: torch.Tensor) -> torch.Tensor:
    """Some states that a layer with this weight [..., dim] takes."""
    made = torch.Generator().manual_seed(0)
    return torch.randn(1, 4, weight.shape[-1], generator=made).to(weight.dtype)
