"""Ages from ultrasound images: one per image, the mean per subject, and a sheet to look at."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image
from torch.utils.data import Dataset

from datasets.images import has_more_than_8_bits, read_grey_limits, read_image
from datasets.ultrasound.files import describe_unread, find_subject, list_images
from datasets.ultrasound.flags import similar_path
from datasets.ultrasound.pixels import blank_text, read_sample
from models.age import explain
from prediction.skipped import skipped_table, tell_skipped
from prediction.trained import Trained
from utils.metrics.intervals import intervals
from utils.plotting.age import explained, plot_sheet
from utils.plotting.mistakes import block_of
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
            pixels, _ = read_sample(source, options.image_size, options.colour, options.intensity_range)
            if options.intensity_range and has_more_than_8_bits(source):
                low, high = read_grey_limits(source)
                self.cut += low < options.intensity_range[0] or high > options.intensity_range[1]
            return pixels
        except DataError as error:
            self.skipped[k] = str(error).splitlines()[0].removeprefix(f"{source}: ")
            return np.zeros((3 if options.colour else 1, *options.image_size), np.uint8)


def predict(trained: Trained, args: argparse.Namespace) -> dict[str, pandas.DataFrame]:
    """An age per image, and per subject the mean with its interval; with --output their CSVs and a sheet of
    images. An image of nobody known stands for a person of its own.

    What can not be read is listed in skipped.csv; a DataError says so when all else is written.
    """
    options, paths, folder = trained.args, args.input, Path()
    if isinstance(paths, (str, Path)):
        place = Path(paths)
        if not place.exists():
            raise CommandError(f"--input {place}: no such file or folder{similar_path(place)}")
        folder = place if place.is_dir() else place.parent
        paths = list_images(folder) if place.is_dir() else [place]
        if place.is_dir() and (unread := describe_unread(folder, paths)):
            LOG.warning(unread)
    files = [file_name(path, folder, k) for k, path in enumerate(paths)]
    readers = [ImagesWithoutAge(paths, one.args) for one in trained.members]
    several = [one.evaluate(part)["preds"] for one, part in zip(trained.members, readers, strict=True)]
    images = readers[0]
    read = [k for k in range(len(paths)) if k not in images.skipped]
    rows = pandas.DataFrame({"file": [files[k] for k in read]}, dtype=object)
    rows["subject"] = [subject_of(paths[k], folder, options) for k in read]
    rows["prediction"] = np.mean(several, axis=0, dtype=float)[read]
    unknown = rows.subject == ""
    person = [unknown, rows.subject.where(~unknown, rows.file)]
    bounds = []  # of several runs the means: around the mean, as wide as theirs are
    for one, preds in zip(trained.members, several, strict=True):
        means = pandas.Series(preds[read].astype(float)).groupby(person).transform("mean")
        bounds.append(intervals(one.state.get("intervals"), means.to_numpy()))
    rows["low"], rows["high"] = np.mean(bounds, axis=0)
    subjects = rows[~unknown].assign(images=1).groupby("subject", as_index=False)
    subjects = subjects.agg({"images": "sum", "prediction": "mean", "low": "first", "high": "first"})
    tables = {"predictions": rows.round(3), "subjects": subjects.round(3)}
    if images.skipped:
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
    if unknown.any():
        LOG.warning(
            f"{unknown.sum()} of {len(read)} file names hold no subject id by the run's pattern "
            f"{options.id_pattern}: they are in predictions.csv only"
        )
    unit = trained.state.get("target_unit", options.target_unit)
    shown = np.linspace(0, len(read) - 1, min(args.max_pictures, SHEET, len(read))).round().astype(int)
    if len(shown):
        pictures = [
            block_of(explained(images.__getitems__([read[k]]), partial(explain_all, trained)))
            if args.explain
            else read_image(paths[read[k]], "L", options.intensity_range)
            for k in shown
        ]
        named = rows.iloc[shown]
        plot_sheet(pictures, named.file.tolist(), named.prediction.tolist(), unit, output / "sheet.png")
    if read:
        found = rows.prediction
        LOG.info(
            f"{len(read)} images, {len(subjects)} subjects: predicted {found.mean():.1f} +- "
            f"{found.std(ddof=0):.1f} ({found.min():.1f} to {found.max():.1f}) {unit}; predictions.csv and "
            f"subjects.csv in {output}"
        )
    if images.skipped:
        tell_skipped(tables["skipped"], len(paths), "images", output)
    return tables


def explain_all(trained: Trained, images: torch.Tensor) -> torch.Tensor:
    """(B, H, W) in [0, 1]: what moves the age, of several runs the mean."""
    return torch.stack([explain(one.model, images) for one in trained.members]).mean(dim=0)


def subject_of(source: Path | np.ndarray, folder: Path, options: argparse.Namespace) -> str:
    """The subject that a file is named after by the run's pattern; '' where it names none."""
    if not isinstance(source, Path):
        return ""
    folder = folder if source.is_relative_to(folder) else source.parent
    return find_subject(source, folder, options.id_pattern, options.numeric_ids)


def file_name(path: Path | np.ndarray, folder: Path, k: int) -> str:
    """The name of an image in the tables: its path below the folder, or the number of an array."""
    if not isinstance(path, Path):
        return str(k)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
