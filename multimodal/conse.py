"""`offline:conse`: photos in the space of a multilingual text encoder, without CLIP (Norouzi et al. 2014)."""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from safetensors.torch import load_file

from ..checkpoints.devices import Precision, resolve_device
from ..checkpoints.offline.packages import keep_tensors, locate_cache, make_checkpoint
from ..checkpoints.openvino import open_exported_pictures, require_backend
from ..checkpoints.options import limit_to
from ..encoders.base import Encoder, EncoderSpec, Tokenizes, encode_matrix, unit
from ..encoders.ensemble import Ensemble
from ..encoders.registry import load_encoder
from ..errors import InputError, check_at_least
from ..files import hash_file
from ..items import Item, Role
from ..media.images import MAX_PIXELS
from .towers import Pixels, TwoTower, check_text_weight

PROMPT = "{}"  # how a class name is worded: with e5, "a photo of a {}" found fewer photos in most languages
# Chosen together on the dev halves of Tux Paint's stamps and of emoji (benchmarks/photos.py). Names are centred, so
# that what is spread over all classes adds up to nearly nothing.
TOP, SHARPNESS, BLANK = 1000, 0.7, 0.6
View = Literal["whole", "middle"]
Words = Literal["e5-use", "e5-small", "use-m3"]
SHARES = {"e5-use": (1.0, 2.0)}  # of its two encoders' cosines, once they are centred; others have one
FILL = 255  # white, as transparency is laid on


