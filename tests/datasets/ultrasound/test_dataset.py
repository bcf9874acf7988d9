"""The ultrasound data set: both table layouts, every kind of bad table, matching, leaks, batches."""

import itertools
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import openpyxl
import pandas
import pytest
import torch
from PIL import Image
from scipy.ndimage import laplace
from scipy.stats import skew

from datasets.ultrasound import files
from datasets.ultrasound import load as loading
from datasets.ultrasound.augmentation import augment_images
from datasets.ultrasound.cells import subject_id
from datasets.ultrasound.dataset import blank_text, read_sample
from datasets.ultrasound.load import build_datasets
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.sheets import find_sheet
from datasets.ultrasound.table import read_rows
from tests.ultrasound_flags import data_arguments
from utils.run.errors import CommandError, DataError

HEADER = ["Number", "Age", "Length", "Weight", "Sex"]


def write_published(path: Path, healthy: list, pathological: list = (), header: list | None = None) -> Path:
    """A table in the published layout; rows are (id, age)."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Blad1"
    sheet.append(["Healthy", *[None] * 5, "Pathological"])
    sheet.append([*(header or HEADER), *[None] * (6 - len(header or HEADER)), *HEADER])
    for first, rows in ((1, healthy), (7, pathological)):
        for row, (name, age) in enumerate(rows, start=3):
            sheet.cell(row, first, name)
            sheet.cell(row, first + 1, age)
    book.save(path)
    return path


def write_images(folder: Path, names: list[str], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (20, 24), dtype=np.uint8)).save(folder / f"{name}.png")


@pytest.fixture
def study(tmp_path):
    """A muscle folder with 12 healthy subjects of two images each."""
    write_images(tmp_path / "TA/Healthy/Images", [f"anon_{i}_{k}" for i in range(1, 13) for k in (1, 2)])
    write_published(tmp_path / "TA/characteristics.xlsx", [(i, 9.0 * i + 0.125) for i in range(1, 13)])
    return tmp_path / "TA"


def load(study: Path, **flags):
    flags = {"image_dir": study / "Healthy/Images", "image_size": [16, 16]} | flags
    return build_datasets(data_arguments(cache_dir=study.parent / "cache", **flags))


def read_ages(path: Path, cohort: str = "healthy", **flags) -> dict[str, float]:
    args = data_arguments(**flags)
    return read_rows(find_sheet(path, cohort, args), args).rows.age.to_dict()


def test_published_layout(tmp_path):
    path = write_published(tmp_path / "t.xlsx", [(2, 62.667), ("007", 7.5), (31.0, 8)], [(2, 20.5), (9, 30)])
    assert read_ages(path) == {"2": 62.667, "007": 7.5, "31": 8.0}
    assert read_ages(path, cohort="pathological") == {"2": 20.5, "9": 30.0}
    assert read_ages(path, numeric_ids=True) == {"2": 62.667, "7": 7.5, "31": 8.0}


def test_plain_layout_as_csv_and_xlsx(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffpatient;age at scan\n001;12.5\n1;13\n", encoding="utf-8")
    columns = {"id_column": "patient", "age_column": "age at scan"}
    assert read_ages(tmp_path / "t.csv", **columns) == {"001": 12.5, "1": 13.0}
    book = openpyxl.Workbook()
    for row in (["patient", "age at scan"], ["a1", 3], ["a2", 4.25]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    assert read_ages(tmp_path / "t.xlsx", **columns) == {"a1": 3.0, "a2": 4.25}


# The 14 kinds of RELIABILITY row 28, and what the message must say besides file and sheet.
def build_bad_tables(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    good = [(1, 20.0), (2, 30.0)]

    def published(name, rows=good, **options):
        return write_published(folder / f"{name}.xlsx", rows, **options)

    cases = {
        "missing column": (published("missing", header=["Number", "Years"]), ["row 2", "A to F", "'Age'"]),
        "renamed column": (
            published("renamed", header=["Number", "Age (y)"]),
            ["row 2", "mean --age_column 'Age (y)'"],
        ),
        "duplicate column": (published("twice", header=["Number", "Age", "Age"]), ["row 2", "B and C"]),
        "blank age": (published("blank", [(1, 20.0), (2, None)]), ["row 4, column B", "empty"]),
        "text in age": (published("text", [(1, "about 20")]), ["row 3, column B", "'about 20': not a"]),
        "negative age": (published("negative", [(1, -3)]), ["row 3, column B", "-3: not an age"]),
        "200 years": (published("old", [(1, 20), (2, 200)]), ["row 4, column B", "0 to 120"]),
        "date": (published("date", [(1, datetime(1950, 5, 1))]), ["row 3, column B", "00:00:00: a date"]),
        "formula": (published("formula", [(1, "=2026-1950")]), ["row 3, column B", "': a formula"]),
        "ids '1' and '1 '": (
            published("ids", [("001", 20), (1, 21), ("1 ", 22)]),
            ["column A: '1' in row 4", "row 5"],
        ),
        "duplicate subject": (
            published("double", [(5, 20), (6, 1), (5, 40)]),
            ["'5' in row 3 (age 20), row 5 (age 40)"],
        ),
    }
    path = published("merged")
    book = openpyxl.load_workbook(path)
    book["Blad1"].merge_cells("A2:B2")
    book.save(path)
    cases["merged header"] = (path, ["row 2", "no column 'Age'"])
    path = published("sheets")
    book = openpyxl.load_workbook(path)
    book["Blad1"].title = "data"
    book.create_sheet("notes").append(["probe 12 MHz"])
    book.save(path)
    book["data"]["A2"] = book["data"]["G2"] = "Id"
    book.save(path)
    cases["several sheets"] = (
        path,
        ["2 sheets, none with the columns Number, Age", "data (Healthy", "--sheet"],
    )
    path = folder / "page.xls"
    path.write_text("<html><table><tr><td>Number</td></tr></table></html>")
    cases["web page"] = (path, ["a web page, XML or JSON", "save it as .xlsx"])
    path = folder / "t.json"
    path.write_text('[\n  {"Number": 1, "Age": 20}]')
    cases["json"] = (path, ["a web page, XML or JSON", "save it as .xlsx"])
    path = folder / "truncated.xlsx"
    path.write_bytes(published("whole").read_bytes()[:-200])
    cases["truncated"] = (path, ["damaged or truncated"])
    path = folder / "password.xlsx"
    path.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(100) + "EncryptedPackage".encode("utf-16-le"))
    cases["password"] = (path, ["protected by a password"])
    return cases


KINDS = ("missing column", "renamed column", "duplicate column", "blank age", "text in age", "negative age",
         "200 years", "date", "formula", "ids '1' and '1 '", "duplicate subject", "merged header",
         "several sheets", "web page", "json", "truncated", "password")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_bad_tables_end_in_one_clear_error(tmp_path, kind):
    write_images(tmp_path / "images", ["anon_1_1", "anon_2_1"])
    path, expected = build_bad_tables(tmp_path)[kind]
    with pytest.raises(DataError) as caught:
        load(tmp_path, image_dir=tmp_path / "images", excel_path=path, exclude=["images_without_row"])
    message = str(caught.value)
    assert path.name in message
    assert len(message.splitlines()) <= 5
    assert ("sheet Blad1" in message) == (kind not in KINDS[-5:])
    for text in expected:
        assert text in message, message


def test_bad_rows_can_be_excluded(study):
    write_published(study / "characteristics.xlsx", [(i, 10.0 * i if i > 1 else "old") for i in range(1, 13)])
    with pytest.raises(DataError, match=r"--exclude bad_ages"):
        load(study)
    data = load(study, exclude=["bad_ages"])
    assert data.report["left_out"]["bad_ages"]["count"] == 1
    assert "1" not in [name for part in data.parts.values() for name in part.subjects]


def test_hostile_workbooks_are_refused_quickly(tmp_path):
    far = tmp_path / "far.xlsx"
    write_published(far, [(1, 20)])
    book = openpyxl.load_workbook(far)
    book["Blad1"]["XFD1048576"] = 1
    book.save(far)
    with pytest.raises(DataError, match="1,048,576 rows"):
        read_ages(far)

    def repack(name, member, text):
        plain = zipfile.ZipFile(write_published(tmp_path / "plain.xlsx", [(1, 20)]))
        with plain as old, zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as new:
            for part in old.namelist():
                new.writestr(part, text if part == member else old.read(part))
        return tmp_path / name

    sheet = "xl/worksheets/sheet1.xml"
    with pytest.raises(DataError, match="unpacks to"):
        read_ages(repack("bomb.xlsx", sheet, b"0" * 60_000_000))
    laughs = b"".join(
        b'<!ENTITY a%d "%s">' % (k, b"&a%d;" % (k - 1) * 20 if k else b"ha" * 20) for k in range(9)
    )
    entities = b'<?xml version="1.0"?><!DOCTYPE x [%s]><worksheet><sheetData>' % laughs
    entities += b'<row r="1"><c r="A1" t="inlineStr"><is><t>&a8;</t></is></c></row></sheetData></worksheet>'
    with pytest.raises(DataError, match="damaged or truncated workbook"):
        read_ages(repack("entities.xlsx", sheet, entities))
    # A sheet that hides its size: the reading itself is bounded.
    row = b'<row r="900000"><c r="A900000"><v>1</v></c></row>'
    hidden = (
        b'<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    )
    hidden += b"<sheetData>" + row + b"</sheetData></worksheet>"
    with pytest.raises(DataError, match="empty"):
        read_ages(repack("hidden.xlsx", sheet, hidden))
    book = openpyxl.load_workbook(tmp_path / "plain.xlsx")
    book["Blad1"].cell(40_000, 1_000, 1)
    book.save(tmp_path / "wide.xlsx")
    with pytest.raises(DataError, match="40,000 rows and 1,000 columns"):
        read_ages(tmp_path / "wide.xlsx")


def test_ids():
    assert [subject_id(cell) for cell in ("001", 1, 1.0, " 1 ", "a-7")] == ["001", "1", "1", "1", "a-7"]
    assert subject_id("001", numeric=True) == "1"
    for cell in (None, " ", 1.5, True, datetime(2000, 1, 1), "1\n2"):
        with pytest.raises(ValueError, match="id"):
            subject_id(cell)
    with pytest.raises(ValueError, match="whole number"):
        subject_id("a7", numeric=True)


def test_leading_zeros_are_pointed_out(study):
    write_images(study / "Healthy/Images", ["anon_007_1"], seed=9)
    with pytest.raises(
        DataError, match=r"_1.png \('7' in the table\) \(if .* same subjects: --numeric_ids\)"
    ):
        load(study)
    assert load(study, numeric_ids=True).report["images_used"] == 25


@pytest.mark.parametrize("written", ["P{}", "sub-00{}", "p 0{}"])
def test_ids_that_the_table_writes_otherwise_are_pointed_out(study, written):
    write_published(study / "characteristics.xlsx", [(written.format(i), 9.0 * i) for i in range(1, 13)])
    with pytest.raises(DataError, match=f"looked for '1'; the table has '{written.format(1)}'"):
        load(study)
    write_published(study / "characteristics.xlsx", [(f"B{i}", 9.0 * i) for i in range(1, 13)])
    for path in (study / "Healthy/Images").iterdir():
        path.rename(path.with_name(path.name.replace("anon_", "anon_A")))
    with pytest.raises(DataError) as caught:  # other people, of another site
        load(study)
    assert "in the table" not in str(caught.value)


@pytest.mark.parametrize(
    ("own", "other"),
    [("AgeV1", "AgeV2"), ("V1 age", "V2 age"), ("Age2015", "Age2021"), ("Age (2015)", "Age (2021)"),
     ("age_v1", "age_v2"), ("age_baseline", "age_followup")],
)  # fmt: skip
def test_a_second_column_of_ages_is_warned_of(study, caplog, own, other):
    rows = "".join(f"{i},{9 * i},{9 * i + 2},V9\n" for i in range(1, 13))
    (study / "t.csv").write_text(f"Number,{own},{other},V1 EI\n{rows}")
    assert load(study, excel_path=study / "t.csv", age_column=own).report["images_used"] == 24
    assert f"of the columns '{own}' and '{other}' only '{own}' is read" in caplog.text
    caplog.clear()
    for names in ("Age at scan,BMI at scan,Sex v2", "Age at scan,Weeks at scan,Age at scan in days"):
        (study / "t.csv").write_text(f"Number,{names}\n{rows}")
        load(study, excel_path=study / "t.csv", age_column="Age at scan")
    assert "is read" not in caplog.text


def test_images_called_alike_in_two_folders_are_noted(study, tmp_path):
    """Patient 1 of one site is not patient 1 of another."""
    for site in ("Milan", "Turin"):
        write_images(
            tmp_path / "sites" / site, [f"anon_{i}_1" for i in range(1, 13)], seed=len(site) + ord(site[0])
        )
    flags = {"image_dir": tmp_path / "sites", "excel_path": study / "characteristics.xlsx"}
    (note,) = load(study, **flags).report["notes"]
    assert note.startswith("12 images are called like others of the same subject in another folder, such as ")
    shutil.rmtree(tmp_path / "sites" / "Turin")
    assert not load(study, **flags).report["notes"]


def test_what_does_not_match_is_counted_and_refused_or_excluded(study):
    write_images(study / "Healthy/Images", ["anon_99_1", "scan7"], seed=5)
    write_published(study / "characteristics.xlsx", [(i, 2.0 * i) for i in [*range(1, 13), 50]])
    with pytest.raises(DataError) as caught:
        load(study)
    message = str(caught.value)
    assert "1 image whose subject has no row: anon_99_1.png" in message
    assert "1 row whose subject has no image: 50" in message
    assert "scan7.png" in message
    with pytest.raises(DataError, match="--exclude unknown_names images_without_row rows_without_image$"):
        load(study, exclude=["rows_without_image"])  # what was typed is typed again
    data = load(study, exclude=["images_without_row", "rows_without_image", "unknown_names"])
    assert data.report["images_used"] == 24
    assert {kind: found["count"] for kind, found in data.report["left_out"].items()} == {
        "unknown_names": 1, "images_without_row": 1, "rows_without_image": 1}  # fmt: skip


def test_cohorts_are_never_merged(tmp_path):
    for seed, cohort in enumerate(("Healthy", "Pathological")):
        write_images(tmp_path / "TA" / cohort / "Images", [f"anon_{i}_1" for i in range(1, 9)], seed=seed)
    healthy, ill = ([(i, age + i) for i in range(1, 9)] for age in (20.0, 40.0))
    write_published(tmp_path / "TA" / "characteristics.xlsx", healthy, ill)
    both = load(tmp_path / "TA", cohort="both")
    age = {
        part.subjects[s]: float(a)
        for part in both.parts.values()
        for s, a in zip(part.subject_ids, part.ages, strict=True)
    }
    assert len(age) == 16
    assert (age["healthy/3"], age["pathological/3"]) == (23.0, 43.0)
    with pytest.raises(CommandError, match="these are healthy images; --cohort is pathological"):
        load(tmp_path / "TA", cohort="pathological")
    shutil.rmtree(tmp_path / "TA" / "Pathological")
    with pytest.raises(CommandError, match="Pathological/Images: no such folder"):
        load(tmp_path / "TA", cohort="both")


def test_split_is_by_subject_and_independent_of_file_order(study):
    data = load(study)
    assert [len(data.split[name]) for name in ("train", "val", "test")] == [8, 1, 3]
    assert data.leakage_check == "8 train, 1 val and 3 test subjects, none shared, no identical images"
    assert load(study).split == data.split
    assert load(study, seed=1).split != data.split
    # Another layout of the same data in time and place has the same fingerprint.
    moved = study.parent / "elsewhere"
    study.rename(moved)
    assert load(moved).fingerprint == data.fingerprint


def test_split_file_wins_and_is_checked(study, caplog):
    names = [str(i) for i in range(1, 13)]
    (study / "split.json").write_text('{"train": ["1", "2", "5"], "val": ["3"], "test": ["4"]}')
    data = load(study)
    assert data.split["test"] == ["4"]
    assert data.report["subjects_in_no_part"] == 7
    assert data.split_source == "split.json beside the table"
    assert "decides" not in caplog.text
    load(study, test_size=0.5)
    assert "split.json decides; --split_method by_subject_id uses them" in caplog.text
    drawn = load(study, split_method="by_subject_id")  # what is typed wins
    assert drawn.split_source == "by subject, drawn with seed 42"
    assert sum(map(len, drawn.split.values())) == 12
    (study / "split.json").write_text('{"train": ["1", "2"], "val": ["2"], "test": ["4"]}')
    with pytest.raises(DataError, match="both train and val: 2"):
        load(study)
    (study / "split.json").unlink()
    assert sorted(name for part in load(study).split.values() for name in part) == sorted(names)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_identical_images_of_two_subjects_are_refused(study, ending):
    images = study / "Healthy/Images"
    (images / "anon_4_2.png").unlink()
    Image.open(images / "anon_3_1.png").save(images / f"anon_4_2.{ending}", optimize=True, quality=95)
    with pytest.raises(DataError, match=rf"more than one subject: anon_3_1.png = anon_4_2.{ending}"):
        load(study)
    data = load(study, exclude=["duplicate_images"])
    assert data.report["images_used"] == 22
    Image.open(images / "anon_5_1.png").save(images / "anon_5_2.png")  # the same subject twice: noted only
    assert load(study, exclude=["duplicate_images"]).report["repeated_within_subject"] == 1


def test_a_folder_that_can_not_be_opened_is_not_passed_over(study, monkeypatch):
    (study / "Healthy/Images/3").mkdir()
    opened = os.scandir

    def closed(path="."):
        if str(path).endswith("Images/3"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(PermissionError, match="Images/3"):
        load(study)


def test_unreadable_images_are_all_listed(study):
    images = study / "Healthy/Images"
    (images / "anon_1_1.png").write_bytes(b"")
    (images / "anon_2_1.png").write_text("<html>not found</html>")
    (images / "anon_3_1.png").write_bytes((images / "anon_3_1.png").read_bytes()[:-60])
    with pytest.raises(DataError) as caught:
        load(study)
    assert "3 image files that cannot be read" in str(caught.value)
    for k in (1, 2, 3):
        assert f"anon_{k}_1.png" in str(caught.value)
    assert load(study, exclude=["unreadable_images"]).report["images_used"] == 21


def test_an_image_that_became_readable_unseen_is_not_black(study):
    path = study / "Healthy/Images/anon_1_1.png"
    good = path.read_bytes()
    for content, reason in ((bytes(len(good)), r"it begins with b'.x00"), (good, "delete it .data/cache")):
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        with pytest.raises(DataError, match=f"anon_1_1.png: not .*{reason}"):
            load(study)
    shutil.rmtree(study.parent / "cache")
    assert load(study).report["images_used"] == 24


def test_a_range_of_grey_that_most_images_exceed_is_said_first(study, caplog):
    for path in (study / "Healthy/Images").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 99 + 300).save(path)
    with pytest.raises(DataError, match="more than one subject"):
        load(study, intensity_range=[0, 255])  # all white
    assert "24 of 24 images hold values beyond [0, 255] (--intensity_range)" in caplog.text


def test_sixteen_bit_images_are_rescaled(study):
    path = study / "Healthy/Images/anon_1_1.png"
    values = np.linspace(0, 65535, 20 * 24).reshape(20, 24).astype(np.uint16)
    Image.fromarray(values).save(path)
    data = load(study, image_size=[20, 24])
    assert data.report["images_of_more_than_8_bits"] == 1
    part = next(part for part in data.parts.values() if path.name in part.files)
    grey = part.__getitems__([part.files.index(path.name)])["images"][0, 0].numpy()
    np.testing.assert_allclose(grey, values / 257, atol=1)


def test_an_excluded_image_is_not_counted_as_one_of_over_8_bits(study):
    values = np.linspace(0, 65535, 20 * 24).reshape(20, 24)
    for k, kind in ((1, np.uint16), (2, np.float32)):
        Image.fromarray(values.astype(kind)).save(study / f"Healthy/Images/anon_{k}_1.tif")
        (study / f"Healthy/Images/anon_{k}_1.png").unlink()
    with pytest.raises(DataError, match="whole numbers from 0 to 65535(?!\\.)"):
        load(study)
    data = load(study, exclude=["unreadable_images"])
    assert (data.report["images"], data.report["images_of_more_than_8_bits"]) == (23, 1)
    assert any(line.startswith("1 of 23 images have over 8 bits") for line in data.log_lines())


def test_ages_outside_the_limits_are_left_out_and_counted(study):
    data = load(study, min_age=20, max_age=105)
    assert data.report["subjects_outside_ages"] == 3
    assert min(part.ages.min() for part in data.parts.values()) >= 25
    with pytest.raises(DataError, match="9.125 to 108.125"):
        load(study, min_age=500)
    with pytest.raises(CommandError, match="--intensity_range: LOW is not below HIGH"):
        load(study, intensity_range=[9, 9])


def test_a_person_with_most_images_does_not_make_the_baseline_easy(study):
    assert len(load(study).references()["train_labels"]) == len(load(study).train)
    write_images(study / "Healthy/Images", [f"anon_12_{k}" for k in range(3, 99)], seed=3)
    split = {"train": [str(k) for k in range(3, 13)], "val": ["1"], "test": ["2"]}
    (study / "split.json").write_text(json.dumps(split))
    data = load(study)
    assert sorted(data.references()["train_labels"]) == [9.0 * k + 0.125 for k in range(3, 13)]
    assert any(
        "images, which weigh as much as those of 1.4; the baselines" in line for line in data.log_lines()
    )


def test_statistics_of_greys_are_those_of_scipy(study):
    data = load(study, image_size=[20, 24])
    grey = data.train.__getitems__([2])["images"][0, 0].numpy().astype(float)
    found = data.train.statistics()
    assert found.shape == (len(data.train), 31)
    mean, sd, skewness, *percentiles, down, right, bend = found[2, :15]
    assert (mean, sd) == pytest.approx((grey.mean(), grey.std()), rel=1e-4)
    assert skewness == pytest.approx(skew(grey.ravel()), rel=1e-4)
    assert np.allclose(percentiles, np.percentile(grey, [1, 5, 10, 25, 50, 75, 90, 95, 99]), rtol=1e-4)
    steps = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    assert (down, right) == pytest.approx(steps, rel=1e-4)
    assert bend == pytest.approx(laplace(grey)[1:-1, 1:-1].std(), rel=1e-4)
    assert np.allclose(found[2, 15:], grey.reshape(4, 5, 4, 6).mean(axis=(1, 3)).ravel(), rtol=1e-4)


def test_batches(study):
    data = load(study, image_size=[20, 24])
    batch = data.train.__getitems__([3, 0])
    assert batch["images"].shape == (2, 1, 20, 24)
    assert batch["images"].dtype == torch.uint8
    assert batch["ages"].dtype == torch.float32
    assert batch["indices"].tolist() == [3, 0]
    name = data.train.files[3]
    assert batch["ages"][0] == 9.0 * int(name.split("_")[1]) + 0.125
    assert data.train.subjects[batch["subject_ids"][0]] == name.split("_")[1]
    # Bit for bit what decoding the file gives, in all three channels.
    pixels = np.array(Image.open(study / "Healthy/Images" / name))
    for channel in batch["images"][0]:
        np.testing.assert_array_equal(channel.numpy(), pixels)
    assert torch.equal(data.train.__getitems__([3])["images"], batch["images"][:1])
    np.testing.assert_array_equal(read_sample(study / "Healthy/Images" / name, (20, 24))[0][0], pixels)


def test_blank_text():
    images = blank_text(torch.full((2, 1, 480, 504), 200, dtype=torch.uint8))
    assert images[..., 418:435, 0:149].max() == 0
    assert images[..., 473:, :].max() == 0
    assert images[..., :400, :].min() == 200
    assert (images == 200).float().mean() > 0.94


def test_arguments(study, tmp_path):
    for options, words in (
        ({"id_pattern": "("}, "no regular expression"),
        ({"id_pattern": "anon"}, "0 groups"),
        ({"split_method": "random"}, "--split_method random"),
        ({"min_age": 9, "max_age": 3}, "--min_age 9 is above --max_age 3"),
        ({"excel_path": study / "caracteristics.xlsx"}, "did you mean .*characteristics.xlsx"),
        ({"excel_path": study}, "is a folder; --excel_path is the table"),
        ({"image_dir": study / "characteristics.xlsx"}, "is a file; give the folder"),
    ):
        with pytest.raises(CommandError, match=words):
            load(study, **options)
    with pytest.raises(CommandError, match=r"did you mean .*Images"):
        load(study, image_dir=study / "Healthy/Image")
    with pytest.raises(CommandError, match="did you mean"):
        load(study, image_dir=study, excel_path=study / "characteristics.xlsx")


def test_real_images(real, tmp_path):
    """HC18 in this layout: 592 images of 484 exams, ages in weeks; the probe's text lies inside the bands."""
    folder = real / "ultrasound_hc18"
    data = build_datasets(
        data_arguments(image_dir=folder / "Healthy/Images", excel_path=folder / "characteristics.xlsx",
                       target_unit="weeks", image_size=[16, 16], cache_dir=tmp_path))  # fmt: skip
    assert data.report["images_used"] == 592
    assert sum(map(len, data.split.values())) == 484
    assert 11 < data.train.ages.min() < data.train.ages.max() < 42
    for path in sorted((real / "ultrasound_ta_probe/TA/Healthy/Images").glob("*.png"))[:6]:
        grey = torch.from_numpy(read_sample(path, (480, 504))[0])
        assert (grey[:, 405:450, :150] > 200).any()
        assert (blank_text(grey.clone())[:, 405:450, :150] > 215).sum() == 0


