"""Age from muscle ultrasound, the plain recipe: MSE, Adam, learning rate halved on a plateau.

    python train_ddp.py                                                      on the built-in sample
    python train_ddp.py --image_dir TA/Healthy/Images --excel_path TA/characteristics.xlsx
    python train_ddp.py --epochs 24 --model resnet18 --image_size 96         minutes on a CPU
    torchrun --nproc_per_node=6 train_ddp.py ...                             several processes or GPUs
    python train_ddp.py --resume checkpoints/age_mse_experiment_...          go on with a run
    python train_ddp.py --config RUN/config.json                             repeat a run bit for bit

Images of one person never stand in two parts of the split. The model starts at the median of the train ages.
A run ends LEARNED only when its error per person beats the better of train mean and median on people it has
not seen, with 95% confidence. train_mae.py is the same script with the recommended recipe.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from datasets.ultrasound.records import ID_PATTERN, PROBLEMS
from models.backbones import BACKBONES
from utils.run import arguments
from utils.run.script import open_run, run_script

SCRIPT, VERSION, NAME = "train_ddp.py", "1.0", "age_mse"
SELECT_BY = "mse"  # the figure of val that decides what is best
SAMPLE = "data/sample_ultrasound"
EVALUATION_BATCH = 64  # images per evaluation batch


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of the age scripts; the run-level ones are in utils/run/arguments.py."""
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    count, amount, fraction = (arguments.non_negative_int, arguments.non_negative_float, arguments.fraction)
    switch = argparse.BooleanOptionalAction
    # fmt: off
    add = parser.add_argument_group("data").add_argument
    add("--image_dir", help="folder of images, such as TA/Healthy/Images; default: the built-in sample")
    add("--excel_path", help="table of ids and ages; default: characteristics.xlsx two folders up")
    add("--cohort", choices=["healthy", "pathological", "both"], default="healthy", help="whose images")
    add("--muscle", nargs="+", help="muscles, such as TA BB, when --image_dir is the folder above them")
    add("--id_column", default="Number", help="name of the column of subject ids")
    add("--age_column", default="Age", help="name of the column of ages")
    add("--numeric_ids", action=switch, default=False, help="ids are numbers: '001' and '1' are one subject")
    add("--id_pattern", default=ID_PATTERN, help="regular expression for the id in a file name, one group")
    add("--target_unit", default="years", help="what the ages are counted in")
    add("--min_age", type=amount, help="leave out younger subjects")
    add("--max_age", type=amount, help="leave out older subjects")
    add("--exclude", nargs="*", default=[], choices=list(PROBLEMS), metavar="KIND",
        help=f"leave these out instead of refusing them: {', '.join(PROBLEMS)}")
    add("--split_method", default="by_subject_id", help="by_subject_id or a JSON file of ids per part")
    add("--test_size", type=fraction, default=0.2, help="share of the subjects")
    add("--val_size", type=fraction, default=0.1, help="share of the subjects that test leaves")
    add("--stratify_age", action=switch, default=False, help="every part gets its share of every decade")
    add("--image_size", action=arguments.ImageSize, default=[224, 224], help="pixels of the model's input")
    add("--mask_text", action=switch, default=False, help="blank the burnt-in text and the ruler")
    add("--sample", choices=["standard", "no_signal", "shortcut"], default="standard",
        help="which built-in sample, without --image_dir")
    add = parser.add_argument_group("model").add_argument
    add("--model", choices=BACKBONES, default="resnet50", help="encoder of an image")
    add("--weights", default="none", help="of the encoder: none, imagenet, a file or a run folder")
    add("--dropout", type=fraction, default=0.5, help="dropout in the head")
    add("--freeze_backbone", action=switch, default=False, help="train the head alone")
    add("--freeze_batchnorm", action=switch, default=False, help="keep the statistics of loaded weights")
    add = parser.add_argument_group("recipe").add_argument
    add("--rotation", type=amount, default=10.0, help="in training, turn by up to this many degrees")
    add("--jitter", type=fraction, default=0.2, help="in training, brightness and contrast +- this")
    add("--flip", action=switch, default=False, help="in training, mirror half the images and their text")
    add("--ema_decay", type=fraction, default=0.0, help="judge and keep averaged weights; 0 = off")
    add("--plateau_patience", type=count, default=10, help="epochs without a better val MSE, then lr / 2")
    # fmt: on
    arguments.add_run_arguments(
        parser, epochs=500, batch_size=32, learning_rate=1e-4, weight_decay=1e-4, patience=0
    )
    return arguments.parse_arguments(parser, argv)


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from datasets.augmentation import adjust_brightness, adjust_contrast, flip_horizontal, rotate, uniform
from datasets.samples import ensure_sample
from datasets.ultrasound.dataset import AgeDatasets, load_age_datasets
from models.age import AgeRegressor
from models.encoders import build_encoder, freeze, load_weights
from utils.metrics.regression import age_metrics, regression_metrics, trivial_predictions
from utils.plotting.curves import Panel, plot_curves, to_beat
from utils.report.age import report_age
from utils.report.classification import epochs_and_time, write_results
from utils.run.folder import is_finished, write_json
from utils.run.log import LOG, epoch_line, epoch_row
from utils.training import config, distributed
from utils.training.checkpoint import load_checkpoint, restore, save_checkpoint, save_epoch, save_last
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, Verdict, check_finite, check_labels


