"""The built-in AnoVox sample: a small synthetic world for camera and LiDAR, in AnoVox's on-disk layout.

`generate` writes scenarios (Final_Output_.../Scenario_<uuid4>/...), Scenario_Configuration_Files, split.json
and SYNTHETIC.json; of a scenario, sensor_setup.json and the files that our reader opens. Both sensors
ray-cast the same scene. Test scenarios are in held-out towns and show held-out shapes. The same arguments
give the same bytes, with any number of processes.
"""

import json
import uuid
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.cache import count_processes, in_processes
from datasets.samples import write_json
from datasets.samples.anovox import scenario
from datasets.samples.anovox.appearance import ground_at, light_of, paint_image
from datasets.samples.anovox.rays import GROUND, SKY, camera_rays, cast, lidar_rays
from datasets.samples.anovox.scenario import Event, Frame, Town
from datasets.splits import PARTS

VERSION = 6
# scenarios in train, val, test; frames; camera (height, width); LiDAR (rings, azimuths)
SIZES = {
    "tiny": ((6, 3, 3), 4, (64, 96), (20, 180)),  # for tests
    "small": ((112, 16, 32), 8, (128, 192), (40, 360)),  # the default
    "full": ((200, 40, 80), 8, (128, 192), (40, 360)),  # for ablations
    "native": ((2, 1, 1), 20, (512, 768), (64, 1562)),  # AnoVox's own sensors
}
ANOMALOUS = 0.6  # share of the scenarios that hold anomalies
LOCATION, POSE = (0, 0, 1.8), "(0, 0, 1.8)(0, 0, 0)"  # of all sensors
LIDAR_RANGE, LIDAR_NOISE = 100.0, 0.1  # metres; the noise is Gaussian along the ray
VOXEL_SIZE, VOXEL_ORIGIN, VOXEL_COUNT = 0.5, np.array([250, 250, 16]), np.array([1000, 1000, 64])


def generate(directory: Path, size: str = "small", seed: int = 0) -> None:
    """Write the sample into `directory`; `size`: one of SIZES."""
    counts, frames, camera, lidar = SIZES[size]
    root = directory / "Final_Output_2024_06_01-12_00"
    configurations = root / "Scenario_Configuration_Files"
    configurations.mkdir(parents=True, exist_ok=True)
    plans = _draw_plans(counts, frames, seed)
    work = partial(_write_scenario, root, camera, lidar, seed)
    entries = in_processes(work, plans, count_processes(plans, few=8))
    towns: dict[str, list] = {}
    split: dict[str, list] = {part: [] for part in PARTS}
    for plan, entry in zip(plans, entries, strict=True):
        towns.setdefault(plan["town"], []).append(entry)
        split[plan["part"]].append(f"Scenario_{entry['id']}")
    write_json(directory / "split.json", split, indent=1)
    about = {"synthetic": True, "kind": "anovox", "version": VERSION, "size": size, "seed": seed}
    write_json(directory / "SYNTHETIC.json", about | {"held_out_towns": scenario.HELD_OUT_TOWNS}, indent=1)
    for town, scenarios in towns.items():
        definition = {"scenario_definition": {"map": town, "scenarios": scenarios}}
        path = configurations / f"scenario_config_map_{town}.json"
        path.write_text(json.dumps(definition, indent=4))


def _draw_plans(counts: tuple[int, int, int], frames: int, seed: int) -> list[dict]:
    """Part, town, anomalous or not, and kinds of events of each scenario; shares are exact in each part."""
    rng = np.random.default_rng([seed, 0])
    plans = []
    for part, count in zip(PARTS, counts, strict=True):
        towns = scenario.HELD_OUT_TOWNS if part == "test" else scenario.TRAIN_TOWNS
        anomalous, own = round(ANOMALOUS * count), []
        for is_anomalous, members in ((True, anomalous), (False, count - anomalous)):
            bounds = np.round(np.cumsum((0, *scenario.SHARES)) * (members * frames)).astype(int)
            kinds = rng.permutation(np.repeat(scenario.KINDS, np.diff(bounds))).reshape(members, frames)
            for k, row in enumerate(kinds.tolist()):
                plan = {"part": part, "town": towns[k % len(towns)], "anomalous": is_anomalous}
                own.append(plan | {"kinds": row})
        plans += [own[k] for k in rng.permutation(len(own))]  # else order and times of files would tell
    return [plan | {"number": number} for number, plan in enumerate(plans)]


