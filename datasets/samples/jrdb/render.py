"""Draw and label one sequence: scenery, then people from far to near, then light and sensor noise."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER
from datasets.samples import write_json
from datasets.samples.jrdb.figure import sketch_person
from datasets.samples.jrdb.labels import Box, annotate, frame_key, frame_records
from datasets.samples.jrdb.plan import SequencePlan
from datasets.samples.jrdb.scenery import HORIZON, draw_scenery
from datasets.samples.jrdb.sketch import CAMERA_HEIGHT, draw_sketch, extent
from datasets.samples.jrdb.world import watch

BOX_SLACK = 0.03  # inaccuracy of annotated boxes: sd, as a share of the body's height


def box_of(body: list, x: float, y: float, scale: float, size: tuple[int, int], rng) -> Box | None:
    """The box of discs (x, y, radius) in metres around the standing point (x, y) in pixels; None if tiny."""
    width, height = size
    x0, y0, x1, y1 = extent(body)
    # Left and right, where the arms are, are less accurate than top and bottom.
    slack = rng.normal(0, BOX_SLACK, 4) * (scale * (y1 - y0)) * (0.7, 0.7, 0.4, 0.4)
    left, right = x + x0 * scale + slack[0], x + x1 * scale + slack[1]
    top, bottom = max(y - y1 * scale + slack[2], 0.0), min(y - y0 * scale + slack[3], float(height))
    w, h = round(right - left), round(bottom - top)
    if w < 2 or h < 4:
        return None
    return math.floor(left) % width, int(top), w, min(h, height - int(top))


def write_sequence(directory: Path, plan: SequencePlan) -> None:
    """Write the label file and the panoramas of a sequence."""
    width, height = plan.width, plan.height
    focal = width / (2 * math.pi)
    margin = max(2, height // 40)
    rng = np.random.default_rng(plan.seed)
    room = rng.uniform(20, 30) if plan.outdoor else rng.uniform(12, 18)  # metres to the nearest wall
    folder = directory / IMAGE_FOLDER / plan.name
    art = np.random.default_rng([*plan.seed, 1])
    folder.mkdir(parents=True, exist_ok=True)
    scenery = draw_scenery(width, height, margin, plan.outdoor, room, art)
    sensor = np.clip(art.normal(16, 3.2, (height, width)), 0, 32).astype(np.uint8)
    sensor = Image.fromarray(sensor).convert("RGB")
    labels, edges = {}, [annotate(cluster, rng) for cluster in plan.clusters]
    for t, (turned, everybody) in enumerate(watch(plan, room - 1.0, rng)):
        bob = int(rng.integers(-margin, margin + 1)) // 2
        window = (0, margin - bob, width, margin - bob + height)
        frame = ImageChops.offset(scenery, -round(turned * focal), 0).crop(window)
        people = []
        for seen in sorted(everybody, key=lambda seen: -seen.distance):
            scale = focal / seen.distance
            x = width / 2 + seen.azimuth * focal
            y = HORIZON * height + bob + (CAMERA_HEIGHT - seen.rise) * scale
            sketch = sketch_person(seen.person, seen.pose, seen.distance)
            box = box_of(sketch.body, x, y, scale, (width, height), rng)
            if box:
                people.append((seen, box))
            sprite, left, top = draw_sketch(sketch, scale)
            left = (round(x) + left) % width
            for at in (left, left - width):  # the second one continues across the seam
                frame.paste(sprite, (at, round(y) + top), sprite)
        labels[frame_key(t)] = frame_records(t, people, edges, rng)
        gain = art.uniform(0.82, 1.12)
        frame = frame.point([min(255, int(v * gain)) for v in range(256)] * 3)
        frame = ImageChops.add(frame, ImageChops.offset(sensor, int(art.integers(width)), 0), 1, -16)
        frame.save(folder / frame_key(t), quality=84)
    write_json(directory / LABEL_FOLDER / f"{plan.name}.json", {"labels": labels})
