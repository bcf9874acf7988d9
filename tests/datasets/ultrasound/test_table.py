"""Tables as labs have them: found headers and sheets, encodings, decimal commas, units, codes for unknown."""

import argparse
import contextlib
import json
import re
import zipfile
from datetime import datetime

import openpyxl
import pandas as pd
import pytest

from datasets.ultrasound import sheets
from datasets.ultrasound.cells import visit_id
from datasets.ultrasound.flags import add_data_arguments
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.sheets import find_sheet
from datasets.ultrasound.table import read_rows
from tests.ultrasound_flags import data_arguments
from utils.run.errors import CommandError, DataError


def write_book(path, **sheets):
    """Sheets as keyword arguments: name=rows; a name that ends in _hidden is a hidden sheet."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name.removesuffix("_hidden"))
        for row in rows:
            sheet.append(row)
        if name.endswith("_hidden"):
            sheet.sheet_state = "hidden"
    book.save(path)
    return path


def read(path, cohort="healthy", **flags):
    args = data_arguments(**flags)
    return read_rows(find_sheet(path, cohort, args), args)


PEOPLE = [["Number", "Age"], [1, 20.5], [2, 30]]
AGES = {"1": 20.5, "2": 30.0}


def test_rows_above_the_header_are_passed_over_and_named(tmp_path):
    titled = [["Muscle study, St. Somewhere", None], [None, None], *PEOPLE]
    for path in (write_book(tmp_path / "t.xlsx", Sheet1=titled), tmp_path / "t.csv"):
        if path.suffix == ".csv":
            path.write_text("Muscle study, St. Somewhere\n\nNumber;Age\n1;20.5\n2;30\n")
        table = read(path)
        assert table.rows.age.to_dict() == AGES
        assert "header in row 3, 1 rows above not read" in table.problems.notes[0]
    published = [
        ["Study 7"],
        ["Healthy", None, None, "Pathological"],
        ["Number", "Age", None, "Number", "Age"],
    ]
    path = write_book(tmp_path / "p.xlsx", Blad1=[*published, [1, 20.5, None, 1, 60], [2, 30, None, 3, 61]])
    assert read(path).rows.age.to_dict() == AGES
    assert read(path, "pathological").rows.age.to_dict() == {"1": 60.0, "3": 61.0}


def test_a_header_row_can_be_named(tmp_path):
    path = write_book(
        tmp_path / "t.xlsx", A=[["Number", "Age"], ["old", "old"], ["Number", "Age"], [1, 20.5]]
    )
    assert read(path, header_row=3).rows.age.to_dict() == {"1": 20.5}
    with pytest.raises(CommandError, match="--header_row 9"):
        read(path, header_row=9)


def test_the_sheet_with_the_columns_is_found_or_listed(tmp_path):
    notes = [["probe 12 MHz"], [None], ["x"]]
    table = read(write_book(tmp_path / "a.xlsx", Notes=notes, Demographics=PEOPLE))
    assert table.rows.age.to_dict() == AGES
    assert "Demographics" in table.problems.notes[0]
    assert read(write_book(tmp_path / "b.xlsx", Old_hidden=PEOPLE[:2], New=PEOPLE)).rows.age.to_dict() == AGES
    hidden = read(write_book(tmp_path / "c.xlsx", Old_hidden=PEOPLE, New=notes))
    assert hidden.rows.age.to_dict() == AGES and "sheet Old is hidden" in hidden.problems.notes[1]
    default = write_book(tmp_path / "d.xlsx", Blad1=notes, Data=PEOPLE)  # the first sheet in Dutch
    assert read(default).rows.age.to_dict() == AGES
    both = read(write_book(tmp_path / "e.xlsx", Blad2=PEOPLE[:2], Blad1=PEOPLE))
    assert both.rows.age.to_dict() == AGES and "not Blad2 (--sheet)" in both.problems.notes[0]
    path = write_book(tmp_path / "c.xlsx", One=PEOPLE, Two=PEOPLE[:2], Three_hidden=notes)
    with pytest.raises(DataError) as caught:
        read(path)
    for text in ("3 sheets, several with", "One (Number, Age)", "Three (hidden, probe 12 MHz)", "--sheet"):
        assert text in str(caught.value)
    assert read(path, sheet="Two").rows.age.to_dict() == {"1": 20.5}
    with pytest.raises(DataError, match="no sheet 'Four'; there are One, Two, Three"):
        read(path, sheet="Four")


def test_only_the_sheet_that_is_read_must_be_within_the_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(sheets, "MAX_ROWS", 60)
    wide = [["Number", "Age", *[None] * 2100, "end"], [1, 40]]
    for other in (wide, [["log"], *([k] for k in range(60))]):
        path = write_book(tmp_path / "t.xlsx", Other=other, Blad1=PEOPLE)
        assert read(path).rows.age.to_dict() == AGES
        for book, flags in ((path, {"sheet": "Other"}), (write_book(tmp_path / "u.xlsx", Other=other), {})):
            with pytest.raises(DataError, match="sheet Other: .* rows and .* columns .limits 60"):
                read(book, **flags)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("sep=;\nNumber;Age\n1;20.5\n2;30\n", "utf-8"),
        ("Number\tAge\tName\n1\t20.5\tZo\u00eb\n2\t30\tRen\u00e9\n", "utf-8"),
        ("Number,Age,Name\n1,20.5,Zo\xeb\n2,30,Ren\xe9\n", "cp1252"),
        ("Number,Age,\u59d3\u540d\n1,20.5,\u5f20\u4f1f\n2,30,\u738b\u82b3\n", "gbk"),
        ("Number;Age\r\n1;20,5\r\n2;30\r\n", "utf-16"),
        ('"Number"|"Age"\n"1"|"20.5"\n"2"|"30"\n', "utf-8"),
        ('"Number"\t"Age"\n"1"\t"20.5"\n"2"\t"30"\n', "utf-8"),
        ("\ufeff\ufeffNumber,Age\n1,20.5\n2,30\n", "utf-8"),
        ("Study,MUS-1\nCohort,Pathological\nNumber,Age\n1,20.5\n2,30\n", "utf-8"),
        ('Number,Age,Note\n1,20.5,"y; z"\n2,30,"a, b; c"\n', "utf-8"),
    ],
)
def test_text_of_other_programs(tmp_path, content, encoding):
    path = tmp_path / "t.xlsx"  # the content counts, not the ending
    path.write_bytes(content.encode(encoding))
    table = read(path)
    assert table.rows.age.to_dict() == AGES
    assert any(encoding in note for note in table.problems.notes) == (encoding != "utf-8")


def test_an_encoding_in_doubt_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("Number,Age,Name\n1,20,Zo\xeb\n2,30,\xc4\xd6\n".encode("cp1252"))
    with pytest.raises(DataError, match="encoding is not UTF-8"):
        read(path)


def test_strict_open_xml_is_read(tmp_path):
    plain = write_book(tmp_path / "plain.xlsx", Blad1=PEOPLE)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "strict.xlsx", "w") as new:
        for name in old.namelist():
            part = old.read(name)
            part = part.replace(b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
                                b"http://purl.oclc.org/ooxml/spreadsheetml/main")  # fmt: skip
            part = part.replace(b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
                                b"http://purl.oclc.org/ooxml/officeDocument/relationships")  # fmt: skip
            new.writestr(name, part)
    assert read(tmp_path / "strict.xlsx").rows.age.to_dict() == AGES


def test_other_spreadsheets_are_named(tmp_path):
    for name, content, words in (
        ("t.xls", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "an old .xls workbook"),
        ("t.ods", {"content.xml": "<x/>"}, "OpenDocument"),
        ("t.xlsx", {"a.txt": ""}, "a zip archive, not a workbook"),
    ):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                for member, text in content.items():
                    archive.writestr(member, text)
        with pytest.raises(DataError, match=words) as caught:
            read(tmp_path / name)
        assert "ave it as .xlsx" in str(caught.value)


def test_ids_and_names_however_they_are_written(tmp_path):
    rows = [
        ["Patienten\u2011ID", "Age\n(years)"],
        [12.0, 20],
        ["13.0", 30],
        ["001", 40],
        ["Mu\u0308ller", 50],
    ]
    path = write_book(tmp_path / "t.xlsx", A=rows)
    ages = read(path, id_column="patienten\u2011id", age_column="Age (years)").rows.age.to_dict()
    assert ages == {"12": 20.0, "13": 30.0, "001": 40.0, "M\u00fcller": 50.0}
    with pytest.raises(DataError) as caught:
        read(path, id_column="Patienten\u2011ID")
    assert "--age_column 'Age (years)'" in str(caught.value)  # on one line: it can be pasted
    names = write_book(tmp_path / "n.xlsx", A=[["Number", "A\u0308ge"], [1, 20]])
    assert read(names, age_column="\u00c4ge").rows.age.to_dict() == {"1": 20.0}


def test_an_old_workbook_is_no_zip_archive(tmp_path, monkeypatch):
    """Without xlrd: what it would return, for content that begins like an .xls."""
    book = pd.ExcelFile(write_book(tmp_path / "t.xlsx", Sheet1=PEOPLE))
    monkeypatch.setattr(sheets.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(sheets.pd, "ExcelFile", lambda content, engine: book)
    (tmp_path / "t.xls").write_bytes(sheets.OLE_MAGIC + bytes(600))
    assert read(tmp_path / "t.xls").rows.age.to_dict() == AGES


def test_decimal_commas_where_they_can_not_be_thousands(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Number;Age\n1;62,667\n2;30\n3;7,5\n")
    table = read(path)
    assert table.rows.age.to_dict() == {"1": 62.667, "2": 30.0, "3": 7.5}
    assert "decimal commas" in table.problems.notes[0]
    path.write_text("Number;Age\n1;12,345\n2;9,876\n")  # days: 12345 or 12.345?
    with_doubt = read(path, target_unit="days")
    assert len(with_doubt.problems.found["bad_ages"]) == 2
    assert read(path).rows.age.to_dict() == {"1": 12.345, "2": 9.876}  # nobody is 12345 years old
    path.write_text("Number;Age\n1;62,6\n2;30.5\n")
    assert read(path).problems.found["bad_ages"] == [
        ("not a number (write a decimal point)", "row 2, column B (subject 1), '62,6'")
    ]
    path.write_text("Number;Age\n1;62,6\n2;k.A.\n3;05. Mrz\n4;30\n5;12.03.1990\n")
    table = read(path, missing_values=["k.A."])
    assert table.rows.age.to_dict() == {"1": 62.6, "4": 30.0} and len(table.problems.found["bad_ages"]) == 2


def test_ages_that_name_their_unit(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Number;Age\n1;079Y\n2;12 months\n3;2y 6m\n4;40\n5;730.5 d\n6;40 dogs\n")
    table = read(path)
    assert table.rows.age.to_dict() == pytest.approx({"1": 79.0, "2": 1.0, "3": 2.5, "4": 40.0, "5": 2.0})
    assert table.problems.notes == ["4 ages name their unit and are read in years"]
    assert table.problems.found["bad_ages"] == [("not a number", "row 7, column B (subject 6), '40 dogs'")]
    assert read(path, target_unit="months").rows.age.to_dict()["1"] == 948


def write_ages(path, ages):
    path.write_text("Number,Age\n" + "".join(f"{k},{age}\n" for k, age in enumerate(ages)))
    return path


def test_codes_for_unknown_are_refused_until_they_are_named(tmp_path):
    ages = [20 + k % 40 for k in range(60)]
    path = write_ages(tmp_path / "t.csv", [*ages, 999, 999, 999])
    table = read(path, target_unit="months")
    assert len(table.problems.found["far_ages"]) == 3
    assert "60" not in table.rows.age.to_dict()
    named = read(path, target_unit="months", missing_values=["999"])
    assert (named.problems.missing, len(named.rows), named.problems.report()) == (3, 60, {})
    assert len(read(path, target_unit="months", max_age=1200).rows) == 63
    once = write_ages(tmp_path / "once.csv", [*ages, 999])  # an outlier that does not repeat is no code
    assert len(read(once, target_unit="months").rows) == 61
    zeros = write_ages(tmp_path / "zeros.csv", [*(age + 300 for age in ages), 0, 0])
    assert len(read(zeros, target_unit="months").problems.found["far_ages"]) == 2
    text = write_ages(tmp_path / "text.csv", [*ages, "n/a", "N/A", -1, -1])
    assert len(read(text).problems.found["bad_ages"]) == 4
    assert read(text, missing_values=["n/a", "-1"]).problems.missing == 4


def test_a_code_for_unknown_may_have_a_unit(tmp_path):
    """As scanners export it: 000Y. What is advised for it works."""
    written = [*(f"{20 + k:03d}Y" for k in range(20)), "000Y", "000Y"]
    path = write_ages(tmp_path / "t.csv", written)
    assert "--missing_values 0;" in read(path).problems.advice["far_ages"]
    table = read(path, missing_values=["0"])
    assert (table.problems.missing, len(table.rows), table.problems.report()) == (2, 20, {})
    months = write_ages(tmp_path / "m.csv", [*range(20, 40), "999 wk", "999 wk"])  # 229.7 months
    (code,) = re.findall(
        r"--missing_values (\S+);", read(months, target_unit="months").problems.advice["far_ages"]
    )
    assert read(months, target_unit="months", missing_values=[code]).problems.missing == 2


def test_codes_that_stand_together_are_codes(tmp_path):
    """As in SPSS: 98 refused, 99 unknown."""
    ages = [18 + 37 * k % 63 for k in range(60)]

    def read_with(*more, **flags):
        return read(write_ages(tmp_path / "t.csv", [*ages, *more]), **flags).problems

    problems = read_with(98, 99, 99)
    assert len(problems.found["far_ages"]) == 3
    assert "--missing_values 98 99;" in problems.advice["far_ages"]
    assert not read_with(98, 99, 99, missing_values=["98", "99"]).found
    assert not read_with(98, 99, 99, max_age=100).found
    assert not read_with(83, 86, 88, 88).found and not read_with(98, 99).found


def test_an_old_group_beside_a_young_one_is_no_code(tmp_path):
    ages = [*range(18, 33), *range(18, 33), *range(20, 28), 65, 66, 66, 68, 70, 70, 73, 75, 75, 81]
    path = write_book(tmp_path / "t.xlsx", A=[["Number", "Age"], *enumerate(ages)])
    assert read(path).rows.age.tolist() == ages
    path = write_book(path, A=[["Number", "Age"], *enumerate([*ages, 999, 999])])
    assert len(read(path, target_unit="months").problems.found["far_ages"]) == 2


def test_a_long_tail_of_true_ages_is_no_code(tmp_path):
    students = [20, 21, 21, 22, 22] * 20 + [27, 27, 30, 30, 33, 38, 38, 41, 41]
    assert not read(write_ages(tmp_path / "t.csv", students)).problems.found["far_ages"]


def test_rows_that_say_the_same_are_one_and_others_are_told_apart(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Number,Age,Visit\n1,20,a\n1,20,b\n2,30,a\n2,31.5,b\n")
    table = read(path)
    assert table.rows.age.to_dict() == {"1": 20.0}
    assert table.problems.found["duplicate_ids"] == [
        ("", "column A: '2' in row 4 (age 30), row 5 (age 31.5)")
    ]
    visits = read(path, visit_column="visit")
    assert visits.rows.age.to_dict() == {
        "1 visit a": 20.0,
        "1 visit b": 20.0,
        "2 visit a": 30.0,
        "2 visit b": 31.5,
    }


def test_rows_of_other_events_say_nothing_of_an_age(tmp_path):
    """As REDCap exports a study: the age is asked once, and every event has a row."""
    rows = "".join(f"{k},baseline,{20 + k}\n{k},scan,\n" for k in range(1, 9))
    (tmp_path / "t.csv").write_text(f"Number,event,Age\n{rows}")
    told = read(tmp_path / "t.csv").problems
    assert set(told.found) == {"bad_ages", "duplicate_ids"} and "bad_ages" not in {
        *filter(told.advice.get, told.advice)
    }
    table = read(tmp_path / "t.csv", exclude=["bad_ages", "duplicate_ids"])
    assert table.rows.age.to_dict() == {str(k): 20.0 + k for k in range(1, 9)}


@pytest.mark.parametrize(
    ("form", "ends", "apart", "warned"),
    [
        ("{}{}", "LR", 0, True),
        ("{}{}", ("_v1", "_v2"), 1.5, True),
        ("{}{}", "LR", 30, False),
        ("{1}{0:02}", ("TA", "BB", "GM"), 0, True),
        ("{1}_{0}", "LR", 0, True),
        ("{1}_{0}", "PC", 0.5, False),  # cases and their controls of about the same age
        ("P{}_{}_TA", "LR", 0, True),
        ("p{}_img{}.png", "012", 0, True),
        ("site {1} no {0}", "12", 7, False),
    ],
)
def test_ids_of_one_person_are_warned_of(tmp_path, caplog, form, ends, apart, warned):
    people = [
        (form.format(k, end), 20 + 3 * k + apart * n) for k in range(1, 20) for n, end in enumerate(ends)
    ]
    read(write_book(tmp_path / "t.xlsx", Sheet1=[["Number", "Age"], *people]))
    assert ("one person? A split must not divide" in caplog.text) == warned


def test_few_people_of_many_ids_are_warned_of(tmp_path, caplog):
    people = [(f"P{k}-{n}", 30 + 9 * k) for k in range(4) for n in range(6)]
    read(write_book(tmp_path / "t.xlsx", Sheet1=[["Number", "Age"], *people]))
    assert "such as P0-0 and P0-1: are they one person?" in caplog.text


@pytest.mark.parametrize(
    ("ages", "dates", "said"),
    [
        ((33, 33), ("2018-01-03", "2023-01-03"), "33, 33 of 'P': do they fit the visits?"),
        ((38, 33), ("20180103", "20230103"), "38, 33 of 'P': do they fit the visits?"),
        ((33, 38), ("2018-01-03", "2023-06-03"), ""),
        ((33, 33), ("2018-01-03", "2018-12-03"), ""),
        ((33, 36), ("1", "2"), ""),
        ((5, 64), ("1", "2"), "5, 64 of 'P': is it one person?"),
    ],
)
def test_ages_that_no_person_has_are_warned_of(tmp_path, caplog, ages, dates, said):
    rows = "".join(f"P,{age},{date}\n" for age, date in zip(ages, dates, strict=True))
    (tmp_path / "t.csv").write_text(f"Number,Age,Visit\n{rows}Q,50,2018-01-03\n")
    read(tmp_path / "t.csv", visit_column="Visit")
    assert said in caplog.text and bool(said) == bool(caplog.text)


@pytest.mark.parametrize("cell", [110101199001010007, 1.10101199001010e17, "1.10101E+17", "1,1E+17"])
def test_ids_that_a_spreadsheet_program_has_rounded_are_refused(tmp_path, cell):
    table = read(write_book(tmp_path / "t.xlsx", A=[["Number", "Age"], [cell, 20], ["12E3", 30], [10.0, 40]]))
    assert [*table.rows.index] == ["12E3", "10"] and "has rounded the id" in table.problems.found["bad_ids"][
        0
    ][0]


def test_decimals_in_a_column_of_their_own_are_warned_of(tmp_path, caplog):
    path = tmp_path / "t.csv"
    for header, end, warned in (
        ("Notes", "", 1),
        ("Notes,More", ",", 1),
        ("BMI", "1", 0),
        ("Notes,Sex", ",M", 0),
    ):
        rows = "".join(f"{k},{20 + k},{k % 10}{end}\n" for k in range(30))
        path.write_text(f"Number,Age,{header}\n{rows}")
        caplog.clear()
        read(path)
        assert ("did decimal commas split the ages?" in caplog.text) == warned


@pytest.mark.parametrize(
    ("names", "unit", "rest", "refused"),
    [
        (("GA_weeks", "GA_days"), "weeks", 6, True),
        (("Age (years)", "Age (months)"), "years", 11, True),
        (("Age", "Age months"), "years", 11, True),
        (("Age years", "Age months"), "years", 240, False),  # the same ages in another unit
        (("Age", "Months since onset"), "years", 11, False),
        (("Age months", "Age years"), "months", 6, False),
    ],
)
def test_the_rest_of_an_age_in_another_column_is_refused(tmp_path, names, unit, rest, refused):
    rows = "".join(f"{k},{20 + k},{rest - k}\n" for k in range(6))
    (tmp_path / "t.csv").write_text(f"Number,{','.join(names)}\n{rows}")
    with (
        pytest.raises(DataError, match="Write both into one column") if refused else contextlib.nullcontext()
    ):
        read(tmp_path / "t.csv", age_column=names[0], target_unit=unit)


def test_a_decimal_comma_that_splits_its_cell_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Number,Age\n1,20,5\n2,30,25\n")  # read by columns: 20 and 30 years
    with pytest.raises(DataError, match="more cells than the header in row 2, 3\n"):
        read(path)
    path.write_text("exported, with, commas\nNumber,Age\n1,20.5,,\n2,30,,\n")
    assert read(path).rows.age.to_dict() == AGES


def test_a_column_that_names_another_unit_is_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Number,Age (months)\n1,20.5\n2,30\n")
    with pytest.raises(CommandError, match="names months, .* is years\nPass --target_unit months"):
        read(path, age_column="age (months)")
    assert read(path, age_column="age (months)", target_unit="months").rows.age.to_dict() == AGES
    others = [
        "Alter in Monaten",
        "ageMonths",
        "Alter.Monate",
        "\u5e74\u9f84\uff08\u6708\uff09",
        "Age [mo] at scan",
        "agemonths",
        "AGEINMONTHS",
        "age.mo.t1",
        "Age mos PMA",
        "Alter (Mon.)",
    ]
    for name in others:
        path.write_text(f"Number,{name}\n1,20.5\n2,30\n")
        with pytest.raises(CommandError, match="names months"):
            read(path, age_column=name)
    for name in ("Age at 6 months", "Age (memo at scan)", "agem", "age_demo"):
        path.write_text(f"Number,{name}\n1,20.5\n2,30\n")
        assert read(path, age_column=name).rows.age.to_dict() == AGES


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("Months", 20.5),
        ("age_mths", 20.5),
        ("age_months_corrected", 20.5),
        ("Age (months, corrected)", 20.5),
        ("Age", "[months]"),
        ("\u6708\u9f84", 20.5),
    ],
)
def test_a_unit_is_found_wherever_a_column_names_it(tmp_path, name, first):
    path = write_book(tmp_path / "t.xlsx", A=[["Number", name], ["a", first], [1, 20.5], [2, 30]])
    with pytest.raises(CommandError, match="names months"):
        read(path, age_column=name)
    assert read(path, age_column=name, target_unit="months").rows.age["2"] == 30
    for years in ("Age in years (6 months on)", "Age on the day of the scan", "Age years", "Age (years)"):
        read(write_book(path, A=[["Number", years], [1, 20.5]]), age_column=years)


@pytest.mark.parametrize("unit", ["AGEU", "Age unit", "Age_Units", "Unit", "UoM", "\u5355\u4f4d"])
def test_a_column_of_units_counts(tmp_path, unit):
    """As in CDISC's DM: AGE 6, AGEU MONTHS."""
    path = write_book(tmp_path / "t.xlsx", A=[["Number", "AGE", unit], [1, 6, "MONTHS"], [2, 30, "Years."]])
    assert read(path).rows.age.to_dict() == {"1": 0.5, "2": 30}
    assert read(path, target_unit="months").rows.age.to_dict() == {"1": 6, "2": 360}
    assert read(path, missing_values=["6"]).problems.missing == 1
    others = [
        ["Number", "Age", "Unit", "Duration unit"],
        [1, 20.5, "ward D", "months"],
        [2, 30, "D", "months"],
    ]
    assert read(write_book(path, A=others)).rows.age.to_dict() == AGES
    others = [["Number", "Age", "Duration", "Unit"], [1, 20.5, 7, "months"], [2, 30, 8, "months"]]
    assert read(write_book(path, A=others)).rows.age.to_dict() == AGES
    others = [["Number", "FU unit", "FU", "Age"], [1, "months", 7, 20.5], [2, "months", 8, 30]]
    assert read(write_book(path, A=others)).rows.age.to_dict() == AGES
    others = [["Number", "Age", "Sex"], [1, 20.5, "M"], [2, 30, "M"]]
    assert read(write_book(path, A=others)).rows.age.to_dict() == AGES
    for header in (["Number", "Unit", "Age"], ["Number", "Sex", "Units of age", "Age"]):
        rows = [[k, *"F" * (len(header) - 3), unit, 6] for k, unit in enumerate(["months", "years"])]
        assert read(write_book(path, A=[header, *rows])).rows.age.to_dict() == {"0": 0.5, "1": 6}


