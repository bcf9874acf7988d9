"""The checks of --check_data: read every file, describe each sensor, list all problems together."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from datasets.anovox.dataset import OUTSIDE, project
from datasets.anovox.files import SENSORS, ScenarioFiles
from datasets.anovox.frame import NEIGHBOUR, Frame, Region
from datasets.anovox.labels import name_sensor
from datasets.anovox.palettes import PALETTES, SKY
from datasets.anovox.pointclouds import read_voxels
from utils.metrics.detection import frame_seconds
from utils.run.errors import DataError, counted, some

LEAST_AGREEMENT = 0.7  # share of the points; on the sample .95, with y mirrored .64


def check_frames(
    scenarios: list[ScenarioFiles], palette: str, frame_rate: float = 10.0, found: Sequence[str] = ()
) -> Iterator[str]:
    """Lines that describe the sensors of a data set; then one DataError that lists every broken file and the
    problems `found` earlier."""
    problems = [problem.splitlines()[0] for problem in found]
    for sensor in SENSORS:
        ids, endings, unread = Counter(), Counter(), Counter()
        for scenario in scenarios:
            files = scenario.files[sensor]
            unread.update(scenario.unread.get(sensor, {}))
            for number in tqdm(files, desc=f"{scenario.name} {sensor}", disable=None, leave=False):
                try:
                    ids.update(_count_ids(Frame(scenario, number, (palette, ())), sensor))
                    endings[files[number].suffix] += 1
                except DataError as error:
                    problems.append(str(error).splitlines()[0])
        line = f"{sensor}: {endings.total():,} files read ({_list(endings) or 'none'})"
        line += f", not read: {_list(unread)}" if unread else ""
        yield line + (f"; ids {_list(ids)}" if ids else "")
    for sensor in ("image", "points"):
        folders = Counter(name_sensor(s.folders.get(sensor, "none")) for s in scenarios)
        yield f"{'camera' if sensor == 'image' else 'LiDAR'} chosen: {_list(folders)} (scenarios)"
    for name in ("kind", "town", "weather"):
        yield f"{name}: {_list(Counter(getattr(scenario, name) for scenario in scenarios))} (scenarios)"
    numbers = [np.array(sorted(set().union(*scenario.files.values()))) for scenario in scenarios]
    steps = [np.median(np.diff(frame_seconds(frames, frame_rate))) for frames in numbers if len(frames) > 1]
    if steps:
        yield f"a frame every {np.median(steps):.3g} s (numbers: ticks of {frame_rate:g} Hz, or times)"
    lines, doubts = agreement(scenarios, palette, frames=12)
    yield from lines
    if problems := problems + doubts:
        raise DataError(f"{counted(len(problems), 'problems')}:\n" + some(problems, 20, "\n"))


def _list(counter: Counter) -> str:
    return ", ".join(f"{name} x {count:,}" for name, count in sorted(counter.items(), key=str))


def _count_ids(frame: Frame, sensor: str) -> dict[int, int]:
    """Read a sensor's file to its end; {class id: pixels, points or voxels}."""
    classes = ()
    if sensor == "image":
        frame.image()
    elif sensor == "points":
        frame.scan()
    elif sensor == "anomaly":
        frame.path(sensor).read_text(encoding="utf-8", errors="replace")
    elif sensor == "semantic_image":
        classes = frame.pixel_classes()
    else:
        classes = frame.point_classes()[1] if sensor != "voxels" else read_voxels(frame.path(sensor))[:, 3]
    found, counts = np.unique(classes, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def agreement(scenarios: list[ScenarioFiles], palette: str, frames: int) -> tuple[list[str], list[str]]:
    """Lines on how often two sensors agree at the points of a scan: within a frame, with y mirrored, and
    across two scenarios (0 if there is only one); and lines on suspicious shares. frames: how many to compare
    per pair of sensors, roughly."""
    lines, doubts = [], []
    scan = "semantic_points" if any(scenario.files["semantic_points"] for scenario in scenarios) else "points"
    for agree, sensors, claim in (
        (_same_class, ("image", "semantic_image", scan), "LiDAR and image agree"),
        (_same_place, ("points", "semantic_points"), "LiDAR and semantic LiDAR have the same places"),
    ):
        found = [Frame(s, number, (palette, ())) for s in scenarios for number in s.frames_with(sensors)]
        found, shares = found[:: max(1, len(found) // frames)], []
        for k, frame in enumerate(found):
            other = found[k - len(found) // 2]
            with contextlib.suppress(DataError):  # already among the problems
                across = np.nan if other.scenario is frame.scenario else agree(frame, other)
                shares.append([agree(frame, frame), agree(frame, frame, -1), across])
        if not shares:
            if agree is _same_class:
                lines.append("whether LiDAR and image agree cannot be checked: no frame has labels of both")
            continue
        kept, mirrored, others = pd.DataFrame(shares).mean().fillna(0)  # NaN does not count
        claim = f"{claim} at {kept:.0%} of the points"
        if mirrored > kept + 0.05:
            remedy = "y must point to the left in every scan: negate it, or correct sensor_setup.json"
            doubts.append(f"{claim}, with y mirrored at {mirrored:.0%}; {remedy}")
        elif kept < LEAST_AGREEMENT and agree is _same_class:
            remedy = "scans need x forward, y left, z up, the sensor at the origin; check sensor_setup.json"
            doubts.append(f"{claim}, too few: wrong axes, or files of different frames? {remedy}")
        elif kept < min(0.9, others + 0.05) and scan != "points":
            remedy = "files mixed up between frames or scenarios? Copy each again to its scenario and number"
            doubts.append(f"{claim}, with files of other scenarios at {others:.0%}; {remedy}")
        lines.append(f"{claim} ({mirrored:.0%} with y mirrored, {others:.0%} in other scenarios)")
    return lines, doubts


def _same_class(frame: Frame, other: Frame, y_sign: int = 1) -> float:
    """Without a semantic LiDAR: the share of the points above the sensor that are not in the sky."""
    classes, known = other.pixel_classes(), frame.point_classes()
    places = frame.scan()[:, :3] if known is None else known[0]
    pixels, size = project(places * (1, y_sign, 1), frame.scenario.projection), classes.shape[::-1]
    inside = (pixels[:, 0] != OUTSIDE) & ((places[:, 2] > 0) if known is None else True)
    u, v = np.minimum((pixels[inside] + 1) / 2 * size, np.subtract(size, 1)).astype(int).T
    sky = PALETTES[frame.coding[0]][SKY]
    same = classes[v, u] != sky if known is None else classes[v, u] == known[1][inside]
    return same.mean() if inside.any() else 0


def _same_place(frame: Frame, other: Frame, y_sign: int = 1) -> float:
    from scipy.spatial import cKDTree  # slow to import

    points, places = frame.scan()[:, :3] * (1, y_sign, 1), other.point_classes()[0]
    points = points[Region().contains(points)]
    near = cKDTree(places).query(points, distance_upper_bound=NEIGHBOUR)[0] if len(places) else np.inf
    return np.isfinite(near).mean() if len(points) else 0
