"""`late:` over text: late interaction (ColBERT and its kin), a vector a token.

Which class opens a `late:` checkpoint, this one or that of page readers, `multimodal.pages` decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..checkpoints.devices import Precision, choose_token_budget, name_dtype, resolve_dtype
from ..checkpoints.open import OpenModel, find_longest_input, open_text_model
from ..checkpoints.options import Limits, Loading, limit_to
from ..checkpoints.source import locate_tokens
from ..errors import InputError
from ..items import Item, Multi, Role
from .base import EncoderSpec, unit
from .batching import encode_windows
from .late_settings import LateSettings, read_late_settings
from .pooling import collate, finish, tokenize

log = logging.getLogger("crosslens")

WINDOW = 256  # items read ahead; their token vectors are held at once
SHORTEST = 4  # first token, marker, one token of text, last token

Filled = tuple[list[int], int]  # the tokens of a text, filled up, and how many of them the others attend to


@dataclass(eq=False, kw_only=True)
class LateEncoder:
    """A ColBERT-style text encoder (Khattab and Zaharia 2020), one unit vector [dim] a token; scored by MaxSim.

    Reads ColBERT's own checkpoints, those of ColBERT-X and PLAID-X (Nair et al. 2022; Yang et al. 2024) included,
    PyLate's (Chaffin and Sourty 2025) and sentence-transformers' MultiVectorEncoder. Markers, query augmentation
    with mask tokens, the symbols left out of documents and the lengths are the checkpoint's, and part of the spec.
    Known-good: `jinaai/jina-colbert-v2` (89 languages, needs --trust-remote-code), `colbert-ir/colbertv2.0`,
    `answerdotai/answerai-colbert-small-v1`, `mixedbread-ai/mxbai-edge-colbert-v0-32m`.
    """

    opened: OpenModel
    projection: torch.nn.Module
    spec: EncoderSpec
    device: torch.device
    pool: int = 1

    def __post_init__(self) -> None:
        self.model = self.opened.model
        self.tokenizer = self.opened.tokenizer
        self.projection = self.projection.to(self.device).eval()
        self.how: Any = self.spec.extra  # how texts are marked, filled up and skipped, as `from_checkpoint` puts it
        self.skipped = np.array(self.how["skipped"], np.int64)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        loading: Loading,
        limits: Limits,
        pool: int = 1,
        query_tokens: int | None = None,
        dtype: Precision = "auto",
    ) -> LateEncoder:
        """As `multimodal.pages.open_late`; `InputError` too if there is no projection or only pickled weights."""
        where, source = loading.where, loading.find_source(checkpoint)
        precision = resolve_dtype(dtype, where)
        architectures = getattr(source.load_config(), "architectures", None) or ()
        settings = read_late_settings(source, architectures)
        opened = open_text_model(source, precision, where)
        tokenizer = opened.tokenizer
        projection = torch.nn.Sequential(*settings.layers)
        with torch.inference_mode():
            width = projection(torch.zeros(1, opened.config.hidden_size)).shape[1]
        longest = find_longest_input(opened.config, tokenizer)
        lengths = [
            limit_to(checkpoint, name, wanted, longest, least=SHORTEST, usual=min(stated or longest, longest))
            for name, wanted, stated in (
                ("max_tokens", limits.max_tokens, settings.max_tokens),
                ("query_tokens", query_tokens, settings.query_tokens),
            )
        ]
        markers = find_markers(checkpoint, settings, opened)
        filling = None
        if settings.expansion is not None:
            filling = _find_filling(checkpoint, settings.expansion, tokenizer)
        frame = tokenizer.decode(tokenizer("")["input_ids"])
        shown = ["" if each is None else tokenizer.decode([each]) for each in (*markers, filling)]
        spec = EncoderSpec(
            name=f"late:{checkpoint}",
            revision=source.identify_weights(opened.config),
            modalities=("text",),
            dim=limits.limit_dim(checkpoint, width),
            kind="multi",
            pooling=name_pooling(pool),
            query_prompt=settings.query_prompt,
            document_prompt=settings.document_prompt,
            special_tokens=f"{frame} query {shown[0]} document {shown[1]} filling {shown[2]}",
            max_tokens=lengths[0],
            extra={
                "query_tokens": lengths[1],
                "truncates_queries": settings.truncates,
                "query_marker": markers[0],
                "document_marker": markers[1],
                "placeholder": settings.placeholder,
                "expansion": filling,
                "attend": settings.attend,
                "skipped": find_skipped(settings, tokenizer),
            },
            dtype=name_dtype(precision),
        )
        return cls(opened=opened, projection=projection, spec=spec, device=where, pool=pool)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
        """One `Multi` of float32 [tokens, dim] an item for each window of items; longer texts are cut off."""

        def prepare(group: Sequence[Item]) -> list[Filled]:
            ids = self.token_ids([self.spec.prompt(role) + (item.text or "") for item in group], role)
            return [self.fill(each, role) for each in ids]

        return encode_windows(
            items,
            self.spec,
            prepare=prepare,
            cost=lambda filled: len(filled[0]),
            forward=lambda batch: self._forward(batch, role),
            budget=choose_token_budget(self.device),
            window=WINDOW,
        )

    def token_ids(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """What the model will see: special tokens, the marker after the first one, truncation; no filling."""
        marker, limit = self.how[f"{role}_marker"], self._limit(role)
        if marker is None:
            return tokenize(self.tokenizer, texts, limit)
        if placeholder := self.how["placeholder"]:
            ids = tokenize(self.tokenizer, [placeholder + text for text in texts], limit)
            return [[*each[:1], marker, *each[2:]] for each in ids]
        return [[*each[:1], marker, *each[1:]] for each in tokenize(self.tokenizer, texts, limit - 1)]

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        return locate_tokens(self.tokenizer, texts, self.spec.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside marker and special tokens (`encoders.base.Tokenizes`)."""
        frame = len(self.token_ids([self.spec.prompt(role) + "a"], role)[0]) - len(self.token_spans(["a"])[0])
        return self._limit(role) - frame

    def fill(self, ids: list[int], role: Role) -> Filled:
        """The ids, a query's filled up to `query_tokens`, and how many of them the others attend to."""
        if role == "document" or self.how["expansion"] is None:
            return ids, len(ids)
        filled = ids + [self.how["expansion"]] * (self.how["query_tokens"] - len(ids))
        return filled, len(filled) if self.how["attend"] else len(ids)

    def embed(self, batch: Sequence[Filled]) -> torch.Tensor:
        """Unit vectors float32 [n, longest, dim] of a batch, on the device; gradients flow through it."""
        inputs = collate(
            [ids for ids, _ in batch],
            fill=self.tokenizer.pad_token_id or 0,
            attended=[seen for _, seen in batch],
            device=self.device,
        )
        states = self.model(**inputs).last_hidden_state
        return finish(states.float(), self.spec.dim, True, self.projection)

    def _limit(self, role: Role) -> int:
        """Tokens of a text, marker and special tokens included."""
        own = role == "query" and self.how["truncates_queries"]
        return int(self.how["query_tokens"] if own else self.spec.max_tokens)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Filled], role: Role) -> list[np.ndarray]:
        vectors = self.embed(batch).cpu().numpy()
        found = []
        for row, (ids, _) in enumerate(batch):
            mine = vectors[row, : len(ids)]
            if role == "document":
                kept = ~np.isin(ids, self.skipped)
                # A text of skipped symbols alone, where there are no special tokens, keeps them.
                mine = pool_tokens(mine[kept if kept.any() else ~kept], self.pool)
            found.append(mine)
        return found


