"""AnoVox as it comes: what the generator writes, older layouts, palettes, rigs, kinds of scans, archives."""

import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from datasets.anovox import check, palettes
from datasets.anovox.archives import unpack
from datasets.anovox.check import check_frames
from datasets.anovox.files import IMAGES, SCANS, ScenarioFiles, _frames_in, find_scenarios
from datasets.anovox.frame import Frame
from datasets.anovox.labels import build_table, unlabelled_table
from datasets.anovox.palettes import ANOVOX, CARLA, find_palette, point_classes, read_class_image
from datasets.anovox.pointclouds import read_points
from tests.anovox_world import copy_of, frame_files, load, scenario_folders, tiny_sample
from utils.run.errors import CommandError, DataError

README = {  # the example of the generator's README: weather and counts stand inside the route
    "scenario_definition": {
        "map": "Town10HD",
        "scenarios": [
            {
                "anomaly_config": {
                    "anomalytype": "STATIC",
                    "anomaly_bp_name": "static.prop.o_barbedwire_special",
                    "distance_to_waypoint": 78,
                    "rotation": 237.30526616506287,
                },
                "id": "739b5ee1-e1e9-43d7-93e5-b3097de8dc6e",
                "ego_spawnpoint": {
                    "location": {"x": -110.9, "y": 59.7, "z": 0.6},
                    "rotation": {"pitch": 0.0},
                },
                "ego_route": {
                    "locations": [{"x": -110.9, "y": 63.9, "z": 0.0}],
                    "weather_preset": "SOFT_RAIN_SUNSET",
                    "npc_vehicle_amount": 100,
                    "npc_walker_amount": 50,
                },
            }
        ],
    }
}


@pytest.fixture
def cache(tmp_path):
    return {"cache_dir": tmp_path / "cache"}


def one_scenario(target: Path, identifier: str = "one") -> Path:
    """The second scenario of the tiny sample, which holds an anomaly, by itself and without configuration."""
    source = next(s for s in scenario_folders(tiny_sample()) if (s / "ANOMALY").exists())
    shutil.copytree(source, target / f"Scenario_{identifier}")
    return target / f"Scenario_{identifier}"


def write_configuration(root: Path, content: dict) -> None:
    (root / "Scenario_Configuration_Files").mkdir(parents=True)
    file = root / "Scenario_Configuration_Files" / f"scenario_config_map_{len(content)}.json"
    file.write_text(json.dumps(content))


def semantic_files(scenario: Path) -> list[Path]:
    return frame_files(scenario, "SEMANTIC-CAM")


@pytest.mark.parametrize("wrapped", [True, False])
def test_town_weather_and_kind_as_the_generator_writes_them(tmp_path, wrapped):
    one_scenario(tmp_path, "739b5ee1-e1e9-43d7-93e5-b3097de8dc6e")
    write_configuration(tmp_path, README if wrapped else README["scenario_definition"])
    (scenario,) = find_scenarios(tmp_path)
    assert (scenario.kind, scenario.town, scenario.weather) == ("STATIC", "Town10HD", "SOFT_RAIN_SUNSET")


@pytest.mark.parametrize(("written", "kind"), [("AnomalyType.normality", "NORMALITY"), ("NORMAL", "unknown")])
def test_a_kind_that_nobody_knows_gives_no_label(tmp_path, written, kind):
    entry = {"id": "Scenario_one", "anomaly_config": {"anomalytype": written}}
    write_configuration(tmp_path, {"scenarios": [entry]})
    file = next((tmp_path / "Scenario_Configuration_Files").iterdir())
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as Windows begins a text
    shutil.rmtree(one_scenario(tmp_path) / "ANOMALY")
    assert [scenario.kind for scenario in find_scenarios(tmp_path)] == [kind]


def test_two_files_of_one_frame_number_are_an_error(tmp_path):
    first, second, *_ = frame_files(one_scenario(tmp_path), "RGB-CAM")
    shutil.copy(second, first.with_suffix(".jpg"))
    (first.parent / f".{first.name}").write_bytes(b"hidden")
    with pytest.raises(DataError, match="its frame number, the last number in its name, is that of"):
        find_scenarios(tmp_path)


def test_a_number_behind_the_frames_is_said_for_a_few_scenarios(tmp_path):
    for k in range(6):
        folder = tmp_path / f"Scenario_{k}" / "RGB_IMG"
        folder.mkdir(parents=True)
        for frame in (8, 9):
            (folder / f"{frame:06d}_cam1.png").write_bytes(b"")
    with pytest.raises(DataError, match="the frame number last in its name") as caught:
        find_scenarios(tmp_path)
    assert len(str(caught.value).splitlines()) == 7 and str(caught.value).endswith("and 3 more")


def test_seconds_with_decimals_are_time_stamps_in_their_order(tmp_path):
    stamps = (9.5, 9.75, 10.1234567, 11.0)  # as many decimals as Python writes
    for path, stamp in zip(frame_files(one_scenario(tmp_path), "RGB-CAM"), stamps, strict=True):
        path.rename(path.with_name(f"RGB-CAM_{stamp}.png"))
    (scenario,) = find_scenarios(tmp_path)
    assert sorted(scenario.files["image"]) == [9_500_000_000, 9_750_000_000, 10_123_456_700, 11_000_000_000]


