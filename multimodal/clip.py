"""`clip:` any open_clip model (Radford et al. 2021; Cherti et al. 2023), multilingual ones included."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import pickle
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import langcodes
import numpy as np
import PIL.Image
import torch
from huggingface_hub import constants
from safetensors import SafetensorError

from ..checkpoints.devices import Precision, choose_token_budget, name_dtype, resolve_device, resolve_dtype
from ..checkpoints.hub import HUB
from ..checkpoints.openvino import open_exported_pictures, require_backend
from ..encoders.base import EncoderSpec
from ..encoders.batching import Budget, compute_batches
from ..errors import InputError, check_at_least, unknown_name
from ..files import open_file, read_bytes
from ..items import Role, group_positions
from ..media.images import MAX_PIXELS
from .clip_spans import count_special_tokens, locate_clip_tokens
from .towers import CHARACTERS_PER_TOKEN, Fusion, Pixels, TwoTower, check_text_weight

# open_clip switches the threads of every Hugging Face tokenizer in the process off; they are ours to keep.
_parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
import open_clip  # noqa: E402
from open_clip.hf_model import HFTextEncoder  # noqa: E402

if _parallelism is None:
    os.environ.pop("TOKENIZERS_PARALLELISM", None)
else:
    os.environ["TOKENIZERS_PARALLELISM"] = _parallelism

# Pixels a batch of pictures. On a CPU 64 of 224 x 224: its threads wait for each other at every layer of a batch, which
# costs the more, the smaller it is (on busy cores 136 ms of processor a picture by 16, 79 by 64; ViT-B-32, bfloat16).
IMAGE_BUDGET = {"cpu": 64 * 224**2, "cuda": 256 * 224**2, "mps": 32 * 224**2}
CONFIG = "open_clip_config.json"


@dataclass(eq=False, kw_only=True)
class ClipEncoder(TwoTower):
    """Texts and images in a CLIP model's space, float32 [dim] of length 1.

    Tokenizer and transform are the model's own. NLLB text towers know each text's language by `Item.lang`, English
    where it is unknown.
    """

    model: Any
    tokenizer: Any
    pixels: Pixels
    spec: EncoderSpec
    device: torch.device
    tower: torch.nn.Module | None = None  # what sees pictures, where the model does not

    def __post_init__(self) -> None:
        self.model = self.model.eval().requires_grad_(False)
        how: Any = self.spec.extra
        self.text_weight, self.fusion = how["text_weight"], how.get("fuse", "feature")
        self.templates: Mapping[str, str] = how.get("templates", {})  # by language; that of "" for all
        self.instruction = how.get("instruct", "")
        self.transform = self.pixels.one
        self.held, self.shortest = self.pixels.held, self.pixels.shortest
        self.text_budget = Budget(choose_token_budget(self.device))
        self.image_batch = max(1, IMAGE_BUDGET[self.device.type] // (self.pixels.side or 224) ** 2)
        self.dtype: torch.dtype = getattr(torch, self.spec.dtype)
        # A Hugging Face tower masks its padding, so that the padding may be left off: short texts get much faster.
        tower = getattr(self.model, "text", None)
        self.padding = int(tower.config.pad_token_id) if isinstance(tower, HFTextEncoder) else None
        self.languages = _list_languages(self.tokenizer)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        dtype: Precision = "auto",
        backend: Literal["torch", "openvino"] = "torch",
        max_pixels: int = MAX_PIXELS,
        text_weight: float = 0.5,
        fuse: Fusion = "feature",
        template: str | None = None,
        instruct: str | None = None,
    ) -> ClipEncoder:
        """Load `ARCH/PRETRAINED`, `ARCH//path/to/weights`, `hf-hub:OWNER/NAME` or a directory of open_clip's.

        Weights are safetensors where there are such, and else are read without unpickling code. `backend` is that of
        the image tower; texts are torch's.
        `max_pixels` bounds images before the model's own transform. Of items with both the text has the share
        `text_weight` in 0..1, and `fuse` says how (`towers.fuse_vectors`). Queries' texts are put into `template`: one
        with {} where the text stands, for all languages, or `photo`, which says "a photo of" in the query's language
        (English if it has none) and leaves texts in languages that it does not know bare. `instruct` opens them.
        `InputError` for an unknown architecture or tag, for weights that are missing, unsafe or of another model, for
        a template without {}.
        """
        templates = _read_templates(template)
        check_text_weight(text_weight)
        check_at_least(1, max_pixels=max_pixels)
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        if backend != "torch":
            require_backend(backend, precision, where)
        name, pretrained = locate_clip(checkpoint)
        if not (name.startswith("local-dir:") or Path(str(pretrained)).is_file()):
            HUB.answers()  # else what the cache has is taken
        with _explain(checkpoint):
            config = open_clip.get_model_config(name)
            text = config["text_cfg"]
            loaded = precision if backend == "torch" else torch.float32
            options: dict[str, Any] = {"precision": _PRECISIONS[loaded], "device": where, "weights_only": True}
            if name.startswith("local-dir:") and "hf_model_name" in text:
                # The tower's Hugging Face config may lie in the directory too; open_clip itself asks the hub.
                inside = Path(name.removeprefix("local-dir:"), text["hf_model_name"])
                if (inside / "config.json").is_file():
                    options["text_cfg"] = {**text, "hf_model_name": str(inside), "hf_model_pretrained": False}
            # Weights trained with QuickGELU are wrong without it, and open_clip only warns.
            quick = bool(pretrained and open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu"))
            model, transform = open_clip.create_model_from_pretrained(
                name, pretrained, force_quick_gelu=quick, **options
            )
            # Stated, so that a checkpoint's own tokenizer_kwargs cannot ask for its code to be run.
            trust = {"trust_remote_code": trust_remote_code} if text.get("hf_tokenizer_name") else {}
            tokenizer = open_clip.get_tokenizer(name, **trust)
            if (inner := getattr(tokenizer, "tokenizer", None)) is not None:
                # As all of them were trained; transformers 5 pads those of Gemma's class (SigLIP 2) on the left.
                inner.padding_side = "right"
            revision = _identify_weights(name, pretrained)
        extra = {"preprocess": model.visual.preprocess_cfg, "tokenizer": text.get("tokenizer_kwargs") or {}}
        tower = None
        if backend != "torch":
            size = model.visual.image_size
            size = (size, size) if isinstance(size, int) else tuple(size)
            settings = {"model": config, "quick": quick, "open_clip": open_clip.__version__}
            tower = open_exported_pictures(settings, revision, model.eval, size, precision, "encode_image")
            model.visual = torch.nn.Identity()
            model = model.to(precision)
        # Only where they are wanted: vectors made without them stay what they were.
        more = {"fuse": fuse, "templates": templates, "instruct": instruct}
        extra |= {"text_weight": text_weight} | {k: v for k, v in more.items() if v and v != "feature"}
        stated = open_clip.CLIPTextCfg(**text)
        spec = EncoderSpec(
            name=f"clip:{checkpoint}",
            revision=revision,
            modalities=("text", "image"),
            dim=int(config["embed_dim"]),
            pooling=str(stated.hf_pooler_type if stated.hf_model_name else stated.pool_type),
            special_tokens=_read_special_tokens(tokenizer),
            max_tokens=tokenizer.context_length,
            max_pixels=max_pixels,
            query_prompt=templates.get("", template or ""),
            normalized=fuse == "feature",
            metric="cosine" if fuse == "feature" else "dot",
            extra=json.loads(json.dumps(extra)),
            dtype=name_dtype(precision),
        )
        return cls(model=model, tokenizer=tokenizer, pixels=Pixels(transform), spec=spec, device=where, tower=tower)

    def template(self, lang: str | None) -> str:
        if not self.templates:
            return "{}"
        closest = _find_closest(lang or "eng", tuple(self.templates), 10)
        return self.templates.get("") or self.templates.get(closest, "{}")

    def prepare(self, image: PIL.Image.Image) -> torch.Tensor:
        """The picture in the model's size, as `Pixels.one` has it: [3, height, width]."""
        return self.transform(image)

    @torch.inference_mode()
    def images(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        pixels = self.pixels.batch(images, self.device)
        if self.tower is not None:
            return np.asarray(self.tower(pixels))
        return np.asarray(self.model.encode_image(pixels.to(self.dtype)).float().cpu())

    def texts(self, texts: Sequence[str], role: Role, langs: Sequence[str | None]) -> np.ndarray:
        ids = self.token_ids(texts, langs)
        padding = torch.zeros_like(ids, dtype=torch.bool) if self.padding is None else ids == self.padding
        lengths = (~padding).sum(dim=1).tolist()
        pieces = [row[:length] for row, length in zip(ids, lengths, strict=True)]
        names = [repr(text[:40]) for text in texts]
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        for rows, found in compute_batches(pieces, lengths, names, self._embed_texts, self.text_budget):
            vectors[rows] = found
        return vectors

    def token_ids(self, texts: Sequence[str], langs: Sequence[str | None] | None = None) -> torch.Tensor:
        """What the model will see, int64 [n, max_tokens]: cleaned, truncated, padded, with special tokens."""
        # Byte-pair merging in Python takes the square of a text's length.
        longest = max(4096, CHARACTERS_PER_TOKEN * self.tokenizer.context_length)
        texts = [text[:longest] for text in texts]
        if not self.languages:
            return torch.as_tensor(self.tokenizer(texts))
        ids = torch.empty((len(texts), self.tokenizer.context_length), dtype=torch.long)
        codes = [_find_closest(lang or "eng", self.languages) or "eng_Latn" for lang in langs or [None] * len(texts)]
        for code, rows in group_positions(codes).items():
            # Not `set_language`: transformers 5 returns to `src_lang` with every call.
            self.tokenizer.tokenizer.src_lang = code
            ids[rows] = self.tokenizer([texts[row] for row in rows])
        return ids

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        return locate_clip_tokens(self.tokenizer, texts, self.spec.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside special tokens and the longest template (`encoders.base.Tokenizes`)."""
        frames = [""]
        if role == "query":
            frames = [f"{self.instruction} {each.replace('{}', '')}" for each in self.templates.values() or [""]]
        longest = max(len(spans) for spans in self.token_spans(frames))
        return self.spec.max_tokens - count_special_tokens(self.tokenizer) - longest

    @torch.inference_mode()
    def _embed_texts(self, ids: Sequence[torch.Tensor]) -> np.ndarray:
        padded = torch.nn.utils.rnn.pad_sequence(list(ids), True, self.padding or 0).to(self.device)
        return np.asarray(self.model.encode_text(padded).float().cpu())


_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "pure_bf16", torch.float16: "pure_fp16"}


def locate_clip(checkpoint: str) -> tuple[str, str | None]:
    """open_clip's model name and weights (a tag or a path; None where the name holds both) for a checkpoint.

    `InputError` for an unknown architecture or tag, a file that is not there, or a directory without a config.
    """
    if checkpoint.startswith("hf-hub:"):
        if "naflex" in checkpoint.lower():
            raise _refuse_naflex(checkpoint)
        return checkpoint, None
    folder = Path(checkpoint.removeprefix("local-dir:"))
    if checkpoint.startswith("local-dir:") or folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder}: no {CONFIG} there; write clip:ARCH/{folder}/WEIGHTS for bare weights")
        return f"local-dir:{folder}", None
    name, _, weights = checkpoint.partition("/")
    known = open_clip.list_models()
    if name not in known:
        if "naflex" in name.lower():
            raise _refuse_naflex(name)
        # There are more than a hundred architectures: one line names the closest.
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.3)
        nearest = ", ".join(close) or known[0]
        raise InputError(f"unknown open_clip architecture {name!r}; the nearest of {len(known)} are {nearest}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not weights:
        raise InputError(f"clip:{name} names no weights; write clip:{name}/TAG (known: {', '.join(tags) or 'none'})")
    if weights in tags or Path(weights).is_file():
        return name, weights
    if "/" in weights or Path(weights).suffix in (".safetensors", ".bin", ".pt", ".pth"):
        raise InputError(f"{weights}: there is no such file of weights for {name}")
    raise unknown_name(weights, tags, f"weights of {name}")


def _refuse_naflex(name: str) -> InputError:
    # Looked up in open_clip 3.3: image towers of one size each, nothing for pictures of any aspect.
    return InputError(
        f"clip:{name}: open_clip {open_clip.__version__} has no NaFlex towers (SigLIP 2 at any aspect); take one of a "
        "fixed size, as clip:ViT-B-16-SigLIP2-512/webli"
    )


@contextmanager
def _explain(checkpoint: str) -> Iterator[None]:
    """What open_clip, transformers and torch say of a checkpoint that does not load, as one `InputError`."""
    # open_clip logs at the root what it then raises, and so installs a handler there where there is none.
    root, silent = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silent)
    root.setLevel(logging.CRITICAL)
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"cannot load clip:{checkpoint}: its weights are a pickle that may run code; use safetensors"
        ) from None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:300] or type(error).__name__
        if "Failed to download" in reason and constants.HF_HUB_OFFLINE:
            reason = f"the cache of the hub does not have it, and {HUB.explain()}"
        raise InputError(f"cannot load clip:{checkpoint}: {reason}") from None
    finally:
        root.setLevel(level)
        root.removeHandler(silent)


def _identify_weights(name: str, pretrained: str | None) -> str:
    """A hub snapshot's commit, else the sha256 of the weights (and a directory's config), 16 hex digits."""
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        weights = Path(open_clip.factory._find_checkpoint_in_dir(folder))  # noqa: SLF001 - as open_clip itself does
    elif name.startswith("hf-hub:"):
        weights = Path(open_clip.pretrained.download_pretrained_from_hf(name.removeprefix("hf-hub:")))
    elif (tag := open_clip.get_pretrained_cfg(name, pretrained)) != {}:
        weights = Path(open_clip.download_pretrained(tag))
    else:
        weights = Path(str(pretrained))
    if (commit := re.search(r"/snapshots/([0-9a-f]{40})/", weights.as_posix())) is not None:
        return commit[1]
    with open_file(weights) as data:
        digest = hashlib.file_digest(data, "sha256")
    if name.startswith("local-dir:"):
        digest.update(read_bytes(folder / CONFIG))
    return digest.hexdigest()[:16]


def _read_special_tokens(tokenizer: Any) -> str:
    """What the tokenizer puts around a text, as it writes it."""
    if (inner := getattr(tokenizer, "tokenizer", None)) is not None:
        return str(inner.decode(inner("")["input_ids"]))
    return "".join(tokenizer.decoder[token] for token in tokenizer.all_special_ids)


def _list_languages(tokenizer: Any) -> tuple[str, ...]:
    """The languages that a text can be said to be in, as FLORES-200 writes them (`zho_Hans`); often none."""
    inner: Any = getattr(tokenizer, "tokenizer", None)
    if not hasattr(inner, "src_lang"):
        return ()
    return tuple(sorted(token for token in inner.get_vocab() if re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", token)))


@lru_cache(maxsize=1024)
def _find_closest(lang: str, languages: tuple[str, ...], distance: int = 20) -> str:
    """Which of the languages an ISO 639-3 code means; empty if none of them."""
    try:
        match, _ = langcodes.closest_match(lang, languages, max_distance=distance)
    except langcodes.LanguageTagError:
        return ""
    return match if match in languages else ""


def _read_templates(template: str | None) -> Mapping[str, str]:
    if template is None:
        return {}
    if template == "photo":
        return tomllib.loads(files(__package__).joinpath("photo.toml").read_text("utf-8"))
    if template.count("{}") != 1:
        raise InputError(f"the template {template!r} must have one {{}} where the text stands, or be photo")
    return {"": template}
