"""The ring world: people stand, sit, walk and ride on a floor around the camera; time is in seconds.

Positions are polar: azimuth (0 = forward, growing to the right of the panorama) and distance in metres.
Directions are angles as the camera sees them, see skeleton.py: 0 toward the camera, +90 to the right.
"""

import math
from dataclasses import dataclass

import numpy as np

from datasets.samples.jrdb import behaviour
from datasets.samples.jrdb.behaviour import Person, turn
from datasets.samples.jrdb.plan import ACTIVITIES, MOVING, SPACING, Cluster, SequencePlan
from datasets.samples.jrdb.skeleton import Look, Pose

NEAREST, FARTHEST = 2.9, 23.0  # metres
RING_SHARE = 0.56  # of the ring that people use: places have a lively side and an empty one
UNEVEN = 0.10  # metres: floors have steps and slopes, so the foot line does not give the height away
WANDER = 0.05  # metres: nobody stands or walks like a machine; the same for all, so that it tells nothing


@dataclass
class Seen:
    """One person in one frame: where, doing what, and in which cluster."""

    person: Person
    cluster: int
    azimuth: float
    distance: float
    pose: Pose
    rise: float  # metres the floor lies higher here
    member: bool  # of the group that interacts


def draw_look(rng: np.random.Generator) -> Look:
    def colour(low: int, high: int) -> tuple[int, int, int]:
        base = rng.integers(low, high)
        return tuple(int(np.clip(base + v, 12, 245)) for v in rng.integers(-60, 61, 3))

    tone = rng.uniform(0.5, 1.05)
    skin = (int(232 * tone), int(190 * tone), int(160 * tone))
    hairs = [(24, 20, 20), (60, 38, 24), (96, 66, 38), (150, 120, 76), (120, 118, 116)]
    hair = hairs[rng.choice(5, p=[0.4, 0.27, 0.15, 0.1, 0.08])]
    grey = int(rng.integers(24, 110))
    trousers = (grey, grey + int(rng.integers(0, 16)), grey + int(rng.integers(4, 40)))
    grown = rng.random() > 0.3
    return Look(
        height=float(np.clip(rng.normal(1.71, 0.09), 1.48, 1.95) if grown else rng.uniform(1.18, 1.5)),
        build=float(rng.uniform(0.9, 1.15)),
        skin=skin,
        hair=hair,
        top=colour(25, 130),
        shirt=colour(170, 235),
        trousers=trousers,
        shoes=colour(25, 120),
        long_hair=bool(rng.random() < 0.4),
        backpack=colour(30, 170) if rng.random() < 0.35 else None,
    )


