"""What may be wrong with a table although its cells can be read: another unit, codes for unknown ages, ages
in two parts, several ids of one person. What no good table has is an error, the rest a warning."""

import argparse
import math
import re
import unicodedata

import numpy as np
import pandas as pd

from datasets.ultrasound.cells import OLDEST
from datasets.ultrasound.flags import PER_YEAR, USUAL, named_unit
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.sheets import Sheet
from utils.run.errors import CommandError, DataError, counted, some
from utils.run.log import LOG

# Removed before ids are compared: marks between letters and digits, and leading zeros.
LOOSE = r"(?<=[^\W\d_])[\W_]+(?=\d)|(?<=\d)[\W_]+(?=[^\W\d_])|(?<!\d)0+(?=\d)"


def check_ages(sheet: Sheet, body: pd.DataFrame, at: dict[str, str], unit: str) -> None:
    """Raise CommandError if the ages have another unit than --target_unit, DataError if they have two parts.
    Warn if decimal commas may have cut them. body: the rows; at: {role: letter of its column}."""
    name, ages, where = sheet.names[at["age"]], body[at["age"]], sheet.where
    _check_unit(name, unit, where)
    _check_decimals(name, ages.dropna(), unit, where)
    _check_unit(f"{name} ({sheet.units.get(name)})", unit, f"{where} and its .json")
    for number, first in ages.head(1).items():
        _check_unit(str(first), unit, f"{where}, row {number}")  # a row of units
    for letter, other in sheet.names.items():  # GA_weeks and GA_days
        new, lost = words_of(other) - words_of(name), words_of(name) - words_of(other)
        smaller = named_unit(min(new)) if len(new) == 1 and all(map(named_unit, lost)) else None
        if (most := PER_YEAR.get(smaller, 0) / PER_YEAR.get(unit, math.inf)) > 1:
            numbers = body[[at["age"], letter]].apply(pd.to_numeric, errors="coerce")
            if 0 < numbers[letter].max() < most and (numbers % 1).max().eq(0).all():
                what = f"{name!r} has whole {unit}, and {other!r} seems to have the {smaller} beyond them"
                raise DataError(f"{where}: {what}\nWrite both into one column, as 3{unit[0]} 2{smaller[0]}.")
    right = body.loc[:, at["age"] :].drop(columns=[at[role] for role in sheet.asked], errors="ignore")
    filled = right.dropna(axis=1, how="all")  # of 45,3 without quotes, the 3
    digits = {*filled.iloc[:, 0].dropna()} if filled.shape[1] == 1 else set()
    single = sheet.cells.attrs.get("delimiter") == "," and len(digits) > 7 and digits <= {*"0123456789"}
    if single and not ages.astype(str).str.contains("[.,]").any():
        what = f"the ages have no decimals, and column {filled.columns[0]} has only single digits"
        LOG.warning(f"{where}: {what}: did decimal commas split the ages? Then save it as .xlsx")


def _check_unit(name: str, unit: str, where: str) -> None:
    """Raise CommandError if the name of the age column has another unit than --target_unit at its end, in
    brackets, in the plural or short: Age (months), agemonths, Alter.Monate, age_days_corrected, age_mo_t1;
    "at 12 months" and "at wk 12" are none."""
    text = re.sub(r"([a-z])([A-Z][a-z])", r"\1 \2", unicodedata.normalize("NFKC", name)).casefold()
    text = re.sub(r"(age|alter)(in)?(?=[a-z]{2})", r"\1 ", text)
    words = r"[(\[](L+)[)\]]|(L+)[\W_]*$|(?<!L)(LL(?![\W_]*\d)|LL+[sne])(?![^\W_])".replace("L", r"[^\W\d_]")
    found = [match for match in re.finditer(words, text) if not re.search(r"\d\W*$", text[: match.start()])]
    units = [*filter(None, (named_unit("".join(filter(None, match.groups()))) for match in found))]
    if units and unit in OLDEST and unit not in units:
        named = units[0]
        remedy = f"Pass --target_unit {named}, convert the column (for a trained run), or rename it if wrong."
        raise CommandError(f"{where}: {name!r} names {named}, but --target_unit is {unit}\n{remedy}")


