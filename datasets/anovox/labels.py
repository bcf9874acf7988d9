"""Is there an anomaly in this frame? The ground truth on disk says so, or the frame is left out.

visible   (default) some sensor can see it: enough anomalous pixels in the semantic image, or enough anomalous
          points of the semantic LiDAR in the region that the model looks at. A frame before the object comes
          into view is normal.
scenario  every frame of an anomaly scenario (so the earlier attempt learned which archive a frame is from)
voxel     some voxel of the voxel grid is anomalous
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.anovox.files import NORMALITY, ScenarioFiles
from datasets.anovox.points import Region, read_points, read_voxels
from datasets.cache import open_cache
from datasets.images import read_image
from utils.run.errors import DataError

ANOMALY_IDS = (29, 30, 31, 32, 33, 34, 100)
LABELS = ("visible", "scenario", "voxel")
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

    def rows_of(self, names: list[str]) -> np.ndarray:
        """Rows of the scenarios of these names, ascending."""
        wanted = [index for index, scenario in enumerate(self.scenarios) if scenario.name in set(names)]
        return np.flatnonzero(np.isin(self.scenario, wanted))


def is_anomalous_image(pixels: np.ndarray, layout: str) -> np.ndarray:
    """(H, W) bool of a semantic image (H, W, 3).

    Anomalous is the class id in red, or the legacy colours (245, 0, 0) and (245, 29..34, 0).
    """
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if layout == "legacy":
        return (red == 245) & (blue == 0) & ((green == 0) | np.isin(green, ANOMALY_IDS))
    return np.isin(red, ANOMALY_IDS)


def is_anomalous_points(column: np.ndarray, layout: str) -> np.ndarray:
    """(N,) bool of the last column of a semantic scan: class ids, or the legacy colours as 0xRRGGBB."""
    if layout == "legacy":
        colour = column.astype(np.int64)
        return is_anomalous_image(
            np.stack([colour >> 16 & 255, colour >> 8 & 255, colour & 255], axis=-1), layout
        )
    return np.isin(column, ANOMALY_IDS)


def build_table(
    scenarios: list[ScenarioFiles],
    label: str = "visible",
    min_pixels: float = 20,
    min_points: int = 3,
    region: Region | None = None,
    modality: str = "both",
    allow_unlabelled: bool = False,
    **cache,
) -> FrameTable:
    """Label the frames that have the sensors needed; those that can not be labelled are only counted.

    `cache`: cache_dir, limit_gb, workers, log for open_cache. `allow_unlabelled` keeps label UNKNOWN (-1),
    for prediction. DataError when no frame is left, or none has a known label.
    """
    if label not in LABELS:
        raise ValueError(f"label {label!r} is none of {', '.join(LABELS)}")
    region = region or Region()
    needed = {"both": ("image", "points"), "camera": ("image",), "lidar": ("image", "points")}[modality]
    notes, rows = [], []
    for index, scenario in enumerate(scenarios):
        frames = scenario.frames_with(needed)
        every = set().union(*scenario.files.values())
        if scenario.missing():
            notes.append(
                f"{scenario.name}: missing {scenario.missing()}; {len(frames)} of {len(every)} frames usable"
            )
        rows += [(index, frame) for frame in frames]
    if not rows:
        raise DataError(
            f"no frame has {' and '.join(needed)} files with one frame number.\n" + "\n".join(notes[:3])
        )
    index, frame_id = (np.array(column, np.int64) for column in zip(*rows, strict=True))

    counted = _count_anomalies(scenarios, rows, region, cache)
    labels = np.array(
        [
            _decide(label, scenarios[i], frame, row, min_pixels, min_points)
            for (i, frame), row in zip(rows, counted, strict=True)
        ]
    )
    keep = np.full(len(labels), True) if allow_unlabelled else labels != UNKNOWN
    if not keep.any():
        raise DataError(
            f"none of {len(labels):,} frames has a label for --label {label}: "
            "no semantic images, semantic LiDAR, voxel files or scenario types were found.\n"
            "Labels are never invented: add the ground truth folders, or use another --label."
        )
    if unknown := int((labels == UNKNOWN).sum()):
        where = sorted({scenarios[i].name for i in index[labels == UNKNOWN]})
        notes.append(
            f"{unknown:,} of {len(labels):,} frames have no known label "
            f"({'kept' if allow_unlabelled else 'excluded'}): "
            f"{', '.join(where[:3])}{' ...' if len(where) > 3 else ''}"
        )
    words = np.array(
        [_read_anomaly_file(scenarios[i].files["anomaly"].get(frame)) for i, frame in rows], dtype=object
    )
    return FrameTable(
        scenarios,
        index[keep],
        frame_id[keep],
        labels[keep],
        counted[keep, 0],
        counted[keep, 1],
        counted[keep, 2],
        *(words[keep, column].astype(str) for column in range(3)),
        notes,
    )


def _decide(
    label: str, scenario: ScenarioFiles, frame: int, counted: np.ndarray, min_pixels: float, min_points: int
) -> int:
    """1, 0 or UNKNOWN for one frame; `counted` = pixels, points, distance, voxels, nan without a file."""
    pixels, points, _, voxels = counted
    if label == "scenario":
        return UNKNOWN if scenario.kind == "unknown" else int(scenario.kind != NORMALITY)
    if label == "voxel":
        return int(voxels > 0) if np.isfinite(voxels) else 0 if scenario.kind == NORMALITY else UNKNOWN
    if pixels >= min_pixels or points >= min_points:
        return 1
    if scenario.kind == NORMALITY:
        return 0
    # Not seen by what is there; unknown where a sensor's ground truth exists for the scenario, not the frame.
    lost = [key for key in _KEYS[:2] if scenario.files[key] and frame not in scenario.files[key]]
    return 0 if not lost and np.isfinite([pixels, points]).any() else UNKNOWN


def _count_anomalies(scenarios, rows, region: Region, cache: dict) -> np.ndarray:
    """(F, 4) float32 pixels, points, distance, voxels; read once, then from the cache."""
    jobs = [
        (scenarios[i].layout, *(scenarios[i].files[key].get(frame) for key in _KEYS)) for i, frame in rows
    ]
    folders = [scenarios[i].path for i, _ in rows]  # stand in where a frame has no ground truth at all
    sources = [next(filter(None, job[1:]), folder) for job, folder in zip(jobs, folders, strict=True)]
    described = [[_stamp(path) for path in job[1:]] for job in jobs]
    settings = {"region": region.settings(), "ids": ANOMALY_IDS, "columns": _COLUMNS, "files": described}
    stored = open_cache(
        "anovox_labels", settings, sources, [1] * len(jobs), (16,), partial(_count_job, jobs, region), **cache
    )
    return np.ascontiguousarray(stored[:]).view(np.float32)


def _stamp(path: Path | None) -> list:
    if path is None:
        return []
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _count_job(jobs: list, region: Region, k: int) -> np.ndarray:
    return count_frame(*jobs[k], region).view(np.uint8).reshape(1, 16)


def count_frame(
    layout: str, image: Path | None, scan: Path | None, grid: Path | None, region: Region
) -> np.ndarray:
    """(4,) float32: anomalous pixels at 768 x 512, points in the region, metres to the nearest, voxels.

    nan where there is no file.
    """
    pixels = points = distance = voxels = np.nan
    if image is not None:
        shown = is_anomalous_image(read_image(image, "RGB"), layout)
        pixels = shown.sum() * REFERENCE_AREA / shown.size
    if scan is not None:
        hits = read_points(scan)
        hits = hits[is_anomalous_points(hits[:, 3], layout)]
        hits = hits[region.contains(hits[:, :3])]
        points = len(hits)
        distance = np.linalg.norm(hits[:, :3], axis=1).min() if points else np.nan
    if grid is not None:
        voxels = np.isin(read_voxels(grid)[:, 3], ANOMALY_IDS).sum()
    return np.array([pixels, points, distance, voxels], np.float32)


def _read_anomaly_file(path: Path | None) -> tuple[str, str, str]:
    """Category, size and visibility from a csv of 'key ; value' lines; '' for what it does not say."""
    if path is None:
        return "", "", ""
    values = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(";")
        values[key.strip()] = value.strip()
    blueprint = values.get("anomaly_type_id", "")
    category = (
        blueprint.rsplit("_", 1)[-1] if blueprint.startswith("static.prop.") else blueprint.split(".")[0]
    )
    return category, values.get("size", ""), values.get("visibility", "")
