"""Ages from ultrasound images: one per image, the mean per subject, and a sheet to look at."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image
from torch.utils.data import Dataset

from datasets.images import has_more_than_8_bits, read_grey_limits, read_image
from datasets.ultrasound.dataset import blank_text, read_sample
from datasets.ultrasound.files import describe_unread, list_images, similar_folder
from datasets.ultrasound.records import find_subject
from prediction.skipped import skipped_table, tell_skipped
from prediction.trained import Trained
from utils.metrics.regression import subject_means
from utils.plotting.age import plot_sheet
from utils.report.results import write_table
from utils.run.errors import CommandError, DataError
from utils.run.log import LOG

SHEET = 24  # images on the sheet, at most


class ImagesWithoutAge(Dataset):
    """Batches like those of UltrasoundAgeDataset, decoded when asked for; ages are NaN, nobody is made up.

    A file that can not be read is black in its batch and in `skipped`, {index: reason}: its prediction means
    nothing. `cut` counts the images with grey values beyond the range that the model was trained with.
    """

    def __init__(self, sources: Sequence[Path | np.ndarray], options: argparse.Namespace):
        self.sources, self.options = sources, options
        self.frames = np.arange(len(sources))
        self.skipped: dict[int, str] = {}
        self.cut = 0

    def __len__(self) -> int:
        return len(self.sources)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        images = torch.from_numpy(np.stack([self.read(k) for k in indices]))  # (B, 1 or 3, H, W)
        if self.options.mask_text:
            images = blank_text(images)
        return {
            "images": images.expand(-1, 3, -1, -1),  # (B, 3, H, W)
            "ages": torch.full((len(indices),), torch.nan),
            "subject_ids": torch.full((len(indices),), -1),
            "indices": torch.tensor(indices),
        }

    def read(self, k: int) -> np.ndarray:
        """(1 or 3, H, W) uint8 of a file or of pixels (h, w) or (h, w, 3) uint8."""
        source, options = self.sources[k], self.options
        if not isinstance(source, Path):
            size, way = options.image_size[::-1], Image.Resampling.BILINEAR
            image = Image.fromarray(source).convert("RGB" if options.colour else "L").resize(size, way)
            return np.moveaxis(np.atleast_3d(np.asarray(image)), 2, 0)
        try:
            sample = read_sample(source, options.image_size, options.colour, options.intensity_range)
            if options.intensity_range and has_more_than_8_bits(source):
                low, high = read_grey_limits(source)
                self.cut += low < options.intensity_range[0] or high > options.intensity_range[1]
            return sample[:, :-1]
        except DataError as error:
            self.skipped[k] = str(error).splitlines()[0].removeprefix(f"{source}: ")
            return np.zeros((3 if options.colour else 1, *options.image_size), np.uint8)


def predict(trained: Trained, args: argparse.Namespace) -> dict[str, pandas.DataFrame]:
    """An age per image and the mean per subject; with --output their CSVs and a sheet of images.

    What can not be read is listed in skipped.csv; a DataError says so when all else is written.
    """
    options, paths, folder = trained.args, args.input, Path()
    if isinstance(paths, (str, Path)):
        place = Path(paths)
        if not place.exists():
            raise CommandError(f"--input {place}: no such file or folder{similar_folder(place)}")
        folder = place if place.is_dir() else place.parent
        paths = list_images(folder) if place.is_dir() else [place]
        if place.is_dir() and (unread := describe_unread(folder, paths)):
            LOG.warning(unread)
    files = [file_name(path, folder, k) for k, path in enumerate(paths)]
    readers = [ImagesWithoutAge(paths, one.args) for one in trained.members]
    several = zip(trained.members, readers, strict=True)
    ages, images = np.mean([one.evaluate(part)["preds"] for one, part in several], axis=0), readers[0]
    skipped = sorted(images.skipped)
    read = [k for k in range(len(paths)) if k not in images.skipped]
    ages, files_read = ages[read], np.array([files[k] for k in read])
    named = [paths[k] if isinstance(paths[k], Path) else Path() for k in read]
    pattern, numeric = options.id_pattern, options.numeric_ids
    roots = [folder if path.is_relative_to(folder) else path.parent for path in named]
    subjects = np.array(
        [find_subject(*place, pattern, numeric) for place in zip(named, roots, strict=True)], dtype=object
    )
    known = np.flatnonzero(subjects != "")
    names, _, means = subject_means(subjects[known].astype(str), ages[known], ages[known])
    counts = np.unique(subjects[known].astype(str), return_counts=True)[1]
    columns = {"file": files_read, "subject": subjects, "prediction": ages.round(3)}
    people = {"subject": names, "images": counts, "prediction": means.round(3)}
    tables = {"predictions": pandas.DataFrame(columns), "subjects": pandas.DataFrame(people)}
    if skipped:
        tables["skipped"] = skipped_table({"file": files}, images.skipped)
    if images.cut:
        low, high = options.intensity_range
        LOG.warning(
            f"{images.cut} images hold grey values beyond {low:g} to {high:g}, which is black and white for "
            "this model: they are cut, and the predictions may mean nothing"
        )
    if args.output is None:
        return tables
    output = Path(args.output)
    for name, table in tables.items():
        write_table(output / f"{name}.csv", table)
    if len(known) < len(read):
        LOG.warning(
            f"{len(read) - len(known)} of {len(read)} file names hold no subject id by the run's pattern "
            f"{pattern}: they are in predictions.csv only"
        )
    unit = trained.state.get("target_unit", options.target_unit)
    if read:
        shown = np.linspace(0, len(read) - 1, min(args.max_pictures, SHEET, len(read))).round().astype(int)
        if len(shown):
            pictures = [read_image(paths[read[k]], "L", options.intensity_range) for k in shown]
            plot_sheet(pictures, files_read[shown].tolist(), ages[shown].tolist(), unit, output / "sheet.png")
        LOG.info(
            f"{len(read)} images, {len(names)} subjects: predicted {ages.mean():.1f} +- {ages.std():.1f} "
            f"({ages.min():.1f} to {ages.max():.1f}) {unit}; predictions.csv and subjects.csv in {output}"
        )
    if skipped:
        tell_skipped(tables["skipped"], len(paths), "images", output)
    return tables


def file_name(path: Path | np.ndarray, folder: Path, k: int) -> str:
    """The name of an image in the tables: its path below the folder, or the number of an array."""
    if not isinstance(path, Path):
        return str(k)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
