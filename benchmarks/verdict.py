"""How often does a model that learned nothing end LEARNED? Simulated, per verdict and number of groups.

    python -m benchmarks.verdict            2,000 data sets per cell, seed 0 (both fixed); about 10 minutes
    python -m benchmarks.verdict --quick    40 per cell: checks only that it runs

In each data set the labels are unrelated to the inputs: labels and the scores of model and trivial scorer are
drawn independently, but correlated within a group (and, for a pair of people, between frames). In the hardest
case groups decide nearly everything. The last table simulates models that did learn.

Correlations and sizes were measured (intraclass correlations, one-way analysis of variance):
- 15 official JRDB sequences, `train_stage1.py --features geometry --epochs 3` on shuffled labels: 23 to 360
  pairs per sequence (median 151), seen in 1 to 116 frames (median 1, mean 3.9) of 28 to 116; logits: .13
  between pairs' means by sequence, .86 between frames by pair; log distance: .05 and .56; log odds of a
  sequence's labels: sd .67.
- `train_stage2.py` there: 4 to 59 pairs a sequence (median 21), 14 frames each; labels .25, predictions .09.
- HC18, ages of 20 +- 6.5 weeks, skewed; `train_mae.py --model cnn` on shuffled ages, 4 seeds: predictions of
  sd .00 to .88 around the train median, off it by up to .6 weeks.
- The built-in AnoVox sample, shuffled labels: logits .52 by scenario, 0 to 75% of its frames anomalous.
"""

import itertools
from collections.abc import Callable

import numpy as np

from benchmarks.measure import judge, markdown, run
from utils.metrics.verdict import MINIMUM, GroupJackknife

SEED, DATA_SETS = 0, 2000
GROUPS = (1, 2, 3, 4, 5, 8, 12, 20, 50)
SHARES = np.array([0.26, 0.25, 0.12, 0.22, 0.15])  # of the five classes of stage 2
FRAMES = 60  # per sequence, in which a pair can be seen


# The jackknife of one data set, and its rows of the verdict's difference; no rows if there is one class only.
Drawn = tuple[GroupJackknife, np.ndarray | None]


def alike(rng: np.random.Generator, groups: np.ndarray, correlation: float) -> np.ndarray:
    """Standard normal values (N,) with this intraclass correlation within `groups` (N,)."""
    shared = rng.standard_normal(groups.max() + 1)[groups]
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.standard_normal(len(groups))


def between(rng: np.random.Generator, median: float, sd: float, low: int, high: int, n: int) -> np.ndarray:
    """Whole numbers (n,), log-normal, cut to [low, high]."""
    return np.clip(median * np.exp(sd * rng.standard_normal(n)), low, high).astype(int)


def stage1(rng: np.random.Generator, groups: int, effect: float, hard: bool) -> Drawn:
    """Pairs of people who interact or not; the model against distance alone."""
    group = np.repeat(np.arange(groups), between(rng, 150, 0.75, 23, 360, groups))
    rate = 1 / (1 + np.exp(-(4 if hard else 0.67) * rng.standard_normal(groups)))
    label = (rng.random(len(group)) < rate[group]).astype(int)
    model = alike(rng, group, 0.95 if hard else 0.13) + effect * 1.5 * label
    distance = alike(rng, group, 0.95 if hard else 0.05) + effect * 0.9 * label
    pair = np.repeat(np.arange(len(group)), between(rng, 1, 1.6, 1, FRAMES, len(group)))  # in each frame
    labels, noise = label[pair], rng.standard_normal((2, len(pair)))
    ours, theirs = model[pair] + 0.4 * noise[0], distance[pair] + 0.9 * noise[1]
    by = GroupJackknife(group[pair], labels)
    return by, by.auroc(labels, ours) - by.auroc(labels, theirs) if np.ptp(labels) else None


def anomaly(rng: np.random.Generator, groups: int, effect: float, hard: bool) -> Drawn:
    """Frames of scenarios, anomalous in a stretch (hard: all); the better of chance and a trivial scorer."""
    frames = 20
    group, moment = np.repeat(np.arange(groups), frames), np.tile(np.arange(frames) / frames, groups)
    normal = rng.random(groups) < (0.5 if hard else 0.2)
    share = np.where(normal, 0, 1 if hard else rng.uniform(0.1, 0.75, groups))
    start = rng.random(groups) * (1 - share)
    labels = ((moment >= start[group]) & (moment < (start + share)[group])).astype(int)
    model = alike(rng, group, 0.95 if hard else 0.5) + effect * 1.2 * labels
    trivial = alike(rng, group, 0.95 if hard else 0.5) + effect * 0.35 * labels
    by = GroupJackknife(group, labels)
    if not np.ptp(labels):
        return by, None
    theirs = by.auroc(labels, trivial)
    return by, by.auroc(labels, model) - (theirs if theirs[0] > 0.5 else 0.5)


def shares(rng: np.random.Generator, correlation: float, n: int, mean: np.ndarray = SHARES) -> np.ndarray:
    """Shares of the classes (n, K), one row per group (Dirichlet)."""
    drawn = rng.gamma(np.tile(mean * (1 / correlation - 1), (n, 1))) + 1e-12
    return drawn / drawn.sum(axis=1, keepdims=True)


