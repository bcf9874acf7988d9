"""A display list of rounded limbs and flat faces in the body frame, and its rasterisation, far parts first.

The body frame is (forward, left, up) in units of the person's height, feet at up = 0. Facing (yaw) is as the
camera sees it: 0 degrees faces it, +90 faces the right of the image, 180 shows the back.
"""

import math

from PIL import Image, ImageDraw

CAMERA_HEIGHT = 1.2  # metres above the floor
SUPERSAMPLE = 2  # drawn larger, then reduced: clean edges

Colour = tuple[int, int, int]
Point = tuple[float, float, float]  # forward, left, up


def shaded(colour: Colour, share: float) -> Colour:
    return tuple(min(255, int(c * share)) for c in colour)


class Sketch:
    """Shapes in metres on the image plane: x right, y up, each with its depth; `body` defines the box."""

    def __init__(self, yaw: float, height: float, distance: float, lift: float):
        self.sin, self.cos = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
        self.height, self.distance, self.lift = height, distance, lift
        self.shapes: list[tuple[float, list[tuple[float, float, float]], Colour]] = []
        self.body: list[tuple[float, float, float]] = []  # x, y, radius

    def place(self, point: Point, radius: float = 0.0) -> tuple[float, float, float]:
        """Body frame -> x, y, radius on the image plane; what is nearer moves away from the horizon."""
        f, s, u = (v * self.height for v in point)
        x, near, u = f * self.sin + s * self.cos, f * self.cos - s * self.sin, u + self.lift
        return x, u - near * (CAMERA_HEIGHT - u) / self.distance, radius * self.height

    def add(self, points: list[Point], radii: list[float], colour: Colour, over: float = 0.0) -> list[tuple]:
        """`over`: how much nearer than its middle a shape counts as, where it lies on another one."""
        near = sum(p[0] * self.cos - p[1] * self.sin for p in points) / len(points)
        placed = [self.place(p, radius) for p, radius in zip(points, radii, strict=True)]
        self.shapes.append((near + over, placed, colour))
        return placed

    def limb(self, a: Point, b: Point, ra: float, rb: float, colour: Colour) -> None:
        """A part of the body."""
        self.body += self.add([a, b], [ra, rb], colour)

    def rod(self, a: Point, b: Point, radius: float, colour: Colour, over: float = 0.0) -> None:
        """A part of a thing, or an arm: it does not count for the box."""
        self.add([a, b], [radius, radius], colour, over)

    def face(self, points: list[Point], colour: Colour) -> None:
        self.add(points, [0.0] * len(points), colour)


def extent(rounds: list[tuple[float, float, float]]) -> tuple[float, float, float, float]:
    """The smallest rectangle round discs of x, y, radius: x0, y0, x1, y1."""
    edges = [(x - r, y - r, x + r, y + r) for x, y, r in rounds]
    x0, y0, x1, y1 = zip(*edges, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def draw_sketch(sketch: Sketch, scale: float) -> tuple[Image.Image, int, int]:
    """At `scale` pixels per metre: RGBA sprite, its left and top (pixels from the standing point)."""
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
            lit = tuple(min(255, int(c * 1.16 + 6)) for c in colour)  # from the left
            capsule(draw, *[(x - 0.3 * r, y, 0.5 * r) for x, y, r in points], lit)
        else:
            draw.polygon([point[:2] for point in points], fill=colour)
    return canvas.reduce(fine), left, top


def capsule(draw: ImageDraw.ImageDraw, a: tuple, b: tuple, colour: Colour) -> None:
    """Two discs (x, y, radius) and what lies between them."""
    (ax, ay, ra), (bx, by, rb) = a, b
    length = math.hypot(bx - ax, by - ay)
    if length > 0.5:  # not a disc
        nx, ny = -(by - ay) / length, (bx - ax) / length
        ends = ((ax, ay, ra), (bx, by, rb), (bx, by, -rb), (ax, ay, -ra))
        draw.polygon([(x + nx * r, y + ny * r) for x, y, r in ends], fill=colour)
    for x, y, r in {a, b}:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
