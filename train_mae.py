"""Age from muscle ultrasound, the recommended recipe: L1, AdamW, warm-up, cosine, clipping.

    python train_mae.py                                                      on the built-in sample
    python train_mae.py --image_dir TA/Healthy/Images --excel_path TA/characteristics.xlsx
    python train_mae.py --epochs 24 --model resnet18 --image_size 96         minutes on a CPU
    torchrun --nproc_per_node=2 train_mae.py ...                             several processes or GPUs
    python train_mae.py --resume checkpoints/age_mae_experiment_...          go on with a run
    python train_mae.py --config RUN/config.json                             repeat a run bit for bit

All images of a person are in the same part of the split. The model starts at the median of the train ages. A
run ends LEARNED only if its error per person on people it has not seen is lower than the error of the train
mean and median, with 95% confidence. train_ddp.py is the same script with the plain recipe.
"""

import argparse
import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from datasets.ultrasound.flags import add_data_arguments
from models.backbones import BACKBONES
from utils.run import arguments
from utils.run.script import run_script

SCRIPT, VERSION = "train_mae.py", "1.0"
SELECT_BY = "subject_mae"  # the val metric that selects the best epoch; the verdict is about it too
EVALUATION_BATCH = 64  # images per evaluation batch


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of the age scripts; those of every run are in utils/run/arguments.py."""
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    count, amount, fraction = arguments.non_negative_int, arguments.non_negative_float, arguments.fraction
    switch = argparse.BooleanOptionalAction
    add_data_arguments(parser)
    # fmt: off
    add = parser.add_argument_group("model").add_argument
    add("--model", choices=BACKBONES, default="resnet50", help="encoder of an image")
    add("--weights", type=arguments.place_or("none", "imagenet"), default="none",
        help="encoder weights: none, imagenet, a file or a run folder")
    add("--dropout", type=fraction, default=0.5, help="dropout in the head")
    add("--freeze_backbone", action=switch, default=False, help="train only the head")
    add("--freeze_batchnorm", action=switch, default=False, help="keep BatchNorm's statistics as loaded")
    add = parser.add_argument_group("recipe").add_argument
    add("--rotation", type=amount, default=10.0, help="in training, rotate by up to this many degrees")
    add("--jitter", type=fraction, default=0.2, help="in training, change brightness and contrast by +- this")
    add("--flip", action=switch, default=False, help="in training, mirror half of the images with their text")
    add("--ema_decay", type=fraction, default=0.0,
        help="evaluate and save averaged weights, with this decay from the first step on; 0 = off")
    add("--scheduler", choices=["cosine", "none"], default="cosine", help="learning rate after the warm-up")
    add("--warmup_epochs", type=count, default=5, help="epochs of rising learning rate (at most epochs - 1)")
    add("--eta_min", type=amount, default=1e-7, help="learning rate of the last epoch (cosine)")
    add("--max_grad_norm", type=amount, default=1.0, help="clip the gradient norm; 0 = off")
    # fmt: on
    arguments.add_run_arguments(
        parser, epochs=500, batch_size=32, learning_rate=1e-4, weight_decay=1e-4, patience=100
    )
    return arguments.parse_arguments(parser, argv)


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets.ultrasound.augmentation import augment_images
from datasets.ultrasound.load import build_datasets
from models.age import AgeRegressor, explain
from models.encoders import build_encoder, freeze, load_weights
from utils.metrics.regression import best_trivial_mae, fit_intervals
from utils.metrics.verdict import Verdict
from utils.report.age import measure, report_age
from utils.run.log import progress
from utils.training import distributed
from utils.training.checkpoint import Checkpoint
from utils.training.config import describe_model
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, check_finite
from utils.training.run import finish, open_run
from utils.training.weights import follow


def build_model(args: argparse.Namespace) -> tuple[AgeRegressor, dict[str, Any]]:
    """(the model, whose scale is set by `fit` or a checkpoint; where the encoder's weights come from)."""
    encoder = build_encoder(args.model)
    weights = load_weights(encoder, args.weights if not args.resume else "none")
    if args.freeze_backbone:
        freeze(encoder)
    return AgeRegressor(encoder, args.dropout, freeze_batchnorm=args.freeze_batchnorm), weights


def build_recipe(
    args: argparse.Namespace, model: nn.Module
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """L1 loss (one value per image: a step divides by the global count), AdamW, warm-up and cosine.

    Epoch e of W warm-up epochs has lr * e / W; the cosine falls from there to eta_min in the last epoch."""
    criterion = nn.L1Loss(reduction="none")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, fused=True
    )
    warmup, schedulers = max(1, min(args.warmup_epochs, args.epochs - 1)), torch.optim.lr_scheduler
    if args.scheduler == "cosine":
        falling = max(args.epochs - warmup, 1)
        scheduler = schedulers.CosineAnnealingLR(optimizer, T_max=falling, eta_min=args.eta_min)
    else:
        scheduler = schedulers.ConstantLR(optimizer, factor=1.0)
    if warmup > 1:
        rise = schedulers.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
        scheduler = schedulers.SequentialLR(optimizer, [rise, scheduler], milestones=[warmup - 1])
    return criterion, optimizer, scheduler


def train_one_epoch(
    model: nn.Module, loader: DataLoader, criterion: nn.Module, optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler, interrupt: Interrupt, device: torch.device, epoch: int, *,
    transform: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor] | None = None,
    average: Callable | None = None, amp: bool = False, max_grad_norm: float = 0.0,
) -> dict[str, float]:  # fmt: skip
    """One pass over the train split. Returns loss and MAE over all samples of all ranks.

    transform(images, indices, epoch) augments a batch; average(model, step=k) updates the averaged weights
    after step k of the run. Raises NonFiniteError before a NaN or infinite loss or gradient changes weights.
    """
    model.train()
    sampler = loader.batch_sampler
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, absolute error, samples
    for step, batch in interrupt.steps(loader, epoch, totals):  # enumerate(loader), can be stopped
        distributed.seed_everything(sampler.seed, epoch, step, sampler.rank)
        weight = sampler.part(step)[1]  # world size / samples in the global batch
        indices = batch["indices"]  # kept on the host: reading them back would wait for the GPU
        batch = move(batch, device)
        images = transform(batch["images"], indices, epoch) if transform else batch["images"]
        with autocast(device, amp):
            preds = model(images)  # (B,)
        losses = criterion(preds.float(), batch["ages"])  # (B,)
        loss = losses.sum() * weight
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
        check_finite(loss, grad_norm, scaler, f"epoch {epoch} step {step + 1}", indices)
        scaler.step(optimizer)
        scaler.update()
        if average is not None:
            average(getattr(model, "module", model), step=(epoch - 1) * sampler.steps + step)
        if weight > 0:  # a rank without samples computes one that must not count
            error = (preds.detach().float() - batch["ages"]).abs().sum()
            count = torch.full((), len(losses), device=device)
            totals += torch.stack([losses.detach().sum(), error, count])
    loss_sum, error_sum, count = distributed.sum_over_ranks(totals).tolist()
    return {"loss": loss_sum / count, "mae": error_sum / count}


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: DataLoader, device: torch.device, *, amp: bool = False
) -> dict[str, np.ndarray]:
    """Predict every image once over all ranks. Returns indices, subject_ids, ages and preds, each (N,)."""
    distributed.broadcast_buffers(model)
    model.eval()
    batches = []
    for batch in progress(loader, "evaluation"):
        with autocast(device, amp):
            preds = model(move(batch, device)["images"])
        row = {key: batch[key].clone() for key in ("indices", "subject_ids", "ages")}
        batches.append(row | {"preds": preds.float().cpu()})
    return distributed.gather_rows(batches)


