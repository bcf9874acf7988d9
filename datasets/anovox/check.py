"""What --check_data prints: every file opened once, each sensor described, all problems together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from datasets.anovox.classes import point_classes, read_class_image, tell_palette
from datasets.anovox.files import ENDINGS, AnyPath, ScenarioFiles, some_semantic
from datasets.anovox.points import project, read_points, read_voxels
from datasets.images import read_image
from utils.metrics.detection import frame_seconds
from utils.run.errors import DataError

AGREEMENT_FRAMES = 12
SHOWN = 20  # problems


def check_frames(
    scenarios: list[ScenarioFiles], anomaly_ids: tuple[int, ...], frame_rate: float = 10.0
) -> Iterator[str]:
    """Lines that describe the sensors of a data set; then one DataError with every file that is broken."""
    problems: list[str] = []
    palette = tell_palette(some_semantic(scenarios), anomaly_ids)
    for sensor in ENDINGS:
        ids, read, endings, unread = Counter(), 0, Counter(), Counter()
        for scenario in scenarios:
            files = scenario.files.get(sensor, {})
            unread.update(scenario.unread.get(sensor, {}))
            for path in tqdm(files.values(), desc=f"{scenario.name} {sensor}", disable=None, leave=False):
                try:
                    ids.update(_open(sensor, path, palette))
                    read += 1
                    endings[path.suffix] += 1
                except DataError as error:
                    problems.append(str(error).splitlines()[0])
        line = f"{sensor}: {read:,} files read ({_counts(endings) or 'none'})"
        line += f", not read: {_counts(unread)}" if unread else ""
        yield line + (f"; ids {_counts(ids)}" if ids else "")
    for sensor in ("image", "points"):
        folders = Counter(s.folders.get(sensor, "none").rpartition("_")[0] or "none" for s in scenarios)
        yield f"{'camera' if sensor == 'image' else 'LiDAR'} chosen: {_counts(folders)} (scenarios)"
    steps = []
    for scenario in scenarios:
        seconds = frame_seconds(np.array(sorted(set().union(*scenario.files.values()))), frame_rate)
        steps += [float(np.median(np.diff(seconds)))] if len(seconds) > 1 else []
    if steps:
        yield f"a frame every {np.median(steps):.3g} s (numbers: ticks of {frame_rate:g} Hz or nanoseconds)"
    yield _agreement(scenarios, palette, problems)
    if problems:
        more = [f"... and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN)
        raise DataError("\n".join([f"{len(problems)} problems:", *problems[:SHOWN], *more]))


def _counts(counter: Counter) -> str:
    return ", ".join(f"{name} x {count:,}" for name, count in sorted(counter.items(), key=str))


def _open(sensor: str, path: AnyPath, palette: str) -> dict[int, int]:
    """Read one file to its end; what class ids it holds, by the number of pixels, points or voxels."""
    if sensor == "image":
        read_image(path)
    elif sensor == "points":
        read_points(path)
    elif sensor == "anomaly":
        path.read_text(encoding="utf-8", errors="replace")
    else:
        if sensor == "semantic_image":
            classes = read_class_image(path, palette)
        elif sensor == "semantic_points":
            classes = point_classes(read_points(path, classes=True)[:, 3], palette, path)
        else:
            classes = read_voxels(path)[:, 3]
        return dict(zip(*(part.tolist() for part in np.unique(classes, return_counts=True)), strict=True))
    return {}


def _agreement(scenarios: list[ScenarioFiles], palette: str, problems: list[str]) -> str:
    """How often image and scan name the same class where a point falls, as recorded and mirrored in y."""
    agree, seen = np.zeros(2), 0
    both = ("image", "semantic_image", "semantic_points")
    frames = [(scenario, frame) for scenario in scenarios for frame in scenario.frames_with(both)]
    for scenario, frame in frames[:: max(1, len(frames) // AGREEMENT_FRAMES)]:
        image, scan = scenario.files["semantic_image"][frame], scenario.files["semantic_points"][frame]
        try:
            classes = read_class_image(image, palette)
            points = read_points(scan, classes=True, turn=scenario.turn)
            ids = point_classes(points[:, 3], palette, scan)
        except DataError:
            continue  # it is among the problems already
        height, width = classes.shape
        for mirrored in (0, 1):
            sides = points[:, :3] * (1, -1 if mirrored else 1, 1)
            pixels = project(sides, scenario.projection)
            inside = pixels[:, 0] < 2
            u, v = ((pixels[inside] + 1) / 2 * (width, height)).astype(int).T
            same = classes[np.minimum(v, height - 1), np.minimum(u, width - 1)] == ids[inside]
            agree[mirrored] += same.mean() if len(same) else 0
        seen += 1
    if not seen:
        return "whether LiDAR and image agree can not be told: no frame has semantics of both"
    kept, mirrored = agree / seen
    if mirrored > kept + 0.05:
        problems.append(
            f"LiDAR and image name the same class at {kept:.0%} of the points, "
            f"with y mirrored at {mirrored:.0%}: y must point to the left.\nNegate the y of the scans, or "
            "correct sensor_setup.json."
        )
    return f"LiDAR and image name the same class at {kept:.0%} of the points ({mirrored:.0%} with y mirrored)"
