"""Read the boxes of one file, in any format that detectors and trackers write, into a table.

    labels_2d_stitched/SEQ.json, activity labels    {"labels": {"000015.jpg": [{"label_id", "box"}]}}
    detections_2d_stitched/SEQ.json                 {"detections": {"000015.jpg": [{"box"}]}}
    COCO json                                       {"images": [..], "annotations": [..]}
    CSV with a header                               frame,x,y,w,h or frame,x1,y1,x2,y2; id, sequence optional
    MOT text                                        frame,id,left,top,width,height,..
    KITTI tracking text                             frame track type 3 numbers left top right bottom ..
    KITTI detection text, one file per frame        type 3 numbers left top right bottom ..

The format is recognised by the content of the file, never by its name.
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

# id: "" for a person without an id, None for a row that only says that the frame exists. box: as written
COLUMNS = ("sequence", "frame", "id", "box", "where")
PERSON_TYPES = ("pedestrian", "person", "person_sitting", "cyclist", "human", "people")
MOT_PEOPLE = ("1", "2", "7", "-1", "")  # MOT16 and later: pedestrian, person on vehicle, static; not given
ALIASES = {
    "frame": ("frame_id", "frame_number", "image", "filename", "file_name", "image_id"),
    "id": ("track_id", "track", "person", "label_id", "person_id"),
    "sequence": ("seq", "sequence_id", "video"),
    "class": ("class_name", "class_id", "category", "category_id", "type", "label", "cls"),
    "x": ("left", "bb_left"), "y": ("top", "bb_top"),
    "w": ("width", "bb_width"), "h": ("height", "bb_height"),
    "x1": ("xmin", "x_min"), "y1": ("ymin", "y_min"), "x2": ("xmax", "x_max"), "y2": ("ymax", "y_max"),
}  # fmt: skip
MOT = ("frame", "id", "x", "y", "w", "h")
KITTI = ("frame", "id", "class", "truncated", "occluded", "alpha", "x1", "y1", "x2", "y2")
# Text without a header. The key is the position of the first cell that is not a number, which is the type;
# the values are the format, its columns, and which types are people.
TEXTS = {
    None: ("MOT", MOT, MOT_PEOPLE),
    0: ("KITTI detections", KITTI[2:], PERSON_TYPES),
    2: ("KITTI tracks", KITTI, PERSON_TYPES),
}
WIDEST = 400  # pixels: no person starts further right and is wider still; such a "width" is a right edge
FORMS = "labels or detections JSON of JRDB, COCO JSON, CSV with a header, MOT or KITTI text, in UTF-8"


def read_rows(path: Path, given: Path, problems: Problems) -> pandas.DataFrame | None:
    """Read one file below `given` into COLUMNS, x, y, w, h (NaN if not a number) and file: the path if the
    file's name names the sequence, "" if its rows or its folder do. An unreadable file is a problem and None.

    attrs: form (name of the format) and size ((width, height) of the panorama, None if unknown).
    """
    try:
        form, rows, corners, size = parse(path.read_text(encoding="utf-8-sig"), path)
        table = pandas.DataFrame(rows, columns=COLUMNS).assign(file="")
        unnamed = table["sequence"] == ""
        table.loc[unnamed, "sequence"] = name_folders(table["frame"][unnamed].tolist())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        problems.add("a file whose boxes cannot be read", f"expected {FORMS}", f"{path}: {reason}")
        return None
    boxes = [box if isinstance(box, list) and len(box) == 4 else [None] * 4 for box in table["box"]]
    boxes = pandas.DataFrame(boxes, columns=list("xywh"), dtype=object)
    table[list("xywh")] = boxes.apply(pandas.to_numeric, errors="coerce").astype(float)
    beyond = (table[["w", "h"]].to_numpy() > table[["x", "y"]]).all(axis=None)
    if form == "MOT" and len(table) > 4 and beyond and table["x"].max() > WIDEST:
        remedy = "name all columns in a first line: frame,id,x1,y1,x2,y2,.. or frame,id,x,y,w,h,.."
        problems.add("widths and heights that look like right and lower edges", remedy, f"{path}")
    if corners:
        if size and (table[["w", "h"]].max().to_numpy() > size).any():
            size = None  # that of a box, not of the image
        table["w"], table["h"] = table["w"] - table["x"], table["h"] - table["y"]
    if form == "KITTI detections":  # a frame in each file
        inside = given.is_dir() and path.parent != given
        table = table.assign(frame=path.stem, sequence=path.parent.name if inside else "")
    elif (given.is_dir() or form.startswith("JRDB")) and (unnamed := table["sequence"] == "").any():
        name = path.parent.parent.name if path.stem in ("gt", "det") else path.stem  # SEQUENCE/gt/gt.txt
        table.loc[unnamed, ["sequence", "file"]] = name, str(path)
    table.attrs = {"form": form, "size": size}
    return table


def parse(text: str, path: Path) -> tuple[str, list[tuple], bool, tuple[int, int] | None]:
    """Return the format, the rows, whether boxes are two corners, and the panorama's size if the file has it.
    An empty file is a KITTI file: a frame in which nobody was detected."""
    if not text.strip(" ,;\t\r\n"):
        return "KITTI detections", [("", "", None, None, f"{path}")], True, None
    if text.lstrip()[0] not in "{[":
        return text_rows(text, path)
    content = json.loads(text)
    for key in ("labels", "detections"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            return f"JRDB {key}", list(jrdb_rows(content[key], path)), False, None
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return "COCO", *coco_rows(content, path)
    if isinstance(content, list):  # image_id is the frame number
        kinds = [str(entry.get("category_id")) for entry in content]
        people = people_in(kinds)
        rows = [("", str(entry["image_id"]), "", entry["bbox"], f"{path}: entry {k}")
                for k, entry in enumerate(content) if kinds[k] in people]  # fmt: skip
        return "COCO results", rows, False, None
    raise ValueError("JSON without labels, detections or annotations")


def jrdb_rows(frames: dict[str, list], path: Path) -> Iterator[tuple]:
    """Of two records with the same id in a frame only the first counts, as in training."""
    for key, records in frames.items():
        seen = set()
        yield "", key, None, None, f"{path}: frame {key}"
        for record in records or ():
            if not isinstance(record, dict):
                raise ValueError(f"frame {key}: not the record of a person: {str(record)[:40]}")
            person = name_of(record.get("label_id"))
            if not person or person not in seen:
                yield "", key, person, record.get("box"), f"{path}: frame {key}, {person or 'no id'}"
            seen.add(person)


def coco_rows(content: dict, path: Path) -> tuple[list[tuple], bool, tuple[int, int] | None]:
    images = {image["id"]: image["file_name"] for image in content["images"]}
    if len(set(images.values())) < len(images):  # images of several videos
        twice = Counter(images.values()).most_common(1)[0][0]
        raise ValueError(f"several images are called {twice}: put the sequence in front, SEQUENCE/{twice}")
    classes = {c["id"]: str(c.get("name")) for c in content.get("categories", [])}
    kinds = [classes.get(e.get("category_id"), str(e.get("category_id"))) for e in content["annotations"]]
    people = people_in([*kinds, *(name for name in classes.values() if name.lower() in PERSON_TYPES)])
    rows = [("", name, None, None, f"{path}: image {name}") for name in images.values()]
    for entry, kind in zip(content["annotations"], kinds, strict=True):
        where = f"annotation {entry.get('id')}"
        if entry["image_id"] not in images:
            raise ValueError(f"{where}: its image_id {entry['image_id']!r} is not in images")
        if kind in people and not entry.get("iscrowd"):
            track = (entry.get("attributes") or {}) | entry  # CVAT writes track_id into attributes
            person = name_of(track.get("track_id", track.get("instance_id")))
            rows.append(("", images[entry["image_id"]], person, entry.get("bbox"), f"{path}: {where}"))
    sizes = {(image.get("width"), image.get("height")) for image in content["images"]}
    size = sizes.pop() if len(sizes) == 1 else ()  # some tools write 0 where they do not know it
    return rows, False, size if size and all(isinstance(v, int | float) and v > 0 for v in size) else None


def text_rows(text: str, path: Path) -> tuple[str, list[tuple], bool, tuple[int, int] | None]:
    """`parse` for lines of cells, with a header (column names as in ALIASES) or without; keeps only people.
    If there are width and height columns beside two corners, and they are the same in every row, they are
    returned as the size of the panorama."""
    lines = [line.rstrip(" ,;\t") for line in text.splitlines()]
    first = next(filter(None, lines))
    separator = next((mark for mark in ",;\t" if mark in first), " ")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    rows = [(f"line {reader.line_num}", [cell.strip() for cell in cells]) for cells in reader if cells]
    header = [cell.lower() for cell in rows[0][1]]
    words = [k for k, cell in enumerate(header) if not is_number(cell)]
    if len(words) == len(header):
        form, people, rows = "CSV", None, rows[1:]
    else:
        form, columns, people = TEXTS.get(words[0] if words else None, ("", header, ()))
        if not form or len(header) < len(columns):
            raise ValueError(f"line 1 is neither a header nor a row of MOT or KITTI: {first[:80]}")
        columns += ("score", "class") if form == "MOT" and len(header) == 9 else ()
        header, rows = list(columns), [(line, cells[: len(columns)]) for line, cells in rows]
    if too_long := [line for line, cells in rows if len(cells) > len(header)]:
        raise ValueError(f"{too_long[0]} has more cells than the header (decimal commas?)")
    # Of several columns with the same meaning, take the first in the order of ALIASES.
    place = {name: next((header.index(word) for word in (name, *aliases) if word in header), len(header))
             for name, aliases in ALIASES.items()}  # fmt: skip
    corners = max(place[name] for name in ("x1", "y1", "x2", "y2")) < len(header)
    box = ["x1", "y1", "x2", "y2"] if corners else ["x", "y", "w", "h"]
    missing = [name for name in ("frame", *box) if place[name] == len(header)]
    if missing and form == "CSV":
        expected = "frame,x,y,w,h or frame,x1,y1,x2,y2, and optionally id and sequence"
        raise ValueError(f"no column {', '.join(missing)} in {first.strip()[:80]}; expected {expected}")
    rows = [(line, cells + [""] * (len(header) + 1 - len(cells))) for line, cells in rows]
    kinds = [cells[place["class"]].lower() for _, cells in rows]
    people = people_in(kinds) if people is None else people
    found = []
    for (line, cells), kind in zip(rows, kinds, strict=True):
        numbers = [cells[place[name]] for name in box]
        if separator != ",":
            numbers = [number.replace(",", ".") for number in numbers]  # decimal commas
        sequence, frame, person = (cells[place[name]] for name in ("sequence", "frame", "id"))
        if form == "MOT" and not whole(person).lstrip("-").isdigit():
            columns = "frame, id, left, top, width, height in pixels"
            raise ValueError(f"{line}: {person!r} is not an id; without a header the columns are {columns}")
        if kind in people:
            found.append((sequence, frame, name_of(person), numbers, f"{path}: {line}"))
    sides = {tuple(cells[place[name]] for name in "wh") for _, cells in rows if corners}
    size = tuple(int(side) for side in sides.pop() if side.isdigit()) if len(sides) == 1 else ()
    return form, found, corners, size if len(size) == 2 else None


def is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", cell) is not None


def people_in(classes: Iterable[str]) -> set[str]:
    """The classes that are people: those with such a name, or the only class; otherwise a ValueError."""
    classes = set(classes)
    people = {name for name in classes if name.strip().lower() in PERSON_TYPES}
    if not people and len(classes) > 1:
        named = ", ".join(sorted(classes)[:8])
        raise ValueError(f"none of the classes {named} is called person: rename or keep only that of people")
    return people or classes


def whole(cell: Any) -> str:
    """The cell as text; whole numbers lose their decimals (15.0 and 1.5e+01 become 15)."""
    text = str(cell).strip()
    decimals = not text.isdigit() and is_number(text) and float(text).is_integer()
    return str(int(float(text))) if decimals else text


def name_of(cell: Any) -> str:
    """An id as text; "" if there is none (missing, -1, "person:-1")."""
    text = "" if cell is None else whole(cell)
    return "" if text in ("-1", "nan") or text.endswith(":-1") else text


def name_folders(images: list[str]) -> list[str]:
    """The sequence of each image: the name of its folder or, if two folders share a name, their paths below
    the common parent. "" if all images are in one folder."""
    folders = [posixpath.dirname(str(image).replace("\\", "/")) for image in images]
    names = [posixpath.basename(folder) for folder in folders]
    if len(set(folders)) < 2:
        return [""] * len(folders)
    if len(set(names)) == len(set(folders)):
        return names
    root = posixpath.commonpath(folders)
    return [posixpath.relpath(folder, root) for folder in folders]
