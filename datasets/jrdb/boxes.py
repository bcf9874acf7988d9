"""People without annotations: boxes in whatever form detectors and trackers write them.

    labels_2d_stitched/SEQ.json, activity labels    {"labels": {"000015.jpg": [{"label_id", "box"}]}}
    detections_2d_stitched/SEQ.json                 {"detections": {"000015.jpg": [{"box"}]}}
    COCO json                                       {"images": [..], "annotations": [..]}
    CSV with a header                               frame,x,y,w,h or frame,x1,y1,x2,y2; id, sequence optional
    MOT text                                        frame,id,left,top,width,height,..
    KITTI tracking text                             frame track type 3 numbers left top right bottom ..
    KITTI detection text, one file per frame        type 3 numbers left top right bottom ..

The form is told by what is in the file, never by its name, and said in the log. A folder of such files holds
a sequence in each, or a frame in each. Pixels of the panorama; x + w may exceed its width for a person on the
seam. Ids are optional: without them nobody is found again, and a pair has no past. A frame is named by its
image, or by a number anywhere in the name.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from datasets.images import check_relative_name, read_image_size
from datasets.jrdb.labels import (
    COUNTS,
    FRAMES_PER_SECOND,
    IMAGE_FOLDER,
    LABEL_FOLDER,
    PANORAMA_SIZE,
    Problems,
    Sequence,
    clean_boxes,
    list_images,
    natural_order,
)
from utils.run.errors import CommandError, DataError

PERSON_TYPES = ("pedestrian", "person", "person_sitting", "cyclist")
SOURCES = (LABEL_FOLDER, Path("labels/labels_2d_stitched"), Path("detections/detections_2d_stitched"))
ALIASES = {
    "frame": ("frame_id", "frame_number", "image", "filename", "file_name", "image_id"),
    "id": ("track_id", "track", "person", "label_id", "person_id"),
    "sequence": ("seq", "sequence_id", "video"),
    "x": ("left", "bb_left"), "y": ("top", "bb_top"),
    "w": ("width", "bb_width"), "h": ("height", "bb_height"),
    "x1": ("xmin", "x_min"), "y1": ("ymin", "y_min"), "x2": ("xmax", "x_max"), "y2": ("ymax", "y_max"),
}  # fmt: skip
FORMS = "labels or detections JSON of JRDB, COCO JSON, CSV with a header, MOT or KITTI text"


@dataclass
class BoxRules:
    """How boxes are read: the flags of the same names, see predict.py --help."""

    frame_rate: float = FRAMES_PER_SECOND
    boxes_size: tuple[int, int] | None = None  # height, width of the panorama that the boxes are given for
    skip_bad_boxes: bool = False


def read_people(
    folder: Path, boxes: Path | None, rules: BoxRules, log: Callable[[str], None]
) -> tuple[list[Sequence], list[Path]]:
    """The sequences of people, and the folder of images of each (which may hold none).

    Without `boxes` they are looked for in `folder`, which is then a JRDB folder. CommandError for files that
    are not there, one DataError for all that is wrong in them.
    """
    if boxes is None:
        found = [folder / source for source in SOURCES if any((folder / source).glob("*.json"))]
        if not found:
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
            raise CommandError(
                f"--input {folder}: no boxes of people, no labels or detections\n"
                f"  looked for: {', '.join(f'{source}/*.json' for source in SOURCES)}\n"
                f"  found: {there or 'an empty folder'}\n  pass --boxes FILE: {FORMS}"
            )
        boxes = found[0]
    if not boxes.exists():
        raise CommandError(f"--boxes {boxes}: no such file")
    problems = Problems()
    files = [boxes]
    if boxes.is_dir():
        files = sorted(path for path in boxes.rglob("*") if path.suffix in (".json", ".txt", ".csv"))
        if not files:
            raise CommandError(
                f"--boxes {boxes}: no .json, .txt or .csv file in this folder\n  expected: {FORMS}"
            )
    parts = [part for part in (read_rows(path, boxes, problems) for path in files) if part is not None]
    problems.raise_any()
    rows = pandas.concat(parts, ignore_index=True)
    sizes = {part.attrs["size"] for part in parts}
    boxed = rows["id"].notna()  # the others say that there is a frame, maybe without people
    if not boxed.any():
        raise DataError(f"{boxes}: no box in it\n  expected one per person and frame: {FORMS}")
    forms = sorted({part.attrs["form"] for part in parts})
    unnamed = rows["id"] == ""
    past = ", without ids: no past" if (unnamed | ~boxed).all() else ""
    log(f"{boxes}: {boxed.sum()} boxes, {' and '.join(forms)}{past}")
    rows.loc[unnamed, "id"] = [f"box {k}" for k in range(1, int(unnamed.sum()) + 1)]  # never met again
    if (rows["sequence"] == "").all():
        rows["sequence"] = folder.resolve().name
    names, counts = sorted(rows["sequence"].unique()), dict.fromkeys(COUNTS, 0)
    folders = [find_folder(folder, name, alone=len(names) == 1) for name in names]
    sequences = [
        build_sequence(name, rows[rows["sequence"] == name], images, sizes, rules, problems, counts)
        for name, images in zip(names, folders, strict=True)
    ]
    problems.raise_any()
    told = [
        f"{counts[f'{what}_boxes']} {what}"
        for what in ("wrapped", "clipped", "skipped")
        if counts[f"{what}_boxes"]
    ]
    if told:
        log(f"boxes at the edge of the panorama: {', '.join(told)}")
    return sequences, folders


def find_folder(folder: Path, name: str, alone: bool) -> Path:
    """Where the images of a sequence are: in the JRDB layout, in a folder of its name, or in `folder`."""
    for candidate in (folder / IMAGE_FOLDER / name, folder / name, folder / "images" / name):
        if candidate.is_dir():
            return candidate
    return folder / "images" if alone and list_images(folder / "images") else folder


# One file: a table with the columns sequence, frame, id, x, y, w, h, where. Id "" is a person without one;
# None stands for a frame that may hold nobody.


def read_rows(path: Path, given: Path, problems: Problems) -> pandas.DataFrame | None:
    """The boxes of one file as a table; what is no number stays for `clean_boxes` to name."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        form, rows, size = parse(text, path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problems.add("a file whose boxes can not be read", f"expected {FORMS}", f"{path}: {error}")
        return None
    columns = ["sequence", "frame", "id", "x", "y", "w", "h", "where"]
    table = pandas.DataFrame(rows, columns=columns)
    if form == "KITTI detections":  # a frame in each file
        table["frame"] = path.stem
        table["sequence"] = path.parent.name if given.is_dir() and path.parent != given else ""
    elif given.is_dir() or form.startswith("JRDB"):
        table.loc[table["sequence"] == "", "sequence"] = path.stem
    table.attrs = {"form": form, "size": size}
    return table


