"""The rows of a table: the id and age in each, and the rows that cannot be used.

Ids are text ('001' and '1' are two people) unless --numeric_ids is given. Each row describes a subject; with
--visit_column a visit, with --file_column an image. Nothing is guessed: a cell that has no meaning, or more
than one, is refused with its file, sheet, row and column.
"""

import argparse
import difflib
import itertools
import math
import re
import shlex
from typing import NamedTuple

import numpy as np
import pandas as pd

from datasets.ultrasound import cells
from datasets.ultrasound.flags import named_unit
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.sheets import Sheet, one_line
from utils.run.errors import DataError, some
from utils.run.log import LOG

PERSON = ["subject", "age", "group", "sex", "bmi"]  # the contents of a row; the last three may be ""
# Common names of the required columns; proposed when the table lacks the name that the flag gives.
USUAL = {
    "id": r"\b(id|subject|patient|participant|number|nr|no|case)\b|id$|\u7f16\u53f7|\u7de8\u865f",
    "age": r"age\b|\b(alter|edad|leeftijd|idade|eta)\b|\u5e74\u9f84|\u5e74\u9f61|\u5e74\u9f62",
}
TRAITS = {  # optional columns, found by the first word of their name
    "sex": ("sex", "gender", "\u6027\u522b"),
    "length": ("length", "height", "\u8eab\u9ad8"),
    "weight": ("weight", "\u4f53\u91cd"),
}
# Removed before ids are compared: marks between letters and digits, and leading zeros.
LOOSE = r"(?<=[^\W\d_])[\W_]+(?=\d)|(?<=\d)[\W_]+(?=[^\W\d_])|(?<!\d)0+(?=\d)"


class AgeTable(NamedTuple):
    """The usable rows. A row's key, which images are matched with, is "12", "12 visit 2" or a file name."""

    where: str  # "FILE, sheet Blad1, Healthy"
    rows: pd.DataFrame  # the columns PERSON; the index is the key
    left_out: set[str]  # keys of rows that cannot be used
    problems: AgeProblems
    by_file: bool  # keys are file names (--file_column, DICOM headers)


def read_rows(sheet: Sheet, args: argparse.Namespace) -> AgeTable:
    """Read the rows below the header.

    A row without a usable id and age goes to `problems` instead of `rows`, as bad_ids, bad_ages, far_ages,
    bad_groups or duplicate_ids (all rows of that id); the caller refuses or excludes it. Rows whose age is
    one of --missing_values are only counted. Raises DataError if a column is missing, CommandError if the
    name of the age column states another unit than --target_unit."""
    at, unit, problems = _find_columns(sheet), args.target_unit, sheet.problems
    if sheet.wider:
        cause = "Did a decimal comma split a cell, or does a column have no name? Save it as .xlsx."
        wider = some(sheet.wider, 3)
        raise DataError(f"{sheet.where}: more cells than the header in row {wider}\n{cause}")
    body = sheet.cells[sheet.cells[[at["id"], at["age"]]].notna().any(axis=1)]  # of this cohort alone
    name = sheet.names[at["age"]]
    cells.check_unit(name, unit, sheet.where)
    cells.check_decimals(name, body[at["age"]].dropna(), sheet.where)
    cells.check_unit(f"{name} ({sheet.units.get(name)})", unit, f"{sheet.where} and its .json")
    for number, first in body[at["age"]].head(1).items():
        cells.check_unit(str(first), unit, f"{sheet.where}, row {number}")  # a row of units
    rows = _parse_rows(body, at, problems, args)
    keys = set(rows.key)
    names = rows.group.groupby(rows.group.str.casefold()).transform("first")  # of 'Turin' and 'turin'
    if (names != rows.group).any():
        problems.notes.append(f"column {at['group']}: capitals are ignored")
    rows["group"] = names
    if "bad_ages" in args.exclude:  # an empty age contradicts no other row: REDCap has a row per event
        rows = rows.dropna(subset="age")
    _refuse_codes(rows, at["age"], problems, args)
    _refuse_contradictions(rows, at.get("file", at["id"]), problems)
    usable = rows.dropna(subset="age").drop_duplicates("key").set_index("key")[PERSON]
    left_out = keys - set(usable.index)
    _warn_of_parts(usable.groupby("subject").age.mean(), sheet.where)
    if {"visit", "file"} & at.keys():
        advice = "name each visit once, each image with its folders, as in S1/1.png"
        problems.advice["duplicate_ids"] = advice
    elif others := [other for other in sheet.names.values() if _is_other_age(other, name)]:
        what = f"of the columns {' and '.join(map(repr, [name, *others]))} only {name!r} is read"
        remedy = "is it the age in all images? Else write a row per visit (--visit_column)"
        LOG.warning(f"{sheet.where}: {what}: {remedy}")
    return AgeTable(sheet.where, usable, left_out, problems, by_file="file" in at)


