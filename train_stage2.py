"""Stage 2 on JRDB panoramas: how do these two people interact?

    python train_stage2.py                                          on the built-in sample
    python train_stage2.py --data_path JRDB --stage1_checkpoint RUN  after a stage 1 run on the same data
    torchrun --nproc_per_node=2 train_stage2.py ...                  several processes or GPUs
    python train_stage2.py --resume RUN                              go on with a run
    python train_stage2.py --config RUN/config.json                  repeat a run bit for bit

Five types (walking, standing, sitting together, conversation, others) on interacting pairs alone. Features,
backbone, crop size and distance limit are those of the stage 1 run this one starts from. When the shared
trunk is trained, stage 1 is measured before and after, so that nobody loses it silently. A run ends LEARNED
only when macro F1 beats the best of majority, uniform and prior-random guessing on sequences it has not seen,
with 95% confidence.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from datasets.jrdb.flags import add_data_arguments
from utils.run import arguments
from utils.run.script import run_script

SCRIPT, VERSION = "train_stage2.py", "1.0"
EVALUATION_BATCH = 256  # pairs per evaluation batch, rounded up to whole frames
FROM_STAGE1 = (
    "features", "backbone", "image_size", "history_seconds", "distance_multiplier", "distance_norm"
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of stage 2; the run-level ones are in utils/run/arguments.py."""
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    count, amount = arguments.non_negative_int, arguments.non_negative_float
    positive = arguments.positive_float
    switch = argparse.BooleanOptionalAction
    add_data_arguments(parser)
    # fmt: off
    add = parser.add_argument_group("pairs").add_argument
    add("--use_group_sampling", action=switch, default=True, help="limit the pairs per interaction group")
    add("--max_group_samples_ratio", type=positive, default=1.0, help="pairs per group member")
    add("--stage2_balance_strategy", choices=["oversample", "undersample", "none"], default="oversample",
        help="oversample: each type at least half as often as the most frequent; "
        "undersample: none more than twice as often as the rarest")
    add = parser.add_argument_group("model, from the stage 1 run").add_argument
    add("--stage1_checkpoint", metavar="RUN",
        help="stage 1 run folder or .pth; on the sample: the newest LEARNED run")
    add("--features", choices=["crops+geometry", "crops", "geometry"], help="must be that of the stage 1 run")
    add("--backbone", help="must be that of the stage 1 run")
    add("--image_size", action=arguments.ImageSize, help="must be that of the stage 1 run")
    add("--history_seconds", type=count, help="must be that of the stage 1 run")
    add("--distance_multiplier", type=positive, help="must be that of the stage 1 run")
    add("--distance_norm", choices=["max", "mean", "first"], help="must be that of the stage 1 run")
    add("--dropout", type=arguments.fraction, default=0.2, help="dropout in branches and heads")
    add("--freeze_backbone", action=switch, default=False, help="train the stage 2 head alone")
    add = parser.add_argument_group("recipe").add_argument
    add("--loss", choices=["focal", "cross_entropy"], default="focal", help="loss of a pair")
    add("--focal_gamma", type=amount, default=2.0, help="weight of hard pairs; 0 = cross-entropy")
    add("--use_class_weights", action=switch, default=True,
        help="weigh types by inverse frequency in the train split after balancing, "
        "so that the imbalance is not corrected twice")
    add("--optimizer", choices=["adam", "adamw", "sgd"], default="adam", help="update rule")
    add("--scheduler", choices=["step", "cosine", "none"], default="step", help="learning rate schedule")
    add("--step_size", type=arguments.positive_int, default=15, help="epochs between cuts by 10 (step)")
    add("--max_grad_norm", type=amount, default=0.0, help="clip the gradient norm; 0 = off")
    add("--augment", action=switch, default=True, help="in training, mirror frames and jitter colours")
    # fmt: on
    arguments.add_run_arguments(
        parser, epochs=30, batch_size=16, learning_rate=5e-4, weight_decay=1e-4, patience=10
    )
    return arguments.parse_arguments(parser, argv)


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

import numpy as np
import torch
from scipy.special import softmax
from torch import nn
from torch.utils.data import DataLoader

