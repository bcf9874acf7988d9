"""AnoVox: camera image and LiDAR scan of one moment, and whether there is an anomaly in it.

    data = load_anovox("/data/AnoVox", label="visible")
    batch = data.train.__getitems__([0, 1, 2])

The folder tree that is expected stands in anovox_files.py, the rules of the labels in anovox_labels.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets.anovox.files import find_scenarios
from datasets.anovox.labels import FrameTable, build_table, is_anomalous_image
from datasets.anovox.points import OUTSIDE, Region, frame_seed, project, read_points, sample_points
from datasets.anovox.splits import split_scenarios
from datasets.cache import fingerprint, open_cache
from datasets.images import read_image

CLASSES = ("normal", "anomaly")
PARTS = ("train", "val", "test")
CELL_GRID = (8, 12)  # rows and columns of the parts in which an anomaly is located
CELL_SHARE = 5  # a cell shows an anomaly from this share of its pixels on, in 254ths: 2%
UNKNOWN_SHARE = 255  # no semantic image


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
        cell_grid: tuple[int, int] = CELL_GRID,
        **cache,
    ):
        """`image_size` = (H, W); `seed` draws the points; `cache` goes to open_cache.

        `cache`: cache_dir, limit_gb, workers, log.
        """
        self.table, self.rows, self.image_size, self.max_points = (
            table,
            np.asarray(rows),
            tuple(image_size),
            max_points,
        )
        region = region or Region()
        self.region = replace(region, cell=region.cell * (1024 / max_points) ** 0.5)  # more points see finer
        self.labels = table.labels[self.rows]
        self.scenario = table.scenario[self.rows]
        files = [table.scenarios[i].files for i in self.scenario]
        frames = table.frame_id[self.rows]
        names = [table.scenarios[i].name for i in self.scenario]
        self.image_paths = [sensors["image"][frame] for sensors, frame in zip(files, frames, strict=True)]
        self.point_paths = [s["points"].get(frame) for s, frame in zip(files, frames, strict=True)]
        self.projections = np.stack([scenario.projection for scenario in table.scenarios])

        one_each = [1] * len(self.rows)
        self.images = open_cache(
            "anovox_images",
            {"image_size": list(self.image_size)},
            self.image_paths,
            one_each,
            (*self.image_size, 3),
            partial(_decode, self.image_paths, self.image_size),
            **cache,
        )
        seeds = [frame_seed(seed, name, int(frame)) for name, frame in zip(names, frames, strict=True)]
        sampling = {
            "region": self.region.settings(),
            "max_points": max_points,
            "seed": seed,
            "scans": [p is not None for p in self.point_paths],
        }
        # A frame without scan has no points; its image stands in as the source.
        sources = [path or image for path, image in zip(self.point_paths, self.image_paths, strict=True)]
        packed = open_cache(
            "anovox_points",
            sampling,
            sources,
            one_each,
            (max_points, 16),
            partial(_sample, self.point_paths, seeds, self.region, max_points),
            **cache,
        )
        self.packed_points = packed  # (F, N, 16) bytes = float32 x, y, z, intensity; padding is NaN
        truth = [
            (table.scenarios[i].files["semantic_image"].get(frame), table.scenarios[i].layout)
            for i, frame in zip(self.scenario, frames, strict=True)
        ]
        located = {"grid": list(cell_grid), "known": [path is not None for path, _ in truth]}
        sources = [path or image for (path, _), image in zip(truth, self.image_paths, strict=True)]
        self.cell_shares = open_cache(
            "anovox_cells",
            located,
            sources,
            one_each,
            cell_grid,
            partial(_share_of_cells, truth, tuple(cell_grid)),
            **cache,
        )

    @property
    def frames(self) -> np.ndarray:
        """(F,) the unit of sampling and evaluation: every frame is its own."""
        return np.arange(len(self.rows))

    def column(self, name: str) -> np.ndarray:
        """A column of the frame table for these rows."""
        return getattr(self.table, name)[self.rows]

    def names(self) -> np.ndarray:
        """(F,) the scenario of each frame."""
        return np.array([self.table.scenarios[i].name for i in self.scenario])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
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


def _share_of_cells(jobs: list[tuple[Path | None, str]], grid: tuple[int, int], k: int) -> np.ndarray:
    """(1, rows, columns) uint8: anomalous share of each cell in 254ths; UNKNOWN_SHARE without a file."""
    path, layout = jobs[k]
    if path is None:
        return np.full((1, *grid), UNKNOWN_SHARE, np.uint8)
    mask = is_anomalous_image(read_image(path, "RGB"), layout)
    whole = np.pad(np.cumsum(np.cumsum(mask, 0), 1), ((1, 0), (1, 0)))  # cells need not divide the image
    rows, columns = (np.linspace(0, mask.shape[k], grid[k] + 1).round().astype(int) for k in (0, 1))
    counts = np.diff(np.diff(whole[np.ix_(rows, columns)], axis=0), axis=1)
    areas = np.diff(rows)[:, None] * np.diff(columns)[None]
    return np.ceil(254 * counts / areas).astype(np.uint8)[None]


def _decode(paths: list[Path], image_size: tuple[int, int], k: int) -> np.ndarray:
    return load_image(paths[k], image_size)[None]


def load_image(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 (H, W, 3) at `image_size` = (H, W); antialiased bilinear where the size changes."""
    image = read_image(path, "RGB")
    if image.shape[:2] == tuple(image_size):
        return image
    return np.asarray(
        Image.fromarray(image).resize((image_size[1], image_size[0]), Image.Resampling.BILINEAR)
    )


