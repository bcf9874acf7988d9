"""The anomaly script end to end on the tiny sample: what a run leaves, that it repeats and cannot pretend.

Stopped and resumed, and with planted faults: tests/faults.
"""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from sklearn.metrics import roc_auc_score

import evaluate
import train_anomaly_with_labels as script
import train_stage1
from datasets.anovox.augmentation import CORRUPTIONS
from models.losses import POINTS
from tests.anovox_world import copy_of, frame_files, scenario_folders, tiny_sample
from tests.tiny_runs import (
    assert_same_run,
    copy_of_run,
    flags_of,
    replay,
    run_main,
    run_of,
    train,
    train_on,
    weights,
)
from utils.metrics.calibration import sigmoid
from utils.report.anomaly import localise
from utils.run.errors import CommandError, DataError
from utils.run.folder import read_json
from utils.training.checkpoint import load_checkpoint
from utils.training.distributed import evaluation_batches, make_loader, start_processes
from utils.training.learning import LearningCheck

NAME = "train_anomaly_with_labels"
OFF = ("--location_weight", 0)


@pytest.fixture(scope="module")
def run():
    return run_of(NAME)


def test_the_threshold_is_one_of_calibrated_scores():
    rows = {"logits": np.array([1.0, 3.0]), "labels": np.array([0, 1])}
    scale = 0.5, {"slope": 1.0, "offset": -2.0}
    assert script.measure(rows, np.zeros(2), script.AnomalyLoss(1.0), *scale)["f1"] == 1
    rows["logits"] = np.array([[0, 1.0], [0, 3.0]])
    assert train_stage1.measure(rows, torch.nn.CrossEntropyLoss(reduction="none"), *scale)["f1"] == 1


def test_where_the_anomaly_is_counts_in_frames_that_show_it():
    """Agents (-1) are left out; a normal frame counts among all, not among those with an anomaly."""
    pixels = np.array([[[1, 0], [0, -1]], [[0, 0], [0, 0]]], np.int8)
    points = torch.tensor([[[1.0, 0, -1]], [[0.0, 0, 0]]])
    heat = torch.tensor([[[[0.9, 0.2], [0.3, 0.99]]], [[[0.95, 0.1], [0.1, 0.1]]]])
    marks = torch.tensor([[[0.6, 0.7, 0.9]], [[0.1, 0.1, 0.1]]])
    batches = [{"number": k, "true_points": points[k]} for k in (0, 1)]
    dataset = SimpleNamespace(
        labels=np.array([1, 0]), rows=np.arange(2), table=SimpleNamespace(size=np.array(["big", ""])),
        true_pixels=lambda k: pixels[k], __getitems__=lambda indices: batches[indices[0]],
    )  # fmt: skip
    found, tables = localise(dataset, lambda batch: (heat[batch["number"]], marks[batch["number"]]))
    assert found == {
        "pixel_ap": 1, "pixel_ap_chance": pytest.approx(1 / 3), "point_ap": 0.5, "point_ap_chance": 0.5,
    }  # fmt: skip
    kinds = ("normality included", "anomalies only", "size big")
    assert list(tables) == [f"{sensor}, {kind}" for sensor in ("pixel", "point") for kind in kinds]
    assert tables["pixel, normality included"]["auroc"] == pytest.approx(5 / 6)


def test_run_folder_is_complete(run):
    assert {path.name for path in run.iterdir()} == {
        "config.json", "split.json", "hashes.json", "references.npz", "train.log", "history.json",
        "results.json", "best_auroc.pth",
        "last.pth", "final.pth", "status.json", "training_curves.png", "confusion_matrix.png", "roc_pr.png",
        "probability_distributions.png", "reliability.png", "mistakes.png", "suspects.csv",
        "worst_groups.csv",
        "evaluation_report.txt", "test_predictions.csv",
    }  # fmt: skip
    results, config = read_json(run / "results.json"), read_json(run / "config.json")
    assert results["synthetic"] is True and config["dataset"]["test_samples"] == 12
    assert results["labels"] == "ground truth; in training also objects pasted into 50% of the normal frames"
    assert results["labels"] in (run / "evaluation_report.txt").read_text()
    assert config["dataset"]["pasting"]["train"]["frames"] == config["dataset"]["train_samples"] - 24
    assert set(results["metrics"]["test"]) >= {
        "auroc", "ap", "fpr95", "f1", "calibration_error", "auroc_within_scenarios", "pixel_ap", "point_ap",
        "false_alarms_per_minute", "delay_seconds", "encounters_missed",
    }  # fmt: skip
    assert 0 <= results["metrics"]["test"]["pixel_ap_chance"] < 0.2
    counts = config["dataset"]["class_counts"]["train"]
    weight = config["training"]["loss_weights"]["pos_weight"]
    assert weight == pytest.approx(counts["normal"] / counts["anomaly"])
    suspects = pandas.read_csv(run / "suspects.csv")  # p_label: the probability of the label it has
    assert set(suspects.label) == {0, 1}
    expected = np.where(suspects.label == 1, suspects.score, 1 - suspects.score)
    assert suspects.p_label.to_numpy() == pytest.approx(expected, abs=1e-6)
    row = read_json(run / "history.json")[1]
    shown = "train_loss train_accuracy train_mean_score train_location_loss val_auroc val_fpr95"
    assert set(shown.split()) <= set(row)
    assert (run / "train.log").read_text().splitlines()[-1].startswith("verdict: ")


