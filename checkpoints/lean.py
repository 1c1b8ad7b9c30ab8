"""The states of one short text by a BERT or RoBERTa (Devlin et al. 2019; Liu et al. 2019) that is loaded.

A text alone needs no padding and no mask, and the products of its 20 tokens wait for weights. So here is what is left
of the model of transformers: query, key and value are one product, there is little between two products, and it can be
chosen who multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

MODELS = ("BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel")
COPIED = 512 << 20  # the most bytes of weights that are held a second time


class Multiply(Protocol):
    """A linear layer of weights [out, in] and a bias [out]; takes states [tokens, in] and gives [tokens, out]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None: ...

    def __call__(self, states: torch.Tensor) -> torch.Tensor: ...


class TorchProduct:
    """By what torch chooses: MKL in float32, oneDNN in bfloat16."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, self.weight, self.bias)


class PackedProduct:
    """By oneDNN, with weights in the order in which it reads them."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight, None), bias  # noqa: SLF001

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            states, self.weight, self.bias, "none", [], ""
        )
        return made


class NumpyProduct:
    """By the BLAS of numpy in float32, with weights [in, out]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = weight.t().contiguous().numpy(), bias

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        made = torch.empty(len(states), self.weight.shape[1])
        np.matmul(states.numpy(), self.weight, out=made.numpy())
        return made.add_(self.bias)


class LeanBert:
    """The model's layers for one text, with weights of its own for the products."""

    @torch.no_grad()
    def __init__(self, model: Any, multiply: type[Multiply]) -> None:
        def join(*parts: torch.nn.Linear) -> Multiply:
            return multiply(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))

        self._embed = model.embeddings
        self._heads = model.config.num_attention_heads
        self._layers = [
            (
                join(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
                join(layer.attention.output.dense),
                layer.attention.output.LayerNorm,
                join(layer.intermediate.dense),
                layer.intermediate.intermediate_act_fn,
                join(layer.output.dense),
                layer.output.LayerNorm,
            )
            for layer in model.encoder.layer
        ]

    def compute_states(self, ids: Sequence[int]) -> torch.Tensor:
        """The last layer's states [tokens, hidden], in the dtype of the weights; in inference mode."""
        states = self._embed(torch.tensor([ids]))[0]
        for attend, mix, first, widen, act, narrow, second in self._layers:
            # [3, 1, heads, tokens, width]
            query, key, value = attend(states).view(len(ids), 3, 1, self._heads, -1).permute(1, 2, 3, 0, 4)
            seen = functional.scaled_dot_product_attention(query, key, value)[0]
            states = first(mix(seen.transpose(0, 1).reshape(states.shape)).add_(states))
            states = second(narrow(act(widen(states))).add_(states))
        return states


def list_products(model: torch.nn.Module) -> Mapping[str, type[Multiply]]:
    """Who may multiply for a `LeanBert` of a model, by name; none where it is another model, or too large to copy."""
    config: Any = model.config
    layers: Any = getattr(getattr(model, "encoder", None), "layer", ())
    linear = {type(part) for layer in layers for part in layer.modules() if hasattr(part, "in_features")}
    held = [weight for layer in layers for weight in layer.parameters()]
    if (
        type(model).__name__ not in MODELS
        or linear != {torch.nn.Linear}  # those in int8 and those with adapters compute something else
        or config.is_decoder
        or getattr(config, "position_embedding_type", None) not in (None, "absolute")
        or {weight.device.type for weight in held} != {"cpu"}
        or sum(weight.numel() * weight.element_size() for weight in held) > COPIED
    ):
        return {}
    (dtype, *others) = {weight.dtype for weight in held}
    if others or dtype not in (torch.float32, torch.bfloat16):
        return {}
    known: dict[str, type[Multiply]] = {"torch": TorchProduct}
    packs = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if packs and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()):  # noqa: SLF001
        known["oneDNN"] = PackedProduct
    if dtype == torch.float32:
        known["numpy"] = NumpyProduct
    return known
