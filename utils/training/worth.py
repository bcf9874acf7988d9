"""What each input is worth to a model: how much a metric gets worse if samples exchange that input."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

TOGETHER = {"points": ("point_mask", "point_pixels")}


class MixedUp:
    """A loader that exchanges one input between the samples of each batch (often frames of the same group).
    name: a key of the batch, which takes those of TOGETHER along, or "history": the columns of the geometry
    that describe the past."""

    def __init__(self, loader: DataLoader, name: str):
        self.loader, self.name, self.dataset = loader, name, loader.dataset

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        name = "geometry" if self.name == "history" else self.name
        for batch in self.loader:
            # Seeded by the batch, so that the order is the same for any number of processes.
            generator = torch.Generator().manual_seed(int(batch["indices"][0]))
            order = torch.randperm(len(batch[name]), generator=generator)
            mixed = {key: batch[key][order] for key in (name, *TOGETHER.get(name, ()))}
            if self.name == "history":  # the other columns stay
                present = np.setdiff1d(range(batch[name].shape[1]), self.dataset.past_columns)
                mixed[name][:, present] = batch[name][:, present]
            yield batch | mixed


def in_words(worth: dict[str, Any]) -> str:
    """'auroc 0.871; 0.622 with crops mixed up, 0.804 with geometry mixed up'."""
    parts = ", ".join(f"{value:.3f} with {name} mixed up" for name, value in worth["without"].items())
    return f"{worth['figure']} {worth['all']:.3f}; {parts}"


def rolled(inputs: tuple, name: str) -> tuple | None:
    """A model's inputs with one of them shifted by one row; None if that changes nothing."""
    if isinstance(inputs[0], dict):
        old, new = inputs[0][name], inputs[0][name].roll(1, 0)
        return None if torch.equal(old, new) else (inputs[0] | {name: new}, *inputs[1:])
    place = slice(0, 1) if name == "images" else slice(1, None)  # points, their mask and their pixels
    changed = list(inputs)
    changed[place] = [value.roll(1, 0) for value in inputs[place]]
    first = place.start
    return None if torch.equal(changed[first], inputs[first]) else tuple(changed)