def test_reported_metrics_are_those_of_the_saved_rows(run):
    import pandas
    from sklearn.metrics import average_precision_score, roc_auc_score

    rows, results = pandas.read_csv(run / "test_predictions.csv"), read_json(run / "results.json")
    test = results["metrics"]["test"]
    assert test["auroc"] == pytest.approx(roc_auc_score(rows["label"], rows["score"]), abs=1e-9)
    assert test["ap"] == pytest.approx(average_precision_score(rows["label"], rows["score"]), abs=1e-9)
    scale = results["calibration"]
    assert np.allclose(rows["score"], sigmoid(rows["logit"] * scale["slope"])) and scale["offset"] == 0
    assert np.array_equal(rows["alarm"], rows["score"] >= results["threshold"])


def test_config_replays_bit_for_bit(run, tmp_path):
    assert_same_run(run, replay(NAME, run, tmp_path))


@pytest.mark.parametrize("informative", [False, True])
def test_the_verdict_compares_with_the_better_of_chance_and_trivial_features(run, tmp_path, informative):
    """Trained on the opposite labels, logistic regression ranks the other way round."""
    if informative:
        run = copy_of_run(NAME, tmp_path)
        known = dict(np.load(run / "references.npz"))
        np.savez(run / "references.npz", **known | {"train_labels": 1 - known["train_labels"]})
        evaluate.main(evaluate.parse_args(["--run", str(run), "--device", "cpu"]))
        (run,) = run.glob("evaluation_test_*")
    rows, results = pandas.read_csv(run / "test_predictions.csv"), read_json(run / "results.json")
    trivial = roc_auc_score(rows["label"], rows["trivial_score"])
    assert (trivial > 0.5) == informative, "the other case"
    gain = results["metrics"]["test"]["auroc"] - max(trivial, 0.5)
    best = "trivial features" if informative else "chance"
    assert f"; against {best}: AUROC {gain:+.3f} [" in results["verdict_reason"]


@pytest.mark.parametrize(("gamma", "weight"), [(0.0, 1.0), (0.0, 3.0), (2.0, 1.5)])
def test_loss_by_hand(gamma, weight):
    logits, labels = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1, 0, 0])
    p = torch.sigmoid(torch.where(labels == 1, logits, -logits))
    expected = -((1 - p) ** gamma) * p.log() * torch.where(labels == 1, weight, 1.0)
    loss = script.AnomalyLoss(weight, gamma)
    assert torch.allclose(loss(logits, labels), expected, atol=1e-6)
    assert LearningCheck(script.SCRIPT, loss, labels, labels, 1).constant_loss < expected.mean()


def test_loss_of_where_the_anomaly_is_by_hand():
    """Cells are summed; points count as many as POINTS together; what is unknown counts nothing."""
    cells, points = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[0.0, -1.0, 5.0, 7.0]])
    true_cells, true_points = torch.tensor([[[1.0, torch.nan]]]), torch.tensor([[0.0, 1.0, -1.0, -1.0]])
    losses = np.log(2), np.log(2) + np.log(1 + np.e)
    loss = script.location_loss(cells, true_cells, points, true_points)
    assert loss.tolist() == pytest.approx([losses[0] + POINTS / 4 * losses[1]], rel=1e-5)


def test_where_the_anomaly_is_is_learned_from_its_own_labels_unless_their_weight_is_0(tmp_path):
    step = ("--epochs", 1, "--max_batches", 1)
    told, alone = (weights(train(NAME, tmp_path, *step, *more))["image_cells.weight"] for more in ((), OFF))
    assert (told != alone).float().mean() > 0.1


def test_the_model_by_itself_is_the_one_that_the_script_trains():
    alone, trained = script.AnomalyDetectionModel(), script.build_model(script.parse_args([]))[0]
    assert [str(part) for part in alone.modules()] == [str(part) for part in trained.modules()]
    assert alone.state_dict().keys() == trained.state_dict().keys()


def test_corrupted_sensors_change_the_scores(run):
    args = script.parse_args(["--config", str(run / "config.json")])
    data, processes = script.build_datasets(args), start_processes("cpu")
    model, _ = script.build_model(args)
    model.load_state_dict(load_checkpoint(run / "best_auroc.pth")["model"])
    test = data.parts["test"]
    loader = make_loader(test, evaluation_batches(test.frames, 16, processes), 0, processes.device)
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
         ["--loss", "focal", "--pos_weight", "2", "--scheduler", "none"]))],
)  # fmt: skip
def test_every_configuration_runs(tmp_path, flags):
    results = read_json(train(NAME, tmp_path, "--epochs", 1, *flags) / "results.json")
    assert results["metrics"]["test"]["auroc"] is not None


