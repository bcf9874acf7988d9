"""A reference that is not trained: how far a frame's strangest patch is from every patch of normal frames.

PatchCore (Roth et al. 2022) with what a frozen EfficientNet-Lite0 sees at a sixteenth of the resolution, and
a random draw in place of their coreset.
"""

import numpy as np
import torch

from models.encoders import build_encoder, load_weights
from utils.run.errors import CommandError

MEMORY, NORMAL_FRAMES, BATCH = 4000, 200, 32


def patch_distances(normal: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray] | None:
    """Scores (F,) of the frames (F, H, W, 3) uint8 in each of `parts`; `normal` frames fill the memory.

    None where ImageNet weights of efficientnet_lite0 are not on this machine.
    """
    encoder = build_encoder("efficientnet_lite0").eval()
    try:
        load_weights(encoder, "imagenet")
    except CommandError:
        return None
    few = normal[np.linspace(0, len(normal) - 1, min(NORMAL_FRAMES, len(normal))).astype(int)]
    memory = _patches(encoder, few).flatten(0, 1)  # (patches, C)
    drawn = torch.randperm(len(memory), generator=torch.Generator().manual_seed(0))[:MEMORY]
    memory = memory[drawn]
    scores = []
    for images in parts:
        distances = [torch.cdist(frame, memory).amin(dim=1).amax() for frame in _patches(encoder, images)]
        scores.append(torch.stack(distances).numpy())
    return scores


@torch.no_grad()
def _patches(encoder, images: np.ndarray) -> torch.Tensor:
    """(F, patches, C): 112 channels of the eleventh block, smoothed over 3 x 3."""
    lite0, found = encoder.features, []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH])).permute(0, 3, 1, 2).float() / 255
        x = (batch - encoder.mean) / encoder.std
        x = lite0.blocks[:11](torch.relu(lite0.bn0(lite0.conv_stem(x))).clamp(max=6))  # (B, 112, H/16, W/16)
        found.append(torch.nn.functional.avg_pool2d(x, 3, 1, 1).flatten(2).mT)
    return torch.cat(found)
