"""JRDB annotations as numpy columns, read one sequence at a time.

The folder is the official one; images are needed only by runs that look at pixels:

    DATA/labels/labels_2d_activity_social_stitched/SEQUENCE.json
    DATA/images/image_stitched/SEQUENCE/000015.jpg               3760x480; the number counts frames
    DATA/split.json                                              optional; unless --split_method names another

A person is a row. Rows are sorted by frame number and then by person id, whatever the order in the file, so
everything built on them is independent of the order of files, frames and records. Demographics are not read.
What is wrong in the files is gathered over all of them (`Problems`) and told in one error.
"""

import difflib
import gc
import itertools
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.images import check_relative_name, read_image_size
from utils.run.errors import CommandError, DataError

LABEL_FOLDER = Path("labels") / "labels_2d_activity_social_stitched"
IMAGE_FOLDER = Path("images") / "image_stitched"
PANORAMA_SIZE = (3760, 480)  # width, height of the stitched JRDB panorama, for sequences without any image
FRAMES_PER_SECOND = 15.0  # of JRDB

# Boxes are rounded to 1/1024 pixel, so that sums and differences of them are exact in float64.
BOX_GRID = 1024

INTERACTION_CLASSES = ("walking together", "standing together", "conversation", "sitting together", "others")
# Classes go from frequent to rare among the 21 published names. The map is fixed, whatever a split's own
# counts are, so that class k means the same in every split, checkpoint and evaluation.
CLASS_OF_NAME = {name: k for k, name in enumerate(INTERACTION_CLASSES[:4])} | dict.fromkeys(
    ("going upstairs together", "moving together", "looking at robot together", "looking at sth together",
     "walking toward each other", "eating together", "going downstairs together", "bending together",
     "holding sth together", "cycling together", "interaction with door together", "hugging",
     "looking into sth together", "shaking hand", "waving hand together", "pointing at sth together"), 4,
)  # fmt: skip
CLASS_OF_NAME["standing together together"] = 1  # a slip of the published list
INTERACTION_NAMES = tuple(CLASS_OF_NAME)
ANY_OTHER = "*"  # in a class map: whatever name is not in it

MULTI_LABEL_POLICIES = ("priority", "first", "drop")
PAIR_SOURCES = ("interaction", "social_group")

# Columns of `Sequence.counts`; all are summed into the sampling report.
COUNTS = ("multi_label_pairs", "conflicting_pairs", "one_sided_pairs", "untyped_pairs", "unnamed_annotations",
          "missing_partners", "duplicate_ids", "missing_images", "difficult_people", "difficult_pairs",
          "wrapped_boxes", "clipped_boxes", "skipped_boxes")  # fmt: skip


@dataclass
class LabelRules:
    """How annotations are read: the flags of the same names, see train_stage1.py --help."""

    multi_label: str = "priority"
    class_map: str | None = None
    pairs_from: str = "interaction"
    max_difficulty: int = 3
    skip_bad_boxes: bool = False
    frame_rate: float = FRAMES_PER_SECOND

    def check(self) -> None:
        """CommandError for a value that no run can have."""
        for flag, allowed in (("multi_label", MULTI_LABEL_POLICIES), ("pairs_from", PAIR_SOURCES)):
            if getattr(self, flag) not in allowed:
                raise CommandError(f"--{flag} {getattr(self, flag)}: choose from {', '.join(allowed)}")

    def classes(self) -> dict[str, int]:
        """Class of every interaction name: the 21 published ones, and over them those of the class map.

        A class map is a JSON file {"name": "class"}; the name "*" stands for any other. CommandError for a
        file that is none, or names another class than INTERACTION_CLASSES.
        """
        if self.class_map is None:
            return CLASS_OF_NAME
        try:
            given = json.loads(Path(self.class_map).read_text(encoding="utf-8"))
            wrong = sorted(name for name, kind in given.items() if kind not in INTERACTION_CLASSES)
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise CommandError(
                f'--class_map {self.class_map}: not a JSON file of {{"name": "class"}} ({error})'
            ) from error
        if wrong:
            known = ", ".join(INTERACTION_CLASSES)
            names = ", ".join(map(repr, wrong))
            raise CommandError(f"--class_map {self.class_map}: no such class for {names}\n  classes: {known}")
        return CLASS_OF_NAME | {name: INTERACTION_CLASSES.index(kind) for name, kind in given.items()}


