"""The geometry of two people on a 360-degree panorama: in range or not, who is left, the pair's features.

Boxes are (N, 4) float64 x, y, w, h in pixels; x + w may exceed the width W. Horizontal positions are computed
from twice the centre, 2x + w, modulo 2W, exactly on a binary grid, and no feature uses absolute x. So the
features are bit-identical if the panorama is rotated or the two people are swapped (they are first put in
canonical order); those of the mirrored panorama follow from `mirror_features`. Ratios are logarithms and
outliers are clipped, because a model has to work in other places, with other cameras and crowds.
"""

import numpy as np
import pandas

from datasets.jrdb.flags import FRAMES_PER_SECOND
from datasets.jrdb.labels import Sequence

METRES_TALL = 1.7  # assumed height of a person, to estimate depth from the height of a box
LAG_TOLERANCE = 7 / 15  # seconds by which the labelled frame used for a lag may be off

# The columns that follow those of static_columns, in order. `*_left` and `*_right` describe one person;
# `signed_*` change sign if the pair is mirrored. About the other people of the frame: surrounding_columns
SURROUNDING_FEATURES = ("rank_left", "rank_right", "margin_left", "margin_right", "neighbours_left",
                        "neighbours_right", "people")  # fmt: skip
# Per lag, with the suffix _1s, _2s, .., and over all lags: see history_columns
LAG_FEATURES = ("metres", "away", "signed_foot_motion", "foot_motion", "scale_motion")
HISTORY_FEATURES = ("metres_mean", "metres_spread", "metres_most", "away_spread", "seen_share")
# Over all labelled frames so far that show both people: see whole_past_columns
WHOLE_PAST_FEATURES = ("metres_so_far", "metres_so_far_spread", "near_so_far", "near_so_far_spread")


def signed_offset(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) shortest way from centre a to centre b in pixels, in (-W/2, W/2]; positive to the right."""
    twice = np.mod((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]), 2 * width)
    return np.where(twice > width, twice - 2 * width, twice) / 2


def distance(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) wrapped distance of the centres in pixels: the smallest |difference| over shifts of -W, 0, W."""
    # Centres are less than 1.5 W apart: this needs no modulo, which would take six times as long.
    twice = np.abs((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]))
    return np.minimum(twice, np.abs(2 * width - twice)) / 2


def in_range(
    a: np.ndarray, b: np.ndarray, width: float, multiplier: float = 3.0, norm: str = "max"
) -> np.ndarray:
    """(N,) bool: the centres are at most `multiplier` widths apart. `norm` is the width of the wider box
    ("max"), the mean of both, or that of the "first" box, which depends on the order."""
    widths = {"max": np.maximum(a[:, 2], b[:, 2]), "mean": (a[:, 2] + b[:, 2]) / 2, "first": a[:, 2]}[norm]
    return distance(a, b, width) <= multiplier * widths


def first_is_left(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) bool: a, who has the lower id, comes before b in the canonical order, from left to right the short
    way round. If the centres coincide or are exactly opposite, y, w, h decide (not x, which depends on where
    the panorama begins), then the ids."""
    offset = signed_offset(a, b, width)
    order = np.where(2 * offset == width, 0, np.sign(offset))
    for column in (1, 2, 3):
        order = np.where(order == 0, np.sign(b[:, column] - a[:, column]), order)
    return order >= 0


def feature_names(history_seconds: int = 5, whole_past: bool = False) -> list[str]:
    """Names of the columns, in order. Columns about the past are NaN if the two were not seen together."""
    lags = [f"{name}_{k}s" for k in range(1, history_seconds + 1) for name in LAG_FEATURES]
    past = [*(HISTORY_FEATURES if history_seconds else ()), *(WHOLE_PAST_FEATURES if whole_past else ())]
    return [*STATIC_FEATURES, *SURROUNDING_FEATURES, *lags, *past]


def history_frames(times: np.ndarray, seconds: int, frame_rate: float = FRAMES_PER_SECOND) -> np.ndarray:
    """(F, seconds) index of the labelled frame 1, 2, .. s before each frame: the latest within LAG_TOLERANCE,
    or -1. times (F,): ascending frame numbers of all labelled frames, including those that --frame_stride
    leaves out."""
    lag, tolerance = times[:, None] - frame_rate * np.arange(1, seconds + 1), frame_rate * LAG_TOLERANCE
    index = np.searchsorted(times, lag + tolerance, side="right") - 1
    return np.where((index >= 0) & (times[np.maximum(index, 0)] >= lag - tolerance), index, -1)


def log_ground_metres(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) log(1 + metres) between two people on the ground who are METRES_TALL. On a cylindrical panorama
    the focal length is W / 2 pi pixels, the depth focal * METRES_TALL / box height, the angle between two
    people distance / focal."""
    focal = width / (2 * np.pi)
    depth_a, depth_b = focal * METRES_TALL / a[:, 3], focal * METRES_TALL / b[:, 3]
    cosine = np.cos(distance(a, b, width) / focal)
    squared = depth_a**2 + depth_b**2 - 2 * depth_a * depth_b * cosine
    return np.log1p(np.sqrt(np.maximum(squared, 0)))


