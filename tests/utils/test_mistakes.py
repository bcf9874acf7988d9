"""suspects.csv puts a wrong label first; mistakes.png shows what there is to see of it."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from utils.plotting.age import draw_people
from utils.plotting.anomaly import explained
from utils.plotting.figures import overlay
from utils.report.samples import block_of, by_group, report_samples

pytestmark = pytest.mark.figures


def test_the_label_that_is_wrong_comes_first_with_its_pictures(tmp_path, monkeypatch):
    labels = np.array([0, 1] * 10)
    scores = np.where(labels == 1, 0.9, 0.1) + np.linspace(0, 0.05, 20)
    labels[7] = 0  # somebody's slip
    columns = {
        "scenario": np.array(["Scenario_b"] * 5 + ["Scenario_a"] * 5 + ["Scenario_b"] * 10),
        "frame_id": np.arange(20), "label": labels,
        "score": scores, "alarm": (scores > 0.5).astype(int),
    }  # fmt: skip
    seen, titles, p_label = [], [], np.where(labels == 1, scores, 1 - scores)
    monkeypatch.setattr(plt.Figure, "suptitle", lambda self, text, **options: titles.append(text))

    def look(k):
        seen.append(k)
        return [np.full((20, 30, 3), k, np.uint8), np.zeros((10, 300, 3), np.uint8)]

    report_samples(tmp_path, "test", {"script": "train_anomaly_with_labels.py"}, columns, p_label, look)
    table = pandas.read_csv(tmp_path / "suspects.csv")
    assert table["frame_id"].tolist()[0] == 7 and seen == [7] and len(table) == 20  # the others are likely
    assert (np.diff(table["p_label"]) >= 0).all() and list(table)[-1] == "p_label"
    groups = pandas.read_csv(tmp_path / "worst_groups.csv")
    assert groups.scenario.tolist() == ["Scenario_a", "Scenario_b"] and groups.samples.tolist() == [5, 15]
    assert groups.wrong.tolist() == [0.2, 0] and groups.p_label[0] == np.mean(p_label[5:10]).round(4)
    with Image.open(tmp_path / "mistakes.png") as picture:
        assert picture.width > 400
    assert max(map(len, titles[0].split("\n"))) <= 50, "above one block, no wider than it"


def test_groups_of_another_task_of_numbers_have_errors_too():
    """A script of one's own, whose columns are not called age and prediction."""
    table = pandas.DataFrame(
        {"site": list("abb"), "grams": [1.0, 2, 3], "guess": [2.0, 2, 5], "p_label": 0.5}
    )
    found = by_group(
        table.assign(error=table.guess - table.grams),
        {"task": "weight", "columns": ("grams", "guess"), "sample": ("site",)},
    )
    assert found.set_index("site")["error"].to_dict() == {"a": 1.0, "b": 1.0}


def test_where_no_label_is_unlikely_there_is_no_mistake(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(plt.Figure, "suptitle", lambda self, text, **options: said.append(text))
    columns = {"subject": ["a", "b"], "file": ["a.png", "b.png"], "age": [1.0, 2], "prediction": [1.0, 2]}
    columns = {key: np.array(values) for key, values in columns.items()} | {"error": np.zeros(2)}
    state = {"script": "train_mae.py"}
    report_samples(tmp_path, "test", state, columns, np.array([0.9, 0.5]), look=None)
    assert said == ["train_mae.py: no label of test is less likely than not: no mistake to show"]
    assert (tmp_path / "mistakes.png").is_file() and len(pandas.read_csv(tmp_path / "suspects.csv")) == 2


def test_every_pair_is_drawn_once_before_any_is_drawn_again(tmp_path):
    pairs = {
        "sequence": ["hall"] * 5,
        "frame": [0, 15, 30, 0, 15],
        "id_left": [1, 1, 1, 2, 2],
        "id_right": [9] * 5,
    }
    answers = {"label": ["sitting"] * 5, "prediction": ["walking"] * 5}
    columns = {name: np.array(values) for name, values in (pairs | answers).items()}
    seen = []
    look = lambda k: seen.append(k) or [np.zeros((9, 9), np.uint8)]  # noqa: E731
    p_label = np.array([0.3, 0.1, 0.2, 0.15, 0.4])
    report_samples(tmp_path, "test", {"script": "train_stage2.py"}, columns, p_label, look)
    assert seen == [1, 3, 2, 4, 0]  # the worst frame of each, then the second
    assert len(pandas.read_csv(tmp_path / "suspects.csv")) == 5


def test_a_map_without_range_leaves_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert np.array_equal(overlay(image, np.full((6, 8), 0.5)), image)
    heat = np.full((6, 8), 0.5)
    heat[2, 3] = 0.9
    changed = np.argwhere((overlay(image, heat) != image).any(axis=2)).tolist()
    assert changed == [[2, 3]]


def test_names_beside_points_neither_touch_nor_are_cut():
    figure, axis = plt.subplots(figsize=(3, 3), layout="constrained")
    x = pandas.Series([0, 0.001, 0.002, 1, 1, 1.001], index=[f"subject {k}" for k in range(6)])
    axis.plot(x, x, label="line")
    draw_people(axis, x, x, x * 0 + 1)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) >= 4
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(axis.bbox.count_contains(box.corners()) == 4 for box in boxes)
    plt.close(figure)


def test_wide_pictures_stand_below_the_others():
    block = block_of(
        [np.zeros((20, 20, 3), np.uint8), np.zeros((40, 20), np.uint8), np.full((10, 400, 3), 9, np.uint8)]
    )
    assert block.shape == (160 + 4 + 12 + 4, 480, 3) and (block[164:176] == 9).all()


def test_points_are_drawn_where_they_fall():
    batch = {
        "images": torch.zeros(1, 3, 10, 20, dtype=torch.uint8),
        "point_pixels": torch.tensor([[[0.0, 0.0], [0.95, -0.9], [2.0, 2.0]]]),
    }
    image, drawn = explained(batch, lambda batch: (torch.zeros(1, 10, 20), torch.tensor([[0.0, 1.0, 5.0]])))
    assert image.shape == drawn.shape == (10, 20, 3)
    moved = {tuple(place) for place in np.argwhere((drawn != drawn[9, 0]).any(axis=2)).tolist()}
    assert moved == {(5, 10), (0, 19)}  # the third lies outside


def test_the_true_anomaly_is_outlined():
    batch = {
        "images": torch.zeros(1, 3, 10, 20, dtype=torch.uint8),
        "point_pixels": torch.full((1, 1, 2), 2.0),
    }
    truth = np.zeros((10, 20), np.int8)
    truth[4:7, 8:12], truth[0, 0] = 1, -1
    image, _ = explained(batch, lambda batch: (torch.zeros(1, 10, 20), torch.zeros(1, 1)), truth)
    outlined = (image != 0).any(axis=2)
    assert outlined[3, 9] and outlined[7, 9] and outlined[5, 7] and outlined[5, 12]
    assert not outlined[truth == 1].any() and not outlined[0, 0]
