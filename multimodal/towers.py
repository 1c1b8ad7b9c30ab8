"""What two-tower encoders share: windows, decoding ahead of the model, transforms, and fusion of text with image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
import PIL.Image
import torch

from ..checkpoints.sharing import list_cores
from ..encoders.base import EncoderSpec, check_finite, unit
from ..encoders.batching import Budget, compute_batches, prepare_windows
from ..errors import InputError
from ..items import Dense, Item, Role
from ..media.images import open_image

T = TypeVar("T")
Fusion = Literal["feature", "score"]
DECODERS = min(16, len(list_cores()))
# No tokenizer makes fewer tokens of more characters: the rest of a long text need not be read to be cut off.
CHARACTERS_PER_TOKEN = 64
PATCH = 14 * 14  # pixels that cost a vision tower about what a token costs the language model
# Tokens a batch of a vision-language model, patches included.
BUDGET = {"cpu": 4096, "cuda": 65536, "mps": 16384}
HELD = 256 << 20  # bytes of pictures that a window may hold; another window is made ahead


class TwoTower:
    """An encoder of texts and images into one space: a subclass sets `spec` and writes `texts` and `images`.

    Vectors are float32 of length 1. An item with both gets one vector: `fuse_vectors` of its two with `text_weight`,
    shorter than 1 if `fusion` is `score`. An `instruction` opens every query's text, and is the text of one that has
    only an image (as in UniIR; Wei et al. 2024). Images are decoded by a few threads while the model works, JPEGs as
    coarsely as leaves `shortest` pixels of the shorter side; a window of at most `window` items is made ahead, less
    where pictures of `held` bytes would fill the memory, and `image_batch` images go into a model call.
    """

    spec: EncoderSpec
    window: int = 256
    image_batch: int = 16
    held: int = 1 << 20
    shortest: int = 0
    text_weight: float = 0.5
    fusion: Fusion = "feature"
    instruction: str = ""

    def texts(self, texts: Sequence[str], role: Role, langs: Sequence[str | None]) -> np.ndarray:
        """Vectors float32 [n, dim] of texts; `langs` are their ISO 639-3 codes where known."""
        raise NotImplementedError

    def images(self, images: Sequence[Any]) -> np.ndarray:
        """Vectors float32 [n, dim] of what `prepare` returned."""
        raise NotImplementedError

    def prepare(self, image: PIL.Image.Image) -> Any:
        """A model input from an RGB image of at most `spec.max_pixels`; runs in a thread."""
        return image

    def template(self, lang: str | None) -> str:
        """What goes around a query's text in an ISO 639-3 language, with {} where the text stands."""
        return "{}"

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items."""

        def open_one(item: Item) -> Any:
            return self.prepare(open_picture(item, self.spec.max_pixels, self.shortest))

        def open_images(group: Sequence[Item]) -> list[Any]:
            return list(map_in_threads(open_one, [item for item in group if item.image is not None]))

        limit = Budget(self.image_batch)
        weight = weigh_pictures(self.held, self.window)
        with closing(prepare_windows(items, self.spec, open_images, self.window, weight)) as ready:
            for group, pictures in ready:
                if role == "query":
                    group = [self.word_query(item) for item in group]
                ids = [item.id for item in group]
                worded, seen = (np.array([kind in item.modalities for item in group]) for kind in ("text", "image"))
                pictured = np.flatnonzero(seen)
                vectors = np.zeros((len(group), self.spec.dim), np.float32)
                names = [ids[row] for row in pictured]
                for rows, made in compute_batches(pictures, [1] * len(pictures), names, self.images, limit):
                    vectors[pictured[rows]] = unit(made)
                words = np.zeros_like(vectors)
                if texted := [item for item, has in zip(group, worded, strict=True) if has]:
                    texts, langs = [item.text or "" for item in texted], [item.lang for item in texted]
                    words[worded] = unit(self.texts(texts, role, langs))
                vectors[~seen] = words[~seen]
                both = worded & seen
                vectors[both] = fuse_vectors(words[both], vectors[both], self.text_weight, self.fusion)
                check_finite(ids, vectors, self.spec.name, self.spec.dtype)
                yield Dense(ids, vectors)

    def word_query(self, item: Item) -> Item:
        """A query as it is encoded: its text in the template, the instruction before it."""
        text = self.template(item.lang).replace("{}", item.text or "") if "text" in item.modalities else ""
        return replace(item, text=f"{self.instruction} {text}".strip() if self.instruction else text)


class Pixels:
    """A transform of torchvision's kind, of open_clip or timm, applied as they do.

    Where it ends as theirs do, by making floats of 0..255 and subtracting means, pictures wait as bytes, a quarter of
    the memory; the floats are then the same. `side` is what the shorter side of a picture is resized to, `shortest`
    that at which it may be decoded without loss, both 0 if unknown; `held` is about its bytes while it waits.
    """

    def __init__(self, transform: Any) -> None:
        from torchvision.transforms import Compose, Normalize, ToTensor

        steps = list(getattr(transform, "transforms", ()))
        self.mean: torch.Tensor | None = None
        self.geometry: Any = transform
        if len(steps) > 1 and isinstance(steps[-1], Normalize) and isinstance(steps[-2], ToTensor):
            self.geometry = Compose(steps[:-2])
            self.mean, self.std = (
                torch.as_tensor(value, dtype=torch.float32).view(-1, 1, 1) for value in (steps[-1].mean, steps[-1].std)
            )
        size = getattr(steps[0], "size", 0) if steps else 0
        self.side = int(max(size) if isinstance(size, Sequence) else size)
        self.shortest = 2 * self.side  # what is then resized to half loses nothing that can be seen
        self.held = 3 * self.side**2 * (4 if self.mean is None else 1)

    def one(self, image: PIL.Image.Image) -> torch.Tensor:
        """An RGB picture as it waits: uint8 (or float32, where the transform is another) [3, height, width]."""
        made = self.geometry(image)
        return made if isinstance(made, torch.Tensor) else torch.from_numpy(np.array(made)).permute(2, 0, 1)

    def batch(self, pictures: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
        """What the transform would have made, float32 [n, 3, height, width], channels last."""
        # Stacked as they lie in memory: a height, a width, the colours.
        stacked = torch.stack([each.permute(1, 2, 0) for each in pictures]).permute(0, 3, 1, 2).to(device)
        if self.mean is None:
            return stacked.float()
        mean, std = self.mean.to(device), self.std.to(device)
        return stacked.float().div_(255).sub_(mean).div_(std)


def open_picture(item: Item, max_pixels: int, shortest: int | None = None) -> PIL.Image.Image:
    """An item's image within limits, as `open_image` has them; `InputError` names the item and its path."""
    where = f" ({item.image})" if isinstance(item.image, os.PathLike) else ""
    assert item.image is not None
    return open_image(item.image, max_pixels=max_pixels, shortest=shortest, name=f"item {item.id!r}{where}")


