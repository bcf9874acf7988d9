"""AnoVox: camera image and LiDAR scan of one moment, and whether there is an anomaly in it.

    data = load_anovox("/data/AnoVox", label="visible")
    batch = data.train.__getitems__([0, 1, 2])

A frame's way: files.py finds it, labels.py labels it and gives its scenario to a split, points.py reads and
samples its scan, the cache holds it, this file makes batches of it, augmentation.py changes them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.anovox.check import check_frames
from datasets.anovox.classes import AGENT_IDS, ANOMALY_IDS, point_classes, read_class_image
from datasets.anovox.files import AnyPath, ScenarioFiles, find_scenarios
from datasets.anovox.flags import SAMPLE
from datasets.anovox.labels import FrameTable, build_table, split_scenarios
from datasets.anovox.pasted import SENSORS, Thing, draw_thing, paste_image, paste_scan
from datasets.anovox.points import OUTSIDE, Region, frame_seed, project, read_points, sample_points
from datasets.cache import fingerprint, open_cache
from datasets.images import read_image, read_image_size
from datasets.samples import ensure_sample
from datasets.splits import PARTS, Choose
from utils.metrics.detection import benchmark_metrics
from utils.run.log import LOG

CLASSES = ("normal", "anomaly")
CELL_GRID = (8, 12)  # rows and columns of the parts in which an anomaly is located
CELL_SHARE = 5  # a cell shows an anomaly from this share of its pixels on, in 254ths: 2%
UNKNOWN_SHARE = 255  # no semantic image
LOCATED_FRAMES = 100  # anomalous and normal frames, at most, on which pixels and points are judged
PASTED_FRAMES = 500  # with things pasted, at least, to train on; as many without
NEIGHBOUR = 0.5  # metres; the LiDAR has noise of .1 m along the ray, the semantic LiDAR has none


class AnoVoxDataset(torch.utils.data.Dataset):
    """Frames of some scenarios. Images and sampled points are decoded once, into memory-mapped files.

    `dataset[k]` is one sample; `dataset.__getitems__(list)`, which a DataLoader calls, is a batch of tensors:
        images       (B, 3, H, W) uint8
        points       (B, N, 4) float32 x forward, y left, z up in metres, intensity; 0 where padded
        point_mask   (B, N) bool, True = a real point
        point_pixels (B, N, 2) float32 u, v of the point in the image, -1 (left, top) to 1; 2 out of view
        labels       (B,) int64, 1 = anomaly (-1 = unknown)
        cells        (B, rows, columns) float32, 1 where the image shows an anomaly there; NaN = unknown
        indices      (B,) int64, the positions asked for
    """

    def __init__(
        self,
        table: FrameTable,
        rows: np.ndarray,
        image_size: tuple[int, int] = (128, 192),
        max_points: int = 1024,
        region: Region | None = None,
        seed: int = 42,
        pasting: Pasting | None = None,
        **cache,
    ):
        """`image_size` = (H, W); `seed` draws the points; `pasting`: every row is there several times.

        `cache`: cache_dir, limit_gb, workers, log for open_cache.
        """
        copies = 2 * pasting.copies if pasting else 1
        self.table, self.rows, self.pasting = table, np.repeat(np.asarray(rows, np.int64), copies), pasting
        self.image_size, self.max_points = tuple(image_size), max_points
        region = region or Region()
        self.region = replace(region, cell=region.cell * (1024 / max_points) ** 0.5)  # more points see finer
        copy = np.arange(len(self.rows)) % copies  # of a frame: 0 as it is, 1 pasted, 2 as it is, ...
        self.labels = copy % 2 if pasting else table.labels[self.rows]
        self.scenario = table.scenario[self.rows]
        self.frame_ids = table.frame_id[self.rows]
        self.image_paths, self.point_paths = self.paths("image"), self.paths("points")
        known = [s.projection for s in table.scenarios]  # none of a scenario without a camera: it has no row
        self.projections = np.stack([np.full((3, 4), np.nan) if p is None else p for p in known])
        frames = zip(self.names(), self.frame_ids, strict=True)
        self.seeds = [frame_seed(seed, name, int(frame)) for name, frame in frames]
        semantic, donors = self.paths("semantic_image"), sorted(set(self.image_paths))
        self.sources = [
            Source(
                self.image_paths[k],
                self.point_paths[k],
                None if pasting else semantic[k],
                table.scenarios[self.scenario[k]],
                (table.palette, table.anomaly_ids),
                self.seeds[k],
                int(copy[k]) if pasting and copy[k] % 2 and pasting.sensors != "none" else None,
                pasting,
                donors if pasting else [],
            )
            for k in range(len(self.rows))
        ]
        one_each = [1] * len(self.rows)
        pasted = {
            "pasting": asdict(pasting) if pasting else None,
            "coding": [table.palette, table.anomaly_ids],
        }
        inner = [str(path) for path in self.image_paths if not isinstance(path, Path)]  # members of archives
        pasted |= {"members": inner} if inner else {}

        def cached(kind: str, settings: dict, files: list, shape: tuple, produce: Callable) -> np.ndarray:
            """One item per frame; where a frame lacks the file its image stands in."""
            known = [path or image for path, image in zip(files, self.image_paths, strict=True)]
            return open_cache(f"anovox_{kind}", settings | pasted, known, one_each, shape, produce, **cache)

        size, grid = self.image_size, CELL_GRID
        produce = partial(_decode, self.sources, size)
        self.images = cached("images", {"image_size": list(size)}, self.image_paths, (*size, 3), produce)
        sampling = {"region": self.region.settings(), "max_points": max_points, "seed": seed}
        sampling["scans"] = [path is not None for path in self.point_paths]
        produce = partial(_sample, self.sources, self.region, max_points)
        # (F, N, 16) bytes = float32 x, y, z, intensity; padding is NaN
        self.packed_points = cached("points", sampling, self.point_paths, (max_points, 16), produce)
        located = {"grid": list(grid), "known": [path is not None for path in semantic]}
        produce = partial(_share_of_cells, self.sources, grid)
        self.cell_shares = cached("cells", located, semantic, grid, produce)

    def group_names(self) -> list[str]:
        """The scenarios of the frames."""
        return np.unique(self.names()).tolist()

    def class_counts(self) -> dict[str, int]:
        """Frames per class."""
        return dict(zip(CLASSES, np.bincount(self.labels, minlength=2).tolist(), strict=True))

    @property
    def frames(self) -> np.ndarray:
        """(F,) the unit of sampling and evaluation: every frame is its own."""
        return np.arange(len(self.rows))

    def paths(self, sensor: str) -> list[AnyPath | None]:
        """The file of a sensor for each frame, None where there is none."""
        files = [scenario.files[sensor] for scenario in self.table.scenarios]
        return [files[i].get(int(frame)) for i, frame in zip(self.scenario, self.frame_ids, strict=True)]

    def column(self, name: str) -> np.ndarray:
        """A column of the frame table for these rows."""
        return getattr(self.table, name)[self.rows]

    def columns(self) -> dict[str, np.ndarray]:
        """What a table of the frames says beside their scores; what is pasted has its own distance."""
        known = {
            name: self.column(name) for name in ("frame_id", "category", "size", "visibility", "distance")
        }
        if self.pasting:
            things = [source.thing() if source.copy else None for source in self.sources]
            known["distance"] = np.array([thing.distance if thing else np.nan for thing in things])
            known["visibility"] = np.array([thing.sensors if thing else "" for thing in things])
        return {"scenario": self.names(), **known}

    def names(self) -> np.ndarray:
        """(F,) the scenario of each frame."""
        return np.array([self.table.scenarios[i].name for i in self.scenario])

    def places(self) -> np.ndarray:
        """(F, 2) str: weather and town of each frame."""
        known = [[f"weather {s.weather}", f"town {s.town}"] for s in self.table.scenarios]
        return np.array(known)[self.scenario]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        where = np.asarray(indices, np.int64)
        shares = self.cell_shares[where]  # (B, rows, columns)
        cells = np.where(shares == UNKNOWN_SHARE, np.nan, shares >= CELL_SHARE)
        points = self.packed_points[where].view(np.float32)  # (B, N, 4)
        mask = np.isfinite(points[..., 0])
        points[~mask] = 0
        pixels = project(points, self.projections[self.scenario[where]].astype(np.float32))
        pixels[~mask] = OUTSIDE
        return {
            "images": torch.from_numpy(self.images[where]).permute(0, 3, 1, 2),
            "points": torch.from_numpy(points),
            "point_mask": torch.from_numpy(mask),
            "point_pixels": torch.from_numpy(pixels),
            "labels": torch.from_numpy(self.labels[where].astype(np.int64)),
            "cells": torch.from_numpy(cells.astype(np.float32)),
            "indices": torch.from_numpy(where),
        }

    def true_pixels(self, index: int) -> np.ndarray | None:
        """(H, W) int8 1 = anomaly, 0 = normal, -1 = left out, at the data set's image size (nearest).

        None where it is not known.
        """
        truth = self.sources[index].true_pixels()
        if truth is None:
            return None
        image = Image.fromarray(truth.view(np.uint8))
        return np.array(image.resize(self.image_size[::-1], Image.Resampling.NEAREST)).view(np.int8)

    def true_points(self, index: int) -> np.ndarray | None:
        """(N,) int8 as true_pixels, per sampled point, by the nearest return whose class is known."""
        from scipy.spatial import cKDTree  # slow to import, and needed after training only

        scenario, path = self.table.scenarios[self.scenario[index]], self.paths("semantic_points")[index]
        if self.pasting:
            known, truth = self.sources[index].scan()
        elif path is None:
            return None
        else:
            known = read_points(path, classes=True, turn=scenario.turn)
            truth = _truth(point_classes(known[:, 3], self.table.palette, path), self.table.anomaly_ids)
        sample = self[index]
        near, found = cKDTree(known[:, :3]).query(
            sample["points"][:, :3].numpy(), distance_upper_bound=NEIGHBOUR
        )
        return np.where(sample["point_mask"].numpy() & np.isfinite(near), np.append(truth, 0)[found], 0)


@dataclass(frozen=True)
class Pasting:
    """Every frame is there 2 * `copies` times: as it is, and with a thing of this `part` pasted into it.

    sensors: which see the thing, one of pasted.SENSORS; None = drawn from those that `modality` has;
    "none" = nothing is pasted, and label 1 marks the frames whose features a model is to mix.
    """

    part: str
    copies: int
    sensors: str | None = None
    modality: str = "both"


@dataclass(frozen=True)
class Source:
    """The files of one item of the data set, and what is pasted into them."""

    image_path: AnyPath
    point_path: AnyPath | None
    semantic_path: AnyPath | None
    scenario: ScenarioFiles
    coding: tuple[str, tuple[int, ...]]  # palette and ids of anomalies
    seed: int
    copy: int | None  # which paste; None = none
    pasting: Pasting | None
    donors: list[AnyPath]  # images that textures are cut from

    def thing(self) -> Thing:
        """What is pasted: the same in image, scan and truth."""
        allowed = {"both": SENSORS, "camera": ("both",), "lidar": ("both", "lidar")}[self.pasting.modality]
        scan = None if self.point_path is None else self._recorded()
        allowed = allowed if scan is not None else ("both",)
        paste = self.pasting
        return draw_thing(
            scan, self.scenario.projection, [self.seed, self.copy], paste.part, paste.sensors, allowed
        )

    def image(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(H, W, 3) uint8 as recorded, and the share of each pixel (H, W) that is pasted."""
        image = read_image(self.image_path)
        if self.copy is None:
            return image, None
        rng = np.random.default_rng([self.seed, self.copy, 9])
        thing = self.thing()
        others = [read_image(rng.choice(self.donors))] if thing.texture == "cut" else []
        return paste_image(image, thing, self.scenario.projection, [self.seed, self.copy], others)

    def scan(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 4) as recorded, and which returns come from what is pasted (N,)."""
        scan = self._recorded()
        if self.copy is None:
            return scan, np.zeros(len(scan), bool)
        return paste_scan(scan, self.thing(), [self.seed, self.copy])

    def _recorded(self) -> np.ndarray:
        none = np.zeros((0, 4), np.float32)
        return none if self.point_path is None else read_points(self.point_path, turn=self.scenario.turn)

    def true_pixels(self) -> np.ndarray | None:
        """(H, W) int8 1 = anomaly, 0 = normal, -1 = left out (agents); None where it is not known."""
        if self.pasting is not None and self.pasting.sensors == "none":
            return None
        if self.pasting is not None:
            cover = self.image()[1] if self.copy is not None else None
            size = read_image_size(self.image_path)[::-1]
            return np.zeros(size, np.int8) if cover is None else (cover > 0.5).astype(np.int8)
        if self.semantic_path is None:
            return None
        return _truth(read_class_image(self.semantic_path, self.coding[0]), self.coding[1])


def _truth(classes: np.ndarray, anomaly_ids: tuple[int, ...]) -> np.ndarray:
    agents = np.isin(classes, [number for number in AGENT_IDS if number not in anomaly_ids])
    return np.where(agents, -1, np.isin(classes, anomaly_ids)).astype(np.int8)


def _share_of_cells(sources: list[Source], grid: tuple[int, int], k: int) -> np.ndarray:
    """(1, rows, columns) uint8: anomalous share of each cell in 254ths; UNKNOWN_SHARE without a file."""
    truth = sources[k].true_pixels()
    if truth is None:
        return np.full((1, *grid), UNKNOWN_SHARE, np.uint8)
    mask = truth == 1
    whole = np.pad(np.cumsum(np.cumsum(mask, 0), 1), ((1, 0), (1, 0)))  # cells need not divide the image
    rows, columns = (np.linspace(0, mask.shape[k], grid[k] + 1).round().astype(int) for k in (0, 1))
    counts = np.diff(np.diff(whole[np.ix_(rows, columns)], axis=0), axis=1)
    areas = np.diff(rows)[:, None] * np.diff(columns)[None]
    return np.ceil(254 * counts / areas).astype(np.uint8)[None]


def _decode(sources: list[Source], image_size: tuple[int, int], k: int) -> np.ndarray:
    return fit_image(sources[k].image()[0], image_size)[None]


def fit_image(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 (H, W, 3) at `image_size` = (H, W); antialiased bilinear where the size changes."""
    if image.shape[:2] == tuple(image_size):
        return image
    return np.asarray(Image.fromarray(image).resize(image_size[::-1], Image.Resampling.BILINEAR))


