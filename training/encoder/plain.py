"""What ColBERT puts on a plain encoder: the beginning of late interaction that was never trained."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch

from ...checkpoints.open import OpenModel, open_text_model
from ...checkpoints.sentence_files import DenseLayer
from ...encoders.late import PYLATE_TOKENS, LateEncoder, LateSettings, read_late_settings
from ...errors import InputError, check_at_least
from ...multimodal.pages import MODELS, open_late
from ...specs import Spec, bind_options

DIM = 128  # components of a vector, as ColBERT, ColBERT-X and PyLate have
SPARE = re.compile(r"[\[<]unused_?\d+[\]>]")  # tokens that vocabularies have for those who train


def start_late(spec: Spec, seed: int, **how: object) -> LateEncoder | None:
    """A late-interaction encoder of a plain checkpoint; None where the checkpoint is of the family already.

    The projection is random, by the seed: the encoder is of no use until it is trained. The SPEC's `dim` is the
    projection's width (128), `query_tokens` and `max_tokens` are the lengths (32, 180); `how` is as of `load_encoder`.
    """
    given: dict[str, Any] = bind_options(spec, open_late, **how)
    source, limits, options = given["loading"].find_source(spec.checkpoint), given["limits"], given["options"]
    config = source.load_config()
    if config.model_type in MODELS or read_late_settings(source) is not None:
        return None
    if not hasattr(config, "hidden_size"):
        raise InputError(f"{spec} cannot be trained: a {config.model_type} is no encoder of text")
    dim = DIM if limits.dim is None else limits.dim
    check_at_least(1, spec.checkpoint, dim=dim)
    opened = open_text_model(source, options.dtype, given["loading"].where)
    settings = plan_late(opened, dim, seed)
    return LateEncoder.from_settings(
        spec.checkpoint, opened, settings, limits=replace(limits, dim=None), options=options
    )


def plan_late(opened: OpenModel, dim: int, seed: int) -> LateSettings:
    """A random projection to `dim` components, and markers where the vocabulary has tokens to spare.

    Queries are filled up with the mask, and punctuation of documents is skipped, as in ColBERT.
    """
    config, vocabulary = opened.config, opened.tokenizer.get_vocab()
    random = torch.Generator().manual_seed(seed)
    scale = getattr(config, "initializer_range", None) or 0.02
    weight = torch.randn(dim, config.hidden_size, generator=random) * scale
    rows = opened.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    spare = sorted((id, token) for token, id in vocabulary.items() if SPARE.fullmatch(token) and id < rows)
    markers = [token for _, token in spare[:2]] if len(spare) > 1 else ["", ""]
    return LateSettings(
        layers=(DenseLayer({"linear.weight": weight}, torch.nn.Identity()),),
        query_marker=markers[0],
        document_marker=markers[1],
        max_tokens=PYLATE_TOKENS,
    )