def build_datasets(args: argparse.Namespace) -> AgeDatasets:
    """Train, val and test (None when --test_size is 0) as the flags say."""
    image_dir, exclude = args.image_dir, set(args.exclude)
    if image_dir is None:
        variant = "" if args.sample == "standard" else f"_{args.sample}"
        folder = ensure_sample("ultrasound", SAMPLE + variant, f"small{variant}", log=LOG.info)
        image_dir = folder / "TA" / "Healthy" / "Images"
        exclude |= {"images_without_row", "rows_without_image"}  # it has a few of each, as real sets do
    return load_age_datasets(
        image_dir, args.excel_path, cohort=args.cohort, muscle=args.muscle, id_column=args.id_column,
        age_column=args.age_column, numeric_ids=args.numeric_ids, id_pattern=args.id_pattern,
        unit=args.target_unit, min_age=args.min_age, max_age=args.max_age, exclude=exclude,
        split_method=args.split_method, test_size=args.test_size, val_size=args.val_size, seed=args.seed,
        stratify_age=args.stratify_age, image_size=args.image_size, mask_text=args.mask_text,
        limit_gb=args.cache_limit_gb, log=LOG.info,
    )  # fmt: skip


def build_model(args: argparse.Namespace) -> tuple[AgeRegressor, dict[str, Any]]:
    """The model (its scale comes from `fit` or a checkpoint) and where the encoder's weights come from."""
    encoder = build_encoder(args.model)
    weights = load_weights(encoder, args.weights)
    if args.freeze_backbone:
        freeze(encoder)
    return AgeRegressor(encoder, args.dropout, freeze_batchnorm=args.freeze_batchnorm), weights


