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

import difflib
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from openpyxl.utils import get_column_letter

from datasets.ultrasound.cells import Formula, Rows, is_blank, list_names, read_cells
from utils.run.errors import CommandError, DataError

COHORTS = ("healthy", "pathological")
# Ages outside these are typing errors. Keyed by --target_unit; another unit is only checked for its sign.
OLDEST = {"years": 120.0, "months": 1440.0, "weeks": 6260.0, "days": 43830.0}


@dataclass
class AgeTable:
    """ages: {subject id: age in the table's unit}. problems: {kind: [one sentence per row left out]}."""

    path: Path
    where: str  # "FILE, sheet Blad1, Healthy"
    ages: dict[str, float] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    left_out: set[str] = field(default_factory=set)  # ids that are in the table but not in ages


def read_age_table(
    path: str | Path,
    cohort: str = "healthy",
    id_column: str = "Number",
    age_column: str = "Age",
    numeric_ids: bool = False,
    unit: str = "years",
) -> AgeTable:
    """Read one cohort of a table.

    Rows that give no usable pair of id and age are not in `ages` but under `problems`, of kind bad_ids,
    bad_ages or duplicate_ids (every row of such an id): the caller refuses or excludes them.
    Raises DataError when the file is not a table of this kind, CommandError when it does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise CommandError(f"{path}: no such table{_similar(path)}\nPass the table with --excel_path.")
    sheet, rows = read_cells(path)
    place = f"{path}, sheet {sheet}" if sheet else str(path)
    if not rows:
        raise DataError(f"{place}: empty\nA header row and one row per subject are expected.")
    header_row, header, body, block = _find_header(rows, cohort, place)
    id_at = _find_column(id_column, "--id_column", header_row, header, block, place)
    age_at = _find_column(age_column, "--age_column", header_row, header, block, place)

    table = AgeTable(path, f"{place}, {block.name}" if block.name else place)
    found = defaultdict(list)  # id -> [(row, age or None)]
    for number, cells in body:
        id_cell = cells[id_at] if id_at < len(cells) else None
        age_cell = cells[age_at] if age_at < len(cells) else None
        if is_blank(id_cell) and is_blank(age_cell):
            continue  # a row of the other cohort
        try:
            subject = subject_id(id_cell, numeric_ids)
        except ValueError as error:
            table.problems["bad_ids"].append(f"row {number}, column {get_column_letter(id_at + 1)}: {error}")
            continue
        try:
            age = _age(age_cell, unit)
        except ValueError as error:
            table.problems["bad_ages"].append(
                f"row {number}, column {get_column_letter(age_at + 1)} (subject {subject}): {error}"
            )
            age = None
        found[subject].append((number, age))
    for subject, entries in found.items():
        if len(entries) > 1:
            rows_of = " and ".join(
                f"row {number} (age {'none' if age is None else f'{age:g}'})" for number, age in entries[:3]
            )
            table.problems["duplicate_ids"].append(
                f"column {get_column_letter(id_at + 1)}: {subject!r} in {rows_of}"
            )
        elif entries[0][1] is not None:
            table.ages[subject] = entries[0][1]
    table.left_out = set(found) - set(table.ages)
    if not table.ages and not table.problems:
        raise DataError(
            f"{table.where}: no rows below the header in row {header_row}\nOne row per subject is expected."
        )
    return table


def subject_id(cell: object, numeric: bool = False) -> str:
    """The id in a cell or file name, as text; numeric: '001' and '1' are the same. Raises ValueError."""
    if is_blank(cell):
        raise ValueError("the id is empty")
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError(f"{_show(cell)} is not an id")
    if isinstance(cell, float) and not cell.is_integer():
        raise ValueError(f"{cell!r} is not an id: not a whole number")
    text = str(int(cell)) if isinstance(cell, int | float) else cell.strip()
    if not text.isprintable():
        raise ValueError(f"{text!r} is not an id: it has unprintable characters")
    if numeric:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{text!r} is not a whole number (--numeric_ids)")
        text = str(int(text))
    return text


def _age(cell: object, unit: str) -> float:
    """The age in a cell; ValueError says what is wrong with it."""
    if is_blank(cell):
        raise ValueError("the age is empty")
    if isinstance(cell, Formula):
        raise ValueError(
            f"the formula {cell.text!r} has no stored value (open and save the file in a spreadsheet program)"
        )
    if isinstance(cell, str):
        try:
            age = float(cell)
        except ValueError:
            hint = (
                " (write a decimal point)" if cell.count(",") == 1 and cell.replace(",", "").isdigit() else ""
            )
            raise ValueError(f"{cell[:40]!r} is text, not a number{hint}") from None
    elif isinstance(cell, bool) or not isinstance(cell, int | float):
        raise ValueError(f"{_show(cell)} is not a number")
    else:
        age = float(cell)
    oldest = OLDEST.get(unit, math.inf)
    if not math.isfinite(age) or not 0 <= age <= oldest:
        raise ValueError(
            f"{age:g} is not an age in {unit}" + (f" (0 to {oldest:g})" if oldest < math.inf else "")
        )
    return age


@dataclass(frozen=True)
class _Block:
    """The columns [start, end) of one cohort; name is "" in a plain table."""

    name: str
    start: int
    end: int


def _find_header(rows: Rows, cohort: str, place: str) -> tuple[int, list, Rows, _Block]:
    """The header (row number, cells), the rows below it and the columns of the cohort."""
    first_number, first = rows[0]
    groups = {column: str(cell).strip() for column, cell in enumerate(first) if not is_blank(cell)}
    starts = {name.casefold(): column for column, name in groups.items() if name.casefold() in COHORTS}
    if not starts:  # one header row
        if cohort != "healthy":
            raise DataError(
                f"{place}, row {first_number}: no cohorts are named there, yet --cohort is {cohort}\n"
                f"Found: {list_names(groups.values())}. Leave --cohort out for a table with one header row."
            )
        return first_number, first, rows[1:], _Block("", 0, len(first))
    if cohort not in starts:
        raise DataError(
            f"{place}, row {first_number}: no cohort {cohort!r}\n"
            f"Found: {list_names(groups.values())}. Choose one with --cohort."
        )
    if len(rows) < 2:
        raise DataError(
            f"{place}: row {first_number} names the cohorts and nothing follows\n"
            "A second header row (Number, Age, ...) and one row per subject are expected."
        )
    start = starts[cohort]
    end = min([column for column in groups if column > start], default=max(len(first), len(rows[1][1])))
    return rows[1][0], rows[1][1], rows[2:], _Block(groups[start], start, end)


def _find_column(name: str, flag: str, header_row: int, header: list, block: _Block, place: str) -> int:
    """The position of a named column within the block; blanks around a name and its case do not matter."""
    names = {
        column: str(header[column]).strip()
        for column in range(block.start, min(block.end, len(header)))
        if not is_blank(header[column])
    }
    matches = [column for column, found in names.items() if found.casefold() == name.strip().casefold()]
    span = f"columns {get_column_letter(block.start + 1)} to {get_column_letter(block.end)}"
    if len(matches) > 1:
        letters = " and ".join(get_column_letter(column + 1) for column in matches)
        raise DataError(
            f"{place}, row {header_row}: column {name!r} is there {len(matches)} times (columns {letters})\n"
            f"Rename or delete all but one, or name another with {flag}."
        )
    if not matches:
        close = difflib.get_close_matches(
            name.casefold(), [found.casefold() for found in names.values()], 1, 0.5
        )
        close = close or [found for found in names.values() if name.casefold() in found.casefold()]
        hint = next(
            (
                f" Did you mean {flag} {found!r}?"
                for found in names.values()
                if close and found.casefold() == close[0].casefold()
            ),
            "",
        )
        raise DataError(
            f"{place}, row {header_row}, {span}: no column {name!r}\n"
            f"Found: {list_names(names.values())}.{hint}\nName the column with {flag}."
        )
    return matches[0]


def _show(cell: object) -> str:
    if isinstance(cell, Formula):
        return f"the formula {cell.text!r}, which has no stored value,"
    return f"{'the date ' if hasattr(cell, 'isoformat') else ''}{str(cell)[:40]!r}"


def _similar(path: Path) -> str:
    """' (did you mean ...?)' when the folder holds a file of a similar name."""
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist)"
    names = {other.name.casefold(): other.name for other in path.parent.iterdir() if other.is_file()}
    close = difflib.get_close_matches(path.name.casefold(), names, 1, 0.7)
    return f" (did you mean {names[close[0]]}?)" if close else ""
