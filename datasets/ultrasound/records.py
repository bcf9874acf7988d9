"""Images matched with rows: which person and which age every image has, and everything that does not fit.

Nothing is dropped silently. What is wrong with single rows and files is collected by kind, and refused
unless its kind is one that the caller excludes (--exclude KIND ...).
"""

import argparse
import contextlib
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.images import is_dicom, read_dicom_header
from datasets.ultrasound.files import Source, describe_unread, list_images
from datasets.ultrasound.flags import ID_PATTERN, PROBLEMS
from datasets.ultrasound.table import AgeTable, Key, Problems, Row, file_key, read_age_table
from datasets.ultrasound.values import bmi_class, parse_age, subject_id
from utils.run.errors import CommandError, DataError

# Patterns that are tried where --id_pattern finds nobody, to propose one; the second, with --visit_column.
USUAL_PATTERNS = (
    "^(.+)$", "^([^_]+)_", "^([^-]+)-", "_([^_]+)_[^_]*$", "^[^_]*_([^_]+)", r"(\d+)", "^([^/]+)/",
)  # fmt: skip
VISIT_PATTERNS = (
    "^([^_]+)_([^_]+)", r"^([^_]+)_\D*(\d+)", "^([^-]+)-([^-_]+)", r"^([^-]+)-\D*(\d+)",
    "_([^_]+)_([^_]+)$", r"_([^_]+)_\D*(\d+)$", "^([^/]+)/([^/]+)/",
)  # fmt: skip
ADVICE = {"unknown_names": "--id_pattern says where the id stands"}


@dataclass
class Records:
    """What the folders and tables hold."""

    images: pd.DataFrame  # path, subject, visit, age, group, sex and bmi of every image that has an age
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
        records.advice |= table.advice
        for kind, entries in table.problems.items():
            (reason, place), *others = entries
            records.problems[kind] += [(reason, f"{table.where}, {place}"), *others]
        images += _match(source, table, keys, pattern, records, args)
    columns = ["path", "subject", "visit", "age", "group", "sex", "bmi"]
    records.images = pd.DataFrame(images, columns=columns)
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
    """What the groups of the pattern hold; without --id_pattern the header of a DICOM file names the subject,
    else folders per subject and visit do.

    Raises ValueError where there is no match.
    """
    relative = path.relative_to(folder)
    text = relative.with_suffix("").as_posix() if "/" in pattern.pattern else path.stem
    if match := pattern.search(text):
        return tuple(group or "" for group in match.groups())
    if pattern.pattern == ID_PATTERN and is_dicom(path):
        with contextlib.suppress(DataError):
            return (read_dicom_header(path).get("PatientID") or "",)
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
    named: dict[str, set[str]] = defaultdict(set)  # from every way to write it
    for key in (*table.rows, *table.left_out):
        name = key.rsplit("/", 1)[-1]
        for form in {key, name, *(text.rsplit(".", 1)[0] for text in (key, name))}:
            named[form].add(key)
    keys, used = {}, defaultdict(list)
    for path in paths:
        relative = _relative(path, source)
        bare = relative.removesuffix(path.suffix)
        forms = (relative, bare, relative.rsplit("/", 1)[-1], bare.rsplit("/", 1)[-1])
        keys[path] = next((next(iter(named[f])) for f in forms if len(named.get(f, ())) == 1), relative)
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
            metres, sex = header.get("PatientSize"), str(header.get("PatientSex") or "")
            group = str(header.get("InstitutionName") or "")
            table.rows[key] = Row(subject, age, group, sex, bmi_class(metres, header.get("PatientWeight")))
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
    """(path, *row) of the images of one source; what does not fit goes to `records`."""
    images, problems, otherwise = [], records.problems, []
    folded: dict[str, list[str]] = defaultdict(list)
    for key in (*table.rows, *table.left_out):
        if isinstance(key, str) and not args.file_column:
            folded[key.casefold()].append(key)
    for path, key in keys.items():
        if isinstance(key, str) and key not in table.rows and len(same := folded[key.casefold()]) == 1:
            if key != same[0]:  # it can only be this one
                otherwise.append(f"{key} for {same[0]}")
            key = keys[path] = same[0]
        if key in table.rows:
            subject, *values = table.rows[key]
            visit = key[1] if isinstance(key, tuple) else ""
            images.append((path, source.prefix + subject, visit, *values))
        elif key is None:
            problems["unknown_names"].append((f"no match with --id_pattern '{pattern.pattern}'", path.name))
        elif key not in table.left_out:  # whose row is a problem already, is not reported again
            problems["images_without_row"].append(_look_alike(key, path, table))
    if otherwise:
        records.notes.append(f"{len(otherwise)} images name ids in letters of another case: {otherwise[0]}")
    if source.table and not args.file_column and 2 * len(images) < len(keys):
        proposal = _propose_pattern(keys, source, table, args)
        records.advice |= {kind: proposal for kind in ("unknown_names", "images_without_row") if proposal}
    used = set(keys.values())
    problems["rows_without_image"] += [
        ("", source.prefix + (" visit ".join(key) if isinstance(key, tuple) else key))
        for key in sorted(table.rows)
        if key not in used
    ]
    return images


