"""Images matched with rows: which person and which age every image has, and everything that does not fit.

Nothing is dropped silently. What is wrong with single rows and files is collected by kind, and refused
unless its kind is one that the caller excludes (--exclude KIND ...).
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from datasets.ultrasound.files import Source, list_images
from datasets.ultrasound.flags import ID_PATTERN as ID_PATTERN  # for the scripts, until they use flags.py
from datasets.ultrasound.flags import PROBLEMS
from datasets.ultrasound.table import AgeTable, read_age_table, subject_id
from utils.run.errors import CommandError, DataError


@dataclass
class Records:
    """What the folders and tables hold."""

    images: pd.DataFrame  # path, subject and age of every image that has an age
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # a sentence each
    rows: int = 0


def collect_records(sources: Sequence[Source], args: argparse.Namespace) -> Records:
    """Match the images of every source with the rows of its own table and cohort, never with another's."""
    try:
        pattern = re.compile(args.id_pattern)
    except re.error as error:
        raise CommandError(f"--id_pattern {args.id_pattern!r} is no regular expression: {error}") from error
    if pattern.groups != 1:
        raise CommandError(
            f"--id_pattern {args.id_pattern!r} has {pattern.groups} groups; one is needed, around the id"
        )
    images, problems, rows = [], defaultdict(list), 0
    for source in sources:
        table = read_age_table(source.table, source.cohort, args)
        rows += len(table.ages)
        for kind, entries in table.problems.items():
            problems[kind] += [f"{table.where}, {entries[0]}", *entries[1:]]
        images += _match(source, table, pattern, args.numeric_ids, problems)
    return Records(pd.DataFrame(images, columns=["path", "subject", "age"]), problems, rows)


def _match(
    source: Source, table: AgeTable, pattern: re.Pattern, numeric_ids: bool, problems: dict[str, list[str]]
) -> list[tuple]:
    """(path, subject, age) of the images of one source; what does not fit goes to `problems`."""
    images, seen = [], set()
    for path in list_images(source.images):
        match = pattern.search(path.stem)
        try:
            subject = subject_id(match[1] if match else None, numeric_ids)
        except ValueError:
            problems["unknown_names"].append(f"{path.name} (pattern {pattern.pattern})")
            continue
        seen.add(subject)
        if subject in table.ages:
            images.append((path, source.prefix + subject, table.ages[subject]))
        elif subject not in table.left_out:  # whose row is a problem already, is not reported again
            problems["images_without_row"].append(f"{path.name}{_look_alike(subject, table.ages)}")
    problems["rows_without_image"] += [source.prefix + name for name in sorted(table.ages.keys() - seen)]
    return images


def _look_alike(subject: str, ages: Mapping[str, float]) -> str:
    forms = (subject.lstrip("0"), *(subject.zfill(digits) for digits in (2, 3, 4)))
    other = next((name for name in forms if name != subject and name in ages), None)
    return f" (the table has {other!r}: pass --numeric_ids if they are one)" if other else ""


def refuse_problems(problems: Mapping[str, Sequence[str]], exclude: Collection[str] = ()) -> None:
    """One DataError for all problems that are not excluded: of each kind the number and the first entries."""
    refused = [kind for kind in PROBLEMS if problems.get(kind) and kind not in exclude]
    if not refused:
        return
    lines = [f"{len(problems[kind])} {PROBLEMS[kind]}: {list_some(problems[kind], 10)}" for kind in refused]
    if len(lines) > 4:
        rest = "; ".join(f"{len(problems[kind])} {PROBLEMS[kind]}" for kind in refused[3:])
        lines = [*lines[:3], rest]
    lines.append(f"Correct the data, or leave them out with --exclude {' '.join(refused)}")
    raise DataError("\n".join(lines))


def list_some(entries: Sequence[str], shown: int, count: int | None = None) -> str:
    """The first entries and how many more there are."""
    count = len(entries) if count is None else count
    shown = min(shown, len(entries))
    return "; ".join(entries[:shown]) + (f"; and {count - shown} more" if count > shown else "")


def limit_ages(images: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """The images of subjects within --min_age and --max_age."""
    low = -np.inf if args.min_age is None else args.min_age
    high = np.inf if args.max_age is None else args.max_age
    if low > high:
        raise CommandError(f"--min_age {low:g} is above --max_age {high:g}")
    kept = images[images.age.between(low, high)]
    if kept.empty:
        ages = images.age
        raise DataError(
            f"No subject is aged {low:g} to {high:g} {args.target_unit}; the images show {ages.min():g} to "
            f"{ages.max():g}\nChange --min_age and --max_age."
        )
    return kept
