"""The image files of a folder, and the row that each of them belongs to.

An image's name says whom it shows (--id_pattern); without a match its folder does, or the header of a DICOM
file, which is read where pydicom is installed. Nothing is dropped silently: what has no row, and rows without
an image, become problems, with the flag that would mend most of them.
"""

import argparse
import contextlib
import importlib.util
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasets.images import is_dicom, read_dicom_header
from datasets.ultrasound.flags import DICOM_ENDINGS, ID_PATTERN, IMAGE_ENDINGS, TABLE_NAMES
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.table import PERSON, AgeTable, bmi_class, file_key, parse_age, subject_id, visit_id
from utils.run.errors import CommandError, DataError

CLUTTER = ("thumbs.db", "desktop.ini", "dicomdir")  # no images, like every name that begins with a dot
# Patterns that are tried where --id_pattern finds nobody, to propose one; the second, with --visit_column.
USUAL_PATTERNS = (
    "^(.+)$", "^([^_]+)_", "^([^-]+)-", "_([^_]+)_[^_]*$", "^[^_]*_([^_]+)", r"(\d+)", "^([^/]+)/",
)  # fmt: skip
VISIT_PATTERNS = (
    "^([^_]+)_([^_]+)", r"^([^_]+)_\D*(\d+)", "^([^-]+)-([^-_]+)", r"^([^-]+)-\D*(\d+)",
    "_([^_]+)_([^_]+)$", r"_([^_]+)_\D*(\d+)$", "^([^/]+)/([^/]+)/",
)  # fmt: skip


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, or where it has none of the folders in it, sorted by name. Raises
    CommandError when there are none, and for DICOM files alone without pydicom."""
    dicom = importlib.util.find_spec("pydicom") is not None
    published = next(folder.glob("Images"), None) or next(folder.glob("*/Images"), None)
    for paths in (folder.iterdir, lambda: () if published else walk(folder)):
        images = [path for path in _files(paths()) if path.suffix.lower() in IMAGE_ENDINGS]
        if files := images + (dicom_files(paths()) if dicom else []):
            return sorted(files)
    if dicom_files(walk(folder)):
        raise CommandError(f"{folder}: DICOM files; to read them run: pip install pydicom")
    hint = f"; did you mean {published}?" if published else f"\n{describe_unread(folder, [])}".rstrip()
    raise CommandError(f"{folder}: no images ({', '.join(IMAGE_ENDINGS)}){hint}")


def describe_unread(folder: Path, images: list[Path]) -> str:
    """What else is in the folder, counted by ending; '' where there is nothing."""
    read, others = set(images), Counter()
    for path in _files(walk(folder)):
        if path not in read and path.name not in ("split.json", "SYNTHETIC.json", *TABLE_NAMES):
            others[(path.suffix.lower() or "no ending") + " in subfolders" * (path.parent != folder)] += 1
    if not others:
        return ""
    named = ", ".join(f"{count} {ending}" for ending, count in others.most_common(8))
    dicom = any(ending.startswith(DICOM_ENDINGS) for ending in others)
    dicom = dicom and importlib.util.find_spec("pydicom") is None
    remedy = "; to read DICOM run: pip install pydicom" if dicom else ""
    return f"{sum(others.values())} files of {folder} are not read: {named}{remedy}"


def dicom_files(paths) -> list[Path]:
    """Files of DICOM's ending, or without a usual one and with its mark: many scanners write none."""

    def is_one(path: Path) -> bool:
        bare = not path.suffix[1:].strip("0123456789")
        return path.suffix.lower() in DICOM_ENDINGS or (bare and path.exists() and is_dicom(path))

    return [path for path in _files(paths) if is_one(path)]


def walk(folder: Path) -> list[Path]:
    """The files below a folder, also behind links to other folders, each of these once; hidden ones are not
    entered."""
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        new = (real := os.path.realpath(place)) not in seen
        seen.add(real)
        folders[:] = sorted(name for name in folders if new and not name.startswith("."))
        found += [Path(place, name) for name in files if new]
    return found


def _files(paths) -> list[Path]:
    """Those that are files, but for what systems leave in folders; links that lead nowhere among them."""
    named = [path for path in paths if not path.name.startswith(".") and path.name.lower() not in CLUTTER]
    return sorted(path for path in named if path.is_file() or (path.is_symlink() and not path.exists()))