def test_brightness_keeps_its_order_over_images_of_different_depth(study):
    """One depth for all: 12-bit and 13-bit maxima must not give each image its own gain."""
    noise = np.random.default_rng(0)
    for k in range(1, 13):
        for view in (1, 2):
            values = (3000 + 250 * k + noise.integers(0, 400, (20, 24))).astype(np.uint16)
            Image.fromarray(values).save(study / f"Healthy/Images/anon_{k}_{view}.png")
    data = load(study)
    assert data.intensity_range == [0, 8191]
    assert data.describe()["intensity_range"] == [0, 8191]
    assert any("0 is black and 8191 white" in line for line in data.log_lines())
    ages = np.concatenate([part.ages for part in data.parts.values()])
    means = np.concatenate([
        part.__getitems__(range(len(part)))["images"].float().mean((1, 2, 3)).numpy()
        for part in data.parts.values()
    ])  # fmt: skip
    assert np.corrcoef(ages, means)[0, 1] > 0.999
    resolved = load(study, intensity_range=[0.0, 8191.0])  # as --config and --resume read the flag
    assert resolved.train.decoded.path == data.train.decoded.path
    typed = load(study, intensity_range=[3000, 6000])
    assert typed.report["images_cut"] == 4
    assert typed.train.__getitems__([0])["images"].max() <= 255


