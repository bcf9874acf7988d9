"""The cells of a table file as a DataFrame; every damage is a DataError that names the place.

A workbook is a zip archive: its sizes are checked before anything is unpacked. The published table has about
2,000 rows; what exceeds the limits is damaged or hostile.
"""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.run.errors import DataError

SHEET = "Blad1"
MAX_ROWS, MAX_COLUMNS, MAX_UNPACKED_BYTES = 50_000, 128, 40_000_000
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def read_cells(path: Path) -> tuple[str, pd.DataFrame]:
    """(sheet name or "" for a file of text, cells): None where blank, no blank rows; the index is the row as
    a spreadsheet program counts it.

    A formula that nobody has computed yet stands there as its text, with the = in front.
    """
    sheet, cells = _read_text(path) if path.suffix.lower() in (".csv", ".tsv", ".txt") else _read_xlsx(path)
    place = f"{path}, sheet {sheet}" if sheet else str(path)
    if len(cells) > MAX_ROWS or cells.shape[1] > MAX_COLUMNS:
        raise DataError(_too_large(place, *cells.shape))
    cells.index = range(1, len(cells) + 1)
    cells = cells.map(lambda cell: None if pd.isna(cell) or not str(cell).strip() else cell).astype(object)
    cells = cells.where(cells.notna(), None)
    return sheet, cells[cells.notna().any(axis=1)]


def list_names(names: Sequence[str]) -> str:
    """The first twelve names, for a message."""
    names = [str(name) for name in names]
    return (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "nothing"


def _read_text(path: Path) -> tuple[str, pd.DataFrame]:
    """Comma, semicolon or tab, whichever the first line has most of."""
    size = path.stat().st_size
    if size > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path}: {size:,} bytes (limit {MAX_UNPACKED_BYTES:,})\nThis is no table of subjects and ages."
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            rows = list(csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(
            f"{path}: not a readable table of text ({error})\nSave it as CSV in UTF-8."
        ) from error
    return "", pd.DataFrame(rows, dtype=object)


def _read_xlsx(path: Path) -> tuple[str, pd.DataFrame]:
    """The sheet called SHEET, or the only one."""
    try:
        _check_archive(path)
        with pd.ExcelFile(path, engine="openpyxl") as book:
            names = [str(name) for name in book.sheet_names]
            if SHEET not in names and len(names) != 1:
                raise DataError(
                    f"{path}: {len(names)} sheets ({list_names(names)}) and none is called {SHEET}\n"
                    f"Name the sheet with the ages {SHEET}, or keep only that one."
                )
            sheet = SHEET if SHEET in names else names[0]
            rows, columns = book.book[sheet].max_row or 0, book.book[sheet].max_column or 0
            if rows > MAX_ROWS or columns > MAX_COLUMNS:
                raise DataError(_too_large(f"{path}, sheet {sheet}", rows, columns))
            # The sheet's own statement of its size may be missing or wrong: the reading is bounded as well.
            options = {"sheet_name": sheet, "header": None, "dtype": object, "nrows": MAX_ROWS + 1}
            cells = book.parse(**options)
        if cells.isna().any(axis=None):  # a formula without a stored value reads as blank
            typed = pd.read_excel(path, engine="openpyxl", engine_kwargs={"data_only": False}, **options)
            formulas = typed.map(lambda cell: isinstance(cell, str) and cell.startswith("="))
            cells = typed.where(cells.isna() & formulas, cells)
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the reader raise anything
        raise DataError(
            f"{path}: damaged or truncated workbook ({type(error).__name__}: {str(error)[:120]})\n"
            "Copy the file again, or open it in a spreadsheet program and save it as .xlsx."
        ) from error
    return sheet, cells


def _check_archive(path: Path) -> None:
    """Refuse what is not a plain .xlsx before anything is unpacked."""
    with path.open("rb") as file:
        magic = file.read(8)
    if magic == OLE_MAGIC:
        raise DataError(
            f"{path}: protected by a password, or an old .xls file\n"
            "Save it as .xlsx without a password, or as .csv."
        )
    if not magic.startswith(b"PK"):
        kind = "text: is it a .csv?" if magic.isascii() and magic else "not a workbook"
        raise DataError(
            f"{path}: not an .xlsx file ({kind})\nGive it its right ending (.csv) or save it as .xlsx."
        )
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path}: unpacks to {unpacked:,} bytes (limit {MAX_UNPACKED_BYTES:,})\n"
            "This is no table of subjects and ages; keep only the sheet with the ages."
        )


def _too_large(place: str, rows: int, columns: int) -> str:
    return (
        f"{place}: {rows:,} rows and {columns:,} columns (limits {MAX_ROWS:,} and {MAX_COLUMNS})\n"
        "Is a cell filled or formatted far away from the table? Delete the empty rows and columns and save."
    )
