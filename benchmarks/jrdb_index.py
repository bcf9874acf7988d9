"""The index of all of JRDB: 31,116 frames, 933,240 boxes, 13.5 million pairs, from 0.4 GB of JSON.

    python -m benchmarks.jrdb_index

Naive: json.load, then a Python loop over the pairs of every frame that makes a dict of each pair in range.
Ours: read_index and find_pairs. The pairs in range and the interacting ones among them are compared, as
sets, before the timing. The ratio is taken on one sequence from parsed records to pairs; the full set runs
in fresh processes, whose peak memory is theirs alone, at three sizes, from JSON, and at full size from the
cache, which must give the same columns. Every frame has an image (only the first is more than a name).
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.jrdb_world import FRAMES, SEQUENCES, write_world
from benchmarks.report import Report, exactly
from benchmarks.timing import Timing, current_memory_mb, growth, measure, peak_memory_mb, times_faster
from datasets.cache import fingerprint
from datasets.jrdb.index import read_index
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER, PANORAMA_SIZE, read_sequence
from datasets.jrdb.sampling import PairRules, find_pairs

RULES = PairRules()


def naive_pairs(frames: dict[str, list[dict]]) -> list[dict]:
    """Every pair in range of every frame as a dict, with wrapped distance and whether the two interact."""
    width, samples = PANORAMA_SIZE[0], []
    for key, records in frames.items():
        interacting = {
            frozenset((record["label_id"], entry["pair"]))
            for record in records
            for entry in record["H-interaction"]
            if entry["inter_labels"]
        }
        for a, b in itertools.combinations(records, 2):
            (xa, _, wa, _), (xb, _, wb, _) = a["box"], b["box"]
            apart = abs(xa + wa / 2 - xb - wb / 2) % width
            apart = min(apart, width - apart)
            if apart <= RULES.distance_multiplier * max(wa, wb):
                people = a["label_id"], b["label_id"]
                label = int(frozenset(people) in interacting)
                samples.append({"frame": key, "people": people, "distance": apart, "label": label})
    return samples


def check_equal(path: Path) -> None:
    """The pairs of a file in range, and their labels, must be the same either way."""
    naive = {
        (pair["frame"], frozenset(pair["people"]), pair["label"])
        for pair in naive_pairs(json.loads(path.read_bytes())["labels"])
    }
    sequence = read_sequence(path)
    found = find_pairs(sequence, RULES)
    names = np.array(sequence.track_names)[sequence.tracks]
    ours = {
        (
            sequence.keys[found.frame[k]],
            frozenset((names[found.first[k]], names[found.second[k]])),
            int(found.annotated[k]),
        )
        for k in np.flatnonzero(found.in_range)
    }
    if naive != ours:
        raise AssertionError(
            f"{path}: {len(naive)} naive pairs, {len(ours)} of ours, {len(naive ^ ours)} differ"
        )


def write_images(folder: Path, paths: list[Path], frames: int) -> None:
    """A panorama per sequence, whose size is read, and files without content, whose names are."""
    for path in paths:
        images = folder / IMAGE_FOLDER / path.stem
        images.mkdir(parents=True)
        Image.new("RGB", PANORAMA_SIZE).save(images / f"{0:06d}.jpg")
        for frame in range(1, frames):
            (images / f"{frame:06d}.jpg").touch()


def index_everything(folder: Path) -> dict:
    """Read all sequences in this process, from the cache where they are in it, and find their pairs.

    Returns seconds, counts, memory.
    """
    paths = sorted((folder / LABEL_FOLDER).glob("*.json"))
    before, lines = current_memory_mb(), []
    started = time.perf_counter()
    sequences = read_index(paths, folder, cache_dir=folder / "cache", log=lines.append)
    read = time.perf_counter() - started
    started, pairs = time.perf_counter(), 0
    for sequence in sequences:
        pairs += find_pairs(sequence, RULES).total
    return {
        "read": read,
        "pairs": pairs,
        "find": time.perf_counter() - started,
        "boxes": sum(len(sequence.boxes) for sequence in sequences),
        "frames": sum(len(sequence.keys) for sequence in sequences),
        "peak": peak_memory_mb() - before,
        "cached": any("read from" in line for line in lines),
        "columns": fingerprint([vars(sequence) for sequence in sequences]),
    }


def parse_everything(folder: Path) -> float:
    """json.loads alone, one file after the other with the collector off: what no reader of JSON can avoid."""
    from datasets.jrdb.records import no_garbage_collection

    started = time.perf_counter()
    for path in sorted((folder / LABEL_FOLDER).glob("*.json")):
        with no_garbage_collection():
            json.loads(path.read_bytes())
    return time.perf_counter() - started


def run_worker(folder: Path) -> dict:
    command = [sys.executable, "-m", "benchmarks.jrdb_index", "--worker", str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def check_same_columns(cold: dict, warm: list[dict]) -> None:
    """The index must be read from JSON once, and from the cache ever after, without a difference."""
    if cold["cached"] or not all(run["cached"] and run["columns"] == cold["columns"] for run in warm):
        raise AssertionError("the index from the cache is not the one from JSON")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short sequence: for development")
    parser.add_argument("--worker", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return print(json.dumps(index_everything(args.worker)))
    report = Report("jrdb_index", "Index of JRDB at full scale", args.quick)
    sizes, frames = ([1, 2, 3], 100) if args.quick else ([3, 9, len(SEQUENCES)], FRAMES)
    with tempfile.TemporaryDirectory(prefix="jrdb_") as folder:
        worlds = [Path(folder) / str(size) for size in sizes]
        for world, size in zip(worlds, sizes, strict=True):
            write_images(world, write_world(world, size, frames), frames)
        path = min((worlds[0] / LABEL_FOLDER).glob("*.json"))
        check_equal(path)
        records, sequence = json.loads(path.read_bytes())["labels"], read_sequence(path)
        timings = measure(
            {
                "Python loop over the pairs": lambda: naive_pairs(records),
                "find_pairs": lambda: find_pairs(sequence, RULES),
            },
            *((2, 0.01) if args.quick else (7, 0.3)),
        )
        report.timings(timings, "ms")
        loop, arrays = timings.values()
        report.judge(
            "pairs of one sequence, times faster than the loop", times_faster(loop, arrays), at_least=12
        )
        runs = [run_worker(world) for world in worlds]
        warm = []

        def read_again() -> float:
            warm.append(run_worker(worlds[-1]))
            return warm[-1]["read"]

        again = measure({"index from the cache": read_again}, 2 if args.quick else 7, 0)
        check_same_columns(runs[-1], warm)
        parse = parse_everything(worlds[-1])
    header = ["sequences", "frames", "boxes", "pairs", "read s", "pairs s", "peak memory MB"]
    rows = [
        [
            size,
            run["frames"],
            run["boxes"],
            run["pairs"],
            f"{run['read']:.3g}",
            f"{run['find']:.2g}",
            f"{run['peak']:.0f}",
        ]
        for size, run in zip([*sizes, f"{sizes[-1]}, from the cache"], [*runs, warm[0]], strict=True)
    ]
    report.table(header, rows)
    exponents = [growth(sizes, [run[key] for run in runs]) for key in ("read", "find")]
    report.note(
        f"Growth: read ~ n^{exponents[0]:.2f}, pairs ~ n^{exponents[1]:.2f}. json.loads alone takes "
        f"{parse:.1f} s of the {runs[-1]['read']:.1f} s."
    )
    second = Timing([1.0] * len(warm), [1.0] * len(warm), [0.0] * len(warm))
    seconds = times_faster(*again.values(), second)  # over one second each: the seconds themselves
    report.judge("full index from the cache, seconds", seconds, at_most=0.2, unit=" s")
    peak = max(run["peak"] for run in (runs[-1], *warm))
    report.judge("full index, peak memory in MB", exactly(peak), at_most=600, unit=" MB")
    report.finish()


if __name__ == "__main__":
    main()
