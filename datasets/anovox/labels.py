"""Is there an anomaly in this frame? The ground truth on disk says so, or the frame is left out. And splits.

visible   (default) some sensor can see it: enough anomalous pixels in the semantic image, or enough anomalous
          points of the semantic LiDAR in the region that the model looks at. A frame before the object comes
          into view is normal.
scenario  every frame of an anomaly scenario (a model may then learn which drive it is, not what it shows)
voxel     some voxel of the voxel grid is anomalous
pasted    recordings are taken as normal where nothing says otherwise, and things are pasted into copies of
          their frames (pasted.py); scenarios that hold anomalies are the test part, with their own labels

Splits are by scenario, never by frame, with both classes in each part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.anovox.classes import ANOMALY_IDS, point_classes, read_class_image, tell_palette
from datasets.anovox.files import NORMALITY, UNKNOWN_KIND, AnyPath, ScenarioFiles, some_semantic
from datasets.anovox.points import Region, read_points, read_voxels
from datasets.cache import open_cache
from datasets.splits import check_disjoint, describe_fold, fold_groups, read_split, split_groups
from utils.run.errors import CommandError, DataError

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
                chosen |= (
                    (self.scenario == numbers[whole]) & (first <= self.frame_id) & (self.frame_id <= last)
                )
        return np.flatnonzero(chosen)


def build_table(
    scenarios: list[ScenarioFiles],
    label: str = "visible",
    min_pixels: float = 20,
    min_points: int = 3,
    region: Region | None = None,
    modality: str = "both",
    allow_unlabelled: bool = False,
    anomaly_ids: tuple[int, ...] = ANOMALY_IDS,
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
    notes, rows = _name_sensors(scenarios), []
    if needed != ("image",) and allow_unlabelled and not any(s.files["points"] for s in scenarios):
        needed = ("image",)
        notes.append("no LiDAR: the camera alone is used")
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

    anomaly_ids = tuple(anomaly_ids)
    palette = tell_palette(some_semantic(scenarios), anomaly_ids)
    counted = _count_anomalies(scenarios, rows, region, palette, anomaly_ids, cache)
    frames = zip(rows, counted, strict=True)
    labels = np.array(
        [_decide(label, scenarios[i], frame, row, min_pixels, min_points) for (i, frame), row in frames]
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
    words = [_read_anomaly_file(scenarios[i].files["anomaly"].get(frame)) for i, frame in rows]
    columns = (index, frame_id, labels, *counted.T[:3], *map(np.array, zip(*words, strict=True)))
    return FrameTable(scenarios, *(column[keep] for column in columns), notes, palette, anomaly_ids)


def _name_sensors(scenarios: list[ScenarioFiles]) -> list[str]:
    """The folders of camera and LiDAR that were chosen where there were several, without their hashes."""
    chosen = {
        " and ".join(
            s.folders[sensor].rpartition(")")[0] + ")"
            for sensor in ("image", "points")
            if sensor in s.folders
        )
        for s in scenarios
        if ")" in s.folders.get("image", "")
    }
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


def _count_anomalies(scenarios, rows, region: Region, palette: str, ids: tuple, cache: dict) -> np.ndarray:
    """(F, 4) float32 pixels, points, distance, voxels; read once, then from the cache."""
    jobs = [(*(scenarios[i].files[k].get(frame) for k in _KEYS), scenarios[i].turn) for i, frame in rows]
    # The folder stands in where a frame has no ground truth at all.
    named = zip(jobs, rows, strict=True)
    sources = [next(filter(None, job[:3]), scenarios[i].path) for job, (i, _) in named]
    described = [[_stamp(path) for path in job[:3]] + [job[3]] for job in jobs]
    settings = {"region": region.settings(), "ids": ids, "palette": palette, "columns": _COLUMNS}
    produce = partial(_count_job, jobs, region, palette, ids)
    settings["files"] = described
    stored = open_cache("anovox_labels", settings, sources, [1] * len(jobs), (16,), produce, **cache)
    return np.ascontiguousarray(stored[:]).view(np.float32)


def _stamp(path: AnyPath | None) -> list:
    if path is None:
        return []
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _count_job(jobs: list, region: Region, palette: str, ids: tuple[int, ...], k: int) -> np.ndarray:
    image, scan, grid, turn = jobs[k]
    return count_frame(palette, image, scan, grid, region, ids, turn).view(np.uint8).reshape(1, 16)


def count_frame(
    palette: str,
    image: AnyPath | None,
    scan: AnyPath | None,
    grid: AnyPath | None,
    region: Region,
    ids: tuple[int, ...] = ANOMALY_IDS,
    turn: float = 0.0,
) -> np.ndarray:
    """(4,) float32: anomalous pixels at 768 x 512, points in the region, metres to the nearest, voxels.

    nan where there is no file.
    """
    pixels = points = distance = voxels = np.nan
    if image is not None:
        shown = np.isin(read_class_image(image, palette), ids)
        pixels = shown.sum() * REFERENCE_AREA / shown.size
    if scan is not None:
        hits = read_points(scan, classes=True, turn=turn)
        hits = hits[np.isin(point_classes(hits[:, 3], palette, scan), ids)]
        hits = hits[region.contains(hits[:, :3])]
        points = len(hits)
        distance = np.linalg.norm(hits[:, :3], axis=1).min() if points else np.nan
    if grid is not None:
        voxels = np.isin(read_voxels(grid)[:, 3], ids).sum()
    return np.array([pixels, points, distance, voxels], np.float32)


def _read_anomaly_file(path: AnyPath | None) -> tuple[str, str, str]:
    """Category, size and visibility from a csv of 'key ; value' lines; '' for what it does not say."""
    if path is None:
        return "", "", ""
    values = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(";")
        values[key.strip()] = value.strip()
    blueprint = values.get("anomaly_type_id", "")
    static = blueprint.startswith("static.prop.")
    category = blueprint.rsplit("_", 1)[-1] if static else blueprint.split(".")[0]
    return category, values.get("size", ""), values.get("visibility", "")


def split_scenarios(
    table: FrameTable,
    root: Path | str,
    method: str = "auto",
    test_size: float = 0.2,
    val_size: float = 0.2,
    seed: int = 42,
    holdout_towns: list[str] | None = None,
    fold: str | None = None,
    pasted: bool = False,
) -> tuple[dict[str, list[str]], str, str]:
    """Scenario names of train, val and test, how they were split, and the check that none is shared.

    `method`: "auto" = split.json in `root` where there is one and no towns are held out, else "random";
    "random" = stratified by scenario type and town; or a path of a split file. `holdout_towns`: their
    scenarios are the test part. `fold`: "K/N" of `seed`, stratified alike, above all of these. `pasted`:
    scenarios with anomalies are the test part, if there are any, and fewer than three normal ones are cut
    into blocks of consecutive frames. DataError when a part lacks a class that nothing is pasted for: AUROC
    would mean nothing there.
    """
    present = [table.scenarios[i] for i in np.unique(table.scenario)]
    own = Path(root) / "split.json"
    if method == "auto" and own.exists() and not holdout_towns and not fold:
        method = str(own)
    if fold:
        strata = {s.name: f"{s.kind} {s.town}" for s in present}
        if pasted and (judged := _with_anomalies(table, present)):
            raise CommandError(
                f"--fold {fold}: with --label pasted the {len(judged)} scenarios with anomalies are "
                f"the test part, first {judged[0]}\nLeave --fold out, or give recordings without anomalies."
            )
        split, how = fold_groups(strata, fold, seed, strata), describe_fold(fold, seed)
    elif method in ("auto", "random") and pasted:
        split, how = _draw_normal(table, present, test_size, val_size, seed)
    elif method in ("auto", "random"):
        split, how = _draw_split(present, test_size, val_size, seed, holdout_towns)
    else:
        split = read_split(Path(method))
        how = "split.json in the data folder" if method == str(own) else f"--split_method {method}"
        named = {name.partition(":")[0] for names in split.values() for name in names}
        if strangers := sorted(named - {scenario.name for scenario in present}):
            raise DataError(
                f"{method} names {len(strangers)} scenarios without usable frames in {root}, "
                f"first {strangers[0]}.\nCorrect the file, or use --split_method random."
            )
    outcome = check_disjoint(split, unit="scenarios")
    for part, members in split.items():
        labels = table.labels[table.rows_of(members)]
        known = set(labels[labels != UNKNOWN].tolist())
        if members and known != {0, 1} and not (pasted and known == {0}):
            every = "anomalous" if known == {1} else "normal" if known == {0} else "without label"
            raise DataError(
                f"the {part} split has {len(members)} scenarios and {len(labels)} frames, all {every}: "
                "both classes are needed.\n"
                "Add scenarios of the other kind, change --seed or the sizes, or give a split file."
            )
    return split, how, outcome


def _draw_split(
    present: list[ScenarioFiles], test_size, val_size, seed, holdout_towns
) -> tuple[dict[str, list[str]], str]:
    strata = {scenario.name: f"{scenario.kind} {scenario.town}" for scenario in present}
    if not holdout_towns:
        split = split_groups(list(strata), test_size, val_size, seed, strata)
        return split, "random by scenario, stratified by type and town"
    towns = {scenario.name: scenario.town for scenario in present}
    if unknown := sorted(set(holdout_towns) - set(towns.values())):
        raise DataError(
            f"--holdout_towns {' '.join(unknown)}: no scenario lies there; "
            f"there are {', '.join(sorted(set(towns.values())))}."
        )
    held = sorted(name for name, town in towns.items() if town in holdout_towns)
    rest = {name: stratum for name, stratum in strata.items() if name not in held}
    split = split_groups(list(rest), 0, val_size, seed, rest) | {"test": held}
    return split, f"test = towns {', '.join(sorted(holdout_towns))}; the rest random by scenario"


def _with_anomalies(table: FrameTable, present: list[ScenarioFiles]) -> list[str]:
    found = {table.scenarios[i].name for i in table.scenario[table.labels == 1]}
    return sorted(s.name for s in present if s.kind not in (NORMALITY, UNKNOWN_KIND) or s.name in found)


def _draw_normal(
    table: FrameTable, present: list[ScenarioFiles], test_size, val_size, seed
) -> tuple[dict[str, list[str]], str]:
    """Train and val, and test where the data hold no anomaly, of normal recordings."""
    judged = _with_anomalies(table, present)
    normal = {s.name: s.town for s in present if s.name not in judged}
    size = 0 if judged else test_size
    how = "test = scenarios with anomalies; the rest" if judged else "normal recordings"
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": judged}
    if len(normal) >= 3:
        parts |= {k: v for k, v in split_groups(list(normal), size, val_size, seed, normal).items() if v}
        how += " random by scenario"
    else:
        how += " in blocks of consecutive frames: of one drive, nothing is independent"
        for name in normal:
            frames = np.sort(table.frame_id[table.rows_of([name])])
            tested = math.ceil(size * len(frames))
            kept = len(frames) - tested - max(1, round(val_size * (len(frames) - tested)))
            for part, block in zip(parts, np.split(frames, [kept, len(frames) - tested]), strict=True):
                parts[part] += [f"{name}:{block[0]}-{block[-1]}"] if len(block) else []
    if not parts["train"] or not parts["val"]:
        raise DataError(f"{len(normal)} normal recordings are too few to train and to validate on pastes.")
    return parts, how
