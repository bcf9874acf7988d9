"""Augmentation of ultrasound images in training: rotation, brightness, contrast and optional mirroring."""

import torch

from datasets.augmentation import adjust_brightness, adjust_contrast, flip_horizontal, rotate, uniform


def augment_images(
    images: torch.Tensor, indices: torch.Tensor, epoch: int, *, seed: int, rotation: float, jitter: float,
    flip: bool,
) -> torch.Tensor:  # fmt: skip
    """uint8 (B, 1 or 3, H, W) -> float (B, 3, H, W) in [0, 1].

    The changes to a sample depend only on (seed, epoch, its index). rotation: the largest angle in degrees,
    either way. jitter: the largest relative change of brightness and contrast. flip: mirror half of the
    images, with their burnt-in text."""
    draws = torch.from_numpy(uniform(seed, epoch, indices.numpy(), 4)).float()
    turn, light, contrast, mirror = draws.to(images.device).unbind(1)  # each (B,) in [0, 1)
    turned = rotate(images.float() / 255, rotation * (2 * turn - 1))  # (B, 1 or 3, H, W)
    images = adjust_brightness(turned.expand(-1, 3, -1, -1), 1 + jitter * (2 * light - 1))
    images = adjust_contrast(images, 1 + jitter * (2 * contrast - 1))
    return flip_horizontal(images, mirror < 0.5) if flip else images
