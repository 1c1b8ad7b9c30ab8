"""What gpu.py runs on: the device, the models that are here, and random ones of the same shapes where none is."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from crosslens.checkpoints.devices import resolve_device
from crosslens.checkpoints.offline.packages import is_available, make_checkpoint
from crosslens.items import Item
from crosslens.specs import Spec
from encode import demo_texts

ROOT = Path(__file__).resolve().parents[1]
# What crosslens or a peer in a comparison needs, and a bare machine may lack.
PACKAGES = (
    "transformers", "sentence-transformers", "peft", "accelerate", "open_clip_torch", "lancedb", "faiss-gpu", "faiss-cpu",
    "datasets", "flash-attn", "bitsandbytes",
)  # fmt: skip
# As multilingual-e5-small and Gemma 3 270M are built; their speed does not depend on what the weights are.
E5 = {
    "vocab_size": 250037, "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536,
}  # fmt: skip
GEMMA = {
    "vocab_size": 262144, "hidden_size": 640, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
    "head_dim": 256, "intermediate_size": 2048, "max_position_embeddings": 32768, "sliding_window": 512,
}  # fmt: skip
VIT_B_32 = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


class NotHere(Exception):
    """A check cannot be made here, for the reason given."""


@dataclass(frozen=True)
class Place:
    """Where checks run: a device, sizes for a CPU (`quick`) or a GPU, and a folder for models that are made."""

    device: str
    quick: bool
    folder: Path

    @cached_property
    def where(self) -> torch.device:
        return resolve_device(self.device)

    @property
    def on_gpu(self) -> bool:
        return self.where.type == "cuda"

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.where)

    def require_gpu(self) -> None:
        if not self.on_gpu:
            raise NotHere("no CUDA device")

    def text(self) -> tuple[Spec, str]:
        """A text encoder, and what it is: e5-small, or a tiny random BERT."""
        if not self.quick and is_available("e5-small"):
            return Spec("offline", "e5-small"), "e5-small"
        return Spec("hf", str(self._made("bert", _save_bert)), {"pooling": "mean"}), "a tiny random BERT"

    def llm(self) -> tuple[Spec, str]:
        """A decoder as a retriever: random, since no packages carry one."""
        return Spec("llm", str(self._made("llm", _save_llm)), {"pooling": "last"}), "a tiny random Qwen3"

    def clip(self) -> tuple[Spec, str]:
        """`NotHere` without open_clip."""
        require("open_clip", "open_clip_torch")
        return Spec("clip", str(self._made("clip", _save_clip))), "a tiny random CLIP"

    def vlm(self) -> tuple[Spec, str]:
        options = {"format": "plain", "max_pixels": str(64 * 64)}
        return Spec("vlm", str(self._made("vlm", _save_vlm)), options), "a tiny random Qwen2-VL"

    def judge(self) -> tuple[Spec, str]:
        """A causal judge: Gemma 3 270M, or a tiny random one; `NotHere` without langcodes, which prompts need."""
        require("langcodes")
        if not self.quick and is_available("gemma"):
            return Spec("offline", "gemma"), "Gemma 3 270M"
        return Spec("hf", str(self._made("gemma", _save_gemma))), "a tiny random Gemma 3"

    def fast_text(self) -> tuple[Spec, str]:
        """As `text`, but of e5-small's shape where speed is to be seen."""
        if self.quick or is_available("e5-small"):
            return self.text()
        folder = self._made("e5-shaped", lambda where: _save_bert(where, **E5))
        return Spec("hf", str(folder), {"pooling": "mean"}), "a random BERT of e5-small's shape"

    def fast_judge(self) -> tuple[Spec, str]:
        require("langcodes")
        if self.quick or is_available("gemma"):
            return self.judge()
        return Spec("hf", str(self._made("gemma-shaped", _save_gemma_shaped))), "a random Gemma 3 of 270M's shape"

    def fast_clip(self) -> tuple[Spec, str]:
        if self.quick:
            return self.clip()
        require("open_clip", "open_clip_torch")
        return Spec("clip", str(self._made("vit-b-32", _save_vit))), "a random ViT-B-32"

    def _made(self, name: str, save: Callable[[Path], object]) -> Path:
        """A checkpoint made once, also for the processes that come after this one."""
        target = self.folder / name
        if not target.exists():
            partial = Path(tempfile.mkdtemp(prefix=name, dir=self.folder))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                save(partial)
            os.replace(partial, target)
        return target


