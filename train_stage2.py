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

from utils.run import arguments
from utils.run.errors import CommandError
from utils.run.script import open_run, run_script

SCRIPT, VERSION, NAME = "train_stage2.py", "1.0", "stage2"
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
    # fmt: off
    add = parser.add_argument_group("data").add_argument
    add("--data_path", help="JRDB folder with labels/ and images/; default: the built-in sample")
    add("--split_method", default="official", help="official, sorted70 or a JSON file of sequence names")
    add("--frame_stride", type=arguments.positive_int, default=1, help="use every Nth labelled frame")
    add("--multi_label", choices=["priority", "first", "drop"], default="priority",
        help="type of a pair with several labels")
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
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import train_stage1
from datasets.jrdb.augmentation import augment_pairs
from datasets.jrdb.dataset import PairDatasets, PairRules, load_pair_datasets
from datasets.jrdb.features import feature_names
from datasets.jrdb.labels import INTERACTION_CLASSES
from datasets.jrdb.pairs import balance_classes, class_weights
from datasets.samples import ensure_sample
from models.encoders import build_encoder
from models.pairs import TwoStageInteractionClassifier
from utils.metrics.classification import binary_metrics, choose_threshold, multiclass_metrics
from utils.metrics.references import reference_scores
from utils.plotting.classification import plot_class_distribution
from utils.plotting.curves import Panel, plot_curves, to_beat
from utils.report.classification import epochs_and_time, report_multiclass, write_results, write_table
from utils.run.find import find_checkpoint, list_runs
from utils.run.folder import is_finished, read_json, write_json
from utils.run.log import LOG, epoch_line, epoch_row, format_values
from utils.training import config, distributed
from utils.training.checkpoint import (
    check_names,
    load_checkpoint,
    restore,
    save_checkpoint,
    save_epoch,
    save_last,
)
from utils.training.device import autocast, make_scaler, move
from utils.training.interrupt import Interrupt
from utils.training.learning import LearningCheck, Verdict, check_finite, check_labels


class FocalLoss(nn.Module):
    """Cross-entropy times (1 - p of the true class)^gamma, one value per pair (Lin et al. 2017, eq. 5)."""

    def __init__(self, weight: torch.Tensor | None, gamma: float):
        super().__init__()
        self.cross_entropy, self.gamma = nn.CrossEntropyLoss(weight, reduction="none"), gamma

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        true = logits.softmax(dim=1).gather(1, labels[:, None]).squeeze(1)  # (N,)
        return (1 - true) ** self.gamma * self.cross_entropy(logits, labels)


def find_stage1(args: argparse.Namespace) -> Path:
    """The stage 1 checkpoint to start from. CommandError names candidates or the command that makes one."""
    if args.stage1_checkpoint:
        return find_checkpoint(args.stage1_checkpoint)
    if args.data_path:
        raise CommandError(
            "--stage1_checkpoint is required with --data_path\n"
            f"make one: python train_stage1.py --data_path {args.data_path}"
        )
    for run in reversed(list_runs(Path(args.output_dir))):
        results = read_json(run / "results.json") if (run / "results.json").is_file() else {}
        found = tuple(results.get(key) for key in ("task", "verdict", "synthetic"))
        if found == (train_stage1.NAME, "LEARNED", True):
            return find_checkpoint(run)
    raise CommandError(
        f"no LEARNED stage 1 run on the built-in sample under {args.output_dir}\n"
        "make one: python train_stage1.py --use_group_sampling"
    )


def adopt_stage1(args: argparse.Namespace, processes: distributed.Processes) -> dict[str, Any]:
    """Load the stage 1 checkpoint and take the flags of FROM_STAGE1 from it.

    Raises CommandError for a typed flag that differs, and for other features than this code has.
    """
    path = find_stage1(args)
    state = processes.from_first(lambda: load_checkpoint(path, train_stage1.SCRIPT))
    for name in FROM_STAGE1:
        typed, trained = getattr(args, name), state["args"][name]
        if typed is not None and typed != trained:
            raise CommandError(f"--{name} {typed}: {path} was trained with {trained}; leave the flag out")
        setattr(args, name, trained)
    args.stage1_checkpoint = str(path)
    check_names(path, state, **names_of(args))
    return state


def names_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """The lists of names that a checkpoint must agree on with this code."""
    return {"class_names": list(INTERACTION_CLASSES), "feature_names": feature_names(args.history_seconds)}