@pytest.mark.parametrize(
    "names",
    [
        ["2024-06-01-12-00-59.900", "2024-06-01-12-01-00.000", "2024-06-01-12-01-00.1"],
        ["20240601_235959", "20240602_000000", "20240602_000001"],
        ["2024-06-01_12-00-59-123456", "2024-06-01_12-01-00-000000"],
        ["cam 2024-06-01T12:00:59.9Z", "cam 2024-06-01T12:01:00Z"],
        ["PXL_20240601_120059123", "PXL_20240601_120100001"],
        ["20240601120059", "20240601120100"],
    ],
)
def test_times_of_day_are_in_their_order(tmp_path, names):
    paths = [tmp_path / f"{name}.png" for name in names]
    frames = _frames_in(paths[::-1], IMAGES)[0]
    assert [frames[number] for number in sorted(frames)] == paths
    assert min(frames) > 1.7e18 and max(frames) - min(frames) < 3e9  # nanoseconds


@pytest.mark.parametrize("name", ["2024-06-01_12-00-59_{:06}", "2024-06-01_{:06}", "20240699_12{}"])
def test_a_date_that_begins_a_recording_is_no_time_of_its_frames(tmp_path, name):
    paths = [tmp_path / f"{name.format(number)}.png" for number in (1059, 1060, 1100)]
    assert [number % 10**4 for number in _frames_in(paths, IMAGES)[0]] == [1059, 1060, 1100]


def test_a_count_behind_the_time_of_day_is_no_decimal(tmp_path):
    paths = [tmp_path / f"2024-06-01_12-00-{58 + k // 3}_{9 + k}.png" for k in range(6)]
    assert sorted(_frames_in(paths, IMAGES)[0]) == [9, 10, 11, 12, 13, 14]


def test_times_with_a_point_count_within_one_second_as_well(tmp_path):
    paths = [tmp_path / f"2024-06-01_12-00-{k}.{100 * k % 1000:03}.png" for k in (57, 58)]
    every, one = (_frames_in(some, IMAGES)[0] for some in (paths, paths[1:]))
    assert one.items() <= every.items()


def test_a_digit_of_the_cameras_name_is_no_second(tmp_path):
    for path, number in zip(frame_files(one_scenario(tmp_path), "RGB-CAM"), (1, 2, 10, 11), strict=True):
        path.rename(path.with_name(f"cam1.{number}.png"))
    (scenario,) = find_scenarios(tmp_path)
    assert sorted(scenario.files["image"]) == [1, 2, 10, 11]


@pytest.mark.parametrize(
    ("rate", "first", "said"), [(1, 0, ""), (2, 0, "0 to 3 and 0 to 1"), (1, 1, "0 to 3 and 1 to 4")]
)
def test_counters_of_sensors_of_their_own_are_suspected(tmp_path, caplog, rate, first, said):
    scenario = one_scenario(tmp_path)
    for k, path in enumerate(frame_files(scenario, "RGB-CAM")):
        path.rename(path.with_name(f"{k}.png"))
    for k, path in enumerate(frame_files(scenario, "LIDAR")):
        path.unlink() if k % rate else path.rename(path.with_name(f"{first + k // rate}.npy"))
    unlabelled_table(find_scenarios(tmp_path), "both")
    assert (f"images and scans with the numbers {said};" in caplog.text) is bool(said)


@pytest.mark.parametrize(
    "name", ["{}_semantic", "town_000000_{:06}_gtFine_labelIds", "LIDAR_TOP__{}.pcd", "x ({})"]
)
def test_text_may_follow_the_frame_number(tmp_path, name):
    paths = [tmp_path / f"{name.format(number)}.png" for number in (999, 1000)]
    assert _frames_in(paths, IMAGES)[0] == dict(zip((999, 1000), paths, strict=True))
    other = [tmp_path / "RGB-CAM(0, 0, 1.8)(0, 0, 0)_overview.png", tmp_path / "Thumbs.db"]
    assert _frames_in(other, IMAGES) == ({}, {".png": 1})


def test_folders_of_sensors_may_be_written_otherwise(tmp_path):
    scenario = one_scenario(tmp_path)
    (known,) = find_scenarios(tmp_path)
    for folder in filter(Path.is_dir, scenario.iterdir()):
        folder.rename(folder.with_name(folder.name.replace("CAM", "Cam1").replace("-", "_").lower()))
    (scenario,) = find_scenarios(tmp_path)
    assert {k: sorted(v) for k, v in scenario.files.items()} == {k: sorted(v) for k, v in known.files.items()}


def test_a_drive_that_is_named_as_a_block_of_frames_is_refused(tmp_path):
    one_scenario(tmp_path).rename(tmp_path / "Scenario_2024-06-01T12:03-07")
    with pytest.raises(DataError, match=r"12:03-07: a name that ends so means a block of frames.*\nRename"):
        unlabelled_table(find_scenarios(tmp_path), "both")


def test_a_folder_in_a_sensors_folder_is_named_where_it_is_missed(tmp_path):
    folder = frame_files(one_scenario(tmp_path), "LIDAR")[0].parent
    folder.rename(tmp_path / "data")
    folder.mkdir()
    (tmp_path / "data").rename(folder / "data")
    assert "points in all of 4 frames (1 folder not read)" in find_scenarios(tmp_path)[0].missing()


def test_what_is_not_read_is_named_where_it_is_missed(tmp_path):
    for path in frame_files(one_scenario(tmp_path), "LIDAR")[1:]:
        path.rename(path.with_suffix(".npz"))
    (scenario,) = find_scenarios(tmp_path)
    assert "points in 3 of 4 frames (3 .npz not read)" in scenario.missing()


