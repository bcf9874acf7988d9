"""The boxes of one file, in whatever form detectors and trackers write them, as a table.

    labels_2d_stitched/SEQ.json, activity labels    {"labels": {"000015.jpg": [{"label_id", "box"}]}}
    detections_2d_stitched/SEQ.json                 {"detections": {"000015.jpg": [{"box"}]}}
    COCO json                                       {"images": [..], "annotations": [..]}
    CSV with a header                               frame,x,y,w,h or frame,x1,y1,x2,y2; id, sequence optional
    MOT text                                        frame,id,left,top,width,height,..
    KITTI tracking text                             frame track type 3 numbers left top right bottom ..
    KITTI detection text, one file per frame        type 3 numbers left top right bottom ..

The form is told by what is in the file, never by its name.
"""

import csv
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas

from datasets.jrdb.problems import Problems

# id "": a person without one; id None: no person, a frame that may hold nobody.
COLUMNS = ("sequence", "frame", "id", "x", "y", "w", "h", "where")
PERSON_TYPES = ("pedestrian", "person", "person_sitting", "cyclist", "human", "people")
MOT_PEOPLE = ("1", "2", "7", "-1")  # classes of MOT16 and later: on foot, on a vehicle, static; not given
# Where the type stands in a row of text without a header: its form, and the cells that it has at least.
TEXTS = {None: ("MOT", 6), 0: ("KITTI detections", 8), 2: ("KITTI tracks", 10)}
ALIASES = {
    "frame": ("frame_id", "frame_number", "image", "filename", "file_name", "image_id"),
    "id": ("track_id", "track", "person", "label_id", "person_id"),
    "sequence": ("seq", "sequence_id", "video"),
    "class": ("class_name", "class_id", "category", "category_id", "type", "label", "cls"),
    "x": ("left", "bb_left"), "y": ("top", "bb_top"),
    "w": ("width", "bb_width"), "h": ("height", "bb_height"),
    "x1": ("xmin", "x_min"), "y1": ("ymin", "y_min"), "x2": ("xmax", "x_max"), "y2": ("ymax", "y_max"),
}  # fmt: skip
FORMS = "labels or detections JSON of JRDB, COCO JSON, CSV with a header, MOT or KITTI text, in UTF-8"
EMPTY = "an empty file"
NOTHING = (None,) * 4