def test_the_depth_is_that_of_the_train_images(study):
    split = {"train": [str(k) for k in range(1, 9)], "val": ["9"], "test": ["10", "11", "12"]}
    (study / "split.json").write_text(json.dumps(split))
    for k in range(1, 13):
        values = np.full((20, 24), 900 if k < 10 else 60000, np.uint16)
        values[0, 2 * k :] = 0
        Image.fromarray(values).save(study / f"Healthy/Images/anon_{k}_1.png")
    data = load(study)
    assert data.intensity_range == [0, 1023]
    assert data.report["images_cut"] == 3


def test_the_depth_is_that_of_the_train_images_that_are_left(study):
    """Without an unreadable subject the random split is another one, and so is who needs how many bits."""
    options = {"exclude": ["unreadable_images"]}
    first = set(load(study).split["train"])
    for path in (study / "Healthy/Images").glob("anon_1_*"):
        path.write_bytes(b"")
    second = set(load(study, **options).split["train"])
    for bright, depth in ((min(first - second - {"1"}), 1023), (min(second - first), 4095)):
        rng = np.random.default_rng(0)
        for k in range(2, 13):
            for view in (1, 2):
                values = rng.integers(0, 4000 if str(k) == bright else 1000, (20, 24)).astype(np.uint16)
                Image.fromarray(values).save(study / f"Healthy/Images/anon_{k}_{view}.png")
        data = load(study, **options)
        assert set(data.split["train"]) == second and data.intensity_range == [0, depth]
        again = load(study, **options, intensity_range=data.intensity_range)  # as evaluate.py reads them
        assert again.hashes == data.hashes and again.train.decoded.path == data.train.decoded.path
        assert again.report == data.report


