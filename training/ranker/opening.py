"""The base of a ranker: a prompt, and the model that answers it, opened by the code of inference to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ...checkpoints.lora import find_base, find_tokenizer
from ...checkpoints.offline.packages import make_checkpoint
from ...checkpoints.options import Loading
from ...checkpoints.source import Source
from ...errors import InputError
from ...files import read_json
from ...multilingual.judges.classifier import ClassifierJudge
from ...multilingual.judges.hf import find_task, open_hf
from ...multilingual.judges.local import LocalJudge
from ...multilingual.prompts import Prompt, bind_judge, list_prompts, load_prompt, split_method
from ...specs import Spec
from ..card import CARD

HEADS = ("score.", "classifier.", "pooler.", "pre_classifier.", "head.", "bert.pooler.", "dense.")
PASSAGE_TOKENS = 384  # as `open_hf` has it


@dataclass(frozen=True, eq=False)
class RankerBase:
    """What is trained: a judge whose weights take gradients, asked in the words of a prompt.

    `written` is the SPEC that names both, `options` those that its system keeps, `weights` what the base is known by.
    """

    written: str
    prompt: Prompt
    judge: LocalJudge
    source: Source
    weights: str
    options: Mapping[str, str]

    def write_system(self, checkpoint: str | Path) -> str:
        """The SPEC of a reranker that asks a trained checkpoint as it was trained."""
        return f"{self.prompt.name}@{Spec('hf', str(checkpoint), self.options)}"


def open_ranker(
    text: str, *, prompt: str = "", device: str = "auto", trust_remote_code: bool = False, seed: int = 0
) -> RankerBase:
    """The base that a SPEC `PROMPT@FAMILY:CHECKPOINT[?...]` names; without PROMPT@ it is asked by the `prompt`.

    Prompts of a score take a cross-encoder, or any encoder or decoder, which then gets a new head drawn by the `seed`;
    others a language model. Weights are in float32 unless the SPEC says dtype=. `InputError` for what cannot be
    trained: int8, a model behind a server, one that was trained here with another prompt.
    """
    method, spec = split_method(text, "base", "PROMPT@hf:CHECKPOINT") if "@" in text.partition("?")[0] else ("", None)
    spec = spec or Spec.parse(text)
    name = method or prompt
    if not name:
        raise InputError(
            f"the base {text} does not say what it is asked: write PROMPT@{text}, with one of "
            f"{', '.join(list_prompts())}"
        )
    if ":" in name and not name.endswith(".toml"):
        raise InputError(f"a ranker is trained for a prompt, not for a sorter: write {name.partition(':')[0]}@{spec}")
    if spec.family not in ("hf", "offline"):
        raise InputError(
            f"{spec.family}: models are out of reach of training: take hf: with a directory or a name of the hub, or "
            f"offline:"
        )
    words = load_prompt(name)
    words, _, options, _ = bind_judge(text, spec, words, device=device, trust_remote_code=trust_remote_code)
    if options.get("dtype") == "int8":
        raise InputError(f"{text}: weights in int8 cannot be trained; leave dtype out")
    loading = Loading(device=device, trust_remote_code=trust_remote_code, revision=spec.options.get("revision"))
    checkpoint = str(make_checkpoint(spec.checkpoint)) if spec.family == "offline" else spec.checkpoint
    given = {key: str(options[key]) for key in ("adapter", "base") if options.get(key)}
    _check_trained(checkpoint, words)
    settings: dict[str, Any] = {
        "dtype": options.get("dtype", "float32"),
        "passage_tokens": options.get("passage_tokens", PASSAGE_TOKENS),
        **given,
    }  # fmt: skip
    if settings["dtype"] == "auto":
        settings["dtype"] = "float32"
    judge: LocalJudge
    if words.asks == "score":
        judge, source = _open_head(checkpoint, loading, seed, **settings)
    else:
        _, source = find_base(loading.find_source(checkpoint), given.get("adapter"), given.get("base"))
        kind = find_task(source.load_config(), source)
        if kind not in ("causal", "seq2seq"):
            raise InputError(f"{spec} is run as {kind}, and the prompt {words.name} trains a language model")
        opened = open_hf(checkpoint, loading=loading, task=kind, **settings)  # type: ignore[arg-type]
        assert isinstance(opened, LocalJudge)
        judge = opened
        _ = judge.head  # found out before dropout is on
    words.check_judge(judge)
    kept = {
        key: value for key, value in spec.options.items() if key not in ("dtype", "adapter", "base", "task", "revision")
    }
    return RankerBase(text, words, judge, source, judge.revision, kept)


def _open_head(
    checkpoint: str,
    loading: Loading,
    seed: int,
    *,
    dtype: str,
    passage_tokens: int,
    adapter: str | None = None,
    base: str | None = None,
) -> tuple[ClassifierJudge, Source]:
    """A classifier with one label, or as many as the checkpoint has; its head is new where the checkpoint has none."""
    found, source = find_base(loading.find_source(checkpoint), adapter, base)
    config = source.load_config()
    headed = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if found and found.labels:
        config.num_labels = found.labels
    elif not headed:
        config.num_labels = 1
    held = found.keys if found else frozenset()

    def is_spare(key: str) -> bool:
        return key in held or (not headed and key.startswith(HEADS))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = source.load_model(
            transformers.AutoModelForSequenceClassification, is_spare, config=config, dtype=getattr(torch, dtype)
        )
    known = source.identify_weights(model.config)
    if found:
        model, known = found.merge_into(model), f"{known}+{found.revision}"
    tokenizer = find_tokenizer(found, source).load_tokenizer()
    name = f"hf:{checkpoint}"
    judge = ClassifierJudge(model, tokenizer, name, known, passage_tokens=passage_tokens, device=loading.where)
    if len(judge.grades) > 2:
        raise InputError(f"{name} has {len(judge.grades)} labels: a ranker is trained with a head of one or two")
    return judge, source


def _check_trained(checkpoint: str, prompt: Prompt) -> None:
    """`InputError` where a checkpoint was trained here with another prompt."""
    path = Path(checkpoint, CARD)
    if not path.is_file():
        return
    card = read_json(path)
    was = card.get("prompt") if isinstance(card, dict) else None
    if was and was != prompt.name:
        raise InputError(
            f"{checkpoint} was trained with the prompt {was}, not {prompt.name}: write {was}@hf:{checkpoint}"
        )
