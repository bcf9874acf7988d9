"""Draws people, pairs and groups on a 360-degree panorama, to the pixel and across the seam.

Shapes that cross one end are drawn again at the other end. So a person on the seam appears at both ends, and
a pair that is closer across the seam is joined by two pieces of one line. Above a person are the id and the
number of the group (g4), if it has other members; title and legend are above the picture.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.run.folder import write_bytes

Color = tuple[int, int, int]

# Okabe and Ito (2008), distinct for colour-blind readers and on photographs.
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))
WHITE, DARK, GREY = (255, 255, 255), (24, 24, 24), (160, 160, 160)
FONT_SIZE, SMALL = 17, 14  # pixels, of the font that comes with Pillow: the same on every machine
ROW = 24  # height of a line of legend or title, pixels
HEADER = 2 * ROW  # rows of the canvas above the panorama


def draw_panorama(
    image: np.ndarray, boxes: np.ndarray, names: Sequence[str], *, pairs: np.ndarray, kinds: np.ndarray,
    texts: Sequence[str], kind_names: Sequence[str], groups: np.ndarray, title: str,
) -> np.ndarray:  # fmt: skip
    """The annotated picture (HEADER + H, W, 3) uint8; the panorama begins in row HEADER.

    image (H, W, 3) uint8. boxes (n, 4) x, y, w, h in pixels, x + w may exceed W; names: n ids. pairs (m, 2)
    rows of boxes; kinds (m,) indices into `kind_names` and PALETTE, -1 = none (white); texts: m labels of the
    lines, may be ''. groups (n,) group numbers, < 0 = none."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for row in np.argsort(boxes[:, 3], kind="stable"):  # tall, near people last, on top
        shared = groups[row] >= 0 and (groups == groups[row]).sum() > 1
        tag = f"{names[row]} g{groups[row]}" if shared else names[row]
        draw_person(draw, boxes[row], tag, width, WHITE if row in pairs else GREY)
    for (a, b), kind in zip(pairs, kinds, strict=True):
        draw_pair(draw, boxes[a], boxes[b], kind_color(kind), width)
    left_out = draw_texts(draw, boxes, pairs, kinds, texts, (width, height))
    canvas = Image.new("RGB", (width, HEADER + height), DARK)
    note = f"   ({left_out} texts left out, no room)" if left_out else ""
    draw_header(ImageDraw.Draw(canvas), title + note, kinds, kind_names)
    canvas.paste(picture, (0, HEADER))
    return np.asarray(canvas)


def look_at_pair(part: Any, sample: int) -> list[np.ndarray]:
    """Pictures of a sample of a JRDBPairDataset: the two crops, if it has crops, and the boxes of its frame:
    orange for the left person, blue for the right one, grey for all others."""
    frame, pair = part.frames[sample], (part.left[sample], part.right[sample])
    width, height = part.pano_sizes[part.frame_sequences[frame]]
    shrink = max(1, width / 940)
    picture = Image.new("RGB", (int(width / shrink), int(height / shrink)), (235, 235, 235))
    draw, styles = ImageDraw.Draw(picture), zip(pair, ("#D55E00", "#0072B2"), strict=True)
    others = np.flatnonzero(part.people_frames == frame)
    for person, colour in (dict.fromkeys(others, "grey") | dict(styles)).items():
        x, y, w, h = part.boxes[person] / shrink
        for shift in (0, -picture.width):  # a box may cross the right edge
            draw.rectangle((x + shift, y, x + w + shift, y + h), outline=colour, width=2)
    crops = [] if part.crops is None else [part.crops[part.crop_rows[k]].transpose(1, 2, 0) for k in pair]
    return [*map(np.ascontiguousarray, crops), np.asarray(picture)]


def save_panorama(picture: np.ndarray, path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=4)
    write_bytes(path, buffer.getbuffer())


def on_both_ends(left: float, right: float, width: int) -> list[int]:
    """The shifts (multiples of `width`) at which the span from `left` to `right` is visible."""
    return [shift for shift in (-width, 0, width) if left + shift < width and right + shift >= 0]


def pair_line(a: np.ndarray, b: np.ndarray, width: int) -> tuple[float, float, float, float]:
    """Ends x0, y0, x1, y1 of the line between two centres, the short way round; x1 may lie outside."""
    (xa, ya), (xb, yb) = a[:2] + a[2:] / 2, b[:2] + b[2:] / 2
    xa = xa % width
    offset = (xb - xa + width / 2) % width - width / 2
    return xa, ya, xa + offset, yb


