"""Changes to AnoVox batches after the cache: augmentation in training, sensor failures in evaluation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.anovox.dataset import OUTSIDE
from datasets.anovox.flags import CORRUPTIONS
from datasets.augmentation import adjust_brightness, adjust_contrast, flip_horizontal, uniform

JITTER = 0.15  # brightness and contrast factors lie within 1 +- this
HEIGHT_JITTER = 0.3  # metres; sensors are mounted at 1.6 to 1.8 m
TILT = 0.03  # metres of height per metre, from tilted mounts and sloping roads
THIN, RINGS, RING = 0.7, 64, 0.6  # largest share of rings dropped; number of rings; degrees per ring


def augment_frames(
    batch: dict[str, Tensor], seed: int, epoch: int, device: torch.device | str = "cpu",
    modality_dropout: float = 0.0,
) -> dict[str, Tensor]:  # fmt: skip
    """Mirror half of the frames, image and points together; jitter colours and the LiDAR's height and tilt.

    Half of the images have their hues rotated by a random angle, since an anomaly can have any hue. Half of
    the scans lose some rings, as if the LiDAR had fewer. A share `modality_dropout` of the frames loses one
    sensor, never both. Takes a CPU batch, works on `device` and returns the batch there, with float images
    0..1. Every draw depends only on (seed, epoch, frame), never on the rest of the batch."""
    draws = torch.from_numpy(uniform(seed, epoch, batch["indices"].numpy(), 10 + RINGS)).float().to(device)
    batch = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
    mirrored = draws[:, 0] < 0.5
    images = flip_horizontal(batch["images"], mirrored).float() / 255
    images = adjust_brightness(images, 1 + JITTER * (2 * draws[:, 1] - 1))
    images = adjust_contrast(images, 1 + JITTER * (2 * draws[:, 2] - 1))
    images = turn_hues(images, 4 * torch.pi * (draws[:, 3] - 0.5).clamp_min(0))
    side = torch.where(mirrored, -1.0, 1.0)[:, None]
    points, pixels = batch["points"].clone(), batch["point_pixels"].clone()
    points[..., 1] *= side
    elevation = torch.rad2deg(torch.atan2(points[..., 2], points[..., :2].norm(dim=2)))
    ring = (elevation / RING).floor().long() % RINGS
    lacking = (draws[:, 10:] < THIN * (2 * draws[:, 5:6] - 1)).gather(1, ring)  # (B, N)
    slope = TILT * (2 * draws[:, 8:10] - 1)[:, None]  # (B, 1, 2)
    points[..., 2] += HEIGHT_JITTER * (2 * draws[:, 4:5] - 1) + (points[..., :2] * slope).sum(2)
    pixels[..., 0] = torch.where(pixels[..., 0] == OUTSIDE, OUTSIDE, pixels[..., 0] * side)
    cells = torch.where(mirrored[:, None, None], batch["cells"].flip(-1), batch["cells"])
    batch = batch | {"images": images, "points": points, "point_pixels": pixels, "cells": cells}
    batch |= _keep(batch, batch["point_mask"] & ~lacking)
    if modality_dropout:
        lost = draws[:, 6] < modality_dropout
        camera = lost & (draws[:, 7] < 0.5)
        batch["images"] = torch.where(camera[:, None, None, None], 0.0, batch["images"])
        batch |= _keep(batch, batch["point_mask"] & ~(lost & ~camera)[:, None])
    return batch


def turn_hues(images: Tensor, angle: Tensor) -> Tensor:
    """Rotate the colours of images (B, 3, H, W), 0..1, about the grey axis by `angle` (B,) radians."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None] / 3**0.5
    grey, (red, green, blue) = (1 - cosine) / 3, images.unbind(1)  # (B, H, W) each
    plus, minus = grey + sine, grey - sine
    turned = (
        (grey + cosine) * red + minus * green + plus * blue,
        plus * red + (grey + cosine) * green + minus * blue,
        minus * red + plus * green + (grey + cosine) * blue,
    )
    return torch.stack(turned, dim=1).clamp_(0, 1)


def corrupt_frames(batch: dict[str, Tensor], corruption: str, seed: int) -> dict[str, Tensor]:
    """Simulate a failing sensor; `corruption`: one of CORRUPTIONS. Draws depend only on (seed, frame)."""
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption {corruption!r} is none of {', '.join(CORRUPTIONS)}")
    if corruption == "lidar_missing":
        return batch | _keep(batch, torch.zeros_like(batch["point_mask"]))
    if corruption == "lidar_dropout":  # four of five returns are lost
        count = batch["points"].shape[1]
        draws = torch.from_numpy(uniform(seed, 0, batch["indices"].numpy(), count, stream=2))
        return batch | _keep(batch, batch["point_mask"] & (draws < 0.2))
    images = batch["images"].float() / 255 if batch["images"].dtype == torch.uint8 else batch["images"]
    if corruption == "camera_black":
        images = torch.zeros_like(images)
    elif corruption == "camera_blur":  # out of focus: a box filter of a sixteenth of the height, twice
        side = max(3, images.shape[2] // 16 | 1)
        for _ in range(2):
            images = F.avg_pool2d(images, side, 1, side // 2, count_include_pad=False)
    else:  # sensor noise, sigma .2
        seeds = (seed * 1_000_003 + int(index) for index in batch["indices"])
        noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
        images = (images + 0.2 * torch.stack(noise)).clamp(0, 1)
    return batch | {"images": images}


def _keep(batch: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Keep the points in `mask` (B, N); the others become padding."""
    return {
        "point_mask": mask,
        "points": batch["points"] * mask[..., None],
        "point_pixels": torch.where(mask[..., None], batch["point_pixels"], OUTSIDE),
        "true_points": torch.where(mask, batch["true_points"], -1.0),
    }
