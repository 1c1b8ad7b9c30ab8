"""`offline:use-m3`: Universal Sentence Encoder multilingual v3 (Yang et al. 2020), in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from ..checkpoints.mapped import map_tensors
from ..checkpoints.offline.packages import find_model, make_checkpoint
from ..checkpoints.offline.use import CHUNKS, FIRST, LAST, UNKNOWN, WIDTHS
from ..checkpoints.pieces import PieceTokenizer
from ..items import Batch, Item, Role
from .base import EncoderSpec, unit
from .batching import encode_windows

MAX_CHARACTERS = 20_000  # time and memory grow with a text's length, and the model itself sets no limit
TOKENS = 512  # a batch: what is computed from them stays in a core's cache
GAP = max(WIDTHS) // 2  # rows of zeros between texts, so that no convolution sees two of them


class SentenceNetwork:
    """The network of a converted checkpoint: three convolutions over the words' embeddings, their sum, four layers."""

    def __init__(self, folder: Path) -> None:
        self._held = map_tensors(folder / "model.safetensors").arrays
        self._eps = float(self._held["norm.eps"][0])

    def embed(self, batch: Sequence[Sequence[int]]) -> np.ndarray:
        """Vectors float32 [n, 512] of length 1, of the token ids of n texts, none of which is empty."""
        held = self._held
        lengths = np.array(list(map(len, batch)))
        starts = np.cumsum(lengths) - lengths
        ids = np.fromiter(chain.from_iterable(batch), np.int64, int(lengths.sum()))
        # Where the words lie in matrices that have gaps between texts.
        places = np.arange(len(ids)) + GAP * np.repeat(np.arange(1, len(batch) + 1), lengths)
        rows = len(ids) + GAP * (len(batch) + 1)

        part = ids % CHUNKS
        words = held["words"][ids] * held["words.scale"][part, None] + held["words.lowest"][part, None]
        projected = self._normalise(words @ held["project.weight"] + held["project.bias"], "project.norm")
        seen = [words]
        for width, values in zip(WIDTHS, np.split(projected, len(WIDTHS), axis=1), strict=True):
            for layer in (1, 2):
                spread = np.zeros((rows, values.shape[1]), np.float32)
                spread[places] = values
                windows = spread[(places - (width - 1) // 2)[:, None] + np.arange(width)].reshape(len(ids), -1)
                name = f"convolution.{width}.{layer}"
                values = np.maximum(windows @ held[f"{name}.weight"] + held[f"{name}.bias"], 0) + values
            seen.append(values)
        summed = np.add.reduceat(self._normalise(np.concatenate(seen, axis=1), "norm"), starts, axis=0)
        counts = lengths[:, None].astype(np.float32)
        pooled = (summed @ held["pool.weight"] + counts * held["pool.bias"]) / np.sqrt(counts)
        return unit(np.tanh(self._transform(pooled)))

    def _transform(self, pooled: np.ndarray) -> np.ndarray:
        held = self._held
        first = np.maximum(pooled @ held["deep.0"], 0)
        second = np.maximum(pooled @ held["skip.1"] + first @ held["deep.1"], 0)
        third = np.maximum(second @ held["deep.2"], 0)
        return np.asarray(second @ held["skip.3"] + third @ held["deep.3"])

    def _normalise(self, values: np.ndarray, name: str) -> np.ndarray:
        values = values - values.mean(axis=1, keepdims=True)
        values /= np.sqrt(np.square(values).mean(axis=1, keepdims=True) + self._eps)
        return values * self._held[f"{name}.weight"] + self._held[f"{name}.bias"]


class UniversalSentenceEncoder:
    """512-d sentence vectors, float32 of length 1, without prompts; CPU only.

    Trained on 16 languages (Arabic, Chinese in both scripts, Dutch, English, French, German, Italian,
    Japanese, Korean, Polish, Portuguese, Russian, Spanish, Thai, Turkish) and poor outside them: an ensemble leaves it
    out there.
    """

    def __init__(self, folder: Path, tokenize: Callable[[str], Sequence[int]], spec: EncoderSpec) -> None:
        self.spec = spec
        self.known_languages = frozenset(find_model("use-m3").languages)
        self.network = SentenceNetwork(folder)
        self._tokenize = tokenize

    @classmethod
    def from_checkpoint(cls, checkpoint: str) -> UniversalSentenceEncoder:
        """The installed package's model; `InputError` if it is missing or its files are other ones."""
        from tokenizers import Tokenizer

        folder = make_checkpoint(checkpoint)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(folder, lambda text: tokenizer.encode(text).ids, _describe(checkpoint))

    @classmethod
    def open_mapped(cls) -> UniversalSentenceEncoder:
        """The same for a few queries, opened without a tokenizer of all pieces."""
        folder = make_checkpoint("use-m3")
        tokenizer = PieceTokenizer(folder / "tokenizer.json")
        return cls(folder, lambda text: tokenizer.encode(text, MAX_CHARACTERS), _describe("use-m3"))

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        """One `Dense` of float32 [n, 512] for each window of items; the role does not matter."""

        def prepare(group: Sequence[Item]) -> list[Sequence[int]]:
            return [self._token_ids((item.text or "")[:MAX_CHARACTERS]) for item in group]

        return encode_windows(items, self.spec, prepare=prepare, cost=len, forward=self.network.embed, budget=TOKENS)

    def _token_ids(self, text: str) -> Sequence[int]:
        ids = self._tokenize(text)
        return ids if len(ids) > 2 else [FIRST, UNKNOWN, LAST]


def _describe(checkpoint: str) -> EncoderSpec:
    return EncoderSpec(
        name=f"offline:{checkpoint}",
        revision="+".join(file.sha256[:16] for file in find_model(checkpoint).files),
        modalities=("text",),
        dim=512,
        pooling="sqrt_mean",
        extra={"max_characters": MAX_CHARACTERS},
    )
