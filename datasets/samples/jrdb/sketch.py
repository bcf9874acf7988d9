"""A display list of rounded limbs, discs and polygons in metres, and its rasterisation."""

import math

from PIL import Image, ImageDraw

from datasets.samples.jrdb.skeleton import Colour, Point, rotate

CAMERA_HEIGHT = 1.2  # metres above the floor
SUPERSAMPLE = 2  # drawn larger, then reduced: clean edges

Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1


class Sketch:
    """A display list in metres on the image plane: x right, y up, drawn in order; `body` defines the box."""

    def __init__(self, yaw: float, height: float, distance: float, lift: float):
        self.sin, self.cos = rotate(yaw)
        self.height, self.distance, self.lift = height, distance, lift
        self.shapes: list[tuple] = []
        self.body: list[Rectangle] = []
        self.everything: list[Rectangle] = []

    def place(self, p: Point) -> tuple[float, float]:
        """Body frame -> image plane; nearer points move away from the horizon (first order)."""
        f, s, u = (v * self.height for v in p)
        x, near = f * self.sin + s * self.cos, f * self.cos - s * self.sin
        u += self.lift
        return x, u - near * (CAMERA_HEIGHT - u) / self.distance

    def near(self, p: Point) -> float:
        return p[0] * self.cos - p[1] * self.sin

    def limb(
        self, a: Point, b: Point, ra: float, rb: float, colour: Colour, body: bool = True, lit: bool = True
    ) -> None:
        ra, rb = ra * self.height, rb * self.height
        (x1, y1), (x2, y2) = self.place(a), self.place(b)
        self.shapes.append(("limb", x1, y1, ra, x2, y2, rb, colour))
        ends = [(x1 - ra, y1 - ra, x1 + ra, y1 + ra), (x2 - rb, y2 - rb, x2 + rb, y2 + rb)]
        if lit:  # within the limb but for rounding
            bright = tuple(min(255, int(c * 1.16 + 6)) for c in colour)
            self.shapes.append(("limb", x1 - 0.3 * ra, y1, 0.5 * ra, x2 - 0.3 * rb, y2, 0.5 * rb, bright))
        self.reserve(ends, body)

    def rod(self, a: Point, b: Point, radius: float, colour: Colour, other_end: float = 0.0) -> None:
        """A part of a thing: it does not count for the box."""
        self.limb(a, b, radius, other_end or radius, colour, body=False, lit=False)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour, body: bool = False) -> None:
        self.shapes.append(("disc", x, y, rx, ry, colour))
        self.reserve([(x - rx, y - ry, x + rx, y + ry)], body)

    def face(self, points: list[Point], colour: Colour) -> None:
        self.polygon([self.place(p) for p in points], colour)

    def polygon(self, corners: list[tuple[float, float]], colour: Colour) -> None:
        self.shapes.append(("face", corners, colour))
        self.reserve([(x, y, x, y) for x, y in corners], body=False)

    def reserve(self, rectangles: list[Rectangle], body: bool) -> None:
        self.everything += rectangles
        self.body += rectangles if body else []


def extent(rectangles: list[Rectangle]) -> Rectangle:
    """The smallest rectangle round all."""
    x0, y0, x1, y1 = zip(*rectangles, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def draw_sketch(sketch: Sketch, scale: float) -> tuple[Image.Image, float, float]:
    """At `scale` pixels per metre: RGBA sprite, its left and top (pixels from the standing point)."""
    x0, y0, x1, y1 = extent(sketch.everything)
    fine = SUPERSAMPLE if scale > 40 else 2 * SUPERSAMPLE
    left, top = math.floor(x0 * scale) - 1, math.floor(-y1 * scale) - 1
    width, height = math.ceil(x1 * scale) + 2 - left, math.ceil(-y0 * scale) + 2 - top
    canvas = Image.new("RGBA", (width * fine, height * fine))
    draw = ImageDraw.Draw(canvas)
    k = scale * fine
    ox, oy = left * fine, top * fine
    for kind, *shape in sketch.shapes:
        if kind == "limb":
            ax, ay, ra, bx, by, rb, colour = shape
            ax, ay, bx, by, ra, rb = ax * k - ox, -ay * k - oy, bx * k - ox, -by * k - oy, ra * k, rb * k
            length = math.hypot(bx - ax, by - ay)
            if length > 0.5:
                nx, ny = -(by - ay) / length, (bx - ax) / length
                ends = ((ax, ay, ra), (bx, by, rb), (bx, by, -rb), (ax, ay, -ra))
                draw.polygon([(x + nx * r, y + ny * r) for x, y, r in ends], fill=colour)
                draw.ellipse((bx - rb, by - rb, bx + rb, by + rb), fill=colour)
            draw.ellipse((ax - ra, ay - ra, ax + ra, ay + ra), fill=colour)
        elif kind == "disc":
            x, y, rx, ry, colour = shape
            x, y, rx, ry = x * k - ox, -y * k - oy, rx * k, ry * k
            draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)
        else:
            points, colour = shape
            draw.polygon([(x * k - ox, -y * k - oy) for x, y in points], fill=colour)
    return canvas.reduce(fine), left, top
