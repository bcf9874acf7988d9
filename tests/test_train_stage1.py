"""Stage 1 end to end: what a run leaves behind, that it repeats and scales, and that it cannot pretend.

Stopped and resumed, and with planted faults: tests/faults.
"""

import json
import shutil

import numpy as np
import pytest
import torch

import monitor_training
import train_stage1
import train_stage2
from datasets.jrdb.labels import LABEL_FOLDER
from datasets.jrdb.pairs import PairRules
from prediction.trained import open_trained
from tests import tiny_runs
from tests.jrdb_world import write_world
from tests.tiny_runs import (
    assert_same_run,
    furthest_weight,
    history,
    replay,
    run_of,
    stopped_after,
    train,
    train_on,
)
from utils.metrics.classification import choose_threshold
from utils.report import interaction
from utils.report.classification import probabilities
from utils.run.errors import CommandError, DataError
from utils.run.folder import read_arrays, read_json, write_json
from utils.run.script import run_script
from utils.training.checkpoint import load_checkpoint, save_checkpoint
from utils.training.interrupt import Interrupt

NAME = "train_stage1"


@pytest.fixture(scope="module")
def run():
    return run_of(NAME)


def test_run_folder_is_complete_and_learned(run):
    assert {p.name for p in run.iterdir()} == {
        "config.json", "split.json", "hashes.json", "references.npz",
        "sampling_report.json", "train.log", "history.json", "results.json",
        "best_accuracy.pth", "best_loss.pth", "best_f1.pth", "last.pth", "final.pth", "training_curves.png",
        "confusion_matrix.png", "probability_distributions.png", "reliability.png", "mistakes.png",
        "suspects.csv", "worst_groups.csv", "evaluation_report.txt", "status.json", "test_predictions.csv",
    }  # fmt: skip
    results = read_json(run / "results.json")
    assert results["verdict"] == "LEARNED" and results["synthetic"] is False
    assert results["metrics"]["test"]["auroc"] > 0.9 > results["baselines"]["distance alone"]["auroc"]
    log = (run / "train.log").read_text().splitlines()
    assert log[-1].startswith("verdict: LEARNED") and any(line.startswith("epoch 002/002") for line in log)
    report = read_json(run / "sampling_report.json")["splits"]
    assert all(part["negatives_that_are_positives"] == 0 for part in report.values())
    config = read_json(run / "config.json")
    kept = report["train"]["sampled_positives"] + report["train"]["sampled_negatives"]
    assert config["dataset"]["train_samples"] == kept
    scale = load_checkpoint(run / "best_f1.pth")["model"]["trunk.geometry.mean"].numpy()
    seen = read_arrays(run / "references.npz")["train_inputs"]  # of train, never of val or test
    assert scale == pytest.approx(np.nanmean(seen, axis=0, dtype=float), rel=1e-4, abs=1e-5)


def test_the_strongest_reference_stands_wherever_the_verdict_stands(run, capsys):
    results = read_json(run / "results.json")
    best = max(("logistic regression", "boosted trees"), key=lambda name: results["baselines"][name]["ap"])
    assert f" than {best} (AP " in results["reference"] and results["verdict_reason"].startswith(
        "beats distance"
    )
    sentence = f"LEARNED ({results['verdict_reason']}); {results['reference']}"
    assert f"verdict: {sentence}; files in {run}" in (run / "train.log").read_text()
    report = (run / "evaluation_report.txt").read_text()
    assert results["verdict_reason"] in report and results["reference"] in report
    data = f"data: {tiny_runs.jrdb()}"
    assert data in report and data in (run / "train.log").read_text()
    monitor_training.main(monitor_training.parse_args([str(run)]))
    assert results["reference"] in " ".join(capsys.readouterr().out.split())


def test_probabilities_are_calibrated_on_val_and_kept_with_the_weights(run):
    results, state = read_json(run / "results.json"), load_checkpoint(run / "best_f1.pth")
    assert results["calibration"] == state["calibration"] and state["calibration"]["slope"] > 0
    test = results["metrics"]["test"]
    assert test["calibration_error"] < 0.1 and test["brier"] < test["brier_prior"]
    shown = f"Brier score {test['brier']:.4f}, better than val's shares of the classes ("
    assert shown in (run / "evaluation_report.txt").read_text()
    text = probabilities(np.array([0, 1]), np.full(2, 0.50001), None, 0.5, "test")[2]
    assert text.endswith("Brier score 0.2500, the same as val's shares of the classes (0.2500)")


