"""Losses over the scores of one query's documents, by name; those of sentence-transformers where it has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

ListLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of scores and targets [documents] of a query

LABELLED = ("bce", "softmax")  # targets are 1 for a positive, 0 for a negative
SCORED = ("kl", "margin-mse", "mse")  # targets are a teacher's scores
EITHER = ("ranknet", "lambda", "listmle")
LOSSES = (*LABELLED, *SCORED, *EITHER)


def make_loss(name: str, temperature: float = 1.0) -> ListLoss:
    """The loss of a name, of scores [n] and targets [n] of one query, a scalar.

    `bce` is pointwise cross-entropy, which for the log-odds of two labels is that of the labels (monoT5; Nogueira et
    al. 2020); `softmax` the cross-entropy of the positives over all (RankLLaMA; Ma et al. 2023); `kl` the divergence
    from the teacher's distribution at a `temperature` (Hinton et al. 2015); `margin-mse` Hofstätter et al. 2021, the
    first document against each other one; `mse` the squared error of the scores; `ranknet` Burges et al. 2005,
    `lambda` LambdaLoss with NDCGLoss2++ (Wang et al. 2018), `listmle` Xia et al. 2008, of grades, or of a teacher's
    scores brought to 0..1 by query.
    """
    if name in EITHER:
        return _make_listwise(name)
    plain: dict[str, ListLoss] = {
        "bce": functional.binary_cross_entropy_with_logits,
        "softmax": lambda scores, targets: -(scores.log_softmax(0) * (targets / targets.sum())).sum(),
        "kl": lambda scores, targets: functional.kl_div(
            scores.log_softmax(0), (targets / temperature).log_softmax(0), log_target=True, reduction="sum"
        ),
        "margin-mse": lambda scores, targets: functional.mse_loss(scores[0] - scores[1:], targets[0] - targets[1:]),
        "mse": functional.mse_loss,
    }
    return plain[name]


class GivenScores:
    """Scores in the place of a cross-encoder: the losses of sentence-transformers ask it for those of pairs."""

    num_labels = 1

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores, self.device = scores, scores.device

    def preprocess(self, pairs: Sequence[tuple[Any, int]], **_: Any) -> dict[str, torch.Tensor]:
        """The places of the pairs' documents, in place of tokens."""
        return {"places": torch.tensor([place for _, place in pairs], device=self.device)}

    def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"scores": self.scores[inputs["places"]]}


def _make_listwise(name: str) -> ListLoss:
    from sentence_transformers.cross_encoder import losses

    kinds = {"ranknet": losses.RankNetLoss, "lambda": losses.LambdaLoss, "listmle": losses.ListMLELoss}
    one = GivenScores(torch.zeros(1))
    published = kinds[name](one, mini_batch_size=-1)

    def compute(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        published.model = GivenScores(scores)
        lowest, highest = targets.min(), targets.max()
        # Gains are 2^target - 1: of log-probabilities they would all be cut off at 0.
        if lowest < 0 or highest > 1:
            targets = (targets - lowest) / (highest - lowest).clamp(min=1e-9)
        loss: torch.Tensor = published([["query"], [list(range(len(scores)))]], [targets])
        return loss

    return compute
