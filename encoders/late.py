"""`late:` late interaction: a vector a token, by ColBERT-style text encoders here, by page readers in multimodal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
import torch
import transformers

from ..checkpoints.devices import resolve_device, resolve_dtype, token_budget
from ..errors import InputError
from ..items import Item, Multi, Role
from . import late_files
from .base import Encoder, EncoderSpec, Precision, check_finite, unit
from .batching import Budget, computed, prepared
from .spans import token_spans
from .transformer import Opened, loaded, longest_input, weights_hash

log = logging.getLogger("crosslens")
P = TypeVar("P")

WINDOW = 256  # items read ahead; their token vectors are held at once
SHORTEST = 4  # first token, marker, one token of text, last token


class Late:
    """The family: a checkpoint of ColPali's kind reads page images, any other is a text model of ColBERT's kind."""

    @staticmethod
    def from_checkpoint(
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        pool: int = 1,
        query_tokens: int | None = None,
        max_tokens: int | None = None,
        max_pixels: int | None = None,
        dim: int | None = None,
        dtype: Precision = "auto",
        revision: str | None = None,
    ) -> Encoder:
        """Load from the hub or a directory, safetensors only.

        `pool` keeps about one vector in `pool` of each document (see `pooled`); `query_tokens` and `max_tokens`
        are the lengths of queries and documents in tokens, special ones included; `dim` keeps the first
        components (Matryoshka). `InputError` for an option that the kind of model does not have, or a value
        beyond what the checkpoint has.
        """
        config = loaded(
            transformers.AutoConfig, checkpoint, revision=revision, trust_remote_code=trust_remote_code
        )
        if pool < 1:
            raise InputError(f"{checkpoint}: pool must be at least 1, not {pool}")
        shared: dict[str, Any] = {
            "device": device,
            "trust_remote_code": trust_remote_code,
            "pool": pool,
            "max_tokens": max_tokens,
            "dim": dim,
            "dtype": dtype,
            "revision": revision,
        }
        from ..multimodal import pages as late_pages

        if config.model_type in late_pages.MODELS:
            if query_tokens is not None:
                raise InputError(f"{checkpoint} does not fill queries up: query_tokens is for ColBERT's kind")
            return late_pages.PageEncoder.from_checkpoint(checkpoint, max_pixels=max_pixels, **shared)
        if max_pixels is not None:
            raise InputError(f"{checkpoint} reads text: max_pixels is for models that read pages")
        return LateEncoder.from_checkpoint(checkpoint, query_tokens=query_tokens, **shared)


class LateEncoder:
    """A ColBERT-style text encoder (Khattab and Zaharia 2020), one unit vector [dim] a token; scored by MaxSim.

    Reads ColBERT's own checkpoints, those of ColBERT-X and PLAID-X (Nair et al. 2022; Yang et al. 2024) included,
    PyLate's (Chaffin and Sourty 2025) and sentence-transformers' MultiVectorEncoder. Markers, query augmentation
    with mask tokens, the symbols left out of documents and the lengths are the checkpoint's, and part of the spec.
    Known-good: `jinaai/jina-colbert-v2` (89 languages, needs --trust-remote-code), `colbert-ir/colbertv2.0`,
    `answerdotai/answerai-colbert-small-v1`, `mixedbread-ai/mxbai-edge-colbert-v0-32m`.
    """

    def __init__(
        self,
        opened: Opened,
        projection: torch.nn.Module,
        spec: EncoderSpec,
        *,
        device: torch.device,
        pool: int = 1,
    ) -> None:
        self.spec = spec
        self.opened = opened
        self.model = opened.model
        self.tokenizer = opened.tokenizer
        self.projection = projection.to(device).eval()
        self.device = device
        self.pool = pool
        extra: Any = spec.extra
        self.query_tokens: int = extra["query_tokens"]
        self.truncates: bool = extra["truncates_queries"]
        self.expansion: int | None = extra["expansion"]
        self.attend: bool = extra["attend"]
        self.markers: dict[Role, int | None] = {
            "query": extra["query_marker"],
            "document": extra["document_marker"],
        }
        self.placeholder: str = extra["placeholder"]
        self.skipped = np.array(extra["skipped"], np.int64)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        pool: int = 1,
        query_tokens: int | None = None,
        max_tokens: int | None = None,
        dim: int | None = None,
        dtype: Precision = "auto",
        revision: str | None = None,
    ) -> LateEncoder:
        """As `Late.from_checkpoint`; `InputError` too if the checkpoint has no projection or only pickled weights."""
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        config = loaded(
            transformers.AutoConfig, checkpoint, revision=revision, trust_remote_code=trust_remote_code
        )
        published = late_files.read(checkpoint, revision, getattr(config, "architectures", None) or ())
        opened = Opened.of(checkpoint, revision, trust_remote_code, precision, where)
        tokenizer = opened.tokenizer
        projection = torch.nn.Sequential(*published.layers)
        with torch.inference_mode():
            width = projection(torch.zeros(1, config.hidden_size)).shape[1]
        if dim is not None and not 1 <= dim <= width:
            raise InputError(f"{checkpoint}: dim must be in 1..{width}, not {dim}")
        longest = longest_input(opened.config, tokenizer, None)
        for name, tokens in (("max_tokens", max_tokens), ("query_tokens", query_tokens)):
            if tokens is not None and not SHORTEST <= tokens <= longest:
                raise InputError(f"{checkpoint}: {name} must be in {SHORTEST}..{longest}, not {tokens}")
        markers = marker_ids(checkpoint, published, opened)
        filling = None
        if published.expansion is not None:
            filling = _filling(checkpoint, published.expansion, tokenizer)
        frame = tokenizer.decode(tokenizer("")["input_ids"])
        shown = ["" if each is None else tokenizer.decode([each]) for each in (*markers, filling)]
        spec = EncoderSpec(
            name=f"late:{checkpoint}",
            revision=getattr(opened.config, "_commit_hash", None) or weights_hash(checkpoint),
            modalities=("text",),
            dim=dim or width,
            kind="multi",
            pooling=pooling_name(pool),
            query_prompt=published.query_prompt,
            document_prompt=published.document_prompt,
            special_tokens=f"{frame} query {shown[0]} document {shown[1]} filling {shown[2]}",
            max_tokens=min(max_tokens or published.max_tokens or longest, longest),
            extra={
                "query_tokens": min(query_tokens or published.query_tokens or longest, longest),
                "truncates_queries": published.truncates,
                "query_marker": markers[0],
                "document_marker": markers[1],
                "placeholder": published.placeholder,
                "expansion": filling,
                "attend": published.attend,
                "skipped": skipped_ids(published, tokenizer),
            },
            dtype=str(precision).removeprefix("torch."),
        )
        return cls(opened, projection, spec, device=where, pool=pool)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
        """One `Multi` of float32 [tokens, dim] an item for each window of items; longer texts are cut off."""
        prompt = self.spec.query_prompt if role == "query" else self.spec.document_prompt

        def prepare(group: Sequence[Item]) -> list[list[tuple[list[int], int]]]:
            ids = self.token_ids([prompt + (item.text or "") for item in group], role)
            return [[self._filled(each, role)] for each in ids]

        def forward(batch: Sequence[tuple[list[int], int]]) -> np.ndarray:
            return self._forward(batch, role)

        return stream(
            items,
            self.spec,
            prepare=prepare,
            cost=lambda piece: len(piece[0]),
            forward=forward,
            budget=token_budget(self.device),
            pool=self.pool if role == "document" else 1,
        )

    def token_ids(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """What the model will see: special tokens, the marker after the first one, truncation; no filling."""
        marker = self.markers[role]
        limit = self._limit(role)
        if marker is None:
            return self._tokenised(texts, limit)
        if self.placeholder:
            ids = self._tokenised([self.placeholder + text for text in texts], limit)
            return [[*each[:1], marker, *each[2:]] for each in ids]
        return [[*each[:1], marker, *each[1:]] for each in self._tokenised(texts, limit - 1)]

    def _tokenised(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        return ids

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        return token_spans(self.tokenizer, texts, self.spec.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside marker and special tokens (`encoders.base.Tokenizes`)."""
        prompt = self.spec.query_prompt if role == "query" else self.spec.document_prompt
        frame = len(self.token_ids([prompt + "a"], role)[0]) - len(self.token_spans(["a"])[0])
        return self._limit(role) - frame

    def _limit(self, role: Role) -> int:
        """Tokens of a text, marker and special tokens included."""
        return self.query_tokens if role == "query" and self.truncates else self.spec.max_tokens

    def _filled(self, ids: list[int], role: Role) -> tuple[list[int], int]:
        """The ids, a query's filled up to `query_tokens`, and how many of them the others attend to."""
        if role == "document" or self.expansion is None:
            return ids, len(ids)
        filled = ids + [self.expansion] * (self.query_tokens - len(ids))
        return filled, len(filled) if self.attend else len(ids)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[tuple[list[int], int]], role: Role) -> np.ndarray:
        longest = max(len(ids) for ids, _ in batch)
        tokens = torch.full((len(batch), longest), self.tokenizer.pad_token_id or 0)
        for row, (ids, _) in enumerate(batch):
            tokens[row, : len(ids)] = torch.tensor(ids)
        attended = torch.tensor([seen for _, seen in batch])
        mask = (torch.arange(longest) < attended[:, None]).long()
        states = self.model(
            input_ids=tokens.to(self.device), attention_mask=mask.to(self.device)
        ).last_hidden_state
        projected = self.projection(states.float())[..., : self.spec.dim]
        vectors = torch.nn.functional.normalize(projected, dim=-1).cpu().numpy()
        found = np.empty(len(batch), object)
        for row, (ids, _) in enumerate(batch):
            kept = ~np.isin(ids, self.skipped) if role == "document" else np.ones(len(ids), bool)
            # A text of skipped symbols alone, where there are no special tokens, keeps them.
            found[row] = vectors[row, : len(ids)][kept if kept.any() else ~kept]
        return found


