"""`splade:` learned sparse retrieval: a masked language model says how much each term of its vocabulary matters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers

from ..checkpoints.devices import resolve_device, resolve_dtype, token_budget
from ..checkpoints.weights import require_safetensors
from ..errors import InputError
from ..items import Item, Role, Sparse
from . import splade_files
from .base import EncoderSpec, Precision
from .splade_files import Activation, Pooling
from .terms import Terms, stream_terms, strongest
from .transformer import (
    TOKENIZER_FILES,
    Opened,
    TransformerEncoder,
    loaded,
    longest_input,
    weights_hash,
)

LOGITS = {"cpu": 32 << 20, "cuda": 512 << 20, "mps": 256 << 20}  # bytes of logits at a time


class SpladeEncoder(TransformerEncoder):
    """SPLADE (Formal et al. 2021; SPLADE-v3: Lassance et al. 2024): log(1 + relu(logits)), max-pooled over tokens.

    Sparse vectors over the model's vocabulary; scores are inner products. Known good: `naver/splade-v3` and
    `naver/splade-cocondenser-ensembledistil` (English), `srnair/blade-en-zh` (also -fa, -ru; BLADE, Nair et al. 2023:
    English queries, documents in the other language), `opensearch-project/opensearch-neural-sparse-encoding-
    multilingual-v1` (15 languages). Of the last family (Geng et al. 2024) queries need no model: their terms have
    weights from `idf.json`. As these models were trained, all positions but padding are pooled over, [CLS] and [SEP]
    included; the weights of special tokens themselves are dropped.
    """

    # What opensearch and naver publish is read from their files; BLADE's own script lower-cases, and says so nowhere.
    LOWERCASED = ("blade-en-",)

    def __init__(
        self, opened: Opened, spec: EncoderSpec, *, decoder: torch.nn.Module, **settings: Any
    ) -> None:
        super().__init__(opened, spec, **settings)
        self.decoder = decoder
        self.lookup: np.ndarray | None = None
        self.special = torch.tensor(sorted(set(self.tokenizer.all_special_ids)), device=self.device)

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        pooling: Pooling | None = None,
        activation: Activation | None = None,
        terms: int = 0,
        lookup: bool | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_tokens: int | None = None,
        lowercase: bool | None = None,
        dtype: Precision = "auto",
        revision: str | None = None,
    ) -> SpladeEncoder:
        """Load from the hub or a directory, safetensors only.

        `terms` keeps so many of the strongest terms of a text (0: all). `activation` log1p_relu is
        log(1 + log(1 + relu)), as in opensearch's v3. `lookup` says if queries get their weights from the
        checkpoint's table, without the model; by default they do where it has one. `InputError` if the checkpoint has
        no tokenizer or no masked-LM head, or no table although `lookup` is true.
        """
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        published = splade_files.read(checkpoint, revision)
        if terms < 0:
            raise InputError(f"{checkpoint}: terms must be 0 or more, not {terms}")
        if lookup and published.lookup is None:
            raise InputError(f"{checkpoint} has no weights for queries (idf.json): leave lookup out")
        opened, decoder = _opened(checkpoint, published.folder, revision, trust_remote_code, precision, where)
        config, tokenizer = opened.config, opened.tokenizer
        longest = longest_input(config, tokenizer, published.max_tokens)
        if max_tokens is not None and not 3 <= max_tokens <= longest:
            raise InputError(f"{checkpoint}: max_tokens must be in 3..{longest}, not {max_tokens}")
        known = published.lowercase or any(name in checkpoint.lower() for name in cls.LOWERCASED)
        lowered = known if lowercase is None else lowercase
        vocabulary = int(decoder.weight.shape[0])
        table = None
        if published.lookup is not None and lookup is not False:
            table = splade_files.lookup_weights(checkpoint, published.lookup, tokenizer, vocabulary, revision)
            table[tokenizer.all_special_ids] = 0
        extra = {
            "activation": activation or published.activation,
            "terms": terms,
            "lowercase": lowered,
            "lookup": "" if table is None else hashlib.sha256(table.tobytes()).hexdigest()[:16],
        }
        spec = EncoderSpec(
            name=f"splade:{checkpoint}",
            revision=getattr(config, "_commit_hash", None)
            or weights_hash(f"{checkpoint}/{published.folder}"),
            modalities=("text",),
            dim=vocabulary,
            kind="sparse",
            pooling=pooling or published.pooling,
            query_prompt=published.query_prompt if query_prompt is None else query_prompt,
            document_prompt=published.document_prompt if document_prompt is None else document_prompt,
            special_tokens=tokenizer.decode(tokenizer("")["input_ids"]),
            max_tokens=max_tokens or longest,
            normalized=False,
            metric="dot",
            extra=extra,
            dtype=str(precision).removeprefix("torch."),
        )
        encoder = cls(opened, spec, decoder=decoder, device=where, lowercase=lowered)
        encoder.lookup = table
        return encoder

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Sparse]:  # type: ignore[override]
        """One `Sparse` of float32 [n, vocabulary] a window of items; text beyond `max_tokens` is cut off."""
        prompt = self.spec.query_prompt if role == "query" else self.spec.document_prompt
        looks_up = role == "query" and self.lookup is not None
        return stream_terms(
            items,
            self.spec,
            prepare=lambda group: self.token_ids([prompt + (item.text or "") for item in group]),
            cost=len,
            forward=self._looked_up if looks_up else self._terms,
            budget=token_budget(self.device),
        )

    def _looked_up(self, batch: Sequence[list[int]]) -> list[Terms]:
        """Each term of a query once, with its weight from the table."""
        assert self.lookup is not None
        found = []
        for ids in batch:
            terms = np.unique(np.array(ids, np.int32))
            terms = terms[self.lookup[terms] > 0]
            found.append((terms, self.lookup[terms]))
        return found

    @torch.inference_mode()
    def _terms(self, batch: Sequence[list[int]]) -> list[Terms]:
        lengths = torch.tensor([len(ids) for ids in batch])
        longest = int(lengths.max())
        tokens = torch.full((len(batch), longest), self.tokenizer.pad_token_id or 0)
        for row, ids in enumerate(batch):
            tokens[row, : len(ids)] = torch.tensor(ids)
        mask = torch.arange(longest) < lengths[:, None]
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        states = self.model(input_ids=tokens, attention_mask=mask.long()).logits[mask]
        return [
            strongest(self._saturated(row), int(self.spec.extra["terms"]))  # type: ignore[call-overload]
            for row in self._pooled(states, lengths)
        ]

    def _pooled(self, states: torch.Tensor, lengths: torch.Tensor) -> Iterator[torch.Tensor]:
        """The pooled logits (for `sum`, weights) of each text, float32 [vocabulary].

        `states` [tokens, hidden] are those of all texts, one after the other. The vocabulary of XLM-R makes a
        megabyte of logits a token, so a few tokens at a time go through the head, and one row is held.
        """
        size = max(8, LOGITS[self.device.type] // (self.spec.dim * states.element_size()))
        ends = lengths.cumsum(0).tolist()
        start, text = 0, 0
        pooled: torch.Tensor | None = None
        while start < len(states):
            chunk = self.decoder(states[start : start + size])
            at = 0
            while at < len(chunk):
                stop = min(ends[text] - start, len(chunk))
                if self.spec.pooling == "max":
                    # log(1 + relu) rises, so the maximum may be taken before it.
                    part = chunk[at:stop].amax(dim=0).float()
                    pooled = part if pooled is None else torch.maximum(pooled, part)
                else:
                    part = self._activated(chunk[at:stop].float()).sum(dim=0)
                    pooled = part if pooled is None else pooled + part
                if start + stop == ends[text]:
                    yield pooled
                    pooled, text = None, text + 1
                at = stop
            start += len(chunk)

    def _saturated(self, pooled: torch.Tensor) -> np.ndarray:
        weights = self._activated(pooled) if self.spec.pooling == "max" else pooled
        weights[self.special] = 0
        values: np.ndarray = weights.cpu().numpy()
        return values

    def _activated(self, logits: torch.Tensor) -> torch.Tensor:
        weights = torch.log1p(torch.relu(logits))
        return torch.log1p(weights) if self.spec.extra["activation"] == "log1p_relu" else weights


def _opened(
    checkpoint: str,
    folder: str,
    revision: str | None,
    trust_remote_code: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Opened, Any]:
    """The model without the last matrix of its head, and that matrix; its `logits` are then what that is given."""
    source = {"revision": revision, "trust_remote_code": trust_remote_code, "subfolder": folder}
    config = loaded(transformers.AutoConfig, checkpoint, **source)
    if not any(
        splade_files.fetch(checkpoint, f"{folder}/{name}".lstrip("/"), revision) for name in TOKENIZER_FILES
    ):
        raise InputError(f"{checkpoint} has no tokenizer (none of {', '.join(TOKENIZER_FILES)})")
    tokenizer = loaded(transformers.AutoTokenizer, checkpoint, **source)
    options = {"config": config, "dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    try:
        model, report = loaded(transformers.AutoModelForMaskedLM, checkpoint, **options, **source)
    except InputError:
        require_safetensors(checkpoint, revision, "AutoModelForMaskedLM")
        raise
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{checkpoint} has no masked-LM head, or not all its weights ({', '.join(missing[:3])} missing): splade: "
            "needs a masked language model trained for sparse retrieval"
        )
    model = model.to(device).eval()
    decoder = model.get_output_embeddings()
    place = next((name for name, module in model.named_modules() if module is decoder), None)
    tokens = torch.arange(5, device=device)[None]
    with torch.inference_mode():
        whole = model(input_ids=tokens).logits
        if place:
            model.set_submodule(place, torch.nn.Identity())
            states = model(input_ids=tokens).logits
            near = 8 * torch.finfo(dtype).eps * float(whole.abs().max())
            if states.shape[-1] == decoder.weight.shape[1] and torch.allclose(
                decoder(states), whole, atol=near
            ):
                return Opened(config, tokenizer, model), decoder
    raise InputError(
        f"{checkpoint}: the head of {type(model).__name__} does not end in a plain matrix, as splade: needs it"
    )
