"""What config.json and the log say about the age data."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from datasets.ultrasound.flags import PROBLEMS
from datasets.ultrasound.pixels import UltrasoundAgeDataset
from datasets.ultrasound.problems import AgeProblems
from utils.run.errors import counted

NOTICED = {
    "missing_ages": "rows left out for an unknown age (--missing_values)",
    "subjects_outside_ages": "subjects left out for their age (--min_age, --max_age)",
    "subjects_in_no_part": "subjects are in no part of the split file",
    "repeated_within_subject": "images repeat another one of the same subject",
    "images_with_colour": "images show colour, which is not read (luminance is); --colour keeps it",
}


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
        "subjects_in_no_part": images.subject.nunique()
        - sum(part.subject.nunique() for part in parts.values()),
        "images_of_more_than_8_bits": int(images.deep.sum()),
        "images_cut": int(images.cut.sum()),
        "images_with_colour": int(decoded["colour_lost"][images.index].sum()),
        "repeated_within_subject": int(images.duplicated(["subject", "hash"]).sum()),
        "left_out": problems.report(),
    }
    groups = images.groupby("group").subject.nunique().to_dict()
    return counts | ({"groups": groups} if args.group_column else {})


def describe_parts(
    sets: Mapping[str, UltrasoundAgeDataset], unit: str, intensity_range: Sequence[float],
    report: Mapping[str, Any],
) -> list[str]:  # fmt: skip
    """Counts per part, what was left out and what was noticed, a line each."""
    lines = [
        f"{name}: {counted(len(part.subjects), 'subjects')}, {counted(len(part), 'images')}, "
        f"age {part.ages.mean():.1f} +- {part.ages.std():.1f} "
        f"({part.ages.min():.1f} to {part.ages.max():.1f}) {unit}"
        for name, part in sets.items()
    ]
    for kind, found in report["left_out"].items():
        lines.append(f"left out: {counted(found['count'], PROBLEMS[kind])}: {found['first']}")
    lines += [f"{report[key]} {text}" for key, text in NOTICED.items() if report[key]]
    low, high = intensity_range
    if deep := report["images_of_more_than_8_bits"]:
        lines.append(
            f"{deep} of {report['images']} images have over 8 bits: {low:g} is black and {high:g} "
            f"white in all of these (--intensity_range), {report['images_cut']} hold values beyond"
        )
    return lines + report["notes"]
