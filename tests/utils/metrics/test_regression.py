"""Regression figures against scikit-learn and hand numbers; the report of an age run."""

import csv
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from scipy.stats import median_abs_deviation, norm
from sklearn import metrics

from utils.metrics.regression import (
    age_bands,
    best_trivial_mae,
    fit_intervals,
    limits_of_agreement,
    regression_metrics,
    subject_means,
    trivial_predictions,
)
from utils.report.age import break_down, measure, report_age


def draw_rows(subjects: int = 40, images: int = 3, error: float = 6.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ages = np.repeat(rng.uniform(5, 85, subjects), images)
    preds = ages + np.repeat(rng.normal(0, error, subjects), images) + rng.normal(0, 2, len(ages))
    return {"ages": ages, "preds": preds, "subject_ids": np.repeat(np.arange(subjects), images)}


def test_metrics_are_those_of_sklearn():
    rows = draw_rows()
    ages, preds = rows["ages"], rows["preds"]
    found = regression_metrics(ages, preds)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(ages, preds), abs=1e-12)
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(ages, preds), abs=1e-12)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(ages, preds), abs=1e-12)
    assert found["r2"] == pytest.approx(metrics.r2_score(ages, preds), abs=1e-12)
    assert found["slope"] == pytest.approx(np.polyfit(ages, preds, 1)[0])
    assert found["pearson_r"] == pytest.approx(np.corrcoef(ages, preds)[0, 1])
    assert found["within_10"] == np.mean(np.abs(ages - preds) <= 10)
    assert regression_metrics(np.array([10, 20]), np.array([15, 31]))["within_5"] == 0.5  # 5 is within 5
    assert best_trivial_mae(np.array([0, 0, 9]), np.array([0.0])) == 0  # of the median; of the mean 3


def test_undefined_figures_are_none():
    assert regression_metrics(np.array([3.0, 5.0]), np.array([4.0, 4.0]))["pearson_r"] is None
    one = regression_metrics(np.array([3.0]), np.array([5.0]))
    assert (one["r2"], one["slope"], one["mae"], one["bias"]) == (None, None, 2.0, 2.0)


def test_subject_means_by_hand():
    ids, ages, preds = subject_means(np.array([7, 2, 7]), np.array([10, 20, 10]), np.array([8.0, 25.0, 14.0]))
    assert ids.tolist() == [2, 7]
    assert ages.tolist() == [20, 10]
    assert preds.tolist() == [25, 11]
    rows = {"subject_ids": np.array([7, 2, 7]), "ages": np.array([10.0, 20, 10])}
    found = measure(rows | {"preds": np.array([8.0, 25, 14])}, torch.nn.MSELoss(reduction="none"))
    assert (found["subject_mae"], found["loss"]) == (3.0, (4 + 25 + 16) / 3)
    assert found["mae"] == pytest.approx(11 / 3)
    assert found["subject_r2"] == pytest.approx(1 - 26 / 50)  # so that it can be declared in utils/tasks.py


def test_each_age_of_a_person_is_judged_and_people_are_left_out(tmp_path):
    """Seen young and old: a model that answers the mean age of the two has learned nothing."""
    people = np.repeat(np.arange(8), 4)  # two images at each of two ages
    ages = people + np.tile([10.0, 10, 30, 30], 8)
    rows = {"subject_ids": people, "ages": ages, "preds": people + 20 + np.tile([-1.0, 1], 16)}
    assert measure(rows, torch.nn.L1Loss(reduction="none"))["subject_mae"] == 10.0
    verdict, found = make_report(tmp_path, rows, np.array([23.5]))
    assert not verdict.learned and found["metrics"]["subject_mae"] == 10.0
    again = {key: np.concatenate([values, values + 1e-4]) for key, values in rows.items()}
    again["subject_ids"] = np.tile(people, 2)
    wide, narrow = (make_report(tmp_path, r, np.array([0.0]))[1]["confidence"] for r in (rows, again))
    assert narrow["skill"] == pytest.approx(wide["skill"], abs=1e-3)  # more ages of the same people
    by = found["metrics"]["by"]["age"]
    assert sum(row["subjects"] for row in by.values()) == 16 and {row["mae"] for row in by.values()} == {10.0}
    table = pandas.read_csv(tmp_path / "test_predictions.csv").groupby(["subject", "age"])
    assert (table.prediction.mean() == table.subject_prediction.first()).all()