@pytest.mark.parametrize(("units", "named"), [("months", "months"), ("gestational weeks", "weeks")])
def test_the_unit_in_the_json_beside_a_table_of_bids_counts(tmp_path, units, named):
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tage\nsub-1\t20.5\nsub-2\t30\n")
    for content in ("[]", '{"age": 7, "sex": {"Levels": {}}}', '{"age": {"Units": "year"}}'):
        path.with_suffix(".json").write_text(content)
        assert read(path).rows.age.to_dict() == {"sub-1": 20.5, "sub-2": 30.0}
    for about in ({"Units": units}, {"Description": f"age of the baby in {named} (whole ones)"}):
        path.with_suffix(".json").write_text(json.dumps({"age": about}))
        with pytest.raises(CommandError, match=f"its .json: 'age .*' names {named}, .* is years\nPass"):
            read(path)
    assert read(path, target_unit=named).rows.age["sub-2"] == 30
    path.with_suffix(".json").write_text("{")
    with pytest.raises(CommandError, match="participants.json is not JSON"):
        read(path)


def test_the_first_unit_that_a_name_has_is_proposed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Number,GA (weeks+days)\n1,31+4\n2,30+0\n")
    with pytest.raises(CommandError, match="Pass --target_unit weeks"):
        read(path, age_column="GA (weeks+days)")
    assert read(path, age_column="GA (weeks+days)", target_unit="weeks").rows.age["2"] == 30


