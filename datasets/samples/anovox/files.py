"""Writes one scenario in AnoVox's on-disk layout: sensor_setup.json and the files that our reader opens.

Depth and instance images, ACTION and ROUTE_MAP are left out, because nothing reads them.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.anovox.raycast import GROUND, SKY, camera_rays, cast, lidar_rays
from datasets.samples.anovox.appearance import ground_at, light_of, paint_image
from datasets.samples.anovox.scenario import CATEGORY, WAITING, Event, Frame, Scenario

LOCATION, POSE = (0, 0, 1.8), "(0, 0, 1.8)(0, 0, 0)"  # of all sensors
LIDAR_RANGE, LIDAR_NOISE = 100.0, 0.1  # metres; the noise is Gaussian along the ray
VOXEL_SIZE, VOXEL_ORIGIN, VOXEL_COUNT = 0.5, np.array([250, 250, 16]), np.array([1000, 1000, 64])
ROAD_LINE = 24  # takes precedence in a voxel, as in the official voxelizer


def write_scenario(
    folder: Path, scenario: Scenario, camera: tuple[int, int], lidar: tuple[int, int], seed: list[int]
) -> None:
    """Write all files of one scenario; `camera` = (height, width), `lidar` = (rings, azimuths)."""
    rng = np.random.default_rng(seed)
    light = light_of(scenario.weather, rng)
    hashes = rng.integers(2**60, 2**62, 2)  # instead of Python's hashes, which change from run to run
    setup = describe_sensors(camera, lidar, hashes.tolist())
    folder.mkdir(parents=True)
    (folder / "sensor_setup.json").write_text(json.dumps(setup), encoding="ascii")
    names = {entry["sensor_type"]: name for name, entry in setup.items() if entry["save_data"]}
    names |= {name: name for name in ("VOXEL_GRID", *["ANOMALY"] * scenario.anomalous)}
    for name in names.values():
        (folder / name).mkdir()
    grids = camera_rays(*camera), lidar_rays(*lidar)
    for number, frame in enumerate(scenario.frames):
        image, classes = paint_image(frame, scenario.town, grids[0], light, rng)
        points, semantic = scan_lidar(frame, scenario, grids[1], rng)
        shown = {"RGB-CAM": image, "SEMANTIC-CAM": classes, "LIDAR": points, "SEMANTIC-LIDAR": semantic}
        for sensor, content in (shown | {"VOXEL_GRID": voxelize(semantic)}).items():
            stem = folder / names[sensor] / f"{names[sensor]}_{frame.frame_id}"
            if "CAM" in sensor:
                Image.fromarray(content).save(f"{stem}.png", compress_level=3)
            else:
                np.save(f"{stem}.npy", content)
        if scenario.anomalous:
            text = _anomaly_text(number, scenario, folder.name)
            path = folder / "ANOMALY" / f"ANOMALY_{frame.frame_id}.csv"
            path.write_text(text, encoding="ascii", newline="\n")


def scan_lidar(frame: Frame, scenario: Scenario, rays, rng) -> tuple[np.ndarray, np.ndarray]:
    """LIDAR float32 (N, 4) x, y, z, intensity with noise; SEMANTIC-LIDAR float64 (N, 4) x, y, z, class."""
    eye, solids = np.asarray(frame.eye), [solid for solid in frame.solids if solid.seen_by != "camera"]
    t, surface = cast(rays, solids, eye)
    returned = (surface != SKY) & (t < LIDAR_RANGE)
    t, directions = t[returned], rays[returned]
    exact = t[:, None] * directions
    ids = np.array([solid.class_id for solid in solids] + [0])[surface[returned]]  # GROUND = -1 is the last
    ground = surface[returned] == GROUND
    x, y = (exact + eye)[ground, :2].T
    ids[ground] = ground_at(x, y, frame.decals, scenario.town)[0]
    noisy = np.maximum(t + rng.normal(0, LIDAR_NOISE, t.shape), 0.05)
    points = np.column_stack([noisy[:, None] * directions, np.exp(-0.004 * t)]).astype(np.float32)
    return points, np.column_stack([exact, ids]).astype(np.float64)


def voxelize(semantic: np.ndarray) -> np.ndarray:
    """uint16 (M, 4) ix, iy, iz, class: that of the point nearest the voxel's lower corner, or ROAD_LINE if a
    point has it. Like the official code, this subtracts the sensor's location although points are relative to
    the sensor already."""
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


def describe_sensors(camera: tuple[int, int], lidar: tuple[int, int], hashes: list[int]) -> dict:
    """Content of sensor_setup.json; depth and instance images are listed but not saved."""
    camera_args = {"image_height": camera[0], "image_width": camera[1], "camera_fov": 90.0}
    lidar_args = {"range": LIDAR_RANGE, "upper_fov": 15.0, "lower_fov": -25.0, "channels": lidar[0]}
    lidar_args |= {"points_per_second": lidar[0] * lidar[1] * 10, "noise_stddev": LIDAR_NOISE}
    setup = {}
    for sensor in ("RGB-CAM", "DEPTH_CAM", "SEMANTIC-CAM", "INSTANCE-CAM", "LIDAR", "SEMANTIC-LIDAR"):
        is_lidar = "LIDAR" in sensor
        setup[f"{sensor}{POSE}_{hashes[is_lidar]}"] = {
            "sensor_type": sensor,
            "file_ending": ".npy" if is_lidar else ".png",
            "location": list(LOCATION),
            "rotation": [0, 0, 0],
            "args": lidar_args if is_lidar else camera_args,
            "save_data": sensor not in ("DEPTH_CAM", "INSTANCE-CAM"),
        }
    return setup


def _blueprint(event: Event) -> str:
    return f"static.prop.o_{event.name}_{CATEGORY[event.name]}"


def _anomaly_text(number: int, scenario: Scenario, scenario_name: str) -> str:
    """CSV text of this frame's anomaly or, if it has none, of the next one (after the last, the first), which
    waits above the road. As in AnoVox, it is alive in every frame."""
    frame = scenario.frames[number]
    ahead = [other for other in scenario.frames[number:] if other.anomalous]
    event = (ahead or [other for other in scenario.frames if other.anomalous])[0].event
    x, y, z = event.centre
    values = {
        "frame_id": frame.frame_id,
        "scenario_id": scenario_name.removeprefix("Scenario_"),
        "anomaly_id": 321,
        "anomaly_type_id": _blueprint(event),
        "anomaly_is_alive": True,
        "semantic_tags": [event.class_id],
        "location": (round(x, 3), round(-y, 3), round(z if frame.anomalous else z + WAITING, 3)),
        "velocity": (0.0, 0.0, 0.0),
        "acceleration": (0.0, 0.0, 0.0),
        "size": event.size_name,
        "visibility": event.kind,  # only in this sample: which sensor reveals it
    }
    return "".join(f"{key} ; {value}\n" for key, value in values.items())


def scenario_entry(identifier: str, scenario: Scenario) -> dict:
    """The scenario's entry in its town's Scenario_Configuration_Files, with the keys that our reader uses."""
    first = next((frame.event for frame in scenario.frames if frame.anomalous), None)
    anomaly = {"anomalytype": "STATIC" if first else "NORMALITY"}
    anomaly["anomaly_bp_name"] = _blueprint(first) if first else "---"
    route = {"weather_preset": scenario.weather}
    return {"anomaly_config": anomaly, "id": identifier, "ego_route": route}
