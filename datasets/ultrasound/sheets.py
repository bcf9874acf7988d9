"""Reading a table file: from its bytes to the cells below the column names that the flags give.

The content decides, not the ending: an .xlsx workbook (also strict Open XML), .ods or .xls if pandas has a
reader for it, or text in UTF-8, UTF-16, GBK or cp1252, separated by commas, semicolons, tabs or bars. A
workbook is a zip archive: its sizes are checked before anything is unpacked. The published table has about
2,000 rows; a file beyond the limits is damaged or hostile. There are two layouts. The published one has two
header rows and both cohorts side by side on sheet Blad1,

    |   | A       | B   | C      | D      | E   | F | G            | H   | ...
    | 1 | Healthy |     |        |        |     |   | Pathological |     |
    | 2 | Number  | Age | Length | Weight | Sex |   | Number       | Age | ...
    | 3 | 2       | 62.667 | ...

and a plain table has one header row. Rows above the header, such as a title, are skipped and logged.
"""

import argparse
import contextlib
import csv
import importlib.util
import io
import re
import unicodedata
import zipfile
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from openpyxl.utils import column_index_from_string, get_column_letter

from datasets.ultrasound.flags import BIDS_TABLE, COHORTS, similar_path
from datasets.ultrasound.problems import AgeProblems
from utils.run.errors import CommandError, DataError, some
from utils.run.folder import read_json

SHEET = "Blad1"
TITLE_ROWS = 50  # a header further down is not found
MAX_ROWS, MAX_COLUMNS, MAX_CELLS, MAX_UNPACKED_BYTES = 50_000, 2_000, 6_400_000, 40_000_000
SAVE_AS = "save it as .xlsx or as CSV in UTF-8"
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# {member of the zip archive: pandas' engine for it}; {optional engine: (kind of file, package to install)}
ENGINES = {"content.xml": "odf", "xl/workbook.xml": "openpyxl"}
OTHERS = {"xlrd": ("an old .xls workbook", "xlrd"), "odf": ("an OpenDocument sheet (.ods)", "odfpy")}
# In a sheet's XML: a merged cell, and the number of a hidden row.
MERGED = rb'<(?:\w+:)?mergeCell\b[^>]*\sref="([A-Z]+)(\d+):[A-Z]+(\d+)"'
HIDDEN_ROW = rb'<(?:\w+:)?row\b(?=[^>]*\shidden="(?:1|true)")[^>]*\sr="(\d+)"'
# The namespaces of strict Open XML, and the usual ones, which openpyxl expects.
STRICT, USUAL = rb"http://purl\.oclc\.org/ooxml/(\w+)/", rb"http://schemas.openxmlformats.org/\1/2006/"


class Sheet(NamedTuple):
    """The cells of one cohort in a table file."""

    where: str  # "FILE, sheet Blad1, Healthy"
    cells: pd.DataFrame  # below the header; None if blank; rows and columns are labelled 1, 2 and A, B
    header: int  # the row of the column names
    asked: dict[str, str]  # {id, age, visit, file or group: the column name that its flag gives}
    names: dict[str, str]  # {letter: column name}
    units: dict[str, str]  # {column name: unit}, from the JSON file beside a table of BIDS
    wider: list[int]  # rows of a text file that have more cells than the header
    problems: AgeProblems  # so far with notes about how the file was read


def find_sheet(path: Path, cohort: str, args: argparse.Namespace) -> Sheet:
    """Read the cells of a cohort. Raises DataError if the file is no table, CommandError if it is missing."""
    if path.is_dir():
        raise CommandError(f"{path}: is a folder; --excel_path is the table itself (.xlsx, .csv or .tsv)")
    if not path.is_file():
        raise CommandError(f"{path}: no such table{similar_path(path)}\nPass the table with --excel_path.")
    asked = {role: getattr(args, f"{role}_column") for role in ("id", "age", "visit", "file", "group")}
    asked = {role: name for role, name in asked.items() if name}
    if path.name == BIDS_TABLE and asked["id"] == "Number":
        asked["id"] = "participant_id"  # as BIDS calls it
    problems = AgeProblems()
    name, cells = _read_cells(path, asked, args.sheet, problems.notes)
    where = f"{path}, sheet {name}" if name else str(path)
    if cells.empty:
        raise DataError(f"{where}: empty; a header row and one row per subject are expected")
    position = _find_header(cells, asked, args, where, problems.notes)
    cells, title = _cut_cohort(cells, position, cohort, where)
    header, body, wider = cells.iloc[0].dropna(), cells.iloc[1:].dropna(how="all"), []
    if not name:  # in a text file, a decimal comma may have split a cell
        last = max(map(cells.columns.get_loc, header.index), default=-1)
        wider = body.index[body.iloc[:, last + 1 :].notna().any(axis=1)].tolist()
    where += f", {title}" if title else ""
    if body.empty:
        raise DataError(f"{where}: no rows below the header in row {cells.index[0]}; add one per subject")
    names = header.map(one_line).to_dict()
    return Sheet(where, body, cells.index[0], asked, names, _read_units(path), wider, problems)


