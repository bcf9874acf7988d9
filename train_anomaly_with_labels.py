"""AnoVox: is there an anomaly in this frame of camera and LiDAR?

    python train_anomaly_with_labels.py                                  on the built-in sample
    python train_anomaly_with_labels.py --data_path AnoVox --image_size 512 768 --max_points 4096
    torchrun --nproc_per_node=2 train_anomaly_with_labels.py             several processes or GPUs
    python train_anomaly_with_labels.py --size full --modality camera    one of the five runs of the ablation
    python train_anomaly_with_labels.py --resume checkpoints/anomaly_experiment_...
    python train_anomaly_with_labels.py --config RUN/config.json         repeat a run bit for bit

Labels come from the semantic ground truth of each frame; a frame without it is left out and counted. Splits
are by scenario. A run ends LEARNED only when its AUROC on scenarios it has not seen beats chance, and a
logistic regression on colours, point counts and weather, with 95% confidence.
"""

import argparse
import math
from pathlib import Path
from typing import Any

from models.backbones import BACKBONES
from utils.run import arguments
from utils.run.script import open_run, run_script

SCRIPT, VERSION, NAME = "train_anomaly_with_labels.py", "1.0", "anomaly"
EVALUATION_BATCH = 16  # frames per evaluation batch


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The flags of the anomaly task; the run-level ones are in utils/run/arguments.py."""
    parser = arguments.ScriptParser(SCRIPT, __doc__)
    switch = argparse.BooleanOptionalAction
    # fmt: off
    add = parser.add_argument_group("data").add_argument
    add("--data_path", help="folder of AnoVox archives or scenarios; default: the built-in sample")
    add("--size", choices=["tiny", "small", "full", "native"], default="small", help="size of the sample")
    add("--label", choices=["visible", "scenario", "voxel"], default="visible",
        help="what makes a frame an anomaly: seen by a sensor, named by its scenario, or in its voxels")
    add("--min_pixels", type=arguments.positive_float, default=20, help="pixels to be visible, at 768x512")
    add("--min_points", type=arguments.positive_int, default=3, help="LiDAR points to be visible")
    add("--camera", help="part of the name of the camera to use; default: the front camera")
    add("--split_method", default="auto", help="auto (the data's split.json, else random), random or a file")
    add("--test_size", type=arguments.fraction, default=0.2, help="share of the scenarios (random split)")
    add("--val_size", type=arguments.fraction, default=0.2, help="share of the scenarios that test leaves")
    add("--holdout_towns", nargs="+", metavar="TOWN", help="towns whose scenarios are the test split")
    add("--image_size", action=arguments.ImageSize, default=[128, 192], help="image in pixels")
    add("--max_points", type=arguments.positive_int, default=1024, help="points per frame; real scans: 4096")
    add = parser.add_argument_group("model").add_argument
    add("--image_encoder", choices=BACKBONES, default="cnn",
        help="cnn: 32-64-128 channels, trained from nothing; else see models/encoders.py")
    add("--weights", default="none", help="of the image encoder: none, imagenet, a file or a run folder")
    add("--freeze_encoder", action=switch, default=False, help="do not train the image encoder")
    add("--fusion", choices=["attention", "concat"], default="attention", help="how the sensors meet")
    add("--modality", choices=["both", "camera", "lidar"], default="both", help="sensors the model is given")
    add("--position_code", action=switch, default=True, help="tie points to the pixels they fall on")
    add("--dropout", type=arguments.fraction, default=0.3, help="dropout in the head")
    add = parser.add_argument_group("recipe").add_argument
    add("--loss", choices=["bce", "focal"], default="bce", help="binary cross-entropy, or focal with gamma 2")
    add("--pos_weight", type=pos_weight, default="auto",
        help="weight of anomalies: auto (normal / anomalous frames) or a number")
    add("--location_weight", type=arguments.non_negative_float, default=0.1,
        help="weight of the loss of where the anomaly is; 0 = learn from frame labels alone")
    add("--scheduler", choices=["cosine", "none"], default="cosine", help="learning rate schedule")
    add("--max_grad_norm", type=arguments.non_negative_float, default=1.0,
        help="clip the gradient norm; 0 = off")
    add("--augment", action=switch, default=True, help="in training, mirror frames and jitter brightness")
    add("--threshold_rule", choices=["f1", "fpr"], default="f1",
        help="the alarm threshold on val: best F1, or --target_fpr")
    add("--target_fpr", type=arguments.fraction, default=0.05, help="share of normal frames that may alarm")
    # fmt: on
    arguments.add_run_arguments(
        parser, epochs=30, batch_size=8, learning_rate=1e-3, weight_decay=0.0, patience=10
    )
    args = arguments.parse_arguments(parser, argv)
    if not args.resume:
        check_encoder_flags(parser, args)
    return args


def check_encoder_flags(parser: arguments.ScriptParser, args: argparse.Namespace) -> None:
    """End through parser.error where --weights would load nothing or --freeze_encoder keep random weights."""
    given = f"--weights {args.weights}"
    if args.weights != "none" and args.modality == "lidar":
        parser.error(f"{given}: --modality lidar has no image encoder; leave one of them out")
    if args.weights != "none" and args.image_encoder == "cnn":
        parser.error(f"{given}: the encoder cnn starts from nothing; add --image_encoder resnet18")
    if args.freeze_encoder and args.weights == "none":
        remedy = "add --image_encoder resnet18 --weights imagenet"
        parser.error(f"--freeze_encoder: there are no weights to keep; {remedy}")


def pos_weight(text: str) -> str:
    """'auto' or a number above 0, kept as text so that config.json shows what was asked for."""
    if text != "auto":
        arguments.positive_float(text)
    return text


if __name__ == "__main__":
    ARGS = parse_args()  # before the heavy imports: --help and a mistyped flag answer at once

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from datasets.anovox.augmentation import augment_frames, corrupt_frames
from datasets.anovox.dataset import CLASSES, AnoVoxData, load_anovox, localisation_ap, trivial_features
from datasets.samples import ensure_sample
from models.anomaly import AnomalyDetectionModel, explain
from models.encoders import build_encoder, freeze, load_weights
from utils.metrics.classification import binary_metrics
from utils.metrics.detection import choose_alarm_threshold, detection_metrics, fit_temperature, sigmoid
from utils.plotting.curves import Panel, plot_curves, to_beat
from utils.report.anomaly import report_anomaly
from utils.report.classification import epochs_and_time, write_results
from utils.run.folder import is_finished, write_json
from utils.run.log import LOG, epoch_line, epoch_row
from utils.training import config, distributed
from utils.training.checkpoint import load_checkpoint, restore, save_checkpoint, save_epoch, save_last
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, Verdict, check_finite, check_labels

INPUTS = ("images", "points", "point_mask", "point_pixels")


def build_datasets(args: argparse.Namespace) -> AnoVoxData:
    """Train, val and test as the flags say."""
    sample = "data/sample_anovox" + ("" if args.size == "small" else f"_{args.size}")
    return load_anovox(
        args.data_path or ensure_sample("anovox", sample, args.size, log=LOG.info),
        label=args.label,
        min_pixels=args.min_pixels,
        min_points=args.min_points,
        camera=args.camera,
        modality=args.modality,
        split_method=args.split_method,
        test_size=args.test_size,
        val_size=args.val_size,
        seed=args.seed,
        holdout_towns=args.holdout_towns,
        image_size=tuple(args.image_size),
        max_points=args.max_points,
        limit_gb=args.cache_limit_gb,
        log=LOG.info,
    )


def build_model(args: argparse.Namespace) -> tuple[AnomalyDetectionModel, dict[str, Any]]:
    """The model, and where the image encoder's weights come from."""
    encoder, weights = None, {"pretrained": False, "source": "none"}
    if args.image_encoder != "cnn" and args.modality != "lidar":
        encoder = build_encoder(args.image_encoder)
        weights = load_weights(encoder, args.weights)
        if args.freeze_encoder:
            freeze(encoder)
    model = AnomalyDetectionModel(encoder, args.fusion, args.modality, args.position_code, args.dropout)
    return model, weights


