"""`hf:CHECKPOINT` and `offline:NAME`: a model through transformers, run by the class its architecture asks for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from ...checkpoints.devices import TextPrecision, resolve_dtype
from ...checkpoints.lora import find_base, find_tokenizer
from ...checkpoints.offline.packages import DECODERS, make_checkpoint
from ...checkpoints.options import Loading
from ...checkpoints.packed import pack_decoder
from ...checkpoints.smoothing import read_sample
from ...checkpoints.source import PROCESSOR_FILES, Source
from ...errors import InputError, check_known
from .base import Judge

Task = Literal["auto", "causal", "seq2seq", "classify", "vision"]

# By task: transformers' class, and ours.
CLASSES = {
    "causal": ("AutoModelForCausalLM", "causal:CausalJudge"),
    "seq2seq": ("AutoModelForSeq2SeqLM", "seq2seq:Seq2SeqJudge"),
    "classify": ("AutoModelForSequenceClassification", "classifier:ClassifierJudge"),
    "vision": ("AutoModelForImageTextToText", "vision:VisionJudge"),
}


def open_hf(
    checkpoint: str,
    *,
    loading: Loading,
    dtype: TextPrecision = "auto",
    passage_tokens: int = 384,
    task: Task = "auto",
    adapter: str | None = None,
    base: str | None = None,
    max_pixels: int | None = None,
) -> Judge:
    """Load from the hub or a directory, safetensors only; passages are cut to `passage_tokens`.

    `task` says what the model is run as, by default what its configuration says: `causal`, `seq2seq`, `classify`
    (cross-encoders, RankLLaMA) or `vision` (shows pictures of at most `max_pixels`, width times height). A
    checkpoint that is an adapter of peft is merged into its base model, or into `base` (a path, where the name it
    recorded is of no use here); `adapter` names one to be merged into the checkpoint. In int8 (causal models on CPUs;
    `checkpoints.packed`) what is between the linear layers is in the dtype that `auto` is. `InputError` in one line
    where anything is missing or does not fit.
    """
    import torch
    import transformers

    quantised = resolve_dtype(dtype, loading.where) == torch.int8
    precision = resolve_dtype("auto" if quantised else dtype, loading.where)
    found, source = find_base(loading.find_source(checkpoint), adapter, base)
    config = source.load_config()
    kind = ((found and found.task) or find_task(config, source)) if task == "auto" else task
    if max_pixels is not None and kind != "vision":
        raise InputError(f"{checkpoint} sees no pictures (it is run as {kind}): leave max_pixels out")
    if quantised and kind != "causal":
        raise InputError(f"{checkpoint}: dtype=int8 is for causal language models, not {kind}; leave dtype out")
    if found and found.labels and kind == "classify":
        config.num_labels = found.labels
    held = found.keys if found else frozenset()
    auto, reference = CLASSES[kind]
    model = source.load_model(getattr(transformers, auto), lambda key: key in held, config=config, dtype=precision)
    known = source.identify_weights(model.config)
    name = f"hf:{checkpoint}+{adapter}" if adapter else f"hf:{checkpoint}"
    if found:
        model, known = found.merge_into(model), f"{known}+{found.revision}"
    limits: dict[str, Any] = {"passage_tokens": passage_tokens, "device": loading.where}
    if kind == "vision":
        reader = source.load(transformers.AutoProcessor)
        limits |= {} if max_pixels is None else {"max_pixels": max_pixels}
    else:
        reader = find_tokenizer(found, source).load_tokenizer()
        if found and len(reader) > (rows := model.get_input_embeddings().num_embeddings):
            raise InputError(
                f"{checkpoint}: its tokenizer has {len(reader)} tokens, and the model embeddings for {rows}; merge the "
                f"adapter into its base model first"
            )
    if quantised:
        pack_decoder(model.base_model, model.get_output_embeddings(), checkpoint, read_sample(reader))
        limits["quantised"] = "int8 smooth, in groups"  # journals may hold answers of int8 without
    module, _, judge = reference.partition(":")
    opened: Judge = getattr(import_module(f".{module}", __package__), judge)(model, reader, name, known, **limits)
    return opened


def open_offline(
    checkpoint: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    dtype: TextPrecision = "auto",
    passage_tokens: int = 384,
) -> Judge:
    """A language model that packages carry (`gemma`, `qwen-1.5b`, ...), converted once; see `checkpoints/offline`.

    `InputError` listing the offline judges for an unknown one, or naming the package if it is missing.
    """
    check_known(checkpoint, DECODERS, "offline judge")
    where, loading = str(make_checkpoint(checkpoint)), Loading(device=device)
    judge = open_hf(where, loading=loading, dtype=dtype, passage_tokens=passage_tokens, task="causal")
    judge.name = f"offline:{checkpoint}"
    return judge


def find_task(config: Any, source: Source) -> str:
    """What the configuration says that the model is."""
    from transformers.models.auto import modeling_auto

    names = tuple(config.architectures or ())
    if any(name.endswith("ForSequenceClassification") for name in names):
        return "classify"
    unknown = not names or any(name.endswith("ForConditionalGeneration") for name in names)
    if unknown and type(config) in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return "seq2seq"
    sees = not config.is_encoder_decoder and type(config) in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if sees and source.find(*PROCESSOR_FILES):
        return "vision"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names) or (
        unknown and type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    ):
        return "causal"
    if sees:
        source.require(PROCESSOR_FILES, "processor")
    what = " and ".join(names) or f"a model of type {config.model_type}"
    raise InputError(
        f"{source} is {what}, which answers no questions; take a language model, a cross-encoder or a "
        f"vision-language model, or choose task= causal, seq2seq, classify or vision"
    )
