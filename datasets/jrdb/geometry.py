"""Two people on a panorama that closes in a circle: near or not, who is left, and the features of the pair.

Boxes are (N, 4) float64 x, y, w, h in pixels; x + w may run past the width W. Everything horizontal is
computed from twice the centre, 2x + w, modulo 2W: for boxes on a binary grid (whole pixels are) that is
exact, and no feature uses absolute x. So the features of a turned panorama are bit-identical, those of a
swapped pair too (the two people are put in canonical order first), and those of a mirrored one follow from
`mirror_features`. Ratios are logarithms and long tails are clipped, because a model has to carry over to
other places, cameras and crowds.

L, R: the left and the right person, short way round; h, w: their mean height and width; a foot: y + height.
"""

import numpy as np
import pandas

from datasets.jrdb.flags import FRAMES_PER_SECOND
from datasets.jrdb.labels import Sequence

METRES_TALL = 1.7  # assumed height of a person; turns box heights into rough depths
LAG_TOLERANCE = 7 / 15  # seconds either side of a lag in which a labelled frame may stand for it

# Name: meaning. `*_left` and `*_right` belong to one person; `signed_*` change sign in the mirrored pair.
STATIC_FEATURES = {
    "distance_widths": "centre distance / w, at most 8",
    "distance_heights": "centre distance / h, at most 8",
    "gap_heights": "(centre distance - w) / h, negative where the boxes overlap, at most 8",
    "half_turn": "centre distance / half the panorama; 1 = exactly opposite",
    "log_metres": "log(1 + distance on the ground in m), depths from box heights (law of cosines)",
    "depth_metres": "log(1 + |depth L - depth R| in m)",
    "signed_log_height": "log(height R) - log(height L)",
    "log_height_ratio": "|signed_log_height|",
    "signed_log_width": "log(width R) - log(width L)",
    "log_width_ratio": "|signed_log_width|",
    "signed_foot": "(foot R - foot L) / h",
    "foot_difference": "|signed_foot|",
    "signed_top": "(top R - top L) / h",
    "top_difference": "|signed_top|",
    "iou": "intersection over union of the boxes, across the seam",
    "overlap_x": "shared columns / narrower box",
    "overlap_y": "shared rows / shorter box",
    "log_scale": "log(h / panorama height)",
    "aspect_left": "log(width / height) of L",
    "aspect_right": "log(width / height) of R",
    "foot_left": "foot of L / panorama height",
    "foot_right": "foot of R / panorama height",
}
LAG_FEATURES = {
    "metres": "log_metres at the lag",
    "away": "growth of the signed centre distance, L to R, since, in heights of now per second, within +-2",
    "signed_foot_motion": "growth of foot R - foot L since, in heights of now per second, within +-1",
    "foot_motion": "its absolute value",
    "scale_motion": "|growth of log(height R) - log(height L)| per second, at most 1",
}
HISTORY_FEATURES = {
    "metres_mean": "mean of log_metres over now and the lags with both people",
    "metres_spread": "standard deviation of the same",
    "metres_most": "largest of the same",
    "away_spread": "mean |away| over the lags",
    "seen_share": "share of the lags with both people, never NaN",
}
# Over all labelled frames in which the two were seen together, up to now.
WHOLE_PAST_FEATURES = {
    "metres_so_far": "mean of log_metres",
    "metres_so_far_spread": "standard deviation of the same",
    "near_so_far": "mean of 1 - distance_widths / 3, at least 0",
    "near_so_far_spread": "standard deviation of the same",
}

# What everybody else in the frame says about a pair; near is judged by metres on the ground.
SURROUNDING_FEATURES = {
    "rank_left": "log(1 + people nearer to L than R is)",
    "rank_right": "log(1 + people nearer to R than L is)",
    "margin_left": "log_metres less that of L to the nearest other person",
    "margin_right": "log_metres less that of R to the nearest other person",
    "neighbours_left": "log(1 + people within 3 widths of the wider of them and L)",
    "neighbours_right": "log(1 + people within 3 widths of the wider of them and R)",
    "people": "log(1 + people in the frame)",
}


def signed_offset(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) the short way from centre a to centre b in pixels, in (-W/2, W/2]; positive to the right."""
    twice = np.mod((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]), 2 * width)
    return np.where(twice > width, twice - 2 * width, twice) / 2


def distance(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) wrapped distance of the centres in pixels: the least |difference| over shifts of -W, 0, W."""
    # Without a modulo, which takes six times as long: centres are less than 1.5 W apart.
    twice = np.abs((2 * b[:, 0] + b[:, 2]) - (2 * a[:, 0] + a[:, 2]))
    return np.minimum(twice, np.abs(2 * width - twice)) / 2


