"""Where models run and in which precision."""

from __future__ import annotations

import torch

from ..errors import InputError


def resolve_device(device: str) -> torch.device:
    """`auto` is the first of CUDA, MPS and CPU that is there; `InputError` for one that is not."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown device {device!r}; write auto, cpu, cuda, cuda:N or mps") from None
    if resolved.type == "cuda":
        count = torch.cuda.device_count()
        if (resolved.index or 0) >= count:
            raise InputError(f"there is no device {device!r} here ({count} CUDA devices); use --device auto")
    elif resolved.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("there is no device 'mps' here; use --device auto")
    elif resolved.type not in ("cpu", "mps"):
        raise InputError(f"the device {device!r} is not supported; write auto, cpu, cuda, cuda:N or mps")
    return resolved


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it, else float16 on GPUs and float32 on CPUs."""
    if precision != "auto":
        if precision not in ("float32", "bfloat16", "float16"):
            raise InputError(f"unknown dtype {precision!r}; write auto, float32, bfloat16 or float16")
        dtype: torch.dtype = getattr(torch, precision)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    can = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(can.get(k) for k in ("avx512_bf16", "amx_bf16", "bf16")) else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the machine ran out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