def build_datasets(args: argparse.Namespace) -> PairDatasets:
    """Interacting pairs of a known type; negatives are neither loaded nor decoded."""
    rules = PairRules(
        distance_multiplier=args.distance_multiplier, distance_norm=args.distance_norm,
        use_group_sampling=args.use_group_sampling, max_group_samples_ratio=args.max_group_samples_ratio,
        frame_stride=args.frame_stride, history_seconds=args.history_seconds, seed=args.seed,
    )  # fmt: skip
    return load_pair_datasets(
        args.data_path or ensure_sample("jrdb", "data/sample_jrdb", log=LOG.info),
        task="type",
        features=args.features,
        image_size=tuple(args.image_size),
        split_method=args.split_method,
        multi_label=args.multi_label,
        rules=rules,
        limit_gb=args.cache_limit_gb,
        log=LOG.info,
    )


def build_model(args: argparse.Namespace) -> tuple[TwoStageInteractionClassifier, dict[str, Any]]:
    """The model of the stage 1 run, its head frozen; --freeze_backbone: all but the head of stage 2."""
    encoder = None if args.features == "geometry" else build_encoder(args.backbone)
    inputs = 0 if args.features == "crops" else len(feature_names(args.history_seconds))
    model = TwoStageInteractionClassifier(encoder, inputs, dropout=args.dropout)
    model.train_stage(2, trunk=not args.freeze_backbone)
    return model, {"pretrained": True, "source": args.stage1_checkpoint}


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
    """Score every pair, once over all ranks: indices and labels (N,), logits and scores (N, 5)."""
    model.eval()
    batches = []
    for batch in loader:
        with autocast(device, amp):
            logits = model(move(batch, device), stage=2)
        batches.append(
            {"indices": batch["indices"], "labels": batch["labels"], "logits": logits.float().cpu()}
        )
    rows = distributed.gather_rows(batches)
    return rows | {"scores": softmax(rows["logits"].astype(float), axis=1)}


def measure_stage1(model: nn.Module, loader: DataLoader, device: torch.device, amp: bool) -> dict[str, float]:
    """Stage 1 of the same model on every val pair: AP, AUROC, F1 and the threshold it is best at."""
    rows = train_stage1.evaluate(model, loader, device, amp=amp)
    threshold = choose_threshold(rows["labels"], rows["scores"])
    found = binary_metrics(rows["labels"], rows["scores"], threshold)
    return {key: found[key] for key in ("ap", "auroc", "f1")} | {"threshold": threshold}


def measure(rows: dict[str, np.ndarray], criterion: nn.Module) -> dict[str, Any]:
    """Loss under `criterion` (in double precision), and the metrics of utils/metrics/."""
    losses = criterion(torch.from_numpy(rows["logits"]).double(), torch.from_numpy(rows["labels"]))
    return {
        "loss": float(losses.mean()),
        **multiclass_metrics(rows["labels"], rows["scores"], INTERACTION_CLASSES),
    }


