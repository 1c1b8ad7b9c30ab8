"""How devices are named; in a module of its own, which needs no torch."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from pathlib import Path

from ..errors import InputError


def parse_device(device: str) -> tuple[str, list[int]]:
    """What a name other than `auto` means: `cpu`, `cuda` or `mps`, and the numbers after the colon.

    `InputError` for what is no name of a device; whether it is there is another question.
    """
    kind, colon, numbers = device.partition(":")
    listed = numbers.split(",") if colon else []
    understood = kind in ("cpu", "cuda", "mps") and all(each.isdecimal() for each in listed)
    if not understood or (kind == "cpu" and (len(listed) > 1 or any(int(each) < 1 for each in listed))):
        raise InputError(
            f"unknown device {device!r}; write auto, cpu, cpu:N (N processes), cuda, cuda:N, cuda:N,M or mps"
        )
    return kind, list(map(int, listed))


def name_processor() -> str:
    """The machine's processors: `2 x Intel(R) Xeon(R) Processor`."""
    with suppress(OSError):
        if names := re.findall(r"^model name.*?: *(.*\S)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return f"{len(names)} x {names[0]}"
    return platform.processor()
