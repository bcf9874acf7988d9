"""Where a LiDAR point falls in the image: poses as CARLA writes them, from sensor_setup.json."""

from __future__ import annotations

import json
import math
import re

import numpy as np

from utils.run.errors import DataError

FRONT = {"location": [0.0, 0.0, 1.8], "rotation": [0.0, 0.0, 0.0]}


def read_json(path) -> dict:
    """The object in a JSON file; DataError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object is expected, found a {type(content).__name__}.")
    return content


def read_calibration(
    scenario, camera_folder: str, lidar_folder: str | None, size: tuple[int, int]
) -> tuple[np.ndarray, float, bool]:
    """Of a scenario's folder: the projection (3, 4) of `project`, degrees from the LiDAR's heading to the
    camera's, to the right, and whether both are assumed (fov 90 and one pose) for want of a
    sensor_setup.json. `size` = (width, height) of the image.
    """
    path = scenario / "sensor_setup.json"
    setup = read_json(path) if path.exists() else {}
    camera = _sensor_in(setup, "RGB-CAM", camera_folder, path)
    lidar = _sensor_in(setup, "LIDAR", lidar_folder, path)
    try:
        fov = float(camera.get("args", {}).get("camera_fov", 90))
        roll, pitch, yaw = map(float, lidar["rotation"])
        turn = (float(camera["rotation"][2]) - yaw + 180) % 360 - 180
        turned = {"location": lidar["location"], "rotation": [roll, pitch, yaw + turn]}
        return projection_matrix(*size, fov, camera, turned), turn, not setup
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"{path}: location and rotation need three numbers each, "
            f"args.camera_fov one ({type(error).__name__}: {error})."
        ) from error


def _sensor_in(setup: dict, sensor_type: str, folder: str | None, path) -> dict:
    """A folder's entry in sensor_setup.json: of its name, else the only one of its type or in its pose."""
    if not setup or folder is None:
        return FRONT
    if isinstance(setup.get(folder), dict):
        return setup[folder]
    entries = [e for e in setup.values() if isinstance(e, dict) and e.get("sensor_type") == sensor_type]
    pose = pose_in_name(folder)
    same = [e for e in entries if pose == [*e.get("location", ()), *e.get("rotation", ())]]
    for found in (entries, same):
        if len(found) == 1:
            return found[0]
    raise DataError(f"{path}: {len(entries)} sensors of type {sensor_type}, none in the pose of {folder}.")


def pose_in_name(name: str) -> list[float] | None:
    """x, y, z, roll, pitch, yaw of 'RGB-CAM(0, 0, 1.8)(0, 0, 0)_<hash>'."""
    match = re.search(r"\(([^()]*)\)\(([^()]*)\)", name)
    try:
        numbers = [float(number) for number in ",".join(match.groups()).split(",")] if match else []
    except ValueError:
        return None
    return numbers if len(numbers) == 6 else None


def projection_matrix(width: int, height: int, fov: float, camera: dict, lidar: dict) -> np.ndarray:
    """(3, 4) for `project`: from a LiDAR to a camera.

    Both are {"location": [x, y, z], "rotation": [roll, pitch, yaw]} as CARLA writes them. For one pose this
    is u = cx - f*y/x, v = cy - f*z/x with f = W/2 / tan(fov/2), in units of half the image.
    """
    lens = 1 / math.tan(math.radians(fov) / 2)  # focal length over half the width
    shape = np.array([[0.0, -lens, 0.0], [0.0, 0.0, -lens * width / height], [1.0, 0.0, 0.0]])
    turn = _turn(camera["rotation"]).T @ _turn(lidar["rotation"])
    apart = np.subtract(lidar["location"], camera["location"]) * (1, -1, 1)  # CARLA's y points right
    return shape @ np.column_stack([turn, _turn(camera["rotation"]).T @ apart])


def _turn(rotation) -> np.ndarray:
    """Vehicle from sensor axes (y left); CARLA's roll, pitch (looks up), yaw (turns right) in degrees."""
    roll, pitch, yaw = np.radians(rotation)
    about_z = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, -np.sin(pitch)], [0, 1, 0], [np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    return about_z @ about_y @ about_x
