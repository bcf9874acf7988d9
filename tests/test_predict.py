"""predict.py on JRDB frames: the numbers are those of the evaluation, with and without labels, and bad input
is one clear error. And which run is taken, whatever the task."""

import argparse
import json
import shutil

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from scipy.special import softmax

import predict
import prediction
import train_stage1
import train_stage2
from datasets.jrdb.boxes import read_boxes
from datasets.jrdb.classes import INTERACTION_CLASSES
from datasets.jrdb.crops import load_crops
from datasets.jrdb.geometry import feature_names
from datasets.jrdb.labels import IMAGE_FOLDER
from datasets.jrdb.splits import list_sequences
from prediction import interactions
from prediction.interactions import pairs_in_range
from prediction.trained import open_trained
from tests.jrdb_files import crowd, write_labels
from utils.metrics.calibration import sigmoid
from utils.run.errors import CommandError, DataError
from utils.training.checkpoint import load_checkpoint, save_checkpoint

SEQUENCE = "hall_0"
FRAMES = [15, 30, 45]

THRESHOLD = 0.53595  # scores of the untrained model lie on both sides


def write_frames(folder, numbers=FRAMES, size=(3760, 480)):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in numbers:
        tile = rng.integers(0, 255, (6, 47, 3), np.uint8)
        Image.fromarray(tile).resize(size).save(folder / f"{number:06d}.jpg")


def strip(labels: dict) -> dict:
    """The same people without groups and interactions."""
    return {
        key: [{name: record[name] for name in ("label_id", "box")} for record in records]
        for key, records in labels.items()
    }


def box_rows(labels: dict) -> pandas.DataFrame:
    rows = [
        [key, record["label_id"], *record["box"]] for key, records in labels.items() for record in records
    ]
    return pandas.DataFrame(rows, columns=["frame", "id", "x", "y", "w", "h"])


