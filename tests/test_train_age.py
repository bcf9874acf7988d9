"""train_mae.py and train_ddp.py: equal but for the recipe; whole, replayed and distributed runs."""

import csv
import difflib
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn import metrics
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import train_ddp
import train_mae
from prediction.trained import open_trained
from tests.tiny_runs import (
    assert_same_run,
    flags_of,
    furthest_weight,
    history,
    replay,
    run_of,
    train,
    train_on,
    ultrasound,
)
from utils.run.claim import is_unfinished
from utils.run.errors import CommandError
from utils.run.folder import REPO_ROOT, read_json
from utils.training.checkpoint import load_checkpoint, save_checkpoint
from utils.watch.comparison import settings

SCRIPTS = {"train_mae": train_mae, "train_ddp": train_ddp}
ONE_STEP = ("--epochs", 1, "--max_batches", 1)


def config_of(run) -> dict:
    return read_json(run / "config.json")


def test_the_two_scripts_differ_in_the_recipe_only():
    one, other = ((REPO_ROOT / f"{name}.py").read_text().splitlines() for name in SCRIPTS)
    places = Counter()
    for kind, start, *_ in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        headings = [line for line in one[:start] if re.match("def |    # [A-Z]|import", line)]
        if kind != "equal":
            places[headings[-1].strip() if headings else "docstring"] += 1
    parse_args = "def parse_args(argv: list[str] | None = None) -> argparse.Namespace:"
    assert set(places) - {"def build_recipe("} == {"docstring", "import math", parse_args, "# Training"}
    assert places["import math"] == 1 and places["# Training"] == 2  # names; clipping, the scheduler's step


@pytest.fixture(scope="module", params=list(SCRIPTS))
def finished(request):
    return request.param, run_of(request.param)


def test_run_folder(finished):
    script, folder = finished
    names = {path.name for path in folder.iterdir()}
    expected = "config.json split.json train.log history.json best_model.pth last.pth final.pth results.json "
    expected += "training_curves.png scatter.png bland_altman.png error_by_age.png "
    expected += "evaluation_report.txt test_predictions.csv"
    assert set(expected.split()) <= names
    results = read_json(folder / "results.json")
    assert results["task"] == {"train_mae": "age_mae", "train_ddp": "age_mse"}[script]
    best = min(("train mean", "train median"), key=lambda name: results["baselines"][name]["subject_mae"])
    gain = results["metrics"]["test"]["subject_mae"] - results["baselines"][best]["subject_mae"]
    assert f"; against {best}: MAE per subject (years) {gain:+.3f} [" in results["verdict_reason"]
    assert results["synthetic"] is True
    judged = [row["val_subject_mae"] for row in read_json(folder / "history.json")]
    assert results["best_epoch"] == 1 + judged.index(min(judged))  # by people, as the verdict is
    log = (folder / "train.log").read_text()
    assert "expected time: " in log
    assert log.splitlines()[-1].startswith("verdict: ")


def test_the_reference_is_ridge_regression_on_the_greys(finished):
    script, folder = finished
    flags = SCRIPTS[script].parse_args(["--config", str(folder)])
    data = SCRIPTS[script].build_datasets(flags)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
    preds = model.fit(data.train.statistics(), data.train.ages).predict(data.parts["test"].statistics())
    errors = pandas.Series(preds - data.parts["test"].ages).groupby(data.parts["test"].subject_ids).mean()
    results = read_json(folder / "results.json")
    ridge = results["baselines"]["ridge regression"]["subject_mae"]
    assert ridge == pytest.approx(errors.abs().mean(), rel=1e-5)
    gain = results["metrics"]["test"]["subject_mae"] - ridge
    assert f"ridge regression: MAE per subject (years) {gain:+.3f} [" in results["reference"]
    better = f"a reference (is|may be) better: MAE per subject \\(years\\) {ridge:.3f}, the model's"
    assert bool(re.search(better, (folder / "evaluation_report.txt").read_text())) == (gain > 0)


