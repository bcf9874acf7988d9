"""predict.py on AnoVox scenarios: the scores of the run's own test pass, with and without ground truth."""

import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
import torch
from PIL import Image

import predict
from prediction.trained import open_trained
from tests import tiny_runs
from tests.anovox_world import copy_of, frame_files, scenario_folders, tiny_sample
from utils.run.errors import CommandError, DataError
from utils.run.folder import read_json
from utils.training.checkpoint import load_checkpoint, save_checkpoint


def run(folder, output, *more, trained=None) -> pandas.DataFrame:
    argv = ["--run", trained or tiny_runs.run_of("train_anomaly_with_labels"), "--input", folder]
    argv += ["--output", output, "--device", "cpu", "--max_pictures", 0, *more]
    predict.main(predict.parse_args([str(token) for token in argv]))
    return pandas.read_csv(output / "predictions.csv")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """Cameras, LiDAR and calibration of the sample, nothing else."""
    root = copy_of(tiny_sample(), tmp_path_factory.mktemp("unlabelled") / "sample", scenarios=3)
    for scenario in scenario_folders(root):
        for folder in scenario.iterdir():
            if folder.is_dir() and not folder.name.startswith(("RGB-CAM", "LIDAR")):
                shutil.rmtree(folder)
    return root


def test_scores_are_those_of_the_test_pass(tmp_path, capsys):
    rows = run(tiny_sample(), tmp_path)
    assert list(rows) == ["scenario", "frame", "score", "alarm"] and len(rows) == 48
    folder = tiny_runs.run_of("train_anomaly_with_labels")
    truth = pandas.read_csv(folder / "test_predictions.csv")
    mine = rows.set_index(["scenario", "frame"]).loc[
        list(zip(truth["scenario"], truth["frame_id"], strict=True))
    ]
    assert np.allclose(mine["score"], truth["score"], atol=2e-6) and len(truth) == 12
    assert mine["alarm"].tolist() == truth["alarm"].tolist()
    assert np.array_equal(rows["alarm"], rows["score"] >= read_json(folder / "results.json")["threshold"])
    said = capsys.readouterr().out
    assert f"{rows['alarm'].sum()} alarms (alarm rate {rows['alarm'].mean():.1%}" in said


def test_the_order_of_runs_does_not_matter(unlabelled, tmp_path):
    """A run of the camera alone needs no scan, the other does, whichever is named first."""
    root = shutil.copytree(unlabelled, tmp_path / "data")
    frame_files(scenario_folders(root)[0], "LIDAR")[0].unlink()
    both, camera = (
        open_trained(tiny_runs.run_of("train_anomaly_with_labels"), torch.device("cpu")) for _ in range(2)
    )
    camera.args.modality = "camera"
    pairs = (both, camera), (camera, both)
    found = [replace(pair[0], together=pair).predict(root)["predictions"] for pair in pairs]
    assert found[0].equals(found[1]) and len(found[0]) == 11
    camera.args.camera = "(0, 0, 0)"
    for pair in pairs:
        with pytest.raises(CommandError, match=r"read \(0, 0, 0\) and the front camera: name one"):
            replace(pair[0], together=pair).predict(root)
        assert len(replace(pair[0], together=pair).predict(root, camera="(0, 0, 0)")["predictions"]) == 11


def test_scenarios_that_were_trained_on_in_blocks_are_known(unlabelled, tmp_path, caplog):
    file = tiny_runs.run_of("train_anomaly_with_labels") / "best_auroc.pth"
    trained = open_trained(shutil.copy(file, tmp_path), torch.device("cpu"))
    block = f"{scenario_folders(unlabelled)[0].name}:0-400"
    trained.state["trained_on"]["split"]["train"] = [block]
    trained.predict(unlabelled)
    assert "1 of 3 scenarios are called like those that" in caplog.text


def test_scans_that_say_less_than_those_of_the_training_are_a_warning(unlabelled, tmp_path, capsys):
    root = shutil.copytree(unlabelled, tmp_path / "data")
    for k, path in enumerate(frame_files(scenario_folders(root)[0], "LIDAR")):
        scan = np.load(path)
        np.save(path, scan[:0] if k == 0 else scan[:, :3] if k == 1 else scan + np.float32([0, 0, 1.8, 0]))
    run(root, tmp_path / "out")
    said = capsys.readouterr().out
    assert "scans without ground below the sensor: 2 of 12" in said and "intensity" not in said
    assert "scans without a point in the model's region: 1 of 12" in said


def test_ground_truth_is_neither_needed_nor_used(unlabelled, tmp_path):
    labelled = run(tiny_sample(), tmp_path / "labelled")
    rows = run(unlabelled, tmp_path / "unlabelled")
    expected = labelled[labelled["scenario"].isin(rows["scenario"])].reset_index(drop=True)
    assert len(rows) == 12 and rows.drop(columns="score").equals(expected.drop(columns="score"))
    assert np.allclose(rows["score"], expected["score"], atol=2e-6)


