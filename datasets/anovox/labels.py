"""Labels of frames, from the ground truth on disk.

A frame without ground truth is left out, unless its scenario is of type NORMALITY. --label selects one of
four rules by which `Frame.label` calls a frame anomalous:

visible   (default) a sensor sees the anomaly: enough anomalous pixels in the semantic image, or enough
          anomalous points of the semantic LiDAR in the region that the model sees. A frame before the object
          comes into view is normal.
scenario  the scenario has an anomaly (a model may then learn to recognise drives instead of anomalies)
voxel     some voxel of the voxel grid is anomalous
pasted    an object was pasted into a copy of the frame (pasted.py). Recordings count as normal unless ground
          truth says otherwise; scenarios with anomalies become the test part and keep their own labels.
"""

import itertools
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np

from datasets.anovox.files import IMAGES, NORMALITY, SCANS, SENSORS, ScenarioFiles, plain
from datasets.anovox.frame import UNKNOWN, Frame, Region, cached_results
from utils.run.errors import DataError, some
from utils.run.log import LOG

# By --label: the ground truth that it needs, and the remedy if that is missing.
TRUTH = "semantic ground truth"
WANTED = {
    "visible": (TRUTH, "Add it, or use --label scenario or --label pasted --split_method random."),
    "pasted": (TRUTH, "Add it, or leave these scenarios out."),
    "scenario": ("scenario types", "Add Scenario_Configuration_Files, or use --label visible."),
    "voxel": ("voxel grids", "Add them, or use --label visible or --label scenario."),
}

BLOCK = re.compile(r":(\d+)-(\d+)$")  # ends the name of a block: first and last frame


class FrameTable:
    """One row per usable frame, in the order of scenarios and frame numbers; columns are numpy arrays."""

    def __init__(self, scenarios: list[ScenarioFiles], frames: list[Frame], notes: list[str]):
        """notes: sentences on what was left out and what is missing."""
        self.scenarios, self.frames, self.notes = scenarios, frames, notes
        self.left_out = ""  # the note on frames without a label, with a remedy
        self.scenario = np.array([frame.scenario.name for frame in frames])  # (F,)
        self.frame_id = np.array([frame.number for frame in frames])  # (F,)
        self.labels = np.full(len(frames), UNKNOWN)  # (F,) 0 normal, 1 anomaly
        # (F,) anomalous pixels and points, metres to the nearest such point; NaN = no ground truth or point
        self.anomalous_pixels, self.anomalous_points, self.distance = np.full((3, len(frames)), np.nan)
        # (F,) text from the ANOMALY csv, "" if unknown: home, animal, ...; tiny, small, medium, big; and, in
        # the built-in sample only, both, camera, lidar or conflict
        words = zip(*(_read_anomaly_file(frame.path("anomaly")) for frame in frames), strict=True)
        self.category, self.size, self.visibility = map(np.array, words)

    def rows_of(self, names: list[str]) -> np.ndarray:
        """Ascending rows of the named scenarios, or of blocks "NAME:FIRST-LAST" of their frames."""
        chosen = np.zeros(len(self.scenario), bool)
        for name in names:
            block = BLOCK.search(name)
            first, last = map(int, block.groups()) if block else (0, self.frame_id.max(initial=0))
            inside = (first <= self.frame_id) & (self.frame_id <= last)
            chosen |= inside & (self.scenario == scenario_of(name))
        return np.flatnonzero(chosen)


def scenario_of(name: str) -> str:
    """The scenario of a block "NAME:FIRST-LAST"; any other name as it is."""
    return BLOCK.sub("", name)


def build_table(
    scenarios: list[ScenarioFiles], label: str = "visible", min_pixels: float = 20, min_points: int = 3,
    modality: str = "both", coding: tuple[str, tuple[int, ...]] = Frame.coding, **cache,
) -> FrameTable:  # fmt: skip
    """Label the frames that have the required sensors; frames that cannot be labelled are only counted.

    `coding`: the palette (see find_palette) and the ids of anomalies. `cache`: cache_dir and limit_gb for
    open_cache. DataError if no frame is left."""
    frames, notes = _list_frames(scenarios, modality, coding)
    voxels = label == "voxel"
    counts = cached_results(
        frames, Frame.counts, shape=(4,), dtype=np.float32,
        sensors=("semantic_image", "semantic_points", *["voxels"] * voxels),
        settings={"with_voxels": voxels}, key={"region": asdict(Region())}, **cache,
    )[:]  # fmt: skip
    rows = zip(frames, counts, strict=True)
    labels = np.array([frame.label(label, row, min_pixels, min_points) for frame, row in rows])
    known, (wanted, remedy) = labels != UNKNOWN, WANTED[label]
    if not known.any():
        found = f"none of {len(labels):,} frames has a label for --label {label}: no {wanted}."
        other = "Add it, or use another --label; predict.py and evaluate.py --paste need no labels."
        raise DataError("\n".join([found, *notes[:3], other]))
    shown = itertools.compress(frames, labels == 1)
    if odd := [frame.scenario.name for frame in shown if frame.scenario.kind == NORMALITY]:
        what = (
            f"{len(odd)} frames of NORMALITY scenarios show classes of anomalies: {some(sorted({*odd}), 3)}"
        )
        LOG.warning(f"{what}; is the configuration theirs, and are these the --anomaly_ids of the data?")
    table = FrameTable(scenarios, list(itertools.compress(frames, known)), notes)
    table.labels = labels[known]
    table.anomalous_pixels, table.anomalous_points, table.distance, _ = counts[known].T
    if left := [frame.scenario.name for frame in itertools.compress(frames, ~known)]:
        note = f"left out: {len(left):,} of {len(labels):,} frames have no label, for lack of {wanted}"
        note += f": {some(sorted({*left}), 3)}"
        table.notes.append(note)
        table.left_out = f"\n{note}\n{remedy}"
    return table