import train_stage1
from datasets.jrdb import dataset
from datasets.jrdb.augmentation import augment_pairs
from datasets.jrdb.dataset import PairDatasets
from datasets.jrdb.features import feature_names
from datasets.jrdb.labels import INTERACTION_CLASSES
from datasets.jrdb.pairs import balance_classes, class_weights
from models.encoders import build_encoder
from models.losses import FocalLoss
from models.pairs import TwoStageInteractionClassifier
from utils.metrics.calibration import calibrated, fit_platt, fit_temperature, log_odds, sigmoid
from utils.metrics.classification import binary_metrics, choose_threshold, multiclass_metrics
from utils.metrics.references import reference_scores
from utils.metrics.verdict import Verdict
from utils.plotting.classification import plot_class_distribution
from utils.report.classification import report_multiclass
from utils.report.results import write_table
from utils.run.log import LOG, format_values
from utils.training import distributed
from utils.training.checkpoint import Checkpoint
from utils.training.config import describe_model
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, check_finite
from utils.training.run import finish, open_run
from utils.training.stage1 import adopt_stage1


def names_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """The lists of names that a checkpoint must agree on with this code."""
    return {"class_names": list(INTERACTION_CLASSES), "feature_names": feature_names(args.history_seconds)}


def build_datasets(args: argparse.Namespace) -> PairDatasets:
    """Interacting pairs of a known type; negatives are neither loaded nor decoded."""
    return dataset.build_datasets(args, task="type")


def build_model(args: argparse.Namespace) -> tuple[TwoStageInteractionClassifier, dict[str, Any]]:
    """The model of the stage 1 run: the head of stage 2 learns, and the trunk without --freeze_backbone."""
    encoder = None if args.features == "geometry" else build_encoder(args.backbone)
    inputs = 0 if args.features == "crops" else len(feature_names(args.history_seconds))
    model = TwoStageInteractionClassifier(encoder, inputs, dropout=args.dropout)
    model.train_stage(2, trunk=not args.freeze_backbone)
    return model, {"pretrained": True, "source": args.stage1_checkpoint}


def build_recipe(
    args: argparse.Namespace, model: nn.Module, labels: np.ndarray
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Loss (one value per pair: a step divides by the global count), optimizer, schedule; labels: train's."""
    weights = None
    if args.use_class_weights:
        weights = class_weights(labels, len(INTERACTION_CLASSES))
        LOG.info("class weights: " + format_values(dict(zip(INTERACTION_CLASSES, weights, strict=True))))
        weights = torch.from_numpy(weights).float().to(next(model.parameters()).device)
    if args.loss == "focal":
        criterion = FocalLoss(weights, args.focal_gamma)
    else:
        criterion = nn.CrossEntropyLoss(weights, reduction="none")
    trainable = [p for p in model.parameters() if p.requires_grad]
    options = {"lr": args.learning_rate, "weight_decay": args.weight_decay, "fused": True}
    if args.optimizer == "sgd":
        optimizer = torch.optim.SGD(trainable, momentum=0.9, **options)
    elif args.optimizer == "adamw":
        optimizer = torch.optim.AdamW(trainable, **options)
    else:
        optimizer = torch.optim.Adam(trainable, **options)
    if args.scheduler == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)
    else:
        gamma = 0.1 if args.scheduler == "step" else 1.0
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, args.step_size, gamma)
    return criterion, optimizer, scheduler


