"""Read a label file, and the names of its images, into a `Sequence` of numpy columns.

    DATA/labels/labels_2d_activity_social_stitched/SEQUENCE.json
    DATA/images/image_stitched/SEQUENCE/000015.jpg               3760x480; the number counts frames

A row is one person in one frame. Rows are sorted by frame number and person id, so that the order of frames
and records in the file only matters if an id is repeated. Demographics are not read. Of the images only one
is opened here, for its size. `Problems` collects the errors, with file, frame and person, for one DataError.
"""

import gc
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.images import check_relative_name
from datasets.jrdb.classes import known_names, merge_sides, read_class_map
from datasets.jrdb.flags import FRAMES_PER_SECOND, LabelRules
from datasets.jrdb.frames import Images, frame_number, match_images, number_frames
from datasets.jrdb.people import kind_of, name_of, natural_order, people_in, whole
from datasets.jrdb.problems import Problems
from utils.run.errors import some
from utils.run.folder import unique_keys

LABEL_FOLDER = Path("labels") / "labels_2d_activity_social_stitched"
LABEL_FILES = "[!.]*.[jJ][sS][oO][nN]"  # macOS adds ._NAME.json
IMAGE_FOLDER = Path("images") / "image_stitched"
UNKNOWN, ALONE = -1, -2  # social groups
BOX_GRID = 1024  # boxes are rounded to 1/1024 pixel, so that float64 adds and subtracts them exactly

# Keys of `Sequence.counts`; the sampling report has the sum of each. TOLD: those that are also logged.
TOLD = ("unnamed_annotations", "missing_partners", "duplicate_ids", "difficult_people", "difficult_pairs",
        "wrapped_boxes", "clipped_boxes", "skipped_boxes", "other_objects")  # fmt: skip
COUNTS = ("multi_label_pairs", "conflicting_pairs", "one_sided_pairs", "untyped_pairs", "missing_images",
          *TOLD)  # fmt: skip


@dataclass
class Sequence:
    """One annotated sequence: F frames, R people (rows), M annotated undirected pairs."""

    name: str
    width: int
    height: int
    size_source: str  # the image that the size was read from, or where else it comes from
    keys: list[str]  # F frame names, "000015.jpg"
    times: np.ndarray  # (F,) int64 frame numbers, `frame_rate` per second
    starts: np.ndarray  # (F+1,) int64; the people of frame f are rows starts[f]:starts[f+1]
    boxes: np.ndarray  # (R, 4) float64 x, y, w, h in pixels; x + w may run past the width
    tracks: np.ndarray  # (R,) int64 index into track_names
    track_names: list[str]
    social_groups: np.ndarray  # (R,) int64 id, unique within a frame, also of people ALONE; or UNKNOWN
    difficult: np.ndarray  # (R,) bool: the group label is above --max_difficulty
    pairs: np.ndarray  # (M, 2) int64 rows, lower row first
    types: np.ndarray  # (M,) int64 into INTERACTION_CLASSES; -1 no type, or TOO_DIFFICULT
    image_found: np.ndarray  # (F,) bool
    frame_rate: float = FRAMES_PER_SECOND
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # warnings

    def frame_of_row(self) -> np.ndarray:
        """(R,) int64 frame index of every person."""
        return np.repeat(np.arange(len(self.keys)), np.diff(self.starts))


class Person(NamedTuple):
    """A person in one frame, as in the file."""

    frame: int  # index
    id: str
    box: Any
    place: str  # file, frame and id, for messages
    record: dict | None = None  # of a label file
    group: int = UNKNOWN  # social group id, or ALONE
    difficulty: float = 0  # of the group label, 1 to 3


def read_sequences(
    paths: list[Path], data_path: Path | None = None, rules: LabelRules | None = None
) -> list[Sequence]:
    """Read label files, in this order, and look for their images below `data_path`, if given. One DataError
    for all errors in them."""
    rules, problems = rules or LabelRules(), Problems()
    sequences = [read_sequence(path, data_path, rules, problems) for path in paths]
    problems.raise_any()
    return sequences


