"""The towns: their roads, the objects along and on them, and the colours of objects.

Class ids are AnoVox's. All objects, normal or anomalous, take colours and texture from one function,
`finish`, so that no single pixel reveals an anomaly.
"""

import numpy as np

from datasets.anovox.raycast import Decal, Solid, hue_colour, stand

ROAD, SIDEWALK, BUILDING, POLE, VEGETATION, TERRAIN, SKY_CLASS, PEDESTRIAN = 1, 2, 3, 6, 9, 10, 11, 12
CAR, STATIC, OTHER, ROAD_LINE, AGENT_PEDESTRIAN, AGENT_CAR, EGO = 14, 20, 22, 24, 112, 114, 214
KERB = 0.15  # height of the sidewalks, metres
AGENTS = 0.1  # share of pedestrians and cars with agents' ids, 112 and 114, which are not evaluated

TRAIN_TOWNS = ("Town01", "Town02", "Town03", "Town04", "Town05", "Town06")
HELD_OUT_TOWNS = ("Town07", "Town10HD")
WEATHERS = ("CLEAR_NOON", "CLOUDY_NOON", "WET_NOON", "WET_CLOUDY_NOON", "MID_RAINY_NOON", "HARD_RAIN_NOON",
            "SOFT_RAIN_NOON", "CLEAR_SUNSET", "CLOUDY_SUNSET", "WET_SUNSET", "WET_CLOUDYSUNSET",
            "MID_RAIN_SUNSET", "HARD_RAIN_SUNSET", "SOFT_RAIN_SUNSET")  # fmt: skip
PATTERNS = ("plain", "stripes", "checks", "spots")

Rng = np.random.Generator


class Town:
    """Cross section of the road (metres; the ego's lane is centred on y = 0) and colours. Drawn from the
    town's name, so it is the same in every sample."""

    def __init__(self, name: str):
        rng = np.random.default_rng(sum(ord(letter) * 31**k for k, letter in enumerate(name)) % 2**32)
        grey, light = rng.uniform(0.26, 0.40), rng.uniform(0.45, 0.62)
        self.held_out = name in HELD_OUT_TOWNS
        self.walls = [np.clip(rng.uniform(0.3, 0.75) + rng.uniform(-0.08, 0.08, 3), 0, 1) for _ in range(4)]
        self.lane = rng.uniform(3.3, 3.7)  # width of a lane: the ego's, one to its left, one oncoming
        self.parking = rng.uniform(2.2, 2.6)  # strip between the ego's lane and the right kerb
        self.sidewalk = rng.uniform(2.5, 4.0)
        self.asphalt = (grey, grey, grey * rng.uniform(0.97, 1.06))
        self.pavement = (light, light * 0.98, light * rng.uniform(0.88, 0.98))
        self.grass = (rng.uniform(0.2, 0.35), rng.uniform(0.33, 0.45), rng.uniform(0.12, 0.2))
        self.yellow_lines = rng.random() < 0.5
        self.trees = rng.uniform(0.02, 0.06)  # per metre of road, on each side
        self.setback = rng.uniform(0.5, 5.0)  # gap between sidewalk and buildings
        self.right_kerb, self.left_kerb = -self.lane / 2 - self.parking, 2.5 * self.lane


def paint(rng: Rng, held_out: bool) -> np.ndarray:
    """A random albedo; of six bands of hue, training has three and test (`held_out`) the other three."""
    hue = 120 * rng.integers(3) + rng.uniform(5, 55) + 60 * held_out
    value, saturation = rng.uniform(0.15, 0.95), rng.uniform(0.25, 0.9)
    return hue_colour(hue / 60, saturation, value)


def finish(town: Town, rng: Rng) -> dict:
    """Two colours and a pattern: fields of a Solid or Decal."""
    first, second = paint(rng, town.held_out), paint(rng, town.held_out)
    return {"colour": first, "second": second, "pattern": PATTERNS[rng.integers(len(PATTERNS))]}


def make_car(town: Town, x: float, y: float, rng: Rng, towards: bool = False, **look) -> list[Solid]:
    """A car (body and cabin) or, one time in four, a van (one box); `look` overrides fields of the solids."""
    forward, yaw = (-1, np.pi) if towards else (1, 0.0)
    width, look = rng.uniform(1.7, 1.9), {"class_id": AGENT_CAR if rng.random() < AGENTS else CAR} | look
    look = finish(town, rng) | {"yaw": yaw} | look
    if rng.random() < 0.25:
        length, height = rng.uniform(4.6, 5.4), rng.uniform(1.8, 2.1)
        return [stand("box", x, y, 0.2, (length, width, height), **look | {"car": "body"})]
    length, height = rng.uniform(3.9, 4.8), rng.uniform(1.4, 1.6)
    body = Solid("box", (x, y, 0.6), (length, width, 0.8), **look | {"car": "body"})
    size = (length * 0.52, width * 0.88, height - 1)
    return [body, stand("box", x - forward * 0.08 * length, y, 1, size, **look | {"car": "cabin"})]


def make_person(town: Town, x: float, y: float, rng: Rng) -> list[Solid]:
    height, class_id = rng.uniform(1.5, 1.9), AGENT_PEDESTRIAN if rng.random() < AGENTS else PEDESTRIAN
    look, skin = finish(town, rng) | {"class_id": class_id}, (0.6, 0.45, 0.36)
    body = stand("cylinder", x, y, KERB, (0.45, 0.45, height - 0.3), **look)
    head = (0.24, 0.24, 0.3)
    return [body, stand("ellipsoid", x, y, KERB + height - 0.3, head, colour=skin, class_id=class_id)]


