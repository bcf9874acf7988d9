"""Muscle ultrasound images and the age of the person they show.

The published layout (Marzola et al. 2021, doi 10.17632/3jykz7wz8d.1), which is read as it is:

    TA/                              one folder per muscle: TA, BB, GM
        characteristics.xlsx         sheet Blad1: id, age, length, weight, sex, both cohorts side by side
        split.json                   optional: {"train": [ids], "val": [ids], "test": [ids]}; of one cohort
        Healthy/Images/anon_ID_k.png image k of subject ID
        Pathological/Images/anon_ID_k.png

    data = build_datasets(data_arguments(image_dir=".../TA/Healthy/Images", image_size=[96, 96]))
    batch = data.train.__getitems__([0, 1, 2])     # images (3, 3, 96, 96) uint8, ages (3,), ...

Any folder of images with a plain .xlsx or .csv table works as well (--id_column, --age_column, --id_pattern).
"""

import argparse
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from datasets.cache import fingerprint
from datasets.samples import ensure_sample
from datasets.splits import Choose
from datasets.ultrasound.files import Source, find_sources
from datasets.ultrasound.flags import PROBLEMS, SAMPLE
from datasets.ultrasound.pixels import blank_text, decode_images, drop_unreadable
from datasets.ultrasound.records import (
    Records,
    collect_records,
    describe,
    limit_ages,
    list_some,
    refuse_problems,
)
from datasets.ultrasound.split import check_leakage, split_subjects
from utils.run.errors import DataError
from utils.run.log import LOG

GROUPS = ("group", "sex", "bmi")  # of people, where the table says; errors are reported by them


class UltrasoundAgeDataset(Dataset):
    """One part of a split. Samples are images; `__getitems__` gives a whole batch as tensors.

    images (B, 3, H, W) uint8, a grey channel three times without copying; ages (B,) float32 in the table's
    unit; subject_ids (B,) int64, positions in `subjects`; indices (B,) int64, the samples asked for.
    Attributes per sample: files (names), ages, subject_ids, and groups, {name: the sample's} of those of
    GROUPS that the table has ("" where a row does not say); and subjects, the names the ids stand for.
    """

    def __init__(self, pixels: np.ndarray, images: pd.DataFrame, mask_text: bool = False) -> None:
        """pixels: (all images, 1 or 3, H + 1, W) uint8 as `read_sample` gives them. images: path, subject,
        age and GROUPS of this part; the index is the row in pixels."""
        self.pixels, self.mask_text = pixels, mask_text
        self.rows = images.index.to_numpy()
        self.files = [path.name for path in images.path]
        self.subjects = sorted(set(images.subject))
        self.subject_ids = np.searchsorted(self.subjects, images.subject.tolist())
        self.ages = images.age.to_numpy(np.float32)
        self.groups = {key: images[key].tolist() for key in GROUPS if key in images and images[key].any()}

    @property
    def frames(self) -> np.ndarray:
        """(N,) number of the picture a sample is in: every image is its own."""
        return np.arange(len(self.rows))

    def group_names(self) -> list[str]:
        """The subjects of the images."""
        return list(self.subjects)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        indices = np.asarray(indices, dtype=np.int64)
        pixels = self.pixels[self.rows[indices]][:, :, :-1]
        images = torch.from_numpy(np.ascontiguousarray(pixels))  # (B, 1, H, W), with --colour (B, 3, H, W)
        if self.mask_text:
            images = blank_text(images)
        return {
            "images": images.expand(-1, 3, -1, -1),  # (B, 3, H, W)
            "ages": torch.from_numpy(self.ages[indices]),
            "subject_ids": torch.from_numpy(self.subject_ids[indices]),
            "indices": torch.from_numpy(indices),
        }


@dataclass
class AgeDatasets:
    """The parts of a split and what was decided on the way."""

    sets: dict[str, UltrasoundAgeDataset]  # train, val and, where it is not empty, test
    split: dict[str, list[str]]  # subjects by part
    split_source: str
    leakage_check: str  # the outcome of `check_leakage`
    fingerprint: str  # of names, ages and file sizes: no path, no time
    report: dict[str, Any]  # counts, and left_out {kind: {"count", "first": a sentence}}
    sources: list[Source]
    options: dict[str, Any]  # unit, seed, the sizes asked for and how pixels were read
    hashes: dict[str, list[str]]  # by subject: of age and images, then of each image as it was read
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
    def test(self) -> UltrasoundAgeDataset | None:
        """None where its part is empty."""
        return self.sets.get("test")

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
        parts = self.parts()
        samples = {f"{name}_samples": len(part) for name, part in parts.items()}
        subjects = {f"{name}_subjects": len(part.subjects) for name, part in parts.items()}
        every = np.concatenate([part.ages for part in parts.values()])
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
        lines = []
        for name, part in self.parts().items():
            ages = part.ages
            lines.append(
                f"{name}: {len(part.subjects)} subjects, {len(part)} images, age {ages.mean():.1f} +- "
                f"{ages.std():.1f} ({ages.min():.1f} to {ages.max():.1f}) {self.unit}"
            )
        for kind, found in self.report["left_out"].items():
            lines.append(f"left out: {found['count']} {PROBLEMS[kind]}: {found['first']}")
        noticed = {
            "missing_ages": "rows left out for an unknown age (--missing_values)",
            "subjects_outside_ages": "subjects left out for their age (--min_age, --max_age)",
            "subjects_in_no_part": "subjects are in no part of the split file",
            "repeated_within_subject": "images repeat another one of the same subject",
            "images_with_colour": "images show colour, which is not read (luminance is); --colour keeps it",
        }
        lines += [f"{self.report[key]} {text}" for key, text in noticed.items() if self.report[key]]
        low, high = self.intensity_range
        if deep := self.report["images_of_more_than_8_bits"]:
            lines.append(
                f"{deep} of {self.report['images']} images have over 8 bits: {low:g} is black and {high:g} "
                f"white in all of these (--intensity_range), {self.report['images_cut']} hold values beyond"
            )
        return lines + self.report["notes"]


