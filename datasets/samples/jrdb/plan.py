"""Plan a sample: its sequences, and the groups and strangers in each of them.

For most interacting groups there is a cluster of strangers whose posture, spacing and motion come from the
same distributions, and some groups have an outsider beside them. So boxes and their history say little about
interaction; what people do (facing, gaze, arms) says nearly everything.
"""

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# Shares of interacting pairs by class. The most frequent class differs between train and val.
SHARES = {
    "train": {"walking": 0.36, "standing": 0.27, "conversation": 0.18, "sitting": 0.08, "others": 0.11},
    "val": {"walking": 0.24, "standing": 0.42, "conversation": 0.13, "sitting": 0.12, "others": 0.09},
    "test": {"walking": 0.39, "standing": 0.27, "conversation": 0.14, "sitting": 0.11, "others": 0.09},
}
PEOPLE = (2, 3, 2, 4, 2, 3, 2, 5, 3, 2, 4, 6)  # sizes of groups, used in turn
OTHERS = ("cycling", "upstairs", "bending", "hugging", "downstairs", "waving")
PLACES = (("atrium-cafe", "north-hall", "east-lobby", "poster-gallery", "library-foyer"),
          ("fountain-court", "elm-lane", "oval-plaza", "bridge-walk", "market-street"))  # fmt: skip


class Activity(NamedTuple):
    """What people do together; postures and arms are drawn in figure.py."""

    posture: str
    name: str
    seconds: tuple[str, ...]  # second labels beside `name`, used in turn
    near: str  # the arm on the side of the others
    far: str  # the other arm


ACTIVITIES = {
    "walking": Activity("walk", "walking together", (), "open", "swing"),
    "standing": Activity("stand", "standing together", (), "open", "hang"),
    "conversation": Activity("stand", "conversation", ("standing together",), "raised", "hang"),
    "sitting": Activity("sit", "sitting together", ("conversation",), "open", "table"),
    "cycling": Activity("cycle", "cycling together", ("moving together",), "point", "grip"),
    "upstairs": Activity("upstairs", "going upstairs together", ("holding sth together",), "open", "swing"),
    "downstairs": Activity("downstairs", "going downstairs together", ("interaction with door together",),
                           "open", "swing"),
    "bending": Activity("bend", "bending together",
                        ("looking into sth together", "looking at sth together"), "open", "open"),
    "hugging": Activity("stand", "hugging", ("shaking hand", "walking toward each other"), "hug", "hug"),
    "waving": Activity("stand", "waving hand together", ("looking at robot together",), "open", "wave"),
    "eating": Activity("sit", "eating together", (), "eat", "table"),
    "lecture": Activity("sit", "sitting together", (), "open", "table"),
}  # fmt: skip


# width, height, frames, sequences by part, range of groups in view at a time (strangers come on top)
SIZES = {
    "tiny": (752, 96, 7, {"train": 3, "val": 1, "test": 2}, (1.6, 2.6)),
    "small": (3760, 480, 10, {"train": 18, "val": 4, "test": 8}, (2.7, 4.2)),
    "full": (3760, 480, 30, {"train": 20, "val": 7, "test": 12}, (3.0, 5.0)),
}


@dataclass
class Cluster:
    """People placed together for frames [start, stop): an interacting group, strangers, or one person."""

    activity: str
    size: int
    slot: int
    start: int
    stop: int
    engaged: bool
    outsiders: int = 0  # people who stand in the formation but do not interact
    second: str = ""  # second interaction name, on all or some pairs

    @property
    def posture(self) -> str:
        return ACTIVITIES[self.activity].posture


@dataclass
class SequencePlan:
    """Everything that determines one sequence; pickled for the worker that draws it."""

    name: str
    role: str
    outdoor: bool
    width: int
    height: int
    frames: int
    seed: list[int]
    slots: int  # places on the ring
    clusters: list[Cluster] = field(default_factory=list)


def plan_sample(size_name: str, seed: int) -> list[SequencePlan]:
    """All sequences of a sample with their clusters, alternately indoors and outdoors."""
    width, height, frames, sequences, groups = SIZES[size_name]
    rng = np.random.default_rng([seed, 20240305])
    plans: list[SequencePlan] = []
    for role, count in sequences.items():
        for k in range(count):
            number = len(plans)
            take, place = divmod(number // 2, len(PLACES[0]))
            name = PLACES[k % 2][place] if number else "hall-120-lecture"
            name += f"-2024-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}_{take}"
            crowded = 2 * (width > 1000 and k == count - 1 and role != "val")
            slots = round(np.interp(k / count, (0, 1), groups)) + crowded
            plans.append(SequencePlan(name, role, k % 2 == 1, width, height, frames, [seed, number], slots))
        members = plans[-count:]
        add_groups(members, rng)
        for plan in members:
            add_strangers(plan, rng)
    lecture = plans[0]
    audience, end = 22 if width > 1000 else 8, max(2, frames // 4)
    lecture.clusters.append(Cluster("lecture", audience, lecture.slots, 0, end, True))
    lecture.slots += 1
    return plans


def add_groups(plans: list[SequencePlan], rng: np.random.Generator) -> None:
    """Two groups in every slot, one after the other, with pairs distributed as in SHARES."""
    free = []  # (plan, slot, start, stop)
    for plan in plans:
        for slot in range(plan.slots):
            change = int(plan.frames * rng.uniform(0.4, 0.6))
            free += [(plan, slot, 0, change), (plan, slot, change, plan.frames)]
    shares = SHARES[plans[0].role]
    pairs, groups = dict.fromkeys(shares, 0.0), dict.fromkeys(ACTIVITIES, 0)
    for at, people in zip(rng.permutation(len(free)), itertools.cycle(PEOPLE)):
        kind = activity = max(shares, key=lambda name: shares[name] * sum(pairs.values()) - pairs[name])
        if kind == "others":
            rare, people = sum(groups[name] for name in OTHERS), 2
            activity = OTHERS[rare % len(OTHERS)]
            if plans[0].role == "train" and rare == 6 and not groups["eating"]:
                activity = "eating"
        seconds = ACTIVITIES[activity].seconds  # in turn
        second = seconds[groups[activity] % len(seconds)] if seconds else ""
        pairs[kind] += people * (people - 1) / 2
        groups[activity] += 1
        plan, slot, start, stop = free[at]
        outsiders = int(rng.random() < 0.4)
        plan.clusters.append(Cluster(activity, people, slot, start, stop, True, outsiders, second))


def add_strangers(plan: SequencePlan, rng: np.random.Generator) -> None:
    """Strangers with the activity of most groups, in slots of their own, and a few single people."""
    for cluster in list(plan.clusters):
        if rng.random() < 0.75:
            size = int(rng.choice([2, 3, 4, 5, 6], p=[0.28, 0.27, 0.21, 0.15, 0.09]))
            slot = plan.slots + cluster.slot
            plan.clusters.append(Cluster(cluster.activity, size, slot, cluster.start, cluster.stop, False))
    plan.slots *= 2
    for _ in range(int(rng.integers(0, 3))):
        activity = str(rng.choice(["walking", "standing", "sitting"], p=[0.5, 0.35, 0.15]))
        plan.clusters.append(Cluster(activity, 1, plan.slots, 0, plan.frames, False))
        plan.slots += 1
