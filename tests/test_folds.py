"""--fold K/N: every group is tested exactly once, whatever the task, and nobody is trained on and judged."""

import argparse
import functools
import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy.stats import t
from sklearn import metrics

import compare_runs
import predict
import prediction
from tests.anovox_world import tiny_sample
from tests.folders import new_folder
from tests.tiny_runs import NAMES, flags_of, jrdb, outspoken, run_main, run_of, train, ultrasound
from utils.metrics.regression import subject_means
from utils.run.errors import CommandError, DataError
from utils.run.folder import read_json, write_json
from utils.run.log import stop_log
from utils.training.checkpoint import load_checkpoint

FOLDS = 4


def parts_of(name, *flags):
    script = importlib.import_module(name)
    args = script.parse_args(list(map(str, [*flags_of(name), *flags])))
    if name == "train_stage2":  # which takes these from its stage 1 run
        stage1 = importlib.import_module("train_stage1").parse_args(["--features", "geometry"])
        vars(args).update({flag: vars(stage1)[flag] for flag in script.FROM_STAGE1})
    stop_log()  # what is read here is no part of the log of the run before
    data = script.build_datasets(args)
    assert data.leakage_check
    return data.split, data.split_source


@pytest.mark.parametrize("name", NAMES)
def test_every_group_is_tested_exactly_once(name):
    splits = [parts_of(name, "--fold", f"{k}/{FOLDS}")[0] for k in range(1, FOLDS + 1)]
    groups = sorted(group for names in splits[0].values() for group in names)
    assert len(groups) == len(set(groups)) >= FOLDS
    assert sorted(group for split in splits for group in split["test"]) == groups
    for split, following in zip(splits, splits[1:] + splits[:1], strict=True):
        assert split["val"] == following["test"]
        assert sorted(sum(split.values(), [])) == groups
    sizes = [len(split["test"]) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_a_fold_stands_above_the_split_file_of_the_data_and_follows_the_seed():
    split, source = parts_of("train_stage1", "--fold", "1/4")
    assert source == "--fold 1/4 of --seed 42"
    assert split == parts_of("train_stage1", "--fold", "01/4")[0]
    assert split != parts_of("train_stage1")[0] and split != parts_of("train_stage1", "--fold", "2/4")[0]
    assert split != parts_of("train_stage1", "--fold", "1/4", "--seed", 7)[0]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("train_stage1", ["--split_method", "sorted70"]),
        ("train_anomaly_with_labels", ["--holdout_towns", "Town01", "--test_size", ".3"]),
        ("train_mae", ["--split_method", "mine.json", "--val_size", ".3"]),
    ],
)
def test_flags_that_split_otherwise_are_refused_in_one_message(name, flags, capsys):
    script = importlib.import_module(name)
    with pytest.raises(SystemExit):
        script.parse_args(["--fold", "1/5", *flags])
    said = capsys.readouterr().err
    assert all(flag in said for flag in flags if flag.startswith("--")) and "--fold 1/5" in said


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/2", "1", "a/b", "1/5/2", "-1/5"])
def test_what_is_no_fold(fold, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("train_mae").parse_args([f"--fold={fold}"])
    assert "K/N" in capsys.readouterr().err


def test_more_folds_than_groups():
    with pytest.raises(DataError, match="12 groups make at most 12 folds"):
        parts_of("train_stage1", "--fold", "1/13")


def test_anomalies_are_no_fold_of_a_model_that_is_trained_on_pasted_things():
    with pytest.raises(CommandError, match="Leave --fold out"):
        parts_of("train_anomaly_with_labels", "--fold", "1/4", "--label", "pasted")


def test_stage_2_refuses_a_stage_1_that_was_trained_on_whom_it_judges(tmp_path):
    """Sequences of one name, and the same recordings under other names."""
    start = ["--data_path", jrdb(), "--stage1_checkpoint", run_of("train_stage1"), "--output_dir", tmp_path]
    with pytest.raises(
        CommandError, match="Leakage: the run behind --stage1_checkpoint .*\n.*no --fold\n.*--fold"
    ):
        run_main("train_stage2", *start, "--fold", "1/4", "--check_data")
    run_main("train_stage2", *start, "--check_data")


@functools.cache
def fold_of(name, k):
    """The run of fold k of three, one epoch."""
    return train(name, new_folder(f"fold_{name}_{k}"), "--fold", f"{k}/3", "--epochs", 1)


def folds_of(name, count=3):
    return [fold_of(name, k) for k in range(1, count + 1)]


def copy_of(run, folder, seed=42, **args):
    """The same run as if of another seed and other flags."""
    copied = Path(shutil.copytree(run, folder / run.name))
    config = read_json(run / "config.json")
    config |= {"seed": seed, "args": config["args"] | {"seed": seed} | args}
    write_json(copied / "config.json", config)
    return copied


def compare(tmp_path, *runs):
    argv = ["--folds", *map(str, runs), "--picture_dir", str(tmp_path), "--name", "x"]
    compare_runs.main(compare_runs.parse_args(argv))
    return pandas.read_csv(tmp_path / "compare_x.csv", dtype={"fold": str})


def jackknife(table, value):
    """The figure on the pooled table, and its interval (from 0 to 1) from leaving out each group."""
    names = table["group"].unique()
    left = [value(table[table.group != name]) for name in names]
    reach = t.ppf(0.975, len(names) - 1) * np.sqrt((len(names) - 1) * np.var(left))
    return [value(table), max(0, value(table) - reach), min(1, value(table) + reach)]


def test_pooled_pairs_are_judged_once_each_by_sklearn(tmp_path, capsys):
    runs = folds_of("train_stage1")
    tables = [pandas.read_csv(run / "test_predictions.csv") for run in runs]
    table = pandas.concat(tables).rename(columns={"sequence": "group"})
    assert (
        not table.duplicated(["group", "frame", "id_left", "id_right"]).any() and table.group.nunique() == 12
    )
    pooled = compare(tmp_path, *runs).set_index("fold").loc["all"]
    for name, score in (("auroc", metrics.roc_auc_score), ("ap", metrics.average_precision_score)):
        expected = jackknife(table, lambda rows, score=score: score(rows.label == "interaction", rows.score))
        found = [pooled[f"test_{name}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx(expected, abs=1e-9)
    said = capsys.readouterr().out
    gain = [
        metrics.roc_auc_score(table.label == "interaction", table[column] * sign)
        for column, sign in (("score", 1), ("distance_widths", -1))
    ]
    assert f"pooled, 3 of 3 folds: LEARNED (beats distance alone: AUROC +{gain[0] - gain[1]:.3f}" in said


@pytest.mark.parametrize(
    "name",
    [
        "train_mae",
        *(pytest.param(n, marks=pytest.mark.long) for n in ("train_stage2", "train_anomaly_with_labels")),
    ],
)
def test_every_task_has_its_pooled_verdict(name, tmp_path, capsys):
    if name == "train_stage2":
        starts = folds_of("train_stage1", 2)
        runs = [
            train(name, tmp_path / str(k), "--fold", f"{k}/3", "--stage1_checkpoint", start, "--epochs", 1)
            for k, start in enumerate(starts, start=1)
        ]
    else:
        runs = folds_of(name, 3 if name == "train_mae" else 2)
    pooled = compare(tmp_path, *runs).set_index("fold").loc["all"]
    tables = [pandas.read_csv(run / "test_predictions.csv") for run in runs]
    table = pandas.concat(tables)
    if name == "train_mae":
        ages = [pandas.read_csv(run / "test_predictions.csv") for run in runs]
        floors = []
        for run, one in zip(runs, ages, strict=True):
            train_ages = np.load(run / "references.npz")["train_labels"]
            _, truth, _ = subject_means(one.subject.astype(str), one.age, one.prediction)
            floors.append([abs(truth - value(train_ages)) for value in (np.mean, np.median)])
        floor = min(np.concatenate([one[k] for one in floors]).mean() for k in (0, 1))
        error = table.groupby("subject").apply(lambda rows: abs(rows.prediction.mean() - rows.age.mean()))
        assert pooled.test_subject_mae == pytest.approx(error.mean())
        assert pooled.test_skill == pytest.approx(1 - error.mean() / floor)
    elif name == "train_stage2":
        assert pooled.test_accuracy == pytest.approx((table.label == table.prediction).mean())
    else:
        assert pooled.test_auroc == pytest.approx(metrics.roc_auc_score(table.label, table.score))
    assert f"pooled, {len(runs)} of 3 folds: " in capsys.readouterr().out and pooled.verdict in (
        "LEARNED",
        "NOT LEARNED",
    )


def test_intervals_of_people_are_counted_over_all_folds(tmp_path, capsys):
    ages = []
    copies = [tmp_path / str(k) / run.name for k, run in enumerate(folds_of("train_mae"))]  # of one second
    for run, copy in zip(folds_of("train_mae"), copies, strict=True):
        shutil.copytree(run, copy)
        ages.append(pandas.read_csv(run / "test_predictions.csv").assign(low=30, high=60))
        ages[-1].to_csv(copy / "test_predictions.csv", index=False)
    compare(tmp_path, *copies)
    share = pandas.concat(ages).groupby("subject").age.first().between(30, 60).mean()
    assert f"; {share:.1%} of 16 subjects lie in their interval" in capsys.readouterr().out


def test_two_recipes_are_paired_on_everybody(tmp_path, capsys):
    """Of whatever seed: other folds hold the same samples."""
    first, second = folds_of("train_stage1"), []
    for k, run in enumerate(first):
        second.append(copy_of(run, tmp_path / str(k), seed=7, learning_rate=0.1))
        table = pandas.read_csv(run / "test_predictions.csv")
        table.sample(frac=1, random_state=0).assign(score=0.5).to_csv(second[-1] / "test_predictions.csv")
    compare(tmp_path, *first, *second)
    said = capsys.readouterr().out
    table = pandas.concat([pandas.read_csv(run / "test_predictions.csv") for run in first])
    auroc = metrics.roc_auc_score(table.label == "interaction", table.score)
    (row,) = [line for line in said.splitlines() if line.startswith("| B - A")]
    assert f"{0.5 - auroc:+.3f} [" in row and "worse" in row
    total = sum(len(pandas.read_csv(run / "test_predictions.csv")) for run in first)
    assert f"paired on the same {total} test samples; intervals over 12 sequences" in said
    assert "B - A" in said and "A, seed 42" in said and "B, seed 7" in said


def test_without_the_flag_folds_are_shown_one_by_one_with_a_hint(tmp_path, capsys):
    argv = [*map(str, folds_of("train_stage1", 2)), "--picture_dir", str(tmp_path)]
    compare_runs.main(compare_runs.parse_args(argv))
    said = capsys.readouterr().out
    assert "A: fold=1/3" in said and "compare_runs.py --folds pools" in said


def test_missing_and_doubled_folds_are_said(tmp_path, capsys):
    runs = folds_of("train_stage1")
    again = shutil.copytree(runs[0], tmp_path / "stage1_experiment_20990101_000000")
    table = compare(tmp_path, runs[0], again, runs[2])
    said = capsys.readouterr().out
    assert "no finished run of fold 2/3" in said and "1 fold ran twice" in said
    assert "pooled, 2 of 3 folds" in said and list(table.fold) == ["1/3", "1/3", "3/3", "all"]


def test_a_recipe_without_one_fold_says_which(tmp_path, capsys):
    first = folds_of("train_stage1")
    second = [copy_of(run, tmp_path / str(k), learning_rate=0.1) for k, run in enumerate(first[:2])]
    compare(tmp_path, *first, *second)
    said = capsys.readouterr().out
    assert "B, seed 42: no finished run of fold 3/3" in said
    assert "no paired difference for B: pooled, 2 of 3 folds was tested on other samples" in said


def test_seeds_that_lack_a_fold_are_not_averaged_with_those_that_lack_none(tmp_path, capsys):
    runs = folds_of("train_stage1")
    whole = [copy_of(run, tmp_path / f"seed7_{k}", seed=7) for k, run in enumerate(runs)]
    compare(tmp_path, *runs, copy_of(runs[0], tmp_path / "seed8", seed=8), *whole)
    (mean,) = [line for line in capsys.readouterr().out.splitlines() if "mean +- sd" in line]
    assert "mean +- sd of 2 seeds" in mean and mean.count("+- 0.000") == mean.count("+-") - 1 > 0


def test_what_can_not_be_pooled_is_refused(tmp_path):
    runs = folds_of("train_stage1")
    with pytest.raises(CommandError, match="these are not: stage1_"):
        compare(tmp_path, *runs, run_of("train_stage1"))
    other = Path(shutil.copytree(runs[1], tmp_path / runs[1].name))
    config = read_json(other / "config.json")
    config["dataset"]["fingerprint"] = "f" * 64
    write_json(other / "config.json", config)
    with pytest.raises(CommandError, match="folds of different data"):
        compare(tmp_path, runs[0], other)
    config = read_json(runs[0] / "config.json")
    config["args"]["fold"] = "2/3"
    same = Path(shutil.copytree(runs[0], tmp_path / "same" / runs[0].name))
    write_json(same / "config.json", config)
    with pytest.raises(CommandError, match="tested the same samples"):
        compare(tmp_path, runs[0], same)


@pytest.mark.parametrize(
    ("name", "place", "column"),
    [
        ("train_mae", ultrasound, "prediction"),
        ("train_stage1", jrdb, "p_interaction"),
        pytest.param("train_anomaly_with_labels", tiny_sample, "score", marks=pytest.mark.long),
    ],
)
def test_several_runs_predict_the_mean_of_theirs(name, place, column, tmp_path):
    """Of folds, and of recipes that see other sizes."""
    runs = folds_of(name, 2)
    if name == "train_mae":
        other = train("train_ddp", tmp_path / "other", "--image_size", 48, "--epochs", 1)
        runs = [outspoken(run, tmp_path / str(k)) for k, run in enumerate([*runs, other])]
    alone = [prediction.load(run, "cpu").predict(place())["predictions"] for run in runs]
    model = prediction.load(runs, "cpu")
    together = model.predict(place())["predictions"]
    expected = np.mean([one[column] for one in alone], axis=0)
    assert expected.std() > 0.01, "all alike: the test tests nothing"
    assert not np.allclose(alone[0][column], alone[1][column])
    assert together[column].to_numpy() == pytest.approx(expected, abs=1e-3)
    if name == "train_mae":  # as wide as on average, about the mean
        for reach, member in enumerate(model.members, 1):
            member.state["intervals"] = {"reach": reach, "line": [1.0, 0.0, 0.0, 9.0]}
        people = model.predict(place())["subjects"]
        assert (people.high - people.prediction).to_numpy() == pytest.approx(2, abs=2e-3)
    else:
        threshold = np.mean([load_checkpoint(one.path)["threshold"] for one in model.members])
        assert model.state["threshold"] == pytest.approx(threshold)
        said = together.type == "interaction" if name == "train_stage1" else together.alarm == 1
        sure = abs(expected - threshold) > 1e-5
        assert (said == (expected >= threshold))[sure].all()


def test_runs_that_predict_other_things_are_refused(monkeypatch):
    with pytest.raises(CommandError, match="do not predict the same: task age and stage1"):
        prediction.load([run_of("train_mae"), run_of("train_stage1")], "cpu")
    one = prediction.load(run_of("train_stage1"), "cpu")
    args = vars(one.args) | {"whole_past": not one.args.whole_past}
    both = iter([one, replace(one, args=argparse.Namespace(**args))])
    monkeypatch.setattr("prediction.trained.open_trained", lambda *_: next(both))
    with pytest.raises(CommandError, match="do not predict the same: --whole_past (True|False) and"):
        prediction.load(["a", "b"], "cpu")
    with pytest.raises(SystemExit):
        predict.parse_args(["--run", "a", "b", "--export", "x.pt2"])


def test_a_fold_that_is_typed_wins_over_the_split_of_a_config(tmp_path):
    script = importlib.import_module("train_mae")
    recorded = script.parse_args(["--split_method", "mine.json", "--lr", "0.5"])
    write_json(tmp_path / "config.json", {"script_name": "train_mae.py", "args": vars(recorded)})
    args = script.parse_args(["--config", str(tmp_path / "config.json"), "--fold", "2/5"])
    assert (args.fold, args.split_method, args.learning_rate) == ("2/5", "auto", 0.5)


def test_folds_that_were_cut_short_are_not_learned_together_either(tmp_path, capsys):
    cut = []
    for k, run in enumerate(folds_of("train_stage1")):
        cut.append(Path(shutil.copytree(run, tmp_path / f"stage1_experiment_20261122_01000{k}")))
        config = read_json(run / "config.json")
        write_json(cut[-1] / "config.json", config | {"args": config["args"] | {"max_batches": 1}})
    compare(tmp_path, *cut)
    assert "3 of 3 folds: NOT LEARNED (truncated by --max_batches" in capsys.readouterr().out