def _sample(
    paths: list[Path | None], seeds: list[int], region: Region, max_points: int, k: int
) -> np.ndarray:
    """(1, max_points, 16) bytes of float32 rows; what no point fills is NaN."""
    packed = np.full((max_points, 4), np.nan, np.float32)
    if paths[k] is not None:
        chosen = sample_points(read_points(paths[k]), region, max_points, seeds[k])
        packed[: len(chosen)] = chosen
    return packed.view(np.uint8).reshape(1, max_points, 16)


def _file_sizes(table: FrameTable) -> np.ndarray:
    """(F, 2) bytes of each frame's image and scan, 0 where there is none.

    Neither path nor time is in it, so that a copy of the data is the same data.
    """
    files = [table.scenarios[i].files for i in table.scenario]
    paths = [
        (sensors["image"].get(frame), sensors["points"].get(frame))
        for sensors, frame in zip(files, table.frame_id, strict=True)
    ]
    return np.array([[os.stat(path).st_size if path else 0 for path in pair] for pair in paths])


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

    def describe(self) -> dict[str, object]:
        """The dataset section of config.json."""
        parts = self.parts()
        table = self.train.table
        counts = {f"{name}_samples": len(part) for name, part in parts.items()}
        content = [[s.name, s.kind, s.town] for s in table.scenarios] + [
            table.frame_id,
            table.labels,
            table.pixels,
            table.points,
            _file_sizes(table),
        ]
        return {
            "data_path": str(self.root),
            "total_samples": sum(counts.values()),
            **counts,
            "scenarios": self.split,
            "class_counts": {
                name: dict(zip(CLASSES, np.bincount(part.labels, minlength=2).tolist(), strict=True))
                for name, part in parts.items()
            },
            "towns": {
                name: sorted({table.scenarios[i].town for i in part.scenario}) for name, part in parts.items()
            },
            "label": self.label,
            "split_method": self.split_source,
            "data_leakage_prevention": self.leakage_check,
            "synthetic": self.synthetic,
            "region": self.train.region.settings(),
            "left_out": table.notes,
            "fingerprint": fingerprint(content),
        }


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
    table = build_table(
        find_scenarios(root, camera), label, min_pixels, min_points, region, modality, **cache
    )
    split, source, outcome = split_scenarios(
        table, root, split_method, test_size, val_size, seed, holdout_towns
    )
    parts = {
        name: AnoVoxDataset(table, table.rows_of(split[name]), image_size, max_points, region, seed, **cache)
        if split[name]
        else None
        for name in PARTS
    }
    return AnoVoxData(
        **parts,
        root=root,
        label=label,
        split=split,
        split_source=source,
        leakage_check=outcome,
        synthetic=(root / "SYNTHETIC.json").exists(),
    )
