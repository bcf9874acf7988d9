"""Stage 1 on JRDB panoramas: do these two people interact?

    python train_stage1.py                                               on the built-in sample
    python train_stage1.py --data_path JRDB --features geometry          on JRDB's labels, no images needed
    torchrun --nproc_per_node=2 train_stage1.py --data_path JRDB         several processes or GPUs
    python train_stage1.py --resume checkpoints/stage1_experiment_...    go on with a run
    python train_stage1.py --config RUN/config.json                      repeat a run bit for bit

A pair is two people in one frame within the distance limit. Training samples positives per interaction group
and negatives per frame. Validation and test score all pairs, except unannotated pairs within a group. A run
ends LEARNED only if, with 95% confidence, the model beats distance alone on sequences it has not seen.
"""

import argparse
import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from datasets.jrdb.flags import add_data_arguments
from models.backbones import BACKBONES
from utils.run import arguments
from utils.run.script import run_script

SCRIPT, VERSION = "train_stage1.py", "1.0"
CLASSES = ("no interaction", "interaction")
EVALUATION_BATCH = 256  # pairs per evaluation batch, rounded up to whole frames
BEST = {"accuracy": 1, "loss": -1, "f1": 1}  # what best_NAME.pth has most of on val or, if -1, least


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of stage 1; those that all scripts share are in utils/run/arguments.py."""
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    count, amount = arguments.non_negative_int, arguments.non_negative_float
    positive, switch = arguments.positive_float, argparse.BooleanOptionalAction
    add_data_arguments(parser)
    # fmt: off
    add = parser.add_argument_group("pairs").add_argument
    add("--distance_multiplier", type=positive, default=3.0, help="distance limit in person widths")
    add("--distance_norm", choices=["max", "mean", "first"], default="max",
        help="whose width: the wider one, the mean, or the first person's (order-dependent)")
    add("--use_group_sampling", action=switch, default=True, help="limit the positives per interaction group")
    add("--max_group_samples_ratio", type=positive, default=1.0, help="positives per group member")
    add("--infer_group_pairs", action=switch, default=True, help="in training, infer A-C from A-B and B-C")
    add("--max_negatives_per_frame", type=count, default=50, help="negatives per frame, at most")
    add("--stage1_balance_ratio", type=positive, default=4.0, help="negatives per positive of a frame")
    add("--pairs_per_sequence", type=count, default=1500, help="pairs per sequence and epoch; 0 = all")
    add("--resample", action=switch, default=True, help="draw positives and negatives afresh every epoch")
    add("--history_seconds", type=count, default=5, help="seconds of past motion in the geometry; 0 = none")
    add("--whole_past", action=switch, help="add features of a pair's whole past; default: without crops")
    add("--image_size", action=arguments.ImageSize, default=[128, 64], help="person crop in pixels")
    add = parser.add_argument_group("model").add_argument
    add("--features", choices=["crops+geometry", "crops", "geometry"], default="crops+geometry",
        help="what the model sees of a pair")
    add("--backbone", choices=BACKBONES, default="cnn", help="encoder of a person crop")
    add("--weights", type=arguments.place_or("none", "imagenet"), default="none",
        help="encoder weights: none, imagenet, a file or a run folder")
    add("--rescore", action=switch, help="correct a pair by its frame's other pairs; default: without crops")
    add("--dropout", type=arguments.fraction, help="of branches and heads; default: 0.2 with crops, else 0.5")
    add = parser.add_argument_group("recipe").add_argument
    add("--optimizer", choices=["adam", "adamw", "sgd"], default="adam", help="update rule")
    add("--scheduler", choices=["step", "cosine", "none"], default="cosine", help="learning rate schedule")
    add("--step_size", type=arguments.positive_int, default=20, help="epochs between rate cuts by 10 (step)")
    add("--max_grad_norm", type=amount, default=0.0, help="clip the gradient norm; 0 = off")
    add("--ema_decay", type=arguments.fraction, default=0.995, help="decay of the weights' average; 0 = off")
    add("--augment", action=switch, help="mirror frames and jitter colours in training; default: with crops")
    arguments.add_run_arguments(parser, epochs=12, batch_size=64, learning_rate=1e-3, weight_decay=1e-4,
                                patience=10)
    # fmt: on
    args = arguments.parse_arguments(parser, argv)
    crops = args.features != "geometry"
    defaults = {"dropout": 0.2 if crops else 0.5, "augment": crops}
    defaults |= {"whole_past": not crops, "rescore": not crops}
    vars(args).update({flag: value for flag, value in defaults.items() if vars(args)[flag] is None})
    if args.weights != "none" and not crops and args.resume in (None, "auto"):
        parser.error(f"--weights {args.weights}: --features geometry has no encoder; pass --weights none")
    return args


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets.jrdb.augmentation import augment_pairs
from datasets.jrdb.geometry import feature_names
from datasets.jrdb.load import build_datasets, names_of
from models.encoders import build_encoder, load_weights
from models.pairs import PairClassifier
from utils.metrics.calibration import calibrated, fit_platt, log_odds, sigmoid
from utils.metrics.classification import binary_metrics, choose_threshold
from utils.metrics.verdict import Verdict
from utils.report.interaction import report_pairs as report
from utils.run.folder import write_json
from utils.run.log import progress
from utils.training import distributed
from utils.training.checkpoint import Checkpoint
from utils.training.config import describe_model
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, check_finite
from utils.training.run import finish, open_run
from utils.training.weights import follow


def build_model(args: argparse.Namespace) -> tuple[PairClassifier, dict[str, Any]]:
    """The model and where the encoder's weights come from."""
    encoder, weights = None, {"pretrained": False, "source": "none"}
    if args.features != "geometry":
        encoder = build_encoder(args.backbone)
        weights = load_weights(encoder, args.weights if not args.resume else "none")
    inputs = 0 if args.features == "crops" else len(feature_names(args.history_seconds, args.whole_past))
    return PairClassifier(encoder, inputs, args.dropout, args.rescore), weights


