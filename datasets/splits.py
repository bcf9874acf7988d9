"""Splitting a data set by group: by scenario, by sequence, by subject.

    split = split_groups(["12", "7", "31", ...], test_size=0.2, val_size=0.1, seed=42)
    print(check_disjoint(split, unit="subjects"))      # 734 train, 82 val and 205 test subjects, none shared

Two samples of one group (two images of one person, two frames of one drive) resemble each other far more than
two samples of the same label do, so a split inside a group measures memory, not learning. A split is a split
of group *names*; which samples follow from it is the data set's business.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from utils.run.errors import CommandError, DataError, some
from utils.run.folder import read_record

PARTS = ("train", "val", "test")
MEMORY = "Scores on such a split measure memory."
Split = dict[str, list[str]]  # by part the names of its groups
# From {group: hashes of what it holds} to the groups of each part: how evaluate.py says whom it judges.
Choose = Callable[[dict[str, list[str]]], Split]
# A stratum must survive two cuts with two members left, sklearn's minimum; a smaller one joins its neighbour.
MIN_STRATUM = 5


@dataclass
class Parts:
    """The parts of a data set and how they came about: what is alike in the three tasks."""

    parts: dict[str, Any]  # train, val and, where it is not empty, test
    split: Split  # groups are sequences, scenarios, subjects
    split_source: str  # which rule decided, in words
    leakage_check: str  # the outcome of `check_disjoint`
    hashes: dict[str, list[str]] = field(repr=False)  # by group: of all that it holds, then of its parts
    synthetic: bool  # whether the folder says of itself that it was generated
    recorded: dict[str, np.ndarray] | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        """DataError where a group, or some of it, is in two parts under two names."""
        first: dict[str, tuple[str, str]] = {}  # by content: part and name
        for part, names in self.split.items():
            for content, name in ((held, one) for one in names for held in self.hashes[one]):
                other, copied = first.setdefault(content, (part, name))
                if other != part:
                    leak = f"{name} in {part} and {copied} in {other} hold the same, in whole or in part"
                    raise DataError(f"Leakage: {leak}\n{MEMORY} Remove one of the two copies.")

    @property
    def train(self) -> Any:
        return self.parts["train"]

    @property
    def val(self) -> Any:
        return self.parts["val"]

    def references(self) -> dict[str, np.ndarray]:
        """What the scorers are made of that a model is compared with, see `make_references`; `recorded` where
        they are a run's, whose own data are not read."""
        if self.recorded is None:
            self.recorded = self.make_references()
        return self.recorded


def split_groups(
    groups: Iterable[str], test_size: float = 0.2, val_size: float = 0.1, seed: int = 42,
    stratify: Mapping[str, object] | None = None,
) -> Split:  # fmt: skip
    """Split group names into train, val and test; the same names and seed give the same split in any order.

    test_size is a fraction of all groups, val_size a fraction of what the test part leaves: 1,021 subjects at
    .2 and .1 become 734, 82 and 205 (sklearn's train_test_split, twice, with random_state=seed). Names may be
    repeated. stratify: {group: stratum}; strata too small to be cut are joined with the next one in order.
    DataError when there are too few groups to fill the parts.
    """
    names = sorted(set(groups))
    n_test = math.ceil(test_size * len(names))
    n_val = math.ceil(val_size * (len(names) - n_test))
    n_train = len(names) - n_test - n_val
    if n_train < 1:
        raise DataError(
            f"{len(names)} groups can not be split: test {n_test} (--test_size {test_size}), "
            f"val {n_val} (--val_size {val_size}), train {n_train}\n"
            "Every part needs at least one group: add data or lower --test_size and --val_size."
        )
    from sklearn.model_selection import train_test_split  # slow to import, and most splits ship with the data

    parts = {"train": names, "val": [], "test": []}
    for part, count in (("test", n_test), ("val", n_val)):
        rest, strata = parts["train"], None
        if stratify:
            strata = _join_small_strata([stratify[name] for name in rest])
        try:
            if count:
                cut = train_test_split(rest, test_size=count, random_state=seed, stratify=strata)
                parts["train"], parts[part] = cut
        except ValueError as error:
            raise DataError(
                f"{len(rest)} groups of {len(set(strata or []))} strata can not be cut ({part} {count}): "
                f"{error}\nSplit without stratification, or change --test_size and --val_size."
            ) from error
    return {part: sorted(names) for part, names in parts.items()}