def _check_decimals(name: str, ages: pd.Series, unit: str, where: str) -> None:
    """Raise DataError if the digits behind the points may be a smaller unit, as in GA (weeks.days), or if
    no decimal of many weeks is above 6."""
    pairs = re.findall(r"([^\W\d_]+)\s*[.,:;+/]\s*([^\W\d_]+)", name)
    units = next(([*map(named_unit, pair)] for pair in pairs if all(map(named_unit, pair))), None)
    numbers = [re.fullmatch(r"(\d+)[.,](\d+)", str(cell).strip()) for cell in ages]
    digits = [number.groups() for number in numbers if number and int(number[2])]
    ends = {end for _, end in digits}
    if unit == "weeks" and len(digits) > 19 and len(ends) > 4 and ends <= set("123456"):
        units = ["weeks", "days"]
    if units and digits and all(len(end) < 3 for end in ends):
        whole, end = digits[0]
        what = f"{whole}.{end} in {name!r} may be {whole} {units[0]} and {end} {units[1]}"
        remedy = "or decimals in full, and one unit as the name"
        raise DataError(f"{where}: {what}\nWrite {whole}{units[0][0]} {end}{units[1][0]}, {remedy}.")


def find_other_ages(names: dict[str, str], body: pd.DataFrame, letter: str, unit: str) -> list[str]:
    """The columns of ages at other times than the one of ages, `letter`: one word tells them apart, as in Age
    2015 and Age 2021, or they are up to 15 years later."""
    own, ages, found = words_of(names[letter]), pd.to_numeric(body[letter], errors="coerce"), []
    for other, name in names.items():
        new, lost = words_of(name) - own, own - words_of(name)
        if any(re.search(USUAL["age"], word) for word in own - lost) and not any(map(named_unit, new)):
            later = (pd.to_numeric(body[other], errors="coerce") - ages).dropna()
            years = later / PER_YEAR.get(unit, math.inf)
            if len(new) == len(lost) == 1 or (years.between(0, 15).all() and years.max() >= 1):
                found.append(name)
    return found


def words_of(name: str) -> set[str]:
    words = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)", name)
    return {word.casefold() for word in words} - {""}


def refuse_codes(rows: pd.DataFrame, letter: str, problems: AgeProblems, args: argparse.Namespace) -> None:
    """Report ages that are probably codes for "unknown"; note a far age that occurs once.

    A code repeats and is far from all other ages: one of at most three values beyond the quartiles by three
    interquartile ranges, after a gap as large (and of a quarter of the median); or the smallest or largest
    age, after a gap three times as large as any other (and of a quarter of the median, unless it looks like a
    code: 0, 99, 999). A given --min_age or --max_age says that the ages on that side are real."""
    ages = rows[["subject", "age"]].drop_duplicates().age.dropna()  # once per subject
    low, high = ages.quantile([0.25, 0.75])
    reach, least, far = 3 * (high - low), ages.median() / 4, set()
    for sign, limit in ((1, args.max_age), (-1, args.min_age)):
        values = np.sort(sign * ages.unique())
        if limit is not None or len(ages) < 8 or len(values) < 4 or reach <= 0:
            continue
        steps = np.diff(values)
        outside = values[1:] > (high if sign > 0 else -low) + reach
        for k in np.flatnonzero((steps > max(reach, least)) & outside):
            far |= set(sign * values[k + 1 :]) if k > len(values) - 5 else set()  # more values are people
        like_code = re.fullmatch(r"0+|7+|8+|9+", f"{abs(values[-1]):g}")
        n = (values >= values[-1] - 2).sum() if like_code and sign > 0 else 1  # 97 and 98 go with 99
        if n < len(steps) and steps[-n] > 3 * steps[:-n].max() and (like_code or steps[-n] >= least):
            far |= set(sign * values[-n:])
    codes = {age for age in far if (ages == age).sum() > 1}
    codes |= {age for age in far if {age + 1, age + 2} & codes}
    half = "where half of the ages are {:g} to {:g}".format(*rows.age.quantile([0.25, 0.75]))
    for row in rows[rows.age.isin(far)].itertuples():
        place = f"row {row.number}, column {letter} (subject {row.subject})"
        if row.age in codes:
            problems.add("far_ages", place, f"{row.age:g}, {half}")
            rows.loc[row.Index, "age"] = math.nan
        else:
            problems.notes.append(f"one age is far from all others: {place}, {row.age:g}, {half}")
    if codes:
        named = " ".join(f"{code:g}" for code in sorted(codes))
        limits = "if they are real ages: give their limit, --min_age or --max_age"
        problems.advice["far_ages"] = f"if they mean an unknown age: --missing_values {named}; {limits}"


