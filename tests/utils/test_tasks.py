"""The table of tasks says what the scripts do, and what knowing nothing reaches."""

import importlib
import subprocess
import sys

import pytest

from utils.tasks import TASKS, Metric, log_columns, nothing_reaches


@pytest.mark.parametrize("script", TASKS)
def test_the_table_and_the_script_say_the_same(script):
    task = TASKS[script]
    module = importlib.import_module(script.removesuffix(".py"))
    assert script == module.SCRIPT
    assert {task["best"], task["skill"]} <= set(task["metrics"])
    assert log_columns(task)[:2] == ["train_loss", "val_loss"]


def test_what_knowing_nothing_reaches():
    counts = {"no interaction": 6, "interaction": 2, "never seen": 0}
    assert nothing_reaches(Metric("", nothing=0.5)) == 0.5
    assert nothing_reaches(Metric("", nothing="positives"), {"normal": 6, "anomaly": 2}) == 0.25
    assert nothing_reaches(Metric("", nothing="f1"), {"normal": 6, "anomaly": 2}) == 0.4  # precision 1/4
    assert nothing_reaches(Metric("", nothing="largest"), counts) == 0.75
    assert nothing_reaches(Metric("", nothing="classes"), counts) == 0.5
    assert nothing_reaches(Metric("", nothing="classes"), {}) is None


def test_the_table_and_what_reads_it_import_no_torch():
    read = "utils.tasks, utils.watch.comparison, monitor_training"
    code = f"import sys, {read}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
