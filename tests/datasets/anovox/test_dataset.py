"""AnoVox on disk: both layouts, honest labels, splits by scenario, points that show the road, geometry on
real frames.
"""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.anovox.augmentation import CORRUPTIONS, augment_frames, corrupt_frames, turn_hues
from datasets.anovox.check import check_frames
from datasets.anovox.dataset import OUTSIDE, AnoVoxDataset, project
from datasets.anovox.files import ScenarioFiles, find_scenarios
from datasets.anovox.frame import UNKNOWN, Frame, Region, sample_points
from datasets.anovox.labels import build_table, unlabelled_table
from datasets.anovox.load import trivial_features
from datasets.anovox.palettes import ANOVOX
from datasets.anovox.pointclouds import read_points
from datasets.anovox.poses import projection_matrix
from datasets.images import read_image
from datasets.splits import read_split
from tests.anovox_world import copy_of, frame_files, load, scenario_folders, split, tiny_sample
from utils.run.errors import CommandError, DataError

COLOURS = np.zeros((256, 3), np.uint8)  # of AnoVox's class ids
for colour, number in reversed(ANOVOX.items()):
    COLOURS[number] = colour
POSE = {"location": [0, 0, 1.8], "rotation": [0, 0, 0]}


@pytest.fixture
def cache(tmp_path):
    return {"cache_dir": tmp_path / "cache"}


def legacy_copy(target, scenarios=4):
    """The first scenarios of the tiny sample in the legacy layout: other folders, colours instead of class
    ids, .pcd files."""
    for source in scenario_folders(tiny_sample())[:scenarios]:
        folder = target / source.name
        for sensor, name in (
            ("RGB-CAM", "RGB_IMG"),
            ("SEMANTIC-CAM", "SEMANTIC_IMG"),
            ("LIDAR", "PCD"),
            ("SEMANTIC-LIDAR", "SEMANTIC_PCD"),
        ):
            (folder / name).mkdir(parents=True)
            for file in frame_files(source, sensor):
                frame = file.stem.rsplit("_", 1)[1]
                if sensor == "RGB-CAM":
                    shutil.copy(file, folder / name / f"{name}_{frame}.png")
                elif sensor == "SEMANTIC-CAM":
                    colours = COLOURS[np.asarray(Image.open(file))]
                    Image.fromarray(colours).save(folder / name / f"{name}_{frame}.png")
                else:
                    write_pcd(folder / name / f"{name}_{frame}.pcd", np.load(file), colours=sensor != "LIDAR")
        if (source / "ANOMALY").exists():
            shutil.copytree(source / "ANOMALY", folder / "ANOMALY")


