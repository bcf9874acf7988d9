"""A whole AnoVox data set, as the flags of flags.py say: camera image and LiDAR scan of one moment, and
whether there is an anomaly in it.

A frame's way from its files to a batch; each file can be read to its end before the next is opened:

    load.py          this file: `build_datasets` goes all the way
    files.py         `find_scenarios`: the files of each frame, and how its points fall into its image
    labels.py        `build_table`: the frames that have a label, a row each
    frame.py         `Frame`: reads its files; `label` is decided by `counts`; `pixels`, `points` and `cells`
                     are what a model is given; `keep` calls one of these for all frames, or finds it cached
    dataset.py       `AnoVoxDataset`: has the last three kept, and makes batches of them
    augmentation.py  `augment_frames`: changes batches in training

Beside the way: archives.py (unpacked once), palettes.py (how classes are coded), pointclouds.py (scans of
other tools), splits.py (which scenario is in which part), pasted.py and raycast.py (--label pasted: a frame
with a thing in it, which stops rays), check.py (--check_data).
"""

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.anovox.archives import unpack
from datasets.anovox.check import check_frames
from datasets.anovox.dataset import AnoVoxDataset
from datasets.anovox.files import find_scenarios
from datasets.anovox.flags import SAMPLE
from datasets.anovox.frame import Frame, Region
from datasets.anovox.labels import FrameTable, build_table, whole
from datasets.anovox.palettes import find_palette
from datasets.anovox.pasted import Pasting
from datasets.anovox.splits import split_scenarios
from datasets.cache import fingerprint
from datasets.samples import ensure_sample
from datasets.splits import PARTS, Choose, Parts
from utils.run.errors import DataError, counted
from utils.run.log import LOG

PASTED_FRAMES = 500  # with things pasted, at least, to train on; as many without


def find_root(args: argparse.Namespace) -> Path:
    """--data_path, or the built-in sample, written where it is missing."""
    return Path(args.data_path or ensure_sample("anovox", SAMPLE))


