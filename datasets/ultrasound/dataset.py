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
B-mode images are grey: they are read as luminance, the grey value itself where the three channels are equal.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
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
from datasets.images import read_image
from datasets.samples import ensure_sample
from datasets.splits import Choose, check_disjoint, read_split, split_groups
from datasets.ultrasound.files import Source, find_sources
from datasets.ultrasound.flags import PROBLEMS, SAMPLE, data_arguments
from datasets.ultrasound.records import collect_records, limit_ages, list_some, refuse_problems
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

    def __init__(self, pixels: np.ndarray, images: pd.DataFrame, mask_text: bool = False) -> None:
        """pixels: (all images, 1, H, W) uint8. images: path, subject and age; the index is the row in
        pixels."""
        self.pixels, self.mask_text = pixels, mask_text
        self.rows = images.index.to_numpy()
        self.files = [path.name for path in images.path]
        self.subjects = sorted(set(images.subject))
        self.subject_ids = np.searchsorted(self.subjects, images.subject.tolist())
        self.ages = images.age.to_numpy(np.float32)

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
    """The parts of a split and what was decided on the way."""

    sets: dict[str, UltrasoundAgeDataset]  # train, val and, where it is not empty, test
    split: dict[str, list[str]]  # subjects by part
    split_source: str
    leakage_check: str  # the outcome of `check_leakage`
    fingerprint: str  # of names, ages and file sizes: no path, no time
    report: dict[str, Any]  # counts, and left_out {kind: {"count", "first"}}
    sources: list[Source]
    options: dict[str, Any]  # unit, seed and the sizes asked for
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
        folder = self.sources[0].table.parent
        return any((place / "SYNTHETIC.json").is_file() for place in (folder, folder.parent))

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
    images, problems = records.images, records.problems
    refuse_problems(problems, exclude)
    if images.empty:
        raise DataError(
            f"{image_dir}: no image has a row with an age in {sources[0].table}\n"
            "Check --image_dir, --excel_path, --cohort and --id_pattern."
        )
    inside = limit_ages(images, args)
    report = {
        "rows": records.rows,
        "subjects_outside_ages": images.subject.nunique() - inside.subject.nunique(),
    }
    images = inside.reset_index(drop=True)
    if "unreadable_images" in exclude:
        reasons = why_unreadable(images.path)
        problems["unreadable_images"] = reasons.dropna().tolist()
        images = images[reasons.isna()].reset_index(drop=True)
    pixels = _decode(images.path.tolist(), args, cache_dir)
    images["hash"] = [hashlib.sha256(row).hexdigest() for row in pixels]
    owners = images.groupby("hash").subject.transform("nunique")
    copies = images[owners > 1].groupby("hash", sort=False).path
    problems["duplicate_images"] = [" = ".join(path.name for path in same[:4]) for _, same in copies]
    refuse_problems(problems, exclude)
    images = images[owners == 1]

    hashes = {
        subject: [fingerprint([float(mine.age.iloc[0]), sorted(mine.hash)]), *sorted(mine.hash)]
        for subject, mine in images.groupby("subject")
    }
    split, split_source = (choose(hashes), "chosen") if choose else _split(sources, images, args)
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
    report |= {
        "images_used": sum(map(len, parts.values())),
        "subjects_in_no_part": images.subject.nunique() - sum(map(len, split.values())),
        "sixteen_bit_images": _count_sixteen_bit(images.path),
        "repeated_within_subject": int(images.duplicated(["subject", "hash"]).sum()),
        "left_out": {k: {"count": len(found), "first": found[:10]} for k, found in problems.items() if found},
    }
    options = {
        "target_unit": args.target_unit,
        "random_seed": args.seed,
        "test_size": args.test_size,
        "val_size": args.val_size,
    }
    facts = [
        [s, age, path.name, path.stat().st_size] for path, s, age in images[["path", "subject", "age"]].values
    ]
    return AgeDatasets(
        parts, split, split_source, check_leakage(parts), fingerprint(facts), report, sources, options,
        hashes,
    )  # fmt: skip


def load_age_datasets(image_dir, excel_path, *, unit, limit_gb, log, **flags):
    """What the scripts call until they call build_datasets."""
    flags |= {"image_dir": image_dir, "excel_path": excel_path, "target_unit": unit}
    args = data_arguments()
    return build_datasets(argparse.Namespace(**vars(args) | flags | {"cache_limit_gb": limit_gb}))


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


def _produce(paths: Sequence[Path], image_size: Sequence[int], k: int) -> np.ndarray:
    return read_grey(paths[k], image_size)[None]  # (1, 1, H, W)


def _decode(paths: Sequence[Path], args: argparse.Namespace, cache_dir: Path | None) -> np.ndarray:
    """All images, (N, 1, H, W) uint8, from the cache. If one can not be read, all are tried and listed."""
    produce, counts, shape = (
        partial(_produce, paths, args.image_size),
        [1] * len(paths),
        (1, *args.image_size),
    )
    try:
        return open_cache(
            "ultrasound", {"grey": True}, paths, counts, shape, produce, cache_dir, args.cache_limit_gb,
            log=LOG.info,
        )  # fmt: skip
    except DataError:
        refuse_problems({"unreadable_images": why_unreadable(paths).dropna().tolist()})
        raise


def why_unreadable(paths: Sequence[Path]) -> pd.Series:
    """Decode every image once: the reason why it can not be read, or None."""
    with ProcessPoolExecutor(max_workers=8) as pool:
        return pd.Series(list(pool.map(_why_unreadable, paths, chunksize=16)), dtype=object)


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
    age_of = dict(zip(images.subject, images.age, strict=True))
    method, own = args.split_method, sources[0].table.parent / "split.json"
    named = method not in ("auto", "by_subject_id")
    file = Path(method) if named else own
    if named and not file.is_file():
        raise CommandError(f"--split_method {file}: neither auto, by_subject_id nor a file")
    # The folder's own names one cohort's ids; those of several cohorts or muscles are names of their own.
    fits = named or not any(source.prefix for source in sources)
    if method == "by_subject_id" or not file.is_file() or not fits:
        decades = {name: int(age // 10) for name, age in age_of.items()} if args.stratify_age else None
        split = split_groups(age_of, args.test_size, args.val_size, args.seed, decades)
        return split, f"seed {args.seed}"
    split = read_split(file)
    check_disjoint(split, "subjects")
    split = {part: [name for name in names if name in age_of] for part, names in split.items()}
    if not any(split.values()):
        raise DataError(
            f"{file}: none of its names is a subject of the data (such as {min(age_of)!r})\n"
            "Names in a split file are the ids of the table. Remove the file to split by --seed."
        )
    return split, f"--split_method {method}" if named else f"{file.name} beside the table"


def _count_sixteen_bit(paths: Sequence[Path]) -> int:
    count = 0
    for path in paths:
        with Image.open(path) as image:  # the header only
            count += image.mode.startswith("I")
    return count
