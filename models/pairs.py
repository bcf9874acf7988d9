"""Models of two people in a panorama: do they interact, and how?

Every person is encoded once. A pair is the features of its two people in canonical (left to right) order,
concatenated with the geometry of their boxes.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.heads import Head


class GeometryBranch(nn.Module):
    """Pair geometry (N, G), NaN without a history -> features (N, 64). Inputs are standardised with the
    train split's mean and sd (see `fit`). Missing values become 0, the mean, and a mask marks them."""

    def __init__(self, inputs: int, dropout: float):
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("sd", torch.ones(inputs))
        layers = nn.Linear(2 * inputs, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 64), nn.ReLU()
        self.layers = nn.Sequential(*layers)

    def fit(self, geometry: Tensor) -> None:
        """Set mean and sd from the known values of the train split's geometry (N, G)."""
        known = geometry.isfinite()
        count = known.sum(dim=0).clamp(min=1)
        mean = torch.where(known, geometry, 0.0).sum(dim=0) / count
        variance = torch.where(known, (geometry - mean) ** 2, 0.0).sum(dim=0) / count
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(variance > 1e-12, variance.sqrt(), 1.0))  # constant columns become 0

    def standardise(self, geometry: Tensor) -> Tensor:
        """(N, G) -> (N, 2G): the standardised values and the mask."""
        known = geometry.isfinite()
        standard = torch.where(known, (geometry - self.mean) / self.sd, 0.0).clamp(-5, 5)
        return torch.cat([standard, known.float()], dim=1)

    def forward(self, geometry: Tensor) -> Tensor:
        return self.layers(self.standardise(geometry))  # (N, 2G) -> (N, 64)


class PersonBranch(nn.Module):
    """Person crops (P, 3, H, W) -> (P, 128). The feature map is averaged to 4x2 cells and not to one,
    because the side of a face or an arm shows whether people turn to each other or away."""

    GRID = (4, 2)

    def __init__(self, encoder: nn.Module, dropout: float):
        super().__init__()
        self.encoder, cells = encoder, self.GRID[0] * self.GRID[1]
        linear = nn.Linear(cells * encoder.out_channels, 128)
        self.project = nn.Sequential(nn.Dropout(dropout), linear, nn.ReLU())

    def forward(self, crops: Tensor) -> Tensor:
        maps = self.encoder(crops)  # (P, C, h, w)
        cells = functional.adaptive_avg_pool2d(maps, self.GRID)  # (P, C, 4, 2)
        return self.project(cells.flatten(1))  # (P, 8C) -> (P, 128)


def make_head(inputs: int, outputs: int, dropout: float) -> Head:
    """A classification head with one hidden layer; it returns logits."""
    layers = nn.Dropout(dropout), nn.Linear(inputs, 128), nn.ReLU(), nn.Dropout(dropout)
    return Head(*layers, nn.Linear(128, outputs))


class PairTrunk(nn.Module):
    """One vector per pair: the features of the left and the right person, and the geometry of their boxes.
    `encoder` is None for geometry alone; `geometry_inputs` is 0 for crops alone."""

    def __init__(self, encoder: nn.Module | None, geometry_inputs: int, dropout: float):
        super().__init__()
        self.person = None if encoder is None else PersonBranch(encoder, dropout)
        self.geometry = GeometryBranch(geometry_inputs, dropout) if geometry_inputs else None
        self.out_features = 2 * 128 * (self.person is not None) + 64 * (self.geometry is not None)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """crops (P, 3, H, W), one per person; left, right (N,) rows of crops; geometry (N, G) -> (N, F)."""
        parts = []
        if self.person is not None:
            people = self.person(batch["crops"])  # (P, 128)
            parts += [people[batch["left"]], people[batch["right"]]]  # (N, 128) each
        if self.geometry is not None:
            parts.append(self.geometry(batch["geometry"]))  # (N, 64)
        return torch.cat(parts, dim=1)


