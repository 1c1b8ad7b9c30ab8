"""`late:` late interaction: page images read by ColPali and its kin, or text by ColBERT's (`encoders.late`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
import transformers

from ..checkpoints.devices import name_dtype, resolve_dtype
from ..checkpoints.options import Limits, Loading
from ..checkpoints.source import PROCESSOR_FILES
from ..encoders.base import Encoder, EncoderSpec
from ..encoders.batching import encode_windows
from ..encoders.late import LateEncoder, LateOptions
from ..encoders.pooling import finish, name_pooling, pool_tokens
from ..errors import InputError, check_at_least
from ..items import Item, Multi, Role
from ..media.images import MAX_PIXELS
from .towers import BUDGET, CHARACTERS_PER_TOKEN, PATCH, map_in_threads, open_picture, weigh_pictures

# The model types of transformers whose `forward` gives `embeddings` [n, tokens, dim] of text and of pages.
MODELS = ("colpali", "colqwen2", "colmodernvbert")
WINDOW = 256  # items a window; fewer pages, which lie in memory as pixels
MAX_TOKENS = 512  # of a text; queries are short

Inputs = Mapping[str, torch.Tensor]  # of one text or page, each with a first dimension of 1


def open_late(checkpoint: str, *, loading: Loading, limits: Limits, options: LateOptions) -> Encoder:
    """A checkpoint of ColPali's kind as `PageEncoder`, any other as `LateEncoder`; safetensors only.

    `InputError` for an option that the kind of model does not have, or a value beyond what the checkpoint has.
    """
    config = loading.find_source(checkpoint).load_config()
    if config.model_type in MODELS:
        if options.query_tokens is not None:
            raise InputError(f"{checkpoint} does not fill queries up: query_tokens is for ColBERT's kind")
        return PageEncoder.from_checkpoint(checkpoint, loading=loading, limits=limits, options=options)
    return LateEncoder.from_checkpoint(checkpoint, loading=loading, limits=limits, options=options)


@dataclass(eq=False, kw_only=True)
class PageEncoder:
    """A ColPali-style retriever (Faysse et al. 2024): page images and text queries, one unit vector [dim] a token.

    A vector a patch of the page and a word of the query; scored by MaxSim. Queries and pages are worded by the
    checkpoint's own processor. A document's text is worded as a query without the augmentation tokens (the models are
    trained on pages alone); an item with text and an image has the vectors of both, so that each word of a query finds
    the better of the two. `spec.max_pixels` bounds images before the processor, and bounds what a processor of
    Qwen-VL's kind makes of them. Known-good: `vidore/colpali-v1.3-hf`, `vidore/colqwen2-v1.0-hf`,
    `ModernVBERT/colmodernvbert-merged`.
    """

    model: Any
    processor: Any
    spec: EncoderSpec
    device: torch.device
    pool: int = 1

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device).eval()
        self._padding = self.processor.tokenizer.pad_token_id or 0
        self._frame = len(self.processor.process_queries(text=[""])["input_ids"][0])

    @classmethod
    def from_checkpoint(cls, checkpoint: str, *, loading: Loading, limits: Limits, options: LateOptions) -> PageEncoder:
        """As `open_late`; `max_pixels` is by default the processor's own limit, if it has one.

        `max_tokens` bounds texts, the frame of a query included. `InputError` if the checkpoint lacks weights or a
        processor of pages.
        """
        check_at_least(1, checkpoint, pool=options.pool, max_pixels=options.max_pixels)
        where, source = loading.where, loading.find_source(checkpoint)
        precision = resolve_dtype(options.dtype, where)
        source.require(PROCESSOR_FILES, "processor", " that takes images of pages")
        processor = source.load(transformers.AutoProcessor)
        if getattr(processor, "image_processor", None) is None or not hasattr(processor, "process_images"):
            raise InputError(f"{checkpoint}: its processor ({type(processor).__name__}) lacks images")
        # transformers has no Auto class for retrieval; its mapping for pretraining holds these models.
        auto = transformers.AutoModelForPreTraining
        model = source.load_model(auto, lambda key: "lm_head" in key, dtype=precision)
        pixels = _limit_pixels(checkpoint, processor.image_processor, options.max_pixels)
        longest = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or MAX_TOKENS)
        frame = processor.process_queries(text=[""])["input_ids"][0]
        spec = EncoderSpec(
            name=f"late:{checkpoint}",
            revision=source.identify_weights(model.config),
            modalities=("text", "image"),
            dim=limits.limit_dim(checkpoint, int(model.config.embedding_dim)),
            kind="multi",
            pooling=name_pooling(options.pool),
            query_prompt=processor.query_prefix,
            document_prompt=processor.visual_prompt_prefix,
            special_tokens=processor.tokenizer.decode(frame),
            max_tokens=limits.limit_tokens(checkpoint, longest, least=len(frame) + 1, usual=min(longest, MAX_TOKENS)),
            max_pixels=pixels,
            extra={"model": model.config.model_type, "processor": type(processor).__name__},
            dtype=name_dtype(precision),
        )
        return cls(model=model, processor=processor, spec=spec, device=where, pool=options.pool)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
        """One `Multi` of float32 [tokens, dim] an item for each window of items."""

        def prepare(group: Sequence[Item]) -> list[list[Inputs]]:
            pictured = [item for item in group if item.image is not None]
            pages = map_in_threads(lambda item: self.page(open_picture(item, self.spec.max_pixels)), pictured)
            inputs = []
            for item in group:
                words = [self.word(item.text or "", role)] if "text" in item.modalities else []
                inputs.append(words if item.image is None else [*words, next(pages)])
            return inputs

        def forward(batch: Sequence[list[Inputs]]) -> list[np.ndarray]:
            found = iter(self._forward([part for parts in batch for part in parts]))
            joined = [np.concatenate([next(found) for _ in parts]) for parts in batch]
            return joined if role == "query" else [pool_tokens(each, self.pool, protected=0) for each in joined]

        return encode_windows(
            items,
            self.spec,
            prepare=prepare,
            cost=lambda parts: sum(map(_estimate_cost, parts)),
            forward=forward,
            budget=BUDGET[self.device.type],
            window=WINDOW,
            # A pixel is three numbers, and Qwen-VL's processors hold each twice.
            weight=weigh_pictures(6 * self.model.dtype.itemsize * self.spec.max_pixels, WINDOW),
        )

    def page(self, image: PIL.Image.Image) -> Inputs:
        """What the model sees of an RGB image: token ids, patches."""
        return self._take(self.processor.process_images(images=[image]))

    def word(self, text: str, role: Role) -> Inputs:
        """What the model sees of a text, as far as it fits."""
        suffix = {} if role == "query" else {"suffix": ""}
        return self._take(self.processor.process_queries(text=[self._cut(text)], **suffix))

    def _take(self, made: Mapping[str, torch.Tensor]) -> Inputs:
        """What a processor made, in the model's dtype and without labels for training."""
        kept = {key: value for key, value in made.items() if key != "labels"}
        return {key: each.to(self.model.dtype) if each.is_floating_point() else each for key, each in kept.items()}

    def _cut(self, text: str) -> str:
        """The text as far as it fits, without the token that stands for a picture."""
        room = self.spec.max_tokens - self._frame
        text = text.replace(self.processor.image_token, " ")[: max(4096, room * CHARACTERS_PER_TOKEN)]
        spans = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        return text if len(spans) <= room else text[: spans[room][0]]

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Inputs]) -> np.ndarray:
        found = np.empty(len(batch), object)
        # Texts and pages go separately: they have different inputs.
        for seen in (False, True):
            if rows := [row for row, each in enumerate(batch) if ("pixel_values" in each) == seen]:
                inputs = {key: self._pad(key, [batch[row][key] for row in rows]) for key in batch[rows[0]]}
                vectors = finish(self.model(**inputs).embeddings.float(), self.spec.dim, True).cpu().numpy()
                for row, each in zip(rows, vectors, strict=True):
                    found[row] = each[: batch[row]["input_ids"].shape[1]]
        return found

    def _pad(self, key: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """One input of the model for the whole batch, padded on the right, where it changes no other token."""
        filling = self._padding if key == "input_ids" else 0
        return torch.nn.utils.rnn.pad_sequence([part[0] for part in parts], True, filling).to(self.device)


def _estimate_cost(inputs: Inputs) -> int:
    """Tokens, and what the pixels of a page cost the vision tower, in tokens."""
    pixels = inputs["pixel_values"].numel() // 3 if "pixel_values" in inputs else 0
    return inputs["input_ids"].shape[1] + pixels // PATCH


def _limit_pixels(checkpoint: str, images: Any, max_pixels: int | None) -> int:
    """The limit on a page's pixels, the processor set to it where it scales pages by such a limit itself."""
    size = dict(getattr(images, "size", None) or {})
    if "longest_edge" not in size or "shortest_edge" not in size or not hasattr(images, "merge_size"):
        return max_pixels or MAX_PIXELS
    # Qwen-VL's processors misname them: both are pixels of the area.
    pixels = max_pixels or int(size["longest_edge"])
    least = (images.patch_size * images.merge_size) ** 2
    if pixels < least:
        raise InputError(f"{checkpoint}: max_pixels must be at least {least}, one token, not {pixels}")
    images.size = {"longest_edge": pixels, "shortest_edge": min(int(size["shortest_edge"]), pixels)}
    return pixels