def _parse_rows(
    body: pd.DataFrame, at: dict[str, str], problems: AgeProblems, args: argparse.Namespace
) -> pd.DataFrame:
    """number, key and PERSON of each row with an id; the age is NaN if it is unusable."""
    unit, codes = args.target_unit, args.missing_values
    written = [cell.strip() for cell in body[at["age"]] if isinstance(cell, str)]
    found, converted, spelling = [], 0, cells.find_spelling(written, unit)
    for number, values in zip(body.index, body[list(at.values())].to_numpy(), strict=True):
        cell, age, role = dict(zip(at, values, strict=True)), math.nan, "id"
        try:
            subject = key = cells.subject_id(cell["id"], args.numeric_ids)
            if "visit" in at:
                role = "visit"
                key = f"{subject} visit {cells.visit_id(cell['visit'])}"
            if "file" in at:
                role = "file"
                name = cells.subject_id(cell["file"])  # of the number 5.0: 5
                key = cells.file_key(cell["file"] if isinstance(cell["file"], str) else name)
        except ValueError as error:
            problems.add("bad_ids", f"row {number}, column {at[role]}{_show(cell[role])}", str(error))
            continue
        if "group" in at and cell["group"] is None:
            problems.add("bad_groups", f"row {number}, column {at['group']}", "the group is empty")
        else:
            try:
                age, with_unit = cells.read_age(cell["age"], cell.get("unit"), codes, unit, spelling)
                converted += with_unit
                problems.missing += math.isnan(age)
            except ValueError as error:
                place = f"row {number}, column {at['age']} (subject {subject}){_show(cell['age'])}"
                problems.add("bad_ages", place, str(error))
        bmi = cells.bmi_class(cell.get("length"), cell.get("weight"))
        traits = one_line(cell.get("group")), one_line(cell.get("sex")).upper(), bmi
        found.append((number, key, subject, age, *traits))
    if converted:
        problems.notes.append(f"{converted} ages name their unit and are read in {unit}")
    if spelling["commas"]:
        problems.notes.append(f"column {at['age']}: commas are read as decimal commas")
    return pd.DataFrame(found, columns=["number", "key", *PERSON])


def _find_columns(sheet: Sheet) -> dict[str, str]:
    """{role: letter of its column}. Case, blanks and line breaks in names are ignored.

    sex, length, weight and the unit of the age are included if the table has them; units may follow the names
    of the first three. Raises one DataError for all missing columns, which proposes similar names with flags.
    """
    at, missing, proposed, where = {}, {}, {}, f"{sheet.where}, row {sheet.header}"
    names = {letter: name.casefold() for letter, name in sheet.names.items()}
    for role, asked in sheet.asked.items():
        same = [letter for letter, name in names.items() if name == one_line(asked).casefold()]
        if len(same) > 1:
            remedy = f"Rename or delete all but one, or name another with --{role}_column."
            found = f"occurs {len(same)} times ({' and '.join(same)})"
            raise DataError(f"{where}: column {asked!r} {found}\n{remedy}")
        if same:
            at[role] = same[0]
            continue
        missing[f"--{role}_column"] = asked
        # Propose the first name that resembles the one asked for, contains it or is a common one.
        free = [name for letter, name in names.items() if letter not in {*at.values(), *proposed.values()}]
        close = difflib.get_close_matches(asked.casefold(), free, 1)
        close += [name for name in free if asked.casefold() in name]
        close += [name for name in free if role in USUAL and re.search(USUAL[role], name)]
        if close:
            proposed[role] = next(letter for letter, name in names.items() if name == close[0])
    if missing:
        flags = [f"--{role}_column {shlex.quote(sheet.names[k])}" for role, k in proposed.items()]
        hint = f" Did you mean {' '.join(flags)}?" if flags else ""
        none = [f" ({flag} '' for none)" for flag in missing if flag not in ("--id_column", "--age_column")]
        lacks = f"columns {sheet.cells.columns[0]} to {sheet.cells.columns[-1]}: no column"
        raise DataError(
            f"{where}, {lacks} {' and no '.join(map(repr, missing.values()))}\n"
            f"Found: {some(sheet.names.values(), 12) or 'nothing'}.{hint}\n"
            f"Name it with {' and '.join(missing)}{''.join(none[:1])}, or the row of names with --header_row."
        )
    for trait, words in TRAITS.items():
        same = [letter for letter, name in names.items() if re.split(r"[\s(\[_,/]", name)[0] in words]
        if len(same) == 1:
            at[trait] = same[0]
    for left, letter in itertools.pairwise(names):  # a column of units, such as AGEU in CDISC
        called = re.fullmatch(rf"({re.escape(names[at['age']])}[\W_]*)?(u|units?|einheit)", names[letter])
        known = [named_unit(one_line(cell).rstrip(".")) for cell in sheet.cells[letter].dropna()]
        if called and any(known) and (called[1] or (left == at["age"] and all(known))):  # Unit may be a ward
            at["unit"] = letter
    return at