def build_datasets(args: argparse.Namespace, choose: Choose | None = None) -> "AnoVoxData":
    """Train, val and test (none where a split has none) as the flags of flags.py say, or the parts that
    `choose` makes of the scenarios. Of other flags it reads seed, modality, check_data and the cache's."""
    root, pasted = find_root(args), args.label == "pasted"
    cache = {"cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb}
    problems = [] if args.check_data else None
    alone = pasted and args.modality == "camera"
    scenarios = find_scenarios(root, args.camera, images_alone=alone, problems=problems, **cache)
    top = unpack(root, **cache)
    palette = find_palette(scenarios, tuple(args.anomaly_ids))  # "AnoVox" or "CARLA"
    if args.check_data:  # before anything is decoded: it tells all problems, not the first
        for line in check_frames(scenarios, palette, args.frame_rate, problems):
            LOG.info(line)
    table = build_table(
        scenarios, args.label, min_pixels=args.min_pixels, min_points=args.min_points,
        modality=args.modality, coding=(palette, tuple(args.anomaly_ids)), **cache,
    )  # fmt: skip
    if choose:
        hashes = hash_contents(table, groups_of(table, choose))
        split, source, outcome = choose(hashes), "chosen", ""
    else:
        split, source, outcome = split_scenarios(table, top, args)
        hashes = hash_contents(table, sum(split.values(), []))
    parts: dict[str, AnoVoxDataset] = {}
    copies = args.pastes
    for name in filter(split.get, split):
        rows, pasting = table.rows_of(split[name]), None
        if pasted and not table.labels[rows].any():
            copies = copies or max(1, math.ceil(PASTED_FRAMES / len(rows)))  # as many in val and test
            sensors = "none" if args.feature_mixing and name == "train" else None
            pasting = Pasting(name if name in PARTS else "test", copies, sensors, args.modality)
        elif name == "train" and args.paste_share and not pasted:
            pasting = Pasting(name, modality=args.modality, share=args.paste_share)
        sizes = tuple(args.image_size), args.max_points
        parts[name] = AnoVoxDataset(table, rows, *sizes, args.seed, pasting, **cache)
    scans = [part.packed_points[:, 0, 0] for part in parts.values()]  # NaN where no point is in the region
    if args.modality != "camera" and all(np.isnan(scan).all() for scan in scans):
        remedy = "Export x forward, y left, z up, in metres from the sensor, or use --modality camera."
        raise DataError(f"{root}: no scan has a point in the region looked at, {Region()}\n{remedy}")
    synthetic = (top / "SYNTHETIC.json").exists()
    return AnoVoxData(parts, split, source, outcome, hashes, synthetic, root, args.label)


def groups_of(table: FrameTable, choose: Choose) -> list[str]:
    """The scenarios there are; of those that the run has cut into blocks of frames, the blocks."""
    names = {frame.scenario.name for frame in table.frames}
    blocks = [name for name in getattr(choose, "known", ()) if whole(name) in names - {name}]
    return sorted(names - set(map(whole, blocks))) + blocks


def hash_contents(table: FrameTable, groups: list[str]) -> dict[str, list[str]]:
    """By group, of the sizes of its files and its labels, and of the sizes of any three frames in a row that
    differ: the same recording, or a part of it, under any name."""
    sizes, hashes = _file_sizes(table.frames), {}
    for group in groups:
        rows = table.rows_of([group])
        three = np.stack([sizes[rows][k : len(rows) - 2 + k] for k in range(3)], axis=1)[: len(rows)]
        three = three[(three != three[:, :1]).any(axis=(1, 2))]  # nothing moves, or images without content
        hashes[group] = [fingerprint(sizes[rows], table.labels[rows]), *map(fingerprint, three)]
    return hashes


def _file_sizes(frames: list[Frame]) -> np.ndarray:
    """(F, 2) bytes of each frame's image and scan, 0 where there is none. Neither path nor time is in it, so
    that a copy of the data is the same data."""
    paths = [(frame.path("image"), frame.path("points")) for frame in frames]
    return np.array([[path.stat().st_size if path else 0 for path in pair] for pair in paths])


@dataclass
class AnoVoxData(Parts):
    """The parts of a data set, each an AnoVoxDataset, and how they came about."""

    root: Path
    label: str

    def make_references(self) -> dict[str, np.ndarray]:
        """What the trivial scorer is made of: trivial features (inputs) and labels of train, to fit it, and
        of val, to choose its threshold; words: the weathers and towns that are columns."""
        found = {"words": np.unique(places_of(self.train))}
        for name in ("train", "val"):
            found[f"{name}_inputs"] = trivial_features(self.parts[name], found["words"])
            found[f"{name}_labels"] = self.parts[name].labels
        return found

    def log_lines(self) -> list[str]:
        """What was noticed while reading, and counts per part, a line each."""
        return self.train.table.notes + [
            f"{name}: {counted(len(self.split[name]), 'scenarios')}, {counted(len(part), 'frames')}, "
            f"{part.labels.sum()} anomalous"
            + (f", {part.pasted} of them normal ones with a thing pasted in" if part.pasting else "")
            for name, part in self.parts.items()
        ]

    def describe(self) -> dict[str, object]:
        """The dataset section of config.json."""
        parts, table = self.parts, self.train.table
        towns = {name: {source.scenario.town for source in part.sources} for name, part in parts.items()}
        counts = {f"{name}_samples": len(part) for name, part in parts.items()}
        content = [[s.name, s.kind, s.town] for s in table.scenarios]
        content += [table.frame_id, table.labels, table.pixels, table.points, _file_sizes(table.frames)]
        return {
            "data_path": str(self.root),
            "total_samples": sum(counts.values()),
            **counts,
            "scenarios": self.split,
            "class_counts": {name: part.class_counts() for name, part in parts.items()},
            "towns": {name: sorted(names) for name, names in towns.items()},
            "label": self.label,
            "labels": "pasted" if self.label == "pasted" else "ground truth",
            "pasting": {k: asdict(p.pasting) | {"frames": p.pasted} for k, p in parts.items() if p.pasting},
            "split_method": self.split_source,
            "data_leakage_prevention": self.leakage_check,
            "synthetic": self.synthetic,
            "region": asdict(self.train.region),
            "left_out": table.notes,
            "fingerprint": fingerprint(content),
        }


def places_of(dataset: AnoVoxDataset) -> np.ndarray:
    """(F, 2) str: weather and town of each frame."""
    drives = [source.scenario for source in dataset.sources]
    return np.array([[f"weather {drive.weather}", f"town {drive.town}"] for drive in drives])


def trivial_features(dataset: AnoVoxDataset, words: np.ndarray) -> np.ndarray:
    """(F, K) what says nothing about an anomaly: the input of a scorer that sees no content.

    Colour histogram (3 x 8 bins), sizes of the scan and image files, frame number, and a column for each
    weather and town of `words`.
    """
    channels = [np.moveaxis(image, -1, 0).reshape(3, -1) >> 5 for image in dataset.images]
    histogram = [np.concatenate([np.bincount(c, minlength=8) / c.size for c in image]) for image in channels]
    sizes = _file_sizes(dataset.sources)[:, ::-1]
    one_hot = (places_of(dataset)[:, :, None] == words).any(axis=1)
    return np.column_stack([histogram, sizes, dataset.frame_ids, one_hot]).astype(float)