def test_colour_is_counted_and_kept_where_asked(study):
    path = study / "Healthy/Images/anon_1_1.png"
    pixels = np.zeros((20, 24, 3), np.uint8)
    pixels[5:9, :, 0] = 200
    Image.fromarray(pixels).save(path)
    Image.fromarray(np.repeat(np.arange(24, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2)).save(
        study / "Healthy/Images/anon_2_1.png"
    )  # three equal channels are no colour
    data = load(study, image_size=[20, 24])
    assert data.report["images_with_colour"] == 1
    assert any("1 images show colour" in line and "--colour" in line for line in data.log_lines())
    data = load(study, image_size=[20, 24], colour=True)
    part = next(part for part in data.parts.values() if path.name in part.files)
    batch = part.__getitems__([part.files.index(path.name)])
    np.testing.assert_array_equal(batch["images"][0].permute(1, 2, 0).numpy(), pixels)
    turned = augment_images(batch["images"], batch["indices"], 1, seed=0, rotation=0, jitter=0, flip=False)
    torch.testing.assert_close(turned, batch["images"].float() / 255)


def test_angle_brightness_contrast_and_side_are_drawn_apart_within_their_limits():
    """Read off discs of two grey values, the brighter one to the right of the centre, on black."""
    images = torch.zeros(400, 1, 41, 41, dtype=torch.uint8)
    images[:, 0, 18:23, 30:35] = 200
    how = {"seed": 0, "rotation": 10.0, "jitter": 0.0, "flip": True}
    found = augment_images(images, torch.arange(400), 1, **how)[:, 0]
    rows, columns = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    x, up = ((found * place).sum((1, 2)) / found.sum((1, 2)) for place in (columns, -rows))
    angle, right = torch.rad2deg(torch.atan2(up, x.abs())), x > 0
    assert 9 < angle.max() < 10.5 and -10.5 < angle.min() < -9 and 0.4 < right.float().mean() < 0.6
    plain = torch.tensor([100, 150], dtype=torch.uint8).repeat(400, 1, 4, 2)
    how |= {"rotation": 0.0, "jitter": 0.2, "flip": False}
    found = augment_images(plain, torch.arange(400), 1, **how).double().flatten(1) * 255
    brightness = found.mean(dim=1) / 125
    contrast = found.std(dim=1, correction=0) / 25 / brightness
    for factor in (brightness, contrast):
        assert 0.8 <= factor.min() < 0.82 and 1.18 < factor.max() <= 1.2 + 1e-6
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.2


def test_unread_endings_are_named_and_more_formats_are_read(study):
    images = study / "Healthy/Images"
    for k, ending in enumerate((".webp", ".PNG", ".gif"), start=1):
        (images / f"anon_{k}_1.png").rename(images / "x.png")
        Image.open(images / "x.png").save(images / f"anon_{k}_1{ending}", **{"lossless": True})
        (images / "x.png").unlink()
    (images / "anon_4_3.nii").write_bytes(b"x")
    (images / "anon_5_3.nii").write_bytes(b"x")
    (images / "._anon_5_1.png").write_bytes(b"of a file manager")
    (images / "old").mkdir()
    Image.new("L", (8, 8)).save(images / "old/anon_6_9.png")
    data = load(study)
    assert data.report["images_used"] == 24
    (line,) = [line for line in data.log_lines() if "not read:" in line]
    assert "3 files" in line
    assert "2 .nii, 1 .png in subfolders" in line


def test_excluding_most_images_is_asked_twice(study):
    write_published(study / "characteristics.xlsx", [(i, 9.0 * i) for i in (1, 2, 3, 4, 5)])
    with pytest.raises(DataError, match=r"leaves 10 of 24 images: 14 images whose subject has no row"):
        load(study, exclude=["images_without_row"])
    data = load(study, exclude=["images_without_row"], exclude_more_than_half=True)
    assert data.report["images_used"] == 10


def test_check_data_lists_all_problems_at_once(study):
    images = study / "Healthy/Images"
    write_published(study / "characteristics.xlsx", [(i, 9.0 * i if i > 1 else "?") for i in range(1, 13)])
    write_images(images, ["scan7"], seed=5)
    (images / "anon_3_1.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(study, check_data=True)
    for line in ("1 row without a usable age", "1 image file whose name", "1 image file that cannot be read"):
        assert line in str(caught.value)


def test_check_data_tells_why_nothing_can_be_split(study):
    """Who is left out for what is wrong is told before that too few are left."""
    write_published(study / "characteristics.xlsx", [(i, 9.0 if i == 1 else "?") for i in range(1, 13)])
    with pytest.raises(DataError, match="11 rows without a usable age"):
        load(study, check_data=True)


def test_names_without_an_id_are_said_once_with_the_flag_that_finds_it(study):
    images = study / "Healthy/Images"
    for path in images.iterdir():
        path.rename(images / path.name.replace("anon_", "P").replace("_", "-"))
    write_published(study / "characteristics.xlsx", [(f"P{i}", 9.0 * i) for i in range(1, 13)])
    with pytest.raises(DataError) as caught:
        load(study)
    message = str(caught.value)
    assert "24 image files whose name holds no subject id" in message
    assert message.count("anon_") == 1
    assert "--id_pattern tells where the id is, as '^([^_]+)_' in ID_1.png" in message
    assert "--exclude" not in message  # it would leave nothing
    assert load(study, id_pattern="^([^-]+)-").report["images_used"] == 24


def test_images_of_several_cohorts_are_not_read_as_one(study, tmp_path):
    """Patients of both cohorts and of each muscle have the same ids."""
    with pytest.raises(CommandError, match="did you mean .*TA/Healthy/Images"):
        load(study, image_dir=tmp_path, excel_path=study / "characteristics.xlsx")
    for i in range(1, 13):
        write_images(tmp_path / f"tree/{i}/Images", ["1"], seed=i)
    assert (
        load(study, image_dir=tmp_path / "tree", excel_path=study / "characteristics.xlsx").report["images"]
        == 12
    )


def test_images_in_subfolders_that_are_not_read_are_said_to_be_missed(study):
    (study / "Healthy/Images/new").mkdir()
    for name in ("anon_1_1.png", "anon_1_2.png"):
        (study / "Healthy/Images" / name).rename(study / "Healthy/Images/new" / name)
    with pytest.raises(DataError, match=r"has no image: 1 \(2 files of .* 2 .png in subfolders\)"):
        load(study)


def test_a_row_is_a_visit(study):
    images = study / "Healthy/Images"
    rows = [f"{i},v{k},{9 * i + k}" for i in range(1, 13) for k in (1, 2)]
    (study / "visits.csv").write_text("id,when,Age\n" + "\n".join(rows))
    for path in images.iterdir():
        path.rename(images / path.name.replace("anon_", "").replace("_", "_v"))
    flags = {"excel_path": study / "visits.csv", "id_column": "id", "visit_column": "when"}
    data = load(study, id_pattern=r"^(\d+)_(v\d)$", **flags)
    for part in data.parts.values():
        for file, age, subject in zip(part.files, part.ages, part.subject_ids, strict=True):
            name, visit = file.removesuffix(".png").split("_v")
            assert age == 9 * int(name) + int(visit)
            assert part.subjects[subject] == name
    assert [len(names) for names in data.split.values()] == [8, 1, 3]
    with pytest.raises(CommandError, match="has 1 groups; with --visit_column two are needed"):
        load(study, id_pattern=r"^(\d+)_v\d$", **flags)


def test_a_row_is_an_image(study):
    images = study / "Healthy/Images"
    names = sorted(path.name for path in images.iterdir())
    rows = [f"{name if k % 3 else name[:-4]},S{k // 2},{20 + k}" for k, name in enumerate(names)]
    (study / "files.csv").write_text("picture,Number,Age\n" + "\n".join([*rows, "gone.png,S1,50"]))
    flags = {"excel_path": study / "files.csv", "file_column": "picture"}
    with pytest.raises(DataError, match=r"1 row whose subject has no image: gone.png"):
        load(study, **flags)
    data = load(study, exclude=["rows_without_image"], **flags)
    assert data.report["images_used"] == 24
    part = data.train
    for file, age, subject in zip(part.files, part.ages, part.subject_ids, strict=True):
        k = names.index(file)
        assert (age, part.subjects[subject]) == (20 + k, f"S{k // 2}")


def test_files_of_one_name_are_told_apart_by_the_folders_that_are_asked_for(study):
    images = study / "Healthy/Images"
    for path in images.iterdir():
        _, subject, k = path.stem.split("_")
        (images / subject).mkdir(exist_ok=True)
        path.rename(images / subject / f"{k}.png")
    people = [(i, k) for i in range(1, 13) for k in (1, 2)]
    flags = {"excel_path": study / "t.csv", "file_column": "File"}
    (study / "t.csv").write_text("Number,Age,File\n" + "".join(f"{i},{9 * i},{k}.png\n" for i, k in people))
    with pytest.raises(DataError, match="column C: '1.png' in row 2 .* each image with its folders"):
        load(study, **flags)
    rows = "".join(f"{i},{9 * i},{i}/{k}.png\n" for i, k in people)
    (study / "t.csv").write_text(f"Number,Age,File\n{rows}")
    assert load(study, **flags).report["images_used"] == 24


@pytest.mark.parametrize("there", ["D:\\export\\{}\\1.png", "/nas/us/{}/1.PNG", "us/{}/1", "{}/1"])
def test_a_row_names_its_file_by_the_path_on_another_machine(study, there):
    for i in range(1, 13):
        write_images(study / f"us/{i}", ["1"], seed=i)
    rows = "".join(f"{i},{9 * i},{there.format(i)}\n" for i in range(1, 13))
    (study / "t.csv").write_text(f"Number,Age,File\n{rows}")
    for folder in ("us", "."):
        if folder == ".":
            shutil.rmtree(study / "Healthy")
        data = load(study, image_dir=study / folder, excel_path=study / "t.csv", file_column="File")
        assert data.report["images"] == 12


def test_one_folder_per_subject(tmp_path):
    for i in range(1, 13):
        write_images(tmp_path / f"sub-{i:02d}/anat", [f"sub-{i:02d}_us"], seed=i)
    rows = "\n".join(f"sub-{i:02d}\t{20 + i}" for i in range(1, 13))
    (tmp_path / "participants.tsv").write_text(f"participant_id\tage\n{rows}\n")
    data = load(tmp_path, image_dir=tmp_path)
    assert data.report["images_used"] == 12
    assert set(data.train.subjects) <= {f"sub-{i:02d}" for i in range(1, 13)}
    assert load(tmp_path, image_dir=tmp_path, id_pattern=r"^(sub-\d+)/anat/").split == data.split


def test_whole_groups_are_held_out(study):
    rows = [f"{i},{9 * i},site {i % 6}" for i in range(1, 13)]
    (study / "t.csv").write_text("Number,Age,Site\n" + "\n".join(rows))
    flags = {"excel_path": study / "t.csv", "group_column": "Site"}
    data = load(study, split_by="group", **flags)
    sites = {name: set(part.groups["group"]) for name, part in data.parts.items()}
    assert not sites["train"] & sites["test"]
    assert not sites["train"] & sites["val"]
    assert data.describe()["split_method"] == "by Site, drawn with seed 42"
    assert load(study, **flags).describe()["split_method"] == "by subject, drawn with seed 42"
    folds = [load(study, split_by="group", fold=f"{k}/3", **flags) for k in (1, 2, 3)]
    tested = [set(fold.parts["test"].groups["group"]) for fold in folds]
    assert sorted(site for sites in tested for site in sites) == [f"site {k}" for k in range(6)]
    assert set(folds[0].val.groups["group"]) == tested[1]
    with pytest.raises(CommandError, match="needs --group_column"):
        load(study, split_by="group")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "2 groups (f, m) cannot be split"),
        ({"fold": "1/2"}, "The train part is empty: 12 subjects, split by Sex, --fold 1/2"),
        ({"fold": "1/3"}, "2 groups make at most 2 folds"),
    ],
)
def test_two_groups_can_not_be_held_out_whole(study, how, said):
    rows = [f"{i},{9 * i},{'mf'[i % 2]}" for i in range(1, 13)]
    (study / "t.csv").write_text("Number,Age,Sex\n" + "\n".join(rows))
    flags = {"excel_path": study / "t.csv", "group_column": "Sex"}
    with pytest.raises(DataError, match=re.escape(said)):
        load(study, split_by="group", **how, **flags)
    assert set(load(study, split_by="group", test_size=0.0, **flags).parts) == {"train", "val"}
    assert load(study, split_by="subject", fold="1/3", **flags).parts


