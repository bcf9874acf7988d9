"""Losses that torch lacks. They return one value per sample; a step divides by the global sample count."""

import torch
from torch import Tensor, nn
from torch.nn import functional

POINTS = 340  # in location_loss the points of a scan weigh as much as so many image cells


class FocalLoss(nn.CrossEntropyLoss):
    """Cross-entropy times (1 - p of the true class)^gamma, one value per sample (Lin et al. 2017, eq. 5)."""

    def __init__(self, weight: Tensor | None, gamma: float):
        super().__init__(weight, reduction="none")
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        true = logits.softmax(dim=1).gather(1, labels[:, None]).squeeze(1)  # (N,)
        return (1 - true) ** self.gamma * super().forward(logits, labels)


class AnomalyLoss(nn.Module):
    """Binary cross-entropy per frame from logits (N,) and labels (N,); anomalies count `weight` times. With
    gamma > 0, each frame is weighted by (1 - probability of its label) ** gamma: the focal loss (Lin et al.
    2017), but without their alpha = .25, which would reduce the weight of the rare class."""

    def __init__(self, weight: float, gamma: float = 0.0):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("pos_weight", torch.tensor(weight))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = labels.to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.pos_weight.to(logits.dtype), reduction="none"
        )
        if self.gamma > 0:
            wrong = torch.sigmoid(torch.where(labels == 1, -logits, logits))
            losses = wrong**self.gamma * losses
        return losses


def location_loss(cells: Tensor, true_cells: Tensor, points: Tensor, true_points: Tensor) -> Tensor:
    """(N,) cross-entropy of each frame, summed over its cells (N, rows, columns) and over its points (N, P),
    whose sum is scaled to POINTS points. NaN or -1 in the truth: unknown, counts 0.

    A frame label says that something is wrong, but not where, and hundreds of frames are too few to learn
    that from the labels. The semantic images and scans that the labels come from say where."""

    def total(logits: Tensor, truth: Tensor) -> Tensor:
        known = truth >= 0
        wanted = torch.where(known, truth, 0.0)
        losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return torch.where(known, losses, 0.0).flatten(1).sum(1)

    return total(cells, true_cells) + POINTS / max(1, points.shape[1]) * total(points, true_points)
