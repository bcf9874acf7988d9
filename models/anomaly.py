"""The anomaly model: a camera image and a LiDAR scan in, one logit per frame out.

The image becomes a grid of tokens (a small CNN, pooled to `token_grid`). Points go through a PointNet and are
max-pooled over the cell of the same grid that they project into: one LiDAR token per cell with points. Tokens
are 256 wide and attend to those of the other sensor. The position code tells the network which tokens show
the same place; without it, it cannot see where camera and LiDAR disagree.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads import Head
from models.pointnet import PointNetEncoder, masked_max

WIDTH, HEADS = 256, 4
PAINT = 32  # image features that a point takes from its pixel, in addition to the colour


class ImageCNN(nn.Module):
    """Three stages of 32, 64, 128 channels, each halving the resolution, and context: (B, 128, H/4, W/4).

    The stages have a receptive field of 15 pixels; the dilated depthwise convolution after them adds the
    surroundings of an object. A flat object 10 m ahead is two pixels high and visible only in the second
    stage, so the second and third stages are added, as in a feature pyramid (Lin et al. 2017)."""

    out_channels = 128

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(_stage(3, 32), _stage(32, 64))
        self.coarse = _stage(64, 128)
        self.context = nn.Sequential(
            nn.Conv2d(128, 128, 5, padding=4, dilation=2, groups=128, bias=False),
            nn.Conv2d(128, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
        )
        self.lateral = nn.Sequential(nn.Conv2d(64, 128, 1, bias=False), nn.BatchNorm2d(128))

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) uint8, or float 0..1."""
        images = as_float(images)
        # Normalised per image, against differences in camera and light.
        std, mean = torch.std_mean(images, (2, 3), keepdim=True)  # (B, 3, 1, 1) each
        fine = self.fine((images - mean) / (std + 0.05))  # (B, 64, H/4, W/4)
        coarse = self.coarse(fine)  # (B, 128, H/8, W/8)
        coarse = coarse + self.context(coarse)
        return F.relu(self.lateral(fine) + F.interpolate(coarse, fine.shape[2:]))  # (B, 128, H/4, W/4)


