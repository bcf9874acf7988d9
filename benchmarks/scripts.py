"""The five training scripts ready to train, as their own main() makes them."""

import contextlib
import importlib
import io
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch.utils.data import DataLoader

SCRIPTS = ("train_stage1", "train_stage2", "train_mae", "train_ddp", "train_anomaly_with_labels")
# Minutes instead of hours on a CPU; above 128 pixels a slow loader hides behind the convolutions.
SMALL = {"train_mae": ["--model", "resnet18", "--image_size", "96"]}
SMALL["train_ddp"] = SMALL["train_mae"]


class Batches:
    """Other batches in the place of a loader, or its own; `waited`: the seconds that they have taken."""

    def __init__(self, batches: Iterable[dict[str, torch.Tensor]], loader: DataLoader):
        self.batches, self.waited = batches, 0.0
        self.dataset, self.batch_sampler = loader.dataset, loader.batch_sampler

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        batches, batch = iter(self.batches), {}
        while batch is not None:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is not None:
                yield batch


class Training:
    """One script before its first epoch: the data that main() has built, and how it calls train_one_epoch."""

    def __init__(self, script: ModuleType, args: Namespace, data: Any, call: Sequence, options: dict):
        self.script, self.args, self.data, self.call, self.options = script, args, data, call, options
        self.model, self.loader, _, self.optimizer, _, self.interrupt, self.device = call
        self.train, self.sampler = self.loader.dataset, self.loader.batch_sampler

    def epoch(self, loader: Batches | None = None, epoch: int = 1, steps: int = 0) -> dict[str, float]:
        """The script's own train_one_epoch on a loader (its own), cut after `steps` (0 = never)."""
        self.interrupt.max_batches = steps
        call = [self.model, loader or self.loader, *self.call[2:]]
        return self.script.train_one_epoch(*call, epoch, **self.options)


def prepare(name: str, argv: Sequence[str] | None = None) -> Training:
    """What main() has made of `argv` (default: SMALL, on the CPU) when its first epoch begins."""
    script, built, begun = importlib.import_module(name), [], RuntimeError("the first epoch begins")
    flags = SMALL.get(name, []) if argv is None else argv

    def adopt(args: Namespace, flags: Iterable[str], names_of: Any) -> None:
        """Of a stage 1 run its flags alone: weights do not change the time."""
        defaults = vars(importlib.import_module("train_stage1").parse_args([]))
        vars(args).update({flag: defaults[flag] for flag in flags if getattr(args, flag) is None})

    def build(args: Namespace, build: Any = script.build_datasets) -> Any:
        built.append(build(args))
        return built[0]

    with (
        mock.patch.multiple(script, train_one_epoch=mock.Mock(side_effect=begun), build_datasets=build),
        mock.patch.object(script, "adopt_stage1", adopt, create=True),
        mock.patch.object(script.LearningCheck, "before_training"),
        contextlib.redirect_stdout(io.StringIO()),  # its log
        tempfile.TemporaryDirectory() as folder,
    ):
        args = script.parse_args(["--device", "cpu", *flags, "--output_dir", folder])
        try:
            script.main(args)
        except RuntimeError as error:
            if error is not begun:
                raise
        (*call, _), options = script.train_one_epoch.call_args
    training = Training(script, args, built[0], call, options)
    training.interrupt.status.enabled = False  # its folder is gone
    return training