def make_checkpoint(path, script, features="crops+geometry", threshold=THRESHOLD):
    options = {
        "features": features, "backbone": "cnn", "weights": "imagenet", "image_size": [32, 16],
        "dropout": 0.2, "history_seconds": 2, "whole_past": True, "rescore": features == "geometry",
        "distance_multiplier": 3.0, "distance_norm": "max", "freeze_backbone": False,
        "stage1_checkpoint": "stage1.pth", "resume": None, "frame_rate": 15.0,
    }  # fmt: skip
    torch.manual_seed(0)
    build = train_stage1.build_model if script == train_stage1.SCRIPT else train_stage2.build_model
    model, _ = build(argparse.Namespace(**options | {"weights": "none"}))
    state = {
        "script": script, "epoch": 3, "model": model.state_dict(), "threshold": threshold, "args": options,
        "class_names": list(INTERACTION_CLASSES), "feature_names": feature_names(2, whole_past=True),
        "calibration": {"slope": 0.7, "offset": 0.1}, "temperature": 1.3,
        "trained_on": {"fingerprint": "abc", "split": {"train": ["a_0", "c_0"]}},
    }  # fmt: skip
    save_checkpoint(path, state)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JRDB in its true layout: three frames with images, annotated; and the same boxes as a CSV."""
    root = tmp_path_factory.mktemp("jrdb")
    write_labels(root, SEQUENCE, crowd(3))
    write_frames(root / IMAGE_FOLDER / SEQUENCE)
    box_rows(crowd(3)).to_csv(root / "boxes.csv", index=False)
    return root


@pytest.fixture(scope="module")
def stage2(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("stage2") / "best_f1.pth", "train_stage2.py")


def test_ids_that_jump_are_told(tmp_path, capsys):
    """Ids of boxes in a frame, as if they were those of tracks."""
    geometry = make_checkpoint(tmp_path / "geometry.pth", "train_stage1.py", features="geometry")
    for step, told in ((0, False), (2, True)):
        rows = [
            (15 * t, k * (1 + step * t) % 8, 900 + 80 * k, 200, 60, 60) for t in range(5) for k in range(8)
        ]
        boxes = pandas.DataFrame(rows, columns=["frame", "id", "x", "y", "w", "h"])
        boxes.to_csv(tmp_path / "boxes.csv", index=False)
        run(geometry, tmp_path / "none", tmp_path / "out", "--boxes", tmp_path / "boxes.csv")
        assert ("pairs move too fast for people" in capsys.readouterr().out) == told


def run(checkpoint, folder, output, *more) -> pandas.DataFrame:
    argv = [
        "--run",
        checkpoint,
        "--input",
        folder,
        "--output",
        output,
        "--device",
        "cpu",
        "--max_pictures",
        0,
    ]
    predict.main(predict.parse_args([*map(str, argv), *map(str, more)]))
    return pandas.read_csv(output / "predictions.csv", keep_default_na=False)


def test_probabilities_are_those_of_the_evaluation(folder, stage2, tmp_path):
    """The same pairs through the cached crops and both evaluate() of the training scripts."""
    rows = run(stage2, folder, tmp_path / "out")
    trained = open_trained(stage2, torch.device("cpu"))
    flags = {"frame_rate": 15.0, "boxes_size": None, "skip_bad_boxes": False}
    dataset = pairs_in_range(trained, read_boxes(folder, None, argparse.Namespace(**flags))[0])
    load_crops(dataset, folder, (32, 16), cache_dir=tmp_path / "cache")
    loader, cpu = [dataset.__getitems__(range(len(dataset)))], torch.device("cpu")
    scale, temperature = trained.state["calibration"], trained.state["temperature"]
    logits = train_stage1.evaluate(trained.model.stage1, loader, cpu)["logits"].astype(float)
    expected = sigmoid(scale["slope"] * (logits[:, 1] - logits[:, 0]) + scale["offset"])
    with torch.no_grad():
        types = softmax(trained.model(loader[0]).numpy() / temperature, axis=1)
    assert np.allclose(rows["p_interaction"], expected, atol=2e-6) and len(rows) == len(dataset) > 20
    interact = expected >= THRESHOLD
    assert 0 < interact.sum() < len(rows)
    names = np.array(INTERACTION_CLASSES)[types.argmax(axis=1)]
    assert rows["type"].tolist() == np.where(interact, names, "none").tolist()
    assert (rows["p_type"][~interact] == "").all()
    assert np.allclose(rows["p_type"][interact].astype(float), types.max(axis=1)[interact], atol=2e-6)


def test_annotations_are_not_looked_at_and_a_table_gives_the_same(folder, stage2, tmp_path):
    expected = run(stage2, folder, tmp_path / "labelled")
    assert list(expected) == [
        "frame",
        "id_left",
        "id_right",
        "distance_widths",
        "p_interaction",
        "type",
        "p_type",
    ]
    write_labels(tmp_path / "bare", SEQUENCE, strip(crowd(3)))
    (tmp_path / "bare" / "images").symlink_to(folder / "images")
    assert run(stage2, tmp_path / "bare", tmp_path / "unlabelled").equals(expected)
    images = folder / IMAGE_FOLDER / SEQUENCE
    assert run(stage2, images, tmp_path / "table", "--boxes", folder / "boxes.csv").equals(expected)
    shuffled = box_rows(crowd(3)).sample(frac=1, random_state=0)
    shuffled["frame"] = shuffled["frame"].str.removesuffix(".jpg").astype(int)  # numbers do as well as names
    shuffled.assign(sequence=SEQUENCE).to_csv(tmp_path / "boxes.csv", index=False)
    again = run(stage2, images.parent, tmp_path / "shuffled", "--boxes", tmp_path / "boxes.csv")
    assert again.equals(expected)


def test_from_python_the_tables_are_those_of_the_files(folder, stage2, tmp_path):
    """And everybody is in one group of the right size, on keyframes also in the toolkit's file."""
    rows = run(stage2, folder, tmp_path / "out")
    tables = prediction.load(stage2, "cpu").predict(folder)
    assert tables["predictions"]["p_interaction"].tolist() == rows["p_interaction"].tolist()
    groups = pandas.read_csv(tmp_path / "out" / "groups.csv")
    assert groups.equals(tables["groups"].astype(groups.dtypes))
    assert len(groups) == sum(len(records) for records in crowd(3).values())
    assert (groups.groupby(["frame", "group"])["id"].transform("size") == groups["size"]).all()
    assert (groups.groupby("frame")["group"].max() == groups.groupby("frame")["group"].nunique()).all()
    official = np.loadtxt(tmp_path / "out" / "det_group.txt")
    assert set(official[:, 1]) == set(FRAMES) and (official[:, 6] >= 1).all()
    boxes = box_rows(crowd(3))
    inside = (boxes["x"] >= 0) & (boxes["x"] + boxes["w"] <= 3760) & (boxes["y"] + boxes["h"] <= 480)
    assert len(official) == inside.sum() < len(boxes)


def test_pairs_are_told_left_to_right_and_through_the_seam(folder, stage2, tmp_path):
    rows = run(stage2, folder, tmp_path / "out")
    found = set(zip(rows["id_left"], rows["id_right"], strict=True))
    assert ("pedestrian:1", "pedestrian:2") in found and ("pedestrian:7", "pedestrian:10") in found
    assert not {("pedestrian:10", "pedestrian:7"), ("pedestrian:1", "pedestrian:5")} & found


