"""The five classes of interaction, the published names that each holds, and the class of a pair."""

import json
from pathlib import Path

from datasets.jrdb.flags import LabelRules
from datasets.jrdb.problems import Problems
from utils.run.errors import CommandError, suggest

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
ANY_OTHER = "*"  # in a class map: whatever name is not in it


def read_class_map(path: str | None) -> dict[str, int]:
    """Class of every interaction name: the 21 published ones, and over them those of --class_map, a JSON file
    {"name": "class"}. CommandError for a file that is none, or names another class."""
    if path is None:
        return CLASS_OF_NAME
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        wrong = sorted(name for name, kind in given.items() if kind not in INTERACTION_CLASSES)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CommandError(f'--class_map {path}: not a JSON file of {{"name": "class"}} ({error})') from error
    if wrong:
        known, names = ", ".join(INTERACTION_CLASSES), ", ".join(map(repr, wrong))
        raise CommandError(f"--class_map {path}: no such class for {names}\n  classes: {known}")
    return CLASS_OF_NAME | {name: INTERACTION_CLASSES.index(kind) for name, kind in given.items()}


def known_names(labels: list, classes: dict[str, int], place: str, problems: Problems) -> bool:
    """Whether all of ((name, difficulty), ..) have a class; others are problems, with the nearest name."""
    unknown = [name for name, _ in labels if name not in classes and ANY_OTHER not in classes]
    for name in unknown:
        remedy = 'correct the files, or give its class: --class_map FILE.json of {"name": "class"}'
        problems.add(f"unknown interaction name {name!r}{suggest(name, [*classes])}", remedy, place)
    return not unknown


def merge_sides(
    there: tuple, back: tuple, classes: dict[str, int], rules: LabelRules
) -> tuple[int, list[str]]:
    """The type of a pair by its labels ((name, difficulty), ..) from both sides, and which COUNTS it adds to.

    One side is enough; two that differ are joined. Of several labels the type is the rarest class
    (`priority`: others, sitting, conversation, standing, walking), the first written (`first`: first record
    by id, first name in it), or none (`drop`, if they fall in different classes). -3: all too difficult.
    """
    class_of = {name: classes.get(name, classes.get(ANY_OTHER)) for name, _ in there + back}
    kinds, one, other = set(class_of.values()), {name for name, _ in there}, {name for name, _ in back}
    kind = max(kinds)  # classes go from frequent to rare
    if rules.multi_label == "first":
        kind = class_of[(there + back)[0][0]]
    elif rules.multi_label == "drop" and len(kinds) > 1:
        kind = -1
    difficult = min(difficulty for _, difficulty in there + back) > rules.max_difficulty
    told = {
        "multi_label_pairs": max(len(one), len(other)) > 1,
        "conflicting_pairs": one and other and one != other,
        "one_sided_pairs": not one or not other,
        "untyped_pairs": kind < 0,
        "difficult_pairs": difficult,
    }
    return -3 if difficult else kind, [name for name, holds in told.items() if holds]