@dataclass(eq=False, kw_only=True)
class ConSE(TwoTower):
    """An image is the convex combination of the text vectors of its most likely ImageNet classes.

    The weights are the classes' probabilities to the power `sharpness` (1 in the paper), scaled to sum to 1. Each is
    first divided by what the class has in a picture that is all white, to the power `blank`: what the model sees where
    nothing is to be seen counts for less (as Zhao et al. 2021 calibrate language models; 0 leaves it out).
    From texts and images the mean vector of the 1,000 class names is subtracted: without it all vectors of
    such text encoders point one way. Any language that the text encoder knows finds photos of what ImageNet
    has a class for; it has none for people or for most plants. Vectors are float32 [dim] of length 1.

    Where the text encoder is an `Ensemble`, the part of each member is centred by itself, and has a share of the
    cosine (`shares`, one a member). A text in a language that a member does not know has nothing in its part.

    `view` is what the image model sees: the `whole` picture, made square by white margins, or its `middle` square,
    as it was trained, where what stands at the edges is lost.
    """

    weights: Path
    text: Encoder
    names: np.ndarray
    spec: EncoderSpec
    device: torch.device
    backend: Literal["torch", "openvino"] = "torch"

    def __post_init__(self) -> None:
        how: Any = self.spec.extra
        self.top, self.sharpness, self.text_weight = how["top"], how["sharpness"], how["text_weight"]
        self.view: View = how["view"]
        self.blank, self.shares = how["blank"], how["shares"]
        self.readers = self.text.members if isinstance(self.text, Ensemble) else [self.text]
        ends = list(accumulate(reader.spec.dim for reader in self.readers))
        self.parts = [slice(end - reader.spec.dim, end) for reader, end in zip(self.readers, ends, strict=True)]
        self.names = np.concatenate([unit(self.names[:, part]) for part in self.parts], axis=1)
        self.centre = self.names.mean(axis=0)
        self.names = self.names - self.centre
        self._tower: tuple[torch.nn.Module, Pixels] | None = None
        self._loading = Lock()
        self._white: np.ndarray | None = None

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str = "conse",
        *,
        device: str = "auto",
        text: Words = "e5-use",
        top: int = TOP,
        sharpness: float = SHARPNESS,
        blank: float = BLANK,
        view: View = "whole",
        dtype: Precision = "auto",
        backend: Literal["torch", "openvino"] = "torch",
        max_pixels: int = MAX_PIXELS,
        text_weight: float = 0.5,
    ) -> ConSE:
        """Load EfficientNet-Lite2 and a text encoder from packages; class names are encoded once and cached.

        `top` classes in 1..1000 are combined; `dtype` is the text encoder's, `backend` that of both models.
        `InputError` if a package is missing or an option out of its range.
        """
        check_text_weight(text_weight)
        check_at_least(1, max_pixels=max_pixels)
        top = limit_to("offline:conse", "top", top, len(list_classes()))
        if not 0 < sharpness <= 10:
            raise InputError(f"sharpness must be above 0 and at most 10, not {sharpness}")
        if not 0 <= blank <= 1:
            raise InputError(f"blank must be in 0..1, not {blank}")
        where = resolve_device(device)
        if backend != "torch":
            require_backend(backend, torch.float32, where)
        weights = make_checkpoint("efficientnet-lite2") / "model.safetensors"
        how: dict[str, Any] = {"view": view, "top": top, "sharpness": sharpness, "blank": blank}
        how |= {"shares": list(SHARES.get(text, (1.0,))), "text_weight": text_weight}
        words = _load_text(text, dtype, device, backend)
        words.spec = replace(words.spec, name=f"offline:{text}")  # a precision is not another space
        spec = replace(
            words.spec,
            name=f"offline:{checkpoint}",
            revision=f"{hash_file(weights)[:16]}+{words.spec.revision}",
            modalities=("text", "image"),
            document_prompt=words.spec.query_prompt,  # a caption and a query are worded alike
            max_pixels=max_pixels,
            extra={"text": words.spec.fingerprint, "classes": _hash_classes(words.spec), **how},
        )
        # In float32 whatever the precision: the cached vectors must not depend on who came first.
        names = embed_classes(words.spec, lambda: _load_text(text, "float32", device))
        return cls(weights=weights, text=words, names=names, spec=spec, device=where, backend=backend)

    @property
    def tower(self) -> tuple[torch.nn.Module, Pixels]:
        """The image model and its transform, loaded with the first image: text queries do without."""
        with self._loading:  # by one of the threads that decode
            if self._tower is None:
                self._tower = open_image_tower(self.weights, self.device, self.view, self.backend)
        return self._tower

    def prepare(self, image: PIL.Image.Image) -> torch.Tensor:
        """uint8 [3, 260, 260], scaled bicubically: of the whole picture, or of its middle 89 %; -1..1 in the model."""
        return self.tower[1].one(image)

    def probabilities(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        """ImageNet class probabilities, float32 [n, 1000], of what `prepare` returned."""
        with torch.inference_mode():
            pixels = self.tower[1].batch(images, self.device)
            return np.asarray(self.tower[0](pixels).float().softmax(dim=-1).cpu())

    @property
    def white(self) -> np.ndarray:
        """The class probabilities of a white picture, float32 [1000]."""
        if self._white is None:
            self._white = self.probabilities([self.prepare(PIL.Image.new("RGB", (64, 64), "white"))])[0]
        return self._white

    def images(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        return self.combine(self.probabilities(images))

    def combine(self, chances: np.ndarray) -> np.ndarray:
        """Vectors, float32 [n, dim], of pictures with these class probabilities [n, 1000]."""
        if self.blank:
            chances = chances / self.white**self.blank
        weights = (chances / chances.max(axis=1, keepdims=True)) ** self.sharpness  # at most 1, whatever the power
        if self.top < weights.shape[1]:
            rest = np.argpartition(-weights, self.top - 1, axis=1)[:, self.top :]
            np.put_along_axis(weights, rest, 0, axis=1)
        return self._share_out(weights @ self.names / weights.sum(axis=1, keepdims=True))

    def texts(self, texts: Sequence[str], role: Role, langs: Sequence[str | None]) -> np.ndarray:
        return self.place(encode_matrix(self.text, _make_items(texts, langs), "query"))

    def place(self, texts: np.ndarray) -> np.ndarray:
        """Vectors, float32 [n, dim], of what the text encoder made of texts, [n, dim]."""
        centred = np.zeros_like(texts)
        for part in self.parts:
            known = texts[:, part].any(axis=1)
            centred[known, part] = unit(texts[known, part]) - self.centre[part]
        return self._share_out(centred)

    def _share_out(self, vectors: np.ndarray) -> np.ndarray:
        """The same with parts of length 1, each times the root of its share; one of zeros stays so."""
        made = [share**0.5 * unit(vectors[:, part]) for share, part in zip(self.shares, self.parts, strict=True)]
        return np.concatenate(made, axis=1)

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The text encoder's tokens (`encoders.base.Tokenizes`)."""
        return self._tokenizing.token_spans(texts)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit; documents are worded as queries are."""
        return self._tokenizing.room("query")

    @property
    def _tokenizing(self) -> Tokenizes:
        if not isinstance(self.text, Tokenizes):
            raise InputError(f"{self.text.spec.name}, inside {self.spec.name}, does not say where its tokens are")
        return self.text


def open_image_tower(
    weights: Path, device: torch.device, view: View, backend: str = "torch"
) -> tuple[torch.nn.Module, Pixels]:
    """EfficientNet-Lite2 (Tan and Le 2019) with its safetensors weights, and the transform to a view, from timm.

    In float32 always: in bfloat16 it is 2.6 times as fast on AMX, but vectors of photos that it is unsure
    of fall to a cosine of 0.87 with their float32 selves.
    """
    import timm
    from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio

    model: Any = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    model.load_state_dict(load_file(weights), strict=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    if view == "whole":
        side = transform.transforms[1].size  # of the crop
        square = [ResizeKeepRatio(side, longest=1, interpolation="bicubic"), CenterCropOrPad(side, fill=FILL)]
        transform.transforms = [*square, *transform.transforms[2:]]
    model = model.eval().requires_grad_(False)
    if backend != "torch":
        how = {"model": model.pretrained_cfg["architecture"], "timm": timm.__version__}
        height, width = model.pretrained_cfg["input_size"][1:]
        tower = open_exported_pictures(how, weights.parent.name, lambda: model, (height, width), torch.float32)
        return tower, Pixels(transform)
    return model.to(device=device, memory_format=torch.channels_last), Pixels(transform)


@cache
def list_classes() -> tuple[str, ...]:
    """The 1,000 ImageNet class names in the classes' order, as open_clip has them."""
    # Read from its file: importing the package takes as long as answering the query.
    (folder,) = find_spec("open_clip").submodule_search_locations  # type: ignore[union-attr, misc]
    return tuple(runpy.run_path(str(Path(folder) / "zero_shot_metadata.py"))["IMAGENET_CLASSNAMES"])


def embed_classes(spec: EncoderSpec, text: Callable[[], Encoder]) -> np.ndarray:
    """Unit vectors of ImageNet's class names, float32 [1000, dim], in the classes' order.

    They are read from the cache; where they are not there, `text` is loaded to make them. `InputError` if
    they cannot be written.
    """

    def make() -> dict[str, torch.Tensor]:
        classes = list_classes()
        worded = _make_items([PROMPT.format(name) for name in classes], ["eng"] * len(classes))
        return {"names": torch.from_numpy(unit(encode_matrix(text(), worded, "query")))}

    path = locate_cache() / f"conse-{_hash_classes(spec)}.safetensors"
    return np.asarray(keep_tensors(path, ["names"], "the vectors of the class names", make)["names"])


def _hash_classes(spec: EncoderSpec) -> str:
    """What decides the class vectors: the text encoder's space, and the names as they are worded."""
    names = "\n".join([spec.fingerprint, PROMPT, *list_classes()])
    return hashlib.sha256(names.encode()).hexdigest()[:12]


def _load_text(name: Words, dtype: str, device: str, backend: str = "torch") -> Encoder:
    how = "" if name == "use-m3" else f"?dtype={dtype}&backend={backend}"
    return load_encoder(f"offline:{name}{how}", device=device)


def _make_items(texts: Sequence[str], langs: Sequence[str | None]) -> list[Item]:
    return [Item(str(row), text, lang=lang) for row, (text, lang) in enumerate(zip(texts, langs, strict=True))]
