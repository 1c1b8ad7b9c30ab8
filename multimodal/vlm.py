"""`vlm:` vision-language models as retrievers: text, a picture, or both in one input, and one vector of it.

DSE (Ma et al. 2024): `vlm:MrLight/dse-qwen2-2b-mrl-v1`; mcDSE: `vlm:marco/mcdse-2b-v1`; GME (Zhang et al. 2024):
`vlm:Alibaba-NLP/gme-Qwen2-VL-2B-Instruct`; `vlm:Qwen/Qwen3-VL-Embedding-2B` (Li et al. 2026); OmniEmbed (Zhuang et
al. 2025), an adapter: `vlm:Tevatron/OmniEmbed-v0.1?processor=Qwen/Qwen2.5-Omni-7B`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
import transformers

from ..checkpoints.devices import resolve_device, resolve_dtype
from ..checkpoints.weights import complete
from ..encoders.base import EncoderSpec, Precision
from ..encoders.batching import stream
from ..encoders.spans import token_spans
from ..encoders.transformer import TOKENIZER_FILES, loaded, weights_hash
from ..errors import InputError
from ..items import Dense, Item, Role
from ..media.images import check_max_pixels
from .formats import PROCESSOR_FILES, Format, Name, format_of
from .towers import BUDGET, PATCH, in_threads, opened, picture_weight

WINDOW = 512  # items a window; fewer pictures, which are held decoded
# No tokenizer makes fewer tokens of more characters; the rest of a long text need not be read to be cut off.
CHARACTERS_PER_TOKEN = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """An item as the processor takes it: its text in the template, its picture decoded, and what that costs."""

    text: str
    picture: PIL.Image.Image | None
    cost: int


class VisionLanguageEncoder:
    """A vision-language model with last-token pooling; one float32 vector [dim] of length 1 an item.

    An item with text and a picture is one input, so that the model itself fuses them. Pictures are decoded within
    limits and scaled down to `spec.max_pixels` (width times height) by us; the model's processor is told to enlarge
    none beyond that. Texts are cut so that the input has `spec.max_tokens`, which counts the picture's tokens too.
    Batches keep within one budget of tokens and pixels.
    """

    padding_side: Literal["left", "right"] = "right"
    truncate = True

    def __init__(
        self,
        model: torch.nn.Module,
        processor: Any,
        format: Format,
        instruction: str,
        *,
        name: str,
        max_pixels: int,
        device: torch.device,
    ) -> None:
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.format = format
        self.instruction = format.instruction(instruction)
        self.name = name
        self.device = device
        self.budget = BUDGET[device.type]
        kinds = ("image_token", "video_token", "audio_token")
        self._placeholders = [
            token for kind in kinds if isinstance(token := getattr(processor, kind, 0), str)
        ]
        self._rendered = lru_cache(maxsize=64)(self._render)
        self._bos = self._added_bos()
        self.size = _size(processor.image_processor, format.min_pixels, max_pixels)
        self._largest = self._measured(max_pixels)

    spec: EncoderSpec

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        format: Name = "auto",
        instruct: str | None = None,
        dim: int | None = None,
        max_tokens: int | None = None,
        truncate: bool = True,
        max_pixels: int | None = None,
        dtype: Precision = "auto",
        adapter: str | None = None,
        base: str | None = None,
        processor: str | None = None,
        revision: str | None = None,
    ) -> VisionLanguageEncoder:
        """Load from the hub or a directory, safetensors only.

        `format` is the family that the checkpoint is worded as, by default the one that its name tells. `instruct`
        says what a query looks for. `dim` keeps the first components (Matryoshka; Kusupati et al. 2022). A checkpoint
        that is an adapter of peft is merged into its base model, or into `base`; `adapter` is merged into the
        checkpoint. `processor` names a checkpoint that has one, where this has none. With `truncate=false` an item
        longer than `max_tokens` is an error. `InputError` in one line where anything is missing, does not fit or is
        out of range.
        """
        known = format_of(checkpoint, adapter, format)
        pixels = known.max_pixels if max_pixels is None else max_pixels
        check_max_pixels(pixels)
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        model, found_processor, version = _open(
            checkpoint, revision, adapter, base, processor, trust_remote_code, precision
        )
        text_config: Any = model.config.get_text_config()
        width = int(text_config.hidden_size)
        if dim is not None and not 1 <= dim <= width:
            raise InputError(f"{checkpoint}: dim must be in 1..{width}, not {dim}")
        longest = int(getattr(text_config, "max_position_embeddings", 0) or known.max_tokens)
        if max_tokens is not None and not 8 <= max_tokens <= longest:
            raise InputError(f"{checkpoint}: max_tokens must be in 8..{longest}, not {max_tokens}")
        encoder = cls(
            model,
            found_processor,
            known,
            instruct or "",
            name=f"vlm:{checkpoint}",
            max_pixels=pixels,
            device=where,
        )
        encoder.truncate = truncate
        encoder.spec = EncoderSpec(
            name=f"vlm:{checkpoint}",
            revision=version,
            modalities=("text", "image"),
            dim=dim or width,
            pooling="last",
            query_prompt=encoder.worded("query", "{}", False),
            document_prompt=encoder.worded("document", "{}", False),
            special_tokens=encoder.tokenizer.decode(encoder.tokenizer("")["input_ids"]),
            max_tokens=max_tokens or min(known.max_tokens, longest),
            max_pixels=pixels,
            extra={
                "picture": encoder.worded("document", "", True),
                "fused": encoder.worded("query", "{}", True),
                "blank": known.blank,
                "size": encoder.size,
            },
            dtype=str(precision).removeprefix("torch."),
        )
        return encoder

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items; text beyond `max_tokens` is cut off.

        `InputError` naming an item whose picture does not open or does not fit.
        """
        return stream(
            items,
            self.spec,
            prepare=lambda group: self.shown(group, role),
            cost=lambda shown: shown.cost,
            forward=self._forward,
            budget=self.budget,
            window=WINDOW,
            weight=picture_weight(3 * self.spec.max_pixels, WINDOW),
            collate=self._collated,
        )

    def worded(self, role: Role, text: str, pictured: bool) -> str:
        """What the processor is given: the chat template around the text and the picture's place."""
        before, after = self._rendered(role, bool(text), pictured or self.format.blank > 0)
        return f"{before}{self._clean(text)}{after}"

    def shown(self, items: Sequence[Item], role: Role) -> list[Shown]:
        """Items as the processor takes them, pictures opened by threads, texts cut."""
        held = [item.modalities for item in items]
        pictured = [item for item, what in zip(items, held, strict=True) if "image" in what]
        pictures = in_threads(lambda item: opened(item, self.spec.max_pixels), pictured, len(pictured))
        seen = [self._squashed(next(pictures)) if "image" in what else None for what in held]
        longest = CHARACTERS_PER_TOKEN * self.spec.max_tokens
        texts = [
            (item.text or "")[:longest] if "text" in what else ""
            for item, what in zip(items, held, strict=True)
        ]
        wholes = [self.worded(role, text, image is not None) for text, image in zip(texts, seen, strict=True)]
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
                whole = self.worded(role, text, "image" in item.modalities)
                count = len(self._ids([whole])[0])
            made.append(Shown(whole, image, count + more + pixels // PATCH))
        return made

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        return token_spans(self.tokenizer, texts, self.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the format's words (`encoders.base.Tokenizes`)."""
        frame = "".join(self._rendered(role, True, self.format.blank > 0))
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

    def inputs(self, shown: Sequence[Shown]) -> dict[str, torch.Tensor]:
        """What the model takes for items that all have pictures or all have none, padded, on its device."""
        given: dict[str, Any] = {}
        if shown[0].picture is not None:
            given["images"] = [[each.picture] for each in shown]
            if self.size:
                given["size"] = self.size
        texts = [self._without_bos(each.text) for each in shown]
        made = self.processor(
            text=texts, padding=True, padding_side=self.padding_side, return_tensors="pt", **given
        )
        return {
            key: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for key, value in made.items()
        }

    def _collated(self, batch: Sequence[Shown]) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
        """The inputs of those with pictures and of those without, each with their places in the batch."""
        made = []
        for sees in (True, False):
            if rows := [row for row, each in enumerate(batch) if (each.picture is not None) == sees]:
                made.append((rows, self.inputs([batch[row] for row in rows])))
        return made

    def _forward(self, parts: Sequence[tuple[list[int], dict[str, torch.Tensor]]]) -> np.ndarray:
        vectors = np.empty((sum(len(rows) for rows, _ in parts), self.spec.dim), np.float32)
        for rows, inputs in parts:
            vectors[rows] = self._pooled(inputs)
        return vectors

    @torch.inference_mode()
    def _pooled(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        states = self.model(**inputs, use_cache=False).last_hidden_state
        mask = inputs["attention_mask"]
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        pooled = states[torch.arange(len(mask), device=self.device), last, : self.spec.dim].float()
        vectors: np.ndarray = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return vectors

    def _render(self, role: Role, texted: bool, placed: bool) -> tuple[str, str]:
        """What stands before and after a text; `placed` says whether there is a place for a picture."""
        form = self.format.query if role == "query" else self.format.document
        slot = "\u241f"  # a symbol that no template writes
        said = form.replace("{}", slot) if texted else self.format.picture
        instruction = self.instruction if role == "query" else ""
        if self.format.instruct == "text" and instruction:
            said = form.replace("{}", f"{instruction} {slot}" if texted else instruction)
        parts = [{"type": "image"}] if placed else []
        parts.insert(0 if self.format.text_first else len(parts), {"type": "text", "text": said})
        turns: list[dict[str, object]] = [{"role": "user", "content": [p for p in parts if p.get("text", 1)]}]
        system = self.format.system if self.format.instruct == "text" else instruction or self.format.system
        if system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        import jinja2

        try:
            text = self.processor.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=self.format.opened
            )
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

    def _added_bos(self) -> str:
        """The token that the tokenizer puts before every text, which templates write as well."""
        ids = self.tokenizer("x")["input_ids"]
        return str(self.tokenizer.bos_token) if ids[0] == self.tokenizer.bos_token_id else ""

    def _without_bos(self, text: str) -> str:
        return text.removeprefix(self._bos) if self._bos else text

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer([self._without_bos(text) for text in texts], verbose=False)[
            "input_ids"
        ]
        return ids

    def _cut(self, text: str, over: int, item: Item) -> str:
        """The start of a text, `over` tokens shorter."""
        text = self._clean(text)
        given = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=self.tokenizer.is_fast, verbose=False
        )
        room = len(given["input_ids"]) - over
        if room < 1:
            raise self._too_long(item, over + self.spec.max_tokens)
        if not self.tokenizer.is_fast:
            return str(self.tokenizer.decode(given["input_ids"][:room]))
        spans = given["offset_mapping"]
        # Tokens of single bytes share a character's span: one that does not fit goes as a whole.
        if not (start := text[: min(spans[room - 1][1], spans[room][0])]):
            raise self._too_long(item, over + self.spec.max_tokens)
        return start

    def _squashed(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """A strip so thin that a processor of Qwen-VL's kind would enlarge it beyond the limit, as one row of patches.

        Its sides are made at least a patch each, whatever their product.
        """
        images = self.processor.image_processor
        if self.size is None or "shortest_edge" not in self.size:
            return picture
        if self.picture_cost(picture.size)[1] <= self.size["longest_edge"]:
            return picture
        patch = images.patch_size * images.merge_size
        long = self.size["longest_edge"] // patch**2 * patch
        return picture.resize((long, patch) if picture.width > picture.height else (patch, long))

    def _too_long(self, item: Item, tokens: int) -> InputError:
        return InputError(
            f"item {item.id!r} has {tokens} tokens with its picture and the format's words, and {self.name} reads "
            f"{self.spec.max_tokens}; raise max_tokens or lower max_pixels"
        )

    def _measured(self, max_pixels: int) -> tuple[int, int]:
        """Tokens and pixels, as `picture_cost` has them, of the largest picture; `InputError` if it is enlarged."""
        side = math.isqrt(max_pixels)
        text = self.worded("document", "", True)
        blank = Shown(text, PIL.Image.new("RGB", (side, side)), 0)
        try:
            inputs = self.inputs([blank])
        except (ValueError, TypeError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"{self.name}: its processor does not take a picture: {reason[:200]}") from None
        if "pixel_values" not in inputs:
            raise InputError(
                f"{self.name}: its processor makes nothing of a picture; take a vision-language model"
            )
        frames = getattr(self.processor.image_processor, "temporal_patch_size", 1)
        pixels = inputs["pixel_values"].numel() // 3 // frames
        if pixels > max_pixels:
            raise InputError(
                f"{self.name}: its processor enlarges pictures of {max_pixels:,} pixels to {pixels:,}; set "
                f"max_pixels={pixels} or more"
            )
        return inputs["input_ids"].shape[1] - len(self._ids([text])[0]), pixels


def _open(
    checkpoint: str,
    revision: str | None,
    adapter: str | None,
    base: str | None,
    processor: str | None,
    trust_remote_code: bool,
    dtype: torch.dtype,
) -> tuple[Any, Any, str]:
    """The model without its language head, the processor, and the revision of both model and adapter."""
    from transformers.models.auto import modeling_auto

    from ..checkpoints.lora import based
    from ..checkpoints.sentence_files import fetch

    found, model_at, model_revision = based(checkpoint, revision, adapter, base)
    if adapter and found:
        found.require_base(model_at, "vlm")
    source: dict[str, Any] = {"revision": model_revision, "trust_remote_code": trust_remote_code}
    config = loaded(transformers.AutoConfig, model_at, **source)
    homes: list[tuple[str, str | None]] = [(processor, None)] if processor else [(model_at, model_revision)]
    if found and not processor:
        homes.insert(0, (found.checkpoint, found.asked_revision))
    home = next((h for h in homes if any(fetch(h[0], name, h[1]) for name in PROCESSOR_FILES)), None)
    if home is None:
        raise InputError(
            f"{homes[-1][0]} has no processor (none of {', '.join(PROCESSOR_FILES)}); vlm takes a vision-language "
            "model, or processor= names a checkpoint that has its processor"
        )
    if not any(fetch(home[0], name, home[1]) for name in TOKENIZER_FILES):
        raise InputError(f"{home[0]} has no tokenizer (none of {', '.join(TOKENIZER_FILES)})")
    made = loaded(transformers.AutoProcessor, home[0], revision=home[1], trust_remote_code=trust_remote_code)
    if getattr(made, "image_processor", None) is None or getattr(made, "tokenizer", None) is None:
        raise InputError(
            f"{home[0]}: its processor ({type(made).__name__}) lacks images; vlm reads text and images"
        )
    if not getattr(made, "chat_template", None):
        raise InputError(f"{home[0]}: its processor has no chat template, which says where pictures go")
    whole = type(config) in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    auto = transformers.AutoModelForImageTextToText if whole else transformers.AutoModel
    held = found.keys if found else frozenset()
    # Embedding checkpoints may be saved without the language head, which is not used.
    model = complete(
        auto,
        model_at,
        model_revision,
        lambda key: key in held or key.startswith("lm_head"),
        config=config,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    version = getattr(model.config, "_commit_hash", None) or weights_hash(model_at)
    body = model.base_model
    if found:
        version = f"{version}+{found.revision}"
        inside = {name for name, _ in body.named_modules()}
        if all(key.rpartition(".lora_")[0] in inside for key in found.keys):  # trained without the head
            body = found.merged(body)
        else:
            # Adapters from before transformers moved the language model name its weights as checkpoints of then do;
            # this is where peft looks for their names of today.
            model._checkpoint_conversion_mapping = _renamed(model)
            body = found.merged(model).base_model
    if "pixel_values" not in inspect.signature(body.forward).parameters:
        raise InputError(
            f"{model_at}: a {type(body).__name__} takes no pictures; vlm takes a vision-language model"
        )
    return body, made, str(version)


def _renamed(model: torch.nn.Module) -> dict[str, str]:
    """Older names of the model's weights and the present ones, as patterns, from transformers' own table."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    moves = get_model_conversion_mapping(model, add_legacy=False)
    renames = [move for move in moves if type(move) is WeightRenaming and not move.scope_prefix]
    return {each.source_patterns[0]: each.target_patterns[0] for each in renames}


def _size(image_processor: Any, min_pixels: int, max_pixels: int) -> dict[str, int] | None:
    """What tells a processor to make at least and at most so many pixels of a picture; None if nothing does.

    `min_pixels` is the processor's own where it is 0.
    """
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
