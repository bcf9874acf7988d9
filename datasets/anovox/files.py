"""Finding AnoVox scenarios on disk: layouts, nested archives, sensors, frames, camera calibration.

    Final_Output_2024_06_01-12_00/            or AnoVox_Dynamic_Mono_Town07/, once more nested or not
      Scenario_Configuration_Files/scenario_config_map_<Town>.json
      Scenario_<uuid4>/
        sensor_setup.json
        RGB-CAM(0, 0, 1.8)(0, 0, 0)_<hash>/..._<frame>.png       SEMANTIC-CAM(...)_<hash>/..._<frame>.png
        LIDAR(...)_<hash>/..._<frame>.npy                        SEMANTIC-LIDAR(...)_<hash>/..._<frame>.npy
        VOXEL_GRID/VOXEL_GRID_<frame>.npy                        ANOMALY/ANOMALY_<frame>.csv
legacy:
Scenario_<id>/{RGB_IMG,SEMANTIC_IMG,PCD,SEMANTIC_PCD,VOXEL_GRID,ANOMALY}/<NAME>_<frame>.{png,pcd,npy,csv}

Frames are numbers without leading zeros and sort as numbers; sensors are matched by them within a scenario.
Poses are read from sensor_setup.json; the pose in a folder's name only tells folders of one sensor apart.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.images import read_image_size
from utils.run.errors import CommandError, DataError

LAYOUTS = {
    "current": {
        "image": "RGB-CAM",
        "points": "LIDAR",
        "semantic_image": "SEMANTIC-CAM",
        "semantic_points": "SEMANTIC-LIDAR",
        "voxels": "VOXEL_GRID",
        "anomaly": "ANOMALY",
    },
    "legacy": {
        "image": "RGB_IMG",
        "points": "PCD",
        "semantic_image": "SEMANTIC_IMG",
        "semantic_points": "SEMANTIC_PCD",
        "voxels": "VOXEL_GRID",
        "anomaly": "ANOMALY",
    },
}
ENDINGS = {
    "image": "png",
    "points": "npy|pcd",
    "semantic_image": "png",
    "semantic_points": "npy|pcd",
    "voxels": "npy",
    "anomaly": "csv",
}
NORMALITY = "NORMALITY"
FRONT = {"location": [0.0, 0.0, 1.8], "rotation": [0.0, 0.0, 0.0]}
DEPTH = 4  # folders between the given root and a scenario


@dataclass
class ScenarioFiles:
    """One drive: its files by sensor and frame number, and what is known about it."""

    name: str
    path: Path
    layout: str
    kind: str = "unknown"  # NORMALITY, STATIC, SUDDEN_BREAKING_OF_VEHICLE_AHEAD or unknown
    town: str = "unknown"
    weather: str = "unknown"
    files: dict[str, dict[int, Path]] = field(default_factory=dict)  # sensor -> frame -> file
    projection: np.ndarray | None = None  # (3, 4), see anovox_points.project
    assumed_calibration: bool = False  # no sensor_setup.json: fov 90 and one common pose

    def frames_with(self, sensors: tuple[str, ...]) -> list[int]:
        """Frame numbers, ascending, that all these sensors recorded."""
        common = set.intersection(*(set(self.files[sensor]) for sensor in sensors))
        return sorted(common)

    def missing(self) -> str:
        """What a reader should know is not there, '' when nothing is."""
        every = set().union(*self.files.values())
        lacks = []
        for sensor, files in self.files.items():
            absent = len(every) - len(files)
            if absent and not (sensor == "anomaly" and self.kind == NORMALITY):
                lacks.append(f"{sensor} in {'all' if not files else absent} of {len(every)} frames")
        return "; ".join(
            lacks + ["sensor_setup.json (fov 90 and one pose assumed)"] * self.assumed_calibration
        )


def find_scenarios(root: Path | str, camera: str | None = None) -> list[ScenarioFiles]:
    """All scenarios below `root`, sorted by name.

    `camera`: part of the name of the camera to use, default the front one. CommandError for a wrong path;
    DataError for no scenario, two of one name, or a mixture of the layouts.
    """
    root = Path(root)
    if not root.is_dir():
        raise CommandError(
            f"--data_path {root}: no such folder.\n"
            "Give the folder that holds Scenario_... or AnoVox_... folders."
        )
    folders = sorted(_scenario_folders(root), key=lambda folder: folder.name)
    if not folders:
        inside = ", ".join(sorted(entry.name for entry in root.iterdir())[:6]) or "nothing"
        raise DataError(
            f"{root}: no Scenario_... folder within {DEPTH} levels; found {inside}.\n"
            "Unpack the AnoVox archives, and give the folder that holds them."
        )
    for first, second in itertools.pairwise(folders):
        if first.name == second.name:
            raise DataError(
                f"scenario {first.name} is there twice:\n  {first}\n  {second}\n"
                "Remove one: it could land in two splits."
            )
    layouts = {folder: _layout_of(folder) for folder in folders}
    if len(set(layouts.values())) > 1:
        examples = {layout: folder for folder, layout in layouts.items()}
        raise DataError(
            f"{root} mixes both AnoVox layouts, whose labels are not coded alike:\n"
            + "\n".join(f"  {layout}: {folder}" for layout, folder in sorted(examples.items()))
            + "\nGive the folder of one of them."
        )
    configured = _read_configurations(root)
    return [_open_scenario(folder, layouts[folder], configured, camera) for folder in folders]


def _scenario_folders(root: Path) -> list[Path]:
    found = []
    for folder, below, _ in os.walk(root, followlinks=True):
        path = Path(folder)
        if path.name.startswith("Scenario_") and path.name != "Scenario_Configuration_Files":
            found.append(path)
            below.clear()
        elif len(path.relative_to(root).parts) >= DEPTH:
            below.clear()
    return found


def _layout_of(folder: Path) -> str:
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    found = [
        layout
        for layout, sensors in LAYOUTS.items()
        if any(name.startswith((sensors["image"], sensors["points"])) for name in names)
    ]
    if len(found) == 2:
        raise DataError(
            f"{folder} holds folders of both AnoVox layouts: {', '.join(sorted(names)[:6])}.\n"
            "Keep one of the two."
        )
    if not found:
        raise DataError(
            f"{folder}: neither RGB-CAM... / LIDAR... nor RGB_IMG / PCD folders, "
            f"found {', '.join(sorted(names)[:6]) or 'none'}."
            "\nUnpack the archive again, or remove the folder."
        )
    return found[0]


def _read_configurations(root: Path) -> dict[str, dict]:
    """Scenario id -> {kind, town, weather} from every Scenario_Configuration_Files folder."""
    known = {}
    for folder, below, files in os.walk(root, followlinks=True):
        path = Path(folder)
        if path.name.startswith("Scenario_") and path.name != "Scenario_Configuration_Files":
            below.clear()
            continue
        if path.name != "Scenario_Configuration_Files":
            continue
        for name in sorted(files):
            if not name.endswith(".json"):
                continue
            content = _read_json(path / name)
            for entry in content.get("scenarios", []):
                kind = entry.get("anomaly_config", {}).get("anomalytype", "unknown")
                known[str(entry.get("id"))] = {
                    "kind": str(kind).split(".")[-1],
                    "town": str(content.get("map", "unknown")),
                    "weather": str(entry.get("weather_preset", "unknown")),
                }
    return known


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object is expected, found a {type(content).__name__}.")
    return content


def _open_scenario(
    folder: Path, layout: str, configured: dict[str, dict], camera: str | None
) -> ScenarioFiles:
    scenario = ScenarioFiles(
        folder.name, folder, layout, **configured.get(folder.name.removeprefix("Scenario_"), {})
    )
    setup = _read_json(folder / "sensor_setup.json") if (folder / "sensor_setup.json").exists() else {}
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    chosen = {}
    for sensor, prefix in LAYOUTS[layout].items():
        candidates = [
            entry for entry in folders if re.fullmatch(re.escape(prefix) + r"([(_].*)?", entry.name)
        ]
        if sensor in ("image", "semantic_image") and len(candidates) > 1:
            candidates = [
                _choose_camera(candidates, camera if sensor == "image" else None, chosen.get("image"))
            ]
        elif len(candidates) > 1:
            candidates = [min(candidates, key=_distance_to_front)]
        if candidates:
            chosen[sensor] = candidates[0]
        scenario.files[sensor] = _frames_in(candidates[0], ENDINGS[sensor]) if candidates else {}
    if scenario.kind == "unknown" and scenario.files["anomaly"]:
        scenario.kind = "STATIC"
    if not any(scenario.files.values()):
        raise DataError(f"{folder}: its sensor folders hold no file named ..._<frame>.png or .npy.")
    scenario.assumed_calibration = not setup
    if scenario.files["image"]:
        scenario.projection = _calibrate(scenario, setup, chosen)
    return scenario


def _frames_in(folder: Path, endings: str) -> dict[int, Path]:
    pattern = re.compile(rf".*_(\d+)\.({endings})", re.IGNORECASE)
    with os.scandir(folder) as entries:
        matches = [pattern.fullmatch(entry.name) for entry in entries]
    return {int(match[1]): folder / match[0] for match in matches if match}


def _pose_in_name(name: str) -> list[float] | None:
    """x, y, z, roll, pitch, yaw of 'RGB-CAM(0, 0, 1.8)(0, 0, 0)_<hash>'."""
    match = re.search(r"\(([^()]*)\)\(([^()]*)\)", name)
    try:
        numbers = [float(number) for number in ",".join(match.groups()).split(",")] if match else []
    except ValueError:
        return None
    return numbers if len(numbers) == 6 else None


def _distance_to_front(folder: Path) -> float:
    pose = _pose_in_name(folder.name)
    return float("inf") if pose is None else sum(map(abs, (pose[0], pose[1], pose[3], pose[4], pose[5])))


def _choose_camera(candidates: list[Path], camera: str | None, image: Path | None) -> Path:
    """The front camera, the one `camera` names, or the semantic one in the pose of the `image` folder."""
    if image is not None:
        return next(
            (entry for entry in candidates if _pose_in_name(entry.name) == _pose_in_name(image.name)),
            candidates[0],
        )
    if camera:
        named = [entry for entry in candidates if camera in entry.name]
        if len(named) != 1:
            listed = "\n".join(f"  {entry.name}" for entry in candidates[:3])
            raise CommandError(
                f"--camera {camera!r} names {len(named)} of {len(candidates)} cameras "
                f"in {candidates[0].parent}; there are\n{listed}"
            )
        return named[0]
    return min(candidates, key=_distance_to_front)


def _calibrate(scenario: ScenarioFiles, setup: dict, chosen: dict[str, Path]) -> np.ndarray:
    camera = _sensor_in(setup, "RGB-CAM", chosen["image"], scenario.path)
    lidar = _sensor_in(setup, "LIDAR", chosen.get("points"), scenario.path)
    width, height = read_image_size(next(iter(scenario.files["image"].values())))
    try:
        fov = float(camera.get("args", {}).get("camera_fov", 90))
        return projection_matrix(width, height, fov, camera, lidar)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"{scenario.path / 'sensor_setup.json'}: location and rotation need three numbers each, "
            f"args.camera_fov one ({type(error).__name__}: {error})."
        ) from error


def _sensor_in(setup: dict, sensor_type: str, folder: Path | None, scenario: Path) -> dict:
    """A folder's entry in sensor_setup.json: the only one of its type, else the one in its pose."""
    entries = [
        entry
        for entry in setup.values()
        if isinstance(entry, dict) and entry.get("sensor_type") == sensor_type
    ]
    if not setup or folder is None:
        return FRONT
    if len(entries) == 1:
        return entries[0]
    pose = _pose_in_name(folder.name)
    for entry in entries:
        if pose == [float(number) for number in (*entry.get("location", ()), *entry.get("rotation", ()))]:
            return entry
    raise DataError(
        f"{scenario / 'sensor_setup.json'}: {len(entries)} sensors of type {sensor_type}, "
        f"none in the pose of {folder.name}."
    )


