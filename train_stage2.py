"""Stage 2 on JRDB panoramas: how do these two people interact?

    python train_stage2.py                                          on the built-in sample
    python train_stage2.py --data_path JRDB --stage1_checkpoint RUN  after a stage 1 run on the same data
    torchrun --nproc_per_node=2 train_stage2.py ...                  several processes or GPUs
    python train_stage2.py --resume RUN                              go on with a run
    python train_stage2.py --config RUN/config.json                  repeat a run bit for bit

There are five types; training uses interacting pairs only. Features, crop size and distance limit come from
the stage 1 run, whose unchanged model is part of this one and decides who interacts. A run ends LEARNED only
if, with 95% confidence, its macro F1 beats the best of majority, uniform and prior-random guessing on unseen
sequences; under end_to_end: if both stages beat stage 1 with the most frequent type for each of its pairs.
"""

import argparse
import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from datasets.jrdb.flags import add_data_arguments
from utils.run import arguments
from utils.run.script import run_script

SCRIPT, VERSION = "train_stage2.py", "1.0"
EVALUATION_BATCH = 256  # pairs per evaluation batch, rounded up to whole frames
BEST = {"accuracy": 1, "loss": -1, "f1": 1}  # what best_NAME.pth has most of on val or, if -1, least
FROM_STAGE1 = (*arguments.FOLLOWERS["stage1_checkpoint"], "frame_rate")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of stage 2; those that all scripts share are in utils/run/arguments.py."""
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    amount, positive = arguments.non_negative_float, arguments.positive_float
    switch, same = argparse.BooleanOptionalAction, "must be that of the stage 1 run"
    add_data_arguments(parser)
    parser.set_defaults(frame_rate=None)  # that of the stage 1 run
    # fmt: off
    add = parser.add_argument_group("pairs").add_argument
    add("--use_group_sampling", action=switch, default=True, help="limit the pairs per interaction group")
    add("--max_group_samples_ratio", type=positive, default=1.0, help="pairs per group member")
    add("--stage2_balance_strategy", choices=["oversample", "undersample", "none"], default="oversample",
        help="oversample: every type at least half as often as the most frequent one; "
        "undersample: none more than twice as often as the rarest")
    add = parser.add_argument_group("model, from the stage 1 run").add_argument
    add("--stage1_checkpoint", type=arguments.place, metavar="RUN",
        help="stage 1 run folder or .pth; on the sample: the newest LEARNED run")
    add("--features", choices=["crops+geometry", "crops", "geometry"], help=same)
    add("--backbone", help=same)
    add("--image_size", action=arguments.ImageSize, help=same)
    add("--history_seconds", type=arguments.non_negative_int, help=same)
    add("--whole_past", action=switch, help=same)
    add("--rescore", action=switch, help=same)
    add("--distance_multiplier", type=positive, help=same)
    add("--distance_norm", choices=["max", "mean", "first"], help=same)
    add("--dropout", type=arguments.fraction, default=0.2, help="dropout in branches and heads")
    add("--freeze_backbone", action=switch, default=False, help="train only a head, on stage 1's trunk")
    add = parser.add_argument_group("recipe").add_argument
    add("--loss", choices=["focal", "cross_entropy"], default="focal", help="loss of a pair")
    add("--focal_gamma", type=amount, default=2.0, help="weight of hard pairs; 0 = cross-entropy")
    add("--use_class_weights", action=switch, default=True,
        help="weight types by inverse frequency in the train split after balancing")
    add("--optimizer", choices=["adam", "adamw", "sgd"], default="adam", help="update rule")
    add("--scheduler", choices=["step", "cosine", "none"], default="cosine", help="learning rate schedule")
    add("--step_size", type=arguments.positive_int, default=15, help="epochs between rate cuts by 10 (step)")
    add("--max_grad_norm", type=amount, default=0.0, help="clip the gradient norm; 0 = off")
    add("--ema_decay", type=arguments.fraction, default=0.995, help="decay of the weights' average; 0 = off")
    add("--augment", action=switch, default=True, help="mirror frames and jitter colours in training")
    arguments.add_run_arguments(parser, epochs=12, batch_size=32, learning_rate=1e-3, weight_decay=1e-4,
                                patience=10)
    # fmt: on
    return arguments.parse_arguments(parser, argv)


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets.jrdb import load
from datasets.jrdb.augmentation import augment_pairs
from datasets.jrdb.balance import balance_classes, class_weights
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.geometry import feature_names
from datasets.jrdb.load import names_of
from models.encoders import build_encoder
from models.losses import FocalLoss
from models.pairs import PairClassifier, TwoStageInteractionClassifier
from utils.metrics.calibration import log_odds
from utils.metrics.classification import multiclass_metrics
from utils.metrics.verdict import Verdict
from utils.plotting.classification import plot_class_distribution
from utils.report.interaction import choose_on_val, report_end_to_end
from utils.report.interaction import report_types as report
from utils.run.log import LOG, format_values, progress
from utils.training import distributed
from utils.training.checkpoint import Checkpoint, load_into
from utils.training.config import describe_model
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, check_finite
from utils.training.run import finish, open_run
from utils.training.stage1 import adopt_stage1
from utils.training.weights import follow

build_datasets = partial(load.build_datasets, task="type")  # interacting pairs of a known type


def build_model(args: argparse.Namespace) -> tuple[TwoStageInteractionClassifier, dict[str, Any]]:
    """Stage 1, and a trunk and head to train or, with --freeze_backbone, only a head on stage 1's trunk."""
    encoder = None if args.features == "geometry" else build_encoder(args.backbone)
    inputs = 0 if args.features == "crops" else len(feature_names(args.history_seconds, args.whole_past))
    stage1, types = PairClassifier(encoder, inputs, args.dropout, args.rescore), len(INTERACTION_CLASSES)
    model = TwoStageInteractionClassifier(stage1, types, args.dropout, share_trunk=args.freeze_backbone)
    return model, {"pretrained": True, "source": args.stage1_checkpoint}