def in_range(
    a: np.ndarray, b: np.ndarray, width: float, multiplier: float = 3.0, norm: str = "max"
) -> np.ndarray:
    """(N,) bool: the centres are at most `multiplier` widths apart.

    The width is that of the wider box, the mean of both, or the first one's, which depends on the order.
    """
    widths = {"max": np.maximum(a[:, 2], b[:, 2]), "mean": (a[:, 2] + b[:, 2]) / 2, "first": a[:, 2]}[norm]
    return distance(a, b, width) <= multiplier * widths


def first_is_left(a: np.ndarray, b: np.ndarray, first_by_id: np.ndarray | bool, width: float) -> np.ndarray:
    """(N,) bool: a comes before b in the canonical order, left to right the short way round.

    Centres that coincide or stand exactly opposite each other are ordered by y, w, h (not x, which depends on
    where the panorama begins) and then by id: `first_by_id` (N,) bool says that a has the lower id.
    """
    offset = signed_offset(a, b, width)
    order = np.where(2 * offset == width, 0, np.sign(offset))
    for column in (1, 2, 3):
        order = np.where(order == 0, np.sign(b[:, column] - a[:, column]), order)
    return np.where(order == 0, first_by_id, order > 0)


def feature_names(history_seconds: int = 5, whole_past: bool = False) -> list[str]:
    """Names of the columns, in order. Those about the past are NaN where the two were not seen together."""
    lags = [f"{name}_{k}s" for k in range(1, history_seconds + 1) for name in LAG_FEATURES]
    past = [*(HISTORY_FEATURES if history_seconds else ()), *(WHOLE_PAST_FEATURES if whole_past else ())]
    return [*STATIC_FEATURES, *SURROUNDING_FEATURES, *lags, *past]


def history_frames(times: np.ndarray, seconds: int, frame_rate: float = FRAMES_PER_SECOND) -> np.ndarray:
    """(F, seconds) index of the labelled frame 1, 2, .. s before each frame, or -1.

    It is the latest within LAG_TOLERANCE. times (F,): ascending frame numbers of all labelled frames of one
    sequence, also those that --frame_stride leaves out.
    """
    lag, tolerance = times[:, None] - frame_rate * np.arange(1, seconds + 1), frame_rate * LAG_TOLERANCE
    index = np.searchsorted(times, lag + tolerance, side="right") - 1
    return np.where((index >= 0) & (times[np.maximum(index, 0)] >= lag - tolerance), index, -1)


def history_rows(frames: np.ndarray, tracks: np.ndarray, past: np.ndarray) -> np.ndarray:
    """(R, seconds) row of the same person at each lag, or -1.

    frames, tracks (R,) ascend together; past (F, seconds).
    """
    people = int(tracks.max(initial=0)) + 1
    keys = frames * people + tracks  # ascending: rows are sorted by frame, then id
    earlier = past[frames]
    wanted = earlier * people + tracks[:, None]
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((earlier >= 0) & (keys[index] == wanted), index, -1)


