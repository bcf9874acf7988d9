"""Tests of an anomaly run in evaluate.py: failing sensors (--corrupt), objects pasted into frames (--paste).

Pasting tests a model without labelled anomalies: every chosen normal frame is scored unchanged, and with the
same object in both sensors, in the image only and in the scan only.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from datasets.anovox.dataset import AnoVoxDataset
from datasets.anovox.labels import FrameTable
from datasets.anovox.load import find_root, groups_of, hash_contents, read_table
from datasets.anovox.pasted import SENSORS, Pasting
from models.pointnet import rise
from prediction.anomalies import alarm_scores
from prediction.judged import Judge
from prediction.trained import Trained, spread
from utils.metrics.detection import name_distances
from utils.metrics.verdict import GroupJackknife
from utils.report.results import table, write_table
from utils.run.errors import DataError

NAMES = {"both": "both sensors", "camera": "pixels only", "lidar": "points only"}
SIZES = (0.8, 1.2)  # metres: the limits between small, medium and large
HUES = ("orange", "lime", "mint", "azure", "violet", "rose")  # sixths of the colour circle, starting at red
RAISED = 0.3  # metres
CLEAN = "clean"
METRICS = ("auroc", "ap", "fpr95", "f1", "precision", "recall", "calibration_error")
LOSS = ("auroc_change", "change_low", "change_high")


def judge_failures(
    trained: Trained, part: AnoVoxDataset, clean: dict[str, np.ndarray], corruptions: list[str], folder: Path
) -> dict[str, dict[str, float | None]]:
    """METRICS of the clean frames (rows of the script's evaluate) and of each sensor failure, at the run's
    threshold and calibration, and the change in AUROC with the 95% interval of the paired difference over
    scenarios. Writes and prints degradation.csv."""
    script, state = trained.script, trained.state
    labels, results, aurocs = clean["labels"], {}, {}
    jackknife = GroupJackknife(part.scenario, labels, np.arange(len(labels)))
    criterion = script.AnomalyLoss(1.0)  # METRICS do not depend on it
    for name in (CLEAN, *corruptions):
        options = {"corruption": name, "seed": trained.args.seed}
        rows = clean if name == CLEAN else trained.evaluate(part, **options)
        row = script.measure(rows, part.scenario, criterion, state["threshold"], state["calibration"])
        results[name] = {key: row[key] for key in METRICS}
        if len(np.unique(labels)) == 2:  # otherwise AUROC is undefined
            aurocs[name] = jackknife.auroc(labels, rows["logits"])
            if name != CLEAN:
                low, high = jackknife.interval(aurocs[name] - aurocs[CLEAN])
                difference = results[name]["auroc"] - results[CLEAN]["auroc"]
                results[name] |= dict(zip(LOSS, (difference, low, high), strict=True))
    columns = [*METRICS, *LOSS]
    values = {key: np.array([row.get(key) for row in results.values()], float) for key in columns}
    write_table(folder / "degradation.csv", {"sensors": np.array(list(results)), **values})
    print(table(results, columns, "sensors"))
    return results


def judge_pastes(
    trained: Trained, count: int, judge: Judge, folder: Path
) -> dict[str, dict[str, float | int | list[float] | None]]:
    """Detection rates of `count` pastes, or more if each frame is to have as many, and false alarms on
    unchanged frames; writes pastes.csv.

    Shapes and textures are those held out for test; frames are normal frames of the scenarios that `judge`
    chooses. A paste is found if the frame with it alarms at the run's threshold (see `rates`; `ranks` needs
    no threshold). Merely counting edges or points ranks well, so two such counters are reported as well."""
    args, threshold = trained.args, trained.state["threshold"]
    cache = {"cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb}
    frames, chosen = choose_normal(args, judge, count, **cache)
    copies = math.ceil(count / len(chosen))
    scores, counted = {}, {}  # of frames unchanged, and with their paste
    for sensors in SENSORS:
        part = AnoVoxDataset(
            frames, chosen, image_size=tuple(args.image_size), max_points=args.max_points, seed=args.seed,
            pasting=Pasting("test", copies, args.modality, sensors=sensors), truth=False, **cache,
        )  # fmt: skip
        scores[sensors] = alarm_scores(trained, part).reshape(-1, 2).T
        for counter in (count_edges, count_raised):
            counted[sensors, counter.__name__.replace("_", " ")] = counter(part).reshape(-1, 2).T

    columns = describe_pastes(part) | {"score_clean": scores["both"][0]}  # the same for all sensors
    columns |= {f"score_{sensors}": pasted for sensors, (_, pasted) in scores.items()}
    write_table(folder / "pastes.csv", columns)
    groups = {"all": np.full(len(columns["size"]), ""), "distance": name_distances(columns["distance"])}
    groups["size"] = np.array(["small", "medium", "large"])[np.digitize(columns["size"], SIZES)]
    groups["colour"] = np.array(HUES)[(columns["hue"] * 6).astype(int) % 6]
    results = {}
    for sensors, (clean, pasted) in scores.items():
        for group, values in groups.items():
            for value in np.unique(values):
                same = values == value
                row = rates(pasted[same] >= threshold)
                row |= ranks(clean[same], pasted[same], unchanged=clean[::copies])
                results[f"{NAMES[sensors]}, {group} {value}".rstrip()] = row
    blank = dict.fromkeys(row)
    results["frames as they are"] = blank | rates(clean[::copies] >= threshold)
    for (sensors, name), (clean, pasted) in counted.items():
        results[f"{NAMES[sensors]}, {name}"] = blank | ranks(clean, pasted, unchanged=clean[::copies])
    print(table(results, list(blank), "pasted into"))
    return results


def choose_normal(
    args: argparse.Namespace, judge: Judge, count: int, **cache: Any
) -> tuple[FrameTable, np.ndarray]:
    """All frames, and the rows of up to `count` normal ones of the scenarios that `judge` chooses."""
    root = find_root(args)
    frames = read_table(root, args, "pasted")
    hashes = hash_contents(frames, groups_of(frames, judge.parts), **cache)
    ((split, names),) = judge(hashes, labelled=False).items()
    rows = frames.rows_of(names)
    rows = rows[frames.labels[rows] == 0]
    if not len(rows):
        raise DataError(f"{root}: no normal frame to paste into in the {split} split; choose another --split")
    return frames, rows[spread(len(rows), count)]


def describe_pastes(part: AnoVoxDataset) -> dict[str, np.ndarray]:
    """The columns of pastes.csv that say what was pasted where; distances, sizes and places in metres."""
    pastes = [source.paste for source in part.sources[1::2]]
    columns = {"scenario": part.scenario[1::2], "frame_id": part.frame_ids[1::2]}
    for name in ("distance", "size", "texture", "hue"):
        columns[name] = np.array([getattr(paste, name) for paste in pastes])
    ahead, left = np.array([paste.centre[:2] for paste in pastes]).T
    return columns | {"ahead": ahead, "left": left}


def rates(found: np.ndarray) -> dict[str, float]:
    """The share of alarms among frames, with its exact 95% interval (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    low, high = binomtest(int(found.sum()), len(found)).proportion_ci(method="exact")
    counts = {"pastes": len(found), "found": int(found.sum()), "rate": float(found.mean())}
    return counts | {"rate_low": low, "rate_high": high}


def ranks(clean: np.ndarray, pasted: np.ndarray, unchanged: np.ndarray) -> dict[str, float]:
    """paired_auroc: how often a frame with a paste scores higher (N,) `pasted` than the same frame without
    (N,) `clean`; auroc: how often higher than a random one of the `unchanged` frames (M,)."""
    from sklearn.metrics import roc_auc_score

    better = (pasted > clean) + 0.5 * (pasted == clean)
    labels = np.repeat((0, 1), (len(unchanged), len(pasted)))
    auroc = roc_auc_score(labels, np.append(unchanged, pasted))
    return {"paired_auroc": float(better.mean()), "auroc": float(auroc)}


def count_edges(part: AnoVoxDataset) -> np.ndarray:
    """(F,) sum of the differences between neighbouring pixels: an object has edges."""
    greys = (image.mean(axis=2) for image in part.images)  # one at a time: images may be large
    return np.array([sum(np.abs(np.diff(grey, axis=axis)).sum() for axis in (0, 1)) for grey in greys])


def count_raised(part: AnoVoxDataset) -> np.ndarray:
    """(F,) number of points more than RAISED above the ground around them: an object stands on it."""
    counts = []
    for k in range(len(part)):
        batch = part.__getitems__([k])
        counts.append(((rise(batch["points"], batch["point_mask"]) > RAISED) & batch["point_mask"]).sum())
    return np.array(counts)
