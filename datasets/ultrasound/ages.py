"""What ages are counted in (years, months, weeks, days or any other word), and what is hardly an age."""

import argparse
import difflib
import math
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

# Ages outside these are typing errors; of another unit only the sign is checked.
OLDEST = {"years": 120.0, "months": 1440.0, "weeks": 6260.0, "days": 43830.0}
PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
WORDS = {
    "years": ("y", "yr", "yrs", "year", "years", "yo", "jahr", "jahre", "jahren", "jaar", "ans", "anni",
              "a\u00f1os", "anos", "\u5c81", "\u6b72"),
    "months": ("m", "mo", "mos", "month", "months", "monat", "monate", "monaten", "maanden", "mois", "mesi",
               "meses", "\u6708", "\u4e2a\u6708"),
    "weeks": ("w", "wk", "wks", "week", "weeks", "woche", "wochen", "weken", "semanas", "semaines", "\u5468"),
    "days": ("d", "day", "days", "tag", "tage", "tagen", "dagen", "jours", "dias", "\u5929"),
}  # fmt: skip


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


def has_decimal_commas(cells: Iterable[object], unit: str) -> bool:
    """Whether a column is written with decimal commas, and can not mean thousands."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    written = [text for text in texts if re.fullmatch(r"\d+,\d+", text)]
    if not written or any("." in text for text in texts):
        return False
    thousands = all(re.fullmatch(r"[1-9]\d{0,2},\d{3}", text) for text in written)
    return not thousands or any(float(text.replace(",", "")) > OLDEST.get(unit, math.inf) for text in written)


def find_codes(ages: pd.Series, args: argparse.Namespace) -> tuple[set[float], set[float]]:
    """(ages that are more likely a code for unknown, single ages as far off) of ages, each once per subject.

    A code is far from all other ages and repeats. Far: beyond the quartiles by three interquartile ranges and
    by as much (at least a quarter of the median) beyond the next age; or the smallest or greatest of all, as
    far from the next as three times the largest step between the others, and a quarter of the median unless
    it is written like a code (0, 99, 999). --min_age or --max_age typed for that side says that it is known.
    """
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
