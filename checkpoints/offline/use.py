"""Universal Sentence Encoder multilingual v3 from its package's files to one file of weights and a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import unpack
from typing import Any

import numpy as np

from ...errors import InputError
from .e5 import make_normalizer
from .packages import save_json, write_tokenizer

CHUNKS = (
    17  # that the embeddings are in: word n is row n // 17 of part n % 17, with a scale and a lowest value of its own
)
WIDTHS = (2, 3, 5)  # words that the three convolutions look at
UNKNOWN, FIRST, LAST = 0, 1, 2


def convert_use(files: Sequence[Path], directory: Path) -> None:
    """Write config, safetensors (embeddings as uint8, all else float32) and tokenizer into `directory`."""
    from safetensors.numpy import save_file

    weights, pieces = files
    with np.load(weights, allow_pickle=False) as held:
        save_file(_arrange(held), directory / "model.safetensors")
    _write_tokenizer(pieces, directory)
    save_json(directory / "config.json", {"model_type": "use-m3", "hidden_size": 512, "convolutions": WIDTHS})


def _arrange(held: Any) -> dict[str, np.ndarray]:
    """The tensors under names that say what they do; matrices are [in, out]."""
    parts = [held[f"q{number + 1}"] for number in range(CHUNKS)]

    def join(name: str) -> np.ndarray:
        return np.concatenate([held[f"{name}{width}"] for width in WIDTHS], axis=-1)

    tensors = {
        "words": np.stack(parts, axis=1).reshape(-1, parts[0].shape[1]),
        "words.scale": held["scale"],
        "words.lowest": held["lo"],
        "project.weight": join("proj"),
        "project.bias": join("proj_b"),
        "project.norm.weight": join("ln_g"),
        "project.norm.bias": join("ln_b"),
        "norm.weight": held["ln_g"],
        "norm.bias": held["ln_b"],
        "pool.weight": held["cnn_W"],
        "pool.bias": held["cnn_b"],
        "norm.eps": np.array([held["eps"]], np.float32),
        **{f"deep.{number}": held[f"d{number}"] for number in range(4)},
        **{f"skip.{number}": held[f"p{number}"] for number in (1, 3)},
    }
    for width in WIDTHS:
        for layer in (1, 2):
            tensors[f"convolution.{width}.{layer}.weight"] = held[f"w{layer}_{width}"]
            tensors[f"convolution.{width}.{layer}.bias"] = held[f"b{layer}_{width}"]
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _write_tokenizer(path: Path, directory: Path) -> None:
    """SentencePiece's unigram model; its normalisation is `nmt_nfkc`, as that of XLM-R."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = list(read_pieces(path))
    tokenizer = Tokenizer(models.Unigram(pieces, UNKNOWN, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([make_normalizer(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    first, last = pieces[FIRST][0], pieces[LAST][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, FIRST), (last, LAST)]
    )
    write_tokenizer(directory, tokenizer, 0, {})


def read_pieces(path: Path) -> Iterator[tuple[str, float]]:
    """The pieces of a SentencePiece model, a protocol buffer, with their scores; `InputError` if it is none."""
    data = path.read_bytes()
    try:
        for number, piece in _read_fields(data):
            if number == 1:
                fields = dict(_read_fields(piece))
                yield str(fields[1], "utf-8"), unpack("<f", fields.get(2, bytes(4)))[0]
    except (IndexError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a SentencePiece model: {error!r}") from None


def _read_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The numbers and the bytes of the fields of a message; of integers the bytes as they are written."""
    place = 0

    def read_number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(data):
        key = read_number()
        start = place
        if (kind := key & 7) == 0:
            read_number()
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        elif kind == 2:
            size = read_number()
            start, place = place, place + size
        else:
            raise ValueError(f"field of kind {kind}")
        yield key >> 3, data[start:place]
