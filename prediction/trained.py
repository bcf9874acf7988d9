"""Load trained models from run folders or checkpoints: training script, flags and weights."""

import argparse
import copy
import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn
from torch.utils.data import Dataset

from datasets.anovox.dataset import CLASSES
from datasets.anovox.labels import scenario_of
from datasets.jrdb.load import names_of
from prediction.flags import PREDICTING, read_otherwise
from prediction.skipped import tell_skipped
from utils.report.results import write_table
from utils.run.arguments import MAY_MOVE
from utils.run.errors import CommandError
from utils.run.find import check_script, find_checkpoint, find_run, find_runs, is_pattern, is_run, script_of
from utils.run.folder import read_json, read_record
from utils.run.leakage import warn_of_verdict
from utils.run.log import LOG
from utils.tasks import TASKS
from utils.training import distributed
from utils.training.checkpoint import (
    check_names,
    load_checkpoint,
    load_into,
    refuse_foreign,
    refuse_unfinished,
)

# The module with `predict` for each data set.
PREDICTION = {"anovox": "prediction.anomalies", "ultrasound": "prediction.ages",
              "jrdb": "prediction.interactions"}  # fmt: skip
BOXES = {"boxes": None, "boxes_size": None, "frame_rate": None, "skip_bad_boxes": False}  # for JRDB only
OPTIONS = BOXES | {"output": None, "max_pictures": 0, "explain": False} | dict.fromkeys(PREDICTING)

# What `predict` returns: tables, (number, unit) of inputs, and a function that writes pictures and a summary.
Predicted = tuple[dict[str, pandas.DataFrame], tuple[int, str], Callable[[Path], None]]


@dataclass
class Trained:
    """A model loaded from a checkpoint, on `device` and in evaluation mode."""

    script: ModuleType  # the training script: build_datasets, build_model, evaluate, report
    task: dict[str, Any]  # the script's row of utils/tasks.py
    state: dict[str, Any] = field(repr=False)  # the checkpoint
    path: Path  # the checkpoint's file
    args: argparse.Namespace  # of the training, with what it decided itself; newer flags have their default
    model: nn.Module = field(repr=False)
    device: torch.device
    together: "tuple[Trained, ...]" = ()  # if several runs are averaged: all of them, this one first

    @property
    def members(self) -> "tuple[Trained, ...]":
        """The runs whose predictions are averaged, or only this run."""
        return self.together or (self,)

    def evaluate(self, part: Dataset, **options: Any) -> dict[str, np.ndarray]:
        """The rows of the script's evaluate, with its batch size, so that sums are rounded as in the run."""
        alone = distributed.Processes(0, 1, self.device)
        loader = distributed.evaluation_loader(part, self.script.EVALUATION_BATCH, alone)
        return self.script.evaluate(self.model, loader, self.device, amp=self.args.amp, **options)

    def predict(
        self, folder: "str | Path | Sequence[np.ndarray]", **options: Any
    ) -> dict[str, pandas.DataFrame]:
        """The tables of predict.py, {"predictions": ..., "subjects" or "groups": ...}.

        folder: as --input; for ages also a list of uint8 images (H, W) or (H, W, 3). options: flags of
        predict.py, those in OPTIONS. With `output`, files and pictures are written there, and a DataError at
        the end reports unreadable inputs, which are in the table "skipped"."""
        if unknown := sorted(options.keys() - OPTIONS.keys()):
            raise TypeError(f"predict() has no option {', '.join(unknown)}; it has {', '.join(OPTIONS)}")
        args = argparse.Namespace(input=folder, **OPTIONS | options)
        self._check(args)
        members = tuple(replace(member, args=copy.copy(member.args)) for member in self.members)
        for member in members:
            read_otherwise(member.args, args, member.state["script"], PREDICTING)
        module = importlib.import_module(PREDICTION[self.task["data"]])
        together = replace(self, args=members[0].args, together=members)
        tables, total, show = module.predict(together, args)
        if tables["skipped"].empty:
            del tables["skipped"]
        if args.output is not None:
            Path(args.output, "skipped.csv").unlink(missing_ok=True)  # of an earlier call
            for name, table in tables.items():
                write_table(Path(args.output, f"{name}.csv"), table)
            show(Path(args.output))
            if "skipped" in tables:
                tell_skipped(tables["skipped"], *total, Path(args.output))
        return tables

    def _check(self, args: argparse.Namespace) -> None:
        """CommandError for options that are of another task, or an `output` that cannot be made."""
        script, data = self.state["script"], self.task["data"]
        if data not in PREDICTION:
            what = "needs a file in prediction/ and a line in PREDICTION (prediction/trained.py)"
            raise CommandError(f"a run of {script} is of a new task, which {what}")
        if wrong := [f"--{name}" for name in BOXES if getattr(args, name) and data != "jrdb"]:
            raise CommandError(f"{' '.join(wrong)}: a run of {script} reads no boxes")
        if args.explain and data != "ultrasound":
            raise CommandError(f"--explain is for ages, and this is a run of {script}")
        if args.output is None:
            return
        if isinstance(args.input, (str, Path)) and Path(args.output).resolve() == Path(args.input).resolve():
            raise CommandError(f"--output {args.output}: is the input, whose files it could overwrite")
        try:
            Path(args.output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"--output {args.output}: cannot be made ({error.strerror})") from error

    def tell_known(self, names: Iterable[str]) -> None:
        """Log whether groups in the input are called like groups that a run was trained on."""
        present = set(names)
        for member in self.members:
            trained = member.state["trained_on"]["split"]["train"]
            if known := present & set(map(scenario_of, trained)):
                what = f"{len(known)} of {len(present)} {self.task['groups']} are called like those"
                same = "if they are the same, predictions for them are too good"
                LOG.info(f"{what} that {member.path} was trained on: {same}")


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0 .. count - 1, evenly spread."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


