"""How somebody who interacts differs from somebody who only happens to be there: facing, gaze and arms.

Directions are angles as the camera sees them: 0 toward the camera, +90 to the right (skeleton.py).
"""

import math

import numpy as np

from datasets.samples.jrdb.plan import ACTIVITIES, MOVING, Cluster
from datasets.samples.jrdb.skeleton import Look, Pose

Rng = np.random.Generator
RESTING = {"sit": ("table",), "cycle": ("grip",), "bend": ("hang",), "stand": ("hang", "pocket", "crossed")}
STAIRS = {"upstairs": 1, "downstairs": -1}


class Person:
    """Who somebody is."""

    def __init__(self, number: int, rng: Rng):
        self.number, self.look = number, Look(rng)
        self.habit = rng.random(3).tolist()  # uniform numbers that fix arms and manners
        self.skew = float(rng.normal(0, 12))  # degrees by which this person's facing is off


def direction_of_partner(offsets: np.ndarray, habit: float) -> float:
    """Degrees toward the one a person turns to: the nearest, between two people by habit. offsets (n, 2):
    metres from the person to each of the others, right and away from the camera."""
    if not len(offsets):
        return 180.0
    order = np.argsort(np.hypot(*offsets.T))
    right, away = offsets[order[0]]
    between = len(order) > 1 and offsets[order[1]] @ offsets[order[0]] < 0
    if between and habit < 0.5:
        right, away = offsets[order[1]]
    return math.degrees(math.atan2(right, -away))


def turn(from_angle: float, to_angle: float) -> float:
    """Shortest turn in degrees, within +-180."""
    return (to_angle - from_angle + 180.0) % 360.0 - 180.0


def engaged_pose(
    cluster: Cluster, person: Person, heading: float, talker: bool, target: float, beat: float, rng: Rng
) -> Pose:
    """Somebody who interacts: turned to the others, near arm open toward them; raised while talking."""
    posture = ACTIVITIES[cluster.activity][0]
    jitter = rng.normal(0, 7)
    habit = person.habit[0]
    if posture in MOVING:
        yaw = heading + 0.4 * person.skew + 0.5 * jitter
    elif cluster.activity == "lecture":
        yaw = heading + 0.5 * person.skew
        target = heading
    elif cluster.activity == "waving":
        yaw = 0.5 * turn(0, target) + person.skew * 0.5 + jitter
    else:
        yaw = target + person.skew + jitter
    head = yaw + float(np.clip(turn(yaw, target), -82, 82)) * (0.95 if rng.random() < 0.96 else 0.2)
    left_is_near = math.sin(math.radians(target - yaw)) > 0 if abs(turn(yaw, target)) > 20 else habit < 0.5
    rest = "swing" if posture in ("walk", "stairs") else "pocket" if habit > 0.6 else "hang"
    near, far = "open" if rng.random() < 0.95 else rest, rest
    if cluster.activity == "conversation":
        near = "raised" if talker or rng.random() < 0.95 else "open"
        far = "raised" if talker or rng.random() < 0.35 else rest
    elif posture == "sit":
        near, far = ("open" if rng.random() < 0.92 else "table"), "table"
        near = "eat" if cluster.activity == "eating" and rng.random() < 0.8 else near
    elif posture == "cycle":
        near, far = ("point" if rng.random() < 0.95 else "grip"), "grip"
    else:
        always = {"bending": ("open", "open"), "hugging": ("hug", "hug"), "waving": ("open", "wave")}
        near, far = always.get(cluster.activity, (near, far))
    arms = (near, far) if left_is_near else (far, near)
    return Pose(posture, yaw, head, 0.0, beat, arms, target, STAIRS.get(cluster.activity, 0))


def stranger_pose(
    cluster: Cluster, person: Person, heading: float, manner: str, target: float, beat: float, rng: Rng
) -> Pose:
    """Somebody who only happens to be there: turned elsewhere, in a queue, or on the phone."""
    posture = ACTIVITIES[cluster.activity][0]
    jitter = rng.normal(0, 7)
    first, second, third = person.habit
    spread = (first - 0.5) * 110
    phone = manner == "phone" or (manner == "away" and second < 0.3)
    if posture in MOVING:
        yaw = heading + 0.4 * person.skew + 0.5 * jitter
        head = yaw + (float(np.clip(turn(yaw, target + 180 + spread), -60, 60)) if second > 0.5 else 0.0)
    else:
        elsewhere = {"queue": heading, "phone": (90 if third < 0.5 else -90) + spread}
        yaw = elsewhere.get(manner, target + 180 + spread) + 0.6 * person.skew + jitter
        head = yaw + 20 * (third - 0.5)
    choices = RESTING.get(posture, ("swing", "pocket"))
    arms = (choices[int(third * len(choices))],) * 2
    if phone and posture != "cycle":
        arms = ("phone", arms[1]) if first < 0.5 else (arms[0], "phone")
    return Pose(posture, yaw, head, 0.8 if phone else 0.0, beat, arms, yaw, STAIRS.get(cluster.activity, 0))
