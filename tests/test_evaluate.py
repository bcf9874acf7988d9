"""evaluate.py gives the figures of the run itself, judges both stages over every pair there is, and says
what a failing sensor costs."""

import functools
import json
import shutil

import numpy as np
import pandas
import pytest
import torch
from sklearn.metrics import roc_auc_score

import evaluate
from datasets.anovox.augmentation import CORRUPTIONS, corrupt_frames
from prediction.trained import open_trained
from tests import tiny_runs
from tests.jrdb_world import write_world
from utils.metrics.jrdb_act import score_groups
from utils.run.errors import CommandError
from utils.run.folder import read_json


@pytest.fixture(scope="module", autouse=True)
def private_cache():
    with tiny_runs.private_cache():
        yield


@pytest.fixture
def run_of(tmp_path):
    """Copies of the tiny runs, to be written into."""
    return lambda name: tiny_runs.copy_of_run(name, tmp_path)


def evaluated(run, *argv: str):
    """The folder that one call of evaluate.py adds to the run."""
    before = set(run.glob("evaluation_*_*"))
    evaluate.main(evaluate.parse_args(["--run", str(run), "--device", "cpu", *map(str, argv)]))
    return (set(run.glob("evaluation_*_*")) - before).pop()


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(run, folder of its evaluation on test), once for all tests; of AnoVox with every corruption."""

    @functools.cache
    def judge(name):
        run = tiny_runs.copy_of_run(name, tmp_path_factory.mktemp("judged"))
        return run, evaluated(run, *(["--corrupt", "all"] if "anomaly" in name else []))

    return judge


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long) if n == "train_ddp" else n for n in tiny_runs.NAMES]
)
def test_figures_and_files_are_those_of_the_run(judged, name):
    run, folder = judged(name)
    recorded, again = read_json(run / "results.json"), read_json(folder / "results.json")
    found, expected = again["metrics"]["test"], recorded["metrics"]["test"]
    assert set(expected) - set(found) <= {"loss"}  # its class weights are training's
    assert found == {key: expected[key] for key in found} and len(found) >= 4
    for key in ("verdict", "verdict_reason", "baselines", "confidence", "threshold", "synthetic"):
        assert again[key] == recorded[key], key
    assert again["epoch"] == recorded["best_epoch"]
    assert (folder / "test_predictions.csv").read_bytes() == (run / "test_predictions.csv").read_bytes()
    theirs, ours = ((place / "evaluation_report.txt").read_text() for place in (run, folder))
    assert theirs.startswith(ours.rstrip())  # a run adds what each input is worth
    pictures = {p.name for p in run.glob("*.png")} - {"training_curves.png", "class_distribution.png"}
    assert pictures and pictures <= {p.name for p in folder.glob("*.png")}


@pytest.mark.parametrize("name", ["train_anomaly_with_labels", "train_mae", "train_stage1"])
def test_another_split_and_another_checkpoint(run_of, name):
    run = run_of(name)
    folder = evaluated(run, "--split", "val", "--checkpoint", run / "final.pth")
    results, last = read_json(folder / "results.json"), read_json(run / "history.json")[-1]
    key = {"train_mae": "mae"}.get(name, "auroc")
    assert results["metrics"]["val"][key] == pytest.approx(last[f"val_{key}"], rel=1e-6)
    assert results["epoch"] == last["epoch"] and results["checkpoint"].endswith("final.pth")
    assert "val is the split that selects the best epoch" in results["verdict_reason"]


@pytest.mark.parametrize("name", ["train_mae", "train_stage1", "train_stage2"])
def test_what_it_was_trained_on_proves_nothing(run_of, name):
    """Stage 1 and 2 beat the trivial scorer there; one that learned shuffled labels by heart would, too."""
    results = read_json(evaluated(run_of(name), "--split", "train") / "results.json")
    assert results["verdict"] == "NOT LEARNED"
    assert results["verdict_reason"].startswith("never judged on train, ")


def test_both_stages_are_judged_over_every_pair_of_every_frame(judged):
    _, folder = judged("train_stage2")
    found = read_json(folder / "results.json")["end_to_end"]
    counts = np.array(found["confusion"])
    people = 16  # per frame of the world
    assert counts.shape == (6, 6) and counts.sum() == 6 * 12 * people * (people - 1) // 2
    annotated = 0
    labels = tiny_runs.jrdb() / "labels" / "labels_2d_activity_social_stitched"
    for path in labels.glob("test*.json"):
        for records in json.loads(path.read_text())["labels"].values():
            annotated += sum(len(person["H-interaction"]) for person in records) // 2
    assert counts[1:].sum() == annotated
    assert found["macro_f1"] > 0.4
    groups = found["groups"]["clusters"]["whole"]
    assert groups["G2"]["true_groups"] == 6 * 12 * 4
    assert groups["G2"]["ap"] > groups["G1"]["ap"] / 2 > 0
    assert set(found["jrdb_act"]) == {"clusters", "connected components", "everybody alone"}
    assert found["jrdb_act"]["clusters"]["task_3"] > found["jrdb_act"]["everybody alone"]["task_3"]
    truth, rows = (np.loadtxt(folder / name) for name in ("gt_group.txt", "det_group.txt"))
    assert score_groups(truth, rows)["task_3"] == pytest.approx(found["jrdb_act"]["clusters"]["task_3"])
    report = (folder / "end_to_end_report.txt").read_text()
    assert "six outcomes" in report and "whole groups" in report and "JRDB-Act" in report


def test_other_data_of_the_same_task(run_of, tmp_path):
    other = write_world(tmp_path / "other", {"train": 1, "val": 1, "test": 5}, seed=9)
    stage1 = run_of("train_stage1")
    results = read_json(evaluated(stage1, "--data_path", other) / "results.json")
    assert results["metrics"]["test"]["auroc"] > 0.9
    assert results["metrics"]["test"] != read_json(stage1 / "results.json")["metrics"]["test"]
    root = tiny_runs.ultrasound().parents[2]  # the same people, split by seed instead of by split.json
    shutil.copytree(root, tmp_path / "people")
    (tmp_path / "people" / "TA" / "split.json").unlink()
    mae = run_of("train_mae")
    images = tmp_path / "people" / "TA" / "Healthy" / "Images"
    found = pandas.read_csv(evaluated(mae, "--image_dir", images) / "test_predictions.csv")
    before = pandas.read_csv(mae / "test_predictions.csv")
    assert len(found) and set(found["subject"]) != set(before["subject"])


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("train_mae", ["--data_path", "x"], "--data_path: a run of train_mae.py reads --image_dir"),
        ("train_stage1", ["--image_dir", "x"], "--image_dir: a run of train_stage1.py reads --data_path"),
        ("train_stage1", ["--corrupt", "all"], "--corrupt: for AnoVox, not for a run of train_stage1"),
        ("train_mae", ["--image_dir", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_flags_of_another_task_are_refused(run_of, name, flags, message):
    run = run_of(name)
    with pytest.raises(CommandError, match=message):
        evaluated(run, *flags)
    assert not list(run.glob("evaluation_*_*"))


def test_degradation_table_is_what_the_corrupted_frames_give(judged):
    run, folder = judged("train_anomaly_with_labels")
    found = read_json(folder / "results.json")["degradation"]
    assert list(found) == ["clean", *CORRUPTIONS]
    recorded = read_json(run / "results.json")
    for key in ("auroc", "ap", "f1", "calibration_error"):
        assert found["clean"][key] == recorded["metrics"]["test"][key]
    trained = open_trained(run, torch.device("cpu"))
    test = trained.script.build_datasets(trained.args).test
    for name in CORRUPTIONS:
        batch = corrupt_frames(test.__getitems__(range(len(test))), name, trained.args.seed)
        with torch.no_grad():
            logits, _ = trained.model(*(batch[key] for key in trained.script.INPUTS))
        assert found[name]["auroc"] == pytest.approx(roc_auc_score(test.labels, logits), abs=0.05)
        change = found[name]["auroc"] - found["clean"]["auroc"]
        assert found[name]["auroc_change"] == pytest.approx(change)
        assert found[name]["change_low"] <= change + 0.05 and found[name]["change_high"] >= change - 0.05
    table = pandas.read_csv(folder / "degradation.csv")
    assert table["sensors"].tolist() == list(found) and (folder / "degradation.png").is_file()
    assert np.allclose(table["auroc"], [row["auroc"] for row in found.values()])


def test_some_corruptions_on_request(run_of, capsys):
    run = run_of("train_anomaly_with_labels")
    found = read_json(evaluated(run, "--corrupt", "lidar_missing", "camera_black") / "results.json")
    assert list(found["degradation"]) == ["clean", "lidar_missing", "camera_black"]
    assert "auroc_change" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        evaluate.parse_args(["--run", "x", "--corrupt", "fog"])
    assert caught.value.code == 2


def test_what_is_no_run_is_one_clear_error(run_of, tmp_path):
    run = run_of("train_stage1")
    typo = run.with_name(run.name[:-1])
    with pytest.raises(CommandError, match=rf"there is no run .*did you mean {run.name}"):
        evaluated(typo)
    with pytest.raises(CommandError, match=rf"is not a run folder: it holds 1 runs: .*\n.*{run.name}"):
        evaluated(run.parent)
    with pytest.raises(CommandError, match="--checkpoint"):
        evaluated(run / "best_f1.pth")
    shutil.copy(tiny_runs.run_of("train_mae") / "best_model.pth", run / "other.pth")
    with pytest.raises(
        CommandError, match=r"other\.pth was written by train_mae\.py, the run .* by train_st"
    ):
        evaluated(run, "--checkpoint", run / "other.pth")
    whole = (run / "best_f1.pth").read_bytes()
    (run / "best_f1.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CommandError, match=r"best_f1\.pth is damaged"):
        evaluated(run)
    (run / "best_f1.pth").unlink()
    with pytest.raises(CommandError, match=r"no checkpoint at .*candidates:\n"):
        evaluated(run)
    config = json.loads((run / "config.json").read_text()) | {"script_name": "os.py"}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CommandError, match=r"names the script 'os\.py'"):
        evaluated(run)
    assert not list(run.glob("evaluation_*_*"))


def test_a_split_that_is_not_there(run_of, tmp_path):
    other = write_world(tmp_path / "other", {"train": 3, "val": 2, "test": 0})
    with pytest.raises(CommandError, match="no test split; it has train, val"):
        evaluated(run_of("train_stage1"), "--data_path", other)
