"""Who is where: which sequences a sample has, and which groups and strangers each of them shows.

Beside most groups that interact there is a cluster of strangers with the same posture, spacing and motion,
drawn from the same distributions, and some groups have an outsider beside them. Boxes and their history tell
little; what the people do (facing, gaze, arms) tells nearly everything.
"""

import zlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

STRIDE = 15  # labelled frames are one second apart at 15 frames per second, as the real keyframes are

# Share of interacting pairs by class. The most frequent class of val differs from that of train.
SHARES = {
    "train": {"walking": 0.36, "standing": 0.27, "conversation": 0.18, "sitting": 0.08, "others": 0.11},
    "val": {"walking": 0.24, "standing": 0.42, "conversation": 0.13, "sitting": 0.12, "others": 0.09},
    "test": {"walking": 0.39, "standing": 0.27, "conversation": 0.14, "sitting": 0.11, "others": 0.09},
}
OTHERS = ("cycling", "upstairs", "bending", "hugging", "downstairs", "waving")
# Of each activity: posture, name, second names that only occur together with the first.
ACTIVITIES = {
    "walking": ("walk", "walking together", ()),
    "standing": ("stand", "standing together", ()),
    "conversation": ("stand", "conversation", ("standing together",)),
    "sitting": ("sit", "sitting together", ("conversation",)),
    "cycling": ("cycle", "cycling together", ("moving together",)),
    "upstairs": ("stairs", "going upstairs together", ("holding sth together",)),
    "downstairs": ("stairs", "going downstairs together", ("interaction with door together",)),
    "bending": ("bend", "bending together", ("looking into sth together", "looking at sth together")),
    "hugging": ("stand", "hugging", ("shaking hand", "walking toward each other")),
    "waving": ("stand", "waving hand together", ("looking at robot together",)),
    "eating": ("sit", "eating together", ()),
    "lecture": ("sit", "sitting together", ()),
}
# Metres between neighbours, by posture.
SPACING = dict.fromkeys(("walk", "stand", "bend"), (0.70, 1.30))
SPACING |= {"sit": (0.85, 1.60), "cycle": (0.75, 1.40), "stairs": (0.65, 1.30)}

MOVING = ("walk", "cycle", "stairs")  # postures of people on their way

INDOOR = ("atrium-cafe", "north-hall", "east-lobby", "poster-gallery", "basement-elevators",
          "library-foyer", "maker-lab", "south-stairs")  # fmt: skip
OUTDOOR = ("fountain-court", "elm-lane", "oval-plaza", "bridge-walk", "market-street", "quad-crossing",
           "harbor-walk", "garden-gate")  # fmt: skip
LECTURE_PLACE = "hall-120-lecture"


@dataclass(frozen=True)
class Size:
    """What a sample of one size holds; `groups` on view at a time, strangers and loners follow from it."""

    width: int
    height: int
    frames: int
    sequences: dict[str, int]
    groups: tuple[float, float]


SIZES = {
    "tiny": Size(752, 96, 7, {"train": 3, "val": 1, "test": 2}, (1.6, 2.6)),
    "small": Size(3760, 480, 10, {"train": 18, "val": 4, "test": 8}, (2.4, 3.8)),
    "full": Size(3760, 480, 30, {"train": 20, "val": 7, "test": 12}, (3.0, 5.0)),
}


@dataclass
class Cluster:
    """People placed together for frames [start, stop): a group that interacts, strangers, or a loner."""

    activity: str
    size: int
    slot: int
    start: int
    stop: int
    engaged: bool
    outsiders: int = 0  # people in the formation who have nothing to do with the group
    second: str = ""  # second interaction name on (some of) its pairs


