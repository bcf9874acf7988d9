"""Build sequences from boxes without annotations, in any format of box_files.py.

In a folder, each file is one sequence or one frame. Boxes are in pixels of the panorama; x + w may exceed its
width for a person on the seam. Ids are optional: without them nobody can be tracked, and pairs have no
history. A frame is identified by the name of its image or by a number.
"""

import argparse
from collections import Counter
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas

from datasets.images import check_relative_name, walk
from datasets.jrdb import labels
from datasets.jrdb.box_files import FORMS, read_rows
from datasets.jrdb.check import tell_counts
from datasets.jrdb.flags import LabelRules
from datasets.jrdb.frames import PANORAMA_SIZE, Images, list_images, match_images, number_frames
from datasets.jrdb.labels import Person, Sequence
from datasets.jrdb.people import PERSON_TYPES, whole
from datasets.jrdb.problems import Problems
from utils.run.errors import CommandError, DataError, some
from utils.run.log import LOG

SOURCES = (labels.LABEL_FOLDER, Path("labels/labels_2d_stitched"), Path("detections/detections_2d_stitched"))
ENDINGS = (".json", ".txt", ".csv", ".tsv")  # which files of a folder are opened


def read_boxes(
    folder: Path, boxes: Path | None, args: argparse.Namespace
) -> tuple[list[Sequence], list[Path]]:
    """Read the sequences of people, and for each its folder of images (which may be empty).

    Without `boxes`, `folder` must be a JRDB folder, and its labels or detections are read. Uses frame_rate,
    boxes_size (height, width of the panorama the boxes refer to) and skip_bad_boxes of `args`. Raises
    CommandError for missing files and one DataError for everything wrong in them."""
    boxes = boxes or find_boxes(folder)
    problems, files = Problems(), [boxes] if boxes.is_file() else []
    if boxes.is_dir():
        files = sorted(path for path in walk(boxes)
                       if path.suffix.lower() in ENDINGS and path.name != "labels.txt")  # fmt: skip
    if not files:
        what = f"no {', '.join(ENDINGS)} file in this folder" if boxes.is_dir() else "no such file"
        raise CommandError(f"--boxes {boxes}: {what}\n  expected: {FORMS}")
    parts = [read_rows(path, boxes, problems) for path in files]
    problems.raise_any()
    rows = pandas.concat(parts, ignore_index=True)
    rows["frame"] = rows["frame"].map(whole)
    for name, own in rows.groupby("sequence"):
        files = own["file"].unique()
        again = own["named_by_file"].any() or own.groupby("frame")["file"].nunique().max() > 1
        if len(files) > 1 and again:
            remedy = "each counts as the whole sequence: pass a folder with one of each, as SEQUENCE.txt"
            problems.add(f"several files of sequence {name}", remedy, ", ".join(files))
    problems.raise_any()
    boxed = rows["id"].notna()  # the other rows only say that a frame exists
    others = Counter(kind for part in parts for kind in part.attrs["others"]).most_common()
    tell = LOG.warning if any(w in kind.lower() for kind, _ in others for w in PERSON_TYPES) else LOG.info
    others = f"; left out: {some((f'{n} of class {kind}' for kind, n in others), 5)}" if others else ""
    if not boxed.any():
        raise DataError(f"{boxes}: no boxes of people in it{others}\n  expected one per person: {FORMS}")
    unnamed = rows["id"] == ""
    forms = {part.attrs["form"] for part in parts}
    past = f", {unnamed.sum()} without an id" if unnamed.any() else ""
    if not (named := rows[boxed & ~unnamed]).duplicated(["sequence", "id"]).any():
        past = f", {'no id in two frames' if len(named) else 'without ids'}: pairs have no past"
    read = f"{boxed.sum()} boxes, {' and '.join(sorted(forms))}{past}{others}"
    tell(f"{boxes}: {read}; --frame_rate {args.frame_rate:g}")
    rows.loc[unnamed, "id"] = [f"box {k}" for k in range(1, int(unnamed.sum()) + 1)]  # unique: no tracks
    if (rows["sequence"] == "").all():
        # Images in a folder that is called like the file or like the folder that is named in it
        names = boxes.stem, Path(str(rows["frame"].iloc[0]).replace("\\", "/")).parent.name
        own = (name for name in names if name and find_folder(folder, name, alone=False) != folder)
        rows["sequence"] = next(own, folder.resolve().name)
    if (nameless := rows["sequence"] == "").any():
        where = rows["where"][nameless].iloc[0]
        raise DataError(f"{where}: empty, or its sequence is not named\n  remove it, or name the sequence")
    sequences, folders = [], []
    for name, own_rows in rows.groupby("sequence"):
        check_relative_name(name, f"{boxes}: a sequence")
        folders.append(find_folder(folder, name, alone=rows["sequence"].nunique() == 1))
        sequences.append(read_sequence(name, own_rows, folders[-1], args, problems))
    problems.raise_any()
    known = args.boxes_size or rows["size"].notna().any()
    remedy = "" if known else "if the boxes are for another size, pass --boxes_size H W"
    tell_counts(sequences, "boxes", remedy)
    return sequences, folders


