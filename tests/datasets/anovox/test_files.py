"""Recordings as people keep them: other rigs, archives of other tools, files that nobody asked for."""

import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.anovox.check import check_frames
from datasets.anovox.dataset import project
from datasets.anovox.files import ScenarioFiles, find_scenarios
from datasets.anovox.labels import unlabelled_table
from datasets.anovox.palettes import find_palette, read_class_image
from datasets.anovox.pointclouds import read_points
from datasets.anovox.poses import FRONT, projection_matrix
from tests.anovox_world import copy_of, frame_files, load, scenario_folders, tiny_sample
from utils.run.errors import CommandError, DataError

TINY = {"image_size": (16, 24), "max_points": 16}


@pytest.fixture
def scenario(tmp_path) -> Path:
    """A scenario of the tiny sample that holds anomalies, by itself in tmp_path."""
    folder = next(folder for folder in scenario_folders(tiny_sample()) if (folder / "ANOMALY").is_dir())
    return Path(shutil.copytree(folder, tmp_path / "Scenario_one"))


def configuration(identifier: str, **entry: object) -> str:
    entry = {"id": identifier, "anomaly_config": {"anomalytype": "STATIC"}} | entry
    return json.dumps({"scenario_definition": {"map": "Town10HD", "scenarios": [entry]}})


@pytest.mark.parametrize("route", [None, [{"x": 1.0}], {"weather_preset": "WET_NOON"}])
def test_what_a_configuration_leaves_out_is_unknown(tmp_path, scenario, route):
    text = configuration("one", ego_route=route, anomaly_config=None)
    (tmp_path / "scenario_config_map_Town10HD.json").write_text(text)  # not in a folder of its own
    (found,) = find_scenarios(tmp_path)
    assert found.town == "Town10HD" and found.weather == (
        "WET_NOON" if isinstance(route, dict) else "unknown"
    )


def test_configurations_that_contradict_each_other_are_an_error(tmp_path, scenario):
    for name, kind in (("a", "STATIC"), ("b", "STATIC"), ("c", "NORMALITY")):
        find_scenarios(tmp_path)
        text = configuration("one", anomaly_config={"anomalytype": kind})
        (tmp_path / f"scenario_config_map_{name}.json").write_text(text)
    with pytest.raises(DataError, match=r"map_c.json: scenario one is .*STATIC.* and .*NORMALITY"):
        find_scenarios(tmp_path)


@pytest.mark.parametrize(("alive", "kind"), [("True", "STATIC"), ("False", "unknown")])
def test_an_anomaly_that_never_lives_makes_no_anomalous_drive(tmp_path, scenario, alive, kind):
    (scenario / "ANOMALY").mkdir(exist_ok=True)
    for path in frame_files(scenario, "RGB-CAM"):
        number = path.stem.rpartition("_")[2]
        (scenario / "ANOMALY" / f"ANOMALY_{number}.csv").write_text(f"anomaly_is_alive ; {alive}\n")
    assert find_scenarios(tmp_path)[0].kind == kind


def test_drives_that_are_not_called_so_are_told(tmp_path, scenario, caplog):
    shutil.copytree(scenario, tmp_path / "a/b/c/d/e/f/Scenario_deep")
    assert len(find_scenarios(tmp_path)) == 2 and not caplog.text
    scenario.rename(tmp_path / "scenario_one")
    assert len(find_scenarios(tmp_path)) == 1
    assert re.search(r"1 folder of sensors left out: .*Scenario_: .*/scenario_one", caplog.text)


def test_a_configuration_in_an_archive_of_its_own_beside_what_a_mac_leaves(tmp_path, scenario):
    with zipfile.ZipFile(tmp_path / "Scenario_Configuration_Files.zip", "w") as archive:
        archive.writestr("Scenario_Configuration_Files/scenario_config_map_a.json", configuration("one"))
    (tmp_path / "._AnoVox_Static_Mono_Town01.zip").write_bytes(b"of a Mac")
    shutil.copytree(scenario, tmp_path / ".trash" / scenario.name)
    folder = tmp_path / "Scenario_Configuration_Files"
    folder.mkdir()
    (folder / "._scenario_config_map_a.json").write_bytes(b"\x00\x05\x16\xff")
    (found,) = find_scenarios(tmp_path, cache_dir=tmp_path / ".cache")
    assert found.town == "Town10HD"
    (folder / "scenario_config_map_b.json").symlink_to(tmp_path / "not-mounted.json")
    with pytest.raises(DataError, match=r"cannot read .*scenario_config_map_b\.json: No such file"):
        find_scenarios(tmp_path, cache_dir=tmp_path / ".cache")


