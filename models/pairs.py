"""Two people of a panorama: do they interact, and how?

Every person is encoded once; a pair is the two people's features in canonical (left to right) order beside
the geometry of their boxes.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional


class GeometryBranch(nn.Module):
    """Pair geometry (N, G), NaN where there is no history -> features (N, width). Standardised by the train
    split's mean and sd (see `fit`); a missing value becomes 0, the mean, and a mask beside it says so."""

    def __init__(self, inputs: int, width: int = 64, dropout: float = 0.2):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("sd", torch.ones(inputs))
        layers = nn.Linear(2 * inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width)
        self.layers = nn.Sequential(*layers, nn.ReLU())

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
    """Person crops (P, 3, H, W) -> (P, width). The feature map is averaged to 4x2 cells, not to one: on which
    side the face or an arm is tells people who turn to each other from people who turn away."""

    GRID = (4, 2)

    def __init__(self, encoder: nn.Module, width: int = 128, dropout: float = 0.2):
        super().__init__()
        self.encoder, cells = encoder, self.GRID[0] * self.GRID[1]
        linear = nn.Linear(cells * encoder.out_channels, width)
        self.project = nn.Sequential(nn.Dropout(dropout), linear, nn.ReLU())

    def forward(self, crops: Tensor) -> Tensor:
        maps = self.encoder(crops)  # (P, C, h, w)
        cells = functional.adaptive_avg_pool2d(maps, self.GRID)  # (P, C, 4, 2)
        return self.project(cells.flatten(1))  # (P, 8C) -> (P, width)


def make_head(inputs: int, outputs: int, dropout: float, width: int = 128) -> nn.Sequential:
    """A classification head: one hidden layer, logits out."""
    layers = nn.Dropout(dropout), nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class PairTrunk(nn.Module):
    """What both people look like, left before right, beside the geometry of their boxes: one vector per pair.
    `encoder` is None for geometry alone; `geometry_inputs` is 0 for crops alone."""

    def __init__(self, encoder: nn.Module | None, geometry_inputs: int, dropout: float):
        super().__init__()
        self.person = None if encoder is None else PersonBranch(encoder, dropout=dropout)
        self.geometry = GeometryBranch(geometry_inputs, dropout=dropout) if geometry_inputs else None
        self.out_features = 2 * 128 * (self.person is not None) + 64 * (self.geometry is not None)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """crops (P,3,H,W) one per person, left and right (N,) rows of crops, geometry (N,G) -> (N, F)."""
        parts = []
        if self.person is not None:
            people = self.person(batch["crops"])  # (P, 128)
            parts += [people[batch["left"]], people[batch["right"]]]  # (N, 128) each
        if self.geometry is not None:
            parts.append(self.geometry(batch["geometry"]))  # (N, 64)
        return torch.cat(parts, dim=1)


class Rescoring(nn.Module):
    """First logits (M, 2) of all pairs in range of some frames -> what to add to them (M, 2).

    Whom else the two people of a pair interact with says something about the pair: most talk to one
    neighbour, and two who both stand with a third often belong together. Seven numbers say it: the pair's log
    odds; of the other pairs of either person the best log odds and the expected number that interact (the
    larger before the lesser); of those whom both know the best (by the lesser of its two) and the expected
    number. No answer hangs on who is named first, or on what else is in the batch.
    """

    LEAST = -6.0  # log odds are cut at +-6; also of two people who are no pair

    def __init__(self, width: int = 64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, logits: Tensor, left: Tensor, right: Tensor, people: int) -> Tensor:
        """left, right (M,) number the people of all these frames from 0."""
        odds = (logits[:, 1] - logits[:, 0]).clamp(self.LEAST, -self.LEAST)  # (M,)
        everybody = torch.arange(people, device=odds.device)
        rest = everybody != torch.stack([right, left])[..., None]  # (2, M, P): all but the other of the pair

        def around(values: Tensor, none: float) -> Tensor:
            """(2, M, P): what the pairs of the left and of the right person with the others have."""
            table = values.new_full((people, people), none)
            table = table.index_put((left, right), values).index_put((right, left), values)
            return table[torch.stack([left, right])].where(rest, none)

        near = around(odds, self.LEAST)
        p_near = around(odds.double().sigmoid(), 0.0)  # whose sums no order of the people changes
        best, expected = near.amax(2), p_near.sum(2)  # (2, M)
        third, common = near.amin(0).amax(1), (p_near[0] * p_near[1]).sum(1)  # (M,)
        counts = torch.stack([expected.amax(0), expected.amin(0), common]).log1p().to(odds.dtype)  # (3, M)
        scaled = torch.stack([odds, best.amax(0), best.amin(0), third]) / 3  # (4, M)
        return self.layers(torch.cat([scaled, counts]).T)


class PairClassifier(nn.Module):
    """Stage 1: a batch of pairs -> logits (N, 2), no interaction and interaction."""

    def __init__(
        self, encoder: nn.Module | None, geometry_inputs: int, dropout: float = 0.2, rescore: bool = False
    ):
        super().__init__()
        self.trunk = PairTrunk(encoder, geometry_inputs, dropout)
        self.head = make_head(self.trunk.out_features, 2, dropout)
        self.rescoring = Rescoring() if rescore else None

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.answer(self.trunk(batch), batch)

    def answer(self, features: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Logits (N, 2) from what the trunk says of them and of the other pairs behind them (M, F)."""
        logits = self.head(features)  # (M, 2)
        if self.rescoring is not None:
            people = batch["left"], batch["right"], len(batch["persons"])
            logits = logits + self.rescoring(logits, *people)
        return logits[: len(batch.get("labels", logits))]  # without labels all are asked for


class TwoStageInteractionClassifier(nn.Module):
    """Stage 2 around the stage 1 model it starts from: a batch of pairs -> logits (N, types).

    Stage 1 is kept as it was, weights and BatchNorm statistics: who interacts is its answer, bit for bit.
    Stage 2 trains a copy of its trunk, or (`share_trunk`) a head on stage 1's, which costs one pass.
    """

    def __init__(
        self, stage1: PairClassifier, types: int = 5, dropout: float = 0.2, share_trunk: bool = False
    ):
        super().__init__()
        self.trunk = None if share_trunk else copy.deepcopy(stage1.trunk)
        self.head = make_head(stage1.trunk.out_features, types, dropout)
        self.stage1 = stage1.requires_grad_(False)

    def start_from(self, stage1: dict[str, Tensor]) -> None:
        """Take over the weights of a stage 1 run, for stage 1 and to begin with."""
        self.stage1.load_state_dict(stage1)
        if self.trunk is not None:
            self.trunk.load_state_dict(self.stage1.trunk.state_dict())

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits (N, types): how they interact, if they do."""
        return self.head((self.trunk or self.stage1.trunk)(batch))

    def both_stages(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, 2) of stage 1 and (N, types) of stage 2."""
        features = self.stage1.trunk(batch)
        own = features if self.trunk is None else self.trunk(batch)
        return self.stage1.answer(features, batch), self.head(own)[: len(batch.get("labels", own))]

    def train(self, mode: bool = True) -> "TwoStageInteractionClassifier":
        super().train(mode)
        self.stage1.eval()  # no BatchNorm statistic moves, no dropout is drawn
        return self
