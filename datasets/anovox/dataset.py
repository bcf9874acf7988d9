"""AnoVox: camera image and LiDAR scan of one moment, and whether there is an anomaly in it.

A frame's way: files.py finds it, labels.py labels it, splits.py gives its scenario to a part, source.py reads
it and pastes into it, points.py samples its scan, the cache holds it, this file makes batches of it,
augmentation.py changes them. load.py goes all the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.anovox.files import AnyPath
from datasets.anovox.labels import FrameTable
from datasets.anovox.pasted import PASTE_VERSION
from datasets.anovox.points import OUTSIDE, Region, frame_seed, project, sample_points
from datasets.anovox.source import Pasting, Source
from datasets.cache import describe_files, open_cache

CLASSES = ("normal", "anomaly")
CELL_GRID = (8, 12)  # rows and columns of the parts in which an anomaly is located
CELL_SHARE = 5  # a cell shows an anomaly from this share of its pixels on, in 254ths: 2%
UNKNOWN_SHARE = 255  # no semantic image
NEIGHBOUR = 0.5  # metres; the LiDAR has noise of .1 m along the ray, the semantic LiDAR has none
TOLD = ("frame_id", "category", "size", "visibility", "distance")  # in a table of the frames' scores

# (kind, settings, files, shape of an item, produce(k)) -> the items; see open_cache
Store = Callable[[str, dict, list, tuple, Callable], np.ndarray]


class AnoVoxDataset(torch.utils.data.Dataset):
    """Frames of some scenarios. Images and sampled points are decoded once, into memory-mapped files.

    `dataset[k]` is one sample; `dataset.__getitems__(list)`, which a DataLoader calls, is a batch of tensors:
        images       (B, 3, H, W) uint8
        points       (B, N, 4) float32 x forward, y left, z up in metres, intensity; 0 where padded
        point_mask   (B, N) bool, True = a real point
        point_pixels (B, N, 2) float32 u, v of the point in the image, -1 (left, top) to 1; 2 out of view
        labels       (B,) int64, 1 = anomaly (-1 = unknown)
        cells        (B, rows, columns) float32, 1 where the image shows an anomaly there; NaN = unknown
        true_points  (B, N) float32, 1 = the point lies on an anomaly; -1 = unknown, an agent, no point
        indices      (B,) int64, the positions asked for
    """

    def __init__(
        self, table: FrameTable, rows: np.ndarray, image_size: tuple[int, int] = (128, 192),
        max_points: int = 1024, seed: int = 42, pasting: Pasting | None = None, truth: bool = True,
        store: Store | None = None, **cache,
    ):  # fmt: skip
        """`image_size` = (H, W); `seed` draws the points; `pasting`: every row is there several times;
        `truth`: whether where the anomalies are is read too, else it is unknown.

        `store` keeps the decoded frames, default the cache, to which `cache` goes: cache_dir, limit_gb, ...
        """
        copies = 2 * pasting.copies if pasting else 1
        self.table, self.rows, self.pasting = table, np.repeat(np.asarray(rows, np.int64), copies), pasting
        self.image_size, self.max_points = tuple(image_size), max_points
        self.region = Region(cell=Region().cell * (1024 / max_points) ** 0.5)  # more points see finer
        self.scenario, self.frame_ids = table.scenario[self.rows], table.frame_id[self.rows]
        copy = np.arange(len(self.rows)) % copies  # of a frame: 0 as it is, 1 pasted, 2 as it is, ...
        self.labels = copy % 2 if pasting else table.labels[self.rows]
        known = [s.projection for s in table.scenarios]  # none of a scenario without a camera: it has no row
        self.projections = np.stack([np.full((3, 4), np.nan) if p is None else p for p in known])
        frames = [(table.scenarios[i], int(f)) for i, f in zip(self.scenario, self.frame_ids, strict=True)]
        images = sorted({scenario.files["image"][frame] for scenario, frame in frames})
        coding, donors = (table.palette, table.anomaly_ids), tuple(images) if pasting else ()
        self.sources = [
            Source(drive, frame, coding, frame_seed(seed, drive.name, frame), pasting, int(copy[k]), donors)
            for k, (drive, frame) in enumerate(frames)
        ]
        kept = store or partial(_cached, cache)
        common = {"pasting": [PASTE_VERSION, asdict(pasting)] if pasting else None, "coding": coding}
        inner = [str(path) for path in self.paths("image") if not isinstance(path, Path)]
        common |= {"members": inner} if inner else {}  # of archives, whose size and time they share

        def stored(kind: str, settings: dict, sensor: str, shape: tuple, produce: Callable) -> np.ndarray:
            """One item per frame; where a frame lacks the file its image stands in."""
            files = [source.path(sensor) or source.path("image") for source in self.sources]
            settings |= common | {"known": [source.path(sensor) is not None for source in self.sources]}
            return kept(f"anovox_{kind}", settings, files, shape, partial(produce, self.sources))

        size, sampling = self.image_size, {"region": self.region.settings(), "seed": seed}
        shape, decode = (*size, 3), partial(_decode, image_size=size)
        self.images = stored("images", {"image_size": size}, "image", shape, decode)
        # (F, N, 20) bytes = float32 x, y, z, intensity and truth; padding is NaN
        settings = {"region": self.region, "max_points": max_points, "with_truth": truth}
        if truth:
            known = [source.path("semantic_points") or source.path("image") for source in self.sources]
            sampling["truth"] = describe_files(known)
        shape, sample = (max_points, 20), partial(_sample, **settings)
        self.packed_points = stored("points", sampling, "points", shape, sample)
        self.cell_shares = np.full((len(self.rows), *CELL_GRID), UNKNOWN_SHARE, np.uint8)
        if truth:
            self.cell_shares = stored("cells", {}, "semantic_image", CELL_GRID, _share_of_cells)

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
        return [source.path(sensor) for source in self.sources]

    def column(self, name: str) -> np.ndarray:
        """A column of the frame table for these rows."""
        return getattr(self.table, name)[self.rows]

    def columns(self) -> dict[str, np.ndarray]:
        """What a table of the frames says beside their scores; what is pasted has its own distance."""
        told = {"scenario": self.names()} | {name: self.column(name) for name in TOLD}
        if self.pasting:
            things = [source.thing for source in self.sources]
            told["distance"] = np.array([thing.distance if thing else np.nan for thing in things])
            told["visibility"] = np.array([thing.sensors if thing else "" for thing in things])
        return told

    def names(self) -> np.ndarray:
        """(F,) the scenario of each frame."""
        return np.array([source.scenario.name for source in self.sources])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        where = np.asarray(indices, np.int64)
        shares = self.cell_shares[where]  # (B, rows, columns)
        cells = np.where(shares == UNKNOWN_SHARE, np.nan, shares >= CELL_SHARE)
        packed = self.packed_points[where].view(np.float32)  # (B, N, 5)
        points, truth = np.ascontiguousarray(packed[..., :4]), packed[..., 4]
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
            "true_points": torch.from_numpy(np.where(truth >= 0, truth, np.float32(-1))),
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
        """(N,) int8 as true_pixels, per sampled point; None where it is not known."""
        packed = self.packed_points[index].view(np.float32)  # (N, 5)
        real, truth = np.isfinite(packed[:, 0]), packed[:, 4]
        if not np.isfinite(truth[real]).all():
            return None
        return np.where(real, truth, 0).astype(np.int8)


def _cached(cache: dict, kind: str, settings: dict, files: list, shape: tuple, produce) -> np.ndarray:
    return open_cache(kind, settings, files, [1] * len(files), shape, produce, **cache)


def _share_of_cells(sources: list[Source], k: int) -> np.ndarray:
    """(1, rows, columns) uint8: anomalous share of each cell in 254ths; UNKNOWN_SHARE without a file."""
    truth = sources[k].true_pixels()
    if truth is None:
        return np.full((1, *CELL_GRID), UNKNOWN_SHARE, np.uint8)
    mask = truth == 1
    edges = [np.linspace(0, mask.shape[k], CELL_GRID[k] + 1).round().astype(int) for k in (0, 1)]
    counts = np.add.reduceat(np.add.reduceat(mask.astype(int), edges[0][:-1], 0), edges[1][:-1], 1)
    return np.ceil(254 * counts / np.outer(*map(np.diff, edges))).astype(np.uint8)[None]


def _decode(sources: list[Source], k: int, image_size: tuple[int, int]) -> np.ndarray:
    return fit_image(sources[k].image()[0], image_size)[None]


def fit_image(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """RGB uint8 (H, W, 3) at `image_size` = (H, W); antialiased bilinear where the size changes."""
    if image.shape[:2] == tuple(image_size):
        return image
    return np.asarray(Image.fromarray(image).resize(image_size[::-1], Image.Resampling.BILINEAR))


def _sample(sources: list[Source], k: int, region: Region, max_points: int, with_truth: bool) -> np.ndarray:
    """(1, max_points, 20) bytes of float32 rows: x, y, z, intensity, and the truth of the nearest return with
    a known class, as Source.true_points has it; what no point fills is NaN.
    """
    packed = np.full((max_points, 5), np.nan, np.float32)
    chosen = sample_points(sources[k].scan()[0], region, max_points, sources[k].seed)
    packed[: len(chosen), :4] = chosen
    known = sources[k].true_points() if with_truth else None
    if known is not None and len(chosen):
        from scipy.spatial import cKDTree  # slow to import, and needed where no cache is

        near, found = cKDTree(known[0]).query(chosen[:, :3], distance_upper_bound=NEIGHBOUR)
        packed[: len(chosen), 4] = np.where(np.isfinite(near), np.append(known[1], 0)[found], 0)
    return packed.view(np.uint8).reshape(1, max_points, 20)
