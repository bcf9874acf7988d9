"""Read the boxes of one file, in any format that detectors and trackers write, into a table.

    labels_2d_stitched/SEQ.json, activity labels    {"labels": {"000015.jpg": [{"label_id", "box"}]}}
    detections_2d_stitched/SEQ.json                 {"detections": {"000015.jpg": [{"box"}]}}
    COCO json                                       {"images": [..], "annotations": [..]}
    CSV with a header                               frame,x,y,w,h or frame,x1,y1,x2,y2; id, sequence optional
    MOT text                                        frame,id,left,top,width,height,..
    KITTI tracking text                             frame track type 3 numbers left top right bottom ..
    the same in JRDB's toolkit                      frame track type 3 numbers left top width height ..
    KITTI detection text, one file per frame        type 3 numbers (there 4) left top right bottom ..

The format is recognised by the content of the file, never by its name.
"""

import csv
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas

from datasets.jrdb.frames import frame_number
from datasets.jrdb.people import is_number, is_person, kind_of, name_of, people_in, whole
from datasets.jrdb.problems import Problems
from utils.run.errors import some
from utils.run.folder import unique_keys

# id: "" for a person without an id, None for a row that only says that the frame exists. box: as written.
# kind: the class; None if there is none. size: width, height of the panorama; None if the file has it not
COLUMNS = ("sequence", "frame", "id", "box", "where", "kind", "size")
# What columns may be called, apart from spaces, dots, - and _; of several the one named first here counts.
NAMES = {kind: names.split() for kind, names in {
    "frame": "frame frameid framenumber frameindex framename image filename imagename imagepath imageid",
    "id": "trackid trackerid track personid pedestrianid person labelid objectid id",
    "sequence": "sequence sequenceid seq video videoid videoname scene sceneid clip recording session",
    "camera": "camera cameraid cameraname cam view",  # several cameras are several sequences
    "class": "class classname classid category categoryid type label labelname cls",
}.items()}  # fmt: skip
BOXES = [[prefix + name for name in names.split()] for prefix in ("bb", "bbox", "box", "") for names in (
    "x1 y1 x2 y2", "xmin ymin xmax ymax", "left top right bottom", "left top width height", "x y w h",
    "x y width height")]  # fmt: skip