def draw_person(draw: ImageDraw.ImageDraw, box: np.ndarray, tag: str, width: int, color: Color) -> None:
    """The box, two pixels wide with a dark rim, and the tag above it; at both ends if on the seam."""
    x, y, w, h = np.rint(box).astype(int).tolist()
    x, right = x % width, x % width + w - 1
    font = ImageFont.load_default(SMALL)
    tag_width = round(font.getlength(tag)) + 4
    for shift in on_both_ends(x, right, width):
        draw.rectangle((x + shift - 1, y - 1, right + shift + 1, y + h), outline=DARK, width=4)
        draw.rectangle((x + shift, y, right + shift, y + h - 1), outline=color, width=2)
        if tag:
            left = min(max(x + shift, 0), width - tag_width)  # the whole tag, even of a cut person
            top = max(y - SMALL - 3, 0)
            draw.rectangle((left, top, left + tag_width, top + SMALL + 2), fill=DARK)
            draw.text((left + 2, top), tag, fill=color, font=font)


def draw_pair(draw: ImageDraw.ImageDraw, a: np.ndarray, b: np.ndarray, color: Color, width: int) -> None:
    """A line four pixels wide with a dark rim and a dot at each end; two pieces if it crosses the seam."""
    x0, y0, x1, y1 = pair_line(a, b, width)
    for shift in on_both_ends(min(x0, x1) - 6, max(x0, x1) + 6, width):
        ends = (x0 + shift, y0, x1 + shift, y1)
        draw.line(ends, fill=DARK, width=8)
        draw.line(ends, fill=color, width=4)
        for x, y in (ends[:2], ends[2:]):
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=color, outline=DARK, width=2)


def draw_texts(
    draw: ImageDraw.ImageDraw, boxes: np.ndarray, pairs: np.ndarray, kinds: np.ndarray, texts: Sequence[str],
    size: tuple[int, int],
) -> int:  # fmt: skip
    """Write each pair's text at the middle of its line or at the nearest free place above or below, tied to
    the middle by a thin line. Returns the number of texts without a place."""
    font, high, (width, height) = ImageFont.load_default(FONT_SIZE), FONT_SIZE + 4, size
    placed: dict[tuple[float, float, float, float], tuple[str, Color]] = {}
    for (a, b), kind, text in zip(pairs, kinds, texts, strict=True):
        x0, y0, x1, y1 = pair_line(boxes[a], boxes[b], width)
        x, y, long = (x0 + x1) / 2 % width, (y0 + y1) / 2, font.getlength(text) + 8
        left = min(max(x - long / 2, 0), width - long - 1)
        if not text or left < 0:  # wider than the panorama
            continue
        for top in sorted(range(0, height - high, 4), key=lambda top: abs(top + high / 2 - y)):
            rectangle = left, top, left + long, top + high
            if not any(overlap(rectangle, other) for other in placed):
                placed[rectangle] = text, kind_color(kind)
                if abs(top + high / 2 - y) > FONT_SIZE:
                    draw.line((x, y, x, top + high / 2), fill=kind_color(kind), width=2)
                break
    for rectangle, (text, color) in placed.items():
        draw.rectangle(rectangle, fill=color, outline=DARK)
        draw.text((rectangle[0] + 4, rectangle[1]), text, fill=DARK, font=font)
    return sum(map(bool, texts)) - len(placed)


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two rectangles (left, top, right, bottom) touch."""
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def draw_header(draw: ImageDraw.ImageDraw, title: str, kinds: np.ndarray, kind_names: Sequence[str]) -> None:
    """The title, and a legend with line colour, name and number of pairs of each kind."""
    font = ImageFont.load_default(FONT_SIZE)
    draw.text((8, 2), title, fill=WHITE, font=font)
    named, x = dict(enumerate(kind_names)) | ({-1: "no type"} if (kinds < 0).any() else {}), 8.0
    for kind, name in named.items():
        text, color = f"{name} ({(kinds == kind).sum()})", kind_color(kind)
        draw.rectangle((x, ROW + 9, x + 28, ROW + 14), fill=color)
        draw.text((x + 36, ROW + 1), text, fill=color, font=font)
        x += 36 + font.getlength(text) + 28


def kind_color(kind: int) -> Color:
    return WHITE if kind < 0 else PALETTE[int(kind) % len(PALETTE)]
