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
import difflib
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from openpyxl.utils import get_column_letter

from datasets.ultrasound.cells import list_names, read_sheets
from datasets.ultrasound.flags import COHORTS, data_arguments
from utils.run.errors import CommandError, DataError

# Ages outside these are typing errors. Keyed by --target_unit; another unit is only checked for its sign.
OLDEST = {"years": 120.0, "months": 1440.0, "weeks": 6260.0, "days": 43830.0}
PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
UNIT_NAMES = {
    "years": ("y", "yr", "yrs", "year", "years", "yo"),
    "months": ("m", "mo", "mos", "month", "months"),
    "weeks": ("w", "wk", "wks", "week", "weeks"),
    "days": ("d", "day", "days"),
}
TITLE_ROWS = 50  # a header further down is not found
Problems = defaultdict[str, list[tuple[str, str]]]  # kind -> (reason, where), one for each row or file


class Row(NamedTuple):
    """A usable row. group is "" without --group_column."""

    subject: str
    age: float
    group: str


@dataclass
class AgeTable:
    """One cohort. A key is what an image is found by: its subject, (subject, visit) or its file."""

    where: str  # "FILE, sheet Blad1, Healthy"
    rows: dict[str | tuple[str, str], Row] = field(default_factory=dict)
    problems: Problems = field(default_factory=lambda: defaultdict(list))
    left_out: set[str | tuple[str, str]] = field(default_factory=set)  # keys that are there but not in rows
    missing: int = 0  # rows whose age is one of --missing_values
    notes: list[str] = field(default_factory=list)  # how it was read, where that is not obvious
    columns: dict[int, str] = field(default_factory=dict)  # position -> name

    @property
    def ages(self) -> dict[str | tuple[str, str], float]:
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
        raise CommandError(f"{path}: no such table{_similar(path)}\nPass the table with --excel_path.")
    id_column = args.id_column
    if path.name == "participants.tsv" and id_column == "Number":
        id_column = "participant_id"  # as BIDS calls it
    asked = {"--id_column": id_column, "--age_column": args.age_column} | {
        flag: name
        for flag in ("--visit_column", "--file_column", "--group_column")
        if (name := getattr(args, flag[2:]))
    }
    table, cells = _choose_sheet(path, asked, args)
    header_at = _find_header(cells, asked, args, table)
    cells, name = _cut_cohort(cells, header_at, cohort, table)
    header, body = cells.iloc[0], cells.iloc[1:]
    at = {flag: _find_column(column, flag, header, table.where) for flag, column in asked.items()}
    body = body[body[[at["--id_column"], at["--age_column"]]].notna().any(axis=1)]  # of this cohort
    table.where += f", {name}" if name else ""
    table.columns = {column: one_line(cell) for column, cell in header.items() if cell is not None}
    if body.empty:
        raise DataError(
            f"{table.where}: no rows below the header in row {header.name}\nOne row per subject is expected."
        )
    _read_rows(body, at, table, args)
    return table


