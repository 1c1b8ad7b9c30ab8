"""Decoder LLMs loaded as encoders: adapters merged, attention made what it should be and measured, weights in few bits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import torch
import transformers

from ..encoders.transformer import loaded, weights_hash
from ..errors import InputError
from . import sentence_files
from .devices import resolve_dtype
from .int8 import quantise
from .lora import Adapter, based, tokenizer_home, tokenizer_of
from .weights import complete

Attention = Literal["auto", "causal", "bidirectional"]
LLMPrecision = Literal["auto", "float32", "bfloat16", "float16", "int8", "4bit"]


@dataclass(frozen=True)
class Source:
    """Where a model comes from: the base checkpoint, and the adapter that goes into it, if one does."""

    checkpoint: str
    revision: str | None
    adapter: Adapter | None
    trust_remote_code: bool
    config: Any

    @classmethod
    def of(
        cls,
        checkpoint: str,
        revision: str | None,
        adapter: str | None,
        base: str | None,
        trust_remote_code: bool,
        family: str = "llm",
    ) -> Source:
        """`InputError` where a checkpoint or adapter is missing, or the adapter was trained on another model."""
        found, model_at, model_revision = based(checkpoint, revision, adapter, base)
        if adapter and found:
            found.require_base(model_at, family)
        source = {"revision": model_revision, "trust_remote_code": trust_remote_code}
        config = loaded(transformers.AutoConfig, model_at, **source)
        if config.is_encoder_decoder:
            raise InputError(f"{model_at} is no decoder ({config.model_type}); write hf: for {family}:")
        return cls(model_at, model_revision, found, trust_remote_code, config)

    def published(self) -> tuple[sentence_files.Published, str, str | None]:
        """The sentence-transformers files, the adapter's before the base's, and where they are."""
        if self.adapter:
            files = sentence_files.read(self.adapter.checkpoint, self.adapter.asked_revision)
            if files.pooling:
                return files, self.adapter.checkpoint, self.adapter.asked_revision
        return sentence_files.read(self.checkpoint, self.revision), self.checkpoint, self.revision

    def tokenizer(self) -> Any:
        """The adapter's tokenizer if it has one, else the base's; `InputError` if there is none."""
        return tokenizer_of(self.adapter, self.checkpoint, self.revision, self.trust_remote_code)

    def asks_for_end(self) -> bool:
        """Whether the tokenizer's configuration says that texts end with its eos_token.

        Up to version 4 transformers saw to it; from 5 on it goes by tokenizer.json alone, in which that of E5-Mistral
        and its kin (SFR, Linq) do not have it.
        """
        home, revision = tokenizer_home(self.adapter, self.checkpoint, self.revision)
        path = sentence_files.fetch(home, "tokenizer_config.json", revision)
        return path is not None and json.loads(path.read_text("utf-8")).get("add_eos_token") is True

    def model(
        self,
        attention: Attention,
        bidirectional: bool | None,
        precision: LLMPrecision,
        device: torch.device,
        head: bool = False,
    ) -> tuple[Any, str, str]:
        """The model on its device, what its weights are known by, and the name of the dtype it computes in.

        `bidirectional` is what is known of the checkpoint, and None if nothing is; `head` asks for the language
        model with its head. `InputError` for weights that are pickled or missing, an adapter that does not fit, and
        attention that cannot be had.
        """
        _set_attention(self.config, self.checkpoint, attention, bidirectional, self.trust_remote_code)
        dtype, more = _dtype(precision, device, self.adapter)
        # An adapter names the layers of the class that it was trained on: with a language model's head, or without.
        headed = head or (
            self.adapter is not None and any(key.startswith("model.") for key in self.adapter.keys)
        )
        held = self.adapter.keys if self.adapter else frozenset()
        model = complete(
            transformers.AutoModelForCausalLM if headed else transformers.AutoModel,
            self.checkpoint,
            self.revision,
            lambda key: key in held or (not head and key.startswith("lm_head")),
            config=self.config,
            dtype=dtype,
            trust_remote_code=self.trust_remote_code,
            **more,
        )
        revision = getattr(model.config, "_commit_hash", None) or weights_hash(self.checkpoint)
        if self.adapter:
            model = self.adapter.merged(model)
        if headed and not head:
            model = getattr(model, model.base_model_prefix)
        if precision == "int8":
            model = quantise(model)
        if precision != "4bit":
            model = model.to(device)
        return model.eval(), str(revision), precision if more or precision == "int8" else str(dtype)[6:]


@torch.inference_mode()
def attends_ahead(model: Any) -> bool:
    """Whether a token's state changes with the tokens after it: measured, since configurations say it in many ways."""
    device = next(model.parameters()).device
    states = [
        model(input_ids=torch.tensor([[1, 2, last]], device=device), use_cache=False).last_hidden_state[0, 1]
        for last in (3, 4)
    ]
    one, other = (state.float() for state in states)
    return bool((one - other).norm() > 0.01 * one.norm())


def _set_attention(
    config: Any, checkpoint: str, attention: Attention, bidirectional: bool | None, trusted: bool
) -> None:
    own = "AutoModel" in (getattr(config, "auto_map", None) or {})
    if attention == "auto":
        if own and not trusted and bidirectional is None:
            raise InputError(
                f"{checkpoint} brings code of its own for its model, which may attend in both directions: say "
                f"attention=causal or attention=bidirectional, or rerun with --trust-remote-code if you trust it"
            )
        if bidirectional and not (own and trusted):
            config.is_causal = False
    else:
        config.is_causal = attention == "causal"  # transformers 5 makes its masks by this


def _dtype(
    precision: LLMPrecision, device: torch.device, adapter: Adapter | None
) -> tuple[torch.dtype | str, dict[str, object]]:
    """The dtype to load in, and what else loading needs."""
    if precision == "int8":
        if device.type != "cpu":
            raise InputError(
                f"dtype=int8 is for CPUs, not {device.type}; there take bfloat16, or 4bit on CUDA"
            )
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
    bits = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
    )
    return compute, {"quantization_config": bits, "device_map": {"": device}}
