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
from datasets.samples.jrdb.skeleton import Pose

NEAREST, FARTHEST = 2.9, 23.0  # metres
RING_SHARE = 0.56  # of the ring that people use: places have a lively side and an empty one
UNEVEN = 0.10  # metres: floors have steps and slopes, so the foot line does not give the height away
WANDER = 0.05  # metres: nobody stands or walks like a machine; the same for all, so that it tells nothing


@dataclass
class Seen:
    """One person in one frame: where, doing what, in which cluster and, once drawn, with which box."""

    person: Person
    cluster: int
    azimuth: float
    distance: float
    pose: Pose
    rise: float  # metres the floor lies higher here
    member: bool  # of the group that interacts
    box: tuple[int, int, int, int] | None = None  # an annotator's: x in [0, width), x + w may exceed width
    truncated: bool = False
    hidden: float = 0.0  # share of the box behind nearer people's boxes


def formation(cluster: Cluster, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Offsets (size, 2) in metres (right, away) about the centre, and the heading of those who move."""
    posture, n = ACTIVITIES[cluster.activity][0], cluster.size + cluster.outsiders
    gap = 0.44 if cluster.activity == "hugging" else rng.uniform(*SPACING[posture])
    gap *= 1.1 if n > 3 else 1.0
    heading = rng.choice([-90.0, 90.0]) + rng.uniform(-30, 30)  # of a queue or an audience
    if cluster.activity == "lecture":
        rows, columns = 3, math.ceil(n / 3)
        places = [((c - columns / 2) * 0.85 + 0.25 * r, r * 1.1) for r in range(rows) for c in range(columns)]
        return np.array(places[:n]), heading
    along = (np.arange(n) - (n - 1) / 2) * gap
    if posture in MOVING:
        tilt = 90.0
        while abs(turn(0, tilt)) > 48 and abs(turn(180, tilt)) > 48:  # side by side, not one behind the other
            heading = rng.uniform(-180, 180)
            tilt = heading + rng.uniform(-45, 45)  # abreast, some a step ahead
        right, away = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        along *= rng.choice([-1, 1])
        rank = (np.arange(n) % 2 - 0.5) * 0.5 if n > 3 else np.zeros(n)  # in two ranks
        along *= 0.75 if n > 3 else 1.0
        offsets = np.stack([along * right - rank * away, along * away + rank * right], 1)
    elif n <= 2:
        tilt = math.radians(rng.uniform(-38, 38))
        along *= 1 if rng.random() < 0.5 else -1
        offsets = np.stack([along * math.cos(tilt), along * math.sin(tilt)], 1)
    else:  # a loose ring, seen from the side
        along = (np.arange(n) - (n - 1) / 2) * 0.8 * gap
        depth = np.where(np.arange(n) % 2 == rng.integers(2), 0.3, -0.3) * gap
        offsets = np.stack([along, depth], 1)
    return offsets + rng.normal(0, 0.05, (n, 2)), heading


class Company:
    """The people of one cluster over its time: who, how they behave, at rest or moving straight, in sight."""

    def __init__(self, scene: "Scene", cluster: Cluster, rng: np.random.Generator):
        self.cluster, people = cluster, cluster.size + cluster.outsiders
        self.offsets, self.heading = formation(cluster, rng)
        self.azimuth = scene.azimuths[cluster.slot]
        low, high = NEAREST, min(scene.room, 6.0 if cluster.slot == 0 else FARTHEST)
        if cluster.activity == "lecture":
            low, high = 5.0, min(scene.room, 11.0)
        self.set_out(scene, rng, low, high)
        self.members = [Person(scene.number + k, rng) for k in range(1, people + 1)]
        scene.number += people
        self.manners = draw_manners(cluster, rng)
        shape = (scene.plan.size.frames, people, 2)
        self.drift = np.cumsum(rng.normal(0, 0.4 * WANDER, shape), 0) + rng.normal(0, WANDER, shape)
        self.rises = rng.normal(0, UNEVEN, people) + rng.normal(0, 0.5 * UNEVEN)
        step = rng.uniform(0, 2 * math.pi, people)
        self.beats = step[0] + rng.normal(0, 0.25, people) if cluster.engaged else step

    def set_out(self, scene: "Scene", rng: np.random.Generator, low: float, high: float) -> None:
        """Where the centre starts and how fast it goes, such that it stays between low and high metres."""
        seconds = self.cluster.stop - self.cluster.start - 1
        moving, heading = ACTIVITIES[self.cluster.activity][0] in MOVING, math.radians(self.heading)
        sin, cos = math.sin(self.azimuth), math.cos(self.azimuth)
        for _ in range(200):
            distance = float(np.exp(rng.normal(math.log(scene.depth), 0.35)))
            speed = rng.uniform(0.15, 0.9) if moving else 0.0
            right = speed * math.sin(heading) - float(scene.drive @ (cos, -sin))
            away = -speed * math.cos(heading) - float(scene.drive @ (sin, cos))
            start = np.array([-right * seconds / 2, distance - away * seconds / 2])
            end = start + seconds * np.array([right, away])
            if all(low < m < high for m in (math.hypot(*start), math.hypot(*end), distance)):
                break
        else:
            start, right, away = np.array([0.0, 0.5 * (low + high)]), 0.0, 0.0
        self.start, self.velocity = start, np.array([right, away])

    def place(self, second: float, offset: np.ndarray) -> tuple[float, float]:
        """-> azimuth, distance of a member `offset` metres (right, away) from the centre."""
        right, away = self.start + second * self.velocity
        distance = math.hypot(right, away)
        azimuth = self.azimuth + math.atan2(right, away) + float(offset[0]) / distance
        return azimuth, max(distance + float(offset[1]), NEAREST - 0.4)


def draw_manners(cluster: Cluster, rng: np.random.Generator) -> list[str]:
    """How strangers ignore each other. `attentive`: the one who looks at the others, in vain."""
    if cluster.engaged:
        outsiders = [str(rng.choice(["away", "phone"])) for _ in range(cluster.outsiders)]
        return ["engaged"] * cluster.size + outsiders
    if cluster.size == 1:
        return [str(rng.choice(["phone", "away"]))]
    manners = [str(rng.choice(["away", "queue", "phone"], p=[0.5, 0.25, 0.25]))] * cluster.size
    if rng.random() < 0.15:
        manners[int(rng.integers(cluster.size))] = "attentive"
    return manners


class Scene:
    """The people of one sequence. `frame(t)` lists who is seen at second t; a pure function of the plan.
    turn_rate: of the camera, radians per second."""

    def __init__(self, plan: SequencePlan, room: float):
        self.plan, self.room, self.number = plan, room, 0  # number: of people met so far
        rng = plan.random("people")
        share = rng.uniform(-0.5, 0.5)
        sector = RING_SHARE * 2 * math.pi / plan.slots
        order = rng.permutation(plan.slots)
        # The robot drives in some places: then those who stand move through the picture as well.
        way = rng.uniform(0, 2 * math.pi)
        pace = float(rng.choice([0.0, rng.uniform(0.15, 0.5)], p=[0.4, 0.6]))
        self.drive = pace * np.array(
            [math.sin(way), math.cos(way)]
        )  # metres per second to the right, forward
        self.depth = float(
            np.exp(rng.normal(math.log(7.4), 0.35))
        )  # people of one place are about equally far
        # Slot 0 stands on the seam, behind the camera; the others share the rest of the ring.
        self.azimuths = [
            math.pi + (order[k] - order[0] + (rng.uniform(-0.45, 0.45) if k else 0.05 * share)) * sector
            for k in range(plan.slots)
        ]
        self.turn_rate = math.radians(float(rng.choice([0.0, 0.0, 0.7, -0.7, 1.5, -1.5])))
        self.companies: list[Company] = []
        for cluster in plan.clusters:
            company = Company(self, cluster, rng)
            self.change_group(company, rng)
            self.companies.append(company)

    def change_group(self, company: Company, rng: np.random.Generator) -> None:
        """Now and then somebody leaves a group for the one that comes to the same place next."""
        new = company.cluster
        for old in self.companies if new.engaged and new.start else ():
            gone = old.cluster
            if gone.engaged and gone.slot == new.slot and gone.stop == new.start:
                if rng.random() < 0.25:
                    company.members[0] = old.members[1]
                return

    def frame(self, t: int) -> list[Seen]:
        seen = []
        for index, company in enumerate(self.companies):
            cluster = company.cluster
            if not cluster.start <= t < cluster.stop:
                continue
            rng = self.plan.random(f"pose/{index}/{t}")
            offsets = company.offsets + company.drift[t]
            talker = int(rng.integers(cluster.size))
            for k, (person, manner) in enumerate(zip(company.members, company.manners, strict=True)):
                azimuth, distance = company.place(t - cluster.start, offsets[k])
                others = offsets[: cluster.size] if cluster.engaged else offsets  # an outsider is none
                others = np.delete(others, k, 0) if k < len(others) else others
                target = behaviour.direction_of_partner(others - offsets[k], person.habit[1])
                how = target, float(company.beats[k] + 2.3 * t), rng
                if manner in ("engaged", "attentive"):
                    pose = behaviour.engaged_pose(cluster, person, company.heading, k == talker, *how)
                else:
                    pose = behaviour.stranger_pose(cluster, person, company.heading, manner, *how)
                azimuth, rise = azimuth - self.turn_rate * t, float(company.rises[k])
                seen.append(Seen(person, index, azimuth, distance, pose, rise, manner == "engaged"))
        return seen