@dataclass
class Problems:
    """What is wrong in files: every kind with its count, first examples and remedy, in one error."""

    found: dict[tuple[str, str], Counter] = field(default_factory=dict)  # (what, remedy): examples

    def add(self, what: str, remedy: str, example: str) -> None:
        self.found.setdefault((what, remedy), Counter())[example] += 1

    def __str__(self) -> str:
        lines = []
        for (what, remedy), examples in self.found.items():
            total, shown = sum(examples.values()), list(examples)[:3]
            lines.append(f"{what} ({total} {'times' if total > 1 else 'time'})")
            lines += [f"  {example}" for example in shown]
            rest = f"... and {len(examples) - len(shown)} more; " if len(examples) > len(shown) else ""
            lines.append(f"  {rest}{remedy}")
        return "\n".join(lines)

    @property
    def count(self) -> int:
        return sum(examples.total() for examples in self.found.values())

    def raise_any(self) -> None:
        """DataError with all of them, if there are any."""
        if len(self.found) > 1:
            raise DataError(f"{len(self.found)} kinds of problems in the data\n{self}")
        if self.found:
            raise DataError(str(self))


@dataclass
class Sequence:
    """One annotated sequence: F frames, R people (rows), M annotated undirected pairs."""

    name: str
    width: int
    height: int
    size_source: str  # the image the size was read from, or why it could not be
    keys: list[str]  # F frame names, "000015.jpg"
    times: np.ndarray  # (F,) int64 frame numbers, `frame_rate` per second
    starts: np.ndarray  # (F+1,) int64; the people of frame f are rows starts[f]:starts[f+1]
    boxes: np.ndarray  # (R, 4) float64 x, y, w, h in pixels; x + w may run past the width
    tracks: np.ndarray  # (R,) int64 into track_names
    track_names: list[str]
    groups: np.ndarray  # (R,) int64 social group id, unique within a frame; -1 where there is none
    difficult: np.ndarray  # (R,) bool, group label above --max_difficulty
    pairs: np.ndarray  # (M, 2) int64 rows, lower row first
    types: np.ndarray  # (M,) int64 into INTERACTION_CLASSES; -1 no type; -3 label above --max_difficulty
    image_found: np.ndarray  # (F,) bool
    frame_rate: float = FRAMES_PER_SECOND
    counts: dict[str, int] = field(default_factory=dict)

    def frame_of_row(self) -> np.ndarray:
        """(R,) int64 frame index of every person."""
        return np.repeat(np.arange(len(self.keys)), np.diff(self.starts))


def list_sequences(data_path: Path | str) -> dict[str, Path]:
    """Name -> label file of every sequence, by name; CommandError with what was expected if none."""
    data_path = Path(data_path)
    folder = data_path / LABEL_FOLDER
    if files := sorted(folder.glob("*.json")):
        return {check_relative_name(path.stem, str(folder)): path for path in files}
    found = (
        sorted(path.name for path in data_path.iterdir())[:8] if data_path.is_dir() else ["no such folder"]
    )
    inside = sorted(path.parent.parent for path in data_path.glob(f"*/{LABEL_FOLDER}"))
    remedy = f"pass {f'--data_path {inside[0]}' if inside else 'the folder that holds labels/ and images/'}"
    others = sorted({path.parent.name for path in data_path.glob("labels/*/*.json")})
    if others:
        remedy = (
            f"labels/ holds {', '.join(others)}: who interacts is in {LABEL_FOLDER.name} alone "
            "(JRDB-Act, JRDB-Social), get that one; on boxes without labels, predict.py --input works"
        )
    raise CommandError(
        f"--data_path {data_path}: no JRDB label files\n"
        f"  expected: {folder}/SEQUENCE.json\n"
        f"  and, for pixels: {data_path / IMAGE_FOLDER}/SEQUENCE/000015.jpg\n"
        f"  found: {', '.join(found) or 'an empty folder'}\n"
        f"  {remedy}"
    )


