"""Reading images of any origin with Pillow: every failure is a DataError with the file and a remedy.

An image that cannot be read completely is an error, never a black or incomplete image. For all data sets:

* The content decides, not the ending: PNG, JPEG, BMP, GIF, TIFF, WebP, PPM/PGM; DICOM with pydicom
  (MONOCHROME1 is inverted to white on black). Files of several frames, such as animated GIFs, are refused.
* EXIF orientation is applied, alpha is dropped (the colour under it stays), palettes and CMYK are converted.
* Grey of more than 8 bits is scaled to 8 bits and clipped by the caller's intensity range, one for the whole
  data set if brightness is a signal. Without a range the image's bit depth is used, the smallest of 8, 12 and
  16 that holds its maximum: the maximum itself would scale each image differently, and 16 bits would make a
  scanner's 12-bit images nearly black. Colour or alpha of 16 bits per channel, of which Pillow keeps the high
  byte, is refused.
* More than MAX_PIXELS pixels are refused before decoding, from the header: 100 KB can ask for gigabytes.
"""

import contextlib
import itertools
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from utils.run.errors import DataError

MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # EPS is left out: it starts a program
BIT_DEPTHS = (8, 12, 16)
CLUTTER = ("thumbs.db", "desktop.ini", "dicomdir")  # ignored, as are names that begin with a dot
COLOUR = 24  # a larger difference between channels is colour; a grey image saved as JPEG stays below it


def read_image(
    path: Path | str, mode: str = "RGB", intensity_range: Sequence[float] | None = None
) -> np.ndarray:
    """The image as uint8, (H, W, 3) for "RGB", (H, W) for "L". Raises DataError unless it is complete."""
    return np.array(_reduced(path, intensity_range).convert(mode))


def read_grey(path: Path | str, intensity_range: Sequence[float] | None = None) -> tuple[np.ndarray, bool]:
    """(luminance (H, W) uint8, whether the image shows colour, which is lost here)."""
    image = _reduced(path, intensity_range)
    pairs = () if image.mode in ("L", "LA", "1") else itertools.combinations(image.convert("RGB").split(), 2)
    coloured = any(ImageChops.difference(*pair).getextrema()[1] > COLOUR for pair in pairs)
    return np.array(image.convert("L")), coloured


def read_grey_limits(path: Path | str) -> tuple[int, int]:
    """(smallest, largest) stored grey value of an image of more than 8 bits."""
    values = _check_values(_load(path), path)
    return int(values.min()), int(values.max())


def has_more_than_8_bits(path: Path | str) -> bool:
    """Whether the header announces grey of more than 8 bits; False if the file cannot be read."""
    with contextlib.suppress(DataError), _reading(path) as file:
        if is_dicom(path):
            return int(read_dicom_header(path).get("BitsStored", 8)) > 8
        return Image.open(file, formats=FORMATS).mode.startswith(("I", "F"))
    return False


def read_scene(path: Path | str) -> np.ndarray:
    """As read_image; DataError for grey of more than 8 bits, for which such images share no scale."""
    if has_more_than_8_bits(path):
        what = "has grey of more than 8 bits, which each image would bring to 8 in its own way"
        raise DataError(f"{path}: {what}\nSave all images with 8 bits, on one scale.")
    return read_image(path)


def read_dicom_header(path: Path | str) -> Any:
    """The header of a DICOM file, a pydicom data set without the pixels."""
    try:
        import pydicom  # optional
    except ImportError as error:
        raise DataError(f"{path}: a DICOM file; to read it run: pip install pydicom") from error
    with _reading(path) as file:
        return pydicom.dcmread(file, stop_before_pixels=True)


def _load(path: Path | str) -> Image.Image:
    """The complete, upright image, with grey values as stored."""
    with _reading(path) as file:
        if is_dicom(path):
            return Image.fromarray(_read_dicom_pixels(path))
        _open_checked(file, path).verify()  # checksums, where the format has them
        file.seek(0)
        image = _open_checked(file, path)
        channels = not image.mode.startswith(("I", "F")) and image.format != "BMP"  # there, of a whole pixel
        if channels and any(";16" in str(tile[3]) for tile in image.tile):
            raise DataError(f"{path}: has 16 bits in several channels.\nSave it with 8, or as grey alone.")
        image.load()  # raises if bytes are missing
        if image.format == "TIFF" and image.mode.startswith("I") and image.tag_v2.get(262) == 0:
            raise DataError(f"{path}: its lowest grey value is white.\nInvert it, so that it is black.")
        ImageOps.exif_transpose(image, in_place=True)
        return image.convert("RGB") if image.mode == "LAB" else image  # Pillow cannot convert LAB to grey


def _reduced(path: Path | str, intensity_range: Sequence[float] | None) -> Image.Image:
    """The complete, upright image with 8 bits per channel, by the rules at the top of this file."""
    image = _load(path)
    if not image.mode.startswith(("I", "F")):
        return image
    values = _check_values(image, path)
    depth = next(2**bits - 1 for bits in BIT_DEPTHS if values.max() < 2**bits)
    low, high = (0, depth) if intensity_range is None else intensity_range
    scaled = np.floor((values.astype(np.float64) - low) * (255 / (high - low)) + 0.5)
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))


def _check_values(image: Image.Image, path: Path | str) -> np.ndarray:
    """The grey values. Raises DataError unless they are integers of up to 16 bits."""
    values = np.asarray(image)
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() > 65535:
        what = f"grey values of type {values.dtype}, not whole numbers from 0 to 65535"
        raise DataError(f"{path}: {what}.\nSave the image with 8 or 16 bits.")
    return values


