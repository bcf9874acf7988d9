"""predict.py on a folder of ultrasound images: the ages of the run's own test pass, without any table."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

import evaluate
import predict
import prediction
from datasets.ultrasound.dataset import blank_text, read_sample
from prediction.ages import identify
from prediction.export import export_model
from tests import tiny_runs
from tests.ultrasound_flags import data_arguments
from utils.run.errors import CommandError, DataError
from utils.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module", params=["train_mae", pytest.param("train_ddp", marks=pytest.mark.long)])
def outspoken(request, tmp_path_factory):
    return tiny_runs.outspoken(tiny_runs.run_of(request.param), tmp_path_factory.mktemp("runs"))


def run(checkpoint, images, output, *more) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    argv = ["--run", checkpoint, "--input", images, "--output", output, "--device", "cpu", *more]
    predict.main(predict.parse_args([str(token) for token in argv]))
    ids = {"subject": str}
    tables = (output / "predictions.csv", output / "subjects.csv")
    return tuple(pandas.read_csv(path, dtype=ids, keep_default_na=False) for path in tables)


def test_a_folder_is_no_subject_where_the_table_named_files():
    folder, options = Path("us"), data_arguments(file_column="File")
    assert identify(folder / "TA/scan7.png", folder, options) == ("TA/scan7.png", "", "")
    assert identify(folder / "TA/anon_7_1.png", folder, options) == ("TA/anon_7_1.png", "7", "")
    assert identify(folder / "P7/scan.png", folder, data_arguments()) == ("P7/scan.png", "P7", "")
    options = data_arguments(file_column="File", id_pattern="^([^/]+)/")
    assert identify(folder / "P7/scan.png", folder, options) == ("P7/scan.png", "P7", "")
    options = data_arguments(visit_column="Visit")
    assert identify(folder / "P7/02/scan.png", folder, options) == ("P7/02/scan.png", "P7", "2")
    assert identify(folder / "P7/scan.png", folder, options) == ("P7/scan.png", "P7", "")


@pytest.mark.figures
def test_ages_are_those_of_the_evaluation(outspoken, tmp_path):
    rows, people = run(outspoken, tiny_runs.ultrasound(), tmp_path)
    assert list(rows) == ["file", "subject", "prediction", "low", "high"]
    assert list(people) == ["subject", "images", "prediction", "low", "high"]
    assert rows["file"].tolist() == sorted(path.name for path in tiny_runs.ultrasound().iterdir())
    evaluate.main(evaluate.parse_args(["--run", str(outspoken), "--device", "cpu"]))
    table = next(outspoken.glob("evaluation_test_*")) / "test_predictions.csv"
    truth = pandas.read_csv(table, dtype={"subject": str})
    mine = rows.set_index("file").loc[truth["file"]]
    assert mine["prediction"].std() > 0.1, "all alike: the test tests nothing"
    assert mine["subject"].tolist() == truth["subject"].tolist()
    assert mine["prediction"].to_numpy() == pytest.approx(truth["prediction"].to_numpy(), abs=2e-3)
    per_subject = people.set_index("subject")["prediction"].loc[truth["subject"]]
    assert per_subject.to_numpy() == pytest.approx(truth["subject_prediction"].to_numpy(), abs=2e-3)
    assert people["images"].sum() == len(rows)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_visits_of_a_person_are_predicted_one_by_one(outspoken, tmp_path):
    state = load_checkpoint(outspoken / "best_model.pth")
    state["args"] |= {"visit_column": "Visit", "id_pattern": "^([^_]+)_([^_]+)_"}
    save_checkpoint(tmp_path / "m.pth", state)
    (tmp_path / "us").mkdir()
    for name, path in zip(("7_1_a", "7_1_b", "7_2_a", "x"), tiny_runs.ultrasound().iterdir(), strict=False):
        shutil.copy(path, tmp_path / f"us/{name}.png")
    rows, visits = run(tmp_path / "m.pth", tmp_path / "us", tmp_path / "out")
    means = rows.groupby(["subject", "visit"]).prediction.mean()
    assert visits[["subject", "visit", "images"]].to_numpy().tolist() == [["7", 1, 2], ["7", 2, 1]]
    assert visits.prediction.to_numpy() == pytest.approx(means.loc["7"].to_numpy(), abs=2e-3)


@pytest.mark.figures
def test_what_moves_an_age_is_drawn_and_who_it_is_within(outspoken, tmp_path):
    """--explain puts the map of mistakes.png beside each image; low and high are those of the report."""
    state = load_checkpoint(outspoken / "best_model.pth")
    line = {"level": 0.9, "people": 20, "reach": 2.0, "line": [3.0, 0.0, 1.0, 9.0], "bias": None}
    save_checkpoint(tmp_path / "m.pth", state | {"intervals": line})
    rows, people = run(tmp_path / "m.pth", tiny_runs.ultrasound(), tmp_path / "a", "--max_pictures", "4")
    found = people.set_index("subject").loc[rows["subject"]]
    assert rows["high"].to_numpy() == pytest.approx(found["prediction"].to_numpy() + 6, abs=2e-3)
    assert rows["low"].tolist() == found["low"].tolist()
    plain = Image.open(tmp_path / "a" / "sheet.png").size
    run(tmp_path / "m.pth", tiny_runs.ultrasound(), tmp_path / "b", "--max_pictures", "4", "--explain")
    drawn = np.asarray(Image.open(tmp_path / "b" / "sheet.png").convert("RGB")).astype(int)
    assert drawn.shape[:2] != plain[::-1] and np.ptp(drawn, axis=2).max() > 50  # wider, and in colour


def test_from_python_files_and_pixels_give_the_same(outspoken, tmp_path):
    """What a program of one's own does: a run folder, a folder of images or the pixels themselves."""
    model = prediction.load(outspoken, "cpu")
    expected = model.predict(tiny_runs.ultrasound())["predictions"]
    pixels = [np.array(Image.open(path).convert("RGB")) for path in sorted(tiny_runs.ultrasound().iterdir())]
    found = model.predict(pixels)["predictions"]
    assert np.allclose(found["prediction"], expected["prediction"], atol=2e-3)
    written, _ = run(outspoken, tiny_runs.ultrasound(), tmp_path)
    assert np.allclose(written["prediction"], expected["prediction"], atol=2e-3)