MOT = ("frame", "id", "x", "y", "w", "h")
KITTI = ("frame", "id", "class", "truncated", "occluded", "alpha", "x1", "y1", "x2", "y2")
# Text without a header: the format and its columns, by the position of the first cell that is not a number.
TEXTS = {None: ("MOT", MOT), 0: ("KITTI detections", KITTI[2:]), 2: ("KITTI tracks", KITTI)}
IMAGE = re.compile(r"[0-9][^0-9]*\.(jpe?g|png|bmp|tiff?|webp)$", re.IGNORECASE)
FILM = re.compile(r"\.(mp4|avi|mov|mkv|m4v|webm)$", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[-+]?[0-9]*,[0-9]+")
FORMS = ("labels or detections JSON of JRDB, COCO JSON, MOT or KITTI text, or CSV with frame,id,x,y,w,h (x, "
         "y: upper left corner; id optional) or frame,id,x1,y1,x2,y2, in UTF-8")  # fmt: skip


class Content(NamedTuple):
    """What a file holds."""

    form: str  # name of the format
    rows: list[tuple]  # of COLUMNS
    corners: bool = False  # whether a box is two corners
    classes: tuple = ()  # that it may have


def read_rows(path: Path, given: Path, problems: Problems) -> pandas.DataFrame | None:
    """Read one file below `given` into COLUMNS, x, y, w, h (NaN if not a number), file (its path) and
    named_by_file: whether the file's name names the sequence (else its rows or folder do). An unreadable file
    is a problem and None.

    attrs: form of its Content; others: the classes of boxes left out because they are not of people.
    """
    try:
        form, rows, corners, classes = parse(path.read_text(encoding="utf-8-sig"), path)
        table = pandas.DataFrame(rows, columns=COLUMNS).assign(file=str(path), named_by_file=False)
        kinds = table["kind"].dropna()
        others = kinds[~kinds.isin(people_in({*kinds}, form, classes))]
        table.loc[others.index, "id"] = None
        unnamed = table["sequence"] == ""
        table.loc[unnamed, "sequence"] = name_folders(table["frame"][unnamed].tolist())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        problems.add("a file whose boxes cannot be read", f"expected {FORMS}", f"{path}: {reason}")
        return None
    again = (table["id"].fillna("") != "") & table.duplicated(["frame", "id"]) & form.startswith("JRDB")
    if 0 < again.sum() <= max(1, 0.2 * len(again)):  # the first counts, as in training; many are no ids
        form = f"{form}, {again.sum()} with an id that is taken in the frame left out"
        table = table[~again].reset_index(drop=True)
    boxes = [box if isinstance(box, list) and len(box) == 4 else [None] * 4 for box in table["box"]]
    boxes = pandas.DataFrame(boxes, columns=list("xywh"), dtype=object)
    table[list("xywh")] = boxes.apply(pandas.to_numeric, errors="coerce").astype(float)
    table.loc[(table[list("xywh")] == -1).all(axis=1), "id"] = None  # JRDB's toolkit: has only a box in 3D
    backwards = (table["w"] < table["x"]) | (table["h"] < table["y"])
    if form == "KITTI tracks" and backwards.mean() > 0.5:
        form, corners = f"{form} with widths and heights", False
    if corners:
        table["w"], table["h"] = table["w"] - table["x"], table["h"] - table["y"]
    width, height = (table["size"].str[k].astype(float) for k in (0, 1))
    beyond = (table["x"] >= width) | (table["y"] >= height)
    if (beyond | ((table["w"] >= width) & (table["h"] >= height))).mean() > 0.1:
        table["size"] = None  # those of a box, not of the image; JRDB's pose files write that of one camera
    name_sequence(table, form, path, given)
    table.attrs = {"form": form, "others": others.tolist()}
    return table


def name_sequence(table: pandas.DataFrame, form: str, path: Path, given: Path) -> None:
    """Name the sequence of the rows that do not, by the folder or the name of their file."""
    folder = path.parent.relative_to(given).as_posix().removeprefix(".") if given.is_dir() else ""
    numbers = {frame_number(whole(frame)) for frame in table["frame"].unique()}
    unnamed = table["sequence"] == ""
    if form == "KITTI detections":  # a frame in each file
        table["frame"], table["sequence"] = path.stem, folder
    elif given.is_dir() and path.stem.isdecimal() and numbers == {int(path.stem)}:  # as well
        table.loc[unnamed, "sequence"] = folder
    elif given.is_dir() or form.startswith("JRDB"):
        name = path.parent.parent.name if path.stem in ("gt", "det") else path.stem  # SEQUENCE/gt/gt.txt
        table.loc[unnamed, ["sequence", "named_by_file"]] = name, True


def parse(text: str, path: Path) -> Content:
    """An empty file is a KITTI file: a frame in which nobody was detected."""
    if not text.strip(" ,;\t\r\n"):
        return Content("KITTI detections", [("", "", None, None, f"{path}", None, None)], True)
    if text.lstrip()[0] not in "{[":
        return text_rows(text, path)
    content = json.loads(text, object_pairs_hook=unique_keys)
    if isinstance(content, list):
        rows, videos = [], name_videos([entry.get("video_id") for entry in content])
        for k, entry in enumerate(content):
            frame, kind = str(entry["image_id"]), str(entry.get("category_id"))
            where = f"{path}: entry {k}"
            rows.append((videos[k], frame, track_of(entry), entry["bbox"], where, kind, None))
        return Content("COCO results (image_id is the frame, scores are not used)", rows)
    for key in ("labels", "detections"):
        if content.get(key) and isinstance(content[key], dict):
            return Content(f"JRDB {key}", list(jrdb_rows(content[key], path)))
    if isinstance(content.get("annotations"), list):
        return coco_rows(content, path)
    raise ValueError("JSON without labels, detections or annotations")


def jrdb_rows(frames: dict[str, list], path: Path) -> Iterator[tuple]:
    for key, records in frames.items():
        yield "", key, None, None, f"{path}: frame {key}", None, None
        for record in records or ():
            if not isinstance(record, dict):
                raise ValueError(f"frame {key}: not the record of a person: {str(record)[:40]}")
            person = name_of(record.get("label_id"))
            place, kind = f"{path}: frame {key}, {person or 'no id'}", kind_of(person) if person else None
            yield "", key, person, record.get("box"), place, kind, None


def coco_rows(content: dict, path: Path) -> Content:
    files = [image["file_name"] for image in content["images"]]
    sequences = name_folders(files)
    if not any(sequences):
        titles = {video["id"]: video.get("name") for video in content.get("videos", [])}
        sequences = name_videos([image.get("video_id") for image in content["images"]], titles)
    names = list(zip(sequences, files, strict=True))
    if len(set(names)) < len(names):  # images of several videos
        twice = Counter(names).most_common(1)[0][0][1]
        raise ValueError(f"several images are called {twice}: put the sequence in front, SEQUENCE/{twice}")
    images = {whole(image["id"]): name for image, name in zip(content["images"], names, strict=True)}
    classes = {c["id"]: str(c.get("name")) for c in content.get("categories", [])}
    sizes = [size_of(image.get("width"), image.get("height")) for image in content["images"]]
    sizes = dict(zip(names, sizes, strict=True))
    rows = [(*name, None, None, f"{path}: image {name[1]}", None, sizes[name]) for name in names]
    for entry in content["annotations"]:
        where, kind = f"annotation {entry.get('id')}", entry.get("category_id")
        if whole(entry["image_id"]) not in images:
            raise ValueError(f"{where}: its image_id {entry['image_id']!r} is not in images")
        if not entry.get("iscrowd"):
            person = track_of(entry), entry.get("bbox"), f"{path}: {where}", classes.get(kind, str(kind))
            name = images[whole(entry["image_id"])]
            rows.append((*name, *person, sizes[name]))
    return Content("COCO", rows, classes=tuple(classes.values()))


def name_videos(videos: list, titles: dict | None = None) -> list[str]:
    """The title of each video, else the video itself; "" if they are all the same."""
    if len(set(videos)) < 2:
        return [""] * len(videos)
    return [str((titles or {}).get(video) or video) for video in videos]


def track_of(entry: dict) -> str:
    track = (entry.get("attributes") or {}) | entry  # CVAT writes track_id into attributes
    return name_of(track.get("track_id", track.get("instance_id")))


def text_rows(text: str, path: Path) -> Content:
    """`parse` for lines of cells, with a header (column names as in NAMES and BOXES) or without."""
    lines = [line.rstrip(" ,;\t") for line in text.splitlines()]
    first = next(filter(None, lines))
    separator = next((mark for mark in ";\t," if mark in first), " ")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    rows = [(f"line {reader.line_num}", [cell.strip() for cell in row]) for row in reader if row]
    if separator != ",":
        rows = [(line, [with_decimal_point(cell) for cell in row]) for line, row in rows]
    form, names = recognise([row for _, row in rows], first)
    if form == "CSV":
        rows = rows[1:]
        if too_long := [line for line, row in rows if len(row) > len(names)]:
            raise ValueError(f"{too_long[0]} has more cells than the header (decimal commas?)")
    cells = {name: [row[k] if k < len(row) else "" for _, row in rows] for k, name in enumerate(names)}
    used, box = choose_columns(form, names, cells, first)
    beside = not {"width", "height"} - cells.keys() and "width" not in box
    if form == "CSV":
        read = ["", *used.values(), *box, *("width", "height") * beside]
        if unused := [name for name in names if name not in read]:
            form = f"CSV (columns not used: {some(unused)})"
    column = {kind: cells.get(name, [""] * len(rows)) for kind, name in used.items()}
    for (line, _), person in zip(rows, column["id"], strict=True):
        if form == "MOT" and not is_whole(person):
            columns = "frame, id, left, top, width, height"
            raise ValueError(f"{line}: {person!r} is not an id; without a header the columns are {columns}")
    ids, kinds = map(name_of, column["id"]), [whole(kind).lower() for kind in column["class"]]
    labels = path.with_name("labels.txt")  # CVAT names the classes of its MOT files in it
    if form == "MOT" and labels.is_file():
        listed = dict(enumerate(labels.read_text(encoding="utf-8").splitlines(), 1))
        kinds = [listed.get(int(kind), kind) if kind.isdigit() else kind for kind in kinds]
        form = "MOT with labels.txt"
    boxes = map(list, zip(*(cells[name] for name in box), strict=True))
    places = [f"{path}: {line}" for line, _ in rows]
    videos = column["sequence"]
    if any(map(FILM.search, videos)):
        videos = name_folders([FILM.sub("/", video) for video in videos])
    pairs = zip(videos, name_videos(column["camera"]), strict=True)
    sequences = ["/".join(filter(None, pair)) for pair in pairs]
    sizes = map(size_of, cells["width"], cells["height"]) if beside else [None] * len(rows)
    found = list(zip(sequences, column["frame"], ids, boxes, places, kinds, sizes, strict=True))
    return Content(form, found, corners=not box[-1].endswith(("h", "height")))


def choose_columns(
    form: str, names: list[str], cells: dict[str, list[str]], first: str
) -> tuple[dict[str, str | None], list[str]]:
    """{key of NAMES: its column, or None} and the four columns of the box. cells: of each column; first: the
    line of the header."""
    used = {kind: next(filter(names.count, known), None) for kind, known in NAMES.items()}
    box = next((columns for columns in BOXES if {*columns} <= {*names}), ["x", "y", "w", "h"])
    if form != "CSV":
        return used, box
    films = [name for name in names if name and any(map(FILM.search, cells[name]))]
    if films := [name for name in films if not used["sequence"] or name == used["frame"]]:
        raise ValueError(f"{films[0]} names films: call it sequence, and count their frames in `frame`")
    for name in filter(cells.get, NAMES["frame"]):  # the image's name rather than a count of the images
        frames, files = cells[used["frame"]], cells[name]
        one_each = len({*frames}) == len({*files}) == len({*zip(frames, files, strict=True)})
        if one_each and all(IMAGE.search(file) and frame_number(file) is not None for file in files):
            used["frame"] = name
    needed = used["frame"] or "frame", *box, *filter(None, [used["id"]])
    if wrong := [name for name in needed if names.count(name) != 1]:
        what = "several columns" if {*wrong} <= {*names} else "no column"
        raise ValueError(f"{what} {', '.join(wrong)} in {first.strip()[:80]}")
    typed = [name for name in names if name and any(map(is_person, cells[name]))]
    if typed and used["class"] not in typed:  # their column may have another name
        used["class"] = typed[0]
    return used, box


def size_of(width: object, height: object) -> tuple[int, int] | None:
    """The size of a panorama as two whole numbers; None unless both are above 0 (some tools write 0)."""
    sides = [int(side) for side in (whole(width), whole(height)) if side.isdigit()]
    return (sides[0], sides[1]) if len(sides) == 2 and all(sides) else None


def recognise(rows: list[list[str]], first: str) -> tuple[str, list[str]]:
    """The format of rows of cells and the names of its columns. first: the first line."""
    header = [cell.lower() for cell in rows[0]]
    words = [k for k, cell in enumerate(header) if not is_number(cell)]
    if len(words) == len(header):
        return "CSV", [re.sub("[ ._-]", "", cell) for cell in header]
    form, columns = TEXTS.get(words[0] if words else None, ("", ()))
    if form == "KITTI detections" and len(header) == 17:  # JRDB's toolkit adds the number of points
        columns = (columns[0], "points", *columns[1:])
    if not form or len(header) < len(columns):
        raise ValueError(f"line 1 is neither a header nor a row of MOT or KITTI: {first[:80]}")
    # An eighth cell is the class, or a coordinate as in MOT15
    if form == "MOT" and all(is_whole(cells[7]) for cells in rows if len(cells) > 7):
        columns += ("score", "class")
    return form, list(columns)


def with_decimal_point(cell: str) -> str:
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell


def is_whole(cell: str) -> bool:
    return whole(cell).lstrip("-").isdigit()


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