def stream(
    items: Iterable[Item],
    spec: EncoderSpec,
    *,
    prepare: Callable[[Sequence[Item]], Sequence[Sequence[P]]],
    cost: Callable[[P], int],
    forward: Callable[[Sequence[P]], np.ndarray],
    budget: int,
    pool: int,
    protected: int = 1,
    window: int = WINDOW,
    weight: Callable[[Item], int] | None = None,
) -> Iterator[Multi]:
    """Encode items window by window; one `Multi` a window, in the order of the input.

    `prepare` makes of each item one or more model inputs, whose vectors are put together; `cost` says how many tokens
    one has; `forward` encodes a batch of at most `budget` padded tokens to an object array of float32 [tokens, dim];
    `weight` is as in `batching.prepared`.
    """
    limit = Budget(budget)
    with closing(prepared(items, spec, prepare, window, weight)) as ready:
        for group, made in ready:
            pieces = [piece for each in made for piece in each]
            names = [item.id for item, each in zip(group, made, strict=True) for _ in each]
            found = np.empty(len(pieces), object)
            for rows, blocks in computed(pieces, [cost(piece) for piece in pieces], names, forward, limit):
                found[rows] = blocks
            vectors: list[np.ndarray] = []
            start = 0
            for each in made:
                vectors.append(
                    np.concatenate(found[start : start + len(each)]).astype(np.float32, copy=False)
                )
                start += len(each)
            ids = [item.id for item in group]
            for name, block in zip(ids, vectors, strict=True):
                check_finite([name] * len(block), block, spec.name, spec.dtype)
            yield Multi(ids, [pooled(each, pool, protected) for each in vectors] if pool > 1 else vectors)


