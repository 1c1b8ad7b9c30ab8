"""`vlm:` vision-language models as retrievers: text, a picture, or both in one input, and one vector of it.

DSE (Ma et al. 2024): `vlm:MrLight/dse-qwen2-2b-mrl-v1`; mcDSE: `vlm:marco/mcdse-2b-v1`; GME (Zhang et al. 2024):
`vlm:Alibaba-NLP/gme-Qwen2-VL-2B-Instruct`; `vlm:Qwen/Qwen3-VL-Embedding-2B` (Li et al. 2026); OmniEmbed (Zhuang et
al. 2025), an adapter: `vlm:Tevatron/OmniEmbed-v0.1?processor=Qwen/Qwen2.5-Omni-7B`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import jinja2
import numpy as np
import PIL.Image
import torch
import transformers
from transformers.models.auto import modeling_auto

from ..checkpoints.devices import Precision, name_dtype, resolve_dtype
from ..checkpoints.lora import find_base
from ..checkpoints.options import Limits, Loading
from ..checkpoints.source import PROCESSOR_FILES, TOKENIZER_FILES, Source, locate_tokens
from ..encoders.base import EncoderSpec
from ..encoders.batching import encode_windows
from ..encoders.pooling import finish, pool
from ..errors import InputError, check_at_least, first_line
from ..items import Dense, Item, Role
from .formats import InputFormat, Name, find_format
from .towers import BUDGET, CHARACTERS_PER_TOKEN, PATCH, map_in_threads, open_picture, weigh_pictures

WINDOW = 512  # items a window; fewer pictures, which are held decoded


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """An item as the processor takes it: its text in the template, its picture decoded, and what that costs."""

    text: str
    picture: PIL.Image.Image | None
    cost: int


@dataclass(eq=False)
class VisionLanguageEncoder:
    """A vision-language model with last-token pooling; one float32 vector [dim] of length 1 an item.

    An item with text and a picture is one input, so that the model itself fuses them. Pictures are decoded within
    limits and scaled down to `spec.max_pixels` (width times height) by us; the model's processor is set to enlarge
    none beyond that. Texts are cut so that the input has `spec.max_tokens`, which counts the picture's tokens too.
    Batches keep within one budget of tokens and pixels.
    """

    model: Any
    processor: Any
    format: InputFormat
    instruction: str
    name: str
    max_pixels: int
    device: torch.device
    truncate: bool = True
    padding_side: ClassVar[Literal["left", "right"]] = "right"
    spec: EncoderSpec = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.model.to(self.device).eval().requires_grad_(False)
        self.tokenizer = self.processor.tokenizer
        self.instruction = self.format.instruction(self.instruction)
        self.budget = BUDGET[self.device.type]
        kinds = ("image_token", "video_token", "audio_token")
        self._placeholders = [token for kind in kinds if isinstance(token := getattr(self.processor, kind, 0), str)]
        self._frame = lru_cache(maxsize=64)(self._render)
        # The token that the tokenizer puts before every text, which templates write as well.
        begun = self.tokenizer("x")["input_ids"][0] == self.tokenizer.bos_token_id
        self._bos = str(self.tokenizer.bos_token) if begun else ""
        self.size = _choose_size(self.processor.image_processor, self.format.min_pixels, self.max_pixels)
        self._largest = self._measure_largest()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        loading: Loading,
        limits: Limits,
        format: Name = "auto",
        instruct: str | None = None,
        truncate: bool = True,
        max_pixels: int | None = None,
        dtype: Precision = "auto",
        adapter: str | None = None,
        base: str | None = None,
        processor: str | None = None,
    ) -> VisionLanguageEncoder:
        """Load from the hub or a directory, safetensors only.

        `format` is the family that the checkpoint is worded as, by default the one that its name shows. `instruct`
        says what a query looks for. A checkpoint that is an adapter of peft is merged into its base model, or into
        `base`; `adapter` is merged into the checkpoint. `processor` names a checkpoint that has one, where this has
        none. With `truncate=false` an item longer than `max_tokens` is an error. `InputError` in one line where
        anything is missing, does not fit or is out of range.
        """
        known = find_format(checkpoint, adapter, format)
        pixels = known.max_pixels if max_pixels is None else max_pixels
        check_at_least(1, max_pixels=pixels)
        name, where = f"vlm:{checkpoint}", loading.where
        precision = resolve_dtype(dtype, where)
        model, found_processor, revision = _open(loading.find_source(checkpoint), adapter, base, processor, precision)
        text_config: Any = model.config.get_text_config()
        longest = int(getattr(text_config, "max_position_embeddings", 0) or known.max_tokens)
        dim = limits.limit_dim(checkpoint, int(text_config.hidden_size))
        max_tokens = limits.limit_tokens(checkpoint, longest, least=8, usual=min(known.max_tokens, longest))
        encoder = cls(
            model=model, processor=found_processor, format=known, instruction=instruct or "", name=name,
            max_pixels=pixels, device=where, truncate=truncate,
        )  # fmt: skip
        encoder.spec = EncoderSpec(
            name=name,
            revision=revision,
            modalities=("text", "image"),
            dim=dim,
            pooling="last",
            query_prompt=encoder.write_prompt("query", "{}", False),
            document_prompt=encoder.write_prompt("document", "{}", False),
            special_tokens=encoder.tokenizer.decode(encoder.tokenizer("")["input_ids"]),
            max_tokens=max_tokens,
            max_pixels=pixels,
            extra={
                "picture": encoder.write_prompt("document", "", True),
                "fused": encoder.write_prompt("query", "{}", True),
                "blank": known.blank,
                "size": encoder.size,
            },
            dtype=name_dtype(precision),
        )
        return encoder

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items; text beyond `max_tokens` is cut off.

        `InputError` naming an item whose picture does not open or does not fit.
        """
        return encode_windows(
            items,
            self.spec,
            prepare=lambda group: self.prepare(group, role),
            cost=lambda item: item.cost,
            forward=self._forward,
            budget=self.budget,
            window=WINDOW,
            weight=weigh_pictures(3 * self.spec.max_pixels, WINDOW),
            collate=self._collate,
        )

    def write_prompt(self, role: Role, text: str, pictured: bool) -> str:
        """What the processor is given: the chat template around the text and the picture's place."""
        before, after = self._frame(role, bool(text), pictured or self.format.blank > 0)
        return f"{before}{self._clean(text)}{after}"

    def prepare(self, items: Sequence[Item], role: Role) -> list[PreparedItem]:
        """Items as the processor takes them, pictures opened by threads, texts cut."""
        pictured = [item for item in items if item.image is not None]
        pictures = map_in_threads(lambda item: open_picture(item, self.spec.max_pixels), pictured)
        seen = [None if item.image is None else self._squash(next(pictures)) for item in items]
        longest = CHARACTERS_PER_TOKEN * self.spec.max_tokens
        texts = [(item.text or "")[:longest] if "text" in item.modalities else "" for item in items]
        wholes = [self.write_prompt(role, text, image is not None) for text, image in zip(texts, seen, strict=True)]
        counts = [len(ids) for ids in self._ids(wholes)]
        made = []
        for item, text, image, whole, count in zip(items, texts, seen, wholes, counts, strict=True):
            if image is None and self.format.blank:
                image = PIL.Image.new("RGB", (self.format.blank, self.format.blank))
            more, pixels = self.picture_cost(image.size) if image else (0, 0)
            # Once, nearly always: what is left may split into other and more tokens.
            while (over := count + more - self.spec.max_tokens) > 0:
                if not self.truncate:
                    raise self._too_long(item, count + more)
                text = self._cut(text, over, item)
                whole = self.write_prompt(role, text, "image" in item.modalities)
                count = len(self._ids([whole])[0])
            made.append(PreparedItem(whole, image, count + more + pixels // PATCH))
        return made

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        return locate_tokens(self.tokenizer, texts, self.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the format's words (`encoders.base.Tokenizes`)."""
        frame = "".join(self._frame(role, True, self.format.blank > 0))
        blank = self.picture_cost((self.format.blank, self.format.blank))[0] if self.format.blank else 0
        return self.spec.max_tokens - len(self._ids([frame])[0]) - blank

    def picture_cost(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tokens beyond the one that stands for it in the text, and pixels, that a picture of this size becomes.

        Exact for processors of Qwen-VL's kind, of which the size decides; for others, that of the largest picture.
        """
        images = self.processor.image_processor
        if self.size is None or "shortest_edge" not in self.size:
            return self._largest
        limits = {"min_pixels": self.size["shortest_edge"], "max_pixels": self.size["longest_edge"]}
        patches = images.get_number_of_image_patches(size[1], size[0], limits)
        return patches // images.merge_size**2 - 1, patches * images.patch_size**2

    def inputs(self, prepared: Sequence[PreparedItem]) -> dict[str, torch.Tensor]:
        """What the model takes for items that all have pictures or all have none, padded, on its device."""
        given: dict[str, Any] = {}
        if prepared[0].picture is not None:
            given["images"] = [[each.picture] for each in prepared]
            if self.size:
                given["size"] = self.size
        texts = [each.text.removeprefix(self._bos) for each in prepared]
        made = self.processor(text=texts, padding=True, padding_side=self.padding_side, return_tensors="pt", **given)
        return {
            key: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for key, value in made.items()
        }

    def _collate(self, batch: Sequence[PreparedItem]) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
        """The inputs of those with pictures and of those without, each with their places in the batch."""
        sides = ([row for row, each in enumerate(batch) if (each.picture is None) == blind] for blind in (False, True))
        return [(rows, self.inputs([batch[row] for row in rows])) for rows in sides if rows]

    @torch.inference_mode()
    def _forward(self, parts: Sequence[tuple[list[int], dict[str, torch.Tensor]]]) -> np.ndarray:
        vectors = np.empty((sum(len(rows) for rows, _ in parts), self.spec.dim), np.float32)
        for rows, inputs in parts:
            vectors[rows] = self.embed(inputs).cpu().numpy()
        return vectors

    def embed(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Unit vectors float32 [n, dim] of what `inputs` made, on the device; gradients flow through it."""
        states = self.model(**inputs, use_cache=False).last_hidden_state
        return finish(pool(states, inputs["attention_mask"], "last"), self.spec.dim, True)

    def _render(self, role: Role, texted: bool, placed: bool) -> tuple[str, str]:
        """What stands before and after a text; `placed` says whether there is a place for a picture."""
        form = self.format.query if role == "query" else self.format.document
        slot = "\u241f"  # a symbol that no template writes
        words = form.replace("{}", slot) if texted else self.format.picture
        instruction = self.instruction if role == "query" else ""
        if self.format.instruct == "text" and instruction:
            words = form.replace("{}", f"{instruction} {slot}" if texted else instruction)
        parts = [{"type": "image"}] if placed else []
        parts.insert(0 if self.format.text_first else len(parts), {"type": "text", "text": words})
        turns: list[dict[str, object]] = [{"role": "user", "content": [p for p in parts if p.get("text", 1)]}]
        system = self.format.system if self.format.instruct == "text" else instruction or self.format.system
        if system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        try:
            text = self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=self.format.opened)
        except jinja2.TemplateError as error:
            raise InputError(f"{self.name}: its chat template does not take the input ({error})") from None
        before, found, after = f"{text}{self.format.end}".partition(slot)
        if texted and not found:
            raise InputError(f"{self.name}: its chat template leaves the text out; take an embedding model's")
        return before, after

    def _clean(self, text: str) -> str:
        """Without what the processor would take for a picture."""
        for token in self._placeholders:
            text = text.replace(token, "")
        return text

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        texts = [text.removeprefix(self._bos) for text in texts]
        ids: list[list[int]] = self.tokenizer(texts, verbose=False)["input_ids"]
        return ids

    def _cut(self, text: str, over: int, item: Item) -> str:
        """The start of a text, `over` tokens shorter."""
        text = self._clean(text)
        fast = self.tokenizer.is_fast
        given = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False)
        ids = given["input_ids"]
        if (room := len(ids) - over) < 1:
            raise self._too_long(item, over + self.spec.max_tokens)
        if not fast:
            return str(self.tokenizer.decode(ids[:room]))
        # Tokens of single bytes share a character's span: one that does not fit goes as a whole.
        spans = given["offset_mapping"]
        if not (start := text[: min(spans[room - 1][1], spans[room][0])]):
            raise self._too_long(item, over + self.spec.max_tokens)
        return start

    def _squash(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """The picture, or one row of patches for one so thin that Qwen-VL's processors would enlarge it too much."""
        if self.picture_cost(picture.size)[1] <= self.max_pixels:  # always so for other processors: `_measure_largest`
            return picture
        patch = self.processor.image_processor.patch_size * self.processor.image_processor.merge_size
        long = self.max_pixels // patch**2 * patch
        return picture.resize((long, patch) if picture.width > picture.height else (patch, long))

    def _too_long(self, item: Item, tokens: int) -> InputError:
        return InputError(
            f"item {item.id!r} has {tokens} tokens with its picture and the format's words, and {self.name} reads "
            f"{self.spec.max_tokens}; raise max_tokens or lower max_pixels"
        )

    def _measure_largest(self) -> tuple[int, int]:
        """Tokens and pixels, as `picture_cost` has them, of the largest picture; `InputError` if it is enlarged."""
        side = math.isqrt(self.max_pixels)
        text = self.write_prompt("document", "", True)
        blank = PreparedItem(text, PIL.Image.new("RGB", (side, side)), 0)
        try:
            inputs = self.inputs([blank])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.name}: its processor does not take a picture: {first_line(error)}") from None
        if "pixel_values" not in inputs:
            raise InputError(f"{self.name}: its processor makes nothing of a picture; take a vision-language model")
        frames = getattr(self.processor.image_processor, "temporal_patch_size", 1)
        pixels = inputs["pixel_values"].numel() // 3 // frames
        if pixels > self.max_pixels:
            raise InputError(
                f"{self.name}: its processor enlarges pictures of {self.max_pixels:,} pixels to {pixels:,}; set "
                f"max_pixels={pixels} or more"
            )
        return inputs["input_ids"].shape[1] - len(self._ids([text])[0]), pixels


def _open(
    source: Source, adapter: str | None, base: str | None, processor: str | None, dtype: torch.dtype
) -> tuple[Any, Any, str]:
    """The model without its language head, the processor, and the revision of both model and adapter."""
    lora, under = find_base(source, adapter, base)
    if adapter and lora:
        lora.require_base(under, "vlm")
    config = under.load_config()
    other = processor and replace(source, checkpoint=processor, revision=None)
    homes = [other] if other else [lora.source, under] if lora else [under]
    home = next((each for each in homes if each.find(*PROCESSOR_FILES)), homes[-1])
    advice = "; vlm takes a vision-language model, or processor= names a checkpoint that has its processor"
    home.require(PROCESSOR_FILES, "processor", advice)
    home.require(TOKENIZER_FILES, "tokenizer")
    made = home.load(transformers.AutoProcessor)
    if getattr(made, "image_processor", None) is None or getattr(made, "tokenizer", None) is None:
        raise InputError(f"{home}: its processor ({type(made).__name__}) lacks images; vlm reads text and images")
    if not getattr(made, "chat_template", None):
        raise InputError(f"{home}: its processor has no chat template, which says where pictures go")
    whole = type(config) in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    auto = transformers.AutoModelForImageTextToText if whole else transformers.AutoModel
    held = lora.keys if lora else frozenset()
    # Embedding checkpoints may be saved without the language head, which is not used.
    model = under.load_model(auto, lambda key: key in held or key.startswith("lm_head"), config=config, dtype=dtype)
    revision = under.identify_weights(model.config)
    body = model.base_model
    if lora:
        revision = f"{revision}+{lora.revision}"
        inside = {name for name, _ in body.named_modules()}
        if all(key.rpartition(".lora_")[0] in inside for key in lora.keys):  # trained without the head
            body = lora.merge_into(body)
        else:
            # Adapters from before transformers moved the language model name its weights as checkpoints of then do;
            # this is where peft looks for their names of today.
            model._checkpoint_conversion_mapping = _map_old_names(model)  # noqa: SLF001 - read by peft
            body = lora.merge_into(model).base_model
    if "pixel_values" not in inspect.signature(body.forward).parameters:
        raise InputError(f"{under}: a {type(body).__name__} takes no pictures; vlm takes a vision-language model")
    return body, made, revision


def _map_old_names(model: torch.nn.Module) -> dict[str, str]:
    """Older names of the model's weights and the present ones, as patterns, from transformers' own table."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    moves = get_model_conversion_mapping(model, add_legacy=False)
    renames = [move for move in moves if type(move) is WeightRenaming and not move.scope_prefix]
    return {each.source_patterns[0]: each.target_patterns[0] for each in renames}


def _choose_size(image_processor: Any, min_pixels: int, max_pixels: int) -> dict[str, int] | None:
    """What makes a processor keep a picture within so many pixels (`min_pixels` 0: its own); None if nothing does."""
    size = {key: value for key, value in dict(image_processor.size).items() if value}
    if set(size) == {"shortest_edge", "longest_edge"} and hasattr(image_processor, "merge_size"):
        # Qwen-VL and its kin: both are areas.
        # Sides are rounded up to whole squares: what is enlarged to nearly the limit would pass it.
        least = min(min_pixels or size["shortest_edge"], max_pixels // 4)
        return {"shortest_edge": least, "longest_edge": max_pixels}
    if set(size) == {"longest_edge"}:
        # Idefics3, SmolVLM: pictures are enlarged to this edge and cut into tiles; a view of the whole comes beside
        # them, where there are several.
        tile = dict(getattr(image_processor, "max_image_size", None) or {}).get("longest_edge") or 1
        tiles = max_pixels // tile**2
        return {"longest_edge": min(size["longest_edge"], tile * max(1, math.isqrt(max(0, tiles - 1))))}
    return None
