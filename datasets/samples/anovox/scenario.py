"""One drive of 20 seconds: what stands, drives and lies where in each recorded frame, and what of it is
anomalous.

A positive frame shows an anomaly on the carriageway, 6 to 13 m ahead. Every frame, positive or not, shows
none to three normal counterparts of the same colours and shapes beside the road, and traffic keeps clear of
the place of the anomaly whether it is there or not. So no total of colours, edges or points tells the label,
and nor does what is absent: where a thing is, and whether camera and LiDAR agree about it, does. The kinds of
anomaly:

both      a vivid solid thing: either sensor can tell
camera    a vivid flat thing (spilt paint, cardboard): no LiDAR return differs from the road's
lidar     a solid painted like the road behind it, as in glare: no pixel differs
conflict  each sensor alone sees something normal: the picture of a car on a board (boards stand at road
          works), or a hump in the shape of a car that is painted like the road

Road works (striped boxes, drums and boards on the carriageway) have the shapes of the lidar anomalies: to the
LiDAR alone they are the same, and only the camera's stripes at the same place make them normal.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from datasets.samples.anovox.raycast import Decal, Solid
from datasets.samples.anovox.town import (
    CAR,
    KERB,
    OTHER,
    STATIC,
    WEATHERS,
    Town,
    build_town,
    dull,
    make_car,
    make_hood,
    make_road,
    make_stain,
    paint,
    vivid,
)

KINDS = ("both", "camera", "lidar", "conflict")
SHARES = (
    0.32,
    0.28,
    0.28,
    0.12,
)  # a perfect camera, or a perfect LiDAR, alone reaches AUROC .60 + .40 / 2 = .80
COUNTERPARTS = 3  # at most; a number that varies hides the one thing that an anomaly adds
CATEGORY_IDS = {"home": 29, "animal": 30, "nature": 31, "special": 32, "falling": 34}
SOLID_SHAPES = {"train": ("crate", "barrel", "ball"), "test": ("sofa", "log", "animal")}  # test: held out
FLAT_SHAPES = {"train": ("sheet", "spill"), "test": ("cross",)}
CATEGORY = {
    "crate": "home",
    "barrel": "special",
    "ball": "home",
    "sofa": "home",
    "log": "nature",
    "animal": "animal",
    "sheet": "falling",
    "spill": "special",
    "cross": "falling",
    "board": "special",
    "hump": "special",
}
WAITING = 60.0  # metres above the road, where an anomaly hangs before it drops: out of every sensor's view


@dataclass
class Event:
    """One thing ahead of the ego: an anomaly on the carriageway, or a normal counterpart beside it."""

    kind: str
    name: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    solids: list[Solid] = field(default_factory=list)
    decals: list[Decal] = field(default_factory=list)

    @property
    def size_name(self) -> str:
        extent = max(self.size)
        return "tiny" if extent < 0.8 else "small" if extent < 1.4 else "medium" if extent < 2.6 else "big"


@dataclass
class Frame:
    frame_id: int
    eye: tuple[float, float, float]
    speed: float  # m/s
    solids: list[Solid]
    decals: list[Decal]
    event: Event  # the anomaly
    anomalous: bool  # it is there (whether it can be seen is for the labels to find out)


@dataclass
class Scenario:
    town: Town
    weather: str
    anomalous: bool
    frames: list[Frame]


def plan_scenario(
    town_name: str, anomalous: bool, kinds: list[str], held_out: bool, frames: int, seed: list[int]
) -> Scenario:
    """A drive of `frames` frames spread over 20 s at 10 Hz; `kinds` are the kinds of its events, one per
    frame.
    """
    rng = np.random.default_rng(seed)
    town = build_town(town_name)
    weather = WEATHERS[rng.integers(len(WEATHERS))]
    ticks = 200 // frames
    first = int(rng.integers(826, 990))  # CARLA's counter: not padded, and the drive passes 999 -> 1000
    speed = rng.uniform(4.5, 7.0) * 25 / max(ticks, 10)
    step = speed * ticks / 10
    solids, decals = make_road(town, -45, step * frames + 90, rng)
    positive = np.zeros(frames, bool)
    if anomalous:  # quiet before and, for frame numbers to say nothing, after; in between three of four
        before, after = rng.integers(1, max(2, frames // 4 + 1), 2)
        seen = slice(before, frames - after)
        positive[seen] = rng.random(frames - before - after) < 0.75
        positive[rng.integers(seen.start, seen.stop)] = True

    planned = []
    for k in range(frames):
        x, y = 10 + k * step, rng.uniform(-0.35, 0.35)
        event = draw_event(kinds[k], town, x, step, held_out, rng, on_road=True)
        moving, flat = draw_traffic(town, x, event, rng)
        beside = [
            draw_event(str(rng.choice(KINDS, p=SHARES)), town, x, step, held_out, rng, False, 1001 + i)
            for i in range(rng.integers(COUNTERPARTS + 1))
        ]
        shown = beside + [event] * bool(positive[k])
        near = (
            _near(solids, x) + moving + make_hood(x, y) + [part for thing in shown for part in thing.solids]
        )
        marks = [decal for decal in decals if abs(decal.centre[0] - x) < 60 + decal.size[0] / 2] + flat
        marks += [mark for thing in shown for mark in thing.decals]
        planned.append(
            Frame(
                first + k * ticks,
                (x, y, 1.8),
                speed * rng.uniform(0.95, 1.05),
                near,
                marks,
                event,
                bool(positive[k]),
            )
        )
    return Scenario(town, weather, anomalous, planned)


def _near(solids: list[Solid], x: float) -> list[Solid]:
    """What the sensors may reach from x: 90 m ahead, 25 m behind."""
    return [
        solid
        for solid in solids
        if x - 25 < solid.centre[0] + solid.size[0] / 2 and solid.centre[0] - solid.size[0] / 2 < x + 90
    ]


def draw_traffic(
    town: Town, x: float, event: Event, rng: np.random.Generator
) -> tuple[list[Solid], list[Decal]]:
    """Cars on the lanes, road works and stains about the ego at x; nothing stands in or right before the
    event.
    """
    solids: list[Solid] = []
    taken = [(event.centre[0] - x, event.centre[1], 3.0)]

    def place(low: float, high: float, y: float, room: float) -> float | None:
        for _ in range(8):
            ahead = rng.uniform(low, high)
            if all(
                abs(y - other_y) > 2.2 or abs(ahead - other) > room + other_room
                for other, other_y, other_room in taken
            ):
                taken.append((ahead, y, room))
                return x + ahead
        return None

    for lane, towards, share in ((0, False, 0.35), (1, False, 0.35), (2, True, 0.45)):
        y = lane * town.lane + rng.uniform(-0.3, 0.3)
        if rng.random() < share and (at := place(9.5 if lane == 0 else 5, 30, y, 2.6)):
            solids += make_car(at, y, rng, 2000 + len(solids), towards)
    for _ in range(rng.poisson(0.7)):
        y = rng.uniform(-1.2, 1.6 * town.lane)
        if at := place(6, 18, y, 1.5):
            solids += draw_road_works(at, y, rng, 3000 + len(solids))
    decals = [
        make_stain(x + rng.uniform(5, 18), rng.uniform(-1.5, 2 * town.lane), rng)
        for _ in range(rng.poisson(0.8))
    ]
    return solids, decals


def draw_road_works(x: float, y: float, rng: np.random.Generator, instance: int) -> list[Solid]:
    """A striped box, drum or board, of the sizes that anomalies have."""
    look = {"colour": (0.95, 0.45, 0.05), "class_id": STATIC, "instance": instance, "pattern": "stripes"}
    kind = rng.integers(3)
    if kind == 2:
        return [_board(x, y, rng, **look)]
    width, height = rng.uniform(1.0, 1.8), rng.uniform(0.7, 1.2)
    return [
        Solid(
            "box" if kind == 0 else "cylinder",
            (x, y, height / 2),
            (width, width if kind else rng.uniform(0.8, 1.6), height),
            **look,
        )
    ]


def draw_event(
    kind: str,
    town: Town,
    x: float,
    step: float,
    held_out: bool,
    rng: np.random.Generator,
    on_road: bool,
    instance: int = 1000,
) -> Event:
    """An anomaly on the carriageway ahead of the ego at x, or the same kind of thing, of a normal class,
    beside the road.
    """
    ahead = rng.uniform(6.5, min(13.0, max(step + 2.0, 9.0)))
    if on_road:
        y, base = rng.uniform(-1.2, 1.5 * town.lane), 0.0
    elif rng.random() < 0.6 or ahead < 11:
        ahead = rng.uniform(8.0, 16.0)
        y, base = town.right_kerb - rng.uniform(0.9, town.sidewalk - 0.4), KERB
    else:
        ahead = rng.uniform(12.0, 18.0)
        y, base = town.left_kerb + rng.uniform(0.9, town.sidewalk - 0.4), KERB
    shapes = SOLID_SHAPES["test" if held_out else "train"]
    name = shapes[rng.integers(len(shapes))]
    class_id = CATEGORY_IDS[CATEGORY[name]] if on_road else OTHER
    look = {"class_id": class_id, "instance": instance}
    at = x + ahead
    if kind == "camera":
        flats = FLAT_SHAPES["test" if held_out else "train"]
        name = flats[rng.integers(len(flats))]
        size = (
            (rng.uniform(2.2, 4.0), rng.uniform(1.2, 2.4))
            if on_road
            else (rng.uniform(2.2, 4.0), rng.uniform(1.0, 1.6))
        )
        at = min(at, x + 12.5)
        look["class_id"] = CATEGORY_IDS[CATEGORY[name]] if on_road else OTHER
        if not on_road:  # a mat on the sidewalk: a thin slab, decals lie on the road only
            slab = Solid("box", (at, y, base + 0.01), (*size, 0.02), vivid(rng), **look)
            return Event(kind, name, (at, y, base), (*size, 0.0), [slab])
        shape = {"sheet": "rectangle", "spill": "ellipse", "cross": "cross"}[name]
        decal = Decal(shape, (at, y), size, vivid(rng), yaw=rng.uniform(0, 3), **look)
        return Event(kind, name, (at, y, 0.0), (*size, 0.0), [], [decal])
    if kind == "conflict":
        name = ("board", "hump")[rng.integers(2)]
        if on_road:  # where cars drive: at its place a car would be normal
            y = rng.integers(2) * town.lane + rng.uniform(-0.3, 0.3)
        look["class_id"] = CATEGORY_IDS["special"] if on_road else (STATIC if name == "board" else CAR)
        if name == "board":
            solids = [
                _board(
                    at,
                    y,
                    rng,
                    colour=paint(rng),
                    pattern="car picture" if on_road else "stripes",
                    base=base,
                    **look,
                )
            ]
        elif on_road:
            solids = make_car(at + 1.5, y, rng, instance, class_id=CATEGORY_IDS["special"], camouflaged=True)
        else:
            solids = make_car(at + 1.5, town.right_kerb + town.parking / 2, rng, instance)
    else:
        hidden = kind == "lidar"
        colour = dull(rng) if hidden else vivid(rng)
        solids = _shape(name, at, y, base, colour, rng, camouflaged=hidden and on_road, **look)
    low = np.min([np.subtract(part.centre, np.divide(part.size, 2)) for part in solids], axis=0)
    high = np.max([np.add(part.centre, np.divide(part.size, 2)) for part in solids], axis=0)
    return Event(kind, name, tuple((low + high) / 2), tuple(high - low), solids)


def _shape(
    name: str, x: float, y: float, base: float, colour, rng: np.random.Generator, **look
) -> list[Solid]:
    """Solid things of .8 to 2 m."""
    width, height, yaw = rng.uniform(1.1, 1.9), rng.uniform(0.7, 1.2), rng.uniform(0, 3)
    look = dict(colour=colour, **look)
    if name == "crate":
        return [
            Solid("box", (x, y, base + height / 2), (width, rng.uniform(0.9, 1.6), height), yaw=yaw, **look)
        ]
    if name == "barrel":
        return [Solid("cylinder", (x, y, base + height / 2), (width, width, height), **look)]
    if name == "ball":
        height = max(height, 0.9)
        return [Solid("ellipsoid", (x, y, base + height / 2), (height * 1.15, height * 1.15, height), **look)]
    if name == "sofa":
        seat = Solid("box", (x, y, base + 0.25), (0.9, 1.3 * width, 0.5), yaw=yaw, **look)
        shift = np.array([np.cos(yaw), np.sin(yaw)]) * 0.35
        return [
            seat,
            replace(seat, centre=(x + shift[0], y + shift[1], base + 0.5), size=(0.25, 1.3 * width, 1.0)),
        ]
    if name == "log":
        return [Solid("ellipsoid", (x, y, base + 0.35), (2.4, 0.9, 0.7), yaw=yaw, **look)]
    body = Solid(
        "ellipsoid", (x, y, base + 0.7), (1.5, 0.7, 0.6), yaw=yaw, **look
    )  # animal: a body, a head, four legs
    along, across = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    head = np.array([x, y]) + along * 0.8
    legs = [np.array([x, y]) + along * i * 0.45 + across * j * 0.2 for i in (-1, 1) for j in (-1, 1)]
    return [
        body,
        Solid("ellipsoid", (*head, base + 1.0), (0.45, 0.4, 0.45), **look),
        *(Solid("cylinder", (*leg, base + 0.25), (0.16, 0.16, 0.5), **look) for leg in legs),
    ]


def _board(x: float, y: float, rng: np.random.Generator, base: float = 0.0, **look) -> Solid:
    """An upright board across the lane, as large as the back of a car."""
    height = rng.uniform(1.4, 1.55)
    return Solid("box", (x, y, base + height / 2), (0.08, rng.uniform(1.7, 1.9), height), **look)
