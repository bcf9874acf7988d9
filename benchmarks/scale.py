"""Growth on two cores: 300,000 AnoVox frames and tables of 1,000,000 rows, at three sizes each.

    python -m benchmarks.scale

Every size runs in a fresh process, whose peak memory is its own. AnoVox: files are hard links to one
frame, so that finding, labelling, splitting and opening are real while decoding is not; the caches are
sparse files, as after the first run. What decoding them once costs is measured per frame on files of
native size. Tables: CSV of ids and ages; the row limit of the reader is lifted for this measurement. JRDB
at full scale is in jrdb_index.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Report
from benchmarks.timing import current_memory_mb, growth, measure, peak_memory_mb

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
    noise = rng.integers(-6, 7, (512, 768, 3))
    image = np.clip(np.asarray(smooth).astype(int) + noise, 0, 255).astype(np.uint8)
    classes = np.repeat(np.repeat(rng.integers(0, 29, (16, 24), dtype=np.uint8), 32, 0), 32, 1)
    points = rng.normal(0, [15, 15, 1, 0.1], (90_000, 4)).astype(np.float32)
    labels = np.column_stack([points[:, :3], rng.integers(0, 29, len(points))]).astype(np.float32)
    paths = [folder / f"frame{k}" for k in range(4)]
    paths = [path.with_suffix(Path(name).suffix) for path, name in zip(paths, SENSORS.values(), strict=True)]
    Image.fromarray(image).save(paths[0])
    np.save(paths[1], points)
    Image.fromarray(np.repeat(classes[:, :, None], 3, axis=2)).save(paths[2])
    np.save(paths[3], labels)
    return paths


def write_anovox(folder: Path, frames: int, sources: list[Path]) -> None:
    """Scenarios of FRAMES_PER_SCENARIO frames, every other one said to hold an anomaly.

    Their files are hard links to one copy of `sources` each.
    """
    kinds = ("NORMALITY", "STATIC")
    entries = [
        {"id": f"{scenario:06d}", "anomaly_config": {"anomalytype": kinds[scenario % 2]}}
        for scenario in range(frames // FRAMES_PER_SCENARIO)
    ]
    place = folder / "Scenario_Configuration_Files"
    place.mkdir(parents=True)
    (place / "scenario_config_map_Town01.json").write_text(
        json.dumps({"map": "Town01", "scenarios": entries})
    )
    for scenario in range(frames // FRAMES_PER_SCENARIO):
        for (name, file), source in zip(SENSORS.items(), sources, strict=True):
            place = folder / f"Scenario_{scenario:06d}" / name
            place.mkdir(parents=True)
            first = place / file.format(0)
            shutil.copy(source, first) if scenario % 100 == 0 else os.link(  # a file has 65,000 links at most
                folder / f"Scenario_{scenario // 100 * 100:06d}" / name / file.format(0), first
            )
            for frame in range(1, FRAMES_PER_SCENARIO):
                os.link(first, place / file.format(frame))


@contextlib.contextmanager
def sparse_caches():
    """Caches that were never decoded: holes in a file; half of the scenarios show something."""
    from datasets import cache

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


def load_frames(folder: Path) -> dict[str, float]:
    """In this process: find, label, split and open everything twice; the second time counts."""
    from datasets.anovox.dataset import load_anovox

    before = current_memory_mb()
    options = {"cache_dir": folder / "cache", "limit_gb": 1e6, "log": lambda text: None}
    with sparse_caches():
        load_anovox(folder, **options)
    started = time.perf_counter()
    data = load_anovox(folder, **options)
    load = time.perf_counter() - started
    started = time.perf_counter()
    data.train.__getitems__(np.linspace(0, len(data.train) - 1, 8).astype(int).tolist())
    batch = time.perf_counter() - started
    return {"load": load, "batch": batch, "peak": peak_memory_mb() - before}


def read_table(path: Path) -> dict[str, float]:
    """In this process: read a CSV of ids and ages, the limits of the reader lifted."""
    from datasets.ultrasound import cells as ultrasound_cells
    from datasets.ultrasound.table import read_age_table

    ultrasound_cells.MAX_ROWS = ultrasound_cells.MAX_UNPACKED_BYTES = 10**9
    before, started = current_memory_mb(), time.perf_counter()
    table = read_age_table(path)
    seconds = time.perf_counter() - started
    return {"rows": len(table.ages), "read": seconds, "peak": peak_memory_mb() - before}


WORKERS = {"frames": load_frames, "table": read_table}


def run_worker(kind: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "--worker", kind, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def decode_rates(sources: list[Path], quick: bool) -> dict:
    """Seconds to decode one native frame of each kind into its cache, one core."""
    from datasets.anovox.dataset import _sample, load_image
    from datasets.anovox.labels import count_frame
    from datasets.anovox.points import Region

    image, points, semantic, semantic_points = sources
    return measure(
        {
            "image 768x512 to 128x192": lambda: load_image(image, (128, 192)),
            "scan of 90,000 points to 1,024": lambda: _sample([points], [0], Region(), 1024, 0),
            "label from semantic image and scan": lambda: count_frame(
                "current", semantic, semantic_points, None, Region()
            ),
        },
        *((2, 0.01) if quick else (7, 0.3)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: for development")
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "PATH"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        kind, path = args.worker
        return print(json.dumps(WORKERS[kind](Path(path))))
    report = Report("scale", "Growth: AnoVox frames and table rows", args.quick)
    with tempfile.TemporaryDirectory(prefix="scale_") as name:
        folder = Path(name)
        sources = write_native_frame(folder)
        rates = decode_rates(sources, args.quick)
        report.timings(rates, "ms")
        measure_frames(
            report, folder, sources, [2000, 4000, 8000] if args.quick else [10_000, 60_000, 300_000]
        )
        measure_tables(report, folder, [1000, 3000, 10_000] if args.quick else [100_000, 300_000, 1_000_000])
    seconds = sum(float(np.median(timing.wall)) for timing in rates.values())
    report.note(
        f"Decoding 300,000 native frames once, extrapolated: {300_000 * seconds / 3600:.1f} core hours "
        f"({1e3 * seconds:.0f} ms a frame on one core)."
    )
    report.finish()


def measure_frames(report: Report, folder: Path, sources: list[Path], sizes: list[int]) -> None:
    runs = []
    for size in sizes:
        world = folder / f"anovox_{size}"
        write_anovox(world, size, sources)
        runs.append(run_worker("frames", world))
        shutil.rmtree(world)
    rows = [
        [f"{size:,}", f"{run['load']:.2f}", f"{1e3 * run['batch']:.1f}", f"{run['peak']:.0f}"]
        for size, run in zip(sizes, runs, strict=True)
    ]
    report.table(["AnoVox frames", "load, caches there s", "batch of 8 ms", "peak memory MB"], rows)
    report.note(f"Growth: load ~ n^{growth(sizes, [run['load'] for run in runs]):.2f}.")


def measure_tables(report: Report, folder: Path, sizes: list[int]) -> None:
    runs = []
    for size in sizes:
        path = folder / f"table_{size}.csv"
        rows = "".join(f"{k},{20 + k % 700 / 10}\n" for k in range(size))
        path.write_text("Number,Age\n" + rows)
        runs.append(run_worker("table", path))
        if runs[-1]["rows"] != size:
            raise AssertionError(f"{runs[-1]['rows']} of {size} rows were read")
    rows = [
        [f"{n:,}", f"{run['read']:.2f}", f"{run['peak']:.0f}"] for n, run in zip(sizes, runs, strict=True)
    ]
    report.table(["table rows", "read s", "peak memory MB"], rows)
    report.note(f"Growth: read ~ n^{growth(sizes, [run['read'] for run in runs]):.2f}.")


if __name__ == "__main__":
    main()