def _read_units(path: Path) -> dict[str, str]:
    file = path.with_suffix(".json")
    about = read_json(file) if path.suffix == ".tsv" and file.is_file() else {}
    columns = about.items() if isinstance(about, dict) else ()
    found = {name: of for name, of in columns if isinstance(of, dict)}
    said = {name: re.findall(r"\bin \w+", str(of.get("Description"))) for name, of in found.items()}
    return {name: str(of.get("Units") or " ".join(said[name])) for name, of in found.items()}


def one_line(cell: object) -> str:
    """A cell as text with single blanks, no line breaks and composed letters (NFC)."""
    return " ".join(unicodedata.normalize("NFC", "" if cell is None else str(cell)).split())


def _read_cells(
    path: Path, asked: dict[str, str], wanted: str | None, notes: list[str]
) -> tuple[str, pd.DataFrame]:
    """(name, cells) of the sheet `wanted`, or of the one with the columns asked for; name "" in a text file.

    Blank cells are None, blank rows are dropped; rows and columns are labelled 1, 2 and A, B. A formula
    without a stored value is read as its text, which begins with =."""
    if (size := path.stat().st_size) > MAX_UNPACKED_BYTES:
        raise DataError(f"{path}: {size:,} bytes are too many for a table of subjects and ages")
    content = path.read_bytes()
    try:
        if content.startswith((b"PK", OLE_MAGIC)):
            return _read_workbook(path, content, asked, wanted, notes)
        if wanted:
            raise CommandError(f"--sheet {wanted}: {path} is a text file and has no sheets")
        cells = _read_text(path, content, notes)
        _check_size(str(path), cells.shape)
        return "", _labelled(cells)
    except (CommandError, DataError):
        raise
    except Exception as error:  # damaged bytes make the readers raise anything
        what = f"damaged or truncated workbook ({type(error).__name__}: {str(error)[:120]})"
        raise DataError(f"{path}: {what}\nCopy it again, or {SAVE_AS}.") from error


def _check_size(where: str, size: tuple[int, int]) -> None:
    rows, columns = size
    if rows > MAX_ROWS or columns > MAX_COLUMNS or rows * columns > MAX_CELLS:
        found = f"{rows:,} rows and {columns:,} columns (limits {MAX_ROWS:,} and {MAX_COLUMNS:,})"
        raise DataError(f"{where}: {found}\nDelete the empty rows and columns beyond the table and save.")


def _labelled(cells: pd.DataFrame) -> pd.DataFrame:
    blank = cells.isna() | cells.map(lambda cell: not str(cell).strip())
    cells = cells.astype(object).where(~blank, None)
    cells.index = range(1, len(cells) + 1)
    cells.columns = [get_column_letter(k + 1) for k in range(cells.shape[1])]
    return cells[~blank.all(axis=1).to_numpy()]


def _read_text(path: Path, content: bytes, notes: list[str]) -> pd.DataFrame:
    if re.match(rb"\s*(<|\{|\[\s*[\[{])", content):
        raise DataError(f"{path}: a web page, XML or JSON, not a table\nOpen it, and {SAVE_AS}.")
    text, encoding = _decode(path, content)
    if encoding != "utf-8":
        notes.append(f"{path.name}: read as {encoding}")
    named = re.match(r"sep=(.)\r?\n", text)  # Excel's line for the delimiter
    text = text[named.end() - 1 :] if named else text  # it stays as a blank row, so that row numbers fit
    lines = re.sub('"[^"]*"', "", text).splitlines()[:50]
    # The delimiter is the mark that most lines have equally often; if there is none, a blank.
    counts = {mark: Counter(line.count(mark) for line in lines if mark in line) for mark in ";\t,|"}
    delimiter = max(counts, key=lambda mark: max(counts[mark].values(), default=0))
    if not counts[delimiter]:
        delimiter = " "
    if named:
        delimiter = named[1]
    try:
        file = io.StringIO(text, newline="")
        rows = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=delimiter == " ")
        cells = pd.DataFrame(zip(*zip_longest(*rows), strict=True), dtype=object)
        cells.attrs["delimiter"] = delimiter
        return cells
    except csv.Error as error:
        raise DataError(f"{path}: not a text table ({error})\nOpen it, and {SAVE_AS}.") from error