def _refuse_codes(rows: pd.DataFrame, letter: str, problems: AgeProblems, args: argparse.Namespace) -> None:
    """Report ages that are probably codes for "unknown"; note a far age that occurs once.

    A code repeats and is far from all other ages: either beyond the quartiles by three interquartile ranges,
    after a gap as large (and of a quarter of the median); or the smallest or largest age, after a gap three
    times as large as any other (and of a quarter of the median, unless it looks like a code: 0, 99, 999).
    A given --min_age or --max_age says that the ages on that side are real."""
    ages = rows[["subject", "age"]].drop_duplicates().age.dropna()  # once per subject
    low, high = ages.quantile([0.25, 0.75])
    reach, least, far = 3 * (high - low), ages.median() / 4, set()
    for sign, limit in ((1, args.max_age), (-1, args.min_age)):
        values = np.sort(sign * ages.unique())
        if limit is not None or len(ages) < 8 or len(values) < 4 or reach <= 0:
            continue
        steps = np.diff(values)
        outside = values[1:] > (high if sign > 0 else -low) + reach
        for k in np.flatnonzero((steps > max(reach, least)) & outside)[:1]:
            far |= set(sign * values[k + 1 :])
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


def _refuse_contradictions(rows: pd.DataFrame, letter: str, problems: AgeProblems) -> None:
    """Report rows of the same key that contradict each other."""
    for key, same in rows[rows.key.duplicated(keep=False)].groupby("key", sort=False):
        if len(same[["subject", "age", "group"]].drop_duplicates()) > 1 and same.age.notna().any():
            group = ", {0.group}" if same.group.nunique() > 1 else ""
            text = f"row {{0.number}} (age {{0.age:g}}{group})"
            ages = [text.format(row).replace("nan", "none") for row in same.itertuples()]
            problems.add("duplicate_ids", f"column {letter}: {key!r} in {some(ages, 3)}")
            rows.loc[same.index, "age"] = math.nan


def _warn_of_parts(ages: pd.Series, where: str) -> None:
    """Warn of ids (the index) that may be one person, as a split between them measures memory: those that
    differ only in LOOSE marks and capitals, and if most ids do, groups that differ only in their last letters
    or digits and hardly in age, such as 12L and 12R."""
    spelled = ages.index.str.casefold().str.replace(LOOSE, "", regex=True)
    twice = spelled.duplicated(keep=False)
    if twice.any():
        alike = " and ".join(map(repr, ages.index[spelled == spelled[twice][0]]))
        what = f"{twice.sum()} ids differ only in capitals, marks or leading zeros, such as {alike}: are they"
        LOG.warning(f"{where}: {what} one person? Then write them alike: a split must not divide people")
    stems = ages.index.str.replace(r"[\W_]*([^\W\d_]+|\d+)$", "", regex=True)
    groups = ages[stems != ""].groupby(stems[stems != ""])
    spread = groups.agg(np.ptp)[groups.size() > 1]
    most = len(spread) > 4 and 2 * groups.size()[spread.index].sum() >= len(ages)
    if most and (spread <= 0.05 * np.ptp(ages)).mean() > 0.9:
        alike = " and ".join(ages.index[stems == spread.index[0]][:2])
        what = f"most ids differ only at their ends, and hardly in age, such as {alike}: are they one person?"
        remedy = "A split must not divide people: put person and rest into two columns and name both"
        LOG.warning(f"{where}: {what} {remedy} (--id_column, --visit_column, --id_pattern)")


def _is_other_age(other: str, name: str) -> bool:
    """Whether one word tells a column from the one of ages: Age 2015 and Age 2021, V1 age and V2 age."""

    def words_of(text: str) -> set[str]:
        return {word.casefold() for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z\d])", text)}

    theirs, own = words_of(other), words_of(name)
    shared, new, lost = theirs & own, theirs - own, own - theirs
    of_age = any(re.search(USUAL["age"], word) for word in shared)
    return of_age and len(new) == len(lost) == 1 and not named_unit(min(new))


def _show(cell: object) -> str:
    """A cell in a message; '' if it is empty."""
    shown = repr(cell[:40]) if isinstance(cell, str) else str(cell)[:40]
    return "" if cell is None else f", {shown}"
