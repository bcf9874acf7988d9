"""AnoVox: camera image and LiDAR scan of one moment, and whether there is an anomaly in it.

    data = load_anovox("/data/AnoVox", label="visible")
    batch = data.train.__getitems__([0, 1, 2])

A frame's way: files.py finds it, labels.py labels it and gives its scenario to a split, points.py reads and
samples its scan, the cache holds it, this file makes batches of it, augmentation.py changes them.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.anovox.files import find_scenarios
from datasets.anovox.flags import SAMPLE
from datasets.anovox.labels import (
    FrameTable,
    build_table,
    is_anomalous_image,
    is_anomalous_points,
    split_scenarios,
)
from datasets.anovox.points import OUTSIDE, Region, frame_seed, project, read_points, sample_points
from datasets.cache import fingerprint, open_cache
from datasets.images import read_image
from datasets.samples import ensure_sample
from utils.run.log import LOG

CLASSES = ("normal", "anomaly")
PARTS = ("train", "val", "test")
CELL_GRID = (8, 12)  # rows and columns of the parts in which an anomaly is located
CELL_SHARE = 5  # a cell shows an anomaly from this share of its pixels on, in 254ths: 2%
UNKNOWN_SHARE = 255  # no semantic image
LOCATED_FRAMES = 200  # anomalous frames, at most, on which pixel AP and point AP are measured
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
        **cache,
    ):
        """`image_size` = (H, W); `seed` draws the points.

        `cache`: cache_dir, limit_gb, workers, log for open_cache.
        """
        self.table, self.rows = table, np.asarray(rows)
        self.image_size, self.max_points = tuple(image_size), max_points
        region = region or Region()
        self.region = replace(region, cell=region.cell * (1024 / max_points) ** 0.5)  # more points see finer
        self.labels = table.labels[self.rows]
        self.scenario = table.scenario[self.rows]
        self.frame_ids = table.frame_id[self.rows]
        self.image_paths, self.point_paths = self.paths("image"), self.paths("points")
        self.projections = np.stack([scenario.projection for scenario in table.scenarios])

        def cached(kind: str, settings: dict, sources: list, shape: tuple, produce: Callable) -> np.ndarray:
            """One item per frame; where a frame lacks the source its image stands in."""
            known = [path or image for path, image in zip(sources, self.image_paths, strict=True)]
            return open_cache(f"anovox_{kind}", settings, known, [1] * len(known), shape, produce, **cache)

        size, grid = self.image_size, CELL_GRID
        produce = partial(_decode, self.image_paths, size)
        self.images = cached("images", {"image_size": list(size)}, self.image_paths, (*size, 3), produce)
        frames = zip(self.names(), self.frame_ids, strict=True)
        seeds = [frame_seed(seed, name, int(frame)) for name, frame in frames]
        sampling = {"region": self.region.settings(), "max_points": max_points, "seed": seed}
        sampling["scans"] = [path is not None for path in self.point_paths]
        produce = partial(_sample, self.point_paths, seeds, self.region, max_points)
        # (F, N, 16) bytes = float32 x, y, z, intensity; padding is NaN
        self.packed_points = cached("points", sampling, self.point_paths, (max_points, 16), produce)
        semantic = self.paths("semantic_image")
        truth = [(path, table.scenarios[i].layout) for path, i in zip(semantic, self.scenario, strict=True)]
        located = {"grid": list(grid), "known": [path is not None for path in semantic]}
        self.cell_shares = cached("cells", located, semantic, grid, partial(_share_of_cells, truth, grid))

    def class_counts(self) -> dict[str, int]:
        """Frames per class."""
        return dict(zip(CLASSES, np.bincount(self.labels, minlength=2).tolist(), strict=True))

    @property
    def frames(self) -> np.ndarray:
        """(F,) the unit of sampling and evaluation: every frame is its own."""
        return np.arange(len(self.rows))

    def paths(self, sensor: str) -> list[Path | None]:
        """The file of a sensor for each frame, None where there is none."""
        files = [scenario.files[sensor] for scenario in self.table.scenarios]
        return [files[i].get(int(frame)) for i, frame in zip(self.scenario, self.frame_ids, strict=True)]

    def column(self, name: str) -> np.ndarray:
        """A column of the frame table for these rows."""
        return getattr(self.table, name)[self.rows]

    def names(self) -> np.ndarray:
        """(F,) the scenario of each frame."""
        return np.array([self.table.scenarios[i].name for i in self.scenario])

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

    def anomalous_pixels(self, index: int) -> np.ndarray | None:
        """(H, W) bool at the data set's image size (nearest), None without a semantic image."""
        path = self.paths("semantic_image")[index]
        if path is None:
            return None
        mask = is_anomalous_image(read_image(path), self.table.scenarios[self.scenario[index]].layout)
        image = Image.fromarray(mask.astype(np.uint8))
        return np.asarray(image.resize(self.image_size[::-1], Image.Resampling.NEAREST)).astype(bool)

    def anomalous_points(self, index: int) -> np.ndarray | None:
        """(N,) bool per sampled point, by the nearest semantic return; None without a semantic scan."""
        from scipy.spatial import cKDTree  # slow to import, and needed after training only

        path = self.paths("semantic_points")[index]
        if path is None:
            return None
        semantic = read_points(path)
        truth = is_anomalous_points(semantic[:, 3], self.table.scenarios[self.scenario[index]].layout)
        sample = self[index]
        points, mask = sample["points"][:, :3].numpy(), sample["point_mask"].numpy()
        near, found = cKDTree(semantic[:, :3]).query(points, distance_upper_bound=NEIGHBOUR)
        return mask & np.isfinite(near) & np.append(truth, False)[found]