def pair_features(
    sequence: Sequence, left: np.ndarray, right: np.ndarray, history_seconds: int = 5,
    every_pair: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:  # fmt: skip
    """(N, G) float32 features, columns as in `feature_names`. left, right (N,): the people's rows, in
    canonical order. every_pair, for the whole past: all pairs of all frames, sorted, lower row first."""
    columns = static_columns(sequence.boxes[left], sequence.boxes[right], sequence.width, sequence.height)
    columns |= surrounding_columns(sequence, left, right)
    if history_seconds:
        columns |= history_columns(sequence, left, right, history_seconds)
    if every_pair:
        columns |= whole_past_columns(sequence, left, right, *every_pair)
    names = feature_names(history_seconds, whole_past=every_pair is not None)
    return np.stack([columns[name] for name in names], 1).astype(np.float32)


def static_columns(a: np.ndarray, b: np.ndarray, pano_width: int, pano_height: int) -> dict:
    """The features of two boxes, {name: (N,) float64}: a (N, 4) of the left person, b of the right one."""
    (top_a, width_a, height_a), (top_b, width_b, height_b) = a.T[1:], b.T[1:]
    foot_a, foot_b = top_a + height_a, top_b + height_b
    width, height = (width_a + width_b) / 2, (height_a + height_b) / 2
    apart = distance(a, b, pano_width)
    narrower, shorter = np.minimum(width_a, width_b), np.minimum(height_a, height_b)
    shared_x = np.clip(width - apart, 0, narrower)  # columns, across the seam
    shared_y = np.clip(np.minimum(foot_a, foot_b) - np.maximum(top_a, top_b), 0, None)
    shared, depth_of_one_pixel = shared_x * shared_y, pano_width / (2 * np.pi) * METRES_TALL
    wider, taller = np.log(width_b) - np.log(width_a), np.log(height_b) - np.log(height_a)
    lower, lower_top = (foot_b - foot_a) / height, (top_b - top_a) / height
    return {
        "distance_widths": np.minimum(apart / width, 8),
        "distance_heights": np.minimum(apart / height, 8),
        "gap_heights": np.minimum((apart - width) / height, 8),  # below 0: they overlap
        "half_turn": apart / (pano_width / 2),  # 1 = exactly opposite
        "log_metres": log_ground_metres(a, b, pano_width),
        "depth_metres": np.log1p(np.abs(depth_of_one_pixel / height_a - depth_of_one_pixel / height_b)),
        "signed_log_height": taller,
        "log_height_ratio": np.abs(taller),
        "signed_log_width": wider,
        "log_width_ratio": np.abs(wider),
        "signed_foot": lower,
        "foot_difference": np.abs(lower),
        "signed_top": lower_top,
        "top_difference": np.abs(lower_top),
        "iou": shared / (width_a * height_a + width_b * height_b - shared),
        "overlap_x": shared_x / narrower,
        "overlap_y": shared_y / shorter,
        "log_scale": np.log(height / pano_height),
        "aspect_left": np.log(width_a) - np.log(height_a),
        "aspect_right": np.log(width_b) - np.log(height_b),
        "foot_left": foot_a / pano_height,
        "foot_right": foot_b / pano_height,
    }


STATIC_FEATURES = tuple(static_columns(np.ones((1, 4)), np.ones((1, 4)), 1, 1))


def surrounding_columns(sequence: Sequence, left: np.ndarray, right: np.ndarray) -> dict:
    """SURROUNDING_FEATURES {name: (N,) float64}, computed over everybody in a pair's frame. Distances are
    metres on the ground, except that neighbours are people within 3 widths of the wider box."""
    frames = sequence.frame_of_row()[left]
    order = np.argsort(frames, kind="stable")
    columns = {name: np.zeros(len(left)) for name in SURROUNDING_FEATURES}
    changes = np.flatnonzero(np.diff(frames[order])) + 1
    for pairs in filter(len, np.split(order, changes)):  # those of one frame; without pairs an empty one
        first, last = sequence.starts[frames[pairs[0]] : frames[pairs[0]] + 2]
        people = last - first
        a = np.repeat(sequence.boxes[first:last], people, axis=0)  # (n * n, 4): everybody with everybody
        b = np.tile(sequence.boxes[first:last], (people, 1))
        metres = log_ground_metres(a, b, sequence.width).reshape(people, people)
        near = in_range(a, b, sequence.width).reshape(people, people).sum(axis=1) - 1  # not oneself
        np.fill_diagonal(metres, np.inf)
        two = {"left": left[pairs] - first, "right": right[pairs] - first}
        apart = metres[two["left"], two["right"]]
        for side, person in two.items():
            nearer = (metres[person] < apart[:, None]).sum(axis=1)  # than the pair's other person
            columns[f"rank_{side}"][pairs] = np.log1p(nearer)
            columns[f"margin_{side}"][pairs] = apart - metres[person].min(axis=1)
            columns[f"neighbours_{side}"][pairs] = np.log1p(near[person])
        columns["people"][pairs] = np.log1p(people)
    return columns


def history_columns(sequence: Sequence, left: np.ndarray, right: np.ndarray, lags: int) -> dict:
    """LAG_FEATURES and HISTORY_FEATURES, NaN if the two were not both seen. Motion is measured since the lag,
    per second, away and foot motion in units of the pair's present mean height."""
    boxes, width, times = sequence.boxes, sequence.width, sequence.times
    frames, tracks = sequence.frame_of_row(), sequence.tracks
    people = int(tracks.max(initial=0)) + 1
    keys, past = frames * people + tracks, history_frames(times, lags, sequence.frame_rate)  # keys ascend
    a, b = boxes[left], boxes[right]
    mean_height, feet = (a[:, 3] + b[:, 3]) / 2, boxes[:, 1] + boxes[:, 3]
    offset = signed_offset(a, b, width)
    metres = [log_ground_metres(a, b, width)]
    aways, columns = [], {}
    for lag in range(lags):
        earlier = past[frames, lag]  # (R,) frame at this lag, or -1; below, the same person's row in it
        wanted = earlier * people + tracks
        index = np.searchsorted(keys, wanted)  # never behind the last key, which is of a later frame
        rows = np.where((earlier >= 0) & (keys[index] == wanted), index, -1)
        row_a, row_b = rows[left], rows[right]
        seen = (row_a >= 0) & (row_b >= 0)
        elapsed = (times[frames[left]] - times[np.maximum(earlier[left], 0)]) / sequence.frame_rate
        past_a, past_b = boxes[row_a], boxes[row_b]
        moved = np.mod(2 * (offset - signed_offset(past_a, past_b, width)), 2 * width) / 2
        moved = np.where(2 * moved > width, moved - width, moved)  # positive: R moves away from L
        foot = (feet[right] - feet[left]) - (feet[row_b] - feet[row_a])
        scale = (np.log(b[:, 3]) - np.log(a[:, 3])) - (np.log(past_b[:, 3]) - np.log(past_a[:, 3]))
        with np.errstate(divide="ignore", invalid="ignore"):
            features = {
                "metres": log_ground_metres(past_a, past_b, width),
                "away": np.clip(moved / mean_height / elapsed, -2, 2),
                "signed_foot_motion": np.clip(foot / mean_height / elapsed, -1, 1),
                "foot_motion": np.minimum(np.abs(foot) / mean_height / elapsed, 1),
                "scale_motion": np.minimum(np.abs(scale) / elapsed, 1),
            }
        features = {name: np.where(seen, values, np.nan) for name, values in features.items()}
        columns |= {f"{name}_{lag + 1}s": values for name, values in features.items()}
        metres.append(features["metres"])
        aways.append(np.abs(features["away"]))
    any_seen, count = ~np.isnan(aways).all(0), (~np.isnan(metres)).sum(0)
    mean = np.nansum(metres, 0) / count
    features = {
        "metres_mean": mean,  # over now and the lags
        "metres_spread": np.sqrt(np.nansum((np.array(metres) - mean) ** 2, 0) / count),
        "metres_most": np.nanmax(metres, 0),
        "away_spread": np.nansum(aways, 0) / np.maximum(count - 1, 1),
    }
    columns |= {name: np.where(any_seen, values, np.nan) for name, values in features.items()}
    return columns | {"seen_share": (count - 1) / lags}  # share of the lags, never NaN


def whole_past_columns(
    sequence: Sequence, left: np.ndarray, right: np.ndarray, first: np.ndarray, second: np.ndarray
) -> dict:
    """WHOLE_PAST_FEATURES, NaN if the two were never both seen before. first, second: every_pair."""
    a, b = sequence.boxes[first], sequence.boxes[second]
    now = pandas.DataFrame({
        "metres_so_far": log_ground_metres(a, b, sequence.width),
        "near_so_far": np.maximum(0, 1 - distance(a, b, sequence.width) / (a[:, 2] + b[:, 2]) * 2 / 3),
    })  # fmt: skip
    people, tracks = len(sequence.boxes), sequence.tracks.astype(np.int64)
    two = tracks[first] * people + tracks[second]  # lower track first: rows of a frame ascend by track
    count = now.groupby(two).cumcount() + 1  # the pairs ascend in time
    mean = now.groupby(two).cumsum().div(count, axis=0)
    square = (now**2).groupby(two).cumsum().div(count, axis=0)
    spread = np.sqrt((square - mean**2).clip(lower=0)).add_suffix("_spread")
    features = mean.join(spread).where(count > 1)
    rows = np.minimum(left, right) * people + np.maximum(left, right)
    return features.iloc[np.searchsorted(first * people + second, rows)].to_dict("series")


def mirror_features(features: np.ndarray, names: list[str]) -> np.ndarray:
    """The exact features of the mirrored panorama: (N, G) -> (N, G) float32.

    Mirroring swaps left and right, so `*_left` and `*_right` change places and `signed_*` change sign. The
    few pairs that are not ordered by x (centres coincide or are exactly opposite) keep their order; only
    their `away_*` motion changes sign."""
    column = {name: i for i, name in enumerate(names)}
    mirrored = features.copy()
    for name, i in column.items():
        if name.endswith("_left"):
            j = column[name.removesuffix("_left") + "_right"]
            mirrored[:, i], mirrored[:, j] = features[:, j], features[:, i]
        elif name.startswith("signed_"):
            mirrored[:, i] = 0 - features[:, i]
    tie = ~swaps_when_mirrored(features, names)
    mirrored[tie] = features[tie]
    away = [i for name, i in column.items() if name.startswith("away_") and name != "away_spread"]
    mirrored[np.ix_(tie, away)] = 0 - features[np.ix_(tie, away)]
    return mirrored


def swaps_when_mirrored(features: np.ndarray, names: list[str]) -> np.ndarray:
    """(N,) bool: mirroring swaps left and right, because x orders the pair and not y, size or id."""
    half_turn = features[:, names.index("half_turn")]
    return (half_turn != 0) & (half_turn != 1)
