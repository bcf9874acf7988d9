"""Where in a file the table stands: its sheet, the row of the column names, the cohort, the columns."""

import argparse
import difflib
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
from openpyxl.utils import get_column_letter

from datasets.ultrasound.cells import list_names, read_sheets
from datasets.ultrasound.flags import COHORTS
from datasets.ultrasound.values import PER_YEAR, named_unit, one_line
from utils.run.errors import CommandError, DataError

TITLE_ROWS = 50  # a header further down is not found
# What people call the columns that have to be named, in the order in which they are proposed.
USUAL = {
    "--id_column": r"\b(id|subject|patient|participant|number|nr|no|case)\b|id$|\u7f16\u53f7|\u7de8\u865f",
    "--age_column": r"age\b|\b(alter|edad|leeftijd|idade|eta)\b|\u5e74\u9f84|\u5e74\u9f61|\u5e74\u9f62",
}
TRAITS = {  # of a person, read where the table has them
    "sex": ("sex", "gender", "\u6027\u522b"),
    "length": ("length", "height", "\u8eab\u9ad8"),
    "weight": ("weight", "\u4f53\u91cd"),
}


def choose_sheet(
    path: Path, asked: dict[str, str], args: argparse.Namespace
) -> tuple[str, pd.DataFrame, list[str]]:
    """(the name of the sheet that holds the columns asked for, "" in a file of text; its cells; notes)."""
    sheets, notes = read_sheets(path, args.sheet)
    if args.sheet and "" in sheets:
        raise CommandError(f"--sheet {args.sheet}: {path} is a file of text and has no sheets")
    filled = {name: cells for name, cells in sheets.items() if not cells.empty}
    if not filled:
        where = f"{path}, sheet {list_names(sheets)}" if "" not in sheets else f"{path}"
        raise DataError(f"{where}: empty\nA header row and one row per subject are expected.")
    if len(filled) > 1:
        fitting = [name for name, cells in filled.items() if _header_row(cells, asked) is not None]
        visible = [name for name in fitting if not filled[name].attrs["hidden"]]
        chosen = visible if len(visible) == 1 else fitting
        if len(chosen) != 1:
            listed = [
                f"{name} ({'hidden, ' if cells.attrs['hidden'] else ''}"
                f"{list_names([one_line(cell) for cell in cells.iloc[0] if cell is not None])})"
                for name, cells in filled.items()
            ]
            which = "several" if chosen else "none"
            raise DataError(
                f"{path}: {len(sheets)} sheets, {which} with the columns {list_names(asked.values())}: "
                f"{'; '.join(listed)}\nName one with --sheet, and its columns with --id_column and "
                "--age_column."
            )
        notes.append(f"{path.name}: sheet {chosen[0]} is read, the only one with the columns")
        filled = {chosen[0]: filled[chosen[0]]}
    ((name, cells),) = filled.items()
    if cells.attrs["hidden"]:
        notes.append(f"{path.name}: sheet {name} is hidden")
    return name, cells, notes


def _header_row(cells: pd.DataFrame, asked: dict[str, str]) -> int | None:
    """The position of the first row that has all the columns asked for."""
    wanted = {one_line(name).casefold() for name in asked.values()}
    for position, row in enumerate(cells.head(TITLE_ROWS).to_numpy()):
        if wanted <= {one_line(cell).casefold() for cell in row}:
            return position
    return None


def find_header(
    cells: pd.DataFrame, asked: dict[str, str], args: argparse.Namespace, where: str, notes: list[str]
) -> int:
    """The position of the header; where none has all columns, of the row that looks most like one."""
    if args.header_row is not None:
        if args.header_row not in cells.index:
            raise CommandError(f"--header_row {args.header_row}: that row of {where} is empty")
        return cells.index.get_loc(args.header_row)
    found = _header_row(cells, asked)
    if found is None:  # below the names of cohorts, else the first row with two cells
        widths = cells.notna().sum(axis=1).to_numpy()
        return min(1, len(cells) - 1) if _cohorts(cells.iloc[0]) else int(np.argmax(widths > 1))
    titles = found - bool(found and _cohorts(cells.iloc[found - 1]))
    if titles:
        notes.append(f"{where}: header in row {cells.index[found]}, {titles} rows above not read")
    return found


