"""Which weights of a model are trained, and which of its states are left out while it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import InputError, list_few


def freeze_parts(network: torch.nn.Module, parts: Sequence[str]) -> None:
    """Let the weights of these parts take no gradients; a part is named by steps of the way to it: `encoder.layer.0`.

    `InputError` naming the parts that there are, where one is not there.
    """
    names = [name for name, _ in network.named_parameters()]
    for part in parts:
        if not any(is_part(name, part) for name in names):
            raise InputError(f"freeze: no weights are named {part!r} (there are {list_few(_list_parts(names), 12)})")
    for name, weights in network.named_parameters():
        if any(is_part(name, part) for part in parts):
            weights.requires_grad_(False)


def drop_states(network: torch.nn.Module, share: float) -> None:
    """Leave out this share of states while the network trains, those of attention among them."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = share  # type: ignore[assignment]


def is_part(name: str, part: str) -> bool:
    """Whether weights of this name are in a part."""
    return f".{part}." in f".{name}."


def _list_parts(names: Sequence[str]) -> list[str]:
    """The modules that weights are in, without what all names begin with."""
    return list(dict.fromkeys(name.partition(".")[2].rpartition(".")[0] for name in names))
