"""What must not grow or stop in a long run: memory over 300 epochs, and training when a figure fails."""

import os

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.faults.stopped_runs import EACH, argv, exit_code, only_run, train
from utils.run.folder import read_json
from utils.training.checkpoint import Checkpoint

SCRIPT = "train_stage1"


@pytest.fixture(autouse=True)
def _no_figures():
    """Here they are made, and only not rendered."""


def resident_kilobytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_does_not_grow_over_300_epochs(tmp_path, monkeypatch):
    """The slope of the last hundred, when the allocator has what it needs; the curves are redrawn every tenth
    epoch, and each epoch adds its row to the history."""
    seen, save_epoch = [], Checkpoint.save_epoch

    def save_and_look(*values, **options):
        save_epoch(*values, **options)
        seen.append(resident_kilobytes())

    monkeypatch.setattr(Checkpoint, "save_epoch", save_and_look)
    train(SCRIPT, tmp_path, "--epochs", 300, "--max_batches", 2, "--patience", 0, "--plot_interval", 10)
    slope = np.polyfit(np.arange(100), seen[200:], 1)[0]
    print(f"memory: {seen[0]:.0f} kB after an epoch, {seen[-1]:.0f} kB at the end, {slope:.2f} kB per epoch")
    assert len(seen) == 300
    assert slope < 20  # one figure left open every tenth epoch would be hundreds


@pytest.mark.parametrize("script", EACH)
def test_figures_that_fail_are_warnings(script, tmp_path, monkeypatch):
    def fail(*values, **options):
        raise RuntimeError("no fonts here")

    monkeypatch.setattr(Figure, "savefig", fail)
    assert exit_code(script, argv(script, tmp_path, "--epochs", 2, "--plot_interval", 1)) == 0
    run = only_run(tmp_path)
    warnings = read_json(run / "status.json")["warnings"]
    assert any(
        "plot_curves failed, the run goes on: RuntimeError: no fonts here" in text for text in warnings
    )
    assert (run / "results.json").exists()
    assert not list(run.glob("*.png"))