def pick(rng: np.random.Generator, chances: np.ndarray) -> np.ndarray:
    """Draw a class (N,) by the probabilities (N, K)."""
    return (rng.random(len(chances))[:, None] > np.cumsum(chances, axis=1)[:, :-1]).sum(axis=1)


def stage2(rng: np.random.Generator, groups: int, effect: float, hard: bool) -> Drawn:
    """Five kinds of interaction; macro F1 against the best guesser. The model guesses by the train shares,
    the best that a model without knowledge can do."""
    group = np.repeat(np.arange(groups), between(rng, 21, 0.85, 4, 60, groups))
    classes = len(SHARES)
    label = pick(rng, shares(rng, 0.9 if hard else 0.25, groups)[group])
    train = shares(rng, 0.25, 12).mean(axis=0)
    guess = pick(rng, shares(rng, 0.9 if hard else 0.09, groups, train)[group])
    guess = np.where(rng.random(len(group)) < effect * 0.3, label, guess)
    pair = np.repeat(np.arange(len(group)), between(rng, 9, 1.0, 1, FRAMES, len(group)))  # in each frame
    group, labels, preds = group[pair], label[pair], guess[pair]
    by = GroupJackknife(group, None)
    if not np.ptp(labels):
        return by, None
    guessers = (np.eye(classes)[train.argmax()], np.full(classes, 1 / classes), train)
    scored = [by.macro_f1(labels, np.tile(p, (len(labels), 1))) for p in guessers]
    return by, by.macro_f1(labels, np.eye(classes)[preds]) - max(scored, key=lambda rows: rows[0])


def age(rng: np.random.Generator, groups: int, effect: float, hard: bool) -> Drawn:
    """MAE of the better of train mean and median, minus the model's; hard: a constant beside the median."""

    def people(n: int) -> np.ndarray:
        late = rng.random(n) < 0.25
        return np.clip(np.where(late, rng.normal(28, 6, n), rng.normal(17.5, 3.6, n)), 10, 41)

    train, ages = people(200), people(groups)
    middle = np.median(train)
    preds = middle + 0.4 * rng.standard_normal() + (0.01 if hard else 0.9) * rng.standard_normal(groups)
    preds += effect * 0.5 * (ages - middle)
    floors = [np.abs(guess - ages) for guess in (middle, train.mean())]
    gain = min(floors, key=np.mean) - np.abs(preds - ages)
    by = GroupJackknife(np.arange(groups), None)
    return by, by.means(gain)


def simulate(draw: Callable, groups: int, data_sets: int, kind: str) -> tuple[float, float, float]:
    """Percent of `data_sets` that end LEARNED by the rule, and by the interval without a minimum of groups;
    mean difference. kind: "nothing" (learned), "hard" (the hardest case of it) or "effect"."""
    rng, found = np.random.default_rng([SEED, groups]), []
    for _ in range(data_sets):
        by, rows = draw(rng, groups, kind == "effect", kind == "hard")
        if rows is None:
            found.append((False, False, np.nan))  # one class only: training refuses such a split
            continue
        low = by.interval(rows)[0]
        found.append((by.enough and low > 0, low > 0, rows[0]))
    rule, interval, difference = np.array(found, dtype=float).T
    known = difference[np.isfinite(difference)]
    return 100 * rule.mean(), 100 * interval.mean(), known.sum() / max(1, len(known))


def verdict(quick: bool) -> None:
    draws = {"stage 1": stage1, "stage 2": stage2, "anomaly": anomaly, "age": age}
    data_sets, kinds = 40 if quick else DATA_SETS, ("nothing", "hard", "effect")
    cells = itertools.product(kinds, draws, GROUPS)
    found = {(kind, name, n): simulate(draws[name], n, data_sets, kind) for kind, name, n in cells}

    def says(kind: str, name: str, n: int) -> str:
        rule, interval, _ = found[kind, name, n]
        return f"{rule:.1f}" if n >= MINIMUM else f"- ({interval:.1f})"

    print(
        f"Percent of {data_sets:,} data sets without signal that end LEARNED by the rule; hardest: a group "
        f"decides nearly everything. Fewer than {MINIMUM} groups (for two classes: groups with the rarer "
        "class) are not judged; in brackets what the interval alone would say.\n"
    )
    columns = [f"{name}, {what}" for name in draws for what in ("rule", "hardest")]
    table = [[n, *(says(kind, name, n) for name in draws for kind in kinds[:2])] for n in GROUPS]
    print(*markdown(["groups", *columns], table), "", sep="\n")
    gains = ", ".join(f"{name} +{found['effect', name, GROUPS[-1]][2]:.2f}" for name in draws)
    print(f"The same with signal; at {GROUPS[-1]} groups the model beats the baseline by: {gains}.\n")
    table = [[n, *(says("effect", name, n) for name in draws)] for n in GROUPS]
    print(*markdown(["groups", *draws], table), "", sep="\n")
    worst = max(rule for (kind, _, _), (rule, _, _) in found.items() if kind != "effect")
    judge("LEARNED without signal, worst cell", worst, at_most=5, unit="%")


if __name__ == "__main__":
    run("How often models that learned nothing end LEARNED", verdict)
