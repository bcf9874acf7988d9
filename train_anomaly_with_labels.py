"""AnoVox: is there an anomaly in this frame of camera and LiDAR?

    python train_anomaly_with_labels.py                                  on the built-in sample
    python train_anomaly_with_labels.py --data_path AnoVox --image_size 512 768 --max_points 4096
    torchrun --nproc_per_node=2 train_anomaly_with_labels.py             several processes or GPUs
    python train_anomaly_with_labels.py --modality camera                one sensor alone, for an ablation
    python train_anomaly_with_labels.py --resume checkpoints/anomaly_experiment_...
    python train_anomaly_with_labels.py --config RUN/config.json         repeat a run bit for bit

Labels come from the semantic ground truth of each frame. A frame without it is left out and counted, unless
its scenario is of type NORMALITY: then it is normal. Half of the normal training frames appear a second time
with a pasted object (--paste_share); val and test have some only with --label pasted. Splits are by scenario.
A run ends LEARNED only if, with 95% confidence, its AUROC on unseen scenarios beats chance and a logistic
regression on colours, file sizes, frame numbers, weather and towns.
"""

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from datasets.anovox.flags import add_data_arguments
from models.backbones import BACKBONES
from utils.run import arguments
from utils.run.script import run_script

SCRIPT, VERSION = "train_anomaly_with_labels.py", "1.0"
EVALUATION_BATCH = 16  # frames per evaluation batch
BINS = 500  # of the training scores, for their AUROC


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of the anomaly task; those that all scripts share are in utils/run/arguments.py."""
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    switch = argparse.BooleanOptionalAction
    add_data_arguments(parser)
    # fmt: off
    add = parser.add_argument_group("model").add_argument
    add("--image_encoder", choices=BACKBONES, default="cnn",
        help="cnn: 32-64-128 channels, trained from scratch; for others see models/encoders.py")
    add("--weights", type=arguments.place_or("none", "imagenet"), default="none",
        help="of the image encoder: none, imagenet, a file or a run folder")
    add("--freeze_encoder", action=switch, default=False, help="do not train the image encoder")
    add("--fusion", choices=["attention", "concat"], default="attention", help="how the sensors are combined")
    add("--modality", choices=["both", "camera", "lidar"], default="both", help="sensors the model is given")
    add("--position_code", action=switch, default=True, help="tie points to the pixels they fall on")
    add("--dropout", type=arguments.fraction, default=0.3, help="dropout in the head")
    add = parser.add_argument_group("recipe").add_argument
    add("--loss", choices=["bce", "focal"], default="bce", help="binary cross-entropy, or focal with gamma 2")
    add("--pos_weight", type=arguments.auto_or_positive, default="auto",
        help="weight of anomalies: auto (normal / anomalous frames) or a number")
    add("--location_weight", type=arguments.non_negative_float, default=0.3,
        help="weight of the loss of where the anomaly is; 0 = learn from frame labels alone")
    add("--scheduler", choices=["cosine", "none"], default="cosine", help="learning rate schedule")
    add("--max_grad_norm", type=arguments.non_negative_float, default=1.0,
        help="clip the gradient norm; 0 = off")
    add("--augment", action=switch, default=True, help="training: mirror; vary colours, height, tilt, rings")
    add("--modality_dropout", type=arguments.fraction, default=0.1,
        help="share of the frames that lose one sensor in training, camera or LiDAR")
    # fmt: on
    arguments.add_run_arguments(
        parser, epochs=10, batch_size=8, learning_rate=1e-3, weight_decay=0.0, patience=10
    )
    args = arguments.parse_arguments(parser, argv)
    if args.resume not in (None, "auto"):
        return args
    given = f"--weights {args.weights}"
    if args.weights != "none" and args.modality == "lidar":
        parser.error(f"{given}: --modality lidar has no image encoder; leave one of them out")
    if args.weights != "none" and args.image_encoder == "cnn":
        parser.error(f"{given}: the encoder cnn has no pretrained weights; add --image_encoder resnet18")
    if args.freeze_encoder and args.weights == "none":
        remedy = "add --image_encoder resnet18 --weights imagenet"
        parser.error(f"--freeze_encoder: there are no weights to keep; {remedy}")
    return args


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets.anovox.augmentation import augment_frames, corrupt_frames
from datasets.anovox.dataset import CLASSES
from datasets.anovox.frame import CELL_GRID
from datasets.anovox.load import AnoVoxData, build_datasets, trivial_features
from models.anomaly import AnomalyDetectionModel, explain
from models.encoders import build_encoder, freeze, load_weights
from models.losses import AnomalyLoss, location_loss
from models.patch_distance import patch_reference, remember_patches
from utils.metrics.calibration import calibrated, fit_slope, sigmoid
from utils.metrics.classification import binary_metrics, choose_threshold
from utils.metrics.detection import auroc_of_counts, detection_metrics
from utils.metrics.verdict import Verdict
from utils.report.anomaly import report_anomaly
from utils.run.log import progress
from utils.training import distributed
from utils.training.checkpoint import Checkpoint
from utils.training.config import describe_model
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, check_finite
from utils.training.run import finish, open_run

INPUTS = ("images", "points", "point_mask", "point_pixels")


def inputs_of(batch: dict[str, Tensor]) -> list[Tensor]:
    """The model's inputs: images, points, which of them are real, and their pixels."""
    return [batch[name] for name in INPUTS]