def _sample(sources: list[Source], region: Region, max_points: int, k: int) -> np.ndarray:
    """(1, max_points, 16) bytes of float32 rows; what no point fills is NaN."""
    packed = np.full((max_points, 4), np.nan, np.float32)
    chosen = sample_points(sources[k].scan()[0], region, max_points, sources[k].seed)
    packed[: len(chosen)] = chosen
    return packed.view(np.uint8).reshape(1, max_points, 16)


def trivial_features(dataset: AnoVoxDataset, words: np.ndarray) -> np.ndarray:
    """(F, K) what says nothing about an anomaly: the input of a scorer that sees no content.

    Colour histogram (3 x 8 bins), sizes of the scan and image files, frame number, and a column for each
    weather and town of `words`.
    """
    channels = [np.moveaxis(image, -1, 0).reshape(3, -1) >> 5 for image in dataset.images]
    histogram = [np.concatenate([np.bincount(c, minlength=8) / c.size for c in image]) for image in channels]
    both = (dataset.point_paths, dataset.image_paths)
    sizes = [np.array([path.stat().st_size if path else 0 for path in paths]) for paths in both]
    one_hot = (dataset.places()[:, :, None] == words).any(axis=1)
    return np.column_stack([histogram, *sizes, dataset.frame_ids, one_hot]).astype(float)


