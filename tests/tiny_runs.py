"""The training scripts on the smallest data there is, and one finished run of each, made once per session and
read only."""

import contextlib
import functools
import importlib
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from datasets.samples import ensure_sample
from datasets.samples.ultrasound import generate
from tests.anovox_world import tiny_sample
from tests.faults.children import on_ranks
from tests.folders import new_folder
from tests.jrdb_world import write_world
from utils.run.folder import read_json, write_json
from utils.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

NAMES = ("train_anomaly_with_labels", "train_ddp", "train_mae", "train_stage1", "train_stage2")
EXCLUDE = ("--exclude", "images_without_row", "rows_without_image")
TIMES = {"seconds", "samples_per_second"}


@functools.cache
def jrdb() -> Path:
    """Labels without images: 4 train, 2 val and 6 test sequences."""
    return write_world(new_folder("jrdb"), {"train": 4, "val": 2, "test": 6})


@functools.cache
def ultrasound() -> Path:
    """The images of 16 healthy subjects; the table is two folders up."""
    generate(new_folder("ultrasound"), "tiny", seed=0)
    return new_folder("ultrasound") / "TA/Healthy/Images"


def flags_of(name: str) -> list:
    """The data of a training script and a few epochs on it."""
    if name == "train_anomaly_with_labels":
        return ["--data_path", tiny_sample(), "--image_size", 64, 96, "--max_points", 128, "--epochs", 2]
    if name in ("train_ddp", "train_mae"):
        recipe = ["--model", "cnn", "--image_size", 32, "--epochs", 3, "--batch_size", 8]
        return ["--image_dir", ultrasound(), *EXCLUDE, *recipe]
    if name == "train_stage1":
        recipe = ["--features", "geometry", "--epochs", 2, "--batch_size", 16, "--scheduler", "step"]
        return ["--data_path", jrdb(), *recipe]
    start = ["--stage1_checkpoint", run_of("train_stage1")]
    recipe = ["--epochs", 4, "--batch_size", 16, "--lr", 3e-3, "--scheduler", "step"]
    return ["--data_path", jrdb(), *start, *recipe]


def flags_on_pixels(name: str) -> list[str]:
    """The same for scripts that see images; crops for both stages, and no stage 1 run."""
    if "stage" not in name:
        return [str(flag) for flag in flags_of(name)]
    sample = ensure_sample("jrdb", new_folder("jrdb_images"), size="tiny")
    crops = ["--features", "crops+geometry", "--image_size", "32", "16", "--batch_size", "8"]
    return ["--data_path", str(sample), *crops]


def train(name: str, folder: Path, *more: object) -> Path:
    """Run a script in this process into `folder`; returns the new run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    run_main(name, *flags_of(name), "--device", "cpu", "--output_dir", folder, *more)
    return (set(folder.iterdir()) - before).pop()


def run_main(name: str, *argv: object) -> None:
    script = importlib.import_module(name)
    script.main(script.parse_args([str(flag) for flag in argv]))


def replay(name: str, run: Path, folder: Path) -> Path:
    """Repeat a run from its own config.json."""
    run_main(name, "--config", run / "config.json", "--output_dir", folder)
    return next(folder.iterdir())


def train_on(processes: int, name: str, folder: Path, *more: object) -> Path:
    """The same as `train` on several processes, which need not import torch first, as those of torchrun, and
    evaluate batches so small that each gets some."""
    argv = [*flags_of(name), "--device", "cpu", "--output_dir", folder, *more]
    with mock.patch.object(importlib.import_module(name), "EVALUATION_BATCH", 4):
        assert on_ranks(processes, lambda: run_main(name, *argv)) == [0] * processes
    (run,) = folder.iterdir()
    return run


@functools.cache
def run_of(name: str) -> Path:
    """The run folder of a training script: a few epochs."""
    return train(name, new_folder(f"run_{name}"))


def history(run: Path) -> list[dict]:
    """One row per epoch, without times."""
    return [without_times(row) for row in read_json(run / "history.json")]


def without_times(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in TIMES}


def weights(run: Path, name: str = "final.pth") -> dict[str, torch.Tensor]:
    return load_checkpoint(run / name)["model"]


def furthest_weight(a: Path, b: Path) -> float:
    """The largest difference of a weight of two runs."""
    first, second = weights(a), weights(b)
    return max((first[key] - second[key]).abs().max().item() for key in first)


def checkpoints(run: Path) -> dict[str, dict[str, Any]]:
    """All checkpoints of a run, without times, and without flags that say where it was or who resumed it."""
    found = {}
    for path in sorted(run.glob("*.pth")):
        state = found[path.name] = load_checkpoint(path)
        state["history"] = [without_times(row) for row in state["history"]]
        del state["args"]
    return found


def assert_same_run(a: Path, b: Path) -> None:
    """Everything a run keeps but its log, curves and status, bit for bit, without times."""
    assert_equal(checkpoints(a), checkpoints(b), "")
    assert history(a) == history(b)
    results = [{**read_json(run / "results.json"), "wall_seconds": 0} for run in (a, b)]
    assert results[0] == results[1]
    assert texts(a) == texts(b)


def texts(run: Path) -> dict[str, str]:
    """The other files of a run that are no pictures."""
    own = ("config.json", "history.json", "results.json", "status.json", "references.npz", "train.log")
    found = [
        path for path in run.iterdir() if path.suffix in (".json", ".csv", ".txt") and path.name not in own
    ]
    args = read_json(run / "config.json")["args"]
    data = Path(args.get("data_path") or args["image_dir"])
    names = {str(data): "DATA", f" of {data.name}": " of DATA", str(run): "RUN"}
    contents = {path.name: path.read_text() for path in found}
    for old, new in names.items():
        contents = {name: text.replace(old, new) for name, text in contents.items()}
    return contents


def assert_equal(a: Any, b: Any, where: str) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where} {key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        assert len(a) == len(b), where
        for k, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_equal(left, right, f"{where} {k}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def copy_of_run(name: str, folder: Path) -> Path:
    """A copy that a test may write into or damage."""
    return Path(shutil.copytree(run_of(name), folder / run_of(name).name))


def outspoken(run: Path, folder: Path, **flags: object) -> Path:
    """A copy of an age run whose predictions are far apart: after a few epochs all are still at the median.
    flags: other values of its flags."""
    copy = Path(shutil.copytree(run, folder / run.name))
    state = load_checkpoint(copy / "best_model.pth")
    state["model"]["head.4.weight"] *= 1e5
    state["args"] |= flags
    save_checkpoint(copy / "best_model.pth", state)
    write_json(copy / "config.json", read_json(copy / "config.json") | {"args": state["args"]})
    return copy


@contextlib.contextmanager
def stopped_after(epoch, monkeypatch):
    """Runs within it are interrupted once this epoch is saved."""
    save_epoch = Checkpoint.save_epoch

    def save_then_die(self, *values, **options):
        save_epoch(self, *values, **options)
        if len(self.history) == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save_epoch", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            yield
