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
B-mode images are grey: they are read as luminance, the grey value itself where the three channels are equal,
unless --colour keeps the three channels.
"""

import argparse
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import Dataset

from datasets.cache import fingerprint, open_cache
from datasets.images import has_more_than_8_bits, read_grey, read_grey_limits, read_image
from datasets.samples import ensure_sample
from datasets.splits import Choose, check_disjoint, describe_fold, fold_groups, read_split, split_groups
from datasets.ultrasound.files import Source, find_sources
from datasets.ultrasound.flags import PROBLEMS, SAMPLE
from datasets.ultrasound.records import Records, collect_records, limit_ages, refuse_problems
from datasets.ultrasound.table import list_some
from utils.run.errors import CommandError, DataError
from utils.run.log import LOG

# Where the scanner prints, as fractions of height and width: top, bottom, left, right. In the 504x480
# originals the text stands in rows 418 to 434 and columns 0 to 148, the ruler's ticks in rows 473 to 480.
TEXT_BANDS = ((0.855, 0.92, 0.0, 0.32), (0.98, 1.0, 0.0, 1.0))


class UltrasoundAgeDataset(Dataset):
    """One part of a split. Samples are images; `__getitems__` gives a whole batch as tensors.

    images (B, 3, H, W) uint8, a grey channel three times without copying; ages (B,) float32 in the table's
    unit; subject_ids (B,) int64, positions in `subjects`; indices (B,) int64, the samples asked for.
    Attributes per sample: files (names), ages, subject_ids, sites ("" without --group_column); and
    subjects, the names the ids stand for.
    """

    def __init__(self, pixels: np.ndarray, images: pd.DataFrame, mask_text: bool = False) -> None:
        """pixels: (all images, 1 or 3, H + 1, W) uint8 as `read_sample` gives them. images: path, subject,
        age and group of this part; the index is the row in pixels."""
        self.pixels, self.mask_text = pixels, mask_text
        self.rows = images.index.to_numpy()
        self.files = [path.name for path in images.path]
        self.subjects = sorted(set(images.subject))
        self.subject_ids = np.searchsorted(self.subjects, images.subject.tolist())
        self.ages = images.age.to_numpy(np.float32)
        self.sites = images.group.tolist()

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


def blank_text(images: torch.Tensor) -> torch.Tensor:
    """Set the burnt-in text and the ruler of (..., H, W) images to black, in place; returns the images."""
    height, width = images.shape[-2:]
    for top, bottom, left, right in TEXT_BANDS:
        rows = slice(int(top * height), int(np.ceil(bottom * height)))
        images[..., rows, int(left * width) : int(np.ceil(right * width))] = 0
    return images


def read_sample(
    path: str | Path,
    image_size: Sequence[int],
    colour: bool = False,
    intensity_range: Sequence[float] | None = None,
) -> np.ndarray:
    """One image as the data set stores it, squashed to (H, W): uint8 (1, H + 1, W), or 3 channels of colour.

    Bilinear with antialiasing. The last row is no part of the image: its first value says whether the file
    shows colour that is lost here. Raises DataError.
    """
    height, width = image_size
    lost = False
    if colour:
        pixels = read_image(path, "RGB", intensity_range)
    else:
        pixels, lost = read_grey(path, intensity_range)
    if pixels.shape[:2] != (height, width):
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    sample = np.zeros((3 if colour else 1, height + 1, width), np.uint8)
    sample[:, :-1] = np.moveaxis(np.atleast_3d(pixels), 2, 0)
    sample[:, -1, 0] = lost
    return sample


@dataclass
class AgeDatasets:
    """The parts of a split and what was decided on the way."""

    sets: dict[str, UltrasoundAgeDataset]  # train, val and, where it is not empty, test
    split: dict[str, list[str]]  # subjects by part
    split_source: str
    leakage_check: str  # the outcome of `check_leakage`
    fingerprint: str  # of names, ages and file sizes: no path, no time
    report: dict[str, Any]  # counts, and left_out {kind: {"count", "first"}}
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
            lines.append(f"left out: {found['count']} {PROBLEMS[kind]}: {list_some(found['first'], 3)}")
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
        images = _drop_unreadable(images, records)
    split, split_source = ({}, "") if choose else _split(sources, images, args)
    train = set(split.get("train", ()))
    pixels, read, depth = _decode(images, train, records, args, cache_dir or args.cache_dir)
    images["hash"] = [hashlib.sha256(row).hexdigest() for row in pixels]
    owners = images.groupby("hash").subject.transform("nunique")
    copies = images[owners > 1].groupby("hash", sort=False).path
    records.problems["duplicate_images"] = [("", " = ".join(p.name for p in same[:4])) for _, same in copies]
    refuse_problems(records, exclude)
    images = images[owners == 1]
    if not choose:
        _refuse_half(records, len(images), exclude, args)
    hashes = {
        subject: [fingerprint([sorted(map(float, set(mine.age))), sorted(mine.hash)]), *sorted(mine.hash)]
        for subject, mine in images.groupby("subject")
    }
    if choose:
        split, split_source = choose(hashes), "chosen"
    elif len(images) < len(pixels):
        split, split_source = _split(sources, images, args)
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
            kind: {
                "count": len(found),
                "first": [f"{where}: {reason}".removesuffix(": ") for reason, where in found[:10]],
            }
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


def check_leakage(parts: Mapping[str, UltrasoundAgeDataset]) -> str:
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


def _produce(paths: Sequence[Path], options: dict[str, Any], k: int) -> np.ndarray:
    return read_sample(paths[k], **options)[None]  # (1, C, H + 1, W)


def _produce_limits(paths: Sequence[Path], k: int) -> np.ndarray:
    return np.array(read_grey_limits(paths[k]), "<u2").view(np.uint8)[None]  # (1, 4)


def _decode(
    images: pd.DataFrame,
    train: Collection[str],
    records: Records,
    args: argparse.Namespace,
    cache_dir: Path | None,
) -> tuple[np.ndarray, dict[str, Any], dict[str, int]]:
    """All images, (N, C, H + 1, W) uint8, from the cache; how they were read; counts for the report.

    The intensity range of images of more than 8 bits is the bit depth that those of `train` need: one for
    all, so that brightness stays comparable. If an image can not be read, all are tried and listed.
    """
    cache = {"cache_dir": cache_dir, "limit_gb": args.cache_limit_gb, "log": LOG.info}
    deep = images[[has_more_than_8_bits(path) for path in images.path]]
    paths, chosen, cut = images.path.tolist(), args.intensity_range, 0
    try:
        if len(deep):
            produce = partial(_produce_limits, deep.path.tolist())
            limits = open_cache(
                "ultrasound_limits", {}, deep.path.tolist(), [1] * len(deep), (4,), produce, **cache
            )
            lows, highs = np.ascontiguousarray(limits).view("<u2").T.astype(int)  # (N,) each
            if chosen is None:
                mine = highs[deep.subject.isin(train)]
                greatest = int((mine if len(mine) else highs).max())
                chosen = [0, 2 ** max(8, greatest.bit_length()) - 1]
            cut = int(((lows < chosen[0]) | (highs > chosen[1])).sum())
        chosen = chosen or [0, 255]
        options = {
            "image_size": list(args.image_size),
            "colour": args.colour,
            "intensity_range": list(chosen) if len(deep) else None,
        }
        shape = (3 if args.colour else 1, args.image_size[0] + 1, args.image_size[1])
        produce = partial(_produce, paths, options)
        pixels = open_cache("ultrasound", options, paths, [1] * len(paths), shape, produce, **cache)
    except DataError:
        _drop_unreadable(images, records)
        refuse_problems(records)
        raise
    read = {"intensity_range": list(chosen), "colour": args.colour}
    return pixels, read, {"images_of_more_than_8_bits": len(deep), "images_cut": cut}


def _drop_unreadable(images: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Decode every image once; those that can not be read become problems and are left out."""
    with ProcessPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        reasons = list(pool.map(_why_unreadable, images.path, chunksize=16))
    records.problems["unreadable_images"] = [("", reason) for reason in reasons if reason]
    return images[[reason is None for reason in reasons]].reset_index(drop=True)


def _why_unreadable(path: Path) -> str | None:
    try:
        read_image(path, mode="L")
    except DataError as error:
        return str(error).splitlines()[0]
    return None


def _split(
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