def read_sequence(
    path: Path,
    data_path: Path | str | None = None,
    rules: LabelRules | None = None,
    problems: Problems | None = None,
) -> Sequence | None:
    """Read one label file. `data_path` is where its images would be (None: no image is looked for).

    What is wrong is a DataError; with `problems` it is gathered there instead, and a file that is no label
    file gives None.

    Merging, stated once: a pair annotated from one side only counts as annotated; two sides that differ are
    joined (both counted). A name with the value 0 is no label. Of several labels on a pair the type is the
    rarest class (`priority`: others, sitting, conversation, standing, walking), the first written (`first`:
    first record by id, first name in it), or none (`drop`: the pair is still an interaction, but has no type
    when its labels fall in different classes). With --pairs_from social_group the people of one group are the
    annotated pairs, without a type. A partner who is not another person of the frame is left out; of two
    records with one id in a frame the first is kept. A box beyond the left end is wrapped, one beyond the
    upper or lower edge clipped, one wholly outside or without an area refused or, with --skip_bad_boxes, left
    out. All of it is counted.
    """
    path, rules, gathered = Path(path), rules or LabelRules(), Problems() if problems is None else problems
    classes, before = rules.classes(), gathered.count
    frames = read_frames(path, gathered)
    image_found, size, source = find_images(path.stem, list(frames), data_path, gathered)
    counts = dict.fromkeys(COUNTS, 0)
    counts["missing_images"] = int((~image_found).sum())
    ids, groups, boxes, difficult, starts = [], [], [], [], [0]
    first_rows, second_rows, codes = [], [], []
    code_of, name_lists = {}, []
    for key, records in frames.items():
        people = {}
        for position, record in enumerate(records):
            person = record.get("label_id") if isinstance(record, dict) else None
            missing = "label_id" if not isinstance(person, str) or not person else "box"
            if missing == "label_id" or "box" not in record:
                example = '"label_id": "pedestrian:N"' if missing == "label_id" else '"box": [x, y, w, h]'
                gathered.add(f"no {missing}", f"add {example}, or remove the record",
                             f"{path}: frame {key}, record {position}: {str(record)[:80]}")  # fmt: skip
            elif person in people:
                counts["duplicate_ids"] += 1
            else:
                people[person] = record
        order = sorted(people, key=natural_order)
        row_of = {person: starts[-1] + i for i, person in enumerate(order)}
        for person in order:
            record, place = people[person], f"{path}: frame {key}, {person}"
            ids.append(person)
            boxes.append(record["box"])
            group, hard = read_group(record, place, gathered)
            groups.append(group)
            difficult.append(hard > rules.max_difficulty)
            if rules.pairs_from != "interaction":
                continue
            for partner, names in read_interactions(record, place, gathered):
                if (row := row_of.get(partner)) is None or partner == person:
                    counts["missing_partners"] += 1
                    continue
                if names not in code_of:
                    if unknown_names([name for name, _ in names], classes, place, gathered):
                        continue
                    code_of[names] = len(name_lists)
                    name_lists.append(names)
                first_rows.append(row_of[person])
                second_rows.append(row)
                codes.append(code_of[names])
        starts.append(len(ids))
    if frames and not ids and gathered.count == before:
        gathered.add("no person in any frame", "remove the file or restore its labels", f"{path}")
    if not ids:
        if problems is None:
            gathered.raise_any()
        return None
    keys, starts, groups = list(frames), np.array(starts), np.array(groups)
    clean, bad = clean_boxes(boxes, *size, source, counts)
    for row, what in bad.items() if not rules.skip_bad_boxes else ():
        key = keys[np.searchsorted(starts, row, side="right") - 1]
        gathered.add(what, "correct or remove the records, or pass --skip_bad_boxes",
                     f"{path}: frame {key}, {ids[row]}, box {str(boxes[row])[:80]}")  # fmt: skip
    if problems is None:
        gathered.raise_any()
    if gathered.count > before:
        return None

    if rules.pairs_from == "social_group":
        pairs = group_pairs(starts, groups)
        types, merged = np.full(len(pairs), -1), {}
    else:
        directed = np.array([first_rows, second_rows, codes], np.int64).reshape(3, -1)
        pairs, types, merged = merge_annotations(directed, name_lists, classes, rules)
    kept = np.ones(len(ids), bool)
    kept[list(bad)] = False
    counts |= {"skipped_boxes": len(bad), "difficult_people": int(np.sum(difficult)), **merged}
    row_index = np.cumsum(kept) - 1  # rows without those left out
    there = kept[pairs].all(axis=1)
    track_names = sorted(set(ids), key=natural_order)
    track_of = {name: i for i, name in enumerate(track_names)}
    return Sequence(
        name=path.stem,
        width=size[0],
        height=size[1],
        size_source=source,
        keys=keys,
        times=np.array([frame_number(key) for key in keys]),
        starts=np.r_[0, np.cumsum(kept)][starts],
        boxes=clean[kept],
        tracks=np.array([track_of[person] for person in ids])[kept],
        track_names=track_names,
        groups=groups[kept],
        difficult=np.array(difficult, bool)[kept],
        pairs=row_index[pairs[there]],
        types=types[there],
        image_found=image_found,
        frame_rate=rules.frame_rate,
        counts=counts,
    )


