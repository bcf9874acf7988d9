"""Images matched with rows: which person and which age every image has, and everything that does not fit.

Nothing is dropped silently. What is wrong with single rows and files is collected by kind, and refused
unless its kind is one that the caller excludes (--exclude KIND ...).
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.images import read_dicom_header
from datasets.ultrasound.files import Source, describe_unread, list_images
from datasets.ultrasound.flags import ID_PATTERN, PROBLEMS
from datasets.ultrasound.table import (
    AgeTable,
    Problems,
    Row,
    file_key,
    list_some,
    parse_age,
    read_age_table,
    subject_id,
)
from utils.run.errors import CommandError, DataError

Key = str | tuple[str, str]
# Patterns that are tried where --id_pattern finds nobody, to propose one.
USUAL_PATTERNS = (
    "^(.+)$",
    "^([^_]+)_",
    "^([^-]+)-",
    "_([^_]+)_[^_]*$",
    "^[^_]*_([^_]+)",
    r"(\d+)",
    "^([^/]+)/",
)
ADVICE = {
    "bad_ages": "--missing_values says what stands for an unknown age",
    "far_ages": "if they stand for an unknown age: --missing_values {values}; if they are ages, name their "
    "limit with --min_age or --max_age",
    "duplicate_ids": "if a row is a visit, name its column with --visit_column and put a second group around "
    "the visit in --id_pattern; if it is an image, name the column of files with --file_column",
    "unknown_names": "--id_pattern says where the id stands",
}


@dataclass
class Records:
    """What the folders and tables hold."""

    images: pd.DataFrame  # path, subject, visit, age and group of every image that has an age
    found: int  # images in the folders
    rows: int = 0  # usable rows
    missing: int = 0  # rows whose age is one of --missing_values
    problems: Problems = field(default_factory=lambda: defaultdict(list))
    advice: dict[str, str] = field(default_factory=lambda: dict(ADVICE))
    notes: list[str] = field(default_factory=list)


def collect_records(sources: Sequence[Source], args: argparse.Namespace) -> Records:
    """Match the images of every source with the rows of its own table and cohort, never with another's."""
    pattern = _compile_pattern(args)
    images, records = [], Records(pd.DataFrame(), 0)
    for source in sources:
        paths = list_images(source.images)
        records.found += len(paths)
        if unread := describe_unread(source.images, paths):
            records.notes.append(unread)
        if source.table is None:
            table, keys = _read_headers(source, paths, args), {p: _relative(p, source) for p in paths}
        else:
            table = read_age_table(source.table, source.cohort, args)
            keys = {path: _find_key(path, source, pattern, args) for path in paths}
            if args.file_column:
                keys = _match_files(paths, source, table)
        records.rows += len(table.rows)
        records.missing += table.missing
        records.notes += table.notes
        for kind, entries in table.problems.items():
            (reason, place), *others = entries
            records.problems[kind] += [(reason, f"{table.where}, {place}"), *others]
        images += _match(source, table, keys, pattern, records, args)
    records.images = pd.DataFrame(images, columns=["path", "subject", "visit", "age", "group"])
    if far := sorted({reason.split(",")[0] for reason, _ in records.problems["far_ages"]}):
        records.advice["far_ages"] = ADVICE["far_ages"].format(values=" ".join(far))
    return records


def _compile_pattern(args: argparse.Namespace) -> re.Pattern:
    try:
        pattern = re.compile(args.id_pattern)
    except re.error as error:
        raise CommandError(f"--id_pattern {args.id_pattern!r} is no regular expression: {error}") from error
    if args.visit_column and not args.file_column and args.id_pattern != ID_PATTERN and pattern.groups != 2:
        raise CommandError(
            f"--id_pattern {args.id_pattern!r} has {pattern.groups} groups; with --visit_column two are "
            "needed, around the id and the visit, such as '^([^_]+)_([^_]+)$'"
        )
    if not args.visit_column and pattern.groups != 1:
        raise CommandError(
            f"--id_pattern {args.id_pattern!r} has {pattern.groups} groups; one is needed, around the id"
        )
    return pattern


def find_subject(path: Path, folder: Path, pattern: str, numeric: bool) -> str:
    """The subject that a file below `folder` belongs to by its name; '' where it names none."""
    try:
        found = _groups(path, folder, re.compile(pattern))
        return subject_id(found[0], numeric)
    except ValueError:
        return ""


def _groups(path: Path, folder: Path, pattern: re.Pattern) -> tuple[str, ...]:
    """What the groups of the pattern hold; without --id_pattern, folders per subject and visit name them.

    Raises ValueError where there is no match.
    """
    relative = path.relative_to(folder)
    text = relative.with_suffix("").as_posix() if "/" in pattern.pattern else path.stem
    if match := pattern.search(text):
        return tuple(group or "" for group in match.groups())
    if pattern.pattern == ID_PATTERN and len(relative.parts) > 1:
        return relative.parts[:2] if len(relative.parts) > 2 else relative.parts[:1]
    raise ValueError("no match")


def _find_key(path: Path, source: Source, pattern: re.Pattern, args: argparse.Namespace) -> Key | None:
    """What the row of an image is found by: its subject, or (subject, visit)."""
    try:
        found = _groups(path, source.images, pattern)
        subject = subject_id(found[0], args.numeric_ids)
        if not args.visit_column:
            return subject
        return (subject, subject_id(found[1])) if len(found) > 1 else None
    except ValueError:
        return None


def _relative(path: Path, source: Source) -> str:
    return file_key(path.relative_to(source.images).as_posix())


