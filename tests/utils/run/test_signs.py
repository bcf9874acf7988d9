"""What a history shows, and what is no sign of anything yet."""

from utils.run.signs import best_row, history_signs, is_number
from utils.tasks import TASKS

STAGE1 = TASKS["train_stage1.py"]


def history(train, val, f1=None):
    losses = zip(train, val, f1 or [0.5] * len(train), strict=True)
    return [
        {"epoch": k, "lr": 1e-3, "train_loss": t, "val_loss": v, "val_f1": f, "val_auroc": 0.9}
        for k, (t, v, f) in enumerate(losses, 1)
    ]


def test_a_val_loss_that_rises_is_overfitting_only_if_the_train_loss_falls_and_after_some_epochs():
    falling, rising = [0.60 - 0.02 * k for k in range(8)], [0.50, 0.40, *(0.44 + 0.02 * k for k in range(6))]
    (text,) = history_signs(history(falling, rising), STAGE1)
    assert text.startswith("overfitting since epoch 2: val_loss rose from 0.4 to 0.54 while train_loss fell")
    assert text.endswith("from 0.58 to 0.46")  # F1 was best in the first epoch: nothing more to say
    assert not history_signs(history(falling[::-1], rising), STAGE1)  # it does not learn any more
    assert not history_signs(history(falling[:6], rising[:6]), STAGE1)  # too early


def test_the_metric_that_decides_may_be_best_after_the_val_loss():
    losses = [0.60 - 0.02 * k for k in range(8)], [0.50, 0.40, *(0.44 + 0.02 * k for k in range(6))]
    (text,) = history_signs(history(*losses, [0.1, 0.2, 0.3, 0.7, 0.6, 0.6, 0.6, 0.6]), STAGE1)
    assert text.endswith("; val_f1, which selects the best epoch, was best later, in epoch 4")


def test_of_equal_epochs_the_first_is_the_best():
    rows = history([0.5] * 3, [0.5] * 3, [0.2, 0.7, 0.7])
    assert best_row(rows, STAGE1)["epoch"] == 2
    assert best_row([{"epoch": 1, "val_f1": None}], STAGE1) == {}


def test_what_a_file_may_hold_in_place_of_a_number():
    assert [is_number(value) for value in (3, 0.5, True, None, "3", float("nan"))] == [True] * 2 + [False] * 4