def projection_matrix(width: int, height: int, fov: float, camera: dict, lidar: dict) -> np.ndarray:
    """(3, 4) for `project`: from a LiDAR to a camera.

    Both are {"location": [x, y, z], "rotation": [roll, pitch, yaw]} as CARLA writes them. For one pose this
    is u = cx - f*y/x, v = cy - f*z/x with f = W/2 / tan(fov/2), in units of half the image.
    """
    lens = 1 / math.tan(math.radians(fov) / 2)  # focal length over half the width
    shape = np.array([[0.0, -lens, 0.0], [0.0, 0.0, -lens * width / height], [1.0, 0.0, 0.0]])
    turn = _turn(camera["rotation"]).T @ _turn(lidar["rotation"])
    shift = _turn(camera["rotation"]).T @ (_left(lidar["location"]) - _left(camera["location"]))
    return shape @ np.column_stack([turn, shift])


def _left(location) -> np.ndarray:
    """CARLA's y points right, that of the scans left."""
    return np.array([location[0], -location[1], location[2]], float)


def _turn(rotation) -> np.ndarray:
    """Vehicle from sensor axes (y left); CARLA's roll, pitch (looks up), yaw (turns right) in degrees."""
    roll, pitch, yaw = np.radians(rotation)
    about_z = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, -np.sin(pitch)], [0, 1, 0], [np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    return about_z @ about_y @ about_x
