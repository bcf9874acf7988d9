"""Move people around the camera: they stand, sit, walk and ride on a ring of floor. Time is in seconds.

Positions are polar: azimuth (0 = forward, growing to the right of the panorama) and distance in metres.
Directions are angles relative to the camera, see figure.py: 0 toward the camera, +90 to the right. People who
interact differ from bystanders only in facing, gaze and arms.
"""

import math
from collections.abc import Iterator

import numpy as np

from datasets.samples.jrdb.figure import Person, Seen
from datasets.samples.jrdb.plan import ACTIVITIES, Cluster, SequencePlan

NEAREST = 2.9  # metres
RING_SHARE = 0.56  # share of the ring with people: places have a lively side and an empty one
UNEVEN = 0.11  # metres, sd: floors have steps and slopes, so the feet do not reveal a person's height
WANDER = 0.03  # metres per second, sd: nobody stands or walks like a machine
MOVING = ("walk", "cycle", "upstairs", "downstairs")  # postures of people who move
RESTING = {"sit": ("table",), "cycle": ("grip",), "bend": ("hang",), "stand": ("hang", "pocket", "crossed")}

Rng = np.random.Generator


def turn(from_angle: float, to_angle: float) -> float:
    """The shortest turn in degrees, within +-180."""
    return (to_angle - from_angle + 180.0) % 360.0 - 180.0


