"""What a run checks before it begins, and what it writes only every so many epochs."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.tiny_runs import train
from utils.run.errors import DataError
from utils.training import run as training_run


def test_the_labels_of_every_part_are_checked():
    ages = {"train": [50.0, 60.0], "val": [70.0, 70.0]}
    parts = {name: SimpleNamespace(ages=np.array(some)) for name, some in ages.items()}
    with pytest.raises(DataError, match="the val split has one age only: 2 samples, all '70'"):
        training_run.Run.check(None, SimpleNamespace(parts=parts, train=parts["train"]))


def test_curves_and_checkpoints_are_written_as_often_as_the_flags_say(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(training_run, "plot_curves", lambda history, *more: drawn.append(len(history)))
    run = train("train_mae", tmp_path, "--max_batches", 1, "--save_interval", 2, "--plot_interval", 2)
    assert [path.name for path in run.glob("checkpoint_*")] == ["checkpoint_epoch_2.pth"]
    assert drawn == [2, 3]  # and once more in the end
