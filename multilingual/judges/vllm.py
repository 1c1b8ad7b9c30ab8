"""`vllm:CHECKPOINT`: a causal language model through vLLM in this process (its Python API from 0.10.2 on)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.devices import Precision
from ...checkpoints.options import Loading
from ...checkpoints.source import hash_weights
from ...errors import InputError, check_at_least, first_line
from .base import Completion, Sampling
from .messages import Message
from .tokenized import Continuation, TokenizedJudge

LEAST = -30.0  # the logarithm of a label mass that is none
MOST = 128  # token ids whose log-probabilities a request may ask for: 20 labels in a handful of forms


def open_vllm(
    checkpoint: str,
    *,
    loading: Loading,
    dtype: Precision = "auto",
    passage_tokens: int = 384,
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
    if loading.device != "auto" and not loading.device.startswith("cuda"):
        raise InputError(f"vllm:{checkpoint} runs on the accelerator that vLLM is built for, not on {loading.device}")
    if not 0 < memory <= 1:
        raise InputError(f"memory is a share above 0 and at most 1, not {memory}")
    check_at_least(1, passage_tokens=passage_tokens, parallel=parallel)
    check_at_least(0, context=context)
    try:
        engine = LLM(
            model=checkpoint,
            revision=loading.revision,
            tokenizer_revision=loading.revision,
            trust_remote_code=loading.trust_remote_code,
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
        raise InputError(f"vllm:{checkpoint} cannot be loaded: {first_line(error, 300)}") from None
    return VLLMJudge(engine, checkpoint, passage_tokens=passage_tokens, seed=seed)


class VLLMJudge(TokenizedJudge):
    """A causal language model through vLLM, which batches, and computes prefixes that prompts share once.

    Labels of one token each are scored in a single step that allows no other token; labels of many, and targets, by
    the prompt's own log-probabilities, which vLLM cannot take from its prefix cache.
    """

    appetite = 4096
    weighs = True
    spare = 1  # it always makes one token, whether or not it is looked at

    def __init__(self, engine: Any, checkpoint: str, *, passage_tokens: int, seed: int = 0) -> None:
        config = engine.llm_engine.model_config
        context = int(config.max_model_len) - self.spare
        commit = getattr(config.hf_config, "_commit_hash", None)
        revision = str(commit or (hash_weights(checkpoint) if Path(checkpoint).is_dir() else "unknown"))
        name, tokenizer = f"vllm:{checkpoint}", engine.get_tokenizer()
        super().__init__(tokenizer, name, revision, passage_tokens=passage_tokens, context=context)
        self.engine = engine
        self.seed = seed
        self._dtype = str(config.dtype)

    @property
    def fingerprint(self) -> str:
        return f"{self.revision}/vllm/{self._dtype}/{self.context}/{self.passage_tokens}/{self.seed}"

    def compute_completions(self, prompts: Sequence[Message], sampling: Sampling) -> list[Completion]:
        from vllm import SamplingParams

        seed = self.seed if sampling.seed is None else sampling.seed
        options = SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=seed if sampling.temperature > 0 else None,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=True,
        )
        rows, _ = self.prepare_prompts(prompts, sampling.max_new_tokens)
        written = [output.outputs[0] for output in self._run(rows, [options] * len(rows))]
        self.count_answers(len(prompts))
        self.usage["generated_tokens"] += sum(len(each.token_ids) for each in written)
        return [Completion(each.text, len(each.token_ids), each.finish_reason != "length") for each in written]

    def compute_answers(
        self, starts: Sequence[tuple[int, ...]], asked: Sequence[Sequence[Continuation]]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        from vllm import SamplingParams

        questions = [(row, column, each) for row, some in enumerate(asked) for column, each in enumerate(some)]
        sampling: list[dict[str, Any]] = []
        for *_, each in questions:
            allowed = sorted({token for ids in each.labels for token in ids})
            if len(allowed) > MOST:
                raise InputError(f"{self.name}: labels of {len(allowed)} tokens in all, and at most {MOST} are scored")
            shown = {"logprobs": len(allowed), "allowed_token_ids": allowed} if allowed else {"prompt_logprobs": 1}
            sampling.append(shown)
        ids = [each.after(starts[row]).tokens for row, _, each in questions]
        weighed = [n for n, (*_, each) in enumerate(questions) if each.weighed]
        # What the model would say if it were free to: the prompt is in the cache by then.
        sampling += [{"logprobs": MOST}] * len(weighed)
        options = [SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, **each) for each in sampling]
        outputs = self._run([*ids, *(ids[n] for n in weighed)], options)
        free = dict(zip(weighed, outputs[len(ids) :], strict=True))
        for n, ((row, column, each), tokens, output) in enumerate(zip(questions, ids, outputs, strict=False)):
            if each.labels:
                found = output.outputs[0].logprobs[0]
                forms = [[found[token].logprob for token in label] for label in each.labels]
                scores = [np.logaddexp.reduce(form) for form in forms]
                if n in free:
                    likely = free[n].outputs[0].logprobs[0]
                    said = (likely[token].logprob for label in each.labels for token in label if token in likely)
                    scores.append(np.logaddexp.reduce(scores) - np.logaddexp.reduce([LEAST, *said]))
            else:
                places = range(len(tokens) - each.scored, len(tokens))
                scores = [output.prompt_logprobs[place][tokens[place]].logprob for place in places]
            yield row, column, np.array(scores, dtype=np.float64)

    def _run(self, rows: Sequence[tuple[int, ...]], sampling: Sequence[Any]) -> list[Any]:
        prompts = [{"prompt_token_ids": list(row)} for row in rows]
        outputs: list[Any] = self.engine.generate(prompts, list(sampling), use_tqdm=False)
        for row, output in zip(rows, outputs, strict=True):
            self.usage["prompt_tokens"] += len(row) - (output.num_cached_tokens or 0)
        return outputs
