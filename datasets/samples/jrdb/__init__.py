"""Built-in JRDB sample: people around a robot's panoramic camera, in the true layout of the data set.

    images/image_stitched/SEQUENCE/000015.jpg ..                 3760x480 panoramas, one per second
    labels/labels_2d_activity_social_stitched/SEQUENCE.json      boxes, groups, interactions
    split.json  SYNTHETIC.json

Interacting groups and look-alike clusters of strangers share posture, spacing and motion; facing, gaze and
gesture tell them apart. Sizes: tiny (752x96, for tests), small (the default, 30 sequences of 10 s), full (39
of 30 s). The files are byte-equal for the same size and seed, whatever the number of workers.
"""

import json
from functools import partial
from pathlib import Path

from datasets.samples import in_processes
from datasets.samples.jrdb.labels import sequence_labels
from datasets.samples.jrdb.plan import SIZES as SIZES
from datasets.samples.jrdb.plan import SequencePlan, plan_sample
from datasets.samples.jrdb.render import render_sequence

VERSION = 5
IMAGE_FOLDER = Path("images") / "image_stitched"
LABEL_FOLDER = Path("labels") / "labels_2d_activity_social_stitched"


def generate(directory: Path, size: str = "small", seed: int = 0, workers: int | None = None) -> None:
    """Write the sample into `directory`; `workers` processes, default: one per core."""
    directory = Path(directory)
    plans = plan_sample(size, seed)
    (directory / LABEL_FOLDER).mkdir(parents=True, exist_ok=True)
    plans.sort(key=lambda plan: -len(plan.clusters))  # the longest first, so that no worker ends late
    in_processes(partial(write_sequence, directory), plans, workers)
    roles = ("train", "val", "test")
    split = {role: sorted(plan.name for plan in plans if plan.role == role) for role in roles}
    write_json(directory / "split.json", split, indent=2)
    about = {
        "synthetic": True,
        "what": "pictures of a made-up world in the layout of JRDB; they say nothing about real people",
        "generator": "datasets/samples/jrdb",
        "version": VERSION,
        "size": size,
        "seed": seed,
    }
    write_json(directory / "SYNTHETIC.json", about, indent=2)


def write_sequence(directory: Path, plan: SequencePlan) -> None:
    folder = directory / IMAGE_FOLDER / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    scene, frames = render_sequence(plan, folder)
    write_json(directory / LABEL_FOLDER / f"{plan.name}.json", sequence_labels(plan, scene, frames))


def write_json(path: Path, content: dict, indent: int | None = None) -> None:
    path.write_text(json.dumps(content, indent=indent) + "\n")
