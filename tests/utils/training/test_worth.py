"""What an input is worth: nothing where the model does not look at it, all where it looks at nothing else."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from utils.run import log
from utils.training.worth import MixedUp, in_words, input_worth


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

    worth = input_worth(measure, loader, ["images", "points"], "auroc", 1.0)
    assert worth["all"] == worth["without"]["points"] == 1
    assert worth["without"]["images"] < 0.75
    assert in_words(worth).startswith("auroc 1.000; 0.")
    mixed = torch.cat([batch["images"] for batch in MixedUp(loader, "images")])
    assert sorted(mixed.flatten().tolist()) == sorted(score(loader)["logits"].tolist()), "nothing is invented"


def test_the_figure_does_not_depend_on_the_number_of_processes(loader):
    alone, second_of_two = list(MixedUp(loader, "points")), list(MixedUp(Loader(loader[1::2]), "points"))
    assert [b["points"].tolist() for b in second_of_two] == [b["points"].tolist() for b in alone[1::2]]


def test_a_pass_of_more_than_ten_seconds_says_how_far_it_is(loader, monkeypatch):
    """A run on a slow machine ended in a TypeError, at its very end."""
    monkeypatch.setattr(log, "LOG_SECONDS", -1)
    assert len(list(log.progress(MixedUp(loader, "images"), "evaluation"))) == len(loader)
