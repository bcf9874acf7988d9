"""Finding AnoVox scenarios: layouts, archives, sensors, frames, calibration.

    Final_Output_2024_06_01-12_00/            or AnoVox_Dynamic_Mono_Town07/, once more nested or not
      Scenario_Configuration_Files/scenario_config_map_<Town>.json
      Scenario_<uuid4>/
        sensor_setup.json
        RGB-CAM(0, 0, 1.8)(0, 0, 0)_<hash>/..._<frame>.png       SEMANTIC-CAM(...)_<hash>/..._<frame>.png
        LIDAR(...)_<hash>/..._<frame>.npy                        SEMANTIC-LIDAR(...)_<hash>/..._<frame>.npy
        VOXEL_GRID/VOXEL_GRID_<frame>.npy                        ANOMALY/ANOMALY_<frame>.csv
older, with scans as .pcd or .npy and classes as colours or ids:
Scenario_<id>/{RGB_IMG,SEMANTIC_IMG,PCD,SEMANTIC_PCD,VOXEL_GRID,ANOMALY}/<NAME>_<frame>.{png,pcd,npy,csv}
or a folder of images alone, <frame>.png or .jpg, for prediction.

Any of these may lie in zip, tar or tar.gz archives, which are read as they are. Frames are numbers without
leading zeros and sort as numbers; sensors are matched by them within a scenario. Poses are read from
sensor_setup.json; the pose in a folder's name only tells folders of one sensor apart.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.anovox.archives import ArchivePath, is_archive, open_archive
from datasets.anovox.calibration import FRONT, pose_in_name, projection_matrix, read_calibration, read_json
from datasets.images import read_image_size
from utils.run.errors import CommandError, DataError

LAYOUTS = {
    "current": ("RGB-CAM", "LIDAR", "SEMANTIC-CAM", "SEMANTIC-LIDAR", "VOXEL_GRID", "ANOMALY"),
    "legacy": ("RGB_IMG", "PCD", "SEMANTIC_IMG", "SEMANTIC_PCD", "VOXEL_GRID", "ANOMALY"),
}
IMAGES, SCANS = ("png", "jpg", "jpeg"), ("npy", "pcd", "ply", "bin")
ENDINGS = {"image": IMAGES, "points": SCANS, "semantic_image": ("png",), "semantic_points": SCANS,
           "voxels": ("npy",), "anomaly": ("csv",)}  # fmt: skip
CAMERAS = ("image", "semantic_image")
NORMALITY, UNKNOWN_KIND = "NORMALITY", "unknown"
CONFIGURATIONS = "Scenario_Configuration_Files"
DEPTH = 4  # folders between the given root and a scenario
AnyPath = Path | ArchivePath


@dataclass
class ScenarioFiles:
    """One drive: its files by sensor and frame number, and what is known about it."""

    name: str
    path: AnyPath
    layout: str
    kind: str = UNKNOWN_KIND  # NORMALITY, STATIC, SUDDEN_BREAKING_OF_VEHICLE_AHEAD or unknown
    town: str = "unknown"
    weather: str = "unknown"
    files: dict[str, dict[int, AnyPath]] = field(default_factory=dict)  # sensor -> frame -> file
    folders: dict[str, str] = field(default_factory=dict)  # sensor -> name of the chosen folder
    unread: dict[str, dict[str, int]] = field(default_factory=dict)  # sensor -> ending -> files not read
    projection: np.ndarray | None = None  # (3, 4), see points.project
    turn: float = 0.0  # degrees from the LiDAR's heading to the camera's, to the right
    assumed_calibration: bool = False  # no sensor_setup.json: fov 90 and one common pose

    def frames_with(self, sensors: tuple[str, ...]) -> list[int]:
        """Frame numbers, ascending, that all these sensors recorded."""
        return sorted(set.intersection(*(set(self.files[sensor]) for sensor in sensors)))

    def missing(self) -> str:
        """What a reader should know is not there, '' when nothing is."""
        every = set().union(*self.files.values())
        lacks = []
        for sensor, files in self.files.items():
            absent = len(every) - len(files)
            if absent and not (sensor == "anomaly" and self.kind == NORMALITY):
                lacks.append(f"{sensor} in {'all' if not files else absent} of {len(every)} frames")
        assumed = ["sensor_setup.json (fov 90 and one pose assumed)"] * self.assumed_calibration
        return "; ".join(lacks + assumed)


def find_scenarios(
    root: Path | str, camera: str | None = None, images_alone: bool = False
) -> list[ScenarioFiles]:
    """All scenarios below `root`, a folder or an archive, sorted by name.

    `camera`: part of the name of the camera to use, default the front one. `images_alone`: without a
    scenario, take a folder of images as one. CommandError for a wrong path or camera; DataError for no
    scenario, two of one name, or a mixture of the layouts; what is wrong with several scenarios is one error.
    """
    root = Path(root)
    if not root.is_dir() and not is_archive(root):
        remedy = "Give the folder that holds Scenario_... or AnoVox_... folders, or an archive of it."
        raise CommandError(f"{root}: no such folder or archive.\n{remedy}")
    places, configured = _walk(root)
    places.sort(key=lambda folder: folder.name)
    if not places and images_alone and (found := _images_alone(root)):
        return found
    if not places:
        names = sorted(entry.name for entry in root.iterdir())[:6] if root.is_dir() else ["no folder"]
        raise DataError(
            f"{root}: no Scenario_... folder within {DEPTH} levels; found {', '.join(names) or 'nothing'}.\n"
            "Give the folder that holds the AnoVox archives or their folders."
        )
    for first, second in itertools.pairwise(places):
        if first.name == second.name:
            raise DataError(
                f"scenario {first.name} is there twice:\n  {first}\n  {second}\n"
                "Remove one: it could land in two splits."
            )
    scenarios, problems = [], []
    for folder in places:
        try:
            scenarios.append(_open_scenario(folder, configured, camera))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(
            "\n".join(problems[:10] + [f"... and {len(problems) - 10} more"] * (len(problems) > 10))
        )
    layouts = {scenario.layout: scenario.path for scenario in scenarios}
    if len(layouts) > 1:
        examples = "\n".join(f"  {layout}: {folder}" for layout, folder in sorted(layouts.items()))
        raise DataError(
            f"{root} mixes both AnoVox layouts, whose labels are not coded alike:\n{examples}\n"
            "Give the folder of one of them."
        )
    return scenarios


def some_semantic(scenarios: list[ScenarioFiles]) -> list[AnyPath]:
    """A semantic image from the middle of up to eight scenarios."""
    with_images = [s.files["semantic_image"] for s in scenarios if s.files["semantic_image"]]
    some = with_images[:: max(1, len(with_images) // 8)]
    return [files[sorted(files)[len(files) // 2]] for files in some]


def _walk(root: Path) -> tuple[list[AnyPath], dict[str, dict]]:
    """Folders of scenarios, and {kind, town, weather} of every scenario id in the configuration files."""
    found, configured = [], {}
    level: list[AnyPath] = [open_archive(root) if is_archive(root) else root]
    for depth in range(DEPTH + 1):
        below = []
        for folder in level:
            if folder.name == CONFIGURATIONS:
                for file in folder.iterdir():
                    configured |= _read_configuration(file) if file.name.endswith(".json") else {}
            elif folder.name.startswith("Scenario_") and (_layouts_of(folder) or not _is_top(folder, depth)):
                found.append(folder)
            else:
                entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
                below += [
                    open_archive(e) if is_archive(e) else e for e in entries if e.is_dir() or is_archive(e)
                ]
        level = below
    return found, configured


def _is_top(folder: AnyPath, depth: int) -> bool:
    """What was given, or an archive: of one scenario it holds the folder or, bare, what is in that."""
    return depth == 0 or (isinstance(folder, ArchivePath) and not folder.inner)


def _read_configuration(path: AnyPath) -> dict[str, dict]:
    """As the generator writes it, {"scenario_definition": {"map", "scenarios"}}, or without that wrapper."""
    content = read_json(path)
    content = content.get("scenario_definition", content)
    known = {}
    try:
        for entry in content["scenarios"]:
            kind = str(entry.get("anomaly_config", {}).get("anomalytype", UNKNOWN_KIND)).split(".")[-1]
            route = entry.get("ego_route", {})
            weather = entry.get("weather_preset") or route.get("weather_preset", "unknown")
            town = str(content.get("map", "unknown"))
            known[str(entry["id"])] = {"kind": kind, "town": town, "weather": str(weather)}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: no configuration of scenarios ({type(error).__name__}: {error}); expected "
            '{"scenario_definition": {"map": TOWN, "scenarios": [{"id": ...}]}}.'
        ) from error
    return known


def _layouts_of(folder: AnyPath) -> list[str]:
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    return [layout for layout, sensors in LAYOUTS.items() if any(n.startswith(sensors[:2]) for n in names)]


def _open_scenario(folder: AnyPath, configured: dict[str, dict], camera: str | None) -> ScenarioFiles:
    folders = sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    listed = ", ".join(entry.name for entry in folders[:6]) or "none"
    layouts = _layouts_of(folder)
    if len(layouts) != 1:
        none = "no RGB-CAM..., LIDAR..., RGB_IMG or PCD"
        what = "holds folders of both AnoVox layouts" if layouts else none
        raise DataError(f"{folder}: {what}; found {listed}.\nUnpack it again, or remove the folder.")
    known = configured.get(folder.name.removeprefix("Scenario_"), {})
    scenario = ScenarioFiles(folder.name, folder, layouts[0], **known)
    chosen: dict[str, AnyPath] = {}
    for sensor, prefix in zip(ENDINGS, LAYOUTS[scenario.layout], strict=True):
        pattern = re.compile(re.escape(prefix) + r"([(_].*)?")
        candidates = [entry for entry in folders if pattern.fullmatch(entry.name)]
        if candidates:
            chosen[sensor] = _choose(sensor, candidates, camera, chosen)
            scenario.folders[sensor] = chosen[sensor].name
        found = _frames_in(chosen[sensor], ENDINGS[sensor]) if candidates else ({}, {})
        scenario.files[sensor], scenario.unread[sensor] = found
    if scenario.kind == UNKNOWN_KIND and scenario.files["anomaly"]:
        scenario.kind = "STATIC"
    if not any(scenario.files.values()):
        raise DataError(f"{folder}: its sensor folders hold no file named ..._<frame>.png or .npy.")
    if scenario.files["image"]:
        image, scan = (scenario.folders.get(sensor) for sensor in ("image", "points"))
        found = read_calibration(folder, image, scan, _first_size(scenario.files["image"]))
        scenario.projection, scenario.turn, scenario.assumed_calibration = found
    return scenario


def _frames_in(folder: AnyPath, endings: tuple[str, ...]) -> tuple[dict[int, AnyPath], dict[str, int]]:
    """Files by the last number in their name, and how many of other endings there are."""
    pattern = re.compile(rf"(?:.*\D)?(\d+)\.({'|'.join(endings)})", re.IGNORECASE)
    frames, others = {}, {}
    for entry in folder.iterdir():
        if match := pattern.fullmatch(entry.name):
            frames[int(match[1])] = entry
        else:
            ending = entry.suffix or "no ending"
            others[ending] = others.get(ending, 0) + 1
    return frames, others


def _choose(sensor: str, candidates: list[AnyPath], camera: str | None, chosen: dict) -> AnyPath:
    """Of several folders of a sensor: the camera asked for, else the front one, and what shares its pose.

    Without a LiDAR in the camera's pose the one nearest to it; the labels of a LiDAR have its pose.
    """
    if sensor == "image" and camera:
        named = [entry for entry in candidates if camera in entry.name]
        if len(named) != 1:
            listed = "\n".join(f"  {entry.name}" for entry in candidates)
            raise CommandError(
                f"--camera {camera!r} names {len(named)} of {len(candidates)} cameras "
                f"in {candidates[0].parent}; there are\n{listed}"
            )
        return named[0]
    partner = chosen.get("points" if sensor == "semantic_points" else "image")
    pose = (partner and pose_in_name(partner.name)) or [0, 0, 1.8, 0, 0, 0]

    def distance(entry: AnyPath) -> float:
        own = pose_in_name(entry.name)
        turn = 0 if own is None else abs((own[5] - pose[5] + 180) % 360 - 180) + abs(own[4] - pose[4])
        return math.inf if own is None else math.dist(own[:3], pose[:3]) + turn

    return min(candidates, key=distance)


def _first_size(images: dict[int, AnyPath]) -> tuple[int, int]:
    """(width, height) of the first image whose header can be read."""
    broken = None
    for frame in sorted(images):
        try:
            return read_image_size(images[frame])
        except DataError as error:
            broken = broken or error
    raise broken


def _images_alone(root: Path) -> list[ScenarioFiles]:
    """A folder (or archive) of images as one scenario without any other sensor."""
    folder = open_archive(root) if is_archive(root) else root
    frames, unread = _frames_in(folder, IMAGES)
    if not frames:
        return []
    files = {sensor: {} for sensor in ENDINGS} | {"image": frames}
    return [
        ScenarioFiles(
            root.resolve().name, folder, "images", files=files, folders={"image": root.name},
            unread={"image": unread}, assumed_calibration=True,
            projection=projection_matrix(*_first_size(frames), 90.0, FRONT, FRONT),
        )
    ]  # fmt: skip