def build_model(args: argparse.Namespace) -> tuple[AnomalyDetectionModel, dict[str, Any]]:
    """The model and where the image encoder's weights come from."""
    encoder, weights = None, {"pretrained": False, "source": "none"}
    if args.image_encoder != "cnn" and args.modality != "lidar":
        encoder = build_encoder(args.image_encoder)
        weights = load_weights(encoder, args.weights if not args.resume else "none")
        if args.freeze_encoder:
            freeze(encoder)
    settings = args.fusion, args.modality, args.position_code, args.dropout
    return AnomalyDetectionModel(encoder, *settings, token_grid=CELL_GRID), weights


def build_recipe(
    args: argparse.Namespace, model: nn.Module, labels: np.ndarray
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Loss (one value per frame; a step divides by the global count), Adam, schedule; labels: of train."""
    share = float(labels.mean())
    weight = (1 - share) / share if args.pos_weight == "auto" else float(args.pos_weight)
    device = next(model.parameters()).device
    criterion = AnomalyLoss(weight, gamma=2.0 if args.loss == "focal" else 0.0).to(device)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=True
    )
    if args.scheduler == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return criterion, optimizer, scheduler


def train_one_epoch(
    model: nn.Module, loader: DataLoader, criterion: nn.Module, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler, interrupt: Interrupt, device: torch.device, epoch: int, *,
    augmented: bool = True, modality_dropout: float = 0.0, amp: bool = False,
    location_weight: float = 0.0, max_grad_norm: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """One pass over the train split; returns means over all samples of all ranks.

    Keys: loss (of the frame labels), accuracy, mean_score, location_loss, auroc, all with augmentation and
    dropout. Raises NonFiniteError for a NaN or infinite loss or gradient, before it reaches the weights."""
    model.train()
    sampler = loader.batch_sampler
    # sums of loss, correct, score and location loss; a histogram of scores per label; samples
    totals = torch.zeros(5 + 2 * BINS, dtype=torch.float64, device=device)
    for step, batch in interrupt.steps(loader, epoch, totals):  # enumerate(loader), can be stopped
        distributed.seed_everything(sampler.seed, epoch, step, sampler.rank)
        weight = sampler.part(step)[1]  # world size / samples in the global batch
        if augmented:
            batch = augment_frames(batch, sampler.seed, epoch, device, modality_dropout)
        batch = move(batch, device)
        with autocast(device, amp):
            logits, cells, marks = model(*inputs_of(batch))  # (N,), (N, rows, columns), (N, points)
        losses = criterion(logits.float(), batch["labels"])  # (N,)
        located = location_loss(cells.float(), batch["cells"], marks.float(), batch["true_points"])  # (N,)
        loss = (losses + location_weight * located).sum() * weight
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
        check_finite(loss, grad_norm, scaler, f"epoch {epoch} step {step + 1}", batch["indices"])
        scaler.step(optimizer)
        scaler.update()
        if weight > 0:  # a rank without samples computes one that must not count
            scores, labels = torch.sigmoid(logits.detach().float()), batch["labels"]
            correct = ((scores >= 0.5) == (labels == 1)).sum()
            sums = torch.stack([losses.detach().sum(), correct, scores.sum(), located.detach().sum()])
            bins = (scores * BINS).long().clamp(max=BINS - 1) + BINS * labels
            count = torch.full((1,), len(losses), device=device)
            totals += torch.cat([sums, torch.bincount(bins, minlength=2 * BINS), count])
    *sums, count = distributed.sum_over_ranks(totals).tolist()
    names = ("loss", "accuracy", "mean_score", "location_loss")
    means = {name: value / count for name, value in zip(names, sums[:4], strict=True)}
    return means | {"auroc": auroc_of_counts(*np.reshape(sums[4:], (2, BINS)))}


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: DataLoader, device: torch.device, *, amp: bool = False,
    corruption: str | None = None, seed: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Score every frame, once over all ranks: indices, labels, logits (N,).

    `corruption`: a simulated sensor failure, one of datasets.anovox.augmentation.CORRUPTIONS."""
    distributed.broadcast_buffers(model)
    model.eval()
    batches = []
    for batch in progress(loader, "evaluation"):
        if corruption:
            batch = corrupt_frames(batch, corruption, seed)
        with autocast(device, amp):
            logits = model(*inputs_of(move(batch, device)))[0]
        row = {key: batch[key].clone() for key in ("indices", "labels")}
        batches.append(row | {"logits": logits.float().cpu()})
    return distributed.gather_rows(batches)


def measure(
    rows: dict[str, np.ndarray], scenarios: np.ndarray, criterion: nn.Module, threshold: float,
    calibration: dict[str, float],
) -> dict[str, float | None]:  # fmt: skip
    """Loss from the logits; metrics of utils/metrics/ from the calibrated scores."""
    losses = criterion(torch.from_numpy(rows["logits"]), torch.from_numpy(rows["labels"]))
    labels, odds = rows["labels"], calibrated(rows["logits"], **calibration)
    return {
        "loss": float(losses.mean()),
        **binary_metrics(labels, odds, sigmoid(odds) >= threshold),
        **detection_metrics(labels, odds, scenarios),
    }


def report(
    folder: Path, split: str, rows: dict[str, np.ndarray], data: AnoVoxData, state: dict[str, Any]
) -> tuple[Verdict, dict[str, Any]]:
    """Compare a split with chance and trivial features; write report, figures and predictions."""
    dataset = data.parts[split]
    model, _ = build_model(argparse.Namespace(**state["args"] | {"weights": "none"}))
    model.load_state_dict(state["model"])
    where = lambda batch: explain(model, *inputs_of(batch))  # noqa: E731
    references = data.references()
    if {"train", "val"} <= data.parts.keys():  # the run itself; evaluate.py reads the patches it has stored
        normal = np.flatnonzero(data.train.labels == 0)
        references |= remember_patches(data.train.images, normal, data.val.images)
    return report_anomaly(
        folder, split, state, rows, dataset, references, trivial_features(dataset, references["words"]),
        CLASSES, where=where, others=patch_reference(references, dataset.images),
    )  # fmt: skip


def main(args: argparse.Namespace) -> Verdict | None:
    """Train and test one run; rank 0 returns its verdict."""
    run = open_run(args, SCRIPT, VERSION, __doc__)
    if run is None:
        return None
    bare, weights = build_model(args)  # before the data: missing weights are an error at once

    # Data
    data = build_datasets(args)
    if run.check(data, CLASSES):
        return None
    train_loader, loaders = run.loaders(data.train, data.parts, EVALUATION_BATCH)  # batches by __getitems__

    # Model
    model = run.place(bare)

    # Recipe
    criterion, optimizer, scheduler = build_recipe(args, bare, data.train.labels)
    scaler = make_scaler(run.device, args.amp)
    names = {"class_names": list(CLASSES)}
    checkpoint = Checkpoint(
        run, {"auroc": -math.inf}, names, model=bare, optimizer=optimizer, scheduler=scheduler, scaler=scaler
    )
    history, best = checkpoint.resume(criterion)
    taken = ("image_encoder", "fusion", "modality", "position_code", "image_size", "max_points")
    settings = names | {name: getattr(args, name) for name in taken}
    section = describe_model(bare, "frame classification", weights, 1, **settings)
    run.record(data, section, criterion, optimizer, scheduler)

    # Training
    check = LearningCheck(SCRIPT, criterion, data.train.labels, data.val.labels, outputs=1)
    inputs = {"both": ["images", "points"], "camera": ["images"], "lidar": ["points"]}[args.modality]
    check.before_training(
        checkpoint, loaders | {"train": train_loader}, inputs,
        forward=lambda model, batch: model(*inputs_of(batch))[0],
    )  # fmt: skip
    panels = run.panels(data.val.class_counts(), loss=check.val_constant)
    while len(history) < args.epochs and not run.out_of_patience(history, best["auroc"]["epoch"]):
        epoch, lr = len(history) + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, checkpoint.interrupt, run.device, epoch,
            augmented=args.augment, modality_dropout=args.modality_dropout if args.modality == "both" else 0,
            amp=args.amp, location_weight=args.location_weight,
            max_grad_norm=args.max_grad_norm,
        )  # fmt: skip
        rows = evaluate(bare, loaders["val"], run.device, amp=args.amp)
        calibration = fit_slope(rows["labels"], rows["logits"])
        scores = sigmoid(calibrated(rows["logits"], **calibration))
        threshold = choose_threshold(rows["labels"], scores)
        validated = measure(rows, data.val.scenario, check.criterion, threshold, calibration)
        scheduler.step()
        history.append(checkpoint.interrupt.epoch_row(lr, trained, validated))
        improved = validated["auroc"] > best["auroc"]["value"]
        if improved:
            best["auroc"] = {"value": validated["auroc"], "epoch": epoch}
        kept = {"threshold": threshold, "calibration": calibration, "constant_loss": check.val_constant}
        checkpoint.save_epoch(["auroc"] if improved else [], **kept)
        run.show_epoch(history, panels, best["auroc"]["epoch"])
        check.after_epoch(rows, rows["logits"])

    # Test
    chosen = checkpoint.load_best("auroc")
    score = partial(evaluate, bare, device=run.device, amp=args.amp)
    rows = {name: score(loader) for name, loader in loaders.items()}
    scale = {"calibration": chosen["calibration"]}
    measured = partial(measure, criterion=check.criterion, threshold=chosen["threshold"], **scale)
    metrics = {name: measured(part, data.parts[name].scenario) for name, part in rows.items()}
    worth = check.input_worth(lambda loader: measured(score(loader), loader.dataset.scenario), metrics)
    return finish(run, data, checkpoint, panels, rows, metrics, report, worth, **scale)


if __name__ == "__main__":
    run_script(main, ARGS)
