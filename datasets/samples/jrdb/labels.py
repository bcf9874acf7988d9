"""The annotations of one sequence, in the true JSON layout and with the blemishes of the real files."""

import itertools

import numpy as np

from datasets.samples.jrdb.plan import ACTIVITIES, Cluster, SequencePlan
from datasets.samples.jrdb.render import frame_key
from datasets.samples.jrdb.world import Scene, Seen

OMITTED = 0.15  # share of the pairs in groups of three and more that nobody annotated
CHAINS = 0.10  # share of such groups annotated as a chain A-B-C only
DOUBLE = {"conversation": 0.12, "sitting": 0.08}  # share with a second label; rarer activities always
ONE_SIDED, CONFLICTING = 0.03, 0.02  # shares of pairs
# Two annotators rarely differ wildly: the second one writes the plainer name.
PLAINER = dict.fromkeys(("conversation", "sitting together"), "standing together")
PLAINER["standing together"] = "walking together"
ACTIONS = {"walk": "walking", "stand": "standing", "sit": "sitting", "cycle": "cycling", "bend": "bending",
           "stairs": "going upstairs"}  # fmt: skip
OCCLUSION = ("Fully_visible", "Mostly_visible", "Severely_occluded", "Fully_occluded")
Names = dict[str, int]  # interaction names with their difficulty


def difficulty(rng: np.random.Generator) -> int:
    return int(rng.choice([1, 2, 3], p=[0.84, 0.12, 0.04]))


def annotate(cluster: Cluster, rng: np.random.Generator) -> dict[tuple[int, int], tuple[Names, Names]]:
    """Which members (positions i < j) are annotated as interacting, and how in both directions."""
    n, name = cluster.size, ACTIVITIES[cluster.activity][1]
    columns = -(-n // 3)
    chain = n >= 3 and rng.random() < CHAINS
    edges = {}
    for i, j in itertools.combinations(range(n), 2):
        if cluster.activity == "lecture":  # neighbours in a row; the others are left to inference
            keep = j == i + 1 and j % columns
        else:
            keep = j == i + 1 if chain else n == 2 or rng.random() >= OMITTED
        if not keep:
            continue
        names = {name: difficulty(rng)}
        if cluster.second and rng.random() < DOUBLE.get(cluster.activity, 1.0):
            names[cluster.second] = difficulty(rng)
        back, draw = names, rng.random()
        if draw < ONE_SIDED:
            back = {}
        elif draw < ONE_SIDED + CONFLICTING and name in PLAINER and len(names) == 1:
            back = {PLAINER[name]: 1}
        edges[i, j] = names, back
    return edges


def sequence_labels(plan: SequencePlan, scene: Scene, frames: list[list[Seen]]) -> dict:
    """{"labels": {"000015.jpg": [record, ..]}}: what the label file of one sequence holds."""
    rng = plan.random("labels")
    edges = [annotate(cluster, rng) if cluster.engaged else {} for cluster in plan.clusters]
    ids = rng.permutation(scene.number) + 1  # numbers tell nothing about groups
    partners: dict[tuple[int, int], list[tuple[int, Names]]] = {}  # of (cluster, person)
    for cluster, (company, found) in enumerate(zip(scene.companies, edges, strict=True)):
        for (i, j), (forward, backward) in found.items():
            for a, b, names in ((i, j, forward), (j, i, backward)):
                if names:
                    one, other = company.members[a].number, company.members[b].number
                    partners.setdefault((cluster, one), []).append((other, names))
    labels = {}
    for t, people in enumerate(frames):
        boxes = {seen.person.number: seen.box for seen in people}
        records = []
        for seen in people:
            listed = partners.get((seen.cluster, seen.person.number), [])
            if listed and rng.random() < 0.004:
                continue  # an annotator missed this person; the partners' entries remain
            here = [(ids[other - 1], boxes[other], names) for other, names in listed if other in boxes]
            records.append(person_record(plan, seen, t, int(ids[seen.person.number - 1]), here, rng))
        labels[frame_key(t)] = [records[k] for k in rng.permutation(len(records))]
    return {"labels": labels}


def person_record(
    plan: SequencePlan, seen: Seen, t: int, number: int, listed: list[tuple], rng: np.random.Generator
) -> dict:
    pose, (x, y, w, h) = seen.pose, seen.box
    action = "going downstairs" if pose.stairs < 0 else ACTIONS[pose.posture]
    actions = {action: difficulty(rng)}
    if "raised" in pose.arms:
        actions["talking to someone"] = 2
    if "phone" in pose.arms:
        actions["talking on the phone"] = 1
    about = {"venue": {"square" if plan.outdoor else "hall": "1"}, "aim": {"socializing": "1"}}
    return {
        "box": [x, y, w, h],
        "label_id": f"pedestrian:{number}",
        "file_id": frame_key(max(0, t - 1)) if rng.random() < 0.02 else frame_key(t),
        "attributes": {
            "area": float(w * h),
            "interpolated": bool(rng.random() < 0.1),
            "no_eval": bool(seen.hidden > 0.95 or rng.random() < 0.01),
            "occlusion": OCCLUSION[int(np.searchsorted([0.10, 0.45, 0.90], seen.hidden))],
            "truncated": "true" if seen.truncated else "false",
        },
        "action_label": actions,
        "social_activity": {action: 1} if seen.member else {},
        "social_group": {
            "cluster_ID": seen.cluster + 1 if seen.member else 999 + number,
            "cluster_stat": difficulty(rng),
        },
        "H-interaction": [
            {"pair": f"pedestrian:{other}", "box_pair": list(box), "inter_labels": dict(names)}
            for other, box, names in listed
        ],
        "demographics_info": [],
        "group_info": [about] if seen.member else [],
    }
