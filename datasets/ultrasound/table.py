"""The table of an ultrasound data set: who is how old, from a workbook or a file of text.

Two layouts are read. The published one has two header rows and two cohorts side by side on sheet Blad1,

    |   | A       | B   | C      | D      | E   | F | G            | H   | ...
    | 1 | Healthy |     |        |        |     |   | Pathological |     |
    | 2 | Number  | Age | Length | Weight | Sex |   | Number       | Age | ...
    | 3 | 2       | 62.667 | ...

and a plain one has a single header row with columns named by --id_column and --age_column; rows above it,
such as a title, are passed over and named in the log. The two cohorts count their patients separately:
Healthy 12 and Pathological 12 are two people. Ids are text ('001' and '1' are two people too) unless
--numeric_ids. A row is a subject, with --visit_column a visit, with --file_column an image. Nothing is
repaired: what can be read in one way only is read, the rest is refused with file, sheet, row and column.
"""

import argparse
import shlex
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from openpyxl.utils import get_column_letter

from datasets.ultrasound.files import DICOM_ENDINGS, IMAGE_ENDINGS, similar_path
from datasets.ultrasound.flags import data_arguments
from datasets.ultrasound.header import (
    check_unit,
    choose_sheet,
    cut_cohort,
    find_columns,
    find_header,
    find_traits,
)
from datasets.ultrasound.values import (
    OLDEST,
    bmi_class,
    find_codes,
    has_decimal_commas,
    one_line,
    parse_age,
    same_value,
    show,
    subject_id,
)
from utils.run.errors import CommandError, DataError

Key = str | tuple[str, str]  # a subject, (subject, visit) or a file
Problems = defaultdict[str, list[tuple[str, str]]]  # kind -> (reason, where), one for each row or file


class Row(NamedTuple):
    """A usable row. group is "" without --group_column; sex and bmi where the table does not say."""

    subject: str
    age: float
    group: str = ""
    sex: str = ""
    bmi: str = ""


@dataclass
class AgeTable:
    """One cohort. A key is what an image is found by: its subject, (subject, visit) or its file."""

    where: str  # "FILE, sheet Blad1, Healthy"
    rows: dict[Key, Row] = field(default_factory=dict)
    problems: Problems = field(default_factory=lambda: defaultdict(list))
    advice: dict[str, str] = field(default_factory=dict)  # what mends a kind of problem
    left_out: set[Key] = field(default_factory=set)  # keys that are there but not in rows
    missing: int = 0  # rows whose age is one of --missing_values
    notes: list[str] = field(default_factory=list)  # how it was read, where that is not obvious

    @property
    def ages(self) -> dict[Key, float]:
        """{key: age in --target_unit}."""
        return {key: row.age for key, row in self.rows.items()}


def read_age_table(
    path: str | Path, cohort: str = "healthy", args: argparse.Namespace | None = None
) -> AgeTable:
    """Read one cohort of a table by the flags in `args` (default: those of `data_arguments()`).

    Rows that give no usable id and age are not in `rows` but under `problems`, of kind bad_ids, bad_ages,
    far_ages, bad_groups or duplicate_ids (every row of such an id): the caller refuses or excludes them.
    Raises DataError when the file is not a table of this kind, CommandError when it does not exist.
    """
    args, path = args or data_arguments(), Path(path)
    if not path.is_file():
        raise CommandError(f"{path}: no such table{similar_path(path)}\nPass the table with --excel_path.")
    id_column = args.id_column
    if path.name == "participants.tsv" and id_column == "Number":
        id_column = "participant_id"  # as BIDS calls it
    asked = {"--id_column": id_column, "--age_column": args.age_column} | {
        flag: name
        for flag in ("--visit_column", "--file_column", "--group_column")
        if (name := getattr(args, flag[2:]))
    }
    sheet, cells, notes = choose_sheet(path, asked, args)
    table = AgeTable(f"{path}, sheet {sheet}" if sheet else str(path), notes=notes)
    header_at = find_header(cells, asked, args, table.where, notes)
    cells, name = cut_cohort(cells, header_at, cohort, table.where)
    header, body = cells.iloc[0], cells.iloc[1:]
    at = find_columns(asked, header, table.where)
    check_unit(one_line(header[at["--age_column"]]), args.target_unit, table.where)
    wider = body.loc[:, header.last_valid_index() + 1 :].notna().any(axis=1)
    if not sheet and wider.any():
        raise DataError(
            f"{table.where}, row {body.index[wider][0]} and {wider.sum() - 1} more have more cells than the "
            "header\nIs the decimal comma of a number taken for the end of a cell? Save it as .xlsx, or with "
            "decimal points; a column needs a name."
        )
    body = body[body[[at["--id_column"], at["--age_column"]]].notna().any(axis=1)]  # of this cohort
    table.where += f", {name}" if name else ""
    if body.empty:
        raise DataError(
            f"{table.where}: no rows below the header in row {header.name}\nOne row per subject is expected."
        )
    _read_rows(header, body, at, table, args)
    return table


