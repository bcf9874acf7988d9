"""Pasting: one thing in image and scan alike, known truth, held-out shapes, and a training set made of it."""

import shutil

import numpy as np
import pytest

from datasets.anovox.dataset import AnoVoxDataset, project
from datasets.anovox.files import find_scenarios
from datasets.anovox.frame import Region
from datasets.anovox.labels import build_table
from datasets.anovox.pasted import SENSORS, SHAPES, Pasting, draw_paste
from datasets.anovox.pastes import paste_image, paste_scan
from datasets.anovox.poses import projection_matrix
from tests.anovox_world import copy_of, frame_files, load, scenario_folders, tiny_sample
from utils.run.errors import DataError

POSE = {"location": [0, 0, 1.8], "rotation": [0, 0, 0]}
SIZE = (360, 240)
PROJECTION = projection_matrix(*SIZE, 90, POSE, POSE)


@pytest.fixture
def cache(tmp_path):
    return {"cache_dir": tmp_path / "cache"}


def road_scan(rings: int = 40) -> np.ndarray:
    """Returns from a flat road 1.8 m below."""
    elevation = np.radians(np.linspace(-2, -25, rings))[:, None]
    azimuth = np.radians(np.linspace(-60, 60, 400))[None]
    distance = 1.8 / np.tan(-elevation)
    x, y = distance * np.cos(azimuth), distance * np.sin(azimuth)
    points = np.stack(np.broadcast_arrays(x, y, -1.8, 0.9), axis=-1).reshape(-1, 4)
    return points[np.linalg.norm(points[:, :3], axis=1) < 60].astype(np.float32)


@pytest.mark.parametrize("part", SHAPES)
def test_image_and_scan_show_one_thing_in_one_place(part):
    scan, image = road_scan(), np.full((240, 360, 3), 120, np.uint8)
    donor = np.random.default_rng(0).integers(0, 255, (240, 360, 3), dtype=np.uint8)
    inside = []
    for k in range(12):
        paste = draw_paste(scan, PROJECTION, SIZE, [1, k], Pasting(part, sensors="both"))
        pasted, cover = paste_image(image, paste, PROJECTION, [1, k], donor)
        moved, hit = paste_scan(scan, paste, [1, k])
        assert cover.max() == 1 and (pasted != image).any() and (moved[~hit] == scan[~hit]).all()
        pixels = project(moved[hit], PROJECTION)
        rows, columns = ((pixels[:, ::-1] + 1) / 2 * (240, 360)).astype(int).T
        inside += cover[np.clip(rows, 0, 239), np.clip(columns, 0, 359)].tolist()
        lower = np.linalg.norm(moved[hit, :3], axis=1) < np.linalg.norm(scan[hit, :3], axis=1) + 0.5
        assert lower.all()  # a ray is cut short, up to its noise
        assert (
            abs(paste.centre[2] + 1.8) < 0.05 and moved[hit, 2].min(initial=0) > -2.1
        )  # it stands on the road
        assert np.abs(np.hypot(*moved[hit, :2].T) - paste.distance).max(initial=0) < 2.5
    assert len(inside) > 40 and np.mean(np.array(inside) > 0) > 0.9


def test_of_one_sensor_the_other_sees_nothing():
    scan, image = road_scan(), np.full((240, 360, 3), 120, np.uint8)
    camera, lidar = (
        draw_paste(scan, PROJECTION, SIZE, [2, 0], Pasting("train", sensors=sensors))
        for sensors in ("camera", "lidar")
    )
    assert camera.centre == lidar.centre
    assert not paste_scan(scan, camera, [2, 0])[1].any()
    pasted, cover = paste_image(image, lidar, PROJECTION, [2, 0], image)
    assert (pasted == image).all() and cover.any()  # where it would be


def test_shapes_and_textures_are_held_out_and_all_sensors_occur():
    scan = road_scan()
    kinds = {}
    for part in SHAPES:
        pastes = [draw_paste(scan, PROJECTION, SIZE, [3, k], Pasting(part)) for k in range(40)]
        kinds[part] = {tuple(solid.kind for solid in paste.solids) for paste in pastes}
        assert {paste.sensors for paste in pastes} == set(SENSORS)
        hues = {int(6 * paste.hue) for paste in pastes}
        assert hues == ({0, 2, 4} if part == "train" else set(range(6)))  # test has some of its own
    assert not kinds["train"] & kinds["test"] and not kinds["train"] & kinds["val"]


def test_what_the_model_could_not_see_is_drawn_again():
    """Below a wide image, between the rings of a LiDAR, beside the region that the model reads."""
    low, wide = projection_matrix(310, 94, 60, POSE, POSE), projection_matrix(*SIZE, 120, POSE, POSE)
    scan, blank = road_scan(10), np.zeros((94, 310, 3), np.uint8)
    for k in range(60):
        camera = draw_paste(None, low, (310, 94), [1, k], Pasting("train", modality="camera"))
        assert paste_image(blank, camera, low, [1, k], blank)[1].max() > 0.5
        lidar = draw_paste(scan, wide, SIZE, [1, k], Pasting("train", modality="lidar"))
        moved, hit = paste_scan(scan, lidar, [1, k])
        assert Region().contains(moved[hit]).sum() >= 4
        judged = draw_paste(scan, PROJECTION, SIZE, [1, k], Pasting("test", sensors="lidar"))
        assert paste_scan(scan, judged, [1, k])[1].any()


