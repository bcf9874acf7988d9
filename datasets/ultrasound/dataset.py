"""Muscle ultrasound images and the age of the person they show.

The published layout (Marzola et al. 2021, doi 10.17632/3jykz7wz8d.1), which is read as it is:

    TA/                              one folder per muscle: TA, BB, GM
        characteristics.xlsx         sheet Blad1: id, age, length, weight, sex, both cohorts side by side
        split.json                   optional: {"train": [ids], "val": [ids], "test": [ids]}; wins
        Healthy/Images/anon_ID_k.png image k of subject ID
        Pathological/Images/anon_ID_k.png

    data = load_age_datasets(".../TA/Healthy/Images", ".../TA/characteristics.xlsx", image_size=(224, 224))
    batch = data.train.__getitems__([0, 1, 2])     # images (3, 3, 224, 224) uint8, ages (3,), ...

Any folder of images with a plain .xlsx or .csv table works as well (id_column, age_column, id_pattern).
B-mode images are grey: they are read as luminance, the grey value itself where the three channels are equal.
"""

import argparse
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from datasets.cache import fingerprint, open_cache
from datasets.images import read_image
from datasets.samples import ensure_sample
from datasets.splits import PARTS, check_disjoint, read_split, split_groups
from datasets.ultrasound.files import Source, find_sources
from datasets.ultrasound.flags import ID_PATTERN, PROBLEMS, SAMPLE
from datasets.ultrasound.records import (
    Records,
    collect_records,
    drop_unreadable,
    limit_ages,
    list_some,
    refuse_problems,
    shared_images,
)
from utils.run.errors import CommandError, DataError
from utils.run.log import LOG

# Where the scanner prints, as fractions of height and width: top, bottom, left, right. In the 504x480
# originals the text stands in rows 418 to 434 and columns 0 to 148, the ruler's ticks in rows 473 to 480.
TEXT_BANDS = ((0.855, 0.92, 0.0, 0.32), (0.98, 1.0, 0.0, 1.0))


class UltrasoundAgeDataset(Dataset):
    """One part of a split. Samples are images; `__getitems__` gives a whole batch as tensors.

    images (B, 3, H, W) uint8, the grey channel three times without copying; ages (B,) float32 in the table's
    unit; subject_ids (B,) int64, positions in `subjects`; indices (B,) int64, the samples asked for.
    Attributes per sample: files (names), ages, subject_ids; and subjects, the names the ids stand for.
    """

    def __init__(
        self, pixels: np.ndarray, rows: Sequence[int], records: Records, mask_text: bool = False
    ) -> None:
        self.pixels = pixels  # (all images, 1, H, W) uint8
        self.rows = np.asarray(rows, dtype=np.int64)  # the images of this part
        self.files = [records.paths[row].name for row in self.rows]
        names = [records.subjects[row] for row in self.rows]
        self.subjects = sorted(set(names))
        number = {name: k for k, name in enumerate(self.subjects)}
        self.subject_ids = np.array([number[name] for name in names], dtype=np.int64)
        self.ages = np.array([records.ages[row] for row in self.rows], dtype=np.float32)
        self.mask_text = mask_text

    @property
    def frames(self) -> np.ndarray:
        """(N,) number of the picture a sample is in: every image is its own."""
        return np.arange(len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        indices = np.asarray(indices, dtype=np.int64)
        images = torch.from_numpy(np.array(self.pixels[self.rows[indices]]))  # (B, 1, H, W)
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


def read_grey(path: str | Path, image_size: Sequence[int]) -> np.ndarray:
    """One image as the data set stores it: uint8 (1, H, W) luminance, squashed to (H, W).

    Bilinear with antialiasing. Raises DataError.
    """
    height, width = image_size
    grey = read_image(path, mode="L")
    if grey.shape != (height, width):
        grey = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR))
    return grey[None]


