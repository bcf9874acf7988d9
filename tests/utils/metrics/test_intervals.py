"""Intervals per person: what they promise, on people simulated many times, and numbers worked by hand."""

import numpy as np
import pytest

from utils.metrics.regression import correct_bias, fit_intervals, intervals


def draw(people: int, rng: np.random.Generator, images: int = 2) -> dict[str, np.ndarray]:
    """Two images each of people whose predictions err more with age."""
    ages = rng.uniform(0, 88, people)
    of_person = 0.95 * ages + rng.normal(0, 1 + 0.1 * ages)
    ids = np.repeat(np.arange(people), images)
    return {"subject_ids": ids, "ages": ages[ids], "preds": of_person[ids] + rng.normal(0, 1, len(ids))}


def person_means(rows):
    shape = (-1, 2)
    return rows["ages"].reshape(shape).mean(1), rows["preds"].reshape(shape).mean(1)


@pytest.mark.parametrize("people", [21, 60])
def test_ninety_percent_of_exchangeable_people_are_inside(people):
    rng = np.random.default_rng(people)
    coverage, young, old = [], [], []
    for _ in range(200):
        fitted = fit_intervals(draw(people, rng))
        ages, preds = person_means(draw(100, rng))
        low, high = intervals(fitted, preds)
        coverage.append(((low <= ages) & (ages <= high)).mean())
        young.append((high - low)[preds < 35].mean())
        old.append((high - low)[preds > 55].mean())
    assert 0.88 < np.mean(coverage) < 0.94
    assert np.mean(old) > 1.3 * np.mean(young)  # where errors grow with age, so do the intervals


def test_ages_of_one_person_share_its_weight():
    """Every other person was seen young and old; the interval around each age holds it in 90% of them."""
    rng, coverage = np.random.default_rng(5), []
    for _ in range(200):
        rows = draw(39, rng, images=1)
        later = {key: values[::2] + 20.0 * (key != "subject_ids") for key, values in rows.items()}
        both = {key: np.concatenate([values, later[key]]) for key, values in rows.items()}
        fitted = fit_intervals(both)
        assert fitted["people"] == 39
        low, high = intervals(fitted, (new := draw(100, rng, images=1))["preds"])
        coverage.append(((low <= new["ages"]) & (new["ages"] <= high)).mean())
    assert 0.88 < np.mean(coverage) < 0.94
    assert fit_intervals({key: values[:8] for key, values in both.items()})["reach"] is None


def test_images_do_not_count_as_people():
    rows = draw(12, np.random.default_rng(0), images=1)
    thrice = {key: np.repeat(values, 3) for key, values in rows.items()}
    assert fit_intervals(thrice)["people"] == 12
    assert fit_intervals(thrice)["reach"] == pytest.approx(fit_intervals(rows)["reach"])


def test_by_hand_and_where_nothing_can_be_promised():
    ages = np.arange(10.0, 30, 2)  # ten people, errors 1 to 10, all at one prediction
    rows = {"subject_ids": np.arange(10), "ages": 20.0 + np.arange(1, 11), "preds": np.full(10, 20.0)}
    fitted = fit_intervals(rows)  # the tenth of ten scores: 10 over the mean of the others, 5
    assert fitted["reach"] == pytest.approx(2.0)
    assert [bound.tolist() for bound in intervals(fitted, np.array([20.0, 5.0, -1.0]))] == [
        [9.0, 0.0, -1.0],
        [31.0, 16.0, 10.0],
    ]
    assert fitted["bias"] is None  # one prediction for everybody has no slope
    assert correct_bias(fitted, ages) is None
    assert fit_intervals(rows | {"ages": 0 * ages + 30, "preds": ages})["bias"] is None  # nor has one age
    assert fit_intervals(rows | {"ages": ages, "preds": 0.1 * ages})["bias"] is None  # too flat to divide by
    steep = fit_intervals(rows | {"preds": 20.0 + np.arange(1, 11) * 2})  # errors 1 to 10, rising
    assert steep["line"] == pytest.approx([-10, 0.5, 5.5 / 2, 5.5 * 2])  # up to twice the mean error
    reach = intervals(steep, np.array([-1e6, 1e6]))[1] - [-1e6, 1e6]
    assert reach[1] / reach[0] == pytest.approx(4)
    few = fit_intervals({key: values[:8] for key, values in rows.items()})
    assert few["reach"] is None  # 90% of nine people is more than eight
    assert np.isnan(intervals(few, np.array([20.0]))).all()
    assert np.isnan(intervals(None, np.array([20.0]))).all()


def test_the_regression_towards_the_mean_is_undone_without_the_true_age():
    ages = np.linspace(10, 80, 30)
    fitted = fit_intervals({"subject_ids": np.arange(30), "ages": ages, "preds": 0.5 * ages + 20})
    assert fitted["bias"] == pytest.approx([20, 0.5])
    assert correct_bias(fitted, 0.5 * ages + 20) == pytest.approx(ages)
