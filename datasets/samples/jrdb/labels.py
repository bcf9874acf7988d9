"""The annotations, in the layout of the real JSON files and with their flaws."""

import itertools

import numpy as np

from datasets.samples.jrdb.plan import ACTIVITIES, Cluster
from datasets.samples.jrdb.world import Seen

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
        number, action = seen.person.number, ACTIONS[seen.pose.posture]
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