def test_earlier_frames_are_the_past_of_later_ones(folder, stage2, tmp_path):
    keys = ["frame", "id_left", "id_right"]
    every = run(stage2, folder, tmp_path / "every").set_index(keys)["p_interaction"]
    late = {key: records for key, records in crowd(3).items() if key != "000015.jpg"}
    box_rows(late).to_csv(tmp_path / "boxes.csv", index=False)
    images = folder / IMAGE_FOLDER / SEQUENCE
    without = run(stage2, images, tmp_path / "late", "--boxes", tmp_path / "boxes.csv")
    without = without.set_index(keys)["p_interaction"]
    assert len(without) == len(every) - len(every.loc["000015.jpg"])
    assert not np.allclose(every.loc["000045.jpg"], without.loc["000045.jpg"], atol=1e-4)


def test_pictures_of_every_frame_or_as_many_as_asked(folder, stage2, tmp_path):
    run(stage2, folder, tmp_path / "all", "--max_pictures", 100)
    assert sorted(p.name for p in (tmp_path / "all").glob("*.png")) == [f"{n:06d}.png" for n in FRAMES]
    picture = np.asarray(Image.open(tmp_path / "all" / "000015.png"))
    assert picture.shape[1] == 3760 and picture.shape[0] > 480
    run(stage2, folder, tmp_path / "two", "--max_pictures", 2)
    assert [p.name for p in sorted((tmp_path / "two").glob("*.png"))] == ["000015.png", "000045.png"]
    run(stage2, folder, tmp_path / "none")
    assert {p.name for p in (tmp_path / "none").iterdir()} == {
        "predictions.csv", "groups.csv", "det_group.txt",
    }  # fmt: skip


def test_pictures_number_groups_as_the_table_does(folder, stage2, tmp_path, monkeypatch):
    drawn, draw = [], interactions.draw_panorama
    noted = lambda *args, **told: drawn.append(told["groups"]) or draw(*args, **told)  # noqa: E731
    monkeypatch.setattr(interactions, "draw_panorama", noted)
    run(stage2, folder, tmp_path / "out", "--max_pictures", 100)
    table = pandas.read_csv(tmp_path / "out" / "groups.csv")
    assert len(drawn) == len(FRAMES) and np.concatenate(drawn).tolist() == table["group"].tolist()


def test_a_stage_1_run_says_who_and_not_how(folder, tmp_path):
    (tmp_path / "run").mkdir()
    make_checkpoint(tmp_path / "run" / "best_f1.pth", "train_stage1.py")
    args = load_checkpoint(tmp_path / "run" / "best_f1.pth")["args"]
    config = {"script_name": "train_stage1.py", "args": args, "dataset": {"fingerprint": "abc"}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    rows = run(tmp_path / "run", folder, tmp_path / "out")
    assert set(rows["type"]) == {"none", "interaction"} and set(rows["p_type"]) == {""}
    assert ((rows["p_interaction"] >= THRESHOLD) == (rows["type"] == "interaction")).all()


def test_geometry_needs_no_image_and_several_sequences_are_named(tmp_path, capsys):
    """Frames without an image are scored from their boxes alone; with pixels they are only the past."""
    for name in ("a_0", "b_0"):
        write_labels(tmp_path / "data", name, strip(crowd(3)))
    write_frames(tmp_path / "data" / IMAGE_FOLDER / "b_0", [45])
    geometry = make_checkpoint(tmp_path / "geometry.pth", "train_stage2.py", features="geometry")
    rows = run(geometry, tmp_path / "data", tmp_path / "out", "--max_pictures", 9)
    known = f"1 of 2 sequences are called like those that {geometry} was trained on: if they"
    assert known in capsys.readouterr().out
    assert rows.groupby(["sequence", "frame"]).ngroups == 6
    assert [p.name for p in (tmp_path / "out").glob("*.png")] == ["b_0_000045.png"]
    pixels = make_checkpoint(tmp_path / "pixels.pth", "train_stage2.py")
    rows = run(pixels, tmp_path / "data", tmp_path / "pixels")
    assert rows[["sequence", "frame"]].drop_duplicates().to_numpy().tolist() == [["b_0", "000045.jpg"]]


def test_sequences_named_by_folders_have_pictures_too(stage2, tmp_path):
    for day in ("mon", "tue"):
        write_frames(tmp_path / "images" / day / "rgb", [15])
    rows = pandas.concat(box_rows(crowd(1)).assign(sequence=f"{day}/rgb") for day in ("mon", "tue"))
    rows.to_csv(tmp_path / "boxes.csv", index=False)
    run(stage2, tmp_path / "images", tmp_path / "out", "--max_pictures", 9, "--boxes", tmp_path / "boxes.csv")
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"mon_rgb_000015.png", "tue_rgb_000015.png"}