def read_frames(path: Path, problems: Problems) -> dict[str, list]:
    """Frame name -> its records, sorted by frame number; parsed without garbage collection, 2x faster."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        problems.add("not valid JSON", "download or copy the file again", f"{path}: {error}")
        return {}
    except OSError as error:
        problems.add("can not be read", "check the file and its permissions", f"{path}: {error.strerror}")
        return {}
    finally:
        if enabled:
            gc.enable()
    frames = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(frames, dict) or not frames:
        remedy = 'expected {"labels": {"000015.jpg": [records]}}: check that it is a JRDB-Social label file'
        problems.add("no frames", remedy, f"{path}")
        return {}
    numbers = {}
    for key, records in frames.items():
        try:
            check_relative_name(key, str(path))
        except DataError as error:
            problems.add("a frame's name leads elsewhere", "rename the frame", str(error).splitlines()[0])
            continue
        if (number := frame_number(key)) is None:
            remedy = "expected a number and an ending, such as 000015.jpg"
            problems.add("frame name without a number", remedy, f"{path}: frame name {key!r}")
        elif not isinstance(records, list):
            remedy = "a frame is a list of records"
            problems.add("a frame is no list", remedy, f"{path}: frame {key} holds {type(records).__name__}")
        elif numbers.setdefault(number, key) != key:
            where = f"{path}: frames {numbers[number]} and {key} have one number"
            problems.add("two frames with one number", "keep one of them", where)
    return {numbers[number]: frames[numbers[number]] for number in sorted(numbers)}


def frame_number(key: str) -> int | None:
    """The last number in a frame's name, such as 15 of 000015.jpg or IMG_15.png; None where there is none."""
    match = re.fullmatch(r"(?:.*[^0-9])?([0-9]{1,9})[^0-9]*\.(jpg|jpeg|png)", key, re.IGNORECASE)
    return int(match[1]) if match else None


def read_group(record: dict, place: str, problems: Problems) -> tuple[int, int]:
    """The social group id of a record, -1 where it is in none, and the group label's difficulty (0 to 3)."""
    entry = record.get("social_group")
    group, hard = (
        (entry.get("cluster_ID"), entry.get("cluster_stat")) if isinstance(entry, dict) else (entry, 0)
    )
    if group is None:
        group = -1
    if isinstance(group, bool) or not isinstance(group, int) or not -(2**62) < group < 2**62:
        remedy = "expected a whole number; below 0 is nobody's group"
        problems.add("social_group cluster_ID is no number", remedy, f"{place}: cluster_ID {group!r}")
        group = -1
    return max(group, -1), hard if type(hard) in (int, float) else 0


