"""compare_runs.py: grouping by settings, the keys that differ, and paired differences against brute force."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image
from scipy.stats import t
from sklearn import metrics

import compare_runs
from utils.metrics.verdict import GroupJackknife
from utils.plotting import curves
from utils.report.results import write_table
from utils.run.errors import CommandError
from utils.run.folder import write_json
from utils.watch.comparison import (
    condition_notes,
    differing_keys,
    group_runs,
    mean_and_sd,
    mean_over_runs,
    paired_differences,
)
from utils.watch.predictions import measure, read_predictions
from utils.watch.run_view import read_run

SCRIPTS = {
    "stage1": "train_stage1.py",
    "stage2": "train_stage2.py",
    "anomaly": "train_anomaly_with_labels.py",
    "age_mae": "train_mae.py",
    "age_mse": "train_ddp.py",
}
TYPES = ["walking", "sitting", "others"]


def make_config(task, seed=42, commit="a" * 40, **args):
    flags = {"data_path": "data/x", "features": "crops", "epochs": 9, "learning_rate": 1e-3, "num_workers": 0}
    return {
        "script_name": SCRIPTS[task],
        "timestamp": f"2026-11-22T01:{seed}:00",
        "args": flags | args | {"seed": seed, "output_dir": f"out{seed}"},
        "git": {"commit": commit, "dirty": False},
        "seed": seed,
        "dataset": {
            "data_path": "data/x",
            "fingerprint": "b" * 64,
            "test_samples": 240,
            "class_counts": {"val": {"no": 8, "yes": 2}},
        },
        # The model's size follows from a flag.
        "model": {
            "features": args.get("features"),
            "source": "none",
            "parameters": len(args.get("features", "")),
        },
        "training": {"epochs": 9, "loss_function": "L", "effective_batch_size": 16},
    }


def make_run(
    folder, task="stage1", noise=1.0, seed=42, second=0, predictions=None, results=True, config=None, **args
):
    """A run folder with two epochs, results, and predictions that are `noise` from the truth."""
    run = folder / f"{task}_experiment_20261122_0100{second:02d}"
    run.mkdir(parents=True)
    write_json(run / "config.json", make_config(task, seed, **args) | (config or {}))
    keys = ("loss", "auroc", "ap", "f1", "macro_f1", "mae", "mse", "subject_mae", "r2")
    history = [
        {"epoch": e, "lr": 1e-3, "seconds": 1.0, "train_loss": 1 / e}
        | {f"val_{k}": 0.5 + 0.1 * e for k in keys}
        for e in (1, 2)
    ]
    write_json(run / "history.json", history)
    table = predictions or TABLES[task](noise, np.random.default_rng(seed))
    write_table(run / "test_predictions.csv", table)
    if results:
        measured = dict.fromkeys(
            ("ap", "auroc", "f1", "macro_f1", "accuracy", "mae", "subject_mae", "skill"), seed / 100
        )
        verdict = {
            "verdict": "LEARNED",
            "verdict_reason": "because",
            "wall_seconds": 60.0,
            "test_split": "test",
        }
        confidence = {key: [0.1, 0.9] for key in measured}
        write_json(run / "results.json", verdict | {"metrics": {"test": measured}, "confidence": confidence})
    return run


TRUTH = np.random.default_rng(0)
LABELS = (TRUTH.random(240) < 0.4).astype(int)
KINDS = TRUTH.integers(3, size=240)
AGES = TRUTH.uniform(20, 80, 40).repeat(6)
PAIRS = {
    "sequence": np.array([f"s{k // 24}" for k in range(240)]),
    "frame": np.array([f"{k // 4:06d}.jpg" for k in range(240)]),
    "id_left": np.array([f"pedestrian:{k}" for k in range(240)]),
    "id_right": np.array(["pedestrian:999"] * 240),
}


def stage1_table(noise, rng):
    scores = 1 / (1 + np.exp(-(2 * LABELS - 1 + noise * rng.normal(size=240))))
    names, trivial = np.array(["no interaction", "interaction"]), {"distance_widths": np.ones(240)}
    columns = {"label": names[LABELS], "score": scores, "prediction": names[(scores > 0.5).astype(int)]}
    return PAIRS | trivial | columns


def stage2_table(noise, rng):
    scores = np.eye(3)[KINDS] + noise * rng.random((240, 3))
    columns = {name: scores[:, k] for k, name in enumerate(TYPES)}
    names = np.array(TYPES)
    return PAIRS | {"label": names[KINDS]} | columns | {"prediction": names[scores.argmax(axis=1)]}


def anomaly_table(noise, rng):
    scores = LABELS + noise * rng.normal(size=240)
    frames = {"scenario": np.array([f"Scenario_{k // 24}" for k in range(240)]), "frame_id": np.arange(240)}
    columns = {"label": LABELS, "score": scores, "alarm": (scores > 0.5).astype(int)}
    return frames | columns | {"trivial_score": np.ones(240)}


def age_table(noise, rng):
    names = {
        "file": np.array([f"{k}.png" for k in range(240)]),
        "subject": np.array([f"p{k // 6}" for k in range(240)]),
    }
    return names | {"age": AGES, "prediction": AGES + 5 * noise * rng.normal(size=240)}


TABLES = {"stage1": stage1_table, "stage2": stage2_table, "anomaly": anomaly_table, "age_mae": age_table,
          "age_mse": age_table}  # fmt: skip


def differences(*runs):
    found, notes = paired_differences(group_runs([read_run(run) for run in runs]))
    return {one.metric: one for one in found}, notes


def check(one, jackknife, statistic, value, runs):
    """The point by scikit-learn, the interval from both runs without the same groups in turn."""
    rows = [read_predictions(read_run(run)) for run in runs]
    a, b = ({name: p[name].to_numpy() for name in ("score", "pred") if name in p} for p in rows)
    assert one.model - one.other == pytest.approx(value(**b) - value(**a), abs=1e-9)
    expected = jackknife.interval(statistic(**b) - statistic(**a))
    assert [one.low, one.high] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("task", "group"), [("stage1", "sequence"), ("anomaly", "scenario")])
def test_paired_difference_of_two_scorers(tmp_path, task, group):
    runs = [make_run(tmp_path, task, n, 42 + k, k, learning_rate=n) for k, n in enumerate((3, 0.7))]
    found, notes = differences(*runs)
    by, y = GroupJackknife(TABLES[task](1, TRUTH)[group], LABELS), LABELS
    area, precision, f1 = metrics.roc_auc_score, metrics.average_precision_score, metrics.f1_score
    check(
        found["auroc"], by, lambda score, pred: by.auroc(y, score), lambda score, pred: area(y, score), runs
    )
    check(found["ap"], by, lambda score, pred: by.ap(y, score), lambda score, pred: precision(y, score), runs)
    f1 = metrics.f1_score
    check(found["f1"], by, lambda score, pred: by.f1(y, pred), lambda score, pred: f1(y, pred), runs)
    assert found["auroc"].better and "240 test samples; intervals over 10" in notes[0]


def test_paired_difference_of_two_classifiers_of_types(tmp_path):
    runs = [make_run(tmp_path, "stage2", n, 42, k, learning_rate=n) for k, n in enumerate((1.2, 3))]
    found, _ = differences(*runs)
    by = GroupJackknife(PAIRS["sequence"])

    def macro(pred):
        return metrics.f1_score(KINDS, pred, average="macro")

    check(found["macro_f1"], by, lambda pred: by.macro_f1(KINDS, np.eye(3)[pred]), macro, runs)
    right = [by, lambda pred: by.means(pred == KINDS), lambda pred: np.mean(pred == KINDS)]
    check(found["accuracy"], *right, runs)
    assert found["macro_f1"].worse


def test_mse_against_mae_are_one_task_and_a_smaller_error_is_better(tmp_path):
    a, b = make_run(tmp_path, "age_mse", 2.0), make_run(tmp_path, "age_mae", 1.0, 43)
    found, notes = differences(a, b)
    people = AGES.reshape(40, 6)[:, 0]
    means = [read_predictions(read_run(run)).score.to_numpy().reshape(40, 6).mean(axis=1) for run in (a, b)]
    mae = [np.abs(one - people).mean() for one in means]
    assert found["subject_mae"].model - found["subject_mae"].other == pytest.approx(mae[1] - mae[0])
    assert found["subject_mae"].high < 0 and found["subject_mae"].better
    assert found["mae"].better and "intervals over 40 subjects" in notes[0]


def test_runs_of_another_recipe_are_another_setting_with_equal_flags(tmp_path):
    """A loss that was changed in the code and not by a flag: no repetition of the run before it."""
    losses = [("L1Loss", {}), ("SmoothL1Loss", {"beta": 1.0}), ("SmoothL1Loss", {"beta": 2.0})]
    runs = []
    for k, (loss, settings) in enumerate([*losses, losses[-1]]):
        training = {"loss_function": loss, "loss_params": settings, "effective_batch_size": 16}
        training |= {"loss_weights": {"pos_weight": k}}  # follows from the split, and so from the seed
        runs.append(make_run(tmp_path, "age_mae", k + 1, 42 + k // 3, k, config={"training": training}))
    conditions = group_runs([read_run(run) for run in runs])
    assert [len(one.runs) for one in conditions] == [1, 1, 2]
    labels = [one.label for one in group_runs([read_run(run) for run in runs[1:]])]
    assert labels == ["recipe.loss_params.beta=1.0", "recipe.loss_params.beta=2.0"]
    assert differing_keys(conditions)["training.loss_function"] == [["L1Loss"], *[["SmoothL1Loss"]] * 2]
    flags = [make_run(tmp_path / "f", "age_mae", second=k, config={"training": {"optimizer": name}},
                      optimizer=name) for k, name in enumerate(("adam", "sgd"))]  # fmt: skip
    assert [one.label for one in group_runs([read_run(run) for run in flags])] == [
        "optimizer=adam", "optimizer=sgd",
    ]  # fmt: skip


def test_an_interval_holds_no_difference_that_can_not_be(tmp_path):
    """Six pairs, all ranked right by one, all but a pair ranked wrong by the other; two subjects."""
    rows, runs = np.r_[np.flatnonzero(LABELS)[:60:20], np.flatnonzero(1 - LABELS)[:60:20]], []
    table = {key: values[rows] for key, values in stage1_table(0, TRUTH).items()}
    for k, scores in enumerate(([0.9, 0.8, 0.7, 0.1, 0.2, 0.3], [0.1, 0.2, 0.95, 0.9, 0.8, 0.7])):
        one = table | {"score": np.array(scores)}
        runs.append(make_run(tmp_path, second=k, predictions=one, learning_rate=k))
    found, notes = differences(*runs)
    assert all(-1 <= one.low <= one.high <= 1 for one in found.values())
    assert found["auroc"].low == -1 and "cut at -1 and 1" in notes[-1]
    ages = [age_table(n, np.random.default_rng(n)) for n in (1, 2)]
    few = [{key: v[:12] for key, v in one.items()} for one in ages]
    found, notes = differences(*(
        make_run(tmp_path, "age_mae", second=5 + k, predictions=one, learning_rate=k)
        for k, one in enumerate(few)
    ))  # fmt: skip
    assert "2 subjects, too few for an interval: 5 are needed" in notes[-1] and np.isnan(found["mae"].low)
    assert not found["mae"].better and not found["mae"].worse


def test_a_loss_that_is_the_mae_is_one_panel(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(curves, "finish_axis", lambda axis, title, *more: titles.append(title))
    runs = [make_run(tmp_path, "age_mae", seed=seed, second=seed) for seed in (1, 2)]
    curves.plot_overlay(group_runs([read_run(run) for run in runs]), tmp_path / "x.png")
    assert titles == ["val loss = MAE per subject () = MAE per image ()", "val R2", "learning rate"]


def test_rows_are_paired_by_sample_not_by_position(tmp_path):
    order = np.random.default_rng(5).permutation(240)
    table = stage1_table(1.0, np.random.default_rng(1))
    a = make_run(tmp_path, noise=2.0)
    b = make_run(tmp_path, second=1, predictions=table, learning_rate=0.1)
    c = make_run(tmp_path, second=2, predictions={k: v[order] for k, v in table.items()}, learning_rate=0.2)
    straight, shuffled = differences(a, b)[0], differences(a, c)[0]
    assert (straight["ap"].model, straight["ap"].low) == pytest.approx(
        (shuffled["ap"].model, shuffled["ap"].low)
    )


def test_other_samples_or_labels_are_said_and_not_paired(tmp_path):
    table = stage1_table(1.0, np.random.default_rng(1))
    a = make_run(tmp_path)
    fewer = make_run(
        tmp_path, second=1, predictions={k: v[:200] for k, v in table.items()}, learning_rate=0.1
    )
    found, notes = differences(a, fewer)
    assert (
        not found and "tested on other samples (200, " in notes[0] and "on 240; 200 are in both" in notes[0]
    )
    turned = table | {"label": np.where(np.arange(240) < 3, "interaction", table["label"])}
    changed = make_run(tmp_path, second=2, predictions=turned, learning_rate=0.2)
    found, notes = differences(a, changed)
    assert not found and f"different labels for {(LABELS[:3] == 0).sum()} of the same samples" in notes[0]
    (changed / "test_predictions.csv").write_text("label,score\ninteraction,0.5\n")
    assert "has no column sequence" in differences(a, changed)[1][0]
    (changed / "test_predictions.csv").unlink()
    assert "is not there" in differences(a, changed)[1][0]


def test_runs_that_differ_in_the_seed_alone_are_one_condition(tmp_path):
    runs = [
        make_run(tmp_path, seed=seed, second=k, commit=str(k) * 40, num_workers=k)
        for k, seed in enumerate((1, 2, 4))
    ]
    runs.append(make_run(tmp_path, seed=1, second=9, features="geometry"))
    a, b = group_runs([read_run(run) for run in runs])
    assert [len(a.runs), len(b.runs)] == [3, 1] and (a.letter, b.letter) == ("A", "B")
    assert (a.label, b.label) == ("features=crops", "features=geometry")
    keys = differing_keys([a, b])
    assert keys["args.features"] == [["crops"], ["geometry"]]
    assert keys["git.commit"] == [["0000000", "1111111", "2222222"], ["aaaaaaa"]]
    # Where a run was put and what follows from the flags is not listed.
    assert set(keys) == {"args.features", "args.seed", "args.num_workers", "git.commit"}


def test_code_that_was_not_committed_is_said_where_runs_count_as_repetitions(tmp_path):
    dirty = {"git": {"commit": "a" * 40, "dirty": True}}
    runs = [make_run(tmp_path, seed=k, second=k, config=dirty if k else {}) for k in range(3)]
    (note,) = condition_notes(group_runs([read_run(run) for run in runs]))
    assert note.startswith("the code of 2 runs of A was changed and not committed")
    assert not condition_notes(group_runs([read_run(runs[1])]))


def test_other_data_at_the_same_path_are_another_condition(tmp_path):
    other = make_config("stage1")["dataset"] | {"fingerprint": "c" * 64}
    runs = [make_run(tmp_path), make_run(tmp_path, second=1, config={"dataset": other})]
    conditions = group_runs([read_run(run) for run in runs])
    assert [one.label for one in conditions] == ["data data/x (bbbbbbb)", "data data/x (ccccccc)"]
    assert list(differing_keys(conditions)) == ["dataset.fingerprint"]


def test_stage2_runs_are_grouped_by_the_settings_of_their_stage1_runs(tmp_path):
    starts = [
        make_run(tmp_path, "stage1", seed=1),
        make_run(tmp_path, "stage1", seed=2, second=1),
        make_run(tmp_path, "stage1", seed=3, second=2, features="geometry"),
    ]
    runs = []
    for k, start in enumerate(starts):
        path = str(start / "best_f1.pth")
        runs.append(make_run(tmp_path, "stage2", seed=k, second=k, stage1_checkpoint=path))
    a, b = group_runs([read_run(run) for run in runs])
    assert ([view.name for view in a.runs], b.label) == (
        [run.name for run in runs[:2]],
        "stage1.features=geometry",
    )


def test_mean_and_sd_over_seeds_count_a_repeated_seed_once(tmp_path, capsys):
    runs = [make_run(tmp_path, seed=seed, second=k) for k, seed in enumerate((40, 50, 60, 40))]
    compare_runs.main(
        compare_runs.parse_args([*map(str, runs), "--picture_dir", str(tmp_path), "--name", "x"])
    )
    text = capsys.readouterr().out
    assert text.isascii() and "mean +- sd of 3 seeds" in text and "0.500 +- 0.100" in text
    assert "ran more than once with seed 40: the newest of each counts" in text
    assert "these runs repeat one setting: there is no difference to test" in text
    assert mean_and_sd([0.4, 0.5, 0.6]) == "0.500 +- 0.100" and mean_and_sd([0.5, None]) == ""


def test_a_repeated_seed_that_is_not_finished_hides_no_finished_run(tmp_path, capsys):
    finished = [make_run(tmp_path, seed=seed, second=k) for k, seed in enumerate((40, 50, 60))]
    crashed = [make_run(tmp_path, seed=seed, second=9 + seed, results=False) for seed in (40, 70)]
    shown = ["--picture_dir", str(tmp_path), "--name", "x"]
    compare_runs.main(compare_runs.parse_args([*map(str, finished + crashed), *shown]))
    text = capsys.readouterr().out
    assert "mean +- sd of 3 seeds" in text and "0.500 +- 0.100" in text


def test_the_scatter_between_seeds_is_in_the_interval():
    values = [0.4, 0.5, 0.7]
    rows = [np.full(21, value) for value in values]  # 20 groups that change nothing
    mean, seeds = mean_over_runs(rows)
    assert np.allclose(mean, np.mean(values))
    assert seeds == (pytest.approx(np.var(values, ddof=1) / 3), 2)
    reach = t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert GroupJackknife(np.arange(20)).interval(mean, seeds) == pytest.approx(
        [mean[0] - reach, mean[0] + reach]
    )
    alone, none = mean_over_runs(rows[:1])
    assert (alone == 0.4).all() and none == (0, np.inf)


def compare(tmp_path, *argv):
    out = tmp_path / "out"
    compare_runs.main(
        compare_runs.parse_args([*argv, "--output_dir", str(tmp_path), "--picture_dir", str(out)])
    )
    return out


@pytest.mark.figures
def test_table_csv_markdown_and_picture_tell_the_same(tmp_path, capsys):
    make_run(tmp_path, noise=2.0, seed=40)
    make_run(tmp_path, noise=1.0, seed=50, second=1, features="crops|more")
    make_run(tmp_path, seed=60, second=2, results=False, learning_rate=0.5)
    out = compare(tmp_path, "stage1_*")
    text = capsys.readouterr().out
    stem = out / "compare_stage1_20261122_010000_20261122_010001_and_1_more"
    rows = list(csv.DictReader(Path(f"{stem}.csv").read_text().splitlines()))
    assert [row["condition"] for row in rows] == ["A", "B", "C"]
    assert [row["test_auroc"] for row in rows] == ["0.4", "0.5", ""] and rows[1]["test_auroc_high"] == "0.9"
    assert (
        rows[1]["args.features"] == "crops|more" and rows[0]["val_f1"] == "0.7" and rows[2]["verdict"] == ""
    )
    assert "0.400 [0.100, 0.900]" in text and " starting | " in text
    assert "no paired difference for C: stage1_experiment_20261122_010002 has no results yet" in text
    markdown = Path(f"{stem}.md").read_text()
    assert "| args.features | crops | crops\\|more | crops |" in re.sub(" +", " ", markdown)
    assert "| B - A |" in markdown and text.startswith(markdown)
    with Image.open(f"{stem}.png") as picture:
        assert picture.width >= 1000


@pytest.mark.parametrize("task", ["anomaly", "age_mae"])
def test_one_run_is_shown_alone(tmp_path, capsys, task):
    run = make_run(tmp_path, task)
    out = compare(tmp_path, run.name)
    assert sorted(path.name for path in out.iterdir()) == [
        f"compare_{run.name}.{e}" for e in ("csv", "md", "png")
    ]
    assert "config keys" not in capsys.readouterr().out


def test_mixed_tasks_and_units_are_refused(tmp_path):
    make_run(tmp_path), make_run(tmp_path, "age_mae")
    with pytest.raises(CommandError, match="different tasks.*\n.*age: .*\n.*stage1: "):
        compare(tmp_path, "age_*", "stage1_*")
    weeks = make_config("age_mae") | {"dataset": {"target_unit": "weeks"}}
    years = make_config("age_mse") | {"dataset": {"target_unit": "years"}}
    make_run(tmp_path / "u", "age_mae", config=weeks), make_run(tmp_path / "u", "age_mse", config=years)
    with pytest.raises(CommandError, match="age in weeks: .*\n.*age in years: "):
        compare(tmp_path, str(tmp_path / "u" / "*"))
    with pytest.raises(CommandError, match="there is no run stage1_x"):
        compare(tmp_path, "stage1_x")
    with pytest.raises(CommandError, match="--name a/b"):
        compare(tmp_path, "stage1_*", "--name", "a/b")


def test_a_run_that_has_just_started_can_not_be_compared(tmp_path):
    run = make_run(tmp_path)
    (run / "config.json").unlink()
    write_json(run / "status.json", {"state": "starting", "time": 0})
    with pytest.raises(CommandError, match="cannot be compared: it has no config.json yet"):
        compare(tmp_path, run.name)
    write_json(run / "config.json", {"script_name": "train_stage1.py"})
    with pytest.raises(CommandError, match="cannot be compared: .* without a training script and its args"):
        compare(tmp_path, run.name)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config", {"script_name": "train_stage1.py", "args": []}, "args is no object"),
        ("config", {"script_name": "train_stage1.py", "args": {}, "dataset": None}, "dataset is no object"),
        ("results", {"verdict": "LEARNED", "metrics": None}, "metrics is no object"),
        ("status", {"state": "training", "time": "noon"}, "its time is no number"),
        ("history", {}, "it holds no list"),
    ],
)
def test_a_file_that_was_edited_is_named(tmp_path, name, content, reason):
    run = make_run(tmp_path)
    write_json(run / f"{name}.json", content)
    with pytest.raises(CommandError, match=f"{name}.json is not a file of a run: {reason}"):
        compare(tmp_path, run.name)


@pytest.mark.parametrize("content", ["", "[]", '{"verdict": '])
def test_what_writes_damaged_results_anew_is_said(tmp_path, content):
    run = make_run(tmp_path)
    (run / "results.json").write_text(content)
    with pytest.raises(
        CommandError, match=f"results.json is not .*\nto judge the run again: --resume {run}$"
    ):
        compare(tmp_path, run.name)


def test_of_a_pattern_runs_that_ended_before_they_began_are_left_out_and_said(tmp_path, capsys):
    make_run(tmp_path)
    early = make_run(tmp_path, second=1)
    (early / "config.json").unlink()
    write_json(early / "status.json", {"state": "failed", "time": 0})
    compare(tmp_path, "stage1_*")
    assert f"{early} is left out" in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")


def test_a_run_without_an_epoch_is_shown_without_a_picture(tmp_path, capsys):
    run = make_run(tmp_path, results=False)
    (run / "history.json").write_text(json.dumps([]))
    out = compare(tmp_path, run.name)
    assert not list(out.glob("*.png")) and " starting | " in capsys.readouterr().out


def test_each_age_of_a_person_counts_as_in_reports():
    """Two people, each at two ages with opposite errors."""
    rows = {"group": [*"AAABB"], "label": [10.0, 10, 30, 12, 32], "score": [13.0, 15, 26, 16, 28], "pred": 0}
    found = measure(pandas.DataFrame(rows), "age")
    assert [float(values[0]) for _, values in found.values()] == [4.0, 4.0] and found["subject_mae"][0].n == 2
