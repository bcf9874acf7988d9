"""The built-in JRDB sample: people around a robot's panoramic camera, in the layout of the real data set.

    images/image_stitched/SEQUENCE/000015.jpg ..                 3760x480 panoramas, one per second
    labels/labels_2d_activity_social_stitched/SEQUENCE.json      boxes, groups, interactions
    split.json  SYNTHETIC.json

Interacting groups and clusters of strangers have the same postures, spacing and motion; only facing, gaze and
gestures distinguish them. Sizes: tiny (752x96, for tests), small (default, 30 sequences of 10 s), full (39 of
30 s). The same size and seed give the same bytes, whatever the number of workers.
"""

import itertools
import math
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from datasets.cache import count_processes, in_processes
from datasets.jrdb.labels import IMAGE_FOLDER, LABEL_FOLDER
from datasets.samples import write_json
from datasets.samples.jrdb.figure import CAMERA_HEIGHT, Seen, Sketch, draw_sketch, extent
from datasets.samples.jrdb.plan import ACTIVITIES, Cluster, SequencePlan, plan_sample
from datasets.samples.jrdb.plan import SIZES as SIZES
from datasets.samples.jrdb.scenery import HORIZON, draw_scenery
from datasets.samples.jrdb.world import watch
from datasets.splits import PARTS

VERSION = 6
STATEMENT = "pictures of a made-up world in the layout of JRDB; they say nothing about real people"

# Annotations have the flaws of the real ones.
BOX_SLACK = 0.03  # inaccuracy of annotated boxes: sd, as a share of the body's height
STRIDE = 15  # one labelled frame per second at 15 frames per second, like the real keyframes
OMITTED = 0.15  # share of unannotated pairs in groups of three or more
CHAINS = 0.10  # share of these groups that are annotated only as a chain A-B-C
DOUBLE = 0.10  # share of pairs with a second label; rarer activities always have it
ONE_SIDED, CONFLICTING = 0.03, 0.02  # shares of pairs
# Annotators rarely disagree wildly: in a conflicting pair, the second one writes the less specific name.
PLAINER = dict.fromkeys(("conversation", "sitting together"), "standing together")
PLAINER["standing together"] = "walking together"
ACTIONS = {"walk": "walking", "stand": "standing", "sit": "sitting", "cycle": "cycling", "bend": "bending",
           "upstairs": "going upstairs", "downstairs": "going downstairs"}  # fmt: skip

Box = tuple[int, int, int, int]
Edges = dict[tuple[int, int], dict[str, int]]  # two places in a cluster -> {name: difficulty}


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


def box_of(body: list, x: float, y: float, scale: float, size: tuple[int, int], rng) -> Box | None:
    """The box of discs (x, y, radius) in metres around the standing point (x, y) in pixels; None if tiny."""
    width, height = size
    x0, y0, x1, y1 = extent(body)
    # Left and right, where the arms are, are less accurate than top and bottom.
    slack = rng.normal(0, BOX_SLACK, 4) * (scale * (y1 - y0)) * (0.7, 0.7, 0.4, 0.4)
    left, right = x + x0 * scale + slack[0], x + x1 * scale + slack[1]
    top, bottom = max(y - y1 * scale + slack[2], 0.0), min(y - y0 * scale + slack[3], float(height))
    w, h = round(right - left), round(bottom - top)
    if w < 2 or h < 4:
        return None
    return math.floor(left) % width, int(top), w, min(h, height - int(top))


