"""Cells of a .xlsx or .csv file, read with bounded memory; every damage is a DataError that names the place.

A workbook is a zip archive: its sizes and its start are checked before anything is unpacked, openpyxl then
reads it row by row. The published table has about 2,000 rows; what exceeds the limits is damaged or hostile.
"""

import csv
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from utils.run.errors import DataError

SHEET = "Blad1"
MAX_ROWS, MAX_COLUMNS, MAX_UNPACKED_BYTES = 50_000, 128, 40_000_000
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

Rows = list[tuple[int, list]]  # (row number as a spreadsheet shows it, cells)


@dataclass(frozen=True)
class Formula:
    """A formula without a stored value: nobody has computed it yet."""

    text: str


def read_cells(path: Path) -> tuple[str, Rows]:
    """(sheet name, the rows that are not blank); the name is "" for a .csv, .tsv or .txt file."""
    sheet, rows = _read_csv(path) if path.suffix.lower() in (".csv", ".tsv", ".txt") else _read_xlsx(path)
    return sheet, [(number, cells) for number, cells in rows if not all(map(is_blank, cells))]


def is_blank(cell: object) -> bool:
    """Whether a cell is empty or holds only spaces."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def list_names(names: Sequence[str]) -> str:
    """The first twelve names, for a message."""
    names = [str(name) for name in names]
    return (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "nothing"


def _read_csv(path: Path) -> tuple[str, Rows]:
    """('', [(line number, cells)]); comma, semicolon or tab, whichever the first line has most of."""
    if path.stat().st_size > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes (limit {MAX_UNPACKED_BYTES:,})\n"
            "This is no table of subjects and ages."
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            rows = []
            for cells in reader:
                rows.append((reader.line_num, cells))
                if len(rows) > MAX_ROWS or len(cells) > MAX_COLUMNS:
                    raise DataError(_too_large(str(path), len(rows), len(cells)))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(
            f"{path}: not a readable table of text ({error})\nSave it as CSV in UTF-8."
        ) from error
    return "", rows


def _read_xlsx(path: Path) -> tuple[str, Rows]:
    """(sheet name, [(row number, cells)]), in bounded memory: archive and sheet sizes are checked first."""
    _check_archive(path)
    try:
        sheet, rows = _read_sheet(path, stored_values=True)
        # A formula that was never computed reads as an empty cell; only then is the file read as typed.
        if any(is_blank(cell) for _, cells in rows for cell in cells):
            typed = dict(_read_sheet(path, stored_values=False)[1])
            rows = [
                (
                    number,
                    [
                        Formula(was)
                        if is_blank(cell) and isinstance(was, str) and was.startswith("=")
                        else cell
                        for cell, was in zip(cells, typed[number], strict=True)
                    ],
                )
                for number, cells in rows
            ]
    except (
        zipfile.BadZipFile,
        zlib.error,
        InvalidFileException,
        ParseError,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(
            f"{path}: damaged or truncated workbook ({type(error).__name__}: {str(error)[:120]})\n"
            "Copy the file again, or open it in a spreadsheet program and save it as .xlsx."
        ) from error
    return sheet, rows


def _read_sheet(path: Path, stored_values: bool) -> tuple[str, Rows]:
    book = openpyxl.load_workbook(path, read_only=True, data_only=stored_values, keep_links=False)
    try:
        names = book.sheetnames
        if SHEET not in names and len(names) != 1:
            raise DataError(
                f"{path}: {len(names)} sheets ({list_names(names)}) and none is called {SHEET}\n"
                f"Name the sheet with the ages {SHEET}, or keep only that one."
            )
        sheet = book[SHEET] if SHEET in names else book[names[0]]
        rows, columns = sheet.max_row or 0, sheet.max_column or 0
        if rows > MAX_ROWS or columns > MAX_COLUMNS:
            raise DataError(_too_large(f"{path}, sheet {sheet.title}", rows, columns))
        # The sheet's own statement of its size may be missing or wrong: the reading is bounded as well.
        read = [(number, list(cells)) for number, cells in _bounded(sheet)]
        if read and read[-1][0] > MAX_ROWS:
            raise DataError(_too_large(f"{path}, sheet {sheet.title}", read[-1][0], len(read[-1][1])))
        return sheet.title, read
    finally:
        book.close()


def _bounded(sheet) -> Iterator[tuple[int, tuple]]:
    """(row number, cells) of the rows that are not blank."""
    width = min(sheet.max_column or MAX_COLUMNS, MAX_COLUMNS)
    rows = sheet.iter_rows(max_row=MAX_ROWS + 1, max_col=width, values_only=True)
    for number, cells in enumerate(rows, start=1):
        if cells.count(None) < len(cells):
            yield number, cells


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
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > MAX_UNPACKED_BYTES:
                raise DataError(
                    f"{path}: unpacks to {unpacked:,} bytes (limit {MAX_UNPACKED_BYTES:,})\n"
                    "This is no table of subjects and ages; keep only the sheet with the ages."
                )
            for member in archive.infolist():
                if member.filename.endswith((".xml", ".rels")):
                    with archive.open(member) as part:
                        start = part.read(4096)
                    if b"<!DOCTYPE" in start or b"<!ENTITY" in start:
                        raise DataError(
                            f"{path}: {member.filename} declares XML entities; no spreadsheet program "
                            "writes these\nSave the table again as .xlsx or .csv."
                        )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(f"{path}: damaged or truncated workbook ({error})\nCopy the file again.") from error


def _too_large(place: str, rows: int, columns: int) -> str:
    return (
        f"{place}: {rows:,} rows and {columns:,} columns (limits {MAX_ROWS:,} and {MAX_COLUMNS})\n"
        "Is a cell filled or formatted far away from the table? Delete the empty rows and columns and save."
    )
