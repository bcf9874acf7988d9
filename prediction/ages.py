"""Ages from a folder of ultrasound images: one per image, the mean per subject, and a sheet to look at."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from datasets.images import read_image
from datasets.ultrasound.dataset import blank_text, read_grey
from datasets.ultrasound.files import list_images, similar_folder
from datasets.ultrasound.table import subject_id
from prediction.trained import Trained
from utils.metrics.regression import subject_means
from utils.plotting.age import plot_sheet
from utils.report.results import write_table
from utils.run.errors import CommandError
from utils.run.log import LOG

SHEET = 24  # images on the sheet, at most


class ImagesWithoutAge(Dataset):
    """Batches like those of UltrasoundAgeDataset, decoded when asked for; ages are NaN, nobody is made up."""

    def __init__(self, sources: Sequence[Path | np.ndarray], image_size: list[int], mask_text: bool):
        self.sources, self.image_size, self.mask_text = sources, image_size, mask_text
        self.frames = np.arange(len(sources))

    def __len__(self) -> int:
        return len(self.sources)

    def read(self, source: Path | np.ndarray) -> np.ndarray:
        """(1, H, W) uint8 of a file or of pixels (h, w) or (h, w, 3)."""
        if isinstance(source, Path):
            return read_grey(source, self.image_size)
        size, way = self.image_size[::-1], Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(source).convert("L").resize(size, way))[None]

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        pixels = np.stack([self.read(self.sources[k]) for k in indices])
        images = torch.from_numpy(pixels)  # (B, 1, H, W)
        if self.mask_text:
            images = blank_text(images)
        return {
            "images": images.expand(-1, 3, -1, -1),  # (B, 3, H, W)
            "ages": torch.full((len(indices),), torch.nan),
            "subject_ids": torch.full((len(indices),), -1),
            "indices": torch.tensor(indices),
        }


def predict(trained: Trained, args: argparse.Namespace) -> dict[str, pandas.DataFrame]:
    """An age per image and the mean per subject; with --output their CSVs and a sheet of images."""
    options, paths = trained.args, args.input
    if isinstance(paths, (str, Path)):
        if not Path(paths).is_dir():
            raise CommandError(f"--input {paths}: no such folder{similar_folder(Path(paths))}")
        paths = list_images(Path(paths))
    files = np.array([path.name if isinstance(path, Path) else str(k) for k, path in enumerate(paths)])
    images = ImagesWithoutAge(paths, options.image_size, options.mask_text)
    batches = tqdm(trained.batches_of(images), desc="batches", disable=None)
    ages = trained.script.evaluate(trained.model, batches, trained.device, amp=options.amp)["preds"]
    named = [path if isinstance(path, Path) else Path() for path in paths]
    subjects = np.array([find_subject(path, options.id_pattern, options.numeric_ids) for path in named])
    known = np.flatnonzero(subjects != "")
    names, _, means = subject_means(subjects[known], ages[known], ages[known])
    counts = np.unique(subjects[known], return_counts=True)[1]
    tables = {
        "predictions": pandas.DataFrame({"file": files, "subject": subjects, "prediction": ages.round(3)}),
        "subjects": pandas.DataFrame({"subject": names, "images": counts, "prediction": means.round(3)}),
    }
    if args.output is None:
        return tables
    output = Path(args.output)
    for name, table in tables.items():
        write_table(output / f"{name}.csv", table)
    if len(known) < len(paths):
        LOG.warning(
            f"{len(paths) - len(known)} of {len(paths)} file names hold no subject id by the run's pattern "
            f"{options.id_pattern}: they are in predictions.csv only"
        )
    shown = np.linspace(0, len(paths) - 1, min(args.max_pictures, SHEET, len(paths))).round().astype(int)
    unit = trained.state.get("target_unit", options.target_unit)
    if len(shown):
        pictures = [read_image(paths[k], "L") for k in shown]
        plot_sheet(pictures, files[shown].tolist(), ages[shown].tolist(), unit, output / "sheet.png")
    LOG.info(
        f"{len(paths)} images, {len(names)} subjects: predicted {ages.mean():.1f} +- {ages.std():.1f} "
        f"({ages.min():.1f} to {ages.max():.1f}) {unit}; predictions.csv and subjects.csv in {output}"
    )
    return tables


def find_subject(path: Path, pattern: str, numeric: bool) -> str:
    """The subject that the file name names, by the rules of training; '' where it names none."""
    match = re.search(pattern, path.stem)
    try:
        return subject_id(match[1] if match else None, numeric)
    except ValueError:
        return ""