def augment(
    images: torch.Tensor, indices: torch.Tensor, epoch: int, args: argparse.Namespace
) -> torch.Tensor:
    """uint8 (B, 3, H, W) with equal channels -> float in [0, 1], turned, lit and mirrored per sample."""
    draws = torch.from_numpy(uniform(args.seed, epoch, indices.numpy(), 4)).float()
    turn, light, contrast, mirror = draws.to(images.device).unbind(1)  # each (B,) in [0, 1)
    grey = rotate(images[:, :1].float() / 255, args.rotation * (2 * turn - 1))  # (B, 1, H, W)
    images = adjust_brightness(grey.expand(-1, 3, -1, -1), 1 + args.jitter * (2 * light - 1))
    images = adjust_contrast(images, 1 + args.jitter * (2 * contrast - 1))
    return flip_horizontal(images, mirror < 0.5) if args.flip else images


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
    transform: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor] | None = None,
    average: AveragedModel | None = None,
    amp: bool = False,
    max_grad_norm: float = 0.0,
) -> dict[str, float]:
    """One pass over the train split. Returns loss and MAE over all samples of all ranks.

    transform(images, indices, epoch) augments a batch; average follows the weights after every step.
    Raises NonFiniteError before a step would carry a NaN or infinite loss or gradient into the weights.
    """
    model.train()
    sampler = loader.batch_sampler
    trainable = [p for p in model.parameters() if p.requires_grad]
    totals = torch.zeros(3, dtype=torch.float64, device=device)  # loss, absolute error, samples
    for step, batch in interrupt.steps(loader, epoch, totals):
        distributed.seed_everything(sampler.seed, epoch, step, sampler.rank)
        weight = sampler.part(step)[1]  # world size / samples in the global batch
        indices = batch["indices"]  # stay on the host: to read them back would wait for the GPU
        batch = move(batch, device)
        images = transform(batch["images"], indices, epoch) if transform else batch["images"]
        with autocast(device, amp):
            preds = model(images)  # (B,)
        losses = criterion(preds.float(), batch["ages"])  # (B,)
        loss = losses.sum() * weight
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(trainable, max_grad_norm or math.inf)
        check_finite(loss, grad_norm, scaler, f"epoch {epoch} step {step + 1}", indices)
        scaler.step(optimizer)
        scaler.update()
        if average is not None:
            average.update_parameters(getattr(model, "module", model))
        if weight > 0:  # a rank left with nothing computes one sample that must not count
            error = (preds.detach().float() - batch["ages"]).abs().sum()
            totals += torch.stack([losses.detach().sum(), error, torch.tensor(len(losses), device=device)])
    loss_sum, error_sum, count = distributed.sum_over_ranks(totals).tolist()
    return {"loss": loss_sum / count, "mae": error_sum / count}


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: DataLoader, device: torch.device, *, amp: bool = False
) -> dict[str, np.ndarray]:
    """Predict every image, once over all ranks: indices, subject_ids, ages and preds (N,)."""
    model.eval()
    batches = []
    for batch in loader:
        with autocast(device, amp):
            preds = model(move(batch, device)["images"])
        row = {key: batch[key] for key in ("indices", "subject_ids", "ages")}
        batches.append(row | {"preds": preds.float().cpu()})
    return distributed.gather_rows(batches)


def measure(rows: dict[str, np.ndarray], criterion: nn.Module) -> dict[str, float | None]:
    """Loss, the metrics of utils/metrics/regression.py per image, and the MAE over subjects."""
    losses = criterion(torch.from_numpy(rows["preds"]), torch.from_numpy(rows["ages"]))
    return {"loss": float(losses.mean()), **age_metrics(rows)}


def report(
    folder: Path,
    split: str,
    rows: dict[str, np.ndarray],
    data: AgeDatasets,
    state: dict[str, Any],
    truncated: bool,
) -> tuple[Verdict, dict[str, Any]]:
    """Judge a split beside the train mean and median; write report, figures, predictions."""
    part = data.parts()[split]
    return report_age(
        folder, split, f"{SCRIPT} on {split}", rows, part.files, part.subjects, data.train.ages,
        unit=data.unit, truncated=truncated,
    )  # fmt: skip


