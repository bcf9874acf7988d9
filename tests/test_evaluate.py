"""evaluate.py gives the figures of the run itself, judges both stages over every pair there is, and says
what a failing sensor costs."""

import argparse
import functools
import json
import shutil
from unittest.mock import Mock

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import evaluate
import prediction
from datasets.anovox import load
from datasets.anovox.augmentation import CORRUPTIONS, corrupt_frames
from datasets.jrdb.labels import IMAGE_FOLDER
from datasets.samples.ultrasound import generate
from datasets.ultrasound.sheets import find_sheet
from datasets.ultrasound.table import read_rows
from prediction.flags import read_otherwise
from prediction.judged import Judge
from prediction.trained import open_trained
from prediction.trials import judge_pastes
from tests import tiny_runs
from tests.anovox_world import copy_of, frame_files, scenario_folders, tiny_sample
from tests.jrdb_world import write_world
from tests.ultrasound_flags import data_arguments
from utils.metrics.calibration import calibration_error
from utils.metrics.classification import reference_scores
from utils.metrics.jrdb_act import score_groups
from utils.plotting import classification as plotting
from utils.run.errors import CommandError, DataError
from utils.run.folder import read_arrays, read_json
from utils.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def run_of(tmp_path):
    """Copies of the tiny runs, to be written into."""
    return lambda name: tiny_runs.copy_of_run(name, tmp_path)


def evaluated(run, *argv: str):
    """The folder that one call of evaluate.py adds to the run."""
    before = set(run.glob("evaluation_*_*"))
    evaluate.main(evaluate.parse_args(["--run", str(run), "--device", "cpu", *map(str, argv)]))
    return (set(run.glob("evaluation_*_*")) - before).pop()


OF_CLASSES = "confusion_matrix probability_distributions reliability mistakes"


