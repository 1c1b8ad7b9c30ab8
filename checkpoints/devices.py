"""Where models run and in which precision."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Literal

import torch

from ..errors import InputError
from .device_names import parse_device
from .sharing import list_cores

# oneDNN keeps the code that it compiles for each shape of a product, 1,024 of them, and batches of text hardly ever
# repeat a shape: memory grew by 100 to 200 MB with each of the first thousands of texts. One batch needs a handful of
# them. Read at the first product.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "32")

Precision = Literal["auto", "float32", "bfloat16", "float16"]
TextPrecision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
LLMPrecision = Literal["auto", "float32", "bfloat16", "float16", "int8", "4bit"]

log = logging.getLogger("crosslens")


def resolve_device(device: str) -> torch.device:
    """`auto` is the first of CUDA, MPS and CPU that is there; of several devices the first, and a message says so.

    `InputError` for one that is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    first, *more = _named(device)
    if more:
        _say_first(device, first)
    return first


def resolve_devices(device: str) -> list[str]:
    """The devices that an index is encoded on, a process each; every one is a name that `resolve_device` takes.

    `cuda:0,1` are two, `cpu:4` is the CPU four times, each with a part of the cores. `auto` is all CUDA devices where
    there are several, else one device: on a CPU, several processes were not faster than one (`encoders.workers`).
    `InputError` for one that is not there.
    """
    if device == "auto" and (count := torch.cuda.device_count()) > 1:
        return [f"cuda:{number}" for number in range(count)]
    return [str(each) for each in ([resolve_device(device)] if device == "auto" else _named(device))]


def _named(device: str) -> list[torch.device]:
    """One or more devices of a kind, all of them there."""
    kind, numbers = parse_device(device)
    if kind == "cuda":
        count = torch.cuda.device_count()
        found = [torch.device(kind, each) for each in numbers] or [torch.device(kind)]
        if lacking := [each for each in found if (each.index or 0) >= count]:
            raise InputError(f"there is no device {str(lacking[0])!r} here ({count} CUDA devices); use --device auto")
        if len(set(found)) < len(found):
            raise InputError(f"the device {device!r} names one twice")
        return found
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("there is no device 'mps' here; use --device auto")
        if numbers not in ([], [0]):
            raise InputError(f"there is no device {device!r} here, only mps")
        return [torch.device(kind)]
    processes = numbers[0] if numbers else 1
    if processes > (held := len(list_cores())):
        raise InputError(f"{device!r} is {processes} processes, and there are {held} CPU cores here: write cpu:{held}")
    return [torch.device(kind)] * processes


@cache
def _say_first(device: str, first: torch.device) -> None:
    log.info("--device %s: an index is encoded on all of it, the rest runs on %s", device, first)


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it, else float16 on GPUs and float32 on CPUs.

    `InputError` for an unknown one, and for int8 anywhere but on a CPU.
    """
    if precision == "int8":
        if device.type != "cpu":
            raise InputError(f"dtype=int8 is for CPUs, not {device.type}; there take bfloat16 or float16")
        return torch.int8
    if precision != "auto":
        if precision not in ("float32", "bfloat16", "float16"):
            raise InputError(f"unknown dtype {precision!r}; write auto, float32, bfloat16 or float16")
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if device.type != "cpu":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float16
    can = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(can.get(k) for k in ("avx512_bf16", "amx_bf16", "bf16")) else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether that card does; torch's own question is also answered for cards that only emulate it, and for the first.

    From NVIDIA's Ampere (8.0) on; AMD's, which count from 9, do.
    """
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def name_dtype(dtype: torch.dtype) -> str:
    """`bfloat16` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def choose_token_budget(device: torch.device) -> int:
    """Padded tokens a batch: on a CPU what stays in its caches, on a GPU what fills it.

    On a CPU 512 a thread, what stays in a core's own cache; encoders of text measure it (`encoders.pace`).
    """
    if device.type == "cpu":
        return 512 * torch.get_num_threads()
    return {"cuda": 65536, "mps": 16384}[device.type]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the machine ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
