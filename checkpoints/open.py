"""Checkpoints in memory: text encoders, shared; decoder LLMs with their adapters, attention and weights in few bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
import transformers

from ..errors import InputError
from .devices import LLMPrecision, TextPrecision, name_dtype, resolve_dtype
from .int8 import open_int8, quantise_decoder, warn_if_slower
from .lora import LoraAdapter, find_base, find_tokenizer
from .openvino import Backend, find_published, open_exported, open_published, require_backend
from .sentence_files import SentenceSettings, read_sentence_settings
from .sharing import share
from .source import Source

Attention = Literal["auto", "causal", "bidirectional"]


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A checkpoint in memory, its model on a device; encoders of one (e5-small, and ConSE over it) share it.

    `weights` is what these are known by, `computes_in` the name of the dtype.
    """

    config: Any
    tokenizer: Any
    model: torch.nn.Module
    weights: str
    computes_in: str
    device: torch.device
    backend: Backend = "torch"

    def find_longest_input(self, stated: int | None = None) -> int:
        """The most tokens, special ones included, that model, tokenizer and what its files have `stated` all allow."""
        config = self.config
        limits = [self.tokenizer.model_max_length, getattr(config, "max_position_embeddings", None), stated]
        # RoBERTa keeps the first pad_token_id + 1 positions for itself.
        if config.model_type in ("xlm-roberta", "roberta", "camembert", "xlm-roberta-xl") and limits[1]:
            limits[1] -= (config.pad_token_id or 0) + 1
        return int(min(limit for limit in limits if limit))


def open_text_model(
    source: Source, precision: TextPrecision, device: torch.device, backend: Backend = "torch"
) -> OpenModel:
    """The encoder of a checkpoint and its tokenizer; `InputError` if it cannot be found, or lacks one of them.

    In int8 linear layers and embeddings are quantised (`checkpoints.int8`). What another backend than torch runs gives
    states, and has neither weights nor gradients (`checkpoints.openvino`).
    """
    dtype = resolve_dtype(precision, device)
    if backend != "torch":
        require_backend(backend, dtype, device)
    return share((source, dtype, device, backend), lambda: _open(source, dtype, device, backend))


def _open(source: Source, dtype: torch.dtype, device: torch.device, backend: Backend) -> OpenModel:
    config, tokenizer = source.load_config(), source.load_tokenizer()
    auto = transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel

    load = partial(source.load_model, auto, lambda key: "pooler" in key, config=config)
    published = None if backend == "torch" else find_published(source, backend)
    weights = source.identify_weights(config)
    model: torch.nn.Module
    if published:
        model = open_published(published, dtype)
    elif backend == "openvino":
        model = open_exported(config, weights, lambda: load(dtype=torch.float32).eval(), dtype)
    elif dtype == torch.int8:
        warn_if_slower(resolve_dtype("auto", device))
        load_whole = partial(load, dtype=torch.float32)
        empty = partial(auto.from_config, config, dtype=torch.float32, trust_remote_code=source.trust_remote_code)
        model = open_int8(config, weights, load_whole, empty)
    else:
        model = load(dtype=dtype)
    return OpenModel(config, tokenizer, model.to(device).eval(), weights, name_dtype(dtype), device, backend)


