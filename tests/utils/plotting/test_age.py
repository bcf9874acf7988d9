"""The sheet of ages: images stand in rows and columns, the last one too; what titles say."""

import numpy as np
import pytest

from utils.plotting import figures
from utils.report.results import figure_title


@pytest.mark.figures
def test_the_last_image_of_a_sheet_stands_in_its_column(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path, title: drawn.append(figure))
    figures.plot_pictures([np.zeros((8, 8))] * 8, list("abcdefgh"), 6, tmp_path / "sheet.png")
    drawn[0].canvas.draw()
    boxes = [axis.get_position() for axis in drawn[0].axes]
    assert abs(boxes[7].x0 - boxes[1].x0) < 0.02 and abs(boxes[7].width - boxes[1].width) < 0.02
    figures.plt.close(drawn[0])


@pytest.mark.parametrize(
    ("place", "named"),
    [("/data/TA/Healthy/Images", "TA/Healthy/Images"), ("/data/HC18", "HC18"), (None, "the built-in sample")],
)
def test_the_titles_of_figures_name_the_images_they_are_of(place, named):
    state = {"script": "train_mae.py", "args": {"image_dir": place}}
    assert figure_title(state, "val") == f"train_mae.py on val of {named}"