def test_from_python_options_count_and_mistyped_ones_do_not_pass(outspoken, tmp_path):
    model, images = prediction.load(outspoken, "cpu"), tiny_runs.ultrasound()
    shutil.copytree(images, folder := tmp_path / "images")
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name.replace("anon_", "person_")))
    named = model.predict(folder, id_pattern=r"person_(\d+)")["subjects"]
    assert named["subject"].tolist() == model.predict(images)["subjects"]["subject"].tolist()
    assert model.predict(folder)["subjects"].empty  # of that call alone
    with pytest.raises(TypeError, match="no option boxs; it has boxes, "):
        model.predict(images, boxs="boxes.csv")
    with pytest.raises(CommandError, match="--camera: a run of .* has only --numeric_ids, --id_pattern, "):
        model.predict(images, camera="left")
    with pytest.raises(CommandError, match="--frame_rate: a run of train_.*.py reads no boxes"):
        model.predict(images, frame_rate=15)
    new = dataclasses.replace(model, task=model.task | {"data": "bones"})  # a task of one's own
    with pytest.raises(CommandError, match="is of a new task, which needs a file in prediction/ and a line"):
        new.predict(images)
    with pytest.raises(CommandError, match="is of a new task, which needs a line in OUTPUTS"):
        export_model(new, tmp_path / "new.pt2")
    pixels = [np.array(Image.open(path)) for path in sorted(images.iterdir())]
    model.predict(pixels[:3], output=tmp_path / "new" / "folder", max_pictures=2)
    assert (tmp_path / "new" / "folder" / "sheet.png").exists()


def test_any_folder_of_images_without_a_table(outspoken, tmp_path, capsys):
    """Names without an id: an age per image, and nobody is made up."""
    expected, _ = run(outspoken, tiny_runs.ultrasound(), tmp_path / "all", "--max_pictures", "0")
    bare = tmp_path / "bare"
    bare.mkdir()
    paths = sorted(tiny_runs.ultrasound().iterdir())[:3]
    shutil.copy(paths[0], bare / "a scan.png")
    shutil.copy(paths[1], bare / "=1+1.png")
    shutil.copy(paths[2], bare)
    Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), 20)).save(bare / "b mask.png")
    rows, people = run(outspoken, bare, tmp_path / "out", "--max_pictures", "0")
    assert rows["file"].tolist() == ["'=1+1.png", "a scan.png", paths[2].name, "b mask.png"]
    assert sorted(rows["prediction"][:3]) == pytest.approx(sorted(expected["prediction"][:3]), abs=2e-3)
    assert rows["subject"].tolist()[:2] == ["", ""] and len(people) == 1
    said = capsys.readouterr().out
    assert "3 of 4 file names have no subject id" in said
    assert (
        "1 images are almost entirely black and white, like masks; they are read like any other: b mask.png"
        in said
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["predictions.csv", "subjects.csv"]


def test_preprocessing_is_that_of_the_run(outspoken, tmp_path):
    """A run with --mask_text sees what a run without sees of blanked images, and any size is scaled alike."""
    plain = outspoken / "best_model.pth"
    state = load_checkpoint(plain)
    state["args"]["mask_text"] = True
    save_checkpoint(tmp_path / "masked.pth", state)
    blanked = tmp_path / "blanked"
    blanked.mkdir()
    for path in tiny_runs.ultrasound().iterdir():
        grey = blank_text(torch.from_numpy(read_sample(path, (32, 32))[0].copy()))
        Image.fromarray(grey[0].numpy()).save(blanked / path.name)
    no_sheet = ("--max_pictures", "0")
    masked, _ = run(tmp_path / "masked.pth", tiny_runs.ultrasound(), tmp_path / "a", *no_sheet)
    by_hand, _ = run(plain, blanked, tmp_path / "b", *no_sheet)
    as_they_are, _ = run(plain, tiny_runs.ultrasound(), tmp_path / "c", *no_sheet)
    assert masked.equals(by_hand) and not masked.equals(as_they_are)


def test_a_broken_file_costs_its_own_prediction_only(outspoken, tmp_path):
    images = tmp_path / "Images"
    shutil.copytree(tiny_runs.ultrasound(), images)
    whole, _ = run(outspoken, images, tmp_path / "whole")
    broken = sorted(images.iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DataError, match=rf"1 of \d+ images cannot be read: {broken.name}") as caught:
        run(outspoken, images, tmp_path / "out")
    assert caught.value.exit_code == 3 and "skipped.csv" in str(caught.value)
    rest = pandas.read_csv(
        tmp_path / "out" / "predictions.csv", dtype={"subject": str}, keep_default_na=False
    )
    expected = whole[whole["file"] != broken.name].reset_index(drop=True)
    pandas.testing.assert_frame_equal(rest, expected, check_dtype=False, atol=2e-3)
    skipped = pandas.read_csv(tmp_path / "out" / "skipped.csv")
    assert skipped["file"].tolist() == [broken.name] and "not a readable image" in skipped["reason"][0]
    shutil.copy(tiny_runs.ultrasound() / broken.name, broken)
    run(outspoken, images, tmp_path / "out")
    assert not (tmp_path / "out" / "skipped.csv").exists()
    for path in images.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="the other 0 are predicted"):
        run(outspoken, images, tmp_path / "none")