def _read_rows(
    header: pd.Series, body: pd.DataFrame, at: dict[str, int], table: AgeTable, args: argparse.Namespace
) -> None:
    """Fill rows, problems and left_out from the cells below the header."""
    letters = {flag: get_column_letter(column + 1) for flag, column in at.items()}
    commas = has_decimal_commas(body[at["--age_column"]], args.target_unit)
    at = at | find_traits(header)
    problems, converted = table.problems, 0
    found: dict[Key, list[tuple[int, Row | None]]] = defaultdict(list)  # row number and Row of each key
    unusable: list[object] = []  # what stands for an age
    for number, cells in zip(body.index, body[list(at.values())].to_numpy(), strict=True):
        cell = dict(zip(at, cells, strict=True))
        flag = "--id_column"
        try:
            subject = key = subject_id(cell[flag], args.numeric_ids)
            if "--visit_column" in cell:
                key = (subject, subject_id(cell[flag := "--visit_column"]))
            if "--file_column" in cell:
                key = file_key(subject_id(cell[flag := "--file_column"]))
        except ValueError as error:
            place = f"row {number}, column {letters[flag]}{show(cell[flag])}"
            problems["bad_ids"].append((str(error), place))
            continue
        group, age_cell, row = cell.get("--group_column"), cell["--age_column"], None
        if "--group_column" in cell and group is None:
            place = f"row {number}, column {letters['--group_column']}"
            problems["bad_groups"].append(("the group is empty", place))
        elif any(same_value(age_cell, value) for value in args.missing_values):
            table.missing += 1
        else:
            try:
                age, with_unit = parse_age(age_cell, args.target_unit, commas)
                sex = one_line(cell.get("sex")).upper()
                bmi = bmi_class(cell.get("length"), cell.get("weight"))
                row, converted = Row(subject, age, one_line(group), sex, bmi), converted + with_unit
            except ValueError as error:
                place = f"row {number}, column {letters['--age_column']} (subject {subject}){show(age_cell)}"
                problems["bad_ages"].append((str(error), place))
                unusable.append(age_cell)
        found[key].append((number, row))
    _refuse_far_ages(found, letters["--age_column"], table, args)
    _keep_one_of_each(found, letters["--id_column"], table)
    if "duplicate_ids" in problems:
        table.advice["duplicate_ids"] = _what_tells_apart(header, body, at)
    table.left_out = set(found) - set(table.rows)
    if unusable:
        table.advice["bad_ages"] = _advise(unusable, bool(table.rows), args)
    if converted:
        table.notes.append(f"{converted} ages name their unit and are read in {args.target_unit}")
    if commas:
        table.notes.append(f"column {letters['--age_column']}: decimal commas")