def as_float(images: Tensor) -> Tensor:
    """Images as floats 0..1; uint8 is converted."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    halve = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(halve, nn.BatchNorm2d(outputs), nn.ReLU())


class CrossModalAttention(nn.Module):
    """Tokens of one sensor attend to those of the other, with a residual and LayerNorm: without the residual
    a sensor could be cut off from the logit. If a sample has no valid keys, its queries are only normalised.
    """

    def __init__(self, width: int = WIDTH, heads: int = HEADS):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, queries: Tensor, keys: Tensor, key_mask: Tensor,
        query_code: Tensor | float = 0.0, key_code: Tensor | float = 0.0,
    ) -> Tensor:  # fmt: skip
        """queries (B, Q, C), keys (B, K, C), key_mask (B, K) True = attend -> (B, Q, C).

        The codes take part in the matching of queries and keys, not in the values."""
        alone = ~key_mask.any(dim=1)  # (B,) softmax over masked keys only would be 0 / 0
        ignored = ~(key_mask | alone[:, None])
        coded = queries + query_code, keys + key_code
        found, _ = self.attention(*coded, keys, key_padding_mask=ignored, need_weights=False)
        found = found.masked_fill(alone[:, None, None], 0.0)
        return self.norm(queries + found)  # (B, Q, C)


class AnomalyDetectionModel(nn.Module):
    """Image and points -> logit of "there is an anomaly".

    image_encoder  an encoder of models/encoders.py, default ImageCNN
    fusion         attention (in both directions) | concat (the sensors meet only in the head)
    modality       both | camera | lidar; a single sensor attends to itself, to keep ablations comparable
    position_code  with attention, tokens get their place in the image and points (both sensors) their pixel
    token_grid     rows and columns; to learn where anomalies are, the same as of the cells in the data"""

    def __init__(
        self, image_encoder: nn.Module | None = None, fusion: str = "attention", modality: str = "both",
        position_code: bool = True, dropout: float = 0.3, token_grid: tuple[int, int] = (8, 12),
    ):  # fmt: skip
        super().__init__()
        self.fusion, self.modality, self.position_code = fusion, modality, position_code
        self.token_grid = tuple(token_grid)
        self.paint = None  # image features for the points
        if modality != "lidar":
            self.image_encoder = image_encoder or ImageCNN()
            if modality == "both" and fusion == "attention" and position_code:
                self.paint = nn.Conv2d(self.image_encoder.out_channels, PAINT, 1)
            self.image_projection = nn.Linear(self.image_encoder.out_channels, WIDTH)
            self.image_attention = CrossModalAttention() if fusion == "attention" else None
        if modality != "camera":
            self.point_encoder = PointNetEncoder(WIDTH, 3 + PAINT if self.paint else 0)
            self.point_attention = CrossModalAttention() if fusion == "attention" else None
        if position_code and fusion == "attention":
            self.register_buffer("waves", grid_waves(self.token_grid))  # (T, 24)
            self.code = nn.Linear(self.waves.shape[1], WIDTH)
        self.image_cells = nn.Linear(WIDTH, 1, bias=False) if modality != "lidar" else None
        self.point_cells = nn.Linear(WIDTH, 1, bias=False) if modality != "camera" else None
        self.cell_bias = nn.Parameter(torch.tensor(-3.0))  # few cells are anomalous
        width = WIDTH * (2 if modality == "both" else 1)
        self.head = Head(nn.Linear(width, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 1))
        # Weights of the logs of the numbers of anomalous cells and points: each further one still adds.
        self.evidence = nn.Parameter(torch.full((1 if modality == "camera" else 2,), 0.5))

    def forward(
        self, images: Tensor, points: Tensor, point_mask: Tensor, point_pixels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of frames (B,), of image cells (B, rows, columns), and of points (B, N), called marks. With
        modality camera a point takes the logit of its cell, -10 out of view.

        images (B, 3, H, W), points (B, N, 4), point_mask (B, N), point_pixels (B, N, 2) in -1..1."""
        tokens, filled, marks = self.encode(images, points, point_mask, point_pixels)
        cells, pooled = self.cell_bias.expand(len(images), math.prod(self.token_grid)), []
        for sensor, found in tokens.items():
            scores = getattr(self, f"{sensor}_cells")(found).squeeze(2)
            cells = cells + scores.masked_fill(~filled[sensor], 0.0)  # (B, T)
            pooled.append(masked_max(found, filled[sensor]))  # (B, C)
        counts = [cells.float().sigmoid().sum(1)]  # (B,) each
        if marks is not None:
            counts.append((marks.float().sigmoid() * point_mask).sum(1))
        logits = self.head(torch.cat(pooled, dim=1)).squeeze(1)
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits + ((torch.stack(counts, 1) + 0.1).log() - 2) @ self.evidence
        cells = cells.unflatten(1, self.token_grid)
        if marks is None:
            marks = sample_at(cells[:, None] + 10, point_pixels)[..., 0] - 10  # (B, N)
        return logits, cells, marks

    def encode(self, images, points, point_mask, point_pixels) -> tuple[dict, dict, Tensor | None]:
        """By sensor, "image" and "point": the tokens after attention (B, T, C), and which of them hold
        something (B, T); and marks, the logits of the points (B, N), None without LiDAR."""
        tokens, filled, painted, marks = {}, {}, None, None
        if self.modality != "lidar":
            features = self.image_encoder(images)  # (B, F, h, w)
            pooled = F.adaptive_avg_pool2d(features, self.token_grid).flatten(2).mT  # (B, T, F)
            tokens["image"] = self.image_projection(pooled)
            filled["image"] = torch.ones(pooled.shape[:2], dtype=torch.bool, device=images.device)
        if self.modality != "camera":
            if self.paint is not None:
                seen = [sample_at(m, point_pixels) for m in (self.paint(features), as_float(images) * 8 - 4)]
                painted = torch.cat(seen, dim=2)  # (B, N, PAINT + 3)
            cell = locate(point_pixels, point_mask, self.token_grid)
            found = self.point_encoder(points, point_mask, cell, math.prod(self.token_grid), painted)
            tokens["point"], filled["point"], marks = found
        if self.fusion == "attention":
            code = self.code(self.waves) if self.position_code else 0.0  # (T, C), the same for both sensors
            sensors = list(tokens)
            tokens = {
                own: getattr(self, f"{own}_attention")(tokens[own], tokens[other], filled[other], code, code)
                for own, other in zip(sensors, sensors[::-1], strict=True)  # one alone attends to itself
            }
        return tokens, filled, marks


