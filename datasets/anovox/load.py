"""A whole AnoVox data set from the flags of flags.py: image, LiDAR scan and label of each frame.

From files to batches, in the order in which to read the code:

    load.py          this file: `build_datasets` runs all steps
    files.py         `find_scenarios`: the files of each frame, and the projection of its points
    labels.py        `build_table`: one row per labelled frame
    frame.py         `Frame` reads its files: `counts` decides its `label`; `pixels`, `points` and `cells` are
                     the arrays of a batch; `cached_results` computes one of these for all frames
    dataset.py       `AnoVoxDataset`: makes batches of the cached arrays
    augmentation.py  `augment_frames`: changes batches in training

Used along the way: archives.py (unpacking), palettes.py (codes of classes), pointclouds.py (scans),
splits.py (train, val, test), pasted.py, pastes.py and raycast.py (objects pasted into frames), check.py
(--check_data).
"""

import argparse
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.anovox.archives import unpack
from datasets.anovox.check import agreement, check_frames
from datasets.anovox.dataset import AnoVoxDataset
from datasets.anovox.files import find_scenarios
from datasets.anovox.flags import SAMPLE
from datasets.anovox.frame import NO_POINT, Frame, Region, cached_results, lacking
from datasets.anovox.labels import FrameTable, build_table, scenario_of
from datasets.anovox.palettes import find_palette
from datasets.anovox.pasted import Pasting
from datasets.anovox.splits import split_scenarios
from datasets.cache import fingerprint
from datasets.samples import ensure_sample
from datasets.splits import PARTS, Choose, Parts, Split
from utils.run.errors import DataError, counted
from utils.run.log import LOG

PASTED_FRAMES = 500  # at least this many training frames with a pasted object, as many without


def find_root(args: argparse.Namespace) -> Path:
    """--data_path, or the built-in sample, generated if missing."""
    return Path(args.data_path or ensure_sample("anovox", SAMPLE))