def build_recipe(
    args: argparse.Namespace, model: nn.Module
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Cross-entropy (one value per pair; a step divides by the global count), optimizer and schedule."""
    criterion = nn.CrossEntropyLoss(reduction="none")
    sgd = partial(torch.optim.SGD, momentum=0.9)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": sgd}[args.optimizer]
    optimizer = kind(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)
    if args.scheduler == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)
    elif args.scheduler == "step":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, args.step_size, gamma=0.1)
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return criterion, optimizer, scheduler


def train_one_epoch(
    model: nn.Module, loader: DataLoader, criterion: nn.Module, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler, interrupt: Interrupt, device: torch.device, epoch: int, *,
    average: Callable | None = None, augmented: bool = True, amp: bool = False, max_grad_norm: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """One pass over the train split; average(model, step=k) updates the averaged weights after step k.

    Returns loss and accuracy over all samples of all ranks. Raises NonFiniteError for a NaN or infinite loss
    or gradient, before it reaches the weights."""
    model.train()
    sampler = loader.batch_sampler
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, samples
    for step, batch in interrupt.steps(loader, epoch, totals):  # enumerate(loader), can be stopped
        distributed.seed_everything(sampler.seed, epoch, step, sampler.rank)
        weight = sampler.part(step)[1]  # world size / samples in the global batch
        if augmented:
            batch = augment_pairs(batch, loader.dataset.feature_names, sampler.seed, epoch, device)
        batch = move(batch, device)
        with autocast(device, amp):
            logits = model(batch)  # (N, 2)
        losses = criterion(logits.float(), batch["labels"])  # (N,)
        loss = losses.sum() * weight
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
        check_finite(loss, grad_norm, scaler, f"epoch {epoch} step {step + 1}", batch["indices"])
        scaler.step(optimizer)
        scaler.update()
        if average is not None:
            average(getattr(model, "module", model), step=(epoch - 1) * sampler.steps + step)
        if weight > 0:  # a rank without samples computes one that must not count
            correct = (logits.argmax(dim=1) == batch["labels"]).sum()
            count = torch.full((), len(losses), device=device)
            totals += torch.stack([losses.detach().sum(), correct, count])
    loss_sum, correct, count = distributed.sum_over_ranks(totals).tolist()
    return {"loss": loss_sum / count, "accuracy": correct / count}


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: DataLoader, device: torch.device, *, amp: bool = False
) -> dict[str, np.ndarray]:
    """Score every pair, once over all ranks: indices and labels (N,), logits (N, 2)."""
    distributed.broadcast_buffers(model)
    model.eval()
    batches = []
    for batch in progress(loader, "evaluation"):
        with autocast(device, amp):
            logits = model(move(batch, device))
        row = {key: batch[key].clone() for key in ("indices", "labels")}
        batches.append(row | {"logits": logits.float().cpu()})
    return distributed.gather_rows(batches)


def measure(
    rows: dict[str, np.ndarray], criterion: nn.Module, threshold: float, calibration: dict[str, float]
) -> dict[str, float | None]:
    """The loss of the logits and the binary_metrics of the calibrated scores."""
    losses = criterion(torch.from_numpy(rows["logits"]).double(), torch.from_numpy(rows["labels"]))
    odds = calibrated(log_odds(rows["logits"])[:, 1], **calibration)
    return {"loss": float(losses.mean()), **binary_metrics(rows["labels"], odds, sigmoid(odds) >= threshold)}


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
    if bare.trunk.geometry is not None:
        bare.trunk.geometry.fit(torch.from_numpy(data.reference_pairs()[0]))
    model = run.place(bare)
    judged = copy.deepcopy(bare) if args.ema_decay else bare  # the model that is evaluated and saved
    average = partial(follow, judged, decay=args.ema_decay) if args.ema_decay else None

    # Recipe
    criterion, optimizer, scheduler = build_recipe(args, bare)
    scaler, names = make_scaler(run.device, args.amp), names_of(args)
    worst = {name: -sign * math.inf for name, sign in BEST.items()}
    parts = {"model": judged, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    checkpoint = Checkpoint(run, worst, names, **parts, **({"trained": bare} if average else {}))
    history, best = checkpoint.resume(criterion)
    flags = {name: getattr(args, name) for name in ("features", "backbone", "image_size")}
    section = describe_model(bare, "pair classification", weights, 2, **flags, **names)
    run.record(data, section, criterion, optimizer, scheduler)
    if run.processes.first:
        write_json(run.folder / "sampling_report.json", data.sampling_report())

    # Training
    drawn = data.train.draw()
    check = LearningCheck(SCRIPT, criterion, data.train.labels, data.val.labels, outputs=2, drawn=drawn)
    check.before_training(checkpoint, loaders | {"train": train_loader}, args.features.split("+"))
    panels = run.panels(data.val.class_counts(), loss=check.val_constant)
    while len(history) < args.epochs and not run.out_of_patience(history, best["f1"]["epoch"]):
        epoch, lr = len(history) + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, checkpoint.interrupt, run.device, epoch,
            average=average, augmented=args.augment, amp=args.amp, max_grad_norm=args.max_grad_norm,
        )  # fmt: skip
        rows = evaluate(judged, loaders["val"], run.device, amp=args.amp)
        logits = log_odds(rows["logits"])[:, 1]
        calibration = fit_platt(rows["labels"], logits)
        threshold = choose_threshold(rows["labels"], sigmoid(calibrated(logits, **calibration)))
        validated = measure(rows, check.criterion, threshold, calibration)
        scheduler.step()
        history.append(checkpoint.interrupt.epoch_row(lr, trained, validated))
        improved = [k for k, sign in BEST.items() if sign * (validated[k] - best[k]["value"]) > 0]
        best |= {name: {"value": validated[name], "epoch": epoch} for name in improved}
        chosen = {"threshold": threshold, "calibration": calibration}
        checkpoint.save_epoch(improved, constant_loss=check.val_constant, **chosen)
        run.show_epoch(history, panels, best["f1"]["epoch"])
        check.after_epoch(rows, rows["logits"])

    # Test
    chosen = checkpoint.load_best("f1")
    score = partial(evaluate, judged, device=run.device, amp=args.amp)
    rows = {name: score(loader) for name, loader in loaders.items()}
    scale = {"calibration": chosen["calibration"]}
    measured = partial(measure, criterion=check.criterion, threshold=chosen["threshold"], **scale)
    metrics = {name: measured(part) for name, part in rows.items()}
    worth = check.input_worth(lambda loader: measured(score(loader)), metrics)
    return finish(run, data, checkpoint, panels, rows, metrics, report, worth, **scale)


if __name__ == "__main__":
    run_script(main, ARGS)