@torch.no_grad()
def explain(
    model: AnomalyDetectionModel, images: Tensor, points: Tensor, point_mask: Tensor,
    point_pixels: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Where the anomaly is: a heat map (B, H, W) interpolated from the probabilities of the cells, and the
    probability of each point (B, N), 0 for padding. Sets eval mode."""
    model.eval()
    _, cells, marks = model(images, points, point_mask, point_pixels)
    heat = F.interpolate(cells.sigmoid()[:, None], images.shape[2:], mode="bilinear", align_corners=False)
    return heat[:, 0], marks.sigmoid() * point_mask


def sample_at(maps: Tensor, point_pixels: Tensor) -> Tensor:
    """maps (B, F, h, w) sampled bilinearly at the pixels of points (B, N, 2) -> (B, N, F), 0 out of view."""
    if maps.is_cuda:  # where grid_sample sums gradients in any order: no run would repeat bit for bit
        return weigh_corners(maps, point_pixels)
    return F.grid_sample(maps, point_pixels[:, None], align_corners=False)[:, :, 0].mT


def weigh_corners(maps: Tensor, point_pixels: Tensor) -> Tensor:
    """The same as sample_at: the sum of the four pixels around each point, weighted by their nearness."""
    batch, _, height, width = maps.shape
    size = torch.tensor([width, height], device=maps.device)
    place = ((point_pixels.clamp(-2, 2) + 1) * size - 1) / 2  # (B, N, 2): x and y, 0 = centre of the first
    steps = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=maps.device)
    corners = place.floor()[:, :, None] + steps  # (B, N, 4, 2)
    near = (1 - (place[:, :, None] - corners).abs()).prod(3)  # (B, N, 4)
    weights = (near * ((corners >= 0) & (corners < size)).all(3)).to(maps.dtype)
    x, y = corners.long().clamp(min=0).minimum(size - 1).unbind(3)
    frames = torch.arange(batch, device=maps.device)[:, None, None] * height
    pixels = maps.flatten(2).mT.flatten(0, 1)[(frames + y) * width + x]  # (B, N, 4, F)
    return (pixels * weights[..., None]).sum(2)


def grid_waves(grid: tuple[int, int]) -> Tensor:
    """Sines and cosines of the cell centres, (cells, 24), row by row (Vaswani et al. 2017)."""
    rows, columns = grid
    v = (torch.arange(rows) + 0.5) / rows
    u = (torch.arange(columns) + 0.5) / columns
    centres = torch.stack(torch.meshgrid(v, u, indexing="ij"), dim=-1).reshape(-1, 2, 1)  # (cells, 2, 1)
    angles = centres * math.pi * 2 ** (torch.arange(6) / 2)  # (cells, 2, 6)
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


def locate(point_pixels: Tensor, point_mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cell (B, N) of each point in a (rows, columns) grid over the image; -1 for padding or out of view."""
    rows, columns = grid
    size = torch.tensor([columns, rows], device=point_pixels.device)
    index = ((point_pixels + 1) / 2 * size).floor().long().minimum(size - 1)  # (B, N, 2)
    seen = (point_pixels.abs() <= 1).all(dim=-1) & point_mask
    return torch.where(seen, index[..., 1] * columns + index[..., 0], -1)
