"""`splade:` learned sparse retrieval: a masked language model says how much each term of its vocabulary matters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import transformers

from ..checkpoints.devices import Precision, name_dtype, resolve_dtype
from ..checkpoints.open import OpenModel, find_longest_input
from ..checkpoints.options import Loading, Prompts, choose_given, limit_to
from ..checkpoints.source import Source
from ..errors import InputError, check_at_least
from ..items import Item, Role, Sparse
from .base import EncoderSpec
from .batching import encode_windows
from .rows import Terms, select_terms
from .splade_settings import Activation, SpladePooling, read_query_weights, read_splade_settings
from .transformer import TransformerEncoder

# What opensearch and naver publish is read from their files; BLADE's own script lower-cases, and says so nowhere.
LOWERCASED = ("blade-en-",)
LOGITS = {"cpu": 32 << 20, "cuda": 512 << 20, "mps": 256 << 20}  # bytes of logits at a time


@dataclass(eq=False, kw_only=True)
class SpladeEncoder(TransformerEncoder):
    """SPLADE (Formal et al. 2021; SPLADE-v3: Lassance et al. 2024): log(1 + relu(logits)), max-pooled over tokens.

    Sparse vectors over the model's vocabulary; scores are inner products. Known good: `naver/splade-v3` and
    `naver/splade-cocondenser-ensembledistil` (English), `srnair/blade-en-zh` (also -fa, -ru; BLADE, Nair et al. 2023:
    English queries, documents in the other language), `opensearch-project/opensearch-neural-sparse-encoding-
    multilingual-v1` (15 languages). Of the last family (Geng et al. 2024) queries need no model: their terms have
    weights from `idf.json`. As these models were trained, all positions but padding are pooled over, [CLS] and [SEP]
    included; the weights of special tokens themselves are dropped.
    """

    decoder: torch.nn.Module
    lookup: np.ndarray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        special = torch.tensor(sorted(set(self.tokenizer.all_special_ids)))
        self.kept = torch.ones(self.spec.dim).index_fill(0, special, 0).bool().to(self.device)

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint: str,
        *,
        loading: Loading,
        prompts: Prompts,
        pooling: SpladePooling | None = None,
        activation: Activation | None = None,
        terms: int = 0,
        lookup: bool | None = None,
        max_tokens: int | None = None,
        lowercase: bool | None = None,
        dtype: Precision = "auto",
    ) -> SpladeEncoder:
        """Load from the hub or a directory, safetensors only.

        `terms` keeps so many of the strongest terms of a text (0: all). `activation` log1p_relu is
        log(1 + log(1 + relu)), as in opensearch's v3. `lookup` says if queries get their weights from the
        checkpoint's table, without the model; by default they do where it has one. `InputError` if the checkpoint has
        no tokenizer or no masked-LM head, or no table although `lookup` is true.
        """
        where, source = loading.where, loading.find_source(checkpoint)
        precision = resolve_dtype(dtype, where)
        settings = read_splade_settings(source)
        check_at_least(0, checkpoint, terms=terms)
        if lookup and settings.lookup is None:
            raise InputError(f"{checkpoint} has no weights for queries (idf.json): leave lookup out")
        inside = replace(source, folder=settings.folder)
        opened, decoder = _open_masked_model(inside, precision, where)
        tokenizer = opened.tokenizer
        longest = find_longest_input(opened.config, tokenizer, settings.max_tokens)
        known = settings.lowercase or any(name in checkpoint.lower() for name in LOWERCASED)
        lowered = known if lowercase is None else lowercase
        vocabulary = int(decoder.weight.shape[0])
        table = None
        if settings.lookup is not None and lookup is not False:
            table = read_query_weights(source, settings.lookup, tokenizer, vocabulary)
            table[tokenizer.all_special_ids] = 0
        spec = EncoderSpec(
            name=f"splade:{checkpoint}",
            revision=inside.identify_weights(opened.config),
            modalities=("text",),
            dim=vocabulary,
            kind="sparse",
            pooling=pooling or settings.pooling,
            query_prompt=choose_given(prompts.query_prompt, settings.query_prompt),
            document_prompt=choose_given(prompts.document_prompt, settings.document_prompt),
            special_tokens=tokenizer.decode(tokenizer("")["input_ids"]),
            max_tokens=limit_to(checkpoint, "max_tokens", max_tokens, longest, least=3),
            normalized=False,
            metric="dot",
            extra={
                "activation": activation or settings.activation,
                "terms": terms,
                "lowercase": lowered,
                "lookup": "" if table is None else hashlib.sha256(table.tobytes()).hexdigest()[:16],
            },
            dtype=name_dtype(precision),
        )
        return cls(opened=opened, spec=spec, decoder=decoder, lookup=table, device=where, lowercase=lowered)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Sparse]:  # type: ignore[override]
        """One `Sparse` of float32 [n, vocabulary] a window of items; text beyond `max_tokens` is cut off."""
        return encode_windows(
            items,
            self.spec,
            prepare=lambda group: self.tokenize_items(group, role),
            cost=len,
            forward=self._look_up if role == "query" and self.lookup is not None else self._weigh,
            budget=self.budget,
        )

    def _look_up(self, batch: Sequence[list[int]]) -> list[Terms]:
        """Each term of a query once, with its weight from the table."""
        assert self.lookup is not None
        found = []
        for ids in batch:
            terms = np.unique(np.array(ids, np.int32))
            terms = terms[self.lookup[terms] > 0]
            found.append((terms, self.lookup[terms]))
        return found

    @torch.inference_mode()
    def _weigh(self, batch: Sequence[list[int]]) -> list[Terms]:
        most = int(self.spec.extra["terms"])  # type: ignore[call-overload]
        return [select_terms(row.cpu().numpy(), most) for row in self.weigh_terms(batch)]

    def weigh_terms(self, batch: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """The weights of each text, float32 [vocabulary], 0 for special tokens; gradients flow through it."""
        inputs = self.collate(batch)
        states = self.model(**inputs).logits[inputs["attention_mask"].bool()]
        for row in self._pool(states, [len(ids) for ids in batch]):
            yield torch.where(self.kept, self._activate(row) if self.spec.pooling == "max" else row, 0)

    def _pool(self, states: torch.Tensor, lengths: Sequence[int]) -> Iterator[torch.Tensor]:
        """The pooled logits (for `sum`, weights) of each text, float32 [vocabulary].

        `states` [tokens, hidden] are those of all texts, one after the other. The vocabulary of XLM-R makes a
        megabyte of logits a token, so a few tokens at a time go through the head, and one row is held.
        """
        size = max(8, LOGITS[self.device.type] // (self.spec.dim * states.element_size()))
        ends = np.cumsum(lengths).tolist()
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
                    part = self._activate(chunk[at:stop].float()).sum(dim=0)
                    pooled = part if pooled is None else pooled + part
                if start + stop == ends[text]:
                    yield pooled
                    pooled, text = None, text + 1
                at = stop
            start += len(chunk)

    def _activate(self, logits: torch.Tensor) -> torch.Tensor:
        weights = torch.log1p(torch.relu(logits))
        return torch.log1p(weights) if self.spec.extra["activation"] == "log1p_relu" else weights


def _open_masked_model(source: Source, dtype: torch.dtype, device: torch.device) -> tuple[OpenModel, Any]:
    """The model without the last matrix of its head, and that matrix; its `logits` are then what that is given."""
    config, tokenizer = source.load_config(), source.load_tokenizer()
    needs = "; splade: needs a masked language model with its head, trained for sparse retrieval"
    model = source.load_model(transformers.AutoModelForMaskedLM, config=config, dtype=dtype, advice=needs)
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
            if states.shape[-1] == decoder.weight.shape[1] and torch.allclose(decoder(states), whole, atol=near):
                return OpenModel(config, tokenizer, model), decoder
    raise InputError(
        f"{source}: the head of {type(model).__name__} does not end in a plain matrix, as splade: needs it"
    )
