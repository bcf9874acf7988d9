"""The built-in AnoVox sample: a small honest world for camera and LiDAR, written in the true on-disk layout.

`generate` writes scenarios (Final_Output_.../Scenario_<uuid4>/...), Scenario_Configuration_Files, split.json
and SYNTHETIC.json. One scene is ray-cast for both sensors. Test scenarios lie in held-out towns and show
held-out shapes. It depends on nothing but its arguments: the same call writes the same bytes, with any number
of processes.

sizes      scenarios x frames   camera      LiDAR
tiny       12 x 4               96 x 64     20 x 180      for tests
small      160 x 8              192 x 128   40 x 360      the default
full       320 x 8              192 x 128   40 x 360      for ablations
native     4 x 20               768 x 512   64 x 1562     the data set's own sensors
"""

from __future__ import annotations

import json
import uuid
from functools import partial
from pathlib import Path

import numpy as np

from datasets.samples import in_processes
from datasets.samples.anovox.files import scenario_entry, write_scenario
from datasets.samples.anovox.scenario import KINDS, SHARES, plan_scenario
from datasets.samples.anovox.town import HELD_OUT_TOWNS, TRAIN_TOWNS

VERSION = 5
SIZES = ("tiny", "small", "full", "native")
# scenarios in train, val, test; frames; camera (height, width); LiDAR (rings, azimuths)
_SETTINGS = {
    "tiny": ((6, 3, 3), 4, (64, 96), (20, 180)),
    "small": ((112, 16, 32), 8, (128, 192), (40, 360)),
    "full": ((200, 40, 80), 8, (128, 192), (40, 360)),
    "native": ((2, 1, 1), 20, (512, 768), (64, 1562)),
}
ANOMALOUS = 0.6  # share of the scenarios that hold anomalies


def generate(directory: Path, size: str = "small", seed: int = 0, workers: int | None = None) -> None:
    """Write the sample of one of SIZES into `directory`; `workers` = processes, default all cores."""
    if size not in _SETTINGS:
        raise ValueError(f"size {size!r} is none of {', '.join(SIZES)}")
    counts, frames, camera, lidar = _SETTINGS[size]
    directory = Path(directory)
    root = directory / "Final_Output_2024_06_01-12_00"
    configurations = root / "Scenario_Configuration_Files"
    configurations.mkdir(parents=True, exist_ok=True)
    plans = _draw_plans(counts, frames, seed)
    work = partial(_write, root, frames, camera, lidar, seed)
    entries = in_processes(work, plans, workers, few=8)

    towns: dict[str, list] = {}
    split: dict[str, list] = {"train": [], "val": [], "test": []}
    for plan, entry in zip(plans, entries, strict=True):
        towns.setdefault(plan["town"], []).append(entry)
        split[plan["part"]].append(f"Scenario_{entry['id']}")
    made_by = {"generator": "datasets/samples/anovox", "version": VERSION, "seed": seed, "size": size}
    note = {"synthetic": True, **made_by, "held_out_towns": list(HELD_OUT_TOWNS)}
    texts = {directory / "split.json": json.dumps(split, indent=1) + "\n"}
    texts |= {directory / "SYNTHETIC.json": json.dumps(note, indent=1) + "\n"}
    for town, scenarios in towns.items():
        definition = {"scenario_definition": {"map": town, "scenarios": scenarios}}
        texts[configurations / f"scenario_config_map_{town}.json"] = json.dumps(definition, indent=4)
    for path, text in texts.items():
        path.write_text(text, encoding="ascii")


def _draw_plans(counts: tuple[int, int, int], frames: int, seed: int) -> list[dict]:
    """Town, part, whether anomalous, kinds of the events of every scenario; the mix of a part is exact."""
    rng = np.random.default_rng([seed, 0])
    plans = []
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        towns = HELD_OUT_TOWNS if part == "test" else TRAIN_TOWNS
        anomalous = np.arange(count) < round(ANOMALOUS * count)
        for group in (True, False):
            members = (anomalous == group).sum()
            bounds = np.round(np.cumsum((0, *SHARES)) * (members * frames)).astype(int)
            kinds = np.repeat(KINDS, np.diff(bounds))
            kinds = rng.permutation(kinds).reshape(members, frames)
            for k, row in enumerate(kinds):
                plan = {"part": part, "town": towns[k % len(towns)], "anomalous": group}
                plans.append(plan | {"kinds": list(map(str, row)), "number": len(plans)})
    return plans


def _write(root: Path, frames: int, camera, lidar, seed: int, plan: dict) -> dict:
    """One scenario; returns its entry for Scenario_Configuration_Files."""
    key, held_out = [seed, 1, plan["number"]], plan["part"] == "test"
    scenario = plan_scenario(plan["town"], plan["anomalous"], plan["kinds"], held_out, frames, key)
    identifier = str(uuid.UUID(bytes=np.random.default_rng([*key, 1]).bytes(16), version=4))
    write_scenario(root / f"Scenario_{identifier}", scenario, camera, lidar, [*key, 2])
    return scenario_entry(identifier, scenario)