def test_digits_behind_a_point_that_may_be_a_smaller_unit_are_refused(tmp_path):
    path, name = tmp_path / "t.csv", "GA (weeks.days)"
    flags = {"age_column": name, "target_unit": "weeks"}
    path.write_text(f"Number,{name}\n1,25.3\n2,31\n3,n/a\n")
    with pytest.raises(DataError, match="25.3 in .* may be 25 weeks and 3 days\nWrite 25w 3d"):
        read(path, **flags)
    for written in ("25w 3d", "25+3"):
        path.write_text(f"Number,{name}\n1,{written}\n2,31\n")
        assert read(path, **flags).rows.age.to_dict() == pytest.approx({"1": 25 + 3 / 7, "2": 31})
    path.write_text(f"Number,{name}\n1,25.429\n2,31.5\n")  # these are decimals
    assert read(path, **flags).rows.age.to_dict() == {"1": 25.429, "2": 31.5}
    flags["age_column"] = "GA"
    for digits, refused in (("0123456", True), ("0123457", False), ("05", False)):
        path.write_text(
            "Number,GA\n" + "".join(f"{k},{20 + k % 9}.{digits[k % len(digits)]}\n" for k in range(30))
        )
        with pytest.raises(DataError, match="may be 21 weeks") if refused else contextlib.nullcontext():
            read(path, **flags)


