"""Adapters of peft (LoRA; Hu et al. 2022): found beside or instead of a checkpoint, and merged into its weights."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
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

        from ...encoders.sentence_files import fetch
        from ...encoders.transformer import weights_hash

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
            raise InputError(
                f"the adapter {checkpoint} has no {WEIGHTS} (pickled weights are not read); convert it with peft: "
                f"load it and save_pretrained(..., safe_serialization=True)"
            )
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
