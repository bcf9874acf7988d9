"""One person as a picture: the skeleton turned to its facing and dressed, with what it uses, back to front.

Everything that tells what a person does is drawn: leg phase, chair, bicycle, stairs, arms, a head turned to
somebody, and front (shirt strip, face) against back (hair, backpack).
"""

import math

from datasets.samples.jrdb.skeleton import Colour, Look, Point, Pose, arm_joints, knee_of, legs, rotate
from datasets.samples.jrdb.sketch import Sketch

SPINE = 0.33


def shaded(colour: Colour, share: float) -> Colour:
    return tuple(int(c * share) for c in colour)


def draw_head(sketch: Sketch, look: Look, neck: Point, yaw: float, nod: float) -> None:
    r = 0.077 * sketch.height
    sin, cos = rotate(yaw)
    top = (neck[0] + 0.02 + 0.05 * nod, neck[1], neck[2] + 0.095 - 0.02 * nod)
    sketch.limb(neck, top, 0.028, 0.028, look.skin, lit=False)
    x, y = sketch.place(top)
    if look.long_hair:
        sketch.disc(x - 0.42 * r * sin, y - 0.22 * r, 1.14 * r, 0.92 * r, look.hair)
    sketch.disc(x - 0.16 * r * sin, y + 0.10 * r, 1.08 * r, 1.10 * r, look.hair, body=True)
    if cos < -0.45:
        return
    low = y - (0.10 + 0.25 * nod) * r
    sketch.disc(x + 0.42 * r * sin, low, (0.84 - 0.24 * abs(sin)) * r, 0.88 * r, look.skin, body=True)
    if abs(sin) > 0.25:
        sketch.disc(x + 1.02 * r * sin, low - 0.02 * r, 0.20 * r, 0.15 * r, look.skin)
    mouth = 0.26 * r * (0.4 + 0.6 * max(cos, 0.2))
    sketch.disc(x + 0.62 * r * sin, low - 0.50 * r, mouth, 0.07 * r, shaded(look.skin, 0.72))
    for side in (-30, 30):
        es, ec = rotate(yaw + side)
        if ec > 0.1:
            sketch.disc(x + 0.86 * r * es, low + 0.14 * r, 0.07 * r + 0.07 * r * ec, 0.13 * r, (28, 24, 26))


def draw_torso(sketch: Sketch, look: Look, hip: Point, neck: Point) -> None:
    """A rounded trunk; its width follows the facing, and only the front shows the shirt."""
    h, k = sketch.height, look.build
    half = math.hypot(0.092 * k * sketch.cos, 0.066 * k * sketch.sin)
    (xh, yh), (xn, yn) = sketch.place(hip), sketch.place(neck)
    low, high = 0.86 * half, 1.12 * half
    axis = math.hypot(xn - xh, yn - yh) or 1.0
    px, py = (yn - yh) / axis, -(xn - xh) / axis  # unit vector across the trunk

    def band(low_left: float, low_right: float, high_left: float, high_right: float) -> list:
        """The part of the trunk between these metres across it, at the hip and at the neck."""
        edges = (xh, yh, low_left), (xh, yh, low_right), (xn, yn, high_right), (xn, yn, high_left)
        return [(x + across * px, y + across * py) for x, y, across in edges]

    corners = band(-low * h, low * h, -high * h, high * h)
    sketch.limb(hip, neck, low, high * 0.55, look.top)
    sketch.polygon(corners, look.top)
    right_half = zip(corners, [corners[i] for i in (1, 1, 2, 2)], strict=True)
    right_half = [((a + b) / 2, (c + d) / 2) for (a, c), (b, d) in right_half]
    sketch.polygon(right_half, shaded(look.top, 0.82))
    room = [(x - 0.075 * h, y, x + 0.075 * h, y) for x, y in corners]
    sketch.reserve(room, body=True)  # for arms that hang
    if sketch.cos > -0.3:  # the open jacket: a light strip that slides with the facing
        slide, strip = 0.075 * k * h * sketch.sin, 0.030 * h * max(0.35, sketch.cos)
        edges = slide - strip, slide + strip
        sketch.polygon(band(*edges, *edges), look.shirt)


