"""A vision-language chat model (Qwen-VL, SmolVLM, LLaVA, ...) through transformers, its processor and chat template."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import PIL.Image
import torch

from ...errors import InputError, check_at_least
from ...items import Modality, group_positions, split_by_weight
from ...media.images import MAX_PIXELS, open_image
from .base import Completion, Sampling
from .local import LocalJudge, run_batches
from .messages import Attachment, Message
from .sampling import make_keys
from .tokenized import Continuation

R = TypeVar("R")

PATCH = 14 * 14  # pixels that cost a vision tower about what a token costs the language model
PICTURES = 64  # decoded pictures held at once
WINDOW = 256  # questions planned at once


@dataclass(frozen=True, slots=True)
class VisionInput:
    """A prompt as the processor takes it: its text, its pictures decoded, and about how many tokens that costs."""

    text: str
    pictures: tuple[PIL.Image.Image, ...]
    cost: int


class VisionJudge(LocalJudge):
    """A chat model that sees pictures, through `AutoModelForImageTextToText`.

    Pictures stand in the user's turn where the message has them. Each is decoded within limits and scaled down to at
    most `max_pixels` (width times height) before the model's processor scales it to what its vision tower takes; it
    enlarges none beyond that. Questions with pictures and without are batched apart, under one budget of tokens and
    pixels, padded on the left.
    """

    modalities: frozenset[Modality] = frozenset({"text", "image"})
    appetites = (256, 2048)

    def __init__(
        self, model: Any, processor: Any, name: str, revision: str, *, max_pixels: int = MAX_PIXELS, **limits: Any
    ) -> None:
        check_at_least(1, max_pixels=max_pixels)
        if not getattr(processor, "chat_template", None):
            raise InputError(
                f"{name}: its processor has no chat template, which says where pictures go; take a checkpoint tuned "
                f"for chat"
            )
        super().__init__(model, processor.tokenizer, name, revision, **limits)
        self.processor = processor
        self.max_pixels = max_pixels
        self.chats = True
        self._size = _within(processor.image_processor, max_pixels)
        kinds = ("image_token", "video_token", "audio_token")
        self._placeholders = [token for kind in kinds if isinstance(token := getattr(processor, kind, 0), str)]
        self._opened = lru_cache(maxsize=PICTURES)(partial(open_image, max_pixels=max_pixels))
        self._weights: dict[tuple[int, int], tuple[int, int]] = {}  # by size; a cache of a method would hold the model

    @property
    def templates(self) -> Any:
        return self.processor

    @property
    def fingerprint(self) -> str:
        return f"{super().fingerprint}/{self.max_pixels}"

    def prepare_prompts(self, prompts: Sequence[Message], room: int) -> tuple[Sequence[Message], list[str]]:
        return prompts, [self.write_frame(prompt) for prompt in prompts]  # opened in `compute_answers`, a few at a time

    def prepare_targets(
        self, prompts: Sequence[Message], targets: Sequence[str]
    ) -> tuple[Sequence[Message], list[Continuation]]:
        ids = list(map(self.tokens.following, map(self.write_frame, prompts), targets))
        return prompts, self._split_targets([()] * len(prompts), ids, targets)[1]

    def write_answers(self, prompts: Sequence[Message], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        keys = make_keys(prompts, sampling)

        def write(rows: Sequence[int], inputs: Sequence[VisionInput]) -> list[Completion]:
            return self.generator.write(self.process(inputs), sampling, [keys[row] for row in rows])

        return self._in_windows(prompts, [sampling.max_new_tokens] * len(prompts), write)

    def compute_answers(
        self, starts: Sequence[Message], asked: Sequence[Sequence[Continuation]]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        def forward(rows: Sequence[int], inputs: Sequence[VisionInput]) -> list[tuple[np.ndarray, ...]]:
            # Labels of many tokens are asked about one by one, in equally large batches.
            columns = zip(*(asked[row] for row in rows), strict=True)
            return list(zip(*(self._answer(inputs, column) for column in columns), strict=True))

        room = [max(len(each.tokens) for each in some) for some in asked]
        for row, answers in self._in_windows(starts, room, forward):
            for column, answer in enumerate(answers):
                yield row, column, answer

    def _in_windows(
        self,
        prompts: Sequence[Message],
        room: Sequence[int],
        forward: Callable[[Sequence[int], Sequence[VisionInput]], Sequence[R]],
    ) -> Iterator[tuple[int, R]]:
        """`forward` over all prompts' positions and opened pictures, in batches; `room` tokens are left after each."""
        for prompt in prompts:
            self.is_templated(prompt)
        # A window has few enough pictures to hold them decoded.
        weigh = lambda row: max(len(prompts[row].attachments), PICTURES / WINDOW)  # noqa: E731
        for rows in split_by_weight(range(len(prompts)), PICTURES, weigh):
            opened = [(row, self.open_message(prompts[row], room[row])) for row in rows]
            parts = group_positions(bool(each.pictures) for _, each in opened).values()
            compute = lambda some: forward(*zip(*some, strict=True))  # noqa: E731
            names = [f"prompt {row}" for row in rows]
            for n, answer in run_batches(opened, lambda each: each[1].cost, compute, self.budget, names, parts):
                yield rows[n], answer

    def _answer(self, some: Sequence[VisionInput], asked: Sequence[Continuation]) -> list[np.ndarray]:
        after = [each.shown for each in asked]
        inputs = self._extend(self.process(some), after)
        self.usage["prompt_tokens"] += int(inputs["attention_mask"].sum())
        with torch.inference_mode():
            states = self.head.states(width=max(map(len, after)) + 1, use_cache=False, **inputs)
            return self.head.answer(states, [len(each.tokens) - each.scored for each in asked], asked)

    def _extend(self, inputs: dict[str, torch.Tensor], after: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """The inputs with tokens after each prompt, filled up on the right, where a causal model does not see it."""
        if not any(after):
            return inputs
        more = self._pad(after)
        zeros = torch.zeros_like(more["input_ids"])  # what else has a value a token are types: 0 is text
        shape = inputs["input_ids"].shape
        return {
            key: torch.cat([value, more.get(key, zeros).to(value.dtype)], dim=1) if value.shape == shape else value
            for key, value in inputs.items()
        }

    def is_templated(self, message: Message) -> bool:
        """As of other judges; `InputError` also for a picture without a template."""
        templated = super().is_templated(message)
        if not templated and message.attachments:
            raise InputError(
                f"{self.name}: only its chat template says where pictures go, and the prompt leaves it off; set "
                f"chat=auto"
            )
        return templated

    def write_frame(self, prompt: Message) -> str:
        """The prompt's text without its pictures."""
        return self._text(replace(prompt, parts=tuple(p for p in prompt.parts if not isinstance(p, Attachment))))

    def open_message(self, prompt: Message, room: int) -> VisionInput:
        """The prompt with its pictures opened and its passages cut so that `room` tokens more still fit."""
        pictures = tuple(self._open(each.content) for each in prompt.attachments)
        weights = [self._weigh(picture.size) for picture in pictures]
        tokens, pixels = sum(each for each, _ in weights), sum(each for _, each in weights)
        frame = tokens + self.tokens.count(self._text(replace(prompt, parts=(), system="", answer="")))
        whole = self.cut(prompt, self.context - room - frame)
        length = self.tokens.count(self.write_frame(whole)) + tokens
        self.check_length(length + room, ", or lower max_pixels")
        return VisionInput(self._text(whole), pictures, length + room + pixels // PATCH)

    def process(self, some: Sequence[VisionInput]) -> dict[str, torch.Tensor]:
        """What the model takes for a batch, left-padded, on its device and in its precision."""
        given: dict[str, Any] = {"images": [list(each.pictures) for each in some]} if some[0].pictures else {}
        if given and self._size:
            given["size"] = self._size
        inputs = self.processor(
            text=[each.text for each in some],
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **given,
        )
        return {
            key: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }

    def _text(self, prompt: Message) -> str:
        if not self.is_templated(prompt):
            return f"{self.tokenizer.bos_token or ''}{self._clean(prompt.plain())}"
        return self.render(prompt) + self._clean(prompt.answer)

    def show(self, message: Message) -> list[dict[str, str]]:
        parts = message.join_texts(self._clean) or [""]
        return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]

    def _clean(self, text: str) -> str:
        """Without what the processor would take for a picture."""
        for token in self._placeholders:
            text = text.replace(token, "")
        return text

    def _open(self, image: Any) -> PIL.Image.Image:
        hashable = not isinstance(image, PIL.Image.Image)
        return self._opened(image) if hashable else open_image(image, max_pixels=self.max_pixels)

    def _weigh(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tokens and pixels that a picture of this size becomes; the processor knows."""
        if size in self._weights:
            return self._weights[size]
        message = Message((Attachment("image", b""), "x"), chat="always")
        with_, without = self._text(message), self._text(replace(message, parts=("x",)))
        inputs = self.process([VisionInput(with_, (PIL.Image.new("RGB", size),), 0)])
        pixels = inputs["pixel_values"].numel() // 3 if "pixel_values" in inputs else size[0] * size[1]
        self._weights[size] = inputs["input_ids"].shape[1] - self.tokens.count(without), pixels
        return self._weights[size]


def _within(image_processor: Any, max_pixels: int) -> dict[str, int] | None:
    """The size that keeps a processor from enlarging pictures beyond `max_pixels`; None where it has no such."""
    size = {key: value for key, value in dict(image_processor.size).items() if value}
    if set(size) == {"shortest_edge", "longest_edge"} and hasattr(image_processor, "merge_size"):
        # Qwen-VL and its kin: both are areas.
        return {key: min(value, max_pixels) for key, value in size.items()}
    if set(size) == {"longest_edge"}:
        # Idefics3, SmolVLM: the longest edge is enlarged to this, and cut into tiles.
        tile = dict(getattr(image_processor, "max_image_size", None) or {}).get("longest_edge") or 1
        edge = tile * max(1, math.isqrt(max_pixels) // tile)
        return {"longest_edge": min(size["longest_edge"], edge)}
    return None
