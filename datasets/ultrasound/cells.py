"""The cells of a table file as DataFrames, one per sheet; what can not be read is a DataError with a remedy.

The content counts, not the ending: a workbook (.xlsx, also strict Open XML), .ods and .xls where pandas has
their reader, or text in UTF-8, UTF-16, GBK or cp1252, with commas, semicolons, tabs or bars between. A
workbook is a zip archive: its sizes are checked before anything is unpacked. The published table has about
2,000 rows; what exceeds the limits is damaged or hostile.
"""

import csv
import importlib.util
import io
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.run.errors import DataError

SHEET = "Blad1"
MAX_ROWS, MAX_COLUMNS, MAX_UNPACKED_BYTES = 50_000, 128, 40_000_000
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
STRICT = {  # the namespaces of strict Open XML, and what openpyxl knows them by
    b"http://purl.oclc.org/ooxml/spreadsheetml/main": b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    b"http://purl.oclc.org/ooxml/officeDocument/relationships": b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
}


def read_sheets(path: Path, wanted: str | None = None) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """({sheet: cells}, notes for the log); the name is "" for a file of text.

    Cells are None where blank; blank rows are gone; the index is the row as a spreadsheet program counts it.
    A formula that nobody has computed yet stands there as its text, with the = in front. attrs["hidden"]
    says whether a sheet is hidden. Only the sheet `wanted` is read, or SHEET, where there is one.
    """
    if path.stat().st_size > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes (limit {MAX_UNPACKED_BYTES:,})\n"
            "This is no table of subjects and ages."
        )
    content, notes = path.read_bytes(), []
    try:
        if content.startswith((b"PK", OLE_MAGIC)):
            sheets = _read_workbook(path, content, wanted)
        else:
            sheets = {"": _read_text(path, content, notes)}
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the readers raise anything
        raise DataError(
            f"{path}: damaged or truncated workbook ({type(error).__name__}: {str(error)[:120]})\n"
            "Copy the file again, or open it in a spreadsheet program and save it as .xlsx."
        ) from error
    for name, cells in sheets.items():
        if len(cells) > MAX_ROWS or cells.shape[1] > MAX_COLUMNS:
            raise DataError(_too_large(path, name, *cells.shape))
        hidden = cells.attrs.get("hidden", False)
        cells = cells.map(lambda cell: None if pd.isna(cell) or not str(cell).strip() else cell)
        cells = cells.astype(object).where(cells.notna(), None)
        cells.index = range(1, len(cells) + 1)
        sheets[name] = cells[cells.notna().any(axis=1)]
        sheets[name].attrs["hidden"] = hidden
    return sheets, notes


def list_names(names: Sequence[str]) -> str:
    """The first twelve names, for a message."""
    names = [str(name) for name in names]
    return (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "nothing"


def _read_text(path: Path, content: bytes, notes: list[str]) -> pd.DataFrame:
    if content.lstrip()[:1] == b"<":
        raise DataError(
            f"{path}: a web page or XML, not a table, whatever its ending says\n"
            "Open it in a spreadsheet program and save it as .xlsx or as CSV in UTF-8."
        )
    text, encoding = _decode(path, content)
    if encoding != "utf-8":
        notes.append(f"{path.name}: read as {encoding}")
    if named := re.match(r"sep=(.)\r?\n", text):  # how Excel is told
        text = text[: named.start()] + "\n" + text[named.end() :]
    counts = {
        mark: Counter(line.count(mark) for line in text.splitlines()[:50] if line.strip() and mark in line)
        for mark in ";\t,|"
    }
    # The delimiter is in the same number in most lines; blanks are one where there is nothing else.
    delimiter = max(counts, key=lambda mark: max(counts[mark].values(), default=0))
    delimiter = named[1] if named else delimiter if counts[delimiter] else " "
    try:
        lines = io.StringIO(text, newline="")
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=delimiter == " "))
    except csv.Error as error:
        raise DataError(
            f"{path}: not a readable table of text ({error})\nSave it as CSV in UTF-8."
        ) from error
    width = max(map(len, rows), default=0)
    return pd.DataFrame([row + [None] * (width - len(row)) for row in rows], dtype=object)


