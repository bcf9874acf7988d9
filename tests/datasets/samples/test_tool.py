"""python -m datasets.samples: a sample anywhere, the same for the same seed, and a contact sheet of it."""

import json

import numpy as np
import pytest
from PIL import Image

from datasets.jrdb.labels import INTERACTION_CLASSES, list_sequences, read_sequence
from datasets.samples import __main__ as tool
from datasets.samples import preview
from datasets.ultrasound.table import read_age_table
from tests.anovox_world import tiny_sample
from utils.run.errors import CommandError


def run(*argv):
    tool.main(tool.parse_args([str(one) for one in argv]))


@pytest.fixture(scope="module")
def jrdb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jrdb") / "new" / "sample"
    run(
        "jrdb",
        folder,
        "--size",
        "tiny",
        "--seed",
        3,
        "--preview",
        "--picture_dir",
        folder.parent / "pictures",
    )
    return folder


@pytest.fixture(scope="module")
def ultrasound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ultrasound") / "sample"
    run("ultrasound", folder, "--size", "tiny")
    return folder


def test_a_sample_is_written_where_one_wants_it_with_its_contact_sheet(jrdb, capsys):
    done = json.loads((jrdb / "DONE").read_text())
    assert (done["kind"], done["size"], done["seed"]) == ("jrdb", "tiny", 3)
    with Image.open(jrdb.parent / "pictures" / "sample_jrdb_tiny_seed3.png") as sheet:
        assert sheet.width > 300 and sheet.height > 4 * preview.TILE
    before = (jrdb / "DONE").stat().st_mtime_ns
    run("jrdb", jrdb, "--size", "tiny", "--seed", 3)
    assert (jrdb / "DONE").stat().st_mtime_ns == before  # there already
    assert f"sample jrdb: tiny, seed 3, in {jrdb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["jrbd", "x"], "'jrbd': no such kind; known: anovox, jrdb, ultrasound; did you mean jrdb?"),
        (["ultrasound", "x", "--size", "smal"], "sizes: tiny, .*did you mean small?"),
        (["jrdb"], "the following arguments are required: DIR"),
        (["jrdb", "x", "--sed", "1"], "--sed.*did you mean --seed"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(argv, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        tool.parse_args(argv)
    answer = capsys.readouterr().err
    assert np.all([part in answer for part in said.split(".*")]) and len(answer.splitlines()) <= 5


def test_somebodys_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(CommandError, match="in the way of the built-in sample"):
        run("jrdb", tmp_path, "--size", "tiny")
    assert (tmp_path / "thesis.txt").read_text() == "three years"
    with pytest.raises(CommandError, match="can not be written to .*thesis.txt"):
        run("jrdb", tmp_path / "thesis.txt" / "sample", "--size", "tiny")


def test_pairs_in_a_row_are_annotated_so_and_the_last_row_is_not_annotated(jrdb):
    kinds = set()
    for path in list_sequences(jrdb).values():
        sequence = read_sequence(path, jrdb)
        truth = {tuple(pair): int(kind) for pair, kind in zip(sequence.pairs, sequence.types, strict=True)}
        for kind, pair in preview.choose_pairs(sequence, len(sequence.keys) // 2).items():
            assert truth.get(pair, len(INTERACTION_CLASSES)) == kind
            kinds.add(kind)
    assert len(INTERACTION_CLASSES) in kinds and len(kinds) >= 4
    rows = preview.jrdb_rows(jrdb)
    assert [row.title for row in rows][:-1] == list(INTERACTION_CLASSES)
    assert all(len(row.tiles) <= preview.PER_ROW for row in rows)


def test_a_pair_on_the_seam_is_in_one_piece():
    image = np.zeros((100, 400, 3), np.uint8)
    image[30:70, 390:] = (0, 0, 255)  # one person ends at the seam,
    image[30:70, 5:15] = (0, 255, 0)  # the other stands behind it
    boxes = np.array([[5.0, 30, 10, 40], [390.0, 30, 10, 40]])
    assert preview.span(boxes, 400) == (390, 25) == preview.span(boxes[::-1], 400)
    crop = preview.crop_pair(image, boxes)
    assert crop.shape[0] == preview.TILE and crop.shape[1] < 1.1 * preview.TILE
    blue, green = (np.flatnonzero((crop[75] == color).all(axis=1)) for color in ((0, 0, 255), (0, 255, 0)))
    assert blue.max() < green.min() and len(blue) > 20 and len(green) > 20


def test_the_scan_is_drawn_from_above_with_left_on_the_left():
    above = np.zeros((80, 40, 3), np.uint8)
    preview.dot(
        above, np.array([[20.0, 5, 0, 1], [39.9, 0, 0, 1], [99, 0, 0, 1], [-5, 0, 0, 1]]), (255, 0, 0)
    )
    assert {tuple(spot) for spot in np.argwhere(above[..., 0])} == {(39, 10), (0, 20)}


def test_anomalies_are_marked_and_normal_frames_are_not():
    rows = {row.title: row.tiles for row in preview.anovox_rows(tiny_sample())}
    marked = {
        title: [(tile == preview.MARK).all(axis=2).any() for tile, _ in tiles]
        for title, tiles in rows.items()
    }
    normal = marked.pop("normal: no anomaly")
    assert normal and not any(normal)
    assert sum(map(len, marked.values())) >= 4
    assert all(all(found) for found in marked.values())


def test_people_stand_in_the_order_of_the_ages_of_the_table(ultrasound):
    rows = preview.ultrasound_rows(ultrasound)
    ages = read_age_table(ultrasound / "TA" / "characteristics.xlsx").ages
    captions = [caption for row in rows if row.title.startswith("TA, healthy") for _, caption in row.tiles]
    shown = [float(caption.split()[0]) for caption in captions]
    assert shown == sorted(shown) and len(shown) == 12
    for caption in captions:
        years, name = caption.split(" years, anon_")
        assert float(years) == pytest.approx(ages[name], abs=0.05)
    assert {row.title.split(", from")[0] for row in rows} == {
        "TA, healthy",
        "TA, pathological",
        "BB, healthy",
    }