def test_dicom_without_its_reader_is_one_line(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for path in (study / "Healthy/Images").iterdir():
        path.rename(path.with_suffix(".dcm"))
    with pytest.raises(CommandError, match="pip install pydicom"):
        load(study)
    for path in (study / "Healthy/Images").iterdir():  # scanners write names without an ending
        path.with_suffix("").write_bytes(bytes(128) + b"DICM")
        path.unlink()
    with pytest.raises(CommandError, match="no images .*to read DICOM run: pip install pydicom"):
        load(study)


def test_images_that_all_have_one_id_are_called_so(study):
    """As PatientID is when somebody has removed the names."""
    (study / "t.csv").write_text("Number,Age\nanon,30\n")
    flags = {"excel_path": study / "t.csv", "id_pattern": "^(anon)_"}
    with pytest.raises(DataError, match="all 24 images are of one subject, 'anon': is this its id"):
        load(study, **flags)


def test_a_stray_dicom_file_makes_no_table_of_headers(study):
    (study / "characteristics.xlsx").unlink()
    (study / "Healthy/Images/report.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(CommandError, match=r"characteristics\.xlsx: no such table.*\n.*--excel_path"):
        load(study)


def test_names_that_can_mean_one_row_only_are_matched(study):
    write_published(study / "characteristics.xlsx", [(f"P{i}", 9.0 * i) for i in range(1, 13)])
    images = study / "Healthy/Images"
    names = sorted(path.name for path in images.iterdir())
    for name in names:
        (images / name).rename(images / name.replace("anon_", "anon_p"))
    data = load(study)
    assert data.report["images_used"] == 24
    assert any("in other capitals: p10 for P10" in note for note in data.report["notes"])
    names = [name.replace("anon_", "anon_p")[:-4] for name in names]
    rows = [f"D:/scans/{name}.dcm,{k},{20 + k}" for k, name in enumerate(names)]
    (study / "f.csv").write_text("file,Number,Age\n" + "\n".join(rows))  # as they were called before
    assert load(study, excel_path=study / "f.csv", file_column="file").report["images_used"] == 24
    (study / "f.csv").write_text((study / "f.csv").read_text().replace("anon_", "ANON_"))
    assert load(study, excel_path=study / "f.csv", file_column="file").report["images_used"] == 24


def test_flags_for_visits_are_named(study):
    images = study / "Healthy/Images"
    for path in images.iterdir():
        path.rename(images / path.name.replace("anon_", "S").replace("_", "_v"))
    rows = [f"S{i},{k},{9 * i + k}" for i in range(1, 13) for k in (1, 2)]
    (study / "t.csv").write_text("Number,Visit,Age\n" + "\n".join(rows))
    flags = {"excel_path": study / "t.csv"}
    with pytest.raises(DataError, match="if a row is a visit: --visit_column and an --id_pattern"):
        load(study, **flags)
    with pytest.raises(DataError, match="with --visit_column where the visit is, as"):
        load(study, visit_column="Visit", **flags)
    data = load(study, visit_column="Visit", id_pattern=r"^([^_]+)_v(\d+)", **flags)
    assert data.report["images_used"] == 24
    assert len(set(data.train.ages)) == len(data.train)


def test_images_of_few_greys_are_noted(study):
    """As when 12 bits are saved in the 16 bits of a colour channel."""
    faint = np.random.default_rng(0).integers(0, 15, (20, 24), dtype=np.uint8)
    Image.fromarray(faint).save(study / "Healthy/Images/anon_3_1.png")
    assert "1 images span less than 16 of 256 greys: anon_3_1.png" in load(study).report["notes"]


def test_an_image_that_shows_nothing_is_noted(study, caplog):
    Image.new("L", (40, 30), 7).save(study / "Healthy/Images/anon_3_1.png")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save(study / "Healthy/Images/anon_4_mask.png")
    screen = Image.new("L", (64, 64))  # black, with a scan on a quarter of it
    screen.paste(Image.open(study / "Healthy/Images/anon_5_1.png").resize((32, 32)))
    screen.save(study / "Healthy/Images/anon_5_screen.png")
    notes = load(study).report["notes"]
    assert "1 images span less than 16 of 256 greys: anon_3_1.png" in notes
    assert "WARNING" in caplog.text and "1 images are almost entirely black and white" in caplog.text


def test_a_grey_range_that_does_not_settle_is_said(monkeypatch, caplog):
    ranges = itertools.cycle([[0.0, 1023.0], [0.0, 4095.0]])
    monkeypatch.setattr(loading, "decode_images", lambda images, *_: (images, None, next(ranges)))
    monkeypatch.setattr(loading, "judge_pixels", lambda images, *_: images[1:])
    loading.settle(pandas.DataFrame(index=range(9)), AgeProblems(), lambda images: ({}, ""), None)
    assert "--intensity_range decides it" in caplog.text


def test_nothing_is_advised_that_leaves_nothing(study):
    for path in (study / "Healthy/Images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(study)
    message = str(caught.value)
    assert (
        "24 image files that cannot be read: anon_10_1.png; anon_10_2.png; anon_11_1.png; and 21 more"
        in message
    )
    assert message.count("the file is empty") == 1
    assert "--exclude" not in message


def write_dicom(path: Path, subject: str, pixels: np.ndarray, **header) -> None:
    pydicom = pytest.importorskip("pydicom")
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = pydicom.uid.UltrasoundImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file.PatientID, (file.Rows, file.Columns) = subject, pixels.shape[:2]
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    header = {"PhotometricInterpretation": "MONOCHROME2"} | header
    for name, value in header.items():
        setattr(file, name, value)
    file.PixelData = pixels.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def test_dicom_headers_stand_for_the_table(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (12, 30, 40))
    for k in range(12):  # as scanners name them, a folder each, without an ending
        header = {"PatientAge": f"{20 + 5 * k:03d}Y", "PatientSex": "FM"[k % 2], "InstitutionName": "A"}
        write_dicom(tmp_path / f"S{k}" / "IM000001", f"P{k}", pixels[k], **header)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    data = load(tmp_path, image_dir=tmp_path, image_size=[30, 40])
    assert data.report["images_used"] == 12
    assert data.intensity_range == [0, 4095]
    part = data.train
    for row, subject, age, sex in zip(
        part.rows, part.subject_ids, part.ages, part.groups["sex"], strict=True
    ):
        k = int(part.subjects[subject][1:])
        assert (age, sex) == (20 + 5 * k, "FM"[k % 2])
        assert np.abs(part.decoded["pixels"][row, 0] - pixels[k] * 255 / 4095).max() <= 0.5
    sites = load(tmp_path, image_dir=tmp_path, image_size=[30, 40], group_column="InstitutionName")
    assert set(sites.train.groups["group"]) == {"A"}
    (tmp_path / "t.csv").write_text("Number,Age\n" + "\n".join(f"P{k},{30 + k}" for k in range(12)))
    other = load(tmp_path, image_dir=tmp_path, excel_path=tmp_path / "t.csv")
    assert sorted(age for part in other.parts.values() for age in part.ages) == list(range(30, 42))
    write_dicom(tmp_path / "S0" / "IM000001", "P0", 4095 - pixels[0], PatientAge="", PatientSex="F",
                PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    with pytest.raises(
        DataError, match="1 row without a usable age: .*row S0/IM000001, .*: the age is empty"
    ):
        load(tmp_path, image_dir=tmp_path)
    inverted, _ = read_sample(tmp_path / "S0" / "IM000001", [30, 40], intensity_range=[0, 4095])
    assert np.abs(inverted[0] - pixels[0] * 255 / 4095).max() <= 0.5


def read_ages_of_headers(monkeypatch, ages: list[str], names: Sequence[str] = (), **flags):
    """(the table of a folder of DICOM files with these ages, its subjects' ages); without pydicom."""
    names = names or [f"S{k}.dcm" for k in range(len(ages))]
    headers = {Path(name): {"PatientID": f"P{k}", "PatientAge": ages[k]} for k, name in enumerate(names)}
    monkeypatch.setattr(files, "list_images", lambda _: (list(headers), ""))
    monkeypatch.setattr(files, "read_dicom_header", headers.get)
    table = files.read_headers(Path(), data_arguments(**flags))
    return table, table.rows.set_index("subject").age.to_dict()


@pytest.mark.parametrize("code", ["000Y", "0", "999Y"])
def test_missing_values_are_those_of_dicom_headers_too(monkeypatch, code):
    written = "999Y" if code == "999Y" else "000Y"
    table, ages = read_ages_of_headers(monkeypatch, [written, "030Y", "040Y"], missing_values=["-1", code])
    assert ages == {"P1": 30, "P2": 40} and not table.problems.found
    assert table.problems.missing == 1 and table.left_out == {"S0.dcm"}


def test_codes_in_dicom_headers_are_refused_as_in_a_table(monkeypatch):
    real = [f"{30 + k:03d}Y" for k in range(10)]
    table, ages = read_ages_of_headers(monkeypatch, ["000Y", "000Y", *real])
    assert len(ages) == 10 and table.left_out == {"S0.dcm", "S1.dcm"}
    places = [where for _, where in table.problems.found["far_ages"]]
    assert places[0] == "row S0.dcm, column PatientAge (subject P0)" and len(places) == 2
    assert "--missing_values 0;" in table.problems.advice["far_ages"]
    table, ages = read_ages_of_headers(monkeypatch, ["", "x"])
    assert not ages and len(table.problems.found["bad_ages"]) == 2
    for written in (["", "x"], ["", ""]):
        table, _ = read_ages_of_headers(monkeypatch, written)
        with pytest.raises(DataError, match="ids and ages can stand for the headers: --excel_path"):
            table.problems.refuse(table.rows)


def test_files_of_headers_keep_their_names(monkeypatch):
    names = ["5.0", "pro\ufb01le.dcm", "\uff11.dcm"]  # without an ending, a ligature, a full-width digit
    table, _ = read_ages_of_headers(monkeypatch, ["030Y", "040Y", "050Y"], names)
    assert [*table.rows.index] == names and not table.left_out


def test_headers_that_can_not_be_read_have_one_reason(tmp_path, monkeypatch):
    def refuse(path):
        raise DataError(f"{path}: the 'DICM' prefix is missing")

    for k in range(4):
        (tmp_path / f"{k}.dcm").write_bytes(b"x")
    monkeypatch.setattr(files, "list_images", lambda folder: (sorted(folder.iterdir()), ""))
    monkeypatch.setattr(files, "read_dicom_header", refuse)
    found = files.read_headers(tmp_path, data_arguments()).problems.report()["unreadable_images"]
    assert found["first"] == "0.dcm; 1.dcm; 2.dcm; and 1 more: the 'DICM' prefix is missing"


def test_links_to_folders_are_followed_and_hidden_ones_left_alone(tmp_path):
    for i in range(1, 13):
        write_images(tmp_path / f"store/{i}", [f"scan{i}"], seed=i)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"sub-{i:02d}").symlink_to(tmp_path / f"store/{i}")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    write_images(tmp_path / "data/.git/annex", ["copy"])
    rows = "\n".join(f"sub-{i:02d}\t{20 + i}" for i in range(1, 13))
    (tmp_path / "data/participants.tsv").write_text(f"participant_id\tage\n{rows}\n")
    assert load(tmp_path, image_dir=tmp_path / "data").report["images_used"] == 12


def test_links_that_lead_nowhere_are_images_that_can_not_be_read(study):
    """As git-annex leaves what was not fetched."""
    (study / "Healthy/Images/anon_3_2.png").unlink()
    (study / "Healthy/Images/anon_3_2.png").symlink_to("../../annex/anon_3_2.png")
    with pytest.raises(DataError, match="anon_3_2.png: a link to ../../annex/anon_3_2.png, which is missing"):
        load(study)
    assert load(study, exclude=["unreadable_images"]).report["images_used"] == 23


@pytest.mark.parametrize(("known", "said"), [([0.0, 90.0], False), ([120.0, 900.0], True)])
def test_ages_unlike_those_of_the_run_are_told(study, caplog, known, said):
    """As when a table of years is judged by a run on months."""

    def choose(present):
        return {"all": list(present)}

    choose.parts, choose.dataset = {}, {"target_range": known}
    flags = {"image_dir": study / "Healthy/Images", "image_size": [16, 16], "target_unit": "months"}
    build_datasets(data_arguments(cache_dir=study.parent / "cache", **flags), choose=choose)
    told = "ages from 120 to 900, the median is 58.625 here: are they in months?" in caplog.text
    assert told == said == ("are they in" in caplog.text)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_file_of_other_names_says_so(study, part, caplog):
    split = {"train": ["1", "4", "007"], "val": ["2", "5"], "test": ["3"]}
    (study / "split.json").write_text(json.dumps(split))
    assert load(study).split == split | {"train": ["1", "4"]}
    assert "split.json: 1 of 3 train names are no subjects with an age and an image: 007" in caplog.text
    (study / "split.json").write_text("\ufeff" + json.dumps(split | {part: ["anon_6"]}))
    wanted = f"split.json: none of its {part} names is a subject .*'1'.*\\n.*by_subject_id"
    with pytest.raises(DataError, match=wanted):
        load(study)


def test_dicom_files_without_an_id_or_age_are_told_once(monkeypatch):
    headers = {Path(f"S{k}.dcm"): {"PatientID": f"P{k}", "PatientAge": f"0{30 + k}Y"} for k in range(6)}
    headers |= {Path("a.dcm"): {"PatientAge": "040Y"}, Path("b.dcm"): {}, Path("c.dcm"): {"PatientID": "P9"}}
    monkeypatch.setattr(files, "list_images", lambda _: (list(headers), ""))
    monkeypatch.setattr(files, "read_dicom_header", headers.get)
    table = files.read_headers(Path(), data_arguments())
    assert {kind: len(places) for kind, places in table.problems.found.items()} == {
        "bad_ids": 2,
        "bad_ages": 1,
    }
    assert len(table.rows) == 6 and table.left_out == {"a.dcm", "b.dcm", "c.dcm"}
