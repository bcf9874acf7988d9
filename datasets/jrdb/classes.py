"""The five interaction classes, the published names in each, and the class of an annotated pair."""

from datasets.jrdb.flags import LabelRules
from datasets.jrdb.problems import Problems
from utils.run.errors import CommandError, suggest
from utils.run.folder import read_json

INTERACTION_CLASSES = ("walking together", "standing together", "conversation", "sitting together", "others")
# The classes of the 21 published names, from frequent to rare. The map does not depend on the counts of a
# split, so class k means the same in every split, checkpoint and evaluation.
CLASS_OF_NAME = {name: k for k, name in enumerate(INTERACTION_CLASSES[:4])} | dict.fromkeys(
    ("going upstairs together", "moving together", "looking at robot together", "looking at sth together",
     "walking toward each other", "eating together", "going downstairs together", "bending together",
     "holding sth together", "cycling together", "interaction with door together", "hugging",
     "looking into sth together", "shaking hand", "waving hand together", "pointing at sth together"), 4,
)  # fmt: skip
CLASS_OF_NAME["standing together together"] = 1  # a typo in the published list
TOO_DIFFICULT = -3  # the type of a pair whose labels are all above --max_difficulty
ANY_OTHER = "*"  # in a class map: every name that is not listed


def read_class_map(path: str | None) -> dict[str, int]:
    """Map interaction names to classes: the 21 published names, overridden by --class_map, a JSON file of
    {"name": "class"}. CommandError if the file is not such a map or names an unknown class."""
    if path is None:
        return CLASS_OF_NAME
    given = read_json(path, dict, remedy='\n--class_map is a JSON file of {"name": "class"}')
    if wrong := {name: kind for name, kind in sorted(given.items()) if kind not in INTERACTION_CLASSES}:
        known, names = ", ".join(INTERACTION_CLASSES), str(wrong)[1:-1]
        raise CommandError(f"--class_map {path}: no such class for {names}\n  classes: {known}")
    return CLASS_OF_NAME | {name: INTERACTION_CLASSES.index(kind) for name, kind in given.items()}


def known_names(labels: list, classes: dict[str, int], place: str, problems: Problems) -> bool:
    """Whether every name of ((name, difficulty), ..) has a class; adds a problem for each unknown name."""
    unknown = [name for name, _ in labels if name not in classes and ANY_OTHER not in classes]
    for name in unknown:
        remedy = 'correct it (no interaction: no entry), or pass --class_map FILE.json of {"name": "class"}'
        problems.add(f"unknown interaction name {name!r}{suggest(name, [*classes])}", remedy, place)
    return not unknown


def merge_sides(
    first: tuple, second: tuple, classes: dict[str, int], rules: LabelRules
) -> tuple[int, list[str]]:
    """The type of a pair from both people's labels ((name, difficulty), ..), and the COUNTS to increment.

    The labels of both sides up to --max_difficulty are joined; one side is enough. --multi_label decides
    between several: `priority` takes the rarest class (others, sitting, conversation, standing, walking),
    `first` the first label of the lower id (else of the other), `drop` gives -1 if the classes differ."""
    easy = [name for name, difficulty in first + second if difficulty <= rules.max_difficulty]
    kinds = [classes.get(name, classes.get(ANY_OTHER)) for name in easy] or [TOO_DIFFICULT]
    names, other_names = {name for name, _ in first}, {name for name, _ in second}
    kind = max(kinds)  # classes go from frequent to rare
    if rules.multi_label == "first":
        kind = kinds[0]
    elif rules.multi_label == "drop" and len(set(kinds)) > 1:
        kind = -1
    counts = {
        "multi_label_pairs": max(len(names), len(other_names)) > 1,
        "conflicting_pairs": names and other_names and names != other_names,
        "one_sided_pairs": not names or not other_names,
        "untyped_pairs": kind == -1,
        "difficult_pairs": not easy,
    }
    return kind, [name for name, holds in counts.items() if holds]