# Flags that runs must share to be averaged: they define the labels, the pairs and the geometry columns.
SHARED = ("label", "distance_multiplier", "distance_norm", "history_seconds", "whole_past", "multi_label",
          "pairs_from")  # fmt: skip
CHOSEN = ("threshold", "stage1_threshold")  # probabilities that each run chose on val


def open_together(places: Sequence[str | Path], device: torch.device) -> Trained:
    """Load runs (or checkpoints) as one model that averages their predictions and the CHOSEN thresholds.
    CommandError if they do not predict the same."""
    if any(map(is_pattern, places)):
        places = find_runs([str(place) for place in places], Path("checkpoints"))
    members = [open_trained(place, device) for place in places]
    for member in members:
        warn_of_verdict(member.path.parent)
    first = members[0]
    if len(members) == 1:
        return first

    def meaning(member: Trained) -> dict[str, Any]:
        shared = {f"--{name}": getattr(member.args, name, None) for name in SHARED}
        return {"task": member.task["task"], "unit": member.state.get("target_unit")} | shared

    for other in members[1:]:
        pairs = zip(meaning(first).items(), meaning(other).values(), strict=True)
        if changed := [f"{key} {mine} and {theirs}" for (key, mine), theirs in pairs if mine != theirs]:
            both = f"--run {first.path.parent} and {other.path.parent}"
            raise CommandError(f"{both} do not predict the same: {', '.join(changed)}")
    chosen = [key for key in CHOSEN if first.state.get(key) is not None]
    means = {key: float(np.mean([member.state[key] for member in members])) for key in chosen}
    return replace(first, state=first.state | means, together=tuple(members))


def open_trained(place: str | Path, device: torch.device, checkpoint: str | None = None) -> Trained:
    """Load the best checkpoint of the run `place`, the file `place`, or another `checkpoint` of the run.
    CommandError if it is not a checkpoint of a training script or of this run, or is damaged."""
    name, path = None, Path(place)
    if not path.is_file():
        run = find_run(place)
        inside = run / (checkpoint or "")  # the folder itself, or its file of this name
        name, path = script_of(run), find_checkpoint(inside if inside.exists() else checkpoint)
        if path.resolve().parent != run.resolve():
            raise CommandError(f"--checkpoint {path} does not belong to {run}: pass --run {path.parent}")
    state = load_checkpoint(path)
    if missing := [key for key in ("script", "epoch", "model", "args") if key not in state]:
        raise CommandError(f"{path} is not a checkpoint of a training script: it lacks {', '.join(missing)}")
    refuse_unfinished(path, state)
    task = TASKS[check_script(path, state["script"])]
    if name not in (None, state["script"]):
        raise CommandError(f"{path} was written by {state['script']}, the run {place} by {name}")

    moved: dict[str, Any] = {}  # where the data is since a resumed run found it
    if is_run(path.parent) and script_of(path.parent) == state["script"]:
        config = read_record(path.parent / "config.json", "args", "dataset")
        split = path.parent / "split.json"
        now = {"fingerprint": config["dataset"].get("fingerprint")}
        now["split"] = read_json(split) if split.is_file() else state["trained_on"]["split"]
        refuse_foreign(path, state, config["args"], now)
        moved = {name: value for name, value in config["args"].items() if name in MAY_MOVE}

    script = importlib.import_module(state["script"].removesuffix(".py"))  # one of TASKS
    # The checkpoint holds all weights; the pretrained weights need not be on this machine. What the data
    # decided, such as the grey range, stands for a flag that was not given.
    decided = {key: state[key] for key in state.get("values", ()) if state["args"].get(key, "") is None}
    recorded = state["args"] | decided | moved | {"weights": "none"}
    args = argparse.Namespace(**vars(script.parse_args([])) | recorded)
    if task["data"] == "anovox":  # weights belong to the names of classes and features
        check_names(path, state, class_names=list(CLASSES))
    elif task["data"] == "jrdb":
        check_names(path, state, **names_of(args))
    model, _ = script.build_model(args)
    load_into(model, state["model"], path)
    model.to(device, memory_format=torch.channels_last).eval()  # the memory format of training: same kernels
    return Trained(script, task, state, path, args, model, device)
