"""Random numbers that are a function of the sample, and operations that treat every sample alone."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from datasets.anovox.augmentation import augment_frames
from datasets.augmentation import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    flip_horizontal,
    rotate,
    uniform,
)
from datasets.jrdb.augmentation import augment_pairs
from datasets.jrdb.geometry import feature_names
from datasets.ultrasound.augmentation import augment_images


def some_images(count=5, height=13, width=17):
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0))


def test_numbers_belong_to_the_sample_not_to_the_batch():
    every = uniform(42, 3, np.arange(1000), 5)
    assert every.shape == (1000, 5)
    assert every.dtype == np.float64
    assert every.min() >= 0
    assert every.max() < 1
    shuffled = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(uniform(42, 3, shuffled, 5), every[shuffled])
    assert np.array_equal(uniform(42, 3, [7], 5), every[[7]])
    assert np.array_equal(uniform(42, 3, torch.arange(9), 2), every[:9, :2])  # asking for more changes none
    assert uniform(1, 1, [], 4).shape == (0, 4)


def test_the_numbers_are_fixed_for_ever():
    """Computed with Python integers, as the definition says."""

    def mix(state):
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        return state ^ state >> 31

    golden, key = 0x9E3779B97F4A7C15, 0
    for part in (42, 2, 1):
        key = mix((key + (part + 1) * golden) % 2**64)
    row = mix((key + (1234 + 1) * golden) % 2**64)
    expected = [(mix((row + k * golden) % 2**64) >> 11) / 2**53 for k in (1, 2, 3)]
    assert uniform(42, 2, [1234], 3, stream=1)[0].tolist() == expected


def test_every_argument_matters_and_negative_or_large_ones_work():
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (2**63, 0, 0), (1, 1, 0), (1, 0, 1)]
    rows = np.stack([uniform(seed, epoch, np.arange(500), 1, stream)[:, 0] for seed, epoch, stream in keys])
    correlation = np.corrcoef(rows) - np.eye(len(keys))
    assert np.abs(correlation).max() < 0.2  # 4.5 standard deviations of 1 / sqrt(500)


def test_the_numbers_are_uniform_and_independent():
    n = 200_000
    draws = uniform(42, 1, np.arange(n), 4)
    assert np.abs(draws.mean(0) - 1 / 2).max() < 5 * (1 / 12 / n) ** 0.5
    assert np.abs(draws.var(0) - 1 / 12).max() < 5 * (1 / 180 / n) ** 0.5
    counts = np.stack([np.bincount((column * 100).astype(int), minlength=100) for column in draws.T])
    chi_square = ((counts - n / 100) ** 2 / (n / 100)).sum(1)
    assert np.abs(chi_square - 99).max() < 5 * (2 * 99) ** 0.5
    series = [*draws.T, *uniform(42, 2, np.arange(n), 2).T, *uniform(43, 1, np.arange(n), 2).T]
    assert np.abs(np.corrcoef(series) - np.eye(8)).max() < 5 / n**0.5
    for lag in (1, 2, 16, 1000):  # neighbouring samples
        assert abs(np.corrcoef(draws[:-lag, 0], draws[lag:, 0])[0, 1]) < 5 / n**0.5
    assert len(np.unique(draws)) == draws.size


def test_flip_mirrors_only_the_masked_and_any_type():
    for images in (some_images(), (some_images() * 255).to(torch.uint8)):
        flipped = flip_horizontal(images, torch.tensor([True, False, True, False, False]))
        assert torch.equal(flipped[[0, 2]], images[[0, 2]].flip(-1))
        assert torch.equal(flipped[[1, 3, 4]], images[[1, 3, 4]])
        assert flipped.dtype == images.dtype


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (adjust_brightness, v2.functional.adjust_brightness),
        (adjust_contrast, v2.functional.adjust_contrast),
        (adjust_saturation, v2.functional.adjust_saturation),
    ],
)
def test_colour_equals_torchvision_with_a_factor_per_sample(ours, theirs):
    images, factors = some_images(), torch.tensor([0.0, 0.6, 1.0, 1.4, 3.0])
    expected = torch.stack([theirs(images[k], float(factors[k])) for k in range(5)])
    torch.testing.assert_close(ours(images, factors), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours(images, factors)[2], images[2], rtol=0, atol=1e-6)


def test_rotation_by_right_angles_is_exact_and_counter_clockwise():
    images = some_images(4, 16, 16)
    turned = rotate(images, torch.tensor([0.0, 90.0, 180.0, 270.0]))
    for k in range(4):
        torch.testing.assert_close(turned[k], torch.rot90(images[k], k, (1, 2)), rtol=0, atol=2e-5)


def test_rotation_equals_torchvision_and_keeps_circles_round():
    images, degrees = some_images(5, 24, 40), torch.tensor([-10.0, -3.0, 0.0, 4.0, 10.0])
    for image, angle, turned in zip(images, degrees, rotate(images, degrees), strict=True):
        expected = v2.functional.rotate(image, float(angle), interpolation=v2.InterpolationMode.BILINEAR)
        inner = (..., slice(6, -6), slice(6, -6))  # torchvision fades the border in
        torch.testing.assert_close(turned[inner], expected[inner], rtol=0, atol=1e-4)


def test_what_a_rotation_brings_in():
    white = torch.ones(1, 3, 32, 32)
    assert rotate(white, torch.tensor([45.0]))[0, :, 0, 0].max() == 0


@pytest.mark.parametrize("size", [(13, 17), (128, 64), (96, 96)])
def test_a_sample_comes_out_the_same_alone_and_in_any_batch(size):
    images = some_images(7, *size)
    factors = torch.linspace(0.5, 1.5, 7)
    operations = [
        (flip_horizontal, factors > 1),
        (adjust_brightness, factors),
        (adjust_contrast, factors),
        (adjust_saturation, factors),
        (rotate, 20 * (factors - 1)),
    ]
    for operation, parameters in operations:
        together = operation(images, parameters)
        for batch in ([3], [6, 0], [1, 2, 3, 4, 5]):
            apart = operation(images[batch], parameters[batch])
            assert torch.equal(apart, together[batch]), operation.__name__


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_sample_is_alone_too_and_close_to_the_cpu():
    images, factors = some_images(7, 96, 64), torch.linspace(0.5, 1.5, 7)
    for operation in (adjust_brightness, adjust_contrast, adjust_saturation, rotate):
        on_gpu = operation(images.cuda(), factors.cuda())
        assert torch.equal(operation(images[2:4].cuda(), factors[2:4].cuda()), on_gpu[2:4])
        torch.testing.assert_close(on_gpu.cpu(), operation(images, factors), rtol=0, atol=1e-4)


def test_pixels_are_worked_on_where_the_model_is_and_never_read_back():
    """A tensor on the meta device has no values: whoever looked at one would get an error."""
    crops = some_images(count=4, height=8, width=4).mul(255).byte()
    pairs = {
        "crops": crops,
        "left": torch.tensor([0, 2]),
        "right": torch.tensor([1, 3]),
        "geometry": torch.zeros(2, len(feature_names(1))),
        "frames": torch.tensor([0, 1]),
        "persons": torch.arange(4),
    }
    here, there = (augment_pairs(pairs, feature_names(1), 0, 1, device) for device in ("cpu", "meta"))
    assert {name for name, values in there.items() if values.is_meta} == {"crops"}
    assert all(torch.equal(here[name], there[name]) for name in pairs if name != "crops")
    frames = {
        "images": crops,
        "points": torch.zeros(4, 5, 4),
        "point_mask": torch.ones(4, 5, dtype=torch.bool),
        "point_pixels": torch.zeros(4, 5, 2),
        "cells": torch.zeros(4, 2, 3),
        "true_points": torch.zeros(4, 5),
        "indices": torch.arange(4),
    }
    assert all(values.is_meta for values in augment_frames(frames, 0, 1, "meta").values())
    options = {"seed": 0, "rotation": 10.0, "jitter": 0.2, "flip": True}
    assert augment_images(crops.to("meta"), torch.arange(4), 1, **options).is_meta
