"""An age as people write it, and what it is counted in: years, months, weeks, days or any other word."""

import argparse
import difflib
import math
import re
from collections.abc import Iterable

# Ages outside these are typing errors; of another unit only the sign is checked.
OLDEST = {"years": 120.0, "months": 1440.0, "weeks": 6260.0, "days": 43830.0}
PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
WORDS = {
    "years": ("y", "yr", "yrs", "year", "years", "yo", "jahre", "jaar", "ans", "anni", "\u5c81", "\u6b72"),
    "months": ("m", "mo", "mos", "month", "months", "monate", "maanden", "mois", "mesi", "\u6708"),
    "weeks": ("w", "wk", "wks", "week", "weeks", "wochen", "weken", "\u5468"),
    "days": ("d", "day", "days", "tage", "dagen", "\u5929"),
}


def named_unit(word: str) -> str | None:
    """The unit that a word means."""
    return next((unit for unit, words in WORDS.items() if word.casefold() in words), None)


def target_unit(text: str) -> str:
    """The type of --target_unit: 'Month' is months, 'trimesters' a unit of its own, 'mnths' a mistake."""
    close = difflib.get_close_matches(text.casefold(), WORDS, 1, cutoff=0.7)
    if close and not named_unit(text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: did you mean {close[0]}? ({', '.join(WORDS)}, or any other word)"
        )
    return named_unit(text) or text


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
    text, with_unit = str(cell).strip().replace(",", "." if commas else ","), False
    try:
        age = float(text)
    except ValueError:
        age, with_unit = _with_unit(text, unit), True
    if age is None:
        comma = text.count(",") == 1 and text.replace(",", "").isdigit()
        raise ValueError("not a number" + " (write a decimal point)" * comma)
    oldest = OLDEST.get(unit, math.inf)
    if not math.isfinite(age) or not 0 <= age <= oldest:
        raise ValueError(f"not an age in {unit}" + (f" (0 to {oldest:g})" if oldest < math.inf else ""))
    return age, with_unit


def has_decimal_commas(cells: Iterable[object], unit: str) -> bool:
    """Whether a column is written with decimal commas, and can not mean thousands."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    written = [text for text in texts if re.fullmatch(r"\d+,\d+", text)]
    if not written or any("." in text for text in texts):
        return False
    thousands = all(re.fullmatch(r"[1-9]\d{0,2},\d{3}", text) for text in written)
    return not thousands or any(float(text.replace(",", "")) > OLDEST.get(unit, math.inf) for text in written)


def _with_unit(text: str, unit: str) -> float | None:
    """'079Y', '12 months', '2y 3m' or, in weeks, '31+4' in `unit`; None for any other text."""
    if unit == "weeks" and (found := re.fullmatch(r"(\d+)\s*\+\s*([0-6])", text)):
        return int(found[1]) + int(found[2]) / 7
    part = r"(\d+(?:[.,]\d+)?)\s*([^\W\d_]+)\.?[\s,]*"
    parts = re.findall(part, text) if unit in PER_YEAR and re.fullmatch(f"(?:{part})+", text) else []
    named = [(float(number.replace(",", ".")), named_unit(word)) for number, word in parts]
    if not named or any(word is None for _, word in named):
        return None
    return sum(number * PER_YEAR[unit] / PER_YEAR[word] for number, word in named)