def warn_of_people(usable: pd.DataFrame, unit: str, where: str) -> None:
    """Warn of people whose ages are 20 years apart or do not fit the dates of the visits, and of ids that may
    be one person. usable: the rows, by their keys."""
    visits = usable.index.to_series().str.extract(r" visit (\d{4}-\d\d-\d\d)$")[0]
    dates, years = pd.to_datetime(visits, errors="coerce"), usable.age / PER_YEAR.get(unit, math.inf)
    born = years - (dates - dates.min()).dt.days / 365.25
    if unit not in ("years", "months"):  # in weeks, of another pregnancy
        born[:] = np.nan
    for values, most, question in ((years, 20, "is it one person?"), (born, 1.1, "do they fit the visits?")):
        people = values.groupby(usable.subject)
        apart = people.max() - people.min()
        if (apart > most).any():
            ages = some([f"{age:g}" for age in usable.age[usable.subject == apart.idxmax()]], 3)
            what = (
                f"ages of {counted((apart > most).sum(), 'subjects')}, such as {ages} of {apart.idxmax()!r}"
            )
            LOG.warning(f"{where}: {what}: {question}")
    _warn_of_parts(usable.groupby("subject").age.mean(), where)


def _warn_of_parts(ages: pd.Series, where: str) -> None:
    """Warn of ids (the index) that may be one person, as a split between them measures memory: those that
    differ only in LOOSE marks and capitals, and if most ids do, groups that differ in one word or number,
    such as L_12 and R_12, and not in age (at the end, as 12L and 12R: hardly)."""
    spelled = ages.index.str.casefold().str.replace(LOOSE, "", regex=True)
    twice = spelled.duplicated(keep=False)
    if twice.any():
        alike = " and ".join(map(repr, ages.index[spelled == spelled[twice][0]]))
        what = f"{twice.sum()} ids differ only in capitals, marks or leading zeros, such as {alike}: are they"
        LOG.warning(f"{where}: {what} one person? Then write them alike: a split must not divide people")
    parts = [re.findall(r"[^\W\d_]+|\d+", name)[::-1] for name in ages.index]
    for k in range(9):  # from the end
        kept = [part[:k] + part[k + 1 :] if k < len(part) else [] for part in parts]
        stems = np.array([*map(" ".join, kept)], str)
        people = ages[stems != ""].groupby(stems[stems != ""])
        size, spread = people.size(), people.max() - people.min()
        several, alike = size > 1, spread <= (0 if k else 0.05 * (ages.max() - ages.min()))
        most = 2 * size[several].sum() >= len(ages) and several.sum() > 3
        if most and alike[several].mean() > 0.9:
            such = " and ".join(ages.index[stems == size.index[several][0]][:2])
            what = f"most ids differ in one part only, hardly in age, such as {such}: are they one person?"
            remedy = "A split must not divide people: put person and rest into two columns and name both"
            LOG.warning(f"{where}: {what} {remedy} (--id_column, --visit_column, --id_pattern)")
            break