def write_sequence(directory: Path, plan: SequencePlan) -> None:
    """Write the label file and the panoramas of a sequence."""
    width, height = plan.width, plan.height
    focal = width / (2 * math.pi)
    margin = max(2, height // 40)
    rng = np.random.default_rng(plan.seed)
    room = rng.uniform(20, 30) if plan.outdoor else rng.uniform(12, 18)  # metres to the nearest wall
    folder = directory / IMAGE_FOLDER / plan.name
    art = np.random.default_rng([*plan.seed, 1])
    folder.mkdir(parents=True, exist_ok=True)
    scenery = draw_scenery(width, height, margin, plan.outdoor, room, art)
    sensor = np.clip(art.normal(16, 3.2, (height, width)), 0, 32).astype(np.uint8)
    sensor = Image.fromarray(sensor).convert("RGB")
    labels, edges = {}, [annotate(cluster, rng) for cluster in plan.clusters]
    for t, (turned, everybody) in enumerate(watch(plan, room - 1.0, rng)):
        bob = int(rng.integers(-margin, margin + 1)) // 2
        window = (0, margin - bob, width, margin - bob + height)
        frame = ImageChops.offset(scenery, -round(turned * focal), 0).crop(window)
        people = []
        for seen in sorted(everybody, key=lambda seen: -seen.distance):
            scale = focal / seen.distance
            x = width / 2 + seen.azimuth * focal
            y = HORIZON * height + bob + (CAMERA_HEIGHT - seen.rise) * scale
            sketch = Sketch(seen)
            box = box_of(sketch.body, x, y, scale, (width, height), rng)
            if box:
                people.append((seen, box))
            sprite, left, top = draw_sketch(sketch, scale)
            left = (round(x) + left) % width
            for at in (left, left - width):  # the second one continues across the seam
                frame.paste(sprite, (at, round(y) + top), sprite)
        labels[frame_key(t)] = frame_records(t, people, edges, rng)
        gain = art.uniform(0.82, 1.12)
        frame = frame.point([min(255, int(v * gain)) for v in range(256)] * 3)
        frame = ImageChops.add(frame, ImageChops.offset(sensor, int(art.integers(width)), 0), 1, -16)
        frame.save(folder / frame_key(t), quality=84)
    write_json(directory / LABEL_FOLDER / f"{plan.name}.json", {"labels": labels})


def frame_key(t: int) -> str:
    return f"{(t + 1) * STRIDE:06d}.jpg"


def difficulty(rng: np.random.Generator) -> int:
    return int(rng.choice([1, 2, 3], p=[0.84, 0.12, 0.04]))


def annotate(cluster: Cluster, rng: np.random.Generator) -> Edges:
    """What each member (by place) is annotated as doing with each other member."""
    if not cluster.engaged:
        return {}
    n, name = cluster.size, ACTIVITIES[cluster.activity].name
    chain = n >= 3 and rng.random() < CHAINS
    edges = {}
    for i, j in itertools.combinations(range(n), 2):
        keep = n == 2 or rng.random() >= OMITTED
        if chain or cluster.activity == "lecture":  # only neighbours; training can infer the other pairs
            keep = j == i + 1
        if not keep:
            continue
        names = {name: difficulty(rng)}
        if cluster.second and (cluster.activity not in ("conversation", "sitting") or rng.random() < DOUBLE):
            names[cluster.second] = difficulty(rng)
        edges[i, j] = edges[j, i] = names
        draw = rng.random()
        if draw < ONE_SIDED:
            del edges[j, i]
        elif draw < ONE_SIDED + CONFLICTING and name in PLAINER:
            edges[j, i] = {PLAINER[name]: 1}
    return edges


def frame_records(t: int, people: list[tuple[Seen, Box]], edges: list[Edges], rng) -> list[dict]:
    """The records of one frame of a label file; edges: of each cluster, by `annotate`."""
    visible = {(seen.cluster, seen.place): (seen.person.number, box) for seen, box in people}
    records = []
    for seen, (x, y, w, h) in people:
        partners = [(*visible[seen.cluster, j], names) for (i, j), names in edges[seen.cluster].items()
                    if i == seen.place and (seen.cluster, j) in visible]  # fmt: skip
        if partners and rng.random() < 0.004:
            continue  # the annotator missed this person, but not the partners' entries about them
        number, action = seen.person.number, ACTIONS[seen.posture]
        records.append({
            "box": [x, y, w, h],
            "label_id": f"pedestrian:{number}",
            "file_id": frame_key(max(0, t - 1)) if rng.random() < 0.02 else frame_key(t),
            "attributes": {"area": float(w * h), "interpolated": False, "no_eval": False,
                           "occlusion": "Fully_visible", "truncated": "false"},
            "action_label": {action: difficulty(rng)},
            "social_activity": {action: 1} if seen.member else {},
            "social_group": {
                "cluster_ID": seen.cluster + 1 if seen.member else 999 + number,
                "cluster_stat": difficulty(rng),
            },
            "H-interaction": [
                {"pair": f"pedestrian:{other}", "box_pair": list(box), "inter_labels": names}
                for other, box, names in partners
            ],
            "demographics_info": [],
            "group_info": [],
        })  # fmt: skip
    return [records[k] for k in rng.permutation(len(records))]