def test_seconds_are_those_of_the_training(folder, tmp_path):
    """Of a run whose frames count seconds, predict.py reads the past in seconds too."""
    late = {f"{k + 1:06d}.jpg": people for k, people in enumerate(crowd(3).values())}
    box_rows(late).to_csv(tmp_path / "boxes.csv", index=False)
    state = load_checkpoint(
        make_checkpoint(tmp_path / "geometry.pth", "train_stage1.py", features="geometry")
    )
    state["args"]["frame_rate"] = 1.0
    save_checkpoint(tmp_path / "seconds.pth", state)

    def scores(checkpoint, *more):
        return run(
            tmp_path / checkpoint,
            tmp_path / "none",
            tmp_path / "out",
            "--boxes",
            tmp_path / "boxes.csv",
            *more,
        )["p_interaction"]

    assert scores("seconds.pth").equals(scores("geometry.pth", "--frame_rate", 1))
    assert not scores("seconds.pth").equals(scores("geometry.pth"))


def test_the_input_is_never_written_over(folder, stage2):
    """Pictures are named like the frames: of PNG they would replace them."""
    images = folder / IMAGE_FOLDER / SEQUENCE
    for source, output in ((images, images), (folder, images), (folder, folder)):
        with pytest.raises(CommandError, match="--output .*: (is the input|contains the images)"):
            run(stage2, source, output, *(("--boxes", folder / "boxes.csv") if source == images else ()))


def test_boxes_alone_are_enough_for_a_run_of_geometry(folder, stage2, tmp_path, capsys):
    def from_boxes(checkpoint, output, *more):
        argv = ["--run", checkpoint, "--boxes", folder / "boxes.csv", "--output", output, *more]
        predict.main(predict.parse_args([str(token) for token in argv]))
        return pandas.read_csv(output / "predictions.csv", keep_default_na=False)

    geometry = make_checkpoint(tmp_path / "geometry.pth", "train_stage1.py", features="geometry")
    alone = from_boxes(geometry, tmp_path / "alone")
    assert alone.equals(
        from_boxes(geometry, tmp_path / "images", "--input", folder / IMAGE_FOLDER / SEQUENCE)
    )
    assert "is not the folder of a finished run" in capsys.readouterr().out
    shutil.copy(folder / "boxes.csv", tmp_path / "dets")
    bare = from_boxes(geometry, tmp_path / "bare", "--boxes", tmp_path / "dets")
    assert bare["p_interaction"].equals(alone["p_interaction"])
    with pytest.raises(CommandError, match="--input is required: this run uses pixels"):
        from_boxes(stage2, tmp_path / "pixels")


@pytest.mark.parametrize("nobody", [["000015.jpg"], ["000015.jpg", "000030.jpg"]])
def test_a_frame_without_people_is_a_picture_without_people(folder, stage2, tmp_path, nobody):
    labels = crowd(3) | {key: [] for key in nobody}
    write_labels(tmp_path / "data", SEQUENCE, labels)
    (tmp_path / "data" / "images").symlink_to(folder / "images")
    rows = run(stage2, tmp_path / "data", tmp_path / "out", "--max_pictures", 3)
    assert set(rows["frame"]) == set(labels) - set(nobody)
    assert sorted(p.stem for p in (tmp_path / "out").glob("*.png")) == [f"{n:06d}" for n in FRAMES]


