"""A vision-language chat model (Qwen-VL, SmolVLM, LLaVA, ...) through transformers, its processor and chat template."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ...encoders.batching import compute_in_parts, plan_batches
from ...errors import InputError
from ...items import Modality
from ...media.images import MAX_PIXELS, check_max_pixels, open_image
from .base import Ask, Completion
from .chats import check_length, fit, rendered, templated
from .heads import CausalHead
from .local import LocalJudge
from .messages import Message, Part, Picture, written
from .saying import completion, end_tokens, sampling
from .tokens import SEAM, Tail, chosen, tails

__all__ = ["MAX_PIXELS", "VisionJudge"]

PATCH = 14 * 14  # pixels that cost a vision tower about what a token costs the language model
PICTURES = 64  # decoded pictures held at once
WINDOW = 256  # questions planned at once


@dataclass(frozen=True, slots=True)
class _Shown:
    """A prompt as the processor takes it: its text, its pictures decoded, and about how many tokens that costs."""

    text: str
    pictures: tuple[PIL.Image.Image, ...]
    cost: int


class VisionJudge(LocalJudge):
    """A chat model that sees pictures, through `AutoModelForImageTextToText`.

    Pictures stand in the user's turn where the message has them. Each is decoded within limits and scaled down to at
    most `max_pixels` (width times height) before the model's processor scales it to what its vision tower takes; it
    is told to enlarge none beyond that, where it would. Questions with pictures and without are batched apart, under
    one budget of tokens and pixels, padded on the left.
    """

    modalities: frozenset[Modality] = frozenset({"text", "image"})
    can: frozenset[Ask] = frozenset({"choose", "likelihood", "generate"})
    appetites = (256, 2048)

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        revision: str,
        *,
        max_pixels: int = MAX_PIXELS,
        **limits: Any,
    ) -> None:
        check_max_pixels(max_pixels)
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
        self._placeholders = [
            token for kind in kinds if isinstance(token := getattr(processor, kind, 0), str)
        ]
        self._opened = lru_cache(maxsize=PICTURES)(self._decoded)
        self._weight = lru_cache(maxsize=1 << 12)(self._weighed)
        self._head: CausalHead | None = None

    @property
    def fingerprint(self) -> str:
        return f"{super().fingerprint}/{self.max_pixels}"

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        ends = [self._frame(prompt)[-SEAM:] for prompt in prompts]
        asked = tails([self.tokens.labels(end, tuple(labels)) for end in ends])
        return chosen(asked, self._answers(prompts, asked), len(labels))

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        asked = []
        for prompt, target in zip(prompts, targets, strict=True):
            ids = self.tokens.following(self._frame(prompt)[-SEAM:], target)
            if not ids:
                raise InputError(f"{self.name}: the target {target!r} has no tokens")
            asked.append((Tail(ids, len(ids)),))
        return np.array([row.mean() for row in self._answers(prompts, asked)])

    def generate(
        self,
        prompts: Sequence[Message],
        *,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Greedy at temperature 0; ends at one of `stop`, which the text then ends with."""
        options = sampling(self.tokenizer, stop, temperature, seed)
        ends = end_tokens(self.model, self.tokenizer)
        done: dict[int, Completion] = {}

        def forward(shown: Sequence[tuple[int, _Shown]]) -> np.ndarray:
            inputs = self._inputs([each for _, each in shown])
            with torch.inference_mode():
                out = self.model.generate(
                    **inputs, pad_token_id=self._pad, max_new_tokens=max_new_tokens, **options
                )
            said = out[:, inputs["input_ids"].shape[1] :].tolist()
            for (row, _), tokens in zip(shown, said, strict=True):
                done[row] = completion(tokens, self.tokenizer, ends, self._pad, stop)
                self.usage["generated_tokens"] += done[row].tokens
            self.usage["prompt_tokens"] += int(inputs["attention_mask"].sum())
            return np.empty(len(shown))

        self._in_batches(prompts, [max_new_tokens] * len(prompts), forward)
        return [done[row] for row in range(len(prompts))]

    def _answers(self, prompts: Sequence[Message], asked: Sequence[Sequence[Tail]]) -> list[np.ndarray]:
        """For each prompt's tails in turn the log-probabilities of the scored tokens, or the scores of the labels."""
        results: dict[tuple[int, int], np.ndarray] = {}

        def forward(shown: Sequence[tuple[int, _Shown]]) -> np.ndarray:
            # Labels of many tokens are asked about one by one, in equally large batches.
            for n in range(len(asked[0])):
                values = self._followed([each for _, each in shown], [asked[row][n] for row, _ in shown])
                results.update(((row, n), value) for (row, _), value in zip(shown, values, strict=True))
            return np.empty(len(shown))

        room = [max(len(tail.tokens) for tail in row) for row in asked]
        self._in_batches(prompts, room, forward)
        return [results[row, n] for row in range(len(prompts)) for n in range(len(asked[row]))]

    def _in_batches(
        self,
        prompts: Sequence[Message],
        room: Sequence[int],
        forward: Callable[[Sequence[tuple[int, _Shown]]], np.ndarray],
    ) -> None:
        """`forward` over all prompts as they are shown, in batches; `room` tokens are left after each."""
        for prompt in prompts:
            self._templated(prompt)
        for rows in _windows(prompts):
            shown = [(row, self._shown(prompts[row], room[row])) for row in rows]
            for part in ([s for s in shown if s[1].pictures], [s for s in shown if not s[1].pictures]):
                for batch in plan_batches([each.cost for _, each in part], self.budget):
                    compute_in_parts(
                        forward, [part[n] for n in batch], [f"prompt {part[n][0]}" for n in batch]
                    )
                    self._tell(len(batch))
        self.usage["calls"] += len(prompts)

    def _frame(self, prompt: Message) -> str:
        """The prompt's text without its pictures."""
        parts = tuple(part for part in prompt.parts if not isinstance(part, Picture))
        return self._text(replace(prompt, parts=parts))

    def _templated(self, prompt: Message) -> bool:
        around = templated(self, prompt)
        if not around and "image" in prompt.modalities:
            raise InputError(
                f"{self.name}: only its chat template says where pictures go, and the prompt leaves it off; set "
                f"chat=auto"
            )
        return around

    def _text(self, prompt: Message) -> str:
        if not self._templated(prompt):
            return f"{self.tokenizer.bos_token or ''}{self._clean(prompt.plain())}"
        text = rendered(self.processor, prompt, self._content(prompt.parts), self.name, _as_parts)
        return text + self._clean(prompt.answer)

    def _content(self, parts: Sequence[Part]) -> list[dict[str, object]]:
        """The user's turn as the template takes it: texts that follow each other are one."""
        content: list[dict[str, object]] = []
        text = ""
        for part in parts:
            if isinstance(part, Picture):
                content += [*(_as_parts(text) if text else ()), {"type": "image"}]
                text = ""
            else:
                text += self._clean(written(part))
        return [*content, *_as_parts(text)] if text or not content else content

    def _clean(self, text: str) -> str:
        """Without what the processor would take for a picture."""
        for token in self._placeholders:
            text = text.replace(token, "")
        return text

    def _shown(self, prompt: Message, room: int) -> _Shown:
        """The prompt with its pictures opened and its passages cut so that `room` tokens more still fit."""
        pictures = tuple(self._open(part.image) for part in prompt.parts if isinstance(part, Picture))
        weights = [self._weight(picture.size) for picture in pictures]
        tokens, pixels = sum(each for each, _ in weights), sum(each for _, each in weights)
        frame = tokens + self.tokens.count(self._text(replace(prompt, parts=(), system="", answer="")))
        whole = fit(self, prompt, self.context - room - frame)
        length = self.tokens.count(self._frame(whole)) + tokens
        check_length(self, length + room, ", or lower max_pixels")
        return _Shown(self._text(whole), pictures, length + room + pixels // PATCH)

    def _open(self, image: Path | bytes | PIL.Image.Image) -> PIL.Image.Image:
        # PIL images have no hash.
        return self._decoded(image) if isinstance(image, PIL.Image.Image) else self._opened(image)

    def _decoded(self, image: Path | bytes | PIL.Image.Image) -> PIL.Image.Image:
        return open_image(image, max_pixels=self.max_pixels)

    def _weighed(self, size: tuple[int, int]) -> tuple[int, int]:
        """Tokens and pixels that a picture of this size becomes; the processor knows."""
        message = Message((Picture(b""), "x"), chat="always")
        with_, without = self._text(message), self._text(replace(message, parts=("x",)))
        inputs = self._processed([with_], [[PIL.Image.new("RGB", size)]])
        pixels = inputs["pixel_values"].numel() // 3 if "pixel_values" in inputs else size[0] * size[1]
        return inputs["input_ids"].shape[1] - self.tokens.count(without), pixels

    def _processed(
        self, texts: Sequence[str], pictures: Sequence[Sequence[PIL.Image.Image]] | None
    ) -> dict[str, torch.Tensor]:
        given: dict[str, Any] = {"images": [list(each) for each in pictures]} if pictures else {}
        if pictures and self._size:
            given["size"] = self._size
        inputs = self.processor(
            text=list(texts),
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **given,
        )
        return dict(inputs)

    def _inputs(self, shown: Sequence[_Shown]) -> dict[str, torch.Tensor]:
        """What the model takes for a batch, left-padded, on its device and in its precision."""
        pictures = [each.pictures for each in shown] if shown[0].pictures else None
        inputs = self._processed([each.text for each in shown], pictures)
        return {
            key: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }

    def _followed(self, shown: Sequence[_Shown], asked: Sequence[Tail]) -> list[np.ndarray]:
        """One value array a prompt: what its tail asks for."""
        if self._head is None:
            self._head = CausalHead(self.model, self.device)
        # The last scored token only has to be predicted.
        after = [tail.tokens[:-1] if tail.scored else tail.tokens for tail in asked]
        inputs = _extended(self._inputs(shown), after, self._pad)
        self.usage["prompt_tokens"] += int(inputs["attention_mask"].sum())
        with torch.inference_mode():
            states = self._head.states(width=max(map(len, after)) + 1, use_cache=False, **inputs)
            if asked[0].labels:
                last = [len(each) for each in after]
                return self._head.said(states[range(len(last)), last], [tail.labels for tail in asked])
            rows = [n for n, tail in enumerate(asked) for _ in range(tail.scored)]
            places = [at for tail in asked for at in range(tail.scored)]
            targets = torch.tensor([token for tail in asked for token in tail.tokens], device=self.device)
            values = self._head.log_probs(states[rows, places], targets).double().cpu().numpy()
        return np.split(values, np.cumsum([tail.scored for tail in asked])[:-1])


def _as_parts(text: str) -> list[dict[str, object]]:
    return [{"type": "text", "text": text}]


def _windows(prompts: Sequence[Message]) -> Iterator[list[int]]:
    """Consecutive prompts with few enough pictures to hold them decoded."""
    window: list[int] = []
    held = 0
    for row, prompt in enumerate(prompts):
        pictures = sum(isinstance(part, Picture) for part in prompt.parts)
        if window and (held + pictures > PICTURES or len(window) == WINDOW):
            yield window
            window, held = [], 0
        window.append(row)
        held += pictures
    if window:
        yield window


def _extended(
    inputs: dict[str, torch.Tensor], after: Sequence[Sequence[int]], pad: int
) -> dict[str, torch.Tensor]:
    """The inputs with tokens after each prompt, filled up on the right, where a causal model does not see it."""
    longest = max(map(len, after))
    if not longest:
        return inputs
    shape, device = inputs["input_ids"].shape, inputs["input_ids"].device
    more = {
        "input_ids": [[*each, *[pad] * (longest - len(each))] for each in after],
        "attention_mask": [[1] * len(each) + [0] * (longest - len(each)) for each in after],
    }
    zeros = [[0] * longest for _ in after]
    # What else has a value a token are types: 0 is text.
    return {
        key: torch.cat([value, torch.tensor(more.get(key, zeros), device=device, dtype=value.dtype)], dim=1)
        if value.shape == shape
        else value
        for key, value in inputs.items()
    }


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
