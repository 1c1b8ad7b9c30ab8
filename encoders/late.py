"""`late:` over text: late interaction (ColBERT and its kin), a vector a token.

Which class opens a `late:` checkpoint, this one or that of page readers, `multimodal.pages` decides.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import safe_open

from ..checkpoints.devices import Precision
from ..checkpoints.open import OpenModel, open_text_model
from ..checkpoints.options import Limits, Loading, choose_given, limit_to
from ..checkpoints.sentence_files import load_dense, make_linear, read_modules, read_prompts
from ..checkpoints.source import TO_SAFETENSORS, Source
from ..errors import InputError, check_at_least
from ..items import Item, Role
from .base import EncoderSpec
from .pooling import collate, finish, name_pooling, pool_tokens, tokenize
from .transformer import TransformerEncoder

log = logging.getLogger("crosslens")

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
# The defaults of ColBERT's and PyLate's own code, where a file leaves a field out.
QUERY_TOKENS = 32
COLBERT_TOKENS, PYLATE_TOKENS = 220, 180
PUNCTUATION = tuple(string.punctuation)
SHORTEST = 4  # first token, marker, one token of text, last token

Filled = tuple[list[int], int]  # the tokens of a text, filled up, and how many of them the others attend to


@dataclass(frozen=True, kw_only=True)
class LateOptions:
    """About one vector in `pool` of each document is kept (`encoders.pooling.pool_tokens`).

    `query_tokens` and `max_tokens` are the lengths of queries and documents in tokens, special ones included;
    `max_pixels` bounds pages, by default as the processor does.
    """

    pool: int = 1
    query_tokens: int | None = None
    max_pixels: int | None = None
    dtype: Precision = "auto"


@dataclass(eq=False, kw_only=True)
class LateEncoder(TransformerEncoder):
    """A ColBERT-style text encoder (Khattab and Zaharia 2020), one unit vector [dim] a token; scored by MaxSim.

    Reads ColBERT's own checkpoints, those of ColBERT-X and PLAID-X (Nair et al. 2022; Yang et al. 2024) included,
    PyLate's (Chaffin and Sourty 2025) and sentence-transformers' MultiVectorEncoder. Markers, query augmentation
    with mask tokens, the symbols left out of documents and the lengths are the checkpoint's, and part of the spec.
    Known-good: `jinaai/jina-colbert-v2` (89 languages, needs --trust-remote-code), `colbert-ir/colbertv2.0`,
    `answerdotai/answerai-colbert-small-v1`, `mixedbread-ai/mxbai-edge-colbert-v0-32m`.
    """

    pool: int = 1
    window: ClassVar[int] = 256  # whose token vectors are held at once
    count_tokens: ClassVar[Any] = staticmethod(lambda filled: len(filled[0]))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.how: Any = self.spec.extra  # how texts are marked, filled up and skipped, as `from_checkpoint` puts it
        self.skipped = np.array(self.how["skipped"], np.int64)

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls, checkpoint: str, *, loading: Loading, limits: Limits, options: LateOptions
    ) -> LateEncoder:
        """As `multimodal.pages.open_late`; `InputError` too if there is no projection or only pickled weights."""
        source = loading.find_source(checkpoint)
        if (settings := read_late_settings(source)) is None:
            dense = any(kind == "Pooling" for kind, _ in read_modules(source))
            hint = "load it with hf:, which makes one vector a text, or " if dense else ""
            raise InputError(
                f"{checkpoint} is not a late-interaction checkpoint: it has neither ColBERT's artifact.metadata nor a "
                f"projection in modules.json; {hint}train it first: crosslens train encoder EXAMPLES --base "
                f"late:{checkpoint}"
            )
        opened = open_text_model(source, options.dtype, loading.where)
        return cls.from_settings(checkpoint, opened, settings, limits=limits, options=options)

    @classmethod
    def from_settings(
        cls, checkpoint: str, opened: OpenModel, settings: LateSettings, *, limits: Limits, options: LateOptions
    ) -> LateEncoder:
        """The encoder of a model and what its checkpoint says; `InputError` for an option beyond what it has."""
        check_at_least(1, checkpoint, pool=options.pool)
        if options.max_pixels is not None:
            raise InputError(f"{checkpoint} reads text: max_pixels is for models that read pages")
        tokenizer = opened.tokenizer
        projection = torch.nn.Sequential(*settings.layers)
        with torch.inference_mode():
            width = projection(torch.zeros(1, opened.config.hidden_size)).shape[1]
        longest = opened.find_longest_input()
        usual = [min(stated or longest, longest) for stated in (settings.max_tokens, settings.query_tokens)]
        max_tokens = limits.limit_tokens(checkpoint, longest, least=SHORTEST, usual=usual[0])
        wanted = options.query_tokens
        query_tokens = limit_to(checkpoint, "query_tokens", wanted, longest, least=SHORTEST, usual=usual[1])
        markers = find_markers(checkpoint, settings, opened)
        filling = _find_filling(checkpoint, settings.expansion, tokenizer)
        frame = tokenizer.decode(tokenizer("")["input_ids"])
        shown = ["" if each is None else tokenizer.decode([each]) for each in (*markers, filling)]
        spec = EncoderSpec(
            name=f"late:{checkpoint}",
            revision=opened.weights,
            modalities=("text",),
            dim=limits.limit_dim(checkpoint, width),
            kind="multi",
            pooling=name_pooling(options.pool),
            query_prompt=settings.query_prompt,
            document_prompt=settings.document_prompt,
            special_tokens=f"{frame} query {shown[0]} document {shown[1]} filling {shown[2]}",
            max_tokens=max_tokens,
            extra={
                "query_tokens": query_tokens,
                "truncates_queries": settings.truncates,
                "query_marker": markers[0],
                "document_marker": markers[1],
                "placeholder": settings.placeholder,
                "expansion": filling,
                "attend": settings.attend,
                "skipped": find_skipped(settings, tokenizer),
            },
            dtype=opened.computes_in,
        )
        return cls(opened=opened, dense=projection, spec=spec, pool=options.pool)

    def prepare(self, items: Sequence[Item], role: Role) -> list[Filled]:
        """The token ids of each item's text, a query's filled up."""
        ids = self.token_ids([self.spec.prompt(role) + (item.text or "") for item in items], role)
        return [self.fill(each, role) for each in ids]

    def token_ids(self, texts: Sequence[str], role: Role = "document") -> list[list[int]]:
        """What the model will see: special tokens, the marker after the first one, truncation; no filling."""
        marker, limit = self.how[f"{role}_marker"], self._limit(role)
        if marker is None:
            return tokenize(self.tokenizer, texts, limit)
        if placeholder := self.how["placeholder"]:
            ids = tokenize(self.tokenizer, [placeholder + text for text in texts], limit)
            return [[*each[:1], marker, *each[2:]] for each in ids]
        return [[*each[:1], marker, *each[1:]] for each in tokenize(self.tokenizer, texts, limit - 1)]

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

    def embed(self, batch: Sequence[Filled]) -> torch.Tensor:  # type: ignore[override]
        """Unit vectors float32 [n, longest, dim] of a batch, on the device; gradients flow through it."""
        inputs = collate(
            [ids for ids, _ in batch],
            fill=self.tokenizer.pad_token_id or 0,
            attended=[seen for _, seen in batch],
            device=self.device,
        )
        states = self.model(**inputs).last_hidden_state
        return finish(states.float(), self.spec.dim, True, self.dense)

    def _limit(self, role: Role) -> int:
        """Tokens of a text, marker and special tokens included."""
        own = role == "query" and self.how["truncates_queries"]
        return int(self.how["query_tokens"] if own else self.spec.max_tokens)

    @torch.inference_mode()
    def compute(self, batch: Sequence[Filled], role: Role) -> list[np.ndarray]:
        """The vectors of each text, of which a document's skipped symbols have none."""
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


