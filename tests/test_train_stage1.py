"""Stage 1 end to end: what a run leaves behind, that it repeats, resumes and scales, and that it can not
pretend."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import train_stage1
from tests import tiny_runs
from tests.jrdb_world import write_world
from utils.run.errors import DataError
from utils.run.folder import REPO_ROOT, read_json
from utils.run.script import run_script
from utils.training.checkpoint import load_checkpoint, save_checkpoint
from utils.training.interrupt import Interrupt

pytestmark = pytest.mark.usefixtures("empty_figures")  # but those of module-wide runs

TIMES = {"seconds", "samples_per_second"}


@pytest.fixture(scope="module")
def world():
    return tiny_runs.jrdb()


def arguments(world, tmp_path, *more: str) -> list[str]:
    flags = ["--data_path", str(world), "--features", "geometry", "--output_dir", str(tmp_path)]
    return [*flags, "--epochs", "2", *more]


def train(world, tmp_path, *more: str):
    """Run in this process; returns the new run folder."""
    tmp_path.mkdir(exist_ok=True)
    before = set(tmp_path.iterdir())
    train_stage1.main(train_stage1.parse_args(arguments(world, tmp_path, *more)))
    return (set(tmp_path.iterdir()) - before).pop()


def history(run) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_json(run / "history.json")]


def assert_same_run(a, b):
    for name in ("last.pth", "best_f1.pth"):
        left, right = load_checkpoint(a / name)["model"], load_checkpoint(b / name)["model"]
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert history(a) == history(b)


@pytest.fixture(scope="module")
def run():
    return tiny_runs.run_of("train_stage1")


def test_run_folder_is_complete_and_learned(run):
    assert {p.name for p in run.iterdir()} == {
        "config.json", "split.json", "sampling_report.json", "train.log", "history.json", "results.json",
        "best_accuracy.pth", "best_loss.pth", "best_f1.pth", "last.pth", "final.pth", "training_curves.png",
        "confusion_matrix.png", "probability_distributions.png", "evaluation_report.txt", "status.json",
        "test_predictions.csv",
    }  # fmt: skip
    results = read_json(run / "results.json")
    assert results["verdict"] == "LEARNED" and results["synthetic"] is False
    assert results["metrics"]["test"]["auroc"] > 0.9 > results["baselines"]["distance alone"]["auroc"]
    log = (run / "train.log").read_text().splitlines()
    assert log[-1].startswith("verdict: LEARNED") and any(line.startswith("epoch 002/002") for line in log)
    report = read_json(run / "sampling_report.json")["splits"]
    assert all(part["negatives_that_are_positives"] == 0 for part in report.values())
    config = read_json(run / "config.json")
    assert (
        config["dataset"]["train_samples"]
        == report["train"]["sampled_positives"] + (report["train"]["sampled_negatives"])
    )


def test_reported_metrics_are_those_of_the_saved_rows(run):
    import pandas
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    rows = pandas.read_csv(run / "test_predictions.csv")
    truth, results = (rows["label"] == "interaction").astype(int), read_json(run / "results.json")
    test = results["metrics"]["test"]
    assert test["auroc"] == pytest.approx(roc_auc_score(truth, rows["score"]), abs=1e-9)
    assert test["ap"] == pytest.approx(average_precision_score(truth, rows["score"]), abs=1e-9)
    assert test["f1"] == pytest.approx(f1_score(truth, rows["score"] >= results["threshold"]), abs=1e-9)


def test_config_replays_bit_for_bit(run, tmp_path):
    train_stage1.main(
        train_stage1.parse_args(["--config", str(run / "config.json"), "--output_dir", str(tmp_path)])
    )
    assert_same_run(run, next(tmp_path.iterdir()))


@contextlib.contextmanager
def stopped_after(epoch: int, monkeypatch):
    """Runs within it are interrupted once this epoch is saved."""
    save_epoch = train_stage1.save_epoch

    def save_then_die(folder, state, *rest):
        save_epoch(folder, state, *rest)
        if state["epoch"] == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_stage1, "save_epoch", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.long
def test_resumed_run_equals_the_uninterrupted_one(world, run, tmp_path, monkeypatch):
    with stopped_after(1, monkeypatch):
        train(world, tmp_path)
    stopped = next(tmp_path.iterdir())
    assert not (stopped / "results.json").exists()
    train_stage1.main(train_stage1.parse_args(["--resume", str(stopped)]))
    assert_same_run(run, stopped)


def test_a_lengthened_run_that_was_stopped_is_resumed_by_its_folder_alone(world, run, tmp_path, monkeypatch):
    lengthened = tmp_path / run.name
    shutil.copytree(run, lengthened)
    with stopped_after(3, monkeypatch):
        train_stage1.main(train_stage1.parse_args(["--resume", str(lengthened), "--epochs", "4"]))
    train_stage1.main(train_stage1.parse_args(["--resume", str(lengthened)]))
    results = read_json(lengthened / "results.json")
    assert len(history(lengthened)) == results["epochs_run"] == 4
    assert results["wall_seconds"] == sum(row["seconds"] for row in read_json(lengthened / "history.json"))
    assert_same_run(train(world, tmp_path / "whole", "--epochs", "4"), lengthened)


@pytest.fixture
def stopped(world, tmp_path, monkeypatch):
    """A run that SIGTERM ended after two steps of its second epoch."""
    steps = read_json(tiny_runs.run_of("train_stage1") / "status.json")["steps"]
    looks = iter([0] * (steps + 3) + [143])
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "agreed", lambda self: next(looks))
        with pytest.raises(SystemExit):
            train(world, tmp_path)
    return next(tmp_path.iterdir())


@pytest.mark.parametrize("known", [True, False])
def test_times_of_a_run_that_was_stopped_in_an_epoch_are_those_of_all_its_parts(stopped, known):
    """Checkpoints of earlier versions did not keep the seconds of the epoch at hand."""
    state = load_checkpoint(stopped / "last.pth")
    assert (state["epoch"], state["step"]) == (1, 2) and 0 < state.pop("seconds") < 100
    save_checkpoint(stopped / "last.pth", state | ({"seconds": 1000.0} if known else {}))
    train_stage1.main(train_stage1.parse_args(["--resume", str(stopped)]))
    rows = read_json(stopped / "history.json")
    assert (rows[1]["seconds"] > 1000) is known and rows[0]["seconds"] < 100
    samples = read_json(stopped / "config.json")["dataset"]["train_samples"]
    for row in rows:
        assert row["samples_per_second"] * row["seconds"] == pytest.approx(samples)
    assert read_json(stopped / "results.json")["wall_seconds"] == sum(row["seconds"] for row in rows)


def test_speed_counts_what_was_trained(world, tmp_path):
    (row,) = read_json(train(world, tmp_path, "--max_batches", "2", "--epochs", "1") / "history.json")
    assert row["samples_per_second"] * row["seconds"] == pytest.approx(2 * 16)


def test_the_best_loss_is_a_loss_and_one_kept_negated_is_understood(run, stopped):
    """Earlier versions kept minus the loss."""
    losses = [row["val_loss"] for row in history(run)]
    assert load_checkpoint(run / "last.pth")["best"]["loss"]["value"] == min(losses)
    assert losses[1] < losses[0], "the second epoch must become the best one"
    state = load_checkpoint(stopped / "last.pth")
    state["best"]["loss"]["value"] = -losses[0]
    save_checkpoint(stopped / "last.pth", state)
    train_stage1.main(train_stage1.parse_args(["--resume", str(stopped)]))
    best = [load_checkpoint(folder / "best_loss.pth") for folder in (run, stopped)]
    assert best[0]["epoch"] == best[1]["epoch"] == 2 and best[0]["best"] == best[1]["best"]


def test_resuming_a_finished_run_says_so(run, capsys):
    before = (run / "results.json").read_bytes()
    train_stage1.main(train_stage1.parse_args(["--resume", str(run)]))
    assert "is finished" in capsys.readouterr().out and (run / "results.json").read_bytes() == before


def test_max_batches_is_never_learned(world, tmp_path):
    results = read_json(train(world, tmp_path, "--max_batches", "2") / "results.json")
    assert results["verdict"] == "NOT LEARNED" and "truncated" in results["verdict_reason"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in range(1, 5))])
def test_shuffled_labels_end_not_learned(world, tmp_path, monkeypatch, seed):
    build = train_stage1.build_datasets

    def shuffled(args):
        data = build(args)
        for part in data.parts().values():
            part.labels = np.random.default_rng(seed).permutation(part.labels)
        return data

    monkeypatch.setattr(train_stage1, "build_datasets", shuffled)
    results = read_json(train(world, tmp_path, "--seed", str(seed)) / "results.json")
    assert results["verdict"] == "NOT LEARNED"


def test_made_up_labels_and_label_free_loss_are_flagged_in_the_log(world, tmp_path, monkeypatch):
    from datasets.jrdb.dataset import JRDBPairDataset

    class LabelFree(torch.nn.CrossEntropyLoss):
        def forward(self, logits, labels):
            return logits.std(dim=1) + logits.mean(dim=1).abs()

    monkeypatch.setattr(train_stage1.nn, "CrossEntropyLoss", LabelFree)
    read = JRDBPairDataset.__getitems__
    monkeypatch.setattr(
        JRDBPairDataset, "__getitems__",
        lambda self, i: read(self, i) | {"labels": (torch.rand(len(i)) < 0.1).long()},
    )  # fmt: skip
    log = (train(world, tmp_path, "--epochs", "1") / "train.log").read_text()
    before_first_epoch = log.split("epoch 001")[0]
    assert (
        "differ between two reads" in before_first_epoch
        and "does not depend on the labels" in before_first_epoch
    )


def test_nan_stops_at_the_step_before_the_weights_are_harmed(world, tmp_path, monkeypatch):
    from utils.run.errors import NonFiniteError

    read_model = {}

    class Poisoned(torch.nn.CrossEntropyLoss):
        steps = 0

        def forward(self, logits, labels):
            losses = super().forward(logits, labels)
            Poisoned.steps += logits.requires_grad and len(losses) == 16
            return losses * (float("nan") if Poisoned.steps == 5 else 1)

    build = train_stage1.build_model
    monkeypatch.setattr(
        train_stage1,
        "build_model",
        lambda args: (read_model.setdefault("m", (made := build(args))[0]), made[1]),
    )
    monkeypatch.setattr(train_stage1.nn, "CrossEntropyLoss", Poisoned)
    with pytest.raises(NonFiniteError, match="epoch 1 step 5"):
        train(world, tmp_path)
    assert all(p.isfinite().all() for p in read_model["m"].parameters())


def spawn(processes: int, argv: list[str], script: str = "train_stage1.py") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, script, *argv], cwd=REPO_ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_train_the_model_of_one(world, tmp_path, processes):
    """The same global batch of 12, no dropout: weights within 1e-6, one run folder, metrics of the saved
    model."""
    (tmp_path / "alone").mkdir()
    common = ["--dropout", "0", "--epochs", "1", "--optimizer", "sgd"]
    alone = train(world, tmp_path / "alone", *common, "--batch_size", "12")
    expected = load_checkpoint(alone / "last.pth")["model"]
    folder = tmp_path / "together"
    done = spawn(processes, arguments(world, folder, *common, "--batch_size", str(12 // processes)))
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = folder.iterdir()
    weights = load_checkpoint(made / "last.pth")["model"]
    assert max((weights[key] - expected[key]).abs().max() for key in expected) < 1e-6
    ours, theirs = (read_json(run / "results.json")["metrics"]["val"] for run in (alone, made))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert read_json(made / "config.json")["world_size"] == processes


def test_bad_input_is_one_clear_error_and_a_code(tmp_path, capsys):
    argv = arguments(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(SystemExit) as left:
        run_script(train_stage1.main, train_stage1.parse_args(argv))
    said = capsys.readouterr().err
    assert left.value.code == 2 and "nowhere" in said and len(said.strip().splitlines()) <= 5


def test_one_class_split_is_refused(tmp_path):
    world = write_world(tmp_path / "world", {"train": 1, "val": 1}, frames=2)
    name = world / "labels" / "labels_2d_activity_social_stitched" / "val-0_0.json"
    labels = json.loads(name.read_text())
    for records in labels["labels"].values():
        for person in records:
            person["H-interaction"] = []
    name.write_text(json.dumps(labels))
    with pytest.raises(DataError, match="val"):
        train(world, tmp_path)