def read_rows(path: Path, given: Path, problems: Problems) -> pandas.DataFrame | None:
    """The boxes of one file below `given`, COLUMNS; what is no number stays for `clean_boxes` to name.

    attrs hold the form in words, the size (width, height) of the panorama, None where no file says it, the
    path, and the name of the sequence that the whole file is, "" where its rows say that.
    """
    try:
        form, rows, size = parse(path.read_text(encoding="utf-8-sig"), path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        problems.add("a file whose boxes can not be read", f"expected {FORMS}", f"{path}: {reason}")
        return None
    table, name = pandas.DataFrame(rows, columns=COLUMNS), ""
    if form in ("KITTI detections", EMPTY):  # a frame in each file
        table["frame"] = path.stem
        table["sequence"] = path.parent.name if given.is_dir() and path.parent != given else ""
    elif (given.is_dir() or form.startswith("JRDB")) and (unnamed := table["sequence"] == "").any():
        name = path.parent.parent.name if path.stem in ("gt", "det") else path.stem  # SEQUENCE/gt/gt.txt
        table.loc[unnamed, "sequence"] = name
    table.attrs = {"form": form, "size": size, "path": path, "named": name}
    return table


def parse(text: str, path: Path) -> tuple[str, list[tuple], tuple[int, int] | None]:
    """What form a file has, its rows, and the size of the panorama where the file says it."""
    if text.lstrip()[:1] in ("{", "["):
        content = json.loads(text)
        for key in ("labels", "detections"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                return f"JRDB {key}", list(jrdb_rows(content[key], path)), None
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            return "COCO", *coco_rows(content, path)
        if isinstance(content, list):  # the image's number is its frame
            kinds = [str(entry.get("category_id")) for entry in content]
            people = people_in(kinds)
            rows = [("", str(entry["image_id"]), "", *four(entry.get("bbox")), f"{path}: entry {k}")
                    for k, entry in enumerate(content) if kinds[k] in people]  # fmt: skip
            return "COCO results", rows, None
        raise ValueError("JSON without labels, detections or annotations")
    lines = [(number, line.strip().rstrip(",;")) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        return EMPTY, [("", "", None, *NOTHING, f"{path}")], None
    cells = [(f"{path}: line {n}", re.split(r"\s*[,;\t]\s*|\s+", line)) for n, line in lines]
    first = cells[0][1]
    if not any(is_number(cell) for cell in first):
        return "CSV", list(table_rows(text, path)), None
    kind = next((k for k, cell in enumerate(first) if not is_number(cell)), None)  # where the type stands
    form, needed = TEXTS.get(kind, ("", len(first) + 1))
    if len(first) < needed:
        raise ValueError(f"line 1 is neither a header nor a row of MOT or KITTI: {lines[0][1][:80]}")
    for where, row in cells:
        line = where.removeprefix(f"{path}: ")
        if len(row) < needed:
            raise ValueError(f"{line} has fewer cells than a row of {form}")
        if form == "MOT" and not whole(row[1]).lstrip("-").isdigit():
            columns = "frame, id, left, top, width, height in pixels"
            raise ValueError(f"{line}: {row[1]} is no id; without a header the columns are {columns}")
    if form == "MOT":
        people = [(w, row) for w, row in cells if len(row) != 9 or row[7] in MOT_PEOPLE]
        return form, [("", row[0], name_of(row[1]), *row[2:6], where) for where, row in people], None
    return form, list(kitti_rows([(n, row if kind else ["", "", *row]) for n, row in cells])), None


def is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", cell) is not None


def people_in(classes: Iterable[str]) -> set[str]:
    """Which of the classes of boxes are people: those called so, or the only one; else a ValueError."""
    there = set(classes)
    people = {name for name in there if name.strip().lower() in PERSON_TYPES}
    if not people and len(there) > 1:
        named = ", ".join(sorted(there)[:8])
        raise ValueError(f"boxes of the classes {named}: keep those of people alone, or call theirs person")
    return people or there


def whole(cell: Any) -> str:
    """A number as text, without the decimals of a whole one (15.0, 1.5e+01); other text as it is."""
    text = str(cell).strip()
    decimals = not text.isdigit() and is_number(text) and float(text).is_integer()
    return str(int(float(text))) if decimals else text


def name_of(cell: Any) -> str:
    """An id as text; empty where there is none (missing, -1, "person:-1")."""
    text = "" if cell is None else whole(cell)
    return "" if text in ("-1", "nan") or text.endswith(":-1") else text


def four(box: Any) -> tuple:
    """The numbers of a box; what is missing is nothing."""
    return (*(box or ()), *NOTHING)[:4]


def jrdb_rows(frames: dict[str, list], path: Path) -> Iterator[tuple]:
    """Of two records with one id in a frame the first counts, as for training."""
    for key, records in frames.items():
        seen = set()
        yield "", key, None, *NOTHING, f"{path}: frame {key}"
        for record in records or ():
            if not isinstance(record, dict):
                raise ValueError(f"frame {key}: no record of a person: {str(record)[:40]}")
            person = name_of(record.get("label_id"))
            if not person or person not in seen:
                where = f"{path}: frame {key}, {person or 'no id'}"
                yield "", key, person, *four(record.get("box")), where
            seen.add(person)


def coco_rows(content: dict, path: Path) -> tuple[list[tuple], tuple[int, int] | None]:
    images = {image["id"]: image for image in content["images"]}
    places = [image["file_name"].replace("\\", "/") for image in images.values()]
    files = zip(name_folders(places), map(posixpath.basename, places), strict=True)
    names = dict(zip(images, files, strict=True))  # image: sequence, frame
    if len(set(names.values())) < len(names):  # of several videos
        twice = Counter(names.values()).most_common(1)[0][0][1]
        raise ValueError(f"several images are called {twice}: a folder in file_name says of which sequence")
    classes = {c["id"]: str(c.get("name")) for c in content.get("categories", [])}
    kinds = [classes.get(e.get("category_id"), str(e.get("category_id"))) for e in content["annotations"]]
    people = people_in([*kinds, *(name for name in classes.values() if name.lower() in PERSON_TYPES)])
    rows = [(*name, None, *NOTHING, f"{path}: image {name[1]}") for name in names.values()]
    for entry, kind in zip(content["annotations"], kinds, strict=True):
        where = f"{path}: annotation {entry.get('id')}"
        if entry["image_id"] not in names:
            raise ValueError(f"annotation {entry.get('id')}: no image {entry['image_id']!r} is listed")
        if kind in people and not entry.get("iscrowd"):
            track = (entry.get("attributes") or {}) | entry  # CVAT's, or its own
            person = name_of(track.get("track_id", track.get("instance_id")))
            rows.append((*names[entry["image_id"]], person, *four(entry.get("bbox")), where))
    sizes = {(image.get("width"), image.get("height")) for image in images.values()}
    size = sizes.pop() if len(sizes) == 1 else (None, None)
    return rows, None if None in size else size


def kitti_rows(cells: list[tuple[str, list[str]]]) -> Iterator[tuple]:
    """Left, top, right, bottom of the people; other types, and DontCare, are left out."""
    for where, (frame, track, kind, *rest) in cells:
        if kind.lower() in PERSON_TYPES:
            ends = [value_of(cell, commas=False) for cell in rest[3:7]]
            yield "", frame, name_of(track), *corners(*ends), where


def name_folders(images: list[str]) -> list[str]:
    """The sequence of each image, "" where all are in one folder: its folder's name or, where two folders are
    called alike, their paths below the folder that holds all."""
    folders = [posixpath.dirname(image) for image in images]
    names = [posixpath.basename(folder) for folder in folders]
    if len(set(folders)) < 2:
        return [""] * len(folders)
    if len(set(names)) == len(set(folders)):
        return names
    root = posixpath.commonpath(folders)
    return [posixpath.relpath(folder, root) for folder in folders]


def table_rows(text: str, path: Path) -> Iterator[tuple]:
    """Of a CSV with a header, columns named as in ALIASES; folders of images are sequences."""
    first = text.lstrip().splitlines()[0]
    separator = next((mark for mark in (",", ";", "\t") if mark in first), " ")
    lines = text.lstrip().splitlines()
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    header = [cell.strip().lower() for cell in next(reader)]
    columns = {}  # name in ALIASES: its place; of several that mean it, the first by the order there
    for name, aliases in ALIASES.items():
        there = [header.index(word) for word in (name, *aliases) if word in header]
        columns |= {name: there[0]} if there else {}
    corner = {"x1", "y1", "x2", "y2"} <= columns.keys()
    box = ["x1", "y1", "x2", "y2"] if corner else ["x", "y", "w", "h"]
    if missing := [name for name in ("frame", *box) if name not in columns]:
        expected = "frame,x,y,w,h or frame,x1,y1,x2,y2, and id and sequence where known"
        raise ValueError(f"no column {', '.join(missing)} in {first.strip()[:80]}; expected {expected}")
    rows = []
    for cells in reader:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise ValueError(f"line {reader.line_num} has more cells than the header (decimal commas?)")
        cells = [cell.strip() for cell in cells] + [""] * len(header)
        rows += [(reader.line_num, {name: cells[at] for name, at in columns.items()})] if any(cells) else []
    people = people_in(row.get("class", "") for _, row in rows)
    folders = name_folders([row["frame"].replace("\\", "/") for _, row in rows])
    for (line, row), folder in zip(rows, folders, strict=True):
        if row.get("class", "") in people:
            values = [value_of(row[name], separator != ",") for name in box]
            values = corners(*values) if corner else values
            sequence, person = row.get("sequence", folder), name_of(row.get("id", ""))
            yield sequence, row["frame"], person, *values, f"{path}: line {line}"


def value_of(cell: str, commas: bool) -> float | str:
    """A number, with decimal `commas` too; what is none stays as it is, to be shown in the error."""
    number = cell.replace(",", ".") if commas else cell
    return float(number) if is_number(number) else cell


def corners(x1: float | str, y1: float | str, x2: float | str, y2: float | str) -> tuple:
    """x, y, w, h from two corners; as they are where one is no number, which `clean_boxes` refuses."""
    if not all(isinstance(value, float) for value in (x1, y1, x2, y2)):
        return x1, y1, x2, y2
    return x1, y1, x2 - x1, y2 - y1