def test_metrics_are_those_of_sklearn_on_the_written_rows(finished):
    _, folder = finished
    with open(folder / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ages, preds = ([float(row[name]) for row in rows] for name in ("age", "prediction"))
    test = read_json(folder / "results.json")["metrics"]["test"]
    assert test["mae"] == pytest.approx(metrics.mean_absolute_error(ages, preds), rel=1e-6)
    assert test["rmse"] == pytest.approx(metrics.root_mean_squared_error(ages, preds), rel=1e-6)
    assert test["r2"] == pytest.approx(metrics.r2_score(ages, preds), rel=1e-6)
    people = {row["subject"]: (float(row["age"]), float(row["subject_prediction"])) for row in rows}
    subject_mae = metrics.mean_absolute_error(*zip(*people.values(), strict=True))
    assert test["subject_mae"] == pytest.approx(subject_mae, rel=1e-6)


def test_config_says_what_was_done(finished):
    script, folder = finished
    config = config_of(folder)
    assert (config["script_name"], config["script_version"]) == (f"{script}.py", "1.0")
    dataset, training = config["dataset"], config["training"]
    assert training["loss_function"] == {"train_mae": "L1Loss", "train_ddp": "MSELoss"}[script]
    assert training["optimizer"] == {"train_mae": "AdamW", "train_ddp": "Adam"}[script]
    assert training["optimizer_params"]["betas"] == [0.9, 0.999]
    assert dataset["split_method"] == "split.json beside the table"
    assert "none shared" in dataset["data_leakage_prevention"]
    assert sum(dataset["groups"].values()) == 16
    parts = (dataset[f"{split}_samples"] for split in ("train", "val", "test"))
    assert sum(parts) == dataset["total_samples"]
    assert (dataset["random_seed"], dataset["test_size"], dataset["val_size"]) == (42, 0.2, 0.1)
    assert dataset["target_unit"] == "years"
    assert training["effective_batch_size"] == 8
    assert config["optimizations"]["gradient_clipping"] == (script == "train_mae")
    assert config["optimizations"]["cosine_annealing"] == (script == "train_mae")
    assert config["optimizations"]["early_stopping"] == (script == "train_mae")


def test_diff_of_two_configs_shows_what_differs_only(tmp_path):
    runs = [train("train_mae", tmp_path / rate, *ONE_STEP, "--lr", rate) for rate in ("1e-3", "2e-3")]
    pairs = zip(*((run / "config.json").read_text().splitlines() for run in runs), strict=True)
    changed = {line.split(":")[0].strip() for a, b in pairs if a != b for line in (a, b)}
    assert changed <= {'"timestamp"', '"output_dir"', '"learning_rate"', '"lr"', '"initial_lr"', '"commit"'}


def test_warm_up_and_cosine_end_exactly(tmp_path):
    schedule = ("--epochs", 6, "--warmup_epochs", 3, "--lr", "1e-3", "--eta_min", "1e-6")
    run = train("train_mae", tmp_path, "--max_batches", 1, *schedule)
    rates = [row["lr"] for row in history(run)]
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates[3] > rates[4] > rates[5]
    assert rates[5] == pytest.approx(1e-6)
    recorded = config_of(run)["training"]["scheduler_params"]
    assert (recorded["warmup_epochs"], recorded["T_max"], recorded["eta_min"]) == (3, 3, 1e-6)
    assert config_of(run)["optimizations"]["warmup"] is True


@pytest.mark.parametrize(
    ("flags", "recorded"),
    [
        (("--epochs", 1), {"T_max": 1, "eta_min": 1e-7}),
        (("--epochs", 3, "--warmup_epochs", 1), {"T_max": 2, "eta_min": 1e-7}),
        (("--epochs", 2, "--warmup_epochs", 0, "--scheduler", "none"), {}),
    ],
)
def test_only_the_schedule_that_was_used_is_recorded(tmp_path, flags, recorded):
    """The first epoch of none of these has less than the full rate."""
    run = train("train_mae", tmp_path, "--max_batches", 1, "--lr", "1e-3", *flags)
    schedule = config_of(run)["training"]["scheduler_params"]
    kept = {key: schedule[key] for key in ("T_max", "eta_min", "warmup_epochs") if key in schedule}
    assert kept == recorded
    assert config_of(run)["optimizations"]["warmup"] is False
    assert history(run)[0]["lr"] == 1e-3


def test_the_plateau_of_the_plain_recipe_is_one_of_the_val_mse():
    run = run_of("train_ddp")
    schedule = load_checkpoint(run / "last.pth")["scheduler"]
    assert schedule["best"] == min(row["val_mse"] for row in history(run)) and schedule["factor"] == 0.5


def test_replay_from_config_is_bit_identical(finished, tmp_path):
    script, run = finished
    assert_same_run(run, replay(script, run, tmp_path))


def test_averaged_weights_are_what_is_kept(tmp_path):
    run = train("train_mae", tmp_path, "--epochs", 2, "--ema_decay", "0.9", "--lr", "1e-2")
    state = load_checkpoint(run / "last.pth")
    key = "head.4.weight"
    assert not torch.equal(state["model"][key], state["trained"][key])
    assert state["model"][key].norm() < state["trained"][key].norm()


@pytest.mark.long
def test_one_two_and_three_processes_give_the_same_weights(tmp_path):
    """And the same figures: a global batch of 12, an uneven last one, frozen BatchNorm and no dropout."""
    common = ("--epochs", 1, "--dropout", 0, "--freeze_batchnorm", "--batch_size")
    alone = train("train_mae", tmp_path / "1", *common, 12)
    others = [train_on(n, "train_mae", tmp_path / str(n), *common, 12 // n) for n in (2, 3)]
    assert config_of(alone)["dataset"]["train_samples"] % 12 != 0
    expected = read_json(alone / "results.json")["metrics"]["test"]
    for run in others:
        assert config_of(run)["training"]["effective_batch_size"] == 12
        assert furthest_weight(alone, run) < 1e-6
        test = read_json(run / "results.json")["metrics"]["test"]
        for name, value in expected.items():
            if isinstance(value, float):
                assert test[name] == pytest.approx(value, abs=1e-4), name


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


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path):
    run = train("train_mae", tmp_path, "--epochs", 6, "--lr", 1e-9, "--patience", 2)
    stopped = read_json(run / "results.json")
    assert stopped["epochs_run"] < 6 and stopped["warnings"][0].startswith("hardly any skill: ")
    train_mae.main(train_mae.parse_args(["--resume", str(run)]))  # the same patience: finished
    assert read_json(run / "results.json") == stopped
    train_mae.main(train_mae.parse_args(["--resume", str(run), "--patience", "0"]))
    assert read_json(run / "results.json")["epochs_run"] == 6 == len(read_json(run / "history.json"))
    config = config_of(run)
    assert config["args"]["patience"] == config["training"]["patience"] == 0
    assert config["optimizations"]["early_stopping"] is False


def test_weights_of_a_run_that_was_trained_on_whom_this_one_tests_are_refused(tmp_path):
    begun = train("train_mae", tmp_path, *ONE_STEP, "--fold", "1/4")
    with pytest.raises(CommandError, match="Leakage: the run behind --weights .*\n.*with --fold 1/4"):
        train("train_mae", tmp_path, *ONE_STEP, "--fold", "2/4", "--weights", begun / "last.pth")
    copied = shutil.copy(begun / "last.pth", tmp_path / "pretrained.pth")
    with pytest.raises(CommandError, match="Leakage: the run behind --weights"):
        train("train_mae", tmp_path, *ONE_STEP, "--fold", "2/4", "--weights", copied)
    train("train_mae", tmp_path, *ONE_STEP, "--fold", "1/4", "--weights", begun)
    state = load_checkpoint(copied)
    state["trained_on"]["fingerprint"] = "of other people with the same names"
    save_checkpoint(copied, state)
    train("train_mae", tmp_path, *ONE_STEP, "--fold", "2/4", "--weights", copied)


def test_one_image_left_for_batchnorm_is_refused_before_the_first_epoch(tmp_path):
    args = train_mae.parse_args([str(flag) for flag in flags_of("train_mae")])
    images = len(train_mae.build_datasets(args).train)
    refused = rf"with {images} train samples, a process gets a single one in the last .*\n.* {images - 2} or"
    flags = ["--model", "resnet18", "--batch_size", images - 1]
    for limit in (0, 2):  # two batches are an epoch
        with pytest.raises(CommandError, match=refused):
            train("train_mae", tmp_path, *flags, "--max_batches", limit)
    train(
        "train_mae", tmp_path, "--batch_size", images - 1, "--image_size", 64, "--epochs", 1
    )  # a larger map


def test_errors_are_reported_by_group(tmp_path):
    run = train("train_mae", tmp_path, *ONE_STEP, "--group_column", "Sex")
    by_group = read_json(run / "results.json")["metrics"]["test"]["by"]["group"]
    with open(run / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(by_group) == {row["group"] for row in rows} <= {"F", "M"}
    for sex, found in by_group.items():
        people = {row["subject"]: row for row in rows if row["group"] == sex}
        errors = [abs(float(row["subject_prediction"]) - float(row["age"])) for row in people.values()]
        assert found["subjects"] == len(people)
        assert found["mae"] == pytest.approx(sum(errors) / len(errors))
    assert "by group, per subject, years" in (run / "evaluation_report.txt").read_text()


def test_the_grey_range_that_the_train_images_decided_is_of_one_run_only(tmp_path):
    """It is in the checkpoint, for whoever uses the run, and no flag: another train part decides anew."""
    images = Path(shutil.copytree(ultrasound().parents[1], tmp_path / "TA")) / "Healthy/Images"
    parse = lambda *argv: train_mae.parse_args([*map(str, flags_of("train_mae")), *map(str, argv)])  # noqa: E731
    splits = [train_mae.build_datasets(parse("--fold", f"{k}/3")).split for k in (1, 2)]
    bright = set(splits[0]["train"]) & set(splits[1]["val"])
    for path in images.iterdir():
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey * (16 if path.name.split("_")[1] in bright else 4)).save(path)
    run = train("train_mae", tmp_path / "runs", *ONE_STEP, "--image_dir", images, "--fold", "1/3")
    config = config_of(run)
    assert (config["args"]["intensity_range"], config["dataset"]["intensity_range"]) == (None, [0, 4095])
    trained = open_trained(run, torch.device("cpu")).args
    assert trained.intensity_range == [0, 4095]
    same, other = (train_mae.parse_args(["--config", str(run), *more]) for more in ([], ["--fold", "2/3"]))
    again, fold = map(train_mae.build_datasets, (same, other))
    assert (again.intensity_range, fold.intensity_range) == ([0, 4095], [0, 1023])
    assert again.train.decoded.path == train_mae.build_datasets(trained).train.decoded.path  # not anew
    assert settings(config, folds=True) == settings(config | {"args": vars(other)}, folds=True)
    (run / "results.json").unlink()  # as before the test pass
    typed = train_mae.parse_args(["--config", str(run), "--intensity_range", "0", "4095"])
    assert is_unfinished(run, same, "train_mae.py") and not is_unfinished(run, typed, "train_mae.py")
