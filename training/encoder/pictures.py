"""Training of two towers, of texts and of pictures: `clip:`, and `offline:conse`, of whose parts two are made."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from ...errors import InputError
from ...items import Item, Role
from ...multimodal.clip import ClipEncoder
from ...multimodal.conse import ConSE
from ...multimodal.towers import PATCH, map_in_threads, open_picture
from ...specs import Spec
from ..recipe import EncoderRecipe
from .clip_files import join_towers, read_config, write_clip
from .dense import score_lengths
from .losses import LogitScale
from .trainable import choose_weights, count_state_bytes, keep_options

# What a SPEC says and no file of a checkpoint does: the result is loaded with it again.
KEPT = ("max_pixels", "text_weight", "fuse", "template", "instruct")
COLDEST = math.log(100)  # a learnt temperature stays above 0.01, as CLIP's (Radford et al. 2021)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the towers take of an item: token ids of its text, and its picture or what a locked tower made of it.

    `cost` counts tokens, and squares of 14 x 14 pixels as many.
    """

    text: torch.Tensor | None
    picture: torch.Tensor | None
    cost: int


class TrainedClip(ClipEncoder):
    """A CLIP model in training: what a locked vision tower makes of a picture is computed once, and in float32."""

    locked = False

    def __post_init__(self) -> None:
        super().__post_init__()
        visual = self.model.visual
        # Behind timm's towers there is a head, which stays trainable where the tower is locked.
        timm = hasattr(visual, "trunk")
        self.tower: Any = visual.trunk if timm else visual
        self.head: Any = visual.head if timm else torch.nn.Identity()
        self.known: dict[bytes, torch.Tensor] = {}

    @staticmethod
    def count_tokens(seen: Seen) -> int:
        """What `TokenLimits` counts of an item."""
        return seen.cost

    def look(self, pictures: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What the tower makes of pictures in the model's size, float32 [width] of each, kept by their pixels."""
        keys = [hashlib.blake2b(each.numpy().tobytes(), digest_size=16).digest() for each in pictures]
        new = {key: each for key, each in zip(keys, pictures, strict=True) if key not in self.known}
        for start in range(0, len(new), self.image_batch):
            some = list(new.items())[start : start + self.image_batch]
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                made = self.tower(self.pixels.batch([each for _, each in some], self.device))
            self.known.update(zip((key for key, _ in some), made.float().cpu(), strict=True))
        return [self.known[key] for key in keys]

    @torch.inference_mode()
    def images(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        if not self.locked:
            return super().images(images)
        return np.asarray(self.head(torch.stack(self.look(images)).to(self.device)).float().cpu())


class TrainablePictures:
    """Two towers in training: texts, pictures, or documents with both, as `ClipEncoder` has them.

    With `lock_pictures` (LiT, Zhai et al. 2022) the vision tower stays what it is and sees each picture once, so that
    an epoch costs the texts alone.
    """

    def __init__(self, encoder: TrainedClip, config: dict[str, Any], spec: Spec, recipe: EncoderRecipe) -> None:
        if wrong := [dim for dim in recipe.dims if dim > encoder.spec.dim]:
            raise InputError(f"dims: {spec} has vectors of {encoder.spec.dim} components, not {wrong[0]}")
        if encoder.padding is None and (recipe.query_tokens or recipe.document_tokens):
            raise InputError(f"query_tokens, document_tokens: {spec} always reads {encoder.spec.max_tokens} tokens")
        self.encoder, self.config, self.recipe = encoder, config, recipe
        self.options = keep_options(spec, KEPT)
        self.model = encoder.model
        if recipe.loss == "sigmoid" and self.model.logit_bias is None:
            self.model.logit_bias = torch.nn.Parameter(torch.full_like(self.model.logit_scale, recipe.bias))
            config["init_logit_bias"] = recipe.bias
        if not recipe.learn_scale:
            self._state_scale()
        self._network = Towers({"model": self.model})
        choose_weights(self._network, find_embeddings(self.model), recipe)
        if recipe.lock_pictures:
            encoder.locked = True
            encoder.tower.requires_grad_(False)
            if not any(weights.requires_grad for weights in self._network.parameters()):
                raise InputError("nothing is left to train: freeze fewer parts, or leave lock_pictures out")
        for each in (self.model.logit_scale, self.model.logit_bias):
            if each is not None:
                each.requires_grad_(recipe.learn_scale)
        self._pictures: dict[object, torch.Tensor] = {}  # by what the item has

    @classmethod
    def from_encoder(cls, encoder: Any, spec: Spec, recipe: EncoderRecipe) -> TrainablePictures:
        """A `ClipEncoder` or a `ConSE` as `load_encoder` gave it, which nobody shares."""
        joined = isinstance(encoder, ConSE)
        clip, config = join_towers(encoder, spec, recipe) if joined else (encoder, read_config(spec.checkpoint))
        parts = {name: getattr(clip, name) for name in ("model", "tokenizer", "pixels", "spec", "device")}
        made = cls(TrainedClip(**parts), config, spec, recipe)
        if joined or spec.options.get("dtype") == "float32":
            made.options["dtype"] = "float32"  # in bfloat16 the tower's vectors are others (`open_image_tower`)
        return made

    @property
    def network(self) -> torch.nn.Module:
        return self._network

    @property
    def state_bytes(self) -> int:
        layers = [module for module in self.model.modules() if isinstance(module, torch.nn.LayerNorm)]
        width = max((module.normalized_shape[0] for module in layers), default=self.encoder.spec.dim)
        return count_state_bytes(max(len(layers) // 2, 1), width)

    @property
    def scale(self) -> LogitScale | None:
        if not self.recipe.learn_scale:
            return None
        bias = self.model.logit_bias
        return LogitScale(
            (-self.model.logit_scale.clamp(max=COLDEST)).exp(), self.recipe.bias if bias is None else bias
        )

    def prepare(self, items: Sequence[Item], role: Role, most: int | None) -> list[Seen]:
        """Texts are cut to `most` tokens, which leaves out their end; `InputError` for a picture that is unreadable."""
        encoder = self.encoder
        if role == "query":
            items = [encoder.word_query(item) for item in items]
        texts = [row for row, item in enumerate(items) if "text" in item.modalities]
        worded: dict[int, torch.Tensor] = {}
        if texts:
            made = encoder.token_ids([items[row].text or "" for row in texts], [items[row].lang for row in texts])
            worded = {row: self._cut(ids, most) for row, ids in zip(texts, made, strict=True)}
        shown = self._show([item for item in items if item.image is not None])
        return [self._join(worded.get(row), next(shown) if item.image is not None else None)
                for row, item in enumerate(items)]  # fmt: skip

    def _cut(self, ids: torch.Tensor, most: int | None) -> torch.Tensor:
        """The token ids without padding, where that may be left off; the last one ends the text."""
        padding = self.encoder.padding
        if padding is None:
            return ids
        ids = ids[ids != padding]
        return ids if most is None or len(ids) <= most else torch.cat([ids[: most - 1], ids[-1:]])

    def _show(self, items: Sequence[Item]) -> Iterator[torch.Tensor]:
        """The picture of each item, or what the locked tower makes of it: then each is opened once."""
        encoder = self.encoder

        def open_one(item: Item) -> torch.Tensor:
            return encoder.prepare(open_picture(item, encoder.spec.max_pixels, encoder.shortest))

        if not encoder.locked:
            yield from map_in_threads(open_one, items)
            return
        new = list({name_picture(item): item for item in items if name_picture(item) not in self._pictures}.items())
        for start in range(0, len(new), encoder.image_batch):
            some = new[start : start + encoder.image_batch]
            made = encoder.look(list(map_in_threads(open_one, [item for _, item in some])))
            self._pictures.update(zip((name for name, _ in some), made, strict=True))
        for item in items:
            yield self._pictures[name_picture(item)]

    def _join(self, text: torch.Tensor | None, picture: torch.Tensor | None) -> Seen:
        cost = 0 if text is None else len(text)
        if picture is not None:
            cost += 1 if self.encoder.locked else max(1, picture[0].numel() // PATCH)
        return Seen(text, picture, cost)

    def represent(self, inputs: Sequence[Any]) -> torch.Tensor:
        """Vectors float32 [n, dim]."""
        encoder = self.encoder
        texts = [row for row, seen in enumerate(inputs) if seen.text is not None]
        pictures = [row for row, seen in enumerate(inputs) if seen.picture is not None]
        made: list[list[torch.Tensor]] = [[] for _ in inputs]
        if texts:
            ids = pad_sequence([inputs[row].text for row in texts], True, encoder.padding or 0).to(encoder.device)
            for row, vector in zip(texts, normalize(self.model.encode_text(ids).float(), dim=-1), strict=True):
                made[row].append(vector)
        if pictures:
            shown = [inputs[row].picture for row in pictures]
            if encoder.locked:
                found = encoder.head(torch.stack(shown).to(encoder.device))
            else:
                found = self.model.encode_image(encoder.pixels.batch(shown, encoder.device))
            for row, vector in zip(pictures, normalize(found.float(), dim=-1), strict=True):
                made[row].append(vector)
        return torch.stack([self._fuse(vectors) for vectors in made])

    def _fuse(self, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `towers.fuse_vectors` has it, of the vectors of a text and of a picture."""
        if len(vectors) == 1:
            return vectors[0]
        weight = self.encoder.text_weight
        mean = weight * vectors[0] + (1 - weight) * vectors[1]
        return normalize(mean, dim=-1) if self.encoder.fusion == "feature" else mean

    def score(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        yield from score_lengths(queries, documents, self.recipe.dims)

    def penalise(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> float:
        return 0.0

    def save(self, folder: Path) -> dict[str, str]:
        write_clip(self.model, self.config, getattr(self.encoder.tokenizer, "tokenizer", None), folder)
        return self.options

    @torch.no_grad()
    def _state_scale(self) -> None:
        """Let the checkpoint say the temperature and bias that it is trained with."""
        self.model.logit_scale.fill_(-math.log(self.recipe.temperature))
        if self.model.logit_bias is not None:
            self.model.logit_bias.fill_(self.recipe.bias)


class Towers(torch.nn.ModuleDict):
    """Modules whose batch norms stay as they are while the others train: batches of pictures are small here."""

    def train(self, mode: bool = True) -> Towers:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - torch's only name for all
                module.eval()
        return self


def find_embeddings(model: Any) -> list[torch.Tensor]:
    """The word embeddings of a text tower."""
    text = getattr(model, "text", model)
    if hasattr(text, "transformer") and hasattr(text.transformer, "get_input_embeddings"):
        return [text.transformer.get_input_embeddings().weight]
    return [text.token_embedding.weight]


def name_picture(item: Item) -> object:
    """What tells a picture of an item from others."""
    image = item.image
    return image if isinstance(image, bytes) else str(image) if isinstance(image, Path) else id(image)
