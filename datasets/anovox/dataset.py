"""AnoVox frames as a torch data set: decoded once, then served as batches of tensors."""

from collections import Counter
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.anovox.frame import CELL_GRID, UNKNOWN_SHARE, Frame, Region, Store, cached_results
from datasets.anovox.labels import FrameTable
from datasets.anovox.pasted import Pasting, paste_into
from datasets.cache import open_cache

CLASSES = ("normal", "anomaly")
OUTSIDE = 2.0  # u and v, -1 to 1 in the image, of a point out of view
CELL_SHARE = 5  # a cell is anomalous from this share of its pixels on, in 254ths (2%)
COLUMNS = ("scenario", "frame_id", "category", "size", "visibility", "distance")  # in a table of scores


class AnoVoxDataset(torch.utils.data.Dataset):
    """Frames of some scenarios. Images and sampled points are decoded once into memory-mapped files.

    `dataset.__getitems__(list)`, which a DataLoader calls, returns a batch of tensors:
        images       (B, 3, H, W) uint8
        points       (B, N, 4) float32 x forward, y left, z up in metres, intensity; 0 where padded
        point_mask   (B, N) bool, True = a real point
        point_pixels (B, N, 2) float32 u, v of the point in the image, -1 (left, top) to 1; 2 out of view
        labels       (B,) int64, 1 = anomaly (-1 = unknown)
        cells        (B, rows, columns) float32, 1 = the cell shows an anomaly; NaN = unknown
        true_points  (B, N) float32, 1 = on an anomaly; 0 = not, or no labelled return is near;
                     -1 = unknown, an agent or padding
        indices      (B,) int64, the indices asked for"""

    def __init__(
        self, table: FrameTable, rows: np.ndarray, image_size: tuple[int, int] = (128, 192),
        max_points: int = 1024, seed: int = 42, pasting: Pasting | None = None, truth: bool = True,
        store: Store = open_cache, **cache,
    ):  # fmt: skip
        """`image_size` = (H, W). `seed` draws the points. `pasting` adds copies with pasted objects. Without
        `truth`, the places of anomalies stay unknown. `store` keeps the decoded frames and takes `cache`:
        cache_dir and limit_gb."""
        self.table, self.rows, self.pasting = table, np.asarray(rows, np.int64), pasting
        self.image_size = tuple(image_size)
        self.region = Region(cell=Region().cell * (1024 / max_points) ** 0.5)  # finer with more points
        self.labels, self.sources = table.labels[self.rows], [table.frames[k] for k in self.rows]
        if pasting:
            chosen, self.labels, self.sources = paste_into(self.sources, self.labels, pasting, seed)
            self.rows = self.rows[chosen]
        self.scenario, self.frame_ids = table.scenario[self.rows], table.frame_id[self.rows]
        self.projections = np.stack([source.scenario.projection for source in self.sources])  # (F, 3, 4)

        cached = partial(cached_results, self.sources, store=store, **cache)
        pasted = {"pasting": [seed, asdict(pasting)]} if pasting else {}
        scan = ["points"] * bool(pasting)  # pasted objects stand on the ground it shows
        settings = {"size": self.image_size}
        self.images = cached(Frame.pixels, (*self.image_size, 3), scan, settings, pasted)
        # (F, N, 5) x, y, z, intensity and truth; padding is NaN
        settings = {"seed": seed, "count": max_points, "cell": self.region.cell, "with_truth": truth}
        sensors, key = ["points", *["semantic_points"] * truth], pasted | {"region": asdict(Region())}
        self.packed_points = cached(Frame.points, (max_points, 5), sensors, settings, key, dtype=np.float32)
        self.cell_shares = np.full((len(self.rows), *CELL_GRID), UNKNOWN_SHARE, np.uint8)
        if truth:
            self.cell_shares = cached(Frame.cells, CELL_GRID, ["semantic_image", *scan], {}, pasted)

    def group_names(self) -> list[str]:
        """Names of the scenarios; NAME:FRAME for each frame of a scenario that other parts share."""
        whole, mine = (Counter(self.table.scenario[rows]) for rows in (slice(None), np.unique(self.rows)))
        named = zip(self.scenario.tolist(), self.frame_ids.tolist(), strict=True)
        return sorted({name if mine[name] == whole[name] else f"{name}:{frame}" for name, frame in named})

    def class_counts(self) -> dict[str, int]:
        """Frames per class."""
        return dict(zip(CLASSES, np.bincount(self.labels, minlength=2).tolist(), strict=True))

    @property
    def frames(self) -> np.ndarray:
        """(F,) unit of sampling and evaluation: every frame is its own."""
        return np.arange(len(self.rows))

    @property
    def pasted(self) -> int:
        """Number of frames with a pasted object."""
        return sum(source.copy % 2 for source in self.sources)

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of a table of scores; a pasted object has a distance and visibility of its own."""
        columns = {name: getattr(self.table, name)[self.rows] for name in COLUMNS}
        if self.pasting:
            for name, attribute in (("distance", "distance"), ("visibility", "sensors")):
                pairs = zip(self.sources, columns[name].tolist(), strict=True)
                columns[name] = np.array([getattr(source.paste, attribute, known) for source, known in pairs])
        return columns

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        where = np.asarray(indices, np.int64)
        shares = self.cell_shares[where]  # (B, rows, columns)
        cells = np.where(shares == UNKNOWN_SHARE, np.nan, shares >= CELL_SHARE)
        packed = self.packed_points[where]  # (B, N, 5)
        points, truth = np.ascontiguousarray(packed[..., :4]), packed[..., 4]
        mask = np.isfinite(points[..., 0])
        points[~mask] = 0
        pixels = project(points, self.projections[where].astype(np.float32))
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
        """(H, W) int8 1 = anomaly, 0 = normal, -1 = left out, resized to the data set's image size (nearest);
        None if unknown."""
        if (truth := self.sources[index].true_pixels()) is None:
            return None
        image = Image.fromarray(truth.view(np.uint8))
        return np.array(image.resize(self.image_size[::-1], Image.Resampling.NEAREST)).view(np.int8)


def project(points: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """Project points (..., 3+) to pixels (..., 2): u, v from -1 (left, top edge) to 1 (right, bottom edge),
    OUTSIDE if out of view. `projection` (3, 4), or one per leading index (..., 3, 4), maps x, y, z, 1 to
    (u * depth, v * depth, depth)."""
    homogeneous = points[..., :3] @ np.swapaxes(projection[..., :3], -1, -2) + projection[..., None, :, 3]
    depth = homogeneous[..., 2:]
    pixels = homogeneous[..., :2] / np.where(depth > 0.05, depth, 1.0)
    seen = (depth[..., 0] > 0.05) & (np.abs(pixels) <= 1).all(axis=-1)
    return np.where(seen[..., None], pixels, OUTSIDE).astype(np.float32)