def test_a_zip_as_windows_writes_it_and_one_with_a_password(tmp_path, scenario):
    target = tmp_path / "packed" / "data.zip"
    target.parent.mkdir()
    with zipfile.ZipFile(target, "w") as archive:
        for path in filter(Path.is_file, scenario.rglob("*")):
            name = str(path.relative_to(tmp_path)).replace("/", "\\")
            archive.writestr(f"AnoVox\\{name}", path.read_bytes())
    (found,) = find_scenarios(target, cache_dir=tmp_path / "cache")
    assert found.files["points"].keys() == find_scenarios(tmp_path / "Scenario_one")[0].files["points"].keys()
    data = bytearray(target.read_bytes())
    data[data.rindex(b"AnoVox\\") - 46 + 8] |= 1  # a flag in the table of contents
    locked = tmp_path / "locked.zip"
    locked.write_bytes(data)
    with pytest.raises(DataError, match=r"encrypted.*\n.*unpack it"):
        find_scenarios(locked, cache_dir=tmp_path / "cache")


def test_archives_beside_folders_are_one_data_set(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "data")
    trained = json.loads((root / "split.json").read_text())["train"]
    packed = next(path for path in scenario_folders(root) if path.name in trained)
    with zipfile.ZipFile(root / f"{packed.name}.zip", "w") as archive:
        for path in packed.rglob("*"):
            archive.write(path, str(path.relative_to(packed)))
    shutil.rmtree(packed)
    cache = {"cache_dir": tmp_path / "cache"}
    data = load(root, **TINY, paste_share=0.5, **cache)
    assert data.train.pasted and len(data.train.images) > 24  # textures are cut from both


def test_a_cache_among_the_data_is_not_read_as_data(tmp_path, scenario):
    shutil.make_archive(str(tmp_path / "Scenario_one"), "zip", scenario)
    shutil.rmtree(scenario)
    for _ in range(2):
        (found,) = find_scenarios(tmp_path, cache_dir=tmp_path / "cache")
        assert found.files["image"]


def test_archives_of_other_kinds_are_read_or_said_to_be_left_out(tmp_path, scenario, caplog):
    for kind in ("xz", "bz2"):
        with tarfile.open(tmp_path / f"{kind}.tar.{kind}", f"w:{kind}") as archive:
            archive.add(scenario, f"Scenario_{kind}")
    parts = ("Town02.tar.gz.part", "Town03.tar.gz.part-aa", "Town04.zip.001", "Town05.tgz.aa", "Town06.z01")
    for part in parts:
        (tmp_path / part).write_bytes(b"half")
    (tmp_path / "zip.notes").write_text("read me")
    names = [found.name for found in find_scenarios(tmp_path, cache_dir=tmp_path / "cache")]
    assert names == ["Scenario_bz2", "Scenario_one", "Scenario_xz"]
    said = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
    for part, line in zip(parts, said, strict=True):
        assert line.endswith(f"{part} is left out: unpack it (join its parts), or download it again")
    whole = (tmp_path / "xz.tar.xz").read_bytes()
    (tmp_path / "xz.tar.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="xz.tar.xz: not a readable archive"):
        find_scenarios(tmp_path, cache_dir=tmp_path / "cache")


def test_a_disk_that_is_full_is_no_damaged_archive(tmp_path, scenario, monkeypatch):
    archive = Path(shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path, scenario.name))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(CommandError, match="nothing can be written to .*: No space left"):
        find_scenarios(archive, cache_dir=tmp_path / "cache")