@pytest.mark.figures
@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("train_stage1", OF_CLASSES),
        ("train_stage2", f"{OF_CLASSES} end_to_end_confusion"),
        ("train_anomaly_with_labels", f"{OF_CLASSES} roc_pr"),
        ("train_mae", "scatter bland_altman error_by_age mistakes"),
    ],
)
def test_every_figure_is_drawn(run_of, name, figures, caplog):
    drawn = {path.stem: path.stat().st_size for path in evaluated(run_of(name)).glob("*.png")}
    assert set(drawn) == set(figures.split()) and min(drawn.values()) > 5000
    assert "failed, the run goes on" not in caplog.text


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(run, folder of its evaluation on test), once for all tests; of AnoVox with every corruption."""

    @functools.cache
    def judge(name):
        run = tiny_runs.copy_of_run(name, tmp_path_factory.mktemp("judged"))
        return run, evaluated(run, *(["--corrupt", "all"] if "anomaly" in name else []))

    return judge


def test_a_checkpoint_of_another_run_is_refused(run_of, tmp_path):
    run, other = run_of("train_mae"), tiny_runs.train("train_mae", tmp_path / "other", "--fold", "1/3")
    shutil.copy(other / "best_model.pth", run)
    with pytest.raises(CommandError, match="is not of the run that .*\n  --fold: trained with 1/3"):
        evaluated(run)


@pytest.mark.parametrize("name", ["train_stage1", "train_stage2"])
def test_the_reliability_of_val_is_drawn_from_the_scores_that_the_report_judges(run_of, monkeypatch, name):
    run, drawn = run_of(name), []
    monkeypatch.setattr(plotting, "plot_reliability", lambda *of: drawn.append(calibration_error(*of[:2])))
    folder = evaluated(run, "--split", "val")
    error = read_json(folder / "results.json")["metrics"]["val"]["calibration_error"]
    assert drawn == [pytest.approx(error)] and error > 0


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
    (_, *whole), (head, *rest) = (text.rstrip().split("\n\n") for text in (theirs, ours))
    # A run adds what each input is worth, and warnings about its history.
    own = [text for text in whole if not text.startswith(("warnings", "what each input is worth"))]
    assert own == [text for text in rest if not text.startswith("warnings")]
    split = read_json(run / "split.json")
    assert head.splitlines()[2].startswith(f"judged {len(split['test'])} of {sum(map(len, split.values()))} ")
    pictures = {p.name for p in run.glob("*.png")} - {"training_curves.png", "class_distribution.png"}
    assert pictures and pictures <= {p.name for p in folder.glob("*.png")}


@pytest.mark.parametrize("name", ["train_anomaly_with_labels", "train_mae", "train_stage1"])
def test_another_split_and_another_checkpoint(run_of, name):
    run = run_of(name)
    folder = evaluated(run, "--split", "val", "--checkpoint", "final.pth")
    results, last = read_json(folder / "results.json"), read_json(run / "history.json")[-1]
    key = {"train_mae": "mae"}.get(name, "auroc")
    assert results["metrics"]["val"][key] == pytest.approx(last[f"val_{key}"], rel=1e-6)
    assert results["epoch"] == last["epoch"] and results["checkpoint"].endswith("final.pth")
    assert "val is the split that selects the best epoch" in results["verdict_reason"]


@pytest.mark.parametrize("name", ["train_anomaly_with_labels", "train_mae", "train_stage1", "train_stage2"])
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
    columns = ["sequence", "keyframe", "x1", "y1", "x2", "y2", "group", "activity", "last"]
    files = (folder / name for name in ("gt_group.txt", "det_group.txt"))
    truth, rows = (pandas.read_csv(file, sep=" ", names=columns) for file in files)
    assert score_groups(truth, rows)["task_3"] == pytest.approx(found["jrdb_act"]["clusters"]["task_3"])
    report = (folder / "end_to_end_report.txt").read_text()
    assert "six outcomes" in report and "whole groups" in report and "JRDB-Act" in report


def test_another_data_set_is_judged_whole_beside_what_the_run_was_trained_on(run_of, tmp_path, capsys):
    """Sequences named like the run's, other pairs in them: no reference model is made of those."""
    other = write_world(tmp_path / "other", {"train": 1, "val": 1, "test": 6}, seed=9)
    stage1 = run_of("train_stage1")
    folder = evaluated(stage1, "--data_path", other, "--split", "all")
    results = read_json(folder / "results.json")
    assert results["judged"] == {"judged": 8, "present": 8, "unseen": 0}
    assert results["metrics"]["all"]["auroc"] > 0.9
    assert "8 of the run's sequences have other contents than it read" in capsys.readouterr().out
    assert "judged 8 of 8 sequences" in (folder / "evaluate.log").read_text()
    trained = open_trained(stage1, torch.device("cpu"))
    everything = Mock(side_effect=lambda present: {"all": list(present)}, dataset={})
    theirs = trained.script.build_datasets(trained.args, choose=everything)
    trained.args.data_path = str(other)
    data = trained.script.build_datasets(trained.args, choose=everything)
    recorded = read_arrays(stage1 / "references.npz")
    train = recorded["train_inputs"], recorded["train_labels"]
    scores = reference_scores(*train, data.parts["all"].geometry, weights=recorded["train_weights"])
    auroc = roc_auc_score(data.parts["all"].labels, scores["boosted trees"][:, 1])
    assert results["baselines"]["boosted trees"]["auroc"] == pytest.approx(auroc)
    assert len(recorded["train_labels"]) < len(theirs.parts["all"])


def test_panoramas_of_another_shape_than_the_runs_are_told(run_of, tmp_path, capsys):
    """A whole sphere beside the band of it that JRDB shows: heights are shares of another height."""
    sphere, stage1 = write_world(tmp_path / "sphere", {"test": 6}, seed=9), run_of("train_stage1")
    for name in read_json(sphere / "split.json")["test"]:
        (sphere / IMAGE_FOLDER / name).mkdir(parents=True)
        Image.new("L", (3760, 1880)).save(sphere / IMAGE_FOLDER / name / "000000.jpg")
    evaluated(stage1, "--data_path", sphere, "--split", "all")
    assert "test-0_0 3760x1880, test-1_0 3760x1880, " in (said := capsys.readouterr().out)
    assert "another shape than the 3760x480 of the training" in said
    prediction.load(stage1).predict(sphere)
    assert "another shape than the 3760x480 of the training" in capsys.readouterr().out
    evaluated(stage1)
    prediction.load(stage1).predict(write_world(tmp_path / "band", {"test": 1}))
    assert "another shape" not in capsys.readouterr().out


