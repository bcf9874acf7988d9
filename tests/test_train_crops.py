"""Both stages with pixels, on the tiny built-in sample: the same promises as from geometry alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
import train_stage1
from datasets.samples import ensure_sample
from tests.tiny_runs import assert_same_run, replay, train, train_on
from utils.run.errors import DataError
from utils.run.folder import read_json
from utils.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return ensure_sample("jrdb", tmp_path_factory.mktemp("data") / "sample", size="tiny")


def flags(sample, *more) -> list:
    return ["--data_path", sample, "--features", "crops+geometry", "--image_size", 32, 16, *more]


@pytest.fixture(scope="module")
def stage1(sample, tmp_path_factory):
    return train("train_stage1", tmp_path_factory.mktemp("out"), *flags(sample))


def test_config_repeats_a_run_with_crops(stage1, tmp_path):
    assert_same_run(stage1, replay("train_stage1", stage1, tmp_path))


def test_a_run_goes_on_without_the_weights_it_started_from(sample, stage1, tmp_path):
    started = shutil.copy(stage1 / "best_f1.pth", tmp_path / "started.pth")
    short = flags(sample, "--weights", started, "--scheduler", "none", "--epochs", 1, "--max_batches", 2)
    run = train("train_stage1", tmp_path / "runs", *short)
    started.unlink()
    train_stage1.main(train_stage1.parse_args(["--resume", str(run), "--epochs", "2"]))
    assert [row["lr"] for row in read_json(run / "history.json")] == [1e-3] * 2
    assert read_json(run / "config.json")["training"]["lr_scheduler"] == "ConstantLR"
    assert "but nothing was loaded" not in (run / "train.log").read_text()


@pytest.mark.long
def test_two_processes_report_what_their_saved_model_scores_in_one(sample, tmp_path):
    """BatchNorm sees half batches there, so weights differ from one process's; the metrics are the saved
    model's."""
    made = train_on(2, "train_stage1", tmp_path, *flags(sample, "--epochs", 1, "--batch_size", 8))
    for split in ("val", "test"):
        evaluate.main(evaluate.parse_args(["--run", str(made), "--split", split]))
        (folder,) = made.glob(f"evaluation_{split}_*")
        alone, together = (read_json(run / "results.json")["metrics"][split] for run in (folder, made))
        both = alone.keys() & together.keys()  # a run measures less of val than a report does
        assert {"ap", "auroc", "f1", "accuracy"} <= both
        assert {k: alone[k] for k in both} == pytest.approx({k: together[k] for k in both}, abs=1e-6)
        if split == "val":  # also within the epoch, before every process has read the saved weights
            (row,) = read_json(made / "history.json")
            seen = {k: value for k, value in alone.items() if f"val_{k}" in row}
            assert len(seen) >= 3 and seen == pytest.approx({k: row[f"val_{k}"] for k in seen}, abs=1e-5)


def test_stage_2_takes_its_trunk_from_stage_1(sample, stage1, tmp_path):
    start = ["--data_path", sample, "--stage1_checkpoint", stage1]
    frozen = train("train_stage2", tmp_path, *start, "--freeze_backbone", "--epochs", 2)
    args = read_json(frozen / "config.json")["args"]
    assert (args["image_size"], args["features"], args["backbone"]) == ([32, 16], "crops+geometry", "cnn")
    old, new = (load_checkpoint(run / "best_f1.pth")["model"] for run in (stage1, frozen))
    assert all(torch.equal(old[key], new[f"stage1.{key}"]) for key in old)
    assert {key.split(".")[0] for key in new} == {"stage1", "head"}


def test_a_person_is_encoded_once_however_many_pairs(sample):
    args = train_stage1.parse_args([str(flag) for flag in flags(sample)])
    data = train_stage1.build_datasets(args)
    model = train_stage1.build_model(args)[0].eval()
    encoded = []
    encoder = model.trunk.person.encoder
    encoder.register_forward_hook(lambda module, inputs, outputs: encoded.append(len(inputs[0])))
    frame = np.flatnonzero(data.val.frames == np.bincount(data.val.frames).argmax())
    with torch.no_grad():
        together = model(data.val.__getitems__(frame))
        people = len(np.unique(np.r_[data.val.left[frame], data.val.right[frame]]))
        assert encoded == [people] and people < len(frame)
        one_by_one = torch.cat([model(data.val.__getitems__([i])) for i in frame])
    assert torch.allclose(together, one_by_one, atol=1e-5)


def test_missing_frames_are_one_clear_error(sample, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(sample, copy)
    for image in list((copy / "images").rglob("*.jpg"))[::2]:
        image.unlink()
    with pytest.raises(DataError, match=r"(?s)missing images of the train split.*--features geometry"):
        train("train_stage1", tmp_path / "out", *flags(copy))


def test_other_pixels_are_other_data_but_not_to_a_run_without_pixels(sample, tmp_path):
    """An image that was encoded anew has another size in bytes."""
    copy, prints = Path(shutil.copytree(sample, tmp_path / "copy")), []
    for _ in range(2):
        for features in ("crops", "geometry"):
            args = train_stage1.parse_args(["--data_path", str(copy), "--features", features])
            prints.append(train_stage1.build_datasets(args).describe()["fingerprint"])
        image = next((copy / "images").rglob("*.jpg"))
        image.write_bytes(image.read_bytes() + b"\0")
    assert prints[0] != prints[2] and prints[1] == prints[3]
