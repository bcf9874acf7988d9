"""One drive of 20 seconds: the objects in each recorded frame, and which of them is anomalous.

A positive frame shows an anomaly on the carriageway, 6.5 to 13 m ahead. Every frame, positive or not, also
shows 0 to 7 normal counterparts of the same shapes, colours, textures and distances, on the parking strip or
the sidewalk. Traffic keeps clear of the anomaly's place whether the anomaly is there or not. So no pixel,
patch, total of colours, edges or points, or gap in the traffic reveals the label. It follows only from where
an object is, its shape and size, and whether camera and LiDAR agree about it. Kinds of anomalies:

both      a solid object: either sensor can tell
camera    a flat object (spilt paint, cardboard): no LiDAR return differs from the road's
lidar     a solid painted like the road behind it, as in glare: no pixel differs
conflict  each sensor alone sees something normal: a car-shaped hump painted like the road (a car is normal
          where cars drive), or the picture of a car without a return, as in a mirror
"""

from dataclasses import dataclass, field

import numpy as np

from datasets.anovox.raycast import Solid, hue_colour, stand
from datasets.samples.anovox.rays import Decal

# Class ids are AnoVox's.
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

KINDS = ("both", "camera", "lidar", "conflict")
# A perfect camera or LiDAR alone finds 60%, so it reaches AUROC .60 + .40 / 2 = .80.
SHARES = (0.32, 0.28, 0.28, 0.12)
COUNTERPARTS = 7  # at most; the varying number hides the one object that an anomaly adds
AHEAD = (6.5, 13.0)  # metres to an anomaly or counterpart
SOLID_SHAPES = (("crate", "barrel", "ball"), ("sofa", "log", "animal"))  # of train, and held out for test
FLAT_SHAPES = (("sheet", "spill"), ("cross",))
CATEGORY = {"crate": "home", "barrel": "special", "ball": "home", "sofa": "home", "log": "nature",
            "animal": "animal", "sheet": "falling", "spill": "special", "cross": "falling",
            "phantom": "special", "hump": "special"}  # fmt: skip
CATEGORY_IDS = {"home": 29, "animal": 30, "nature": 31, "special": 32, "falling": 34}
CLASS_IDS = {name: CATEGORY_IDS[category] for name, category in CATEGORY.items()}
WAITING = 60.0  # metres above the road, out of all sensors' view, where an anomaly hangs before it drops

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
    """Two colours and a pattern: fields of a Solid or Decal. All objects, normal or anomalous, take them from
    here, so that no single pixel reveals an anomaly."""
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


@dataclass
class Event:
    """An object ahead of the ego: an anomaly on the carriageway, or a normal counterpart beside it."""

    kind: str
    name: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    solids: list[Solid] = field(default_factory=list)
    decals: list[Decal] = field(default_factory=list)


@dataclass
class Frame:
    number: int
    eye: np.ndarray  # (3,), the place of all sensors
    solids: list[Solid]
    decals: list[Decal]
    event: Event  # the anomaly
    anomalous: bool  # it is present; whether a sensor sees it is decided by the labels


def plan_scenario(town: Town, anomalous: bool, kinds: list[str], seed: list[int]) -> tuple[str, list[Frame]]:
    """Weather and frames of a drive, spread over 20 s at 10 Hz; `kinds`: of the event in each frame."""
    rng = np.random.default_rng(seed)
    weather, frames = WEATHERS[rng.integers(len(WEATHERS))], len(kinds)
    ticks = 200 // frames
    first = int(rng.integers(826, 990))  # like CARLA's counter: not zero-padded; the drive passes 999 -> 1000
    step = rng.uniform(4.5, 7.0) * 25 / max(ticks, 10) * ticks / 10
    # The road reaches behind the LiDAR's range, so that no scan shows which frame is the first.
    solids, decals = make_road(town, -100, step * frames + 90, rng)
    positive = anomalous & (rng.random(frames) < 0.43)  # wherever in the drive: the place tells nothing
    positive[rng.integers(frames)] |= anomalous

    planned = []
    for k in range(frames):
        x, y = 10 + k * step, rng.uniform(-0.35, 0.35)
        event = draw_anomaly(kinds[k], town, x, rng)
        beside = [draw_counterpart(town, x, rng) for _ in range(rng.integers(COUNTERPARTS + 1))]
        moving, flat = draw_traffic(town, x, [event, *beside], rng)
        shown = beside + [event] * bool(positive[k])
        near = [s for s in solids if -25 - s.size[0] / 2 < s.centre[0] - x < 90 + s.size[0] / 2]
        near += moving + make_hood(x, y) + [part for each in shown for part in each.solids]
        marks = [decal for decal in decals if abs(decal.centre[0] - x) < 60 + decal.size[0] / 2] + flat
        marks += [mark for each in shown for mark in each.decals]
        eye = np.array((x, y, 1.8))
        planned.append(Frame(first + k * ticks, eye, near, marks, event, bool(positive[k])))
    return weather, planned


