"""Figures are written for short, long and failed runs, and no figure stays open."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from utils.metrics.verdict import Verdict
from utils.plotting.classification import plot_confusion, plot_distributions
from utils.plotting.curves import Panel, draw_panels, plot_curves, to_beat, without_twins
from utils.plotting.figures import never_fatal
from utils.training.run import Run

pytestmark = pytest.mark.figures


@pytest.mark.parametrize("epochs", [1, 3, 200])
def test_curves(tmp_path, epochs):
    history = [
        {"epoch": e, "lr": 1e-3 * 0.9**e, "train_loss": 0.9**e, "val_loss": None if e == 2 else 0.9**e + 0.1}
        for e in range(1, epochs + 1)
    ]
    verdict = Verdict("NOT LEARNED", "AUROC against distance alone: " + "a long reason " * 20)
    panels = [Panel("loss", "loss", 0.69, "best constant"), Panel("absent", "not measured")]
    plot_curves(history, panels, tmp_path / "curves.png", best_epoch=1, verdict=verdict)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width >= 1000 and image.height > 700  # two rows of two, the banner above them
    assert plt.get_fignums() == []


def test_a_loss_that_is_the_mae_is_drawn_once_and_no_cell_stays_empty():
    panels = [Panel("loss", "loss", 3.0), Panel("mae", "MAE"), Panel("r2", "R2")]
    history = [{"val_loss": 4.0 / e, "val_mae": 4.0 / e, "val_r2": 0.1 * e} for e in (1, 2)]
    kept = without_twins(history, panels)
    assert [(panel.key, panel.title, panel.baseline) for panel in kept] == [
        ("loss", "loss = MAE", 3.0),
        ("r2", "R2", None),
    ]
    assert without_twins([row | {"val_loss": row["val_mae"] ** 2} for row in history], panels) == panels
    figure, axes = draw_panels([*panels, panels[0]], 3, [])
    figure.canvas.draw()
    assert axes[4].get_position().width > 1.8 * axes[3].get_position().width
    plt.close(figure)


def test_the_learning_rate_is_drawn_once():
    history = [{"epoch": e, "lr": 1e-3 / e, "train_loss": 1.0, "val_loss": 2.0} for e in (1, 2)]
    lines = [(history, split, {}) for split in ("train", "val")]
    figure, (loss, rate) = draw_panels([Panel("loss", "loss")], 2, lines)
    assert len(loss.get_lines()) == 2 and len(rate.get_lines()) == 1
    plt.close(figure)


def test_the_reason_of_a_verdict_is_broken_into_lines_as_wide_as_the_figure(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(plt.Figure, "suptitle", lambda self, text, **options: written.append(text))
    verdict = Verdict("NOT LEARNED", "a long reason " * 30)
    rows = [{"epoch": 1, "lr": 1e-3, "train_loss": 1.0, "val_loss": 1.0}]
    plot_curves(rows, [Panel("loss", "loss")], tmp_path / "curves.png", 1, verdict)
    run, banner = written
    assert run == tmp_path.name and banner.startswith(f"{run}\nNOT LEARNED\n")
    assert 60 < max(map(len, banner.splitlines())) <= 120


def test_confusion_and_distributions(tmp_path):
    plot_confusion(np.array([[5, 0], [0, 0]]), ["a", "b"], "title", tmp_path / "c.png")
    labels, scores = np.array([0, 0, 0]), np.array([0.1, 0.2, 1.0])
    plot_distributions(labels, scores, ["a", "absent"], "title", tmp_path / "d.png", threshold=0.5)
    assert (tmp_path / "c.png").stat().st_size > 1000 and (tmp_path / "d.png").stat().st_size > 1000
    assert plt.get_fignums() == []


def test_a_figure_that_fails_is_a_warning_and_leaves_nothing_open(caplog):

    @never_fatal
    def plot_something():
        plt.figure()
        raise ValueError("no such font")

    plot_something()
    assert "plot_something failed" in caplog.text and "no such font" in caplog.text
    assert plt.get_fignums() == []


def test_curves_of_averaged_weights_say_so():
    """The train loss is of the plain weights, the val loss is not: a reader would wonder about the gap."""
    for decay, title in ((0.9, "loss (val: with averaged weights)"), (0.0, "loss")):
        run = SimpleNamespace(script="train_mae.py", args=SimpleNamespace(ema_decay=decay))
        assert Run.panels(run, loss=3.0)[0] == Panel("loss", title, 3.0, "best constant")


def test_what_there_is_to_beat():
    panels = [Panel("loss", "loss", 0.6931, "best constant"), Panel("f1", "F1")]
    assert to_beat(panels) == "to beat on val: loss 0.6931 (best constant)"
