"""The jackknife against brute force and textbook formulas; when a verdict is LEARNED, when there is none."""

import re

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_ind
from sklearn import metrics as reference

from benchmarks.verdict import age, anomaly, simulate, stage2
from utils.metrics.verdict import BLOCKS, MINIMUM, Comparison, GroupJackknife, judge

RNG = np.random.default_rng(0)
LABELS = (RNG.random(200) < 0.3).astype(int)
SCORES = np.round(0.4 * LABELS + RNG.random(200), 1) / 1.4  # ties occur
GROUPS = np.arange(200) // 20


@pytest.mark.parametrize("metric", ["auroc", "ap", "f1", "macro_f1"])
def test_rows_are_scikit_learn_without_each_group(metric):
    preds = (SCORES >= 0.5).astype(int)
    by = GroupJackknife(GROUPS, LABELS)
    ours = {
        "auroc": lambda: by.auroc(LABELS, SCORES),
        "ap": lambda: by.ap(LABELS, SCORES),
        "f1": lambda: by.f1(LABELS, preds),
        "macro_f1": lambda: by.macro_f1(LABELS, np.eye(2)[preds]),
    }[metric]()
    theirs = {
        "auroc": lambda rows: reference.roc_auc_score(LABELS[rows], SCORES[rows]),
        "ap": lambda rows: reference.average_precision_score(LABELS[rows], SCORES[rows]),
        "f1": lambda rows: reference.f1_score(LABELS[rows], preds[rows]),
        "macro_f1": lambda rows: reference.f1_score(LABELS[rows], preds[rows], average="macro"),
    }[metric]
    assert ours == pytest.approx([theirs(left_out != GROUPS) for left_out in range(-1, 10)], abs=1e-12)


def test_macro_f1_of_weighted_samples_is_over_the_classes_that_occur():
    preds, weights = np.where(SCORES > 0.8, 2, SCORES >= 0.5).astype(int), RNG.integers(1, 9, 200)
    ours = GroupJackknife(GROUPS).macro_f1(LABELS, np.eye(4)[preds], weights)
    how = {"labels": [0, 1], "average": "macro", "sample_weight": weights}
    assert ours[0] == pytest.approx(reference.f1_score(LABELS, preds, **how))


def test_the_interval_of_a_mean_is_students():
    values = RNG.normal(size=12)
    by = GroupJackknife(np.arange(12))
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert by.interval(by.means(values)) == pytest.approx([expected.low, expected.high])
    assert by.intervals(skill=by.means(values))["skill"][0] == pytest.approx(expected.low)  # may be below 0
    others = RNG.normal(0, 3, size=5)  # a second source of scatter
    expected = ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    found = by.interval(by.means(values) - others.mean(), (others.var(ddof=1) / 5, 4))
    assert found == pytest.approx([expected.low, expected.high])


def test_groups_are_left_out_not_samples():
    values = RNG.normal(size=40)
    once, thrice = GroupJackknife(np.arange(40)), GroupJackknife(np.repeat(np.arange(40), 3))
    assert thrice.interval(thrice.means(np.repeat(values, 3))) == pytest.approx(
        once.interval(once.means(values))
    )


def test_groups_of_the_rarer_class_are_what_counts():
    groups = np.arange(40) // 2
    labels = (groups < 2).astype(int)  # 2 of 20 groups hold the only anomalies
    by = GroupJackknife(groups, labels)
    assert (by.count, by.total, by.enough) == (2, 20, False)
    rows = by.auroc(labels, RNG.random(40))
    error = np.sqrt(19 * np.var(rows[1:]))
    assert by.interval(rows)[1] - rows[0] == pytest.approx(12.706 * error, rel=1e-4)  # t of one degree


def test_a_class_in_one_group_only_has_no_interval():
    labels = (GROUPS == 0).astype(int)
    by = GroupJackknife(GROUPS, labels)
    assert np.isnan(by.interval(by.auroc(labels, SCORES))).all()
    assert by.intervals(auroc=by.auroc(labels, SCORES), f1=by.f1(labels, labels)) == {}
    alone = GroupJackknife(np.zeros(9))
    assert np.isnan(alone.interval(alone.means(np.arange(9)))).all()


