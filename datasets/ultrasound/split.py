"""Which subjects train, val and test are made of, and the check that they share nobody and no image."""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.splits import check_disjoint, describe_fold, fold_groups, read_split, split_groups
from datasets.ultrasound.files import Source
from utils.run.errors import CommandError, DataError


def split_subjects(
    sources: Sequence[Source], images: pd.DataFrame, args: argparse.Namespace
) -> tuple[dict[str, list[str]], str]:
    """({part: subject names}, where it comes from)."""
    age_of = images.groupby("subject").age.mean()
    method, own = args.split_method, sources[0].home / "split.json"
    named = method not in ("auto", "by_subject_id")
    decades = {name: int(age // 10) for name, age in age_of.items()} if args.stratify_age else None
    file = Path(method) if named else own
    if named and not file.is_file():
        raise CommandError(f"--split_method {file}: neither auto, by_subject_id nor a file")
    if args.split_by == "group" and not named:
        how = describe_fold(args.fold, args.seed) if args.fold else f"seed {args.seed}"
        return _split_groups(images, args), f"{how}, by {args.group_column}"
    if args.fold:
        return fold_groups(age_of.index, args.fold, args.seed, decades), describe_fold(args.fold, args.seed)
    # The folder's own names one cohort's ids; those of several cohorts or muscles are names of their own.
    fits = named or not any(source.prefix for source in sources)
    if method == "by_subject_id" or not file.is_file() or not fits:
        split = split_groups(age_of.index, args.test_size, args.val_size, args.seed, decades)
        return split, f"seed {args.seed}"
    split = read_split(file)
    check_disjoint(split, "subjects")
    split = {part: [name for name in names if name in age_of] for part, names in split.items()}
    if not any(split.values()):
        raise DataError(
            f"{file}: none of its names is a subject of the data (such as {min(age_of.index)!r})\n"
            "Names in a split file are the ids of the table. Remove the file to split by --seed."
        )
    return split, f"--split_method {method}" if named else f"{file.name} beside the table"


def _split_groups(images: pd.DataFrame, args: argparse.Namespace) -> dict[str, list[str]]:
    """Subjects by part, whole groups of --group_column in one part."""
    if not args.group_column:
        raise CommandError("--split_by group needs --group_column, the column of sites or devices")
    groups = images.groupby("subject").group.unique()
    several = groups[groups.map(len) > 1]
    if len(several):
        name, members = several.index[0], several.iloc[0]
        raise DataError(
            f"{len(several)} subjects are in more than one group, such as {name} in {' and '.join(members)}\n"
            "Whole groups can only be held out where everybody is in one: split by subject instead."
        )
    if args.fold:
        split = fold_groups(images.group, args.fold, args.seed)
    else:
        split = split_groups(images.group, args.test_size, args.val_size, args.seed)
    group_of = groups.map(lambda members: members[0])
    return {part: sorted(group_of.index[group_of.isin(names)]) for part, names in split.items()}


def check_leakage(parts: Mapping[str, Any]) -> str:
    """Check by the samples themselves that no subject and no identical image is in two parts.

    Returns the outcome in words; raises DataError naming the shared subjects or images.
    """
    outcome = check_disjoint({name: part.subjects for name, part in parts.items()}, "subjects")
    seen: dict[bytes, tuple[str, str]] = {}
    for name, part in parts.items():
        for row, file in zip(part.rows, part.files, strict=True):
            other = seen.setdefault(hashlib.sha256(part.pixels[row]).digest(), (name, file))
            if other[0] != name:
                raise DataError(
                    f"Leakage: {file} in {name} and {other[1]} in {other[0]} are the same image\n"
                    "Remove one of them, or pass --exclude duplicate_images."
                )
    return f"{outcome}, no identical images"