def read_sequence(path: Path, data_path: Path | None, rules: LabelRules, problems: Problems) -> Sequence:
    """Read one sequence; errors are added to `problems`, and the result is then meaningless.

    With --pairs_from social_group every two people of one group are an annotated pair without a type. A
    partner who is not another person of the frame is ignored, as is a second record with the same id in it;
    see clean_boxes for boxes. All of these are counted."""
    before, counts = problems.count, dict.fromkeys(COUNTS, 0)
    frames = read_frames(path, problems)
    folder = Path(data_path, IMAGE_FOLDER, path.stem) if data_path else None
    images = match_images(folder, {frame_number(key): key for key in frames}, problems)
    people = list(read_people(frames, path, counts, problems))
    if rules.pairs_from == "interaction":
        types = read_pairs(people, rules, counts, problems)
    else:
        types = dict.fromkeys(group_pairs(people), -1)
    if frames and not people and problems.count == before:
        problems.add("no person in any frame", "remove the file or restore its labels", f"{path}")
    return build_sequence(path.stem, images, people, [p.box for p in people], types, rules, counts, problems)


def build_sequence(
    name: str, images: Images, people: list[Person], boxes: list, types: dict[tuple[int, int], int],
    rules: LabelRules, counts: dict[str, int], problems: Problems,
) -> Sequence:  # fmt: skip
    """Build a sequence from people sorted by frame and id, their boxes x, y, w, h and the types of pairs of
    rows. Bad boxes (see clean_boxes) are problems; with --skip_bad_boxes their people are left out."""
    clean, bad, corners = clean_boxes(boxes, images, counts)
    for row, what in ({} if rules.skip_bad_boxes else bad).items():
        sizes = "use images of the annotated size (boxes without labels: --boxes_size H W)"
        remedy = f"correct the boxes (x, y, w, h; x, y: upper left corner), {sizes} or pass --skip_bad_boxes"
        problems.add(what, remedy, f"{people[row].place}, box {str(people[row].box)[:80]}")
    if corners:
        remedy = "write x, y, w, h (without labels, also a CSV with columns frame,id,x1,y1,x2,y2)"
        problems.add("widths and heights that look like right and lower edges", remedy, people[0].place)
    difficult = np.array([person.difficulty > rules.max_difficulty for person in people], bool)
    counts |= {"missing_images": int((~images.found).sum()), "difficult_people": int(difficult.sum())}
    kept = ~np.isin(np.arange(len(people)), list(bad))
    kept_before = np.r_[0, np.cumsum(kept)]  # (R+1,) number of kept rows before each row
    starts = np.searchsorted([person.frame for person in people], np.arange(len(images.keys) + 1))
    listed = sorted(types)
    pairs, kinds = np.array(listed, np.int64).reshape(-1, 2), [types[pair] for pair in listed]
    both_kept = kept[pairs].all(axis=1)
    groups = np.array([person.group for person in people], np.int64)
    groups = np.where(groups == ALONE, ALONE - np.arange(len(people)), groups)  # each a group of one
    notes, problems.notes = problems.notes, []
    track_names = sorted({person.id for person in people}, key=natural_order)
    track_of = {track: i for i, track in enumerate(track_names)}
    return Sequence(
        name=name, width=images.size[0], height=images.size[1], size_source=images.source,
        keys=images.keys, times=np.array([frame_number(key) for key in images.keys], np.int64),
        starts=kept_before[starts],
        boxes=clean[kept], tracks=np.array([track_of[person.id] for person in people], np.int64)[kept],
        track_names=track_names, difficult=difficult[kept], pairs=kept_before[pairs[both_kept]],
        social_groups=groups[kept], types=np.array(kinds, np.int64)[both_kept], image_found=images.found,
        frame_rate=rules.frame_rate, counts=counts, notes=notes,
    )  # fmt: skip


# Reading the file


