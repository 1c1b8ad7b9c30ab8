"""Token ids of a few texts by a unigram tokenizer.json, without building its automaton of all pieces.

The best segmentation of a text depends only on those pieces that occur in it. To look these up takes milliseconds, in a
sorted list that is made once; to read XLM-R's 250,000 pieces and build the automaton takes as long as a whole search.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..errors import InputError
from ..files import place_atomically
from .mapped import MappedTensors, map_tensors

log = logging.getLogger("crosslens")

LONGEST = 20_000  # characters from which the whole tokenizer is quicker


@dataclass(frozen=True)
class SortedPieces:
    """The pieces of a unigram model in a file: which of them there are, under which ids, and how likely they are."""

    held: MappedTensors

    @classmethod
    def of(cls, path: Path) -> Self:
        """Those of a tokenizer.json, from the file beside it, which is made where it is not there.

        `ValueError` if the model is another than unigram.
        """
        kept = path.with_name("pieces.safetensors")
        if kept.is_file():
            try:
                return cls(map_tensors(kept))
            except (OSError, ValueError, KeyError) as error:
                log.warning("%s is damaged (%s): it is made again", kept, str(error))
        made = _sort_pieces(path)
        with suppress(InputError):  # where it cannot be kept it is made again
            _keep_pieces(kept, made)
        return cls(made)

    @cached_property
    def settings(self) -> Any:
        """The tokenizer without its pieces."""
        return json.loads(self.held.about["settings"])

    def find(self, parts: Collection[str]) -> Iterator[tuple[int, str, float]]:
        """Those of the texts that are pieces, each with its id and its score."""
        arrays = self.held.arrays
        text, ends, ids = (arrays[name].data for name in ("text", "ends", "ids"))

        def read(place: int) -> bytes:
            return bytes(text[ends[place] : ends[place + 1]])

        for part in parts:
            wanted = part.encode("utf-8", "surrogatepass")
            place = bisect_left(range(len(ids)), wanted, key=read)
            if place < len(ids) and read(place) == wanted:
                yield ids[place], part, float(arrays["scores"][place])


def _sort_pieces(path: Path) -> MappedTensors:
    settings = json.loads(path.read_text("utf-8"))
    model = settings["model"]
    if model["type"] != "Unigram" or model.get("unk_id") is None:
        raise ValueError(f"{path} holds a tokenizer of type {model['type']}")
    pieces, unknown = model.pop("vocab"), model["unk_id"]
    # Unknown characters cost more than the least likely piece, which therefore is always there.
    least = min(range(len(pieces)), key=lambda place: pieces[place][1])
    about = {"unknown": pieces[unknown], "least": pieces[least], "longest": max(len(piece) for piece, _ in pieces)}
    ranked = sorted(
        (piece.encode(), place) for piece, place in {piece: n for n, (piece, _) in enumerate(pieces)}.items()
    )
    arrays: dict[str, np.ndarray] = {
        "text": np.frombuffer(b"".join(piece for piece, _ in ranked), np.uint8),
        "ends": np.cumsum([0, *(len(piece) for piece, _ in ranked)], dtype=np.int64),
        "ids": np.array([place for _, place in ranked], np.int64),
        "scores": np.array([pieces[place][1] for _, place in ranked], np.float64),
    }
    return MappedTensors(arrays, {"settings": json.dumps(settings), "pieces": json.dumps(about)})


def _keep_pieces(path: Path, made: MappedTensors) -> None:
    from safetensors.numpy import save_file

    with place_atomically(path) as partial:
        save_file(dict(made.arrays), partial, dict(made.about))


class PieceTokenizer:
    """The tokenizer in a file; `ValueError` if its model is another than unigram."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sorted = SortedPieces.of(path)
        about = json.loads(self._sorted.held.about["pieces"])
        self._unknown, self._least, self._longest = about["unknown"], about["least"], about["longest"]
        self._settings = dict(self._sorted.settings)
        self._added = [each["content"] for each in self._settings.pop("added_tokens")]

    def encode(self, text: str, max_tokens: int) -> list[int]:
        """The token ids, special ones included, cut to `max_tokens`."""
        from tokenizers import Tokenizer

        if len(text) > LONGEST or any(added in text for added in self._added):
            self._whole.enable_truncation(max_tokens)
            return list(self._whole.encode(text).ids)
        model = {**self._settings["model"], "vocab": [self._unknown], "unk_id": 0}
        splitting = Tokenizer.from_str(json.dumps({**self._settings, "model": model}))
        normal = splitting.normalizer.normalize_str(text) if splitting.normalizer else text
        words = [word for word, _ in splitting.pre_tokenizer.pre_tokenize_str(normal)]
        parts = {
            word[start:end]
            for word in words
            for start in range(len(word))
            for end in range(start + 1, min(len(word), start + self._longest) + 1)
        }
        chosen = list(self._sorted.find(sorted({*parts, self._least[0]} - {self._unknown[0]})))
        model["vocab"] = [self._unknown, *((piece, score) for _, piece, score in chosen)]
        tokenizer = Tokenizer.from_str(json.dumps({**self._settings, "model": model}))
        tokenizer.enable_truncation(max_tokens)
        made = tokenizer.encode(text)
        ids = [self._settings["model"]["unk_id"], *(id for id, _, _ in chosen)]
        return [id if special else ids[id] for id, special in zip(made.ids, made.special_tokens_mask, strict=True)]

    @cached_property
    def _whole(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self._path))