def formation(cluster: Cluster, rng: Rng) -> tuple[np.ndarray, float]:
    """Offsets (people, 2) from the centre in metres (right, away), and the common heading in degrees."""
    n = cluster.size + cluster.outsiders
    heading = rng.choice([-90.0, 90.0]) + rng.uniform(-30, 30)  # for a queue or an audience
    if cluster.activity == "lecture":
        row, column = np.divmod(np.arange(n), -(-n // 3))
        return np.stack([(column - n / 6) * 0.85 + 0.25 * row, row * 1.1], 1), heading
    gap = rng.uniform(0.85, 1.6) if cluster.posture == "sit" else rng.uniform(0.7, 1.3)
    gap = 0.44 if cluster.activity == "hugging" else gap
    along, across = (np.arange(n) - (n - 1) / 2) * gap, np.zeros(n)
    if n > 2:  # two staggered ranks, a loose ring seen from the side
        along, across = along * 0.78, np.where(np.arange(n) % 2 == rng.integers(2), 0.3, -0.3) * gap
    tilt = rng.uniform(-42, 42)  # degrees: the camera sees them side by side, not one behind the other
    if cluster.posture in MOVING:  # they move abreast
        heading = tilt + rng.uniform(-65, 65) + rng.choice([0.0, 180.0])
    sin, cos = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
    offsets = np.stack([along * cos - across * sin, along * sin + across * cos], 1)
    return offsets + rng.normal(0, 0.06, (n, 2)), heading


class Company:
    """The people of one cluster over time. middle, velocity: of its centre, in metres (right, away)."""

    def __init__(self, cluster: Cluster, people: list[Person], azimuth: float, distance: float, rng: Rng):
        self.cluster, self.people, self.azimuth = cluster, people, azimuth
        self.offsets, self.heading = formation(cluster, rng)
        speed, way = rng.uniform(0.15, 0.9) * (cluster.posture in MOVING), math.radians(self.heading)
        self.velocity = speed * np.array([math.sin(way), -math.cos(way)])
        self.middle = np.array([0, distance])
        self.manners = draw_manners(cluster, rng)
        self.rises = rng.normal(0, UNEVEN, len(people))
        steps = rng.uniform(0, 2 * math.pi, len(people))
        self.beats = steps[0] + rng.normal(0, 0.25, len(people)) if cluster.engaged else steps

    def frame(self, index: int, t: int, room: float, rng: Rng) -> Iterator[Seen]:
        """The people at second t, never more than about `room` metres away."""
        cluster = self.cluster
        centre = self.middle + self.velocity * (t - (cluster.start + cluster.stop - 1) / 2)
        azimuth = self.azimuth + math.atan2(*centre)
        away = min(max(math.hypot(*centre), NEAREST), room)
        self.offsets = self.offsets + rng.normal(0, WANDER, self.offsets.shape)
        talker = int(rng.integers(cluster.size))
        for k, person in enumerate(self.people):
            others = [j for j in range(cluster.size if cluster.engaged else len(self.people)) if j != k]
            target = direction_of_partner(self.offsets[others] - self.offsets[k], person.habit[1])
            pose = self.pose(k, target, k == talker, rng)
            right, ahead = self.offsets[k].tolist()
            where = azimuth + right / away, max(away + ahead, NEAREST - 0.4), float(self.rises[k])
            member, beat = self.manners[k] == "engaged", float(self.beats[k] + 2.3 * t)
            yield Seen(person, index, k, member, *where, cluster.posture, beat, **pose)

    def pose(self, k: int, target: float, talks: bool, rng: Rng) -> dict:
        """People who interact turn to the others (target, degrees), the near arm toward them, raised in a
        conversation. Bystanders are turned elsewhere, in a queue, or on the phone."""
        activity, posture, manner = self.cluster.activity, self.cluster.posture, self.manners[k]
        person, jitter = self.people[k], rng.normal(0, 7)
        first, second, third = person.habit
        on_the_way = self.heading + 0.4 * person.skew + 0.5 * jitter
        if manner in ("engaged", "attentive"):
            yaw = target + person.skew + jitter
            if posture in MOVING:
                yaw = on_the_way
            elif activity == "lecture":
                yaw = target = on_the_way
            elif activity == "waving":
                yaw = 0.5 * turn(0, target) + 0.5 * person.skew + jitter
            head = yaw + 0.95 * float(np.clip(turn(yaw, target), -82, 82))
            near, far = ACTIVITIES[activity][3:]
            if activity == "conversation" and (talks or rng.random() < 0.6):
                far = "raised"
            far = "pocket" if far in ("hang", "swing") and first > 0.6 else far
            near = near if rng.random() < 0.95 else far
            aside = turn(yaw, target)
            near_is_left = aside > 0
            if abs(aside) <= 20:  # the target is straight ahead: by habit
                near_is_left = first < 0.5
            arms = (near, far) if near_is_left else (far, near)
            return {"yaw": yaw, "head": head, "nod": 0.0, "arms": arms, "toward": target}
        spread = (first - 0.5) * 110
        aside = {"queue": self.heading, "phone": spread + (90 if third < 0.5 else -90)}
        elsewhere = aside.get(manner, target + 180 + spread)
        yaw, head = elsewhere + 0.6 * person.skew + jitter, 20 * (third - 0.5)
        if posture in MOVING:
            yaw, head = on_the_way, (second > 0.5) * float(np.clip(turn(on_the_way, elsewhere), -60, 60))
        rests = RESTING.get(posture, ("swing", "pocket"))
        rest = rests[int(third * len(rests))]
        phone = posture != "cycle" and (manner == "phone" or (manner == "away" and second < 0.3))
        arms = (rest, rest)
        if phone:
            arms = ("phone", rest) if first < 0.5 else (rest, "phone")
        return {"yaw": yaw, "head": yaw + head, "nod": 0.8 * phone, "arms": arms, "toward": yaw}


def draw_manners(cluster: Cluster, rng: Rng) -> list[str]:
    """How each person behaves. `attentive`: a stranger who looks at the others, while nobody looks back."""
    if cluster.engaged:
        return ["engaged"] * cluster.size + [str(rng.choice(["away", "phone"]))] * cluster.outsiders
    manners = [str(rng.choice(["away", "queue", "phone"], p=[0.5, 0.25, 0.25]))] * cluster.size
    if cluster.size > 1 and rng.random() < 0.15:
        manners[int(rng.integers(cluster.size))] = "attentive"
    return manners


def direction_of_partner(offsets: np.ndarray, habit: float) -> float:
    """The direction in degrees of the person to turn to: the nearest or, for someone between two people, by
    habit one of these two. offsets (n, 2): metres from the person to the others (right, away)."""
    if not len(offsets):
        return 180.0
    nearest = offsets[np.argsort(np.hypot(*offsets.T))]
    between = len(nearest) > 1 and nearest[1] @ nearest[0] < 0
    right, away = nearest[int(between and habit < 0.5)]
    return math.degrees(math.atan2(right, -away))


def watch(plan: SequencePlan, room: float, rng: Rng) -> Iterator[tuple[float, list[Seen]]]:
    """For every second: how far the camera has turned (radians), and who is seen up to about `room` metres
    away."""
    sector = RING_SHARE * 2 * math.pi / plan.slots
    order = rng.permutation(plan.slots)
    depth = rng.normal(math.log(7.2), 0.3)  # all clusters of a sequence are about equally far away
    # In some sequences the robot drives; then people who stand move through the picture as well.
    way, pace = rng.uniform(0, 2 * math.pi), rng.choice([0.0, rng.uniform(0.15, 0.5)], p=[0.4, 0.6])
    turn_rate = math.radians(float(rng.choice([0.0, 0.0, 0.7, -0.7, 1.5, -1.5])))  # per second
    numbers = (rng.permutation(998) + 1).tolist()  # ids say nothing about groups
    companies: list[Company] = []
    for cluster in plan.clusters:
        # Slot 0 is on the seam, behind the camera; the other slots share the rest of the ring.
        aside = rng.uniform(-0.45, 0.45) * (1.0 if cluster.slot else 0.06)
        azimuth = math.pi + (order[cluster.slot] - order[0] + aside) * sector
        low, high = (5.0, 11.0) if cluster.activity == "lecture" else (NEAREST + 0.2, 23.0)
        distance = np.clip(np.exp(rng.normal(depth, 0.35)), low, high if cluster.slot else 6.0)
        people = [Person(numbers.pop(), rng) for _ in range(cluster.size + cluster.outsiders)]
        for gone in companies:  # sometimes a person joins the group that comes next in the same slot
            follows = (gone.cluster.slot, gone.cluster.stop) == (cluster.slot, cluster.start)
            if follows and cluster.engaged and rng.random() < 0.25:
                people[0] = gone.people[1]
        companies.append(Company(cluster, people, azimuth, distance, rng))
        companies[-1].velocity -= pace * np.array([math.sin(way - azimuth), math.cos(way - azimuth)])
    for t in range(plan.frames):
        present = [(k, c) for k, c in enumerate(companies) if c.cluster.start <= t < c.cluster.stop]
        yield turn_rate * t, [seen for k, company in present for seen in company.frame(k, t, room, rng)]
