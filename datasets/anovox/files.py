"""Finds AnoVox scenarios: layouts, archives, sensors, frames, and their calibration.

    Final_Output_2024_06_01-12_00/            or AnoVox_Dynamic_Mono_Town07/, may be nested
      Scenario_Configuration_Files/scenario_config_map_<Town>.json
      Scenario_<uuid4>/
        sensor_setup.json
        RGB-CAM(0, 0, 1.8)(0, 0, 0)_<hash>/..._<frame>.png       SEMANTIC-CAM(...)_<hash>/..._<frame>.png
        LIDAR(...)_<hash>/..._<frame>.npy                        SEMANTIC-LIDAR(...)_<hash>/..._<frame>.npy
        VOXEL_GRID/VOXEL_GRID_<frame>.npy                        ANOMALY/ANOMALY_<frame>.csv
the older layout, with scans as .pcd or .npy and classes as colours or ids:
Scenario_<id>/{RGB_IMG,SEMANTIC_IMG,PCD,SEMANTIC_PCD,VOXEL_GRID,ANOMALY}/<NAME>_<frame>.{png,pcd,npy,csv}
or, for prediction and pasting (--modality camera), a folder of images alone, <frame>.png or .jpg.

Any of these may be in archives (archives.py). Frame numbers are not zero-padded and sort as numbers; they
match the sensors of a scenario to each other.
"""

import contextlib
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.anovox import archives
from datasets.anovox.poses import apart, calibrate, pose_of
from datasets.images import CLUTTER
from utils.run.errors import CommandError, DataError, counted, some
from utils.run.folder import read_json
from utils.run.log import LOG

IMAGES, SCANS = ("png", "jpg", "jpeg"), ("npy", "pcd", "ply", "bin")
# How the names of a sensor's folders begin (see plain), and the endings of its files
SENSORS = {
    "image": (("RGB-CAM", "RGB-IMG"), IMAGES),
    "points": (("LIDAR", "PCD"), SCANS),
    "semantic_image": (("SEMANTIC-CAM", "SEMANTIC-IMG"), ("png",)),
    "semantic_points": (("SEMANTIC-LIDAR", "SEMANTIC-PCD"), SCANS),
    "voxels": (("VOXEL-GRID",), ("npy",)),
    "anomaly": (("ANOMALY",), ("csv",)),
}
NORMALITY, UNKNOWN_KIND = "NORMALITY", "unknown"
KINDS = (NORMALITY, "STATIC", "SUDDEN_BREAKING_OF_VEHICLE_AHEAD")
DEPTH = 8  # levels below the given root that are searched for scenarios
# A date and time of day that end a name: 2024-06-01_12-00-59.9, IMG_20240601_120059
CLOCK = re.compile(r"(?:.*\D)?(20\d\d)-?(\d\d)-?(\d\d)[ T_-]*(\d\d)[-.:]?(\d\d)[-.:]?(\d\d)"
                   r"(?:\.(\d{1,9})|[-_]?(\d{3}|\d{6}|\d{9}))?\D*")  # fmt: skip


@dataclass
class ScenarioFiles:
    """One drive: its files by sensor and frame number, its type and place, and its calibration."""

    name: str
    path: Path
    kind: str = UNKNOWN_KIND  # NORMALITY, STATIC, SUDDEN_BREAKING_OF_VEHICLE_AHEAD or unknown
    town: str = "unknown"
    weather: str = "unknown"
    files: dict[str, dict[int, Path]] = field(default_factory=lambda: {sensor: {} for sensor in SENSORS})
    folders: dict[str, str] = field(default_factory=dict)  # sensor -> name of the chosen folder
    unread: dict[str, Counter] = field(default_factory=dict)  # sensor -> ending -> files not read
    image_size: tuple[int, int] | None = None  # width, height of its first image
    projection: np.ndarray | None = None  # (3, 4), see projection_matrix; None without a camera
    turn: np.ndarray | None = None  # (3, 3) from LiDAR axes to level ones, x along the camera's view
    assumed_calibration: bool = False  # no sensor_setup.json, or no camera_fov in it

    def frames_with(self, sensors: tuple[str, ...]) -> list[int]:
        """Ascending numbers of the frames that all these sensors recorded."""
        return sorted(set.intersection(*(set(self.files[sensor]) for sensor in sensors)))

    def missing(self) -> str:
        """What is missing, in words; '' if nothing is."""
        every = set().union(*self.files.values())
        gaps = []
        for sensor, files in self.files.items():
            absent, unread = len(every) - len(files), self.unread.get(sensor, {})
            if (absent or unread) and not (sensor == "anomaly" and self.kind == NORMALITY):
                others = ", ".join(f"{count} {ending}" for ending, count in unread.items())
                others = f" ({others} not read)" * bool(unread)
                lost = (absent or "none") if files else "all"
                gaps.append(f"{sensor} in {lost} of {len(every)} frames{others}")
        assumed = "sensor_setup.json or its camera_fov (fov 90 assumed, and one pose if folders name none)"
        return "; ".join(gaps + [assumed] * self.assumed_calibration)