def unlabelled_table(scenarios: list[ScenarioFiles], modality: str) -> FrameTable:
    """All frames, for prediction: labels are UNKNOWN."""
    return FrameTable(scenarios, *_list_frames(scenarios, modality, images_alone=True))


def _list_frames(
    scenarios: list[ScenarioFiles], modality: str, coding=Frame.coding, images_alone: bool = False
) -> tuple[list[Frame], list[str]]:
    """The frames that have the required sensors, and notes on what is missing. `images_alone`: if no scenario
    has a LiDAR, the camera is enough. DataError if there is no such frame."""
    if odd := [scenario.name for scenario in scenarios if BLOCK.search(scenario.name)]:
        raise DataError(f"{some(odd, 3)}: a name that ends so means a block of frames.\nRename the folder.")
    needed = ("image",) if modality == "camera" else ("image", "points")
    notes, frames = _name_sensors(scenarios), []
    _warn_of_counters(scenarios)
    if modality == "both" and images_alone and not any(s.files["points"] for s in scenarios):
        needed = ("image",)
        LOG.warning("no LiDAR: the camera alone is used; unless trained on such frames, scores mean nothing")
    gaps = {}  # {what is missing: the scenarios that lack it}
    for scenario in scenarios:
        numbers = scenario.frames_with(needed)
        if missing := scenario.missing():
            every = len(set().union(*scenario.files.values()))
            what = f"missing {missing}; {len(numbers)} of {every} frames usable"
            gaps.setdefault(what, []).append(scenario.name)
        frames += [Frame(scenario, number, coding) for number in numbers]
    notes += [f"{some(names, 1)}: {missing}" for missing, names in gaps.items()]
    if not frames:
        folders = sorted(entry.name for entry in scenarios[0].path.iterdir() if entry.is_dir())
        there = f"{scenarios[0].name} has the folders {some(folders, 6) or 'none'}"
        absent = {
            "image": f"There is no camera image (.{', .'.join(IMAGES)}) in RGB-CAM... or RGB_IMG; {there}.",
            "points": f"There is no LiDAR scan (.{', .'.join(SCANS)}) in LIDAR... or PCD; {there}. "
            "Add some, or use --modality camera.",
        }
        wrong = [absent[sensor] for sensor in needed if not any(s.files[sensor] for s in scenarios)]
        matched = "Files are matched by the last number in their names: it must be the same for one moment."
        listed = "\n".join([*notes[:3], *(wrong or [matched])])
        raise DataError(f"no frame number has files of {' and '.join(needed)}.\n{listed}")
    return frames, notes


def _warn_of_counters(scenarios: list[ScenarioFiles]) -> None:
    """Warn if images and scans seem to be numbered by counters of their own: without gaps, but at different
    rates, or as many from different numbers on."""
    for scenario in scenarios:
        images, scans = (sorted(scenario.files[sensor]) for sensor in ("image", "points"))
        gapless = all(n and n[-1] - n[0] == len(n) - 1 for n in (images, scans))
        fewer, more = sorted((len(images), len(scans)))
        if gapless and (more > 1.5 * fewer if images[0] == scans[0] else more == fewer):
            found = " and ".join(f"{n[0]} to {n[-1]}" for n in (images, scans))
            remedy = "if each sensor counts for itself, rename the files: one number, one moment"
            LOG.warning(f"{scenario.name} has images and scans with the numbers {found}; {remedy}")
            return


def _name_sensors(scenarios: list[ScenarioFiles]) -> list[str]:
    """The chosen folders of camera and LiDAR, without hashes, unless their names say nothing more."""
    chosen, kinds = set(), SENSORS["image"][0] + SENSORS["points"][0]
    for scenario in scenarios:
        names = [name for sensor in ("image", "points") if (name := scenario.folders.get(sensor))]
        if not {*map(plain, names)} <= {*kinds, plain(scenario.name)}:
            chosen.add(" and ".join(map(name_sensor, names)))
    return [f"sensors: {names}" for names in sorted(chosen)]


def name_sensor(folder: str) -> str:
    """The name of a sensor's folder without the hash behind its pose."""
    return folder[: folder.rfind(")") + 1] or folder


def _read_anomaly_file(path: Path | None) -> tuple[str, str, str]:
    """Category, size and visibility from a csv of 'key ; value' lines; '' if missing."""
    text = path.read_text(encoding="utf-8", errors="replace") if path else ""
    values = {key.strip(): value.strip() for key, _, value in (s.partition(";") for s in text.splitlines())}
    blueprint = values.get("anomaly_type_id", "")
    static = blueprint.startswith("static.prop.")
    category = blueprint.rsplit("_", 1)[-1] if static else blueprint.split(".")[0]
    return category, values.get("size", ""), values.get("visibility", "")
