"""Which JRDB sequences train, which validate, which test: the official lists, by name, or a file."""

from collections.abc import Iterable
from pathlib import Path

from datasets.splits import PARTS, check_disjoint, describe_fold, fold_groups, read_split
from utils.run.errors import CommandError, DataError

# The 27 sequences with public labels, as the code of JRDB-Act and JRDB-Social divides them.
OFFICIAL_TRAIN = (
    "bytes-cafe-2019-02-07_0", "clark-center-2019-02-28_0", "clark-center-intersection-2019-02-28_0",
    "cubberly-auditorium-2019-04-22_0", "forbes-cafe-2019-01-22_0",
    "gates-159-group-meeting-2019-04-03_0", "gates-basement-elevators-2019-01-17_1",
    "gates-to-clark-2019-02-28_1", "hewlett-packard-intersection-2019-01-24_0",
    "huang-basement-2019-01-25_0", "huang-lane-2019-02-12_0", "jordan-hall-2019-04-22_0",
    "memorial-court-2019-03-16_0", "packard-poster-session-2019-03-20_0",
    "packard-poster-session-2019-03-20_1", "packard-poster-session-2019-03-20_2", "stlc-111-2019-04-19_0",
    "svl-meeting-gates-2-2019-04-08_0", "svl-meeting-gates-2-2019-04-08_1", "tressider-2019-03-16_0",
)  # fmt: skip
OFFICIAL_VAL = (
    "clark-center-2019-02-28_1", "gates-ai-lab-2019-02-08_0", "huang-2-2019-01-25_0",
    "meyer-green-2019-03-16_0", "nvidia-aud-2019-04-18_0", "tressider-2019-03-16_1",
    "tressider-2019-04-26_2",
)  # fmt: skip
# The 27 sequences whose labels are not public; used where a user has them.
OFFICIAL_TEST = (
    "cubberly-auditorium-2019-04-22_1", "discovery-walk-2019-02-28_0", "discovery-walk-2019-02-28_1",
    "food-trucks-2019-02-12_0", "gates-ai-lab-2019-04-17_0", "gates-basement-elevators-2019-01-17_0",
    "gates-foyer-2019-01-17_0", "gates-to-clark-2019-02-28_0", "hewlett-class-2019-01-23_0",
    "hewlett-class-2019-01-23_1", "huang-2-2019-01-25_1", "huang-intersection-2019-01-22_0",
    "indoor-coupa-cafe-2019-02-06_0", "lomita-serra-intersection-2019-01-30_0",
    "meyer-green-2019-03-16_1", "nvidia-aud-2019-01-25_0", "nvidia-aud-2019-04-18_1",
    "nvidia-aud-2019-04-18_2", "outdoor-coupa-cafe-2019-02-06_0", "quarry-road-2019-02-28_0",
    "serra-street-2019-01-30_0", "stlc-111-2019-04-19_1", "stlc-111-2019-04-19_2",
    "tressider-2019-03-16_2", "tressider-2019-04-26_0", "tressider-2019-04-26_1",
    "tressider-2019-04-26_3",
)  # fmt: skip


def split_sequences(
    names: Iterable[str], data_path: Path | str, method: str = "auto", fold: str | None = None, seed: int = 42
) -> tuple[dict[str, list[str]], str]:
    """Sequence names of train, val and test (sorted; test may be empty), and which rule decided, in words.

    `method`: auto (split.json in the data folder, else official), official (the lists above), sorted70 (names
    in order, 70/15/15 by count), or the path of a JSON file with lists of names under train, val and test.
    `fold`, "K/N" of `seed`, stands above them.
    """
    names, data_path = sorted(names), Path(data_path)
    own = data_path / "split.json"
    if fold:
        split, source = fold_groups(names, fold, seed), describe_fold(fold, seed)
    elif method == "auto" and own.is_file():
        split, source = read_split(own), f"{own.name} in the data folder"
    elif method in ("auto", "official"):
        lists = dict(zip(PARTS, (OFFICIAL_TRAIN, OFFICIAL_VAL, OFFICIAL_TEST), strict=True))
        split = {part: [n for n in names if n in lists[part]] for part in PARTS}
        source = "the official JRDB lists"
        unknown = [n for n in names if not any(n in part for part in lists.values())]
        if unknown:
            raise DataError(
                f"{data_path}: {len(unknown)} of {len(names)} sequences are in no official JRDB list\n"
                f"  first: {', '.join(unknown[:3])}\n"
                "  add a split.json to the folder, or pass --split_method sorted70 or a JSON file of your own"
            )
    elif method == "sorted70":
        first, second = int(0.7 * len(names)), int(0.7 * len(names)) + int(0.15 * len(names))
        split = {"train": names[:first], "val": names[first:second], "test": names[second:]}
        source = "sequences sorted by name, 70/15/15 by count"
    elif method.endswith(".json"):
        split, source = read_split(Path(method)), f"--split_method {method}"
    else:
        raise CommandError(
            f"--split_method {method}: expected auto, official, sorted70 or the path of a .json file"
        )
    split = {part: sorted(split.get(part) or []) for part in PARTS}
    for part in PARTS:
        absent = [n for n in split[part] if n not in names]
        if absent:
            raise DataError(
                f"{data_path}: {part} names {len(absent)} sequences without a label file\n"
                f"  first: {', '.join(absent[:3])}; split by {source}\n  add the files, or correct the list"
            )
        if part != "test" and not split[part]:
            raise DataError(
                f"{data_path}: the {part} split is empty\n"
                f"  split by {source} of {len(names)} sequences: {', '.join(names[:3])} ...\n"
                "  add sequences, a split.json, or pass --split_method"
            )
    check_disjoint(split, "sequences")
    return split, source