def _keep_one_of_each(found: dict, letter: str, table: AgeTable) -> None:
    """The row of each key; rows that say the same are one, others a problem."""
    repeated = 0
    for key, entries in found.items():
        rows = [row for _, row in entries if row is not None]
        if len({row[:3] for row in rows}) == 1 and len(rows) == len(entries):
            table.rows[key] = rows[0]
            repeated += len(entries) > 1
        elif len(entries) > 1 and rows:
            shown = [f"row {n} (age {'none' if r is None else f'{r.age:g}'})" for n, r in entries[:3]]
            described = " and ".join(shown) + (f" and {len(entries) - 3} more" if len(entries) > 3 else "")
            name = " ".join(key) if isinstance(key, tuple) else key
            table.problems["duplicate_ids"].append(("", f"column {letter}: {name!r} in {described}"))
    if repeated:
        table.notes.append(f"{repeated} ids have several rows that say the same")


def _what_tells_apart(header: pd.Series, body: pd.DataFrame, at: dict[str, int]) -> str:
    """The flags for rows that are visits or images, by the columns in which the rows of one id differ."""
    ids, visits, files = body[at["--id_column"]], [], []
    for column, name in header.items():
        twice = pd.DataFrame({"id": ids, "other": body[column]}).duplicated().any()
        if name is not None and column not in at.values() and not twice:
            is_file = str(body[column].iloc[0]).lower().endswith((*IMAGE_ENDINGS, *DICOM_ENDINGS))
            (files if is_file else visits).append(shlex.quote(one_line(name)))
    visit, file = (" or ".join(names) or "NAME" for names in (visits, files))
    return (
        f"if a row is a visit: --visit_column {visit}, and in --id_pattern a second group, around the visit; "
        f"if it is an image: --file_column {file}"
    )


def _refuse_far_ages(found: dict, letter: str, table: AgeTable, args: argparse.Namespace) -> None:
    """What is more likely a code for unknown than an age is a problem; a single far age is noted."""
    rows = [row for entries in found.values() for _, row in entries if row is not None]
    codes, single = find_codes([(row.subject, row.age) for row in rows], args)
    middle = pd.Series([row.age for row in rows], dtype=float).quantile([0.25, 0.75])
    usual = "where half of the ages are {:g} to {:g}".format(*middle)
    for entries in found.values():
        for k, (number, row) in enumerate(entries):
            if row is not None and row.age in codes | single:
                place = f"row {number}, column {letter} (subject {row.subject})"
                if row.age in single:
                    table.notes.append(f"one age is far from all others: {place}, {row.age:g}, {usual}")
                    continue
                table.problems["far_ages"].append((f"{row.age:g}, {usual}", place))
                entries[k] = (number, None)
    if codes:
        table.advice["far_ages"] = (
            "if they stand for an unknown age: --missing_values "
            f"{' '.join(f'{code:g}' for code in sorted(codes))}; if they are ages, name their limit with "
            "--min_age or --max_age"
        )


def _advise(unusable: list[object], some_left: bool, args: argparse.Namespace) -> str:
    """The flag that mends ages that can not be used, where there is one."""
    values = sorted({one_line(cell) for cell in unusable if isinstance(cell, int | float | str)})
    if some_left or any(cell.startswith("=") for cell in values):
        listed = " ".join(map(shlex.quote, values)) if len(values) <= 6 else "VALUE ..."
        return f"if they stand for an unknown age: --missing_values {listed}" if some_left and values else ""
    try:
        oldest = max(float(cell) for cell in values)
    except ValueError:  # no numbers, or none at all
        return "--age_column names the column of ages"
    fitting = [unit for unit, limit in OLDEST.items() if limit >= oldest and unit != args.target_unit]
    return f"if they are counted in {fitting[0]}: --target_unit {fitting[0]}" if fitting else ""


def file_key(name: str) -> str:
    """A file as a table or a path names it, to be compared: '/' between folders, no ./ in front."""
    return unicodedata.normalize("NFC", name.strip()).replace("\\", "/").removeprefix("./")