@dataclass
class AgeDatasets:
    """The parts of a split and what was decided on the way. test is None when its part is empty."""

    train: UltrasoundAgeDataset
    val: UltrasoundAgeDataset
    test: UltrasoundAgeDataset | None
    split: dict[str, list[str]]  # subjects by part
    split_source: str
    fingerprint: str  # of names, ages and file sizes: no path, no time
    report: dict[str, Any]  # counts, and left_out {kind: {"count", "first"}}
    sources: list[Source]
    options: dict[str, Any]  # unit, seed and the sizes asked for

    @property
    def unit(self) -> str:
        """What the ages are counted in."""
        return self.options["target_unit"]

    def parts(self) -> dict[str, UltrasoundAgeDataset]:
        """The parts that exist, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    @property
    def synthetic(self) -> bool:
        """Whether the folder of the table, or the one above it, says that it was generated."""
        folder = self.sources[0].table.parent
        return any((place / "SYNTHETIC.json").is_file() for place in (folder, folder.parent))

    @property
    def leakage_check(self) -> str:
        """The outcome of `check_leakage`, a DataError when there is a leak."""
        return check_leakage(self.parts())

    def describe(self) -> dict[str, Any]:
        """The dataset section of config.json."""
        parts = self.parts()
        samples = {f"{name}_samples": len(part) for name, part in parts.items()}
        subjects = {f"{name}_subjects": len(part.subjects) for name, part in parts.items()}
        every = np.concatenate([part.ages for part in parts.values()])
        return {
            "image_dir": [str(source.images) for source in self.sources],
            "excel_path": sorted({str(source.table) for source in self.sources}),
            "total_samples": sum(samples.values()),
            **samples,
            "total_subjects": sum(subjects.values()),
            **subjects,
            "split_method": "by_subject_id",
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
            some = list_some(found["first"], 3, found["count"])
            lines.append(f"left out: {found['count']} {PROBLEMS[kind]}: {some}")
        noticed = {
            "subjects_outside_ages": "subjects left out for their age (--min_age, --max_age)",
            "subjects_in_no_part": "subjects are in no part of the split file",
            "sixteen_bit_images": "16-bit images, rescaled to 8 bits",
            "repeated_within_subject": "images repeat another one of the same subject",
        }
        return lines + [f"{self.report[key]} {text}" for key, text in noticed.items() if self.report[key]]


def build_datasets(args: argparse.Namespace) -> AgeDatasets:
    """Train, val and test (None when --test_size is 0) as the flags of flags.py say."""
    image_dir, exclude = args.image_dir, set(args.exclude)
    if image_dir is None:
        variant = "" if args.sample == "standard" else f"_{args.sample}"
        folder = ensure_sample("ultrasound", SAMPLE + variant, f"small{variant}", log=LOG.info)
        image_dir = folder / "TA" / "Healthy" / "Images"
        exclude |= {"images_without_row", "rows_without_image"}  # it has a few of each, as real sets do
    return load_age_datasets(
        image_dir, args.excel_path, cohort=args.cohort, muscle=args.muscle, id_column=args.id_column,
        age_column=args.age_column, numeric_ids=args.numeric_ids, id_pattern=args.id_pattern,
        unit=args.target_unit, min_age=args.min_age, max_age=args.max_age, exclude=exclude,
        split_method=args.split_method, test_size=args.test_size, val_size=args.val_size, seed=args.seed,
        stratify_age=args.stratify_age, image_size=args.image_size, mask_text=args.mask_text,
        limit_gb=args.cache_limit_gb, log=LOG.info,
    )  # fmt: skip


def load_age_datasets(
    image_dir: str | Path,
    excel_path: str | Path | None = None,
    *,
    cohort: str = "healthy",
    muscle: Sequence[str] | None = None,
    id_column: str = "Number",
    age_column: str = "Age",
    numeric_ids: bool = False,
    id_pattern: str = ID_PATTERN,
    unit: str = "years",
    min_age: float | None = None,
    max_age: float | None = None,
    exclude: Collection[str] = (),
    split_method: str = "by_subject_id",
    test_size: float = 0.2,
    val_size: float = 0.1,
    seed: int = 42,
    stratify_age: bool = False,
    image_size: Sequence[int] = (224, 224),
    mask_text: bool = False,
    **cache: Any,
) -> AgeDatasets:
    """Read a folder of images and its table into train, val and test.

    image_dir, excel_path, cohort, muscle: see datasets/ultrasound/files.py. id_pattern: a regular
    expression with one group, searched in the file name without its ending. unit: what the ages are counted
    in. min_age, max_age: subjects outside are left out. exclude: kinds of PROBLEMS to leave out instead of
    refusing them. split_method: "by_subject_id" (a split.json beside the table wins), or a split file.
    stratify_age: every part gets the same share of every ten units of age. image_size: (height, width).
    `cache` goes to open_cache: cache_dir, limit_gb, workers, log.
    Raises CommandError for arguments and paths, DataError for what the files hold.
    """
    for kind in exclude:
        if kind not in PROBLEMS:
            raise CommandError(f"--exclude {kind}: not known; choose from {', '.join(PROBLEMS)}")
    sources = find_sources(image_dir, excel_path, cohort, muscle)
    records = collect_records(sources, id_column, age_column, numeric_ids, id_pattern, unit)
    refuse_problems(records.problems, exclude)
    if not records.paths:
        raise DataError(
            f"{image_dir}: no image has a row with an age in {sources[0].table}\n"
            "Check --image_dir, --excel_path, --cohort and --id_pattern."
        )
    outside = limit_ages(records, min_age, max_age, unit)
    if "unreadable_images" in exclude:
        records.problems["unreadable_images"] = drop_unreadable(records)
    pixels = _decode(records, image_size, **cache)
    hashes = [hashlib.sha256(pixels[row]).hexdigest() for row in range(len(pixels))]
    records.problems["duplicate_images"], shared = shared_images(records, hashes)
    refuse_problems(records.problems, exclude)
    rows = [row for row in range(len(pixels)) if row not in shared]

    age_of = {records.subjects[row]: records.ages[row] for row in rows}
    split, split_source = _split(sources, age_of, split_method, test_size, val_size, seed, stratify_age)
    parts = {}
    for name, subjects in split.items():
        members = set(subjects)
        mine = [row for row in rows if records.subjects[row] in members]
        parts[name] = UltrasoundAgeDataset(pixels, mine, records, mask_text) if mine else None
        if parts[name] is None and name != "test":
            raise DataError(
                f"The {name} part is empty: {len(age_of)} subjects, --val_size {val_size}, --test_size "
                f"{test_size}\nAdd subjects or change the sizes."
            )
    used = sum(len(part) for part in parts.values() if part is not None)
    report = {
        "rows": records.rows,
        "images_used": used,
        "subjects_outside_ages": outside,
        "subjects_in_no_part": len(set(age_of) - set().union(*split.values())),
        "sixteen_bit_images": _count_sixteen_bit(records.paths),
        "repeated_within_subject": len(hashes) - len(set(zip(records.subjects, hashes, strict=True))),
        "left_out": {
            kind: {"count": len(found), "first": list(found[:10])}
            for kind, found in records.problems.items()
            if found
        },
    }
    options = {"target_unit": unit, "random_seed": seed, "test_size": test_size, "val_size": val_size}
    print_of_data = fingerprint(
        [
            [records.subjects[k], records.ages[k], records.paths[k].name, records.paths[k].stat().st_size]
            for k in rows
        ]
    )
    return AgeDatasets(
        **parts, split=split, split_source=split_source, fingerprint=print_of_data, report=report,
        sources=sources, options=options,
    )  # fmt: skip


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


def _produce(paths: Sequence[Path], image_size: tuple[int, int], k: int) -> np.ndarray:
    return read_grey(paths[k], image_size)[None]  # (1, 1, H, W)


def _decode(records: Records, image_size: Sequence[int], **cache: Any) -> np.ndarray:
    """All images, (N, 1, H, W) uint8, from the cache. If one can not be read, all are tried and listed."""
    size = (int(image_size[0]), int(image_size[1]))
    counts, produce = [1] * len(records.paths), partial(_produce, records.paths, size)
    try:
        return open_cache("ultrasound", {"grey": True}, records.paths, counts, (1, *size), produce, **cache)
    except DataError:
        refuse_problems({"unreadable_images": drop_unreadable(records)}, ())
        raise


def _split(
    sources: Sequence[Source],
    age_of: Mapping[str, float],
    split_method: str,
    test_size: float,
    val_size: float,
    seed: int,
    stratify_age: bool,
) -> tuple[dict[str, list[str]], str]:
    """({part: subject names}, where it comes from)."""
    named = split_method != "by_subject_id"
    file = Path(split_method) if named else sources[0].table.parent / "split.json"
    if named and not file.is_file():
        raise CommandError(f"--split_method {split_method}: neither by_subject_id nor a file")
    if not file.is_file():
        decades = {name: int(age // 10) for name, age in age_of.items()} if stratify_age else None
        return split_groups(age_of, test_size, val_size, seed, decades), f"seed {seed}"
    split = read_split(file)
    check_disjoint(split, "subjects")
    split = {part: [name for name in names if name in age_of] for part, names in split.items()}
    if not any(split.values()):
        raise DataError(
            f"{file}: none of its names is a subject of the data (such as {min(age_of)!r})\n"
            "Names in a split file are the ids of the table. Remove the file to split by --seed."
        )
    return split, file.name


def _count_sixteen_bit(paths: Sequence[Path]) -> int:
    count = 0
    for path in paths:
        with Image.open(path) as image:  # the header only
            count += image.mode.startswith("I")
    return count
