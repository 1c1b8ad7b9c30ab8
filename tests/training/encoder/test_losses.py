"""Losses by hand, and gradients that are those of the whole batch however it is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from crosslens.training.encoder.batches import TrainingBatch
from crosslens.training.encoder.gradients import TokenLimits, backpropagate
from crosslens.training.encoder.losses import LogitScale, compute_loss
from crosslens.training.recipe import EncoderRecipe

SCORES = torch.tensor([[0.9, 0.2, 0.4], [0.1, 0.5, 0.6]])
INF = float("inf")


def make_batch(allowed: list[list[bool]], scores: list[list[float]] | None = None) -> TrainingBatch:
    given = torch.tensor(scores) if scores else torch.full((2, 2), -INF)
    return TrainingBatch(
        [], [], torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor(allowed), torch.tensor([[0, 2], [1, 2]]), given
    )


def log_share(scores: list[float], place: int, temperature: float = 0.1) -> torch.Tensor:
    return torch.log_softmax(torch.tensor(scores) / temperature, 0)[place]


RECIPE = EncoderRecipe(temperature=0.1)


@pytest.mark.parametrize(
    ("more", "allowed", "expected"),
    [
        ({}, [[True] * 3, [True] * 3], [-log_share([0.9, 0.2, 0.4], 0), -log_share([0.1, 0.5, 0.6], 1)]),
        ({}, [[True, True, False], [True] * 3], [-log_share([0.9, 0.2], 0), -log_share([0.1, 0.5, 0.6], 1)]),
        # 0.6 is more than 0.05 above the positive's 0.5.
        ({"margin": 0.05}, [[True] * 3, [True] * 3], [-log_share([0.9, 0.2, 0.4], 0), -log_share([0.1, 0.5], 1)]),
        (
            {"symmetric": True},
            [[True] * 3, [True] * 3],
            [
                -(log_share([0.9, 0.2, 0.4], 0) + log_share([0.9, 0.1], 0)) / 2,
                -(log_share([0.1, 0.5, 0.6], 1) + log_share([0.2, 0.5], 1)) / 2,
            ],
        ),
    ],
)
def test_contrast(more, allowed, expected):
    loss = compute_loss(SCORES, make_batch(allowed), replace(RECIPE, **more))
    assert float(loss) == pytest.approx(float(sum(expected)) / 2)


def test_captions_of_one_picture_are_no_rivals_for_it():
    batch = replace(make_batch([[True] * 3, [True] * 3]), answered=torch.tensor([0, 0]))
    rows = -(log_share([0.9, 0.2, 0.4], 0) + log_share([0.1, 0.5, 0.6], 0)) / 2
    assert float(compute_loss(SCORES, batch, replace(RECIPE, symmetric=True))) == pytest.approx(float(rows) / 2)


def test_each_pair_by_itself():
    batch = make_batch([[True, True, False], [True] * 3])  # the third document answers the first query as well
    signs = torch.tensor([[1, -1, 1], [-1, 1, -1]])
    expected = -torch.nn.functional.logsigmoid(signs * (SCORES / 0.1 - 3)).sum() / 2
    recipe = replace(RECIPE, loss="sigmoid", bias=-3.0)
    assert float(compute_loss(SCORES, batch, recipe)) == pytest.approx(float(expected))
    learnt = LogitScale(torch.tensor(0.1), torch.tensor(-3.0))
    assert float(compute_loss(SCORES, batch, replace(recipe, bias=0.0), learnt)) == pytest.approx(float(expected))


def test_distilled_scores_and_margins():
    batch = make_batch([[True] * 3, [True] * 3], [[3.0, 1.0], [-INF, -INF]])
    taught, learned = torch.softmax(torch.tensor([3.0, 1.0]), 0), torch.log_softmax(torch.tensor([9.0, 4.0]), 0)
    kl = float((taught * (taught.log() - learned)).sum())
    assert float(compute_loss(SCORES, batch, replace(RECIPE, loss="kl"))) == pytest.approx(kl)
    assert float(compute_loss(SCORES, batch, replace(RECIPE, loss="margin-mse"))) == pytest.approx((5.0 - 2.0) ** 2)
    both = compute_loss(SCORES, batch, replace(RECIPE, loss="kl", contrast=0.5))
    assert float(both) == pytest.approx(kl + 0.5 * float(compute_loss(SCORES, batch, RECIPE)))
    one = make_batch([[True] * 3, [True] * 3], [[3.0, -INF], [-INF, -INF]])  # one that has no rival teaches nothing
    assert float(compute_loss(SCORES, one, replace(RECIPE, loss="kl"))) == pytest.approx(0)
    scores = SCORES.clone().requires_grad_()
    for loss in ("kl", "margin-mse"):
        compute_loss(scores, one, replace(RECIPE, loss=loss)).backward()
        assert scores.grad.isfinite().all()


@pytest.mark.parametrize("kept", [0, 12, 10**6])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_those_of_the_whole_batch(kept: int, dropout: float):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 3))
    inputs = [torch.randn(length, 4) for length in (1, 5, 2, 3, 4)]
    passes = []

    def represent(chosen):
        passes.append(len(chosen))
        return torch.stack([model(each).mean(0) for each in chosen])

    def compute(rows):
        vectors = torch.stack(rows)
        return torch.logsumexp(vectors @ vectors.T, 1).mean()

    torch.manual_seed(1)
    loss = backpropagate(represent, inputs, [len(each) for each in inputs], compute, TokenLimits(6, kept))
    # One text of 5, one of 4, and then 3 + 2 and 1 under 6 padded tokens; what is not kept goes through twice.
    assert len(passes) == {0: 8, 12: 6, 10**6: 4}[kept]
    mine = [weights.grad.clone() for weights in model.parameters()]
    model.zero_grad()
    torch.manual_seed(1)
    order = [1, 4, 3, 2, 0]  # by which dropout is drawn
    rows = dict(zip(order, (model(inputs[place]).mean(0) for place in order), strict=True))
    whole = compute([rows[place] for place in range(5)])
    whole.backward()
    assert loss == pytest.approx(float(whole))
    for one, weights in zip(mine, model.parameters(), strict=True):
        assert torch.allclose(one, weights.grad, atol=1e-6)