def sketch_person(look: Look, pose: Pose, distance: float) -> Sketch:
    """The display list of one person, back to front."""
    sketch = Sketch(pose.yaw, look.height, distance, lift=0.18 if pose.stairs else 0.0)
    hip, ankles, lean = legs(pose)
    ls, lc = rotate(lean)
    neck = (hip[0] + SPINE * ls, 0.0, hip[2] + SPINE * lc)
    ts, tc = rotate(pose.toward - pose.yaw)  # the partner's direction in the body frame: left, forward
    arms = []
    for side, mode in zip((1, -1), pose.arms, strict=True):
        shoulder = (neck[0] - 0.015 * ls, 0.118 * look.build * side, neck[2] - 0.03 * lc)
        elbow, hand = arm_joints(mode, side, shoulder, (tc, ts), -side * math.sin(pose.phase))
        arms.append((sketch.near(elbow) + 0.5 * sketch.near(hand), mode, shoulder, elbow, hand))
    arms.sort(key=lambda arm: arm[0])
    sits, table_near = pose.posture == "sit", sketch.near((1.0, 0.0, 0.0)) > 0

    def draw_arm(mode: str, shoulder: Point, elbow: Point, hand: Point) -> None:
        # Boxes are drawn around trunk, head and legs: an outstretched hand must not widen them and give
        # the answer away.
        sketch.limb(shoulder, elbow, 0.036, 0.030, look.top, body=False)
        sketch.limb(elbow, hand, 0.029, 0.024, look.skin, body=False)
        sketch.limb(hand, hand, 0.034, 0.034, look.skin, body=False)
        f, s, u = hand
        if mode == "phone":
            sketch.rod((f + 0.02, s, u + 0.02), (f + 0.02 + 0.01, s, u + 0.07), 0.022, (20, 22, 30))
            sketch.rod((f + 0.01, s, u + 0.03), (f + 0.01 + 0.01, s, u + 0.06), 0.014, (150, 200, 240))
        if mode == "eat":
            sketch.rod(hand, (f, s, u + 0.03), 0.026, (214, 120, 60))

    def draw_backpack() -> None:
        if look.backpack:
            drop = (neck[0] - hip[0]) * 0.45
            low = (hip[0] - 0.085, 0.0, hip[2] + 0.09)
            high = (neck[0] - 0.085 - 0.1 * drop, 0.0, neck[2] - 0.07)
            sketch.limb(low, high, 0.062, 0.052, look.backpack)

    if pose.stairs:
        draw_stairs(sketch, pose.stairs)
    if sits:
        draw_chair(sketch, behind=True)
    if sits and not table_near:
        draw_table(sketch)
    if arms[0][0] < 0.02:
        draw_arm(*arms[0][1:])
    if sketch.cos > 0:
        draw_backpack()
    if pose.posture == "cycle":
        draw_bicycle(sketch, look.shirt)
    sides = zip((-1, 1), ankles[::-1], strict=True)
    for rank, (k, ankle) in enumerate(
        sorted(sides, key=lambda side: sketch.near((0.0, 0.06 * side[0], 0.0)))
    ):
        top = (hip[0], 0.05 * k, hip[2])
        cloth = look.trousers if rank else shaded(look.trousers, 0.78)
        knee = (top[0] + 0.22, top[1], top[2] + 0.01) if sits else knee_of(top, ankle)
        sketch.limb(top, knee, 0.056, 0.043, cloth)
        sketch.limb(knee, ankle, 0.041, 0.028, cloth)
        f, s, u = ankle
        sketch.limb((f - 0.01, s, u - 0.012), (f + 0.075, s, u - 0.016), 0.024, 0.019, look.shoes)
    draw_torso(sketch, look, hip, neck)
    if arms[0][0] >= 0.02:
        draw_arm(*arms[0][1:])
    if sketch.cos <= 0:
        draw_backpack()
    if sits:
        draw_chair(sketch, behind=False)
    draw_head(sketch, look, neck, pose.head, pose.nod)
    if sits and table_near:
        draw_table(sketch)
    draw_arm(*arms[1][1:])
    return sketch


# Things people use, in the body frame of the person


