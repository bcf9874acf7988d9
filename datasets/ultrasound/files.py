"""Which folders of images belong to which table: cohorts and muscles of an ultrasound data set.

    --image_dir TA/Healthy/Images                    images of one cohort; ids are names as they are
    --image_dir TA/Healthy/Images --cohort both      and those beside them in TA/Pathological/Images
    --image_dir ROOT --muscle TA BB [--cohort both]  ROOT/TA/Healthy/Images, ROOT/BB/Healthy/Images, ...
    --image_dir FOLDER --excel_path TABLE            any folder of images, or of one folder per subject
    --image_dir BIDS                                 sub-01/.../*.png, participants.tsv beside the folders

Every cohort and every muscle counts its patients from 1, so with several of them a subject is called
"TA/healthy/12": an id is never looked up in the rows of another cohort or muscle, and never merged with one
of the same number. DICOM files are read where pydicom is installed, and need no table: their headers name
PatientID and PatientAge.
"""

import argparse
import difflib
import importlib.util
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from datasets.images import is_dicom
from datasets.ultrasound.flags import COHORTS
from utils.run.errors import CommandError

TABLE_NAMES = TABLE_NAME, BIDS_TABLE = "characteristics.xlsx", "participants.tsv"
DICOM_ENDINGS = (".dcm", ".dicom")
IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pnm",
)  # fmt: skip
CLUTTER = ("thumbs.db", "desktop.ini", "dicomdir")  # no images, like every name that begins with a dot


class Source(NamedTuple):
    """A folder of images and the part of a table that describes them; prefix makes its ids unique."""

    images: Path
    table: Path | None  # None: the headers of the DICOM files
    cohort: str
    prefix: str

    @property
    def home(self) -> Path:
        """The folder that may hold split.json."""
        return self.table.parent if self.table else self.images


def find_sources(image_dir: str | Path, args: argparse.Namespace) -> list[Source]:
    """The folders and tables a command line means, by the rules at the top of this file.

    Raises CommandError naming the folder that is missing or the flags that contradict each other.
    """
    image_dir, cohort, muscle, table = Path(image_dir), args.cohort, args.muscle, args.excel_path
    if not image_dir.is_dir():
        raise CommandError(f"--image_dir {image_dir}: no such folder{similar_path(image_dir)}")
    group = image_dir.parent.name.casefold()
    published = image_dir.name == "Images" and group in COHORTS
    if published and cohort not in ("both", group):
        raise CommandError(
            f"--image_dir {image_dir} holds the {image_dir.parent.name} images, but --cohort is {cohort}"
        )
    if muscle is None and cohort != "both":
        return [Source(image_dir, _find_table(image_dir, table), cohort, "")]

    folders = {"": image_dir.parent.parent if published else image_dir}
    if muscle is not None:
        root = folders[""].parent if published else image_dir
        folders = {name: root / name for name in muscle}
        if len(folders) != len(muscle) or not all(folder.is_dir() for folder in folders.values()):
            there = ", ".join(sorted(child.name for child in root.iterdir() if child.is_dir())[:12]) or "none"
            raise CommandError(
                f"--muscle {' '.join(muscle)}: {root} has the folders {there}; name each muscle once"
            )
    if table and len(folders) > 1:
        raise CommandError(
            f"--excel_path {table}: every muscle has its own table, MUSCLE/{TABLE_NAME}; "
            "leave --excel_path out when --muscle names several"
        )
    sources = []
    for name, folder in folders.items():
        for group in COHORTS if cohort == "both" else [cohort]:
            images = folder / group.capitalize() / "Images"
            if not images.is_dir():
                asked = f"--cohort {cohort}" + (f", --muscle {name}" if name else "")
                raise CommandError(f"{images}: no such folder ({asked})")
            prefix = (f"{name}/" if len(folders) > 1 else "") + (f"{group}/" if cohort == "both" else "")
            sources.append(Source(images, Path(table or folder / TABLE_NAME), group, prefix))
    return sources


def _find_table(images: Path, given: str | None) -> Path | None:
    """The table given, the one of the layout, or None where DICOM headers take its place."""
    if given:
        return Path(given)
    usual = images.parent.parent / TABLE_NAME
    beside = images / BIDS_TABLE
    if beside.is_file() and not usual.is_file():
        return beside
    return None if not usual.is_file() and _dicom_files(images.rglob("*")) else usual


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, or where it has none of the folders in it, sorted by name.

    Raises CommandError when there are none, and for DICOM files alone without pydicom.
    """
    dicom = importlib.util.find_spec("pydicom") is not None
    published = next(folder.glob("Images"), None) or next(folder.glob("*/Images"), None)
    for paths in (folder.iterdir, lambda: () if published else folder.rglob("*")):
        files = _sorted_files(paths(), IMAGE_ENDINGS) + (_dicom_files(paths()) if dicom else [])
        if files:
            return sorted(files)
    if _dicom_files(folder.rglob("*")):
        raise CommandError(f"{folder}: DICOM files; to read them run: pip install pydicom")
    hint = f"; did you mean {published}?" if published else f"\n{describe_unread(folder, [])}".rstrip()
    raise CommandError(f"{folder}: no images ({', '.join(IMAGE_ENDINGS)}){hint}")


def describe_unread(folder: Path, images: list[Path]) -> str:
    """What else is in the folder, counted by ending; '' where there is nothing."""
    read, others = set(images), Counter()
    for path in _sorted_files(folder.rglob("*"), None):
        if path not in read and path.name not in ("split.json", "SYNTHETIC.json", *TABLE_NAMES):
            others[(path.suffix.lower() or "no ending") + " in subfolders" * (path.parent != folder)] += 1
    if not others:
        return ""
    named = ", ".join(f"{count} {ending}" for ending, count in others.most_common(8))
    dicom = any(ending.startswith(DICOM_ENDINGS) for ending in others)
    dicom = dicom and importlib.util.find_spec("pydicom") is None
    remedy = "; to read DICOM run: pip install pydicom" if dicom else ""
    return f"{sum(others.values())} files of {folder} are not read: {named}{remedy}"


def _dicom_files(paths) -> list[Path]:
    """Files of DICOM's ending, or without a usual one and with its mark: many scanners write none."""
    others = [path for path in _sorted_files(paths, None) if path.suffix.lower() not in IMAGE_ENDINGS]
    bare = [path for path in others if path.suffix == "" or path.suffix[1:].isdigit()]
    marked = {path for path in bare if is_dicom(path)}
    return [path for path in others if path in marked or path.suffix.lower() in DICOM_ENDINGS]


def _sorted_files(paths, endings: tuple[str, ...] | None) -> list[Path]:
    return sorted(
        path
        for path in paths
        if (endings is None or path.suffix.lower() in endings)
        and not path.name.startswith(".")
        and path.name.lower() not in CLUTTER
        and path.is_file()
    )


def similar_path(path: Path) -> str:
    """'; did you mean ...?' or how far the path exists."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    names = {child.name.casefold(): child.name for child in parent.iterdir()}
    close = difflib.get_close_matches(path.name.casefold(), names, 1, 0.6)
    if close:
        return f"; did you mean {parent / names[close[0]]}?"
    return f" ({parent} exists, {path.name} in it does not)"