def test_letters_that_may_be_sexes_are_no_units(tmp_path):
    path = tmp_path / "t.csv"
    for ages in (["45M", "34W", "50 m"], ["45M", "34F", "50"], ["45M", "34 M.", "50"]):
        path.write_text("Number,Age\n" + "".join(f"{k},{age}\n" for k, age in enumerate(ages)))
        table = read(path)
        assert set(table.rows.age) <= {50.0} and "may be a sex" in str(table.problems.found["bad_ages"])
    path.write_text("Number,Age\n1,6M\n2,12 m\n")
    assert read(path, target_unit="months").rows.age.to_dict() == {"1": 6.0, "2": 12.0}
    path.write_text("Number,Age\n1,006M\n2,012Y\n")
    assert read(path).rows.age.to_dict() == {"1": 0.5, "2": 12.0}


@pytest.mark.parametrize("pair", [("P7", "p7"), ("007", "7"), ("P-07", "P7"), ("P 7", "P_7")])
def test_ids_of_one_person_in_two_spellings_are_warned_of(tmp_path, caplog, pair):
    people = [["Number", "Age", "File"], *([name, 20, f"{k}.png"] for k, name in enumerate([*pair, "71"]))]
    read(write_book(tmp_path / "t.xlsx", A=people), file_column="File")
    assert f"2 ids differ only in capitals, marks or leading zeros, such as {pair[0]!r}" in caplog.text
    caplog.clear()
    others = [["Number", "Age"], *([name, 20] for name in ("1-12", "11-2", "A7", "B7", "7", "70", "A-1-7"))]
    read(write_book(tmp_path / "t.xlsx", A=others))
    assert not caplog.text


