"""The learning check: what it flags, what it leaves alone, and the verdict's rule."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from utils.run.errors import DataError, NonFiniteError
from utils.training.learning import (
    ENOUGH,
    LearningCheck,
    are_probabilities,
    balanced_batch,
    best_constant_loss,
    check_finite,
    check_labels,
)

LABELS = torch.tensor([0] * 75 + [1] * 25)
CROSS_ENTROPY = nn.CrossEntropyLoss(reduction="none")


def test_best_constant_is_the_entropy_and_the_variance():
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert best_constant_loss(CROSS_ENTROPY, LABELS, 2) == pytest.approx(entropy, abs=1e-9)
    targets = torch.tensor([1.0, 2.0, 6.0])
    assert best_constant_loss(nn.MSELoss(reduction="none"), targets, 1) == pytest.approx(14 / 3, abs=1e-9)
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 3.0], dtype=torch.float64), reduction="none")
    assert best_constant_loss(weighted, LABELS, 2) == pytest.approx(1.5 * np.log(2), abs=1e-9)


def check_of(criterion, labels, outputs):
    return LearningCheck("train_stage1.py", criterion, labels, labels, outputs)


def after_epoch(check, history, model, outputs, steps=ENOUGH):
    """What is said of this history, where nothing is wrong with the loop."""
    checkpoint = SimpleNamespace(history=history)
    check.invariants = SimpleNamespace(
        checkpoint=checkpoint, model=model, steps=steps, after_epoch=lambda rows: None
    )
    before = len(check.warned)
    check.after_epoch({}, outputs)
    return list(check.warned.values())[before:]


def test_made_up_labels_and_label_free_losses_are_flagged_before_the_first_epoch():
    check = check_of(CROSS_ENTROPY, LABELS, 2)
    assert check.check_loss(lambda chosen: LABELS[chosen]) == []
    made_up = check.check_loss(lambda chosen: torch.randint(0, 2, (len(chosen),)))
    assert "differ between two reads" in made_up[0]
    free = check_of(lambda logits, labels: logits[:, 0] ** 2 + 0.1 * logits.std(), LABELS, 2)
    assert "does not depend on the labels" in free.check_loss(lambda chosen: LABELS[chosen])[0]


class Rows:
    """A data set of random vectors."""

    inputs = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))

    def __getitems__(self, chosen):
        return {"inputs": self.inputs[chosen]}


def forward(model, batch):
    return model(batch["inputs"])


class Years(nn.Module):
    """Outputs as the age models give them: deviations from the median."""

    def forward(self, outputs):
        return 55 + 20 * outputs[:, 0]


@pytest.mark.parametrize("labels", [LABELS, torch.linspace(20.0, 90.0, 100)])
def test_one_batch_is_learned_by_heart_without_a_trace(labels, caplog):
    outputs = 1 if labels.is_floating_point() else 2
    criterion = nn.L1Loss(reduction="none") if labels.is_floating_point() else CROSS_ENTROPY
    check = check_of(criterion, labels, outputs)
    torch.manual_seed(0)
    layers = [nn.Linear(8, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, outputs)]
    model = nn.Sequential(*layers, *([Years()] if outputs == 1 else [])).eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with caplog.at_level("INFO", logger="run"):
        check.overfit_one_batch(model, Rows(), torch.device("cpu"), forward)
    assert f"one batch of {32} can be learned by heart: loss " in caplog.text
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_batch_of_inputs_that_are_all_alike_can_not_be_learned_by_heart(monkeypatch, caplog):
    monkeypatch.setattr(Rows, "inputs", torch.zeros(100, 8))
    check = check_of(CROSS_ENTROPY, LABELS, 2)
    with caplog.at_level("INFO", logger="run"):
        check.overfit_one_batch(nn.Linear(8, 2), Rows(), torch.device("cpu"), forward)
    assert "cannot be learned by heart: loss 0.69" in caplog.text  # 16 of each class: ln 2
    assert "after 300 steps" in caplog.text


def test_the_batch_is_balanced():
    chosen = balanced_batch(LABELS)
    assert LABELS[chosen].sum() == 16 and len(set(chosen)) == 32
    assert balanced_batch(torch.tensor([0, 1, 1, 0, 1])) == [0, 1, 2, 3, 4]
    ages = torch.tensor([30.0, 10.0, 20.0, 50.0, 40.0])
    assert ages[balanced_batch(ages, size=3)].sort().values.tolist() == [10, 30, 50]


def epochs(*losses: float) -> list[dict]:
    return [{"train_loss": loss, "lr": 0.1} for loss in losses]


def model_with_gradient() -> nn.Module:
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["head"](model["body"](torch.ones(4, 2))).sum().backward()
    return model


@pytest.mark.parametrize(
    ("losses", "word"),
    [
        ((0.5, 0.4, 0.3), None),
        ((0.45, 0.44, 0.43), None),
        ((0.1,), "far from"),
        ((0.562, 0.562, 0.562), "flat"),
        ((0.57, 0.56, 0.565), "constant"),
        ((9.0,), "far from"),
    ],
)
def test_epochs_are_judged_by_their_losses(losses, word):
    check, outputs = check_of(CROSS_ENTROPY, LABELS, 2), np.diag([1.0, 2.0, 3.0, 0.0])  # one that is constant
    said = after_epoch(check, epochs(*losses), model_with_gradient(), outputs)
    assert said == [] if word is None else any(word in text for text in said)


def test_dead_outputs_and_detached_parts_are_named_once():
    check = check_of(CROSS_ENTROPY, LABELS, 2)
    model = model_with_gradient()
    model["body"].zero_grad(set_to_none=False)
    said = after_epoch(check, epochs(0.5), model, np.full((5, 2), 0.3))
    assert any("same output" in text for text in said) and any("reaches body" in text for text in said)
    assert after_epoch(check, epochs(0.5, 0.4), model, np.full((5, 2), 0.3)) == []


def test_what_is_normal_in_the_beginning_is_not_flagged():
    """A low loss if val is as low, a loss that stands still in a warm-up, and parts that wait for their first
    gradient."""
    outputs, model = np.diag([1.0, 2.0, 3.0]), model_with_gradient()
    quick = [row | {"epoch": 1, "val_loss": 0.1} for row in epochs(0.1)]
    assert after_epoch(check_of(CROSS_ENTROPY, LABELS, 2), quick, model, outputs) == []
    rising = [{"train_loss": 0.5, "lr": rate} for rate in (0.1, 0.2, 0.3)]
    assert after_epoch(check_of(CROSS_ENTROPY, LABELS, 2), rising, model, outputs) == []
    model["body"].zero_grad()
    assert (
        after_epoch(check_of(CROSS_ENTROPY, LABELS, 2), epochs(0.5), model, outputs, steps=ENOUGH - 1) == []
    )


@pytest.mark.parametrize(
    ("outputs", "flagged"),
    [
        ([[0.2, 0.8], [0.9, 0.1]], True),
        ([[-0.2, 1.2], [0.9, 0.1]], False),
        ([0.01, 0.5, 0.99], True),
        ([0.2, 0.5, 0.6], False),
        ([-0.01, 0.5, 0.99], False),
    ],
)
def test_outputs_that_are_probabilities(outputs, flagged):
    assert are_probabilities(np.array(outputs)) is flagged


def test_a_constant_answers_the_samples_that_are_drawn():
    drawn = np.r_[:25, 75:100]  # 25 of each class
    check = LearningCheck("train_stage1.py", CROSS_ENTROPY, LABELS, LABELS, 2, drawn)
    assert check.constant_loss == pytest.approx(np.log(2)) and check.val_constant < 0.6


def test_smoothed_labels_are_no_second_softmax():
    smooth = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)
    assert check_of(smooth, LABELS, 2).check_loss(lambda chosen: LABELS[chosen]) == []
    twice = check_of(lambda logits, labels: CROSS_ENTROPY(logits.softmax(1), labels), LABELS, 2)
    assert "applied twice" in twice.check_loss(lambda chosen: LABELS[chosen])[0]


def test_a_val_loss_above_what_a_constant_reaches_on_val_is_said_once():
    """Train is sampled half and half, val is not: its own constant is lower."""
    val = torch.tensor([0] * 90 + [1] * 10)
    check = LearningCheck("train_stage1.py", CROSS_ENTROPY, torch.tensor([0, 1] * 50), val, 2)
    assert (check.constant_loss, check.val_constant) == pytest.approx((np.log(2), 0.3251), abs=1e-4)
    rows = [{"epoch": k, "train_loss": 0.6 - 0.1 * k, "val_loss": 0.5 + 0.1 * k, "lr": 0.1} for k in range(4)]
    model, outputs = model_with_gradient(), np.diag([1.0, 2.0, 3.0])
    said = [after_epoch(check, rows[: k + 1], model, outputs) for k in range(4)]
    assert said[:2] == [[], []] and said[3] == []
    assert said[2][0].startswith("val loss above a constant's: 0.7 in the last epoch")
    assert said[2][0].endswith("0.3251 on val") and len(said[2]) == 1


def test_labels_must_differ_be_finite_and_exist():
    check_labels(np.array([0, 1]), "val")
    with pytest.raises(DataError, match="val split is empty"):
        check_labels(np.array([]), "val")
    with pytest.raises(DataError, match="one class only: 3 samples, all 'interaction'"):
        check_labels(np.ones(3, int), "val", ["none", "interaction"])
    with pytest.raises(DataError, match="1 labels that are NaN"):
        check_labels(np.array([1.0, np.nan]), "train")
    with pytest.raises(DataError, match="1 labels that are NaN or infinite"):
        check_labels(np.array([1.0, np.inf]), "train")


def test_non_finite_step_stops_with_the_samples_named():
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    check_finite(torch.tensor(1.0), torch.tensor(2.0), scaler, "epoch 1 step 1", torch.tensor([4]))
    for loss, norm in ((float("nan"), 1.0), (1.0, float("inf"))):
        with pytest.raises(NonFiniteError, match=r"epoch 1 step 3.*\n.*4, 7") as error:
            check_finite(
                torch.tensor(loss), torch.tensor(norm), scaler, "epoch 1 step 3", torch.tensor([4, 7])
            )
        assert error.value.exit_code == 4
    float16 = SimpleNamespace(is_enabled=lambda: True)  # it skips a step whose gradients overflow
    check_finite(torch.tensor(1.0), torch.tensor(float("inf")), float16, "", torch.tensor([4]))