def require(module: str, package: str = "") -> None:
    """`NotHere` unless a module can be imported."""
    if (module in sys.modules and sys.modules[module] is None) or find_spec(module) is None:
        raise NotHere(f"{package or module} is not installed here")


def with_options(spec: Spec, **options: str) -> str:
    """A SPEC with more options."""
    return str(Spec(spec.family, spec.checkpoint, {**spec.options, **options}))


def find_folder(spec: Spec) -> str:
    """Where other libraries find the checkpoint of a SPEC."""
    return str(make_checkpoint(spec.checkpoint)) if spec.family == "offline" else spec.checkpoint


def demo_documents() -> list[Item]:
    """The demo's texts in 14 languages."""
    return [Item(str(number), text=text) for number, text in enumerate(demo_texts())]


def demo_queries(count: int) -> list[Item]:
    """Titles of the demo's texts as queries, as often as it takes."""
    texts = demo_texts()
    return [Item(f"q{number}", text=texts[number % len(texts)].partition("\n")[0]) for number in range(count)]


def mixed_items(count: int) -> list[Item]:
    """Texts of very different lengths, from the demo's."""
    draw, documents = random.Random(0), demo_documents()
    return [
        Item(str(number), text=" ".join(each.text or "" for each in draw.sample(documents, number % 5 + 1))[: 8 * (number + 1)])
        for number in range(count)
    ]  # fmt: skip


def describe_card(place: Place) -> dict[str, Any]:
    """The card, its driver and memory, and the versions of what runs on it."""
    found: dict[str, Any] = {
        "device": str(place.where),
        "versions": dict(list_versions()),
        "cores": len(os.sched_getaffinity(0)),
    }
    if place.on_gpu:
        card = torch.cuda.get_device_properties(place.where)
        found |= {
            "card": card.name,
            "capability": f"{card.major}.{card.minor}",
            "gib": round(card.total_memory / 2**30, 1),
            "driver": _ask_driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    return found


def list_versions() -> Iterator[tuple[str, str]]:
    yield "python", sys.version.split()[0]
    yield "torch", torch.__version__
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not here"


def _ask_driver() -> str:
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        said = []
    return said[0] if said else "unknown"


def _tiny() -> None:
    """The builders of tiny checkpoints are those of the tests, which a checkout has."""
    tests = str(ROOT / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)


def _save_bert(where: Path, **sizes: int) -> None:
    _tiny()
    from tiny.text import SIZES
    from tiny.tokenizers import make_tokenizer
    from transformers import BertConfig, BertModel

    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = make_tokenizer("[CLS] $A [SEP]", **special)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(where)
    shape: Mapping[str, Any] = sizes or {**SIZES, "vocab_size": len(tokenizer)}
    BertModel(BertConfig(max_position_embeddings=512, **shape), add_pooling_layer=False).save_pretrained(where)


def _save_llm(where: Path) -> None:
    _tiny()
    from tiny.decoders import save_llm

    save_llm(where, "Qwen3")


def _save_gemma(where: Path) -> None:
    _tiny()
    from tiny.decoders import save_gemma

    save_gemma(where)


def _save_gemma_shaped(where: Path) -> None:
    _tiny()
    from tiny.tokenizers import make_tokenizer
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = make_tokenizer(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    tokenizer.save_pretrained(where)
    ends = {f"{each}_token_id": getattr(tokenizer, f"{each}_token_id") for each in ("pad", "eos", "bos")}
    Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA, **ends)).save_pretrained(where)


def _save_clip(where: Path) -> None:
    _tiny()
    from tiny.vision import save_clip

    save_clip(where, {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1})


def _save_vit(where: Path) -> None:
    import json

    import open_clip
    from safetensors.torch import save_file

    preprocess = {
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (where / "open_clip_config.json").write_text(json.dumps({"model_cfg": VIT_B_32, "preprocess_cfg": preprocess}))
    towers = open_clip.CLIP(VIT_B_32["embed_dim"], VIT_B_32["vision_cfg"], VIT_B_32["text_cfg"])
    save_file(
        {name: each.clone().contiguous() for name, each in towers.state_dict().items()},
        where / "open_clip_model.safetensors",
    )


def _save_vlm(where: Path) -> None:
    _tiny()
    from safetensors.torch import load_file, save_file
    from tiny.vision import save_qwen_vl

    save_qwen_vl(where)
    file = where / "model.safetensors"
    # Its weights are so large, for its size, that they enlarge what half precision rounds.
    save_file(
        {name: each * (0.5 if each.dim() > 1 else 1) for name, each in load_file(file).items()}, file, {"format": "pt"}
    )