def read_interactions(record: dict, place: str, problems: Problems) -> list[tuple[str, tuple]]:
    """(partner, ((name, difficulty), ..)) of a record's H-interaction entries (HHI in later files).

    A name whose value is 0 is no label. Empty where the key is absent.
    """
    entries, found = record.get("H-interaction", record.get("HHI")) or [], []
    for entry in entries if isinstance(entries, list) else [None]:
        labels = entry.get("inter_labels") if isinstance(entry, dict) else None
        if not isinstance(labels, dict) or not isinstance(entry.get("pair"), str):
            remedy = 'expected [{"pair": "pedestrian:N", "inter_labels": {"walking together": 1}}]'
            problems.add(
                "an H-interaction entry of another form", remedy, f"{place}, H-interaction: {str(entry)[:80]}"
            )
            continue
        difficulty = {name: v if type(v) in (int, float) else 1 for name, v in labels.items()}
        found.append((entry["pair"], tuple((name, v) for name, v in difficulty.items() if v > 0)))
    return found


def unknown_names(names: list[str], classes: dict[str, int], place: str, problems: Problems) -> list[str]:
    """The names that have no class, gathered as problems with the nearest name that has one."""
    unknown = [name for name in names if name not in classes and ANY_OTHER not in classes]
    for name in unknown:
        close = difflib.get_close_matches(name, classes, n=1)
        what = f"unknown interaction name {name!r}" + (f", did you mean {close[0]!r}?" if close else "")
        remedy = 'correct the files, or give its class: --class_map FILE.json of {"name": "class"}'
        problems.add(what, remedy, place)
    return unknown


def clean_boxes(
    boxes: list, width: int, height: int, source: str, counts: dict[str, int]
) -> tuple[np.ndarray, dict[int, str]]:
    """(R, 4) float64 boxes on the 1/1024 pixel grid of a panorama sized by `source`, and {row: what is bad}.

    x is wrapped into [0, width), rows beyond the upper and lower edge are clipped; both are counted into
    `counts`. x + w may exceed width.
    """
    four = [isinstance(b, list) and len(b) == 4 and all(type(v) in (int, float) for v in b) for b in boxes]
    finite = [ok and all(abs(v) < 1e9 for v in box) for ok, box in zip(four, boxes, strict=True)]
    array = np.array([box if ok else [0, 0, 1, 1] for ok, box in zip(finite, boxes, strict=True)], float)
    x, y, w, h = array.T
    outside = (x + w <= 0) | (x >= width) | (w > width) | (y + h <= 0) | (y >= height)
    bad = {}
    for wrong, what in (
        (outside, f"a box outside the {width}x{height} panorama (size from {source})"),
        ((w <= 0) | (h <= 0), "a box whose width and height are not positive"),
        (~np.array(finite, bool), "a box with a coordinate that is not finite"),
        (~np.array(four, bool), "a box that is not four numbers x, y, w, h"),
    ):
        bad |= dict.fromkeys(np.flatnonzero(wrong).tolist(), what)
    good = np.ones(len(array), bool)
    good[list(bad)] = False
    top, bottom = np.maximum(y, 0), np.minimum(y + h, height)
    counts["wrapped_boxes"] = int((good & (x < 0)).sum())
    counts["clipped_boxes"] = int((good & ((y < 0) | (y + h > height))).sum())
    grid = np.rint(np.stack([x, top, w, bottom - top], axis=1) * BOX_GRID)
    grid[:, 0] %= width * BOX_GRID
    return np.maximum(grid, [0, 0, 1, 1]) / BOX_GRID, dict(sorted(bad.items()))


def natural_order(person: str) -> tuple[int, str]:
    """pedestrian:9 before pedestrian:10."""
    return len(person), person