def train_one_epoch(
    model: nn.Module,
    loader: DataLoader,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    interrupt: Interrupt,
    device: torch.device,
    epoch: int,
    *,
    augmented: bool = True,
    amp: bool = False,
    max_grad_norm: float = 0.0,
) -> dict[str, float]:
    """One pass over the train split. Returns loss and accuracy over all samples of all ranks.

    Raises NonFiniteError before a step would carry a NaN or infinite loss or gradient into the weights.
    """
    model.train()
    sampler = loader.batch_sampler
    trainable = [p for p in model.parameters() if p.requires_grad]
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, samples
    for step, batch in interrupt.steps(loader, epoch, totals):
        distributed.seed_everything(sampler.seed, epoch, step, sampler.rank)
        weight = sampler.part(step)[1]  # world size / samples in the global batch
        if augmented:
            batch = augment_pairs(batch, loader.dataset.feature_names, sampler.seed, epoch, device)
        batch = move(batch, device)
        with autocast(device, amp):
            logits = model(batch, stage=2)  # (N, 5)
        losses = criterion(logits.float(), batch["labels"])  # (N,)
        loss = losses.sum() * weight
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(trainable, max_grad_norm or math.inf)
        check_finite(loss, grad_norm, scaler, f"epoch {epoch} step {step + 1}", batch["indices"])
        scaler.step(optimizer)
        scaler.update()
        if weight > 0:  # a rank left with nothing computes one sample that must not count
            correct = (logits.argmax(dim=1) == batch["labels"]).sum()
            totals += torch.stack([losses.detach().sum(), correct, torch.tensor(len(losses), device=device)])
    loss_sum, correct, count = distributed.sum_over_ranks(totals).tolist()
    return {"loss": loss_sum / count, "accuracy": correct / count}


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: DataLoader, device: torch.device, *, amp: bool = False
) -> dict[str, np.ndarray]:
    """Score every pair, once over all ranks: indices and labels (N,), logits (N, 5)."""
    distributed.broadcast_buffers(model)
    model.eval()
    batches = []
    for batch in loader:
        with autocast(device, amp):
            logits = model(move(batch, device), stage=2)
        batches.append(
            {"indices": batch["indices"], "labels": batch["labels"], "logits": logits.float().cpu()}
        )
    return distributed.gather_rows(batches)


def measure_stage1(model: nn.Module, loader: DataLoader, device: torch.device, amp: bool) -> dict[str, float]:
    """Stage 1 of the same model on every val pair: AP, AUROC, F1, threshold and the scale of its scores."""
    rows = train_stage1.evaluate(model, loader, device, amp=amp)
    labels, logits = rows["labels"], log_odds(rows["logits"])[:, 1]
    calibration = fit_platt(labels, logits)
    scores = sigmoid(calibrated(logits, **calibration))
    threshold = choose_threshold(labels, scores)
    found = binary_metrics(labels, logits, scores >= threshold)
    return {key: found[key] for key in ("ap", "auroc", "f1")} | {"threshold": threshold, **calibration}


def measure(rows: dict[str, np.ndarray], criterion: nn.Module) -> dict[str, Any]:
    """Loss under `criterion` (in double precision), and the metrics of utils/metrics/."""
    losses = criterion(torch.from_numpy(rows["logits"]).double(), torch.from_numpy(rows["labels"]))
    odds = log_odds(rows["logits"])
    return {"loss": float(losses.mean()), **multiclass_metrics(rows["labels"], odds, INTERACTION_CLASSES)}


def report(
    folder: Path,
    split: str,
    rows: dict[str, np.ndarray],
    data: PairDatasets,
    state: dict[str, Any],
    truncated: bool,
) -> tuple[Verdict, dict[str, Any]]:
    """Judge a split beside guessing and boosted trees on the geometry; write report, figures, predictions."""
    part, classes = data.parts()[split], np.array(INTERACTION_CLASSES)
    scores = softmax(rows["logits"].astype(float) / state["temperature"], axis=1)
    notes = [f"stage 1 on val {when}: {format_values(v)}" for when, v in state["stage1_on_val"].items()]
    columns = {name: scores[:, k] for k, name in enumerate(classes)}
    columns |= {"prediction": classes[scores.argmax(axis=1)]}
    write_table(folder / f"{split}_predictions.csv", part.pair_columns() | columns)
    return report_multiclass(
        folder, split, state, part.labels, rows["logits"], INTERACTION_CLASSES,
        references=reference_scores(*data.reference_pairs(), part.geometry, len(classes)),
        train_labels=data.reference_pairs()[1], val_labels=data.val.labels, groups=part.groups,
        fallback=part.frames, truncated=truncated, notes={"notes": "\n".join(notes)},
    )  # fmt: skip


