"""What a step minimises: functions of the scores of queries and documents, whatever vectors these come from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid, softmax

from ..recipe import EncoderRecipe
from .batches import TrainingBatch


@dataclass(frozen=True)
class LogitScale:
    """What makes logits of scores: these divided by the temperature, and for the sigmoid loss the bias added."""

    temperature: float | torch.Tensor
    bias: float | torch.Tensor


def compute_loss(
    scores: torch.Tensor, batch: TrainingBatch, recipe: EncoderRecipe, scale: LogitScale | None = None
) -> torch.Tensor:
    """The loss of a batch, a scalar, of the scores float32 [queries, documents] of all with all (cosines).

    `scale` is a learnt one; None is the recipe's.
    """
    rows, scale = scores[batch.asked], scale or LogitScale(recipe.temperature, recipe.bias)
    if recipe.loss == "contrast":
        return contrast(rows, batch, recipe, scale)
    if recipe.loss == "sigmoid":
        return judge_pairs(rows, batch, scale)
    distil = distil_scores if recipe.loss == "kl" else distil_margins
    taught = distil(rows, batch, recipe, scale)
    return taught + recipe.contrast * contrast(rows, batch, recipe, scale) if recipe.contrast else taught


def contrast(rows: torch.Tensor, batch: TrainingBatch, recipe: EncoderRecipe, scale: LogitScale) -> torch.Tensor:
    """InfoNCE (van den Oord et al. 2018): a query's positive among all documents that may compete with it.

    `rows` are scores float32 [n, documents]. Documents that score more than `margin` above the positive do not
    compete: they may be positives that nobody marked (Zhang et al. 2025). With `symmetric` the mean with the loss of
    the query among the queries that its positive is not known to answer.
    """
    own = torch.arange(len(rows), device=rows.device)
    allowed = batch.allowed
    if recipe.margin is not None:
        allowed = allowed & (rows.detach() <= rows.detach()[own, batch.answered, None] + recipe.margin)
    loss = cross_entropy((rows / scale.temperature).masked_fill(~allowed, -torch.inf), batch.answered)
    if not recipe.symmetric:
        return loss
    columns = rows[:, batch.answered].T / scale.temperature
    others = batch.allowed[:, batch.answered].T.clone()
    others &= batch.asked[None] != batch.asked[:, None]  # a query that is there twice is not its own rival
    others &= batch.answered[None] != batch.answered[:, None]  # nor are two of one document, as captions of a picture
    others[own, own] = True
    return (loss + cross_entropy(columns.masked_fill(~others, -torch.inf), own)) / 2


def judge_pairs(rows: torch.Tensor, batch: TrainingBatch, scale: LogitScale) -> torch.Tensor:
    """SigLIP's loss (Zhai et al. 2023): each pair of a query and a document by itself is one that matches, or not.

    Pairs that are known to match are positive, whichever example they are of. Of all pairs the sum, divided by the
    number of examples.
    """
    logits = rows / scale.temperature + scale.bias
    matching = ~batch.allowed
    matching[torch.arange(len(rows), device=rows.device), batch.answered] = True
    return -logsigmoid(torch.where(matching, logits, -logits)).sum() / len(rows)


def distil_scores(rows: torch.Tensor, batch: TrainingBatch, recipe: EncoderRecipe, scale: LogitScale) -> torch.Tensor:
    """KL divergence of the model's distribution over the scored documents of a query from the teacher's.

    With documents in several languages this is M-KD (Yang et al. 2024). Examples without scores count nothing.
    """
    scored, places = _find_scored(batch)
    if not len(scored):
        return rows.sum() * 0
    given = batch.scores[scored]
    padding = given.isinf()
    taught = softmax(given / recipe.teacher_temperature, -1)
    learned = (rows[scored].gather(1, places) / scale.temperature).masked_fill(padding, -torch.inf)
    # 0 * -inf is no number.
    learned = log_softmax(learned, -1).masked_fill(padding, 0)
    return kl_div(learned, taught, reduction="batchmean")


def distil_margins(rows: torch.Tensor, batch: TrainingBatch, recipe: EncoderRecipe, scale: LogitScale) -> torch.Tensor:
    """MarginMSE (Hofstätter et al. 2020): how far a positive is above each negative, as far as the teacher has it.

    Margins are in units of the two temperatures. Examples without scores count nothing.
    """
    scored, places = _find_scored(batch)
    given = batch.scores[scored] / recipe.teacher_temperature
    kept = given[:, 1:].isfinite()
    if not kept.any():
        return rows.sum() * 0
    learned = rows[scored].gather(1, places) / scale.temperature
    wrong = (learned[:, :1] - learned[:, 1:])[kept] - (given[:, :1] - given[:, 1:])[kept]
    return wrong.square().mean()


def _find_scored(batch: TrainingBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Which examples have scores, int64 [m], and the documents of these, int64 [m, most]."""
    scored = batch.scores[:, 0].isfinite().nonzero()[:, 0]
    return scored, batch.listed[scored]