@contextlib.contextmanager
def _reading(path: Path | str) -> Iterator[BinaryIO]:
    """Open the file. Whatever a decoder raises becomes a DataError."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            begin = file.peek(24)[:24]
            yield file
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image.\nCheck the path and the name (capitals count).") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        claim = f"the image claims more than the limit of {MAX_PIXELS:,} pixels: {error}"
        remedy = "It was not decoded. Scale it down, or remove it from the data."
        raise DataError(f"{path}: {claim}\n{remedy}") from error
    except Exception as error:  # damaged bytes make it raise anything: SyntaxError, struct.error, ...
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"it begins with {begin!r}" if begin else "the file is empty"
        remedy = "The file is damaged or not an image. Copy it again, or remove it."
        raise DataError(f"{path}: not a readable image: {reason}\n{remedy}") from error


def read_palette_image(path: Path | str) -> tuple[np.ndarray, np.ndarray | None]:
    """An image as it is coded, uint8: the indices (H, W) and colours (256, 3) of mode P, else (H, W, 3) and
    None. Raises DataError also for JPEG and values beyond 8 bits: both turn classes into others."""
    pixels = read_image(path)  # raises if the file is damaged
    with _reading(path) as file, Image.open(file, formats=FORMATS) as image:
        if image.format in ("JPEG", "MPO"):
            raise DataError(f"{path}: is a JPEG, which changes class ids and colours.\nExport it as PNG.")
        if image.mode.startswith(("I", "F")) and np.asarray(image).max() > 255:
            raise DataError(f"{path}: has 16 bits; class ids and colours have 8.\nSave it with 8 bits.")
        if image.mode == "P":
            colours = np.zeros((256, 3), np.uint8)
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            colours[: len(palette)] = palette
            return np.asarray(image), colours
    return pixels, None


def is_dicom(path: Path | str) -> bool:
    """Whether the file begins like DICOM, whatever its name is."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_dicom_pixels(path: Path | str) -> np.ndarray:
    """(H, W) of 8 or 16 bits, or (H, W, 3) of 8."""
    header = read_dicom_header(path)
    _check_header(path, header.Columns, header.Rows, "DICOM", int(header.get("NumberOfFrames") or 1) > 1)
    from pydicom.pixels import apply_color_lut, pixel_array

    pixels = pixel_array(str(path))  # colour comes as RGB, but that of a palette as its numbers
    if header.PhotometricInterpretation == "MONOCHROME1":
        pixels = 2 ** int(header.BitsStored) - 1 - pixels
    elif header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
        bits = min(header.RedPaletteColorLookupTableDescriptor[2], 8 * pixels.itemsize)
        return (pixels >> (bits - 8)).astype(np.uint8)
    if pixels.ndim == 2 and pixels.min() >= 0:
        wide = int(header.BitsStored) > 8 or pixels.max() > 255  # a dark image of 12 bits stays one
        pixels = pixels.astype(np.uint16 if wide else np.uint8)
    return pixels


def read_image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) of the image that `read_image` returns, read from the header: the rest is unchecked."""
    with _reading(path) as file, _open_checked(file, path) as image:
        width, height = image.size
        # For a PNG without an EXIF chunk getexif() would decode the whole image.
        has_exif = image.format != "PNG" or "exif" in image.info
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
        return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def walk(folder: Path) -> list[Path]:
    """The files below a folder without hidden ones and those of operating systems. Links to folders are
    followed, each folder once; links that lead nowhere are listed."""
    found, seen = [], set()

    def refuse(error: OSError) -> None:  # os.walk would pass over a folder that it cannot open
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        new = (real := os.path.realpath(place)) not in seen
        seen.add(real)
        folders[:] = sorted(name for name in folders if new and not name.startswith("."))
        shown = [name for name in files if not name.startswith(".") and name.lower() not in CLUTTER]
        found += [Path(place, name) for name in sorted(shown) if new]
    return found


def check_relative_name(name: str, where: str) -> str:
    """Return `name` if on every system it can only mean a file below its data folder; else raise a DataError
    with `where` the name was found. Only the text is checked: links keep working."""
    text = name if isinstance(name, str) else ""
    wrong = {
        "is empty or not text": not text,
        "contains a control character": any(ord(letter) < 32 for letter in text),
        "contains a backslash": "\\" in text,
        "is an absolute path": re.match(r"/|[A-Za-z]:", text),
        "leads out of its folder": ".." in text.split("/"),
        "is longer than a file system allows": any(len(os.fsencode(k)) > 255 for k in text.split("/")),
    }
    if problem := next((what for what, holds in wrong.items() if holds), None):
        remedy = "Names must be relative to the data folder, with '/' between folders and without '..'."
        raise DataError(f"{where}: the file name {name!r} {problem}.\n{remedy}")
    return name


def _open_checked(file, path: Path | str) -> Image.Image:
    """Read the header, and refuse images that are too large or have several frames before decoding them."""
    image = Image.open(file, formats=FORMATS)
    # MPO is a phone's JPEG followed by a preview.
    several = image.format != "MPO" and getattr(image, "is_animated", False)
    _check_header(path, *image.size, image.format, several)
    return image


def _check_header(path: Path | str, width: int, height: int, kind: str, several: bool) -> None:
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{width} x {height} pixels")  # _reading tells the file
    if several:
        what = f"the file ({kind}) holds several frames; which one is meant cannot be known"
        raise DataError(f"{path}: {what}.\nSave the frame you mean as a file of its own.")