def test_bands_are_decades_for_years_and_finer_for_weeks():
    band, width = age_bands(np.array([4.0, 8.0, 25.0, 81.0]))
    assert (band.tolist(), width) == ([0, 0, 2, 8], 10)
    assert age_bands(np.linspace(11, 40, 50))[1] == 5
    band, width = age_bands(np.arange(11) / 5)
    assert width == 0.2 and band.tolist() == list(range(11))


def test_a_table_by_groups_by_hand():
    """Two subjects of two images in a; of one subject there is no spread."""
    people = ["A", "A", "B", "C", "D"]
    images = pandas.DataFrame(
        {"subject": people, "age": [4.0, 4, 8, 25, 9], "prediction": [5.0, 7, 8, 20, 9]}
    )
    bounds = {"low": images.prediction - 2, "high": images.prediction + 1}
    rows = break_down(images.assign(**bounds), ["a", "a", "a", "b", ""], 10.0)
    assert list(rows) == ["a", "b"]
    a, b = rows.values()
    assert (a["subjects"], a["bias"], a["mae"], a["baseline_mae"]) == (2, 1.0, 1.0, 4.0)
    assert a["sd"] == pytest.approx(2**0.5) and b["sd"] is None  # with n - 1; none of one
    assert (b["bias"], a["low"], b["coverage"]) == (-5.0, None, 0.0)
    sites = ["site 10", "site 10", "site 2", "site 2", ""]
    assert list(break_down(images.assign(**bounds), sites, 10.0)) == ["site 2", "site 10"]


def test_limits_of_agreement_by_hand():
    low, bias, high = limits_of_agreement([0, 0, 0], [1.0, 2.0, 3.0])
    assert bias == 2
    assert high - bias == pytest.approx(1.96)
    assert bias - low == pytest.approx(1.96)