def test_reported_metrics_are_those_of_the_saved_rows(run):
    import pandas
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    rows = pandas.read_csv(run / "test_predictions.csv")
    truth, results = (rows["label"] == "interaction").astype(int), read_json(run / "results.json")
    test = results["metrics"]["test"]
    assert test["auroc"] == pytest.approx(roc_auc_score(truth, rows["score"]), abs=1e-9)
    assert test["ap"] == pytest.approx(average_precision_score(truth, rows["score"]), abs=1e-9)
    assert test["f1"] == pytest.approx(f1_score(truth, rows["score"] >= results["threshold"]), abs=1e-9)
    known, near = read_arrays(run / "references.npz"), -rows["distance_widths"]
    own, of_val = (choose_threshold(*pair) for pair in (
        (truth.to_numpy(), near.to_numpy()), (known["val_labels"], -known["val_inputs"][:, 0])))  # fmt: skip
    assert f1_score(truth, near >= of_val) != f1_score(truth, near >= own), "the test tests nothing"
    assert test["brier_prior"] == pytest.approx(((known["val_labels"].mean() - truth) ** 2).mean(), abs=1e-9)
    alone = results["baselines"]["distance alone"]["f1"]  # by a threshold of val, as the model's
    assert alone == pytest.approx(f1_score(truth, near >= of_val), abs=1e-9)


def test_pairs_that_interact_from_beyond_the_distance_limit_are_misses_end_to_end(tmp_path, monkeypatch):
    """Every frame of the 6 test sequences of 12 frames has 4 interacting couples."""
    import pandas

    weights, scores = [], interaction.reference_scores
    noted = lambda *data, **how: weights.append(how["weights"]) or scores(*data, **how)  # noqa: E731
    monkeypatch.setattr(interaction, "reference_scores", noted)
    run = train(NAME, tmp_path, "--epochs", 1, "--distance_multiplier", 1)
    assert np.array_equal(weights, [read_arrays(run / "references.npz")["train_weights"]])
    rows = pandas.read_csv(run / "test_predictions.csv")
    found = ((rows["label"] == "interaction") & (rows["prediction"] == "interaction")).sum()
    assert (rows["label"] == "interaction").sum() < 288 - 20, "hardly any stands too far apart"
    recall = read_json(run / "results.json")["metrics"]["test"]["recall_end_to_end"]
    assert recall == pytest.approx(found / 288) and 0 < recall < 1


def test_config_replays_bit_for_bit(run, tmp_path):
    again = replay(NAME, run, tmp_path)
    assert_same_run(run, again)
    log = (again / "train.log").read_text()
    assert "loss, optimizer and schedule: the same as of --config" in log
    same = "data, split, processes, threads, device, PyTorch: the same as of --config"
    assert f"{same} {run / 'config.json'}\n" in log


@pytest.mark.parametrize(
    ("parts", "differs"), [((3, 2, 6), "data and split"), ((4, 2, 6), "data"), ((0, 0, 0), "split")]
)
def test_a_config_on_other_data_or_another_split_is_said_not_to_repeat_its_run(run, tmp_path, parts, differs):
    data = tmp_path / "data"
    if any(parts):
        write_world(data, dict(zip(("train", "val", "test"), parts, strict=True)), seed=1)
    else:
        shutil.copytree(tiny_runs.jrdb(), data)
        split = read_json(data / "split.json")
        write_json(data / "split.json", split | {"val": split["test"], "test": split["val"]})
    short = ["--epochs", 1, "--max_batches", 1, "--output_dir", tmp_path / "o"]
    tiny_runs.run_main(NAME, "--config", run / "config.json", "--data_path", data, *short)
    log = next((tmp_path / "o").glob("*/train.log")).read_text()
    assert f"not the {differs} of --config {run / 'config.json'}: this run does not repeat that one" in log