@pytest.mark.long
def test_two_processes_report_what_their_saved_model_scores_in_one(tmp_path):
    run = train_on(2, NAME, tmp_path, "--epochs", 1, "--batch_size", 4)
    assert read_json(run / "config.json")["world_size"] == 2
    evaluate.main(evaluate.parse_args(["--run", str(run), "--device", "cpu"]))
    (alone,) = run.glob("evaluation_test_*")
    rows, expected = (pandas.read_csv(folder / "test_predictions.csv") for folder in (run, alone))
    pandas.testing.assert_frame_equal(rows, expected, atol=1e-5)
    assert len(rows) == 12 and rows.score.nunique() > 6
    found, judged = (read_json(folder / "results.json")["metrics"]["test"] for folder in (run, alone))
    assert found["by_kind"] == judged.pop("by_kind")
    assert {key: found[key] for key in judged} == pytest.approx(judged, abs=1e-5)


def test_bad_input_is_one_clear_error(tmp_path):
    root = copy_of(tiny_sample(), tmp_path / "nan")
    scan = frame_files(scenario_folders(root)[0], "LIDAR")[0]
    points = np.load(scan)
    points[3, 1] = np.nan
    np.save(scan, points)
    with pytest.raises(DataError, match="NaN"):
        train(NAME, tmp_path / "out", "--data_path", root)
    with pytest.raises(CommandError, match="nowhere"):
        train(NAME, tmp_path / "out", "--data_path", tmp_path / "nowhere")


@pytest.fixture(scope="module")
def normal_drives(tmp_path_factory):
    """The scenarios of the tiny sample without an anomaly."""
    root = copy_of(tiny_sample(), tmp_path_factory.mktemp("normal") / "data")
    for scenario in scenario_folders(root):
        if (scenario / "ANOMALY").exists():
            shutil.rmtree(scenario)
    (root / "split.json").unlink()
    return root


def test_normal_drives_are_enough_to_train_and_the_verdict_says_on_what(tmp_path, normal_drives):
    pasted = ("--label", "pasted", "--pastes", 1, "--epochs", 1, "--data_path", normal_drives)
    run = train(NAME, tmp_path, *pasted)
    results, config = read_json(run / "results.json"), read_json(run / "config.json")
    assert results["verdict_reason"].startswith("on pasted objects; ")
    assert results["labels"] == config["dataset"]["labels"] == "pasted"
    assert results["metrics"]["test"]["pixel_ap"] is not None
    assert "encounters" not in results["metrics"]["test"]  # copies of one frame have no order in time
    report = (run / "evaluation_report.txt").read_text()
    assert results["verdict_reason"] in report and "normality included" in report


@pytest.mark.long  # half of the default training: minutes
def test_what_is_pasted_in_colours_that_training_never_saw_is_found(tmp_path):
    """Anywhere up to 28 m, on the road or beside it. Hues, shapes and textures are those of test alone."""
    run_main(NAME, "--epochs", "5", "--device", "cpu", "--output_dir", tmp_path)
    (run,) = tmp_path.iterdir()
    evaluate.main(evaluate.parse_args(["--run", str(run), "--paste", "368", "--device", "cpu"]))
    rows = pandas.read_csv(next(run.glob("evaluation_paste_*/pastes.csv")))
    unseen = (rows["hue"] * 6).astype(int) % 2 == 1
    better = rows["score_both"] > rows["score_clean"]
    assert unseen.sum() > 150 and better[unseen].mean() >= 0.80
    # Counting points above the ground passes that; it does not tell these frames from any normal one.
    clean, pasted = rows.drop_duplicates(["scenario", "frame_id"])["score_clean"], rows["score_both"][unseen]
    auroc = roc_auc_score(np.repeat((0, 1), (len(clean), len(pasted))), np.append(clean, pasted))
    told = read_json(next(run.glob("evaluation_paste_*/results.json")))["pasted"]
    assert auroc >= 0.70 and told["both sensors, count raised"]["auroc"] < 0.65


def test_the_model_marks_anomalies_in_the_cells_of_the_data(monkeypatch):
    monkeypatch.setattr(script, "CELL_GRID", (4, 6))
    assert script.build_model(script.parse_args([]))[0].token_grid == (4, 6)


def test_check_data_describes_the_sensors(tmp_path, capsys):
    run_main(NAME, *flags_of(NAME), "--device", "cpu", "--output_dir", tmp_path, "--check_data")
    said = capsys.readouterr().out
    assert "semantic_points: 48 files read" in said and "the data can be trained on" in said
    assert "leaves no run folder" in said and "trial_" not in said
