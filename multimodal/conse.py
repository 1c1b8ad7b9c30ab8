"""`offline:conse`: photos in the space of a multilingual text encoder, without CLIP (Norouzi et al. 2014)."""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
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
from ..encoders.registry import load_encoder
from ..errors import InputError, check_at_least
from ..files import hash_file
from ..items import Item, Role
from ..media.images import MAX_PIXELS
from .towers import Pixels, TwoTower, check_text_weight

PROMPT = "{}"  # how a class name is worded: with e5, "a photo of a {}" found fewer photos in most languages
# 20 classes weighted by the root of their probability, against the paper's 10 by probability, on the 23
# photos of the collection `demo` (the choice was made there): mean reciprocal rank of 12 concepts named in
# 14 languages 0.59 against 0.54 with e5 and 0.64 against 0.57 with USE; photo to text nDCG@10 0.35 against
# 0.20, and 0.40 against 0.34.
TOP, SHARPNESS = 20, 0.5


@dataclass(eq=False, kw_only=True)
class ConSE(TwoTower):
    """An image is the convex combination of the text vectors of its most likely ImageNet classes.

    The weights are the classes' probabilities to the power `sharpness` (1 in the paper), scaled to sum to 1.
    From texts and images the mean vector of the 1,000 class names is subtracted: without it all vectors of
    such text encoders point one way. Any language that the text encoder knows finds photos of what ImageNet
    has a class for; it has none for people or for most plants. Vectors are float32 [dim] of length 1.
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
        self.centre = self.names.mean(axis=0)
        self.names = self.names - self.centre
        self._tower: tuple[torch.nn.Module, Pixels] | None = None
        self._loading = Lock()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str = "conse",
        *,
        device: str = "auto",
        text: Literal["e5-small", "use-m3"] = "e5-small",
        top: int = TOP,
        sharpness: float = SHARPNESS,
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
        where = resolve_device(device)
        if backend != "torch":
            require_backend(backend, torch.float32, where)
        weights = make_checkpoint("efficientnet-lite2") / "model.safetensors"
        how = {"top": top, "sharpness": sharpness, "text_weight": text_weight}
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
                self._tower = open_image_tower(self.weights, self.device, self.backend)
        return self._tower

    def prepare(self, image: PIL.Image.Image) -> torch.Tensor:
        """uint8 [3, 260, 260], as EfficientNet-Lite was trained: bicubic, the middle 89 %; -1..1 in the model."""
        return self.tower[1].one(image)

    def probabilities(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        """ImageNet class probabilities, float32 [n, 1000], of what `prepare` returned."""
        with torch.inference_mode():
            pixels = self.tower[1].batch(images, self.device)
            return np.asarray(self.tower[0](pixels).float().softmax(dim=-1).cpu())

    def images(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        chances = self.probabilities(images) ** self.sharpness
        best = np.argpartition(-chances, self.top - 1, axis=1)[:, : self.top]
        weights = np.take_along_axis(chances, best, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.einsum("nk,nkd->nd", weights, self.names[best])

    def texts(self, texts: Sequence[str], role: Role, langs: Sequence[str | None]) -> np.ndarray:
        return unit(encode_matrix(self.text, _make_items(texts), "query")) - self.centre

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


def open_image_tower(weights: Path, device: torch.device, backend: str = "torch") -> tuple[torch.nn.Module, Pixels]:
    """EfficientNet-Lite2 (Tan and Le 2019) with its safetensors weights, and its transform, from timm.

    In float32 always: in bfloat16 it is 2.6 times as fast on AMX, but vectors of photos that it is unsure
    of fall to a cosine of 0.87 with their float32 selves.
    """
    import timm

    model: Any = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    model.load_state_dict(load_file(weights), strict=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
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
        worded = _make_items([PROMPT.format(name) for name in list_classes()])
        return {"names": torch.from_numpy(unit(encode_matrix(text(), worded, "query")))}

    path = locate_cache() / f"conse-{_hash_classes(spec)}.safetensors"
    return np.asarray(keep_tensors(path, ["names"], "the vectors of the class names", make)["names"])


def _hash_classes(spec: EncoderSpec) -> str:
    """What decides the class vectors: the text encoder's space, and the names as they are worded."""
    names = "\n".join([spec.fingerprint, PROMPT, *list_classes()])
    return hashlib.sha256(names.encode()).hexdigest()[:12]


def _load_text(name: str, dtype: str, device: str, backend: str = "torch") -> Encoder:
    how = f"?dtype={dtype}&backend={backend}" if name == "e5-small" else ""
    return load_encoder(f"offline:{name}{how}", device=device)


def _make_items(texts: Sequence[str]) -> list[Item]:
    return [Item(str(row), text) for row, text in enumerate(texts)]