def _read_rows(body: pd.DataFrame, at: dict[str, int], table: AgeTable, args: argparse.Namespace) -> None:
    """Fill rows, problems and left_out from the cells below the header."""
    letters = {flag: get_column_letter(column + 1) for flag, column in at.items()}
    commas = _decimal_commas(body[at["--age_column"]], args.target_unit)
    converted, found = 0, defaultdict(list)  # key -> [(row number, Row or None)]
    for number, cells in zip(body.index, body[list(at.values())].to_numpy(), strict=True):
        cell = dict(zip(at, cells, strict=True))
        place = f"row {number}, column {letters['--id_column']}"
        try:
            subject = subject_id(cell["--id_column"], args.numeric_ids)
            key = subject
            if "--visit_column" in cell:
                place = f"row {number}, column {letters['--visit_column']}"
                key = (subject, subject_id(cell["--visit_column"]))
            if "--file_column" in cell:
                place = f"row {number}, column {letters['--file_column']}"
                key = file_key(subject_id(cell["--file_column"]))
        except ValueError as error:
            table.problems["bad_ids"].append((str(error), place))
            continue
        group = cell.get("--group_column")
        if "--group_column" in cell and group is None:
            place = f"row {number}, column {letters['--group_column']}"
            table.problems["bad_groups"].append(("the group is empty", place))
            found[key].append((number, None))
            continue
        age_cell, row = cell["--age_column"], None
        if any(_same_value(age_cell, value) for value in args.missing_values):
            table.missing += 1
        else:
            try:
                age, with_unit = parse_age(age_cell, args.target_unit, commas)
                row, converted = Row(subject, age, one_line(group)), converted + with_unit
            except ValueError as error:
                place = f"row {number}, column {letters['--age_column']} (subject {subject})"
                table.problems["bad_ages"].append((str(error), place))
        found[key].append((number, row))
    _refuse_far_ages(found, letters["--age_column"], table, args)
    repeated, telling = 0, _what_tells_apart(body, at, table)
    for key, entries in found.items():
        rows = {row for _, row in entries if row is not None}
        if len(rows) == 1 and len({row is None for _, row in entries}) == 1:  # the same row again is no doubt
            table.rows[key] = rows.pop()
            repeated += len(entries) > 1
        elif len(entries) > 1 and rows:
            shown = [f"row {n} (age {'none' if r is None else f'{r.age:g}'})" for n, r in entries[:3]]
            described = " and ".join(shown) + (f" and {len(entries) - 3} more" if len(entries) > 3 else "")
            name = " ".join(key) if isinstance(key, tuple) else key
            place = f"column {letters['--id_column']}: {name!r} in {described}"
            table.problems["duplicate_ids"].append((telling, place))
    table.left_out = set(found) - set(table.rows)
    if repeated:
        table.notes.append(f"{repeated} ids have several rows that say the same")
    if converted:
        table.notes.append(f"{converted} ages name their unit and are read in {args.target_unit}")
    if commas:
        table.notes.append(f"column {letters['--age_column']}: decimal commas")


def _what_tells_apart(body: pd.DataFrame, at: dict[str, int], table: AgeTable) -> str:
    """The columns by which rows of one id differ, for a message; '' where there is none."""
    ids = body[at["--id_column"]]
    names = [
        name
        for column, name in table.columns.items()
        if column not in at.values()
        and not pd.DataFrame({"id": ids, "other": body[column]}).duplicated().any()
    ]
    return f"the rows of one id differ in {list_names(names)}" if names else ""


def _refuse_far_ages(found: dict, letter: str, table: AgeTable, args: argparse.Namespace) -> None:
    """An age that repeats and is far from all others is more likely a code for unknown than an age.

    Far: beyond the quartiles by three interquartile ranges, and by as much (at least a quarter of the median)
    beyond the next age: a long tail of ages has no such gap. --min_age or --max_age typed for that side says
    that it is known.
    """
    ages = pd.Series([row.age for entries in found.values() for _, row in entries if row is not None])
    if len(ages) < 8:
        return
    low, high = ages.quantile([0.25, 0.75])
    far, codes = 3 * (high - low), set()
    for sign, limit in ((1, args.max_age), (-1, args.min_age)):
        values = np.sort(sign * ages.unique())
        wide = np.diff(values) > max(far, ages.median() / 4)
        gaps = np.flatnonzero(wide & (values[1:] > (high if sign > 0 else -low) + far))
        if far > 0 and limit is None and len(gaps):
            codes |= set(sign * values[gaps[0] + 1 :])
    codes = {age for age in codes if (ages == age).sum() > 1}
    for entries in found.values():
        for k, (number, row) in enumerate(entries):
            if row is not None and row.age in codes:
                reason = f"{row.age:g}, where half of the ages are {low:g} to {high:g}"
                place = f"row {number}, column {letter} (subject {row.subject})"
                table.problems["far_ages"].append((reason, place))
                entries[k] = (number, None)


