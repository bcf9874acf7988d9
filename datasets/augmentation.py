"""Augmentation with parameters per sample, on float tensors in [0, 1], after the cache.

`uniform` is the only source of random numbers. The changes to a sample depend only on (seed, epoch, sample
index), not on its batch, its position there, the number of processes or earlier draws. The operations keep
this property: a sample gets bit for bit the output that it would get alone (on the same machine, with the
same number of threads). A script composes them, for example

    draws = torch.from_numpy(uniform(seed, epoch, indices, 2)).float().to(images.device)     # (B, 2)
    images = adjust_brightness(images, 1 + jitter * (2 * draws[:, 0] - 1))
    images = flip_horizontal(images, draws[:, 1] < 0.5)

The colour operations are those of torchvision.transforms.v2, with one factor per sample. Hue is left out:
green clothes and skin do not help, and it is the slowest of the four.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

GOLDEN = 0x9E3779B97F4A7C15  # step of splitmix64 (Steele, Lea, Flood 2014), 2**64 / golden ratio
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in torchvision


def uniform(
    seed: int, epoch: int, indices: Sequence[int] | np.ndarray, count: int, stream: int = 0
) -> np.ndarray:
    """float64 (len(indices), count) in [0, 1). Row i depends only on (seed, epoch, indices[i], stream), where
    `stream` separates images and points. splitmix64 as a counter: a number is a hash of its position."""
    key = np.zeros(1, np.uint64)
    for part in (seed, epoch, stream):
        key = mix(key + np.uint64((int(part) + 1) * GOLDEN % 2**64))
    rows = np.asarray(indices, np.int64).reshape(-1).astype(np.uint64)
    rows = mix(key + (rows + np.uint64(1)) * np.uint64(GOLDEN))  # (n,)
    positions = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)  # (count,)
    bits = mix(rows[:, None] + positions)  # (n, count)
    return (bits >> np.uint64(11)) * 2.0**-53  # the upper 53 bits: all that a float64 in [0, 1) can hold


def mix(state: np.ndarray) -> np.ndarray:
    """The output function of splitmix64 on uint64 arrays, which wrap: a bijection that uses every bit."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def flip_horizontal(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mirror the images (B, 3, H, W), of any type, left to right where `mask` (B,) is True."""
    return torch.where(mask.view(-1, 1, 1, 1), images.flip(-1), images)


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply images (B, 3, H, W) by factor (B,): 0 gives black, 1 changes nothing."""
    return (images * factor.to(images).view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the distance from the image's mean luma by factor (B,): 0 gives flat grey, 1 changes nothing."""
    # One image at a time: the order of a sum over the whole batch may depend on the batch size.
    channels = torch.stack([image.mean((1, 2)) for image in images])  # (B, 3)
    return _blend(images, _luma(channels[:, :, None, None]), factor)


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the distance from the grey image by factor (B,): 0 gives the grey image, 1 changes nothing."""
    return _blend(images, _luma(images), factor)


def rotate(images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate float images (B, 3, H, W) counter-clockwise by degrees (B,), bilinearly; outside is black."""
    height, width = images.shape[-2:]
    radians = torch.deg2rad(degrees.to(images))
    cosine, sine = radians.cos().view(-1, 1, 1), radians.sin().view(-1, 1, 1)
    # Pixel centres relative to the image's centre, in pixels: a circle stays a circle in an oblong image.
    x = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2  # (W,)
    y = torch.arange(height, device=images.device, dtype=images.dtype) - (height - 1) / 2
    y = y.view(-1, 1)  # (H, 1)
    source_x = (x * cosine - y * sine) * (2 / width)  # (B, H, W), from -1 to 1 across the image
    source_y = (x * sine + y * cosine) * (2 / height)
    grid = torch.stack([source_x, source_y], dim=-1)  # (B, H, W, 2)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def _luma(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)"""
    red, green, blue = images.split(1, dim=1)
    return (LUMA[0] * red).add_(LUMA[1] * green).add_(LUMA[2] * blue)


def _blend(images: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    factor = factor.to(images).view(-1, 1, 1, 1)  # (B,) -> (B, 1, 1, 1)
    return (factor * images).add_((1 - factor) * other).clamp_(0, 1)
