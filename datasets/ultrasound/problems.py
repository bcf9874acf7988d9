"""What is wrong with single rows and files: collected by kind, and refused unless the user excludes it. What
config.json says about the data that are left.
"""

import argparse
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from datasets.ultrasound.flags import PROBLEMS
from utils.run.errors import DataError, counted, some

NOTICED = {
    "missing_ages": "rows left out for an unknown age (--missing_values)",
    "subjects_outside_ages": "subjects left out for their age (--min_age, --max_age)",
    "subjects_in_no_part": "subjects are in no part of the split file",
    "repeated_within_subject": "images repeat another one of the same subject",
    "images_with_colour": "images show colour, which is not read (luminance is); --colour keeps it",
}


class AgeProblems:
    """Entries (reason, where) by kind, one of PROBLEMS, and the advice that mends a kind."""

    def __init__(self, exclude: Collection[str] = (), may_exclude_most: bool = True):
        self.found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.advice = {"unknown_names": "--id_pattern says where the id stands"}
        self.exclude, self.may_exclude_most = set(exclude), may_exclude_most  # kinds left out instead
        self.images = 0  # that are there

    def add(self, kind: str, where: str, reason: str = "") -> None:
        self.found[kind].append((reason, where))

    def take(self, others: "AgeProblems", table: str) -> None:
        """Those of a table too, which the first of each kind names."""
        for kind, ((reason, where), *more) in others.found.items():
            self.found[kind] += [(reason, f"{table}, {where}"), *more]
        self.advice |= others.advice

    def refuse(self, images: pd.DataFrame) -> None:
        """One DataError for all kinds that are not excluded: their number and first entries.

        images: those left without what is wrong; --exclude is only proposed where they are of several people,
        and never removes most of the images without being asked twice.
        """
        lines, kinds = [], [kind for kind in PROBLEMS if kind in self.found and kind not in self.exclude]
        for kind in kinds:
            line = f"{counted(len(self.found[kind]), PROBLEMS[kind])}: {describe(self.found[kind])}"
            lines.append(line + (f" ({self.advice[kind]})" if self.advice.get(kind) else ""))
        if images.subject.nunique() > 2:
            typed = [kind for kind in PROBLEMS if kind in kinds or kind in self.exclude]
            lines.append(f"Correct the data, or leave them out with --exclude {' '.join(typed)}")
        if kinds:
            raise DataError("\n".join(lines))
        found = [counted(len(self.found[kind]), PROBLEMS[kind]) for kind in PROBLEMS if kind in self.found]
        if found and 0 < 2 * len(images) < self.images and not self.may_exclude_most:
            raise DataError(
                f"--exclude leaves {len(images)} of {self.images} images: {'; '.join(found)}\n"
                "If that is meant, pass --exclude_more_than_half as well."
            )

    def report(self) -> dict[str, dict[str, Any]]:
        """{kind: {"count", "first": a sentence}}."""
        return {k: {"count": len(v), "first": describe(v)} for k, v in self.found.items()}


def describe(entries: Sequence[tuple[str, str]]) -> str:
    """(reason, where) of each: a reason stands once, with the first places it is found in."""
    places = defaultdict(list)
    for reason, where in entries:
        places[reason].append(where)
    shown = 10 if len(places) == 1 and len(places.get("", [""])[0]) in range(1, 40) else 3
    texts = [some(found, shown, "; ") + (f": {reason}" if reason else "") for reason, found in places.items()]
    return some(texts, 5, "; ")


def describe_flags(args: argparse.Namespace) -> dict[str, Any]:
    """What config.json says of the flags under names of its own."""
    return {
        "target_unit": args.target_unit,
        "split_method": "by_group" if args.split_by == "group" else "by_subject_id",
        "random_seed": args.seed,
        "test_size": args.test_size,
        "val_size": args.val_size,
        "colour": args.colour,
    }


def count_images(
    images: pd.DataFrame, parts: Mapping[str, pd.DataFrame], decoded: np.ndarray, problems: AgeProblems,
    args: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """What is reported of the images that are left, and of the parts that they are in."""
    counts = {
        "images": len(images),
        "images_used": sum(map(len, parts.values())),
        "subjects_in_no_part": images.subject.nunique() - len({s for p in parts.values() for s in p.subject}),
        "images_of_more_than_8_bits": int(images.deep.sum()),
        "images_cut": int(images.cut.sum()),
        "images_with_colour": int(decoded["colour_lost"][images.index].sum()),
        "repeated_within_subject": int(images.duplicated(["subject", "hash"]).sum()),
        "left_out": problems.report(),
    }
    groups = images.groupby("group").subject.nunique().to_dict()
    return counts | ({"groups": groups} if args.group_column else {})
