"""`splade:` learned sparse retrieval: a masked language model says how much each term of its vocabulary matters."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from ..checkpoints.devices import Precision, name_dtype, resolve_dtype
from ..checkpoints.open import OpenModel
from ..checkpoints.options import Loading, Prompts, choose_given, limit_to
from ..checkpoints.sentence_files import read_modules, read_prompts, strip_modules
from ..checkpoints.source import Source
from ..errors import InputError, check_at_least
from ..files import parse_json, read_text
from ..items import Role
from .base import EncoderSpec
from .batching import Terms, select_terms
from .transformer import TransformerEncoder

log = logging.getLogger("crosslens")
SpladePooling = Literal["max", "sum"]
Activation = Literal["relu", "log1p_relu"]

MODEL = ("Transformer", "MLMTransformer")
LOOKUP = ("SparseStaticEmbedding", "IDF")
TRAINED = ("splade", "blade", "sparse")  # in the names of checkpoints whose files say nothing of what they are for
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
        source = loading.find_source(checkpoint)
        settings = read_splade_settings(source)
        if may_be_plain(source) and not any(name in checkpoint.lower() for name in TRAINED):
            log.warning("%s does not say that it was trained for sparse retrieval: before a plain masked language "
                        "model is, it finds little (crosslens train encoder EXAMPLES --base splade:%s)",
                        checkpoint, checkpoint)  # fmt: skip
        check_at_least(0, checkpoint, terms=terms)
        if lookup and settings.lookup is None:
            raise InputError(f"{checkpoint} has no weights for queries (idf.json): leave lookup out")
        inside = replace(source, folder=settings.folder)
        opened, decoder = _open_masked_model(inside, resolve_dtype(dtype, loading.where), loading.where)
        tokenizer = opened.tokenizer
        longest = opened.find_longest_input(settings.max_tokens)
        if lowercase is None:
            lowercase = settings.lowercase or any(name in checkpoint.lower() for name in LOWERCASED)
        vocabulary = int(decoder.weight.shape[0])
        table = None
        if settings.lookup is not None and lookup is not False:
            table = read_query_weights(source, settings.lookup, tokenizer, vocabulary)
            table[tokenizer.all_special_ids] = 0
        spec = EncoderSpec(
            name=f"splade:{checkpoint}",
            revision=opened.weights,
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
                "lowercase": lowercase,
                "lookup": "" if table is None else hashlib.sha256(table.tobytes()).hexdigest()[:16],
            },
            dtype=opened.computes_in,
        )
        return cls(opened=opened, spec=spec, decoder=decoder, lookup=table, lowercase=lowercase)

    @torch.inference_mode()
    def compute(self, batch: Sequence[list[int]], role: Role) -> list[Terms]:
        """The terms of each text; those of a query, where there is a table, once each with their weights from it."""
        if role == "query" and self.lookup is not None:
            found = [np.unique(np.array(ids, np.int32)) for ids in batch]
            found = [terms[self.lookup[terms] > 0] for terms in found]
            return [(terms, self.lookup[terms]) for terms in found]
        most = int(self.spec.extra["terms"])  # type: ignore[call-overload]
        return [select_terms(row.cpu().numpy(), most) for row in self.weigh_terms(batch)]

    def weigh_terms(self, batch: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """The weights of each text, float32 [vocabulary], 0 for special tokens; gradients flow through it."""
        inputs = self.collate(batch)
        states = self.model(**inputs).logits[inputs["attention_mask"].bool()]
        for row in self._pool(states, [len(ids) for ids in batch]):
            yield torch.where(self.kept, self._activate(row) if self.spec.pooling == "max" else row, 0)

    def _pool(self, states: torch.Tensor, lengths: Sequence[int]) -> Iterator[torch.Tensor]:
        """The pooled logits (for `sum`, weights) of each text; `states` [tokens, hidden] of all are end to end."""
        # The vocabulary of XLM-R makes a megabyte of logits a token: a few tokens at a time go through the head.
        size = max(8, LOGITS[self.device.type] // (self.spec.dim * states.element_size()))
        remaining = iter(lengths)
        missing = next(remaining, 0)  # tokens of the text at hand
        pooled: torch.Tensor | None = None
        for chunk in states.split(size):
            logits = self.decoder(chunk)
            while len(logits):
                part, logits = logits[:missing], logits[missing:]
                missing -= len(part)
                if self.spec.pooling == "max":
                    # log(1 + relu) rises, so the maximum may be taken before it.
                    part = part.amax(dim=0).float()
                    pooled = part if pooled is None else torch.maximum(pooled, part)
                else:
                    part = self._activate(part.float()).sum(dim=0)
                    pooled = part if pooled is None else pooled + part
                if not missing:
                    yield pooled
                    pooled, missing = None, next(remaining, 0)

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
                weights = source.identify_weights(config)
                return OpenModel(config, tokenizer, model, weights, name_dtype(dtype), device), decoder
    raise InputError(
        f"{source}: the head of {type(model).__name__} does not end in a plain matrix, as splade: needs it"
    )


@dataclass
class SpladeSettings:
    """What the files say. `folder` is where in the checkpoint the model lies; `lookup` where its query weights do.

    `lookup` is the path of `idf.json` or of a `model.safetensors` with one tensor `weight`, None where queries go
    through the model.
    """

    folder: str = ""
    pooling: SpladePooling = "max"
    activation: Activation = "relu"
    max_tokens: int | None = None
    lowercase: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    lookup: str | None = None


def may_be_plain(source: Source) -> bool:
    """Whether a checkpoint says nothing of sparse retrieval: a masked language model, or one of the first SPLADEs."""
    return not any(read_modules(source)) and source.find("idf.json") is None


def read_splade_settings(source: Source) -> SpladeSettings:
    """Read sentence-transformers' files (SparseEncoder, symmetric or with a router), or opensearch's `idf.json`.

    Plain checkpoints (SPLADE's own, BLADE's) have none of them: max pooling of log(1 + relu). `InputError` on a
    module that we cannot reproduce.
    """
    steps = queries = list(read_modules(source))
    settings = SpladeSettings(lookup="idf.json" if source.find("idf.json") else None)
    if not steps:
        return settings
    if [kind for kind, _ in steps] == ["Router"]:
        steps, queries = _read_routes(source)
        settings.lookup = None
    for kind, folder in steps:
        if kind == "SpladePooling":
            config = source.read_json(f"{folder}/config.json") or {}
            settings.pooling = _read_choice(source, config, "pooling_strategy", SpladePooling)
            settings.activation = _read_choice(source, config, "activation_function", Activation)
        elif kind in MODEL:
            # A router's model may lie at the root, although it has a name of its own.
            settings.folder = folder if folder and source.find(f"{folder}/config.json") else ""
            length = source.read_json(f"{settings.folder}/sentence_bert_config.json") or {}
            settings.max_tokens = length.get("max_seq_length")
            settings.lowercase = bool(length.get("do_lower_case"))
        else:
            raise InputError(f"{source}: its module {kind} is not one of SPLADE's, and not supported by splade:")
    if queries != steps:
        settings.lookup = _find_lookup(source, queries)
    prompts = read_prompts(source)
    settings.query_prompt, settings.document_prompt = prompts.get("query", ""), prompts.get("document", "")
    return settings


def read_query_weights(source: Source, path: str, tokenizer: Any, vocabulary: int) -> np.ndarray:
    """The weight of each term in a query, float32 [vocabulary]; 0 for terms that the file does not name."""
    file = source.find(path)
    if file is None:
        raise InputError(f"{source}: {path}, its weights for queries, is missing (pickled ones are not read)")
    if path.endswith(".json"):
        weights = np.zeros(vocabulary, np.float32)
        text = read_text(file)
        try:
            named = parse_json(text)
            ids = tokenizer.convert_tokens_to_ids(list(named))
            weights[ids] = np.array(list(named.values()), np.float32)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"{file} is not a JSON object of tokens and their weights ({error})") from None
        return weights
    tensors = load_file(file)
    if set(tensors) != {"weight"} or tensors["weight"].ndim != 1 or len(tensors["weight"]) > vocabulary:
        raise InputError(f"{file} is not one weight for each of {vocabulary} terms")
    given = tensors["weight"].astype(np.float32)
    return np.pad(given, (0, vocabulary - len(given)))


def _read_routes(source: Source) -> list[list[tuple[str, str]]]:
    """The modules of documents and those of queries, each its kind and folder."""
    router = source.read_json("router_config.json")
    if router is None:
        raise InputError(f"{source} has a Router in modules.json and no router_config.json")
    routes = [
        [(strip_modules(router["types"][path]), str(path)) for path in router["structure"].get(name, ())]
        for name in ("document", "query")
    ]
    if not routes[0]:
        raise InputError(f"{source}: its router has no route for documents")
    return routes


def _find_lookup(source: Source, queries: Sequence[tuple[str, str]]) -> str:
    kinds = [kind for kind, _ in queries]
    if len(queries) != 1 or kinds[0] not in LOOKUP:
        raise InputError(
            f"{source}: queries go another way than documents ({', '.join(kinds) or 'none'}); splade: knows one "
            f"model for both, or weights by lookup ({', '.join(LOOKUP)})"
        )
    folder = queries[0][1]
    named = (source.read_json(f"{folder}/config.json") or {}).get("path")
    return str(named) if named else f"{folder}/model.safetensors"


def _read_choice(source: Source, config: dict[str, Any], key: str, among: Any) -> Any:
    """The value of a key, by default the first there is."""
    known = get_args(among)
    if (value := config.get(key, known[0])) not in known:
        raise InputError(f"{source}: its {key} is {value!r}, not one of {', '.join(known)}")
    return value
