"""What can be known about a model without a labelled anomaly: things pasted into normal recordings.

Every chosen frame is scored as it is, and with the same thing pasted into both sensors, into the image only
and into the scan only.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from datasets.anovox.dataset import AnoVoxDataset
from datasets.anovox.files import find_scenarios
from datasets.anovox.labels import build_table
from datasets.anovox.load import find_root
from datasets.anovox.pasted import SENSORS
from datasets.anovox.source import Pasting
from datasets.splits import read_split
from prediction.trained import Trained
from utils.metrics.calibration import calibrated, sigmoid
from utils.metrics.detection import name_distances
from utils.report.results import table, write_table
from utils.run.errors import DataError
from utils.run.log import LOG

NAMES = {"both": "both sensors", "camera": "pixels only", "lidar": "points only"}
SIZES = (0.8, 1.2)  # metres: small, medium, large
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")


def judge_pastes(
    trained: Trained, count: int, split: Path | None, folder: Path
) -> dict[str, dict[str, float | int | list[float] | None]]:
    """Detection rates of `count` pastes, and false alarms on the frames without; writes pastes.csv.

    Shapes and textures are those held out for test. `split`: the run's split.json, of whose test part the
    frames are; None = all normal frames of the recordings. A paste is found when the frame with it alarms at
    the run's threshold; intervals of rates are exact (Clopper and Pearson 1934). `paired_auroc` is how often
    the frame with the paste scores higher than the same frame without.
    """
    from scipy.stats import binomtest

    args, state = trained.args, trained.state
    cache = {"cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb, "log": LOG.info}
    root, ids = find_root(args), tuple(args.anomaly_ids)
    frames = build_table(
        find_scenarios(root, args.camera), "pasted", modality=args.modality, anomaly_ids=ids, **cache
    )
    rows = frames.rows_of(read_split(split)["test"]) if split else np.arange(len(frames.labels))
    rows = rows[frames.labels[rows] == 0]
    if not len(rows):
        raise DataError(f"{root}: no normal frame to paste into")
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
    copies = math.ceil(count / len(chosen))
    results, columns = {}, {}
    for sensors in SENSORS:
        pasting = Pasting("test", copies, sensors)
        size = tuple(args.image_size)
        part = AnoVoxDataset(frames, chosen, size, args.max_points, seed=args.seed, pasting=pasting, **cache)
        scored = trained.script.evaluate(
            trained.model, trained.batches_of(part), trained.device, amp=args.amp
        )
        scores = sigmoid(calibrated(scored["logits"], **state["calibration"]))
        clean, pasted = scores[0::2], scores[1::2]  # a frame as it is, then with a thing in it
        found = pasted >= state["threshold"]
        if not columns:
            things = [source.thing for source in part.sources[1::2]]
            columns = {
                "scenario": part.names()[1::2],
                "frame_id": part.frame_ids[1::2],
                "distance": np.array([thing.distance for thing in things]),
                "size": np.array([thing.size for thing in things]),
                "texture": np.array([thing.texture for thing in things]),
                "hue": np.array([thing.hue for thing in things]),
                "score_clean": clean,
            }
        columns[f"score_{sensors}"] = pasted
        groups = {"all": np.full(len(found), "")}
        groups["distance"] = name_distances(columns["distance"])
        groups["size"] = np.array(["small", "medium", "large"])[np.digitize(columns["size"], SIZES)]
        groups["colour"] = np.array(HUES)[(columns["hue"] * 6 + 0.5).astype(int) % 6]
        for group, values in groups.items():
            for value in np.unique(values):
                inside = values == value
                name = f"{NAMES[sensors]}, {group} {value}".rstrip()
                rate = binomtest(int(found[inside].sum()), int(inside.sum())).proportion_ci(method="exact")
                better = (pasted > clean)[inside] + 0.5 * (pasted == clean)[inside]
                results[name] = {
                    "pastes": int(inside.sum()),
                    "found": int(found[inside].sum()),
                    "rate": float(found[inside].mean()),
                    "rate_low": rate.low,
                    "rate_high": rate.high,
                    "paired_auroc": float(better.mean()),
                }
    alarms = clean[::copies] >= state["threshold"]
    low, high = binomtest(int(alarms.sum()), len(alarms)).proportion_ci(method="exact")
    results["frames as they are"] = {"pastes": len(alarms), "found": int(alarms.sum()),
                                     "rate": float(alarms.mean()), "rate_low": low, "rate_high": high,
                                     "paired_auroc": None}  # fmt: skip
    write_table(folder / "pastes.csv", columns)
    print(table(results, ["pastes", "found", "rate", "rate_low", "rate_high", "paired_auroc"], "pasted into"))
    return results
