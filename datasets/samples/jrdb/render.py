"""Frames and boxes of one sequence: scenery, then people from far to near, then light and sensor noise."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from datasets.samples.jrdb.figure import sketch_person
from datasets.samples.jrdb.plan import STRIDE, SequencePlan
from datasets.samples.jrdb.scenery import HORIZON, draw_scenery
from datasets.samples.jrdb.sketch import CAMERA_HEIGHT, draw_sketch, extent
from datasets.samples.jrdb.world import Scene, Seen

BOX_SLACK = 0.03  # spread of an annotator's hand, of the box size


def frame_key(t: int) -> str:
    return f"{(t + 1) * STRIDE:06d}.jpg"


def box_of(
    extent: tuple[float, float, float, float], x: float, y: float, scale: float, size: tuple[int, int], rng
) -> tuple | None:
    """Body extent in metres about the standing point (x, y) -> box and whether the frame cuts it. None when
    out of sight."""
    width, height = size
    x0, y0, x1, y1 = extent
    # Sideways, where arms are, more than up and down.
    slack = rng.normal(0, BOX_SLACK, 4) * (scale * (y1 - y0)) * (0.7, 0.7, 0.4, 0.4)
    left, right = x + x0 * scale + slack[0], x + x1 * scale + slack[1]
    top, bottom = y - y1 * scale + slack[2], y - y0 * scale + slack[3]
    cut = bottom > height or top < 0
    top, bottom = max(top, 0.0), min(bottom, float(height))
    w, h = round(right - left), round(bottom - top)
    if w < 2 or h < 4:
        return None
    return (math.floor(left % width) % width, int(top), max(w, 2), min(h, height - int(top))), cut


def paste_wrapped(frame: Image.Image, sprite: Image.Image, left: int, top: int) -> None:
    width = frame.width
    left %= width
    for x in (left, left - width):
        if x + sprite.width > 0 and x < width:
            frame.paste(sprite, (x, top), sprite)


def cloth(sprite: Image.Image, grain: Image.Image, light: float, at: tuple[int, int]) -> Image.Image:
    """Multiply a sprite by a piece of grain, so that people are as grainy as the place; alpha stays."""
    if sprite.width > grain.width or sprite.height > grain.height:
        return sprite
    x, y = at[0] % (grain.width - sprite.width + 1), at[1] % (grain.height - sprite.height + 1)
    piece = grain.crop((x, y, x + sprite.width, y + sprite.height))
    lit = piece.point(lambda v: min(255, int(v * light))).convert("RGB")
    textured = ImageChops.multiply(sprite.convert("RGB"), lit)
    textured.putalpha(sprite.getchannel("A"))
    return textured


def occlusions(people: list[Seen], width: int) -> None:
    """Share of each box covered by one box in front of it, the largest; people come far to near."""
    for k, one in enumerate(people):
        x, y, w, h = one.box
        for other in people[k + 1 :]:
            ox, oy, ow, oh = other.box
            shift = ((ox + ow / 2) - (x + w / 2) + width / 2) % width - width / 2
            across = min(w / 2, shift + ow / 2) - max(-w / 2, shift - ow / 2)
            down = min(y + h, oy + oh) - max(y, oy)
            if across > 0 and down > 0:
                one.hidden = max(one.hidden, across * down / (w * h))


def render_sequence(plan: SequencePlan, folder: Path | None) -> tuple[Scene, list[list[Seen]]]:
    """Draw all frames of a sequence into `folder` (None: boxes only); who was placed where, by frame."""
    width, height = plan.size.width, plan.size.height
    focal = width / (2 * math.pi)
    margin = max(2, height // 40)
    look = plan.random("scenery")
    walls = look.uniform(*(24, 40) if plan.outdoor else (13, 24), 4)  # metres to the right, left, front, back
    scene = Scene(plan, room=float(walls.min()) - 1.0)
    scenery = draw_scenery(width, height, margin, plan.outdoor, walls, look) if folder else None
    grain = np.clip(look.normal(236, 7, (height + 160, height + 160)), 0, 255)
    grain = Image.fromarray(grain.astype(np.uint8))
    sensor = np.clip(look.normal(16, 3.2, (height, width)), 0, 32)
    sensor = Image.fromarray(sensor.astype(np.uint8)).convert("RGB")
    frames = []
    for t in range(plan.size.frames):
        rng = plan.random(f"frame/{t}")
        bob = int(rng.integers(-margin, margin + 1)) // 2
        roll = round(scene.turn_rate * t * focal)
        gain = rng.uniform(0.82, 1.12)
        if folder:
            window = (0, margin - bob, width, margin - bob + height)
            frame = ImageChops.offset(scenery, -roll, 0).crop(window)
        people = []
        for seen in sorted(scene.frame(t), key=lambda one: -one.distance):
            scale = focal / seen.distance
            x = width / 2 + seen.azimuth * focal
            y = HORIZON * height + bob + (CAMERA_HEIGHT - seen.rise) * scale
            sketch = sketch_person(seen.person.look, seen.pose, seen.distance)
            boxed = box_of(extent(sketch.body), x, y, scale, (width, height), rng)
            light, at = rng.uniform(0.94, 1.14), tuple(int(v) for v in rng.integers(0, 4096, 2))
            if folder:
                sprite, left, top = draw_sketch(sketch, scale)
                paste_wrapped(frame, cloth(sprite, grain, light, at), round(x) + left, round(y) + top)
            if boxed:
                seen.box, seen.truncated = boxed
                people.append(seen)
        occlusions(people, width)
        frames.append(people)
        if folder:
            noise = ImageChops.offset(sensor, int(rng.integers(width)), 0)
            frame = frame.point([min(255, int(v * gain)) for v in range(256)] * 3)
            frame = ImageChops.add(frame, noise, 1, -16)
            frame.save(folder / frame_key(t), quality=84)
    return scene, frames