def log_ground_metres(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """(N,) log(1 + metres) between two people on the ground, both taken as METRES_TALL.

    On a cylindrical panorama the focal length is W / 2 pi pixels, a depth is focal * METRES_TALL / box
    height, and the angle between two people is 2 pi * distance / W.
    """
    focal = width / (2 * np.pi)
    depth_a, depth_b = focal * METRES_TALL / a[:, 3], focal * METRES_TALL / b[:, 3]
    cosine = np.cos(distance(a, b, width) / focal)
    squared = depth_a**2 + depth_b**2 - 2 * depth_a * depth_b * cosine
    return np.log1p(np.sqrt(np.maximum(squared, 0)))


def pair_features(
    sequence: Sequence, left: np.ndarray, right: np.ndarray, history_seconds: int = 5,
    every_pair: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:  # fmt: skip
    """(N, G) float32 features, columns as in `feature_names`, of pairs left, right (N,) in canonical order.

    left, right are rows of the people of one sequence; every_pair: all pairs of all its frames, sorted, lower
    row first, where the features of the whole past are wanted.
    """
    boxes, times, frames = sequence.boxes, sequence.times, sequence.frame_of_row()
    columns = static_columns(boxes[left], boxes[right], (sequence.width, sequence.height))
    columns |= surrounding_columns(sequence, left, right)
    if history_seconds:
        past = history_frames(times, history_seconds, sequence.frame_rate)
        rows = history_rows(frames, sequence.tracks, past)
        seconds = (times[:, None] - times[np.maximum(past, 0)]) / sequence.frame_rate
        columns |= history_columns(boxes, left, right, rows, seconds[frames[left]], sequence.width)
    if every_pair:
        columns |= whole_past_columns(sequence, left, right, *every_pair)
    names = feature_names(history_seconds, whole_past=every_pair is not None)
    return np.stack([columns[name] for name in names], 1).astype(np.float32)


def static_columns(a: np.ndarray, b: np.ndarray, size: tuple[int, int]) -> dict:
    """The STATIC_FEATURES of pairs with boxes a (left) and b (right), (N, 4) each. (N,) float64 by name."""
    pano_width, pano_height = size
    apart = distance(a, b, pano_width)
    (_, ya, wa, ha), (_, yb, wb, hb) = a.T, b.T
    mean_height, mean_width = (ha + hb) / 2, (wa + wb) / 2
    feet_a, feet_b = ya + ha, yb + hb
    log_ha, log_hb, log_wa, log_wb = np.log(ha), np.log(hb), np.log(wa), np.log(wb)
    shared_x = np.clip(mean_width - apart, 0, np.minimum(wa, wb))
    shared_y = np.clip(np.minimum(feet_a, feet_b) - np.maximum(ya, yb), 0, None)
    shared = shared_x * shared_y
    metres_tall = pano_width / (2 * np.pi) * METRES_TALL
    return {
        "distance_widths": np.minimum(apart / mean_width, 8),
        "distance_heights": np.minimum(apart / mean_height, 8),
        "gap_heights": np.minimum((apart - mean_width) / mean_height, 8),
        "half_turn": apart / (pano_width / 2),
        "log_metres": log_ground_metres(a, b, pano_width),
        "depth_metres": np.log1p(np.abs(metres_tall / ha - metres_tall / hb)),
        "signed_log_height": log_hb - log_ha,
        "log_height_ratio": np.abs(log_hb - log_ha),
        "signed_log_width": log_wb - log_wa,
        "log_width_ratio": np.abs(log_wb - log_wa),
        "signed_foot": (feet_b - feet_a) / mean_height,
        "foot_difference": np.abs(feet_b - feet_a) / mean_height,
        "signed_top": (yb - ya) / mean_height,
        "top_difference": np.abs(yb - ya) / mean_height,
        "iou": shared / (wa * ha + wb * hb - shared),
        "overlap_x": shared_x / np.minimum(wa, wb),
        "overlap_y": shared_y / np.minimum(ha, hb),
        "log_scale": np.log(mean_height / pano_height),
        "aspect_left": log_wa - log_ha,
        "aspect_right": log_wb - log_hb,
        "foot_left": feet_a / pano_height,
        "foot_right": feet_b / pano_height,
    }


def surrounding_columns(sequence: Sequence, left: np.ndarray, right: np.ndarray) -> dict:
    """The SURROUNDING_FEATURES of pairs, frame by frame over everybody in it. (N,) float64 by name."""
    frames = sequence.frame_of_row()[left]
    order = np.argsort(frames, kind="stable")
    found = {name: np.zeros(len(left)) for name in SURROUNDING_FEATURES}
    for mine in np.split(order, np.flatnonzero(np.diff(frames[order])) + 1) if len(left) else ():
        first, last = sequence.starts[frames[mine[0]] : frames[mine[0]] + 2]
        people = last - first
        a = np.repeat(sequence.boxes[first:last], people, axis=0)  # (n * n, 4): everybody with everybody
        b = np.tile(sequence.boxes[first:last], (people, 1))
        metres = log_ground_metres(a, b, sequence.width).reshape(people, people)
        near = in_range(a, b, sequence.width).reshape(people, people).sum(axis=1) - 1  # not oneself
        np.fill_diagonal(metres, np.inf)
        one, other = left[mine] - first, right[mine] - first
        apart = metres[one, other]
        for side, person in (("left", one), ("right", other)):
            found[f"rank_{side}"][mine] = np.log1p((metres[person] < apart[:, None]).sum(axis=1))
            found[f"margin_{side}"][mine] = apart - metres[person].min(axis=1)
            found[f"neighbours_{side}"][mine] = np.log1p(near[person])
        found["people"][mine] = np.log1p(people)
    return found


def history_columns(
    boxes: np.ndarray, left: np.ndarray, right: np.ndarray, rows: np.ndarray, seconds: np.ndarray, width: int
) -> dict:
    """The features of the past, NaN where the two were not both seen. rows (R, K), seconds (N, K)."""
    a, b = boxes[left], boxes[right]
    mean_height = (a[:, 3] + b[:, 3]) / 2
    offset = signed_offset(a, b, width)
    metres = [log_ground_metres(a, b, width)]
    aways, columns = [], {}
    for lag in range(rows.shape[1]):
        row_a, row_b = rows[left, lag], rows[right, lag]
        seen = (row_a >= 0) & (row_b >= 0)
        past_a, past_b, elapsed = boxes[row_a], boxes[row_b], seconds[:, lag]
        moved = np.mod(2 * (offset - signed_offset(past_a, past_b, width)), 2 * width) / 2
        moved = np.where(2 * moved > width, moved - width, moved)
        foot = (b[:, 1] + b[:, 3] - a[:, 1] - a[:, 3]) - (
            past_b[:, 1] + past_b[:, 3] - past_a[:, 1] - past_a[:, 3]
        )
        scale = (np.log(b[:, 3]) - np.log(a[:, 3])) - (np.log(past_b[:, 3]) - np.log(past_a[:, 3]))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {
                "metres": log_ground_metres(past_a, past_b, width),
                "away": np.clip(moved / mean_height / elapsed, -2, 2),
                "signed_foot_motion": np.clip(foot / mean_height / elapsed, -1, 1),
                "foot_motion": np.minimum(np.abs(foot) / mean_height / elapsed, 1),
                "scale_motion": np.minimum(np.abs(scale) / elapsed, 1),
            }
        found = {name: np.where(seen, values, np.nan) for name, values in found.items()}
        columns |= {f"{name}_{lag + 1}s": values for name, values in found.items()}
        metres.append(found["metres"])
        aways.append(np.abs(found["away"]))
    any_seen = ~np.isnan(aways).all(0)
    count = (~np.isnan(metres)).sum(0)
    mean = np.nansum(metres, 0) / count
    found = {
        "metres_mean": mean,
        "metres_spread": np.sqrt(np.nansum((np.array(metres) - mean) ** 2, 0) / count),
        "metres_most": np.nanmax(metres, 0),
        "away_spread": np.nansum(aways, 0) / np.maximum(count - 1, 1),
    }
    columns |= {name: np.where(any_seen, values, np.nan) for name, values in found.items()}
    return columns | {"seen_share": (count - 1) / rows.shape[1]}


def whole_past_columns(
    sequence: Sequence, left: np.ndarray, right: np.ndarray, first: np.ndarray, second: np.ndarray
) -> dict:
    """The WHOLE_PAST_FEATURES, NaN where the two were never both seen before; first, second: every pair."""
    a, b = sequence.boxes[first], sequence.boxes[second]
    now = pandas.DataFrame({
        "metres_so_far": log_ground_metres(a, b, sequence.width),
        "near_so_far": np.maximum(0, 1 - distance(a, b, sequence.width) / (a[:, 2] + b[:, 2]) * 2 / 3),
    })  # fmt: skip
    people, tracks = len(sequence.boxes), sequence.tracks.astype(np.int64)
    two = tracks[first] * people + tracks[second]  # rows of a frame ascend by track
    count = now.groupby(two).cumcount() + 1  # every pair is in order of time
    mean = now.groupby(two).cumsum().div(count, axis=0)
    square = (now**2).groupby(two).cumsum().div(count, axis=0)
    spread = np.sqrt((square - mean**2).clip(lower=0)).add_suffix("_spread")
    found = mean.join(spread).where(count > 1)
    rows = np.minimum(left, right) * people + np.maximum(left, right)
    return found.iloc[np.searchsorted(first * people + second, rows)].to_dict("series")


def mirror_features(features: np.ndarray, names: list[str]) -> np.ndarray:
    """The features the mirrored panorama would have: (N, G) -> (N, G) float32, exactly.

    Mirroring swaps left and right, so `*_left` and `*_right` change places and `signed_*` change sign. The
    few pairs whose order is not set by x (centres coincide or are exactly opposite) keep it; for them only
    the motion changes sides.
    """
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
    """(N,) bool: left and right change places in the mirrored panorama, unless y, size or id order them."""
    half_turn = features[:, names.index("half_turn")]
    return (half_turn != 0) & (half_turn != 1)