def localise(
    dataset: AnoVoxDataset, explain: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """pixel_ap and point_ap: do heat map and point scores show where the anomaly is? And AnoVox's tables.

    Beside each stands chance, the share of anomalous ones. Over up to LOCATED_FRAMES anomalous frames, evenly
    spread, and as many normal ones for the table with normality included; agents are left out, as AnoVox
    advises. `explain(batch)` gives the heat map (1, H, W) and the point scores (1, N) of a batch of one
    frame. None where the data has no semantic ground truth.
    """
    found: dict[str, dict[str, list]] = {"pixel": {}, "point": {}}
    for label in (1, 0):
        frames = np.flatnonzero(dataset.labels == label)
        for index in frames[:: max(1, math.ceil(len(frames) / LOCATED_FRAMES))].tolist():
            batch = dataset.__getitems__([index])
            heat, point_scores = explain(batch)
            mask, size = batch["point_mask"][0].numpy(), dataset.column("size")[index]
            for sensor, truth, scores in (
                ("pixel", dataset.true_pixels(index), heat[0].numpy()),
                ("point", dataset.true_points(index), point_scores[0].numpy()),
            ):
                if truth is not None:
                    judged = truth >= 0 if sensor == "pixel" else mask & (truth >= 0)
                    tables = ["normality included"]
                    if (truth[judged] == 1).any():  # detectable by this sensor
                        tables += ["anomalies only"] + [f"size {size}"] * bool(size)
                    for name in tables:
                        found[sensor].setdefault(name, []).append((truth[judged], scores[judged]))
    results: dict[str, Any] = {"benchmark": {}}
    for sensor, tables in found.items():
        for name, parts in tables.items():
            truth, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
            results["benchmark"][f"{sensor}, {name}"] = benchmark_metrics(truth, scores)
        only = results["benchmark"].get(f"{sensor}, anomalies only", {})
        shares = [truth.mean() for truth, _ in tables.get("anomalies only", [])]
        results[f"{sensor}_ap"] = only.get("aupr")
        results[f"{sensor}_ap_chance"] = float(np.mean(shares)) if shares else None
    return results


@dataclass
class AnoVoxData:
    """The parts of a data set, and how they came about."""

    sets: dict[str, AnoVoxDataset]  # train, val and, where it is not empty, test
    root: Path
    label: str
    split: dict[str, list[str]]
    split_source: str
    leakage_check: str
    synthetic: bool
    hashes: dict[str, list[str]]  # by scenario: of file sizes and labels, then of the sizes alone
    recorded: dict[str, np.ndarray] | None = None  # `references`, or a run's

    @property
    def train(self) -> AnoVoxDataset:
        return self.sets["train"]

    @property
    def val(self) -> AnoVoxDataset:
        return self.sets["val"]

    @property
    def test(self) -> AnoVoxDataset | None:
        """None where its part is empty."""
        return self.sets.get("test")

    def parts(self) -> dict[str, AnoVoxDataset]:
        """The parts that exist, by name."""
        return self.sets

    def references(self) -> dict[str, np.ndarray]:
        """What the trivial scorer is made of: trivial features (inputs) and labels of train, to fit it, and
        of val, to choose its threshold; words: the weathers and towns that are columns."""
        if self.recorded is None:
            words = self.train.places()
            self.recorded = {"words": np.unique(words)}
            for name in ("train", "val"):
                part = self.sets[name]
                self.recorded[f"{name}_inputs"] = trivial_features(part, self.recorded["words"])
                self.recorded[f"{name}_labels"] = part.labels
        return self.recorded

    def log_lines(self) -> list[str]:
        """What was noticed while reading, and counts per part, a line each."""
        counts = {name: int(part.labels.sum()) for name, part in self.parts().items()}
        return self.train.table.notes + [
            f"{name}: {len(self.split[name])} scenarios, {len(part)} frames, {counts[name]} anomalous"
            + (" (things pasted into copies)" if part.pasting else "")
            for name, part in self.parts().items()
        ]

    def describe(self) -> dict[str, object]:
        """The dataset section of config.json."""
        parts, table = self.parts(), self.train.table
        towns = {name: [table.scenarios[i].town for i in part.scenario] for name, part in parts.items()}
        counts = {f"{name}_samples": len(part) for name, part in parts.items()}
        content = [[s.name, s.kind, s.town] for s in table.scenarios]
        content += [table.frame_id, table.labels, table.pixels, table.points, _file_sizes(table)]
        return {
            "data_path": str(self.root),
            "total_samples": sum(counts.values()),
            **counts,
            "scenarios": self.split,
            "class_counts": {name: part.class_counts() for name, part in parts.items()},
            "towns": {name: sorted(set(names)) for name, names in towns.items()},
            "label": self.label,
            "labels": "pasted" if self.label == "pasted" else "ground truth",
            "pasting": {name: asdict(part.pasting) for name, part in parts.items() if part.pasting},
            "split_method": self.split_source,
            "data_leakage_prevention": self.leakage_check,
            "synthetic": self.synthetic,
            "region": self.train.region.settings(),
            "left_out": table.notes,
            "fingerprint": fingerprint(content),
        }


def groups_of(table: FrameTable, choose: Choose) -> list[str]:
    """The scenarios there are; of those that the run has cut into blocks of frames, the blocks."""
    names = {table.scenarios[i].name for i in table.scenario}
    blocks = [name for name in getattr(choose, "known", ()) if name.partition(":")[0] in names - {name}]
    return sorted(names - {block.partition(":")[0] for block in blocks}) + blocks


def hash_contents(table: FrameTable, groups: list[str]) -> dict[str, list[str]]:
    """By group, of the sizes of its files and its labels, and of the sizes alone: the same recording under
    any name."""
    sizes, rows = _file_sizes(table), {group: table.rows_of([group]) for group in groups}
    return {
        group: [fingerprint(sizes[mine], table.labels[mine]), fingerprint(sizes[mine])]
        for group, mine in rows.items()
    }


def _file_sizes(table: FrameTable) -> np.ndarray:
    """(F, 2) bytes of each frame's image and scan, 0 where there is none.

    Neither path nor time is in it, so that a copy of the data is the same data.
    """
    files = [table.scenarios[i].files for i in table.scenario]
    frames = zip(files, table.frame_id, strict=True)
    paths = [(sensors["image"].get(frame), sensors["points"].get(frame)) for sensors, frame in frames]
    return np.array([[path.stat().st_size if path else 0 for path in pair] for pair in paths])


def build_datasets(args: argparse.Namespace, choose: Choose | None = None) -> AnoVoxData:
    """Train, val and test (none where a split has none) as the flags of flags.py say, or the parts that
    `choose` makes of the scenarios."""
    sample = SAMPLE + ("" if args.size == "small" else f"_{args.size}")
    root, ids = (
        args.data_path or ensure_sample("anovox", sample, args.size, log=LOG.info),
        tuple(args.anomaly_ids),
    )
    if args.check_data:  # before anything is decoded: it tells all problems, not the first
        for line in check_frames(find_scenarios(root, args.camera), ids, args.frame_rate):
            LOG.info(line)
    return load_anovox(
        root,
        label=args.label, min_pixels=args.min_pixels, min_points=args.min_points, camera=args.camera,
        modality=args.modality, split_method=args.split_method, test_size=args.test_size,
        val_size=args.val_size, seed=args.seed, holdout_towns=args.holdout_towns, fold=args.fold,
        image_size=tuple(args.image_size), max_points=args.max_points, pastes=args.pastes,
        mixing=args.feature_mixing, anomaly_ids=ids, choose=choose, cache_dir=args.cache_dir,
        limit_gb=args.cache_limit_gb,
        log=LOG.info,
    )  # fmt: skip


def load_anovox(
    root: Path | str,
    *,
    label: str = "visible",
    min_pixels: float = 20,
    min_points: int = 3,
    camera: str | None = None,
    modality: str = "both",
    split_method: str = "auto",
    test_size: float = 0.2,
    val_size: float = 0.2,
    seed: int = 42,
    holdout_towns: list[str] | None = None,
    fold: str | None = None,
    image_size: tuple[int, int] = (128, 192),
    max_points: int = 1024,
    region: Region | None = None,
    pastes: int = 0,
    mixing: bool = False,
    anomaly_ids: tuple[int, ...] = ANOMALY_IDS,
    choose: Choose | None = None,
    **cache,
) -> AnoVoxData:
    """Find, label, split, and cache. `pastes`: pasted copies of a frame with label pasted, 0 = by itself.

    `cache`: cache_dir, limit_gb, workers, log for open_cache."""
    root = Path(root)
    scenarios = find_scenarios(root, camera)
    table = build_table(
        scenarios, label, min_pixels, min_points, region, modality, anomaly_ids=anomaly_ids, **cache
    )
    if choose:
        split = choose(hash_contents(table, groups_of(table, choose)))
        source, outcome = "chosen", ""
    else:
        split, source, outcome = split_scenarios(
            table, root, split_method, test_size, val_size, seed, holdout_towns, fold, label == "pasted"
        )
    parts: dict[str, AnoVoxDataset] = {}
    copies = pastes
    for name in filter(split.get, split):
        rows, pasting = table.rows_of(split[name]), None
        if label == "pasted" and not table.labels[rows].any():
            copies = copies or max(1, math.ceil(PASTED_FRAMES / len(rows)))  # as many in val and test
            part = name if name in PARTS else "test"
            pasting = Pasting(part, copies, "none" if mixing and name == "train" else None, modality)
        known = (table, rows, image_size, max_points, region, seed, pasting)
        parts[name] = AnoVoxDataset(*known, **cache)
    synthetic = (root / "SYNTHETIC.json").exists()
    hashes = hash_contents(table, sum(split.values(), []))
    return AnoVoxData(parts, hashes=hashes, root=root, label=label, split=split, split_source=source,
                      leakage_check=outcome, synthetic=synthetic)  # fmt: skip