def read_frames(path: Path, problems: Problems) -> dict[str, list]:
    """{frame name: records}, sorted by frame number; parsed without garbage collection, 2x faster."""
    gc.disable()
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        remedy = "copy the file again, or mend it (of repeated keys only the last counts); check permissions"
        problems.add("a file that is not valid JSON or cannot be read", remedy, f"{path}: {error}")
        return {}
    finally:
        gc.enable()
    frames = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(frames, dict) or not frames:
        remedy = 'expected {"labels": {"000015.jpg": [records]}}: check that it is a JRDB-Social label file'
        problems.add("no frames", remedy, f"{path}")
        return {}
    for key, records in frames.items():
        check_relative_name(key, f"{path}")
        if not isinstance(records, list):
            where = f"{path}: frame {key} is a {type(records).__name__}"
            problems.add("a frame that is not a list", "expected a list of records", where)
    numbers = number_frames(dict.fromkeys(frames, f"{path}"), problems)
    return {key: frames[key] for key in numbers.values() if isinstance(frames[key], list)}


def read_people(
    frames: Mapping[str, list], path: Path, counts: dict[str, int], problems: Problems
) -> Iterator[Person]:
    """All people, by frame and id; of two records with the same id in a frame the first counts. Beside people
    with ids such as pedestrian:5 or 5, records with others such as car:5 are left out."""
    everything = (record for records in frames.values() for record in records if isinstance(record, dict))
    found = {kind_of(name_of(record.get("label_id"))) for record in everything}
    try:
        kinds = people_in(found)
    except ValueError as error:
        remedy = "expected ids such as pedestrian:5 or 5, beside which others such as car:5 are left out"
        problems.add("ids that do not say who is a person", remedy, f"{path}: {error}")
        return
    if others := sorted(found - kinds):
        problems.notes.append(f"records of {some(others)} are left out, not {' or '.join(sorted(kinds))}")
    for frame, (key, records) in enumerate(frames.items()):
        people = {}
        for position, record in enumerate(records):
            given = record.get("label_id", record) if isinstance(record, dict) else [record]
            person = name_of(given)
            if not person or "box" not in record:
                what, example = ("box", "[x, y, w, h]") if person else ("label_id", '"pedestrian:N"')
                place = f"{path}: frame {key}, record {position}: {str(given)[:80]}"
                problems.add(f"no {what}", f'add "{what}": {example}, or remove the record', place)
            elif kind_of(person) not in kinds:
                counts["other_objects"] += 1
            elif person in people:
                counts["duplicate_ids"] += 1
            else:
                place = f"{path}: frame {key}, {person}"
                group = read_group(record.get("social_group"), place, problems)
                people[person] = Person(frame, person, record["box"], place, record, *group)
        yield from (people[person] for person in sorted(people, key=natural_order))


def read_group(entry: object, place: str, problems: Problems) -> tuple[int, float]:
    """The social group id of a person, ALONE or UNKNOWN, and the difficulty of the group label (1 to 3)."""
    entry = entry or {}
    try:
        group, difficulty = entry.get("cluster_ID"), entry.get("cluster_stat")
        if "cluster_ID" not in entry and entry.keys() - {"cluster_stat"}:
            raise ValueError("no group, or its key has another name")
        known = group is not None and group == group  # neither null nor NaN
        number = int(np.int64(whole(group))) if known else UNKNOWN
        return ALONE if known and number < 0 else number, float(difficulty or 0)
    except (AttributeError, TypeError, ValueError, OverflowError):
        remedy = 'expected {"cluster_ID": whole number, negative for no group, "cluster_stat": 1 to 3}'
        problems.add("a social_group in another form", remedy, f"{place}: {str(entry)[:80]}")
        return UNKNOWN, 0


# Who interacts, and how


def read_pairs(
    people: list[Person], rules: LabelRules, counts: dict[str, int], problems: Problems
) -> dict[tuple[int, int], int]:
    """{(row, row): type}, lower row first, of every pair that is annotated from one side or both."""
    classes = read_class_map(rules.class_map)  # name -> index into INTERACTION_CLASSES
    row_of = {(p.frame, p.id.removeprefix("pedestrian:")): row for row, p in enumerate(people)}
    sides = defaultdict(lambda: ([], []))  # pair -> labels in the lower row's record, in the higher row's
    for row, person in enumerate(people):
        for partner, labels in read_interactions(person, problems):
            other = row_of.get((person.frame, partner.removeprefix("pedestrian:")))
            if other is None or other == row:
                counts["missing_partners"] += 1
            elif not labels:
                counts["unnamed_annotations"] += 1
            elif known_names(labels, classes, person.place, problems):
                side = int(row > other)
                sides[min(row, other), max(row, other)][side].extend(labels)
    merge = cache(lambda first, second: merge_sides(first, second, classes, rules))  # many are labelled alike
    types = {}
    for pair, (first, second) in sides.items():
        types[pair], increments = merge(tuple(first), tuple(second))
        for name in increments:
            counts[name] += 1
    return types


