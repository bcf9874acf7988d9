"""PointNet: the same small network for every point, then a maximum over the real points."""

import torch
import torch.nn.functional as F
from torch import nn

# x, y, z and the rise above the ground, scaled so that half a lane to the side and half a metre matter.
_OFFSET = (12.0, 0.0, -1.4, 0.4)
_SCALE = (8.0, 4.0, 0.4, 0.4)
SIDE, REACH = 2.0, 40.0  # metres: side of the ground cells, and how far from the sensor they reach


class PointNetEncoder(nn.Module):
    """Points -> one token per image cell (layers 4-64-128, maximum, layer 128-256) and one logit per point,
    from the features before the maximum.

    Qi et al. 2017, without T-nets. The layers before the maximum see one point at a time and the maximum
    skips padding, so neither padding nor order affects the tokens. `painted_features` > 0: the first layer
    also takes that many image features from the point's pixel."""

    def __init__(self, out_features: int = 256, painted_features: int = 0):
        super().__init__()
        self.register_buffer("offset", torch.tensor(_OFFSET))
        self.register_buffer("scale", torch.tensor(_SCALE))
        self.first = nn.Linear(4, 64)
        self.paint = nn.Linear(painted_features, 64, bias=False) if painted_features else None
        self.second = nn.Linear(64, 128)
        self.last = nn.Linear(128, out_features)
        self.score = nn.Linear(128, 1)
        nn.init.constant_(self.score.bias, -4.0)  # few points are anomalous

    def forward(
        self, points: torch.Tensor, real: torch.Tensor, cell: torch.Tensor, cells: int,
        painted: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """Tokens (B, cells, C), which cells hold points (B, cells), and a logit per point (B, N).

        points (B, N, 4), real (B, N) bool, cell (B, N) in [0, cells) or -1, painted (B, N, P)."""
        scaled = torch.cat([points[..., :3], rise(points, real)[..., None]], dim=2)  # no intensity
        scaled = (scaled - self.offset) / self.scale
        features = self.first(scaled)  # (B, N, 64)
        if self.paint is not None:
            features = features + self.paint(painted)
        features = F.relu(self.second(F.relu(features)))  # (B, N, 128)
        pooled, filled = pool_by_cell(features, cell, cells)  # (B, cells, 128)
        return self.last(pooled), filled, self.score(features).squeeze(2)


def rise(points: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Height (B, N) of points (B, N, 3+) above the lowest real point in their ground cell and its eight
    neighbours, clamped to 0..3 m."""
    side = int(2 * REACH / SIDE)
    row, column = ((points[..., :2] + REACH) / SIDE).long().clamp(0, side - 1).unbind(2)  # (B, N) each
    depths = torch.where(real, -points[..., 2], -torch.inf)
    lowest = torch.full((len(points), side * side), -torch.inf, device=points.device)
    lowest = lowest.scatter_reduce(1, row * side + column, depths, "amax").unflatten(1, (side, side))
    lowest = F.max_pool2d(lowest[:, None], 3, 1, 1).flatten(1)  # (B, cells)
    return (points[..., 2] + lowest.gather(1, row * side + column)).clamp(0, 3)


def masked_max(features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Maximum of features (B, N, C) over N where mask (B, N) is True -> (B, C); 0 if it is nowhere True."""
    lowest = torch.finfo(features.dtype).min
    largest = features.masked_fill(~mask[..., None], lowest).amax(dim=1)
    return torch.where(mask.any(dim=1, keepdim=True), largest, torch.zeros_like(largest))


def pool_by_cell(features: torch.Tensor, cell: torch.Tensor, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Maximum of the point features (B, N, C) in each cell.

    `cell` (B, N) in [0, cells), or -1 for no cell. Returns (B, cells, C), 0 in empty cells, and which cells
    hold points, (B, cells) bool."""
    batch = len(features)
    rows = torch.arange(batch, device=cell.device)[:, None] * (cells + 1)
    target = (rows + torch.where(cell < 0, cells, cell)).flatten()  # -1 goes to an extra cell, dropped below
    # Sort by cell, then reduce consecutive rows: on a CPU a third of the time of scatter_reduce.
    counts = torch.bincount(target, minlength=batch * (cells + 1))
    ordered = features.flatten(0, 1)[target.argsort(stable=True)]
    pooled = torch.segment_reduce(ordered, "max", lengths=counts, unsafe=True)
    filled = (counts > 0).unflatten(0, (batch, cells + 1))[:, :cells]
    pooled = pooled.unflatten(0, (batch, cells + 1))[:, :cells]
    return pooled.masked_fill(~filled[..., None], 0.0), filled