class Rescoring(nn.Module):
    """First logits (M, 2) of all pairs in range of some frames -> corrections (M, 2) to add to them.

    The other interactions of two people say something about the pair: most people talk to one neighbour, and
    two people who both stand with a third often belong together. A pair has seven inputs: its log odds; of
    the other pairs of each person, the best log odds and the expected number of interactions (larger first);
    of third people, the best log odds (of the weaker of their two pairs) and the expected number who interact
    with both. The result does not depend on which person is named first or on the rest of the batch."""

    LEAST = -6.0  # log odds are clipped to +-6; also the log odds of two people out of range

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, logits: Tensor, left: Tensor, right: Tensor, people: int) -> Tensor:
        """left, right (M,): indices of the pairs' people, 0 to people - 1."""
        odds = (logits[:, 1] - logits[:, 0]).clamp(self.LEAST, -self.LEAST)  # (M,)
        everybody = torch.arange(people, device=odds.device)
        rest = everybody != torch.stack([right, left])[..., None]  # (2, M, P): all but the pair's partner

        def around(values: Tensor, none: float) -> Tensor:
            """(2, M, P): the values of the left and the right person's pairs with everybody else."""
            table = values.new_full((people, people), none)
            table = table.index_put((left, right), values).index_put((right, left), values)
            return table[torch.stack([left, right])].where(rest, none)

        near = around(odds, self.LEAST)
        p_near = around(odds.double().sigmoid(), 0.0)  # double: sums do not depend on the order of people
        best, expected = near.amax(2), p_near.sum(2)  # (2, M)
        third, common = near.amin(0).amax(1), (p_near[0] * p_near[1]).sum(1)  # (M,)
        counts = torch.stack([expected.amax(0), expected.amin(0), common]).log1p().to(odds.dtype)  # (3, M)
        scaled = torch.stack([odds, best.amax(0), best.amin(0), third]) / 3  # (4, M)
        return self.layers(torch.cat([scaled, counts]).T)


class PairClassifier(nn.Module):
    """Stage 1: a batch of pairs -> logits (N, 2) for no interaction and interaction.

    Without crops a linear layer on the same inputs adds its logits (wide and deep, Cheng et al. 2016): what
    single inputs say carries over to other places better than what the layers make of many together."""

    def __init__(
        self, encoder: nn.Module | None, geometry_inputs: int, dropout: float = 0.2, rescore: bool = False
    ):
        super().__init__()
        self.trunk = PairTrunk(encoder, geometry_inputs, dropout)
        self.head = make_head(self.trunk.out_features, 2, dropout)
        self.rescoring = Rescoring() if rescore else None
        self.linear = nn.Linear(2 * geometry_inputs, 2) if encoder is None else None

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.answer(self.trunk(batch), batch)

    def answer(self, features: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Logits (N, 2) from the trunk's features (M, F) of the N samples and the frames' other pairs."""
        logits = self.head(features)  # (M, 2)
        with torch.autocast(logits.device.type, enabled=False):
            if self.linear is not None:
                logits = logits + self.linear(self.trunk.geometry.standardise(batch["geometry"]))
            if self.rescoring is not None:
                people = batch["left"], batch["right"], len(batch["persons"])
                logits = logits + self.rescoring(logits, *people)
        return logits[: len(batch.get("labels", logits))]  # without labels every pair is a sample


class TwoStageInteractionClassifier(nn.Module):
    """Stage 2, which contains the stage 1 model that it starts from: a batch of pairs -> logits (N, types).

    Stage 1 is frozen, weights and BatchNorm statistics, so its answers stay the same bit for bit. Stage 2
    trains a copy of its trunk and a head; with `share_trunk` only a head on stage 1's trunk, in one pass."""

    def __init__(
        self, stage1: PairClassifier, types: int = 5, dropout: float = 0.2, share_trunk: bool = False
    ):
        super().__init__()
        self.trunk = None if share_trunk else copy.deepcopy(stage1.trunk)
        self.head = make_head(stage1.trunk.out_features, types, dropout)
        self.stage1 = stage1.requires_grad_(False)

    def start_from_stage1(self) -> None:
        """Copy the weights of stage 1's trunk into the one that stage 2 trains."""
        if self.trunk is not None:
            self.trunk.load_state_dict(self.stage1.trunk.state_dict())

    def forward(self, batch: dict[str, Tensor], both: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, types): how two people interact, if they do; with `both` also stage 1's (N, 2)."""
        if not both:
            return self.head((self.trunk or self.stage1.trunk)(batch))
        features = self.stage1.trunk(batch)
        own = features if self.trunk is None else self.trunk(batch)
        return self.head(own)[: len(batch.get("labels", own))], self.stage1.answer(features, batch)

    def train(self, mode: bool = True) -> "TwoStageInteractionClassifier":
        super().train(mode)
        self.stage1.eval()  # fixed BatchNorm statistics, no dropout
        return self
