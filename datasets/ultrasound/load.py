"""Muscle ultrasound images and the age of the person in each.

The published layout (Marzola et al. 2021, doi 10.17632/3jykz7wz8d.1) is read as it is:

    TA/                              one folder per muscle: TA, BB, GM
        characteristics.xlsx         sheet Blad1: id, age, length, weight, sex; both cohorts side by side
        split.json                   optional: {"train": [ids], "val": [ids], "test": [ids]} of one cohort
        Healthy/Images/anon_ID_k.png image k of subject ID
        Pathological/Images/anon_ID_k.png

    --image_dir TA/Healthy/Images                    the images of one cohort
    --image_dir TA/Healthy/Images --cohort both      also the images in TA/Pathological/Images
    --image_dir FOLDER --excel_path TABLE            a folder of images, or one with a folder per subject
    --image_dir BIDS                                 sub-01/.../*.png, participants.tsv beside the folders

Both cohorts number their patients from 1. With --cohort both, a subject is therefore called "healthy/12", and
an id is looked up in the rows of its own cohort only. DICOM files need no table: the subject and the age are
in their headers (PatientID, PatientAge).

    data = build_datasets(train_mae.parse_args(["--image_dir", ".../TA/Healthy/Images"]))
    batch = data.train.__getitems__([0, 1, 2])     # images (3, 1, 224, 224) uint8, ages (3,), ...

`build_datasets` calls these steps in this order, which is also a good order to read the files in:

    find_sources                  here        find the folders of images and the table of each
    find_sheet                    sheets.py   read a table file: the cells below its column names
    read_rows                     table.py    read the ids and ages in its rows (cells.py: a single cell,
                                              doubts.py: what may be wrong with all of them)
    match_images                  files.py    find the image files and the row of each
    split_subjects                here        assign the subjects to train, val and test
    decode_images, judge_pixels   dataset.py  decode the images into the cache, and check their pixels

augmentation.py works on batches, flags.py holds the flags, problems.py collects all problems into one error.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from datasets import splits
from datasets.cache import fingerprint
from datasets.samples import ensure_sample
from datasets.ultrasound import flags
from datasets.ultrasound.dataset import UltrasoundAgeDataset, decode_images, judge_pixels
from datasets.ultrasound.files import match_images, mostly_dicom, read_headers
from datasets.ultrasound.flags import COHORTS, TABLE_NAME, similar_path
from datasets.ultrasound.problems import AgeProblems
from datasets.ultrasound.sheets import find_sheet
from datasets.ultrasound.table import read_rows
from utils.metrics.regression import subject_means
from utils.run.errors import CommandError, DataError, counted, some
from utils.run.log import LOG

NOTICED = {  # {count in the report: what the log says about it}
    "missing_ages": "rows left out for an unknown age (--missing_values)",
    "subjects_outside_ages": "subjects left out for their age (--min_age, --max_age)",
    "subjects_in_no_part": "subjects are in no part of the split file",
    "repeated_within_subject": "images are copies of another one of the same subject",
    "images_with_colour": "images show colour, but only luminance is read; --colour keeps the colour",
}


class Source(NamedTuple):
    """A folder of images and the table that describes them."""

    images: Path
    table: Path | None  # None: the headers of the DICOM files
    cohort: str  # whose columns of the table are read
    prefix: str  # of subject names, such as "healthy/"; "" if there is only one source

    @property
    def home(self) -> Path:
        """The folder that may hold split.json."""
        return self.table.parent if self.table else self.images


@dataclass
class AgeDatasets(splits.Parts):
    """The parts of a split, each an UltrasoundAgeDataset, and how they were made."""

    fingerprint: str  # of subjects, ages, file names and sizes, but not of folders or times
    sources: list[Source]
    args: argparse.Namespace
    intensity_range: list[float]  # the grey values that become black and white, in images of over 8 bits
    report: dict[str, Any]  # counts, notes, and left_out {kind: {"count", "first": a sentence}}

    @property
    def unit(self) -> str:
        return self.args.target_unit

    @property
    def weight(self) -> float:
        """How many train subjects with equally many images weigh as much in training (Kish 1965)."""
        counts = np.bincount(self.train.subject_ids)
        return float(counts.sum() ** 2 / (counts**2).sum())

    def make_references(self) -> dict[str, np.ndarray]:
        """train_inputs and train_ages: the statistics and ages of the train images, for ridge regression.
        train_labels: the ages whose mean and median are the baselines, of the images, or of the subjects if a
        few have most of the images, whose ages would be easy to beat."""
        labels = ages = self.train.ages
        if 2 * self.weight < len(self.train.subjects):
            labels = subject_means(self.train.subject_ids, ages, ages)[1].astype(np.float32)
        return {"train_labels": labels, "train_ages": ages, "train_inputs": self.train.statistics()}

    def describe(self) -> dict[str, Any]:
        """The dataset section of config.json."""
        ages = np.concatenate([part.ages for part in self.parts.values()])
        return {
            "image_dir": [str(source.images) for source in self.sources],
            "excel_path": sorted({str(source.table) for source in self.sources if source.table}),
            **self.describe_split({name: len(part) for name, part in self.parts.items()}),
            "target_unit": self.unit,
            "random_seed": self.args.seed,
            "test_size": self.args.test_size,
            "val_size": self.args.val_size,
            "colour": self.args.colour,
            "intensity_range": self.intensity_range,
            "target_range": [float(ages.min()), float(ages.max())],
            "report": self.report,
            "fingerprint": self.fingerprint,
        }

    def log_lines(self) -> list[str]:
        """One line per part, then one for each finding: what was left out, and what looks unusual."""
        report, (low, high) = self.report, self.intensity_range
        lines = []
        for name, part in self.parts.items():
            subjects, images, ages = counted(len(part.subjects), "subjects"), len(part), part.ages
            spread = f"{ages.mean():.1f} +- {ages.std():.1f} ({ages.min():.1f} to {ages.max():.1f})"
            lines.append(f"{name}: {subjects}, {counted(images, 'images')}, age {spread} {self.unit}")
        if 2 * self.weight < len(self.train.subjects):
            what = f"a few have most of the images, which weigh as much as those of {self.weight:.1f}"
            lines.append(f"train subjects: {what}; the baselines are the subjects' mean and median age")
        for kind, found in report["left_out"].items():
            lines.append(f"left out: {counted(found['count'], flags.PROBLEMS[kind])}: {found['first']}")
        lines += [f"{report[key]} {text}" for key, text in NOTICED.items() if report[key]]
        if deep := report["images_of_more_than_8_bits"]:
            scale = f"{low:g} is black and {high:g} white in all of these (--intensity_range)"
            beyond = f"{report['images_cut']} hold values beyond this range"
            lines.append(f"{deep} of {report['images']} images have over 8 bits: {scale}, {beyond}")
        return lines + report["notes"]


def build_datasets(args: argparse.Namespace, choose: splits.Choose | None = None) -> AgeDatasets:
    """Read the data and split them into train, val and test (no test part if --test_size is 0).

    args: the flags of flags.py. choose: replaces their split (datasets/splits.py). Raises CommandError for
    wrong flags and paths, DataError for wrong contents of files."""
    image_dir = args.image_dir
    problems = AgeProblems(args.exclude, may_exclude_most=args.exclude_more_than_half or choose is not None)
    if image_dir is None:
        variant = "" if args.sample == "standard" else f"_{args.sample}"
        folder = ensure_sample("ultrasound", flags.SAMPLE + variant, f"small{variant}")
        image_dir = folder / "TA" / "Healthy" / "Images"
        problems.exclude |= {"images_without_row", "rows_without_image"}  # as in real data, it has a few
    sources = find_sources(Path(image_dir), args)
    found = read_images(sources, problems, args)
    images = select_ages(found, problems, args)
    outside = found.subject.nunique() - images.subject.nunique()
    # From here on `images.index` is an image's row in `decoded`: filtering and splitting do not change it.
    divide = (lambda images: ({}, "chosen")) if choose else partial(split_subjects, sources, args=args)
    images, problems, decoded, intensity_range, (split, split_source) = settle(images, problems, divide, args)
    hashes = {}
    for subject, own in images.groupby("subject"):
        pictures = sorted(own.hash)
        hashes[subject] = [fingerprint([sorted(set(own.age)), pictures]), *pictures]
    if choose:
        split, (low, high), median = choose(hashes), choose.dataset["target_range"], images.age.median()
        if not low <= median <= high:
            what = f"the run knew ages from {low:g} to {high:g}, the median is {median:g} here"
            LOG.warning(f"{what}: are they in {args.target_unit}?")
    parts = {part: images[images.subject.isin(names)] for part, names in split.items() if names}
    if not choose and (empty := {"train", "val"} - parts.keys()):
        people = f"{images.subject.nunique()} subjects, split {split_source}"
        remedy = "Add subjects, or change --test_size and --val_size, --fold or --split_by."
        raise DataError(f"The {max(empty)} part is empty: {people}\n{remedy}")
    # Images found under two subjects are removed by now: if no subject is shared, no image is.
    checked = splits.check_disjoint({name: part.subject for name, part in parts.items()}, "subjects")
    used = images[images.subject.isin(set().union(*split.values()))]
    report = {
        "missing_ages": problems.missing,
        "notes": problems.notes,
        "subjects_outside_ages": outside,
        "images": len(images),
        "images_used": len(used),
        "subjects_in_no_part": images.subject.nunique() - used.subject.nunique(),
        "images_of_more_than_8_bits": int(images.deep.sum()),
        "images_cut": int(images.cut.sum()),
        "images_with_colour": int(decoded["colour_lost"][images.index].sum()),
        "repeated_within_subject": int(images.duplicated(["subject", "hash"]).sum()),
        "left_out": problems.report(),
    }
    parts = {name: UltrasoundAgeDataset(decoded, part, args.mask_text) for name, part in parts.items()}
    contents = [[row.subject, row.age, row.path.name, row.path.stat().st_size] for row in images.itertuples()]
    home = sources[0].home  # a generated data set has SYNTHETIC.json here or one folder up
    return AgeDatasets(
        parts, split, split_source, f"{checked}, no identical images", hashes,
        any((place / "SYNTHETIC.json").is_file() for place in (home, home.parent)),
        fingerprint(contents), sources, args, intensity_range, report,
    )  # fmt: skip


def settle(
    images: pd.DataFrame, problems: AgeProblems, divide: Callable, args: argparse.Namespace
) -> tuple[pd.DataFrame, AgeProblems, np.ndarray, list[float], tuple[splits.Split, str]]:
    """(images left, problems, all images decoded, their grey range, the split and its source of `divide`).

    The train subjects set the range, and images left out as unreadable or alike may change the split."""
    try:
        split = divide(images)
    except DataError:
        problems.refuse(images)  # --check_data has not reported these yet; they may be the cause
        raise
    read, before, grey = images, problems, None
    for _ in range(5):
        read, decoded, limits = decode_images(read, split[0].get("train", ()), args)
        if limits == grey:
            break
        grey, problems = limits, copy.deepcopy(before)
        images = judge_pixels(read, decoded, problems)
        if len(images) == len(read):
            break
        split = divide(images)
    else:
        LOG.warning(f"the grey range {grey} is of other train subjects; --intensity_range decides it for all")
    return images, problems, decoded, grey, split


def find_sources(image_dir: Path, args: argparse.Namespace) -> list[Source]:
    """The folders of images and their tables, by the rules at the top of this file. Raises CommandError for a
    missing folder or flags that contradict each other."""
    cohort, table = args.cohort, args.excel_path
    if image_dir.is_file():
        raise CommandError(f"--image_dir {image_dir}: is a file; give the folder of the images")
    if not image_dir.is_dir():
        raise CommandError(f"--image_dir {image_dir}: no such folder{similar_path(image_dir)}")
    group = image_dir.parent.name.casefold()
    published = image_dir.name == "Images" and group in COHORTS
    if published and cohort not in ("both", group):
        raise CommandError(f"--image_dir {image_dir}: these are {group} images; --cohort is {cohort}")
    if cohort != "both":
        default, bids = image_dir.parent.parent / TABLE_NAME, image_dir / flags.BIDS_TABLE
        if not table and not default.is_file() and (bids.is_file() or mostly_dicom(image_dir)):
            default = bids if bids.is_file() else None
        return [Source(image_dir, Path(table) if table else default, cohort, "")]

    folder, sources = image_dir.parent.parent if published else image_dir, []
    for group in COHORTS:
        images = folder / group.capitalize() / "Images"
        if not images.is_dir():
            raise CommandError(f"{images}: no such folder (--cohort both)")
        sources.append(Source(images, Path(table or folder / TABLE_NAME), group, f"{group}/"))
    return sources


def read_images(sources: Sequence[Source], problems: AgeProblems, args: argparse.Namespace) -> pd.DataFrame:
    """path, subject, age, group, sex and bmi of each image that has a row."""
    found = []
    for source in sources:
        if source.table:
            table = read_rows(find_sheet(source.table, source.cohort, args), args)
        else:
            table = read_headers(source.images, args)
        problems.take(table.problems, table.where)
        found.append(match_images(source.images, source.prefix, table, problems, args))
    return pd.concat(found, ignore_index=True)


def select_ages(images: pd.DataFrame, problems: AgeProblems, args: argparse.Namespace) -> pd.DataFrame:
    """The images of subjects aged --min_age to --max_age, reindexed. Raises DataError for all `problems`."""
    if images.empty or not args.check_data:  # --check_data continues, to list the problems of pixels as well
        problems.refuse(images)
    if images.empty:
        table = args.excel_path or "its table"
        remedy = "Check --image_dir, --excel_path, --cohort and --id_pattern."
        raise DataError(f"{args.image_dir}: no image has a row with an age in {table}\n{remedy}")
    low = -np.inf if args.min_age is None else args.min_age
    high = np.inf if args.max_age is None else args.max_age
    if low > high:
        raise CommandError(f"--min_age {low:g} is above --max_age {high:g}")
    kept, ages = images[images.age.between(low, high)], images.age
    if kept.empty:
        found = f"{args.target_unit}; the images show {ages.min():g} to {ages.max():g}"
        raise DataError(f"No subject is aged {low:g} to {high:g} {found}\nChange --min_age and --max_age.")
    return kept.reset_index(drop=True)


def split_subjects(
    sources: Sequence[Source], images: pd.DataFrame, args: argparse.Namespace
) -> tuple[splits.Split, str]:
    """(the names of the subjects of each part, where the split comes from)."""
    people = images.groupby("subject").agg(age=("age", "mean"), group=("group", "first"))
    if len(people) == 1 < len(images):
        what = f"all {len(images)} images are of one subject, {people.index[0]!r}"
        raise DataError(
            f"{what}: is this its id? See --id_pattern and --id_column, or PatientID in DICOM files."
        )
    method, by_group = args.split_method, args.split_by == "group"
    named = method not in ("auto", "by_subject_id")
    file = Path(method) if named else sources[0].home / "split.json"
    if named and not file.is_file():
        raise CommandError(f"--split_method {file}: neither auto, by_subject_id nor a file")
    # The folder's split.json lists ids of one cohort, without the prefix that --cohort both adds.
    fits = method == "auto" and file.is_file() and not by_group and not any(s.prefix for s in sources)
    if args.fold or not (named or fits):
        groups, strata = people.index, (people.age // 10).astype(int).to_dict() if args.stratify_age else None
        if by_group:
            check_groups(images, args)
            groups, strata = people.group, None
        if args.fold:
            split, source = splits.fold_groups(groups, args.fold, args.seed, strata)
        else:
            split = splits.split_groups(groups, args.test_size, args.val_size, args.seed, strata)
            source = f"drawn with seed {args.seed}"
        if by_group:
            split = {part: sorted(people.index[groups.isin(names)]) for part, names in split.items()}
        return split, f"by {args.group_column if by_group else 'subject'}, {source}"
    if not named and (args.test_size, args.val_size) != (flags.TEST_SIZE, flags.VAL_SIZE):
        LOG.warning(f"--test_size, --val_size: {file} decides; --split_method by_subject_id uses them")
    split = {}
    for part, names in splits.read_split(file).items():
        split[part] = [name for name in names if name in people.index]
        if not split[part] and names:
            problem = f"none of its {part} names is a subject of the data, such as {min(people.index)!r}"
            raise DataError(f"{file}: {problem}\nUse ids of the table, or --split_method by_subject_id.")
        if lost := [name for name in names if name not in people.index]:
            what = f"{len(lost)} of {len(names)} {part} names are no subjects with an age and an image"
            LOG.warning(f"{file}: {what}: {some(lost, 3)}")
    return split, f"--split_method {method}" if named else f"{file.name} beside the table"


def check_groups(images: pd.DataFrame, args: argparse.Namespace) -> None:
    """Raise an error if whole groups of --group_column cannot be held out."""
    if not args.group_column:
        raise CommandError("--split_by group needs --group_column, the column of sites or devices")
    groups = images.groupby("subject").group.unique()
    several = groups[groups.map(len) > 1]
    if len(several):
        found = f"{len(several)} subjects are in more than one group, such as {several.index[0]}"
        raise DataError(f"{found} in {' and '.join(several.iloc[0])}\nUse --split_by subject instead.")
