"""Score every frame of AnoVox scenarios, labelled or not, and draw what raised the score."""

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas

from datasets.anovox.dataset import AnoVoxDataset
from datasets.anovox.files import find_scenarios
from datasets.anovox.frame import lacking
from datasets.anovox.labels import unlabelled_table
from datasets.images import read_image
from models.anomaly import explain
from prediction.skipped import Opened, skipped_table
from prediction.trained import Predicted, Trained, spread
from utils.metrics.calibration import calibrated, sigmoid
from utils.plotting.anomaly import plot_frame
from utils.run.errors import CommandError, counted
from utils.run.log import LOG, progress
from utils.training.device import move


def predict(trained: Trained, args: argparse.Namespace) -> Predicted:
    """Score the scenarios below --input, frames by scenario and frame number; `show` draws frames."""
    folder, options = Path(args.input), trained.args
    if not folder.exists():
        raise CommandError(f"--input {folder}: no such file or folder")
    place = options.cache_dir if Path(options.cache_dir or "").is_dir() else None  # not another machine's
    cache = {"cache_dir": place, "limit_gb": options.cache_limit_gb}
    if len(cameras := {member.args.camera or "the front camera" for member in trained.members}) > 1:
        raise CommandError(f"the runs read {' and '.join(sorted(cameras))}: name one with --camera")
    scenarios = find_scenarios(folder, options.camera, images_alone=True, **cache)
    sensors = [member.args.modality for member in trained.members]
    table = unlabelled_table(scenarios, next(m for m in ("lidar", "both", "camera") if m in sensors))
    for note in table.notes:
        LOG.info(note)
    rows, reasons = np.arange(len(table.labels)), {}
    lacks = {}  # {frame with a scan: what its points lack, or ""}

    def open_lazily(kind, key, files, counts, shape, produce: Callable, dtype=np.uint8) -> Opened:
        def produce_and_look(k: int) -> np.ndarray:
            item = produce(k)
            if kind == "anovox_points" and table.frames[k].path("points"):
                lacks[k] = lacking(item[0])
            return item

        return Opened(produce_and_look, shape, reasons, dtype)

    def frames_for(member: Trained) -> AnoVoxDataset:
        sizes = tuple(member.args.image_size), member.args.max_points
        return AnoVoxDataset(table, rows, *sizes, member.args.seed, truth=False, store=open_lazily)

    dataset, threshold = frames_for(trained), trained.state["threshold"]
    scores = np.mean([alarm_scores(member, frames_for(member)) for member in trained.members], axis=0)
    alarms = scores >= threshold
    for what, count in Counter(filter(None, lacks.values())).items():
        found = f"scans without {what}: {count} of {len(lacks)}"
        LOG.warning(f"{found}; unless trained on such, scores mean nothing")
    trained.tell_known(dataset.scenario)
    names = {"scenario": dataset.scenario, "frame": dataset.frame_ids}
    read = np.array([k for k in rows if k not in reasons], int)
    frames = pandas.DataFrame(names | {"score": scores.round(6), "alarm": alarms.astype(int)})
    tables = {"predictions": frames.iloc[read].reset_index(drop=True)}
    tables["skipped"] = skipped_table(names, reasons, [frame.scenario.path for frame in table.frames])

    def show(output: Path) -> None:
        drawn = read[spread(len(read), args.max_pictures)]
        for index in progress(drawn.tolist(), "pictures"):
            draw(trained, dataset, index, scores[index], output)
        drives = counted(len(set(names["scenario"][read])), "scenarios")
        found = f"{len(read)} frames of {drives}, {alarms[read].sum()} alarms"
        rate = f"alarm rate {alarms[read].mean() if len(read) else 0:.1%}, score >= {threshold:.4g}"
        LOG.info(f"{found} ({rate}); predictions.csv and {counted(len(drawn), 'pictures')} in {output}")

    return tables, (len(rows), "frames"), show


def alarm_scores(trained: Trained, dataset: AnoVoxDataset) -> np.ndarray:
    """The calibrated probability of an anomaly in each frame (N,)."""
    logits = trained.evaluate(dataset)["logits"]
    return sigmoid(calibrated(logits, **trained.state["calibration"]))


def draw(trained: Trained, dataset: AnoVoxDataset, index: int, score: float, output: Path) -> None:
    """Write OUTPUT/SCENARIO_FRAME.png: the image, the heat map over it, the points from above."""
    batch = move(dataset.__getitems__([index]), trained.device)
    heat, point_scores = explain(trained.model, *(batch[name] for name in trained.script.INPUTS))
    real = batch["point_mask"][0].cpu().numpy()
    name = f"{dataset.scenario[index]}_{dataset.frame_ids[index]}"
    word = "ALARM" if score >= trained.state["threshold"] else "no alarm"
    title = f"{name}: score {score:.3f}, {word} (threshold {trained.state['threshold']:.3f})"
    points, scores = (values[0].cpu().numpy()[real] for values in (batch["points"], point_scores))
    image = read_image(dataset.sources[index].path("image"), "RGB")
    plot_frame(image, heat[0].cpu().numpy(), points, scores, title, output / f"{name}.png")
