"""Poses of AnoVox's sensors, and the projection from a LiDAR to a camera's image.

A pose is x, y, z in metres and roll, pitch, yaw in degrees as CARLA writes them: x ahead, y right, z up, yaw
to the right. It comes from sensor_setup.json, or else from the name of the sensor's folder.
"""

import math
import re
from pathlib import Path

import numpy as np

from utils.run.errors import DataError

FRONT = {"location": [0.0, 0.0, 1.8], "rotation": [0.0, 0.0, 0.0]}  # pose assumed for a sensor without one


def find_sensor(setup: dict, sensor_type: str, folder: str, path: Path) -> dict | None:
    """A folder's entry in sensor_setup.json: by its name, else the only one of its type, and of the pose in
    its name. Without the file, that pose; None if it names none, or there is no folder ("")."""
    pose = pose_of(folder, {})
    if not (setup and folder):
        return pose and {"location": pose[:3], "rotation": pose[3:]}
    if isinstance(setup.get(folder), dict):
        return setup[folder]
    entries = {k: e for k, e in setup.items() if isinstance(e, dict) and e.get("sensor_type") == sensor_type}
    found = [e for name, e in entries.items() if apart(pose, pose_of(name, setup)) < 0.01]
    if len(found) == 1:
        return found[0]
    what = f"{len(entries)} sensors of type {sensor_type}, {len(found)} in the pose of {folder}"
    remedy = "Give its entry, at the top of the file, the folder's name; or add one with "
    remedy += '{"location": [x, y, z], "rotation": [roll, pitch, yaw]} of the sensor.'
    raise DataError(f"{path}: {what}.\n{remedy}")


def pose_of(folder: str, setup: dict) -> list[float] | None:
    """x, y, z, roll, pitch, yaw from sensor_setup.json or a name, 'RGB-CAM(0, 0, 1.8)(0, 0, 0)_<hash>'."""
    try:
        if folder in setup:
            numbers = [*setup[folder]["location"], *setup[folder]["rotation"]]
        else:
            numbers = ",".join(re.search(r"\(([^()]*)\)\(([^()]*)\)", folder).groups()).split(",")
        numbers = [float(number) for number in numbers]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return numbers if len(numbers) == 6 else None


def apart(first: list[float] | None, second: list[float] | None) -> float:
    """Metres between two poses plus degrees of their angles; 0 if one is unknown."""
    if first is None or second is None:
        return 0.0
    turns = (abs((a - b + 180) % 360 - 180) for a, b in zip(first[3:], second[3:], strict=True))
    return math.dist(first[:3], second[:3]) + sum(turns)


def projection_matrix(width: int, height: int, fov: float, camera: dict, lidar: dict) -> np.ndarray:
    """(3, 4) from x, y, z, 1 of a LiDAR to (u * depth, v * depth, depth) of a camera, see dataset.project.

    Both are {"location": [x, y, z], "rotation": [roll, pitch, yaw]} as CARLA writes them. If they share a
    pose, u = -f*y/x and v = -f*z/x * W/H with f = 1 / tan(fov/2), from the centre, in half image sizes."""
    lens = 1 / math.tan(math.radians(fov) / 2)  # focal length over half the width
    shape = np.array([[0.0, -lens, 0.0], [0.0, 0.0, -lens * width / height], [1.0, 0.0, 0.0]])
    turn = turn_of(camera["rotation"]).T @ turn_of(lidar["rotation"])
    offset = np.subtract(lidar["location"], camera["location"]) * (1, -1, 1)  # CARLA's y points right
    return shape @ np.column_stack([turn, turn_of(camera["rotation"]).T @ offset])


def turn_of(rotation) -> np.ndarray:
    """Rotation from sensor to vehicle axes (y left), for CARLA's roll, pitch (up), yaw (right) in degrees."""
    from scipy.spatial.transform import Rotation  # slow to import

    roll, pitch, yaw = map(float, rotation)
    return Rotation.from_euler("ZYX", [-yaw, -pitch, roll], degrees=True).as_matrix()
