"""Time, memory and growth at full scale: the index of all of JRDB, 300,000 AnoVox frames.

    python -m benchmarks jrdb_index anovox_frames

Every size runs in a fresh process, whose peak memory is its own.
"""

import contextlib
import gc
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Report
from benchmarks.timing import Timing, growth, peak_memory_mb, times_faster
from benchmarks.worker import in_a_process
from datasets import cache
from datasets.anovox.dataset import fit_image, load_anovox
from datasets.anovox.labels import count_frame
from datasets.anovox.points import Region, read_points, sample_points
from datasets.images import read_image
from datasets.jrdb.index import read_index
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER, PANORAMA_SIZE
from datasets.jrdb.pairs import PairRules, find_pairs
from datasets.jrdb.splits import OFFICIAL_TRAIN, OFFICIAL_VAL

SEQUENCES = (*OFFICIAL_TRAIN, *OFFICIAL_VAL)
FRAMES, PEOPLE, GROUP = 1153, 30, 3  # frames of a sequence, people in a frame, people in a group
RULES = PairRules()


def write_jrdb(folder: Path, sequences: int = len(SEQUENCES), frames: int = FRAMES) -> Path:
    """Label files of JRDB's size and form, made up; in every frame each person interacts with the next of
    its group. Every frame has an image; only a sequence's first, whose size is read, is more than a name."""
    for number, name in enumerate(SEQUENCES[:sequences]):
        rng, images = np.random.default_rng(number), folder / IMAGE_FOLDER / name
        images.mkdir(parents=True)
        content = {f"{frame:06d}.jpg": write_frame(frame, rng) for frame in range(frames)}
        for key in content:
            (images / key).touch()
        Image.new("RGB", PANORAMA_SIZE).save(images / f"{0:06d}.jpg")
        path = folder / LABEL_FOLDER / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"labels": content}))
    return folder


