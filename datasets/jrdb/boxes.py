"""People without annotations: sequences made of boxes in any of the forms of box_files.py.

A folder of such files holds a sequence in each, or a frame in each. Pixels of the panorama; x + w may exceed
its width for a person on the seam. Ids are optional: without them nobody is found again, and a pair has no
past. A frame is named by its image, or by a number anywhere in the name.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas

from datasets.images import check_relative_name, read_image_size
from datasets.jrdb import labels
from datasets.jrdb.box_files import EMPTY, FORMS, read_rows, whole
from datasets.jrdb.labels import Sequence, list_images
from datasets.jrdb.problems import Problems
from utils.run.errors import CommandError, DataError
from utils.run.log import LOG

NUMBER = r"(?<![0-9])([0-9]{1,9})[^0-9]*(?:\.[A-Za-z]+)?$"  # of a frame: the last one in its name
SOURCES = (labels.LABEL_FOLDER, Path("labels/labels_2d_stitched"), Path("detections/detections_2d_stitched"))
ENDINGS = (".json", ".txt", ".csv", ".tsv")  # of the files in a folder; the content decides


def read_people(
    folder: Path, boxes: Path | None, args: argparse.Namespace, log: Callable[[str], None]
) -> tuple[list[Sequence], list[Path]]:
    """The sequences of people, and the folder of images of each (which may hold none).

    Without `boxes` they are looked for in `folder`, which is then a JRDB folder. CommandError for files that
    are not there, one DataError for all that is wrong in them. Of `args` count frame_rate, boxes_size
    (height, width of the panorama that boxes are given for) and skip_bad_boxes.
    """
    boxes = boxes or find_boxes(folder)
    if not boxes.exists():
        raise CommandError(f"--boxes {boxes}: no such file")
    problems, files = Problems(), [boxes]
    if boxes.is_dir():
        files = sorted(path for path in boxes.rglob("[!.]*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise CommandError(
            f"--boxes {boxes}: no file of {', '.join(ENDINGS)} in this folder\n  expected: {FORMS}"
        )
    parts = [part for part in (read_rows(path, boxes, problems) for path in files) if part is not None]
    forms = sorted({part.attrs["form"] for part in parts})
    if EMPTY in forms and "KITTI detections" not in forms:  # of those a frame without people
        empty = next(part["where"][0] for part in parts if part.attrs["form"] == EMPTY)
        problems.add("a file whose boxes can not be read", f"expected {FORMS}", f"{empty}: {EMPTY}")
    named: dict[str, list[str]] = {}  # the files that are a sequence of their name
    for part in parts:
        if part.attrs["named"]:
            named.setdefault(part.attrs["named"], []).append(str(part.attrs["path"]))
    for name, alike in named.items():
        if len(alike) > 1:
            remedy = (
                "each is read as the whole sequence: rename them, or name one file, or the folder of one kind"
            )
            problems.add(f"several files of sequence {name}", remedy, ", ".join(alike))
    problems.raise_any()
    rows = pandas.concat(parts, ignore_index=True)
    boxed = rows["id"].notna()  # the others say that there is a frame, maybe without people
    if not boxed.any():
        raise DataError(f"{boxes}: no box in it\n  expected one per person and frame: {FORMS}")
    unnamed = rows["id"] == ""
    past = ", without ids: no past" if (unnamed | ~boxed).all() else ""
    log(f"{boxes}: {boxed.sum()} boxes, {' and '.join(forms)}{past}")
    rows.loc[unnamed, "id"] = [f"box {k}" for k in range(1, int(unnamed.sum()) + 1)]  # never met again
    if (rows["sequence"] == "").all():
        rows["sequence"] = folder.resolve().name
    sizes = {part.attrs["size"] for part in parts}
    given = (args.boxes_size[1], args.boxes_size[0]) if args.boxes_size else None
    said = given or (sizes.pop() if len(sizes) == 1 else None)
    counts = dict.fromkeys(labels.COUNTS, 0)
    sequences, folders = [], []
    for name, mine in rows.groupby("sequence"):
        check_relative_name(name, "the sequence")
        folders.append(find_folder(folder, name, alone=rows["sequence"].nunique() == 1))
        sequences.append(build_sequence(name, mine, folders[-1], said, args, problems, counts))
    problems.raise_any()
    edges = ("wrapped", "clipped", "skipped")
    if told := [f"{counts[f'{what}_boxes']} {what}" for what in edges if counts[f"{what}_boxes"]]:
        log(f"boxes at the edge of the panorama: {', '.join(told)}")
    return sequences, folders


def find_boxes(folder: Path) -> Path:
    """The folder of labels or detections in a JRDB folder."""
    for source in SOURCES:
        if any((folder / source).glob("[!.]*.json")):
            return folder / source
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    raise CommandError(
        f"--input {folder}: no boxes of people, no labels or detections\n"
        f"  looked for: {', '.join(f'{source}/*.json' for source in SOURCES)}\n"
        f"  found: {there or 'an empty folder'}\n  pass --boxes FILE: {FORMS}"
    )


def find_folder(folder: Path, name: str, alone: bool) -> Path:
    """Where the images of a sequence are: in the JRDB layout, in a folder of its name, or in `folder`."""
    for candidate in (folder / labels.IMAGE_FOLDER / name, folder / name, folder / "images" / name):
        if candidate.is_dir():
            return candidate
    return folder / "images" if alone and list_images(folder / "images") else folder


def build_sequence(
    name: str, rows: pandas.DataFrame, images: Path, said: tuple[int, int] | None, args: argparse.Namespace,
    problems: Problems, counts: dict[str, int],
) -> Sequence | None:  # fmt: skip
    """One sequence of people by frame number and id, without groups or annotated pairs. said: the (width,
    height) that the boxes are given for, where somebody says it."""
    frames, before = rows["frame"].map(whole), problems.count
    numbers = frames.str.extract(NUMBER)[0].where(~frames.str.fullmatch(r"[0-9]*\.[0-9]+"))  # a time
    numbers = numbers.fillna("-1").astype(np.int64)
    first = frames.groupby(numbers).transform("first")
    for where, frame, number, other in zip(rows["where"], frames, numbers, first, strict=True):
        if number < 0:
            remedy = "a frame is an image's name with a number in it, such as 000015.jpg, or the number: "
            remedy += "whole, of at most nine digits, --frame_rate of them per second"
            problems.add("a frame without a number", remedy, f"{where}, frame {frame!r}")
        elif frame != other:
            remedy = "the last number of a name counts: rename the frames, or name the sequence of each"
            problems.add("two frames with one number", remedy, f"{where}: {other} and {frame}")
    if problems.count > before:
        return None
    numbered = [(int(n[1]), file) for file in list_images(images) if (n := re.search(NUMBER, file))]
    pictures = dict(reversed(numbered))
    for number, file in numbered:
        if file != pictures[number] and number in set(numbers):
            remedy = "keep one image of a frame, or each camera in a folder of its own"
            problems.add("two images with one number", remedy, f"{images}: {pictures[number]} and {file}")
    size, source, scale = panorama_size(name, images, pictures, said, args)

    people = rows[rows["id"].notna()].assign(time=numbers)
    given = people[["x", "y", "w", "h"]]
    boxes = given.apply(pandas.to_numeric, errors="coerce") * (scale * 2)
    clipped = counts["clipped_boxes"]
    clean, bad = labels.clean_boxes(boxes.to_numpy(float).tolist(), *size, source, counts)
    clipped = counts["clipped_boxes"] - clipped
    if said is None and clipped > 0.1 * len(boxes):
        LOG.warning(
            f"{name}: {clipped} of {len(boxes)} boxes leave the {size[0]}x{size[1]} panorama (size from "
            f"{source}): if they are for another, --boxes_size H W says so"
        )
    for row, what in bad.items() if not args.skip_bad_boxes else ():
        remedy = "correct them, pass --skip_bad_boxes or, for boxes made for another size, --boxes_size H W"
        shown = ", ".join("nothing" if pandas.isna(v) else str(v) for v in given.iloc[row])
        problems.add(what, remedy, f"{people['where'].iloc[row]}: box {shown}")
    people = people.assign(box=list(clean)).drop(people.index[list(bad)])
    if not len(people) and (args.skip_bad_boxes or not bad):
        problems.add("no person in any frame of a sequence", "leave it out", name)
    track_names = sorted(set(people["id"]), key=labels.natural_order)
    people["track"] = people["id"].map({person: k for k, person in enumerate(track_names)})
    people = people.sort_values(["time", "track"], kind="stable")
    for again in people[people.duplicated(["time", "track"])].itertuples():
        remedy = "an id is one person; where these are no ids, leave them out"
        problems.add("one id twice in a frame", remedy, f"{again.where}, id {again.id}")
    if problems.found:
        return None
    times, nobody = np.unique(numbers), np.full(len(people), -1)
    return Sequence(
        name=name, width=size[0], height=size[1], size_source=source,
        keys=[pictures.get(number, f"{number:06d}.jpg") for number in times.tolist()], times=times,
        starts=np.searchsorted(people["time"], [*times, np.inf]), boxes=np.stack(people["box"]),
        tracks=people["track"].to_numpy(), track_names=track_names, social_groups=nobody,
        difficult=nobody > 0, pairs=np.empty((0, 2), np.int64), types=np.empty(0, np.int64),
        image_found=np.isin(times, list(pictures)), frame_rate=args.frame_rate,
    )  # fmt: skip


def panorama_size(
    name: str, images: Path, pictures: dict[int, str], said: tuple[int, int] | None, args: argparse.Namespace
) -> tuple[tuple[int, int], str, list[float]]:
    """(width, height) that boxes are brought to, where it comes from, and the factors in x and y for it.
    DataError where the file says another size than the images have, and --boxes_size nothing."""
    if not pictures:
        by_file = "the boxes' file" if said else "no image; the official JRDB panorama"
        return said or labels.PANORAMA_SIZE, "--boxes_size" if args.boxes_size else by_file, [1.0, 1.0]
    for number in sorted(pictures):
        file = pictures[number]
        try:
            size = read_image_size(images / file)
            break
        except DataError:  # the next one says it as well; predict.py lists what it can not read
            if number == max(pictures):
                raise
    if said and said != size and not args.boxes_size:
        raise DataError(
            f"{images / file}: the image is {size[0]}x{size[1]}, the boxes are for {said[0]}x{said[1]}\n"
            f"  give images of that size, or pass --boxes_size {said[1]} {said[0]} to have the boxes scaled"
        )
    if args.boxes_size and (said[0] > said[1]) != (size[0] > size[1]):
        high, wide = args.boxes_size
        raise CommandError(
            f"--boxes_size {high} {wide}: the height comes first, and {images / file} is {size[0]}x{size[1]}"
        )
    scale = [size[0] / said[0], size[1] / said[1]] if args.boxes_size else [1.0, 1.0]
    return size, f"{name}/{file}", scale