def test_links_within_a_tar_are_files(tmp_path, scenario):
    """As programs that save room leave equal files."""
    first, second, third, last = frame_files(scenario, "SEMANTIC-CAM")
    for path in (second, third, last):
        path.unlink()
    second.hardlink_to(first)
    third.symlink_to(first.name)
    last.symlink_to("/etc/hostname")
    with tarfile.open(tmp_path / "one.tar.gz", "w:gz") as archive:
        archive.add(scenario, scenario.name)
    (found,) = find_scenarios(tmp_path / "one.tar.gz", cache_dir=tmp_path / "cache")
    files = found.files["semantic_image"]
    assert [path.read_bytes() == first.read_bytes() for path in files.values()] == [True] * 3


def test_links_in_an_archive_are_left_out(tmp_path, scenario):
    archive = Path(shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path, scenario.name))
    folder = frame_files(scenario, "RGB-CAM")[0].parent.relative_to(tmp_path)
    link = zipfile.ZipInfo(f"{folder}/link_999.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "elsewhere.png")
    (found,) = find_scenarios(archive, cache_dir=tmp_path / "cache")
    assert 999 not in found.files["image"]


def renamed(scenario: Path, names: dict[str, str]) -> dict:
    """Other names of the sensors' folders, also in sensor_setup.json, which is returned."""
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    for prefix, name in names.items():
        folder = next(path for path in scenario.iterdir() if path.name.startswith(prefix + "("))
        setup[name] = setup.pop(folder.name)
        folder.rename(scenario / name)
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    return setup


def test_a_sensor_in_folders_of_both_layouts_is_refused(tmp_path, scenario):
    """Which of them the labels belong to, nobody can tell."""
    (image,) = [entry for entry in scenario.iterdir() if entry.name.startswith("RGB-CAM")]
    shutil.copytree(image, scenario / "RGB_IMG")
    with pytest.raises(DataError, match="image stands in folders of both AnoVox layouts: RGB-CAM.* RGB_IMG"):
        find_scenarios(tmp_path)


def test_of_cameras_whose_names_say_no_pose_the_front_one_is_found_and_named(tmp_path, scenario):
    names = {"RGB-CAM": "RGB-CAM_right", "SEMANTIC-CAM": "SEMANTIC-CAM_right", "LIDAR": "LIDAR_top"}
    setup = renamed(scenario, names)
    for kind in ("RGB-CAM", "SEMANTIC-CAM"):
        shutil.copytree(scenario / f"{kind}_right", scenario / f"{kind}_back")
        setup[f"{kind}_back"] = setup[f"{kind}_right"] | {"rotation": [0, 0, 180]}
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    (found,) = find_scenarios(tmp_path)
    assert found.folders["image"] == "RGB-CAM_right" and found.turn is None
    assert unlabelled_table([found], "both").notes[0] == "sensors: RGB-CAM_right and LIDAR_top"
    (back,) = find_scenarios(tmp_path, camera="back")
    assert back.folders["semantic_image"] == "SEMANTIC-CAM_back"
    (scenario / "sensor_setup.json").unlink()  # a name that ends alike
    assert find_scenarios(tmp_path, camera="right")[0].folders["semantic_image"] == "SEMANTIC-CAM_right"
    lines = "\n".join(check_frames([found], "AnoVox"))
    assert "camera chosen: RGB-CAM_right x 1" in lines and "LiDAR chosen: LIDAR_top x 1" in lines


@pytest.mark.parametrize(("sensor", "kind"), [("RGB-CAM", "semantic_image"), ("LIDAR", "semantic_points")])
def test_classes_seen_from_another_pose_are_no_truth(tmp_path, scenario, sensor, kind):
    """A second camera or LiDAR without classes of its own must not take those of the first."""
    (folder,) = scenario.glob(f"{sensor}(*")
    folder.rename(folder.with_name(folder.name.replace("(0, 0, 0)", "(0, 0, 90)")))
    (scenario / "sensor_setup.json").unlink()
    (found,) = find_scenarios(tmp_path)
    assert not found.files[kind]
    assert f"{kind} in all of 4 frames (4 in another pose not read)" in found.missing()
    (other,) = {"semantic_image", "semantic_points"} - {kind}
    assert len(found.files[other]) == 4
    shutil.rmtree(next(scenario.glob(f"SEMANTIC-{'LIDAR' if 'CAM' in sensor else 'CAM'}*")))
    with pytest.raises(DataError, match=r"no semantic ground truth(.|\n)*in another pose not read"):
        load(tmp_path, tmp_path / "cache")


def test_classes_of_another_camera_without_a_pose_are_no_truth(tmp_path, scenario):
    for folder in filter(Path.is_dir, [*scenario.iterdir()]):
        folder.rename(scenario / folder.name.partition("(")[0])
    (scenario / "sensor_setup.json").unlink()
    (scenario / "SEMANTIC-CAM").rename(scenario / "SEMANTIC-CAM_front")
    (scenario / "RGB-CAM").rename(scenario / "RGB-CAM_front")
    shutil.copytree(scenario / "RGB-CAM_front", scenario / "RGB-CAM_rear")
    front, rear = (find_scenarios(tmp_path, camera=name)[0] for name in ("front", "rear"))
    assert front.files["semantic_image"] and not rear.files["semantic_image"]
    assert "semantic_image in all of 4 frames (4 in another pose not read)" in rear.missing()
    shutil.copytree(scenario / "LIDAR", scenario / "LIDAR_left")
    (scenario / "LIDAR").rename(scenario / "LIDAR_top")
    with pytest.raises(DataError, match="no pose tells which of LIDAR_left, LIDAR_top belongs to RGB"):
        find_scenarios(tmp_path, camera="rear")
    (scenario / "LIDAR_top").rename(scenario / "LIDAR_rear")
    assert find_scenarios(tmp_path, camera="rear")[0].folders["points"] == "LIDAR_rear"


def test_a_pose_that_is_corrected_for_the_sensors_alone_keeps_their_classes(tmp_path, scenario):
    """As the message of a setup without entries for these folders advises."""
    pose = {"location": [0, 0, 1.9], "rotation": [0, 1, 0]}
    named = {path.name: pose for path in scenario.glob("*(*") if not path.name.startswith("SEMANTIC")}
    (scenario / "sensor_setup.json").write_text(json.dumps(named))
    (found,) = find_scenarios(tmp_path)
    assert len(found.files["semantic_image"]) == len(found.files["semantic_points"]) == 4


@pytest.mark.parametrize("pose", [[180.0, 0.0, 0.0], [0.0, 12.0, -90.0], [5.0, -8.0, 140.0]])
def test_scans_of_a_lidar_that_is_mounted_otherwise(tmp_path, scenario, pose):
    """Upside down, tilted, turned: its points lie level before the camera, and fall where they did."""
    camera = {"location": [1.5, 0.2, 1.6], "rotation": [0.0, -3.0, 25.0]}
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    for entry in setup.values():
        entry |= camera if entry["sensor_type"] == "RGB-CAM" else {}
        entry |= {"rotation": pose} if entry["sensor_type"] == "LIDAR" else {}
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    level = np.array([[8.0, 1, -1, 1], [20, -3, 0, 1], [5, 0.5, -1.5, 1]])  # along the vehicle's axes
    own = level.copy()  # one axis after the other, each of CARLA's turns undone
    roll, pitch, yaw = np.radians(pose)
    for a, b, angle in ((0, 1, yaw), (0, 2, pitch), (1, 2, roll)):
        first, second = own[:, a].copy(), own[:, b].copy()
        sign = -1 if (a, b) == (0, 1) else 1
        own[:, a] = first * np.cos(angle) + sign * second * np.sin(angle)
        own[:, b] = second * np.cos(angle) - sign * first * np.sin(angle)
    np.save(tmp_path / "scan.npy", own)
    (found,) = find_scenarios(tmp_path)
    read = read_points(tmp_path / "scan.npy", turn=found.turn)
    assert np.allclose(read[:, 2], level[:, 2])  # level
    width, height = Image.open(frame_files(scenario, "RGB-CAM")[0]).size
    direct = projection_matrix(
        width, height, 90, camera, {"location": FRONT["location"], "rotation": [0, 0, 0]}
    )
    assert np.allclose(project(read, found.projection), project(level, direct), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"location": None},
        {"rotation": {"yaw": 0}},
        {"args": None},
        {"args": {"camera_fov": 0}},
        {"args": {"camera_fov": 1.57}},
        {"args": {"camera_fov": float("nan")}},
        {"args": [90]},
    ],
)
def test_a_setup_that_says_something_else_is_an_error(tmp_path, scenario, change):
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    for entry in setup.values():
        entry |= change
    (scenario / "sensor_setup.json").write_text(json.dumps({k[:7]: entry for k, entry in setup.items()}))
    with pytest.raises(DataError, match="location and rotation need three numbers each"):
        find_scenarios(tmp_path)


