"""What --check_data prints: every file opened once, each sensor described, all problems together."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from datasets.anovox.dataset import OUTSIDE, project
from datasets.anovox.files import ENDINGS, ScenarioFiles
from datasets.anovox.frame import Frame, read_voxels
from datasets.anovox.labels import name_sensor
from utils.metrics.detection import frame_seconds
from utils.run.errors import DataError

AGREEMENT_FRAMES = 12
LEAST_AGREEMENT = 0.7  # of the points; true files of the sample reach .95, mirrored ones .64
SHOWN = 20  # problems
NO_INTENSITY = "scans without intensity (taken as 1 everywhere)"


def check_frames(
    scenarios: list[ScenarioFiles], palette: str, frame_rate: float = 10.0, found: Sequence[str] = ()
) -> Iterator[str]:
    """Lines that describe the sensors of a data set; then one DataError with every file that is broken, and
    what was `found` before."""
    problems = [problem.splitlines()[0] for problem in found]
    for sensor in ENDINGS:
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
        yield line + (f"; {'' if sensor == 'points' else 'ids '}{_list(ids)}" if ids else "")
    for sensor in ("image", "points"):
        folders = Counter(name_sensor(s.folders.get(sensor, "none")) for s in scenarios)
        yield f"{'camera' if sensor == 'image' else 'LiDAR'} chosen: {_list(folders)} (scenarios)"
    for what in ("kind", "town", "weather"):
        yield f"{what}: {_list(Counter(getattr(scenario, what) for scenario in scenarios))} (scenarios)"
    numbers = [np.array(sorted(set().union(*scenario.files.values()))) for scenario in scenarios]
    seconds = [frame_seconds(frames, frame_rate) for frames in numbers if len(frames) > 1]
    if seconds:
        step = np.median([np.median(np.diff(times)) for times in seconds])
        yield f"a frame every {step:.3g} s (numbers: ticks of {frame_rate:g} Hz, micro- or nanoseconds)"
    yield _agreement(scenarios, palette, problems)
    if problems:
        more = [f"... and {len(problems) - SHOWN} more"] * (len(problems) > SHOWN)
        raise DataError("\n".join([f"{len(problems)} problems:", *problems[:SHOWN], *more]))


def _list(counter: Counter) -> str:
    return ", ".join(f"{name} x {count:,}" for name, count in sorted(counter.items(), key=str))


def _count_ids(frame: Frame, sensor: str) -> dict[int | str, int]:
    """Read the file of a sensor to its end; what class ids it holds, by the number of pixels, points or
    voxels. Of a scan without intensity one NO_INTENSITY instead."""
    classes = ()
    if sensor == "image":
        frame.image()
    elif sensor == "points":
        intensity = frame.scan()[:, 3]
        return {NO_INTENSITY: 1} if len(intensity) and (intensity == 1).all() else {}
    elif sensor == "anomaly":
        frame.path(sensor).read_text(encoding="utf-8", errors="replace")
    elif sensor == "semantic_image":
        classes = frame.pixel_classes()
    else:
        classes = frame.point_classes()[1] if sensor != "voxels" else read_voxels(frame.path(sensor))[:, 3]
    found, counts = np.unique(classes, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _agreement(scenarios: list[ScenarioFiles], palette: str, problems: list[str]) -> str:
    """How often image and scan name the same class where a point falls, as recorded and mirrored in y."""
    shares = []  # per frame: as recorded, mirrored
    both = ("image", "semantic_image", "semantic_points")
    frames = [Frame(s, number, (palette, ())) for s in scenarios for number in s.frames_with(both)]
    for frame in frames[:: max(1, len(frames) // AGREEMENT_FRAMES)]:
        try:
            classes, (places, ids) = frame.pixel_classes(), frame.point_classes()
        except DataError:
            continue  # it is among the problems already
        size, share = classes.shape[::-1], []
        for side in (1, -1):
            pixels = project(places * (1, side, 1), frame.scenario.projection)
            inside = pixels[:, 0] != OUTSIDE
            u, v = np.minimum((pixels[inside] + 1) / 2 * size, np.subtract(size, 1)).astype(int).T
            share.append((classes[v, u] == ids[inside]).mean() if inside.any() else 0)
        shares.append(share)
    if not shares:
        return "whether LiDAR and image agree can not be told: no frame has semantics of both"
    kept, mirrored = np.mean(shares, axis=0)
    found = f"LiDAR and image name the same class at {kept:.0%} of the points"
    if mirrored > kept + 0.05:
        remedy = "y must point to the left: negate the y of the scans, or correct sensor_setup.json"
        problems.append(f"{found}, with y mirrored at {mirrored:.0%}; {remedy}")
    elif kept < LEAST_AGREEMENT:
        axes = "scans need x forward, y left, z up, the sensor at the origin; or correct sensor_setup.json"
        problems.append(f"{found} only: files of two moments, or other axes? {axes}")
    return f"{found} ({mirrored:.0%} with y mirrored)"