def pool_tokens(vectors: np.ndarray, factor: int, protected: int = 1) -> np.ndarray:
    """About one in `factor` of unit vectors float32 [tokens, dim], each the mean direction of a cluster.

    Token pooling (Clavié, Chaffin and Adams 2024): Ward's clustering of cosine distances. The first `protected`
    vectors (a text's [CLS]) are kept as they are and lead the result.
    """
    kept, rest = vectors[:protected], vectors[protected:]
    wanted = max(len(rest) // factor, 1)
    if wanted >= len(rest) or not np.isfinite(vectors).all():
        return vectors
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = (1 - rest @ rest.T).clip(0, 2)
    labels = fcluster(linkage(squareform(distances, checks=False), "ward"), wanted, "maxclust")
    sums = np.zeros((labels.max(), vectors.shape[1]), np.float32)
    np.add.at(sums, labels - 1, rest)
    return np.concatenate([kept, unit(sums)])


def name_pooling(pool: int) -> str:
    """What a spec says of `pool`."""
    return "token" if pool == 1 else f"token, ward {pool}"


def find_markers(checkpoint: str, settings: LateSettings, opened: OpenModel) -> tuple[int | None, int | None]:
    """The tokens that mark queries and documents.

    PLAID-X trains with markers that its saved tokenizer lacks: they are the rows of the embedding table behind the
    vocabulary, the query's first. ColBERT itself marks with the unknown token where there is no such row, and so do
    we. `InputError` where a PyLate checkpoint's table lacks the row.
    """
    vocabulary = opened.tokenizer.get_vocab()
    free = len(opened.tokenizer)
    rows = opened.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    found: list[int | None] = []
    for marker in (settings.query_marker, settings.document_marker):
        if not marker:
            found.append(None)
        elif marker in vocabulary:
            found.append(vocabulary[marker])
        elif free < rows:
            found.append(free)
            free += 1
        elif settings.first_piece and opened.tokenizer.unk_token_id is not None:
            log.warning("%s: its tokenizer does not know the marker %r: using %s, as ColBERT does",
                        checkpoint, marker, opened.tokenizer.unk_token)  # fmt: skip
            found.append(opened.tokenizer.unk_token_id)
        else:
            raise InputError(
                f"{checkpoint}: its tokenizer does not know the marker {marker!r}, and its embedding table has "
                "no row for it; save the tokenizer with the model again"
            )
    return found[0], found[1]


def find_skipped(settings: LateSettings, tokenizer: Any) -> list[int]:
    """The tokens of documents that get no vector."""
    if settings.first_piece:
        pieces = [tokenizer.encode(word, add_special_tokens=False)[:1] for word in settings.skipped]
        return sorted({id for each in pieces for id in each})
    vocabulary = tokenizer.get_vocab()
    return sorted({vocabulary[word] for word in settings.skipped if word in vocabulary})


def _find_filling(checkpoint: str, token: str, tokenizer: Any) -> int:
    """The token that fills queries up: the one named, else the mask, else the end of text."""
    if token:
        if token not in (vocabulary := tokenizer.get_vocab()):
            raise InputError(f"{checkpoint}: its tokenizer does not know {token!r}, which fills queries up")
        return int(vocabulary[token])
    for id in (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if id is not None:
            return int(id)
    raise InputError(f"{checkpoint}: its tokenizer has no mask, end or padding token to fill queries up with")