def make_road(town: Town, begin: float, end: float, rng: Rng) -> tuple[list[Solid], list[Decal]]:
    """Everything that does not move between `begin` and `end` (metres along the road)."""
    solids: list[Solid] = []
    middle, length = (begin + end) / 2, end - begin

    def places(per_metre: float) -> np.ndarray:
        return begin + rng.uniform(0, length, rng.poisson(per_metre * length))

    for side, kerb in ((1, town.left_kerb), (-1, town.right_kerb)):
        walk, size = kerb + side * town.sidewalk / 2, (length, town.sidewalk, KERB)
        solids.append(stand("box", middle, walk, 0, size, colour=town.pavement, class_id=SIDEWALK))
        front, x = abs(kerb) + town.sidewalk + town.setback, begin
        while x < end:
            width, height, deep = rng.uniform(8, 20), rng.uniform(5, 18), front + rng.uniform(0, 3)
            if rng.random() < 0.88:
                wall = {"colour": town.walls[rng.integers(4)], "class_id": BUILDING, "pattern": "windows"}
                solids.append(stand("box", x + width / 2, side * (deep + 5), 0, (width, 10, height), **wall))
                if rng.random() < 0.3:  # an advertisement
                    at = (x + rng.uniform(2, width - 2), side * (deep - 0.1), rng.uniform(1.6, 3.2))
                    size = (rng.uniform(1.5, 4), 0.1, rng.uniform(0.8, 2))
                    solids.append(Solid("box", at, size, class_id=STATIC, **finish(town, rng)))
            x += width + (rng.uniform(2, 8) if rng.random() < 0.3 else 0.3)
        for x in places(town.trees):
            y = kerb + side * rng.uniform(1, town.sidewalk)
            crown, trunk, size = rng.uniform(2, 3.5), rng.uniform(2, 3), (0.3, 0.3)
            bark = {"colour": (0.28, 0.2, 0.13), "class_id": VEGETATION}
            solids.append(stand("cylinder", x, y, 0, (*size, trunk), **bark))
            green = bark | {"colour": (0.16, 0.33, 0.12), "pattern": "leaves"}
            solids.append(stand("ellipsoid", x, y, trunk - 0.4, (crown, crown, crown), **green))
        for x in np.arange(begin + rng.uniform(0, 20), end, rng.uniform(18, 30)):
            grey = {"colour": (0.3, 0.3, 0.32), "class_id": POLE}
            solids.append(stand("cylinder", x, kerb + side * 0.5, 0, (0.16, 0.16, 5.5), **grey))
        for x in places(0.03):
            solids += make_person(town, x, kerb + side * rng.uniform(0.8, town.sidewalk - 0.3), rng)
        for x in places(0.03):  # dustbins stand at the kerb
            look = finish(town, rng) | {"class_id": STATIC}
            solids.append(stand("cylinder", x, kerb + side * 0.45, KERB, (0.5, 0.5, 0.9), **look))
    for x in places(1 / 90):  # speed bumps across all lanes
        size = (0.7, town.left_kerb - town.right_kerb - 0.4, 0.10)
        striped = {"colour": (0.75, 0.68, 0.2), "class_id": OTHER, "pattern": "bump"}
        solids.append(stand("box", x, (town.left_kerb + town.right_kerb) / 2, 0, size, **striped))

    white = (0.85, 0.85, 0.85)
    line = (0.82, 0.68, 0.18) if town.yellow_lines else white
    lines = [(middle, 1.5 * town.lane, length, 0.16, line), (middle, -town.lane / 2, length, 0.12, white)]
    lines += [(x, town.lane / 2, 3.0, 0.14, white) for x in np.arange(begin, end, 9.0)]
    decals = [Decal("rectangle", (x, y), (a, b), colour, ROAD_LINE) for x, y, a, b, colour in lines]
    edges = (town.right_kerb + 0.5, town.left_kerb - 0.5)
    return solids, decals + [make_stain(x, rng.uniform(*edges), rng) for x in places(1 / 7)]


def make_stain(x: float, y: float, rng: Rng) -> Decal:
    """A normal mark on the road: a manhole, puddle, repaired patch or shadow; all are grey."""
    kind, size, yaw = rng.integers(4), (rng.uniform(1.5, 5.0), rng.uniform(1.0, 2.2)), rng.uniform(0, 3)
    if kind == 0:
        return Decal("ellipse", (x, y), (0.8, 0.8), (0.16, 0.15, 0.14), ROAD, opacity=0.9)
    if kind == 1:
        return Decal("ellipse", (x, y), size, (0.42, 0.47, 0.54), ROAD, yaw=yaw, opacity=0.8)
    if kind == 2:
        return Decal("rectangle", (x, y), size, (0.2, 0.2, 0.2), ROAD, yaw=rng.normal(0, 0.1), opacity=0.7)
    return Decal("ellipse", (x, y), (size[0], 4.0), (0.08, 0.08, 0.1), ROAD, yaw=yaw, opacity=0.5)


def make_hood(x: float, y: float) -> list[Solid]:
    """The ego vehicle as its own sensors see it: hood and roof, below the sensors at 1.8 m."""
    look = {"colour": (0.05, 0.05, 0.07), "class_id": EGO}
    parts = (((x + 1.45, y, 0.72), (1.6, 1.7, 0.30)), ((x - 0.6, y, 1.2), (2.2, 1.6, 0.5)))
    return [Solid("box", centre, size, **look) for centre, size in parts]