def find_markers(checkpoint: str, settings: LateSettings, opened: OpenModel) -> tuple[int | None, int | None]:
    """The tokens that mark queries and documents.

    PLAID-X trains with markers that its saved tokenizer lacks: they are the rows of the embedding table behind the
    vocabulary, the query's first. ColBERT itself marks with the unknown token where there is no such row, and so do
    we. `InputError` where a PyLate checkpoint's table lacks the row.
    """
    tokenizer = opened.tokenizer
    vocabulary = tokenizer.get_vocab()
    rows = opened.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    free = iter(range(len(tokenizer), rows))
    found: list[int | None] = []
    for marker in (settings.query_marker, settings.document_marker):
        token = vocabulary.get(marker) if marker else None
        if marker and token is None and (token := next(free, None)) is None:
            token = tokenizer.unk_token_id if settings.first_piece else None
            if token is None:
                raise InputError(
                    f"{checkpoint}: its tokenizer does not know the marker {marker!r}, and its embedding table has "
                    "no row for it; save the tokenizer with the model again"
                )
            log.warning("%s: its tokenizer does not know the marker %r: using %s, as ColBERT does",
                        checkpoint, marker, tokenizer.unk_token)  # fmt: skip
        found.append(token)
    return found[0], found[1]


def find_skipped(settings: LateSettings, tokenizer: Any) -> list[int]:
    """The tokens of documents that get no vector."""
    if settings.first_piece:
        pieces = [tokenizer.encode(word, add_special_tokens=False)[:1] for word in settings.skipped]
        return sorted({id for each in pieces for id in each})
    vocabulary = tokenizer.get_vocab()
    return sorted({vocabulary[word] for word in settings.skipped if word in vocabulary})