def draw_traffic(town: Town, x: float, events: list[Event], rng: Rng) -> tuple[list[Solid], list[Decal]]:
    """Cars on lanes and strip, and stains, around the ego at x; no car in or right before one of `events`."""
    solids: list[Solid] = []
    taken = [(event.centre[0] - x, event.centre[1], 3.0) for event in events]
    strip = town.right_kerb + town.parking / 2
    lanes = [(lane * town.lane, lane == 2, share) for lane, share in ((0, 0.35), (1, 0.35), (2, 0.45))]
    for middle, towards, share in [*lanes, (strip, False, 0.4), (strip, False, 0.4)]:
        y = middle + rng.uniform(-0.25, 0.25)
        if rng.random() >= share:
            continue
        for _ in range(8):
            ahead = rng.uniform(9.5 if middle == 0 else 5, 30)
            if all(abs(y - other) > 2.2 or abs(ahead - far) > 2.6 + room for far, other, room in taken):
                taken.append((ahead, y, 2.6))
                solids += make_car(town, x + ahead, y, rng, towards)
                break
    stains, across = range(rng.poisson(0.8)), (town.right_kerb + 1, 2 * town.lane)
    return solids, [make_stain(x + rng.uniform(5, 18), rng.uniform(*across), rng) for _ in stains]


def draw_anomaly(kind: str, town: Town, x: float, rng: Rng) -> Event:
    """An anomaly on the carriageway ahead of the ego at x."""
    at, y = x + rng.uniform(*AHEAD), rng.uniform(-1.1, 1.5 * town.lane - 0.6)
    if kind == "conflict":
        name, y = ("phantom", "hump")[rng.integers(2)], rng.integers(2) * town.lane + rng.uniform(-0.3, 0.3)
        seen_by = "camera" if name == "phantom" else "lidar"
        at += 1.5  # to the middle of the car
        solids = make_car(town, at, y, rng, class_id=CLASS_IDS[name], seen_by=seen_by)
        return Event(kind, name, (at, y, 0.8), (4.4, 1.8, 1.6), solids)
    name = str(rng.choice((FLAT_SHAPES if kind == "camera" else SOLID_SHAPES)[town.held_out]))
    if kind == "camera":
        return draw_flat(town, name, min(at, x + 12), y, CLASS_IDS[name], rng)
    look = {"class_id": CLASS_IDS[name], "seen_by": "lidar" if kind == "lidar" else "both"}
    return draw_solid(kind, name, at, y, 0.0, rng, **finish(town, rng), **look)


def draw_counterpart(town: Town, x: float, rng: Rng) -> Event:
    """The same kinds of objects with a normal class, on the parking strip or, if solid, on a sidewalk."""
    at, y, base = x + rng.uniform(*AHEAD), town.right_kerb + rng.uniform(0.7, town.parking - 0.9), 0.0
    if rng.random() < 0.45:
        return draw_flat(town, str(rng.choice(FLAT_SHAPES[town.held_out])), min(at, x + 12), y, OTHER, rng)
    if rng.random() < 0.35:
        side = rng.integers(2)
        y, base = rng.uniform(0.9, town.sidewalk - 0.4), KERB
        y = town.left_kerb + y if side else town.right_kerb - y
        at += 4.0 * side + 1.0  # else it would be out of view
    name = str(rng.choice(SOLID_SHAPES[town.held_out]))
    return draw_solid("both", name, at, y, base, rng, **finish(town, rng), class_id=OTHER)


def draw_flat(town: Town, name: str, x: float, y: float, class_id: int, rng: Rng) -> Event:
    """A flat object, rotated so little that it also fits beside the lane."""
    size, shape = (rng.uniform(1.8, 3.4), rng.uniform(1.0, 1.7)), {"sheet": "rectangle", "spill": "ellipse"}
    look = finish(town, rng) | {"class_id": class_id, "yaw": rng.normal(0, 0.25)}
    decals = [Decal(shape.get(name, name), (x, y), size, **look)]
    return Event("camera", name, (x, y, 0.0), (*size, 0.0), decals=decals)


def draw_solid(kind: str, name: str, x: float, y: float, base: float, rng: Rng, **look) -> Event:
    """A solid object of .8 to 2.4 m."""
    width, height = rng.uniform(1.1, 1.7), rng.uniform(0.7, 1.2)
    look["yaw"] = yaw = rng.uniform(0, 3)
    turned = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])

    def part(shape: str, size, up: float = 0.0, along: float = 0.0, across: float = 0.0) -> Solid:
        return stand(shape, *((along, across) @ turned + (x, y)), base + up, size, **look)

    if name == "crate":
        parts = [part("box", (width, rng.uniform(0.9, 1.5), height))]
    elif name == "barrel":
        parts = [part("cylinder", (width, width, height))]
    elif name == "ball":
        height = max(height, 0.9)
        parts = [part("ellipsoid", (height * 1.15, height * 1.15, height))]
    elif name == "sofa":
        parts = [part("box", (0.9, 1.3 * width, 0.5)), part("box", (0.25, 1.3 * width, 1.0), 0, 0.35)]
    elif name == "log":
        parts = [part("ellipsoid", (2.0, 0.9, 0.7))]
    else:  # animal: a body, a head, four legs
        parts = [part("ellipsoid", (1.5, 0.7, 0.6), 0.4), part("ellipsoid", (0.45, 0.4, 0.45), 0.775, 0.8)]
        legs = [(0.45 * i, 0.2 * j) for i in (-1, 1) for j in (-1, 1)]
        parts += [part("cylinder", (0.16, 0.16, 0.5), 0, *leg) for leg in legs]
    low = np.min([np.subtract(part.centre, np.divide(part.size, 2)) for part in parts], axis=0)
    high = np.max([np.add(part.centre, np.divide(part.size, 2)) for part in parts], axis=0)
    return Event(kind, name, tuple((low + high) / 2), tuple(high - low), parts)
