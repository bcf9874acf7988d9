"""What ages are counted in: years, months, weeks and days by their words, or any other word as it is."""

import argparse
import difflib
import re

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


def age_with_unit(text: str, unit: str) -> float | None:
    """'079Y', '12 months', '2y 3m' or, in weeks, '31+4' in `unit`; None for any other text."""
    if unit == "weeks" and (found := re.fullmatch(r"(\d+)\s*\+\s*([0-6])", text)):
        return int(found[1]) + int(found[2]) / 7
    part = r"(\d+(?:[.,]\d+)?)\s*([^\W\d_]+)\.?[\s,]*"
    parts = re.findall(part, text) if unit in PER_YEAR and re.fullmatch(f"(?:{part})+", text) else []
    named = [(float(number.replace(",", ".")), named_unit(word)) for number, word in parts]
    if not named or any(word is None for _, word in named):
        return None
    return sum(number * PER_YEAR[unit] / PER_YEAR[word] for number, word in named)
