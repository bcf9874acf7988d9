"""train_mae.py and train_ddp.py: equal but for the recipe; whole runs, resumed, replayed, distributed."""

import csv
import difflib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from sklearn import metrics

import train_ddp
import train_mae
from tests import tiny_runs
from utils.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("empty_figures")  # but those of module-wide runs

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"train_mae": train_mae, "train_ddp": train_ddp}
EXCLUDE = ("--exclude", "images_without_row", "rows_without_image")


@pytest.fixture(scope="module")
def sample():
    return tiny_runs.ultrasound()


def flags(sample, folder, *more):
    return ["--image_dir", str(sample), *EXCLUDE, "--model", "cnn", "--image_size", "32", "--batch_size", "8",
            "--epochs", "3", "--device", "cpu", "--output_dir", str(folder), *more]  # fmt: skip


def run(script, sample, folder, *more) -> Path:
    module = SCRIPTS[script]
    module.main(module.parse_args(flags(sample, folder, *more)))
    return max(Path(folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)


def history(folder: Path) -> list[dict]:
    rows = json.loads((folder / "history.json").read_text())
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in rows]


def weights(folder: Path, name: str = "final.pth") -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / name)["model"]


def assert_same_run(one: Path, other: Path) -> None:
    assert history(one) == history(other)
    for name in ("final.pth", "best_model.pth"):
        first, second = weights(one, name), weights(other, name)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_two_scripts_differ_in_the_recipe_only():
    one, other = ((ROOT / f"{name}.py").read_text().splitlines() for name in SCRIPTS)
    places = Counter()
    for kind, start, *_ in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        headings = [line for line in one[:start] if re.match("def |    # [A-Z]|import", line)]
        if kind != "equal":
            places[headings[-1].strip() if headings else "docstring"] += 1
    parse_args = "def parse_args(argv: list[str] | None = None) -> argparse.Namespace:"
    assert set(places) == {"docstring", "import math", parse_args, "# Optimisation", "# Train"}
    assert places["import math"] == places["# Train"] == 1  # names and selection; the scheduler's step


@pytest.fixture(scope="module", params=list(SCRIPTS))
def finished(request):
    return request.param, tiny_runs.run_of(request.param)


def test_run_folder(finished):
    script, folder = finished
    names = {path.name for path in folder.iterdir()}
    expected = "config.json split.json train.log history.json best_model.pth last.pth final.pth results.json "
    expected += "training_curves.png scatter.png bland_altman.png error_by_age.png "
    expected += "evaluation_report.txt test_predictions.csv"
    assert set(expected.split()) <= names
    results = json.loads((folder / "results.json").read_text())
    assert results["task"] == {"train_mae": "age_mae", "train_ddp": "age_mse"}[script]
    assert results["verdict"] in ("LEARNED", "NOT LEARNED")
    assert results["synthetic"] is True
    log = (folder / "train.log").read_text()
    assert "expected time: " in log
    assert log.splitlines()[-1].startswith("verdict: ")


