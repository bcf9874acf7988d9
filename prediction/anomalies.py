"""An alarm score for every frame of AnoVox scenarios, labelled or not, and pictures of what raised it."""

import argparse
from pathlib import Path

import numpy as np
import pandas
from tqdm import tqdm

from datasets.anovox.dataset import AnoVoxDataset
from datasets.anovox.files import find_scenarios
from datasets.anovox.labels import build_table
from datasets.images import read_image
from models.anomaly import explain
from prediction.trained import Trained
from utils.metrics.calibration import calibrated, sigmoid
from utils.plotting.anomaly import plot_frame
from utils.report.results import write_table
from utils.run.errors import CommandError
from utils.run.log import LOG
from utils.training.device import move


def predict(trained: Trained, args: argparse.Namespace) -> dict[str, pandas.DataFrame]:
    """predictions.csv and pictures of the scenarios below --input; frames by scenario and frame number."""
    folder, options = Path(args.input), trained.args
    if not folder.exists():
        raise CommandError(
            f"--input {folder}: no such folder\n  give the one that holds Scenario_... folders, or images"
        )
    cache = {"cache_dir": args.cache_dir, "limit_gb": args.cache_limit_gb, "log": LOG.info}
    scenarios = find_scenarios(folder, options.camera, images_alone=True)
    table = build_table(scenarios, modality=options.modality, allow_unlabelled=True, **cache)
    for note in table.notes:
        LOG.info(note)
    every = np.arange(len(table.labels))
    size, points = tuple(options.image_size), options.max_points
    dataset = AnoVoxDataset(table, every, size, points, seed=options.seed, **cache)
    batches = tqdm(trained.batches_of(dataset), desc="batches", disable=None)
    rows = trained.script.evaluate(trained.model, batches, trained.device, amp=options.amp)
    scores = sigmoid(calibrated(rows["logits"], **trained.state["calibration"]))
    threshold = trained.state["threshold"]
    alarms = scores >= threshold
    columns = {"scenario": dataset.names(), "frame": dataset.column("frame_id")}
    columns |= {"score": scores.round(6), "alarm": alarms.astype(int)}
    tables = {"predictions": pandas.DataFrame(columns)}
    if args.output is None:
        return tables
    output = Path(args.output)
    write_table(output / "predictions.csv", tables["predictions"])
    drawn = np.linspace(0, len(scores) - 1, min(args.max_pictures, len(scores))).round().astype(int)
    for index in tqdm(drawn.tolist(), desc="pictures", disable=None):
        draw(trained, dataset, index, scores[index], output)
    LOG.info(
        f"{len(scores)} frames of {len(set(columns['scenario']))} scenarios, {int(alarms.sum())} alarms "
        f"(alarm rate {alarms.mean():.1%}, score >= {threshold:.4g}); "
        f"predictions.csv and {len(drawn)} pictures in {output}"
    )
    return tables


def draw(trained: Trained, dataset: AnoVoxDataset, index: int, score: float, output: Path) -> None:
    """OUTPUT/SCENARIO_FRAME.png: the image as recorded, the heat map over it, the points from above."""
    batch = move(dataset.__getitems__([index]), trained.device)
    heat, point_scores = explain(trained.model, *(batch[name] for name in trained.script.INPUTS))
    real = batch["point_mask"][0].cpu().numpy()
    name = f"{dataset.names()[index]}_{dataset.column('frame_id')[index]}"
    word = "ALARM" if score >= trained.state["threshold"] else "no alarm"
    plot_frame(
        read_image(dataset.image_paths[index], "RGB"),
        heat[0].cpu().numpy(),
        batch["points"][0].cpu().numpy()[real],
        point_scores[0].cpu().numpy()[real],
        f"{name}: score {score:.3f}, {word} (threshold {trained.state['threshold']:.3f})",
        output / f"{name}.png",
    )
