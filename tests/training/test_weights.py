"""Parts that keep their weights, and states that are left out, the same for encoders and rankers."""

from __future__ import annotations

import pytest
import torch
from crosslens.errors import InputError
from crosslens.training.weights import drop_states, freeze_parts


class Layer(torch.nn.Linear):
    attention_dropout = 0.3


def test_a_part_is_named_by_whole_steps():
    network = torch.nn.ModuleDict({"layer": torch.nn.ModuleList(Layer(2, 2) for _ in range(12))})
    freeze_parts(network, ("layer.1",))
    frozen = {name for name, each in network.named_parameters() if not each.requires_grad}
    assert frozen == {"layer.1.weight", "layer.1.bias"}
    with pytest.raises(InputError, match="no weights are named 'lay'"):
        freeze_parts(network, ("lay",))


def test_states_of_attention_are_left_out_as_others_are():
    network = torch.nn.Sequential(Layer(2, 2), torch.nn.Dropout(0.5))
    drop_states(network, 0.0)
    assert (network[0].attention_dropout, network[1].p) == (0.0, 0.0)
