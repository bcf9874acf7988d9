"""The anomaly script end to end on the tiny sample: what a run leaves behind, that it repeats and resumes,
and that it can not pretend.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import train_anomaly_with_labels as script
from datasets.anovox.augmentation import CORRUPTIONS
from datasets.anovox.dataset import AnoVoxDataset
from tests import tiny_runs
from tests.anovox_world import copy_of, frame_files, scenario_folders, tiny_sample
from utils.metrics.detection import sigmoid
from utils.run.errors import CommandError, DataError
from utils.run.folder import REPO_ROOT, read_json
from utils.training.checkpoint import load_checkpoint
from utils.training.distributed import evaluation_batches, make_loader, start_processes
from utils.training.learning import LearningCheck

pytestmark = pytest.mark.usefixtures("empty_figures")  # but those of module-wide runs

TIMES = {"seconds", "samples_per_second"}


@pytest.fixture(scope="module", autouse=True)
def private_cache(tmp_path_factory):
    """Decoded frames of the tests go to a folder that is thrown away."""
    from datasets import cache

    original, cache.CACHE_DIR = cache.CACHE_DIR, tmp_path_factory.mktemp("cache")
    yield
    cache.CACHE_DIR = original


def arguments(folder, *more, data=None):
    flags = ["--data_path", data or tiny_sample(), "--image_size", 64, 96, "--max_points", 128, "--epochs", 2]
    return [str(flag) for flag in [*flags, "--output_dir", folder, *more]]


def train(folder, *more, data=None):
    """Run in this process; returns the new run folder."""
    before = set(folder.iterdir())
    script.main(script.parse_args(arguments(folder, *more, data=data)))
    return (set(folder.iterdir()) - before).pop()


def assert_same_run(a, b):
    for name in ("last.pth", "best_auroc.pth"):
        left, right = load_checkpoint(a / name)["model"], load_checkpoint(b / name)["model"]
        assert all(torch.equal(left[key], right[key]) for key in left)
    histories = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_json(run / "history.json")]
        for run in (a, b)
    ]
    assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def run():
    return tiny_runs.run_of("train_anomaly_with_labels")


def test_run_folder_is_complete(run):
    assert {path.name for path in run.iterdir()} == {
        "config.json", "split.json", "train.log", "history.json", "results.json", "best_auroc.pth",
        "last.pth", "final.pth", "status.json", "training_curves.png", "confusion_matrix.png", "roc_pr.png",
        "probability_distributions.png", "evaluation_report.txt", "test_predictions.csv",
    }  # fmt: skip
    results, config = read_json(run / "results.json"), read_json(run / "config.json")
    assert results["synthetic"] is True and config["dataset"]["test_samples"] == 12
    assert set(results["metrics"]["test"]) >= {
        "auroc", "ap", "fpr95", "f1", "calibration_error", "auroc_within_scenarios", "pixel_ap", "point_ap",
        "false_alarms_per_minute", "delay_seconds", "encounters_missed",
    }  # fmt: skip
    assert 0 <= results["metrics"]["test"]["pixel_ap_chance"] < 0.2
    row = read_json(run / "history.json")[1]
    shown = {
        "train_loss",
        "train_accuracy",
        "train_mean_score",
        "train_location_loss",
        "val_auroc",
        "val_fpr95",
    }
    assert shown <= set(row)
    assert (run / "train.log").read_text().splitlines()[-1].startswith("verdict: ")


def test_reported_metrics_are_those_of_the_saved_rows(run):
    import pandas
    from sklearn.metrics import average_precision_score, roc_auc_score

    rows, results = pandas.read_csv(run / "test_predictions.csv"), read_json(run / "results.json")
    test = results["metrics"]["test"]
    assert test["auroc"] == pytest.approx(roc_auc_score(rows["label"], rows["score"]), abs=1e-9)
    assert test["ap"] == pytest.approx(average_precision_score(rows["label"], rows["score"]), abs=1e-9)
    assert np.allclose(rows["score"], sigmoid(rows["logit"] / results["temperature"]))
    assert np.array_equal(rows["alarm"], rows["score"] >= results["threshold"])


def test_config_replays_bit_for_bit(run, tmp_path):
    script.main(script.parse_args(["--config", str(run / "config.json"), "--output_dir", str(tmp_path)]))
    assert_same_run(run, next(tmp_path.iterdir()))


@pytest.mark.long
def test_resumed_run_equals_the_uninterrupted_one(run, tmp_path, monkeypatch):
    save_epoch = script.save_epoch

    def save_then_die(folder, state, *rest):
        save_epoch(folder, state, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "save_epoch", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.undo()
    stopped = next(tmp_path.iterdir())
    script.main(script.parse_args(["--resume", str(stopped)]))
    assert_same_run(run, stopped)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in range(1, 5))])
def test_permuted_labels_end_not_learned(tmp_path, monkeypatch, seed):
    build = script.build_datasets

    def permuted(args):
        data = build(args)
        for part in data.parts().values():
            part.labels = np.random.default_rng(seed).permutation(part.labels)
        return data

    monkeypatch.setattr(script, "build_datasets", permuted)
    results = read_json(train(tmp_path, "--seed", seed, "--epochs", 1) / "results.json")
    assert results["verdict"] == "NOT LEARNED"


def test_max_batches_is_never_learned(tmp_path):
    results = read_json(train(tmp_path, "--max_batches", 1, "--epochs", 1) / "results.json")
    assert results["verdict"] == "NOT LEARNED" and "truncated" in results["verdict_reason"]


def test_the_loss_without_labels_is_flagged_before_the_first_epoch(tmp_path, monkeypatch):
    """The requirement's broken loss: the mean of the scores plus a tenth of their deviation."""

    class LabelFree(script.AnomalyLoss):
        def forward(self, logits, labels):
            scores = torch.sigmoid(logits)
            return (scores.mean() + 0.1 * scores.std()).expand(len(logits))

    monkeypatch.setattr(script, "AnomalyLoss", LabelFree)
    log = (train(tmp_path, "--epochs", 1) / "train.log").read_text()
    assert "does not depend on the labels" in log.split("epoch 001")[0]