def test_a_lengthened_run_that_was_stopped_is_resumed_by_its_folder_alone(run, tmp_path, monkeypatch):
    lengthened = tmp_path / run.name
    shutil.copytree(run, lengthened)
    with stopped_after(3, monkeypatch):
        train_stage1.main(train_stage1.parse_args(["--resume", str(lengthened), "--epochs", "4"]))
    train_stage1.main(train_stage1.parse_args(["--resume", str(lengthened)]))
    results = read_json(lengthened / "results.json")
    assert len(history(lengthened)) == results["epochs_run"] == 4
    assert results["wall_seconds"] == sum(row["seconds"] for row in read_json(lengthened / "history.json"))
    whole = train(NAME, tmp_path / "whole", "--epochs", 4)
    assert history(whole) == history(lengthened) and furthest_weight(whole, lengthened) == 0


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that SIGTERM ended after two steps of its second epoch."""
    steps = read_json(run_of(NAME) / "status.json")["steps"]
    looks = iter([0] * (steps + 3) + [143])
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "agreed", lambda self: next(looks))
        with pytest.raises(SystemExit):
            train(NAME, tmp_path)
    return next(tmp_path.iterdir())


def test_times_of_a_run_that_was_stopped_in_an_epoch_are_those_of_all_its_parts(stopped):
    state = load_checkpoint(stopped / "last.pth")
    assert (state["epoch"], state["step"]) == (1, 2) and 0 < state["seconds"] < 100
    save_checkpoint(stopped / "last.pth", state | {"seconds": 1000.0})
    train_stage1.main(train_stage1.parse_args(["--resume", str(stopped)]))
    rows = read_json(stopped / "history.json")
    assert rows[1]["seconds"] > 1000 > 100 > rows[0]["seconds"]
    samples = read_json(stopped / "config.json")["dataset"]["train_samples"]
    for row in rows:
        assert row["samples_per_second"] * row["seconds"] == pytest.approx(samples)
    assert read_json(stopped / "results.json")["wall_seconds"] == sum(row["seconds"] for row in rows)


def test_what_belongs_to_the_weights_outlives_a_second_stop(stopped, monkeypatch):
    before = load_checkpoint(stopped / "last.pth")
    monkeypatch.setattr(Interrupt, "agreed", lambda self: 143)  # before the first step
    with pytest.raises(SystemExit):
        train_stage1.main(train_stage1.parse_args(["--resume", str(stopped)]))
    after = load_checkpoint(stopped / "last.pth")
    assert after.keys() == before.keys() and after["threshold"] == before["threshold"] is not None


def test_a_run_without_a_gradient_scaler_goes_on_where_amp_needs_one(stopped, monkeypatch):
    """bfloat16 needs none; on a GPU without it, --amp means float16."""
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    monkeypatch.setattr(train_stage1, "make_scaler", lambda device, amp: scaler)
    train_stage1.main(train_stage1.parse_args(["--resume", str(stopped)]))
    assert (stopped / "results.json").is_file() and load_checkpoint(stopped / "last.pth")["scaler"]


def test_a_checkpoint_saved_within_an_epoch_has_no_threshold_to_judge_with(stopped):
    path = stopped / "last.pth"
    for epoch, change in ((2, {}), (1, {"epoch": 0, "step": 0, "threshold": None})):
        save_checkpoint(path, load_checkpoint(path) | change)
        refused = f"in the middle of epoch {epoch}: .*\ngo on .* --resume {path.parent}$"
        with pytest.raises(CommandError, match=refused):
            open_trained(path, torch.device("cpu"))
        with pytest.raises(CommandError, match=refused):
            train_stage2.main(train_stage2.parse_args(["--stage1_checkpoint", str(path)]))


def test_a_run_in_the_working_directory_is_not_taken_for_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(run_of(NAME), tmp_path / "here"))
    (tmp_path / "here" / "hashes.json").unlink()
    made = train(NAME, tmp_path, "--epochs", 1, "--max_batches", 1)
    assert "--weights" not in (made / "train.log").read_text()


def test_speed_counts_what_was_trained(tmp_path):
    (row,) = read_json(
        train(NAME, tmp_path, "--max_batches", 2, "--epochs", 1, "--batch_size", 16) / "history.json"
    )
    assert row["samples_per_second"] * row["seconds"] == pytest.approx(2 * 16)


def test_the_best_loss_is_a_loss(run):
    losses = [row["val_loss"] for row in history(run)]
    assert load_checkpoint(run / "last.pth")["best"]["loss"]["value"] == min(losses)
    assert load_checkpoint(run / "best_loss.pth")["epoch"] == 1 + losses.index(min(losses))


def test_max_batches_is_never_learned(tmp_path):
    results = read_json(train(NAME, tmp_path, "--epochs", 1, "--max_batches", 2) / "results.json")
    assert results["verdict"] == "NOT LEARNED" and "truncated" in results["verdict_reason"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in range(1, 5))])
def test_shuffled_labels_end_not_learned(tmp_path, monkeypatch, seed):
    build = train_stage1.build_datasets

    def shuffled(args):
        data = build(args)
        for part in data.parts.values():
            part.labels = np.random.default_rng(seed).permutation(part.labels)
        return data

    monkeypatch.setattr(train_stage1, "build_datasets", shuffled)
    results = read_json(train(NAME, tmp_path, "--seed", seed) / "results.json")
    assert results["verdict"] == "NOT LEARNED"


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_train_the_model_of_one(tmp_path, processes):
    """The same global batch of 12, no dropout: weights within 1e-6, one run folder, metrics of the saved
    model."""
    common = ["--dropout", 0, "--epochs", 1, "--optimizer", "sgd", "--batch_size"]
    alone = train(NAME, tmp_path / "alone", *common, 12)
    made = train_on(processes, NAME, tmp_path / "together", *common, 12 // processes)
    assert furthest_weight(alone, made) < 1e-6
    ours, theirs = (read_json(run / "results.json")["metrics"]["val"] for run in (alone, made))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert read_json(made / "config.json")["world_size"] == processes


def test_the_rules_by_themselves_are_the_defaults_of_the_flags():
    flags, rules = vars(train_stage1.parse_args([])), vars(PairRules())
    assert {name: flags[name] for name in rules} == rules


def test_bad_input_is_one_clear_error_and_a_code(tmp_path, capsys):
    argv = ["--data_path", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as left:
        run_script(train_stage1.main, train_stage1.parse_args(argv))
    said = capsys.readouterr().err
    assert left.value.code == 2 and "nowhere" in said and len(said.strip().splitlines()) <= 5


def test_one_class_split_is_refused(tmp_path):
    world = write_world(tmp_path / "world", {"train": 1, "val": 1}, frames=2)
    name = world / LABEL_FOLDER / "val-0_0.json"
    labels = json.loads(name.read_text())
    for records in labels["labels"].values():
        for person in records:
            person["H-interaction"] = []
    name.write_text(json.dumps(labels))
    with pytest.raises(DataError, match="val"):
        train(NAME, tmp_path / "out", "--data_path", world)
