"""The towns: what stands along a road, what drives on it, and the palette of each town. Class ids are
AnoVox's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.samples.anovox.raycast import Decal, Solid

(
    ROAD,
    SIDEWALK,
    BUILDING,
    POLE,
    VEGETATION,
    TERRAIN,
    SKY_CLASS,
    PEDESTRIAN,
    CAR,
    STATIC,
    OTHER,
    WATER,
    ROAD_LINE,
    GUARD_RAIL,
    EGO,
) = 1, 2, 3, 6, 9, 10, 11, 12, 14, 20, 22, 23, 24, 28, 214
Colour = tuple[float, float, float]  # albedo, 0..1
KERB = 0.15  # height of the sidewalks, metres

TRAIN_TOWNS = ("Town01", "Town02", "Town03", "Town04", "Town05", "Town06")
HELD_OUT_TOWNS = ("Town07", "Town10")
WEATHERS = tuple(
    f"{sky}{hour}"
    for hour in ("Noon", "Sunset")
    for sky in ("Clear", "Cloudy", "Wet", "WetCloudy", "MidRain", "HardRain", "SoftRain")
)


@dataclass(frozen=True)
class Town:
    """Cross section of the road (metres; the ego drives in the lane about y = 0) and the palette."""

    name: str
    lane: float  # width of each of the three lanes: ego, one to its left, one oncoming
    parking: float  # strip on the right between the ego's lane and the kerb
    sidewalk: float
    asphalt: Colour
    pavement: Colour
    grass: Colour
    walls: tuple[Colour, ...]
    yellow_lines: bool
    trees: float  # trees per metre of road and side
    setback: float  # gap between sidewalk and buildings

    @property
    def right_kerb(self) -> float:
        return -self.lane / 2 - self.parking

    @property
    def left_kerb(self) -> float:
        return 2.5 * self.lane


def build_town(name: str) -> Town:
    """Every town is a fixed draw from its own name, the same in every sample."""
    rng = np.random.default_rng(sum(ord(letter) * 31**k for k, letter in enumerate(name)) % 2**32)
    grey = rng.uniform(0.26, 0.40)
    pavement = rng.uniform(0.45, 0.62)
    walls = tuple(
        tuple(np.clip(rng.uniform(0.3, 0.75) + rng.uniform(-0.08, 0.08, 3), 0, 1)) for _ in range(4)
    )
    return Town(
        name,
        lane=rng.uniform(3.3, 3.7),
        parking=rng.uniform(1.9, 2.4),
        sidewalk=rng.uniform(2.5, 4.0),
        asphalt=(grey, grey, grey * rng.uniform(0.97, 1.06)),
        pavement=(pavement, pavement * 0.98, pavement * rng.uniform(0.88, 0.98)),
        grass=(rng.uniform(0.2, 0.35), rng.uniform(0.33, 0.45), rng.uniform(0.12, 0.2)),
        walls=walls,
        yellow_lines=bool(rng.random() < 0.5),
        trees=rng.uniform(0.02, 0.06),
        setback=rng.uniform(0.5, 5.0),
    )


def vivid(rng: np.random.Generator, hues: tuple[float, float] = (285, 335)) -> Colour:
    """A saturated colour; anomalies and their normal counterparts are of violet to pink hues (degrees)."""
    hue = rng.uniform(*hues) % 360 / 60
    low, high = rng.uniform(0.02, 0.15), rng.uniform(0.75, 0.95)
    ramp = 1 - abs(hue % 2 - 1)
    red, green, blue = ((1, ramp, 0), (ramp, 1, 0), (0, 1, ramp), (0, ramp, 1), (ramp, 0, 1), (1, 0, ramp))[
        int(hue)
    ]
    return tuple(low + (high - low) * part for part in (red, green, blue))


def dull(rng: np.random.Generator) -> Colour:
    grey = rng.uniform(0.08, 0.85)
    return tuple(np.clip(grey + rng.uniform(-0.06, 0.06, 3), 0, 1))


def paint(rng: np.random.Generator) -> Colour:
    """Cars are white, black, dark red or dark blue, one in five oddly coloured; none is as grey as a road."""
    if rng.random() < 0.2:
        return vivid(rng, (60, 375))
    base = ((0.82, 0.82, 0.8), (0.05, 0.05, 0.06), (0.45, 0.06, 0.06), (0.06, 0.12, 0.42))[rng.integers(4)]
    return tuple(np.clip(np.add(base, rng.uniform(-0.04, 0.04, 3)), 0, 1))


def make_car(
    x: float, y: float, rng: np.random.Generator, instance: int, towards: bool = False, **look
) -> list[Solid]:
    """Two boxes, body and cabin; `look` overrides class and pattern (a hump in the shape of a car)."""
    length, width, height = rng.uniform(3.9, 4.8), rng.uniform(1.7, 1.9), rng.uniform(1.4, 1.6)
    colour, yaw = paint(rng), np.pi if towards else 0.0
    forward = -1 if towards else 1
    body = Solid("box", (x, y, 0.6), (length, width, 0.8), colour, CAR, instance, yaw, "car")
    cabin = Solid(
        "box",
        (x - forward * 0.08 * length, y, (1.0 + height) / 2),
        (length * 0.52, width * 0.88, height - 1.0),
        colour,
        CAR,
        instance,
        yaw,
        "glass",
    )
    if look:
        return [
            Solid(part.kind, part.centre, part.size, part.colour, instance=instance, yaw=yaw, **look)
            for part in (body, cabin)
        ]
    return [body, cabin]


def make_person(x: float, y: float, rng: np.random.Generator, instance: int) -> list[Solid]:
    height = rng.uniform(1.5, 1.9)
    return [
        Solid(
            "cylinder",
            (x, y, KERB + (height - 0.3) / 2),
            (0.45, 0.45, height - 0.3),
            paint(rng),
            PEDESTRIAN,
            instance,
        ),
        Solid(
            "ellipsoid",
            (x, y, KERB + height - 0.15),
            (0.24, 0.24, 0.3),
            (0.6, 0.45, 0.36),
            PEDESTRIAN,
            instance,
        ),
    ]


def make_road(
    town: Town, begin: float, end: float, rng: np.random.Generator
) -> tuple[list[Solid], list[Decal]]:
    """All that does not move between `begin` and `end` (metres along the road). Instances count from 1."""
    solids, decals = [], []
    middle, length = (begin + end) / 2, end - begin
    for side, kerb in ((1, town.left_kerb), (-1, town.right_kerb)):
        walk = kerb + side * town.sidewalk / 2
        solids.append(
            Solid("box", (middle, walk, KERB / 2), (length, town.sidewalk, KERB), town.pavement, SIDEWALK)
        )
        front, x = abs(kerb) + town.sidewalk + town.setback, begin
        while x < end:
            width, height = rng.uniform(8, 20), rng.uniform(5, 18)
            deep = front + rng.uniform(0, 3)
            if rng.random() < 0.88:
                wall = town.walls[rng.integers(len(town.walls))]
                solids.append(
                    Solid(
                        "box",
                        (x + width / 2, side * (deep + 5), height / 2),
                        (width, 10, height),
                        wall,
                        BUILDING,
                        0,
                        0.0,
                        "windows",
                    )
                )
                if rng.random() < 0.3:  # an advertisement: strong colours have a place in a town
                    z = rng.uniform(1.6, 3.2)
                    solids.append(
                        Solid(
                            "box",
                            (x + rng.uniform(2, width - 2), side * (deep - 0.1), z),
                            (rng.uniform(1.5, 4), 0.1, rng.uniform(0.8, 2)),
                            vivid(rng, (0, 360)),
                            STATIC,
                        )
                    )
            x += width + (rng.uniform(2, 8) if rng.random() < 0.3 else 0.3)
        for x in begin + rng.uniform(0, length, rng.poisson(town.trees * length)):
            y, crown = kerb + side * rng.uniform(1.0, town.sidewalk), rng.uniform(2, 3.5)
            trunk = rng.uniform(2, 3)
            solids.append(
                Solid("cylinder", (x, y, trunk / 2), (0.3, 0.3, trunk), (0.28, 0.2, 0.13), VEGETATION)
            )
            solids.append(
                Solid(
                    "ellipsoid",
                    (x, y, trunk + crown / 2 - 0.4),
                    (crown, crown, crown),
                    (0.16, 0.33, 0.12),
                    VEGETATION,
                    0,
                    0.0,
                    "leaves",
                )
            )
        for x in np.arange(begin + rng.uniform(0, 20), end, rng.uniform(18, 30)):
            solids.append(
                Solid("cylinder", (x, kerb + side * 0.5, 2.75), (0.16, 0.16, 5.5), (0.3, 0.3, 0.32), POLE)
            )
        for x in begin + rng.uniform(0, length, rng.poisson(0.03 * length)):
            solids += make_person(x, kerb + side * rng.uniform(0.8, town.sidewalk - 0.3), rng, len(solids))
        for x in begin + rng.uniform(0, length, rng.poisson(0.03 * length)):  # dustbins stand at the kerb
            solids.append(
                Solid(
                    "cylinder",
                    (x, kerb + side * 0.45, KERB + 0.45),
                    (0.5, 0.5, 0.9),
                    (0.08, 0.25, 0.12),
                    STATIC,
                    len(solids),
                )
            )
    for x in np.arange(begin + rng.uniform(0, 8), end, 7.5):
        if rng.random() < 0.3:
            solids += make_car(
                x, town.right_kerb + town.parking / 2, rng, len(solids), towards=rng.random() < 0.2
            )
    for x in begin + rng.uniform(0, length, rng.poisson(length / 90)):  # speed bumps: over all lanes
        solids.append(
            Solid(
                "box",
                (x, (town.left_kerb + town.right_kerb) / 2, 0.05),
                (0.7, town.left_kerb - town.right_kerb - 0.4, 0.10),
                (0.75, 0.68, 0.2),
                OTHER,
                len(solids),
                0.0,
                "bump",
            )
        )
    for x in begin + rng.uniform(
        0, length, rng.poisson(length / 90)
    ):  # traffic islands, between the directions
        solids.append(
            Solid("box", (x, 1.5 * town.lane, 0.09), (rng.uniform(3, 6), 0.7, 0.18), town.pavement, SIDEWALK)
        )
        solids.append(
            Solid("cylinder", (x, 1.5 * town.lane, 0.7), (0.18, 0.18, 1.4), (0.85, 0.85, 0.85), POLE)
        )

    line = (0.82, 0.68, 0.18) if town.yellow_lines else (0.85, 0.85, 0.85)
    decals.append(Decal("rectangle", (middle, 1.5 * town.lane), (length, 0.16), line, ROAD_LINE))
    decals.append(Decal("rectangle", (middle, -town.lane / 2), (length, 0.12), (0.85, 0.85, 0.85), ROAD_LINE))
    for x in np.arange(begin, end, 9.0):
        decals.append(Decal("rectangle", (x, town.lane / 2), (3.0, 0.14), (0.85, 0.85, 0.85), ROAD_LINE))
    low, high = town.right_kerb + 0.5, town.left_kerb - 0.5
    for x in begin + rng.uniform(0, length, rng.poisson(length / 7)):
        decals.append(make_stain(x, rng.uniform(low, high), rng))
    return solids, decals


def make_stain(x: float, y: float, rng: np.random.Generator) -> Decal:
    """What a road normally shows: a manhole, a puddle, a repaired patch or a shadow."""
    kind = rng.integers(4)
    if kind == 0:
        return Decal("ellipse", (x, y), (0.8, 0.8), (0.16, 0.15, 0.14), ROAD, opacity=0.9)
    size = (rng.uniform(1.5, 5.0), rng.uniform(1.0, 2.2))
    if kind == 1:
        return Decal("ellipse", (x, y), size, (0.42, 0.47, 0.54), ROAD, yaw=rng.uniform(0, 3), opacity=0.8)
    if kind == 2:
        return Decal("rectangle", (x, y), size, (0.2, 0.2, 0.2), ROAD, yaw=rng.normal(0, 0.1), opacity=0.7)
    return Decal(
        "ellipse", (x, y), (size[0], 4.0), (0.08, 0.08, 0.1), ROAD, yaw=rng.uniform(0, 3), opacity=0.5
    )


def make_hood(x: float, y: float) -> list[Solid]:
    """The ego vehicle as its own sensors see it: the hood and the roof, below the sensors at 1.8 m."""
    look = {"colour": (0.05, 0.05, 0.07), "class_id": EGO, "instance": 1}
    return [
        Solid("box", (x + 1.45, y, 0.72), (1.6, 1.7, 0.30), **look),
        Solid("box", (x - 0.6, y, 1.2), (2.2, 1.6, 0.5), **look),
    ]