class AnomalyLoss(nn.Module):
    """Binary cross-entropy per frame from logits (N,) and labels (N,); anomalies count `weight` times.

    gamma > 0 gives the focal loss (Lin et al. 2017): a frame counts by (1 - probability of its label) **
    gamma. Without their alpha = .25, which would count the rare class less.
    """

    def __init__(self, weight: float, gamma: float = 0.0):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("pos_weight", torch.tensor(weight))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = labels.to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.pos_weight.to(logits.dtype), reduction="none"
        )
        if self.gamma > 0:
            wrong = torch.sigmoid(torch.where(labels == 1, -logits, logits))
            losses = wrong**self.gamma * losses
        return losses


def location_loss(cells: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy summed over the cells (N, rows, columns) of each frame, (N,); NaN in truth: unknown, 0.

    A frame label says that something is wrong, not what: hundreds of frames are too few to find out by
    itself. The semantic images that the labels come from say where.
    """
    known = torch.isfinite(truth)
    losses = F.binary_cross_entropy_with_logits(cells, torch.where(known, truth, 0.0), reduction="none")
    return torch.where(known, losses, 0.0).sum(dim=(1, 2))


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
    location_weight: float = 0.0,
    max_grad_norm: float = 0.0,
) -> dict[str, float]:
    """One pass over the train split. Returns its means over all samples of all ranks.

    The loss is that of the frame labels; beside it accuracy, mean score and location loss.
    Raises NonFiniteError before a step would carry a NaN or infinite loss or gradient into the weights.
    """
    model.train()
    sampler = loader.batch_sampler
    trainable = [p for p in model.parameters() if p.requires_grad]
    totals = torch.zeros(5, dtype=torch.float64, device=device)  # loss, correct, scores, located, samples
    for step, batch in interrupt.steps(loader, epoch, totals):
        distributed.seed_everything(sampler.seed, epoch, step, sampler.rank)
        weight = sampler.part(step)[1]  # world size / samples in the global batch
        if augmented:
            batch = augment_frames(batch, sampler.seed, epoch, device)
        batch = move(batch, device)
        with autocast(device, amp):
            logits, cells = model(*(batch[name] for name in INPUTS))  # (N,), (N, rows, columns)
        losses = criterion(logits.float(), batch["labels"])  # (N,)
        located = location_loss(cells.float(), batch["cells"])  # (N,)
        loss = (losses + location_weight * located).sum() * weight
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        grad_norm = nn.utils.clip_grad_norm_(trainable, max_grad_norm or math.inf)
        check_finite(loss, grad_norm, scaler, f"epoch {epoch} step {step + 1}", batch["indices"])
        scaler.step(optimizer)
        scaler.update()
        if weight > 0:  # a rank left with nothing computes one sample that must not count
            logits = logits.detach().float()
            correct = ((logits >= 0) == (batch["labels"] == 1)).sum()
            count = torch.tensor(len(losses), device=device)
            parts = losses.detach().sum(), correct, torch.sigmoid(logits).sum(), located.detach().sum(), count
            totals += torch.stack(parts)
    *sums, count = distributed.sum_over_ranks(totals).tolist()
    names = ("loss", "accuracy", "mean_score", "location_loss")
    return {name: value / count for name, value in zip(names, sums, strict=True)}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: DataLoader,
    device: torch.device,
    *,
    amp: bool = False,
    corruption: str | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Score every frame, once over all ranks: indices, labels, logits (N,).

    `corruption`: one of datasets.anovox.augmentation.CORRUPTIONS, how a sensor fails.
    """
    model.eval()
    batches = []
    for batch in loader:
        if corruption:
            batch = corrupt_frames(batch, corruption, seed)
        moved = move(batch, device)
        with autocast(device, amp):
            logits, _ = model(*(moved[name] for name in INPUTS))
        batches.append(
            {"indices": batch["indices"], "labels": batch["labels"], "logits": logits.float().cpu()}
        )
    return distributed.gather_rows(batches)


def measure(
    rows: dict[str, np.ndarray],
    scenarios: np.ndarray,
    criterion: nn.Module,
    threshold: float,
    temperature: float,
) -> dict[str, float | None]:
    """Loss of the logits; metrics of utils/metrics/ of the calibrated scores."""
    losses = criterion(torch.from_numpy(rows["logits"]), torch.from_numpy(rows["labels"]))
    labels, scores = rows["labels"], sigmoid(rows["logits"] / temperature)
    return {
        "loss": float(losses.mean()),
        **binary_metrics(labels, scores, threshold),
        **detection_metrics(labels, scores, scenarios),
    }


def report(
    folder: Path,
    split: str,
    rows: dict[str, np.ndarray],
    data: AnoVoxData,
    state: dict[str, Any],
    truncated: bool,
) -> tuple[Verdict, dict[str, Any]]:
    """Judge a split beside chance and trivial features; write report, figures, predictions."""
    dataset = data.parts()[split]
    model, _ = build_model(argparse.Namespace(**state["args"] | {"weights": "none"}))
    model.load_state_dict(state["model"])
    located = localisation_ap(dataset, lambda batch: explain(model, *(batch[name] for name in INPUTS)))
    scores = sigmoid(rows["logits"] / state["temperature"])
    parts = {"train": data.train, "val": data.val, "here": dataset}
    known = ("frame_id", "category", "size", "visibility", "distance")
    return report_anomaly(
        folder, split, f"{SCRIPT} on {split}", rows | {"scores": scores},
        {"scenario": dataset.names(), **{name: dataset.column(name) for name in known}},
        {name: (trivial_features(part), part.labels) for name, part in parts.items()},
        data.val.labels, CLASSES, state["threshold"], located=located,
        truncated=truncated,
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
    train, val = data.train, data.val
    for note in train.table.notes:
        LOG.info(note)
    for name, part in data.parts().items():
        check_labels(part.labels, name, CLASSES)
        anomalous = int(part.labels.sum())
        LOG.info(f"{name}: {len(data.split[name])} scenarios, {len(part)} frames, {anomalous} anomalous")
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
    bare.to(device, memory_format=torch.channels_last)
    model = DistributedDataParallel(bare) if processes.world_size > 1 else bare
    trainable = [p for p in bare.parameters() if p.requires_grad]
    LOG.info(
        f"model: {args.modality}, {args.fusion}, {sum(p.numel() for p in trainable)} trainable parameters, "
        f"{weights}"
    )

    # Optimisation
    share = float(train.labels.mean())
    weight = (1 - share) / share if args.pos_weight == "auto" else float(args.pos_weight)
    criterion = AnomalyLoss(weight, gamma=2.0 if args.loss == "focal" else 0.0).to(device)
    optimizer = torch.optim.Adam(trainable, lr=args.learning_rate, weight_decay=args.weight_decay, fused=True)
    if args.scheduler == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    scaler = make_scaler(device, args.amp)

    # Resume
    interrupt = Interrupt(processes, status, args)
    epoch, wait, history, threshold, temperature = 0, 0, [], None, None
    names = {"class_names": list(CLASSES)}
    best = {"auroc": {"value": -math.inf, "epoch": 0}}
    if args.resume:
        config.check_resumed(run, data.describe(), processes)
        state = processes.from_first(lambda: load_checkpoint(run / "last.pth", SCRIPT, **names))
        restore(state, model=bare, optimizer=optimizer, scheduler=scheduler, scaler=scaler)
        epoch, wait, history, best = (state[key] for key in ("epoch", "wait", "history", "best"))
        threshold, temperature = state["threshold"], state["temperature"]
        interrupt.resume(state)
        if processes.first:
            config.record_resumed(run, args)

    # Record the run
    if processes.first and not args.resume:
        head = config.describe_run(SCRIPT, VERSION, __doc__, args, processes)
        model_section = config.describe_model(
            bare, "frame classification", weights, 1, image_encoder=args.image_encoder, fusion=args.fusion,
            modality=args.modality, position_code=args.position_code, image_size=args.image_size,
            max_points=args.max_points, **names,
        )  # fmt: skip
        training = config.describe_training(args, criterion, optimizer, scheduler, processes.world_size)
        training |= {"pos_weight": weight, "focal_gamma": criterion.gamma}
        config.write_config(run, head, data.describe(), model_section, training, args, scheduler)
        write_json(run / "split.json", data.split)

    # Train
    check = LearningCheck(criterion, torch.from_numpy(train.labels), outputs=1)
    check.before_training(lambda chosen: train.__getitems__(chosen)["labels"])
    if args.overfit_one_batch:
        check.overfit_one_batch(
            bare, train, device, lambda model, batch: model(*(batch[name] for name in INPUTS))[0]
        )
    panels = [
        Panel("loss", "loss", check.constant_loss, "best constant"),
        Panel("auroc", "AUROC", 0.5, "chance"),
        Panel("ap", "average precision", float(val.labels.mean()), "share of anomalies"),
        Panel("fpr95", "false positive rate at 95% recall", 0.95, "chance"),
        Panel("mean_score", "mean score", float(val.labels.mean()), "share of anomalies"),
    ]
    LOG.info(to_beat(panels))

    def state_after(step: int = 0, totals: Tensor | None = None, seconds: float = 0) -> dict[str, Any]:
        """What a checkpoint holds, `step` steps into the epoch after those in `history`."""
        return {
            "script": SCRIPT, "epoch": len(history), "step": step, "totals": totals, "seconds": seconds,
            "model": bare.state_dict(), "threshold": threshold, "temperature": temperature, "best": best,
            "wait": wait, "history": history, "args": vars(args), **names,
        }  # fmt: skip

    interrupt.save = lambda *done: save_last(run, state_after(*done), optimizer, scheduler, scaler)
    while epoch < args.epochs and not (args.patience and wait >= args.patience):
        epoch, lr = epoch + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, interrupt, device, epoch,
            augmented=args.augment, amp=args.amp, location_weight=args.location_weight,
            max_grad_norm=args.max_grad_norm,
        )  # fmt: skip
        distributed.broadcast_buffers(bare)
        rows = evaluate(bare, loaders["val"], device, amp=args.amp)
        temperature = fit_temperature(rows["labels"], rows["logits"])
        scores = sigmoid(rows["logits"] / temperature)
        threshold = choose_alarm_threshold(rows["labels"], scores, args.threshold_rule, args.target_fpr)
        validated = measure(rows, val.scenario, check.criterion, threshold, temperature)
        scheduler.step()
        row = epoch_row(epoch, lr, interrupt.seconds, interrupt.samples, trained, validated)
        history.append(row)

        improved = []
        if validated["auroc"] > best["auroc"]["value"]:
            best["auroc"] = {"value": validated["auroc"], "epoch": epoch}
            improved.append("auroc")
        wait = 0 if improved else wait + 1
        status.write(wait=wait)
        if processes.first:
            save_epoch(run, state_after(), improved, args.save_interval, optimizer, scheduler, scaler)
            if args.plot_interval and epoch % args.plot_interval == 0:
                plot_curves(history, panels, run / "training_curves.png", best["auroc"]["epoch"])
        shown = ("loss", "accuracy", "mean_score", "auroc", "ap", "fpr95")
        shown = ("train_loss", *(f"val_{name}" for name in shown))
        LOG.info(epoch_line(row, args.epochs, shown, best=bool(improved)))
        check.after_epoch(history, bare, rows["logits"])
    if args.patience and wait >= args.patience:
        LOG.info(f"stopped early: no better val AUROC for {wait} epochs")

    # Test
    interrupt.end()
    chosen = processes.from_first(lambda: load_checkpoint(run / "best_auroc.pth", SCRIPT))
    bare.load_state_dict(chosen["model"])
    rows = {name: evaluate(bare, loaders[name], device, amp=args.amp) for name in loaders}
    if processes.first:
        save_checkpoint(run / "final.pth", load_checkpoint(run / "last.pth", SCRIPT))
        split = "test" if "test" in rows else "val"
        threshold, temperature = chosen["threshold"], chosen["temperature"]
        verdict, fields = report(run, split, rows[split], data, chosen, truncated=args.max_batches > 0)
        metrics = {
            name: measure(part, data.parts()[name].scenario, check.criterion, threshold, temperature)
            for name, part in rows.items()
        }
        metrics["test"] = metrics[split] | fields.pop("metrics")
        plot_curves(history, panels, run / "training_curves.png", chosen["epoch"], verdict)
        write_results(
            run, NAME, verdict, metrics=metrics, test_split=split, **fields, **epochs_and_time(args, history),
            threshold=threshold, best_epoch=chosen["epoch"], synthetic=data.synthetic,
            temperature=temperature,
        )  # fmt: skip
        status.end("finished", verdict.word)
    distributed.stop_processes()
    return verdict if processes.first else None


if __name__ == "__main__":
    run_script(main, ARGS)