def one_line(cell: object) -> str:
    """Text without line breaks, doubled blanks and different ways to compose the same letters."""
    return " ".join(unicodedata.normalize("NFC", "" if cell is None else str(cell)).split())


def subject_id(cell: object, numeric: bool = False) -> str:
    """The id in a cell or file name, as text: 12, 12.0 and '12.0' are '12'; numeric: '001' and '1' are the
    same. Raises ValueError."""
    if cell is None or not str(cell).strip():
        raise ValueError("the id is empty")
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError(f"{_show(cell)} is not an id")
    if isinstance(cell, float) and not cell.is_integer():
        raise ValueError(f"{cell!r} is not an id: not a whole number")
    text = unicodedata.normalize("NFC", cell.strip()) if isinstance(cell, str) else str(int(cell))
    if not text.isprintable():
        raise ValueError(f"{text!r} is not an id: it has unprintable characters")
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    if numeric:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{text!r} is not a whole number (--numeric_ids)")
        text = str(int(text))
    return text


def file_key(name: str) -> str:
    """A file as a table or a path names it, to be compared: '/' between folders, no ./ in front."""
    return unicodedata.normalize("NFC", name.strip()).replace("\\", "/").removeprefix("./")


def parse_age(cell: object, unit: str, commas: bool = False) -> tuple[float, bool]:
    """(the age in a cell, whether the cell names its unit); ValueError says what is wrong with it."""
    if cell is None:
        raise ValueError("the age is empty")
    if isinstance(cell, str) and cell.startswith("="):
        raise ValueError(
            f"the formula {cell!r} has no stored value (open and save the file in a spreadsheet program)"
        )
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError(f"{_show(cell)} is not a number")
    text = str(cell).strip()
    if commas:
        text = text.replace(",", ".")
    with_unit = False
    try:
        age = float(text)
    except ValueError:
        comma = text.count(",") == 1 and text.replace(",", "").isdigit()
        hint = " (write a decimal point)" if comma else ""
        age = _with_unit(text, unit)
        if age is None:
            raise ValueError(f"{text[:40]!r} is text, not a number{hint}") from None
        with_unit = True
    oldest = OLDEST.get(unit, math.inf)
    if not math.isfinite(age) or not 0 <= age <= oldest:
        limits = f" (0 to {oldest:g})" if oldest < math.inf else ""
        raise ValueError(f"{age:g} is not an age in {unit}{limits}")
    return age, with_unit


def _with_unit(text: str, unit: str) -> float | None:
    """'079Y', '12 months' or '2y 3m' in `unit`; None for any other text."""
    part = r"(\d+(?:[.,]\d+)?)\s*([a-z]+)\.?[\s,]*"
    if unit not in PER_YEAR or not re.fullmatch(f"(?:{part})+", text, re.IGNORECASE):
        return None
    total = 0.0
    for number, letters in re.findall(part, text, re.IGNORECASE):
        named = next((name for name, forms in UNIT_NAMES.items() if letters.casefold() in forms), None)
        if named is None:
            return None
        total += float(number.replace(",", ".")) * PER_YEAR[unit] / PER_YEAR[named]
    return total


def _decimal_commas(cells: Iterable[object], unit: str) -> bool:
    """Whether a column is written with decimal commas, and can not mean thousands."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    written = [text for text in texts if re.fullmatch(r"\d+,\d+", text)]
    if not written or any("." in text for text in texts):
        return False
    thousands = all(re.fullmatch(r"[1-9]\d{0,2},\d{3}", text) for text in written)
    return not thousands or any(float(text.replace(",", "")) > OLDEST.get(unit, math.inf) for text in written)


def _same_value(cell: object, value: str) -> bool:
    """Whether a cell holds a value of --missing_values: the same text, or the same number."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return False
    text = str(cell).strip()
    try:
        return float(text.replace(",", ".")) == float(value)
    except ValueError:
        return text.casefold() == value.strip().casefold()


