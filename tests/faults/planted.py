"""The ways in which a run can look busy and learn nothing, each planted into the real pipeline of a script.

A fault is a function of (patch, script) that changes what the script calls, and returns flags to add to its
command line.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.faults.stopped_runs import SCRIPTS

Patch = pytest.MonkeyPatch
INPUTS = ("images", "points", "point_pixels", "crops", "geometry")
TRUNK = {  # the part of the model whose output gets detached
    "train_stage1": "trunk", "train_stage2": "trunk", "train_anomaly_with_labels": "image_encoder",
    "train_ddp": "encoder", "train_mae": "encoder",
}  # fmt: skip


def criterion_class(script: str) -> type[nn.Module]:
    """The class of the script's default loss."""
    module = SCRIPTS[script]
    own = {"train_stage2": "FocalLoss", "train_anomaly_with_labels": "AnomalyLoss"}
    if script in own:
        return getattr(module, own[script])
    return {"train_stage1": nn.CrossEntropyLoss, "train_ddp": nn.MSELoss, "train_mae": nn.L1Loss}[script]


def target_name(script: str) -> str:
    return "ages" if script in ("train_ddp", "train_mae") else "labels"


def change_data(patch: Patch, module: ModuleType, change: Callable[[Any], None]) -> None:
    """Apply `change` to each part of the data that the script builds."""
    build = module.build_datasets

    def changed(args):
        data = build(args)
        for part in data.parts.values():
            change(part)
        return data

    patch.setattr(module, "build_datasets", changed)


def change_batches(patch: Patch, module: ModuleType, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Apply `change` to every batch that is read."""

    def wrap(part):
        if (kind := type(part)) not in wrapped:
            wrapped.add(kind)
            read = kind.__getitems__

            def changed(self, indices):
                batch = read(self, indices)
                change(batch)
                return batch

            patch.setattr(kind, "__getitems__", changed)

    wrapped: set[type] = set()
    change_data(patch, module, wrap)


def change_model(patch: Patch, module: ModuleType, change: Callable[[nn.Module], None]) -> None:
    """Apply `change` to the model that the script builds."""
    build = module.build_model

    def changed(args):
        model, weights = build(args)
        change(model)
        return model, weights

    patch.setattr(module, "build_model", changed)


def activate(outputs: Any) -> Any:
    """Softmax of (N, K), sigmoid of (N,), also of the first of several outputs."""
    if isinstance(outputs, tuple):
        return activate(outputs[0]), *outputs[1:]
    return outputs.softmax(dim=1) if outputs.ndim == 2 else outputs.sigmoid()


def healthy(patch: Patch, script: str) -> list[str]:
    return []


def label_free_loss(patch: Patch, script: str) -> list[str]:
    """A loss of the outputs alone, as in the story of the run that 'converged' to 0.0000."""
    patch.setattr(
        criterion_class(script),
        "forward",
        lambda self, outputs, labels: outputs.reshape(len(labels), -1).square().mean(dim=1),
    )
    return []


def redrawn_labels(patch: Patch, script: str) -> list[str]:
    """Labels made up anew whenever a sample is read."""

    def redraw(batch):
        name = target_name(script)
        batch[name] = batch[name][torch.randint(len(batch[name]), (len(batch[name]),))]

    change_batches(patch, SCRIPTS[script], redraw)
    return []


def constant_labels(patch: Patch, script: str) -> list[str]:
    def same(part):
        setattr(part, target_name(script), 0 * getattr(part, target_name(script)))

    change_data(patch, SCRIPTS[script], same)
    return []


def shuffled_labels(patch: Patch, script: str) -> list[str]:
    """Labels that belong to other samples."""

    def shuffle(part):
        labels = torch.from_numpy(getattr(part, target_name(script)))
        shuffled = labels[torch.randperm(len(labels))]  # seeded by the run
        setattr(part, target_name(script), shuffled.numpy())

    change_data(patch, SCRIPTS[script], shuffle)
    return []


def zero_input(patch: Patch, script: str) -> list[str]:
    def blank(batch):
        for name in INPUTS:
            if name in batch:
                batch[name] = torch.zeros_like(batch[name])
        for name in {"left", "right"} & set(batch):  # who is near whom tells something as well
            batch[name] = torch.zeros_like(batch[name])
        if "point_mask" in batch:
            batch["point_mask"] = torch.ones_like(batch["point_mask"])

    change_batches(patch, SCRIPTS[script], blank)
    return []


def no_learning_rate(patch: Patch, script: str) -> list[str]:
    """0 itself is refused by the flag's type."""
    return ["--lr", "1e-30"]


def huge_learning_rate(patch: Patch, script: str) -> list[str]:
    return ["--lr", "1e3"]


def frozen(patch: Patch, script: str) -> list[str]:
    change_model(patch, SCRIPTS[script], lambda model: model.requires_grad_(False))
    return []


def dead_relu(patch: Patch, script: str) -> list[str]:
    patch.setattr(nn.ReLU, "forward", lambda self, inputs: torch.relu(inputs - 1e4))
    return []


def detached(patch: Patch, script: str) -> list[str]:
    """The features are cut off the graph: what computes them never learns."""

    def cut(model):
        getattr(model, TRUNK[script]).register_forward_hook(lambda part, inputs, outputs: outputs.detach())

    change_model(patch, SCRIPTS[script], cut)
    return []


def activated_twice(patch: Patch, script: str) -> list[str]:
    """The model ends in the softmax or sigmoid that the loss applies itself."""

    def end_in_probabilities(model):
        model.register_forward_hook(lambda part, inputs, outputs: activate(outputs))

    change_model(patch, SCRIPTS[script], end_in_probabilities)
    return []


def activated_in_the_loss(patch: Patch, script: str) -> list[str]:
    """The loss applies softmax or sigmoid twice."""
    forward = criterion_class(script).forward
    patch.setattr(
        criterion_class(script),
        "forward",
        lambda self, outputs, labels: forward(self, activate(outputs), labels),
    )
    return []


FAULTS = {
    function.__name__: function
    for function in (
        label_free_loss, redrawn_labels, constant_labels, shuffled_labels, zero_input, no_learning_rate,
        frozen, dead_relu, huge_learning_rate, detached, activated_twice, activated_in_the_loss,
    )
}  # fmt: skip
