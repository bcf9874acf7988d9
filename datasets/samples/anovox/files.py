"""Writes one scenario in AnoVox's on-disk layout: the files that a reader opens, beside sensor_setup.json.

Left out of every frame, as nothing reads them: depth and instance images, ACTION, ROUTE_MAP.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.samples.anovox.appearance import label_points, light_of, paint_image
from datasets.samples.anovox.raycast import SKY, camera_rays, camera_window, cast, lidar_rays, lidar_window
from datasets.samples.anovox.scenario import CATEGORY, WAITING, Frame, Scenario

LOCATION = (0, 0, 1.8)  # of every sensor
LIDAR_RANGE, LIDAR_NOISE = 100.0, 0.1  # metres; the noise is Gaussian along the ray
VOXEL_SIZE, VOXEL_ORIGIN, VOXEL_COUNT = 0.5, np.array([250, 250, 16]), np.array([1000, 1000, 64])
ROAD_LINE = 24  # wins its voxel, as in the official voxelizer


def write_scenario(
    folder: Path, scenario: Scenario, camera: tuple[int, int], lidar: tuple[int, int], seed: list[int]
) -> None:
    """All files of one scenario; `camera` = (height, width), `lidar` = (rings, azimuths)."""
    rng = np.random.default_rng(seed)
    light = light_of(scenario.weather, rng)
    camera_hash, lidar_hash = (
        int(number) for number in rng.integers(2**60, 2**62, 2)
    )  # as Python's salted hash
    pose = "(0, 0, 1.8)(0, 0, 0)"
    names = {sensor: f"{sensor}{pose}_{camera_hash}" for sensor in ("RGB-CAM", "SEMANTIC-CAM")}
    names |= {sensor: f"{sensor}{pose}_{lidar_hash}" for sensor in ("LIDAR", "SEMANTIC-LIDAR")}
    names["VOXEL_GRID"] = "VOXEL_GRID"
    if scenario.anomalous:
        names["ANOMALY"] = "ANOMALY"
    for name in names.values():
        (folder / name).mkdir(parents=True)

    _write_setup(folder / "sensor_setup.json", camera, lidar)
    grids = camera_rays(*camera), lidar_rays(*lidar)
    for number, frame in enumerate(scenario.frames):

        def path(sensor, ending, frame_id=frame.frame_id):
            return folder / names[sensor] / f"{names[sensor]}_{frame_id}.{ending}"

        image, classes = render_camera(frame, scenario, grids[0], light, rng)
        points, semantic = scan_lidar(frame, scenario, grids[1], rng)
        _save_png(path("RGB-CAM", "png"), image)
        _save_png(path("SEMANTIC-CAM", "png"), classes)
        np.save(path("LIDAR", "npy"), points)
        np.save(path("SEMANTIC-LIDAR", "npy"), semantic)
        np.save(path("VOXEL_GRID", "npy"), voxelize(semantic))
        if scenario.anomalous:
            path("ANOMALY", "csv").write_text(
                _anomaly_text(number, scenario, folder.name), encoding="ascii", newline="\n"
            )


def render_camera(frame: Frame, scenario: Scenario, rays, light: dict, rng) -> tuple[np.ndarray, ...]:
    """RGB uint8 (H, W, 3) and class ids uint8 (H, W)."""
    eye, size = np.asarray(frame.eye), rays.shape[:2]
    windows = [camera_window(solid, eye, *size) for solid in frame.solids]
    t, surface = cast(rays, frame.solids, windows, eye)
    return paint_image(rays, t, surface, frame.solids, windows, frame.decals, scenario.town, eye, light, rng)


def scan_lidar(frame: Frame, scenario: Scenario, rays, rng) -> tuple[np.ndarray, np.ndarray]:
    """LIDAR float32 (N, 4) x, y, z, intensity with noise, and SEMANTIC-LIDAR float64 (N, 4) x, y, z, class
    without.
    """
    eye = np.asarray(frame.eye)
    windows = [lidar_window(solid, eye, *rays.shape[:2]) for solid in frame.solids]
    t, surface = cast(rays, frame.solids, windows, eye)
    returned = (surface != SKY) & (t < LIDAR_RANGE)
    t, directions = t[returned], rays[returned]
    exact = t[:, None] * directions
    ids = label_points(surface[returned], exact + eye, frame.solids, frame.decals, scenario.town)
    noisy = np.maximum(t + rng.normal(0, LIDAR_NOISE, t.shape), 0.05)
    points = np.column_stack([noisy[:, None] * directions, np.exp(-0.004 * t)]).astype(np.float32)
    return points, np.column_stack([exact, ids]).astype(np.float64)


def voxelize(semantic: np.ndarray) -> np.ndarray:
    """uint16 (M, 4) ix, iy, iz, class: the class of the point nearest the voxel's lower corner, but any road
    line wins.

    The sensor's location is subtracted although the points are relative to the sensor already, as the
    official code does.
    """
    position = (semantic[:, :3] - LOCATION + VOXEL_ORIGIN) / VOXEL_SIZE
    index = np.floor(position).astype(np.int64)
    inside = ((index >= 0) & (index < VOXEL_COUNT)).all(axis=1)
    position, index, ids = position[inside], index[inside], semantic[inside, 3].astype(np.int64)
    corner = ((position - index) ** 2).sum(1)
    key = (index[:, 0] * VOXEL_COUNT[1] + index[:, 1]) * VOXEL_COUNT[2] + index[:, 2]
    order = np.lexsort((corner, ids != ROAD_LINE, key))
    first = np.r_[True, np.diff(key[order]) > 0] if len(key) else np.zeros(0, bool)
    chosen = order[first]
    return np.column_stack([index[chosen], ids[chosen]]).astype(np.uint16)


def _save_png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, compress_level=3)


def _write_setup(path: Path, camera: tuple[int, int], lidar: tuple[int, int]) -> None:
    camera_args = {"image_height": camera[0], "image_width": camera[1], "camera_fov": 90}
    lidar_args = {
        "range": 100,
        "upper_fov": 15,
        "lower_fov": -25,
        "channels": lidar[0],
        "rotation_frequency": 200,
        "points_per_second": lidar[0] * lidar[1] * 10,
        "noise_stddev": LIDAR_NOISE,
        "dropoff_general_rate": 0,
        "dropoff_intensity_limit": 0,
        "dropoff_zero_intensity": 0,
    }
    setup = {}
    for sensor in ("RGB-CAM", "SEMANTIC-CAM", "LIDAR", "SEMANTIC-LIDAR"):
        is_lidar = "LIDAR" in sensor
        setup[sensor] = {
            "sensor_type": sensor,
            "file_ending": "npy" if is_lidar else "png",
            "location": list(LOCATION),
            "rotation": [0, 0, 0],
            "args": lidar_args if is_lidar else camera_args,
            "save_data": True,
        }
    path.write_text(json.dumps(setup, indent=2) + "\n", encoding="ascii")


def _anomaly_text(number: int, scenario: Scenario, scenario_name: str) -> str:
    """The anomaly of this frame, or the next one, which still waits above the road; alive in every frame, as
    AnoVox says.
    """
    frame = scenario.frames[number]
    later = [other for other in scenario.frames[number:] if other.anomalous] or [
        other for other in scenario.frames if other.anomalous
    ]
    event = later[0].event
    x, y, z = event.centre
    values = {
        "frame_id": frame.frame_id,
        "scenario_id": scenario_name.removeprefix("Scenario_"),
        "anomaly_id": 321,
        "anomaly_type_id": f"static.prop.o_{event.name}_{CATEGORY[event.name]}",
        "anomaly_is_alive": True,
        "semantic_tags": [29],
        "location": [round(x, 3), round(-y, 3), round(z if frame.anomalous else z + WAITING, 3)],
        "velocity": [0.0, 0.0, 0.0],
        "acceleration": [0.0, 0.0, 0.0],
        "size": event.size_name,
        "visibility": event.kind,
    }
    return _sideways(values)


def _sideways(values: dict) -> str:
    return "".join(f"{key} ; {value}\n" for key, value in values.items())


def scenario_entry(identifier: str, scenario: Scenario) -> dict:
    """This scenario in its town's Scenario_Configuration_Files."""
    first = next((frame.event for frame in scenario.frames if frame.anomalous), None)
    anomaly = {"anomalytype": "NORMALITY", "anomaly_bp_name": "---", "distance_to_waypoint": 0, "rotation": 0}
    if first is not None:
        anomaly = {
            "anomalytype": "STATIC",
            "anomaly_bp_name": f"static.prop.o_{first.name}_{CATEGORY[first.name]}",
            "distance_to_waypoint": round(first.centre[0]),
            "rotation": 0,
        }
    begin, end = scenario.frames[0].eye, scenario.frames[-1].eye
    return {
        "id": identifier,
        "anomaly_config": anomaly,
        "ego_spawnpoint": {"location": [round(begin[0], 2), 0.0, 0.3], "rotation": [0, 0, 0]},
        "ego_end_spawnpoint": {"location": [round(end[0], 2), 0.0, 0.3], "rotation": [0, 0, 0]},
        "ego_route": {"locations": [[float(x), 0.0, 0.3] for x in range(int(begin[0]), int(end[0]) + 1)]},
        "weather_preset": scenario.weather,
        "npc_vehicle_amount": 50,
        "npc_walker_amount": 100,
    }


def scenario_identifier(seed: list[int]) -> str:
    """A uuid4 that the seed determines."""
    return str(uuid.UUID(bytes=np.random.default_rng(seed).bytes(16), version=4))