def test_a_whole_data_set_of_the_same_names_is_judged_by_name_without_a_flag(run_of, tmp_path):
    other = write_world(tmp_path / "other", {"train": 1, "val": 1, "test": 5}, seed=9)
    folder = evaluated(run_of("train_stage1"), "--data_path", other)
    results, report = read_json(folder / "results.json"), (folder / "evaluation_report.txt").read_text()
    assert results["judged"] == {"judged": 5, "present": 7, "unseen": 0}
    assert f"data: {other}\njudged 5 of 7 sequences; 7 of the run's" in report
    assert "if they only share the names, --split all judges all\nmodel: " in report


def test_labels_read_otherwise_are_no_damage_of_the_data(run_of, tmp_path):
    """--class_map changes what every sequence holds, although nobody touched a file."""
    (tmp_path / "map.json").write_text('{"walking together": "others"}')
    folder = evaluated(run_of("train_stage1"), "--class_map", tmp_path / "map.json")
    report = (folder / "evaluation_report.txt").read_text()
    assert "12 of the run's sequences have other contents" in report and "(other files or flags)" in report


def other_cohort(folder, seed=1, rename=None, columns=("id", "age")):
    """(images, table) of healthy people of another generator's seed; `rename` gives the names they go by."""
    generate(folder, "tiny", seed=seed)
    rename, rows = rename or str, []
    (folder / "images").mkdir()
    ages = read_ages(folder / "TA/characteristics.xlsx")
    for path in sorted((folder / "TA/Healthy/Images").glob("*.png")):
        _, subject, number = path.stem.split("_")
        if subject in ages:
            shutil.copy(path, folder / "images" / f"anon_{rename(subject)}_{number}.png")
            rows.append((rename(subject), ages[subject]))
    pandas.DataFrame(sorted(set(rows)), columns=list(columns)).to_csv(folder / "table.csv", index=False)
    return folder / "images", folder / "table.csv"


def read_ages(table):
    args = data_arguments(exclude=[])
    return read_rows(find_sheet(table, "healthy", args), args).rows.age.to_dict()


def test_an_external_cohort_is_judged_whole_against_the_runs_own_baseline(run_of, tmp_path):
    mae = run_of("train_mae")
    images, table = other_cohort(tmp_path / "them", rename="X{}".format, columns=("Image ID", "Years"))
    flags = ["--image_dir", images, "--excel_path", table, "--id_column", "Image ID", "--age_column", "Years"]
    folder = evaluated(mae, *flags)  # nobody is known: all are judged
    results, rows = read_json(folder / "results.json"), pandas.read_csv(folder / "all_predictions.csv")
    assert results["judged"]["judged"] == results["judged"]["present"] == rows["subject"].nunique() > 5
    trained = open_trained(mae, torch.device("cpu"))
    mean = trained.script.build_datasets(trained.args).train.ages.mean()
    expected = rows.groupby("subject")["age"].first().sub(mean).abs().mean()
    assert results["baselines"]["train mean"]["subject_mae"] == pytest.approx(expected, rel=1e-5)
    assert "judged 16 of 16 subjects" in (folder / "evaluation_report.txt").read_text().splitlines()[2]


def test_other_images_do_not_keep_the_table_of_the_run_and_its_own_do():
    for images, changed, table in ("/a", False, "/a.csv"), ("/b", True, None):
        recorded = argparse.Namespace(image_dir="/a", excel_path="/a.csv")
        typed = argparse.Namespace(image_dir=images, excel_path=None)
        assert read_otherwise(recorded, typed, "train_mae.py") == changed
        assert recorded.excel_path == table


def test_who_was_trained_on_is_refused_under_any_name(run_of, tmp_path):
    mae = run_of("train_mae")
    images, table = other_cohort(tmp_path / "them", seed=0, rename="X{}".format)  # the run's own people
    flags = ["--image_dir", images, "--excel_path", table, "--id_column", "id", "--age_column", "age"]
    trained = read_json(mae / "split.json")["train"]
    for split in ("all", "unseen"):
        with pytest.raises(DataError, match=f"{len(trained)} of 16 subjects contain what the run") as caught:
            evaluated(mae, *flags, "--split", split)
        assert all(f"X{name} (there {name})" in str(caught.value) for name in trained[:5])
        assert caught.value.exit_code == 3
    assert not list(mae.glob("evaluation_*_*"))