def read_interactions(person: Person, problems: Problems) -> Iterator[tuple[str, list]]:
    """(partner, [(name, difficulty), ..]) of each H-interaction (later: HHI); difficulty 0 is no label."""
    entries = person.record.get("H-interaction") or person.record.get("HHI") or []
    if not isinstance(entries, list):
        entries = [None]  # in another form
    for entry in entries:
        try:
            partner, names = name_of(entry["pair"]), entry["inter_labels"]
            rated = [(name, float(difficulty or 0)) for name, difficulty in names.items()]
            if not partner or any(difficulty > 3 for _, difficulty in rated):
                raise ValueError("no partner, or no difficulty")
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            remedy = 'expected [{"pair": "pedestrian:N", "inter_labels": {"walking together": 1 to 3}}]'
            where = f"{person.place}: {str(entry)[:80]}"
            problems.add("an H-interaction entry in another form", remedy, where)
        else:
            yield partner, [(name, difficulty) for name, difficulty in rated if difficulty > 0]


def group_pairs(people: list[Person]) -> Iterator[tuple[int, int]]:
    """Every two people (rows, lower first) of a frame who are in the same social group."""
    members = defaultdict(list)
    for row, person in enumerate(people):
        if person.group >= 0:
            members[person.frame, person.group].append(row)
    return (pair for rows in members.values() for pair in itertools.combinations(rows, 2))


def clean_boxes(
    boxes: list, images: Images, counts: dict[str, int]
) -> tuple[np.ndarray, dict[int, str], bool]:
    """(R, 4) float64 boxes on a grid of 1/1024 pixel, {row: what is wrong} of the bad ones, and whether they
    look like two corners: nobody in a panorama is wider than everything to the left of him.

    x is wrapped into [0, width), x + w may exceed the width, and boxes are clipped at the upper and lower
    edge. Wrapped, clipped and bad boxes (outside the panorama, or without area) are counted in `counts`."""
    (width, height), source = images.size, images.source
    numbers = (box if isinstance(box, list) and len(box) == 4 else [None] for box in boxes)
    finite = [all(type(v) in (int, float) and abs(v) < 1e9 for v in box) for box in numbers]
    rows = [box if ok else [0, 0, 1, 1] for ok, box in zip(finite, boxes, strict=True)]
    x, y, w, h = np.array(rows, float).reshape(-1, 4).T
    outside = (x + w <= 0) | (x >= width) | (w > width) | (y + h <= 0) | (y >= height)
    faults = {  # of several faults of a box, the last is reported
        f"a box outside the {width}x{height} panorama (size from {source})": outside,
        "a box within one pixel, as if in fractions (without labels: --boxes_size 1 1)": (w <= 1) & (h <= 1),
        "a box whose sides are not positive (on the seam, x2 exceeds the width)": (w <= 0) | (h <= 0),
        "a box that is not four finite numbers x, y, w, h": ~np.array(finite, bool),
    }  # fmt: skip
    bad = {row: what for what, faulty in faults.items() for row in np.flatnonzero(faulty)}
    beyond = (w > x) & (h > y)
    corners = len(x) > 4 and width >= 2 * height and x.max() > width / 10 and beyond.mean() > 0.95
    good = ~np.isin(np.arange(len(x)), list(bad))
    top, bottom = np.maximum(y, 0), np.minimum(y + h, height)
    counts["wrapped_boxes"] += int((good & (x < 0)).sum())
    counts["clipped_boxes"] += int((good & ((y < 0) | (y + h > height))).sum())
    counts["skipped_boxes"] += len(bad)
    grid = np.rint(np.stack([x, top, w, bottom - top], axis=1) * BOX_GRID)
    grid[:, 0] %= width * BOX_GRID
    return np.maximum(grid, [0, 0, 1, 1]) / BOX_GRID, dict(sorted(bad.items())), corners
