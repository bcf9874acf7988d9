"""The built-in JRDB sample: people around a robot's panoramic camera, in the layout of the real data set.

    images/image_stitched/SEQUENCE/000015.jpg ..                 3760x480 panoramas, one per second
    labels/labels_2d_activity_social_stitched/SEQUENCE.json      boxes, groups, interactions
    split.json  SYNTHETIC.json

Interacting groups and clusters of strangers have the same postures, spacing and motion; only facing, gaze and
gestures distinguish them. Sizes: tiny (752x96, for tests), small (default, 30 sequences of 10 s), full (39 of
30 s). The same size and seed give the same bytes, whatever the number of workers.
"""

from functools import partial
from pathlib import Path

from datasets.cache import count_processes, in_processes
from datasets.jrdb.labels import LABEL_FOLDER
from datasets.samples import write_json
from datasets.samples.jrdb.plan import SIZES as SIZES
from datasets.samples.jrdb.plan import plan_sample
from datasets.samples.jrdb.render import write_sequence
from datasets.splits import PARTS

VERSION = 6
STATEMENT = "pictures of a made-up world in the layout of JRDB; they say nothing about real people"


def generate(directory: Path, size: str = "small", seed: int = 0) -> None:
    plans = plan_sample(size, seed)
    (directory / LABEL_FOLDER).mkdir(parents=True, exist_ok=True)
    plans.sort(key=lambda plan: -len(plan.clusters))  # the slowest first, so that all workers end together
    work = partial(write_sequence, directory)
    list(in_processes(work, plans, count_processes(plans)))
    split = {part: sorted(plan.name for plan in plans if plan.role == part) for part in PARTS}
    write_json(directory / "split.json", split, indent=2)
    about = {"synthetic": True, "kind": "jrdb", "version": VERSION, "size": size, "seed": seed}
    write_json(directory / "SYNTHETIC.json", about | {"what": STATEMENT}, indent=2)