def main(args: argparse.Namespace) -> Verdict | None:
    """Train and test one run; rank 0 returns its verdict."""
    stage1 = None if args.resume else adopt_stage1(args, FROM_STAGE1, names_of)
    names = names_of(args)
    run = open_run(args, SCRIPT, VERSION, __doc__)
    if run is None:
        return None

    # Data
    data = build_datasets(args)
    if run.check(data, INTERACTION_CLASSES):
        return None
    train = data.train.select(balance_classes(data.train.labels, args.stage2_balance_strategy, args.seed))
    LOG.info(f"train after {args.stage2_balance_strategy}: {len(train)} pairs, {train.class_counts()}")
    train_loader, loaders = run.loaders(data, train, EVALUATION_BATCH)
    every_pair = run.evaluation_loader(data.with_task("val", "interaction"), EVALUATION_BATCH)

    # Model
    bare, weights = build_model(args)
    if stage1 is not None:
        bare.load_state_dict(stage1["model"])
    model = run.place(bare)

    # Recipe
    criterion, optimizer, scheduler = build_recipe(args, bare, train.labels)
    scaler = make_scaler(run.device, args.amp)
    worst = {"accuracy": -math.inf, "loss": math.inf, "f1": -math.inf}
    checkpoint = Checkpoint(
        run, worst, names, model=bare, optimizer=optimizer, scheduler=scheduler, scaler=scaler
    )
    history, best = checkpoint.resume()
    on_val = checkpoint.values.get("stage1_on_val")
    if on_val is None:
        before = measure_stage1(bare, every_pair, run.device, args.amp)
        on_val = {"before": before, "after": before}
        checkpoint.values |= {"stage1_on_val": on_val, "threshold": before["threshold"]}
    LOG.info("stage 1 on val before: " + format_values(on_val["before"]))
    section = describe_model(
        bare, "interaction type", weights, len(INTERACTION_CLASSES), features=args.features,
        backbone=args.backbone, image_size=args.image_size, **names,
    )  # fmt: skip
    run.record(
        data, section, criterion, optimizer, scheduler, class_counts_after_balancing=train.class_counts(),
        class_weights=None if criterion.weight is None else criterion.weight.tolist(),
    )  # fmt: skip
    if run.processes.first:
        counts = data.train.class_counts(), train.class_counts()
        plot_class_distribution(*counts, run.folder / "class_distribution.png")

    # Training
    check = LearningCheck(SCRIPT, criterion, train.labels, data.val.labels, outputs=len(INTERACTION_CLASSES))
    every, inputs = loaders | {"train": train_loader}, args.features.split("+")
    check.before_training(checkpoint, every, inputs, forward=lambda model, batch: model(batch, stage=2))
    panels = run.panels(data.val.class_counts(), loss=check.val_constant, stage1_ap=on_val["before"]["ap"])
    while len(history) < args.epochs and not run.out_of_patience(history, best["f1"]["epoch"]):
        epoch, lr = len(history) + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, checkpoint.interrupt, run.device, epoch,
            augmented=args.augment, amp=args.amp, max_grad_norm=args.max_grad_norm,
        )  # fmt: skip
        rows = evaluate(bare, loaders["val"], run.device, amp=args.amp)
        validated = measure(rows, check.criterion)
        on_val["after"] = measure_stage1(bare, every_pair, run.device, args.amp)
        scheduler.step()
        validated |= {f"stage1_{key}": value for key, value in on_val["after"].items()}
        del validated["per_class"]
        history.append(checkpoint.interrupt.epoch_row(lr, trained, validated))
        improved = {
            name: validated[key]
            for name, key, sign in (("accuracy", "accuracy", 1), ("loss", "loss", -1), ("f1", "macro_f1", 1))
            if sign * validated[key] > sign * best[name]["value"]
        }
        best |= {name: {"value": value, "epoch": epoch} for name, value in improved.items()}
        after = on_val["after"]
        checkpoint.save_epoch(
            improved, threshold=after["threshold"], stage1_on_val=on_val, constant_loss=check.val_constant,
            calibration={name: after[name] for name in ("slope", "offset")},
            temperature=fit_temperature(rows["labels"], rows["logits"]),
        )  # fmt: skip
        run.show_epoch(history, panels, best["f1"]["epoch"])
        check.after_epoch(history, bare, rows["logits"], rows)

    # Test
    chosen = checkpoint.load_best("f1")
    LOG.info("stage 1 on val after: " + format_values(chosen["stage1_on_val"]["after"]))
    rows = {name: evaluate(bare, loader, run.device, amp=args.amp) for name, loader in loaders.items()}
    metrics = {name: measure(part, check.criterion) for name, part in rows.items()}
    more = {name: chosen[name] for name in ("stage1_on_val", "calibration", "temperature")}
    return finish(run, data, checkpoint, panels, rows, metrics, report, **more)


if __name__ == "__main__":
    run_script(main, ARGS)