@pytest.mark.parametrize("name", ["0012.png", "left_12_rectified.png"])
def test_a_folder_of_images_alone_is_a_recording_to_paste_into(tmp_path, name):
    for number, path in enumerate(frame_files(one_scenario(tmp_path), "RGB-CAM"), 1):
        shutil.copy(path, tmp_path / name.replace("12", f"{number}2"))
    shutil.rmtree(tmp_path / "Scenario_one")
    options = {"label": "pasted", "modality": "camera", "pastes": 1, "image_size": [32, 48]}
    parts = load(tmp_path, tmp_path / "cache", **options).parts
    assert [part.labels.tolist() for part in parts.values()] == [[0, 1] * 2, [0, 1], [0, 1]]


def test_the_sample_is_written_like_that():
    for scenario in find_scenarios(tiny_sample()):
        assert scenario.town.startswith("Town") and scenario.weather.isupper() and scenario.kind != "unknown"
    content = json.loads(next(tiny_sample().glob("*/Scenario_Conf*/*.json")).read_text())
    assert set(content) == {"scenario_definition"}
    example, own = (c["scenario_definition"]["scenarios"][0] for c in (README, content))
    assert set(own) <= set(example) and set(own["ego_route"]) <= set(example["ego_route"])
    setup = json.loads((scenario_folders(tiny_sample())[0] / "sensor_setup.json").read_text())
    fields = {"sensor_type", "file_ending", "location", "rotation", "args", "save_data"}
    assert all(set(entry) == fields for entry in setup.values())
    assert {p.name for p in scenario_folders(tiny_sample())[0].iterdir() if "CAM" in p.name} <= set(setup)


def test_a_configuration_that_says_nothing_is_an_error(tmp_path):
    one_scenario(tmp_path)
    write_configuration(tmp_path, {"scenario_definition": {"map": "Town01"}})
    with pytest.raises(DataError, match="no configuration of scenarios"):
        find_scenarios(tmp_path)


def test_the_middle_layout(tmp_path, cache):
    """Folders of the older names, scans as .npy: the same labels."""
    current, middle = tmp_path / "current", tmp_path / "middle"
    source = one_scenario(current)
    for name, new in (("RGB-CAM", "RGB_IMG"), ("SEMANTIC-CAM", "SEMANTIC_IMG"), ("LIDAR", "PCD"),
                      ("SEMANTIC-LIDAR", "SEMANTIC_PCD")):  # fmt: skip
        (middle / source.name / new).mkdir(parents=True)
        for file in frame_files(source, name):
            frame = file.stem.rsplit("_", 1)[1]
            shutil.copy(file, middle / source.name / new / f"{new}_{frame}{file.suffix}")
    tables = [build_table(find_scenarios(root), **cache) for root in (current, middle)]
    assert np.array_equal(tables[0].labels, tables[1].labels) and tables[0].labels.any()
    assert np.array_equal(tables[0].anomalous_points, tables[1].anomalous_points)


