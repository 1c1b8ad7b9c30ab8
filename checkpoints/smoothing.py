"""Outliers of activations moved into the weights, for int8 (SmoothQuant; Xiao et al. 2023, arXiv:2211.10438).

Where some columns of what linear layers read are much larger than the rest, one int8 step for a row leaves little of
the rest. Columns are divided by factors and the weights multiplied by them; what makes the columns is divided once and
for all: a norm's weights, the rows of `up_proj` (a gated layer is linear in them), the rows of `v_proj` (so is
attention). The factors are powers of two: the model computes bit by bit what it did, which is checked. Nothing is left
to do at run time.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

import torch

log = logging.getLogger(__name__)

ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)  # how much of the outliers goes into the weights: the paper's alpha
ROWS = 256  # of the sample, and
OUTPUTS = 512  # of the layers' outputs, on which an alpha is chosen
LEAST = 1e-6  # of the largest column, or weight, that a factor goes by

Maker = Literal["norm", "up_proj", "v_proj"]


@dataclass(eq=False)
class Fold:
    """Linear layers that read the same columns, and the tensors [columns, ...] that make these.

    In attention one of the maker's heads of `head` columns may make `sharing` of the readers' heads.
    """

    kind: Maker
    makers: list[torch.Tensor]
    readers: list[torch.nn.Linear]
    head: int = 1
    sharing: int = 1
    seen: list[torch.Tensor] = field(default_factory=list)

    def apply(self, factor: torch.Tensor) -> None:
        """Divide what the makers make by powers of two [columns of the makers]."""
        for maker in self.makers:
            maker.div_(factor.view(-1, *[1] * (maker.dim() - 1)).to(maker.dtype))
        for reader in self.readers:
            reader.weight.mul_(self._spread(factor).to(reader.weight.dtype))

    def choose(self) -> torch.Tensor | None:
        """The factors with which int8 is least off on the sample; None where it is so without any."""
        states = torch.cat(self.seen).float()
        states = states[states.any(1)]
        weight = torch.cat([each.weight for each in self.readers])
        columns, weights = (self._gather(find_peaks(each)) for each in (states, weight))
        rows = states[:: -(-len(states) // ROWS)]
        some = weight[:: -(-len(weight) // OUTPUTS)].float()
        exact = rows @ some.T
        best, least = None, compute_error(exact, rows, some)
        for alpha in ALPHAS:
            power = (alpha * columns.log2() - (1 - alpha) * weights.log2()).round_()
            factor = (power - power.median()).exp2_()
            wide = self._spread(factor)
            if (error := compute_error(exact, rows / wide, some * wide)) < least:
                best, least = factor, error
        return best

    def _spread(self, factor: torch.Tensor) -> torch.Tensor:
        """Of the makers' columns to the readers'."""
        return factor.view(-1, 1, self.head).expand(-1, self.sharing, -1).reshape(-1)

    def _gather(self, peaks: torch.Tensor) -> torch.Tensor:
        """Of the readers' columns to the makers': the largest."""
        return peaks.view(-1, self.sharing, self.head).amax(1).reshape(-1)


def find_peaks(values: torch.Tensor) -> torch.Tensor:
    """The largest value of each column, where each row is measured by its own largest: it has a step of its own."""
    sizes = values.abs()
    return sizes.div_(sizes.amax(1, keepdim=True).clamp_min_(1e-30)).amax(0).float().clamp_min_(LEAST)


def compute_error(exact: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> float:
    """How far the int8 product is from the exact one, relative to its rows."""
    off = (round_rows(rows) @ round_rows(weight).T).sub_(exact)
    return float((off.square().sum(1) / exact.square().sum(1).clamp_min_(1e-30)).mean())


def round_rows(values: torch.Tensor) -> torch.Tensor:
    step = values.abs().amax(1, keepdim=True).clamp_min_(1e-30).div_(127)
    return (values / step).round_().mul_(step)


def smooth(
    model: Any, sample: Sequence[Sequence[int]], norms: Mapping[torch.nn.Module, torch.Tensor], gated: set[type]
) -> None:
    """Move outliers that a sample (token ids of some texts) shows into the weights; the model stays what it computes.

    `norms` have the vectors that norms multiply with, `gated` are the classes of gated feed-forward layers. A kind of
    maker whose columns something else reads as well, so that the model would compute something else, is left alone.
    """
    inputs = [torch.tensor([ids]) for ids in sample if ids]
    if not inputs:
        return
    folds = find_folds(model, inputs, norms, gated)

    def compute() -> torch.Tensor:
        states: torch.Tensor = model(input_ids=inputs[0], use_cache=False)[0]
        return states

    before = compute()
    for kind in ("norm", "up_proj", "v_proj"):
        chosen = [(fold, factor) for fold in folds if fold.kind == kind and (factor := fold.choose()) is not None]
        for fold, factor in chosen:
            fold.apply(factor)
        if not torch.equal(compute(), before):
            log.info("int8: outliers stay in what %s makes: the model would compute something else", kind)
            for fold, factor in chosen:
                fold.apply(factor.reciprocal())


def find_folds(
    model: torch.nn.Module,
    inputs: Sequence[torch.Tensor],
    norms: Mapping[torch.nn.Module, torch.Tensor],
    gated: set[type],
) -> list[Fold]:
    """What reads what, and what it has seen, found out by running the model."""
    after = {}
    for each in model.modules():
        if type(each) in gated:
            layer: Any = each
            after[layer.down_proj] = Fold("up_proj", [layer.up_proj.weight], [layer.down_proj])
        value, out, head = (getattr(each, key, None) for key in ("v_proj", "o_proj", "head_dim"))
        if isinstance(value, torch.nn.Linear) and isinstance(out, torch.nn.Linear) and isinstance(head, int):
            sharing, rest = divmod(out.in_features, value.out_features)
            if sharing and not rest and not value.out_features % head:
                makers = [value.weight] if value.bias is None else [value.weight, value.bias]
                after[out] = Fold("v_proj", makers, [out], head, sharing)
    found: dict[torch.nn.Module, Fold] = {}
    latest: dict[int, tuple[torch.nn.Module, torch.Tensor]] = {}

    def see(layer: torch.nn.Module, given: Any) -> None:
        states = given[0]
        fold = after.get(layer)
        if fold is None and id(states) in latest:
            norm, _ = latest[id(states)]
            fold = found.setdefault(norm, Fold("norm", [norms[norm]], []))
            if not any(each is layer for each in fold.readers):
                fold.readers.append(layer)  # type: ignore[arg-type]
        if fold is not None and fold.readers[0] is layer:
            fold.seen.append(states.reshape(-1, states.shape[-1]))

    def hold(norm: torch.nn.Module, _: Any, states: torch.Tensor) -> None:
        latest[id(states)] = norm, states  # held, so that its id is its own

    with hooked(model, see, hold, norms):
        for ids in inputs:
            model(input_ids=ids, use_cache=False)
            latest.clear()
    return [fold for fold in (*found.values(), *after.values()) if fold.seen]


@contextmanager
def hooked(
    model: torch.nn.Module, see: Any, hold: Any, norms: Mapping[torch.nn.Module, torch.Tensor]
) -> Iterator[None]:
    """Call `see` before linear layers and `hold` after norms."""
    hooks = [each.register_forward_hook(hold) for each in norms]
    hooks += [each.register_forward_pre_hook(see) for each in model.modules() if type(each) is torch.nn.Linear]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def read_sample(tokenizer: Any) -> list[list[int]]:
    """Token ids of the package's sample, a few hundred in several scripts: questions as judges are asked them.

    In the tokenizer's chat template if it has one that takes a question and its answer.
    """
    import jinja2

    texts = tomllib.loads(files(__package__).joinpath("sample.toml").read_text("utf-8"))["text"]
    found = []
    for each in texts:
        turns = [{"role": "user", "content": each["asked"]}, {"role": "assistant", "content": each["answer"]}]
        written = None
        if getattr(tokenizer, "chat_template", None):
            with suppress(jinja2.TemplateError):
                written = tokenizer.apply_chat_template(turns, tokenize=False)
        if written is None:
            found.append(tokenizer(f"{each['asked']}\n{each['answer']}")["input_ids"])
        else:
            found.append(tokenizer(written, add_special_tokens=False)["input_ids"])
    return found