def pooled(vectors: np.ndarray, factor: int, protected: int = 1) -> np.ndarray:
    """About one in `factor` of unit vectors float32 [tokens, dim], each the mean direction of a cluster.

    Token pooling (Clavié, Chaffin and Adams 2024): Ward's clustering of cosine distances. The first `protected`
    vectors (a text's [CLS]) are kept as they are and lead the result.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    kept, rest = vectors[:protected], vectors[protected:]
    wanted = max(len(rest) // factor, 1)
    if wanted >= len(rest):
        return vectors
    distances = (1 - rest @ rest.T).clip(0, 2)
    labels = fcluster(linkage(squareform(distances, checks=False), "ward"), wanted, "maxclust")
    sums = np.zeros((labels.max(), vectors.shape[1]), np.float32)
    np.add.at(sums, labels - 1, rest)
    return np.concatenate([kept, unit(sums)])


def pooling_name(pool: int) -> str:
    """What a spec says of `pool`."""
    return "token" if pool == 1 else f"token, ward {pool}"


def marker_ids(
    checkpoint: str, published: late_files.Published, opened: Opened
) -> tuple[int | None, int | None]:
    """The tokens that mark queries and documents.

    PLAID-X trains with markers that its saved tokenizer lacks: they are the rows of the embedding table behind the
    vocabulary, the query's first. ColBERT itself marks with the unknown token where there is no such row, and so do
    we. `InputError` where a PyLate checkpoint's table lacks the row.
    """
    vocabulary = opened.tokenizer.get_vocab()
    free = len(opened.tokenizer)
    rows = opened.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    found: list[int | None] = []
    for marker in (published.query_marker, published.document_marker):
        if not marker:
            found.append(None)
        elif marker in vocabulary:
            found.append(vocabulary[marker])
        elif free < rows:
            found.append(free)
            free += 1
        elif published.first_piece and opened.tokenizer.unk_token_id is not None:
            log.warning("%s: its tokenizer does not know the marker %r: using %s, as ColBERT does",
                        checkpoint, marker, opened.tokenizer.unk_token)  # fmt: skip
            found.append(opened.tokenizer.unk_token_id)
        else:
            raise InputError(
                f"{checkpoint}: its tokenizer does not know the marker {marker!r}, and its embedding table has "
                "no row for it; save the tokenizer with the model again"
            )
    return found[0], found[1]


def skipped_ids(published: late_files.Published, tokenizer: Any) -> list[int]:
    """The tokens of documents that get no vector."""
    if published.first_piece:
        pieces = [tokenizer.encode(word, add_special_tokens=False)[:1] for word in published.skipped]
        return sorted({id for each in pieces for id in each})
    vocabulary = tokenizer.get_vocab()
    return sorted({vocabulary[word] for word in published.skipped if word in vocabulary})


def _filling(checkpoint: str, token: str, tokenizer: Any) -> int:
    """The token that fills queries up: the one named, else the mask, else the end of text."""
    if token:
        if token not in (vocabulary := tokenizer.get_vocab()):
            raise InputError(f"{checkpoint}: its tokenizer does not know {token!r}, which fills queries up")
        return int(vocabulary[token])
    for id in (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if id is not None:
            return int(id)
    raise InputError(f"{checkpoint}: its tokenizer has no mask, end or padding token to fill queries up with")
