"""Label files of JRDB's size and form, made up: what the index is measured on.

The 27 public sequences, every frame labelled: 31,116 frames, 933,240 boxes, 13.5 million pairs, 0.4 GB JSON.
"""

from pathlib import Path

import numpy as np

from datasets.jrdb.labels import LABEL_FOLDER
from datasets.jrdb.splits import OFFICIAL_TRAIN, OFFICIAL_VAL

SEQUENCES = (*OFFICIAL_TRAIN, *OFFICIAL_VAL)
FRAMES, PEOPLE, GROUP = 1153, 30, 3  # frames of a sequence, people in a frame, people in a group
RECORD = (
    '{{"action_label": {{"standing": 1}}, "attributes": {{"area": {area:.1f}, "interpolated": false, '
    '"no_eval": false, "occlusion": "Mostly_visible", "truncated": "false"}}, "box": [{x}, {y}, {w}, {h}], '
    '"file_id": "{frame:06d}.jpg", "label_id": "pedestrian:{person}", "social_activity": {{"chatting": 1}}, '
    '"social_group": {{"cluster_ID": {group}, "cluster_stat": 1}}, "H-interaction": [{entries}]}}'
)
ENTRY = (
    '{{"pair": "pedestrian:{partner}", "box_pair": [{x}, {y}, {w}, {h}], '
    '"inter_labels": {{"conversation": 1}}}}'
)


def write_world(
    folder: Path, sequences: int = len(SEQUENCES), frames: int = FRAMES, seed: int = 0
) -> list[Path]:
    """Write `sequences` label files; in every frame each person interacts with the next of its group."""
    directory = folder / LABEL_FOLDER
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, name in enumerate(SEQUENCES[:sequences]):
        rng = np.random.default_rng([seed, number])
        paths.append(directory / f"{name}.json")
        text = ",\n".join(f'"{frame:06d}.jpg": [{write_frame(frame, rng)}]' for frame in range(frames))
        paths[-1].write_text(f'{{"labels": {{{text}}}}}')
    return paths


def write_frame(frame: int, rng: np.random.Generator) -> str:
    """The records of PEOPLE people, groups of GROUP side by side somewhere on the panorama."""
    heights = rng.integers(60, 250, PEOPLE)
    widths = (0.4 * heights).astype(int)
    places = np.repeat(rng.integers(0, 3760, PEOPLE // GROUP), GROUP) + np.tile(
        np.arange(GROUP) * 60, PEOPLE // GROUP
    )
    boxes = np.stack([places % 3760, 240 - heights // 2, widths, heights], axis=1).tolist()
    records = []
    for person, (x, y, w, h) in enumerate(boxes):
        group = person // GROUP
        entries = ", ".join(
            ENTRY.format(partner=other, **dict(zip("xywh", boxes[other], strict=True)))
            for other in (person - 1, person + 1)
            if 0 <= other < PEOPLE and other // GROUP == group
        )
        records.append(
            RECORD.format(
                x=x, y=y, w=w, h=h, area=w * h, frame=frame, person=person, group=group, entries=entries
            )
        )
    return ", ".join(records)
