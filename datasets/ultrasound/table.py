"""The rows of a table: the id and age in each, and the rows that cannot be used.

Ids are text ('001' and '1' are two people) unless --numeric_ids is given. Each row describes a subject; with
--visit_column a visit, with --file_column an image. Nothing is guessed: a cell that has no meaning, or more
than one, is refused with its file, sheet, row and column.
"""

import argparse
import difflib
import math
import re
import shlex
from typing import NamedTuple

import pandas as pd

from datasets.ultrasound import cells
from datasets.ultrasound.doubts import check_ages, find_other_ages, refuse_codes, warn_of_people, words_of
from datasets.ultrasound.flags import USUAL, named_unit
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.sheets import Sheet, one_line
from utils.run.errors import DataError, some
from utils.run.log import LOG

PERSON = ["subject", "age", "group", "sex", "bmi"]  # the contents of a row; the last three may be ""
TRAITS = {  # optional columns, found by the first word of their name
    "sex": ("sex", "gender", "\u6027\u522b"),
    "length": ("length", "height", "\u8eab\u9ad8"),
    "weight": ("weight", "\u4f53\u91cd"),
}


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
    check_ages(sheet, body, at, unit)
    rows = _parse_rows(body, at, problems, args)
    keys = set(rows.key)
    names = rows.group.groupby(rows.group.str.casefold()).transform("first")  # of 'Turin' and 'turin'
    if (names != rows.group).any():
        problems.notes.append(f"column {at['group']}: capitals are ignored")
    rows["group"] = names
    if "bad_ages" in args.exclude:  # an empty age contradicts no other row: REDCap has a row per event
        rows = rows.dropna(subset="age")
    refuse_codes(rows, at["age"], problems, args)
    _refuse_contradictions(rows, at.get("file", at["id"]), problems)
    usable = rows.dropna(subset="age").drop_duplicates("key").set_index("key")[PERSON]
    left_out = keys - set(usable.index)
    warn_of_people(usable, unit, sheet.where)
    if {"visit", "file"} & at.keys():
        advice = "name each visit once, each image with its folders, as in S1/1.png"
        problems.advice["duplicate_ids"] = advice
    elif others := find_other_ages(sheet.names, body, at["age"], unit):
        name = sheet.names[at["age"]]
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
        beside = f" (column {at['unit']})" if "unit" in at else ""
        problems.notes.append(f"{converted} ages name their unit{beside} and are read in {unit}")
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
    order = ["", *names, ""]
    free = [k for k, letter in enumerate(order) if letter and letter not in at.values()]
    units = next((order[k] for k in free if _has_units(sheet, at, *order[k - 1 : k + 2])), None)
    return at | ({"unit": units} if units else {})


def _has_units(sheet: Sheet, at: dict[str, str], left: str, letter: str, right: str) -> bool:
    """Whether a column has the units of the ages, as AGEU in CDISC: it is called so, or after the ages (or
    between ids and ages) or named after these, and all its cells are units (M and W alone are sexes; a Unit
    may be a ward)."""
    age, name = (sheet.names[k] for k in (at["age"], letter))
    words = [one_line(cell).rstrip(".") for cell in sheet.cells[letter].dropna()]
    known = [*map(named_unit, words)]
    if re.fullmatch(rf"(?i){re.escape(age)}[\W_]*(u|units?|einheit)", name):
        return any(known)
    own = left == at["age"] or (left, right) == (at["id"], at["age"]) or words_of(age) <= words_of(name)
    spelled = re.search(r"\w\w|[^\x00-\x7f]", " ".join(words)) or name.casefold() in ("u", "unit", "units")
    return bool(own and spelled and all(known))


def _refuse_contradictions(rows: pd.DataFrame, letter: str, problems: AgeProblems) -> None:
    """Report rows of the same key that contradict each other."""
    for key, same in rows[rows.key.duplicated(keep=False)].groupby("key", sort=False):
        if len(same[["subject", "age", "group"]].drop_duplicates()) > 1 and same.age.notna().any():
            group = ", {0.group}" if same.group.nunique() > 1 else ""
            text = f"row {{0.number}} (age {{0.age:g}}{group})"
            ages = [text.format(row).replace("nan", "none") for row in same.itertuples()]
            problems.add("duplicate_ids", f"column {letter}: {key!r} in {some(ages, 3)}")
            rows.loc[same.index, "age"] = math.nan


def _show(cell: object) -> str:
    """A cell in a message; '' if it is empty."""
    shown = repr(cell[:40]) if isinstance(cell, str) else str(cell)[:40]
    return "" if cell is None else f", {shown}"
