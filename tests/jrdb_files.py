"""Small JRDB folders for tests."""

import json
from argparse import Namespace
from pathlib import Path

from datasets.jrdb.flags import LabelRules
from datasets.jrdb.labels import LABEL_FOLDER, Sequence, read_sequences
from datasets.jrdb.load import PairDatasets, build_datasets
from datasets.splits import Choose

FLAGS = {
    "features": "geometry", "image_size": (128, 64), "split_method": "auto", "fold": None, "seed": 42,
    "cache_dir": None, "cache_limit_gb": 4.0, "pairs_per_sequence": 1500,
}  # fmt: skip


def load(
    folder: Path, task: str = "interaction", choose: Choose | None = None, **flags: object
) -> PairDatasets:
    """The splits of a folder as the scripts read it with these flags; choose: as evaluate.py."""
    return build_datasets(Namespace(data_path=folder, **FLAGS | flags), task, choose)


def read(path: Path, data_path: Path | None = None, rules: LabelRules | None = None) -> Sequence:
    """The sequence of one label file."""
    return read_sequences([path], data_path, rules)[0]


def person(number: int, box: list, group: int | None = None, **interactions: str) -> dict:
    """One record; interactions as pedestrian_2="conversation" or with several names, separated by commas."""
    entries = [
        {"pair": partner.replace("_", ":"), "inter_labels": dict.fromkeys(filter(None, names.split(",")), 1)}
        for partner, names in interactions.items()
    ]
    record = {"label_id": f"pedestrian:{number}", "box": box, "H-interaction": entries}
    return record if group is None else record | {"social_group": {"cluster_ID": group, "cluster_stat": 1}}


def write_labels(folder: Path, name: str, labels: object, down: int = 0) -> Path:
    """Write a label file; `labels` is the content of its key "labels", or the text of the whole file.

    down: pixels that everybody is moved by, which makes another sequence of the same scene."""
    for record in sum(labels.values(), []) if down else ():
        record["box"][1] += down
    path = folder / LABEL_FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(labels if isinstance(labels, str) else json.dumps({"labels": labels}))
    return path


def crowd(frames: int = 4, start: int = 15) -> dict[str, list[dict]]:
    """A small scene: a triple 1-2, 2-3 (1-3 unnamed), a couple far apart, a loner, two on the seam."""
    return {
        f"{start + 15 * i:06d}.jpg": [
            person(1, [100 + i, 200, 60, 150], 1, pedestrian_2="walking together"),
            person(
                2, [180 + i, 200, 60, 150], 1, pedestrian_1="walking together", pedestrian_3="conversation"
            ),
            person(3, [260 + i, 200, 60, 150], 1, pedestrian_2="conversation"),
            person(4, [340, 200, 60, 150], 2, pedestrian_5="sitting together"),
            person(5, [1500, 200, 60, 150], 2, pedestrian_4="sitting together"),
            person(6, [1400, 210, 50, 140], 3),
            person(7, [3720, 210, 60, 140], 4),
            person(10, [10, 210, 60, 140], 4),
        ]
        for i in range(frames)
    }