def test_an_image_that_can_not_be_used_is_listed_and_the_rest_predicted(stage2, tmp_path, capsys):
    """Damaged, of another size, no image at all, or the first of them: an error when all else is written."""
    write_labels(tmp_path, SEQUENCE, crowd(4))
    images, output = tmp_path / IMAGE_FOLDER / SEQUENCE, tmp_path / "out"
    with pytest.raises(DataError, match="no frame with boxes has an image"):
        run(stage2, tmp_path, output)
    write_frames(images, [30, 45])
    write_frames(images, [60], size=(1880, 480))
    whole = (images / "000030.jpg").read_bytes()
    (images / "000015.jpg").write_bytes(b"no image")
    (images / "000045.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"3 of 4 frames cannot be read: 000015.jpg: .*\n.*the other 1 are pred"
    ):
        run(stage2, tmp_path, output, "--max_pictures", 4)
    skipped = pandas.read_csv(output / "skipped.csv")
    assert skipped["frame"].tolist() == ["000015.jpg", "000045.jpg", "000060.jpg"]
    assert "1880x480" in skipped["reason"][2]
    assert not any(str(tmp_path) in reason for reason in skipped["reason"]), "sequence and frame name it"
    for table in ("predictions", "groups"):
        assert set(pandas.read_csv(output / f"{table}.csv")["frame"]) == {"000030.jpg"}
    assert [path.name for path in output.glob("*.png")] == ["000030.png"]
    (images / "000030.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="000015.jpg"):
        run(stage2, tmp_path, output)
    geometry = make_checkpoint(tmp_path / "geometry.pth", "train_stage1.py", "geometry")
    (images / "000030.jpg").write_bytes(whole)
    rows = run(geometry, tmp_path, tmp_path / "all", "--max_pictures", 4)  # needs no image
    assert "people on keyframes) and 1 picture in" in capsys.readouterr().out.splitlines()[-1]
    assert rows["frame"].nunique() == 4 and len(list((tmp_path / "all").glob("*.png"))) == 1


def test_a_wrong_checkpoint_is_one_clear_error(folder, tmp_path):
    other = tmp_path / "other.pth"
    save_checkpoint(other, {"script": "train_other.py", "args": {}})
    with pytest.raises(CommandError, match="not a checkpoint of a training script: it lacks epoch, model"):
        run(other, folder, tmp_path / "out")
    save_checkpoint(other, {"script": "train_other.py", "args": {}, "epoch": 1, "model": {}})
    with pytest.raises(CommandError, match="names the script 'train_other.py'; known: train_anomaly"):
        run(other, folder, tmp_path / "out")
    with pytest.raises(CommandError, match="there is no run .*nowhere.pth"):
        run(tmp_path / "nowhere.pth", folder, tmp_path / "out")
    renamed = make_checkpoint(tmp_path / "renamed.pth", "train_stage2.py")
    state = torch.load(renamed, weights_only=True)
    save_checkpoint(renamed, state | {"class_names": state["class_names"][::-1]})
    with pytest.raises(CommandError, match="class_names"):
        run(renamed, folder, tmp_path / "out")
    save_checkpoint(
        renamed, state | {"args": state["args"] | {"image_size": [32, 16], "backbone": "resnet18"}}
    )
    with pytest.raises(CommandError, match="do not fit the model of its flags"):
        run(renamed, folder, tmp_path / "out")
    good, table = make_checkpoint(tmp_path / "good.pth", "train_stage2.py"), folder / "boxes.csv"
    (tmp_path / "half.pth").write_bytes(good.read_bytes()[:5000])
    with pytest.raises(CommandError, match="half.pth is damaged"):
        run(tmp_path / "half.pth", folder, tmp_path / "out")
    with pytest.raises(CommandError, match="no such folder"):
        run(good, tmp_path / "x", tmp_path / "out", "--boxes", table)
    with pytest.raises(CommandError, match="boxes.csv: a file\n.*the folder of the images"):
        run(good, table, tmp_path / "out", "--boxes", table)
    with pytest.raises(CommandError, match="nothing.csv: no such file"):
        run(good, folder, tmp_path / "out", "--boxes", tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "x"], "one of the arguments --output --export is required"),
        (["--output", "y"], "--input is required (or --boxes FILE, for a JRDB run that uses geometry only)"),
        (["--output", "y", "--export", "m.pt2"], "--export: not allowed with argument --output"),
        (["--export", "m.pt2", "--input", "x"], "leave out --input"),
        (["--input", "x", "--output", "y", "--max-picture", "3"], "did you mean --max_pictures"),
    ],
)
def test_flags_that_do_not_go_together(capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        predict.parse_args(["--run", "RUN", *flags])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_real_panorama_with_people_on_the_seam(real, stage2, tmp_path):
    """bytes-cafe frame 0, boxes from its label file by way of a table."""
    name = "bytes-cafe-2019-02-07_0"
    labels = json.loads(list_sequences(real / "jrdb")[name].read_text())["labels"]
    box_rows({"000000.jpg": labels["000000.jpg"]}).to_csv(tmp_path / "boxes.csv", index=False)
    images = real / "jrdb" / IMAGE_FOLDER / name
    rows = run(stage2, images, tmp_path / "out", "--max_pictures", 1, "--boxes", tmp_path / "boxes.csv")
    across = rows[(rows["id_left"] == "pedestrian:25") & (rows["id_right"] == "pedestrian:14")]
    assert len(across) == 1 and (tmp_path / "out" / "000000.png").is_file()
