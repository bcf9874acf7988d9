"""A small JRDB folder of labels without images, where geometry tells who interacts: pairs of equal height."""

import json
from pathlib import Path

import numpy as np

from datasets.jrdb.labels import LABEL_FOLDER

TYPES = ("walking together", "standing together", "conversation", "sitting together", "hugging")


def record(
    person: int, box: list[int], group: int, partner: int | None = None, name: str = "walking together"
) -> dict:
    """One person of one frame in the real files' fields."""
    interactions = [] if partner is None else [{"pair": f"pedestrian:{partner}", "inter_labels": {name: 1}}]
    return {
        "box": box,
        "label_id": f"pedestrian:{person}",
        "file_id": "000000.jpg",
        "social_group": {"cluster_ID": group, "cluster_stat": 1},
        "H-interaction": interactions,
    }


def write_sequence(folder: Path, name: str, frames: dict[str, list[dict]]) -> Path:
    """labels/.../NAME.json with {frame key: records}."""
    path = folder / LABEL_FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"labels": frames}))
    return path


def write_world(
    folder: Path,
    parts: dict[str, int],
    frames: int = 12,
    couples: int = 4,
    seed: int = 0,
    types: tuple[str, ...] = TYPES,
) -> Path:
    """`parts` = sequences per split. Each frame holds couples of equal height, and couples of strangers as
    near.

    A couple's type goes with its height, the first of `types` being the smallest."""
    rng = np.random.default_rng(seed)
    split = {part: [f"{part}-{k}_0" for k in range(count)] for part, count in parts.items()}
    for names in split.values():
        for name in names:
            drawn = {f"{15 * t:06d}.jpg": one_frame(rng, couples, types) for t in range(frames)}
            write_sequence(folder, name, drawn)
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def one_frame(rng: np.random.Generator, couples: int, types: tuple[str, ...]) -> list[dict]:
    records = []
    for k in range(2 * couples):
        together = k % 2 == 0
        height = int(rng.integers(100, 200))
        other = height + int(rng.integers(-4, 5)) if together else int(height * rng.uniform(0.5, 0.8))
        name = types[(height - 100) * len(types) // 100]
        x, gap = int(rng.integers(0, 3760)), int(rng.integers(20, 90))
        for person, h, left in ((2 * k, height, x), (2 * k + 1, other, (x + gap) % 3760)):
            box = [left, 300 - h // 2, h // 3, h]
            partner = (person ^ 1) if together else None
            records.append(record(person, box, k if together else 100 + person, partner, name))
    return records
