"""Do heat map and point scores show where the anomaly is? Judged as AnoVox's benchmark does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from datasets.anovox.dataset import AnoVoxDataset
from utils.metrics.detection import benchmark_metrics

LOCATED_FRAMES = 100  # anomalous and normal frames, at most, on which pixels and points are judged


def localise(
    dataset: AnoVoxDataset, explain: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """pixel_ap and point_ap, beside each chance, the share of anomalous ones; and AnoVox's tables.

    Over up to LOCATED_FRAMES anomalous frames, evenly spread, and as many normal ones for the table with
    normality included; agents are left out, as AnoVox advises. `explain(batch)` gives the heat map (1, H, W)
    and the point scores (1, N) of a batch of one frame. None where the data has no semantic ground truth.
    """
    found: dict[str, dict[str, list]] = {"pixel": {}, "point": {}}
    for label in (1, 0):
        frames = np.flatnonzero(dataset.labels == label)
        for index in frames[:: max(1, math.ceil(len(frames) / LOCATED_FRAMES))].tolist():
            batch = dataset.__getitems__([index])
            heat, point_scores = explain(batch)
            size = dataset.column("size")[index]
            for sensor, truth, scores in (
                ("pixel", dataset.true_pixels(index), heat[0].numpy()),
                ("point", batch["true_points"][0].numpy().astype(np.int8), point_scores[0].numpy()),
            ):
                if truth is None or not (truth >= 0).any():  # of points, -1 is also what is not known
                    continue
                judged = truth >= 0
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
