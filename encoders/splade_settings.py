"""What a learned sparse checkpoint says about itself: pooling, activation, lengths, and weights for queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from safetensors.numpy import load_file

from ..checkpoints.sentence_files import read_modules, read_prompts, strip_modules
from ..checkpoints.source import Source
from ..errors import InputError

SpladePooling = Literal["max", "sum"]
Activation = Literal["relu", "log1p_relu"]

MODEL = ("Transformer", "MLMTransformer")
LOOKUP = ("SparseStaticEmbedding", "IDF")


@dataclass(frozen=True)
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
        settings = replace(settings, lookup=None)
    for kind, folder in steps:
        if kind == "SpladePooling":
            config = source.read_json(f"{folder}/config.json") or {}
            settings = replace(
                settings,
                pooling=_read_choice(source, config, "pooling_strategy", SpladePooling),
                activation=_read_choice(source, config, "activation_function", Activation),
            )
        elif kind in MODEL:
            # A router's model may lie at the root, although it has a name of its own.
            inside = folder if folder and source.find(f"{folder}/config.json") else ""
            length = source.read_json(f"{inside}/sentence_bert_config.json".lstrip("/")) or {}
            settings = replace(
                settings,
                folder=inside,
                max_tokens=length.get("max_seq_length"),
                lowercase=bool(length.get("do_lower_case")),
            )
        else:
            raise InputError(f"{source}: its module {kind} is not one of SPLADE's, and not supported by splade:")
    if queries != steps:
        settings = replace(settings, lookup=_find_lookup(source, queries))
    prompts = read_prompts(source)
    return replace(settings, query_prompt=prompts.get("query", ""), document_prompt=prompts.get("document", ""))


def read_query_weights(source: Source, path: str, tokenizer: Any, vocabulary: int) -> np.ndarray:
    """The weight of each term in a query, float32 [vocabulary]; 0 for terms that the file does not name."""
    file = source.find(path)
    if file is None:
        raise InputError(f"{source}: {path}, its weights for queries, is missing (pickled ones are not read)")
    if path.endswith(".json"):
        weights = np.zeros(vocabulary, np.float32)
        try:
            named = json.loads(file.read_text("utf-8"))
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
