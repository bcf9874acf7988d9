"""JRDB annotations as numpy columns, read one sequence at a time.

The folder is the official one; images are needed only by runs that look at pixels:

    DATA/labels/labels_2d_activity_social_stitched/SEQUENCE.json
    DATA/images/image_stitched/SEQUENCE/000015.jpg               3760x480; the number counts frames
    DATA/split.json                                              optional; unless --split_method names another

A person is a row. Rows are sorted by frame number and then by person id, whatever the order in the file, so
everything built on them is independent of the order of files, frames and records. Demographics are not read.
What is wrong in the files is gathered over all of them (`Problems`) and told in one error.
"""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.images import check_relative_name
from datasets.jrdb import records
from datasets.jrdb.problems import Problems
from datasets.jrdb.records import ANY_OTHER, IMAGE_FOLDER
from utils.run.errors import CommandError

LABEL_FOLDER = Path("labels") / "labels_2d_activity_social_stitched"
FRAMES_PER_SECOND = 15.0  # of JRDB

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
    classes, before, counts = rules.classes(), gathered.count, dict.fromkeys(COUNTS, 0)
    frames = records.read_frames(path, gathered)
    image_found, size, source = records.find_images(path.stem, list(frames), data_path, gathered)
    people = list(records.read_people(frames, path, counts, gathered))
    row_of = {(person.frame, person.id): row for row, person in enumerate(people)}
    groups, hard, directed = [], [], []
    code_of: dict[tuple, int] = {}  # the labels of a pair: their number, in the order they are met
    for row, person in enumerate(people):
        group, difficulty = records.read_group(person, gathered)
        groups.append(group)
        hard.append(difficulty > rules.max_difficulty)
        if rules.pairs_from != "interaction":
            continue
        for partner, names in records.read_interactions(person, gathered):
            if (other := row_of.get((person.frame, partner))) in (None, row):
                counts["missing_partners"] += 1
            elif names in code_of or not records.unknown_names(dict(names), classes, person.place, gathered):
                directed.append((row, other, code_of.setdefault(names, len(code_of))))
    if frames and not people and gathered.count == before:
        gathered.add("no person in any frame", "remove the file or restore its labels", f"{path}")
    boxes = [person.record["box"] for person in people]
    clean, bad = records.clean_boxes(boxes, *size, source, counts)
    for row, what in bad.items() if not rules.skip_bad_boxes else ():
        gathered.add(what, "correct or remove the records, or pass --skip_bad_boxes",
                     f"{people[row].place}, box {str(boxes[row])[:80]}")  # fmt: skip
    if problems is None:
        gathered.raise_any()
    if gathered.count > before:
        return None

    keys, groups = list(frames), np.array(groups)
    starts = np.searchsorted([person.frame for person in people], np.arange(len(keys) + 1))
    if rules.pairs_from == "social_group":
        pairs = group_pairs(starts, groups)
        types = np.full(len(pairs), -1)
    else:
        directed = np.array(directed, np.int64).reshape(-1, 3).T
        pairs, types, merged = merge_annotations(directed, list(code_of), classes, rules)
        counts |= merged
    counts |= {"missing_images": int((~image_found).sum()), "difficult_people": int(np.sum(hard))}
    kept = np.ones(len(people), bool)
    kept[list(bad)] = False
    row_index = np.cumsum(kept) - 1  # rows without those left out
    there = kept[pairs].all(axis=1)
    ids = [person.id for person in people]
    track_names = sorted(set(ids), key=records.natural_order)
    track_of = {name: i for i, name in enumerate(track_names)}
    return Sequence(
        name=path.stem,
        width=size[0],
        height=size[1],
        size_source=source,
        keys=keys,
        times=np.array([records.frame_number(key) for key in keys]),
        starts=np.r_[0, np.cumsum(kept)][starts],
        boxes=clean[kept],
        tracks=np.array([track_of[person] for person in ids])[kept],
        track_names=track_names,
        groups=groups[kept],
        difficult=np.array(hard, bool)[kept],
        pairs=row_index[pairs[there]],
        types=types[there],
        image_found=image_found,
        frame_rate=rules.frame_rate,
        counts=counts,
    )


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