def parse(text: str, path: Path) -> tuple[str, list[tuple], tuple[int, int] | None]:
    """What form a file has, its rows, and the size (width, height) of the panorama where the file says it."""
    if text.lstrip()[:1] in ("{", "["):
        content = json.loads(text)
        for key in ("labels", "detections"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                return f"JRDB {key}", list(jrdb_rows(content[key], path)), None
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            return "COCO", *coco_rows(content, path)
        if isinstance(content, list):  # COCO results: the image's number is its frame
            rows = [("", str(entry["image_id"]), "", *entry["bbox"][:4], f"{path}: entry {k}")
                    for k, entry in enumerate(content)]  # fmt: skip
            return "COCO results", rows, None
        raise ValueError("JSON without labels, detections or annotations")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError("an empty file")
    cells = [(number, re.split(r"\s*[,;\t]\s*|\s+", line)) for number, line in lines]
    first = cells[0][1]
    if any(is_number(cell) for cell in first):
        kind = next((k for k, cell in enumerate(first) if not is_number(cell)), None)
        if kind == 0 and len(first) >= 8:
            return "KITTI detections", list(kitti_rows(cells, path, "")), None
        if kind == 2 and len(first) >= 10:
            return "KITTI tracks", list(kitti_rows(cells, path, "frame")), None
        if kind is None and len(first) >= 6:
            rows = [("", row[0], name_of(row[1]), *row[2:6], f"{path}: line {n}") for n, row in cells]
            return "MOT", rows, None
        raise ValueError(f"line 1 is neither a header nor a row of MOT or KITTI: {lines[0][1][:80]}")
    return "CSV", list(table_rows(text, path)), None


def is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", cell) is not None


def name_of(cell: Any) -> str:
    """An id as text; empty where there is none (missing, -1, "person:-1")."""
    text = "" if cell is None else str(cell).strip()
    text = text.removesuffix(".0")
    return "" if text in ("-1", "nan") or text.endswith(":-1") else text


def jrdb_rows(frames: dict[str, list], path: Path) -> Iterator[tuple]:
    """Of two records with one id in a frame the first counts, as for training."""
    for key, records in frames.items():
        seen = set()
        yield "", key, None, *[None] * 4, f"{path}: frame {key}"
        for record in records:
            person, box = name_of(record.get("label_id")), record.get("box") or []
            if person and person in seen:
                continue
            seen.add(person)
            yield "", key, person, *(list(box) + [None] * 4)[:4], f"{path}: frame {key}, {person or 'no id'}"


def coco_rows(content: dict, path: Path) -> tuple[list[tuple], tuple[int, int] | None]:
    images = {image["id"]: image for image in content["images"]}
    people = {c["id"] for c in content.get("categories", []) if str(c.get("name")).lower() in PERSON_TYPES}
    sizes = {(image.get("width"), image.get("height")) for image in images.values()}
    rows = []
    for image in images.values():
        name = Path(image["file_name"])
        rows.append((name.parent.name, name.name, None, *[None] * 4, f"{path}: image {name}"))
    for entry in content["annotations"]:
        if people and entry.get("category_id") not in people:
            continue
        name = Path(images[entry["image_id"]]["file_name"])
        where = f"{path}: annotation {entry.get('id')}"
        parent = name.parent.name
        rows.append((parent, name.name, name_of(entry.get("track_id")), *entry["bbox"][:4], where))
    if len({row[0] for row in rows}) == 1:
        rows = [("", *row[1:]) for row in rows]  # one sequence: its images are where --input says
    size = sizes.pop() if len(sizes) == 1 else None
    return rows, size if size and None not in size else None


def kitti_rows(cells: list[tuple[int, list[str]]], path: Path, first: str) -> Iterator[tuple]:
    """Left, top, right, bottom of the people; other types, and DontCare, are left out."""
    for number, row in cells:
        frame, track, kind, *rest = row if first else ("", "", *row)
        if kind.lower() in PERSON_TYPES:
            x1, y1, x2, y2 = (float(cell) if is_number(cell) else None for cell in rest[3:7])
            yield "", frame, name_of(track), *corners(x1, y1, x2, y2), f"{path}: line {number}"


def table_rows(text: str, path: Path) -> Iterator[tuple]:
    first = text.lstrip().splitlines()[0]
    separator = next((mark for mark in (",", ";", "\t") if mark in first), r"\s+")
    rows = pandas.read_csv(
        pandas.io.common.StringIO(text),
        sep=separator,
        dtype=str,
        keep_default_na=False,
        skipinitialspace=True,
    )
    known = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
    rows.columns = [known.get(name.strip().lower(), name.strip().lower()) for name in rows.columns]
    corner = {"x1", "y1", "x2", "y2"} <= set(rows.columns)
    missing = [name for name in ("frame", *("xywh" if not corner else ())) if name not in rows]
    if missing:
        expected = "frame,x,y,w,h or frame,x1,y1,x2,y2, and id and sequence where known"
        raise ValueError(f"no column {', '.join(missing)} in {first.strip()[:80]}; expected {expected}")
    columns = [rows[name] for name in (("x1", "y1", "x2", "y2") if corner else "xywh")]
    numbers = [pandas.to_numeric(column, errors="coerce") for column in columns]
    blank = [""] * len(rows)
    for line, sequence, frame, person, *box in zip(
        range(2, len(rows) + 2),
        rows.get("sequence", blank),
        rows["frame"],
        rows.get("id", blank),
        *numbers,
        strict=True,
    ):
        box = [None if np.isnan(value) else float(value) for value in box]
        yield (
            sequence.strip(),
            frame.strip(),
            name_of(person),
            *(corners(*box) if corner else box),
            f"{path}: line {line}",
        )


def corners(x1: float | None, y1: float | None, x2: float | None, y2: float | None) -> list[float | None]:
    """x, y, w, h from two corners."""
    return [None] * 4 if None in (x1, y1, x2, y2) else [x1, y1, x2 - x1, y2 - y1]


# One sequence


def build_sequence(
    name: str,
    rows: pandas.DataFrame,
    images: Path,
    sizes: set[tuple[int, int] | None],
    rules: BoxRules,
    problems: Problems,
    counts: dict[str, int],
) -> Sequence | None:
    """One sequence of people by frame number and id, without groups or annotated pairs."""
    check_relative_name(name, "the sequence")
    frames = rows["frame"].astype(str).str.removesuffix(".0")
    numbers = frames.str.extract(r"([0-9]{1,9})[^0-9]*(?:\.[A-Za-z]+)?$")[0].fillna("-1").astype(np.int64)
    for where, frame in zip(rows["where"][numbers < 0], frames[numbers < 0], strict=True):
        remedy = "a frame is an image's name with a number in it, such as 000015.jpg, or the number"
        problems.add("a frame without a number", remedy, f"{where}, frame {frame!r}")
    pictures = {number: file for file in list_images(images) if (number := last_number(file)) is not None}
    size, source, scale = panorama_size(name, images, pictures, sizes, rules)
    every_time = np.unique(numbers)
    rows, numbers = rows[rows["id"].notna()], numbers[rows["id"].notna()]
    boxes = rows[["x", "y", "w", "h"]].to_numpy(object).tolist()
    boxes = [
        [float(v) * s if is_real(v) else v for v, s in zip(box, scale * 2, strict=True)] for box in boxes
    ]
    found = dict.fromkeys(COUNTS, 0)
    clean, bad = clean_boxes(boxes, *size, source, found)
    for row, what in bad.items() if not rules.skip_bad_boxes else ():
        remedy = "correct them, pass --skip_bad_boxes or, for boxes made for another size, --boxes_size H W"
        problems.add(
            what, remedy, f"{rows['where'].iloc[row]}: box {rows[['x', 'y', 'w', 'h']].iloc[row].tolist()}"
        )
    kept = np.ones(len(rows), bool)
    kept[list(bad)] = False
    for what, count in (found | {"skipped_boxes": len(bad)}).items():
        counts[what] += count
    if not kept.any() and (rules.skip_bad_boxes or not len(rows)):
        problems.add("no person in any frame of a sequence", "leave it out", name)
    if problems.found:
        return None
    people, times = rows["id"].to_numpy(str)[kept], numbers.to_numpy()[kept]
    track_names = sorted(set(people), key=natural_order)
    place = {person: k for k, person in enumerate(track_names)}
    tracks = np.array([place[person] for person in people])
    order = np.lexsort((tracks, times))
    times, tracks = times[order], tracks[order]
    for k in np.flatnonzero((np.diff(times) == 0) & (np.diff(tracks) == 0)) + 1:
        where = rows["where"][kept].iloc[order[k]]
        problems.add(
            "one id twice in a frame", "an id is one person", f"{where}, id {track_names[tracks[k]]}"
        )
    starts, times = np.searchsorted(times, [*every_time, np.inf]), every_time
    nobody = np.full(len(tracks), -1)
    return Sequence(
        name=name, width=size[0], height=size[1], size_source=source,
        keys=[pictures.get(number, f"{number:06d}.jpg") for number in times.tolist()],
        times=times, starts=starts, boxes=clean[kept][order], tracks=tracks,
        track_names=track_names, groups=nobody, difficult=nobody > 0, pairs=np.empty((0, 2), np.int64),
        types=np.empty(0, np.int64), image_found=np.array([number in pictures for number in times.tolist()]),
        frame_rate=rules.frame_rate,
    )  # fmt: skip


def is_real(value: object) -> bool:
    return isinstance(value, int | float | np.number) or (isinstance(value, str) and is_number(value))


def last_number(name: str) -> int | None:
    """The last number in a file's name, 15 for IMG_0015.jpg."""
    numbers = re.findall(r"[0-9]{1,9}", Path(name).stem)
    return int(numbers[-1]) if numbers else None


def panorama_size(
    name: str, images: Path, pictures: dict[int, str], sizes: set[tuple[int, int] | None], rules: BoxRules
) -> tuple[tuple[int, int], str, list[float]]:
    """(width, height) that boxes are brought to, where it comes from, and the factors in x and y for it.

    DataError where the file says another size than the images have, and --boxes_size nothing.
    """
    given = (rules.boxes_size[1], rules.boxes_size[0]) if rules.boxes_size else None
    said = given or (sizes.copy().pop() if len(sizes) == 1 else None)
    if not pictures:
        source = (
            "--boxes_size" if given else "the boxes' file" if said else "no image; the official JRDB panorama"
        )
        return said or PANORAMA_SIZE, source, [1.0, 1.0]
    file = pictures[min(pictures)]
    size = read_image_size(images / file)
    if said and said != size and not given:
        raise DataError(
            f"{images / file}: the image is {size[0]}x{size[1]}, the boxes are for {said[0]}x{said[1]}\n"
            f"  give images of that size, or pass --boxes_size {said[1]} {said[0]} to have the boxes scaled"
        )
    scale = [size[0] / given[0], size[1] / given[1]] if given else [1.0, 1.0]
    return size, f"{name}/{file}", scale
