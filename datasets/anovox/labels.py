"""Is there an anomaly in this frame? The ground truth on disk says so, or the frame is left out.

visible   (default) some sensor can see it: enough anomalous pixels in the semantic image, or enough anomalous
          points of the semantic LiDAR in the region that the model looks at. A frame before the object comes
          into view is normal.
scenario  every frame of an anomaly scenario (a model may then learn which drive it is, not what it shows)
voxel     some voxel of the voxel grid is anomalous
pasted    recordings are taken as normal where nothing says otherwise, and things are pasted into copies of
          their frames (pasted.py); scenarios that hold anomalies are the test part, with their own labels
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from datasets.anovox.classes import ANOMALY_IDS, point_classes, read_class_image, tell_palette
from datasets.anovox.files import NORMALITY, UNKNOWN_KIND, AnyPath, ScenarioFiles, some_semantic
from datasets.anovox.points import Region, read_points, read_voxels
from datasets.cache import open_cache
from utils.run.errors import DataError

LABELS = ("visible", "scenario", "voxel", "pasted")
UNKNOWN = -1
REFERENCE_AREA = 512 * 768  # --min_pixels is meant for this image size
_KEYS = ("semantic_image", "semantic_points", "voxels")
_COLUMNS = ("pixels", "points", "distance", "voxels")


@dataclass
class FrameTable:
    """One row per usable frame, in the order of scenarios and frame numbers; columns are numpy arrays."""

    scenarios: list[ScenarioFiles]
    scenario: np.ndarray  # (F,) index into scenarios
    frame_id: np.ndarray  # (F,)
    labels: np.ndarray  # (F,) 0 normal, 1 anomaly
    pixels: np.ndarray  # (F,) anomalous pixels, scaled to 768 x 512; nan = no semantic image
    points: np.ndarray  # (F,) anomalous LiDAR points in the region; nan = no semantic LiDAR
    distance: np.ndarray  # (F,) metres to the nearest of them; nan = none
    category: np.ndarray  # (F,) text from ANOMALY csv: home, animal, nature, special, ...; '' where unknown
    size: np.ndarray  # (F,) text from ANOMALY csv: tiny, small, medium, big; '' where unknown
    visibility: np.ndarray  # (F,) text, on the built-in sample: both, camera, lidar, conflict; '' elsewhere
    notes: list[str]  # what was left out and what is missing, one line each
    palette: str = "AnoVox"  # of semantic colours
    anomaly_ids: tuple[int, ...] = ANOMALY_IDS

    def rows_of(self, names: list[str]) -> np.ndarray:
        """Rows of the scenarios of these names, or blocks of one, "NAME:FIRST-LAST" frame; ascending."""
        chosen = np.zeros(len(self.scenario), bool)
        numbers = {scenario.name: number for number, scenario in enumerate(self.scenarios)}
        for name in names:
            whole, _, block = name.partition(":")
            if whole in numbers:
                first, last = map(int, block.split("-")) if block else (0, self.frame_id.max(initial=0))
                inside = (first <= self.frame_id) & (self.frame_id <= last)
                chosen |= inside & (self.scenario == numbers[whole])
        return np.flatnonzero(chosen)


def list_frames(
    scenarios: list[ScenarioFiles], modality: str, images_alone: bool = False
) -> tuple[list[tuple[int, int]], list[str]]:
    """(index of the scenario, frame number) of the frames with the sensors needed, and what is missing.

    `images_alone`: where no scenario has a LiDAR, frames of the camera will do. DataError without a frame.
    """
    needed = ("image",) if modality == "camera" else ("image", "points")
    notes, rows = _name_sensors(scenarios), []
    if len(needed) > 1 and images_alone and not any(s.files["points"] for s in scenarios):
        needed = ("image",)
        notes.append("no LiDAR: the camera alone is used")
    for index, scenario in enumerate(scenarios):
        frames = scenario.frames_with(needed)
        if missing := scenario.missing():
            every = len(set().union(*scenario.files.values()))
            notes.append(f"{scenario.name}: missing {missing}; {len(frames)} of {every} frames usable")
        rows += [(index, frame) for frame in frames]
    if not rows:
        listed = "\n".join(notes[:3])
        raise DataError(f"no frame has {' and '.join(needed)} files with one frame number.\n{listed}")
    return rows, notes


def build_table(
    scenarios: list[ScenarioFiles], label: str = "visible", min_pixels: float = 20, min_points: int = 3,
    modality: str = "both", anomaly_ids: tuple[int, ...] = ANOMALY_IDS, **cache,
) -> FrameTable:  # fmt: skip
    """Label the frames that have the sensors needed; those that can not be labelled are only counted.

    `cache`: cache_dir, limit_gb, workers, log for open_cache. DataError when no frame is left.
    """
    if label not in LABELS:
        raise ValueError(f"label {label!r} is none of {', '.join(LABELS)}")
    rows, notes = list_frames(scenarios, modality)
    anomaly_ids = tuple(anomaly_ids)
    palette = tell_palette(some_semantic(scenarios), anomaly_ids)
    counted = _count_anomalies(scenarios, rows, palette, anomaly_ids, cache)
    frames = zip(rows, counted, strict=True)
    labels = np.array(
        [_decide(label, scenarios[i], frame, row, min_pixels, min_points) for (i, frame), row in frames]
    )
    keep = labels != UNKNOWN
    if not keep.any():
        raise DataError(
            f"none of {len(labels):,} frames has a label for --label {label}: "
            "no semantic images, semantic LiDAR, voxel files or scenario types were found.\n"
            "Labels are never invented: add the ground truth folders, or use another --label."
        )
    if not keep.all():
        where = sorted({scenarios[rows[k][0]].name for k in np.flatnonzero(~keep)})
        listed = ", ".join(where[:3]) + " ..." * (len(where) > 3)
        unknown = f"{(~keep).sum():,} of {len(labels):,} frames have no known label (excluded)"
        notes.append(f"{unknown}: {listed}")
    return _make_table(scenarios, rows, labels, counted[:, :3], keep, notes, palette, anomaly_ids)


def unlabelled_table(scenarios: list[ScenarioFiles], modality: str) -> FrameTable:
    """All frames, for prediction: labels UNKNOWN, no ground truth is opened."""
    rows, notes = list_frames(scenarios, modality, images_alone=True)
    labels, keep = np.full(len(rows), UNKNOWN), np.full(len(rows), True)
    return _make_table(scenarios, rows, labels, np.full((len(rows), 3), np.nan), keep, notes)


def _make_table(scenarios, rows, labels, counted, keep, notes, *coding) -> FrameTable:
    index, frame_id = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    words = [_read_anomaly_file(scenarios[i].files["anomaly"].get(frame)) for i, frame in rows]
    columns = (index, frame_id, labels, *counted.T, *map(np.array, zip(*words, strict=True)))
    return FrameTable(scenarios, *(column[keep] for column in columns), notes, *coding)


def _name_sensors(scenarios: list[ScenarioFiles]) -> list[str]:
    """The folders of camera and LiDAR that were chosen where there were several, without their hashes."""
    chosen = set()
    for scenario in scenarios:
        names = [scenario.folders.get(sensor, "") for sensor in ("image", "points")]
        if ")" in names[0]:
            chosen.add(" and ".join(name.rpartition(")")[0] + ")" for name in names if name))
    return [f"sensors: {names}" for names in sorted(chosen)]


def _decide(
    label: str, scenario: ScenarioFiles, frame: int, counted: np.ndarray, min_pixels: float, min_points: int
) -> int:
    """1, 0 or UNKNOWN for one frame; `counted` = pixels, points, distance, voxels, nan without a file."""
    pixels, points, _, voxels = counted
    if label == "scenario":
        return UNKNOWN if scenario.kind == UNKNOWN_KIND else int(scenario.kind != NORMALITY)
    if label == "voxel":
        return int(voxels > 0) if np.isfinite(voxels) else 0 if scenario.kind == NORMALITY else UNKNOWN
    if pixels >= min_pixels or points >= min_points:
        return 1
    if scenario.kind == NORMALITY or (label == "pasted" and scenario.kind == UNKNOWN_KIND):
        return 0
    # Not seen by what is there; unknown where a sensor's ground truth exists for the scenario, not the frame.
    lost = [key for key in _KEYS[:2] if scenario.files[key] and frame not in scenario.files[key]]
    return 0 if not lost and np.isfinite([pixels, points]).any() else UNKNOWN


def _count_anomalies(scenarios, rows, palette: str, ids: tuple[int, ...], cache: dict) -> np.ndarray:
    """(F, 4) float32 pixels, points, distance, voxels; read once, then from the cache."""
    jobs = [(*(scenarios[i].files[k].get(frame) for k in _KEYS), scenarios[i].turn) for i, frame in rows]
    stats = [[path.stat() if path else None for path in job[:3]] for job in jobs]
    files = [[stat and [stat.st_size, stat.st_mtime_ns] for stat in row] for row in stats]
    settings = {"region": Region().settings(), "ids": ids, "palette": palette, "columns": _COLUMNS}
    settings |= {"files": files, "turns": [job[3] for job in jobs]}
    # The folder stands in where a frame has no ground truth at all.
    named = zip(jobs, rows, strict=True)
    sources = [next(filter(None, job[:3]), scenarios[i].path) for job, (i, _) in named]
    produce = partial(_count_job, jobs, palette, ids)
    stored = open_cache("anovox_labels", settings, sources, [1] * len(jobs), (16,), produce, **cache)
    return np.ascontiguousarray(stored[:]).view(np.float32)


def _count_job(jobs: list, palette: str, ids: tuple[int, ...], k: int) -> np.ndarray:
    """(1, 16) bytes of float32: anomalous pixels at 768 x 512, points in the region, metres to the nearest,
    voxels; nan where there is no file.
    """
    image, scan, grid, turn = jobs[k]
    pixels = points = distance = voxels = np.nan
    if image is not None:
        shown = np.isin(read_class_image(image, palette), ids)
        pixels = shown.sum() * REFERENCE_AREA / shown.size
    if scan is not None:
        hits = read_points(scan, classes=True, turn=turn)
        hits = hits[np.isin(point_classes(hits[:, 3], palette, scan), ids)]
        hits = hits[Region().contains(hits[:, :3])]
        points = len(hits)
        distance = np.linalg.norm(hits[:, :3], axis=1).min() if points else np.nan
    if grid is not None:
        voxels = np.isin(read_voxels(grid)[:, 3], ids).sum()
    return np.array([pixels, points, distance, voxels], np.float32).view(np.uint8).reshape(1, 16)


def _read_anomaly_file(path: AnyPath | None) -> tuple[str, str, str]:
    """Category, size and visibility from a csv of 'key ; value' lines; '' for what it does not say."""
    text = path.read_text(encoding="utf-8", errors="replace") if path else ""
    values = {key.strip(): value.strip() for key, _, value in (s.partition(";") for s in text.splitlines())}
    blueprint = values.get("anomaly_type_id", "")
    static = blueprint.startswith("static.prop.")
    category = blueprint.rsplit("_", 1)[-1] if static else blueprint.split(".")[0]
    return category, values.get("size", ""), values.get("visibility", "")
