"""Every kind of image file, good and bad: decoded exactly, or one clear DataError."""

import struct
import sys
import warnings
import zlib
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFile

from datasets import images
from datasets.images import MAX_PIXELS, check_relative_name, read_grey, read_image, read_image_size
from utils.run.errors import DataError


def pixels(height=20, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path, image, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def write_png(path, width, height, bits=1, kind=0, rows=b"\0"):
    """Not by Pillow; without rows it claims to be large and holds nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    return path


def test_lossless_pixels_are_exact(tmp_path):
    path = save(tmp_path / "a.png", pixels())
    assert np.array_equal(read_image(path), pixels())
    assert read_image(path).flags.writeable
    assert np.array_equal(read_image(path, "L"), np.array(Image.fromarray(pixels()).convert("L")))
    assert read_image_size(path) == (30, 20)


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = pixels()[..., 0]
    path = save(tmp_path / "a.png", grey)
    assert np.array_equal(read_image(path), np.stack([grey] * 3, axis=2))
    assert np.array_equal(read_image(path, "L"), grey)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_colour_mode_is_read_as_pillow_converts_it(tmp_path, mode):
    image = Image.fromarray(pixels()).convert(mode)
    path = save(tmp_path / "a.tif", image)
    assert np.array_equal(read_image(path), np.array(image.convert("RGB")))
    assert read_image(path, "L").shape == (20, 30)


@pytest.mark.parametrize("extension", ["bmp", "tif", "ppm", "webp", "gif"])
def test_other_formats(tmp_path, extension):
    assert read_image(save(tmp_path / f"a.{extension}", pixels())).shape == (20, 30, 3)


def test_a_cmyk_jpeg_keeps_its_colour(tmp_path):
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    assert np.abs(read_image(save(tmp_path / "a.jpg", red))[8, 8].astype(int) - [200, 30, 40]).max() < 12


def test_the_content_counts_not_the_extension(tmp_path):
    path = save(tmp_path / "really_a_png.jpg", pixels(), format="PNG")
    assert np.array_equal(read_image(path), pixels())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1000, 40000, 65535], [0, 4, 156, 255]),  # 16 bits: v * 255 / 65535
        ([0, 1000, 4095], [0, 62, 255]),  # 12 bits: v * 255 / 4095
        ([0, 1, 17, 255], [0, 1, 17, 255]),  # 8 bits in a 16-bit file stay as they are
    ],
)
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bits_are_rescaled_not_clipped(tmp_path, values, expected, extension):
    path = save(tmp_path / f"a.{extension}", np.array([values], np.uint16))
    assert read_image(path, "L").tolist() == [expected]
    assert np.array_equal(read_image(path)[0, :, 1], expected)


def test_scaling_depends_on_the_bit_depth_not_on_the_brightest_pixel(tmp_path):
    dim = save(tmp_path / "dim.png", np.array([[1000, 2000]], np.uint16))
    bright = save(tmp_path / "bright.png", np.array([[1000, 4000]], np.uint16))
    assert read_image(dim, "L")[0, 0] == read_image(bright, "L")[0, 0]


def test_a_given_range_of_grey_is_cut_off_at_its_ends_and_256_needs_more_than_8_bits(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[50, 100, 180, 256, 4000]], np.uint16)).save(path)
    assert read_image(path, "L", (100, 300)).tolist() == [[0, 0, 102, 199, 255]]
    Image.fromarray(np.array([[0, 256]], np.uint16)).save(path)
    assert read_image(path, "L").tolist() == [[0, 16]]  # of 4095


def test_values_beyond_sixteen_bits_and_floats_are_refused(tmp_path):
    for values in (np.array([[0, 70000]], np.int32), np.array([[0.5, 2.0]], np.float32)):
        path = save(tmp_path / "a.tif", values)
        with pytest.raises(DataError, match=r"a\.tif.*whole numbers"):
            read_image(path)


@pytest.mark.parametrize(("kind", "channels"), [(4, 2), (2, 3), (6, 4)])
def test_sixteen_bits_in_several_channels_are_refused(tmp_path, kind, channels):
    """Pillow keeps the high byte, so that grey of 12 bits would be nearly black."""
    grey = np.linspace(0, 4095, 30).astype(">u2")
    rows = b"".join(b"\0" + grey.repeat(channels).tobytes() for _ in range(20))
    path = write_png(tmp_path / "a.png", 30, 20, 16, kind, rows)
    for read in (read_image, read_grey):
        with pytest.raises(DataError, match="has 16 bits in several channels"):
            read(path)


def test_sixteen_bits_whose_zero_is_white_are_refused(tmp_path):
    """Pillow inverts such files of 8 bits, but not of 16."""
    path = save(tmp_path / "a.tif", np.arange(600, dtype=np.uint16).reshape(20, 30))
    black, white = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0))
    assert path.read_bytes().count(black) == 1 and read_image(path, "L").max() > 0
    path.write_bytes(path.read_bytes().replace(black, white))
    with pytest.raises(DataError, match="its lowest grey value is white"):
        read_image(path, "L")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path, orientation):
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", stored, exif=exif, quality=95)
    height, width = read_image(path).shape[:2]
    assert (height, width) == ((16, 8) if orientation >= 5 else (8, 16))
    assert read_image_size(path) == (width, height)
    if orientation == 3:  # turned by 180 degrees
        assert read_image(path)[4, 2].max() < 10


def test_one_pixel(tmp_path):
    assert read_image(save(tmp_path / "a.png", pixels(1, 1))).shape == (1, 1, 3)


def test_an_animation_is_refused_and_a_still_gif_is_read(tmp_path):
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.gif.*several frames"):
        read_image(path)


@pytest.mark.parametrize("extension", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_truncated_files_are_errors(tmp_path, extension, share):
    path = save(tmp_path / f"a.{extension}", pixels(200, 300))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"a\.{extension}"):
        read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_damaged_png_is_noticed_by_its_checksum(tmp_path):
    path = save(tmp_path / "a.png", pixels(200, 300))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png"):
        read_image(path)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"%!PS-Adobe-3.0\n", b"\x89PNG\r\n", b"BM"])
def test_what_is_no_image_is_an_error(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, read_image_size):
        with pytest.raises(DataError, match=r"a\.jpg: not a readable image"):
            read(path)


def test_lab_colours_are_read_as_grey_too(tmp_path):
    """Pillow makes RGB of them, but not grey."""
    Image.new("LAB", (4, 4), (128, 128, 128)).save(tmp_path / "lab.tif")
    grey = read_image(tmp_path / "lab.tif", "L")
    assert np.array_equal(grey, read_grey(tmp_path / "lab.tif")[0]) and grey.min() > 0


def test_missing_files_and_folders(tmp_path):
    for read in (read_image, read_image_size):
        with pytest.raises(DataError, match=r"gone\.jpg: no such image"):
            read(tmp_path / "gone.jpg")
        with pytest.raises(DataError, match="not a readable image"):
            read(tmp_path)


@pytest.mark.parametrize("side", [8001, 9500, 14000, 30000])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, side):
    assert side * side > MAX_PIXELS
    path = write_png(tmp_path / "bomb.png", side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (read_image, read_image_size):
            with pytest.raises(DataError, match=r"bomb\.png.*claims") as caught:
                read(path)
            assert len(str(caught.value).splitlines()) <= 5


def test_relative_names():
    for name in ("a.png", "folder/a b.png", "a..b/c...png", "./a.png"):
        assert check_relative_name(name, "labels.json") == name
    for name in ("", "/etc/passwd", "../a", "a/../../b", "a\\b", "C:/a", "c:a", "a\0b", "a\nb", None, 3):
        with pytest.raises(DataError, match=r"labels\.json"):
            check_relative_name(name, "labels.json")


@pytest.mark.parametrize(("bits", "shown"), [(12, 100 * 255 / 4095), (8, 100)])
def test_the_bits_of_a_dicom_file_are_those_of_its_header(tmp_path, monkeypatch, bits, shown):
    """However dark it is; without pydicom, of which two functions are replaced."""
    header = SimpleNamespace(Columns=4, Rows=3, BitsStored=bits, PhotometricInterpretation="MONOCHROME2")
    header.get = vars(header).get
    stored = np.full((3, 4), 100, np.uint16)
    monkeypatch.setattr(images, "read_dicom_header", lambda _: header)
    monkeypatch.setitem(sys.modules, "pydicom", ModuleType("pydicom"))
    pixels = SimpleNamespace(pixel_array=lambda _: stored, apply_color_lut=None)
    monkeypatch.setitem(sys.modules, "pydicom.pixels", pixels)
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    grey = read_image(tmp_path / "a.dcm", "L", intensity_range=(0, 4095))
    assert np.abs(grey.astype(float) - shown).max() <= 0.5
    assert read_image(tmp_path / "a.dcm", "L").max() == 100  # the smallest range that holds its maximum


@pytest.mark.parametrize("bits", [8, 16])
def test_the_colours_of_a_dicom_palette_are_read_not_their_numbers(tmp_path, monkeypatch, bits):
    """Without pydicom, of which three functions are replaced; entries of 8 bits may be stored in 16."""
    header = SimpleNamespace(Columns=4, Rows=3, BitsStored=8, PhotometricInterpretation="PALETTE COLOR")
    header.get, header.RedPaletteColorLookupTableDescriptor = vars(header).get, [256, 0, bits]
    entries = np.arange(256)[::-1, None].repeat(3, axis=1) << (bits - 8)
    monkeypatch.setattr(images, "read_dicom_header", lambda _: header)
    monkeypatch.setitem(sys.modules, "pydicom", ModuleType("pydicom"))
    pixels = SimpleNamespace(
        pixel_array=lambda _: np.full((3, 4), 55, np.uint8),
        apply_color_lut=lambda numbers, _: entries.astype(np.uint16)[numbers],
    )
    monkeypatch.setitem(sys.modules, "pydicom.pixels", pixels)
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    assert (read_image(tmp_path / "a.dcm") == 200).all()
