"""Runs and checkpoints: whatever of them is typed finds them, and what is none is one clear error."""

from pathlib import Path

import pytest

from utils.run.errors import CommandError
from utils.run.find import find_checkpoint, find_run, find_runs, is_pattern, list_runs


def make_run(parent, name):
    (parent / name).mkdir(parents=True)
    (parent / name / "config.json").write_text("{}")
    return parent / name


def test_runs_are_found_by_path_name_and_pattern_each_once(tmp_path):
    first = make_run(tmp_path, "stage1_experiment_20261122_010000")
    second = make_run(tmp_path, "stage1_experiment_20261122_020000")
    assert find_runs([first.name, str(second), str(first / "config.json")], tmp_path) == [first, second]
    assert find_runs(["stage1_*"], tmp_path) == find_runs([str(tmp_path / "*")], tmp_path) == [first, second]


def test_a_run_is_taken_once_however_its_path_is_written(tmp_path, monkeypatch):
    run = make_run(tmp_path, "stage1_experiment_20261122_010000")
    monkeypatch.chdir(tmp_path)
    assert find_runs([run.name, str(run), f"../{tmp_path.name}/stage1_*"], tmp_path) == [Path(run.name)]


def test_runs_of_one_second_stand_in_the_order_of_their_numbers(tmp_path):
    first = "age_mae_experiment_20261122_010000"
    names = [first, *(f"{first}_{number}" for number in range(2, 12)), "age_mae_experiment_20261122_010001"]
    runs = [make_run(tmp_path, name) for name in names]
    assert list_runs(tmp_path) == runs


def test_a_path_that_is_there_is_no_pattern(tmp_path):
    run = make_run(tmp_path / "runs [v1]", "stage1_experiment_20261122_010000")
    for name in (run, run.parent / "*", run.parent / "stage1_*"):
        assert find_runs([str(name)], tmp_path) == [run]
    assert find_runs(["stage1_*"], run.parent) == [run]
    assert is_pattern(run.parent / "*") and not is_pattern(run) and not is_pattern(run / "config.json")


def test_a_config_of_another_program_is_no_run(tmp_path):
    other = make_run(tmp_path, "detector_20261122_010000")
    (other / "train.log").touch()
    assert list_runs(tmp_path) == []
    with pytest.raises(CommandError, match="is not a run folder: it has no config.json of a training script"):
        find_run(other)
    (other / "config.json").write_text('{"script_name": "train_mae.py"}')  # a run under another name
    assert list_runs(tmp_path) == [find_run(other)]


def test_a_missing_checkpoint_lists_candidates(tmp_path):
    (tmp_path / "last.pth").touch()
    assert find_checkpoint(tmp_path / "last.pth") == tmp_path / "last.pth"
    with pytest.raises(CommandError, match=r"best_f1\.pth; candidates:\n.*last\.pth"):
        find_checkpoint(tmp_path / "best_f1.pth")
    make_run(tmp_path, "stage1_experiment_20261122_010000")
    (tmp_path / "stage1_experiment_20261122_010000" / "best_f1.pth").touch()
    with pytest.raises(CommandError, match=r"candidates:\n.*last\.pth\n.*010000/best_f1\.pth"):
        find_checkpoint(tmp_path / "best_f1.pth")
