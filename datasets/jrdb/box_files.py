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

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas

from datasets.jrdb.problems import Problems

# id "": a person without one; id None: no person, a frame that may hold nobody.
COLUMNS = ("sequence", "frame", "id", "x", "y", "w", "h", "where")
PERSON_TYPES = ("pedestrian", "person", "person_sitting", "cyclist")
ALIASES = {
    "frame": ("frame_id", "frame_number", "image", "filename", "file_name", "image_id"),
    "id": ("track_id", "track", "person", "label_id", "person_id"),
    "sequence": ("seq", "sequence_id", "video"),
    "x": ("left", "bb_left"), "y": ("top", "bb_top"),
    "w": ("width", "bb_width"), "h": ("height", "bb_height"),
    "x1": ("xmin", "x_min"), "y1": ("ymin", "y_min"), "x2": ("xmax", "x_max"), "y2": ("ymax", "y_max"),
}  # fmt: skip
FORMS = "labels or detections JSON of JRDB, COCO JSON, CSV with a header, MOT or KITTI text"
NOTHING = (None,) * 4


def read_rows(path: Path, given: Path, problems: Problems) -> pandas.DataFrame | None:
    """The boxes of one file below `given`, COLUMNS; what is no number stays for `clean_boxes` to name.

    attrs hold the form in words and the size (width, height) of the panorama, None where no file says it.
    """
    try:
        form, rows, size = parse(path.read_text(encoding="utf-8-sig"), path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problems.add("a file whose boxes can not be read", f"expected {FORMS}", f"{path}: {error}")
        return None
    table = pandas.DataFrame(rows, columns=COLUMNS)
    if form == "KITTI detections":  # a frame in each file
        table["frame"] = path.stem
        table["sequence"] = path.parent.name if given.is_dir() and path.parent != given else ""
    elif given.is_dir() or form.startswith("JRDB"):
        table.loc[table["sequence"] == "", "sequence"] = path.stem
    table.attrs = {"form": form, "size": size}
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
            rows = [("", str(entry["image_id"]), "", *entry["bbox"][:4], f"{path}: entry {k}")
                    for k, entry in enumerate(content)]  # fmt: skip
            return "COCO results", rows, None
        raise ValueError("JSON without labels, detections or annotations")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError("an empty file")
    cells = [(f"{path}: line {n}", re.split(r"\s*[,;\t]\s*|\s+", line)) for n, line in lines]
    first = cells[0][1]
    if not any(is_number(cell) for cell in first):
        return "CSV", list(table_rows(text, path)), None
    kind = next((k for k, cell in enumerate(first) if not is_number(cell)), None)  # where the type stands
    if kind == 0 and len(first) >= 8:
        return "KITTI detections", list(kitti_rows([(n, ["", "", *row]) for n, row in cells])), None
    if kind == 2 and len(first) >= 10:
        return "KITTI tracks", list(kitti_rows(cells)), None
    if kind is None and len(first) >= 6:
        return "MOT", [("", row[0], name_of(row[1]), *row[2:6], where) for where, row in cells], None
    raise ValueError(f"line 1 is neither a header nor a row of MOT or KITTI: {lines[0][1][:80]}")


def is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", cell) is not None


def name_of(cell: Any) -> str:
    """An id as text; empty where there is none (missing, -1, "person:-1")."""
    text = "" if cell is None else str(cell).strip().removesuffix(".0")
    return "" if text in ("-1", "nan") or text.endswith(":-1") else text


def jrdb_rows(frames: dict[str, list], path: Path) -> Iterator[tuple]:
    """Of two records with one id in a frame the first counts, as for training."""
    for key, records in frames.items():
        seen = set()
        yield "", key, None, *NOTHING, f"{path}: frame {key}"
        for record in records:
            person, box = name_of(record.get("label_id")), record.get("box") or []
            if not person or person not in seen:
                where = f"{path}: frame {key}, {person or 'no id'}"
                yield "", key, person, *(*box, *NOTHING)[:4], where
            seen.add(person)


def coco_rows(content: dict, path: Path) -> tuple[list[tuple], tuple[int, int] | None]:
    images = {image["id"]: image for image in content["images"]}
    names = {key: Path(image["file_name"]) for key, image in images.items()}
    people = {c["id"] for c in content.get("categories", []) if str(c.get("name")).lower() in PERSON_TYPES}
    rows = [(name.parent.name, name.name, None, *NOTHING, f"{path}: image {name}") for name in names.values()]
    for entry in content["annotations"]:
        if not people or entry.get("category_id") in people:
            name, where = names[entry["image_id"]], f"{path}: annotation {entry.get('id')}"
            person = name_of(entry.get("track_id"))
            rows.append((name.parent.name, name.name, person, *entry["bbox"][:4], where))
    if len({row[0] for row in rows}) == 1:
        rows = [("", *row[1:]) for row in rows]  # one sequence: its images are where --input says
    sizes = {(image.get("width"), image.get("height")) for image in images.values()}
    size = sizes.pop() if len(sizes) == 1 else (None, None)
    return rows, None if None in size else size


def kitti_rows(cells: list[tuple[str, list[str]]]) -> Iterator[tuple]:
    """Left, top, right, bottom of the people; other types, and DontCare, are left out."""
    for where, (frame, track, kind, *rest) in cells:
        if kind.lower() in PERSON_TYPES:
            ends = [value_of(cell, commas=False) for cell in rest[3:7]]
            yield "", frame, name_of(track), *corners(*ends), where


def table_rows(text: str, path: Path) -> Iterator[tuple]:
    """Of a CSV with a header, columns named as in ALIASES."""
    first = text.lstrip().splitlines()[0]
    separator = next((mark for mark in (",", ";", "\t") if mark in first), r"\s+")
    options = {"sep": separator, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
    rows = pandas.read_csv(io.StringIO(text), **options)
    known = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
    rows.columns = [known.get(name.strip().lower(), name.strip().lower()) for name in rows.columns]
    corner = {"x1", "y1", "x2", "y2"} <= set(rows.columns)
    box = ["x1", "y1", "x2", "y2"] if corner else ["x", "y", "w", "h"]
    if missing := [name for name in ("frame", *box) if name not in rows]:
        expected = "frame,x,y,w,h or frame,x1,y1,x2,y2, and id and sequence where known"
        raise ValueError(f"no column {', '.join(missing)} in {first.strip()[:80]}; expected {expected}")
    for line, row in enumerate(rows.to_dict("records"), 2):
        values = [value_of(row[name].strip(), separator != ",") for name in box]
        values = corners(*values) if corner else values
        sequence, frame = row.get("sequence", "").strip(), row["frame"].strip()
        yield sequence, frame, name_of(row.get("id", "")), *values, f"{path}: line {line}"


def value_of(cell: str, commas: bool) -> float | str:
    """A number, with decimal `commas` too; what is none stays as it is, to be shown in the error."""
    number = cell.replace(",", ".") if commas else cell
    return float(number) if is_number(number) else cell


def corners(x1: float | str, y1: float | str, x2: float | str, y2: float | str) -> tuple:
    """x, y, w, h from two corners; as they are where one is no number, which `clean_boxes` refuses."""
    if not all(isinstance(value, float) for value in (x1, y1, x2, y2)):
        return x1, y1, x2, y2
    return x1, y1, x2 - x1, y2 - y1
