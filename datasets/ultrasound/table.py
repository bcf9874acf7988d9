"""The table of an ultrasound data set: subject id -> age, from .xlsx or .csv.

Two layouts are read. The published one has two header rows and two cohorts side by side on sheet Blad1,

    |   | A       | B   | C      | D      | E   | F | G            | H   | ...
    | 1 | Healthy |     |        |        |     |   | Pathological |     |
    | 2 | Number  | Age | Length | Weight | Sex |   | Number       | Age | ...
    | 3 | 2       | 62.667 | ...

and a plain one has a single header row with columns named by --id_column and --age_column. The two cohorts
count their patients separately: Healthy 12 and Pathological 12 are two people. Ids are text ('001' and '1'
are two people too) unless numeric_ids. Nothing is repaired: a table that can be misread is refused with
file, sheet, row and column.
"""

import argparse
import difflib
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from openpyxl.utils import get_column_letter

from datasets.ultrasound.cells import list_names, read_cells
from datasets.ultrasound.flags import COHORTS, data_arguments
from utils.run.errors import CommandError, DataError

# Ages outside these are typing errors. Keyed by --target_unit; another unit is only checked for its sign.
OLDEST = {"years": 120.0, "months": 1440.0, "weeks": 6260.0, "days": 43830.0}


@dataclass
class AgeTable:
    """ages: {subject id: age in the table's unit}. problems: {kind: [one sentence per row left out]}."""

    where: str  # "FILE, sheet Blad1, Healthy"
    ages: dict[str, float] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    left_out: set[str] = field(default_factory=set)  # ids that are in the table but not in ages


def read_age_table(
    path: str | Path, cohort: str = "healthy", args: argparse.Namespace | None = None
) -> AgeTable:
    """Read one cohort of a table by the flags in `args` (default: those of `data_arguments()`).

    Rows that give no usable pair of id and age are not in `ages` but under `problems`, of kind bad_ids,
    bad_ages or duplicate_ids (every row of such an id): the caller refuses or excludes them.
    Raises DataError when the file is not a table of this kind, CommandError when it does not exist.
    """
    args, path = args or data_arguments(), Path(path)
    if not path.is_file():
        raise CommandError(f"{path}: no such table{_similar(path)}\nPass the table with --excel_path.")
    sheet, cells = read_cells(path)
    where = f"{path}, sheet {sheet}" if sheet else str(path)
    if cells.empty:
        raise DataError(f"{where}: empty\nA header row and one row per subject are expected.")
    cells, name = _cut_cohort(cells, cohort, where)
    header, body = cells.iloc[0], cells.iloc[1:]
    id_at = _find_column(args.id_column, "--id_column", header, where)
    age_at = _find_column(args.age_column, "--age_column", header, where)
    body = body[body[[id_at, age_at]].notna().any(axis=1)]  # the others belong to the other cohort

    table = AgeTable(f"{where}, {name}" if name else where)
    found = defaultdict(list)  # id -> [(row, age or None)]
    id_letter, age_letter = get_column_letter(id_at + 1), get_column_letter(age_at + 1)
    for number, id_cell, age_cell in zip(body.index, body[id_at], body[age_at], strict=True):
        try:
            subject = subject_id(id_cell, args.numeric_ids)
        except ValueError as error:
            table.problems["bad_ids"].append(f"row {number}, column {id_letter}: {error}")
            continue
        try:
            age = _age(age_cell, args.target_unit)
        except ValueError as error:
            age, place = None, f"row {number}, column {age_letter} (subject {subject})"
            table.problems["bad_ages"].append(f"{place}: {error}")
        found[subject].append((number, age))
    for subject, entries in found.items():
        if len(entries) > 1:
            rows = [f"row {n} (age {'none' if age is None else f'{age:g}'})" for n, age in entries[:3]]
            described = f"column {id_letter}: {subject!r} in {' and '.join(rows)}"
            table.problems["duplicate_ids"].append(described)
        elif entries[0][1] is not None:
            table.ages[subject] = entries[0][1]
    table.left_out = set(found) - set(table.ages)
    if not found and not table.problems:
        raise DataError(
            f"{table.where}: no rows below the header in row {header.name}\nOne row per subject is expected."
        )
    return table