@dataclass(frozen=True)
class DecoderSource:
    """Where a decoder comes from: the base checkpoint, and the adapter that goes into it, if one does."""

    base: Source
    adapter: LoraAdapter | None
    config: Any

    @classmethod
    def find(
        cls, source: Source, adapter: str | None = None, base: str | None = None, *, family: str = "llm"
    ) -> DecoderSource:
        """`InputError` where a checkpoint or adapter is missing, or the adapter was trained on another model."""
        found, under = find_base(source, adapter, base)
        if adapter and found:
            found.require_base(under, family)
        config = under.load_config()
        if config.is_encoder_decoder:
            raise InputError(f"{under} is no decoder ({config.model_type}); write hf: for {family}:")
        return cls(under, found, config)

    def read_settings(self) -> tuple[SentenceSettings, Source]:
        """The sentence-transformers files, the adapter's before the base's, and where they are."""
        if self.adapter and (settings := read_sentence_settings(self.adapter.source)).pooling:
            return settings, self.adapter.source
        return read_sentence_settings(self.base), self.base

    def ends_texts(self) -> bool:
        """Whether the tokenizer's configuration says that texts end with its eos_token.

        Up to version 4 transformers saw to it; from 5 on it goes by tokenizer.json alone, in which that of E5-Mistral
        and its kin (SFR, Linq) do not have it.
        """
        config = find_tokenizer(self.adapter, self.base).read_json("tokenizer_config.json") or {}
        return config.get("add_eos_token") is True

    def open(
        self,
        attention: Attention,
        bidirectional: bool | None,
        precision: LLMPrecision,
        device: torch.device,
        *,
        head: bool = False,
    ) -> OpenModel:
        """The model on its device, and its tokenizer: the adapter's if it has one, else the base's.

        `bidirectional` is what is known of the checkpoint, and None if nothing is; `head` asks for the language
        model with its head. `InputError` for weights that are pickled or missing, an adapter that does not fit, and
        attention that cannot be had.
        """
        tokenizer = find_tokenizer(self.adapter, self.base).load_tokenizer()
        self._set_attention(attention, bidirectional)
        dtype, more = _choose_dtype(precision, device, self.adapter)
        # An adapter names the layers of the class that it was trained on: with a language model's head, or without.
        held = self.adapter.keys if self.adapter else frozenset()
        headed = head or any(key.startswith("model.") for key in held)
        model = self.base.load_model(
            transformers.AutoModelForCausalLM if headed else transformers.AutoModel,
            lambda key: key in held or (not head and key.startswith("lm_head")),
            config=self.config,
            dtype=dtype,
            **more,
        )
        weights = self.base.identify_weights(model.config)
        if self.adapter:
            model = self.adapter.merge_into(model)
        if headed and not head:
            model = getattr(model, model.base_model_prefix)
        if precision == "int8":
            model = quantise_decoder(model)
        if precision != "4bit":
            model = model.to(device)
        computes_in = precision if more or isinstance(dtype, str) else name_dtype(dtype)
        config = model.config.get_text_config()
        return OpenModel(config, tokenizer, model.eval(), weights, computes_in, device)

    def _set_attention(self, attention: Attention, bidirectional: bool | None) -> None:
        own = "AutoModel" in (getattr(self.config, "auto_map", None) or {})
        trusted = self.base.trust_remote_code
        if attention != "auto":
            self.config.is_causal = attention == "causal"  # transformers 5 makes its masks by this
        elif own and not trusted and bidirectional is None:
            raise InputError(
                f"{self.base} brings code of its own for its model, which may attend in both directions: write "
                f"attention=causal or attention=bidirectional, or rerun with --trust-remote-code if you trust it"
            )
        elif bidirectional and not (own and trusted):
            self.config.is_causal = False


@torch.inference_mode()
def attends_ahead(model: Any) -> bool:
    """Whether a token's state changes with the tokens after it: measured, since configurations say it in many ways."""
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]], device=next(model.parameters()).device)
    one, other = model(input_ids=ids, use_cache=False).last_hidden_state[:, 1].float()
    return bool((one - other).norm() > 0.01 * one.norm())


def _choose_dtype(
    precision: LLMPrecision, device: torch.device, adapter: LoraAdapter | None
) -> tuple[torch.dtype | str, dict[str, Any]]:
    """The dtype to load in, and what else loading needs."""
    if precision == "int8":
        if device.type != "cpu":
            raise InputError(f"dtype=int8 is for CPUs, not {device.type}; there take bfloat16, or 4bit on CUDA")
        return "auto", {}  # as it was saved: what is quantised needs no float32 copy first
    if precision != "4bit":
        return resolve_dtype(precision, device), {}
    if device.type != "cuda":
        raise InputError(f"dtype=4bit needs a CUDA GPU, not {device.type}; on CPUs take int8")
    if find_spec("bitsandbytes") is None:
        raise InputError("dtype=4bit needs bitsandbytes: pip install bitsandbytes")
    if adapter:
        raise InputError("an adapter cannot be merged into 4-bit weights without loss; take dtype=bfloat16")
    compute = resolve_dtype("auto", device)
    bits = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    return compute, {"quantization_config": bits, "device_map": {"": device}}
