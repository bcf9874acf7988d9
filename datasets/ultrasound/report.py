"""The age data set as a whole: its parts, and what config.json and the log say about them."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from datasets.ultrasound.flags import PROBLEMS
from datasets.ultrasound.pixels import UltrasoundAgeDataset
from datasets.ultrasound.problems import Problems

if TYPE_CHECKING:
    from datasets.ultrasound.dataset import Source

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
    images: pd.DataFrame, parts: Mapping[str, pd.DataFrame], decoded: np.ndarray, problems: Problems,
    args: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """What is reported of the images that are left, and of the parts that they are in."""
    counts = {
        "images": len(images),
        "images_used": sum(map(len, parts.values())),
        "subjects_in_no_part": images.subject.nunique()
        - sum(part.subject.nunique() for part in parts.values()),
        "images_with_colour": int(decoded["colour_lost"][images.index].sum()),
        "repeated_within_subject": int(images.duplicated(["subject", "hash"]).sum()),
        "left_out": problems.report(),
    }
    groups = images.groupby("group").subject.nunique().to_dict()
    return counts | ({"groups": groups} if args.group_column else {})


@dataclass
class AgeDatasets:
    """The parts of a split and what was decided on the way."""

    sets: dict[str, UltrasoundAgeDataset]  # train, val and, where it is not empty, test
    split: dict[str, list[str]]  # subjects by part
    split_source: str
    leakage_check: str  # the outcome of `check_leakage`
    fingerprint: str  # of names, ages and file sizes: no path, no time
    hashes: dict[str, list[str]]  # by subject: of age and images, then of each image as it was read
    sources: "list[Source]"
    options: dict[str, Any]  # flags and how pixels were read, as config.json has them
    report: dict[str, Any]  # counts, notes, and left_out {kind: {"count", "first": a sentence}}
    recorded: dict[str, np.ndarray] | None = None  # a run's `references` where its own data is not read

    @property
    def unit(self) -> str:
        """What the ages are counted in."""
        return self.options["target_unit"]

    @property
    def train(self) -> UltrasoundAgeDataset:
        return self.sets["train"]

    @property
    def val(self) -> UltrasoundAgeDataset:
        return self.sets["val"]

    @property
    def intensity_range(self) -> list[float]:
        """The grey values that are black and white in images of more than 8 bits."""
        return self.options["intensity_range"]

    def parts(self) -> dict[str, UltrasoundAgeDataset]:
        """The parts that exist, by name."""
        return self.sets

    def references(self) -> dict[str, np.ndarray]:
        """train_labels: the ages that mean and median of the train part are of."""
        if self.recorded is None:
            self.recorded = {"train_labels": self.train.ages}
        return self.recorded

    @property
    def synthetic(self) -> bool:
        """Whether the folder of the table, or the one above it, says that it was generated."""
        folder = self.sources[0].home
        return any((place / "SYNTHETIC.json").is_file() for place in (folder, folder.parent))

    def describe(self) -> dict[str, Any]:
        """The dataset section of config.json."""
        samples = {f"{name}_samples": len(part) for name, part in self.sets.items()}
        subjects = {f"{name}_subjects": len(part.subjects) for name, part in self.sets.items()}
        every = np.concatenate([part.ages for part in self.sets.values()])
        return {
            "image_dir": [str(source.images) for source in self.sources],
            "excel_path": sorted({str(source.table) for source in self.sources if source.table}),
            "total_samples": sum(samples.values()),
            **samples,
            "total_subjects": sum(subjects.values()),
            **subjects,
            "split_source": self.split_source,
            "data_leakage_prevention": self.leakage_check,
            "synthetic": self.synthetic,
            **self.options,
            "target_range": [float(every.min()), float(every.max())],
            "report": self.report,
            "fingerprint": self.fingerprint,
        }

    def log_lines(self) -> list[str]:
        """Counts per part, what was left out and what was noticed, a line each."""
        lines = [
            f"{name}: {len(part.subjects)} subjects, {len(part)} images, age {part.ages.mean():.1f} +- "
            f"{part.ages.std():.1f} ({part.ages.min():.1f} to {part.ages.max():.1f}) {self.unit}"
            for name, part in self.sets.items()
        ]
        for kind, found in self.report["left_out"].items():
            lines.append(f"left out: {found['count']} {PROBLEMS[kind]}: {found['first']}")
        lines += [f"{self.report[key]} {text}" for key, text in NOTICED.items() if self.report[key]]
        low, high = self.intensity_range
        if deep := self.report["images_of_more_than_8_bits"]:
            lines.append(
                f"{deep} of {self.report['images']} images have over 8 bits: {low:g} is black and {high:g} "
                f"white in all of these (--intensity_range), {self.report['images_cut']} hold values beyond"
            )
        return lines + self.report["notes"]
