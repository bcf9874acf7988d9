"""The five scripts in the tiny worlds of their own tests: run, stopped by real signals, resumed, compared."""

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import train_anomaly_with_labels
import train_ddp
import train_mae
import train_stage1
import train_stage2
from tests.anovox_world import copy_of, tiny_sample
from tests.folders import new_folder
from tests.tiny_runs import EXCLUDE, jrdb, ultrasound
from utils.run.folder import REPO_ROOT, read_json
from utils.run.script import run_script
from utils.training.interrupt import Interrupt

SCRIPTS = {
    "train_stage1": train_stage1,
    "train_stage2": train_stage2,
    "train_anomaly_with_labels": train_anomaly_with_labels,
    "train_ddp": train_ddp,
    "train_mae": train_mae,
}
AGES = ("train_ddp", "train_mae")
OTHERS = [name for name in SCRIPTS if name != "train_stage1"]  # the full counts are run on stage 1
# For parametrize: stage 1 in the quick part, the other four in the long one.
EACH = ["train_stage1", *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)]


@functools.cache
def stage1_run() -> Path:
    """What stage 2 starts from."""
    return train("train_stage1", new_folder("stage1_of_stage2"), "--epochs", "1")


def copied_data(script: str, target: Path) -> tuple[Path, list[str]]:
    """A copy of a script's tiny world that may be damaged, and the flags that choose it."""
    if script == "train_anomaly_with_labels":
        root = copy_of(tiny_sample(), target)
        return root, ["--data_path", str(root)]
    if script in AGES:
        root = Path(shutil.copytree(ultrasound().parents[2], target))
        return root, ["--image_dir", str(root / "TA/Healthy/Images")]
    root = Path(shutil.copytree(jrdb(), target))
    return root, ["--data_path", str(root)]


def data_flags(script: str) -> list[Any]:
    """Where a script finds its tiny world."""
    if script == "train_anomaly_with_labels":
        return ["--data_path", tiny_sample()]
    if script in AGES:
        return ["--image_dir", ultrasound(), *EXCLUDE]
    return ["--data_path", jrdb()]


def small_flags(script: str) -> list[Any]:
    """A small model, and what makes resuming hard: averaged weights, a warm-up, a plateau, a step."""
    if script == "train_anomaly_with_labels":
        return ["--image_size", 64, 96, "--max_points", 64, "--batch_size", 6]
    if script in AGES:
        recipe = {
            "train_ddp": ["--plateau_patience", 0],
            "train_mae": ["--ema_decay", 0.5, "--warmup_epochs", 2],
        }
        return ["--model", "cnn", "--image_size", 32, "--batch_size", 8, "--lr", "1e-3", *recipe[script]]
    more = ["--stage1_checkpoint", stage1_run()] if script == "train_stage2" else ["--features", "geometry"]
    return [*more, "--scheduler", "step", "--step_size", 2, "--batch_size", 16]


def argv(script: str, folder: Path, *more: Any) -> list[str]:
    """The command line of a run of three epochs into `folder`."""
    flags = [*data_flags(script), *small_flags(script), "--epochs", 3, "--output_dir", folder]
    return [str(flag) for flag in [*flags, *more]]


def train(script: str, folder: Path, *more: Any) -> Path:
    """Run a script in this process; returns the one run folder in `folder`."""
    module = SCRIPTS[script]
    module.main(module.parse_args(argv(script, folder, *more)))
    return only_run(folder)


def only_run(folder: Path) -> Path:
    (run,) = (path for path in folder.iterdir() if "_experiment_" in path.name)
    return run


def resume(script: str, run: Path, *more: str) -> None:
    module = SCRIPTS[script]
    module.main(module.parse_args(["--resume", str(run), *more]))


def exit_code(script: str, flags: list[str]) -> int:
    """Run a script as its command line does, in this process; what nobody foresaw is raised."""
    module = SCRIPTS[script]
    try:
        run_script(module.main, module.parse_args(flags))
    except SystemExit as left:
        return left.code
    return 0


def signal_at(monkeypatch: pytest.MonkeyPatch, *looks: tuple[int, int]) -> None:
    """Send this process a signal when the run looks for one for the n-th time: (n, signal). The first look is
    before the first step."""
    look, wanted, count = Interrupt.agreed, dict(looks), iter(range(10**6))

    def agreed(self):
        if number := wanted.get(next(count)):
            os.kill(os.getpid(), number)
        return look(self)

    monkeypatch.setattr(Interrupt, "agreed", agreed)


def stopped(monkeypatch, script: str, folder: Path, look: int, number: int, *more: Any) -> Path:
    """A run that a signal stopped at that look; it left with the code of the signal."""
    data_flags(script), small_flags(script)  # makes the worlds, and stage 1's run, without signals
    with monkeypatch.context() as patch:
        signal_at(patch, (look, number))
        with pytest.raises(SystemExit) as left:
            train(script, folder, *more)
    assert left.value.code == 128 + number
    return only_run(folder)


@functools.cache
def whole_run(script: str) -> Path:
    """The run that nothing interrupts."""
    return train(script, new_folder(f"whole_{script}"))


def steps_per_epoch(run: Path) -> int:
    return read_json(run / "status.json")["steps"]


def environment(**changes: str) -> dict[str, str]:
    """For other processes: one thread, and the repository importable."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO_ROOT)} | changes
