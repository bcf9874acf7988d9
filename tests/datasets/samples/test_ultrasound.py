"""The ultrasound sample: layout, determinism, the people behind it, and figures measured on the real set."""

import json

import numpy as np
import openpyxl
import pytest
from PIL import Image
from scipy.ndimage import laplace
from scipy.stats import skew

from datasets import cache
from datasets.samples.ultrasound import generate
from datasets.samples.ultrasound.image import Anatomy, render
from datasets.samples.ultrasound.people import draw_people, oracle_errors
from datasets.ultrasound.load import build_datasets
from tests.ultrasound_flags import data_arguments
from utils.run.errors import DataError

EXCLUDE = ["images_without_row", "rows_without_image"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    generate(folder, "tiny", seed=3)
    return folder


def load(folder, **flags):
    flags = {"image_dir": folder / "TA/Healthy/Images", "image_size": [40, 42]} | flags
    return build_datasets(data_arguments(cache_dir=folder / "cache", **flags))


def test_true_layout(tiny):
    sheet = openpyxl.load_workbook(tiny / "TA/characteristics.xlsx")["Blad1"]
    top, header = ([cell.value for cell in row] for row in sheet.iter_rows(max_row=2))
    assert top == ["Healthy", *[None] * 5, "Pathological", *[None] * 4]
    columns = ["Number", "Age", "Length", "Weight", "Sex"]
    assert header == [*columns, None, *columns]
    image = Image.open(sorted((tiny / "TA/Healthy/Images").glob("*.png"))[0])
    assert image.mode == "RGB"
    pixels = np.array(image)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    masks = {path.name for path in (tiny / "TA/Healthy/Masks").glob("*.png")}
    images = {path.name for path in (tiny / "TA/Healthy/Images").glob("*.png")}
    assert images - masks == {"anon_9000_1.png", "anon_9001_1.png"}
    note = json.loads((tiny / "SYNTHETIC.json").read_text())
    assert note["synthetic"] is True
    assert note["seed"] == 3


def test_loads_with_every_cohort(tiny):
    with pytest.raises(DataError, match="no row: anon_9000_1.png; anon_9001_1.png"):
        load(tiny)
    data = load(tiny, exclude=EXCLUDE)
    assert data.synthetic
    assert data.split == json.loads((tiny / "TA/split.json").read_text())
    assert data.report["left_out"]["rows_without_image"]["count"] == 6
    both = load(tiny, cohort="both", exclude=EXCLUDE)  # split.json names one cohort's ids
    assert both.split_source == "by subject, drawn with seed 42"
    assert len({name.split("/")[0] for name in sum(both.split.values(), [])}) == 2
    options = {"split_method": str(tiny / "all.json"), "cohort": "both", "exclude": EXCLUDE}
    names = sorted(p.name.split("_")[1] for p in (tiny / "TA/Pathological/Images").glob("*_1.png"))
    split = {"train": [f"pathological/{n}" for n in names[1:]], "val": [f"pathological/{names[0]}"]}
    (tiny / "all.json").write_text(json.dumps(split))
    assert load(tiny, **options).report["subjects_in_no_part"] == 16


@pytest.mark.parametrize("cores", [1, 2])
def test_same_seed_same_files_from_any_number_of_processes(cores, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "count_cores", lambda: cores)
    generate(tmp_path, "tiny", seed=3)
    for path in sorted(tiny.glob("*/*/*/*.png")) + [tiny / "SYNTHETIC.json", tiny / "TA/split.json"]:
        assert path.read_bytes() == (tmp_path / path.relative_to(tiny)).read_bytes(), path


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_people_are_those_of_the_published_set(seed):
    people = draw_people(1000, np.random.default_rng(seed))
    ages = np.array([one.age for one in people])
    assert abs(ages.mean() - 47.1) < 1.0
    assert abs(ages.std() - 21.7) < 1.0
    assert len({one.name for one in people}) == 1000
    assert 0.92 < np.mean([len(one.muscle_ages) == 3 for one in people]) < 0.96
    grown = ages >= 30
    deviations = np.array([np.mean(one.muscle_ages) for one in people]) - ages
    assert 8 < deviations[grown].std() < 9.5
    assert deviations[ages < 8].std() < 2


def test_oracle():
    people = draw_people(2000, np.random.default_rng(0))
    errors = oracle_errors(people)
    ages = np.array([one.age for one in people])
    # It beats reading the muscle age off directly; per subject it beats per image; it is far from perfect.
    raw = np.mean([abs(np.mean(one.muscle_ages) - one.age) for one in people])
    assert errors["oracle_mae_subject"] < errors["oracle_mae_image"]
    assert errors["oracle_mae_subject"] < raw
    assert 4.5 < errors["oracle_mae_subject"] < 7
    assert errors["oracle_mae_subject"] < 0.4 * errors["median_mae_subject"]
    assert errors["median_mae_subject"] == pytest.approx(np.abs(ages - np.median(ages)).mean())
    blind = oracle_errors(draw_people(2000, np.random.default_rng(0), signal=False), signal=False)
    assert blind["oracle_mae_subject"] == pytest.approx(blind["median_mae_subject"], rel=0.02)


def test_without_signal_nothing_is_shown():
    people = draw_people(500, np.random.default_rng(5), signal=False)
    shown = [np.mean(one.muscle_ages) for one in people]
    assert abs(np.corrcoef(shown, [one.age for one in people])[0, 1]) < 0.1


def test_pictures_have_the_statistics_of_the_real_ones():
    """Aims, measured on the published set: mean 69.9, SD 35-36, Laplacian variance about 460."""
    rng = np.random.default_rng(0)
    rows = []
    for age in np.linspace(4, 84, 9):
        anatomy = Anatomy(rng, age, 0.0)
        view = {"gain": 0.0, "move": (0.0, 0.0), "shade": 4.0, "septa": 0.0, "text": "TIB ANT LI", "left": 38}
        image, mask = render(anatomy, 1, muscle_age=age, **view)
        pixels = image.astype(float)
        rows.append(
            (age, pixels.mean(), pixels.std(), skew(pixels.ravel()), laplace(pixels).var(), (mask > 0).mean())
        )
    age, mean, spread, skewness, edges, share = np.array(rows).T
    assert 62 < mean.mean() < 78
    assert 30 < spread.mean() < 40
    assert 350 < edges.mean() < 560
    assert 0.07 < share.min() < share.max() < 0.36
    assert np.corrcoef(age, mean)[0, 1] > 0.5
    assert np.corrcoef(age, skewness)[0, 1] < -0.6


def test_shortcut_is_in_train_only(tiny, tmp_path):
    """In train the text's place and the gain say the age; all other pictures are the standard ones."""
    generate(tmp_path, "tiny_shortcut", seed=3)
    train = json.loads((tmp_path / "TA/split.json").read_text())["train"]
    for path in sorted(tiny.glob("*/*/Images/*.png")):
        name = path.relative_to(tiny)
        told = name.parts[:2] == ("TA", "Healthy") and path.name.split("_")[1] in train
        copied = "anon_9" in path.name  # of one of the first two subjects
        same = path.read_bytes() == (tmp_path / name).read_bytes()
        assert copied or same != told, name
