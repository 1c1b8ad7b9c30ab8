"""Checkpoints as sentence-transformers has them: a model, its tokenizer, and files that say how vectors are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from ...checkpoints.sentence_files import POOLINGS, DenseLayer
from ...encoders.late import LateEncoder
from ...encoders.llm import LLMEncoder
from ...encoders.splade import SpladeEncoder
from ...encoders.transformer import TransformerEncoder
from ...errors import InputError
from ...files import make_directory, write_json

# The names by which sentence-transformers of every version knows its modules.
MODULES = "sentence_transformers.models"
SPARSE = "sentence_transformers.sparse_encoder.models"
SWITCHES = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "lasttoken": "pooling_mode_lasttoken"}


def save_dense(encoder: TransformerEncoder, folder: Path, base: str | None = None) -> None:
    """Write a bi-encoder with its prompts, pooling, length, dense layers and normalisation.

    Of its weights all, or where a `base` is named the adapters that go into that checkpoint. What an `llm:` encoder
    appends to texts becomes a matter of its tokenizer, and the direction of its attention one of its configuration.
    """
    spec = encoder.spec
    if base is None:
        save_model(encoder.model, folder)
    else:
        save_adapters(encoder.model, folder, base)
    if isinstance(encoder, LLMEncoder):
        end_texts(encoder.tokenizer, encoder.append)
    encoder.tokenizer.save_pretrained(folder)
    how = next(name for name, pooling in POOLINGS.items() if pooling == spec.pooling)
    width = encoder.opened.config.hidden_size
    pooling = {"word_embedding_dimension": width, **{key: name == how for name, key in SWITCHES.items()}}
    modules = [f"{MODULES}.Transformer", f"{MODULES}.Pooling"]
    layers: list[Any] = [] if encoder.dense is None else list(encoder.dense.children())
    modules += [f"{MODULES}.Dense"] * len(layers) + [f"{MODULES}.Normalize"] * spec.normalized
    _, place, *places = write_modules(folder, modules)
    write_json(place / "config.json", {**pooling, "include_prompt": True})
    for layer, there in zip(layers, places, strict=False):
        save_layer(layer, there)
    write_length(folder, encoder)
    write_prompts(folder, spec.query_prompt, spec.document_prompt)


def save_late(encoder: LateEncoder, folder: Path) -> None:
    """Write a late-interaction model of text as PyLate has it: with its projection, markers, lengths and filling."""
    spec, how, tokenizer = encoder.spec, encoder.how, encoder.tokenizer
    save_model(encoder.model, folder)
    tokenizer.save_pretrained(folder)
    layers: list[Any] = list(encoder.dense.children())  # type: ignore[union-attr]
    _, *places = write_modules(folder, [f"{MODULES}.Transformer"] + ["pylate.models.Dense.Dense"] * len(layers))
    for layer, place in zip(layers, places, strict=True):
        save_layer(layer, place)
    write_length(folder, encoder)
    markers = ["" if id is None else tokenizer.convert_ids_to_tokens(id)
               for id in (how["query_marker"], how["document_marker"])]  # fmt: skip
    write_prompts(
        folder, spec.query_prompt, spec.document_prompt,
        model_type="ColBERT",
        query_prefix=markers[0],
        document_prefix=markers[1],
        query_length=how["query_tokens"],
        document_length=spec.max_tokens,
        do_query_expansion=how["expansion"] is not None,
        attend_to_expansion_tokens=how["attend"],
        skiplist_words=tokenizer.convert_ids_to_tokens(how["skipped"]),
    )  # fmt: skip


def save_sparse(encoder: SpladeEncoder, folder: Path) -> None:
    """Write a SPLADE model with its head, prompts, pooling and length."""
    spec = encoder.spec
    save_model(encoder.model, folder, name_head(encoder))
    encoder.tokenizer.save_pretrained(folder)
    _, place = write_modules(folder, [f"{SPARSE}.MLMTransformer", f"{SPARSE}.SpladePooling"])
    pooling = {"pooling_strategy": spec.pooling, "activation_function": spec.extra["activation"]}
    write_json(place / "config.json", {**pooling, "word_embedding_dimension": spec.dim})
    write_length(folder, encoder)
    write_prompts(folder, spec.query_prompt, spec.document_prompt, model_type="SparseEncoder")


def name_head(encoder: SpladeEncoder) -> dict[str, torch.Tensor]:
    """The weights of the last matrix of the head, which the encoder's model goes without, by their names in it."""
    gap: Any = encoder.model.get_output_embeddings()  # type: ignore[operator]
    place = next(name for name, module in encoder.model.named_modules() if module is gap)
    return {f"{place}.{name}": each for name, each in encoder.decoder.named_parameters()}


