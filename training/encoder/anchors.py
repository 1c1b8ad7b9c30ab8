"""What holds weights near those of the base, so that training does not undo what it knew: L2-SP and EWC."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch


class Anchor:
    """Pulls weights to where they were when it was made; nothing at all with the strength 0.

    The penalty is half the `strength` times the sum of squares of how far each weight has moved (L2-SP; Li et al.
    2018), each times its importance where these are known (EWC; Kirkpatrick et al. 2017).
    """

    def __init__(self, network: torch.nn.Module, strength: float) -> None:
        trained = [each for each in network.parameters() if each.requires_grad] if strength else []
        self.strength, self.weights = strength, trained
        self.base = [each.detach().clone() for each in trained]
        self.importance: list[torch.Tensor] | None = None

    def weigh(self, learn: Callable[[], object], times: int) -> None:
        """Take as importance the mean squares of the gradients that `learn` adds, scaled to a mean of 1.

        These estimate the diagonal of Fisher's information from batches, not from single examples.
        """
        sums = [torch.zeros_like(each) for each in self.weights]
        for _ in range(times):
            learn()
            for total, weights in zip(sums, self.weights, strict=True):
                if weights.grad is not None:
                    total += weights.grad.square()
                    weights.grad = None
        mean = sum(float(each.sum()) for each in sums) / sum(each.numel() for each in sums)
        self.importance = [each / mean if mean else torch.ones_like(each) for each in sums]

    @torch.no_grad()
    def pull(self) -> None:
        """Add the gradient of the penalty to the weights' gradients."""
        scales: Iterable[torch.Tensor | float] = self.importance or [1.0] * len(self.weights)
        for weights, base, scale in zip(self.weights, self.base, scales, strict=True):
            moved = (weights - base) * scale * self.strength
            weights.grad = moved if weights.grad is None else weights.grad.add_(moved)


@torch.no_grad()
def interpolate(weights: Iterable[torch.Tensor], base: Iterable[torch.Tensor], share: float) -> None:
    """Let weights be `share` of the base's and the rest of their own (WiSE-FT; Wortsman et al. 2022)."""
    for tensor, old in zip(weights, base, strict=True):
        tensor.lerp_(old, share)