def find_scenarios(
    root: Path | str, camera: str | None = None, images_alone: bool = False, problems: list | None = None,
    **cache,
) -> list[ScenarioFiles]:  # fmt: skip
    """All scenarios below `root`, a folder or an archive, sorted by name.

    `camera`: part of the name of the camera to use; default: the front camera. `images_alone`: if there is no
    scenario, a folder of images, or a single image, counts as one. `cache`: cache_dir and limit_gb for
    archives. CommandError for a wrong path or camera. DataError if there is no scenario, or two share a name.
    Broken scenarios raise one DataError; with `problems`, their errors are appended to it and the other
    scenarios are returned."""
    given, top = Path(root).resolve(), archives.unpack(Path(root), **cache)
    if images_alone and given.is_file() and given.suffix[1:].lower() in IMAGES:
        return _images_alone(given.parent, given.parent.name, _frames_in([given], IMAGES)[0] or {0: given})
    if not top.is_dir():
        known = ", ".join(archives.ENDINGS)
        raise CommandError(f"{root}: no such folder or archive ({known}).\nGive one with Scenario_...")
    paths = list(_walk(top, 0, cache))
    found = sorted(filter(Path.is_dir, paths), key=lambda folder: folder.name)
    folders = [folder for folder in found if folder.name.startswith("Scenario_")]
    if not folders:
        while len(below := list(top.iterdir())) == 1 and below[0].is_dir():
            (top,) = below
        if images_alone and (alone := _frames_in(below, IMAGES))[0]:
            return _images_alone(top, given.name, *alone)
        listed = ", ".join(sorted(entry.name for entry in below)[:6]) or "nothing"
        remedy = "Name each drive Scenario_NAME, its sensors' folders RGB_IMG and PCD. Numbered images alone "
        remedy += "(.png, .jpg) work with predict.py and --label pasted --modality camera."
        raise DataError(f"{root}: no Scenario_... folder within {DEPTH} levels; found {listed}.\n{remedy}")
    for first, second in itertools.pairwise(folders):
        if first.name == second.name:
            twice = f"scenario {first.name} is there twice: {first}, {second}"
            raise DataError(f"{twice}\nRemove or rename one: a copy could land in two splits.")
    inside = {parent for folder in folders for parent in folder.parents}
    if others := [str(folder) for folder in found if folder not in inside.union(folders)]:
        what = f"{counted(len(others), 'folders')} of sensors left out: no name that begins with Scenario_"
        LOG.warning(f"{what}: {some(others, 3)}")
    configured = {}
    for path in itertools.filterfalse(Path.is_dir, paths):  # a link that leads nowhere is an error
        for name, about in _read_configuration(path):
            if configured.setdefault(name, about) != about:
                two = " and ".join(", ".join(each.values()) for each in (configured[name], about))
                raise DataError(f"{path}: scenario {name} is {two}.\nRemove the configuration of other data.")
    scenarios, errors = [], [] if problems is None else problems
    for folder in folders:
        try:
            scenarios.append(_open_scenario(folder, configured, camera))
        except DataError as error:
            errors.append(str(error))
    if errors and (problems is None or not scenarios):
        raise DataError(some(errors, 3, "\n"))
    lost = [s.name for s in scenarios if s.name.removeprefix("Scenario_") not in configured]
    if configured and lost:
        known = f"type and town are unknown: {some(lost, 2)} (there is {min(configured)})"
        LOG.warning(f"{len(lost)} of {len(scenarios)} scenarios are in no configuration, so that {known}")
    return scenarios


