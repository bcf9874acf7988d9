"""What a single cell of a table means: an age, an id, a visit, a file, a body mass index.

Nothing is guessed: a cell that has no meaning, or more than one, raises a ValueError with the reason.
"""

import contextlib
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence

from datasets.ultrasound.flags import PER_YEAR, named_unit

# Higher ages are typing errors. In any other unit only negative ages are refused.
OLDEST = {unit: 120 * per_year for unit, per_year in PER_YEAR.items()}
LETTER = r"\d+(?:[.,]\d+)?\s*([^\W\d_])\.?"  # 45M
EMPTY = "the age is empty or a spreadsheet error such as #N/A"
FORMULA = "a formula without a stored value (open and save the file in a spreadsheet program)"
BMI_CLASSES = {18.5: "0 to 18.5", 25: "18.5 to 25", 30: "25 to 30", math.inf: "30 and above"}


def find_spelling(texts: Sequence[str], unit: str) -> dict[str, bool]:
    """How the ages of a column are written, for `read_age`. commas: with decimal commas; thousands: with
    points that may separate thousands; sexes: with letters that may be sexes or units, as in 45M and 34F."""
    letters = {
        found[1].upper()
        for text in texts
        if (found := re.fullmatch(LETTER, text)) and not re.fullmatch(r"\d{3}[DWMY]", text)
    }  # as DICOM writes ages
    sexes = bool(letters) and letters <= {"M", "W", "F"} and letters != {unit[0].upper()}
    decimals = {}
    for mark in ",.":
        numbers = [text for text in texts if re.fullmatch(rf"\d+\{mark}\d+", text)]
        groups = all(re.fullmatch(rf"[1-9]\d{{0,2}}\{mark}\d{{3}}", text) for text in numbers)
        too_old = any(float(text.replace(mark, "")) > OLDEST.get(unit, math.inf) for text in numbers)
        decimals[mark] = bool(numbers) and (too_old or not groups)
    points = any(re.search(r"(?<![\d.])\d+\.\d+(?![\d.])", text) for text in texts)  # n.a. has none
    thousands = points and not decimals["."] and unit in OLDEST
    return {"commas": decimals[","] and not points, "thousands": thousands, "sexes": sexes}


def read_age(
    cell: object, named: object, missing: Sequence[str], unit: str, spelling: Mapping[str, bool]
) -> tuple[float, bool]:
    """(the age in a cell, whether its unit is named, in the cell or beside it: `named`).

    NaN if --missing_values list the cell or the age in it: 0 stands for 000Y too. Raises ValueError with the
    reason. spelling: of `find_spelling`."""
    if is_missing(cell, missing):
        return math.nan, False
    if cell is None:
        raise ValueError(EMPTY)
    if isinstance(cell, str) and cell.startswith("="):
        raise ValueError(FORMULA)
    if hasattr(cell, "isoformat") or hasattr(cell, "total_seconds"):  # small numbers look so in such columns
        remedy = "format the column as numbers, or add one with the age on the day of the image"
        raise ValueError(f"a date or a time, not an age: {remedy}")
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError("not a number")
    if spelling["sexes"] and re.fullmatch(LETTER, str(cell).strip()):
        raise ValueError("the letter may be a sex or a unit: write months or weeks, or remove it")
    text = (f"{cell} {named}" if named else str(cell)).strip()
    if spelling["commas"]:
        text = text.replace(",", ".")
    try:
        age, with_unit = float(text.replace("_", " ")), False  # Python would read 1_000 as a number
    except ValueError:
        age, with_unit = _with_unit(text, unit), True
    if age is None:
        comma = text.count(",") == 1 and text.replace(",", "").isdigit()
        raise ValueError("not a number" + " (write a decimal point)" * comma)
    if is_missing(f"{age:g}", missing):
        return math.nan, False
    if spelling["thousands"] and isinstance(cell, str) and re.fullmatch(r"\d+\.\d+", cell.strip()):
        remedy = f"write whole {unit} without it, and others with one or two decimals"
        raise ValueError(f"the point may separate thousands: {remedy}")
    oldest = OLDEST.get(unit, math.inf)
    if not math.isfinite(age) or not 0 <= age <= oldest:
        known = f" (0 to {oldest:g})" if oldest < math.inf else ""
        raise ValueError(f"not an age in {unit}{known}")
    return age, with_unit


