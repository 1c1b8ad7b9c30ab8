"""Adapters of peft (LoRA; Hu et al. 2022): found beside or instead of a checkpoint, and merged into its weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils.hub import extract_commit_hash

from ..errors import InputError
from .source import TO_SAFETENSORS, TOKENIZER_FILES, Source

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
TASKS = {"SEQ_CLS": "classify", "CAUSAL_LM": "causal", "SEQ_2_SEQ_LM": "seq2seq"}


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter on disk or the hub: what it was trained on and for, and the tensors it holds.

    `task` is the judge's (`classify`, `causal`, `seq2seq`) or None where it does not say; `labels` how many its own
    classification head has; `revision` the hub commit or the sha256 of its weights, 16 hex digits.
    """

    source: Source
    revision: str
    base: Source | None
    task: str | None
    labels: int | None
    keys: frozenset[str]

    @classmethod
    def find(cls, source: Source) -> LoraAdapter | None:
        """The adapter of a directory or hub repository; None if it holds none, `InputError` if a pickled one."""
        if not source.is_local and source.checkpoint.startswith(("/", ".", "~")):
            return None
        try:
            config = source.read_json(CONFIG)
        except OSError:  # not even a name: loading the model says what is wrong
            return None
        if config is None:
            return None
        if (weights := source.find(WEIGHTS)) is None:
            if source.find(PICKLED):
                raise source.refuse_pickled(PICKLED, TO_SAFETENSORS.format(old=PICKLED, new=WEIGHTS))
            raise InputError(f"the adapter {source} has no weights ({WEIGHTS})")
        with safe_open(weights, "pt") as tensors:
            shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118 - no mapping
        labels = [shape[0] for key, shape in shapes.items() if key.endswith(HEADS)]
        commit = None if source.is_local else extract_commit_hash(str(weights), None)
        base = config.get("base_model_name_or_path")
        return cls(
            source,
            commit or source.identify_weights(),
            Source(base, config.get("revision") or None, source.trust_remote_code) if base else None,
            TASKS.get(str(config.get("task_type")), "classify" if labels else None),
            labels[0] if labels else None,
            frozenset(key.removeprefix("base_model.model.") for key in shapes),
        )

    def require_base(self, source: Source, family: str) -> None:
        """`InputError` unless it was trained on that checkpoint, as far as its name says."""
        if self.base and Path(self.base.checkpoint).name.lower() != Path(source.checkpoint).name.lower():
            raise InputError(
                f"the adapter {self.source} was trained on {self.base}, not on {source}; if these are the same "
                f"weights, write {family}:{self.source}?base={source}"
            )

    def merge_into(self, model: Any) -> Any:
        """The model with the adapter's weights added to its own; `InputError` where they do not belong together."""
        try:
            from peft import PeftModel
        except ImportError:
            raise InputError(f"the adapter {self.source} needs peft: pip install 'crosslens[lora]'") from None
        which = {"revision": self.source.revision} if self.source.revision else {}
        try:
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always")
                tuned = PeftModel.from_pretrained(model, self.source.checkpoint, torch_device="cpu", **which)
            merged = tuned.merge_and_unload()
        except (ValueError, RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
            raise InputError(f"the adapter {self.source} does not fit its base model: {reason}") from None
        if missing := [str(each.message) for each in given if "missing adapter keys" in str(each.message)]:
            raise InputError(f"the adapter {self.source} is incomplete: {missing[0][:200]}")
        return merged


def find_base(source: Source, adapter: str | None, base: str | None) -> tuple[LoraAdapter | None, Source]:
    """The adapter, if there is one, and the model that it is merged into, or is loaded without one.

    `source` may itself be an adapter, of the `base` that it names or of another; `adapter` is one for `source`.
    """
    itself = LoraAdapter.find(source)
    if adapter is not None:
        if itself:
            raise InputError(f"{source} is itself an adapter, and takes no other; leave adapter out")
        if base is not None:
            raise InputError(f"the adapter {adapter} goes into {source}; leave base out")
        found = LoraAdapter.find(Source(adapter, None, source.trust_remote_code))
        if found is None:
            raise InputError(f"there is no adapter {adapter} (a directory or hub name with adapter_config.json)")
        return found, source
    if itself is None:
        if base is not None:
            raise InputError(f"{source} is no adapter (it has no adapter_config.json); leave base out")
        return None, source
    if base is not None:
        return itself, Source(base, None, source.trust_remote_code)
    if itself.base is None:
        raise InputError(f"the adapter {source} does not name its base model; give it as base=")
    return itself, itself.base


def find_tokenizer(adapter: LoraAdapter | None, base: Source) -> Source:
    """Whose tokenizer is used: the adapter's if it has one, else the model's."""
    return adapter.source if adapter and adapter.source.find(*TOKENIZER_FILES) else base