def _decode(path: Path, content: bytes) -> tuple[str, str]:
    """(text, encoding). Other encodings than UTF-8 and UTF-16 are read only if the bytes leave no doubt: GBK
    writes Chinese in pairs of high bytes, cp1252 writes accented letters as single ones between ASCII."""
    zeros = [content[k::2].count(0) for k in (0, 1)]  # ASCII in UTF-16 has a zero in every other byte
    runs = {len(run) for run in re.findall(rb"[\x80-\xff]+", content)}
    fitting = ["utf-8-sig"]
    if all(length % 2 == 0 for length in runs):
        fitting.append("gbk")
    if runs == {1}:
        fitting.append("cp1252")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        fitting = ["utf-16"]
    elif max(zeros) > len(content) // 3 and min(zeros) == 0:
        fitting = ["utf-16-le" if zeros[1] else "utf-16-be"]
    elif re.search(rb"[\x00-\x08]", content):
        raise DataError(f"{path}: not a table: the file is not text\nName another one with --excel_path.")
    for encoding in fitting:
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode(encoding).lstrip("\ufeff"), encoding.removesuffix("-sig")
    raise DataError(f"{path}: its encoding is not UTF-8 and cannot be guessed\nOpen it, and {SAVE_AS}.")


def _read_workbook(
    path: Path, content: bytes, asked: dict[str, str], wanted: str | None, notes: list[str]
) -> tuple[str, pd.DataFrame]:
    """(name, cells) of a sheet. The reading is limited, as a sheet may not state its size, or a false one."""
    content, engine = _check_workbook(path, content)

    def read(name: str, rows: int, **how: Any) -> pd.DataFrame:  # "NA" stays text, for --missing_values
        how = {"io": book, "header": None, "dtype": object, "keep_default_na": False, "na_values": [""]} | how
        cells = pd.read_excel(sheet_name=name, nrows=rows, **how)
        _fill_merged(cells, members.get(name, b""))
        return cells

    def read_head(name: str) -> pd.DataFrame:
        head = _labelled(read(name, TITLE_ROWS))
        return _labelled(read(name, MAX_ROWS)) if head.empty else head

    with pd.ExcelFile(io.BytesIO(content), engine=engine) as book:
        names = [str(name) for name in book.sheet_names]
        if wanted is not None and wanted not in names:
            raise DataError(f"{path}: no sheet {wanted!r}; there are {some(names)}\nName one with --sheet.")
        known = {name: book.book[name] for name in names if engine == "openpyxl"}
        # The XML of each sheet: openpyxl does not tell those who only read what is merged and hidden.
        members = {name: book.book._archive.read(sheet._worksheet_path) for name, sheet in known.items()}
        sizes = {name: (sheet.max_row or 0, sheet.max_column or 0) for name, sheet in known.items()}
        hidden = {name for name, sheet in known.items() if sheet.sheet_state != "visible"}
        heads = {name: read_head(name) for name in ([wanted] if wanted else names)}
        chosen = _choose_sheet(path, heads, hidden, asked, notes)
        where = f"{path}, sheet {chosen}"
        _check_size(where, sizes.get(chosen, (0, 0)))
        cells = read(chosen, MAX_ROWS + 1)
        _check_size(where, cells.shape)
        if known and cells.isna().any(axis=None):  # blank, or not computed
            how = {"engine": engine, "engine_kwargs": {"data_only": False}}
            typed = read(chosen, MAX_ROWS + 1, io=io.BytesIO(content), **how)
            formulas = typed.map(lambda cell: isinstance(cell, str) and cell.startswith("="))
            cells = typed.where(cells.isna() & formulas, cells)
        cells = _labelled(cells)
        if chosen in hidden:
            notes.append(f"{path.name}: sheet {chosen} is hidden")
        hidden_rows = {*map(int, re.findall(HIDDEN_ROW, members.get(chosen, b"")))}
        if count := len(hidden_rows.intersection(cells.index)):
            notes.append(f"{where}: {count} hidden rows are read too")
    return chosen, cells


def _fill_merged(cells: pd.DataFrame, text: bytes) -> None:
    """Write what stands in a cell that is merged over several rows into each of them."""
    for column, first, last in re.findall(MERGED, text):
        k = column_index_from_string(column.decode()) - 1
        area = slice(int(first) - 1, int(last)), slice(k, k + 1)
        cells.iloc[area] = cells.iloc[area].ffill()


