"""The annotations of one sequence, in the true JSON layout and with the blemishes of the real files."""

from dataclasses import dataclass

import numpy as np

from datasets.samples.jrdb.plan import ACTIVITIES, Cluster, SequencePlan
from datasets.samples.jrdb.render import Placed, frame_key
from datasets.samples.jrdb.world import Scene

OMITTED = 0.15  # share of the pairs in groups of three and more that nobody annotated
CHAINS = 0.10  # share of such groups annotated as a chain A-B-C only
DOUBLE = {"conversation": 0.12, "sitting": 0.08}  # share with a second label; rarer activities always
ONE_SIDED, CONFLICTING = 0.03, 0.02  # shares of pairs
# Two annotators rarely differ wildly: the second one writes the plainer name.
PLAINER = dict.fromkeys(("conversation", "sitting together"), "standing together")
PLAINER["standing together"] = "walking together"
ACTIONS = {"walk": "walking", "stand": "standing", "sit": "sitting", "cycle": "cycling", "bend": "bending",
           "stairs": "going upstairs"}  # fmt: skip


@dataclass
class Edge:
    """An annotated pair of one group: names with difficulty in both directions; empty = not written."""

    forward: dict[str, int]
    backward: dict[str, int]


def difficulty(rng: np.random.Generator) -> int:
    return int(rng.choice([1, 2, 3], p=[0.84, 0.12, 0.04]))


def group_edges(cluster: Cluster, rng: np.random.Generator) -> dict[tuple[int, int], Edge]:
    """Which members (positions i < j) are annotated as interacting, and how."""
    n = cluster.size
    columns = -(-n // 3)
    chain = n >= 3 and rng.random() < CHAINS
    _, name, _ = ACTIVITIES[cluster.activity]
    edges = {}
    for i in range(n):
        for j in range(i + 1, n):
            if cluster.activity == "lecture":  # neighbours in a row; the others are left to inference
                keep = j == i + 1 and j % columns
            else:
                keep = j == i + 1 if chain else n == 2 or rng.random() >= OMITTED
            if not keep:
                continue
            names = {name: difficulty(rng)}
            if cluster.second and rng.random() < DOUBLE.get(cluster.activity, 1.0):
                names[cluster.second] = difficulty(rng)
            edge = Edge(dict(names), dict(names))
            draw = rng.random()
            if draw < ONE_SIDED:
                edge.backward = {}
            elif draw < ONE_SIDED + CONFLICTING and name in PLAINER and len(names) == 1:
                edge.backward = {PLAINER[name]: 1}
            edges[i, j] = edge
    return edges


def occlusion_name(hidden: float) -> str:
    names = ("Fully_visible", "Mostly_visible", "Severely_occluded", "Fully_occluded")
    return names[int(np.searchsorted([0.10, 0.45, 0.90], hidden))]


def sequence_labels(plan: SequencePlan, scene: Scene, frames: list[list[Placed]]) -> dict:
    """{"labels": {"000015.jpg": [record, ..]}}: what the label file of one sequence holds."""
    rng = plan.random("labels")
    edges = [group_edges(cluster, rng) if cluster.engaged else {} for cluster in plan.clusters]
    ids = rng.permutation(scene.number)  # numbers tell nothing about groups
    partners: dict[
        tuple[int, int], list[tuple[int, dict]]
    ] = {}  # (cluster, person): (partner, names), by number
    for cluster, (members, found) in enumerate(zip(scene.members, edges, strict=True)):
        for (i, j), edge in found.items():
            for a, b, names in ((i, j, edge.forward), (j, i, edge.backward)):
                if names:
                    partners.setdefault((cluster, members[a].number), []).append((members[b].number, names))
    labels = {}
    for t, people in enumerate(frames):
        boxes = {placed.seen.person.number: placed.box for placed in people}
        records = []
        for placed in people:
            listed = partners.get((placed.seen.cluster, placed.seen.person.number), [])
            if listed and rng.random() < 0.004:
                continue  # an annotator missed this person; the partners' entries remain
            here = [(other, boxes[other], names) for other, names in listed if other in boxes]
            records.append(person_record(plan, placed, t, ids, here, rng))
        labels[frame_key(t)] = [records[k] for k in rng.permutation(len(records))]
    return {"labels": labels}


def person_record(
    plan: SequencePlan, placed: Placed, t: int, ids: np.ndarray, listed: list[tuple], rng: np.random.Generator
) -> dict:
    pose = placed.seen.pose
    number = placed.seen.person.number
    action = "going downstairs" if pose.stairs < 0 else ACTIONS[pose.posture]
    actions = {action: difficulty(rng)}
    if "raised" in pose.arms:
        actions["talking to someone"] = 2
    if "phone" in pose.arms:
        actions["talking on the phone"] = 1
    grouped = placed.seen.member
    x, y, w, h = placed.box
    return {
        "box": [x, y, w, h],
        "label_id": f"pedestrian:{ids[number - 1] + 1}",
        "file_id": frame_key(max(0, t - 1)) if rng.random() < 0.02 else frame_key(t),
        "attributes": {
            "area": float(w * h),
            "interpolated": bool(rng.random() < 0.1),
            "no_eval": bool(placed.hidden > 0.95 or rng.random() < 0.01),
            "occlusion": occlusion_name(placed.hidden),
            "truncated": "true" if placed.truncated else "false",
        },
        "action_label": actions,
        "social_activity": {action: 1} if grouped else {},
        "social_group": {
            "cluster_ID": placed.seen.cluster + 1 if grouped else 1000 + int(ids[number - 1]),
            "cluster_stat": difficulty(rng),
        },
        "H-interaction": [
            {"pair": f"pedestrian:{ids[other - 1] + 1}", "box_pair": list(box), "inter_labels": dict(names)}
            for other, box, names in listed
        ],
        "demographics_info": [],
        "group_info": [{"venue": {"square" if plan.outdoor else "hall": "1"}, "aim": {"socializing": "1"}}]
        if grouped
        else [],
    }
