"""A person as rounded limbs and flat faces in the body frame, drawn from far to near.

The body frame is (forward, left, up) in units of the person's height, feet at up = 0. Yaw is relative to the
camera: at 0 degrees the person faces it, at +90 the right of the image, at 180 we see the back.
"""

import math

from PIL import Image, ImageDraw

CAMERA_HEIGHT = 1.2  # metres above the floor
SUPERSAMPLE = 2  # draw larger, then reduce: smooth edges

Colour = tuple[int, int, int]
Point = tuple[float, float, float]  # forward, left, up


def shaded(colour: Colour, share: float) -> Colour:
    return tuple(min(255, int(c * share)) for c in colour)


class Sketch:
    """Shapes in metres on the image plane (x right, y up), each with its depth; `body` defines the box."""

    def __init__(self, yaw: float, height: float, distance: float, lift: float):
        self.sin, self.cos = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
        self.height, self.distance, self.lift = height, distance, lift
        self.shapes: list[tuple[float, list[tuple[float, float, float]], Colour]] = []
        self.body: list[tuple[float, float, float]] = []  # x, y, radius

    def place(self, point: Point, radius: float = 0.0) -> tuple[float, float, float]:
        """Body frame -> x, y, radius on the image plane; nearer points move away from the horizon."""
        f, s, u = (v * self.height for v in point)
        x, near, u = f * self.sin + s * self.cos, f * self.cos - s * self.sin, u + self.lift
        return x, u - near * (CAMERA_HEIGHT - u) / self.distance, radius * self.height

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