def test_a_single_file_and_folders_of_subjects(outspoken, tmp_path):
    images = sorted(tiny_runs.ultrasound().iterdir())[:4]
    whole, _ = run(outspoken, tiny_runs.ultrasound(), tmp_path / "whole")
    one, people = run(outspoken, images[0], tmp_path / "one")
    assert one["file"].tolist() == [images[0].name] and len(people) == 1
    assert one["prediction"][0] == pytest.approx(whole["prediction"][0], abs=2e-3)
    for k, path in enumerate(images):
        (tmp_path / f"bids/sub-{k}").mkdir(parents=True)
        shutil.copy(path, tmp_path / f"bids/sub-{k}/us.png")
    nested, people = run(outspoken, tmp_path / "bids", tmp_path / "nested")
    assert nested["file"].tolist() == [f"sub-{k}/us.png" for k in range(4)]
    assert people["subject"].tolist() == [f"sub-{k}" for k in range(4)]


def test_the_trained_intensity_range_is_used(outspoken, tmp_path, capsys):
    """12-bit images are read by the depth of the run's own train images, whatever their maximum is."""
    state = load_checkpoint(outspoken / "best_model.pth")
    (tmp_path / "deep").mkdir()
    (tmp_path / "plain").mkdir()
    for path in sorted(tiny_runs.ultrasound().iterdir())[:3]:
        grey = np.array(Image.open(path).convert("L"))
        Image.fromarray(grey).save(tmp_path / "plain" / path.name)
        deep = (grey.astype(np.uint32) * 4095 + 127) // 255
        Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "deep" / path.name)
    state["args"]["intensity_range"] = [0, 4095]
    save_checkpoint(tmp_path / "deep.pth", state)
    deep, _ = run(tmp_path / "deep.pth", tmp_path / "deep", tmp_path / "a")
    plain, _ = run(outspoken, tmp_path / "plain", tmp_path / "b")
    assert deep["prediction"].tolist() == pytest.approx(plain["prediction"].tolist(), abs=2e-3)
    assert "beyond" not in capsys.readouterr().out
    state["args"]["intensity_range"] = [0, 1023]
    save_checkpoint(tmp_path / "narrow.pth", state)
    run(tmp_path / "narrow.pth", tmp_path / "deep", tmp_path / "c")
    assert "3 images have grey values outside 0 to 1023" in capsys.readouterr().out


def test_bad_input_is_one_clear_error(tmp_path):
    images = tmp_path / "TA" / "Images"
    shutil.copytree(tiny_runs.ultrasound(), images)
    checkpoint = tiny_runs.run_of("train_mae")
    with pytest.raises(CommandError, match=rf"no such file or folder; did you mean {images}"):
        run(checkpoint, images.with_name("Imges"), tmp_path / "out")
    with pytest.raises(CommandError, match=rf"no images .*did you mean {images}"):
        run(checkpoint, images.parent, tmp_path / "out")
    with pytest.raises(CommandError, match="reads no boxes"):
        run(checkpoint, images, tmp_path / "out", "--boxes", "boxes.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="--output .*cannot be made"):
        run(checkpoint, images, tmp_path / "file" / "out")