def _look_alike(key: Key, path: Path, table: AgeTable) -> tuple[str, str]:
    """(a reason why a subject has no row, the file): other zeros stand in front of its number there."""
    if isinstance(key, str) and key.isascii() and key.isdigit():
        forms = (key.lstrip("0"), *(key.zfill(digits) for digits in range(2, 9)))
        if other := next((name for name in forms if name != key and name in table.rows), None):
            reason = "the table writes the number with other zeros in front: --numeric_ids if they are one"
            return reason, f"{path.name} ({other!r} in the table)"
    return "", path.name


def _propose_pattern(
    paths: Collection[Path], source: Source, table: AgeTable, args: argparse.Namespace
) -> str:
    """The flags with which most images would find their row; '' where that is less than half of them."""
    best, flags = 0, ""
    for numeric in (False, True):
        keys = set()
        for key in (*table.rows, *table.left_out):
            with contextlib.suppress(ValueError):
                subject, *visit = key if isinstance(key, tuple) else (key,)
                keys.add((subject_id(subject, numeric), *visit) if visit else subject_id(subject, numeric))
        for text in (args.id_pattern, *(VISIT_PATTERNS if args.visit_column else USUAL_PATTERNS)):
            changed = argparse.Namespace(visit_column=args.visit_column, numeric_ids=numeric)
            found = sum(_find_key(path, source, re.compile(text), changed) in keys for path in paths)
            if found > best:
                written = [f"--id_pattern '{text}'"] * (text != args.id_pattern)
                best, flags = found, " ".join(written + ["--numeric_ids"] * numeric)
    return f"with {flags} {best} of {len(paths)} images find their row" if 2 * best >= len(paths) else ""


def refuse_problems(records: Records, exclude: Collection[str] = ()) -> None:
    """One DataError for all problems that are not excluded: of each kind the number and the first entries."""
    problems = records.problems
    refused = [kind for kind in PROBLEMS if problems.get(kind) and kind not in exclude]
    if not refused:
        return
    lines = []
    for kind in refused:
        line = f"{len(problems[kind])} {PROBLEMS[kind]}: {describe(problems[kind])}"
        lines.append(line + (f" ({records.advice[kind]})" if records.advice.get(kind) else ""))
    if len(records.images) and records.images.subject.nunique() > 2:
        lines.append(f"Correct the data, or leave them out with --exclude {' '.join(refused)}")
    raise DataError("\n".join(lines))


def describe(entries: Sequence[tuple[str, str]]) -> str:
    """(reason, where) of each: a reason stands once, with the first places it is found in."""
    places = defaultdict(list)
    for reason, where in entries:
        places[reason].append(where)
    shown = 10 if len(places) == 1 and len(places.get("", [""])[0]) in range(1, 40) else 3
    texts = [list_some(found, shown) + (f": {reason}" if reason else "") for reason, found in places.items()]
    return list_some(texts, 5)


def list_some(entries: Sequence[str], shown: int, between: str = "; ") -> str:
    """The first entries and how many more there are."""
    more = len(entries) - shown
    return between.join(entries[:shown]) + (f"; and {more} more" if more > 0 else "")


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
