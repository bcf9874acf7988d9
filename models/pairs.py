"""Two people of a panorama: do they interact, and how?

Every person is encoded once; a pair is the two people's features in canonical (left to right) order beside
the geometry of their boxes. Both stages share this trunk and have a head each.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class GeometryBranch(nn.Module):
    """Pair geometry (N, G), NaN where there is no history -> features (N, width).

    Inputs are standardised by the train split's mean and sd (buffers, see `fit`); a missing value becomes 0,
    the mean, and a mask beside it says so.
    """

    def __init__(self, inputs: int, width: int = 64, dropout: float = 0.2):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("sd", torch.ones(inputs))
        self.layers = nn.Sequential(
            nn.Linear(2 * inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU()
        )

    def fit(self, geometry: Tensor) -> None:
        """Take mean and sd of the known values of the train split's geometry (N, G)."""
        known = geometry.isfinite()
        count = known.sum(dim=0).clamp(min=1)
        mean = torch.where(known, geometry, 0.0).sum(dim=0) / count
        variance = torch.where(known, (geometry - mean) ** 2, 0.0).sum(dim=0) / count
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(variance > 1e-12, variance.sqrt(), 1.0))  # a constant column stays 0

    def forward(self, geometry: Tensor) -> Tensor:
        known = geometry.isfinite()
        standard = torch.where(known, (geometry - self.mean) / self.sd, 0.0).clamp(-5, 5)
        return self.layers(torch.cat([standard, known.float()], dim=1))  # (N, 2G) -> (N, width)


class PersonBranch(nn.Module):
    """Person crops (P, 3, H, W) -> one feature vector per person (P, width).

    The feature map is averaged to a grid of 4x2 cells, not to one: which side the face, an arm or a chair is
    on is what tells people who turn to each other from people who turn away.
    """

    GRID = (4, 2)

    def __init__(self, encoder: nn.Module, width: int = 128, dropout: float = 0.2):
        super().__init__()
        self.encoder = encoder
        cells = self.GRID[0] * self.GRID[1]
        self.project = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(cells * encoder.out_channels, width), nn.ReLU()
        )

    def forward(self, crops: Tensor) -> Tensor:
        maps = self.encoder(crops)  # (P, C, h, w)
        cells = functional.adaptive_avg_pool2d(maps, self.GRID)  # (P, C, 4, 2)
        return self.project(cells.flatten(1))  # (P, 8C) -> (P, width)


def make_head(inputs: int, outputs: int, width: int, dropout: float) -> nn.Sequential:
    """A classification head: one hidden layer, logits out."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, outputs),
    )


class TwoStageInteractionClassifier(nn.Module):
    """Stage 1: 2 logits (no interaction, interaction). Stage 2: 5 logits (the interaction types).

    `encoder` (any of models/encoders.py) is None for geometry alone; `geometry_inputs` is 0 for crops alone.
    """

    def __init__(self, encoder: nn.Module | None, geometry_inputs: int, dropout: float = 0.2, types: int = 5):
        super().__init__()
        features = 0
        self.trunk_frozen = False
        self.person = self.geometry = None
        if encoder is not None:
            self.person = PersonBranch(encoder, dropout=dropout)
            features += 2 * 128
        if geometry_inputs:
            self.geometry = GeometryBranch(geometry_inputs, dropout=dropout)
            features += 64
        self.stage1_head = make_head(features, 2, 128, dropout)
        self.stage2_head = make_head(features, types, 128, dropout)

    def pair_features(self, batch: dict[str, Tensor]) -> Tensor:
        """crops (P,3,H,W) one per person, left and right (N,) rows of crops, geometry (N,G) -> (N, F)."""
        parts = []
        if self.person is not None:
            people = self.person(batch["crops"])  # (P, 128)
            parts += [people[batch["left"]], people[batch["right"]]]  # (N, 128) each
        if self.geometry is not None:
            parts.append(self.geometry(batch["geometry"]))  # (N, 64)
        return torch.cat(parts, dim=1)

    def forward(self, batch: dict[str, Tensor], stage: int = 1) -> Tensor:
        """Logits (N, 2) of stage 1 or (N, 5) of stage 2."""
        head = self.stage1_head if stage == 1 else self.stage2_head
        return head(self.pair_features(batch))

    def both_stages(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) of stage 1 and (N, 5) of stage 2, from one pass through the trunk."""
        features = self.pair_features(batch)
        return self.stage1_head(features), self.stage2_head(features)

    def train_stage(self, stage: int, trunk: bool = True) -> None:
        """Train the head of this stage, and the trunk unless it is to stay in evaluation mode.

        Of a trunk that stays no BatchNorm statistic moves, no dropout is drawn, and the other stage's logits
        are the same, bit for bit.
        """
        if not trunk:
            self.requires_grad_(False)
        self.stage1_head.requires_grad_(stage == 1)
        self.stage2_head.requires_grad_(stage == 2)
        self.trunk_frozen = not trunk
        self.train(self.training)

    def train(self, mode: bool = True) -> "TwoStageInteractionClassifier":
        super().train(mode)
        if self.trunk_frozen:
            for part in (self.person, self.geometry, self.stage1_head):
                if part is not None:
                    part.eval()
        return self
