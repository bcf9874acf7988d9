"""One person as a picture: the skeleton turned to its facing and dressed, with what it uses, back to front.

Everything that tells what a person does is drawn: leg phase, chair, bicycle, stairs, arms, a head turned to
somebody, and front (shirt strip, face) against back (hair, backpack).
"""

import math

from datasets.samples.jrdb.skeleton import Colour, Look, Point, Pose, arm_joints, knee_of, legs, rotate
from datasets.samples.jrdb.sketch import Sketch

SPINE = 0.33


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
    dark = tuple(int(c * 0.72) for c in look.skin)
    if abs(sin) > 0.25:
        sketch.disc(x + 1.02 * r * sin, low - 0.02 * r, 0.20 * r, 0.15 * r, look.skin)
    sketch.disc(x + 0.62 * r * sin, low - 0.50 * r, 0.26 * r * (0.4 + 0.6 * max(cos, 0.2)), 0.07 * r, dark)
    for side in (-30, 30):
        es, ec = rotate(yaw + side)
        if ec > 0.1:
            sketch.disc(x + 0.86 * r * es, low + 0.14 * r, 0.07 * r + 0.07 * r * ec, 0.13 * r, (28, 24, 26))


def draw_torso(sketch: Sketch, look: Look, hip: Point, neck: Point) -> None:
    """A rounded trunk; its width follows the facing, and only the front shows the shirt."""
    k = look.build
    wide, deep = 0.092 * k, 0.066 * k
    half = math.hypot(wide * sketch.cos, deep * sketch.sin)
    (xh, yh), (xn, yn) = sketch.place(hip), sketch.place(neck)
    h = sketch.height
    low, high = 0.86 * half, 1.12 * half
    axis = math.hypot(xn - xh, yn - yh) or 1.0
    px, py = (yn - yh) / axis, -(xn - xh) / axis  # unit vector across the trunk
    edges = ((xh, yh, -low), (xh, yh, low), (xn, yn, high), (xn, yn, -high))
    corners = [(x + half * h * px, y + half * h * py) for x, y, half in edges]
    sketch.limb(hip, neck, low, high * 0.55, look.top)
    sketch.polygon(corners, look.top)
    shade = tuple(int(c * 0.82) for c in look.top)
    right_half = zip(corners, [corners[k] for k in (1, 1, 2, 2)], strict=True)
    sketch.polygon([((a + b) / 2, (c + d) / 2) for (a, c), (b, d) in right_half], shade)
    room = [(x - 0.075 * h, y, x + 0.075 * h, y) for x, y in corners]
    sketch.reserve(room, body=True)  # for arms that hang
    if sketch.cos > -0.3:  # the open jacket: a light strip that slides with the facing
        slide, strip = 0.075 * k * h * sketch.sin, 0.030 * h * max(0.35, sketch.cos)
        base = (xh, yh), (xn, yn)
        left = [(x + (slide - strip) * px, y + (slide - strip) * py) for x, y in base]
        right = [(x + (slide + strip) * px, y + (slide + strip) * py) for x, y in base]
        sketch.polygon([left[0], right[0], right[1], left[1]], look.shirt)


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

    if pose.stairs:
        draw_stairs(sketch, pose.stairs)
    if pose.posture == "sit":
        draw_chair(sketch, behind=True)
    table_near = sketch.near((1.0, 0.0, 0.0)) > 0
    if pose.posture == "sit" and not table_near:
        draw_table(sketch)

    def draw_arm(arm: tuple) -> None:
        _, mode, shoulder, elbow, hand = arm
        # Boxes are drawn around trunk, head and legs: an outstretched hand must not widen them and give
        # the answer away.
        sketch.limb(shoulder, elbow, 0.036, 0.030, look.top, body=False)
        sketch.limb(elbow, hand, 0.029, 0.024, look.skin, body=False)
        sketch.limb(hand, hand, 0.034, 0.034, look.skin, body=False)
        if mode == "phone":
            f, s, u = hand
            for df, low, high, r, colour in (
                (0.02, 0.02, 0.07, 0.022, (20, 22, 30)),
                (0.01, 0.03, 0.06, 0.014, (150, 200, 240)),
            ):
                sketch.limb((f + df, s, u + low), (f + df + 0.01, s, u + high), r, r, colour, False, False)
        if mode == "eat":
            sketch.limb(hand, (hand[0], hand[1], hand[2] + 0.03), 0.026, 0.026, (214, 120, 60), False, False)

    def draw_backpack() -> None:
        if look.backpack:
            drop = (neck[0] - hip[0]) * 0.45
            low = (hip[0] - 0.085, 0.0, hip[2] + 0.09)
            high = (neck[0] - 0.085 - 0.1 * drop, 0.0, neck[2] - 0.07)
            sketch.limb(low, high, 0.062, 0.052, look.backpack)

    if arms[0][0] < 0.02:
        draw_arm(arms[0])
    if sketch.cos > 0:
        draw_backpack()
    if pose.posture == "cycle":
        draw_bicycle(sketch, look.shirt)
    far_first = sorted(
        (sketch.near((0.0, 0.06 * k, 0.0)), k, a) for k, a in zip((1, -1), ankles, strict=True)
    )
    for rank, (_, k, ankle) in enumerate(far_first):
        top = (hip[0], 0.05 * k, hip[2])
        cloth = look.trousers if rank else tuple(int(c * 0.78) for c in look.trousers)
        knee = (top[0] + 0.22, top[1], top[2] + 0.01) if pose.posture == "sit" else knee_of(top, ankle)
        sketch.limb(top, knee, 0.056, 0.043, cloth)
        sketch.limb(knee, ankle, 0.041, 0.028, cloth)
        f, s, u = ankle
        sketch.limb((f - 0.01, s, u - 0.012), (f + 0.075, s, u - 0.016), 0.024, 0.019, look.shoes)
    draw_torso(sketch, look, hip, neck)
    if arms[0][0] >= 0.02:
        draw_arm(arms[0])
    if sketch.cos <= 0:
        draw_backpack()
    if pose.posture == "sit":
        draw_chair(sketch, behind=False)
    draw_head(sketch, look, neck, pose.head, pose.nod)
    if pose.posture == "sit" and table_near:
        draw_table(sketch)
    draw_arm(arms[1])
    return sketch


# Things people use, in the body frame of the person


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
