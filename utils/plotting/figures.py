"""What all figures use: no display needed, PNG files written atomically."""

import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from utils.run.folder import write_bytes
from utils.run.log import run_goes_on

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

COLORS = {"train": "#4C72B0", "val": "#DD8452"}


def never_fatal(draw: Callable[..., None]) -> Callable[..., None]:
    """Decorator: if a figure fails, warn in the log instead of losing hours of training."""

    @functools.wraps(draw)
    def drawn_or_warned(*args: Any, **options: Any) -> None:
        try:
            draw(*args, **options)
        except Exception as error:
            plt.close("all")  # the half-drawn figure would stay open
            run_goes_on(draw.__name__, f"{type(error).__name__}: {error}")

    return drawn_or_warned


def plot_pictures(
    pictures: Iterable[np.ndarray], texts: Sequence[str], columns: int, path: Path, title: str = ""
) -> None:
    """A sheet of images (H, W, 3) or (H, W) uint8 of any size, `columns` per row, each below its text; only
    the title if there is none."""
    pictures = list(pictures)
    width, columns = 13.6 / columns, min(columns, len(pictures)) or 2  # inches per image
    height = width * max((picture.shape[0] / picture.shape[1] for picture in pictures), default=0) + 0.5
    rows = -(-len(pictures) // columns) or 1
    size = width * columns, height * rows
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, text in zip(axes.flat, pictures, texts, strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axis.set_title(text, fontsize=7, parse_math=False)
    lines = [textwrap.fill(line, int(11 * width * columns)) for line in title.split("\n")]  # as wide as that
    save_figure(figure, path, "\n".join(lines))


def save_figure(figure: Figure, path: Path, title: str = "") -> None:
    """Write the PNG atomically and close the figure, which would otherwise stay in memory."""
    if title:
        figure.suptitle(title, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    write_bytes(path, buffer.getbuffer())


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) or (H, W) uint8 under a heat map (H, W) in [0, 1] that is transparent at its lowest
    value, so a constant map leaves the image unchanged."""
    above = heat - heat.min()
    colours = plt.get_cmap("inferno")(above)[..., :3] * 255
    base = np.broadcast_to(image[..., None] if image.ndim == 2 else image, colours.shape)
    weight = 0.7 * np.sqrt(above)[..., None]
    return ((1 - weight) * base + weight * colours).astype(np.uint8)