def _find_filling(checkpoint: str, token: str | None, tokenizer: Any) -> int | None:
    """The token that fills queries up, if they are: the one named, else the mask, else the end of text."""
    if token is None:
        return None
    if token:
        if token not in (vocabulary := tokenizer.get_vocab()):
            raise InputError(f"{checkpoint}: its tokenizer does not know {token!r}, which fills queries up")
        return int(vocabulary[token])
    for id in (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if id is not None:
            return int(id)
    raise InputError(f"{checkpoint}: its tokenizer has no mask, end or padding token to fill queries up with")


@dataclass(frozen=True)
class LateSettings:
    """Markers are tokens put after the first one, prompts are text; `skipped` are symbols without a vector.

    `expansion` is None where queries are not filled up, else the token that fills them (empty: the mask).
    ColBERT's own code tokenises a text behind a `placeholder`, whose token the marker then replaces, where PyLate puts
    the marker in: tokenizers that keep spaces give the first word another token. `first_piece` says how a skipped
    symbol is looked up: by its first piece as tokenised, or in the vocabulary.
    """

    layers: tuple[torch.nn.Module, ...]
    query_marker: str = ""
    document_marker: str = ""
    query_prompt: str = ""
    document_prompt: str = ""
    query_tokens: int = QUERY_TOKENS
    truncates: bool = True
    max_tokens: int | None = None
    expansion: str | None = ""
    attend: bool = False
    skipped: tuple[str, ...] = PUNCTUATION
    placeholder: str = ""
    first_piece: bool = False


def read_late_settings(source: Source) -> LateSettings | None:
    """None where the checkpoint is of none of the formats; `InputError` if it has only pickled weights, or lacks its
    projection.
    """
    architectures = (source.read_json("config.json") or {}).get("architectures") or ()
    if not source.find(WEIGHTS, f"{WEIGHTS}.index.json"):
        if source.find(PICKLED):
            raise source.refuse_pickled(PICKLED, TO_SAFETENSORS.format(old=PICKLED, new=WEIGHTS))
        raise InputError(f"{source} has no weights ({WEIGHTS})")
    modules = list(read_modules(source))
    kinds = {kind for kind, _ in modules}
    if "Pooling" not in kinds and {"Dense", "MultiVectorMask"} & kinds:
        return _read_modules(source, modules)
    metadata = source.read_json("artifact.metadata")
    if metadata is not None or "HF_ColBERT" in architectures:
        return _read_colbert(source, metadata or {})
    return None


def _read_colbert(source: Source, metadata: Mapping[str, Any]) -> LateSettings:
    """ColBERT, ColBERT-X, PLAID-X, jina-colbert: `linear.weight` lies beside the transformer's weights."""
    if (similarity := metadata.get("similarity", "cosine")) != "cosine":
        raise InputError(f"{source}: its similarity {similarity} is not supported by late:, only cosine")
    return LateSettings(
        layers=(make_linear(_read_tensor(source, "linear.weight")),),
        query_marker=metadata.get("query_token_id") or "[unused0]",
        document_marker=metadata.get("doc_token_id") or "[unused1]",
        query_tokens=metadata.get("query_maxlen") or QUERY_TOKENS,
        max_tokens=metadata.get("doc_maxlen") or COLBERT_TOKENS,
        attend=bool(metadata.get("attend_to_mask_tokens")),
        skipped=PUNCTUATION if metadata.get("mask_punctuation", True) else (),
        placeholder=". ",
        first_piece=True,
    )


def _read_modules(source: Source, modules: Sequence[tuple[str, str]]) -> LateSettings:
    """PyLate's modules (Transformer, Dense ...), and those of sentence-transformers' MultiVectorEncoder."""
    settings = source.read_json("config_sentence_transformers.json") or {}
    length = source.read_json("sentence_bert_config.json") or {}
    mask: Mapping[str, Any] | None = None
    for kind, folder in modules:
        if kind in ("Transformer", "SentenceTransformer") and folder:
            raise InputError(
                f"{source}: its transformer lies in {folder}: give late: that directory's parent with the "
                "transformer's files at its top"
            )
        if kind == "MultiVectorMask":
            mask = source.read_json(f"{folder}/config.json") or {}
            if mask.get("keep_only_token_ids") or mask.get("skiplist_tasks", ["document"]) != ["document"]:
                raise InputError(f"{source}: its MultiVectorMask skips tokens in a way that late: does not")
        elif kind not in ("Transformer", "SentenceTransformer", "Dense", "Normalize"):
            raise InputError(f"{source}: its module {kind} is not supported by late:")
    prompts = read_prompts(source)
    shared: dict[str, Any] = {
        "layers": tuple(load_dense(source, folder) for kind, folder in modules if kind == "Dense"),
        "query_prompt": prompts.get("query", ""),
        "document_prompt": prompts.get("document", ""),
    }
    if settings.get("query_prefix") is None and mask is not None:
        expansion = length.get("query_expansion")
        return LateSettings(
            **shared,
            query_tokens=(expansion or {}).get("length") or length.get("query_length") or 0,
            truncates=expansion is None or expansion.get("strategy") == "fixed",
            max_tokens=length.get("document_length") or length.get("max_seq_length"),
            expansion=None if expansion is None else expansion.get("token") or "",
            attend=bool((expansion or {}).get("attend")),
            skipped=tuple(mask.get("skiplist_words") or ()),
        )
    skipped = settings.get("skiplist_words")
    return LateSettings(
        **shared,
        query_marker=choose_given(settings.get("query_prefix"), "[Q] "),
        document_marker=choose_given(settings.get("document_prefix"), "[D] "),
        query_tokens=settings.get("query_length") or QUERY_TOKENS,
        max_tokens=settings.get("document_length") or PYLATE_TOKENS,
        expansion=None if settings.get("do_query_expansion") is False else "",
        attend=bool(settings.get("attend_to_expansion_tokens")),
        skipped=PUNCTUATION if skipped is None else tuple(skipped),
    )


def _read_tensor(source: Source, name: str) -> torch.Tensor:
    """One tensor of the checkpoint's safetensors, which may be several files."""
    parts = source.read_json(f"{WEIGHTS}.index.json")
    path = source.find(parts["weight_map"].get(name, WEIGHTS) if parts else WEIGHTS)
    if path is not None:
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 (not a dict)
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
    raise InputError(f"{source}: its weights lack {name}, the projection of ColBERT")