report = partial(report_age, build_model, explain)  # compares a split with the train mean and median


def main(args: argparse.Namespace) -> Verdict | None:
    """Train and test one run; rank 0 returns its verdict."""
    run = open_run(args, SCRIPT, VERSION, __doc__)
    if run is None:
        return None
    bare, weights = build_model(args)  # before the data: missing weights are an error at once

    # Data
    data = build_datasets(args)
    if run.check(data):
        return None
    train_loader, loaders = run.loaders(data.train, data.parts, EVALUATION_BATCH)  # batches by __getitems__

    # Model
    bare.fit(torch.from_numpy(data.train.ages))
    model = run.place(bare)
    judged = copy.deepcopy(bare) if args.ema_decay else bare  # evaluated, and saved as `model`
    average = partial(follow, judged, decay=args.ema_decay, warm_up=False) if args.ema_decay else None

    # Recipe
    criterion, optimizer, scheduler = build_recipe(args, bare)
    scaler = make_scaler(run.device, args.amp)
    parts = {"model": judged, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    checkpoint = Checkpoint(run, {"model": math.inf}, **parts, **({"trained": bare} if average else {}))
    checkpoint.values |= {"target_unit": data.unit, "intensity_range": data.intensity_range}
    history, best = checkpoint.resume(criterion)
    section = describe_model(
        bare, "age regression", weights, 1, backbone=args.model, image_size=args.image_size,
        dropout=args.dropout, target_median=float(bare.target_median), target_sd=float(bare.target_sd),
    )  # fmt: skip
    run.record(data, section, criterion, optimizer, scheduler)

    # Training
    check = LearningCheck(SCRIPT, criterion, data.train.ages, data.val.ages, outputs=1)
    check.before_training(
        checkpoint, loaders | {"train": train_loader}, ["images"], target="ages",
        forward=lambda model, batch: model(batch["images"]),
    )  # fmt: skip
    trivial = best_trivial_mae(data.train.ages, data.val.ages)
    panels = run.panels(unit=data.unit, loss=check.val_constant, mae=trivial)
    augmented = partial(
        augment_images, seed=args.seed, rotation=args.rotation, jitter=args.jitter, flip=args.flip,
    )  # fmt: skip
    while len(history) < args.epochs and not run.out_of_patience(history, best["model"]["epoch"]):
        epoch, lr = len(history) + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, checkpoint.interrupt, run.device, epoch,
            transform=augmented, average=average, amp=args.amp,
            max_grad_norm=args.max_grad_norm,
        )  # fmt: skip
        rows = evaluate(judged, loaders["val"], run.device, amp=args.amp)
        validated = measure(rows, check.criterion)
        scheduler.step()
        history.append(checkpoint.interrupt.epoch_row(lr, trained, validated))
        improved = validated[SELECT_BY] < best["model"]["value"]
        if improved:
            best["model"] = {"value": validated[SELECT_BY], "epoch": epoch}
        kept = {"constant_loss": check.val_constant, "intervals": fit_intervals(rows)}
        checkpoint.save_epoch(["model"] if improved else [], **kept)
        run.show_epoch(history, panels, best["model"]["epoch"])
        check.after_epoch(rows, rows["preds"])

    # Test
    checkpoint.load_best("model")
    score = partial(evaluate, judged, device=run.device, amp=args.amp)
    rows = {name: score(loader) for name, loader in loaders.items()}
    metrics = {name: measure(part, check.criterion) for name, part in rows.items()}
    worth = check.input_worth(lambda loader: measure(score(loader), check.criterion), metrics)
    return finish(run, data, checkpoint, panels, rows, metrics, report, worth)


if __name__ == "__main__":
    run_script(main, ARGS)
