"""People as rounded limbs and flat faces, drawn from far to near.

Everything that shows what a person does is drawn: leg phase, chair, bicycle, stairs, arms, the direction of
the head, and whether we see the front (shirt strip, face) or the back (hair, backpack). The body frame is
(forward, left, up) in units of the person's height, feet at up = 0. Yaw is relative to the camera: at 0
degrees the person faces it, at +90 the right of the image, at 180 we see the back.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CAMERA_HEIGHT = 1.2  # metres above the floor
SUPERSAMPLE = 2  # draw larger, then reduce: smooth edges
THIGH, SHANK, SPINE = 0.25, 0.25, 0.33
# Elbow and hand relative to the shoulder: (forward, outward, up).
ARMS = {
    "hang": ((-0.01, 0.03, -0.15), (0.02, 0.04, -0.29)),
    "swing": ((0.09, 0.025, -0.14), (0.16, 0.02, -0.26)),  # forward is multiplied by the swing
    "pocket": ((-0.06, 0.07, -0.13), (0.03, 0.03, -0.23)),
    "crossed": ((0.03, 0.05, -0.14), (0.09, -0.10, -0.10)),
    "phone": ((0.04, 0.04, -0.14), (0.16, -0.05, -0.05)),
    "eat": ((0.08, 0.05, -0.12), (0.11, -0.06, 0.06)),
    "wave": ((0.02, 0.08, 0.10), (0.02, 0.12, 0.25)),
    "grip": ((0.10, 0.05, -0.12), (0.24, 0.08, -0.16)),
    "table": ((0.03, 0.05, -0.14), (0.17, 0.00, -0.15)),
}
# Elbow and hand relative to the shoulder: (toward the partner, up).
REACHES = {
    "open": ((0.10, -0.11), (0.24, -0.09)),
    "raised": ((0.15, -0.02), (0.20, 0.19)),
    "point": ((0.14, 0.0), (0.29, 0.04)),
    "hug": ((0.12, -0.06), (0.22, 0.00)),
}

Colour = tuple[int, int, int]
Point = tuple[float, float, float]  # forward, left, up


def shaded(colour: Colour, share: float) -> Colour:
    return tuple(min(255, int(c * share)) for c in colour)


class Person:
    """What does not change over time: height in metres, build (1 = average), colours, belongings, habits."""

    def __init__(self, number: int, rng: np.random.Generator):
        def colour(low: int, high: int) -> Colour:
            return tuple(int(v) for v in np.clip(rng.integers(low, high) + rng.integers(-60, 61, 3), 12, 245))

        self.number = number
        self.habit = rng.random(3).tolist()  # uniform in [0, 1); they decide on arms and manners
        self.skew = float(rng.normal(0, 12))  # degrees by which this person's facing is off
        self.skin = shaded((232, 190, 160), rng.uniform(0.5, 1.05))
        hairs = [(24, 20, 20), (60, 38, 24), (96, 66, 38), (150, 120, 76), (120, 118, 116)]
        self.hair = hairs[rng.choice(5, p=[0.4, 0.27, 0.15, 0.1, 0.08])]
        grey = int(rng.integers(24, 110))
        self.trousers = (grey, grey + int(rng.integers(0, 16)), grey + int(rng.integers(4, 40)))
        grown = rng.random() > 0.3
        self.height = float(np.clip(rng.normal(1.71, 0.09), 1.48, 1.95) if grown else rng.uniform(1.18, 1.5))
        self.build = float(rng.uniform(0.9, 1.15))
        self.top, self.shirt, self.shoes = colour(25, 130), colour(170, 235), colour(25, 120)
        self.long_hair = rng.random() < 0.4
        self.backpack = colour(30, 170) if rng.random() < 0.35 else None


@dataclass
class Seen:
    """A person in one frame: who, where, and doing what. Angles are in degrees relative to the camera."""

    person: Person
    cluster: int
    place: int  # in the cluster
    member: bool  # of an interacting group
    azimuth: float
    distance: float
    rise: float  # metres by which the floor is higher here
    posture: str  # stand | walk | sit | bend | cycle | upstairs | downstairs
    phase: float  # of the legs, radians
    yaw: float
    head: float
    nod: float  # 0 upright, 1 looking down
    arms: tuple[str, str]  # left and right, of ARMS or REACHES
    toward: float  # direction of an arm that reaches out


class Sketch:
    """A person's shapes in metres on the image plane (x right, y up), each with its depth; `body`: the discs
    (x, y, radius) that define the box."""

    def __init__(self, seen: Seen):
        self.seen, self.person, self.stairs = seen, seen.person, "stairs" in seen.posture
        self.sin, self.cos = math.sin(math.radians(seen.yaw)), math.cos(math.radians(seen.yaw))
        self.lift = 0.18 if self.stairs else 0.0
        self.shapes: list[tuple[float, list[tuple[float, float, float]], Colour]] = []
        self.body: list[tuple[float, float, float]] = []
        self.hip, ankles, lean = legs(seen)
        self.forward, self.up = math.sin(math.radians(lean)), math.cos(math.radians(lean))
        self.neck = self.spine(SPINE)
        for side, ankle in zip((1, -1), ankles, strict=True):
            self.draw_leg(side, ankle)
        self.draw_trunk()
        for side, arm in zip((1, -1), seen.arms, strict=True):
            self.draw_arm(side, arm)
        self.draw_head()
        if seen.posture == "sit":
            self.draw_seat()
        if seen.posture == "cycle":
            self.draw_bicycle()
        if self.stairs:
            self.draw_stairs(1 if seen.posture == "upstairs" else -1)

    def place(self, point: Point, radius: float = 0.0) -> tuple[float, float, float]:
        """Body frame -> x, y, radius on the image plane; nearer points move away from the horizon."""
        height = self.person.height
        f, s, u = (v * height for v in point)
        x, near, u = f * self.sin + s * self.cos, f * self.cos - s * self.sin, u + self.lift
        return x, u - near * (CAMERA_HEIGHT - u) / self.seen.distance, radius * height

    def add(self, points: list[Point], radii: list[float], colour: Colour, over: float = 0.0) -> list[tuple]:
        """`over` moves a shape that lies on another one nearer in the drawing order."""
        near = sum(p[0] * self.cos - p[1] * self.sin for p in points) / len(points)
        placed = [self.place(p, radius) for p, radius in zip(points, radii, strict=True)]
        self.shapes.append((near + over, placed, colour))
        return placed

    def limb(self, a: Point, b: Point, ra: float, rb: float, colour: Colour) -> None:
        """A part of the body, which counts for the box."""
        self.body += self.add([a, b], [ra, rb], colour)

    def rod(self, a: Point, b: Point, radius: float, colour: Colour, over: float = 0.0) -> None:
        """A part of an object, or an arm, which does not count for the box."""
        self.add([a, b], [radius, radius], colour, over)

    def face(self, points: list[Point], colour: Colour) -> None:
        self.add(points, [0.0] * len(points), colour)

    def slab(self, f0: float, f1: float, half: float, u0: float, u1: float, colour: Colour) -> None:
        """A rectangle across the body from (f0, u0) to (f1, u1)."""
        self.face([(f0, -half, u0), (f0, half, u0), (f1, half, u1), (f1, -half, u1)], colour)

    def spine(self, along: float, ahead: float = 0.0, side: float = 0.0) -> Point:
        """The point `along` the spine, `ahead` of it and to its `side`, in the body frame."""
        f, _, u = self.hip
        return f + along * self.forward + ahead * self.up, side, u + along * self.up - ahead * self.forward

    def draw_leg(self, side: int, ankle: Point) -> None:
        top = (self.hip[0], 0.05 * side, self.hip[2])
        knee, cloth = knee_of(top, ankle), shaded(self.person.trousers, 1 if side > 0 else 0.78)
        self.limb(top, knee, 0.056, 0.043, cloth)
        self.limb(knee, ankle, 0.041, 0.028, cloth)
        f, s, u = ankle
        self.limb((f - 0.01, s, u - 0.012), (f + 0.075, s, u - 0.016), 0.024, 0.019, self.person.shoes)

    def draw_trunk(self) -> None:
        """The front shows the shirt under an open jacket, the back shows the backpack."""
        at, person = self.spine, self.person
        for k in (1, 0, -1):
            low, high = (
                at(0.0, side=0.035 * k * person.build),
                at(SPINE - 0.045, side=0.055 * k * person.build),
            )
            self.limb(low, high, 0.056, 0.062, person.top)
            self.body.append(self.place(at(SPINE / 2, side=0.03 * k), 0.15))  # the box has room for arms
        self.rod(at(0.02, 0.05), at(SPINE - 0.05, 0.05), 0.026, person.shirt, over=0.03)
        if person.backpack:
            self.rod(at(0.09, -0.085), at(SPINE - 0.07, -0.085), 0.06, person.backpack)

    def draw_arm(self, side: int, arm: str) -> None:
        """Arms do not count for the box (trunk, head and legs do): a wide box would give the answer away."""
        f, _, u = self.neck
        shoulder = f - 0.015 * self.forward, 0.118 * self.person.build * side, u - 0.03 * self.up
        if arm in ARMS:
            swing = -side * math.sin(self.seen.phase) if arm == "swing" else 1
            bends = [(f * swing, s * side, u) for f, s, u in ARMS[arm]]
        else:
            toward = math.radians(self.seen.toward - self.seen.yaw)
            sin, cos = math.sin(toward), math.cos(toward)
            bends = [(along * cos, along * sin + 0.02 * side, u) for along, u in REACHES[arm]]
        elbow, hand = (tuple(np.add(shoulder, bend)) for bend in bends)
        self.rod(shoulder, elbow, 0.034, self.person.top)
        self.rod(elbow, hand, 0.027, self.person.skin, over=0.02)
        self.rod(hand, hand, 0.034, self.person.skin, over=0.02)
        f, s, u = hand
        if arm == "phone":
            self.rod((f + 0.02, s, u + 0.02), (f + 0.03, s, u + 0.07), 0.022, (20, 22, 30), over=0.03)
            self.rod((f + 0.01, s, u + 0.03), (f + 0.02, s, u + 0.06), 0.014, (150, 200, 240), over=0.04)
        if arm == "eat":
            self.rod(hand, (f, s, u + 0.03), 0.026, (214, 120, 60), over=0.03)

    def draw_head(self) -> None:
        """Hair all around; skin, nose and eyes in front."""
        person, nod, turned = self.person, self.seen.nod, math.radians(self.seen.head - self.seen.yaw)
        sin, cos = math.sin(turned), math.cos(turned)
        f, s, u = self.neck[0] + 0.02 + 0.05 * nod, self.neck[1], self.neck[2] + 0.095 - 0.02 * nod

        def at(ahead: float, left: float, up: float) -> Point:
            return (f + ahead * cos - left * sin, s + ahead * sin + left * cos, u + up)

        self.limb(self.neck, (f, s, u), 0.028, 0.028, person.skin)
        self.limb(at(-0.012, 0, 0.008), at(-0.012, 0, 0.008), 0.084, 0.084, person.hair)
        if person.long_hair:
            self.rod(at(-0.03, 0, 0), at(-0.035, 0, -0.06), 0.07, person.hair)
        low = -0.008 - 0.02 * nod
        self.rod(at(0.033, 0, low + 0.006), at(0.033, 0, low - 0.008), 0.058, person.skin, over=0.02)
        self.rod(at(0.080, 0, low), at(0.080, 0, low), 0.013, shaded(person.skin, 0.9), over=0.02)
        for side in (-0.034, 0.034):
            eye = at(0.060, side, low + 0.012)
            self.rod(eye, eye, 0.010, (28, 24, 26), over=0.02)

    def draw_seat(self) -> None:
        """A chair, and a table with a cup on it."""
        steel, seat, wood = (92, 90, 88), (128, 96, 66), (176, 140, 96)
        for s in (-0.10, 0.10):
            for f in (-0.10, 0.12):
                self.rod((f, s, 0.22), (f, s, 0.0), 0.010, steel)
            self.rod((-0.11, s, 0.22), (-0.14, s, 0.53), 0.012, steel)
        self.slab(-0.12, 0.14, 0.12, 0.23, 0.23, seat)
        self.rod((-0.11, 0.0, 0.22), (0.13, 0.0, 0.22), 0.022, seat)
        self.slab(-0.11, -0.14, 0.10, 0.24, 0.52, seat)
        self.rod((0.36, 0.0, 0.38), (0.36, 0.0, 0.0), 0.016, (70, 70, 72))
        self.slab(0.20, 0.46, 0.20, 0.41, 0.41, wood)
        for f in (0.20, 0.46):
            self.rod((f, -0.20, 0.40), (f, 0.20, 0.40), 0.013, shaded(wood, 0.68))
        self.rod((0.30, 0.08, 0.43), (0.30, 0.08, 0.46), 0.018, (236, 232, 224), over=0.04)

    def draw_bicycle(self) -> None:
        turns = [a / 10 * math.pi for a in range(21)]
        for f in (-0.30, 0.30):
            rim = [(f + 0.19 * math.cos(a), 0.0, 0.19 + 0.19 * math.sin(a)) for a in turns]
            for a, b in itertools.pairwise(rim):
                self.rod(a, b, 0.016, (26, 26, 28))
        saddle, crank, stem = (-0.08, 0.0, 0.50), (0.02, 0.0, 0.18), (0.22, 0.0, 0.52)
        rear, front, head = (-0.30, 0.0, 0.19), (0.30, 0.0, 0.19), (0.20, 0.0, 0.46)
        tubes = (rear, crank), (crank, saddle), (saddle, head), (crank, head), (rear, saddle), (front, stem)
        for a, b in tubes:
            self.rod(a, b, 0.014, self.person.shirt)
        self.rod((0.22, -0.13, 0.55), (0.22, 0.13, 0.55), 0.012, (40, 40, 42))

    def draw_stairs(self, direction: int) -> None:
        """Steps rising ahead (+1) or behind (-1)."""
        bottom = -self.lift / self.person.height
        for k in range(-3, 4):
            f0, f1, top = 0.15 * k - 0.075, 0.15 * k + 0.075, 0.085 * k * direction + 0.02
            if top < bottom:
                continue
            for f in (f0, f1):
                self.slab(f, f, 0.30, bottom, top, (150, 146, 140))
                self.rod((f, -0.30, top), (f, 0.30, top), 0.010, (196, 190, 180))
            for s in (-0.30, 0.30):
                self.face([(f0, s, bottom), (f1, s, bottom), (f1, s, top), (f0, s, top)], (135, 131, 126))
            self.slab(f0, f1, 0.30, top, top, (196, 190, 180))


def legs(seen: Seen) -> tuple[Point, list[Point], float]:
    """-> hip centre, [left ankle, right ankle], forward lean of the spine in degrees."""
    swing, lift = math.sin(seen.phase), math.cos(seen.phase)
    if seen.posture == "walk":  # the feet are never side by side, and the rear one is lifted
        ahead = math.copysign(1, swing)
        stride = 0.09 * ahead + 0.11 * swing
        feet = [(stride * k, 0.035 * k, 0.035 + 0.16 * (k == -ahead)) for k in (1, -1)]
        return (0.0, 0.0, 0.52 - 0.03 * abs(swing)), feet, 6.0
    if "stairs" in seen.posture:
        up = 1 if seen.posture == "upstairs" else -1
        feet = [(0.10 * k, 0.04 * k, 0.055 + 0.09 * k * up) for k in ((1, -1) if swing > 0 else (-1, 1))]
        return (0.0, 0.0, 0.50), feet, 12.0 * max(up, 0)
    if seen.posture == "sit":
        return (0.0, 0.0, 0.27), [(0.20, 0.06 * k, 0.035) for k in (1, -1)], 4.0
    if seen.posture == "cycle":
        pedals = [(0.06 + 0.08 * k * swing, 0.04 * k, 0.17 + 0.08 * k * lift) for k in (1, -1)]
        return (-0.06, 0.0, 0.55), pedals, 32.0
    if seen.posture == "bend":
        return (-0.06, 0.0, 0.46), [(0.0, 0.06 * k, 0.035) for k in (1, -1)], 68.0
    return (0.0, 0.0, 0.532), [(0.01 * k, 0.075 * k, 0.035) for k in (1, -1)], 0.0


def knee_of(hip: Point, ankle: Point) -> Point:
    """The knee of a two-link leg that bends forward (law of cosines in the forward-up plane)."""
    df, du = ankle[0] - hip[0], ankle[2] - hip[2]
    reach = min(math.hypot(df, du), THIGH + SHANK - 1e-4)
    bulge = math.sqrt(THIGH**2 - (reach / 2) ** 2) / reach
    return hip[0] + df / 2 - bulge * du, (hip[1] + ankle[1]) / 2, hip[2] + du / 2 + bulge * df


def extent(rounds: list[tuple[float, float, float]]) -> tuple[float, float, float, float]:
    """The bounding box x0, y0, x1, y1 of discs (x, y, radius)."""
    edges = [(x - r, y - r, x + r, y + r) for x, y, r in rounds]
    x0, y0, x1, y1 = zip(*edges, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def draw_sketch(sketch: Sketch, scale: float) -> tuple[Image.Image, int, int]:
    """RGBA sprite at `scale` pixels per metre, and its left and top in pixels from the standing point."""
    x0, y0, x1, y1 = extent([point for _, points, _ in sketch.shapes for point in points])
    fine = SUPERSAMPLE if scale > 40 else 2 * SUPERSAMPLE
    left, top = math.floor(x0 * scale) - 1, math.floor(-y1 * scale) - 1
    width, height = math.ceil(x1 * scale) + 2 - left, math.ceil(-y0 * scale) + 2 - top
    canvas = Image.new("RGBA", (width * fine, height * fine))
    draw = ImageDraw.Draw(canvas)
    k = scale * fine
    for _, points, colour in sorted(sketch.shapes, key=lambda shape: shape[0]):
        points = [(x * k - left * fine, -y * k - top * fine, r * k) for x, y, r in points]
        if points[0][2]:
            capsule(draw, *points, colour)
            lit = tuple(min(255, int(c * 1.16 + 6)) for c in colour)  # light from the left
            capsule(draw, *[(x - 0.3 * r, y, 0.5 * r) for x, y, r in points], lit)
        else:
            draw.polygon([point[:2] for point in points], fill=colour)
    return canvas.reduce(fine), left, top


def capsule(draw: ImageDraw.ImageDraw, a: tuple, b: tuple, colour: Colour) -> None:
    """Draw two discs (x, y, radius) and the area between them."""
    (ax, ay, ra), (bx, by, rb) = a, b
    length = math.hypot(bx - ax, by - ay)
    if length > 0.5:  # not a disc
        nx, ny = -(by - ay) / length, (bx - ax) / length
        ends = ((ax, ay, ra), (bx, by, rb), (bx, by, -rb), (ax, ay, -ra))
        draw.polygon([(x + nx * r, y + ny * r) for x, y, r in ends], fill=colour)
    for x, y, r in {a, b}:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
