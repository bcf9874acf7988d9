"""Six outcomes of both stages against scikit-learn on pairs written out, and what they are judged against."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as reference

from utils.metrics.interaction import Outcomes, best_threshold, end_to_end, every_pair


def make_rows(seed=0, skill=0.0, sequences=8, pairs=60):
    """Random pairs of three types and none, 50 per sequence beyond the limit; `skill` 0..1 is how much
    the answers know."""
    rng = np.random.default_rng(seed)
    n = sequences * pairs
    truth = np.where(rng.random(n) < 0.7, 0, rng.integers(1, 4, n))
    p = np.clip(rng.random(n) * (1 - skill) + skill * (truth > 0), 0, 1)
    types = rng.dirichlet(np.ones(3), n) * (1 - skill) + skill * np.eye(4)[truth][:, 1:]
    groups = np.repeat(np.arange(sequences), pairs)
    far = np.arange(sequences)
    return Outcomes(
        np.r_[truth, 0 * far], np.r_[p, far * 0 - 1.0], np.r_[types, np.zeros((sequences, 3))],
        np.r_[np.ones(n), far * 0 + 50.0], np.r_[groups, far], np.r_[groups, far],
    )  # fmt: skip


def judged(rows, threshold=0.4, **changes):
    options = {"stage1_threshold": 0.4, "most_frequent": 0, "split": "test", "truncated": False} | changes
    return end_to_end(rows, threshold, ["a", "b", "c"], **options)


def test_equals_scikit_learn_on_all_pairs_written_out():
    rows = make_rows(skill=0.3)
    rows.truth[-2:], rows.weight[-2:] = (1, 2), 1  # interact beyond the limit: missed
    _, found = judged(rows)
    repeat = rows.weight.astype(int)
    said = np.where(rows.p_interaction >= 0.4, rows.p_types.argmax(axis=1) + 1, 0)
    truth, outcomes = np.repeat(rows.truth, repeat), np.repeat(said, repeat)
    scores = np.repeat(np.maximum(rows.p_interaction, 0)[:, None] * rows.p_types, repeat, axis=0)
    assert np.array_equal(found["confusion"], reference.confusion_matrix(truth, outcomes))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, outcomes, average="macro"))
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, outcomes))
    for k, name in enumerate("abc", start=1):
        row = found["per_outcome"][name]
        assert row["ap"] == pytest.approx(reference.average_precision_score(truth == k, scores[:, k - 1]))
        assert row["recall"] == pytest.approx(reference.recall_score(truth == k, outcomes == k))
        assert row["precision"] == pytest.approx(reference.precision_score(truth == k, outcomes == k))
        assert row["f1"] == pytest.approx(reference.f1_score(truth == k, outcomes == k))
    low, high = found["confidence"]["macro_f1"]
    assert low < found["macro_f1"] < high


def test_who_knows_the_types_is_learned_and_who_guesses_is_not():
    assert judged(make_rows(skill=0.5))[0].learned
    assert not judged(make_rows(skill=0.5), truncated=True)[0].learned
    rows = make_rows(skill=0.5)
    rows.p_types = np.eye(3)[np.zeros(len(rows.truth), int)]  # always the most frequent type
    verdict, found = judged(rows)
    assert not verdict.learned and "+0.000 [+0.000, +0.000]" in verdict.reason
    assert found["baselines"]["stage 1's pairs, always a"]["macro_f1"] == found["macro_f1"]
    assert (
        judged(rows, stage1_threshold=0.9)[1]["baselines"]
        == judged(rows, 0.9, stage1_threshold=0.9)[1]["baselines"]
    )


def test_a_perfect_answer_scores_one():
    rows = make_rows(skill=1.0)
    assert judged(rows, threshold=best_threshold(rows))[1]["macro_f1"] == 1.0


@pytest.mark.parametrize("scale", [1, 0.4])
def test_the_threshold_is_the_one_with_the_best_macro_f1(scale):
    rows = make_rows(skill=0.3)
    rows.p_interaction *= scale
    tried = [judged(rows, threshold=t)[1]["macro_f1"] for t in np.linspace(0, 1, 40)]
    assert judged(rows, threshold=best_threshold(rows))[1]["macro_f1"] >= max(tried) - 0.01


def test_a_type_that_is_absent_has_no_figures():
    rows = Outcomes(
        np.array([0, 1] * 5), np.array([0.1, 0.9] * 5), np.array([[0.5, 0.0], [0.9, 0.0]] * 5), np.ones(10),
        np.arange(10) // 2, np.arange(10) // 2,
    )  # fmt: skip
    _, found = end_to_end(rows, 0.5, ["a", "b"], 0.5, 0, "test", False)
    assert found["per_outcome"]["b"]["f1"] is None and found["per_outcome"]["b"]["ap"] is None
    assert found["macro_f1"] == 1.0
    assert rows.outcomes(0.9).tolist() == [0, 1] * 5  # at the threshold is enough


def test_every_pair_of_a_frame_is_there_once_unless_its_true_outcome_is_unknown():
    """Five people, in range: two strangers, a type, one without a type, one ambiguous; far: a type, one
    without, one ambiguous, two strangers. A second frame with two people far apart."""
    part = SimpleNamespace(
        labels=np.array([0, 0, 1, 1, 0]), types=np.array([-1, -1, 1, -1, -1]), frames=np.zeros(5, int),
        ambiguous=np.array([False, False, False, False, True]), far_types=np.array([0, -1]),
        far_frames=np.zeros(2, int), ambiguous_frames=np.zeros(2, int), frame_keys=["a", "b"],
        people_frames=np.array([0] * 5 + [1] * 2), frame_sequences=np.array([7, 8]),
    )  # fmt: skip
    p, types = np.linspace(0.1, 0.5, 5), np.linspace(0, 1, 10).reshape(5, 2)
    rows = every_pair(part, p, types)
    assert rows.truth.tolist() == [0, 0, 2, 1, 0, 0] and rows.weight.tolist() == [1, 1, 1, 1, 2, 1]
    assert rows.p_interaction.tolist() == [*p[:3], -1, -1, -1]
    assert rows.p_types.tolist() == [*types[:3].tolist(), *[[0, 0]] * 3]
    assert rows.frames.tolist() == [0, 0, 0, 0, 0, 1] and rows.sequences.tolist() == [7] * 5 + [8]
