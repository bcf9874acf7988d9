"""Both stages together: what the groups are made of."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.jrdb.dataset import load_pair_datasets
from prediction.both_stages import judge_both_stages
from tests.jrdb_files import person, write_labels
from utils.training import distributed


def plaza() -> dict[str, list[dict]]:
    """Two who walk together; two of one group whom nobody annotated as interacting; three of whom two are."""
    return {
        f"{15 * i:06d}.jpg": [
            person(1, [100, 200, 60, 150], 1, pedestrian_2="walking together"),
            person(2, [180, 200, 60, 150], 1, pedestrian_1="walking together"),
            person(3, [900, 200, 60, 150], 2),
            person(4, [980, 200, 60, 150], 2),
            person(5, [1800, 200, 60, 150], 3, pedestrian_6="conversation"),
            person(6, [1880, 200, 60, 150], 3, pedestrian_5="conversation"),
            person(7, [1960, 200, 60, 150], 3),
            person(8, [3000, 200, 60, 150], 4),
        ]
        for i in range(1, 5)
    }  # fmt: skip


def test_a_perfect_scorer_finds_every_group(tmp_path):
    """Also those that no annotated pair holds together: predict.py scores their pairs too."""
    for name in ("a-2019-01-01_0", "b-2019-01-01_0", "c-2019-01-01_0"):
        write_labels(tmp_path, name, plaza())
    (tmp_path / "split.json").write_text(
        '{"train": ["a-2019-01-01_0"], "val": ["b-2019-01-01_0"], "test": ["c-2019-01-01_0"]}'
    )
    data = load_pair_datasets(tmp_path, task="type", cache_dir=tmp_path / "cache")
    truth = data.with_task("test", "any")

    def both_stages(batch):
        same = truth.social_groups[truth.left] == truth.social_groups[truth.right]
        chosen = torch.from_numpy(same[batch["indices"].numpy()].astype(float))
        return 40 * torch.stack([1 - chosen, chosen], 1), torch.zeros(len(chosen), 5)

    cpu = torch.device("cpu")
    state = {"threshold": 0.5, "calibration": {"slope": 1.0, "offset": 0.0}, "temperature": 1.0}
    trained = SimpleNamespace(
        model=SimpleNamespace(both_stages=both_stages), device=cpu, state=state,
        batches_of=lambda part: distributed.evaluation_loader(part, 64, distributed.Processes(0, 1, cpu)),
    )  # fmt: skip
    found = judge_both_stages(trained, data, "test", tmp_path)
    groups = {name: row["ap"] for name, row in found["social_groups"].items() if row["true_groups"]}
    assert groups == {"G1": pytest.approx(1), "G2": pytest.approx(1), "G3": pytest.approx(1)}
    counts = np.array(found["confusion"])
    assert counts[1:].sum() == 4 * 2 and counts.sum() == 4 * (28 - 3)  # ambiguous pairs have no true outcome
