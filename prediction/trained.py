"""A trained model: from a run folder or a checkpoint to the script that wrote it, its flags and weights."""

import argparse
import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from datasets.anovox.dataset import CLASSES
from datasets.jrdb.features import feature_names
from datasets.jrdb.labels import INTERACTION_CLASSES
from utils.run.errors import CommandError
from utils.run.folder import read_json
from utils.training import distributed
from utils.training.checkpoint import check_names, find_checkpoint, load_checkpoint


class Script(NamedTuple):
    """What a training script's run is judged by."""

    module: str
    best: str  # the checkpoint of the run's own test pass
    batch: str  # the script's constant: samples per evaluation batch


# Nothing that a file names is imported: the five names are fixed.
SCRIPTS = {
    "train_anomaly_with_labels.py": Script(
        "train_anomaly_with_labels", "best_auroc.pth", "EVALUATION_FRAMES"
    ),
    "train_ddp.py": Script("train_ddp", "best_model.pth", "EVALUATION_BATCH"),
    "train_mae.py": Script("train_mae", "best_model.pth", "EVALUATION_BATCH"),
    "train_stage1.py": Script("train_stage1", "best_f1.pth", "EVALUATION_PAIRS"),
    "train_stage2.py": Script("train_stage2", "best_f1.pth", "EVALUATION_PAIRS"),
}


@dataclass
class Trained:
    """A model as its checkpoint has it, on `device` and in evaluation mode."""

    script: ModuleType  # the training script: SCRIPT, build_datasets, evaluate, report
    state: dict[str, Any]  # the checkpoint
    path: Path  # its file
    args: argparse.Namespace  # the flags it was trained with; newer flags have their default
    model: nn.Module
    device: torch.device

    def batches_of(self, part: Dataset) -> DataLoader:
        """A data set in the batches of training's evaluation: the same sums in the same order."""
        size = getattr(self.script, SCRIPTS[self.script.SCRIPT].batch)
        alone = distributed.Processes(0, 1, self.device)
        return distributed.evaluation_loader(part, size, alone)


def open_trained(place: str | Path, device: torch.device, checkpoint: str | None = None) -> Trained:
    """Load the best checkpoint of the run folder `place`, that file, or another `checkpoint` of the run.

    Raises CommandError for what is no run or checkpoint, is damaged, or was written by a script that is not
    one of SCRIPTS or not the run's.
    """
    place = find_run(Path(place))
    if place.is_dir():
        config = read_json(place / "config.json")
        name = config.get("script_name") if isinstance(config, dict) else None
        check_script(place / "config.json", name)
        path = find_checkpoint(checkpoint or place, SCRIPTS[name].best)
    else:
        name, path = None, place
    state = load_checkpoint(path)
    missing = [key for key in ("script", "epoch", "model", "args") if key not in state]
    if missing:
        raise CommandError(f"{path} is no checkpoint of a training script: it has no {', '.join(missing)}")
    check_script(path, state["script"])
    if name not in (None, state["script"]):
        raise CommandError(f"{path} was written by {state['script']}, the run {place} by {name}")

    script = importlib.import_module(SCRIPTS[state["script"]].module)
    # The checkpoint holds all weights; where they once started from need not be on this machine.
    args = argparse.Namespace(**vars(script.parse_args([])) | state["args"] | {"weights": "none"})
    check_names(path, state, **names_of(args, state))
    model, _ = script.build_model(args)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CommandError(f"{path}: its weights do not fit the model of its flags: {reason}") from error
    model.to(device, memory_format=torch.channels_last).eval()  # as in training: the same kernels
    return Trained(script, state, path, args, model, device)


def names_of(args: argparse.Namespace, state: dict[str, Any]) -> dict[str, list[str]]:
    """What the model's inputs and outputs are called here: a weight means nothing under another name."""
    names = {}
    if state["script"] == "train_anomaly_with_labels.py":
        names = {"class_names": list(CLASSES)}
    elif state["script"] in ("train_stage1.py", "train_stage2.py"):
        names = {
            "class_names": list(INTERACTION_CLASSES),
            "feature_names": feature_names(args.history_seconds),
        }
    return {key: value for key, value in names.items() if key in state}


def check_script(path: Path, name: object) -> None:
    if name not in SCRIPTS:
        raise CommandError(f"{path} names the script {name!r}; known: {', '.join(SCRIPTS)}")


def find_run(place: Path) -> Path:
    """`place`, if it is a run folder or a file; else a CommandError naming the runs that may be meant."""
    if place.is_file() or (place / "config.json").is_file():
        return place
    around = place if place.is_dir() else place.parent
    runs = [path.parent for path in around.glob("*/config.json")]
    runs = runs or [path.parent for path in Path("checkpoints").glob("*/config.json")]
    runs.sort(key=lambda run: run.stat().st_mtime, reverse=True)
    if not place.is_dir():  # a mistyped name; of a folder that holds runs, the newest
        runs.sort(key=lambda run: -difflib.SequenceMatcher(None, run.name, place.name).ratio())
    what = "no run folder (it has no config.json)" if place.is_dir() else "no such run folder or checkpoint"
    listing = "\n".join(f"  {run}" for run in runs[:3])
    hint = f"did you mean\n{listing}" if runs else f"and there is no run folder in {around}"
    raise CommandError(f"--run {place}: {what}; {hint}")
