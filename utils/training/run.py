"""How a run begins and ends, shared by all five scripts.

A Run holds what a script needs around its loop; the script's `main` decides the order of things.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from utils.metrics.verdict import Verdict
from utils.plotting.curves import Panel, curve_panels, plot_curves, to_beat
from utils.report.results import data_place, figure_title, write_report, write_results
from utils.run.claim import claim_folder
from utils.run.errors import CommandError, counted
from utils.run.find import find_checkpoint
from utils.run.folder import is_finished, plain, write_arrays, write_json
from utils.run.leakage import refuse_judged, warn_of_verdict
from utils.run.log import LOG, epoch_line, start_log, stop_log
from utils.run.signs import history_signs
from utils.run.status import Status
from utils.tasks import TASKS, log_columns
from utils.training import config, distributed
from utils.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.training.device import compile_forward
from utils.training.learning import check_labels
from utils.training.worth import in_words

WORTH = "what each input is worth"


@dataclass
class Run:
    """A run of one training script, as this process sees it."""

    args: argparse.Namespace
    script: str  # 'train_mae.py'
    version: str
    doc: str  # the script's docstring
    folder: Path
    status: Status
    processes: distributed.Processes
    described: dict[str, Any] = field(default_factory=dict)  # dataset of config.json; set by check
    trained_on: dict[str, Any] = field(default_factory=dict)  # fingerprint of the data, split; set by check

    @property
    def device(self) -> torch.device:
        return self.processes.device

    def check(self, data: Any, classes: Sequence[str] | None = None) -> bool:
        """Log and check the data; returns whether the run ends here (--check_data). DataError if nothing can
        be learned from it; CommandError if ranks differ, a resumed run has other data or another split, or an
        earlier run that this one starts from was trained on val or test."""
        for name, part in data.parts.items():
            check_labels(part.labels if classes else part.ages, name, classes)
        for line in data.log_lines():
            LOG.info(line)
        LOG.info(f"data: {data_place(vars(self.args), data.synthetic)}")
        LOG.info(f"split: {data.split_source}; {data.leakage_check}")
        described = self.described = data.describe()
        self.trained_on = {"fingerprint": described["fingerprint"], "split": data.split}
        if self.args.resume:
            config.check_resumed(self, described, data.split)
        else:
            self.check_start(data)
        if self.args.config:
            part = config.describe_run(self) | {"dataset": described, "split": data.split}
            config.check_repeated(Path(self.args.config), part)
        config.check_ranks(self, described, data.split)
        if self.args.check_data:
            LOG.info("the data can be trained on")
        return self.args.check_data

    def check_start(self, data: Any) -> None:
        """CommandError if an earlier run that this one starts from was trained on val or test; a warning if
        that did not end LEARNED."""
        flag = "stage1_checkpoint" if hasattr(self.args, "stage1_checkpoint") else "weights"
        try:
            state = load_checkpoint(path := find_checkpoint(vars(self.args)[flag]))
        except CommandError:  # none, imagenet, or weights of another project
            return
        same = flag != "weights" or state["trained_on"]["fingerprint"] == self.trained_on["fingerprint"]
        refuse_judged(path, state, data, f"--{flag}", by_name=same)
        warn_of_verdict(path.parent)

    def loaders(
        self, train: Any, parts: Mapping[str, Any], batch: int
    ) -> tuple[DataLoader, dict[str, DataLoader]]:
        """The shuffled train loader, and loaders of the other `parts` with about `batch` samples a step.
        Plain DataLoaders: batch = dataset.__getitems__(indices). The train loader gives this rank's share of
        an epoch (EpochSampler; interrupt.steps begins each), the others whole frames in order."""
        args, drawn = self.args, (train.frames, getattr(train, "draw", None))
        sampler = distributed.EpochSampler(len(train), args.batch_size, args.seed, self.processes, *drawn)
        evaluated = {
            name: distributed.evaluation_loader(part, batch, self.processes, args.num_workers)
            for name, part in parts.items()
            if name != "train"
        }
        return distributed.make_loader(train, sampler, args.num_workers, self.device), evaluated

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, compiled with --compile, and wrapped if there are several processes."""
        model.to(self.device, memory_format=torch.channels_last)
        if self.args.compile:
            compile_forward(model, self.device)
        return DistributedDataParallel(model) if self.processes.world_size > 1 else model

    def record(
        self, data: Any, model: dict[str, Any], criterion: nn.Module, optimizer: torch.optim.Optimizer,
        scheduler: Any, **training: Any,
    ) -> None:  # fmt: skip
        """Write config.json, split.json, hashes.json (of each group's contents) and references.npz (data for
        the reference models); for a resumed run only the flags that may have changed."""
        args, folder = self.args, self.folder
        trained = f"{model['trainable_parameters']} trainable parameters"
        source = "last.pth" if args.resume else model["source"]
        LOG.info(f"model: {model['architecture']}, {trained}, weights {source}")
        if not self.processes.first:
            return
        if args.resume:
            config.record_resumed(self)
            return
        recipe = plain(config.describe_training(self, criterion, optimizer, scheduler, **training))
        if args.config:
            config.check_repeated(Path(args.config), {"model": model, "training": recipe})
        written = config.describe_run(self)
        written |= {"dataset": self.described, "model": model, "training": recipe}
        written["optimizations"] = config.describe_optimizations(args, model, scheduler)
        write_json(folder / "config.json", written | {"output_dir": str(folder)})
        write_json(folder / "split.json", data.split)
        hashes = {name: data.hashes[name] for names in data.split.values() for name in names}
        write_json(folder / "hashes.json", hashes)
        write_arrays(folder / "references.npz", data.references())

    def panels(
        self, counts: Mapping[str, int] | None = None, unit: str = "", **nothing: float
    ) -> list[Panel]:
        """The panels of training_curves.png that the task declares; logs the baselines that they show.
        counts: val's {class: samples}; nothing: {metric: baseline}, where only the script knows it."""
        panels = curve_panels(TASKS[self.script], counts, unit, **nothing)
        LOG.info(to_beat(panels))
        if getattr(self.args, "ema_decay", 0):
            panels[0] = replace(panels[0], title="loss (val: with averaged weights)")
        return panels

    def out_of_patience(self, history: list[dict[str, Any]], best_epoch: int) -> bool:
        """Whether --patience epochs have passed since the best one."""
        wait = len(history) - best_epoch
        if stop := 0 < self.args.patience <= wait:
            LOG.info(f"stopped early: no better epoch for {wait} epochs")
        return stop

    def show_epoch(self, history: list[dict[str, Any]], panels: Sequence[Panel], best_epoch: int) -> None:
        """Write the epoch's log line and status.json, and every --plot_interval epochs the curves."""
        row, interval = history[-1], self.args.plot_interval
        self.status.write(wait=row["epoch"] - best_epoch)
        if interval and row["epoch"] % interval == 0 and self.processes.first:
            plot_curves(history, panels, self.folder / "training_curves.png", best_epoch)
        shown = log_columns(TASKS[self.script])
        LOG.info(epoch_line(row, self.args.epochs, shown, best=row["epoch"] == best_epoch))
        if (lacking := [key for key in shown if key not in row]) and row["epoch"] == 1:
            what = f"utils/tasks.py declares {', '.join(lacking)}, but an epoch has no such figure"
            LOG.warning(f"{what}: let the script's `measure` return it, or leave it out there")


