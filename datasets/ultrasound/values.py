"""What stands in one cell of a table: an id, an age with or without its unit, a body mass index."""

import argparse
import math
import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import pandas as pd

# Ages outside these are typing errors. Keyed by --target_unit; another unit is only checked for its sign.
OLDEST = {"years": 120.0, "months": 1440.0, "weeks": 6260.0, "days": 43830.0}
PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
UNIT_NAMES = {
    "years": ("y", "yr", "yrs", "year", "years", "yo", "jahre", "jaar", "ans", "anni", "\u5c81", "\u6b72"),
    "months": ("m", "mo", "mos", "month", "months", "monate", "maanden", "mois", "mesi", "\u6708"),
    "weeks": ("w", "wk", "wks", "week", "weeks", "wochen", "weken", "\u5468"),
    "days": ("d", "day", "days", "tage", "dagen", "\u5929"),
}
BMI_CLASSES = {18.5: "0 to 18.5", 25: "18.5 to 25", 30: "25 to 30", math.inf: "30 and above"}


def one_line(cell: object) -> str:
    """Text without line breaks, doubled blanks and different ways to compose the same letters."""
    return " ".join(unicodedata.normalize("NFC", "" if cell is None else str(cell)).split())


def show(cell: object) -> str:
    """A cell for a message: nothing of an empty one."""
    return "" if cell is None else f", {str(cell)[:40]!r}" if isinstance(cell, str) else f", {str(cell)[:40]}"


def subject_id(cell: object, numeric: bool = False) -> str:
    """The id in a cell or file name, as text: 12, 12.0 and '12.0' are '12'; numeric: '001' and '1' are the
    same. Raises ValueError."""
    if cell is None or not str(cell).strip():
        raise ValueError("the id is empty")
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError("not an id")
    if isinstance(cell, float) and not cell.is_integer():
        raise ValueError("not an id: not a whole number")
    text = unicodedata.normalize("NFC", cell.strip()) if isinstance(cell, str) else str(int(cell))
    if not text.isprintable():
        raise ValueError("not an id: it has unprintable characters")
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    if numeric:
        if not (text.isascii() and text.isdigit()):
            raise ValueError("not a whole number (--numeric_ids)")
        text = str(int(text))
    return text


def parse_age(cell: object, unit: str, commas: bool = False) -> tuple[float, bool]:
    """(the age in a cell, whether the cell names its unit); ValueError says what is wrong with it."""
    if cell is None:
        raise ValueError("the age is empty")
    if isinstance(cell, str) and cell.startswith("="):
        raise ValueError("a formula without a stored value (open and save the file in a spreadsheet program)")
    if hasattr(cell, "isoformat"):
        raise ValueError("a date, not an age")
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        raise ValueError("not a number")
    text = str(cell).strip()
    if commas:
        text = text.replace(",", ".")
    with_unit = False
    try:
        age = float(text)
    except ValueError:
        age = _with_unit(text, unit)
        if age is None:
            comma = text.count(",") == 1 and text.replace(",", "").isdigit()
            raise ValueError("not a number" + " (write a decimal point)" * comma) from None
        with_unit = True
    oldest = OLDEST.get(unit, math.inf)
    if not math.isfinite(age) or not 0 <= age <= oldest:
        raise ValueError(f"not an age in {unit}" + (f" (0 to {oldest:g})" if oldest < math.inf else ""))
    return age, with_unit


def _with_unit(text: str, unit: str) -> float | None:
    """'079Y', '12 months', '2y 3m' or, in weeks, '31+4' in `unit`; None for any other text."""
    if unit == "weeks" and (found := re.fullmatch(r"(\d+)\s*\+\s*([0-6])", text)):
        return int(found[1]) + int(found[2]) / 7
    part = r"(\d+(?:[.,]\d+)?)\s*([^\W\d_]+)\.?[\s,]*"
    if unit not in PER_YEAR or not re.fullmatch(f"(?:{part})+", text):
        return None
    total = 0.0
    for number, letters in re.findall(part, text):
        named = named_unit(letters)
        if named is None:
            return None
        total += float(number.replace(",", ".")) * PER_YEAR[unit] / PER_YEAR[named]
    return total


def named_unit(text: str) -> str | None:
    """The unit that a word means."""
    return next((name for name, forms in UNIT_NAMES.items() if text.casefold() in forms), None)


def has_decimal_commas(cells: Iterable[object], unit: str) -> bool:
    """Whether a column is written with decimal commas, and can not mean thousands."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    written = [text for text in texts if re.fullmatch(r"\d+,\d+", text)]
    if not written or any("." in text for text in texts):
        return False
    thousands = all(re.fullmatch(r"[1-9]\d{0,2},\d{3}", text) for text in written)
    return not thousands or any(float(text.replace(",", "")) > OLDEST.get(unit, math.inf) for text in written)


def same_value(cell: object, value: str) -> bool:
    """Whether a cell holds a value of --missing_values: the same text, or the same number."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return False
    text = str(cell).strip()
    try:
        return float(text.replace(",", ".")) == float(value)
    except ValueError:
        return text.casefold() == value.strip().casefold()


def find_codes(
    people: Iterable[tuple[str, float]], args: argparse.Namespace
) -> tuple[set[float], set[float]]:
    """(ages that are more likely a code for unknown, single ages as far off) of (subject, age) pairs.

    A code is far from all other ages and repeats. Far: beyond the quartiles by three interquartile ranges and
    by as much (at least a quarter of the median) beyond the next age; or the smallest or greatest of all, as
    far from the next as three times the largest step between the others, and a quarter of the median unless
    it is written like a code (0, 99, 999). --min_age or --max_age typed for that side says that it is known.
    """
    ages = pd.Series([age for _, age in set(people)], dtype=float)
    codes: set[float] = set()
    if len(ages) < 8:
        return codes, codes
    (low, high), least = ages.quantile([0.25, 0.75]), ages.median() / 4
    reach = 3 * (high - low)
    for sign, limit in ((1, args.max_age), (-1, args.min_age)):
        values = np.sort(sign * ages.unique())
        if limit is not None or len(values) < 4 or reach <= 0:
            continue
        steps = np.diff(values)
        outside = values[1:] > (high if sign > 0 else -low) + reach
        gaps = np.flatnonzero((steps > max(reach, least)) & outside)
        if len(gaps):
            codes |= set(sign * values[gaps[0] + 1 :])
        digits = f"{abs(values[-1]):g}"
        needed = 0 if len(set(digits)) == 1 and digits[0] in "0789" else least
        if steps[-1] > 3 * steps[:-1].max() and steps[-1] >= needed:
            codes.add(sign * values[-1])
    repeated = {age for age in codes if (ages == age).sum() > 1}
    return repeated, {age for age in codes - repeated if not low - reach <= age <= high + reach}


def bmi_class(length: object, weight: object) -> str:
    """The class of the body mass index (WHO) of a length in cm or m and a weight in kg; '' where unknown."""
    try:
        metres, kilograms = float(length), float(weight)
    except (TypeError, ValueError):
        return ""
    metres = metres / 100 if metres > 3 else metres
    bmi = kilograms / metres**2 if metres > 0 else 0.0
    if not 10 <= bmi <= 60:  # a typing error
        return ""
    return next(name for limit, name in BMI_CLASSES.items() if bmi < limit)
