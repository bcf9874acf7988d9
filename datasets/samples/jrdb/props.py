"""Things people use: chair, table, bicycle, stairs; drawn in the body frame of the person."""

import math

from datasets.samples.jrdb.skeleton import Colour
from datasets.samples.jrdb.sketch import Sketch


def draw_chair(sketch: Sketch, behind: bool) -> None:
    steel, seat = (92, 90, 88), (128, 96, 66)
    back = [(-0.11, -0.10, 0.24), (-0.11, 0.10, 0.24), (-0.14, 0.10, 0.52), (-0.14, -0.10, 0.52)]
    if behind:
        for f in (-0.10, 0.12):
            for s in (-0.10, 0.10):
                sketch.limb((f, s, 0.22), (f, s, 0.0), 0.010, 0.008, steel, body=False, lit=False)
        board = [(-0.12, -0.12, 0.23), (-0.12, 0.12, 0.23), (0.14, 0.12, 0.23), (0.14, -0.12, 0.23)]
        sketch.face(board, seat)
        sketch.limb((-0.11, 0.0, 0.22), (0.13, 0.0, 0.22), 0.022, 0.022, seat, body=False, lit=False)
    if behind == (sketch.near((-1.0, 0.0, 0.0)) < 0):
        sketch.face(back, seat)
        for s in (-0.10, 0.10):
            sketch.limb((-0.11, s, 0.22), (-0.14, s, 0.53), 0.012, 0.012, steel, body=False, lit=False)


def draw_table(sketch: Sketch) -> None:
    wood, edge = (176, 140, 96), (120, 92, 60)
    sketch.limb((0.36, 0.0, 0.38), (0.36, 0.0, 0.0), 0.016, 0.016, (70, 70, 72), body=False, lit=False)
    top = [(0.20, -0.20, 0.41), (0.20, 0.20, 0.41), (0.46, 0.20, 0.41), (0.46, -0.20, 0.41)]
    sketch.face([(f, s, u - 0.03) for f, s, u in top], edge)
    sketch.face(top, wood)
    for a, b in zip(top, top[1:] + top[:1], strict=True):
        sketch.limb((a[0], a[1], 0.40), (b[0], b[1], 0.40), 0.013, 0.013, edge, body=False, lit=False)
    sketch.limb((0.30, 0.08, 0.43), (0.30, 0.08, 0.46), 0.017, 0.019, (236, 232, 224), body=False, lit=False)


def draw_bicycle(sketch: Sketch, paint: Colour) -> None:
    for f in (-0.30, 0.30):
        turns = [a / 10 * math.pi for a in range(20)]
        rim = [(f + 0.19 * math.cos(a), 0.0, 0.19 + 0.19 * math.sin(a)) for a in turns]
        for a, b in zip(rim, rim[1:] + rim[:1], strict=True):
            sketch.limb(a, b, 0.016, 0.016, (26, 26, 28), body=False, lit=False)
        for a in range(0, 10, 2):
            sketch.limb(rim[a], rim[a + 10], 0.004, 0.004, (150, 150, 150), body=False, lit=False)
    saddle, crank, stem = (-0.08, 0.0, 0.50), (0.02, 0.0, 0.18), (0.22, 0.0, 0.52)
    rear, front, head = (-0.30, 0.0, 0.19), (0.30, 0.0, 0.19), (0.20, 0.0, 0.46)
    tubes = (rear, crank), (crank, saddle), (saddle, head), (crank, head), (rear, saddle), (front, stem)
    for a, b in tubes:
        sketch.limb(a, b, 0.014, 0.014, paint, body=False, lit=False)
    sketch.limb((0.22, -0.13, 0.55), (0.22, 0.13, 0.55), 0.012, 0.012, (40, 40, 42), body=False, lit=False)


def draw_stairs(sketch: Sketch, direction: int) -> None:
    """Steps rising ahead (+1) or behind (-1), painted from far to near."""
    order = range(-3, 4) if sketch.near((1.0, 0.0, 0.0)) > 0 else range(3, -4, -1)
    bottom = -sketch.lift / sketch.height
    for k in order:
        f0, f1, top = 0.15 * k - 0.075, 0.15 * k + 0.075, 0.085 * k * direction + 0.02
        if top < bottom:
            continue
        riser, tread = (150, 146, 140), (196, 190, 180)
        for f in (f0, f1):
            sketch.face([(f, -0.30, bottom), (f, 0.30, bottom), (f, 0.30, top), (f, -0.30, top)], riser)
        for s in (-0.30, 0.30):
            side = tuple(int(c * 0.9) for c in riser)
            sketch.face([(f0, s, bottom), (f1, s, bottom), (f1, s, top), (f0, s, top)], side)
        sketch.face([(f0, -0.30, top), (f0, 0.30, top), (f1, 0.30, top), (f1, -0.30, top)], tread)
        for f in (f0, f1):
            sketch.limb((f, -0.30, top), (f, 0.30, top), 0.010, 0.010, tread, body=False, lit=False)