def _with_unit(text: str, unit: str) -> float | None:
    """'079Y', '12 months', '2y 3m' or, in weeks, '31+4', converted to `unit`; None for any other text."""
    if unit == "weeks" and (found := re.fullmatch(r"(\d+)\s*\+\s*([0-6])", text)):
        return int(found[1]) + int(found[2]) / 7
    part = r"(\d+(?:[.,]\d+)?)\s*([^\W\d_]+)\.?[\s,]*"
    if unit not in PER_YEAR or not re.fullmatch(f"(?:{part})+", text):
        return None
    parts = re.findall(part, text)
    named = [(_number(number), named_unit(word)) for number, word in parts]
    if any(word is None for _, word in named):
        return None
    return sum(number * PER_YEAR[unit] / PER_YEAR[word] for number, word in named)


def subject_id(cell: object, numeric: bool = False) -> str:
    """The id in a cell or file name, as text: 12, 12.0 and '12.0' become '12'; with `numeric` '001' becomes
    '1'. Raises ValueError."""
    if cell is None or not str(cell).strip():
        raise ValueError("the id is empty (unmerge merged cells)")
    whole = isinstance(cell, int | str) or (isinstance(cell, float) and cell.is_integer())
    if isinstance(cell, bool) or not whole:
        raise ValueError("not an id: neither text nor a whole number")
    rounded = not isinstance(cell, str) and abs(cell) >= 1e15  # more digits than a spreadsheet program keeps
    if rounded or re.fullmatch(r"\d+([.,]\d+)?E\+\d+", str(cell).strip()):
        raise ValueError("a spreadsheet program has rounded the id: take the original, as text")
    if isinstance(cell, str) and cell.startswith("="):
        raise ValueError(FORMULA)
    text = unicodedata.normalize("NFKC", cell.strip()) if isinstance(cell, str) else str(int(cell))
    if not text.isprintable():
        raise ValueError("not an id: it has unprintable characters")
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    if numeric and not (text.isascii() and text.isdigit()):
        raise ValueError("not a whole number, as --numeric_ids requires")
    return str(int(text)) if numeric else text


def visit_id(cell: object) -> str:
    """The visit in a cell or file name: '02' is '2', '20200305' or a date '2020-03-05'. Raises ValueError."""
    text = subject_id(f"{cell:%Y-%m-%d}" if hasattr(cell, "isoformat") else cell)
    day = r"^(\d{4})-?(\d\d)-?(\d\d)$"
    return re.sub(day, r"\1-\2-\3", str(int(text)) if text.isdecimal() else text)


def file_key(name: str) -> str:
    """A file name from a table or a path, made comparable: '/' between folders, no leading './'."""
    return unicodedata.normalize("NFC", name.strip()).replace("\\", "/").removeprefix("./")


def is_missing(cell: object, values: Sequence[str]) -> bool:
    """Whether a cell equals one of --missing_values, as text or as a number."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return False
    text = str(cell).strip().casefold()
    return any(text == value.strip().casefold() or _number(cell) == _number(value) for value in values)


def bmi_class(length: object, weight: object) -> str:
    """The WHO class of the body mass index, from a length in cm or m and a weight in kg; '' if unknown."""
    metres = _number(length) / (100 if _number(length) > 3 else 1)
    with contextlib.suppress(ArithmeticError):
        bmi = _number(weight) / metres**2
        if metres > 0 and 10 <= bmi <= 60:  # others are typing errors
            return next(name for limit, name in BMI_CLASSES.items() if bmi < limit)
    return ""


def _number(cell: object) -> float:
    """A cell as a number, also one with a decimal comma; NaN, which equals nothing, if it is none."""
    try:
        return float(str(cell).replace(",", "."))
    except ValueError:
        return math.nan