def fold_groups(
    groups: Iterable[str], fold: str, seed: int = 42, stratify: Mapping[str, object] | None = None
) -> tuple[Split, str]:
    """Fold K of N, `fold` = "K/N", and how it was split, in words: part K is test, the next one (after the
    last the first) is val. The parts of one seed hold every group once, and differ by one at most; names in
    any order give the same. stratify: {group: stratum}; each is dealt out over the parts, going on where the
    one before ended."""
    from random import Random  # the same numbers on every machine and in every version

    k, n = map(int, fold.split("/"))
    names = sorted(set(groups))
    if len(names) < n:
        raise DataError(f"--fold {fold}: {len(names)} groups make at most {len(names)} folds")
    Random(seed).shuffle(names)
    names.sort(key=lambda name: str(stratify[name]) if stratify else "")
    parts = [sorted(names[i::n]) for i in range(n)]
    test, val = parts[k - 1], parts[k % n]
    train = sorted(name for name in names if name not in {*test, *val})
    return {"train": train, "val": val, "test": test}, f"--fold {fold} of --seed {seed}"


def _join_small_strata(labels: list) -> list[int]:
    """Number the strata in sorted order, joining one of fewer than MIN_STRATUM members with the next."""
    count, number, members, total = Counter(labels), {}, 0, 0
    for label in sorted(count):
        number[label] = total
        members += count[label]
        if members >= MIN_STRATUM:
            total, members = total + 1, 0
    # What is left at the end is too small by itself and joins the last full stratum.
    last = max(total - 1, 0)
    return [min(number[label], last) for label in labels]


def check_disjoint(split: Mapping[str, Iterable[str]], unit: str = "groups") -> str:
    """Check that no group is in two parts; returns the outcome as a sentence for the log and the config.
    split: the group of each sample or group names, per part. Raises DataError naming the shared groups."""
    parts = {part: set(names) for part, names in split.items()}
    for first, second in itertools.combinations(parts, 2):
        if shared := sorted(parts[first] & parts[second]):
            leak = f"{len(shared)} {unit} are in both {first} and {second}: {some(shared)}"
            raise DataError(f"Leakage: {leak}\n{MEMORY} Split by {unit}, each in one part only.")
    counts = [f"{len(names)} {part}" for part, names in parts.items()]
    listed = " and ".join(filter(None, [", ".join(counts[:-1]), *counts[-1:]]))
    return f"{listed} {unit}, none shared"


def read_split(path: str | Path) -> Split:
    """The three lists of a split.json, sorted; test may be missing or empty. DataError for anything else, and
    for a name in two lists."""
    remedy = 'Expected {"train": [names], "val": [names], "test": [names]}.'
    try:
        content = {"test": []} | read_record(Path(path), "train", "val")
    except CommandError as error:
        raise DataError(f"{error}\n{remedy}") from error
    split = {part: content[part] for part in PARTS}
    for part, names in split.items():
        wrong = ""
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            wrong = f"is not a list of names in quotes (found: {json.dumps(names)[:80]})"
        elif len(set(names)) < len(names):
            wrong = f"lists {Counter(names).most_common(1)[0][0]!r} more than once"
        elif not names and part != "test":
            wrong = "is empty"
        if wrong:
            raise DataError(f'{path}: "{part}" {wrong}\n{remedy}')
    check_disjoint(split)
    return {part: sorted(names) for part, names in split.items()}