def find_images(
    name: str, keys: list[str], data_path: Path | str | None, problems: Problems
) -> tuple[np.ndarray, tuple[int, int], str]:
    """Which frames have an image, (width, height) of the panorama and where that size comes from."""
    folder = Path(data_path) / IMAGE_FOLDER / name if data_path is not None else None
    images = list_images(folder) if folder is not None else []
    present = set(images)
    found = np.array([key in present for key in keys], bool)
    if images:
        try:
            return found, read_image_size(folder / images[0]), f"{name}/{images[0]}"
        except DataError as error:
            problems.add(
                "an image can not be read", "copy it again, or remove it", str(error).splitlines()[0]
            )
    return found, PANORAMA_SIZE, "no image; the official JRDB panorama is assumed"


def list_images(folder: Path) -> list[str]:
    """The names of the images in a sequence's folder, sorted; none where there is no such folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png")))


def group_pairs(starts: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(M, 2) int64 rows: every two people of one social group of one frame, lower row first, sorted."""
    frames = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    members: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(groups >= 0).tolist():
        members.setdefault((int(frames[row]), int(groups[row])), []).append(row)
    pairs = [pair for rows in members.values() for pair in itertools.combinations(rows, 2)]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def merge_annotations(
    directed: np.ndarray, name_lists: list[tuple], classes: dict[str, int], rules: LabelRules
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Directed annotations -> undirected pairs (M, 2), lower row first, types (M,) and counts.

    directed (3, D) int64: row of the person annotated, row of the partner, index into `name_lists`, whose
    entries are ((name, difficulty), ..).
    """
    named = np.array([len(names) > 0 for names in name_lists], bool)[directed[2]]
    counts = {"unnamed_annotations": int((~named).sum())}
    first, second, code = directed[:, named]
    if not len(first):
        return np.empty((0, 2), np.int64), np.empty(0, np.int64), counts
    # One bit per name: the labels of a pair from either side are ORs of these.
    seen = sorted({name for names in name_lists for name, _ in names})
    bit = {name: 1 << min(k, 62) for k, name in enumerate(seen)}
    kind = {name: classes.get(name, classes.get(ANY_OTHER)) for name in seen}
    bits = np.array([sum({bit[name] for name, _ in names}) for names in name_lists], np.int64)
    kinds = np.array([sum({1 << kind[name] for name, _ in names}) for names in name_lists], np.int64)
    easiest = np.array([min((hard for _, hard in names), default=0) for names in name_lists])
    pairs = np.sort(np.stack([first, second], 1), axis=1)
    order = np.lexsort((first, pairs[:, 1], pairs[:, 0]))  # stable: one direction keeps the order of the file
    pairs, code, forward = pairs[order], code[order], (first < second)[order]
    begin = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(1)])
    there = np.bitwise_or.reduceat(np.where(forward, bits[code], 0), begin)
    back = np.bitwise_or.reduceat(np.where(forward, 0, bits[code]), begin)
    joined = np.bitwise_or.reduceat(kinds[code], begin)  # one bit per class
    types = np.frexp(joined)[1].astype(np.int64) - 1  # the highest bit: classes go from frequent to rare
    if rules.multi_label == "first":
        types = np.array([kind[name_lists[c][0][0]] for c in code[begin]], np.int64)
    elif rules.multi_label == "drop":
        types[(joined & (joined - 1)) != 0] = -1
    counts["multi_label_pairs"] = int((((there & (there - 1)) != 0) | ((back & (back - 1)) != 0)).sum())
    counts["conflicting_pairs"] = int(((there != back) & (there > 0) & (back > 0)).sum())
    counts["one_sided_pairs"] = int(((there == 0) | (back == 0)).sum())
    counts["untyped_pairs"] = int((types < 0).sum())
    difficult = np.minimum.reduceat(easiest[code], begin) > rules.max_difficulty
    counts["difficult_pairs"] = int(difficult.sum())
    types[difficult] = -3
    return pairs[begin], types, counts