def _write_scenario(
    root: Path, camera: tuple[int, int], lidar: tuple[int, int], seed: int, plan: dict
) -> dict:  # fmt: skip
    """Write one scenario; returns its entry for Scenario_Configuration_Files."""
    key = [seed, 1, plan["number"]]
    identifier = str(uuid.UUID(bytes=np.random.default_rng([*key, 1]).bytes(16), version=4))
    town, folder = Town(plan["town"]), root / f"Scenario_{identifier}"
    weather, frames = scenario.plan_scenario(town, plan["anomalous"], plan["kinds"], key)
    rng = np.random.default_rng([*key, 2])
    light = light_of(weather, rng)
    hashes = rng.integers(2**60, 2**62, 2)  # instead of Python's hashes, which change from run to run
    setup = describe_sensors(camera, lidar, hashes.tolist())
    folder.mkdir(parents=True)
    (folder / "sensor_setup.json").write_text(json.dumps(setup), encoding="ascii")
    names = {entry["sensor_type"]: name for name, entry in setup.items() if entry["save_data"]}
    names |= {name: name for name in ("VOXEL_GRID", *["ANOMALY"] * plan["anomalous"])}
    for name in names.values():
        (folder / name).mkdir()
    grids = camera_rays(*camera), lidar_rays(*lidar)
    for frame in frames:
        image, classes = paint_image(frame, town, grids[0], light, rng)
        points, semantic = scan_lidar(frame, town, grids[1], rng)
        shown = {"RGB-CAM": image, "SEMANTIC-CAM": classes, "LIDAR": points, "SEMANTIC-LIDAR": semantic}
        for sensor, content in (shown | {"VOXEL_GRID": voxelize(semantic)}).items():
            stem = folder / names[sensor] / f"{names[sensor]}_{frame.number}"
            if "CAM" in sensor:
                Image.fromarray(content).save(f"{stem}.png", compress_level=3)
            else:
                np.save(f"{stem}.npy", content)

    shown = [frame for frame in frames if frame.anomalous]
    for frame in frames if shown else ():
        # If a frame has no anomaly, the next one (after the last, the first) waits above the road.
        event = next((other for other in shown if other.number >= frame.number), shown[0]).event
        path = folder / "ANOMALY" / f"ANOMALY_{frame.number}.csv"
        path.write_text(_anomaly_text(frame, event, identifier), encoding="ascii", newline="\n")
    anomaly = {"anomalytype": "STATIC" if shown else "NORMALITY"}
    anomaly["anomaly_bp_name"] = _blueprint(shown[0].event) if shown else "---"
    return {"anomaly_config": anomaly, "id": identifier, "ego_route": {"weather_preset": weather}}


def scan_lidar(frame: Frame, town: Town, rays, rng) -> tuple[np.ndarray, np.ndarray]:
    """LIDAR float32 (N, 4) x, y, z, intensity with noise; SEMANTIC-LIDAR float64 (N, 4) x, y, z, class."""
    solids = [solid for solid in frame.solids if solid.seen_by != "camera"]
    t, surface = cast(rays, solids, frame.eye)
    returned = (surface != SKY) & (t < LIDAR_RANGE)
    t, directions = t[returned], rays[returned]
    exact = t[:, None] * directions
    ids = np.array([solid.class_id for solid in solids] + [0])[surface[returned]]  # GROUND = -1 is the last
    ground = surface[returned] == GROUND
    x, y = (exact + frame.eye)[ground, :2].T
    ids[ground] = ground_at(x, y, frame.decals, town)[0]
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
    order = np.lexsort((corner, ids != scenario.ROAD_LINE, key))
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
    return f"static.prop.o_{event.name}_{scenario.CATEGORY[event.name]}"


def _anomaly_text(frame: Frame, event: Event, identifier: str) -> str:
    """CSV text of the anomaly `event` in a frame. As in AnoVox, it is alive in every frame."""
    (x, y, z), extent = event.centre, max(event.size)
    sizes = {0.8: "tiny", 1.4: "small", 2.6: "medium", np.inf: "big"}  # below these metres
    values = {
        "frame_id": frame.number,
        "scenario_id": identifier,
        "anomaly_id": 321,
        "anomaly_type_id": _blueprint(event),
        "anomaly_is_alive": True,
        "semantic_tags": [scenario.CLASS_IDS[event.name]],
        "location": (round(x, 3), round(-y, 3), round(z if frame.anomalous else z + scenario.WAITING, 3)),
        "velocity": (0.0, 0.0, 0.0),
        "acceleration": (0.0, 0.0, 0.0),
        "size": next(name for limit, name in sizes.items() if extent < limit),
        "visibility": event.kind,  # only in this sample: which sensor reveals it
    }
    return "".join(f"{key} ; {value}\n" for key, value in values.items())
