"""Geometry on the circle, features, groups and sampling, against brute force."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from datasets.jrdb import pairs
from datasets.jrdb.balance import balance_classes, class_weights
from datasets.jrdb.dataset import neighbouring_order, smallest_per_bin
from datasets.jrdb.geometry import (
    distance,
    feature_names,
    first_is_left,
    history_frames,
    in_range,
    log_ground_metres,
    mirror_features,
    pair_features,
    signed_offset,
    swaps_when_mirrored,
)
from datasets.jrdb.labels import Sequence

WIDTH, HEIGHT = 3760, 480
LABELS = np.array([0] * 100 + [1] * 20 + [3] * 70)


def random_boxes(rng: np.random.Generator, count: int, whole: bool = True) -> np.ndarray:
    """(count, 4) boxes as in JRDB: x from 0 to W - 1, x + w up to W + 931."""
    x = rng.uniform(0, WIDTH, count)
    boxes = np.stack(
        [x, rng.uniform(0, 400, count), rng.uniform(1, 932, count), rng.uniform(20, 480, count)], 1
    )
    return np.floor(boxes) if whole else boxes


def random_people(rng: np.random.Generator, frames: int = 30, people: int = 14) -> Sequence:
    """One sequence of people who come and go, without annotations."""
    times = np.sort(rng.choice(np.arange(0, 300), frames, replace=False))
    tracks = [np.sort(rng.choice(people, rng.integers(2, people), replace=False)) for _ in times]
    starts = np.r_[0, np.cumsum([len(t) for t in tracks])]
    tracks = np.concatenate(tracks)
    return people_of(random_boxes(rng, len(tracks)), starts, times, tracks)


def people_of(boxes, starts, times, tracks) -> Sequence:
    """A sequence of people without ids, groups, annotations or images."""
    keys, nobody = [f"{t:06d}.jpg" for t in times], np.full(len(boxes), -1)
    return Sequence(
        "hall", WIDTH, HEIGHT, "", keys, times, starts, boxes, tracks, [], nobody, nobody > 0,
        np.empty((0, 2), int), np.empty(0, int), np.zeros(len(times), bool),
    )  # fmt: skip


def features_of(people: Sequence):
    """Features of all pairs in canonical order, with (N,) bool whether the lower row is left."""
    boxes = people.boxes
    first, second = pairs.all_pairs(people.starts)
    is_left = first_is_left(boxes[first], boxes[second], WIDTH)
    left, right = np.where(is_left, first, second), np.where(is_left, second, first)
    return pair_features(people, left, right, 5, (first, second)), is_left


@pytest.mark.parametrize("whole", [True, False])
def test_distance_equals_brute_force_over_shifts(whole):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 120_000, whole), random_boxes(rng, 120_000, whole)
    assert (a[:, 0] + a[:, 2] > WIDTH).mean() > 0.05
    # A centre may lie up to W + w / 2, so two may differ by more than W: +-2W keeps the brute force right.
    shifts = np.array([-2, -1, 0, 1, 2])[:, None] * WIDTH
    centres = (b[:, 0] + b[:, 2] / 2) - (a[:, 0] + a[:, 2] / 2)
    nearest = np.abs(centres + shifts).min(0)
    assert np.abs(distance(a, b, WIDTH) - nearest).max() <= 1e-6
    assert np.abs(np.abs(signed_offset(a, b, WIDTH)) - nearest).max() <= 1e-6


@pytest.mark.parametrize("norm", ["max", "mean"])
def test_range_does_not_depend_on_order(norm):
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 20_000), random_boxes(rng, 20_000)
    near = in_range(a, b, WIDTH, 3, norm)
    assert np.array_equal(near, in_range(b, a, WIDTH, 3, norm))
    assert 0 < near.mean() < 1
    assert not np.array_equal(in_range(a, b, WIDTH, 3, "first"), in_range(b, a, WIDTH, 3, "first"))
    widths = {"max": 60, "mean": 50, "first": 40}[norm], np.array([[0, 0, 40, 9.0]])
    for apart in (3 * widths[0], 3 * widths[0] + 0.5):  # of the centres, 20 and 30 from the left edge
        other = np.array([[apart - 10, 0, 60, 9.0]])
        assert in_range(widths[1], other, WIDTH, 3, norm) == (apart == 3 * widths[0])


def test_counts_of_a_sequence():
    """Centres at 20, 170 and 1000: the first two are 3 widths apart for the wider one only. The last is in
    the group of the first, but far away."""
    boxes = np.array([[0, 0, 40, 9.0], [140, 0, 60, 9], [980, 0, 40, 9]])
    people = people_of(boxes, np.array([0, 3]), np.array([15]), np.arange(3))
    people = replace(people, track_names=["a", "b", "c"], social_groups=np.array([1, 2, 1]))
    for norm, dependent in (("max", 0), ("first", 1)):
        counts = pairs.find_pairs(people, pairs.PairRules(distance_norm=norm, history_seconds=0)).counts
        assert counts["pairs_total"] == 3 and counts["pairs_in_range"] == 1 - dependent
        assert counts["order_dependent_decisions"] == dependent and counts["ambiguous_pairs"] == 0


def test_rolling_the_panorama_changes_no_bit():
    people = random_people(np.random.default_rng(2))
    features, is_left = features_of(people)
    assert np.isnan(features).any()
    assert not np.isnan(features).all(0).any()
    for shift in (1, 777, 1880, 3759):
        rolled = people.boxes.copy()
        rolled[:, 0] = (rolled[:, 0] + shift) % WIDTH
        again, again_left = features_of(replace(people, boxes=rolled))
        assert np.array_equal(features, again, equal_nan=True)
        assert np.array_equal(is_left, again_left)


def test_swapping_two_people_keeps_the_canonical_order():
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 5000), random_boxes(rng, 5000)
    b[:500] = a[:500]  # ties of everything but id
    b[500:1000, [0, 2]] = a[500:1000, [0, 2]]  # same centre, other height
    b[1000:1500, 2] = a[1000:1500, 2]
    b[1000:1500, 0] = (a[1000:1500, 0] + WIDTH / 2) % WIDTH  # exactly opposite
    order, swapped = first_is_left(a, b, WIDTH), first_is_left(b, a, WIDTH)
    assert np.array_equal(order[500:], ~swapped[500:])
    assert order[:500].all() and swapped[:500].all(), "the first has the lower id"


def test_mirrored_features_are_those_of_the_mirrored_panorama():
    rng = np.random.default_rng(4)
    people = random_people(rng)
    boxes, starts = people.boxes, people.starts
    boxes[starts[3] + 1, [0, 2]] = boxes[starts[3], [0, 2]]  # coinciding centres: y and h decide
    boxes[starts[9] + 1] = boxes[starts[9]] + [WIDTH // 2, 0, 0, 0]  # exactly opposite
    boxes[:, 0] %= WIDTH
    features, _ = features_of(people)
    names = feature_names(whole_past=True)
    mirrored_boxes = boxes.copy()
    mirrored_boxes[:, 0] = np.mod(WIDTH - boxes[:, 0] - boxes[:, 2], WIDTH)
    expected, _ = features_of(replace(people, boxes=mirrored_boxes))
    assert (~swaps_when_mirrored(features, names)).sum() >= 2
    assert np.array_equal(mirror_features(features, names), expected, equal_nan=True)
    assert np.array_equal(mirror_features(expected, names), features, equal_nan=True)


def test_features_have_documented_values():
    boxes = np.array([[3700, 100, 100, 200], [190, 150, 60, 150.0], [10, 100, 100, 200], [190, 150, 60, 150]])
    starts, times, tracks = np.array([0, 2, 4]), np.array([0, 15]), np.array([0, 1, 0, 1])
    names = feature_names(1)
    pair = pair_features(people_of(boxes, starts, times, tracks), np.array([0, 2]), np.array([1, 3]), 1)
    early, late = (dict(zip(names, row.tolist(), strict=True)) for row in pair)
    # Centres 3750 and 220 are 230 apart through the seam; the mean width is 80, the mean height 175.
    assert early["distance_widths"] == pytest.approx(230 / 80)
    assert early["distance_heights"] == pytest.approx(230 / 175)
    assert early["gap_heights"] == pytest.approx(150 / 175)
    assert early["signed_log_height"] == pytest.approx(np.log(150 / 200))
    assert early["foot_difference"] == early["iou"] == early["seen_share"] == 0
    assert np.isnan(early["away_1s"])
    # A second later the left person has moved 70 pixels to the right, 70 / 175 heights nearer.
    assert late["away_1s"] == pytest.approx(-70 / 175)
    assert late["seen_share"] == 1
    assert late["metres_1s"] == pytest.approx(early["log_metres"])


def test_static_features_by_hand():
    """The right person's box lies within the left one's columns; the left one spans rows 100 to 300."""
    boxes = np.array(
        [[100, 100, 200, 200], [150, 150, 60, 150.0]]
    )  # centres 200 and 180 before they are ordered
    people = people_of(boxes, np.array([0, 2]), np.array([15]), np.array([0, 1]))
    row = pair_features(people, np.array([1]), np.array([0]), 0)[0]
    found = dict(zip(feature_names(0), row.tolist(), strict=True))
    near, far = 1.7 * WIDTH / (2 * np.pi) / np.array([200, 150])  # metres
    apart = np.sqrt(near**2 + far**2 - 2 * near * far * np.cos(20 / WIDTH * 2 * np.pi))
    tall, wide, foot, top = np.log(200 / 150), np.log(200 / 60), 0.0, -50 / 175
    assert found == pytest.approx({
        "distance_widths": 20 / 130, "distance_heights": 20 / 175, "gap_heights": (20 - 130) / 175,
        "half_turn": 20 / 1880, "log_metres": np.log1p(apart), "depth_metres": np.log1p(far - near),
        "signed_log_height": tall, "log_height_ratio": tall, "signed_log_width": wide,
        "log_width_ratio": wide, "signed_foot": foot, "foot_difference": foot, "signed_top": top,
        "top_difference": -top,
        "iou": 60 * 150 / (200 * 200), "overlap_x": 1, "overlap_y": 1, "log_scale": np.log(175 / 480),
        "aspect_left": np.log(60 / 150), "aspect_right": 0, "foot_left": 300 / 480, "foot_right": 300 / 480,
        **dict.fromkeys(("rank_left", "rank_right", "margin_left", "margin_right"), 0),
        "neighbours_left": np.log(2), "neighbours_right": np.log(2), "people": np.log(3),
    }, rel=1e-6, abs=1e-6)  # fmt: skip


def test_the_history_is_that_of_both_people_at_each_lag():
    people = random_people(np.random.default_rng(11), frames=90, people=6)
    people.frame_rate = 10.0
    first, second = pairs.all_pairs(people.starts)
    features, names = pair_features(people, first, second, 3), feature_names(3)
    boxes, feet = people.boxes, people.boxes[:, 1] + people.boxes[:, 3]
    frames, past = people.frame_of_row(), history_frames(people.times, 3, 10.0)
    row_of = {key: row for row, key in enumerate(zip(frames.tolist(), people.tracks.tolist(), strict=True))}
    seen_all = 0
    for k, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        height, expected = boxes[[a, b], 3].mean(), dict.fromkeys(names[-20:], np.nan)
        metres, aways = [log_ground_metres(boxes[[a]], boxes[[b]], WIDTH)[0]], []
        for lag in (1, 2, 3):
            then = past[frames[a], lag - 1]
            c, d = (row_of.get((then, people.tracks[row])) for row in (a, b))
            if c is None or d is None:
                continue
            seconds = (people.times[frames[a]] - people.times[then]) / 10
            turn = signed_offset(boxes[[a]], boxes[[b]], WIDTH) - signed_offset(boxes[[c]], boxes[[d]], WIDTH)
            turn = (turn[0] + WIDTH / 2) % WIDTH - WIDTH / 2  # the short way
            foot = ((feet[b] - feet[a]) - (feet[d] - feet[c])) / height / seconds
            scale = np.log(boxes[b, 3] / boxes[a, 3] / (boxes[d, 3] / boxes[c, 3])) / seconds
            metres.append(log_ground_metres(boxes[[c]], boxes[[d]], WIDTH)[0])
            aways.append(abs(np.clip(turn / height / seconds, -2, 2)))
            expected |= {
                f"metres_{lag}s": metres[-1], f"away_{lag}s": np.clip(turn / height / seconds, -2, 2),
                f"signed_foot_motion_{lag}s": np.clip(foot, -1, 1),
                f"foot_motion_{lag}s": min(abs(foot), 1), f"scale_motion_{lag}s": min(abs(scale), 1),
            }  # fmt: skip
        expected["seen_share"] = len(aways) / 3
        if aways:
            expected |= {"metres_mean": np.mean(metres), "metres_spread": np.std(metres)}
            expected |= {"metres_most": max(metres), "away_spread": np.mean(aways)}
        seen_all += len(aways) == 3
        found = dict(zip(names[-20:], features[k, -20:].tolist(), strict=True))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)
    assert 5 < seen_all < len(first) / 2


def test_surroundings_are_those_of_everybody_in_the_frame():
    people = random_people(np.random.default_rng(8), frames=6, people=9)
    first, second = pairs.all_pairs(people.starts)
    names, frames = feature_names(0), people.frame_of_row()
    features = pair_features(people, first, second, 0)

    def metres(a, b):
        return log_ground_metres(people.boxes[[a]], people.boxes[[b]], WIDTH)[0]

    for row, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        there = np.flatnonzero(frames == frames[a]).tolist()
        found = {"people": np.log1p(len(there))}
        for side, one, other in (("left", a, b), ("right", b, a)):
            apart = {k: metres(one, k) for k in there if k != one}
            near = [in_range(people.boxes[[one]], people.boxes[[k]], WIDTH)[0] for k in apart]
            found[f"rank_{side}"] = np.log1p(sum(apart[k] < apart[other] for k in apart))
            found[f"margin_{side}"] = apart[other] - min(apart.values())
            found[f"neighbours_{side}"] = np.log1p(sum(near))
        for name, value in found.items():
            assert features[row, names.index(name)] == np.float32(value), name


def test_the_whole_past_is_that_of_the_two_people_up_to_now():
    people = random_people(np.random.default_rng(9), frames=12, people=6)
    first, second = pairs.all_pairs(people.starts)
    features, names = pair_features(people, first, second, 0, (first, second)), feature_names(0, True)
    column = {name: features[:, names.index(name)].astype(float) for name in names}
    met, lone = {}, 0  # what there was of two people so far, by their ids
    for row, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        now = {"metres": column["log_metres"][row], "near": max(0, 1 - column["distance_widths"][row] / 3)}
        so_far = met.setdefault((people.tracks[a], people.tracks[b]), [])
        so_far.append(now)
        lone += len(so_far) == 1
        for name in now:
            values = [then[name] for then in so_far]
            mean, spread = (column[f"{name}_so_far{end}"][row] for end in ("", "_spread"))
            if len(values) == 1:
                assert np.isnan(mean)
                assert np.isnan(spread)
            else:
                assert mean == pytest.approx(np.mean(values), abs=1e-5)
                assert spread == pytest.approx(np.std(values), abs=1e-3)
    assert 5 < lone < len(first) / 2


def test_what_comes_later_changes_nothing():
    people = random_people(np.random.default_rng(10), frames=12, people=6)
    rows = people.starts[7]
    early = people_of(people.boxes[:rows], people.starts[:8], people.times[:7], people.tracks[:rows])
    (features, _), (expected, _) = features_of(early), features_of(people)
    assert np.array_equal(features, expected[: len(features)], equal_nan=True)


def test_history_takes_the_latest_labelled_frame_near_each_lag():
    times = np.array([0, 3, 10, 15, 22, 30, 38, 60])
    rows = history_frames(times, 2)
    assert np.array_equal(rows, history_frames(2 * times, 2, frame_rate=30))
    for now, time in enumerate(times):
        for lag in (1, 2):
            near = [i for i, t in enumerate(times) if abs(t - (time - 15 * lag)) <= 7]
            assert rows[now, lag - 1] == (near[-1] if near else -1)
    assert (times[np.maximum(rows, 0)] < times[:, None])[rows >= 0].all()  # the past only


def test_all_pairs():
    starts = np.array([0, 3, 3, 4, 8])
    first, second = pairs.all_pairs(starts)
    frames = [range(0, 3), range(3, 3), range(3, 4), range(4, 8)]
    expected = [(i, j) for rows in frames for i in rows for j in rows if i < j]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


def test_neighbouring_pairs_share_people():
    """Frames of 12 people in a ring: wherever a frame is cut, few people are on both sides."""
    rng = np.random.default_rng(3)
    first, second, frame = [], [], []
    for f in range(20):
        people = 12 * f + rng.permutation(12)
        first += people.tolist()
        second += np.roll(people, 1).tolist()
        frame += [f] * 12
    (first, second), frame = np.sort([first, second], axis=0), np.array(frame)
    order = neighbouring_order(frame, first, second)
    assert np.array_equal(np.sort(order), np.arange(240))
    assert np.array_equal(frame[order], frame)
    for begin in range(0, 240, 12):
        for cut in range(1, 12):
            sides = order[begin : begin + cut], order[begin + cut : begin + 12]
            shared = set.intersection(*({*first[side], *second[side]} for side in sides))
            assert len(shared) == 2, "a ring cut in two shares its two ends"
    nothing = np.empty(0, np.int64)
    assert len(neighbouring_order(nothing, nothing, nothing)) == 0


def test_samples_fill_quotas_and_take_annotated_pairs_first():
    rng = np.random.default_rng(5)
    group, inferred = rng.integers(0, 40, 900), rng.random(900) < 0.5
    draws, sizes = rng.integers(0, 2**63, 900).astype(np.uint64), rng.integers(2, 9, 40)
    everybody = np.ones(900, bool)
    quotas = np.maximum(1, np.rint(sizes * 0.5))
    chosen = smallest_per_bin(everybody, group, quotas, inferred, draws)
    for g in range(40):
        mine = group == g
        quota = max(1, round(sizes[g] * 0.5))
        assert chosen[mine].sum() == min(quota, mine.sum())
        assert (chosen & mine & ~inferred).sum() == min(quota, (mine & ~inferred).sum())
    few = smallest_per_bin(group % 2 == 0, group, quotas, draws)
    assert not few[group % 2 == 1].any() and few[group == 2].sum() == max(1, round(sizes[2] * 0.5))


def test_lots_depend_on_names_only():
    ids = np.array([pairs.text_key(f"pedestrian:{i}") for i in range(50)], np.uint64)
    frames = np.arange(49)
    lots = pairs.draw_lots(1, "cafe", frames, ids[:-1], ids[1:])
    assert np.array_equal(lots, pairs.draw_lots(1, "cafe", frames, ids[1:], ids[:-1]))
    assert np.array_equal(lots[::-1], pairs.draw_lots(1, "cafe", frames[::-1], ids[:-1][::-1], ids[1:][::-1]))
    assert not np.isin(lots, pairs.draw_lots(2, "cafe", frames, ids[:-1], ids[1:])).any()
    assert not np.isin(lots, pairs.draw_lots(1, "aula", frames, ids[:-1], ids[1:])).any()


def test_oversampling_lifts_every_class_to_half_the_largest():
    chosen = balance_classes(LABELS, "oversample", seed=1)
    assert np.bincount(LABELS[chosen]).tolist() == [100, 50, 0, 70]
    assert set(chosen) == set(range(len(LABELS)))  # nothing is lost
    assert np.array_equal(chosen, balance_classes(LABELS, "oversample", seed=1))
    assert not np.array_equal(chosen, balance_classes(LABELS, "oversample", seed=2))


def test_undersampling_keeps_at_most_twice_the_smallest():
    chosen = balance_classes(LABELS, "undersample", seed=1)
    assert np.bincount(LABELS[chosen]).tolist() == [40, 20, 0, 40]
    assert len(np.unique(chosen)) == len(chosen)


def test_weights_are_scikit_learns_balanced_ones_and_average_to_one():
    weights = class_weights(LABELS, 5)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    assert weights[[0, 1, 3]] == pytest.approx(expected) and weights[[2, 4]].tolist() == [0, 0]
    assert weights[LABELS].mean() == pytest.approx(1)