def weigh_pictures(held: int, window: int) -> Callable[[Item], int]:
    """How much of a window an item fills, where a picture holds `held` bytes: `HELD` bytes, or all items, fill it."""
    share = max(1, min(window, -(-window * held // HELD)))
    return lambda item: 1 if item.image is None else share


def map_in_threads(work: Callable[[Item], T], items: Sequence[Item]) -> Iterator[T]:
    """`map(work, items)` by threads, in order."""
    if len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(min(DECODERS, len(items)), thread_name_prefix="crosslens-decode") as pool:
        yield from pool.map(work, items)


def fuse_vectors(text: np.ndarray, image: np.ndarray, text_weight: float = 0.5, how: Fusion = "feature") -> np.ndarray:
    """The weighted mean of unit vectors, float32 [n, dim] from twice [n, dim] in one shared space.

    `text_weight` in 0..1 is the share of the text; the image has the rest. The inner product of the mean with any
    vector is the weighted mean of the products with its parts, so score fusion (CLIP-SF of UniIR; Wei et al. 2024)
    needs no second search: `score` leaves the mean as it is, shorter the less its parts agree. `feature` scales it to
    length 1. A query's length changes no ranking, so the two differ only in how documents with both stand to the
    others: `score` ranks one by the mean of its parts' cosines, `feature` by the cosine with their common direction.
    (UniIR's other feature fusion mixes the towers by trained layers, which plain CLIP checkpoints do not have.)
    """
    mean = text_weight * unit(text) + (1 - text_weight) * unit(image)
    return unit(mean) if how == "feature" else mean.astype(np.float32)


def check_text_weight(weight: float) -> None:
    """`InputError` unless the weight is in 0..1."""
    if not 0 <= weight <= 1:
        raise InputError(f"text_weight must be in 0..1, not {weight}")
