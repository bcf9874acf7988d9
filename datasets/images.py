"""Reading images that other people wrote: Pillow only; every failure is a DataError with file and remedy.

A picture is never replaced by a black one, never cut short and never clipped. Decided here for all data sets:

* The content counts, not the extension. Accepted are PNG, JPEG, BMP, GIF, TIFF, WebP and PPM/PGM files.
* EXIF orientation is applied, by `read_image` and by `read_image_size` alike.
* An alpha channel is dropped (the colour below it is kept); palettes and CMYK are converted; a file with
  several frames, such as an animated GIF, is refused.
* 16-bit grey is rescaled to 8 bits by its bit depth: the smallest of 8, 12 and 16 bits that holds its
  maximum. The maximum itself is no scale (each image would get its own gain, and brightness is a signal in
  ultrasound), and the full 16-bit range would make a scanner's 12-bit images, values up to 4095, near black.
  Of 16 bits *per colour channel* Pillow keeps the high byte.
* More than MAX_PIXELS pixels is refused from the header, before decoding: 100 KB can ask for gigabytes.
"""

import re
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from utils.run.errors import DataError

MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # none that starts a program, as EPS would
BIT_DEPTHS = (8, 12, 16)


def read_image(path: Path | str, mode: str = "RGB") -> np.ndarray:
    """The image as uint8, (H, W, 3) for "RGB", (H, W) for "L"; DataError for anything but a whole image."""
    if mode not in ("RGB", "L"):
        raise ValueError(f"mode must be 'RGB' or 'L', not {mode!r}")
    try:
        with warnings.catch_warnings(), _opened(path) as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _open_checked(file, path).verify()  # checksums, where the format has them
            file.seek(0)
            with _open_checked(file, path) as image:
                image.load()  # complains about missing bytes
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode.startswith("I") or image.mode == "F":
                    pixels = _reduce_to_8_bits(np.asarray(image), path)
                    return np.repeat(pixels[:, :, None], 3, axis=2) if mode == "RGB" else pixels
                return np.array(image if image.mode == mode else image.convert(mode))
    except DataError:
        raise
    except Exception as error:  # damaged bytes make a decoder raise anything: SyntaxError, struct.error, ...
        raise _unreadable(path, error) from error


def read_palette_image(path: Path | str) -> tuple[np.ndarray, np.ndarray | None]:
    """An image as it is coded: of mode P its indices (H, W) and colours (256, 3), both uint8.

    Else (H, W) or (H, W, 3) uint8 and None. DataError for anything but a whole image.
    """
    pixels = read_image(path)  # complains about damage
    with _opened(path) as file, Image.open(file, formats=FORMATS) as image:
        if image.mode == "P":
            colours = np.zeros((256, 3), np.uint8)
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            colours[: len(palette)] = palette
            return np.asarray(image), colours
    return pixels, None


def read_image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) of what `read_image` returns, from the header alone: damage further in goes unseen."""
    try:
        with warnings.catch_warnings(), _opened(path) as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _open_checked(file, path) as image:
                width, height = image.size
                # Asking a PNG without the EXIF chunk would decode all of it.
                has_exif = image.format != "PNG" or "exif" in image.info
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
                return (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def check_relative_name(name: str, where: str) -> str:
    """`name`, if on every system it can only mean a file below its data folder.

    Else a DataError that says `where` the name stood. Only the text is checked: links keep working.
    """
    problem = None
    if not isinstance(name, str) or not name:
        problem = "is empty or no text"
    elif any(ord(letter) < 32 for letter in name):
        problem = "contains a control character"
    elif "\\" in name:
        problem = "contains a backslash"
    elif name.startswith("/") or re.match(r"[A-Za-z]:", name):
        problem = "is an absolute path"
    elif ".." in name.split("/"):
        problem = "leads out of its folder"
    if problem:
        raise DataError(
            f"{where}: the file name {name!r} {problem}.\n"
            "Names must be relative to the data folder, with '/' between folders and without '..'."
        )
    return name


def _opened(path: Path | str):
    """The file's bytes; a member of an archive opens itself."""
    return open(path, "rb") if isinstance(path, str) else path.open("rb")


def _open_checked(file, path: Path | str) -> Image.Image:
    """Open the header and refuse, before any pixel is decoded, what is too large or holds several images."""
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{path}: the image claims {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}.\n"
            "It was not decoded. Scale it down, or remove it from the data."
        )
    # An MPO is the JPEG of a phone with a preview behind it.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise DataError(
            f"{path}: the file ({image.format}) holds several frames; which one is meant can not be known.\n"
            "Save the frame you mean as a PNG file."
        )
    return image


def _reduce_to_8_bits(values: np.ndarray, path: Path | str) -> np.ndarray:
    """Integer grey values of up to 16 bits -> uint8 by the rule in the module's docstring."""
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{path}: grey values of type {values.dtype}, not whole numbers from 0 to 65535.\n"
            "How they map to brightness can not be known. Save the image with 8 or 16 bits."
        )
    maximum = next(2**bits - 1 for bits in BIT_DEPTHS if values.max() < 2**bits)
    scaled = (values.astype(np.uint32) * 255 + maximum // 2) // maximum  # rounded to the nearest, in integers
    return scaled.astype(np.uint8)


def _unreadable(path: Path | str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such image.\nCheck the data path and the name (capitals count).")
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return DataError(
            f"{path}: the image claims more than {MAX_PIXELS:,} pixels: {error}\n"
            "It was not decoded. Scale it down, or remove it from the data."
        )
    reason = str(error) or type(error).__name__
    return DataError(
        f"{path}: not a readable image: {reason}\n"
        "The file is damaged or no image. Copy it again, or remove it."
    )