def _choose_sheet(
    path: Path, asked: dict[str, str], args: argparse.Namespace
) -> tuple[AgeTable, pd.DataFrame]:
    """The table to be filled and the cells of the sheet that holds it."""
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
    (name, cells), *_ = filled.items()
    if cells.attrs["hidden"]:
        notes.append(f"{path.name}: sheet {name} is hidden")
    return AgeTable(f"{path}, sheet {name}" if name else str(path), notes=notes), cells


def _header_row(cells: pd.DataFrame, asked: dict[str, str]) -> int | None:
    """The position of the first row that has all the columns asked for."""
    wanted = {one_line(name).casefold() for name in asked.values()}
    for position, row in enumerate(cells.head(TITLE_ROWS).to_numpy()):
        if wanted <= {one_line(cell).casefold() for cell in row}:
            return position
    return None


def _find_header(
    cells: pd.DataFrame, asked: dict[str, str], args: argparse.Namespace, table: AgeTable
) -> int:
    """The position of the header; where none has all columns, of the row that looks most like one."""
    if args.header_row is not None:
        if args.header_row not in cells.index:
            raise CommandError(f"--header_row {args.header_row}: that row of {table.where} is empty")
        return cells.index.get_loc(args.header_row)
    found = _header_row(cells, asked)
    if found is None:  # below the names of cohorts, else the first row with two cells
        widths = cells.notna().sum(axis=1).to_numpy()
        cohorts = _cohorts(cells.iloc[0])
        return min(1, len(cells) - 1) if cohorts else int(np.argmax(widths > 1))
    titles = found - bool(found and _cohorts(cells.iloc[found - 1]))
    if titles:
        table.notes.append(f"{table.where}: header in row {cells.index[found]}, {titles} rows above not read")
    return found


def _cohorts(row: pd.Series) -> dict[str, int]:
    """{cohort: its first column} where a row names cohorts."""
    named = {one_line(cell).casefold(): column for column, cell in row.items() if cell is not None}
    return {name: column for name, column in named.items() if name in COHORTS}


def _cut_cohort(cells: pd.DataFrame, header: int, cohort: str, table: AgeTable) -> tuple[pd.DataFrame, str]:
    """(header and rows, the columns of the cohort alone, its name as written or "" in a plain table)."""
    above = cells.iloc[max(header - 1, 0)]
    groups = {column: one_line(cell) for column, cell in above.items() if cell is not None}
    starts = _cohorts(above)
    if not starts:  # one header row
        if cohort != "healthy":
            raise DataError(
                f"{table.where}, row {above.name}: no cohorts are named there, yet --cohort is {cohort}\n"
                f"Found: {list_names(groups.values())}. Leave --cohort out for a table with one header row."
            )
        return cells.iloc[header:], ""
    if cohort not in starts:
        raise DataError(
            f"{table.where}, row {above.name}: no cohort {cohort!r}\n"
            f"Found: {list_names(groups.values())}. Choose one with --cohort."
        )
    if header == 0:
        raise DataError(
            f"{table.where}: row {above.name} names the cohorts and nothing follows\n"
            "A second header row (Number, Age, ...) and one row per subject are expected."
        )
    start = starts[cohort]
    end = min([column for column in groups if column > start], default=cells.shape[1])
    return cells.iloc[header:, start:end], groups[start]


def _find_column(name: str, flag: str, header: pd.Series, where: str) -> int:
    """The position of a named column; case, blanks and line breaks in a name do not matter."""
    names = {column: one_line(cell) for column, cell in header.items() if cell is not None}
    matches = [column for column, found in names.items() if found.casefold() == one_line(name).casefold()]
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
            f"Found: {list_names(names.values())}.{hint}\nName the column with {flag}, or the row of the "
            "column names with --header_row."
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


def list_some(entries: Sequence[str], shown: int, count: int | None = None) -> str:
    """The first entries and how many more there are."""
    count = len(entries) if count is None else count
    shown = min(shown, len(entries))
    return "; ".join(entries[:shown]) + (f"; and {count - shown} more" if count > shown else "")
