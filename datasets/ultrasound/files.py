"""The image files of a folder, and the table row of each.

--id_pattern finds the subject in the name of an image. If the default pattern does not match, the header of a
DICOM file (with pydicom installed) or the folder names the subject. Nothing is dropped silently: images
without a row and rows without an image become problems.
"""

import argparse
import contextlib
import importlib.util
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from datasets.images import is_dicom, read_dicom_header, walk
from datasets.ultrasound.cells import file_key, subject_id, visit_id
from datasets.ultrasound.flags import COHORTS, DICOM_ENDINGS, ID_PATTERN, IMAGE_ENDINGS, TABLE_NAMES
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.sheets import Sheet
from datasets.ultrasound.table import PERSON, AgeTable, read_rows
from utils.run.errors import CommandError, DataError, counted

# Read from DICOM files if there is no table; what a table would call it
HEADER = {"PatientID": "ID", "PatientAge": "Age", "PatientSex": "Sex", "PatientSize": "Length",
          "PatientWeight": "Weight", "InstitutionName": "InstitutionName"}  # fmt: skip


def list_images(folder: Path) -> tuple[list[Path], str]:
    """(the image files in a folder, or if it has none those in its subfolders, sorted; a sentence about the
    files that are not read, or ''). Raises CommandError if there is no image that can be read."""
    readable, files = importlib.util.find_spec("pydicom") is not None, walk(folder)
    dicom = dicom_files(files)
    images = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS] + dicom * readable
    deeper = (path.parent for path in images if path.parent.name == "Images")
    deeper = (place for place in deeper if place.parent.name.casefold() in COHORTS)
    published = next(folder.glob("Images"), None) or next(deeper, None)
    here = [path for path in images if path.parent == folder]
    if here or published:
        images = here
    read, others = {*images}, Counter()
    for path in files:
        if path not in read and path.name not in ("split.json", "SYNTHETIC.json", *TABLE_NAMES):
            ending = path.suffix.lower() or "no ending"
            others[ending if path.parent == folder else f"{ending} in subfolders"] += 1
    named = ", ".join(f"{count} {ending}" for ending, count in others.most_common(8))
    unread = f"{counted(others.total(), 'files')} of {folder} not read: {named}" if others else ""
    install = "to read DICOM run: pip install pydicom" if dicom and not readable else ""
    if images:
        return sorted(images), "; ".join(filter(None, [unread, install]))
    hint = f"did you mean {published}?" if published else unread or "it is empty"
    raise CommandError(f"{folder}: no images ({', '.join(IMAGE_ENDINGS)}); {install or hint}")


def dicom_files(paths: Sequence[Path]) -> list[Path]:
    """The files that end in .dcm or .dicom, or have no or a numeric ending (many scanners write none) and
    begin like DICOM."""
    bare = [path for path in paths if not path.suffix[1:].strip("0123456789") and path.exists()]
    found = set(filter(is_dicom, bare))
    return [path for path in paths if path in found or path.suffix.lower() in DICOM_ENDINGS]


def mostly_dicom(folder: Path) -> bool:
    """Whether most images of a folder are DICOM files, so that their headers can stand for a table."""
    files = walk(folder)
    return len(dicom_files(files)) > sum(path.suffix.lower() in IMAGE_ENDINGS for path in files)


def read_headers(folder: Path, args: argparse.Namespace) -> AgeTable:
    """A table made of the DICOM headers of a folder: a row per file."""
    rows, problems = {}, AgeProblems()
    keys = {_relative(path, folder): path for path in list_images(folder)[0]}
    for key, path in keys.items():
        try:
            header = read_dicom_header(path)
            if header.get("PatientID"):
                rows[key] = [key, *(header.get(name) or None for name in HEADER)]
            else:
                problems.add("bad_ids", key, "PatientID is empty")
        except DataError as error:
            problems.add("unreadable_images", key, str(error).splitlines()[0].removeprefix(f"{path}: "))
    problems.advice["bad_ages"] = "a table of ids and ages can stand for the headers: --excel_path"
    names = {"File": "File", **HEADER}
    cells = pd.DataFrame.from_dict(rows, orient="index", columns=[*names], dtype=object)
    asked = {"file": "File", "id": "ID", "age": "Age"}
    asked |= {"group": args.group_column} if args.group_column else {}
    table = read_rows(Sheet(f"{folder}, DICOM headers", cells, 0, asked, names, {}, [], problems), args)
    table.left_out.update(keys.keys() - {*table.rows.index})
    return table