def _check_workbook(path: Path, content: bytes) -> tuple[bytes, str]:
    """(the file's content in a form that pandas can read, pandas' engine for it)."""
    if content.startswith(OLE_MAGIC):
        engine = "xlrd"
        if "EncryptedPackage".encode("utf-16-le") in content:
            raise DataError(f"{path}: protected by a password\nOpen it, and {SAVE_AS} without a password.")
    else:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked, names = sum(member.file_size for member in archive.infolist()), archive.namelist()
            if unpacked > MAX_UNPACKED_BYTES:
                raise DataError(f"{path}: unpacks to {unpacked:,} bytes; keep only the sheet of ages")
            engine = next((engine for member, engine in ENGINES.items() if member in names), None)
            if engine == "openpyxl" and re.search(STRICT, archive.read("xl/workbook.xml")):
                buffer = io.BytesIO()
                with zipfile.ZipFile(buffer, "w") as changed:
                    for name in names:
                        changed.writestr(name, re.sub(STRICT, USUAL, archive.read(name)))
                content = buffer.getvalue()
    if engine is None or importlib.util.find_spec(engine) is None:
        kind, package = OTHERS.get(engine, ("a zip archive, not a workbook", None))
        remedy = f", or run: pip install {package}" if package else "."
        raise DataError(f"{path}: {kind}\nOpen it, and {SAVE_AS}{remedy}")
    return content, engine


def _choose_sheet(
    path: Path, heads: dict[str, pd.DataFrame], hidden: set[str], asked: dict[str, str], notes: list[str]
) -> str:
    """The name of the sheet that has the columns asked for; heads: the first rows of each."""
    filled = {name: cells for name, cells in heads.items() if not cells.empty}
    if len(filled) < 2:
        return next(iter(filled or heads))
    fitting = [name for name, cells in filled.items() if _row_of_names(cells, asked) is not None]
    chosen = [name for name in fitting if name not in hidden] or fitting
    chosen = [SHEET] if SHEET in chosen else chosen
    if len(chosen) != 1:
        first = {name: filter(None, map(one_line, cells.iloc[0])) for name, cells in filled.items()}
        listed = [f"{k} ({'hidden, ' * (k in hidden)}{some(cells)})" for k, cells in first.items()]
        found = f"{len(heads)} sheets, {'several' if chosen else 'none'} with the columns"
        remedy = "Name one with --sheet, and its columns with --id_column and --age_column."
        raise DataError(f"{path}: {found} {some(asked.values())}: {'; '.join(listed)}\n{remedy}")
    others = [name for name in fitting if name != chosen[0]]
    said = f"not {some(others)} (--sheet)" if others else "the only one with the columns"
    notes.append(f"{path.name}: sheet {chosen[0]} is read, {said}")
    return chosen[0]


def _row_of_names(cells: pd.DataFrame, asked: dict[str, str]) -> int | None:
    """The position of the first row that has all the column names asked for."""
    wanted = {one_line(name).casefold() for name in asked.values()}
    rows = enumerate(cells.head(TITLE_ROWS).to_numpy())
    return next((k for k, row in rows if wanted <= {one_line(cell).casefold() for cell in row}), None)


def _find_header(
    cells: pd.DataFrame, asked: dict[str, str], args: argparse.Namespace, where: str, notes: list[str]
) -> int:
    """The position of the header row; if no row has all columns, of the row most like a header."""
    if args.header_row is not None:
        if args.header_row not in cells.index:
            raise CommandError(f"--header_row {args.header_row}: that row of {where} is empty")
        return cells.index.get_loc(args.header_row)
    found = _row_of_names(cells, asked)
    if found is None:  # the row below cohort names, else the first with two cells
        several = cells.notna().sum(axis=1).to_numpy() > 1
        return min(1, len(cells) - 1) if _cohorts(cells.iloc[0]) else int(several.argmax())
    titles = found - bool(found and _cohorts(cells.iloc[found - 1]))
    if titles:
        notes.append(f"{where}: header in row {cells.index[found]}, {titles} rows above not read")
    return found


def _cohorts(row: pd.Series) -> dict[str, int]:
    """{cohort: its first column} for the cohorts that a row names; not for one alone behind another word."""
    named = {one_line(cell).casefold(): k for k, cell in enumerate(row) if cell is not None}
    found = {name: k for name, k in named.items() if name in COHORTS}
    return found if len(found) > 1 or next(iter(named), "") in COHORTS else {}


def _cut_cohort(cells: pd.DataFrame, header: int, cohort: str, where: str) -> tuple[pd.DataFrame, str]:
    """(the header and rows of the cohort's columns; the cohort's name as written, "" in a plain table)."""
    above = cells.iloc[max(header - 1, 0)]
    named = {k: one_line(cell) for k, cell in enumerate(above) if cell is not None}
    starts = _cohorts(above) if header else {}  # a column may be called Healthy
    if not starts and cohort == "healthy":  # one header row
        return cells.iloc[header:], ""
    if cohort not in starts:
        kind = f"no cohort {cohort!r}" if starts else f"no cohort is named there, but --cohort is {cohort}"
        remedy = "Choose one with --cohort." if starts else "Leave --cohort out if there is one header row."
        raise DataError(f"{where}, row {above.name}: {kind}\nFound: {some(named.values(), 12)}. {remedy}")
    start = starts[cohort]
    end = min([column for column in named if column > start], default=cells.shape[1])
    return cells.iloc[header:, start:end], named[start]