def write_pcd(path, points, colours):
    fields = "x y z rgb" if colours else "x y z intensity"
    lines = ["VERSION .7", f"FIELDS {fields}", "SIZE 4 4 4 4", f"TYPE F F F {'U' if colours else 'F'}",
             "COUNT 1 1 1 1", "HEIGHT 1",
             f"WIDTH {len(points)}", f"POINTS {len(points)}", "DATA ascii"]  # fmt: skip
    last = COLOURS[points[:, 3].astype(int)].astype(int) @ (65536, 256, 1) if colours else points[:, 3]
    lines += [f"{x:.5f} {y:.5f} {z:.5f} {v}" for (x, y, z), v in zip(points[:, :3], last, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def test_labels_agree_with_a_count_by_hand(cache):
    table = build_table(find_scenarios(tiny_sample()), **cache)
    assert len(table.labels) == 48 and set(table.labels) == {0, 1}
    assert table.notes == ["sensors: RGB-CAM(0, 0, 1.8)(0, 0, 0) and LIDAR(0, 0, 1.8)(0, 0, 0)"]
    for row in range(0, 48, 3):
        scenario = table.frames[row].scenario
        number = str(table.frame_id[row])
        image, scan = (
            next(f for f in frame_files(scenario.path, s) if f.stem.endswith("_" + number))
            for s in ("SEMANTIC-CAM", "SEMANTIC-LIDAR")
        )
        ids, hits = np.asarray(Image.open(image)), np.load(scan)
        hits = hits[(hits[:, 3] >= 29) & (hits[:, 3] <= 34)]
        angle, distance = np.degrees(np.arctan2(hits[:, 1], hits[:, 0])), np.hypot(hits[:, 0], hits[:, 1])
        near = (np.abs(angle) <= 50) & (distance >= 2.5) & (distance <= 40) & (hits[:, 2] <= 1)
        pixels = ((ids >= 29) & (ids <= 34)).sum() * 512 * 768 / ids.size
        assert table.anomalous_pixels[row] == pixels and table.anomalous_points[row] == near.sum()
        assert table.labels[row] == (pixels >= 20 or near.sum() >= 3)


def test_both_layouts_give_the_same_labels(tmp_path, cache):
    legacy_copy(tmp_path / "legacy")
    legacy = build_table(find_scenarios(tmp_path / "legacy"), **cache)
    current = build_table(find_scenarios(copy_of(tiny_sample(), tmp_path / "current", 4)), **cache)
    assert np.array_equal(legacy.labels, current.labels) and np.array_equal(
        legacy.anomalous_pixels, current.anomalous_pixels
    )
    assert np.array_equal(legacy.anomalous_points, current.anomalous_points) and legacy.labels.any()
    assert all("sensor_setup.json" in note for note in legacy.notes)


def test_anomaly_scenarios_hold_normal_frames_and_the_scenario_label_does_not_know(cache):
    scenarios = find_scenarios(tiny_sample())
    visible, whole = (build_table(scenarios, label=label, **cache) for label in ("visible", "scenario"))
    assert whole.labels.sum() > visible.labels.sum() and not (visible.labels > whole.labels).any()
    kinds = np.array([frame.scenario.kind for frame in visible.frames])
    assert set(visible.labels[kinds == "STATIC"]) == {0, 1} and set(visible.labels[kinds == "NORMALITY"]) == {
        0
    }


def test_voxel_labels_use_the_class_column(cache):
    table = build_table(find_scenarios(tiny_sample()), label="voxel", **cache)
    assert 0 < table.labels.mean() < 0.6  # "any voxel > 0" would make every frame an anomaly


def test_voxel_files_are_opened_for_their_label_and_by_check_data_alone(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data", scenarios=1)
    broken = frame_files(scenario_folders(root)[0], "VOXEL_GRID")[0]
    broken.write_bytes(b"cut short")
    scenarios = find_scenarios(root)
    for label in ("visible", "scenario", "pasted"):
        assert len(build_table(scenarios, label, **cache).labels) == 4
    with pytest.raises(DataError, match=broken.name):
        build_table(scenarios, "voxel", **cache)
    with pytest.raises(DataError, match=broken.name):
        list(check_frames(scenarios, "AnoVox"))
    np.save(broken, np.zeros(3, [("x", "u2"), ("y", "u2"), ("z", "u2"), ("label", "u2")]))
    assert len(build_table(scenarios, "voxel", **cache).labels) == 4


def test_frames_sort_as_numbers(cache):
    table = build_table(find_scenarios(tiny_sample()), **cache)
    for scenario in table.scenarios:
        numbers = table.frame_id[table.scenario == scenario.name]
        assert (np.diff(numbers) > 0).all()


def test_unknown_labels_are_excluded_and_counted_and_none_at_all_is_an_error(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data")
    positive = next(s for s in scenario_folders(root) if (s / "ANOMALY").exists())
    for sensor in ("SEMANTIC-CAM", "SEMANTIC-LIDAR"):
        frame_files(positive, sensor)[0].unlink()
    table = build_table(find_scenarios(root), **cache)
    assert len(table.labels) == 47 and any(
        note.startswith("left out: 1 of 48 frames have no label") for note in table.notes
    )
    for scenario in scenario_folders(root):
        for folder in scenario.iterdir():
            if folder.name.startswith(("SEMANTIC", "ANOMALY")):
                shutil.rmtree(folder)
    shutil.rmtree(next(root.glob("*/Scenario_Configuration_Files")))
    with pytest.raises(DataError, match="none of 48 frames has a label"):
        build_table(find_scenarios(root), **cache)
    assert (unlabelled_table(find_scenarios(root), "both").labels == -1).all()


def test_without_semantics_the_error_says_what_was_left_out_and_which_flags_work(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data")
    for scenario in scenario_folders(root):
        for folder in scenario.glob("SEMANTIC-*"):
            shutil.rmtree(folder)
    options = {"image_size": (16, 24), "max_points": 16, **cache}
    left_out = (
        r"\nleft out: 32 of 48 frames have no label, for lack of semantic ground truth: Scenario_.*\n"
        r".*--label scenario or --label pasted --split_method random"
    )
    for method, problem in (("auto", "8 scenarios without usable frames"), ("random", "all normal")):
        with pytest.raises(DataError, match=rf"(?s){problem}.*{left_out}"):
            load(root, split_method=method, **options)
    assert load(root, label="scenario", **options).train.labels.any()
    pasted = load(root, label="pasted", split_method="random", pastes=1, **options)
    assert pasted.train.labels.any() and any("left out: 32 of 48" in line for line in pasted.log_lines())


def test_without_a_lidar_the_error_names_the_camera(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data", scenarios=2)
    for folder in root.glob("*/*/*LIDAR*"):
        shutil.rmtree(folder)
    with pytest.raises(
        DataError, match="There is no LiDAR scan .* folders (ANOMALY, )?RGB-.*--modality camera"
    ):
        build_table(find_scenarios(root), **cache)
    assert len(build_table(find_scenarios(root), modality="camera", **cache).labels) == 8


def test_folders_of_other_names_are_listed_where_the_camera_is_missed(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data", scenarios=1)
    next(root.glob("*/*/RGB-CAM*")).rename(scenario_folders(root)[0] / "rgb")
    with pytest.raises(DataError, match="no camera image .* in RGB-CAM... or RGB_IMG; .*, VOXEL_GRID, rgb"):
        build_table(find_scenarios(root), **cache)


def test_anomalies_in_scenarios_that_are_said_to_have_none_are_told(tmp_path, cache, caplog):
    """As in recordings of a CARLA whose class 29 is rock."""
    root = copy_of(tiny_sample(), tmp_path / "data")
    build_table(find_scenarios(root), **cache)
    assert "NORMALITY" not in caplog.text
    for path in root.rglob("scenario_config_map_*.json"):
        path.write_text(path.read_text().replace('"STATIC"', '"NORMALITY"'))
    labels = build_table(find_scenarios(root), **cache).labels
    assert f"{labels.sum()} frames of NORMALITY scenarios show classes of anomalies" in caplog.text


@pytest.mark.parametrize("sensor", ["RGB-CAM", "LIDAR"])
def test_sensors_that_are_stuck_or_covered_are_told(tmp_path, cache, caplog, sensor):
    root, name = copy_of(tiny_sample(), tmp_path / "data"), "image" if sensor == "RGB-CAM" else "scan"
    options = {"image_size": (16, 24), "max_points": 16, **cache}
    load(root, **options)
    assert "the frame before" not in caplog.text
    first, *rest = frame_files(scenario_folders(root)[0], sensor)
    if sensor == "RGB-CAM":  # one camera is black
        for path in (first, *rest):
            Image.new("RGB", Image.open(path).size).save(path)
    else:
        for path in rest:
            shutil.copy(first, path)
    load(root, modality="camera" if sensor == "LIDAR" else "lidar", **options)
    assert "the frame before" not in caplog.text
    load(root, **options)
    assert f"3 of 48 frames have the {name} of the frame before, or an empty one" in caplog.text


def test_one_scenario_can_not_be_split_and_the_error_says_what_works(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data", scenarios=12)
    normal = next(folder for folder in scenario_folders(root) if not (folder / "ANOMALY").exists())
    for scenario in scenario_folders(root):
        if scenario != normal:
            shutil.rmtree(scenario)
    options = {"image_size": (16, 24), "max_points": 16, **cache}
    with pytest.raises(DataError, match=r"1 scenario, but 3 parts need 3 or more(?s:.*)--label pasted"):
        load(root, **options)
    assert load(root, label="pasted", pastes=1, **options).train.labels.any()


@pytest.mark.parametrize(
    ("seen", "kept", "gone", "label"),
    [
        ("nothing", "SEMANTIC-CAM", "frame", None),  # what the scan would have shown is not known
        ("nothing", "SEMANTIC-LIDAR", "frame", None),
        ("nothing", "SEMANTIC-CAM", "sensor", 0),  # it has no such sensor: the other one decides
        ("nothing", "SEMANTIC-LIDAR", "sensor", 0),
        ("anomaly", "SEMANTIC-CAM", "frame", 1),  # one sensor that shows it is enough
        ("anomaly", "SEMANTIC-LIDAR", "frame", 1),
    ],
)
def test_a_frame_that_lost_the_truth_of_one_sensor(tmp_path, cache, seen, kept, gone, label):
    root = copy_of(tiny_sample(), tmp_path / "data", scenarios=0)
    source = next(s for s in scenario_folders(tiny_sample()) if (s / "ANOMALY").exists())
    scenario = root / source.relative_to(tiny_sample())
    shutil.copytree(source, scenario)
    image, scan = frame_files(scenario, "SEMANTIC-CAM")[0], frame_files(scenario, "SEMANTIC-LIDAR")[0]
    shape, points = (64, 96, 3), np.load(scan)
    Image.fromarray(np.full(shape, 30 if seen == "anomaly" else 1, np.uint8)).save(image)
    points[:, :3], points[:, 3] = [10, 0, -1], 30 if seen == "anomaly" else 1
    np.save(scan, points)
    lost = scan if kept == "SEMANTIC-CAM" else image
    lost.unlink() if gone == "frame" else shutil.rmtree(lost.parent)
    table = build_table(find_scenarios(root), **cache)
    number = int(image.stem.rsplit("_", 1)[1])
    assert table.labels[table.frame_id == number].tolist() == ([] if label is None else [label])


NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "kind", "pixels", "points", "voxels", "label"),
    [
        ("visible", "STATIC", 20, 0, NAN, 1), ("visible", "NORMALITY", 0, 3, NAN, 1),
        ("visible", "STATIC", 19.9, 2, NAN, 0), ("visible", "unknown", 0, NAN, NAN, 0),
        ("visible", "NORMALITY", NAN, NAN, NAN, 0), ("visible", "unknown", NAN, NAN, NAN, None),
        ("visible", "STATIC", NAN, NAN, 5, None), ("scenario", "STATIC", 0, 0, 0, 1),
        ("scenario", "NORMALITY", NAN, NAN, NAN, 0), ("scenario", "unknown", 99, 99, 9, None),
        ("voxel", "STATIC", 0, 0, 1, 1), ("voxel", "STATIC", 99, 99, 0, 0),
        ("voxel", "NORMALITY", NAN, NAN, NAN, 0), ("voxel", "STATIC", 99, 99, NAN, None),
        ("pasted", "unknown", NAN, NAN, NAN, 0), ("pasted", "STATIC", NAN, NAN, NAN, None),
        ("pasted", "unknown", 20, NAN, NAN, 1),
    ],
)  # fmt: skip
def test_a_label_needs_ground_truth_or_a_normal_scenario(rule, kind, pixels, points, voxels, label):
    frame = Frame(ScenarioFiles("Scenario_1", Path(), kind=kind), 1)
    found = frame.label(rule, np.array([pixels, points, NAN, voxels]), 20, 3)
    assert found == (UNKNOWN if label is None else label)


def test_missing_sensors_are_reported_and_leave_out_frames(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data")
    first = scenario_folders(root)[0]
    frame_files(first, "LIDAR")[1].unlink()
    table = build_table(find_scenarios(root), **cache)
    assert len(table.labels) == 47 and any(
        first.name in note and "points in 1 of 4 frames" in note for note in table.notes
    )
    assert len(build_table(find_scenarios(root), modality="camera", **cache).labels) == 48


def test_other_anomaly_ids_are_other_cells(tmp_path, cache):
    """Not what the cache holds of the same files under the usual ids."""
    options = {"image_size": (16, 24), "max_points": 16, "label": "scenario", **cache}
    usual = load(tiny_sample(), **options)
    none = load(tiny_sample(), anomaly_ids=(200,), **options)
    assert (usual.train.cell_shares[:] > 0).any() and not (none.train.cell_shares[:] > 0).any()
    with pytest.raises(DataError, match="all normal: both .*\nSo are all others. --check_data lists"):
        load(tiny_sample(), **options | {"anomaly_ids": (200,), "label": "visible"})


def test_a_scenario_without_a_camera_folder_is_left_out_and_said(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data")
    (root / "split.json").unlink()
    first = scenario_folders(root)[0]
    shutil.rmtree(next(path for path in first.iterdir() if path.name.startswith("RGB-CAM")))
    data = load(root, image_size=(16, 24), max_points=16, seed=3, **cache)
    assert first.name not in sum(data.split.values(), []) and len(sum(data.split.values(), [])) == 11
    assert any(note.startswith(f"{first.name}: missing ") for note in data.log_lines())
    assert all(torch.isfinite(part.__getitems__([0])["point_pixels"]).all() for part in data.parts.values())


def test_wrong_paths(tmp_path, cache):
    copy_of(tiny_sample(), tmp_path / "data" / "AnoVox_Static_Mono_Town01" / "AnoVox_Static_Mono_Town01", 2)
    assert len(find_scenarios(tmp_path / "data")) == 2
    copy_of(tiny_sample(), tmp_path / "data" / "__MACOSX", 1)  # of a zip from a Mac
    assert len(find_scenarios(tmp_path / "data")) == 2
    copy_of(tiny_sample(), tmp_path / "data" / "AnoVox_again", 1)
    with pytest.raises(DataError, match="is there twice"):
        find_scenarios(tmp_path / "data")
    with pytest.raises(CommandError, match="no such folder"):
        find_scenarios(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no Scenario_\.\.\. folder"):
        find_scenarios(tmp_path / "empty")
    legacy_copy(tmp_path / "data" / "old", 1)
    shutil.rmtree(tmp_path / "data" / "AnoVox_again")
    renamed = scenario_folders(tmp_path / "data")[0]
    renamed.rename(renamed.with_name("Scenario_legacy"))
    both = build_table(find_scenarios(tmp_path / "data"), **cache)
    whole = build_table(find_scenarios(tiny_sample()), **cache)
    assert len(both.scenarios) == 3  # ids here, colours there: told by each file
    for name in {*both.scenario} & {*whole.scenario}:
        assert np.array_equal(
            both.anomalous_pixels[both.scenario == name], whole.anomalous_pixels[whole.scenario == name]
        )


def test_of_several_cameras_the_front_one_is_taken(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data", 1)
    scenario = scenario_folders(root)[0]
    front = next(p for p in scenario.iterdir() if p.name.startswith("RGB-CAM"))
    left = scenario / "RGB-CAM(0, -0.5, 1.8)(0, 0, -90)_77"
    shutil.copytree(front, left)
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    setup[left.name] = {**setup[front.name], "location": [0, -0.5, 1.8], "rotation": [0, 0, -90]}
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    assert next(iter(find_scenarios(root)[0].files["image"].values())).parent == front
    chosen = find_scenarios(root, camera="(0, -0.5, 1.8)")[0]
    assert next(iter(chosen.files["image"].values())).parent == left
    np.save(tmp_path / "scan.npy", [[0.0, 10.0, 0.0, 1.0], [10.0, 0.0, 0.0, 1.0]])  # to the left, ahead
    scan = read_points(tmp_path / "scan.npy", turn=chosen.turn)  # in the camera's direction
    assert np.allclose(scan[:, :2], [[10, 0], [0, -10]])
    pixels = project(scan, chosen.projection)
    assert np.abs(pixels[0]).max() < 0.1 and pixels[1, 0] == OUTSIDE
    for scenarios in (find_scenarios(root), [chosen]):  # of one scan, one after the other
        part = AnoVoxDataset(build_table(scenarios, **cache), [0], (64, 96), 50, **cache)
        rows = {
            tuple(r) for r in read_points(part.sources[0].path("points"), turn=scenarios[0].turn).tolist()
        }
        first = part.__getitems__([0])
        assert all(tuple(point) in rows for point in first["points"][first["point_mask"]].tolist())
    with pytest.raises(CommandError, match="names 0 of 2 cameras"):
        find_scenarios(root, camera="rear")


def test_splits_are_by_scenario_and_have_both_classes(tmp_path, cache, caplog):
    table = build_table(find_scenarios(tiny_sample()), **cache)
    caplog.clear()
    names, how, check = split(table, tiny_sample())
    assert how == "split.json in the data folder" and "none shared" in check and not caplog.text
    split(table, tiny_sample(), test_size=0.3)
    assert "split.json decides; --split_method random uses" in caplog.text
    rows = [set(table.rows_of(names[part])) for part in names]
    assert sum(map(len, rows)) == 48 and not rows[0] & rows[1] and not rows[0] & rows[2]
    drawn, how, _ = split(table, tiny_sample(), split_method="random", test_size=0.3, val_size=0.3, seed=1)
    assert sorted(sum(drawn.values(), [])) == sorted(s.name for s in table.scenarios) and "stratified" in how
    held, _, _ = split(table, tiny_sample(), holdout_towns=["Town07"], val_size=0.3)
    assert {s.town for s in table.scenarios if s.name in held["test"]} == {"Town07"}
    with pytest.raises(DataError, match="no scenario is there; the towns are"):
        split(table, tiny_sample(), holdout_towns=["Town99"])
    normal = [s.name for s in table.scenarios if s.kind == "NORMALITY"]
    rest = [s.name for s in table.scenarios if s.name not in normal]
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": rest, "val": normal[:2], "test": normal[2:]}))
    with pytest.raises(DataError, match="the val split has 2 scenarios and 8 frames, all normal"):
        split(table, tiny_sample(), split_method=str(file))


def test_batches_are_what_the_files_hold(cache):
    data = load(tiny_sample(), image_size=(64, 96), max_points=200, **cache)
    batch = data.train.__getitems__([3, 0, 5])
    assert batch["images"].shape == (3, 3, 64, 96) and batch["images"].dtype == torch.uint8
    assert batch["points"].shape == (3, 200, 4) and batch["point_pixels"].shape == (3, 200, 2)
    assert torch.equal(batch["labels"], torch.from_numpy(data.train.labels[[3, 0, 5]])) and batch[
        "indices"
    ].tolist() == [3, 0, 5]
    direct = read_image(data.train.sources[0].path("image"))
    assert np.array_equal(batch["images"][1].permute(1, 2, 0).numpy(), direct)
    scan = read_points(data.train.sources[0].path("points"))
    rows = {tuple(row) for row in scan.tolist()}
    assert all(tuple(point) in rows for point in batch["points"][1][batch["point_mask"][1]].tolist())
    single = {key: value[0] for key, value in data.train.__getitems__([3]).items()}
    assert all(
        torch.equal(single[key], batch[key][0])
        for key in ("images", "points", "point_mask", "point_pixels", "labels")
    )
    assert data.describe()["train_samples"] == 24 and data.synthetic


@pytest.mark.parametrize("step", [1, 2, 3])
def test_part_of_a_train_scenario_in_test_under_another_name_is_refused(tmp_path, cache, step):
    """Without its first frame, or with every second or third frame alone."""
    root = copy_of(tiny_sample(), tmp_path / "copy")
    split = read_split(root / "split.json")
    train, test = (next(root.glob(f"*/{split[part][0]}")) for part in ("train", "test"))
    shutil.rmtree(test)
    shutil.copytree(train, test)
    images = frame_files(test, "RGB-CAM")
    for path in {*images} - {*images[1::step]}:
        path.unlink()
    with pytest.raises(DataError, match=f"Leakage: {test.name} in test and {train.name} in train hold the"):
        load(root, image_size=(32, 48), max_points=20, **cache)


@pytest.mark.parametrize("dead", [False, True])
def test_a_copy_of_a_recording_by_night_is_refused_but_not_black_images(tmp_path, cache, dead):
    """Small images show little: alone they may be alike by chance, all in a row they are not."""
    root = copy_of(tiny_sample(), tmp_path / "copy")
    split = read_split(root / "split.json")
    train, test = (next(root.glob(f"*/{split[part][0]}")) for part in ("train", "test"))
    for path in frame_files(train, "RGB-CAM"):
        Image.open(path).resize((24, 16)).point(lambda grey: 0 if dead else grey // 4).save(path)
    shutil.rmtree(next(train.glob("LIDAR*")))
    shutil.rmtree(test)
    shutil.copytree(train, test)
    if dead:
        assert load(root, modality="camera", image_size=(32, 48), **cache).leakage_check
        return
    with pytest.raises(DataError, match=f"Leakage: {test.name} in test and {train.name} in train hold the"):
        load(root, modality="camera", image_size=(32, 48), **cache)


def test_frames_in_which_nothing_moves_are_no_leak(tmp_path, cache):
    """Black images of a broken camera are the same in all scenarios."""
    root = copy_of(tiny_sample(), tmp_path / "copy")
    split = read_split(root / "split.json")
    for part in ("train", "test"):
        folder = next(root.glob(f"*/{split[part][0]}"))
        for path in frame_files(folder, "RGB-CAM")[:3]:
            Image.new("RGB", Image.open(path).size).save(path)
        for path in frame_files(folder, "LIDAR"):
            path.unlink()
    load(root, modality="camera", image_size=(32, 48), **cache)


def test_a_replaced_file_is_other_data_and_a_copy_is_not(tmp_path, cache):
    def fingerprint(root, **options):
        return load(root, image_size=(32, 48), max_points=20, **options, **cache).describe()["fingerprint"]

    drawn = {"split_method": "random", "test_size": 0.3, "val_size": 0.3, "seed": 1}
    root = copy_of(tiny_sample(), tmp_path / "copy")
    before = fingerprint(tiny_sample())
    for path in root.rglob("*.png"):
        os.utime(path, (0, 0))
    assert fingerprint(root) == before
    assert fingerprint(root, **drawn) == before  # what the data are, not how they are cut
    image = frame_files(scenario_folders(root)[5], "RGB-CAM")[2]
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    assert fingerprint(root) != before
    image.write_bytes(content)
    assert fingerprint(root) == before
    scan = frame_files(scenario_folders(root)[5], "LIDAR")[2]
    np.save(scan, np.load(scan)[1:])
    assert fingerprint(root) != before


def test_points_keep_the_road_and_do_not_follow_the_file_order():
    scan = read_points(frame_files(scenario_folders(tiny_sample())[0], "LIDAR")[0])
    chosen = sample_points(scan, Region(), 300, seed=1)
    assert ((chosen[:, 2] < -1.5) & (np.abs(chosen[:, 1]) < 4)).sum() > 30
    assert (scan[:300, 2] > 0).all()  # the first points of a file are its topmost ring
    shuffled = np.random.default_rng(0).permutation(scan)
    assert np.array_equal(sample_points(shuffled, Region(), 300, seed=1), chosen)
    assert not np.array_equal(sample_points(scan, Region(), 300, seed=2), chosen)
    assert Region().contains(chosen[:, :3]).all()
    assert len(sample_points(scan[:0], Region(), 300, seed=1)) == 0


def test_the_limits_of_the_region_belong_to_it():
    region = Region()
    x = np.array([region.min_range, region.max_range, region.min_range - 0.01, region.max_range + 0.01])
    assert region.contains(np.stack([x, 0 * x, 0 * x], axis=1)).tolist() == [True, True, False, False]


def test_bad_scans_are_errors_that_name_the_file(tmp_path):
    cases = {
        "nan": np.array([[1.0, 2, np.nan, 0]]),
        "columns": np.zeros((5, 5)),
        "text": np.array([["a"] * 4]),
    }
    for name, content in cases.items():
        np.save(tmp_path / f"{name}.npy", content)
        with pytest.raises(DataError, match=f"{name}.npy"):
            read_points(tmp_path / f"{name}.npy")
    np.save(tmp_path / "organised.npy", np.array([[np.nan, np.nan, np.nan, 0], [1, 2, 3, 4]]))  # no return
    assert read_points(tmp_path / "organised.npy").tolist() == [[1, 2, 3, 4]]
    (tmp_path / "cut.npy").write_bytes((tmp_path / "nan.npy").read_bytes()[:-9])
    (tmp_path / "cut.pcd").write_bytes(b"VERSION .7\nFIELDS x y z\n")
    for name in ("cut.npy", "cut.pcd", "absent.npy"):
        with pytest.raises(DataError, match=name):
            read_points(tmp_path / name)


def test_an_unreadable_image_and_an_empty_scan(tmp_path, cache):
    root = copy_of(tiny_sample(), tmp_path / "data")
    first = scenario_folders(root)[0]
    np.save(frame_files(first, "LIDAR")[0], np.zeros((0, 4), np.float32))
    table = build_table(find_scenarios(root), **cache)
    dataset = AnoVoxDataset(table, [0, 1], (64, 96), 100, **cache)
    assert not dataset.__getitems__([0])["point_mask"].any() and dataset.__getitems__([1])["point_mask"].any()
    broken = frame_files(first, "RGB-CAM")[1]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=r"_\d+\.png"):
        AnoVoxDataset(table, [0, 1], (64, 96), 100, **cache)


def test_projection_of_one_pose_is_the_pinhole_formula():
    points = np.array(
        [[10.0, 2.0, -1.0, 0.5], [5.0, -3.0, 0.5, 0.5], [-4.0, 0.0, 0.0, 0.5], [1.0, 5.0, 0.0, 0.5]]
    )
    u = 384 - 384 * points[:, 1] / points[:, 0]
    v = 256 - 384 * points[:, 2] / points[:, 0]
    pixels = project(points, projection_matrix(768, 512, 90, POSE, POSE))
    assert (
        np.allclose(pixels[:2], np.column_stack([u / 384 - 1, v / 256 - 1])[:2], atol=1e-6)
        and (pixels[2:] == OUTSIDE).all()
    )


def test_projection_of_other_poses():
    ahead = np.array([[10.0, 0.0, 0.0, 1.0]])
    right = {"location": [0, 1, 1.8], "rotation": [0, 0, 0]}  # CARLA's y is to the right
    assert project(ahead, projection_matrix(768, 512, 90, right, POSE))[0, 0] == pytest.approx(-0.1)
    turned = {"location": [0, 0, 1.8], "rotation": [0, 0, 20]}  # to the right: what was ahead moves left
    assert project(ahead, projection_matrix(768, 512, 90, turned, POSE))[0, 0] == pytest.approx(
        -np.tan(np.radians(20))
    )
    up = {"location": [0, 0, 1.8], "rotation": [0, 10, 0]}  # looking up: what was ahead moves down
    assert project(ahead, projection_matrix(768, 512, 90, up, POSE))[0, 1] == pytest.approx(
        1.5 * np.tan(np.radians(10))
    )


def test_mirroring_keeps_points_on_their_pixels(cache):
    data = load(tiny_sample(), image_size=(64, 96), max_points=200, **cache)
    batch = data.train.__getitems__(list(range(8)))
    mirrored = augment_frames(batch, seed=0, epoch=1)
    again = project(mirrored["points"].numpy(), projection_matrix(96, 64, 90, POSE, POSE))
    seen = mirrored["point_mask"].numpy() & (np.abs(mirrored["point_pixels"].numpy()) < 0.999).all(axis=-1)
    seen &= (again < 2).all(axis=-1)  # heights are jittered: the row may differ, and leave the image
    column = mirrored["point_pixels"][..., 0].numpy()[seen]
    assert np.allclose(again[seen][:, 0], column, atol=1e-5)
    flipped = (mirrored["points"][:, :, 1] != batch["points"][:, :, 1]).any(dim=1)
    assert 0 < flipped.sum() < 8
    alone = augment_frames(data.train.__getitems__([5]), seed=0, epoch=1)
    assert all(torch.equal(alone[key][0], mirrored[key][5]) for key in ("images", "points", "point_pixels"))


def test_brightness_and_contrast_are_drawn_apart_within_their_limits():
    """Factors read off images of two grey values: the mean tells brightness, the spread contrast."""
    images = torch.tensor([100, 150], dtype=torch.uint8).repeat(300, 3, 4, 2)
    rest = {"points": torch.zeros(300, 1, 4), "point_pixels": torch.zeros(300, 1, 2)}
    rest["point_mask"] = torch.ones(300, 1, dtype=torch.bool)
    batch = {"images": images, "indices": torch.arange(300), "cells": torch.zeros(300, 8, 12), **rest}
    batch["true_points"] = torch.zeros(300, 1)
    found = augment_frames(batch, seed=0, epoch=1)["images"].double().flatten(1) * 255
    brightness = found.mean(dim=1) / 125
    contrast = found.std(dim=1, correction=0) / 25 / brightness
    for factor in (brightness, contrast):
        assert 0.85 <= factor.min() < 0.87 and 1.13 < factor.max() <= 1.15 + 1e-6
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.2


def test_scans_of_training_are_tilted_raised_and_thinned_by_whole_rings():
    """A flat floor of 20 rings: what is left of it is a plane through as many of them as it has points."""
    elevation = torch.deg2rad(-(torch.arange(20) * 1.2 + 2.7))[:, None]
    azimuth = torch.linspace(-0.7, 0.7, 30)[None]
    distance = -1.8 / elevation.tan()
    parts = distance * azimuth.cos(), distance * azimuth.sin(), torch.full((20, 30), -1.8), torch.ones(20, 30)
    floor = torch.stack([part.flatten() for part in parts], dim=1).repeat(200, 1, 1)  # (200, 600, 4)
    batch = {"images": torch.zeros(200, 3, 4, 4, dtype=torch.uint8), "points": floor.clone()}
    batch |= {"point_mask": torch.ones(200, 600, dtype=torch.bool), "cells": torch.zeros(200, 8, 12)}
    batch |= {"point_pixels": torch.zeros(200, 600, 2), "true_points": torch.zeros(200, 600)}
    found = augment_frames(batch | {"indices": torch.arange(200)}, seed=0, epoch=1)
    left = found["point_mask"].unflatten(1, (20, 30))
    assert (left.any(2) == left.all(2)).all()  # a ring is there or lacks
    share = left.all(2).float().mean(1)
    assert 0.4 < (share < 1).float().mean() < 0.6 and share.min() < 0.5
    up = found["points"][..., 2] + 1.8
    whole = torch.linalg.lstsq(torch.cat([floor[0, :, :2], torch.ones(600, 1)], 1), up[share == 1].T)
    slopes, raised = whole.solution[:2].abs().amax(1), whole.solution[2].abs().max()
    assert slopes.min() > 0.025 and slopes.max() < 0.0301 and 0.25 < raised < 0.301


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corruptions_change_their_sensor_only_and_repeat(cache, corruption):
    batch = load(tiny_sample(), image_size=(64, 96), max_points=200, **cache).train.__getitems__([0, 1])
    broken, again = (corrupt_frames(batch, corruption, seed=3) for _ in range(2))
    assert all(torch.equal(broken[key], again[key]) for key in broken)
    assert broken["images"].dtype == torch.uint8 or 0 <= broken["images"].min() <= broken["images"].max() <= 1
    if corruption.startswith("camera"):
        assert torch.equal(broken["points"], batch["points"]) and not torch.equal(
            broken["images"], batch["images"].float() / 255
        )
    else:
        assert torch.equal(broken["images"], batch["images"])
        assert (
            broken["point_mask"].sum() <= 0.3 * batch["point_mask"].sum()
            and (broken["points"][~broken["point_mask"]] == 0).all()
        )


def test_truth_of_pixels_and_points(cache):
    data = load(tiny_sample(), image_size=(64, 96), max_points=400, **cache)
    for index in np.flatnonzero(data.train.labels == 1)[:4]:
        pixels, points = (
            data.train.true_pixels(index) == 1,
            data.train.__getitems__([index])["true_points"][0] == 1,
        )
        assert pixels.shape == (64, 96) and points.shape == (400,)
        assert (
            pixels.sum() * 512 * 768 / pixels.size
            == data.train.table.anomalous_pixels[data.train.rows[index]]
        )
    normal = np.flatnonzero(data.train.table.anomalous_points[data.train.rows] == 0)[0]
    assert (data.train.__getitems__([normal])["true_points"] != 1).all()


def test_points_know_their_truth_or_that_nobody_does(tmp_path, cache):
    """From the semantic scan on disk, whatever a cache held before; unknown for padding and lost sensors."""
    root = copy_of(tiny_sample(), tmp_path / "data")
    options = {"image_size": (32, 48), "max_points": 400} | cache
    part = load(root, **options).train
    index = int(np.flatnonzero(part.labels == 1)[0])
    truth, mask = (part.__getitems__([index])[key][0].numpy() for key in ("true_points", "point_mask"))
    assert (truth[~mask] == -1).all() and set(truth[mask]) <= {-1, 0, 1}
    part.projections[:, 2, 3] = 1  # of a LiDAR before the camera, which shows it: padding is nowhere
    pixels = part.__getitems__([index])["point_pixels"][0].numpy()
    assert not mask.all() and (pixels[~mask] == OUTSIDE).all()
    dropped = augment_frames(part.__getitems__([index]), 0, 1, modality_dropout=1.0)
    assert (dropped["true_points"][~dropped["point_mask"]] == -1).all()
    scan = part.sources[index].path("semantic_points")
    points = np.load(scan)
    points[:, 3] = 30
    np.save(scan, points)
    near = load(root, **options, split_method=str(tiny_sample() / "split.json")).train
    here = near.frame_ids.tolist().index(part.frame_ids[index])
    assert (near.__getitems__([here])["true_points"][0].numpy()[mask] == 1).mean() > 0.9
    scan.unlink()
    for other in scan.parent.iterdir():
        other.unlink()
    gone = load(root, **options).train
    here = gone.frame_ids.tolist().index(part.frame_ids[index])
    assert (gone.__getitems__([here])["true_points"] == -1).all()
    gone.sources[here].path("semantic_image").unlink()
    lost = load(root, **options, label="scenario").train
    here = lost.frame_ids.tolist().index(part.frame_ids[index])
    assert lost.__getitems__([here])["cells"].isnan().all()  # unknown is no anomaly


def test_real_frames_load_in_numeric_order_and_line_up(real, cache):
    scenarios = find_scenarios(real / "anovox_carla")
    assert [s.kind for s in scenarios] == ["NORMALITY"]
    assert scenarios[0].frames_with(("image", "points")) == list(range(990, 1012))
    table = build_table(scenarios, **cache)
    assert (table.labels == 0).all() and len(table.labels) == 22
    dataset = AnoVoxDataset(table, np.arange(22), (180, 360), 4096, **cache)
    batch = dataset.__getitems__(list(range(22)))
    points, pixels, mask = batch["points"], batch["point_pixels"], batch["point_mask"]
    assert mask.sum(1).min() > 1000
    road = (
        mask
        & (points[..., 2] < -1.3)
        & (points[..., 0] < 15)
        & (points[..., 1].abs() < 2)
        & (pixels[..., 0] < 2)
    )
    colours = torch.nn.functional.grid_sample(batch["images"].float(), pixels[:, None], align_corners=False)[
        :, :, 0
    ].mT[road]
    assert road.sum() > 1000 and (colours.amax(1) - colours.amin(1)).median() < 25  # asphalt is grey
    ground = pixels[..., 1][road]
    assert (ground > 0).all()  # below the horizon
    with pytest.raises(DataError, match="both classes are needed"):
        split(table, real / "anovox_carla", split_method="random", test_size=0, val_size=0)


def test_modality_dropout_takes_one_sensor_never_both(cache):
    data = load(tiny_sample(), image_size=(32, 48), max_points=50, **cache)
    batch = data.train.__getitems__(list(range(24)))
    lost = {"camera": 0, "lidar": 0}
    for epoch in range(20):
        dropped = augment_frames(batch, 0, epoch, modality_dropout=0.3)
        black = (dropped["images"] == 0).flatten(1).all(1)
        empty = ~dropped["point_mask"].any(1)
        assert not (black & empty).any()
        assert (dropped["points"][empty] == 0).all() and (dropped["point_pixels"][empty] == OUTSIDE).all()
        lost["camera"] += int(black.sum())
        lost["lidar"] += int(empty.sum())
    assert all(0.1 < count / 480 < 0.2 for count in lost.values())
    kept = augment_frames(batch, 0, 1)
    assert kept["point_mask"].any(1).all() and (kept["images"] > 0).flatten(1).any(1).all()


def test_turned_hues_keep_grey_and_brightness():
    images = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    grey = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    angle = torch.linspace(0, 5, 6)
    assert torch.allclose(turn_hues(grey, angle), grey, atol=1e-6)
    assert torch.allclose(turn_hues(images, angle).mean(dim=1), images.mean(dim=1), atol=1e-5)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    third = turn_hues(red, torch.tensor([2 * torch.pi / 3])).flatten()
    assert torch.allclose(third, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_the_trivial_features_need_the_memory_of_few_images(cache):
    train = load(tiny_sample(), image_size=(128, 192), **cache).train
    tracemalloc.start()
    features = trivial_features(train, np.array(["weather x"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(features) == len(train) == 24 and peak < 12 * train.images[0].nbytes