def subject_id(cell: object, numeric: bool = False) -> str:
    """The id in a cell or file name, as text; numeric: '001' and '1' are the same. Raises ValueError."""
    if cell is None or not str(cell).strip():
        raise ValueError("the id is empty")
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError(f"{_show(cell)} is not an id")
    if isinstance(cell, float) and not cell.is_integer():
        raise ValueError(f"{cell!r} is not an id: not a whole number")
    text = cell.strip() if isinstance(cell, str) else str(int(cell))
    if not text.isprintable():
        raise ValueError(f"{text!r} is not an id: it has unprintable characters")
    if numeric:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{text!r} is not a whole number (--numeric_ids)")
        text = str(int(text))
    return text


def _age(cell: object, unit: str) -> float:
    """The age in a cell; ValueError says what is wrong with it."""
    if cell is None:
        raise ValueError("the age is empty")
    if isinstance(cell, str) and cell.startswith("="):
        raise ValueError(
            f"the formula {cell!r} has no stored value (open and save the file in a spreadsheet program)"
        )
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError(f"{_show(cell)} is not a number")
    try:
        age = float(cell)
    except ValueError:
        comma = cell.count(",") == 1 and cell.replace(",", "").isdigit()
        hint = " (write a decimal point)" if comma else ""
        raise ValueError(f"{cell[:40]!r} is text, not a number{hint}") from None
    oldest = OLDEST.get(unit, math.inf)
    if not math.isfinite(age) or not 0 <= age <= oldest:
        limits = f" (0 to {oldest:g})" if oldest < math.inf else ""
        raise ValueError(f"{age:g} is not an age in {unit}{limits}")
    return age


def _cut_cohort(cells: pd.DataFrame, cohort: str, where: str) -> tuple[pd.DataFrame, str]:
    """(header and rows, the columns of the cohort alone, its name as written or "" in a plain table)."""
    first = cells.iloc[0]
    groups = {column: str(cell).strip() for column, cell in first.items() if cell is not None}
    starts = {name.casefold(): column for column, name in groups.items() if name.casefold() in COHORTS}
    if not starts:  # one header row
        if cohort != "healthy":
            raise DataError(
                f"{where}, row {first.name}: no cohorts are named there, yet --cohort is {cohort}\n"
                f"Found: {list_names(groups.values())}. Leave --cohort out for a table with one header row."
            )
        return cells, ""
    if cohort not in starts:
        raise DataError(
            f"{where}, row {first.name}: no cohort {cohort!r}\n"
            f"Found: {list_names(groups.values())}. Choose one with --cohort."
        )
    if len(cells) < 2:
        raise DataError(
            f"{where}: row {first.name} names the cohorts and nothing follows\n"
            "A second header row (Number, Age, ...) and one row per subject are expected."
        )
    start = starts[cohort]
    end = min([column for column in groups if column > start], default=cells.shape[1])
    return cells.iloc[1:, start:end], groups[start]


def _find_column(name: str, flag: str, header: pd.Series, where: str) -> int:
    """The position of a named column; blanks around a name and its case do not matter."""
    names = {column: str(cell).strip() for column, cell in header.items() if cell is not None}
    matches = [column for column, found in names.items() if found.casefold() == name.strip().casefold()]
    if len(matches) > 1:
        letters = " and ".join(get_column_letter(column + 1) for column in matches)
        raise DataError(
            f"{where}, row {header.name}: column {name!r} is there {len(matches)} times (columns {letters})\n"
            f"Rename or delete all but one, or name another with {flag}."
        )
    if not matches:
        folded = {found.casefold(): found for found in names.values()}
        close = difflib.get_close_matches(name.casefold(), folded, 1, 0.5)
        close = close or [found for found in folded if name.casefold() in found]
        hint = f" Did you mean {flag} {folded[close[0]]!r}?" if close else ""
        span = " to ".join(get_column_letter(column + 1) for column in (header.index[0], header.index[-1]))
        raise DataError(
            f"{where}, row {header.name}, columns {span}: no column {name!r}\n"
            f"Found: {list_names(names.values())}.{hint}\nName the column with {flag}."
        )
    return matches[0]


def _show(cell: object) -> str:
    return f"{'the date ' if hasattr(cell, 'isoformat') else ''}{str(cell)[:40]!r}"


def _similar(path: Path) -> str:
    """' (did you mean ...?)' when the folder holds a file of a similar name."""
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist)"
    names = {other.name.casefold(): other.name for other in path.parent.iterdir() if other.is_file()}
    close = difflib.get_close_matches(path.name.casefold(), names, 1, 0.7)
    return f" (did you mean {names[close[0]]}?)" if close else ""