def report(
    folder: Path,
    split: str,
    rows: dict[str, np.ndarray],
    data: PairDatasets,
    state: dict[str, Any],
    truncated: bool,
) -> tuple[Verdict, dict[str, Any]]:
    """Judge a split beside guessing and boosted trees on the geometry; write report, figures, predictions."""
    dataset = data.parts()[split]
    columns = {name: rows["scores"][:, k] for k, name in enumerate(INTERACTION_CLASSES)}
    notes = [f"stage 1 on val {when}: {format_values(v)}" for when, v in state["stage1_on_val"].items()]
    prediction = np.array(INTERACTION_CLASSES)[rows["scores"].argmax(axis=1)]
    write_table(
        folder / f"{split}_predictions.csv", dataset.pair_columns() | columns | {"prediction": prediction}
    )
    return report_multiclass(
        folder, split, f"{SCRIPT} on {split}", dataset.labels, rows["scores"], INTERACTION_CLASSES,
        references=reference_scores(*data.reference_pairs(), dataset.geometry, len(INTERACTION_CLASSES)),
        train_labels=data.reference_pairs()[1], groups=dataset.groups, fallback=dataset.frames,
        truncated=truncated, notes="\n".join(notes),
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
    stage1_state = None if args.resume else adopt_stage1(args, processes)
    names = names_of(args)
    run, status = open_run(args, f"{SCRIPT} {VERSION}", NAME, processes)
    LOG.info(f"starts from stage 1: {args.stage1_checkpoint}")

    # Data
    data = build_datasets(args)
    for name, part in data.parts().items():
        check_labels(part.labels, name, INTERACTION_CLASSES)
        LOG.info(f"{name}: {len(part.sequences)} sequences, {len(part)} pairs, {part.class_counts()}")
    LOG.info(f"split: {data.split_source}; {data.leakage_check}")
    if args.check_data:
        LOG.info("the data can be trained on")
        return None
    natural = data.train
    train = natural.select(balance_classes(natural.labels, args.stage2_balance_strategy, args.seed))
    LOG.info(f"train after {args.stage2_balance_strategy}: {len(train)} pairs, {train.class_counts()}")
    sampler = distributed.EpochSampler(len(train), args.batch_size, args.seed, processes, frames=train.frames)
    train_loader = distributed.make_loader(train, sampler, args.num_workers, device)
    loaders = {
        name: distributed.evaluation_loader(part, EVALUATION_BATCH, processes, args.num_workers)
        for name, part in data.parts().items()
        if name != "train"
    }
    stage1_val = data.with_task("val", "interaction")
    stage1_loader = distributed.evaluation_loader(stage1_val, EVALUATION_BATCH, processes, args.num_workers)

    # Model
    bare, source = build_model(args)
    if stage1_state is not None:
        bare.load_state_dict(stage1_state["model"])
    bare.to(device, memory_format=torch.channels_last)
    model = DistributedDataParallel(bare) if processes.world_size > 1 else bare
    trainable = [p for p in bare.parameters() if p.requires_grad]
    LOG.info(f"model: {args.features}, {sum(p.numel() for p in trainable)} trainable parameters")

    # Optimisation
    weights = None
    if args.use_class_weights:
        weights = class_weights(train.labels, len(INTERACTION_CLASSES))
        LOG.info(
            "class weights: " + format_values(dict(zip(INTERACTION_CLASSES, weights.tolist(), strict=True)))
        )
        weights = torch.from_numpy(weights).float().to(device)
    if args.loss == "focal":
        criterion = FocalLoss(weights, args.focal_gamma)
    else:
        criterion = nn.CrossEntropyLoss(weights, reduction="none")
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
    scaler = make_scaler(device, args.amp)

    # Resume
    interrupt = Interrupt(processes, status, args)
    epoch, wait, history = 0, 0, []
    worst = {"accuracy": -math.inf, "loss": math.inf, "f1": -math.inf}
    best = {name: {"value": value, "epoch": 0} for name, value in worst.items()}
    if args.resume:
        config.check_resumed(run, data.describe(), processes)
        state = processes.from_first(lambda: load_checkpoint(run / "last.pth", SCRIPT, **names))
        restore(state, model=bare, optimizer=optimizer, scheduler=scheduler, scaler=scaler)
        epoch, wait, history, best = (state[key] for key in ("epoch", "wait", "history", "best"))
        best["loss"]["value"] = abs(best["loss"]["value"])  # earlier versions kept minus the loss
        stage1_before, stage1_now = (state["stage1_on_val"][when] for when in ("before", "after"))
        interrupt.resume(state)
        if processes.first:
            config.record_resumed(run, args)
    else:
        stage1_before = stage1_now = measure_stage1(bare, stage1_loader, device, args.amp)
    LOG.info("stage 1 on val before: " + format_values(stage1_before))

    # Record the run
    if processes.first and not args.resume:
        head = config.describe_run(SCRIPT, VERSION, __doc__, args, processes)
        model_section = config.describe_model(
            bare, "interaction type", source, len(INTERACTION_CLASSES), features=args.features,
            backbone=args.backbone, image_size=args.image_size, **names,
        )  # fmt: skip
        training = config.describe_training(args, criterion, optimizer, scheduler, processes.world_size)
        training["class_counts_after_balancing"] = train.class_counts()
        training["class_weights"] = None if weights is None else weights.tolist()
        config.write_config(run, head, data.describe(), model_section, training, args, scheduler)
        write_json(run / "split.json", data.split)
        plot_class_distribution(natural.class_counts(), train.class_counts(), run / "class_distribution.png")

    # Train
    check = LearningCheck(criterion, torch.from_numpy(train.labels), outputs=len(INTERACTION_CLASSES))
    check.before_training(lambda chosen: train.__getitems__(chosen)["labels"])
    if args.overfit_one_batch:
        check.overfit_one_batch(bare, train, device, lambda model, batch: model(batch, stage=2))
    panels = [
        Panel("loss", "loss", check.constant_loss, "best constant"),
        Panel("macro_f1", "macro F1"),
        Panel("accuracy", "accuracy", np.bincount(data.val.labels).max() / len(data.val), "majority class"),
        Panel("balanced_accuracy", "balanced accuracy", 1 / len(np.unique(data.val.labels)), "chance"),
        Panel("stage1_ap", "average precision of stage 1", stage1_before["ap"], "before stage 2"),
    ]
    LOG.info(to_beat(panels))

    def state_after(step: int = 0, totals: torch.Tensor | None = None, seconds: float = 0) -> dict[str, Any]:
        """What a checkpoint holds, `step` steps into the epoch after those in `history`."""
        return {
            "script": SCRIPT, "epoch": len(history), "step": step, "totals": totals, "seconds": seconds,
            "model": bare.state_dict(), "threshold": stage1_now["threshold"], "best": best, "wait": wait,
            "history": history, "stage1_on_val": {"before": stage1_before, "after": stage1_now},
            "args": vars(args), **names,
        }  # fmt: skip

    interrupt.save = lambda *done: save_last(run, state_after(*done), optimizer, scheduler, scaler)
    while epoch < args.epochs and not (args.patience and wait >= args.patience):
        epoch, lr = epoch + 1, optimizer.param_groups[0]["lr"]
        trained = train_one_epoch(
            model, train_loader, criterion, optimizer, scaler, interrupt, device, epoch,
            augmented=args.augment, amp=args.amp, max_grad_norm=args.max_grad_norm,
        )  # fmt: skip
        distributed.broadcast_buffers(bare)
        rows = evaluate(bare, loaders["val"], device, amp=args.amp)
        validated = measure(rows, check.criterion)
        stage1_now = measure_stage1(bare, stage1_loader, device, args.amp)
        scheduler.step()
        del validated["per_class"]
        validated |= {f"stage1_{key}": value for key, value in stage1_now.items()}
        row = epoch_row(epoch, lr, interrupt.seconds, interrupt.samples, trained, validated)
        history.append(row)

        improved = []
        for name, key, sign in ("accuracy", "accuracy", 1), ("loss", "loss", -1), ("f1", "macro_f1", 1):
            if sign * validated[key] > sign * best[name]["value"]:
                best[name] = {"value": validated[key], "epoch": epoch}
                improved.append(name)
        wait = 0 if "f1" in improved else wait + 1
        status.write(wait=wait)
        if processes.first:
            save_epoch(run, state_after(), improved, args.save_interval, optimizer, scheduler, scaler)
            if args.plot_interval and epoch % args.plot_interval == 0:
                plot_curves(history, panels, run / "training_curves.png", best["f1"]["epoch"])
        shown = ("train_loss", "val_loss", "val_macro_f1", "val_balanced_accuracy", "val_stage1_ap")
        LOG.info(epoch_line(row, args.epochs, shown, best="f1" in improved))
        check.after_epoch(history, bare, rows["logits"])
    if args.patience and wait >= args.patience:
        LOG.info(f"stopped early: no better val macro F1 for {wait} epochs")

    # Test
    interrupt.end()
    chosen = processes.from_first(lambda: load_checkpoint(run / "best_f1.pth", SCRIPT, **names))
    bare.load_state_dict(chosen["model"])
    rows = {name: evaluate(bare, loaders[name], device, amp=args.amp) for name in loaders}
    if processes.first:
        save_checkpoint(run / "final.pth", load_checkpoint(run / "last.pth", SCRIPT))
        split = "test" if "test" in rows else "val"
        verdict, fields = report(run, split, rows[split], data, chosen, truncated=args.max_batches > 0)
        metrics = {name: measure(part, check.criterion) for name, part in rows.items()}
        metrics["test"] = metrics[split] | fields.pop("metrics")
        plot_curves(history, panels, run / "training_curves.png", chosen["epoch"], verdict)
        LOG.info("stage 1 on val after: " + format_values(chosen["stage1_on_val"]["after"]))
        write_results(
            run, NAME, verdict, metrics=metrics, test_split=split, **fields, **epochs_and_time(args, history),
            threshold=chosen["threshold"], best_epoch=chosen["epoch"], synthetic=data.synthetic,
            stage1_on_val=chosen["stage1_on_val"],
        )  # fmt: skip
        status.end("finished", verdict.word)
    distributed.stop_processes()
    return verdict if processes.first else None


if __name__ == "__main__":
    run_script(main, ARGS)
