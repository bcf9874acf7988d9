"""The drawing to the pixel, above all at the seam: what is cut off at one end must stand at the other."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from utils.plotting.panorama import DARK, HEADER, PALETTE, SMALL, WHITE, draw_panorama, save_panorama

WIDTH, HEIGHT, FIELD = 400, 100, (90, 90, 90)
SEAM_BOX = [380, 30, 40, 50]  # columns 380..399 and 0..19


def field() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), FIELD, np.uint8)


def panorama(image, boxes, names, pairs=(), kinds=None, texts=None, groups=None, kind_names=()):
    pairs, count = np.array(pairs, int).reshape(-1, 2), len(pairs)
    return draw_panorama(
        image, np.array(boxes), names, pairs=pairs, kind_names=kind_names, title="",
        kinds=np.full(count, -1) if kinds is None else np.array(kinds), texts=texts or [""] * count,
        groups=np.full(len(boxes), -1) if groups is None else groups,
    )  # fmt: skip


def drawn(boxes, names=None, **options) -> np.ndarray:
    """The panorama's part of the picture."""
    names = [""] * len(boxes) if names is None else names
    return panorama(field(), boxes, names, **options)[HEADER : HEADER + HEIGHT]


def is_color(picture, color) -> np.ndarray:
    return (picture == np.array(color, np.uint8)).all(axis=2)


def test_a_person_on_the_seam_stands_on_both_ends():
    white = is_color(drawn([SEAM_BOX], pairs=[[0, 0]]), WHITE)  # somebody in a pair has a white box
    columns = np.flatnonzero(white[40])  # a row with neither the pair's line nor the top of the box
    assert columns.tolist() == [18, 19, 380, 381]  # left edge at the right end, right edge at the left end
    top = np.flatnonzero(white[30])
    assert top.tolist() == [*range(20), *range(380, 400)]
    assert white[79, 0] and white[79, 399] and not white[80:].any()


def test_a_person_inside_is_drawn_once():
    white = is_color(drawn([[100, 30, 40, 50]], pairs=[[0, 0]]), WHITE)
    assert np.flatnonzero(white[40]).tolist() == [100, 101, 138, 139]


def test_the_id_of_a_cut_person_is_whole_on_both_ends():
    plain, tagged = drawn([SEAM_BOX]), drawn([SEAM_BOX], ["17"])
    changed = np.flatnonzero((plain != tagged).any(axis=(0, 2)))
    left, right = changed[changed < 200], changed[changed >= 200]
    assert left.min() == 0 and right.min() >= 370 and len(left) > 10 and len(right) > 10
    inside = drawn([[100, 30, 40, 50]], ["17"])[:30]
    assert is_color(tagged[:30], (160, 160, 160)).sum() == 2 * is_color(inside, (160, 160, 160)).sum()


def test_the_tag_is_as_wide_as_its_id():
    tag = is_color(drawn([[100, 60, 20, 30]], ["pedestrian:17"])[:58], DARK)
    assert tag.any(axis=0).sum() >= ImageFont.load_default(SMALL).getlength("pedestrian:17")


@pytest.mark.parametrize("pair", [[0, 1], [1, 0]])
def test_a_pair_nearer_through_the_seam_is_joined_through_it_in_two_pieces(pair):
    boxes = [[350, 30, 20, 50], [20, 30, 20, 50]]  # centres 360 and 30, 70 apart through the seam
    row = np.flatnonzero(is_color(drawn(boxes, pairs=[pair], kinds=[2]), PALETTE[2])[55])
    assert {*range(20), *range(370, 400)} <= set(row.tolist()) and not ((row > 40) & (row < 350)).any()


def test_a_pair_nearer_inside_is_joined_inside_in_one_piece():
    boxes = [[100, 30, 20, 50], [250, 30, 20, 50]]
    row = np.flatnonzero(is_color(drawn(boxes, pairs=[[0, 1]], kinds=[0]), PALETTE[0])[55])
    assert set(range(125, 245)) <= set(row.tolist()) and row.min() > 90 and row.max() < 280


@pytest.mark.parametrize("shift", [1, 37, 130, 210, 399])
def test_turning_the_panorama_turns_the_picture(shift):
    """Nothing about where the panorama begins may show: every pixel moves along, for boxes and lines."""
    boxes = np.array([[380, 30, 40, 50], [20, 20, 30, 70], [200, 35, 24, 40], [340, 30, 20, 44]])
    turned = boxes.copy()
    turned[:, 0] = (turned[:, 0] + shift) % WIDTH
    options = {"pairs": [[0, 1], [1, 3], [2, 3]], "kinds": [0, 3, -1]}
    assert (drawn(turned, **options) == np.roll(drawn(boxes, **options), shift, axis=1)).all()


def test_texts_keep_clear_of_each_other_and_inside():
    boxes = np.array([[385, 2, 20, 6], [395, 2, 20, 6]])
    texts = ["walking", "standing", "sitting"]
    options = {"pairs": [[0, 1]] * 3, "kinds": [0, 1, 2]}
    silent, told = drawn(boxes, **options), drawn(boxes, **options, texts=texts)
    changed = [is_color(told, color) & ~is_color(silent, color) for color in PALETTE[:3]]
    tops = [np.flatnonzero(one.sum(axis=1) > 30).min() for one in changed]  # not of the line to the middle
    assert np.diff(sorted(tops)).min() >= 21 and all(one.sum() > 500 for one in changed)  # whole and apart


def test_the_text_stands_beside_its_line_and_the_legend_names_the_kind():
    boxes, options = [[100, 30, 20, 60], [250, 30, 20, 60]], {"pairs": [[0, 1]], "kinds": [1]}
    silent = is_color(drawn(boxes, **options), PALETTE[1])
    told = is_color(drawn(boxes, **options, texts=["standing"]), PALETTE[1])
    rows, columns = np.nonzero(told & ~silent)
    assert len(rows) > 200 and 40 < rows.mean() < 80 and 140 < columns.mean() < 230
    whole = panorama(field(), boxes, ["1", "2"], kind_names=["walking", "standing"], **options)
    for color in PALETTE[:2]:
        assert is_color(whole[:HEADER], color).sum() > 100
    assert not is_color(whole[:HEADER], PALETTE[2]).any()


def test_the_group_stands_beside_the_id_of_its_members():
    boxes = [[350, 30, 20, 50], [20, 30, 20, 50], [180, 30, 20, 50]]
    plain = drawn(boxes, ["1", "2", "3"])
    told = drawn(boxes, ["1", "2", "3"], groups=np.array([4, 4, 5]))
    changed = (plain != told).any(axis=(0, 2))
    assert changed[300:].any() and changed[:120].any() and not changed[120:300].any()  # 3 is alone


def test_nobody_and_no_room_are_no_error(tmp_path):
    image = field()
    picture = panorama(image, np.empty((0, 4)), [], groups=np.empty(0, int))
    assert (picture[HEADER:] == image).all()
    boxes, pairs = np.array([[10, 2, 5, 9], [20, 2, 5, 9]] * 4), [[i, j] for i in range(8) for j in range(i)]
    crowded = panorama(image[:16, :60].copy(), boxes, ["9"] * 8, pairs, texts=["walking"] * len(pairs))
    assert crowded.shape == (HEADER + 16, 60, 3) and (image == FIELD).all()
    save_panorama(crowded, tmp_path / "a.png")
    assert (np.asarray(Image.open(tmp_path / "a.png")) == crowded).all()
