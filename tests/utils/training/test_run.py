"""What a run writes only every so many epochs."""

from tests.tiny_runs import train
from utils.training import run as training_run


def test_curves_and_checkpoints_are_written_as_often_as_the_flags_say(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(training_run, "plot_curves", lambda history, *more: drawn.append(len(history)))
    run = train("train_mae", tmp_path, "--max_batches", 1, "--save_interval", 2, "--plot_interval", 2)
    assert [path.name for path in run.glob("checkpoint_*")] == ["checkpoint_epoch_2.pth"]
    assert drawn == [2, 3]  # and once more in the end