@dataclass
class SequencePlan:
    """Everything that decides one sequence; pickled to the worker that draws it."""

    name: str
    role: str
    outdoor: bool
    size: Size
    seed: int = 0
    clusters: list[Cluster] = field(default_factory=list)
    slots: int = 0

    def random(self, purpose: str) -> np.random.Generator:
        """A generator of its own for each purpose, the same in whichever process it is made."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.name}/{purpose}".encode())])


def name_sequences(size: Size, rng: np.random.Generator) -> list[SequencePlan]:
    """One plan per sequence, unfilled: JRDB-like names (place, date, take), indoors and outdoors in turn."""
    plans, takes = [], Counter()
    for role, count in size.sequences.items():
        for k in range(count):
            outdoor = k % 2 == 1
            drawn = sum(plan.outdoor == outdoor for plan in plans)
            place = (OUTDOOR if outdoor else INDOOR)[drawn % 8] if plans else LECTURE_PLACE
            name = f"{place}-2024-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}_{takes[place]}"
            takes[place] += 1
            plans.append(SequencePlan(name, role, outdoor, size))
    return plans


def plan_sample(size_name: str, seed: int) -> list[SequencePlan]:
    """All sequences of a sample with their clusters. Pure function of size and seed."""
    size = SIZES[size_name]
    rng = np.random.default_rng([seed, 20240305])
    plans = name_sequences(size, rng)
    for role in size.sequences:
        members = [plan for plan in plans if plan.role == role]
        free = []  # (plan, slot, start, stop) of every group to be placed
        for plan in members:
            plan.seed = seed
            concurrent = round(rng.uniform(*size.groups))
            crowded = size.width > 1000 and plan is members[-1] and role != "val"
            concurrent += 2 if crowded else 0
            plan.slots = concurrent
            for slot in range(concurrent):
                change = int(rng.integers(size.frames * 2 // 5, size.frames * 3 // 5 + 1))
                free += [(plan, slot, 0, change), (plan, slot, change, size.frames)]
        fill_groups(free, role, rng)
        for plan in members:
            add_strangers(plan, rng)
    lecture = plans[0]
    audience, end = 22 if size.width > 1000 else 8, max(2, size.frames // 4)
    lecture.clusters.append(Cluster("lecture", audience, lecture.slots, 0, end, True))
    lecture.slots += 1
    return plans


def fill_groups(free: list[tuple], role: str, rng: np.random.Generator) -> None:
    """Give every free place an activity so that pairs follow SHARES; cyclists outdoors, tables indoors."""
    done = dict.fromkeys(SHARES[role], 0.0)
    chosen = []
    rare = 0
    for _ in free:
        total = sum(done.values()) or 1.0
        kind = max(done, key=lambda name: SHARES[role][name] - done[name] / total)
        activity = kind
        if kind == "others":
            activity = OTHERS[rare % len(OTHERS)] if not (role == "train" and rare == 6) else "eating"
            rare += 1
        people = 2
        if activity not in (*OTHERS, "eating"):
            people = int(rng.choice([2, 3, 4, 5, 6], p=[0.41, 0.28, 0.17, 0.09, 0.05]))
        done[kind] += people * (people - 1) / 2
        chosen.append((activity, people))
    met: Counter[str] = Counter()  # groups by activity
    order = {"cycling": 0, "sitting": 1, "eating": 1}
    chosen.sort(key=lambda item: order.get(item[0], 2))
    free = [free[k] for k in rng.permutation(len(free))]
    for activity, people in chosen:
        outdoor = {"cycling": True, "sitting": False, "eating": False}.get(activity)
        at = next((k for k, place in enumerate(free) if outdoor is None or place[0].outdoor == outdoor), 0)
        plan, slot, start, stop = free.pop(at)
        names, count = ACTIVITIES[activity][2], met[activity]  # in turn, each once for the rare ones
        often = activity in ("conversation", "sitting")
        second = names[count % len(names)] if names and (often or count < len(names)) else ""
        met[activity] += 1
        outsiders = int(rng.random() < 0.4)
        plan.clusters.append(Cluster(activity, people, slot, start, stop, True, outsiders, second))


def add_strangers(plan: SequencePlan, rng: np.random.Generator) -> None:
    """A twin without interaction for most groups, in slots of their own, and a few people alone."""
    first = plan.slots
    for cluster in list(plan.clusters):
        if rng.random() < 0.75:
            size = int(rng.choice([2, 3, 4, 5, 6], p=[0.28, 0.27, 0.21, 0.15, 0.09]))
            slot = first + cluster.slot
            plan.clusters.append(Cluster(cluster.activity, size, slot, cluster.start, cluster.stop, False))
    plan.slots = 2 * first
    for _ in range(int(rng.integers(0, 3))):
        activity = str(rng.choice(["walking", "standing", "sitting"], p=[0.5, 0.35, 0.15]))
        plan.clusters.append(Cluster(activity, 1, plan.slots, 0, plan.size.frames, False))
        plan.slots += 1
