"""Poses of AnoVox's sensors, and the projection from a LiDAR to a camera's image.

A pose is x, y, z in metres and roll, pitch, yaw in degrees as CARLA writes them: x ahead, y right, z up, yaw
to the right. It comes from sensor_setup.json, or else from the name of the sensor's folder.
"""

import contextlib
import math
import re
from pathlib import Path

import numpy as np

from datasets.images import read_image_size
from utils.run.errors import DataError

FRONT = {"location": [0.0, 0.0, 1.8], "rotation": [0.0, 0.0, 0.0]}  # pose assumed for a sensor without one


def calibrate(scenario, setup: dict) -> None:
    """Set projection and turn of a ScenarioFiles from sensor_setup.json; without it, from the poses in the
    names of the folders and fov 90. A sensor without a pose is assumed to be where the other one is; without
    scans, the LiDAR at FRONT, whose height above the ground pasted.py knows."""
    path, images = scenario.path / "sensor_setup.json", scenario.files["image"]
    for frame in sorted(images):  # the first readable header; if none is, reading the images fails
        with contextlib.suppress(DataError):
            scenario.image_size = read_image_size(images[frame])
            break
    try:
        lidar = find_sensor(setup, "LIDAR", scenario.folders.get("points", ""), path)
        camera = find_sensor(setup, "RGB-CAM", scenario.folders["image"], path) or lidar or FRONT
        lidar = lidar or (camera if "points" in scenario.folders else FRONT)
        options = camera | camera.get("args", {})
        fov = float(options.get("camera_fov", options.get("fov", 90)))
        if not 5 <= fov < 180:
            raise ValueError(f"a field of view of {fov:g} degrees")
        level = {"location": lidar["location"], "rotation": [0.0, 0.0, float(camera["rotation"][2])]}
        if list(map(float, lidar["rotation"])) != level["rotation"]:
            scenario.turn = turn_of(level["rotation"]).T @ turn_of(lidar["rotation"])
        width, height = scenario.image_size or (1, 1)
        sides = ("image_width", "image_size_x"), ("image_height", "image_size_y")
        wide, high = (float(options.get(own, options.get(carla, 0))) for own, carla in sides)
        checked = scenario.image_size and wide and high and scenario.files["points"]
        if checked and abs(width * high / (height * wide) - 1) >= 0.01:
            what = f"the camera has {wide:g}x{high:g} pixels, the images have {width}x{height}"
            remedy = "Stretched images: export them again with that aspect ratio. "
            remedy += "Cropped ones: correct image_width, image_height and camera_fov in the file."
            raise DataError(f"{path}: {what}. LiDAR points would fall on wrong pixels.\n{remedy}")
        scenario.projection = projection_matrix(width, height, fov, camera, level)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError) as error:
        wanted = "location and rotation need three numbers each, args.camera_fov one"
        raise DataError(f"{path}: {wanted} ({type(error).__name__}: {error}).") from error
    scenario.assumed_calibration = not {"camera_fov", "fov"} & options.keys()


def find_sensor(setup: dict, sensor_type: str, folder: str, path: Path) -> dict | None:
    """A folder's entry in sensor_setup.json: by its name, else the only one of its type in the pose that its
    name gives, if any, or near it. Without the file, that pose; None if there is none, or no folder ("")."""
    pose = pose_of(folder, {})
    if not (setup and folder):
        return pose and {"location": pose[:3], "rotation": pose[3:]}
    if isinstance(setup.get(folder), dict):
        return setup[folder]
    names = [k for k, e in setup.items() if isinstance(e, dict) and e.get("sensor_type") == sensor_type]
    for most in (0.01, 1.0):  # people correct a height
        near = [name for name in names if apart(pose, pose_of(name, setup)) < most]
        if len(near) == 1:
            return setup[near[0]]
    what = f"{len(names)} sensors of type {sensor_type}, {len(near)} in the pose of {folder}"
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
