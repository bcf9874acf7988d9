"""Person crops against a brute-force reference on the panorama tiled three times."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datasets.images import read_image
from datasets.jrdb.crops import crop_people, crop_regions, load_crops, read_panorama
from utils.run.errors import CommandError, DataError

WIDTH, HEIGHT = 376, 48
SIZE = (32, 16)


def panorama(seed=0, width=WIDTH, height=HEIGHT):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def crop_cache(paths, boxes, size, pano_size, **cache):
    """The crops that a data set has of these boxes, all of whose people are in samples."""
    frames = np.repeat(np.arange(len(paths)), [len(some) for some in boxes])
    part = SimpleNamespace(
        name="train", left=np.arange(len(frames)), right=np.arange(len(frames)), near=None,
        people_frames=frames, sequences=["s"],
        boxes=np.concatenate(boxes), frame_sequences=np.zeros(len(paths), int), pano_sizes=[pano_size],
        frame_keys=[path.absolute() for path in paths], image_found=np.ones(len(paths), bool),
    )  # fmt: skip
    load_crops(part, "", size, **cache)
    return part.crops


def some_boxes(count=60, seed=1):
    """Everywhere on the ring, a few on the seam, a few reaching above or below the image."""
    random = np.random.default_rng(seed)
    boxes = np.stack(
        [
            random.integers(0, WIDTH, count),
            random.integers(-5, 30, count),
            random.integers(1, 40, count),
            random.integers(6, 45, count),
        ],
        axis=1,
    )
    return np.concatenate([[[370, 3, 20, 30], [375, 10, 1, 9], [360, 0, 16, 48]], boxes])[:count]


def crop_tiled(image, box, size):
    """The rule written out a second time: tile three times, pad with rows of the mean, cut, resize."""
    x, y, w, h = box
    width, height = Fraction(115 * int(w), 100), Fraction(115 * int(h), 100)
    if height / width < Fraction(*size):
        height = width * Fraction(*size)
    else:
        width = height / Fraction(*size)
    width, height = math.floor(width + Fraction(1, 2)), math.floor(height + Fraction(1, 2))
    left = math.floor(x + w / 2 - width / 2)
    top = math.floor(y + h / 2 - height / 2)
    mean = np.floor(image.mean(axis=(0, 1)) + 0.5)
    tiled = np.concatenate([image] * 3, axis=1)
    margin = 4 * image.shape[0]
    rows = np.broadcast_to(mean.astype(np.uint8), (margin, tiled.shape[1], 3))
    tall = np.concatenate([rows, tiled, rows])
    region = tall[top + margin : top + margin + height, left + image.shape[1] : left + image.shape[1] + width]
    pixels = torch.from_numpy(region.copy()).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0].numpy()


def save_frames(folder, count=3):
    paths = []
    for k in range(count):
        paths.append(folder / f"{k:06d}.png")
        Image.fromarray(panorama(k)).save(paths[-1])
    return paths


@pytest.mark.parametrize("size", [(32, 16), (24, 24), (16, 40)])
def test_crops_are_those_of_the_panorama_tiled_three_times(size):
    image, boxes = panorama(), some_boxes()
    crops = crop_people(image, boxes, size)
    assert crops.shape == (len(boxes), 3, *size)
    assert crops.dtype == np.uint8
    for crop, box in zip(crops, boxes, strict=True):
        assert np.array_equal(crop, crop_tiled(image, box, size)), box


@pytest.mark.parametrize("shift", [1, 7, 188, 375, -20])
def test_rolling_panorama_and_boxes_together_changes_no_bit(shift):
    image, boxes = panorama(), some_boxes()
    rolled = boxes + [shift, 0, 0, 0]
    wrapped = rolled.copy()
    wrapped[:, 0] %= WIDTH
    expected = crop_people(image, boxes, SIZE)
    assert np.array_equal(crop_people(np.roll(image, shift, axis=1), rolled, SIZE), expected)
    assert np.array_equal(crop_people(np.roll(image, shift, axis=1), wrapped, SIZE), expected)


def test_a_person_on_the_seam_is_whole():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[10:40, 366:] = 255  # 10 columns before the seam and 5 behind it
    image[10:40, :5] = 255
    crop = crop_people(image, np.array([[366, 10, 15, 30]]), SIZE)[0]
    assert crop[:, 6:26, 3:13].min() == 255


def test_region_keeps_the_aspect_and_the_centre():
    regions = crop_regions(np.array([[100, 10, 10, 30], [100, 10, 40, 20]]), (128, 64))
    # 30 * 1.15 = 34.5 -> 35 high and 17.25 -> 17 wide; 40 * 1.15 = 46 wide and 92 high.
    assert regions.tolist() == [[96, 7, 17, 35], [97, -26, 46, 92]]


def test_fractions_are_rounded_halves_up_and_half_a_pixel_is_still_a_box():
    image = panorama()
    fractional = np.array([[10.5, 3.2, 8.4, 19.5], [50, 10, 0.2, 0.3]])
    whole = np.array([[11, 3, 8, 20], [50, 10, 1, 1]])
    assert np.array_equal(crop_people(image, fractional, SIZE), crop_people(image, whole, SIZE))


def test_a_crop_wider_than_the_panorama_wraps_more_than_once():
    image = panorama()
    crop = crop_people(image, np.array([[5, 0, 370, 48]]), (16, 128))[0]  # 425 columns of 376
    assert np.array_equal(crop, crop_tiled(image, (5, 0, 370, 48), (16, 128)))
    assert crop_people(image, np.array([[5, 0, 700, 48]]), SIZE).shape == (1, 3, *SIZE)


def test_the_pad_is_the_mean_colour():
    image = np.full((HEIGHT, WIDTH, 3), (10, 20, 30), np.uint8)
    image[:, :188] = (20, 40, 61)
    crop = crop_people(image, np.array([[300, 2, 30, 4]]), SIZE)[0]  # wide and low: almost all pad
    assert crop[:, 0, 8].tolist() == [15, 30, 46]  # 45.5 rounds up


def test_no_boxes_give_no_crops():
    assert crop_people(panorama(), np.zeros((0, 4)), SIZE).shape == (0, 3, *SIZE)


def test_cached_crops_equal_direct_ones_and_follow_the_settings(tmp_path, caplog):
    paths, boxes = save_frames(tmp_path), [some_boxes(5, 1), np.zeros((0, 4)), some_boxes(7, 3)]
    cache = tmp_path / "cache"
    caplog.set_level("INFO", "run")
    crops = crop_cache(paths, boxes, SIZE, (WIDTH, HEIGHT), cache_dir=cache)
    assert caplog.messages[0].startswith("cache crops_train (12 items): built in")
    direct = [crop_people(read_image(path), some, SIZE) for path, some in zip(paths, boxes, strict=True)]
    assert np.array_equal(crops, np.concatenate(direct))
    caplog.clear()
    crop_cache(paths, boxes, SIZE, (WIDTH, HEIGHT), cache_dir=cache)
    assert not caplog.messages  # read, not built

    moved = [boxes[0] + [1, 0, 0, 0], *boxes[1:]]
    again = crop_cache(paths, moved, SIZE, (WIDTH, HEIGHT), cache_dir=cache)
    assert not np.array_equal(again, crops)
    crop_cache(paths, boxes, (24, 24), (WIDTH, HEIGHT), cache_dir=cache)
    assert len(list(cache.glob("*.npy"))) == 3


def test_missing_frames_are_counted_in_one_error(tmp_path):
    paths = [tmp_path / f"{k}.jpg" for k in range(20)]
    with pytest.raises(DataError, match=r"20 of 20(.|\n)*0\.jpg(.|\n)*17 more") as caught:
        crop_cache(paths, [some_boxes(2)] * 20, SIZE, (WIDTH, HEIGHT), cache_dir=tmp_path / "cache")
    assert len(str(caught.value).splitlines()) <= 5


def test_a_frame_of_another_size_is_an_error(tmp_path):
    paths = save_frames(tmp_path)
    Image.fromarray(panorama(9, width=752)).save(paths[1])
    with pytest.raises(DataError, match=r"000001\.png: .* 752x48 .* 376x48"):
        crop_cache(paths, [some_boxes(2)] * 3, SIZE, (WIDTH, HEIGHT), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy"))


@pytest.mark.parametrize("brightest", [200, 4000, 60000])
def test_panoramas_of_16_bits_are_refused_as_each_would_have_its_own_scale(tmp_path, brightest):
    path = tmp_path / "000000.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), brightest, np.uint16)).save(path)
    with pytest.raises(DataError, match=r"000000\.png: .*more than 8 bits.*\n.*on one scale"):
        read_panorama(path, (WIDTH, HEIGHT))


def test_too_large_a_cache_asks(tmp_path):
    paths = save_frames(tmp_path, 1)
    with pytest.raises(CommandError, match="--cache_limit_gb 1"):
        crop_cache(paths, [some_boxes(9)], SIZE, (WIDTH, HEIGHT), cache_dir=tmp_path / "cache", limit_gb=1e-6)


def test_a_real_person_on_the_seam_is_the_one_of_the_tiled_panorama(real):
    image = read_image(real / "jrdb/images/image_stitched/bytes-cafe-2019-02-07_0/000000.jpg")
    assert image.shape == (480, 3760, 3)
    boxes = np.array([[3724, 172, 56, 98], [3686, 82, 116, 257]])  # pedestrian:17 and pedestrian:25
    for crop, box in zip(crop_people(image, boxes, (128, 64)), boxes, strict=True):
        assert np.array_equal(crop, crop_tiled(image, box, (128, 64)))
