"""The people in the ultrasound sample, their ages, and how well any model can predict them.

A muscle shows its own age, not the person's: muscle_age = age + a deviation of the person + one of the view.
The deviations are drawn once and stored nowhere, so no model can beat the *oracle*, which knows muscle_age
exactly and answers with the posterior median of age. Its mean absolute error is the floor for every model.
"""

from collections.abc import Sequence

import numpy as np

# Subjects per decade of the published tibialis anterior set, healthy cohort: 0-10, 10-20, ..., 80-90 years.
DECADES = np.array([93, 68, 74, 106, 137, 207, 181, 131, 24])
OLDEST = 88.4
VIEWS = 3.0 / 8.5  # spread between the views of a person, as a share of person_spread: 3 years in adults
GRID = np.linspace(0, OLDEST, 885)


class Person:
    """One row of the table, and the age in years of the muscle in each of its images."""

    def __init__(self, name: str, age: np.float64, shown: np.float64, rng: np.random.Generator):
        images = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.010, 0.015, 0.937, 0.026, 0.004, 0.008]))
        own = shown + rng.normal(0, person_spread(shown))
        self.name, self.age = name, round(float(age), 3)
        self.muscle_ages = (own + rng.normal(0, person_spread(shown) * VIEWS, images)).tolist()
        self.sex = str(rng.choice(["M", "F"], p=[0.57, 0.43]))
        self.fatness = float(np.clip(rng.normal(), -2, 2.5))  # in standard deviations of the body mass index
        grown = min(age / 17, 1.0)
        length = 52 + (rng.normal(178 if self.sex == "M" else 166, 7) - 52) * grown**0.8
        weight = (15.5 + 9 * grown + 3.2 * self.fatness) * (length / 100) ** 2
        blank = rng.uniform(size=2) < 0.02
        self.length, self.weight = (None if gone else round(value, 1)
                                    for gone, value in zip(blank, (length, weight), strict=True))  # fmt: skip
        self.seed = int(rng.integers(2**32))


def person_spread(age):
    """Standard deviation in years of a person's muscle age: small in children, whose growth is a good clock.

    8.5 years in adults: published models err by 8 to 9.5 years per person there, and averaging the views of a
    person hardly helps them."""
    t = np.clip((np.asarray(age) - 10) / 18, 0, 1)
    return 1.2 + 7.3 * t * t * (3 - 2 * t)


def draw_people(count: int, rng: np.random.Generator, signal: bool = True) -> list[Person]:
    """People with ages distributed as in the published set; without signal, muscle ages are unrelated."""
    # One age from each of `count` equal shares of the distribution: small samples keep its shape.
    ages = _age_quantile((rng.permutation(count) + rng.uniform(size=count)) / count)
    shown = ages if signal else _age_quantile((rng.permutation(count) + rng.uniform(size=count)) / count)
    # Numbers with gaps, because patients leave a study.
    names = np.sort(rng.choice(np.arange(1, 2 * count + 2), size=count, replace=False))
    rng.shuffle(names)
    drawn = zip(names, ages, shown, strict=True)
    return [Person(str(name), age, base, rng) for name, age, base in drawn]


def oracle_errors(people: Sequence[Person], signal: bool = True) -> dict[str, float]:
    """Mean absolute errors in years of the oracle, per image and per subject, and of the median age."""
    person_sd = person_spread(GRID)
    view_sd = person_sd * VIEWS
    per_image, per_subject = [], []
    for person in people:
        shown = np.asarray(person.muscle_ages)
        guesses = np.array([_posterior_median(age, person_sd**2 + view_sd**2) for age in shown])
        together = _posterior_median(shown.mean(), person_sd**2 + view_sd**2 / len(shown))
        if not signal:
            guesses[:] = together = _age_quantile(0.5)
        per_image += list(np.abs(guesses - person.age))
        per_subject.append(abs(together - person.age))
    ages = np.array([person.age for person in people])
    return {
        "oracle_mae_image": float(np.mean(per_image)),
        "oracle_mae_subject": float(np.mean(per_subject)),
        "median_mae_subject": float(np.abs(ages - np.median(ages)).mean()),
    }


def _age_quantile(share):
    """Ages at the given shares of the published distribution, uniform within a decade."""
    edges = np.append(np.arange(0, 90, 10), OLDEST)
    return np.interp(share, np.append(0, np.cumsum(DECADES)) / DECADES.sum(), edges)


def _posterior_median(muscle_age: float, variance: np.ndarray) -> float:
    """The median of age given the muscle age; variance: of the muscle age, at each age of GRID."""
    prior = DECADES[np.minimum((GRID // 10).astype(int), 8)]
    weight = prior * np.exp(-0.5 * (muscle_age - GRID) ** 2 / variance) / np.sqrt(variance)
    return float(np.interp(0.5, np.cumsum(weight) / weight.sum(), GRID))