def _walk(folder: Path, depth: int, cache: dict, top: bool = True) -> Iterator[Path]:
    """Folders of scenarios, of sensors under other names, and configuration files below a folder. top: it was
    given, or unpacked; named Scenario_..., it may still only contain the scenario's folder."""
    configuration, sensors = folder.name == "Scenario_Configuration_Files", _has_sensors(folder)
    scenario = not configuration and folder.name.startswith("Scenario_") and (sensors or not top)
    if scenario or sensors:
        yield folder
    if not scenario and (configuration or depth < DEPTH):
        hidden = (".", "__MACOSX", archives.PLACE)  # files of macOS; our cache
        shown = [entry for entry in folder.iterdir() if not entry.name.startswith(hidden)]
        for entry in sorted(shown, key=lambda entry: entry.name):
            if (unpacked := archives.unpack(entry, **cache)).is_dir():
                yield from _walk(unpacked, depth + 1, cache, top=entry != unpacked)
            elif archives.UNREAD.fullmatch(entry.name.lower()):
                LOG.warning(f"{entry} is left out: unpack it (join its parts), or download it again")
            elif re.fullmatch(r".*\.json" if configuration else r"scenario_config_map_.*\.json", entry.name):
                yield entry


def _read_configuration(path: Path) -> list[tuple[str, dict]]:
    """(scenario id, {kind, town, weather}) in {"scenario_definition": {"map", "scenarios"}}, or unwrapped."""
    content = read_json(path, dict, DataError)
    content, known = content.get("scenario_definition", content), []
    try:
        for entry in content["scenarios"]:
            kind = str((entry.get("anomaly_config") or {}).get("anomalytype")).split(".")[-1].upper()
            kind = kind if kind in KINDS else UNKNOWN_KIND  # an unknown word must not become a label
            inside = entry["ego_route"] if isinstance(entry.get("ego_route"), dict) else {}
            weather = entry.get("weather_preset") or inside.get("weather_preset", "unknown")
            about = {"kind": kind, "town": str(content.get("map", "unknown")), "weather": str(weather)}
            known.append((str(entry["id"]).removeprefix("Scenario_"), about))
    except (KeyError, TypeError, AttributeError) as error:
        wanted = '{"scenario_definition": {"map": TOWN, "scenarios": [{"id": ...}]}}'
        what = f"no configuration of scenarios ({type(error).__name__}: {error})"
        raise DataError(f"{path}: {what}; expected {wanted}.") from error
    return known


def _has_sensors(folder: Path) -> bool:
    starts = SENSORS["image"][0] + SENSORS["points"][0]
    return any(plain(entry.name).startswith(starts) for entry in folder.iterdir() if entry.is_dir())


def plain(name: str) -> str:
    """A folder's name however it is written: AnoVox itself has both SEMANTIC-CAM and DEPTH_CAM."""
    return name.upper().replace("_", "-")


def _open_scenario(folder: Path, configured: dict, camera: str | None) -> ScenarioFiles:
    folders = sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    if not _has_sensors(folder):
        listed = some((entry.name for entry in folders), 6) or "none"
        what = f"no RGB-CAM..., LIDAR..., RGB_IMG or PCD; found {listed}"
        raise DataError(f"{folder}: {what}.\nName them so, unpack it again, or remove it.")
    known = configured.get(folder.name.removeprefix("Scenario_"), {})
    scenario = ScenarioFiles(folder.name, folder, **known)
    path = folder / "sensor_setup.json"
    setup, apart_from = read_json(path, dict, DataError) if path.exists() else {}, {}
    for sensor, (names, endings) in SENSORS.items():
        pattern = re.compile(rf"({'|'.join(names)})([^A-Z].*)?")
        if candidates := [entry for entry in folders if pattern.fullmatch(plain(entry.name))]:
            if len({pattern.fullmatch(plain(entry.name))[1] for entry in candidates}) > 1:
                what = f"{sensor} stands in folders of both AnoVox layouts"
                listed = some(entry.name for entry in candidates)
                raise DataError(f"{folder}: {what}: {listed}.\nKeep those of one export.")
            chosen = _choose(sensor, candidates, camera, scenario.folders, setup)
            scenario.folders[sensor] = chosen.name
            files, unread = _frames_in(chosen.iterdir(), endings)
            view = sensor.removeprefix("semantic_")
            ends = {entry: pattern.fullmatch(plain(entry.name))[2] for entry in candidates}
            others = apart_from.setdefault(view, {*ends.values()} - {ends[chosen]})
            partner = scenario.folders.get(view, "")
            both = setup if {partner, chosen.name} <= setup.keys() else {}  # else by their names
            distance = apart(pose_of(partner, both), pose_of(chosen.name, both))
            if distance > 0.01 or ends[chosen] in others:  # classes of another view
                files, unread = {}, unread + Counter({"in another pose": len(files)})
            scenario.files[sensor], scenario.unread[sensor] = files, unread
    texts = (path.read_text(errors="replace") for path in scenario.files["anomaly"].values())
    if scenario.kind == UNKNOWN_KIND and not all(re.search(r"is_alive\s*;\s*False", text) for text in texts):
        scenario.kind = "STATIC"
    if not any(scenario.files.values()):
        raise DataError(f"{folder}: its sensor folders hold no file named ..._<frame>.png or .npy.")
    if scenario.files["image"]:
        calibrate(scenario, setup)
    return scenario