def test_groups_in_other_capitals_are_one(tmp_path):
    rows = [["Number", "Age", "Site"], [1, 20.5, "Turin"], [2, 30, "turin "]]
    table = read(write_book(tmp_path / "t.xlsx", A=rows), group_column="Site")
    assert table.rows.group.tolist() == ["Turin", "Turin"]
    assert table.problems.notes == ["column C: capitals are ignored"]


def test_a_mistyped_unit_is_refused_and_others_are_free(capsys):
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)

    def unit(text):
        return parser.parse_args(["--target_unit", text]).target_unit

    assert [unit(text) for text in ("weeks", "Month", "yrs", "trimesters", "stage")] == [
        "weeks", "months", "years", "trimesters", "stage"]  # fmt: skip
    for typed, meant in (("mnths", "months"), ("Yeras", "years"), ("dyas", "days")):
        with pytest.raises(SystemExit):
            unit(typed)
        assert f"--target_unit: '{typed}': did you mean {meant}?" in capsys.readouterr().err


def test_weeks_and_days_and_units_of_other_languages(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Number;Age\n1;31+4\n2;30w2d\n")
    assert read(path, target_unit="weeks").rows.age.to_dict() == pytest.approx(
        {"1": 31 + 4 / 7, "2": 30 + 2 / 7}
    )
    path.write_text("Number;Age\n1;20 Jahre\n2;30\u5c81\n", encoding="utf-8")
    assert read(path).rows.age.to_dict() == {"1": 20.0, "2": 30.0}


def test_codes_inside_a_wide_range_of_ages(tmp_path):
    ages = list(range(20, 90, 2))  # quartiles so far apart that 0 and 110 are within three ranges of them
    for code in (0, 110):
        path = write_ages(tmp_path / "t.csv", [*ages, code, code])
        table = read(path)
        assert [reason.split(",")[0] for reason, _ in table.problems.found["far_ages"]] == [str(code)] * 2
        assert f"--missing_values {code}" in table.problems.advice["far_ages"]
    images = tmp_path / "files.csv"  # three images of one old person are no code
    images.write_text("Number,Age,F\n" + "".join(f"{k},{a},{k}.png\n" for k, a in enumerate(ages)))
    with images.open("a") as file:
        file.write("".join(f"old,110,{k}.png\n" for k in "abc"))
    assert not read(images, file_column="F").problems.report()
    far = read(write_ages(tmp_path / "far.csv", [*ages, 999]), target_unit="months")
    assert "one age is far from all others: row 37, column B (subject 35), 999" in far.problems.notes[0]
    unborn = read(write_ages(tmp_path / "one.csv", [*(f"{age:03d}Y" for age in ages), "000Y"])).problems
    assert "one age is far from all others: row 37, column B (subject 35), 0" in unborn.notes[-1]


def test_each_age_that_is_none_has_its_reason(tmp_path):
    path = write_ages(tmp_path / "t.csv", [240, 300, 600])
    table = read(path)
    assert {reason for reason, _ in table.problems.found["bad_ages"]} == {"not an age in years (0 to 120)"}
    with pytest.raises(
        DataError, match="--missing_values names what .* --target_unit the unit of the others"
    ):
        table.problems.refuse(table.rows)
    assert read(path, target_unit="months").rows.age.to_dict()["0"] == 240
    found = read(write_ages(path, ["4_5", "6_1", "1950-03-01", ">89", "20-29"])).problems.found["bad_ages"]
    assert [reason for reason, _ in found] == ["not a number"] * 5
    thousands = read(write_ages(path, ["22.411", "8.285"]), target_unit="days")
    assert "point may separate thousands" in str(thousands.problems.found["bad_ages"])
    months = read(write_ages(path, ["948", "1.020"]), target_unit="months")
    assert "may separate thousands: write whole months" in str(months.problems.found["bad_ages"])
    path.write_text("Number,Age,Unit\n1,12.345,days\n2,8.285,days\n")
    thousands = read(path, target_unit="days")
    assert "point may separate thousands" in str(thousands.problems.found["bad_ages"])
    for unit, decimals in (("months", ["948", "1.020", "11.250"]), ("years", ["1.020", "11"])):
        assert read(write_ages(path, decimals), target_unit=unit).rows.age.min() == 1.02
    write_ages(path, [20, "n/a", -9, ""])
    assert read(path, missing_values=["-9", "n/a"]).problems.missing == 2


def test_columns_are_proposed_together_by_what_people_call_them(tmp_path):
    for header, flags in (
        ("ID,Age [y]", "--id_column ID --age_column 'Age [y]'"),
        ("\u7f16\u53f7,\u5e74\u9f84", "--id_column '\u7f16\u53f7' --age_column '\u5e74\u9f84'"),
        ("Name,Alter", "--id_column Name --age_column Alter"),
    ):
        path = tmp_path / "t.csv"
        path.write_bytes(f"{header}\n1,20\n2,30\n".encode("utf-16-le"))  # without its mark
        with pytest.raises(DataError) as caught:
            read(path)
        assert f"Did you mean {flags}?" in str(caught.value)
    path.write_text("Number,Age\n1,20\n")
    with pytest.raises(DataError, match="no column 'Datei'\nFound: Number, Age.\nName it with"):
        read(path, file_column="Datei")  # nor is the column of ages proposed for it
    (tmp_path / "~$t.xlsx").write_bytes(b"\x05user" + bytes(50))
    with pytest.raises(DataError, match="the file is not text"):
        read(tmp_path / "~$t.xlsx")


def test_sex_and_body_mass_index(tmp_path):
    path = tmp_path / "t.csv"
    rows = "1,20,180,81,m\n2,30,1.60,80,F\n3,40,160,8,F\n4,50,,,\n5,60,1e300,70,\n6,70,0,70,\n"
    rows += '7,80,"180,5","81,2",\n8,85,-1.8,80,\n'
    path.write_text(f"Number,Age,Length (cm),Weight,Sex\n{rows}")
    people = [(row.sex, row.bmi) for row in read(path).rows.itertuples()]
    assert people == [
        ("M", "25 to 30"),
        ("F", "30 and above"),
        ("F", ""),
        *[("", "")] * 3,
        ("", "18.5 to 25"),
        ("", ""),
    ]


def test_what_pandas_takes_for_blanks_is_what_somebody_wrote(tmp_path):
    """In a workbook as in a file of text: NA may be a person or a site, and n/a an age that --missing_values
    names."""
    rows = [["NA", 20, "NA"], ["null", 30, "EU"], ["3", "n/a", "EU"], ["4", "NaN", "EU"], ["5", None, "EU"]]
    (tmp_path / "t.csv").write_text(
        "\n".join(",".join(str(c or "") for c in row) for row in [["Number", "Age", "Site"], *rows])
    )
    for path in (write_book(tmp_path / "t.xlsx", A=[["Number", "Age", "Site"], *rows]), tmp_path / "t.csv"):
        table = read(path, group_column="Site", missing_values=["n/a", "NaN"])
        assert table.rows.age.to_dict() == {"NA": 20.0, "null": 30.0} and table.rows.group.tolist() == [
            "NA",
            "EU",
        ]
        assert table.problems.missing == 2
        ((reason, place),) = table.problems.found["bad_ages"]
        assert reason.startswith("the age is empty or a spreadsheet error") and "subject 5" in place


def test_visits_however_they_are_written(tmp_path):
    rows = [["Number", "When", "Age"], [1, 1, 20], [1, "02", 21], [2, datetime(2020, 3, 5), 30]]
    assert visit_id("20200305") == visit_id("2020-03-05") == visit_id(20200305) == "2020-03-05"
    table = read(write_book(tmp_path / "t.xlsx", A=rows), visit_column="When")
    assert table.rows.age.to_dict() == {"1 visit 1": 20.0, "1 visit 2": 21.0, "2 visit 2020-03-05": 30.0}


def test_a_column_may_be_called_healthy(tmp_path):
    rows = [["Number", "Age", "Healthy"], [1, 20.5, "yes"], [2, 30, "no"]]
    path = write_book(tmp_path / "t.xlsx", A=rows)
    assert read(path).rows.age.to_dict() == AGES
    with pytest.raises(DataError, match="no cohort is named there, but --cohort is pathological"):
        read(path, "pathological")


def test_ids_that_are_formulas_are_named(tmp_path):
    table = read(write_book(tmp_path / "t.xlsx", A=[["Number", "Age"], ["=ROW()-1", 20], ["=ROW()-1", 30]]))
    assert [reason[:9] for reason, _ in table.problems.found["bad_ids"]] == ["a formula"] * 2


def test_numbers_in_cells_for_dates_are_called_so(tmp_path):
    path = write_book(tmp_path / "t.xlsx", A=PEOPLE)
    book = openpyxl.load_workbook(path)
    book["A"]["B2"].number_format, book["A"]["B3"].number_format = "yyyy-mm-dd", "[h]:mm"
    book.save(path)
    assert [reason[:27] for reason, _ in read(path).problems.found["bad_ages"]] == [
        "a date or a time, not an ag"
    ] * 2


def test_rows_of_one_age_in_two_groups_name_the_groups(tmp_path):
    path = write_book(tmp_path / "t.xlsx", A=[["Number", "Age", "Site"], [1, 20, "A"], [1, 20, "B"]])
    ((_, place),) = read(path, group_column="Site").problems.found["duplicate_ids"]
    assert place == "column A: '1' in row 2 (age 20, A), row 3 (age 20, B)"


def test_ids_in_full_width_digits_are_digits(tmp_path):
    path = write_book(tmp_path / "t.xlsx", A=[["Number", "Age"], ["\uff11", 20.5], ["\uff10\uff12", 30]])
    assert read(path, numeric_ids=True).rows.age.to_dict() == AGES


def test_merged_cells_of_an_id_are_named(tmp_path):
    rows = [["Number", "Age", "File"], [1, 20, "a.png"], [None, 21, "b.png"]]
    table = read(write_book(tmp_path / "t.xlsx", A=rows), file_column="File")
    assert "merged cells" in table.problems.found["bad_ids"][0][0]


def test_a_wide_table_is_read(tmp_path):
    """As REDCap exports it, with hundreds of columns."""
    path = tmp_path / "t.csv"
    wide = [[f"c{k}" for k in range(600)], ["x"] * 600, ["y"] * 600]
    path.write_text(
        "".join(",".join(map(str, [*row, *rest])) + "\n" for row, rest in zip(PEOPLE, wide, strict=True))
    )
    assert read(path).rows.age.to_dict() == AGES


def test_hidden_rows_are_counted(tmp_path):
    path = write_book(tmp_path / "t.xlsx", A=[*PEOPLE, [3, 40], [None, None]])
    book = openpyxl.load_workbook(path)
    for row in (3, 4, 5, 6):
        book["A"].row_dimensions[row].hidden = True
    book.save(path)
    table = read(path)
    assert len(table.rows) == 3 and "2 hidden rows are read too" in table.problems.notes[0]


def test_advice_does_not_name_what_was_typed_or_cannot_help(tmp_path):
    (tmp_path / "t.csv").write_text("Number,Age,Visit\n1,20,1\n1,21,1\n2,,1\n3,30,1\n")
    table = read(tmp_path / "t.csv", visit_column="Visit")
    with pytest.raises(DataError) as error:
        table.problems.refuse(table.rows)
    assert "(name each visit once" in str(error.value) and "--missing_values" not in str(error.value)


@pytest.mark.parametrize("other", ["30", ""])
def test_advice_for_one_cohort_is_given_whatever_the_other_holds(tmp_path, other):
    problems = AgeProblems()
    for name, age in (("healthy", "abc"), ("pathological", other)):
        (tmp_path / name).write_text(f"Number,Age\n1,20\n2,{age}\n")
        problems.take(read(tmp_path / name).problems, name)
    with pytest.raises(DataError, match="--missing_values names what stands for an unknown age"):
        problems.refuse(pd.DataFrame({"subject": ["1"]}))


VISITS = "Age1 Age2, Age_V1 Age_V2, age2015 age2021, AGE1 AGE2, Age Age.1, Age Age_followup, Age FU_age"


@pytest.mark.parametrize("names", VISITS.split(", "))
def test_columns_of_ages_at_other_visits_are_warned_of(tmp_path, caplog, names):
    first, second = names.split()
    (tmp_path / "t.csv").write_text(f"Number,{first},{second}\n1,20,22\n2,30,32\n")
    read(tmp_path / "t.csv", age_column=first)
    assert f"only {first!r} is read" in caplog.text


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("Age group", (2, 3)),
        ("Age exact", (20.4, 30.5)),
        ("Age at onset", (18, 29)),
        ("Mother's age", (45, 55)),
    ],
)
def test_other_columns_with_age_in_their_name_are_not(tmp_path, caplog, name, cells):
    (tmp_path / "t.csv").write_text(f"Number,Age,{name}\n1,20,{cells[0]}\n2,30,{cells[1]}\n")
    read(tmp_path / "t.csv")
    assert not caplog.text


