"""`late:` over page images: ColPali and its kin (Faysse et al. 2024), a vector a patch of the page and a word of the query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
import transformers

from ..checkpoints.devices import resolve_device, resolve_dtype
from ..checkpoints.sentence_files import fetch
from ..checkpoints.weights import complete
from ..encoders.base import EncoderSpec, Precision
from ..encoders.late import pooling_name, stream
from ..encoders.transformer import loaded, weights_hash
from ..errors import InputError
from ..items import Item, Multi, Role
from ..media.images import MAX_PIXELS, check_max_pixels
from .formats import PROCESSOR_FILES
from .towers import BUDGET, PATCH, in_threads, opened, picture_weight

# The model types of transformers whose `forward` gives `embeddings` [n, tokens, dim] of text and of pages.
MODELS = ("colpali", "colqwen2", "colmodernvbert")
WINDOW = 256  # items a window; fewer pages, which lie in memory as pixels
MAX_TOKENS = 512  # of a text; queries are short
CHARACTERS_PER_TOKEN = 64  # no tokenizer makes fewer tokens of more characters

Inputs = Mapping[str, torch.Tensor]  # of one text or page, each with a first dimension of 1


class PageEncoder:
    """A ColPali-style retriever: page images and text queries, one unit vector [dim] a token; scored by MaxSim.

    Queries and pages are worded by the checkpoint's own processor. A document's text is worded as a query without the
    augmentation tokens (the models are trained on pages alone); an item with text and an image has the vectors of
    both, so that each word of a query finds the better of the two. `spec.max_pixels` bounds images before the
    processor, and bounds what a processor of Qwen-VL's kind makes of them. Known-good: `vidore/colpali-v1.3-hf`,
    `vidore/colqwen2-v1.0-hf`, `ModernVBERT/colmodernvbert-merged`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        processor: Any,
        spec: EncoderSpec,
        *,
        device: torch.device,
        pool: int = 1,
    ) -> None:
        self.model: Any = model.to(device).eval()
        self.processor = processor
        self.spec = spec
        self.device = device
        self.pool = pool
        self._padding = processor.tokenizer.pad_token_id or 0
        self._frame = self._worded("", "query")["input_ids"].shape[1]

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        pool: int = 1,
        max_tokens: int | None = None,
        max_pixels: int | None = None,
        dim: int | None = None,
        dtype: Precision = "auto",
        revision: str | None = None,
    ) -> PageEncoder:
        """As `encoders.late.Late.from_checkpoint`; `max_pixels` is by default the processor's own limit, if it has one.

        `max_tokens` bounds texts, the frame of a query included. `InputError` if the checkpoint lacks weights or a
        processor of pages.
        """
        check_max_pixels(max_pixels)
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        if not any(fetch(checkpoint, name, revision) for name in PROCESSOR_FILES):
            raise InputError(
                f"{checkpoint} has no processor (none of {', '.join(PROCESSOR_FILES)}) that takes images of pages"
            )
        processor = loaded(transformers.AutoProcessor, checkpoint, **source)
        if getattr(processor, "image_processor", None) is None or not hasattr(processor, "process_images"):
            raise InputError(f"{checkpoint}: its processor ({type(processor).__name__}) lacks images")
        # transformers has no Auto class for retrieval; its mapping for pretraining holds these models.
        model = complete(
            transformers.AutoModelForPreTraining,
            checkpoint,
            revision,
            lambda key: "lm_head" in key,
            dtype=precision,
            trust_remote_code=trust_remote_code,
        )
        width = int(model.config.embedding_dim)
        if dim is not None and not 1 <= dim <= width:
            raise InputError(f"{checkpoint}: dim must be in 1..{width}, not {dim}")
        pixels = _limited(checkpoint, processor.image_processor, max_pixels)
        text = model.config.get_text_config()
        longest = int(getattr(text, "max_position_embeddings", None) or MAX_TOKENS)
        frame = processor.process_queries(text=[""])["input_ids"]
        if max_tokens is not None and not frame.shape[1] < max_tokens <= longest:
            raise InputError(
                f"{checkpoint}: max_tokens must be in {frame.shape[1] + 1}..{longest}, not {max_tokens}"
            )
        spec = EncoderSpec(
            name=f"late:{checkpoint}",
            revision=getattr(model.config, "_commit_hash", None) or weights_hash(checkpoint),
            modalities=("text", "image"),
            dim=dim or width,
            kind="multi",
            pooling=pooling_name(pool),
            query_prompt=processor.query_prefix,
            document_prompt=processor.visual_prompt_prefix,
            special_tokens=processor.tokenizer.decode(frame[0]),
            max_tokens=max_tokens or min(longest, MAX_TOKENS),
            max_pixels=pixels,
            extra={"model": model.config.model_type, "processor": type(processor).__name__},
            dtype=str(precision).removeprefix("torch."),
        )
        return cls(model, processor, spec, device=where, pool=pool)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
        """One `Multi` of float32 [tokens, dim] an item for each window of items."""

        def prepare(group: Sequence[Item]) -> list[list[Inputs]]:
            pictured = [item for item in group if item.image is not None]
            pages = in_threads(self._page, pictured, len(pictured))
            made: list[list[Inputs]] = []
            for item in group:
                held: list[Inputs] = []
                if "text" in item.modalities:
                    held.append(self._worded(self._cut(item.text or ""), role))
                if item.image is not None:
                    held.append(next(pages))
                made.append(held)
            return made

        return stream(
            items,
            self.spec,
            prepare=prepare,
            cost=_cost,
            forward=self._forward,
            budget=BUDGET[self.device.type],
            pool=self.pool if role == "document" else 1,
            protected=0,
            window=WINDOW,
            # A pixel is three numbers, and Qwen-VL's processors hold each twice.
            weight=picture_weight(6 * self.model.dtype.itemsize * self.spec.max_pixels, WINDOW),
        )

    def page(self, image: PIL.Image.Image) -> Inputs:
        """What the model sees of an RGB image: token ids, patches."""
        return _plain(self.processor.process_images(images=[image]))

    def _page(self, item: Item) -> Inputs:
        made = self.page(opened(item, self.spec.max_pixels))
        return {k: v.to(self.model.dtype) if v.is_floating_point() else v for k, v in made.items()}

    def _worded(self, text: str, role: Role) -> Inputs:
        suffix = {} if role == "query" else {"suffix": ""}
        return _plain(self.processor.process_queries(text=[text], **suffix))

    def _cut(self, text: str) -> str:
        """The text as far as it fits, without the token that stands for a picture."""
        room = self.spec.max_tokens - self._frame
        text = text.replace(self.processor.image_token, " ")[: max(4096, room * CHARACTERS_PER_TOKEN)]
        spans = self.processor.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        return text if len(spans) <= room else text[: spans[room][0]]

    def _forward(self, batch: Sequence[Inputs]) -> np.ndarray:
        found = np.empty(len(batch), object)
        # Texts and pages go separately: they have different inputs.
        for seen in (False, True):
            if rows := [row for row, each in enumerate(batch) if ("pixel_values" in each) == seen]:
                found[rows] = self._embedded([batch[row] for row in rows])
        return found

    @torch.inference_mode()
    def _embedded(self, batch: Sequence[Inputs]) -> np.ndarray:
        inputs = {key: self._together(key, [each[key] for each in batch]) for key in batch[0]}
        embeddings = self.model(**inputs).embeddings.float()
        vectors = torch.nn.functional.normalize(embeddings[..., : self.spec.dim], dim=-1).cpu().numpy()
        found = np.empty(len(batch), object)
        for row, each in enumerate(batch):
            found[row] = vectors[row, : each["input_ids"].shape[1]]
        return found

    def _together(self, key: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """One input of the model for the whole batch, padded on the right, where it changes no other token."""
        longest = max(part.shape[1] for part in parts)
        filling = self._padding if key == "input_ids" else 0
        padded = [
            torch.cat([part, part.new_full((1, longest - part.shape[1], *part.shape[2:]), filling)], dim=1)
            for part in parts
        ]
        whole = torch.cat(padded).to(self.device)
        return whole.to(self.model.dtype) if whole.is_floating_point() else whole


def _cost(inputs: Inputs) -> int:
    """Tokens, and what the pixels of a page cost the vision tower, in tokens."""
    pixels = inputs["pixel_values"].numel() // 3 if "pixel_values" in inputs else 0
    return inputs["input_ids"].shape[1] + pixels // PATCH


def _plain(made: Mapping[str, torch.Tensor]) -> Inputs:
    return {key: value for key, value in made.items() if key != "labels"}


def _limited(checkpoint: str, images: Any, max_pixels: int | None) -> int:
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
