"""A contact sheet of a sample: what its classes look like, read back with the readers that training uses."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.anovox.files import ScenarioFiles, find_scenarios
from datasets.anovox.labels import is_anomalous_image, is_anomalous_points
from datasets.anovox.points import read_points
from datasets.images import read_image
from datasets.jrdb.labels import IMAGE_FOLDER, INTERACTION_CLASSES, Sequence, list_sequences, read_sequence
from datasets.ultrasound.table import read_age_table
from utils.run.folder import write_bytes

TILE = 150  # height of a picture, pixels
WIDE = 300  # its greatest width
PER_ROW = 6
GAP, FONT = 6, 13  # pixels
INK, PAPER, MARK = (24, 24, 24), (255, 255, 255), (213, 30, 30)
REACH = 40.0  # metres ahead that the LiDAR is drawn from above
CLEAR = 0.2  # of the panorama's height: people who are smaller can not be made out


@dataclass
class Row:
    """Pictures (H, W, 3) uint8 of one kind, each with a line of text."""

    title: str
    tiles: list[tuple[np.ndarray, str]]


def draw_preview(kind: str, folder: Path, path: Path) -> Path:
    """Draw the contact sheet of the sample in `folder`; returns `path`."""
    draw: Callable[[Path], list[Row]] = {
        "anovox": anovox_rows,
        "jrdb": jrdb_rows,
        "ultrasound": ultrasound_rows,
    }[kind]
    rows = [row for row in draw(folder) if row.tiles]
    picture = draw_sheet(f"{kind} sample in {folder} (synthetic)", rows)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return path


def draw_sheet(title: str, rows: list[Row]) -> Image.Image:
    """All rows below each other, their title above them and a caption below each picture."""
    font = ImageFont.load_default(FONT)
    fitted = [[(fit(picture), caption) for picture, caption in row.tiles] for row in rows]
    widths = [[max(tile.width, int(font.getlength(text))) for tile, text in tiles] for tiles in fitted]
    heights = [max(tile.height for tile, _ in tiles) for tiles in fitted]
    line = FONT + 5
    width = max([sum(row) + GAP * (len(row) + 1) for row in widths] + [int(font.getlength(title)) + 2 * GAP])
    height = 2 * line + sum(h + 2 * line + GAP for h in heights)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 4), title, INK, font)
    top = 2 * line
    for row, tiles, spans, tall in zip(rows, fitted, widths, heights, strict=True):
        draw.text((GAP, top), row.title, INK, font, stroke_width=0.4, stroke_fill=INK)
        left = GAP
        for (tile, caption), span in zip(tiles, spans, strict=True):
            sheet.paste(tile, (left, top + line))
            draw.text((left, top + line + tall + 1), caption, INK, font)
            left += span + GAP
        top += tall + 2 * line + GAP
    return sheet


def fit(picture: np.ndarray) -> Image.Image:
    """The picture scaled to TILE high, or WIDE wide where that is less; small ones stay sharp."""
    scale = min(TILE / picture.shape[0], WIDE / picture.shape[1])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return Image.fromarray(picture).resize(
        size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    )


def anovox_rows(folder: Path) -> list[Row]:
    """The middle frame of scenarios: camera and scan from above, by what gives the anomaly away (red)."""
    rows = {
        "": Row("normal: no anomaly", []),
        "both": Row("anomaly that camera and LiDAR tell", []),
        "camera": Row("anomaly that only the camera tells", []),
        "lidar": Row("anomaly that only the LiDAR tells", []),
        "conflict": Row("anomaly that neither tells alone, both together do", []),
    }
    for scenario in find_scenarios(folder):
        frames = scenario.frames_with(("image", "points", "semantic_image", "semantic_points"))
        if not frames:
            continue
        frame = frames[len(frames) // 2]
        tells = visibility(scenario.files["anomaly"].get(frame))
        row = rows.setdefault(tells, Row(f"anomaly, visibility {tells}", []))
        if len(row.tiles) < PER_ROW:
            caption = f"{scenario.town} {scenario.name.removeprefix('Scenario_')[:8]} {frame}"
            row.tiles.append((draw_frame(scenario, frame), caption))
    return list(rows.values())


def visibility(path: Path | None) -> str:
    """Which sensors give the anomaly away, from the frame's anomaly file; '' for a normal frame."""
    if path is None:
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(";")
        if key.strip() == "visibility":
            return value.strip()
    return "unknown"


