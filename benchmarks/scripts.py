"""The five training scripts, prepared up to their first epoch by their own main()."""

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
# Takes minutes instead of hours on a CPU; above 128 pixels convolutions would hide a slow loader.
SMALL = {"train_mae": ["--model", "resnet18", "--image_size", "96"]}
SMALL["train_ddp"] = SMALL["train_mae"]


class Batches:
    """Stands in for `loader` with other batches, or its own; `waited`: seconds spent waiting for them."""

    def __init__(self, batches: Iterable[dict[str, torch.Tensor]], loader: DataLoader):
        self.batches, self.waited = batches, 0.0
        self.dataset, self.batch_sampler = loader.dataset, loader.batch_sampler

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        started = time.perf_counter()
        for batch in self.batches:
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


class Begun(Exception):
    """The first epoch begins, with these positional and keyword arguments."""


class Training:
    """A script before its first epoch: the data that main() built, and its arguments for train_one_epoch."""

    def __init__(self, script: ModuleType, args: Namespace, data: Any, call: Sequence, options: dict):
        self.script, self.args, self.data, self.call, self.options = script, args, data, call, options
        self.model, self.loader, _, self.optimizer, _, self.interrupt, self.device = call
        self.train, self.sampler = self.loader.dataset, self.loader.batch_sampler

    def epoch(self, loader: Batches | None = None, epoch: int = 1, steps: int = 0) -> dict[str, float]:
        """The script's train_one_epoch, by default with its own loader, cut after `steps` (0 = never)."""
        self.interrupt.max_batches = steps
        call = [self.model, loader or self.loader, *self.call[2:]]
        return self.script.train_one_epoch(*call, epoch, **self.options)


def prepare(name: str, argv: Sequence[str] | None = None) -> Training:
    """The state of main() when its first epoch begins; `argv` defaults to SMALL, on the CPU."""
    script, built = importlib.import_module(name), []
    flags = SMALL.get(name, []) if argv is None else argv

    def adopt(args: Namespace, flags: Iterable[str], names_of: Any) -> None:
        """Take the default flags of stage 1 and no weights, which do not change the time."""
        args.stage1_checkpoint = "none"
        defaults = vars(importlib.import_module("train_stage1").parse_args([]))
        vars(args).update({flag: defaults[flag] for flag in flags if getattr(args, flag) is None})

    def begin(*call, **options):
        raise Begun(call, options)

    def build(args: Namespace, build: Any = script.build_datasets) -> Any:
        built.append(build(args))
        return built[0]

    with (
        mock.patch.multiple(script, train_one_epoch=begin, build_datasets=build),
        mock.patch.object(script, "adopt_stage1", adopt, create=True),
        mock.patch.object(script.LearningCheck, "before_training"),
        contextlib.redirect_stdout(io.StringIO()),  # its log
        tempfile.TemporaryDirectory() as folder,
    ):
        args = script.parse_args(["--device", "cpu", *flags, "--output_dir", folder])
        try:
            script.main(args)
        except Begun as begun:
            (*call, _), options = begun.args
    training = Training(script, args, built[0], call, options)
    training.interrupt.status.enabled = False  # its folder is gone
    return training