def test_scenarios_that_no_configuration_knows_are_told(tmp_path, scenario, caplog):
    path = tmp_path / "scenario_config_map_Town10HD.json"
    for known, said in (("one", False), ("ONE", True)):
        path.write_text(configuration(known))
        find_scenarios(tmp_path)
        assert ("1 of 1 scenarios are in no configuration" in caplog.text) == said
    assert "unknown: Scenario_one (there is ONE)" in caplog.text


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_setup_that_is_no_json_object_is_an_error(tmp_path, scenario, text):
    (scenario / "sensor_setup.json").write_text(text)
    with pytest.raises(DataError, match="JSON"):
        find_scenarios(tmp_path)


def test_images_stretched_since_the_setup_was_written_are_an_error(tmp_path, scenario):
    for path in frame_files(scenario, "RGB-CAM"):
        Image.open(path).resize((64, 64)).save(path)
    setup = (scenario / "sensor_setup.json").read_text()
    carla = setup.replace("image_width", "image_size_x").replace("image_height", "image_size_y")
    for text in (carla, setup):
        (scenario / "sensor_setup.json").write_text(text)
        with pytest.raises(DataError, match="the camera has 96x64 pixels, the images have 64x64"):
            find_scenarios(tmp_path)
    cropped = setup.replace('"image_width": 96', '"image_width": 64')  # and said
    (scenario / "sensor_setup.json").write_text(cropped)
    assert find_scenarios(tmp_path)[0].image_size == (64, 64)


