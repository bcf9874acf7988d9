"""Ground truth of single frames: where the anomaly is, and what a scorer knows that sees no content."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor

from datasets.anovox.dataset import AnoVoxDataset
from datasets.anovox.labels import is_anomalous_image, is_anomalous_points
from datasets.anovox.points import read_points
from datasets.images import read_image

LOCATED_FRAMES = 200  # anomalous frames, at most, on which pixel AP and point AP are measured
NEIGHBOUR = 0.5  # metres; the LiDAR has noise of .1 m along the ray, the semantic LiDAR has none


def anomalous_pixels(dataset: AnoVoxDataset, index: int) -> np.ndarray | None:
    """(H, W) bool at the data set's image size (nearest), None without a semantic image."""
    path = _file(dataset, index, "semantic_image")
    if path is None:
        return None
    mask = is_anomalous_image(
        read_image(path, "RGB"), dataset.table.scenarios[dataset.scenario[index]].layout
    )
    height, width = dataset.image_size
    return np.asarray(
        Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    ).astype(bool)


def anomalous_points(dataset: AnoVoxDataset, index: int) -> np.ndarray | None:
    """(N,) bool per sampled point, by the nearest semantic return; None without a semantic scan."""
    from scipy.spatial import cKDTree  # slow to import, and needed after training only

    path = _file(dataset, index, "semantic_points")
    if path is None:
        return None
    semantic = read_points(path)
    truth = is_anomalous_points(semantic[:, 3], dataset.table.scenarios[dataset.scenario[index]].layout)
    sample = dataset.__getitems__([index])
    points, mask = sample["points"][0, :, :3].numpy(), sample["point_mask"][0].numpy()
    near, found = cKDTree(semantic[:, :3]).query(points, distance_upper_bound=NEIGHBOUR)
    return mask & np.isfinite(near) & np.append(truth, False)[found]


def _file(dataset: AnoVoxDataset, index: int, sensor: str):
    row = dataset.rows[index]
    scenario = dataset.table.scenarios[dataset.table.scenario[row]]
    return scenario.files[sensor].get(int(dataset.table.frame_id[row]))


def trivial_features(dataset: AnoVoxDataset) -> np.ndarray:
    """(F, K) what says nothing about an anomaly: the input of a scorer that sees no content.

    Colour histogram (3 x 8 bins), point count, weather, sizes of the files, frame number, town.
    """
    histogram = np.stack(
        [
            np.concatenate(
                [
                    np.bincount(channel.ravel() >> 5, minlength=8) / channel.size
                    for channel in np.moveaxis(image, -1, 0)
                ]
            )
            for image in dataset.images
        ]
    )
    scans = np.array([path.stat().st_size if path else 0 for path in dataset.point_paths])
    images = np.array([path.stat().st_size for path in dataset.image_paths])
    scenarios = dataset.table.scenarios
    words = [sorted({getattr(scenario, key) for scenario in scenarios}) for key in ("weather", "town")]
    one_hot = [
        [[getattr(scenarios[i], key) == word for word in known] for i in dataset.scenario]
        for key, known in zip(("weather", "town"), words, strict=True)
    ]
    return np.column_stack(
        [histogram, scans, images, dataset.column("frame_id"), *map(np.asarray, one_hot)]
    ).astype(float)


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
    for index in anomalous[:: max(1, math.ceil(len(anomalous) / LOCATED_FRAMES))]:
        batch = dataset.__getitems__([int(index)])
        heat, point_scores = explain(batch)
        mask = batch["point_mask"][0].numpy()
        if (truth := anomalous_pixels(dataset, index)) is not None:
            found["pixel"].append((truth.ravel(), heat[0].numpy().ravel()))
        if (truth := anomalous_points(dataset, index)) is not None:
            found["point"].append((truth[mask], point_scores[0].numpy()[mask]))
    results: dict[str, float | None] = {}
    for name, parts in found.items():
        truth = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, bool)
        known = bool(truth.any())
        scores = np.concatenate([part[1] for part in parts]) if parts else None
        results[f"{name}_ap"] = float(average_precision_score(truth, scores)) if known else None
        results[f"{name}_ap_chance"] = float(truth.mean()) if known else None
    return results