def open_run(args: argparse.Namespace, script: str, version: str, doc: str) -> Run | None:
    """Join the processes, seed, make or find the run folder, start its log; None if the run is finished."""
    processes = distributed.start_processes(args.device)
    distributed.seed_everything(args.seed)
    if args.resume not in (None, "auto") and is_finished(Path(args.resume), args.epochs, args.patience):
        if processes.first:
            print(f"{args.resume} is finished: nothing to resume")
        return None
    folder, lock = claim_folder(args, script) if processes.first else (None, None)
    folder, args.resume = processes.from_first(lambda: (folder, args.resume))
    start_log(folder / "train.log", quiet=not processes.first)
    status = Status(folder, args.epochs, args.patience, enabled=processes.first, lock=lock)
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "RANK" not in os.environ:
        LOG.warning("srun starts this script as several separate runs: `srun torchrun` makes it one run")
    leaves = "leaves no run folder" if args.check_data or args.dry_run else f"run folder {folder}"
    LOG.info(f"{script} {version} on {processes.device}, {processes.world_size} process(es), {leaves}")
    return Run(args, script, version, doc, folder, status, processes)


def finish(
    run: Run, data: Any, checkpoint: Checkpoint, panels: Sequence[Panel],
    rows: Mapping[str, dict[str, np.ndarray]], metrics: dict[str, dict[str, Any]],
    report: Callable[..., tuple[Verdict, dict[str, Any]]], worth: dict[str, Any], **fields: Any,
) -> Verdict | None:  # fmt: skip
    """Judge the best checkpoint on test (val if there is no test) and write the files of a finished run.
    rows, metrics: of every split that was evaluated; report: the script's; worth: of each input; fields: more
    of results.json. Rank 0 returns the verdict."""
    verdict, args, chosen = None, run.args, checkpoint.chosen
    if run.processes.first:
        save_checkpoint(run.folder / "final.pth", load_checkpoint(run.folder / "last.pth", run.script))
        split = "test" if "test" in rows else "val"
        verdict, found = report(run.folder, split, rows[split], data, chosen)
        write_arrays(run.folder / "references.npz", data.references())  # with what the report has added
        metrics[split] |= found.pop("metrics")
        LOG.info(f"{WORTH}: {in_words(worth)}")
        sections = found.pop("sections") | {WORTH: in_words(worth)}
        signs = history_signs(checkpoint.history, TASKS[run.script], constant=chosen["constant_loss"])
        found["warnings"] = signs + found["warnings"]
        groups = counted(len(data.split[split]), TASKS[run.script]["groups"])
        title = [figure_title(chosen, split), f"data: {data_place(vars(args), data.synthetic)}"]
        title += [f"{groups} in {split}; split: {data.split_source}"]
        path, logged = run.folder / "evaluation_report.txt", run.status.fields["warnings"]
        write_report(path, "\n".join(title), verdict, found["warnings"], sections, logged)
        plot_curves(checkpoint.history, panels, run.folder / "training_curves.png", chosen["epoch"], verdict)
        write_results(
            run.folder, TASKS[run.script]["folder"], verdict, not args.dry_run, metrics=metrics,
            test_split=split, **found,
            epochs=args.epochs, epochs_run=len(checkpoint.history), threshold=chosen["threshold"],
            best_epoch=chosen["epoch"], wall_seconds=sum(row["seconds"] for row in checkpoint.history),
            synthetic=data.synthetic, input_worth=worth, **fields,
        )  # fmt: skip
        run.status.end("finished", verdict.word)
    stop_log()
    return verdict