@pytest.mark.parametrize("column", ["5", "5.0"])
def test_numbers_may_be_the_names_of_files(tmp_path, column):
    cell = float(column) if "." in column else int(column)
    path = write_book(tmp_path / "t.xlsx", A=[["Number", "Age", "File"], ["a", 20, cell], ["b", 30, "6.0"]])
    assert [*read(path, file_column="File").rows.index] == ["5", "6.0"]


def test_cells_merged_downwards_all_have_the_value(tmp_path):
    rows = [
        ["A study"],
        ["Number", "Who", None, "V"],
        [None, "Age", "Sex"],
        [1, 20, "F", 1],
        [None, 21, None, 2],
    ]
    path = write_book(tmp_path / "t.xlsx", A=[*rows, [2, 30, "M", 1]])
    book = openpyxl.load_workbook(path)
    for area in ("A2:A3", "B2:C2", "D2:D3", "A4:A5", "C4:C5", "F1:G9", "H4:H40000"):
        book["A"].merge_cells(area)
    book.save(path)
    table = read(path, visit_column="V").rows
    assert table.age.to_dict() == {"1 visit 1": 20.0, "1 visit 2": 21.0, "2 visit 1": 30.0}
    assert table.sex.tolist() == ["F", "F", "M"]


def test_a_unit_merged_over_the_rows_counts_for_all(tmp_path):
    rows = [["Number", "Age", "Age unit"], [1, 20, "months"], [2, 30, None], [3, 42, None]]
    path = write_book(tmp_path / "t.xlsx", A=rows)
    book = openpyxl.load_workbook(path)
    book["A"].merge_cells("C2:C4")
    book.save(path)
    assert read(path).rows.age.tolist() == pytest.approx([20 / 12, 30 / 12, 42 / 12])


def test_a_table_may_begin_far_below(tmp_path):
    path = write_book(tmp_path / "t.xlsx", Notes=[["probe 12 MHz"]], Data=[*[[None]] * 70, *PEOPLE])
    assert read(path).rows.age.to_dict() == AGES


def test_months_and_weeks_of_infants_as_dicom_writes_them_are_no_sexes(tmp_path):
    months = write_ages(tmp_path / "t.csv", [f"{k:03d}M" for k in range(2, 20)])
    assert read(months).rows.age.tolist() == pytest.approx([k / 12 for k in range(2, 20)])