def draw_frame(scenario: ScenarioFiles, frame: int) -> np.ndarray:
    """Camera image beside the scan from above, REACH metres ahead; anomalies are marked red."""
    files = {sensor: paths.get(frame) for sensor, paths in scenario.files.items()}
    image = read_image(files["image"])
    shown = is_anomalous_image(read_image(files["semantic_image"]), scenario.layout)
    semantic = read_points(files["semantic_points"])
    hits = semantic[is_anomalous_points(semantic[:, 3], scenario.layout)]
    camera = Image.fromarray(image).resize(
        (round(TILE * image.shape[1] / image.shape[0]), TILE), Image.Resampling.BICUBIC
    )
    if shown.any():
        draw = ImageDraw.Draw(camera)
        ys, xs = np.nonzero(shown)
        sx, sy = camera.width / shown.shape[1], camera.height / shown.shape[0]
        box = ((xs.min() - 2) * sx, (ys.min() - 2) * sy, (xs.max() + 3) * sx, (ys.max() + 3) * sy)
        draw.rectangle(box, outline=MARK, width=2)
    above = np.full((TILE, TILE // 2, 3), 255, np.uint8)
    dot(above, read_points(files["points"]), (120, 120, 120))
    dot(above, hits, MARK, size=3)
    return np.hstack([np.asarray(camera), above])


def dot(above: np.ndarray, points: np.ndarray, color: tuple[int, int, int], size: int = 1) -> None:
    """Mark points (N, 4) in a picture from above: the car at the bottom in the middle, REACH metres high."""
    height, width = above.shape[:2]
    scale = height / REACH
    rows = (height - 1 - points[:, 0] * scale).astype(int)
    columns = (width / 2 - points[:, 1] * scale).astype(int)
    for down in range(size):
        for right in range(size):
            y, x = rows + down - size // 2, columns + right - size // 2
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            above[y[inside], x[inside]] = color


def jrdb_rows(folder: Path) -> list[Row]:
    """Annotated pairs by type, and near pairs that nobody annotated: one of each kind per sequence."""
    rows = [Row(name, []) for name in (*INTERACTION_CLASSES, "no interaction, though near each other")]
    for path in list_sequences(folder).values():
        sequence = read_sequence(path, folder)
        with_image = np.flatnonzero(sequence.image_found)
        if not len(with_image):
            continue
        frame = int(with_image[len(with_image) // 2])
        image = read_image(folder / IMAGE_FOLDER / sequence.name / sequence.keys[frame])
        for kind, pair in choose_pairs(sequence, frame).items():
            if len(rows[kind].tiles) < PER_ROW:
                caption = sequence.name.split("-202")[0] + f" {Path(sequence.keys[frame]).stem}"
                rows[kind].tiles.append((crop_pair(image, sequence.boxes[list(pair)]), caption))
    return rows


def choose_pairs(sequence: Sequence, frame: int) -> dict[int, tuple[int, int]]:
    """{kind: two rows}: of each kind the pair standing nearest for its height; the last kind is no pair.

    Only people who can be made out, and of about one height: others stand far behind each other.
    """
    first, last = sequence.starts[frame : frame + 2]
    heights = sequence.boxes[:, 3]
    types = dict(zip(map(tuple, sequence.pairs.tolist()), sequence.types.tolist(), strict=True))
    found: dict[int, tuple[float, tuple[int, int]]] = {}
    for pair in combinations(range(first, last), 2):
        low, high = sorted(heights[list(pair)])
        kind = types.get(pair, len(INTERACTION_CLASSES))
        if kind >= 0 and low >= CLEAR * sequence.height and low >= 0.8 * high:
            near = span(sequence.boxes[list(pair)], sequence.width)[1] / low
            found[kind] = min(found.get(kind, (near, pair)), (near, pair))
    return {kind: pair for kind, (_, pair) in found.items()}


def span(boxes: np.ndarray, width: int) -> tuple[float, float]:
    """(left, extent) in pixels of two boxes (2, 4), the short way round the panorama."""
    (xa, _, wa, _), (xb, _, wb, _) = boxes
    b_after_a, a_after_b = (xb - xa) % width, (xa - xb) % width
    if b_after_a <= a_after_b:
        return xa, max(wa, b_after_a + wb)
    return xb, max(wb, a_after_b + wa)


def crop_pair(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The two people with a margin, wrapped at the seam, TILE high, their boxes drawn."""
    height, width = image.shape[:2]
    left, extent = span(boxes, width)
    top, bottom = boxes[:, 1].min(), (boxes[:, 1] + boxes[:, 3]).max()
    margin = 0.15 * (bottom - top)
    x0, y0 = int(left - margin), max(0, int(top - margin))
    rows = slice(y0, min(height, int(bottom + margin)))
    crop = image[rows][:, np.arange(x0, int(left + extent + margin)) % width]
    scale = TILE / len(crop)
    picture = Image.fromarray(crop).resize((round(crop.shape[1] * scale), TILE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for x, y, w, h in boxes:
        corner = np.array([(x - x0) % width, y - y0])
        draw.rectangle([*(corner * scale), *((corner + [w, h]) * scale)], outline=MARK)
    return np.asarray(picture)


def ultrasound_rows(folder: Path) -> list[Row]:
    """Images by cohort, evenly over the ages from the youngest to the oldest."""
    rows = []
    for muscle, cohort in (("TA", "Healthy"), ("TA", "Pathological"), ("BB", "Healthy")):
        images = folder / muscle / cohort / "Images"
        if not images.is_dir():
            continue
        ages = read_age_table(folder / muscle / "characteristics.xlsx", cohort.lower()).ages
        there = [(age, name) for name, age in ages.items() if (images / f"anon_{name}_1.png").is_file()]
        there.sort()
        count = min(2 * PER_ROW if rows == [] else PER_ROW, len(there))
        chosen = [there[int(k)] for k in np.linspace(0, len(there) - 1, count).round()]
        tiles = [
            (read_image(images / f"anon_{name}_1.png"), f"{age:.1f} years, anon_{name}")
            for age, name in chosen
        ]
        title = f"{muscle}, {cohort.lower()}, from the youngest to the oldest of {len(there)} people"
        for start in range(0, len(tiles), PER_ROW):
            rows.append(Row(title if not start else f"{title} (continued)", tiles[start : start + PER_ROW]))
    return rows