def test_without_a_setup_the_poses_in_the_names_count(tmp_path, scenario):
    (folder,) = scenario.glob("LIDAR*")
    folder.rename(folder.with_name(folder.name.replace("(0, 0, 1.8)(0, 0, 0)", "(0, 0, 2.4)(0, 0, 90)")))
    (scenario / "sensor_setup.json").unlink()
    (found,) = find_scenarios(tmp_path)
    lidar = {"location": [0, 0, 2.4], "rotation": [0, 0, 0]}
    assert np.allclose(found.projection, projection_matrix(96, 64, 90, FRONT, lidar))
    assert np.allclose(found.turn @ (0, 1, 0), (1, 0, 0))  # its left is ahead
    assert "fov 90 assumed" in found.missing()


def test_without_scans_the_ground_stays_below_a_camera_however_high(tmp_path, scenario):
    """The ground of pasted objects, which then is where AnoVox's own LiDAR would have it."""
    for folder in [*scenario.glob("*LIDAR*")]:
        shutil.rmtree(folder)
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    for entry in setup.values():
        entry["location"] = [0.0, 0.0, 2.4]
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    (found,) = find_scenarios(tmp_path)
    high = {"location": [0, 0, 2.4], "rotation": [0, 0, 0]}
    assert np.allclose(found.projection, projection_matrix(96, 64, 90, high, FRONT))


def test_a_field_of_view_as_carla_names_it(tmp_path, scenario):
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    for entry in setup.values():
        entry["args"] = {"fov": 60} if "CAM" in entry["sensor_type"] else {}
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    assert np.isclose(find_scenarios(tmp_path)[0].projection[0, 1], -1 / np.tan(np.radians(30)))
    for entry in setup.values():  # as other programs write it
        entry["fov"] = entry.pop("args").get("fov")
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    (found,) = find_scenarios(tmp_path)
    assert np.isclose(found.projection[0, 1], -1 / np.tan(np.radians(30))) and not found.missing()


def test_a_field_of_view_that_is_missing_is_told_once(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "data")
    for folder in scenario_folders(root):
        setup = (folder / "sensor_setup.json").read_text()
        (folder / "sensor_setup.json").write_text(setup.replace("camera_fov", "focal_length"))
    notes = unlabelled_table(find_scenarios(root), "both").notes
    (told,) = (note for note in notes if "fov 90 assumed" in note)
    assert ", and 11 more: missing sensor_setup.json or its camera_fov" in told