def recolour(ids: np.ndarray, kind: str) -> Image.Image:
    if kind == "red":
        return Image.fromarray(np.dstack([ids, ids * 0, ids * 0]))
    if kind == "grey":
        return Image.fromarray(np.dstack([ids] * 3))
    if kind.startswith("compacted"):  # as oxipng and ImageMagick do
        known, numbers = np.unique(ids, return_inverse=True)
        image = Image.fromarray(numbers.astype(np.uint8), mode="P")
        rest = 1 if kind.endswith("grey") else 0
        image.putpalette([value for k in known.tolist() for value in (k, k * rest, k * rest)])
        return image
    if kind == "ids in mode P":
        image = Image.fromarray(ids, mode="P")
        image.putpalette([value for k in range(256) for value in (k, 255 - k, k // 2)])
        return image
    colours = np.zeros((256, 3), np.uint8)
    for colour, number in reversed(ANOVOX.items()):
        colours[number] = colour
    image = Image.fromarray(colours[ids])
    return image.quantize(64, method=Image.Quantize.MEDIANCUT) if kind == "colours in mode P" else image


@pytest.mark.parametrize(
    "kind",
    ["red", "grey", "colours", "ids in mode P", "colours in mode P", "compacted grey", "compacted red"],
)
def test_classes_however_they_are_coded(tmp_path, kind):
    for file in semantic_files(one_scenario(tmp_path)):
        ids = np.asarray(Image.open(file))
        recolour(ids, kind).save(file)
        assert np.array_equal(read_class_image(file), ids)


def test_classes_that_were_no_classes_are_refused(tmp_path):
    """A JPEG whose damage stays among the ids, and intensities up to 255."""
    Image.fromarray(np.tile(np.uint8([[24], [28]]), (8, 16)).repeat(8, 1)).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(DataError, match="is a JPEG, which changes class ids"):
        read_class_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="numbers that are no class ids: 170, 171"):
        point_classes(np.arange(170.0, 255.0), "AnoVox", tmp_path / "a.npy")


def paint(path: Path, colours: list[tuple[int, int, int]]) -> Path:
    Image.fromarray(np.repeat(np.array(colours, np.uint8), 8, axis=0)[None]).save(path)
    return path


def told(path: Path, anomaly_ids: tuple[int, ...]) -> str:
    return find_palette([ScenarioFiles("one", path.parent, files={"semantic_image": {0: path}})], anomaly_ids)


def test_labels_follow_a_palette_that_was_corrected_although_they_are_cached(tmp_path, cache, monkeypatch):
    scenario = one_scenario(tmp_path / "data")
    for file in semantic_files(scenario):
        recolour(np.asarray(Image.open(file)), "colours").save(file)
    scenarios = find_scenarios(scenario.parent)
    before = build_table(scenarios, **cache)
    monkeypatch.setitem(palettes.PALETTES, "AnoVox", dict.fromkeys(ANOVOX, 29))  # an anomaly
    monkeypatch.setattr(palettes, "_table", palettes._table.__wrapped__)
    assert build_table(scenarios, **cache).anomalous_pixels.sum() > before.anomalous_pixels.sum()


def test_palettes_are_told_apart_or_the_error_says_what_each_colour_would_be(tmp_path):
    road, fence, terrain = (128, 64, 128), (100, 40, 40), (152, 251, 152)
    assert told(paint(tmp_path / "a.png", [road, fence]), (29,)) == "CARLA"
    assert told(paint(tmp_path / "b.png", [road, terrain]), (29,)) == "AnoVox"
    assert read_class_image(tmp_path / "a.png", "CARLA")[0, [0, 8]].tolist() == [7, 2]
    shared = paint(tmp_path / "c.png", [road, (110, 190, 160)])
    assert told(shared, (29,)) == "AnoVox"
    with pytest.raises(DataError, match=r"\(110, 190, 160\): AnoVox 20, CARLA 19"):
        told(shared, (20,))
    with pytest.raises(DataError, match=r"neither .*\n *\(1, 2, 3\): AnoVox none, CARLA none"):
        told(paint(tmp_path / "d.png", [(1, 2, 3), road]), (29,))
    with pytest.raises(DataError, match=r"d\.png: 1 colour not in AnoVox's palette: \(1, 2, 3\) x 8"):
        read_class_image(tmp_path / "d.png")
    assert len(set(CARLA.values())) == len(CARLA) == 23
    instances = np.indices((60, 80)).transpose(1, 2, 0).astype(np.uint8)
    Image.fromarray(np.insert(instances, 0, 14, axis=2)).save(tmp_path / "e.png")
    with pytest.raises(DataError, match="and 4797 more\nExport the class ids .* the red alone") as caught:
        told(tmp_path / "e.png", (29,))
    assert len(str(caught.value).splitlines()) == 6


def test_anomaly_ids_are_what_the_caller_says(tmp_path, cache):
    """A prop of stock CARLA carries the tag 21."""
    scenario = one_scenario(tmp_path)
    for file in semantic_files(scenario):
        ids = np.array(Image.open(file))
        Image.fromarray(np.where((ids > 28) & (ids < 35), 21, ids).astype(np.uint8)).save(file)
    for file in frame_files(scenario, "SEMANTIC-LIDAR"):
        points = np.load(file)
        points[(points[:, 3] > 28) & (points[:, 3] < 35), 3] = 21
        np.save(file, points)
    expected = build_table(find_scenarios(tiny_sample()), **cache)
    scenarios = find_scenarios(tmp_path)
    assert not build_table(scenarios, **cache).labels.any()
    labels = build_table(scenarios, coding=("AnoVox", (21,)), **cache).labels
    source = next(s.name for s in expected.scenarios if s.files["anomaly"])
    assert np.array_equal(labels, expected.labels[expected.scenario == source]) and labels.any()


def test_of_a_surround_rig_the_lidar_and_the_labels_of_the_camera_are_taken(tmp_path):
    scenario = one_scenario(tmp_path)
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    for folder in [p for p in scenario.iterdir() if "(" in p.name]:
        for yaw in (40, -80):
            name = folder.name.replace("(0, 0, 0)", f"(0, 0, {yaw})")
            shutil.copytree(folder, scenario / name)
            setup[name] = setup[folder.name] | {"rotation": [0, 0, yaw]}
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    for yaw in (0, 40, -80):
        (found,) = find_scenarios(tmp_path, camera=f"(0, 0, {yaw})")
        assert all(f"(0, 0, {yaw})" in found.folders[s] for s in found.folders if "(" in found.folders[s])
        assert found.turn is None and np.allclose(found.projection[2], [1, 0, 0, 0])
    with pytest.raises(CommandError, match="names 0 of 3 cameras"):
        find_scenarios(tmp_path, camera="(9, 9, 9)")
    for folder in [p for p in scenario.iterdir() if "LIDAR" in p.name and "(0, 0, 0)" not in p.name]:
        shutil.rmtree(folder)
    ahead = find_scenarios(tmp_path, camera="(0, 0, 40)")[0].turn @ (1, 0, 0)  # one LiDAR for all cameras
    assert np.allclose(np.degrees(np.arctan2(*ahead[1::-1])), 40)  # what lies ahead of it is on the left


def write_ply(path: Path, points: np.ndarray, kind: str) -> None:
    names = ["x", "y", "z", "intensity"][: points.shape[1]]
    head = [
        "ply",
        f"format {kind} 1.0",
        f"element vertex {len(points)}",
        *(f"property float {n}" for n in names),
    ]
    body = points.astype("<f4").tobytes()
    if kind == "ascii":
        body = "\n".join(" ".join(map(str, row)) for row in points.tolist()).encode()
    path.write_bytes("\n".join([*head, "end_header\n"]).encode() + body)


def write_scan(path: Path, points: np.ndarray, kind: str) -> Path:
    if kind == "npy":
        np.save(path.with_suffix(".npy"), points)
        return path.with_suffix(".npy")
    if kind == "bin":
        path = path.with_suffix(".bin")
        points.astype("<f4").tofile(path)
        return path
    if kind == "pcd":
        columns = " ".join(["x", "y", "z", "intensity"][: points.shape[1]])
        count = points.shape[1]
        lines = ["VERSION .7", f"FIELDS {columns}", "SIZE" + " 4" * count, "TYPE" + " F" * count,
                 "COUNT" + " 1" * count, f"POINTS {len(points)}", "DATA binary\n"]  # fmt: skip
        path = path.with_suffix(".pcd")
        path.write_bytes("\n".join(lines).encode() + points.astype("<f4").tobytes())
        return path
    write_ply(path.with_suffix(".ply"), points, kind)
    return path.with_suffix(".ply")


@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("kind", ["npy", "bin", "pcd", "ascii", "binary_little_endian"])
def test_scans_of_every_kind_hold_the_same_points(tmp_path, kind, columns):
    points = np.random.default_rng(0).uniform(-20, 20, (7, columns)).astype(np.float32)
    read = read_points(write_scan(tmp_path / "scan", points, kind))
    assert np.allclose(read[:, :columns], points, atol=1e-6) and read.shape == (7, 4)
    assert columns == 4 or (read[:, 3] == 1).all()
    if columns == 3:
        with pytest.raises(DataError, match="3 columns instead of x, y, z and class"):
            read_points(tmp_path / next(tmp_path.iterdir()).name, classes=True)


@pytest.mark.parametrize(
    "more", ["", "i", "-", "255", "i ring", "i time", "i ring time", "0 ring time", "- - -"]
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_width_of_a_bin_file_whatever_its_columns_hold(tmp_path, more, shuffled):
    """Of 60 * k points, the number of values can be divided by every width."""
    rng, angle = np.random.default_rng(0), np.linspace(0, 40, 6000)
    xyz = np.stack([9 * np.cos(angle), 12 * np.sin(angle), np.repeat(np.linspace(-2, 3, 60), 100)], axis=1)
    intensity = np.exp(-0.1 * np.linalg.norm(xyz, axis=1))
    kinds = {
        "i": intensity,
        "-": -intensity - rng.random(6000),
        "255": (intensity * 255).round(),
        "0": 0 * intensity,
        "ring": np.arange(6000) // 100,
        "time": np.linspace(0, 0.1, 6000),
    }
    rows = np.column_stack([xyz, *map(kinds.get, more.split())]).astype(np.float32)
    rows = rng.permutation(rows) if shuffled else rows
    read = read_points(write_scan(tmp_path / "scan", rows, "bin"))
    assert read.shape == (6000, 4) and np.array_equal(read[:, : rows.shape[1]], rows[:, :4])
    if rows.shape[1] > 4:  # its intensity is no class
        with pytest.raises(DataError, match=f"{rows.shape[1]} columns instead of x, y, z and class"):
            read_points(tmp_path / "scan.bin", classes=True)


def test_bin_files_of_nuscenes_and_scans_that_are_not_in_metres(tmp_path):
    rows = np.random.default_rng(0).normal(0, 20, (12, 5)).astype("<f4")
    rows[:, 3], rows[:, 4] = np.abs(rows[:, 3]), np.arange(12) % 4  # intensity, ring
    rows.tofile(tmp_path / "LIDAR_TOP__1532402927647951.pcd.bin")
    ((number, path),) = _frames_in(tmp_path.iterdir(), SCANS)[0].items()
    assert number == 1532402927647951 and np.array_equal(read_points(path), rows[:, :4])
    rows[:, :4].astype("<f8").tofile(tmp_path / "scan.bin")
    np.save(tmp_path / "scan.npy", rows[:, :4] * 1000)
    for name in ("scan.bin", "scan.npy"):
        with pytest.raises(DataError, match="no distance in metres"):
            read_points(tmp_path / name)


def test_a_pcd_file_with_padding(tmp_path):
    points = np.random.default_rng(0).normal(0, 9, (5, 4)).astype("<f4")
    record = np.dtype([("xyz", "<f4", 3), ("_", "u1", 4), ("intensity", "<f4"), ("end", "u1", 8)])
    table = np.zeros(5, record)
    table["xyz"], table["intensity"] = points[:, :3], points[:, 3]
    head = [
        "VERSION .7",
        "FIELDS x y z _ intensity _",
        "SIZE 4 4 4 1 4 1",
        "TYPE F F F U F U",
        "COUNT 1 1 1 4 1 8",
    ]
    head += ["WIDTH 5", "HEIGHT 1", "POINTS 5", "DATA binary", ""]
    (tmp_path / "scan.pcd").write_bytes("\n".join(head).encode() + table.tobytes())
    assert np.array_equal(read_points(tmp_path / "scan.pcd"), points)


def test_a_scan_cut_short_is_an_error(tmp_path):
    points = np.random.default_rng(0).uniform(-20, 20, (7, 4)).astype(np.float32)
    for kind in ("pcd", "ascii", "binary_little_endian"):
        path = write_scan(tmp_path / kind, points, kind)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(DataError, match="not a readable"):
            read_points(path)


def pack(root: Path, target: Path, prefix: str) -> None:
    """All files below `root` under `prefix` in a zip, tar or tar.gz archive."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, prefix + str(path.relative_to(root)))
                beside = path.relative_to(root).with_name(f"._{path.name}")
                archive.writestr(f"__MACOSX/{beside}", b"of a Mac")
    else:
        with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as archive:
            for path in files:
                archive.add(path, prefix + str(path.relative_to(root)))


@pytest.mark.parametrize("ending", ["zip", "tar.gz", pytest.param("tar", marks=pytest.mark.long)])
def test_archives_are_unpacked_once_and_read(tmp_path, cache, ending):
    """One archive of all scenarios, beside one of a single scenario: the same frames and labels."""
    root = copy_of(tiny_sample(), tmp_path / "whole")
    options = {"image_size": (32, 48), "max_points": 30, "split_method": "random", "test_size": 0.3}
    options |= {"val_size": 0.3, "seed": 1} | cache
    expected = load(root, **options)
    packed = tmp_path / "packed"
    packed.mkdir()
    alone = scenario_folders(root)[0]
    pack(alone, packed / f"{alone.name}.{ending}", "" if ending == "zip" else f"./{alone.name}/")
    shutil.rmtree(alone)
    pack(root, packed / f"AnoVox_Static_Mono_Town01.{ending}", "./AnoVox_Static_Mono_Town01/")
    before = sorted(packed.rglob("*"))
    data = load(packed, **options)
    assert data.split == expected.split and sorted(packed.rglob("*")) == before
    for name, part in data.parts.items():
        batch, wanted = (d.__getitems__(list(range(len(d)))) for d in (part, expected.parts[name]))
        assert all((batch[key] == wanted[key]).all() for key in ("images", "points", "labels", "cells"))
    unpacked = sorted((tmp_path / "cache").glob("unpacked-*"))
    assert len(unpacked) == 2 and all(place.is_dir() for place in unpacked)
    before = [place.stat().st_mtime_ns for place in unpacked]
    load(packed, **options)  # once
    assert [place.stat().st_mtime_ns for place in unpacked] == before
    with pytest.raises(CommandError, match="unpacks to more than the limit.*\n.*--cache_limit_gb"):
        find_scenarios(packed, cache_dir=tmp_path / "other", limit_gb=1e-4)
    (packed / f"Scenario_broken.{ending}").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match="not a readable archive"):
        find_scenarios(packed, **cache)
    assert sorted((tmp_path / "cache").glob("unpacked-*")) == unpacked
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_an_archive_writes_nothing_outside_of_the_cache(tmp_path, ending):
    """A name that leads out of it is refused; a link is left out, and an absolute name is one inside."""
    inner, evil = tmp_path / "data" / "inner", tmp_path / f"evil.{ending}"
    inner.mkdir(parents=True)
    (inner / "a.txt").write_text("a")
    (inner / "link").symlink_to("/etc/passwd")
    pack(inner, evil, "../../")
    with pytest.raises(DataError, match="a.txt' leads out of its folder"):
        unpack(evil, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        archive.add(inner, "/etc/inner")
    found = unpack(tmp_path / "whole.tar", tmp_path / "cache")
    assert found.name == "etc" and [path.name for path in found.rglob("*.*")] == ["a.txt"]
    assert [path.name for path in (found / "inner").iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("name", "prefix"), [("data.zip", ""), ("data.zip", "AnoVox/"), ("data.tar.gz", "./")]
)
def test_the_split_in_an_archive_is_used_as_that_in_a_folder(tmp_path, cache, name, prefix):
    pack(tiny_sample(), tmp_path / name, prefix)
    options = {"image_size": (16, 24), "max_points": 16} | cache
    data, expected = (load(root, **options) for root in (tmp_path / name, tiny_sample()))
    assert data.split == expected.split and data.synthetic
    assert data.split_source == expected.split_source == "split.json in the data folder"


def test_check_data_describes_each_sensor_and_tells_all_problems_at_once(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "data")
    lines = "\n".join(check_frames(find_scenarios(root), "AnoVox"))
    assert "points: 48 files read (.npy x 48)" in lines and "semantic_image: 48 files read" in lines
    assert "1 x " in lines and "camera chosen: RGB-CAM(0, 0, 1.8)(0, 0, 0) x 12" in lines
    assert "a frame every 5 s" in lines and "image agree at 9" in lines
    first, second = (frame_files(scenario_folders(root)[k], "LIDAR")[1] for k in (0, 3))
    np.save(first, np.full((3, 4), np.inf))
    second.write_bytes(b"")
    image = frame_files(scenario_folders(root)[2], "RGB-CAM")[0]
    image.write_bytes(image.read_bytes()[:90])
    (image.parent / "notes.txt").write_text("left")
    classes = [frame_files(folder, "SEMANTIC-CAM")[2] for folder in scenario_folders(root)[:2]]
    for path in classes:  # in the middle, where find_palette looks
        path.write_bytes(b"")
    with pytest.raises(DataError, match="5 problems") as caught:
        load(root, tmp_path / "cache", check_data=True)
    assert all(path.name in str(caught.value) for path in (first, second, image, *classes))


@pytest.mark.parametrize(
    ("sensor", "factors", "up", "said"),
    [
        ("SEMANTIC-LIDAR", (1, -1, 1, 1), 0, "image agree .* y must point to the left"),
        ("SEMANTIC-LIDAR", (1, 1, 1, 1), 1.8, "origin"),
        ("LIDAR", (1, -1, 1, 1), 0, "same places .* y must point to the left"),
    ],
)
def test_scans_along_other_axes_are_noticed(tmp_path, caplog, sensor, factors, up, said):
    root = copy_of(tiny_sample(), tmp_path / "data")
    load(root, tmp_path / "cache", image_size=(16, 24), max_points=16)
    assert "LiDAR and" not in caplog.text
    for scenario in scenario_folders(root):
        for file in frame_files(scenario, sensor):
            np.save(file, np.load(file) * factors + (0, 0, up, 0))
    with pytest.raises(DataError, match=said):
        list(check_frames(find_scenarios(root), "AnoVox"))
    load(root, tmp_path / "cache", image_size=(16, 24), max_points=16)  # without the flag it is a warning
    assert re.search(said, caplog.text) and "--check_data compares more frames" in caplog.text
    assert "without ground" not in caplog.text


def test_mirrored_scans_are_noticed_by_the_sky(tmp_path, caplog):
    """Without a semantic LiDAR, as most recordings of CARLA are, whose own y points to the right."""
    root = copy_of(tiny_sample(), tmp_path / "data")
    for scenario in scenario_folders(root):
        shutil.rmtree(frame_files(scenario, "SEMANTIC-LIDAR")[0].parent)
    assert "LiDAR and image agree at 9" in "\n".join(check_frames(find_scenarios(root), "AnoVox"))
    for scenario in scenario_folders(root):
        for file in frame_files(scenario, "LIDAR"):
            np.save(file, np.load(file) * (1, -1, 1, 1))
    load(root, tmp_path / "cache", image_size=(16, 24), max_points=16)
    assert re.search("LiDAR and image agree .* y must point to the left", caplog.text)


def test_ids_that_anovox_lacks_are_told_once(tmp_path, caplog):
    root = copy_of(tiny_sample(), tmp_path / "data")
    find_palette(find_scenarios(root), (29, 30))
    assert not caplog.text
    for scenario in scenario_folders(root)[::2]:
        for path in frame_files(scenario, "SEMANTIC-CAM"):
            ids = np.array(Image.open(path))
            Image.fromarray(np.where(ids == 3, 200, ids).astype(np.uint8)).save(path)
    assert find_palette(find_scenarios(root), (29, 200)) == "AnoVox" and not caplog.text
    find_palette(find_scenarios(root), (29,))
    assert caplog.text.count("class ids that AnoVox does not have count as normal: 200 (--anomaly_ids)") == 1


@pytest.mark.parametrize("sensor", ["image", "points"])
def test_class_ids_of_cityscapes_are_suspected(tmp_path, caplog, sensor):
    """Whose bicycles are 33, an anomaly in AnoVox, and whose road is 7. Scans count if there is no image."""
    scenario = one_scenario(tmp_path)
    if sensor == "points":
        shutil.rmtree(semantic_files(scenario)[0].parent)
    scenarios = find_scenarios(tmp_path)
    find_palette(scenarios, (29, 33))
    assert not caplog.text
    theirs = np.arange(256, dtype=np.uint8)
    theirs[[1, 2, 3, 9, 11, 14, 19, 24]] = [7, 8, 11, 21, 23, 26, 33, 7]
    for path in scenarios[0].files[f"semantic_{sensor}"].values():
        if sensor == "image":
            Image.fromarray(theirs[np.array(Image.open(path))]).save(path)
        else:
            points = np.load(path)
            points[:, 3] = theirs[points[:, 3].astype(int)]
            np.save(path, points)
    find_palette(scenarios, (29, 33))
    assert "looked at shows a road (class 1) ahead: are its ids AnoVox's?" in caplog.text


def test_heights_above_the_ground_are_noticed_without_labels(tmp_path, caplog):
    scenario = one_scenario(tmp_path)
    for path in frame_files(scenario, "LIDAR"):
        np.save(path, np.load(path) + np.float32([0, 0, 1.8, 0]))
    for sensor in ("SEMANTIC-CAM", "SEMANTIC-LIDAR", "ANOMALY"):
        shutil.rmtree(frame_files(scenario, sensor)[0].parent)
    options = {"label": "pasted", "pastes": 1, "image_size": (16, 24), "max_points": 64}
    load(tmp_path, tmp_path / "cache", **options)
    assert "scans without ground below the sensor: is z up, and the sensor the origin?" in caplog.text


@pytest.mark.parametrize(("column", "lacking"), [(0, "12 of 24 scans without a point"), (1, "on both sides")])
def test_half_turns_are_noticed(tmp_path, caplog, column, lacking):
    """As CARLA writes them if the LiDAR turns at half the frame rate."""
    root = copy_of(tiny_sample(), tmp_path / "data")
    for scenario in scenario_folders(root):
        for k, file in enumerate(frame_files(scenario, "LIDAR")):
            scan = np.load(file)
            np.save(file, scan[(scan[:, column] > 0) == (k % 2 > 0)])
    load(root, tmp_path / "cache", image_size=(16, 24), max_points=64)
    assert lacking in caplog.text and "Is each scan a whole turn?" in caplog.text


@pytest.mark.parametrize("sensor", ["SEMANTIC-CAM", "LIDAR"])
def test_files_of_another_scenario_are_noticed(tmp_path, sensor):
    root = copy_of(tiny_sample(), tmp_path / "data")
    files = [frame_files(scenario, sensor) for scenario in scenario_folders(root)]
    contents = [[path.read_bytes() for path in paths] for paths in files]
    for paths, others in zip(files, contents[1:] + contents[:1], strict=True):
        for path, content in zip(paths, others, strict=True):
            path.write_bytes(content)
    with pytest.raises(DataError, match="between frames or scenarios"):
        list(check_frames(find_scenarios(root), "AnoVox"))


def test_frames_of_the_same_scenario_say_nothing_about_other_scenarios(monkeypatch):
    """One of four frames is of a scenario of its own, so that two are paired within theirs."""
    sizes = {"one": 1, "three": 3}
    scenarios = [SimpleNamespace(files={"semantic_points": {0}}, frames_with=lambda _, n=n: range(n))
                 for n in sizes.values()]  # fmt: skip
    monkeypatch.setattr(check, "Frame", lambda scenario, *_: SimpleNamespace(scenario=scenario))
    monkeypatch.setattr(check, "_same_class", lambda frame, other, y_sign=1: 0.8)
    monkeypatch.setattr(check, "_same_place", lambda frame, other, y_sign=1: 0.8)
    lines, doubts = check.agreement(scenarios, "AnoVox", frames=12)
    assert all("80% in other scenarios" in line for line in lines)
    assert all("with files of other scenarios at 80%" in doubt for doubt in doubts) and len(doubts) == 2
    lines, _ = check.agreement(scenarios[:1], "AnoVox", frames=12)  # there is no other
    assert all("0% in other scenarios" in line for line in lines)


@pytest.mark.parametrize("sensor", ["RGB-CAM", "SEMANTIC-CAM"])
def test_images_of_another_shape_half_way_are_refused(tmp_path, sensor):
    path = frame_files(one_scenario(tmp_path), sensor)[2]
    image = Image.open(path)
    image.crop((16, 0, 80, 64)).save(path)
    (scenario,) = find_scenarios(tmp_path)
    frame = Frame(scenario, scenario.frames_with(("image",))[2])
    with pytest.raises(DataError, match="64x64 pixels, but its scenario began with 96x64"):
        frame.image() if sensor == "RGB-CAM" else frame.pixel_classes()


def test_camera_images_of_16_bits_have_no_scale_of_their_own(tmp_path):
    path = frame_files(one_scenario(tmp_path), "RGB-CAM")[2]
    Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16)).save(path)
    (scenario,) = find_scenarios(tmp_path)
    with pytest.raises(DataError, match="more than 8 bits.*\n.*on one scale"):
        Frame(scenario, scenario.frames_with(("image",))[2]).image()


def test_scans_without_a_point_ahead_are_refused(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "data")
    for scenario in scenario_folders(root):
        for file in frame_files(scenario, "LIDAR"):
            np.save(file, np.load(file)[:0])
    with pytest.raises(DataError, match="no scan has a point in the region"):
        load(root, tmp_path / "cache")
    assert load(root, tmp_path / "cache", modality="camera").train


def test_class_ids_that_were_interpolated_are_refused(tmp_path):
    path = semantic_files(one_scenario(tmp_path))[0]
    image = Image.open(path)
    image.resize((48, 32)).resize(image.size, Image.Resampling.BILINEAR).save(path)
    with pytest.raises(DataError, match="numbers that are no class ids"):
        read_class_image(path)


def test_real_frames_have_no_semantics_to_agree_about(real):
    lines = check_frames(find_scenarios(real / "anovox_carla"), "AnoVox")
    assert "cannot be checked: no frame has labels of both" in "\n".join(lines)


def test_the_generators_configuration_of_the_case(tmp_path):
    case = Path(__file__).parents[4] / "shared" / "cases" / "anovox"
    if not case.exists():
        pytest.skip("no case files here")
    one_scenario(tmp_path, "11111111-2222-4333-8444-555555555555")
    shutil.copytree(case, tmp_path / "Scenario_Configuration_Files")
    (scenario,) = find_scenarios(tmp_path)
    assert (scenario.kind, scenario.town, scenario.weather) == ("STATIC", "Town10HD", "SOFT_RAIN_SUNSET")


@pytest.mark.parametrize("names", ["X Y Z I", "x y z CosAngle ObjIdx ObjTag"])
def test_scans_as_carla_saves_them(tmp_path, names):
    """Its names are in capitals; the class comes behind what nobody asked for."""
    rows = np.random.default_rng(0).integers(0, 29, (5, len(names.split()))).astype(float)
    head = ["ply", "format ascii 1.0", "element vertex 5", *(f"property float32 {n}" for n in names.split())]
    body = [" ".join(map(str, row)) for row in rows.tolist()]
    (tmp_path / "scan.ply").write_text("\n".join([*head, "end_header", *body]))
    read = read_points(tmp_path / "scan.ply", classes="ObjTag" in names)
    assert np.array_equal(read, rows[:, [0, 1, 2, -1]])


def test_check_data_reads_scans_without_intensity(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "data", scenarios=1)
    for path in frame_files(scenario_folders(root)[0], "LIDAR")[:3]:
        np.save(path, np.load(path)[:, :3])
    lines = "\n".join(check_frames(find_scenarios(root), "AnoVox"))
    assert "points: 4 files read (.npy x 4)" in lines
    assert "kind: " in lines and "town: " in lines and "weather: " in lines


def test_a_damaged_npy_is_told_in_our_words(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "bytes.npy").write_bytes(b"not numpy's")
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match="damaged, cut short, or no array of numbers") as caught:
            read_points(path)
        assert "pickle" not in str(caught.value)
