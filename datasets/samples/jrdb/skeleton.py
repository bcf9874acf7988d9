"""A person's looks, pose and joints. No pixels here.

The body frame is (forward, left, up) in units of the person's height, feet at up = 0. Facing (yaw) is as the
camera sees it: 0 degrees faces it, +90 faces the right of the image, 180 shows the back.
"""

import math
from dataclasses import dataclass

import numpy as np

THIGH, SHANK = 0.25, 0.25

Colour = tuple[int, int, int]
Point = tuple[float, float, float]  # forward, left, up


class Look:
    """What stays the same about a person: height in metres, build (1 = average), colours, belongings."""

    def __init__(self, rng: np.random.Generator):
        def colour(low: int, high: int) -> Colour:
            base = rng.integers(low, high)
            return tuple(int(np.clip(base + v, 12, 245)) for v in rng.integers(-60, 61, 3))

        tone = rng.uniform(0.5, 1.05)
        self.skin = (int(232 * tone), int(190 * tone), int(160 * tone))
        hairs = [(24, 20, 20), (60, 38, 24), (96, 66, 38), (150, 120, 76), (120, 118, 116)]
        self.hair = hairs[rng.choice(5, p=[0.4, 0.27, 0.15, 0.1, 0.08])]
        grey = int(rng.integers(24, 110))
        self.trousers = (grey, grey + int(rng.integers(0, 16)), grey + int(rng.integers(4, 40)))
        grown = rng.random() > 0.3
        self.height = float(np.clip(rng.normal(1.71, 0.09), 1.48, 1.95) if grown else rng.uniform(1.18, 1.5))
        self.build = float(rng.uniform(0.9, 1.15))
        self.top, self.shirt, self.shoes = colour(25, 130), colour(170, 235), colour(25, 120)
        self.long_hair = rng.random() < 0.4
        self.backpack = colour(30, 170) if rng.random() < 0.35 else None


@dataclass(frozen=True)
class Pose:
    """What a person does in one frame. Angles in degrees as the camera sees them."""

    posture: str  # stand | walk | sit | bend | cycle | stairs
    yaw: float
    head: float
    nod: float  # 0 upright, 1 looking down
    phase: float  # of the legs, radians
    arms: tuple[str, str]  # left and right, see arm_joints
    toward: float  # where an open hand points
    stairs: int = 0  # +1 going up, -1 going down


def rotate(degrees: float) -> tuple[float, float]:
    return math.sin(math.radians(degrees)), math.cos(math.radians(degrees))


def knee_of(hip: Point, ankle: Point) -> Point:
    """Knee of a two-link leg bending forward (law of cosines in the forward-up plane)."""
    df, du = ankle[0] - hip[0], ankle[2] - hip[2]
    reach = min(math.hypot(df, du), THIGH + SHANK - 1e-4)
    bulge = math.sqrt(max(THIGH**2 - (reach / 2) ** 2, 0.0))
    norm = math.hypot(df, du) or 1.0
    return (hip[0] + df / 2 - bulge * du / norm, (hip[1] + ankle[1]) / 2, hip[2] + du / 2 + bulge * df / norm)


def legs(pose: Pose) -> tuple[Point, list[Point], float]:
    """-> hip centre, [left ankle, right ankle], forward lean of the spine in degrees."""
    swing = math.sin(pose.phase)
    lift = math.cos(pose.phase)
    if pose.posture == "walk":
        stride = math.copysign(0.09 + 0.11 * abs(swing), swing)  # the feet are never side by side
        behind = -math.copysign(1, swing)  # the foot behind comes up
        feet = [(stride * k, 0.035 * k, 0.035 + 0.09 * (k == behind)) for k in (1, -1)]
        return (0.0, 0.0, 0.52 - 0.03 * abs(swing)), feet, 6.0
    if pose.posture == "stairs":
        up = pose.stairs
        order = (1, -1) if swing > 0 else (-1, 1)
        feet = [(0.10 * k, 0.04 * k, 0.035 + 0.09 * k * up + 0.02) for k in order]
        return (0.0, 0.0, 0.50), feet, 12.0 * max(up, 0)
    if pose.posture == "sit":
        return (0.0, 0.0, 0.27), [(0.20, 0.06 * k, 0.035) for k in (1, -1)], 4.0
    if pose.posture == "cycle":
        pedal = [(0.06 + 0.08 * k * swing, 0.04 * k, 0.17 + 0.08 * k * lift) for k in (1, -1)]
        return (-0.06, 0.0, 0.55), pedal, 32.0
    if pose.posture == "bend":
        return (-0.06, 0.0, 0.46), [(0.0, 0.06 * k, 0.035) for k in (1, -1)], 68.0
    return (0.0, 0.0, 0.532), [(0.01 * k, 0.065 * k, 0.035) for k in (1, -1)], 0.0


def arm_joints(
    mode: str, side: int, shoulder: Point, toward: tuple[float, float], swing: float
) -> tuple[Point, Point]:
    """Elbow and hand for an arm mode; `toward`: the partner's direction (forward, left) in the body frame."""
    tf, ts = toward
    offsets = {
        "hang": ((-0.01, 0.03, -0.15), (0.02, 0.04, -0.29)),
        "swing": ((0.09 * swing, 0.025, -0.14), (0.16 * swing + 0.04, 0.02, -0.26)),
        "pocket": ((-0.06, 0.07, -0.13), (0.03, 0.03, -0.23)),
        "crossed": ((0.03, 0.05, -0.14), (0.09, -0.10, -0.10)),
        "phone": ((0.04, 0.04, -0.14), (0.16, -0.05, -0.05)),
        "eat": ((0.08, 0.05, -0.12), (0.11, -0.06, 0.06)),
        "wave": ((0.02, 0.08, 0.10), (0.02, 0.12, 0.25)),
        "grip": ((0.10, 0.05, -0.12), (0.24, 0.08, -0.16)),
        "table": ((0.03, 0.05, -0.14), (0.17, 0.00, -0.15)),
    }
    if mode in offsets:
        elbow, hand = offsets[mode]
        bend = [(f, s * side, u) for f, s, u in (elbow, hand)]
    else:
        reach = {
            "open": (0.10, -0.11, 0.24, -0.09),
            "raised": (0.14, -0.02, 0.19, 0.15),
            "point": (0.14, 0.0, 0.29, 0.04),
            "hug": (0.12, -0.06, 0.22, 0.00),
        }[mode]  # elbow: along, up; hand: along, up
        bend = [(tf * along, ts * along + 0.02 * side, up) for along, up in (reach[:2], reach[2:])]
    return tuple((shoulder[0] + f, shoulder[1] + s, shoulder[2] + u) for f, s, u in bend)