def main(args: argparse.Namespace) -> Verdict | None:
    """Train and test one run; rank 0 returns its verdict."""
    # Device and processes
    processes = distributed.start_processes(args.device)
    device = processes.device
    distributed.seed_everything(args.seed)

    # Run folder
    if args.resume and is_finished(Path(args.resume), args.epochs):
        if processes.first:
            print(f"{args.resume} is finished: nothing to resume")
        return None
    run, status = open_run(args, f"{SCRIPT} {VERSION}", NAME, processes)

    # Data
    data = build_datasets(args)
    train, val, unit = data.train, data.val, data.unit
    for name, part in data.parts().items():
        check_labels(part.ages, name)
    for line in data.log_lines():
        LOG.info(line)
    LOG.info(f"split: {data.split_source}; {data.leakage_check}")
    if args.check_data:
        LOG.info("the data can be trained on")
        return None
    sampler = distributed.EpochSampler(len(train), args.batch_size, args.seed, processes)
    train_loader = distributed.make_loader(train, sampler, args.num_workers, device)
    loaders = {
        name: distributed.evaluation_loader(part, EVALUATION_BATCH, processes, args.num_workers)
        for name, part in data.parts().items()
        if name != "train"
    }

    # Model
    bare, weights = build_model(args)
    bare.fit(torch.from_numpy(train.ages))
    bare.to(device, memory_format=torch.channels_last)
    model = DistributedDataParallel(bare) if processes.world_size > 1 else bare
    average = None
    if args.ema_decay:
        average = AveragedModel(bare, multi_avg_fn=get_ema_multi_avg_fn(args.ema_decay), use_buffers=True)
    judged = average.module if average else bare  # what is evaluated, kept as best and written as `model`
    trainable = [p for p in bare.parameters() if p.requires_grad]
    LOG.info(f"model: {args.model}, {sum(p.numel() for p in trainable)} trainable parameters, {weights}")

    # Optimisation
    criterion = nn.MSELoss(reduction="none")  # one loss per image; a step divides by the global count
    optimizer = torch.optim.Adam(
        trainable, lr=args.learning_rate, betas=(0.9, 0.999), weight_decay=args.weight_decay, fused=True
    )
    max_grad_norm = 0.0
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min", factor=0.5, patience=args.plateau_patience
    )
    schedule = {}
    scaler = make_scaler(device, args.amp)

    # Resume
    interrupt = Interrupt(processes, status, args)
    epoch, wait, history = 0, 0, []
    best = {"model": {"value": math.inf, "epoch": 0}}
    if args.resume:
        config.check_resumed(run, data.describe(), processes)
        state = processes.from_first(lambda: load_checkpoint(run / "last.pth", SCRIPT))
        restore(state, model=judged, optimizer=optimizer, scheduler=scheduler, scaler=scaler)
        epoch, wait, history, best = (state[key] for key in ("epoch", "wait", "history", "best"))
        if average:
            restore(state, trained=bare)
            # 0 copies the weights at the next step, as the first step of a run does, instead of averaging.
            average.n_averaged.fill_(min(1, state["epoch"] + state["step"]))
        interrupt.resume(state)
        if processes.first:
            config.record_resumed(run, args)

    # Record the run
    if processes.first and not args.resume:
        head = config.describe_run(SCRIPT, VERSION, __doc__, args, processes)
        model_section = config.describe_model(
            bare, "age regression", weights, 1, backbone=args.model, image_size=args.image_size,
            dropout=args.dropout, target_median=float(bare.target_median), target_sd=float(bare.target_sd),
        )  # fmt: skip
        training = config.describe_training(args, criterion, optimizer, scheduler, processes.world_size)
        training["scheduler_params"] |= schedule
        config.write_config(run, head, data.describe(), model_section, training, args, scheduler)
        write_json(run / "split.json", data.split)

    # Train
    check = LearningCheck(criterion, torch.from_numpy(train.ages), outputs=1)
    check.before_training(lambda chosen: train.__getitems__(chosen)["ages"])
    if args.overfit_one_batch:
        check.overfit_one_batch(bare, train, device, lambda model, batch: model(batch["images"]))
    trivial = [
        regression_metrics(val.ages, p)["mae"] for p in trivial_predictions(train.ages, len(val)).values()
    ]
    panels = [
        Panel("loss", f"loss ({type(criterion).__name__})", check.constant_loss, "best constant"),
        Panel("mae", f"MAE per image ({unit})", min(trivial), "mean or median"),
        Panel("subject_mae", f"MAE per subject ({unit})"),
        Panel("r2", "R2", 0.0, "mean"),
    ]
    LOG.info(to_beat(panels))
    if device.type == "cpu":
        LOG.info(f"on a CPU try first: python {SCRIPT} --epochs 24 --model resnet18 --image_size 96")

    def state_after(step: int = 0, totals: torch.Tensor | None = None, seconds: float = 0) -> dict[str, Any]:
        """What a checkpoint holds, `step` steps into the epoch after those in `history`."""
        state = {
            "script": SCRIPT, "epoch": len(history), "step": step, "totals": totals, "seconds": seconds,
            "model": judged.state_dict(), "threshold": None, "best": best, "wait": wait, "history": history,
            "args": vars(args), "target_unit": unit,
        }  # fmt: skip
        return state | {"trained": bare.state_dict()} if average else state

    interrupt.save = lambda *done: save_last(run, state_after(*done), optimizer, scheduler, scaler)
    while epoch < args.epochs and not (args.patience and wait >= args.patience):
        epoch, lr = epoch + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, interrupt, device, epoch,
            average=average, transform=partial(augment, args=args), amp=args.amp, max_grad_norm=max_grad_norm,
        )  # fmt: skip
        distributed.broadcast_buffers(judged)
        rows = evaluate(judged, loaders["val"], device, amp=args.amp)
        validated = measure(rows, criterion)
        scheduler.step(validated["mse"])
        row = epoch_row(epoch, lr, interrupt.seconds, interrupt.samples, trained, validated)
        history.append(row)

        improved = []
        if validated[SELECT_BY] < best["model"]["value"]:
            best["model"] = {"value": validated[SELECT_BY], "epoch": epoch}
            improved.append("model")
        wait = 0 if improved else wait + 1
        status.write(wait=wait)
        if processes.first:
            save_epoch(run, state_after(), improved, args.save_interval, optimizer, scheduler, scaler)
            if args.plot_interval and epoch % args.plot_interval == 0:
                plot_curves(history, panels, run / "training_curves.png", best["model"]["epoch"])
        shown = ("train_loss", "val_loss", "val_mae", "val_subject_mae", "val_r2")
        LOG.info(epoch_line(row, args.epochs, shown, best=bool(improved)))
        check.after_epoch(history, bare, rows["preds"])
    if args.patience and wait >= args.patience:
        LOG.info(f"stopped early: no better val {SELECT_BY.upper()} for {wait} epochs")

    # Test
    interrupt.end()
    chosen = processes.from_first(lambda: load_checkpoint(run / "best_model.pth", SCRIPT))
    judged.load_state_dict(chosen["model"])
    rows = {name: evaluate(judged, loaders[name], device, amp=args.amp) for name in loaders}
    if processes.first:
        save_checkpoint(run / "final.pth", load_checkpoint(run / "last.pth", SCRIPT))
        split = "test" if "test" in rows else "val"
        verdict, fields = report(run, split, rows[split], data, chosen, truncated=args.max_batches > 0)
        metrics = {name: measure(part, criterion) for name, part in rows.items()}
        metrics["test"] = metrics[split] | fields.pop("metrics")
        plot_curves(history, panels, run / "training_curves.png", chosen["epoch"], verdict)
        write_results(
            run, NAME, verdict, metrics=metrics, test_split=split, **fields, **epochs_and_time(args, history),
            threshold=None, best_epoch=chosen["epoch"], synthetic=data.synthetic,
        )  # fmt: skip
        status.end("finished", verdict.word)
    distributed.stop_processes()
    return verdict if processes.first else None


if __name__ == "__main__":
    run_script(main, ARGS)
