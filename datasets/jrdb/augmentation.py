"""Augment batches of pairs: mirror whole frames and jitter the colours of each person."""

import torch
from torch import Tensor

from datasets import augmentation as augment
from datasets.jrdb.geometry import mirror_features, swaps_when_mirrored

COLOR_JITTER = 0.2  # brightness, contrast and saturation change by up to 20%; hue does not


def augment_pairs(
    batch: dict[str, Tensor], names: list[str], seed: int, epoch: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Mirror half of the frames and jitter each person's colours in a CPU batch of JRDBPairDataset. Mirroring
    flips the crops, swaps left and right, and mirrors the geometry (columns `names`). Pixels are processed
    and returned on `device`. Draws depend only on (seed, epoch, frame or person), not on the batch."""
    mirrored = torch.from_numpy(augment.uniform(seed, epoch, batch["frames"].numpy(), 1)[:, 0] < 0.5)  # (N,)
    left, right, geometry = batch["left"], batch["right"], batch["geometry"]
    swapped = mirrored & torch.from_numpy(swaps_when_mirrored(geometry.numpy(), names))
    mirror = torch.from_numpy(mirror_features(geometry.numpy(), names))
    batch = batch | {
        "left": torch.where(swapped, right, left),
        "right": torch.where(swapped, left, right),
        "geometry": torch.where(mirrored[:, None], mirror, geometry),
    }
    if "crops" in batch:
        flipped = torch.zeros(len(batch["crops"]), dtype=torch.bool)  # (P,)
        flipped[left[mirrored]] = flipped[right[mirrored]] = True
        draws = augment.uniform(seed, epoch, batch["persons"].numpy(), 3, stream=1)  # (P, 3)
        factors = torch.from_numpy(1 + COLOR_JITTER * (2 * draws - 1)).float().to(device)
        brightness, contrast, saturation = factors.T
        crops = batch["crops"].to(device, non_blocking=True)
        crops = augment.flip_horizontal(crops, flipped.to(device)).float() / 255
        crops = augment.adjust_contrast(augment.adjust_brightness(crops, brightness), contrast)
        batch["crops"] = augment.adjust_saturation(crops, saturation)
    return batch