def draw_chair(sketch: Sketch, behind: bool) -> None:
    steel, seat, sides = (92, 90, 88), (128, 96, 66), (-0.10, 0.10)
    if behind:
        for f in (-0.10, 0.12):
            for s in sides:
                sketch.rod((f, s, 0.22), (f, s, 0.0), 0.010, steel, 0.008)
        board = [(-0.12, -0.12, 0.23), (-0.12, 0.12, 0.23), (0.14, 0.12, 0.23), (0.14, -0.12, 0.23)]
        sketch.face(board, seat)
        sketch.rod((-0.11, 0.0, 0.22), (0.13, 0.0, 0.22), 0.022, seat)
    if behind == (sketch.near((-1.0, 0.0, 0.0)) < 0):
        back = [(-0.11, -0.10, 0.24), (-0.11, 0.10, 0.24), (-0.14, 0.10, 0.52), (-0.14, -0.10, 0.52)]
        sketch.face(back, seat)
        for s in sides:
            sketch.rod((-0.11, s, 0.22), (-0.14, s, 0.53), 0.012, steel)


def draw_table(sketch: Sketch) -> None:
    wood, edge = (176, 140, 96), (120, 92, 60)
    sketch.rod((0.36, 0.0, 0.38), (0.36, 0.0, 0.0), 0.016, (70, 70, 72))
    top = [(0.20, -0.20, 0.41), (0.20, 0.20, 0.41), (0.46, 0.20, 0.41), (0.46, -0.20, 0.41)]
    sketch.face([(f, s, u - 0.03) for f, s, u in top], edge)
    sketch.face(top, wood)
    for a, b in zip(top, top[1:] + top[:1], strict=True):
        sketch.rod((a[0], a[1], 0.40), (b[0], b[1], 0.40), 0.013, edge)
    sketch.rod((0.30, 0.08, 0.43), (0.30, 0.08, 0.46), 0.017, (236, 232, 224), 0.019)


def draw_bicycle(sketch: Sketch, paint: Colour) -> None:
    for f in (-0.30, 0.30):
        turns = [a / 10 * math.pi for a in range(20)]
        rim = [(f + 0.19 * math.cos(a), 0.0, 0.19 + 0.19 * math.sin(a)) for a in turns]
        for a, b in zip(rim, rim[1:] + rim[:1], strict=True):
            sketch.rod(a, b, 0.016, (26, 26, 28))
        for a in range(0, 10, 2):
            sketch.rod(rim[a], rim[a + 10], 0.004, (150, 150, 150))
    saddle, crank, stem = (-0.08, 0.0, 0.50), (0.02, 0.0, 0.18), (0.22, 0.0, 0.52)
    rear, front, head = (-0.30, 0.0, 0.19), (0.30, 0.0, 0.19), (0.20, 0.0, 0.46)
    tubes = (rear, crank), (crank, saddle), (saddle, head), (crank, head), (rear, saddle), (front, stem)
    for a, b in tubes:
        sketch.rod(a, b, 0.014, paint)
    sketch.rod((0.22, -0.13, 0.55), (0.22, 0.13, 0.55), 0.012, (40, 40, 42))


def draw_stairs(sketch: Sketch, direction: int) -> None:
    """Steps rising ahead (+1) or behind (-1), painted from far to near."""
    riser, tread, bottom = (150, 146, 140), (196, 190, 180), -sketch.lift / sketch.height
    for k in range(-3, 4) if sketch.near((1.0, 0.0, 0.0)) > 0 else range(3, -4, -1):
        f0, f1, top = 0.15 * k - 0.075, 0.15 * k + 0.075, 0.085 * k * direction + 0.02
        if top < bottom:
            continue
        for f in (f0, f1):
            sketch.face([(f, -0.30, bottom), (f, 0.30, bottom), (f, 0.30, top), (f, -0.30, top)], riser)
        for s in (-0.30, 0.30):
            side = [(f0, s, bottom), (f1, s, bottom), (f1, s, top), (f0, s, top)]
            sketch.face(side, shaded(riser, 0.9))
        sketch.face([(f0, -0.30, top), (f0, 0.30, top), (f1, 0.30, top), (f1, -0.30, top)], tread)
        for f in (f0, f1):
            sketch.rod((f, -0.30, top), (f, 0.30, top), 0.010, tread)