def make_report(folder, rows, train_ages, groups=None, state=None, max_batches=0):
    files = [f"anon_{s}_{k}.png" for k, s in enumerate(rows["subject_ids"])]
    subjects = [str(s) for s in range(rows["subject_ids"].max() + 1)]
    image = {"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}
    part = SimpleNamespace(
        files=files, subjects=subjects, groups=groups or {}, __getitems__=lambda indices: image,
        statistics=lambda: np.zeros((len(files), 1)),
    )  # fmt: skip
    known = {"train_labels": train_ages, "train_ages": train_ages}
    known["train_inputs"] = np.arange(len(train_ages), dtype=float)[:, None]
    data = SimpleNamespace(parts={"test": part}, unit="years", references=lambda: known)
    state = {"script": "train_mae.py", "history": [], **(state or {})}
    state["args"] = {"max_batches": max_batches}
    model, explain = torch.nn.Identity(), lambda model, images: torch.zeros(1, 8, 8)
    state = {"model": model.state_dict()} | state
    return report_age(lambda args: (model, {}), explain, folder, "test", rows, data, state)


def test_a_good_model_learned_and_a_blind_one_did_not(tmp_path):
    rows, train = draw_rows(), np.random.default_rng(1).uniform(5, 85, 200)
    verdict, fields = make_report(tmp_path, rows, train)
    assert verdict.learned
    assert fields["metrics"]["skill"] > 0.6
    assert (
        fields["confidence"]["subject_mae"][0]
        < fields["metrics"]["subject_mae"]
        < fields["confidence"]["subject_mae"][1]
    )
    best = min(
        np.abs(subject_means(*rows_of(rows))[1] - value).mean()
        for value in trivial_predictions(train).values()
    )
    assert fields["metrics"]["skill"] == pytest.approx(1 - fields["metrics"]["subject_mae"] / best)
    for name in ("scatter.png", "bland_altman.png", "error_by_age.png"):
        assert (tmp_path / name).exists()
    with open(tmp_path / "test_predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 120
    errors = rows["preds"] - rows["ages"]
    likely = 2 * norm.sf(np.abs(errors) / median_abs_deviation(errors, scale="normal"))
    listed = pandas.read_csv(tmp_path / "suspects.csv").p_label
    assert listed.to_numpy() == pytest.approx(np.sort(likely), rel=1e-4, abs=1e-6)
    ages, preds = ([float(row[name]) for row in table] for name in ("age", "prediction"))
    assert fields["metrics"]["mae"] == pytest.approx(metrics.mean_absolute_error(ages, preds), abs=1e-9)
    blind = rows | {"preds": np.random.default_rng(2).permutation(rows["preds"])}
    assert not make_report(tmp_path, blind, train)[0].learned
    assert not make_report(tmp_path, rows, train, max_batches=1)[0].learned


def test_a_gain_that_is_certain_and_tiny_is_said_to_be_tiny(tmp_path):
    rows, train = draw_rows(), np.random.default_rng(1).uniform(5, 85, 200)
    centre = train.mean()
    verdict, fields = make_report(tmp_path, rows | {"preds": centre + 1e-3 * (rows["ages"] - centre)}, train)
    assert verdict.learned and any("of no use: skill 0.0" in text for text in fields["warnings"])
    assert not any("of no use" in text for text in make_report(tmp_path, rows, train)[1]["warnings"])


def rows_of(rows):
    return rows["subject_ids"], rows["ages"], rows["preds"]


def test_more_images_of_the_same_people_do_not_narrow_the_interval(tmp_path):
    rows, train = draw_rows(images=1), np.linspace(5, 85, 100)
    thrice = {key: np.repeat(values, 3) for key, values in rows.items()}
    narrow, wide = (make_report(tmp_path, r, train)[1]["confidence"] for r in (thrice, rows))
    for name in ("mae", "subject_mae"):
        assert np.diff(narrow[name]) / np.diff(wide[name]) == pytest.approx(1.0, abs=0.05)


def test_intervals_and_groups_are_reported_beside_the_figures(tmp_path):
    rows, train = draw_rows(60), np.linspace(5, 85, 100)
    half = {key: values[:90] for key, values in rows.items()}  # 30 people to fit them on
    state = {"script": "train_mae.py", "args": {}, "history": [], "intervals": fit_intervals(half)}
    other = {key: values[90:] for key, values in rows.items()}
    other["subject_ids"] = other["subject_ids"] - 30
    sex = ["FM"[k % 2] for k in other["subject_ids"]]
    _, found = make_report(tmp_path, other, train, state=state, groups={"sex": sex, "bmi": [""] * 90})
    with open(tmp_path / "test_predictions.csv", newline="") as file:
        people = {row["subject"]: row for row in csv.DictReader(file)}.values()
    inside = [float(row["low"]) <= float(row["age"]) <= float(row["high"]) for row in people]
    assert found["metrics"]["coverage"] == pytest.approx(np.mean(inside))
    low, high = found["confidence"]["coverage"]
    assert low < np.mean(inside) <= high
    by = found["metrics"]["by"]
    assert list(by["sex"]) == ["F", "M"] and by["bmi"] == {}
    assert list(by["age"])[:2] == ["0 to 10", "10 to 20"]
    women = [row for row in people if row["sex"] == "F"]
    errors = [abs(float(row["subject_prediction"]) - float(row["age"])) for row in women]
    assert (by["sex"]["F"]["subjects"], by["sex"]["F"]["mae"]) == (15, pytest.approx(np.mean(errors)))
    assert by["sex"]["F"]["low"] < np.mean(errors) < by["sex"]["F"]["high"]
    assert sum(row["subjects"] * row["coverage"] for row in by["age"].values()) == pytest.approx(sum(inside))
    text = "\n".join(f"{heading}\n{text}" for heading, text in found["sections"].items() if text)
    for part in ("split conformal, 30 val subjects", "by sex, per subject, years", "corrected for the reg"):
        assert part in text
    assert "by body mass" not in text
    slopes = found["metrics"]["corrected"]["slope"], found["metrics"]["subject_slope"]
    assert slopes[0] == pytest.approx(slopes[1] / state["intervals"]["bias"][1])
    assert found["metrics"]["subject_mae"] == pytest.approx(  # uncorrected, whatever stands beside it
        np.mean([abs(float(row["subject_prediction"]) - float(row["age"])) for row in people])
    )
