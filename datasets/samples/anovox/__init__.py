"""The built-in AnoVox sample: a small synthetic world for camera and LiDAR, in AnoVox's on-disk layout.

`generate` writes scenarios (Final_Output_.../Scenario_<uuid4>/...), Scenario_Configuration_Files, split.json
and SYNTHETIC.json. Both sensors ray-cast the same scene. Test scenarios are in held-out towns and show
held-out shapes. The same arguments give the same bytes, with any number of processes.
"""

import json
import uuid
from functools import partial
from pathlib import Path

import numpy as np

from datasets.cache import count_processes, in_processes
from datasets.samples import write_json
from datasets.samples.anovox.files import scenario_entry, write_scenario
from datasets.samples.anovox.scenario import KINDS, SHARES, plan_scenario
from datasets.samples.anovox.town import HELD_OUT_TOWNS, TRAIN_TOWNS
from datasets.splits import PARTS

VERSION = 5
# scenarios in train, val, test; frames; camera (height, width); LiDAR (rings, azimuths)
SIZES = {
    "tiny": ((6, 3, 3), 4, (64, 96), (20, 180)),  # for tests
    "small": ((112, 16, 32), 8, (128, 192), (40, 360)),  # the default
    "full": ((200, 40, 80), 8, (128, 192), (40, 360)),  # for ablations
    "native": ((2, 1, 1), 20, (512, 768), (64, 1562)),  # AnoVox's own sensors
}
ANOMALOUS = 0.6  # share of the scenarios that hold anomalies


def generate(directory: Path, size: str = "small", seed: int = 0) -> None:
    """Write the sample into `directory`; `size`: one of SIZES."""
    counts, frames, camera, lidar = SIZES[size]
    root = directory / "Final_Output_2024_06_01-12_00"
    configurations = root / "Scenario_Configuration_Files"
    configurations.mkdir(parents=True, exist_ok=True)
    plans = _draw_plans(counts, frames, seed)
    work = partial(_write, root, frames, camera, lidar, seed)
    entries = in_processes(work, plans, count_processes(plans, few=8))
    towns: dict[str, list] = {}
    split: dict[str, list] = {part: [] for part in PARTS}
    for plan, entry in zip(plans, entries, strict=True):
        towns.setdefault(plan["town"], []).append(entry)
        split[plan["part"]].append(f"Scenario_{entry['id']}")
    write_json(directory / "split.json", split, indent=1)
    about = {"synthetic": True, "kind": "anovox", "version": VERSION, "size": size, "seed": seed}
    write_json(directory / "SYNTHETIC.json", about | {"held_out_towns": HELD_OUT_TOWNS}, indent=1)
    for town, scenarios in towns.items():
        definition = {"scenario_definition": {"map": town, "scenarios": scenarios}}
        path = configurations / f"scenario_config_map_{town}.json"
        path.write_text(json.dumps(definition, indent=4))


def _draw_plans(counts: tuple[int, int, int], frames: int, seed: int) -> list[dict]:
    """Part, town, anomalous or not, and kinds of events of each scenario; shares are exact in each part."""
    rng = np.random.default_rng([seed, 0])
    plans = []
    for part, count in zip(PARTS, counts, strict=True):
        towns = HELD_OUT_TOWNS if part == "test" else TRAIN_TOWNS
        anomalous = round(ANOMALOUS * count)
        for is_anomalous, members in ((True, anomalous), (False, count - anomalous)):
            bounds = np.round(np.cumsum((0, *SHARES)) * (members * frames)).astype(int)
            kinds = rng.permutation(np.repeat(KINDS, np.diff(bounds))).reshape(members, frames)
            for k, row in enumerate(kinds.tolist()):
                plan = {"part": part, "town": towns[k % len(towns)], "anomalous": is_anomalous}
                plans.append(plan | {"kinds": row, "number": len(plans)})
    return plans


def _write(root: Path, frames: int, camera, lidar, seed: int, plan: dict) -> dict:
    """Write one scenario; returns its entry for Scenario_Configuration_Files."""
    key, held_out = [seed, 1, plan["number"]], plan["part"] == "test"
    scenario = plan_scenario(plan["town"], plan["anomalous"], plan["kinds"], held_out, frames, key)
    identifier = str(uuid.UUID(bytes=np.random.default_rng([*key, 1]).bytes(16), version=4))
    write_scenario(root / f"Scenario_{identifier}", scenario, camera, lidar, [*key, 2])
    return scenario_entry(identifier, scenario)
