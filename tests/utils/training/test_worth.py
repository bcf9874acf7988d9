"""What an input is worth: nothing where the model does not look at it, all where it looks at nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from utils.run import log
from utils.tasks import TASKS
from utils.training.learning import LearningCheck
from utils.training.worth import MixedUp, in_words, rolled


class Loader(list):
    """Batches of a data set with 40 samples, of which the images say the label and the scans say nothing."""

    dataset = None


@pytest.fixture
def loader():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images, points = labels[:, None].float(), torch.rand(40, 1, generator=generator)
    parts = {"images": images, "points": points, "point_mask": points > 0.5, "point_pixels": -points}
    parts |= {"labels": labels, "indices": torch.arange(40)}
    return Loader({k: v[i : i + 10] for k, v in parts.items()} for i in range(0, 40, 10))


def score(loader) -> dict[str, np.ndarray]:
    batches = list(loader)
    for batch in batches:  # what belongs to the points travels with them
        assert torch.equal(batch["point_mask"], batch["points"] > 0.5)
    return {
        k: torch.cat([b[n].flatten() for b in batches]).numpy()
        for k, n in (("labels", "labels"), ("logits", "images"))
    }


def test_what_the_model_looks_at_is_worth_all(loader):
    def measure(loader) -> dict[str, float]:
        rows = score(loader)
        return {"loss": -1, "auroc": roc_auc_score(rows["labels"], rows["logits"])}

    watched = SimpleNamespace(loaders={"val": loader}, inputs=["images", "points"])
    check = SimpleNamespace(task=TASKS["train_stage1.py"], invariants=watched)
    worth = LearningCheck.input_worth(check, measure, {"val": measure(loader)})
    watched.loaders = {"val": None, "test": loader}
    assert LearningCheck.input_worth(check, measure, {"val": {}, "test": measure(loader)}) == worth
    assert worth["all"] == worth["without"]["points"] == 1
    assert worth["without"]["images"] < 0.75
    assert in_words(worth).startswith("auroc 1.000; 0.")
    mixed = torch.cat([batch["images"] for batch in MixedUp(loader, "images")])
    assert sorted(mixed.flatten().tolist()) == sorted(score(loader)["logits"].tolist()), "nothing is invented"


def test_the_figure_does_not_depend_on_the_number_of_processes(loader):
    alone, second_of_two = list(MixedUp(loader, "points")), list(MixedUp(Loader(loader[1::2]), "points"))
    assert [b["points"].tolist() for b in second_of_two] == [b["points"].tolist() for b in alone[1::2]]


def test_of_the_geometry_only_the_past_is_mixed_up():
    geometry = torch.arange(40.0).reshape(10, 4)
    loader = Loader([{"geometry": geometry, "indices": torch.arange(10)}])
    loader.dataset = SimpleNamespace(past_columns=[2, 3])
    (mixed,) = (batch["geometry"] for batch in MixedUp(loader, "history"))
    assert torch.equal(mixed[:, :2], geometry[:, :2]) and not torch.equal(mixed[:, 2:], geometry[:, 2:])
    assert torch.equal(mixed[:, 2:].sort(dim=0).values, geometry[:, 2:])
    watched = SimpleNamespace(loaders={"val": loader}, inputs=["geometry"])
    check = SimpleNamespace(task=TASKS["train_stage1.py"], invariants=watched)
    for columns, named in (([2, 3], ["geometry", "history"]), ([], ["geometry"])):
        loader.dataset.past_columns = columns
        worth = LearningCheck.input_worth(check, lambda loader: {"auroc": 0.5}, {"val": {"auroc": 1.0}})
        assert list(worth["without"]) == named


def test_points_are_shifted_with_their_mask_and_pixels():
    images, *points = (torch.arange(3.0)[:, None] + k for k in range(4))
    assert [part[:, 0].tolist() for part in rolled((images, *points), "points")] == [
        [0, 1, 2], [3, 1, 2], [4, 2, 3], [5, 3, 4],
    ]  # fmt: skip
    assert rolled((images, *points), "images")[0][:, 0].tolist() == [2, 0, 1]
    assert rolled((images * 0, *points), "images") is None


def test_a_pass_of_more_than_ten_seconds_says_how_far_it_is(loader, monkeypatch):
    """A run on a slow machine ended in a TypeError, at its very end."""
    monkeypatch.setattr(log, "LOG_SECONDS", -1)
    assert len(list(log.progress(MixedUp(loader, "images"), "evaluation"))) == len(loader)
