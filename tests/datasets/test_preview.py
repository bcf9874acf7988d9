"""The preview draws what is annotated, and names what is not there."""

import shutil

import numpy as np
import pytest
from PIL import Image

from datasets import preview
from datasets.jrdb.labels import IMAGE_FOLDER
from datasets.jrdb.splits import list_sequences
from tests.jrdb_files import crowd, read, write_labels
from utils.plotting.panorama import HEADER, PALETTE
from utils.run.errors import DataError


@pytest.fixture
def folder(tmp_path):
    write_labels(tmp_path, "hall_0", crowd(6))
    write_labels(tmp_path, "attic_0", crowd(2))  # no images
    images = tmp_path / IMAGE_FOLDER / "hall_0"
    images.mkdir(parents=True)
    for number in (15, 30, 45, 60):
        Image.new("RGB", (3760, 480), (90, 90, 90)).save(images / f"{number:06d}.jpg")
    return tmp_path


def run(folder, *flags: str) -> list[str]:
    argv = ["--data_path", str(folder), "--output_dir", str(folder / "out"), *flags]
    preview.main(preview.parse_args(argv))
    return sorted(path.name for path in (folder / "out").iterdir())


def test_three_frames_of_the_first_sequence_with_images(folder):
    assert run(folder) == [f"preview_jrdb_hall_0_{number:06d}.png" for number in (15, 45, 60)]
    shutil.rmtree(folder / IMAGE_FOLDER)
    with pytest.raises(DataError, match="no labelled frame of any sequence has an image"):
        run(folder)


def test_the_flags_that_its_messages_propose_are_there(folder):
    labels = crowd(6)
    labels["000015.jpg"][0]["box"] = [100, 200, 0, 150]
    labels["000015.jpg"][3]["H-interaction"] = [{"pair": "pedestrian:5", "inter_labels": {"dancing": 1}}]
    write_labels(folder, "hall_0", labels)
    with pytest.raises(DataError, match=r"--class_map(.|\n)*--skip_bad_boxes"):
        run(folder)
    (folder / "map.json").write_text('{"dancing": "others"}')
    assert run(folder, "--class_map", str(folder / "map.json"), "--skip_bad_boxes")


def test_people_on_the_seam_and_pairs_by_type_are_in_the_picture(folder):
    sequence = read(list_sequences(folder)["hall_0"], folder)
    picture = preview.draw_frame(sequence, 0, folder / IMAGE_FOLDER / "hall_0" / "000015.jpg")
    body = picture[HEADER : HEADER + 480]
    colors = [(body == color).all(axis=2) for color in PALETTE[:5]]
    assert [bool(color.any()) for color in colors] == [True, False, True, True, False]  # walk, talk, sit
    assert np.flatnonzero(colors[3].any(axis=0)).max() - np.flatnonzero(colors[3].any(axis=0)).min() > 1000
