"""Draws people, pairs and groups on a 360-degree panorama, to the pixel and across the seam.

Shapes that cross one end are drawn again at the other end. So a person on the seam appears at both ends, and
a pair that is closer across the seam is joined by two pieces of one line. Title and legend are above the
picture; below it is a bar for every group, with a tick under each member.
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
ROW = 24  # height of a line of legend, title or group bars, pixels
BAR_ROW = ROW + 4
HEADER = 2 * ROW  # rows of the canvas above the panorama


def draw_panorama(
    image: np.ndarray, boxes: np.ndarray, names: Sequence[str], *, pairs: np.ndarray, kinds: np.ndarray,
    texts: Sequence[str], kind_names: Sequence[str], groups: np.ndarray, title: str,
) -> np.ndarray:  # fmt: skip
    """The annotated picture (HEADER + H + bars, W, 3) uint8; the panorama begins in row HEADER.

    image (H, W, 3) uint8. boxes (n, 4) x, y, w, h in pixels, x + w may exceed W; names: n ids. pairs (m, 2)
    rows of boxes; kinds (m,) indices into `kind_names` and PALETTE, -1 = none (white); texts: m labels of the
    lines, may be ''. groups (n,) group numbers, < 0 = none; groups of two or more get a bar.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for row in np.argsort(boxes[:, 3], kind="stable"):  # tall, near people last, on top
        draw_person(draw, boxes[row], names[row], width, WHITE if row in pairs else GREY)
    for (a, b), kind in zip(pairs, kinds, strict=True):
        draw_pair(draw, boxes[a], boxes[b], kind_color(kind), width)
    left_out = draw_texts(draw, boxes, pairs, kinds, texts, (width, height))
    bars = draw_group_bars(boxes, groups, names, width)
    canvas = Image.new("RGB", (width, HEADER + height + bars.height), DARK)
    note = f"   ({left_out} texts left out, no room)" if left_out else ""
    draw_header(ImageDraw.Draw(canvas), title + note, kinds, kind_names)
    canvas.paste(picture, (0, HEADER))
    canvas.paste(bars, (0, HEADER + height))
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


def draw_person(draw: ImageDraw.ImageDraw, box: np.ndarray, name: str, width: int, color: Color) -> None:
    """The box, two pixels wide with a dark rim, and the id above it; at both ends if on the seam."""
    x, y, w, h = np.rint(box).astype(int).tolist()
    x, right = x % width, x % width + w - 1
    font = ImageFont.load_default(SMALL)
    tag_width = round(font.getlength(name)) + 4
    for shift in on_both_ends(x, right, width):
        draw.rectangle((x + shift - 1, y - 1, right + shift + 1, y + h), outline=DARK, width=4)
        draw.rectangle((x + shift, y, right + shift, y + h - 1), outline=color, width=2)
        if not name:
            continue
        tag = min(max(x + shift, 0), width - tag_width)  # the whole tag, even of a cut person
        top = max(y - SMALL - 3, 0)
        draw.rectangle((tag, top, tag + tag_width, top + SMALL + 2), fill=DARK)
        draw.text((tag + 2, top), name, fill=color, font=font)


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


def draw_group_bars(boxes: np.ndarray, groups: np.ndarray, names: Sequence[str], width: int) -> Image.Image:
    """A strip with a row for each group of two or more: a bar from the first to the last member, the short
    way round, with a tick below each member, and the list of their ids."""
    font = ImageFont.load_default(SMALL)
    shown = [number for number in np.unique(groups) if number >= 0 and (groups == number).sum() > 1]
    strip = Image.new("RGB", (width, len(shown) * BAR_ROW + 6 if shown else 0), DARK)
    draw = ImageDraw.Draw(strip)
    for y, number in zip(range(10, strip.height, BAR_ROW), shown, strict=False):
        members = np.flatnonzero(groups == number)
        centres = np.sort((boxes[members, 0] + boxes[members, 2] / 2) % width)
        gaps = np.diff(np.r_[centres, centres[0] + width])
        first = (int(gaps.argmax()) + 1) % len(centres)  # the bar begins after the widest gap
        ticks = centres[first] + (centres - centres[first]) % width
        text = f"group {number}: " + " ".join(names[row] for row in members)
        for shift in on_both_ends(ticks.min(), ticks.max(), width):
            draw.line((ticks.min() + shift, y, ticks.max() + shift, y), fill=WHITE, width=2)
            for tick in ticks:
                draw.line((tick + shift, y - 5, tick + shift, y + 1), fill=WHITE, width=3)
            x = min(max(ticks.min() + shift, 0), width - font.getlength(text))
            draw.text((x, y + 2), text, fill=WHITE, font=font)
    return strip


def kind_color(kind: int) -> Color:
    return WHITE if kind < 0 else PALETTE[int(kind) % len(PALETTE)]