def test_cameras_without_a_pose_are_not_chosen_by_their_names(tmp_path, scenario):
    for path in [*scenario.glob("*-CAM*"), *scenario.glob("*LIDAR*")]:
        path.rename(path.with_name(f"{path.name.partition('(')[0]}_front"))
    shutil.copytree(scenario / "RGB-CAM_front", scenario / "RGB-CAM_back")
    (scenario / "sensor_setup.json").unlink()
    with pytest.raises(CommandError, match="no pose tells which camera looks ahead: name it with --camera"):
        find_scenarios(tmp_path)
    assert find_scenarios(tmp_path, camera="front")[0].folders["image"] == "RGB-CAM_front"
    (scenario / "RGB-CAM_front").rename(scenario / "RGB-CAM")
    assert find_scenarios(tmp_path, camera="RGB-CAM")[0].folders["image"] == "RGB-CAM"


def test_a_setup_of_another_shape_works_once_named_as_the_message_says(tmp_path, scenario):
    entries = json.loads((scenario / "sensor_setup.json").read_text())
    (scenario / "sensor_setup.json").write_text(json.dumps({"sensors": entries}))
    with pytest.raises(DataError, match="Give its entry, at the top of the file, the folder's name"):
        find_scenarios(tmp_path)
    cameras = {name: entry for name, entry in entries.items() if "CAM" in entry["sensor_type"]}
    (scenario / "sensor_setup.json").write_text(json.dumps(cameras))
    with pytest.raises(DataError, match="0 sensors of type LIDAR(.|\\n)*or add one with"):
        find_scenarios(tmp_path)
    of_type = {entry["sensor_type"]: entry for entry in entries.values()}
    named = {path.name: of_type[path.name.partition("(")[0]] for path in scenario.glob("*(*")}
    (scenario / "sensor_setup.json").write_text(json.dumps(named))
    assert not find_scenarios(tmp_path)[0].missing()


def test_an_entry_of_another_pose_than_the_folders_is_not_taken_for_it(tmp_path, scenario):
    (folder,) = scenario.glob("RGB-CAM*")
    turned = folder.with_name("RGB-CAM(0, 0, 1.8)(0, 0, 90)_1")
    folder.rename(turned)
    with pytest.raises(DataError, match=r"1 sensors of type RGB-CAM, 0 in the pose of RGB-CAM.*90\)_1"):
        find_scenarios(tmp_path)
    turned.rename(scenario / "RGB-CAM(0.0, 0.0, 1.6)(0, 0, 360)_1")
    assert find_scenarios(tmp_path)[0].files["image"]  # a height may have been corrected


def test_drives_named_as_the_message_says_are_read(tmp_path, scenario):
    drive = tmp_path / "2011_09_26" / "drive_0001"
    for sensor, name in (("RGB-CAM", "image_02"), ("LIDAR", "velodyne_points")):
        (drive / name).mkdir(parents=True)
        for k, path in enumerate(frame_files(scenario, sensor)):
            shutil.copy(path, drive / name / f"{k:010d}{path.suffix}")
    with pytest.raises(
        DataError, match=r"Name each drive Scenario_NAME, its sensors' folders RGB_IMG and PCD"
    ):
        find_scenarios(drive.parent)
    (drive / "image_02").rename(drive / "RGB_IMG")
    (drive / "velodyne_points").rename(drive / "PCD")
    drive.rename(drive.with_name("Scenario_0001"))
    assert len(unlabelled_table(find_scenarios(drive.parent), "both").frames) == 4


def test_check_data_goes_on_behind_a_scenario_that_can_not_be_opened(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "data")
    first, second, third = scenario_folders(root)[:3]
    (first / "sensor_setup.json").write_text("{")
    for path in frame_files(second, "RGB-CAM"):
        path.write_bytes(b"")
    scan = frame_files(third, "LIDAR")[0]
    scan.write_bytes(b"")
    with pytest.raises(DataError, match="6 problems") as caught:
        load(root, tmp_path / "cache", check_data=True)
    assert all(name in str(caught.value) for name in (first.name, second.name, scan.name))
    with pytest.raises(DataError, match=r"sensor_setup\.json is not JSON"):
        load(root, tmp_path / "cache")