def test_metrics_are_those_of_sklearn_on_the_written_rows(finished):
    _, folder = finished
    with open(folder / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ages, preds = ([float(row[name]) for row in rows] for name in ("age", "prediction"))
    test = json.loads((folder / "results.json").read_text())["metrics"]["test"]
    assert test["mae"] == pytest.approx(metrics.mean_absolute_error(ages, preds), abs=1e-9)
    assert test["rmse"] == pytest.approx(metrics.root_mean_squared_error(ages, preds), abs=1e-9)
    assert test["r2"] == pytest.approx(metrics.r2_score(ages, preds), abs=1e-9)
    people = {row["subject"]: (float(row["age"]), float(row["subject_prediction"])) for row in rows}
    subject_mae = metrics.mean_absolute_error(*zip(*people.values(), strict=True))
    assert test["subject_mae"] == pytest.approx(subject_mae, abs=1e-9)


def test_config_has_what_the_requirement_reads(finished):
    script, folder = finished
    config = json.loads((folder / "config.json").read_text())
    assert (config["script_name"], config["script_version"]) == (f"{script}.py", "1.0")
    dataset, training = config["dataset"], config["training"]
    assert training["loss_function"] == {"train_mae": "L1Loss", "train_ddp": "MSELoss"}[script]
    assert training["optimizer"] == {"train_mae": "AdamW", "train_ddp": "Adam"}[script]
    assert training["optimizer_params"]["betas"] == [0.9, 0.999]
    assert dataset["split_method"] == "by_subject_id"
    assert "none shared" in dataset["data_leakage_prevention"]
    assert dataset["total_subjects"] == 16
    assert (
        dataset["train_samples"] + dataset["val_samples"] + dataset["test_samples"]
        == dataset["total_samples"]
    )
    assert (dataset["random_seed"], dataset["test_size"], dataset["val_size"]) == (42, 0.2, 0.1)
    assert dataset["target_unit"] == "years"
    assert training["effective_batch_size"] == 8
    assert config["optimizations"]["gradient_clipping"] == (script == "train_mae")
    assert config["optimizations"]["cosine_annealing"] == (script == "train_mae")
    assert config["optimizations"]["early_stopping"] == (script == "train_mae")


def test_diff_of_two_configs_shows_what_differs_only(sample, tmp_path):
    configs = []
    for k, rate in enumerate(("1e-3", "2e-3")):
        folder = run(
            "train_mae", sample, tmp_path / str(k), "--epochs", "1", "--max_batches", "1", "--lr", rate
        )
        configs.append((folder / "config.json").read_text().splitlines())
    pairs = zip(*configs, strict=True)
    changed = {line.split(":")[0].strip() for a, b in pairs if a != b for line in (a, b)}
    assert changed <= {'"timestamp"', '"output_dir"', '"learning_rate"', '"lr"', '"initial_lr"', '"commit"'}


def test_warm_up_and_cosine_end_exactly(sample, tmp_path):
    folder = run("train_mae", sample, tmp_path, "--epochs", "6", "--warmup_epochs", "3", "--max_batches", "1",
                 "--lr", "1e-3", "--eta_min", "1e-6")  # fmt: skip
    rates = [row["lr"] for row in history(folder)]
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates[3] > rates[4] > rates[5]
    assert rates[5] == pytest.approx(1e-6)
    config = json.loads((folder / "config.json").read_text())
    recorded = config["training"]["scheduler_params"]
    assert (recorded["warmup_epochs"], recorded["T_max"], recorded["eta_min"]) == (3, 3, 1e-6)
    assert config["optimizations"]["warmup"] is True


@pytest.mark.parametrize(
    ("flags", "recorded"),
    [
        (("--epochs", "1"), {"T_max": 1, "eta_min": 1e-7}),
        (("--epochs", "3", "--warmup_epochs", "1"), {"T_max": 2, "eta_min": 1e-7}),
        (("--epochs", "2", "--warmup_epochs", "0", "--scheduler", "none"), {}),
    ],
)
def test_only_the_schedule_that_was_used_is_recorded(sample, tmp_path, flags, recorded):
    """The first epoch of none of these has less than the full rate."""
    folder = run("train_mae", sample, tmp_path, "--max_batches", "1", "--lr", "1e-3", *flags)
    config = json.loads((folder / "config.json").read_text())
    schedule = config["training"]["scheduler_params"]
    assert {
        key: schedule[key] for key in ("T_max", "eta_min", "warmup_epochs") if key in schedule
    } == recorded
    assert config["optimizations"]["warmup"] is False
    assert history(folder)[0]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("script", "more"),
    [
        ("train_mae", ("--warmup_epochs", "4", "--ema_decay", "0.5")),  # interrupted in the warm-up
        ("train_ddp", ("--plateau_patience", "0", "--lr", "1e-6")),  # after the rate was cut
    ],
)
@pytest.mark.long
def test_resumed_run_is_the_uninterrupted_run(sample, tmp_path, monkeypatch, script, more):
    more = ("--epochs", "5", *more)
    whole = run(script, sample, tmp_path / "whole", *more)
    module = SCRIPTS[script]
    save = module.save_epoch

    def save_and_die(folder, state, *rest):
        save(folder, state, *rest)
        if state["epoch"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_epoch", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(script, sample, tmp_path / "cut", *more)
    monkeypatch.undo()
    if script == "train_ddp":
        rates = {row["lr"] for row in history(whole)[:4]}
        assert len(rates) > 1, "the plateau never cut the rate: the test tests nothing"
    cut = next((tmp_path / "cut").iterdir())
    module.main(module.parse_args(["--resume", str(cut)]))
    assert_same_run(whole, cut)


@pytest.mark.parametrize("script", list(SCRIPTS))
def test_replay_from_config_is_bit_identical(finished, sample, tmp_path, script):
    name, folder = finished
    if name != script:
        pytest.skip("the other script's run")
    module = SCRIPTS[script]
    module.main(module.parse_args(["--config", str(folder / "config.json"), "--output_dir", str(tmp_path)]))
    assert_same_run(folder, next(tmp_path.iterdir()))


def test_averaged_weights_are_what_is_kept(sample, tmp_path):
    folder = run("train_mae", sample, tmp_path, "--epochs", "2", "--ema_decay", "0.9", "--lr", "1e-2")
    state = load_checkpoint(folder / "last.pth")
    key = "head.4.weight"
    assert not torch.equal(state["model"][key], state["trained"][key])
    assert state["model"][key].norm() < state["trained"][key].norm()


@pytest.mark.long
def test_one_two_and_three_processes_give_the_same_weights(sample, tmp_path):
    """And the same figures: a global batch of 12, an uneven last one, frozen BatchNorm and no dropout."""
    found = []
    for processes in (1, 2, 3):
        folder = tmp_path / str(processes)
        more = ("--epochs", "1", "--batch_size", str(12 // processes), "--dropout", "0", "--freeze_batchnorm")
        if processes == 1:
            run("train_mae", sample, folder, *more)
        else:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            command = [sys.executable, *launch, "train_mae.py", *flags(sample, folder), *more]
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-2000:]
        (only,) = folder.iterdir()
        found.append((weights(only), json.loads((only / "results.json").read_text())))
        config = json.loads((only / "config.json").read_text())
        assert config["training"]["effective_batch_size"] == 12
        assert config["dataset"]["train_samples"] % 12 != 0
    (first, results), *others = found
    for state, other in others:
        assert max((state[key] - first[key]).abs().max() for key in first) < 1e-6
        for name, value in results["metrics"]["test"].items():
            if isinstance(value, float):
                assert other["metrics"]["test"][name] == pytest.approx(value, abs=1e-4), name


def test_wrong_flags(capsys):
    for argv, words in (
        (["--dropout", "1.5"], "1.5"),
        (["--epoch", "3"], "--epochs"),
        (["--exclude", "nothing"], "invalid choice"),
    ):
        with pytest.raises(SystemExit) as caught:
            train_mae.parse_args(argv)
        assert caught.value.code == 2
        assert words in capsys.readouterr().err