@pytest.mark.figures
def test_pictures_of_frames_spread_evenly(unlabelled, tmp_path):
    rows = run(unlabelled, tmp_path, "--max_pictures", 2)
    ends = [f"{rows['scenario'][k]}_{rows['frame'][k]}.png" for k in (0, len(rows) - 1)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted(ends)
    picture = np.asarray(Image.open(tmp_path / ends[0]))
    assert picture.shape[1] > 1000 and picture.std() > 10


def test_real_frames_in_the_order_of_their_numbers(real, tmp_path):
    """Frame ids cross 1000: as text, 1000 would stand before 990."""
    rows = run(real / "anovox_carla", tmp_path, "--max_pictures", 1)
    assert rows["frame"].tolist() == list(range(990, 1012))
    assert np.isfinite(rows["score"]).all() and len(list(tmp_path.glob("*.png"))) == 1


def test_bad_input_is_one_clear_error(unlabelled, tmp_path):
    with pytest.raises(CommandError, match="--input .*nowhere: no such file or folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no Scenario_"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(CommandError, match="reads no boxes"):
        run(unlabelled, tmp_path / "out", "--boxes", "boxes.csv")
    scenario = scenario_folders(unlabelled)[0]
    shutil.make_archive(str(tmp_path / "packed" / scenario.name), "zip", scenario.parent, scenario.name)
    with pytest.raises(CommandError, match="more than the limit of 1e-06 GB.*\n.*raise --cache_limit_gb"):
        run(tmp_path / "packed", tmp_path / "out", "--cache_limit_gb", 1e-6)
    checkpoint = load_checkpoint(tiny_runs.run_of("train_anomaly_with_labels") / "best_auroc.pth")
    checkpoint["args"]["cache_dir"] = "/proc/of_another_machine"
    save_checkpoint(tmp_path / "moved.pth", checkpoint)
    assert len(run(tmp_path / "packed", tmp_path / "out", trained=tmp_path / "moved.pth")) == 4
    damaged = tmp_path / "damaged"
    shutil.copytree(unlabelled, damaged)
    frame_files(scenario_folders(damaged)[1], "LIDAR")[0].unlink()
    assert len(run(damaged, tmp_path / "out")) == 11  # one frame has lost its scan


@pytest.mark.parametrize("ending", [200, 10])  # of the first image of a scenario also the header
def test_what_can_not_be_read_is_listed_and_the_rest_is_predicted(unlabelled, tmp_path, ending):
    whole = run(unlabelled, tmp_path / "whole")
    damaged = tmp_path / "damaged"
    shutil.copytree(unlabelled, damaged)
    first, second = (frame_files(scenario_folders(damaged)[k], "RGB-CAM")[0] for k in (0, 1))
    scan = frame_files(scenario_folders(damaged)[1], "LIDAR")[3]
    first.write_bytes(first.read_bytes()[:ending])
    scan.write_bytes(scan.read_bytes()[:-7])
    with pytest.raises(DataError, match="2 of 12 frames cannot be read") as caught:
        run(damaged, tmp_path / "out", "--max_pictures", 3)
    assert first.name in str(caught.value)
    skipped = pandas.read_csv(tmp_path / "out" / "skipped.csv")
    assert list(skipped) == ["scenario", "frame", "reason"] and skipped["frame"].tolist() == [
        int(path.stem.rsplit("_", 1)[1]) for path in (first, scan)
    ]
    sensors = [f"{path.parent.name}/{path.name}" for path in (first, scan)]  # below the scenario
    assert [reason.split(":")[0] for reason in skipped["reason"]] == sensors
    rows = pandas.read_csv(tmp_path / "out" / "predictions.csv")
    left = whole.drop(index=[0, 7]).reset_index(drop=True)
    assert rows["frame"].tolist() == left["frame"].tolist() and np.allclose(rows["score"], left["score"])
    assert len(list((tmp_path / "out").glob("*.png"))) == 3 and second.exists()


def test_a_scenario_without_one_readable_image_does_not_stop_the_others(unlabelled, tmp_path):
    damaged = Path(shutil.copytree(unlabelled, tmp_path / "damaged"))
    for path in frame_files(scenario_folders(damaged)[1], "RGB-CAM"):
        path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(DataError, match="4 of 12 frames cannot be read"):
        run(damaged, tmp_path / "out")
    assert len(pandas.read_csv(tmp_path / "out" / "predictions.csv")) == 8


def test_a_folder_of_images_alone(tmp_path, capsys, monkeypatch):
    """As KITTI image_02/data, or a camera: no scenario, no LiDAR, frames by the number in the name."""
    (tmp_path / "data").mkdir()
    for number, source in enumerate(frame_files(scenario_folders(tiny_sample())[0], "RGB-CAM")):
        shutil.copy(source, tmp_path / "data" / f"photo{number + 8}.png")
    panels = []

    def look(figure, *_):
        panels.extend(axis.get_title().split(" ")[0] for axis in figure.axes)
        plt.close(figure)

    monkeypatch.setattr("utils.plotting.anomaly.save_figure", look)
    rows = run(tmp_path / "data", tmp_path / "out", "--max_pictures", 1)
    assert panels == ["camera", "probability", ""]  # and the colour bar: no view of points from above
    assert rows["frame"].tolist() == [8, 9, 10, 11] and set(rows["scenario"]) == {"data"}
    said = capsys.readouterr().out
    assert "warning: no LiDAR: the camera alone is used" in said and "scans without" not in said
    image = shutil.copy(tmp_path / "data" / "photo9.png", tmp_path / "data" / "mine.png")
    for path, frame in ((tmp_path / "data" / "photo9.png", 9), (image, 0)):  # without a number: 0
        one = run(path, tmp_path / "one")
        assert one["frame"].tolist() == [frame] and one["score"][0] == pytest.approx(
            rows["score"][1], abs=2e-6
        )
