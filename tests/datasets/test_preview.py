"""The preview draws what is annotated, and names what is not there."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets import preview
from datasets.jrdb.labels import IMAGE_FOLDER
from datasets.jrdb.splits import list_sequences
from datasets.samples import ensure_sample
from tests.anovox_world import copy_of, frame_files, scenario_folders, tiny_sample
from tests.jrdb_files import crowd, read, write_labels
from utils.plotting.panorama import HEADER, PALETTE, WHITE
from utils.run.errors import CommandError, DataError


@pytest.fixture
def folder(tmp_path):
    write_labels(tmp_path, "hall_0", crowd(6))
    write_labels(tmp_path, "attic_0", crowd(2))  # no images
    images = tmp_path / IMAGE_FOLDER / "hall_0"
    images.mkdir(parents=True)
    for number in (15, 30, 45, 60):
        Image.new("RGB", (3760, 480), (90, 90, 90)).save(images / f"{number:06d}.jpg")
    return tmp_path


def run(folder) -> list[str]:
    argv = ["jrdb", "--data_path", str(folder), "--output_dir", str(folder / "out")]
    preview.main(preview.parse_args(argv))
    return sorted(path.name for path in (folder / "out").iterdir())


def test_three_frames_of_the_first_sequence_with_images(folder):
    assert run(folder) == [f"preview_jrdb_hall_0_{number:06d}.png" for number in (15, 45, 60)]
    shutil.rmtree(folder / IMAGE_FOLDER)
    with pytest.raises(DataError, match="no image of a labelled frame of any sequence"):
        run(folder)


def test_people_on_the_seam_and_pairs_by_type_are_in_the_picture(folder):
    sequence = read(list_sequences(folder)["hall_0"], folder)
    picture = preview.draw_frame(sequence, 0, folder / IMAGE_FOLDER / "hall_0" / "000015.jpg")
    body = picture[HEADER : HEADER + 480]
    colors = [(body == color).all(axis=2) for color in PALETTE[:5]]
    assert [bool(color.any()) for color in colors] == [True, False, True, True, False]  # walk, talk, sit
    bars = (picture[HEADER + 480 :] == WHITE).all(axis=2).any(axis=0)
    assert bars[:40].any() and bars[3745:].any()  # group 4 stands on both sides of the seam
    assert np.flatnonzero(colors[3].any(axis=0)).max() - np.flatnonzero(colors[3].any(axis=0)).min() > 1000


def test_a_turned_lidar_and_carlas_colours_are_drawn_as_training_reads_them(tmp_path, monkeypatch):
    root = copy_of(tiny_sample(), tmp_path / "data", scenarios=1)
    (scenario,) = scenario_folders(root)
    setup = json.loads((scenario / "sensor_setup.json").read_text())
    for sensor in setup.values():
        if "LIDAR" in sensor["sensor_type"]:
            sensor["rotation"] = [0, 0, 90]  # to the right: what is ahead lies on its left
    (scenario / "sensor_setup.json").write_text(json.dumps(setup))
    road, fence = (128, 64, 128), (100, 40, 40)  # the fence is CARLA's alone
    for file in frame_files(scenario, "SEMANTIC-CAM"):
        Image.fromarray(np.array([[road, fence]], np.uint8).repeat(8, axis=0)).save(file)
    for sensor, last in (("LIDAR", 0.5), ("SEMANTIC-LIDAR", 30)):
        for file in frame_files(scenario, sensor):
            np.save(file, np.array([[0, 10, -1, last]], np.float32))
    drawn = []
    monkeypatch.setattr(preview, "plot_frame", lambda *given: drawn.append(given))
    argv = ["anovox", "--data_path", str(root), "--output_dir", str(tmp_path), "--anomaly_ids", "30"]
    preview.main(preview.parse_args(argv))
    preview.main(preview.parse_args([*argv[:-1], "29"]))
    assert [scores.tolist() for *_, scores, _, _ in drawn] == [[True], [False]]
    for _, _, points, *_ in drawn:
        assert points[:, :2] == pytest.approx(np.array([[10, 0]]), abs=1e-5)


@pytest.mark.figures
def test_anomalies_are_marked_red_and_people_stand_in_the_order_of_their_ages(tmp_path, monkeypatch):
    pictures = preview.preview_anovox(tiny_sample(), tmp_path)
    assert len(pictures) >= 4 and all(Image.open(picture).width > 500 for picture in pictures)
    texts = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.text", lambda axis, x, y, text, **_: texts.append(text) or axis.title
    )
    folder = ensure_sample("ultrasound", tmp_path / "sample", "tiny")
    sheets = preview.preview_ultrasound(folder, tmp_path)
    assert [path.stem.split("_", 2)[2] for path in sheets] == ["BB_Healthy", "TA_Healthy", "TA_Pathological"]
    ages = [float(text.split()[0]) for text in texts[1:-2]]  # after one of BB, before two of Pathological
    assert ages == sorted(ages) and len(ages) == 16 and ages[0] < ages[-1]
    for kind in ("anovox", "ultrasound"):
        with pytest.raises((CommandError, DataError)):
            preview.main(preview.parse_args([kind, "--data_path", str(tmp_path / "nowhere")]))