def _cohorts(row: pd.Series) -> dict[str, int]:
    """{cohort: its first column} where a row names cohorts."""
    named = {one_line(cell).casefold(): column for column, cell in row.items() if cell is not None}
    return {name: column for name, column in named.items() if name in COHORTS}


def cut_cohort(cells: pd.DataFrame, header: int, cohort: str, where: str) -> tuple[pd.DataFrame, str]:
    """(header and rows, the columns of the cohort alone, its name as written or "" in a plain table)."""
    above = cells.iloc[max(header - 1, 0)]
    groups = {column: one_line(cell) for column, cell in above.items() if cell is not None}
    starts = _cohorts(above)
    if not starts:  # one header row
        if cohort != "healthy":
            raise DataError(
                f"{where}, row {above.name}: no cohorts are named there, yet --cohort is {cohort}\n"
                f"Found: {list_names(groups.values())}. Leave --cohort out for a table with one header row."
            )
        return cells.iloc[header:], ""
    if cohort not in starts:
        raise DataError(
            f"{where}, row {above.name}: no cohort {cohort!r}\n"
            f"Found: {list_names(groups.values())}. Choose one with --cohort."
        )
    if header == 0:
        raise DataError(
            f"{where}: row {above.name} names the cohorts and nothing follows\n"
            "A second header row (Number, Age, ...) and one row per subject are expected."
        )
    start = starts[cohort]
    end = min([column for column in groups if column > start], default=cells.shape[1])
    return cells.iloc[header:, start:end], groups[start]


def find_columns(asked: dict[str, str], header: pd.Series, where: str) -> dict[str, int]:
    """{flag: position of the column it names}; case, blanks and line breaks in a name do not matter.

    DataError for all that are not there, with the flags that name what looks like them."""
    names = {column: one_line(cell) for column, cell in header.items() if cell is not None}
    at, missing, proposed = {}, [], []
    for flag, name in asked.items():
        matches = [column for column, found in names.items() if found.casefold() == one_line(name).casefold()]
        if len(matches) > 1:
            letters = " and ".join(get_column_letter(column + 1) for column in matches)
            raise DataError(
                f"{where}, row {header.name}: column {name!r} is there {len(matches)} times (columns "
                f"{letters})\nRename or delete all but one, or name another with {flag}."
            )
        if matches:
            at[flag] = matches[0]
            continue
        missing.append(name)
        if close := _propose(name, flag, list(names.values())):
            proposed.append(f"{flag} {shlex.quote(close)}")
    if missing:
        span = " to ".join(get_column_letter(column + 1) for column in (header.index[0], header.index[-1]))
        hint = f" Did you mean {' '.join(proposed)}?" if proposed else ""
        flags = [flag for flag in asked if flag not in at]
        raise DataError(
            f"{where}, row {header.name}, columns {span}: no column {' and no '.join(map(repr, missing))}\n"
            f"Found: {list_names(names.values())}.{hint}\nName the column with {' and '.join(flags)}, or the "
            "row of the column names with --header_row."
        )
    return at


def _propose(name: str, flag: str, names: list[str]) -> str:
    """The column that was probably meant; '' where none resembles it."""
    folded = {found.casefold(): found for found in names}
    close = difflib.get_close_matches(name.casefold(), folded, 1, 0.5)
    close = close or [found for found in folded if name.casefold() in found]
    close = close or [found for found in folded if flag in USUAL and re.search(USUAL[flag], found)]
    return folded[close[0]] if close else ""


def find_traits(header: pd.Series) -> dict[str, int]:
    """{sex, length, weight: position} of those that the table has; a unit may follow the name."""
    names = {column: one_line(cell).casefold() for column, cell in header.items() if cell is not None}
    found = {}
    for trait, words in TRAITS.items():
        columns = [column for column, name in names.items() if re.split(r"[\s(\[_,/]", name)[0] in words]
        if len(columns) == 1:
            found[trait] = columns[0]
    return found


def check_unit(name: str, unit: str, where: str) -> None:
    """CommandError where the name of the age column ends in another unit than --target_unit."""
    words = re.search(r"[\s(\[_]([^\W\d_]+)[)\]]?$", name)
    named = named_unit(words[1]) if words and not re.search(r"\d\W*$", name[: words.start()]) else None
    if named and unit in PER_YEAR and named != unit:
        raise CommandError(
            f"{where}: the column {name!r} names {named}, but --target_unit is {unit}\n"
            f"Pass --target_unit {named}, or rename the column if its name is wrong."
        )