def build_recipe(
    args: argparse.Namespace, model: nn.Module, labels: np.ndarray
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Loss (one value per pair; a step divides by the global count), optimizer, schedule. labels: train's."""
    weights = None
    if args.use_class_weights:
        weights = torch.from_numpy(class_weights(labels, len(INTERACTION_CLASSES))).float()
        named = dict(zip(INTERACTION_CLASSES, weights.tolist(), strict=True))
        LOG.info(f"class weights: {format_values(named)}")
    cross_entropy = nn.CrossEntropyLoss(weights, reduction="none")
    criterion = FocalLoss(weights, args.focal_gamma) if args.loss == "focal" else cross_entropy
    criterion.to(next(model.parameters()).device)
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
            logits = model(batch)  # (N, 5)
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
    """Score every pair, once over all ranks: indices, labels (interacts 0/1), types (-1 none) (N,), logits of
    the types (N, 5), and `who`, the logits of stage 1 (N, 2)."""
    distributed.broadcast_buffers(model)
    model.eval()
    batches = []
    for batch in progress(loader, "evaluation"):
        with autocast(device, amp):
            how, who = model(move(batch, device), both=True)
        row = {key: batch[key].clone() for key in ("indices", "labels")}
        batches.append(row | {"who": who.float().cpu(), "logits": how.float().cpu()})
    rows = distributed.gather_rows(batches)
    return rows | {"types": loader.dataset.types[rows["indices"]]}


def measure(rows: dict[str, np.ndarray], criterion: nn.Module) -> dict[str, Any]:
    """The loss (in double precision) and metrics of the types, on the pairs that have one."""
    labels, logits = (rows[key][rows["types"] >= 0] for key in ("types", "logits"))
    losses = criterion(torch.from_numpy(logits).double(), torch.from_numpy(labels))
    return {"loss": float(losses.mean()), **multiclass_metrics(labels, log_odds(logits), INTERACTION_CLASSES)}


def main(args: argparse.Namespace) -> Verdict | None:
    """Train and test one run; rank 0 returns its verdict."""
    stage1 = adopt_stage1(args, FROM_STAGE1, names_of) if args.resume in (None, "auto") else None
    run = open_run(args, SCRIPT, VERSION, __doc__)
    if run is None:
        return None

    # Data
    data = build_datasets(args)
    if run.check(data, INTERACTION_CLASSES):
        return None
    natural = data.train.select(data.train.draw())
    train = natural.select(balance_classes(natural.labels, args.stage2_balance_strategy, args.seed))
    LOG.info(f"train after {args.stage2_balance_strategy}: {len(train)} pairs, {train.class_counts()}")
    parts = {name: data.all_in_range(name) for name in data.parts if name != "train"}
    train_loader, loaders = run.loaders(train, parts, EVALUATION_BATCH)  # batches by __getitems__

    # Model
    bare, weights = build_model(args)
    if stage1 is not None:
        load_into(bare.stage1, stage1["model"], args.stage1_checkpoint)
        bare.start_from_stage1()
        weights["sha256"] = stage1["sha256"]  # --config tells whether it is the same model
    model = run.place(bare)
    judged = copy.deepcopy(bare) if args.ema_decay else bare  # the model that is evaluated and saved
    average = partial(follow, judged, decay=args.ema_decay) if args.ema_decay else None

    # Recipe
    criterion, optimizer, scheduler = build_recipe(args, bare, train.labels)
    scaler, names = make_scaler(run.device, args.amp), names_of(args)
    worst = {name: -sign * math.inf for name, sign in BEST.items()}
    parts = {"model": judged, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    checkpoint = Checkpoint(run, worst, names, **parts, **({"trained": bare} if average else {}))
    if stage1 is not None:
        checkpoint.values |= {key: stage1[key] for key in ("calibration", "threshold", "stage1_threshold")}
    history, best = checkpoint.resume(criterion)
    flags = {name: getattr(args, name) for name in ("features", "backbone", "image_size")}
    section = describe_model(bare, "interaction type", weights, len(INTERACTION_CLASSES), **flags, **names)
    counts = natural.class_counts(), train.class_counts()
    run.record(data, section, criterion, optimizer, scheduler, class_counts_after_balancing=counts[1])
    if run.processes.first:
        plot_class_distribution(*counts, run.folder / "class_distribution.png")

    # Training
    check = LearningCheck(SCRIPT, criterion, train.labels, data.val.labels, outputs=len(INTERACTION_CLASSES))
    check.before_training(checkpoint, loaders | {"train": train_loader}, args.features.split("+"))
    panels = run.panels(data.val.class_counts(), loss=check.val_constant)
    while len(history) < args.epochs and not run.out_of_patience(history, best["f1"]["epoch"]):
        epoch, lr = len(history) + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, checkpoint.interrupt, run.device, epoch,
            average=average, augmented=args.augment, amp=args.amp, max_grad_norm=args.max_grad_norm,
        )  # fmt: skip
        rows = evaluate(judged, loaders["val"], run.device, amp=args.amp)
        validated = measure(rows, check.criterion)
        chosen, validated["end_to_end_f1"] = choose_on_val(loaders["val"].dataset, rows, checkpoint.values)
        scheduler.step()
        del validated["per_class"]
        history.append(checkpoint.interrupt.epoch_row(lr, trained, validated))
        figures = validated | {"f1": validated["macro_f1"]}
        improved = [k for k, sign in BEST.items() if sign * (figures[k] - best[k]["value"]) > 0]
        best |= {name: {"value": figures[name], "epoch": epoch} for name in improved}
        checkpoint.save_epoch(improved, constant_loss=check.val_constant, **chosen)
        run.show_epoch(history, panels, best["f1"]["epoch"])
        check.after_epoch(rows, rows["logits"][rows["types"] >= 0])

    # Test
    chosen = checkpoint.load_best("f1")
    score = partial(evaluate, judged, device=run.device, amp=args.amp)
    rows = {name: score(loader) for name, loader in loaders.items()}
    metrics = {name: measure(part, check.criterion) for name, part in rows.items()}
    if run.processes.first:
        metrics["val"]["end_to_end"] = report_end_to_end(None, "val", data, rows["val"], chosen)
    scales = {name: chosen[name] for name in ("calibration", "temperature")}
    worth = check.input_worth(lambda loader: measure(score(loader), check.criterion), metrics)
    return finish(run, data, checkpoint, panels, rows, metrics, report, worth, **scales)


if __name__ == "__main__":
    run_script(main, ARGS)