def read_headers(folder: Path, args: argparse.Namespace) -> AgeTable:
    """PatientID and PatientAge of the DICOM files of a folder, a row for each, where no table is."""
    rows, left_out, problems = {}, set(), AgeProblems()
    for path in list_images(folder):
        key = _relative(path, folder)
        kind = "unreadable_images"
        try:
            header, kind = read_dicom_header(path), "bad_ids"
            subject, kind = subject_id(header.get("PatientID"), args.numeric_ids), "bad_ages"
            age, _ = parse_age(header.get("PatientAge") or None, args.target_unit)
            group, sex = (str(header.get(name) or "") for name in ("InstitutionName", "PatientSex"))
            bmi = bmi_class(header.get("PatientSize"), header.get("PatientWeight"))
            rows[key] = (subject, age, group, sex, bmi)
        except (ValueError, DataError) as error:
            problems.add(kind, key, str(error).splitlines()[0])
            left_out.add(key)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=PERSON)
    return AgeTable(f"{folder}, DICOM headers", table, left_out, problems, by_file=True)


def match_images(
    folder: Path, prefix: str, table: AgeTable, problems: AgeProblems, notes: list[str],
    args: argparse.Namespace,
) -> pd.DataFrame:  # fmt: skip
    """path and PERSON of the images of `folder` that have a row; `prefix` makes their ids unique.

    The table is that of this folder's own cohort, never another's. What does not fit goes to `problems`, what
    was noticed to `notes`.
    """
    pattern, paths = _compile_pattern(args), list_images(folder)
    problems.images += len(paths)
    if unread := describe_unread(folder, paths):
        notes.append(unread)
    for path in paths:
        if path.is_symlink() and not path.exists():
            problems.add("unreadable_images", path.name, f"a link to {os.readlink(path)}, which is not there")
    paths = [path for path in paths if path.exists()]
    known, otherwise = {*table.rows.index, *table.left_out}, []
    if table.by_file:
        keys = _match_files(folder, paths, known)
    else:
        keys = {path: _find_key(path, folder, pattern, args) for path in paths}
        folded = defaultdict(list)
        for key in known:
            folded[key.casefold()].append(key)
        for path, key in keys.items():
            same = folded[key.casefold()] if key and key not in table.rows.index else []
            if len(same) == 1:  # it can only be this one
                otherwise += [f"{key} for {same[0]}"] if key != same[0] else []
                keys[path] = same[0]
    if otherwise:
        notes.append(f"{len(otherwise)} images name ids in letters of another case: {otherwise[0]}")
    for path, key in keys.items():
        if key is None:
            problems.add("unknown_names", path.name, f"no match with --id_pattern '{pattern.pattern}'")
        elif key not in known:  # one that is left out is a problem already
            problems.add("images_without_row", *_look_alike(key, path, table))
    for key in sorted(set(table.rows.index) - set(keys.values())):
        problems.add("rows_without_image", prefix + key)
    images = pd.DataFrame({"path": keys.keys(), "key": keys.values()}, dtype=object)
    images = images.join(table.rows, on="key", how="inner")[["path", *PERSON]]
    images["subject"] = prefix + images.subject
    if not table.by_file and 2 * len(images) < len(paths):
        proposal = _propose_pattern(folder, paths, known, args)
        problems.advice |= {kind: proposal for kind in ("unknown_names", "images_without_row") if proposal}
    return images


def judge_rows(
    images: pd.DataFrame, report: dict[str, Any], problems: AgeProblems, args: argparse.Namespace
) -> pd.DataFrame:
    """The images of people within --min_age and --max_age, numbered anew, where no row or name is wrong."""
    if images.empty or not args.check_data:  # --check_data goes on, to list what is wrong with pixels as well
        problems.refuse(images)
    if images.empty:
        raise DataError(
            f"{args.image_dir}: no image has a row with an age in {args.excel_path or 'its table'}\n"
            "Check --image_dir, --excel_path, --cohort and --id_pattern."
        )
    low = -np.inf if args.min_age is None else args.min_age
    high = np.inf if args.max_age is None else args.max_age
    if low > high:
        raise CommandError(f"--min_age {low:g} is above --max_age {high:g}")
    if args.intensity_range and args.intensity_range[0] >= args.intensity_range[1]:
        raise CommandError("--intensity_range: LOW is not below HIGH, and black not below white")
    kept = images[images.age.between(low, high)]
    if kept.empty:
        ages = images.age
        raise DataError(
            f"No subject is aged {low:g} to {high:g} {args.target_unit}; the images show {ages.min():g} to "
            f"{ages.max():g}\nChange --min_age and --max_age."
        )
    report["subjects_outside_ages"] = images.subject.nunique() - kept.subject.nunique()
    return kept.reset_index(drop=True)