@pytest.fixture
def moved_run(tmp_path):
    """A run of ages whose data lies in a folder of its own, which a test may change."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_runs.ultrasound().parents[2], folder)
    images = folder / "TA/Healthy/Images"
    return tiny_runs.train("train_mae", tmp_path / "runs", "--image_dir", images, "--epochs", 1), images


def test_people_added_and_removed_since_are_counted(moved_run, tmp_path, capsys):
    run, images = moved_run
    split = read_json(run / "split.json")
    ages = read_ages(images.parents[1] / "characteristics.xlsx")
    new, _ = other_cohort(tmp_path / "new", rename="N{}".format)
    for path in sorted(new.glob("anon_N1*_*.png")):
        shutil.copy(path, images)
    names = sorted({path.stem.split("_")[1] for path in images.glob("anon_N*.png")})
    gone = split["test"][0]
    for path in images.glob(f"anon_{gone}_*.png"):
        path.unlink()
    rows = [*ages.items(), *((name, 40.0) for name in names)]
    pandas.DataFrame(rows, columns=["id", "age"]).to_csv(images.parents[1] / "table.csv", index=False)
    flags = ["--excel_path", images.parents[1] / "table.csv", "--id_column", "id", "--age_column", "age"]
    folder = evaluated(run, *flags)
    judged = set(pandas.read_csv(folder / "test_predictions.csv", dtype=str)["subject"])
    assert judged == set(split["test"]) - {gone}
    assert read_json(folder / "results.json")["judged"]["unseen"] == len(names) > 0
    assert (
        f"1 of the {len(split['test'])} subjects of the test part are not in the data"
        in capsys.readouterr().out
    )
    assert "that the run never saw are left out" in (folder / "evaluate.log").read_text()
    folder = evaluated(run, *flags, "--split", "unseen")
    assert set(pandas.read_csv(folder / "unseen_predictions.csv", dtype=str)["subject"]) == set(names)


def test_data_that_changed_since_is_refused(moved_run):
    run, images = moved_run
    split = read_json(run / "split.json")
    first, second = (next(images.glob(f"anon_{name}_1.png")) for name in (split["test"][0], split["val"][0]))
    shutil.copy(first, first.with_suffix(".keep"))
    shutil.copy(second, first)  # someone else's picture under this name
    second.unlink()
    with pytest.raises(
        DataError, match=r"2 of the run's subjects have other contents than it read: "
    ) as caught:
        evaluated(run)
    assert split["test"][0] in str(caught.value) and "has changed since" in str(caught.value)


@pytest.mark.parametrize("name", ["train_stage1", "train_anomaly_with_labels"])
def test_renamed_recordings_are_known_by_their_contents(run_of, tmp_path, name):
    run = run_of(name)
    if name == "train_stage1":
        shutil.copytree(tiny_runs.jrdb(), tmp_path / "data")
        for path in (tmp_path / "data").rglob("*-?_0.json"):
            path.rename(path.with_name(f"new-{path.name}"))
    else:
        copy_of(tiny_sample(), tmp_path / "data")
        for path in scenario_folders(tmp_path / "data"):
            path.rename(path.with_name(f"{path.name[:-4]}ffff"))
    with pytest.raises(DataError, match="contain what the run was trained on: .* \\(there ") as caught:
        evaluated(run, "--data_path", tmp_path / "data", "--split", "all")
    trained = len(read_json(run / "split.json")["train"])
    assert f"Leakage: {trained} of " in str(caught.value)


def test_the_train_part_is_judged_as_it_was_recorded(run_of):
    """Without the copies that training pastes objects into."""
    run = run_of("train_anomaly_with_labels")
    trained = open_trained(run, torch.device("cpu"))
    trained.args.paste_share = 0.5
    assert trained.script.build_datasets(trained.args).train.pasted
    judge = Judge(run, "train", own=True, unit="scenarios")
    (part,) = trained.script.build_datasets(trained.args, choose=judge).parts.values()
    assert part.pasting is None and len(part) == len({*zip(part.scenario, part.frame_ids, strict=True)})


def test_normal_recordings_alone_have_alarms_and_no_verdict(run_of, tmp_path, capsys, monkeypatch):
    data = copy_of(tiny_sample(), tmp_path / "data")
    run = run_of("train_anomaly_with_labels")
    trained = open_trained(run, torch.device("cpu"))
    trained.args.paste_share = 0
    parts = trained.script.build_datasets(trained.args).parts.values()
    anomalous = {name for part in parts for name in part.scenario[part.labels == 1]}
    for k, path in enumerate(scenario_folders(data)):
        if path.name in anomalous:
            shutil.rmtree(path)
        else:
            path.rename(path.with_name(f"Scenario_{k}"))
            for image in path.with_name(f"Scenario_{k}").glob("RGB*/*"):  # another recording
                Image.new("RGB", (96, 64), (k, 99, 7)).save(image)
            for scan in path.with_name(f"Scenario_{k}").glob("LIDAR*/*"):
                np.save(scan, np.load(scan) * 0.99)
    titles = []
    monkeypatch.setattr("utils.report.anomaly.plot_roc_pr", lambda *given: titles.append(given[3]))
    folder = evaluated(run, "--data_path", data)
    assert titles == ["train_anomaly_with_labels.py on all of data"]  # not of what the run was trained on
    results, said = read_json(folder / "results.json"), capsys.readouterr().out
    alike = "all 16 samples are of class 'normal': nothing can be ranked; evaluate.py --paste N counts"
    assert alike in said and "nan" not in said and "undefined" not in said
    assert alike in (folder / "evaluation_report.txt").read_text()
    assert results["verdict"] == "NOT JUDGED" and results["metrics"]["all"]["auroc"] is None
    assert results["metrics"]["all"]["false_alarms_per_minute"] >= 0
    folder = evaluated(run, "--data_path", data, "--anomaly_ids", 1)  # where the road is one
    assert pandas.read_csv(folder / "all_predictions.csv")["label"].all()


def test_help_does_not_give_the_defaults_of_training(capsys):
    with pytest.raises(SystemExit):
        evaluate.parse_args(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "(default: as in the run)" in said and "built-in sample" not in said


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        (
            "train_mae",
            ["--data_path", "x"],
            "--data_path: a run of train_mae.py has only --excel_path, --image_dir",
        ),
        ("train_stage1", ["--image_dir", "x"], "--image_dir: a run of train_stage1.py has only --data_path"),
        ("train_stage1", ["--corrupt", "all"], "--paste are for AnoVox, not for a run of train_stage1"),
        ("train_mae", ["--image_dir", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_flags_of_another_task_are_refused(run_of, name, flags, message):
    run = run_of(name)
    with pytest.raises(CommandError, match=message):
        evaluated(run, *flags)
    assert not list(run.glob("evaluation_*_*"))


def test_what_is_advised_for_other_labels_can_be_typed(run_of, tmp_path):
    """Their boxes, their names of interactions, their frames per second."""
    other = write_world(tmp_path / "other", {"train": 1, "val": 1, "test": 1}, seed=1)
    for path in other.glob("labels/*/*.json"):
        content = json.loads(path.read_text())
        first = next(iter(content["labels"].values()))[0]
        first["box"][2] = 0
        path.write_text(json.dumps(content).replace("conversation", "small talk"))
    (tmp_path / "classes.json").write_text('\ufeff{"small talk": "conversation"}', encoding="utf-8")
    run, flags = run_of("train_stage1"), ["--split", "all", "--data_path", other]
    with pytest.raises(DataError, match="(?s)'small talk'.*--class_map.*--skip_bad_boxes"):
        evaluated(run, *flags)
    folder = evaluated(
        run, *flags, "--class_map", tmp_path / "classes.json", "--skip_bad_boxes", "--frame_rate", 15
    )
    assert read_json(folder / "results.json")["judged"]["judged"] == 3


@pytest.mark.parametrize("moved", ["train to test", "first of val to train"])
def test_a_split_that_was_edited_is_not_the_runs(run_of, moved):
    run = run_of("train_anomaly_with_labels")
    split = read_json(run / "split.json")
    if moved == "train to test":
        split["test"].append(split["train"].pop())
    else:
        split["train"].append(split["val"].pop(0))
    (run / "split.json").write_text(json.dumps(split))
    for flags in ([], ["--paste", 3], ["--split", "val"]):
        with pytest.raises(CommandError, match="is not of the run .*\n  trained on another split"):
            evaluated(run, *flags)


def test_degradation_table_is_what_the_corrupted_frames_give(judged):
    run, folder = judged("train_anomaly_with_labels")
    found = read_json(folder / "results.json")["degradation"]
    assert list(found) == ["clean", *CORRUPTIONS]
    recorded = read_json(run / "results.json")
    for key in ("auroc", "ap", "f1", "calibration_error"):
        assert found["clean"][key] == recorded["metrics"]["test"][key]
    trained = open_trained(run, torch.device("cpu"))
    test = trained.script.build_datasets(trained.args).parts["test"]
    for name in CORRUPTIONS:
        batch = corrupt_frames(test.__getitems__(range(len(test))), name, trained.args.seed)
        with torch.no_grad():
            logits = trained.model(*(batch[key] for key in trained.script.INPUTS))[0]
        assert found[name]["auroc"] == pytest.approx(roc_auc_score(test.labels, logits), abs=1e-6)
        change = found[name]["auroc"] - found["clean"]["auroc"]
        assert found[name]["auroc_change"] == pytest.approx(change)
        ends = found[name]["change_low"], found[name]["change_high"]
        assert np.mean(ends) == pytest.approx(change, abs=1e-6) and ends[0] <= ends[1]
    table = pandas.read_csv(folder / "degradation.csv")
    assert table["sensors"].tolist() == list(found)
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
    with pytest.raises(CommandError, match=rf"is not a run folder: .*\n.*{run.name} .all: "):
        evaluated(run.parent)
    with pytest.raises(CommandError, match="--checkpoint"):
        evaluated(run / "best_f1.pth")
    shutil.copy(tiny_runs.run_of("train_mae") / "best_model.pth", run / "other.pth")
    with pytest.raises(
        CommandError, match=r"other\.pth was written by train_mae\.py, the run .* by train_st"
    ):
        evaluated(run, "--checkpoint", run / "other.pth")
    twin = shutil.copytree(run, tmp_path / "stage1_experiment_20260101_000000")
    with pytest.raises(CommandError, match=rf"does not belong to {run}: pass --run {twin}"):
        evaluated(run, "--checkpoint", twin / "best_f1.pth")  # it may be trained on whom this run tests
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
    run = run_of("train_stage1")
    with pytest.raises(CommandError, match="--split test: the data has none of the 6 sequences"):
        evaluated(run, "--data_path", other)
    with pytest.raises(CommandError, match="--split unseen: nothing in this data is new .*\n.*--data_path"):
        evaluated(run, "--split", "unseen")
    state = load_checkpoint(run / "best_f1.pth")
    state["trained_on"]["split"]["test"] = []
    save_checkpoint(run / "best_f1.pth", state)
    (run / "split.json").write_text(json.dumps(state["trained_on"]["split"]))
    with pytest.raises(CommandError, match="the run has no test part.*\n--split val judges that"):
        evaluated(run)
    (run / "hashes.json").write_text("{}")
    with pytest.raises(CommandError, match="hashes.json has no train"):
        evaluated(run)


def test_what_is_pasted_is_counted_per_sensor_distance_and_colour(run_of, capsys, tmp_path):
    run = run_of("train_anomaly_with_labels")
    folder = evaluated(run, "--paste", 13)  # into fewer frames: two into each
    found = read_json(folder / "results.json")["pasted"]
    rows = pandas.read_csv(folder / "pastes.csv")
    state = load_checkpoint(run / "best_auroc.pth")
    test = set(read_json(run / "split.json")["test"])
    assert set(rows["scenario"]) <= test and len(rows) > 13
    own = pandas.read_csv(run / "test_predictions.csv").set_index(["scenario", "frame_id"]).label
    assert not own.loc[list(zip(rows.scenario, rows.frame_id, strict=True))].any()  # into normal frames
    assert f"{len(rows)} pastes, as many into each frame; pastes.csv" in capsys.readouterr().out
    for name, sensors in (("both sensors", "both"), ("pixels only", "camera"), ("points only", "lidar")):
        row = found[f"{name}, all"]
        alarms = rows[f"score_{sensors}"] >= state["threshold"]
        assert (row["found"], row["pastes"]) == (alarms.sum(), len(rows))
        assert row["rate_low"] <= row["rate"] <= row["rate_high"]
        better = (rows[f"score_{sensors}"] > rows["score_clean"]) + 0.5 * (
            rows[f"score_{sensors}"] == rows["score_clean"]
        )
        assert row["paired_auroc"] == pytest.approx(better.mean(), abs=1e-6)
        for group in ("distance", "size", "colour"):
            parts = [part for key, part in found.items() if key.startswith(f"{name}, {group} ")]
            assert sum(part["pastes"] for part in parts) == len(rows)
    clean = rows.drop_duplicates(["scenario", "frame_id"])["score_clean"]
    assert found["frames as they are"]["pastes"] == len(clean)
    labels = np.repeat((0, 1), (len(clean), len(rows)))
    auroc = roc_auc_score(labels, np.append(clean, rows["score_both"]))
    assert found["both sensors, all"]["auroc"] == pytest.approx(auroc, abs=1e-6)
    counted = {key: row["paired_auroc"] for key, row in found.items() if ", count " in key}
    assert counted.pop("points only, count edges") == counted.pop("pixels only, count raised") == 0.5
    assert len(counted) == 4 and min(counted.values()) > 0.5
    elsewhere = ["--data_path", copy_of(tiny_sample(), tmp_path / "elsewhere"), "--paste", 3]
    assert set(pandas.read_csv(evaluated(run, *elsewhere) / "pastes.csv")["scenario"]) <= test
    with pytest.raises(DataError, match="contain what the run was trained on"):
        evaluated(run, *elsewhere, "--split", "all")
    with pytest.raises(CommandError, match="--paste are for AnoVox, not for a run of train_mae"):
        evaluated(run_of("train_mae"), "--paste", 3)


def test_things_are_pasted_into_the_frames_that_the_run_calls_normal(run_of, tmp_path):
    trained = open_trained(run_of("train_anomaly_with_labels"), torch.device("cpu"))
    trained.args.min_pixels = trained.args.min_points = 10**6  # nothing is large enough to count
    scenario = next(path for path in scenario_folders(tiny_sample()) if (path / "ANOMALY").exists())
    judge = lambda hashes, labelled: {"test": [scenario.name]}  # noqa: E731
    judge.parts = {}
    judge_pastes(trained, 4, judge, tmp_path)
    assert len(set(pandas.read_csv(tmp_path / "pastes.csv")["frame_id"])) == 4


def test_a_run_on_pasted_objects_is_judged_on_as_many_of_them_again(tmp_path, monkeypatch):
    """Copies are counted for train, which evaluate.py does not read: test has fewer frames. Other data has
    as many copies as its own frames need."""
    monkeypatch.setattr(load, "PASTED_FRAMES", 12)
    for path in scenario_folders(tiny_sample()):
        if not (path / "ANOMALY").exists():
            shutil.copytree(path, tmp_path / "data" / path.name)
    flags = ["--label", "pasted", "--epochs", 1, "--data_path", tmp_path / "data"]
    run = tiny_runs.train("train_anomaly_with_labels", tmp_path / "runs", *flags)
    split = read_json(run / "split.json")
    for part, folder in (("test", split["test"][0]), ("val", "Scenario_other")):
        shutil.copytree(tmp_path / "data" / split[part][0], tmp_path / part / folder)
    for again in (evaluated(run), evaluated(run, "--data_path", tmp_path / "test")):
        for name in ("test_predictions.csv", "suspects.csv"):
            assert (again / name).read_text() == (run / name).read_text()
    other = evaluated(run, "--data_path", tmp_path / "val") / "all_predictions.csv"
    assert [len(pandas.read_csv(file)) for file in (run / "test_predictions.csv", other)] == [4 * 4, 4 * 6]


def test_things_are_pasted_into_images_alone(tmp_path):
    """As they are trained on with --modality camera."""
    for part, scenario in zip(("mine", "other"), scenario_folders(tiny_sample()), strict=False):
        (tmp_path / part).mkdir()
        for k, path in enumerate(frame_files(scenario, "RGB-CAM")):
            shutil.copy(path, tmp_path / part / f"{k}.png")
    flags = ["--label", "pasted", "--modality", "camera", "--pastes", 1, "--epochs", 1]
    name = "train_anomaly_with_labels"
    run = tiny_runs.train(name, tmp_path / "runs", *flags, "--data_path", tmp_path / "mine")
    rows = pandas.read_csv(evaluated(run, "--data_path", tmp_path / "other", "--paste", 4) / "pastes.csv")
    assert rows["scenario"].tolist() == ["other"] * 4
    tested = read_json(run / "split.json")["test"]  # a block of the frames
    assert tested == ["mine:3-3"] and evaluated(run).name.startswith("evaluation_test")
    rows = pandas.read_csv(evaluated(run, "--paste", 2) / "pastes.csv")
    assert set(zip(rows["scenario"], rows["frame_id"], strict=True)) == {("mine", 3)}
