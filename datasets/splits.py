"""Splitting a data set by group: by scenario, sequence or subject.

    split = split_groups(["12", "7", "31", ...], test_size=0.2, val_size=0.1, seed=42)
    print(check_disjoint(split, unit="subjects"))      # 734 train, 82 val and 205 test subjects, none shared

Two samples of one group (two images of a person, two frames of a drive) resemble each other far more than two
samples of one label, so a split within groups measures memory, not learning. A split consists of group
*names*; the data set knows which samples belong to them.
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

from utils.run.errors import DataError, some
from utils.run.folder import read_json
from utils.run.leakage import shared

PARTS = ("train", "val", "test")
MEMORY = "Scores on such a split measure memory."
Split = dict[str, list[str]]  # {part: names of its groups}
# After two cuts a stratum must have two members left, sklearn's minimum. Smaller strata are joined.
MIN_STRATUM = 5
# Chooses groups in place of a split, from {group: hashes of its contents}: the Judge of prediction/judged.py,
# whose `parts` and `dataset` AnoVox reads as well.
Choose = Callable[[dict[str, list[str]]], Split]


@dataclass
class Parts:
    """The parts of a data set and how they were made; the three tasks share this class."""

    parts: dict[str, Any]  # train, val and, where it is not empty, test
    split: Split  # groups are sequences, scenarios or subjects
    split_source: str  # the rule that decided, in words
    leakage_check: str  # the outcome of `check_disjoint`
    hashes: dict[str, list[str]] = field(repr=False)  # by group: of all its contents, then of each content
    synthetic: bool  # whether the data folder says that it was generated
    recorded: dict[str, np.ndarray] | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        """Raise DataError if two parts share contents, such as a copy of a group under another name."""
        held = {part: {name: self.hashes[name] for name in names} for part, names in self.split.items()}
        for first, second in itertools.combinations(held, 2):
            if copies := shared(held[first], held[second]):
                pairs = [f"{copy} in {second} and {name} in {first}" for copy, name in copies.items()]
                leak = f"{some(pairs, 3)} hold the same data, or share some"
                raise DataError(f"Leakage: {leak}\n{MEMORY} Remove one of two, or put both into one part.")

    @property
    def train(self) -> Any:
        return self.parts["train"]

    @property
    def val(self) -> Any:
        return self.parts["val"]

    def describe_split(self, samples: dict[str, int]) -> dict[str, Any]:
        """What the dataset section of every config.json says. samples: of an epoch, by part."""
        return {
            "total_samples": sum(samples.values()),
            **{f"{part}_samples": count for part, count in samples.items()},
            "groups": {part: len(self.split[part]) for part in samples},
            "split_method": self.split_source,
            "data_leakage_prevention": self.leakage_check,
            "synthetic": self.synthetic,
        }

    def references(self) -> dict[str, np.ndarray]:
        """Arrays for the reference models: `recorded`, which evaluate.py takes from a run, or new ones."""
        if self.recorded is None:
            self.recorded = self.make_references()
        return self.recorded


def split_groups(
    groups: Iterable[str], test_size: float = 0.2, val_size: float = 0.1, seed: int = 42,
    stratify: Mapping[str, object] | None = None,
) -> Split:  # fmt: skip
    """Split group names into train, val and test. The order of the names does not matter.

    test_size is a fraction of all groups, val_size a fraction of those outside test: 1,021 subjects at .2 and
    .1 become 734, 82 and 205 (sklearn's train_test_split, twice, with random_state=seed). Names may be
    repeated. stratify: {group: stratum}; a stratum too small to be cut is joined with the next one in order.
    Raises DataError if there are too few groups."""
    names = sorted(set(groups))
    n_test = math.ceil(test_size * len(names))
    n_val = math.ceil(val_size * (len(names) - n_test))
    n_train = len(names) - n_test - n_val
    if n_train < 1:
        sizes = (
            f"test {n_test} (--test_size {test_size}), val {n_val} (--val_size {val_size}), train {n_train}"
        )
        remedy = "Every part needs at least one group: add data or lower --test_size and --val_size."
        raise DataError(f"{len(names)} groups ({some(names, 3)}) cannot be split: {sizes}\n{remedy}")
    from sklearn.model_selection import train_test_split  # slow to import, and most splits ship with the data

    parts = {"train": names, "val": [], "test": []}
    for part, count in (("test", n_test), ("val", n_val)):
        rest = parts["train"]
        if count:
            most = min(count, len(rest) - count)  # each stratum needs a member in both
            strata = _join_small_strata([stratify[name] for name in rest], most) if stratify else None
            cut = train_test_split(rest, test_size=count, random_state=seed, stratify=strata)
            parts["train"], parts[part] = cut
    return {part: sorted(names) for part, names in parts.items()}


def fold_groups(
    groups: Iterable[str], fold: str, seed: int = 42, stratify: Mapping[str, object] | None = None
) -> tuple[Split, str]:
    """(fold K of N, given as `fold` = "K/N"; how it was split, in words). The groups are dealt into N parts
    whose sizes differ by one at most. Part K is test, the next one (after the last, the first) is val. The
    order of the names does not matter. stratify: {group: stratum}; each stratum is spread over the parts."""
    from random import Random  # gives the same numbers on every machine and in every version

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


def _join_small_strata(labels: list, most: int) -> list[int]:
    """Number the strata in sorted order, joining those of fewer than MIN_STRATUM members with the next; of
    more members, if there are more than `most` otherwise."""
    count = Counter(labels)
    for least in itertools.count(MIN_STRATUM):
        number, members, total = {}, 0, 0
        for label in sorted(count):
            number[label] = total
            members += count[label]
            if members >= least:
                total, members = total + 1, 0
        if total <= most:
            break
    # A remainder that is too small joins the last full stratum.
    last = max(total - 1, 0)
    return [min(number[label], last) for label in labels]


def check_disjoint(split: Mapping[str, Iterable[str]], unit: str = "groups") -> str:
    """Check that no group is in two parts, and return the outcome as a sentence for the log and the config.
    split: {part: group names, repeated or not}. Raises DataError naming the shared groups."""
    parts = {part: set(names) for part, names in split.items()}
    for first, second in itertools.combinations(parts, 2):
        if shared := sorted(parts[first] & parts[second]):
            leak = f"{len(shared)} {unit} are in both {first} and {second}: {some(shared)}"
            raise DataError(f"Leakage: {leak}\n{MEMORY} Split by {unit}, each in one part only.")
    counts = [f"{len(names)} {part}" for part, names in parts.items()]
    listed = " and ".join(filter(None, [", ".join(counts[:-1]), *counts[-1:]]))
    return f"{listed} {unit}, none shared"


def read_split(path: str | Path) -> Split:
    """The lists of a split.json, sorted; test may be missing or empty. Raises DataError for anything else."""
    remedy = 'Expected {"train": [names], "val": [names], "test": [names]}.'
    content = read_json(path, dict, DataError, f"\n{remedy}")
    split = {part: content.get(part, []) for part in PARTS}
    others = some([key for key, names in content.items() if key not in PARTS and isinstance(names, list)])
    for part, names in split.items():
        wrong = ""
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            wrong = f"is not a list of names in quotes (found: {json.dumps(names)[:80]})"
        elif len(set(names)) < len(names):
            wrong = f"lists {Counter(names).most_common(1)[0][0]!r} more than once"
        elif not names and (part != "test" or (others and part not in content)):
            wrong = f"is missing or empty{f' (found: {others})' if others else ''}"
        if wrong:
            raise DataError(f'{path}: "{part}" {wrong}\n{remedy}')
    check_disjoint(split)
    return {part: sorted(names) for part, names in split.items()}