def _decode(path: Path, content: bytes) -> tuple[str, str]:
    """(text, encoding). What is neither UTF-8 nor UTF-16 is read where its bytes leave no doubt: Chinese in
    GBK comes in pairs of high bytes, the letters of cp1252 stand alone between ASCII."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16"), "utf-16"
    try:
        if not re.search(rb"[\x00-\x08]", content):
            return content.decode("utf-8-sig"), "utf-8"
        sides = [content[k::2].count(0) for k in (0, 1)]  # ASCII in UTF-16 has a zero in every other byte
        if max(sides) > len(content) // 3 and min(sides) == 0:
            encoding = "utf-16-le" if sides[1] else "utf-16-be"
            return content.decode(encoding), encoding
        raise DataError(
            f"{path}: not a table: the file is not text\n"
            "Name a table with --excel_path; one that is open in a program leaves a lock file of its name."
        )
    except UnicodeDecodeError:
        runs = {len(run) for run in re.findall(rb"[\x80-\xff]+", content)}
    for encoding, fits in (("gbk", all(n % 2 == 0 for n in runs)), ("cp1252", runs == {1})):
        try:
            if fits:
                return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise DataError(
        f"{path}: not a readable table of text: its encoding is not UTF-8 and can not be known\n"
        "Save it as .xlsx, or as CSV in UTF-8."
    )


def _read_workbook(path: Path, content: bytes, wanted: str | None) -> dict[str, pd.DataFrame]:
    content, engine = _check_workbook(path, content)
    options = {"header": None, "dtype": object, "nrows": MAX_ROWS + 1}
    with pd.ExcelFile(io.BytesIO(content), engine=engine) as book:
        names = [str(name) for name in book.sheet_names]
        if wanted is not None and wanted not in names:
            raise DataError(
                f"{path}: no sheet {wanted!r}; there are {list_names(names)}\nName one with --sheet."
            )
        chosen = wanted or (SHEET if SHEET in names else None)
        sheets = {}
        for name in [chosen] if chosen else names:
            sheet = book.book[name] if engine == "openpyxl" else None
            if not hasattr(sheet, "iter_rows") and sheet is not None:
                continue  # a sheet that is only a chart
            rows, columns = (sheet.max_row or 0, sheet.max_column or 0) if sheet is not None else (0, 0)
            if rows > MAX_ROWS or columns > MAX_COLUMNS:
                raise DataError(_too_large(path, name, rows, columns))
            # The sheet's own statement of its size may be missing or wrong: the reading is bounded as well.
            sheets[name] = pd.read_excel(book, name, **options)
            sheets[name].attrs["hidden"] = getattr(sheet, "sheet_state", "visible") != "visible"
    for name, cells in sheets.items():
        if engine == "openpyxl" and cells.isna().any(axis=None):  # an uncomputed formula reads as blank
            typed = pd.read_excel(
                io.BytesIO(content), name, engine=engine, engine_kwargs={"data_only": False}, **options
            )
            formulas = typed.map(lambda cell: isinstance(cell, str) and cell.startswith("="))
            sheets[name] = typed.where(cells.isna() & formulas, cells)
            sheets[name].attrs = cells.attrs
    return sheets


def _check_workbook(path: Path, content: bytes) -> tuple[bytes, str]:
    """(the file in a form that can be read, pandas' engine for it)."""
    if content.startswith(OLE_MAGIC):
        if "EncryptedPackage".encode("utf-16-le") in content:
            raise DataError(
                f"{path}: protected by a password\nSave it as .xlsx without a password, or as .csv."
            )
        return content, _engine(path, "xlrd", "an old .xls workbook")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked, names = sum(member.file_size for member in archive.infolist()), archive.namelist()
        if unpacked > MAX_UNPACKED_BYTES:
            raise DataError(
                f"{path}: unpacks to {unpacked:,} bytes (limit {MAX_UNPACKED_BYTES:,})\n"
                "This is no table of subjects and ages; keep only the sheet with the ages."
            )
        if "content.xml" in names:
            return content, _engine(path, "odf", "an OpenDocument sheet (.ods)")
        if "xl/workbook.xml" not in names:
            kind = "a binary workbook (.xlsb)" if "xl/workbook.bin" in names else "a zip archive, no workbook"
            raise DataError(f"{path}: {kind}\nOpen it in a spreadsheet program and save it as .xlsx or .csv.")
        if not any(name in archive.read("xl/workbook.xml") for name in STRICT):
            return content, "openpyxl"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as changed:
            for name in names:
                part = archive.read(name)
                for strict, usual in STRICT.items():
                    part = part.replace(strict, usual)
                changed.writestr(name, part)
    return buffer.getvalue(), "openpyxl"


def _engine(path: Path, engine: str, kind: str) -> str:
    if importlib.util.find_spec(engine) is None:
        package = {"odf": "odfpy"}.get(engine, engine)
        raise DataError(f"{path}: {kind}\nSave it as .xlsx or .csv, or run: pip install {package}")
    return engine


def _too_large(path: Path, sheet: str, rows: int, columns: int) -> str:
    return (
        f"{path}{f', sheet {sheet}' if sheet else ''}: {rows:,} rows and {columns:,} columns (limits "
        f"{MAX_ROWS:,} and {MAX_COLUMNS})\n"
        "Is a cell filled or formatted far away from the table? Delete the empty rows and columns and save."
    )
