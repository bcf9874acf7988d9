"""Which folders of images belong to which table: cohorts and muscles of an ultrasound data set.

    --image_dir TA/Healthy/Images                    images of one cohort; ids are names as they are
    --image_dir TA/Healthy/Images --cohort both      and those beside them in TA/Pathological/Images
    --image_dir ROOT --muscle TA BB [--cohort both]  ROOT/TA/Healthy/Images, ROOT/BB/Healthy/Images, ...
    --image_dir FOLDER --excel_path TABLE            any folder of images

Every cohort and every muscle counts its patients from 1, so with several of them a subject is called
"TA/healthy/12": an id is never looked up in the rows of another cohort or muscle, and never merged with one
of the same number.
"""

import argparse
import difflib
from pathlib import Path
from typing import NamedTuple

from datasets.ultrasound.flags import COHORTS
from utils.run.errors import CommandError

TABLE_NAME = "characteristics.xlsx"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


class Source(NamedTuple):
    """A folder of images and the part of a table that describes them; prefix makes its ids unique."""

    images: Path
    table: Path
    cohort: str
    prefix: str


def find_sources(image_dir: str | Path, args: argparse.Namespace) -> list[Source]:
    """The folders and tables a command line means, by the rules at the top of this file.

    Raises CommandError naming the folder that is missing or the flags that contradict each other.
    """
    image_dir, cohort, muscle, table = Path(image_dir), args.cohort, args.muscle, args.excel_path
    if not image_dir.is_dir():
        raise CommandError(f"--image_dir {image_dir}: no such folder{similar_folder(image_dir)}")
    group = image_dir.parent.name.casefold()
    published = image_dir.name == "Images" and group in COHORTS
    if published and cohort not in ("both", group):
        raise CommandError(
            f"--image_dir {image_dir} holds the {image_dir.parent.name} images, but --cohort is {cohort}"
        )
    if muscle is None and cohort != "both":
        return [Source(image_dir, Path(table or image_dir.parent.parent / TABLE_NAME), cohort, "")]

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


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; CommandError when there are none."""
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()
    )
    if not files:
        below = next((folder.glob("*/Images")), None) or next(folder.glob("Images"), None)
        hint = f"; did you mean {below}?" if below else ""
        raise CommandError(f"{folder}: no images ({', '.join(IMAGE_ENDINGS)}){hint}")
    return files


def similar_folder(path: Path) -> str:
    """'; did you mean ...?' or how far the path exists."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    names = {child.name.casefold(): child.name for child in parent.iterdir() if child.is_dir()}
    close = difflib.get_close_matches(path.name.casefold(), names, 1, 0.6)
    if close:
        return f"; did you mean {parent / names[close[0]]}?"
    return f" ({parent} exists, {path.name} in it does not)"