def match_images(
    folder: Path, prefix: str, table: AgeTable, problems: AgeProblems, args: argparse.Namespace
) -> pd.DataFrame:
    """path and the columns PERSON of the images of `folder` that have a row in `table`. `prefix` makes the
    subject names of this cohort unique. Images and rows without a match go to `problems`."""
    pattern, (paths, unread) = _compile_pattern(args), list_images(folder)
    problems.images += len(paths)
    if unread:
        problems.notes.append(unread)
        problems.advice["rows_without_image"] = unread
    for path in [path for path in paths if not path.exists()]:
        problems.add("unreadable_images", path.name, f"a link to {os.readlink(path)}, which is missing")
        paths.remove(path)
    known = {*table.rows.index, *table.left_out}  # rows left out are reported already
    if table.by_file:
        written = {path: _relative(path, folder) for path in paths}
        keys = _match(written, known, _file_forms)
        times = Counter(keys.values())  # if several files fit one row, only an exact name counts
        keys = {path: key if times[key] == 1 else written[path] for path, key in keys.items()}
    else:
        visits = bool(args.visit_column)
        written = {path: find_key(path, folder, pattern, args.numeric_ids, visits) for path in paths}
        keys = _match(written, known, lambda key: (key, key.casefold()))
        if other := [f"{written[path]} for {key}" for path, key in keys.items() if key != written[path]]:
            problems.notes.append(f"{len(other)} image names write the id in other capitals: {other[0]}")
    for path, key in keys.items():
        if key is None:
            problems.add("unknown_names", path.name, f"no match with --id_pattern '{pattern.pattern}'")
    strangers = {path: key for path, key in keys.items() if key is not None and key not in known}
    numbers = {key.lstrip("0"): key for key in known if key.isdecimal()}
    for path, key in strangers.items():
        if meant := numbers.get(key.lstrip("0")):
            problems.add("images_without_row", f"{path.name} ({meant!r} in the table)")
            problems.advice["images_without_row"] = "if they are the same subjects: --numeric_ids"
        else:
            problems.add("images_without_row", path.name)
    if strangers and known:
        examples = f"looked for {min(strangers.values())!r}; the table has {min(known)!r}"
        problems.advice.setdefault("images_without_row", examples)
    for key in sorted(set(table.rows.index) - set(keys.values())):
        problems.add("rows_without_image", prefix + key)
    images = pd.DataFrame({"path": keys.keys(), "key": keys.values()}, dtype=object)
    images = images.join(table.rows, on="key", how="inner")[["path", *PERSON]]
    names = images.path.map(lambda path: path.name)
    again = images[images.assign(name=names).duplicated(["subject", "name"])]
    if len(again) and not args.visit_column and again.subject.iloc[0] in names[again.index[0]]:
        what = f"{len(again)} images are called like others of the same subject"
        problems.notes.append(f"{what} in another folder, such as {_relative(again.path.iloc[0], folder)}")
    images["subject"] = prefix + images.subject
    return images


def _match(
    written: dict[Path, str | None], known: set[str], forms: Callable[[str], Iterable[str]]
) -> dict[Path, str | None]:
    """{image: its key in the table}. The forms of its name are tried in order until exactly one key has the
    same form; if there is none, the key is the name as written."""
    named = defaultdict(set)
    for key in known:
        for form in forms(key):
            named[form].add(key)
    keys = dict(written)
    for path, name in written.items():
        if name is not None and name not in known:
            fitting = [named[form] for form in forms(name) if len(named.get(form, ())) == 1]
            keys[path] = next(iter(fitting[0])) if fitting else name
    return keys


def _file_forms(name: str) -> Iterable[str]:
    """A file's path, then without its first folders, each with and without ending; then all in lower case."""
    paths = [name.split("/", k)[-1] for k in range(name.count("/") + 1)]
    forms = [form for path in paths for form in (path, re.sub(r"\.[^./]*$", "", path))]
    return dict.fromkeys([*forms, *map(str.casefold, forms)])


def _relative(path: Path, folder: Path) -> str:
    return file_key(path.relative_to(folder).as_posix())


def _compile_pattern(args: argparse.Namespace) -> re.Pattern:
    try:
        pattern = re.compile(args.id_pattern)
    except re.error as error:
        raise CommandError(f"--id_pattern {args.id_pattern!r} is no regular expression: {error}") from error
    groups, needed = 1, "one is needed, around the id"
    if args.visit_column:
        groups, needed = 2, "with --visit_column two are needed, id and visit, as in '^([^_]+)_([^_]+)$'"
    free = args.visit_column and (args.file_column or args.id_pattern == ID_PATTERN)
    if pattern.groups != groups and not free:
        raise CommandError(f"--id_pattern {args.id_pattern!r} has {pattern.groups} groups; {needed}")
    return pattern


def find_key(path: Path, folder: Path, pattern: re.Pattern, numeric: bool, visits: bool) -> str | None:
    """The key of an image's row: its subject, or subject and visit; None if no name gives one. If the default
    pattern does not match, a DICOM header's PatientID is taken, else the first two folders."""
    relative = path.relative_to(folder)
    text = relative.with_suffix("").as_posix() if "/" in pattern.pattern else path.stem
    parts: Sequence[str | None] = ()
    if match := pattern.search(text):
        parts = match.groups()
    elif pattern.pattern == ID_PATTERN:
        parts = relative.parts[:-1][:2]
        if path.exists() and is_dicom(path):
            with contextlib.suppress(DataError):
                parts = (read_dicom_header(path).get("PatientID"),)
    with contextlib.suppress(ValueError):  # of a part that is missing or no id
        if not visits:
            return subject_id(parts[0] if parts else None, numeric)
        subject, visit = parts
        return f"{subject_id(subject, numeric)} visit {visit_id(visit)}"
    return None
