"""Adapters of peft (LoRA; Hu et al. 2022): found beside or instead of a checkpoint, and merged into its weights."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
TASKS = {"SEQ_CLS": "classify", "CAUSAL_LM": "causal", "SEQ_2_SEQ_LM": "seq2seq"}


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk or the hub: what it was trained on and for, and the tensors it holds.

    `task` is the judge's (`classify`, `causal`, `seq2seq`) or None where it does not say; `labels` how many its own
    classification head has; `revision` the hub commit or the sha256 of its weights, 16 hex digits.
    """

    checkpoint: str
    asked_revision: str | None
    revision: str
    base: str | None
    base_revision: str | None
    task: str | None
    labels: int | None
    keys: frozenset[str]

    @classmethod
    def at(cls, checkpoint: str, revision: str | None) -> Adapter | None:
        """The adapter of a directory or hub repository; None if it holds none, `InputError` if a pickled one."""
        from safetensors import safe_open
        from transformers.utils.hub import extract_commit_hash

        from ..encoders.transformer import weights_hash
        from .sentence_files import fetch
        from .weights import TENSORS, pickled_only

        try:
            path = fetch(checkpoint, CONFIG, revision)
        except OSError:  # not even a name: loading the model says what is wrong
            path = None
        if path is None:
            return None
        try:
            config = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error})") from None
        weights = fetch(checkpoint, WEIGHTS, revision)
        if weights is None:
            if fetch(checkpoint, PICKLED, revision):
                raise pickled_only(checkpoint, revision, PICKLED, TENSORS.format(old=PICKLED, new=WEIGHTS))
            raise InputError(f"the adapter {checkpoint} has no weights ({WEIGHTS})")
        with safe_open(weights, "pt") as tensors:
            shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118 - no mapping
        labels = [shape[0] for key, shape in shapes.items() if key.endswith(HEADS)]
        commit = None if Path(checkpoint).is_dir() else extract_commit_hash(str(weights), None)
        return cls(
            checkpoint,
            revision,
            commit or weights_hash(checkpoint),
            config.get("base_model_name_or_path") or None,
            config.get("revision") or None,
            TASKS.get(str(config.get("task_type")), "classify" if labels else None),
            labels[0] if labels else None,
            frozenset(key.removeprefix("base_model.model.") for key in shapes),
        )

    def require_base(self, checkpoint: str, family: str) -> None:
        """`InputError` unless it was trained on that checkpoint, as far as its name tells."""
        if self.base and _name(self.base) != _name(checkpoint):
            raise InputError(
                f"the adapter {self.checkpoint} was trained on {self.base}, not on {checkpoint}; if these are the "
                f"same weights, write {family}:{self.checkpoint}?base={checkpoint}"
            )

    def merged(self, model: Any) -> Any:
        """The model with the adapter's weights added to its own; `InputError` where they do not belong together."""
        try:
            from peft import PeftModel
        except ImportError:
            raise InputError(
                f"the adapter {self.checkpoint} needs peft: pip install 'crosslens[lora]'"
            ) from None
        source = {"revision": self.asked_revision} if self.asked_revision else {}
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                tuned = PeftModel.from_pretrained(model, self.checkpoint, torch_device="cpu", **source)
            merged = tuned.merge_and_unload()
        except (ValueError, RuntimeError, AttributeError, NotImplementedError, TypeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
            raise InputError(f"the adapter {self.checkpoint} does not fit its base model: {reason}") from None
        if missing := [str(each.message) for each in said if "missing adapter keys" in str(each.message)]:
            raise InputError(f"the adapter {self.checkpoint} is incomplete: {missing[0][:200]}")
        return merged


def based(
    checkpoint: str, revision: str | None, adapter: str | None, base: str | None
) -> tuple[Adapter | None, str, str | None]:
    """The adapter, if there is one, and the model that it is merged into, or is loaded without one."""
    itself = Adapter.at(checkpoint, revision) if _may_be_there(checkpoint) else None
    if adapter is not None:
        if itself:
            raise InputError(f"{checkpoint} is itself an adapter, and takes no other; leave adapter out")
        if base is not None:
            raise InputError(f"the adapter {adapter} goes into {checkpoint}; leave base out")
        found = Adapter.at(adapter, None) if _may_be_there(adapter) else None
        if found is None:
            raise InputError(
                f"there is no adapter {adapter} (a directory or hub name with adapter_config.json)"
            )
        return found, checkpoint, revision
    if itself is None:
        if base is not None:
            raise InputError(f"{checkpoint} is no adapter (it has no adapter_config.json); leave base out")
        return None, checkpoint, revision
    if base is None and itself.base is None:
        raise InputError(f"the adapter {checkpoint} does not name its base model; give it as base=")
    return (itself, base, None) if base else (itself, str(itself.base), itself.base_revision)


def _may_be_there(checkpoint: str) -> bool:
    return Path(checkpoint).is_dir() or not checkpoint.startswith(("/", ".", "~"))


def tokenizer_of(
    adapter: Adapter | None, checkpoint: str, revision: str | None, trust_remote_code: bool
) -> Any:
    """The adapter's own tokenizer if it has one, else the model's; `InputError` if there is none."""
    from ..encoders.transformer import loaded_tokenizer

    return loaded_tokenizer(*tokenizer_home(adapter, checkpoint, revision), trust_remote_code)


def tokenizer_home(adapter: Adapter | None, checkpoint: str, revision: str | None) -> tuple[str, str | None]:
    """The checkpoint and revision whose tokenizer is used: the adapter's if it has one, else the model's."""
    from ..encoders.transformer import TOKENIZER_FILES
    from .sentence_files import fetch

    if adapter and any(fetch(adapter.checkpoint, name, adapter.asked_revision) for name in TOKENIZER_FILES):
        return adapter.checkpoint, adapter.asked_revision
    return checkpoint, revision


def _name(checkpoint: str) -> str:
    return checkpoint.rstrip("/").rpartition("/")[2].lower()