def test_a_frame_in_which_nothing_can_be_seen_is_not_called_anomalous(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data")
    for scenario in scenario_folders(root):
        np.save(frame_files(scenario, "LIDAR")[0], np.zeros((0, 4)))
    with pytest.raises(DataError, match=r"LIDAR.*none of 20 objects .* can be seen.*\n.*--paste_share 0"):
        load(root, modality="lidar", paste_share=1.0, **cache)
    assert load(root, modality="both", paste_share=1.0, **cache).train.pasted


def test_a_normal_drive_becomes_a_training_set(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data")
    normal = [s for s in scenario_folders(root) if not (s / "ANOMALY").exists()]
    for scenario in scenario_folders(root):
        if scenario != normal[0]:
            shutil.rmtree(scenario)
    (root / "split.json").unlink()
    options = {"label": "pasted", "pastes": 3, "image_size": (64, 96), "max_points": 200}
    data = load(root, **options, **cache)
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 12, "val": 6, "test": 6}
    assert data.describe()["labels"] == "pasted" and "blocks of consecutive frames" in data.split_source
    train, groups = data.train, [part.group_names() for part in data.parts.values()]
    assert len(set(sum(groups, []))) == sum(map(len, groups)) == 4, "blocks share no group"
    assert train.labels.tolist() == [0, 1] * 6 and train.pasted == 6
    batch = train.__getitems__(list(range(12)))
    clean, pasted = batch["images"][0::2].float(), batch["images"][1::2].float()
    assert (clean[0] == clean[1]).all() and (clean != pasted).flatten(1).any(1).float().mean() > 0.6
    assert (batch["cells"][0::2] == 0).all() and (batch["cells"][1::2].sum((1, 2)) > 0).all()
    truth = train.true_pixels(1)
    assert truth.shape == (64, 96) and set(np.unique(truth)) <= {0, 1} and (train.true_pixels(0) == 0).all()
    again = load(root, **options, **cache | {"cache_dir": tmp_path / "other"})
    assert (again.train.images[:] == train.images[:]).all()
    other = load(root, **options, seed=7, **cache).train  # other things, in image, scan and truth alike
    fresh = load(root, **options, seed=7, **cache | {"cache_dir": tmp_path / "other"}).train
    for name in ("images", "packed_points", "cell_shares"):
        kept, anew = (np.asarray(getattr(part, name)[:], float) for part in (other, fresh))
        assert np.array_equal(kept, anew, equal_nan=True)


def test_things_are_pasted_into_copies_of_normal_frames_of_training_alone(cache):
    """Frames keep their own labels; what is pasted into the copies, and into how many, is recorded."""
    options = {"image_size": (64, 96), "max_points": 200}
    plain, mixed = (load(tiny_sample(), paste_share=share, **options, **cache) for share in (0.0, 0.5))
    count, half = len(plain.train), round((plain.train.labels == 0).sum() / 2)
    assert plain.train.pasting is None and len(mixed.train) == count + half == count + mixed.train.pasted
    assert mixed.train.labels.tolist() == [*plain.train.labels, *[1] * half]
    for name in ("images", "packed_points", "cell_shares"):
        kept = [np.asarray(getattr(data.train, name)[:count], float) for data in (plain, mixed)]
        assert np.array_equal(*kept, equal_nan=True)
    extra = range(count, count + half)
    assert all(
        plain.train.labels[plain.train.frame_ids == mixed.train.frame_ids[k]].min() == 0 for k in extra
    )
    points = (mixed.train.__getitems__(extra)["true_points"] == 1).any(1)
    seen = [mixed.train.true_pixels(k).any() or hit for k, hit in zip(extra, points, strict=True)]
    assert np.mean(seen) > 0.9
    assert not mixed.val.pasting and mixed.describe()["pasting"]["train"]["frames"] == half
    said = " ".join(mixed.log_lines())
    assert f"{mixed.train.labels.sum()} anomalous, {half} of them normal frames with a pasted object" in said


def test_scenarios_with_anomalies_are_the_test_part_with_their_own_labels(cache):
    options = {
        "image_size": (32, 48),
        "max_points": 50,
        "pastes": 1,
        "split_method": "random",
        "val_size": 0.3,
    }
    data = load(tiny_sample(), label="pasted", **options, **cache)
    kinds = {name: {one.scenario.kind for one in part.sources} for name, part in data.parts.items()}
    assert kinds == {"train": {"NORMALITY"}, "val": {"NORMALITY"}, "test": {"STATIC"}}
    assert (
        data.parts["test"].pasting is None
        and set(data.parts["test"].labels) == {0, 1}
        and data.train.pasting is not None
    )
    with pytest.raises(DataError, match="too few to train and to validate"):
        load(tiny_sample(), label="pasted", **options | {"val_size": 0.0}, **cache)


def test_the_same_places_for_every_sensor(cache):
    table = build_table(find_scenarios(tiny_sample()), "pasted", **cache)
    rows = np.flatnonzero(table.labels == 0)[:3]
    parts = [
        AnoVoxDataset(table, rows, (64, 96), 200, pasting=Pasting("test", 2, sensors=sensors), **cache)
        for sensors in SENSORS
    ]
    places = [[source.paste.centre for source in part.sources[1::2]] for part in parts]
    assert places[0] == places[1] == places[2] and len(set(places[0])) == 6
    assert (parts[2].images[1] == parts[2].images[0]).all()  # points only
    pixels_only = parts[1].packed_points
    assert np.array_equal(pixels_only[1], pixels_only[0], equal_nan=True)
