"""Predict ages from ultrasound images: one per image, the mean per subject or visit, a sheet of images."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import torch

from datasets.images import has_more_than_8_bits, read_grey_limits, read_image
from datasets.ultrasound.dataset import DRAWINGS, UltrasoundAgeDataset, is_drawing, read_sample, sample_type
from datasets.ultrasound.files import find_key, list_images
from datasets.ultrasound.flags import ID_PATTERN, similar_path
from models.age import explain
from prediction.skipped import Opened, skipped_table
from prediction.trained import Predicted, Trained, spread
from utils.metrics.regression import intervals
from utils.plotting.age import explained
from utils.plotting.figures import plot_pictures
from utils.report.samples import block_of
from utils.run.errors import CommandError, counted, some
from utils.run.log import LOG

SHEET = 24  # most images on the sheet


def predict(trained: Trained, args: argparse.Namespace) -> Predicted:
    """Predict an age per image, and the mean with its interval per subject, or where the run had visits, per
    visit; `show` draws a sheet of images. An image without a subject id counts as a person of its own."""
    options, sources, folder = trained.args, args.input, Path()
    if isinstance(sources, (str, Path)):
        place = Path(sources)
        if not place.exists():
            raise CommandError(f"--input {place}: no such file or folder{similar_path(place)}")
        folder = place if place.is_dir() else place.parent
        sources, unread = list_images(place) if place.is_dir() else ([place], "")
        if unread:
            LOG.warning(unread)
    ids = [identify(source, folder, options) for source in sources]
    names = [name or str(k) for k, (name, *_) in enumerate(ids)]
    skipped: dict[int, str] = {}
    drawings: set[str] = set()
    parts = [open_images(sources, names, member.args, skipped, drawings) for member in trained.members]
    preds = [member.evaluate(part)["preds"] for member, part in zip(trained.members, parts, strict=True)]
    read = [k for k in range(len(sources)) if k not in skipped]
    found = [(names[k], *ids[k][1:]) for k in read]
    rows = pandas.DataFrame(found, columns=["file", "subject", "visit"], dtype=object)
    rows["prediction"] = np.mean(preds, axis=0, dtype=float)[read]
    unknown = rows.subject == ""
    person = [unknown, rows.subject.where(~unknown, rows.file), rows.visit]
    bounds = []  # per run; the mean over several runs is centred on their mean, as wide as on average
    for member, own_preds in zip(trained.members, preds, strict=True):
        means = pandas.Series(own_preds[read].astype(float)).groupby(person).transform("mean")
        bounds.append(intervals(member.state.get("intervals"), means.to_numpy()))
    rows["low"], rows["high"] = np.mean(bounds, axis=0)
    subjects = rows[~unknown].assign(images=1).groupby(["subject", "visit"], as_index=False)
    subjects = subjects.agg({"images": "sum", "prediction": "mean", "low": "first", "high": "first"})
    if not options.visit_column:
        rows, subjects = rows.drop(columns="visit"), subjects.drop(columns="visit")
    trained.tell_known(subjects.subject)
    tables = {"predictions": rows.round(3), "subjects": subjects.round(3)}
    tables["skipped"] = skipped_table({"file": names}, skipped, sources)
    if drawings:
        LOG.warning(DRAWINGS.format(len(drawings), some(sorted(drawings), 3)))
    warn_of_cut([sources[k] for k in read], options.intensity_range)

    def mean_explanation(images: torch.Tensor) -> torch.Tensor:  # (B, H, W)
        return torch.stack([explain(member.model, images) for member in trained.members]).mean(dim=0)

    def show(output: Path) -> None:
        if unknown.any():
            what = f"{unknown.sum()} of {len(read)} file names have no subject id by the run's pattern"
            LOG.warning(f"{what} {options.id_pattern}: they are only in predictions.csv")
        unit, ages = trained.state.get("target_unit", options.target_unit), rows.prediction
        shown, pictures = spread(len(read), min(args.max_pictures, SHEET)), []
        for k in (read[row] for row in shown):
            if args.explain:
                sample = parts[0].__getitems__([k])
                pictures.append(block_of(explained(sample, mean_explanation)))
            else:
                pixels = isinstance(sources[k], np.ndarray)
                shot = sources[k] if pixels else read_image(sources[k], "L", options.intensity_range)
                pictures.append(shot)
        if pictures:
            files = [name if len(name) < 35 else f"{name[:15]}...{name[-16:]}" for name in rows.file[shown]]
            texts = [f"{name}\n{age:.1f} {unit}" for name, age in zip(files, ages[shown], strict=True)]
            plot_pictures(pictures, texts, 6, output / "sheet.png")
        if read:
            what = f"{counted(len(read), 'images')}, {counted(subjects.subject.nunique(), 'subjects')}"
            found = f"{ages.mean():.1f} +- {ages.std(ddof=0):.1f} ({ages.min():.1f} to {ages.max():.1f})"
            LOG.info(f"{what}: predicted {found} {unit}; predictions.csv and subjects.csv in {output}")

    return tables, (len(sources), "images"), show


def open_images(
    sources: Sequence[Path | np.ndarray], names: Sequence[str], options: argparse.Namespace, skipped: dict,
    drawings: set[str],
) -> UltrasoundAgeDataset:  # fmt: skip
    """A data set without ages (NaN) or subjects, which decodes an image when it is read. Names of images that
    look like masks are added to `drawings`."""
    sample = sample_type(options.image_size, options.colour)

    def decode(k: int) -> np.ndarray:
        item, how = np.zeros(1, sample), (options.image_size, options.colour, options.intensity_range)
        item["pixels"], item["colour_lost"] = read_sample(sources[k], *how)
        drawings.update([names[k]] * is_drawing(item["pixels"][0]))
        return item

    images = pandas.DataFrame({"path": map(Path, names), "subject": "", "age": np.nan})
    return UltrasoundAgeDataset(Opened(decode, (), skipped, sample), images, options.mask_text)


def warn_of_cut(sources: Sequence[Path | np.ndarray], trained_range: Sequence[float]) -> None:
    """Warn of images with grey values outside the range that the model was trained with."""
    low, high = trained_range
    deep = [path for path in sources if isinstance(path, Path) and has_more_than_8_bits(path)]
    limits = map(read_grey_limits, deep)
    if cut := sum(least < low or greatest > high for least, greatest in limits):
        what = f"{cut} images have grey values outside {low:g} to {high:g}, the range of the training"
        LOG.warning(f"{what}: they are clipped, and the predictions may mean nothing")


def identify(source: Path | np.ndarray, folder: Path, options: argparse.Namespace) -> tuple[str, str, str]:
    """(path below the folder, '' for an array; subject and visit by the run's pattern, '' if it has none)."""
    if not isinstance(source, Path):
        return "", "", ""
    folder = folder if source.is_relative_to(folder) else source.parent
    by_row = options.file_column and options.id_pattern == ID_PATTERN  # so folders did not name subjects
    place = source.parent if by_row else folder
    how = source, place, re.compile(options.id_pattern), options.numeric_ids
    subject, visit = find_key(*how, visits=False) or "", ""
    if options.visit_column:
        visit = (find_key(*how, visits=True) or "").removeprefix(f"{subject} visit ")
    return source.relative_to(folder).as_posix(), subject, visit