def formation(cluster: Cluster, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Offsets (size, 2) in metres (right, away) about the centre, and the heading of those who move."""
    posture = ACTIVITIES[cluster.activity][0]
    gap = 0.44 if cluster.activity == "hugging" else rng.uniform(*SPACING[posture])
    n = cluster.size + cluster.outsiders
    gap *= 1.1 if n > 3 else 1.0
    heading = rng.choice([-90.0, 90.0]) + rng.uniform(-30, 30)  # of a queue or an audience
    if cluster.activity == "lecture":
        rows, columns = 3, math.ceil(n / 3)
        places = [((c - columns / 2) * 0.85 + 0.25 * r, r * 1.1) for r in range(rows) for c in range(columns)]
        return np.array(places[:n]), heading
    if posture in MOVING:
        tilt = 90.0
        while abs(turn(0, tilt)) > 48 and abs(turn(180, tilt)) > 48:  # side by side, not one behind the other
            heading = rng.uniform(-180, 180)
            tilt = heading + rng.uniform(-45, 45)  # abreast, some a step ahead
        right, away = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        along = (np.arange(n) - (n - 1) / 2) * gap * rng.choice([-1, 1])
        if n > 3:  # in two ranks
            along *= 0.75
            rank = (np.arange(n) % 2 - 0.5) * 0.5
            offsets = np.stack([along * right - rank * away, along * away + rank * right], 1)
        else:
            offsets = np.stack([along * right, along * away], 1)
    elif n <= 2:
        tilt = math.radians(rng.uniform(-38, 38))
        along = (np.arange(n) - (n - 1) / 2) * gap * (1 if rng.random() < 0.5 else -1)
        offsets = np.stack([along * math.cos(tilt), along * math.sin(tilt)], 1)
    else:
        along = (np.arange(n) - (n - 1) / 2) * 0.8 * gap
        # A loose ring, seen from the side.
        depth = np.where(np.arange(n) % 2 == rng.integers(2), 0.3, -0.3) * gap
        offsets = np.stack([along, depth], 1)
    return offsets + rng.normal(0, 0.05, (n, 2)), heading


class Walkabout:
    """Centre of a cluster over time: at rest or moving straight at a constant speed, always in sight."""

    def __init__(
        self, cluster: Cluster, azimuth: float, room: float, heading: float, rng, reach, drive, centre
    ):
        posture = ACTIVITIES[cluster.activity][0]
        low, high = reach
        seconds = cluster.stop - cluster.start - 1
        for _ in range(200):
            distance = float(np.exp(rng.normal(math.log(centre), 0.35)))
            speed = rng.uniform(0.15, 0.9) if posture in MOVING else 0.0
            right = speed * math.sin(math.radians(heading))
            away = -speed * math.cos(math.radians(heading))
            right -= float(drive @ (math.cos(azimuth), -math.sin(azimuth)))
            away -= float(drive @ (math.sin(azimuth), math.cos(azimuth)))
            start = np.array([-right * seconds / 2, distance - away * seconds / 2])
            end = start + seconds * np.array([right, away])
            if all(low < m < min(room, high) for m in (math.hypot(*start), math.hypot(*end), distance)):
                break
        else:
            start, right, away = np.array([0.0, 0.5 * (low + min(room, high))]), 0.0, 0.0
        self.azimuth, self.start, self.velocity = azimuth, start, np.array([right, away])

    def place(self, second: float, offset: np.ndarray) -> tuple[float, float]:
        """-> azimuth, distance of a member `offset` metres (right, away) from the centre."""
        right, away = self.start + second * self.velocity
        centre = math.atan2(right, away)
        distance = math.hypot(right, away)
        azimuth = self.azimuth + centre + float(offset[0]) / distance
        return azimuth, max(distance + float(offset[1]), NEAREST - 0.4)


class Scene:
    """The people of one sequence. `frame(t)` lists who is seen at second t; a pure function of the plan."""

    def __init__(self, plan: SequencePlan, room: float):
        self.plan = plan
        rng = plan.random("people")
        share = rng.uniform(-0.5, 0.5)
        sector = RING_SHARE * 2 * math.pi / plan.slots
        order = rng.permutation(plan.slots)
        # The robot drives in some places: then those who stand move through the picture as well.
        way = rng.uniform(0, 2 * math.pi)
        pace = float(rng.choice([0.0, rng.uniform(0.15, 0.5)], p=[0.4, 0.6]))
        drive = pace * np.array([math.sin(way), math.cos(way)])  # metres per second to the right, forward
        depth = float(np.exp(rng.normal(math.log(7.4), 0.35)))  # people of one place are about equally far
        # Slot 0 stands on the seam, behind the camera; the others share the rest of the ring.
        self.azimuths = [
            math.pi + (order[k] - order[0] + (rng.uniform(-0.45, 0.45) if k else 0.05 * share)) * sector
            for k in range(plan.slots)
        ]
        self.turn_rate = math.radians(float(rng.choice([0.0, 0.0, 0.7, -0.7, 1.5, -1.5])))
        self.members: list[list[Person]] = []
        self.offsets, self.headings, self.tracks, self.manners = [], [], [], []
        self.drift, self.beats, self.rises = [], [], []
        self.number = 0  # of people met so far
        for index, cluster in enumerate(plan.clusters):
            offsets, heading = formation(cluster, rng)
            reach = (NEAREST, 6.0 if cluster.slot == 0 else FARTHEST)
            if cluster.activity == "lecture":
                reach = (5.0, 11.0)
            self.offsets.append(offsets)
            self.headings.append(heading)
            where = self.azimuths[cluster.slot]
            self.tracks.append(Walkabout(cluster, where, room, heading, rng, reach, drive, depth))
            self.members.append([self.meet(rng) for _ in range(cluster.size + cluster.outsiders)])
            self.manners.append(self.draw_manners(cluster, rng))
            people = cluster.size + cluster.outsiders
            shape = (plan.size.frames, people, 2)
            self.drift.append(np.cumsum(rng.normal(0, 0.4 * WANDER, shape), 0) + rng.normal(0, WANDER, shape))
            self.rises.append(rng.normal(0, UNEVEN, people) + rng.normal(0, 0.5 * UNEVEN))
            step = rng.uniform(0, 2 * math.pi, people)
            self.beats.append(step[0] + rng.normal(0, 0.25, people) if cluster.engaged else step)
            self.change_group(index, cluster, rng)

    def meet(self, rng: np.random.Generator) -> Person:
        self.number += 1
        return Person(self.number, draw_look(rng), tuple(rng.random(3).tolist()), float(rng.normal(0, 12)))

    def draw_manners(self, cluster: Cluster, rng: np.random.Generator) -> list[str]:
        """How strangers ignore each other. `attentive`: the one who looks at the others, in vain."""
        if cluster.engaged:
            outsiders = [str(rng.choice(["away", "phone"])) for _ in range(cluster.outsiders)]
            return ["engaged"] * cluster.size + outsiders
        if cluster.size == 1:
            return [str(rng.choice(["phone", "away"]))]
        manner = str(rng.choice(["away", "queue", "phone"], p=[0.5, 0.25, 0.25]))
        manners = [manner] * cluster.size
        if rng.random() < 0.15:
            manners[int(rng.integers(cluster.size))] = "attentive"
        return manners

    def change_group(self, index: int, cluster: Cluster, rng: np.random.Generator) -> None:
        """Now and then somebody leaves a group for the one that comes to the same place next."""
        if not cluster.engaged or cluster.start == 0:
            return
        for k, old in enumerate(self.plan.clusters[:index]):
            if old.engaged and old.slot == cluster.slot and old.stop == cluster.start:
                if rng.random() < 0.25:
                    self.members[index][0] = self.members[k][1]
                return

    def camera_turn(self, t: int) -> float:
        """Azimuth of the camera's forward direction at second t."""
        return self.turn_rate * t

    def frame(self, t: int) -> list[Seen]:
        seen = []
        for index, cluster in enumerate(self.plan.clusters):
            if not cluster.start <= t < cluster.stop:
                continue
            rng = self.plan.random(f"pose/{index}/{t}")
            offsets = self.offsets[index] + self.drift[index][t]
            talker = int(rng.integers(cluster.size))
            for k, person in enumerate(self.members[index]):
                azimuth, distance = self.tracks[index].place(t - cluster.start, offsets[k])
                company = offsets[: cluster.size] if cluster.engaged else offsets  # an outsider is none
                others = np.delete(company, k, 0) if k < len(company) else company
                away = behaviour.nearest_offset(others - offsets[k], person.habit[1])
                target = behaviour.view_angle(float(away[0]), float(away[1]))
                heading = self.headings[index]
                beat = float(self.beats[index][k] + 2.3 * t)
                manner = self.manners[index][k]
                if manner in ("engaged", "attentive"):
                    pose = behaviour.engaged_pose(cluster, person, heading, target, k == talker, beat, rng)
                else:
                    pose = behaviour.stranger_pose(cluster, person, heading, target, manner, beat, rng)
                azimuth, rise = azimuth - self.camera_turn(t), float(self.rises[index][k])
                seen.append(Seen(person, index, azimuth, distance, pose, rise, manner == "engaged"))
        return seen