def _share_of_cells(jobs: list[tuple[Path | None, str]], grid: tuple[int, int], k: int) -> np.ndarray:
    """(1, rows, columns) uint8: anomalous share of each cell in 254ths; UNKNOWN_SHARE without a file."""
    path, layout = jobs[k]
    if path is None:
        return np.full((1, *grid), UNKNOWN_SHARE, np.uint8)
    mask = is_anomalous_image(read_image(path), layout)
    whole = np.pad(np.cumsum(np.cumsum(mask, 0), 1), ((1, 0), (1, 0)))  # cells need not divide the image
    rows, columns = (np.linspace(0, mask.shape[k], grid[k] + 1).round().astype(int) for k in (0, 1))
    counts = np.diff(np.diff(whole[np.ix_(rows, columns)], axis=0), axis=1)
    areas = np.diff(rows)[:, None] * np.diff(columns)[None]
    return np.ceil(254 * counts / areas).astype(np.uint8)[None]


def _decode(paths: list[Path], image_size: tuple[int, int], k: int) -> np.ndarray:
    return load_image(paths[k], image_size)[None]


def load_image(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 (H, W, 3) at `image_size` = (H, W); antialiased bilinear where the size changes."""
    image = read_image(path)
    if image.shape[:2] == tuple(image_size):
        return image
    return np.asarray(Image.fromarray(image).resize(image_size[::-1], Image.Resampling.BILINEAR))


def _sample(
    paths: list[Path | None], seeds: list[int], region: Region, max_points: int, k: int
) -> np.ndarray:
    """(1, max_points, 16) bytes of float32 rows; what no point fills is NaN."""
    packed = np.full((max_points, 4), np.nan, np.float32)
    if paths[k] is not None:
        chosen = sample_points(read_points(paths[k]), region, max_points, seeds[k])
        packed[: len(chosen)] = chosen
    return packed.view(np.uint8).reshape(1, max_points, 16)


def trivial_features(dataset: AnoVoxDataset) -> np.ndarray:
    """(F, K) what says nothing about an anomaly: the input of a scorer that sees no content.

    Colour histogram (3 x 8 bins), sizes of the scan and image files, frame number, weather, town.
    """
    channels = [np.moveaxis(image, -1, 0).reshape(3, -1) >> 5 for image in dataset.images]
    histogram = [np.concatenate([np.bincount(c, minlength=8) / c.size for c in image]) for image in channels]
    both = (dataset.point_paths, dataset.image_paths)
    sizes = [np.array([path.stat().st_size if path else 0 for path in paths]) for paths in both]
    scenarios, one_hot = dataset.table.scenarios, []
    for key in ("weather", "town"):
        known = sorted({getattr(scenario, key) for scenario in scenarios})
        one_hot.append([[getattr(scenarios[i], key) == word for word in known] for i in dataset.scenario])
    return np.column_stack([histogram, *sizes, dataset.frame_ids, *map(np.array, one_hot)]).astype(float)


def localisation_ap(
    dataset: AnoVoxDataset, explain: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
) -> dict[str, float | None]:
    """pixel_ap and point_ap: do heat map and point scores show where the anomaly is?

    Beside each stands chance, the share of anomalous ones. Over up to LOCATED_FRAMES anomalous frames, evenly
    spread. `explain(batch)` gives the heat map (1, H, W) and the point scores (1, N) of a batch of one frame.
    None where the data has no semantic ground truth.
    """
    from sklearn.metrics import average_precision_score

    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"pixel": [], "point": []}
    anomalous = np.flatnonzero(dataset.labels == 1)
    for index in anomalous[:: max(1, math.ceil(len(anomalous) / LOCATED_FRAMES))].tolist():
        batch = dataset.__getitems__([index])
        heat, point_scores = explain(batch)
        mask = batch["point_mask"][0].numpy()
        if (truth := dataset.anomalous_pixels(index)) is not None:
            found["pixel"].append((truth.ravel(), heat[0].numpy().ravel()))
        if (truth := dataset.anomalous_points(index)) is not None:
            found["point"].append((truth[mask], point_scores[0].numpy()[mask]))
    results: dict[str, float | None] = {}
    for name, parts in found.items():
        truth, scores = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else ([], [])
        known = bool(np.any(truth))
        results[f"{name}_ap"] = float(average_precision_score(truth, scores)) if known else None
        results[f"{name}_ap_chance"] = float(np.mean(truth)) if known else None
    return results


@dataclass
class AnoVoxData:
    """The three parts of a data set, and how they came about."""

    train: AnoVoxDataset
    val: AnoVoxDataset
    test: AnoVoxDataset | None
    root: Path
    label: str
    split: dict[str, list[str]]
    split_source: str
    leakage_check: str
    synthetic: bool

    def parts(self) -> dict[str, AnoVoxDataset]:
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def log_lines(self) -> list[str]:
        """What was noticed while reading, and counts per part, a line each."""
        counts = {name: int(part.labels.sum()) for name, part in self.parts().items()}
        return self.train.table.notes + [
            f"{name}: {len(self.split[name])} scenarios, {len(part)} frames, {counts[name]} anomalous"
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
            "split_method": self.split_source,
            "data_leakage_prevention": self.leakage_check,
            "synthetic": self.synthetic,
            "region": self.train.region.settings(),
            "left_out": table.notes,
            "fingerprint": fingerprint(content),
        }


def _file_sizes(table: FrameTable) -> np.ndarray:
    """(F, 2) bytes of each frame's image and scan, 0 where there is none.

    Neither path nor time is in it, so that a copy of the data is the same data.
    """
    files = [table.scenarios[i].files for i in table.scenario]
    frames = zip(files, table.frame_id, strict=True)
    paths = [(sensors["image"].get(frame), sensors["points"].get(frame)) for sensors, frame in frames]
    return np.array([[os.stat(path).st_size if path else 0 for path in pair] for pair in paths])


def build_datasets(args: argparse.Namespace) -> AnoVoxData:
    """Train, val and test (None where a split has none) as the flags of flags.py say."""
    sample = SAMPLE + ("" if args.size == "small" else f"_{args.size}")
    return load_anovox(
        args.data_path or ensure_sample("anovox", sample, args.size, log=LOG.info),
        label=args.label, min_pixels=args.min_pixels, min_points=args.min_points, camera=args.camera,
        modality=args.modality, split_method=args.split_method, test_size=args.test_size,
        val_size=args.val_size, seed=args.seed, holdout_towns=args.holdout_towns,
        image_size=tuple(args.image_size), max_points=args.max_points, limit_gb=args.cache_limit_gb,
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
    image_size: tuple[int, int] = (128, 192),
    max_points: int = 1024,
    region: Region | None = None,
    **cache,
) -> AnoVoxData:
    """Find, label, split, and cache. `cache`: cache_dir, limit_gb, workers, log for open_cache."""
    root = Path(root)
    scenarios = find_scenarios(root, camera)
    table = build_table(scenarios, label, min_pixels, min_points, region, modality, **cache)
    split, source, outcome = split_scenarios(
        table, root, split_method, test_size, val_size, seed, holdout_towns
    )
    parts = {
        name: AnoVoxDataset(table, table.rows_of(split[name]), image_size, max_points, region, seed, **cache)
        if split[name]
        else None
        for name in PARTS
    }
    synthetic = (root / "SYNTHETIC.json").exists()
    return AnoVoxData(**parts, root=root, label=label, split=split, split_source=source,
                      leakage_check=outcome, synthetic=synthetic)  # fmt: skip
