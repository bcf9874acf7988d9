"""Find the sequences of a JRDB folder and split them into train, val and test."""

from collections.abc import Iterable
from pathlib import Path

from datasets.images import check_relative_name
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FILES, LABEL_FOLDER
from datasets.splits import PARTS, Split, fold_groups, read_split
from utils.run.errors import CommandError, DataError, counted, some
from utils.run.log import LOG

# The sequences with public labels, divided into train and val as in the code of JRDB-Act and JRDB-Social;
# test: the sequences without public labels, for users who have them.
OFFICIAL = Path(__file__).with_name("official_split.json")


def list_sequences(data_path: Path | str) -> dict[str, Path]:
    """{name: label file} of every sequence, sorted by name; CommandError if there is none."""
    data_path = Path(data_path)
    folder = data_path / LABEL_FOLDER
    if files := sorted(folder.glob(LABEL_FILES)):
        return {check_relative_name(path.stem, str(folder)): path for path in files}
    found = sorted(path.name for path in data_path.iterdir()) if data_path.is_dir() else ["no such folder"]
    inside = sorted(path.parent.parent for path in data_path.glob(f"*/{LABEL_FOLDER}"))
    remedy = f"pass {f'--data_path {inside[0]}' if inside else 'the folder that holds labels/ and images/'}"
    if others := sorted({path.parent.name for path in data_path.glob(f"labels/*/{LABEL_FILES}")}):
        remedy = f"labels/ holds {some(others)}, but only {LABEL_FOLDER.name} (JRDB-Act, JRDB-Social) says "
        remedy += "who interacts: download it; predict.py --input works on boxes without it"
    raise CommandError(
        f"--data_path {data_path}: no JRDB label files\n  expected: {folder}/SEQUENCE.json\n"
        f"  and, for pixels: {data_path / IMAGE_FOLDER}/SEQUENCE/000015.jpg\n"
        f"  found: {some(found, 8) or 'an empty folder'}\n  {remedy}"
    )


def split_sequences(
    names: Iterable[str], data_path: Path | str, method: str = "auto", fold: str | None = None, seed: int = 42
) -> tuple[Split, str]:
    """Sorted sequence names of train, val and test (which may be empty), and the rule used, in words.

    `method`: auto (split.json in the data folder, else official), official (OFFICIAL), sorted70 (names
    in order, 70/15/15 by count), or the path of a JSON file with lists of names under train, val and test.
    `fold` "K/N", drawn with `seed`, overrides `method`."""
    names, data_path = sorted(names), Path(data_path)
    own = data_path / "split.json"
    if fold:
        split, source = fold_groups(names, fold, seed)
    elif method == "auto" and own.is_file():
        split, source = read_split(own), f"{own.name} in the data folder"
    elif method in ("auto", "official"):
        split, source = read_split(OFFICIAL), "the official JRDB lists"
        if unknown := sorted(set(names).difference(*split.values())):
            raise DataError(
                f"{data_path}: {len(unknown)} of {len(names)} sequences are in no official JRDB list: "
                f"{some(unknown, 3)}\n  add a split.json, or pass --split_method sorted70 or a JSON file"
            )
        split = {part: [n for n in listed if n in names] for part, listed in split.items()}
    elif method == "sorted70":
        first, second = int(0.7 * len(names)), int(0.7 * len(names)) + int(0.15 * len(names))
        split = {"train": names[:first], "val": names[first:second], "test": names[second:]}
        source = "sequences sorted by name, 70/15/15 by count"
    elif method.endswith(".json"):
        split, source = read_split(Path(method)), f"--split_method {method}"
    else:
        raise CommandError(f"--split_method {method}: expected auto, official, sorted70 or a .json file")
    split = {part: sorted(split.get(part) or []) for part in PARTS}
    for part in PARTS:
        if absent := [n for n in split[part] if n not in names]:
            listed = f"{counted(len(absent), 'sequences')} without a label file: {some(absent, 3)} ({source})"
            raise DataError(f"{data_path}: {part} names {listed}\n  add the files, or correct the list")
        if part != "test" and not split[part]:
            empty = f"the {part} split is empty ({source}, of {len(names)} sequences: {some(names, 3)})"
            ways = "add sequences", " or a split.json", f", or pass --fold 1/{min(len(names), 5)}"
            raise DataError(f"{data_path}: {empty}\n  {''.join(ways[: len(names)])}")
    if unused := sorted(set(names).difference(*split.values())):
        LOG.warning(f"{len(unused)} of {len(names)} sequences are in no part of {source}: {some(unused, 3)}")
    return split, source