def test_with_few_groups_blocks_of_frames_are_left_out():
    frames = np.arange(1000)
    few = GroupJackknife(frames // 250, fallback=frames)
    assert few.over_frames and not few.enough and few.n == BLOCKS
    assert (np.diff(few.group) >= 0).all() and (np.bincount(few.group) == 5).all()
    assert GroupJackknife(frames // 250).over_frames is False
    assert GroupJackknife(frames // 200, fallback=frames).n == MINIMUM


def test_blocks_are_of_consecutive_frames_whatever_their_names():
    names = np.array([f"{k}.jpg" for k in range(1000)])  # 10.jpg sorts before 2.jpg
    named, numbered = (GroupJackknife(np.zeros(1000), fallback=f) for f in (names, np.arange(1000)))
    assert np.array_equal(named.group, numbered.group)


def verdict(gain, groups=8, split="test", **options):
    """Of a metric that is `gain` (groups,) above the trivial scorer's in each group."""
    by = GroupJackknife(np.arange(groups))
    trivial = by.means(np.linspace(0.6, 0.8, groups))
    return judge(
        "AUROC", trivial + by.means(gain), trivial, "distance alone", split, by, unit="sequences", **options
    )


def ends(found) -> list[float]:
    """The interval that a verdict names."""
    return [float(end) for end in re.search(r"\[(.+), (.+)\]", found.reason).groups()]


@pytest.mark.parametrize("draw", [stage2, anomaly, age])
def test_of_models_that_learned_nothing_at_most_one_in_twenty_ends_learned(draw):
    """Simulated data sets of six groups whose samples are alike (benchmarks/verdict.py: more of them)."""
    learned, _, _ = simulate(draw, groups=6, data_sets=300, kind="nothing")
    assert learned <= 5
    learned, _, _ = simulate(draw, groups=20, data_sets=50, kind="effect")
    assert learned > 50


def test_the_verdict_needs_the_lower_bound_above_zero():
    clear, noisy = np.linspace(0.04, 0.06, 8), np.linspace(-0.2, 0.3, 8)
    better = verdict(clear)
    assert better.learned and better.word == "LEARNED" and 0 < ends(better)[0] < 0.05
    assert verdict(noisy).word == "NOT LEARNED" and "does not beat distance alone" in verdict(noisy).reason
    assert verdict(-clear, higher_is_better=False).learned and not verdict(-clear).learned
    cut = verdict(clear, truncated=True)
    assert cut.word == "NOT LEARNED" and cut.reason.startswith("truncated by --max_batches")
    on_val = verdict(clear, split="val")
    assert on_val.learned and "val is the split that selects" in on_val.reason


def test_the_interval_holds_no_difference_that_can_not_be():
    wild = np.r_[np.full(4, 3.0), np.full(4, -3.1)]  # of tiny data
    found = verdict(wild)
    assert "AUROC -0.050 [-1.000, +1.000]" in found.reason
    assert ends(verdict(wild, higher_is_better=False))[1] > 2  # errors, in years, have no end
    assert verdict(wild + 9).learned and ends(verdict(wild + 9)) == [1, 1]


def test_beating_the_trivial_scorer_on_the_train_split_is_no_proof():
    known = verdict(np.linspace(0.04, 0.06, 8), split="train")
    assert known.word == "NOT LEARNED" and ends(known)[0] > 0
    assert known.reason.startswith(
        "never judged on train, which a model can know by heart; against distance alone: AUROC"
    )


@pytest.mark.parametrize("groups", [1, 2, MINIMUM - 1])
def test_few_groups_are_not_judged_however_good_they_look(groups):
    found = verdict(np.full(groups, 0.3), groups)
    assert found.word == "NOT JUDGED" and not found.learned
    assert found.reason.startswith(
        f"{groups} sequence{'s' * (groups > 1)}, 5 are needed to tell learning from luck; against"
    )
    assert verdict(np.full(MINIMUM, 0.3), MINIMUM).word == "LEARNED"


def test_the_reason_says_what_was_left_out_and_which_groups_count():
    labels = (GROUPS < 2).astype(int)
    by = GroupJackknife(GROUPS, labels, np.arange(200))
    rows = by.auroc(labels, SCORES)
    reason = judge("AUROC", rows, rows, "chance", "test", by, unit="scenarios").reason
    assert reason.startswith("2 of 10 scenarios hold the rarer class, 5 are needed")
    assert reason.endswith("(interval over frames, not scenarios: optimistic)")
    assert "frames" not in verdict(np.full(3, 0.3), 3).reason  # there were none to fall back to


def test_the_strongest_reference_is_named_with_the_paired_difference():
    by = GroupJackknife(np.arange(8))
    model, spread = by.means(np.linspace(0.2, 0.3, 8)), np.linspace(-0.05, 0.05, 8)

    def beside(gain, **options):
        other = model - by.means(gain)
        return Comparison.of("AP", model, other, "boosted trees", by, **options).words()

    assert beside(0.2 + spread) == "better than boosted trees (AP +0.200 [+0.171, +0.229])"
    assert beside(0.01 + spread) == "not better than boosted trees (AP +0.010 [-0.019, +0.039])"
    assert beside(spread - 0.2).startswith("worse than boosted trees (AP -0.200 [-0.229, -0.171])")
    assert beside(0.2 + spread, higher_is_better=False).startswith("worse than")
    alone = GroupJackknife(np.zeros(8))
    rows = alone.means(np.arange(8.0))
    assert (
        Comparison.of("AP", rows, rows, "trees", alone).words()
        == "not better than trees (AP +0.000 (no interval))"
    )
    beyond = Comparison("trees", "AP", 0.5, 0.7, -0.3, -0.1)
    found = judge("AUROC", model, model, "chance", "test", by, unit="sequences", reference=beyond)
    assert str(found).startswith("NOT LEARNED (does not beat chance: AUROC +0.000 [")
    assert str(found).endswith("); worse than trees (AP -0.200 [-0.300, -0.100])")


def test_few_groups_give_no_claim_about_a_reference_either():
    labels = (GROUPS < 2).astype(int)
    by = GroupJackknife(GROUPS, labels, np.arange(200))
    rows = by.auroc(labels, SCORES)
    beyond = Comparison("trees", "AP", 0.7, 0.5, 0.1, 0.3)
    found = judge("AUROC", rows, rows, "chance", "test", by, unit="scenarios", reference=beyond)
    optimistic = "(interval over frames, not scenarios: optimistic)"
    assert found.reference == f"against trees: AP +0.200 [+0.100, +0.300] {optimistic}"