def build_datasets(args: argparse.Namespace, choose: Choose | None = None) -> "AnoVoxData":
    """Train, val and test, empty ones left out, from the flags of flags.py, or the parts that `choose` makes
    of the scenarios. Other flags read: seed, fold, modality, check_data, cache_dir and cache_limit_gb."""
    root, pasted = find_root(args), args.label == "pasted"
    cache = {"cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb}
    table, top = read_table(root, args, args.label), unpack(root, **cache)
    if choose:
        hashes = hash_contents(table, groups_of(table, choose.parts), **cache)
        split, source, outcome = choose(hashes), "chosen", ""
    else:
        split, source, outcome = split_scenarios(table, top, args)
        hashes = hash_contents(table, sum(split.values(), []), **cache)
    parts, copies = {}, args.pastes or count_copies(table, split, choose)
    for name in filter(split.get, split):
        rows, pasting = table.rows_of(split[name]), None
        if pasted and not table.labels[rows].any():
            pasting = Pasting(name if name in PARTS else "test", copies, args.modality)
        elif name == "train" and args.paste_share and not (pasted or choose):
            pasting = Pasting(name, modality=args.modality, share=args.paste_share)
        sizes = args.image_size, args.max_points
        parts[name] = AnoVoxDataset(table, rows, *sizes, args.seed, pasting, **cache)
    part = next(iter(parts.values()))
    rows = np.unique(part.rows, return_index=True)[1]  # without pasted copies
    rows = rows[np.arange(len(rows)) // 2 % (len(rows) // 40 + 1) == 0]  # in pairs: half turns alternate
    lacks = Counter([] if args.modality == "camera" else map(lacking, part.packed_points[rows]))
    if lacks[NO_POINT] == len(rows):
        remedy = "Export x forward, y left, z up, in metres from the sensor, or use --modality camera."
        raise DataError(f"{root}: no scan has a point in the region that models see, {Region()}\n{remedy}")
    for what, count in lacks.items():
        if what and count > 0.4 * len(rows):
            remedy = "is z up, and the sensor the origin? Is each scan a whole turn?"
            LOG.warning(f"{count} of {len(rows)} scans without {what}: {remedy}")
    unused = {"camera": "scan", "lidar": "image"}.get(args.modality)
    for sensor, found in zip(("image", "scan"), read_digests(table, **cache).T, strict=True):
        same = np.count_nonzero(found[1:] == found[:-1])
        if sensor != unused and same > 0.05 * len(found):
            what = f"{same} of {len(found)} frames have the {sensor} of the frame before, or an empty one"
            LOG.warning(f"{what}: is the sensor stuck or covered?")
    synthetic = (top / "SYNTHETIC.json").exists()
    return AnoVoxData(parts, split, source, outcome, hashes, synthetic, root, args.label)


def read_table(root: Path, args: argparse.Namespace, label: str) -> FrameTable:
    """The frames that have a label of this kind, one of --label; --check_data logs what is in the data."""
    cache = {"cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb}
    problems = [] if args.check_data else None
    alone = label == "pasted" and args.modality == "camera"
    scenarios = find_scenarios(root, args.camera, alone, problems, **cache)
    ids = tuple(args.anomaly_ids)
    palette = find_palette(scenarios, ids)
    if args.check_data:  # before decoding, which stops at the first problem
        for line in check_frames(scenarios, palette, args.frame_rate, problems):
            LOG.info(line)
    elif args.modality != "camera":
        for doubt in agreement(scenarios, palette, frames=4)[1]:
            LOG.warning(f"{doubt} (--check_data compares more frames)")
    limits = args.min_pixels, args.min_points
    return build_table(scenarios, label, *limits, args.modality, (palette, ids), **cache)


def count_copies(table: FrameTable, split: Split, choose: Choose | None) -> int:
    """The pasted copies of each frame of every part: as many as the run had if `choose` takes a part of it,
    else so many that the first part, train, has PASTED_FRAMES."""
    if choose and split.keys() <= choose.parts.keys():
        return next((part["copies"] for part in choose.dataset["pasting"].values()), 1)
    first, *_ = split.values()
    return math.ceil(PASTED_FRAMES / len(table.rows_of(first)))


def groups_of(table: FrameTable, known: Split) -> list[str]:
    """The scenarios; in place of those that a run with the split `known` has cut into blocks, the blocks."""
    names = {frame.scenario.name for frame in table.frames}
    blocks = [name for name in sum(known.values(), []) if scenario_of(name) in names - {name}]
    return sorted(names - set(map(scenario_of, blocks))) + blocks


def hash_contents(table: FrameTable, groups: list[str], **cache) -> dict[str, list[str]]:
    """Hashes by group that reveal the same recording, or a part of it, under any name: one of all its file
    sizes and labels, and one of each image and each scan; if all are too small for that, the first again.
    Blocks may share what their scenario repeats: a car at rest. `cache`: cache_dir and limit_gb."""
    sizes, hashes = _file_sizes(table.frames), {}
    digests = read_digests(table, **cache)
    for group in groups:
        rows = table.rows_of([group])
        others = np.setdiff1d(table.rows_of([scenario_of(group)]), rows)
        found = np.setdiff1d(digests[rows], np.append(digests[others], np.uint64(0)))
        hashes[group] = [fingerprint(sizes[rows], table.labels[rows]), *map("{:016x}".format, found.tolist())]
        varied = len(np.unique(sizes[rows], axis=0)) > max(2, len(rows) / 2)  # not so of a dead camera
        if varied and not len(others) and not digests[rows].any():  # no scan, and small images: by night
            hashes[group] += hashes[group]
    return hashes


def read_digests(table: FrameTable, **cache) -> np.ndarray:
    """(F, 2) uint64 of image and scan, see Frame.digests."""
    return cached_results(table.frames, Frame.digests, (2,), ["points"], {}, {}, dtype=np.uint64, **cache)


def _file_sizes(frames: list[Frame]) -> np.ndarray:
    """(F, 2) bytes of each frame's image and scan, 0 if missing. Paths and times are left out, so that a copy
    of the data counts as the same data."""
    paths = [(frame.path("image"), frame.path("points")) for frame in frames]
    return np.array([[path.stat().st_size if path else 0 for path in pair] for pair in paths])


@dataclass
class AnoVoxData(Parts):
    """The parts of a data set, each an AnoVoxDataset, and how they were made."""

    root: Path
    label: str

    def make_references(self) -> dict[str, np.ndarray]:
        """Data of the trivial scorer: features (inputs) and labels of train, to fit it, and of val, to choose
        its threshold; words: the weathers and towns that have a column."""
        found = {"words": np.unique(places_of(self.train))}
        for name in ("train", "val"):
            found[f"{name}_inputs"] = trivial_features(self.parts[name], found["words"])
            found[f"{name}_labels"] = self.parts[name].labels
        return found

    def log_lines(self) -> list[str]:
        """Notes from reading the data, then one line of counts per part."""
        lines = list(self.train.table.notes)
        for name, part in self.parts.items():
            size = f"{counted(len(self.split[name]), 'scenarios')}, {counted(len(part), 'frames')}"
            origin = f", {part.pasted} of them normal frames with a pasted object" if part.pasting else ""
            lines.append(f"{name}: {size}, {part.labels.sum()} anomalous{origin}")
        return lines

    def describe(self) -> dict[str, object]:
        """The dataset section of config.json."""
        parts, table = self.parts, self.train.table
        towns = {name: {source.scenario.town for source in part.sources} for name, part in parts.items()}
        content = [[s.name, s.kind, s.town] for s in table.scenarios]
        content += [table.frame_id, table.labels, table.anomalous_pixels, table.anomalous_points]
        content.append(_file_sizes(table.frames))
        return {
            "data_path": str(self.root),
            **self.describe_split({name: len(part) for name, part in parts.items()}),
            "scenarios": self.split,
            "class_counts": {name: part.class_counts() for name, part in parts.items()},
            "towns": {name: sorted(names) for name, names in towns.items()},
            "label": self.label,
            "labels": "pasted" if self.label == "pasted" else "ground truth",
            "pasting": {k: asdict(p.pasting) | {"frames": p.pasted} for k, p in parts.items() if p.pasting},
            "region": asdict(self.train.region),
            "left_out": table.notes,
            "fingerprint": fingerprint(content),
        }


def places_of(dataset: AnoVoxDataset) -> np.ndarray:
    """(F, 2) str: weather and town of each frame."""
    drives = [source.scenario for source in dataset.sources]
    return np.array([[f"weather {drive.weather}", f"town {drive.town}"] for drive in drives])


def trivial_features(dataset: AnoVoxDataset, words: np.ndarray) -> np.ndarray:
    """(F, K) features that show no anomaly: the input of a scorer that is blind to content.

    Colour histogram (3 x 8 bins), sizes of the scan and image files, frame number, and a column for each
    weather and town of `words`."""
    # A generator: decoded images of a whole part may exceed the memory.
    channels = (np.moveaxis(image, -1, 0).reshape(3, -1) >> 5 for image in dataset.images)
    histogram = [np.concatenate([np.bincount(c, minlength=8) / c.size for c in image]) for image in channels]
    sizes = _file_sizes(dataset.sources)[:, ::-1]
    one_hot = (places_of(dataset)[:, :, None] == words).any(axis=1)
    return np.column_stack([histogram, sizes, dataset.frame_ids, one_hot]).astype(float)