def write_modules(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Say which modules a checkpoint has, by the full names of their classes; the folder of each, the first at the top.

    The folders are there then.
    """
    paths = ["", *(f"{number}_{kind.rpartition('.')[2]}" for number, kind in enumerate(kinds[1:], 1))]
    write_json(folder / "modules.json", [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ])  # fmt: skip
    for path in paths:
        make_directory(folder / path)
    return [folder / path for path in paths]


def write_length(folder: Path, encoder: TransformerEncoder) -> None:
    """How long texts may be, and whether they are put into lower case."""
    said = {"max_seq_length": encoder.spec.max_tokens, "do_lower_case": encoder.lowercase}
    write_json(folder / "sentence_bert_config.json", said)


def write_prompts(folder: Path, query: str, document: str, **more: object) -> None:
    """The prompts of both roles, in the file that says so, and what `more` it shall say."""
    said = {"prompts": {"query": query, "document": document}, "default_prompt_name": None, **more}
    write_json(folder / "config_sentence_transformers.json", said)


def save_model(model: Any, folder: Path, more: Mapping[str, torch.Tensor] | None = None) -> None:
    """Weights, `more` of them, and configuration, without a pooler: none of ours is used, and where a base has none it
    is random.
    """
    weights = {key: tensor for key, tensor in model.state_dict().items() if "pooler" not in key.split(".")}
    weights |= more or {}
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        model.save_pretrained(folder, state_dict=weights)
    finally:
        if bars:
            transformers.logging.enable_progress_bar()


def save_adapters(model: Any, folder: Path, base: str) -> None:
    """The adapters in a model, as peft has them beside the checkpoint `base`: a name of the hub, or a directory."""
    from peft import get_peft_model_state_dict

    (config,) = model.peft_config.values()
    config.base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else base
    config.task_type, config.inference_mode = "FEATURE_EXTRACTION", True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)
    held = get_peft_model_state_dict(model)
    prefix = "base_model.model."
    tensors = {prefix + name.removeprefix(prefix): each.detach().cpu().contiguous() for name, each in held.items()}
    save_file(tensors, folder / "adapter_model.safetensors")


def save_layer(layer: DenseLayer, folder: Path) -> None:
    """A dense layer as sentence-transformers and PyLate have it."""
    linear, activation = layer.linear, layer.activation
    config = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": f"{type(activation).__module__}.{type(activation).__name__}",
        **({"use_residual": True} if layer.residual else {}),
    }
    write_json(folder / "config.json", config)
    names = {"bypass.weight": "residual.weight"}
    tensors = {names.get(key, key): tensor.contiguous() for key, tensor in layer.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")


def end_texts(tokenizer: Any, end: int | None) -> None:
    """Let a tokenizer put the token `end` after texts itself; None leaves it as it is.

    `InputError` for a slow tokenizer, which cannot be told to.
    """
    if end is None:
        return
    if not tokenizer.is_fast:
        raise InputError("the base appends a token to texts, and its slow tokenizer cannot be told to: eos=false")
    from tokenizers.processors import Sequence, TemplateProcessing

    token = tokenizer.convert_ids_to_tokens(end)
    inner = tokenizer.backend_tokenizer
    last = TemplateProcessing(single=f"$A:0 {token}:0", pair=f"$A:0 $B:1 {token}:1", special_tokens=[(token, end)])
    inner.post_processor = Sequence([inner.post_processor, last]) if inner.post_processor else last
