"""An untrained reference: the distance of a frame's most unusual patch to the nearest patch of normal frames.

PatchCore (Roth et al. 2022) on features of a frozen EfficientNet-Lite0 at 1/16 resolution, with a random draw
instead of a coreset.
"""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from models.encoders import Encoder, build_encoder, load_weights
from utils.run.errors import CommandError

MEMORY, NORMAL_FRAMES, BATCH = 4000, 200, 32


def remember_patches(train: np.ndarray, normal: np.ndarray, val: np.ndarray) -> dict[str, np.ndarray]:
    """patch_memory (MEMORY, C), drawn from frames `normal` (K,) of train (F, H, W, 3) uint8, and patch_val,
    the scores of val. Empty if ImageNet weights of efficientnet_lite0 are not on this machine."""
    encoder = _lite0()
    if encoder is None:
        return {}
    few = normal[np.linspace(0, len(normal) - 1, min(NORMAL_FRAMES, len(normal))).astype(int)]
    memory = torch.cat(list(_patches(encoder, train[few])))  # (patches, C)
    drawn = torch.randperm(len(memory), generator=torch.Generator().manual_seed(0))[:MEMORY]
    memory = memory[drawn].numpy()
    return {"patch_memory": memory, "patch_val": patch_distances(memory, val)}


def patch_reference(kept: dict[str, np.ndarray], images: np.ndarray) -> dict[str, tuple[np.ndarray, ...]]:
    """{"patch distance": (scores of val, scores of `images`)} from the result of remember_patches, or {}."""
    if "patch_memory" not in kept or _lite0() is None:
        return {}
    return {"patch distance": (kept["patch_val"], patch_distances(kept["patch_memory"], images))}


def patch_distances(memory: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Scores (F,) of the frames (F, H, W, 3) uint8."""
    known = torch.from_numpy(memory)
    scores = [torch.cdist(frame, known).amin(dim=1).amax() for frame in _patches(_lite0(), images)]
    return torch.stack(scores).numpy()


@functools.cache
def _lite0() -> Encoder | None:
    """EfficientNet-Lite0 up to the 112 channels of its eleventh block; None without its weights."""
    encoder = build_encoder("efficientnet_lite0").eval()
    try:
        load_weights(encoder, "imagenet")
    except CommandError:
        return None
    lite0 = encoder.features
    encoder.features = nn.Sequential(lite0.conv_stem, lite0.bn0, nn.ReLU6(), *lite0.blocks[:11])
    return encoder


@torch.no_grad()
def _patches(encoder: Encoder, images: np.ndarray) -> Iterator[torch.Tensor]:
    """(patches, C) of each frame, averaged over 3 x 3. Those of all frames together can exceed the memory."""
    for start in range(0, len(images), BATCH):
        maps = encoder(torch.from_numpy(np.array(images[start : start + BATCH])).permute(0, 3, 1, 2))
        yield from nn.functional.avg_pool2d(maps, 3, 1, 1).flatten(2).mT  # (B, C, h, w) -> (B, patches, C)