def _match_files(paths: Sequence[Path], source: Source, table: AgeTable) -> dict[Path, Key | None]:
    """{image: the row that names it}: by its path below the folder or its name, with or without ending."""
    rows = {key: key for key in (*table.rows, *table.left_out)}
    by_name = defaultdict(set)
    for key in rows:
        by_name[key.rsplit("/", 1)[-1]].add(key)
    named = {name: next(iter(keys)) for name, keys in by_name.items() if len(keys) == 1} | rows
    keys, used = {}, defaultdict(list)
    for path in paths:
        relative = _relative(path, source)
        bare = relative.removesuffix(path.suffix)
        forms = (relative, bare, relative.rsplit("/", 1)[-1], bare.rsplit("/", 1)[-1])
        keys[path] = next((named[form] for form in forms if form in named), relative)
        used[keys[path]].append(path)
    for same in used.values():  # two files of one name in two folders: which one is meant is not known
        if len(same) > 1:
            keys |= {path: _relative(path, source) for path in same}
    return keys


def _read_headers(source: Source, paths: Sequence[Path], args: argparse.Namespace) -> AgeTable:
    """PatientID and PatientAge of DICOM files, a row for each."""
    table = AgeTable(f"{source.images}, DICOM headers")
    for path in paths:
        key = _relative(path, source)
        try:
            header = read_dicom_header(path)
            subject = subject_id(header.get("PatientID"), args.numeric_ids)
            age, _ = parse_age(header.get("PatientAge") or None, args.target_unit)
            table.rows[key] = Row(subject, age, str(header.get("InstitutionName") or ""))
        except (ValueError, DataError) as error:
            kind = "bad_ids" if str(error).startswith("the id") else "bad_ages"
            table.problems[kind].append((str(error).splitlines()[0], key))
            table.left_out.add(key)
    return table


def _match(
    source: Source,
    table: AgeTable,
    keys: dict[Path, Key | None],
    pattern: re.Pattern,
    records: Records,
    args: argparse.Namespace,
) -> list[tuple]:
    """(path, subject, visit, age, group) of the images of one source; what does not fit goes to `records`."""
    images, problems = [], records.problems
    for path, key in keys.items():
        if key in table.rows:
            row = table.rows[key]
            visit = key[1] if isinstance(key, tuple) else ""
            images.append((path, source.prefix + row.subject, visit, row.age, row.group))
        elif key is None:
            problems["unknown_names"].append((f"no match with --id_pattern '{pattern.pattern}'", path.name))
        elif key not in table.left_out:  # whose row is a problem already, is not reported again
            problems["images_without_row"].append((_look_alike(key, table), path.name))
    by_name = source.table and not args.file_column and not args.visit_column
    few = by_name and 2 * len(images) < len(keys)
    if few and (proposal := _propose_pattern(keys, source, table)):
        records.advice["unknown_names"] = records.advice["images_without_row"] = proposal
    used = set(keys.values())
    problems["rows_without_image"] += [
        ("", source.prefix + (" visit ".join(key) if isinstance(key, tuple) else key))
        for key in sorted(table.rows)
        if key not in used
    ]
    return images


def _look_alike(key: Key, table: AgeTable) -> str:
    """A reason why a subject has no row: the table writes its number with other zeros in front."""
    if isinstance(key, str) and key.isascii() and key.isdigit():
        forms = (key.lstrip("0"), *(key.zfill(digits) for digits in range(2, 9)))
        other = next((name for name in forms if name != key and name in table.rows), None)
        if other:
            return f"the table writes {other!r} for {key!r}: pass --numeric_ids if they are one"
    return ""


def _propose_pattern(paths: Collection[Path], source: Source, table: AgeTable) -> str:
    """The flags with which most images would find their row; '' where that is less than half of them."""
    best, flags = 0, ""
    for numeric in (False, True):
        ids = set()
        for key in table.rows:
            try:
                ids.add(subject_id(key, numeric))
            except ValueError:
                continue
        for text in USUAL_PATTERNS:
            pattern = re.compile(text)
            found = sum(find_subject(path, source.images, text, numeric) in ids for path in paths)
            if found > best:
                best, flags = found, f"--id_pattern '{pattern.pattern}'" + " --numeric_ids" * numeric
    if 2 * best < len(paths):
        return ""
    return f"with {flags} {best} of {len(paths)} images find their row"


def refuse_problems(records: Records, exclude: Collection[str] = ()) -> None:
    """One DataError for all problems that are not excluded: of each kind the number and the first entries."""
    problems = records.problems
    refused = [kind for kind in PROBLEMS if problems.get(kind) and kind not in exclude]
    if not refused:
        return
    lines = []
    for kind in refused:
        line = f"{len(problems[kind])} {PROBLEMS[kind]}: {describe(problems[kind])}"
        lines.append(line + (f" ({records.advice[kind]})" if kind in records.advice else ""))
    if len(records.images) and records.images.subject.nunique() > 2:
        lines.append(f"Correct the data, or leave them out with --exclude {' '.join(refused)}")
    raise DataError("\n".join(lines))


def describe(entries: Sequence[tuple[str, str]]) -> str:
    """(reason, where) of each: a reason stands once, with the first places it is found in."""
    places = defaultdict(list)
    for reason, where in entries:
        places[reason].append(where)
    shown = 10 if len(places) == 1 and "" in places else 3
    texts = [list_some(found, shown) + (f": {reason}" if reason else "") for reason, found in places.items()]
    return list_some(texts, 5)


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