def test_labels_that_change_between_reads_are_flagged(tmp_path, monkeypatch):
    read = AnoVoxDataset.__getitems__
    monkeypatch.setattr(
        AnoVoxDataset,
        "__getitems__",
        lambda self, i: read(self, i) | {"labels": (torch.rand(len(i)) < 0.5).long()},
    )
    log = (train(tmp_path, "--epochs", 1) / "train.log").read_text()
    assert "differ between two reads" in log.split("epoch 001")[0]


@pytest.mark.parametrize(("gamma", "weight"), [(0.0, 1.0), (0.0, 3.0), (2.0, 1.5)])
def test_loss_by_hand(gamma, weight):
    logits, labels = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1, 0, 0])
    p = torch.sigmoid(torch.where(labels == 1, logits, -logits))
    expected = -((1 - p) ** gamma) * p.log() * torch.where(labels == 1, weight, 1.0)
    loss = script.AnomalyLoss(weight, gamma)
    assert torch.allclose(loss(logits, labels), expected, atol=1e-6)
    assert LearningCheck(loss, labels, 1).constant_loss < expected.mean()


def test_corrupted_sensors_change_the_scores(run):
    args = script.parse_args(["--config", str(run / "config.json")])
    data, processes = script.build_datasets(args), start_processes("cpu")
    model, _ = script.build_model(args)
    model.load_state_dict(load_checkpoint(run / "best_auroc.pth")["model"])
    loader = make_loader(data.test, evaluation_batches(data.test.frames, 16, processes), 0, processes.device)
    clean = script.evaluate(model, loader, processes.device)
    for corruption in CORRUPTIONS:
        rows = script.evaluate(model, loader, processes.device, corruption=corruption)
        assert np.isfinite(rows["logits"]).all() and not np.allclose(rows["logits"], clean["logits"])
        assert np.array_equal(rows["labels"], clean["labels"])


@pytest.mark.parametrize(
    "flags",
    [["--fusion", "concat"],
     *(pytest.param(flags, marks=pytest.mark.long) for flags in (
         ["--modality", "camera"], ["--modality", "lidar"], ["--no-position_code"],
         ["--loss", "focal", "--pos_weight", "2", "--scheduler", "none", "--threshold_rule", "fpr"]))],
)  # fmt: skip
def test_every_configuration_runs(tmp_path, flags):
    results = read_json(train(tmp_path, "--epochs", 1, *flags) / "results.json")
    assert results["metrics"]["test"]["auroc"] is not None


@pytest.mark.long
def test_two_processes_share_one_run_and_count_every_frame_once(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, "train_anomaly_with_labels.py", *arguments(tmp_path, "--epochs", 1, "--batch_size", 4)],
        cwd=REPO_ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = tmp_path.iterdir()
    assert read_json(run / "config.json")["world_size"] == 2
    assert len((run / "test_predictions.csv").read_text().splitlines()) == 13


def test_bad_input_is_one_clear_error(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "nan")
    scan = frame_files(scenario_folders(root)[0], "LIDAR")[0]
    points = np.load(scan)
    points[3, 1] = np.nan
    np.save(scan, points)
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="NaN"):
        train(tmp_path / "out", data=root)
    with pytest.raises(CommandError, match="nowhere"):
        train(tmp_path / "out", data=tmp_path / "nowhere")
