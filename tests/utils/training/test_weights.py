"""Averaged weights: what they are after some steps, by hand, and what of a model is copied."""

import pytest
import torch
from torch import nn

from utils.training.weights import fingerprints, follow


def test_weights_and_statistics_are_averaged_and_counters_copied():
    average, model = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    model.weight.data.fill_(3.0)
    model.running_mean.fill_(10.0)
    model.num_batches_tracked.fill_(7)
    follow(average, model, decay=0.9, step=1000)
    assert average.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert average.running_mean.item() == pytest.approx(1.0)
    assert average.num_batches_tracked.item() == 7
    follow(average, model, decay=0.9, step=0)  # 1/10 of what was, 9/10 of what is
    assert average.weight.item() == pytest.approx(0.1 * 1.2 + 0.9 * 3)


def test_what_stands_still_stays_bit_for_bit():
    average, model = nn.Linear(50, 50), nn.Linear(50, 50)
    model.load_state_dict(average.state_dict())
    before = average.weight.clone()
    for step in range(100):
        follow(average, model, decay=0.995, step=step)
    assert torch.equal(average.weight, before)


def test_without_a_warm_up_the_first_step_copies_and_the_others_use_the_decay():
    average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    for step, expected in enumerate((3.0, 0.9 * 3 + 0.1 * 5)):
        model.weight.data.fill_(3.0 + 2 * step)
        follow(average, model, decay=0.9, step=step, warm_up=False)
        assert average.weight.item() == pytest.approx(expected)


def test_a_fingerprint_sees_two_values_that_move_by_the_same_amount():
    bias = torch.tensor([1.0, -1.0, 0.5])
    (before,), (after,) = fingerprints([bias]), fingerprints([bias + torch.tensor([0.25, -0.25, 0])])
    assert before[0] != after[0] and before[1] == 2.5 and after[1] == 3.0
