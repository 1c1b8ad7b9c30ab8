"""What a learned sparse checkpoint says about itself: pooling, activation, lengths, and weights for queries."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from ..checkpoints.sentence_files import fetch
from ..errors import InputError

Pooling = Literal["max", "sum"]
Activation = Literal["relu", "log1p_relu"]

MODEL = ("Transformer", "MLMTransformer")
LOOKUP = ("SparseStaticEmbedding", "IDF")


@dataclass(frozen=True)
class Published:
    """What the files say. `folder` is where in the checkpoint the model lies; `lookup` where its query weights do.

    `lookup` is the path of `idf.json` or of a `model.safetensors` with one tensor `weight`, None where queries go
    through the model.
    """

    folder: str = ""
    pooling: Pooling = "max"
    activation: Activation = "relu"
    max_tokens: int | None = None
    lowercase: bool = False
    query_prompt: str = ""
    document_prompt: str = ""
    lookup: str | None = None


def read(checkpoint: str, revision: str | None = None) -> Published:
    """Read sentence-transformers' files (SparseEncoder, symmetric or with a router), or opensearch's `idf.json`.

    Plain checkpoints (SPLADE's own, BLADE's) have none of them: max pooling of log(1 + relu). `InputError` on a
    module that we cannot reproduce.
    """
    modules = _json(checkpoint, "modules.json", revision)
    found = Published(lookup="idf.json" if fetch(checkpoint, "idf.json", revision) else None)
    if modules is None:
        return found
    steps = [(str(module.get("path", "")), str(module["type"])) for module in modules]
    queries = steps
    if len(steps) == 1 and steps[0][1].endswith("Router"):
        router = _json(checkpoint, "router_config.json", revision)
        if router is None:
            raise InputError(f"{checkpoint} has a Router in modules.json and no router_config.json")
        routes = {
            name: [(str(path), str(router["types"][path])) for path in router["structure"].get(name, ())]
            for name in ("document", "query")
        }
        steps, queries = routes["document"], routes["query"]
        if not steps:
            raise InputError(f"{checkpoint}: its router has no route for documents")
        found = replace(found, lookup=None)
    for folder, kind in steps:
        name = kind.rsplit(".", 1)[-1]
        if name == "SpladePooling":
            config = _json(checkpoint, f"{folder}/config.json", revision) or {}
            found = replace(
                found,
                pooling=_known(
                    checkpoint, "pooling_strategy", config.get("pooling_strategy", "max"), Pooling
                ),
                activation=_known(
                    checkpoint, "activation_function", config.get("activation_function", "relu"), Activation
                ),
            )
        elif name in MODEL:
            # A router's model may lie at the root, although it has a name of its own.
            inside = folder if folder and fetch(checkpoint, f"{folder}/config.json", revision) else ""
            length = _json(checkpoint, f"{inside}/sentence_bert_config.json".lstrip("/"), revision) or {}
            found = replace(
                found,
                folder=inside,
                max_tokens=length.get("max_seq_length"),
                lowercase=bool(length.get("do_lower_case")),
            )
        else:
            raise InputError(
                f"{checkpoint}: its module {name} is not one of SPLADE's, and not supported by splade:"
            )
    if queries != steps:
        found = replace(found, lookup=_lookup(checkpoint, queries, revision))
    settings = _json(checkpoint, "config_sentence_transformers.json", revision) or {}
    prompts = settings.get("prompts") or {}
    return replace(
        found, query_prompt=prompts.get("query") or "", document_prompt=prompts.get("document") or ""
    )


def lookup_weights(
    checkpoint: str, path: str, tokenizer: Any, vocabulary: int, revision: str | None
) -> np.ndarray:
    """The weight of each term in a query, float32 [vocabulary]; 0 for terms that the file does not name."""
    file = fetch(checkpoint, path, revision)
    if file is None:
        raise InputError(
            f"{checkpoint}: {path}, its weights for queries, is missing (pickled ones are not read)"
        )
    if path.endswith(".json"):
        weights = np.zeros(vocabulary, np.float32)
        try:
            named = json.loads(file.read_text("utf-8"))
            ids = tokenizer.convert_tokens_to_ids(list(named))
            weights[ids] = np.array(list(named.values()), np.float32)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"{file} is not a JSON object of tokens and their weights ({error})") from None
        return weights
    from safetensors.numpy import load_file

    tensors = load_file(file)
    if set(tensors) != {"weight"} or tensors["weight"].ndim != 1 or len(tensors["weight"]) > vocabulary:
        raise InputError(f"{file} is not one weight for each of {vocabulary} terms")
    given = tensors["weight"].astype(np.float32)
    return np.pad(given, (0, vocabulary - len(given)))


def _lookup(checkpoint: str, queries: list[tuple[str, str]], revision: str | None) -> str:
    kinds = [kind.rsplit(".", 1)[-1] for _, kind in queries]
    if len(queries) != 1 or kinds[0] not in LOOKUP:
        raise InputError(
            f"{checkpoint}: queries go another way than documents ({', '.join(kinds) or 'none'}); splade: knows one "
            f"model for both, or weights by lookup ({', '.join(LOOKUP)})"
        )
    folder = queries[0][0]
    named = (_json(checkpoint, f"{folder}/config.json", revision) or {}).get("path")
    return str(named) if named else f"{folder}/model.safetensors"


def _known(checkpoint: str, what: str, value: object, among: Any) -> Any:
    if value not in get_args(among):
        raise InputError(f"{checkpoint}: its {what} is {value!r}, not one of {', '.join(get_args(among))}")
    return value


def _json(checkpoint: str, name: str, revision: str | None) -> Any:
    path = fetch(checkpoint, name, revision)
    if path is None:
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
