"""The five training scripts as the benchmarks run them: all that these know of the scripts' signatures."""

import argparse
import importlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets.ultrasound.augmentation import augment_images
from utils.run.log import start_log
from utils.run.status import Status
from utils.training import distributed
from utils.training.device import make_scaler
from utils.training.interrupt import Interrupt
from utils.training.run import Run

SCRIPTS = ("train_stage1", "train_stage2", "train_mae", "train_ddp", "train_anomaly_with_labels")
# Minutes instead of hours on a CPU; above 128 pixels a slow loader hides behind the convolutions.
SMALL = {"train_mae": ["--model", "resnet18", "--image_size", "96"]}
SMALL["train_ddp"] = SMALL["train_mae"]


@dataclass
class Batches:
    """Other batches of a data set in the place of its loader."""

    batches: Iterable[dict[str, torch.Tensor]]
    dataset: Any
    batch_sampler: distributed.EpochSampler

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return iter(self.batches)


@dataclass
class Training:
    """One script, ready to train: everything its main() builds before the first epoch."""

    script: ModuleType
    args: argparse.Namespace
    data: Any
    train: Any
    loader: DataLoader
    model: nn.Module
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    interrupt: Interrupt
    device: torch.device
    augmentation: dict[str, Any]  # how train_one_epoch is told to augment

    @property
    def sampler(self) -> distributed.EpochSampler:
        return self.loader.batch_sampler

    def epoch(self, batches: Iterable | None = None, epoch: int = 1, steps: int = 0) -> dict[str, float]:
        """The script's own train_one_epoch on `batches` (its loader's), cut after `steps` (0 = never)."""
        self.interrupt.max_batches = steps
        loader = self.loader if batches is None else Batches(batches, self.train, self.sampler)
        train = self.script.train_one_epoch
        flags = [name for name in inspect.getfullargspec(train).kwonlyargs if hasattr(self.args, name)]
        return train(
            self.model, loader, self.criterion, self.optimizer, self.scaler, self.interrupt,
            self.device, epoch, **self.augmentation, **{name: getattr(self.args, name) for name in flags},
        )  # fmt: skip


def prepare(name: str, argv: list[str] | None = None) -> Training:
    """What the script builds for `argv` (default: SMALL, on the CPU) before its first epoch."""
    start_log(None, quiet=True)  # what this run says belongs to no folder
    script = importlib.import_module(name)
    args = script.parse_args(["--device", "cpu", *(SMALL.get(name, []) if argv is None else argv)])
    if name == "train_stage2":  # the flags a stage 1 run would hand over; its weights do not change the time
        stage1 = importlib.import_module("train_stage1").parse_args([])
        for flag in script.FROM_STAGE1:
            if getattr(args, flag) is None:
                setattr(args, flag, getattr(stage1, flag))
    processes = distributed.start_processes(args.device)
    distributed.seed_everything(args.seed)
    status = Status(Path(), args.epochs, args.patience, enabled=False)
    run = Run(args, script.SCRIPT, script.VERSION, "", Path(), status, processes)
    data = script.build_datasets(args)
    train = data.train
    if name == "train_stage2":
        train = train.select(script.balance_classes(train.labels, args.stage2_balance_strategy, args.seed))
    model, _ = script.build_model(args)
    if name.startswith("train_stage") and args.features != "crops":
        model.trunk.geometry.fit(torch.from_numpy(data.reference_pairs()[0]))
    if hasattr(model, "fit"):
        model.fit(torch.from_numpy(train.ages))
    placed = run.place(model)
    labels = [train.labels] if name in ("train_stage2", "train_anomaly_with_labels") else []
    criterion, optimizer, _ = script.build_recipe(args, model, *labels)
    augmentation = {"augmented": getattr(args, "augment", True)}
    if hasattr(args, "rotation"):  # the age scripts
        settings = {key: getattr(args, key) for key in ("seed", "rotation", "jitter", "flip")}
        augmentation = {"transform": partial(augment_images, **settings)}
    return Training(
        script, args, data, train, run.loaders(data, train, script.EVALUATION_BATCH)[0], placed, criterion,
        optimizer, make_scaler(run.device, args.amp), Interrupt(processes, status, args), run.device,
        augmentation,
    )  # fmt: skip
