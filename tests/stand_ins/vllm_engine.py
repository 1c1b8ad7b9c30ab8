"""A stand-in for vLLM's Python API that runs a tiny model of transformers.

vLLM itself needs an accelerator; the stand-in takes only parameters that vLLM's own classes have, refuses what they
refuse, and answers in their shapes. It cannot show that vLLM keeps to them.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch

ENGINE = {  # of EngineArgs, those that a judge may set
    "model": "", "tokenizer": None, "revision": None, "tokenizer_revision": None, "trust_remote_code": False,
    "dtype": "auto", "seed": 0, "max_model_len": None, "gpu_memory_utilization": 0.9, "tensor_parallel_size": 1,
    "load_format": "auto", "enable_prefix_caching": None, "max_logprobs": 20, "logprobs_mode": "raw_logprobs",
}  # fmt: skip


@dataclass
class SamplingParams:
    """The fields that vLLM's has, with its defaults and checks."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    allowed_token_ids: list[int] | None = None

    def __post_init__(self):
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise ValueError("allowed_token_ids is not None and empty!")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[SimpleNamespace] = field(default_factory=list)
    num_cached_tokens: int | None = None


class LLM:
    made: list[LLM] = []  # noqa: RUF012

    def __init__(self, **given):
        import transformers

        assert given.keys() <= ENGINE.keys()
        self.args = ENGINE | given
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(given["model"])
        model = transformers.AutoModelForCausalLM.from_pretrained(given["model"], dtype=torch.float32)
        self.model = model.eval()
        config = SimpleNamespace(
            hf_config=model.config, dtype=torch.float32, max_model_len=given["max_model_len"] or 512
        )
        self.llm_engine = SimpleNamespace(model_config=config)
        self.seen = []
        LLM.made.append(self)

    def get_tokenizer(self):
        return self.tokenizer

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
        assert not use_tqdm
        assert len(prompts) == len(sampling_params)
        self.seen += sampling_params
        return [self._one(each["prompt_token_ids"], p) for each, p in zip(prompts, sampling_params, strict=True)]

    @torch.inference_mode()
    def _one(self, ids, params):
        for asked in (params.logprobs, params.prompt_logprobs):
            assert asked is None or asked <= self.args["max_logprobs"]
        assert len(ids) < self.args["max_model_len"] if self.args["max_model_len"] else len(ids) < 512
        logits = self.model(torch.tensor([ids])).logits[0]
        before = None
        if params.prompt_logprobs is not None:
            rows = logits.log_softmax(-1)
            before = [None]
            for row, token in zip(rows, ids[1:], strict=False):
                tops = [*row.topk(params.prompt_logprobs).indices.tolist(), token]
                before.append({each: Logprob(float(row[each])) for each in tops})
        said, shown, reason, text = [], [], "length", ""
        while len(said) < params.max_tokens:
            row = self.model(torch.tensor([ids + said])).logits[0, -1]
            raw = row.log_softmax(-1)
            if params.allowed_token_ids is not None:
                mask = torch.full_like(row, -torch.inf)
                mask[params.allowed_token_ids] = 0
                row = row + mask
            token = int(row.argmax())
            if params.logprobs is not None:
                chosen = row.log_softmax(-1) if self.args["logprobs_mode"] == "processed_logprobs" else raw
                tops = [*chosen.topk(params.logprobs).indices.tolist(), token]
                shown.append({each: Logprob(float(chosen[each])) for each in tops})
            said.append(token)
            if token == self.tokenizer.eos_token_id:
                reason = "stop"
                break
            text = self.tokenizer.decode(said, skip_special_tokens=True) if params.detokenize else ""
            if params.stop and any(each in text for each in params.stop):
                reason = "stop"
                break
        output = SimpleNamespace(
            text=text, token_ids=said, logprobs=shown if params.logprobs is not None else None, finish_reason=reason
        )
        return RequestOutput(ids, before, [output], num_cached_tokens=1)


def make_module() -> types.ModuleType:
    """What `import vllm` gives, for `sys.modules`."""
    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    LLM.made.clear()
    return module
