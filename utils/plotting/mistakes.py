"""The worst errors with what the model saw: a block of pictures and a line of text each."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from utils.plotting.curves import grid_of_axes, never_fatal, plt, save_figure

WIDE = 3  # times as wide as high: a picture that stands below the others
HEIGHT = 160  # pixels of the pictures that stand side by side


@never_fatal
def plot_mistakes(
    chosen: Sequence[int], look: Callable[[int], list[np.ndarray]], texts: Sequence[str], title: str,
    path: Path,
) -> None:  # fmt: skip
    """A block for each of the samples `chosen`, if any: look(k) gives pictures, (H, W, 3) or (H, W) uint8."""
    if not chosen:
        save_figure(plt.figure(figsize=(9, 1.2)), path, title)
        return
    blocks = [block_of(look(k)) for k in chosen]
    columns = min(3, len(blocks))
    height = max(block.shape[0] / block.shape[1] for block in blocks) * 4.4 + 0.5
    figure, axes = grid_of_axes(len(blocks), columns, 4.6, height)
    for axis, block, text in zip(axes, blocks, texts, strict=True):
        axis.imshow(block, cmap="gray", vmin=0, vmax=255)
        axis.set_title(text, fontsize=7, parse_math=False)
        axis.set_axis_off()
    save_figure(figure, path, title)


def block_of(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8: the pictures side by side at one height, wide ones below them at the whole width."""
    images = [Image.fromarray(picture).convert("RGB") for picture in pictures]
    across = [image for image in images if image.width < WIDE * image.height]
    below = [image for image in images if image not in across]
    across = [image.resize((max(1, HEIGHT * image.width // image.height), HEIGHT)) for image in across]
    width = max(sum(image.width + 4 for image in across), 480 if below else 0)
    below = [image.resize((width, max(1, width * image.height // image.width))) for image in below]
    total = (HEIGHT + 4 if across else 0) + sum(image.height + 4 for image in below)
    canvas, x, y = Image.new("RGB", (width, total), "white"), 0, HEIGHT + 4 if across else 0
    for image in across:
        canvas.paste(image, (x, 0))
        x += image.width + 4
    for image in below:
        canvas.paste(image, (0, y))
        y += image.height + 4
    return np.asarray(canvas)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) or (H, W) uint8 under a heat map (H, W) in [0, 1], from its lowest value on: where
    it is that low the image stays as it is, and under a map without range as a whole."""
    above = heat - heat.min()
    colours = plt.get_cmap("inferno")(above)[..., :3] * 255
    base = np.broadcast_to(image[..., None] if image.ndim == 2 else image, colours.shape)
    weight = 0.7 * np.sqrt(above)[..., None]
    return ((1 - weight) * base + weight * colours).astype(np.uint8)
