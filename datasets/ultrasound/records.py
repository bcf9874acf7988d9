"""Images matched with rows: which person and which age every image has, and everything that does not fit.

Nothing is dropped silently. What is wrong with single rows and files is collected by kind, and refused
unless its kind is one that the caller excludes (--exclude KIND ...).
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.images import read_image
from datasets.ultrasound.files import Source, list_images
from datasets.ultrasound.flags import ID_PATTERN as ID_PATTERN  # for the scripts, until they use flags.py
from datasets.ultrasound.flags import PROBLEMS
from datasets.ultrasound.table import read_age_table, subject_id
from utils.run.errors import CommandError, DataError


@dataclass
class Records:
    """One entry per image that has an age, and the problems found on the way, {kind: [one sentence each]}."""

    paths: list[Path] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rows: int = 0

    def keep(self, wanted: Sequence[int]) -> None:
        """Keep these entries only."""
        self.paths = [self.paths[k] for k in wanted]
        self.subjects = [self.subjects[k] for k in wanted]
        self.ages = [self.ages[k] for k in wanted]


def collect_records(
    sources: Sequence[Source], id_column: str, age_column: str, numeric_ids: bool, id_pattern: str, unit: str
) -> Records:
    """Match the images of every source with the rows of its own table and cohort, never with another's."""
    try:
        pattern = re.compile(id_pattern)
    except re.error as error:
        raise CommandError(f"--id_pattern {id_pattern!r} is not a regular expression: {error}") from error
    if pattern.groups != 1:
        raise CommandError(
            f"--id_pattern {id_pattern!r} has {pattern.groups} groups; one is needed, around the id"
        )
    records = Records()
    for source in sources:
        table = read_age_table(source.table, source.cohort, id_column, age_column, numeric_ids, unit)
        records.rows += len(table.ages)
        for kind, entries in table.problems.items():
            records.problems[kind] += [f"{table.where}, {entries[0]}", *entries[1:]]
        _match(source, table.ages, pattern, numeric_ids, table.left_out, records)
    return records


def _match(
    source: Source,
    ages: Mapping[str, float],
    pattern: re.Pattern,
    numeric_ids: bool,
    left_out: Collection[str],
    records: Records,
) -> None:
    """Append the images of one source. A subject whose row is a problem already is not reported again."""
    seen = set()
    for path in list_images(source.images):
        match = pattern.search(path.stem)
        try:
            subject = subject_id(match[1] if match else None, numeric_ids)
        except ValueError:
            records.problems["unknown_names"].append(f"{path.name} (pattern {pattern.pattern})")
            continue
        seen.add(subject)
        if subject in ages:
            records.paths.append(path)
            records.subjects.append(source.prefix + subject)
            records.ages.append(ages[subject])
        elif subject not in left_out:
            records.problems["images_without_row"].append(f"{path.name}{_look_alike(subject, ages)}")
    records.problems["rows_without_image"] += [
        source.prefix + name for name in sorted(ages) if name not in seen
    ]


def _look_alike(subject: str, ages: Mapping[str, float]) -> str:
    forms = (subject.lstrip("0"), *(subject.zfill(digits) for digits in (2, 3, 4)))
    other = next((name for name in forms if name != subject and name in ages), None)
    return f" (the table has {other!r}: pass --numeric_ids if they are one)" if other else ""


def refuse_problems(problems: Mapping[str, Sequence[str]], exclude: Collection[str]) -> None:
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


def limit_ages(records: Records, min_age: float | None, max_age: float | None, unit: str) -> int:
    """Drop the images of subjects outside the ages; returns how many subjects that were."""
    low, high = -np.inf if min_age is None else min_age, np.inf if max_age is None else max_age
    if low > high:
        raise CommandError(f"--min_age {low:g} is above --max_age {high:g}")
    subjects, ages = len(set(records.subjects)), records.ages
    records.keep([k for k, age in enumerate(ages) if low <= age <= high])
    if not records.paths:
        found = f"; the images show {min(ages):g} to {max(ages):g}" if ages else ""
        raise DataError(
            f"No subject is aged {low:g} to {high:g} {unit}{found}\nChange --min_age and --max_age."
        )
    return subjects - len(set(records.subjects))


def drop_unreadable(records: Records) -> list[str]:
    """Decode every image once; drop those that can not be read and return the reasons."""
    with ProcessPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        reasons = list(pool.map(_why_unreadable, records.paths, chunksize=16))
    records.keep([k for k, reason in enumerate(reasons) if reason is None])
    return [reason for reason in reasons if reason is not None]


def _why_unreadable(path: Path) -> str | None:
    try:
        read_image(path, mode="L")
    except DataError as error:
        return str(error).splitlines()[0]
    return None


def shared_images(records: Records, hashes: Sequence[str]) -> tuple[list[str], set[int]]:
    """Identical images under different subjects: (descriptions, positions of all their copies)."""
    copies = defaultdict(list)
    for position, digest in enumerate(hashes):
        copies[digest].append(position)
    shared = [group for group in copies.values() if len({records.subjects[k] for k in group}) > 1]
    described = [" = ".join(records.paths[k].name for k in group[:4]) for group in shared]
    return described, {k for group in shared for k in group}
