"""Single invariants by hand; tests/faults/test_loop_faults.py types mistakes into the scripts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from utils.training.invariants import Invariants
from utils.training.weights import fingerprints


@pytest.fixture
def watch():
    said = []
    return SimpleNamespace(said=said, warn=lambda kind, text: said.append(kind), looking=lambda: True)


@pytest.mark.parametrize(("times", "said"), [(0, ["normalisation"]), (1, []), (2, ["normalisation"])])
def test_images_are_normalised_once(watch, times, said):
    images = torch.rand(8, 3, 16, 16)
    for _ in range(times):
        images = (images - 0.45) / 0.225
    Invariants.check_normalised(watch, nn.Identity(), (images,))
    assert watch.said == said


@pytest.mark.parametrize(
    ("rates", "errors", "kept", "stepped", "said"),
    [
        ([0.05, 0.1, 0.07, 0.02], [9, 7, 7, 8], 2, 4, []),  # a warm-up and a fall
        ([0.01, 0.02, 0.03], [9, 8, 7], 3, 3, ["schedule"]),  # a warm-up without an end
        ([0.1, 0.1, 0.1], [9, 7, 7], 3, 3, ["best"]),
        ([0.1, 0.1, 0.1], [9, 7, 8], 1, 3, ["best"]),
        ([0.1, 0.1, 0.1], [9, 8, 7], 3, 0, ["schedule"]),
        ([0.1, 0.1, 0.1], [9, 8, 7], 3, 6, ["schedule"]),
    ],
)
def test_the_schedule_and_the_best_epoch(watch, rates, errors, kept, stepped, said):
    watch.run = SimpleNamespace(script="train_mae.py")
    watch.flags = {"learning_rate": 0.1, "warmup_epochs": 2}
    parts = {"scheduler": SimpleNamespace(last_epoch=stepped)}
    watch.checkpoint = SimpleNamespace(best={"model": {"epoch": kept}}, parts=parts)
    rows = zip(rates, errors, strict=True)
    history = [{"epoch": k, "lr": lr, "val_subject_mae": mae} for k, (lr, mae) in enumerate(rows, start=1)]
    Invariants.check_history(watch, history)
    assert watch.said == said


@pytest.mark.parametrize(("share", "said"), [(0.0, ["average"]), (0.5, []), (1.0, ["average"])])
def test_averaged_weights_follow_and_lag(watch, share, said):
    """share: of the way that the weights went."""
    watch.model, watch.judged = nn.Linear(4, 4), nn.Linear(4, 4)
    watch.judged.load_state_dict(watch.model.state_dict())
    watch.trainable = dict(watch.model.named_parameters())
    before = watch.judged_before = fingerprints(watch.trainable.values())
    with torch.no_grad():
        for mine, trained in zip(watch.judged.parameters(), watch.model.parameters(), strict=True):
            trained += 1
            mine += share
    Invariants.check_moved(watch, before)
    assert watch.said == said


@pytest.mark.parametrize(("same", "said"), [(16, ["augmentation"]), (15, [])])
def test_augmentation_may_leave_a_sample_as_it_is_but_not_all(watch, same, said):
    sampler = SimpleNamespace(frames=np.arange(9))
    watch.loaders, watch.orders = {"train": SimpleNamespace(batch_sampler=sampler)}, {1: [], 2: []}
    watch.same, watch.compared = same, 16
    Invariants.check_orders(watch)
    assert watch.said == said


class Val(list):
    ages = np.array([50.0, 60.0, 70.0])


@pytest.mark.parametrize(
    ("indices", "ages", "said"),
    [([0, 1, 2], [50, 60, 70], []), ([0, 1], [50, 60], ["judged"]), ([0, 1, 2], [50, 70, 60], ["judged"])],
)
def test_val_is_judged_as_a_whole_by_its_own_labels(watch, indices, ages, said):
    watch.loaders, watch.target = {"val": SimpleNamespace(dataset=Val("abc"))}, "ages"
    Invariants.check_judged(watch, {"indices": np.array(indices), "ages": np.array(ages)})
    assert watch.said == said


@pytest.mark.parametrize(
    ("model", "said"),
    [(nn.Identity(), []), (nn.Dropout(0.5), ["random"]), (nn.Threshold(9, 0), ["ignored images"])],
)
def test_a_val_batch_has_one_answer_that_depends_on_its_inputs(watch, model, said):
    watch.in_step, watch.begun, watch.ended, watch.batch, watch.inputs = lambda: False, 1, 0, {}, ["images"]
    images = torch.rand(4, 3, 8, 8)
    Invariants.after_evaluation(watch, model, (images,), {}, model(images))
    assert watch.said == said