def build_datasets(
    args: argparse.Namespace, cache_dir: Path | None = None, choose: Choose | None = None
) -> AgeDatasets:
    """Train, val and test (none when --test_size is 0) as the flags of flags.py say, or the parts that
    `choose` makes of the subjects.

    Raises CommandError for flags and paths, DataError for what the files hold.
    """
    image_dir, exclude = args.image_dir, set(args.exclude)
    if image_dir is None:
        variant = "" if args.sample == "standard" else f"_{args.sample}"
        folder = ensure_sample("ultrasound", SAMPLE + variant, f"small{variant}", log=LOG.info)
        image_dir = folder / "TA" / "Healthy" / "Images"
        exclude |= {"images_without_row", "rows_without_image"}  # it has a few of each, as real sets do
    sources = find_sources(image_dir, args)
    records = collect_records(sources, args)
    images = records.images
    if images.empty or not args.check_data:  # --check_data goes on, to list what is wrong with pixels as well
        refuse_problems(records, exclude)
    if images.empty:
        raise DataError(
            f"{image_dir}: no image has a row with an age in {sources[0].table or 'its header'}\n"
            "Check --image_dir, --excel_path, --cohort and --id_pattern."
        )
    if not choose:
        _refuse_half(records, len(images), exclude, args)
    inside = limit_ages(images, args)
    outside = images.subject.nunique() - inside.subject.nunique()
    images = inside.reset_index(drop=True)
    if "unreadable_images" in exclude:
        images = drop_unreadable(images, records)
    split, split_source = ({}, "") if choose else split_subjects(sources, images, args)
    train = set(split.get("train", ()))
    pixels, read, depth = decode_images(images, train, records, args, cache_dir or args.cache_dir)
    images["hash"] = [hashlib.sha256(row).hexdigest() for row in pixels]
    owners = images.groupby("hash").subject.transform("nunique")
    names = images.path.map(lambda path: path.name)
    copies = names[owners > 1].groupby(images.hash, sort=False)
    records.problems["duplicate_images"] = [("", list_some(same.tolist(), 4, " = ")) for _, same in copies]
    plain = [pixels[k, :, :-1].min() == pixels[k, :, :-1].max() for k in images.index]
    if any(plain):
        shown = list_some(names[plain].tolist(), 3)
        records.notes.append(f"{sum(plain)} images have one grey value all over: {shown}")
    images = records.images = images[owners == 1]
    refuse_problems(records, exclude)
    if not choose:
        _refuse_half(records, len(images), exclude, args)
    hashes = {
        subject: [fingerprint([sorted(map(float, set(mine.age))), sorted(mine.hash)]), *sorted(mine.hash)]
        for subject, mine in images.groupby("subject")
    }
    if choose:
        split, split_source = choose(hashes), "chosen"
    elif len(images) < len(pixels):
        split, split_source = split_subjects(sources, images, args)
    parts = {
        name: UltrasoundAgeDataset(pixels, images[images.subject.isin(subjects)], args.mask_text)
        for name, subjects in split.items()
        if subjects
    }
    for name in () if choose else ("train", "val"):
        if name not in parts:
            raise DataError(
                f"The {name} part is empty: {images.subject.nunique()} subjects, --val_size {args.val_size}, "
                f"--test_size {args.test_size}\nAdd subjects or change the sizes."
            )
    report = {
        "rows": records.rows,
        "images": len(images),
        "missing_ages": records.missing,
        "subjects_outside_ages": outside,
        "images_used": sum(map(len, parts.values())),
        "subjects_in_no_part": images.subject.nunique() - sum(map(len, split.values())),
        **depth,
        "images_with_colour": int(pixels[images.index, 0, -1, 0].sum()),
        "repeated_within_subject": int(images.duplicated(["subject", "hash"]).sum()),
        "left_out": {
            kind: {"count": len(found), "first": describe(found)}
            for kind, found in records.problems.items()
            if found
        },
        "notes": records.notes,
    }
    if args.group_column:
        report["groups"] = images.groupby("group").subject.nunique().to_dict()
    options = {
        "target_unit": args.target_unit,
        "split_method": "by_group" if args.split_by == "group" else "by_subject_id",
        "random_seed": args.seed,
        "test_size": args.test_size,
        "val_size": args.val_size,
        **read,
    }
    columns = images[["path", "subject", "age"]].values
    facts = [[subject, age, path.name, path.stat().st_size] for path, subject, age in columns]
    return AgeDatasets(
        parts, split, split_source, check_leakage(parts), fingerprint(facts), report, sources, options,
        hashes,
    )  # fmt: skip


def _refuse_half(records: Records, used: int, exclude: Collection[str], args: argparse.Namespace) -> None:
    """--exclude never removes most of the images without being asked twice."""
    if exclude and 2 * used < records.found and not args.exclude_more_than_half:
        counts = [
            f"{len(records.problems[kind])} {PROBLEMS[kind]}" for kind in exclude if records.problems[kind]
        ]
        raise DataError(
            f"--exclude leaves {used} of {records.found} images: {'; '.join(counts)}\n"
            "If that is meant, pass --exclude_more_than_half as well."
        )