def _compile_pattern(args: argparse.Namespace) -> re.Pattern:
    try:
        pattern = re.compile(args.id_pattern)
    except re.error as error:
        raise CommandError(f"--id_pattern {args.id_pattern!r} is no regular expression: {error}") from error
    needed = "with --visit_column two are needed, around the id and the visit, such as '^([^_]+)_([^_]+)$'"
    needed = needed if args.visit_column else "one is needed, around the id"
    free = args.visit_column and (args.file_column or args.id_pattern == ID_PATTERN)
    if pattern.groups != (2 if args.visit_column else 1) and not free:
        raise CommandError(f"--id_pattern {args.id_pattern!r} has {pattern.groups} groups; {needed}")
    return pattern


def find_subject(path: Path, folder: Path, pattern: str, numeric: bool) -> str:
    """The subject that a file below `folder` belongs to by its name; '' where it names none."""
    try:
        return subject_id(_name_parts(path, folder, re.compile(pattern))[0], numeric)
    except ValueError:
        return ""


def _find_key(path: Path, folder: Path, pattern: re.Pattern, args: argparse.Namespace) -> str | None:
    """What the row of an image is found by: its subject, or subject and visit."""
    try:
        subject, *visit = _name_parts(path, folder, pattern)
        subject = subject_id(subject, args.numeric_ids)
        if not args.visit_column:
            return subject
        return f"{subject} visit {visit_id(visit[0])}" if visit else None
    except ValueError:
        return None


def _name_parts(path: Path, folder: Path, pattern: re.Pattern) -> tuple[str, ...]:
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


def _relative(path: Path, folder: Path) -> str:
    return file_key(path.relative_to(folder).as_posix())


def _match_files(folder: Path, paths: Sequence[Path], known: Collection[str]) -> dict[Path, str]:
    """{image: the row that names it}: by its path below the folder or its name, with or without ending."""
    named: dict[str, set[str]] = defaultdict(set)  # from every way to write it
    for key in known:
        name = key.rsplit("/", 1)[-1]
        for form in {key, name, *(text.rsplit(".", 1)[0] for text in (key, name))}:
            named[form].add(key)
    keys = {}
    for path in paths:
        relative = _relative(path, folder)
        bare = relative.removesuffix(path.suffix)
        forms = (relative, bare, relative.rsplit("/", 1)[-1], bare.rsplit("/", 1)[-1])
        keys[path] = next((next(iter(named[f])) for f in forms if len(named.get(f, ())) == 1), relative)
    times = Counter(keys.values())  # two files of one name in two folders: which one is meant is not known
    return {path: key if times[key] == 1 else _relative(path, folder) for path, key in keys.items()}


def _look_alike(key: str, path: Path, table: AgeTable) -> tuple[str, str]:
    """(the file, a reason why a subject has no row): other zeros stand in front of its number there."""
    if key.isascii() and key.isdigit():
        forms = (key.lstrip("0"), *(key.zfill(digits) for digits in range(2, 9)))
        if other := next((name for name in forms if name != key and name in table.rows.index), None):
            reason = "the table writes the number with other zeros in front: --numeric_ids if they are one"
            return f"{path.name} ({other!r} in the table)", reason
    return path.name, ""


def _propose_pattern(
    folder: Path, paths: Collection[Path], known: Collection[str], args: argparse.Namespace
) -> str:
    """The flags with which most images would find their row; '' where that is less than half of them."""
    best, flags = 0, ""
    for numeric in (False, True):
        keys = set()
        for key in known:
            with contextlib.suppress(ValueError):
                subject, *visit = key.split(" visit ", 1)
                keys.add(" visit ".join([subject_id(subject, numeric), *visit]))
        changed = argparse.Namespace(visit_column=args.visit_column, numeric_ids=numeric)
        for text in (args.id_pattern, *(VISIT_PATTERNS if args.visit_column else USUAL_PATTERNS)):
            found = sum(_find_key(path, folder, re.compile(text), changed) in keys for path in paths)
            if found > best:
                written = [f"--id_pattern '{text}'"] * (text != args.id_pattern)
                best, flags = found, " ".join(written + ["--numeric_ids"] * numeric)
    return f"with {flags} {best} of {len(paths)} images find their row" if 2 * best >= len(paths) else ""