def write_frame(frame: int, rng: np.random.Generator) -> list[dict]:
    """The records of PEOPLE people, groups of GROUP side by side somewhere on the panorama."""
    heights = rng.integers(60, 250, PEOPLE)
    steps = np.tile(np.arange(GROUP) * 60, PEOPLE // GROUP)
    places = (np.repeat(rng.integers(0, 3760, PEOPLE // GROUP), GROUP) + steps) % 3760
    boxes = np.stack([places, 240 - heights // 2, (0.4 * heights).astype(int), heights], axis=1).tolist()
    records = []
    for person, box in enumerate(boxes):
        partners = [p for p in (person - 1, person + 1) if 0 <= p < PEOPLE and p // GROUP == person // GROUP]
        attributes = {"area": box[2] * box[3], "interpolated": False, "no_eval": False,
                      "occlusion": "Mostly_visible", "truncated": "false"}  # fmt: skip
        entries = [{"pair": f"pedestrian:{partner}", "box_pair": boxes[partner],
                    "inter_labels": {"conversation": 1}} for partner in partners]  # fmt: skip
        records.append({"action_label": {"standing": 1}, "attributes": attributes, "box": box,
                        "file_id": f"{frame:06d}.jpg", "label_id": f"pedestrian:{person}",
                        "social_activity": {"chatting": 1}, "H-interaction": entries,
                        "social_group": {"cluster_ID": person // GROUP, "cluster_stat": 1}})  # fmt: skip
    return records


def index_worker(folder: str) -> Callable[[], dict]:
    """Read all sequences, from the cache where they are in it, and find their pairs: seconds and counts."""
    paths = sorted((Path(folder) / LABEL_FOLDER).glob("*.json"))
    before = peak_memory_mb()

    def run() -> dict:
        lines, started = [], time.perf_counter()
        sequences = read_index(paths, Path(folder), cache_dir=Path(folder) / "cache", log=lines.append)
        read, started = time.perf_counter() - started, time.perf_counter()
        pairs = sum(find_pairs(sequence, RULES).total for sequence in sequences)
        return {
            "frames": sum(len(sequence.keys) for sequence in sequences),
            "boxes": sum(len(sequence.boxes) for sequence in sequences),
            "pairs": pairs,
            "read": read,
            "find": time.perf_counter() - started,
            "peak": peak_memory_mb() - before,
            "cached": any("read from" in line for line in lines),
            "columns": cache.fingerprint([vars(sequence) for sequence in sequences]),
        }

    return run


def parse_everything(folder: Path) -> float:
    """Seconds of json.loads alone, the collector off: what no reader of JSON can avoid."""
    gc.disable()
    started = time.perf_counter()
    for path in sorted((folder / LABEL_FOLDER).glob("*.json")):
        json.loads(path.read_bytes())
    gc.enable()
    return time.perf_counter() - started


def jrdb_index(report: Report, quick: bool) -> None:
    """Index of JRDB at full scale.

    From JSON at three sizes, and at full size from the cache, which must give the same columns.
    """
    sizes, frames = ([1, 2, 3], 100) if quick else ([3, 9, len(SEQUENCES)], FRAMES)
    with tempfile.TemporaryDirectory(prefix="jrdb_") as name:
        worlds = [write_jrdb(Path(name, str(size)), size, frames) for size in sizes]
        runs = [in_a_process("benchmarks.scale:index_worker", world) for world in worlds]
        warm = [in_a_process("benchmarks.scale:index_worker", worlds[-1]) for _ in range(2 if quick else 7)]
        parse = parse_everything(worlds[-1])
    cold = runs[-1]
    if cold["cached"] or not all(run["cached"] and run["columns"] == cold["columns"] for run in warm):
        raise AssertionError("the index from the cache is not the one from JSON")
    shown = {"frames": "d", "boxes": "d", "pairs": "d", "read": ".3g", "find": ".2g", "peak": ".0f"}
    named = zip([*sizes, f"{sizes[-1]}, from the cache"], [*runs, warm[0]], strict=True)
    rows = [[size, *(format(run[key], form) for key, form in shown.items())] for size, run in named]
    report.table(["sequences", "frames", "boxes", "pairs", "read s", "pairs s", "peak memory MB"], rows)
    exponents = [growth(sizes, [run[key] for run in runs]) for key in ("read", "find")]
    report.note(
        f"Growth: read ~ n^{exponents[0]:.2f}, pairs ~ n^{exponents[1]:.2f}. json.loads alone takes "
        f"{parse:.1f} s of the {cold['read']:.1f} s."
    )
    again, second = Timing([run["read"] for run in warm], [0]), Timing([1.0], [0])
    report.judge("full index from the cache, seconds", times_faster(again, second), at_most=0.2, unit=" s")
    peak = max(run["peak"] for run in (cold, *warm))
    report.judge("full index, peak memory in MB", peak, at_most=600, unit=" MB")


FRAMES_PER_SCENARIO = 200
SENSORS = {  # folder and file name as AnoVox writes them
    "RGB-CAM(0, 0, 1.8)(0, 0, 0)_0": "RGB-CAM_{}.png",
    "LIDAR(0, 0, 1.8)(0, 0, 0)_0": "LIDAR_{}.npy",
    "SEMANTIC-CAM(0, 0, 1.8)(0, 0, 0)_0": "SEMANTIC-CAM_{}.png",
    "SEMANTIC-LIDAR(0, 0, 1.8)(0, 0, 0)_0": "SEMANTIC-LIDAR_{}.npy",
}


def write_native_frame(folder: Path) -> list[Path]:
    """One frame of 768x512 pixels and 90,000 points: a file per entry of SENSORS."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).resize((768, 512))
    image = np.clip(np.asarray(smooth).astype(int) + rng.integers(-6, 7, (512, 768, 3)), 0, 255)
    classes = np.kron(rng.integers(0, 29, (16, 24), dtype=np.uint8), np.ones((32, 32), np.uint8))
    points = rng.normal(0, [15, 15, 1, 0.1], (90_000, 4)).astype(np.float32)
    labels = np.column_stack([points[:, :3], rng.integers(0, 29, len(points))]).astype(np.float32)
    paths = [folder / f"frame{k}{Path(file).suffix}" for k, file in enumerate(SENSORS.values())]
    Image.fromarray(image.astype(np.uint8)).save(paths[0])
    np.save(paths[1], points)
    Image.fromarray(np.repeat(classes[:, :, None], 3, axis=2)).save(paths[2])
    np.save(paths[3], labels)
    return paths


def write_anovox(folder: Path, frames: int, sources: list[Path]) -> Path:
    """Scenarios of FRAMES_PER_SCENARIO frames, every other one said to hold an anomaly: hard links to
    copies of `sources` (a file has 65,000 links at most)."""
    scenarios = range(frames // FRAMES_PER_SCENARIO)
    kinds = ({"anomalytype": ("NORMALITY", "STATIC")[scenario % 2]} for scenario in scenarios)
    entries = [{"id": f"{k:06d}", "anomaly_config": kind} for k, kind in enumerate(kinds)]
    place = folder / "Scenario_Configuration_Files"
    place.mkdir(parents=True)
    content = json.dumps({"map": "Town01", "scenarios": entries})
    (place / "scenario_config_map_Town01.json").write_text(content)
    for scenario, ((name, file), source) in itertools.product(
        scenarios, zip(SENSORS.items(), sources, strict=True)
    ):
        place = folder / f"Scenario_{scenario:06d}" / name
        place.mkdir(parents=True)
        shutil.copy(source, place / file.format(0))
        for frame in range(1, FRAMES_PER_SCENARIO):
            os.link(place / file.format(0), place / file.format(frame))
    return folder


@contextlib.contextmanager
def sparse_caches():
    """Caches that were never decoded: holes in a file; half of the scenarios show something."""

    def build(kind, path, shape, *_):
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if kind == "anovox_labels":
            counted = np.zeros((shape[0], 4), np.float32)
            counted[np.arange(shape[0]) // FRAMES_PER_SCENARIO % 2 == 1, 0] = 100  # pixels
            array[:] = counted.view(np.uint8)

    original, cache._build = cache._build, build
    try:
        yield
    finally:
        cache._build = original


def frames_worker(folder: str) -> Callable[[], dict]:
    """Find, label, split and open all frames, and read one batch; seconds and memory."""
    before, options = peak_memory_mb(), {"limit_gb": 1e6, "log": lambda text: None}
    options["cache_dir"] = Path(folder) / "cache"
    with sparse_caches():
        load_anovox(Path(folder), **options)

    def run() -> dict:
        started = time.perf_counter()
        data = load_anovox(Path(folder), **options)
        load, started = time.perf_counter() - started, time.perf_counter()
        data.train.__getitems__(np.linspace(0, len(data.train) - 1, 8).astype(int).tolist())
        return {"load": load, "batch": time.perf_counter() - started, "peak": peak_memory_mb() - before}

    return run


def anovox_frames(report: Report, quick: bool) -> None:
    """Growth with AnoVox frames.

    Files are hard links, so that finding, labelling, splitting and opening are real while decoding is not;
    the caches are sparse files, as after the first run. What decoding them once costs is measured per frame
    on files of native size.
    """
    sizes = [2000, 4000, 8000] if quick else [10_000, 60_000, 300_000]
    with tempfile.TemporaryDirectory(prefix="scale_") as name:
        sources = write_native_frame(Path(name))
        image, points, *semantic = sources
        region = Region()
        rates = report.measure(
            {
                "image 768x512 to 128x192": lambda: fit_image(read_image(image), (128, 192)),
                "scan of 90,000 points to 1,024": lambda: sample_points(
                    read_points(points), Region(), 1024, 0
                ),
                "label from semantic image and scan": lambda: count_frame("AnoVox", *semantic, None, region),
            }
        )
        runs = []
        for size in sizes:
            world = write_anovox(Path(name, str(size)), size, sources)
            runs.append(in_a_process("benchmarks.scale:frames_worker", world))
            shutil.rmtree(world)
    report.timings(rates, "ms")
    rows = [[f"{n:,}", f"{run['load']:.2f}", f"{1e3 * run['batch']:.1f}", f"{run['peak']:.0f}"]
            for n, run in zip(sizes, runs, strict=True)]  # fmt: skip
    report.table(["AnoVox frames", "load, caches there s", "batch of 8 ms", "peak memory MB"], rows)
    seconds = sum(float(np.median(timing.wall)) for timing in rates.values())
    report.note(
        f"Growth: load ~ n^{growth(sizes, [run['load'] for run in runs]):.2f}. Decoding 300,000 native "
        f"frames once, extrapolated: {300_000 * seconds / 3600:.1f} core hours ({1e3 * seconds:.0f} ms each)."
    )
