"""Judges: models behind a backend that answer batches of questions. `Judge` is the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...checkpoints.offline.packages import DECODERS, require_package
from ...checkpoints.sharing import load_shared
from ...checkpoints.sizes import describe_checkpoint
from ...errors import InputError, check_known
from ...specs import Spec, bind_options, find_factory
from ...steps import step
from .base import Ask, BaseJudge, Completion, Judge, Sampling, can_see, refuse

__all__ = [
    "JUDGES",
    "Ask",
    "BaseJudge",
    "Completion",
    "Judge",
    "Sampling",
    "can_see",
    "check_judge",
    "find_judge",
    "load_judge",
    "open_judge",
    "refuse",
]

# family -> what opens a judge: called as `factory(checkpoint, *, device, trust_remote_code, OPTIONS)`, or with a
# `Loading` for the first two; its keyword-only parameters are the options that a SPEC may set. Other packages add
# theirs by entry points of `crosslens.judges`.
JUDGES = {
    "hf": "multilingual.judges.hf:open_hf",
    "openai": "multilingual.judges.openai:OpenAIJudge",
    "vllm": "multilingual.judges.vllm:open_vllm",
    "offline": "multilingual.judges.hf:open_offline",
}


def find_judge(spec: Spec) -> tuple[Callable[..., Judge], Spec]:
    """What opens the judge of a SPEC, and the SPEC as it is meant for that; `InputError` lists the known families."""
    return find_factory(spec, "judges", JUDGES, "judge family")


def check_judge(text: str) -> None:
    """`InputError` where a SPEC's model is known not to be here: no package, no directory, no answer of the hub."""
    spec = Spec.parse(text)
    if spec.family == "offline":
        check_known(spec.checkpoint, DECODERS, "offline judge")
        require_package(spec.checkpoint)
    elif spec.family == "hf" and spec.checkpoint:
        from ...checkpoints.source import Source

        Source(spec.checkpoint).check()


def load_judge(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Judge:
    """The judge that a SPEC `FAMILY:CHECKPOINT[?key=value&...]` names; `InputError` for what is wrong with it."""
    factory, spec = find_judge(Spec.parse(text))
    options = bind_options(spec, factory, device=device, trust_remote_code=trust_remote_code)
    return open_judge(factory, spec.checkpoint, options)


def open_judge(factory: Callable[..., Judge], checkpoint: str, options: Mapping[str, object]) -> Judge:
    """The judge that a factory opens, shared with those that hold it already.

    `InputError` where it has no `fingerprint`, without which no answer could be kept, and no result be told apart.
    """
    family = next((name for name, where in JUDGES.items() if where.endswith(f":{factory.__name__}")), "judge")
    with step(f"loading {describe_checkpoint(family, checkpoint)}"):
        judge: Judge = load_shared(factory, checkpoint, options)
    if not isinstance(getattr(judge, "fingerprint", None), str):
        raise InputError(f"the judge {type(judge).__name__} has no stable description: give it a `fingerprint`")
    return judge