def _images_alone(folder: Path, name: str, images: dict[int, Path], unread=()) -> list[ScenarioFiles]:
    alone = ScenarioFiles(name, folder, folders={"image": name}, unread={"image": Counter(unread)})
    alone.files["image"] = images
    calibrate(alone, {})
    return [alone]


def _frames_in(entries: Iterable[Path], endings: tuple[str, ...]) -> tuple[dict[int, Path], Counter]:
    """Files by the last number in their name, and counts of all other files by ending. Text may follow it, as
    in 12_rgb and photo (12), but not in (0, 0)_rgb. Seconds, as in cam_12.345 (but not cam1.345), become
    nanoseconds, and so do dates with a time of day, unless all files have that of the same second, without a
    point: then it is when the recording began. DataError for two files with the same number."""
    number = r"(?:(?:.*[_ -])?(\d{1,10}\.\d{1,9})|(?:.*\D)?0*(\d{1,19}))"  # digits of an int64
    pattern = re.compile(rf"{number}(?:\)|[^\d)]\D*)?\.({'|'.join(endings)})", re.IGNORECASE)
    shown = sorted(e for e in entries if not e.name.startswith(".") and e.name.lower() not in CLUTTER)
    found = {entry: match for entry in shown if (match := pattern.fullmatch(entry.name))}
    clocks, frames = [_clock(entry.stem) for entry in found], {}
    timed = None not in clocks and (len({clock // 10**9 for clock in clocks}) > 1
                                    or all(re.search(r"\d\.\d+\D*$", e.stem) for e in found))  # fmt: skip
    for (entry, match), clock in zip(found.items(), clocks, strict=True):
        whole, dot, decimals = (match[1] or match[2]).partition(".")
        frame = clock if timed else int(whole + decimals.ljust(9 * len(dot), "0"))
        if (other := frames.setdefault(frame, entry)) != entry:
            twice = f"its frame number, the last number in its name, is that of {other.name}"
            remedy = "Keep one file per frame, one camera per folder, the frame number last in its name."
            raise DataError(f"{entry}: {twice}.\n{remedy}")
    others = (entry for entry in shown if entry not in found and not (found and entry.is_dir()))
    unread = Counter("folder" if entry.is_dir() else entry.suffix or "no ending" for entry in others)
    return frames, unread


def _clock(name: str) -> int | None:
    """The date and time of day that end a name, in nanoseconds; None if there is none."""
    with contextlib.suppress(ValueError):  # the 32nd of a month
        if match := CLOCK.fullmatch(name):
            *parts, dotted, other = match.groups()
            text = "{}-{}-{}T{}:{}:{}.{}".format(*parts, dotted or other or 0)
            return int(np.datetime64(text, "ns").astype(int))


def _choose(
    sensor: str, candidates: list[Path], camera: str | None, chosen: dict[str, str], setup: dict
) -> Path:
    """Choose among several folders of a sensor: the camera asked for, else the front camera.

    Other sensors: the pose nearest to the camera's, or to the LiDAR's for its labels. If poses are equal or
    unknown, the name with the longest common ending."""
    if sensor == "image" and (camera or not any(pose_of(entry.name, setup) for entry in candidates)):
        named = {entry.name: entry for entry in candidates if (camera or "") in entry.name}
        if len(named) != 1 and camera not in named:
            found = f"--camera {camera!r} names {len(named)} of {len(candidates)} cameras"
            found = found if camera else "no pose tells which camera looks ahead: name it with --camera"
            listed = some((entry.name for entry in candidates), between="\n")
            raise CommandError(f"{found}; there are\n{listed}")
        return named.get(camera, min(named.values()))
    partner = chosen.get("points" if sensor == "semantic_points" else "image", "")
    pose = pose_of(partner, setup) or [0, 0, 1.8, 0, 0, 0]

    def distance(entry: Path) -> tuple[float, int]:
        own, names = pose_of(entry.name, setup), [entry.name[::-1], partner[::-1]]
        alike = os.path.commonprefix(names)  # noqa: RUF071
        return apart(own, pose) if own else math.inf, -len(alike)

    first, *others = sorted(candidates, key=distance)
    if others and math.isinf(distance(first)[0]) and distance(first) == distance(others[0]):
        what = f"no pose tells which of {some((entry.name for entry in candidates), 3)} belongs to {partner}"
        raise DataError(f"{first.parent}: {what}.\nKeep one, or end both names alike.")
    return first
