"""Averaged weights: steadier than those of any single step, and judged in their place."""

import torch
from torch import nn


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average = d * average + (1 - d) * model, weights and statistics; whole numbers are copied.

    d = decay, less in the first steps (step counts from 0): (1 + step) / (10 + step), so that a short run
    does not stay where it began.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    now = model.state_dict()
    for name, tensor in average.state_dict().items():  # the tensors themselves, not copies
        if tensor.is_floating_point():
            tensor.lerp_(now[name], weight)
        else:
            tensor.copy_(now[name])