def test_check_data_names_the_sensors_of_the_older_layout(tmp_path):
    source = scenario_folders(tiny_sample())[0]
    for prefix, name in (("RGB-CAM", "RGB_IMG"), ("LIDAR", "PCD")):
        (tmp_path / source.name / name).mkdir(parents=True)
        for path in frame_files(source, prefix):
            number = path.stem.rpartition("_")[2]
            shutil.copy(path, tmp_path / source.name / name / f"{name}_{number}{path.suffix}")
    lines = "\n".join(check_frames(find_scenarios(tmp_path), "AnoVox"))
    assert "camera chosen: RGB_IMG x 1" in lines and "LiDAR chosen: PCD x 1" in lines


def test_images_that_are_not_read_are_told(tmp_path, scenario):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1.png", "2.png", "cat.png", "3.bmp", f"{'9' * 20}.png"):
        shutil.copy(frame_files(scenario, "RGB-CAM")[0], folder / name)
    notes = unlabelled_table(find_scenarios(folder, images_alone=True), "both").notes
    assert any("(1 .bmp, 2 .png not read)" in note or "(2 .png, 1 .bmp not read)" in note for note in notes)
    with pytest.raises(DataError, match="There is no LiDAR scan"):
        unlabelled_table(find_scenarios(folder, images_alone=True), "lidar")
    for path in frame_files(scenario, "LIDAR"):
        path.rename(path.with_name(f"{path.stem}7.npy"))
    with pytest.raises(DataError, match="matched by the last number"):
        unlabelled_table(find_scenarios(scenario), "both")
    shutil.rmtree(frame_files(scenario, "RGB-CAM")[0].parent)
    with pytest.raises(DataError, match=r"There is no camera image \(\.png, \.jpg, \.jpeg\)"):
        unlabelled_table(find_scenarios(scenario), "lidar")


def test_images_in_the_one_folder_of_an_archive(tmp_path, scenario):
    with zipfile.ZipFile(tmp_path / "drive.zip", "w") as archive:
        for k, path in enumerate(frame_files(scenario, "RGB-CAM")):
            archive.write(path, f"drive/data/{k:010d}.png")
    cache = {"cache_dir": tmp_path / "cache"}
    (found,) = find_scenarios(tmp_path / "drive.zip", images_alone=True, **cache)
    assert list(found.files["image"]) == [0, 1, 2, 3] and found.projection is not None
    with pytest.raises(DataError, match="--label pasted --modality camera"):
        find_scenarios(tmp_path / "drive.zip", **cache)


def test_a_palette_that_one_image_alone_tells(tmp_path):
    """Not the one in the middle, which both palettes fit: 170, 120, 50 is another class in each."""
    shown = [[(128, 64, 128)], [(128, 64, 128)], [(128, 64, 128)], [(170, 120, 50), (145, 170, 100)]]
    files = {k: tmp_path / f"{k}.png" for k in range(4)}
    for k, colours in enumerate(shown):
        Image.fromarray(np.array([colours], np.uint8).repeat(8, axis=0)).save(files[k])
    one = ScenarioFiles("one", tmp_path)
    one.files["semantic_image"] = files
    assert find_palette([one], (20,)) == "CARLA"


def test_class_ids_of_16_bits(tmp_path):
    """As they are where 8 would do, else refused: scaled, they would be other classes."""
    path, ids = tmp_path / "1.png", np.array([[0, 1, 14], [29, 100, 7]], np.uint16)
    Image.fromarray(ids).save(path)
    assert np.array_equal(read_class_image(path), ids)
    Image.fromarray(ids * 257).save(path)
    with pytest.raises(DataError, match="has 16 bits"):
        read_class_image(path)
    write_png_of_48_bits(path, np.dstack([ids, 0 * ids, 0 * ids]))
    with pytest.raises(DataError, match="has 16 bits"):
        read_class_image(path)


def write_png_of_48_bits(path: Path, pixels: np.ndarray) -> None:
    """16 bits per channel, which Pillow does not write."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