def find_boxes(folder: Path) -> Path:
    """The folder of labels or detections in a JRDB folder."""
    files = {source: {path.name for path in (folder / source).glob(labels.LABEL_FILES)} for source in SOURCES}
    for source in filter(files.get, SOURCES):
        if more := set().union(*files.values()) - files[source]:
            LOG.warning(f"only {folder / source} is read; for {some(sorted(more), 3)} pass --boxes FOLDER")
        return folder / source
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    raise CommandError(
        f"--input {folder}: no boxes of people, neither labels nor detections\n"
        f"  looked for: {', '.join(f'{source}/*.json' for source in SOURCES)}\n"
        f"  found: {found or 'an empty folder'}\n  pass --boxes FILE: {FORMS}"
    )


def find_folder(folder: Path, name: str, alone: bool) -> Path:
    """The images of a sequence: in the layout of JRDB or MOT, in a folder named like it, or in `folder`."""
    named = labels.IMAGE_FOLDER / name, Path(name, "img1"), Path(name), Path("images", name)
    own = [place for place in ("images", "img1") if alone and list_images(folder / place)]
    return next((folder / place for place in (*named, *own) if (folder / place).is_dir()), folder)


def read_sequence(
    name: str, rows: pandas.DataFrame, folder: Path, args: argparse.Namespace, problems: Problems
) -> Sequence | None:
    """One sequence, people sorted by frame number and id, without groups or annotated pairs."""
    before, sizes = problems.count, sorted({*rows["size"].dropna()})
    if len(sizes) > 1 and not args.boxes_size:
        remedy = "divide the sequence by size or, if all boxes are for one size, pass --boxes_size H W"
        problems.add("boxes for panoramas of several sizes", remedy, f"{name}: {some(sizes)}")
    frames = number_frames(rows.drop_duplicates("frame").set_index("frame")["where"].to_dict(), problems)
    named = {number: f"{number:06d}.jpg" if name.isdigit() else PureWindowsPath(name).name
             for number, name in frames.items()}  # fmt: skip
    images = match_images(folder, named, problems)
    if problems.count > before:
        return None

    (boxes_size,) = [tuple(args.boxes_size[::-1])] if args.boxes_size else sizes or [None]
    images = panorama_size(folder, images, boxes_size, args)
    rows = rows.assign(frame=rows["frame"].map({name: k for k, name in enumerate(frames.values())}))
    rows = rows.dropna(subset="id")
    rows = rows.assign(length=rows["id"].str.len()).sort_values(["frame", "length", "id"])  # natural_order
    people = [Person(row.frame, row.id, row.box, row.where) for row in rows.itertuples()]
    for row in rows[rows.duplicated(["frame", "id"])].itertuples():
        remedy = "an id is one person; name the sequence of each row; if these are not ids, leave them out"
        problems.add("the same id twice in a frame", remedy, f"{row.where}, id {row.id}")
    scale = np.divide(images.size, boxes_size) if args.boxes_size else np.ones(2)
    boxes = (rows[["x", "y", "w", "h"]].to_numpy() * [*scale, *scale]).tolist()
    rules = LabelRules(skip_bad_boxes=args.skip_bad_boxes, frame_rate=args.frame_rate)
    counts = dict.fromkeys(labels.COUNTS, 0)
    sequence = labels.build_sequence(name, images, people, boxes, {}, rules, counts, problems)
    if not len(sequence.boxes) and (args.skip_bad_boxes or not people):
        problems.add("a sequence without a person", "leave it out", name)
    return sequence


def panorama_size(
    folder: Path, images: Images, boxes_size: tuple[int, int] | None, args: argparse.Namespace
) -> Images:
    """`images` with the size that boxes are scaled to, also without an image. A square --boxes_size (1 1 or
    100 100) means that boxes are fractions or percentages. DataError if the size in the boxes' file is not
    that of the images and --boxes_size is not given."""
    width, height = boxes_size or PANORAMA_SIZE
    fractions = args.boxes_size and width == height
    if images.source.startswith("no image"):
        source = "the boxes' file" if boxes_size else images.source
        size = PANORAMA_SIZE if fractions else (width, height)
        return images._replace(size=size, source="--boxes_size" if args.boxes_size else source)
    found = f"{folder.parent / images.source}: the image is {images.size[0]}x{images.size[1]}"
    if boxes_size and boxes_size != images.size and not args.boxes_size:
        remedy = f"give images of that size, or pass --boxes_size {height} {width}, which scales the boxes"
        raise DataError(f"{found}, the boxes are for {width}x{height}\n  {remedy}")
    if args.boxes_size and not fractions and (width > height) != (images.size[0] > images.size[1]):
        raise CommandError(f"--boxes_size {height} {width}: the height comes first, and {found}")
    return images
