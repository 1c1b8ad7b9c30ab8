"""`vllm:CHECKPOINT`: a causal language model through vLLM in this process (its Python API from 0.10.2 on)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.devices import Precision
from ...errors import InputError
from ...items import Modality
from ...pipeline import advance
from .base import Ask, Completion, refuse
from .chats import target_begins, texts, token_ids
from .messages import Message
from .tokens import SEAM, Tail, Tokens, chosen, tails

MOST = 128  # token ids whose log-probabilities a request may ask for: 20 labels in a handful of forms


def open_vllm(
    checkpoint: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    dtype: Precision = "auto",
    passage_tokens: int = 384,
    revision: str | None = None,
    context: int = 0,
    memory: float = 0.9,
    parallel: int = 1,
    seed: int = 0,
) -> VLLMJudge:
    """Load from the hub or a directory, safetensors only; passages are cut to `passage_tokens`.

    `context` bounds prompt and answer in tokens (0: the model's own), `memory` is the share of the accelerator's
    memory that vLLM takes, `parallel` over how many accelerators the weights are split. `InputError` where vLLM is
    missing or cannot load the model.
    """
    try:
        from vllm import LLM
    except ImportError:
        raise InputError("vllm: judges need the package vllm; pip install 'crosslens[vllm]'") from None
    if not checkpoint:
        raise InputError("the judge vllm: names no model; write vllm:CHECKPOINT")
    if device != "auto" and not device.startswith("cuda"):
        raise InputError(f"vllm:{checkpoint} runs on the accelerator that vLLM is built for, not on {device}")
    if not 0 < memory <= 1:
        raise InputError(f"memory is a share above 0 and at most 1, not {memory}")
    for what, value, least in (
        ("passage_tokens", passage_tokens, 1),
        ("context", context, 0),
        ("parallel", parallel, 1),
    ):
        if value < least:
            raise InputError(f"{what} must be at least {least}, not {value}")
    try:
        engine = LLM(
            model=checkpoint,
            revision=revision,
            tokenizer_revision=revision,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            seed=seed,
            max_model_len=context or None,
            gpu_memory_utilization=memory,
            tensor_parallel_size=parallel,
            load_format="safetensors",  # "auto" would also open pickles
            enable_prefix_caching=True,
            max_logprobs=MOST,
            # Of the allowed tokens only: the default would give those of the whole vocabulary, labels or not.
            logprobs_mode="processed_logprobs",
        )
    except (ValueError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise InputError(f"vllm:{checkpoint} cannot be loaded: {reason}") from None
    return VLLMJudge(engine, checkpoint, passage_tokens=passage_tokens, seed=seed)


class VLLMJudge:
    """A causal language model through vLLM, which batches, and computes prefixes that prompts share once.

    Labels of one token each are scored in a single step that allows no other token; labels of many, and targets, by
    the prompt's own log-probabilities, which vLLM cannot take from its prefix cache.
    """

    modalities: frozenset[Modality] = frozenset({"text"})
    can: frozenset[Ask] = frozenset({"choose", "likelihood", "generate"})
    appetite = 4096

    def __init__(self, engine: Any, checkpoint: str, *, passage_tokens: int, seed: int = 0) -> None:
        config = engine.llm_engine.model_config
        self.name = f"vllm:{checkpoint}"
        self.revision = _revision(config.hf_config, checkpoint)
        self.engine = engine
        self.tokenizer = engine.get_tokenizer()
        self.tokens = Tokens(self.tokenizer, self.name)
        self.context = int(config.max_model_len) - 1  # it always makes one token
        self.passage_tokens, self.seed = passage_tokens, seed
        self.chats = bool(getattr(self.tokenizer, "chat_template", None))
        self.usage: Counter[str] = Counter()
        self._dtype = str(config.dtype)

    @property
    def fingerprint(self) -> str:
        return f"{self.revision}/vllm/{self._dtype}/{self.context}/{self.passage_tokens}/{self.seed}"

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        # The step itself makes one token; the tokens of long labels need room in the prompt.
        read = texts(self, prompts, 1 + max((self.tokens.count(f" {label}") for label in labels), default=0))
        asked = tails([self.tokens.labels(text[-SEAM:], tuple(labels)) for text in read])
        questions = [
            (start, tail)
            for start, row in zip(token_ids(self, read, prompts), asked, strict=True)
            for tail in row
        ]
        return chosen(asked, self._answers(questions, len(prompts)), len(labels))

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        longest = max((self.tokens.count(target) for target in set(targets)), default=0)
        read = texts(self, prompts, longest + 1)
        starts = token_ids(self, read, prompts)
        wholes = token_ids(self, [text + target for text, target in zip(read, targets, strict=True)], prompts)
        questions = []
        for start, whole, target in zip(starts, wholes, targets, strict=True):
            begins = target_begins(start, whole, self.name, target)
            questions.append((whole[:begins], Tail(whole[begins:], len(whole) - begins)))
        return np.array([row.mean() for row in self._answers(questions, len(prompts))], dtype=np.float64)

    def generate(
        self,
        prompts: Sequence[Message],
        *,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[Completion]:
        """Greedy at temperature 0; ends at one of `stop`, which the text then ends with."""
        from vllm import SamplingParams

        sampling = SamplingParams(
            max_tokens=max_new_tokens,
            temperature=temperature,
            seed=(self.seed if seed is None else seed) if temperature > 0 else None,
            stop=list(stop) or None,
            include_stop_str_in_output=True,
        )
        rows = token_ids(self, texts(self, prompts, max_new_tokens), prompts)
        said = [output.outputs[0] for output in self._run(rows, [sampling] * len(rows))]
        self._answered(len(prompts))
        self.usage["generated_tokens"] += sum(len(each.token_ids) for each in said)
        return [Completion(each.text, len(each.token_ids), each.finish_reason != "length") for each in said]

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        raise refuse(self, "score")

    def _answers(self, questions: Sequence[tuple[tuple[int, ...], Tail]], many: int) -> list[np.ndarray]:
        """The log-probabilities of each tail's scored tokens, or of its labels, float64."""
        from vllm import SamplingParams

        # vLLM always makes one token, whether or not it is looked at.
        one = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
        sampling = []
        for _, tail in questions:
            allowed = sorted({token for ids in tail.labels for token in ids})
            if len(allowed) > MOST:
                raise InputError(
                    f"{self.name}: labels of {len(allowed)} tokens in all, and at most {MOST} are scored"
                )
            if allowed:
                sampling.append(SamplingParams(**one, logprobs=len(allowed), allowed_token_ids=allowed))
            else:
                sampling.append(SamplingParams(**one, prompt_logprobs=1))
        rows = [(*start, *tail.tokens) for start, tail in questions]
        answers = []
        for row, (_, tail), output in zip(rows, questions, self._run(rows, sampling), strict=True):
            if tail.labels:
                shown = output.outputs[0].logprobs[0]
                forms = [[shown[token].logprob for token in ids] for ids in tail.labels]
                answers.append(np.array([np.logaddexp.reduce(each) for each in forms], dtype=np.float64))
            else:
                places = range(len(row) - tail.scored, len(row))
                values = [output.prompt_logprobs[place][row[place]].logprob for place in places]
                answers.append(np.array(values, dtype=np.float64))
        self._answered(many)
        return answers

    def _run(self, rows: Sequence[tuple[int, ...]], sampling: Sequence[Any]) -> list[Any]:
        if not rows:
            return []
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        outputs: list[Any] = self.engine.generate(prompts, list(sampling), use_tqdm=False)
        for row, output in zip(rows, outputs, strict=True):
            self.usage["prompt_tokens"] += len(row) - (output.num_cached_tokens or 0)
        return outputs

    def _answered(self, many: int) -> None:
        self.usage["calls"] += many
        advance(many)


def _revision(config: Any, checkpoint: str) -> str:
    from ...checkpoints.source import hash_weights

    commit = getattr(config, "_commit_hash", None)
    return str(commit or (hash_weights(checkpoint) if Path(checkpoint).is_dir() else "unknown"))
